# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's testpmd as an independent peer, driven over its prompt.

    with Testpmd.virtio_user(sock, server=True) as pmd:     # a driver: talks to our back-end
        pmd.forward("io")                                   # sends back all that it gets
        ...
        assert pmd.stats()["rx_packets"] == 1000

    with Testpmd.vhost(sock, client=True) as pmd:           # a device: talks to our front-end

    with Testpmd([virtio_user(a), vhost(b)]) as pmd:        # two ports: io forwards between them

Everything runs with --no-huge: DPDK then keeps its memory in one memfd, which it shares like any
other, so that neither hugepages nor root are needed. Each process has a file prefix of its own.
Every command waits for the next prompt.
"""
import itertools
import os
import re
import signal
import tempfile

from .proc import Proc, ProcTimeout, require

_serial = itertools.count()
# What other threads say may stand between any two of its characters, their line feeds by themselves.
PROMPT = r"(?:\s|(?:Port \d|VHOST_)[^\n]*\n)*".join("testpmd> ")


def _clear(path, listens):
    """Remove the socket that a killed testpmd left behind: the next one would not bind."""
    if listens and os.path.exists(path):
        os.unlink(path)


def virtio_user(path, server=False, mrg_rxbuf=True, packed=False, in_order=False, ring=256,
                queues=1, mac="02:00:00:00:00:aa", extra=""):
    """A driver, for Testpmd. server=True listens; testpmd then comes up once somebody connects.
    Several queues need a Testpmd with queues=, too."""
    _clear(path, server)
    return (f"net_virtio_user%d,path={path},queues={queues},queue_size={ring},mac={mac},"
            f"mrg_rxbuf={int(mrg_rxbuf)},packed_vq={int(packed)},in_order={int(in_order)},"
            f"server={int(server)}{',cq=1' * (queues > 1)}{extra}")


def vhost(path, client=False, queues=1, extra=""):
    """A device, for Testpmd. client=True connects, and goes on trying."""
    _clear(path, not client)
    return f"net_vhost%d,iface={path},queues={queues},client={int(client)}{extra}"


class Testpmd(Proc):
    """One testpmd with a port for each device of vdevs. burst: frames per burst; mbufs: size of the pool; mbuf_size:
    data room, which also bounds what one receive buffer holds; core: the CPU it spins on; queues:
    pairs that a port uses."""

    __test__ = False  # not a test class, whatever its name

    def __init__(self, vdevs, core=0, mbufs=4096, mbuf_size=2176, burst=32, memory=256, args=(),
                 eal=(), queues=1):
        require("dpdk-testpmd")
        prefix = f"pd{os.getpid()}_{next(_serial)}"
        core %= os.cpu_count()
        self._run = tempfile.TemporaryDirectory(prefix="pdpmd.")
        devices = [f"--vdev={v % i}" for i, v in enumerate(vdevs)]
        if all("mrg_rxbuf=1" in v for v in vdevs):  # net_vhost does not know the offload
            # Else a receive buffer must hold the largest frame.
            args = (*args, "--enable-scatter")
        env = {} if os.geteuid() == 0 else {"XDG_RUNTIME_DIR": self._run.name}
        super().__init__(
            ["dpdk-testpmd", f"--lcores=0@{core},1@{core}", f"--file-prefix={prefix}", "--no-pci",
             "--no-telemetry", "--no-huge", "-m", memory, *devices, *eal, "--", "-i",
             "--nb-cores=1", "--no-numa", f"--total-num-mbufs={mbufs}", f"--burst={burst}",
             f"--mbuf-size={mbuf_size}", f"--rxq={queues}", f"--txq={queues}", *args],
            on_pty=True, env=env)
        try:
            self.expect(PROMPT, 60)
        except ProcTimeout:
            self.close()
            raise

    @classmethod
    def virtio_user(cls, path, burst=32, mbufs=4096, mbuf_size=2176, core=0, **keys):
        """One driver; keys as the function virtio_user() has them."""
        return cls([virtio_user(path, **keys)], core, mbufs, mbuf_size, burst)

    @classmethod
    def vhost(cls, path, burst=32, mbufs=4096, mbuf_size=2176, core=0, **keys):
        """One device; keys as the function vhost() has them."""
        return cls([vhost(path, **keys)], core, mbufs, mbuf_size, burst)

    def command(self, line, timeout=20.0):
        """Type a command and return what it printed."""
        start = self.mark
        self.write(line + "\n")
        self.expect(PROMPT, timeout)  # the echo is not waited for: messages may cut it
        return self.text[start:self.mark]

    def forward(self, mode="io", txpkts=None, first=False):
        """Set the forwarding mode (io, mac, txonly, rxonly, icmpecho, flowgen...) and start.
        txpkts: lengths of the segments that txonly makes. first: send one burst at the start."""
        self.halt()
        self.command(f"set fwd {mode}")
        if txpkts:
            self.command(f"set txpkts {txpkts}")
        said = self.command("start tx_first" if first else "start")
        if "Not all ports were started" in said:
            raise AssertionError("testpmd's port did not start:\n" + self.tail())

    def halt(self):
        """Stop forwarding."""
        self.command("stop")

    def restart_port(self, port="all"):
        """Stop a port and start it again."""
        self.command(f"port stop {port}")
        self.command(f"port start {port}")

    def set_queues(self, count):
        """Let every port use this many pairs of queues, no more than it was made with."""
        self.command("port stop all")
        self.command(f"port config all rxq {count}")
        self.command(f"port config all txq {count}")
        self.command("port start all")

    def stats(self, port=0):
        """The port's counters by name: rx_packets, tx_packets, rx_bytes, tx_bytes..."""
        out = self.command(f"show port stats {port}")
        return {k.lower().replace("-", "_"): int(v)
                for k, v in re.findall(r"([RT]X-[a-z]+): +(\d+)", out)}

    def link_up(self, port=0):
        """What the port says of its link."""
        return "Link status: up" in self.command(f"show port info {port}")

    def wait_link(self, timeout=20.0):
        """Wait until the other side is there. testpmd offers no event for it on both drivers, so
        this asks again; each answer is waited for."""
        import time  # pylint: disable=import-outside-toplevel
        deadline = time.monotonic() + timeout
        while not self.link_up():
            if time.monotonic() > deadline:
                raise ProcTimeout("testpmd's link stays down:\n" + self.tail())
            time.sleep(0.05)

    def quit(self):
        """Leave in good order; the exit status."""
        if self.running:
            self.write("quit\n")
        return self.wait(30)

    def close(self):
        """End it: a killed testpmd leaves its socket behind, as crashes do."""
        if self.running:
            self.signal(signal.SIGKILL)
        super().close()
        self._run.cleanup()
