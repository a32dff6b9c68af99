# SPDX-License-Identifier: BSD-2-Clause
"""Asks a guest over one port after the other, as a program for the preload: each question that a port took is to be answered once.

    asker.py ADDRESS OUR_ADDRESS OUR_MAC GUEST_MAC PORT...

At the first byte of its input begins to send ICMP echo requests without pause by the first port that takes it; the answers hold what was
asked, byte for byte. Says which port answers first. At an "s" sends stream() to TCP port 5000 as well, and says when the guest has it. At an
"l" takes what has no answer for lost, since the guest was reset, asks on, and says which port answers first now. At the end of its input waits
for the last answers and prints what it saw as JSON.
"""
import json
import os
import select
import socket
import struct
import sys

from lab.frames import checksum, eth, icmp_echo, ipv4, mac, pseudo_sum

AHEAD = 32  # questions under way, also when the guest is stopped; of many more a guest's kernel drops some
PATIENCE = 15  # seconds without an answer
IDENT = 0x7064
SYN, ACK, SEGMENT = 2, 0x10, 1448


def data(n):
    """What question n carries: lengths of all sorts, and bytes that follow from n."""
    return struct.pack("!I", n) + bytes((n * 7 + i * 13) & 0xff for i in range(n * 37 % 1440))


def stream():
    """What goes over TCP: as much as a guest's kernel holds for a program that does not read it."""
    return b"".join(b"%07d\n" % n for n in range(40 * SEGMENT // 8))


class Asker:
    """The sockets, and what was asked and answered."""

    def __init__(self, address, our_address, our_mac, guest_mac, *ports):
        self.route = our_address, address
        self.macs = mac(guest_mac), mac(our_mac)
        self.ports = ports
        self.sockets = []
        for name in ports:
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.bind((name, 3))
            s.setblocking(False)
            self.sockets.append(s)
        self.asked = 0
        self.took = [0] * len(ports)
        self.answered = [0] * len(ports)
        self.seen, self.lost = set(), set()
        self.quiet = True
        self.streamed = False
        self.saw = {"twice": [], "wrong": 0, "rarp": []}

    def ask(self):
        """The next question, by the first port that takes it; whether one does."""
        packet = icmp_echo(*self.route, IDENT, self.asked & 0xffff, data(self.asked))
        for i, s in enumerate(self.sockets):
            try:
                s.send(eth(*self.macs, 0x800, packet))
            except OSError:
                continue
            self.took[i] += 1
            self.asked += 1
            return True
        return False

    def hear(self, timeout):
        """Whatever there is now, or comes first in this time; whether an answer was among it."""
        answers = False
        for s in select.select(self.sockets, [], [], timeout)[0]:
            while True:
                try:
                    frame = s.recv(2000)
                except OSError:
                    break
                answers |= self.take(self.sockets.index(s), frame)
        return answers

    def take(self, i, frame):
        """One frame that came by port i; whether it is an answer."""
        if frame[12:14] == b"\x80\x35":
            self.saw["rarp"].append([self.ports[i], frame.hex()])
        if frame[12:14] == b"\x08\0" and frame[23] == 6:
            self.take_segment(frame)
        if frame[12:14] != b"\x08\0" or frame[23] != 1 or frame[34] != 0:
            return False
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        n = struct.unpack_from("!I", frame, 42)[0]
        if n >= self.asked or frame[42:end] != data(n):
            self.saw["wrong"] += 1
        elif n in self.seen:
            self.saw["twice"].append(n)
        else:
            self.seen.add(n)
            self.lost.discard(n)
            if self.quiet or not self.answered[i]:
                print(f"{self.ports[i]} answers", flush=True)
            self.answered[i] += 1
            self.quiet = False
        return True

    def segment(self, flags, seq, ack=0, payload=b""):
        """Send a segment by the first port."""
        ours, guest = self.route
        tcp = struct.pack("!HHIIBBHHH", 5000, 5000, seq, ack, 5 << 4, flags, 64000,
                          pseudo_sum(ours, guest, 6, 20 + len(payload)), 0)
        tcp = tcp[:16] + struct.pack("!H", checksum(tcp + payload)) + tcp[18:] + payload
        self.sockets[0].send(eth(*self.macs, 0x800, ipv4(ours, guest, 6, tcp)))

    def take_segment(self, frame):
        """Send all when the guest takes the connection, and say when it has all."""
        seq, ack = struct.unpack_from("!II", frame, 38)
        data = stream()
        if frame[47] & SYN:
            for at in range(0, len(data), SEGMENT):
                self.segment(ACK, 1 + at, seq + 1, data[at:at + SEGMENT])
        elif ack == 1 + len(data) and not self.streamed:
            self.streamed = True
            print("the stream is there", flush=True)

    def told(self):
        """Do what the input says; whether it goes on."""
        if not select.select([0], [], [], 0)[0]:
            return True
        word = os.read(0, 1)
        if word == b"s":
            self.segment(SYN, 0)
        if word == b"l":
            self.lost |= self.waiting()
            self.quiet = True
        return bool(word)

    def waiting(self):
        """The questions that have no answer."""
        return set(range(self.asked)) - self.seen

    def run(self):
        """From the first byte of the input to its end, then until all is answered."""
        os.read(0, 1)
        while self.told():
            while self.asked - len(self.seen) - len(self.lost) < AHEAD and self.ask():
                pass
            self.hear(0.003)
        while self.waiting() - self.lost and self.hear(PATIENCE):
            pass
        self.hear(0.2)
        print(json.dumps(self.saw | {"took": self.took, "answered": self.answered, "missing": sorted(self.waiting() - self.lost),
                                     "lost": len(self.lost)}), flush=True)


if __name__ == "__main__":
    Asker(*sys.argv[1:]).run()
