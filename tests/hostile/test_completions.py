# SPDX-License-Identifier: BSD-2-Clause
"""Broken completions under a program in the front-end role: what the device says it used never was
its to use, or cannot be. The port goes down by name, and the next device is served."""
import contextlib

import pytest

from lab import avip
from lab.frames import numbered
from lab.packedring import AVAIL, EVENT_DESC, USED, off_wrap
from lab.ring import INDIRECT, NEXT, WRITE
from lab.vhostpeer import BASIC, BackEnd, F, PeerClosed, PeerTimeout
from hostile.victim import Victim, beside, next_is_served, returns, until

FORMATS = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
GONE = (PeerClosed, PeerTimeout, AssertionError, OSError)


@pytest.fixture(params=FORMATS)
def fmt(request):
    """The format of the rings."""
    return request.param


@contextlib.contextmanager
def up(sock, fmt, more=0):
    """A program and a device that are up; on leaving, the next device must be served. more: features."""
    with BackEnd(sock, listen=True, features=FORMATS[fmt] | more) as be, \
            Victim(sock, role="frontend", ring=64, format=fmt) as program:
        be.wait_started()
        assert be.features & F.RING_PACKED == FORMATS[fmt] & F.RING_PACKED
        returns(be)
        fds = program.fds()
        yield be, program
        next_is_served(be, program, fds)


def broken(be, program, reason):
    """Send the program what it echoes, so that it looks at its rings, until it goes."""
    with contextlib.suppress(*GONE):
        for n in range(200):
            be.send(numbered(n, 60), timeout=1)
            be.recv(timeout=1)
    assert be.channel.closed_by_peer()
    program.refused(reason)


def transmitted(*idents):
    """The program has sent two chains: complete these ids, made from the first one's."""
    def attack(be):
        for n in (50, 51):
            be.send(numbered(n, 60))
        head = [be.recv(complete=False).used[0].head for _ in range(2)][0]
        be.queue(1).push_raw(*((ident(be.queue(1), head), 0) for ident in idents))
    return attack


def received(*lengths):
    """Complete one receive buffer by these lengths."""
    def attack(be):
        q = be.queue(0)
        popped = q.pop()
        q.write(popped, bytes(48) + numbered(1, 60))
        q.push_raw(*((popped.head, length(q.room(popped))) for length in lengths))
    return attack


def received_id(ident):
    """Complete a receive buffer that does not exist."""
    return lambda be: be.queue(0).push_raw((ident(be.queue(0).size), 108))


BROKEN = {
    "sent, id of the ring's size": (transmitted(lambda q, _: q.size), "ring 1"),
    "sent, id of 65535": (transmitted(lambda q, _: 0xffff), "ring 1"),
    "sent, id of nobody": (transmitted(lambda q, head: (head + 9) % q.size), "ring 1"),
    "sent, twice": (transmitted(lambda q, head: head, lambda q, head: head), "ring 1"),
    "received, id of the ring's size": (received_id(lambda size: size), "ring 0"),
    "received, id of 65535": (received_id(lambda _: 0xffff), "ring 0"),
    "received, twice": (received(lambda _: 108, lambda _: 108), "ring 0"),
    "received, a byte too much": (received(lambda room: room + 1), "ring 0"),
    "received, 2^32-1 bytes": (received(lambda _: (1 << 32) - 1), "ring 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_completion(sock, fmt, name):
    attack, reason = BROKEN[name]
    with up(sock, fmt) as (be, program):
        attack(be)
        broken(be, program, reason)


@pytest.mark.parametrize("ring,by", [(0, 65), (0, 0x7fff), (0, 0x8000), (0, 0xffff),
                                     (1, 65), (1, 0x8000)])
def test_used_index_jumps(sock, ring, by):
    with up(sock, "split") as (be, program):
        q = be.queue(ring)
        q.used_next, q.forced = (q.used_next + by) & 0xffff, True
        q.push([])
        if not ring:  # the program sleeps on this one
            assert be.channel.closed_by_peer()
        broken(be, program, f"ring {ring}")


@pytest.mark.parametrize("length", [0, 1, 47, 48 + 1, 48 + 13])
def test_frame_shorter_than_its_headers(sock, fmt, length):
    """The sidecar's or Ethernet's: dropped and counted; the others are served."""
    with up(sock, fmt) as (be, program):
        before = program.lane()["rx_drop_malformed"]
        received(lambda _: length)(be)
        returns(be, 50)
        assert program.lane()["rx_drop_malformed"] == before + 1
        assert program.port()["counters"]["link"] == 1


@pytest.mark.parametrize("flags", [0, NEXT, INDIRECT, WRITE | 0x7f78, 0x7f7f])
def test_flags_of_a_completion(sock, flags):
    """Of a packed ring's used descriptor nothing counts but its lap: its length is what it says."""
    with up(sock, "packed") as (be, program):
        q = be.queue(0)
        for n in range(100, 120):
            popped = q.pop()
            q.write(popped, avip.distinct(n, mrg=1) + numbered(n, 60))
            q.push_raw((popped.head, 108), flags=flags)
            q.inflight.pop(popped.head)
            assert be.recv().frame == numbered(n, 60)
        assert program.errors() == 0


@pytest.mark.parametrize("bits", [AVAIL, USED, AVAIL | USED], ids=["avail", "used", "both"])
def test_completion_of_a_lap_that_is_not_due(sock, bits):
    """It is not looked at; once its bits are right, it is. Over several rounds of the ring."""
    with up(sock, "packed") as (be, program):
        q = be.queue(0)
        for n in range(100, 100 + 3 * 64):
            popped, at = q.pop(), q.used_next
            q.write(popped, avip.distinct(n, mrg=1) + numbered(n, 60))
            q.forced = True
            arms = program.lane()["rx_arms"] if n % 16 == 0 else None
            q.push_raw((popped.head, 108), flags=WRITE ^ bits)
            if arms is not None:  # it has looked, and slept again
                until(lambda a=arms: program.lane()["rx_arms"] > a, "another look")
            q.ring.set_flags(at, q.ring.flags(at) ^ bits)
            q.inflight.pop(popped.head)
            q.forced = True
            q.push([])
            assert be.recv().frame == numbered(n, 60)
        assert program.errors() == 0


EVENTS = {
    "an entry outside the ring": EVENT_DESC << 16 | 64,
    "the last off_wrap": EVENT_DESC << 16 | 0xffff,
    "reserved flags": 3 << 16 | 0x8000,
    "all ones": 0xffffffff,
    "a slot of the wrong lap": lambda q: EVENT_DESC << 16 | off_wrap(q.last_avail, q.size) ^ 0x8000,
}


@pytest.mark.parametrize("name", EVENTS)
def test_event_suppression_is_garbage(sock, name):
    """It may cost kicks, or bring too many; frames still move, and later kicks come."""
    with up(sock, "packed") as (be, program):
        for n in range(100, 100 + 3 * 64):
            event = EVENTS[name]
            for q in (be.queue(0), be.queue(1)):
                q.ring.device_event = event(q) if callable(event) else event
            be.send(numbered(n, 60))
            until(be.queue(1).available, "a frame")
            assert be.recv().frame == numbered(n, 60)
        returns(be, 500)
        assert program.errors() == 0


@pytest.mark.parametrize("ring", [0, 1])
def test_order_that_was_agreed(sock, ring):
    """A device that agreed to use buffers in order uses the third, which stands for the two before it, and
    then the first of them. (On a packed ring it has no place where it could say so.)"""
    with up(sock, "split", F.IN_ORDER) as (be, program):
        heads = held(be, ring)
        be.queue(ring).push_raw((heads[2], 108 * (1 - ring)))
        be.queue(ring).push_raw((heads[0], 108 * (1 - ring)))
        broken(be, program, f"ring {ring}")


def held(be, ring):
    """The ids of three chains that the device holds."""
    for n in range(3 * ring):
        be.send(numbered(50 + n, 60))
    return [be.recv(complete=False).used[0].head if ring else be.queue(0).pop().head for _ in range(3)]


@pytest.mark.parametrize("ident", [64, 0xffff])
def test_id_in_order(sock, fmt, ident):
    """An element that stands for older ones, of a chain that the device does not hold."""
    with up(sock, fmt, F.IN_ORDER) as (be, program):
        held(be, 1)
        be.queue(1).push_raw((ident, 0))
        broken(be, program, "ring 1")


def rewrite(be):
    """What flips the ids and lengths of all entries of the receive ring once."""
    q = be.queue(0)
    values = [(0, 108), (0xffff, 108), (5, 0xffffffff), (q.size, 0), (7, 47), (9, 2048)]

    def flip():
        for i in range(q.size):
            q.ring.set_done(i, *values[i % 6][::-1])
    return flip


def test_completions_rewritten_while_read(sock, fmt):
    """A thread flips ids and lengths of what is already used; whatever the program makes of that, it
    lives and serves the next device."""
    with up(sock, fmt) as (be, program):
        for _ in range(6):
            with beside(rewrite(be)), contextlib.suppress(*GONE):
                for n in range(20):
                    be.send(numbered(n, 60), timeout=0.2)
                    be.recv(timeout=0.1)
            be.drop()
            be.wait_started()
        assert program.running
