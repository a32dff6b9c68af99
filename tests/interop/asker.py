# SPDX-License-Identifier: BSD-2-Clause
"""Asks a guest over one port after the other, as a program for the preload: each question that a port took is to be answered once.

    asker.py ADDRESS OUR_ADDRESS OUR_MAC GUEST_MAC PORT...

When told to begin, sends ICMP echo requests without pause by the first port that takes it; the answers hold what was asked, byte for byte. Says which port answers
first; at the end of its input waits for the last answers and prints what it saw as JSON.
"""
import json
import os
import select
import socket
import struct
import sys

from lab.frames import eth, icmp_echo, mac

AHEAD = 32  # questions under way, also when the guest is stopped; of many more a guest's kernel drops some
PATIENCE = 15  # seconds without an answer
IDENT = 0x7064


def data(n):
    """What question n carries: lengths of all sorts, and bytes that follow from n."""
    return struct.pack("!I", n) + bytes((n * 7 + i * 13) & 0xff for i in range(n * 37 % 1440))


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
        self.seen = set()
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
            if not self.answered[i]:
                print(f"{self.ports[i]} answers", flush=True)
            self.answered[i] += 1
        return True

    def run(self):
        """From the first line of the input to its end, then until all is answered."""
        os.read(0, 1)
        while not select.select([0], [], [], 0)[0]:
            while self.asked - len(self.seen) < AHEAD and self.ask():
                pass
            self.hear(0.003)
        while len(self.seen) < self.asked and self.hear(PATIENCE):
            pass
        self.hear(0.2)
        missing = sorted(set(range(self.asked)) - self.seen)
        print(json.dumps(self.saw | {"took": self.took, "answered": self.answered, "missing": missing}), flush=True)


if __name__ == "__main__":
    Asker(*sys.argv[1:]).run()
