# SPDX-License-Identifier: BSD-2-Clause
"""A migration without a guest: a scripted front-end copies all of its memory while a program works in it, and then only what the dirty log
says, pass by pass. In the end the copy is the memory, byte for byte.

The driver writes nothing between the whole copy and the comparison but what publishes a burst, which it writes into both; so whatever else is
written is ours, and a page that changed without a bit is found whichever moment the passes come at. The rings' parts stand so that indices,
entries and event words are in pages of their own, where no other bit hides one that is missing.
"""
import random
import struct

import pytest

from lab import avip
from lab.dirtylog import PAGE, Copy, DirtyLog, log_all
from lab.frames import check, numbered
from lab.inflight import Keeper, Kept
from lab.peer import BASIC, RX, TX
from lab.ring import Memory
from lab.vhostpeer import F, P, Req
from hostile.test_changes import heard
from hostile.test_inflight import PEEKER, SIZE as LEFT, hold_packed, program
from hostile.test_kill import frame
from hostile.victim import Victim, until

RINGS = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
KINDS = {f"{ring}, {what}": (features, keep)
         for ring, basic in RINGS.items()
         for what, features, keep in (("mergeable", basic, False), ("whole", basic & ~F.MRG_RXBUF, False),
                                      ("in order", basic | F.IN_ORDER, False), ("in-flight region", basic, True))}
kinds = pytest.mark.parametrize("kind", KINDS)


class Apart(Memory):
    """Each part of a ring begins a little before the end of a page; what is not of a ring comes after them."""
    rings = True

    def alloc(self, size, align=16, region=None):
        if self.rings:
            self.used[0] = (self.used[0] // PAGE + 2) * PAGE - 8 * align
        return super().alloc(size, align, region)


class Source(Keeper):
    """A front-end whose memory is logged from the start, and a driver that has room for a burst of echoes."""

    def __init__(self, sock, features, keep, size=1024):
        super().__init__(sock, keep=keep, features=features, ring=size, memory=Apart((2 << 20, 3 << 20)))
        self.memory.rings = False
        self.memory.used[0] = (self.memory.used[0] // PAGE + 2) * PAGE
        self.random = random.Random(features | keep)
        self.next = self.back = 0
        self.log = DirtyLog(self.memory)

    def begin(self):
        """Start, with room for echoes, and log all from now on."""
        self.start_like_qemu()
        whole = not self.features & F.MRG_RXBUF
        self.post_rx([4096] * 100 if whole else [1024, (300, 500)] * 200)
        assert not self.want & ~self.offered and self.protocol & P.LOG_SHMFD
        heard(self)
        self.log.tell(self)
        log_all(self)

    def burst(self):
        """Frames of all sorts, not published; how many bytes their echoes have, with headers."""
        first, total = self.next, 0
        self.next += self.random.randint(10, 30)
        for n in range(first, self.next):
            size = self.random.choice((60, 200, 1500, 3000))
            self.send(numbered(n, size), avip.distinct(n), split=self.random.choice(((), (10, 38), (48, 1))),
                      indirect=self.random.random() < 0.3, publish=False)
            total += 48 + size
        return total

    def publish(self, copy):
        """Publish what was sent; into the copy goes what the driver writes for that."""
        q = self.tx
        if self.features & F.RING_PACKED:
            position, value = q.batch
            at = q.gpa[0] + 16 * (position % q.size) + 14
        else:
            at, value = q.gpa[1] + 2, q.avail_next
        copy.write(at, struct.pack("<H", value))
        q.publish()

    def came(self):
        """How many bytes of echoes are there. Reads only."""
        pending = self.pending.setdefault(0, [])
        pending += self.rx.reap()
        return sum(u.len for u in pending)

    def take_echoes(self):
        """Each frame came back; buffers are made available again."""
        while self.back < self.next:
            n, self.back = self.back, self.back + 1
            packet = self.recv()
            assert check(packet.frame) == n and packet.header == avip.distinct(n, mrg=len(packet.used))
        self.wait_sent()

    def follow(self, copy, total):
        """Passes until all echoes are there and the program sleeps: then the copy is the memory."""
        until(lambda: (copy.follow(), self.came() == total)[1], "the echoes")
        until(lambda: (copy.follow(), not copy.lacks())[1], "bits of all that was written")

    def stop(self, copy):
        """As QEMU does at the end; the copy is the memory, and nothing is written any more. Returns the bases."""
        bases = []
        for i in (RX, TX):
            bases.append(self.get_base(i))
            copy.follow()
        assert not copy.lacks()
        heard(self)
        assert not copy.follow() and not copy.lacks()
        return bases

    def go_on(self, bases):
        """As QEMU does when a guest that was stopped runs on."""
        for i, base in enumerate(bases):
            self.ring_message(Req.SET_VRING_BASE, i, base=base)
            self.ring_message(Req.SET_VRING_ADDR, i)
            self.ring_message(Req.SET_VRING_KICK, i)
        for q in self.queues:
            q.kick()

    def close(self):
        super().close()
        self.log.close()


@pytest.fixture(name="source")
def _source(sock, kind):
    """A front-end of this kind, and a program that echoes; the rings run and are logged."""
    features, keep = KINDS[kind]
    with Source(sock, features, keep) as fe, Victim(sock) as echo:
        fe.begin()
        yield fe
        assert echo.running and not echo.errors()


@kinds
def test_running(source):
    """Bursts, one after the other, each other one while all is copied; also while the log is replaced by another."""
    for n in range(20):
        total = source.burst()
        if n % 2:
            source.tx.publish()
        copy = Copy(source.memory, source.log)
        if n % 2 == 0:
            source.publish(copy)
        if n % 5 == 3:
            old, source.log = source.log, DirtyLog(source.memory, 4096 * (n % 3))
            source.log.tell(source)
            copy.follow()
            copy.log = source.log
            old.close()
        source.follow(copy, total)
        source.take_echoes()


@kinds
def test_logging_begins(source):
    """With a burst in the program's hands, and another after it."""
    for _ in range(12):
        log_all(source, False)
        total = source.burst()
        source.tx.publish()
        total += source.burst()
        log_all(source)
        copy = Copy(source.memory, source.log)
        source.publish(copy)
        source.follow(copy, total)
        source.take_echoes()


@kinds
def test_stopped(source):
    """Amidst of a burst: nothing that was written is without its bit when GET_VRING_BASE is answered, and nothing is written after that.
    When the rings run on, nothing is missing."""
    for n in range(20):
        source.burst()
        copy = Copy(source.memory, source.log)
        source.publish(copy)
        for _ in range(n % 4):
            copy.follow()
        source.go_on(source.stop(copy))
        source.take_echoes()


@pytest.mark.parametrize("ring", RINGS)
def test_left_in_the_ring(sock, ring):
    """A program does not read: when the ring stops, the library takes what is in it, and gives it back."""
    with Source(sock, RINGS[ring], False) as fe, program(PEEKER, sock) as p:
        fe.begin()
        for n in range(40):
            fe.send(frame(n), publish=False)
        fe.tx.publish()
        p.expect("sees 0")
        copy = Copy(fe.memory, fe.log)
        assert not fe.tx.reap()
        fe.stop(copy)
        assert len(fe.tx.reap()) == 40


def test_written_back(sock):
    """During a migration a program takes up what an older one had in flight, in another order than it stands in the packed ring: it
    writes it back there."""
    with Source(sock, RINGS["packed"], True, LEFT) as fe:
        fe.kept = Kept.make(2, LEFT, packed=True)
        ids = [fe.send(frame(n)) for n in range(40)]
        hold_packed(fe, [(i, [(a, n) for a, n, _ in fe.tx.chains[i].segs]) for i in reversed(ids)])
        copy = Copy(fe.memory, fe.log)
        fe.want |= F.LOG_ALL
        fe.log_rings = 1
        with program(PEEKER, sock) as p:
            fe.start_like_qemu()
            fe.log.tell(fe)
            p.expect("sees 39")
            until(lambda: (copy.follow(), not copy.lacks())[1], "bits of what was written back")
            fe.stop(copy)
