# SPDX-License-Identifier: BSD-2-Clause
"""The guest against the scripted back-end: ARP and ICMP answered, whoever listens, after a kill."""
import pytest

from lab.frames import mac, responder
from lab.guest import Guest
from lab.vhostpeer import BackEnd


@pytest.mark.parametrize("guest_listens", [True, False])
def test_ping(sock, guest_listens):
    answer = responder("10.9.0.2", mac("02:00:00:00:00:02"))

    def reply(packet):
        frame = answer(packet.frame)
        return frame and (frame, None)
    with BackEnd(sock, listen=not guest_listens, hdr=12, timeout=30) as be:
        be.run_thread(reply)
        with Guest(sock, listen=guest_listens, ip="10.9.0.1/24") as vm:
            assert vm.ping("10.9.0.2") == 3
            assert "02:00:00:00:00:02" in vm.check("arp -n").lower()
            if guest_listens:
                vm.restart()
                assert vm.ping("10.9.0.2") == 3


def test_exit_status_and_output(sock):
    with Guest() as vm:
        assert vm.run("echo one; echo two; false") == (1, "one\ntwo")
        assert "virtio_net" in vm.check("lsmod")
