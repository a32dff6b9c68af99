# SPDX-License-Identifier: BSD-2-Clause
"""What some peers take of what all have to share: another one, that comes then, is served all the same."""
import contextlib
import os

from lab.frames import check, numbered
from lab.proc import Proc, preload_env
from lab.vhostpeer import FrontEnd
from lab.wire import P, Req, mem_table

GREEDY, SLOTS, SIZE = 9, 508, 4096

# Sends each frame back on the port that it came from.
PROGRAM = f"""
import select, socket
p, socks = select.poll(), {{}}
for i in range({GREEDY + 1}):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((f"pd{{i}}", 0))
    p.register(s, select.POLLIN)
    socks[s.fileno()] = s
print("ready", flush=True)
while True:
    for fd, _ in p.poll():
        socks[fd].send(socks[fd].recv(4096))
"""


def start(fe):
    """A new driver on a new connection, when the last one's port is free: it gets that one again."""
    fe.new_driver()
    fe.start_like_qemu()
    fe.post_rx([2048] * 8)


def peer(sock):
    """One that is up, by memory slots."""
    fe = FrontEnd(sock, listen=False, protocol=P.MEM_SLOTS | P.REPLY_ACK)
    start(fe)
    return fe


def takes_all_slots(fe, fd):
    """As many regions as a peer may have; returns whether it got the last."""
    at = fe.memory.regions[0].gpa + (1 << 32)
    rows = [bytes(8) + mem_table([(at + 2 * k * SIZE, SIZE, (1 << 46) + 2 * k * SIZE, k * SIZE)])[8:] for k in range(SLOTS)]
    return [fe.channel.request(Req.ADD_MEM_REG, r, [fd], need_reply=True).u64 for r in rows][-1] == 0


def echoes(fe, n):
    fe.send(numbered(n, 60))
    assert check(fe.recv().frame) == n


@contextlib.contextmanager
def crowd(sock):
    """The program, and nine peers that are up with 509 regions each; a function that gives a peer all that it may have."""
    ports = ";".join(f"pd{i}=vhost-user:{sock},mode=listen" for i in range(GREEDY + 1))
    fd = os.memfd_create("slots", os.MFD_CLOEXEC)
    os.ftruncate(fd, SLOTS * SIZE)
    with Proc(["/usr/bin/python3", "-c", PROGRAM], env=preload_env(ports)) as p, contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        p.expect("ready")
        greedy = [stack.enter_context(peer(sock)) for _ in range(GREEDY)]
        assert all([takes_all_slots(fe, fd) for fe in greedy])
        yield p, greedy, lambda fe: takes_all_slots(fe, fd)


def test_peers_with_all_their_slots(sock):
    """The tenth has room for its own regions, as often as it comes."""
    with crowd(sock) as (p, greedy, _):
        for n in range(3):
            with peer(sock) as fe:
                echoes(fe, n)
        for n, fe in enumerate(greedy):
            echoes(fe, n)
        assert p.running
