# SPDX-License-Identifier: BSD-2-Clause
"""palladium_stats shows what a packet socket did: each counter of a socket moves when it should, by as much as it should."""
import json
import subprocess

import pytest

from lab.proc import Proc, build
from sockutil import LIMIT, environment, program


def counters_of(pid, folder):
    """All that palladium_stats shows of the program."""
    out = subprocess.run([build("palladium_stats"), "-p", str(pid), "-k", str(folder), "-c", "1", "-v", "3", "--json"],
                         capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    return json.loads(out)


def sockets_of(shown):
    """The counters of the program's sockets by descriptor."""
    return {s["id"]: s["counters"] for s in shown["socket"] if s["role"] == "single"}


@pytest.fixture
def counted(tmp_path):
    """Run a body that prints `done` and then waits; its sockets' counters, or the process's."""
    def run(body, process=False, **env):
        env = environment(**env)
        env["PALLADIUM_STATS_SHMEM_DIR"] = str(tmp_path)
        with Proc(program(body + "\nprint('done', flush=True)\nsys.stdin.readline()\n"), env=env) as p:
            p.expect("^done")
            shown = counters_of(p.pid, tmp_path)
            p.write("\n")
            assert p.wait() == 0
        return shown["process"][0]["counters"] if process else sockets_of(shown)
    return run


def test_frames_and_bytes(counted):
    c = counted("""
import sys
a, b = packet(A), packet(B)
for i in range(10):
    a.send(frame(i, 100))
for i in range(10):
    b.recv(2000)
print(a.fileno(), b.fileno())
""")
    a, b = c[min(c)], c[max(c)]
    assert (a["tx_packets"], a["tx_bytes"], a["rx_packets"]) == (10, 1000, 0)
    assert (b["rx_packets"], b["rx_bytes"], b["tx_packets"]) == (10, 1000, 0)
    assert b["rx_poll_hit"] == 10


def test_what_goes_wrong(counted):
    c = counted("""
import sys
a, b = packet(A), packet(B)
attempt(a.send, b"x" * 3000)
attempt(b.recv, 100, MSG_DONTWAIT)
a.send(frame(1, 500))
b.recv(2000, MSG_PEEK)
b.recv(60)
""")
    a, b = c[min(c)], c[max(c)]
    assert (a["tx_errors"], a["tx_drops"], a["tx_packets"]) == (1, 1, 1)
    assert (b["rx_eagains"], b["rx_peeks"], b["rx_truncated"], b["rx_packets"]) == (1, 1, 1, 1)


def test_a_queue_fills_and_empties(counted):
    c = counted("""
import sys
a, b, c = packet(A), packet(B), packet(B)
for i in range(8):
    a.send(frame(i, 100))
b.recv(2000, socket.MSG_PEEK)      # takes all off the ring: each of the two sockets gets its copies
b.recv(2000)
for i in range(3):
    c.recv(2000)
""")
    fds = sorted(c)
    b, other = c[fds[1]], c[fds[2]]
    assert (b["rx_queued_packets"], b["rx_queued_packets_max"]) == (7, 8)
    assert (other["rx_queued_packets"], other["rx_queued_bytes"]) == (5, 500)


def test_a_sleep_is_a_miss_and_a_wakeup(counted):
    c = counted("""
import sys, threading, time
a, b = packet(A), packet(B)
def later():
    time.sleep(0.5)
    a.send(frame(1, 100))
t = threading.Thread(target=later)
t.start()
b.recv(2000)
t.join()
""")
    b = c[max(c)]
    assert b["rx_poll_miss"] == 1 and b["rx_wakeups"] >= 1


def test_waits_are_counted_by_how_they_end(counted):
    """hit: there was something at once; miss: it had to sleep; timeouts: nothing came. select counts as poll."""
    c = counted("""
import sys
a, b = packet(A), packet(B)
e, p = select.epoll(), select.poll()
e.register(b, select.EPOLLIN)
p.register(b, select.POLLIN)
for i in range(3):
    e.poll(0), p.poll(0), select.select([b], [], [], 0)     # 3 timeouts, 6 of poll
e.poll(0.001), p.poll(1)
for call in (e.poll, p.poll, lambda: select.select([b], [], [])):
    t = sleeping(call)
    a.send(frame(1, 100))
    t.result()
    for _ in range(2):
        call()
    b.recv(2000)
select.select([sys.stdin], [], [], 0)       # none of ours: not counted
""", process=True)
    want = {"epoll_calls": 7, "epoll_timeouts": 4, "poll_calls": 13, "poll_timeouts": 7}
    assert {k: c[k] for k in want} == want
    assert (c["epoll_hit"], c["epoll_miss"]) == (2, 1)
    assert (c["poll_hit"], c["poll_miss"]) == (4, 2)


def test_forks_and_wakeups_of_the_progress_thread(counted, tmp_path):
    path = tmp_path / "port.sock"
    c = counted(f"""
import sys
def forked():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
forked()                                    # no socket is on a port yet
a = packet(A)                               # nobody is there: the progress thread tries again, later
listener = socket.socket(AF_UNIX)
listener.bind({str(path)!r})
listener.listen()
listener.accept()
forked(), forked()
""", process=True, ports=f"pd0=vhost-user:{path}")
    assert c["forks"] == 2
    assert c["progress_wakeups"] > 0


def test_what_a_port_that_is_down_does_not_send(tmp_path):
    env = environment(f"pd0=vhost-user:{tmp_path}/nobody", PALLADIUM_STATS_SHMEM_DIR=tmp_path)
    with Proc(program("""
a = packet(A)
say(attempt(a.send, frame(0)), attempt(a.send, frame(1)), "done")
sys.stdin.readline()
"""), env=env) as p:
        p.expect("^ENETDOWN ENETDOWN done")
        shown = counters_of(p.pid, tmp_path)
        p.write("\n")
    assert shown["port"][0]["counters"]["tx_drop_port_down"] == 2
    assert [c["tx_drops"] for c in sockets_of(shown).values()] == [2]


def test_a_pool_that_runs_out(counted):
    """One socket reads, another keeps every frame until no buffer is left."""
    c = counted("""
import sys
a, b, other = packet(A), packet(B), packet(B)
for s in (b, other):
    s.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)
for i in range(1000):
    a.send(frame(i))
    attempt(b.recv, 100, MSG_DONTWAIT)
""", process=True, PALLADIUM_RX_BUFS=256)
    assert c["pool_empty"] >= 500
