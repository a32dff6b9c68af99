# SPDX-License-Identifier: BSD-2-Clause
"""The driver of the IOMMU of a machine of qtest.py (Intel VT-d, legacy mode), and memory as the card behind it sees it.

    with Qemu(sock, iommu=True) as vm, Vtd(vm) as iommu, VirtioNet(vm, memory=iommu.memory) as nic:
        nic.start(features | F.ACCESS_PLATFORM)
        iommu.move(pages)                  # they stand elsewhere in the guest's memory now, and the card has been told

What is one piece for the card, at I/O virtual addresses, is pages of the guest's memory in no order; the test has them mapped in the
card's order. Tables and invalidations are in the guest's memory too, by the VT-d specification, sections 6.5 and 9.
"""
import ctypes
import mmap
import random
import struct

from .qtest import MIB, Ram
from .ring import PAGE

REGISTERS, ECAM = 0xfed90000, 0xb0000000
COMMAND, STATUS, ROOT, TAIL, QUEUE = 0x18, 0x1c, 0x20, 0x88, 0x90
TRANSLATE, SET_ROOT, QUEUED = 1 << 31, 1 << 30, 1 << 26
PRESENT = 3  # of a table or a page: it may be read, and written

SCRIBBLE = b"\xdd" * PAGE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FIXED = 0x10


def _map(size, address=None, protection=0, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, fd=-1, offset=0):
    """mmap(2), which Python's does not let choose the place."""
    at = _libc.mmap(address, size, protection, flags | _FIXED * (address is not None), fd, offset)
    assert at != ctypes.c_void_p(-1).value, ctypes.get_errno()
    return at


class Window:
    """A region as Memory has it, whose bytes are pages of a memfd in any order."""

    def __init__(self, gpa, size):
        self.gpa, self.size = gpa, size
        self.at = _map(size)
        self.view = memoryview((ctypes.c_char * size).from_address(self.at)).cast("B")

    def place(self, page, fd, offset):
        """Its page is this one of the memfd now."""
        _map(PAGE, self.at + page * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, offset)


class Turns(Ram):
    """The card's memory. What was freed first is handed out first, so that every page is idle in its turn."""

    def __init__(self, window):
        super().__init__()
        self.regions.append(window)
        self.forget()

    def forget(self):
        """All of it is free again."""
        self.used, self.bins = [0], {}

    def alloc(self, size, align=16, region=None):
        """See Memory.alloc()."""
        free = self.bins.get((size, align))
        return free.pop(0) if free else super().alloc(size, align, region)


class Vtd:
    """Turns translation on for the card, with `size` bytes at `iova`; the first pages of it, for rings, are in order. Pages are
    numbered from there. spare: how many more of the guest's pages it moves them about in."""

    RINGS = 64

    def __init__(self, vm, iova=0x4000000000 - 8 * MIB, size=8 * MIB, spare=1024):
        self.vm, self.iova, self.n = vm, iova, size // PAGE
        self.ram = vm.memory
        self.random = random.Random(size)
        first = self.ram.alloc((self.n + spare) * PAGE, PAGE) // PAGE
        rest = list(range(first + self.RINGS, first + self.n + spare))
        self.random.shuffle(rest)
        self.where = [*range(first, first + self.RINGS), *rest[:self.n - self.RINGS]]  # page -> of the guest's
        self.spare = rest[self.n - self.RINGS:]
        self.window = Window(iova, size)
        self.memory = Turns(self.window)
        self.queue, self.tail = self._page(), 0
        self._tables()
        for i in range(self.n):
            self._put(i, self.where[i])
        for where in self.spare:
            self._page_view(where)[:] = SCRIBBLE
        self.enable()

    def _page_view(self, where):
        return self.ram.view(where * PAGE, PAGE)

    def _page(self):
        at = self.ram.alloc(PAGE, PAGE)
        self.ram.view(at, PAGE)[:] = bytes(PAGE)
        return at

    def _words(self, at, *words):
        struct.pack_into(f"<{len(words)}Q", self.ram.view(at, 8 * len(words)), 0, *words)

    def _tables(self):
        """Root, context of the card, and three levels for addresses of 39 bits; the last one's tables cover all of the window."""
        root, context, top, middle = (self._page() for _ in range(4))
        self._words(root + 16 * (self.vm.card >> 8), context | 1)
        self._words(context + 16 * (self.vm.card & 255), top | 1 << 2 | 1, 1 << 8 | 1)
        self._words(top + 8 * (self.iova >> 30 & 511), middle | PRESENT)
        self.leaves = {}
        for i in range(0, self.n, 512):
            leaf = self._page()
            self.leaves[i // 512] = leaf
            self._words(middle + 8 * ((self.iova + i * PAGE) >> 21 & 511), leaf | PRESENT)
        self.root = root

    def _entry(self, page, value):
        self._words(self.leaves[page // 512] + 8 * (page % 512), value)

    def _put(self, page, where):
        """A page gets its place, for the card and for the test."""
        self.where[page] = where
        self._entry(page, where * PAGE | PRESENT)
        self.window.place(page, self.ram.fds[0], where * PAGE)

    def _enable_ats(self):
        """The card may keep translations of its own: bit 15 of the capability's control register (PCIe, Address Translation Services), in the
        extended configuration space, which is given a place first."""
        self.vm.pci(0x60, value=ECAM | 1, who=0)
        space, at = ECAM + (self.vm.card << 12), 0x100
        while (head := self.vm.ask("readl", space + at)) & 0xffff != 0xf:
            at = head >> 20
            assert 0x100 < at < 0xfff, "the card has no ATS"
        self.vm.ask("writew", space + at + 6, 1 << 15)

    def _command(self, bit, on):
        self.vm.ask("writel", REGISTERS + COMMAND, on | bit)
        assert self.vm.ask("readl", REGISTERS + STATUS) & bit, "the IOMMU does not do it"
        return on | bit

    def enable(self):
        """Turn it on, for a start or after a reset of the machine."""
        self.tail = 0
        self._enable_ats()
        self.vm.ask("writeq", REGISTERS + ROOT, self.root)
        self.vm.ask("writel", REGISTERS + COMMAND, SET_ROOT)
        self.vm.ask("writeq", REGISTERS + QUEUE, self.queue)
        on = self._command(QUEUED, 0)
        self._command(TRANSLATE, on)

    def invalidate(self, *descriptors):
        """Queue them; they have been carried out when it returns, and so has the back-end, which QEMU asks to answer."""
        for low, high in descriptors:
            self._words(self.queue + 16 * self.tail, low, high)
            self.tail = (self.tail + 1) % (PAGE // 16)
            if self.tail % 128 == 0:
                self.vm.ask("writeq", REGISTERS + TAIL, 16 * self.tail)
        self.vm.ask("writeq", REGISTERS + TAIL, 16 * self.tail)

    def invalidate_all(self):
        """Every translation, as Linux does when it has gathered enough of them."""
        self.invalidate((1 << 4 | 2, 0), (self.vm.card << 32 | 3, 0x7ffffffffffff000 | 1))

    def move(self, pages):
        """These pages, in which nothing is in flight, stand elsewhere from now on. Where they stood is scribbled over, and stays so
        until they are somebody's again."""
        for page in pages:
            self._entry(page, 0)
        self.invalidate((1 << 4 | 2, 0), *((self.vm.card << 32 | 3, self.iova + page * PAGE) for page in pages))
        for page in pages:
            old, new = self.where[page], self.spare.pop(0)
            assert self._page_view(new) == SCRIBBLE, "written to, where the card may not"
            self._page_view(new)[:] = self._page_view(old)
            self._page_view(old)[:] = SCRIBBLE
            self._put(page, new)
            self.spare.append(old)

    def pages_of(self, gpa, length):
        """The pages of the window that these bytes are in."""
        return range((gpa - self.iova) // PAGE, (gpa + length - 1 - self.iova) // PAGE + 1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        _libc.munmap(self.window.at, self.window.size)
