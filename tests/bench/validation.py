#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What it costs to check all that the peer of a ring writes, beside a build that does not.

Two threads with a ring between them (tests/bench/ring), and the same program without the tests of descriptors, indices and used
elements (tests/bench/ring_unchecked), in turns: frames per second of each row, and the time that a frame takes more. Payload is
copied in and out by both. The middle of the rounds' ratios is given.

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


def rate(program, seconds, row):
    """Million frames a second."""
    return float(subprocess.run([build(f"tests/bench/{program}"), "threads", str(seconds), *row], check=True,
                                capture_output=True, text=True, timeout=seconds + 30).stdout)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    args.add_argument("--rounds", type=int, default=9)
    args.add_argument("--seconds", type=float, default=0.3, help="per measurement")
    o = args.parse_args()
    print(f"validation, two threads on two cores, ring 256, sidecar 48, 64 B, batch 32, medians of {o.rounds} rounds of {o.seconds} s")
    costs, steady = [], Steady((0, 1))
    for form, to in itertools.product(("split", "packed"), ("driver", "device")):
        row = (form, to, "avip", "64", "32")
        rounds = [[steady.take(rate, p, o.seconds, row) for p in ("ring", "ring_unchecked")] for _ in range(o.rounds)]
        checked, without = (statistics.median(x) for x in zip(*rounds))
        cost = statistics.median(b / a - 1 for a, b in rounds)
        costs.append(cost)
        print(f"  {form:6} to {to:6}  checked {checked:7.3f} Mpps  without {without:7.3f} Mpps  costs {100 * cost:5.1f} %",
              flush=True)
    print(f"  all four rows: {100 * statistics.mean(costs):.1f} %; {steady}")


if __name__ == "__main__":
    main()
