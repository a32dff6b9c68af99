# SPDX-License-Identifier: BSD-2-Clause
"""contrib/vlm-vm/startvm: the command it makes, what it refuses, and a guest started by it."""
import pathlib

import pytest

from lab.frames import mac, responder
from lab.guest import image
from lab.proc import Proc, run, source
from lab.vhostpeer import BackEnd

STARTVM = source() / "contrib/vlm-vm/startvm"
GOLDEN = pathlib.Path(__file__).with_name("startvm.txt")


def test_command_of_the_seed(tmp_path):
    (tmp_path / "vlm.qcow2").touch()
    code, out = run([STARTVM, "--socket", "vlm_cp", "--disk", "vlm.qcow2", "--name",
                     "cdn_avip_vlm_0", "--vnc", ":1000", "--tap", "tap7", "--device", "emulator=30",
                     "--backing", "hugepages", "--accel", "tcg", "--daemonize", "--dry-run"],
                    cwd=tmp_path)
    assert (code, out) == (0, GOLDEN.read_text())


def test_other_choices(tmp_path):
    (tmp_path / "k").touch()
    code, out = run([STARTVM, "--socket", "s", "--connect", "--kernel", "k", "--append", "a 'b'",
                     "--backing", "memfd", "--queues", "4", "--ring", "256", "--memory", "512",
                     "--dry-run", "--", "-s", "two words"], cwd=tmp_path)
    assert code == 0
    for part in ("path=s,reconnect=1", "memory-backend-memfd,id=mem,size=512M,share=on",
                 r"-append 'a '\''b'\'''", "queues=4", "rx_queue_size=256,vectors=0,mq=on",
                 "-s 'two words'"):
        assert part in out
    assert out.endswith("-s 'two words'\n") and "tap" not in out and "-vnc" not in out


def test_help():
    code, out = run([STARTVM, "--help"])
    assert code == 0 and out.startswith("Usage: startvm --socket PATH")


@pytest.mark.parametrize("args, said", [
    ([], "--socket PATH is missing"),
    (["--socket"], "--socket needs a value"),
    (["--socket", "/no/such/s"], "no such folder: /no/such"),
    (["--socket", "a,b"], "has a comma"),
    (["--socket", "s" * 108], "at most 107"),
    (["--socket", "s"], "nothing to boot"),
    (["--socket", "s", "--disk", "none"], "--disk: no such file: none"),
    (["--socket", "s", "--initrd", "k"], "without --kernel"),
    (["--socket", "s", "--kernel", "k", "--mac", "1:2"], "no MAC address"),
    (["--socket", "s", "--kernel", "k", "--mac", "01:00:00:00:00:01"], "group address"),
    (["--socket", "s", "--kernel", "k", "--ring", "300"], "300 is not 256"),
    (["--socket", "s", "--kernel", "k", "--queues", "x"], "'x' is not a number"),
    (["--socket", "s", "--kernel", "k", "--memory", "1"], "not between 64"),
    (["--socket", "s", "--kernel", "k", "--accel", "xen"], "not kvm, tcg or auto"),
    (["--socket", "s", "--kernel", "k", "--backing", "disk"], "not hugepages, memfd"),
    (["--socket", "s", "--kernel", "k", "--tap", "pdnone0"], "no interface pdnone0"),
    (["--socket", "s", "--kernel", "k", "--daemonize"], "leaves no console"),
    (["--sokcet", "s"], "unknown option '--sokcet'"),
])
def test_refusals(tmp_path, args, said):
    (tmp_path / "k").touch()
    code, out = run([STARTVM, *args], cwd=tmp_path)
    assert code == 2 and said in out and out.startswith("startvm: ") and out.count("\n") == 1


def test_missing_qemu(tmp_path):
    (tmp_path / "k").touch()
    code, out = run([STARTVM, "--socket", "s", "--kernel", "k"], cwd=tmp_path,
                    env={"QEMU": "no-such-qemu"})
    assert code == 2 and "no no-such-qemu on this machine" in out


def test_guest_comes_up(sock):
    kernel, initrd = image()
    answer = responder("10.9.0.2", mac("02:00:00:00:00:02"))

    def reply(packet):
        frame = answer(packet.frame)
        return frame and (frame, None)
    with BackEnd(sock, hdr=12) as be:
        be.run_thread(reply)
        with Proc([STARTVM, "--socket", sock, "--kernel", kernel, "--initrd", initrd, "--append",
                   "console=ttyS0 quiet", "--memory", 256, "--cpus", 1, "--accel", "tcg",
                   "--backing", "memfd"]) as vm:
            vm.expect("lab-guest-ready", 120)
            vm.write("ifconfig eth0 10.9.0.1 up; ping -c 2 10.9.0.2\n")
            vm.expect("2 packets received", 60)
