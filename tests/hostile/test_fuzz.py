# SPDX-License-Identifier: BSD-2-Clause
"""Random peers against whole programs, in both roles: messages in any order with anything in them, and rings
that are written at random once they run. Whatever happens, the program lives, leaks nothing and serves
the next peer.

A seed is one connection. PD_SEEDS: how many for each test (40; `make fuzz` takes thousands).
PD_FIRST_SEED: the first; a failure names its own.
"""
import contextlib
import os
import random
import struct

import pytest

from lab.vhostpeer import BackEnd, FrontEnd, PeerClosed, PeerTimeout, Req
from lab.wire import HEADER, NO_FD, REPLY, VERSION, mem_table, u64, vring_addr, vring_state
from hostile.victim import Victim, returns, serves

SEEDS = int(os.environ.get("PD_SEEDS", "40"))
FIRST = int(os.environ.get("PD_FIRST_SEED", "0"))
GONE = (PeerClosed, PeerTimeout, AssertionError, OSError, IndexError, struct.error, ValueError)
EDGES = [0, 1, 2, 3, 8, 255, 256, 257, 4095, 4096, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
         1 << 32, 1 << 40, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


class Chance(random.Random):
    """What one seed does. noise: how often a peer departs from what is right; a peer that always does gets
    no further than its first message."""

    def __init__(self, seed):
        super().__init__(seed)
        self.noise = self.choice((0.001, 0.003, 0.01, 0.05, 0.2))

    def odd(self):
        """Depart from it now?"""
        return self.random() < self.noise


def number(rng, true):
    """The true value mostly, else another."""
    if not rng.odd():
        return true
    return (true + rng.choice((-1, 1, 8, 4096)) if rng.random() < 0.5 else rng.choice(EDGES)) % (1 << 64)


def half(rng, true):
    return number(rng, true) & 0xffffffff


def payload(rng, fe, req, i):
    """What this message says for ring i, with some numbers changed; and its descriptors."""
    q = fe.queues[i % 2]
    if req in (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.GET_VRING_BASE, Req.SET_VRING_ENABLE):
        true = {Req.SET_VRING_NUM: q.size, Req.SET_VRING_ENABLE: 1}.get(req, 0)
        return vring_state(half(rng, i), half(rng, true)), []
    if req == Req.SET_VRING_ADDR:
        desc, avail, used = (number(rng, fe.memory.uva(g)) for g in q.gpa)
        return vring_addr(half(rng, i), desc, used, avail), []
    if req in (Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_VRING_ERR):
        if rng.odd():
            return u64(i | NO_FD), []
        return u64(number(rng, i)), [q.kick_fd if req == Req.SET_VRING_KICK else q.call_fd]
    row = fe.memory.regions[0].row()
    if req == Req.SET_MEM_TABLE:
        rows = [tuple(number(rng, x) for x in row) for _ in range(rng.choice((1, 2, 8)) if rng.odd() else 1)]
        return mem_table(rows, half(rng, len(rows))), [fe.memory.fds[0]] * len(rows)
    if req in (Req.ADD_MEM_REG, Req.REM_MEM_REG):
        return bytes(8) + mem_table([tuple(number(rng, x) for x in row)])[8:], \
            [fe.memory.fds[0]] * (req == Req.ADD_MEM_REG)
    if req == Req.SET_FEATURES:
        return u64(number(rng, fe.want & fe.offered)), []
    if req == Req.SET_PROTOCOL_FEATURES:
        return u64(number(rng, fe.offered_protocol)), []
    if req in (Req.SET_STATUS, Req.NET_SET_MTU, Req.SEND_RARP):
        return u64(number(rng, 1500 if req == Req.NET_SET_MTU else 15)), []
    return rng.randbytes(rng.choice((8, 12, 40)) if rng.odd() else 0), []


# The start sequence, from which a random peer departs.
START = [Req.SET_OWNER, Req.GET_FEATURES, Req.GET_PROTOCOL_FEATURES, Req.SET_PROTOCOL_FEATURES,
         Req.SET_FEATURES, Req.SET_MEM_TABLE] + [
             r for _ in range(2) for r in (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.SET_VRING_ADDR,
                                           Req.SET_VRING_CALL, Req.SET_VRING_KICK, Req.SET_VRING_ENABLE)]


def say(rng, fe, req, i):
    """Send one message, changed or not, whole or not."""
    data, fds = payload(rng, fe, req, i)
    flags = VERSION | (rng.choice((0, 8)) if rng.random() < 0.5 else 0)
    size = len(data)
    if rng.odd():
        flags = rng.randrange(16)
    size = half(rng, size)
    if rng.odd():
        fds = [rng.choice([0, *fe.memory.fds, fe.tx.kick_fd]) for _ in range(rng.randrange(10))]
    pieces = [rng.randrange(1, 20) for _ in range(4)] if rng.random() < 0.1 else None
    fe.channel.send_raw(HEADER.pack(req, flags, size) + data, fds, pieces)


def scribble(rng, memory, ring, i):
    """Write into one of a ring's parts: sensible entries, or anything."""
    if rng.odd():
        part = rng.choice((ring.desc, ring.avail.cast("B"), ring.used.cast("B")))
        at = rng.randrange(len(part))
        part[at] = rng.randrange(256)
        return
    r = rng.choice(memory.regions)
    address = r.gpa + (rng.randrange(r.size) if rng.random() < 0.7 else r.size - rng.randrange(100))
    ring.set_desc(rng.randrange(ring.size), number(rng, address), half(rng, rng.randrange(2000)),
                  (2 * (1 - i % 2) | rng.choice((0, 0, 1, 4))) & 0xffff, rng.randrange(ring.size))
    ring.avail[2 + rng.randrange(ring.size)] = number(rng, rng.randrange(ring.size)) & 0xffff


def talk(rng, fe):
    """One connection of a random front-end."""
    fe.connect()
    fe.timeout = fe.channel.timeout = 0.2
    fe.get_features()
    fe.offered_protocol = fe.get_u64(Req.GET_PROTOCOL_FEATURES)
    seen = {}
    for req in START:
        if rng.odd():
            continue
        for r in [req] + [rng.choice(list(Req))] * rng.odd():
            say(rng, fe, r, seen.get(r, 0))
            seen[r] = seen.get(r, 0) + 1
    for _ in range(rng.randrange(60)):
        i = rng.randrange(2)
        q = fe.queues[i]
        scribble(rng, fe.memory, q.ring, i)
        if rng.random() < 0.5:
            q.avail_next = (q.avail_next + rng.randrange(4)) & 0xffff
            q.ring.avail_idx = number(rng, q.avail_next) & 0xffff
            q.kick()
        if rng.odd():
            say(rng, fe, rng.choice(list(Req)), i)
    fe.channel.closed_by_peer(0.005)


def random_peer(seed, attack):
    """One seed; what the peer's own side makes of it does not matter."""
    rng = Chance(seed)
    with contextlib.suppress(*GONE):
        attack(rng)


@pytest.mark.parametrize("dialect", ["avip", "virtio"])
def test_random_front_ends(sock, dialect):
    hdr = 48 if dialect == "avip" else 12
    with FrontEnd(sock, listen=False, hdr=hdr) as fe, Victim(sock, mode="listen", dialect=dialect) as program:
        def served(first):
            fe.new_driver()
            fe.timeout = 10.0
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            mark = b"\x02" * 12 + b"\x88\xb5" + struct.pack("!I", first) + b"here" * 20
            fe.send(mark)
            while fe.recv().frame != mark:  # it owes answers to what it made of the noise
                pass
            if dialect == "avip":
                serves(fe, first)
        served(1)
        fds = program.fds()
        for seed in range(FIRST, FIRST + SEEDS):
            fe.drop()
            fe.reset_rings()
            random_peer(seed, lambda rng: talk(rng, fe))
            assert program.running, f"seed {seed}: {program.tail()}"
            if seed % 20 == 19:
                served(100 + seed)
        served(7)
        program.settled(fds)
        assert program.running


def answer(rng, be):
    """One connection of a random back-end."""
    be.connect()
    be.timeout = be.channel.timeout = 0.2

    def wrong(peer, msg):
        data = u64(number(rng, {Req.GET_FEATURES: be.offer, Req.GET_QUEUE_NUM: 1,
                                Req.GET_PROTOCOL_FEATURES: be.offer_protocol}.get(msg.req, 0)))
        if rng.odd():
            data = rng.randbytes(rng.randrange(20))
        req = number(rng, msg.req)
        flags = rng.randrange(16) if rng.odd() else VERSION | REPLY
        fds = [0] * rng.randrange(10) if rng.odd() else []
        peer.channel.send(req & 0xffffffff, data, fds, flags=flags)
    be.instead = {req: wrong for req in (Req.GET_FEATURES, Req.GET_PROTOCOL_FEATURES, Req.GET_QUEUE_NUM,
                                         Req.SET_MEM_TABLE, Req.SET_OWNER, Req.SET_FEATURES)
                  if rng.odd()}
    be.wait_started(timeout=0.5)
    for _ in range(rng.randrange(60)):
        i = rng.randrange(2)
        q = be.queue(i)
        if rng.random() < 0.3:
            scribble(rng, be.memory, q.ring, i)
        at = q.used_next % q.size
        q.ring.used_elem[2 * at] = half(rng, q.ring.avail[2 + at])
        q.ring.used_elem[2 * at + 1] = half(rng, rng.randrange(2049))
        if i == 0:  # a header that claims some buffers
            r = be.memory.regions[0]
            r.view[rng.randrange(0, r.size - 2048, 64)] = rng.randrange(4)
        q.used_next = (q.used_next + 1) & 0xffff
        q.ring.used_idx = number(rng, q.used_next) & 0xffff
        os.eventfd_write(be.rings[i].call, 1)
        if rng.odd():
            be.channel.send(rng.choice(list(Req)), u64(0), flags=VERSION | REPLY)
    be.channel.closed_by_peer(0.005)


def test_random_back_ends(sock):
    with BackEnd(sock) as be, Victim(sock, role="frontend", mode="listen", ring=64) as program:
        def served(first):
            be.drop()
            be.instead, be.timeout = {}, 10.0
            be.wait_started()
            mark = b"\x02" * 12 + b"\x88\xb5" + struct.pack("!I", first) + b"here" * 20
            be.send(mark)
            while be.recv().frame != mark:  # it owes answers to what it made of the noise
                pass
            returns(be, first)
        served(1)
        fds = program.fds()
        for seed in range(FIRST, FIRST + SEEDS):
            be.drop()
            random_peer(seed, lambda rng: answer(rng, be))
            assert program.running, f"seed {seed}: {program.tail()}"
            if seed % 20 == 19:
                served(100 + seed)
        served(7)
        program.settled(fds)
        assert program.running
