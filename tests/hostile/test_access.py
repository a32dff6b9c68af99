# SPDX-License-Identifier: BSD-2-Clause
"""Who gets at a port's socket: by the file's mode, owner and group, and by the user of the peer. What needs a second user runs one under
root, as uid 1001 (in group 1001 alone)."""
import os
import re
import stat
import subprocess

import pytest

from interop.port import port
from lab.proc import Proc, build, preload_env
from lab.vhostpeer import BackEnd, FrontEnd
from hostile.victim import Victim, echoes, returns, until

OTHER = 1001
AS_OTHER = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--no-new-privs")
KNOCK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
try:
    s.connect(sys.argv[1])
    s.send(b"\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0")  # GET_FEATURES
    print("admitted" if s.recv(100) else "hung up on")
except ConnectionError:
    print("hung up on")
except PermissionError:
    print("shut out")
"""


def needs_second_user():
    """Skip where no program can be run as somebody else, or that one cannot read the build."""
    if os.geteuid():
        pytest.skip("running a program as another user takes root")
    lib = build("libpalladium.so")
    if subprocess.run([*AS_OTHER, "test", "-r", lib], check=False).returncode:
        pytest.skip(f"user {OTHER} cannot read {lib}")


def knock(path, wrap=AS_OTHER):
    """What another user finds at the socket."""
    return subprocess.run([*wrap, "/usr/bin/python3", "-c", KNOCK, path], check=True, capture_output=True,
                          text=True).stdout.strip()


class OtherVictim(Victim):
    """The echo program, as the other user."""

    def __init__(self, path, **keys):  # pylint: disable=super-init-not-called
        Proc.__init__(self, [build("examples/loopback"), "--keep", "--verbose", "pd0"], wrap=AS_OTHER,
                      env=preload_env(port(path, mtu=12226, **keys)) | {"HOME": "/"})
        self.expect("is ready")


def file_of(path):
    """mode, owner and group of the socket at a path, once it listens."""
    until(lambda: os.path.exists(path), "the path")
    st = os.lstat(path)
    assert stat.S_ISSOCK(st.st_mode)
    return stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid


@pytest.mark.parametrize("how", ["key", "variable"])
def test_mode_and_group(sock, how):
    """Whatever the umask; the port works."""
    keys = {"socket_mode": "0660", "socket_group": os.getgroups()[-1] if os.getgroups() else os.getgid()}
    env = {} if how == "key" else {f"PALLADIUM_{k.upper()}": str(v) for k, v in keys.items()}
    mask = os.umask(0o077)
    try:
        with Victim(sock, mode="listen", env=env, **(keys if how == "key" else {})) as program, \
                FrontEnd(sock, listen=False) as fe:
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            echoes(fe)
            assert file_of(sock) == (0o660, os.geteuid(), keys["socket_group"])
            assert program.running
    finally:
        os.umask(mask)


def test_the_mode_decides_who_connects(sockdir, sock):
    """By default the user alone; a group, or everybody, when asked for."""
    needs_second_user()
    sockdir.chmod(0o755)
    for keys, found in (({}, "shut out"),
                        ({"socket_mode": "0660"}, "shut out"),
                        ({"socket_mode": "0660", "socket_group": OTHER}, "admitted"),
                        ({"socket_owner": OTHER}, "admitted"),
                        ({"socket_mode": "0666"}, "admitted"),
                        ({"socket_mode": "0666", "peer_uid": "self"}, "hung up on"),
                        ({"socket_mode": "0666", "peer_uid": f"0:{OTHER}"}, "admitted")):
        with Victim(sock, mode="listen", **keys) as program:
            file_of(sock)
            assert knock(sock) == found, keys
            if found == "hung up on":
                until(lambda: f"user {OTHER} is refused" in program.text, "the refusal")  # pylint: disable=cell-var-from-loop
                assert program.port()["counters"]["connect_errors"] == 1
            with FrontEnd(sock, listen=False) as fe:
                fe.start_like_qemu()
                fe.post_rx([2048] * 32)
                echoes(fe)
        assert not os.path.exists(sock)


def test_a_socket_of_another_user_is_not_taken(sockdir, sock):
    """Not even by root, and not when it is dead; and an ordinary user cannot give his away."""
    needs_second_user()
    sockdir.chmod(0o777)
    with OtherVictim(sock, mode="listen") as first:
        assert file_of(sock) == (0o600, OTHER, OTHER)
        first.kill()
    with Victim(sock, mode="listen") as program:
        until(lambda: "a socket of another user is there" in program.text, "the refusal")
        assert os.lstat(sock).st_uid == OTHER
        os.unlink(sock)
        with FrontEnd(sock, listen=False) as fe:
            fe.start_like_qemu()
            fe.post_rx([2048] * 32)
            echoes(fe)
    with OtherVictim(sock, mode="listen", socket_owner=0, socket_mode="0666") as program:
        until(lambda: "cannot be given to the owner or group" in program.text, "the refusal")
        assert not os.path.exists(sock)


def test_peer_of_a_program_of_another_user(sockdir, sock):
    """The same seen from an ordinary user's program, listening and connecting: root is let in when it is named."""
    needs_second_user()
    sockdir.chmod(0o777)
    with OtherVictim(sock, mode="listen", peer_uid="root"), FrontEnd(sock, listen=False) as fe:
        fe.start_like_qemu()
        fe.post_rx([2048] * 32)
        echoes(fe)
    with OtherVictim(sock, mode="listen", peer_uid="self") as program:
        assert knock(sock) == "admitted"
        assert knock(sock, ()) == "hung up on"
        until(lambda: "user 0 is refused" in program.text, "the refusal")
    with FrontEnd(sock) as fe:
        os.chmod(sock, 0o666)
        with OtherVictim(sock, peer_uid=OTHER) as program:
            until(lambda: "none of the users of peer_uid" in program.text, "the refusal")
            assert program.running


def test_what_is_not_allowed_is_told_in_words(sockdir, sock):
    """A file that may not be written and a folder in which none may be made."""
    needs_second_user()
    sockdir.chmod(0o755)
    with FrontEnd(sock):
        os.chmod(sock, 0o600)
        with OtherVictim(sock) as program:
            until(lambda: "this user must be able to write the socket's file" in program.text, "the words")
    with OtherVictim(sock, mode="listen") as program:
        until(lambda: "this user must be able to write the socket's folder" in program.text, "the words")


@pytest.mark.parametrize("role", ["backend", "frontend"])
def test_who_listens(sock, role):
    """A program that connects looks who is there, in both roles."""
    peer = FrontEnd(sock) if role == "backend" else BackEnd(sock, listen=True)
    with peer:
        with Victim(sock, role=role, peer_uid=os.geteuid() + 1) as program:
            until(lambda: "none of the users of peer_uid" in program.text, "the refusal")
            p = program.port()
            assert p["state"] == "down" and p["counters"]["connect_errors"] >= 1
            assert len(re.findall("none of the users", program.text)) == 1


@pytest.mark.parametrize("role", ["backend", "frontend"])
def test_who_listens_and_is_let_in(sock, role):
    peer = FrontEnd(sock) if role == "backend" else BackEnd(sock, listen=True)
    with peer, Victim(sock, role=role, ring=64, peer_uid="self"):
        if role == "backend":
            peer.start_like_qemu()
            peer.post_rx([2048] * 32)
            echoes(peer)
        else:
            peer.wait_started()
            returns(peer)


def test_symbolic_link(sockdir, sock):
    """Nothing is made, replaced or opened up at the other end of a link."""
    victim = sockdir / "precious"
    victim.write_text("mine", encoding="ascii")
    victim.chmod(0o600)
    for target in ("precious", "not-there"):
        os.symlink(target, sock)
        with Victim(sock, mode="listen", socket_mode="0666") as program:
            until(lambda: "the path is not a socket" in program.text, "the refusal")
        assert os.readlink(sock) == target
        assert victim.read_text(encoding="ascii") == "mine"
        assert stat.S_IMODE(victim.stat().st_mode) == 0o600
        assert not (sockdir / "not-there").exists()
        os.unlink(sock)
