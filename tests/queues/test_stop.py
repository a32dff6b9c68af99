# SPDX-License-Identifier: BSD-2-Clause
"""A peer stops one pair of queues and starts it again, as it does for one virtqueue's reset, while frames go by the others; and the device
as a whole: its status, its reset, its MTU."""
import pytest

from lab.peer import BASIC
from lab.vhostpeer import BackEnd, F, P, FrontEnd, PeerTimeout, Req
from lab.wire import u64
from interop.port import Echo
from queues.remote import Program
from queues.test_queues import WAIT, Side, numbered, port
from hostile.victim import echoes, returns, stats, until

RESTART = (Req.SET_VRING_NUM, Req.SET_VRING_ADDR, Req.SET_VRING_KICK, Req.SET_VRING_CALL)
STOPPED = 1


def stop(fe, pair):
    """GET_VRING_BASE of both rings of a pair; returns where they stand."""
    return [fe.get_base(2 * pair + ring) for ring in (0, 1)]


def start(fe, pair, bases):
    """As the pair was started first, from where it was stopped."""
    for ring, base in enumerate(bases):
        i = 2 * pair + ring
        for req in RESTART:
            fe.ring_message(req, i)
            if req == Req.SET_VRING_NUM:
                fe.ring_message(Req.SET_VRING_BASE, i, base=base)
    fe.get_features()  # all that is taken in


def came_by(side, cls, n, queues):
    """The queue by which the frame came, looking at these; none is an error."""
    for _ in range(200):
        for q in queues:
            try:
                if side.recv(q, 0.05) == (cls, n):
                    return q
            except PeerTimeout:
                pass
    raise AssertionError(f"frame {n} came by none of {queues}")


@pytest.mark.parametrize("how", ["base", "enable and base"])
def test_one_pair_stops_under_traffic(sock, how):
    """Its frames go by another meanwhile; the others neither stop nor lose anything, in both directions; what was queued for the
    program on the stopped pair comes when it is started."""
    with Side("frontend", sock, 3) as side, Program(port(sock, 3), **WAIT) as p:
        fe = side.peer
        p.ask("s = packet('pd0')")
        early = p.ask("blocked(put, s, 0, 0)")
        assert side.start(p, early) == 64 and side.recv(0) == (0, 0)
        n = 0
        for _ in range(4):
            if how != "base":
                for ring in (2, 3):
                    fe.ring_message(Req.SET_VRING_ENABLE, ring, on=0)
            bases = stop(fe, STOPPED)
            kept = []
            for _ in range(40):
                n += 1
                for queue in (0, 2):  # both ways on both that go on
                    assert p.ask(f"put(s, {queue}, {n})") == 64
                    assert side.recv(queue) == (queue, n)
                    fe.send(numbered(n), queue=queue)
                    assert p.ask("take(s)") == n
                if n % 10 == 0:
                    assert p.ask(f"put(s, {STOPPED}, {n})") == 64
                    assert came_by(side, STOPPED, n, (0, 2)) != STOPPED
                    fe.send(numbered(100000 + n), queue=STOPPED)
                    kept.append(100000 + n)
            assert p.ask("pending(s)") == 0
            if how != "base":  # first: a ring that is started while it is disabled discards what is there
                for ring in (2, 3):
                    fe.ring_message(Req.SET_VRING_ENABLE, ring, on=1)
            start(fe, STOPPED, bases)
            fe.queues[2 * STOPPED + 1].kick()
            assert [p.ask("take(s)") for _ in kept] == kept
            # Not before the port has waited for more queues to come.
            for _ in range(2000):
                n += 1
                assert p.ask(f"put(s, {STOPPED}, {n})") == 64
                if came_by(side, STOPPED, n, (STOPPED, 0, 2)) == STOPPED:
                    break
            else:
                raise AssertionError("the pair is not used again")
        counters = stats(p.popen.pid)["port"][0]["counters"]
        assert counters["disconnects"] == 0 and counters["protocol_errors"] == 0


def test_reset_device(sock):
    """Everything stops, with its reason; the same connection starts it again."""
    with FrontEnd(sock, protocol=P.MQ | P.REPLY_ACK | P.STATUS | P.RESET_DEVICE) as fe, Echo(sock) as program:
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        echoes(fe)
        for _ in range(3):
            fe.channel.send(Req.RESET_DEVICE)
            assert fe.get_u64(Req.GET_STATUS) == 0
            port0 = until(lambda: next((q for q in stats(program.pid)["port"] if q["state"] == "down"), None), "the stop")
            assert port0["reason"] == "the peer stopped its rings"
            fe.reset_rings()
            fe.each_ring(Req.SET_VRING_ENABLE)
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            echoes(fe)
        assert stats(program.pid)["port"][0]["counters"]["protocol_errors"] == 0


def test_status_is_kept_and_told(sock):
    with FrontEnd(sock, protocol=P.MQ | P.REPLY_ACK | P.STATUS) as fe, Echo(sock):
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        assert fe.get_u64(Req.GET_STATUS) == 0xf
        for value in (0xb, 0x8f, 0, 0xff):
            fe.set_status(value)
            assert fe.get_u64(Req.GET_STATUS) == value
        with pytest.raises(AssertionError, match="refused"):
            fe.acked(Req.SET_STATUS, u64(0x100))
        assert fe.get_u64(Req.GET_STATUS) == 0xff
        echoes(fe)


def test_mtu_of_the_peer(sock):
    """Taken where an Ethernet may have it, refused elsewhere; it changes nothing for frames of the port's own."""
    with FrontEnd(sock, protocol=P.MQ | P.REPLY_ACK | P.NET_MTU) as fe, Echo(sock) as program:
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        for mtu in (68, 1500, 9000, 65535):
            fe.acked(Req.NET_SET_MTU, u64(mtu))
        for mtu in (0, 67, 65536, 1 << 63):
            with pytest.raises(AssertionError, match="refused"):
                fe.acked(Req.NET_SET_MTU, u64(mtu))
        echoes(fe)
        until(lambda: "the peer's MTU is 9000, this port's is 12226" in program.text, "the line")


def test_a_front_end_tells_its_mtu(sock):
    """To a peer that wants it by both its features; one that comes next and does not gets the same rings."""
    told, both = [], BASIC | F.MTU
    with BackEnd(sock, listen=True, features=both, protocol=P.REPLY_ACK | P.NET_MTU) as be, Echo(sock, role="frontend") as program:
        be.instead[Req.NET_SET_MTU] = lambda _, msg: told.append(msg.u64)
        for features, protocol in ((both, P.NET_MTU), (BASIC, P.NET_MTU), (both, P.REPLY_ACK), (both, P.NET_MTU)):
            be.offer, be.offer_protocol = features, protocol
            be.drop()
            be.wait_started()
            returns(be)
        assert told == [12226, 12226]
        assert "other features" not in program.text
