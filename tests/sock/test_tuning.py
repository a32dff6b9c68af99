# SPDX-License-Identifier: BSD-2-Clause
"""Settings of buffers and polling, by what they change: PALLADIUM_TX_BUFS, PALLADIUM_CQ_POLL_BATCH_MAX and
PALLADIUM_RX_CQ_DRAIN_RATE_NSEC."""
import contextlib
import os
import struct
import subprocess

import pytest

from hostile.victim import stats, until
from lab.frames import numbered
from lab.vhostpeer import BASIC, F, FrontEnd
from sockutil import LIMIT, environment, on_ports, program


# --- TX_BUFS -----------------------------------------------------------------------------------

WATCHED = """
a, b, watcher = packet(A), packet(B), packet(A)
watcher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
for i in range(300):
    a.send(frame(i, 100))
watcher.setblocking(False)
seen = []
while isinstance(got := attempt(watcher.recv, 2000), bytes):
    seen.append(number(got))
say(seen == list(range(len(seen))), len(seen))
"""


@pytest.mark.parametrize("bufs, rx_bufs, seen", [(64, 16384, 64), (200, 16384, 200), (4096, 64, 300)])
def test_frames_that_others_see_sent_have_buffers_of_their_own(bufs, rx_bufs, seen):
    """As many as TX_BUFS wait, whatever RX_BUFS is."""
    out = on_ports(WATCHED, "pd0=loop:pd1,ring=512", PALLADIUM_TX_BUFS=bufs, PALLADIUM_RX_BUFS=rx_bufs)
    assert out == f"True {seen}\n"


def test_what_is_sent_takes_nothing_from_what_is_received():
    """The queue of one that watches a sender holds all buffers of its kind; two others receive as ever."""
    out = on_ports("slow = packet(A)\nslow.setsockopt(SOL_PACKET, 23, 1)  # PACKET_IGNORE_OUTGOING\n" +
                   WATCHED.split("watcher.setblocking")[0] + """
for i in range(60):
    b.send(frame(i, 100))
    a.recv(2000)
slow.setblocking(False)
say([number(slow.recv(2000)) for i in range(60)] == list(range(60)))
""", "pd0=loop:pd1,ring=512", PALLADIUM_TX_BUFS=64, PALLADIUM_RX_BUFS=128)
    assert out == "True\n"


# --- with a peer that counts -------------------------------------------------------------------

class Shared:
    """A program on a port, and a peer that sends to it and sees what it has taken."""

    def __init__(self, fe, proc):
        self.fe, self.proc = fe, proc

    def send(self, count):
        for n in range(count):
            self.fe.send(numbered(n, 60), publish=False)
        self.fe.tx.publish()

    def do(self, what):
        """Have the program evaluate something; what comes out."""
        self.proc.stdin.write(what + "\n")
        return self.proc.stdout.readline().strip()

    def calls(self):
        """How often the program has notified us of frames it took, since the last time."""
        try:
            return struct.unpack("Q", os.read(self.fe.tx.call_fd, 8))[0]
        except BlockingIOError:
            return 0

    def taken(self):
        """How many frames have left the ring, since the last time."""
        return len(self.fe.sent())


@contextlib.contextmanager
def shared(sockdir, body, **env):
    """A program that runs a body and then does as it is told."""
    path = sockdir / "port.sock"
    with FrontEnd(path, features=BASIC & ~F.EVENT_IDX, ring=128) as fe:
        with subprocess.Popen(
                program(body + "\nsay('ready')\nfor line in sys.stdin: say(eval(line))"), text=True,
                env=environment(f"pd0=vhost-user:{path}", **env), stdin=subprocess.PIPE, bufsize=1,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE) as proc:
            try:
                fe.start_like_qemu()
                assert proc.stdout.readline() == "ready\n"
                until(lambda: stats(proc.pid)["port"][0]["counters"]["link"], "the link")  # it rings as it comes up
                os.set_blocking(fe.tx.call_fd, False)
                yield Shared(fe, proc)
                proc.stdin.close()
                assert proc.wait(LIMIT) == 0, proc.stderr.read()
            finally:
                proc.kill()


ONE = """
s = packet(A)
s.setblocking(False)
m = Messages([100] * 64)
def take():
    while recvmmsg(s, m) == "EAGAIN":
        time.sleep(0.001)
    return [int.from_bytes(m.data(i)[14:18], "big") for i in range(64)] and \\
        sum(m.array[i].len > 0 for i in range(64))
"""

@pytest.mark.parametrize("sockets", [1, 2])
@pytest.mark.parametrize("batch, calls", [(None, 1), (64, 1), (16, 4), (5, 13), (1, 64)])
def test_a_batch_is_handed_back_before_the_next_is_taken(sockdir, sockets, batch, calls):
    """One recvmmsg gets all there is, and the peer its buffers in batches."""
    extra = {} if batch is None else {"PALLADIUM_CQ_POLL_BATCH_MAX": batch}
    with shared(sockdir, ONE + "other = packet(A)\n" * (sockets - 1), **extra) as p:
        p.do("attempt(s.recv, 100)")
        p.send(64)
        p.calls()
        assert p.do("take()") == "64"
        assert (p.calls(), p.taken()) == (calls, 64)


SHARING = """
a, b = packet(A), packet(A)
def read(s):
    return len(attempt(s.recv, 100, MSG_DONTWAIT))
"""


@pytest.mark.parametrize("rate, left", [(None, 9), ("1", 0)])
def test_a_ring_is_drained_although_frames_wait(sockdir, rate, left):
    """One socket reads one frame, so the other has one in its queue; reading that looks at the ring too
    when it is time."""
    extra = {} if rate is None else {"PALLADIUM_RX_CQ_DRAIN_RATE_NSEC": rate}
    with shared(sockdir, SHARING, **extra) as p:
        p.send(10)
        while p.do("attempt(a.recv, 100, MSG_DONTWAIT)") == "EAGAIN":
            pass
        assert p.taken() == 1
        assert p.do("read(b)") == "60"
        assert p.taken() == 9 - left
        assert p.do("[read(s) for s in (a, b) * 9] == [60] * 18") == "True"
