# SPDX-License-Identifier: BSD-2-Clause
"""The scripted peer in the avip dialect against a program under the preload: the behaviours of
the seed, every layout the ring allows, and both sides coming and going."""
import math

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd, Memory
from interop.port import Echo, echoes, returns

LAST = 12240  # the largest frame


@pytest.fixture(params=["connect", "listen"])
def mode(request):
    """How the program finds its peer."""
    return request.param


def front_end(sock, mode, **kw):
    """The scripted front-end for a program in that mode."""
    return FrontEnd(sock, listen=mode == "connect", **kw)


@pytest.mark.parametrize("start", ["qemu", "dpdk"])
def test_echo(sock, mode, start):
    with front_end(sock, mode) as fe, Echo(sock, mode=mode):
        getattr(fe, "start_like_" + start)()
        fe.post_rx([LAST + 48] * 64)
        echoes(fe, [26, 60, 1514, 9014, LAST] * 20)
        assert all(u.len == 0 for u in fe.wait_sent())


@pytest.mark.parametrize("events", [0, F.EVENT_IDX], ids=["flags", "event_idx"])
@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
def test_header_over_descriptors(sock, indirect, events):
    with FrontEnd(sock, features=BASIC & ~F.EVENT_IDX | events, ring=512) as fe, Echo(sock):
        fe.start_like_qemu()
        fe.post_rx([(1, 2, 45, 3, 2000)] * 20, indirect=indirect)
        first = 0
        for split in ((), (1,), (48,), (10, 38), (1,) * 60, (47, 2), (12, 36, 14), (60, 3)):
            echoes(fe, [60, 61, 300], first, split=split, indirect=indirect)
            first += 3
        fe.wait_sent()


@pytest.mark.parametrize("size", [1, 2, 47, 48, 49, 60, 64, 108, 1500, 2048, 4096, 16384])
def test_receive_buffers(sock, size):
    """Buffers of any size, the header over several of them if need be; the count is the true one
    (the lengths are those where the seed's count is wrong, and their neighbours)."""
    ring = 4096 if size < 64 else 1024
    with FrontEnd(sock, ring=ring) as fe, Echo(sock):
        fe.start_like_dpdk()
        fe.post_rx([size] * ring)
        lengths = {26, 60, 1514} | {n for k in (1, 2) for n in range(k * size - 50, k * size + 3)
                                    if 26 <= n <= LAST} | ({LAST} if size > 2 else set())
        for n, length in enumerate(sorted(lengths)[::1 if size > 2 else 7]):
            echoes(fe, [length], n)
            if size <= 64:  # so that two frames' buffers are never short
                fe.wait_sent()
        used = math.ceil((1514 + 48) / size)
        fe.send(numbered(0, 1514), avip.distinct(0))
        assert len(fe.recv().used) == used


def test_without_mergeable_buffers(sock):
    with FrontEnd(sock, features=BASIC & ~F.MRG_RXBUF) as fe, Echo(sock):
        fe.start_like_qemu()
        fe.post_rx([(48, 2000)] * 32)
        for n, length in enumerate([26, 60, 1514, 2000]):
            fe.send(numbered(n, length), avip.distinct(n))
            pkt = fe.recv()
            assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=1)


def test_control_chain_of_48_bytes(sock):
    """Delivered as a message of its own, and what follows it is a frame again."""
    with FrontEnd(sock) as fe, Echo(sock) as program:
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        for split in ((), (20,), (1,) * 47):
            fe.send(b"", avip.port_id(0x0a000001, 2, 3, queues=10), split=split)
            program.expect("PORT_ID chassis 0x0a000001 card 2 port 3, queues 10")
            echoes(fe, [60])
        program.terminate()
        program.expect("3 control messages; 0 frames not echoed")


def test_bursts_fill_the_ring_and_keep_order(sock, mode):
    with front_end(sock, mode) as fe, Echo(sock, mode=mode):
        fe.start_like_qemu()
        fe.post_rx([2048] * 256)
        for burst in range(20):
            for k in range(256):
                fe.send(numbered(burst * 256 + k, 60 + k), publish=False)
            fe.tx.publish()
            got = [check(fe.recv().frame) for _ in range(256)]
            assert got == list(range(burst * 256, burst * 256 + 256))
            fe.wait_sent()


def test_no_room_waits(sock):
    """With no receive buffers nothing is lost: the program waits and the order stays."""
    with FrontEnd(sock) as fe, Echo(sock):
        fe.start_like_qemu()
        for n in range(200):
            fe.send(numbered(n, 60), publish=False)
        fe.tx.publish()
        for n in range(200):
            fe.post_rx([2048], refill=False)
            assert check(fe.recv().frame) == n


@pytest.mark.parametrize("how", ["drop", "stop", "new driver"])
def test_peer_comes_back(sock, mode, how):
    with front_end(sock, mode) as fe, Echo(sock, mode=mode) as program:
        for n in range(6):
            if how == "new driver":
                fe.reset_rings()
            getattr(fe, "start_like_" + ("dpdk" if n % 2 else "qemu"))()
            if how == "new driver" or not n:
                fe.post_rx([2048] * 32)
            echoes(fe, [60, 700, 1514] * 5, n * 15)
            fe.wait_sent()
            if how == "stop":
                assert fe.stop_like_dpdk() == [fe.rx.last_used, fe.tx.last_used]
            fe.drop()
        assert program.running


def test_program_comes_back(sock, mode):
    """Killed in mid-burst and started again: nothing is altered, doubled or out of order."""
    with front_end(sock, mode) as fe:
        seen = -1
        n = 0
        for life in range(4):
            with Echo(sock, mode=mode) as program:
                fe.start_like_qemu()
                if not life:
                    fe.post_rx([2048] * 128)
                fe.sent()  # what the killed program took and returned, an echo or not
                for _ in range(128 - len(fe.tx.chains)):
                    fe.send(numbered(n, 100), publish=False)
                    n += 1
                fe.tx.publish()
                for _ in range(20):
                    number = check(fe.recv().frame)
                    assert number > seen
                    seen = number
                program.kill()
            fe.drop()


def test_regions_and_queue_pairs(sock):
    memory = Memory((4 << 20, 32 << 20, 8 << 20), one_fd=True)
    with FrontEnd(sock, queues=2, memory=memory) as fe, Echo(sock, queues=2):
        fe.start_like_qemu()
        for queue in range(2):
            fe.post_rx([2048] * 32, queue)
        for n in range(40):
            fe.send(numbered(n, 60 + n * 30), avip.distinct(n), queue=n % 2)
            _, pkt = fe.recv_any()
            assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=len(pkt.used))


# --- the program as front-end ------------------------------------------------------------------

def back_end(sock, mode, **kw):
    """The scripted back-end for a front-end program in that mode."""
    return BackEnd(sock, listen=mode == "connect", **kw)


def test_front_end_echo(sock, mode):
    with back_end(sock, mode) as be, Echo(sock, mode=mode, role="frontend"):
        be.wait_started()
        returns(be, [26, 60, 1514, 9014, LAST] * 20)


def test_front_end_takes_the_byte_at_offset_10(sock):
    """DPDK as the seed patched it writes its count over bits 56-63 of metadata_type, too."""
    with BackEnd(sock, listen=True) as be, Echo(sock, role="frontend"):
        be.wait_started()
        for n, length in enumerate((60, 1514, 9014)):
            header = avip.avip(flags="IFG|PREAMBLE", time=77, preamble=b"\x55" * 7)
            be.send(numbered(n, length), header, wrong_offset=10)
            pkt = be.recv()
            assert check(pkt.frame) == n and pkt.header[12:] == header[12:]


def test_front_end_survives_the_seed_count(sock):
    """ceil(frame / first buffer) forgets the 48 bytes; what follows must not be disturbed."""
    with BackEnd(sock, listen=True) as be, Echo(sock, role="frontend") as program:
        be.wait_started()
        returns(be, [60] * 3)
        room = be.queue(0).room(be.queue(0).pop())
        be.queue(0).unpop()
        for length in (room - 47, room - 20, room - 1):
            be.send(numbered(99, length), num_buffers=math.ceil(length / room))
        seen = 99
        be.send(numbered(100, 60), avip.distinct(100))
        while seen != 100:
            pkt = be.recv()
            try:
                seen = check(pkt.frame)
            except Exception:  # pylint: disable=broad-except
                assert len(pkt.frame) <= room  # the frames with the wrong count may be cut
        returns(be, [60, 1514] * 5, 101)
        assert program.running


def test_front_end_peer_comes_back(sock, mode):
    with back_end(sock, mode) as be, Echo(sock, mode=mode, role="frontend") as program:
        for n in range(5):
            be.wait_started()
            returns(be, [60, 1514] * 10, n * 20)
            be.drop()
        assert program.running
