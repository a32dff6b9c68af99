# SPDX-License-Identifier: BSD-2-Clause
"""A pytest plug-in that reports as TAP on descriptor 9, which the script pytap opens."""
import os

_count = 0


def _say(line):
    os.write(9, (line + "\n").encode(errors="replace"))


def _report(verdict, name, directive="", text=""):
    global _count  # pylint: disable=global-statement
    _count += 1
    _say(f"{verdict} {_count} - {name.replace('#', '_')}{directive}")
    for line in text.splitlines():
        _say("# " + line)


def pytest_addoption(parser):
    """What the terminal's plug-in defines, which is left out: the texts of assertions ask for it."""
    parser.addoption("--verbose", action="count", default=0, dest="verbose")


def pytest_runtest_logreport(report):
    """One line for each test; its failure text as diagnostics."""
    name = report.nodeid.split("::", 1)[-1]
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected failure"
        _report("ok", name, " # SKIP " + reason.removeprefix("Skipped: "))
    elif report.failed:
        text = report.longreprtext + "".join(f"\n{t}\n{c}" for t, c in report.sections)
        _report("not ok", f"{name} ({report.when})", text=text)
    elif report.when == "call":
        _report("ok", name)


def pytest_collectreport(report):
    """A file that does not load is a failure."""
    if report.failed:
        _report("not ok", report.nodeid + " (collect)", text=report.longreprtext)
    elif report.skipped:
        _report("ok", report.nodeid, " # SKIP " + str(report.longrepr[2]))


def pytest_sessionfinish():
    """The plan comes last."""
    _say(f"1..{_count}")
