# SPDX-License-Identifier: BSD-2-Clause
"""What the two scripted vhost-user peers share: a connection, headers, packets."""
import struct
from typing import NamedTuple

from .proc import scale
from .wire import F, Listener, P, dial

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


class Peer:
    """Either role: getting and losing a connection. timeout: seconds that each wait of it may last, of a machine that is not busy."""

    def __init__(self, path, listen, hdr, timeout):
        self.path, self.hdr, self.timeout = str(path), hdr, scale(timeout)
        self.listener = Listener(path, self.timeout) if listen else None
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
