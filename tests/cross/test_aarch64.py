# SPDX-License-Identifier: BSD-2-Clause
"""The library for aarch64: it builds, exports what ours exports, and works in an emulated program.

The compiler and the emulator are large (half a gigabyte), so they are not among the packages that
check.sh installs; where they are not there this skips. The tools need libraries of that architecture
and are left out. The emulator runs on this machine's memory, whose order is stronger: missing barriers
do not show here.
"""
import os
import pathlib
import shutil
import subprocess

import pytest

from lab.proc import Proc, build, library, preload_env, scale

TOP = pathlib.Path(__file__).resolve().parents[2]
TRIPLET = "aarch64-linux-gnu"
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = [
    pytest.mark.skipif(os.environ.get("PD_SLOW_TESTS") != "1",
                       reason="takes a minute: set PD_SLOW_TESTS=1"),
    pytest.mark.skipif(not shutil.which(TRIPLET + "-gcc")
                       or not pathlib.Path(f"/usr/{TRIPLET}/include/stdio.h").exists(),
                       reason="no compiler for aarch64 (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"),
    pytest.mark.skipif((TOP / "config.status").exists(),
                       reason="the source tree is configured itself"),
]
emulated = pytest.mark.skipif(not QEMU, reason="no emulator for aarch64 (Debian: qemu-user-static)")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A build tree for aarch64, with the library and the example."""
    tree = tmp_path_factory.mktemp("aarch64")
    log = tree / "build.log"
    with open(log, "wb") as out:
        for step in ([TOP / "configure", f"--host={TRIPLET}", "--enable-assert", "--enable-werror",
                      "CC=" + TRIPLET + "-gcc", "CXX=true", "CFLAGS=-O2 -g"],
                     ["make", "libpalladium.la", "examples/loopback"]):
            done = subprocess.run(step, cwd=tree, stdout=out, stderr=subprocess.STDOUT)
            assert done.returncode == 0, log.read_text()[-4000:]
    return tree


def plain(tree, source, *options):
    """Compile a C file of the tests' for aarch64, without the build's flags; returns the program."""
    out = tree / pathlib.Path(source).stem
    subprocess.run([TRIPLET + "-gcc", "-O1", "-g", "-D_GNU_SOURCE", "-w", TOP / "tests" / source,
                    "-o", out, "-pthread", *options], check=True)
    return out


def emulator(tree, ports=None):
    """The emulator's command line: under the preload with these ports, or without it."""
    argv = [QEMU, "-L", f"/usr/{TRIPLET}"]
    if ports is not None:
        for name, value in preload_env(ports).items():
            argv += ["-E", f"{name}={tree / '.libs/libpalladium.so' if name == 'LD_PRELOAD' else value}"]
    return argv


def symbols(tool, library):
    done = subprocess.run([tool, "-D", "--defined-only", library], check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in done.stdout.splitlines()}


def test_exports_what_the_native_library_exports(tree):
    assert symbols(TRIPLET + "-nm", tree / ".libs/libpalladium.so") == symbols("nm", library())


@emulated
def test_every_call_on_kernel_descriptors(tree):
    program = plain(tree, "preload/parity.c")
    runs = [subprocess.run([*emulator(tree, ports), program], capture_output=True, text=True,
                           timeout=scale(60)) for ports in (None, "")]
    assert runs[0].returncode == runs[1].returncode == 0, runs[1].stderr
    assert runs[0].stdout == runs[1].stdout


@emulated
def test_syscall_and_vfork(tree):
    program = plain(tree, "cross/calls.c")
    done = subprocess.run([*emulator(tree, "pd1=loop:pd2"), program], capture_output=True, text=True,
                          timeout=scale(60))
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@emulated
def test_frames_of_a_native_peer(tree, sock):
    with Proc([*emulator(tree, f"pd0=vhost-user:{sock}"), tree / "examples/loopback", "--keep", "pd0"]) as p:
        p.expect("ready")
        done = subprocess.run([build("palladium_vlm"), "--socket", sock, "--listen", "--frames", "2000",
                               "--size", "60-1514", "--expect", "echo"], capture_output=True, text=True,
                              timeout=scale(60))
        assert done.returncode == 0, done.stdout + done.stderr
