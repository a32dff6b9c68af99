# SPDX-License-Identifier: BSD-2-Clause
"""palladium_vlm against testpmd's back-end, which shares no code with it."""
import pytest

from lab.proc import Proc
from lab.testpmd import Testpmd, vhost
from test_vlm import failures, report, vlm


@pytest.mark.parametrize("size", ["60", "imix"])
@pytest.mark.parametrize("queues", [1, 2])
def test_testpmd_sends_back(sock, size, queues):
    """testpmd connects to us and forwards its one port to itself. Left alone it would throw away
    what came before it was told to forward."""
    with Proc(vlm(sock, "--frames", 20000, "--dialect", "virtio", "--size", size, "--queues",
                  queues)) as p:
        with Testpmd([vhost(sock, client=True, queues=queues)],
                     args=(f"--rxq={queues}", f"--txq={queues}", "--no-flush-rx")) as pmd:
            pmd.forward("io")
            assert p.wait(120) == 0, p.text
        r = report(p.text)
    assert (failures(r), r["returned"]) == ({}, 20000)


def test_testpmd_listens(sock):
    with Testpmd([vhost(sock)], args=("--no-flush-rx",)) as pmd:
        pmd.forward("io")
        with Proc(vlm(sock, "--frames", 20000, "--dialect", "virtio", mode="connect")) as p:
            assert p.wait(120) == 0, p.text
        assert failures(report(p.text)) == {}
        assert pmd.stats()["rx_packets"] == 20000
