# SPDX-License-Identifier: BSD-2-Clause
"""The memory in which a back-end keeps what it has in flight, read and written by hand from the text of
the vhost-user specification ("Inflight I/O tracking"), and a front-end
and a back-end that use it.

A Kept is the whole of it, Kept.queue(i) the region of one ring: split or packed. in_flight() does what the
text tells the next back-end to do and gives what that would take first.
"""
import mmap
import os
import struct

from .backend import BackEnd
from .frontend import FrontEnd
from .packedring import AVAIL, USED
from .peer import QEMU_PROTOCOL
from .wire import REPLY, VERSION, F, P, Req

DESCRIPTION = struct.Struct("<QQHHI")  # memory size, offset, rings, descriptors, padding


def _field(code, offset):
    """A number of a region's header, as an attribute."""
    def get(self):
        return struct.unpack_from("<" + code, self.view, offset)[0]

    def put(self, value):
        struct.pack_into("<" + code, self.view, offset, value)
    return property(get, put)


class SplitRegion:
    """One queue region of a split ring."""
    ENTRY = struct.Struct("<B5xHQ")  # in flight, next, counter
    HEADER = 16
    version, desc_num = _field("H", 8), _field("H", 10)
    last_batch_head, used_idx = _field("H", 12), _field("H", 14)

    def __init__(self, view):
        self.view = view

    @staticmethod
    def bytes(desc_num):
        """Of a region, its alignment included."""
        return (16 + 16 * desc_num + 63) & ~63

    def entry(self, i):
        """Entry i as a tuple."""
        return self.ENTRY.unpack_from(self.view, self.HEADER + self.ENTRY.size * i)

    def set(self, i, *values):
        """Write entry i."""
        self.ENTRY.pack_into(self.view, self.HEADER + self.ENTRY.size * i, *values)

    def hold(self, *heads, first=0):
        """These heads are in flight, taken in this order."""
        for counter, head in enumerate(heads, first):
            self.set(head, 1, 0, counter)

    def in_flight(self, ring):
        """The heads that the next back-end is to take first, in order."""
        done, head = set(), self.last_batch_head
        for _ in range((ring.used_idx - self.used_idx) & 0xffff):
            done.add(head)
            head = self.entry(head)[1]
        held = [(self.entry(i)[2], i) for i in range(self.desc_num) if self.entry(i)[0] and i not in done]
        return [i for _, i in sorted(held)]


class PackedRegion:
    """One queue region of a packed ring."""
    ENTRY = struct.Struct("<BxHHHQHHIQ")  # in flight, next, last, num, counter, id, flags, len, addr
    HEADER = 32
    version, desc_num = _field("H", 8), _field("H", 10)
    free_head, old_free_head = _field("H", 12), _field("H", 14)
    used_idx, old_used_idx = _field("H", 16), _field("H", 18)
    used_wrap, old_used_wrap = _field("B", 20), _field("B", 21)
    __init__ = SplitRegion.__init__
    entry, set = SplitRegion.entry, SplitRegion.set

    @staticmethod
    def bytes(desc_num):
        """Of a region, its alignment included."""
        return (37 + 32 * desc_num + 63) & ~63

    def fresh(self, slot=0, wrap=1):
        """As a back-end makes it that begins here."""
        self.version = 1
        self.free_head = self.old_free_head = 0
        self.used_idx = self.old_used_idx = slot
        self.used_wrap = self.old_used_wrap = wrap
        for i in range(self.desc_num):
            self.set(i, 0, i + 1, 0, 0, 0, 0, 0, 0, 0)

    def in_flight(self, ring):
        """The chains that the next back-end is to take first, in order: lists of (address, length, id)."""
        free, flags = self.old_free_head, ring.flags(self.old_used_idx)
        if (self.used_idx, self.used_wrap) != (self.old_used_idx, self.old_used_wrap) and \
                flags & (AVAIL | USED) != (AVAIL if self.old_used_wrap else USED):
            free = self.free_head
        freed = set()
        while free < self.desc_num:
            assert free not in freed, "the free list is a loop"
            freed.add(free)
            free = self.entry(free)[1]
        heads = [(self.entry(i)[4], i) for i in range(self.desc_num) if self.entry(i)[0] and i not in freed]
        return [self.chain(i) for _, i in sorted(heads)]

    def chain(self, i):
        """The descriptors of the chain whose first entry is i."""
        _, _, last, num, *_ = self.entry(i)
        rows = []
        for _ in range(num):
            _, after, _, _, _, ident, _, length, addr = self.entry(i)
            rows.append((addr, length, ident))
            where, i = i, after
        assert where == last
        return rows


class Kept:
    """The memory: a descriptor and what the messages say of it."""

    def __init__(self, fd, size, offset, queues, queue_size):
        self.fd, self.size, self.offset, self.queues, self.queue_size = fd, size, offset, queues, queue_size
        self.map = mmap.mmap(fd, offset + size)

    @classmethod
    def make(cls, queues, queue_size, packed=False):
        """All zero, and nobody's."""
        fd = os.memfd_create("kept", os.MFD_CLOEXEC)
        size = queues * (PackedRegion if packed else SplitRegion).bytes(queue_size)
        os.ftruncate(fd, size)
        return cls(fd, size, 0, queues, queue_size)

    def description(self):
        """The payload of SET_INFLIGHT_FD."""
        return DESCRIPTION.pack(self.size, self.offset, self.queues, self.queue_size, 0)

    def queue(self, i, packed=False):
        """The region of ring i."""
        kind = PackedRegion if packed else SplitRegion
        n = kind.bytes(self.queue_size)
        return kind(memoryview(self.map)[self.offset + i * n:self.offset + (i + 1) * n])

    def close(self):
        """The descriptor goes; the mapping stays as long as something views it."""
        os.close(self.fd)


class Keeper(FrontEnd):
    """A front-end that asks the first back-end for the memory and gives it to each one after that. kept: what it has, or None; it may
    be set to anything. keep=False: it does not take part."""

    def __init__(self, path, keep=True, **how):
        want = how.pop("protocol", QEMU_PROTOCOL & ~P.MEM_SLOTS)
        super().__init__(path, protocol=want | (P.INFLIGHT if keep else 0), **how)
        self.kept = None

    def ask(self, queues, queue_size, padding=b"\0" * 4):
        """GET_INFLIGHT_FD; returns what came as a Kept."""
        reply = self.channel.request(Req.GET_INFLIGHT_FD,
                                     DESCRIPTION.pack(0, 0, queues, queue_size, 0)[:20] + padding)
        assert len(reply.payload) == 20 + len(padding) and len(reply.fds) == 1
        return Kept(reply.fds[0], *DESCRIPTION.unpack(reply.payload[:20] + b"\0" * 4)[:4])

    def give(self):
        """SET_INFLIGHT_FD."""
        self.channel.send(Req.SET_INFLIGHT_FD, self.kept.description(), [self.kept.fd])

    def send_memory(self):
        """The memory of the rings, and this one."""
        super().send_memory()
        if not self.protocol & P.INFLIGHT:
            return
        if not self.kept:
            self.kept = self.ask(len(self.queues), self.ring)
        self.give()

    def close(self):
        """Everything is closed."""
        super().close()
        if self.kept:
            self.kept.close()
            self.kept = None


class Noter(BackEnd):
    """A back-end that takes part: it makes the memory when it is asked, and goes by what is given to it. asked, given: how often that was;
    note(head) and strike(head) keep it up on split ring 1."""

    def __init__(self, path, protocol=P.MQ | P.REPLY_ACK | P.STATUS | P.INFLIGHT, **how):
        super().__init__(path, protocol=protocol, **how)
        self.kept, self.asked, self.given, self.counter = None, [], [], 0

    def _on_get_inflight_fd(self, msg):
        _, _, queues, size, _ = DESCRIPTION.unpack(msg.payload)
        self.asked.append((queues, size))
        made = Kept.make(queues, size, bool(self.features & F.RING_PACKED))
        self.channel.send(Req.GET_INFLIGHT_FD, made.description(), [made.fd], flags=VERSION | REPLY)
        made.close()

    def _on_set_inflight_fd(self, msg):
        if self.kept:
            self.kept.close()
        self.kept = Kept(msg.fds[0], *DESCRIPTION.unpack(msg.payload)[:4])
        self.given.append((os.fstat(self.kept.fd).st_ino, *DESCRIPTION.unpack(msg.payload)[2:4]))

    def note(self, head):
        """It is in flight from now on."""
        region = self.kept.queue(1)
        region.version, region.desc_num = 1, self.kept.queue_size
        region.set(head, 1, 0, self.counter)
        self.counter += 1

    def strike(self, head):
        """It was given back."""
        region = self.kept.queue(1)
        region.set(head, 0, 0, 0)
        region.used_idx = self.queue(1).ring.used_idx

    def close(self):
        """Everything is closed."""
        super().close()
        if self.kept:
            self.kept.close()
            self.kept = None
