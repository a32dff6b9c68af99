# SPDX-License-Identifier: BSD-2-Clause
"""A header that ends, or begins, anywhere: over two and three descriptors at every one of its bytes, in
chains direct and indirect, read by the program and written by it; and over two mergeable buffers."""
import random

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.vhostpeer import BASIC, F, FrontEnd
from interop.port import Echo

DIALECTS = {"avip": 48, "virtio": 12}
INDIRECT = pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
DIALECT = pytest.mark.parametrize("dialect", DIALECTS)


def header(dialect, n):
    """A header to send: for avip one of its own for each frame."""
    return avip.distinct(n) if dialect == "avip" else None


def same(dialect, pkt, n, count=1):
    """Did frame n come back, over so many buffers, with the header it should have?"""
    assert check(pkt.frame) == n and len(pkt.used) == count
    if dialect == "avip":
        assert pkt.header == avip.distinct(n, mrg=count)
    else:
        assert pkt.header == bytes(10) + count.to_bytes(2, "little")


@DIALECT
@INDIRECT
def test_read_over_descriptors(sock, dialect, indirect):
    hdr = DIALECTS[dialect]
    with FrontEnd(sock, hdr=hdr) as fe, Echo(sock, dialect=dialect):
        fe.start_like_qemu()
        fe.post_rx([2048] * 64)
        rng = random.Random(1)
        splits = [(k,) for k in range(hdr + 15)]
        splits += [tuple(rng.randrange(hdr) for _ in range(2)) for _ in range(100)]
        splits += [(1,) * k for k in range(1, hdr + 1)]
        splits += [(0,) * k + (hdr,) for k in range(1, 5)]
        for n, split in enumerate(splits):
            fe.send(numbered(n, 60 + n % 300), header(dialect, n), split=split, indirect=indirect)
            same(dialect, fe.recv(), n)
        fe.wait_sent()


@DIALECT
@INDIRECT
@pytest.mark.parametrize("mergeable", [F.MRG_RXBUF, 0], ids=["mergeable", "plain"])
def test_written_over_descriptors(sock, dialect, indirect, mergeable):
    hdr = DIALECTS[dialect]
    with FrontEnd(sock, hdr=hdr, features=BASIC & ~F.MRG_RXBUF | mergeable) as fe, \
            Echo(sock, dialect=dialect):
        fe.start_like_qemu()
        rng = random.Random(1)
        chains = [(k, 2048) for k in range(hdr + 15)]
        chains += [(rng.randrange(hdr), rng.randrange(hdr), 2048) for _ in range(100)]
        chains += [(1,) * k + (2048,) for k in range(1, hdr + 1)]
        for n, chain in enumerate(chains):
            fe.post_rx([chain], indirect=indirect, refill=False)
            fe.send(numbered(n, 60 + n % 300), header(dialect, n))
            same(dialect, fe.recv(), n)
        fe.wait_sent()


@DIALECT
@INDIRECT
def test_written_over_buffers(sock, dialect, indirect):
    """The first buffer ends at each byte of the header, the count of buffers itself included."""
    hdr = DIALECTS[dialect]
    with FrontEnd(sock, hdr=hdr) as fe, Echo(sock, dialect=dialect):
        fe.start_like_qemu()
        for n, first in enumerate(range(1, hdr + 15)):
            fe.post_rx([first, 2048], indirect=indirect, refill=False)
            fe.send(numbered(n, 60 + n % 300), header(dialect, n))
            same(dialect, fe.recv(), n, 2)
        for n, first in enumerate(range(1, hdr), 100):
            fe.post_rx([first, hdr - first, 2048], indirect=indirect, refill=False)
            fe.send(numbered(n, 60), header(dialect, n))
            same(dialect, fe.recv(), n, 3)
        fe.wait_sent()
