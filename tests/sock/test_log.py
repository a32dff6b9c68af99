# SPDX-License-Identifier: BSD-2-Clause
"""Log lines go to the log, and never into a file of the program's."""
import re
import subprocess

import pytest

from sockutil import LIMIT, environment, program

BODY = """
import sys
if %(closing)r:
    libc.closefrom(3)
files = [os.open(f"{sys.argv[1]}/data{i}", os.O_RDWR | os.O_CREAT) for i in range(4)]
for fd in files:
    os.write(fd, b"data")
packet(A).close()
replaced = [os.dup2(files[0], n) == n for n in range(200, 300)] if not %(closing)r else []
packet(B).close()
os._exit(0 if all(replaced) else 3)
"""


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("log_file", [False, True], ids=["stderr", "file"])
@pytest.mark.parametrize("closing", [False, True], ids=["copies", "closefrom"])
def test_nothing_is_logged_into_files_of_the_program(tmp_path, closed, log_file, closing):
    extra = {"PALLADIUM_LOG_FILE": tmp_path / "log"} if log_file else {}
    env = environment(**{**extra, "PALLADIUM_TRACELEVEL": "info"})
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh",
                           *program(BODY % {"closing": closing}), tmp_path],
                          env=env, timeout=LIMIT, check=False)
    assert done.returncode == 0
    assert {f.read_bytes() for f in tmp_path.glob("data*")} == {b"data"}
    if log_file:
        assert b"pd1 is up" in (tmp_path / "log").read_bytes()


LATE = """
out, data = (f"{sys.argv[1]}/{x}" for x in ("err", "data"))
a = packet(A)
os.close(2)
assert os.open(data, os.O_RDWR | os.O_CREAT) == 2
os.write(2, b"data")
b = packet(B)                                   # pd0 and pd1 come up
"""


def late(tmp_path, body):
    """Standard error as the program had it, the file that it opened under its number, and a third file."""
    with open(tmp_path / "err", "wb") as err:
        done = subprocess.run([*program(LATE + body), tmp_path], stderr=err, timeout=LIMIT, check=False,
                              env=environment("pd0=loop:pd1;pd2=loop:pd3", PALLADIUM_TRACELEVEL="info"))
    files = [tmp_path / x for x in ("err", "data", "new")]
    text = [f.read_bytes() if f.exists() else b"" for f in files]
    assert done.returncode == 0, text
    return text


def test_nothing_is_logged_into_a_file_that_becomes_the_standard_error(tmp_path):
    before, data, _ = late(tmp_path, "os._exit(0)")
    assert data == b"data"
    assert b"pd1 is up" not in before


@pytest.mark.parametrize("how", ["os.dup2(f, 2)", "libc.dup3(f, 2, 0)", "libc.syscall(33, f, 2)"])
def test_lines_follow_a_standard_error_that_is_put_there(tmp_path, how):
    """Children that redirect their own, with and without memory of their own, are no matter."""
    _, data, new = late(tmp_path, f"""
f = os.open(f"{{sys.argv[1]}}/new", os.O_RDWR | os.O_CREAT | os.O_APPEND)
{how}
os.close(f)
import re
import subprocess
subprocess.run(["true"], stderr=subprocess.DEVNULL, close_fds=False, check=True)
if not os.fork():
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
    os._exit(0)
os.wait()
c, d = packet("pd2"), packet("pd3")
os._exit(0)
""")
    assert data == b"data"
    assert b"pd3 is up" in new


def test_a_file_that_is_no_configuration_does_not_fill_the_log(tmp_path):
    """All of it is read: the port at its end works, and the mistakes of PALLADIUM_PORTS are told."""
    conf = tmp_path / "conf"
    conf.write_text("\n".join(f"word{i} and \x01 more of it" for i in range(4000)) + "\nport last loop peer=other\n")
    done = subprocess.run(program("say(socket.if_nametoindex('last') > 0)"),
                          env=environment("pd0=loop:pd1;nonsense", PALLADIUM_CONFIG_FILE=conf), text=True,
                          capture_output=True, timeout=LIMIT, check=False)
    lines = done.stderr.splitlines()
    assert (done.stdout, len(lines)) == ("True\n", 22), done.stderr
    assert all(f"{conf}:{i + 1}:1:" in line for i, line in enumerate(lines[:20]))
    assert lines[20].startswith(f"PALLADIUM ERROR: config: {conf}: ") and " more mistakes" in lines[20]
    assert "PALLADIUM_PORTS:1:" in lines[21]


SYSLOG = """
import os, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "none", "/dev"], check=True)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
log.settimeout(20)
env = {**os.environ, "LD_PRELOAD": os.environ["TEST_PRELOAD"]}
done = subprocess.run(sys.argv[1:], env=env, stdin=subprocess.PIPE, capture_output=True, text=True)
print(done.returncode, repr(done.stderr))
while "pd0 is closed" not in (line := log.recv(2000).decode()):
    print(line)
"""
APART = ["unshare", "--user", "--map-root-user", "--mount"]


def test_the_systems_log(tmp_path):
    """`log destination syslog`: /dev/log gets the lines and standard error none, and what the program calls itself there is its own."""
    if subprocess.run([*APART, "mount", "-t", "tmpfs", "none", "/dev"], capture_output=True, check=False).returncode:
        pytest.skip("no user and mount namespaces here")
    conf = tmp_path / "conf"
    conf.write_text("port pd0 loop:pd1\nlog min-level info destination syslog\n")
    env = environment("", PALLADIUM_CONFIG_FILE=conf)
    del env["PALLADIUM_TRACELEVEL"]
    env["TEST_PRELOAD"] = env.pop("LD_PRELOAD")
    body = """
import syslog
syslog.openlog("theprogram", 0, syslog.LOG_LOCAL3)
packet(A)
syslog.syslog(syslog.LOG_ERR, "the program's own")
packet(B)
"""
    done = subprocess.run([*APART, "/usr/bin/python3", "-c", SYSLOG, *program(body)], env=env, text=True, capture_output=True,
                          timeout=2 * LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "0 ''"
    assert any(re.fullmatch(r"<14>\w{3} [ \d]\d \d\d:\d\d:\d\d python3\[\d+\]: PALLADIUM INFO: port: pd0 is up: pd1", x) for x in lines), lines
    assert any(re.fullmatch(r"<155>.* theprogram: the program's own\0?", x) for x in lines), lines
