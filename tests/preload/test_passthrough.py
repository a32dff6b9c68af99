# SPDX-License-Identifier: BSD-2-Clause
"""A program without ports behaves under the preload as without it, and gets nothing of ours."""
import os
import pathlib
import signal
import subprocess

import pytest

BUILD = pathlib.Path(os.environ.get("PD_BUILD", "."))
HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = (BUILD / ".libs/libpalladium.so").resolve()

pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists(), reason="libpalladium.so is not built"),
    pytest.mark.skipif(LIBRARY.exists() and b"__asan_init" in LIBRARY.read_bytes()
                       or LIBRARY.exists() and b"__tsan_init" in LIBRARY.read_bytes(),
                       reason="a sanitizer's library cannot be preloaded into a plain program"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The two C files of this test, compiled without the build's flags: plain programs."""
    out = tmp_path_factory.mktemp("passthrough")
    cc = os.environ.get("CC", "cc").split()
    common = [*cc, "-O1", "-g", "-D_GNU_SOURCE", "-w"]
    subprocess.run([*common, HERE / "parity.c", "-o", out / "parity", "-pthread"], check=True)
    subprocess.run([*common, "-shared", "-fPIC", "-fno-builtin", HERE / "early.c",
                    "-o", out / "early.so"], check=True)
    return out


def run(argv, preload=(), timeout=60, settings=None, **kwargs):
    """Run with these libraries preloaded and no setting of ours but `settings`; returns the finished
    process."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("PALLADIUM_") and k != "LD_PRELOAD"}
    if preload:
        env["LD_PRELOAD"] = ":".join(map(str, preload))
    env.update(settings or {})
    return subprocess.run(list(map(str, argv)), env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=timeout, **kwargs)


def test_every_call_answers_the_same(built):
    plain = run([built / "parity"])
    ours = run([built / "parity"], [LIBRARY])
    assert plain.returncode == 0 and plain.stdout.count("\n") > 200
    assert ours.stdout.splitlines() == plain.stdout.splitlines()
    assert (ours.returncode, ours.stderr) == (plain.returncode, plain.stderr)


def test_no_thread_descriptor_or_file(built):
    plain = run([built / "parity", "footprint"]).stdout.splitlines()
    ours = run([built / "parity", "footprint"], [LIBRARY]).stdout.splitlines()
    assert plain[0].startswith("tasks ")
    added = [line for line in ours if line not in plain]
    assert {line.split("/")[-1] for line in added} == {LIBRARY.name}
    assert [line for line in plain if line not in ours] == []


def test_overflow_is_caught(built):
    plain = run([built / "parity", "overflow"])
    ours = run([built / "parity", "overflow"], [LIBRARY])
    assert plain.returncode == ours.returncode == -signal.SIGABRT
    assert ours.stderr == plain.stderr and "buffer overflow detected" in ours.stderr


@pytest.mark.parametrize("before", [True, False], ids=["allocator first", "allocator second"])
def test_calls_before_we_are_ready(built, before):
    order = [built / "early.so", LIBRARY]
    ours = run([built / "parity"], order if before else order[::-1])
    alone = run([built / "parity"], [built / "early.so"])
    assert alone.returncode == 0
    assert (ours.returncode, ours.stderr) == (0, "")
    assert ours.stdout == alone.stdout


def test_settings_are_said_at_the_first_use_of_a_port():
    settings = {"PALLADIUM_PORTS": "pd0=loop:pd1", "PALLADIUM_STATS_SHMEM_DIR": "",
                "PALLADIUM_CONFIG_FILE": ""}
    other = run(["sh", "-c", "echo a | cat; ls /dev/null"], [LIBRARY], settings=settings)
    assert (other.stdout, other.stderr) == ("a\n/dev/null\n", "")
    wrong = run(["true"], [LIBRARY], settings=settings | {"PALLADIUM_MTUU": "1"})
    assert "PALLADIUM_MTUU" in wrong.stderr and "pd0=loop:pd1" not in wrong.stderr
    code = "import socket; socket.socket(17, 3, 0).bind(('pd0', 3)); print('bound')"
    user = run(["/usr/bin/python3", "-c", code], [LIBRARY], settings=settings)
    assert user.stdout == "bound\n", user.stderr
    assert len([x for x in user.stderr.splitlines()
                if "PALLADIUM_PORTS" in x and "pd0=loop:pd1" in x]) == 1


def test_preload_survives_exec_and_shells(built):
    ours = run(["sh", "-c", "echo a | cat; (exec env true) && echo $(echo b)"], [LIBRARY])
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, "a\nb\n", "")
