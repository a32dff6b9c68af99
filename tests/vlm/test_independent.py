# SPDX-License-Identifier: BSD-2-Clause
"""palladium_vlm against back-ends that share no code with it: testpmd's, and the scripted one."""
import pytest

from lab import avip
from lab.proc import Proc
from lab.testpmd import Testpmd, vhost
from lab.vhostpeer import BackEnd
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


@pytest.mark.parametrize("mode", ["listen", "connect"])
def test_scripted_peer(sock, mode):
    """Header layout and control messages as the written description has them; the echo is
    byte-identical."""
    seen = []

    def answer(packet):
        seen.append(packet)
        return (packet.frame, packet.header) if packet.frame else None

    args = vlm(sock, "--frames", 300, "--size", "60-1514", "--expect", "echo", "--chassis",
               "10.1.2.3", "--card", 4, "--first-port", 5, "--flags", "CRC_ERROR,0x8000000000000000",
               "--control", "PORT_PAUSED,CLEARED_STATS", mode=mode)
    with BackEnd(sock, listen=mode == "connect", hdr=48, timeout=30) as be:
        be.run_thread(answer)
        with Proc(args) as p:
            assert p.wait(60) == 0, p.text
        be.stop_thread()
    assert failures(report(p.text)) == {}
    hello, event, *frames = seen
    assert hello.header == avip.port_id(0x0a010203, 4, 5) and not hello.frame
    assert event.header == avip.control("PORT_PAUSED|CLEARED_STATS") and not event.frame
    assert len(frames) == 300
    fields = [avip.parse(f.header) for f in frames]
    want = sum(avip.FLAGS[n] for n in ("IFG", "PREAMBLE", "FCS", "CRC_ERROR")) | 1 << 63
    assert {f["flags"] for f in fields} == {want}
    assert {f["generic"] for f in fields} == {0} and {f["pfc"] for f in fields} == set(range(8))
    for name in ("time", "preamble", "fcs", "reserved", "latency"):
        assert len({f[name] for f in fields}) == 300, name
