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
from lab.packedring import PackedDeviceQueue
from lab.ring import wait_fds
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


def resume(q):
    """Let our view of a queue follow what the last child left in the ring."""
    q.avail_next, q.last_used = q.ring.avail_idx, q.ring.used_idx


def down(p):
    until(lambda: not stats(p.pid)["port"][0]["counters"]["link"], "the link's end")


def test_front_end_killed_while_it_sends(sock):
    with FrontEnd(sock, ring=SIZE) as fe, program(RECEIVER, sock, "backend") as p:
        q, area, n = fe.tx, fe.memory.alloc(SLOT * SIZE), 0

        def send(first, limit=None):
            fe.start_like_qemu()
            k = first
            while limit is None or k < limit:
                while (q.avail_next - q.ring.used_idx) & 0xffff < SIZE and k != limit:
                    at = area + SLOT * (k % SIZE)
                    fe.memory.view(at, 108)[:] = bytes(48) + frame(k)
                    q.ring.set_desc(k % SIZE, at, 108)
                    q.add_raw(k % SIZE)
                    k += 1
                    if k % 7 == 0:
                        q.publish()
                q.publish()
        run = Cycles(p.pid)
        for cycle in run:
            first = n
            child = Child(lambda tell, first=first: send(first))
            goal = first + random.Random(cycle).randrange(100, 6000)
            until(lambda: after(first, q.ring.used_idx) >= goal, "frames to be taken")
            child.kill()
            down(p)
            resume(q)
            n = after(first, q.avail_next)
        send(n, n + 1000)
        n += 1000
        until(lambda: len(numbers_in(p)) >= n, f"{n} frames")
        assert numbers_in(p) == list(range(n))
        run.note(frames=n)


def test_front_end_killed_while_it_receives(sock):
    with FrontEnd(sock, ring=SIZE) as fe, program(SENDER, sock, "backend") as p:
        q, area, n = fe.rx, fe.memory.alloc(SLOT * SIZE), 0

        def receive(first, posted):
            """Post the slots up to a whole ring behind `first`, little by little."""
            fe.start_like_qemu()
            while True:
                while posted < first + SIZE and posted < after(first, q.ring.used_idx) + 64:
                    q.ring.set_desc(posted % SIZE, area + SLOT * (posted % SIZE), SLOT, 2)
                    q.add_raw(posted % SIZE)
                    posted += 1
                    q.publish()
        run = Cycles(p.pid)
        for cycle in run:
            posted = after(n, q.ring.avail_idx)
            child = Child(lambda tell, a=n, b=posted: receive(a, b))
            goal = n + random.Random(cycle).randrange(50, SIZE)
            until(lambda: after(n, q.ring.used_idx) >= goal, "frames")
            child.kill()
            down(p)
            resume(q)
            for k in range(n, after(n, q.last_used)):
                assert q.ring.used_elem[2 * (k % SIZE)] == k % SIZE
                assert number(fe.memory.view(area + SLOT * (k % SIZE) + 48, 60)) == k
            n = after(n, q.last_used)
        assert n >= 50 * run.done
        run.note(frames=n)


FEATURES = {"split": BASIC, "packed": BASIC | F.RING_PACKED}


@pytest.mark.parametrize("fmt", FEATURES)
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


@pytest.mark.parametrize("fmt", FEATURES)
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
