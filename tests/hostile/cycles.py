# SPDX-License-Identifier: BSD-2-Clause
"""Tests that do the same thing again and again: how often, for how long, and what a program that lives through all of it holds.

    run = Cycles(program.pid)
    for cycle in run:
        ...
    run.note(frames=n)

PD_CYCLES: how often (20). PD_FIRST: the number of the first one (0). PD_SECONDS: no new one after that time, though there are four in
any case. PD_NOTES: a file, to which note() adds a line. `make soak` (soak.py) sets them all.
"""
import json
import os
import re
import time
from typing import NamedTuple

from lab.proc import library, preload_order

CYCLES = int(os.environ.get("PD_CYCLES", "20"))
FIRST = int(os.environ.get("PD_FIRST", "0"))
SECONDS = float(os.environ.get("PD_SECONDS", "inf"))
WARM = 3  # rounds until what is made once is there
# What any number of rounds may add to a program that loses nothing: pages that its allocator had not touched yet, and the descriptors
# of a connection that has begun or is not over.
SLACK_BYTES, SLACK_FDS = 256 << 10, 8


def sanitized():
    """A sanitizer keeps what was freed, and maps as it likes."""
    return len(preload_order(library())) > 1


class Held(NamedTuple):
    """What a process holds: open descriptors, mappings, and bytes of its own that it has written to."""
    fds: int
    mappings: int
    bytes: int


def held(pid):
    """See Held."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as f:
        mappings = len(f.readlines())
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        private = int(re.search(r"Anonymous: *(\d+) kB", f.read())[1]) << 10
    return Held(len(os.listdir(f"/proc/{pid}/fd")), mappings, private)


class Cycles:
    """The rounds of a test; `done` says how many there were. With a pid, that process is looked at after the first few and after the
    last, and must not have grown, but by `more` bytes. at_rest() is called before each look."""

    def __init__(self, pid=None, at_rest=lambda: None, more=SLACK_BYTES):
        self.pid, self.at_rest, self.more = pid, at_rest, more
        self.done, self.before, self.after, self.since = 0, None, None, time.monotonic()

    def __iter__(self):
        for cycle in range(FIRST, FIRST + CYCLES):
            if self.done > WARM and time.monotonic() - self.since >= SECONDS:
                break
            yield cycle
            self.done += 1
            if self.pid and self.done == WARM:
                self.before = self._look()
        if self.before:
            self.after = self._look()
            self.check(self.before, self.after, more=self.more)

    def _look(self):
        self.at_rest()
        return held(self.pid)

    @staticmethod
    def check(before, after, slack_fds=SLACK_FDS, more=SLACK_BYTES):
        """A process did not grow."""
        assert after.fds <= before.fds + slack_fds, f"{after.fds} descriptors, {before.fds} before"
        if not sanitized():
            assert after.mappings <= before.mappings + slack_fds, f"{after.mappings} mappings, {before.mappings} before"
            assert after.bytes <= before.bytes + more, f"{after.bytes} bytes, {before.bytes} before"

    def note(self, **figures):
        """Say what came of it, to PD_NOTES too."""
        figures = {"test": os.environ["PYTEST_CURRENT_TEST"].rsplit(" (")[0].rsplit("/", 1)[-1], "first": FIRST, "cycles": self.done,
                   "seconds": round(time.monotonic() - self.since, 1), **figures}
        if self.before:
            figures.update(before=self.before, after=self.after)
        line = json.dumps(figures)
        print(" ", line)
        if path := os.environ.get("PD_NOTES"):
            with open(path, "a", encoding="ascii") as f:
                f.write(line + "\n")
