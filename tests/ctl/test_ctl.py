# SPDX-License-Identifier: BSD-2-Clause
"""palladium_ctl and the debug CLI of a whole program, over the two ends of a loop: what the commands
show is what was sent; clients that mean no good, other users, forks and the end of the program."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "sock"))
from lab.proc import Proc, build  # noqa: E402  pylint: disable=wrong-import-position
from sockutil import LIMIT, environment, program  # noqa: E402  pylint: disable=wrong-import-position

BODY = """
import sys
a, b = packet(A), packet(B, ETH_P_TEST)
say("ready")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    exec(line)
    say("done")
"""


class Program(Proc):
    """A program with sockets a and b on the ends of a loop, that does what it is told."""

    def __init__(self, folder, body=BODY, **extra):
        self.folder = folder
        env = environment(PALLADIUM_STATS_SHMEM_DIR=folder, PALLADIUM_TRACELEVEL="warn", **extra)
        super().__init__(program(body), env=env)
        self.expect("^ready")

    def do(self, line):
        self.write(line + "\n")
        self.expect("^done")

    def sockets(self):
        """The sockets of CLIs in the directory, by process."""
        return {int(p.name.split(".")[1]): p for p in self.folder.glob("palladium-*/cli.*")}

    def dial(self):
        """A connection to its CLI."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(LIMIT)
        s.connect(str(self.sockets()[self.pid]))
        return s


def ctl(folder, *args, text=None, **kw):
    """Run palladium_ctl."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PALLADIUM_")}
    return subprocess.run([build("palladium_ctl"), "-k", str(folder), *map(str, args)], input=text, env=env,
                          stdin=subprocess.DEVNULL if text is None else None,
                          capture_output=True, text=True, timeout=LIMIT, check=False, **kw)


def ask(prog, *args):
    """What a command prints; it must be done."""
    done = ctl(prog.folder, "-p", prog.pid, *args)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def ask_json(prog, *args):
    return json.loads(ask(prog, "--json", *args))


def hear(s):
    """All that a connection says to its end."""
    text = b""
    try:
        while piece := s.recv(65536):
            text += piece
    except ConnectionResetError:
        pass
    return text.decode()


@pytest.fixture
def prog(sockdir):
    with Program(sockdir) as p:
        yield p


def test_counts_are_what_was_sent(prog):
    prog.do("for i in range(30): a.send(frame(i, 100))")
    prog.do("for i in range(5): a.send(frame(i, 100, OTHER))")
    prog.do("say([number(b.recv(2000)) for i in range(30)] == list(range(30)))")
    prog.do("say(attempt(b.recv, 2000, MSG_DONTWAIT))")
    assert "True" in prog.text and "EAGAIN" in prog.text
    errors, = [e for e in ask_json(prog, "show", "errors")["errors"] if e["node"] == "packet-match"]
    assert errors == {"count": 5, "node": "packet-match", "reason": "no socket wants it"}
    nodes = {(r["engine"], r["name"]): r for r in ask_json(prog, "sh", "run", "verbose")["runtime"]}
    assert nodes["pd0/0 send", "packet-output"]["vectors"] == 35
    assert nodes["pd1/0 receive", "packet-match"]["vectors"] == 35
    assert nodes["pd1/0 receive", "packet-deliver"]["vectors"] == 30
    ports = {p["name"]: p for p in ask_json(prog, "show", "ports")["ports"]}
    assert (ports["pd0"]["tx_frames"], ports["pd0"]["tx_bytes"], ports["pd0"]["state"]) == (35, 3500, "up")
    assert (ports["pd1"]["rx_frames"], ports["pd1"]["rx_drops"]) == (35, 5)
    # From here on.
    ask(prog, "clear", "errors")
    ask(prog, "clear", "runtime")
    prog.do("a.send(frame(0, 100, OTHER)); say(attempt(b.recv, 2000, MSG_DONTWAIT))")
    assert [e["count"] for e in ask_json(prog, "show", "errors")["errors"] if e["node"] == "packet-match"] == [1]
    after = ask_json(prog, "show", "runtime")
    nodes = {(r["engine"], r["name"]): r for r in after["runtime"]}
    assert nodes["pd0/0 send", "packet-output"]["vectors"] == 1 and after["cleared_s"] > 0
    # The counters themselves were not touched.
    assert {p["name"]: p for p in ask_json(prog, "show", "ports")["ports"]}["pd0"]["tx_frames"] == 36


def test_tables_for_people(prog):
    prog.do("for i in range(3): a.send(frame(i, 100, OTHER))")
    prog.do("say(attempt(b.recv, 2000, MSG_DONTWAIT))")
    lines = ask(prog, "sh", "err").splitlines()
    assert lines[0].split() == ["Count", "Node", "Reason"]
    assert ["3", "packet-match", "no", "socket", "wants", "it"] in [x.split() for x in lines]
    lines = ask(prog, "show", "runtime").splitlines()
    at = lines.index(next(x for x in lines if "pd0/0 send" in x))
    assert lines[at + 1].split() == ["Name", "State", "Calls", "Vectors", "Suspends", "Clocks", "Vectors/Call"]
    row = next(x.split() for x in lines[at:] if x.split()[0] == "packet-output")
    assert row[1:5] == ["active", "3", "3", "0"] and row[6] == "1.00"
    assert "packet-match" in ask(prog, "show", "nodes")
    assert "error 1 no socket wants it" in ask(prog, "show", "nodes", "packet-match")
    assert '"packet-match" -> "error-drop"' in ask(prog, "show", "graph", "dot")
    assert "packet-input" in ask(prog, "show", "graph")
    assert "libpalladium" in ask(prog, "show", "version") and str(prog.pid) in ask(prog, "show", "version")
    assert "PALLADIUM_PORTS" in ask(prog, "show", "config")
    assert "PALLADIUM_RX_POLL" not in ask(prog, "show", "config")
    threads = ask_json(prog, "show", "threads")["threads"]
    assert sorted(t["role"] for t in threads if t["role"] != "program") == ["main", "progress"]
    assert all(p["free"] <= p["buffers"] for p in ask_json(prog, "show", "buffers")["buffers"])
    assert "show errors" in ask(prog, "help")


RULES = """application-id other* *
use os packet *
application-id * *
use os tcp_client *:23
use palladium packet pd0:arp
use os packet pd0
"""


def test_rules_are_explained(sockdir, tmp_path):
    """As they are obeyed."""
    conf = tmp_path / "rules.conf"
    conf.write_text(RULES)
    with Program(sockdir, PALLADIUM_CONFIG_FILE=conf, body=BODY.replace("packet(A), packet", "packet(B), packet")) as p:
        for name, line in (("arp", 5), ("lldp", 6)):
            p.do(f"say(attempt(packet, A, {0x0806 if name == 'arp' else 0x88cc}))")
            bound = "ENODEV" not in p.text.splitlines()[-2]
            told = ask_json(p, "rules", "explain", f"packet pd0:{name}")
            assert told["use"] == told["served_by"] == ("palladium" if bound else "os")
            *passed, last = told["rules"]
            assert last == {"file": str(conf), "line": line, "verdict": "decides",
                            "statement": f"use {told['use']} packet pd0{':0x806' if bound else ''}"}
            verdicts = ["another program", "is this program's", "another ethertype"]
            assert [r["verdict"] for r in passed] == verdicts[:line - 3]
        assert not bound
        text = ask(p, "rules", "explain", "tcp_client 10.0.0.1:23").splitlines()
        assert text[-2] == f"tcp_client 10.0.0.1:23: the kernel, by {conf}:4"
        told = ask_json(p, "ru", "ex", "tcp_client 10.0.0.1:24")
        assert (told["use"], told["served_by"]) == ("palladium", "os")
        assert "this version serves packet sockets alone" in ask(p, "rules", "explain", "tcp_client 10.0.0.1:24")
        assert "packet pd1: palladium, as no line says otherwise" in ask(p, "rules", "explain", "packet pd1")
        assert [r["line"] for r in ask_json(p, "rules", "explain")["rules"]] == [1, 3, 4, 5, 6]
        for question, why in (("packet pd7", 'no port "pd7": there are pd0, pd1'), ("tcp_client 1.1.1.1:x", "expected a number"),
                              ("packet *", "not with a pattern")):
            done = ctl(p.folder, "rules", "explain", question)
            assert done.returncode == 1 and why in done.stderr


def test_traces(prog):
    ask(prog, "trace", "add", "packet-match", 2)
    prog.do("for i in range(3): a.send(frame(i)); b.recv(2000)")
    lines = ask(prog, "show", "trace").splitlines()
    assert len([x for x in lines if x.startswith("Packet ")]) == 2
    assert len([x for x in lines if x.endswith(": packet-match")]) == 2
    assert len([x for x in ask(prog, "show", "trace", "max", 1).splitlines() if x.startswith("Packet ")]) == 1
    ask(prog, "clear", "trace")
    assert "packet-match" not in ask(prog, "show", "trace")
    for args, why in ((["nothing", "5"], "no engine has a node"), (["packet-match"], "a number of frames"),
                      (["packet-match", "1001"], "from 1 to 1000"), (["packet-match", "-1"], "from 1 to 1000")):
        done = ctl(prog.folder, "--", "trace", "add", *args)
        assert done.returncode == 1 and why in done.stderr


def test_naming_the_program(prog, sockdir):
    listed = ctl(sockdir, "-l", "--json")
    one, = json.loads(listed.stdout)["processes"]
    assert (one["pid"], one["answers"], one["socket"]) == (prog.pid, True, str(prog.sockets()[prog.pid]))
    assert str(prog.pid) in ctl(sockdir, "-l").stdout
    assert ctl(sockdir, "echo", "x").stdout == "x\n"  # the only one
    assert ctl(sockdir, "-n", "pyth*", "echo", "x").stdout == "x\n"
    assert ctl(sockdir, "-s", one["socket"], "echo", "x").stdout == "x\n"

    def no(*args):
        done = ctl(sockdir, *args)
        assert done.returncode == 1 and not done.stdout, done
        return done.stderr
    assert "no process called 'nobody'" in no("-n", "nobody", "echo", "x")
    assert f"process {os.getpid()} runs without libpalladium" in no("-p", os.getpid(), "echo", "x")
    assert "there is no process 4194301" in no("-p", 4194301, "echo", "x")
    assert "No such file" in no("-s", sockdir / "none", "echo", "x")
    for wrong in (["-p", "x"], ["--frobnicate"], ["-l", "echo"], ["-f", "x", "echo"], ["-p", "1", "-s", "x"]):
        assert ctl(sockdir, *wrong).returncode == 2
    with Program(sockdir) as other:
        done = ctl(sockdir, "echo", "x")
        assert done.returncode == 1 and "choose one with -p PID" in done.stderr and str(other.pid) in done.stdout
    # One of another time.
    fake = sockdir / "fake"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(fake))
        s.listen()
        for hello, why in ((b"palladium-cli 99 new\n", "version 99"), (b"hello\n", "not the debug CLI"),
                           (b"\n" * 3, "not the debug CLI")):
            t = threading.Thread(target=lambda h=hello: s.accept()[0].sendall(h))
            t.start()
            assert why in no("-s", fake, "echo", "x")
            t.join()


def test_scripts(prog, sockdir):
    script, inner = sockdir / "script", sockdir / "inner"
    inner.write_text("define inner yes\n")
    script.write_text(f"# a comment\n\ndefine x {{\n  some words\n}}\necho $x\nexec {inner}\necho $inner\n")
    done = ctl(sockdir, "-f", script)
    assert (done.returncode, done.stdout) == (0, "{   some words }\nyes\n")
    script.write_text("echo one\nshow nothing\necho two\n")
    done = ctl(sockdir, "-f", script)
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert done.stderr.startswith(f'{script}:2: there is no command "show nothing"')
    script.write_text(f"exec {script}\n")
    assert "nested" in ctl(sockdir, "-f", script).stderr
    script.write_text("define x {\n")
    assert f"{script}:1: a {{ is not closed" in ctl(sockdir, "-f", script).stderr
    done = ctl(sockdir, "-p", prog.pid, text="echo one\nquit\necho two\n")
    assert (done.returncode, done.stdout) == (0, "one\n")
    done = ctl(sockdir, "-p", prog.pid, text="echo $none\n")
    assert done.returncode == 1 and done.stderr.startswith('stdin:1: there is no macro "none"')
    out = sockdir / "out"
    assert ctl(sockdir, "show", "version", ">", out).stdout == ""
    assert "libpalladium" in out.read_text() and stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "there already" in ctl(sockdir, "show", "version", ">", out).stderr
    assert ctl(sockdir, "-f", sockdir / "none").returncode == 1


def test_typing(prog, sockdir):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PALLADIUM_")}
    env["ASAN_OPTIONS"] = "detect_leaks=0:" + env.get("ASAN_OPTIONS", "")  # libedit keeps the names of added functions
    with Proc([build("palladium_ctl"), "-k", sockdir], env={**env, "TERM": "dumb"}, on_pty=True) as p:
        p.expect("#")
        p.write("echo typed\n")
        p.expect("^typed")
        p.write("show nothing\n")
        p.expect("error: there is no command")
        p.write("sho\tvers\n")  # the tabulator makes it "show "
        p.expect("libpalladium .* process")
        p.write("quit\n")
        assert p.wait() == 0


def test_bad_clients(prog):
    """Each is told and let go; the others are served, and traffic goes on."""
    whys = {b"\x01\x02\xff\x00": "no text", b"a" * 5000: "4095 bytes", b"show ver": "has no end"}
    for sent, why in whys.items():
        with prog.dial() as s:
            try:
                s.sendall(sent)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            assert why in hear(s)
    # Asks much, and reads nothing; holds half a line; asks and goes.
    slow, half = prog.dial(), prog.dial()
    slow.setblocking(False)
    try:
        while True:
            slow.send(b"help\n" * 100)
    except BlockingIOError:
        pass
    half.send(b"show v")
    with prog.dial() as s:
        s.sendall(b"help\n" * 1000)
    prog.do("a.send(frame(7)); say('got', number(b.recv(2000)))")
    assert "got 7" in prog.text
    assert "libpalladium" in ask(prog, "show", "version")
    half.sendall(b"ersion\n")
    half.shutdown(socket.SHUT_WR)
    assert "libpalladium" in hear(half)
    slow.close()
    half.close()
    more = [prog.dial() for _ in range(9)]
    assert "8 connections already" in hear(more[8])
    for s in more:
        s.close()


def test_traffic_goes_on_under_a_flood(prog):
    """Commands as fast as they are answered do not lose, reorder or hold up a frame."""
    stop, ran = threading.Event(), []

    def flood():
        with prog.dial() as s:
            f = s.makefile("rb")
            f.readline()
            while not stop.is_set():
                s.sendall(b"show runtime\nshow errors\n")
                ends = 0
                while ends < 2:
                    ends += f.readline().startswith(b"\036 0")
                ran.append(2)
    threads = [threading.Thread(target=flood) for _ in range(2)]
    for t in threads:
        t.start()
    prog.do("for i in range(2000): a.send(frame(i)); n = number(b.recv(2000)); assert n == i, (n, i)")
    stop.set()
    for t in threads:
        t.join(LIMIT)
    assert sum(ran) > 20
    assert {p["name"]: p for p in ask_json(prog, "show", "ports")["ports"]}["pd1"]["rx_frames"] == 2000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users(prog, sockdir):
    path = prog.sockets()[prog.pid]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    # The directories keep him out; then the file; then who he is.
    for step, why in ((None, "Permission denied"), (0o755, "Permission denied"), (0o666, "runs as another user")):
        if step == 0o755:
            path.parent.chmod(step)
            sockdir.chmod(step)
        elif step:
            path.chmod(step)
        code = f"""
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.connect({str(path)!r})
    print(s.recv(200).decode())
except OSError as e:
    print(e)
"""
        out = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True,
                             cwd="/", **nobody).stdout
        assert why in out
    prog.expect("WARNING: cli: .*a connection of user 65534 is refused")
    path.parent.chmod(0o700)
    assert "libpalladium" in ask(prog, "show", "version")


def test_nothing_before_a_port_is_used_and_nothing_after(sockdir):
    with Program(sockdir, "import sys; say('ready'); sys.stdin.readline(); s = packet(A); say('used'); sys.stdin.readline()") as p:
        assert not p.sockets()
        done = ctl(sockdir, "-p", p.pid, "echo", "x")
        assert done.returncode == 1 and "has not used a port yet" in done.stderr
        p.write("\n")
        p.expect("^used")
        assert list(p.sockets()) == [p.pid]
        p.write("\n")
        assert p.wait() == 0
        assert not p.sockets()


def test_off(sockdir):
    with Program(sockdir, PALLADIUM_CLI="off") as p:
        assert not p.sockets()
        assert "PALLADIUM_CLI=off" in ctl(sockdir, "-p", p.pid, "echo", "x").stderr
    with Program(sockdir, PALLADIUM_CLI=f"{sockdir}/own.%d") as p:
        assert ctl(sockdir, "-s", f"{sockdir}/own.{p.pid}", "echo", "x").stdout == "x\n"
        p.close_stdin()
        assert p.wait() == 0
    assert not (sockdir / f"own.{p.pid}").exists()
    # What a killed program leaves is cleared away by the next.
    with Program(sockdir) as p:
        p.kill()
        assert list(p.sockets()) == [p.pid]
        assert ctl(sockdir, "-p", p.pid, "echo", "x").returncode == 1
        assert ctl(sockdir, "-l").returncode == 1
    with Program(sockdir) as q:
        assert list(q.sockets()) == [q.pid]


def test_fork(prog):
    """The child has a CLI of its own once it uses a port, and the parent keeps its own."""
    prog.do("import os; r, w = os.pipe(); r2, w2 = os.pipe()")
    prog.write("child = os.fork(); child or (os.read(r, 1), packet(A).close(), os.write(w2, b'u'), os.read(r, 1), os._exit(0));"
               " say('child', child)\n")
    child = int(prog.expect(r"^child (\d+)\n").group(1))
    prog.expect("^done")
    assert list(prog.sockets()) == [prog.pid]
    assert "libpalladium" in ask(prog, "show", "version")
    prog.do("os.write(w, b'g'); os.read(r2, 1)")
    done = ctl(prog.folder, "-p", child, "show", "version")
    assert done.returncode == 0 and f"process {child}" in done.stdout
    assert f"process {prog.pid}" in ask(prog, "show", "version")
    prog.do("os.write(w, b'g'); os.waitpid(child, 0)")
    assert prog.sockets()[prog.pid].exists()
    assert f"process {prog.pid}" in ask(prog, "show", "version")


@contextlib.contextmanager
def tcp_port():
    """A port of the loopback interface that nobody else is given meanwhile, as one that does not listen is bound to it too."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_telnet(sockdir):
    with tcp_port() as port, Program(sockdir, PALLADIUM_CLI_PORT=port) as p:
        with Proc(["telnet", "127.0.0.1", port]) as client:
            client.expect(rf"^libpalladium \S+, process {p.pid} \(python3\S*\); help lists the commands, quit ends$")
            p.do("[a.send(frame(i, 100, OTHER)) for i in range(3)]; say(attempt(b.recv, 2000, MSG_DONTWAIT))")
            client.write("sh err\n")
            client.expect(r"^python3\S*> +Count +Node +Reason$")
            client.expect(r"^ *3 +packet-match +no socket wants it$")
            client.write("nonsense\n")
            client.expect('> error: there is no command "nonsense"')
            client.write("define who telnet\necho this is $who\n")
            client.expect("> this is telnet$")
            assert "no macro" in ctl(sockdir, "-p", p.pid, "echo", "$who").stderr  # each has its own
            client.write("quit\n")
            client.expect("Connection closed by foreign host")
        # A child that uses a port leaves this one to its parent without a word; another program is told.
        p.do("import os; child = os.fork(); child or (packet(A).close(), os._exit(0)); os.waitpid(child, 0)")
        assert "no debug CLI" not in p.text
        with Program(sockdir, PALLADIUM_CLI_PORT=port) as q:
            assert f"WARNING: cli: no debug CLI at port {port} of 127.0.0.1: Address already in use" in q.text
            assert "libpalladium" in ctl(sockdir, "-p", q.pid, "show", "version").stdout
        code = f"import socket; print(socket.create_connection(('127.0.0.1', {port})).recv(200).decode())"
        for user, answer in ((0, "help lists the commands"), (65534, "runs as another user")):
            out = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True, cwd="/",
                                 user=user, group=user, extra_groups=[]).stdout
            assert answer in out
        p.expect(f"WARNING: cli: port {port}: a connection of user 65534 is refused")


def test_a_stopped_program_is_not_waited_for(prog, sockdir):
    prog.signal(signal.SIGSTOP)
    path = prog.sockets()[prog.pid]
    began = time.monotonic()
    done = ctl(sockdir, "-s", path, "-t", "1", "echo", "x")
    prog.signal(signal.SIGCONT)
    assert done.returncode == 1 and "no answer for 1 s" in done.stderr and time.monotonic() - began < LIMIT
    assert ctl(sockdir, "echo", "x").stdout == "x\n"
