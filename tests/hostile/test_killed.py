# SPDX-License-Identifier: BSD-2-Clause
"""kill -9 of the program under the library in mid-burst, again and again, in each role and direction: no frame that was acknowledged
is lost, and none comes twice.

Acknowledged are: to a peer that sends, frames whose used element was published; to a program, those for which send has returned. One frame at a
time is between the two: a receiver that is killed when recv has taken it and the next instruction of the program has not yet written it
down. It is counted, and at most one a death. How many deaths: see cycles.py.
"""
import json
import os
import random

import pytest

from lab.inflight import Keeper
from lab.peer import BASIC
from lab.proc import Proc, build, preload_env
from lab.vhostpeer import BackEnd, F
from interop.port import Echo
from hostile.cycles import Cycles
from hostile.test_kill import RECEIVER, START, frame, number, numbers_in
from hostile.victim import stats, until

pytestmark = pytest.mark.usefixtures("small_pages")
SIZE = 256
FEATURES = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
formats = pytest.mark.parametrize("fmt", FEATURES)
# Says each number when send has returned.
SENDER = START + """
n = 0
while True:
    try:
        s.send(bytes(12) + b"\\x88\\xb5" + struct.pack("!I", n) + bytes(42))
        os.write(1, b"%d\\n" % n)
        n += 1
    except OSError as e:
        if e.errno != errno.ENETDOWN:
            raise
        time.sleep(0.001)
"""


def program(code, sock, role, fmt):
    p = Proc(["/usr/bin/python3", "-c", code],
             env=preload_env(f"pd0=vhost-user:{sock},role={role},ring={SIZE},format={fmt}"))
    p.expect("ready\n")
    return p


def kill(p):
    """kill -9, and what it had said by then; its numbers run on without a gap."""
    os.kill(p.pid, 9)
    p.wait()
    said = numbers_in(p)
    if said:
        assert said == list(range(said[0], said[0] + len(said)))
    return said


@formats
def test_back_end_killed_while_it_receives(sock, fmt):
    """Its successor begins with the first frame that was not published as used: in-flight memory says where, on packed rings too."""
    unsaid = 0
    with Keeper(sock, features=FEATURES[fmt], ring=SIZE) as fe:
        sent = used = expected = 0
        run = Cycles()
        for cycle in run:
            with program(RECEIVER, sock, "backend", fmt) as p:
                fe.start_like_qemu()
                goal = random.Random(cycle).randrange(1, 2000)
                while len(numbers_in(p)) < goal:
                    while fe.tx.can_add(1):
                        fe.send(frame(sent), publish=sent % 7 == 0)
                        sent += 1
                    fe.tx.publish()
                    used += len(fe.sent())
                said = kill(p)
            used += len(fe.sent())
            fe.drop()
            assert said[0] == expected
            assert used - said[-1] - 1 in (0, 1)
            unsaid += used - said[-1] - 1
            expected = used
    run.note(frames=used, in_hand=unsaid)


def sends_and_dies(p, cycle, receive, left):
    """A sender is killed after some frames. receive() gives the next one, left() one that it left behind, or None: together they are all
    that send has returned for, each once and in order, and at most one more. Returns how many there were."""
    n = random.Random(cycle).randrange(1, 800)
    for i in range(n):
        assert number(receive()) == i
    said = kill(p)
    while (data := left()) is not None:
        assert number(data) == n
        n += 1
    assert said == list(range(len(said))) and len(said) <= n <= len(said) + 1
    return n


@formats
def test_back_end_killed_while_it_sends(sock, fmt):
    """What send has returned for is in the ring; the successor goes on in it, behind that."""
    with Keeper(sock, features=FEATURES[fmt], ring=SIZE) as fe:
        fe.post_rx([2048] * (SIZE - 8))
        run, n = Cycles(), 0
        for cycle in run:
            with program(SENDER, sock, "backend", fmt) as p:
                fe.start_like_qemu()
                n += sends_and_dies(p, cycle, lambda: fe.recv().frame,
                                    lambda: fe.recv().frame if fe.rx.completed() or fe.pending.get(0) else None)
            fe.drop()
        run.note(frames=n)


@formats
def test_front_end_killed_while_it_sends(sock, fmt):
    """The memory lives as long as the back-end has it: all that send has returned for is there, once."""
    with BackEnd(sock, listen=True, features=FEATURES[fmt]) as be:
        run, n = Cycles(), 0
        for cycle in run:
            with program(SENDER, sock, "frontend", fmt) as p:
                be.wait_started()
                q = be.queue(1)
                n += sends_and_dies(p, cycle, lambda: be.recv().frame,
                                    lambda: q.read(popped)[48:] if (popped := q.pop()) else None)
            be.drop()
        run.note(frames=n)


@formats
def test_front_end_killed_while_it_receives(sock, fmt):
    """Each gets frames from the first one that the back-end gives it on, without a gap."""
    with BackEnd(sock, listen=True, features=FEATURES[fmt]) as be:
        n = 0
        run = Cycles()
        for cycle in run:
            with program(RECEIVER, sock, "frontend", fmt) as p:
                be.wait_started()
                first, goal = n, random.Random(cycle).randrange(1, 800)
                while len(numbers_in(p)) < goal:
                    be.send(frame(n))
                    n += 1
                said = kill(p)
            be.drop()
            assert said[0] == first and said[-1] < n
        run.note(frames=n)


def echoed(p):
    """Frames that a program has sent back."""
    return stats(p.pid)["lane"][0]["counters"]["tx_frames"]


@formats
def test_echo_killed_under_the_tester(sock, fmt):
    """palladium_vlm, ours at both ends, over all deaths of the program that sends its frames back: nothing but what was in the program's hands
    is missing or comes twice."""
    args = [build("palladium_vlm"), "--socket", sock, "--json", "--format", fmt, "--duration", 3600, "--expect", "echo", "--loss-after", 2,
            "--tolerate-restart", "--timeout", 60, "--check", "header"]
    with Proc(args) as tester:
        run = Cycles(tester.pid)
        for cycle in run:
            with Echo(sock, format=fmt) as p:
                if not cycle:
                    tester.expect("sending")
                want = random.Random(cycle).randrange(100, 20000)
                until(lambda: p.running and echoed(p) >= want, "frames to be sent back", 30)
                os.kill(p.pid, 9)
                p.wait()
        with Echo(sock, format=fmt) as p:
            until(lambda: echoed(p) >= 1000, "frames to be sent back", 30)
            tester.popen.terminate()
            assert tester.wait(60) == 0, tester.text[-2000:]
    result = json.loads([line for line in tester.text.splitlines() if line.startswith("{")][-1])
    assert result["restarts"] == run.done and not result.get("lost", 0)
    assert result["restart_lost"] <= 64 * run.done and result["restart_repeated"] <= 64 * run.done
    run.note(**{k: v for k, v in result.items() if "restart" in k or k in ("sent", "returned", "lost")})
