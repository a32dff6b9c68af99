# SPDX-License-Identifier: BSD-2-Clause
"""The scripted peers on packed rings, and in order, against a program under the preload in both
roles: every layout the format allows, notifications when they are owed and not otherwise, and
both sides coming and going. test_wire.py has the same for split rings."""
import pytest

from lab import avip
from lab.frames import check, numbered
from lab.packedring import EVENT_DESC, EVENT_DISABLE, off_wrap
from lab.ring import drain_eventfd, wait_fds
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd, Req
from hostile.victim import Victim, stats, until
from interop.port import Echo, echoes, returns

LAST = 12240  # the largest frame
PACKED, IN_ORDER = BASIC | F.RING_PACKED, F.IN_ORDER
FORMATS = {"packed": PACKED, "packed in order": PACKED | IN_ORDER, "split in order": BASIC | IN_ORDER}


def echo(sock, features, **keys):
    """The program. In front of a sidecar it takes packed rings only when it is told to."""
    return Echo(sock, **keys, **({"format": "packed"} if features & F.RING_PACKED else {}))


@pytest.fixture(params=FORMATS)
def features(request):
    """What the peer asks for, or offers."""
    return FORMATS[request.param]


def agreed(peer, features):
    """The program went along with the format."""
    want = features & (F.RING_PACKED | IN_ORDER)
    assert peer.features & (F.RING_PACKED | IN_ORDER) == want


def ring_of(features, size):
    """Packed rings may have any size; split ones round it up."""
    return size if features & F.RING_PACKED else 1 << (size - 1).bit_length()


# test_wire.py has split rings of a few sizes.
every_format = pytest.mark.parametrize("features", [*FORMATS.values(), BASIC], ids=[*FORMATS, "split"])


@pytest.mark.parametrize("start", ["qemu", "dpdk"])
@pytest.mark.parametrize("ring", [2, 5, 255, 32768])
@every_format
def test_echo(sock, features, start, ring):
    ring = ring_of(features, ring)
    with FrontEnd(sock, features=features, ring=ring) as fe, echo(sock, features):
        getattr(fe, "start_like_" + start)()
        agreed(fe, features)
        fe.post_rx([LAST + 48] * min(ring, 64))
        echoes(fe, [26, 60, 1514, 9014, LAST] * 20)
        assert all(u.len == 0 for u in fe.wait_sent())


@pytest.mark.parametrize("events", [0, F.EVENT_IDX], ids=["flags", "event_idx"])
@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
def test_header_over_descriptors(sock, features, indirect, events):
    features = features & ~F.EVENT_IDX | events
    with FrontEnd(sock, features=features, ring=ring_of(features, 211)) as fe, echo(sock, features):
        fe.start_like_qemu()
        fe.post_rx([(1, 2, 45, 3, 2000)] * 20, indirect=indirect)
        first = 0
        for split in ((), (1,), (48,), (10, 38), (1,) * 60, (47, 2), (12, 36, 14), (60, 3)):
            echoes(fe, [60, 61, 300], first, split=split, indirect=indirect)
            first += 3
        fe.wait_sent()


@pytest.mark.parametrize("size", [1, 2, 47, 48, 49, 108, 1500, 16384])
def test_receive_buffers(sock, features, size):
    """Buffers of any size, the header over several of them if need be; the count is the true one."""
    ring = ring_of(features, 4001 if size < 64 else 999)
    with FrontEnd(sock, features=features, ring=ring) as fe, echo(sock, features):
        fe.start_like_qemu()
        fe.post_rx([size] * ring)
        lengths = {26, 60, 1514} | {n for k in (1, 2) for n in range(k * size - 50, k * size + 3, 5)
                                    if 26 <= n <= LAST} | ({LAST} if size > 2 else set())
        for n, length in enumerate(sorted(lengths)):
            echoes(fe, [length], n)
            if size <= 64:  # so that two frames' buffers are never short
                fe.wait_sent()
        fe.send(numbered(0, 1514), avip.distinct(0))
        assert len(fe.recv().used) == -(-(1514 + 48) // size)


def test_without_mergeable_buffers(sock, features):
    with FrontEnd(sock, features=features & ~F.MRG_RXBUF) as fe, echo(sock, features):
        fe.start_like_qemu()
        fe.post_rx([(48, 2000)] * 32)
        for n, length in enumerate([26, 60, 1514, 2000]):
            fe.send(numbered(n, length), avip.distinct(n))
            pkt = fe.recv()
            assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=1)


def test_the_log_tells_of_what_kind_the_rings_are(sockdir, features):
    kind = ("packed" if features & F.RING_PACKED else "split") + ", in order" * bool(features & IN_ORDER) + ", mergeable"
    size, env = ring_of(features, 60), {"PALLADIUM_TRACELEVEL": "debug"}
    with FrontEnd(sockdir / "a", features=features, ring=size) as fe, echo(sockdir / "a", features, env=env) as program:
        fe.start_like_qemu()
        for ring in (0, 1):
            program.expect(f"pd0: ring {ring} runs, {size} descriptors, {kind}$")
    with BackEnd(sockdir / "b", listen=True, features=features) as be, \
            echo(sockdir / "b", features, role="frontend", ring=size, env=env) as program:
        be.wait_started()
        with be.serving():
            for ring in (1, 0):
                program.expect(f"pd0: ring {ring} runs, {size} descriptors, {kind}$")


@pytest.mark.parametrize("ring", [64, 100])
def test_bursts_fill_the_ring_and_keep_order(sock, features, ring):
    ring = ring_of(features, ring)
    with FrontEnd(sock, features=features, ring=ring) as fe, echo(sock, features):
        fe.start_like_qemu()
        fe.post_rx([2048] * ring)
        for burst in range(40):
            count = ring - burst % 7
            for k in range(count):
                fe.send(numbered(burst * ring + k, 60 + k), publish=False)
            fe.tx.publish()
            got = [check(fe.recv().frame) for _ in range(count)]
            assert got == list(range(burst * ring, burst * ring + count))
            fe.wait_sent()


def test_no_room_waits(sock, features):
    """With no receive buffers nothing is lost: the program waits and the order stays."""
    with FrontEnd(sock, features=features) as fe, echo(sock, features):
        fe.start_like_qemu()
        for n in range(200):
            fe.send(numbered(n, 60), publish=False)
        fe.tx.publish()
        for n in range(200):
            fe.post_rx([2048], refill=False)
            assert check(fe.recv().frame) == n


@pytest.mark.parametrize("how", ["drop", "stop", "new driver"])
def test_peer_comes_back(sock, features, how):
    with FrontEnd(sock, features=features, ring=ring_of(features, 50)) as fe, echo(sock, features) as program:
        for n in range(6):
            if how == "new driver":
                fe.reset_rings()
            getattr(fe, "start_like_" + ("dpdk" if how == "new driver" and n % 2 else "qemu"))()
            if how == "new driver" or not n:
                fe.post_rx([2048] * 32)
            echoes(fe, [60, 700, 1514] * 7, n * 21, split=[30] * (n % 3))
            fe.wait_sent()
            if how == "stop":
                assert fe.stop_like_dpdk() == [q.base() for q in fe.queues]
            fe.drop()
        assert program.running and "is not where" not in program.text


@pytest.mark.parametrize("sent", [1, 10, 63, 64, 100])
def test_base_that_is_not_true(sock, sent):
    """A front-end that does not know where its rings stand, as QEMU when a back-end died: the log says
    so, and a driver that starts anew is served."""
    with FrontEnd(sock, features=PACKED, ring=64) as fe, Echo(sock, format="packed") as program:
        fe.start_like_qemu()
        fe.post_rx([2048] * 30)
        echoes(fe, [60] * sent)
        fe.wait_sent()
        fe.drop()
        assert "is not where" not in program.text
        for q in fe.queues:
            q.base = lambda: 0x80008000
        fe.start_like_qemu()
        for ring in range(2):
            program.expect(f"ring {ring} is not where the peer says")
        fe.drop()
        fe.reset_rings()
        fe.start_like_qemu()
        fe.post_rx([2048] * 30)
        echoes(fe, [60] * 10)
        assert "is not where" not in program.text[program.mark:]


@pytest.mark.parametrize("fmt", ["packed", "split"])
@pytest.mark.parametrize("events", [0, F.EVENT_IDX], ids=["flags", "event_idx"])
def test_kicks_that_a_dead_program_did_not_want(sock, fmt, events):
    """What the last program left in the ring must not keep the next one asleep."""
    features = (PACKED if fmt == "packed" else BASIC) & ~F.EVENT_IDX | events
    with FrontEnd(sock, features=features, ring=64) as fe:
        for life in range(3):
            with Echo(sock, format=fmt) as program:
                fe.start_like_qemu()
                if not life:
                    fe.post_rx([2048] * 32)
                until(lambda p=program: stats(p.pid)["lane"][0]["counters"]["rx_arms"], "its sleep")
                echoes(fe, [60] * 5)
                fe.wait_sent()
                program.kill()
            if fmt == "packed":
                fe.tx.ring.device_event = EVENT_DISABLE << 16
            else:
                fe.tx.ring.used_flags, fe.tx.ring.avail_event = 1, fe.tx.avail_next - 1
            fe.drop()


def test_program_comes_back(sock, features):
    """Killed in mid-burst and started again: nothing is lost that it had not taken. On packed rings it
    is killed when all is completed: a batch that it did not come to publish would stand in the way."""
    with FrontEnd(sock, features=features, ring=ring_of(features, 150)) as fe:
        n = 0
        for life in range(5):
            with echo(sock, features) as program:
                fe.start_like_qemu()
                if not life:
                    fe.post_rx([2048] * 128)
                held, seen = len(fe.tx.chains), -1
                for _ in range(128 - held):
                    fe.send(numbered(n, 100), publish=False)
                    n += 1
                fe.tx.publish()
                for _ in range(128 if features & F.RING_PACKED else 20):
                    number = check(fe.recv().frame)
                    assert number > seen and number >= n - 128
                    seen = number
                if features & F.RING_PACKED:
                    fe.wait_sent()
                program.kill()
                assert "is not where" not in program.text
            fe.sent()
            while fe.rx.completed() or fe.pending.get(0):
                check(fe.recv().frame)
            fe.drop()


def called(q, seconds=0):
    """Has there been a call?"""
    return bool(wait_fds([q.call_fd], seconds))


@pytest.mark.parametrize("events", [0, F.EVENT_IDX], ids=["flags", "event_idx"])
def test_no_call_that_nobody_wants(sock, features, events):
    with FrontEnd(sock, features=features & ~F.EVENT_IDX | events, ring=64) as fe, echo(sock, features):
        fe.start_like_qemu()
        fe.get_u64(Req.GET_FEATURES)  # whoever answers this has rung each call that it was given
        fe.post_rx([2048] * 64)
        echoes(fe, [60] * 3)
        fe.wait_sent()
        for q in fe.queues:
            q.suppress_calls()
        for n in range(200):
            fe.send(numbered(n, 60))
            until(fe.rx.completed, "a frame")
            assert check(fe.recv().frame) == n
            until(lambda: len(fe.sent()) or not fe.tx.chains, "its completion")
            if not n:  # the call of a frame before, which was being made, is made
                for q in fe.queues:
                    drain_eventfd(q.call_fd)
        assert not called(fe.rx) and not called(fe.tx)


def test_call_at_the_descriptor_that_was_named(sock):
    """Over many rounds of the ring: none before it, one when it is used."""
    with FrontEnd(sock, features=PACKED, ring=48) as fe, echo(sock, PACKED):
        fe.start_like_qemu()
        fe.post_rx([2048] * 48)
        echoes(fe, [60] * 3)
        fe.wait_sent()
        fe.tx.suppress_calls()
        for first in range(0, 600, 20):
            event = fe.rx.last_used + 19
            fe.rx.ring.driver_event = EVENT_DESC << 16 | off_wrap(event, 48)
            drain_eventfd(fe.rx.call_fd)
            for n in range(first, first + 20):
                assert not called(fe.rx)
                fe.send(numbered(n, 60))
                if n < first + 19:
                    until(fe.rx.completed, "a frame")
                else:
                    assert called(fe.rx, 10)
                pkt = fe.rx.reap()[0]
                assert check(pkt.chain.data(fe.memory, pkt.len)[48:]) == n
                fe.done_rx([pkt])
                fe.sent()


# --- the program as front-end ------------------------------------------------------------------

def back_end(sock, features):
    """The scripted back-end; the program connects."""
    return BackEnd(sock, listen=True, features=features)


@pytest.mark.parametrize("ring", [2, 3, 64, 100, 1000, 1024, 32767, 32768])
@every_format
def test_front_end_echo(sock, features, ring):
    """Packed rings have as many descriptors as ring= says, split ones the power of two below."""
    size = ring if features & F.RING_PACKED else 1 << ring.bit_length() - 1
    with back_end(sock, features) as be, echo(sock, features, role="frontend", ring=ring):
        be.wait_started()
        agreed(be, features)
        assert [be.rings[i].num for i in range(2)] == [size] * 2
        returns(be, [26, 60, 1514, 9014, LAST] * 30)


def test_in_order_is_not_agreed_to(sock):
    """in_order=off: neither offered, as a back-end, nor asked for, as a front-end."""
    with Echo(sock, mode="listen", in_order="off", format="packed"), \
            FrontEnd(sock, listen=False, features=PACKED | IN_ORDER) as fe:
        fe.start_like_qemu()
        assert fe.features & (F.RING_PACKED | IN_ORDER) == F.RING_PACKED
        fe.post_rx([2048] * 32)
        echoes(fe, [60] * 20)
    with back_end(sock, PACKED | IN_ORDER) as be, \
            echo(sock, PACKED, role="frontend", in_order="off"):
        be.wait_started()
        assert be.features & (F.RING_PACKED | IN_ORDER) == F.RING_PACKED
        returns(be, [60] * 20)


def test_packed_without_version_1(sock):
    """The specification knows no such rings: refused by name in both roles, and where split rings will
    do a front-end takes those."""
    with Victim(sock, mode="listen") as program, \
            FrontEnd(sock, listen=False, features=PACKED & ~F.VERSION_1) as fe:
        with pytest.raises(ConnectionError):
            fe.start_like_qemu()
        program.refused("packed rings without VIRTIO_F_VERSION_1")
    with back_end(sock, PACKED & ~F.VERSION_1) as be, \
            Victim(sock, role="frontend", format="packed") as program:
        with pytest.raises(ConnectionError):
            be.wait_started()
        program.refused("packed rings without VIRTIO_F_VERSION_1")
    with back_end(sock, PACKED & ~F.VERSION_1) as be, \
            echo(sock, BASIC, role="frontend", dialect="virtio"):
        be.wait_started()
        assert not be.features & F.RING_PACKED


def test_front_end_without_mergeable_buffers(sock, features):
    with back_end(sock, features & ~F.MRG_RXBUF) as be, echo(sock, features, role="frontend"):
        be.wait_started()
        returns(be, [26, 60, 1514] * 30)


@pytest.mark.parametrize("fmt", ["packed", "split"])
def test_front_end_completions_out_of_order(sock, fmt):
    """Both rings are completed in another order than they were filled, over many rounds."""
    features = PACKED if fmt == "packed" else BASIC
    with back_end(sock, features) as be, echo(sock, features, role="frontend", ring=64):
        be.wait_started()
        returns(be, [60] * 3)
        rx, tx, order = be.queue(0), be.queue(1), (3, 0, 4, 2, 1)
        for first in range(0, 500, 5):
            chains = [until(rx.pop, "a receive buffer") for _ in range(5)]
            for n, popped in enumerate(chains, first):
                rx.write(popped, bytes(48) + numbered(n, 60 + n))
            rx.push([(chains[i].head, 48 + 60 + first + i) for i in order])
            back = [be.recv(complete=False) for _ in range(5)]
            assert [check(p.frame) for p in back] == [first + i for i in order]
            tx.push([(back[i].used[0].head, 0) for i in order])


@pytest.mark.parametrize("fmt", ["packed", "split"])
def test_front_end_completions_in_batches(sock, fmt):
    """In order, one used element stands for a whole burst that was sent."""
    features = (PACKED if fmt == "packed" else BASIC) | IN_ORDER
    with back_end(sock, features) as be, echo(sock, features, role="frontend", ring=64):
        be.wait_started()
        agreed(be, features)
        tx = be.queue(1)
        for first in range(0, 1000, 10):
            for n in range(first, first + 10):
                be.send(numbered(n, 60 + n * 3))
            back = [be.recv(complete=False) for _ in range(10)]
            assert [check(p.frame) for p in back] == list(range(first, first + 10))
            heads = [(p.used[0].head, 0) for p in back]
            for batch in (heads[:first // 10 % 10], heads[first // 10 % 10:]):
                if batch:
                    tx.push(batch, batch=True)


def test_front_end_is_full_until_completed(sock, features):
    """Nothing is taken for completed that is not: with no completions the program sends no more than
    the ring holds, then goes on where it stopped."""
    with back_end(sock, features) as be, echo(sock, features, role="frontend", ring=64):
        be.wait_started()
        for first in range(0, 700, 100):
            for n in range(first, first + 100):
                be.send(numbered(n, 60))
            held = [be.recv(complete=False) for _ in range(64)]
            assert not be.queue(1).pop()
            be.queue(1).push([(p.used[0].head, 0) for p in held])
            held += [be.recv() for _ in range(36)]
            assert [check(p.frame) for p in held] == list(range(first, first + 100))


def test_front_end_peer_comes_back(sock, features):
    with back_end(sock, features) as be, echo(sock, features, role="frontend", ring=64) as program:
        for n in range(5):
            be.wait_started()
            agreed(be, features)
            returns(be, [60, 1514, 9000] * 10, n * 30)
            be.drop()
        assert program.running


def test_front_end_changes_its_format(sock):
    """The next device may offer less, or more; in front of a virtio-net header the program takes the
    best."""
    with Echo(sock, mode="listen", role="frontend", ring=64, dialect="virtio") as program:
        for features in (PACKED, BASIC, PACKED | IN_ORDER, BASIC | IN_ORDER) * 2:
            with BackEnd(sock, features=features, hdr=12) as be:
                be.wait_started()
                agreed(be, features)
                for n in range(100):
                    be.send(numbered(n, 60 + n * 20))
                    assert check(be.recv().frame) == n
        assert program.running


def test_back_end_changes_its_format(sock):
    """The next driver may ask for another format."""
    with Echo(sock, mode="listen", dialect="virtio") as program:
        for features in (PACKED, BASIC, PACKED | IN_ORDER, BASIC | IN_ORDER) * 2:
            with FrontEnd(sock, listen=False, features=features, ring=64, hdr=12) as fe:
                fe.start_like_qemu()
                agreed(fe, features)
                fe.post_rx([2048] * 32)
                for n in range(100):
                    fe.send(numbered(n, 60 + n * 20))
                    assert check(fe.recv().frame) == n
        assert program.running


def test_front_end_kicks_only_when_asked(sock, features):
    with back_end(sock, features) as be, echo(sock, features, role="frontend", ring=64):
        be.wait_started()
        returns(be, [60] * 3)
        q = be.queue(1)
        q.suppress_kicks()
        drain_eventfd(q.kick_fd)
        for n in range(300):
            be.send(numbered(n, 60))
            popped = until(q.pop, "a frame")
            assert check(q.read(popped)[48:]) == n
            q.push([(popped.head, 0)])
        assert not wait_fds([q.kick_fd], 0)
