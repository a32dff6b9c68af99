# SPDX-License-Identifier: BSD-2-Clause
"""Notifications as messages (INBAND_NOTIFICATIONS) in both roles: a program with inband=on is woken by them and wakes its peer by them,
never waits for the socket, forgets no ring, and ends with a peer that uses them wrongly. Whoever does not ask for them has none."""
import contextlib
import itertools
import os

import pytest

from lab import avip
from lab.frames import check, numbered
from lab.inband import CALL, ERR, NEEDS, InbandBackEnd, InbandFrontEnd
from lab.peer import BASIC, QEMU_PROTOCOL
from lab.proc import Proc, preload_env
from lab.vhostpeer import BackEnd, F, FrontEnd, P, PeerClosed, PeerTimeout, Req
from lab.wire import HEADER, NO_FD, REPLY, VERSION, u64, vring_state
from interop.port import port
from hostile.victim import Victim, echoes, next_driver_is_served, next_is_served, returns, serves, until

FORMATS = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FORMATS)
FLOOD = 5000
ENDED = (PeerClosed, PeerTimeout, BrokenPipeError, ConnectionResetError)


@contextlib.contextmanager
def served(sock, fmt="split", kind=InbandFrontEnd, **kw):
    """A front-end and a program that echoes; on leaving, the next front-end is served, and nothing is left behind."""
    with kind(sock, features=FORMATS[fmt], listen=False, **kw) as fe, Victim(sock, mode="listen", inband="on", format=fmt) as program:
        serves(fe)
        fds = program.fds()
        yield fe, program
        fe.answering = True
        next_driver_is_served(fe, program, fds)


@contextlib.contextmanager
def serving(sock, fmt="split", **kw):
    """The same with a back-end."""
    with InbandBackEnd(sock, features=FORMATS[fmt] | F.MQ, **kw) as be, \
            Victim(sock, mode="listen", role="frontend", inband="on", format=fmt) as program:
        be.wait_started()
        returns(be)
        fds = program.fds()
        yield be, program
        next_is_served(be, program, fds)


def woken(program, frame):
    """A program that sleeps is woken by a message for frames, one of which frame(n) sends and takes back."""
    before = program.lane()["rx_wakeups"]
    numbers = itertools.count(1 << 16)
    until(lambda: frame(next(numbers)) or program.lane()["rx_wakeups"] > before, "a wake-up")


# --- they do what eventfds do ------------------------------------------------------------------


@formats
def test_back_end(sock, fmt):
    """Frames one by one, each of which is called for."""
    with served(sock, fmt) as (fe, program):
        for n in range(100):
            called = fe.called.count(0)
            fe.rx.suppress_calls(False)
            fe.send(numbered(n, 60))
            until(lambda called=called: fe.called.count(0) > called, "a call")
            assert check(fe.recv().frame) == n
        assert set(fe.called) <= {0, 1} and not fe.errors
        woken(program, lambda n: echoes(fe, n, 1))
        assert fe.tx.kicks and not program.errors()


@formats
def test_front_end(sock, fmt):
    with serving(sock, fmt) as (be, program):
        returns(be, 0, 100)
        assert not {("<", Req.SET_VRING_KICK), ("<", Req.SET_VRING_CALL)} & set(be.channel.log)
        woken(program, lambda n: returns(be, n, 1))
        assert {0, 1} == set(be.kicked) and be.queue(0).calls and not program.errors()


def test_queues(sock):
    """Each ring by its own number."""
    with InbandFrontEnd(sock, queues=3, listen=False) as fe, Victim(sock, mode="listen", inband="on", queues=3) as program:
        fe.start_like_qemu()
        for q in range(3):
            fe.post_rx([2048] * 32, queue=q)
        for n in range(60):
            fe.send(numbered(n, 60), queue=n % 3)
            _, pkt = fe.recv_any()
            assert check(pkt.frame) == n
        assert not program.errors()


def test_no_descriptor_bit(sock):
    """KICK and CALL that say that no descriptor comes: messages are what there is."""
    with served(sock) as (fe, program):
        for i in range(2):
            for req in (Req.SET_VRING_KICK, Req.SET_VRING_CALL):
                fe.channel.send(req, u64(i | NO_FD))
        echoes(fe, 100, 50)
        assert not program.errors()


def test_eventfds_go_first(sock):
    """Rings that were given eventfds use those, and messages again when they are taken back."""
    with served(sock) as (fe, program):
        for i, q in enumerate(fe.queues):
            fe.channel.send(Req.SET_VRING_KICK, u64(i), [q.kick_fd])
            fe.channel.send(Req.SET_VRING_CALL, u64(i), [q.call_fd])
        fe.channel.request(Req.GET_FEATURES)
        called = len(fe.called)
        kick, fe.tx.kick = fe.tx.kick, lambda: os.eventfd_write(fe.tx.kick_fd, 1)
        echoes(fe, 100, 50)
        assert len(fe.called) == called
        fe.tx.kick = kick
        echoes(fe, 200, 50)  # a message rings who listens to the eventfd
        assert len(fe.called) == called
        for i in range(2):
            for req in (Req.SET_VRING_KICK, Req.SET_VRING_CALL):
                fe.channel.send(req, u64(i | NO_FD))
        echoes(fe, 300, 50)
        assert len(fe.called) > called
        assert not program.errors()


def test_stop_and_start(sock):
    """A stopped ring starts with its next kick."""
    with served(sock) as (fe, program):
        for n in range(5):
            bases = fe.stop_like_qemu()
            assert bases == [q.last_used for q in fe.queues]
            fe.start_like_qemu()
            echoes(fe, 100 * n, 10)
        assert not program.errors()


def test_disabled_ring(sock):
    """What is sent on a disabled ring is taken and thrown away, kick by kick."""
    with served(sock) as (fe, program):
        fe.acked(Req.SET_VRING_ENABLE, vring_state(1, 0))
        for n in range(20):
            fe.send(numbered(n, 60))
            fe.wait_sent()
        fe.acked(Req.SET_VRING_ENABLE, vring_state(1, 1))
        echoes(fe, 100)
        assert not program.errors()


@pytest.mark.parametrize("role", ["frontend", "backend"])
def test_both_ends_are_ours(sock, role):
    """The sender ends at once after its last frame: what it has sent arrives all the same."""
    other = {"frontend": "backend", "backend": "frontend"}[role]
    sender = """
import errno, os, socket, struct, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
n = 0
while n < 3000:
    try:
        s.send(bytes(12) + b"\\x88\\xb5" + struct.pack("!I", n) + bytes(42))
        n += 1
    except OSError as e:
        if e.errno != errno.ENETDOWN:
            raise
        time.sleep(0.001)
os.write(1, b"sent\\n")
"""
    receiver = """
import os, socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
os.write(1, b"ready\\n")
for n in range(3000):
    assert struct.unpack_from("!I", s.recv(4096), 14)[0] == n
os.write(1, b"all of them\\n")
"""
    with Proc(["/usr/bin/python3", "-c", receiver],
              env=preload_env(port(sock, mode="listen", role=other, inband="on"))) as r:
        r.expect("ready\n")
        with Proc(["/usr/bin/python3", "-c", sender], env=preload_env(port(sock, role=role, inband="on"))) as s:
            s.expect("sent\n", 60)
            s.wait(60)
        r.expect("all of them\n", 60)


# --- only where both want it -------------------------------------------------------------------


def test_off_by_default(sock):
    with FrontEnd(sock, protocol=QEMU_PROTOCOL | P.INBAND) as fe, Victim(sock) as program:
        serves(fe)
        assert not fe.offered_protocol & (P.INBAND | P.BACKEND_REQ)
        assert not program.errors()


def test_front_end_off_by_default(sock):
    with BackEnd(sock, listen=True, protocol=P.MQ | P.STATUS | NEEDS) as be, Victim(sock, role="frontend") as program:
        be.wait_started()
        returns(be)
        assert not be.protocol & (P.INBAND | P.BACKEND_REQ) and not program.errors()


@pytest.mark.parametrize("lacks", [P.INBAND, P.BACKEND_REQ, P.REPLY_ACK], ids=["all of it", "BACKEND_REQ", "REPLY_ACK"])
def test_peer_that_cannot(sock, lacks):
    """A program in the front-end role uses eventfds then, and says so."""
    with BackEnd(sock, listen=True, protocol=(P.MQ | P.STATUS | NEEDS) & ~lacks) as be, \
            Victim(sock, role="frontend", inband="on") as program:
        be.wait_started()
        returns(be)
        assert not be.protocol & (P.INBAND | P.BACKEND_REQ)
        program.expect("inband=on is without effect")
        assert not program.errors()


def test_front_end_that_does_not_want_it(sock):
    with FrontEnd(sock) as fe, Victim(sock, inband="on") as program:
        serves(fe)
        assert fe.offered_protocol & NEEDS == NEEDS and not program.errors()


# --- a peer that takes its time ----------------------------------------------------------------


def waiting(channel):
    """The messages that are in the socket."""
    msgs = []
    with contextlib.suppress(PeerTimeout):
        while True:
            msgs.append(channel.recv(0.01))
    return msgs


def test_calls_that_nobody_acknowledges(sock):
    """Frames move on without them, one is on its way, and with its acknowledgement comes what is due."""
    with served(sock) as (fe, program):
        fe.drop()
        fe.reset_rings()
        fe.answering = False
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        for n in range(200):
            fe.send(numbered(n, 60))
            until(fe.rx.completed, "an echo")  # seen without a call
            assert check(fe.recv().frame) == n
        first = fe.backend.recv()
        assert first.req == CALL and not waiting(fe.backend)
        # The other ring's is due, and the first one's again; then nothing.
        rings = [first.payload[0]]
        with contextlib.suppress(PeerTimeout):
            while True:
                fe.acknowledge()
                rings.append(fe.backend.recv(0.2).payload[0])
        assert 2 <= len(rings) <= 4 and set(rings) <= {0, 1}
        assert not program.errors()


def test_kicks_that_nobody_acknowledges(sock):
    """The same of a front-end: what it sends meanwhile is in the ring."""
    with serving(sock) as (be, program):
        kicks = []

        def silent(_, msg):
            kicks.append(msg)
        be.instead = {Req.VRING_KICK: silent}
        for n in range(100):
            be.send(numbered(n, 60))
            until(lambda: be.queue(1).ring.avail_idx != be.queue(1).last_avail, "a frame")
            assert check(be.recv().frame) == n
        with contextlib.suppress(PeerTimeout):
            be.wait(lambda: False, 0.05)
        assert len(kicks) <= 1
        be.instead = {}
        for _ in kicks:
            be.channel.send(Req.VRING_KICK, u64(0), flags=VERSION | REPLY)
        returns(be, 100)
        assert not program.errors()


def test_another_channel(sock):
    """It is given anew with a call unacknowledged: that is told once more on the new one."""
    with served(sock) as (fe, program):
        fe.drop()
        fe.reset_rings()
        fe.answering = False
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        old, _ = fe.backend, fe.backend.recv()
        fe.answering = True
        fe._open_backend_channel()
        assert not fe.thread is None
        echoes(fe)
        old.close()
        echoes(fe, 100)
        assert fe.called and not program.errors()


def test_channel_that_is_closed(sock):
    """Nothing can be told then, and frames move for who looks."""
    with served(sock) as (fe, program):
        fe.backend.sock.shutdown(2)
        for n in range(50):
            fe.send(numbered(n, 60))
            until(fe.rx.completed, "an echo")
            assert check(fe.recv().frame) == n
        assert not program.errors()


@pytest.mark.parametrize("ack", [True, False])
def test_flood_of_kicks(sock, ack):
    """Of every ring, while frames move."""
    with served(sock) as (fe, program):
        for n in range(FLOOD):
            fe.kick(n % 2, need_reply=ack)
            if n % 100 == 0:
                echoes(fe, n, 1)
        echoes(fe)
        assert not program.errors()


def test_flood_of_calls(sock):
    """Without a wish for answers, and to rings with nothing in them."""
    with serving(sock) as (be, program):
        for n in range(FLOOD):
            be.ask.send(CALL, vring_state(n % 2, 0))
            if n % 100 == 0:
                returns(be, n, 1)
        returns(be)
        assert not program.errors()


def test_calls_whose_acknowledgements_nobody_reads(sock):
    """A peer like that is cut off before they pile up."""
    with serving(sock) as (be, program):
        be.ask.sock.settimeout(1)
        with contextlib.suppress(*ENDED, OSError):
            for _ in range(1000 * FLOOD):
                be.ask.send(CALL, vring_state(0, 0), need_reply=True)
        assert be.channel.closed_by_peer()
        program.refused("does not read its replies")


# --- wrong ones ----------------------------------------------------------------------------------


def not_agreed(fe):
    """Connect without it, and kick."""
    fe.drop()
    fe.reset_rings()
    fe.want_protocol = QEMU_PROTOCOL
    fe.connect()
    fe.get_features()
    fe.negotiate_protocol(0)
    fe.want_protocol = QEMU_PROTOCOL | P.INBAND
    fe.channel.send(Req.VRING_KICK, vring_state(1, 0))


def agree(features):
    """SET_PROTOCOL_FEATURES of a new connection."""
    def attack(fe):
        fe.drop()
        fe.reset_rings()
        fe.connect()
        fe.channel.send(Req.SET_PROTOCOL_FEATURES, u64(features))
    return attack


def unasked(fe):
    fe.drop()
    fe.reset_rings()
    fe.connect_like_qemu()
    fe.acknowledge()


def refused(fe, answer=lambda fe: fe.acknowledge(code=1)):
    fe.drop()
    fe.reset_rings()
    fe.answering = False
    fe.start_like_qemu()
    fe.backend.recv()
    answer(fe)


def long_answer(fe):
    refused(fe, lambda fe: fe.backend.send(CALL, bytes(16), flags=VERSION | REPLY))


def twice(fe):
    def answer(fe):
        fe.backend.send_raw((HEADER.pack(CALL, VERSION | REPLY, 8) + u64(0)) * 40)
    refused(fe, answer)


def with_descriptor(fe):
    refused(fe, lambda fe: fe.backend.send(CALL, u64(0), [0], flags=VERSION | REPLY))


# How, and the reason that the port gives.
KICKS = {
    "no such ring": (lambda fe: fe.channel.send(Req.VRING_KICK, vring_state(2, 0)), "ring 2, where there are 2"),
    "ring 2^32-1": (lambda fe: fe.channel.send(Req.VRING_KICK, vring_state(0xffffffff, 0)), "ring 4294967295, where there are 2"),
    "no payload": (lambda fe: fe.channel.send(Req.VRING_KICK), "VRING_KICK: payload of a wrong size"),
    "half of one": (lambda fe: fe.channel.send(Req.VRING_KICK, bytes(4)), "VRING_KICK: payload of a wrong size"),
    "two of them": (lambda fe: fe.channel.send(Req.VRING_KICK, bytes(16)), "VRING_KICK: payload of a wrong size"),
    "a descriptor": (lambda fe: fe.channel.send(Req.VRING_KICK, vring_state(1, 0), [0]), "VRING_KICK: wrong number of file descriptors"),
    "not agreed on": (not_agreed, "VRING_KICK refused: it was not agreed on"),
    "agreed without a channel": (agree(P.INBAND | P.REPLY_ACK), "in-band notifications without BACKEND_REQ and REPLY_ACK"),
    "agreed without answers": (agree(P.INBAND | P.BACKEND_REQ), "in-band notifications without BACKEND_REQ and REPLY_ACK"),
    "changed while running": (lambda fe: fe.channel.send(Req.SET_PROTOCOL_FEATURES, u64(QEMU_PROTOCOL & fe.offered_protocol)),
                              "other notifications while a ring runs"),
    "an answer to nothing": (unasked, "the back-end's VRING_CALL: an answer that was not asked for"),
    "a call that is refused": (refused, "the back-end's VRING_CALL: the peer refused it"),
    "an answer of 16 bytes": (long_answer, "the back-end's VRING_CALL: reply of a wrong size"),
    "answers and no end": (twice, "the back-end's VRING_CALL: an answer that was not asked for"),
    "an answer with a descriptor": (with_descriptor, "the back-end's channel: file descriptors on a reply"),
}


@pytest.mark.parametrize("name", KICKS)
def test_wrong_to_a_back_end(sock, name):
    how, reason = KICKS[name]
    with served(sock) as (fe, program):
        how(fe)
        assert fe.channel.closed_by_peer()
        program.refused(reason)


def test_refused_kick(sock):
    """With an acknowledgement asked for, the answer says it, and all goes on."""
    with served(sock) as (fe, program):
        assert fe.channel.request(Req.VRING_KICK, vring_state(77, 0), need_reply=True).u64 == 1
        echoes(fe)
        assert not program.errors()


def test_kick_before_the_ring(sock):
    """Kicks that come first start nothing by themselves, and what follows in any order does."""
    with served(sock) as (fe, program):
        fe.drop()
        fe.reset_rings()
        fe.connect_like_qemu()
        for i in (0, 1):
            fe.kick(i)
        fe.set_features()
        fe.kick(1)
        fe.send_memory()
        fe.kick(0)
        fe.each_ring(Req.SET_VRING_ADDR)
        fe.kick(1)
        fe.each_ring(Req.SET_VRING_NUM)
        fe.post_rx([2048] * 32)
        echoes(fe)
        assert not program.errors()


def test_broken_ring_is_told(sock):
    """The program says which, before it ends the connection."""
    with served(sock) as (fe, program):
        fe.tx.ring.avail_idx = fe.tx.avail_next + 300
        fe.tx.kick()
        assert fe.channel.closed_by_peer()
        program.refused("ring 1: ")
        fe.thread.join(10)
        assert fe.errors == [1]


def send(req, payload, fds=(), **kw):
    """Something on the channel."""
    return lambda be: be.ask.send(req, payload, fds, **kw)


def answers(be):
    """To one kick of the program's, or to none."""
    be.channel.send_raw((HEADER.pack(Req.VRING_KICK, VERSION | REPLY, 8) + u64(0)) * 40)


def refuse_kick(be):
    """The frame that the program sends is one that it must kick for."""
    be.queue(1).suppress_kicks(False)
    be.refuse[Req.VRING_KICK] = 1
    be.send(numbered(1, 60))
    kicked = len(be.kicked)
    be.wait(lambda: len(be.kicked) > kicked)
    be.refuse = {}


CALLS = {
    "no such ring": (send(CALL, vring_state(2, 0)), "the back-end's VRING_CALL: no such ring"),
    "ring 2^32-1": (send(CALL, vring_state(0xffffffff, 0)), "the back-end's VRING_CALL: no such ring"),
    "an error of no ring": (send(ERR, vring_state(9, 0)), "the back-end's VRING_ERR: no such ring"),
    "an error": (send(ERR, vring_state(1, 0)), "the back-end's VRING_ERR: the peer cannot go on with a ring"),
    "no payload": (send(CALL, b""), "the back-end's VRING_CALL: payload of a wrong size"),
    "two payloads": (send(CALL, bytes(16)), "the back-end's VRING_CALL: payload of a wrong size"),
    "a descriptor": (send(CALL, vring_state(0, 0), [0]), "the back-end's VRING_CALL: wrong number of file descriptors"),
    "more answers than kicks": (answers, "VRING_KICK: an answer that was not asked for"),
    "a kick that is refused": (refuse_kick, "VRING_KICK: the peer refused it"),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_to_a_front_end(sock, name):
    how, reason = CALLS[name]
    with serving(sock) as (be, program):
        how(be)
        assert be.channel.closed_by_peer()
        program.refused(reason)


def test_peers_die_with_messages_on_their_way(sock):
    """Again and again, whether an answer is due or not."""
    with served(sock) as (fe, program):
        for n in range(20):
            fe.new_driver()
            fe.answering = n % 2
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            for k in range(n):
                fe.send(numbered(k, 60))
        assert not program.errors()
