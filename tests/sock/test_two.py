# SPDX-License-Identifier: BSD-2-Clause
"""The essentials of packet sockets between two processes over vhost-user, in both roles, and over loop in one.

A body runs with its end A; `far` runs statements and expressions at the other end, B. What it prints must be what it prints
between two processes on a kernel veth pair.
"""
import json
import subprocess

import pytest

from sockutil import LIMIT, environment, finish, program
from test_sidecar import body as with_sidecar

BEGIN = """
far = Far()
far("B = there", there=os.environ.get("FAR_IF", B))
far("far_up = packet(B, proto=0)")
up = packet(A, proto=0)
assert ready(up, select.POLLOUT, 20000) and far("ready(far_up, select.POLLOUT, 20000) != 0") == "True"
up.close()
far("far_up.close()")
"""
END = """
if far.process:
    far.process.stdin.close()
    assert far.process.wait(20) == 0
"""
PLACES = ["loop", "backend", "frontend"]


def settings(place, sockdir):
    """The environment of the near end, which tells that of the far one."""
    if place == "loop":
        return environment()
    other = "frontend" if place == "backend" else "backend"
    port = f"pd0=vhost-user:{sockdir}/port.sock,"
    far = {"PALLADIUM_PORTS": f"{port}mode=listen,role={other}"}
    return environment(f"{port}mode=connect,role={place}", FAR_ENV=json.dumps(far), FAR_IF="pd0")


def run(place, sockdir, body):
    """What the body prints there."""
    return finish(subprocess.run(program(BEGIN + body + END), env=settings(place, sockdir), capture_output=True,
                                 text=True, timeout=3 * LIMIT, check=False))


def same(kernel, place, sockdir, body):
    ours = run(place, sockdir, body)
    theirs = kernel.run(BEGIN + body + END, {"FAR_ENV": "{}"})
    assert ours.splitlines() == theirs.splitlines()
    assert ours


@pytest.mark.parametrize("place", PLACES)
def test_blocking_and_not(kernel, sockdir, place):
    same(kernel, place, sockdir, """
a = packet(A)
far("b = packet(B)")
far.begin("number(b.recv(100))")                         # asleep, or about to
time.sleep(0.05)
a.send(frame(1))
say(far.end())
say(far("attempt(b.recv, 100, MSG_DONTWAIT)"), attempt(a.recv, 100, MSG_DONTWAIT))
for i in range(200):
    a.send(frame(i, 60 + i))
    far.begin("f = b.recv(2000); b.send(f[6:12] + f[:6] + f[12:])")
    got = a.recv(2000)
    assert number(got) == i and len(got) == 60 + i, (i, number(got))
    far.end()
far("b.setblocking(False)")
say(far("attempt(b.recv, 100)"))
a.send(frame(2))
say(far("ready(b)"), far("number(b.recv(100))"), far("ready(b, timeout=0)"))
a.settimeout(0.05)
say(attempt(a.recv, 100))
a.settimeout(None)
a.setsockopt(1, 20, struct.pack("ll", 0, 50000))
t = time.monotonic()
say(checked(libc.recv(a.fileno(), ctypes.create_string_buffer(9), 9, 0)), time.monotonic() - t >= 0.05)
""")


@pytest.mark.parametrize("place", PLACES)
def test_peek_trunc_and_vectors(kernel, sockdir, place):
    same(kernel, place, sockdir, """
a = packet(A)
far("b = packet(B)")
a.send(frame(1, 500))
say(far("ready(b), len(b.recv(2000, MSG_PEEK)), len(b.recv(10, MSG_PEEK)), b.recvmsg(10, 0, MSG_TRUNC | MSG_PEEK)[2]"))
say(far("b.recv_into(bytearray(20), 20, MSG_TRUNC), attempt(b.recv, 100, MSG_DONTWAIT)"))
say(sendmmsg(a, Messages([frame(i, 64 + i) for i in range(20)])))
far("m = Messages([200] * 32)\\ngot = 0\\nwhile got < 20:\\n    n = recvmmsg(b, m, 0x10000)\\n"
    "    assert [number(m.data(i)) for i in range(n)] == list(range(got, got + n))\\n    got += n")
say(far("got, recvmmsg(b, m, MSG_DONTWAIT)"))
far("b.settimeout(None)\\nb.setsockopt(1, 20, struct.pack('ll', 0, 400000))")
for i in range(3):
    a.send(frame(i))
say(far("recvmmsg(b, Messages([100] * 4))"))              # the fourth never comes
say(a.sendmsg([frame(7)[:14], b"", frame(7)[14:]]), far("number(b.recv(100))"))
""")


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_a_wait(kernel, sockdir, place):
    if place == "loop":
        pytest.skip("a thread that is not the first gets no signal of the process")
    same(kernel, place, sockdir, """
a = packet(A)
far("b = packet(B)\\nsignal.signal(signal.SIGALRM, lambda *_: None)\\nsignal.siginterrupt(signal.SIGALRM, True)")
far.begin("signal.setitimer(signal.ITIMER_REAL, 0.1), checked(libc.recv(b.fileno(), ctypes.create_string_buffer(99), 99, 0))")
say(far.end())
a.send(frame(3))
say(far("number(b.recv(100))"))
""")


@pytest.mark.parametrize("place", PLACES)
def test_several_sockets_and_what_goes_out(kernel, sockdir, place):
    same(kernel, place, sockdir, """
a, watch, other = packet(A), packet(A), packet(A, proto=OTHER)
far("b, c, d = packet(B), packet(B, kind=SOCK_DGRAM), packet(B, proto=OTHER)")
for i in range(5):
    a.send(frame(i, proto=(ETH_P_TEST, OTHER)[i & 1]))
say(far("[number(b.recv(100)) for i in range(5)], [len(c.recv(100)) for i in range(5)], [number(d.recv(100)) for i in range(2)]"))
say([(number(f), addr[2]) for f, addr in (watch.recvfrom(100) for i in range(5))])      # PACKET_OUTGOING
say(attempt(a.recv, 100, MSG_DONTWAIT), attempt(other.recv, 100, MSG_DONTWAIT))
far("b.send(frame(9, proto=OTHER))")
say([(number(f), addr[2]) for f, addr in (s.recvfrom(100) for s in (a, watch, other))])
say(far("c.recvfrom(100)[1][2], d.close(), attempt(b.recv, 100, MSG_DONTWAIT)"))
""")


@pytest.mark.parametrize("place", PLACES)
def test_the_sidecar_passes(sockdir, place):
    """But the first two octets: the count of buffers, which a driver leaves 0."""
    setup = with_sidecar("")
    assert run(place, sockdir, setup + f"far({setup!r})" + """
a = packet(A)
far("b = packet(B)\\nopt(b, RECV_METADATA, 1)\\nopt(b, RECV_CONTROL, 1)")
for i in range(50):
    put(a, frame(i), sidecar(i))
    data, raw = eval(far("get(b)"))
    assert data == frame(i) and raw[2:] == sidecar(i)[2:] and raw[0] < 2 and not raw[1], (i, raw)
put(a, b"", sidecar(3, control=True))
data, raw = eval(far("get(b)"))
say(data, raw[2:] == sidecar(3, control=True)[2:])
far("opt(b, MODE, INLINE)")
opt(a, MODE, INLINE)
say(a.send(sidecar(5) + frame(5)), eval(far("b.recv(200)[2:]")) == sidecar(5)[2:] + frame(5))
far("b.send(sidecar(6, control=True))")
say(a.recv(200)[2:] == sidecar(6, control=True)[2:])
""") == "b'' True\n112 True\nTrue\n"
