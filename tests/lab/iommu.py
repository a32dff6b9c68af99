# SPDX-License-Identifier: BSD-2-Clause
"""The front-end's side of address translation: an IOMMU for a scripted front-end.

    fe = FrontEnd(path, features=BASIC | F.ACCESS_PLATFORM)
    with Iommu(fe) as iommu:            # connects, and answers misses from now on
        fe.start_like_qemu()
        iommu.invalidate(gpa, 4096)

An I/O virtual address is a guest-physical one, or that of a ring, which is fe.ring_iova above; what it stands for is said page by page.
"""
import os
import struct
import threading

from .ring import PAGE, drain_eventfd, signal_eventfd, wait_fds
from .wire import NEED_REPLY, VERSION, PeerClosed, PeerTimeout, Req

IOTLB = struct.Struct("<QQQBB6x")
MISS, UPDATE, INVALIDATE, FAIL = 1, 2, 3, 4
RO, WO, RW = 1, 2, 3


def iotlb(kind, iova, size=0, uaddr=0, perm=RW):
    """The payload of an IOTLB message."""
    return IOTLB.pack(iova, size, uaddr, perm, kind)


class Iommu:
    """Answers the misses of a back-end in a thread, unless answering is False.

    page: how much one answer stands for. allow: function(page's address) -> permission, or 0 for no answer.
    misses, fails: the addresses asked for, and those that the back-end says it may not use.
    """

    def __init__(self, fe, page=PAGE, allow=lambda at: RW):
        self.fe, self.page, self.allow = fe, page, allow
        self.misses, self.fails, self.error = [], [], None
        self.answering = True
        self.stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.changed = threading.Condition()
        fe.connect_like_qemu()
        self.channel = fe.backend
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        try:
            while True:
                if self.stop_fd in wait_fds([self.channel, self.stop_fd], 3600):
                    return
                self._take(self.channel.recv())
        except (PeerClosed, PeerTimeout, OSError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def _take(self, msg):
        iova, _, _, perm, kind = IOTLB.unpack(msg.payload)
        assert msg.req == 1 and msg.flags == VERSION and kind in (MISS, FAIL)
        assert perm in (RO, WO, RW)
        with self.changed:
            (self.misses if kind == MISS else self.fails).append(iova)
            self.changed.notify_all()
        if kind == MISS and self.answering:
            self.answer(iova)

    def answer(self, iova):
        """Say where the page of an address stands."""
        at = iova - iova % self.page
        if perm := self.allow(at):
            above = self.fe.ring_iova if iova >= self.fe.ring_iova else 0
            r = next(r for r in self.fe.memory.regions if r.gpa <= iova - above < r.gpa + r.size)
            start, end = max(at - above, r.gpa), min(at - above + self.page, r.gpa + r.size)
            self.update(start + above, end - start, self.fe.memory.uva(start), perm)

    def update_all(self):
        """Say where all of the memory stands."""
        for r in self.fe.memory.regions:
            self.update(r.gpa, r.size)

    def update(self, iova, size, uaddr=None, perm=RW, **kw):
        """An update as it is given; uaddr: by default where the address stands."""
        uaddr = self.fe.memory.uva(iova) if uaddr is None else uaddr
        self.fe.channel.send(Req.IOTLB_MSG, iotlb(UPDATE, iova, size, uaddr, perm), **kw)

    def invalidate(self, iova, size, wait=True):
        """Take translations back; returns when the back-end does not use them any more."""
        payload = iotlb(INVALIDATE, iova, size)
        if wait:
            assert self.fe.channel.request(Req.IOTLB_MSG, payload, flags=VERSION | NEED_REPLY).u64 == 0
        else:
            self.fe.channel.send(Req.IOTLB_MSG, payload)

    def wait_for(self, predicate, timeout=10.0):
        """Wait until what the back-end said makes predicate() true."""
        with self.changed:
            assert self.changed.wait_for(predicate, timeout), (self.misses, self.fails)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """End the thread."""
        if self.stop_fd is None:
            return
        signal_eventfd(self.stop_fd)
        self.thread.join(10)
        drain_eventfd(self.stop_fd)
        os.close(self.stop_fd)
        self.stop_fd = None
        if self.error:
            raise self.error
