#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Packet sockets over a port, beside the same program on kernel veth and beside testpmd.

One run alternates between the candidates, round after round, and reports medians as ratios: on a
shared machine only figures of one run compare. Two processes, one core each; every byte of every
frame is checked by the receiver (testpmd checks nothing). Prints a table, or --json.

    PD_BUILD=build tests/bench/sockets.py [--rounds N] [--frames N] [--idle SECONDS] [--json]
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.ns import Network  # noqa: E402
from lab.proc import Proc, build, preload_env  # noqa: E402
from lab.testpmd import Testpmd  # noqa: E402

BATCH = 32
RING = 256
CORES = (0, 1 % (os.cpu_count() or 1))


def sockbench(mode, iface, n, size, batch, core, env=None, wrap=()):
    """Start one end, ready to go."""
    p = Proc([build("tests/bench/sockbench"), mode, iface, n, size, batch],
             env=env, wrap=[*wrap, "taskset", "-c", str(core)])
    p.expect("ready", 20)
    return p


def result(p, timeout=120):
    """The line of JSON that an end prints last."""
    p.wait(timeout)
    return json.loads([x for x in p.text.splitlines() if x.startswith("{")][-1])


class Veth:
    """The kernel: a veth pair between two namespaces."""
    name = "kernel veth"

    def __init__(self):
        self.net = Network()
        self.a, self.b = self.net.namespace(), self.net.namespace()
        self.net.veth(self.a, "va", self.b, "vb", mtu=9000)

    def ends(self, first, second, n, size, batch):
        x = sockbench(first, "va", n, size, batch, CORES[0], wrap=self.a.wrap)
        y = sockbench(second, "vb", n, size, batch, CORES[1], wrap=self.b.wrap)
        return x, y


class Port:
    """A vhost-user port between two preloaded processes; the first end is the front-end."""

    def __init__(self, folder, first_receives):
        self.path = os.path.join(folder, "bench.sock")
        self.name = "port, to the front-end" if first_receives else "port, to the back-end"
        self.swap = not first_receives

    def ends(self, first, second, n, size, batch):
        front = preload_env(f"pd0=vhost-user:{self.path},mode=listen,role=frontend,ring={RING},mtu=9000",
                            TRACELEVEL="error")
        back = preload_env(f"pd0=vhost-user:{self.path},mode=connect,mtu=9000", TRACELEVEL="error")
        if self.swap:
            y = sockbench(second, "pd0", n, size, batch, CORES[1], env=front)
            return sockbench(first, "pd0", n, size, batch, CORES[0], env=back), y
        x = sockbench(first, "pd0", n, size, batch, CORES[0], env=front)
        return x, sockbench(second, "pd0", n, size, batch, CORES[1], env=back)


class Pmd:
    """testpmd at both ends, driver and device, split ring, mergeable."""
    name = "testpmd both ends"

    def __init__(self, folder):
        self.path = os.path.join(folder, "pmd.sock")

    def __enter__(self):
        self.device = Testpmd.vhost(self.path, core=CORES[1])
        self.driver = Testpmd.virtio_user(self.path, core=CORES[0], ring=RING)
        self.driver.wait_link()
        return self

    def __exit__(self, *exc):
        self.driver.close()
        self.device.close()

    def rate(self, sender, receiver, size, seconds=1.5):
        """Mpps that arrive."""
        receiver.forward("rxonly")
        sender.forward("txonly", txpkts=size)
        before, t0 = receiver.stats()["rx_packets"], time.monotonic()
        time.sleep(seconds)
        after, t1 = receiver.stats()["rx_packets"], time.monotonic()
        sender.halt()
        receiver.halt()
        return (after - before) / (t1 - t0) / 1e6

    def bounce(self, seconds=1.5):
        """Mean round trip in us of one frame that both ends forward."""
        self.device.forward("io")
        self.driver.command("set burst 1")
        self.driver.forward("io", first=True)
        before, t0 = self.driver.stats()["rx_packets"], time.monotonic()
        time.sleep(seconds)
        after, t1 = self.driver.stats()["rx_packets"], time.monotonic()
        self.driver.halt()
        self.device.halt()
        self.driver.command(f"set burst {BATCH}")
        return (t1 - t0) * 1e6 / max(after - before, 1)


def one_way(candidate, n, size):
    """Mpps of checked frames."""
    rx, tx = candidate.ends("rx", "tx", n, size, BATCH)
    with rx, tx:
        r = result(rx)
        assert not r["bad"] and not r["disorder"], r
    return r["mpps"]


def round_trip(candidate, n):
    """(p50, p99) in us of one 64-byte frame."""
    pong, ping = candidate.ends("pong", "ping", n, 64, 1)
    with pong, ping:
        r = result(ping)
    return r["p50_us"], r["p99_us"]


def idle(folder, seconds):
    """Percent of a core that a process asleep in poll uses, its port up."""
    path = os.path.join(folder, "idle.sock")
    env = preload_env(f"pd0=vhost-user:{path},mode=connect", TRACELEVEL="error")
    peer_env = preload_env(f"pd0=vhost-user:{path},mode=listen,role=frontend", TRACELEVEL="error")
    with sockbench("idle", "pd0", seconds + 5, 0, 0, CORES[0], env=peer_env), \
            sockbench("idle", "pd0", seconds, 0, 0, CORES[1], env=env) as p:
        return result(p, seconds + 30)["cpu_percent"]


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--frames", type=int, default=3000000, help="per measurement on a port")
    args.add_argument("--pings", type=int, default=50000)
    args.add_argument("--idle", type=int, default=60, help="seconds of the idle measurement; 0: none")
    args.add_argument("--json", action="store_true")
    o = args.parse_args()
    figures = {}

    def note(what, who, value):
        figures.setdefault(what, {}).setdefault(who, []).append(value)
        print(f"  {what}: {who}: {value:.3f}", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="pdbench.") as folder:
        candidates = [Veth(), Port(folder, True), Port(folder, False)]
        for r in range(o.rounds):
            print(f"round {r + 1} of {o.rounds}", file=sys.stderr)
            for size in (64, 1500):
                for c in candidates:
                    n = o.frames // (8 if c is candidates[0] else 1) // (4 if size > 64 else 1)
                    note(f"{size} B, Mpps", c.name, one_way(c, n, size))
            for c in candidates[:2]:
                p50, p99 = round_trip(c, o.pings)
                note("round trip p50, us", c.name, p50)
                note("round trip p99, us", c.name, p99)
            with Pmd(folder) as pmd:
                for size in (64, 1500):
                    note(f"{size} B, Mpps", "testpmd to device", pmd.rate(pmd.driver, pmd.device, size))
                    note(f"{size} B, Mpps", "testpmd to driver", pmd.rate(pmd.device, pmd.driver, size))
                note("round trip mean, us", "testpmd", pmd.bounce())
        cpu = idle(folder, o.idle) if o.idle else None

    medians = {w: {k: statistics.median(v) for k, v in c.items()} for w, c in figures.items()}
    if o.json:
        print(json.dumps({"medians": medians, "all": figures, "idle_cpu_percent": cpu,
                          "batch": BATCH, "ring": RING, "rounds": o.rounds}))
        return
    print(f"packet sockets, two processes on cores {CORES}, split ring {RING}, sidecar 48, batch {BATCH},"
          f" contents checked, medians of {o.rounds} alternating rounds")
    for what, who in medians.items():
        base = who.get("kernel veth")
        for name, value in who.items():
            ratio = f"{value / base:8.2f} x veth" if base else ""
            print(f"  {what:22} {name:24} {value:10.3f} {ratio}")
    if cpu is not None:
        print(f"  idle in poll, {o.idle} s, port up: {cpu:.4f} % of a core")


if __name__ == "__main__":
    main()
