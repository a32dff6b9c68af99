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

FrontEnd(path, features=BASIC | F.RING_PACKED) has packed rings; a BackEnd has those that are
negotiated.

Misbehaviour: channel.send(..., flags=, size=, fds=), channel.send_raw(bytes, fds, pieces=),
fe.tx.ring.set_desc(), fe.tx.add_raw(), fe.tx.publish(idx=), be.send(wrong_offset=10),
be.send(num_buffers=), Memory(sizes=, one_fd=, seals=); packedring.py names those of packed rings.

Waiting goes by eventfds alone, never by polling memory, so that a notification which the other
side owes and does not give is a PeerTimeout.
"""
from .backend import BackEnd
from .frontend import FrontEnd
from .peer import BASIC, Packet
from .ring import Memory
from .wire import Channel, F, Listener, P, PeerClosed, PeerTimeout, Req, dial

__all__ = ["FrontEnd", "BackEnd", "Packet", "Memory", "BASIC", "F", "P", "Req", "PeerClosed",
           "PeerTimeout", "Channel", "Listener", "dial"]
