# SPDX-License-Identifier: BSD-2-Clause
"""Wrong answers to a program in the front-end role: each ends the connection for a reason that the
counters tell, leaks nothing, and the next peer is served. Strange answers that the specification
allows are lived with."""
import contextlib
import os
import random

import pytest

from lab.vhostpeer import BackEnd, F, P, PeerClosed, Req
from lab.wire import HEADER, REPLY, VERSION, Msg, close_fds, u64, vring_state
from hostile.victim import Victim, returns

ALL = (1 << 64) - 1


def answer(req=None, payload=u64(0), fds=(), **kw):
    """Answer a request in this way, in place of the right one."""
    def attack(be, msg):
        kw.setdefault("flags", VERSION | REPLY)
        be.channel.send(msg.req if req is None else req, payload, fds, **kw)
    return attack


def with_fds(count):
    """The right answer with descriptors that nobody asked for."""
    def attack(be, msg):
        fds = [os.dup(0) for _ in range(count)]
        be.channel.send(msg.req, u64(be.offer), fds, flags=VERSION | REPLY)
        close_fds(fds)
    return attack


def fds_in_payload(be, msg):
    fd = os.dup(0)
    be.channel.send_raw(HEADER.pack(msg.req, VERSION | REPLY, 8))
    be.channel.send_raw(u64(be.offer), [fd])
    os.close(fd)


def twice(be, msg):
    for _ in range(2):
        be.channel.send(msg.req, u64(be.offer), flags=VERSION | REPLY)


def raw(data):
    return lambda be, _: be.channel.send_raw(data)


def cut(be, msg):
    """The end of the connection inside an answer."""
    be.channel.send_raw(HEADER.pack(msg.req, VERSION | REPLY, 8) + b"123")
    be.drop()
    raise PeerClosed("on purpose")


# request answered wrongly: (how, the reason that the port gives, "" for any)
WRONG = {
    "another request": (Req.GET_FEATURES, answer(Req.GET_STATUS), "reply to another request"),
    "request 0": (Req.GET_FEATURES, answer(0), "unknown request"),
    "request 2^32-1": (Req.GET_FEATURES, answer(0xffffffff), "unknown request"),
    "no reply flag": (Req.GET_FEATURES, answer(flags=VERSION), "a request where a reply was due"),
    "version 0": (Req.GET_FEATURES, answer(flags=REPLY), "version"),
    "version 2": (Req.GET_FEATURES, answer(flags=2 | REPLY), "version"),
    "version 3": (Req.GET_FEATURES, answer(flags=3 | REPLY), "version"),
    "no payload": (Req.GET_FEATURES, answer(payload=b""), "wrong size"),
    "half a number": (Req.GET_FEATURES, answer(payload=bytes(4)), "wrong size"),
    "two numbers": (Req.GET_FEATURES, answer(payload=bytes(16)), "wrong size"),
    "the largest payload": (Req.GET_FEATURES, answer(payload=bytes(512)), "wrong size"),
    "payload over the maximum": (Req.GET_FEATURES, answer(size=513), "payload too large"),
    "payload of 2^32-1": (Req.GET_FEATURES, answer(size=0xffffffff), "payload too large"),
    "1 descriptor": (Req.GET_FEATURES, with_fds(1), "file descriptors"),
    "8 descriptors": (Req.GET_FEATURES, with_fds(8), "file descriptors"),
    "9 descriptors": (Req.GET_FEATURES, with_fds(9), "file descriptors"),
    "253 descriptors": (Req.GET_FEATURES, with_fds(253), "file descriptors"),
    "descriptors in a payload": (Req.GET_FEATURES, fds_in_payload, "file descriptors inside"),
    "twice": (Req.GET_FEATURES, twice, "GET_FEATURES: reply to another request"),
    "what needs none": (Req.SET_OWNER, answer(), "SET_OWNER: reply to another request"),
    "a ring's base, unasked": (Req.SET_FEATURES,
                               answer(Req.GET_VRING_BASE, vring_state(0, 65535)),
                               "GET_VRING_BASE: reply to another request"),
    "no queues": (Req.GET_QUEUE_NUM, answer(), "no queues"),
    "memory refused": (Req.SET_MEM_TABLE, answer(payload=u64(1)), "refused"),
    "memory refused with 2^64-1": (Req.SET_MEM_TABLE, answer(payload=u64(ALL)), "refused"),
    "memory refused in 4 bytes": (Req.SET_MEM_TABLE, answer(payload=bytes(4)), "wrong size"),
    "noise": (Req.GET_FEATURES, raw(random.Random(1).randbytes(65536)), ""),
    "noise behind an answer": (Req.GET_PROTOCOL_FEATURES,
                               raw(HEADER.pack(Req.GET_PROTOCOL_FEATURES, VERSION | REPLY, 8)
                                   + u64(0) + b"\xff" * 100), ""),
}

# said while the rings run
UNASKED = {
    "an answer": (answer(Req.GET_FEATURES), "an answer that was not asked for"),
    "a ring's base": (answer(Req.GET_VRING_BASE, vring_state(0, 1 << 31)),
                      "an answer that was not asked for"),
    "a request": (answer(Req.GET_FEATURES, b"", flags=VERSION), "a request where a reply was due"),
    "a memory table": (lambda be, _: be.channel.send(Req.SET_MEM_TABLE, bytes(40), [0]),
                       "a request where a reply was due"),
    "descriptors": (lambda be, _: be.channel.send(Req.GET_STATUS, u64(0), [0, 0],
                                                  flags=VERSION | REPLY), "not asked for"),
    "noise": (raw(random.Random(2).randbytes(65536)), ""),
}


@contextlib.contextmanager
def served(sock, **kw):
    """A program and a back-end that serve each other before and after."""
    with BackEnd(sock, listen=True) as be, Victim(sock, role="frontend", **kw) as program:
        be.wait_started()
        returns(be)
        fds = program.fds()
        be.drop()
        yield be, program
        be.drop()
        be.wait_started()
        returns(be, 100)
        program.settled(fds)
        assert program.running


def until_closed(be):
    """Handle messages until the connection is over."""
    with contextlib.suppress(PeerClosed, ConnectionError):
        while True:
            be.handle_message()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answer(sock, name):
    req, attack, reason = WRONG[name]
    with served(sock) as (be, program):
        be.instead = {req: attack}
        be.connect()
        until_closed(be)
        be.instead = {}
        program.refused(reason)


@pytest.mark.parametrize("name", UNASKED)
def test_unasked(sock, name):
    """Said by a back-end whose rings run."""
    attack, reason = UNASKED[name]
    with served(sock) as (be, program):
        be.wait_started()
        returns(be, 50)
        with contextlib.suppress(ConnectionError):
            attack(be, Msg(Req.GET_FEATURES, VERSION, b"", []))
        assert be.channel.closed_by_peer()
        program.refused(reason)


# What a back-end may say: to which request, how often it is asked for, and what.
STRANGE = {
    "no feature at all": {Req.GET_FEATURES: 0},
    "every feature": {Req.GET_FEATURES: ALL},
    "no protocol feature": {Req.GET_PROTOCOL_FEATURES: 0},
    "every protocol feature": {Req.GET_PROTOCOL_FEATURES: ALL},
    "2^64-1 queues": {Req.GET_QUEUE_NUM: ALL},
    "2^32 queues": {Req.GET_QUEUE_NUM: 1 << 32},
}
OURS = F.MTU | F.MRG_RXBUF | F.ANY_LAYOUT | F.EVENT_IDX | F.PROTOCOL | F.VERSION_1 | F.RING_PACKED | F.IN_ORDER
OUR_PROTOCOL = P.MQ | P.REPLY_ACK | P.NET_MTU | P.INFLIGHT | P.STATUS


@pytest.mark.parametrize("name", STRANGE)
def test_strange_answer(sock, name):
    """Only what was offered, and is known, is asked for; and the link works."""
    said = STRANGE[name]
    with served(sock) as (be, program):
        be.instead = {req: (lambda peer, msg, value=value: answer(payload=u64(value))(peer, msg))
                      for req, value in said.items()}
        be.wait_started()
        returns(be, 50)
        assert not be.features & ~(OURS & said.get(Req.GET_FEATURES, be.offer | F.PROTOCOL))
        assert not be.protocol & ~(OUR_PROTOCOL & said.get(Req.GET_PROTOCOL_FEATURES, ALL))
        assert program.errors() == 0
        be.instead = {}


def test_answers_in_pieces(sock):
    with served(sock) as (be, program):
        def slowly(peer, msg):
            peer.channel.send_raw(HEADER.pack(msg.req, VERSION | REPLY, 8) + u64(peer.offer),
                                  pieces=[1] * 20)
        be.instead = {Req.GET_FEATURES: slowly}
        be.wait_started()
        returns(be, 50)
        assert program.errors() == 0
        be.instead = {}


def test_features_that_change_later(sock):
    """The last question of the start is about features again; its answer no longer matters."""
    with served(sock) as (be, program):
        values = [be.offer | F.PROTOCOL, 0]
        be.instead = {Req.GET_FEATURES: lambda peer, msg: answer(payload=u64(values.pop(0)))(peer, msg)}
        be.wait_started()
        be.wait(lambda: not values, what="the last question")
        returns(be, 50)
        assert program.errors() == 0
        be.instead = {}


@pytest.mark.parametrize("last", [Req.GET_PROTOCOL_FEATURES, Req.SET_MEM_TABLE])
def test_silence_later(sock, last):
    """It answers for a while, then no more: it is given up."""
    with served(sock) as (be, program):
        be.instead = {last: lambda *_: None}
        be.timeout = 60
        be.connect()
        until_closed(be)
        be.instead = {}
        program.refused(f"does not answer {last.name}")


def test_end_inside_an_answer(sock):
    with served(sock) as (be, program):
        for _ in range(3):
            be.instead = {Req.GET_FEATURES: cut}
            be.connect()
            until_closed(be)
        be.instead = {}
        be.wait_started()
        assert program.errors() == 0
