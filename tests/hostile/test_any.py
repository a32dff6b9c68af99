# SPDX-License-Identifier: BSD-2-Clause
"""What may go wrong at any place, at every place: a message cut behind each of its bytes, a sidecar that goes on in another
descriptor behind each of its bytes, every message and answer with every number of descriptors, rings whose parts lie over each other."""
import contextlib
import os
import socket
import struct

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd, P, PeerClosed, PeerTimeout, Req
from lab.wire import HEADER, VERSION, mem_table, u64, vring_addr, vring_state
from hostile.test_reconnect import SOON
from hostile.test_replies import until_closed
from hostile.victim import Victim, echoes, next_is_served, returns, serves

ENDED = (PeerClosed, PeerTimeout, BrokenPipeError, ConnectionResetError)
REQUESTS = 41


@pytest.mark.parametrize("fmt", ["split", "packed"])
def test_sidecar_cut_behind_each_byte(sock, fmt):
    """Sent over two descriptors, and over three with the frame's first bytes in the second."""
    with FrontEnd(sock, features=BASIC | (F.RING_PACKED if fmt == "packed" else 0)) as fe, \
            Victim(sock, format=fmt) as program:
        serves(fe)
        for n in range(1, 48):
            for cut in ([n], [n, 48 - n + 5]):
                fe.send(numbered(n, 60), avip.distinct(n), split=cut)
                pkt = fe.recv()
                assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=len(pkt.used))
        assert not program.errors()


def test_message_cut_behind_each_byte(sock):
    """The pieces of a memory table come one after the other; its descriptors come with the first. The program has to wait for the
    rest, and the answer to the question behind it says that it was whole."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        payload = mem_table([r.row() for r in fe.memory.regions])
        table = HEADER.pack(Req.SET_MEM_TABLE, VERSION, len(payload)) + payload
        ask = HEADER.pack(Req.GET_FEATURES, VERSION, 0)
        for n in range(1, len(table) + len(ask)):
            fe.channel.send_raw((table + ask)[:n], fe.memory.fds)
            fe.channel.send_raw((table + ask)[n:])
            assert fe.channel.recv().req == Req.GET_FEATURES
        echoes(fe, 50)
        assert not program.errors()


def payload_of(req, fe):
    """A payload that is right for the request as far as its size goes."""
    if req == Req.SET_MEM_TABLE:
        return mem_table([fe.memory.regions[0].row()])
    if req in (Req.ADD_MEM_REG, Req.REM_MEM_REG):
        return struct.pack("<QQQQQ", 0, *fe.memory.regions[0].row())
    if req == Req.SET_VRING_ADDR:
        return vring_addr(0, 0, 0, 0)
    if req in (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.GET_VRING_BASE, Req.SET_VRING_ENABLE, Req.VRING_KICK):
        return vring_state(0, 1)
    if req == Req.SET_LOG_BASE:
        return u64(4096) * 2
    if req in (Req.GET_FEATURES, Req.SET_OWNER, Req.RESET_OWNER, Req.GET_PROTOCOL_FEATURES, Req.GET_QUEUE_NUM,
               Req.SET_BACKEND_REQ_FD, Req.RESET_DEVICE, Req.GET_MAX_MEM_SLOTS, Req.GET_STATUS):
        return b""
    return u64(0)


def with_descriptors(fe, req, count):
    """The request with so many descriptors of each of three kinds, over a connection of its own, which the program ends."""
    for what in (os.dup(0), os.eventfd(0), os.memfd_create("x")):
        fe.drop()
        fe.connect()
        with contextlib.suppress(*ENDED):
            fe.channel.send(req, payload_of(req, fe), [what] * count)
            fe.channel.send(Req.GET_FEATURES)
            fe.channel.sock.shutdown(socket.SHUT_WR)
        os.close(what)
        assert fe.channel.closed_by_peer()


@pytest.mark.parametrize("count", [0, 1, 9, 253])
def test_descriptors_on_any_message(sock, count):
    """Whatever becomes of it, nothing stays behind and the next peer is served."""
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        serves(fe)
        fds = program.fds()
        for req in range(REQUESTS):
            with_descriptors(fe, req, count)
        fe.new_driver()
        serves(fe, 100)
        program.settled(fds)


class Noted(dict):
    """Nothing, of which it is known what was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = {}

    def get(self, key, default=None):
        self.asked[key] = None
        return default


EVERYTHING = P.MQ | P.REPLY_ACK | P.STATUS | P.BACKEND_REQ | P.INFLIGHT | P.MEM_SLOTS | P.NET_MTU | P.RARP


def answers_of(be):
    """The requests of a front-end that starts which are answered."""
    be.beside = Noted()
    be.wait_started()
    asked, be.beside = list(be.beside.asked), {}
    return asked


def with_answered_descriptors(be, req, count):
    """The right answer to this with so many descriptors of each of three kinds, on connections of their own, which the program ends."""
    for what in (os.dup(0), os.eventfd(0), os.memfd_create("x")):
        be.drop()
        be.beside = {req: [what] * count}
        be.connect()
        until_closed(be)
        os.close(what)
    be.beside = {}


@pytest.mark.parametrize("count", [1, 9, 253])
def test_descriptors_on_any_answer(sock, count):
    with BackEnd(sock, listen=True, protocol=EVERYTHING) as be, Victim(sock, role="frontend", env=SOON) as program:
        asked = answers_of(be)
        returns(be)
        fds = program.fds()
        faults = 0
        assert {Req.GET_FEATURES, Req.GET_PROTOCOL_FEATURES, Req.GET_QUEUE_NUM, Req.SET_MEM_TABLE, Req.GET_INFLIGHT_FD} <= set(asked)
        for req in asked:
            if (req, count) != (Req.GET_INFLIGHT_FD, 1):  # which may have one; what it is then: test_kept.py
                with_answered_descriptors(be, req, count)
                faults += 3
                program.refused("file descriptors", faults)
        next_is_served(be, program, fds)


OVERLAPS = ["all of it", "available over descriptors", "used over available", "both rings"]


def overlap(fe, name):
    """Put the parts of the transmit ring over each other."""
    desc, avail, used = (fe.memory.uva(g) for g in fe.tx.gpa)
    places = {
        "all of it": (desc, desc, desc),
        "available over descriptors": (desc, desc + 16, used),
        "used over available": (desc, avail, avail),
        "both rings": tuple(fe.memory.uva(g) for g in fe.rx.gpa),
    }[name]
    fe.channel.send(Req.SET_VRING_ADDR, vring_addr(1, places[0], places[2], places[1]))


@pytest.mark.parametrize("fmt", ["split", "packed"])
@pytest.mark.parametrize("name", OVERLAPS)
def test_parts_that_overlap(sock, fmt, name):
    """Each part stands in memory of the peer's, so no message is wrong; what is there is not what a ring should be. The program goes
    on, whether frames move, are dropped, or the ring is broken."""
    with FrontEnd(sock, features=BASIC | (F.RING_PACKED if fmt == "packed" else 0), listen=False) as fe, \
            Victim(sock, mode="listen", format=fmt) as program:
        serves(fe)
        fds = program.fds()
        fe.new_driver()
        with contextlib.suppress(*ENDED):
            fe.timeout = 0.2
            fe.start_like_qemu()
            overlap(fe, name)
            fe.post_rx([2048] * 8)
            for n in range(20):
                fe.send(numbered(n, 60), avip.distinct(n))
            fe.recv()
        fe.timeout = 10.0
        assert program.running
        fe.new_driver()
        fe.start_like_qemu()
        fe.post_rx([2048] * 64)
        fe.send(numbered(99, 60), avip.distinct(99))
        while fe.recv().frame != numbered(99, 60):  # what it had taken of the wrong ring comes first
            pass
        serves(fe, 100)
        program.settled(fds)
