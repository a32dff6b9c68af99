# SPDX-License-Identifier: BSD-2-Clause
"""A program under the preload as the thing that is tested: it echoes every frame of port pd0."""
from lab import avip
from lab.frames import check, numbered
from lab.proc import Proc, build, preload_env


def port(path, **keys):
    """PALLADIUM_PORTS for one vhost-user port on a socket: port(path, mode="listen", ring=1024)."""
    return ",".join([f"pd0=vhost-user:{path}", *(f"{k}={v}" for k, v in keys.items())])


class Echo(Proc):
    """The loopback example with --keep, which sends each frame and its sidecar back as they came.

    setup: of Proc. keys: the port's (mode, role, dialect, queues, ring...). Control messages are its not to echo.
    """

    def __init__(self, path, *args, env=None, setup=None, **keys):
        super().__init__([build("examples/loopback"), "--keep", "--verbose", *args, "pd0"],
                         env=preload_env(port(path, mtu=12226, **keys)) | (env or {}), setup=setup)
        self.expect("is ready")


def echoes(fe, frames, first=0, **how):
    """Send each frame with a sidecar of its own; each must come back with it, byte for byte."""
    for n, length in enumerate(frames, first):
        fe.send(numbered(n, length), avip.distinct(n), **how)
        pkt = fe.recv()
        assert check(pkt.frame) == n
        assert pkt.header == avip.distinct(n, mrg=len(pkt.used))


def returns(be, frames, first=0, **how):
    """Like echoes(), from the device's side."""
    for n, length in enumerate(frames, first):
        be.send(numbered(n, length), avip.distinct(n), **how)
        pkt = be.recv()
        assert check(pkt.frame) == n
        assert pkt.header[11:] == avip.distinct(n)[11:]
