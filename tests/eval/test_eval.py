# SPDX-License-Identifier: BSD-2-Clause
"""palladium_eval as a whole: every mode and placement checked, its figures' names, what ends it, sweeps and profiles. No test
looks at how fast anything was. test_parts.c has the layouts, and what the check finds."""
import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from lab.proc import Proc, build, run, scale, source

PACKETS = 5000
CORES = sorted(os.sched_getaffinity(0))


def command(*args):
    """The program with arguments; it may be slow here."""
    return [build("palladium_eval"), *map(str, args)]


def evaluate(*args, packets=PACKETS, check=True, status=0):
    """A run's JSON; its exit status is as expected."""
    flags = ["--json", "--quiet", "--timeout", int(scale(60)), "--packets", packets]
    code, text = run(command("run", *flags, *(["--check"] if check else []), *args), timeout=120)
    assert code == status, text
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def refused(*args):
    """What it says about wrong usage."""
    code, text = run(command(*args))
    assert code == 2, text
    return text


def right(report, packets=PACKETS):
    """Every packet came, and nothing was wrong with any."""
    assert report["verdict"] == "result" and report["packets"] == packets
    assert not any(report["wrong"].values())
    assert {r["packets"] for r in report["roles"].values()} == {packets}


# --- what moves ---------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["split", "packed", "stripped"])
@pytest.mark.parametrize("how", ["processes", "pair", "threads", "one"])
def test_each_mode_in_each_way(mode, how):
    report = evaluate("--mode", mode, "--as", how)
    right(report)
    roles = report["roles"]
    assert len({r["process"] for r in roles.values()}) == {"processes": 3, "pair": 2, "threads": 1, "one": 1}[how]
    assert len({r["thread"] for r in roles.values()}) == {"processes": 3, "pair": 2, "threads": 3, "one": 1}[how]
    assert {r["core"] for r in roles.values()} <= set(CORES)
    assert report["options"]["mode"] == mode and report["mpps"] > 0


@pytest.mark.parametrize("mode", ["split", "packed"])
@pytest.mark.parametrize("extra", [["--nf-side", "device"], ["--dialect", "avip", "--mergeable", "on", "--size", 3000],
                                   ["--nf", "swap", "--size", 1514], ["--copy-tx", "off", "--batch", 1, "--ring", 4]],
                         ids=["device", "avip", "swap", "small"])
def test_vhost_options(mode, extra):
    right(evaluate("--mode", mode, *extra))


@pytest.mark.parametrize("extra", [
    ["--preset", "base"], ["--preset", "fast"], ["--preset", "step1"], ["--preset", "step2"],
    ["--metadata-place", "ring", "--metadata-size", 20, "--descriptor", 8], ["--metadata-place", "reused", "--nf", "count"],
    ["--metadata-place", "separate", "--host-metadata-place", "aggregated", "--aggregation", 7],
    ["--copy-rx", "off", "--copy-tx", "off", "--header", "off", "--headroom", 0, "--area", 64],
    ["--nf", "swap", "--size", 1500, "--align", 4096], ["--batch", 1024, "--ring", 2048]],
    ids=lambda e: "-".join(str(x).strip("-") for x in e[:4]))
def test_stripped_options(extra):
    report = evaluate("--mode", "stripped", *extra)
    right(report)
    if "count" in extra:
        assert report["nf"] == {"packets": PACKETS, "bytes": 64 * PACKETS}


# Nodes for --nf plugin:, each with WORK done to every frame i, `h` its first bytes; d counts in the place.
NODES = """
#include <errno.h>
#include <palladium_plugin.h>
static unsigned in_all;
#define NODE(name, work) \\
	static void name(struct palladium_node_state *node, struct palladium_frame *const *frames, uint16_t *next, unsigned n) \\
	{ \\
		unsigned *d = palladium_node_data(node); \\
		for (unsigned i = 0; i < n; i++, ++*d) { \\
			uint8_t *h = palladium_frame_head(frames[i]); \\
			(void)h; (void)next; work; \\
		} \\
	}
NODE(counts, h[40] = (uint8_t)*d)
NODE(other, h[40] = (uint8_t)in_all++)
NODE(drops, if (*d % 100 == 7) next[i] = *d % 200 == 7 ? PALLADIUM_NEXT_DROP : 99)
NODE(ways, next[i] = (uint16_t)(PALLADIUM_NEXT_OWN + *d % 3))
NODE(writes, palladium_frame_write(frames[i], palladium_frame_len(frames[i]) - 1, "x", 1))
NODE(lengths, if (palladium_frame_push(frames[i], 1) || palladium_frame_pull(frames[i], 1) != -ENOBUFS ||
	palladium_frame_append(frames[i], "x", 1) != -ENOBUFS || palladium_frame_trim(frames[i], 20) != -ENOBUFS) next[i] = PALLADIUM_NEXT_DROP)
NODE(circle, next[i] = PALLADIUM_NEXT_OWN)
static const char *const to[] = {"writes", "counts", "plugin-output"}, *const self[] = {"circle"}, *const away[] = {"plugin-input"};
static const struct palladium_node nodes[] = {{.name = "counts", .work = counts}, {.name = "other", .work = other},
	{.name = "drops", .work = drops}, {.name = "ways", .work = ways, .nexts = to, .next_count = 3},
	{.name = "writes", .work = writes}, {.name = "circle", .work = circle, .nexts = self, .next_count = 1},
	{.name = "away", .work = circle, .nexts = away, .next_count = 1}, {.name = "lengths", .work = lengths}};
PALLADIUM_PLUGIN("nodes", nodes, 8, NULL, 0);
"""


@pytest.fixture(name="plugins", scope="module")
def plugins_fixture(tmp_path_factory):
    """A directory with the sample and with NODES, compiled as a user does it, for PALLADIUM_PLUGIN_PATH."""
    folder = tmp_path_factory.mktemp("plug-ins")
    folder.chmod(0o755)
    for name, text in (("mac_swap", (source() / "examples" / "mac_swap.c").read_text()), ("nodes", NODES)):
        subprocess.run([os.environ.get("CC", "cc").split()[0], "-shared", "-fPIC", f"-I{source()}/include", "-xc", "-", "-o",
                        folder / f"{name}.so"], input=text, text=True, check=True, timeout=scale(20))
        (folder / f"{name}.so").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALLADIUM_PLUGIN_PATH", str(folder))
        yield folder


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("args", [
    ["-m", "split", "--as", "processes"], ["-m", "packed", "--as", "one"], ["-m", "stripped", "--as", "threads"],
    ["-m", "split", "--dialect", "avip", "--mergeable", "on", "--size", 3000], ["-m", "stripped", "--batch", 1024, "--ring", 1024]],
    ids=lambda a: "-".join(str(x).strip("-") for x in a))
def test_a_node_of_a_plug_in_is_the_network_function(args):
    for node in ("mac-swap", "mac-swap-arp", "counts", "ways", "lengths"):
        report = evaluate("--nf", f"plugin:{node}", *args)
        right(report)
        assert report["options"]["nf"] == f"plugin:{node}"
        assert report["nf"]["packets"] == PACKETS


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("mode", ["split", "stripped"])
def test_what_a_node_does_wrong_is_found(mode):
    got = evaluate("-m", mode, "--nf", "plugin:drops", status=1)
    assert got["verdict"] == "failed" and got["wrong"]["dropped"] == PACKETS // 100 and got["wrong"]["first"] == 7
    got = evaluate("-m", mode, "--nf", "plugin:circle", status=1)
    assert got["wrong"]["dropped"] == PACKETS
    # Both places count in one variable, so they do not do the same.
    got = evaluate("-m", mode, "--as", "one", "--nf", "plugin:other", status=1)
    assert got["wrong"]["contents"] > PACKETS // 2 and not got["wrong"]["dropped"]


@pytest.mark.usefixtures("plugins")
def test_a_node_that_cannot_be_used_is_refused():
    assert "there is no node mac; the plug-ins have mac-swap, mac-swap-arp, counts, other" in refused("run", "--nf", "plugin:mac")
    assert "away sends packets to plugin-input, which no plug-in has" in refused("run", "--nf", "plugin:away")
    assert "plugin:mac-swap needs nf-side driver" in refused("run", "--nf", "plugin:mac-swap", "--nf-side", "device")
    assert "plugin:mac-swap needs copy-rx on" in refused("run", "-m", "stripped", "--nf", "plugin:mac-swap", "--copy-rx", "off")
    code, text = run(command("run", "--nf", "plugin:mac-swap"), env={"PALLADIUM_PLUGIN_PATH": ""})
    assert code == 2 and "no node mac-swap: PALLADIUM_PLUGIN_PATH has no plug-in" in text
    code, text = run(command("sweep", "-q", "-C", "-n", 1000, "--table", "nf=swap,plugin:mac-swap"))
    assert code == 0 and [(r["nf"], r["verdict"]) for r in rows(text)] == [("swap", "result"), ("plugin:mac-swap", "result")]


def test_the_short_form_and_the_words():
    code, text = run(command("run", 16, 64, "-n", PACKETS, "-m", "stripped", "-C", "-q"))
    assert code == 0
    assert "batch 16, ring 64" in text and "on core" in text
    assert re.search(r"^result: [0-9.]+ Mpps", text, re.M)


def test_a_figure_is_a_result_only_when_checked():
    report = evaluate("--mode", "stripped", check=False)
    assert (report["verdict"], report["checked"]) == ("unchecked", False)
    code, text = run(command("run", "-n", 1000, "-m", "stripped", "-q"))
    assert code == 0 and re.search(r"^unchecked: ", text, re.M) and "result" not in text


def test_latency():
    for mode in ("split", "stripped"):
        latency = evaluate("--mode", mode, "--latency")["latency_ns"]
        assert latency["count"] == PACKETS
        order = [latency[k] for k in ("min", "p50", "p90", "p99", "p99.9", "max")]
        assert order == sorted(order) and order[-1] > 0


@pytest.mark.skipif(len(CORES) < 2, reason="one core")
def test_the_bound_is_of_the_same_run():
    assert evaluate("--mode", "stripped", "--bound")["bound_mpps"] > 0


def test_cores_are_those_that_were_asked_for():
    core = CORES[-1]
    report = evaluate("--mode", "stripped", "--cores", core, "--as", "processes")
    right(report)
    assert {r["core"] for r in report["roles"].values()} == {core}
    assert all(r["shares_core"] for r in report["roles"].values())
    code, text = run(["taskset", "-c", str(core), *command("run", "-n", 1000, "-m", "stripped", "-j", "-q")])
    assert code == 0 and json.loads(text)["options"]["as"] == "one"


def test_huge_pages_or_the_news_that_there_are_none():
    report = evaluate("--mode", "stripped", "--hugepages", "on")
    right(report)
    assert isinstance(report["had_hugepages"], bool)
    _, text = run(command("run", "-n", 1000, "-m", "stripped", "-q", "-H", "on"))
    assert ("; huge pages" in text) != ("there were no huge pages" in text)


def test_the_layout_is_shown():
    code, text = run(command("run", "-m", "stripped", "--show-layout", "--metadata-place", "aggregated", "--metadata-size", 24))
    shown = dict(line.split("=", 1) for line in text.splitlines())
    assert code == 0 and shown["nf_metadata_place"] == "aggregated" and shown["packet_at"] == "128"
    at = [int(shown[f"nf_metadata_of_packet_{i}"]) for i in range(3)]
    assert (at[1] - at[0], at[2] - at[1]) == (24, 24)
    assert "no meaning in mode split" in refused("run", "--show-layout")


# --- wrong usage --------------------------------------------------------------------------------

@pytest.mark.parametrize("args, words", [
    ([], "expected a command"), (["walk"], "no command walk"), (["run", "1", "2", "3"], '"3" is not expected'),
    (["run", "--size", "9"], "32 to 12240"), (["run", "--colour"], "no option --colour"),
    (["run", "64", "32"], "does not fit into a ring of 32"), (["run", "--size"], "--size needs a value"),
    (["run", "--preset", "fast", "--mode", "split"], "has no meaning in mode split"),
    (["profile"], "expected run"), (["sweep"], "expected a FILE"), (["sweep", "/nonexistent"], "/nonexistent: No such file")])
def test_wrong_usage(args, words):
    assert words in refused(*args)


# --- what ends a run ----------------------------------------------------------------------------

def endless(folder, *args):
    """A run that goes on until something ends it, with its sockets below a folder."""
    return Proc(command("run", "--packets", 10**12, "--timeout", 600, *args), env={"TMPDIR": str(folder)})


def _running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _ticks(pid):
    """Ticks of the clock that a process has run for."""
    return sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))


def nothing_left(folder, children):
    """No process, no socket."""
    assert not [c for c in children if _running(c)]
    assert not list(folder.iterdir())


def pids(proc):
    """Processes by the roles they run, when it has told them."""
    line = proc.expect(r"palladium_eval: \w+, \w+: (.*)\n").group(1)
    return {m[1]: int(m[2]) for m in re.finditer(r"([a-z+]+) on core \d+ \(process (\d+)\)", line)}


@pytest.mark.parametrize("mode", ["split", "stripped"])
@pytest.mark.parametrize("role", ["rx", "nf", "tx"])
def test_a_crash_is_told(mode, role, sockdir):
    with endless(sockdir, "--mode", mode, "--as", "processes") as p:
        children = pids(p)
        time.sleep(0.2)
        assert len(list(sockdir.iterdir())) == (mode == "split")
        os.kill(children[role], signal.SIGKILL)
        assert p.wait() == 1
        assert f"failed: {role} ended by signal 9 (Killed)" in p.text
    nothing_left(sockdir, children.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("args", [["--mode", "packed"], ["--mode", "stripped", "--as", "threads"]], ids=["packed", "threads"])
def test_a_signal_ends_it_all(number, args, sockdir):
    with endless(sockdir, *args) as p:
        children = pids(p)
        time.sleep(0.2)
        p.signal(number)
        assert p.wait() == 1
        assert "failed: interrupted" in p.text
    nothing_left(sockdir, children.values())


def test_children_do_not_outlive_a_killed_program(sockdir):
    with endless(sockdir, "--mode", "stripped") as p:
        children = pids(p)
        p.kill()
        deadline = time.monotonic() + scale(10)
        while any(_running(c) for c in children.values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_stalled_run_gives_up():
    with Proc(command("run", "--packets", 10**12, "--timeout", 1, "--mode", "stripped", "--as", "processes")) as p:
        nf = pids(p)["nf"]
        while _ticks(nf) < 3:  # it polls: packets move
            time.sleep(0.02)
        os.kill(nf, signal.SIGSTOP)
        assert p.wait() == 1
        assert re.search(r"failed: no packet has moved for 1 s: rx sent \d+, nf forwarded \d+, tx got \d+", p.text)


# --- sweeps -------------------------------------------------------------------------------------

def rows(text):
    """The table."""
    return list(csv.DictReader(text.splitlines()))


def test_a_sweep_has_a_row_for_each_combination(tmp_path):
    out = tmp_path / "out.csv"
    code, text = run(command("sweep", "--csv", out, "-C", "-L", "-n", 2000, "--table", "batch=1,32", "ring=64,256",
                             "mode=split,packed,stripped"), timeout=120)
    assert code == 0, text
    assert "run 12 of 12: batch=32 ring=256 mode=stripped" in text
    got = rows(out.read_text())
    assert [(r["batch"], r["ring"], r["mode"]) for r in got] == [
        (b, r, m) for b in ("1", "32") for r in ("64", "256") for m in ("split", "packed", "stripped")]
    assert {r["verdict"] for r in got} == {"result"}
    assert all(float(r["mpps"]) > 0 and float(r["p99_us"]) >= float(r["p50_us"]) for r in got)


def test_a_file_of_settings(tmp_path):
    table = tmp_path / "table"
    table.write_text("# what EIVU varies\nmode=stripped,split\n\nmetadata-size=16,64   # bytes\n")
    code, text = run(command("sweep", "-q", "-n", 1000, table))
    got = rows(text)
    assert code == 0 and [r["verdict"] for r in got] == ["unchecked", "unchecked", "refused", "refused"]
    assert "metadata-size has no meaning in mode split" in got[2]["failure"]
    table.write_text("mode=stripped\nbatch=1,none\n")
    assert f"{table}:2: batch none" in refused("sweep", table)


def test_a_sweep_that_is_ended_leaves_what_it_measured(tmp_path):
    out = tmp_path / "out.csv"
    with Proc(command("sweep", "-o", out, "--timeout", 600, "--table", "packets=1000,1000000000000,1000", "mode=stripped")) as p:
        p.expect("run 2 of 3")
        p.expect("on core")
        p.signal(signal.SIGINT)
        assert p.wait() == 1
    assert [(r["packets"], r["verdict"]) for r in rows(out.read_text())] == [("1000", "unchecked"), ("1000000000000", "failed")]


def test_a_plot(tmp_path):
    out = tmp_path / "out.svg"
    sweep = command("sweep", "-q", "-n", 1000, "--plot", out, "--table", "batch=1,8", "mode=stripped")
    empty = tmp_path / "bin"
    empty.mkdir()
    code, text = run(sweep, env={"PATH": str(empty)})
    assert code == 2 and "no gnuplot on this machine (Debian: gnuplot-nox)" in text
    assert "ends in .png or .svg" in refused("sweep", "--plot", "a.pdf", "--table", "batch=1")
    if not shutil.which("gnuplot"):
        pytest.skip("no gnuplot on this machine")
    code, text = run(sweep)
    assert code == 0, text
    drawn = out.read_text()
    assert "<svg" in drawn and "Mpps" in drawn and "unchecked" in drawn


# --- profiles -----------------------------------------------------------------------------------

def test_perf_counts_each_role_and_names_what_the_machine_lacks(tmp_path):
    if subprocess.run(["perf", "stat", "-e", "cpu-clock", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no perf here, or it may not count")
    out = tmp_path / "out"
    code, text = run(command("profile", "--items", "cpu-clock,instructions", "--output", out, "run", 32, 256, "-m", "stripped",
                             "--as", "processes", "-n", 200000, "-C"))
    assert code == 0, text
    lines = [line.split() for line in out.read_text().splitlines()[1:]]
    assert {line[0] for line in lines} == {"rx", "nf", "tx"}
    assert all(float(line[2]) > 0 for line in lines if line[1].startswith("cpu-clock"))
    if any("no counter" in line for line in out.read_text().splitlines()):
        assert "this machine has no counter for: instructions" in text and "--with callgrind" in text


def test_callgrind_counts_where_there_are_no_counters(tmp_path):
    if not shutil.which("valgrind"):
        pytest.skip("no valgrind on this machine")
    if _sanitized():
        pytest.skip("a sanitizer's runtime does not run under valgrind")
    out = tmp_path / "out"
    code, text = run(command("profile", "--with", "callgrind", "--items", "instructions,branches,page-faults", "--output", out,
                             "--json", "run", 32, 64, "-m", "stripped", "-n", 3200), timeout=120)
    assert code == 0, text
    got = {(r["role"], r["item"]): r for r in json.loads(out.read_text())}
    for role in ("rx", "nf", "tx"):
        assert got[role, "instructions"]["per_packet"] > 5
        assert 0 < got[role, "branches"]["count"] < got[role, "instructions"]["count"]
        assert got[role, "page-faults"]["count"] is None
    assert "callgrind does not simulate: page-faults" in text


def _sanitized():
    out = subprocess.run(["ldd", build("palladium_eval")], capture_output=True, text=True, check=False).stdout
    return "libasan" in out or "libtsan" in out or "libclang_rt" in out
