# SPDX-License-Identifier: BSD-2-Clause
"""A program in the back-end role whose peer has every address translated (VIRTIO_F_ACCESS_PLATFORM): what is missing is asked for and
waited for, what is taken back is not used any more, and wrong translations hurt nobody."""
import collections
import contextlib
import os
import random
import socket
import struct
import time

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.iommu import INVALIDATE, RO, RW, UPDATE, WO, Iommu, iotlb
from lab.peer import BASIC
from lab.ring import PAGE
from lab.vhostpeer import F, FrontEnd, Req
from lab.wire import HEADER, NEED_REPLY, REPLY, VERSION, mem_table, u64
from hostile.victim import Victim, echoes, serves, until

TRANSLATED = BASIC | F.ACCESS_PLATFORM
TOP = 1 << 64
FORMATS = {"split": 0, "packed": F.RING_PACKED}


@contextlib.contextmanager
def translated(sock, features=TRANSLATED, page=PAGE, **kw):
    """A program that serves a peer with an IOMMU; gives both and the program. Nothing leaks, and a peer without
    one is served afterwards."""
    with FrontEnd(sock, features=features) as fe, Victim(sock, iommu="on", **kw) as program:
        with Iommu(fe, page) as iommu:
            fe.start_like_qemu()
            assert fe.features & F.ACCESS_PLATFORM
            fe.post_rx([2048] * 32)
            echoes(fe)
            fds = program.fds()
            yield fe, iommu, program
        fe.drop()
        fe.want &= ~F.ACCESS_PLATFORM
        serves(fe, 500)
        program.settled(fds)
        assert program.running


@pytest.mark.parametrize("page", [PAGE, 1 << 16, 1 << 20])
@pytest.mark.parametrize("packed", FORMATS)
def test_frames(sock, packed, page):
    """Chains of several descriptors and indirect ones, over the ends of pages."""
    with translated(sock, TRANSLATED | FORMATS[packed], page) as (fe, iommu, program):
        for n in range(60):
            how = {"split": [10, 38, 100, 0, 300]} if n % 3 == 1 else {}
            fe.send(numbered(n, 60 + 97 * n % 5000), avip.distinct(n), indirect=n % 2 == 1, **how)
            pkt = fe.recv()
            assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=len(pkt.used))
        fe.wait_sent()
        pages = collections.Counter(a // page for a in iommu.misses)
        assert max(pages.values()) <= 2 and not iommu.fails  # each ring asks once
        assert program.errors() == 0


def test_bursts(sock):
    """What is missing in the middle of a burst stops it there, and no frame is lost or out of order."""
    with translated(sock) as (fe, iommu, program):
        for n in range(30):
            for k in range(16):
                fe.send(numbered(n * 16 + k, 60 + 90 * k), avip.distinct(k), publish=False)
            fe.tx.publish()
            iommu.invalidate(0, 96 << 20, wait=False)
            assert [check(fe.recv().frame) for _ in range(16)] == list(range(n * 16, n * 16 + 16))
            fe.wait_sent()
        assert program.errors() == 0


def test_rings_are_found_again(sock):
    """Their pages are taken back: the program asks for each once more, and goes on when it has the answer."""
    with translated(sock) as (fe, iommu, program):
        for n in range(20):
            pages = {gpa - gpa % PAGE for gpa in fe.queues[n % 2].gpa}
            iommu.misses.clear()
            for page in pages:
                iommu.invalidate(page, PAGE)
            echoes(fe, 20 * n)
            assert pages <= {a - a % PAGE for a in iommu.misses}
        assert program.errors() == 0


def cpu(program):
    """Processor time that the program has used, in ticks of 10 ms."""
    with open(f"/proc/{program.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("ring", [0, 1])
def test_no_answer(sock, ring):
    """A miss is asked for once, and costs nothing while nobody answers; then all goes on."""
    with translated(sock) as (fe, iommu, program):
        iommu.answering, asked = False, len(iommu.misses)
        if ring:
            at = fe.memory.alloc(4 * PAGE, PAGE)
            fe.memory.view(at, 1048)[:] = avip.distinct(7) + numbered(7, 1000)
            fe.tx.add([(at, 1048, False)])
            fe.tx.publish()
        else:
            at = min(s[0] for c in fe.rx.chains.values() for s in c.segs)
            iommu.invalidate(at - at % PAGE, 64 * 4096)
            fe.send(numbered(7, 1000), avip.distinct(7))
        iommu.wait_for(lambda: len(iommu.misses) > asked)
        asked, before = asked + 1, cpu(program)
        time.sleep(1)
        assert cpu(program) - before < 30 and len(iommu.misses) == asked
        for n in range(3):  # nor when other things are said, or the peer kicks
            iommu.update(at - at % PAGE + (8 << 20), PAGE)
            fe.tx.kick()
        assert fe.channel.request(Req.GET_STATUS).u64 is not None
        assert len(iommu.misses) == asked
        iommu.answering = True
        for miss in set(iommu.misses):
            iommu.answer(miss)
        assert check(fe.recv().frame) == 7
        echoes(fe, 100)
        assert program.errors() == 0


def test_reading_alone_is_allowed(sock):
    """A frame to be sent may stand where it can be read only, and not where it can be written only."""
    with translated(sock) as (fe, iommu, program):
        at = fe.memory.alloc(2 * PAGE, PAGE)
        for n, perm in enumerate((RO, WO, RW)):
            iommu.allow = lambda page, perm=perm: perm if page in (at, at + PAGE) else RW
            iommu.invalidate(at, 2 * PAGE)
            fe.memory.view(at, 1048)[:] = avip.distinct(n) + numbered(n, 1000)
            fe.tx.add([(at, 1048, False)])
            fe.tx.publish()
            if perm == WO:
                fe.wait_sent()
                iommu.wait_for(lambda: iommu.fails)
                assert iommu.fails == [at]
            else:
                assert check(fe.recv().frame) == n
        until(lambda: program.lane()["rx_drop_malformed"] == 1, "a dropped frame")
        echoes(fe, 50)
        assert program.errors() == 0


def test_receive_buffers_must_be_writable(sock):
    with FrontEnd(sock, features=TRANSLATED) as fe, Victim(sock, iommu="on") as program:
        at = fe.memory.alloc(32 * 2048, PAGE)
        with Iommu(fe, allow=lambda page: RO if at <= page < at + 32 * 2048 else RW) as iommu:
            fe.start_like_qemu()
            for k in range(32):
                fe.rx.add([(at + 2048 * k, 2048, True)])
            fe.rx.publish()
            fe.send(numbered(1, 60), avip.distinct(1))
            assert fe.channel.closed_by_peer()
            program.refused("ring 0: a receive descriptor is not writable memory")
            assert iommu.fails == [at]
        fe.drop()
        fe.want &= ~F.ACCESS_PLATFORM
        fe.reset_rings()
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        assert check(fe.recv().frame) == 1
        serves(fe, 100)


def test_a_ring_must_be_writable(sock):
    with FrontEnd(sock, features=TRANSLATED) as fe, Victim(sock, iommu="on") as program:
        with Iommu(fe, allow=lambda page: RO):
            with contextlib.suppress(ConnectionError):
                fe.start_like_qemu()
            assert fe.channel.closed_by_peer()
            program.refused("does not allow access")
        fe.drop()
        fe.want &= ~F.ACCESS_PLATFORM
        serves(fe)


def code(fe, payload):
    """What the program answers to an IOTLB message."""
    return fe.channel.request(Req.IOTLB_MSG, payload, need_reply=True).u64


def test_wrong_translations(sock):
    """Each is refused, and changes nothing."""
    with translated(sock) as (fe, iommu, program):
        r = fe.memory.regions[0]
        far = r.uva + r.size
        wrong = [
            iotlb(UPDATE, 0, 0, r.uva), iotlb(INVALIDATE, 0, 0),
            iotlb(UPDATE, TOP - PAGE, 2 * PAGE, r.uva), iotlb(INVALIDATE, TOP - PAGE, 2 * PAGE),
            iotlb(UPDATE, 1, TOP - 1, r.uva), iotlb(UPDATE, 0, PAGE, far),
            iotlb(UPDATE, 0, PAGE, r.uva - 1), iotlb(UPDATE, 0, PAGE, far - PAGE + 1),
            iotlb(UPDATE, 0, PAGE, TOP - 1), iotlb(UPDATE, 0, 1 << 40, r.uva),
            iotlb(UPDATE, 0, PAGE, r.uva, perm=4), iotlb(UPDATE, 0, PAGE, r.uva, perm=255),
            iotlb(0, 0, PAGE, r.uva), iotlb(1, 0, PAGE, r.uva), iotlb(4, 0, PAGE, r.uva),
            iotlb(255, 0, PAGE, r.uva),
        ]
        for payload in wrong:
            assert code(fe, payload) == 1, payload
        assert code(fe, iotlb(INVALIDATE, TOP - PAGE, PAGE)) == 0
        assert code(fe, iotlb(UPDATE, TOP - PAGE, PAGE, r.uva)) == 0
        assert code(fe, iotlb(INVALIDATE, 1, TOP - 1)) == 0
        echoes(fe, 100)
        assert program.errors() == 0


@pytest.mark.parametrize("size", [0, 1 << 40])
def test_a_wrong_translation_without_an_answer(sock, size):
    with translated(sock) as (fe, iommu, program):
        iommu.update(fe.memory.regions[0].gpa, size)
        assert fe.channel.closed_by_peer()
        program.refused("IOTLB_MSG refused")


def test_overlapping_translations(sock):
    """The last one counts, whatever it cuts of others, at either end or in the middle."""
    with translated(sock) as (fe, iommu, program):
        rng, start, end = random.Random(3), fe.memory.regions[0].gpa, fe.memory.used[0] + (1 << 17)
        for n in range(400):
            at = rng.randrange(start, end)
            size = rng.randrange(1, end - at + 1)
            if n % 3:
                iommu.update(at, size, perm=rng.choice((RW, RW, RO, WO)) if n % 7 == 0 else RW)
            else:
                iommu.invalidate(at, size, wait=False)
            if n % 40 == 39:
                iommu.update_all()
                fe.get_features()  # it is taken in
                until(lambda: program.port()["state"] == "up", "the rings, which were translated away")
                echoes(fe, n)
        assert program.errors() == 0


def test_more_translations_than_are_kept(sock):
    """Ten times as many as fit: memory does not grow, and what was thrown away is asked for again."""
    def resident():
        with open(f"/proc/{program.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1])

    with translated(sock) as (fe, iommu, program):
        before, r = resident(), fe.memory.regions[0]
        for n in range(20000):
            iommu.update((1 << 40) + 2 * n * PAGE, PAGE, r.uva + n % 1000 * PAGE)
        assert fe.get_features()
        assert resident() - before < 512
        iommu.misses.clear()
        iommu.invalidate(0, 96 << 20)
        echoes(fe, 100)
        assert iommu.misses
        assert program.errors() == 0


KEPT = 2048  # by iotlb.c


@pytest.mark.parametrize("count", [KEPT - 100, KEPT + 300])
def test_what_is_kept_and_what_is_not(sock, count):
    """So many addresses for one page, each of which a frame comes from. Those that fit are not asked for again, the rest are, once for
    each that too many were said; with the table full, holes in the middle of what is left change nothing."""
    with translated(sock, page=1 << 20) as (fe, iommu, program):
        at = fe.memory.alloc(PAGE, PAGE)
        first, elsewhere, answer = 1 << 40, set(), iommu.answer

        def say(iova):
            """Where an address stands, be it one of these or not."""
            if iova < first:
                answer(iova)
            else:
                elsewhere.add(iova)
                iommu.update(iova, PAGE, fe.memory.uva(at), RO)
        iommu.answer = say
        for n in range(count):
            iommu.update(first + 2 * n * PAGE, PAGE, fe.memory.uva(at), RO)
        for n in range(count):
            if n % 100 == 50:  # a hole in all of the memory, which is asked for anew
                iommu.update_all()
                iommu.invalidate(at, PAGE)
            fe.memory.view(at, 108)[:] = avip.distinct(n) + numbered(n, 60)
            fe.tx.add([(first + 2 * n * PAGE, 108, False)])
            fe.tx.publish()
            assert check(fe.recv().frame) == n
            fe.wait_sent()
        assert not elsewhere if count < KEPT else len(elsewhere) >= count - KEPT
        assert program.errors() == 0 and not iommu.fails


def test_the_channel_ends(sock):
    """That matters when something is missing, and not before."""
    with translated(sock) as (fe, iommu, program):
        iommu.update_all()
        iommu.close()
        fe.backend.close()
        echoes(fe, 50)
        iommu.invalidate(0, 96 << 20, wait=False)
        assert fe.channel.closed_by_peer()
        program.refused("the peer has closed the channel to ask")


def test_the_channel_ends_first(sock):
    """Who leaves, or is killed, may close it before the connection, with frames on their way: that is no fault."""
    with translated(sock) as (fe, iommu, program):
        iommu.update_all()
        iommu.close()
        fe.backend.close()
        echoes(fe, 50)
        fe.tx.add([(1 << 41, 108, False)])
        fe.tx.publish()
        assert fe.channel.closed_by_peer()
        until(lambda: "the peer has closed the channel to ask" in program.port()["reason"], "the reason")
        assert program.port()["state"] != "up" and program.errors() == 0


def test_no_channel(sock):
    with FrontEnd(sock, features=TRANSLATED, protocol=0) as fe, Victim(sock, iommu="on") as program:
        with contextlib.suppress(ConnectionError):
            fe.start_like_qemu()
        assert fe.channel.closed_by_peer()
        program.refused("no channel to ask")
        fe.drop()
        fe.want &= ~F.ACCESS_PLATFORM
        serves(fe)


GARBAGE = {
    "an answer": HEADER.pack(1, VERSION | REPLY, 8) + u64(0),
    "a request": HEADER.pack(1, VERSION, 32) + bytes(32),
    "request 0": HEADER.pack(0, VERSION | REPLY, 0),
    "version 2": HEADER.pack(1, 2 | REPLY, 8) + u64(0),
    "too much": HEADER.pack(1, VERSION | REPLY, 513),
    "noise": random.Random(5).randbytes(65536),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_channel(sock, name):
    with translated(sock) as (fe, iommu, program):
        with contextlib.suppress(OSError):
            fe.backend.send_raw(GARBAGE[name])
        assert fe.channel.closed_by_peer()
        program.refused("back-end's")


def test_a_channel_that_nobody_reads(sock):
    """A flood of invalidations has the rings asked for again and again: what waits is bounded."""
    with translated(sock) as (fe, iommu, program):
        iommu.close()
        fe.backend.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with contextlib.suppress(OSError):
            for _ in range(20000):
                iommu.invalidate(0, 96 << 20, wait=False)
        assert fe.channel.closed_by_peer()
        program.refused("does not read")


@pytest.mark.parametrize("kind", ["a datagram socket", "a TCP socket", "an unconnected one", "a listener", "itself"])
def test_channels_that_are_none(sock, sockdir, kind):
    with translated(sock) as (fe, iommu, program):
        with contextlib.ExitStack() as stack:
            s = {"a datagram socket": lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0],
                 "a TCP socket": lambda: socket.socket(socket.AF_INET),
                 "an unconnected one": lambda: socket.socket(socket.AF_UNIX),
                 "a listener": lambda: socket.socket(socket.AF_UNIX),
                 "itself": lambda: fe.channel.sock.dup()}[kind]()
            stack.callback(s.close)
            if kind == "a listener":
                s.bind(str(sockdir / "other"))
                s.listen()
            fe.channel.send(Req.SET_BACKEND_REQ_FD, b"", [s.fileno()])
            if kind == "itself":
                with contextlib.suppress(OSError):  # the program may hang up at any of them
                    fe.channel.send(Req.GET_FEATURES)
                    fe.channel.send(Req.GET_FEATURES)
                    iommu.invalidate(0, 96 << 20, wait=False)
                fe.drop()
            else:
                if kind == "a listener":
                    iommu.invalidate(0, 96 << 20, wait=False)
                assert fe.channel.closed_by_peer()
                program.refused("")


def test_another_channel(sock):
    """It takes the place of the first, which is closed."""
    with translated(sock) as (fe, iommu, program):
        fds = program.fds()
        iommu.update_all()
        for _ in range(20):
            a, b = socket.socketpair()
            with a, b:
                fe.acked(Req.SET_BACKEND_REQ_FD, b"", [b.fileno()])
                program.settled(fds)
        echoes(fe, 50)


def test_another_memory_table(sock):
    """What stood in the old memory is forgotten, and asked for again."""
    with translated(sock) as (fe, iommu, program):
        rows = [r.row() for r in fe.memory.regions]
        for n in range(5):
            iommu.misses.clear()
            fe.protocol, protocol = fe.protocol & ~(1 << 15), fe.protocol
            fe.acked(Req.SET_MEM_TABLE, mem_table(rows), [r.fd for r in fe.memory.regions])
            fe.protocol = protocol
            echoes(fe, 50 * n)
            assert iommu.misses
        assert program.errors() == 0


def test_not_asked_for(sock):
    """iommu=off, the default, does not offer it, and takes no translations."""
    with FrontEnd(sock, features=TRANSLATED) as fe, Victim(sock) as program:
        serves(fe)
        assert not fe.offered & F.ACCESS_PLATFORM
        assert code(fe, iotlb(UPDATE, 0, PAGE, fe.memory.regions[0].uva)) == 1
        echoes(fe, 50)
        assert program.errors() == 0
