# SPDX-License-Identifier: BSD-2-Clause
"""What a program leaves behind: the file of PALLADIUM_STATS_FILE, and what PALLADIUM_HANDLE_SIGINTR and
PALLADIUM_HANDLE_SIGSEGV do when a signal ends it."""
import re
import signal
import subprocess

import pytest

from lab.proc import preload_order
from lab.vhostpeer import BASIC, FrontEnd
from sockutil import LIMIT, PRELOAD, environment, finish, program


# A sanitizer's own handler of SIGSEGV would stand in for the default end.
QUIET = {f"{x}SAN_OPTIONS": environment()[f"{x}SAN_OPTIONS"] + ":handle_segv=0:use_sigaltstack=0" for x in "AT"}


def run(body, **env):
    """Run a body on a loop; how it ended."""
    return subprocess.run(program(body), env=environment(**QUIET, **env), capture_output=True, text=True,
                          timeout=LIMIT, check=False)


def reports(path):
    """The reports of a file: for each the descriptor, the words behind it, and its lines by name."""
    out = []
    for line in path.read_text().splitlines():
        fd, rest = re.fullmatch(r"PALLADIUM: \[fd=(\d+)\] (.*)", line).groups()
        if " of process " in rest:
            out.append((int(fd), rest, {}))
        else:
            assert int(fd) == out[-1][0]
            name, value = re.split(r" ?: ", rest, maxsplit=1)
            out[-1][2][name] = value
    return out


TRAFFIC = """
a, b = packet(A), packet(B)
for i in range(20):
    a.send(frame(i, 1000))
for i in range(15):
    b.recv(2000)
say(a.fileno(), b.fileno(), os.getpid())
"""


def sent(n):
    return f"{n * 1000 // 1024} KB / {n} / 0 / 0 [bytes/packets/drops/errors]"


def received(n):
    return f"{n * 1000 // 1024} KB / {n} / 0 / 0 [bytes/packets/eagains/errors]"


def test_sockets_report_when_they_are_closed(tmp_path):
    path = tmp_path / "stats"
    out = finish(run(TRAFFIC + """
idle = packet(A)
for s in (a, b, idle):
    s.close()
say(open(os.environ["PALLADIUM_STATS_FILE"]).read().count("Tx Offload"))
""", PALLADIUM_STATS_FILE=path))
    a, b, pid = map(int, out.splitlines()[0].split())
    assert out.splitlines()[1] == "2"
    (fd_a, head_a, lines_a), (fd_b, head_b, lines_b) = reports(path)
    assert (fd_a, fd_b) == (a, b)
    assert head_a == f"packet/raw of process {pid} on pd0"
    assert head_b == f"packet/raw of process {pid} on pd1"
    assert list(lines_a) == ["Tx Offload", "Tx OS info", "Rx Offload", "Rx byte", "Rx pkt", "Rx OS info",
                             "Rx poll"]
    assert (lines_a["Tx Offload"], lines_b["Rx Offload"]) == (sent(20), received(15))
    assert lines_b["Tx Offload"] == sent(0)
    assert lines_b["Rx poll"] == "0 / 15 (100.00%) [miss/hit]"


def test_open_sockets_report_at_the_end_once(tmp_path):
    path = tmp_path / "stats"
    path.write_text("")
    finish(run(TRAFFIC + "a.detach(), b.detach()", PALLADIUM_STATS_FILE=path))
    assert [r[2]["Tx Offload"] for r in reports(path)] == [sent(20), sent(0)]


def test_what_a_queue_dropped_is_reported(tmp_path):
    path = tmp_path / "stats"
    finish(run("""
a, b, slow = packet(A), packet(B), packet(B)
slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
for i in range(100):
    a.send(frame(i, 1000))
    b.recv(2000)
slow.recv(2000)
for s in (slow, b, a):
    s.close()
""", PALLADIUM_STATS_FILE=path, PALLADIUM_RX_BYTES_MIN=2048))
    slow = reports(path)[0][2]
    assert slow["Rx byte"] == "max 2000 / dropped 98000 (98.98%) / limit 2304"
    assert slow["Rx pkt"] == "max 2 / dropped 98 (98.98%)"


@pytest.mark.parametrize("name", ["stats", "stats.%d"])
def test_children_report_too(tmp_path, name):
    """To the same file, or to their own."""
    out = finish(run("""
def work():
    a, b = packet(A), packet(B)
    a.send(frame(1, 1000))
    b.recv(2000)
    a.close(), b.close()
for child in range(2):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(pid)
""", PALLADIUM_STATS_FILE=tmp_path / name))
    seen = {int(re.search(r"process (\d+)", r[1])[1]): f.name for f in tmp_path.iterdir() for r in reports(f)}
    pids = [int(x) for x in out.split()]
    assert seen == {p: name.replace("%d", str(p)) for p in pids}


def test_the_file_survives_the_programs_own_descriptors(tmp_path):
    """closefrom, and dup2 over every number, do not reach it."""
    path = tmp_path / "stats"
    finish(run("""
libc.closefrom(3)
null = os.open("/dev/null", os.O_RDWR)
for n in range(200, 400):
    os.dup2(null, n)
a, b = packet(A), packet(B)
a.send(frame(1, 1000))
a.close()
""", PALLADIUM_STATS_FILE=path))
    assert reports(path)[0][2]["Tx Offload"] == sent(1)


def test_a_file_that_cannot_be():
    done = run(TRAFFIC, PALLADIUM_STATS_FILE="/nowhere/at/all", PALLADIUM_TRACELEVEL="warn")
    assert done.returncode == 0
    assert "PALLADIUM_STATS_FILE=/nowhere/at/all cannot be opened: No such file" in done.stderr


# --- SIGINT ------------------------------------------------------------------------------------

class Serving:
    """A program that serves a vhost-user port; start() returns when it does."""

    def __init__(self, sockdir, body, **env):
        self.path = sockdir / "port.sock"
        self.env = environment(f"pd0=vhost-user:{self.path}", PALLADIUM_SEND_WHEN_DOWN="wait",
                               **QUIET, **env)
        self.body = body

    def __enter__(self):
        self.peer = FrontEnd(self.path, features=BASIC)
        self.proc = subprocess.Popen(program(self.body), env=self.env, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True)
        self.peer.start_like_qemu()
        self.peer.post_rx([2048] * 16)
        assert self.proc.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self.proc.kill()
        self.proc.communicate()
        self.peer.close()

    def interrupt(self):
        """One SIGINT; how the program ended and what it said."""
        self.proc.send_signal(signal.SIGINT)
        out, err = self.proc.communicate(timeout=LIMIT)
        return self.proc.returncode, out, err


READY = """
s = packet(A)
s.send(frame(1, 1000))
say("ready")
"""
DEFAULT = "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
WAYS = {
    "asleep on the port": "s.recv(2000)",
    "asleep elsewhere": "time.sleep(60)",
    "busy on the port": "s.setblocking(False)\nwhile True: attempt(s.recv, 2000)",
    "busy elsewhere": "while True: [bytearray(n) for n in range(2000)]",
    "among threads": "[threading.Thread(target=lambda: s.recv(2000)).start() for _ in range(4)]\n"
                     "time.sleep(60)",
}


@pytest.mark.parametrize("way", WAYS)
def test_default_end(sockdir, tmp_path, way):
    """The port goes down in good order, the counters are written, and the parent sees SIGINT."""
    path = tmp_path / "stats"
    with Serving(sockdir, DEFAULT + READY + WAYS[way], PALLADIUM_HANDLE_SIGINTR=1,
                 PALLADIUM_STATS_FILE=path, PALLADIUM_STATS_SHMEM_DIR=tmp_path / "shm",
                 PALLADIUM_TRACELEVEL="info") as p:
        code, _, err = p.interrupt()
        assert code == -signal.SIGINT
        assert "pd0 is closed" in err
        assert not [f for f in (tmp_path / "shm").rglob("stats.*")]
        assert p.peer.channel.closed_by_peer()
    assert reports(path)[0][2]["Tx Offload"] == sent(1)


def test_without_the_setting_nothing_is_done(sockdir, tmp_path):
    path = tmp_path / "stats"
    with Serving(sockdir, DEFAULT + READY + "time.sleep(60)", PALLADIUM_STATS_FILE=path,
                 PALLADIUM_TRACELEVEL="info") as p:
        code, _, err = p.interrupt()
        assert (code, "closed" in err) == (-signal.SIGINT, False)
    assert path.read_text() == ""


def test_the_programs_own_handler(sockdir, tmp_path):
    """It runs after the counters were written, and decides what comes next."""
    path = tmp_path / "stats"
    with Serving(sockdir, """
def handler(*_):
    os.write(1, b"%d\\n" % open(os.environ["PALLADIUM_STATS_FILE"]).read().count("Tx Offload"))
    s.send(frame(2, 1000))
    os._exit(3)
signal.signal(signal.SIGINT, handler)
""" + READY + """
while True:  # a signal that comes just before a sleep is seen by Python after it
    select.select([s], [], [], 0.05)
""", PALLADIUM_HANDLE_SIGINTR=1, PALLADIUM_STATS_FILE=path) as p:
        assert p.interrupt() == (3, "1\n", "")
    assert [r[2]["Tx Offload"] for r in reports(path)] == [sent(1)]


def test_dispositions_look_as_the_program_left_them():
    out = finish(run("""
class Act(ctypes.Structure):
    _fields_ = [("fn", ctypes.c_void_p), ("mask", ctypes.c_byte * 128), ("flags", ctypes.c_int),
                ("restorer", ctypes.c_void_p)]
def look():
    act = Act()
    libc.sigaction(2, None, ctypes.byref(act))
    return act.fn or 0, act.flags & 4
signal.signal(signal.SIGINT, signal.SIG_DFL)
say(look())
say(signal.signal(signal.SIGINT, signal.SIG_IGN) == signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGINT)
say(look(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
""", PALLADIUM_HANDLE_SIGINTR=1))
    assert out.splitlines() == ["(0, 0)", "True", "(1, 0) True"]


@pytest.mark.skipif(any("libtsan" in str(lib) for lib in preload_order(PRELOAD)),
                    reason="ThreadSanitizer keeps signals from the child of a program with threads")
def test_a_child_without_ports_ends_at_once():
    out = finish(run("""
a, b = packet(A), packet(B)
signal.signal(signal.SIGINT, signal.SIG_DFL)
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
say(os.waitpid(pid, 0)[1] == signal.SIGINT)
a.send(frame(1))
""", PALLADIUM_HANDLE_SIGINTR=1))
    assert out == "True\n"


# --- SIGSEGV -----------------------------------------------------------------------------------

CRASH = "ctypes.string_at(16)"


@pytest.mark.parametrize("where", ["stderr", "file"])
def test_where_it_crashed(tmp_path, where):
    extra = {"PALLADIUM_LOG_FILE": tmp_path / "log"} if where == "file" else {}
    done = run(TRAFFIC + CRASH, PALLADIUM_HANDLE_SIGSEGV=1, **extra)
    said = (tmp_path / "log").read_text() if where == "file" else done.stderr
    assert done.returncode == -signal.SIGSEGV
    assert re.search(r"PALLADIUM PANIC: crash: SIGSEGV at address 0x10, thread (\d+) of process \1, from there "
                     r"outwards:\n", said)
    frames = said.split("outwards:\n")[1].splitlines()
    assert "libc" in frames[0]                       # strlen or memcpy: not the handler's own frames
    assert any("python" in f or "_ctypes" in f for f in frames)
    assert not any("libpalladium" in f for f in frames)


def test_no_backtrace_unless_asked():
    done = run(TRAFFIC + CRASH)
    assert (done.returncode, done.stderr) == (-signal.SIGSEGV, "")


def test_the_programs_handler_of_a_crash_runs_afterwards():
    done = run("""
import faulthandler
faulthandler.enable()
""" + CRASH, PALLADIUM_HANDLE_SIGSEGV=1)
    assert done.returncode == -signal.SIGSEGV
    ours, theirs = done.stderr.index("PALLADIUM PANIC"), done.stderr.index("Fatal Python error")
    assert ours < theirs
    assert done.stderr.count("Fatal Python error") == 1


def test_a_signal_that_was_sent():
    done = run("os.kill(os.getpid(), signal.SIGSEGV)\ntime.sleep(60)", PALLADIUM_HANDLE_SIGSEGV=1)
    assert done.returncode == -signal.SIGSEGV
    assert "SIGSEGV sent by process" in done.stderr


def test_an_overflow_of_the_stack():
    """The main thread has another stack for it."""
    done = run("import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))\n"
               "sys.setrecursionlimit(1 << 30)\n"
               "F = ctypes.CFUNCTYPE(ctypes.c_int)\n"
               "def f(): return g()\n"
               "g = F(f)\n"
               "g()\n", PALLADIUM_HANDLE_SIGSEGV=1)
    assert done.returncode == -signal.SIGSEGV
    assert "PALLADIUM PANIC: crash: SIGSEGV" in done.stderr


def test_sigbus_and_sigsegv_do_not_get_in_each_others_way(sockdir):
    """Memory of a peer's that is cut off is survived as ever, with the backtrace enabled."""
    with Serving(sockdir, READY + "while True: attempt(s.recv, 2000)", PALLADIUM_HANDLE_SIGSEGV=1) as p:
        assert p.proc.poll() is None
        p.proc.send_signal(signal.SIGSEGV)
        assert p.proc.wait(LIMIT) == -signal.SIGSEGV
        assert "SIGSEGV sent by process" in p.proc.stderr.read()
