# SPDX-License-Identifier: BSD-2-Clause
"""Frames through a driver's ends of rings, whoever brought the rings up: a scripted front-end (frontend.py),
or QEMU, whose registers a test programs (qtest.py)."""
import struct
import time

from .peer import RX, TX, Packet, num_buffers_offset
from .ring import drain_eventfd, fence, wait_fds
from .wire import F, PeerTimeout

# What stands behind each receive buffer.
GUARD = b"\xa5"


class Driver:
    """Who uses it has memory, queues (the driver's ends: receive, transmit, receive...), pairs, hdr (the
    header's length), features, timeout, and calls reset_rings() once."""

    @property
    def rx(self):
        """The first receive queue."""
        return self.queues[RX]

    @property
    def tx(self):
        """The first transmit queue."""
        return self.queues[TX]

    def reset_rings(self):
        """A new driver: empty rings; what was posted is forgotten."""
        for q in self.queues:
            q.reset()
        self.rx_spec = {}
        self.pending = {}

    def send(self, frame, header=None, split=(), queue=0, indirect=False, publish=True):
        """Queue one frame on transmit queue `queue` and publish it; returns the chain's head.

        header: bytes, zeroes when None. split: lengths of the first descriptors over header and
        frame together, the rest in one more (a 0 makes a descriptor of length 0). frame b"" sends
        a control-only chain of exactly hdr bytes. publish=False leaves the chain for a burst.
        """
        q = self.queues[2 * queue + TX]
        data = (bytes(self.hdr) if header is None else header) + frame
        sizes, at = [], 0
        for n in split:
            n = min(n, len(data) - at)
            sizes.append(n)
            at += n
        if at < len(data) or not sizes:
            sizes.append(len(data) - at)
        if not q.can_add(len(sizes), indirect):
            self.wait_sent(queue=queue, count=0)
        segs, owned, at = [], [], 0
        for n in sizes:
            gpa, room = self._buffer(n)
            self.memory.view(gpa, n)[:] = data[at:at + n]
            segs.append((gpa, n, False))
            owned.append((gpa, room))
            at += n
        head = q.add(segs, indirect, owned)
        if publish:
            q.publish()
        return head

    def _buffer(self, length):
        """An allocation for a descriptor, in sizes that are few; not contiguous with others."""
        room = (length // 64 + 1) * 64
        return self.memory.alloc(room), room

    def sent(self, queue=0):
        """Reap completed transmissions; the list of Used. Their used length must be 0 or ignored
        by the caller, who may check it."""
        q = self.queues[2 * queue + TX]
        done = q.reap()
        q.recycle(done)
        return done

    def wait_sent(self, count=None, queue=0, timeout=None):
        """Wait until `count` transmissions completed (None: all; 0: at least one)."""
        q = self.queues[2 * queue + TX]
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        done = []
        while (q.chains if count is None else len(done) < max(count, 1)):
            got = q.wait_used(deadline - time.monotonic())
            q.recycle(got)
            done += got
        return done

    def post_rx(self, buffers, queue=0, indirect=False, refill=True):
        """Make receive buffers available.

        buffers: one entry per chain, a length or a tuple of lengths (one descriptor each).
        refill: post the same again when recv() has emptied one.
        """
        q = self.queues[2 * queue + RX]
        for spec in buffers:
            lengths = (spec,) if isinstance(spec, int) else tuple(spec)
            segs, owned = [], []
            for n in lengths:
                gpa, room = self._buffer(n)
                self.memory.view(gpa + n, room - n)[:] = GUARD * (room - n)
                segs.append((gpa, n, True))
                owned.append((gpa, room))
            head = q.add(segs, indirect, owned)
            self.rx_spec[queue, head] = (spec, indirect) if refill else None
        q.publish()

    def recv_used(self, count=1, queue=0, timeout=None):
        """Wait for `count` completed receive chains without reading a header; list of Used.
        The caller gives them back by done_rx()."""
        q = self.queues[2 * queue + RX]
        pending = self.pending.setdefault(queue, [])
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while len(pending) < count:
            pending += q.wait_used(deadline - time.monotonic())
        taken, pending[:count] = pending[:count], []
        return taken

    def recv_any(self, timeout=None):
        """Receive one frame from whichever queue has one: (queue, packet)."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            for queue in range(self.pairs):
                q = self.queues[2 * queue + RX]
                if self.pending.get(queue) or q.completed():
                    return queue, self.recv(deadline - time.monotonic(), queue)
                q.suppress_calls(False)
            fence()
            rings = self.queues[RX::2]
            if any(q.completed() for q in rings):
                continue
            ready = wait_fds([q.call_fd for q in rings], deadline - time.monotonic())
            if not ready:
                raise PeerTimeout("no frame on any queue")
            for fd in ready:
                drain_eventfd(fd)

    def done_rx(self, used, queue=0):
        """Recycle receive chains, posting those again that were posted with refill."""
        q = self.queues[2 * queue + RX]
        for u in used:
            for (gpa, n, _), (_, room) in zip(u.chain.segs, u.chain.owned):
                if bytes(self.memory.view(gpa + n, room - n)) != GUARD * (room - n):
                    raise AssertionError(f"bytes behind a buffer of {n} were written")
        q.recycle(used)
        for u in used:
            again = self.rx_spec.pop((queue, u.head), None)
            if again:
                self.post_rx([again[0]], queue, again[1])

    def recv(self, timeout=None, queue=0):
        """Receive one frame, over as many chains as its header's count of buffers says."""
        used = self.recv_used(1, queue, timeout)
        offset = num_buffers_offset(self.hdr)
        data = used[0].chain.data(self.memory, used[0].len)
        if self.features & F.MRG_RXBUF and offset is not None:
            while len(data) < offset + 2:
                used += self.recv_used(1, queue, timeout)
                data += used[-1].chain.data(self.memory, used[-1].len)
            count = struct.unpack_from("<H", data, offset)[0]
            if count < len(used):
                raise AssertionError(f"count of buffers {count}, header in {len(used)}")
            if count > len(used):
                more = self.recv_used(count - len(used), queue, timeout)
                data += b"".join(u.chain.data(self.memory, u.len) for u in more)
                used += more
        total = sum(u.len for u in used)
        if len(data) != total:
            raise AssertionError(f"used lengths say {total} bytes, buffers hold {len(data)}")
        packet = Packet(data[:self.hdr], data[self.hdr:], used)
        self.done_rx(used, queue)
        return packet
