# SPDX-License-Identifier: BSD-2-Clause
"""Which queue a frame goes by, as DPDK sees it: testpmd forwards queue by queue to a scripted
front-end, which so knows by which one each frame came.

    program (back-end)  == net_virtio_user0 [testpmd] net_vhost1 == scripted front-end
    program (front-end) == net_vhost0       [testpmd] net_vhost1 == scripted front-end

and as a QEMU guest does, whose driver asks for queues through QEMU.
"""
import json

import pytest

from lab.guest import Guest
from lab.proc import build, require, run
from lab.testpmd import Testpmd, vhost, virtio_user
from lab.vhostpeer import BASIC, F, FrontEnd
from queues.remote import Program


def number(frame):
    """Of a frame made by the program's frame() or ip()."""
    at = 42 if frame[12:14] == b"\x08\0" else 14
    return int.from_bytes(frame[at:at + 4], "big")


class Chain:
    """The program, testpmd, and the scripted end."""

    def __init__(self, sockdir, sock, role, queues):
        inner = str(sockdir / "inner")
        keys = {"backend": "mode=listen", "frontend": "role=frontend,ring=128"}[role]
        self.program = Program(f"pd0=vhost-user:{sock},{keys},dialect=virtio,steer=pfc,queues={queues}",
                               PALLADIUM_SEND_WHEN_DOWN="wait")
        self.program.ask("s = packet('pd0')")
        device = virtio_user(sock, queues=queues) if role == "backend" else vhost(sock, queues=queues)
        self.pmd = Testpmd([device, vhost(inner, queues=queues)], queues=queues, mbufs=16384)
        self.fe = FrontEnd(inner, listen=False, hdr=12, queues=queues, features=BASIC | F.MQ, timeout=20)
        self.next = 0

    def __enter__(self):
        self.pmd.forward("io")
        self.fe.start_like_qemu()
        for q in range(self.fe.pairs):
            self.fe.post_rx([2048] * 100, q)
        return self

    def __exit__(self, *exc):
        self.fe.close()
        self.pmd.close()
        self.program.__exit__(*exc)

    def send(self, what="frame({})"):
        """Send a frame; its number."""
        self.next += 1
        assert self.program.ask(f"s.send({what.format(self.next)})") > 0
        return self.next

    def settle(self):
        """Frames may be dropped while testpmd's links come up: until one arrives by every queue of a class."""
        for cls in range(8):
            self.priority(cls)
            for _ in range(600):
                sent = self.send()
                if self.arrives(sent, 0.1) is not None:
                    break
            else:
                raise AssertionError(f"nothing of class {cls} arrives")

    def priority(self, cls):
        self.program.ask(f"s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, {cls})")

    def arrives(self, sent, timeout=20):
        """The queue by which frame `sent` arrives, or None."""
        try:
            while True:
                queue, pkt = self.fe.recv_any(timeout=timeout)
                if number(pkt.frame) == sent:
                    return queue
        except TimeoutError:
            return None

    def classes(self):
        """The queues of the eight classes, each of several frames."""
        where = []
        for cls in range(8):
            self.priority(cls)
            where.append({self.arrives(self.send()) for _ in range(4)})
        assert all(len(w) == 1 for w in where)
        return [w.pop() for w in where]


@pytest.mark.parametrize("queues", [2, 4, 8])
@pytest.mark.parametrize("role", ["backend", "frontend"])
def test_classes_and_flows(sockdir, sock, role, queues):
    require("dpdk-testpmd")
    with Chain(sockdir, sock, role, queues) as chain:
        chain.settle()
        assert chain.classes() == [cls % queues for cls in range(8)]
        chain.program.ask("s.close()")
        chain.program.ask("s = packet('pd0')")
        flows = {}
        for n in range(8 * queues):
            port = 1000 + n % (4 * queues)
            flows.setdefault(port, set()).add(chain.arrives(chain.send(f"ip({{}}, {port})")))
        assert all(len(where) == 1 for where in flows.values())
        assert set.union(*flows.values()) == set(range(queues))
        # A driver gives up queues, and takes them back. (A back-end has no way to say that.)
        for used in (1, queues) if role == "backend" else ():
            chain.pmd.halt()
            chain.pmd.set_queues(used)
            chain.pmd.forward("io")
            chain.settle()
            assert chain.classes() == [cls % used for cls in range(8)]


def sent_by(program):
    """Frames sent by each lane of the port."""
    code, text = run([build("palladium_stats"), "-p", program.popen.pid, "--json", "-c", "1", "-v", "3"], timeout=20)
    assert code == 0, text
    return [lane["counters"]["tx_frames"] for lane in json.loads(text)["lane"]]


@pytest.mark.parametrize("cpus", [4, 1])
def test_guest(sock, cpus):
    """Linux's driver takes as many queues as it has processors, and QEMU enables those: frames reach it by them."""
    with Program(f"pd0=vhost-user:{sock},mode=listen,dialect=virtio,steer=pfc,queues=4",
                 PALLADIUM_SEND_WHEN_DOWN="wait") as program:
        program.ask("s = packet('pd0')")
        program.ask("s.settimeout(20)")
        with Guest(sock, listen=False, ip="10.9.0.1/24", queues=4, device=",mq=on", args=["-smp", cpus]) as vm:
            assert len(vm.check("ls /sys/class/net/eth0/queues").split()) == 2 * cpus
            before = sent_by(program)
            for cls in range(8):
                program.ask(f"s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, {cls})")
                for n in range(5):
                    assert program.ask(f"s.send(frame({n}))") == 64
            went = [b - a for a, b in zip(before, sent_by(program))]
            assert went == ([10] * 4 if cpus == 4 else [40, 0, 0, 0])
            # Those of a test's ethertype are counted before they are thrown away.
            for _ in range(50):
                if int(vm.check("cat /sys/class/net/eth0/statistics/rx_packets")) >= 40:
                    break
            else:
                raise AssertionError("frames do not reach the guest")
