# SPDX-License-Identifier: BSD-2-Clause
"""PACKET_VNET_HDR: unfinished frames through packet sockets. The kernel's own segmentation and checksums, on a veth pair, are what ours
is compared with."""
from sockutil import on_ports, same

STANDARD = "pd0=loop:pd1,dialect=virtio,offloads=all;pd1=loop:pd0,dialect=virtio,offloads=all"

VNET = """
VNET_HDR = 15
CSUM, VALID = 1, 2
NONE, TCP4, UDP, TCP6, ECN = 0, 1, 3, 4, 0x80
def setopt(s, name, value):
    if isinstance(value, int):
        value = struct.pack("i", value)
    return checked(libc.setsockopt(s.fileno(), 263, name, value, len(value)))
def getopt(s, name, n=4):
    buf, size = ctypes.create_string_buffer(64), ctypes.c_int(n)
    ret = checked(libc.getsockopt(s.fileno(), 263, name, buf, ctypes.byref(size)))
    return ret, size.value, buf.raw[:max(0, size.value)].hex()
def vnet(iface=None, **kw):
    s = packet(iface, **kw)
    assert setopt(s, VNET_HDR, 1) == 0
    return s
def header(flags=0, gso=NONE, hdr_len=0, size=0, start=0, offset=0):
    return struct.pack("<BBHHHH", flags, gso, hdr_len, size, start, offset)
def finish_here(iface, on=0):
    # The kernel finishes frames before the device where the device does not: checksums, TSO, GSO.
    with socket.socket(socket.AF_INET, SOCK_DGRAM) as s:
        for command in (0x1f, 0x24, 0x17, 0x19):
            value = array.array("I", [command, on])
            attempt(fcntl.ioctl, s, 0x8946, struct.pack("16sQ16x", iface.encode(), value.buffer_info()[0]))
def csum(data, start=0):
    data += b"\\0" * (len(data) % 2)
    total = start + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total
def pseudo(src, dst, proto, n):
    return csum(src + dst + struct.pack(">II", n, proto))
def tcp(payload, flags=0x10, options=b"", seq=0xfffffa00, check=0):
    head = struct.pack(">HHIIBBHHH", 1000, 2000, seq, 7, (20 + len(options)) // 4 << 4, flags, 500, check, 0)
    return head + options + payload
SRC, DST = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SRC6, DST6 = bytes([0xfd] + [0] * 14 + [1]), bytes([0xfd] + [0] * 14 + [2])
def ip4(body, proto=6, options=b"", ident=0xfffe, frag=0x4000):
    head = struct.pack(">BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), ident,
                       frag, 64, proto, 0, SRC, DST) + options
    return head[:10] + struct.pack(">H", csum(head) ^ 0xffff) + head[12:] + body
def ip6(body, proto=6, between=b""):
    return struct.pack(">IHBB16s16s", 6 << 28, len(between) + len(body), proto, 9, SRC6, DST6) + between + body
def eth(body, kind, tags=b""):
    return b"\\2\\0\\0\\0\\0\\2\\2\\0\\0\\0\\0\\1" + tags + struct.pack(">H", kind) + body
def tcp4_frame(payload, flags=0x10, options=b"", ip_options=b"", tags=b"", **kw):
    n = 20 + len(options) + len(payload)
    t = tcp(payload, flags, options, check=pseudo(SRC, DST, 6, n))
    return eth(ip4(t, options=ip_options, **kw), 0x800, tags), 34 + len(ip_options) + len(tags)
def tcp6_frame(payload, flags=0x10, options=b"", between=b"", proto=6):
    n = 20 + len(options) + len(payload)
    t = tcp(payload, flags, options, check=pseudo(SRC6, DST6, 6, n))
    return eth(ip6(t, proto, between), 0x86dd), 54 + len(between)
def udp4_frame(payload):
    n = 8 + len(payload)
    return eth(ip4(struct.pack(">HHHH", 53, 54, n, pseudo(SRC, DST, 17, n)) + payload, 17), 0x800), 34
def payload(n, seed=1):
    return bytes((i * seed + (i >> 8)) & 255 for i in range(n))
def drain(s, size=70000):
    while True:
        got = attempt(s.recv, size, MSG_DONTWAIT)
        if isinstance(got, str):
            return
        yield got
"""


def test_the_option_is_that_of_the_kernel(kernel):
    same(kernel, VNET + """
s, d = packet(A), packet(A, kind=SOCK_DGRAM)
say(getopt(s, VNET_HDR), getopt(d, VNET_HDR))
for v in (1, 0, 7, b"1", b"", b"\\1\\0\\0\\0more"):
    say(v, setopt(s, VNET_HDR, v), getopt(s, VNET_HDR), setopt(d, VNET_HDR, v), getopt(d, VNET_HDR))
say(getopt(s, VNET_HDR, 2), getopt(s, VNET_HDR, -1))
""")


def test_what_a_sender_may_not_say_is_what_the_kernel_refuses(kernel):
    same(kernel, VNET + """
finish_here(A)
a, b = vnet(A), packet(B)
frame, at = tcp4_frame(payload(100))
big, at = tcp4_frame(payload(4000))
small = frame[:60]
n = len(frame)
for name, h, f in (
        ("nothing", b"", b""), ("half a header", header()[:9], b""), ("a header alone", header(), b""),
        ("too short a frame", header(), frame[:13]), ("plain", header(), frame),
        ("hdr_len", header(hdr_len=n), frame), ("hdr_len past", header(hdr_len=n + 1), frame),
        ("csum", header(CSUM, start=at, offset=16), frame),
        ("csum at the end", header(CSUM, start=at, offset=n - at - 2), frame),
        ("csum past", header(CSUM, start=at, offset=n - at - 1), frame),
        ("start past", header(CSUM, start=n, offset=0), frame),
        ("start far past", header(CSUM, start=65535, offset=65535), frame),
        ("gso of no size", header(CSUM, TCP4, 54, 0, at, 16), big),
        ("gso by fragments", header(CSUM, TCP4, 54, 0xffff, at, 16), big),
        ("no such type", header(CSUM, 2, 54, 1000, at, 16), big),
        ("no such type either", header(CSUM, 0x40, 54, 1000, at, 16), big),
        ("ecn of nothing", header(CSUM, ECN, 54, 1000, at, 16), big),
        ("gso", header(CSUM, TCP4, 54, 1000, at, 16), big),
        ("gso of one", header(CSUM, TCP4, 54, 1000, at, 16), frame),
        ("long without gso", header(), big),
        ("long with csum", header(CSUM, start=at, offset=16), big),
        ("unknown flags", header(0xf8), frame)):
    say(name, attempt(a.send, h + f))
""")


CHECKSUMS = VNET + """
finish_here(A)
a, b = vnet(A), packet(B)
for n in (0, 1, 2, 3, 57, 58, 100, 1459, 1460):
    f, at = tcp4_frame(payload(n, 7))
    say(n, attempt(a.send, header(CSUM, start=at, offset=16) + f))
    f, at = udp4_frame(payload(n, 5))
    say(n, attempt(a.send, header(CSUM, start=at, offset=6) + f))
f, at = tcp6_frame(payload(999), options=b"\\1\\1\\1\\0")
say(attempt(a.send, header(CSUM, start=at, offset=16) + f))
# The sum that is nothing: what is stored is all ones.
f, at = udp4_frame(b"\\0" * 6)
want = csum(f[at:])
f = f[:-2] + struct.pack(">H", want ^ 0xffff)
say(attempt(a.send, header(CSUM, start=at, offset=6) + f))
for got in drain(b):
    say(len(got), got.hex())
"""

SEGMENTS = VNET + """
finish_here(A)
a, b = vnet(A), packet(B)
def large(f, at, size, kind, start=None):
    ret = attempt(a.send, header(CSUM, kind, at + 20, size, at, 16) + f)
    got = list(drain(b))
    say(kind, size, len(f), ret, len(got), max(map(len, got), default=0))
    for g in got:
        say(g.hex())
for n, size in ((2001, 1000), (2000, 1000), (3000, 1460), (9000, 536), (65495, 1448)):
    large(*tcp4_frame(payload(n, 3)), size, TCP4)
    large(*tcp6_frame(payload(n, 3)), min(size, 1440), TCP6)
# PSH and FIN stand in the last segment, CWR in the first; options go with all.
large(*tcp4_frame(payload(5000), flags=0x19, options=b"\\1\\1\\x08\\x0a" + b"timestam"), 1400, TCP4)
large(*tcp4_frame(payload(5000), flags=0xd8), 1400, TCP4 | ECN)
large(*tcp6_frame(payload(5000), flags=0xd9), 1400, TCP6 | ECN)
large(*tcp4_frame(payload(5000), ip_options=b"\\1\\1\\1\\0"), 1400, TCP4)
hop = bytes([6, 0, 5, 2, 0, 0, 1, 0])
large(*tcp6_frame(payload(5000), between=hop, proto=0), 1400, TCP6)
large(*tcp4_frame(payload(4000)), 1400, TCP4)
"""


DATAGRAMS = VNET + """
finish_here(A)
a, b = vnet(A), packet(B)
UDP_L4 = 5
def udp6_frame(p):
    n = 8 + len(p)
    return eth(ip6(struct.pack(">HHHH", 53, 54, n, pseudo(SRC6, DST6, 17, n)) + p, 17), 0x86dd), 54
def large(f, at, size, flags=CSUM, kind=UDP_L4, offset=6, start=0, hdr_len=None):
    ret = attempt(a.send, header(flags, kind, at + 8 if hdr_len is None else hdr_len, size, at + start, offset) + f)
    got = list(drain(b))
    say(kind, size, len(f), ret, len(got), max(map(len, got), default=0))
    for g in got:
        say(g.hex())
for n, size in ((2001, 1000), (2000, 1000), (3000, 1452), (500, 1000), (1000, 1000), (9000, 536), (65000, 1400), (1280, 10)):
    large(*udp4_frame(payload(n, 3)), size)
    large(*udp6_frame(payload(n, 3)), min(size, 1432))
large(*udp4_frame(bytes(3000)), 1000, hdr_len=0)
large(*udp4_frame(payload(3000)), 1000, flags=0, offset=0, start=-34)
large(*udp4_frame(payload(3000)), 1000, offset=16)
large(*udp4_frame(payload(3000)), 1000, start=-20)
large(*udp4_frame(payload(3000)), 1000, kind=UDP_L4 | ECN)
large(*udp4_frame(payload(3000)), 0)
large(*udp4_frame(payload(1290)), 10)
# The sum that is nothing: what is stored is all ones.
pieces = b""
for seed in (1, 2):
    four = payload(4, seed)
    pieces += four + struct.pack(">H", csum(four, pseudo(SRC, DST, 17, 14) + 53 + 54 + 14) ^ 0xffff)
f, at = udp4_frame(pieces)
large(f, at, 6)
"""


def test_datagrams_are_cut_as_by_the_kernel(kernel):
    same(kernel, DATAGRAMS)
    same(kernel, DATAGRAMS, ports=STANDARD)


def test_datagrams_longer_than_the_mtu_are_refused():
    """The kernel takes them and sends none of the pieces that are too long."""
    out = on_ports(DATAGRAMS.split("for n, size")[0] + "large(*udp4_frame(payload(3000)), 2000)\n", STANDARD)
    assert out.split() == ["5", "2000", "3042", "EMSGSIZE", "0", "0"]


def test_checksums_are_completed_as_by_the_kernel(kernel):
    same(kernel, CHECKSUMS)
    same(kernel, CHECKSUMS, ports=STANDARD)


def test_large_segments_are_cut_as_by_the_kernel(kernel):
    same(kernel, SEGMENTS)
    same(kernel, SEGMENTS, ports=STANDARD)


def test_headers_of_received_frames_are_those_of_the_kernel(kernel):
    same(kernel, VNET + """
finish_here(A, 1)
a, b = vnet(A), vnet(B)
setopt(b, 8, 1)
f, at = tcp4_frame(payload(200, 7))
for h, data in ((header(), f), (header(CSUM, start=at, offset=16), f), (header(CSUM, start=at, offset=16, hdr_len=99), f)):
    say(attempt(a.send, h + data))
    got, control, flags, _ = b.recvmsg(3000, 100)
    say(len(got), got.hex(), flags, [(lvl, kind, data.hex()[:24]) for lvl, kind, data in control])
plain = packet(B)
setopt(plain, 8, 1)
a.send(header() + f)
got, control, flags, _ = plain.recvmsg(3000, 100)
say(len(got), got == f, flags, [(lvl, kind, data.hex()[:24]) for lvl, kind, data in control])
""", ports=STANDARD)


def test_room_for_what_stands_in_front(kernel):
    same(kernel, VNET + """
a, b = vnet(A), vnet(B)
f, at = tcp4_frame(payload(200, 7))
for i in range(7):
    a.send(header() + f)
for size, flags in ((3000, 0), (264, 0), (263, 0), (10, 0), (10, MSG_TRUNC), (11, MSG_TRUNC | MSG_PEEK), (11, MSG_TRUNC)):
    buf = bytearray(size)
    n, _, got, _ = b.recvmsg_into([buf], 0, flags | MSG_DONTWAIT)
    say(size, flags, n, got, buf.hex())
parts = [bytearray(3), bytearray(4), bytearray(5), bytearray(400)]
say(b.recvmsg_into(parts)[0], [p.hex() for p in parts])
n = a.sendmsg([header()[:3], header()[3:] + f[:2], f[2:40], f[40:]])
say(n, b.recv(3000).hex())
""")


def test_too_little_room_takes_nothing_away():
    """The kernel loses the frame; here it can be read yet."""
    out = on_ports(VNET + """
a, b = vnet(A), vnet(B)
a.send(header() + frame(1))
say(attempt(b.recv, 9), len(b.recv(2000)))
""")
    assert out.split() == ["EINVAL", "74"]


def test_inline_metadata_and_headers_exclude_each_other():
    out = on_ports(VNET + """
s = packet(A)
mode = lambda s, v: checked(libc.setsockopt(s.fileno(), SOL_PALLADIUM, 3, struct.pack("i", v), 4))
say(setopt(s, VNET_HDR, 1), mode(s, 1), mode(s, 0), setopt(s, VNET_HDR, 0), mode(s, 1), setopt(s, VNET_HDR, 1))
""")
    assert out.split() == ["0", "EINVAL", "0", "0", "0", "EINVAL"]
