# SPDX-License-Identifier: BSD-2-Clause
"""What the bodies of the socket tests have at hand (imported inside the program under test)."""
import array
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from socket import AF_PACKET, AF_UNIX, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, SOCK_DGRAM, SOCK_RAW

ETH_P_ALL = 3
ETH_P_TEST = 0x88B5
OTHER = 0x88B6
SOL_PACKET = 263
SOL_PALLADIUM = 0x5044
libc = ctypes.CDLL(None, use_errno=True)


def packet(iface=None, proto=ETH_P_ALL, kind=SOCK_RAW, flags=0):
    """A packet socket, bound when an interface is given."""
    s = socket.socket(AF_PACKET, kind | flags, socket.htons(proto))
    if iface:
        s.bind((iface, proto))
    return s


def frame(i=0, size=64, proto=ETH_P_TEST, dst=b"\xff" * 6, src=b"\x02\0\0\0\0\x01"):
    """A frame that tells its number."""
    body = struct.pack(">I", i) + bytes((i + k) & 255 for k in range(max(0, size - 18)))
    return dst + src + struct.pack(">H", proto) + body


def number(data):
    """The number that frame() put in."""
    return struct.unpack(">I", data[14:18])[0]


def attempt(fn, *args):
    """The result, or the name of the error."""
    try:
        return fn(*args)
    except socket.timeout:
        return "timeout"
    except OSError as e:
        return errno.errorcode.get(e.errno, e.errno)


def say(*args):
    print(*args, flush=True)


def mac(iface):
    with socket.socket(socket.AF_INET, SOCK_DGRAM) as s:
        r = fcntl.ioctl(s, 0x8927, struct.pack("16s24x", iface.encode()))
    return r[18:24]


def ready(s, events=select.POLLIN, timeout=5000):
    """The events that poll finds on one socket."""
    p = select.poll()
    p.register(s, events)
    got = p.poll(timeout)
    return got[0][1] if got else 0


def other_threads_run():
    """Whether one of the process's other threads is not asleep in the kernel."""
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/syscall", encoding="ascii") as f:
                if int(task) != threading.get_native_id() and f.read().startswith("running"):
                    return True
        except OSError:
            pass  # it has ended
    return False


def fork_at_rest(fork=os.fork):
    """fork, once no other thread runs, for a second at most. gcc 12's AddressSanitizer does not hold the locks of its allocator over
    a fork: a child that is made while another thread starts, or allocates, hangs in its own first allocation."""
    for _ in range(100):
        if not other_threads_run():
            break
        time.sleep(0.01)
    return fork()


if "libasan" in os.environ.get("LD_PRELOAD", ""):
    os.fork = fork_at_rest


def sleeping(call, *args):
    """A thread in a call that waits, already asleep in the kernel; its result comes by .result()."""
    def run():
        t.got.append(attempt(call, *args))
    def result():
        t.join()
        return t.got[0]
    t = threading.Thread(target=run, daemon=True)
    t.got, t.result = [], result
    t.start()
    for _ in range(500):
        # x86-64 and aarch64: epoll_wait, epoll_pwait, epoll_pwait2, ppoll, poll, pselect6, select
        try:
            with open(f"/proc/self/task/{t.native_id}/syscall", encoding="ascii") as f:
                now = f.read().split()[0]
        except OSError:
            now = ""
        if t.got or now in ("232", "281", "441", "271", "7", "270", "23", "22", "73", "72"):
            break
        time.sleep(0.01)
    return t


class timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]

    @classmethod
    def of(cls, seconds):
        return cls(int(seconds), int(round(seconds % 1 * 1e9)))


class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32),
                ("iov", ctypes.POINTER(iovec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", msghdr), ("len", ctypes.c_uint)]


class Messages:
    """An array for sendmmsg and recvmmsg: one buffer per message."""

    def __init__(self, buffers):
        self.buffers = [ctypes.create_string_buffer(b, len(b)) if isinstance(b, bytes)
                        else ctypes.create_string_buffer(b) for b in buffers]
        self.iov = (iovec * len(buffers))()
        self.array = (mmsghdr * len(buffers))()
        for i, b in enumerate(self.buffers):
            self.iov[i] = iovec(ctypes.addressof(b), len(b))
            self.array[i].hdr.iov = ctypes.pointer(self.iov[i])
            self.array[i].hdr.iovlen = 1

    def data(self, i):
        return self.buffers[i].raw[:self.array[i].len]


def checked(ret):
    """A libc result, or the name of the error."""
    return errno.errorcode[ctypes.get_errno()] if ret < 0 else ret


def sendmmsg(s, messages, flags=0):
    return checked(libc.sendmmsg(s.fileno(), messages.array, len(messages.array), flags))


def recvmmsg(s, messages, flags=0, timeout=None):
    ts = None if timeout is None else ctypes.byref(timespec.of(timeout))
    return checked(libc.recvmmsg(s.fileno(), messages.array, len(messages.array), flags, ts))


class Far:
    """The place of the other end: another process with an environment of its own, or, without one, a thread of this."""

    def __init__(self):
        env = os.environ.get("FAR_ENV")
        self.names, self.thread = dict(globals()), None
        self.process = None
        if env is None:
            return
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from prelude import *\nserve()", *sys.argv[1:]], env={**os.environ, **json.loads(env)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, source, **names):
        """Start to run it there."""
        if self.process:
            self.process.stdin.write(json.dumps([source, names]) + "\n")
            self.process.stdin.flush()
            return
        self.names.update(names)
        self.answer = None
        self.thread = threading.Thread(target=self.run, args=(source,))
        self.thread.start()

    def run(self, source):
        self.answer = evaluate(source, self.names)

    def end(self):
        """What came of it, as text."""
        if self.process:
            return json.loads(self.process.stdout.readline())
        self.thread.join()
        return self.answer

    def __call__(self, source, **names):
        self.begin(source, **names)
        return self.end()


def evaluate(source, names):
    """The value of an expression as text, or None after statements."""
    try:
        code = compile(source, "far", "eval")
    except SyntaxError:
        exec(source, names)  # pylint: disable=exec-used
        return None
    return repr(eval(code, names))  # pylint: disable=eval-used


def serve():
    """The other process: runs what comes on standard input."""
    names = dict(globals())
    for line in sys.stdin:
        source, more = json.loads(line)
        names.update(more)
        say(json.dumps(evaluate(source, names)))
