# SPDX-License-Identifier: BSD-2-Clause
"""Broken rings under a program in the back-end role. A ring that contradicts itself takes the port
down by name; a chain that is no frame is dropped and counted, and the next frame is served."""
import contextlib
import os

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.ring import DESC, INDIRECT, NEXT, WRITE
from lab.vhostpeer import FrontEnd, PeerClosed, PeerTimeout, Req
from lab.wire import mem_table, u64
from hostile.victim import Victim, beside, echoes, refuses_buffers, serves, until

TOP = 1 << 64


def buffer(fe, data=bytes(108)):
    """A piece of guest memory with these bytes; its address."""
    gpa = fe.memory.alloc(max(len(data), 16))
    fe.memory.view(gpa, len(data))[:] = data
    return gpa


def chain(q, rows, head=None):
    """Write descriptors as (address, length, flags, next) to the ring's last entries, and publish
    the first of them, or `head`. No byte of it is checked."""
    first = q.size - len(rows)
    for i, (addr, length, flags, nxt) in enumerate(rows):
        q.ring.set_desc(first + i, addr, length, flags, first + nxt if nxt is not None else 0)
    q.add_raw(first if head is None else head)
    q.publish()


def tx(rows, head=None):
    """An attack on the transmit ring: rows(fe) gives the descriptors."""
    return lambda fe: chain(fe.tx, rows(fe) if callable(rows) else rows, head)


def table(fe, rows):
    """An indirect table; its address."""
    gpa = fe.memory.alloc(16 * max(len(rows), 1))
    view = fe.memory.view(gpa, 16 * len(rows))
    for i, row in enumerate(rows):
        DESC.pack_into(view, 16 * i, *row)
    return gpa


def indirect(rows, length=None, flags=INDIRECT, nxt=None):
    """An attack by one descriptor that refers to a table of these rows."""
    def attack(fe):
        data = rows(fe)
        chain(fe.tx, [(table(fe, data), 16 * len(data) if length is None else length, flags, nxt)])
    return attack


def jump(queue, by):
    """The available index runs ahead."""
    def attack(fe):
        q = queue(fe)
        q.ring.avail_idx = q.avail_next + by
        q.kick()
    return attack


# The port goes down for this reason.
BROKEN = {
    "index jumps past the ring": (jump(lambda fe: fe.tx, 257), "ring 1"),
    "index jumps by half": (jump(lambda fe: fe.tx, 0x8000), "ring 1"),
    "index goes back": (jump(lambda fe: fe.tx, -1), "ring 1"),
    "head out of range": (tx([(0, 0, 0, None)], head=256), "ring 1"),
    "head of 65535": (tx([(0, 0, 0, None)], head=65535), "ring 1"),
    "next out of range": (tx(lambda fe: [(buffer(fe), 60, NEXT, 1)]), "ring 1"),
    "a loop of single bytes": (tx(lambda fe: [(buffer(fe), 1, NEXT, 0)]), "ring 1"),
    "a loop of empty descriptors": (tx(lambda fe: [(buffer(fe), 0, NEXT, 0)]), "ring 1"),
    "a table in a table": (indirect(lambda fe: [(table(fe, [(buffer(fe), 108, 0, 0)]), 16,
                                                 INDIRECT, 0)]), "ring 1"),
    "a table of 0 bytes": (indirect(lambda fe: [(buffer(fe), 108, 0, 0)], length=0), "ring 1"),
    "a table of 17 bytes": (indirect(lambda fe: [(buffer(fe), 108, 0, 0)] * 2, length=17),
                            "ring 1"),
    "a table with a loop": (indirect(lambda fe: [(buffer(fe), 60, NEXT, 0)]), "ring 1"),
    "a table whose next is outside": (indirect(lambda fe: [(buffer(fe), 60, NEXT, 9)]), "ring 1"),
}

# The chain is dropped, and nothing else happens.
DROPPED = {
    "address in no region": tx([(1 << 40, 108, 0, None)]),
    "address that wraps": tx([(TOP - 16, 108, 0, None)]),
    "length that leaves the region": tx(lambda fe: [(fe.memory.regions[0].gpa + (96 << 20) - 50,
                                                     108, 0, None)]),
    "length of 2^32-1": tx(lambda fe: [(buffer(fe), 0xffffffff, 0, None)]),
    "a descriptor that is ours to write": tx(lambda fe: [(buffer(fe), 108, WRITE, None)]),
    "a header that is ours to write": tx(lambda fe: [(buffer(fe), 48, WRITE | NEXT, 1),
                                                     (buffer(fe), 60, 0, None)]),
    "an empty chain": tx(lambda fe: [(buffer(fe), 0, 0, None)]),
    "half a header": tx(lambda fe: [(buffer(fe), 24, 0, None)]),
    "a header less a byte": tx(lambda fe: [(buffer(fe), 40, NEXT, 1), (buffer(fe), 7, 0, None)]),
    "a frame of a gigabyte in pieces": tx(lambda fe: [
        (fe.memory.regions[0].gpa, 90 << 20, NEXT, i + 1) for i in range(60)]
        + [(buffer(fe), 1, 0, None)]),
    "an Ethernet header less a byte": tx(lambda fe: [(buffer(fe), 48 + 13, 0, None)]),
    "a frame one byte too long": tx(lambda fe: [(fe.memory.regions[0].gpa, 48 + 12240 + 1, 0,
                                                 None)]),
    "a loop of one": tx(lambda fe: [(buffer(fe), 60, NEXT, 0)]),
    "a loop of two": tx(lambda fe: [(buffer(fe), 60, NEXT, 1), (buffer(fe), 60, NEXT, 0)]),
    "a table in no region": lambda fe: chain(fe.tx, [(1 << 40, 16, INDIRECT, None)]),
}


def dropped(fe, name):
    """Have a chain dropped, and handed back unused."""
    q, n = fe.tx, fe.tx.last_used
    DROPPED[name](fe)
    until(lambda: q.ring.used_idx == (n + 1) & 0xffff, "the chain's return")
    at = 2 * (n % q.size)
    assert q.ring.used_elem[at + 1] == 0
    q.last_used = (n + 1) & 0xffff


@contextlib.contextmanager
def up(sock, **kw):
    """A program and a peer that are up; on leaving, the next peer must be served."""
    with FrontEnd(sock, **kw) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        yield fe, program
        fe.drop()
        serves(fe, 100)
        program.settled(fds)
        assert program.running


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ring(sock, name):
    attack, reason = BROKEN[name]
    with up(sock) as (fe, program):
        attack(fe)
        assert fe.channel.closed_by_peer()
        program.refused(reason)


@pytest.mark.parametrize("name", DROPPED)
def test_bad_chain(sock, name):
    """Dropped, handed back unused, and counted by its kind."""
    with up(sock) as (fe, program):
        before = program.lane()
        dropped(fe, name)
        echoes(fe, 50)
        after, kinds = program.lane(), ("rx_drop_malformed", "rx_drop_too_long", "rx_desc_errors")
        assert sum(after[k] - before[k] for k in kinds) >= 1
        assert program.port()["counters"]["link"] == 1


RECEIVE = {
    "no memory": [(1 << 40, 2048, WRITE, None)],
    "ours to read only": lambda fe: [(buffer(fe, bytes(2048)), 2048, 0, None)],
    "no room": lambda fe: [(buffer(fe), 0, WRITE, None)],
    "a loop": lambda fe: [(buffer(fe), 0, WRITE | NEXT, 0)],
}


@pytest.mark.parametrize("name", RECEIVE)
def test_broken_receive_buffers(sock, name):
    rows = RECEIVE[name]
    with FrontEnd(sock) as fe, Victim(sock) as program:
        refuses_buffers(fe, program, lambda: chain(fe.rx, rows(fe) if callable(rows) else rows))


def test_receive_ring_jumps(sock):
    with FrontEnd(sock) as fe, Victim(sock) as program:
        fe.start_like_qemu()
        fe.rx.ring.avail_idx = fe.rx.avail_next + 300
        fe.send(numbered(1, 60))
        assert fe.channel.closed_by_peer()
        program.refused("ring 0")
        assert program.running


def rewrite(fe):
    """What flips the addresses, lengths and flags of all descriptors of the transmit ring once."""
    good = (buffer(fe, bytes(2048)), 108, 0, 0)
    bad = [(1 << 40, 108, 0, 0), (TOP - 8, 0xffffffff, NEXT, 65535), (0, 0, INDIRECT, 3),
           (good[0], 0xffffffff, NEXT | INDIRECT, 0), (good[0], 60, WRITE, 0)]

    def flip():
        for i in range(fe.tx.size):
            fe.tx.ring.set_desc(i, *good)
            fe.tx.ring.set_desc(i, *bad[i % len(bad)])
    return flip


def test_descriptors_rewritten_while_read(sock):
    """A thread flips addresses, lengths, flags and heads under the program; whatever it makes of
    that, it lives and serves the next peer."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        with beside(rewrite(fe)):
            for n in range(40):
                with contextlib.suppress(PeerClosed, PeerTimeout, AssertionError, OSError):
                    for i in range(64):
                        fe.tx.add_raw(i)
                    fe.tx.publish()
                    fe.channel.request(Req.GET_FEATURES)
                    if not fe.channel.closed_by_peer(0.01):
                        continue
                fe.new_driver()
                fe.start_like_qemu()
        fe.new_driver()
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        fe.send(numbered(1, 60))
        while fe.recv().frame != numbered(1, 60):  # it owes answers to what it made of the noise
            pass
        serves(fe, 100)
        assert program.running


def storm(fe):
    """What kicks both rings once."""
    def kick():
        fe.tx.kick()
        fe.rx.kick()
    return kick


def test_storm_of_kicks(sock):
    """A peer that kicks without end costs time, not frames."""
    with up(sock) as (fe, program):
        with beside(storm(fe)):
            echoes(fe, 50, 100)
        assert program.port()["counters"]["link"] == 1


def test_new_memory_table_in_a_burst(sock):
    """The same memory said again and again while frames move: none is lost."""
    with FrontEnd(sock, protocol=0) as fe, Victim(sock) as program:
        serves(fe)
        rows = [r.row() for r in fe.memory.regions]
        for n in range(100):
            for k in range(16):
                fe.send(numbered(n * 16 + k, 60), publish=False)
            fe.tx.publish()
            fe.channel.send(Req.SET_MEM_TABLE, mem_table(rows), fe.memory.fds)
            got = [int.from_bytes(fe.recv().frame[14:18], "big") for _ in range(16)]
            assert got == list(range(n * 16, n * 16 + 16))
            fe.wait_sent()
        assert program.errors() == 0


def test_kick_fd_replaced_and_taken_away(sock):
    """New kick and call descriptors while frames move, then none: the program polls on."""
    with up(sock) as (fe, program):
        for n in range(20):
            for i, q in enumerate(fe.queues):
                os.close(q.kick_fd)
                os.close(q.call_fd)
                q.kick_fd = os.eventfd(0, os.EFD_NONBLOCK)
                q.call_fd = os.eventfd(0, os.EFD_NONBLOCK)
                fe.ring_message(Req.SET_VRING_CALL, i)
                fe.ring_message(Req.SET_VRING_KICK, i)
                q.kick()
            echoes(fe, n * 20)
        fe.channel.send(Req.SET_VRING_CALL, u64(0x100))
        fe.channel.request(Req.GET_FEATURES)
        assert program.errors() == 0
