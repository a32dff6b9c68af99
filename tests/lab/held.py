# SPDX-License-Identifier: BSD-2-Clause
"""An epoll whose lock somebody holds for as long as he likes: he looks into it, and has the kernel write what is ready to memory that is
not there (userfaultfd). Whoever takes a descriptor out of that epoll waits, and so does who closes the last copy of one that stands in it.

    with Held() as held:
        held.add(fd)
        held.hold()
        os.close(fd)         # not the last copy
        ...
        held.release()       # also by leaving
"""
import ctypes
import ctypes.util
import fcntl
import mmap
import os
import select
import struct
import threading

SYS_USERFAULTFD = 323
UFFD_API, UFFDIO_API, UFFDIO_REGISTER, REGISTER_MISSING = 0xAA, 0xC018AA3F, 0xC020AA00, 1
EVENTS = 16
LIBC = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


def _userfaultfd():
    """A new one for faults of the kernel too. Raises OSError."""
    fd = LIBC.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd: " + os.strerror(ctypes.get_errno()))
    return fd


def missing():
    """Why there can be none here, or None."""
    try:
        os.close(_userfaultfd())
    except OSError as e:
        return str(e)
    return None


class Held:
    """See above."""

    def __init__(self):
        self.epoll = select.epoll()
        self.page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        self.faults = _userfaultfd()
        fcntl.ioctl(self.faults, UFFDIO_API, struct.pack("<QQQ", UFFD_API, 0, 0))
        fcntl.ioctl(self.faults, UFFDIO_REGISTER, struct.pack("<QQQQ", self.at, mmap.PAGESIZE, REGISTER_MISSING, 0))
        self.looker = threading.Thread(target=LIBC.epoll_wait, args=(self.epoll.fileno(), ctypes.c_void_p(self.at), EVENTS, -1))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.release()
        self.epoll.close()

    def add(self, fd):
        """An eventfd stands in it from here on, always ready."""
        self.epoll.register(fd, select.EPOLLOUT)

    def hold(self):
        """It is held from here on."""
        self.looker.start()
        assert select.select([self.faults], [], [], 20)[0], "nobody looks"

    def release(self):
        """Not any more."""
        if self.faults >= 0:
            os.close(self.faults)
            self.faults = -1
        if self.looker.ident:
            self.looker.join()
