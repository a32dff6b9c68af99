# SPDX-License-Identifier: BSD-2-Clause
"""palladium_stats against a program that publishes known values (publisher.c)."""

import json
import os
import pathlib
import re
import signal
import stat
import struct
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("PD_BUILD", HERE.parent.parent / "build"))
TOOL = BUILD / "palladium_stats"
PUBLISHER = BUILD / "tests/stats/publisher"
UID = os.geteuid()
SUB = f"palladium-{UID}"


class Publisher:
    """A running publisher; `do` sends one command and returns the answer's words."""

    def __init__(self, directory, *args, env=None):
        self.proc = subprocess.Popen([PUBLISHER, directory, *args], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True,
                                     env={**os.environ, **(env or {})})
        self.pid = self.proc.pid
        _, self.result, self.path = self.proc.stdout.readline().split(None, 2)
        self.path = pathlib.Path(self.path.strip())

    def tell(self, command):
        self.proc.stdin.write(command + "\n")
        self.proc.stdin.flush()

    def do(self, command):
        self.tell(command)
        return self.proc.stdout.readline().split()

    def end(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        self.proc.stdin.close()
        self.proc.stdout.close()


@pytest.fixture
def publish(tmp_path):
    started = []

    def start(*args, directory=None, env=None):
        started.append(Publisher(str(directory or tmp_path), *args, env=env))
        return started[-1]

    yield start
    for p in started:
        p.end()


def stats(directory, *args, env=None):
    env = {**os.environ, **(env or {})}
    env.pop("PALLADIUM_STATS_SHMEM_DIR", None)
    return subprocess.run([TOOL, *(["-k", directory] if directory else []), *args],
                          capture_output=True, text=True, timeout=60, env=env)


def report(directory, *args):
    """One JSON report."""
    run = stats(directory, "--json", "-c", "1", *args)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def row(text, first):
    """The line of a text report that begins with `first`, as cells (two blanks part them)."""
    line = next(x for x in text.splitlines() if x.split() and x.split()[0] == first)
    return re.split(r"  +", line.strip())


def test_values_are_shown_exactly(publish, tmp_path):
    p = publish()
    r = report(tmp_path)
    assert r["pid"] == p.pid and r["program"] == "publisher" and r["ended"] is False
    assert r["file"] == str(p.path)
    port, = r["port"]
    assert (port["name"], port["state"], port["kind"], port["path"]) == \
        ("pd0", "down", "vhost-user", "/run/vlm0.sock")
    c = port["counters"]
    assert c["rx_frames"] == 1007          # its own 7 and the lane's 1000
    assert c["tx_bytes"] == 0x123456789ab  # more than 32 bits
    assert c["reconnects"] == 3 and c["mtu"] == 1500
    lane, = r["lane"]
    assert lane["counters"]["rx_frames"] == 1000 and lane["port"] == 0
    sock, = r["socket"]
    assert sock["id"] == 10 and sock["counters"]["rx_packets"] == 233020
    assert sock["counters"]["rx_queued_bytes_max"] == 200
    assert r["process"][0]["counters"]["sockets_offloaded"] == 1
    assert all(b["consistent"] for b in r["port"] + r["lane"] + r["socket"])


def test_text_views(publish, tmp_path):
    publish()
    one = stats(tmp_path, "-c", "1").stdout
    assert row(one, "pd0") == ["pd0", "down", "vhost-user", "1007", "64.0 kB", "0", "5", "0",
                               "1.3 TB", "0", "0", "3", "Connection?[2Jrefused"]
    assert row(one, "10")[:5] == ["10", "packet", "pd0", "-", "233020"]
    assert "\033" not in one
    two = stats(tmp_path, "-c", "1", "-v", "2").stdout
    assert row(two, "pd0/0")[:4] == ["pd0/0", "1000", "0", "75.0 %"]
    three = stats(tmp_path, "-c", "1", "-v", "3").stdout
    assert row(three, "rx_drop_malformed") == \
        ["rx_drop_malformed", "2", "frames", "dropped: bad descriptor chain or header, or shorter than an Ethernet header"]


def test_rates_are_divided_by_the_time_that_passed(publish, tmp_path):
    p = publish()
    tool = subprocess.Popen([TOOL, "-k", tmp_path, "--json", "-d", "2", "-i", "0.05", "-c", "0"],
                            stdout=subprocess.PIPE, text=True)
    try:
        first = json.loads(tool.stdout.readline())
        assert first["elapsed_s"] > 0
        p.do("add")
        while True:
            r = json.loads(tool.stdout.readline())
            if r["lane"][0]["rates"]["rx_frames"]:
                break
        assert r["lane"][0]["rates"]["rx_frames"] * r["elapsed_s"] == pytest.approx(500)
        assert r["port"][0]["rates"]["rx_frames"] * r["elapsed_s"] == pytest.approx(500)
        assert "mtu" not in r["port"][0]["rates"]
        p.do("lane")  # its count moves to the port: nothing new was received
        while True:
            r = json.loads(tool.stdout.readline())
            if not r["lane"]:
                break
        assert r["port"][0]["rates"]["rx_frames"] == 0
        r = json.loads(tool.stdout.readline())  # the one before may have read port and lane apart
        assert r["port"][0]["counters"]["rx_frames"] == 1507
    finally:
        tool.kill()
        tool.wait()
        tool.stdout.close()


def test_sockets_over_the_limit_are_seen(publish, tmp_path):
    p = publish("1")
    p.do("many")
    others = next(b for b in report(tmp_path)["socket"] if b["role"] == "others")
    assert others["counters"]["tx_packets"] == 30
    assert row(stats(tmp_path, "-c", "1").stdout, "(others)")[7] == "30"


def test_a_writer_that_died_in_the_middle_does_not_hang_the_reader(publish, tmp_path):
    p = publish()
    p.do("tear")
    lane, = report(tmp_path)["lane"]
    assert lane["consistent"] is False and lane["counters"]["rx_frames"] == 1000
    text = stats(tmp_path, "-c", "1", "-v", "2").stdout
    assert "pd0/0*" in text and "in the middle of an update" in text


def test_modes_and_removal_at_exit(publish, tmp_path):
    p = publish()
    assert p.path.parent == tmp_path / SUB
    assert stat.S_IMODE(p.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(p.path.parent.stat().st_mode) == 0o700
    assert p.path.stat().st_blocks * 512 >= p.path.stat().st_size  # no holes: no SIGBUS later
    p.tell("exit")
    assert p.proc.wait() == 0
    assert list((tmp_path / SUB).iterdir()) == []


def test_the_process_ends_while_watched(publish, tmp_path):
    for command, in (("exit",), ("crash",)):
        p = publish()
        tool = subprocess.Popen([TOOL, "-k", tmp_path, "--json", "-i", "3600"], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert json.loads(tool.stdout.readline())["ended"] is False
        p.tell("add")
        p.tell(command)
        p.proc.wait()
        out, err = tool.communicate(timeout=60)
        last = json.loads(out)
        assert last["ended"] is True and last["lane"][0]["counters"]["rx_frames"] == 1500
        assert err == f"palladium_stats: process {p.pid} has ended\n" and tool.returncode == 0


def test_stale_files_are_removed_unless_forbidden(publish, tmp_path):
    p = publish()
    p.tell("crash")
    p.proc.wait()
    assert p.path.exists()
    run = stats(tmp_path, "-F")
    assert run.returncode == 1 and p.path.exists()
    assert stats(tmp_path).returncode == 1
    assert not p.path.exists()


def test_the_next_process_removes_stale_files(publish, tmp_path):
    p = publish()
    p.tell("crash")
    p.proc.wait()
    keep = tmp_path / SUB / "something-else"
    keep.touch()
    publish()
    assert not p.path.exists() and keep.exists()


def test_a_reused_pid_is_noticed(publish, tmp_path):
    p = publish()
    _, pid, start, rest = p.path.name.split(".", 3)
    fake = p.path.with_name(f"stats.{pid}.{int(start) - 1}.{rest}")
    fake.write_bytes(p.path.read_bytes())
    fake.chmod(0o600)
    # one that was never finished, so that only its name tells
    empty = p.path.with_name(f"stats.{pid}.{int(start) - 2}.{rest}")
    empty.touch(mode=0o600)
    assert report(tmp_path, "-p", pid)["file"] == str(p.path)
    assert not fake.exists() and not empty.exists() and p.path.exists()


def test_another_pid_namespace_is_let_alone(publish, tmp_path):
    p = publish()
    _, _, start, pidns, rnd = p.path.name.split(".")
    other = p.path.with_name(f"stats.{2**22 + 1}.{start}.{int(pidns) + 1}.{rnd}")
    other.write_bytes(p.path.read_bytes())
    other.chmod(0o600)
    run = stats(tmp_path)
    assert other.exists()
    assert run.returncode == 1 and "another PID namespace" in run.stdout
    publish()
    assert other.exists()


def test_an_exec_leaves_nothing_to_show(publish, tmp_path):
    p = publish()
    p.tell("exec")
    while b"sleep" not in pathlib.Path(f"/proc/{p.pid}/cmdline").read_bytes():
        pass
    assert stats(tmp_path, "-p", str(p.pid)).returncode == 1
    assert not p.path.exists()


def test_a_child_has_its_own_file(publish, tmp_path):
    p = publish()
    word, child, path = p.do("fork")
    assert word == "child" and path != str(p.path)
    mine = report(tmp_path, "-p", child)
    assert mine["lane"][0]["counters"]["rx_frames"] == 1000  # two rounds of its own, none before
    assert mine["port"][0]["name"] == "pd0"
    assert report(tmp_path, "-p", str(p.pid))["lane"][0]["counters"]["rx_frames"] == 1000
    several = stats(tmp_path)
    assert several.returncode == 1 and child in several.stdout and str(p.pid) in several.stdout
    os.kill(int(child), signal.SIGKILL)


def test_links_are_refused(publish, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    base = tmp_path / "base"
    base.mkdir()
    (base / SUB).symlink_to(victim)
    p = publish(directory=base)
    assert p.result == "-1" and str(p.path) == "-"  # -EPERM, and the program runs on
    assert list(victim.iterdir()) == []
    assert "not a directory" in stats(base).stderr
    assert p.do("add")[0] == "add"


def test_too_open_places_are_refused(publish, tmp_path):
    (tmp_path / SUB).mkdir()
    (tmp_path / SUB).chmod(0o755)
    assert publish().result == "-1"
    assert "mode 0700" in stats(tmp_path).stderr
    (tmp_path / SUB).chmod(0o700)
    p = publish()
    p.path.chmod(0o644)
    run = stats(tmp_path)
    assert run.returncode == 1 and "mode 0600" in run.stderr
    link = p.path.with_name(p.path.name + "0")
    link.symlink_to(p.path)
    assert "symbolic link" in stats(tmp_path).stderr


def test_damaged_files_are_refused(publish, tmp_path):
    p = publish()
    good = p.path.read_bytes()
    header = {"major": (8, "<H"), "header_bytes": (12, "<I"), "file_bytes": (16, "<Q"),
              "group_offset": (64, "<I"), "group_stride": (68, "<I"), "group_count": (72, "<I"),
              "desc_offset": (76, "<I"), "desc_stride": (80, "<I"), "desc_count": (84, "<I")}
    for name, (at, form) in header.items():
        for value in (0xfff0, 3):
            bad = bytearray(good)
            struct.pack_into(form, bad, at, value)
            p.path.write_bytes(bad)
            run = stats(tmp_path, "-c", "1")
            assert run.returncode in (0, 1), (name, value, run)
            if name in ("major", "file_bytes"):
                assert run.returncode == 1 and "refused" in run.stderr
    p.path.write_bytes(good)
    assert report(tmp_path)["pid"] == p.pid


def test_newer_minor_versions_are_read(publish, tmp_path):
    """A file with longer records and one more counter, made from a real one."""
    p = publish()
    good = p.path.read_bytes()
    off, stride, count = struct.unpack_from("<III", good, 76)
    descs = [good[off + i * stride:off + (i + 1) * stride] + b"\xff" * 8 for i in range(count)]
    new = bytearray(good + b"".join(descs))
    struct.pack_into("<III", new, 76, len(good), stride + 8, count)
    struct.pack_into("<H", new, 10, 9)
    name = b"rx_frames_of_tomorrow"
    at = next(i for i, d in enumerate(descs) if d.startswith(b"rx_frames\0"))
    struct.pack_into(f"{len(name)}s", new, len(good) + at * (stride + 8), name)
    struct.pack_into("<Q", new, 16, len(new))
    p.path.write_bytes(new)
    assert report(tmp_path)["port"][0]["counters"]["rx_frames_of_tomorrow"] == 7


def test_last_error_and_its_age(publish, tmp_path):
    """It stays when the port is up again; text and JSON have it."""
    p = publish()
    before = report(tmp_path)["port"][0]
    assert before["last_error"] == "" and "last_error_age_s" not in before
    p.do("error")
    port = report(tmp_path)["port"][0]
    assert (port["state"], port["reason"], port["last_error"]) == ("up", "", "ring 0: ?broken")
    assert 0 <= port["last_error_age_s"] < 3600
    assert re.fullmatch(r"\(.* ago: ring 0: \?broken\)", row(stats(tmp_path, "-c", "1").stdout, "pd0")[-1])
    assert "  last error: ring 0: ?broken\n" in stats(tmp_path, "-c", "1", "-v", "3").stdout


def test_older_minor_versions_are_read(publish, tmp_path):
    """A file of minor version 0, which had no last error, made from a real one: 16 words less in each block."""
    p = publish()
    p.do("error")
    good = p.path.read_bytes()
    groups, group_stride, count, descs, desc_stride, desc_count = struct.unpack_from("<6I", good, 64)
    old = bytearray(good)
    struct.pack_into("<H", old, 10, 0)
    for g in range(count):
        at = groups + g * group_stride + 80
        offset, stride, blocks = struct.unpack_from("<3I", good, at)
        struct.pack_into("<I", old, at + 4, stride - 128)
        for b in range(blocks):
            block = good[offset + b * stride:offset + (b + 1) * stride]
            to = offset + b * (stride - 128)
            old[to:to + stride - 128] = block[:384] + block[512:]
    for d in range(desc_count):
        at = descs + d * desc_stride + 152
        word, seq = struct.unpack_from("<2I", good, at)
        struct.pack_into("<2I", old, at, word - 16, seq - 16)
    p.path.write_bytes(old)
    port = report(tmp_path)["port"][0]
    assert (port["name"], port["state"], port["last_error"]) == ("pd0", "up", "")
    assert port["counters"]["rx_frames"] == 1007 and port["counters"]["mtu"] == 1500
    assert row(stats(tmp_path, "-c", "1").stdout, "pd0")[:4] == ["pd0", "up", "vhost-user", "1007"]


def test_default_places(publish, tmp_path):
    p = publish(directory="-", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert p.result == "0" and p.path.parent.name == SUB
    assert report(None, "-p", str(p.pid))["pid"] == p.pid
    assert report(None, "-n", "publi*", "-p", str(p.pid))["pid"] == p.pid


@pytest.mark.skipif(UID != 0, reason="needs root to be two users")
def test_other_users_are_refused_and_root_is_not(tmp_path):
    for d in (tmp_path, *tmp_path.parents):
        if d.stat().st_uid == UID and d.name.startswith("py"):
            d.chmod(0o755)
    tmp_path.chmod(0o1777)
    p = subprocess.Popen([PUBLISHER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True, user=65534, group=65534)
    try:
        path = p.stdout.readline().split()[2]
        assert path.startswith(f"{tmp_path}/palladium-65534/")
        assert report(tmp_path)["pid"] == p.pid
        other = subprocess.run([TOOL, "-k", tmp_path, "-p", str(p.pid)], capture_output=True,
                               text=True, user=65533, group=65533, extra_groups=[])
        assert other.returncode == 1
        assert re.search(r"belongs to \S+: only that user and root may look", other.stderr)
        same = subprocess.run([TOOL, "-k", tmp_path, "-c", "1"], capture_output=True,
                              text=True, user=65534, group=65534, extra_groups=[])
        assert same.returncode == 0 and "pd0" in same.stdout
        # somebody else's directory under our name
        os.rename(tmp_path / "palladium-65534", tmp_path / SUB)
        assert "refused" in stats(tmp_path).stderr
    finally:
        p.kill()
        p.wait()
        p.stdin.close()
        p.stdout.close()


@pytest.mark.parametrize("args,status,said", [
    (["-v", "4"], 2, "later version"), (["-v", "9"], 2, "from 1 to 3"), (["-i", "0"], 2, "--interval"),
    (["-i", "1x"], 2, "--interval"), (["-c", "-1"], 2, "--cycles"), (["-p", "0"], 2, "--pid"),
    (["-d", "3"], 2, "--details"), (["x"], 2, "'x'"), (["--nonsense"], 2, "nonsense'\nTry"),
    (["-p", "4194304"], 1, "no process 4194304"), (["-p", str(os.getpid())], 1, "publishes no counters"),
    (["-n", "nobody"], 1, "'nobody'"), ([], 1, "no process publishes"),
])
def test_wrong_usage_and_nothing_to_show(tmp_path, args, status, said):
    run = stats(tmp_path, *args)
    assert run.returncode == status and said in run.stderr and not run.stdout


def test_help_and_version(tmp_path):
    assert "--interval" in stats(tmp_path, "-h").stdout
    assert re.fullmatch(r"palladium_stats [0-9.]+\n", stats(tmp_path, "-V").stdout)


def test_the_tool_includes_one_header_of_the_library():
    source = HERE.parent.parent / "src"
    used = {m for f in [*source.glob("stats/*.[ch]"), *source.glob("tools/places.[ch]")]
            for m in re.findall(r'#include "(.*/.*)"', f.read_text())}
    assert used == {"counters/shm.h", "../tools/places.h"}
