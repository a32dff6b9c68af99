# SPDX-License-Identifier: BSD-2-Clause
"""kill -9 of the peer in mid-burst, again and again: no frame that was acknowledged (used index
published, or send returned) is lost or doubled.

The peer is a forked child. Where the memory is the peer's, this process has it too, and each
child carries on in the rings where the last one died. Frames hold the numbers 0, 1, 2...; as each
takes one ring entry, ring indices and numbers are the same modulo 2^16, positions in a packed ring
modulo twice its size.

How many deaths: see cycles.py. The program lives through all of them, and holds no more after the last than after the third.
"""
import os
import random
import re
import signal
import struct

import pytest

from lab.proc import Proc, preload_env
from lab.packedring import AVAIL, USED, PackedDeviceQueue, avail_bits, used_bits
from lab.ring import WRITE, wait_fds
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd
from hostile.cycles import Cycles
from hostile.victim import stats, until

pytestmark = pytest.mark.usefixtures("small_pages")
SLOT, SIZE = 2048, 1024
TOLD = 64  # a child says after so many frames how far it is

START = """
import errno, os, socket, struct, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
print("ready", flush=True)
"""
SENDER = START + """
n = 0
while True:
    try:
        s.send(bytes(12) + b"\\x88\\xb5" + struct.pack("!I", n) + bytes(42))
        n += 1
    except OSError as e:
        if e.errno != errno.ENETDOWN:
            raise
        time.sleep(0.001)
"""
RECEIVER = START + """
while True:
    os.write(1, b"%d\\n" % struct.unpack_from("!I", s.recv(4096), 14))
"""


def program(code, sock, role):
    """A Python program under the preload, which does not wait long for peers that live for a moment."""
    env = preload_env(f"pd0=vhost-user:{sock},role={role}", RECONNECT_MIN_MS=1, RECONNECT_MAX_MS=5)
    p = Proc(["/usr/bin/python3", "-c", code], env=env)
    p.expect("ready\n")
    return p


def frame(n):
    return bytes(12) + b"\x88\xb5" + struct.pack("!I", n) + bytes(42)


def number(data):
    return struct.unpack_from("!I", data, 14)[0]


def after(n, index, modulus=1 << 16):
    """The first number from n on that is this ring index."""
    return n + (index - n) % modulus


def used_index(q):
    """(where the ring has been used up to, its modulus), from what the front-end left or says."""
    if isinstance(q, PackedDeviceQueue):
        return q.used_next, 2 * q.size
    return q.ring.used_idx, 1 << 16


class Child:
    """A forked peer that runs body(tell) until it is killed; tell(n) sends a number to us."""

    def __init__(self, body):
        self.pipe, out = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                body(lambda *n: os.write(out, struct.pack("<QQ", *n)))
            except BaseException:  # pylint: disable=broad-except
                import traceback  # pylint: disable=import-outside-toplevel
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(out)

    def hear(self):
        """The next pair that it told."""
        data = os.read(self.pipe, 16)
        assert len(data) == 16, "the child ended by itself"
        return struct.unpack("<QQ", data)

    def kill(self):
        """Kill it; returns what it told last, if there was something that nobody has heard."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        last = None
        while data := os.read(self.pipe, 16):
            last = struct.unpack("<QQ", data)
        os.close(self.pipe)
        assert os.WIFSIGNALED(status), "the child ended by itself"
        return last


def numbers_in(p):
    """What the receiver has printed, between lines of the log."""
    return [int(x) for x in re.findall(r"^(\d+)\n", p.text[p.mark:], re.M)]


class Slots:
    """A driver's ring of which each entry takes one frame, whose number is the entry's position: what is in it is known from the ring
    alone, whoever wrote it."""

    def __init__(self, q):
        self.q = q

    def used(self, near):
        """The first number from `near` on that the device has not used; it is within 2^16 of it."""
        return after(near, self.q.ring.used_idx)

    def available(self, near):
        """The same of what was made available."""
        return after(near, self.q.ring.avail_idx)

    def put(self, k, at, length, flags=0):
        """Number k, unpublished."""
        self.q.ring.set_desc(k % SIZE, at, length, flags)
        self.q.add_raw(k % SIZE)

    def used_id(self, k):
        """What the device said that it used at k."""
        return self.q.ring.used_elem[2 * (k % SIZE)]

    def resume(self, available, used):
        """Let our view follow what the last child left: the first numbers that are not."""
        assert (available - used) & 0xffff == (self.q.ring.avail_idx - self.q.ring.used_idx) & 0xffff
        self.q.avail_next, self.q.last_used = available & 0xffff, used & 0xffff


class PackedSlots(Slots):
    """The same of a packed ring, of which no more than one lap is known from any place."""

    def _first(self, near, what):
        return next((k for k in range(near, near + SIZE) if what(k, self.q.ring.flags(k) & (AVAIL | USED))), near + SIZE)

    def used(self, near):
        # What was used may be on the way to its next lap: of a batch, all but the first is written at once.
        return self._first(near, lambda k, flags: flags in (avail_bits(k, SIZE), used_bits(k - SIZE, SIZE)))

    def available(self, near):
        return self._first(near, lambda k, flags: flags not in (avail_bits(k, SIZE), used_bits(k, SIZE)))

    def put(self, k, at, length, flags=0):
        assert self.q.avail_next == k
        self.q.add_raw(at, length, k % SIZE, flags)

    def used_id(self, k):
        return self.q.ring.get(k)[2]

    def resume(self, available, used):
        self.q.avail_next, self.q.last_used, self.q.batch = available, used, None


FEATURES = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
SLOTS = {"split": Slots, "packed": PackedSlots}
formats = pytest.mark.parametrize("fmt", FEATURES)


def down(p, deaths=0):
    """The program has seen so many peers end, and uses no rings any more. (That the link is down alone may be of before the last peer
    came, whose messages are still unread.)"""
    def seen():
        counters = stats(p.pid)["port"][0]["counters"]
        return counters["disconnects"] >= deaths and not counters["link"]
    until(seen, "the link's end")


@formats
def test_front_end_killed_while_it_sends(sock, fmt):
    with FrontEnd(sock, ring=SIZE, features=FEATURES[fmt]) as fe, program(RECEIVER, sock, "backend") as p:
        slots, area, n = SLOTS[fmt](fe.tx), fe.memory.alloc(SLOT * SIZE), 0

        def send(first, used, tell=lambda *_: None, limit=None):
            fe.start_like_qemu()
            k = first
            while limit is None or k < limit:
                used = slots.used(used)
                while k - used < SIZE and k != limit:
                    at = area + SLOT * (k % SIZE)
                    fe.memory.view(at, 108)[:] = bytes(48) + frame(k)
                    slots.put(k, at, 108)
                    k += 1
                    if k % 7 == 0:
                        fe.tx.publish()
                    if k % TOLD == 0:
                        fe.tx.publish()
                        tell(k, 0)
                fe.tx.publish()
        run, used = Cycles(p.pid), 0
        for cycle in run:
            child = Child(lambda tell, first=n, used=used: send(first, used, tell))
            goal = n + random.Random(cycle).randrange(100, 6000)
            while n < goal:
                n, _ = child.hear()
            n, _ = child.kill() or (n, 0)
            down(p, run.done + 1)
            n = slots.available(n)
            used = slots.used(max(n - SIZE, 0))
            slots.resume(n, used)
        send(n, used, limit=n + 1000)
        n += 1000
        until(lambda: len(numbers_in(p)) >= n, f"{n} frames")
        assert numbers_in(p) == list(range(n))
        run.note(frames=n)


@formats
def test_front_end_killed_while_it_receives(sock, fmt):
    with FrontEnd(sock, ring=SIZE, features=FEATURES[fmt]) as fe, program(SENDER, sock, "backend") as p:
        slots, area, n = SLOTS[fmt](fe.rx), fe.memory.alloc(SLOT * SIZE), 0

        def receive(first, posted):
            """Post the slots up to a whole ring behind `first`, little by little."""
            fe.start_like_qemu()
            used = first
            while True:
                used = slots.used(used)
                while posted < min(first + SIZE, used + 64):
                    slots.put(posted, area + SLOT * (posted % SIZE), SLOT, WRITE)
                    posted += 1
                    fe.rx.publish()
        run = Cycles(p.pid)
        for cycle in run:
            posted = slots.available(n)
            child = Child(lambda tell, a=n, b=posted: receive(a, b))
            goal = n + random.Random(cycle).randrange(50, SIZE)
            until(lambda: slots.used(n) >= goal, "frames")
            child.kill()
            down(p, run.done + 1)
            used = slots.used(n)
            slots.resume(slots.available(n), used)
            for k in range(n, used):
                assert slots.used_id(k) == k % SIZE
                assert number(fe.memory.view(area + SLOT * (k % SIZE) + 48, 60)) == k
            n = used
        assert n >= 50 * run.done
        run.note(frames=n)


@formats
@pytest.mark.parametrize("listen", [True, False], ids=["peer listens", "program listens"])
def test_back_end_killed_while_it_receives(sock, listen, fmt):
    """What the dead peer had not used comes again, first; what it had used does not."""
    where = f"{sock},ring=8192,format={fmt}" + ("" if listen else ",mode=listen")
    with BackEnd(sock, listen=listen, features=FEATURES[fmt]) as be, \
            program(SENDER, where, "frontend") as p:
        def receive(tell):
            be.wait_started()
            used, modulus = used_index(be.queue(1))
            k = number(be.recv().frame)
            tell(after(k, used, modulus), k)
            while True:
                k += 1
                assert number(be.recv().frame) == k
                if k % TOLD == 0:
                    tell(k, 0)
        expected = 0
        run = Cycles(p.pid, lambda: down(p))
        for cycle in run:
            child = Child(receive)
            used, first = child.hear()
            assert first == used and (not run.done or expected <= first <= expected + TOLD + 1)
            for _ in range(random.Random(cycle).randrange(1, 20)):
                expected, _ = child.hear()
            expected, _ = child.kill() or (expected, 0)
        be.wait_started()
        used, modulus = used_index(be.queue(1))
        assert number(be.recv().frame) == after(expected, used, modulus) <= expected + TOLD + 1
        assert p.running
        run.note(frames=after(expected, used, modulus))


@formats
def test_back_end_killed_while_it_sends(sock, fmt):
    with BackEnd(sock, listen=True, features=FEATURES[fmt]) as be, \
            program(RECEIVER, f"{sock},ring=8192,format={fmt}", "frontend") as p:
        def send(tell, n, count=None):
            be.wait_started()
            k = n = after(n, *used_index(be.queue(0)))
            tell(n, 0)
            while count is None or k < n + count:
                while wait_fds([be.channel], 0):  # a large ring lets send() wait for nothing
                    be.handle_message()
                be.send(frame(k))
                k += 1
                if k % TOLD == 0:
                    tell(k, 0)
        n = 0
        run = Cycles(p.pid, lambda: down(p))
        for cycle in run:
            child = Child(lambda tell, n=n: send(tell, n))
            n, _ = child.hear()
            for _ in range(random.Random(cycle).randrange(1, 20)):
                n, _ = child.hear()
            n, _ = child.kill() or (n, 0)
        told = []
        send(lambda k, _: told.append(k), n, 1000)
        n = told[0] + 1000
        until(lambda: len(numbers_in(p)) >= n, f"{n} frames")
        assert numbers_in(p) == list(range(n))
        run.note(frames=n)
