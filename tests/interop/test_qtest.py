# SPDX-License-Identifier: BSD-2-Clause
"""QEMU without a guest, whose card the test drives, against a program under the preload."""
import pytest

from lab import avip
from lab.frames import check, numbered
from lab.qtest import MsixNet, Qemu, VirtioNet
from lab.relay import Relay
from lab.ring import drain_eventfd, wait_fds
from lab.vhostpeer import BASIC, F, P
from hostile.victim import until
from interop.port import Echo, echoes

EVERY = BASIC | F.STATUS | F.RING_PACKED | F.CTRL_VQ | F.MQ
LENGTHS = [26, 60, 1514, 9014, 12240]


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
@pytest.mark.parametrize("qemu_listens", [True, False], ids=["qemu listens", "we listen"])
def test_echo(sock, qemu_listens, accel):
    with Echo(sock, mode="connect" if qemu_listens else "listen"), \
            Qemu(sock, listen=qemu_listens, accel=accel) as vm, VirtioNet(vm) as nic:
        nic.start()
        nic.post_rx([2048] * 64)
        echoes(nic, LENGTHS * 10)
        assert all(u.len == 0 for u in nic.wait_sent())


PACKED = {"device": ",packed=on"}
both_rings = pytest.mark.parametrize("nic", [{}, PACKED], ids=["split", "packed"], indirect=True)


def anew(nic, features=EVERY):
    """The driver starts anew."""
    nic.start(features)
    for queue in range(nic.pairs if nic.features & F.MQ else 1):
        nic.post_rx([2048] * 128, queue)


@pytest.fixture
def nic(sock, request):
    """A card that echoes, its driver started. request.param: more for Qemu, by name."""
    keys = getattr(request, "param", {})
    with Echo(sock, mode="listen", queues=keys.get("queues", 1), env={"PALLADIUM_SEND_WHEN_DOWN": "wait"}) as program, \
            Qemu(sock, **keys) as vm, VirtioNet(vm) as nic:
        anew(nic)
        yield nic
        assert program.running


def burst(nic, first, count=64):
    """Frames that are not waited for; the number after the last."""
    for n in range(first, first + count):
        nic.send(numbered(n, 60 + n % 1400), avip.distinct(n), publish=False)
    nic.tx.publish()
    return first + count


def returned(nic, first, end):
    """All of them come back, in order and as they were."""
    for n in range(first, end):
        pkt = nic.recv()
        assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=len(pkt.used))


def settled(nic, last, seen):
    """Of what was sent up to `last`, whose turn it is, frames come back in order though some may be lost: `last` itself
    is sent until it comes. seen: the number of one that came, or one less than the first."""
    nic.send(numbered(last, 60), avip.distinct(last))
    while seen != last:
        pkt = nic.recv()
        n = check(pkt.frame)
        assert seen < n <= last and pkt.header == avip.distinct(n, mrg=len(pkt.used))
        seen = n


@both_rings
def test_stop_and_go_on(nic):
    """Nothing is lost."""
    first = 0
    for _ in range(10):
        end = burst(nic, first)
        nic.vm.qmp("stop")
        end = burst(nic, end)
        nic.vm.qmp("cont")
        returned(nic, first, end)
        first = end


@both_rings
def test_link(nic):
    """QEMU takes the rings back while the link is down, and throws away what is sent; then it goes on behind that. Not
    with packed rings, which QEMU 7.2 takes to be elsewhere then, and dies."""
    first = 0
    for _ in range(5):
        end = burst(nic, first)
        nic.vm.qmp("set_link", name="n0", up=False)
        nic.wait_link(False)
        if not nic.features & F.RING_PACKED:
            nic.send(numbered(1 << 20, 60), avip.distinct(0))
            nic.tx.kick()
            nic.wait_sent()
        nic.vm.qmp("set_link", name="n0", up=True)
        nic.wait_link(True)
        settled(nic, end, first - 1)
        echoes(nic, LENGTHS, end + 1)
        first = end + 1 + len(LENGTHS)


@both_rings
def test_reset_and_another_driver(nic):
    """The driver is torn away with frames on their way, and the next one has other features, or the machine is reset."""
    first = 0
    for features in (EVERY & ~F.RING_PACKED, EVERY & ~(F.EVENT_IDX | F.INDIRECT), EVERY, None, EVERY, None):
        end = burst(nic, first)
        if features is None:
            nic.vm.reset()
            nic.find_registers()
        elif features == EVERY:
            nic.stop()
        anew(nic, features or EVERY)
        settled(nic, end, first - 1)
        echoes(nic, LENGTHS, end + 1)
        first = end + 1 + len(LENGTHS)


@pytest.mark.parametrize("nic", [{"queues": n, "device": ",mq=on"} for n in (2, 5, 8)], ids=["2", "5", "8"], indirect=True)
def test_queue_pairs(nic):
    """The driver has QEMU enable as many as it likes: frames go by each of these and come back by each of these."""
    assert nic.features & F.MQ and nic.pairs > 1
    n = 0
    for pairs in (1, nic.pairs, 2, 1, nic.pairs):
        nic.set_pairs(pairs)
        nic.vm.qmp("stop")  # QEMU does not ask whether the back-end has heard of it; of this it does
        nic.vm.qmp("cont")
        used = set()
        for _ in range(20):
            for queue in range(pairs):
                nic.send(numbered(n, 60 + n % 1400), avip.distinct(n), queue=queue)
                back, pkt = nic.recv_any()
                assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=len(pkt.used))
                used.add(back)
                n += 1
        assert used == set(range(pairs))


@pytest.mark.parametrize("without", [0, P.MEM_SLOTS], ids=["region by region", "whole tables"])
@pytest.mark.parametrize("device", ["", PACKED["device"]], ids=["split", "packed"])
def test_memory_comes_and_goes(sockdir, device, without):
    """The memory changes while frames are on their way: the next ones are in what came, nothing is in what goes. In the end the rings
    are there, too. QEMU tells of it by ADD_MEM_REG and REM_MEM_REG, or by SET_MEM_TABLE where the back-end knows no other."""
    front, back = str(sockdir / "f"), str(sockdir / "b")
    with Echo(back, mode="listen") as program, Relay(front, back, without=without) as relay, \
            Qemu(front, device=device) as vm, VirtioNet(vm) as nic:
        anew(nic)
        first, old = 0, ""
        for name in "abcd":
            end = burst(nic, first)
            vm.plug_memory(name, 32)
            end = burst(nic, end)
            returned(nic, first, end)
            nic.wait_sent()
            assert all(vm.memory.is_newest(gpa) for c in nic.rx.chains.values() for gpa, *_ in c.segs)
            first, end = end, burst(nic, end)
            if old:
                vm.unplug_memory(old)
            end = burst(nic, end)
            returned(nic, first, end)
            first, old = end, name
        said = [w.split("!")[0] for w in relay.words()]
        assert [said.count(w) for w in ("ADD_MEM_REG", "REM_MEM_REG")] == [0, 0] if without else [5, 3], said
        assert said.count("SET_MEM_TABLE") == (8 if without else 0), said
        anew(nic)
        assert all(vm.memory.is_newest(gpa) for q in nic.queues for gpa in q.gpa)
        returned(nic, first, burst(nic, first))
        assert program.running


@pytest.mark.parametrize("device", ["", PACKED["device"]], ids=["split", "packed"])
def test_vectors_are_masked(sock, device):
    """MSI-X, which KVM takes from the call descriptors while a vector is not masked: it is masked and unmasked while frames come, and a
    call that was given meanwhile is not lost."""
    with Echo(sock, mode="listen") as program, \
            Qemu(sock, accel="kvm", interrupts=True, device=",vectors=8" + device) as vm, MsixNet(vm) as nic:
        anew(nic)
        end = 0
        for _ in range(20):
            first, end = end, burst(nic, end)
            for n in range(first, end):
                nic.mask(n % 2, True)
                nic.sent()
                nic.mask(n % 2, False)
                returned(nic, n, n + 1)
            nic.wait_sent()
            for i, q in enumerate(nic.queues):
                nic.mask(i, True)
                drain_eventfd(q.call_fd)
                q.suppress_calls(False)
            first, end = end, burst(nic, end, 20)
            until(lambda: all(q.completed() for q in nic.queues), "frames while all is masked")
            for i, q in enumerate(nic.queues):
                nic.mask(i, False)
                assert wait_fds([q.call_fd], nic.timeout), f"the call of queue {i} is lost"
            returned(nic, first, end)
            nic.wait_sent()
        assert program.running
