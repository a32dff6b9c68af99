# SPDX-License-Identifier: BSD-2-Clause
"""Log lines go to the log, and never into a file of the program's."""
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
