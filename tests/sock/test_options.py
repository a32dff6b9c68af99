# SPDX-License-Identifier: BSD-2-Clause
"""Options, requests and ancillary data of packet sockets, beside the kernel's."""
import subprocess

from sockutil import LIMIT, environment, on_ports, same

OPTIONS = """
def setopt(s, level, name, value):
    if isinstance(value, int):
        value = struct.pack("i", value)
    return checked(libc.setsockopt(s.fileno(), level, name, value, len(value)))
def getopt(s, level, name, n=4, value=b""):
    buf, size = ctypes.create_string_buffer(value, 64), ctypes.c_int(n)
    ret = checked(libc.getsockopt(s.fileno(), level, name, buf, ctypes.byref(size)))
    return ret, size.value, buf.raw[:max(0, size.value)].hex()
def number_of(s, request):
    value = array.array("i", [-7])
    return attempt(fcntl.ioctl, s, request, value), value[0]
"""


def test_options_of_the_socket_level(kernel):
    same(kernel, OPTIONS + """
a, b = packet(A), packet(B)
pair = lambda s, us: struct.pack("ll", s, us)
for option in (20, 21):
    for v in (pair(0, 0), pair(1, 8000), pair(-1, 0), pair(0, 1000000), pair(0, -1), pair(7, 0),
              b"1234", b""):
        say(option, v.hex(), setopt(a, 1, option, v), getopt(a, 1, option, 16))
    setopt(a, 1, option, pair(0, 0))
setopt(b, 1, 20, pair(-1, 0))
say("negative", checked(libc.recv(b.fileno(), ctypes.create_string_buffer(9), 9, 0)))
names = dict(RCVBUF=8, SNDBUF=7, BROADCAST=6, PRIORITY=12, MARK=36, KEEPALIVE=9, REUSEADDR=2,
             LINGER=13, DONTROUTE=5, OOBINLINE=10, RCVLOWAT=18, SNDLOWAT=19, TIMESTAMP=29,
             TIMESTAMPNS=35, ERROR=4, TYPE=3, ACCEPTCONN=30, DOMAIN=39, BUSY_POLL=46)
for name, o in names.items():
    say(name, getopt(a, 1, o), setopt(a, 1, o, 1), getopt(a, 1, o), setopt(a, 1, o, b"1"),
        setopt(a, 1, o, 3000), getopt(a, 1, o), getopt(a, 1, o, 2), getopt(a, 1, o, 0),
        getopt(a, 1, o, -1))
say(setopt(a, 1, 8, 0), getopt(a, 1, 8), setopt(a, 1, 8, -5), setopt(a, 1, 7, -5))
say(setopt(a, 6, 1, 1), getopt(a, 6, 1), setopt(a, 0, 1, 1), getopt(a, 41, 1))
""")


def test_options_of_the_packet_level(kernel):
    same(kernel, OPTIONS + """
a, b = packet(A), packet(B)
names = dict(AUXDATA=8, ORIGDEV=9, VERSION=10, RESERVE=12, LOSS=14, QDISC_BYPASS=20, IGNORE=23,
             COPY_THRESH=7, STATISTICS=6)
for name, o in names.items():
    say(name, getopt(a, 263, o), setopt(a, 263, o, 1), getopt(a, 263, o), setopt(a, 263, o, b"1"),
        setopt(a, 263, o, 3), getopt(a, 263, o), getopt(a, 263, o, 2))
for v in range(4):
    say("HDRLEN", getopt(a, 263, 11, 4, struct.pack("i", v)))
index = socket.if_nametoindex(A)
mreq = lambda i, kind=1, alen=0: struct.pack("iHH8s", i, kind, alen, b"")
for what in (1, 2):
    for m in (mreq(index), mreq(index), mreq(index)[:8], mreq(index, 0, 6), mreq(index, 2),
              mreq(index, 0, 9)):
        say("membership", what, m.hex()[8:], setopt(a, 263, what, m))
say("unknown interface", setopt(a, 263, 1, mreq(99999)), setopt(a, 263, 1, mreq(index, 0, 7)))
""")


def test_requests_statistics_and_ancillary_data(kernel):
    same(kernel, OPTIONS + """
a, b, d = packet(A), packet(B), packet(B, kind=SOCK_DGRAM)
say(number_of(b, termios.FIONREAD), number_of(b, termios.TIOCOUTQ))
a.send(frame(1, 77))
a.send(frame(2, 99))
say(number_of(b, termios.FIONREAD), number_of(d, termios.FIONREAD))
s = packet(B)
say("later", attempt(s.recv, 100, MSG_DONTWAIT))
for k in range(5):
    a.send(frame(k))
for k in range(3):
    s.recv(100)
say(getopt(s, 263, 6, 8), getopt(s, 263, 6, 8), getopt(s, 263, 6, 4), getopt(s, 263, 6, 12))
s = packet(B)
setopt(s, 263, 8, 1)
for room in (200, 0, 20, 35, 36):
    a.send(frame(5, 100))
    data, anc, flags, _ = s.recvmsg(50, room)
    say(room, len(data), [(x[0], x[1], x[2].hex()) for x in anc], flags)
setopt(s, 1, 29, 1)
a.send(frame(5, 100))
say(sorted((x[0], x[1], len(x[2])) for x in s.recvmsg(500, 500)[1]))
""")


def test_who_sees_what_is_sent(kernel):
    same(kernel, OPTIONS + """
a, all_, one, ignores, far = (packet(A), packet(A), packet(A, proto=ETH_P_TEST), packet(A),
                              packet(B))
setopt(ignores, 263, 23, 1)
data = frame(9, dst=b"\\2\\0\\0\\0\\0\\x77")
a.send(data)
for s in (a, all_, one, ignores, far):
    got = attempt(s.recvfrom, 100, MSG_DONTWAIT)
    say(got if isinstance(got, str) else (len(got[0]), got[1][1:3]))
far.send(data)
for s in (a, all_, one, ignores, far):
    got = attempt(s.recvfrom, 100, MSG_DONTWAIT)
    say(got if isinstance(got, str) else (len(got[0]), got[1][1:3]))
""")


def test_ways_to_become_nonblocking(kernel):
    same(kernel, """
for how in ("fcntl", "ioctl", "flag"):
    s = packet(B, flags=socket.SOCK_NONBLOCK if how == "flag" else 0)
    if how == "fcntl":
        os.set_blocking(s.fileno(), False)
    if how == "ioctl":
        fcntl.ioctl(s, termios.FIONBIO, struct.pack("i", 1))
    say(how, checked(libc.recv(s.fileno(), ctypes.create_string_buffer(10), 10, 0)),
        bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK), fcntl.fcntl(s, fcntl.F_GETFD))
    fcntl.ioctl(s, termios.FIONBIO, struct.pack("i", 0))
    say(bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK))
say(attempt(os.lseek, s.fileno(), 0, 0), attempt(os.pread, s.fileno(), 10, 0))
""")


def test_filters_are_refused_so_that_libpcap_filters_itself():
    out = on_ports(OPTIONS + """
s = packet(A)
say(setopt(s, 1, 26, struct.pack("HxxxxxxP", 1, 0)), setopt(s, 1, 50, 1), setopt(s, 1, 27, 0))
""")
    assert out == "ENOPROTOOPT ENOPROTOOPT ENOENT\n"


def test_drops_are_counted_and_limited_by_the_receive_buffer():
    out = on_ports(OPTIONS + """
a, b, c = packet(A), packet(B), packet(B)
setopt(b, 1, 8, 1)
for i in range(400):
    a.send(frame(i, 1000))
    c.recv(2000)
got = 0
while not isinstance(attempt(b.recv, 2000, MSG_DONTWAIT), str):
    got += 1
packets, drops = struct.unpack("II", bytes.fromhex(getopt(b, 263, 6, 8)[2]))
say(got, packets, drops)
""", PALLADIUM_RX_BYTES_MIN=65536)
    got, packets, drops = map(int, out.split())
    assert (got, packets, drops) == (65, 400, 335)


def test_what_the_configuration_sets_cannot_be_changed():
    """SIOCSIFMTU, HWADDR, ADDR, NETMASK, NAME, TXQLEN; joining a group is no change: all comes in."""
    assert on_ports("""
s = packet(A)
for request in (0x8922, 0x8924, 0x8916, 0x891c, 0x8923, 0x8943, 0x8931):
    outcome = attempt(fcntl.ioctl, s, request, struct.pack("16s16x", A.encode()))
    say(outcome if isinstance(outcome, str) else "done")
""").splitlines() == ["ENOTSUP"] * 6 + ["done"]


def test_a_port_that_hides_an_interface_is_said():
    done = subprocess.run(["/bin/true"], env=environment("lo=loop:pd1", PALLADIUM_TRACELEVEL="warn"),
                          capture_output=True, text=True, timeout=LIMIT, check=True)
    assert "port lo hides the kernel's interface lo" in done.stderr
    assert "pd1 hides" not in done.stderr


def test_no_address_at_all(kernel):
    same(kernel, """
s = packet(A)
for call in (lambda: libc.bind(s.fileno(), None, 20), lambda: libc.bind(s.fileno(), None, 0),
             lambda: libc.sendmsg(s.fileno(), None, 0),
             lambda: libc.recvmsg(s.fileno(), None, socket.MSG_DONTWAIT),
             lambda: libc.sendmmsg(s.fileno(), None, 1, 0),
             lambda: libc.recvmmsg(s.fileno(), None, 1, socket.MSG_DONTWAIT, None),
             lambda: libc.ioctl(s.fileno(), termios.FIONREAD, None),
             lambda: libc.poll(None, 5, 0)):
    ctypes.set_errno(0)
    say(call(), errno.errorcode.get(ctypes.get_errno()))
""")


def test_lost_frames_are_told_with_those_that_come(kernel):
    """SO_RXQ_OVFL: with a frame comes how many were lost before it, ever; and no word while there are none."""
    same(kernel, OPTIONS + """
say(getopt(packet(A), 1, 40), setopt(packet(A), 1, 40, b"1"))
a, b, other = packet(A), packet(B), packet(B)
other.setsockopt(1, 8, 4 << 20)
say(setopt(b, 1, 40, 7), getopt(b, 1, 40), setopt(b, 1, 8, 1))
drops = lambda anc: [struct.unpack("I", x[2])[0] for x in anc if x[:2] == (1, 40)]
sent, got, seen = 0, 0, []
for burst in range(4):
    for i in range(100):
        a.send(frame(i, 1000))
        sent += 1
        len(other.recv(2000))
    while True:
        r = attempt(b.recvmsg, 2000, 200, MSG_DONTWAIT)
        if isinstance(r, str):
            break
        if burst < 2:
            seen.append((sent - 100 * (burst + 1), drops(r[1])))
        got += 1
a.send(frame(1))
count = drops(b.recvmsg(100, 200)[1])
say(got < sent, count == [sent - got], seen[0][1], count[0] > 0)
stats = struct.unpack("II", b.getsockopt(263, 6, 8))
say(stats == (sent + 1, sent - got))
a.send(frame(1))
say(drops(b.recvmsg(100, 200)[1]) == count)
setopt(b, 1, 40, 0)
a.send(frame(1))
say(b.recvmsg(100, 200)[1])
""", PALLADIUM_RX_BYTES_MIN=2000)


def test_frames_are_stamped_by_software(kernel):
    """SO_TIMESTAMPING as the kernel has it on an interface without a clock."""
    same(kernel, OPTIONS + """
a = packet(A)
RX, SW, RXHW, RAW, CMSG = 8, 16, 4, 64, 1 << 10
keep = socket.socket(socket.AF_INET, SOCK_DGRAM)           # the kernel takes a while to begin stamping: once begun, keep on
keep.setsockopt(1, 29, 1)
with packet(B) as first:
    setopt(first, 1, 37, RX | SW)
    stamped = False
    while not stamped:
        a.send(frame(1))
        stamped = bool(first.recvmsg(100, 500)[1])
for count in (1, 2):                                       # straight from the ring, and through queues
    bs = [packet(B) for _ in range(count)]
    for flags in (RX | SW, RX | SW | RXHW | RAW, RX | SW | CMSG, RX, 0):
        for also in (0, 29, 35):
            for b in bs:
                say(setopt(b, 1, 37, flags), getopt(b, 1, 37), getopt(b, 1, 37, 8), getopt(b, 1, 37, 2))
                for o in (29, 35):
                    setopt(b, 1, o, o == also)
            before = time.time_ns()
            a.send(frame(1))
            for b in bs:
                data, anc, flags_, addr = b.recvmsg(100, 500)
                after = time.time_ns()
                for level, kind, datum in anc:
                    words = struct.unpack(f"{len(datum) // 8}q", datum)
                    ns = words[0] * 10**9 + words[1] * (1000 if kind == 29 else 1)
                    say(count, flags, level, kind, len(datum), words[2:], before - 1000 <= ns <= after)
                say(len(anc))
            for b in bs:
                for o in (29, 35):
                    setopt(b, 1, o, 0)
say(setopt(a, 1, 37, 1 << 30), setopt(a, 1, 37, -1), setopt(a, 1, 37, b"1"), setopt(a, 1, 37, b""))
""")


def test_a_stamp_of_the_way_out_is_refused():
    """None would ever come to the error queue, where a program waits for it."""
    assert on_ports(OPTIONS + """
a = packet(A)
say(setopt(a, 1, 37, 8 | 16), [setopt(a, 1, 37, f | 16) for f in (1, 2, 128, 256, 512)], getopt(a, 1, 37)[2])
""") == "0 ['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL'] 18000000\n"
