# SPDX-License-Identifier: BSD-2-Clause
"""PALLADIUM_EXCEPTION_HANDLING: calls that the kernel's packet sockets know and those of a port do not."""
import signal
import subprocess

import pytest

from sockutil import LIMIT, environment, program

# PACKET_TIMESTAMP: the kernel has it, ports do not.
CALLS = """
s = packet(%s)
say(attempt(s.setsockopt, SOL_PACKET, 17, 0))
say(attempt(s.getsockopt, SOL_PACKET, 17, 4))
"""
UNKNOWN = ["ENOPROTOOPT", "ENOPROTOOPT"]
LEFT = "fd 3: setsockopt of level 263, option 17 is not supported: the socket is the kernel's from here on"
REFUSED = "fd 3: setsockopt of level 263, option 17 is not supported: Protocol not available"


def run(body, mode, wrap=(), **extra):
    """How a body ends, what it says, and the lines of our log."""
    extra = {"PALLADIUM_TRACELEVEL": "error", **extra}
    if mode is not None:
        extra["PALLADIUM_EXCEPTION_HANDLING"] = mode
    done = subprocess.run([*wrap, *program(body)], env=environment(**extra), capture_output=True, text=True,
                          timeout=LIMIT, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("mode", [None, -2, -1, 0, 1, 2])
def test_a_socket_on_a_port_keeps_it(mode):
    """The call fails as ever; what differs is who hears of it."""
    code, out, log = run(CALLS % "A" + "b = packet(B)\ns.send(frame(5))\nsay(number(b.recv(100)))", mode)
    assert (code, out) == (0, [*UNKNOWN, "5"]), log
    if mode == 2:
        assert REFUSED in log and "getsockopt of level 263, option 17" in log
    elif mode == 1:
        assert "the kernel does not know the port that the socket is bound to" in log
    else:
        assert log == ""


def test_debug_lines_by_default():
    assert REFUSED in run(CALLS % "A", None, PALLADIUM_TRACELEVEL="debug")[2]


@pytest.mark.parametrize("mode", [0, 1])
def test_a_socket_of_no_port_becomes_the_kernels(kernel, mode):
    """With what was set on it; the call that it could not do before, and all that follow, are the kernel's."""
    code, out, log = run("""
s = packet()
s.settimeout(7)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
say(attempt(s.setsockopt, SOL_PACKET, 17, 0))
say(attempt(s.getsockopt, SOL_PACKET, 17, 4))
say(s.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY))
other = packet("kb")
s.bind(("ka", ETH_P_ALL))
s.send(frame(9))
say(number(other.recv(100)))
""", mode, kernel.space.wrap)
    assert (code, out) == (0, ["None", "b'\\x00\\x00\\x00\\x00'", "3", "9"]), log
    assert log == ("" if mode == 0 else f"PALLADIUM ERROR: exception: {LEFT}\n")


def test_one_that_has_moved_frames_stays(kernel):
    code, out, log = run("""
a, b = packet(), packet(B)
a.sendto(frame(1), (A, ETH_P_TEST))
say(number(b.recv(100)), attempt(a.setsockopt, SOL_PACKET, 17, 0))
""", 1, kernel.space.wrap)
    assert (code, out) == (0, ["1 ENOPROTOOPT"]), log
    assert "frames have passed by a port" in log


def test_without_the_privilege_it_stays():
    code, out, log = run("os.setresuid(65534, 65534, 65534) if os.geteuid() == 0 else 0\n" + CALLS % "", 1)
    assert (code, out) == (0, UNKNOWN), log
    assert "the kernel cannot help (Operation not permitted)" in log


def test_abort():
    code, out, log = run(CALLS % "A", 3)
    assert (code, out) == (-signal.SIGABRT, [])
    assert "setsockopt of level 263, option 17 is not supported: the program ends" in log


def test_ioctl():
    """SIOCSIFMETRIC of a port."""
    body = CALLS.split("say")[0] % "A" + "say(attempt(fcntl.ioctl, s, 0x891e, struct.pack('16si20x', b'pd0', 1)))"
    code, out, log = run(body, 2)
    assert code == 0 and out[0].startswith("E"), log
    assert "ioctl 0x891e of a port is not supported" in log


@pytest.mark.parametrize("mode, code", [(-2, 1), (-1, 0)])
@pytest.mark.parametrize("ports", ["pd0=loop:pd1;pd2=nothing:x", "pd0=loop:pd1,mtu=x"])
def test_a_start_that_fails(mode, code, ports):
    assert run("say('on')", mode, PALLADIUM_PORTS=ports)[:2] == (code, [] if code else ["on"])


def test_a_start_that_does_not():
    assert run("say('on')", -2)[:2] == (0, ["on"])
