# SPDX-License-Identifier: BSD-2-Clause
"""poll, select and epoll over ports, beside the kernel's, and threads in a muddle."""
import subprocess

import pytest

from lab.proc import preload_order
from sockutil import BUILD, LIMIT, PRELOAD, environment, on_ports, same

DRAIN = """
def drain(s):
    while not isinstance(attempt(s.recv, 100, MSG_DONTWAIT), str):
        pass
"""


def test_level_edge_and_oneshot(kernel):
    same(kernel, DRAIN + """
a, b = packet(A, proto=0), packet(B)
E, L = select.EPOLLIN | select.EPOLLET, select.EPOLLIN
e = select.epoll()
def got(t=0):
    return [x for _, x in e.poll(t)]
for events in (L, E, L | select.EPOLLONESHOT, E | select.EPOLLONESHOT, E | select.EPOLLOUT,
               L | select.EPOLLEXCLUSIVE):
    e.register(b, events)
    say(events, got())
    a.send(frame(1))
    say(got(5), got(), got())
    a.send(frame(2))
    say(got(), got())
    say(attempt(e.modify, b, events), got(), got())
    b.recv(100)
    say(got())
    drain(b)
    say(got())
    a.send(frame(3))
    say(got(0), got())
    drain(b)
    e.unregister(b)
    a.send(frame(4))
    say(got())
    e.register(b, events)
    say(got(), got())
    drain(b)
    e.unregister(b)
say(attempt(e.unregister, b), attempt(e.modify, b, 1), attempt(e.register, b, 1), attempt(e.register, b, 1))
""")


def test_one_socket_in_many_epolls_and_epolls_in_epolls(kernel):
    same(kernel, DRAIN + """
a, b = packet(A, proto=0), packet(B)
c = os.dup(b.fileno())
es = [select.epoll() for _ in range(3)]
for e in es:
    e.register(b, select.EPOLLIN)
es[0].register(c, select.EPOLLIN)
a.send(frame(1))
say([len(e.poll(5)) for e in es], len(es[0].poll(0)))
outer, far = select.epoll(), select.epoll()
outer.register(es[1], select.EPOLLIN)
far.register(outer, select.EPOLLIN)
say(len(outer.poll(0)), len(far.poll(5)), len(far.poll(0)), ready(far, timeout=0))
drain(b)
say(len(outer.poll(0)), len(far.poll(0)), ready(far, timeout=0))
say(attempt(es[1].register, far, 1), attempt(outer.register, outer, 1), attempt(outer.register, es[1], 1))
chain = [select.epoll() for _ in range(8)]
chain[0].register(b, select.EPOLLIN)
say([attempt(chain[i + 1].register, chain[i], select.EPOLLIN) for i in range(7)])
b.close()
a.send(frame(2))
say([len(e.poll(0)) for e in es])
os.close(c)
say([len(e.poll(0)) for e in es], len(far.poll(0)))
""")


def test_mixed_with_descriptors_of_the_kernel(kernel):
    same(kernel, DRAIN + """
a, b = packet(A, proto=0), packet(B)
r, w = os.pipe()
e, p = select.epoll(), select.poll()
names = {b.fileno(): "b", r: "r", a.fileno(): "a"}
for s in (b, r):
    e.register(s, select.EPOLLIN)
    p.register(s, select.POLLIN)
def look(t=0):
    # members of the kernel's get every fourth look of an epoll that finds frames
    say(sorted({names[f] for _ in range(4) for f, _ in e.poll(t)}), sorted(names[f] for f, _ in p.poll(t * 1000)),
        [[names[getattr(x, "fileno", lambda: x)()] for x in l] for l in select.select([b, r], [a], [b, r], t)])
look()
os.write(w, b"x"); look()
a.send(frame(1)); look(); look(1)
os.read(r, 1); look()
drain(b); look()
threading.Timer(0.03, os.write, [w, b"y"]).start(); say(len(e.poll(10)), os.read(r, 1))
threading.Timer(0.03, a.send, [frame(1)]).start(); say(len(e.poll(10))); drain(b)
threading.Timer(0.03, os.write, [w, b"y"]).start(); say(len(p.poll(10000)), os.read(r, 1))
threading.Timer(0.03, a.send, [frame(1)]).start(); say(len(select.select([r, b], [], [], 10)[0])); drain(b)
os.close(w)
say(e.poll(1) == [(r, select.EPOLLHUP)], p.poll(1) == [(r, select.POLLHUP)])
os.close(r)
say(e.poll(0), [x for _, x in p.poll(0)], attempt(select.select, [r, b], [], [], 0))
""")


def test_members_change_while_a_thread_sleeps(kernel):
    same(kernel, DRAIN + """
a, b = packet(A, proto=0), packet(B)
e = select.epoll()
found = []
def wait():
    found.append(e.poll(10))
for change in ("add ready", "modify", "pipe"):
    t = threading.Thread(target=wait)
    if change == "modify":
        e.register(b, 0)
    t.start()
    time.sleep(0.03)
    if change == "pipe":
        r, w = os.pipe()
        os.write(w, b"x")
        e.register(r, select.EPOLLIN)
    else:
        a.send(frame(1))
        (e.modify if change == "modify" else e.register)(b, select.EPOLLIN)
    t.join()
    say(change, [x for _, x in found.pop()])
    if change != "pipe":
        drain(b)
        e.unregister(b)
""")


# Each of these begins with an epoll from before the program's first packet socket, and a thread asleep in it.
ASLEEP_BEFORE = {
    "the first member wakes it": """
e = select.epoll()
t = sleeping(e.poll)
a, b = packet(A, proto=0), packet(B)
e.register(b, select.EPOLLIN)
say(t.is_alive())
a.send(frame(1))
say([x for _, x in t.result()], len(e.poll(0)))
""",
    "a member that is ready": """
e = select.epoll()
t = sleeping(e.poll, 10, 1)
a, b = packet(A, proto=0), packet(B)
a.send(frame(1))
e.register(b, select.EPOLLIN | select.EPOLLET)
say([x for _, x in t.result()], len(e.poll(0)))
""",
    "many threads, and a pipe": """
e = select.epoll()
r, w = os.pipe()
e.register(r, select.EPOLLIN)
ts = [sleeping(e.poll) for _ in range(4)]
a, b = packet(A, proto=0), packet(B)
e.register(b, select.EPOLLIN)
say([t.is_alive() for t in ts])
t = sleeping(e.poll)
a.send(frame(1))
say([[f == b.fileno() for f, _ in t.result()] for t in ts + [t]])
drain(b)
t = sleeping(e.poll)
os.write(w, b"x")
say([f == r for f, _ in t.result()])
""",
    "its timeout stays": """
e = select.epoll()
def timed(call, *args):
    t = time.monotonic()
    return checked(call(*args)), time.monotonic() - t >= 0.2
ev, ts = ctypes.create_string_buffer(64), timespec.of(0.2)
waits = [sleeping(timed, libc.epoll_wait, e.fileno(), ev, 4, 200),
         sleeping(timed, libc.epoll_pwait2, e.fileno(), ev, 4, ctypes.byref(ts), None)]
e.register(packet(B), select.EPOLLIN)
say([t.result() for t in waits])
""",
    "inside another": """
e, outer, far = [select.epoll() for _ in range(3)]
r, w = os.pipe()
e.register(r, select.EPOLLIN)
outer.register(e, select.EPOLLIN)
far.register(outer, select.EPOLLIN | select.EPOLLET)
name = {e.fileno(): "e", outer.fileno(): "outer"}
ts = [sleeping(x.poll) for x in (outer, far)]
a, b = packet(A, proto=0), packet(B)
e.register(b, select.EPOLLIN)
say([t.is_alive() for t in ts])
a.send(frame(1))
say([[name[f] for f, _ in t.result()] for t in ts])
say(far.poll(0), len(outer.poll(0)), ready(far, timeout=0))
drain(b)
say(far.poll(0), outer.poll(0))
os.write(w, b"x")
say([name[f] for f, _ in far.poll(5)], [name[f] for f, _ in outer.poll(5)])
outer.unregister(e)
say(outer.poll(0), attempt(outer.unregister, e), attempt(outer.modify, e, 1))
""",
    "under a copy of its number": """
e = select.epoll()
c = select.epoll.fromfd(os.dup(e.fileno()))
t = sleeping(c.poll)
a, b = packet(A, proto=0), packet(B)
e.register(b, select.EPOLLIN)
a.send(frame(1))
say([x for _, x in t.result()])
say(len(c.poll(0)), attempt(c.register, b, 1))
""",
    "a signal ends it": """
e = select.epoll()
ran = []
signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
a, b = [], []
def later():
    a.append(packet(A, proto=0))
    b.append(packet(B))
    e.register(b[0], select.EPOLLIN)
    os.kill(os.getpid(), signal.SIGALRM)
ev = ctypes.create_string_buffer(64)
threading.Timer(0.1, later).start()
say(checked(libc.epoll_wait(e.fileno(), ev, 4, -1)), len(ran))
a[0].send(frame(1))
say(checked(libc.epoll_wait(e.fileno(), ev, 4, -1)))
""",
    "members of the kernel's go": """
e = select.epoll()
pipes = [os.pipe() for _ in range(3)]
for r, _ in pipes:
    e.register(r, select.EPOLLIN)
a, b = packet(A, proto=0), packet(B)
e.register(b, select.EPOLLIN)
for r, w in pipes[:2]:
    e.unregister(r)
    os.write(pipes[2][1], b"x")
    say([f == pipes[2][0] for f, _ in e.poll(5)])
    os.read(pipes[2][0], 1)
""",
}


@pytest.mark.parametrize("case", ASLEEP_BEFORE)
def test_an_epoll_from_before_the_first_socket(kernel, case):
    same(kernel, DRAIN + ASLEEP_BEFORE[case])


def test_select_with_sets_of_any_size(kernel):
    same(kernel, DRAIN + """
a, b = packet(A, proto=0), packet(B)
r, w = os.pipe()
resource.setrlimit(resource.RLIMIT_NOFILE, (4096,) * 2)
high = dict(b=2000, a=3001, r=1024, hup=1500)
for s, k in ((b.fileno(), "b"), (a.fileno(), "a"), (r, "r")):
    os.dup2(s, high[k])
os.dup2(w, high["hup"])
def sets(*names):
    buf = ctypes.create_string_buffer(512)
    for k in names:
        buf[high[k] // 8] = ord(buf[high[k] // 8]) | 1 << high[k] % 8
    return buf
def bits(buf):
    return buf and [k for k in sorted(high) if ord(buf[high[k] // 8]) >> high[k] % 8 & 1]
tv = struct.pack("ll", 0, 1000)
def choose(n, *wanted, call=libc.select, wait=None):
    got = [sets(*names) for names in wanted]
    say(checked(call(n, *got, wait or ctypes.create_string_buffer(tv, 16), *([None] if call != libc.select else []))),
        [bits(s) for s in got])
def everything():
    for n in (1024, 1025, 2000, 2001, 3001, 3002, 4096):
        choose(n, ["b", "r"], ["a"], ["b", "a", "r"])
    choose(4096, ["b", "r"], [], [], call=libc.pselect, wait=ctypes.create_string_buffer(struct.pack("ll", 0, 1000000), 16))
    choose(4096, [], ["hup"], [])
everything()
os.write(w, b"x")
a.send(frame(1))
everything()
os.close(high["b"])
everything()
say(checked(libc.select(-1, sets("a"), None, None, None)))
""".replace("a, b =", "import resource\na, b =", 1))


def test_select_waits_on_for_what_it_was_asked(kernel):
    """A hang-up or an error alone does not end a select that was not asked to read."""
    same(kernel, """
a, b = packet(A, proto=0), packet(B)
p, q = os.pipe()
os.close(q)                                          # p: hung up, never writable
master, slave = os.openpty()
os.close(slave)                                      # master: hung up, and writable
for want in ([], [master]):
    for n in (0, 0.15):
        t = time.monotonic()
        r, w, x = select.select([b], [p] + want, [b, p, master], n)
        say(len(r), w == want, x, w != [] or time.monotonic() - t >= n)
t = sleeping(select.select, [b], [p], [p], 10)
a.send(frame(1))
say([len(x) for x in t.result()])
say(select.select([p], [], [b], 0) == ([p], [], []))
""")


def test_timeouts_are_never_early_and_bad_ones_are_refused(kernel):
    same(kernel, """
b = packet(B)
e = select.epoll()
e.register(b, select.EPOLLIN)
class pollfd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]
p = pollfd(b.fileno(), 1, 0)
ev = ctypes.create_string_buffer(64)
def timed(seconds, call, *args):
    t = time.monotonic()
    ret = checked(call(*args))
    return ret, time.monotonic() - t >= seconds
for ns in (0, 1, 1000, 1000000, 30000000, 1000000000, -1):
    ts = timespec(0, ns)
    least = ns / 1e9 if 0 <= ns < 1000000000 else 0
    say(ns, timed(least, libc.ppoll, ctypes.byref(p), 1, ctypes.byref(ts), None),
        timed(least, libc.epoll_pwait2, e.fileno(), ev, 1, ctypes.byref(ts), None),
        timed(least, libc.pselect, 0, None, None, None, ctypes.byref(ts), None))
ts = timespec(-1, 0)
say(checked(libc.ppoll(ctypes.byref(p), 1, ctypes.byref(ts), None)))
for ms in (0, 1, 30):
    say(ms, timed(ms / 1e3, libc.poll, ctypes.byref(p), 1, ms), timed(ms / 1e3, libc.epoll_wait, e.fileno(), ev, 1, ms))
say(checked(libc.epoll_wait(e.fileno(), ev, 0, 0)), checked(libc.epoll_wait(e.fileno(), ev, -1, 0)))
tv = struct.pack("ll", 0, 30000)
buf = ctypes.create_string_buffer(tv, 16)
bits = ctypes.create_string_buffer(128)
bits[b.fileno() // 8] = 1 << b.fileno() % 8
say(timed(0.03, libc.select, b.fileno() + 1, bits, None, None, buf), buf.raw == bytes(16), bits.raw == bytes(128))
""")


def test_signals_end_a_wait_and_masks_hold_them(kernel):
    same(kernel, """
b = packet(B)
e = select.epoll()
e.register(b, select.EPOLLIN)
ran = []
class pollfd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]
p = pollfd(b.fileno(), 1, 0)
ev, buf = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
mask = ctypes.create_string_buffer(struct.pack("Q", 1 << signal.SIGALRM - 1), 128)
ts = timespec.of(0.08)
calls = dict(recv=lambda: libc.recv(b.fileno(), buf, 64, 0),
             read=lambda: libc.read(b.fileno(), buf, 64),
             poll=lambda: libc.poll(ctypes.byref(p), 1, -1),
             ppoll=lambda: libc.ppoll(ctypes.byref(p), 1, ctypes.byref(ts), mask),
             epoll=lambda: libc.epoll_wait(e.fileno(), ev, 1, -1),
             epoll_pwait=lambda: libc.epoll_pwait(e.fileno(), ev, 1, 80, mask),
             epoll_pwait2=lambda: libc.epoll_pwait2(e.fileno(), ev, 1, ctypes.byref(ts), mask))
for restart in (False, True):
    signal.siginterrupt(signal.SIGALRM, not restart)
    for name, call in calls.items():
        if restart and name in ("recv", "read"):
            b.setsockopt(1, 20, struct.pack("ll", 0, 0))
            threading.Timer(0.06, packet(A, proto=0).send, [frame(1)]).start()
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        say(restart, name, checked(call()), len(ran))
    b.setsockopt(1, 20, struct.pack("ll", 5, 0))
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    say(restart, "with a timeout", checked(calls["recv"]()))
    b.setsockopt(1, 20, struct.pack("ll", 0, 0))
for interrupts in (1, 0, 1):  # libc's own, which asks the kernel past sigaction; Python's goes through it
    say(libc.siginterrupt(signal.SIGALRM, interrupts))
    if not interrupts:
        threading.Timer(0.06, packet(A, proto=0).send, [frame(1)]).start()
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    say(interrupts, checked(calls["recv"]()))
say(libc.siginterrupt(0, 1), libc.siginterrupt(65, 0), libc.siginterrupt(signal.SIGKILL, 1))
""")


def test_idle_waiting_costs_nothing():
    out = on_ports("""
b = packet(B)
e = select.epoll()
e.register(b, select.EPOLLIN)
b.setsockopt(1, 20, struct.pack("ll", 1, 0))
t = time.process_time()
say(len(e.poll(1)), ready(b, timeout=1000), checked(libc.recv(b.fileno(), ctypes.create_string_buffer(9), 9, 0)))
say(time.process_time() - t < 0.3)
""")
    assert out == "0 0 EAGAIN\nTrue\n"


def test_a_thread_that_waits_is_left_asleep():
    """With a port up and nothing coming, whoever waits for ever stays in the kernel: no thread goes round."""
    out = on_ports("""
def switches():
    total = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as f:
            total += sum(int(x.split()[1]) for x in f if "ctxt_switches" in x and task != str(threading.get_native_id()))
    return total
a, b = packet(A), packet(B)
e = select.epoll()
e.register(b, select.EPOLLIN)
a.send(frame(1))
b.recv(100)
p = select.poll()
p.register(b, select.POLLIN)
ts = [sleeping(p.poll), sleeping(e.poll), sleeping(select.select, [b], [], []), sleeping(b.recv, 100)]
before = switches()
time.sleep(2)
say(switches() - before < 40, [t.is_alive() for t in ts])
os._exit(0)
""")
    assert out == "True [True, True, True, True]\n"


@pytest.mark.parametrize("mode, rounds", [("wake", 2000), ("churn", 4000), ("longjmp", 150)])
def test_threads_in_a_muddle(mode, rounds):
    # preload/ is not instrumented, so its references are unseen there: stress_direct is for ThreadSanitizer
    if mode != "wake" and any("libtsan" in str(lib) for lib in preload_order(PRELOAD)):
        pytest.skip("a build for ThreadSanitizer")
    done = subprocess.run([BUILD / "tests/sock/stress", mode, str(rounds)], env=environment(),
                          capture_output=True, text=True, timeout=3 * LIMIT, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("env, counts", [({}, "1112" * 3), ({"PALLADIUM_SELECT_SKIP_OS": "1"}, "2" * 12),
                                         ({"PALLADIUM_SELECT_POLL_OS_FORCE": "1"}, "2" * 12),
                                         ({"PALLADIUM_SELECT_SKIP_OS": "0"}, "1" * 12)],
                         ids=["default", "always", "force", "never"])
def test_how_often_an_epoll_looks_at_the_kernel(env, counts):
    """While a port's socket is ready, a pipe that is ready too comes as often as the setting says."""
    assert on_ports("""
a, b = packet(A), packet(B)
r, w = os.pipe()
e = select.epoll()
e.register(b.fileno(), select.EPOLLIN)
e.register(r, select.EPOLLIN)
os.write(w, b"x")
a.send(frame(0))
say("".join(str(len(e.poll(0))) for _ in range(12)))
""", **env) == counts + "\n"
