#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What it costs to check all that the peer of a ring writes, beside a build that does not.

Two threads with a ring between them (tests/bench/ring), and the same program without the tests of descriptors, indices and used
elements (tests/bench/ring_unchecked), in turns and each first in every other round: frames per second of each row, and the time
that a frame takes more. Payload is copied in and out by both. Of the rounds' ratios the middle is given, and between what half of
them lie: a cost that is smaller than that is none that can be seen.

    PD_BUILD=build tests/bench/validation.py [--rounds N] [--seconds S]
"""
import argparse
import itertools
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.proc import build  # noqa: E402
from steady import Steady  # noqa: E402


PROGRAMS = ("ring", "ring_unchecked")


def rate(program, seconds, row):
    """Million frames a second."""
    return float(subprocess.run([build(f"tests/bench/{program}"), "threads", str(seconds), *row], check=True,
                                capture_output=True, text=True, timeout=seconds + 30).stdout)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    args.add_argument("--rounds", type=int, default=40)
    args.add_argument("--seconds", type=float, default=0.1, help="per measurement")
    o = args.parse_args()
    print(f"validation, two threads on two cores, ring 256, sidecar 48, 64 B, batch 32, medians of {o.rounds} rounds of {o.seconds} s")
    costs, steady = [], Steady((0, 1))
    for form, to in itertools.product(("split", "packed"), ("driver", "device")):
        row = (form, to, "avip", "64", "32")
        rounds = [{p: steady.take(rate, p, o.seconds, row) for p in PROGRAMS[::1 if n % 2 else -1]} for n in range(o.rounds)]
        checked, without = (statistics.median(r[p] for r in rounds) for p in PROGRAMS)
        low, cost, high = statistics.quantiles([r[PROGRAMS[1]] / r[PROGRAMS[0]] - 1 for r in rounds], n=4)
        costs.append(cost)
        print(f"  {form:6} to {to:6}  checked {checked:7.3f} Mpps  without {without:7.3f} Mpps  costs {100 * cost:5.1f} % "
              f"({100 * low:.1f} to {100 * high:.1f})", flush=True)
    print(f"  all four rows: {100 * statistics.mean(costs):.1f} %; {steady}")


if __name__ == "__main__":
    main()
