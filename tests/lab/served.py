# SPDX-License-Identifier: BSD-2-Clause
"""A file of a file system that a process serves (FUSE), and that says nothing from a moment on.

    with Served(folder) as file:
        file.fd       # a descriptor of it; file.enter() has the calling process see the mount
        os.close(file.fd)
        file.silence()

Whoever has it then waits when it closes it, and so does each child that it forks, until the server is gone. The mount is in a namespace
of its own, and goes with the server.
"""
import array
import ctypes
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

SIZE = 8 << 20
CLONE_NEWNS = 0x20000


class Served:
    """See above."""

    def __init__(self, folder):
        ours, theirs = socket.socketpair()
        self.server = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "/usr/bin/python3", __file__, folder, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        theirs.close()
        with ours:
            ours.settimeout(20)
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        self.fd, = fds

    def silence(self):
        """From here on nothing is answered."""
        self.server.stdin.write(b"x")
        self.server.stdin.flush()
        assert self.server.stdout.read(1) == b"x"

    def enter(self):
        """Go where the mount is seen."""
        fd = os.open(f"/proc/{self.server.pid}/ns/mnt", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)

    def __enter__(self):
        return self

    def end(self):
        """The server is gone: who waited for it is let go."""
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def __exit__(self, *exc):
        self.end()
        self.server.stdin.close()
        self.server.stdout.close()


def serve(folder, way):
    """The process that does."""
    import fusepy as fuse

    silent = threading.Event()

    class One(fuse.Operations):
        """A single file of zeros."""

        def __call__(self, op, *args):
            while silent.is_set():
                time.sleep(1)
            return super().__call__(op, *args)

        def getattr(self, path, fh=None):
            kind = stat.S_IFDIR | 0o755 if path == "/" else stat.S_IFREG | 0o666
            return {"st_mode": kind, "st_nlink": 1, "st_size": 0 if path == "/" else SIZE, "st_uid": os.getuid(), "st_gid": os.getgid()}

        def read(self, path, size, offset, fh):
            return bytes(max(0, min(size, SIZE - offset)))

        def flush(self, path, fh):
            return 0

    def open_it():
        path = os.path.join(folder, "file")
        while not os.path.exists(path):
            time.sleep(0.01)
        fd = os.open(path, os.O_RDWR)
        with socket.socket(fileno=way) as s:
            s.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        os.close(fd)
        os.read(0, 1)
        silent.set()
        os.write(1, b"x")
    threading.Thread(target=open_it, daemon=True).start()
    fuse.FUSE(One(), folder, foreground=True)


def missing():
    """Why there can be none here, or None."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"/dev/fuse: {errno.errorcode[e.errno]}"
    return None if os.geteuid() == 0 else "only root may mount"


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
