# SPDX-License-Identifier: BSD-2-Clause
"""A QEMU guest, Debian's kernel and its virtio-net driver against the responder example under the
preload: ARP and ICMP echo, who listens either way, and the guest killed and started again."""
import pytest

from lab.guest import Guest
from lab.proc import Proc, build, preload_env
from hostile.victim import until
from interop.port import port

PROGRAM_IP, GUEST_IP = "10.9.0.2", "10.9.0.1/24"


class Responder(Proc):
    """The example, answering for PROGRAM_IP on pd0 with a MAC of its own."""

    mac = "02:00:00:00:00:42"

    def __init__(self, path, **keys):
        super().__init__([build("examples/responder"), "pd0", PROGRAM_IP],
                         env=preload_env(port(path, dialect="virtio", mac=self.mac, **keys)))
        self.expect("is ready")


def reach(vm):
    """The guest asks who has the address, and pings it with small and large packets."""
    vm.check(f"arp -d {PROGRAM_IP}; ping -c 3 -i 0.1 -W 10 {PROGRAM_IP}")
    assert Responder.mac in vm.check("arp -n").lower()
    for size in (0, 1, 1400, 1472):
        out = vm.check(f"ping -c 2 -i 0.1 -W 10 -s {size} {PROGRAM_IP}")
        assert "2 packets received" in out


def rings_of(vm):
    """The format of the rings that the guest's driver agreed to."""
    return "packed" if vm.check("cat /sys/bus/virtio/devices/virtio0/features")[34] == "1" else "split"


@pytest.mark.parametrize("rings", ["split", "packed"])
@pytest.mark.parametrize("guest_listens", [True, False], ids=["qemu listens", "we listen"])
def test_guest_is_answered_and_comes_back(sock, guest_listens, rings):
    with Responder(sock, mode="connect" if guest_listens else "listen") as program:
        with Guest(sock, listen=guest_listens, ip=GUEST_IP,
                   device=",packed=on" if rings == "packed" else "") as vm:
            assert rings_of(vm) == rings
            reach(vm)
            vm.check("ifconfig eth0 down; ifconfig eth0 up")
            reach(vm)
            vm.restart()
            reach(vm)
            assert vm.ping(PROGRAM_IP, 10) == 10
        assert program.running and "is not where" not in program.text
        program.terminate()
        assert program.wait() == 0


@pytest.mark.parametrize("mergeable", ["on", "off"])
def test_legacy_guest(sock, mergeable):
    """A device as it was before VIRTIO_F_VERSION_1, whose header is shorter without mergeable buffers."""
    with Responder(sock, mode="listen") as program, \
            Guest(sock, listen=False, ip=GUEST_IP,
                  device=f",disable-modern=on,disable-legacy=off,mrg_rxbuf={mergeable}") as vm:
        features = vm.check("cat /sys/bus/virtio/devices/virtio0/features")
        assert features[32] == "0" and features[15] == str(int(mergeable == "on"))
        reach(vm)
        assert vm.ping(PROGRAM_IP, 10) == 10
        assert program.running


def test_program_comes_back(sock):
    """QEMU does not boot before its first back-end has come; later ones come and go."""
    with Responder(sock, mode="connect") as program, \
            Guest(sock, listen=True, ip=GUEST_IP) as vm:
        reach(vm)
        program.kill()
        for _ in range(2):
            with Responder(sock, mode="connect") as again:
                reach(vm)
                again.kill()


def test_program_comes_back_to_packed_rings(sock):
    """QEMU tells the new back-end a base that was true once. The log says so; a driver that starts anew in
    the guest is served."""
    with Responder(sock, mode="connect") as program, \
            Guest(sock, listen=True, ip=GUEST_IP, device=",packed=on") as vm:
        assert rings_of(vm) == "packed"
        reach(vm)
        program.kill()
        with Responder(sock, mode="connect") as again:
            until(lambda: "is not where the peer says: no frame may move until the peer's driver starts anew" in again.text,
                  "the warning")
            vm.ping(PROGRAM_IP, 2)
            assert again.running
            driver = "/sys/bus/virtio/drivers/virtio_net"
            vm.check(f"echo virtio0 >{driver}/unbind; echo virtio0 >{driver}/bind")
            vm.check("ifconfig eth0 10.9.0.1 netmask 255.255.255.0 up")
            reach(vm)
            assert again.running
