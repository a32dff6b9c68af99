# SPDX-License-Identifier: BSD-2-Clause
"""A header that ends, or begins, anywhere: over two and three descriptors at every one of its bytes, in
chains direct and indirect, read by the program and written by it; and over two mergeable buffers. The sidecar, virtio's header, and that
of a device before VIRTIO_F_VERSION_1, which is shorter without mergeable buffers."""
import random
from typing import NamedTuple

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd
from interop.port import Echo, returns


class Kind(NamedTuple):
    """A header: the port's dialect, its length, and the features that make it so."""
    dialect: str
    hdr: int
    features: int


PLAIN, OLD = BASIC & ~F.MRG_RXBUF, BASIC & ~F.VERSION_1
KINDS = {
    "avip": Kind("avip", 48, BASIC),
    "avip plain": Kind("avip", 48, PLAIN),
    "virtio": Kind("virtio", 12, BASIC),
    "virtio plain": Kind("virtio", 12, PLAIN),
    "legacy": Kind("virtio", 12, OLD),
    "legacy plain": Kind("virtio", 10, OLD & PLAIN),
}
INDIRECT = pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])


@pytest.fixture(params=KINDS)
def kind(request):
    """A header."""
    return KINDS[request.param]


def header(kind, n):
    """A header to send: for avip one of its own for each frame."""
    return avip.distinct(n) if kind.dialect == "avip" else None


def same(kind, pkt, n, count=1):
    """Did frame n come back, its addresses too, over so many buffers, with the header it should have?"""
    assert pkt.frame == numbered(n, len(pkt.frame)) and check(pkt.frame) == n and len(pkt.used) == count
    if kind.dialect == "avip":
        assert pkt.header == avip.distinct(n, mrg=count)
    else:
        assert pkt.header == (bytes(10) + count.to_bytes(2, "little"))[:kind.hdr]


def peers(sock, kind):
    """A front-end, and the program."""
    return FrontEnd(sock, hdr=kind.hdr, features=kind.features), Echo(sock, dialect=kind.dialect)


@INDIRECT
def test_read_over_descriptors(sock, kind, indirect):
    hdr, (fe, program) = kind.hdr, peers(sock, kind)
    with fe, program:
        fe.start_like_qemu()
        fe.post_rx([2048] * 64)
        rng = random.Random(1)
        splits = [(k,) for k in range(hdr + 15)]
        splits += [tuple(rng.randrange(hdr) for _ in range(2)) for _ in range(100)]
        splits += [(1,) * k for k in range(1, hdr + 1)]
        splits += [(0,) * k + (hdr,) for k in range(1, 5)]
        for n, split in enumerate(splits):
            fe.send(numbered(n, 60 + n % 300), header(kind, n), split=split, indirect=indirect)
            same(kind, fe.recv(), n)
        fe.wait_sent()


@INDIRECT
def test_written_over_descriptors(sock, kind, indirect):
    hdr, (fe, program) = kind.hdr, peers(sock, kind)
    with fe, program:
        fe.start_like_qemu()
        rng = random.Random(1)
        chains = [(k, 2048) for k in range(hdr + 15)]
        chains += [(rng.randrange(hdr), rng.randrange(hdr), 2048) for _ in range(100)]
        chains += [(1,) * k + (2048,) for k in range(1, hdr + 1)]
        for n, chain in enumerate(chains):
            fe.post_rx([chain], indirect=indirect, refill=False)
            fe.send(numbered(n, 60 + n % 300), header(kind, n))
            same(kind, fe.recv(), n)
        fe.wait_sent()


@INDIRECT
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.features & F.MRG_RXBUF])
def test_written_over_buffers(sock, name, indirect):
    """The first buffer ends at each byte of the header, the count of buffers itself included."""
    kind = KINDS[name]
    hdr, (fe, program) = kind.hdr, peers(sock, kind)
    with fe, program:
        fe.start_like_qemu()
        for n, first in enumerate(range(1, hdr + 15)):
            fe.post_rx([first, 2048], indirect=indirect, refill=False)
            fe.send(numbered(n, 60 + n % 300), header(kind, n))
            same(kind, fe.recv(), n, 2)
        for n, first in enumerate(range(1, hdr), 100):
            fe.post_rx([first, hdr - first, 2048], indirect=indirect, refill=False)
            fe.send(numbered(n, 60), header(kind, n))
            same(kind, fe.recv(), n, 3)
        fe.wait_sent()


def test_front_end(sock, kind):
    """The program as front-end lays its buffers out for the header that was agreed."""
    with BackEnd(sock, listen=True, hdr=kind.hdr, features=kind.features | F.MQ) as be, \
            Echo(sock, role="frontend", dialect=kind.dialect, ring=64):
        be.wait_started()
        assert be.features & (F.VERSION_1 | F.MRG_RXBUF) == kind.features & (F.VERSION_1 | F.MRG_RXBUF)
        lengths = (60, 61, 1514, 9000) * 20
        if kind.dialect == "avip":
            returns(be, lengths)
            return
        for n, length in enumerate(lengths):
            be.send(numbered(n, length))
            pkt = be.recv()
            assert pkt.frame == numbered(n, length) and not any(pkt.header)
