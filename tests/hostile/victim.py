# SPDX-License-Identifier: BSD-2-Clause
"""What every hostile test does: a program under the preload echoes on pd0, a peer misbehaves, and
afterwards the program lives, has leaked no descriptor, and serves a well-behaved peer."""
import contextlib
import json
import os
import re
import signal
import threading
import time

from lab import avip
from lab.frames import check, numbered
from lab.proc import build, run, scale
from interop.port import Echo


def stats(pid):
    """The counters of a process, as palladium_stats prints them."""
    code, text = run([build("palladium_stats"), "-p", pid, "--json", "-c", "1"])
    assert code == 0, text
    return json.loads(text)


def until(predicate, what, timeout=10.0):
    """Wait for something that gives no event of its own; returns its value."""
    deadline = time.monotonic() + scale(timeout)
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def beside(work):
    """Have a thread do something over and over meanwhile."""
    stop = threading.Event()

    def run():
        while not stop.is_set():
            work()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Watched:
    """What is asked of a process (Proc) whose port pd0 is attacked."""

    def port(self):
        """Port pd0 as palladium_stats shows it."""
        return stats(self.pid)["port"][0]

    def lane(self):
        """The counters of its first queue pair."""
        return stats(self.pid)["lane"][0]["counters"]

    def errors(self):
        """How often a peer broke the protocol."""
        return self.port()["counters"]["protocol_errors"]

    def fds(self):
        """How many descriptors it has. Its first sleep makes one: that is waited for."""
        until(lambda: self.lane()["rx_arms"], "its first sleep")
        return self._fds()

    def _fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def refused(self, reason, errors=1, pattern=False):
        """Wait until the port is down for this reason (pattern: a regular expression), counted as a fault."""
        def down():
            p = self.port()
            return p if p["counters"]["protocol_errors"] >= errors else None
        p = until(down, f"a protocol error ({reason})")
        assert p["state"] != "up"
        assert p["counters"]["link"] == 0
        assert re.search(reason if pattern else re.escape(reason), p["reason"]), p["reason"]

    def _states(self):
        """Those of its threads, as /proc has them."""
        states = set()
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                    open(f"/proc/{self.pid}/task/{task}/stat", encoding="utf-8", errors="replace") as f:
                states.add(f.read().rsplit(")", 1)[1].split()[0])
        return states

    @contextlib.contextmanager
    def stopped(self):
        """None of its threads runs meanwhile."""
        self.signal(signal.SIGSTOP)
        until(lambda: self._states() == {"T"}, "the end of every thread's turn")
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def settled(self, fds):
        """Wait until it has as many descriptors as before."""
        until(lambda: self._fds() == fds, f"{fds} descriptors (there were {self._fds()})")


class Victim(Watched, Echo):
    """The program; it connects unless mode="listen". Whatever was done to it, it ends in order when it is asked to; under AddressSanitizer
    that says that no block of memory was lost."""

    def __exit__(self, failed, *exc):
        if not failed and self.running:
            self.terminate()
            code = self.wait()
            assert code == 0, f"status {code}; it said:\n{self.tail()}"
        super().__exit__(failed, *exc)


def serves(fe, first=0, count=20):
    """A new driver in the same place: frames go to and fro with their sidecars."""
    if not fe.channel:
        fe.reset_rings()
        fe.start_like_qemu()
        fe.get_features()  # what was said is done
        fe.post_rx([2048] * 32)
    echoes(fe, first, count)


def refuses_buffers(fe, program, post, reason="ring 0"):
    """Receive buffers that `post` makes available on new rings are no ring to send into, so the port is down for this reason, not stuck; what
    the program had to send goes to the next peer."""
    fe.start_like_qemu()
    post()
    fe.send(numbered(1, 60), avip.distinct(1))
    assert fe.channel.closed_by_peer()
    program.refused(reason)
    fe.new_driver()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)
    assert check(fe.recv().frame) == 1
    serves(fe)
    assert program.running


def caught_up(fe):
    """What the program owes of earlier frames has come, and the next is the first of new ones."""
    last = numbered(1 << 20, 60)
    fe.send(last)
    while fe.recv().frame != last:
        pass
    fe.wait_sent()


def echoes(fe, first=0, count=20):
    """Frames go to and fro on a link that is up."""
    for n in range(first, first + count):
        fe.send(numbered(n, 60 + n % 1000), avip.distinct(n))
        pkt = fe.recv()
        assert check(pkt.frame) == n and pkt.header == avip.distinct(n, mrg=len(pkt.used))
    fe.wait_sent()


def returns(be, first=0, count=20):
    """The same from a scripted back-end."""
    for n in range(first, first + count):
        be.send(numbered(n, 60 + n % 1000), avip.distinct(n))
        pkt = be.recv()
        assert check(pkt.frame) == n and pkt.header[3:] == avip.distinct(n)[3:]


def next_is_served(be, program, fds):
    """The device goes, and the next on its path gets what the program may still owe, and frames to and fro; the program's descriptors
    are `fds` again."""
    be.drop()
    be.wait_started()
    be.send(numbered(1 << 20, 60))
    while be.recv().frame != numbered(1 << 20, 60):
        pass
    returns(be, 100)
    program.settled(fds)
    assert program.running


def next_driver_is_served(fe, program, fds):
    """The same of the program's peer in the other role."""
    fe.new_driver()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)
    caught_up(fe)
    echoes(fe, 1000)
    program.settled(fds)
    assert program.running
