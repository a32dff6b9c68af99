# SPDX-License-Identifier: BSD-2-Clause
"""Open vSwitch with DPDK against a program under the preload, contents checked in both directions:

    scripted front-end -- dpdkvhostuserclient [switch] dpdkvhostuser or ...client -- program (front-end)

The switch forwards between its two ports and the program echoes.
"""
import pytest

from lab.frames import check, numbered
from lab.ovs import Switch, client, server
from lab.vhostpeer import FrontEnd
from interop.port import Echo
from interop.test_testpmd import LENGTHS, crossing


def settle(fe, first):
    """The switch drops frames while a port's link comes up, and keeps the order: go on until the last one comes back."""
    for n in range(first, first + 200):
        fe.send(numbered(n, 60))
        try:
            while check(fe.recv(timeout=0.2).frame) != n:
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
