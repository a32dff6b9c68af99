# SPDX-License-Identifier: BSD-2-Clause
"""The dirty log of a migration: what is written is noted where the log stands, and a log that is none ends with its peer."""
import contextlib
import errno
import fcntl
import os
import struct

import pytest

from lab import avip
from lab.dirtylog import DirtyLog, log_all, pages_of
from lab.frames import check, numbered
from lab.iommu import Iommu
from lab.peer import BASIC, RX, TX
from lab.ring import wait_fds
from lab.vhostpeer import F, FrontEnd, P, PeerClosed, PeerTimeout, Req
from hostile.test_changes import heard, new_region, say_memory
from hostile.victim import Victim, echoes, serves, until

PROTOCOL = P.MQ | P.REPLY_ACK | P.STATUS | P.LOG_SHMFD
FEATURES = {"split": BASIC | F.LOG_ALL, "packed": BASIC | F.RING_PACKED | F.LOG_ALL}


@contextlib.contextmanager
def up(sock, features=BASIC, **kw):
    """A program and a peer that are up; the rings are idle and nothing is logged yet."""
    with FrontEnd(sock, features=features & ~F.LOG_ALL, protocol=PROTOCOL, **kw) as fe, Victim(sock) as program:
        serves(fe)
        assert fe.offered & F.LOG_ALL and fe.protocol & P.LOG_SHMFD
        yield fe, program
        assert program.running


@contextlib.contextmanager
def logged(sock, *args, offset=0, **kw):
    """The same, with a log, and all is logged."""
    with up(sock, *args, **kw) as (fe, program):
        log = DirtyLog(fe.memory, offset)
        log.tell(fe)
        log_all(fe)
        yield fe, program, log
        log.close()


def used_pages(fe, i):
    """What a device writes of ring i: its used part; of a packed ring also the descriptors."""
    q = fe.queues[i]
    packed = fe.features & F.RING_PACKED
    pages = pages_of(q.gpa[2], 4 if packed else 6 + 8 * q.size)
    return pages | pages_of(q.gpa[0], 16 * q.size) if packed else pages


def echo_logged(fe, log, first, count=20):
    """Echo frames: the bits are those of the buffers that hold them and of the rings."""
    log.take()
    buffers = set()
    for n in range(first, first + count):
        fe.send(numbered(n, 60 + n % 1000), avip.distinct(n))
        pkt = fe.recv()
        assert check(pkt.frame) == n
        for u in pkt.used:
            left = u.len
            for gpa, size, _ in u.chain.segs:
                if left:
                    buffers |= pages_of(gpa, min(size, left))
                left -= min(size, left)
    fe.wait_sent()
    heard(fe)
    rings = used_pages(fe, RX) | used_pages(fe, TX)
    pages = log.pages()
    assert buffers <= pages
    assert pages <= buffers | rings
    for i in (RX, TX):
        assert pages & used_pages(fe, i)


@pytest.mark.parametrize("ring", FEATURES)
def test_translated_rings(sock, ring):
    """With an IOMMU the front-end says where a device finds the rings, which is no place in the guest's memory (QEMU does): they are noted
    where they stand."""
    features = FEATURES[ring] & ~F.LOG_ALL | F.ACCESS_PLATFORM
    with FrontEnd(sock, features=features, protocol=PROTOCOL | P.BACKEND_REQ) as fe, Victim(sock, iommu="on") as program:
        fe.ring_iova = 1 << 40
        with Iommu(fe):
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            echoes(fe)
            log = DirtyLog(fe.memory)
            log.tell(fe)
            log_all(fe)
            for n in range(3):
                echo_logged(fe, log, 100 * n)
            assert program.errors() == 0
            log.close()


@pytest.mark.parametrize("offset", [0, 4096, 4096 * 5 + 8])
@pytest.mark.parametrize("ring", FEATURES)
def test_what_is_written_is_noted(sock, ring, offset):
    """With the log at an offset of its file, which counts once."""
    with logged(sock, FEATURES[ring], offset=offset) as (fe, program, log):
        for n in range(3):
            echo_logged(fe, log, 100 * n)
        log_all(fe, False)
        log.take()
        echoes(fe, 1000)
        assert not log.pages()
        log_all(fe)
        echo_logged(fe, log, 2000)
        assert program.errors() == 0


def test_rings_are_logged_where_the_peer_says(sock):
    """log_guest_addr, which need be nowhere in memory; and without the flag only buffers are."""
    with logged(sock) as (fe, program, log):
        for i, page in ((RX, 3), (TX, 5)):
            fe.ring_message(Req.SET_VRING_ADDR, i, log=4096 * page)
        heard(fe)
        log.take()
        echoes(fe, 100)
        heard(fe)
        assert {3, 5} <= log.pages()
        rings = {min(used_pages(fe, RX)), min(used_pages(fe, TX))}  # which hold no buffers
        assert not log.pages() & rings
        for i in (RX, TX):
            fe.ring_message(Req.SET_VRING_ADDR, i, addr_flags=0)
        heard(fe)
        log.take()
        echoes(fe, 200)
        heard(fe)
        assert log.pages() and not log.pages() & (rings | {3, 5})
        assert program.errors() == 0


def test_without_a_log_nothing_moves(sock):
    """As QEMU starts rings during a migration: all is said before the log comes. What would be written could not be noted."""
    with FrontEnd(sock, features=BASIC | F.LOG_ALL, protocol=PROTOCOL) as fe, Victim(sock) as program:
        fe.log_rings = 1
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        fe.send(numbered(1, 60), avip.distinct(1))
        heard(fe)
        assert program.port()["counters"]["link"] == 0
        assert fe.tx.ring.used_idx == fe.rx.ring.used_idx == 0
        log = DirtyLog(fe.memory, 4096)
        log.tell(fe)
        assert check(fe.recv().frame) == 1
        echo_logged(fe, log, 10)
        # And when logging begins on rings that run.
        fe.drop()
        fe.reset_rings()
        fe.want, fe.log_rings = BASIC, 0
        serves(fe)
        log_all(fe)
        fe.send(numbered(1, 60), avip.distinct(1))
        heard(fe)
        assert program.port()["counters"]["link"] == 0
        log.tell(fe)
        assert check(fe.recv().frame) == 1
        echo_logged(fe, log, 10)
        log.close()
        # The feature alone, as of a front-end that takes whatever it is offered, holds up nothing.
        fe.drop()
        fe.reset_rings()
        fe.want, fe.log_rings = BASIC | F.LOG_ALL, 0
        serves(fe)
        assert program.errors() == 0


def base(fe, size, offset=0, fd=None):
    """SET_LOG_BASE with these numbers and the file `fd`, or a memfd of a megabyte; the program closes."""
    if fd is None:
        fd = os.memfd_create("dirty", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 1 << 20)
    with contextlib.suppress(PeerClosed, BrokenPipeError, ConnectionResetError):
        fe.channel.send(Req.SET_LOG_BASE, struct.pack("<QQ", size, offset), [fd])
    os.close(fd)


def of_another_kind(fe):
    """A log in a pipe."""
    r, w = os.pipe()
    os.close(r)
    base(fe, 1 << 19, fd=w)


def sealed(fe):
    """A log that may not be written."""
    fd = os.memfd_create("dirty", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    base(fe, 1 << 20, fd=fd)


def read_only(fe):
    """A log in a file that is open for reading."""
    fd = os.memfd_create("dirty", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 20)
    ro = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    base(fe, 1 << 20, fd=ro)


def cut(fe):
    """The file is cut off; the program writes to it with the next frame."""
    log = DirtyLog(fe.memory)
    log.tell(fe)
    log_all(fe)
    echo_logged(fe, log, 500)
    os.ftruncate(log.fd, 0)
    log.close()
    fe.send(numbered(1, 60))


def cut_early(fe):
    """The file is cut off before the rings are told to use it, which their control side does."""
    log = DirtyLog(fe.memory)
    log.tell(fe)
    os.ftruncate(log.fd, 0)
    log.close()
    log_all(fe)


def ring_beyond(fe, where):
    """A used ring that is to be logged where there is no log."""
    log = DirtyLog(fe.memory)
    log.tell(fe)
    log.close()
    for i in (RX, TX):
        fe.ring_message(Req.SET_VRING_ADDR, i, addr_flags=1, log=where)


def memory_beyond(fe):
    """Memory that comes after the log, and that it has no bits for."""
    log = DirtyLog(fe.memory)
    log.tell(fe)
    log.close()
    log_all(fe)
    r = new_region(fe)
    fe.memory.regions.append(r)
    say_memory(fe)
    fe.rx_spec = {}  # the buffers that are there are not posted again
    frames = 0
    for k in range(32):
        fe.rx.add([(r.gpa + 4096 * k, 2048, True)])
    fe.rx.publish()
    with contextlib.suppress(PeerClosed, PeerTimeout, ConnectionError):
        while frames < 40:
            fe.send(numbered(frames, 60))
            fe.recv(timeout=1)
            frames += 1


SMALL = 1 << 9
BAD = {
    "of size 0": (lambda fe: base(fe, 0), "too small"),
    "too small for the memory": (lambda fe: base(fe, SMALL), "too small for the memory"),
    "a byte too small": (lambda fe: base(fe, DirtyLog(fe.memory).size - 1), "too small for the memory"),
    "larger than its file": (lambda fe: base(fe, (1 << 20) + 1), "its file is too short"),
    "of 2^40 bytes": (lambda fe: base(fe, 1 << 40), "its file is too short"),
    "of 2^61 bytes, whose bits wrap": (lambda fe: base(fe, 1 << 61), "its file is too short"),
    "of 2^63 bytes": (lambda fe: base(fe, 1 << 63), "offset wraps"),
    "of 2^64-1 bytes": (lambda fe: base(fe, (1 << 64) - 1), "offset wraps"),
    "at the end of its file": (lambda fe: base(fe, 1 << 19, (1 << 19) + 1), "its file is too short"),
    "at 2^64-4096": (lambda fe: base(fe, 1 << 19, (1 << 64) - 4096), "offset wraps"),
    "in no file": (lambda fe: fe.channel.send(Req.SET_LOG_BASE, struct.pack("<QQ", 1 << 19, 0)), "not in shared memory"),
    "at an address of the peer's": (lambda fe: fe.channel.send(Req.SET_LOG_BASE, bytes(8)), "not in shared memory"),
    "in a pipe": (of_another_kind, "no file"),
    "that is sealed": (sealed, "cannot be mapped"),
    "that may only be read": (read_only, "cannot be mapped"),
    "that is cut off": (cut, "the dirty log is gone"),
    "that is cut off before it is used": (cut_early, "the dirty log is gone"),
    "without the ring's bits": (lambda fe: ring_beyond(fe, 1 << 40), "beyond the dirty log"),
    "that the ring's address wraps": (lambda fe: ring_beyond(fe, (1 << 64) - 8), "beyond the dirty log"),
    "without new memory's bits": (memory_beyond, "no bit for"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_log(sock, name):
    attack, reason = BAD[name]
    with up(sock) as (fe, program):
        fds = program.fds()
        regions = fe.memory.regions[:]
        with contextlib.suppress(PeerClosed, BrokenPipeError, ConnectionResetError):
            attack(fe)
        assert fe.channel.closed_by_peer()
        program.refused(reason)
        fe.memory.regions[:] = regions
        fe.drop()
        fe.reset_rings()
        fe.log_rings, fe.want = 0, BASIC
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        fe.send(numbered(99, 60))
        while check(fe.recv().frame) != 99:
            pass  # what the program had to send to the peer before
        echoes(fe, 100)
        until(lambda: not mapped(program), "the log's mapping to go")
        program.settled(fds)


def mapped(program):
    """How many mappings of logs the program has."""
    with open(f"/proc/{program.pid}/maps", encoding="ascii") as f:
        return f.read().count("memfd:dirty")


@pytest.mark.parametrize("ring", FEATURES)
def test_logs_replaced_while_running(sock, ring):
    """Under traffic, fifty times. As soon as the new one is acknowledged the old one is cut off: whoever still wrote there would
    fall. What was written in between is in one of the two."""
    with logged(sock, FEATURES[ring]) as (fe, program, log):
        fds = program.fds()
        for n in range(50):
            new = DirtyLog(fe.memory, 4096 * (n % 3), more=n)
            buffers = set()
            for k in range(8):
                fe.send(numbered(k, 60), avip.distinct(k), publish=False)
            fe.tx.publish()
            new.tell(fe)
            for k in range(8):
                pkt = fe.recv()
                assert check(pkt.frame) == k
                buffers |= set().union(*(pages_of(u.chain.segs[0][0], u.len) for u in pkt.used))
            fe.wait_sent()
            heard(fe)
            assert buffers <= log.pages() | new.pages()
            os.ftruncate(log.fd, 0)
            os.close(log.fd)
            log.fd, log.map, log.size, log.offset = new.fd, new.map, new.size, new.offset
            echo_logged(fe, log, 100 * n, 4)
            assert mapped(program) == 1
        program.settled(fds)
        assert program.errors() == 0


def test_memory_moves_while_logged(sock):
    """A new table under traffic: what is written is noted where it stands now."""
    with logged(sock) as (fe, program, log):
        log.close()
        for n in range(10):
            r = new_region(fe)
            fe.memory.regions.append(r)
            log = DirtyLog(fe.memory)
            log.tell(fe)
            say_memory(fe, added=r)
            echo_logged(fe, log, 100 * n, 5)
            os.close(r.fd)
            log.close()
            log = DirtyLog(fe.memory)
            log.tell(fe)
            fe.memory.regions.pop()
            say_memory(fe, removed=r)
            log.close()
        assert program.errors() == 0
        log = DirtyLog(fe.memory)


def test_told_of_news(sock):
    """SET_LOG_FD: an eventfd that tells of new bits, and nothing but an eventfd."""
    with up(sock) as (fe, program):
        fds = program.fds()
        news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for _ in range(3):
            fe.channel.send(Req.SET_LOG_FD, b"", [news])
        log = DirtyLog(fe.memory)
        log.tell(fe)
        log_all(fe)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(news)
        echo_logged(fe, log, 100, 1)
        assert wait_fds([news], fe.timeout)
        log.close()
        os.close(news)
        r, w = os.pipe()
        with contextlib.suppress(OSError) as failed:
            fe.channel.send(Req.SET_LOG_FD, b"", [w])
        assert failed is None or failed.errno == errno.EPIPE
        os.close(r)
        os.close(w)
        assert fe.channel.closed_by_peer()
        program.refused("not an eventfd")
        fe.drop()
        fe.reset_rings()
        fe.log_rings, fe.want = 0, BASIC
        serves(fe)
        program.settled(fds)
