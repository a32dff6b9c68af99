# SPDX-License-Identifier: BSD-2-Clause
"""A relay between two vhost-user peers that writes down what they say.

    with Relay(front, back) as relay:       # both are paths; front_listens, back_listens: who waits there
        ...
        print(relay.words())                # ["GET_FEATURES", "SET_VRING_ENABLE 0 1", ...]

The messages pass with their descriptors, unchanged but for protocol features that it may keep from the front-end. It
sees the control socket only: rings and eventfds are shared between the peers themselves.
"""
import struct
import threading

from .ring import wait_fds
from .wire import NEED_REPLY, Listener, PeerClosed, PeerTimeout, Req, close_fds, dial, u64

STATE = (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.GET_VRING_BASE, Req.SET_VRING_ENABLE)
RING_FD = (Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_VRING_ERR)
PATIENCE = 20  # in seconds, with the rest of a message that has begun
U64 = (Req.SET_FEATURES, Req.SET_PROTOCOL_FEATURES, Req.SET_STATUS, Req.NET_SET_MTU)


def spell(msg):
    """A request in words: its name, the ring, the number, and ! where a reply is asked for."""
    req = Req(msg.req)
    said = [req.name + "!" * bool(msg.flags & NEED_REPLY)]
    if req in STATE:
        index, num = struct.unpack("<II", msg.payload)
        said += [str(index)] + [str(num)] * (req != Req.GET_VRING_BASE)
    elif req == Req.SET_VRING_ADDR:
        said += [str(struct.unpack_from("<I", msg.payload)[0])]
    elif req in RING_FD:
        said += [str(msg.u64 & 0xff)] + ["none"] * (not msg.fds)
    elif req in U64:
        said += [f"{msg.u64:#x}"]
    return " ".join(said)


class Relay:
    """front: where the front-end is reached, back: the back-end. *_listens: that peer listens there and
    the relay dials; otherwise the relay listens and the peer dials. Over reconnects of either peer.
    without: protocol features that the back-end is not seen to offer."""

    def __init__(self, front, back, front_listens=False, back_listens=True, without=0):
        self.log, self.error, self.over, self.without = [], None, False, without
        self.listeners = {p: Listener(p, 1.0) for p, listens in
                          ((front, front_listens), (back, back_listens)) if not listens}
        self.paths = (front, back)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def words(self, since=0):
        """What the front-end said from entry `since` on, in words."""
        return [spell(m) for side, m in self.log[since:] if side == 0]

    def replies(self, req):
        """What the back-end answered to a request: the payloads."""
        return [m.payload for side, m in self.log if side == 1 and m.req == req]

    def _open(self, path):
        while not self.over:
            try:
                if path in self.listeners:
                    return self.listeners[path].accept(0.2)
                return dial(path, 0.2)
            except (PeerTimeout, OSError):
                continue
        raise PeerClosed("the relay is at its end")

    def _run(self):
        while not self.over:
            ends = []
            try:
                for path in self.paths:
                    ends.append(self._open(path))
                while not self.over:
                    for end in wait_fds(ends, 0.2):
                        self._pass(ends.index(end), ends)
            except (PeerClosed, OSError):
                pass
            finally:
                for end in ends:
                    end.close()

    def _pass(self, side, ends):
        msg = ends[side].recv(PATIENCE)
        if side == 1 and msg.req == Req.GET_PROTOCOL_FEATURES:
            msg = msg._replace(payload=u64(msg.u64 & ~self.without))
        try:
            ends[1 - side].send(msg.req, msg.payload, msg.fds, flags=msg.flags)
            self.log.append((side, msg))
        finally:
            close_fds(msg.fds)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.over = True
        self.thread.join(5)
        for listener in self.listeners.values():
            listener.close()
