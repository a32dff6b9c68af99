#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a 64-byte frame costs with many ports, many queues, many packet sockets: ns per frame, as a ratio to one of each.

Two preloaded processes, a core each, a vhost-user connection for every port. The frames come in bursts of a batch, to one socket after the
other, so that a call finds as many with one port or socket as with all; the receiver asks epoll which are ready. Every frame is checked.

The counts of one series are measured in turns, round after round. A machine is faster in one second than in the next, more than what is
looked for here: so a round is short, its figures are held against the round's own first one, and the ratio is the median of the rounds'.

Many ports are many pages: the buffers of 32 rings of 256 stand in more ordinary ones than a processor keeps translations of. So the type
of memory (PALLADIUM_MEM_ALLOC_TYPE) may be chosen; huge pages are reserved for the run.

    PD_BUILD=build tests/bench/growth.py [--rounds N] [--frames N] [--series ports|queues|sockets]
                                         [--memory contig|hugepages] [--json]
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.hugepages import hugepages  # noqa: E402
from lab.proc import Proc, build, preload_env  # noqa: E402
from steady import Steady  # noqa: E402

CORES = (0, 1 % (os.cpu_count() or 1))
BATCH = 32
SIZE = 64
HUGE = 160  # pages of 2 MiB: 32 areas and two pools, and as much again
SERIES = {"ports": [1, 2, 8, 32], "queues": [1, 2, 8, 10], "sockets": [1, 10, 100, 1000]}


def ports(folder, count, queues, role, mode):
    """PALLADIUM_PORTS of one end."""
    return ";".join(f"pd{i}=vhost-user:{folder}/{i}.sock,mode={mode},role={role},queues={queues},ring=256"
                    for i in range(count))


def end(mode, names, sockets, frames, env, core):
    """Start one end, its sockets open."""
    p = Proc([build("tests/bench/growth"), mode, ",".join(names), sockets, frames, SIZE, BATCH],
             env=env, wrap=["taskset", "-c", str(core)])
    p.expect("ready", 60)
    return p


def measure(series, count, frames, memory):
    """ns per frame of one run."""
    n = {"ports": 1, "queues": 1, "sockets": 1, series: count}
    names = [f"pd{i}" for i in range(n["ports"])]
    # One flow per queue at least, so that every queue has something to do.
    sockets = max(n["sockets"], 10 if series == "queues" else 1)
    with tempfile.TemporaryDirectory(prefix="pdgrow.") as folder:
        # Nothing may be lost, so a socket that is not read in time stops its port.
        first, second = (preload_env(ports(folder, n["ports"], n["queues"], *who), TRACELEVEL="error",
                                     RX_BACKPRESSURE="port", MEM_ALLOC_TYPE=memory)
                         for who in (("frontend", "listen"), ("backend", "connect")))
        with end("rx", names, sockets, frames, first, CORES[0]) as rx, \
                end("tx", names, sockets, frames, second, CORES[1]):
            rx.wait(120)
            r = json.loads([x for x in rx.text.splitlines() if x.startswith("{")][-1])
            assert not r["bad"] and r["frames"] >= frames, r
            return r["ns_per_frame"]


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    args.add_argument("--rounds", type=int, default=15)
    args.add_argument("--frames", type=int, default=2000000, help="per measurement")
    args.add_argument("--series", action="append", choices=list(SERIES))
    args.add_argument("--memory", default="contig", choices=["contig", "hugepages"], help="of buffers and rings")
    args.add_argument("--json", action="store_true")
    o = args.parse_args()
    found, ratios, steady = {}, {}, Steady(CORES)
    with hugepages(HUGE) if o.memory == "hugepages" else contextlib.nullcontext():
        for series in o.series or SERIES:
            times = {count: [] for count in SERIES[series]}
            for r in range(o.rounds):
                for count in SERIES[series]:
                    times[count].append(steady.take(measure, series, count, o.frames, o.memory))
                    print(f"round {r + 1} of {o.rounds}: {count} {series}: {times[count][-1]:.1f} ns", file=sys.stderr)
            one = times[SERIES[series][0]]
            found[series] = {count: statistics.median(t) for count, t in times.items()}
            ratios[series] = {count: statistics.median(a / b for a, b in zip(t, one)) for count, t in times.items()}
    if o.json:
        print(json.dumps({"batch": BATCH, "size": SIZE, "cores": CORES, "rounds": o.rounds, "memory": o.memory, "ns_per_frame": found,
                          "ratios": ratios, "steady": vars(steady)}))
        return
    print(f"growth: {SIZE}-byte frames in bursts of {BATCH}, two processes on cores {CORES}, ring 256, sidecar 48, memory {o.memory}, every"
          f" frame checked, medians of {o.rounds} alternating rounds")
    for series, medians in found.items():
        for count, ns in medians.items():
            print(f"  {count:5} {series:8} {ns:8.1f} ns per frame  {ratios[series][count]:5.2f} x one")
    print(f"  {steady}")


if __name__ == "__main__":
    main()
