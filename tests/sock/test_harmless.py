# SPDX-License-Identifier: BSD-2-Clause
"""What the library cannot have or write neither ends the program nor holds it up: it goes on, and one line says why."""
import contextlib
import fcntl
import os
import pty
import re
import select
import socket
import subprocess

import pytest

from lab.proc import preload_order
from sockutil import LIMIT, PRELOAD, PYTHON, environment, finish, program

F_GETPIPE_SZ = 1032

# Python ignores these two; most programs do not.
DEFAULTS = """
import resource
for sig in signal.SIGPIPE, signal.SIGXFSZ:
    signal.signal(sig, signal.SIG_DFL)
"""
EXCHANGE = """
a, b = packet(A), packet(B)
a.send(frame(1))
say("received", number(b.recv(100)))
"""
SANITIZED = len(preload_order(PRELOAD)) > 1


def run(body, stderr=subprocess.PIPE, **extra):
    env = environment(**{"PALLADIUM_TRACELEVEL": "info", **extra})
    return subprocess.run(program(DEFAULTS + body), env=env, stdout=subprocess.PIPE, stderr=stderr, text=True,
                          timeout=LIMIT, check=False)


def lines_of(text, level):
    return [line for line in text.splitlines() if f"PALLADIUM {level}: " in line]


@pytest.fixture(name="closed_pipe")
def _closed_pipe():
    r, w = os.pipe()
    os.close(r)
    yield w
    os.close(w)


def test_a_standard_error_that_nobody_reads(closed_pipe):
    assert finish(run(EXCHANGE, closed_pipe)) == "received 1\n"


def test_a_signal_that_waited_is_not_taken_away(closed_pipe):
    """SIGPIPE of the program's own, blocked, waits behind lines of ours as before; without one, none comes."""
    out = finish(run("""
here = threading.get_ident()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
packet(A).close()
say(signal.sigpending())
signal.pthread_kill(here, signal.SIGPIPE)
packet(B).close()
say(signal.sigpending() == {signal.SIGPIPE}, signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGPIPE})
""", closed_pipe))
    assert out == "set()\nTrue True\n"


def readable(fd):
    return select.select([fd], [], [], LIMIT)[0]


def test_a_standard_error_that_is_full():
    """The program is not held up; when there is room again it is told how many lines are missing."""
    r, w = os.pipe()
    fill = fcntl.fcntl(w, F_GETPIPE_SZ)
    os.write(w, b"x" * fill)
    with subprocess.Popen(program(DEFAULTS + EXCHANGE + "sys.stdin.readline()\na.close()\nb.close()\n"), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=w, env=environment(PALLADIUM_TRACELEVEL="info")) as p:
        os.close(w)
        try:
            assert readable(p.stdout), "it is held up"
            assert p.stdout.readline() == b"received 1\n"
            assert len(os.read(r, fill + 1)) == fill
            p.stdin.write(b"\n")
            p.stdin.close()
            assert p.wait(LIMIT) == 0
        finally:
            p.kill()
    with os.fdopen(r) as rest:
        text = rest.read().splitlines()
    assert re.fullmatch(r"PALLADIUM WARNING: log: [2-9]\d* lines were lost", text[0]), text
    assert text[-1].startswith("PALLADIUM INFO: port: ") and not [x for x in text[1:] if "lost" in x]


JOB = """
import os, subprocess, sys, termios
tty = os.open(sys.argv[1], os.O_RDWR)           # it becomes this session's
if sys.argv[2] == "background":
    mode = termios.tcgetattr(tty)
    mode[3] |= termios.TOSTOP
    termios.tcsetattr(tty, termios.TCSANOW, mode)
else:
    termios.tcflow(tty, termios.TCOOFF)
env = {**os.environ, "LD_PRELOAD": os.environ["TEST_PRELOAD"]}
p = subprocess.Popen(sys.argv[3:], env=env, stderr=tty, preexec_fn=os.setpgrp)
stopped = os.WIFSTOPPED(os.waitpid(p.pid, os.WUNTRACED)[1])
if stopped:
    p.kill()
sys.exit(stopped)
"""


@pytest.mark.parametrize("what", ["background", "held"])
def test_a_terminal_that_takes_nothing(what):
    """Neither one that stops jobs in the background that write to it, nor one that the user has stopped with Ctrl-S."""
    master, slave = pty.openpty()
    env = environment(PALLADIUM_TRACELEVEL="info")
    env["TEST_PRELOAD"] = env.pop("LD_PRELOAD")
    with subprocess.Popen([PYTHON, "-c", JOB, os.ttyname(slave), what, *program(DEFAULTS + EXCHANGE)], env=env, text=True,
                          stdout=subprocess.PIPE, start_new_session=True) as p:
        try:
            assert readable(p.stdout), "it is held up"
            assert (p.stdout.read(), p.wait(LIMIT)) == ("received 1\n", 0)
            assert bool(select.select([master], [], [], LIMIT if what == "background" else 0)[0]) == (what == "background")
        finally:
            os.close(master)
            os.close(slave)
            p.kill()


def test_a_socket_as_standard_error():
    """As services of a service manager have it; it is full, and nobody reads it; then he who could is gone."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(b"x" * 1024)
        theirs.setblocking(True)
        assert finish(run(EXCHANGE, theirs)) == "received 1\n"
        ours.close()
        assert finish(run(EXCHANGE, theirs)) == "received 1\n"


def how_to_name(path, which, tmp_path):
    """The settings that name `path` as the log, or the counters' file."""
    if which != "conf":
        return {f"PALLADIUM_{which}": path}
    conf = tmp_path / "conf"
    conf.write_text(f"port pd0 loop:pd1\nlog min-level info destination file {path}\n")
    return {"PALLADIUM_CONFIG_FILE": conf, "PALLADIUM_PORTS": ""}


@pytest.mark.parametrize("which", ["LOG_FILE", "STATS_FILE", "conf"])
def test_a_fifo_without_a_reader(tmp_path, which):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    done = run(EXCHANGE, **how_to_name(path, which, tmp_path))
    assert finish(done) == "received 1\n"
    said = [line for line in lines_of(done.stderr, "WARNING") if str(path) in line]
    assert len(said) == 1 and "a FIFO that nobody reads" in said[0], done.stderr


def test_a_fifo_with_a_reader_gets_the_lines(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    r = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert finish(run(EXCHANGE, PALLADIUM_LOG_FILE=path)) == "received 1\n"
    with os.fdopen(r) as rest:
        assert "pd0 is up" in rest.read()


def test_the_limit_of_file_sizes(tmp_path):
    """No file of ours goes beyond it, and no SIGXFSZ comes of it."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))\n"
    done = run(limit + EXCHANGE)
    assert finish(done) == "received 1\n"
    assert [x for x in lines_of(done.stderr, "WARNING") if "counters" in x] == [
        "PALLADIUM WARNING: counters: no statistics file: File too large (the limit of ulimit -f)"]
    files = [tmp_path / "log", tmp_path / "stats"]
    for f in files:
        f.write_text("12345678")
    done = run(limit.replace("65536", "9") + EXCHANGE + "a.close(), b.close()\n", PALLADIUM_LOG_FILE=files[0],
               PALLADIUM_STATS_FILE=files[1])
    assert finish(done) == "received 1\n"
    assert [f.stat().st_size for f in files] == [9, 9]
    assert done.stderr == "PALLADIUM WARNING: log: lines are lost, the log's file takes none: File too large\n"


def test_rings_above_the_limit_of_file_sizes(tmp_path):
    """A front-end's rings are a file in memory: the port cannot be opened, and the program is told why."""
    done = run("""
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
say(attempt(packet, A))
""", PALLADIUM_PORTS=f"pd0=vhost-user:{tmp_path}/sock,role=frontend")
    assert finish(done) == "EFBIG\n"
    assert re.search(r"ERROR: vhost: \d+ bytes for rings .*ring= and queues= .*\(the limit of ulimit -f\)", done.stderr)


SPACE = """
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (%d << 20), resource.RLIM_INFINITY))
say(*[attempt(packet, A) for i in range(3)])
"""


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's own memory is without limit")
@pytest.mark.parametrize("more, bufs, says", [
    (50, 16384, r"67108864 bytes of address space for buffers, .*ulimit -v is the limit"),
    (250, 1000000, r"2176000000 bytes for the 1000000 buffers \"rx\" \(PALLADIUM_RX_BUFS makes it less\)")])
def test_little_memory(more, bufs, says):
    done = run(SPACE % more, PALLADIUM_RX_BUFS=bufs)
    assert finish(done) == "ENOMEM ENOMEM ENOMEM\n"
    said = lines_of(done.stderr, "ERROR")
    assert len(said) == 1 and re.search("packet: no memory for packet sockets: " + says, said[0]), done.stderr


def test_no_thread():
    """EAGAIN would have the program try again for ever."""
    done = run("""
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    threading.Thread(target=int).start()
    say("there is no such limit")
    os._exit(0)
except RuntimeError:
    pass
n = socket.if_nametoindex(A)
s = socket.socket(AF_PACKET, SOCK_RAW, socket.htons(3))
say(attempt(s.bind, (A, 3)), attempt(s.sendto, frame(), (A, 3)), attempt(s.send, frame()))
""")
    if done.returncode or "no such limit" in done.stdout:
        pytest.skip(f"RLIMIT_NPROC does not hold here: {done.stdout}{done.stderr[-300:]}")
    assert done.stdout == "ENOMEM ENOMEM ENOMEM\n"
    assert done.stderr.count("the progress thread cannot be started (ulimit -u, -v): ") == 1
