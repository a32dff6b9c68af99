# SPDX-License-Identifier: BSD-2-Clause
"""The sidecar on sockets: ancillary data, inline, control frames; over loop, and beside a scripted peer."""
import os
import subprocess

from lab.vhostpeer import FrontEnd
from sockutil import environment, on_ports, program

SIDECAR = """
def opt(s, name, value):
    return attempt(s.setsockopt, SOL_PALLADIUM, name, value)
def sidecar(seed, control=False):
    raw = bytearray((seed * 7 + i * 13) & 255 for i in range(48))
    raw[2] = raw[2] & 0xfe | control
    return bytes(raw)
def get(s, flags=0):
    data, anc, fl, _ = s.recvmsg(2000, 200, flags)
    return data, next((d for level, kind, d in anc if level == SOL_PALLADIUM), None)
def put(s, data, raw):
    return s.sendmsg([data], [(SOL_PALLADIUM, 1, raw)])
"""


def constants():
    """Names of the option values, from the header itself."""
    text = (r'#include "palladium_extra.h"' "\n#include <stdio.h>\nint main(void) {"
            r'printf("%d %d %d %d %d %d %d", PALLADIUM_METADATA, PALLADIUM_RECV_METADATA,'
            "PALLADIUM_RECV_CONTROL, PALLADIUM_METADATA_MODE, PALLADIUM_DEFAULT_METADATA,"
            "PALLADIUM_MODE_CMSG, PALLADIUM_MODE_INLINE); return 0; }")
    include = os.path.join(os.path.dirname(__file__), "..", "..", "include")
    out = subprocess.run(["sh", "-c", f"t=$(mktemp) && ${{CC:-cc}} -I'{include}' -x c - -o $t && $t; rm -f $t"],
                         input=text, capture_output=True, text=True, check=True).stdout
    names = "METADATA RECV_METADATA RECV_CONTROL MODE DEFAULT CMSG INLINE".split()
    return "\n".join(f"{n} = {v}" for n, v in zip(names, out.split())) + "\n"


def body(text):
    return SIDECAR + constants() + text


def test_every_bit_survives_as_ancillary_data():
    """But the first two octets: they are the count of buffers, which the ring alone knows."""
    on_ports(body("""
a, b = packet(A), packet(B)
a.send(frame(0))
assert get(b) == (frame(0), None)
assert opt(b, RECV_METADATA, 1) is None
a.send(frame(1))
data, raw = get(b)
assert (data, raw) == (frame(1), b"\\1" + bytes(47)), raw
for i in range(200):
    assert put(a, frame(i), sidecar(i)) == 64
    data, raw = get(b)
    assert data == frame(i) and raw[:2] == b"\\1\\0" and raw[2:] == sidecar(i)[2:], (i, raw)
assert opt(a, DEFAULT, sidecar(9)) is None and opt(a, DEFAULT, sidecar(9)[:47]) == "EINVAL"
assert a.getsockopt(SOL_PALLADIUM, DEFAULT, 48) == sidecar(9)
a.send(frame(1))
assert get(b)[1][2:] == sidecar(9)[2:]
put(a, frame(2), sidecar(3))
assert get(b, MSG_PEEK)[1] == get(b)[1]
for bad in (sidecar(1)[:47], b""):
    assert attempt(put, a, frame(1), bad) == "EINVAL"
assert attempt(a.sendmsg, [frame(1)], [(SOL_PALLADIUM, 99, sidecar(1))]) == "EINVAL"
assert a.sendmsg([frame(1)], [(41, 99, b"whatever")]) == 64
"""))


def test_inline_mode_by_option_and_by_variable():
    text = """
a, b = packet(A), packet(B)
if not by_variable:
    for s in (a, b):
        assert s.getsockopt(SOL_PALLADIUM, MODE) == CMSG
        assert opt(s, MODE, INLINE) is None and opt(s, MODE, 7) == "EINVAL"
assert b.getsockopt(SOL_PALLADIUM, MODE) == INLINE
for i in range(50):
    whole = sidecar(i) + frame(i)
    assert (a.send(whole) if i % 2 else os.writev(a.fileno(), [whole[:20], whole[20:61], whole[61:]])) == 112
    if i % 5 == 0:
        assert len(b.recv(20, MSG_PEEK)) == 20 and len(b.recv(200, MSG_PEEK)) == 112
        n = array.array("i", [0])
        fcntl.ioctl(b, termios.FIONREAD, n)
        assert n[0] == 112
    got = b.recv(200)
    assert got[2:] == whole[2:] and got[:2] == b"\\1\\0", (i, got)
assert attempt(a.send, sidecar(1)[:47]) == "EINVAL" and attempt(a.send, sidecar(2)) == "EINVAL"
assert a.send(sidecar(3, True)) == 48 and b.recv(200)[2:] == sidecar(3, True)[2:]
assert attempt(a.send, sidecar(1) + bytes(1514)) == 1562 and len(b.recv(3000)) == 1562
assert attempt(a.send, sidecar(1) + bytes(1515)) == "EMSGSIZE"
"""
    on_ports(body("by_variable = False" + text))
    on_ports(body("by_variable = True" + text), PALLADIUM_METADATA="inline")


def test_control_frames_travel_alone_and_only_to_who_asks():
    on_ports(body("""
a, b, c = packet(A), packet(B), packet(B)
assert opt(b, RECV_METADATA, 1) is None and opt(b, RECV_CONTROL, 1) is None
for i in range(20):
    assert put(a, b"", sidecar(i, True)) == 0
    put(a, frame(i), sidecar(i))
for i in range(20):
    assert ready(b) == select.POLLIN
    data, raw = get(b)
    assert data == b"" and raw[2:] == sidecar(i, True)[2:]
    assert get(b) == (frame(i), b"\\1\\0" + sidecar(i)[2:])
assert [number(c.recv(100)) for i in range(20)] == list(range(20))
assert attempt(c.recv, 100, MSG_DONTWAIT) == "EAGAIN"
assert attempt(put, a, b"", sidecar(1)) == "EINVAL"          # no flag, no frame
"""))


def test_beside_a_peer_of_its_own(sock):
    """Bytes on the wire, both ways; the count of buffers is the true one, at offset 0."""
    text = body("""
s = packet("pd0")
assert opt(s, RECV_METADATA, 1) is None and opt(s, RECV_CONTROL, 1) is None
say("ready")
for _ in range(4):
    data, raw = get(s)
    say(len(data), raw.hex())
    s.sendmsg([data], [(SOL_PALLADIUM, 1, raw)])
sys.stdin.readline()
""")
    with FrontEnd(sock, hdr=48) as fe:
        p = subprocess.Popen(program(text), env=environment(f"pd0=vhost-user:{sock}"), text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            fe.start_like_qemu()
            fe.post_rx([600] * 32)
            assert p.stdout.readline() == "ready\n"
            for i, size in enumerate((64, 1514, 0, 300)):
                frame = bytes((i + k) & 255 for k in range(size))
                head = bytes(2) + bytes([0xfe | (size == 0)]) + bytes(255 - k for k in range(45))
                fe.send(frame, head)
                length, raw = p.stdout.readline().split()
                assert int(length) == size and raw[4:] == head[2:].hex()
                back = fe.recv(timeout=10)
                assert back.frame == frame and back.header[2:] == head[2:]
                buffers = -(-(48 + size) // 600)
                assert int.from_bytes(back.header[:2], "little") == buffers == len(back.used)
        finally:
            p.stdin.close()
            p.kill()
            p.wait()
            p.stdout.close()
