# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user peer under script: FrontEnd owns the memory and the driver's end of the rings,
BackEnd maps it and has the device's end. Both listen or connect, and share no code with src/.

Ten lines against a back-end under test:

    with FrontEnd(path, hdr=48) as fe:          # listens; FrontEnd(path, listen=False) dials
        fe.start_like_qemu()                    # accept, connect sequence, start sequence
        fe.post_rx([2048] * 64)                 # receive buffers, one descriptor each
        fe.send(frame, avip(ifg=12))            # one descriptor
        fe.send(frame, avip(), split=[10, 38])  # header over two descriptors, the frame in a third
        pkt = fe.recv(timeout=5)                # pkt.header, pkt.frame, pkt.used

and against a front-end under test:

    with BackEnd(path, hdr=48) as be:           # dials; BackEnd(path, listen=True) listens
        be.wait_started()
        pkt = be.recv()                         # what the driver sent
        be.send(pkt.frame, pkt.header)          # mergeable when negotiated; num_buffers filled in

Misbehaviour: channel.send(..., flags=, size=, fds=), channel.send_raw(bytes, fds, pieces=),
fe.tx.ring.set_desc(), fe.tx.add_raw(), fe.tx.publish(idx=), be.send(wrong_offset=10),
be.send(num_buffers=), Memory(sizes=, one_fd=, seals=).

Waiting goes by eventfds alone, never by polling memory, so that a notification which the other
side owes and does not give is a PeerTimeout.
"""
import contextlib
import os
import struct
import threading
import time
from typing import NamedTuple

from .ring import (DeviceQueue, DriverQueue, Memory, AddressMap, Region, drain_eventfd, fence,
                   wait_fds)
from .wire import (NEED_REPLY, NO_FD, REPLY, VERSION, Channel, F, Listener, P, PeerClosed,
                   PeerTimeout, Req, close_fds, dial, mem_table, u64, vring_addr, vring_state)

__all__ = ["FrontEnd", "BackEnd", "Packet", "Memory", "F", "P", "Req", "PeerClosed", "PeerTimeout",
           "Channel", "Listener", "dial"]

RX, TX = 0, 1

# What each front-end acknowledges when it is offered.
BASIC = F.MRG_RXBUF | F.ANY_LAYOUT | F.INDIRECT | F.EVENT_IDX | F.PROTOCOL | F.VERSION_1
QEMU_PROTOCOL = (P.MQ | P.LOG_SHMFD | P.RARP | P.REPLY_ACK | P.NET_MTU | P.BACKEND_REQ |
                 P.BACKEND_SEND_FD | P.MEM_SLOTS | P.STATUS)
DPDK_PROTOCOL = P.MQ | P.REPLY_ACK | P.STATUS


class Packet(NamedTuple):
    """A frame received.

    header: the first hdr bytes; frame: the rest; used: the Used elements (front-end) or Popped
    chains (back-end) that carried it, in order.
    """
    header: bytes
    frame: bytes
    used: list


def num_buffers_offset(hdr):
    """Where a header of this length has its count of buffers, or None."""
    return {48: 0, 12: 10}.get(hdr)


def put_num_buffers(header, offset, count):
    """The header with a u16 at an offset replaced."""
    if offset is None:
        return header
    return header[:offset] + struct.pack("<H", count) + header[offset + 2:]


class _Peer:
    """What the two roles share: getting and losing a connection."""

    def __init__(self, path, listen, hdr, timeout):
        self.path, self.hdr, self.timeout = str(path), hdr, timeout
        self.listener = Listener(path, timeout) if listen else None
        self.channel = None

    def connect(self, timeout=None):
        """Accept or dial, and return self. Called by the start_* methods when needed."""
        limit = self.timeout if timeout is None else timeout
        self.drop()
        self.channel = self.listener.accept(limit) if self.listener else dial(self.path, limit)
        self.channel.timeout = self.timeout
        return self

    def drop(self):
        """Close the connection at once, without a word, as a killed process does."""
        if self.channel:
            self.channel.close()
            self.channel = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Drop the connection and the listening socket."""
        self.drop()
        if self.listener:
            self.listener.close()


class FrontEnd(_Peer):
    """The owner of the memory: a driver, as QEMU or virtio-user are.

    hdr: header length on the ring (48 sidecar, 12 or 10 virtio). features, protocol: acknowledged
    as far as offered. queues: pairs. ring: entries per ring. memory: a Memory, else 96 MiB (sparse).
    mac: told to nobody, for tests that need one.
    """

    def __init__(self, path, listen=True, hdr=48, features=BASIC, protocol=None, queues=1,
                 ring=256, memory=None, timeout=10.0, mac=b"\x02\x00\x00\x00\x00\x01"):
        super().__init__(path, listen, hdr, timeout)
        self.want, self.want_protocol, self.pairs, self.mac = features, protocol, queues, mac
        self.ring = ring
        self.memory = memory or Memory((96 << 20,))
        self.features = self.protocol = 0
        self.offered = self.offered_protocol = 0
        self.backend = None
        self.pending = {}
        self.queues = [DriverQueue(self.memory, ring) for _ in range(2 * queues)]
        self.rx_spec = {}

    @property
    def rx(self):
        """The first receive queue."""
        return self.queues[RX]

    @property
    def tx(self):
        """The first transmit queue."""
        return self.queues[TX]

    def close(self):
        """Everything is closed; the mappings live until the last view of them goes."""
        self.drop()
        super().close()
        for q in self.queues:
            q.close()
        self.queues = []
        self.memory.close()

    def drop(self):
        """See _Peer.drop(); the back-end's channel goes too."""
        super().drop()
        if self.backend:
            self.backend.close()
            self.backend = None

    # --- messages ------------------------------------------------------------------------------

    def get_u64(self, req):
        """A request without payload whose reply is one u64."""
        return self.channel.request(req).u64

    def acked(self, req, payload=b"", fds=()):
        """Send a message; with REPLY_ACK ask for the reply and check that it is 0."""
        if not self.protocol & P.REPLY_ACK:
            self.channel.send(req, payload, fds)
            return
        code = self.channel.request(req, payload, fds, need_reply=True).u64
        if code:
            raise AssertionError(f"{req!r} was refused with {code}")

    def set_features(self, features=None):
        """SET_FEATURES: what is wanted and offered, or exactly these bits."""
        self.features = self.want & self.offered if features is None else features
        for q in self.queues:
            q.event_idx = bool(self.features & F.EVENT_IDX)
        self.channel.send(Req.SET_FEATURES, u64(self.features))

    def get_features(self):
        """GET_FEATURES into offered."""
        self.offered = self.get_u64(Req.GET_FEATURES)
        return self.offered

    def negotiate_protocol(self, want):
        """GET/SET_PROTOCOL_FEATURES, when the back-end has any."""
        if not self.offered & F.PROTOCOL:
            return
        self.offered_protocol = self.get_u64(Req.GET_PROTOCOL_FEATURES)
        want = self.want_protocol if self.want_protocol is not None else want
        self.protocol = want & self.offered_protocol
        self.channel.send(Req.SET_PROTOCOL_FEATURES, u64(self.protocol))

    def send_memory(self):
        """SET_MEM_TABLE, or ADD_MEM_REG for each region where memory slots were negotiated."""
        regions = self.memory.regions
        if self.protocol & P.MEM_SLOTS:
            self.get_u64(Req.GET_MAX_MEM_SLOTS)
            for r in regions:
                self.acked(Req.ADD_MEM_REG, struct.pack("<QQQQQ", 0, *r.row()), [r.fd])
        else:
            self.acked(Req.SET_MEM_TABLE, mem_table([r.row() for r in regions]),
                       [r.fd for r in regions])

    def ring_message(self, req, i, **kw):
        """One of NUM, BASE, ADDR, KICK, CALL, ENABLE for ring i, with true values.

        base= and on= override the number of BASE and ENABLE; addr_flags= those of ADDR.
        """
        q, ch = self.queues[i], self.channel
        if req == Req.SET_VRING_NUM:
            ch.send(req, vring_state(i, q.size))
        elif req == Req.SET_VRING_BASE:
            ch.send(req, vring_state(i, kw.get("base", q.last_used)))
        elif req == Req.SET_VRING_ADDR:
            desc, avail, used = (self.memory.uva(g) for g in q.gpa)
            ch.send(req, vring_addr(i, desc, used, avail, kw.get("addr_flags", 0)))
        elif req == Req.SET_VRING_KICK:
            ch.send(req, u64(i), [q.kick_fd])
        elif req == Req.SET_VRING_CALL:
            ch.send(req, u64(i), [q.call_fd])
        elif req == Req.SET_VRING_ENABLE:
            ch.send(req, vring_state(i, kw.get("on", 1)))

    def each_ring(self, *reqs, **kw):
        """The ring messages in this order, for ring 0, then ring 1..."""
        for i in range(len(self.queues)):
            for req in reqs:
                self.ring_message(req, i, **kw)

    def set_status(self, value):
        """SET_STATUS, when negotiated."""
        if self.protocol & P.STATUS:
            self.channel.send(Req.SET_STATUS, u64(value))

    # --- sequences -----------------------------------------------------------------------------

    def connect_like_qemu(self):
        """What QEMU 7.2 sends when the socket connects, before the guest's driver starts."""
        if not self.channel:
            self.connect()
        self.protocol = 0
        self.get_features()
        self.negotiate_protocol(QEMU_PROTOCOL)
        if self.protocol & P.MQ:
            assert self.get_u64(Req.GET_QUEUE_NUM) >= self.pairs
        if self.protocol & P.BACKEND_REQ:
            self._open_backend_channel()
        self.channel.send(Req.SET_OWNER)
        self.get_features()
        self.each_ring(Req.SET_VRING_KICK, Req.SET_VRING_CALL)
        if self.offered & F.PROTOCOL:
            self.each_ring(Req.SET_VRING_ENABLE)

    def start_like_qemu(self):
        """Connect if need be, then what QEMU 7.2 sends at DRIVER_OK. Rings keep their contents:
        BASE is the used index, as after a reconnect; call reset_rings() for a new driver."""
        if not self.channel:
            self.connect_like_qemu()
        if self.offered & F.PROTOCOL:
            self.each_ring(Req.SET_VRING_ENABLE)
        self.set_features()
        if self.protocol & P.STATUS:
            self.get_u64(Req.GET_STATUS)
        self.set_status(8)
        self.send_memory()
        self._bases_from_memory()
        self.each_ring(Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.SET_VRING_ADDR,
                       Req.SET_VRING_KICK, Req.SET_VRING_CALL)
        self.set_status(0xf)
        self._kick_all()
        return self

    def start_like_dpdk(self, reconnect=False):
        """Connect if need be, then what DPDK 22.11's virtio-user sends. BASE is always 0; a
        reconnecting server (reconnect=True) sends no SET_OWNER."""
        if not self.channel:
            self.connect()
        self.protocol = 0
        if not reconnect:
            self.channel.send(Req.SET_OWNER)
        self.get_features()
        self.negotiate_protocol(DPDK_PROTOCOL)
        self.each_ring(Req.SET_VRING_CALL)
        self.set_features()
        self._status_like_dpdk(0xb)
        self.send_memory()
        self.each_ring(Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.SET_VRING_ADDR,
                       Req.SET_VRING_KICK, base=0)
        self._bases_from_memory()
        if self.offered & F.PROTOCOL:
            self.each_ring(Req.SET_VRING_ENABLE)
        self._status_like_dpdk(0xf)
        self._kick_all()
        return self

    def _status_like_dpdk(self, value):
        """DPDK asks for the reply and then reads the status back."""
        if self.protocol & P.STATUS:
            self.acked(Req.SET_STATUS, u64(value))
            self.get_u64(Req.GET_STATUS)

    def stop_like_qemu(self):
        """SET_STATUS(0), GET_VRING_BASE for each ring, no disable; returns the bases."""
        self.set_status(0)
        return [self.get_base(i) for i in range(len(self.queues))]

    def stop_like_dpdk(self):
        """Disable each ring, then GET_VRING_BASE; returns the bases."""
        self.each_ring(Req.SET_VRING_ENABLE, on=0)
        return [self.get_base(i) for i in range(len(self.queues))]

    def get_base(self, i):
        """GET_VRING_BASE: ring i stops; its next available index."""
        reply = self.channel.request(Req.GET_VRING_BASE, vring_state(i, 0))
        index, num = struct.unpack("<II", reply.payload)
        assert index == i
        return num

    def reset_rings(self):
        """A new driver: empty rings; what was posted is forgotten."""
        for q in self.queues:
            q.reset()
        self.rx_spec = {}
        self.pending = {}

    def _bases_from_memory(self):
        """A connected back-end has no state of ours yet: it must be kicked again."""
        for q in self.queues:
            q.kicked = q.last_used

    def _kick_all(self):
        for q in self.queues:
            if q.avail_next != q.last_used:
                q.kick()

    def _open_backend_channel(self):
        import socket  # pylint: disable=import-outside-toplevel
        ours, theirs = socket.socketpair()
        self.backend = Channel(ours, self.timeout)
        self.acked(Req.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        theirs.close()

    # --- frames --------------------------------------------------------------------------------

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

    def done_rx(self, used, queue=0):
        """Recycle receive chains, posting those again that were posted with refill."""
        q = self.queues[2 * queue + RX]
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


class BackEnd(_Peer):
    """The device: maps the front-end's memory.

    features and protocol are what is offered. mrg=False and so on: leave the bit out of features.
    reply(req) -> code overrides the answer to a message that asks for one (default 0).
    """

    def __init__(self, path, listen=False, hdr=48, features=BASIC | F.MQ,
                 protocol=P.MQ | P.REPLY_ACK | P.STATUS, max_pairs=8, timeout=10.0):
        super().__init__(path, listen, hdr, timeout)
        self.offer, self.offer_protocol, self.max_pairs = features, protocol, max_pairs
        self.refuse = {}
        self.memory = AddressMap()
        self.rings = {}
        self._forget()
        self.thread = self.stop_fd = None

    def _forget(self):
        for r in self.rings.values():
            r.close()
        self.rings, self.memory = {}, AddressMap()
        self.features = self.protocol = self.status = 0
        self.backend_fd = None

    def connect(self, timeout=None):
        """See _Peer.connect(); nothing of an earlier connection is kept."""
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
        name = Req(msg.req).name
        result = getattr(self, "_on_" + name.lower(), self._on_other)(msg)
        if isinstance(result, bytes):
            self.channel.send(msg.req, result, flags=VERSION | REPLY)
        elif msg.flags & NEED_REPLY and self.protocol & P.REPLY_ACK:
            code = self.refuse.get(msg.req, 0)
            self.channel.send(msg.req, u64(code), flags=VERSION | REPLY)
        return msg

    def _ring(self, index):
        return self.rings.setdefault(index, _VringState())

    def _on_other(self, msg):
        close_fds(msg.fds)

    def _on_get_features(self, _):
        return u64(self.offer | (F.PROTOCOL if self.offer_protocol else 0))

    def _on_set_features(self, msg):
        self.features = msg.u64
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
                r.queue.last_avail, r.queue.used_next = old.last_avail, old.used_next

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
        base = ring.queue.last_avail if ring.queue else ring.base
        ring.queue = ring.addr = None
        return vring_state(index, base)

    def _start(self, ring):
        q = DeviceQueue(self.memory, ring.num, *ring.addr, bool(self.features & F.EVENT_IDX))
        base = ring.base
        if base != q.ring.used_idx:
            base = q.ring.used_idx  # DPDK says 0 whatever it left in the ring
        q.set_base(base)
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
