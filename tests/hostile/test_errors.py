# SPDX-License-Identifier: BSD-2-Clause
"""The eventfd of SET_VRING_ERR: rung once when that ring is broken, before the connection ends, and by nothing else."""
import contextlib
import os

import pytest

from lab.frames import numbered
from lab.inband import InbandFrontEnd
from lab.vhostpeer import FrontEnd, PeerClosed, PeerTimeout, Req
from lab.wire import NO_FD, u64
from hostile.test_holes import kept_full
from hostile.victim import Victim, echoes, next_driver_is_served, serves

KINDS = {"eventfds": FrontEnd, "messages": InbandFrontEnd}
ENDED = (PeerClosed, PeerTimeout, BrokenPipeError, ConnectionResetError)


def eventfd():
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def rung(fd):
    """How often it was rung since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def give(fe, i, fd=None):
    """The descriptor for ring i, or none any more."""
    fe.channel.send(Req.SET_VRING_ERR, u64(i | (NO_FD if fd is None else 0)), [] if fd is None else [fd])


def break_ring(fe, i):
    """More is available than a ring holds. For receive buffers the program looks when it has sent into those that it knew of."""
    q = fe.queues[i]
    q.ring.avail_idx = q.avail_next + 300
    with contextlib.suppress(*ENDED):
        q.kick()
        for n in range(64 if i == 0 else 0):
            fe.send(numbered(n, 60))
    assert fe.channel.closed_by_peer()


@contextlib.contextmanager
def up(sock, kind="eventfds"):
    """A program and a peer that are up, with an eventfd for each ring; afterwards the next peer is served, and nothing is left."""
    with KINDS[kind](sock, listen=False) as fe, Victim(sock, mode="listen", inband="on") as program:
        serves(fe)
        fds = program.fds()
        errors = [eventfd() for _ in fe.queues]
        for i, fd in enumerate(errors):
            give(fe, i, fd)
        fe.channel.request(Req.GET_FEATURES)  # they are the program's
        yield fe, program, errors
        for fd in errors:
            os.close(fd)
        next_driver_is_served(fe, program, fds)


@pytest.mark.parametrize("ring", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_rung(sock, kind, ring):
    """That ring's alone; where notifications are messages it takes the place of one."""
    with up(sock, kind) as (fe, program, errors):
        break_ring(fe, ring)
        program.refused(f"ring {ring}: ")
        assert [rung(fd) for fd in errors] == [1 - ring, ring]
        if kind == "messages":
            fe.thread.join(10)
            assert not fe.errors


def test_the_last_one_counts(sock):
    with up(sock) as (fe, program, errors):
        give(fe, 1, errors[0])
        give(fe, 1, errors[1])
        give(fe, 0)
        break_ring(fe, 1)
        program.refused("ring 1: ")
        assert [rung(fd) for fd in errors] == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_taken_away(sock, kind):
    """Nothing is rung; the message is there again for who has messages."""
    with up(sock, kind) as (fe, program, errors):
        give(fe, 1)
        break_ring(fe, 1)
        program.refused("ring 1: ")
        assert not any(map(rung, errors))
        if kind == "messages":
            fe.thread.join(10)
            assert fe.errors == [1]


def test_nothing_else_rings_it(sock):
    """Frames, a stop, a wrong message, another connection without it."""
    with up(sock) as (fe, program, errors):
        echoes(fe, 50)
        fe.stop_like_qemu()
        fe.drop()
        serves(fe, 100)
        break_ring(fe, 1)
        program.refused("ring 1: ")
        fe.drop()
        fe.reset_rings()
        fe.connect()
        for i, fd in enumerate(errors):
            give(fe, i, fd)
        fe.channel.send(99)
        assert fe.channel.closed_by_peer()
        assert not any(map(rung, errors))


def test_one_that_is_full(sock):
    """It must not hold up who rings it."""
    with up(sock) as (fe, program, errors), kept_full(errors[1]):
        break_ring(fe, 1)
        program.refused("ring 1: ")
