# SPDX-License-Identifier: BSD-2-Clause
"""Child processes of a test: bounded waits, output kept, ended by pid; and the preload's
environment.

    with Proc([build("examples/loopback"), "pd0"], env=preload_env("pd0=vhost-user:" + sock)) as p:
        p.expect(r"ready")
        ...
        p.terminate()
        assert p.wait() == 0
"""
import ctypes
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest


class ProcTimeout(AssertionError):
    """A process did not say or do what was waited for; carries the end of its output."""


def scale(seconds):
    """A bound for this machine: PD_TIMEOUT_SCALE multiplies it (sanitizers, emulators)."""
    return seconds * float(os.environ.get("PD_TIMEOUT_SCALE", "1"))


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_us():
    """In the child: the kernel kills it when the thread that started it ends, however that ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Proc:
    """A running program, standard error merged into its output. It does not outlive the thread
    that made it: start it in the test's own.

    on_pty gives it a terminal (programs that buffer or edit otherwise); env is added to ours;
    wrap is put in front of the command (a namespace's, valgrind...); setup is called in the new
    process before the command begins.
    """

    def __init__(self, argv, env=None, on_pty=False, wrap=(), cwd=None, pass_fds=(), setup=None):
        self.argv = [*map(str, wrap), *map(str, argv)]
        self.text, self.mark, self.eof = "", 0, False
        self.changed = threading.Condition()
        full = {**os.environ, **(env or {})}

        def begin():
            _die_with_us()
            if setup:
                setup()
        full.pop("PYTHONUNBUFFERED", None)  # else a program's lines come in pieces, and the library's between them
        if on_pty:
            master, slave = pty.openpty()
            self._in = self._out = master
            self.popen = subprocess.Popen(self.argv, stdin=slave, stdout=slave, stderr=slave,
                                          env=full, cwd=cwd, pass_fds=pass_fds,
                                          start_new_session=True, preexec_fn=begin)
            os.close(slave)
        else:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.PIPE, env=full, cwd=cwd,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                          pass_fds=pass_fds, preexec_fn=begin)
            self._in, self._out = self.popen.stdin.fileno(), self.popen.stdout.fileno()
        self.pid = self.popen.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._out, 65536)
            except OSError:
                data = b""  # a terminal whose other end is gone
            with self.changed:
                self.text += data.decode(errors="replace").replace("\r", "")
                self.eof = not data
                self.changed.notify_all()
            if not data:
                return

    def write(self, text):
        """Type into its standard input."""
        os.write(self._in, text.encode())

    def close_stdin(self):
        """End of its input."""
        self.popen.stdin.close()

    def expect(self, pattern, timeout=20.0):
        """Wait until the output after the last match matches; returns the match.

        A match consumes the output up to its end."""
        deadline = time.monotonic() + scale(timeout)
        regex = re.compile(pattern, re.M)
        with self.changed:
            while not (m := regex.search(self.text, self.mark)):
                left = deadline - time.monotonic()
                if self.eof or left <= 0 or not self.changed.wait(left):
                    why = "ended" if self.eof else "timed out"
                    raise ProcTimeout(f"{self.argv[0]} {why} before {pattern!r}; it said:\n"
                                      + self.tail())
            self.mark = m.end()
            return m

    def tail(self, chars=4000):
        """The end of what it said."""
        return self.text[-chars:]

    @property
    def running(self):
        """Has it not ended yet?"""
        return self.popen.poll() is None

    def wait(self, timeout=20.0):
        """Wait for its end; returns the exit status (negative: the signal)."""
        try:
            code = self.popen.wait(scale(timeout))
        except subprocess.TimeoutExpired:
            raise ProcTimeout(f"{self.argv} does not end; it said:\n{self.tail()}") from None
        self._reader.join(5)
        return code

    def signal(self, number):
        """Send it a signal."""
        if self.running:
            self.popen.send_signal(number)

    def terminate(self):
        """SIGTERM."""
        self.signal(signal.SIGTERM)

    def kill(self):
        """SIGKILL and wait, as a crash would be."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def close(self):
        """End it if it still runs, politely for two seconds."""
        if self.running:
            self.terminate()
            try:
                self.popen.wait(2)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self._reader.join(5)
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        if not self.popen.stdout and self._in >= 0:
            os.close(self._in)
            self._in = -1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Together:
    """Several processes: started in order, all ended in reverse, whatever happens."""

    def __init__(self):
        self.procs = []

    def start(self, *args, **kw):
        """Start a Proc and keep it."""
        self.procs.append(Proc(*args, **kw))
        return self.procs[-1]

    def wait_all(self, timeout=60.0):
        """Wait for every one; the list of exit statuses."""
        deadline = time.monotonic() + timeout
        return [p.wait(max(deadline - time.monotonic(), 0.1)) for p in self.procs]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for p in reversed(self.procs):
            p.close()


def run(argv, timeout=60.0, **kw):
    """Run to the end; (exit status, output)."""
    with Proc(argv, **kw) as p:
        code = p.wait(timeout)
        return code, p.text


# --- the tree under test -----------------------------------------------------------------------

def source():
    """The top of the source tree."""
    return pathlib.Path(__file__).resolve().parents[2]


def build_dir():
    """The build tree: PD_BUILD, else build/ in the source tree."""
    return pathlib.Path(os.environ.get("PD_BUILD", source() / "build"))


def build(name):
    """A program of the build tree. libtool's wrapper scripts are passed over: they would run
    under the preload themselves. Its absence is a failure, not a skip."""
    path = build_dir() / name
    real = path.parent / ".libs" / path.name
    path = real if real.exists() else path
    if not path.exists():
        pytest.fail(f"{path} has not been built (PD_BUILD={os.environ.get('PD_BUILD')})")
    return str(path)


def library():
    """libpalladium.so of the build tree."""
    return build(".libs/libpalladium.so")


def preload_order(path):
    """A sanitized library with its runtime, in the order of LD_PRELOAD. ASan insists on being first;
    TSan must not be: inside its own poll, recv... it does not see what our locks order."""
    out = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    runtime = re.findall(r"=> (\S*/lib(?:asan|tsan|ubsan)\.so\S*)", out)
    return [str(path), *runtime] if "libtsan" in "".join(runtime) else [*runtime, str(path)]


def preload_env(ports=None, **variables):
    """The environment that runs a program over our ports, for Proc(env=).

    ports: the value of PALLADIUM_PORTS; other variables by name without their prefix:
    preload_env("pd0=...", METADATA="inline"). The machine's own configuration is kept out.
    """
    env = {"LD_PRELOAD": " ".join(preload_order(library())),
           "PALLADIUM_CONFIG_FILE": os.devnull}
    if ports:
        env["PALLADIUM_PORTS"] = ports
    env.update({"PALLADIUM_" + k: str(v) for k, v in variables.items()})
    return env


def require(*programs):
    """Skip the test, with the reason, when the machine lacks a program."""
    for p in programs:
        if not shutil.which(p):
            pytest.skip(f"no {p} on this machine")
