# SPDX-License-Identifier: BSD-2-Clause
"""The back-end of the scripted peers: it maps the memory and has the device's end of the rings.
See vhostpeer.py."""
import contextlib
import os
import struct
import threading
import time

from .peer import BASIC, RX, TX, Packet, Peer, num_buffers_offset, put_num_buffers
from .packedring import PackedDeviceQueue
from .ring import AddressMap, DeviceQueue, Region, drain_eventfd, fence, wait_fds
from .wire import (NEED_REPLY, NO_FD, REPLY, VERSION, F, P, PeerClosed, PeerTimeout, Req, close_fds,
                   u64, vring_state)


class _VringState:
    """What a back-end knows of one ring."""

    def __init__(self):
        self.num = self.base = 0
        self.addr = None
        self.kick = self.call = self.err = None
        self.enabled = False
        self.queue = None

    def close(self):
        """Forget the ring."""
        close_fds(fd for fd in (self.kick, self.call, self.err) if fd is not None)
        self.__init__()


class _Stopped(Exception):
    """The thread was told to end."""


class BackEnd(Peer):
    """The device: maps the front-end's memory.

    features and protocol are what is offered. mrg=False and so on: leave the bit out of features.
    refuse[req] = code overrides the answer to a message that asks for one (default 0);
    instead[req] = function(back_end, msg) is called in place of everything else; beside[req] are descriptors that go with the answer.
    """

    def __init__(self, path, listen=False, hdr=48, features=BASIC | F.MQ,
                 protocol=P.MQ | P.REPLY_ACK | P.STATUS, max_pairs=8, timeout=10.0):
        super().__init__(path, listen, hdr, timeout)
        self.offer, self.offer_protocol, self.max_pairs = features, protocol, max_pairs
        self.refuse, self.instead, self.beside = {}, {}, {}
        self.memory = AddressMap()
        self.rings = {}
        self._forget()
        self.thread = self.stop_fd = None

    def _forget(self):
        for r in self.rings.values():
            r.close()
        self.rings, self.memory = {}, AddressMap()
        self.features = self.protocol = self.status = 0
        self.negotiated = False
        self.backend_fd = None

    def connect(self, timeout=None):
        """See Peer.connect(); nothing of an earlier connection is kept."""
        self._forget()
        return super().connect(timeout)

    def close(self):
        """Stop the thread if there is one and close everything."""
        self.stop_thread()
        super().close()
        self._forget()

    # --- messages ------------------------------------------------------------------------------

    def handle_message(self, timeout=None):
        """Receive one message, act on it and answer as the specification says; returns it."""
        msg = self.channel.recv(timeout)
        if msg.req in self.instead:
            close_fds(msg.fds)
            self.instead[msg.req](self, msg)
            return msg
        name = Req(msg.req).name
        result = getattr(self, "_on_" + name.lower(), self._on_other)(msg)
        if isinstance(result, bytes):
            self.channel.send(msg.req, result, self.beside.get(msg.req, ()), flags=VERSION | REPLY)
        elif msg.flags & NEED_REPLY and self.protocol & P.REPLY_ACK:
            code = self.refuse.get(msg.req, 0)
            self.channel.send(msg.req, u64(code), self.beside.get(msg.req, ()), flags=VERSION | REPLY)
        return msg

    def _ring(self, index):
        if index not in self.rings:
            self.rings[index] = _VringState()
            self.rings[index].enabled = self.negotiated and not self.features & F.PROTOCOL
        return self.rings[index]

    def _on_other(self, msg):
        close_fds(msg.fds)

    def _on_get_features(self, _):
        return u64(self.offer | (F.PROTOCOL if self.offer_protocol else 0))

    def _on_set_features(self, msg):
        self.features, self.negotiated = msg.u64, True
        for r in self.rings.values():
            r.enabled = r.enabled or not self.features & F.PROTOCOL

    def _on_get_protocol_features(self, _):
        return u64(self.offer_protocol)

    def _on_set_protocol_features(self, msg):
        self.protocol = msg.u64

    def _on_get_queue_num(self, _):
        return u64(self.max_pairs)

    def _on_get_max_mem_slots(self, _):
        return u64(8)

    def _on_get_inflight_fd(self, _):
        return bytes(24)  # it has none after all

    def _on_get_status(self, _):
        return u64(self.status)

    def _on_set_status(self, msg):
        self.status = msg.u64

    def _on_set_backend_req_fd(self, msg):
        self.backend_fd = msg.fds[0]

    def _on_set_mem_table(self, msg):
        count = struct.unpack_from("<I", msg.payload)[0]
        self.memory = AddressMap()
        for i in range(count):
            gpa, size, uva, offset = struct.unpack_from("<QQQQ", msg.payload, 8 + 32 * i)
            self.memory.regions.append(Region(gpa, size, uva, msg.fds[i], offset))
        close_fds(msg.fds)
        self._rebuild()

    def _on_add_mem_reg(self, msg):
        _, gpa, size, uva, offset = struct.unpack("<QQQQQ", msg.payload)
        self.memory.regions.append(Region(gpa, size, uva, msg.fds[0], offset))
        close_fds(msg.fds)

    def _on_rem_mem_reg(self, msg):
        gpa = struct.unpack_from("<Q", msg.payload, 8)[0]
        self.memory.regions = [r for r in self.memory.regions if r.gpa != gpa]
        close_fds(msg.fds)

    def _rebuild(self):
        """The memory changed under running rings: look their addresses up again."""
        for r in self.rings.values():
            if r.queue:
                old = r.queue
                self._start(r)
                r.queue.resume(old)

    def _on_set_vring_num(self, msg):
        index, num = struct.unpack("<II", msg.payload)
        self._ring(index).num = num

    def _on_set_vring_base(self, msg):
        index, num = struct.unpack("<II", msg.payload)
        self._ring(index).base = num

    def _on_set_vring_addr(self, msg):
        index, _, desc, used, avail, _ = struct.unpack("<IIQQQQ", msg.payload)
        self._ring(index).addr = (desc, avail, used)

    def _take_fd(self, msg, name):
        ring = self._ring(msg.u64 & 0xff)
        if (old := getattr(ring, name)) is not None:
            os.close(old)
        setattr(ring, name, None if msg.u64 & NO_FD else msg.fds[0])
        return ring

    def _on_set_vring_kick(self, msg):
        ring = self._take_fd(msg, "kick")
        if ring.kick is not None:
            os.set_blocking(ring.kick, False)
        if ring.addr and ring.queue:
            ring.queue.kick_fd = ring.kick
        elif ring.addr:
            self._start(ring)

    def _on_set_vring_call(self, msg):
        ring = self._take_fd(msg, "call")
        if ring.queue:
            ring.queue.call_fd, ring.queue.forced = ring.call, True

    def _on_set_vring_err(self, msg):
        self._take_fd(msg, "err")

    def _on_set_vring_enable(self, msg):
        index, on = struct.unpack("<II", msg.payload)
        self._ring(index).enabled = bool(on)

    def _on_get_vring_base(self, msg):
        index, _ = struct.unpack("<II", msg.payload)
        ring = self._ring(index)
        base = ring.queue.base() if ring.queue else ring.base
        ring.queue = ring.addr = None
        return vring_state(index, base)

    def _start(self, ring):
        kind = PackedDeviceQueue if self.features & F.RING_PACKED else DeviceQueue
        q = kind(self.memory, ring.num, ring.addr, bool(self.features & F.EVENT_IDX))
        q.start(ring.base)
        q.kick_fd, q.call_fd = ring.kick, ring.call
        ring.queue = q

    # --- waiting -------------------------------------------------------------------------------

    def wait(self, predicate, timeout=None, what="the front-end"):
        """Serve messages and kicks until predicate() holds; returns its value."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not (value := predicate()):
            kicks = [r.kick for r in self.rings.values() if r.queue and r.kick is not None]
            stop = [self.stop_fd] if threading.current_thread() is self.thread else []
            ready = wait_fds([self.channel, *kicks, *stop], deadline - time.monotonic())
            if not ready:
                raise PeerTimeout(f"waited in vain for {what}")
            for fd in ready:
                if fd == self.stop_fd:
                    raise _Stopped()
                if fd is self.channel:
                    self.handle_message(max(deadline - time.monotonic(), 0.1))
                    break  # it may have replaced the others
                drain_eventfd(fd)
        return value

    def started(self, rings=2):
        """Are the first `rings` rings running and enabled?"""
        return all(i in self.rings and self.rings[i].queue and self.rings[i].enabled
                   for i in range(rings))

    def wait_started(self, rings=2, timeout=None):
        """Connect if need be and serve messages until the rings run; returns self."""
        if not self.channel:
            self.connect(timeout)
        self.wait(lambda: self.started(rings), timeout, "running rings")
        return self

    @contextlib.contextmanager
    def serving(self):
        """Serve messages, over reconnects, in a thread while the body of the `with` starts the
        other side; on leaving the body the thread is gone and the peer is the caller's again."""
        self.run_thread(None)
        try:
            yield self
        finally:
            self.stop_thread(keep=True)

    def queue(self, index):
        """The DeviceQueue of a ring (0 is the driver's first receive queue), or None."""
        return self.rings[index].queue if index in self.rings else None

    # --- frames --------------------------------------------------------------------------------

    def _next_chain(self, index):
        """Pop a chain; when there is none, ask for a kick and look again."""
        q = self.queue(index)
        if not q or not self.rings[index].enabled:
            return None
        if popped := q.pop():
            return popped
        q.suppress_kicks(False)
        fence()
        return q.pop()

    def recv(self, timeout=None, queue=0, complete=True):
        """Take one chain from the driver's transmit queue as a Packet and complete it (length 0).
        complete=False leaves that to the caller: self.queue(1).push([(head, 0)])."""
        index = 2 * queue + TX
        popped = self.wait(lambda: self._next_chain(index), timeout, "a frame")
        q = self.queue(index)
        data = q.read(popped)
        if complete:
            q.push([(popped.head, 0)])
        return Packet(data[:self.hdr], data[self.hdr:], [popped])

    def send(self, frame, header=None, timeout=None, queue=0, num_buffers=None, wrong_offset=None):
        """Put one frame into the driver's receive queue, waiting for room; returns the chains.

        num_buffers: a value to claim instead of the true count of chains. wrong_offset: also store
        the count there after the header is written, as the seed's DPDK does at 10.
        """
        index = 2 * queue + RX
        merge = bool(self.features & F.MRG_RXBUF)
        need = self.hdr + len(frame)
        chains, room = [], 0
        while room < need:
            if chains and not merge:
                self.queue(index).unpop()
                raise AssertionError(f"{need} bytes into one receive buffer of {room}")
            popped = self.wait(lambda: self._next_chain(index), timeout, "receive buffers")
            chains.append(popped)
            room += DeviceQueue.room(popped)
        q = self.queue(index)
        true = len(chains)
        header = bytes(self.hdr) if header is None else header
        header = put_num_buffers(header, num_buffers_offset(self.hdr),
                                 true if num_buffers is None else num_buffers)
        header = put_num_buffers(header, wrong_offset, true)
        data, elems = header + frame, []
        for popped in chains:
            n = q.write(popped, data)
            data = data[n:]
            elems.append((popped.head, n))
        q.push(elems)
        return chains

    # --- a thread that answers -----------------------------------------------------------------

    def run_thread(self, answer, rings=2, queue=0):
        """Serve in a thread from now on, over reconnects: answer(packet) -> (frame, header) to
        send back, or None. answer None: messages only, the rings are left alone."""
        self.stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.error = None

        def serve():
            self.wait_started(rings, 3600)
            while True:
                out = answer(self.recv(queue=queue, timeout=3600))
                if out:
                    self.send(*out, queue=queue)

        def loop():
            while True:
                try:
                    if not self.channel:
                        self._connect_or_stop()
                    if answer:
                        serve()
                    self.wait(lambda: False, 3600)
                except _Stopped:
                    return
                except (PeerClosed, PeerTimeout, OSError):
                    self.drop()
                except Exception as e:  # pylint: disable=broad-except
                    self.error = e
                    return
        self.thread = threading.Thread(target=loop, daemon=True)
        self.thread.start()

    def _connect_or_stop(self):
        """connect() in short attempts, each of which looks whether the thread must end."""
        while True:
            if wait_fds([self.stop_fd], 0):
                raise _Stopped()
            try:
                self.connect(0.1)
                return
            except PeerTimeout:
                pass

    def stop_thread(self, keep=False):
        """End the thread, and the connection unless it is kept; what went wrong is raised here."""
        if not self.thread:
            return
        os.eventfd_write(self.stop_fd, 1)
        self.thread.join(self.timeout)
        os.close(self.stop_fd)
        self.thread = self.stop_fd = None
        if not keep:
            self.drop()
        if self.error:
            raise self.error
