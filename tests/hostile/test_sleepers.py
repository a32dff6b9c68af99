# SPDX-License-Identifier: BSD-2-Clause
"""The peer goes and comes back while the program sleeps, in every way there is to sleep: it sleeps on, wakes
for the first frame of the next peer, and nothing that was acknowledged is lost or doubled."""
import contextlib
import os
import struct

import pytest

from lab.proc import Proc, preload_env
from lab.vhostpeer import BackEnd, FrontEnd
from hostile.victim import stats, until

START = """
import errno, os, select, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
def number(f):
    return struct.unpack_from("!I", f, 14)[0]
def frame(n):
    return bytes(12) + b"\\x88\\xb5" + struct.pack("!I", n) + bytes(42)
def drain():
    while True:
        try:
            s.send(s.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
print("ready", flush=True)
"""
# Each echoes every frame; the number of wake-ups goes to standard output, once a wake-up.
SLEEP = {
    "recv": "while True: s.send(s.recv(4096)); print('woken', flush=True)",
    "recv with SO_RCVTIMEO": """
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 3600, 0))
while True: s.send(s.recv(4096)); print('woken', flush=True)
""",
    "recvmmsg": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class V(ctypes.Structure): _fields_ = [("b", ctypes.c_void_p), ("n", ctypes.c_size_t)]
class H(ctypes.Structure): _fields_ = [("name", ctypes.c_void_p), ("nl", ctypes.c_uint32), ("iov", ctypes.POINTER(V)),
    ("il", ctypes.c_size_t), ("c", ctypes.c_void_p), ("cl", ctypes.c_size_t), ("f", ctypes.c_int)]
class M(ctypes.Structure): _fields_ = [("h", H), ("len", ctypes.c_uint)]
bufs = [ctypes.create_string_buffer(2048) for _ in range(4)]
m, v = (M * 4)(), (V * 4)()
for i in range(4):
    v[i] = V(ctypes.addressof(bufs[i]), 2048)
    m[i].h.iov, m[i].h.il = ctypes.pointer(v[i]), 1
while True:
    n = libc.recvmmsg(s.fileno(), m, 4, 0x10000, None)
    assert n > 0, ctypes.get_errno()
    for i in range(n): s.send(bufs[i].raw[:m[i].len])
    print('woken', flush=True)
""",
    "poll": """
p = select.poll()
p.register(s, select.POLLIN)
while True:
    assert p.poll() == [(s.fileno(), select.POLLIN)]
    drain(); print('woken', flush=True)
""",
    "select": """
while True:
    assert select.select([s], [], [s]) == ([s], [], [])
    drain(); print('woken', flush=True)
""",
    "epoll": """
p = select.epoll()
p.register(s, select.EPOLLIN)
while True:
    assert p.poll() == [(s.fileno(), select.EPOLLIN)]
    drain(); print('woken', flush=True)
""",
    "epoll, edge": """
p = select.epoll()
p.register(s, select.EPOLLIN | select.EPOLLET)
while True:
    assert p.poll() == [(s.fileno(), select.EPOLLIN)]
    drain(); print('woken', flush=True)
""",
    "epoll, oneshot": """
p = select.epoll()
p.register(s, select.EPOLLIN | select.EPOLLONESHOT)
while True:
    assert p.poll() == [(s.fileno(), select.EPOLLIN)]
    drain(); print('woken', flush=True)
    p.modify(s, select.EPOLLIN | select.EPOLLONESHOT)
""",
}
ROLES = {"backend": FrontEnd, "frontend": BackEnd}
ROLE = pytest.mark.parametrize("role", ROLES)
MODE = pytest.mark.parametrize("mode", ["connect", "listen"])  # the program's; the peer does the other


def frame(n):
    return bytes(12) + b"\x88\xb5" + struct.pack("!I", n) + bytes(42)


def number(data):
    return struct.unpack_from("!I", data, 14)[0]


@contextlib.contextmanager
def program(code, sock, role, mode="connect", **variables):
    """A Python program under the preload."""
    env = preload_env(f"pd0=vhost-user:{sock},role={role},mode={mode},ring=64", **variables)
    with Proc(["/usr/bin/python3", "-c", START + code], env=env) as p:
        p.expect("ready\n")
        yield p


def arms(p):
    return stats(p.pid)["lane"][0]["counters"]["rx_arms"]


def link(p):
    return stats(p.pid)["port"][0]["counters"]["link"]


def start(peer, new=True):
    """Let the peer come: a new one, or the one that has the rings it had."""
    if isinstance(peer, FrontEnd):
        if new:
            peer.reset_rings()
        peer.start_like_qemu()
        if new:
            peer.post_rx([2048] * 32)
    else:
        peer.wait_started()


def go(peer, p):
    """Let it go, and wait until that was seen."""
    peer.drop()
    until(lambda: not link(p), "the link's end")


@MODE
@ROLE
@pytest.mark.parametrize("way", SLEEP)
def test_receivers(sock, way, role, mode):
    """It sleeps before there is a peer, while it is there, and while there is none again."""
    with ROLES[role](sock, listen=mode == "connect") as peer, program(SLEEP[way], sock, role, mode) as p:
        for life in range(6):
            start(peer, life % 3 != 1)
            for n in range(3):
                peer.send(frame(10 * life + n))
                assert number(peer.recv().frame) == 10 * life + n
                p.expect("woken")
            until(lambda: link(p), "the link")
            go(peer, p)
        assert p.text.count("woken") == 18, p.text
        assert p.running


@ROLE
@pytest.mark.parametrize("way", SLEEP)
def test_the_first_frame_is_there_before_the_link(sock, way, role):
    """A peer that has frames in its ring when it starts: they wake the sleeper, and can be answered."""
    with ROLES[role](sock, listen=True) as peer, program(SLEEP[way], sock, role) as p:
        for life in range(10):
            if role == "backend":
                peer.drop()
                peer.reset_rings()
                for n in range(3):
                    peer.send(frame(10 * life + n))
                peer.post_rx([2048] * 32)
                peer.start_like_qemu()
            else:
                peer.drop()
                peer.wait_started()
                for n in range(3):
                    peer.send(frame(10 * life + n))
            for n in range(3):
                assert number(peer.recv().frame) == 10 * life + n
            until(lambda: link(p), "the link")
            go(peer, p)
        assert p.running


# Sends 0, 1, 2...; a frame counts as sent when the call returned.
SENDER = """
n = 0
while True:
    try:
        how(frame(n))
        n += 1
        os.write(1, b"%d\\n" % n)
    except OSError as e:
        if e.errno != errno.ENETDOWN:
            raise
        os.write(1, b"down\\n")
        sys.stdin.readline()
"""
SEND = {
    "send": "how = s.send\n",
    "poll": """
p = select.poll()
p.register(s, select.POLLOUT)
def how(f):
    while True:
        assert [e & select.POLLOUT for _, e in p.poll()]
        try:
            return s.send(f, socket.MSG_DONTWAIT)
        except OSError as x:
            if x.errno not in (errno.EAGAIN, errno.ENETDOWN):
                raise
""",
    "epoll, edge": """
ep = select.epoll()
ep.register(s, select.EPOLLOUT | select.EPOLLET)
def how(f):
    while True:
        try:
            return s.send(f, socket.MSG_DONTWAIT)
        except OSError as x:
            if x.errno not in (errno.EAGAIN, errno.ENETDOWN):
                raise
            ep.poll()
""",
}
SENDS = pytest.mark.parametrize("way", SEND)


def sent(p):
    """How many sends have returned."""
    lines = [x for x in p.text.split("\n") if x.isdigit()]
    return int(lines[-1]) if lines else 0


def full(p, count):
    """Wait until the ring is full: that many sends have returned, and the next sleeps."""
    until(lambda: sent(p) >= count, f"{count} frames")
    assert sent(p) == count


@MODE
@SENDS
def test_senders_as_back_end(sock, way, mode):
    """A full ring is that of the peer that has gone: the next one gets what comes after."""
    with FrontEnd(sock, ring=64, listen=mode == "connect") as fe, \
            program(SEND[way] + SENDER, sock, "backend", mode, SEND_WHEN_DOWN="wait") as p:
        n = 0
        for life in range(6):
            fe.drop()
            fe.reset_rings()
            fe.start_like_qemu()
            fe.post_rx([2048] * 64, refill=False)
            for _ in range(64):
                assert number(fe.recv().frame) == n
                n += 1
            full(p, n)
            if life % 2:  # the same peer comes back: its ring is as full as it was, then it has room
                go(fe, p)
                fe.start_like_qemu()
                fe.post_rx([2048] * 10, refill=False)
                for _ in range(10):
                    assert number(fe.recv().frame) == n
                    n += 1
                full(p, n)
            go(fe, p)
        assert p.running


@MODE
@SENDS
def test_senders_as_front_end(sock, way, mode):
    """The ring is the program's: what no peer has used comes to the next one, first and once."""
    with BackEnd(sock, listen=mode == "connect") as be, \
            program(SEND[way] + SENDER, sock, "frontend", mode, SEND_WHEN_DOWN="wait") as p:
        n = 0
        for take in (0, 10, 64, 1, 0, 100):
            be.wait_started()
            with be.serving():  # the program counts as joined when its last question is answered
                until(lambda n=n: link(p) and sent(p) >= n + 64, "a full ring")
            for _ in range(take):
                assert number(be.recv().frame) == n
                n += 1
            full(p, n + 64)
            go(be, p)
        be.wait_started()
        for _ in range(200):
            assert number(be.recv().frame) == n
            n += 1
        assert p.running


@MODE
@ROLE
def test_a_blocking_sender_is_told(sock, role, mode):
    """Without PALLADIUM_SEND_WHEN_DOWN=wait, who sleeps for room wakes with ENETDOWN when the peer goes."""
    with ROLES[role](sock, listen=mode == "connect") as peer, program(SEND["send"] + SENDER, sock, role, mode) as p:
        p.expect("down\n")
        for life in range(3):
            if role == "backend":
                peer.drop()
                peer.reset_rings()
                peer.start_like_qemu()
                peer.post_rx([2048] * 64, refill=False)
                until(lambda: link(p), "the link")  # else the first send is refused, as it should be
            else:
                peer.wait_started()
                with peer.serving():
                    until(lambda: link(p), "the link")
            p.write("\n")
            if role == "backend":
                for k in range(64):
                    assert number(peer.recv().frame) == 64 * life + k
            full(p, 64 * (life + 1) if role == "backend" else 64)
            peer.drop()
            p.expect("down\n")
        assert p.running


@ROLE
def test_an_edge_for_who_was_refused(sock, role):
    """The port went down and came up between two looks at an edge-triggered epoll. A send in between was
    refused: that the next would work is news."""
    code = """
ep = select.epoll()
ep.register(s, select.EPOLLOUT | select.EPOLLET)
for line in sys.stdin:
    try:
        if line[0] == "s":
            s.send(frame(0), socket.MSG_DONTWAIT)
            print("sent", flush=True)
        else:
            print("events", [e for _, e in ep.poll(float(line))], flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
"""
    with ROLES[role](sock, listen=True) as peer, program(code, sock, role) as p:
        def up():
            start(peer)
            with peer.serving() if role == "frontend" else contextlib.nullcontext():
                until(lambda: link(p), "the link")

        def ask(line, answer):
            p.write(line + "\n")
            assert p.expect(r"^(?!PALL).*\n").group() == answer + "\n"
        up()
        for _ in range(3):
            ask("10", "events [4]")
            ask("0", "events []")
            go(peer, p)
            ask("send", "ENETDOWN")
            up()
        ask("10", "events [4]")
        ask("send", "sent")
