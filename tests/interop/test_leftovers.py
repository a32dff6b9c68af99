# SPDX-License-Identifier: BSD-2-Clause
"""What a peer has sent before it went away is received, though the link is down by then."""
import pytest

from lab import vhostpeer as vp
from lab.avip import avip
from lab.proc import Proc, preload_env

# Reads only when told to: the frames are in the ring, and the link is down, before the first recv.
READER = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
s.settimeout(20)
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[1])):
    f = s.recv(4096)
    assert f[14:18] == i.to_bytes(4, "big"), (i, f[:18])
print("all there", flush=True)
"""


def frame(i, size):
    return b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + i.to_bytes(4, "big") + bytes(size - 18)


def reader(ports, n):
    env = preload_env(ports) | {"ASAN_OPTIONS": "detect_leaks=0"}  # Python's own
    return Proc(["/usr/bin/python3", "-c", READER, str(n)], env=env)


@pytest.mark.parametrize("size", [60, 1500])
def test_a_front_end_that_leaves(sock, size):
    n = 100
    with vp.FrontEnd(sock, hdr=48) as fe, reader(f"pd0=vhost-user:{sock}", n) as p:
        p.expect("ready")
        fe.start_like_qemu()
        for i in range(n):
            fe.send(frame(i, size), avip())
        fe.drop()
        p.expect("is down", 20)
        p.write("\n")
        p.expect("all there", 30)
        assert p.wait() == 0


@pytest.mark.parametrize("size", [60, 1500])
def test_a_back_end_that_leaves(sock, size):
    n = 100
    ports = f"pd0=vhost-user:{sock},mode=listen,role=frontend,ring=256"
    with reader(ports, n) as p:
        p.expect("ready")
        with vp.BackEnd(sock, hdr=48) as be:
            be.wait_started()
            for i in range(n):
                be.send(frame(i, size), avip())
        p.expect("is down", 20)
        p.write("\n")
        p.expect("all there", 30)
        assert p.wait() == 0
