#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Packet sockets over a port, beside the same program on kernel veth, the ring without sockets, testpmd, and the machine's own bounds.

One run alternates between the candidates, round after round, and reports medians as ratios: on a
shared machine only figures of one run compare. Two processes, one core each; every byte of every
frame is checked by the receiver (testpmd checks nothing). Prints a table, or --json.

    PD_BUILD=build tests/bench/sockets.py [--rounds N] [--frames N] [--format split|packed] [--idle SECONDS] [--json]

What is measured: frames a second one way, one at a time (sendmsg, recvmsg) and in batches of 1, 32 and 256 (sendmmsg, recvmmsg),
and what the same ring moves without sockets (rings.py's two ends, with the sidecar); the same sent back (echo); the round trip of
one frame beside that of a cache line between the two cores; how late a frame reaches a receiver that sleeps, beside the wake-up of an
eventfd's reader; and what sleeping in poll costs with 1 port and with 32.
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
from rings import Row, both_ours  # noqa: E402
from steady import Steady  # noqa: E402

SINGLE = 0  # one frame a call: sendmsg, recvmsg
BATCHES = (SINGLE, 1, 32, 256)
PORTS_MANY = 32
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
    status = p.wait(timeout)
    lines = [x for x in p.text.splitlines() if x.startswith("{")]
    assert lines, f"no result, status {status}:\n{p.tail()}"
    return json.loads(lines[-1])


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

    def __init__(self, folder, form, first_receives):
        self.path = os.path.join(folder, "bench.sock")
        self.name = f"{form} port, to the {'front' if first_receives else 'back'}-end"
        self.swap = not first_receives
        self.keys = f"format={form},mtu=9000"

    def ends(self, first, second, n, size, batch):
        front = preload_env(f"pd0=vhost-user:{self.path},mode=listen,role=frontend,ring={RING},{self.keys}",
                            TRACELEVEL="error")
        back = preload_env(f"pd0=vhost-user:{self.path},mode=connect,{self.keys}", TRACELEVEL="error")
        if self.swap:
            y = sockbench(second, "pd0", n, size, batch, CORES[1], env=front)
            return sockbench(first, "pd0", n, size, batch, CORES[0], env=back), y
        x = sockbench(first, "pd0", n, size, batch, CORES[0], env=front)
        return x, sockbench(second, "pd0", n, size, batch, CORES[1], env=back)


class Ring:
    """The ring of a `Port`, without sockets: every frame carries its sidecar, and is copied and checked as theirs are."""
    SECONDS = 0.15  # about as long as the sockets' frames take

    def __init__(self, folder, form, to_driver):
        self.folder, self.form, self.to_driver = folder, form, to_driver
        self.name = f"{form} ring, to the {'front' if to_driver else 'back'}-end"
        self.serial = 0

    def rate(self, size, batch):
        """Mpps of checked frames."""
        self.serial += 1
        path = os.path.join(self.folder, f"{self.name[:5]}{self.to_driver:d}{self.serial}.sock")
        return both_ours(Row(self.form, True, size, batch, self.to_driver, "avip"), path, self.SECONDS, {"ring": RING})


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
        self.driver.command("set burst 32")
        return (t1 - t0) * 1e6 / max(after - before, 1)


def rate(candidate, first, second, n, size, batch):
    """Mpps of checked frames, as the end counts that receives, or gets its own back."""
    x, y = candidate.ends(first, second, n, size, batch)
    with x, y:
        r = result(y if second == "talk" else x)
        assert not r["bad"] and not r["disorder"], r
    return r["mpps"]


def percentiles(candidate, first, second, n):
    """(p50, p99) in us of what the second end times, with 64-byte frames."""
    x, y = candidate.ends(first, second, n, 64, SINGLE)
    with x, y:
        r = result(y)
    return r["p50_us"], r["p99_us"]


def bound(what, n):
    """(p50, p99) in us of one of the machine's own bounds."""
    with Proc([build("tests/bench/bounds"), what, *CORES, n]) as p:
        r = result(p)
    return r["p50_us"], r["p99_us"]


def idle(folder, count, seconds):
    """Percent of a core that a process asleep in poll on `count` ports uses, all of them up."""
    def ports(keys):
        return ";".join(f"pd{i}=vhost-user:{folder}/idle{i}.sock,{keys}" for i in range(count))

    names = ",".join(f"pd{i}" for i in range(count))
    env = preload_env(ports("mode=connect"), TRACELEVEL="error")
    peer_env = preload_env(ports("mode=listen,role=frontend"), TRACELEVEL="error")
    with sockbench("idle", names, seconds + 5, 0, 0, CORES[0], env=peer_env), \
            sockbench("idle", names, seconds, 0, 0, CORES[1], env=env) as p:
        return result(p, seconds + 30)["cpu_percent"]


class Figures:
    """What was measured, by what it is and by whose it is."""

    def __init__(self):
        self.all = {}
        self.steady = Steady(CORES)

    def note(self, what, who, measure, *args):
        """One more round's value: what `measure` returns."""
        value = self.steady.take(measure, *args)
        self.keep(what, who, value)

    def keep(self, what, who, value):
        """A value that was taken."""
        self.all.setdefault(what, {}).setdefault(who, []).append(value)
        print(f"  {what}: {who}: {value:.3f}", file=sys.stderr)

    def note_times(self, what, who, measure, *args):
        """Percentiles, which `measure` returns."""
        for name, value in zip(("p50", "p99"), self.steady.take(measure, *args)):
            self.keep(f"{what} {name}, us", who, value)

    def medians(self):
        """Of all rounds."""
        return {w: {k: statistics.median(v) for k, v in c.items()} for w, c in self.all.items()}


def one_round(o, folder, rings, figures):
    """Every candidate once."""
    veth = Veth()
    ports = [Port(folder, form, first) for form in o.format for first in (True, False)]
    for size in (64, 1500):
        for batch in BATCHES if size == 64 else (32,):
            what = f"{size} B batch {batch}, Mpps" if batch else f"{size} B one a call, Mpps"
            for c in [veth, *ports]:
                n = o.frames // (8 if c is veth else 1) // (4 if size > 64 or batch <= 1 else 1)
                figures.note(what, c.name, rate, c, "rx", "tx", n, size, batch)
            for c in rings:
                figures.note(what, c.name, c.rate, size, max(batch, 1))
        for c in [veth, *ports[::2]]:
            n = o.frames // (16 if c is veth else 2) // (4 if size > 64 else 1)
            figures.note(f"{size} B echo, batch 32, Mpps", c.name, rate, c, "echo", "talk", n, size, 32)
    figures.note_times("round trip", "cache line", bound, "line", 20000)
    figures.note_times("wake-up", "eventfd", bound, "eventfd", o.wakes)
    for c in [veth, *ports[::2]]:
        figures.note_times("round trip", c.name, percentiles, c, "pong", "ping", o.pings)
        figures.note_times("wake-up", c.name, percentiles, c, "rarely", "late", o.wakes)
    with Pmd(folder) as pmd:
        for size in (64, 1500):
            figures.note(f"{size} B batch 32, Mpps", "testpmd to device", pmd.rate, pmd.driver, pmd.device, size)
            figures.note(f"{size} B batch 32, Mpps", "testpmd to driver", pmd.rate, pmd.device, pmd.driver, size)
        figures.note("round trip p50, us", "testpmd (mean)", pmd.bounce)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--frames", type=int, default=3000000, help="per measurement on a port")
    args.add_argument("--pings", type=int, default=50000)
    args.add_argument("--wakes", type=int, default=500)
    args.add_argument("--format", action="append", choices=["split", "packed"], help="of the ring; default both")
    args.add_argument("--idle", type=int, default=60, help="seconds of each idle measurement; 0: none")
    args.add_argument("--json", action="store_true")
    o = args.parse_args()
    o.format = o.format or ["split", "packed"]
    figures, cpu = Figures(), {}
    with tempfile.TemporaryDirectory(prefix="pdbench.") as folder:
        rings = [Ring(folder, form, to_driver) for form in o.format for to_driver in (True, False)]
        for r in range(o.rounds):
            print(f"round {r + 1} of {o.rounds}", file=sys.stderr)
            one_round(o, folder, rings, figures)
        if o.idle:
            cpu = {n: idle(folder, n, o.idle) for n in (1, PORTS_MANY)}

    medians = figures.medians()
    if o.json:
        print(json.dumps({"medians": medians, "all": figures.all, "idle_cpu_percent": cpu,
                          "ring": RING, "rounds": o.rounds, "steady": vars(figures.steady)}))
        return
    print(f"packet sockets, two processes on cores {CORES}, ring {RING}, sidecar 48, contents checked, medians of {o.rounds}"
          " alternating rounds")
    for what, who in medians.items():
        base = who.get(Veth.name)
        for name, value in who.items():
            ring = who.get(name.replace(" port,", " ring,")) if " port," in name else None
            ratio = f"{value / base:8.2f} x veth" if base else ""
            ratio += f"  {value / ring:5.2f} x the ring" if ring else ""
            print(f"  {what:22} {name:28} {value:10.3f} {ratio}")
    print(f"  {figures.steady}")
    for count, percent in cpu.items():
        print(f"  idle in poll, {o.idle} s, {count} ports up: {percent:.4f} % of a core")


if __name__ == "__main__":
    main()
