# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors whose closing waits for the peer. Whatever message they come with, they are refused; wherever they are, nobody waits."""
import contextlib
import functools
import os
import socket
import struct

import pytest

from lab import served
from lab.vhostpeer import FrontEnd, Req
from lab.wire import HEADER, VERSION, mem_table, u64
from hostile.victim import Victim, echoes, next_driver_is_served, serves

# What it comes as, of a region of so many bytes.
MESSAGES = {
    "memory": lambda fe, fd, size=4096: fe.channel.send(Req.SET_MEM_TABLE, mem_table([(0x10000, size, 0x7f5500010000, 0)]), [fd]),
    "a dirty log": lambda fe, fd, size=4096: fe.channel.send(Req.SET_LOG_BASE, struct.pack("<QQ", size, 0), [fd]),
    "what is in flight": lambda fe, fd, size=4096: fe.channel.send(Req.SET_INFLIGHT_FD, struct.pack("<QQHH", size, 0, 2, 256), [fd]),
    "a kick": lambda fe, fd, size=4096: fe.channel.send(Req.SET_VRING_KICK, u64(0), [fd]),
    "where none is due": lambda fe, fd, size=4096: fe.channel.send(Req.GET_FEATURES, b"", [fd]),
    "inside a message": lambda fe, fd, size=4096: (fe.channel.send_raw(HEADER.pack(Req.SET_FEATURES, VERSION, 8)),
                                                   fe.channel.send_raw(u64(0), [fd])),
}


def beyond(fe, fd):
    """One more than any message may have."""
    fds = [os.eventfd(0) for _ in range(8)]
    fe.channel.send(Req.GET_FEATURES, b"", [*fds, fd])
    for other in fds:
        os.close(other)


def unread(fe, fd):
    """Where nobody reads it: behind a fault, and behind one that is harmless."""
    harmless = os.eventfd(0)
    fe.channel.send_raw(HEADER.pack(0, VERSION, 0))
    fe.channel.send(Req.SET_VRING_CALL, u64(0), [harmless])
    fe.channel.send(Req.SET_VRING_KICK, u64(0), [fd])
    os.close(harmless)


def inside_a_socket(fe, fd, request=Req.SET_VRING_KICK):
    """In a Unix socket, which is let in, as a kick and as a channel."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [fd])
        fe.channel.send(request, u64(0) if request == Req.SET_VRING_KICK else b"", [theirs.fileno()])
        fe.channel.send_raw(HEADER.pack(0, VERSION, 0))


def urgent(fe, fd):
    """With a byte that reads step over: urgent ones stand outside of the stream, unless that is asked for otherwise."""
    fe.channel.sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))], socket.MSG_OOB)


# The same for descriptors that the kernel itself would close, in a call of the program's that is no close of theirs.
PLACES = {
    "the ninth": (beyond, "socket that is no Unix stream"),
    "never read": (unread, "unknown request"),
    "urgent": (urgent, "socket that is no Unix stream"),
    "inside a kick": (inside_a_socket, ""),
    "inside a channel": (lambda fe, fd: inside_a_socket(fe, fd, Req.SET_BACKEND_REQ_FD), ""),
}


def attack(fe, program, send, fd, then=lambda: None):
    """Have it sent by send(fe, fd), no descriptor of it here any more, and something done, before the program has it."""
    fe.get_features()
    with program.stopped():
        send(fe, fd)
        os.close(fd)
        then()
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


def attack_lingering(fe, program, send):
    """The same with such a socket. Returns the other end of it, to close."""
    fd, other = lingering()
    attack(fe, program, send, fd)
    return other


def refuses_lingering(sock, send, reason):
    """It is refused for this reason, and the next driver is served."""
    with FrontEnd(sock) as fe, Victim(sock) as program:
        serves(fe)
        fds = program.fds()
        with attack_lingering(fe, program, send):
            program.refused(reason)
            next_driver_is_served(fe, program, fds)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_socket_that_lingers(sock, name):
    refuses_lingering(sock, MESSAGES[name], "a socket that is no Unix stream socket")


@pytest.mark.parametrize("place", PLACES)
def test_one_that_nobody_closes(sock, place):
    refuses_lingering(sock, *PLACES[place])


@contextlib.contextmanager
def in_the_crowd(path, leaves=False):
    """Somebody has connected to a path whose port is taken, has left one there, and stays for now, or not."""
    fd, other = lingering()
    with other, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as newcomer:
        newcomer.connect(path)
        socket.send_fds(newcomer, [HEADER.pack(Req.GET_FEATURES, VERSION, 0)], [fd])
        os.close(fd)
        if leaves:
            newcomer.close()
        yield


@pytest.mark.parametrize("many, leaves", [(12, False), (40, True)], ids=["stays", "leaves"])
def test_one_in_the_crowd(sock, many, leaves):
    """Of as many as are kept, and more; the driver that is served notices nothing, and the path serves the next."""
    with FrontEnd(sock, listen=False) as fe, Victim(sock, mode="listen") as program:
        serves(fe)
        fds = program.fds()
        with contextlib.ExitStack() as others:
            for n in range(many):
                others.enter_context(in_the_crowd(sock, leaves))
                echoes(fe, n, 1)
        next_driver_is_served(fe, program, fds)


@pytest.mark.skipif(served.missing() is not None, reason=str(served.missing()))
@pytest.mark.parametrize("seen", [True, False], ids=["in sight", "out of sight"])
@pytest.mark.parametrize("name", ["memory", "a dirty log", "what is in flight", "where none is due"])
def test_a_file_that_somebody_serves(sock, tmp_path, name, seen):
    with served.Served(tmp_path) as file, FrontEnd(sock) as fe, Victim(sock, setup=file.enter if seen else None) as program:
        serves(fe)
        fds = program.fds()
        attack(fe, program, functools.partial(MESSAGES[name], size=served.SIZE), file.fd, file.silence)
        program.refused("a file of fuse" if seen else "a file of unknown type")
        next_driver_is_served(fe, program, fds)
        file.end()  # before it no process ends, killed or not, that has to close such a file: so the kernel has it
