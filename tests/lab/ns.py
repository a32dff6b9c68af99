# SPDX-License-Identifier: BSD-2-Clause
"""Network namespaces and veth pairs that the test makes itself and that go away with it.

    with Network() as net:
        a, b = net.namespace(), net.namespace()
        net.veth(a, "va", b, "vb", "10.1.0.1/24", "10.1.0.2/24")
        with Proc(["some-program"], wrap=a.wrap) as p: ...
        code, out = b.run(["ip", "addr"])

Each namespace is held by a process that ends when its input does, so a test that is killed leaves
nothing behind. An ordinary user gets a user namespace around them.
"""
import os
import shutil

import pytest

from . import proc


class Namespace:
    """One network namespace; wrap goes in front of a command that is to run in it."""

    def __init__(self, outer, fresh_user):
        enter = [*outer, "unshare", *(["--user", "--map-root-user"] if fresh_user else []), "--net"]
        self.holder = proc.Proc([*enter, "--", "sh", "-c", "ip link set lo up; echo held; cat"])
        try:
            self.holder.expect("^held")
        except proc.ProcTimeout as e:
            self.holder.close()
            pytest.skip("no network namespaces here: " + str(e).strip().splitlines()[-1])
        pid = str(self.holder.pid)
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        self.pid = self.holder.pid
        self.wrap = ["nsenter", "--target", pid, *user, "--net", "--"]

    def run(self, argv, timeout=30.0, **kw):
        """Run a command in it to the end: (exit status, output)."""
        return proc.run(argv, timeout, wrap=self.wrap, **kw)

    def check(self, *argv):
        """run() which must succeed; the output."""
        code, out = self.run(argv)
        assert code == 0, f"{argv} gave {code}: {out}"
        return out

    def close(self):
        """Let it go: the kernel removes it with its last process."""
        self.holder.close_stdin()
        self.holder.wait()
        self.holder.close()


class Network:
    """Namespaces of one test."""

    def __init__(self):
        proc.require("unshare", "nsenter", "ip")
        self.spaces = []

    def namespace(self):
        """A new, empty namespace with its loopback up."""
        user = os.geteuid() != 0
        outer = self.spaces[0].wrap if user and self.spaces else []
        self.spaces.append(Namespace(outer, user and not self.spaces))
        return self.spaces[-1]

    def veth(self, a, name_a, b, name_b, ip_a=None, ip_b=None, mtu=None):
        """A pair of interfaces between two namespaces, up, with addresses when given."""
        a.check("ip", "link", "add", name_a, "type", "veth", "peer", "name", name_b, "netns",
                str(b.pid))
        for space, name, ip in ((a, name_a, ip_a), (b, name_b, ip_b)):
            if os.path.exists("/proc/sys/net/ipv6"):  # no frames that nobody asked for
                space.run(["sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6"])
            if ip:
                space.check("ip", "addr", "add", ip, "dev", name)
            if mtu:
                space.check("ip", "link", "set", name, "mtu", str(mtu))
            space.check("ip", "link", "set", name, "up")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for space in reversed(self.spaces):
            space.close()


def available():
    """Can namespaces be made at all? (For skipif.)"""
    return all(shutil.which(p) for p in ("unshare", "nsenter", "ip"))
