# SPDX-License-Identifier: BSD-2-Clause
"""Rules of libpalladium.conf decide at bind whether a packet socket may use a port."""
import pytest

from lab.proc import Proc, preload_env

BIND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
try:
    s.bind(("pd0", int(sys.argv[1], 0)))
    print("bound")
except OSError as e:
    print("refused", e.errno)
"""


def bind(tmp_path, rules, protocol="0x88b5", **variables):
    conf = tmp_path / "libpalladium.conf"
    conf.write_text("port pd0 loop peer=pd1\n" + rules)
    env = preload_env(**variables)
    env["PALLADIUM_CONFIG_FILE"] = str(conf)
    with Proc(["/usr/bin/python3", "-c", BIND, protocol], env=env) as p:
        p.wait()
        return p.text


@pytest.mark.parametrize("rules, protocol, answer", [
    ("", "0x88b5", "bound"),
    ("application-id * *\nuse os packet pd0\n", "0x88b5", "refused 19"),
    ("application-id * *\nuse os packet pd0:0x0806\n", "0x88b5", "bound"),
    ("application-id * *\nuse os packet pd0:0x0806\n", "0x0806", "refused 19"),
    ("application-id other *\nuse os packet *\n", "0x88b5", "bound"),
    ("application-id python3* *\nuse palladium packet pd0\nuse os packet *\n", "0x88b5", "bound"),
])
def test_the_first_line_that_hits_decides(tmp_path, rules, protocol, answer):
    assert answer in bind(tmp_path, rules, protocol)


def test_the_deciding_line_is_named(tmp_path):
    text = bind(tmp_path, "# a comment\napplication-id * *\nuse os packet pd0\n")
    assert "libpalladium.conf:4" in text and "pd0" in text


def test_the_application_id_chooses_the_group(tmp_path):
    rules = "application-id * red\nuse os packet pd0\napplication-id * *\nuse palladium packet *\n"
    assert "refused" in bind(tmp_path, rules, APPLICATION_ID="red")
    assert "bound" in bind(tmp_path, rules, APPLICATION_ID="blue")
