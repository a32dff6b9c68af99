# SPDX-License-Identifier: BSD-2-Clause
"""Open vSwitch with DPDK as an independent peer, as an ordinary user has it: without hugepages, on one core,
without a kernel module, its database in a folder of the test's.

    with Switch(sockdir, [client(a), server("b")]) as ovs:      # two ports; what comes by one leaves by the other

Debian's packages are used where they are installed; else they are downloaded once and unpacked into the folder
where the guest's kernel is kept (guest.py), since installing them would start a switch on the machine.
"""
import contextlib
import fcntl
import os
import pathlib
import re
import subprocess
import tempfile

import pytest

from .guest import cache_dir
from .proc import Together, require, run

PACKAGES = ("openvswitch-common", "openvswitch-switch", "openvswitch-switch-dpdk")
VSWITCHD = "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"


def client(path):
    """A port that connects to path, and goes on trying."""
    return ["type=dpdkvhostuserclient", f"options:vhost-server-path={path}"]


def server():
    """A port that listens in the switch's folder, at the port's name: p1, p2..."""
    return ["type=dpdkvhostuser"]


def user(path, queues):
    """A port that is the driver of a device which listens at path, with so many pairs of queues."""
    return ["type=dpdk", f"options:dpdk-devargs=net_virtio_user0,path={path},queues={queues},cq=1", f"options:n_rxq={queues}"]


def root():
    """The folder below which the programs are. Skips, with the reason, where they are not to be had."""
    if os.path.exists("/" + VSWITCHD):
        return pathlib.Path("/")
    require("apt-get", "dpkg-deb", "dpkg-query")
    home = cache_dir() / "openvswitch"
    home.mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / "lock.openvswitch", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / VSWITCHD).exists():
            _fetch(home)
    said = subprocess.run(["ldd", home / VSWITCHD], capture_output=True, text=True, check=False).stdout
    if missing := re.findall(r"(\S+) => not found", said):
        pytest.skip(f"Open vSwitch lacks {', '.join(missing)} on this machine")
    return home


def _fetch(home):
    with tempfile.TemporaryDirectory(dir=home) as tmp:
        code, said = run(["apt-get", "download", *PACKAGES], timeout=120, cwd=tmp)
        if code:
            pytest.skip(f"apt-get download {' '.join(PACKAGES)}: {said.strip()[-200:]}")
        for name in PACKAGES:  # the daemon's comes last: its presence says that all is there
            subprocess.run(["dpkg-deb", "-x", next(pathlib.Path(tmp).glob(name + "_*.deb")), home], check=True)


class Switch:
    """A switch with two ports, each as client(), server() or user() has it. A frame leaves by the queue that its flow is of. folder: a
    short path, where the sockets are. cores: what its threads run on."""

    def __init__(self, folder, ports, cores=(0,)):
        self.folder, self.root = pathlib.Path(folder), root()
        self.env = {"OVS_PKGDATADIR": str(self.root / "usr/share/openvswitch"), "RUNTIME_DIRECTORY": str(folder),
                    **{f"OVS_{x}DIR": str(folder) for x in ("RUN", "LOG", "DB", "SYSCONF")}}
        self.database = f"unix:{folder}/db.sock"
        with contextlib.ExitStack() as stack:
            self.procs = stack.enter_context(Together())
            self._start(ports, sum({1 << core % os.cpu_count() for core in cores}))
            self.stack = stack.pop_all()

    def _start(self, ports, cpus):
        eal = f"--no-huge --legacy-mem --no-pci --no-telemetry -m 256 --file-prefix=pdovs{os.getpid()}"
        configuration = ["--", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]
        for i, port in enumerate(ports, 1):
            configuration += ["--", "add-port", "br0", f"p{i}", "--", "set", "Interface", f"p{i}", f"ofport_request={i}",
                              "other_config:tx-steering=hash", *port]
        self._run("usr/bin/ovsdb-tool", "create", self.folder / "db", self.root / "usr/share/openvswitch/vswitch.ovsschema")
        base = self.procs.start([self.root / "usr/sbin/ovsdb-server", self.folder / "db", f"--remote=p{self.database}",
                                 f"--unixctl={self.folder}/dbctl"], env=self.env)
        base.expect("Open vSwitch")  # it listens before it says so
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
                   f"other_config:dpdk-extra={eal}", f"other_config:pmd-cpu-mask={cpus:#x}",
                   f"other_config:dpdk-lcore-mask={cpus:#x}", "other_config:per-port-memory=true",
                   "other_config:pmd-maxsleep=100", *configuration)
        self.daemon = self.procs.start([self.root / VSWITCHD, self.database, f"--unixctl={self.folder}/ctl"], env=self.env,
                                       wrap=self._network_of_its_own())
        self.daemon.expect("added interface br0 on port")
        self.vsctl("wait-until", "Interface", "p1", "ofport=1", "--", "wait-until", "Interface", "p2", "ofport=2")
        for to, came in ((2, 1), (1, 2)):
            self._run("usr/bin/ovs-ofctl", "add-flow", f"unix:{self.folder}/br0.mgmt", f"in_port={came},actions=output:{to}")

    @staticmethod
    def _network_of_its_own():
        """What to put in front: the switch makes interfaces of the kernel, whose names are always the same."""
        require("unshare")
        wrap = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"])]
        code, said = run([*wrap, "true"])
        if code:
            pytest.skip(f"no network namespace for Open vSwitch: {said.strip()[-200:]}")
        return wrap

    def _run(self, program, *args):
        code, said = run([self.root / program, *args], env=self.env)
        assert code == 0, said + (self.daemon.tail() if hasattr(self, "daemon") else "")

    def vsctl(self, *args):
        """Change or ask the database; it waits until the switch has done so."""
        self._run("usr/bin/ovs-vsctl", f"--db={self.database}", "--timeout=30", *args)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stack.close()
