# SPDX-License-Identifier: BSD-2-Clause
"""The handoff demonstration of the VLIB document through palladium_ctl: its script, its errors, its trace on both threads."""
import os
import re
import subprocess

import pytest

from lab.proc import Proc, build

LIMIT = 60 * float(os.environ.get("PD_TIMEOUT_SCALE", "1"))
SCRIPT = """packet-generator new {
   name x
   limit 5
   size 128-128
   interface local0
   node handoffdemo-1
   data {
       incrementing 30
   }
}
"""


class Demo(Proc):
    """The program, and commands for it."""

    def __init__(self, folder):
        self.socket = folder / "cli"
        os.chmod(folder, 0o700)
        super().__init__([str(build("tests/ctl/handoffdemo"))], env={**os.environ, "PALLADIUM_CLI": str(self.socket)})
        self.expect("^ready")

    def ctl(self, *args):
        return subprocess.run([build("palladium_ctl"), "-s", self.socket, *args], capture_output=True, text=True, timeout=LIMIT,
                              check=False)

    def ask(self, *args):
        """What a command prints; it must be done."""
        done = self.ctl(*args)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def until(self, wanted, *args):
        """Ask until the answer matches: what is enabled takes its time."""
        for _ in range(int(LIMIT * 10)):
            text = self.ask(*args)
            if re.search(wanted, text, re.M):
                return text
        raise AssertionError(f"{wanted} is not in:\n{text}")


@pytest.fixture
def demo(tmp_path):
    with Demo(tmp_path) as d:
        yield d
        d.close_stdin()
        assert d.wait() == 0


def test_the_sample_run(demo, tmp_path):
    (tmp_path / "pg_input_script").write_text(SCRIPT)
    demo.ask("ex", str(tmp_path / "pg_input_script"))
    demo.ask("pa", "en")
    text = demo.until(r"^ +5 +handoffdemo-2 ", "sh", "err")
    assert re.search(r"^ +5 +handoffdemo-1 +packets handed off processed$", text, re.M), text
    assert re.search(r"^ +5 +handoffdemo-2 +completed packets$", text, re.M), text
    # The same with the tracer: five frames on each thread.
    demo.ask("trace", "add", "pg-input", "100")
    demo.ask("pa", "en")
    demo.until(r"^ +10 +handoffdemo-2 ", "sh", "err")
    text = demo.until(r"Packet 5(.|\n)*Packet 5(.|\n)*: drop$", "sh", "trace")
    first, second = text.split("Start of thread 2 palladium_wk_1")
    assert "Start of thread 1 palladium_wk_0" in first
    assert first.count("stream x, 128 bytes, local0") == first.count("HANDOFFDEMO: current thread 1") == 5
    assert second.count("HANDOFFDEMO: current thread 2") == second.count("handoffdemo-2: completed packets") == 5
    assert [int(i) for i in re.findall(r"HANDED-OFF: from thread 1 trace index (\d+)", second)] == list(range(5))
    demo.ask("clear", "trace")
    assert "Packet" not in demo.ask("show", "trace").replace("No packets", "")
    show = demo.ask("packet-generator", "show").splitlines()
    assert show[1].split()[:4] == ["x", "no", "5", "5"], show


def test_mistakes_are_told(demo, tmp_path):
    script = tmp_path / "wrong"
    script.write_text("# a comment\n\npacket-generator new {\n name x\n node nowhere\n}\n")
    done = demo.ctl("-f", str(script))
    assert done.returncode == 1
    assert done.stderr.startswith(f"{script}:3: ") and "there is no node nowhere" in done.stderr
    for args, error in ((("trace", "add", "nowhere", "5"), 'no engine has a node "nowhere"'),
                        (("trace", "add", "pg-input"), "from 1 to 1000"),
                        (("trace", "add", "pg-input", "0"), "from 1 to 1000"),
                        (("packet-generator", "enable"), "there is no stream"),
                        (("packet-generator", "delete", "x"), "there is no stream x"),
                        (("packet-generator", "new", "{"), "expected a word of a stream, found the end")):
        done = demo.ctl(*args)
        assert done.returncode == 1 and error in done.stderr, (args, done)
