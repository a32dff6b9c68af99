# SPDX-License-Identifier: BSD-2-Clause
"""Several ports that listen on one path: which peer gets which port, and what happens to one too many.

A peer gets the first port, in the order of the configuration, that is in use and has no peer. When all have
one it is kept for a second, for which a peer that was killed may still seem to be there, and then closed.
"""
import contextlib

import pytest

from lab.frames import numbered
from lab.proc import Proc, preload_env
from lab.vhostpeer import BackEnd, FrontEnd, PeerClosed
from lab.wire import dial
from hostile.victim import stats, until

# Opens the ports in the order of its arguments and sends each frame back with its port's number in it.
PROGRAM = """
import select, socket, sys
socks, names = {}, {}
p = select.poll()
def use(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((name, 0))
    p.register(s, select.POLLIN)
    socks[s.fileno()], names[name] = (s, int(name[2:])), s
for name in sys.argv[1:]:
    use(name)
print("ready", flush=True)
p.register(0, select.POLLIN)
while True:
    for fd, _ in p.poll():
        if fd == 0:
            word, name = sys.stdin.readline().split()
            if word == "use":
                use(name)
            else:
                p.unregister(names[name])
                del socks[names[name].fileno()]
                names.pop(name).close()
            print("done", flush=True)
        else:
            s, n = socks[fd]
            f = s.recv(4096)
            s.send(f[:11] + bytes([n]) + f[12:])
"""
ROLES = {"backend": (FrontEnd, "backend"), "frontend": (BackEnd, "frontend")}
ROLE = pytest.mark.parametrize("role", ROLES)


@contextlib.contextmanager
def program(sock, role="backend", use=("pd0", "pd1", "pd2")):
    """A program with three ports on one path; it uses some of them."""
    ports = ";".join(f"pd{i}=vhost-user:{sock},mode=listen,role={role}" for i in range(3))
    with Proc(["/usr/bin/python3", "-c", PROGRAM, *use], env=preload_env(ports)) as p:
        p.expect("ready")
        yield p


class Peer:
    """A scripted peer that dials."""

    def __init__(self, sock, role="backend"):
        self.peer = ROLES[role][0](sock, listen=False)
        self.n = 0

    def up(self):
        """Connect and start; returns self."""
        if isinstance(self.peer, FrontEnd):
            self.peer.reset_rings()
            self.peer.start_like_qemu()
            self.peer.post_rx([2048] * 8)
        else:
            self.peer.wait_started()
        return self

    def port(self):
        """The number of the port that answers."""
        self.n += 1
        self.peer.send(numbered(self.n, 60))
        frame = self.peer.recv().frame
        want = numbered(self.n, 60)
        assert frame[:11] + frame[12:] == want[:11] + want[12:]
        return frame[11]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.peer.close()


@contextlib.contextmanager
def peers(sock, count, role="backend"):
    """That many peers, none of them up."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Peer(sock, role)) for _ in range(count)]


def down(p, port):
    """Wait until the program has seen that this port's peer is gone."""
    until(lambda: not stats(p.pid)["port"][port]["counters"]["link"], f"the end of port {port}'s link")


@ROLE
def test_in_the_order_of_the_configuration(sock, role):
    with program(sock, role), peers(sock, 3, role) as them:
        assert [q.up().port() for q in them] == [0, 1, 2]
        assert [q.port() for q in reversed(them)] == [2, 1, 0]


@ROLE
def test_the_order_of_use_does_not_matter(sock, role):
    with program(sock, role, ("pd2", "pd0", "pd1")), peers(sock, 3, role) as them:
        assert [q.up().port() for q in them] == [0, 1, 2]


@ROLE
def test_another_takes_the_place(sock, role):
    """The first place that is free, whoever had it; those who stayed notice nothing."""
    with program(sock, role) as p, peers(sock, 3, role) as them:
        for q in them:
            q.up()
        for gone in (1, 0, 2, 1):
            them[gone].peer.drop()
            down(p, gone)
            assert them[gone].up().port() == gone
            assert [q.port() for q in them] == [0, 1, 2]
        for gone in (2, 0):
            them[gone].peer.drop()
            down(p, gone)
        assert them[2].up().port() == 0
        assert them[0].up().port() == 2
        assert them[1].port() == 1


def test_a_port_that_is_not_used_gets_nobody(sock):
    with program(sock, use=("pd1",)) as p, peers(sock, 2) as (one, other):
        assert one.up().port() == 1
        p.write("use pd0\n")
        p.expect("done")
        assert other.up().port() == 0
        assert one.port() == 1


def test_a_port_that_is_closed_lets_its_peer_go(sock):
    with program(sock) as p, peers(sock, 4) as them:
        for q in them[:3]:
            q.up()
        p.write("close pd1\n")
        p.expect("done")
        # A port stays up when its last socket closes: the next to use it finds its peer there.
        assert [them[0].port(), them[2].port()] == [0, 2]
        p.write("use pd1\n")
        p.expect("done")
        assert them[1].port() == 1


def test_one_too_many(sock):
    """It is closed after a moment, which one line tells; the others notice nothing."""
    with program(sock) as p, peers(sock, 3) as them:
        for q in them:
            q.up()
        extra = [dial(sock) for _ in range(12)]
        for ch in extra:
            assert ch.closed_by_peer(30)
            ch.close()
        p.expect("one more connection than open ports on this path")
        assert [q.port() for q in them] == [0, 1, 2]


def test_one_too_many_gets_the_place_that_becomes_free(sock):
    """Within the moment for which it is kept."""
    with program(sock), peers(sock, 4) as them:
        for q in them[:3]:
            q.up()
        late = them[3]
        late.peer.connect()
        them[1].peer.drop()
        assert late.up().port() == 1
        assert [them[0].port(), them[2].port()] == [0, 2]


def test_the_silent_give_way(sock):
    """Connections that say nothing keep nobody out, however many; those that work stay."""
    with program(sock), peers(sock, 3) as them:
        them[0].up()
        silent = [dial(sock) for _ in range(4)]
        assert them[1].up().port() in (1, 2)
        assert them[0].port() == 0
        for ch in silent:
            ch.close()
        assert them[2].up().port() in (1, 2)


def comes(them, n):
    """The n-th of a crowd comes and tries until it is served; the one before the last goes."""
    mine = them[n % len(them)]
    mine.peer.drop()
    for _ in range(50):
        try:
            assert mine.up().port() in (0, 1, 2)
            break
        except (PeerClosed, ConnectionError):
            mine.peer.drop()
    else:
        raise AssertionError("never served")
    if n >= 2:
        them[(n - 2) % len(them)].peer.drop()


def test_a_crowd_that_comes_and_goes(sock):
    """Five peers for three places, each trying until it is served, a hundred times."""
    with program(sock) as p, peers(sock, 5) as them:
        for n in range(100):
            comes(them, n)
        assert p.running
