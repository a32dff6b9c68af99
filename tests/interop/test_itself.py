# SPDX-License-Identifier: BSD-2-Clause
"""What a program does to itself while a peer is there: it changes its root, its user, its limits, its descriptors, forbids itself system
calls, or has signal handlers that call into the port. The link goes on, and so does the next one on the same path."""
import os

import pytest

from lab.avip import avip
from lab.frames import check, numbered
from lab.proc import Proc, build, preload_env
from lab.vhostpeer import FrontEnd
from hostile.victim import caught_up

ROUND = 5

PROGRAM = """
import ctypes, os, resource, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("pd0", 0))
def echo():
    for i in range(%d):
        s.send(s.recv(4096))
def forbid(*numbers):
    code = [(0x20, 0, 0, 0)]
    for n in numbers:
        code += [(0x15, 0, 1, n), (6, 0, 0, 0x50001)]
    code = b"".join(struct.pack("HBBI", *c) for c in code + [(6, 0, 0, 0x7fff0000)])
    class Program(ctypes.Structure):
        _fields_ = [("n", ctypes.c_ushort), ("code", ctypes.c_char_p)]
    assert not libc.prctl(38, 1, 0, 0, 0)
    assert not libc.prctl(22, 2, ctypes.byref(Program(len(code) // 8, code)))
print("ready", flush=True)
echo()
sys.stdin.readline()
%s
print("done", flush=True)
echo()
sys.stdin.readline()
%s
print("ready again", flush=True)
echo()
"""

# What it does, and what before the next peer comes.
WAYS = {
    "root": ('os.chroot("/proc/self/fdinfo"); os.chdir("/")', ""),
    "user": ("os.setgid(65534); os.setuid(65534)", ""),
    "namespaces": ("assert not libc.unshare(0x00020000 | 0x40000000 | 0x08000000 | 0x04000000)", ""),
    # open, clone, fork, execve, socket, connect, openat, execveat, clone3, openat2
    "no files, sockets or processes": ("forbid(2, 56, 57, 59, 41, 42, 257, 322, 435, 437)", ""),
    "no descriptors": ("hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))",
                       "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))"),
    "every other number closed": ("os.closerange(3, s.fileno()); os.closerange(s.fileno() + 1, 65536)", ""),
    "every other number its own": (
        "own = [n for n in range(3, 1024) if n != s.fileno()]\n"
        "for n in own: os.dup2(0, n)", "for n in own: os.close(n)"),
}
ROOT = ["root", "user", "namespaces"]


def starts(fe):
    """A new driver."""
    fe.drop()
    fe.reset_rings()
    fe.start_like_qemu()
    fe.post_rx([2048] * 32)


def goes_to_and_fro(fe, first):
    """A round of frames."""
    for n in range(first, first + ROUND):
        fe.send(numbered(n, 60), avip())
        assert check(fe.recv().frame) == n


@pytest.mark.parametrize("way", WAYS)
def test_the_link_goes_on(sock, sockdir, way):
    if way in ROOT and os.geteuid():
        pytest.skip("only root may do that")
    os.chmod(sockdir, 0o755)
    env = preload_env(f"pd0=vhost-user:{sock},mode=listen") | {"ASAN_OPTIONS": "detect_leaks=0"}  # Python's own
    with Proc(["/usr/bin/python3", "-c", PROGRAM % (ROUND, *WAYS[way])], env=env) as p, FrontEnd(sock, listen=False) as fe:
        p.expect("ready")
        starts(fe)
        goes_to_and_fro(fe, 0)
        p.write("\n")
        p.expect("done")
        goes_to_and_fro(fe, 100)
        p.write("\n")
        p.expect("ready again")
        starts(fe)
        goes_to_and_fro(fe, 200)
        assert p.wait() == 0


def test_handlers_that_call(sock):
    """A thousand of them a second, in any call of the port."""
    with Proc([build("tests/interop/handlers"), "400"], env=preload_env(f"pd0=vhost-user:{sock},mode=listen")) as p, \
            FrontEnd(sock, listen=False) as fe:
        p.expect("ready")
        starts(fe)
        for n in range(100):
            fe.send(numbered(n, 60), avip())
        p.expect("over")
        caught_up(fe)
        goes_to_and_fro(fe, 200)
        starts(fe)
        caught_up(fe)
        goes_to_and_fro(fe, 300)
        assert p.running
