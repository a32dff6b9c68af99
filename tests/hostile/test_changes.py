# SPDX-License-Identifier: BSD-2-Clause
"""A front-end that changes its mind while the rings run: other bases, other places for the rings, other
memory. What the specification allows loses no frame; the rest ends with that peer."""
import contextlib
import os

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.ring import Region, Ring
from lab.vhostpeer import FrontEnd, Memory, P, PeerClosed, Req
from lab.wire import mem_table, vring_addr, vring_state
from hostile.victim import Victim, echoes, refuses_buffers, serves, until

KINDS = {"memory slots": None, "a table": P.MQ | P.REPLY_ACK}


@contextlib.contextmanager
def up(sock, **kw):
    """A program and a peer that are up; the rings are idle and all was received."""
    with FrontEnd(sock, **kw) as fe, Victim(sock) as program:
        serves(fe)
        yield fe, program
        assert program.running


def heard(fe):
    """Everything that was said is done: whoever answers this has carried it out."""
    fe.channel.request(Req.GET_FEATURES)


def move(fe, i):
    """Copy the idle ring i to another place, say so, and spoil the old one."""
    q = fe.queues[i]
    lengths = Ring.lengths(q.size)
    new = tuple(fe.memory.alloc(n, a) for n, a in zip(lengths, (16, 2, 4)))
    for old, to, n in zip(q.gpa, new, lengths):
        fe.memory.view(to, n)[:] = fe.memory.view(old, n)
    old, q.gpa = q.gpa, new
    q.ring = Ring(q.size, *(fe.memory.view(g, n) for g, n in zip(new, lengths)))
    fe.ring_message(Req.SET_VRING_ADDR, i)
    heard(fe)
    for gpa, n in zip(old, lengths):
        fe.memory.view(gpa, n)[:] = b"\xff" * n


def test_rings_move(sock):
    with up(sock) as (fe, program):
        for n in range(40):
            move(fe, n % 2)
            q = fe.queues[n % 2]
            q.kicked = q.last_used  # as at a start
            echoes(fe, n * 7, 7)
        assert program.errors() == 0


def test_rings_move_in_a_burst(sock):
    """To the same place and its neighbourhood while frames are under way: the program takes each chain of
    whichever ring it is told of, and lives."""
    with up(sock) as (fe, program):
        for n in range(50):
            for k in range(16):
                fe.send(numbered(n * 16 + k, 60), publish=False)
            fe.tx.publish()
            for i in range(2):
                fe.ring_message(Req.SET_VRING_ADDR, i)
            got = [check(fe.recv().frame) for _ in range(16)]
            assert got == list(range(n * 16, n * 16 + 16))
            fe.wait_sent()
        assert program.errors() == 0


@pytest.mark.parametrize("base", [0, 1, 255, 256, 65535])
def test_base_of_a_running_ring(sock, base):
    """It is not where the ring goes on: that is where it stands."""
    with up(sock) as (fe, program):
        for n in range(10):
            for k in range(16):
                fe.send(numbered(n * 16 + k, 60), publish=False)
            fe.tx.publish()
            for i in range(2):
                fe.channel.send(Req.SET_VRING_BASE, vring_state(i, base))
            got = [check(fe.recv().frame) for _ in range(16)]
            assert got == list(range(n * 16, n * 16 + 16))
            fe.wait_sent()
        heard(fe)
        assert program.errors() == 0


PLACES = {
    "misaligned": (8, "misaligned"), "outside": (1 << 40, "one memory region"),
    "one that wraps": ((1 << 64) - 0x7f5500000000 - 0x30000, "one memory region"),
}


@pytest.mark.parametrize("ring", [0, 1])
@pytest.mark.parametrize("name", PLACES)
def test_bad_place_for_a_running_ring(sock, name, ring):
    offset, reason = PLACES[name]
    with up(sock) as (fe, program):
        desc, avail, used = (fe.memory.uva(g) for g in fe.queues[ring].gpa)
        with contextlib.suppress(ConnectionError):
            fe.channel.send(Req.SET_VRING_ADDR, vring_addr(ring, desc + offset, used, avail))
        assert fe.channel.closed_by_peer()
        program.refused(reason)
        fe.drop()
        serves(fe, 100)


@pytest.mark.parametrize("ring", [0, 1])
@pytest.mark.parametrize("base", [65536, 0xffffffff])
def test_bad_base_for_a_running_ring(sock, base, ring):
    with up(sock) as (fe, program):
        fe.channel.send(Req.SET_VRING_BASE, vring_state(ring, base))
        assert fe.channel.closed_by_peer()
        program.refused(f"base of {base}")
        fe.drop()
        serves(fe, 100)


# --- memory ------------------------------------------------------------------------------------

def new_region(fe, size=1 << 20):
    """A piece of memory that the program does not know yet."""
    fd = os.memfd_create("more", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    last = fe.memory.regions[-1]
    gpa = last.gpa + last.size + (1 << 20)
    return Region(gpa, size, 0x7f5500000000 + gpa, fd, 0)


def say_memory(fe, *, added=None, removed=None):
    """Tell the program of fe.memory.regions: one that was added or removed, or all."""
    if not fe.protocol & P.MEM_SLOTS:
        rows = [r.row() for r in fe.memory.regions]
        fe.acked(Req.SET_MEM_TABLE, mem_table(rows), [r.fd for r in fe.memory.regions])
    elif added:
        fe.acked(Req.ADD_MEM_REG, bytes(8) + mem_table([added.row()])[8:], [added.fd])
    else:
        fe.acked(Req.REM_MEM_REG, bytes(8) + mem_table([removed.row()])[8:])


@pytest.mark.parametrize("kind", KINDS)
def test_memory_grows_and_shrinks(sock, kind):
    """As when memory is plugged into a guest and out of it: frames stand in the new region, both ways."""
    with up(sock, protocol=KINDS[kind]) as (fe, program):
        assert bool(fe.protocol & P.MEM_SLOTS) == (kind == "memory slots")
        maps = f"/proc/{program.pid}/maps"
        for n in range(10):
            r = new_region(fe)
            fe.memory.regions.append(r)
            say_memory(fe, added=r)
            frame = numbered(n, 1000)
            r.view[:48] = avip.distinct(n)
            r.view[48:1048] = frame
            fe.tx.add([(r.gpa, 500, False), (r.gpa + 500, 548, False)])
            fe.tx.publish()
            assert check(fe.recv().frame) == n
            fe.wait_sent()
            echoes(fe, 50)
            fe.memory.regions.pop()
            say_memory(fe, removed=r)
            echoes(fe, 50)
            os.close(r.fd)
            with open(maps, encoding="ascii") as f:
                assert "memfd:more" not in f.read()
        assert program.errors() == 0


def test_memory_moves_to_another_file(sock):
    """The same addresses in a new file; the old file is cut off, so that whoever still looks there falls."""
    with up(sock, memory=Memory((96 << 20,), seals=0), protocol=P.MQ | P.REPLY_ACK) as (fe, program):
        for n in range(5):
            old = fe.memory.regions[0]
            fd = os.memfd_create("moved", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, old.size)
            fe.memory.regions[0] = new = Region(old.gpa, old.size, old.uva, fd, 0)
            end = fe.memory.used[0]
            new.view[:end] = old.view[:end]
            for q in fe.queues:
                q.ring = Ring(q.size, *(fe.memory.view(g, k)
                                        for g, k in zip(q.gpa, Ring.lengths(q.size))))
            say_memory(fe)
            os.ftruncate(old.fd, 0)
            os.close(old.fd)
            fe.memory.fds[0] = fd
            echoes(fe, n * 20)
        assert program.errors() == 0


def slot(fe, req, r):
    """ADD or REM of a region, with its descriptor; the code that comes back."""
    return fe.channel.request(req, bytes(8) + mem_table([r.row()])[8:], [r.fd], need_reply=True).u64


def test_509_memory_slots(sock):
    """As many as the protocol has, of one file. What is there twice, or one too many, or not there any more is
    refused and changes nothing; frames stand in any of them while others come and go."""
    with up(sock, protocol=P.MEM_SLOTS | P.REPLY_ACK) as (fe, program):
        fds, first = program.fds(), fe.memory.regions[0]
        assert fe.get_u64(Req.GET_MAX_MEM_SLOTS) == 509
        fd, size, gpa = os.memfd_create("slots", os.MFD_CLOEXEC), 8192, first.gpa + (1 << 32)
        os.ftruncate(fd, 509 * size)
        slots = [Region(gpa + 2 * k * size, size, 0x7f5500000000 + gpa + 2 * k * size, fd, k * size)
                 for k in range(509)]
        for r in slots[:508]:
            assert slot(fe, Req.ADD_MEM_REG, r) == 0
        assert slot(fe, Req.ADD_MEM_REG, slots[508]) == 1
        assert slot(fe, Req.ADD_MEM_REG, slots[100]) == 1
        fe.memory.regions += slots[:508]
        for n in range(60):
            r, other = slots[n * 211 % 508], slots[n * 101 % 508]
            for k, part in enumerate((r, slots[507 - n], first)):
                at = part.gpa + 4000 if part is not first else fe.memory.alloc(2048)
                fe.memory.view(at, 48)[:] = avip.distinct(3 * n + k)
                fe.memory.view(at + 48, 1000)[:] = numbered(3 * n + k, 1000)
                fe.tx.add([(at, 48, False), (at + 48, 1000, False)])
            fe.tx.publish()
            if other not in (r, slots[507 - n]):
                assert slot(fe, Req.REM_MEM_REG, other) == 0
                assert slot(fe, Req.REM_MEM_REG, other) == 1
                assert slot(fe, Req.ADD_MEM_REG, other) == 0
            assert [check(fe.recv().frame) for _ in range(3)] == [3 * n, 3 * n + 1, 3 * n + 2]
            fe.wait_sent()
        for r in slots[:508]:
            assert slot(fe, Req.REM_MEM_REG, r) == 0
        assert slot(fe, Req.REM_MEM_REG, slots[0]) == 1
        with open(f"/proc/{program.pid}/maps", encoding="ascii") as f:
            assert "memfd:slots" not in f.read()
        fe.memory.regions[1:] = []
        echoes(fe, 1000)
        program.settled(fds)
        assert program.errors() == 0
        os.close(fd)


@pytest.mark.parametrize("kind", KINDS)
def test_receive_buffers_taken_away(sock, kind):
    """The region of the buffers that were posted goes: the next frame has no place, so the ring is broken
    and the frame goes to the next peer."""
    with up(sock, protocol=KINDS[kind]) as (fe, program):
        r = new_region(fe)
        fe.memory.regions.append(r)
        say_memory(fe, added=r)
        fe.drop()
        fe.reset_rings()

        def post():
            for k in range(32):
                fe.rx.add([(r.gpa + 2048 * k, 2048, True)])
            fe.rx.publish()
            fe.memory.regions.pop()
            say_memory(fe, removed=r)
        refuses_buffers(fe, program, post, "ring 0: a receive descriptor is not writable memory")
        os.close(r.fd)


def test_memory_of_the_rings_taken_away_with_an_answer(sock):
    """Refused, and the connection goes on: the port says that nothing moves and why."""
    with up(sock) as (fe, program):
        region = mem_table([fe.memory.regions[0].row()])[8:]
        assert fe.channel.request(Req.REM_MEM_REG, bytes(8) + region, need_reply=True).u64 == 1
        until(lambda: program.port()["state"] == "down", "the port goes down")
        refused = "REM_MEM_REG refused: ring 0 does not stand in one memory region"
        assert program.port()["reason"] == program.port()["last_error"] == refused
        fe.channel.send(Req.GET_FEATURES)  # which has nothing to do with it
        assert fe.channel.closed_by_peer()
        program.refused(refused)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_the_rings_taken_away(sock, kind):
    """Slot by slot or in a table without it: nothing runs any more in memory that is not there."""
    with up(sock, protocol=KINDS[kind]) as (fe, program):
        whole = fe.memory.regions[:]
        with contextlib.suppress(AssertionError, PeerClosed, ConnectionError):
            if fe.protocol & P.MEM_SLOTS:
                fe.channel.send(Req.REM_MEM_REG, bytes(8) + mem_table([whole[0].row()])[8:])
            else:
                fe.channel.send(Req.SET_MEM_TABLE, mem_table([(1 << 40, 4096, 1 << 40, 0)]),
                                [whole[0].fd])
        assert fe.channel.closed_by_peer()
        program.refused("one memory region")
        with open(f"/proc/{program.pid}/maps", encoding="ascii") as f:
            assert "memfd:lab" not in f.read()
        fe.drop()
        serves(fe, 100)
