# SPDX-License-Identifier: BSD-2-Clause
"""Frames to send and to recognise: numbered test frames, ARP, IPv4, ICMP, UDP."""
import socket
import struct
import zlib

BROADCAST = b"\xff" * 6
ETH_TEST = 0x88b5


def mac(text):
    """"02:00:..." to bytes."""
    return bytes.fromhex(text.replace(":", ""))


def numbered(n, size, dst=b"\x02\0\0\0\0\x02", src=b"\x02\0\0\0\0\x01", proto=ETH_TEST):
    """A frame of exactly `size` bytes (at least 26) whose bytes follow from n, with a CRC."""
    body = struct.pack("!II", n, size)
    filler = bytes((n + i * 13) & 0xff for i in range(size - 26)) if size > 26 else b""
    head = dst + src + struct.pack("!H", proto) + body + filler
    return head + struct.pack("!I", zlib.crc32(head))


def check(frame):
    """The number of a numbered() frame, all of whose bytes are right, whatever its addresses."""
    n, size = struct.unpack_from("!II", frame, 14)
    want = numbered(n, size)
    if len(frame) != size or frame[12:-4] != want[12:-4]:
        raise AssertionError(f"frame {n}: {len(frame)} bytes, altered or cut")
    return n


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def eth(dst, src, proto, payload):
    """An Ethernet frame, padded to 60 bytes."""
    return (dst + src + struct.pack("!H", proto) + payload).ljust(60, b"\0")


def arp(op, sha, spa, tha, tpa, dst=BROADCAST):
    """An ARP frame; op 1 request, 2 reply; addresses as dotted text."""
    body = struct.pack("!HHBBH", 1, 0x800, 6, 4, op)
    body += sha + socket.inet_aton(spa) + tha + socket.inet_aton(tpa)
    return eth(dst, sha, 0x806, body)


def ipv4(src, dst, proto, payload, ttl=64, ident=0):
    """An IPv4 packet without options."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, 0x4000, ttl, proto, 0,
                       socket.inet_aton(src), socket.inet_aton(dst))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def pseudo_sum(src, dst, proto, length):
    """The sum of a pseudo header over IPv4, not complemented: what an open checksum has in its field."""
    head = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!HH", proto, length)
    return ~checksum(head) & 0xffff


def tcp4(payload, src="10.7.0.1", dst="10.7.0.2", seq=0, flags=0x10, ident=0, complete=True):
    """A frame with a TCP segment; its checksum open, with the sum of the pseudo header in the field, unless complete."""
    head = struct.pack("!HHIIBBHHH", 1000, 2000, seq & 0xffffffff, 0, 5 << 4, flags, 500,
                       pseudo_sum(src, dst, 6, 20 + len(payload)), 0)
    if complete:
        head = head[:16] + struct.pack("!H", checksum(head + payload)) + head[18:]
    return (b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" +
            ipv4(src, dst, 6, head + payload, ident=ident & 0xffff))


def icmp_echo(src, dst, ident, seq, data=b"", reply=False):
    """An IPv4 packet with an ICMP echo request or reply."""
    msg = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, ident, seq) + data
    return ipv4(src, dst, 1, msg[:2] + struct.pack("!H", checksum(msg)) + msg[4:])


def responder(address, our_mac):
    """answer(frame) -> frame or None: ARP and ICMP echo for one address, in Python."""
    ip = socket.inet_aton(address)

    def answer(frame):
        proto = frame[12:14]
        if proto == b"\x08\x06" and frame[20:22] == b"\0\x01" and frame[38:42] == ip:
            return arp(2, our_mac, address, frame[22:28], socket.inet_ntoa(frame[28:32]),
                       dst=frame[6:12])
        if proto == b"\x08\0" and frame[23] == 1 and frame[30:34] == ip and frame[34] == 8:
            end = 14 + struct.unpack_from("!H", frame, 16)[0]
            msg = b"\0\0\0\0" + frame[38:end]
            msg = msg[:2] + struct.pack("!H", checksum(msg)) + msg[4:]
            packet = ipv4(address, socket.inet_ntoa(frame[26:30]), 1, msg)
            return eth(frame[6:12], our_mac, 0x800, packet)
        return None
    return answer
