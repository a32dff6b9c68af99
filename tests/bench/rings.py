#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Rings without sockets, beside dpdk-testpmd: who moves most frames a second from one core to another?

Each row is a ring format, mergeable buffers or not, a frame size, a batch and a direction. In it compete, in turns: testpmd at
both ends in the best of its settings, our back-end with testpmd's virtio-user, testpmd's vhost with our front-end, and our own
two ends (tests/bench/ringend). The header is virtio-net's, since testpmd knows no other; sidecar rows have our own ends alone.
Our ends copy each frame out of the ring, and into it; what comes from our own end is checked byte for byte, of testpmd's frames the
length and the headers. testpmd checks nothing, and its driver has its buffers in the ring: it copies nothing in either direction. So
where ours receives from testpmd there is a column more, in which the frames are checked where they stand.

    PD_BUILD=build tests/bench/rings.py [--rounds N] [--seconds S] [--format split|packed] [--size 64|1500]
                                        [--batch N] [--mergeable on|off] [--quick] [--json]
"""
import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.proc import Proc, build  # noqa: E402
from lab.testpmd import Testpmd  # noqa: E402
from steady import Steady  # noqa: E402

CORES = (0, 1 % (os.cpu_count() or 1))  # of the driver, of the device
RING = 256
# What makes testpmd faster or slower, by ring format; each row takes the best of them, for testpmd at both ends and for its driver
# with our device. Our driver takes the better ring size, with testpmd's device and with ours.
SETTINGS = {
    "split": [{"ring": 256}, {"ring": 1024}, {"ring": 256, "in_order": True},
              {"ring": 256, "in_order": True, "extra": ",vectorized=1"}],
    "packed": [{"ring": 256}, {"ring": 1024}, {"ring": 256, "in_order": True}],
}
RINGS = [{"ring": 256}, {"ring": 1024}]


class Row:
    """One line of the table."""

    def __init__(self, form, mergeable, size, batch, to_driver, dialect="virtio"):
        self.format, self.mergeable, self.size = form, mergeable, size
        self.batch, self.to_driver, self.dialect = batch, to_driver, dialect

    def __str__(self):
        return (f"{self.format:6} {'mergeable' if self.mergeable else 'single':9} {self.dialect:6} {self.size:4} B"
                f"  batch {self.batch:3}  {'device to driver' if self.to_driver else 'driver to device'}")

    def driver_keys(self):
        """What testpmd's virtio-user is told of the ring."""
        return {"mrg_rxbuf": self.mergeable, "packed": self.format == "packed"}


def our_end(row, role, path, listen, seconds, how="any", ring=RING):
    """Start one of our ends: a sender, or a receiver (ringend says how) whose JSON is awaited."""
    sends = (role == "frontend") != row.to_driver
    text = (f"pd0=vhost-user:{path},mode={'listen' if listen else 'connect'},role={role},dialect={row.dialect},"
            f"ring={ring},format={row.format},mergeable={'on' if row.mergeable else 'off'}")
    argv = [build("tests/bench/ringend"), text, "tx", row.size, row.batch]
    if not sends:
        argv[2:] = [how, row.size, row.batch, seconds]
    core = CORES[0] if role == "frontend" else CORES[1]
    p = Proc(argv, env={"PALLADIUM_TRACELEVEL": "error"}, wrap=["taskset", "-c", str(core)])
    p.expect("ready", 20)
    return p


def our_rate(p, seconds):
    """What our receiver says, in Mpps; its checks have passed."""
    p.wait(seconds + 30)
    r = json.loads([x for x in p.text.splitlines() if x.startswith("{")][-1])
    assert r["frames"] and not r["bad"] and not r["disorder"], r
    return r["mpps"]


def pmd_driver(row, path, server=False, **settings):
    """testpmd's virtio-user."""
    return Testpmd.virtio_user(path, core=CORES[0], server=server, burst=row.batch,
                               **row.driver_keys(), **{"ring": RING, **settings})


def pmd_device(row, path, client=False):
    """testpmd's vhost."""
    return Testpmd.vhost(path, core=CORES[1], client=client, burst=row.batch)


def pmd_rate(pmd, seconds):
    """Mpps that a testpmd receives."""
    before, t0 = pmd.stats()["rx_packets"], time.monotonic()
    time.sleep(seconds)
    after, t1 = pmd.stats()["rx_packets"], time.monotonic()
    return (after - before) / (t1 - t0) / 1e6


def both_pmd(row, path, seconds, settings):
    """testpmd at both ends."""
    with pmd_device(row, path) as device, pmd_driver(row, path, **settings) as driver:
        driver.wait_link()
        sender, receiver = (device, driver) if row.to_driver else (driver, device)
        receiver.forward("rxonly")
        sender.forward("txonly", txpkts=row.size)
        return pmd_rate(receiver, seconds)


def our_device(row, path, seconds, settings):
    """Our back-end, testpmd's virtio-user."""
    with our_end(row, "backend", path, True, seconds) as ours, \
            pmd_driver(row, path, **settings) as driver:
        driver.wait_link()
        if row.to_driver:
            driver.forward("rxonly")
            return pmd_rate(driver, seconds)
        driver.forward("txonly", txpkts=row.size)
        return our_rate(ours, seconds)


def our_driver(row, path, seconds, settings, how="any"):
    """testpmd's vhost, our front-end."""
    with our_end(row, "frontend", path, True, seconds, how, **settings) as ours, \
            pmd_device(row, path, client=True) as device:
        device.wait_link()
        if row.to_driver:
            device.forward("txonly", txpkts=row.size)
            return our_rate(ours, seconds)
        device.forward("rxonly")
        return pmd_rate(device, seconds)


def both_ours(row, path, seconds, settings):
    """Our two ends."""
    with our_end(row, "frontend", path, True, seconds, "rx", **settings) as front, \
            our_end(row, "backend", path, False, seconds, "rx") as back:
        return our_rate(front if row.to_driver else back, seconds)


def in_words(settings):
    """Settings of a ring for the table: "256 vector"."""
    more = " vector" if "extra" in settings else " in order" if settings.get("in_order") else ""
    return f"{settings['ring']}{more}"


class Candidates:
    """Measures rows; remembers which of testpmd's settings suits each best."""
    HOW = {"testpmd": both_pmd, "our device": our_device, "our driver": our_driver, "ours": both_ours,
           "our driver in place": our_driver}

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds
        self.steady = Steady(CORES)
        self.serial = itertools.count()
        self.best = {}

    def path(self):
        """A socket that nobody has used."""
        return os.path.join(self.folder, f"{next(self.serial)}.sock")

    def take(self, how, row, *more):
        """One rate, of cores that stand near each other."""
        return self.steady.take(lambda: how(row, self.path(), self.seconds, *more))

    def best_of(self, choice, how, row, *more):
        """A rate with the best settings of a choice; the first time all are tried."""
        key = f"{row}  {how.__name__}"
        if key in self.best:
            return self.take(how, row, self.best[key], *more)
        rate = 0.0
        for settings in choice:
            got = self.take(how, row, settings, *more)
            if got > rate:
                rate, self.best[key] = got, settings
        return rate

    def ring(self, row, name):
        """With which ring a candidate was measured, in words."""
        return in_words(self.best[f"{row}  {self.HOW[name].__name__}"])

    def measure(self, row):
        """Every candidate's rate, by name."""
        if row.dialect == "avip":
            return {"ours": self.best_of(RINGS, both_ours, row)}
        rates = {
            "testpmd": self.best_of(SETTINGS[row.format], both_pmd, row),
            "our device": self.best_of(SETTINGS[row.format], our_device, row),
            "our driver": self.best_of(RINGS, our_driver, row),
            "ours": self.best_of(RINGS, both_ours, row),
        }
        if row.to_driver:
            rates["our driver in place"] = self.best_of(RINGS, our_driver, row, "look")
        return rates


def rows(o):
    """The rows that were asked for."""
    for form, mergeable, size, batch, to_driver in itertools.product(
            o.format or ["split", "packed"], o.mergeable or ["on", "off"], o.size or [64, 1500],
            o.batch or [1, 32, 256], (False, True)):
        yield Row(form, mergeable == "on", size, batch, to_driver)
    if not o.quick:
        for form, size, to_driver in itertools.product(o.format or ["split", "packed"], o.size or [64, 1500],
                                                       (False, True)):
            yield Row(form, True, size, 32, to_driver, "avip")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    args.add_argument("--format", action="append", choices=["split", "packed"])
    args.add_argument("--mergeable", action="append", choices=["on", "off"])
    args.add_argument("--size", action="append", type=int)
    args.add_argument("--batch", action="append", type=int)
    args.add_argument("--quick", action="store_true", help="batch 32, mergeable, no sidecar rows")
    args.add_argument("--json", action="store_true")
    o = args.parse_args()
    if o.quick:
        o.batch, o.mergeable = o.batch or [32], o.mergeable or ["on"]
    names = ["testpmd", "our device", "our driver", "ours", "our driver in place"]
    found = []
    with tempfile.TemporaryDirectory(prefix="pdrings.") as folder:
        candidates = Candidates(folder, o.seconds)
        todo = list(rows(o))
        if not o.json:
            print(f"rings, two processes on cores {CORES}, medians of {o.rounds} rounds of {o.seconds} s; header 12 bytes, of avip 48;"
                  " contents checked by our receivers, of testpmd's frames length and headers;"
                  " Mpps, as a ratio to testpmd at both ends, and with which ring")
        for i, row in enumerate(todo):
            print(f"row {i + 1} of {len(todo)}: {row}", file=sys.stderr)
            rounds = [candidates.measure(row) for _ in range(o.rounds)]
            medians = {n: statistics.median(r[n] for r in rounds) for n in rounds[0]}
            found.append({"row": vars(row), "medians": medians, "rounds": rounds,
                          "settings": {k: v for k, v in candidates.best.items() if k.startswith(f"{row} ")}})
            if not o.json:
                base = medians.get("testpmd")
                print(f"  {row}" + "".join(
                    f"  {n} {medians[n]:7.3f} (" + (f"{medians[n] / base:4.2f}, " if base else "") + f"{candidates.ring(row, n)})"
                    for n in names if n in medians), flush=True)
    if o.json:
        print(json.dumps({"cores": CORES, "rounds": o.rounds, "seconds": o.seconds, "rows": found,
                          "steady": vars(candidates.steady)}))
    else:
        print(f"  {candidates.steady}")


if __name__ == "__main__":
    main()
