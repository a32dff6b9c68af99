# SPDX-License-Identifier: BSD-2-Clause
"""EPOLLEXCLUSIVE: of those asleep in epolls of their own, a frame wakes one; as Linux has it, on every transport.

Who sleeps ends either by the socket or by a pipe of its own: the pipes are written to once the frames have been answered, so what is
counted does not depend on how long anything takes.
"""
import pytest

from lab.proc import preload_order
from sockutil import PRELOAD, on_ports, same as same_here
from test_cancel import run as run_program
from test_two import PLACES, same

CROWD = """
EXCLUSIVE = select.EPOLLIN | select.EPOLLEXCLUSIVE

class Crowd:
    \"\"\"Threads asleep in epoll_wait: one for each epoll, which have the socket and a pipe each.\"\"\"
    def __init__(self, s, interests, threads_each=1):
        self.names, self.pipes, self.threads = {s.fileno(): "frame"}, [os.pipe() for _ in interests], []
        self.epolls = [select.epoll() for _ in interests]
        for e, (r, _), interest in zip(self.epolls, self.pipes, interests):
            e.register(s, interest)
            e.register(r, select.EPOLLIN)
            self.names[r] = "pipe"
        self.threads = [sleeping(e.poll, 60) for e in self.epolls for _ in range(threads_each)]

    def woken(self, n):
        \"\"\"Wait until n have returned.\"\"\"
        while sum(bool(t.got) for t in self.threads) < n:
            time.sleep(0.001)

    def end(self):
        \"\"\"How each wait ended.\"\"\"
        for _, w in self.pipes:
            os.write(w, b"x")
        ends = [sorted(self.names[f] for f, _ in t.result()) for t in self.threads]
        for r, w in self.pipes:
            os.close(r)
            os.close(w)
        return sorted(ends)

def drain(s):
    while not isinstance(attempt(s.recv, 100, MSG_DONTWAIT), str):
        pass

s = packet(A, proto=ETH_P_TEST)
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_frame_wakes_one(kernel, sockdir, place):
    same(kernel, place, sockdir, CROWD + """
far("a = packet(B, proto=0)")
for interest in (EXCLUSIVE, EXCLUSIVE | select.EPOLLET):
    crowd = Crowd(s, [interest] * 6)
    for i in range(5):
        far("a.send(frame(1))")
        crowd.woken(i + 1)
    say(crowd.end())
    drain(s)
    # what was read in between is nobody's turn
    for i in range(3):
        far("a.send(frame(i))", i=i)
        say(number(s.recv(100)))
        crowd = Crowd(s, [interest] * 4)
        far("a.send(frame(1))")
        crowd.woken(1)
        say(crowd.end())
        drain(s)
""")


@pytest.mark.parametrize("place", PLACES)
def test_each_frame_of_a_burst_wakes_one(kernel, sockdir, place):
    same(kernel, place, sockdir, CROWD + """
far("a = packet(B, proto=0)")
crowd = Crowd(s, [EXCLUSIVE] * 5)
say(far("sendmmsg(a, Messages([frame(i) for i in range(3)]))"))
crowd.woken(3)
say(crowd.end())
""")


@pytest.mark.parametrize("place", PLACES)
def test_who_is_not_exclusive_wakes_each_time(kernel, sockdir, place):
    same(kernel, place, sockdir, CROWD + """
far("a = packet(B, proto=0)")
t = sleeping(ready, s, select.POLLIN, 60000)
crowd = Crowd(s, [EXCLUSIVE, select.EPOLLIN, EXCLUSIVE, select.EPOLLIN | select.EPOLLET, EXCLUSIVE])
far("a.send(frame(1))")
crowd.woken(3)
say(t.result())
say(crowd.end())
""")


def test_threads_in_one_epoll(kernel):
    """As Linux has it: level-triggered, one after the other while the frame is there; edge-triggered, one. Exclusive or not."""
    same_here(kernel, CROWD + """
a = packet(B, proto=0)
for flags in (0, select.EPOLLEXCLUSIVE):
    crowd = Crowd(s, [select.EPOLLIN | flags], 4)
    a.send(frame(1))
    crowd.woken(4)
    say(crowd.end())
    drain(s)
    crowd = Crowd(s, [select.EPOLLIN | select.EPOLLET | flags], 4)
    a.send(frame(1))
    crowd.woken(1)
    say(crowd.end().count(["frame"]))
    drain(s)
""")


def test_who_comes_later_sees_what_is_there():
    """More than Linux does: there, only the epoll that was told knows."""
    out = on_ports(CROWD + """
a = packet(B, proto=0)
for alone in (True, False):
    taps = [] if alone else [packet(A, proto=OTHER)]
    crowd = Crowd(s, [EXCLUSIVE] * 3)
    a.send(frame(1))
    crowd.woken(1)
    say(crowd.end().count(["frame"]), [len(e.poll(0)) for e in crowd.epolls], [len(e.poll(60)) for e in crowd.epolls])
    other = select.epoll()
    t = sleeping(other.poll, 60)
    other.register(s, EXCLUSIVE)
    say(len(t.result()))
    s.recv(100)
    say([len(e.poll(0)) for e in crowd.epolls])
""")
    assert out == 2 * "1 [1, 1, 1] [1, 1, 1]\n1\n[0, 0, 0]\n"


def test_room_wakes_one():
    out = on_ports(CROWD + """
a = packet(B, proto=ETH_P_TEST)
for flags in (0, select.EPOLLET):
    while not isinstance(attempt(s.send, frame(1), MSG_DONTWAIT), str):
        pass
    crowd = Crowd(s, [select.EPOLLOUT | select.EPOLLEXCLUSIVE | flags] * 4)
    drain(a)
    crowd.woken(1)
    say(crowd.end())
""")
    assert out == 2 * "[['frame'], ['pipe'], ['pipe'], ['pipe']]\n"


def test_two_sockets_of_one_port_have_their_own_turns(kernel):
    same_here(kernel, CROWD + """
a, other = packet(B, proto=0), packet(A, proto=OTHER)
for both in range(2):
    mine, theirs = Crowd(s, [EXCLUSIVE] * 3), Crowd(other, [EXCLUSIVE] * 3)
    a.send(frame(1, proto=OTHER))
    theirs.woken(1)
    if both:
        a.send(frame(1))
        mine.woken(1)
    say(mine.end(), theirs.end())
    drain(s)
    drain(other)
""")


def test_what_is_refused(kernel):
    same_here(kernel, CROWD + """
e, inner = select.epoll(), select.epoll()
inner.register(s, select.EPOLLIN)
X = select.EPOLLEXCLUSIVE
say(attempt(e.register, inner, EXCLUSIVE), attempt(inner.register, e, EXCLUSIVE), attempt(e.modify, s, EXCLUSIVE))
names = "IN OUT PRI ERR HUP ET ONESHOT RDHUP RDNORM RDBAND WRNORM WRBAND MSG WAKEUP"
for name in names.split():
    bit = getattr(select, "EPOLL" + name, 1 << 29)
    say(name, attempt(e.register, s, X | bit), attempt(e.register, s, X | bit), attempt(e.register, s, X), attempt(e.modify, s, X | bit),
        attempt(e.modify, s, bit), attempt(e.unregister, s))
say(attempt(e.register, s, 1), attempt(e.register, s, EXCLUSIVE), attempt(e.modify, s, EXCLUSIVE), attempt(e.modify, s, 1))
""")


@pytest.mark.skipif(len(preload_order(PRELOAD)) > 1, reason="a sanitizer takes the stack that a cancelled thread leaves for an error")
def test_who_is_cancelled_takes_no_frame_along(tmp_path):
    assert run_program(tmp_path, "exclusive") == (["cancelled 1", "interrupted 1", "timed out 1", "taken out 1"], 0, "")
