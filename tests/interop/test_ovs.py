# SPDX-License-Identifier: BSD-2-Clause
"""Open vSwitch with DPDK against a program under the preload, contents checked in both directions:

    scripted front-end -- dpdkvhostuserclient [switch] dpdkvhostuser or ...client -- program (front-end)
    scripted front-end == dpdkvhostuserclient [switch] ...client or virtio-user == program (front-end, back-end), several queues

The switch forwards between its two ports and the program echoes.
"""
import struct

import pytest

from lab.frames import check, eth, ipv4, numbered
from lab.ovs import Switch, client, server, user
from lab.vhostpeer import BASIC, F, FrontEnd
from hostile.victim import stats
from interop.port import Echo
from interop.test_testpmd import LENGTHS, crossing


def settle(fe, first, make=lambda n: numbered(n, 60), back=None):
    """The switch drops frames while a port's link comes up, and keeps the order: go on until the last one comes back. make: a frame of
    this number; back: receives one, with a timeout, and returns its number."""
    back = back or (lambda timeout: check(fe.recv(timeout).frame))
    for n in range(first, first + 200):
        fe.send(make(n))
        try:
            while back(0.2) != n:
                pass
            return
        except TimeoutError:
            pass
    raise AssertionError("nothing comes back through the switch")


@pytest.mark.parametrize("rings", ["split", "packed"])
@pytest.mark.parametrize("mode", ["connect", "listen"])
def test_frames_cross_it(sockdir, mode, rings):
    inner, outer = str(sockdir / "inner"), str(sockdir / ("p2" if mode == "connect" else "outer"))
    with FrontEnd(inner, hdr=12, timeout=20) as fe, \
            Switch(sockdir, [client(inner), server() if mode == "connect" else client(outer)]) as ovs:
        fe.start_like_qemu()
        fe.post_rx([2048] * 128)
        for n in range(2):
            with Echo(outer, mode=mode, role="frontend", dialect="virtio", format=rings) as program:
                settle(fe, 1000 * n)
                crossing(fe, LENGTHS * 20, 1000 * n + 500)
                program.kill()
        assert ovs.daemon.running


FLOWS, QUEUES = 64, 4


def datagram(n):
    """A numbered frame over UDP, of the flow whose turn it is."""
    data = numbered(n, 60 + n % 1300)
    return eth(b"\2\0\0\0\0\2", b"\2\0\0\0\0\1", 0x800,
               ipv4("10.7.0.1", "10.7.0.2", 17, struct.pack("!HHHH", 1000 + n % FLOWS, 2000, 8 + len(data), 0) + data))


def come_back(fe, timeout):
    """The number of a datagram that came back by any queue, and which."""
    queue, packet = fe.recv_any(timeout)
    n = check(packet.frame[42:])
    assert packet.frame == datagram(n)
    return n, queue


@pytest.mark.parametrize("role", ["frontend", "backend"])
def test_flows_spread_over_queues(sockdir, role):
    """Flows spread over the queues in each of the four crossings, and each keeps to its own. (To a device that listens the switch sends by as
    many queues as it has threads, which are three on two cores.)"""
    inner, outer = str(sockdir / "inner"), str(sockdir / "outer")
    with FrontEnd(inner, hdr=12, timeout=20, queues=QUEUES, features=BASIC | F.MQ) as fe, \
            Echo(outer, mode="listen", role=role, dialect="virtio", queues=QUEUES) as program, \
            Switch(sockdir, [client(inner), client(outer) if role == "frontend" else user(outer, QUEUES)], cores=(0, 1)) as ovs:
        fe.start_like_qemu()
        for queue in range(QUEUES):
            fe.post_rx([2048] * 100, queue)
        for flow in range(FLOWS):
            settle(fe, 1000 * (1 + flow), lambda n: datagram(n * FLOWS + flow), lambda timeout: come_back(fe, timeout)[0] // FLOWS)
        used = set()
        for first in range(0, 40 * FLOWS, FLOWS):
            for n in range(first, first + FLOWS):
                fe.send(datagram(n), queue=n % QUEUES, publish=n % FLOWS >= FLOWS - QUEUES)
            back = [come_back(fe, 20) for _ in range(FLOWS)]
            assert sorted(n for n, _ in back) == list(range(first, first + FLOWS))
            used |= {(n % FLOWS, queue) for n, queue in back}
        assert len(used) == FLOWS and {queue for _, queue in used} == set(range(QUEUES))
        lanes = [lane["counters"] for lane in stats(program.pid)["lane"]]
        assert len(lanes) == QUEUES and all(lane["tx_frames"] for lane in lanes), lanes
        assert sum(lane["rx_frames"] > 0 for lane in lanes) >= (QUEUES if role == "frontend" else 2), lanes
        assert ovs.daemon.running
