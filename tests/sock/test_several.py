# SPDX-License-Identifier: BSD-2-Clause
"""Several packet sockets on one port: what each reads, in which order, what epoll tells; PALLADIUM_RX_BACKPRESSURE=port."""
from sockutil import on_ports, same

MANY = """
import random
TYPES = [0x8900 + i for i in range(60)]
a = packet(A, 0)
some = [packet(B, t) for t in TYPES]
e = select.epoll()
for s in some:
    e.register(s, select.EPOLLIN | FLAGS)
at = {s.fileno(): s for s in some}
def ready():
    return sorted(TYPES[some.index(at[fd])] - 0x8900 for fd, _ in e.poll(0.2 if os.environ.get("SLOW") else 0))
def drain(s, most=100):
    got = []
    while len(got) < most:
        d = attempt(s.recv, 200, MSG_DONTWAIT)
        if isinstance(d, str):
            break
        got.append(number(d))
    return got
"""


def test_epoll_tells_which_of_many_are_ready(kernel):
    same(kernel, "FLAGS = 0\n" + MANY + """
say(ready())
for i, t in enumerate((3, 3, 7, 3, 50)):
    a.send(frame(i, 64, TYPES[t]))
seen = set()
for _ in range(3):          # one look may leave out what stands behind others; the next does not
    seen |= set(ready())
say(sorted(seen), drain(some[7]), drain(some[3], 1))
seen = set()
for _ in range(3):
    seen |= set(ready())
say(sorted(seen), drain(some[3]), drain(some[50]), ready())
late = packet(B, ETH_P_ALL)
a.send(frame(9, 64, TYPES[5]))
e.register(late, select.EPOLLIN)
at[late.fileno()] = some[59]
say(ready(), drain(some[5]), drain(late), ready())
some[8].bind((B, OTHER))
a.send(frame(10, 64, OTHER))
say(ready(), drain(some[8]))
a.send(frame(11, 64, TYPES[1]))
e.modify(some[1], select.EPOLLIN | select.EPOLLONESHOT)
say(ready(), ready(), e.modify(some[1], select.EPOLLIN | select.EPOLLONESHOT), ready())
e.unregister(some[1])
some[2].close()
a.send(frame(12, 64, TYPES[2]))
a.send(frame(13, 64, TYPES[1]))
say(ready(), drain(some[1]))
""")


def test_each_of_many_is_told_once_at_an_edge():
    on_ports("FLAGS = select.EPOLLET\n" + MANY + """
told = []
for i, t in enumerate((3, 7, 3, 50)):
    a.send(frame(i, 64, TYPES[t]))
for _ in range(5):
    told += ready()
assert sorted(set(told)) == [3, 7, 50], told
assert ready() == []
a.send(frame(4, 64, TYPES[9]))      # nobody has read anything yet
told = ready() + ready()
assert 9 in told and ready() == [], told
assert [drain(some[t]) for t in (3, 7, 50, 9)] == [[0, 2], [1], [3], [4]]
a.send(frame(5, 64, TYPES[3]))
assert ready() == [3] and ready() == []
""")


def test_random_frames_reach_each_of_many_in_order():
    on_ports("FLAGS = 0\n" + MANY + """
random.seed(7)
sent, got = {s: [] for s in some}, {s: [] for s in some}
for i in range(3000):
    s = random.choice(some[:random.choice((1, 3, 60))])
    a.send(frame(i, 64, TYPES[some.index(s)]))
    sent[s].append(i)
    if random.random() < 0.1:
        for fd, _ in e.poll(0, random.choice((1, 5, 64))):
            got[at[fd]] += drain(at[fd], random.choice((1, 4, 100)))
    if random.random() < 0.05:
        s = random.choice(some)
        got[s] += drain(s, 3)
for _ in range(200):
    for fd, _ in e.poll(0):
        got[at[fd]] += drain(at[fd])
assert sent == got
assert not e.poll(0)
""", PALLADIUM_RX_BYTES_MIN=1 << 20)


STOPPED = """
a, b, c = packet(A, 0), packet(B, ETH_P_TEST), packet(B, OTHER)
c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
got = []
def reader():
    WAIT
    got.append(number(b.recv(2000)))
t = threading.Thread(target=reader)
t.start()
for i in range(100):
    a.send(frame(i, 1000, OTHER))
a.send(frame(100, 100))
assert [number(c.recv(2000)) for _ in range(100)] == list(range(100))
t.join()
assert got == [100], got
drops = struct.unpack("II", c.getsockopt(SOL_PACKET, 6, 8))
assert drops == (100, 0), drops
"""


def test_a_port_that_a_full_queue_stopped_goes_on_when_it_is_read():
    """However the other one waits, and whenever it begins to."""
    waits = ("pass", "e = select.epoll(); e.register(b, select.EPOLLIN); assert e.poll()",
             "p = select.poll(); p.register(b, select.POLLIN); assert p.poll()",
             "assert select.select([b], [], [])[0]")
    for wait in waits:
        on_ports(STOPPED.replace("WAIT", wait), PALLADIUM_RX_BACKPRESSURE="port", PALLADIUM_RX_BYTES_MIN=2048)


def test_a_port_that_a_closed_socket_stopped_goes_on():
    on_ports("""
a, b, c = packet(A, 0), packet(B, ETH_P_TEST), packet(B, OTHER)
c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
for i in range(100):
    a.send(frame(i, 1000, OTHER))
a.send(frame(100, 100))
assert attempt(b.recv, 2000, MSG_DONTWAIT) == "EAGAIN"
got = []
t = threading.Thread(target=lambda: got.append(number(b.recv(2000))))
t.start()
c.close()
t.join()
assert got == [100], got
""", PALLADIUM_RX_BACKPRESSURE="port", PALLADIUM_RX_BYTES_MIN=2048)
