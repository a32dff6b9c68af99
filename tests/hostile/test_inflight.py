# SPDX-License-Identifier: BSD-2-Clause
"""What is in flight when a back-end dies, or a back-end before ours did, and memory for that which cannot be right."""
import contextlib
import fcntl
import os
import struct

import pytest

from lab.frames import check, numbered
from lab.hugepages import count, hugepages
from lab.inflight import DESCRIPTION, Keeper, Kept, PackedRegion
from lab.packedring import avail_bits, used_bits
from lab.peer import BASIC
from lab.proc import Proc, preload_env
from lab.vhostpeer import F, FrontEnd, PeerClosed, Req
from hostile.test_kill import RECEIVER, START, frame, numbers_in
from hostile.victim import Victim, serves, until

SIZE = 64
FEATURES = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FEATURES)
PEEKER = START + """
print("sees", struct.unpack_from("!I", s.recv(4096, socket.MSG_PEEK), 14)[0], flush=True)
time.sleep(600)
"""


def keeper(sock, fmt, **how):
    return Keeper(sock, features=FEATURES[fmt], ring=SIZE, **how)


def program(code, sock):
    p = Proc(["/usr/bin/python3", "-c", code], env=preload_env(f"pd0=vhost-user:{sock},role=backend"))
    p.expect("ready\n")
    return p


def post(fe, first, count):
    """Frames with these numbers, one descriptor each; returns what each of them is known by."""
    return [fe.send(frame(n)) for n in range(first, first + count)]


def at_rest(fe, fmt, i):
    """Nothing is in flight on ring i, and its region says where the ring stands."""
    region, q = fe.kept.queue(i, fmt == "packed"), fe.queues[i]
    assert (region.version, region.desc_num) == (1, SIZE)
    assert region.in_flight(q.ring) == []
    if fmt == "split":
        assert region.used_idx == q.ring.used_idx
        return
    assert region.used_idx == region.old_used_idx == q.last_used % SIZE
    assert region.used_wrap == region.old_used_wrap == 1 - q.last_used // SIZE % 2
    assert region.free_head == region.old_free_head


@formats
def test_memory_is_made_and_kept_up(sock, fmt):
    """The first answer is sealed memory of the right size; frames of every shape leave nothing behind in it."""
    with keeper(sock, fmt) as fe, Victim(sock):
        fe.start_like_qemu()
        assert fe.kept.size == 2 * fe.kept.queue(0, fmt == "packed").bytes(SIZE)
        assert fcntl.fcntl(fe.kept.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        fe.post_rx([2048] * 20 + [(512, 600)] * 10)
        for n in range(300):
            fe.send(numbered(n, 60 + 17 * (n % 90)), split=[10, 38] if n % 3 else [])
            assert check(fe.recv().frame) == n
        fe.wait_sent()
        fe.tx.reap()
        for i in range(2):
            at_rest(fe, fmt, i)
        bases = fe.stop_like_qemu()
        assert bases == [q.base() for q in fe.queues]
        for i in range(2):
            at_rest(fe, fmt, i)
        fe.start_like_qemu()
        serves(fe, 300)


def test_memory_is_no_huge_pages(sock):
    """A peer that asks again and again, and keeps what it got, takes none of the system's huge pages."""
    with hugepages(24), FrontEnd(sock) as fe, Victim(sock, env={"PALLADIUM_MEM_ALLOC_TYPE": "hugepages"}):
        fe.connect_like_qemu()
        before, kept = count("free_hugepages"), []
        for _ in range(16):
            kept += fe.channel.request(Req.GET_INFLIGHT_FD, struct.pack("<QQHHI", 0, 0, 2, 32768, 0)).fds
        assert len(kept) == 16
        left = count("free_hugepages")
        for fd in kept:
            os.close(fd)
        assert left == before


@formats
def test_without_padding(sock, fmt):
    """Some front-ends send the description without the four bytes that end it in C."""
    with keeper(sock, fmt) as fe, Victim(sock) as p:
        fe.connect_like_qemu()
        fe.kept = fe.ask(2, SIZE, b"")
        fe.channel.send(Req.SET_INFLIGHT_FD, fe.kept.description()[:20], [fe.kept.fd])
        serves_now(fe)
        assert p.errors() == 0


def serves_now(fe):
    """Start with what it has, on rings of a new driver."""
    fe.reset_rings()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)
    serves(fe)


@formats
def test_killed_with_frames_in_flight(sock, fmt):
    """A program is killed that has seen a frame and not taken it: the memory says so, and the next program gets it, once, and first."""
    with keeper(sock, fmt) as fe:
        with program(PEEKER, sock) as p:
            fe.start_like_qemu()
            post(fe, 0, 40)
            p.expect("sees 0")
            held = fe.kept.queue(1, fmt == "packed").in_flight(fe.tx.ring)
            assert held and len(held) <= 40
            os.kill(p.pid, 9)
            p.wait()
        fe.drop()
        assert fe.kept.queue(1, fmt == "packed").in_flight(fe.tx.ring) == held
        with program(RECEIVER, sock) as p:
            fe.start_like_qemu()
            post(fe, 40, 10)
            until(lambda: len(numbers_in(p)) >= 50, "the frames")
            assert numbers_in(p) == list(range(50))
        fe.wait_sent()
        at_rest(fe, fmt, 1)


def test_older_device_out_of_order(sock):
    """A device before ours took six frames, gave back the second, fourth and fifth, and died: 0, 2 and 5 come first, then 6 and 7. Our
    program is killed amidst of that, too."""
    with keeper(sock, "split") as fe:
        fe.kept = Kept.make(2, SIZE)
        heads = post(fe, 0, 8)
        region = fe.kept.queue(1)
        region.version, region.desc_num = 1, SIZE
        for i, n in enumerate((1, 4, 3)):
            fe.tx.ring.set_done(i, 0, heads[n])
        fe.tx.ring.used_idx = region.used_idx = 3
        fe.tx.recycle(fe.tx.reap())
        region.hold(*(heads[n] for n in (0, 2, 5)), first=77)
        post(fe, 8, 3)  # over the entries and descriptors of those that were given back
        with program(PEEKER, sock) as p:
            fe.start_like_qemu()
            p.expect("sees 0")
            os.kill(p.pid, 9)
            p.wait()
        fe.drop()
        assert region.in_flight(fe.tx.ring)[:3] == [heads[n] for n in (0, 2, 5)]
        with program(RECEIVER, sock) as p:
            fe.start_like_qemu()
            until(lambda: len(numbers_in(p)) >= 8, "the frames")
            assert numbers_in(p) == [0, 2, 5, 6, 7, 8, 9, 10]
        fe.wait_sent()
        at_rest(fe, "split", 1)


def test_older_device_died_in_a_batch(sock):
    """It published two used elements and had not struck them out: they are found by the list of the last batch."""
    with keeper(sock, "split") as fe:
        fe.kept = Kept.make(2, SIZE)
        heads = post(fe, 0, 4)
        region = fe.kept.queue(1)
        region.version, region.desc_num = 1, SIZE
        region.hold(*heads[:3])
        region.last_batch_head = heads[1]
        region.set(heads[1], 1, heads[0], 1)
        for i in range(2):
            fe.tx.ring.set_done(i, 0, heads[i])
        fe.tx.ring.used_idx = 2
        with program(RECEIVER, sock) as p:
            fe.start_like_qemu()
            until(lambda: len(numbers_in(p)) >= 2, "the frames")
            assert numbers_in(p) == [2, 3]
            at_rest(fe, "split", 1)


def hold_packed(fe, chains):
    """Chains [(address, length), ...] with their ids, in flight in this order, on a fresh region; returns it."""
    region, e = fe.kept.queue(1, True), 0
    region.desc_num = SIZE
    region.fresh()
    for counter, (ident, rows) in enumerate(chains):
        first = e
        for k, (addr, length) in enumerate(rows):
            more = k + 1 < len(rows)
            region.set(e, 1 if k == 0 else 0, e + 1, first + len(rows) - 1 if k == 0 else 0,
                       len(rows) if k == 0 else 0, counter, ident, avail_bits(0, SIZE) | more, length, addr)
            e += 1
    region.free_head = region.old_free_head = e
    return region


@pytest.mark.parametrize("published", [False, True], ids=["rolled back", "committed"])
def test_older_packed_device_died_in_a_batch(sock, published):
    """It had taken four chains, one of three descriptors, and written used elements over the first two, of which the one that publishes
    them last. Nothing is in the ring any more of what it overwrote; the memory has it."""
    with keeper(sock, "packed") as fe:
        fe.kept = Kept.make(2, SIZE, packed=True)
        ids = [fe.send(frame(0)), fe.send(frame(1), split=[10, 38]), fe.send(frame(2)), fe.send(frame(3))]
        chains = [(i, [(a, n) for a, n, _ in fe.tx.chains[i].segs]) for i in ids]
        region = hold_packed(fe, chains)
        # Two chains of four slots together are being given back.
        region.set(3, *(region.entry(3)[:1]), 4, *region.entry(3)[2:])
        region.used_idx, region.free_head = 4, 1
        fe.tx.ring.set_done(1, 0, ids[1])
        fe.tx.ring.set_flags(1, used_bits(1, SIZE))
        if published:
            region.set(0, *region.entry(0)[:1], 6, *region.entry(0)[2:])
            region.set(3, region.entry(3)[0], 0, *region.entry(3)[2:])
            fe.tx.ring.set_done(0, 0, ids[0])
            fe.tx.ring.set_flags(0, used_bits(0, SIZE))
        want = [2, 3] if published else [0, 1, 2, 3]
        assert len(region.in_flight(fe.tx.ring)) == len(want)
        with program(RECEIVER, sock) as p:
            fe.start_like_qemu()
            until(lambda: len(numbers_in(p)) >= len(want), "the frames")
            fe.wait_sent()
            post(fe, 4, 2)
            until(lambda: len(numbers_in(p)) >= len(want) + 2, "the frames")
            assert numbers_in(p) == want + [4, 5]
        fe.wait_sent()
        at_rest(fe, "packed", 1)


# --- memory that cannot be right -------------------------------------------------------------------

def kept(packed=False, queues=2, size=SIZE):
    """As a back-end before ours may have left it: nothing in flight."""
    memory = Kept.make(queues, size, packed)
    for i in range(queues):
        region = memory.queue(i, packed)
        region.version, region.desc_num = 1, size
        if packed:
            region.fresh()
    return memory


def raw(size=None, offset=0, queues=2, queue_size=SIZE, length=None):
    """SET_INFLIGHT_FD with any numbers over a file of any length."""
    def send(fe):
        n = 2 * PackedRegion.bytes(SIZE) if size is None else size
        fd = os.memfd_create("raw")
        os.ftruncate(fd, n if length is None else length)
        fe.channel.send(Req.SET_INFLIGHT_FD, DESCRIPTION.pack(n, offset, queues, queue_size, 0), [fd])
        os.close(fd)
    return send


def no_file(fe):
    """An eventfd instead of memory."""
    fe.channel.send(Req.SET_INFLIGHT_FD, DESCRIPTION.pack(4096, 0, 2, SIZE, 0), [fe.tx.kick_fd])


def ask(queues, queue_size):
    """GET_INFLIGHT_FD with any numbers."""
    return lambda fe: fe.channel.send(Req.GET_INFLIGHT_FD, DESCRIPTION.pack(0, 0, queues, queue_size, 0))


MESSAGES = {
    "too small": (raw(size=2 * 64), "too small"),
    "one byte short": (raw(size=2 * (16 + 16 * SIZE + 48) - 1), "too small"),
    "empty": (raw(size=0, length=4096), "too small"),
    "larger than its file": (raw(length=4096), "too short"),
    "offset wraps": (raw(offset=2 ** 64 - 64, length=4096), "wraps"),
    "size wraps": (raw(size=2 ** 64 - 1, length=4096), "too short|wraps|more than a peer may share"),
    "misaligned": (raw(offset=4, length=1 << 20), "misaligned"),
    "no file": (no_file, "no file"),
    "no rings": (raw(queues=0), "number of rings"),
    "too many rings": (raw(queues=3, length=1 << 20, size=1 << 20), "number of rings"),
    "65535 rings": (raw(queues=65535), "number of rings"),
    "no descriptors": (raw(queue_size=0), "size that is none"),
    "too many descriptors": (raw(queue_size=65535, size=8 << 20), "size that is none"),
    "asks for no rings": (ask(0, SIZE), "number of rings"),
    "asks for too many rings": (ask(3, SIZE), "number of rings"),
    "asks for no descriptors": (ask(2, 0), "size that is none"),
    "asks for 40000 descriptors": (ask(2, 40000), "size that is none"),
}


def gone(fe):
    """Nothing is connected, kept or in the rings."""
    fe.drop()
    if fe.kept:
        fe.kept.close()
    fe.kept = None
    fe.reset_rings()


def before(fe, p):
    """A good front-end first; returns how many descriptors the program has with one."""
    fe.start_like_qemu()
    fe.get_features()  # what was said is done
    fe.post_rx([2048] * 8)
    serves(fe, count=2)
    fds = p.fds()
    gone(fe)
    until(lambda: not p.port()["counters"]["link"], "the link's end")
    return fds


def afterwards(fe, p, fds):
    """The program lives, serves a front-end with memory that is right, and then has the descriptors it had with such a one."""
    gone(fe)
    serves_now(fe)
    p.settled(fds)
    at_rest(fe, "packed" if fe.features & F.RING_PACKED else "split", 0)
    assert p.running


@pytest.mark.parametrize("name", MESSAGES)
def test_message_refused(sock, name):
    send, reason = MESSAGES[name]
    with keeper(sock, "split") as fe, Victim(sock) as p:
        fds = before(fe, p)
        fe.connect_like_qemu()
        send(fe)
        assert fe.channel.closed_by_peer()
        p.refused(reason, pattern=True)
        afterwards(fe, p, fds)


def split(**fields):
    """Fields of the transmit ring's region; entries={i: (in flight, next, counter)}."""
    def break_it(fe):
        region = fe.kept.queue(1)
        for i, values in fields.get("entries", {}).items():
            region.set(i, *values)
        for name, value in fields.items():
            if name != "entries":
                setattr(region, name, value)
    return break_it


def last_batch_leaves(fe):
    """One frame was given back in a batch whose list begins nowhere."""
    post(fe, 0, 2)
    fe.tx.ring.used_idx = 1
    fe.kept.queue(1).last_batch_head = SIZE


SPLIT = {
    "version": (split(version=2), "version"),
    "another size": (split(desc_num=SIZE // 2), "not what was said"),
    "nothing available": (split(entries={3: (1, 0, 5)}), "more is in flight"),
    "all in flight": (split(entries={i: (1, i, 2 ** 64 - 1) for i in range(SIZE)}), "more is in flight"),
    "no state": (split(entries={3: (2, 0, 5)}), "state that is none"),
    "garbage": (lambda fe: fe.kept.queue(1).view[16:].__setitem__(slice(None), b"\xa5" * (16 * SIZE + 48)),
                "state that is none"),
    "last batch leaves": (last_batch_leaves, "leaves the region"),
}


def packed(entries=None, **fields):
    """The same for a packed ring."""
    def break_it(fe):
        region = fe.kept.queue(1, True)
        for i, values in (entries or {}).items():
            region.set(i, *values)
        for name, value in fields.items():
            setattr(region, name, value)
    return break_it


def taken(num=1, last=0, after=1, counter=0):
    """An entry in flight."""
    return (1, after, last, num, counter, 0, 0, 60, 0)


PACKED = {
    "version": (packed(version=3), "version"),
    "another size": (packed(desc_num=SIZE * 2), "not what was said"),
    "used beyond": (packed(old_used_idx=SIZE), "used index"),
    "next used beyond": (packed(used_idx=0xffff), "used index"),
    "wrap counter": (packed(old_used_wrap=7), "wrap counter"),
    "free list is a loop": (packed({9: (0, 3, 0, 0, 0, 0, 0, 0, 0)}), "loop"),
    "free list begins nowhere": (packed(old_free_head=SIZE), "neither free nor in flight"),
    "chain of none": (packed({0: taken(num=0)}, old_free_head=1), "longer than can be"),
    "chain too long": (packed({0: taken(num=SIZE + 1)}, old_free_head=1), "longer than can be"),
    "chain leaves": (packed({0: taken(num=2, last=60000, after=60000)}, old_free_head=1), "leaves"),
    "chain is a loop": (packed({0: taken(num=3, after=0)}, old_free_head=1), "two places"),
    "chain in the free list": (packed({0: taken(num=2, last=1)}, old_free_head=1), "two places"),
    "chain ends elsewhere": (packed({0: taken(last=5)}, old_free_head=1), "does not end"),
    "no state": (packed({0: (7, 1, 0, 1, 0, 0, 0, 0, 0)}, old_free_head=1), "state that is none"),
    "garbage": (lambda fe: fe.kept.queue(1, True).view[32:].__setitem__(slice(None), b"\xa5" * (32 * SIZE + 32)), "state that is none|loop|neither"),
}


@pytest.mark.parametrize("fmt,name", [("split", n) for n in SPLIT] + [("packed", n) for n in PACKED])
def test_contents_refused(sock, fmt, name):
    break_it, reason = {"split": SPLIT, "packed": PACKED}[fmt][name]
    with keeper(sock, fmt) as fe, Victim(sock) as p:
        fds = before(fe, p)
        fe.kept = kept(fmt == "packed")
        break_it(fe)
        with contextlib.suppress(PeerClosed, ConnectionError):
            fe.start_like_qemu()
        assert fe.channel.closed_by_peer()
        p.refused(reason, pattern=True)
        fe.reset_rings()
        afterwards(fe, p, fds)


@pytest.mark.parametrize("fmt,memory,reason", [
    ("split", {"size": SIZE // 2}, "larger than its in-flight region"),
    # When the message comes nobody need have said yet what the rings are.
    ("packed", {}, "too small for packed rings")])
def test_memory_for_other_rings(sock, fmt, memory, reason):
    with keeper(sock, fmt) as fe, Victim(sock) as p:
        fds = before(fe, p)
        fe.kept = kept(**memory)
        with contextlib.suppress(PeerClosed, ConnectionError):
            fe.start_like_qemu()
        assert fe.channel.closed_by_peer()
        p.refused(reason, pattern=True)
        afterwards(fe, p, fds)


@formats
def test_chains_that_are_garbage(sock, fmt):
    """The memory is right as far as it can be known, but what it says is in flight is no frame: it is refused as any such chain is."""
    with keeper(sock, fmt) as fe, Victim(sock) as p:
        fe.kept = kept(fmt == "packed")
        head = fe.send(numbered(0, 60))
        if fmt == "split":
            fe.kept.queue(1).hold(head)
            fe.tx.ring.set_desc(head, 1 << 50, 0xffffffff, 1, 60000)
        else:
            hold_packed(fe, [(60000, [(1 << 50, 0xffffffff)])])
        with contextlib.suppress(PeerClosed, ConnectionError):
            fe.start_like_qemu()
            fe.post_rx([2048] * 8)
            until(lambda: p.lane()["rx_desc_errors"] or p.errors(), "the garbage to be seen")
        gone(fe)
        serves_now(fe)
        assert p.running


@formats
def test_memory_cut_off(sock, fmt):
    """Its file is truncated while the ring runs."""
    with keeper(sock, fmt) as fe, Victim(sock) as p:
        fds = before(fe, p)
        fe.kept = kept(fmt == "packed")
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        serves(fe)
        os.ftruncate(fe.kept.fd, 0)
        fe.tx.add([(fe.memory.alloc(10), 10, False)])  # no frame, so nothing is owed for it
        fe.tx.publish()
        assert fe.channel.closed_by_peer()
        p.refused("truncated")
        afterwards(fe, p, fds)


@formats
def test_memory_scribbled_over_while_the_ring_runs(sock, fmt):
    """What is in it counts when a ring comes up, and never again: frames move on, and the next front-end is served."""
    with keeper(sock, fmt) as fe, Victim(sock) as p:
        fe.kept = kept(fmt == "packed")
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        serves(fe)
        for n in range(50):
            fe.kept.map[:fe.kept.size] = os.urandom(fe.kept.size)
            serves(fe, n * 4, 4)
        fe.stop_like_qemu()
        gone(fe)
        serves_now(fe)
        assert p.errors() == 0


def test_another_memory_while_rings_run(sock):
    with keeper(sock, "split") as fe, Victim(sock) as p:
        fds = before(fe, p)
        fe.start_like_qemu()
        fe.give()
        assert fe.channel.closed_by_peer()
        p.refused("while a ring runs", pattern=True)
        afterwards(fe, p, fds)


def test_memory_asked_for_again_and_again(sock):
    """Each takes the place of the one before it."""
    with keeper(sock, "split") as fe, Victim(sock) as p:
        fds = before(fe, p)
        fe.connect_like_qemu()
        for n in range(200):
            fe.ask(2, 1 + n).close()
        fe.kept = fe.ask(2, SIZE)
        serves_now(fe)
        p.settled(fds)


def test_not_negotiated(sock):
    """A front-end that takes no part is served as ever, and one that did not agree to it is still answered: DPDK's does so."""
    with keeper(sock, "split", keep=False) as fe, Victim(sock) as p:
        serves(fe)
        assert fe.kept is None and p.errors() == 0
        assert struct.calcsize("<QQHHI") == DESCRIPTION.size
