# SPDX-License-Identifier: BSD-2-Clause
"""Plug-ins as a user makes them: compiled outside of the tree against the installed header, loaded by the preload, seen in
palladium_ctl; what their nodes do to frames between the ends of a loop; and plug-ins that cannot be used."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "sock"))
from lab.proc import Proc, build, build_dir, scale, source  # noqa: E402  pylint: disable=wrong-import-position
import test_sidecar  # noqa: E402  pylint: disable=wrong-import-position
from sockutil import environment, finish, program  # noqa: E402  pylint: disable=wrong-import-position

LIMIT = scale(20)
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]

# Sends what it is told over pd0, and says what pd1 got.
BODY = """
a, b = packet(A), packet(B)
b.settimeout(10)
MAC1, MAC2 = bytes(range(1, 7)), bytes(range(11, 17))
def at_once(s):
    s.setblocking(False)
    f = attempt(s.recv, 2000)
    s.settimeout(10)
    return f
def got(n):
    frames = [b.recv(2000) for _ in range(n)]
    if at_once(b) != "EAGAIN":
        say("more")
    return frames
"""

# A plug-in whose only node does WORK to n frames; STATE stands in front.
PLUGIN = """
#include <palladium_plugin.h>
#include <errno.h>
#include <stdlib.h>
%(state)s
static void work(struct palladium_node_state *node, struct palladium_frame *const *frames, uint16_t *next, unsigned n)
{
	(void)node; (void)frames; (void)next; (void)n;
	%(work)s
}
static const char *const texts[] = {"seen (not an error)", "too odd"};
%(inits)s
static const struct palladium_node nodes[] = {{.name = "%(name)s", .work = work, .after = "%(after)s", .before = "%(before)s",
	.texts = texts, .text_count = 2, %(more)s}};
PALLADIUM_PLUGIN("%(name)s", nodes, 1, %(init_list)s);
"""


def plugin(name, work="", state="", after="plugin-input", before="plugin-output", inits="", init_list="NULL, 0", more=""):
    """The source of a small plug-in."""
    return PLUGIN % {"name": name, "work": work, "state": state, "after": after, "before": before, "inits": inits,
                     "init_list": init_list, "more": more}


def init(name, body, order=""):
    """One init function, for plugin()."""
    return {"inits": f"static int {name}(void) {{ {body} }}\n"
                     f"static const struct palladium_init inits[] = {{{{.name = \"{name}\", .fn = {name}, {order}}}}};",
            "init_list": "inits, 1"}


@pytest.fixture(scope="module")
def include(tmp_path_factory):
    """Where `make install` puts the headers."""
    to = tmp_path_factory.mktemp("installed")
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    subprocess.run(["make", "-s", "install-includeHEADERS", f"DESTDIR={to}", "includedir=/include"], cwd=build_dir(), env=env,
                   check=True, timeout=LIMIT)
    return to / "include"


class Folder:
    """A directory of plug-ins, and the program that runs with them."""

    def __init__(self, path, include):
        self.path, self.include = path / "plug-ins", include
        self.path.mkdir(mode=0o755)
        self.run_path = path / "run"
        self.run_path.mkdir(mode=0o700)

    def compile(self, name, text):
        """Compile a source, a path or a text, to NAME.so."""
        file = text
        if not isinstance(text, pathlib.Path):
            file = self.run_path / f"{name}.c"
            file.write_text(text)
        done = subprocess.run([os.environ.get("CC", "cc").split()[0], *WARNINGS, "-shared", "-fPIC", f"-I{self.include}",
                               "-o", self.path / f"{name}.so", file], capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done
        (self.path / f"{name}.so").chmod(0o755)
        return self.path / f"{name}.so"

    def env(self, **extra):
        extra = {"PALLADIUM_TRACELEVEL": "info", "PALLADIUM_PLUGIN_PATH": self.path, **extra}
        return environment(PALLADIUM_CLI=self.run_path / "cli", PALLADIUM_STATS_SHMEM_DIR=self.run_path, **extra)

    def run(self, body, **extra):
        """Run a body to its end: its output, and its log."""
        done = subprocess.run(program(BODY + body), env=self.env(**extra), capture_output=True, text=True, timeout=LIMIT,
                              check=False)
        return finish(done), done.stderr

    def start(self, body, **extra):
        """Run a body until it has said "ready"; it ends with its input."""
        p = Proc(program(BODY + body + "\nsay('ready')\nimport sys\nfor line in sys.stdin:\n    exec(line)\n"),
                 env=self.env(**extra))
        p.expect("^ready")
        return p

    def ask(self, *args):
        """What a command of palladium_ctl prints."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PALLADIUM_")}
        done = subprocess.run([build("palladium_ctl"), "-s", self.run_path / "cli", *args], env=env, capture_output=True, text=True,
                              timeout=LIMIT, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@pytest.fixture
def folder(tmp_path, include):
    return Folder(tmp_path, include)


def plain(folder, **extra):
    """Send ten frames and see them come as they were sent; the log."""
    out, log = folder.run("""
sent = [frame(i, 60 + 20 * i) for i in range(10)]
for f in sent:
    a.send(f)
say(got(10) == sent)
""", **extra)
    assert out == "True\n", (out, log)
    return log


def test_the_sample_as_its_manual_says(folder):
    folder.compile("mac_swap", source() / "examples" / "mac_swap.c")
    with folder.start("""
kinds = [0x0800] * 3 + [0x86dd] * 2 + [0x0806] + [ETH_P_TEST]
sent = [MAC1 + MAC2 + bytes((k >> 8, k & 255)) + bytes([i] * 50) for i, k in enumerate(kinds)]
for f in sent:
    a.send(f)
for f, s, k in zip(got(len(sent)), sent, kinds):
    say(hex(k), f == s if k == 0x0806 else f == s[6:12] + s[:6] + s[12:])
""") as p:
        said = re.findall(r"^0x(\w+) (\w+)$", p.text, re.M)
        assert said == [("800", "True")] * 3 + [("86dd", "True")] * 2 + [("806", "True"), ("88b5", "True")], p.text
        assert f"{folder.path}/mac_swap.so: mac-swap, 2 nodes" in p.text
        assert "mac-swap: MAC addresses are exchanged" in p.text
        assert json.loads(folder.ask("--json", "show", "plugins"))["plugins"] == [
            {"name": "mac-swap", "nodes": 2, "state": "in use", "file": f"{folder.path}/mac_swap.so"}]
        errors = folder.ask("show", "errors")
        for n, node, text in ((3, "mac-swap", "IPv4"), (2, "mac-swap", "IPv6"), (1, "mac-swap", "another EtherType"),
                              (1, "mac-swap-arp", "ARP")):
            assert re.search(rf"^ +{n} +{node} +{text} ", errors, re.M), errors
        graph = folder.ask("show", "graph")
        assert re.search(r"^plugin-input +-> mac-swap$", graph, re.M), graph
        assert re.search(r"^mac-swap +-> plugin-output, drop, error-drop, punt, mac-swap-arp$", graph, re.M), graph
        assert re.search(r"^punt +-> error-drop, plugin-output$", graph, re.M), graph
        assert re.search(r"^mac-swap +internal +5 +6$", folder.ask("show", "nodes"), re.M)
        node = folder.ask("show", "nodes", "mac-swap")
        assert "7 vectors" in node and "from    plugin-input, its next 0" in node
        # The tracer sees a frame at it.
        folder.ask("trace", "add", "mac-swap", "1")
        p.write("a.send(sent[0]); say('again', b.recv(2000)[:12] == MAC2 + MAC1)\n")
        p.expect("^again True")
        assert re.search(r"mac-swap\n.*plugin-output", folder.ask("show", "trace"), re.S)
        p.close_stdin()
        assert p.wait() == 0


def test_its_init_function_decides(folder):
    folder.compile("mac_swap", source() / "examples" / "mac_swap.c")
    assert "MAC addresses are left alone" in plain(folder, MAC_SWAP="off")
    log = plain(folder, MAC_SWAP="perhaps")
    assert "MAC_SWAP is on or off, not perhaps" in log
    assert f"{folder.path}/mac_swap.so is not used: its init function failed" in log


def test_frames_that_wait_pass_a_node_once(folder):
    """However often somebody looks, and whatever is dropped between them; in the order in which they came."""
    folder.compile("drops", plugin("drops", """
	for (unsigned i = 0; i < n; i++) {
		uint8_t *h = palladium_frame_head(frames[i]);

		palladium_node_count(node, 0, 1);
		h[16]++;
		next[i] = h[17] % 3 == 0 ? PALLADIUM_NEXT_DROP : h[17] % 3 == 1 ? PALLADIUM_NEXT_PUNT : PALLADIUM_NEXT_ON;
	}"""))
    with folder.start("""
for i in range(60):
    a.send(frame(i))
p = select.poll()
p.register(b, select.POLLIN)
seen = []
for i in range(40):
    say("poll", p.poll(0) != []) if i < 2 else p.poll(0)
    peeked = b.recv(2000, MSG_PEEK)
    f = b.recv(2000)
    assert f == peeked
    seen.append((f[16], f[17]))
say("right", seen == [(1, i) for i in range(60) if i % 3])
say("none", p.poll(0), at_once(b))
""") as p:
        assert re.search("^right True$", p.text, re.M) and p.text.count("poll True") == 2, p.text
        assert "none [] EAGAIN" in p.text
        assert re.search(r"^ +60 +drops +seen ", folder.ask("show", "errors"), re.M), folder.ask("show", "errors")
        assert re.search(r"^drop .*\b20 vectors", folder.ask("show", "nodes", "drop").replace(":", " "), re.M)
        # Only dropped frames: nothing to receive, and the ring is empty again.
        p.write("say('dropped', {([a.send(frame(3 * i)) for i in range(60)], at_once(b))[1] for _ in range(10)})\n")
        p.expect("^dropped {'EAGAIN'}")
        p.close_stdin()
        assert p.wait() == 0


def test_several_sockets_a_sidecar_and_a_reason(folder):
    folder.compile("marks", plugin("marks", """
	for (unsigned i = 0; i < n; i++) {
		uint8_t *s = palladium_frame_sidecar(frames[i]), byte = 0;

		if (s && !palladium_frame_is_control(frames[i]))
			s[8]++;
		if (palladium_frame_read(frames[i], 17, &byte, 1) == 1 && byte == 7)
			next[i] = palladium_frame_fail(frames[i], 1);
		byte += 100;
		palladium_frame_write(frames[i], 17, &byte, 1);
		if (palladium_frame_write(frames[i], palladium_frame_len(frames[i]), &byte, 1))
			abort();
	}"""))
    with folder.start("""
c, d = packet(B), packet(B, ETH_P_TEST)
c.settimeout(10)
d.settimeout(10)
for i in range(10):
    a.send(frame(i))
want = [100 + i for i in range(10) if i != 7]
for s in (b, c, d):
    say("all", [s.recv(2000)[17] for _ in want] == want, at_once(s))
""") as p:
        assert p.text.count("all True EAGAIN") == 3, p.text
        assert re.search(r"^ +1 +marks +too odd$", folder.ask("show", "errors"), re.M)
        p.close_stdin()
        assert p.wait() == 0


def test_nodes_one_behind_the_other(folder):
    """In the order of the names of their files; a node behind another's."""
    add = "for (unsigned i = 0; i < n; i++) palladium_frame_head(frames[i])[17] = (uint8_t)(palladium_frame_head(frames[i])[17] %s);"
    folder.compile("1", plugin("times", add % "* 3"))
    folder.compile("2", plugin("plus", add % "+ 1"))
    folder.compile("3", plugin("times-two", add % "* 2", after="times", before="plus"))
    with folder.start("""
a.send(frame(5))
say("computed", b.recv(2000)[17])
""") as p:
        assert "computed 31" in p.text
        graph = folder.ask("show", "graph")
        assert all(re.search(rf"^{x} +-> {y}", graph, re.M) for x, y in (("plugin-input", "times"), ("times", "times-two"),
                                                                          ("times-two", "plus"), ("plus", "plugin-output"))), graph
        p.close_stdin()
        assert p.wait() == 0


def test_mistakes_of_a_node_cost_the_frame(folder):
    folder.compile("wrong", plugin("wrong", """
	for (unsigned i = 0; i < n; i++) {
		uint8_t *h = palladium_frame_head(frames[i]);

		if (h[17] == 1)
			next[i] = 77;
		else if (h[17] == 2)
			next[i] = palladium_frame_fail(frames[i], 9999);
		else if (h[17] == 3)
			next[i] = PALLADIUM_NEXT_ERROR;
	}"""))
    out, _ = folder.run("for i in range(6): a.send(frame(i))\nsay([f[17] for f in got(3)])")
    assert out == "[0, 4, 5]\n"


LENGTHS = {
    # frame of 100 bytes in, what is sent, and what comes of it
    "a tag": ("uint8_t *h = palladium_frame_push(f, 4); memmove(h, h + 4, 12); memcpy(h + 12, \"\\x81\\0\\0\\7\", 4);",
              "f[:12] + bytes([0x81, 0, 0, 7]) + f[12:]"),
    "a tag less": ("uint8_t m[12]; memcpy(m, palladium_frame_head(f), 12); if (palladium_frame_pull(f, 4)) abort();"
                   "memcpy(palladium_frame_head(f), m, 12);", "f[:12] + f[16:]"),
    "behind": ('if (palladium_frame_append(f, "behind", 6)) abort();', "f + b'behind'"),
    "sooner": ("if (palladium_frame_trim(f, 60)) abort();", "f[:60]"),
    "all the room": ("memset(palladium_frame_push(f, 128), 7, 128); if (palladium_frame_push(f, 1)) abort();", "bytes([7]) * 128 + f"),
    "all at once": ("static uint8_t much[12240]; if (palladium_frame_append(f, much, 12240 - 100) ||"
                    "palladium_frame_append(f, much, 1) != -EMSGSIZE || palladium_frame_len(f) != 12240 ||"
                    "palladium_frame_head_len(f) != 12240 || palladium_frame_push(f, 1) || palladium_frame_trim(f, 64) ||"
                    "palladium_frame_pull(f, 40) || !palladium_frame_push(f, 2)) abort();"
                    'memcpy(palladium_frame_head(f), "!!", 2);', "b'!!' + f[40:64]"),
    "not too short": ("if (palladium_frame_trim(f, 13) != -EINVAL || palladium_frame_pull(f, 87) != -EINVAL ||"
                      "palladium_frame_trim(f, 101) != -EINVAL || palladium_frame_pull(f, 0xffffffff) != -EINVAL ||"
                      "palladium_frame_append(f, 0, 0xffffffff) != -EMSGSIZE || palladium_frame_push(f, 0xffffffff)) abort();"
                      "if (palladium_frame_pull(f, 86) || palladium_frame_trim(f, 14)) abort();", "f[86:]"),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_frames_of_another_length(folder, case):
    """Two nodes, one behind the other: what the first made is what the second has."""
    work, expected = LENGTHS[case]
    folder.compile("a_length", plugin("length", "for (unsigned i = 0; i < n; i++) { struct palladium_frame *f = frames[i]; %s }" % work,
                                      state="#include <string.h>"))
    folder.compile("b_mark", plugin("mark", """for (unsigned i = 0; i < n; i++) {
		uint32_t k = palladium_frame_len(frames[i]);
		uint8_t b;

		if (!k || palladium_frame_read(frames[i], k - 1, &b, 1) != 1)
			abort();
	}"""))
    out, log = folder.run(f"""
sent = [frame(i, 100) for i in range(300)]
received = []
for i in range(0, 300, 20):
    for f in sent[i:i + 20]:
        a.send(f)
    received += [b.recv(20000) for _ in range(20)]
say(received == [{expected} for f in sent])
say(at_once(b))
""")
    assert out == "True\nEAGAIN\n", (out, log)


def test_the_sample_that_takes_tags_off(folder):
    folder.compile("vlan_access", source() / "examples" / "vlan_access.c")
    with folder.start("""
def tagged(f, vid):
    return f[:12] + b"\\x81\\0" + (0xe000 | vid).to_bytes(2, "big") + f[12:]
for i in range(30):
    a.send([frame(i), tagged(frame(i), 100), tagged(frame(i), 101)][i % 3])
say(got(20) == [frame(i) for i in range(30) if i % 3 != 2])
a.send(tagged(tagged(frame(1), 7), 100))
say(got(1) == [tagged(frame(1), 7)])
""", VLAN_ACCESS="100") as p:
        assert p.text.count("True\n") == 2, p.text
        errors = folder.ask("show", "errors")
        for n, text in ((11, "of the VLAN"), (10, "without a tag"), (10, "of another VLAN")):
            assert re.search(rf"^ +{n} +vlan-access +{text}", errors, re.M), errors
        p.close_stdin()
        assert p.wait() == 0
    for wrong in ("0", "4095", "x", "7x", ""):
        assert f"VLAN_ACCESS is a VLAN, 1 to 4094, not {wrong}" in plain(folder, VLAN_ACCESS=wrong)


def test_control_messages_have_no_length(folder):
    folder.compile("length", plugin("length", """
	for (unsigned i = 0; i < n; i++)
		if (palladium_frame_is_control(frames[i]) &&
		    (palladium_frame_push(frames[i], 20) || !palladium_frame_append(frames[i], "x", 1) || !palladium_frame_trim(frames[i], 0) ||
		     !palladium_frame_pull(frames[i], 0)))
			abort();
		else
			palladium_node_count(node, palladium_frame_is_control(frames[i]), 1);
"""))
    with folder.start(test_sidecar.body("""
opt(b, RECV_CONTROL, 1)
put(a, b"", sidecar(1, True))
a.send(frame(1))
say("control", b.recv(2000), got(1) == [frame(1)])
""")) as p:
        assert "control b'' True" in p.text
        assert re.search(r"^ +1 +length +too odd$", folder.ask("show", "errors"), re.M)
        p.close_stdin()
        assert p.wait() == 0


REFUSED = {
    "version": (plugin("old").replace("#include <palladium_plugin.h>", "#include <palladium_plugin.h>\n"
                                      "#undef PALLADIUM_PLUGIN_VERSION\n#define PALLADIUM_PLUGIN_VERSION 1u"),
                "another version of palladium_plugin.h"),
    "magic": (plugin("odd").replace("#include <palladium_plugin.h>", "#include <palladium_plugin.h>\n"
                                    "#undef PALLADIUM_PLUGIN_MAGIC\n#define PALLADIUM_PLUGIN_MAGIC 7u"), "is not what PALLADIUM_PLUGIN"),
    "symbol": ("int nothing_of_ours;", "has no palladium_plugin"),
    "needs": ("int nowhere(void); int (*need)(void) = nowhere;", "undefined symbol: nowhere"),
    "duplicate": (plugin("error-drop"), "two nodes are called error-drop"),
    "next": (plugin("lost", state='static const char *const to[] = {"nowhere"};', more=".nexts = to, .next_count = 1"),
             "next node 4 of lost, nowhere, does not exist"),
    "place": (plugin("lost", before="packet-match"), "on the way from plugin-input to packet-match, and there is none"),
    "closed": (plugin("nosy", after="packet-input", before="packet-match"), "where no node may stand"),
    "many": (plugin("many", more=".next_count = 13"), "too many nexts"),
    "init": (plugin("weak", **init("weak_init", "return -EIO;")), "weak_init failed: Input/output error"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_named_and_left_out(folder, case):
    text, why = REFUSED[case]
    bad = folder.compile("a_bad", text)
    log = plain(folder)
    assert why in log and str(bad) in log, log
    assert re.search(rf"{re.escape(str(bad))} is not (used|loaded): ", log), log


def test_others_go_on_without_it(folder):
    """Also those that stood behind what is refused when its init function fails."""
    for name, text in (("b_first", plugin("first", **init("first_init", "return 0;"))),
                       ("c_weak", plugin("weak", **init("weak_init", "return -EIO;", "")) ),
                       ("d_behind", plugin("behind", after="weak", before="plugin-output")),
                       ("e_last", plugin("last", "palladium_node_count(node, 0, n);"))):
        folder.compile(name, text)
    (folder.path / "a_text.so").write_text("no program")
    (folder.path / "ignored.txt").write_text("no plug-in")
    with folder.start("a.send(frame(1)); say(got(1) == [frame(1)])") as p:
        assert re.search("^True$", p.text, re.M), p.text
        state = {r["name"]: r["state"] for r in json.loads(folder.ask("--json", "show", "plugins"))["plugins"]}
        assert state == {"first": "in use", "weak": "its init function failed", "behind": "its nodes do not fit into the graph",
                         "last": "in use"}
        assert re.search(r"a_text.so is not loaded: .*a_text.so: ", p.text) and "ignored" not in p.text
        assert re.search(r"^plugin-input +-> first$", folder.ask("show", "graph"), re.M)
        assert re.search(r"^ +1 +last +seen ", folder.ask("show", "errors"), re.M)
        p.close_stdin()
        assert p.wait() == 0


def test_init_functions_in_their_order(folder):
    say = "palladium_log(PALLADIUM_LOG_INFO, \"%s\"); return 0;"
    names = {"one": 'static const char *const after[] = {"two", "absent", NULL};', "two": "", "three": ""}
    folder.compile("1", plugin("one", state=names["one"], **init("one", say % "one runs", ".runs_after = after")))
    folder.compile("2", plugin("two", **init("two", say % "two runs")))
    folder.compile("3", plugin("three", state='static const char *const before[] = {"two", NULL};',
                               **init("three", say % "three runs", ".runs_before = before")))
    log = plain(folder)
    assert re.search("three runs(.|\n)*two runs(.|\n)*one runs", log), log


def test_a_circle_among_them_uses_none(folder):
    for a, b in (("one", "two"), ("two", "three"), ("three", "one")):
        folder.compile(a, plugin(a, "abort();", state=f'static const char *const after[] = {{"{b}_init", NULL}};',
                                 **init(f"{a}_init", "abort();", ".runs_after = after")))
    log = plain(folder)
    assert re.search("cannot be put in order: .*one_init.*two_init|cannot be put in order: .*two_init.*one_init", log), log
    assert log.count("is not used: the init functions cannot be run") == 3


def test_who_else_can_write_there(folder, tmp_path):
    good = folder.compile("good", plugin("good"))
    for path, mode, why in ((good, 0o775, "can be written by others"), (folder.path, 0o757, "can be written by others"),
                            (folder.path.parent, 0o777, "can be written by others")):
        before = path.stat().st_mode & 0o7777
        path.chmod(mode)
        log = plain(folder)
        path.chmod(before)
        assert f"{good} is not loaded: {path} {why}" in log, log
    folder.path.parent.chmod(0o1777)  # as /tmp
    assert "good.so: good, 1 node" in plain(folder)
    folder.path.parent.chmod(0o700)
    # A link is followed first: what it leads to counts.
    shutil.move(good, tmp_path / "elsewhere.so")
    (tmp_path / "elsewhere.so").chmod(0o777)
    good.symlink_to(tmp_path / "elsewhere.so")
    assert f"{tmp_path}/elsewhere.so can be written by others" in plain(folder)
    if os.geteuid() == 0:
        (tmp_path / "elsewhere.so").chmod(0o755)
        os.chown(tmp_path / "elsewhere.so", 65534, 0)
        assert f"{tmp_path}/elsewhere.so belongs to another user" in plain(folder)


def test_no_directory_and_several(folder, tmp_path):
    folder.compile("good", plugin("good"))
    log = plain(folder, PALLADIUM_PLUGIN_PATH=f"{tmp_path}/absent::{folder.path}")
    assert f"no plug-ins of {tmp_path}/absent: No such file or directory" in log and "good.so: good, 1 node" in log
    assert "plug" not in plain(folder, PALLADIUM_PLUGIN_PATH="")


# Counts in the frame, of byte 41 on how often it came by; every fifth is dropped when it comes first.
COUNTS = plugin("counts", """
	for (unsigned i = 0; i < n; i++) {
		uint8_t *h = palladium_frame_head(frames[i]);

		palladium_node_count(node, 0, 1);
		if (!h[41]++ && h[17] % 5 == 0)
			next[i] = PALLADIUM_NEXT_DROP;
	}""")
# An end of a link: what it sends, and what that is when it has come by a node so often.
END = """
a = packet(A)
a.settimeout(10)
def numbered(i, times=0):
    return frame(i)[:41] + bytes([times]) + bytes(22)
"""
# Sends back what it gets, over link after link, up to the frame LAST.
ECHO = END + """
say("ready")
while True:
    f = attempt(a.recv, 2000)
    if isinstance(f, str):
        time.sleep(0.01)
        continue
    a.send(f)
    if number(f) == LAST:
        break
a.setblocking(False)
say("over", attempt(a.recv, 2000))
sys.stdin.readline()
"""
# Sends frames up to LAST, and looks at what comes back.
ASK = END + """
while attempt(a.send, numbered(1)) != 64:
    time.sleep(0.01)
say(a.recv(2000) == numbered(1, TIMES))
for k in range(LAST - 199, LAST + 1, 20):
    for i in range(k, k + 20):
        a.send(numbered(i))
    wrong = [i for i in range(k, k + 20) if (i & 255) % 5 and a.recv(2000) != numbered(i, TIMES)]
    if wrong:
        say(wrong)
a.setblocking(False)
say("end", attempt(a.recv, 2000))
"""


@pytest.mark.parametrize("who", ["driver", "device", "both"])
@pytest.mark.parametrize("form", ["split", "packed"])
def test_between_two_processes(folder, sock, form, who):
    """Over vhost-user frames go by the node of either end, or of both: once each, more than the ring holds, and of the next link too."""
    folder.compile("counts", COUNTS)
    loaded, times = {"PALLADIUM_PLUGIN_PATH": folder.path}, f"TIMES = {2 if who == 'both' else 1}\n"
    ports = f"pd0=vhost-user:{sock},mode=listen,role=frontend,ring=64,format={form}"
    with Proc(program("LAST = 799\n" + ECHO), env=environment(ports, **(loaded if who != "device" else {}))) as p:
        p.expect("^ready")
        for last in (399, 799):
            with Proc(program(f"LAST = {last}\n{times}{ASK}"),
                      env=environment(f"pd0=vhost-user:{sock}", **(loaded if who != "driver" else {}))) as q:
                q.expect("^end")
                assert q.wait() == 0
                assert q.text == "True\nend EAGAIN\n"
        p.expect("^over EAGAIN")
        p.write("\n")
        assert p.wait() == 0


FORKS = """
def numbered(i, times=0):
    return frame(i)[:41] + bytes([times]) + bytes(22)
def send(first):
    for i in range(first, first + 40):
        a.send(numbered(i))
def right(first):
    b.settimeout(10)
    say([b.recv(2000) for i in range(32)] == [numbered(i, 1) for i in range(first, first + 40) if i % 5], at_once(b))
def end(pid):
    say(os.waitpid(pid, 0)[1])
"""


def test_a_child_leaves_the_parent_its_frames(folder):
    """Those that a node has seen and nobody has received: they wait for the parent, who gets each once, as the node left it."""
    folder.compile("counts", COUNTS)
    with folder.start(FORKS + """
send(0)
say(ready(b), b.recv(2000, MSG_PEEK) == numbered(1, 1))
pid = os.fork()
if not pid:
    say("child", at_once(b), attempt(a.send, numbered(1)))
    os._exit(0)
end(pid)
right(0)
send(40)
right(40)
""") as p:
        assert re.search(r"^1 True\nchild EAGAIN ENETDOWN\n0\nTrue EAGAIN\nTrue EAGAIN\n", p.text, re.M), p.text
        assert re.search(r"^ +80 +counts +seen ", folder.ask("show", "errors"), re.M), folder.ask("show", "errors")
        p.close_stdin()
        assert p.wait() == 0


def test_a_child_that_takes_the_ports_over_has_nodes_of_its_own(folder):
    """As a daemon does, before a frame moved; and when its parent is gone, with frames left that a node had seen."""
    folder.compile("counts", COUNTS)
    out, log = folder.run(FORKS + """
def both(first):
    send(first)
    right(first)
    send(first + 40)
    right(first + 40)
r, w = os.pipe()
pid = os.fork()
if not pid:
    both(0)
    send(80)
    say(b.recv(2000, MSG_PEEK) == numbered(81, 1))
    if os.fork():
        os._exit(0)
    while attempt(a.send, numbered(120)) != 64:
        time.sleep(0.01)
    both(120)
    os._exit(0)
os.close(w)
os.read(r, 1)
end(pid)
both(160)
""")
    assert out.splitlines() == ["True EAGAIN"] * 2 + ["True"] + ["True EAGAIN"] * 2 + ["0"] + ["True EAGAIN"] * 2, (out, log)
