# SPDX-License-Identifier: BSD-2-Clause
"""Packed virtqueues laid by hand in a memfd: the driver's end and the device's (virtio 1.2 section 2.8).

Both ends count descriptors in positions that never wrap: position p is entry p % size of the ring,
and its wrap counter is 1 in even rounds, 0 in odd ones. Whatever the specification says of wrap
counters, lists, batches and events is then a sentence about positions.

What the specification leaves to the driver is chosen so that a misreading shows: buffer ids run
against the order of the ring, and every descriptor of a list but the last, and every one of an
indirect table, has an id that is nobody's. Flags are stored by themselves, last, as u16 (see ring.py
on struct.pack_into); x86's ordering of stores is relied upon.

Misbehaviour: ring.set() and ring.flags write anything anywhere; add(flags=, ident=) and
push_raw() do so at the next position; driver_event and device_event take any value.
"""
import struct
from collections import deque
from typing import NamedTuple

from .ring import INDIRECT, NEXT, WRITE, Chain, DeviceEnd, DriverEnd, fence

AVAIL, USED = 1 << 7, 1 << 15
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2
NOBODY = 0xdead

DESC = struct.Struct("<QIHH")   # address, length, id, flags
HEAD = struct.Struct("<QIH")    # the same without the flags
DONE = struct.Struct("<IH")     # what the device writes: length, id


def wrap(position, size):
    """The wrap counter with which a position is made available and used."""
    return 1 - position // size % 2


def avail_bits(position, size):
    """The flags that make a descriptor available: AVAIL as the counter, USED its inverse."""
    return AVAIL if wrap(position, size) else USED


def used_bits(position, size):
    """The flags that make a descriptor used: both as the counter."""
    return AVAIL | USED if wrap(position, size) else 0


def off_wrap(position, size):
    """A position as event suppression structures and vring bases have it: entry and counter."""
    return position % size | wrap(position, size) << 15


def position_of(value, size):
    """The first position with this off_wrap."""
    return (value & 0x7fff) + (0 if value >> 15 & 1 else size)


def wanted(event, event_idx, old, new, size):
    """Must the other side be told that positions old to new - 1 have changed?

    event: its event suppression structure as a u32."""
    flags = event >> 16 & 3
    if flags == EVENT_DISABLE:
        return False
    if flags != EVENT_DESC or not event_idx:
        return True
    offset = event & 0x7fff
    at = old + (offset - old) % size if offset < size else new
    return at < new and wrap(at, size) == event >> 15 & 1


class PackedRing:
    """The three parts of a packed ring as memoryviews, whoever uses them."""

    def __init__(self, size, desc, driver, device):
        self.size = size
        self.desc = desc
        self._flags = desc.cast("H")
        self._driver, self._device = driver.cast("I"), device.cast("I")

    @staticmethod
    def lengths(size):
        """Bytes of the descriptor ring and of the driver's and the device's event suppression."""
        return 16 * size, 4, 4

    def flags(self, i):
        """The flags of entry i."""
        return self._flags[8 * (i % self.size) + 7]

    def set_flags(self, i, flags):
        """Store the flags of entry i, at once."""
        self._flags[8 * (i % self.size) + 7] = flags & 0xffff

    def get(self, i):
        """Entry i: (address, length, id, flags)."""
        return DESC.unpack_from(self.desc, 16 * (i % self.size))

    def set(self, i, addr, length, ident, flags=None):
        """Write entry i, whatever the values; flags None leaves them."""
        HEAD.pack_into(self.desc, 16 * (i % self.size), addr, length, ident & 0xffff)
        if flags is not None:
            self.set_flags(i, flags)

    def set_done(self, i, length, ident):
        """Write length and id of a used entry, not its flags."""
        DONE.pack_into(self.desc, 16 * (i % self.size) + 8, length, ident & 0xffff)

    def _event(part):  # pylint: disable=no-self-argument
        def get(self):
            return getattr(self, part)[0]

        def put(self, value):
            getattr(self, part)[0] = value & 0xffffffff
        return property(get, put)

    driver_event = _event("_driver")  # read by the device: may it call?
    device_event = _event("_device")  # read by the driver: may it kick?


class PackedChain(Chain):
    """Buffers made available together; count: how many entries of the ring they take."""

    def __init__(self, segs, ident, owned, table):
        super().__init__(segs, [ident], owned, table)
        self.count = 1 if table else len(segs)


class PackedDriverQueue(DriverEnd):
    """The driver's end of a packed ring. A batch becomes visible all at once, by the flags of its
    first descriptor. avail_next, last_used and kicked are positions."""

    def __init__(self, memory, size):
        super().__init__(memory, size, PackedRing, (16, 4, 4))

    def reset(self):
        """Start from an empty ring; buffers in it are forgotten."""
        self.ring.desc[:] = bytes(16 * self.size)
        self.ring.driver_event = self.ring.device_event = 0
        self.free = deque(reversed(range(self.size)))
        self.chains, self.batch = {}, None
        self.avail_next = self.last_used = self.kicked = 0

    def base(self):
        """What SET_VRING_BASE says: where the device is to go on, in both halves."""
        here = off_wrap(self.last_used, self.size)
        return here | here << 16

    def can_add(self, count, indirect=False):
        """Is there room for a chain of count descriptors?"""
        need = 1 if indirect else count
        return bool(self.free) and self.avail_next - self.last_used + need <= self.size

    def add(self, segs, indirect=False, owned=(), flags=0, ident=None):
        """Write one chain, unpublished; returns its id.

        segs: (address, length, device_writes). owned: allocations to free when it completes.
        flags: bits to flip in its first descriptor; ident: an id to claim instead of its own.
        """
        if not self.can_add(len(segs), indirect):
            raise BufferError("the ring has no free descriptors")
        own, table = self.free.popleft(), None
        rows = [(addr, length, WRITE if write else 0) for addr, length, write in segs]
        if indirect:
            table = (self.memory.alloc(16 * len(rows)), 16 * len(rows))
            view = self.memory.view(*table)
            for i, (addr, length, kind) in enumerate(rows):
                DESC.pack_into(view, 16 * i, addr, length, NOBODY, kind)
            rows = [(*table, INDIRECT)]
        self.chains[own] = PackedChain(list(segs), own, list(owned), table)
        last = len(rows) - 1
        for i, (addr, length, kind) in enumerate(rows):
            self.add_raw(addr, length, (own if ident is None else ident) if i == last else NOBODY,
                         (kind | (NEXT if i < last else 0)) ^ (0 if i else flags))
        return own

    def add_raw(self, addr, length, ident, flags):
        """Write any descriptor at the next position, unpublished; flags without the wrap bits,
        which are flipped when given."""
        flags ^= avail_bits(self.avail_next, self.size)
        if self.batch is None:
            self.batch = (self.avail_next, flags)
            self.ring.set(self.avail_next, addr, length, ident)
        else:
            self.ring.set(self.avail_next, addr, length, ident, flags)
        self.avail_next += 1

    def publish(self):
        """Make what was added available, and kick when the device asks for it."""
        if self.batch:
            self.ring.set_flags(*self.batch)
            self.batch = None
        fence()
        old, self.kicked = self.kicked, self.avail_next
        if wanted(self.ring.device_event, self.event_idx, old, self.avail_next, self.size):
            self.kick()

    def suppress_calls(self, yes=True):
        """Ask the device not to call (or to call at the next completion)."""
        if yes:
            self.ring.driver_event = EVENT_DISABLE << 16
        elif self.event_idx:
            self.ring.driver_event = EVENT_DESC << 16 | off_wrap(self.last_used, self.size)
        else:
            self.ring.driver_event = EVENT_ENABLE << 16

    def completed(self):
        """Has the device written a used descriptor where the next one is expected?"""
        flags = self.ring.flags(self.last_used)
        return (self.last_used != self.avail_next and
                flags & (AVAIL | USED) == used_bits(self.last_used, self.size))

    def reap(self):
        """Take every completed chain; a list of Used."""
        done = []
        while self.completed():
            _, length, ident, flags = self.ring.get(self.last_used)
            for used in self._take(ident, length if flags & WRITE else 0):
                done.append(used)
                self.last_used += used.chain.count
        return done


class PackedPopped(NamedTuple):
    """A chain taken from the ring; head: its id, segs: (address, length, device_writes), count:
    how many entries of the ring it took."""
    head: int
    segs: list
    count: int


class PackedDeviceQueue(DeviceEnd):
    """The device's end of a packed ring. It holds the driver to the specification: each breach is an
    AssertionError. last_avail and used_next are positions."""

    def __init__(self, memory, size, parts, event_idx):
        assert not any(a % n for a, n in zip(parts, (16, 4, 4))), f"parts at {parts}"
        super().__init__(memory, size, PackedRing, parts, event_idx)
        self.inflight = {}

    def start(self, base):
        """Continue at what SET_VRING_BASE says. DPDK fills the lower half only: then both
        indices are there. (A higher half of 0 is index 0 in an odd round, whose lower half is 0
        too when nothing is in flight.)"""
        low, high = base & 0xffff, base >> 16
        self.last_avail = position_of(low, self.size)
        self.used_next = position_of(high or low, self.size)
        if self.used_next > self.last_avail:
            self.last_avail += 2 * self.size
        assert self.last_avail - self.used_next <= self.size, f"base {base:#x}"

    def base(self):
        """What GET_VRING_BASE answers."""
        return off_wrap(self.last_avail, self.size) | off_wrap(self.used_next, self.size) << 16

    def resume(self, old):
        """Carry on where another queue over the same ring stands."""
        self.last_avail, self.used_next, self.inflight = (old.last_avail, old.used_next,
                                                          old.inflight)

    def available(self):
        """Is a chain waiting?"""
        flags = self.ring.flags(self.last_avail)
        return flags & (AVAIL | USED) == avail_bits(self.last_avail, self.size)

    def pop(self):
        """Take the next chain, or None."""
        if not self.available():
            return None
        popped = self._walk(self.last_avail)
        assert popped.head < self.size, f"id {popped.head} of {self.size}"
        assert popped.head not in self.inflight, f"id {popped.head} is in flight already"
        writes = [s[2] for s in popped.segs]
        assert writes == sorted(writes), "a readable element behind a writable one"
        self.last_avail += popped.count
        assert self.last_avail - self.used_next <= self.size, "more chains than the ring holds"
        self.inflight[popped.head] = popped
        return popped

    def unpop(self, count=1):
        """Put the last chains back."""
        for _ in range(count):
            self.last_avail -= self.inflight.popitem()[1].count

    def _walk(self, at):
        segs = []
        while True:
            assert len(segs) < self.size, "a chain longer than the ring"
            addr, length, ident, flags = self.ring.get(at + len(segs))
            assert flags & (AVAIL | USED) == avail_bits(at + len(segs), self.size), \
                f"descriptor {len(segs)} of a chain has flags {flags:#x}"
            assert not flags & ~(AVAIL | USED | NEXT | WRITE | INDIRECT), f"flags {flags:#x}"
            if flags & INDIRECT:
                assert not segs and not flags & NEXT, "an indirect descriptor in a list"
                assert length and length % 16 == 0, f"a table of {length} bytes"
                return PackedPopped(ident, self._table(addr, length), 1)
            segs.append((addr, length, bool(flags & WRITE)))
            if not flags & NEXT:
                return PackedPopped(ident, segs, len(segs))

    def _table(self, addr, length):
        """Its entries follow each other. The device ignores every flag but WRITE, and DPDK 22.11's
        driver sets NEXT and AVAIL; it also leaves WRITE on the header of what it sends, which
        stands in front of readable entries, so that cannot be meant."""
        rows = list(DESC.iter_unpack(self.memory.view(addr, length)))
        readable = max((i for i, r in enumerate(rows) if not r[3] & WRITE), default=-1)
        return [(a, n, i > readable) for i, (a, n, _, _) in enumerate(rows)]

    def push(self, elems, call=True, batch=False):
        """Write used descriptors (id, length), the first one's flags last, and call when asked.
        batch: only one for all, as VIRTIO_F_IN_ORDER allows; the buffers before the last must
        have been written to their ends."""
        old, rows = self.used_next, []
        for ident, length in elems:
            popped = self.inflight.pop(ident)
            writes = length or any(w for _, _, w in popped.segs)
            rows.append((self.used_next, length, ident, WRITE if writes else 0))
            self.used_next += popped.count
        if batch and rows:
            rows = [(old, *rows[-1][1:])]
        for position, length, ident, flags in reversed(rows):
            self.ring.set_done(position, length, ident)
            self.ring.set_flags(position, flags | used_bits(position, self.size))
        if call:
            self._tell(old)

    def push_raw(self, *elems, flags=WRITE):
        """Publish any used descriptors (id, length) at once, at one position each; wrap bits in
        flags are flipped."""
        old = self.used_next
        for position, (ident, length) in reversed(list(enumerate(elems, old))):
            self.ring.set_done(position, length, ident)
            self.ring.set_flags(position, flags ^ used_bits(position, self.size))
        self.used_next += len(elems)
        self._tell(old)

    def _tell(self, old):
        fence()
        self._call(wanted(self.ring.driver_event, self.event_idx, old, self.used_next, self.size))

    def suppress_kicks(self, yes=True):
        """Ask the driver not to kick (or to kick at the next buffer)."""
        if yes:
            self.ring.device_event = EVENT_DISABLE << 16
        elif self.event_idx:
            self.ring.device_event = EVENT_DESC << 16 | off_wrap(self.last_avail, self.size)
        else:
            self.ring.device_event = EVENT_ENABLE << 16
