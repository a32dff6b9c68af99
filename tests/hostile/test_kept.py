# SPDX-License-Identifier: BSD-2-Clause
"""What a program that is the front-end does with the memory in which back-ends note what they have in flight."""
import os

import pytest

from lab.inflight import DESCRIPTION, Noter
from lab.peer import BASIC
from lab.vhostpeer import F, P
from lab.wire import REPLY, VERSION, Req
from hostile.test_kill import SENDER, number, program
from hostile.victim import Victim, returns

SIZE = 256
FEATURES = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FEATURES)


def noter(sock, fmt="split", **how):
    return Noter(sock, listen=True, features=FEATURES[fmt], **how)


@formats
def test_asked_once_and_given_to_each(sock, fmt):
    """The first back-end is asked, for as many rings and descriptors as there are; each after it is given, before its rings run, a copy that
    nobody else has (test_old_device.py)."""
    with noter(sock, fmt) as be, Victim(sock, role="frontend", ring=SIZE, format=fmt) as p:
        for n in range(4):
            be.wait_started()
            log = [req for way, req in be.channel.log if way == "<"]
            assert log.index(Req.SET_INFLIGHT_FD) < log.index(Req.SET_VRING_KICK)
            returns(be, n * 20)
            be.drop()
        assert be.asked == [(2, SIZE)]
        assert [given[1:] for given in be.given] == [(2, SIZE)] * 4
        assert len({inode for inode, *_ in be.given}) == 4
        assert p.errors() == 0


@formats
def test_forgotten_when_a_back_end_takes_no_part(sock, fmt):
    """What it did is in no notes, so the next one that takes part makes them anew."""
    with noter(sock, fmt) as be, Victim(sock, role="frontend", ring=SIZE, format=fmt):
        be.wait_started()
        returns(be)
        be.drop()
        offer, be.offer_protocol = be.offer_protocol, be.offer_protocol & ~P.INFLIGHT
        be.wait_started()
        returns(be, 20)
        be.drop()
        be.offer_protocol = offer
        be.wait_started()
        returns(be, 40)
        assert len(be.asked) == 2 and be.given[0] != be.given[1]


def test_forgotten_when_it_is_refused(sock):
    """A back-end goes as soon as it sees the notes: the next connection does not bring them again."""
    with noter(sock) as be, Victim(sock, role="frontend", ring=SIZE) as p:
        be.wait_started()
        returns(be)
        be.drop()
        be.connect()
        while len(be.given) < 2:
            be.handle_message()
        be.drop()
        be.wait_started()
        returns(be, 20)
        assert len(be.asked) == 2 and len(be.given) == 3
        assert p.errors() == 0


def test_back_end_out_of_order_dies(sock):
    """It took six frames, gave back the second and fifth, and died. The next one goes by its notes, in the way the specification tells; the one
    after that knows of none. Each frame comes once to those that gave it back, in order otherwise."""
    with noter(sock) as be, program(SENDER, f"{sock},ring=1024,format=split", "frontend"):
        be.wait_started()
        first = [be.recv(complete=False) for _ in range(6)]
        numbers = [number(pkt.frame) for pkt in first]
        assert numbers == list(range(6))
        for pkt in first:
            be.note(pkt.used[0].head)
        for i in (1, 4):
            be.queue(1).push([(first[i].used[0].head, 0)])
            be.strike(first[i].used[0].head)
        be.drop()
        be.wait_started()
        q, region = be.queue(1), be.kept.queue(1)
        held = region.in_flight(q.ring)
        assert held == [first[i].used[0].head for i in (0, 2, 3, 5)]
        # The ring holds the same, in the same order.
        assert held == [q.ring.avail[2 + (q.ring.used_idx + k) % q.size] for k in range(4)]
        assert [number(be.recv().frame) for _ in range(4)] == [0, 2, 3, 5]
        for head in held:
            be.strike(head)
        be.drop()
        be.offer_protocol &= ~P.INFLIGHT
        be.wait_started()
        assert [number(be.recv().frame) for _ in range(200)] == list(range(6, 206))


def answer(queues=2, size=SIZE, fds=1, mmap_size=1 << 16, payload=None):
    """An answer to GET_INFLIGHT_FD that is made up."""
    def send(be, _):
        files = [os.memfd_create("x") for _ in range(fds)]
        data = DESCRIPTION.pack(mmap_size, 0, queues, size, 0) if payload is None else payload
        be.channel.send(Req.GET_INFLIGHT_FD, data, files, flags=VERSION | REPLY)
        for fd in files:
            os.close(fd)
    return send


ANSWERS = {
    "two descriptors": (answer(fds=2), "file descriptors on a reply"),
    "too short": (answer(payload=bytes(8)), "reply of a wrong size"),
    "too long": (answer(payload=bytes(40)), "reply of a wrong size"),
    "fewer rings": (answer(queues=1), "for other rings"),
    "smaller rings": (answer(size=SIZE - 1), "for other rings"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_refused(sock, name):
    send, reason = ANSWERS[name]
    with noter(sock) as be, Victim(sock, role="frontend", ring=SIZE) as p:
        be.wait_started()
        returns(be)
        fds = p.fds()
        be.drop()
        be.offer_protocol &= ~P.INFLIGHT  # so that what was kept is forgotten
        be.wait_started()
        returns(be, 20)
        be.offer_protocol |= P.INFLIGHT
        be.drop()
        be.instead[Req.GET_INFLIGHT_FD] = send
        be.connect()
        while be.channel.log[-1:] != [(">", Req.GET_INFLIGHT_FD)]:
            be.handle_message()
        assert be.channel.closed_by_peer()
        p.refused(reason)
        be.instead.clear()
        be.drop()
        be.wait_started()
        returns(be, 40)
        p.settled(fds)


@pytest.mark.parametrize("send", [answer(fds=0), answer(mmap_size=0), answer(mmap_size=(32 << 20) + 1)],
                         ids=["no descriptor", "no memory", "more than anybody needs"])
def test_back_end_has_none_after_all(sock, send):
    with noter(sock) as be, Victim(sock, role="frontend", ring=SIZE) as p:
        be.instead[Req.GET_INFLIGHT_FD] = send
        be.wait_started()
        returns(be)
        assert not be.given and p.errors() == 0
