# SPDX-License-Identifier: BSD-2-Clause
"""The packed rings of the lab: each end against the other, then both against DPDK."""
import contextlib
import threading

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.packedring import (AVAIL, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, NEXT, USED, WRITE,
                            avail_bits, off_wrap, position_of, used_bits, wanted, wrap)
from lab.ring import INDIRECT
from lab.test_peer import Pair
from lab.testpmd import Testpmd
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd, PeerTimeout

PACKED = BASIC | F.RING_PACKED


def packed_pair(sock, start="qemu", features=PACKED, **kw):
    """The echoing pair of test_peer over packed rings."""
    return Pair(sock, start, features=features, offer=PACKED | F.IN_ORDER | F.MQ, **kw)


@contextlib.contextmanager
def ends(sock, features=PACKED, **kw):
    """A front-end and a back-end that are up and both the caller's."""
    with FrontEnd(sock, features=features, **kw) as fe, BackEnd(sock, features=features) as be:
        t = threading.Thread(target=fe.start_like_qemu)
        t.start()
        be.wait_started()
        t.join()
        yield fe, be


# --- the arithmetic ----------------------------------------------------------------------------

def test_wrap_bits_of_the_specification():
    """Section 2.8.1: the counters begin at 1 and change behind the last entry of the ring."""
    assert [wrap(p, 3) for p in range(9)] == [1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert (avail_bits(0, 3), avail_bits(3, 3)) == (0x80, 0x8000)
    assert (used_bits(0, 3), used_bits(3, 3)) == (0x8080, 0)
    assert [off_wrap(p, 3) for p in (0, 2, 3, 5, 6)] == [0x8000, 0x8002, 0, 2, 0x8000]
    for p in range(6):
        assert position_of(off_wrap(p, 3), 3) == p


@pytest.mark.parametrize("size", [2, 5, 256])
def test_events_by_definition(size):
    """An event fires when its entry changes in the round that its counter names, and only then."""
    for old in range(0, 3 * size, max(size // 4, 1)):
        for count in {1, 2, size - 1, size}:
            crossed = {off_wrap(p, size) for p in range(old, old + count)}
            for event in {off_wrap(p, size) for p in range(4 * size)} | {size, 0x7fff, 0xffff}:
                word = EVENT_DESC << 16 | event
                assert wanted(word, True, old, old + count, size) == (event in crossed)
    assert wanted(EVENT_ENABLE << 16, True, 0, 1, size)
    assert not wanted(EVENT_DISABLE << 16, True, 0, 1, size)


# --- one end against the other -----------------------------------------------------------------

@pytest.mark.parametrize("start", ["qemu", "dpdk"])
@pytest.mark.parametrize("hdr", [48, 12])
@pytest.mark.parametrize("ring", [2, 5, 256, 32768])
def test_echo(sock, start, hdr, ring):
    with packed_pair(sock, start, hdr=hdr, ring=ring) as fe:
        fe.post_rx([16384] * min(ring, 32))
        for n in range(300):
            fe.send(numbered(n, 26 + n * 7))
            assert check(fe.recv().frame) == n
        fe.wait_sent()


@pytest.mark.parametrize("events", [0, F.EVENT_IDX])
@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("split", [(), (1,), (10, 38), (1,) * 60, (0, 20, 0, 28)])
def test_layouts(sock, split, indirect, events):
    with packed_pair(sock, features=PACKED & ~F.EVENT_IDX | events) as fe:
        fe.post_rx([(1, 2, 45, 3, 2000)] * 20, indirect=indirect)
        for n in range(40):
            fe.send(numbered(n, 64 + n), avip.distinct(n), split=split, indirect=indirect)
            pkt = fe.recv()
            assert check(pkt.frame) == n and pkt.header[2:] == avip.distinct(n)[2:]
        fe.wait_sent()


@pytest.mark.parametrize("size", [2, 47, 48, 49, 1500])
def test_mergeable(sock, size):
    with packed_pair(sock, ring=1001) as fe:
        fe.post_rx([size] * 1001)
        for n, length in enumerate((26, 60, 1514)):
            fe.send(numbered(n, length))
            pkt = fe.recv()
            assert check(pkt.frame) == n
            assert len(pkt.used) == -(-(length + 48) // size) == pkt.header[0] + 256 * pkt.header[1]


def test_burst_is_seen_at_once(sock):
    with ends(sock, ring=7) as (fe, be):
        for burst in range(9):
            for n in range(5):
                fe.send(numbered(burst * 5 + n, 60), publish=False)
            assert not be.queue(1).available()
            fe.tx.publish()
            assert [check(be.recv().frame) for _ in range(5)] == list(range(burst * 5,
                                                                            burst * 5 + 5))
            fe.wait_sent()


def test_kicks_and_calls_are_owed_once(sock):
    """The one who sleeps is woken by the first of a burst, and not by the others."""
    with ends(sock) as (fe, be):
        be.queue(1).suppress_kicks(False)
        fe.tx.suppress_calls(False)
        be.queue(1).forced = False
        kicks = fe.tx.kicks
        for n in range(10):
            fe.send(numbered(n, 60), split=[30, 40])
        assert fe.tx.kicks == kicks + 1
        for n in range(10):
            assert check(be.recv().frame) == n
        assert be.queue(1).calls == 1
        be.queue(1).suppress_kicks()
        fe.tx.suppress_calls()
        fe.send(numbered(10, 60))
        be.recv()
        assert fe.tx.kicks == kicks + 1 and be.queue(1).calls == 1


@pytest.mark.parametrize("features", [PACKED, BASIC], ids=["packed", "split"])
def test_out_of_order(sock, features):
    with ends(sock, features, ring=16) as (fe, be):
        for first in range(0, 60, 5):
            for n in range(5):
                fe.send(numbered(first + n, 60), split=[20] * (n % 3))
            heads = [be.recv(complete=False).used[0].head for _ in range(5)]
            order = [heads[i] for i in (3, 0, 4, 2, 1)]
            be.queue(1).push([(h, 0) for h in order])
            assert [u.head for u in fe.wait_sent()] == order


@pytest.mark.parametrize("features", [PACKED, BASIC], ids=["packed", "split"])
def test_in_order_batches(sock, features):
    """One used element completes a batch, in lists of different lengths."""
    with ends(sock, features | F.IN_ORDER, ring=16) as (fe, be):
        fe.post_rx([100] * 16, refill=False)
        for first in range(0, 60, 5):
            for n in range(5):
                fe.send(numbered(first + n, 60), split=[20] * (n % 3))
            heads = [be.recv(complete=False).used[0].head for _ in range(5)]
            be.queue(1).push([(h, 0) for h in heads], batch=True)
            assert [u.head for u in fe.wait_sent()] == heads
        popped = [be.queue(0).pop() for _ in range(3)]
        be.queue(0).push([(p.head, 100) for p in popped[:2]] + [(popped[2].head, 7)], batch=True)
        assert [u.len for u in fe.recv_used(3)] == [100, 100, 7]


@pytest.mark.parametrize("kind", ["drop", "stop"])
def test_restart(sock, kind):
    with packed_pair(sock, ring=21) as fe:
        fe.post_rx([2048] * 16)
        for n in range(6):
            for k in range(10):
                fe.send(numbered(n * 10 + k, 90), split=[50])
                assert check(fe.recv().frame) == n * 10 + k
            fe.wait_sent()
            if kind == "stop":
                assert fe.stop_like_qemu() == [q.base() for q in fe.queues]
            fe.drop()
            if n % 2:
                fe.start_like_qemu()
            else:
                fe.reset_rings()
                fe.start_like_dpdk()
                fe.post_rx([2048] * 16)


def test_lost_call_is_noticed(sock):
    with FrontEnd(sock, features=PACKED, timeout=0.2) as fe, BackEnd(sock, features=PACKED) as be:
        t = threading.Thread(target=fe.start_like_qemu)
        t.start()
        be.wait_started()
        t.join()
        fe.send(numbered(0, 60))
        popped = be.recv(complete=False).used[0]
        fe.tx.reap = lambda: []  # what comes between looking and sleeping
        fe.tx.completed = iter((False, True)).__next__
        be.queue(1).push([(popped.head, 0)], call=False)
        with pytest.raises(PeerTimeout, match="without a call"):
            fe.wait_sent()


def bad(what):
    """A defect that the device's end must find."""
    return pytest.param(what, id=what.__name__)


def wrong_wrap_in_the_middle(q, at):
    q.add([(at, 4, False)] * 3)
    q.ring.set_flags(q.avail_next - 2, q.ring.flags(q.avail_next - 2) ^ (AVAIL | USED))


def duplicate_id(q, at):
    q.add([(at, 4, False)])
    q.add([(at, 4, False)], ident=q.size - 1)


def id_out_of_range(q, at):
    q.add([(at, 4, False)], ident=q.size)


def chain_longer_than_the_ring(q, at):
    for _ in range(q.size):
        q.add_raw(at, 4, 0, NEXT)


def indirect_with_next(q, at):
    q.add_raw(at, 16, 0, INDIRECT | NEXT)
    q.add_raw(at, 4, 0, 0)


def indirect_of_17_bytes(q, at):
    q.add_raw(at, 17, 0, INDIRECT)


def readable_behind_writable(q, at):
    q.add_raw(at, 4, 0, WRITE | NEXT)
    q.add_raw(at, 4, 0, 0)


@pytest.mark.parametrize("defect", [bad(d) for d in (
    wrong_wrap_in_the_middle, duplicate_id, id_out_of_range, chain_longer_than_the_ring,
    indirect_with_next, indirect_of_17_bytes, readable_behind_writable)])
def test_device_finds(sock, defect):
    with ends(sock, ring=8) as (fe, be):
        defect(fe.tx, fe.memory.alloc(64))
        fe.tx.publish()
        with pytest.raises(AssertionError):
            while True:
                be.recv(complete=False, timeout=1)


@pytest.mark.parametrize("ident", [3, 255, 0xffff])
def test_driver_finds_ids_that_are_not_its_own(sock, ident):
    with ends(sock, ring=8) as (fe, be):
        fe.send(numbered(0, 60))
        be.recv(complete=False)
        be.queue(1).push_raw((ident, 0))
        with pytest.raises(AssertionError, match="no chain of ours"):
            fe.wait_sent()


def test_wrong_wrap_is_no_completion(sock):
    """Neither what is still available nor what was used a round ago is taken for used."""
    with ends(sock, ring=8) as (fe, be):
        fe.send(numbered(0, 60))
        head = be.recv(complete=False).used[0].head
        for bits in (AVAIL, USED, AVAIL | USED):
            be.queue(1).ring.set_flags(0, used_bits(0, 8) ^ bits)
            assert not fe.tx.reap()
        be.queue(1).push([(head, 0)])
        assert [u.head for u in fe.tx.reap()] == [head]


# --- both against DPDK -------------------------------------------------------------------------

@pytest.mark.parametrize("start", ["qemu", "dpdk"])
@pytest.mark.parametrize("in_order", [False, True], ids=["any order", "in order"])
def test_front_end_against_vhost(sock, start, in_order):
    """Frames that net_vhost forwards come back unchanged; after a restart too."""
    with FrontEnd(sock, listen=False, hdr=12, timeout=20, ring=255,
                  features=PACKED | (F.IN_ORDER if in_order else 0)) as fe, \
            Testpmd.vhost(sock) as pmd:
        pmd.forward("io")
        for round_ in range(2):
            if start == "dpdk":
                fe.reset_rings()
            getattr(fe, "start_like_" + start)()
            assert bool(fe.features & F.IN_ORDER) == in_order
            if start == "dpdk" or not round_:
                fe.post_rx([2048] * 100)
                fe.post_rx([(12, 100, 1948)] * 40, indirect=True)
            for n in range(300):
                fe.send(numbered(n, 60 + n * 6), split=[12, 30, 50][:n % 4], indirect=n % 5 == 4)
                assert check(fe.recv().frame) == n
            fe.wait_sent()
            fe.drop()


def test_mergeable_buffers_of_vhost(sock):
    with FrontEnd(sock, listen=False, hdr=12, timeout=20, features=PACKED, ring=250) as fe, \
            Testpmd.vhost(sock) as pmd:
        fe.start_like_dpdk()
        pmd.forward("io")
        fe.post_rx([100] * 200)
        for n in range(100):
            fe.send(numbered(n, 600), split=[12, 50])
            pkt = fe.recv()
            assert check(pkt.frame) == n and len(pkt.used) == 7


@pytest.mark.parametrize("mrg", [True, False], ids=["mrg", "nomrg"])
@pytest.mark.parametrize("in_order", [False, True], ids=["any order", "in order"])
def test_back_end_against_virtio_user(sock, mrg, in_order):
    """Frames that virtio-user forwards come back unchanged."""
    with BackEnd(sock, listen=True, hdr=12, timeout=60,
                 features=PACKED | (F.IN_ORDER if in_order else 0)) as be:
        with be.serving():
            pmd = Testpmd.virtio_user(sock, mrg_rxbuf=mrg, packed=True, in_order=in_order,
                                      mbuf_size=1024 if mrg else 2176)
        with pmd:
            pmd.forward("io")
            be.wait_started()
            assert be.features & F.RING_PACKED
            assert (bool(be.features & F.MRG_RXBUF), bool(be.features & F.IN_ORDER)) == (mrg,
                                                                                         in_order)
            for n in range(600):
                be.send(numbered(n, 60 + n % 200 * (7 if mrg else 1)))
                assert check(be.recv().frame) == n
            if in_order:
                for burst in range(20):
                    for n in range(16):
                        be.send(numbered(n, 100))
                    used = [be.recv(complete=False) for _ in range(16)]
                    assert [check(p.frame) for p in used] == list(range(16))
                    be.queue(1).push([(p.used[0].head, 0) for p in used], batch=True)
