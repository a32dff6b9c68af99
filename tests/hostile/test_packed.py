# SPDX-License-Identifier: BSD-2-Clause
"""Broken packed rings under a program in the back-end role; test_rings.py has the split ones and
test_completions.py the front-end role. A ring that contradicts itself takes the port down by name;
a chain that is no frame is dropped and counted; what the format leaves open is lived with."""
import contextlib
import itertools

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.packedring import AVAIL, DESC, EVENT_DESC, USED, PackedRing, off_wrap
from lab.ring import INDIRECT, NEXT, WRITE
from lab.vhostpeer import BASIC, F, FrontEnd, PeerClosed, PeerTimeout, Req
from lab.wire import vring_state
from hostile.victim import Victim, beside, echoes, refuses_buffers, serves, until

PACKED = BASIC | F.RING_PACKED
TOP = 1 << 64
SIZE = 100


@contextlib.contextmanager
def peers(sock, **kw):
    """A front-end with packed rings, and a program that will have no others."""
    with FrontEnd(sock, features=PACKED, ring=SIZE, **kw) as fe, \
            Victim(sock, format="packed") as program:
        yield fe, program


@contextlib.contextmanager
def up(sock, **kw):
    """A program and a peer that are up; on leaving, the next peer must be served."""
    with peers(sock, **kw) as (fe, program):
        serves(fe)
        fds = program.fds()
        yield fe, program
        fe.drop()
        serves(fe, 100)
        program.settled(fds)
        assert program.running


def buffer(fe, data=bytes(108)):
    """A piece of guest memory with these bytes; its address."""
    gpa = fe.memory.alloc(max(len(data), 16))
    fe.memory.view(gpa, len(data))[:] = data
    return gpa


def chain(q, rows):
    """Make descriptors (address, length, flags) available as one chain with id 7, unchecked."""
    for addr, length, flags in rows:
        q.add_raw(addr, length, 7, flags)
    q.publish()


def tx(rows):
    """An attack on the transmit ring."""
    return lambda fe: chain(fe.tx, rows(fe) if callable(rows) else rows)


def table(fe, rows):
    """An indirect table; its address."""
    gpa = fe.memory.alloc(16 * max(len(rows), 1))
    view = fe.memory.view(gpa, 16 * len(rows))
    for i, (addr, length, flags) in enumerate(rows):
        DESC.pack_into(view, 16 * i, addr, length, i, flags)
    return gpa


def indirect(rows, length=None, flags=INDIRECT):
    """An attack by one descriptor that refers to a table of these rows."""
    def attack(fe):
        data = rows(fe)
        chain(fe.tx, [(table(fe, data), 16 * len(data) if length is None else length, flags)])
    return attack


def one(fe):
    """A table of one good entry."""
    return [(buffer(fe), 108, 0)]


# The port goes down for this reason.
BROKEN = {
    "a chain longer than the ring": tx(lambda fe: [(buffer(fe), 1, NEXT)] * SIZE),
    "a chain that goes on where nothing is": tx(lambda fe: [(buffer(fe), 108, NEXT)]),
    "a chain of empty descriptors longer than the ring": tx(lambda fe: [(buffer(fe), 0, NEXT)] * SIZE),
    "a table with a successor": tx(lambda fe: [(table(fe, one(fe)), 16, INDIRECT | NEXT),
                                               (buffer(fe), 60, 0)]),
    "a table in a list": tx(lambda fe: [(buffer(fe), 48, NEXT), (table(fe, one(fe)), 16, INDIRECT)]),
    "a table of 0 bytes": indirect(one, length=0),
    "a table of 17 bytes": indirect(one, length=17),
    "a table of 15 bytes": indirect(one, length=15),
    "a table of 2^32-16 bytes": indirect(one, length=(1 << 32) - 16),
}

# The chain is dropped, and nothing else happens.
DROPPED = {
    "address in no region": tx([(1 << 40, 108, 0)]),
    "address that wraps": tx([(TOP - 16, 108, 0)]),
    "length that leaves the region": tx(lambda fe: [(fe.memory.regions[0].gpa + (96 << 20) - 50, 108, 0)]),
    "length of 2^32-1": tx(lambda fe: [(buffer(fe), 0xffffffff, 0)]),
    "a descriptor that is ours to write": tx(lambda fe: [(buffer(fe), 108, WRITE)]),
    "a descriptor that is ours to write, then one to read": tx(lambda fe: [
        (buffer(fe), 48, WRITE | NEXT), (buffer(fe), 60, 0)]),
    "one to read, then one that is ours to write": tx(lambda fe: [
        (buffer(fe), 108, NEXT), (buffer(fe), 60, WRITE)]),
    "an empty chain": tx(lambda fe: [(buffer(fe), 0, 0)]),
    "half a header": tx(lambda fe: [(buffer(fe), 24, 0)]),
    "a header less a byte": tx(lambda fe: [(buffer(fe), 40, NEXT), (buffer(fe), 7, 0)]),
    "a frame of a gigabyte in pieces": tx(lambda fe: [
        (fe.memory.regions[0].gpa, 90 << 20, NEXT)] * 60 + [(buffer(fe), 1, 0)]),
    "an Ethernet header less a byte": tx(lambda fe: [(buffer(fe), 48 + 13, 0)]),
    "a frame one byte too long": tx(lambda fe: [(fe.memory.regions[0].gpa, 48 + 12240 + 1, 0)]),
    "a table in no region": tx([(1 << 40, 16, INDIRECT)]),
    "a table that leaves its region": tx(lambda fe: [(fe.memory.regions[0].gpa + (96 << 20) - 16, 32,
                                                      INDIRECT)]),
    "a table whose entry is in no region": indirect(lambda fe: [(1 << 40, 108, 0)]),
}


def next_peer(fe, program):
    """A new driver is served, after what the program made of the last one's noise."""
    fe.new_driver()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)
    fe.send(numbered(1, 60))
    while fe.recv().frame != numbered(1, 60):
        pass
    serves(fe, 100)
    assert program.running


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ring(sock, name):
    with up(sock) as (fe, program):
        BROKEN[name](fe)
        assert fe.channel.closed_by_peer()
        program.refused("ring 1")


def returned(q):
    """The used descriptor that stands next, (id, length), when there is one."""
    if not q.completed():
        return None
    _, length, ident, flags = q.ring.get(q.last_used)
    return ident, length if flags & WRITE else 0


def dropped(fe, name):
    """Have a chain dropped, and handed back unused."""
    DROPPED[name](fe)
    assert until(lambda: returned(fe.tx), "the chain's return") == (7, 0)
    fe.tx.last_used = fe.tx.avail_next


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


@pytest.mark.parametrize("ident", [0, SIZE - 1, SIZE, 0x7fff, 0xffff])
def test_any_id_comes_back(sock, ident):
    """An id means something to the driver only."""
    with up(sock) as (fe, program):
        for n in range(20):  # the same one twice at once, too
            at = [buffer(fe, avip.distinct(n) + numbered(n, 60)) for _ in range(2)]
            for gpa in at:
                fe.tx.add_raw(gpa, 108, ident, 0)
            fe.tx.publish()
            for _ in at:
                assert check(fe.recv().frame) == n
                assert until(lambda: returned(fe.tx), "a completion") == (ident, 0)
                fe.tx.last_used += 1
        assert program.errors() == 0


@pytest.mark.parametrize("bits", [AVAIL, USED, AVAIL | USED], ids=["avail", "used", "both"])
def test_wrap_bits_that_are_not_due(sock, bits):
    """What is not available in this round is not looked at, in both rounds; once it is, it is."""
    with up(sock) as (fe, program):
        q = fe.tx
        for n in range(2 * SIZE):
            gpa = buffer(fe, avip.distinct(n) + numbered(n, 60))
            q.add_raw(gpa, 108, 7, bits)
            wrong = q.batch[1]
            q.publish()
            q.kick()
            if n % 20 == 0:  # it has looked, and slept again
                arms = program.lane()["rx_arms"]
                q.kick()
                until(lambda a=arms: program.lane()["rx_arms"] > a, "another look")
            assert q.ring.get(q.avail_next - 1) == (gpa, 108, 7, wrong)
            q.ring.set_flags(q.avail_next - 1, wrong ^ bits)
            q.kick()
            assert check(fe.recv().frame) == n
            assert until(lambda: returned(q), "a completion") == (7, 0)
            q.last_used += 1
        assert program.errors() == 0


# Bits of a descriptor's flags that say nothing in this version.
NO_MEANING = 0x7f78


def test_flags_that_mean_nothing(sock):
    """They are of a later version of the specification, maybe; what they stand on is served."""
    with up(sock) as (fe, program):
        bits = [1 << n for n in range(16) if NO_MEANING >> n & 1] + [NO_MEANING]
        for n, flags in enumerate(bits):
            data = avip.distinct(n) + numbered(n, 60)
            chain(fe.tx, [(buffer(fe, data[:48]), 48, NEXT | flags), (buffer(fe, data[48:]), 60, flags)])
            assert check(fe.recv().frame) == n
            assert until(lambda: returned(fe.tx), "a completion") == (7, 0)
            fe.tx.last_used += 2
        assert program.errors() == 0


@pytest.mark.parametrize("flags", [NEXT, INDIRECT, WRITE, AVAIL, 0xffff])
def test_flags_in_a_table(sock, flags):
    """Its entries follow each other, and where nothing is ours to write none of their flags counts: drivers
    leave there what they please."""
    with up(sock) as (fe, program):
        for n in range(20):
            data = avip.distinct(n) + numbered(n, 60)
            indirect(lambda fe, d=data: [(buffer(fe, d[:48]), 48, flags), (buffer(fe, d[48:]), 60, flags)])(fe)
            assert check(fe.recv().frame) == n
            assert until(lambda: returned(fe.tx), "a completion") == (7, 0)
            fe.tx.last_used += 1
        assert program.errors() == 0


def test_table_that_was_not_agreed(sock):
    with FrontEnd(sock, features=PACKED & ~F.INDIRECT, ring=SIZE) as fe, \
            Victim(sock, format="packed") as program:
        serves(fe)
        indirect(one)(fe)
        assert fe.channel.closed_by_peer()
        program.refused("ring 1")
        fe.drop()
        serves(fe, 100)


def wrong_lap(q):
    """The slot that comes next, in the round that does not."""
    return EVENT_DESC << 16 | off_wrap(q.last_used, q.size) ^ 0x8000


EVENTS = {
    "a slot of the wrong lap": wrong_lap,
    "an entry outside the ring": EVENT_DESC << 16 | SIZE,
    "the last off_wrap": EVENT_DESC << 16 | 0xffff,
    "reserved flags": 3 << 16 | 0x8000,
    "reserved bits": 0xfffc << 16,
    "all ones": 0xffffffff,
}


@pytest.mark.parametrize("name", EVENTS)
def test_event_suppression_is_garbage(sock, name):
    """It may cost calls, or bring too many; frames still move, and later calls come."""
    with up(sock) as (fe, program):
        def spoil():
            for q in fe.queues:
                event = EVENTS[name]
                q.ring.driver_event = event(q) if callable(event) else event
        spoil()
        for n in range(3 * SIZE):
            fe.send(numbered(n, 60))
            until(fe.rx.completed, "a frame")
            assert check(fe.recv().frame) == n
            until(lambda: fe.sent() or not fe.tx.chains, "its completion")
            spoil()
        echoes(fe, 0, SIZE)
        assert program.errors() == 0


RECEIVE = {
    "no memory": [(1 << 40, 2048, WRITE)],
    "one to write, then one to read only": lambda fe: [(buffer(fe, bytes(100)), 100, WRITE | NEXT),
                                                       (buffer(fe, bytes(2048)), 2048, 0)],
    "one to read only, then one to write": lambda fe: [(buffer(fe, bytes(100)), 100, NEXT),
                                                       (buffer(fe, bytes(2048)), 2048, WRITE)],
    "more to come where nothing is": lambda fe: [(buffer(fe, bytes(100)), 100, WRITE | NEXT)],
    "ours to read only": lambda fe: [(buffer(fe, bytes(2048)), 2048, 0)],
    "no room": lambda fe: [(buffer(fe), 0, WRITE)],
    "longer than the ring": lambda fe: [(buffer(fe), 1, WRITE | NEXT)] * SIZE,
    "a table of 17 bytes": lambda fe: [(buffer(fe), 17, INDIRECT)],
    "a table whose entry is ours to read only": lambda fe: [
        (table(fe, [(buffer(fe, bytes(2048)), 2048, 0)]), 16, INDIRECT)],
    "one table for all, empty but for its last byte": lambda fe: [
        (table(fe, [(small := buffer(fe), 0, WRITE)] * 699 + [(small, 1, WRITE)]), 16 * 700, INDIRECT)] * (SIZE - 1),
    "a table in a list": lambda fe: [
        (buffer(fe), 100, WRITE | NEXT),
        (table(fe, [(buffer(fe, bytes(2048)), 2048, WRITE)]), 16, INDIRECT)],
}


@pytest.mark.parametrize("name", RECEIVE)
def test_broken_receive_buffers(sock, name):
    rows = RECEIVE[name]
    with peers(sock) as (fe, program):
        refuses_buffers(fe, program, lambda: chain(fe.rx, rows(fe) if callable(rows) else rows))


@pytest.mark.parametrize("size", [33, SIZE])
def test_receive_buffer_on_the_ring(sock, size):
    """What the program sends makes the slot available again, in the next lap, in which its chain began: the next chain ends there, more
    than a lap after the first one's beginning. The receive ring is broken by name, and nothing behind the ring, where more seems to be
    available, is touched."""
    behind = 12000
    with FrontEnd(sock, features=PACKED, ring=size) as fe, Victim(sock, format="packed") as program:
        q, mem = fe.rx, fe.memory
        desc = mem.alloc(16 * (size + behind), 4096)
        q.gpa = (desc, *q.gpa[1:])
        q.ring = PackedRing(size, *(mem.view(gpa, n) for gpa, n in zip(q.gpa, PackedRing.lengths(size))))
        wide = PackedRing(size + behind, mem.view(desc, 16 * (size + behind)), *(mem.view(gpa, 4) for gpa in q.gpa[1:]))
        fe.reset_rings()
        q.avail_next = q.last_used = q.kicked = size - 1
        small = buffer(fe)
        for i in range(behind):
            wide.set(size + i, small, 1, 7, USED | WRITE)
        untouched = bytes(wide.desc[16 * size:])
        fe.start_like_qemu()
        chain(q, [(small, 48, WRITE | NEXT), (desc + 16 * (size - 1) + 14, 2, WRITE)] + [(small, 1, WRITE | NEXT)] * (size - 2))
        fe.send((USED | WRITE).to_bytes(2, "little") + numbered(1, 12000)[2:], avip.distinct(1))
        assert fe.channel.closed_by_peer()
        program.refused("a descriptor chain is longer than the ring")
        assert bytes(wide.desc[16 * size:]) == untouched
        next_peer(fe, program)


@pytest.mark.parametrize("base", [SIZE | 0x8000, 0x7fff, SIZE << 16 | 0x8000, 0xffffffff, 0x80008005,
                                  0x80050003])
def test_base_outside_the_ring(sock, base):
    """Refused by name, or lived with; then the next peer is served."""
    with up(sock) as (fe, program):
        fe.new_driver()
        send = fe.ring_message

        def lie(req, i, **kw):
            if req == Req.SET_VRING_BASE:
                fe.channel.send(req, vring_state(i, base))
            else:
                send(req, i, **kw)
        fe.ring_message = lie
        with contextlib.suppress(PeerClosed, PeerTimeout, OSError):
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            fe.send(numbered(1, 60), avip.distinct(1))
            fe.recv(timeout=0.5)
        fe.ring_message = send
        if base & 0x7fff >= SIZE or base >> 16 & 0x7fff >= SIZE:
            assert fe.channel.closed_by_peer()
            program.refused("ring")
        fe.new_driver()


def rewrite(fe):
    """What gives all descriptors of the transmit ring other addresses, lengths, ids and flags."""
    good = buffer(fe, bytes(2048))
    rows = [(good, 108, 0, 0), (1 << 40, 108, 1, 0), (TOP - 8, 0xffffffff, 2, NEXT),
            (0, 0, 0xffff, INDIRECT), (good, 0xffffffff, 4, NEXT | INDIRECT),
            (good, 64, 5, INDIRECT), (good, 60, 6, WRITE), (good, 200, 7, NEXT)]
    count = itertools.count(1)

    def flip():
        n = next(count)
        for i in range(SIZE):
            addr, length, ident, flags = rows[(n + i) % len(rows)]
            fe.tx.ring.set(i, addr, length, ident, flags ^ (AVAIL if n // 8 % 2 else USED))
    return flip


def test_descriptors_rewritten_while_read(sock):
    """A thread flips addresses, lengths, ids and flags under the program; whatever it makes of that,
    it lives and serves the next peer."""
    with peers(sock) as (fe, program):
        serves(fe)
        with beside(rewrite(fe)):
            for _ in range(30):
                with contextlib.suppress(PeerClosed, PeerTimeout, AssertionError, OSError):
                    if not fe.channel:
                        fe.reset_rings()
                        fe.start_like_qemu()  # it may break at once
                    for _ in range(20):
                        fe.tx.kick()
                        fe.channel.request(Req.GET_FEATURES)
                    if not fe.channel.closed_by_peer(0.01):
                        continue
                fe.drop()
        next_peer(fe, program)


def test_driver_overruns_its_ring(sock):
    """Descriptors are made available that have not come back: the program serves what it finds, or
    refuses it, and lives."""
    with peers(sock) as (fe, program):
        serves(fe)
        for n in range(5 * SIZE):
            fe.tx.add_raw(buffer(fe), 108, n % 7, 0)
            if n % 13 == 0:
                fe.tx.publish()
        with contextlib.suppress(PeerClosed, OSError):
            fe.channel.request(Req.GET_FEATURES)
        next_peer(fe, program)
