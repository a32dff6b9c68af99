# SPDX-License-Identifier: BSD-2-Clause
"""A Python program under the preload that does what a test asks of it, line by line."""
import ast
import pathlib
import select
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "sock"))

from lab.proc import scale  # noqa: E402
from sockutil import environment, program  # noqa: E402

REMOTE = """
SOL = SOL_PALLADIUM
threads = []
def raw(cls, ctrl=False):
    r = bytearray(48)
    r[2], r[27] = ctrl, cls
    return bytes(r)
def put(s, cls, n, flags=0, **kw):
    return s.sendmsg([frame(n, **kw)], [(SOL, 1, raw(cls))], flags)
def several(s, pairs, flags=0):
    return sendmmsg(s, Messages([raw(c) + frame(n) for c, n in pairs]), flags)
def take(s, flags=0):
    data, anc, _, _ = s.recvmsg(4000, 200, flags)
    return number(data)
def pending(s):
    return struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0]
def events(s, what, ms=0):
    return ready(s, what, ms)
def ip(n, port, src=1):
    f = bytearray(frame(n, proto=0x800))
    f[14:42] = bytes(28)
    f[14], f[23], f[29], f[33] = 0x45, 17, src, 9
    f[34:36] = struct.pack(">H", port)
    f[42:46] = struct.pack(">I", n)
    return bytes(f)
def blocked(call, *args):
    threads.append(sleeping(call, *args))
    return len(threads) - 1
def forked(call, *args):
    pid = os.fork()
    if not pid:
        os._exit(attempt(call, *args) != 8)
    return pid
def elsewhere(call, *args):
    got = []
    t = threading.Thread(target=lambda: got.append(attempt(call, *args)))
    t.start()
    t.join()
    return got[0]
for line in sys.stdin:
    try:
        try:
            code = compile(line, "-", "eval")
        except SyntaxError:
            exec(line)
            say(None)
            continue
        say(repr(eval(code)))
    except OSError as e:
        say(repr(errno.errorcode[e.errno]))
"""


class Program:
    """A Python program under the preload that does what it is asked, line by line."""

    def __init__(self, ports, **env):
        self.popen = subprocess.Popen(program(REMOTE), env=environment(ports, **env), text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        """The value of an expression there, the name of its error, or None for a statement."""
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        assert select.select([self.popen.stdout], [], [], scale(20))[0], f"no answer to {line!r}"
        answer = self.popen.stdout.readline()
        assert answer, f"it ended at {line!r}"
        return ast.literal_eval(answer)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.popen.stdin.close()
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()
