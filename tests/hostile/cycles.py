# SPDX-License-Identifier: BSD-2-Clause
"""Tests that do the same thing again and again: how often, for how long, and what a program that lives through all of it holds.

    run = Cycles(program.pid)
    for cycle in run:
        ...
    run.note(frames=n)

PD_CYCLES: how often (20). PD_FIRST: the number of the first one (0). PD_SECONDS: no new one after that time, though there are four in
any case. PD_NOTES: a file, to which note() adds a line. `make soak` (soak.py) sets them all.
"""
import contextlib
import json
import os
import re
import time
from typing import NamedTuple

from lab.proc import build, library, preload_order, run, scale

CYCLES = int(os.environ.get("PD_CYCLES", "20"))
FIRST = int(os.environ.get("PD_FIRST", "0"))
SECONDS = float(os.environ.get("PD_SECONDS", "inf"))
WARM = 3  # rounds until what is made once is there
# What any number of rounds may add to a program that loses nothing: pages that its allocator had not touched yet, and the descriptors
# of a connection that has begun or is not over.
SLACK_BYTES, SLACK_FDS = 256 << 10, 8
STRETCH_BYTES = 1 << 30  # the least that the addresses of its buffers are taken to be


def sanitized():
    """A sanitizer keeps what was freed, and maps as it likes."""
    return len(preload_order(library())) > 1


class Held(NamedTuple):
    """What a process holds: open descriptors, mappings, bytes of its own that it has written to, but for those of its buffers; its
    buffers that are in use (None: it has none); and threads."""
    fds: int
    mappings: int
    bytes: int
    buffers: int
    threads: int


def mappings(pid):
    """How many it has, without the stacks of threads, each of which has a page that nobody may touch below it: the C library keeps some,
    of threads that have ended, for the next ones."""
    n, guard = 0, None
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        for line in f:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line)
            start, end = int(m[1], 16), int(m[2], 16)
            if m[3] == "rw-p" and start == guard:
                n -= 1
            else:
                n += 1
            guard = end if m[3] == "---p" and end - start == os.sysconf("SC_PAGESIZE") and not m[4] else None
    return n


def private_bytes(pid):
    """What it has written to, without the stretch of addresses in which its buffers stand: memory of those is kept for the next frame that
    waits, so there is as much of it as there ever were at once. No other mappings side by side are as large."""
    stretches, end = [], 0
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            if m := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                start, at = int(m[1], 16), end
                end = int(m[2], 16)
                if start != at:
                    stretches.append([0, 0])
                stretches[-1][0] += end - start
            elif m := re.match(r"Anonymous: *(\d+) kB", line):
                stretches[-1][1] += int(m[1]) << 10
    return sum(own for size, own in stretches if size < STRETCH_BYTES)


def buffers(pid):
    """How many of its buffers are in use, once it is done with what had come."""
    last, used = None, used_buffers(pid)
    deadline = time.monotonic() + scale(10)
    while used != last and time.monotonic() < deadline:
        time.sleep(0.05)
        last, used = used, used_buffers(pid)
    return used


def used_buffers(pid):
    """How many are in use now; None: it has no port."""
    code, text = run([build("palladium_ctl"), "-p", pid, "--json", "show", "buffers"])
    if code and "no debug CLI" in text:
        return None
    assert code == 0, text
    return sum(pool["used"] for pool in json.loads(text)["buffers"])


def closing(pid):
    """How many of its threads close something that a peer sent (base/closer.c)."""
    n = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as f:
                n += f.read().strip() == "palladium close"
    return n


def held(pid):
    """See Held. What it closes is waited for."""
    deadline = time.monotonic() + scale(10)
    while closing(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    fds = len(os.listdir(f"/proc/{pid}/fd"))  # before it is asked for its buffers, which takes a connection
    return Held(fds, mappings(pid), private_bytes(pid), buffers(pid), len(os.listdir(f"/proc/{pid}/task")))


class Cycles:
    """The rounds of a test; `done` says how many there were. With a pid, that process is looked at after the first few and after the
    last, and must not have grown. at_rest() is called before each look."""

    def __init__(self, pid=None, at_rest=lambda: None):
        self.pid, self.at_rest = pid, at_rest
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
            self.check(self.before, self.after)

    def _look(self):
        self.at_rest()
        return held(self.pid)

    @staticmethod
    def check(before, after, slack_fds=SLACK_FDS):
        """A process did not grow."""
        assert after.threads == before.threads, f"{after.threads} threads, {before.threads} before"
        assert after.fds <= before.fds + slack_fds, f"{after.fds} descriptors, {before.fds} before"
        assert after.buffers == before.buffers, f"{after.buffers} buffers in use, {before.buffers} before"
        if not sanitized():
            assert after.mappings <= before.mappings + slack_fds, f"{after.mappings} mappings, {before.mappings} before"
            assert after.bytes <= before.bytes + SLACK_BYTES, f"{after.bytes} bytes, {before.bytes} before"

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
