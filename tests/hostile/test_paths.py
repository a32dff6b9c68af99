# SPDX-License-Identifier: BSD-2-Clause
"""Paths that are not there, are something else, or are shared; and mistakes in the configuration."""
import contextlib
import os
import re
import socket

import pytest

from lab.frames import numbered
from lab.proc import Proc, preload_env
from lab.vhostpeer import BackEnd, FrontEnd, PeerClosed, PeerTimeout
from hostile.victim import Victim, echoes, returns, until

PROGRAM = """
import errno, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
print("ready", flush=True)
try:
    s.send(bytes(60))
    print("sent", flush=True)
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
while True:
    s.send(s.recv(13000))
"""


def python(sock, **variables):
    return Proc(["/usr/bin/python3", "-c", PROGRAM],
                env=preload_env(f"pd0=vhost-user:{sock}", **variables))


def test_path_that_appears(sock):
    """Sends say ENETDOWN and one line says why, until the peer is there."""
    with python(sock) as p:
        p.expect("ENETDOWN")
        until(lambda: sock in p.text and "connect to" in p.text, "the line")
        with FrontEnd(sock) as fe:
            fe.start_like_qemu()
            fe.post_rx([2048] * 8)
            fe.send(numbered(1, 60))
            assert fe.recv().frame == numbered(1, 60)
        assert len(re.findall("cannot connect to", p.text)) == 1, p.text


def test_send_that_waits_for_the_path(sock):
    with python(sock, SEND_WHEN_DOWN="wait") as p:
        p.expect("ready")
        with FrontEnd(sock) as fe:
            fe.start_like_qemu()
            fe.post_rx([2048] * 8)
            assert fe.recv().frame == bytes(60)
            p.expect("sent")


@pytest.mark.parametrize("mode", ["connect", "listen"])
@pytest.mark.parametrize("what", ["file", "folder", "datagram socket"])
def test_path_that_is_something_else(sock, mode, what):
    """Refused with a reason, left as it is, and used when it has gone."""
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if what == "file":
        with open(sock, "w", encoding="ascii") as f:
            f.write("mine")
    elif what == "folder":
        os.mkdir(sock)
    else:
        other.bind(sock)
    with other, Victim(sock, mode=mode) as p:
        until(lambda: re.search("WARN.*" + re.escape(sock), p.text), "a warning")
        assert os.path.exists(sock)
        if what == "folder":
            os.rmdir(sock)
        else:
            if what == "file":
                with open(sock, encoding="ascii") as f:
                    assert f.read() == "mine"
            os.unlink(sock)
        with FrontEnd(sock, listen=mode == "connect") as fe:
            fe.start_like_dpdk()
            fe.post_rx([2048] * 32)
            echoes(fe)


def test_file_of_a_listener_that_died(sock):
    """kill -9 leaves the socket's file; the next one takes the path over."""
    with Victim(sock, mode="listen") as p:
        until(lambda: os.path.exists(sock), "the path")
        p.kill()
    assert os.path.exists(sock)
    with Victim(sock, mode="listen"), FrontEnd(sock, listen=False) as fe:
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        echoes(fe)


def test_path_of_a_listener_that_lives(sock):
    """A second program does not take it; it gets it when the first has ended."""
    with Victim(sock, mode="listen") as first:
        with FrontEnd(sock, listen=False) as fe:
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            with Victim(sock, mode="listen") as second:
                # The progress thread may say it before the program says that it is ready.
                until(lambda: "another process listens there" in second.text, "the refusal")
                echoes(fe)
                first.terminate()
                assert first.wait() == 0
                fe.drop()
                fe.reset_rings()
                until(lambda: os.path.exists(sock), "the path")
                fe.start_like_qemu()
                fe.post_rx([2048] * 32)
                echoes(fe)


def test_two_echoes_face_each_other(sock):
    """Two blocking loopbacks, back-end and front-end, with more frames under way than the rings
    hold: they go round for ever, and none of the two stops."""
    flood = PROGRAM.split("print")[0] + """
import threading
def push():
    for n in range(3000):
        while True:
            try:
                s.send(bytes(12) + b"\\x88\\xb5" + bytes(100))
                break
            except OSError as e:
                assert e.errno == errno.ENETDOWN
print("ready", flush=True)
push()
print("pushed", flush=True)
n = 0
while True:
    s.send(s.recv(4096))
    n += 1
    if n == 20000: print("round", flush=True)
"""
    with Proc(["/usr/bin/python3", "-c", flood],
              env=preload_env(f"pd0=vhost-user:{sock},mode=listen,role=frontend,ring=64")) as one:
        one.expect("ready")
        with Proc(["/usr/bin/python3", "-c", flood], env=preload_env(f"pd0=vhost-user:{sock}")) as two:
            for p in (one, two):
                p.expect("pushed", 60)
                p.expect("round", 60)


BAD_PORTS = {
    "mtu=99999": "mtu", "mode=sideways": "mode", "role=both": "role", "dialect=x": "dialect",
    "ring=100,format=split": "ring", "ring=40000": "ring", "queues=0": "queues", "nonsense=1": "nonsense",
}


@pytest.mark.parametrize("key", BAD_PORTS)
def test_mistake_in_ports(sock, key):
    """Said with its place; the default is used and the program runs."""
    env = preload_env(f"pd0=vhost-user:{sock},{key}")
    with FrontEnd(sock) as fe, Proc(["/usr/bin/python3", "-c", PROGRAM], env=env) as p:
        p.expect("ready")
        assert re.search(r"PALLADIUM_PORTS:1:\d+: .*" + BAD_PORTS[key], p.text), p.text
        fe.start_like_qemu()
        fe.post_rx([2048] * 8)
        fe.send(numbered(1, 60))
        while fe.recv().frame != numbered(1, 60):
            pass


def test_mistake_in_file(sockdir, sock):
    """file:line:column, what was expected, and the rest of the file counts."""
    path = sockdir / "c.conf"
    path.write_text(f"# a comment\nport pd9 vhost-user path=\nuse palladum tcp_server *:*:*\n"
                    f"port pd0 vhost-user path={sock} mtu=banana\n")
    env = preload_env(None) | {"PALLADIUM_CONFIG_FILE": str(path)}
    with FrontEnd(sock) as fe, Proc(["/usr/bin/python3", "-c", PROGRAM], env=env) as p:
        p.expect("ready")
        for line in (3, 4):
            assert re.search(re.escape(str(path)) + rf":{line}:\d+: ", p.text), p.text
        fe.start_like_qemu()
        fe.post_rx([2048] * 8)
        fe.send(numbered(1, 60))
        while fe.recv().frame != numbered(1, 60):
            pass


def test_variable_out_of_range(sock):
    with FrontEnd(sock) as fe, python(sock, RX_BUFS="-5", RX_POL="1") as p:
        p.expect("ready")
        assert re.search(r"PALLADIUM_RX_BUFS.*-5", p.text), p.text
        assert re.search(r"PALLADIUM_RX_POL\b.*PALLADIUM_RX_POLL", p.text), p.text
        fe.start_like_qemu()
        fe.post_rx([2048] * 8)
        fe.send(numbered(1, 60))
        while fe.recv().frame != numbered(1, 60):
            pass


# --- a hostile back-end ------------------------------------------------------------------------

def index_jump(q):
    q.ring.used_idx = q.used_next + 300


def used(*elems):
    def attack(q):
        q.push(list(elems))
    return attack


def twice(q):
    popped = q.pop()
    q.push([(popped.head, 100), (popped.head, 100)])


BACK_END = {
    "used index jumps": index_jump,
    "used head out of range": used((5000, 100)),
    "used head of 2^32-1": used((0xffffffff, 100)),
    "a chain used twice": twice,
}


@pytest.mark.parametrize("ring", [0, 1])
@pytest.mark.parametrize("name", BACK_END)
def test_broken_used_ring(sock, name, ring):
    with BackEnd(sock, listen=True) as be, Victim(sock, role="frontend", ring=64) as program:
        be.wait_started()
        returns(be)
        fds = program.fds()
        if ring == 1 and name == "a chain used twice":
            be.send(numbered(1, 60))
            be.wait(lambda: be._next_chain(1), what="a frame")  # pylint: disable=protected-access
            be.queue(1).unpop()
        BACK_END[name](be.queue(ring))
        with contextlib.suppress(PeerClosed, PeerTimeout, OSError):
            for _ in range(80 * ring):  # it looks when it runs out of descriptors
                be.send(numbered(2, 60), timeout=1)
        if ring == 0:
            os.eventfd_write(be.rings[ring].call, 1)
        program.refused(f"ring {ring}")
        be.drop()
        be.wait_started()
        be.send(numbered(7000, 60))
        while be.recv().frame != numbered(7000, 60):  # it owes answers
            pass
        returns(be, 100)
        program.settled(fds)
        assert program.running
