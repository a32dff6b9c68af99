# SPDX-License-Identifier: BSD-2-Clause
"""Requests of a back-end's own to a program in the front-end role with iommu=on: misses are answered for our
memory alone, nonsense ends the connection for a reason that is told, and the next peer is served."""
import contextlib
import os
import random
import socket
import struct

import pytest

from lab.iommu import FAIL, INVALIDATE, IOTLB, MISS, RW, UPDATE, iotlb
from lab.peer import BASIC
from lab.vhostpeer import BackEnd, Channel, F, P, PeerTimeout, Req
from lab.wire import HEADER, NEED_REPLY, REPLY, VERSION, close_fds
from hostile.victim import Victim, returns

OURS = 1 << 32  # where our front-end says that its memory is
# What a back-end asks.
ASK_IOTLB, CONFIG_CHANGE, HOST_NOTIFIER, ASK_CALL, ASK_ERR = 1, 2, 3, 4, 5


def asking(sock, **kw):
    """A back-end that offers translations."""
    kw.setdefault("features", BASIC | F.MQ | F.ACCESS_PLATFORM)
    kw.setdefault("protocol", P.MQ | P.REPLY_ACK | P.STATUS | P.BACKEND_REQ)
    return BackEnd(sock, listen=True, **kw)


def channel(be):
    """The back-end's own channel, on which it asks."""
    fd, be.backend_fd = be.backend_fd, None
    return Channel(socket.socket(fileno=fd), be.timeout)


def update(be):
    """What the front-end says of its memory, on the connection."""
    while (msg := be.channel.recv()).req != Req.IOTLB_MSG:
        close_fds(msg.fds)
    return IOTLB.unpack(msg.payload)


@contextlib.contextmanager
def asks(sock):
    """A program and a back-end that serve each other before and after; gives both and the channel."""
    with asking(sock) as be, Victim(sock, role="frontend", iommu="on") as program:
        be.wait_started()
        returns(be)
        fds = program.fds()
        assert be.features & F.ACCESS_PLATFORM and be.protocol & P.BACKEND_REQ
        with contextlib.closing(channel(be)) as ask:
            yield be, program, ask
        be.drop()
        be.wait_started()
        returns(be, 100)
        program.settled(fds)
        os.close(be.backend_fd)
        assert program.running


def test_a_miss_is_answered(sock):
    """With all of the memory, to be read and written; the acknowledgement comes after the answer."""
    with asks(sock) as (be, program, ask):
        rings = [a for r in be.rings.values() for a in r.addr]
        for iova in (OURS, *rings):
            ask.send(ASK_IOTLB, iotlb(MISS, iova), need_reply=True)
            at, size, uaddr, perm, kind = update(be)
            assert (at, uaddr, perm, kind) == (OURS, OURS, RW, UPDATE)
            assert at <= iova < at + size
            assert ask.recv().u64 == 0
            be.channel.send(Req.IOTLB_MSG, struct.pack("<Q", 0), flags=VERSION | REPLY)
        returns(be, 50)
        assert program.errors() == 0


@pytest.mark.parametrize("asked", [0, 1])
def test_more_acknowledgements_than_updates(sock, asked):
    """The one that nobody waits for ends the connection."""
    with asks(sock) as (be, program, ask):
        for _ in range(asked):
            ask.send(ASK_IOTLB, iotlb(MISS, OURS))
            update(be)
        for _ in range(asked + 1):
            be.channel.send(Req.IOTLB_MSG, struct.pack("<Q", 0), flags=VERSION | REPLY)
        assert be.channel.closed_by_peer()
        program.refused("IOTLB_MSG: an answer that was not asked for")


@pytest.mark.parametrize("iova", [0, OURS - 1, OURS + (1 << 31), (1 << 64) - 1])
def test_a_miss_elsewhere_is_refused(sock, iova):
    with asks(sock) as (be, program, ask):
        ask.send(ASK_IOTLB, iotlb(MISS, iova), need_reply=True)
        assert ask.recv().u64 == 1
        ask.send(ASK_IOTLB, iotlb(MISS, iova))
        ask.send(ASK_IOTLB, iotlb(FAIL, iova), need_reply=True)
        assert ask.recv().u64 == 0
        returns(be, 50)
        assert program.errors() == 0


def test_a_host_notifier_is_refused(sock):
    """Its descriptor is closed, and all goes on."""
    with asks(sock) as (be, program, ask):
        fds = program.fds()
        for fd in (0, 1):
            ask.send(HOST_NOTIFIER, bytes(24), [fd], need_reply=True)
            assert ask.recv().u64 == 1
            ask.send(HOST_NOTIFIER, bytes(24), [fd])
        returns(be, 50)
        program.settled(fds)
        assert program.errors() == 0


NONSENSE = {
    "request 0": (0, b"", "unknown request"),
    "request 6": (6, b"", "unknown request"),
    "request 2^32-1": (0xffffffff, b"", "unknown request"),
    "a short one": (ASK_IOTLB, bytes(26), "wrong size"),
    "a long one": (ASK_IOTLB, bytes(40), "wrong size"),
    "an update": (ASK_IOTLB, iotlb(UPDATE, OURS), "neither a miss"),
    "an invalidation": (ASK_IOTLB, iotlb(INVALIDATE, OURS), "neither a miss"),
    "type 0": (ASK_IOTLB, iotlb(0, OURS), "neither a miss"),
    "another configuration": (CONFIG_CHANGE, b"", "not agreed"),
    "a call": (ASK_CALL, bytes(8), "not agreed"),
    "an error": (ASK_ERR, bytes(8), "not agreed"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense(sock, name):
    req, payload, reason = NONSENSE[name]
    with asks(sock) as (be, program, ask):
        ask.send(req, payload, need_reply=req == ASK_IOTLB)
        assert be.channel.closed_by_peer()
        program.refused(reason)


@pytest.mark.parametrize("flags", [0, 2, VERSION | REPLY])
def test_bad_headers(sock, flags):
    with asks(sock) as (be, program, ask):
        ask.send(ASK_IOTLB, iotlb(MISS, OURS), flags=flags)
        assert be.channel.closed_by_peer()
        program.refused("")


@pytest.mark.parametrize("count", [1, 9, 253])
def test_descriptors(sock, count):
    with asks(sock) as (be, program, ask):
        fds = [os.dup(0) for _ in range(count)]
        ask.send(ASK_IOTLB, iotlb(MISS, OURS), fds)
        close_fds(fds)
        assert be.channel.closed_by_peer()
        program.refused("file descriptors")


def test_noise(sock):
    with asks(sock) as (be, program, ask):
        with contextlib.suppress(OSError):
            ask.send_raw(random.Random(7).randbytes(65536))
        assert be.channel.closed_by_peer()
        program.refused("")


@pytest.mark.parametrize("end", ["before", "inside"])
def test_the_channel_ends(sock, end):
    """Who has nothing more to ask may close it: frames go on."""
    with asks(sock) as (be, program, ask):
        if end == "inside":
            ask.send_raw(HEADER.pack(ASK_IOTLB, VERSION, 32) + b"123")
        ask.close()
        returns(be, 50)
        assert program.errors() == 0


@pytest.mark.parametrize("code", [1, (1 << 64) - 1])
def test_a_translation_refused(sock, code):
    with asks(sock) as (be, program, ask):
        ask.send(ASK_IOTLB, iotlb(MISS, OURS))
        update(be)
        be.channel.send(Req.IOTLB_MSG, struct.pack("<Q", code), flags=VERSION | REPLY)
        assert be.channel.closed_by_peer()
        program.refused("IOTLB_MSG: the peer refused it")


def test_a_flood_of_misses(sock):
    """Nobody reads the answers: what waits is bounded, and then the peer goes."""
    with asks(sock) as (be, program, ask):
        be.channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        one = HEADER.pack(ASK_IOTLB, VERSION | NEED_REPLY, 32) + iotlb(MISS, OURS)
        with contextlib.suppress(OSError, PeerTimeout):
            ask.sock.settimeout(30)
            for _ in range(2000):
                ask.send_raw(one * 50)
        program.refused("does not read")


def test_without_a_channel(sock):
    """A peer that offers translations and no channel to ask for them: iommu=on is without effect."""
    with asking(sock, protocol=P.MQ | P.REPLY_ACK | P.STATUS) as be, \
            Victim(sock, role="frontend", iommu="on") as program:
        for first in range(0, 100, 50):
            be.wait_started()
            assert not be.features & F.ACCESS_PLATFORM
            returns(be, first)
            be.drop()
        assert program.running and program.errors() == 0


def test_not_asked_for(sock):
    """iommu=off, the default, takes no offer of it."""
    with asking(sock) as be, Victim(sock, role="frontend") as program:
        be.wait_started()
        assert not be.features & F.ACCESS_PLATFORM and not be.protocol & P.BACKEND_REQ
        returns(be)
        assert program.running
