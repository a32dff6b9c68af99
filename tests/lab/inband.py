# SPDX-License-Identifier: BSD-2-Clause
"""Scripted peers that notify by messages (INBAND_NOTIFICATIONS) and give no eventfds.

    fe = InbandFrontEnd(path, queues=2)     # as FrontEnd; a thread takes the calls
    fe.start_like_qemu()
    be = InbandBackEnd(path, listen=True)   # as BackEnd
"""
import functools
import threading

from .backend import BackEnd
from .frontend import FrontEnd
from .peer import QEMU_PROTOCOL
from .ring import signal_eventfd
from .wire import REPLY, VERSION, Channel, P, PeerClosed, PeerTimeout, Req, u64, vring_state

CALL, ERR = 4, 5  # what a back-end asks
NEEDS = P.INBAND | P.BACKEND_REQ | P.REPLY_ACK


def ring_of(msg):
    """Which ring a message is about; the other number is reserved."""
    assert msg.payload[4:] == bytes(4), msg
    return msg.payload[0]


class InbandFrontEnd(FrontEnd):
    """Kicks are messages. Calls are taken by a thread while `answering`, and left in the socket otherwise.

    called: the rings that were called, in order. errors: those said to be broken.
    """

    def __init__(self, path, protocol=QEMU_PROTOCOL & ~P.MEM_SLOTS | P.INBAND, **kw):
        super().__init__(path, protocol=protocol, **kw)
        self.called, self.errors, self.thread, self.error = [], [], None, None
        self.answering = True
        for i, q in enumerate(self.queues):
            q.kick = functools.partial(self.kick, i)

    def kick(self, i, need_reply=True):
        """VRING_KICK, which starts the ring too."""
        self.queues[i].kicks += 1
        if not need_reply:
            self.channel.send(Req.VRING_KICK, vring_state(i, 0))
        elif self.channel.request(Req.VRING_KICK, vring_state(i, 0), need_reply=True).u64:
            raise AssertionError(f"the kick of ring {i} was refused")

    def each_ring(self, *reqs, **kw):
        """As FrontEnd's, but for the eventfds."""
        super().each_ring(*(r for r in reqs if r not in (Req.SET_VRING_KICK, Req.SET_VRING_CALL)), **kw)

    def _kick_all(self):
        for q in self.queues:
            q.kick()

    def acknowledge(self, req=CALL, code=0):
        """The answer to a message of the back-end's."""
        self.backend.send(req, u64(code), flags=VERSION | REPLY)

    def _open_backend_channel(self):
        super()._open_backend_channel()
        self.take_calls()

    def take_calls(self):
        """Have a thread take the calls, if they are to be answered."""
        if self.answering:
            self.thread = threading.Thread(target=self._serve, args=[self.backend], daemon=True)
            self.thread.start()

    def _serve(self, channel):
        try:
            while True:
                msg = channel.recv(3600)
                assert msg.req in (CALL, ERR) and not msg.fds, msg
                (self.called if msg.req == CALL else self.errors).append(ring_of(msg))
                if msg.req == CALL:
                    channel.send(CALL, u64(0), flags=VERSION | REPLY)
                    signal_eventfd(self.queues[ring_of(msg)].call_fd)
        except (PeerClosed, PeerTimeout, OSError):
            pass
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def drop(self):
        """See FrontEnd.drop(); what the thread did not like is raised here."""
        if self.thread:
            try:
                self.backend.sock.shutdown(2)
            except OSError:
                pass
            self.thread.join(10)
            self.thread = None
        super().drop()
        if self.error:
            raise self.error


class InbandBackEnd(BackEnd):
    """Calls are messages. kicked: the rings that were kicked, in order."""

    def __init__(self, path, protocol=P.MQ | P.STATUS | NEEDS, **kw):
        super().__init__(path, protocol=protocol, **kw)
        self.kicked, self.ask = [], None

    def connect(self, timeout=None):
        """See BackEnd.connect()."""
        self.kicked = []
        return super().connect(timeout)

    def _on_set_backend_req_fd(self, msg):
        import socket  # pylint: disable=import-outside-toplevel
        self.ask = Channel(socket.socket(fileno=msg.fds[0]), self.timeout)

    def _on_vring_kick(self, msg):
        i = ring_of(msg)
        self.kicked.append(i)
        ring = self._ring(i)
        if ring.addr and not ring.queue:
            self._start(ring)

    def _start(self, ring):
        super()._start(ring)
        index = next(i for i, r in self.rings.items() if r is ring)
        ring.queue._call = functools.partial(self._call_ring, index, ring.queue)

    def _call_ring(self, index, q, wanted):
        wanted, q.forced = wanted or q.forced, False
        if wanted:
            q.calls += 1
            self.call(index)

    def call(self, index, req=CALL):
        """VRING_CALL, or another message about a ring."""
        self.ask.send(req, vring_state(index, 0), need_reply=True)
        msg = self.ask.recv()
        assert msg.req == req and msg.flags == VERSION | REPLY and msg.u64 == 0, msg

    def drop(self):
        """See Peer.drop(); the channel goes too."""
        super().drop()
        if self.ask:
            self.ask.close()
            self.ask = None
