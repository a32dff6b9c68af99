# SPDX-License-Identifier: BSD-2-Clause
"""The 48-byte sidecar of the avip dialect, built and taken apart from the layout's description."""
import struct

SIZE = 48
ONLY_CTRL = 0x1
FLAGS = {name: 1 << bit for bit, name in enumerate(
    "IFG LATENCY ET PORT_DISABLED ET_RESET PORT_PAUSED CLEARED_STATS TCP_OFFSET UDP_OFFSET PORT_ID "
    "CRC_ERROR CRC_OFF LINE_SPEED PORT_NAME PORT_REMOVED PREAMBLE FCS TX_DURATION "
    "PFC_STOPPED_QUEUES PFC_CHANGE NEW_CONFIG FCS_MCRC TIMESTAMP_OFF".split())}
_PACKET = struct.Struct("<HBQQQBB8sBI6s")


def avip(mrg=0, generic=0, flags=0, time=0, latency=0, pfc=0, offset=0, preamble=b"",
         preamble_size=None, fcs=0, reserved=b""):
    """A sidecar for a frame; flags is a number or names ("IFG|FCS"); time is ifg or emulator time."""
    if isinstance(flags, str):
        flags = sum(FLAGS[name] for name in flags.split("|"))
    size = len(preamble) if preamble_size is None else preamble_size
    return _PACKET.pack(mrg, generic, flags, time, latency, pfc, offset, preamble, size, fcs,
                        reserved)


def distinct(n, mrg=0):
    """A sidecar whose every byte after generic_flags depends on n, for byte-identical echoes."""
    return struct.pack("<HB", mrg, 0) + bytes((n * 7 + i * 31 + (n >> 8)) & 0xff for i in range(45))


def control(flags, body=b"", queues=0, generic=ONLY_CTRL):
    """A control-only sidecar: body is the union at offset 11."""
    if isinstance(flags, str):
        flags = sum(FLAGS[name] for name in flags.split("|"))
    return struct.pack("<HBQ16sB20x", 0, generic, flags, body, queues)


def port_id(chassis_ip, card, port, queues=1):
    """The PORT_ID message the tester sends first."""
    return control("PORT_ID", struct.pack("<IHH", chassis_ip, card, port), queues)


def parse(header):
    """The fields of a frame's sidecar by name."""
    names = ("mrg generic flags time latency pfc offset preamble preamble_size fcs reserved").split()
    return dict(zip(names, _PACKET.unpack(header)))
