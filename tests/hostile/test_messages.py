# SPDX-License-Identifier: BSD-2-Clause
"""Wrong messages to a program in the back-end role: each ends the connection for a reason that the
counters tell, leaks nothing, and does not keep the next peer out."""
import contextlib
import os
import random
import socket
import struct

import pytest

from lab.vhostpeer import F, FrontEnd, P, PeerClosed, Req
from lab.wire import HEADER, NO_FD, REPLY, VERSION, mem_table, u64, vring_addr, vring_state
from hostile.victim import Victim, serves

TOP = 1 << 64


def region(fe, **other):
    """The first region's row with fields replaced: gpa, size, uva, offset."""
    row = dict(zip(("gpa", "size", "uva", "offset"), fe.memory.regions[0].row()), **other)
    return tuple(row.values())


def table(fe, rows, fds=None, count=None):
    """Send a memory table of these rows, with that many descriptors of the memory."""
    fds = [fe.memory.fds[0]] * len(rows) if fds is None else fds
    fe.channel.send(Req.SET_MEM_TABLE, mem_table(rows, count), fds)


@contextlib.contextmanager
def opened(*fds):
    """Descriptors that are closed when they have been sent."""
    try:
        yield list(fds)
    finally:
        for fd in fds:
            os.close(fd)


def many_fds(fe, count, req=Req.GET_FEATURES):
    """One message with that many descriptors."""
    with opened(*(os.dup(0) for _ in range(count))) as fds:
        fe.channel.send(req, b"", fds)


def vring_fd(fe, req, fd):
    """KICK or CALL with some other descriptor."""
    with opened(fd) as fds:
        fe.channel.send(req, u64(0), fds)


def ready(fe):
    """The connection as far as memory, so that rings can be spoken of."""
    fe.get_features()
    fe.set_features()
    table(fe, [fe.memory.regions[0].row()])


def ring(fe, *, num=None, base=0, desc=0, avail=0, used=0, index=0):
    """Start ring 0 with its true places plus some bytes."""
    q = fe.queues[0]
    ready(fe)
    at = [fe.memory.uva(g) for g in q.gpa]
    ch = fe.channel
    ch.send(Req.SET_VRING_NUM, vring_state(index, q.size if num is None else num))
    ch.send(Req.SET_VRING_BASE, vring_state(index, base))
    ch.send(Req.SET_VRING_ADDR, vring_addr(index, at[0] + desc, at[2] + used, at[1] + avail))
    ch.send(Req.SET_VRING_KICK, u64(index), [q.kick_fd])
    ch.send(Req.SET_VRING_ENABLE, vring_state(index, 1))


def read_nothing(fe):
    """Ask for ever without taking an answer."""
    fe.channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with contextlib.suppress(OSError):
        for _ in range(20000):
            fe.channel.send(Req.GET_FEATURES)


def running(fe, *message, **kw):
    """A message that is wrong only while rings run."""
    fe.connect_like_qemu()
    fe.start_like_qemu()
    fe.channel.send(*message, **kw)


def slots(fe):
    """Negotiate memory slots."""
    fe.get_features()
    fe.get_u64(Req.GET_PROTOCOL_FEATURES)
    fe.channel.send(Req.SET_PROTOCOL_FEATURES, u64(P.MEM_SLOTS))


def slot(fe, req, **other):
    """ADD or REM with the first region's row, changed."""
    fds = [fe.memory.fds[0]] if req == Req.ADD_MEM_REG else []
    fe.channel.send(req, struct.pack("<QQQQQ", 0, *region(fe, **other)), fds)


def slot_twice(fe):
    slots(fe)
    slot(fe, Req.ADD_MEM_REG)
    slot(fe, Req.ADD_MEM_REG)


def slot_removed_twice(fe):
    slots(fe)
    slot(fe, Req.ADD_MEM_REG)
    slot(fe, Req.REM_MEM_REG)
    slot(fe, Req.REM_MEM_REG)


def too_many_slots(fe):
    slots(fe)
    for i in range(600):
        slot(fe, Req.ADD_MEM_REG, gpa=i << 13, uva=i << 13, size=4096)


def unoffered(fe, bits):
    fe.get_features()
    fe.channel.send(Req.SET_FEATURES, u64(bits))


def fds_in_payload(fe):
    head = HEADER.pack(Req.SET_FEATURES, VERSION, 8)
    fe.channel.send_raw(head)
    with opened(os.dup(0)) as fds:
        fe.channel.send_raw(u64(0), fds)


def short_file(fe):
    fd = os.memfd_create("short")
    os.ftruncate(fd, fe.memory.regions[0].size - 1)
    with opened(fd) as fds:
        table(fe, [fe.memory.regions[0].row()], fds)


def no_file(fe, fd, **what):
    with opened(fd) as fds:
        table(fe, [region(fe, **what)], fds)


def nothing(size):
    fd = os.memfd_create("nothing")
    os.ftruncate(fd, size)
    return fd


def read_only():
    fd = nothing(4096)
    with opened(fd):
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)


def across_regions(fe):
    """The descriptor table begins in one region and ends in the next, which touches it."""
    ready(fe)
    uva, size = 0x10000000, 8192
    table(fe, [(0, size, uva, 0), (size, 1 << 20, uva + size, size)])
    ch = fe.channel
    ch.send(Req.SET_VRING_NUM, vring_state(0, 256))
    ch.send(Req.SET_VRING_ADDR,
            vring_addr(0, uva + size - 16, uva + size + 8192, uva + size + 16384))
    ch.send(Req.SET_VRING_KICK, u64(0), [fe.queues[0].kick_fd])
    ch.send(Req.SET_VRING_ENABLE, vring_state(0, 1))


def another_file(mode=os.O_RDONLY):
    return os.open("/etc/passwd", mode)


SEND = lambda *a, **k: lambda fe: fe.channel.send(*a, **k)  # noqa: E731
WIDE = 1 << 60

ATTACKS = {
    # what is no message
    "payload over the maximum": (SEND(Req.GET_FEATURES, size=4097), "payload too large"),
    "payload of 2^32-1": (SEND(Req.GET_FEATURES, size=0xffffffff), "payload too large"),
    "request 0": (SEND(0), "unknown request"),
    "request 41": (SEND(41), "unknown request"),
    "request 2^32-1": (SEND(0xffffffff), "unknown request"),
    "version 0": (SEND(Req.GET_FEATURES, flags=0), "version"),
    "version 2": (SEND(Req.GET_FEATURES, flags=2), "version"),
    "a reply": (SEND(Req.GET_FEATURES, u64(0), flags=VERSION | REPLY), "reply"),
    "payload too short": (SEND(Req.SET_FEATURES, b"1234"), "wrong size"),
    "payload too long": (SEND(Req.SET_FEATURES, bytes(16)), "wrong size"),
    "payload where none is": (SEND(Req.GET_FEATURES, bytes(8)), "wrong size"),
    "noise": (lambda fe: fe.channel.send_raw(random.Random(1).randbytes(65536)), ""),
    # descriptors
    "1 descriptor too many": (lambda fe: many_fds(fe, 1), "file descriptors"),
    "9 descriptors": (lambda fe: many_fds(fe, 9), "file descriptors"),
    "253 descriptors": (lambda fe: many_fds(fe, 253), "file descriptors"),
    "descriptors in a payload": (fds_in_payload, "file descriptors inside"),
    "a kick without one": (SEND(Req.SET_VRING_KICK, u64(0)), "file descriptors"),
    "no-fd bit with one": (lambda fe: fe.channel.send(Req.SET_VRING_KICK, u64(NO_FD),
                                                      [fe.queues[0].kick_fd]),
                           "file descriptors"),
    "a kick that is a pipe": (lambda fe: vring_fd(fe, Req.SET_VRING_KICK, os.pipe()[1]),
                              "not an eventfd"),
    "a call that is a memfd": (lambda fe: vring_fd(fe, Req.SET_VRING_CALL,
                                                   os.memfd_create("x")), "not an eventfd"),
    "a call that is a file": (lambda fe: vring_fd(fe, Req.SET_VRING_CALL, another_file()),
                              "not an eventfd"),
    "an error that is a pipe": (lambda fe: vring_fd(fe, Req.SET_VRING_ERR, os.pipe()[1]), "not an eventfd"),
    "an error without one": (SEND(Req.SET_VRING_ERR, u64(0)), "file descriptors"),
    "an error of ring 2": (lambda fe: fe.channel.send(Req.SET_VRING_ERR, u64(2 | NO_FD)), "ring 2, where there are 2"),
    "a call that is a socket": (lambda fe: vring_fd(fe, Req.SET_VRING_CALL,
                                                    socket.socketpair()[0].detach()),
                                "not an eventfd"),
    # memory
    "0 regions": (lambda fe: table(fe, []), "without regions"),
    "9 regions": (lambda fe: table(fe, [region(fe)] * 8, count=9), "wrong size"),
    "2^32-1 regions": (lambda fe: table(fe, [region(fe)], count=0xffffffff), "wrong size"),
    "more regions than files": (lambda fe: table(fe, [region(fe)] * 2, fe.memory.fds),
                                "file descriptors"),
    "a region of size 0": (lambda fe: table(fe, [region(fe, size=0)]), "size 0"),
    "gpa that wraps": (lambda fe: table(fe, [region(fe, gpa=TOP - 4096)]), "wrap"),
    "uva that wraps": (lambda fe: table(fe, [region(fe, uva=TOP - 4096)]), "wrap"),
    "offset that wraps": (lambda fe: table(fe, [region(fe, offset=TOP - 4096)]), "wrap"),
    "size of 2^64-1": (lambda fe: table(fe, [region(fe, gpa=0, uva=0, size=TOP - 1)]), "region"),
    "a region of 2^60": (lambda fe: table(fe, [region(fe, size=WIDE)]), "more than a peer may share"),
    "a file of 64 TiB that holds nothing": (lambda fe: no_file(fe, nothing(1 << 46), size=1 << 46), "more than a peer may share"),
    "memory that is a file of no disk": (lambda fe: no_file(fe, os.open("/sys/kernel/uevent_seqnum", os.O_RDONLY), size=16),
                                         "memory in a file of sysfs, not tmpfs, hugetlbfs, ext4, xfs, f2fs (region 0)"),
    "gpa that overlaps": (lambda fe: table(fe, [region(fe), region(fe, uva=WIDE)]), "overlaps"),
    "uva that overlaps": (lambda fe: table(fe, [region(fe), region(fe, gpa=WIDE)]), "overlaps"),
    "a file too short": (short_file, "too short"),
    "memory that is an eventfd": (lambda fe: no_file(fe, os.eventfd(0)), "no file"),
    "memory that is a pipe": (lambda fe: no_file(fe, os.pipe()[0]), "no file"),
    "memory that is a folder": (lambda fe: no_file(fe, os.open("/", os.O_RDONLY)), "no file"),
    "memory that is a device": (lambda fe: no_file(fe, os.open("/dev/zero", os.O_RDWR)),
                                "no file"),
    "memory that cannot be written": (
        lambda fe: no_file(fe, read_only(), size=16, offset=0), "cannot be mapped"),
    "a slot added twice": (slot_twice, "overlaps"),
    "a slot removed twice": (slot_removed_twice, "no such memory region"),
    "more slots than there are": (too_many_slots, "too many memory regions"),
    # rings
    "a ring of 0": (lambda fe: ring(fe, num=0), "a ring of 0"),
    "a ring of 65536": (lambda fe: ring(fe, num=65536), "a ring of 65536"),
    "a ring of 255": (lambda fe: ring(fe, num=255), "a ring of 255"),
    "a ring of 2^31": (lambda fe: ring(fe, num=1 << 31), "a ring of"),
    "ring number 2": (lambda fe: ring(fe, index=2), "ring 2, where there are 2"),
    "ring number 2^32-1": (lambda fe: ring(fe, index=0xffffffff), "where there are 2"),
    "a base of 65536": (lambda fe: ring(fe, base=65536), "base of 65536"),
    "a misaligned table": (lambda fe: ring(fe, desc=8), "misaligned"),
    "a misaligned available ring": (lambda fe: ring(fe, avail=1), "misaligned"),
    "a misaligned used ring": (lambda fe: ring(fe, used=2), "misaligned"),
    "a ring outside": (lambda fe: ring(fe, desc=1 << 40), "one memory region"),
    "a ring over the end": (lambda fe: ring(fe, num=32768, used=(96 << 20) - 70000),
                            "one memory region"),
    "a ring that wraps": (lambda fe: ring(fe, desc=TOP - 0x7f5500000000 - 0x30000),
                          "one memory region"),
    "a ring across regions": (across_regions, "one memory region"),
    # order and features
    "features never offered": (lambda fe: unoffered(fe, F.CTRL_VQ), "not offered"),
    "offloads with a sidecar": (lambda fe: unoffered(fe, F.CSUM), "not offered"),
    "every feature": (lambda fe: unoffered(fe, TOP - 1), "not offered"),
    "protocol features never offered": (SEND(Req.SET_PROTOCOL_FEATURES, u64(P.CONFIG)),
                                        "not offered"),
    "features changed while running": (
        lambda fe: running(fe, Req.SET_FEATURES, u64(F.VERSION_1 | F.PROTOCOL)),
        "while a ring runs"),
    "size changed while running": (
        lambda fe: running(fe, Req.SET_VRING_NUM, vring_state(0, 128)), "another size"),
    "memory taken away while running": (
        lambda fe: running(fe, Req.SET_MEM_TABLE, mem_table([(0, 4096, 0, 0)]),
                           [fe.memory.fds[0]]), "one memory region"),
    "neither on nor off": (SEND(Req.SET_VRING_ENABLE, vring_state(0, 2)), "neither"),
    "a status of nine bits": (SEND(Req.SET_STATUS, u64(0x100)), "status"),
    "an MTU of 0": (SEND(Req.NET_SET_MTU, u64(0)), "MTU"),
    # what we do not offer
    "postcopy": (SEND(Req.POSTCOPY_ADVISE), "do not offer"),
    "an IOTLB message": (SEND(Req.IOTLB_MSG, bytes(32)), "not agreed"),
    "an IOTLB message of another size": (SEND(Req.IOTLB_MSG, bytes(40)), "wrong size"),
    "configuration space": (SEND(Req.GET_CONFIG, bytes(12 + 64)), "do not offer"),
    "a back-end channel": (lambda fe: many_fds(fe, 1, Req.SET_BACKEND_REQ_FD), "do not offer"),
    # answers
    "answers never read": (read_nothing, "does not read its replies"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_back_end(sock, name):
    attack, reason = ATTACKS[name]
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        fe.drop()
        fe.reset_rings()
        fe.connect()
        with contextlib.suppress(PeerClosed, BrokenPipeError, ConnectionResetError):
            attack(fe)
        if name != "answers never read":
            assert fe.channel.closed_by_peer()
        program.refused(reason)
        fe.drop()
        serves(fe, 100)
        program.settled(fds)
        assert program.running


def test_wrong_order_is_harmless(sock):
    """Enable, addresses and kicks before owner, features or memory: nothing runs until everything
    is there, and then it does."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        fe.connect()
        fe.get_features()
        fe.each_ring(Req.SET_VRING_ENABLE, Req.SET_VRING_KICK, Req.SET_VRING_ADDR,
                     Req.SET_VRING_CALL, Req.SET_VRING_BASE)
        fe.each_ring(Req.SET_VRING_NUM)
        fe.send_memory()
        assert program.port()["counters"]["link"] == 0
        fe.set_features()
        fe.post_rx([2048] * 32)
        serves(fe)


@pytest.mark.parametrize("pieces", [[1] * 40, [11, 1, 7, 1], [12], [13]])
def test_messages_in_pieces(sock, pieces):
    """Short and split reads, several messages in one write."""
    with FrontEnd(sock) as fe, Victim(sock):
        fe.connect()
        get = HEADER.pack(Req.GET_FEATURES, VERSION, 0)
        owner = HEADER.pack(Req.SET_OWNER, VERSION, 0)
        fe.channel.send_raw(owner + get + owner + get, pieces=pieces)
        assert fe.channel.recv().u64 == fe.channel.recv().u64
        serves_here(fe)


def serves_here(fe):
    """serves() on the connection that is there."""
    fe.connect_like_qemu()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)
    serves(fe)


@pytest.mark.parametrize("sent", [1, 4, 11])
def test_end_inside_a_header(sock, sent):
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        for _ in range(3):
            fe.drop()
            fe.connect()
            fe.channel.send_raw(HEADER.pack(Req.SET_FEATURES, VERSION, 8)[:sent])
        fe.drop()
        serves(fe, 100)
        program.settled(fds)
