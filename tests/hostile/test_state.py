# SPDX-License-Identifier: BSD-2-Clause
"""What palladium_stats says of a port whose peer is missing, comes, breaks and comes back: state, reason, last error with its age, and
how often. Each step waits for the state that the one before leads to."""
import os
import re
import shutil
import socket
import time

import pytest

from lab.frames import numbered
from lab.proc import build, run, scale
from lab.vhostpeer import BackEnd, FrontEnd
from hostile.victim import Victim, echoes, returns, until


def port_that(program, **wanted):
    """The port, once it shows these values ("counters" are looked through too)."""
    def look():
        p = program.port()
        flat = {**p["counters"], **{k: v for k, v in p.items() if k != "counters"}}
        return p if all(flat[k] == v for k, v in wanted.items()) else None
    return until(look, f"a port with {wanted}")


def line_of(program):
    """Its line in the text report."""
    code, text = run([build("palladium_stats"), "-p", program.pid, "-c", "1"])
    assert code == 0, text
    return next(x for x in text.splitlines() if x.startswith("pd0 "))


def start(fe):
    fe.reset_rings()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)
    echoes(fe)


def test_life_of_a_back_end(sock):
    """No peer; a peer; one that breaks its ring; one that goes; none for a while; one again."""
    with Victim(sock) as program:
        p = port_that(program, state="down", reason="cannot connect: No such file or directory")
        assert p["last_error"] == p["reason"] and p["last_error_age_s"] >= 0
        assert p["counters"]["reconnects"] == p["counters"]["disconnects"] == 0
        assert p["counters"]["connect_errors"] >= 1
        with FrontEnd(sock) as fe:
            start(fe)
            p = port_that(program, state="up", reason="", connects=1, reconnects=0)
            assert p["last_error"] == "cannot connect: No such file or directory"
            assert 0 <= p["state_age_s"] <= p["last_error_age_s"]
            assert re.search(r"  \(.* ago: cannot connect: No such file or directory\)$", line_of(program))

            fe.tx.ring.avail_idx = fe.tx.avail_next + 300
            fe.tx.kick()
            p = port_that(program, state="down", disconnects=1, protocol_errors=1)
            assert p["reason"].startswith("ring 1: ") and p["last_error"] == p["reason"]
            fe.drop()

            start(fe)
            p = port_that(program, state="up", reason="", connects=2, reconnects=1)
            assert p["last_error"].startswith("ring 1: ")
            fe.drop()
            p = port_that(program, state="down", disconnects=2, protocol_errors=1)
            gone = p["reason"]
            assert "closed" in gone

            start(fe)
            port_that(program, state="up", reconnects=2, last_error=gone)
        # The path has gone too: why it is down, and why it still is.
        p = port_that(program, state="down", reason=gone, last_error="cannot connect: No such file or directory")
        assert f"{gone} (" in line_of(program) and "cannot connect" in line_of(program)
        with FrontEnd(sock) as fe:
            start(fe)
            port_that(program, state="up", reason="", reconnects=3, disconnects=3)
        assert program.running


def test_every_try_is_counted(sock):
    """Not only the first of its kind, and without a line in the log for each."""
    with Victim(sock, env={"PALLADIUM_RECONNECT_MIN_MS": "1", "PALLADIUM_RECONNECT_MAX_MS": "5"}) as program:
        until(lambda: program.port()["counters"]["connect_errors"] >= 20, "twenty tries")
        assert len(re.findall("cannot connect to", program.text)) == 1


ROLE = pytest.mark.parametrize("role", ["backend", "frontend"])
DOUBLING = {"PALLADIUM_RECONNECT_MIN_MS": "1", "PALLADIUM_RECONNECT_MAX_MS": "60000"}


def doubled(tries, since):
    """Were there no more tries than there may be, each of which waits twice as long as the one before, from a millisecond on?"""
    assert 2 ** (tries - 1) - 1 <= (time.monotonic() - since) * 1000, f"{tries} tries"


@ROLE
def test_tries_become_rarer(sock, role):
    """Nobody is there: counted against the clock, which a slow machine can only help."""
    since = time.monotonic()
    with Victim(sock, role=role, env=DOUBLING) as program:
        for tries in range(1, 9):
            until(lambda tries=tries: program.port()["counters"]["connect_errors"] >= tries, f"try {tries}")
            doubled(program.port()["counters"]["connect_errors"], since)


@ROLE
def test_who_hangs_up_is_not_hammered(sock, role):
    """A peer that takes every connection and ends it at once counts as none."""
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(sock))
        s.listen()
        s.settimeout(scale(30))
        since = time.monotonic()
        with Victim(sock, role=role, env=DOUBLING) as program:
            for tries in range(1, 9):
                s.accept()[0].close()
                doubled(tries, since)
            assert program.running


def test_peers_that_never_get_the_link_up(sock):
    """The port was never up: nothing to lose, but why is told."""
    with Victim(sock, mode="listen") as program:
        port_that(program, state="waiting", reason="its peer has not come yet", last_error="")
        until(lambda: os.path.exists(sock), "the path")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(sock)
            s.sendall(b"\xff" * 12)
            p = port_that(program, protocol_errors=1)
            assert p["state"] == "waiting" and p["last_error"] == p["reason"] != ""
        with FrontEnd(sock, listen=False) as fe:
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            echoes(fe)
            p = port_that(program, state="up", reason="", reconnects=0, connects=1)
            assert p["last_error"]


def start_device(be):
    be.wait_started()
    returns(be)


PEERS = {"backend": (FrontEnd, start), "frontend": (BackEnd, start_device)}
IN_THE_WAY = {"no folder": "No such file or directory", "a file": "not a socket"}


@ROLE
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_life_of_a_listener(sockdir, sock, role, what):
    """It cannot listen; it can, and waits, whatever it was told of before; its peer comes."""
    path = sockdir / "there" / "s" if what == "no folder" else sockdir / "s"
    if what == "a file":
        path.touch()
    peer, link = PEERS[role]
    with Victim(str(path), mode="listen", role=role) as program:
        p = port_that(program, state="down")
        why = p["reason"]
        assert why.startswith("cannot listen: ") and IN_THE_WAY[what] in why and p["last_error"] == why
        (path.parent.mkdir if what == "no folder" else path.unlink)()
        p = port_that(program, state="waiting", reason="its peer has not come yet", link=0, disconnects=0)
        assert p["last_error"] == why and 0 <= p["state_age_s"] <= p["last_error_age_s"]
        assert "its peer has not come yet (" in line_of(program) and f"{why})" in line_of(program)
        with peer(str(path), listen=False) as other:
            link(other)
            p = port_that(program, state="up", reason="", connects=1, reconnects=0, disconnects=0, protocol_errors=0)
            assert p["last_error"] == why
    shutil.rmtree(path.parent if what == "no folder" else path, ignore_errors=True)


def test_life_of_a_front_end(sock):
    with Victim(sock, role="frontend", ring=64) as program:
        port_that(program, state="down", last_error="cannot connect: No such file or directory")
        with BackEnd(sock, listen=True) as be:
            be.wait_started()
            returns(be)
            port_that(program, state="up", reason="", reconnects=0)
            be.queue(0).ring.used_idx = be.queue(0).used_next + 300
            os.eventfd_write(be.rings[0].call, 1)
            p = port_that(program, state="down", protocol_errors=1)
            assert p["reason"].startswith("ring 0: ") and p["last_error"] == p["reason"]
            be.drop()
            be.wait_started()
            be.send(numbered(7000, 60))
            while be.recv().frame != numbered(7000, 60):  # it owes answers
                pass
            p = port_that(program, state="up", reason="", reconnects=1)
            assert p["last_error"].startswith("ring 0: ")


@pytest.mark.parametrize("mode", ["connect", "listen"])
def test_long_paths_leave_room_for_the_reason(sockdir, mode):
    """The longest path there may be; what is shown of the reason is all of it."""
    folder = sockdir / ("d" * (104 - len(str(sockdir))))
    path = str(folder / "s")
    assert len(path) == 107
    with Victim(path, mode=mode) as program:
        until(lambda: re.search("cannot .*" + path, program.text), "the line")
        what = {"connect": "connect", "listen": "listen"}[mode]
        p = port_that(program, state="down", reason=f"cannot {what}: No such file or directory")
        assert p["path"] == path
    shutil.rmtree(folder, ignore_errors=True)
