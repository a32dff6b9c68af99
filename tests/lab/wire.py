# SPDX-License-Identifier: BSD-2-Clause
"""vhost-user messages: names, packing, and a channel that can also send nonsense.

A message is a header of three little-endian u32 (request, flags, payload size), the payload, and
file descriptors that travel with the first byte. Channel.send() makes correct ones and lets every
field be overridden; Channel.send_raw() writes any bytes in any pieces.
"""
import array
import enum
import os
import socket
import struct
import time
from typing import NamedTuple

HEADER = struct.Struct("<III")
VERSION = 0x1
REPLY = 0x4
NEED_REPLY = 0x8
NO_FD = 0x100


class Req(enum.IntEnum):
    """Requests from the front-end."""
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


class F:
    """Feature bits."""
    CSUM = 1 << 0
    GUEST_CSUM = 1 << 1
    MTU = 1 << 3
    MAC = 1 << 5
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_ECN = 1 << 9
    GUEST_UFO = 1 << 10
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_ECN = 1 << 13
    HOST_UFO = 1 << 14
    MRG_RXBUF = 1 << 15
    STATUS = 1 << 16
    CTRL_VQ = 1 << 17
    GUEST_ANNOUNCE = 1 << 21
    MQ = 1 << 22
    LOG_ALL = 1 << 26
    ANY_LAYOUT = 1 << 27
    INDIRECT = 1 << 28
    EVENT_IDX = 1 << 29
    PROTOCOL = 1 << 30
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35


class P:
    """Protocol feature bits."""
    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    RARP = 1 << 2
    REPLY_ACK = 1 << 3
    NET_MTU = 1 << 4
    BACKEND_REQ = 1 << 5
    CROSS_ENDIAN = 1 << 6
    PAGEFAULT = 1 << 8
    CONFIG = 1 << 9
    BACKEND_SEND_FD = 1 << 10
    HOST_NOTIFIER = 1 << 11
    INFLIGHT = 1 << 12
    RESET_DEVICE = 1 << 13
    INBAND = 1 << 14
    MEM_SLOTS = 1 << 15
    STATUS = 1 << 16


class Msg(NamedTuple):
    """A received message; whoever receives it owns the descriptors in fds."""
    req: int
    flags: int
    payload: bytes
    fds: list

    @property
    def u64(self):
        """The payload as one u64."""
        return struct.unpack("<Q", self.payload)[0]


class PeerClosed(ConnectionError):
    """The other end closed the socket."""


class PeerTimeout(TimeoutError):
    """The other end did not do what was waited for in time."""


def u64(value):
    """Pack one u64."""
    return struct.pack("<Q", value)


def vring_state(index, num):
    """Payload of SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE, GET_VRING_BASE."""
    return struct.pack("<II", index, num)


def vring_addr(index, desc, used, avail, flags=0, log=0):
    """Payload of SET_VRING_ADDR; the ring addresses are front-end virtual addresses."""
    return struct.pack("<IIQQQQ", index, flags, desc, used, avail, log)


def mem_table(regions, count=None):
    """Payload of SET_MEM_TABLE from (gpa, size, uva, mmap_offset) tuples; count may lie."""
    head = struct.pack("<II", len(regions) if count is None else count, 0)
    return head + b"".join(struct.pack("<QQQQ", *r) for r in regions)


class Channel:
    """One vhost-user connection.

    timeout bounds every receive, in seconds. log holds (direction, request) of all that passed.
    """

    def __init__(self, sock, timeout=10.0):
        self.sock = sock
        self.timeout = timeout
        self.log = []
        sock.setblocking(True)
        sock.settimeout(timeout)

    def fileno(self):
        """The socket's descriptor, for select()."""
        return self.sock.fileno()

    def send(self, req, payload=b"", fds=(), *, flags=VERSION, size=None, need_reply=False):
        """Send one message; size overrides the header's size field."""
        if need_reply:
            flags |= NEED_REPLY
        head = HEADER.pack(req, flags, len(payload) if size is None else size)
        self.log.append((">", int(req)))
        self.send_raw(head + payload, fds)

    def send_raw(self, data, fds=(), pieces=None):
        """Send bytes as they are; fds go with the first byte.

        pieces cuts the data: a list of lengths, each written by its own call, the rest by a last
        one. Concatenate several messages in data to have them coalesced.
        """
        ancillary = []
        if fds:
            rights = array.array("i", fds).tobytes()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        view, at = memoryview(data), 0
        for length in list(pieces or []) + [None]:
            piece = view[at:] if length is None else view[at:at + length]
            at += len(piece)
            while len(piece):
                sent = self.sock.sendmsg([piece], ancillary)
                ancillary, piece = [], piece[sent:]

    def _read(self, length, fds):
        data = b""
        while len(data) < length:
            try:
                got, anc, _, _ = self.sock.recvmsg(length - len(data), socket.CMSG_SPACE(64 * 4))
            except (TimeoutError, BlockingIOError):
                raise PeerTimeout(f"{len(data)} of {length} bytes of a message") from None
            except ConnectionResetError:
                raise PeerClosed("reset") from None
            for level, kind, rights in anc:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.extend(array.array("i", rights[:len(rights) // 4 * 4]))
            if not got:
                raise PeerClosed(f"end of stream after {len(data)} of {length} bytes")
            data += got
        return data

    def recv(self, timeout=None):
        """Receive one message; raises PeerClosed or PeerTimeout."""
        self.sock.settimeout(self.timeout if timeout is None else timeout)
        fds = []
        try:
            req, flags, size = HEADER.unpack(self._read(HEADER.size, fds))
            payload = self._read(size, fds) if size else b""
        except Exception:
            close_fds(fds)
            raise
        finally:
            self.sock.settimeout(self.timeout)
        self.log.append(("<", req))
        return Msg(req, flags, payload, fds)

    def request(self, req, payload=b"", fds=(), **kw):
        """Send a message and return its reply, whose request and flags are checked."""
        self.send(req, payload, fds, **kw)
        msg = self.recv()
        if msg.req != req or msg.flags & 0x7 != VERSION | REPLY:
            raise AssertionError(f"reply to {req!r} is {msg}")
        return msg

    def closed_by_peer(self, timeout=None):
        """Wait until the other end closes; anything it still sends is dropped. True if it did."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while (left := deadline - time.monotonic()) > 0:
            try:
                close_fds(self.recv(left).fds)
            except PeerClosed:
                return True
            except PeerTimeout:
                break
        return False

    def close(self):
        """Close the socket."""
        self.sock.close()


def close_fds(fds):
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)


class Listener:
    """A listening Unix socket; accept() gives a Channel."""

    def __init__(self, path, timeout=10.0, backlog=8):
        self.path, self.timeout = str(path), timeout
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(self.path)
        self.sock.listen(backlog)

    def accept(self, timeout=None):
        """Wait for one connection."""
        self.sock.settimeout(self.timeout if timeout is None else timeout)
        try:
            conn, _ = self.sock.accept()
        except TimeoutError:
            raise PeerTimeout(f"nobody connected to {self.path}") from None
        return Channel(conn, self.timeout)

    def close(self):
        """Close and remove the socket file."""
        self.sock.close()
        if os.path.exists(self.path):
            os.unlink(self.path)


def dial(path, timeout=10.0):
    """Connect to a listening peer, trying again until it is there; gives a Channel."""
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
            return Channel(sock, timeout)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if time.monotonic() > deadline:
                raise PeerTimeout(f"nobody listens on {path}") from None
            time.sleep(0.01)  # the retry interval; nothing relies on its length
