# SPDX-License-Identifier: BSD-2-Clause
"""Every path that DPDK has through a ring, with 1 to 8 queue pairs, against a program under the
preload, contents checked.

    scripted front-end == net_vhost1 [testpmd] net_virtio_user0 == program (back-end)
    scripted front-end == net_vhost1 [testpmd] net_vhost0       == program (front-end)

testpmd forwards queue by queue and the program echoes on whichever queue it likes. One testpmd
serves each row: frames, its port stopped and started, its queues reduced to one and back.
"""
import re
from typing import NamedTuple

import pytest

from lab.frames import check, numbered
from lab.proc import require
from lab.testpmd import Testpmd, vhost, virtio_user
from lab.vhostpeer import BASIC, F, FrontEnd
from interop.port import Echo

AVX512 = "avx512" in open("/proc/cpuinfo", encoding="ascii").read()


class Path(NamedTuple):
    """What a row asks of virtio-user, and what it then says its receive path is."""
    packed: int
    mrg: int
    in_order: int
    vectorized: int
    queues: int
    ring: int
    name: str


PATHS = {
    "split mergeable": Path(0, 1, 0, 0, 1, 256, "mergeable buffer"),
    "split": Path(0, 0, 0, 0, 2, 128, "standard"),
    "split in-order mergeable": Path(0, 1, 1, 0, 3, 128, "inorder"),
    "split in-order": Path(0, 0, 1, 0, 8, 64, "inorder"),
    "split vectorized": Path(0, 0, 0, 1, 4, 1024, "vectorized"),
    "packed mergeable": Path(1, 1, 0, 0, 5, 128, "packed ring mergeable buffer"),
    "packed": Path(1, 0, 0, 0, 2, 250, "packed ring standard"),
    "packed in-order mergeable": Path(1, 1, 1, 0, 6, 99, "packed ring mergeable buffer"),
    "packed in-order": Path(1, 0, 1, 0, 7, 64, "packed ring standard"),
    "packed vectorized": Path(1, 0, 1, 1, 8, 64, "packed ring vectorized"),
}


class Crossing:
    """The scripted front-end of a chain: numbered frames into every queue, all of them back."""

    def __init__(self, path, queues, long_frames):
        self.fe = FrontEnd(path, listen=False, hdr=12, queues=queues, features=BASIC | F.MQ,
                           timeout=20)
        self.lengths = [60, 61, 64, 1000, 1514] + [5000, 9000] * long_frames
        self.next = 0

    def start(self):
        """Connect, with receive buffers on all queues."""
        self.fe.start_like_qemu()
        for queue in range(self.fe.pairs):
            self.fe.post_rx([2048] * 200, queue)

    def _send(self, queue, length):
        self.fe.send(numbered(self.next, length), queue=queue)
        self.next += 1
        return self.next - 1

    def settle(self, queues):
        """Frames may be dropped while links come up, and only then: go on in each queue until a
        frame comes back, then take the others that were under way."""
        for queue in range(queues):
            for _ in range(600):
                sent = self._send(queue, 60)
                try:
                    while check(self.fe.recv_any(timeout=0.1)[1].frame) != sent:
                        pass
                    break
                except TimeoutError:
                    pass
            else:
                raise AssertionError(f"nothing comes back from queue {queue}")
        sent = self._send(0, 60)
        while check(self.fe.recv_any()[1].frame) != sent:
            pass

    def cross(self, queues, frames):
        """About so many frames, in bursts into each queue, come back, each queue's in order."""
        for _ in range(frames // (queues * len(self.lengths))):
            sent = {}
            for queue in range(queues):
                for length in self.lengths:
                    sent[self._send(queue, length)] = queue
            last = [-1] * queues
            while sent:
                n = check(self.fe.recv_any()[1].frame)
                queue = sent.pop(n)
                assert n > last[queue], f"frame {n} of queue {queue} behind {last[queue]}"
                last[queue] = n
        for queue in range(queues):
            self.fe.wait_sent(queue=queue)


def restarts(pmd, crossing, queues, fewer=(), restart=True):
    """testpmd's port to the program stops and starts; then all use so many pairs of queues."""
    with pmd, crossing.fe:
        pmd.forward("io")
        crossing.start()
        crossing.settle(queues)
        crossing.cross(queues, 600)
        if not restart:
            return
        pmd.halt()
        pmd.restart_port(0)
        pmd.forward("io")
        crossing.settle(queues)
        crossing.cross(queues, 200)
        for used in fewer:
            pmd.halt()
            pmd.set_queues(used)
            pmd.forward("io")
            crossing.settle(used)
            crossing.cross(used, 200)


@pytest.fixture(autouse=True)
def _needs_testpmd():
    require("dpdk-testpmd")


@pytest.mark.parametrize("name", PATHS)
def test_virtio_user(sockdir, sock, name):
    row = PATHS[name]
    if row.vectorized and row.packed and not AVX512:
        pytest.skip("DPDK's packed vectorized path needs AVX512")
    inner = str(sockdir / "inner")
    with Echo(sock, mode="listen", dialect="virtio", queues=row.queues) as program:
        pmd = Testpmd([virtio_user(sock, mrg_rxbuf=row.mrg, packed=row.packed, ring=row.ring,
                                   in_order=row.in_order, queues=row.queues,
                                   extra=f",vectorized={row.vectorized}"),
                       vhost(inner, queues=row.queues)],
                      queues=row.queues, mbufs=16384,
                      eal=["--force-max-simd-bitwidth=512", "--log-level=pmd.net.virtio.*:info"])
        assert f"using {row.name} Rx path on port 0" in pmd.text
        # DPDK 22.11's packed vectorized path does not survive its own restart: it fills the ring with
        # mbufs whose data begin where their last transmission left it.
        restarts(pmd, Crossing(inner, row.queues, row.mrg), row.queues,
                 (1, row.queues) if row.queues > 1 else (), not (row.packed and row.vectorized))
        assert program.running


class Mode(NamedTuple):
    """What our front-end asks of net_vhost."""
    packed: int
    mrg: int
    in_order: int
    queues: int
    ring: int


MODES = {
    "split mergeable": Mode(0, 1, 0, 1, 1024),
    "split": Mode(0, 0, 0, 3, 128),
    "split in-order mergeable": Mode(0, 1, 1, 5, 128),
    "split in-order": Mode(0, 0, 1, 7, 64),
    "packed mergeable": Mode(1, 1, 0, 2, 250),
    "packed": Mode(1, 0, 0, 4, 99),
    "packed in-order mergeable": Mode(1, 1, 1, 6, 128),
    "packed in-order": Mode(1, 0, 1, 8, 64),
}


@pytest.mark.parametrize("name", MODES)
def test_vhost(sockdir, sock, name):
    row = MODES[name]
    inner = str(sockdir / "inner")
    with Echo(sock, dialect="virtio", role="frontend", queues=row.queues, ring=row.ring,
              format="packed" if row.packed else "split", mergeable="on" if row.mrg else "off",
              in_order="on" if row.in_order else "off") as program:
        pmd = Testpmd([vhost(sock, queues=row.queues), vhost(inner, queues=row.queues)], queues=row.queues,
                      mbufs=16384)
        with pmd:
            agreed = int(pmd.expect(rf"{re.escape(sock)}\) negotiated Virtio features: (0x[0-9a-f]+)")[1], 16)
            assert [bool(agreed & bit) for bit in (F.RING_PACKED, F.MRG_RXBUF, F.IN_ORDER)] == list(row[:3])
            restarts(pmd, Crossing(inner, row.queues, row.mrg), row.queues)
        assert program.running
