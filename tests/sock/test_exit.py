# SPDX-License-Identifier: BSD-2-Clause
"""exit() while other threads are inside calls on ports neither crashes nor hangs."""
import os
import subprocess
import sys

import pytest

from sockutil import HERE, LIMIT, environment

ROUNDS = int(os.environ.get("PD_ROUNDS", "40"))


@pytest.fixture(scope="module")
def exiting(tmp_path_factory):
    path = tmp_path_factory.mktemp("exit") / "exiting"
    subprocess.run([*os.environ.get("CC", "cc").split(), "-O1", "-g", "-w", HERE / "exiting.c", "-o", path,
                    "-pthread"], check=True)
    return path


def rounds(program, names, **env):
    for seed in range(ROUNDS):
        done = subprocess.run([program, str(seed), *names], env=environment(**env), text=True,
                              capture_output=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stderr) == (7, ""), (seed, done.returncode, done.stderr)


def test_with_threads_in_a_loop(exiting):
    rounds(exiting, ["pd0", "pd1"])


@pytest.mark.parametrize("role", ["backend", "frontend"])
def test_with_threads_on_a_vhost_user_port(exiting, sockdir, role):
    """The other end is a process that sends and receives all the time."""
    path = sockdir / "port.sock"
    peer = subprocess.Popen(
        [sys.executable, "-c", "from prelude import *\n"
         "s = packet('pd0', proto=ETH_P_TEST)\ns.setblocking(False)\nm = Messages([frame(1)] * 32)\n"
         "while True:\n    sendmmsg(s, m)\n    recvmmsg(s, m)\n    time.sleep(0.0001)\n"],
        env=environment(f"pd0=vhost-user:{path},mode=listen,role={role}", PALLADIUM_TRACELEVEL="none"))
    try:
        mine = "backend" if role == "frontend" else "frontend"
        rounds(exiting, ["pd0"], ports=f"pd0=vhost-user:{path},mode=connect,role={mine}")
        assert peer.poll() is None
    finally:
        peer.kill()
        peer.wait()
