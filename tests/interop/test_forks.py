# SPDX-License-Identifier: BSD-2-Clause
"""A program that forks with frames in its rings: they are the parent's. The child gives nothing back to the peer, and the
parent goes on as if nothing had been."""
import pytest

from lab import vhostpeer as vp
from lab.avip import avip
from lab.frames import check, numbered
from lab.proc import Proc, preload_env
from lab.vhostpeer import BASIC, F

FRAMES = 40
MORE = 300  # more than a ring has room for

# Forks when told to, with frames in the ring that nobody has received; then it echoes.
FORKER = """
import os, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
print("ready", flush=True)
sys.stdin.readline()
pid = os.fork()
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("forked", flush=True)
sys.stdin.readline()
s.settimeout(20)
for i in range(int(sys.argv[1])):
    s.send(s.recv(4096))
sys.stdin.readline()
"""


def forker(ports):
    env = preload_env(ports) | {"ASAN_OPTIONS": "detect_leaks=0"}  # Python's own
    return Proc(["/usr/bin/python3", "-c", FORKER, str(FRAMES + MORE)], env=env)


def forms():
    return pytest.mark.parametrize("features", [BASIC, BASIC | F.RING_PACKED], ids=["split", "packed"])


def forked(p):
    """It forks, and its child has come and gone."""
    p.write("\n")
    p.expect("forked")


@forms()
def test_frames_of_a_front_end(sock, features):
    with vp.FrontEnd(sock, features=features) as fe, forker(f"pd0=vhost-user:{sock}") as p:
        p.expect("ready")
        fe.start_like_qemu()
        fe.post_rx([2048] * 64)
        for i in range(FRAMES):
            fe.send(numbered(i, 60), avip())
        forked(p)
        assert not fe.sent()  # all of them are the program's still
        p.write("\n")
        for i in range(FRAMES):
            assert check(fe.recv().frame) == i
        assert len(fe.wait_sent(FRAMES)) == FRAMES
        for i in range(FRAMES, FRAMES + MORE):
            fe.send(numbered(i, 60), avip())
            assert check(fe.recv().frame) == i
        p.write("\n")
        assert p.wait() == 0


@forms()
def test_frames_of_a_back_end(sock, features):
    form = "packed" if features & F.RING_PACKED else "split"
    ports = f"pd0=vhost-user:{sock},mode=listen,role=frontend,ring=256,format={form}"
    with forker(ports) as p:
        p.expect("ready")
        with vp.BackEnd(sock, features=features) as be:
            be.wait_started()
            for i in range(FRAMES):
                be.send(numbered(i, 60), avip())
            forked(p)
            p.write("\n")
            for i in range(FRAMES):
                assert check(be.recv().frame) == i
            for i in range(FRAMES, FRAMES + MORE):
                be.send(numbered(i, 60), avip())
                assert check(be.recv().frame) == i
            p.write("\n")
            assert p.wait() == 0
