# SPDX-License-Identifier: BSD-2-Clause
"""The examples: under the preload against palladium_vlm, and on an interface of the kernel.

This is the link as a user has it: an unmodified packet-socket program at one end, the tester at the
other."""
import json
import re
import signal

import pytest

from lab.ns import Network
from lab.proc import Proc, build, preload_env, run
from test_vlm import failures, report, vlm


def under_preload(sock, program, *args, ports=None, **variables):
    """An example over port pd0 on `sock`."""
    env = preload_env(ports or f"pd0=vhost-user:{sock},mtu=12226", TRACELEVEL="warn", **variables)
    return Proc([build(f"examples/{program}"), *map(str, args)], env=env)


@pytest.mark.parametrize("args", [[], ["-1"], ["--batch", "1"], ["--batch", "256"]],
                         ids=lambda a: "".join(a) or "plain")
@pytest.mark.parametrize("keep", [False, True])
def test_loopback(sock, args, keep):
    """Sidecars come back as zeroes, or byte for byte."""
    with under_preload(sock, "loopback", *args, *(["--keep"] if keep else []), "pd0") as p:
        code, text = run(vlm(sock, "--frames", 20000, "--size", "32-12240",
                             "--expect", "echo" if keep else "zeroed"), timeout=120)
        r = report(text)
        assert (code, failures(r), r["returned"]) == (0, {}, 20000), p.text
        p.signal(signal.SIGTERM)
        assert p.wait() == 0
        assert "20000 frames echoed" in p.text and "1 control messages" in p.text


def test_inline_echo(sock):
    """A program that knows nothing of sidecars sends back what it got, 48 bytes first."""
    echo = ("import socket\n"
            "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n"
            "s.bind(('pd0', 0))\n"
            "while True:\n"
            "    f = s.recv(65536)\n"
            "    if len(f) > 48: s.send(f)\n")
    env = preload_env(f"pd0=vhost-user:{sock},mtu=12226", TRACELEVEL="warn", METADATA="inline")
    with Proc(["/usr/bin/python3", "-c", echo], env=env) as p:
        code, text = run(vlm(sock, "--frames", 5000, "--size", "32-12240", "--expect", "echo"),
                         timeout=120)
        assert (code, failures(report(text))) == (0, {}), p.text


def test_loopback_over_ports_of_one_path(sock):
    ports = ";".join(f"pd{i}=vhost-user:{sock}" for i in range(2))
    with under_preload(sock, "loopback", "--keep", "pd0", ports=ports), \
            under_preload(sock, "loopback", "--keep", "pd1", ports=ports):
        code, text = run(vlm(sock, "--frames", 5000, "--ports", 2, "--expect", "echo"), timeout=60)
        assert (code, failures(report(text))) == (0, {}), text


def test_loopback_survives_the_tester(sock):
    """Three testers one after the other, the second one killed, over one loopback."""
    with under_preload(sock, "loopback", "--keep", "pd0"):
        assert run(vlm(sock, "--frames", 2000, "--expect", "echo"))[0] == 0
        with Proc([a for a in vlm(sock, "--duration", 60) if a != "--quiet"]) as p:
            p.expect("sending")
            assert p.kill() == -signal.SIGKILL
        assert run(vlm(sock, "--frames", 2000, "--expect", "echo"))[0] == 0


def test_loopback_killed(sock):
    """kill -9 of the program in mid-burst: its successor gets what it had not taken. What it had
    taken and not sent back went with it: at most the batch that was in its hands, twice."""
    args = [a for a in vlm(sock, "--frames", 3000000, "--expect", "echo", "--loss-after", 2,
                           "--tolerate-restart") if a != "--quiet"]
    with Proc(args) as p:
        with under_preload(sock, "loopback", "--keep", "pd0") as first:
            p.expect("sending")
            first.kill()
        with under_preload(sock, "loopback", "--keep", "pd0"):
            assert p.wait(120) == 0, p.text
        r = report(p.text)
    assert r["restarts"] == 1 and r["restart_lost"] <= 64 and r["restart_repeated"] <= 64
    assert r["returned"] + r["restart_lost"] == 3000000


@pytest.mark.parametrize("size", [60, 1514, 12240])
def test_generator(sock, size):
    """The tester reflects; the generator checks."""
    with Proc(vlm(sock, "--reflect")) as tester:
        with under_preload(sock, "generator", "--check", "--count", 20000, "--size", size, "--ifg",
                           12, "--pfc", 3, "--preamble", 8, "pd0") as p:
            assert p.wait(60) == 0, p.text
            assert "20000 returned, 0 lost, 0 altered" in p.text
        tester.signal(signal.SIGINT)
        assert tester.wait() == 0, tester.text
        r = report(tester.text)
    assert r["foreign"] == r["reflected"] == 20000


def test_sniffer_shows_sidecars(sock):
    with under_preload(sock, "sniffer", "--json", "--hex", "--count", 3, "pd0") as p:
        assert run(vlm(sock, "--frames", 2, "--size", 64, "--ifg", 960, "--pfc", 5, "--fcs",
                       0x11223344, "--preamble", "55d5", "--seed", 7, "--expect", "sink"))[0] == 0
        assert p.wait() == 0, p.text
        seen = [json.loads(x) for x in p.text.splitlines() if x.startswith("{")]
    assert [s["control"] for s in seen] == [True, False, False]
    assert [s["number"] for s in seen] == [1, 2, 3]
    assert seen[0]["sidecar"]["flags"] == ["PORT_ID"] and seen[0]["bytes"] == 0
    for n, s in enumerate(seen[1:]):
        car = s["sidecar"]
        assert (car["ifg"], car["pfc_priority"], car["preamble"]) == (960, 5, "55d5")
        assert set(car["flags"]) == {"IFG", "PREAMBLE", "FCS"}
        assert s["bytes"] == 64 and s["data"][28:32] == "4000"
        assert s["data"][48:64] == n.to_bytes(8, "little").hex()


def test_sniffer_as_text(sock):
    with under_preload(sock, "sniffer", "--hex", "--count", 2, "pd0") as p:
        assert run(vlm(sock, "--frames", 1, "--ifg", 96, "--expect", "sink"))[0] == 0
        assert p.wait() == 0
    assert "PORT_ID" in p.text and "ifg: 96" in p.text
    assert re.search(r"^0000  02 70 64 00 00 01 02 70", p.text, re.M)


def test_on_a_kernel_interface():
    """The same programs, no preload: frames without sidecars."""
    with Network() as net:
        a, b = net.namespace(), net.namespace()
        net.veth(a, "va", b, "vb", "10.9.0.1/24", "10.9.0.2/24")
        with Proc([build("examples/loopback"), "vb"], wrap=b.wrap) as loop:
            loop.expect("ready")
            assert "no sidecars" in loop.text
            code, text = a.run([build("examples/generator"), "--check", "--count", "500",
                                "--window", "16", "va"])
            assert code == 0 and "500 returned, 0 lost" in text
            loop.terminate()
            assert loop.wait() == 0


@pytest.mark.parametrize("args", [[], ["-1"]], ids=["batches", "one by one"])
def test_loopback_leaves_out_what_is_too_long(sock, args):
    """Frames longer than the port's MTU come in, and cannot go back: said once; the others do."""
    ports = f"pd0=vhost-user:{sock}"
    with under_preload(sock, "loopback", "--keep", *args, "pd0", ports=ports) as p:
        assert run(vlm(sock, "--frames", 10, "--size", 1600, "--expect", "sink"))[0] == 0
        code, text = run(vlm(sock, "--frames", 500, "--size", "60-1514", "--expect", "echo"))
        assert (code, failures(report(text))) == (0, {}), p.text
        p.signal(signal.SIGTERM)
        assert p.wait() == 0
        assert "500 frames echoed" in p.text and "10 frames not echoed" in p.text
        assert p.text.count("longer than the port's MTU 1500: set mtu=") == 1


def test_generator_says_what_is_too_long(sock):
    with Proc(vlm(sock, "--reflect")), \
            under_preload(sock, "generator", "--size", 1600, "pd0",
                          ports=f"pd0=vhost-user:{sock}") as p:
        assert p.wait() == 1
        assert "longer than the port's MTU 1500: set mtu=" in p.text


@pytest.mark.parametrize("program, words", [("loopback", []), ("generator", []), ("sniffer", []),
                                            ("responder", ["10.9.0.2"])])
def test_usage(program, words):
    path = build(f"examples/{program}")
    code, text = run([path, "--help"])
    assert code == 0 and text.startswith(f"Usage: {program} [OPTION]... PORT")
    code, text = run([path, "--version"])
    assert code == 0 and re.fullmatch(program + r" \(libpalladium\) [0-9.]+\n", text)
    code, text = run([path])
    assert code == 2 and "got 0 words" in text
    assert run([path, "--nonsense", "pd0", *words])[0] == 2
    if program != "responder":
        assert run([path, "--count", "x", "pd0"])[0] == 2
    code, text = run([path, "no_such_port", *words])
    assert code == 1 and "no_such_port" in text and "PALLADIUM_PORTS" in text
