#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""QEMU and DPDK of other Debian releases as peers, beside those of this machine.

    suites.py bullseye trixie -- tests/interop/test_guest.py ...     # what `make interop-versions` runs

For each release, apt downloads both with all libraries that they need, with lists and a cache of its
own and from the mirror that this machine uses; they are unpacked into
${XDG_CACHE_HOME:-~/.cache}/libpalladium-lab/, by release, and nothing is installed: each program runs
with its own dynamic loader and libraries. Then the test files run with these programs in front of the
machine's. About 55 MB to download and 250 MB on disk for each release; once.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

LAB = pathlib.Path(__file__).resolve().parent
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
MULTIARCH = "usr/lib/x86_64-linux-gnu"
# Of what they depend on: shared libraries and firmware. The rest serves installing and building.
NEEDED = re.compile(r"(qemu|seabios|ipxe|dpdk-dev$|ibverbs|lib(?!python|perl|c-|c6-dev))")
UNNEEDED = re.compile(r"lib.*-dev$|.*-bin$")

QEMU = """#!/bin/sh
QEMU_MODULE_DIR={arch}/qemu
export QEMU_MODULE_DIR
exec {loader} --library-path {path} {root}/usr/bin/qemu-system-x86_64 \\
	-L {root}/usr/share/qemu -L {root}/usr/share/seabios -L {root}/usr/lib/ipxe/qemu "$@"
"""

# Named without a folder, since DPDK takes none from a folder that others may write to.
TESTPMD = """#!/bin/sh
exec {loader} --library-path {path} {root}/usr/bin/dpdk-testpmd \\
	-d librte_mempool_ring.so.{abi} -d librte_net_vhost.so.{abi} -d librte_net_virtio.so.{abi} "$@"
"""


def output(*argv, **kw):
    """What a command prints; its failure is ours."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


def mirror():
    """Where this machine gets Debian from."""
    for line in output("apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)").splitlines():
        if line.startswith("Debian http"):
            return line.split()[1]
    sys.exit("suites.py: apt knows no mirror of Debian here")


class Apt:
    """apt with a folder for all that it keeps, as if nothing were installed."""

    def __init__(self, home, suite):
        for folder in ("lists/partial", "cache/archives/partial"):
            (home / folder).mkdir(parents=True)
        (home / "status").touch()
        (home / "sources").write_text(f"deb [signed-by={KEYS}] {mirror()} {suite} main\n")
        self.options = [f"-oDir::Etc::sourcelist={home}/sources", "-oDir::Etc::sourceparts=-",
                        f"-oDir::State={home}", f"-oDir::State::lists={home}/lists",
                        f"-oDir::State::status={home}/status", f"-oDir::Cache={home}/cache",
                        "-oAPT::Install-Recommends=false", "-oAcquire::Languages=none",
                        "-oAPT::Sandbox::User=", "-qq"]

    def get(self, *argv, **kw):
        """apt-get with these words."""
        return output("apt-get", *self.options, *argv, **kw)


def fetch(suite, home):
    """Download and unpack into home; bin/ comes last, so that its presence says all is there."""
    with tempfile.TemporaryDirectory(dir=home.parent) as tmp:
        tmp = pathlib.Path(tmp)
        apt, root, debs = Apt(tmp, suite), home / "root", tmp / "debs"
        apt.get("update")
        plan = apt.get("-s", "install", "qemu-system-x86", "dpdk-dev")
        names = [n for n in re.findall(r"^Inst (\S+)", plan, re.M)
                 if NEEDED.match(n) and not UNNEEDED.match(n)] + ["dpdk-dev"]
        debs.mkdir()
        print(f"suites.py: {suite}: downloading {len(names)} packages", flush=True)
        apt.get("download", *sorted(set(names)), cwd=debs)
        shutil.rmtree(home)
        root.mkdir(parents=True)
        for deb in sorted(debs.glob("*.deb")):
            output("dpkg-deb", "-x", str(deb), str(root))
    wrap(home, root)


def wrap(home, root):
    """The commands that the tests find in front of the machine's."""
    arch = root / MULTIARCH
    plugins = next(arch.glob("dpdk/pmds-*"))
    loaders = [*arch.glob("ld-linux-x86-64.so.2"), *(root / "lib").glob("x86_64-linux-gnu/ld-*.so*")]
    words = {"root": root, "arch": arch, "loader": loaders[0], "abi": plugins.name[5:].split(".")[0],
             "path": f"{arch}:{root}/lib/x86_64-linux-gnu:{plugins}"}
    made = home / "bin.new"
    made.mkdir()
    for name, text in (("qemu-system-x86_64", QEMU), ("dpdk-testpmd", TESTPMD)):
        (made / name).write_text(text.format(**words))
        (made / name).chmod(0o755)
    made.rename(home / "bin")


def programs(suite):
    """The folder of a release's commands, fetched at first."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    home = pathlib.Path(base) / "libpalladium-lab" / f"debian-{suite}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "bin").exists():
        fetch(suite, home)
    return home / "bin"


def versions(folder):
    """What a release has: of QEMU as it says, of DPDK the version of its libraries."""
    qemu = output(folder / "qemu-system-x86_64", "--version").split("(")[0]
    eal = next((folder.parent / "root" / MULTIARCH).glob("librte_eal.so.*.*"))
    return f"{qemu.strip()}, {eal.name}"


def main(argv):
    """Run the test files with each release's programs; the exit status says whether all passed."""
    at = argv.index("--")
    failed = []
    for suite in argv[:at]:
        folder = programs(suite)
        print(f"suites.py: {suite}: {versions(folder)}", flush=True)
        env = {**os.environ, "PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin",
               "PYTHONPATH": str(LAB.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v",
                               *argv[at + 1:]], env=env, check=False)
        failed += [suite] * bool(done.returncode)
    return f"suites.py: failures with {', '.join(failed)}" if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
