# SPDX-License-Identifier: BSD-2-Clause
"""Packet sockets on ports: what the kernel's do, and what only ports do."""
import pytest

from sockutil import on_ports, same

DRAIN = """
def drain(s):
    while not isinstance(attempt(s.recv, 100, MSG_DONTWAIT), str):
        pass
def rawsend(s, data, addr):
    return checked(libc.sendto(s.fileno(), data, len(data), 0, addr, len(addr)))
def sll(proto=ETH_P_TEST, index=None, halen=6, family=17, iface=A):
    index = socket.if_nametoindex(iface) if index is None else index
    return struct.pack("=HHiHBB8s", family, socket.htons(proto), index, 1, 0, halen,
                       bytes(range(1, 9)))
"""


def test_lengths_and_addresses_are_those_of_the_kernel(kernel):
    same(kernel, """
a, b = packet(A), packet(B)
say(a.getsockopt(1, 3), a.getsockopt(1, 39), a.getsockopt(1, 38))
for f in [frame(1), frame(2, 14), frame(3)[:13], b"", frame(5, 1514), frame(6)*23 + b"12345"]:
    say(len(f), attempt(a.send, f))
for dst in (mac(B), b"\\1\\0\\x5e\\0\\0\\1", b"\\2\\0\\0\\0\\0\\7"):
    say(attempt(a.send, frame(9, dst=dst)))
while True:
    got = attempt(b.recvfrom, 3000, MSG_DONTWAIT)
    if isinstance(got, str):
        say(got)
        break
    say(len(got[0]), got[0][12:24].hex(), got[1][1:], got[1][0] == B)
""")


def test_every_form_of_address_gets_the_answer_of_the_kernel(kernel):
    same(kernel, DRAIN + """
b = packet(B)
for kind, bound in ((SOCK_RAW, A), (SOCK_RAW, None), (SOCK_DGRAM, A), (SOCK_DGRAM, None)):
    s = packet(bound, kind=kind, proto=0)
    forms = dict(ok=sll(), short=sll()[:12], s13=sll()[:13], s18=sll()[:18], s19=sll()[:19],
                 index0=sll(index=0), unknown=sll(index=99999), negative=sll(index=-1),
                 family0=sll(family=0), family2=sll(family=2), halen0=sll(halen=0),
                 halen8=sll(halen=8), halen9=sll(halen=9), proto0=sll(proto=0))
    for name, addr in forms.items():
        sent = rawsend(s, frame(1)[:60], addr)
        got = attempt(b.recv, 100, MSG_DONTWAIT)
        if not isinstance(got, str):
            got = len(got), got[:14].replace(mac(A), b"-A-MAC").hex()
        say(kind, bound == A, name, sent, got)
    say(kind, bound == A, "none", attempt(s.send, frame(1)))
    drain(b)
""")


def test_names_and_refusals_are_those_of_the_kernel(kernel):
    same(kernel, DRAIN + """
def name(s, size=64, call="getsockname"):
    buf, n = ctypes.create_string_buffer(64), ctypes.c_int(size)
    ret = checked(getattr(libc, call)(s.fileno(), buf, ctypes.byref(n)))
    raw = buf.raw
    return ret, n.value, raw[:4].hex(), raw[8:12].hex(), raw[12:18] == mac(A)
for s in (packet(A), packet(), packet(A, kind=SOCK_DGRAM), packet(proto=0)):
    say(name(s), name(s, 10), name(s, 0), name(s, -1), name(s, 64, "getpeername"))
s = packet(A)
for call, args in dict(shutdown=(2,), listen=(1,), accept=(None, None), connect=(sll(), 20)).items():
    say(call, checked(getattr(libc, call)(s.fileno(), *args)))
t = packet(proto=0)
for addr in (sll()[:18], sll()[:19], sll(family=2), sll(index=99999), sll(index=0), sll(),
             sll(proto=0), sll(index=-1)):
    say(checked(libc.bind(t.fileno(), addr, len(addr))), name(t))
""")


def test_flags_of_recv_are_checked_as_the_kernel_does(kernel):
    same(kernel, DRAIN + """
a, b = packet(A), packet(B)
for flag in ("WAITALL OOB NOSIGNAL CMSG_CLOEXEC ERRQUEUE CTRUNC MORE EOR DONTROUTE CONFIRM TRUNC "
             "PEEK DONTWAIT").split():
    flag = "MSG_" + flag
    say(flag, attempt(a.send, frame(1), getattr(socket, flag)),
        len(attempt(b.recv, 100, MSG_DONTWAIT | getattr(socket, flag))))
    drain(b)
""")


def test_peek_trunc_and_zero_lengths(kernel):
    same(kernel, DRAIN + """
a, b = packet(A), packet(B)
d = packet(B, kind=SOCK_DGRAM)
for i in range(6):
    a.send(frame(i, 100 + i))
for s in (b, d):
    say(len(s.recv(2000, MSG_PEEK)), len(s.recv(2000, MSG_PEEK)), len(s.recv(10, MSG_PEEK)))
    data, anc, flags, addr = s.recvmsg(10, 0, MSG_PEEK | MSG_TRUNC)
    say(len(data), flags == MSG_TRUNC, addr[1:])
    buf = bytearray(50)
    say(s.recv_into(buf, 50, MSG_TRUNC), buf[14:18].hex())
    say(s.recv(0), len(s.recv(2000)), os.read(s.fileno(), 0), len(os.read(s.fileno(), 2000)))
    bufs = [bytearray(14), bytearray(4), bytearray(1000)]
    say(os.readv(s.fileno(), bufs), bufs[1].hex())
    say(len(s.recv(100)), attempt(s.recv, 100, MSG_DONTWAIT))
say(attempt(os.write, a.fileno(), b""), os.writev(a.fileno(), [b"\\xff" * 12, b"\\x88\\xb5", b"abc" * 9]))
say(b.recv(100)[12:].hex())
""")


def test_vectors_with_a_position_and_flags(kernel):
    same(kernel, DRAIN + """
a, b = packet(A), packet(B)
NOWAIT = os.RWF_NOWAIT
buf = bytearray(100)
say(os.pwritev(a.fileno(), [frame(1)[:20], frame(1)[20:]], -1, os.RWF_HIPRI), os.preadv(b.fileno(), [buf], -1, os.RWF_HIPRI), number(buf))
say(os.pwritev(a.fileno(), [frame(2)], -1, NOWAIT), os.preadv(b.fileno(), [buf], -1, NOWAIT), number(buf))
say(attempt(os.preadv, b.fileno(), [buf], -1, NOWAIT))
say(attempt(os.pwritev, a.fileno(), [frame(3)], 0), attempt(os.preadv, b.fileno(), [buf], 0))
say(attempt(os.pwritev, a.fileno(), [frame(3)], -1, 0x10000), attempt(os.preadv, b.fileno(), [buf], -1, 0x10000))
a.send(frame(4))
say(os.readv(b.fileno(), [bytearray(0)] * 2), os.readv(b.fileno(), []), os.preadv(b.fileno(), [bytearray(0)], -1, NOWAIT))
say(os.writev(a.fileno(), [b"", b""]), os.writev(a.fileno(), []), number(b.recv(100)), attempt(b.recv, 100, MSG_DONTWAIT))
for name in "preadv2", "preadv64v2", "pwritev2", "pwritev64v2":
    data = ctypes.create_string_buffer(frame(5), 64)
    one = iovec(ctypes.addressof(data), 64)
    if name[1] == "r":
        a.send(frame(6))
    say(name, libc[name](a.fileno() if name[1] == "w" else b.fileno(), ctypes.byref(one), 1, ctypes.c_long(-1), NOWAIT), number(data.raw))
""")


def test_vectors_and_maps_that_cannot_be_are_refused_as_the_kernel_does(kernel):
    same(kernel, """
a, b = packet(A), packet(B)
data = ctypes.create_string_buffer(frame(1), 64)
at = ctypes.addressof(data)
def vector(*lengths):
    return (iovec * len(lengths))(*(iovec(at, n) for n in lengths))
def message(v):
    return ctypes.byref(msghdr(iov=v, iovlen=len(v)))
HUGE = 2 ** 64 - 1
for name, v in (("huge", vector(HUGE)), ("huge behind", vector(60, HUGE)), ("many", vector(*[1] * 1025)),
                ("the most", vector(*[1] * 1024)), ("fits", vector(60))):
    v_out = checked(libc.writev(a.fileno(), v, len(v)))
    m_out = checked(libc.sendmsg(a.fileno(), message(v), MSG_DONTWAIT))
    say(name, v_out, m_out)
    if name == "huge behind":
        continue
    while not isinstance(attempt(b.recv, 2000, MSG_DONTWAIT), str):
        pass
    if name != "huge":
        say(checked(libc.recvmsg(b.fileno(), message(v), MSG_DONTWAIT)))
    b.setblocking(False)
    say(checked(libc.readv(b.fileno(), v, len(v))))
libc.mmap.restype = ctypes.c_ssize_t
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
for offset in (0, 4096):
    say("mmap", checked(libc.mmap(None, 4096, 3, 1, a.fileno(), offset)))
""")


def test_vectors_of_messages(kernel):
    same(kernel, DRAIN + """
a, b = packet(A), packet(B)
say(sendmmsg(a, Messages([frame(i) for i in range(5)])))
m = Messages([100] * 8)
say(recvmmsg(b, m, MSG_DONTWAIT), [number(m.data(i)) for i in range(5)])
say(recvmmsg(b, m, MSG_DONTWAIT), recvmmsg(b, Messages([]), 0))
say(sendmmsg(a, Messages([frame(0), b"short", frame(1)])), sendmmsg(a, Messages([b"short"])))
say(recvmmsg(b, m, 0x10000), m.array[0].len)          # MSG_WAITFORONE
t = time.monotonic()
b.settimeout(None)
threading.Timer(0.05, lambda: a.send(frame(9))).start()
say(recvmmsg(b, m, 0x10000), number(m.data(0)))
b.setsockopt(1, 20, struct.pack("ll", 0, 100000))
t = time.monotonic()
say(recvmmsg(b, m, 0), time.monotonic() - t >= 0.1)
bad = timespec(0, 1000000000)
say(checked(libc.recvmmsg(b.fileno(), m.array, 8, 0, ctypes.byref(bad))))
""")


def test_unwanted_frames_in_front_never_hide_a_wanted_one():
    """A look at the ring has its limits; a thread that gave up there must not sleep on what is left."""
    on_ports("""
for taps in (0, 1):
    for unwanted in (15, 16, 17, 40, 255, 256, 257, 300):
        for how in ("recv", "poll", "epoll"):
            a, b = packet(A, proto=0), packet(B, proto=ETH_P_TEST)
            extra = [packet(B, proto=0x9999) for _ in range(taps)]
            sent = sendmmsg(a, Messages([frame(i, proto=OTHER) for i in range(unwanted)] + [frame(7)]))
            while sent < unwanted + 1:
                sent += sendmmsg(a, Messages([frame(7)] * (unwanted + 1 - sent)))
            b.settimeout(20)
            if how == "poll":
                assert ready(b, timeout=20000) == select.POLLIN, (how, unwanted)
            if how == "epoll":
                e = select.epoll()
                e.register(b, select.EPOLLIN)
                assert e.poll(20) == [(b.fileno(), select.EPOLLIN)], (how, unwanted)
            assert number(b.recv(100)) == 7, (how, unwanted)
            for s in [a, b] + extra:
                s.close()
""", ports="pd0=loop:pd1,ring=1024")


def test_recvmmsg_waits_for_each_message_as_the_kernel_does(kernel):
    """SO_RCVTIMEO bounds each wait; the timeout is looked at when a message has come, and says what is left."""
    same(kernel, """
def call(s, n, flags=0, timeout=None):
    m, ts = Messages([100] * n), timeout and timespec.of(timeout) if timeout else timespec(0, 0)
    got = checked(libc.recvmmsg(s.fileno(), m.array, n, flags, None if timeout is None else ctypes.byref(ts)))
    numbers = [number(m.data(i)) for i in range(got)] if isinstance(got, int) else []
    return got, numbers, ts.tv_sec + ts.tv_nsec / 1e9
def later(*steps):
    def run():
        for i, pause in enumerate(steps):
            time.sleep(pause)
            a.send(frame(10 + i))
    t = threading.Thread(target=run)
    t.start()
    return t
a, b = packet(A), packet(B)
b.settimeout(None)
for i in range(3):
    a.send(frame(i))
say(call(b, 3, 0, 0)[:2], call(b, 3, 0, 0)[:2])          # a timeout of nothing: one message each
got, numbers, left = call(b, 1, 0, 5)
say(got, numbers, 4 < left <= 5)
for i in range(3):
    a.send(frame(i))
say([call(b, 4, MSG_PEEK | MSG_DONTWAIT)[:2] for _ in range(2)], call(b, 4, MSG_DONTWAIT)[:2])
b.setsockopt(1, 20, struct.pack("ll", 0, 600000))
t = later(0.3, 0.4, 0.4)                                 # each wait is shorter than 600 ms, their sum is not
start = time.monotonic()
say(call(b, 4)[:2], time.monotonic() - start >= 1.6)
t.join()
t = later(0.05, 0.3)                                     # 100 ms are over when the second message comes
got, numbers, left = call(b, 4, 0, 0.1)
say(got, numbers, left)
t.join()
start = time.monotonic()
say(call(b, 4, 0, 0.05)[0], time.monotonic() - start >= 0.6)   # none comes: SO_RCVTIMEO ends it
t = later(0.05, 0)
say(call(b, 4, 0x10000, 1)[1][:1])                       # MSG_WAITFORONE
t.join()
b.setblocking(False)
call(b, 4)
say(call(b, 4, 0, 1)[0], call(b, 0, 0, 1))
""")


def test_sendmmsg_waits_for_room_each_time(kernel):
    """SO_SNDTIMEO bounds each wait: what was sent is counted, and the call goes on where it ended."""
    out = on_ports("""
a, b = packet(A, proto=0), packet(B)
a.settimeout(None)
a.setsockopt(1, 21, struct.pack("ll", 0, 400000))
m = Messages([frame(i) for i in range(12)])
def reader():
    for pause in (0.25, 0.25, 0.25):
        time.sleep(pause)
        b.recv(100)
t = threading.Thread(target=reader)
t.start()
start = time.monotonic()
say(sendmmsg(a, m), time.monotonic() - start >= 1.1)
t.join()
say(sendmmsg(a, m))
""", ports="pd0=loop:pd1,ring=4")
    assert out == "7 True\nEAGAIN\n"
