# SPDX-License-Identifier: BSD-2-Clause
"""palladium_vlm as a whole: against a well-behaved peer in every role, against each way of
misbehaving, and across restarts. tests/vlm/peer.c is the other end; testpmd is an independent
one."""
import json
import os
import signal
import time

import pytest

from lab.proc import Proc, build, run

ALTERATIONS = {
    "drop": "lost", "twice": "duplicated", "swap": "reordered", "byte": "altered_bytes",
    "length": "altered_length", "sidecar": "altered_sidecar", "invent": "invented",
}
FAILURES = sorted(set(ALTERATIONS.values()) | {"unexpected", "not_taken", "restart_lost",
                                               "restart_repeated"})


def vlm(sock, *args, mode="listen"):
    """The command that tests have in common: JSON, no chatter."""
    return [build("palladium_vlm"), "--socket", sock, "--" + mode, "--json", "--quiet",
            "--timeout", "30", *map(str, args)]


def peer(sock, *args, mode="connect", ports=1, queues=1, dialect="avip"):
    """The other end."""
    return Proc([build("tests/vlm/peer"), sock, mode, ports, queues, dialect, *map(str, args)])


def report(text):
    """The JSON line of a run's output."""
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def judge(sock, *args, mode="listen", timeout=120):
    """Run to the end: (exit status, report)."""
    code, text = run(vlm(sock, *args, mode=mode), timeout=timeout)
    return code, report(text)


def failures(result):
    """The counts that make a run fail and are not zero."""
    return {k: result[k] for k in FAILURES if result[k]}


@pytest.mark.parametrize("mode", ["listen", "connect"])
@pytest.mark.parametrize("dialect", ["avip", "virtio"])
@pytest.mark.parametrize("size", ["60", "32-12240", "imix"])
def test_all_come_back(sock, mode, dialect, size):
    other = {"listen": "connect", "connect": "listen"}[mode]
    expect = {"avip": "echo", "virtio": "zeroed"}[dialect]
    with peer(sock, "keep", mode=other, dialect=dialect):
        code, r = judge(sock, "--frames", 20000, "--size", size, "--dialect", dialect,
                        "--expect", expect, mode=mode)
    assert (code, r["result"], failures(r)) == (0, "ok", {})
    assert r["sent"] == r["returned"] == r["latency_ns"]["count"] == 20000
    assert r["sent_bytes"] == r["returned_bytes"]
    lat = r["latency_ns"]
    order = [lat[k] for k in ("min", "p50", "p90", "p99", "p99.9", "max")]
    assert order == sorted(order) and order[0] > 0


def test_zeroed_sidecars(sock):
    with peer(sock):
        code, r = judge(sock, "--frames", 5000, "--expect", "zeroed")
    assert (code, failures(r)) == (0, {})


def test_ports_and_queues(sock):
    with peer(sock, "keep", "hello", ports=3, queues=2):
        code, r = judge(sock, "--frames", 5000, "--ports", 3, "--queues", 2, "--expect", "echo",
                        "--require-control", "--size", "60-1514")
    assert (code, failures(r)) == (0, {})
    assert [p["returned"] for p in r["ports"]] == [5000] * 3
    assert {p["heard"]["port_name"] for p in r["ports"]} == {"eth0", "eth1", "eth2"}
    assert all(p["heard"]["line_speed"] == 400000 and p["heard"]["queues"] == 2
               for p in r["ports"])
    assert all(p["control_sent"] == 1 for p in r["ports"])


def test_window_of_one(sock):
    with peer(sock, "keep"):
        code, r = judge(sock, "--frames", 500, "--window", 1, "--expect", "echo")
    assert (code, failures(r), r["returned"]) == (0, {}, 500)


@pytest.mark.parametrize("fault", sorted(ALTERATIONS))
def test_each_fault_is_found(sock, fault):
    """One frame in a hundred suffers; the run fails and says which count tells of it."""
    with peer(sock, "keep", f"{fault}=100"):
        code, r = judge(sock, "--frames", 5000, "--size", "64-300", "--expect", "echo",
                        "--loss-after", 3)
    found = failures(r)
    assert (code, r["result"]) == (1, "failed")
    # An invented number is one frame missing as well; a frame given up may still come.
    assert set(found) - {"lost"} == {ALTERATIONS[fault]} - {"lost"}
    # Frames change places only within a batch of the peer's.
    assert 0 < found[ALTERATIONS[fault]] <= 50 if fault == "swap" else \
        found[ALTERATIONS[fault]] == 50
    assert any("frame" in remark for remark in r["remarks"]) or fault == "drop"


def test_wrong_expectation_is_explained(sock):
    with peer(sock):
        code, r = judge(sock, "--frames", 100, "--expect", "echo")
    assert (code, r["altered_sidecar"]) == (1, 100)
    assert any("--expect zeroed" in remark for remark in r["remarks"])


def test_check_none_does_not_look(sock):
    with peer(sock, "byte=10"):
        code, r = judge(sock, "--frames", 1000, "--check", "none")
    assert (code, failures(r), r["check"]) == (0, {}, "none")


def test_sink(sock):
    """What comes back although nothing should is a failure, and so is what nobody takes."""
    with peer(sock, "drop=1"):
        code, r = judge(sock, "--frames", 50000, "--expect", "sink")
    assert (code, failures(r), r["sent"]) == (0, {}, 50000)


def test_sink_that_answers(sock):
    with peer(sock):
        code, r = judge(sock, "--frames", 100, "--expect", "sink")
    assert (code, set(failures(r))) == (1, {"unexpected"})


def test_missing_control_messages(sock):
    with peer(sock):
        code, r = judge(sock, "--frames", 100, "--require-control")
    assert code == 1 and r["ports"][0]["control_missing"]


def test_control_messages_between_frames(sock):
    with peer(sock, "keep"):
        code, r = judge(sock, "--frames", 1000, "--control", "PORT_PAUSED", "--control", "00" * 48,
                        "--control-every", 100, "--expect", "echo", "--batch", 30)
    assert (code, failures(r), r["control_sent"]) == (0, {}, 33)


def test_duration_and_rate(sock):
    with peer(sock):
        code, r = judge(sock, "--duration", "0.5", "--rate", 1000)
    assert (code, failures(r)) == (0, {})
    assert 0 < r["sent"] <= 501 and r["sent"] == r["returned"]


def test_no_peer(sock):
    code, r = judge(sock, "--timeout", "0.2")
    assert code == 1 and "no peer" in r["failure"] and sock in r["failure"]


def test_interrupted(sock):
    """SIGINT ends the sending; what is under way still comes back."""
    with peer(sock), Proc([a for a in vlm(sock, "--duration", 1000) if a != "--quiet"]) as p:
        p.expect("sending")
        p.signal(signal.SIGINT)
        assert p.wait() == 0
        r = report(p.text)
    assert r["interrupted"] and r["sent"] == r["returned"]


def test_stopped_and_continued(sock):
    """Frames that wait in the ring while palladium_vlm is stopped, longer than one may be under way, are not lost."""
    with peer(sock, "keep"), Proc([a for a in vlm(sock, "--duration", 1000, "--window", 256, "--expect", "echo", "--loss-after", 3)
                                   if a != "--quiet"]) as p:
        p.expect("sending")
        p.signal(signal.SIGSTOP)
        time.sleep(3.5)
        p.signal(signal.SIGCONT)
        p.signal(signal.SIGINT)
        assert p.wait() == 0, p.tail()
        r = report(p.text)
    assert r["sent"] == r["returned"] and failures(r) == {}


@pytest.mark.parametrize("mode", ["listen", "connect"])
def test_peer_restarts(sock, mode):
    """The peer dies and a new one carries on. What it had answered is not sent again, what it had
    not taken goes to the next one: nothing is lost, for it dies between two batches."""
    other = {"listen": "connect", "connect": "listen"}[mode]
    args = vlm(sock, "--frames", 30000, "--expect", "echo", "--window", 64, mode=mode)
    with Proc(args) as p:
        for _ in range(2):
            with peer(sock, "keep", "exit=5000", mode=other) as first:
                assert first.wait() == 9
        with peer(sock, "keep", mode=other):
            code = p.wait(60)
        r = report(p.text)
    assert (code, failures(r)) == (0, {}), p.text
    assert r["restarts"] == 2 and r["returned"] == 30000
    assert r["restart_answered"] == r["restart_outstanding"]


def test_peer_takes_frames_with_it(sock):
    """Frames that the peer took and did not answer are told apart, and may be allowed."""
    for allow in [], ["--tolerate-restart"]:
        # Long enough for the second peer to be there before anything counts as lost.
        with Proc(vlm(sock, "--frames", 20000, "--expect", "echo", "--loss-after", "3",
                      *allow)) as p:
            with peer(sock, "keep", "exit=5000", "take=1") as first:
                assert first.wait() == 9
            with peer(sock, "keep"):
                code = p.wait(60)
            r = report(p.text)
        assert code == (0 if allow else 1)
        assert failures(r) == {"restart_lost": 1}
        assert r["returned"] == 19999


def test_wrong_usage():
    for args, why in ((["--size", "5"], "from 32 to 12240"), (["--bogus"], "no option"),
                      (["--ports"], "needs a value"), (["--queues", "11"], "from 1 to 10"),
                      (["--ring", "100", "--format", "split"], "power of two"), (["--expect", "x"], "zeroed, echo"),
                      (["--flags", "NOPE"], "no flag"), (["x"], "not expected"),
                      (["--dialect", "virtio", "--expect", "echo"], "no sidecar"),
                      (["--listen", "--connect"], "exclude"), ([], "--socket")):
        sock_args = ["--socket", os.devnull] if args else []
        code, text = run([build("palladium_vlm"), *sock_args, *args])
        assert code == 2 and why in text, (args, text)


def test_help_tells_every_option():
    code, text = run([build("palladium_vlm"), "--help"])
    assert code == 0 and "--socket PATH" in text and "Exit status" in text
    assert max(map(len, text.splitlines())) <= 90 and not [x for x in text.splitlines()
                                                           if x != x.rstrip()]
