# SPDX-License-Identifier: BSD-2-Clause
"""One end of one TCP connection in a packet socket, as a program for the preload: no more TCP than a guest on a link without loss needs.

    tcp_end.py INTERFACE ADDRESS MAC headers|plain BYTES

Waits for a connection to ADDRESS, takes what comes until the other end is done, sends BYTES back, and prints what it saw as JSON. With `headers` it has
PACKET_VNET_HDR: takes checksums as open and segments as large as they come, and sends such.
"""
import hashlib
import json
import socket
import struct
import sys

from lab.frames import checksum, mac, pseudo_sum, responder

FIN, SYN, ACK = 1, 2, 0x10
MTU_FRAME = 1514


def content(n):
    """What is sent, either way: lines that count up."""
    text = b"".join(b"%d\n" % i for i in range(n // 4))
    return text[:n]


class End:
    """The socket and the state of the connection."""

    def __init__(self, interface, address, ours, headers):
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        if headers:
            self.s.setsockopt(263, 15, 1)
        self.s.bind((interface, 3))
        self.s.settimeout(60)
        self.headers, self.address, self.mac = headers, address, mac(ours)
        self.answer = responder(address, self.mac)
        self.seq, self.ack, self.mss = 1000, 0, 1460
        self.unacked = self.window = 0
        self.saw = {"frames": 0, "open": 0, "large": 0, "longest": 0, "wrong": 0}

    def put(self, frame, flags=0, gso=0, size=0):
        """Send a frame, with its header if that is how we do it."""
        head = b""
        if self.headers:
            head = struct.pack("<BBHHHH", flags, gso, 54 * bool(gso), size, 34 * flags, 16 * flags)
        self.s.send(head + frame)

    def get(self):
        """The next TCP segment: (sequence, flags, payload). Answers ARP on the way."""
        while True:
            got = self.s.recv(70000)
            flags = gso = 0
            if self.headers:
                flags, gso = got[0], got[1]
                got = got[10:]
            if reply := self.answer(got):
                self.put(reply)
            ip = got[14:34]
            if got[12:14] != b"\x08\0" or ip[9] != 6 or socket.inet_ntoa(ip[16:20]) != self.address:
                continue
            tcp = got[34:14 + struct.unpack("!H", ip[2:4])[0]]
            self.note(ip, tcp, len(got), flags, gso)
            self.peer, self.peer_ip, self.port = got[6:12], socket.inet_ntoa(ip[12:16]), tcp[:2]
            self.here = tcp[2:4]
            seq, ack = struct.unpack("!II", tcp[4:12])
            self.unacked, self.window = (self.seq - ack) & 0xffffffff, struct.unpack("!H", tcp[14:16])[0]
            return seq, tcp[13], tcp[tcp[12] // 16 * 4:]

    def note(self, ip, tcp, length, flags, gso):
        """Count it, and see whether its checksums are what they should be."""
        self.saw["frames"] += 1
        self.saw["open"] += flags & 1
        self.saw["large"] += gso != 0
        self.saw["longest"] = max(self.saw["longest"], length)
        pseudo = pseudo_sum(socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20]), 6, len(tcp))
        right = (struct.unpack("!H", tcp[16:18])[0] == pseudo if flags & 1 else
                 checksum(struct.pack("!H", pseudo) + tcp) == 0)
        self.saw["wrong"] += not (right and checksum(ip) == 0)

    def say(self, flags, payload=b"", options=b""):
        """Send one segment; as large as it is, if it may."""
        length = 20 + len(options) + len(payload)
        pseudo = pseudo_sum(self.address, self.peer_ip, 6, length)
        tcp = self.here + self.port + struct.pack("!IIBBHHH", self.seq & 0xffffffff, self.ack & 0xffffffff,
                                                  (20 + len(options)) // 4 << 4, flags, 64000, pseudo, 0) + options + payload
        if not self.headers:
            tcp = tcp[:16] + struct.pack("!H", checksum(struct.pack("!H", pseudo) + tcp[:16] + b"\0\0" + tcp[18:])) + tcp[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0x4000, 64, 6, 0,
                         socket.inet_aton(self.address), socket.inet_aton(self.peer_ip))
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        frame = self.peer + self.mac + b"\x08\0" + ip + tcp
        large = self.headers and len(frame) > MTU_FRAME
        self.put(frame, int(self.headers), int(large), self.mss * large)
        self.seq += len(payload) + bool(flags & (SYN | FIN))


def main():
    """Serve one connection."""
    interface, address, ours, mode, count = sys.argv[1:]
    end = End(interface, address, ours, mode == "headers")
    print("is ready", flush=True)
    seq = flags = 0
    while not flags & SYN:
        seq, flags, _ = end.get()
    end.ack = seq + 1
    end.say(SYN | ACK, options=struct.pack("!BBH", 2, 4, 1460))
    data = b""
    while not flags & FIN:
        seq, flags, payload = end.get()
        skip = (end.ack - seq) & 0xffffffff  # of what came twice
        if skip > len(payload) or (skip == len(payload) and not flags & FIN):
            continue
        data += payload[skip:]
        end.ack = seq + len(payload) + bool(flags & FIN)
        end.say(ACK)
    out, size = content(int(count)), 20000 if end.headers else 1460
    end.unacked = 0
    for at in range(0, len(out), size):
        while end.unacked or end.window < size:  # one at a time, and never more than there is room for
            end.get()
        end.say(ACK, out[at:at + size])
        end.unacked = size
    end.say(FIN | ACK)
    end.saw |= {"bytes": len(data), "sha": hashlib.sha256(data).hexdigest()}
    print(json.dumps(end.saw), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
