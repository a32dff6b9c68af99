# SPDX-License-Identifier: BSD-2-Clause
"""A machine without a guest migrates to another QEMU, with several pairs of queues in use: what our back-end wrote after all of the memory
was sent once is on the other side by its dirty log alone.

The test is the card's driver, and QEMU does not see what it writes. So it writes nothing while the memory moves but what publishes the
bursts, and takes the available rings over itself.
"""
import pytest

from lab import avip
from lab.frames import check, numbered
from lab.qtest import MIB, Qemu, VirtioNet
from hostile.victim import until
from interop.port import Echo
from interop.test_migration import Road
from interop.test_qtest import anew

PAIRS, EACH = 4, 24  # what comes back fits into the buffers of one queue
RARP = b"\x80\x35"  # what QEMU announces the card with on the other side; the program echoes it
LOAD = 8 * MIB  # of the machine's memory, from here to half of it: what QEMU knows to be written


def migration(vm):
    """What QEMU says of it: its state, and how often it has asked what was written meanwhile."""
    said = vm.qmp("query-migrate")
    assert said.get("status") != "failed", said
    return said.get("status"), said.get("ram", {}).get("dirty-sync-count", 0)


def send_once(vm, uri, road):
    """Migrate until all memory was sent once, and hold it there: there is too much to send again for it to end. It is written
    over and over while it is sent, so nearly all of it is, however far QEMU had come each time."""
    vm.qmp("migrate-set-parameters", downtime_limit=1)
    vm.qmp("migrate", uri=uri)
    until(lambda: migration(vm)[1] == 1, "the migration's begin")
    while migration(vm)[1] < 2:
        vm.ask("memset", vm.memory.regions[0].gpa + LOAD, LOAD, 0x5a)
        road.allow(1 << 16, patience=1)


def crossing(nic, first):
    """Frames by all queues, which come back by any; the number after the last."""
    for n in range(first, first + PAIRS * EACH):
        nic.send(numbered(n, 60 + n % 1400), avip.distinct(n), queue=n % PAIRS, publish=False)
    for q in nic.queues[1::2]:
        q.publish()
    back = set()
    while len(back) < PAIRS * EACH:
        pkt = nic.recv_any()[1]
        if pkt.frame[12:14] != RARP:
            n = check(pkt.frame)
            assert n >= first and n not in back and pkt.header == avip.distinct(n, mrg=len(pkt.used))
            back.add(n)
    for queue in range(PAIRS):
        nic.wait_sent(queue=queue)
    return first + PAIRS * EACH


@pytest.mark.parametrize("kind", ["unix", "exec"])
@pytest.mark.parametrize("device", ["", ",packed=on"], ids=["split", "packed"])
def test_with_all_queues(sockdir, device, kind):
    """Bursts are echoed while the memory moves; the driver finds all of it on the other side, before anything runs there."""
    a, b, way, path = (str(sockdir / x) for x in "abwr")
    keys = {"queues": PAIRS, "device": ",mq=on" + device}
    with Echo(a, mode="listen", queues=PAIRS) as here, Echo(b, mode="listen", queues=PAIRS) as there, \
            Qemu(a, **keys) as vm, Qemu(b, incoming=way, **keys) as other, VirtioNet(vm) as nic:
        anew(nic)
        nic.set_pairs(PAIRS)
        end = crossing(nic, 0)
        for n in range(end, end + PAIRS * EACH):
            nic.send(numbered(n, 60 + n % 1400), avip.distinct(n), queue=n % PAIRS, publish=False)
        road = Road(path, way)
        send_once(vm, road.uri(kind), road)
        before = [(q.last_used, dict(q.chains)) for q in nic.queues]
        for q in nic.queues[1::2]:
            q.publish()
        done = []
        until(lambda: (done.extend(u for q in nic.queues for u in q.reap()), len(done) == 2 * PAIRS * EACH)[1], "the echoes")
        assert migration(vm)[0] == "active"
        vm.qmp("migrate-set-parameters", downtime_limit=300)
        road.allow()
        until(lambda: migration(vm)[0] == "completed", "the migration", 30)
        until(lambda: other.qmp("query-status")["status"] == "paused", "the other side")
        nic.move(other)
        for q, (last, chains) in zip(nic.queues, before):
            length = q.ring.lengths(q.size)[1]
            other.memory.view(q.gpa[1], length)[:] = vm.memory.view(q.gpa[1], length)
            q.last_used, q.chains = last, chains
        came = [q.reap() for q in nic.queues]
        assert sum(map(len, came[0::2])) == PAIRS * EACH and [len(c) for c in came[1::2]] == [EACH] * PAIRS
        other.qmp("cont")
        back = set()
        for queue in range(PAIRS):
            nic.queues[2 * queue + 1].recycle(came[2 * queue + 1])
            nic.pending[queue] = list(came[2 * queue])
            for _ in came[2 * queue]:
                pkt = nic.recv(queue=queue)
                back.add(check(pkt.frame))
                assert pkt.header == avip.distinct(check(pkt.frame), mrg=1)
        assert back == set(range(end, end + PAIRS * EACH))
        end += PAIRS * EACH
        for _ in range(5):
            end = crossing(nic, end)
        assert here.running and there.running
