# SPDX-License-Identifier: BSD-2-Clause
"""Runs the bodies of the socket tests as small programs: on ports under the preload, and on a
kernel veth pair, so that the two can be compared.

A body is Python source. It finds the names of prelude.py ready, A and B as the names of two
interfaces that are joined, and prints what it sees; `same` runs it both ways and compares.
"""
import os
import pathlib
import subprocess

import pytest

from lab import ns
from lab.proc import preload_order, scale

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("PD_BUILD", HERE.parent.parent / "build"))
PRELOAD = BUILD / ".libs" / "libpalladium.so"
PYTHON = "/usr/bin/python3"
LOOP = "pd0=loop:pd1"
LIMIT = scale(20)  # seconds that a program may take


def environment(ports=LOOP, **extra):
    """The environment of a program under the preload."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PALLADIUM_")}
    env["LD_PRELOAD"] = ":".join(preload_order(PRELOAD))
    env["PALLADIUM_PORTS"] = ports
    env["PALLADIUM_CONFIG_FILE"] = "/dev/null"
    env["PALLADIUM_TRACELEVEL"] = "error"
    env["PYTHONPATH"] = str(HERE)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    env["TSAN_OPTIONS"] = "die_after_fork=0:" + env.get("TSAN_OPTIONS", "")  # threads in children
    env["ASAN_OPTIONS"] = "detect_leaks=0:" + env.get("ASAN_OPTIONS", "")
    env.update({k: str(v) for k, v in extra.items()})
    return env


def program(body, a="pd0", b="pd1"):
    """The command that runs a body between the interfaces a and b."""
    return [PYTHON, "-c", f"from prelude import *\nA, B = {a!r}, {b!r}\n{body}"]


def finish(done):
    """Its output, when it ended well."""
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def on_ports(body, ports=LOOP, **extra):
    """Run a body under the preload; its output. It must not complain."""
    done = subprocess.run(program(body), env=environment(ports, **extra), capture_output=True,
                          text=True, timeout=LIMIT, check=False)
    return finish(done)


class Kernel:
    """Runs bodies on a veth pair in one namespace."""

    def __init__(self, net):
        self.space = net.namespace()
        self.space.check("ip", "link", "add", "ka", "type", "veth", "peer", "name", "kb")
        for name in ("ka", "kb"):
            path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
            self.space.run(["sh", "-c", f"[ ! -e {path} ] || echo 1 >{path}"])
            self.space.check("ip", "link", "set", name, "multicast", "off")
        for name in ("ka", "kb"):
            self.space.check("ip", "link", "set", name, "up")

    def run(self, body, env=None):
        env = {**os.environ, **(env or {}), "PYTHONPATH": str(HERE),
               "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*self.space.wrap, *program(body, "ka", "kb")], env=env,
                              capture_output=True, text=True, timeout=LIMIT, check=False)
        return finish(done)


@pytest.fixture(scope="session")
def kernel():
    """A veth pair; skips where there are no namespaces or no packet sockets."""
    with ns.Network() as net:
        yield Kernel(net)


def same(kernel, body, **extra):
    """The body prints the same on ports as on the kernel's interfaces."""
    ours, theirs = on_ports(body, **extra), kernel.run(body)
    assert ours.splitlines() == theirs.splitlines()
    assert ours, "the body printed nothing: it compared nothing"
