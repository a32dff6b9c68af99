# SPDX-License-Identifier: BSD-2-Clause
"""Huge pages of 2 MiB for a test: root may have some more while it runs.

    with hugepages(8):      # exactly 8 are free, and nobody else's test takes them
        ...
"""
import contextlib
import fcntl
import os
import pathlib

import pytest

SYS = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def count(name):
    return int((SYS / name).read_text(encoding="ascii"))


def free():
    """Huge pages that nobody has been promised."""
    return count("free_hugepages") - count("resv_hugepages")


@contextlib.contextmanager
def hugepages(n):
    """The same lock as tests/unit/base/huge.h."""
    if os.geteuid() or not SYS.exists():
        pytest.skip("huge pages are reserved by root")
    with open("/tmp/palladium-test-hugepages.lock", "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = count("nr_hugepages")
        try:
            (SYS / "nr_hugepages").write_text(f"{before + n - free()}\n", encoding="ascii")
            if free() != n:
                pytest.skip(f"{free()} huge pages can be had here, of {n}")
            yield
        finally:
            (SYS / "nr_hugepages").write_text(f"{before}\n", encoding="ascii")
