# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors of packet sockets: copies, closing, fork, exec, streams, and turning to the kernel."""
import subprocess

import pytest

from sockutil import LIMIT, environment, on_ports, program, same


def test_copies_share_one_socket(kernel):
    same(kernel, """
a, b = packet(A), packet(B)
copies = [os.dup(b.fileno()), os.dup2(b.fileno(), 50), fcntl.fcntl(b, fcntl.F_DUPFD, 60),
          fcntl.fcntl(b, fcntl.F_DUPFD_CLOEXEC, 70)]
libc.dup3(b.fileno(), 80, os.O_CLOEXEC)
copies.append(80)
say(copies[1:], [fcntl.fcntl(c, fcntl.F_GETFD) for c in copies])
for i, c in enumerate(copies):
    a.send(frame(i))
    say(number(os.read(c, 100)))
b.setblocking(False)
b.close()
for c in copies:
    say(attempt(os.read, c, 100))
    a.send(frame(7))
    say(number(os.read(c, 100)))
    os.close(c)
say(attempt(os.read, 80, 1))
""")


def test_a_number_that_is_closed_is_nobodys(kernel):
    same(kernel, """
for how in ("close", "close_range", "dup2", "closefrom"):
    s = packet(B)
    s2 = socket.socket(fileno=os.dup2(s.fileno(), 100))
    n = s2.detach()
    if how == "close":
        os.close(n)
    elif how == "close_range":
        libc.close_range(90, 110, 0)
    elif how == "closefrom":
        os.closerange(90, 110)
    else:
        r, w = os.pipe()
        os.write(w, b"pipe")
        os.dup2(r, n)
        say(os.read(n, 10))
        os.close(n)
    say(how, attempt(os.fstat, n))
""")


def test_a_stream_over_a_socket():
    out = on_ports("""
libc.fdopen.restype = ctypes.c_void_p
a, b = packet(A), packet(B)
f = libc.fdopen(os.dup(a.fileno()), b"w")
data = frame(3)
say(libc.fwrite(data, 1, len(data), ctypes.c_void_p(f)), libc.fclose(ctypes.c_void_p(f)))
say(b.recv(100) == data)
with os.fdopen(os.dup(b.fileno()), "rb", buffering=0) as g:
    a.send(data)
    say(g.read(100) == data)
""")
    assert out == "64 0\nTrue\nTrue\n"


def test_exec_keeps_what_is_inherited():
    out = on_ports("""
a, b = packet(A), packet(B, proto=ETH_P_TEST, kind=SOCK_DGRAM)
b.settimeout(None)
b.setsockopt(SOL_PALLADIUM, 1, 1)
b.setsockopt(1, 20, struct.pack("ll", 3, 0))
a.setblocking(False)
fds = [a.fileno(), b.fileno(), os.dup(b.fileno())]
for fd in fds:
    os.set_inheritable(fd, True)
after = '''
from prelude import *
a, b, c = [socket.socket(fileno=int(x)) for x in sys.argv[1:]]
say(a.getsockname()[:3], b.getsockname()[:3], c.getsockname()[:3], a.type, b.type)
say(b.getsockopt(SOL_PALLADIUM, 1), struct.unpack("ll", c.getsockopt(1, 20, 16)))
say(os.get_blocking(a.fileno()), os.get_blocking(b.fileno()), attempt(a.recv, 1))
say(attempt(b.recv, 1, MSG_DONTWAIT))
a.send(frame(3))
data, anc, flags, addr = c.recvmsg(100, 100)
say(len(data), [x[:2] for x in anc], addr[:2], attempt(b.recv, 1, MSG_DONTWAIT))
'''
os.execv(sys.executable, [sys.executable, "-c", after, *map(str, fds)])
""")
    assert out.splitlines() == [
        "('pd0', 3, 0) ('pd1', 34997, 0) ('pd1', 34997, 0) 3 2",
        "1 (3, 0)",
        "False True EAGAIN",
        "EAGAIN",
        "50 [(20548, 1)] ('pd1', 34997) EAGAIN",
    ]


def test_exec_of_a_program_without_the_preload_finds_a_dead_end():
    out = on_ports("""
b = packet(B)
os.set_inheritable(b.fileno(), True)
env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
after = "import os, sys; print(repr(os.read(int(sys.argv[1]), 10)))"
os.execve(sys.executable, [sys.executable, "-c", after, str(b.fileno())], env)
""")
    assert out == "b''\n"


def test_fork_leaves_the_port_with_its_owner_until_it_ends():
    """The parent moves frames: the child's copy of the socket is never ready, until the parent is gone."""
    out = on_ports("""
a, b = packet(A), packet(B)
a.send(frame(1))
say("parent", number(b.recv(100)))
r, w = os.pipe()
told, tell = os.pipe()
pid = os.fork()
if pid:
    a.send(frame(2))
    say("parent", number(b.recv(100)))
    os.write(tell, b"x")
    os.close(w)
    os.read(r, 1)             # the child has looked
    os._exit(0)
os.close(r)
os.read(told, 1)              # the parent has spoken
say("child", ready(b, timeout=0), attempt(b.recv, 100, MSG_DONTWAIT), attempt(a.send, frame(3)))
threading.Timer(0.05, os.close, [w]).start()
poll = select.epoll()
poll.register(a, select.EPOLLOUT)
poll.register(b, select.EPOLLOUT)
say("child", poll.poll(10)[0][1])      # sleeps until the ports are free
a.setsockopt(1, 21, struct.pack("ll", 5, 0))
assert attempt(b.recv, 100, MSG_DONTWAIT) == "EAGAIN"
say("child", a.send(frame(4)), number(b.recv(100)))
""")
    assert out.splitlines() == [
        "parent 1",
        "parent 2",
        "child 0 EAGAIN ENETDOWN",
        "child 4",
        "child 64 4",
    ]


def test_a_server_that_forks_hands_the_port_to_its_child():
    out = on_ports("""
a, b = packet(A), packet(B)
pid = os.fork()
if not pid:
    assert attempt(b.recv, 100, MSG_DONTWAIT) == "EAGAIN"
    a.send(frame(5))
    say("child", number(b.recv(100)))
    os._exit(0)
os.waitpid(pid, 0)
assert attempt(b.recv, 100, MSG_DONTWAIT) == "EAGAIN"
a.send(frame(6))
say("parent", number(b.recv(100)))
""")
    assert out == "child 5\nparent 6\n"


def test_binding_to_an_interface_of_the_kernel_gives_a_kernel_socket(kernel):
    """The number stays, and so do its copies, options and flags."""
    body = """
s = socket.socket(AF_PACKET, SOCK_RAW, 0)
s.setsockopt(263, 8, 1)
s.setsockopt(1, 20, struct.pack("ll", 5, 0))
s.setsockopt(1, 12, 5)
first, s = s, socket.socket(fileno=os.dup2(s.fileno(), 90))
first.close()
t = os.open("/dev/null", os.O_RDONLY)                # takes the first number
s.bind(("ka", ETH_P_ALL))
say(os.read(t, 1), s.getsockname()[0], s.getsockopt(263, 8), s.getsockopt(1, 12))
say(struct.unpack("ll", s.getsockopt(1, 20, 16)), fcntl.fcntl(s, fcntl.F_GETFD))
b = packet("kb")
b.send(frame(4))
say(ready(s), number(s.recv(100)), attempt(s.bind, ("nosuch", 0)))
d = socket.socket(AF_PACKET, SOCK_RAW, socket.htons(3))
d.setsockopt(1, 25, b"ka\\0")
say(d.getsockname()[0] in ("ka", ""))
"""
    env = environment()
    done = subprocess.run([*kernel.space.wrap, *program(body)], env=env, capture_output=True,
                          text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == kernel.run(body)


def both_ways(kernel, body):
    """The body prints the same with and without the preload, beside a port that it does not use."""
    done = subprocess.run([*kernel.space.wrap, *program(body, "ka", "kb")], env=environment(), capture_output=True,
                          text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == kernel.run(body)
    assert done.stdout


def test_a_socket_that_is_bound_to_the_kernel_stays_in_its_epolls(kernel):
    both_ways(kernel, """
s = socket.socket(AF_PACKET, SOCK_RAW, 0)
one, two, outer = select.epoll(), select.epoll(), select.epoll()
copy = os.dup(s.fileno())
interest = {"level": select.EPOLLIN, "edge": select.EPOLLIN | select.EPOLLET, "once": select.EPOLLIN | select.EPOLLONESHOT}
one.register(s, interest["level"])
one.register(copy, interest["edge"])
two.register(copy, interest["once"])
outer.register(one, select.EPOLLIN)
b = packet(B)
waits = [sleeping(outer.poll), sleeping(two.poll), sleeping(select.select, [s], [], [], 10), sleeping(ready, copy)]
s.bind((A, ETH_P_TEST))
say(attempt(one.register, s, 1), attempt(two.register, s, 0), attempt(two.unregister, s))
say([t.is_alive() for t in waits])
b.send(frame(1))
say([len(t.result()) if hasattr(t.result(), "__len__") else t.result() for t in waits])
name = {s.fileno(): "s", copy: "copy"}
def look():
    say(sorted(name[f] for f, _ in one.poll(0)), [name[f] for f, _ in two.poll(0)], len(outer.poll(0)))
look()
look()
b.send(frame(2))
look()
two.modify(copy, interest["once"])
look()
while not isinstance(attempt(s.recv, 100, MSG_DONTWAIT), str):
    pass
look()
one.unregister(s)
b.send(frame(3))
look()
say(attempt(one.modify, s, 1), attempt(one.unregister, copy), attempt(one.unregister, copy))
os.close(copy)
s.close()
look()
""")


def test_rules_leave_ports_and_protocols_to_the_kernel(sockdir):
    conf = sockdir / "conf"
    conf.write_text("application-id * *\nuse os packet pd0:0x88b6\nuse os packet pd2\n")
    out = on_ports("""
def bind(name, proto):
    s = socket.socket(AF_PACKET, SOCK_RAW, socket.htons(proto))
    return attempt(s.bind, (name, proto)), s
say(bind("pd0", ETH_P_TEST)[0], bind("pd0", ETH_P_ALL)[0], bind("pd1", OTHER)[0])
say(bind("pd0", OTHER)[0] in ("ENODEV", "EPERM"), bind("pd2", ETH_P_TEST)[0] in ("ENODEV", "EPERM"))
everywhere = packet(proto=OTHER)           # all ports but pd0 and pd2
a, b = packet("pd0"), packet("pd1")
b.send(frame(1, proto=OTHER))
assert number(a.recv(100)) == 1
a.send(frame(2, proto=OTHER))
say(number(everywhere.recv(100)), attempt(everywhere.recv, 100, MSG_DONTWAIT))
say(attempt(everywhere.sendto, frame(3), ("pd2", OTHER)))
""", ports="pd0=loop:pd1;pd2=loop:pd3", PALLADIUM_CONFIG_FILE=conf)
    assert out.splitlines() == ["None None None", "True True", "2 EAGAIN", "ENXIO"]


def run_in(kernel, body, **extra):
    """Run a body under the preload where the kernel's pair is; its output."""
    done = subprocess.run([*kernel.space.wrap, *program(body)], env=environment(**extra), capture_output=True,
                          text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


SENDING = """
call, threads = sys.argv[1], []
def to(name, proto=ETH_P_TEST):
    return struct.pack("=HHiHBB8s", 17, socket.htons(proto), socket.if_nametoindex(name), 1, 0, 6, b"\\xff" * 6)
def send(s, name, data):
    addr = to(name)
    if call == "sendto":
        return checked(libc.sendto(s.fileno(), data, len(data), 0, addr, len(addr)))
    m = Messages([data] * 2)
    where = ctypes.create_string_buffer(addr)
    for i in range(2):
        m.array[i].hdr.name, m.array[i].hdr.namelen = ctypes.addressof(where), len(addr)
    if call == "sendmmsg":
        return sendmmsg(s, m)
    return checked(libc.sendmsg(s.fileno(), ctypes.byref(m.array[0].hdr), 0))
"""


@pytest.mark.parametrize("call", ["sendto", "sendmsg", "sendmmsg"])
def test_sending_by_an_interface_of_the_kernel_gives_a_kernel_socket(kernel, call):
    """A socket that is bound to nothing hears the kernel's interfaces from then on, also in a thread that waits already."""
    body = f"import sys; sys.argv[1:] = [{call!r}]" + SENDING + """
s = packet(proto=ETH_P_TEST)
s.setsockopt(263, 8, 1)
copy = socket.socket(fileno=os.dup(s.fileno()))
heard = []
t = threading.Thread(target=lambda: heard.append(number(s.recv(100))))
t.start()
time.sleep(0.1)
b = packet("kb")
say(send(s, "ka", frame(4)), number(b.recv(100)))
if call == "sendmmsg":
    b.recv(100)
b.send(frame(5))
t.join(5)
say(heard, copy.getsockopt(263, 8), ready(copy, timeout=0))
b.send(frame(6))
say(ready(copy), number(copy.recv(100)), fcntl.fcntl(copy, fcntl.F_GETFD))
unknown = struct.pack("=HHiHBB8s", 17, 0, 99999, 1, 0, 6, b"")
u = packet(proto=0)
say(checked(libc.sendto(u.fileno(), frame(1), 64, 0, unknown, 20)))
"""
    assert run_in(kernel, body) == kernel.run(body)


def test_a_socket_serves_ports_or_the_kernel(kernel):
    """What has moved frames by a port cannot turn: it would lose them. The log says so."""
    out = run_in(kernel, "import sys; sys.argv[1:] = ['sendto']" + SENDING + """
s, b, kb = packet(proto=ETH_P_TEST), packet(B), packet("kb")
say(send(s, A, frame(1)), number(b.recv(100)), send(s, "ka", frame(2)), send(s, A, frame(3)), number(b.recv(100)))
bound = packet(A)
say(send(bound, "ka", frame(2)), attempt(kb.recv, 100, MSG_DONTWAIT))
fresh = packet(proto=ETH_P_TEST)
say(send(fresh, "ka", frame(2)), number(kb.recv(100)), send(fresh, A, frame(3)))
""")
    assert out == "64 1 ENXIO 64 3\nENXIO EAGAIN\n64 2 ENXIO\n"


def test_sending_by_an_interface_of_the_kernel_needs_what_it_needs_there():
    out = on_ports("import sys; sys.argv[1:] = ['sendto']" + SENDING + """
if not os.getuid():
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
a, b = packet(A), packet(B)
s = packet(proto=0)
say(send(s, "lo", frame(2)), send(s, A, frame(3)), number(b.recv(100)))
""")
    assert out == "EPERM 64 3\n"


@pytest.mark.parametrize("first", ["a.send(frame(1))", "ready(b, timeout=0)", "attempt(b.recv, 1, MSG_DONTWAIT)"])
def test_a_daemon_takes_both_ports_of_a_loop(first):
    """Sockets from before daemon() work after it, whichever is used first: the pair moves whole."""
    out = on_ports(f"""
a, b = packet(A), packet(B)
a.send(frame(7))
say(number(b.recv(100)))
r, w = os.pipe()
if os.fork():
    os.close(w)
    os.read(r, 1)
    os._exit(0)
os.setsid()
os.close(r)
os.close(w)                                    # the parent ends
for _ in range(20000):                         # it is a matter of when
    if attempt(a.send, frame(0)) != "ENETDOWN":
        break
    time.sleep(0.001)
say(number(b.recv(100)))
""")
    assert out == "7\n0\n"
    out = on_ports(f"""
a, b = packet(A), packet(B)
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    {first}
    a.send(frame(9))
    while number(b.recv(100)) != 9:
        pass
    say("parent")
    os._exit(0)
{first}
say(attempt(b.send, frame(8)), attempt(a.send, frame(8)))
while number(b.recv(100)) != 8:
    pass
say(number(a.recv(100)))
""")
    assert out == "64 64\n8\nparent\n"


def test_threads_of_a_child_find_the_port_whole():
    """The first of them opens it; the others must not look at lanes that are not there yet."""
    out = on_ports("""
a, b = packet(A), packet(B)
for i in range(30):
    pid = os.fork()
    if not pid:
        gate = threading.Barrier(6)
        def use(s):
            gate.wait()
            ready(s, timeout=0)
            attempt(s.send, frame(1), MSG_DONTWAIT)
        threads = [threading.Thread(target=use, args=((a, b)[k & 1],)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        os._exit(0)
    say(os.waitpid(pid, 0)[1])
""")
    assert out == "0\n" * 30


@pytest.mark.parametrize("how", ["libc.closefrom(20)", "libc.close_range(20, 0xffffffff, 0)", "libc.close_range(20, 0xffffffff, 4)",
                                 "libc.close_range(20, 0xffffffff, 2)", "os.closerange(20, 20000)",
                                 "libc.syscall(436, 20, 0xffffffff, 0)",
                                 "[attempt(os.close, int(n)) for n in os.listdir('/proc/self/fd') if int(n) >= 20]"])
def test_closing_everything_leaves_the_library_its_own(how):
    """The program's descriptors in the range go; threads that sleep on a port, and the port, stay. Ours are no number of the program's."""
    out = on_ports(f"""
a, b = packet(A), packet(B)
extra = os.dup2(b.fileno(), 30)
a.send(frame(0))
b.recv(100)
heard = []
t = threading.Thread(target=lambda: heard.append(number(b.recv(100))))
t.start()
time.sleep(0.05)
own = [int(n) for n in os.listdir("/proc/self/fd") if int(n) > 100]
{how}
say(len(own) > 3, all(os.path.exists(f"/proc/self/fd/{{n}}") for n in own), [attempt(os.dup, n) for n in own] == ["EBADF"] * len(own))
say(attempt(os.fstat, 30) == "EBADF" if {how!r} != "libc.close_range(20, 0xffffffff, 4)" else fcntl.fcntl(30, fcntl.F_GETFD) == 1)
a.send(frame(5))
t.join(10)
e = select.epoll()
e.register(b, select.EPOLLIN)
a.send(frame(6))
say(heard, len(e.poll(10)), number(b.recv(100)))
""")
    assert out == "True True True\nTrue\n[5] 1 6\n"
