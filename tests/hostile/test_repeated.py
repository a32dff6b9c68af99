# SPDX-License-Identifier: BSD-2-Clause
"""Attacks that take more than a message, one a round, on one program: memory that is cut, eventfds that wait, rings and channels that
are wrong in each role, strange things at the path. As in test_again.py, nothing adds up.
"""
import contextlib
import itertools
import os
import socket

import pytest

from lab.frames import numbered
from lab.inband import InbandBackEnd, InbandFrontEnd
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd, Memory, Req
from lab.wire import REPLY, VERSION, Msg
from hostile import test_completions, test_inband, test_iotlb, test_packed, test_replies, test_rings
from hostile.cycles import Cycles
from hostile.test_again import ENDED, again
from hostile.test_completions import GONE
from hostile.test_holes import kept_full
from hostile.test_kill import QUEUE_BYTES
from hostile.victim import Victim, caught_up, echoes, returns, until

pytestmark = pytest.mark.usefixtures("small_pages")
FORMATS = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FORMATS)
SOON = {"PALLADIUM_RECONNECT_MIN_MS": "1", "PALLADIUM_RECONNECT_MAX_MS": "5"}


def in_turn(program, attack, names, serve, **kw):
    """again() with one of the attacks a round."""
    names = itertools.cycle(names)
    again(program, lambda _: attack(next(names)), [""], serve, **kw)


def start(fe):
    """A new driver on a new connection; what the program owes has come, and what was said is done."""
    fe.drop()
    fe.reset_rings()
    fe.start_like_qemu()
    fe.get_features()
    fe.post_rx([2048] * 32)
    caught_up(fe)


def start_device(be):
    """The same of a device."""
    be.drop()
    be.wait_started()
    be.send(numbered(1 << 20, 60))
    while be.recv().frame != numbered(1 << 20, 60):
        pass


# --- to a back-end -----------------------------------------------------------------------------

def test_memory_truncated(sock):
    def peer(memory=None):
        return FrontEnd(sock, listen=False, memory=memory)

    def attack(how):
        with peer(Memory((8 << 20,), seals=0)) as fe:
            start(fe)
            kick = fe.tx.kick_fd
            for n in range(200 if how == "in a burst" else 0):
                fe.send(numbered(n, 1500), publish=False)
            fe.tx.publish()
            os.ftruncate(fe.memory.fds[0], 0)  # from here on nothing may touch it here either
            os.eventfd_write(kick, 1)
            assert fe.channel.closed_by_peer()
            fe.channel.close()
        return 1

    def serve():
        with peer() as fe:
            start(fe)
            echoes(fe)
    with Victim(sock, mode="listen") as program:
        in_turn(program, attack, ["while asleep", "in a burst"], serve, more=QUEUE_BYTES)


def serving(fe):
    """serve() of again() with a peer that is used on."""
    def serve():
        start(fe)
        echoes(fe)
    return serve


def test_calls_that_wait(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def attack(ring):
            start(fe)
            with kept_full(fe.queues[ring].call_fd):
                for q in fe.queues:
                    q.suppress_calls(False)
                fe.send(numbered(50, 60))
                assert fe.channel.closed_by_peer()
            for q in fe.queues:
                os.set_blocking(q.call_fd, False)
            return 1
        in_turn(program, attack, [0, 1], serving(fe))


RECEIVE = {"split": (test_rings, 256), "packed": (test_packed, test_packed.SIZE)}


@formats
def test_broken_receive_buffers(sock, fmt):
    """What the program had to send goes to the next peer."""
    tests, size = RECEIVE[fmt]
    with FrontEnd(sock, listen=False, features=FORMATS[fmt], ring=size) as fe, Victim(sock, mode="listen", format=fmt) as program:
        def attack(name):
            start(fe)
            fe.drop()
            fe.reset_rings()
            fe.start_like_qemu()
            rows = tests.RECEIVE[name]
            tests.chain(fe.rx, rows(fe) if callable(rows) else rows)
            with contextlib.suppress(*ENDED):
                fe.send(numbered(1, 60))
            assert fe.channel.closed_by_peer()
            return 1
        in_turn(program, attack, tests.RECEIVE, serving(fe))


def test_wrong_messages_in_band(sock):
    with InbandFrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen", inband="on") as program:
        def attack(name):
            fe.answering = True
            start(fe)
            with contextlib.suppress(*ENDED):
                test_inband.KICKS[name][0](fe)
            assert fe.channel.closed_by_peer()
            fe.answering = True
            return 1
        in_turn(program, attack, test_inband.KICKS, serving(fe))


# --- to a front-end ----------------------------------------------------------------------------

def serving_device(be):
    """serve() of again() with a device that is used on."""
    def serve():
        start_device(be)
        returns(be)
    return serve


@formats
def test_broken_completions(sock, fmt):
    with BackEnd(sock, features=FORMATS[fmt]) as be, Victim(sock, mode="listen", role="frontend", ring=64, format=fmt) as program:
        def attack(name):
            start_device(be)
            with contextlib.suppress(*GONE):
                test_completions.BROKEN[name][0](be)
                for n in range(200):
                    be.send(numbered(n, 60), timeout=1)
                    be.recv(timeout=1)
            assert be.channel.closed_by_peer()
            return 1
        in_turn(program, attack, test_completions.BROKEN, serving_device(be))


def test_unasked_answers(sock):
    with BackEnd(sock) as be, Victim(sock, mode="listen", role="frontend") as program:
        def attack(name):
            start_device(be)
            with contextlib.suppress(*ENDED):
                test_replies.UNASKED[name][0](be, Msg(Req.GET_FEATURES, VERSION | REPLY, b"", []))
            assert be.channel.closed_by_peer()
            return 1
        in_turn(program, attack, test_replies.UNASKED, serving_device(be))


def test_wrong_calls_in_band(sock):
    with InbandBackEnd(sock, features=BASIC | F.MQ) as be, Victim(sock, mode="listen", role="frontend", inband="on") as program:
        def attack(name):
            start_device(be)
            with contextlib.suppress(*ENDED):
                test_inband.CALLS[name][0](be)
            assert be.channel.closed_by_peer()
            be.refuse = {}
            return 1
        in_turn(program, attack, test_inband.CALLS, serving_device(be))


def test_nonsense_on_the_channel(sock):
    with test_iotlb.asking(sock) as be, Victim(sock, role="frontend", iommu="on", env=SOON) as program:
        def attack(name):
            req, payload, _ = test_iotlb.NONSENSE[name]
            start_device(be)
            with contextlib.closing(test_iotlb.channel(be)) as ask:
                ask.send(req, payload)
                assert be.channel.closed_by_peer()
            return 1

        def serve():
            serving_device(be)()
            os.close(be.backend_fd)
            be.backend_fd = None
        in_turn(program, attack, test_iotlb.NONSENSE, serve)


# --- the path ----------------------------------------------------------------------------------

@contextlib.contextmanager
def something_at(path, what):
    """A file, a folder, or a socket of another kind, for a while."""
    with contextlib.ExitStack() as stack:
        if what == "file":
            with open(path, "x", encoding="ascii"):
                pass
        elif what == "folder":
            os.mkdir(path)
        else:
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(path)
        yield
        (os.rmdir if what == "folder" else os.unlink)(path)


THINGS = ["file", "folder", "datagram socket"]


def tries(program):
    return program.port()["counters"]["connect_errors"]


def test_strange_things_where_it_connects(sock):
    with Victim(sock, env=SOON) as program:
        def attack(what):
            with something_at(sock, what):
                seen = tries(program)
                until(lambda: tries(program) >= seen + 2, "tries")  # the second began after the first look
            serve()
            return 0

        def serve():
            with FrontEnd(sock) as fe:
                start(fe)
                echoes(fe)
        serve()
        in_turn(program, attack, THINGS, serve)


def test_who_listens(sockdir, sock):
    """Each begins while something is where it is to listen, which is left alone: a file, a folder, another socket, or the program before
    it, which serves on. It has the path when that is gone, even if it was killed and could not take its socket along."""
    run, what = Cycles(), itertools.cycle([*THINGS, "listener", "dead listener"])
    for _ in run:
        thing = next(what)
        with contextlib.ExitStack() as stack:
            before = None
            if "listener" in thing:
                before = stack.enter_context(Victim(sock, mode="listen", env=SOON))
                until(lambda: os.path.exists(sock), "the path")
                if thing == "dead listener":
                    before.kill()
                    assert os.path.exists(sock)
            there = contextlib.nullcontext() if before else something_at(sock, thing)
            program = stack.enter_context(_beside(sock, there, thing))
            if thing == "listener":
                with FrontEnd(sock, listen=False) as fe:
                    start(fe)
                    before.terminate()
                    assert before.wait() == 0
            until(lambda: _port(program) == ("waiting", "its peer has not come yet"), "the path to be its own")
            with FrontEnd(sock, listen=False) as fe:
                start(fe)
                echoes(fe)
            assert program.running and program.errors() == 0
        with contextlib.suppress(FileNotFoundError):
            os.unlink(sock)
        assert not os.listdir(sockdir)
    run.note()


def _port(program):
    """State of its port, and the reason for it."""
    port = program.port()
    return port["state"], port["reason"]


@contextlib.contextmanager
def _beside(sock, there, thing):
    """A program that was refused the path, unless a dead one has it."""
    with contextlib.ExitStack() as stack:
        with there:
            program = stack.enter_context(Victim(sock, mode="listen", env=SOON))
            if thing != "dead listener":
                until(lambda: "cannot listen" in program.port()["last_error"], "the refusal")
        yield program
