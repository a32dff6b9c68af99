# SPDX-License-Identifier: BSD-2-Clause
"""A card behind QEMU's IOMMU: our back-end asks for translations, QEMU looks them up in the guest's tables and tells them, and takes
them back when the guest's driver does. No guest runs: the test is its drivers, of the card and of the IOMMU. And a guest with Linux."""
import pytest

from lab.guest import Guest
from lab.iommu import INVALIDATE, IOTLB, UPDATE
from lab.qtest import Qemu, VirtioNet
from lab.relay import Relay
from lab.ring import PAGE
from lab.vhostpeer import F, Req
from lab.vtd import Vtd
from interop.port import Echo
from interop.test_guest import GUEST_IP, PROGRAM_IP, Responder, reach, rings_of
from interop.test_migration import both_rings, slow
from interop.test_qtest import EVERY, PACKED, burst, returned, settled

BUFFER = 2112  # what a receive buffer takes of the memory


class Card:
    """All that is between the test and the program."""

    def __init__(self, relay, vm, iommu, nic):
        self.relay, self.vm, self.iommu, self.nic = relay, vm, iommu, nic

    def begin(self):
        """Its driver starts, with rings in the pages that are in order."""
        self.nic.stop()
        self.nic.memory.forget()
        self.nic.start(EVERY | F.ACCESS_PLATFORM)
        assert self.nic.features & F.ACCESS_PLATFORM and self.nic.memory.used[0] < Vtd.RINGS * PAGE
        self.nic.memory.used[0] = Vtd.RINGS * PAGE
        self.nic.post_rx([2048] * 128)

    def told(self, kind):
        """How many translations QEMU has given (UPDATE) or taken back."""
        said = [IOTLB.unpack(m.payload) for side, m in list(self.relay.log) if side == 0 and m.req == Req.IOTLB_MSG]
        return sum(m[4] == kind for m in said)

    def pages(self):
        """Those behind the rings' that were ever used."""
        return range(Vtd.RINGS, (self.iommu.memory.used[0] + PAGE - 1) // PAGE)

    def idle(self):
        """Those with nothing of a chain in them."""
        busy = {p for q in self.nic.queues for c in q.chains.values() for gpa, n, _ in c.segs for p in self.iommu.pages_of(gpa, n)}
        return [p for p in self.pages() if p not in busy]


@pytest.fixture(name="card", params=["", PACKED["device"]], ids=["split", "packed"])
def _card(sockdir, request):
    """A card that echoes behind an IOMMU."""
    front, back = str(sockdir / "f"), str(sockdir / "b")
    with Echo(back, mode="listen", iommu="on") as program, Relay(front, back) as relay, \
            Qemu(front, iommu=True, device=request.param) as vm, Vtd(vm) as iommu, VirtioNet(vm, memory=iommu.memory) as nic:
        card = Card(relay, vm, iommu, nic)
        card.begin()
        yield card
        assert program.running


def test_every_page_is_asked_for(card):
    """Frames go through pages that were never used before."""
    n = 0
    for _ in range(5):
        end = burst(card.nic, n)
        returned(card.nic, n, end)
        n = end
    assert card.told(UPDATE) >= len(card.pages()) > 64 and not card.told(INVALIDATE)


def test_pages_move(card):
    """While a burst is on its way, pages that have nothing of it are taken away and stand elsewhere; then they are used."""
    spare = [card.nic.memory.alloc(BUFFER) for _ in range(128)]
    for gpa in spare:
        card.nic.memory.free(gpa, BUFFER)
    n, moved = 0, set()
    while moved != set(card.pages()):
        end = burst(card.nic, n)
        idle = card.idle()
        card.iommu.move(idle)
        moved.update(idle)
        end = burst(card.nic, end)
        returned(card.nic, n, end)
        card.nic.wait_sent()
        n = end
    assert card.told(INVALIDATE) >= len(moved)
    assert card.told(UPDATE) > 2 * len(moved)


def test_all_is_forgotten(card):
    """All translations are taken back amidst of a burst, of the rings too, and asked for again."""
    n = 0
    for i in range(10):
        end = burst(card.nic, n)
        if i % 2:
            card.iommu.move(card.idle())
        card.iommu.invalidate_all()
        end = burst(card.nic, end)
        returned(card.nic, n, end)
        n = end
    assert card.told(INVALIDATE) >= 10 and card.told(UPDATE) > 5 * 64


def test_drivers_start_anew(card):
    """The card's driver is torn away with frames on their way, or the machine is reset and the IOMMU has its turn first."""
    n = 0
    for reset in (False, True, False, True):
        end = burst(card.nic, n)
        if reset:
            card.vm.reset()
            card.iommu.enable()
            card.nic.find_registers()
        card.begin()
        settled(card.nic, end, n - 1)
        n = burst(card.nic, end + 1)
        returned(card.nic, end + 1, n)


class Behind(Guest):
    """Its kernel has the card behind the IOMMU, and takes the translation of each buffer back when it has been used."""

    def argv(self):
        """See Guest."""
        argv = super().argv()
        argv[argv.index("-append") + 1] += " intel_iommu=on iommu.strict=1"
        first = argv.index("-chardev")
        return argv[:first] + ["-device", "intel-iommu,device-iotlb=on,intremap=off", "-device", "pcie-root-port,id=rp"] + argv[first:]


@slow
@both_rings
def test_linux(sock, rings):
    """With rings of 256, whose parts Linux puts into one page each."""
    device = ",bus=rp,iommu_platform=on,ats=on,disable-legacy=on,rx_queue_size=256" + PACKED["device"] * (rings == "packed")
    with Responder(sock, mode="listen", iommu="on") as program, Behind(sock, listen=False, ip=GUEST_IP, device=device) as vm:
        assert rings_of(vm) == rings and vm.check("cat /sys/bus/virtio/devices/virtio0/features")[33] == "1"
        for _ in range(2):
            reach(vm)
            assert vm.ping(PROGRAM_IP, 20) == 20
            vm.check("ifconfig eth0 down; ifconfig eth0 up")
        assert program.running and "refused" not in program.text
