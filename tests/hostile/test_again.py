# SPDX-License-Identifier: BSD-2-Clause
"""Every attack again and again on one program: nothing adds up. Afterwards it has the descriptors, the mappings and the memory that
it had after the first rounds, each attack was counted as a fault of the peer's, and a well-behaved peer is served.
How many rounds: see cycles.py.
"""
import contextlib

import pytest

from lab.vhostpeer import BASIC, BackEnd, FrontEnd, PeerClosed, PeerTimeout
from hostile import test_packed, test_rings
from hostile.cycles import WARM, Cycles, held
from hostile.test_messages import ATTACKS
from hostile.test_replies import WRONG, until_closed
from hostile.victim import Victim, echoes, returns, serves, until

pytestmark = pytest.mark.usefixtures("small_pages")
ENDED = (PeerClosed, PeerTimeout, BrokenPipeError, ConnectionResetError)

# Takes half a second each: once every ten rounds.
SLOW = {"answers never read", "more slots than there are", "noise"}


def look(program):
    """What it holds, once it has slept; a descriptor with which it tries to connect may be there or not."""
    fds = min(program.fds() for _ in range(10))
    return held(program.pid)._replace(fds=fds)


def again(program, attack, names, serve):
    """Round after round; serve() is a peer that behaves. attack(name) returns whether it is a fault."""
    faults = attacks = 0
    before = None
    run = Cycles()
    for cycle in run:
        for name in names:
            if name not in SLOW or not cycle % 10:
                attacks += 1
                faults += attack(name)
        if run.done + 1 == WARM:
            serve()
            before = look(program)
    until(lambda: program.errors() >= faults, f"{faults} faults")
    assert program.errors() == faults
    serve()
    program.settled(before.fds)
    assert program.running
    after = held(program.pid)._replace(fds=before.fds)
    Cycles.check(before, after, 0)
    run.note(attacks=attacks, faults=faults, before=before, after=after)


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


RINGS = {"split": (test_rings, BASIC, 256), "packed": (test_packed, test_packed.PACKED, test_packed.SIZE)}


@pytest.mark.parametrize("fmt", RINGS)
def test_rings_again(sock, fmt):
    tests, features, size = RINGS[fmt]
    with FrontEnd(sock, listen=False, features=features, ring=size) as fe, Victim(sock, mode="listen", format=fmt) as program:
        def serve():
            fe.drop()
            fe.reset_rings()
            serves(fe)

        def attack(name):
            fe.drop()
            fe.reset_rings()
            fe.start_like_qemu()
            fe.post_rx([2048] * 4)
            if name in tests.DROPPED:
                tests.dropped(fe, name)
                echoes(fe, 0, 1)
                return 0
            how = tests.BROKEN[name]
            (how if callable(how) else how[0])(fe)
            assert fe.channel.closed_by_peer()
            return 1
        serve()
        again(program, attack, [*tests.BROKEN, *tests.DROPPED], serve)
