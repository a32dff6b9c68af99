# SPDX-License-Identifier: BSD-2-Clause
"""A front-end's dirty log: the bitmap of a migration, from the text of the vhost-user specification ("Migration")."""
import mmap
import os
import struct

from .wire import F, Req

PAGE = 4096


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
