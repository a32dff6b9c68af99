# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors whose closing waits for the peer. Whatever message they come with, they are refused, and nobody waits."""
import os
import signal
import socket
import struct

import pytest

from lab import served
from lab.vhostpeer import FrontEnd, Req
from lab.wire import HEADER, VERSION, PeerClosed, mem_table, u64
from hostile.victim import Victim, next_driver_is_served, serves

GONE = (PeerClosed, BrokenPipeError, ConnectionResetError)
# Where it comes: as what, of a region of so many bytes.
MESSAGES = {
    "memory": lambda fe, fd, size: fe.channel.send(Req.SET_MEM_TABLE, mem_table([(0x10000, size, 0x7f5500010000, 0)]), [fd]),
    "a kick": lambda fe, fd, size: fe.channel.send(Req.SET_VRING_KICK, u64(0), [fd]),
    "where none is due": lambda fe, fd, size: fe.channel.send(Req.GET_FEATURES, b"", [fd]),
    "inside a message": lambda fe, fd, size: (fe.channel.send_raw(HEADER.pack(Req.SET_FEATURES, VERSION, 8)),
                                              fe.channel.send_raw(u64(0), [fd])),
}


def attack(fe, program, name, fd, size=4096, then=lambda: None):
    """Send it, and have no descriptor of it here any more, and something done, before the program has it."""
    fe.get_features()
    program.signal(signal.SIGSTOP)
    MESSAGES[name](fe, fd, size)
    os.close(fd)
    then()
    program.signal(signal.SIGCONT)
    assert fe.channel.closed_by_peer()


def lingering():
    """A TCP socket with something to send that nobody takes, and which waits for that when it is closed; and the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        s = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    s.setblocking(False)
    try:
        while True:
            s.send(bytes(1 << 16))
    except BlockingIOError:
        return s.detach(), other


@pytest.mark.parametrize("name", MESSAGES)
def test_a_socket_that_lingers(sock, name):
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        fd, other = lingering()
        with other:
            attack(fe, program, name, fd)
            program.refused("a socket that is no Unix socket")
            next_driver_is_served(fe, program, fds)


@pytest.mark.skipif(served.missing() is not None, reason=str(served.missing()))
@pytest.mark.parametrize("seen", [True, False], ids=["in sight", "out of sight"])
@pytest.mark.parametrize("name", ["memory", "where none is due"])
def test_a_file_that_somebody_serves(sock, tmp_path, name, seen):
    with served.Served(tmp_path) as file, FrontEnd(sock) as fe, Victim(sock, setup=file.enter if seen else None) as program:
        serves(fe)
        fds = program.fds()
        attack(fe, program, name, file.fd, served.SIZE, file.silence)
        program.refused("a file of fuse" if seen else "a file of unknown type")
        next_driver_is_served(fe, program, fds)
        file.end()  # before it no process ends, killed or not, that has to close such a file: so the kernel has it
