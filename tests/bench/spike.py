#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""One echo behind palladium_vlm in four ways: fused and through the graph (tests/bench/spike), through the preload's packet sockets
(examples/loopback), and dpdk-testpmd's vhost. Alternating rounds, medians: 64-byte frames/s and the round trip of one frame.

    PD_BUILD=build tests/bench/spike.py [--rounds N]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.proc import Proc, build, preload_env  # noqa: E402
from lab.testpmd import Testpmd  # noqa: E402
from steady import Steady  # noqa: E402


def echo(way, path):
    """Start one of the four; they connect to `path` when it appears."""
    pin = ["taskset", "-c", "1"]
    if way in ("fused", "graph"):
        return Proc([build("tests/bench/spike"), way, path], wrap=pin, env={"PALLADIUM_TRACELEVEL": "error"})
    if way == "testpmd":
        return Testpmd.vhost(path, client=True, core=1)
    return Proc([build("examples/loopback"), "--keep", "pd0"], wrap=pin,
                env=preload_env(f"pd0=vhost-user:{path},mtu=9000", TRACELEVEL="error"))


def vlm(way, path, frames, window):
    """The report of one run of the tester."""
    argv = ["taskset", "-c", "0", build("palladium_vlm"), "--socket", path, "--listen", "--json", "--quiet",
            "--ring", "256", "--size", "64", "--frames", str(frames), "--window", str(window)]
    argv += ["--dialect", "virtio", "--expect", "any"] if way == "testpmd" else ["--expect", "echo"]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    return json.loads(out.stdout)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--frames", type=int, default=2000000)
    o = args.parse_args()
    ways = ["fused", "graph", "sockets", "testpmd"]
    rate, p50 = {w: [] for w in ways}, {w: [] for w in ways}
    steady = Steady((0, 1))
    with tempfile.TemporaryDirectory(prefix="pdspike.") as folder:
        for _ in range(o.rounds):
            for w in ways:
                path = os.path.join(folder, w)
                with echo(w, path) as e:
                    if w == "testpmd":
                        e.forward("io")
                    rate[w].append(steady.take(vlm, w, path, o.frames, 512)["frames_per_second"] / 1e6)
                    p50[w].append(steady.take(vlm, w, path, 50000, 1)["latency_ns"]["p50"] / 1e3)
    print(f"echo of 64-byte frames, split ring 256, one core each, every byte checked by palladium_vlm, medians of {o.rounds}; {steady}")
    for w in ways:
        r, t = statistics.median(rate[w]), statistics.median(p50[w])
        print(f"  {w:8} {r:8.3f} Mpps  {r / statistics.median(rate['testpmd']):5.2f} x testpmd"
              f"   round trip p50 {t:7.3f} us  {t / statistics.median(p50['testpmd']):5.2f} x testpmd")


if __name__ == "__main__":
    main()
