# SPDX-License-Identifier: BSD-2-Clause
"""A QEMU guest with Debian's kernel and its virtio-net driver, driven over its serial console.

    with Guest(sock, listen=True, ip="10.0.0.1/24") as vm:     # QEMU listens, as the seed has it
        code, out = vm.run("ping -c 3 10.0.0.2")
        vm.kill()
        vm.start()                                             # the same machine, booted again

The kernel package that apt resolves is downloaded once; its kernel and an initramfs made of
busybox and the virtio modules are kept in ${XDG_CACHE_HOME:-~/.cache}/libpalladium-lab/, by version.
It runs under TCG, since no KVM is to be relied on, and boots in seconds. vectors=0, because QEMU
7.2 crashes at DRIVER_OK with vhost-user, TCG and MSI-X.
"""
import fcntl
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import zlib

import pytest

from .proc import Proc, require

META = "linux-image-cloud-amd64"
MODULES = ("crc32c-intel crc32_generic libcrc32c virtio_ring virtio_pci_modern_dev "
           "virtio_pci_legacy_dev virtio virtio_pci failover net_failover virtio_net").split()

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
for m in %s; do insmod /modules/$m.ko; done
stty -echo
echo lab-guest-ready
while IFS= read -r line; do eval "$line" </dev/null 2>&1; done
"""


def cache_dir():
    """Where kernels and initramfs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "libpalladium-lab"


def _output(*argv, **kw):
    return subprocess.run(argv, check=True, capture_output=True, text=True, **kw).stdout


def _package():
    """The package that the metapackage depends on, or None without apt."""
    try:
        found = re.search(r"Depends: (linux-image-\S+)", _output("apt-cache", "depends", META))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found and found[1]


def _newest_cached():
    done = sorted(cache_dir().glob("*/initrd"), key=lambda p: p.stat().st_mtime)
    return done[-1].parent if done else None


def _make_initrd(root, target):
    """busybox, the modules in /modules and the init script, as a cpio archive."""
    tree = root / "initrd.tree"
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
    have = []
    for name in MODULES:
        for path in root.glob(f"lib/modules/*/kernel/**/{name}.ko"):
            shutil.copy(path, tree / "modules")
            have.append(name)
    (tree / "init").write_text(INIT % " ".join(have))
    (tree / "init").chmod(0o755)
    names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    with open(target, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=out,
                       cwd=tree, check=True)


def image():
    """(kernel, initrd), made at the first call on a machine. Skips, with the reason, when the
    machine has no QEMU or busybox, or can neither download the kernel nor has it cached."""
    require("qemu-system-x86_64", "busybox")
    package = _package()
    recipe = f"{zlib.crc32((INIT + ' '.join(MODULES)).encode()):08x}"
    home = cache_dir() / f"{package}.{recipe}" if package else _newest_cached()
    if home is None:
        pytest.skip("no apt to get a guest kernel with, and none in " + str(cache_dir()))
    cache_dir().mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "initrd").exists():
            _fetch(package, home)
    return home / "vmlinuz", home / "initrd"


def _fetch(package, home):
    require("apt-get", "dpkg", "cpio")
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as tmp:
        root = pathlib.Path(tmp)
        try:
            _output("apt-get", "download", package, cwd=root)
        except subprocess.CalledProcessError as e:
            pytest.skip(f"apt-get download {package}: {e.stderr.strip()[-200:]}")
        deb = next(root.glob("*.deb"))
        _output("dpkg", "-x", str(deb), str(root))
        shutil.copy(next(root.glob("boot/vmlinuz-*")), home / "vmlinuz")
        _make_initrd(root, root / "initrd")
        os.replace(root / "initrd", home / "initrd")  # last: its presence says all is there


class Guest:
    """One machine with one vhost-user network card, eth0.

    sock: the socket's path. listen: QEMU listens (server=on,wait=off), else it connects
    and tries again every second. ip: ADDRESS/LENGTH for eth0. device: more properties
    of the card. memory in KiB. args: more arguments for QEMU. monitor: a path, for hmp(). sock None: no card.
    incoming: does not boot, but waits at this socket for a guest that migrates.
    """

    def __init__(self, sock=None, listen=True, mac="00:60:2f:00:00:02", ip=None, device="",
                 memory=256 << 10, args=(), queues=1, monitor=None, incoming=None):
        self.kernel, self.initrd = image()
        self.sock, self.listen, self.mac, self.ip = sock, listen, mac, ip
        self.device, self.memory, self.args, self.queues = device, memory, args, queues
        self.monitor, self.incoming = monitor, incoming
        self.proc = None
        self.start()

    def argv(self):
        """QEMU's command line."""
        argv = ["qemu-system-x86_64", "-M", "q35,memory-backend=mem", "-accel",
                "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", f"{self.memory}K", "-object",
                f"memory-backend-memfd,id=mem,size={self.memory}K,share=on", "-nodefaults",
                "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", str(self.kernel), "-initrd", str(self.initrd),
                "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
        if self.sock:
            how = ",server=on,wait=off" if self.listen else ",reconnect=1"
            argv += ["-chardev", f"socket,id=c0,path={self.sock}{how}",
                     "-netdev", f"vhost-user,id=n0,chardev=c0,vhostforce=on,queues={self.queues}",
                     "-device", f"virtio-net-pci,netdev=n0,mac={self.mac},mrg_rxbuf=on,"
                                f"rx_queue_size=1024,vectors=0{self.device}"]
        if self.monitor:
            argv += ["-monitor", f"unix:{self.monitor},server=on,wait=off"]
        if self.incoming:
            argv += ["-incoming", f"unix:{self.incoming}"]
        return argv + list(self.args)

    def start(self, timeout=120.0):
        """Boot, and configure eth0. QEMU does not go on before its first back-end has come, wait=off
        or not; start that first, or in a thread."""
        self.proc = Proc(self.argv())
        self.serial = 0
        if self.incoming:
            return
        try:
            self.booted(timeout)
        except AssertionError:
            self.kill()
            raise

    def booted(self, timeout=120.0):
        """Wait until it has booted, also after a reset, for which args must allow (-action reboot=reset), and configure eth0."""
        self.proc.expect("lab-guest-ready", timeout)
        if self.sock and self.ip:
            self.check(f"ifconfig eth0 {self.ip.split('/')[0]} netmask {self._netmask()} up")

    def _netmask(self):
        bits = int(self.ip.split("/")[1])
        mask = (0xffffffff << (32 - bits)) & 0xffffffff
        return ".".join(str(mask >> s & 255) for s in (24, 16, 8, 0))

    def run(self, command, timeout=60.0):
        """Run a shell command in the guest: (exit status, output)."""
        self.serial += 1
        tag = f"lab-done-{self.serial}"
        # The tag is split in what is typed, so that an echo is not taken for the answer.
        self.proc.write(f"{command}; echo \"\"lab-done\"-{self.serial}:$?:\"\n")
        start = self.proc.mark
        m = self.proc.expect(tag + r":(\d+):\n", timeout)
        return int(m[1]), self.proc.text[start:m.start()].strip()

    def check(self, command, timeout=60.0):
        """run(), failing unless the status is 0; the output."""
        code, out = self.run(command, timeout)
        if code:
            raise AssertionError(f"in the guest, {command!r} gave {code}:\n{out}")
        return out

    def ping(self, address, count=3, timeout=60.0):
        """Ping from the guest; how many answers came."""
        _, out = self.run(f"ping -c {count} -i 0.1 -W 5 {address}", timeout)
        m = re.search(r"(\d+) packets received", out)
        return int(m[1]) if m else 0

    def hmp(self, command, timeout=20.0):
        """Give a command to QEMU's monitor, and wait until it has carried it out; what it said."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(self.monitor)
            said = b""
            for text in (None, command):
                if text:
                    sock.sendall(text.encode() + b"\n")
                    said = b""
                while not said.endswith(b"(qemu) "):
                    data = sock.recv(4096)
                    assert data, f"the monitor is gone after {said}"
                    said += data
            return said.decode()

    def kill(self):
        """kill -9, as a crash."""
        if self.proc:
            self.proc.kill()
            self.proc.close()
            self.proc = None

    def restart(self):
        """Kill and boot again."""
        self.kill()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
