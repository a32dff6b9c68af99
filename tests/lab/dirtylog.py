# SPDX-License-Identifier: BSD-2-Clause
"""A front-end's dirty log: the bitmap of a migration, from the text of the vhost-user specification ("Migration")."""
import ctypes
import mmap
import os
import struct

from .wire import F, Req

PAGE = 4096
ACQ_REL = 4
_exchange = ctypes.CDLL("libatomic.so.1")["__atomic_exchange_1"]  # gcc's
_exchange.argtypes, _exchange.restype = (ctypes.c_void_p, ctypes.c_uint8, ctypes.c_int), ctypes.c_uint8


class DirtyLog:
    """A bit for each page of `memory` at `offset` of a file, with as much again behind it that is nobody's.

    more, size: bytes beyond what the memory needs, or exactly so many.
    """

    def __init__(self, memory, offset=0, more=0, size=None):
        top = max(r.gpa + r.size for r in memory.regions)
        self.size = -(-top // PAGE // 8) + more if size is None else size
        self.offset = offset
        self.fd = os.memfd_create("dirty", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, offset + 2 * self.size)
        self.map = mmap.mmap(self.fd, offset + 2 * self.size)

    def close(self):
        """Close the file; the mapping goes by itself."""
        os.close(self.fd)

    def pages(self):
        """The set of pages whose bits are there. Nothing outside of the log was written."""
        whole = self.map[:]
        log = whole[self.offset:self.offset + self.size]
        assert not any(whole[:self.offset]) and not any(whole[self.offset + self.size:])
        return {8 * i + k for i, byte in enumerate(log) if byte for k in range(8) if byte >> k & 1}

    def take(self):
        """pages(), and none of them is there any more. While the back-end is idle."""
        pages = self.pages()
        self.map[:] = bytes(len(self.map))
        return pages

    def take_running(self):
        """take() while the back-end sets bits: no bit is lost in between."""
        pages = set()
        at = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + self.offset
        for i in range(self.size):
            if self.map[self.offset + i]:
                byte = _exchange(at + i, 0, ACQ_REL)
                pages.update(8 * i + k for k in range(8) if byte >> k & 1)
        return pages

    def tell(self, fe):
        """SET_LOG_BASE. The answer is empty, and comes whether it was asked for or not."""
        reply = fe.channel.request(Req.SET_LOG_BASE, struct.pack("<QQ", self.size, self.offset), [self.fd])
        assert reply.payload == b""


def log_all(fe, on=True):
    """As QEMU does when a migration begins or ends: features and addresses of rings that run. It is done when this returns."""
    fe.log_rings = int(on)
    fe.set_features(fe.features & ~F.LOG_ALL | (F.LOG_ALL if on else 0))
    fe.each_ring(Req.SET_VRING_ADDR)
    fe.channel.request(Req.GET_FEATURES)


def pages_of(gpa, length):
    """The pages of a stretch of guest memory."""
    return set(range(gpa // PAGE, (gpa + length - 1) // PAGE + 1))


class Copy:
    """Another machine's copy of the guest's memory, made as a migration makes it: all of it, then whatever the log has bits for, again and
    again. The driver writes nothing meanwhile, or into both."""

    def __init__(self, memory, log):
        self.memory, self.log = memory, log
        log.take_running()
        self.regions = [(r, bytearray(r.view)) for r in memory.regions]

    def follow(self):
        """One pass; how many pages were written since the last."""
        pages = self.log.take_running()
        for r, copy in self.regions:
            for at in (page * PAGE - r.gpa for page in pages):
                if 0 <= at < r.size:
                    copy[at:at + PAGE] = r.view[at:at + PAGE]
        return len(pages)

    def write(self, gpa, data):
        """What the driver writes."""
        for r, copy in self.regions:
            if r.gpa <= gpa < r.gpa + r.size:
                copy[gpa - r.gpa:gpa - r.gpa + len(data)] = data

    def lacks(self):
        """The pages that differ from the guest's."""
        return [r.gpa // PAGE + at // PAGE for r, copy in self.regions if copy != r.view
                for at in range(0, r.size, PAGE) if copy[at:at + PAGE] != r.view[at:at + PAGE]]
