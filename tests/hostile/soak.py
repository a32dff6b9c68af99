# SPDX-License-Identifier: BSD-2-Clause
"""make soak: tests that go on and on (cycles.py), each for so many cycles, in pieces of so many seconds, each of which is a process of
its own. What each came to is a line of a log; what the log has is not done again, so a soak that was ended goes on where it was.
Stops at the first failure. At the end, or with --table, a table.

SOAK_CYCLES (1000), SOAK_SECONDS of a piece (45), SOAK_LOG (soak.log), SOAK_TESTS (words, one of which is in the name of each test to be
run), SOAK_RUN (a command in front of each piece, such as nice).
"""
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FILES = ["test_kill.py", "test_killed.py", "test_again.py", "test_repeated.py"]
CYCLES = int(os.environ.get("SOAK_CYCLES", "1000"))
SECONDS = os.environ.get("SOAK_SECONDS", "45")
LEAST = 4  # cycles of a piece: the first three are not looked at
LOG = pathlib.Path(os.environ.get("SOAK_LOG", "soak.log")).resolve()
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
# What the pieces of a test add up to; of anything else the largest is shown.
SUMS = ("frames", "sent", "lost", "in_hand", "restart_lost", "restart_repeated", "attacks", "faults")


def pieces(test=None):
    """What the log has, of one test or of all."""
    if not LOG.exists():
        return []
    with LOG.open(encoding="ascii") as f:
        return [p for p in map(json.loads, f) if test in (None, p["test"])]


def tests():
    """The names of those to run."""
    words = os.environ.get("SOAK_TESTS", "").split()
    out = subprocess.run([*PYTEST, "--collect-only", *(str(HERE / f) for f in FILES)], capture_output=True, text=True, check=True,
                         cwd=HERE).stdout
    names = [line.rsplit("/", 1)[-1] for line in out.splitlines() if "::" in line]
    return [n for n in names if not words or any(w in n for w in words)]


def soak(test):
    """Run a test piece by piece until it has had all its cycles. Returns whether all were well."""
    while (done := sum(p["cycles"] for p in pieces(test))) < CYCLES:
        env = {**os.environ, "PD_FIRST": str(done), "PD_CYCLES": str(max(CYCLES - done, LEAST)), "PD_SECONDS": SECONDS,
               "PD_NOTES": str(LOG)}
        print(f"{test}: {done} of {CYCLES}", flush=True)
        piece = subprocess.run([*os.environ.get("SOAK_RUN", "").split(), *PYTEST, str(HERE / test)], capture_output=True, text=True,
                               check=False, cwd=HERE, env=env)
        if piece.returncode or sum(p["cycles"] for p in pieces(test)) == done:
            print(piece.stdout[-8000:], piece.stderr[-2000:], f"{test}: failed ({piece.returncode})", sep="\n")
            return False
    return True


def growth(ps, index, unit=1):
    """What a program held before and after the piece in which that grew most: descriptors (0), mappings (1), bytes (2)."""
    seen = [(p["after"][index] - p["before"][index], p["before"][index] // unit, p["after"][index] // unit) for p in ps if "before" in p]
    return "{1} {2}".format(*max(seen)) if seen else "-"


def table():
    """What the log says."""
    print(f"{'test':75} {'cycles':>6} {'pieces':>6} {'fds':>6} {'mappings':>8} {'KiB':>11}  sums")
    for test in dict.fromkeys(p["test"] for p in pieces()):
        ps = pieces(test)
        sums = " ".join(f"{k}={sum(p[k] for p in ps)}" for k in SUMS if k in ps[0])
        done = sum(p["cycles"] for p in ps)
        print(f"{test:75} {done:6} {len(ps):6} {growth(ps, 0):>6} {growth(ps, 1):>8} {growth(ps, 2, 1024):>11}  {sums}")


def main():
    """See above."""
    ok = "--table" in sys.argv or all(soak(t) for t in tests())
    table()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
