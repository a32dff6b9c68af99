# SPDX-License-Identifier: BSD-2-Clause
"""QEMU without a guest: a test is the driver of its virtio-net card, by the qtest protocol.

    with Echo(sock) as program, Qemu(sock, listen=True) as vm, VirtioNet(vm) as nic:
        nic.start()                             # status, features, rings, DRIVER_OK
        nic.post_rx([2048] * 64)                # and all else that a Driver does
        vm.qmp("set_link", name="n0", up=False)

The machine's firmware is three instructions that halt its processor for good, since Debian's QEMU has no
qtest accelerator. Registers are read and written by qtest: PCI configuration space, the card's common
configuration, its queues' doorbells. The guest's memory is a memfd that the test has mapped, too. An
interrupt (INTx) comes as a line of the protocol; a thread reads the card's interrupt status, as a driver's handler
does, and tells the queues' call_fd, so that waiting is what it is for a scripted front-end: an interrupt
that QEMU owes and does not give is a PeerTimeout. vectors=0 as in guest.py, but for MsixNet.
"""
import contextlib
import json
import os
import queue
import socket
import threading
from functools import partial

import pytest

from .driver import Driver
from .packedring import PackedDriverQueue
from .peer import BASIC
from .proc import Proc, require, scale
from .ring import PAGE, DriverQueue, Memory, Region, signal_eventfd, wait_fds
from .wire import F, PeerClosed

MIB = 1 << 20
LOW = MIB  # below are firmware and what else a PC has there
BAR = 0xe0000000  # where the card's registers are put, in the hole for PCI
SLOT, PORT = 4, 5
# cli; hlt; jmp to the hlt: at the address at which an x86 starts, 16 bytes below the end.
FIRMWARE = bytes(0xfff0) + b"\xfa\xf4\xeb\xfd" + bytes(12)

# For a card with MSI-X the processor takes interrupts, and says the number of each, from VECTOR on, at a port that is a socket of the test's.
VECTOR, VECTORS, READY, SAYS, PROGRAM = 0x30, 16, 0xff, 0xe9, 0x1000
LISTENING = bytes(0xfff0) + b"\xea\x00\x10\x00\x00" + bytes(11)  # jmp 0:PROGRAM
WRMSR = b"\x66\xb9%b\x66\xb8%b\x66\x31\xd2\x0f\x30"  # mov ecx, ...; mov eax, ...; xor edx, edx; wrmsr


def _wrmsr(register, value):
    return WRMSR % (register.to_bytes(4, "little"), value.to_bytes(4, "little"))


def interrupt_program():
    """What stands in the memory from 0 on: the table of interrupts, then what turns the local APIC on (as x2APIC) and waits, and the handlers."""
    low = bytearray(2 * PAGE)
    start = (_wrmsr(0x1b, 0xfee00d00) + _wrmsr(0x80f, 0x1ff) + b"\xbc\x00\x70"  # IA32_APIC_BASE, spurious vector; mov sp, 0x7000
             b"\xb0" + bytes((READY,)) + b"\xe6" + bytes((SAYS,)) + b"\xfb\xf4\xeb\xfd")  # mov al, READY; out SAYS, al; sti; hlt; jmp
    low[PROGRAM:PROGRAM + len(start)] = start
    for i in range(VECTORS):
        at = PROGRAM + 0x100 + 64 * i
        handler = (b"\x66\x60\xb0" + bytes((i,)) + b"\xe6" + bytes((SAYS,)) +  # pushad; mov al, i; out SAYS, al
                   _wrmsr(0x80b, 0) + b"\x66\x61\xcf")  # end of interrupt; popad; iret
        low[at:at + len(handler)] = handler
        low[4 * (VECTOR + i):4 * (VECTOR + i) + 2] = at.to_bytes(2, "little")
    return low


class Ram(Memory):
    """The guest's memory: of each region a memfd that QEMU has, too. New allocations come from the
    region that was plugged last."""

    def __init__(self):
        super().__init__(sizes=())

    @staticmethod
    def make(size):
        """A memfd for QEMU's memory-backend-file, which the caller owns until it is plugged."""
        fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return fd

    def plug(self, gpa, size, fd, offset=0):
        """The guest sees size bytes at offset of the memfd from address gpa on."""
        self.regions.append(Region(gpa, size, None, fd, offset))
        self.fds.append(fd)
        self.used.append(0)
        self.bins.clear()

    def unplug(self, gpa):
        """The region that begins there is gone."""
        i = next(i for i, r in enumerate(self.regions) if r.gpa == gpa)
        del self.regions[i], self.used[i]
        os.close(self.fds.pop(i))
        self.bins.clear()

    def is_newest(self, gpa):
        """Is this address in the memory that was plugged in last?"""
        last = self.regions[-1]
        return last.gpa <= gpa < last.gpa + last.size

    def alloc(self, size, align=16, region=None):
        """See Memory.alloc()."""
        if region is None and self.bins.get((size, align)):
            return self.bins[size, align].pop()
        return super().alloc(size, align, len(self.regions) - 1 if region is None else region)

    def free(self, gpa, size, align=16):
        """What is not of the last region is not handed out again."""
        if self.is_newest(gpa):
            super().free(gpa, size, align)


class Wire:
    """The qtest protocol: a line is asked and one is answered; interrupts come in between."""

    def __init__(self, sock, interrupt):
        self.sock, self.file = sock, sock.makefile("rb")
        self.interrupt, self.lock = interrupt, threading.Lock()
        self.answers, self.raised = queue.SimpleQueue(), queue.SimpleQueue()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._read, self._handle)]
        for t in self.threads:
            t.start()

    def _read(self):
        for line in self.file:
            if line.startswith(b"IRQ raise"):
                self.raised.put(True)
            elif not line.startswith(b"IRQ"):
                self.answers.put(line.decode().split())
        self.answers.put(["gone"])
        self.raised.put(False)

    def _handle(self):
        with contextlib.suppress(PeerClosed, BrokenPipeError):
            while self.raised.get():
                self.interrupt()

    def ask(self, *words):
        """One command; the number that is answered, or None."""
        line = " ".join(w if isinstance(w, str) else hex(w) for w in words)
        with self.lock:
            self.sock.sendall(line.encode() + b"\n")
            answer = self.answers.get(timeout=scale(20))
        if answer[0] == "gone":
            self.answers.put(answer)
            raise PeerClosed("QEMU is gone")
        assert answer[0] == "OK", f"{words}: {answer}"
        return int(answer[1], 0) if len(answer) > 1 else None

    def close(self):
        """The threads end, that which may ask first."""
        reader, handler = self.threads
        self.raised.put(False)
        handler.join(scale(20))
        self.sock.shutdown(socket.SHUT_RDWR)
        reader.join(5)
        self.file.close()
        self.sock.close()


class Qemu:
    """A machine with one vhost-user network card in PCI slot 4, netdev n0.

    sock, listen: as guest.Guest has them. queues: pairs that the netdev has. device: more properties of the
    card. accel: tcg, or kvm, which skips where that is not to be had. memory in MiB. iommu: the card is
    behind one (vtd.py), and a port. incoming: it waits at this socket for a machine that migrates, and goes on at "cont". interrupts: its
    processor takes MSI-X for MsixNet; not with tcg, under which QEMU 7.2 dies at DRIVER_OK of a vhost-user card with MSI-X. interrupt: is
    called in a thread for each interrupt of a line.
    """

    def __init__(self, sock, listen=False, queues=1, device="", accel="tcg", memory=64, iommu=False, incoming=None, interrupts=False):
        require("qemu-system-x86_64")
        if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            pytest.skip("no access to /dev/kvm")
        self.queues, self.interrupt = queues, lambda: None
        self.memory = Ram()
        self.memory.plug(LOW, (memory - 1) * MIB, self.memory.make(memory * MIB), LOW)
        self.firmware = FIRMWARE
        if interrupts:
            self.firmware = LISTENING
            os.pwrite(self.memory.fds[0], interrupt_program(), 0)
        how = ",server=on,wait=off" if listen else ",reconnect=1"
        self.card = 1 << 8 if iommu else SLOT << 3
        card = f"virtio-net-pci,netdev=n0,id=card,mrg_rxbuf=on,vectors=0{device}"
        card += ",bus=rp,iommu_platform=on,ats=on,disable-legacy=on" if iommu else f",addr={SLOT}"
        argv = ["-M", "q35,memory-backend=mem", "-accel", accel, "-m", f"{memory},slots=4,maxmem=1G", "-object",
                f"memory-backend-file,id=mem,size={memory}M,share=on,mem-path={self.pass_fd(self.memory.fds[0])}",
                "-nodefaults", "-no-user-config", "-display", "none",
                *(["-device", "intel-iommu,device-iotlb=on", "-device", f"pcie-root-port,id=rp,addr={PORT}"] if iommu else []),
                "-chardev", f"socket,id=c0,path={sock}{how}",
                "-netdev", f"vhost-user,id=n0,chardev=c0,vhostforce=on,queues={queues}", "-device", card]
        self._launch(argv + (["-incoming", f"unix:{incoming}", "-S"] if incoming else []))

    @staticmethod
    def pass_fd(fd):
        """A path at which QEMU, whose number is not known yet, opens a file of ours."""
        return f"/proc/{os.getpid()}/fd/{fd}"

    def _launch(self, argv):
        """Start it with the two connections, and wait until it answers by both."""
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), socket.socketpair())
        firmware = os.memfd_create("firmware", os.MFD_CLOEXEC)
        os.write(firmware, self.firmware)
        self.proc = Proc(["qemu-system-x86_64", *argv, "-bios", self.pass_fd(firmware),
                          "-chardev", f"socket,id=qt,fd={theirs[0].fileno()}", "-object", "qtest,id=q0,chardev=qt",
                          "-chardev", f"socket,id=mon,fd={theirs[1].fileno()}", "-mon", "chardev=mon,mode=control",
                          "-chardev", f"socket,id=says,fd={theirs[2].fileno()}",
                          "-device", f"isa-debugcon,iobase={SAYS},chardev=says"],
                         pass_fds=[s.fileno() for s in theirs])
        for s in theirs:
            s.close()
        ours[1].settimeout(scale(20))
        self.monitor, self.said = ours[1:]
        self.replies = self.monitor.makefile("rb")
        self.wire = Wire(ours[0], lambda: self.interrupt())  # pylint: disable=unnecessary-lambda
        self.ask, self.events = self.wire.ask, []
        self.replies.readline()  # its greeting
        self.qmp("qmp_capabilities")
        os.close(firmware)
        self.ask("irq_intercept_in", "ioapic")
        self._open_port()

    def _open_port(self):
        """What is behind the PCI Express port, if the card is: bus 1, and the 16 MiB that begin at BAR."""
        for offset, value in ((0x18, 0x10100), (0x20, BAR + 15 * MIB | BAR >> 16), (4, 0x6)) if self.card >> 8 else ():
            self.pci(offset, value=value, who=PORT << 3)

    def qmp(self, command, **arguments):
        """Give a command to QEMU's monitor and wait until it has carried it out; what it returns."""
        words = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.monitor.sendall(json.dumps(words).encode() + b"\n")
        while True:
            said = json.loads(self.replies.readline())
            if "event" not in said:
                break
            self.events.append(said["event"])
        assert "return" in said, f"{words}: {said}"
        return said["return"]

    def reset(self):
        """The machine starts anew: no register is where it was."""
        self.events.clear()
        self.qmp("system_reset")
        self.await_event("RESET")
        self._open_port()

    def await_event(self, name):
        """Until QEMU has told of it, which the caller is the cause of."""
        while name not in self.events:
            self.qmp("query-status")

    def plug_memory(self, name, mib):
        """A DIMM, from which the test's allocations come from now on."""
        fd = self.memory.make(mib * MIB)
        self.qmp("object-add", qom_type="memory-backend-file", id=name, size=mib * MIB, share=True,
                 mem_path=self.pass_fd(fd))
        self.qmp("device_add", driver="pc-dimm", id="dimm" + name, memdev=name)
        dimm = self._dimm(name)
        self.memory.plug(dimm["addr"], dimm["size"], fd)

    def _dimm(self, name):
        return next(d["data"] for d in self.qmp("query-memory-devices") if d["data"]["id"] == "dimm" + name)

    def unplug_memory(self, name):
        """Take a DIMM out, in which nothing of the test's may be: the guest is asked for it and lets go, as its firmware's ACPI
        methods would have it do (docs/specs/acpi_mem_hotplug.txt of QEMU: slot, status, control)."""
        dimm = self._dimm(name)
        self.events.clear()
        self.qmp("device_del", id=dimm["id"])
        self.ask("outl", 0xa00, dimm["slot"])
        assert self.ask("inb", 0xa14) & 4, "the guest is not asked for the DIMM"
        self.ask("outb", 0xa14, 8)
        self.await_event("DEVICE_DELETED")
        self.qmp("object-del", id=name)
        self.memory.unplug(dimm["addr"])

    def pci(self, offset, size="l", value=None, who=None):
        """Read, or write, a register of the PCI configuration space of the card, or of who it is that has this bus, slot and function."""
        self.ask("outl", 0xcf8, 0x80000000 | (self.card if who is None else who) << 8 | offset & ~3)
        port = 0xcfc + (offset & 3)
        return self.ask("in" + size, port) if value is None else self.ask("out" + size, port, value)

    def close(self):
        """End it."""
        self.wire.close()
        self.replies.close()
        self.monitor.close()
        self.said.close()
        self.proc.close()
        self.memory.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def _register(width, offset):
    """A field of the common configuration (virtio 1.2, section 4.1.4.3), as an attribute; width as qtest has it."""
    def get(self):
        return self.vm.ask("read" + width, self.at[1] + offset)

    def put(self, value):
        self.vm.ask("write" + width, self.at[1] + offset, value)
    return property(get, put)


class VirtioNet(Driver):
    """The driver of a Qemu's card. hdr: the header's length on the rings, which is the back-end's affair. ring:
    entries of each. timeout in seconds, of every wait. memory: what the rings and buffers are in, if not the guest's."""

    feature_select, feature = _register("l", 0), _register("l", 4)
    driver_feature_select, driver_feature = _register("l", 8), _register("l", 12)
    status, queue_select = _register("b", 20), _register("w", 22)
    queue_size, queue_enable, notify_off = _register("w", 24), _register("w", 28), _register("w", 30)

    def __init__(self, vm, hdr=48, ring=256, timeout=20.0, memory=None):
        self.vm, self.hdr, self.ring, self.timeout = vm, hdr, ring, scale(timeout)
        self.memory, self.pairs = memory or vm.memory, vm.queues
        self.queues, self.control, self.features = [], [], 0  # the driver has one control queue or none
        self.at, self.multiplier, self.msix = {}, 0, None
        self.lock, self.configured = threading.Lock(), threading.Event()  # lock: queues and control, from the handler
        self.find_registers()
        vm.interrupt = self._interrupted

    def find_registers(self):
        """Where the structures of virtio 1.2, section 4.1.4, are, after giving the card's BARs addresses, as
        firmware does; again after a reset of the machine."""
        bars, cap = {}, self.vm.pci(0x34, "b")
        while cap:
            if self.vm.pci(cap, "b") == 9:
                kind, bar = self.vm.pci(cap + 3, "b"), self.vm.pci(cap + 4, "b")
                if kind in (1, 2, 3, 4):
                    self.at[kind] = bars.setdefault(bar, BAR + len(bars) * MIB) + self.vm.pci(cap + 8)
                if kind == 2:
                    self.multiplier = self.vm.pci(cap + 16)
            elif self.vm.pci(cap, "b") == 0x11:
                self.msix = cap
                for what, where in (("table", self.vm.pci(cap + 4)), ("pending", self.vm.pci(cap + 8))):
                    self.at[what] = bars.setdefault(where & 7, BAR + len(bars) * MIB) + (where & ~7)
            cap = self.vm.pci(cap + 1, "b")
        for bar, address in bars.items():
            self.vm.pci(0x10 + 4 * bar, value=address)
        self.vm.pci(4, "w", 0x6)  # it answers at them, and may reach memory

    def _interrupted(self):
        """The handler: reading the status lowers the line."""
        with self.lock:
            isr = self.vm.ask("readb", self.at[3]) if self.queues else 0
            if isr & 1:
                for q in self.queues + self.control:
                    signal_eventfd(q.call_fd)
            if isr & 2:
                self.configured.set()

    def _negotiate(self, want):
        offered = 0
        for half in range(2):
            self.feature_select = half
            offered |= self.feature << 32 * half
        self.features = want & offered
        for half in range(2):
            self.driver_feature_select = half
            self.driver_feature = self.features >> 32 * half & 0xffffffff
        self.status = 0xb
        assert self.status == 0xb, "the features are refused"

    def _make_queue(self, index):
        kind = PackedDriverQueue if self.features & F.RING_PACKED else DriverQueue
        q = kind(self.memory, self.ring if index < 2 * self.pairs else 64)
        q.event_idx = bool(self.features & F.EVENT_IDX)
        self.queue_select = index
        self.queue_size = q.size
        for offset, gpa in zip((32, 40, 48), q.gpa):
            self.vm.ask("writel", self.at[1] + offset, gpa & 0xffffffff)
            self.vm.ask("writel", self.at[1] + offset + 4, gpa >> 32)
        q.kick = partial(self.vm.ask, "writew", self.at[2] + self.notify_off * self.multiplier, index)
        self.queue_enable = 1
        return q

    def start(self, features=BASIC | F.STATUS):
        """A driver starts anew: reset, features as far as they are offered, new rings, DRIVER_OK. With F.MQ
        one pair of queues is in use until set_pairs()."""
        self.stop()
        self._negotiate(features)
        pairs = self.pairs if self.features & F.MQ else 1
        with self.lock:
            self.queues = [self._make_queue(i) for i in range(2 * pairs)]
            self.control = [self._make_queue(2 * pairs)] if self.features & F.CTRL_VQ else []
        self.reset_rings()
        self.status = 0xf

    def move(self, vm):
        """The machine has migrated to this one: its memory is elsewhere, the registers are where they were."""
        vm.memory.used, vm.memory.bins = self.memory.used, self.memory.bins
        self.vm.interrupt = lambda: None
        with self.lock:
            self.vm, self.memory = vm, vm.memory
            for q in self.queues + self.control:
                q.memory, parts = vm.memory, zip(q.gpa, q.ring.lengths(q.size))
                q.ring = type(q.ring)(q.size, *(vm.memory.view(*part) for part in parts))
                q.kick = partial(vm.ask, *q.kick.args)
        vm.interrupt = self._interrupted

    def stop(self):
        """Reset of the device: the rings are the driver's again."""
        self.status = 0
        assert self.status == 0
        self._close_queues()

    def _close_queues(self):
        with self.lock:
            queues, self.queues, self.control = self.queues + self.control, [], []
            for q in queues:
                q.close()

    def set_pairs(self, count):
        """Let the device use this many pairs of queues (virtio 1.2, section 5.1.6.5.5)."""
        assert self.command(4, 0, count.to_bytes(2, "little")) == 0

    def command(self, cls, cmd, data):
        """Ask by the control queue; the device's answer, 0 when it has done so."""
        at, ack = self.memory.alloc(PAGE), self.memory.alloc(16)
        self.memory.view(at, 2 + len(data))[:] = bytes((cls, cmd)) + data
        self.memory.view(ack, 1)[:] = b"\xff"
        control = self.control[0]
        # Of a packed ring's list QEMU 7.2 gives back the first descriptor's id, and it is the last one's that counts.
        control.add([(at, 2 + len(data), False), (ack, 1, True)], bool(self.features & F.RING_PACKED),
                    owned=[(at, PAGE), (ack, 16)])
        control.publish()
        done = control.wait_used(self.timeout)
        answer = self.memory.view(ack, 1)[0]
        control.recycle(done)
        return answer

    def link(self):
        """Is the link up, as the card's configuration has it?"""
        return bool(self.vm.ask("readw", self.at[4] + 6) & 1)

    def wait_link(self, up):
        """The card tells that its link went up or down."""
        assert self.configured.wait(self.timeout), "no interrupt for the link"
        self.configured.clear()
        assert self.link() == up

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.vm.interrupt = lambda: None
        self._close_queues()


class MsixNet(VirtioNet):
    """The same with a vector of its own for each queue, for a Qemu with interrupts=True and vectors= that many in device=."""

    vector = _register("w", 26)

    def __init__(self, vm, **keys):
        super().__init__(vm, **keys)
        vm.interrupt = lambda: None
        if not wait_fds([vm.said], self.timeout):
            pytest.skip("KVM does not run the processor of a machine here")
        assert vm.said.recv(1)[0] == READY
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def find_registers(self):
        """See VirtioNet; turns MSI-X on."""
        super().find_registers()
        assert self.msix, "the card has no MSI-X"
        self.vm.pci(self.msix + 2, "w", 1 << 15)

    def _make_queue(self, index):
        queue = super()._make_queue(index)
        for i, word in enumerate((0xfee00000, 0, VECTOR + index, 0)):
            self.vm.ask("writel", self.at["table"] + 16 * index + 4 * i, word)
        self.vector = index
        assert self.vector == index, "the card has too few vectors"
        return queue

    def mask(self, index, masked):
        """Mask the vector of a queue, or unmask it."""
        self.vm.ask("writel", self.at["table"] + 16 * index + 12, int(masked))

    def _listen(self):
        """Tell the queues whose vectors the processor says."""
        while said := self.vm.said.recv(64):
            with self.lock:
                queues = self.queues + self.control
                for index in said:
                    if index < len(queues):
                        signal_eventfd(queues[index].call_fd)

    def __exit__(self, *exc):
        self.vm.said.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        super().__exit__(*exc)
