# SPDX-License-Identifier: BSD-2-Clause
"""The scripted peers against DPDK: what both agree on is what our own ends are measured by."""
import pytest

from lab.frames import check, numbered
from lab.testpmd import Testpmd
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("start", ["qemu", "dpdk"])
def test_front_end_against_vhost(sock, client, start):
    """Frames that net_vhost forwards come back unchanged; after a restart too."""
    with FrontEnd(sock, listen=client, hdr=12, timeout=20) as fe, \
            Testpmd.vhost(sock, client=client) as pmd:
        pmd.forward("io")
        for round_ in range(2):
            getattr(fe, "start_like_" + start)()
            if not round_:
                fe.post_rx([2048] * 200)
            for n in range(200):
                fe.send(numbered(n, 60 + n * 7))
                assert check(fe.recv().frame) == n
            fe.wait_sent()
            fe.drop()
        pmd.halt()  # the counters follow the frames
        assert pmd.stats()["tx_packets"] == 400


def test_mergeable_buffers_of_vhost(sock):
    with FrontEnd(sock, listen=False, hdr=12, timeout=20) as fe, Testpmd.vhost(sock) as pmd:
        fe.start_like_dpdk()
        pmd.forward("io")
        fe.post_rx([100] * 200)
        for n in range(100):
            fe.send(numbered(n, 600), split=[12, 50])
            pkt = fe.recv()
            assert check(pkt.frame) == n and len(pkt.used) == 7


@pytest.mark.parametrize("mrg", [True, False])
@pytest.mark.parametrize("server", [False, True])
def test_back_end_against_virtio_user(sock, server, mrg):
    """Frames that virtio-user forwards come back unchanged; after a restart of it too."""
    with BackEnd(sock, listen=not server, hdr=12, timeout=60) as be:
        for _ in range(2):
            with be.serving():
                pmd = Testpmd.virtio_user(sock, server=server, mrg_rxbuf=mrg,
                                              mbuf_size=1024 if mrg else 2176)
            with pmd:
                pmd.forward("io")
                be.wait_started()
                assert bool(be.features & F.MRG_RXBUF) == mrg
                for n in range(200):
                    be.send(numbered(n, 60 + n * (7 if mrg else 1)))
                    assert check(be.recv().frame) == n
                be.drop()


def test_txonly_sizes(sock):
    with BackEnd(sock, listen=True, hdr=10, timeout=60,
                 features=BASIC & ~(F.MRG_RXBUF | F.VERSION_1)) as be:
        with be.serving():
            pmd = Testpmd.virtio_user(sock, mrg_rxbuf=False)
        with pmd:
            be.wait_started()
            pmd.forward("txonly", txpkts="64,100,200")
            assert {len(be.recv().frame) for _ in range(100)} == {364}
