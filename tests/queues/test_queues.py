# SPDX-License-Identifier: BSD-2-Clause
"""Ports of several queues beside scripted peers that serve each queue by itself: which one a frame goes by,
what a full one and a missing one do, and that frames of all are received."""
import contextlib
import json

import pytest

from lab.avip import avip, control, parse
from lab.proc import build, run
from lab.vhostpeer import P, BackEnd, FrontEnd, PeerClosed, PeerTimeout, Req
from interop.port import Echo
from queues.remote import Program


def port(sock, queues, **keys):
    keys = {"queues": queues, **keys}
    return ",".join([f"pd0=vhost-user:{sock}", *(f"{k}={v}" for k, v in keys.items())])


class Side:
    """The peer in either role, with the calls of both under one name."""

    def __init__(self, kind, sock, queues, hdr=48, post=None, ring=128):
        self.kind, self.queues, self.post, self.up = kind, queues, post, False
        self.keys = {}
        if kind == "frontend":
            self.peer = FrontEnd(sock, hdr=hdr, queues=queues, ring=ring)
        else:
            self.keys = {"role": "frontend", "ring": ring}
            self.peer = BackEnd(sock, listen=True, hdr=hdr, max_pairs=queues)

    def start(self, program, thread):
        """Bring the link up; what the thread that waits for it then says."""
        if self.kind == "frontend":
            self.peer.start_like_qemu()
            for q in range(self.queues) if self.post is None else self.post:
                self.peer.post_rx([2048] * 96, queue=q)
            return thread is None or program.ask(f"threads[{thread}].result()")
        with self.peer.serving():
            return program.ask(f"threads[{thread}].result()")

    def recv(self, queue, timeout=10):
        """The next frame there: its class and number."""
        pkt = self.peer.recv(timeout=timeout, queue=queue)
        return parse(pkt.header)["pfc"] if len(pkt.header) == 48 else None, number(pkt.frame)

    def quiet(self, queue):
        """Nothing came by this queue."""
        with pytest.raises(PeerTimeout):
            self.peer.recv(timeout=0.05, queue=queue)

    def __enter__(self):
        self.peer.__enter__()
        return self

    def __exit__(self, *exc):
        self.peer.__exit__(*exc)


def number(frame):
    """The number of a frame; of one with an IP header it stands behind that."""
    at = 42 if frame[12:14] == b"\x08\0" else 14
    return int.from_bytes(frame[at:at + 4], "big")


def numbered(n, size=64):
    return b"\xff" * 6 + b"\2\0\0\0\0\1\x88\xb5" + n.to_bytes(4, "big") + bytes(size - 18)


both = pytest.mark.parametrize("kind", ["frontend", "backend"])
WAIT = {"PALLADIUM_SEND_WHEN_DOWN": "wait"}


@both
@pytest.mark.parametrize("queues", [1, 2, 8, 10])
def test_each_class_has_its_queue(sock, kind, queues):
    """Also for what is sent before there is a peer: nothing begins on another queue."""
    with Side(kind, sock, queues) as peer, \
            Program(port(sock, queues, **peer.keys), PALLADIUM_METADATA="inline", **WAIT) as p:
        p.ask("s = packet('pd0')")
        early = p.ask("blocked(several, s, [(c, c) for c in range(8)])")
        assert peer.start(p, early) == 8
        mixed = [((3 * n + n // 7) % 8, n) for n in range(8, 40)]
        assert p.ask(f"several(s, {mixed})") == 32
        sent = [(c, c) for c in range(8)] + mixed
        for q in range(queues):
            for expected in [(c, n) for c, n in sent if c % min(queues, 8) == q]:
                assert peer.recv(q) == expected
            peer.quiet(q)


@both
def test_what_has_no_class(sock, kind):
    """Control messages go by queue 0, frames without a class by those that no class has."""
    with Side(kind, sock, 10) as peer, Program(port(sock, 10, **peer.keys), **WAIT) as p:
        p.ask("s = packet('pd0')")
        early = p.ask("blocked(s.sendmsg, [], [(SOL, 1, raw(5, True))])")
        assert peer.start(p, early) == 0
        assert peer.peer.recv(queue=0).frame == b""
        for n in range(16):
            assert p.ask(f"s.send(ip({n}, 1000 + {n}))") == 64
        got = {8: [], 9: []}
        for q, seen in got.items():
            while True:
                try:
                    seen.append(peer.recv(q, 0.05)[1])
                except PeerTimeout:
                    break
        assert sorted(got[8] + got[9]) == list(range(16)) and got[8] and got[9]
        # The socket's class, once it was given: by its priority, by the default sidecar.
        p.ask("s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 6)")
        p.ask("s.send(frame(1))")
        assert peer.recv(6) == (6, 1)
        assert p.ask("s.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY)") == 6
        assert p.ask("put(s, 2, 3)") == 64 and peer.recv(2) == (2, 3)
        p.ask("s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 99)")
        p.ask("s.send(frame(2))")
        assert peer.recv(7) == (7, 2)


@both
def test_frames_of_all_queues_are_received(sock, kind):
    """A frame that was looked at, by any of the ways, is the one that comes next."""
    with Side(kind, sock, 10) as peer, \
            Program(port(sock, 10, **peer.keys), PALLADIUM_RING_ALLOCATION_LOGIC_RX="socket") as p:
        p.ask("s = packet('pd0')")
        p.ask("s.setblocking(False)")
        assert p.ask("take(s)") == "EAGAIN"
        early = p.ask("blocked(events, s, select.POLLOUT, -1)")
        assert peer.start(p, early) == 4
        sizes = {n: 60 + n for n in range(60)}
        for n, size in sizes.items():
            peer.peer.send(numbered(n, size), avip(), queue=(n * 7) % 10)
        seen = []
        while len(seen) < len(sizes):
            assert p.ask("events(s, select.POLLIN, 10000)") == 1
            look = len(seen) % 3
            n = None
            if look == 0:
                n = p.ask("take(s, MSG_PEEK)")
                assert n == p.ask("take(s, MSG_PEEK)")
            elif look == 1:
                size = p.ask("pending(s)")
                n = next(k for k, v in sizes.items() if v == size)
            # One that comes meanwhile, by another queue, is not taken before it.
            if len(seen) == 12:
                sizes[100] = 200
                peer.peer.send(numbered(100, 200), avip(), queue=0)
            seen.append(p.ask("take(s)"))
            assert n is None or seen[-1] == n
        assert sorted(seen) == sorted(sizes)
        for q in range(10):  # in order within each queue
            mine = [n for n in seen if n < 60 and (n * 7) % 10 == q]
            assert mine == sorted(mine)
        assert p.ask("take(s)") == "EAGAIN"


def test_a_full_queue_stops_its_class_alone(sock):
    """The peer gives no room on queue 3."""
    with Side("frontend", sock, 8, post=[0, 1, 2, 4, 5, 6, 7]) as peer, \
            Program(port(sock, 8), **WAIT) as p:
        p.ask("s, b = packet('pd0'), packet('pd0')")
        early = p.ask("blocked(put, s, 0, 0)")
        assert peer.start(p, early) == 64
        # A blocking send of that class waits; others do not, by the same socket and by another.
        held = p.ask("blocked(put, s, 3, 1)")
        for cls in (0, 1, 2, 4, 5, 6, 7):
            assert p.ask(f"put({'sb'[cls % 2]}, {cls}, 10)") == 64
        assert peer.recv(0) == (0, 0)
        for cls in (0, 1, 2, 4, 5, 6, 7):
            assert peer.recv(cls) == (cls, 10)
        # A socket that is refused is writable again when that queue has room, whatever the others have.
        assert p.ask("put(b, 3, 2, MSG_DONTWAIT)") == "EAGAIN"
        assert p.ask("events(b, select.POLLOUT)") == 0
        p.ask("e = select.epoll()")
        p.ask("e.register(b, select.EPOLLOUT | select.EPOLLET)")
        assert p.ask("e.poll(0)") == []
        waits = p.ask("blocked(e.poll)")
        # A send of another class says nothing about that one's; a vector stops at the first that cannot go.
        p.ask("b.setblocking(False)")
        assert p.ask("put(b, 5, 11)") == 64 and peer.recv(5) == (5, 11)
        assert p.ask("events(b, select.POLLOUT)") == 4
        assert p.ask("put(b, 3, 2)") == "EAGAIN"
        assert p.ask("events(b, select.POLLOUT)") == 0
        peer.peer.post_rx([2048] * 8, queue=3)
        assert p.ask(f"threads[{held}].result()") == 64
        assert peer.recv(3) == (3, 1)
        assert len(p.ask(f"threads[{waits}].result()")) == 1
        assert p.ask("put(b, 3, 2)") == 64
        assert peer.recv(3) == (3, 2)
        peer.quiet(3)


def test_a_vector_stops_at_the_first_that_cannot_go(sock):
    with Side("frontend", sock, 8, post=[0, 1, 2, 4, 5, 6, 7]) as peer, \
            Program(port(sock, 8), PALLADIUM_METADATA="inline", **WAIT) as p:
        p.ask("s = packet('pd0')")
        early = p.ask("blocked(several, s, [(0, 0)])")
        assert peer.start(p, early) == 1
        order = [(0, 1), (5, 2), (0, 3), (3, 4), (0, 5), (5, 6)]
        assert p.ask(f"several(s, {order}, MSG_DONTWAIT)") == 3
        assert p.ask(f"several(s, {order[3:]}, MSG_DONTWAIT)") == "EAGAIN"
        held = p.ask(f"blocked(several, s, {order[3:]})")
        for n in (0, 1, 3):
            assert peer.recv(0) == (0, n)
        assert peer.recv(5) == (5, 2)
        peer.quiet(0)
        peer.peer.post_rx([2048] * 8, queue=3)
        assert p.ask(f"threads[{held}].result()") == 3
        assert peer.recv(3) == (3, 4) and peer.recv(0) == (0, 5) and peer.recv(5) == (5, 6)


def enable(peer, queue, on, rings=(0, 1)):
    """SET_VRING_ENABLE for both rings of a queue, until the port has it."""
    for ring in rings:
        peer.peer.ring_message(Req.SET_VRING_ENABLE, 2 * queue + ring, on=on)
    peer.peer.get_features()


def test_queues_come_and_go(sock):
    """Who waits for a queue that goes is steered again; who has none is told ENETDOWN."""
    with Side("frontend", sock, 4, post=[0, 1, 3]) as peer, Program(port(sock, 4), **WAIT) as p:
        p.ask("s, b = packet('pd0'), packet('pd0')")
        early = p.ask("blocked(put, s, 0, 0)")
        assert peer.start(p, early) == 64
        assert peer.recv(0) == (0, 0)
        held = p.ask("blocked(put, s, 2, 1)")
        assert p.ask("put(b, 2, 0, MSG_DONTWAIT)") == "EAGAIN"
        p.ask("w = select.poll()")
        p.ask("w.register(b, select.POLLOUT)")
        waits = p.ask("blocked(w.poll)")
        enable(peer, 2, 0)
        assert p.ask(f"threads[{held}].result()") == 64
        assert p.ask(f"threads[{waits}].result()[0][1]") == 4
        where = [q for q in (0, 1, 3) if came(peer, q, (2, 1))]
        assert len(where) == 1
        # The other classes stay where they are.
        for cls in (0, 1, 3):
            assert p.ask(f"put(s, {cls}, 2)") == 64 and peer.recv(cls) == (cls, 2)
        # It comes back, and its class goes back; not before the port has waited for more to come.
        enable(peer, 2, 1)
        peer.peer.post_rx([2048] * 8, queue=2)
        for n in range(10, 2000):
            assert p.ask(f"put(s, 2, {n})") == 64
            if not came(peer, where[0], (2, n)):
                assert peer.recv(2) == (2, n)
                break
        assert p.ask("put(s, 2, 5)") == 64 and peer.recv(2) == (2, 5)
        for q in range(4):
            enable(peer, q, 0)
        assert p.ask("put(s, 1, 0, MSG_DONTWAIT)") == "ENETDOWN"
        assert p.ask("events(s, select.POLLOUT)") == 0
        held = p.ask("blocked(put, s, 3, 7)")
        enable(peer, 1, 1)
        assert p.ask(f"threads[{held}].result()") == 64
        assert peer.recv(1) == (3, 7)


def test_no_frame_is_lost_while_queues_come_and_go(sock):
    """Nor refused: there is another queue at every moment."""
    with Side("frontend", sock, 3) as peer, Program(port(sock, 3), **WAIT) as p:
        p.ask("s = packet('pd0')")
        early = p.ask("blocked(put, s, 0, 0)")
        assert peer.start(p, early) == 64
        p.ask("sender = threading.Thread(target=lambda: got.append([attempt(put, s, 2, n) for n in range(4000)]))")
        p.ask("got = []")
        p.ask("sender.start()")
        seen, on = [], True
        while len(seen) < 4001:
            on = not on
            enable(peer, 2, on)
            for q in range(3):
                used = True
                while used:
                    try:
                        seen.append(peer.recv(q, 0)[1])
                    except PeerTimeout:
                        used = False
        p.ask("sender.join()")
        assert set(p.ask("got[0]")) == {64}
        assert sorted(seen) == [0, *range(4000)]


def came(peer, queue, expected):
    """Whether the next frame of a queue is this one; none at all is not."""
    try:
        return peer.recv(queue, 0.1) == expected
    except PeerTimeout:
        return False


@both
@pytest.mark.parametrize("fewer", [1, 2, 3])
def test_a_peer_with_fewer_queues(sock, kind, fewer):
    """What was sent at the start comes by the queues that the rest comes by."""
    with Side(kind, sock, fewer) as peer, \
            Program(port(sock, 8, **peer.keys), PALLADIUM_METADATA="inline", **WAIT) as p:
        p.ask("s = packet('pd0')")
        early = p.ask("blocked(several, s, [(c, c) for c in range(8)])")
        assert peer.start(p, early) == 8
        assert p.ask("several(s, [(c, c + 8) for c in range(8)])") == 8
        for q in range(fewer):
            for n in range(16):
                if n % 8 % fewer == q:
                    assert peer.recv(q) == (n % 8, n)


def test_the_limit_is_what_the_peer_is_told(sock):
    with FrontEnd(sock, queues=2) as fe, \
            Program(port(sock, 8), PALLADIUM_RING_LIMIT_PER_INTERFACE=2) as p:
        p.ask("s = packet('pd0')")
        p.ask("s.setblocking(False)")
        p.ask("attempt(s.recv, 10)")
        fe.connect_like_qemu()
        assert fe.get_u64(Req.GET_QUEUE_NUM) == 2
        # QEMU would add each region once for each pair of queues.
        assert fe.offered_protocol & P.MQ and not fe.offered_protocol & P.MEM_SLOTS


def queues_of(peer, count, queues=4):
    """By which queue each of so many frames came, by its number; those of one socket in order."""
    where = {}
    for q in range(queues):
        last = {}
        while len(where) < count:
            try:
                n = peer.recv(q, 0)[1]
            except PeerTimeout:
                break
            where[n] = q
            assert last.get(n % 4, -1) < n
            last[n % 4] = n
    assert len(where) == count
    return where


@contextlib.contextmanager
def four_queues(sock, **env):
    """A program with a port of four queues and no classes, and its peer."""
    with Side("frontend", sock, 4, hdr=12) as peer, Program(port(sock, 4, dialect="virtio"), **env, **WAIT) as p:
        p.ask("first = packet('pd0')")
        assert peer.start(p, p.ask("blocked(first.send, ip(0, 1))")) == 64
        assert sum(came(peer, q, (None, 0)) for q in range(4)) == 1
        yield peer, p


@pytest.mark.parametrize("logic", ["interface", "ip", "socket", "thread", "core", "core_attach"])
def test_logics(sock, logic):
    """What belongs together comes by one queue, and the rest is spread as the logic says."""
    with four_queues(sock, PALLADIUM_RING_ALLOCATION_LOGIC_TX=logic) as (peer, p):
        cores = sorted(p.ask("os.sched_getaffinity(0)"))
        core = cores[-1]
        if logic in ("core", "thread"):
            p.ask(f"os.sched_setaffinity(0, [{core}])")
        p.ask("s = [packet('pd0') for _ in range(4)]")
        for n in range(64):  # 4 sockets, 16 flows, 16 sources
            assert p.ask(f"s[{n % 4}].send(ip({n}, {n // 4}, {n // 4}))") == 64
        if logic == "thread":  # a socket that another thread made
            p.ask("elsewhere(lambda: s.append(packet('pd0')))")
            assert p.ask("s[4].send(ip(64, 1))") == 64
        where = queues_of(peer, 65 if logic == "thread" else 64)
        if logic in ("interface", "ip"):
            assert all(where[n] == where[4 * (n // 4)] for n in range(64))
            assert set(where.values()) == {0, 1, 2, 3}
        elif logic == "socket":
            assert all(where[n] == where[n % 4] for n in range(64))
            assert {where[n] for n in range(4)} == {0, 1, 2, 3}
        elif logic == "thread":
            assert {where[n] for n in range(64)} == {where[0]}
            assert where[64] != where[0]
        else:  # 31 has chosen the core itself
            on = p.ask("os.sched_getaffinity(0)")
            assert on == {core} if logic == "core" else len(on) == 1
            assert set(where.values()) == {on.pop() % 4}


@pytest.mark.parametrize("ratio, stay", [(1, 1), (5, 9), (-1, 20)])
def test_how_soon_a_sending_socket_migrates(sock, ratio, stay):
    """To the queue of the thread that is found to use it twice in a row; one look at every so many uses."""
    with four_queues(sock, PALLADIUM_RING_ALLOCATION_LOGIC_TX="thread", PALLADIUM_RING_MIGRATION_RATIO_TX=ratio,
                     PALLADIUM_RING_MIGRATION_RATIO_RX=3) as (peer, p):
        p.ask("s = packet('pd0')")
        assert p.ask("elsewhere(lambda: [s.send(ip(n, 1)) for n in range(20)])") == [64] * 20
        where = queues_of(peer, 20)
        assert [n for n in range(20) if where[n] == where[0]] == list(range(stay))
        assert len({where[n] for n in range(stay, 20)}) <= 1


@pytest.mark.parametrize("ratio, stay", [(1, 1), (5, 9), (-1, 12)])
def test_how_soon_a_receiving_socket_migrates(sock, ratio, stay):
    """The same of the queue that it receives from first."""
    with four_queues(sock, PALLADIUM_RING_ALLOCATION_LOGIC_RX="thread", PALLADIUM_RING_MIGRATION_RATIO_RX=ratio,
                     PALLADIUM_RING_MIGRATION_RATIO_TX=3) as (peer, p):
        p.ask("s = packet('pd0')")
        p.ask("first.close()")
        p.ask("s.setblocking(False)")
        for n in range(64):
            peer.peer.send(numbered(n), bytes(12), queue=n // 16)
        seen = p.ask("elsewhere(lambda: [take(s) for _ in range(12)])")
        by = [n // 16 for n in seen]
        assert by[:stay] == [by[0]] * stay
        assert by[stay:] == [(by + by)[stay % 12]] * (12 - stay) and (stay == 12 or by[stay] != by[0])


@pytest.mark.parametrize("logic", [0, 1, 10, 20, 30, 31])
def test_logics_of_receiving(sock, logic):
    """By VMA's numbers: the queues take turns, or most frames come by the one that is the socket's, the thread's or the core's own."""
    with Side("frontend", sock, 4, hdr=12) as peer, \
            Program(port(sock, 4, dialect="virtio"), PALLADIUM_RING_ALLOCATION_LOGIC_RX=logic) as p:
        p.ask("s = packet('pd0')")
        p.ask("s.setblocking(False)")
        cores = p.ask("os.sched_getaffinity(0)")
        assert peer.start(p, p.ask("blocked(events, s, select.POLLOUT, -1)")) == 4
        for n in range(64):
            peer.peer.send(numbered(n), bytes(12), queue=n // 16)
        seen = []
        while len(seen) < 64:
            assert p.ask("events(s, select.POLLIN, 10000)") == 1
            seen.append(p.ask("take(s)"))
        assert sorted(seen) == list(range(64))
        came = [n // 16 for n in seen]
        if logic < 10:  # each turn is of several frames
            assert set(came[:16]) == {0, 1, 2, 3}
        else:
            assert max(came[:16].count(q) for q in range(4)) >= 12
        assert len(p.ask("os.sched_getaffinity(0)")) == (1 if logic == 31 else len(cores))


def test_a_child_takes_the_port_over(sock):
    """It brings the queues up anew, and its frames go by class as the parent's did, who goes on afterwards."""
    with Side("frontend", sock, 4) as peer, \
            Program(port(sock, 4), PALLADIUM_METADATA="inline", **WAIT) as p:
        p.ask("s = packet('pd0')")
        peer.peer.connect_like_qemu()
        pid = p.ask("forked(several, s, [(c, c) for c in range(8)])")
        for n in (0, 100):
            with pytest.raises(PeerClosed):  # who had the port closes it
                peer.peer.channel.recv()
            peer.peer.drop()
            peer.peer.reset_rings()
            if n:
                early = p.ask("blocked(several, s, [(c, c + 100) for c in range(8)])")
                assert peer.start(p, early) == 8
            else:
                peer.start(p, None)
            for cls in range(8):
                assert peer.recv(cls % 4) == (cls, cls + n)
            if not n:
                assert p.ask(f"os.waitpid({pid}, 0)[1]") == 0


@pytest.mark.parametrize("queues", [1, 2, 8, 10])
def test_the_tester_finds_each_class_on_its_queue(sock, queues):
    """palladium_vlm against the loopback example; the counters of the lanes agree with what it saw."""
    keys = {"mode": "connect", "queues": queues, "steer": "pfc"}
    with Echo(sock, **keys) as echo:
        code, text = run([build("palladium_vlm"), "--socket", sock, "--json", "--quiet", "--frames",
                          2000 * queues, "--queues", queues, "--expect", "echo", "--require-queue"], timeout=60)
        assert code == 0, text
        of_queue = json.loads(text.splitlines()[-1])["ports"][0]["queues"]
        came = [sum(q["sent"] for i, q in enumerate(of_queue) if i % 8 % queues == lane) if lane < 8 else 0
                for lane in range(queues)]
        assert [q["came"] for q in of_queue] == came and sum(came) == 2000 * queues
        code, text = run([build("palladium_stats"), "-p", echo.popen.pid, "--json", "-c", "1", "-v", "3"],
                         timeout=20)
        assert code == 0, text
        lanes = json.loads(text)["lane"]
        assert [x["counters"]["tx_frames"] for x in lanes] == came
        assert [x["counters"]["rx_frames"] - x["counters"]["rx_control"] for x in lanes] == \
            [q["sent"] for q in of_queue]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
