# SPDX-License-Identifier: BSD-2-Clause
"""Figures of the two cores as near to each other as they get.

On a virtual machine the host moves the two processors about. For seconds they share a cache, for others a cache line takes
five times as long from one to the other, or they take turns on one core; a rate between two ends then falls to a third or a
tenth, whoever's ends they are. So the time of a cache line to and fro (tests/bench/bounds) is taken before and after each
figure: one with a slow line on either side says nothing about the program, and is taken again.
"""
import json
import subprocess
import sys
import time

from lab.proc import build


class Steady:
    """Takes figures, and tells how it went."""

    TOLERANCE = 1.35  # times the fastest line so far
    BOUNCES = 20000   # per look: about 2 ms
    PATIENCE = 60.0   # seconds for one figure, then it is kept as it is

    def __init__(self, cores):
        self.cores = cores
        self.best = float("inf")
        self.kept, self.dropped, self.unsteady = 0, 0, 0

    def line(self):
        """How long a cache line to and fro takes now, in us."""
        done = subprocess.run([build("tests/bench/bounds"), "line", *map(str, self.cores), str(self.BOUNCES)],
                              capture_output=True, text=True, check=True, timeout=60)
        now = json.loads(done.stdout)["p50_us"]
        self.best = min(self.best, now)
        return now

    def near(self):
        """Whether the cores are as near as they were at best."""
        return self.line() <= self.TOLERANCE * self.best

    def take(self, measure, *args):
        """What `measure(*args)` returns, of a time when the cores were near before and after."""
        while self.kept + self.dropped == 0 and not all(self.near() for _ in range(10)):
            pass  # what is best is not known yet
        until = time.monotonic() + self.PATIENCE
        while True:
            while not self.near() and time.monotonic() < until:
                time.sleep(0.1)
            value = measure(*args)
            if self.near():
                self.kept += 1
                return value
            if time.monotonic() > until:
                self.kept += 1
                self.unsteady += 1
                return value
            self.dropped += 1
            print("  the cores moved apart: once more", file=sys.stderr)

    def __str__(self):
        said = f"cache line {self.best:.3f} us; {self.dropped} of {self.kept + self.dropped} figures were taken again"
        return said + (f", {self.unsteady} are of cores that stayed apart" if self.unsteady else "")
