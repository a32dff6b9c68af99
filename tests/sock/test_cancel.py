# SPDX-License-Identifier: BSD-2-Clause
"""A thread that sleeps on a packet socket can be cancelled, and leaves nothing behind."""
import os
import subprocess

import pytest

from lab.proc import preload_order
from sockutil import HERE, LIMIT, PRELOAD, environment

CALLS = ["recv", "recvmmsg", "poll", "select", "epoll", "send"]


@pytest.mark.skipif(len(preload_order(PRELOAD)) > 1, reason="a sanitizer takes the stack that a cancelled "
                    "thread leaves behind for an error")
def test_a_sleeping_thread_is_cancelled(tmp_path):
    cc = os.environ.get("CC", "cc").split()
    subprocess.run([*cc, "-O1", "-g", "-w", HERE / "cancel.c", "-o", tmp_path / "cancel",
                    "-pthread"], check=True)
    done = subprocess.run([tmp_path / "cancel", "pd0", "pd1"], env=environment(), text=True,
                          capture_output=True, timeout=4 * LIMIT, check=False)
    assert (done.stdout.splitlines(), done.returncode, done.stderr) == (
        [f"{call} 1 1" for call in CALLS], 0, "")
