# SPDX-License-Identifier: BSD-2-Clause
"""Makes the lab importable as `lab` and gives each test a short path for its sockets."""
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture
def sockdir():
    """A private folder whose path is short enough for a Unix socket's address."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pdlab."))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def sock(sockdir):
    """The path of a socket that does not exist yet."""
    return str(sockdir / "s")


@pytest.fixture
def small_pages(monkeypatch):
    """Programs whose memory is counted have no huge pages: with those, one frame more that waits may count as 2 MiB."""
    monkeypatch.setenv("PALLADIUM_MEM_ALLOC_TYPE", "anon")
