# SPDX-License-Identifier: BSD-2-Clause
"""A peer cuts its memory off under a program (faults.c) whose threads are in every state that matters to SIGBUS. The program lives,
notices nothing in its own handlers, and only that peer's port goes down."""
import contextlib
import os

import pytest

from lab.frames import numbered
from lab.proc import Proc, build, preload_env
from lab.vhostpeer import FrontEnd, Memory, Req
from hostile.victim import Victim, Watched, serves, stats, until


def echoed(fe, n):
    fe.send(numbered(n, 60))
    pkt = fe.recv()
    assert pkt.frame == numbered(n, 60)


class Faults(Watched, Proc):
    """The program over so many ports."""

    def __init__(self, mode, paths, **env):
        super().__init__([build("tests/hostile/faults"), mode, *(f"pd{i}" for i in range(len(paths)))],
                         env=preload_env(";".join(f"pd{i}=vhost-user:{p}" for i, p in enumerate(paths)), **env))


@contextlib.contextmanager
def running(sockdir, mode, ports=1, **env):
    """The program, and the peers, each of which has had a frame back."""
    paths = [str(sockdir / f"s{i}") for i in range(ports)]
    memories = [Memory((8 << 20,), seals=0) for _ in paths]
    with contextlib.ExitStack() as stack:
        fes = [stack.enter_context(FrontEnd(p, memory=m)) for p, m in zip(paths, memories)]
        program = stack.enter_context(Faults(mode, paths, **env))
        for fe in fes:
            fe.start_like_qemu()
            fe.post_rx([2048] * 16)
            echoed(fe, 1)
        program.expect("ready")
        yield program, fes


def cut(fe):
    """Take the memory away. From here on nothing may touch it in this process either: end with the peer by `gone`."""
    os.ftruncate(fe.memory.fds[0], 0)


def down(program, port, reason="truncated"):
    """Wait until the port is down for this reason; returns all ports."""
    def look():
        p = stats(program.pid)["port"]
        return p if p[port]["state"] == "down" and reason in p[port]["last_error"] else None
    return until(look, f"pd{port} down")


MODES = ["blocked", "handler", "own", "reset", "sent"]


@pytest.mark.parametrize("mode", MODES)
def test_states_of_a_thread(sockdir, mode):
    with running(sockdir, mode) as (program, (fe,)):
        cut(fe)
        program.write("go\n")
        program.expect("^alive$")
        down(program, 0)
        fe.close()
        with FrontEnd(str(sockdir / "s0")) as good:
            good.start_like_qemu()
            good.post_rx([2048] * 16)
            echoed(good, 2)
        assert program.running


def test_fault_of_the_programs_own_while_blocked(sockdir):
    """As without us: the kernel ends the process, though there is a handler."""
    with running(sockdir, "dies") as (program, _):
        program.write("go\n")
        assert program.wait() == -7
        assert "alive" not in program.text


def test_several_threads_at_once(sockdir):
    """Four peers cut their memory; four threads meet it in the same moment. The fifth port goes on."""
    with running(sockdir, "several", ports=5) as (program, fes):
        for fe in fes[:4]:
            cut(fe)
        program.write("go\n")
        program.expect("^alive$")
        for i in range(4):
            ports = down(program, i)
        echoed(fes[4], 2)
        assert ports[4]["state"] == "up" and ports[4]["counters"]["disconnects"] == 0
        for fe in fes[:4]:
            fe.close()


def test_under_traffic(sockdir):
    """One port's memory goes in the middle of a burst while frames go to and fro on the other, before, during and after."""
    with running(sockdir, "traffic", ports=2) as (program, (fe, other)):
        program.write("go\n")
        program.expect("^alive$")
        for n in range(50):
            echoed(other, n)
        kick = fe.tx.kick_fd
        for n in range(200):
            fe.send(numbered(n, 1500), publish=False)
        fe.tx.publish()
        cut(fe)
        os.eventfd_write(kick, 1)
        for n in range(50, 200):
            echoed(other, n)
        ports = down(program, 0)
        assert ports[1]["state"] == "up" and ports[1]["counters"]["disconnects"] == 0
        assert ports[1]["counters"]["protocol_errors"] == 0
        fe.close()
        with FrontEnd(str(sockdir / "s0")) as good:
            good.start_like_qemu()
            good.post_rx([2048] * 16)
            good.send(numbered(7000, 60))
            while good.recv().frame != numbered(7000, 60):  # what the burst left to send may come first
                pass
        for n in range(200, 210):
            echoed(other, n)
        assert program.running


def test_before_the_rings_start(sock):
    """Gone between the table and the start: it is the progress thread, which blocks all signals, that finds out."""
    with Victim(sock) as program:
        memory = Memory((8 << 20,), seals=0)
        fe = FrontEnd(sock, memory=memory)
        fe.connect_like_qemu()
        fe.set_features()
        fe.set_status(8)
        fe.send_memory()
        fe.get_u64(Req.GET_FEATURES)  # all that is taken in
        places = [[memory.uva(g) for g in q.gpa] for q in fe.queues]
        assert all(places)
        cut(fe)
        with contextlib.suppress(OSError):  # it may hang up at any of them
            for i, q in enumerate(fe.queues):
                fe.ring_message(Req.SET_VRING_NUM, i)
                fe.ring_message(Req.SET_VRING_BASE, i, base=0)
                fe.ring_message(Req.SET_VRING_ADDR, i)
                fe.channel.send(Req.SET_VRING_KICK, i.to_bytes(8, "little"), [q.kick_fd])
                fe.ring_message(Req.SET_VRING_CALL, i)
        assert fe.channel.closed_by_peer()
        until(lambda: "truncated" in program.port()["last_error"], "the reason")
        fe.close()
        with FrontEnd(sock) as good:
            serves(good)
        assert program.running
