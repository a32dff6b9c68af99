# SPDX-License-Identifier: BSD-2-Clause
"""CPython's own tests of sockets, selectors, processes, signals and threads give the same verdicts
without the preload, with it, and with a port configured that nobody uses.

Each module runs three times, a few at once. A verdict that differs is looked at again: that test runs
alone, RETRIES times on each side. It is unsteady, and reported with what it said on each side, when most of its
verdicts with us are such as it gives without; else it is a failure. A test that hangs has to hang on every side; it is
left out, and named. The VSOCK tests are left out everywhere: their port belongs to the whole machine, so
runs at the same time meet each other there, and where there is no VSOCK they wait for ever.

This takes some minutes, most of them asleep, so it asks for PD_SLOW_TESTS=1.
"""
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import warnings
import xml.etree.ElementTree as ET

import pytest

BUILD = pathlib.Path(os.environ.get("PD_BUILD", "."))
LIBRARY = (BUILD / ".libs/libpalladium.so").resolve()
PYTHON = "/usr/bin/python3.11"
MODULES = ["test_asyncio", "test_signal", "test_socket", "test_subprocess", "test_selectors",
           "test_threading", "test_poll", "test_select", "test_epoll"]  # the slow ones first
SIDES = {
    "plain": {},
    "preload": {"LD_PRELOAD": str(LIBRARY)},
    "port": {"LD_PRELOAD": str(LIBRARY), "PALLADIUM_PORTS": "pd0=loop:pd1",
             "PALLADIUM_TRACELEVEL": "none"},
}
WORKERS = 4
RETRIES = 5
LEFT_OUT = ["*VSOCK*"]
SILENCE = 60  # seconds without a word: the test hangs


def missing():
    """Why this cannot run here, or None."""
    if os.environ.get("PD_SLOW_TESTS") != "1":
        return "takes minutes: set PD_SLOW_TESTS=1"
    if not LIBRARY.exists():
        return "libpalladium.so is not built"
    text = LIBRARY.read_bytes()
    if b"__asan_init" in text or b"__tsan_init" in text:
        return "a sanitizer's library cannot be preloaded into a plain program"
    if subprocess.run([PYTHON, "-c", "import test.test_socket"], capture_output=True).returncode:
        return "Debian's libpython3.11-testsuite is not installed"
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


def environment(side):
    """The environment of a side: ours without settings, plus the side's."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("PALLADIUM_", "LD_", "PYTHON", "PYTEST"))}
    return {**env, "LC_ALL": "C.UTF-8", **SIDES[side]}


def wait_or_hang(proc, log):
    """Wait for the end of a run; True when it fell silent for SILENCE seconds and was killed."""
    size = -1
    while True:
        try:
            proc.wait(SILENCE)
            return False
        except subprocess.TimeoutExpired:
            now = log.stat().st_size
            if now == size:
                os.killpg(proc.pid, signal.SIGKILL)
                proc.wait()
                return True
            size = now


def run(module, side, ignore=(), match=None):
    """Run one module; returns ({test: verdict}, the test that hung or None, the last output)."""
    with tempfile.TemporaryDirectory(prefix="pdpy.") as tmp:
        report, log = pathlib.Path(tmp, "report.xml"), pathlib.Path(tmp, "log")
        argv = [PYTHON, "-m", "test", "-v", "-u", "none", f"--junit-xml={report}",
                f"--tempdir={tmp}"]
        for pattern in [*LEFT_OUT, *ignore]:
            argv += ["-i", pattern]
        if match:
            argv += ["-m", match]
        with log.open("wb") as out:
            proc = subprocess.Popen([*argv, module], env=environment(side), cwd=tmp, stdout=out,
                                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                    start_new_session=True)
            hung = wait_or_hang(proc, log)
        text = log.read_text(errors="replace")
        if hung or not report.exists():
            started = re.findall(r"^(\w+) \((test\.[\w.]+)\)", text, re.M)
            return {}, started[-1][1] if started else module, text[-3000:]
        return dict(verdicts(report)), None, text[-3000:]


def verdicts(report):
    """(test, verdict) pairs of a JUnit report; ok, skipped, failure or error."""
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        yield case.get("name"), kinds[0] if kinds else "ok"


def run_unhung(module, side):
    """Run with what hangs left out; returns (verdicts, the tests that hang)."""
    hangs = []
    while True:
        result, hung, text = run(module, side, hangs)
        if hung is None:
            return result, hangs
        assert hung not in hangs and len(hangs) < 3, f"{module} hangs ({side}):\n{text}"
        hangs.append(hung)


def compare(module, side, plain, other):
    """The differences of two runs that stay when the tests run alone; unsteady ones warn."""
    lasting = []
    for test in sorted(plain.keys() | other.keys()):
        if plain.get(test) == other.get(test):
            continue
        seen = {s: [run(module, s, match=test)[0].get(test, "no verdict") for _ in range(RETRIES)]
                for s in ("plain", side)}
        line = (f"{test}: {plain.get(test)} without, {other.get(test)} with; alone "
                f"{seen['plain']} without, {seen[side]} with")
        if sum(verdict in seen["plain"] for verdict in seen[side]) > RETRIES / 2:
            warnings.warn(f"unsteady: {line}")
        else:
            lasting.append(line)
    return lasting


@pytest.fixture(scope="module")
def results():
    """{(module, side): (verdicts, the tests that hang)} of all runs."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        jobs = {(m, s): pool.submit(run_unhung, m, s) for m in MODULES for s in SIDES}
    return jobs


@pytest.mark.parametrize("side", ["preload", "port"])
@pytest.mark.parametrize("module", MODULES)
def test_same_verdicts(results, module, side):
    plain, hangs = results[module, "plain"].result()
    other, other_hangs = results[module, side].result()
    assert other_hangs == hangs
    for test in hangs:
        warnings.warn(f"hangs with and without the preload, left out: {test}")
    assert len(plain) > 3
    assert compare(module, side, plain, other) == []
