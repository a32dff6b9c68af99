# SPDX-License-Identifier: BSD-2-Clause
"""Checksums and segmentation left to the other end, with the scripted peers in both roles: what is negotiated, what comes out finished where
it has to, and headers that cannot be right."""
import struct

import pytest

from hostile.victim import Victim, until
from lab.frames import check, numbered, tcp4
from lab.proc import Proc, preload_env
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd
from interop.port import port

CSUM = F.CSUM | F.GUEST_CSUM
HOST = F.HOST_TSO4 | F.HOST_TSO6 | F.HOST_ECN
GUEST = F.GUEST_TSO4 | F.GUEST_TSO6 | F.GUEST_ECN
UFO = F.HOST_UFO | F.GUEST_UFO
EVERYTHING = CSUM | HOST | GUEST
NEEDS_CSUM, TCP4 = 1, 1
FORMATS = {"split": BASIC, "packed": BASIC | F.RING_PACKED}
ECHO = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
if sys.argv[1] == "headers":
    s.setsockopt(263, 15, 1)
s.bind(("pd0", 3))
print("is ready", flush=True)
while True:
    s.send(s.recv(70000))
"""


def header(flags=0, gso=0, hdr_len=0, size=0, start=0, offset=0, buffers=0):
    """A virtio-net header of 12 bytes."""
    return struct.pack("<BBHHHHH", flags, gso, hdr_len, size, start, offset, buffers)


OPEN = header(NEEDS_CSUM, start=34, offset=16)


def large(size):
    """The header of a large TCP segment."""
    return header(NEEDS_CSUM, TCP4, 54, size, 34, 16)


def content(n):
    """Payload of n bytes, no two places alike."""
    return b"".join(struct.pack("!I", i * 2654435761 & 0xffffffff) for i in range(n // 4 + 1))[:n]


def pieces(payload, size, seq=7, flags=0x18, ident=9):
    """The segments that a large one is cut into, made one by one."""
    at = range(0, len(payload), size)
    return [tcp4(payload[i:i + size], seq=seq + i, ident=ident + k,
                 flags=flags if i + size >= len(payload) else flags & ~9) for k, i in enumerate(at)]


class Echo(Proc):
    """A Python program that sends back what it receives: with headers, or without."""

    def __init__(self, path, mode, **keys):
        keys = {"dialect": "virtio", "offloads": "all"} | keys
        super().__init__(["/usr/bin/python3", "-c", ECHO, mode],
                         env=preload_env(port(path, **keys), TRACELEVEL="error"))
        self.expect("is ready")


@pytest.fixture(params=FORMATS)
def basic(request):
    """The features of the rings' format."""
    return FORMATS[request.param]


@pytest.mark.parametrize("dialect,offloads,want", [
    ("virtio", None, 0), ("virtio", "none", 0), ("virtio", "csum", CSUM), ("virtio", "all", EVERYTHING),
    ("avip", "all", 0), ("avip", "csum", 0)])
def test_what_is_offered_and_taken(sockdir, dialect, offloads, want):
    hdr = 12 if dialect == "virtio" else 48
    keys = {"dialect": dialect} | ({"offloads": offloads} if offloads else {})
    with FrontEnd(sockdir / "a", hdr=hdr) as fe, Victim(sockdir / "a", **keys):
        fe.start_like_qemu()
        assert fe.offered & (EVERYTHING | UFO) == want
    with BackEnd(sockdir / "b", hdr=hdr, listen=True, features=BASIC | EVERYTHING | UFO) as be, \
            Victim(sockdir / "b", role="frontend", **keys):
        be.wait_started()
        assert be.features & (EVERYTHING | UFO) == want


def test_a_front_end_takes_no_feature_without_those_it_needs(sock):
    for offered, mergeable, want in (
            (EVERYTHING & ~F.CSUM, "on", EVERYTHING & ~F.CSUM & ~HOST), (HOST | GUEST, "on", 0),
            (EVERYTHING & ~F.GUEST_CSUM, "on", F.CSUM | HOST), (EVERYTHING, "off", CSUM | HOST),
            (CSUM | F.HOST_ECN | F.GUEST_ECN, "on", CSUM)):
        with BackEnd(sock, hdr=12, listen=True, features=BASIC | offered) as be, \
                Victim(sock, role="frontend", dialect="virtio", offloads="all", mergeable=mergeable):
            be.wait_started()
            assert be.features & EVERYTHING == want, (hex(offered), mergeable)


def finished(send, recv, payload=content(30000)):
    """Who did not ask gets frames finished: send() gives it one with a header, recv() what it sent back."""
    send(tcp4(payload[:999], complete=False), OPEN)
    got = recv()
    assert got.frame == tcp4(payload[:999]) and got.header[:10] == bytes(10)
    for size in (1460, 1000, 9000):
        whole = tcp4(payload, seq=7, flags=0x19, ident=9, complete=False)
        send(whole, large(size))
        for want in pieces(payload, min(size, 1460), flags=0x19):
            got = recv()
            assert got.frame == want and got.header[:10] == bytes(10)


def as_it_was(send, recv, payload=content(60000)):
    """Who asked gets them as they are, and what it sends goes as it is."""
    for frame, head in ((tcp4(payload[:999], complete=False), OPEN), (tcp4(payload, complete=False), large(1448)),
                        (tcp4(payload[:40]), header())):
        send(frame, head)
        got = recv()
        assert got.frame == frame and got.header[:10] == head[:10]


@pytest.mark.parametrize("mergeable", [True, False], ids=["mergeable", "plain"])
def test_the_back_end_finishes_frames(sock, basic, mergeable):
    features = (basic if mergeable else basic & ~F.MRG_RXBUF) | CSUM | HOST
    with FrontEnd(sock, hdr=12, features=features) as fe, Echo(sock, "plain"):
        fe.start_like_qemu()
        fe.post_rx([2048] * 64)
        finished(lambda f, h: fe.send(f, h, split=(12, 14, 20, 5000, 1, 3000)), fe.recv)


@pytest.mark.parametrize("room", [[2048] * 100, [100] * 30 + [1500] * 60, [66000] * 8], ids=["2048", "mixed", "66000"])
def test_the_back_end_passes_frames(sock, basic, room):
    with FrontEnd(sock, hdr=12, features=basic | EVERYTHING) as fe, Echo(sock, "headers"):
        fe.start_like_qemu()
        fe.post_rx(room)
        as_it_was(lambda f, h: fe.send(f, h, split=(12, 1000)), fe.recv)


def test_the_back_end_passes_frames_in_one_buffer(sock, basic):
    with FrontEnd(sock, hdr=12, features=basic & ~F.MRG_RXBUF | EVERYTHING) as fe, Echo(sock, "headers"):
        fe.start_like_qemu()
        fe.post_rx([65562] * 8)
        as_it_was(fe.send, fe.recv)


def test_what_the_driver_does_not_take_is_finished_on_the_way_out(sock, basic):
    """It sends large frames and open checksums, and takes neither; its buffers are small, so that the pieces of one take most of the ring."""
    payload = content(20000)
    with FrontEnd(sock, hdr=12, features=basic | F.CSUM | HOST, ring=64) as fe, Echo(sock, "headers"):
        fe.start_like_qemu()
        fe.post_rx([700] * 60)
        fe.send(tcp4(payload[:999], complete=False), OPEN)
        got = fe.recv()
        assert got.frame == tcp4(payload[:999]) and got.header[:10] == bytes(10)
        for _ in range(5):
            fe.send(tcp4(payload, seq=7, flags=0x18, ident=9, complete=False), large(1000))
            for want in pieces(payload, 1000):
                got = fe.recv()
                assert got.frame == want and got.header[:10] == bytes(10)
        # Checksums only.
    with FrontEnd(sock, hdr=12, features=basic | CSUM | HOST) as fe, Echo(sock, "headers"):
        fe.start_like_qemu()
        fe.post_rx([2048] * 64)
        fe.send(tcp4(payload[:999], complete=False), OPEN)
        got = fe.recv()
        assert got.frame == tcp4(payload[:999], complete=False) and got.header[:10] == OPEN[:10]
        fe.send(tcp4(payload, seq=7, flags=0x18, ident=9, complete=False), large(1000))
        for want in pieces(payload, 1000):
            assert fe.recv().frame == want


def test_the_front_end_finishes_frames(sock, basic):
    with BackEnd(sock, hdr=12, listen=True, features=basic | F.MQ | EVERYTHING) as be, \
            Echo(sock, "plain", role="frontend"):
        be.wait_started()
        finished(be.send, be.recv)


def test_the_front_end_passes_frames(sock, basic):
    with BackEnd(sock, hdr=12, listen=True, features=basic | F.MQ | EVERYTHING) as be, \
            Echo(sock, "headers", role="frontend"):
        be.wait_started()
        as_it_was(be.send, be.recv)


def test_the_front_end_finishes_what_the_device_does_not_take(sock, basic):
    payload = content(20000)
    with BackEnd(sock, hdr=12, listen=True, features=basic | F.MQ | F.GUEST_CSUM | GUEST) as be, \
            Echo(sock, "headers", role="frontend", ring=64):
        be.wait_started()
        be.send(tcp4(payload[:999], complete=False), OPEN)
        assert be.recv().frame == tcp4(payload[:999])
        for _ in range(5):
            be.send(tcp4(payload, seq=7, flags=0x18, ident=9, complete=False), large(1000))
            for want in pieces(payload, 1000):
                assert be.recv().frame == want


BIG = tcp4(content(4000), complete=False)
SMALL = tcp4(content(100), complete=False)
FRAGMENT = BIG[:20] + b"\x20\0" + BIG[22:]
BAD = {
    "no size": (header(1, TCP4, 54, 0, 34, 16), BIG),
    "a size that is none": (header(1, TCP4, 54, 0xffff, 34, 16), BIG),
    "another type": (header(1, 7, 54, 1000, 34, 16), BIG),
    "UDP": (header(1, 3, 54, 1000, 34, 16), BIG),
    "IPv6": (header(1, 4, 54, 1000, 34, 16), BIG),
    "checksum past the frame": (header(1, start=34, offset=len(SMALL) - 35), SMALL),
    "start past the frame": (header(1, start=60000, offset=6), SMALL),
    "both": (header(1, start=65535, offset=65535), SMALL),
    "checksum elsewhere": (header(1, TCP4, 54, 1000, 34, 6), BIG),
    "start elsewhere": (header(1, TCP4, 54, 1000, 14, 16), BIG),
    "a fragment": (header(1, TCP4, 54, 1000, 34, 16), FRAGMENT),
    "headers cut off": (header(1, TCP4, 54, 10, 34, 16), SMALL[:52]),
    "IP header cut off": (header(1, TCP4, 54, 10, 14, 0), SMALL[:30]),
    "TCP header too long": (header(1, TCP4, 54, 10, 34, 16), SMALL[:46] + b"\xf0" + SMALL[47:70]),
    "long, and not to be cut": (header(), tcp4(content(20000))),
    "long, with an open checksum": (OPEN, tcp4(content(20000), complete=False)),
}


@pytest.mark.parametrize("role", ["backend", "frontend"])
def test_headers_that_cannot_be_right(sock, role):
    """Dropped and counted one by one; hdr_len, which says nothing that we need, may be anything."""
    keys = {"dialect": "virtio", "offloads": "all", "role": role}
    with (FrontEnd(sock, hdr=12, features=BASIC | EVERYTHING) if role == "backend" else
          BackEnd(sock, hdr=12, listen=True, features=BASIC | EVERYTHING)) as peer, Victim(sock, **keys) as program:
        if role == "backend":
            peer.start_like_qemu()
            peer.post_rx([2048] * 64)
        else:
            peer.wait_started()
        for n, (what, (head, frame)) in enumerate(BAD.items()):
            peer.send(frame, head)
            peer.send(numbered(n, 60), header(2))  # which says only that it is valid
            assert check(peer.recv().frame) == n, what
            until(lambda: program.lane()["rx_drop_malformed"] == n + 1, what)
        peer.send(SMALL, header(NEEDS_CSUM, hdr_len=0xffff, start=34, offset=16))
        assert peer.recv().frame == tcp4(content(100))
        lane = program.lane()
        assert lane["rx_csum"] == lane["rx_csum_done"] == 1 and lane["rx_gso"] == 0
