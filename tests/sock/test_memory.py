# SPDX-License-Identifier: BSD-2-Clause
"""PALLADIUM_MEM_ALLOC_TYPE: what a program's memory is made of, what it is told, and fork."""
import subprocess

import pytest

from lab.hugepages import hugepages
from lab.proc import preload_order
from sockutil import LIMIT, PRELOAD, environment, finish, on_ports, program

PORTS = "pd0=loop:pd1,ring=64;pd1=loop:pd0,ring=64"

MEMORY = """
def of_huge_pages():
    'KiB of huge pages, by the smaps of this process.'
    total = 0
    for line in open("/proc/self/smaps"):
        word = line.split()
        if word[0] == "Size:":
            size = int(word[1])
        elif word[0] == "KernelPageSize:" and word[1] == "2048":
            total += size
    return total


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4


def to_and_fro(n=3000):
    for i in range(n):
        a.send(frame(i, 1500))
        for s in (b, c):
            assert s.recv(2000) == frame(i, 1500), i
"""

TWO_READERS = "a, b, c = packet(A), packet(B), packet(B)\n"


def run(body, ports=PORTS, **extra):
    """Output and log."""
    done = subprocess.run(program(MEMORY + body), env=environment(ports, **extra), timeout=3 * LIMIT,
                          capture_output=True, text=True, check=False)
    return finish(done), done.stderr


def said(log):
    return [line for line in log.splitlines() if " mem: " in line]


@pytest.mark.parametrize("kind", ["anon", "contig"])
def test_nothing_is_said_of_what_needs_nothing(kind):
    out, log = run(TWO_READERS + "to_and_fro()\nsay(of_huge_pages())",
                   PALLADIUM_MEM_ALLOC_TYPE=kind, PALLADIUM_TRACELEVEL="details")
    assert out == "0\n"
    assert not said(log)


@pytest.mark.skipif(len(preload_order(PRELOAD)) > 1, reason="a sanitizer keeps what was freed")
def test_a_large_pool_costs_what_is_used_of_it():
    """A million buffers of 2 KiB, of which a few are in use at a time."""
    out = on_ports(MEMORY + TWO_READERS + """
a.send(frame())
b.recv(100), c.recv(100)
before = resident()
to_and_fro(10000)
say(resident() - before < 4096)
""", PORTS, PALLADIUM_RX_BUFS=1000000, PALLADIUM_MEM_ALLOC_TYPE="anon")
    assert out == "True\n"


@pytest.mark.parametrize("how, level", [({"PALLADIUM_MEM_ALLOC_TYPE": "hugepages"}, "WARNING"),
                                        ({"PALLADIUM_SPEC": "multi_ring_latency"}, "INFO")])
def test_without_huge_pages_one_line_says_so(how, level):
    with hugepages(0):
        out, log = run(TWO_READERS + "to_and_fro(100)\nsay(of_huge_pages())",
                       PALLADIUM_RX_BUFS=1024, PALLADIUM_TRACELEVEL="details", **how)
    assert out == "0\n"
    assert len(said(log)) == 1
    assert f"{level}: mem: ordinary pages instead of huge ones, everything works" in said(log)[0]


def test_huge_pages_hold_the_buffers():
    with hugepages(6):
        out, log = run(TWO_READERS + "to_and_fro()\nsay(of_huge_pages())",
                       PALLADIUM_RX_BUFS=4096, PALLADIUM_TX_BUFS=64,
                       PALLADIUM_MEM_ALLOC_TYPE="hugepages",
                       PALLADIUM_TRACELEVEL="details")
    assert out == f"{5 * 2048}\n"  # the ports' rings are too small to be worth any
    assert said(log) == ["PALLADIUM DETAILS: mem: huge pages of 2 MiB hold buffers and rings"]


def test_a_child_of_huge_pages_has_memory_of_its_own():
    """No page is left for copies: a child that wrote to the parent's would die of SIGBUS."""
    with hugepages(5):
        out, _ = run(TWO_READERS + """
to_and_fro()
say(of_huge_pages())
for i in range(20):
    a.send(frame(i))
b.recv(100)  # 19 wait in the queue of b, 20 in that of c
r, w = os.pipe()
if os.fork():
    for i in range(1, 20):
        assert b.recv(100) == frame(i)
    for i in range(20):
        assert c.recv(100) == frame(i)
    to_and_fro()
    say("parent", of_huge_pages())
    os._exit(0)
os.close(w)
os.read(r, 1)  # until the parent ends
poll = select.epoll()
poll.register(a, select.EPOLLOUT)
assert poll.poll(10), "the port is not free"
for s in (b, c):
    assert attempt(s.recv, 100, MSG_DONTWAIT) == "EAGAIN"  # takes the port
to_and_fro()
say("child", of_huge_pages())
""", PALLADIUM_RX_BUFS=4096, PALLADIUM_TX_BUFS=64,
                     PALLADIUM_MEM_ALLOC_TYPE="hugepages")
    assert out.splitlines() == ["10240", "parent 10240", "child 0"]


def test_a_child_that_has_the_port_first():
    """The rings of these ports are of huge pages, too, and the child gives them back."""
    with hugepages(9):
        out, _ = run(TWO_READERS + """
pid = os.fork()
if not pid:
    for s in (b, c):
        assert attempt(s.recv, 100, MSG_DONTWAIT) == "EAGAIN"
    to_and_fro()
    say("child")  # its own new rings may be of huge pages
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
for s in (b, c):
    assert attempt(s.recv, 100, MSG_DONTWAIT) == "EAGAIN"
to_and_fro()
say("parent", of_huge_pages())
""", PORTS.replace("64", "256"), PALLADIUM_RX_BUFS=4096, PALLADIUM_TX_BUFS=64,
                     PALLADIUM_MEM_ALLOC_TYPE="hugepages")
    assert out.splitlines() == ["child", "parent 18432"]


def test_a_port_for_which_there_are_no_descriptors_is_not_heard():
    """Whatever the number at which the descriptors end, a socket that hears all ports works with those that could be opened."""
    on_ports("""
import resource
for limit in range(6, 40):
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        try:
            all_ports, one = packet(), packet()
        except OSError:
            os._exit(0)
        for s in (all_ports, one):
            attempt(s.bind, (A, ETH_P_ALL)) if s is one else None
            for _ in range(3):
                attempt(one.send, frame())
                attempt(s.recv, 100, MSG_DONTWAIT)
                attempt(s.recvmsg_into, [bytearray(10), bytearray(10)], 0, MSG_DONTWAIT)
                attempt(select.select, [s], [s], [], 0)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0, (limit, status)
""", PALLADIUM_TRACELEVEL="none")
