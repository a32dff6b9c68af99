# SPDX-License-Identifier: BSD-2-Clause
"""The message sequences of QEMU 4.1 to 10.0 and DPDK 20.11 to 24.11 (sequences.py), played by the scripted
peers against a program under the preload in both roles: each answer is looked at, frames move, the rings
are stopped and go on, the peer or the program is another one, and frames move again. And the programs
themselves, those that this machine has: they say what the tables have."""
import contextlib
import re
import struct
import subprocess

import pytest

from lab.frames import check, numbered
from lab.guest import Guest
from lab.proc import require
from lab.relay import Relay
from lab.testpmd import Testpmd
from lab.vhostpeer import BackEnd, F, FrontEnd, P, Req
from lab.wire import u64, vring_state
from hostile.victim import until
from interop.port import Echo
from interop.sequences import BACK_ENDS, FRONT_ENDS, is_said, request
from interop.test_guest import GUEST_IP, PROGRAM_IP, Responder

RING = (Req.SET_VRING_NUM, Req.SET_VRING_ADDR, Req.SET_VRING_KICK, Req.SET_VRING_CALL)


class Player:
    """A front-end that says what a sequence has."""

    def __init__(self, fe, sequence):
        self.fe, self.sequence, self.status, self.ends = fe, sequence, 0, {}

    def play(self, rows):
        """Say these rows; each answer must be what the specification has."""
        for row in rows:
            if is_said(row, self.fe.protocol):
                name, *numbers = row.split()
                self._say(request(row), name.endswith("!"), [int(n, 0) for n in numbers])

    def _tell(self, req, payload, ack, fds=()):
        """A message without an answer of its own."""
        if ack:
            self.fe.acked(req, payload, fds)
        else:
            self.fe.channel.send(req, payload, fds)

    def _say(self, req, ack, numbers):
        fe = self.fe
        if req == Req.GET_FEATURES:
            before, now = fe.offered, fe.get_features()
            assert before in (0, now)
        elif req == Req.GET_PROTOCOL_FEATURES:
            before, fe.offered_protocol = fe.offered_protocol, fe.get_u64(req)
            assert before in (0, fe.offered_protocol)
            assert not fe.offered_protocol & (P.CONFIG | P.BACKEND_REQ)
        elif req == Req.SET_PROTOCOL_FEATURES:
            fe.protocol = self.sequence.protocol & fe.offered_protocol
            self._tell(req, u64(fe.protocol), ack)
        elif req == Req.GET_QUEUE_NUM:
            assert fe.get_u64(req) >= self.sequence.pairs
        elif req == Req.GET_MAX_MEM_SLOTS:
            assert fe.get_u64(req) >= 8
        elif req == Req.SET_FEATURES:
            fe.set_features()
        elif req in (Req.SET_MEM_TABLE, Req.ADD_MEM_REG):
            assert ack
            self._memory(req)
        elif req == Req.GET_STATUS:
            assert fe.get_u64(req) == self.status
        elif req == Req.SET_STATUS:
            self.status = numbers[0]
            self._tell(req, u64(self.status), ack)
        elif req == Req.NET_SET_MTU:
            self._tell(req, u64(numbers[0]), ack)
        else:
            self._ring(req, ack, *numbers)

    def _memory(self, req):
        """As the front-end has it, but GET_MAX_MEM_SLOTS is a row of its own."""
        regions = self.fe.memory.regions
        if req == Req.SET_MEM_TABLE:
            self.fe.send_memory()
        for r in regions if req == Req.ADD_MEM_REG else ():
            self.fe.acked(req, struct.pack("<QQQQQ", 0, *r.row()), [r.fd])

    def _ring(self, req, ack, i=None, on=None):
        fe = self.fe
        if req == Req.SET_VRING_BASE:
            zero = F.RING_PACKED & fe.features and 1 << 15
            fe.ring_message(req, i, base=zero if self.sequence.bases_zero else
                            self.ends.pop(i, fe.queues[i].base()))
        elif req in RING:
            fe.ring_message(req, i)
        elif req == Req.SET_VRING_ERR:
            self._tell(req, u64(i), ack, [fe.queues[i].call_fd])
        elif req == Req.SET_VRING_ENABLE:
            self._tell(req, vring_state(i, on), ack)
        elif req == Req.GET_VRING_BASE:
            self.ends[i] = fe.get_base(i)
        else:
            assert req in (Req.SET_OWNER, Req.RESET_DEVICE)
            self._tell(req, b"", ack)

    def kick(self):
        """A back-end that has just come must be told of what is there already."""
        for q in self.fe.queues:
            q.kicked = q.last_used
            if q.avail_next != q.last_used:
                q.kick()

    def start(self, rows):
        """The rows after which frames move."""
        self.play(rows)
        self.kick()


def moves(fe, first):
    """Frames go to and fro, some of which need several buffers."""
    for n, length in enumerate((60, 1514, 9000) * 10, first):
        fe.send(numbered(n, length))
        assert check(fe.recv().frame) == n
    assert all(u.len == 0 for u in fe.wait_sent())


@pytest.mark.parametrize("rings", ["split", "packed"])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_end(sock, name, rings):
    sequence = FRONT_ENDS[name]
    keys = {"mode": "connect" if sequence.listens else "listen", "dialect": "virtio",
            "queues": sequence.pairs}
    features = sequence.features | (F.RING_PACKED if rings == "packed" else 0)
    with FrontEnd(sock, listen=sequence.listens, hdr=12, features=features, queues=sequence.pairs) as fe, \
            Echo(sock, **keys) as program:
        player = Player(fe, sequence)
        fe.connect()
        player.play(sequence.connect + sequence.boot)
        player.start(sequence.start)
        fe.post_rx([2048] * 64)
        moves(fe, 0)
        for n in range(2):
            player.play(sequence.stop)
            assert player.ends == {i: q.base() for i, q in enumerate(fe.queues)}
            if sequence.resume:
                fe.send(numbered(100 + 100 * n, 60), publish=False)  # it waits in the ring
                player.start(sequence.resume)
                fe.tx.publish()
                assert check(fe.recv().frame) == 100 + 100 * n
                moves(fe, 101 + 100 * n)
        another(player, rings)
        assert fe.channel and program.running


def another(player, rings):
    """The connection goes and comes, the driver stays; what a packed ring of either needs anew is test_stale's."""
    fe, sequence = player.fe, player.sequence
    for n in range(2):
        fe.drop()
        if rings == "packed":
            fe.reset_rings()
        player.status, player.ends = 0, {}
        fe.connect()
        fe.protocol = fe.offered = fe.offered_protocol = 0
        player.start(sequence.restart)
        if rings == "packed":
            fe.post_rx([2048] * 64)
        moves(fe, 1000 * (n + 1))


OURS = {Req.GET_QUEUE_NUM: P.MQ, Req.GET_STATUS: P.STATUS, Req.SET_STATUS: P.STATUS,
        Req.NET_SET_MTU: P.NET_MTU, Req.GET_PROTOCOL_FEATURES: 1, Req.SET_PROTOCOL_FEATURES: 1,
        Req.SET_VRING_ENABLE: 1}
ALWAYS = {Req.GET_FEATURES, Req.SET_FEATURES, Req.SET_OWNER, Req.SET_MEM_TABLE, Req.SET_VRING_NUM,
          Req.SET_VRING_BASE, Req.SET_VRING_ADDR, Req.SET_VRING_KICK, Req.SET_VRING_CALL}


def returns(be, first):
    """The same from the device's side."""
    for n, length in enumerate((60, 1514, 9000) * 10, first):
        be.send(numbered(n, length))
        assert check(be.recv().frame) == n


@pytest.mark.parametrize("rings", ["split", "packed"])
@pytest.mark.parametrize("name", BACK_ENDS)
def test_back_end(sock, name, rings):
    """Nothing is acknowledged that is not both offered and ours, and nothing said that was not agreed."""
    offer = BACK_ENDS[name]
    features = offer.features if rings == "packed" else offer.features & ~F.RING_PACKED
    with BackEnd(sock, listen=True, hdr=12, features=features & ~F.PROTOCOL, protocol=offer.protocol,
                 max_pairs=offer.pairs) as be, \
            Echo(sock, dialect="virtio", role="frontend", mode="connect") as program:
        for n in range(3):
            be.wait_started()
            assert be.features & ~(features | F.PROTOCOL) == 0 and be.protocol & ~offer.protocol == 0
            assert bool(be.features & F.RING_PACKED) == (rings == "packed")
            assert be.protocol & ~(P.MQ | P.REPLY_ACK | P.NET_MTU | P.STATUS) == 0
            returns(be, 1000 * n)
            assert be.status == (0xf if be.protocol & P.STATUS else 0)
            for _, req in be.channel.log:
                assert req in ALWAYS or (offer.protocol and OURS[req] & (be.protocol | 1))
                assert req != Req.NET_SET_MTU or be.features & F.MTU
            be.drop()
        assert program.running


# --- the programs themselves -----------------------------------------------------------------------

def plain(word):
    """A row as the tables have it, of what was heard."""
    name, *numbers = word.split()
    if request(word) in (Req.SET_FEATURES, Req.SET_PROTOCOL_FEATURES):
        return name
    keep = 1 if request(word) in (Req.SET_VRING_NUM, Req.SET_VRING_BASE) else 2
    return " ".join([name, *numbers[:keep]])


class Heard:
    """What a relay hears, in order, against tables."""

    def __init__(self, relay):
        self.relay, self.at = relay, 0

    def words(self):
        """What is new."""
        return [plain(w) for w in self.relay.words()][self.at:]

    def is_next(self, rows):
        """These rows come, and no others."""
        rows = [r for r in rows if is_said(r, self.protocol())]
        with contextlib.suppress(AssertionError):
            until(lambda: len(self.words()) >= len(rows), "all of them")
        assert self.words()[:len(rows)] == rows
        self.at += len(rows)

    def ends_with(self, rows):
        """These come last; what comes before them is returned."""
        rows = [r for r in rows if is_said(r, self.protocol())]
        with contextlib.suppress(AssertionError):
            until(lambda: self.words()[-len(rows):] == rows, "these")
        assert self.words()[-len(rows):] == rows
        before = self.words()[:-len(rows)]
        self.at += len(before) + len(rows)
        return before

    def protocol(self):
        """What was negotiated last."""
        said = [w for w in self.relay.words() if w.startswith("SET_PROTOCOL_FEATURES")]
        return int(said[-1].split()[1], 16) if said else 0


def test_qemu_says_this(sockdir):
    require("qemu-system-x86_64")
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    name = "QEMU " + re.search(r"version (\d+\.\d+)", said.stdout)[1]
    if name not in FRONT_ENDS:
        pytest.skip(f"no table of {name}")
    sequence = FRONT_ENDS[name]
    front, back = str(sockdir / "f"), str(sockdir / "b")
    keys = {"mode": "listen"}
    with Relay(front, back, front_listens=True) as relay:
        heard = Heard(relay)
        with Responder(back, **keys) as program, \
                Guest(front, ip=GUEST_IP, monitor=str(sockdir / "m")) as vm:
            until(heard.protocol, "what is negotiated")
            heard.is_next(sequence.connect)
            assert heard.protocol() & ~sequence.protocol == 0
            assert set(heard.ends_with(sequence.start)) <= set(sequence.boot)
            assert vm.ping(PROGRAM_IP) == 3
            for _ in range(2):
                vm.hmp("stop")
                heard.is_next(sequence.stop)
                vm.hmp("cont")
                heard.is_next(sequence.resume)
                assert vm.ping(PROGRAM_IP) == 3
            program.kill()
            with Responder(back, **keys):
                # The one that was killed may have been found still listening, and asked its first question.
                assert set(heard.ends_with(sequence.restart)) <= {"GET_FEATURES"}
                assert vm.ping(PROGRAM_IP) == 3
                assert heard.words() == []


def test_testpmd_says_this(sockdir):
    """As a client. One that listens loses a connection that comes while it still closes the last one, so that
    its words over a restart are not to be had every time."""
    sequence = FRONT_ENDS["DPDK 20.11 to 24.11, client"]
    front, back = str(sockdir / "f"), str(sockdir / "b")
    with Relay(front, back) as relay, Echo(back, mode="listen", dialect="virtio"), \
            Testpmd.virtio_user(front) as pmd:
        heard = Heard(relay)
        until(heard.protocol, "what is negotiated")
        heard.is_next(sequence.connect)
        heard.ends_with(sequence.start)
        pmd.quit()
        heard.is_next(sequence.stop)
