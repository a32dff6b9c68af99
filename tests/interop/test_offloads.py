# SPDX-License-Identifier: BSD-2-Clause
"""Checksums and segmentation left to the other end, with the scripted peers in both roles: what is negotiated, what comes out finished where
it has to, and headers that cannot be right."""
import hashlib
import json
import pathlib
import struct

import pytest

from hostile.victim import Victim, stats, until
from interop.tcp_end import content as lines
from lab.frames import check, checksum, ipv4, numbered, tcp4
from lab.guest import Guest
from lab.proc import Proc, preload_env, require
from lab.testpmd import Testpmd
from lab.vhostpeer import BASIC, BackEnd, F, FrontEnd
from interop.port import port
from queues.remote import Program

TESTS = pathlib.Path(__file__).parent.parent
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
UDP = BIG[:14] + ipv4("10.7.0.1", "10.7.0.2", 17, struct.pack("!HHHH", 1, 2, 3008, 0) + content(3000))
BAD = {
    "no size": (header(1, TCP4, 54, 0, 34, 16), BIG),
    "a size that is none": (header(1, TCP4, 54, 0xffff, 34, 16), BIG),
    "another type": (header(1, 7, 54, 1000, 34, 16), BIG),
    "UDP": (header(1, 3, 54, 1000, 34, 16), BIG),
    "UDP that is cut": (header(1, 5, 42, 1000, 34, 6), UDP),
    "UDP of one piece": (header(1, 5, 42, 5000, 34, 6), UDP),
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


def lane(program):
    """The counters of a program's first queue pair."""
    return stats(program.pid)["lane"][0]["counters"]


class TcpEnd(Proc):
    """tcp_end.py under the preload, on a port with everything left to the other end."""

    address, mac = "10.9.0.2", "02:00:00:00:00:42"

    def __init__(self, path, mode, count):
        env = preload_env(port(path, mode="listen", dialect="virtio", offloads="all", mac=self.mac), TRACELEVEL="error")
        env["PYTHONPATH"] = str(TESTS)
        super().__init__(["/usr/bin/python3", TESTS / "interop/tcp_end.py", "pd0", self.address, self.mac, mode, count], env=env)
        self.expect("is ready")

    def saw(self):
        """What it saw of the connection, once it is over."""
        return json.loads(self.expect(r"^\{.*\}$", 120)[0])


@pytest.mark.parametrize("rings", ["split", "packed"])
@pytest.mark.parametrize("mode", ["headers", "plain"])
def test_a_guest_leaves_it_to_a_program(sock, mode, rings):
    """Debian's kernel and its TCP, both ways: with headers large segments and open checksums go through, without everything is finished."""
    sent, back = 300000, 200000
    with TcpEnd(sock, mode, back) as program, \
            Guest(sock, listen=False, ip="10.9.0.1/24", device=",packed=on" if rings == "packed" else "") as vm:
        features = vm.check("cat /sys/bus/virtio/devices/virtio0/features")
        assert all(features[bit] == "1" for bit in (0, 1, 7, 8, 11, 12))
        vm.check(f"seq 0 {sent} | head -c {sent} >/out")
        vm.check(f"nc {program.address} 2000 </out >/in", 120)
        saw = program.saw()
        assert saw["bytes"] == sent and saw["sha"] == hashlib.sha256(lines(sent)).hexdigest()
        assert vm.check("sha256sum /in").split()[0] == hashlib.sha256(lines(back)).hexdigest()
        assert saw["wrong"] == 0
        counters = lane(program)
        assert counters["rx_drop_malformed"] == 0
        if mode == "headers":
            assert saw["open"] and saw["large"] and saw["longest"] > 3000
            assert counters["rx_csum_done"] == counters["rx_segments"] == counters["tx_segments"] == 0
            assert counters["tx_gso"] == back // 20000 and counters["rx_gso"] == saw["large"]
        else:
            assert not saw["open"] and not saw["large"] and saw["longest"] <= 1514
            assert counters["rx_csum_done"] and counters["rx_segments"] and not counters["tx_csum"]


class Talker(Program):
    """A program with one packet socket on the port, everything left to the other end."""

    def __init__(self, sock, **keys):
        super().__init__(port(sock, mode="listen", dialect="virtio", offloads="all", **keys), PALLADIUM_SEND_WHEN_DOWN="wait")
        self.ask("s = packet('pd0')")
        self.ask("s.settimeout(20)")

    def lane(self):
        """The counters of its first queue pair."""
        return lane(self.popen)

    def give(self, frame, head=b""):
        """It sends this, behind a header if it has those."""
        assert self.ask(f"s.send({head[:10] + frame})") == len(head[:10] + frame)

    def recv(self, name="s"):
        """The next IPv4 frame, whole as its socket gives it."""
        return self.ask(f"next(f for f in iter(lambda: {name}.recv(70000), 0) if b'\\x08\\0' in (f[12:14], f[22:24]))")


def cutting(pmd):
    """testpmd takes frames in, swaps nothing, and sends them back to be finished by the other end, whole or to be cut to 500."""
    pmd.wait_link()
    pmd.command("port stop 0")
    pmd.command("csum set tcp hw 0")
    pmd.command("csum set ip sw 0")
    pmd.command("tso set 500 0")  # net_vhost says that it cannot, and does
    said = pmd.command("port start 0")
    assert "rror" not in said, said
    pmd.forward("csum")
    pmd.wait_link()


@pytest.mark.parametrize("peer", ["virtio-user", "vhost split", "vhost packed"])
def test_testpmd_leaves_checksums_and_segmentation_to_us(sock, peer):
    """DPDK's driver, with its csum engine, and its device."""
    require("dpdk-testpmd")
    kind, *rings = peer.split()
    keys = {"role": "frontend", "format": rings[0]} if rings else {}
    with Talker(sock, **keys) as program, (
            Testpmd.vhost(sock, client=True, extra=",tso=1") if rings else Testpmd.virtio_user(sock)) as pmd:
        cutting(pmd)
        for n in (100, 499, 500, 501, 1460, 1000):
            want = pieces(content(n), 500)
            program.give(tcp4(content(n), seq=7, flags=0x18, ident=9))
            got = [program.recv() for _ in want]
            # Addresses are testpmd's matter; identification, too, where nothing is cut.
            assert [g[34:] for g in got] == [w[34:] for w in want], n
            assert all(checksum(g[14:34]) == 0 for g in got)
        counters = program.lane()
        assert counters["rx_csum_done"] and counters["rx_gso"] == 3 and counters["rx_segments"] == 7


@pytest.mark.parametrize("rings", ["split", "packed"])
def test_testpmd_hands_on_what_we_leave_to_it(sock, rings):
    """DPDK's device, which hands frames on with what is left to do: as they were to who has headers, else cut. Of a large one DPDK makes
    the sum in the checksum's place anew, without the length."""
    require("dpdk-testpmd")
    payload = content(9000)
    with Talker(sock, role="frontend", format=rings) as program, \
            Testpmd.vhost(sock, client=True, mbufs=8192, extra=",tso=1,legacy-ol-flags=1") as pmd:
        pmd.forward("io")
        pmd.wait_link()
        program.ask("s.setsockopt(263, 15, 1)")
        frame, whole = tcp4(payload[:999], complete=False), tcp4(payload, seq=7, flags=0x18, ident=9, complete=False)
        for _ in range(20):
            program.give(frame, OPEN)
            assert program.recv() == OPEN[:10] + frame
            program.give(whole, large(1400))
            got = program.recv()
            assert got[:60] == (large(1400)[:10] + whole)[:60] and got[62:] == whole[52:]
        program.ask("plain = packet('pd0')")
        program.ask("plain.setsockopt(263, 23, 1)")  # not what s sends
        for _ in range(20):
            program.give(frame, OPEN)
            assert program.recv("plain") == tcp4(payload[:999])
            program.give(whole, large(1400))
            for want in pieces(payload, 1400):
                assert program.recv("plain") == want
        counters = program.lane()
        assert counters["tx_gso"] == counters["rx_gso"] == 40 and not counters["tx_segments"]


@pytest.mark.parametrize("rings", ["split", "packed"])
def test_testpmd_finishes_checksums_that_we_leave_to_it(sock, rings):
    """DPDK's device completes them when nobody behind it wants them open."""
    require("dpdk-testpmd")
    with Talker(sock, role="frontend", format=rings) as program, \
            Testpmd.vhost(sock, client=True, mbufs=8192, extra=",tso=1") as pmd:
        pmd.forward("io")
        pmd.wait_link()
        program.ask("s.setsockopt(263, 15, 1)")
        for n in (1, 2, 999, 1460):
            program.give(tcp4(content(n), complete=False), OPEN)
            assert program.recv() == bytes(10) + tcp4(content(n))
        program.give(tcp4(content(5000), complete=False), large(1000))  # and of the whole
        assert program.recv() == bytes(10) + tcp4(content(5000))
        assert program.lane()["tx_csum"] == 4 and program.lane()["tx_gso"] == 1
