# SPDX-License-Identifier: BSD-2-Clause
"""Instructions per frame, held to the table instructions.txt: what was won is not lost unnoticed.

callgrind counts instructions, not time, so the figure is the same on a busy machine. It depends on the compiler and its
options, so the table says which it was made with; with others this is skipped. A change that pays for more instructions changes the
table in the same commit, and says why. PD_INSTRUCTIONS=update writes the table anew.
"""
import os
import pathlib
import re
import subprocess

import pytest

from lab.proc import build, build_dir, library, require

TABLE = pathlib.Path(__file__).with_name("instructions.txt")
TOLERANCE = 0.02
PORTS = "pd0=loop:pd1;pd1=loop:pd0"


def compiled_with():
    """What makes two counts comparable: the compiler's version, and the flags it was given."""
    status = (build_dir() / "config.log").read_text()
    flags = " ".join(sorted(re.search(r"^CFLAGS='(.*)'$", status, re.M).group(1).split()))
    gcc = re.search(r"^gcc version (\d+)", status, re.M)
    assertions = bool(re.search(r"^#define PD_ENABLE_ASSERT 1", status, re.M))
    sanitized = "-fsanitize" in flags
    return None if sanitized or not gcc else f"gcc {gcc.group(1)} {flags}{' assertions' if assertions else ''}"


def read_table():
    """(what it was made with, instructions by row)."""
    lines = [x for x in TABLE.read_text().splitlines() if x and not x.startswith("#")]
    return lines[0], {name: float(n) for n, name in (x.split(None, 1) for x in lines[1:])}


def instructions(tmp_path, argv, env):
    """What the first thread of one run counts: the progress thread's part depends on how long the run takes."""
    out = tmp_path / "callgrind.out"
    subprocess.run(["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}", *map(str, argv)],
                   env={**os.environ, **env}, check=True, capture_output=True, timeout=240)
    return int(re.search(r"^(?:summary|totals): (\d+)", out.with_name("callgrind.out-01").read_text(), re.M).group(1))


ROWS = {f"sockets over loop, batch {batch}, {taps} tap{'s' * (taps > 1)}": (batch, taps)
        for batch, taps in ((1, 1), (32, 1), (256, 1), (32, 2))}
# Several sockets, by mode of tests/bench/batch. Of a thousand each has had its turn before it counts.
SHARED = {"10 taps with an EtherType each": (10, "own", 100), "1000 taps with an EtherType each": (1000, "own", 1000),
          "epoll with 1 member": (1, "epoll", 100), "epoll with 32 members": (32, "epoll", 100),
          "epoll with 1000 members": (1000, "epoll", 1000), "epoll with 32 ports": (32, "ports", 100)}
SHARED = {f"sockets over loop, batch 32, {name}": row for name, row in SHARED.items()}
RINGS = {f"{form} ring to {to}, sidecar, batch 32": (form, to) for form in ("split", "packed") for to in ("driver", "device")}


@pytest.fixture(scope="module")
def table():
    """Instructions by row, when they can be compared with this build's."""
    require("valgrind")
    made_with, rows = read_table()
    if os.environ.get("PD_INSTRUCTIONS") == "update":
        lines = [x for x in TABLE.read_text().splitlines() if x.startswith("#")]
        TABLE.write_text("\n".join([*lines, compiled_with()]) + "\n")
        return {}
    if compiled_with() != made_with:
        pytest.skip(f"the table is for {made_with}, this build is {compiled_with()}")
    return rows


def hold(table, row, n):
    """No more than the table says."""
    if os.environ.get("PD_INSTRUCTIONS") == "update":
        with TABLE.open("a") as f:
            f.write(f"{n:10.1f}  {row}\n")
        return
    assert n <= table[row] * (1 + TOLERANCE), f"{row}: {n:.1f} instructions per frame, the table says {table[row]:.1f}"
    if n < table[row] * (1 - TOLERANCE):
        print(f"{row}: {n:.1f} instructions per frame, fewer than the table's {table[row]:.1f}: bring it up to date")


@pytest.mark.parametrize("row", ROWS)
def test_sockets(tmp_path, table, row):
    """A frame through two packet sockets of one process."""
    batch, taps = ROWS[row]
    env = {"LD_PRELOAD": str(library()), "PALLADIUM_PORTS": PORTS, "PALLADIUM_CONFIG_FILE": "/dev/null",
           "PALLADIUM_TRACELEVEL": "error"}
    program = build("tests/bench/batch")
    few, many = (instructions(tmp_path, [program, rounds, batch, taps], env) for rounds in (100, 300))
    hold(table, row, (many - few) / (200 * batch))


@pytest.mark.parametrize("row", SHARED)
def test_shared(tmp_path, table, row):
    """A frame to one of several sockets, by turns; with an epoll over all of them where the row says so."""
    count, mode, warm = SHARED[row]
    pairs = count if mode == "ports" else 1
    env = {"LD_PRELOAD": str(library()), "PALLADIUM_CONFIG_FILE": "/dev/null", "PALLADIUM_TRACELEVEL": "error",
           "PALLADIUM_PORTS": ";".join(f"pd{2 * i}=loop:pd{2 * i + 1};pd{2 * i + 1}=loop:pd{2 * i}" for i in range(pairs))}
    program = build("tests/bench/batch")
    few, many = (instructions(tmp_path, [program, warm + rounds, 32, count, mode], env) for rounds in (0, 200))
    hold(table, row, (many - few) / (200 * 32))


@pytest.mark.parametrize("row", RINGS)
def test_rings(tmp_path, table, row):
    """A frame through the two ends of a ring, without sockets."""
    program = build("tests/bench/ring")
    few, many = (instructions(tmp_path, [program, frames, *RINGS[row], "avip", 64, 32], {}) for frames in (3200, 9600))
    hold(table, row, (many - few) / 6400)
