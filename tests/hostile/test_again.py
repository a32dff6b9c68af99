# SPDX-License-Identifier: BSD-2-Clause
"""Every attack again and again on one program: nothing adds up. Afterwards it has the descriptors, the mappings and the memory that
it had after the first rounds, each attack was counted as a fault of the peer's, and a well-behaved peer is served.

PD_CYCLES: how many rounds (20; `make soak` takes a thousand).
"""
import contextlib
import os
import re

from lab.proc import library, preload_order
from lab.vhostpeer import BackEnd, FrontEnd, PeerClosed, PeerTimeout
from hostile.test_messages import ATTACKS
from hostile.test_replies import WRONG, until_closed
from hostile.test_rings import BROKEN, DROPPED, dropped
from hostile.victim import Victim, echoes, returns, serves, until

CYCLES = int(os.environ.get("PD_CYCLES", "20"))
WARM = 3  # rounds until what is made once is there
ENDED = (PeerClosed, PeerTimeout, BrokenPipeError, ConnectionResetError)
# What a thousand rounds may add to the memory of a program that loses nothing: pages that its allocator had not touched yet.
SLACK_BYTES = 256 << 10
SANITIZED = len(preload_order(library())) > 1  # a sanitizer keeps what was freed

# Takes half a second each: once every ten rounds.
SLOW = {"answers never read", "more slots than there are", "noise"}


def mappings(pid):
    """How many there are, and how many bytes of its own it has written to."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as f:
        count = len(f.readlines())
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        private = int(re.search(r"Anonymous: *(\d+) kB", f.read())[1]) << 10
    return count, private


def again(program, attack, names, serve):
    """Round after round; serve() is a peer that behaves. attack(name) returns whether it is a fault."""
    faults = 0
    fds = before = None
    for cycle in range(CYCLES):
        for name in names:
            if name not in SLOW or not cycle % 10:
                faults += attack(name)
        if cycle + 1 == WARM:
            serve()
            fds, before = program.fds(), mappings(program.pid)
    until(lambda: program.errors() >= faults, f"{faults} faults")
    assert program.errors() == faults
    serve()
    program.settled(fds)
    assert program.running
    if not SANITIZED:
        count, private = mappings(program.pid)
        assert count <= before[0], f"{count} mappings, {before[0]} before"
        assert private <= before[1] + SLACK_BYTES, f"{private} bytes, {before[1]} before"


def test_messages_again(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def serve():
            fe.drop()
            fe.reset_rings()
            serves(fe)
            fe.drop()
            fe.reset_rings()

        def attack(name):
            fe.reset_rings()
            fe.connect()
            with contextlib.suppress(*ENDED):
                ATTACKS[name][0](fe)
            assert name in SLOW or fe.channel.closed_by_peer()
            fe.drop()
            return 1
        serve()
        again(program, attack, ATTACKS, serve)


def test_replies_again(sock):
    with BackEnd(sock) as be, Victim(sock, mode="listen", role="frontend") as program:
        def serve():
            be.drop()
            be.instead = {}
            be.wait_started()
            returns(be)
            be.drop()

        def attack(name):
            req, how, _ = WRONG[name]
            be.instead = {req: how}
            be.connect()
            until_closed(be)
            be.drop()
            be.instead = {}
            return 1
        serve()
        again(program, attack, WRONG, serve)


def test_rings_again(sock):
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        def serve():
            fe.drop()
            fe.reset_rings()
            serves(fe)

        def attack(name):
            fe.drop()
            fe.reset_rings()
            fe.start_like_qemu()
            fe.post_rx([2048] * 4)
            if name in DROPPED:
                dropped(fe, name)
                echoes(fe, 0, 1)
                return 0
            BROKEN[name][0](fe)
            assert fe.channel.closed_by_peer()
            return 1
        serve()
        again(program, attack, [*BROKEN, *DROPPED], serve)
