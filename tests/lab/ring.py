# SPDX-License-Identifier: BSD-2-Clause
"""Split virtqueues laid by hand in a memfd: the driver's end and the device's.

Indices are stored through memoryviews cast to 'H', one store each: struct.pack_into clears its
target first, and a polling peer would see that zero. Descriptors may be packed, since the index
publishes them. x86's ordering of stores is relied upon; fence() is the full barrier that the
notification checks need.
"""
import errno
import fcntl
import mmap
import os
import select
import struct
import threading
import time
from collections import deque
from typing import NamedTuple

from .wire import PeerTimeout

DESC = struct.Struct("<QIHH")
NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT = NO_NOTIFY = 1
PAGE = 4096

_lock = threading.Lock()


def fence():
    """Full memory barrier: taking a lock is a locked instruction."""
    with _lock:
        pass


def need_event(event, new, old):
    """virtio 1.2 section 2.7.10: must crossing from old to new be notified?"""
    return (new - event - 1) & 0xffff < (new - old) & 0xffff


def wait_fds(fds, timeout):
    """select() for reading, in seconds; returns the ready ones."""
    return select.select(fds, [], [], max(timeout, 0))[0]


def drain_eventfd(fd):
    """Take what an eventfd holds; 0 when it holds nothing."""
    try:
        return int.from_bytes(os.read(fd, 8), "little")
    except BlockingIOError:
        return 0


def signal_eventfd(fd):
    """Add one to an eventfd; a full one is already ready."""
    try:
        os.eventfd_write(fd, 1)
    except OSError as e:
        if e.errno != errno.EAGAIN:
            raise


class Region:
    """A piece of guest memory: guest-physical gpa, front-end virtual uva, offset in fd."""

    def __init__(self, gpa, size, uva, fd, offset):
        self.gpa, self.size, self.uva, self.fd, self.offset = gpa, size, uva, fd, offset
        # The whole file up to the region's end: its offset need not be page aligned.
        self.map = mmap.mmap(fd, offset + size)
        self.view = memoryview(self.map)[offset:offset + size]

    def row(self):
        """The region as SET_MEM_TABLE has it."""
        return (self.gpa, self.size, self.uva, self.offset)


class AddressMap:
    """Looks addresses up in regions."""

    def __init__(self):
        self.regions = []

    def _find(self, address, length, start):
        for r in self.regions:
            base = start(r)
            if base <= address and address + length <= base + r.size:
                return r, address - base
        raise IndexError(f"address {address:#x}+{length:#x} is in no region")

    def view(self, gpa, length):
        """Writable bytes at a guest-physical address."""
        r, at = self._find(gpa, length, lambda r: r.gpa)
        return r.view[at:at + length]

    def view_uva(self, uva, length):
        """Writable bytes at a front-end virtual address."""
        r, at = self._find(uva, length, lambda r: r.uva)
        return r.view[at:at + length]

    def uva(self, gpa):
        """Front-end virtual address of a guest-physical one."""
        r, at = self._find(gpa, 0, lambda r: r.gpa)
        return r.uva + at


class Memory(AddressMap):
    """Guest memory in memfds, with an allocator.

    sizes gives one region each. By default front-end virtual and guest-physical addresses differ
    and there is a hole between regions, so that mixing them up shows; identity=True makes them
    equal, as DPDK's virtio-user has them. one_fd puts all regions into one file at growing
    offsets, as QEMU does. seals are the memfd's.
    """

    def __init__(self, sizes=(8 << 20,), identity=False, one_fd=False,
                 seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL):
        super().__init__()
        self.bins, self.next = {}, None
        self.fds = []
        gpa, offset = 0x100000000 if identity else 0x10000, 0
        for size in sizes:
            if not one_fd or not self.fds:
                total = sum(sizes) + PAGE if one_fd else size
                fd = os.memfd_create("lab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                self.fds.append(fd)
                os.ftruncate(fd, total)
                if seals:
                    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
                offset = PAGE if one_fd else 0
            uva = gpa if identity else 0x7f5500000000 + gpa
            self.regions.append(Region(gpa, size, uva, self.fds[-1], offset))
            gpa, offset = gpa + size + (1 << 20), offset + size
        self.where = [(r.gpa, r.gpa + r.size) for r in self.regions]
        self.used = [0] * len(self.regions)

    def alloc(self, size, align=16, region=None):
        """Bytes from any region (or one); returns the guest-physical address."""
        key = (size, align)
        if region is None and self.bins.get(key):
            return self.bins[key].pop()
        for i, r in enumerate(self.regions):
            if region not in (None, i):
                continue
            at = (self.used[i] + align - 1) & ~(align - 1)
            if at + size <= r.size:
                self.used[i] = at + size
                return r.gpa + at
        raise MemoryError(f"no room for {size} bytes in the lab's guest memory")

    def free(self, gpa, size, align=16):
        """Give back what alloc() gave; it is handed out again for the same size."""
        self.bins.setdefault((size, align), []).append(gpa)

    def close(self):
        """Close the memfds; mappings go when nothing refers to them."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class Ring:
    """The three parts of a split ring as memoryviews, whoever uses them."""

    def __init__(self, size, desc, avail, used):
        self.size = size
        self.desc = desc
        self.avail = avail.cast("H")
        self.used = used.cast("H")
        self.used_elem = used[4:4 + 8 * size].cast("I")

    @staticmethod
    def lengths(size):
        """Bytes of the descriptor table, the available ring and the used ring."""
        return 16 * size, 6 + 2 * size, 6 + 8 * size

    def get_desc(self, i):
        """Descriptor i: (address, length, flags, next)."""
        return DESC.unpack_from(self.desc, 16 * i)

    def set_desc(self, i, addr, length, flags=0, nxt=0):
        """Write descriptor i, whatever the values."""
        DESC.pack_into(self.desc, 16 * i, addr, length, flags, nxt)

    def set_done(self, i, length, head):
        """Write used element i, whatever the values."""
        self.used_elem[2 * i], self.used_elem[2 * i + 1] = head, length

    def _field(part, index):  # pylint: disable=no-self-argument
        def get(self):
            return getattr(self, part)[index(self)]

        def put(self, value):
            getattr(self, part)[index(self)] = value & 0xffff
        return property(get, put)

    avail_flags = _field("avail", lambda r: 0)
    avail_idx = _field("avail", lambda r: 1)
    used_event = _field("avail", lambda r: 2 + r.size)
    used_flags = _field("used", lambda r: 0)
    used_idx = _field("used", lambda r: 1)
    avail_event = _field("used", lambda r: 2 + 4 * r.size)


class Used(NamedTuple):
    """A completed chain: its head, the length the device wrote, and the chain."""
    head: int
    len: int
    chain: object


class Chain:
    """Buffers that the driver made available together."""

    def __init__(self, segs, ids, owned, table):
        self.segs, self.ids, self.owned, self.table = segs, ids, owned, table

    def data(self, memory, length):
        """The first length bytes of the chain's writable buffers."""
        out = b""
        for addr, size, write in self.segs:
            if write and len(out) < length:
                out += bytes(memory.view(addr, min(size, length - len(out))))
        return out


class DriverEnd:
    """What the driver's (front-end's) ends of split and packed rings share.

    add() -> publish() -> kick(), then reap() or wait_used(). ring gives raw access for scripted
    misbehaviour. kick_fd and call_fd are the eventfds. kind: the ring's class; aligns: of its
    three parts.
    """

    def __init__(self, memory, size, kind, aligns):
        self.memory, self.size = memory, size
        self.event_idx = self.in_order = False
        lengths = kind.lengths(size)
        self.gpa = tuple(memory.alloc(n, a) for n, a in zip(lengths, aligns))
        self.ring = kind(size, *(memory.view(g, n) for g, n in zip(self.gpa, lengths)))
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.call_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.kicks = 0
        self.reset()

    def close(self):
        """Close the eventfds."""
        os.close(self.kick_fd)
        os.close(self.call_fd)

    def kick(self):
        """Kick whether it is asked for or not."""
        self.kicks += 1
        signal_eventfd(self.kick_fd)

    def _take(self, ident, length):
        """The chains that a used element with this id completes, as Used: in order, all up to its
        own, those before it to their full length."""
        if ident not in self.chains:
            raise AssertionError(f"used element {ident} is no chain of ours")
        while self.in_order and (first := next(iter(self.chains))) != ident:
            chain = self.chains.pop(first)
            yield Used(first, sum(n for _, n, write in chain.segs if write), chain)
        yield Used(ident, length, self.chains.pop(ident))

    def recycle(self, used):
        """Free the ids and allocations of completed chains."""
        for u in used:
            self.free.extend(u.chain.ids)
            for gpa, size in u.chain.owned + ([u.chain.table] if u.chain.table else []):
                self.memory.free(gpa, size)

    def wait_used(self, timeout):
        """reap() after waiting for a call; relies on the call alone, so a lost one shows."""
        deadline = time.monotonic() + timeout
        while not (done := self.reap()):
            self.suppress_calls(False)
            fence()
            if self.completed():
                continue
            if not wait_fds([self.call_fd], deadline - time.monotonic()):
                raise PeerTimeout("a completion without a call" if self.completed()
                                  else "no completion")
            drain_eventfd(self.call_fd)
        return done


class DriverQueue(DriverEnd):
    """The driver's end of a split ring."""

    def __init__(self, memory, size):
        super().__init__(memory, size, Ring, (16, 2, 4))

    def reset(self):
        """Start from an empty ring; buffers in it are forgotten."""
        for part in (self.ring.avail, self.ring.used):
            for i in range(len(part)):
                part[i] = 0
        self.free = deque(range(self.size))
        self.chains = {}
        self.avail_next = self.kicked = self.last_used = 0

    def base(self):
        """What SET_VRING_BASE says."""
        return self.last_used

    def can_add(self, count, indirect=False):
        """Is there room for a chain of count descriptors?"""
        return len(self.free) >= (1 if indirect else count)

    def add(self, segs, indirect=False, owned=()):
        """Write one chain and put it into the available ring, unpublished.

        segs: (address, length, device_writes). owned: allocations to free when it completes.
        Returns the head's index.
        """
        if not self.can_add(len(segs), indirect):
            raise BufferError("the ring has no free descriptors")
        table = None
        if indirect:
            ids = [self.free.popleft()]
            table = (self.memory.alloc(16 * len(segs)), 16 * len(segs))
            view = self.memory.view(*table)
            for i, (addr, length, write) in enumerate(segs):
                more = i + 1 < len(segs)
                flags = (WRITE if write else 0) | (NEXT if more else 0)
                DESC.pack_into(view, 16 * i, addr, length, flags, i + 1 if more else 0)
            self.ring.set_desc(ids[0], table[0], table[1], INDIRECT)
        else:
            ids = [self.free.popleft() for _ in segs]
            for i, (addr, length, write) in enumerate(segs):
                more = i + 1 < len(segs)
                flags = (WRITE if write else 0) | (NEXT if more else 0)
                self.ring.set_desc(ids[i], addr, length, flags, ids[i + 1] if more else 0)
        self.chains[ids[0]] = Chain(list(segs), ids, list(owned), table)
        self.add_raw(ids[0])
        return ids[0]

    def add_raw(self, head):
        """Put any number into the next slot of the available ring, unpublished."""
        self.ring.avail[2 + self.avail_next % self.size] = head & 0xffff
        self.avail_next = (self.avail_next + 1) & 0xffff

    def publish(self, idx=None):
        """Store the available index (idx: any value) and kick when the device asks for it."""
        self.ring.avail_idx = self.avail_next if idx is None else idx
        fence()
        if self.event_idx:
            wanted = need_event(self.ring.avail_event, self.avail_next, self.kicked)
        else:
            wanted = not self.ring.used_flags & NO_NOTIFY
        self.kicked = self.avail_next
        if wanted:
            self.kick()

    def suppress_calls(self, yes=True):
        """Ask the device not to call (or to call at the next completion)."""
        self.ring.avail_flags = NO_INTERRUPT if yes else 0
        self.ring.used_event = self.last_used - 1 if yes else self.last_used

    def completed(self):
        """Has the device completed anything?"""
        return self.ring.used_idx != self.last_used

    def reap(self):
        """Take every completed chain; a list of Used."""
        done = []
        end = self.ring.used_idx
        if (end - self.last_used) & 0xffff > self.size:
            raise AssertionError(f"used index jumped from {self.last_used} to {end}")
        while self.last_used != end:
            at = 2 * (self.last_used % self.size)
            for used in self._take(self.ring.used_elem[at], self.ring.used_elem[at + 1]):
                done.append(used)
                self.last_used = (self.last_used + 1) & 0xffff
        return done


class Popped(NamedTuple):
    """A chain taken from the available ring; segs: (address, length, device_writes)."""
    head: int
    segs: list


class DeviceEnd:
    """What the device's (back-end's) ends of split and packed rings share. kind: the ring's class;
    parts: the addresses of its three parts, as SET_VRING_ADDR has them."""

    def __init__(self, memory, size, kind, parts, event_idx):
        self.memory, self.size, self.event_idx = memory, size, event_idx
        self.ring = kind(size, *(memory.view_uva(a, n) for a, n in zip(parts, kind.lengths(size))))
        self.last_avail = self.used_next = 0
        self.kick_fd = self.call_fd = None
        self.forced = True
        self.calls = 0

    def _call(self, wanted):
        """Call the driver if it wants to know, or has never been called."""
        wanted, self.forced = wanted or self.forced, False
        if wanted and self.call_fd is not None:
            self.calls += 1
            signal_eventfd(self.call_fd)

    def read(self, popped):
        """All device-readable bytes of a chain."""
        return b"".join(bytes(self.memory.view(a, n)) for a, n, w in popped.segs if not w and n)

    def write(self, popped, data):
        """Write into a chain's device-writable buffers; returns how much went in."""
        done = 0
        for addr, length, write in popped.segs:
            if write and done < len(data):
                piece = data[done:done + length]
                self.memory.view(addr, len(piece))[:] = piece
                done += len(piece)
        return done

    @staticmethod
    def room(popped):
        """Device-writable bytes of a chain."""
        return sum(length for _, length, write in popped.segs if write)


class DeviceQueue(DeviceEnd):
    """The device's end of a split ring."""

    def __init__(self, memory, size, parts, event_idx):
        super().__init__(memory, size, Ring, parts, event_idx)

    def start(self, _):
        """Continue where the ring's used index says: DPDK gives 0 for the base whatever it left."""
        self.last_avail = self.used_next = self.ring.used_idx

    def base(self):
        """What GET_VRING_BASE answers."""
        return self.last_avail

    def resume(self, old):
        """Carry on where another queue over the same ring stands."""
        self.last_avail, self.used_next = old.last_avail, old.used_next

    def available(self):
        """Chains waiting."""
        count = (self.ring.avail_idx - self.last_avail) & 0xffff
        if count > self.size:
            raise AssertionError(f"available index jumped by {count}")
        return count

    def pop(self):
        """Take the next chain, or None."""
        if not self.available():
            return None
        head = self.ring.avail[2 + self.last_avail % self.size]
        self.last_avail = (self.last_avail + 1) & 0xffff
        return Popped(head, self._walk(head))

    def unpop(self, count=1):
        """Put the last chains back."""
        self.last_avail = (self.last_avail - count) & 0xffff

    def _walk(self, head):
        segs, at, table, size = [], head, self.ring.desc, self.size
        indirect = False
        while True:
            if at >= size or len(segs) > 65536:
                raise AssertionError(f"descriptor {at} of {size}")
            addr, length, flags, nxt = DESC.unpack_from(table, 16 * at)
            if flags & INDIRECT:
                assert not indirect and not segs and length % 16 == 0
                table, size, at, indirect = self.memory.view(addr, length), length // 16, 0, True
                continue
            segs.append((addr, length, bool(flags & WRITE)))
            if not flags & NEXT:
                return segs
            at = nxt

    def push(self, elems, call=True, batch=False):
        """Publish used elements (head, length) by one index update, and call when asked. batch:
        write only one, the last, where the first would be, as VIRTIO_F_IN_ORDER allows."""
        old = self.used_next
        for i, (head, length) in enumerate(elems[-1:] if batch else elems):
            self.ring.set_done((old + i) % self.size, length, head)
        self.used_next = (old + len(elems)) & 0xffff
        self.ring.used_idx = self.used_next
        fence()
        if self.event_idx:
            wanted = need_event(self.ring.used_event, self.used_next, old)
        else:
            wanted = not self.ring.avail_flags & NO_INTERRUPT
        if call:
            self._call(wanted)

    def push_raw(self, *elems):
        """Publish any used elements (head, length) at once."""
        self.push(elems)

    def suppress_kicks(self, yes=True):
        """Ask the driver not to kick (or to kick at the next buffer)."""
        self.ring.used_flags = NO_NOTIFY if yes else 0
        self.ring.avail_event = self.last_avail - 1 if yes else self.last_avail
