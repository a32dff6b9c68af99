# SPDX-License-Identifier: BSD-2-Clause
"""A program may put a file of its own at any number, also at those that the library's descriptors have, at any moment."""
import re
import subprocess

import pytest

from lab.proc import scale
from sockutil import BUILD, environment, finish

CLAIM = BUILD / "tests/sock/claim"


def claimed(text):
    """How often a number was claimed."""
    return int(re.fullmatch(r"claimed (\d+)\n", text)[1])


def run(*args, **extra):
    return subprocess.run([CLAIM, *args], env=environment(**extra), capture_output=True, text=True, timeout=scale(55), check=False)


@pytest.mark.parametrize("poll", ["0", "-2"])
def test_over_a_loop(poll):
    """Each round claims the descriptors of the two rings, of eight threads, of the epolls and of the progress thread."""
    done = run("both", "pd0", "pd1", "100", PALLADIUM_RX_POLL=poll, PALLADIUM_SELECT_POLL=poll)
    assert claimed(finish(done)) > 100 * 10


@pytest.mark.parametrize("queues", ["1", "2"])
def test_over_vhost_user(tmp_path, queues):
    """The same with a peer, at both ends: the connection, the listener, kicks, calls and the rings' memory too."""
    path, extra = tmp_path / "s", {"PALLADIUM_RX_POLL": "0", "PALLADIUM_SELECT_POLL": "0", "PALLADIUM_SEND_WHEN_DOWN": "wait"}
    keys = f"queues={queues}"
    env = environment(f"pd0=vhost-user:{path},mode=listen,role=backend,{keys}", **extra)
    with subprocess.Popen([CLAIM, "echo", "pd0"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as echo:
        ping = run("ping", "pd0", "100", ports=f"pd0=vhost-user:{path},mode=connect,role=frontend,{keys}", **extra)
        out, err = echo.communicate(timeout=scale(20))
    assert claimed(finish(ping)) > 100 * 10
    assert echo.returncode == 0, err
    assert claimed(out) > 0


def test_while_an_epoll_gets_its_first_packet_socket():
    assert claimed(finish(run("takeover", "pd0", "pd1", "200"))) > 200 * 6


@pytest.mark.parametrize("limit", [64, 40])
def test_with_few_numbers(limit):
    """A program that may have few descriptors: those of the library stand among its own, and still move."""
    done = subprocess.run(["sh", "-c", f"ulimit -n {limit}; exec {CLAIM} takeover pd0 pd1 50"], env=environment(), capture_output=True,
                          text=True, timeout=scale(55), check=False)
    assert claimed(finish(done)) > 50 * 6
