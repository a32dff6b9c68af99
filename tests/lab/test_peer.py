# SPDX-License-Identifier: BSD-2-Clause
"""The scripted peers against each other: every header length, layout and defect they can make."""
import threading

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.vhostpeer import BackEnd, F, FrontEnd, Memory, P, PeerClosed, PeerTimeout, Req, BASIC


class Pair:
    """A front-end and a back-end; the back-end echoes in a thread."""

    def __init__(self, sock, start="qemu", fe_listens=True, answer=None, offer=BASIC | F.MQ, **kw):
        hdr = kw.get("hdr", 48)
        self.fe = FrontEnd(sock, listen=fe_listens, **kw)
        self.be = BackEnd(sock, listen=not fe_listens, hdr=hdr, features=offer)
        self.be.run_thread(answer or (lambda p: (p.frame, p.header)),
                           rings=2 * kw.get("queues", 1))
        getattr(self.fe, "start_like_" + start)()

    def __enter__(self):
        return self.fe

    def __exit__(self, *exc):
        try:
            self.be.close()
        finally:
            self.fe.close()


@pytest.mark.parametrize("start", ["qemu", "dpdk"])
@pytest.mark.parametrize("fe_listens", [True, False])
@pytest.mark.parametrize("hdr", [48, 12, 10])
def test_echo(sock, start, fe_listens, hdr):
    offer = BASIC | F.MQ if hdr != 10 else BASIC & ~(F.MRG_RXBUF | F.VERSION_1)
    with Pair(sock, start, fe_listens, hdr=hdr, offer=offer) as fe:
        fe.post_rx([16384] * 32)
        for n in range(300):
            fe.send(numbered(n, 26 + n * 7))
            assert check(fe.recv().frame) == n
        fe.wait_sent()


@pytest.mark.parametrize("events", [0, F.EVENT_IDX])
@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("split", [(), (1,), (48,), (10, 38), (1,) * 60, (0, 20, 0, 28), (47, 2)])
def test_layouts(sock, split, indirect, events):
    with Pair(sock, features=BASIC & ~F.EVENT_IDX | events) as fe:
        fe.post_rx([(1, 2, 45, 3, 2000)] * 20, indirect=indirect)
        for n in range(40):
            fe.send(numbered(n, 64 + n), avip.distinct(n), split=split, indirect=indirect)
            pkt = fe.recv()
            assert check(pkt.frame) == n and pkt.header[2:] == avip.distinct(n)[2:]
        fe.wait_sent()


@pytest.mark.parametrize("size", [1, 2, 47, 48, 49, 64, 1500, 16384])
def test_mergeable(sock, size):
    with Pair(sock, ring=4096) as fe:
        fe.post_rx([size] * 4095)
        for n, length in enumerate((26, 60, 1514, 2000 if size < 10 else 12240)):
            fe.send(numbered(n, length))
            pkt = fe.recv()
            assert check(pkt.frame) == n
            assert len(pkt.used) == -(-(length + 48) // size) == pkt.header[0] + 256 * pkt.header[1]


def test_burst_fills_the_ring(sock):
    with Pair(sock) as fe:
        fe.post_rx([2048] * 256)
        for n in range(256):
            fe.send(numbered(n, 60), publish=False)
        fe.tx.publish()
        assert [check(fe.recv().frame) for _ in range(256)] == list(range(256))


def test_control_chain_is_48_bytes(sock):
    with Pair(sock) as fe:
        fe.post_rx([48])
        fe.send(b"", avip.port_id(0x0a000001, 2, 3))
        pkt = fe.recv()
        assert pkt.frame == b"" and pkt.used[0].len == 48 and pkt.header[2] == 1


def test_defects_of_the_seed(sock):
    with FrontEnd(sock) as fe, BackEnd(sock) as be:
        t = threading.Thread(target=fe.start_like_qemu)
        t.start()
        be.wait_started()
        t.join()
        fe.post_rx([100] * 8)
        be.send(numbered(0, 60), wrong_offset=10)
        assert fe.recv().header[10:12] == b"\x02\0"
        be.send(numbered(1, 60), num_buffers=1)
        used = fe.recv_used(2)
        assert used[0].chain.data(fe.memory, 2) == b"\x01\0" and len(used) == 2


@pytest.mark.parametrize("kind", ["drop", "stop"])
def test_restart(sock, kind):
    with Pair(sock) as fe:
        fe.post_rx([2048] * 16)
        for n in range(6):
            for k in range(10):
                fe.send(numbered(n * 10 + k, 90))
                assert check(fe.recv().frame) == n * 10 + k
            fe.wait_sent()
            if kind == "stop":
                assert fe.stop_like_qemu() == [fe.rx.last_used + 0, fe.tx.last_used]
            fe.drop()
            if n % 2:
                fe.start_like_qemu()
            else:
                fe.start_like_dpdk()


def test_queues_and_regions(sock):
    memory = Memory((4 << 20, 8 << 20, 4 << 20), one_fd=True)
    with FrontEnd(sock, queues=3, memory=memory) as fe, \
            BackEnd(sock, protocol=P.MQ | P.REPLY_ACK | P.MEM_SLOTS) as be:
        t = threading.Thread(target=fe.start_like_qemu)
        t.start()
        be.wait_started(rings=6)
        t.join()
        assert (">", Req.ADD_MEM_REG) in fe.channel.log and len(be.memory.regions) == 3
        for q in range(3):
            fe.post_rx([4096] * 100, queue=q)
            fe.send(numbered(q, 200), queue=q)
            be.send(be.recv(queue=q).frame, queue=q)
            assert check(fe.recv(queue=q).frame) == q


def test_identity_addresses(sock):
    with Pair(sock, "dpdk", memory=Memory((8 << 20,), identity=True)) as fe:
        fe.post_rx([2048])
        fe.send(numbered(1, 60))
        assert check(fe.recv().frame) == 1


def test_raw_messages(sock):
    with FrontEnd(sock) as fe, BackEnd(sock) as be:
        be.connect()
        fe.connect()
        one = b"\x01\0\0\0\x01\0\0\0\0\0\0\0"
        fe.channel.send_raw(one * 3, pieces=[1, 3, 5, 10])
        for _ in range(3):
            assert be.handle_message().req == Req.GET_FEATURES
            assert fe.channel.recv().req == Req.GET_FEATURES
        fe.channel.send(Req.SET_OWNER, b"x" * 8, [0] * 9, size=8, flags=0x5)
        msg = be.channel.recv()
        assert len(msg.fds) == 9 and msg.flags == 5
        fe.drop()
        with pytest.raises(PeerClosed):
            be.channel.recv()


def test_lost_call_is_noticed(sock):
    with FrontEnd(sock, features=BASIC & ~F.EVENT_IDX, timeout=0.2) as fe, BackEnd(sock) as be:
        t = threading.Thread(target=fe.start_like_qemu)
        t.start()
        be.wait_started()
        t.join()
        fe.send(numbered(1, 60))
        be.queue(1).call_fd = None
        be.recv()
        fe.sent()
        fe.send(numbered(2, 60))
        with pytest.raises(PeerTimeout):
            fe.wait_sent()
