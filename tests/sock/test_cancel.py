# SPDX-License-Identifier: BSD-2-Clause
"""A thread that sleeps on a packet socket can be cancelled, and leaves nothing behind."""
import os
import subprocess

import pytest

from lab.proc import preload_order
from sockutil import HERE, LIMIT, PRELOAD, environment

CALLS = ["recv", "recvmmsg", "poll", "select", "epoll", "send"]


def run(tmp_path, name):
    """Compile and run a program between pd0 and pd1: its lines, status and complaints."""
    cc = os.environ.get("CC", "cc").split()
    subprocess.run([*cc, "-O1", "-g", "-w", HERE / f"{name}.c", "-o", tmp_path / name, "-pthread"], check=True)
    done = subprocess.run([tmp_path / name, "pd0", "pd1"], env=environment(), text=True,
                          capture_output=True, timeout=4 * LIMIT, check=False)
    return done.stdout.splitlines(), done.returncode, done.stderr


pytestmark = pytest.mark.skipif(len(preload_order(PRELOAD)) > 1, reason="a sanitizer takes the stack that a "
                                "cancelled thread leaves behind for an error")


def test_a_sleeping_thread_is_cancelled(tmp_path):
    assert run(tmp_path, "cancel") == ([f"{call} 1 1" for call in CALLS], 0, "")


def test_a_handler_jumps_out_of_a_sleep_and_the_thread_ends(tmp_path):
    assert run(tmp_path, "jump") == ([f"{call} 1 1" for call in [*CALLS, "kernel"]], 0, "")


def test_a_thread_that_is_cancelled_at_any_instruction_leaves_no_lock(tmp_path):
    assert run(tmp_path, "async") == (["move 1", "look 1", "sleep 1"], 0, "")
