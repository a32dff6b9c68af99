#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a command to the debug CLI every millisecond costs a program that echoes 64-byte frames by its sockets behind palladium_vlm:
frames/s with nobody at a CLI, with somebody at the CLI of another program on the same core, which is idle, and at its own. So the last
of the ratios is what the engine pays beyond the time on a core that any such client takes. Alternating rounds, medians.

    PD_BUILD=build tests/bench/cli.py [--rounds N] [--every MICROSECONDS] [--command "show ports"]
"""
import argparse
import contextlib
import os
import pathlib
import re
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.proc import Proc, build, preload_env  # noqa: E402
from spike import vlm  # noqa: E402
from steady import Steady  # noqa: E402

WAYS = ["nobody", "another's", "its own"]


def echo(folder, name, port):
    """An echo on core 1; its CLI is at folder/name.cli."""
    return Proc([build("examples/loopback"), "--keep", "pd0"], wrap=["taskset", "-c", "1"],
                env=preload_env(port, TRACELEVEL="error", CLI=os.path.join(folder, name + ".cli")))


@contextlib.contextmanager
def client(folder, way, every, command):
    """Somebody at the CLI, on the tester's core."""
    if way == "nobody":
        yield None
        return
    path = os.path.join(folder, {"another's": "other", "its own": "echo"}[way] + ".cli")
    with Proc([build("tests/bench/clirate"), path, str(every), *command.split()], wrap=["taskset", "-c", "0"]) as p:
        yield p


def one(folder, way, frames, every, command, said):
    """A figure."""
    path = os.path.join(folder, "socket")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with echo(folder, "echo", f"pd0=vhost-user:{path},mtu=9000") as p:
        p.expect("ready")
        with client(folder, way, every, command) as c:
            report = vlm(way, path, frames, 512)
            if c:
                c.popen.terminate()
                c.wait()
                said.append([int(x) for x in re.findall(r"(\d+) commands, the slowest (\d+) us", c.text)[-1]])
    return report


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--rounds", type=int, default=9)
    args.add_argument("--frames", type=int, default=16000000)
    args.add_argument("--every", type=int, default=1000)
    args.add_argument("--command", default="show ports")
    o = args.parse_args()
    rate, said = {w: [] for w in WAYS}, {w: [] for w in WAYS}
    steady = Steady((0, 1))
    with tempfile.TemporaryDirectory(prefix="pdcli.") as folder, echo(folder, "other", "pd0=loop:pd1;pd1=loop:pd0") as other:
        other.expect("ready")
        for n in range(o.rounds):
            for w in WAYS[n % 3:] + WAYS[:n % 3]:
                rate[w].append(steady.take(one, folder, w, o.frames, o.every, o.command, said[w])["frames_per_second"] / 1e6)
    print(f"echo of 64-byte frames by sockets, one core each, checked by palladium_vlm; '{o.command}' every {o.every} us; medians of "
          f"{o.rounds}; {steady}")
    nobody = statistics.median(rate["nobody"])
    for w in WAYS:
        r = statistics.median(rate[w])
        tail = f"   {sum(c for c, _ in said[w])} commands, the slowest {max(s for _, s in said[w])} us" if said[w] else ""
        print(f"  {w:10} {r:8.3f} Mpps  {r / nobody:6.3f}{tail}")
    pairs = sorted(a / b for a, b in zip(rate["its own"], rate["another's"]))
    print(f"  its own in place of another's: {statistics.median(pairs):6.3f} (the middle half of the rounds {pairs[len(pairs) // 4]:.3f} to "
          f"{pairs[-1 - len(pairs) // 4]:.3f})")


if __name__ == "__main__":
    main()
