# SPDX-License-Identifier: BSD-2-Clause
"""The front-end of the scripted peers: it owns the memory and has the driver's end of the rings.
See vhostpeer.py."""
import contextlib
import socket
import struct

from .driver import Driver
from .peer import BASIC, DPDK_PROTOCOL, QEMU_PROTOCOL, Peer
from .packedring import PackedDriverQueue
from .proc import scale
from .ring import DriverQueue, Memory
from .wire import Channel, F, P, Req, mem_table, u64, vring_addr, vring_state


class FrontEnd(Driver, Peer):
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
        self.log_rings = 0  # VHOST_VRING_F_LOG, see dirtylog.py
        self.ring_iova = 0  # with an IOMMU: how far above its guest-physical address a device finds a ring, see iommu.py
        self.offered = self.offered_protocol = 0
        self.backend = None
        self.pending = {}
        kind = PackedDriverQueue if features & F.RING_PACKED else DriverQueue
        self.queues = [kind(self.memory, ring) for _ in range(2 * queues)]
        self.rx_spec = {}

    def close(self):
        """Everything is closed; the mappings live until the last view of them goes."""
        self.drop()
        super().close()
        for q in self.queues:
            q.close()
        self.queues = []
        self.memory.close()

    def drop(self):
        """See Peer.drop(); the back-end's channel goes too."""
        super().drop()
        if self.backend:
            self.backend.close()
            self.backend = None

    def new_driver(self):
        """Drop the connection and reset_rings(), for a driver in the same memory. What was in flight is answered into the old rings until
        the device has seen the end, so that is waited for: it has let the rings go when it hangs up."""
        if self.channel:
            with contextlib.suppress(OSError):
                self.channel.sock.shutdown(socket.SHUT_WR)
            assert self.channel.closed_by_peer(scale(10.0)), "the device does not hang up"
        self.drop()
        self.reset_rings()

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
        if features is None and self.want & ~self.features & F.RING_PACKED:
            raise AssertionError("no packed rings are offered")
        for q in self.queues:
            q.event_idx = bool(self.features & F.EVENT_IDX)
            q.in_order = bool(self.features & F.IN_ORDER)
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

        base= and on= override the number of BASE and ENABLE; addr_flags= and log= those of ADDR.
        """
        q, ch = self.queues[i], self.channel
        if req == Req.SET_VRING_NUM:
            ch.send(req, vring_state(i, q.size))
        elif req == Req.SET_VRING_BASE:
            ch.send(req, vring_state(i, kw.get("base", q.base())))
        elif req == Req.SET_VRING_ADDR:
            desc, avail, used = (g + self.ring_iova if self.features & F.ACCESS_PLATFORM else self.memory.uva(g) for g in q.gpa)
            ch.send(req, vring_addr(i, desc, used, avail, kw.get("addr_flags", self.log_rings),
                                    kw.get("log", q.gpa[2] + self.ring_iova)))
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
        """Connect if need be, then what DPDK 22.11's virtio-user sends. BASE is always 0 (packed:
        its wrap counter alone, so reset_rings() comes first); a reconnecting server
        (reconnect=True) sends no SET_OWNER."""
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
                       Req.SET_VRING_KICK, base=self.want & F.RING_PACKED and 1 << 15)
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
