# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's testpmd against a program under the preload, contents checked in both directions.

    scripted front-end -- net_vhost1 [testpmd] net_virtio_user0 -- program (back-end)
    scripted front-end -- net_vhost1 [testpmd] net_vhost0       -- program (front-end)

testpmd forwards between its two ports and the program echoes, so a frame that the scripted peer
gets back has crossed DPDK's rings and ours both ways; every byte is compared. Then the generator,
which checks what comes back by itself, in bulk and with testpmd alone.
"""
import pytest

from lab.frames import check, numbered
from lab.proc import Together, build, preload_env, require
from lab.relay import Relay
from lab.testpmd import Testpmd, vhost, virtio_user
from lab.vhostpeer import FrontEnd
from interop.port import Echo, port

LENGTHS = [60, 61, 64, 1000, 1514]


@pytest.fixture(autouse=True)
def _needs_testpmd():
    require("dpdk-testpmd")


def crossing(fe, lengths, first=0):
    """Send each frame in and take it back."""
    for n, length in enumerate(lengths, first):
        fe.send(numbered(n, length))
        assert check(fe.recv().frame) == n


def settle(fe):
    """Frames may be dropped while links come up, and only then: go on until one comes back."""
    for attempt in range(600):
        fe.send(numbered(1 << 20, 60))
        try:
            while True:
                if check(fe.recv(timeout=0.1).frame) == 1 << 20:
                    break
        except TimeoutError:
            continue
        try:  # the others of the same kind, if several were under way
            while True:
                fe.recv(timeout=0.3)
        except TimeoutError:
            return attempt
    raise AssertionError("nothing comes back through testpmd")


def chain(sockdir, device, **kw):
    """testpmd between a scripted front-end and `device`."""
    inner = str(sockdir / "inner")
    pmd = Testpmd([device, vhost(inner)], **kw)
    fe = FrontEnd(inner, listen=False, hdr=12)
    return pmd, fe


def run_chain(pmd, fe, restart):
    """Frames through, then restart() and frames again."""
    with pmd, fe:
        pmd.forward("io")
        fe.start_like_qemu()
        fe.post_rx([2048] * 128)
        settle(fe)
        crossing(fe, LENGTHS * 40)
        for first in (1000, 2000):
            restart()
            settle(fe)
            crossing(fe, LENGTHS * 20, first)


@pytest.mark.parametrize("mrg", [True, False], ids=["mrg", "nomrg"])
@pytest.mark.parametrize("server", [False, True], ids=["client", "server"])
def test_virtio_user_our_back_end_restarts(sockdir, sock, server, mrg):
    """Only a virtio-user that listens carries on when its back-end goes."""
    keys = {"mode": "connect" if server else "listen", "dialect": "virtio"}
    program = [Echo(sock, **keys)]

    def restart():
        if server:
            program[0].kill()
            program[0].close()
            program[0] = Echo(sock, **keys)
    try:
        run_chain(*chain(sockdir, virtio_user(sock, server=server, mrg_rxbuf=mrg)), restart)
        assert program[0].running
    finally:
        program[0].close()


@pytest.mark.parametrize("mrg", [True, False], ids=["mrg", "nomrg"])
@pytest.mark.parametrize("server", [False, True], ids=["client", "server"])
def test_virtio_user_restarts(sockdir, sock, server, mrg):
    with Echo(sock, mode="connect" if server else "listen", dialect="virtio") as program:
        for _ in range(2):
            run_chain(*chain(sockdir, virtio_user(sock, server=server, mrg_rxbuf=mrg)),
                      lambda: None)
        assert program.running


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_vhost_our_front_end_restarts(sockdir, sock, client):
    keys = {"mode": "listen" if client else "connect", "dialect": "virtio", "role": "frontend"}
    program = [Echo(sock, **keys)]

    def restart():
        program[0].kill()
        program[0].close()
        program[0] = Echo(sock, **keys)
    try:
        run_chain(*chain(sockdir, vhost(sock, client=client)), restart)
        assert program[0].running
    finally:
        program[0].close()


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_vhost_restarts(sockdir, sock, client):
    with Echo(sock, mode="listen" if client else "connect", dialect="virtio",
              role="frontend") as program:
        for _ in range(2):
            run_chain(*chain(sockdir, vhost(sock, client=client)), lambda: None)
        assert program.running


@pytest.mark.parametrize("packed", ["split", "packed"])
@pytest.mark.parametrize("iommu", ["on", "off"])
def test_vhost_asks_for_translations(sockdir, sock, iommu, packed):
    """iommu-support=1: DPDK translates every address with what our front-end tells it, if that has iommu=on."""
    front = str(sockdir / "front")
    pmd, fe = chain(sockdir, vhost(sock, extra=",iommu-support=1"))
    with Relay(front, sock) as relay, \
            Echo(front, mode="connect", dialect="virtio", role="frontend", iommu=iommu,
                 format=packed) as program:
        run_chain(pmd, fe, lambda: None)
        assert program.running
        said = relay.words()
        assert ("SET_BACKEND_REQ_FD" in said) == (iommu == "on")
        assert ("IOTLB_MSG!" in said) == (iommu == "on")


def test_vhost_hears_our_mtu(sock):
    with Testpmd.vhost(sock, client=False) as pmd, Echo(sock, dialect="virtio", role="frontend"):
        pmd.wait_link()
        assert "MTU: 12226" in pmd.command("show port info 0")
