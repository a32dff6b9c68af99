# SPDX-License-Identifier: BSD-2-Clause
"""Namespaces, veth pairs and processes; the responder example serves as the program."""
import os
import sys

import pytest

from lab.ns import Network
from lab.proc import Proc, ProcTimeout, Together, build, run

ASK = """
import socket, sys
sys.path.insert(0, sys.argv[1])
from lab import frames
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("va", 0)); s.settimeout(10)
me = s.getsockname()[4]
def answer(frame, proto):
    s.send(frame)
    while True:
        got, who = s.recvfrom(2048)
        if who[2] != socket.PACKET_OUTGOING and got[12:14] == proto: return got
got = answer(frames.arp(1, me, "10.1.0.1", bytes(6), "10.1.0.9"), b"\\x08\\x06")
mac = got[6:12]
assert got == frames.arp(2, mac, "10.1.0.9", me, "10.1.0.1", dst=me), got.hex()
for size in (0, 1, 56, 1472):
    ask = frames.icmp_echo("10.1.0.1", "10.1.0.9", 7, size, bytes(i & 255 for i in range(size)))
    want = frames.icmp_echo("10.1.0.9", "10.1.0.1", 7, size, bytes(i & 255 for i in range(size)), True)
    got = answer(frames.eth(mac, me, 0x800, ask), b"\\x08\\x00")
    assert got == frames.eth(me, mac, 0x800, want), got.hex()
print("answered")
"""


def test_responder_over_veth():
    """The example answers over a kernel interface, so that what it does under the preload can be
    compared."""
    program = build("examples/responder")
    with Network() as net, Together() as procs:
        a, b = net.namespace(), net.namespace()
        net.veth(a, "va", b, "vb")
        responder = procs.start([program, "vb", "10.1.0.9"], wrap=b.wrap)
        responder.expect("is ready")
        tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        code, out = a.run([sys.executable, "-c", ASK, tests])
        assert (code, out) == (0, "answered\n")
        responder.terminate()
        assert responder.wait() == 0
        responder.expect(": 5 answers")


def test_namespaces_are_gone_afterwards():
    with Network() as net:
        space = net.namespace()
        assert "lo" in space.check("ip", "link")
        pid = space.pid
    assert not os.path.exists(f"/proc/{pid}")


def test_proc_bounds_and_output():
    with Proc(["sh", "-c", "echo one; read x; echo got $x; exit 3"]) as p:
        p.expect("^one$")
        with pytest.raises(ProcTimeout):
            p.expect("^two$", 0.05)
        p.write("this\n")
        p.expect("got this")
        assert p.wait() == 3
        with pytest.raises(ProcTimeout, match="ended"):
            p.expect("more")
    assert run(["false"])[0] == 1
    with Proc(["cat"]) as p:
        assert p.kill() == -9
