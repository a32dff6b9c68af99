# SPDX-License-Identifier: BSD-2-Clause
"""Moderation of notifications, counted at the peer: after which frame, and after which room, our side wants to be told.

The peer moves in steps: it waits until our side sleeps, which shows in the event word that our side wrote, and moves on. The period is the
longest that can be set, a minute, so that each step is part of a flow and ends before it, however slow the machine is. What comes when a
period ends is asked with one of a second, where it does not matter in which step it does.
"""
import contextlib
import os
import time

import pytest

from hostile.victim import stats, until
from lab.packedring import AVAIL, USED, PackedDeviceQueue, PackedDriverQueue, avail_bits, wanted
from lab.peer import BASIC
from lab.proc import Proc, preload_env, require, scale
from lab.ring import DeviceQueue, need_event
from lab.vhostpeer import BackEnd, F, FrontEnd, Req
from lab.wire import NO_FD, u64

COUNT, WINDOW, SECOND = 8, 8, 1000000
MODERATED = {"CQ_MODERATION_COUNT": COUNT, "CQ_MODERATION_PERIOD_USEC": 60 * SECOND, "CQ_AIM_INTERVAL_MSEC": 0}
ENDING = {**MODERATED, "CQ_MODERATION_PERIOD_USEC": SECOND}
INTERRUPTS = {"RX_POLL": 0, "SELECT_POLL": 0, "SEND_WHEN_DOWN": "wait"}

START = """
import itertools, select, socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 3))
print("ready", flush=True)
"""
SINK = START + """
for n in itertools.count(1):
    s.recv(4000)
    print("got", n, flush=True)
"""
POLLING_SINK = START + """
s.setblocking(False)
p, n = select.%s(), 0
p.register(s, select.%s)
while True:
    p.poll()
    while True:
        try:
            s.recv(4000)
        except BlockingIOError:
            break
        n += 1
        print("got", n, flush=True)
"""
SOURCE = START + """
for n in itertools.count(1):
    s.send(bytes(12) + b"\\x88\\xb5" + bytes(50))
"""
FRAME = bytes(12) + b"\x88\xb5" + bytes(50)


def sleeps(pid):
    """Whether a process's first thread is in ppoll (of x86-64 or aarch64), and nothing has woken it."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as f:
        return f.read().split()[0] in ("271", "73")


class Side:
    """The peer in either role; `queue` is the ring that the test moves: ours to receive by, or to send by."""

    def __init__(self, sock, kind, packed, features=BASIC):
        features |= F.RING_PACKED if packed else 0
        self.keys = f"role={'backend' if kind == 'frontend' else 'frontend'},ring=128,format={'packed' if packed else 'split'}"
        if kind == "frontend":
            self.peer = FrontEnd(sock, ring=128, features=features)
        else:
            self.peer = BackEnd(sock, listen=True, features=features)
        self.pid = None  # of our side

    def start(self, p):
        """Bring the link up."""
        def up():
            p.expect("ready")
            until(lambda: stats(p.pid)["port"][0]["counters"]["link"], "the link")
        self.pid = p.pid
        if isinstance(self.peer, FrontEnd):
            self.peer.start_like_qemu()
            up()
        else:
            with self.peer.serving():
                up()

    def ahead(self, queue):
        """How many more it takes until our side wants to be told; None: it did not ask."""
        ring = queue.ring
        if isinstance(queue, PackedDeviceQueue):
            event, at = ring.driver_event, queue.used_next
        elif isinstance(queue, PackedDriverQueue):
            event, at = ring.device_event, queue.avail_next
        elif isinstance(queue, DeviceQueue):
            event, at = ring.used_event, queue.used_next
        else:
            event, at = ring.avail_event, queue.avail_next

        def told(n):
            if isinstance(queue, (PackedDeviceQueue, PackedDriverQueue)):
                return wanted(event, queue.event_idx, at, at + n, queue.size)
            return need_event(event, (at + n) & 0xffff, at)
        return next((n for n in range(1, 65) if told(n)), None)

    def asleep(self, queue):
        """Wait until our side asks, and its first thread sleeps: who has asked but not slept may take it back, for a notification
        that it outran. For how many it asks."""
        return until(lambda: self.ahead(queue) if sleeps(self.pid) else None, "our side's sleep")

    def notified(self, queue):
        """How often the peer was asked to tell, and did."""
        return queue.kicks if isinstance(self.peer, FrontEnd) else queue.calls


class Receiving(Side):
    """Our side receives."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.sent = 0

    def start(self, p):
        """The first frames: who still sleeps for the link, which no frame ends, has asked for nothing, and a fresh ring asks by itself."""
        super().start(p)
        for _ in range(2):
            self.give(1, p)

    def ring(self):
        """The ring that we receive by."""
        return self.peer.tx if isinstance(self.peer, FrontEnd) else self.peer.queue(0)

    def give(self, n, p, at_once=True):
        """Publish n frames, and wait until the program has them."""
        self.publish(n, at_once)
        p.expect(rf"got {self.sent}\b")

    def publish(self, n, at_once):
        """Publish n frames by one index update, or by n."""
        self.sent += n
        if isinstance(self.peer, FrontEnd):
            self.peer.sent()
            for _ in range(n):
                self.peer.send(FRAME, publish=not at_once)
            if at_once:
                self.peer.tx.publish()
            return
        queue, elems = self.ring(), []
        for _ in range(n):
            popped = queue.pop()
            assert popped, "our side posts no buffers"
            elems.append((popped.head, queue.write(popped, b"\1" + bytes(47) + FRAME)))
        for part in [elems] if at_once else [[e] for e in elems]:
            queue.push(part)


class Sending(Side):
    """Our side sends as long as there is room."""

    def ring(self):
        """The ring that we send by."""
        return self.peer.rx if isinstance(self.peer, FrontEnd) else self.peer.queue(1)

    def start(self, p):
        super().start(p)
        if isinstance(self.peer, FrontEnd):
            self.peer.post_rx([2048] * 96)
        self.full()

    def full(self):
        """Wait until our side has used all the room that there is."""
        def used():
            if isinstance(queue, PackedDeviceQueue):
                return all(queue.ring.flags(at) & (AVAIL | USED) == avail_bits(at, queue.size)
                           for at in range(queue.last_avail, queue.last_avail + queue.size))
            if isinstance(self.peer, BackEnd):
                return queue.available() == queue.size
            queue.recycle(queue.reap())
            return not queue.chains
        queue = self.ring()
        until(used, "a full ring")

    def publish(self, n, at_once):
        """Make room for n frames."""
        if isinstance(self.peer, FrontEnd):
            for _ in range(1 if at_once else n):
                self.peer.post_rx([2048] * (n if at_once else 1))
            return
        queue = self.ring()
        elems = [(queue.pop().head, 0) for _ in range(n)]
        for part in [elems] if at_once else [[e] for e in elems]:
            queue.push(part)

    def give(self, n, p, at_once=True):
        """Make room, and wait until it is used."""
        self.publish(n, at_once)
        self.full()


@contextlib.contextmanager
def program(code, side, sock, **variables):
    """The program under the preload, joined to the side."""
    env = preload_env(f"pd0=vhost-user:{sock},{side.keys}", **{**INTERRUPTS, **variables})
    with side.peer, Proc(["/usr/bin/python3", "-c", code], env=env) as p:
        side.start(p)
        yield p


def lane(p):
    return stats(p.pid)["lane"][0]["counters"]


def flow(side, p, hold=COUNT):
    """Let it flow until our side asks for `hold` at once."""
    deadline = time.monotonic() + scale(30)
    while side.asleep(side.ring()) != hold:
        assert time.monotonic() < deadline, "it is never held"
        side.give(hold, p)


every = pytest.mark.parametrize("kind, packed", [("frontend", 0), ("frontend", 1), ("backend", 0), ("backend", 1)])


def seven_then_one(side, p, queue):
    """From a held sleep: notifications after COUNT - 1 publications, and after one more."""
    flow(side, p)
    before = side.notified(queue)
    side.publish(COUNT - 1, at_once=False)
    seven = side.notified(queue) - before
    side.give(1, p)
    return seven, side.notified(queue) - before


@every
def test_frames_are_told_of_together(sock, kind, packed):
    """While frames flow there is one notification for COUNT of them."""
    side = Receiving(sock, kind, packed)
    with program(SINK, side, sock, **MODERATED) as p:
        queue = side.ring()
        for _ in range(20):
            assert seven_then_one(side, p, queue) == (0, 1)
        assert lane(p)["rx_holds"] >= 20


@every
def test_a_period_that_ends_short(sock, kind, packed):
    """A few frames that come to rest are there after the period, and the next is not waited with."""
    side = Receiving(sock, kind, packed)
    with program(SINK, side, sock, **ENDING) as p:
        queue = side.ring()
        flow(side, p)
        side.give(3, p, at_once=False)          # nobody tells
        # A pause: the next frame is not waited with.
        until(lambda: side.ahead(queue) == 1, "a sleep without a bound")
        before = side.notified(queue)
        side.give(1, p)
        assert side.notified(queue) == before + 1
        assert side.asleep(queue) == 1


# In every millisecond count and period become what brings this many wake-ups a second: a second apart the frames of any machine are many.
AIMING = {"CQ_AIM_INTERVAL_MSEC": 1, "CQ_AIM_INTERRUPTS_RATE_PER_SEC": 1, "CQ_AIM_MAX_PERIOD_USEC": SECOND}


@every
def test_adapting_gathers_what_comes_fast(sock, kind, packed):
    """From each frame told of to one notification for as many as the limit allows."""
    side = Receiving(sock, kind, packed)
    with program(SINK, side, sock, **{**AIMING, "CQ_MODERATION_COUNT": 1, "CQ_AIM_MAX_COUNT": COUNT}) as p:
        queue, deadline = side.ring(), time.monotonic() + scale(30)
        while seven_then_one(side, p, queue) != (0, 1):  # unless a second passes in the middle of it
            assert time.monotonic() < deadline, "it is never held"
        assert lane(p)["rx_holds"]


@every
def test_adapting_tells_of_each_frame_where_that_many_are_wanted(sock, kind, packed):
    """Ten million wake-ups a second are more than the frames that come."""
    side = Receiving(sock, kind, packed)
    with program(SINK, side, sock, **{**MODERATED, "CQ_AIM_INTERVAL_MSEC": 1, "CQ_AIM_INTERRUPTS_RATE_PER_SEC": 10000000}) as p:
        queue, start = side.ring(), time.monotonic()
        while time.monotonic() < start + 0.01:  # ten intervals: it has adapted
            side.give(side.asleep(queue), p)
        for _ in range(4 * WINDOW):
            assert side.asleep(queue) == 1
            before = side.notified(queue)
            side.give(1, p)
            assert side.notified(queue) == before + 1


# A receive that blocks, and the two that wait for readiness; the setting by which each looks before it sleeps.
WAYS = {"recv": (SINK, "RX_POLL"), "poll": (POLLING_SINK % ("poll", "POLLIN"), "SELECT_POLL"),
        "epoll": (POLLING_SINK % ("epoll", "EPOLLIN"), "SELECT_POLL")}


@every
@pytest.mark.parametrize("way", WAYS)
def test_who_spins_is_not_told(sock, kind, packed, way):
    """RX_POLL=-1, and SELECT_POLL=-1, look for ever."""
    side, (code, setting) = Receiving(sock, kind, packed), WAYS[way]
    with program(code, side, sock, CQ_MODERATION_ENABLE=0, **{setting: -1}) as p:
        side.give(2, p, at_once=False)  # the link has come up, which is told of
        before = side.notified(side.ring())
        for _ in range(50):
            side.give(2, p, at_once=False)
        assert side.notified(side.ring()) == before


@every
@pytest.mark.parametrize("off", [{"CQ_MODERATION_ENABLE": 0}, {"CQ_MODERATION_COUNT": 1}, {"CQ_MODERATION_PERIOD_USEC": 0},
                                 {"SPEC": "latency", "RX_POLL": 0}])
def test_switched_off_each_frame_is_told_of(sock, kind, packed, off):
    side = Receiving(sock, kind, packed)
    with program(SINK, side, sock, **{**MODERATED, **off}) as p:
        queue = side.ring()
        for _ in range(4 * WINDOW):
            assert side.asleep(queue) == 1
            before = side.notified(queue)
            side.give(1, p)
            assert side.notified(queue) == before + 1
        assert lane(p)["rx_holds"] == 0


@pytest.mark.parametrize("how", ["SINK", "poll POLLIN", "epoll EPOLLIN", "epoll EPOLLET|select.EPOLLIN"])
def test_every_way_to_wait(sock, how):
    side = Receiving(sock, "frontend", False)
    code = SINK if how == "SINK" else POLLING_SINK % tuple(how.split())
    with program(code, side, sock, **MODERATED) as p:
        queue = side.ring()
        for _ in range(5):
            assert seven_then_one(side, p, queue) == (0, 1)


@every
def test_without_event_index_nothing_is_held(sock, kind, packed):
    side = Receiving(sock, kind, packed, BASIC & ~F.EVENT_IDX)
    with program(SINK, side, sock, **MODERATED) as p:
        for _ in range(4 * WINDOW):
            side.give(COUNT, p)
        assert lane(p)["rx_holds"] == 0


@every
def test_room_is_told_of_together(sock, kind, packed):
    side = Sending(sock, kind, packed)
    with program(SOURCE, side, sock, **MODERATED) as p:
        queue = side.ring()
        for _ in range(5):
            assert seven_then_one(side, p, queue) == (0, 1)
        assert lane(p)["tx_holds"] >= 5


@every
def test_a_period_without_much_room(sock, kind, packed):
    """A little room is used after the period."""
    side = Sending(sock, kind, packed)
    with program(SOURCE, side, sock, **ENDING) as p:
        flow(side, p)
        side.give(3, p, at_once=False)
        until(lambda: side.ahead(side.ring()) == 1, "a sleep without a bound")
        side.give(1, p)
        assert lane(p)["tx_holds"]


def misses(side, p):
    """Looks that found nothing while 50 frames woke the program, each told of."""
    side.asleep(side.ring())
    before = lane(p)["rx_poll_miss"]
    for _ in range(50):
        side.asleep(side.ring())
        side.give(1, p)
    side.asleep(side.ring())
    return lane(p)["rx_poll_miss"] - before


@pytest.mark.parametrize("way, most", [("recv", 100), ("poll", 150)])
def test_interrupt_mode_looks_only_when_told(sock, way, most):
    """With RX_POLL=0 and SELECT_POLL=0 a frame that wakes the program costs one look that finds it and two that find nothing, before
    its sleep and on the way into it; who polls has one more, by the receive that finds no other."""
    side = Receiving(sock, "frontend", False)
    with program(WAYS[way][0], side, sock, RX_POLL=0, SELECT_POLL=0, CQ_MODERATION_ENABLE=0) as p:
        assert misses(side, p) <= most


def test_the_least_number_of_loops_is_not_none(sock):
    """RX_POLL=1: it looks once more before each sleep."""
    side = Receiving(sock, "frontend", False)
    with program(SINK, side, sock, RX_POLL=1, CQ_MODERATION_ENABLE=0) as p:
        assert misses(side, p) >= 150


@pytest.mark.parametrize("way", ["recv", "poll"])
def test_adapting_looks_before_it_sleeps(sock, way):
    """While frames come within the time that it may look for; a busy machine has moments in which they do not."""
    side, (code, setting) = Receiving(sock, "frontend", False), WAYS[way]
    with program(code, side, sock, CQ_MODERATION_ENABLE=0, POLL_ADAPTIVE_MAX_USEC=1000, **{setting: -2}) as p:
        until(lambda: misses(side, p) > 200, "fifty frames that are looked for")


ECHO = START + """
while True:
    s.send(s.recv(2000))
"""
PING = START + """
for n in range(10000):
    s.send(bytes(12) + b"\\x88\\xb5" + n.to_bytes(4, "big") + bytes(46))
    assert s.recv(2000)[14:18] == n.to_bytes(4, "big")
print("answered", flush=True)
"""


class Unkicking(FrontEnd):
    """Gives no eventfds for kicks: who serves its rings has to look by itself (specification, SET_VRING_KICK)."""

    def ring_message(self, req, i, **kw):
        if req == Req.SET_VRING_KICK:
            self.channel.send(req, u64(i | NO_FD))
        else:
            super().ring_message(req, i, **kw)


@pytest.mark.parametrize("packed", [False, True])
def test_a_ring_without_kicks_is_looked_at(sock, packed):
    """By a receiver asleep, and by a sender asleep that waits for room."""
    keys = f"pd0=vhost-user:{sock},role=backend,format={'packed' if packed else 'split'}"
    with Unkicking(sock, features=BASIC | (F.RING_PACKED if packed else 0)) as fe, \
            Proc(["/usr/bin/python3", "-c", ECHO], env=preload_env(keys, **INTERRUPTS)) as p:
        fe.start_like_qemu()
        p.expect("ready")
        for _ in range(10):
            until(lambda: sleeps(p.pid), "the receiver's sleep")
            fe.send(FRAME)
            fe.wait_sent()
            until(lambda: sleeps(p.pid), "the sender's sleep")
            fe.post_rx([2048], refill=False)
            assert fe.recv().frame == FRAME


@pytest.mark.parametrize("variables", [{}, {"RX_POLL": 0, "SELECT_POLL": 0}, {"RX_POLL": -1}, {"RX_POLL": -1, "RX_POLL_YIELD": 1}])
def test_two_ends_on_one_core(sock, variables):
    """A spinner does not keep the core from the end that it waits for. Without giving it away, 10,000 round trips of which each takes two
    time slices last longer than they may here."""
    require("taskset")
    core = str(min(os.sched_getaffinity(0)))

    def end(code, mode, role):
        env = preload_env(f"pd0=vhost-user:{sock},mode={mode},role={role}", SEND_WHEN_DOWN="wait", **variables)
        return Proc(["/usr/bin/python3", "-c", code], env=env, wrap=["taskset", "-c", core])
    with end(ECHO, "listen", "backend") as echo:
        echo.expect("ready")
        with end(PING, "connect", "frontend") as ping:
            ping.expect("answered", 30)
