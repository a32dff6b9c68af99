# SPDX-License-Identifier: BSD-2-Clause
"""A program starts anew under packed rings whose base is an old one. QEMU keeps the base that it heard at
the last orderly stop (or the first start), says it to every later back-end, and a packed ring does not say
itself where it is. No frame need move then; but the program says what is wrong and what helps, lives, takes
and writes nothing that was not given to it, does not spin, and a driver that starts anew is served."""
import contextlib

import pytest

from lab.frames import check, numbered
from lab.packedring import off_wrap
from lab.peer import QEMU_PROTOCOL
from lab.vhostpeer import BASIC, F, FrontEnd, P, PeerClosed, PeerTimeout, Req
from lab.wire import vring_state
from hostile.victim import Victim, serves, until

SIZE = 64
WAY_OUT = r"ring {} is not where the peer says: no frame may move until the peer's driver starts anew " \
          r"\(format=split has no such trouble\)"


def front_end(sock):
    """It gives its memory as a table, anew at every start."""
    return FrontEnd(sock, features=BASIC | F.RING_PACKED, protocol=QEMU_PROTOCOL & ~P.MEM_SLOTS, ring=SIZE)


def traffic(fe, count, first=0):
    """Frames to and fro, all of which are completed."""
    for n in range(first, first + count):
        fe.send(numbered(n, 60 + n % 3 * 1000))
        assert check(fe.recv().frame) == n
    fe.wait_sent()


def start_at(fe, bases):
    """As QEMU starts a back-end, with these bases."""
    true = fe.ring_message

    def old(req, i, **kw):
        if req == Req.SET_VRING_BASE:
            fe.channel.send(req, vring_state(i, bases[i]))
        else:
            true(req, i, **kw)
    fe.ring_message = old
    try:
        fe.start_like_qemu()
    finally:
        fe.ring_message = true


def canaries(fe):
    """Memory that belongs to the guest alone, here and there between what it gives away."""
    return [(fe.memory.alloc(n), n) for n in (64, 4096, 2112, 1 << 20)]


def first_time(sock, before, since, fe):
    """A program is there for a while, stops, goes on and dies; returns the bases of its stop."""
    with Victim(sock, format="packed"):
        fe.start_like_qemu()
        fe.post_rx([2048] * 30)
        traffic(fe, before)
        bases = fe.stop_like_qemu()
        fe.start_like_qemu()
        traffic(fe, since, before)
    fe.drop()
    return bases


def poke(fe, count):
    """The driver goes on, knowing nothing: it sends as far as its ring has room, and takes what comes."""
    got = []
    with contextlib.suppress(PeerClosed, PeerTimeout, OSError, AssertionError, KeyError):
        for n in range(count):
            if fe.tx.can_add(1):
                fe.send(numbered(5000 + n, 60))
            fe.sent()
        for q in fe.queues:
            q.kick()
        fe.channel.request(Req.GET_FEATURES)
        while True:
            got.append(fe.recv(timeout=0.2))
    return got


@pytest.mark.parametrize("since", [1, 13, 31, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 3 * SIZE + 5])
@pytest.mark.parametrize("before", [0, 40])
def test_base_of_an_earlier_stop(sock, before, since):
    with front_end(sock) as fe:
        bases = first_time(sock, before, since, fe)
        kept = canaries(fe)
        for gpa, n in kept:
            fe.memory.view(gpa, n)[:] = b"\xc5" * n
        with Victim(sock, format="packed") as program:
            start_at(fe, bases)
            # Two laps on, every slot looks as it did: then it cannot be known, and frames may even move.
            if since % (2 * SIZE):
                program.expect(WAY_OUT.format(1))
            poke(fe, 50)
            assert program.running
            for gpa, n in kept:
                assert bytes(fe.memory.view(gpa, n)) == b"\xc5" * n
            fe.new_driver()
            again(fe, program)


def again(fe, program):
    """The guest's driver starts anew, and all is well."""
    fe.start_like_qemu()
    fe.post_rx([2048] * 30)
    fe.send(numbered(9999, 60))
    while fe.recv().frame != numbered(9999, 60):  # it may owe answers to what it made of the old ring
        pass
    serves(fe, 100)
    assert program.running


def test_it_sleeps_over_a_ring_that_is_elsewhere(sock):
    """Kicks come all the time from a driver that goes on: each is looked into once, then it sleeps."""
    with front_end(sock) as fe:
        bases = first_time(sock, 0, 20, fe)
        with Victim(sock, format="packed") as program:
            start_at(fe, bases)
            program.expect(WAY_OUT.format(1))
            poke(fe, 20)
            arms = program.lane()["rx_arms"]
            for n in range(20):
                fe.tx.kick()
                until(lambda a=arms + n: program.lane()["rx_arms"] > a, "another sleep")
            fe.new_driver()
            again(fe, program)


def test_base_ahead_of_the_ring(sock):
    """The other end of it: descriptors that were never made available are not taken."""
    with front_end(sock) as fe:
        first_time(sock, 0, 20, fe)
        with Victim(sock, format="packed") as program:
            ahead = [off_wrap(q.last_used + 9, SIZE) | off_wrap(q.last_used + 9, SIZE) << 16
                     for q in fe.queues]
            start_at(fe, ahead)
            poke(fe, 50)
            assert program.running
            fe.new_driver()
            again(fe, program)
