# SPDX-License-Identifier: BSD-2-Clause
"""What a peer can do with what it shares with us: eventfds that wait, memory that vanishes, silence.
The program is never held up for longer than a moment."""
import contextlib
import errno
import mmap
import os
import resource
import socket
import threading

import pytest
import seccomp

from lab import avip
from lab.frames import numbered
from lab.hugepages import count, free, hugepages
from lab.proc import Proc, preload_env
from lab.vhostpeer import BackEnd, FrontEnd, Memory, PeerTimeout, Req
from lab.wire import Listener, dial
from hostile.victim import Victim, caught_up, echoes, next_driver_is_served, returns, serves, until

FULL = (1 << 64) - 2
MFD_HUGE_2MB = 0x4 | 21 << 26


@contextlib.contextmanager
def kept_full(*fds):
    """Eventfds that wait and are full, filled again whenever somebody empties them."""
    fds = [os.dup(fd) for fd in fds]
    end = False

    def fill(fd):
        with contextlib.suppress(BlockingIOError):  # the end
            while not end:
                os.eventfd_write(fd, FULL)
    for fd in fds:
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)
        os.set_blocking(fd, True)
        os.eventfd_write(fd, FULL)
    threads = [threading.Thread(target=fill, args=(fd,), daemon=True) for fd in fds]
    for t in threads:
        t.start()
    try:
        yield
    finally:
        end = True
        for fd, t in zip(fds, threads):
            while t.is_alive():
                os.set_blocking(fd, False)
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
                t.join(0.01)
            os.close(fd)


@pytest.mark.parametrize("ring", [0, 1])
def test_call_that_waits(sock, ring):
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        fe.get_features()  # it has made the eventfds its own
        with kept_full(fe.queues[ring].call_fd):
            for q in fe.queues:
                q.suppress_calls(False)
            fe.send(numbered(50, 60))
            program.refused("notifications wait")
            assert fe.channel.closed_by_peer()
        fe.drop()
        for q in fe.queues:
            os.set_blocking(q.call_fd, False)
        serves(fe, 100)
        program.settled(fds)
        assert program.running


def test_call_that_counts_down(sock):
    """A call of which a read takes one (EFD_SEMAPHORE), as full as only the kernel can make it: one read makes no room in it."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        for q in fe.queues:
            os.close(q.call_fd)
            q.call_fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
        serves(fe)
        fds = program.fds()
        fd = fe.queues[1].call_fd
        with contextlib.suppress(BlockingIOError):
            while True:
                os.eventfd_read(fd)
        os.eventfd_write(fd, FULL)
        fe.ring_message(Req.SET_VRING_CALL, 1)  # the control side rings it once
        fe.get_features()
        os.set_blocking(fd, True)
        fe.queues[1].suppress_calls(False)
        fe.send(numbered(50, 60))
        program.refused("notifications wait")
        assert fe.channel.closed_by_peer()
        fe.drop()
        for q in fe.queues:
            os.close(q.call_fd)
            q.call_fd = os.eventfd(0, os.EFD_NONBLOCK)
        serves(fe, 100)
        program.settled(fds)
        assert program.running


def test_call_that_waits_of_one_ring_alone(sock):
    """The port is not up yet, and the one ring that runs can hold a thread up all the same."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        fe.connect_like_qemu()
        fe.set_features()
        fe.send_memory()
        fe._bases_from_memory()
        for req in (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.SET_VRING_ADDR, Req.SET_VRING_KICK, Req.SET_VRING_CALL):
            fe.ring_message(req, 1)
        fe.get_features()
        with kept_full(fe.queues[1].call_fd):
            fe.queues[1].suppress_calls(False)
            fe.send(numbered(50, 60))
            fe.tx.kick()
            program.refused("notifications wait")
            assert fe.channel.closed_by_peer()
        fe.drop()
        fe.reset_rings()
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        caught_up(fe)  # the answer to the one frame comes now
        serves(fe, 1000)
        assert program.running


def no_aio():
    """From here on this process gets no context of asynchronous I/O, as if all of the system's were taken."""
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    rules.add_rule(seccomp.ERRNO(errno.EAGAIN), "io_setup")
    rules.load()


# How the control side can ring: the kernel does it, or nobody can do it for it.
RINGS = {"by the kernel": None, "by itself": no_aio}


@pytest.mark.parametrize("how", RINGS)
def test_call_that_waits_at_start(sock, how):
    """The control side rings too, and serves every other port: it must not wait at all."""
    with FrontEnd(sock) as fe, Victim(sock, setup=RINGS[how]) as program:
        fe.connect()
        with kept_full(*(q.call_fd for q in fe.queues)):
            fe.connect_like_qemu()
            fe.start_like_qemu()
            fe.channel.request(Req.GET_FEATURES)
            assert program.running
        fe.drop()
        for q in fe.queues:
            os.set_blocking(q.call_fd, False)
        serves(fe)


@pytest.mark.parametrize("how", RINGS)
def test_call_of_the_control_side(sock, how):
    """A new call is rung once, and where it takes a thread to do that, the user is told why, once."""
    with FrontEnd(sock) as fe, Victim(sock, setup=RINGS[how]) as program:
        serves(fe)
        fe.get_features()
        call = fe.queues[1].call_fd
        for _ in range(5):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(call)
            fe.ring_message(Req.SET_VRING_CALL, 1)
            fe.get_features()
            assert os.eventfd_read(call) == 1
        serves(fe, 20)
        fe.drop()
        serves(fe, 40)
        assert program.text.count("fs.aio-max-nr") == (1 if RINGS[how] else 0), program.text


def test_kick_that_waits(sock):
    """An empty kick that waits its reader; the peer takes its own kicks back meanwhile."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        for q in fe.queues:
            os.set_blocking(q.kick_fd, True)
        for n in range(50, 100):
            for _ in range(20):
                fe.tx.kick()
                os.set_blocking(fe.tx.kick_fd, False)
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fe.tx.kick_fd)
                os.set_blocking(fe.tx.kick_fd, True)
            fe.tx.kick()
            echoes(fe, n, 1)
        assert program.running


@contextlib.contextmanager
def kick_that_counts_down(fe, ring):
    """Give ring's kick a new eventfd of which a read takes one (EFD_SEMAPHORE), and in the end one as it was."""
    q = fe.queues[ring]
    for flag in os.EFD_SEMAPHORE, 0:
        os.close(q.kick_fd)
        q.kick_fd = os.eventfd(0, flag | os.EFD_NONBLOCK)
        if flag:
            yield q.kick_fd


# Who sleeps on the kick: the program's thread to receive and to send, and the library's own for a ring that is discarded.
COUNTED = {"to receive": (1, True), "to send": (0, True), "discarded": (1, False)}


def count_up(fe, name):
    """Rings begin with a kick that stays readable, however often it is read, and somebody waits for it."""
    ring, enabled = COUNTED[name]
    with kick_that_counts_down(fe, ring) as fd:
        fe.drop()
        fe.reset_rings()
        fe.start_like_qemu()
        if not enabled:
            fe.ring_message(Req.SET_VRING_ENABLE, ring, on=0)
        fe.get_features()
        if ring == 0:
            fe.send(numbered(50, 60))  # the echo has nowhere to go
        os.eventfd_write(fd, FULL)
        assert fe.channel.closed_by_peer()


@pytest.mark.parametrize("name", COUNTED)
def test_kick_that_counts_down(sock, name):
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        count_up(fe, name)
        program.refused(f"ring {COUNTED[name][0]}: the kick counts down")
        next_driver_is_served(fe, program, fds)


def test_front_end_kick_that_waits(sock):
    """The kicks are the program's own, and the peer has them too."""
    with BackEnd(sock, listen=True) as be, Victim(sock, role="frontend") as program:
        be.wait_started()
        returns(be)
        with kept_full(be.rings[1].kick):
            be.queue(1).suppress_kicks(False)
            be.send(numbered(99, 60))
            program.refused("notifications wait")
        be.drop()
        be.wait_started()
        pkt = be.recv()  # it was not taken, so it comes again
        assert pkt.frame == numbered(99, 60)
        returns(be, 100)
        assert program.running


@pytest.mark.parametrize("how", ["while asleep", "in a burst"])
def test_memory_truncated(sock, how):
    with Victim(sock) as program:
        memory = Memory((8 << 20,), seals=0)
        fe = FrontEnd(sock, memory=memory)
        fe.start_like_qemu()
        fe.get_features()  # what was said is done
        fe.post_rx([2048] * 32)
        echoes(fe)
        fds = program.fds()
        kick = fe.tx.kick_fd
        if how == "in a burst":
            for n in range(200):
                fe.send(numbered(n, 1500), publish=False)
            fe.tx.publish()
        # From here on nothing may touch the memory in this process either.
        os.ftruncate(memory.fds[0], 0)
        os.eventfd_write(kick, 1)
        program.refused("truncated")
        fe.close()
        with FrontEnd(sock) as good:
            good.start_like_qemu()
            good.post_rx([2048] * 32)
            good.send(numbered(7000, 60), avip.distinct(7000))
            while good.recv().frame != numbered(7000, 60):  # the burst's echoes may come first
                pass
            echoes(good)
            program.settled(fds)
        assert program.running


def test_rings_taken_away(sock):
    """A device gives the huge pages of the program's own rings back to the system, which has none for them again."""
    with hugepages(16), BackEnd(sock, listen=True) as be, \
            Victim(sock, role="frontend", env={"PALLADIUM_MEM_ALLOC_TYPE": "hugepages"}) as program:
        be.wait_started()
        returns(be)
        fds = program.fds()
        before = free()
        be.memory.regions[0].map.madvise(mmap.MADV_REMOVE)
        taken = count("free_hugepages")
        assert taken > before
        held = os.memfd_create("held", MFD_HUGE_2MB)
        os.ftruncate(held, taken << 21)
        os.posix_fallocate(held, 0, taken << 21)
        for i in range(2):
            os.eventfd_write(be.rings[i].call, 1)
        program.refused("took pages of the rings away")
        os.close(held)
        be.drop()
        be.wait_started()
        returns(be, 100)
        program.settled(fds)
        assert program.running


HANDLER = """
import signal, socket, os, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
hits = []
def early(*a): hits.append("early")
def late(*a): hits.append("late")
signal.signal(signal.SIGBUS, early)
print("ready", flush=True)
s.send(s.recv(4096))
os.kill(os.getpid(), signal.SIGBUS)
assert signal.getsignal(signal.SIGBUS) is early and hits == ["early"], hits
signal.signal(signal.SIGBUS, late)
os.kill(os.getpid(), signal.SIGBUS)
assert hits == ["early", "late"], hits
print("truncate", flush=True)
s.send(s.recv(4096))
assert hits == ["early", "late"], hits
signal.signal(signal.SIGBUS, signal.SIG_DFL)
print("default", flush=True)
os.kill(os.getpid(), signal.SIGBUS)
"""


def test_programs_own_sigbus(sock):
    """The program keeps its handler, sees its own signals and none of ours, and dies when it says."""
    memory = Memory((8 << 20,), seals=0)
    with Proc(["/usr/bin/python3", "-c", HANDLER], env=preload_env(f"pd0=vhost-user:{sock}")) as p:
        p.expect("ready")
        fe = FrontEnd(sock, memory=memory)
        fe.start_like_qemu()
        fe.post_rx([2048] * 8)
        fe.send(numbered(1, 60))
        assert fe.recv().frame == numbered(1, 60)
        p.expect("truncate")
        kick = fe.tx.kick_fd
        os.ftruncate(memory.fds[0], 0)
        os.eventfd_write(kick, 1)
        assert fe.channel.closed_by_peer()
        fe.close()
        with FrontEnd(sock) as good:
            good.start_like_qemu()
            good.post_rx([2048] * 8)
            good.send(numbered(2, 60))
            assert good.recv().frame == numbered(2, 60)
            p.expect("default")
            assert p.wait() == -7


def test_back_end_that_never_answers(sock):
    """A listening peer takes the connection and says nothing: it is given up, and the next one served."""
    listener = Listener(sock)
    with Victim(sock, role="frontend") as program:
        silent = listener.accept()
        program_fds = silent.recv()
        assert program_fds.req == Req.GET_FEATURES
        with contextlib.suppress(PeerTimeout):
            assert silent.closed_by_peer(30)
        program.refused("does not answer GET_FEATURES")
        silent.close()
        listener.close()
        with BackEnd(sock, listen=True) as be:
            be.wait_started()
            returns(be)


def test_silent_newcomer_gives_way(sock):
    """Somebody connects to the listening program and says nothing: he keeps nobody out."""
    with Victim(sock, mode="listen") as program:
        silent = dial(sock)
        with FrontEnd(sock, listen=False) as fe:
            fe.start_like_dpdk()
            fe.post_rx([2048] * 32)
            echoes(fe)
            assert silent.closed_by_peer()
        silent.close()


def test_newcomer_who_begins_and_stops_gives_way(sock):
    """The same of one who has said something; what the port is up to is told, and those who come meanwhile are counted."""
    with Victim(sock, mode="listen") as program:
        until(lambda: os.path.exists(sock), "the path")
        half = dial(sock)
        half.request(Req.GET_FEATURES)
        p = program.port()
        assert p["state"] == "waiting" and p["reason"] == "connected, negotiating: last message GET_FEATURES"
        mute = dial(sock)
        with FrontEnd(sock, listen=False) as fe:
            fe.start_like_dpdk()
            fe.post_rx([2048] * 32)
            echoes(fe)
            assert half.closed_by_peer() and mute.closed_by_peer()
            p = program.port()
            assert p["state"] == "up" and "said nothing for 2 s after GET_FEATURES" in p["last_error"]
            assert p["counters"]["turned_away"] == 1 and not p["counters"]["protocol_errors"]
        for ch in half, mute:
            ch.close()


def one_more(path):
    """Another connection that will say nothing; None while the backlog is full."""
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    try:
        s.connect(path)
    except BlockingIOError:
        s.close()
        return None
    return s


def is_gone(s):
    """The program has closed this one."""
    try:
        return s.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize("spare", [None, 14], ids=["descriptors", "few descriptors"])
def test_crowd(sock, spare):
    """Two hundred connect and say nothing, be it that the program has descriptors for so many or not: the backlog is not kept full, the one
    who speaks is served, and of the others nothing is left."""
    with Victim(sock, mode="listen") as program, contextlib.ExitStack() as crowd:
        with FrontEnd(sock, listen=False) as fe:
            serves(fe)
            fds = program.fds()
        if spare:
            hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (fds + spare, hard))
        mute = []

        def all_there():
            while len(mute) < 200 and (s := one_more(sock)):
                mute.append(crowd.enter_context(s))
            return len(mute) == 200
        until(all_there, "room in the backlog")
        with FrontEnd(sock, listen=False) as fe:
            serves(fe, 100)
            until(lambda: all(map(is_gone, mute)), "the end of the crowd")
            echoes(fe, 200)
            c = program.port()["counters"]
            assert c["turned_away"] == len(mute) - 1 and c["connects"] == 2 and not c["protocol_errors"]
            program.settled(fds)
        assert program.running


def test_out_of_descriptors(sock):
    """The program has no number left for what the peer sends: that peer is refused, and when there are
    some again, the next is served."""
    code = """
import os, socket, resource
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
s.send(s.recv(4096))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
held = []
try:
    while True: held.append(os.dup(0))
except OSError: pass
print("full", flush=True)
input()
for fd in held: os.close(fd)
print("free", flush=True)
while True: s.send(s.recv(4096))
"""
    with FrontEnd(sock) as fe, \
            Proc(["/usr/bin/python3", "-c", code], env=preload_env(f"pd0=vhost-user:{sock}")) as p:
        fe.start_like_qemu()
        fe.post_rx([2048] * 8)
        fe.send(numbered(1, 60))
        assert fe.recv().frame == numbered(1, 60)
        p.expect("full")
        fe.drop()
        fe.reset_rings()
        with contextlib.suppress(PeerTimeout, ConnectionError):
            fe.timeout = 0.5
            fe.start_like_qemu()
        fe.timeout = 10.0
        assert p.running
        fe.drop()
        p.write("\n")
        p.expect("free")
        fe.reset_rings()
        fe.start_like_qemu()
        fe.post_rx([2048] * 8)
        for n in range(20):
            fe.send(numbered(n, 60))
            assert fe.recv().frame == numbered(n, 60)

