# SPDX-License-Identifier: BSD-2-Clause
"""A program under the preload as the thing that is tested: it echoes every frame of port pd0."""
from lab.proc import Proc, build, preload_env


def port(path, **keys):
    """PALLADIUM_PORTS for one vhost-user port on a socket: port(path, mode="listen", ring=1024)."""
    return ",".join([f"pd0=vhost-user:{path}", *(f"{k}={v}" for k, v in keys.items())])


class Echo(Proc):
    """The loopback example with --keep, which sends each frame and its sidecar back as they came.

    keys: the port's (mode, role, dialect, queues, ring...). Control messages are its not to echo.
    """

    def __init__(self, path, *args, env=None, **keys):
        super().__init__([build("examples/loopback"), "--keep", "--verbose", *args, "pd0"],
                         env=preload_env(port(path, mtu=12226, **keys)) | (env or {}))
        self.expect("is ready")
