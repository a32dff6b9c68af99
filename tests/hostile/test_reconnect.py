# SPDX-License-Identifier: BSD-2-Clause
"""The peer goes before it has said a word, and after each message of its start. palladium_stats says that the port is not up and why; a
peer that behaves is served on the same path, and is counted."""
import contextlib
import re

import pytest

from lab.vhostpeer import BackEnd, FrontEnd, PeerClosed, Req
from hostile.victim import Victim, echoes, returns, until

GONE = "closed|reset"
# Tries to connect come soon after one another, as there are many.
SOON = {"PALLADIUM_RECONNECT_MIN_MS": "1", "PALLADIUM_RECONNECT_MAX_MS": "5"}
ROLES = {"backend": FrontEnd, "frontend": BackEnd}
both = pytest.mark.parametrize("role", ROLES)
modes = pytest.mark.parametrize("mode", ["connect", "listen"])  # the program's; the peer does the other


def start(peer, stop=None):
    """A whole start and frames to and fro; or the first `stop` messages of one, and the end."""
    peer.drop()
    if isinstance(peer, BackEnd):
        if stop is None:
            peer.wait_started()
            returns(peer)
            return
        peer.connect()
        for _ in range(stop):
            peer.handle_message()
        peer.drop()
        return
    peer.reset_rings()
    peer.connect()
    send = peer.channel.send

    def some(*args, **kw):
        if stop is not None and len(peer.channel.log) >= stop:
            raise PeerClosed("on purpose")
        send(*args, **kw)
    peer.channel.send = some
    with contextlib.suppress(PeerClosed) if stop is not None else contextlib.nullcontext():
        peer.connect_like_qemu()
        peer.start_like_qemu()
        peer.post_rx([2048] * 32)
        echoes(peer)
    if stop is not None:
        peer.drop()


def messages(peer):
    """The messages of the start that the peer has had: how many, and how many of them before the rings can run."""
    log = [req for way, req in peer.channel.log if way == "<" or isinstance(peer, FrontEnd)]
    assert len(log) > 10
    return len(log), max(i for i, req in enumerate(log) if req == Req.SET_VRING_ADDR)


def port_that(program, good):
    """The port, once good(port, its counters) holds."""
    def look():
        p = program.port()
        return p if good(p, p["counters"]) else None
    return until(look, "the port's state")


@modes
@both
def test_after_a_link(sock, role, mode):
    """There was a link before: down, and why; up again after each."""
    with ROLES[role](sock, listen=mode == "connect") as peer, Victim(sock, role=role, mode=mode, env=SOON) as program:
        start(peer)
        (length, short), fds = messages(peer), program.fds()
        connects = 1
        for stop in range(length):
            start(peer, stop)
            p = port_that(program, lambda p, c: p["state"] == "down" and re.search(GONE, p["reason"]) and not c["link"])
            assert re.search(GONE, p["last_error"])
            start(peer)
            p = port_that(program, lambda p, c: p["state"] == "up" and c["link"])
            assert p["reason"] == "" and re.search(GONE, p["last_error"])
            # Rings that could run may have run, which is a link too.
            assert p["counters"]["connects"] - connects in ((1,) if stop <= short else (1, 2))
            connects = p["counters"]["connects"]
            assert p["counters"]["reconnects"] == p["counters"]["disconnects"] == connects - 1
        program.settled(fds)
        assert program.running and program.errors() == 0


@modes
@both
def test_before_the_first_link(sock, role, mode):
    """There never was one: waiting, with the last error; the first that stays is no reconnect."""
    with ROLES[role](sock, listen=mode == "connect") as peer:
        with Victim(sock, role=role, mode=mode, env=SOON) as program:
            start(peer)
            _, short = messages(peer)
            peer.drop()
        with Victim(sock, role=role, mode=mode, env=SOON) as program:
            for stop in range(short):
                start(peer, stop)
            # The error may be that of an earlier one: what tells that the last is gone is the reason, which was how far it had come.
            p = port_that(program, lambda p, c: re.search(GONE, p["last_error"]) and p["reason"] == "its peer has not come yet")
            assert p["state"] == "waiting" and p["counters"]["link"] == 0
            start(peer)
            p = port_that(program, lambda p, c: p["state"] == "up")
            assert p["reason"] == "" and p["counters"]["reconnects"] == p["counters"]["disconnects"] == 0
            assert p["counters"]["connects"] == 1 and program.errors() == 0
