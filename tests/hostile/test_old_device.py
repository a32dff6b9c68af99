# SPDX-License-Identifier: BSD-2-Clause
"""A device that is gone and yet still there: it keeps its mapping of the program's memory, and the file in which it noted what it had in
flight. What the next device is given is neither: the old one sees nothing of it and cannot spoil it, and no frame is lost."""
import contextlib
import fcntl
import gc
import mmap
import os
import re
from typing import NamedTuple

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.hugepages import count, free, hugepages
from lab.inflight import Kept, Noter
from lab.peer import BASIC
from lab.vhostpeer import BackEnd, F, Req
from hostile.victim import Victim, returns

pytestmark = pytest.mark.usefixtures("small_pages")
SIZE = 256
FEATURES = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FEATURES)
MFD_HUGE_2MB = 0x4 | 21 << 26
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Old(NamedTuple):
    """What a device that went keeps: the area, its file, and the notes."""
    area: mmap.mmap
    file: int
    notes: Kept

    def spoil(self):
        """Write to all of it, and take away what can be taken."""
        self.area[:] = b"\xff" * len(self.area)
        self.area.madvise(mmap.MADV_REMOVE, 0, len(self.area) // 2)
        self.notes.map[:] = b"\xff" * len(self.notes.map)
        with contextlib.suppress(PermissionError):  # the program's own are sealed
            os.ftruncate(self.notes.fd, 0)

    def is_as_spoilt(self):
        """Nobody has written to it since."""
        half = len(self.area) // 2
        return not any(self.area[:half]) and self.area[half:] == b"\xff" * (len(self.area) - half)

    def close(self):
        """It lets go of it after all."""
        os.close(self.file)
        self.notes.close()


class Keeping(Noter):
    """A back-end that can keep what it was given. files: of the areas, one a connection."""

    def __init__(self, path, **how):
        super().__init__(path, **how)
        self.files = []

    def _on_set_mem_table(self, msg):
        self.files.append(os.dup(msg.fds[0]))
        super()._on_set_mem_table(msg)

    def leave(self):
        """The connection ends, and that is all."""
        old = Old(self.memory.regions[0].map, self.files.pop(), self.kept)
        self.kept = None
        self.drop()
        return old

    def forget(self):
        """The files of the areas are closed."""
        while self.files:
            os.close(self.files.pop())

    def close(self):
        """Everything is closed."""
        super().close()
        self.forget()


def device(sock, fmt="split", **how):
    return Keeping(sock, features=FEATURES[fmt], **how)


def takes(be, numbers):
    """It has the program send these frames, and takes them without giving them back."""
    for n in numbers:
        be.send(numbered(n, 60 + n), avip.distinct(n))
    return [be.recv(complete=False) for _ in numbers]


def gets(be, numbers):
    """These frames come, each as it was, and are given back."""
    for n in numbers:
        pkt = be.recv()
        assert check(pkt.frame) == n and len(pkt.frame) == 60 + n and pkt.header[3:] == avip.distinct(n)[3:]


def inode(fd):
    return os.fstat(fd).st_ino


@formats
def test_it_keeps_everything(sock, fmt):
    """Ten frames are in flight, and so noted, when it goes. The next one gets them, and moves more, while the old one writes to all that it
    kept, takes pages of it away and cuts the notes off."""
    with device(sock, fmt, listen=True) as be, Victim(sock, role="frontend", ring=SIZE, format=fmt) as program:
        be.wait_started()
        returns(be)
        heads = [pkt.used[0].head for pkt in takes(be, range(100, 110))]
        if fmt == "split":
            for head in heads:
                be.note(head)
        noted = bytes(be.kept.map)
        fds = program.fds()
        old = be.leave()
        be.wait_started()
        assert inode(be.files[-1]) != inode(old.file) and inode(be.kept.fd) != inode(old.notes.fd)
        assert be.kept.map[:len(noted)] == noted and len(be.asked) == 1
        for fd in be.files[-1], be.kept.fd:
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
        if fmt == "split":
            assert be.kept.queue(1).in_flight(be.queue(1).ring) == heads
        old.spoil()
        gets(be, range(100, 110))
        returns(be, 200, 100)
        assert old.is_as_spoilt() and be.kept.map[:len(noted)] == noted
        assert program.errors() == 0
        program.settled(fds)
        old.close()


@formats
def test_it_keeps_nothing_from_the_next(sock, fmt):
    """Of the old traffic the next one has only what is its to take."""
    with device(sock, fmt, listen=True) as be, Victim(sock, role="frontend", ring=SIZE, format=fmt):
        be.wait_started()
        for n in range(20):
            be.send(b"secret of the old" * 10)
            assert b"secret" in be.recv().frame
        takes(be, range(3))
        old = be.leave()
        assert b"secret" in old.area[:]
        be.wait_started()
        assert b"secret" not in be.memory.regions[0].map[:]
        gets(be, range(3))
        returns(be)
        old.close()


def test_notes_that_are_cut_off(sock):
    """Nobody can read them any more: the next one is asked for new ones, and gets the frames all the same."""
    with device(sock, listen=True) as be, Victim(sock, role="frontend", ring=SIZE) as program:
        be.wait_started()
        for pkt in takes(be, range(10)):
            be.note(pkt.used[0].head)
        os.ftruncate(be.kept.fd, 0)
        old = be.leave()
        be.wait_started()
        assert len(be.asked) == 2
        gets(be, range(10))
        returns(be, 100)
        assert program.errors() == 0
        old.close()


def rings_file(program):
    """The inode of the file that the program's rings are in."""
    with open(f"/proc/{program.pid}/maps", encoding="utf-8") as f:
        return int(re.search(r"(\d+) +/memfd:palladium-rings", f.read())[1])


def test_nothing_moves_that_nobody_has(sock):
    """A device that goes before it is given the memory costs nothing."""
    with device(sock, listen=True) as be, Victim(sock, role="frontend", ring=SIZE) as program:
        be.wait_started()
        files = [rings_file(program)]
        be.drop()
        for _ in range(3):
            be.connect()
            assert be.handle_message().req == Req.GET_FEATURES
            files.append(rings_file(program))
            be.drop()
        be.wait_started()
        returns(be)
        assert files[0] != files[1] == files[2] == files[3] == inode(be.files[-1])


def test_a_large_area_that_is_full(sock):
    """However much the old one wrote, what moves is what is needed."""
    with device(sock, listen=True) as be, Victim(sock, role="frontend", ring=32768, format="split") as program:
        be.wait_started()
        takes(be, range(10))
        old = be.leave()
        assert len(old.area) > 500 << 20
        old.area[-64 << 20:] = b"\xff" * (64 << 20)
        be.wait_started()
        gets(be, range(10))
        assert os.fstat(be.files[-1]).st_blocks * 512 < 32 << 20
        returns(be, 100)
        assert program.errors() == 0
        old.close()


@contextlib.contextmanager
def taken():
    """Somebody has all huge pages that are free."""
    fd, n = os.memfd_create("held", MFD_HUGE_2MB), count("free_hugepages")
    os.ftruncate(fd, n << 21)
    if n:
        os.posix_fallocate(fd, 0, n << 21)
    try:
        yield
    finally:
        os.close(fd)


def page_kib(program):
    """The size of the pages that the program's rings are in."""
    with open(f"/proc/{program.pid}/smaps", encoding="utf-8") as f:
        return int(re.search(r"/memfd:palladium-rings.*?KernelPageSize: +(\d+)", f.read(), re.DOTALL)[1])


@pytest.mark.parametrize("keeps", [True, False])
def test_huge_pages_for_one_set_only(sock, keeps):
    """They are the next device's, unless the old one keeps them; the next may take them away as any."""
    with hugepages(16), BackEnd(sock, listen=True) as be, \
            Victim(sock, role="frontend", env={"PALLADIUM_MEM_ALLOC_TYPE": "hugepages"}) as program:
        be.wait_started()
        returns(be)
        assert page_kib(program) == 2048
        fds = program.fds()
        with taken():
            assert not free()
            takes(be, range(10))
            kept = be.memory.regions[0].map if keeps else None
            be._forget()
            gc.collect()
            be.drop()
            be.wait_started()
            assert page_kib(program) == (4 if keeps else 2048)
            gets(be, range(10))
            returns(be, 100)
            if not keeps:
                be.memory.regions[0].map.madvise(mmap.MADV_REMOVE)
                with taken():
                    for i in range(2):
                        os.eventfd_write(be.rings[i].call, 1)
                    program.refused("took pages of the rings away")
        be.drop()
        be.wait_started()
        returns(be, 200)
        program.settled(fds)
        assert program.running
        del kept
