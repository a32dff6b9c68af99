# SPDX-License-Identifier: BSD-2-Clause
"""What QEMU and DPDK say on a vhost-user socket, version by version, as tables; test_sequences.py plays them.

Rows are spelled as lab/relay.py spells what it hears, without the numbers that the moment gives. "!" asks
for an acknowledgement. A row whose message was not negotiated is passed over: SET_MEM_TABLE where regions
are added one by one, ADD_MEM_REG where they are not, and so on.

Recorded: by the relay, between this library and QEMU 5.2, 7.2 and 10.0 (a guest that boots, is stopped and
goes on, and whose back-end is killed and comes back) and testpmd of DPDK 20.11, 22.11 and 24.11, of which
all three say the same; so DPDK 23.11 stands between two that agree. `make interop-versions` compares the
tables with the programs again. QEMU 4.1 is of an age before CONFIGURE_MEM_SLOTS, which QEMU's history
dates to May 2020 (5.1); the rest of it is as 5.2.
"""
from typing import NamedTuple

from lab.wire import F, P, Req

# Protocol features that a version knows; what is negotiated of them is up to the back-end.
OLD = (P.MQ | P.LOG_SHMFD | P.RARP | P.REPLY_ACK | P.NET_MTU | P.BACKEND_REQ | P.CROSS_ENDIAN | P.PAGEFAULT |
       P.CONFIG | P.BACKEND_SEND_FD | P.HOST_NOTIFIER | P.INFLIGHT)
# QEMU drops what its net device has no use for; RESET_DEVICE it takes where it is offered.
NET = OLD & ~P.CONFIG | P.RESET_DEVICE
DPDK = P.MQ | P.REPLY_ACK | P.STATUS

# Messages that are said only where this was negotiated.
NEEDS = {Req.GET_QUEUE_NUM: P.MQ, Req.GET_MAX_MEM_SLOTS: P.MEM_SLOTS, Req.ADD_MEM_REG: P.MEM_SLOTS,
         Req.GET_STATUS: P.STATUS, Req.SET_STATUS: P.STATUS, Req.NET_SET_MTU: P.NET_MTU,
         Req.RESET_DEVICE: P.RESET_DEVICE}


def request(row):
    """The message of a row."""
    return Req[row.split()[0].rstrip("!")]


def is_said(row, protocol):
    """Is it said where these protocol features were negotiated?"""
    req = request(row)
    if req == Req.SET_MEM_TABLE:
        return not protocol & P.MEM_SLOTS
    return req not in NEEDS or bool(protocol & NEEDS[req])


RUN = "NUM BASE ADDR KICK CALL"


def rings(words, *which):
    """For each ring, the SET_VRING_ messages with these names; ENABLE=0 disables."""
    return [f"SET_VRING_{name.split('=')[0]} {i}" + (f" {name.split('=')[1]}" if "=" in name else "")
            for i in which for name in words.split()]


def bases(*which):
    """The ends of these rings."""
    return [f"GET_VRING_BASE {i}" for i in which]


ON, OFF = rings("ENABLE=1", 0, 1), rings("ENABLE=0", 0, 1)
ON_ACK = ["SET_VRING_ENABLE! 0 1", "SET_VRING_ENABLE! 1 1"]
HELLO = ["GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", "GET_QUEUE_NUM",
         "GET_MAX_MEM_SLOTS", "SET_OWNER", "GET_FEATURES"]
SECOND_HELLO = ["GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", "GET_FEATURES"]
MEMORY = ["SET_MEM_TABLE!", "ADD_MEM_REG!"]
FEATURES_OK, DRIVER_OK = ["GET_STATUS", "SET_STATUS 0x8"], ["GET_STATUS", "SET_STATUS 0xf"]


class Sequence(NamedTuple):
    """A front-end. connect: at once; boot: while a guest boots, its driver not there yet; start: the driver
    is there; stop and resume: the guest is stopped and goes on; restart: the back-end is another one, the
    driver the same. listens: it is it that listens. bases_zero: it tells every back-end to begin at 0."""
    protocol: int
    connect: list
    boot: list
    start: list
    stop: list
    resume: list
    restart: list
    features: int = F.MRG_RXBUF | F.INDIRECT | F.EVENT_IDX | F.PROTOCOL | F.VERSION_1
    pairs: int = 1
    listens: bool = True
    bases_zero: bool = False


def qemu_old(protocol, mtu=(), **kw):
    """QEMU 4.1 to 7.1: no device status, and rings are enabled once more when all is said."""
    connect = HELLO + rings("CALL", 0, 1)
    start = [*mtu, "SET_FEATURES", *MEMORY, *rings(RUN, 0, 1), *ON]
    resume = [row for row in start if row != "ADD_MEM_REG!"]
    return Sequence(protocol, connect, ON * 2, start, bases(0, 1), resume, connect + start, **kw)


def qemu_status(protocol, boot, on, stop, mtu=(), **kw):
    """QEMU from 7.2 on: the device status is told, rings are enabled first."""
    connect = HELLO + rings("CALL ERR", 0, 1)
    start = [*on, *mtu, "SET_FEATURES", *FEATURES_OK, *MEMORY, *rings(RUN, 0, 1), *DRIVER_OK]
    resume = [row for row in start if row != "ADD_MEM_REG!"]
    return Sequence(protocol, connect, boot, start, stop, resume, connect + start, **kw)


def qemu_two_old(protocol):
    """Two pairs: each is a device of its own that says hello, and runs when its turn comes. The second is
    off until the guest wants it."""
    half = ON + rings("ENABLE=0", 2, 3)
    connect = HELLO + rings("CALL", 0, 1) + SECOND_HELLO + rings("CALL", 2, 3)
    start = ["SET_FEATURES", *MEMORY, *rings(RUN, 0, 1), *ON, "SET_FEATURES", *rings(RUN, 2, 3)]
    return Sequence(protocol, connect, half * 2, start + half, bases(0, 1, 2, 3), start, connect + start,
                    features=Sequence._field_defaults["features"] | F.MQ, pairs=2)


def qemu_two_status(protocol):
    """The same with a device status, which goes with the first pair at the start and the last at the end."""
    half = ON + rings("ENABLE=0", 2, 3)
    connect = HELLO + rings("CALL ERR", 0, 1) + SECOND_HELLO + rings("CALL ERR", 2, 3)
    start = [*ON, "SET_FEATURES", *FEATURES_OK, *MEMORY, *rings(RUN, 0, 1), "SET_FEATURES", "GET_STATUS",
             *rings(RUN, 2, 3), *DRIVER_OK]
    return Sequence(protocol, connect, half * 4, start + half,
                    [*bases(0, 1), "SET_STATUS 0x0", *bases(2, 3)], start, connect + start,
                    features=Sequence._field_defaults["features"] | F.MQ, pairs=2)


def dpdk(listens):
    """testpmd's virtio-user. When it listens and another back-end comes, it stops its rings there first,
    which that one knows nothing of, and does not own it."""
    hello = ["GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", *rings("CALL", 0, 1),
             "SET_FEATURES", "SET_STATUS! 0xb", "GET_STATUS"]
    start = ["SET_MEM_TABLE!", *rings("NUM BASE ADDR KICK", 0, 1), *ON, "SET_STATUS! 0xf"]
    stop = OFF + bases(0, 1)
    return Sequence(DPDK, ["SET_OWNER", *hello], [], ["GET_STATUS", *start], stop, [], stop + hello + start,
                    features=F.MRG_RXBUF | F.INDIRECT | F.PROTOCOL | F.VERSION_1, listens=listens,
                    bases_zero=True)


SLOTS = NET | P.MEM_SLOTS
BOOT_10 = (["RESET_DEVICE"] + ON_ACK) * 2 + ON_ACK * 3
MTU = ["NET_SET_MTU! 0x5dc"]
FRONT_ENDS = {
    "QEMU 4.1": qemu_old(NET & ~P.RESET_DEVICE),
    "QEMU 4.1, two pairs": qemu_two_old(NET & ~P.RESET_DEVICE),
    "QEMU 5.2": qemu_old(SLOTS),
    "QEMU 5.2, host_mtu": qemu_old(SLOTS, MTU),
    "QEMU 5.2, two pairs": qemu_two_old(SLOTS),
    "QEMU 7.2": qemu_status(SLOTS | P.STATUS, ON * 4, ON, ["SET_STATUS 0x0", *bases(0, 1)]),
    "QEMU 7.2, host_mtu": qemu_status(SLOTS | P.STATUS, ON * 4, ON, ["SET_STATUS 0x0", *bases(0, 1)], MTU),
    "QEMU 7.2, two pairs": qemu_two_status(SLOTS | P.STATUS),
    "QEMU 10.0": qemu_status(SLOTS | P.STATUS, BOOT_10[:-2], ON_ACK, [*bases(0, 1), "SET_STATUS 0x0"]),
    "DPDK 20.11 to 24.11, client": dpdk(False),
    "DPDK 20.11 to 24.11, server": dpdk(True),
}


class Device(NamedTuple):
    """A back-end: what it offers, and how many pairs it says it has."""
    features: int
    protocol: int
    pairs: int


BACK_ENDS = {
    # net_vhost as testpmd has it: STATUS, MEM_SLOTS left out, and CONFIG among what is offered for nothing.
    "DPDK 20.11 to 24.11": Device(0xd7c66e7cb, 0x10cbf, 128),
    # Before the device status, which came into the specification in 2020.
    "without STATUS": Device(0xd7c66e7cb, 0x00cbf, 128),
    "without REPLY_ACK": Device(0xd7c66e7cb, 0x10cb7, 128),
    "without MQ": Device(0xd7c66e7cb, 0x10cbe, 1),
    "without protocol features": Device(0xd3c66e7cb & ~F.PROTOCOL, 0, 1),
}
