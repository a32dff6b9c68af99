# SPDX-License-Identifier: BSD-2-Clause
"""palladium_decode: a golden description for every field and every flag, and clear errors.

The headers are made here with ctypes from the written layout (offsets in LAYOUT), not from
palladium_extra.h, so a misread offset in the C header shows. golden.txt holds, for each case, the
bytes, the text and the JSON; PD_GOLDEN_UPDATE=1 writes it anew, to be read before it is committed.
"""

import ctypes
import json
import os
import pathlib
import struct
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "golden.txt"
BUILD = pathlib.Path(os.environ.get("PD_BUILD", HERE.parent.parent / "build"))
TOOL = BUILD / "palladium_decode"

# field: (offset, bytes)
LAYOUT = {
    "mrg_num_buffers": (0, 2), "generic_flags": (2, 1), "metadata_type": (3, 8),
    # packet
    "ifg": (11, 8), "emulator_time": (11, 8), "latency": (19, 8), "pfc_priority": (27, 1),
    "tcp_udp_checksum_offset": (28, 1), "preamble": (29, 8), "preamble_size": (37, 1),
    "fcs": (38, 4), "packet_reserved": (42, 6),
    # control
    "chassis_ip": (11, 4), "card_number": (15, 2), "port_number": (17, 2),
    "line_speed": (11, 4), "port_name": (11, 16), "tx_first_ts": (11, 8), "tx_last_ts": (19, 8),
    "queues": (27, 1), "control_reserved": (28, 20),
    # new configuration
    "flow_control_mode": (11, 1), "pfc_queues": (12, 1), "pfc_map": (13, 8),
    "config_reserved": (21, 27),
}

FLAGS = {
    "IFG": 0x1, "LATENCY": 0x2, "ET": 0x4, "PORT_DISABLED": 0x8, "ET_RESET": 0x10,
    "PORT_PAUSED": 0x20, "CLEARED_STATS": 0x40, "TCP_OFFSET": 0x80, "UDP_OFFSET": 0x100,
    "PORT_ID": 0x200, "CRC_ERROR": 0x400, "CRC_OFF": 0x800, "LINE_SPEED": 0x1000,
    "PORT_NAME": 0x2000, "PORT_REMOVED": 0x4000, "PREAMBLE": 0x8000, "FCS": 0x10000,
    "TX_DURATION": 0x20000, "PFC_STOPPED_QUEUES": 0x40000, "PFC_CHANGE": 0x80000,
    "NEW_CONFIG": 0x100000, "FCS_MCRC": 0x200000, "TIMESTAMP_OFF": 0x400000,
}


class PortId(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = [("chassis_ip", ctypes.c_uint32), ("card_number", ctypes.c_uint16),
                ("port_number", ctypes.c_uint16)]


class TxTs(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = [("tx_first_ts", ctypes.c_uint64), ("tx_last_ts", ctypes.c_uint64)]


class ControlUnion(ctypes.Union):
    _pack_ = 1
    _fields_ = [("port_id", PortId), ("line_speed", ctypes.c_uint32),
                ("port_name", ctypes.c_uint8 * 16), ("tx_ts", TxTs)]


class Control(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = [("mrg_num_buffers", ctypes.c_uint16), ("generic_flags", ctypes.c_uint8),
                ("metadata_type", ctypes.c_uint64), ("u", ControlUnion),
                ("queues", ctypes.c_uint8), ("reserved", ctypes.c_uint8 * 20)]


class Packet(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = [("mrg_num_buffers", ctypes.c_uint16), ("generic_flags", ctypes.c_uint8),
                ("metadata_type", ctypes.c_uint64), ("ifg", ctypes.c_uint64),
                ("latency", ctypes.c_uint64), ("pfc_priority", ctypes.c_uint8),
                ("tcp_udp_checksum_offset", ctypes.c_uint8), ("preamble", ctypes.c_uint8 * 8),
                ("preamble_size", ctypes.c_uint8), ("fcs", ctypes.c_uint32),
                ("reserved", ctypes.c_uint8 * 6)]


class Config(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = [("mrg_num_buffers", ctypes.c_uint16), ("generic_flags", ctypes.c_uint8),
                ("metadata_type", ctypes.c_uint64), ("flow_control_mode", ctypes.c_uint8),
                ("pfc_queues", ctypes.c_uint8), ("pfc_map", ctypes.c_uint8 * 8),
                ("reserved", ctypes.c_uint8 * 27)]


def header(flags=(), raw_flags=0, control=False, **fields):
    """48 bytes: flags by name, fields by name of LAYOUT as int or bytes, and `at`: {offset: bytes}."""
    out = bytearray(48)
    patches = fields.pop("at", {})
    fields.setdefault("mrg_num_buffers", 1)
    fields.setdefault("generic_flags", 1 if control else 0)
    fields["metadata_type"] = sum(FLAGS[f] for f in flags) | raw_flags
    for name, value in fields.items():
        offset, size = LAYOUT[name]
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        assert len(data) <= size
        out[offset:offset + len(data)] = data
    for offset, data in patches.items():
        out[offset:offset + len(data)] = data
    assert len(out) == 48
    return bytes(out)


# name: (header, members that the JSON must have, a line that the text must have or None)
CASES = {
    "zeroes": (bytes(48), {"mrg_num_buffers": 0, "flags": [], "other_bytes": []},
               "  DATA FRAME flag set"),
    "ones": (b"\xff" * 48, {"flags": list(FLAGS), "unknown_flags": "0xffffffffff800000"},
             "  unknown generic flags: 0xfe"),
    "mrg_num_buffers": (header(mrg_num_buffers=0x1234), {"mrg_num_buffers": 0x1234},
                        "mrg_num_buffers: 4660"),
    "only_ctrl_pkt": (header(control=True), {"only_ctrl_pkt": True, "generic_flags": 1},
                      "  IXVERIFY_ONLY_CTRL_PKT flag set"),
    "unknown_generic_flag": (header(generic_flags=0x80),
                             {"only_ctrl_pkt": False, "generic_flags": 0x80},
                             "  unknown generic flags: 0x80"),
    "ifg": (header(["IFG"], ifg=0x0102030405060708), {"ifg": 0x0102030405060708},
            "ifg: 72623859790382856 octets"),
    "emulator_time": (header(["ET"], emulator_time=(1 << 63) + 5),
                      {"emulator_time": (1 << 63) + 5}, "emulator_time: 9223372036854775813 ps"),
    "latency": (header(["LATENCY"], latency=987654321), {"latency": 987654321},
                "latency: 987654321 ps"),
    "pfc_priority": (header(pfc_priority=7), {"pfc_priority": 7, "queues": 7}, "pfc_priority: 7"),
    "tcp_offset": (header(["TCP_OFFSET"], tcp_udp_checksum_offset=50),
                   {"tcp_udp_checksum_offset": 50},
                   "tcp_udp_checksum_offset: 50 (from the header)"),
    "udp_offset": (header(["UDP_OFFSET"], tcp_udp_checksum_offset=40),
                   {"tcp_udp_checksum_offset": 40},
                   "tcp_udp_checksum_offset: 40 (from the header)"),
    "preamble": (header(["PREAMBLE"], preamble=bytes.fromhex("fb5555d5010203d5"), preamble_size=8),
                 {"preamble": "fb5555d5010203d5", "preamble_size": 8},
                 "preamble: fb 55 55 d5 01 02 03 d5"),
    "preamble_short": (header(["PREAMBLE"], preamble=b"\x55\x55\xd5\x99", preamble_size=3),
                       {"preamble": "5555d5", "other_bytes":
                        [{"offset": 32, "field": "preamble", "hex": "99"}]},
                       "preamble_size: 3 bytes"),
    "preamble_too_long": (header(["PREAMBLE"], preamble=b"\x55" * 8, preamble_size=9),
                          {"preamble": "55" * 8, "preamble_size": 9},
                          "preamble_size: 9 bytes (more than the 8 that the header holds)"),
    "fcs": (header(["FCS"], fcs=0x11223344), {"fcs": "0x11223344"}, "fcs: 0x11223344"),
    "fcs_mcrc": (header(["FCS", "FCS_MCRC"], fcs=0x11223344), {"flags": ["FCS", "FCS_MCRC"]},
                 "  FCS_MCRC"),
    "data_frame": (header(["IFG", "LATENCY", "PREAMBLE", "FCS"], ifg=12, latency=3200,
                          pfc_priority=3, preamble=bytes.fromhex("555555555555 55d5"),
                          preamble_size=8, fcs=0xCBF43926),
                   {"ifg": 12, "latency": 3200, "pfc_priority": 3, "fcs": "0xcbf43926"}, None),
    "port_id": (header(["PORT_ID"], control=True, chassis_ip=0x0A0B0C0D, card_number=0x0102,
                       port_number=0x0304, queues=9),
                {"chassis_ip": "0x0a0b0c0d", "card_number": 0x0102, "port_number": 0x0304,
                 "queues": 9}, "xtor_queues/ixia_queues: 0x9"),
    "line_speed": (header(["LINE_SPEED"], control=True, line_speed=800000),
                   {"line_speed": 800000}, "line_speed: 800000 Mbit/s"),
    "port_name": (header(["PORT_NAME"], control=True, port_name=b"eth0", queues=2),
                  {"port_name": "eth0", "queues": 2, "other_bytes": []}, "port_name: eth0"),
    "port_name_full": (header(["PORT_NAME"], control=True, port_name=b"0123456789abcdef"),
                       {"port_name": "0123456789abcdef"}, "port_name: 0123456789abcdef"),
    "port_name_empty": (header(["PORT_NAME"], control=True), {"port_name": ""}, "port_name: "),
    "port_name_unprintable": (header(["PORT_NAME"], control=True,
                                     port_name=b'a"\\\x01\x1f\n\x7f\x80\xff/z'),
                              {"port_name": 'a"\\\x01\x1f\n\x7f\x80\xff/z'},
                              'port_name: a"\\\\\\x01\\x1f\\x0a\\x7f\\x80\\xff/z'),
    "port_name_after_nul": (header(["PORT_NAME"], control=True, port_name=b"p1\0junk"),
                            {"port_name": "p1", "other_bytes":
                             [{"offset": 14, "field": "control fields", "hex": "6a756e6b"}]},
                            "  offset 14 (control fields): 6a 75 6e 6b"),
    "tx_duration": (header(["TX_DURATION"], control=True, tx_first_ts=1000, tx_last_ts=2**64 - 1),
                    {"tx_first_ts": 1000, "tx_last_ts": 2**64 - 1},
                    "tx_last_ts: 18446744073709551615 ps"),
    "new_config": (header(["NEW_CONFIG"], control=True, flow_control_mode=2, pfc_queues=0x81,
                          pfc_map=bytes([1, 0, 0, 0, 0, 0, 0, 0x80])),
                   {"flow_control_mode": 2, "layout": "config",
                    "pfc": {"queues": 0x81, "map": [1, 0, 0, 0, 0, 0, 0, 0x80]},
                    "other_bytes": []}, "  Queue 7 -> map: 0x80"),
    "new_config_unmapped": (header(["NEW_CONFIG"], control=True, pfc_queues=1,
                                   pfc_map=bytes([1, 2, 3])),
                            {"other_bytes": [{"offset": 14, "field": "pfc.map", "hex": "0203"}]},
                            "  offset 14 (pfc.map): 02 03"),
    "heartbeat": (header(["ET"], control=True, emulator_time=2920000),
                  {"only_ctrl_pkt": True, "emulator_time": 2920000, "layout": "packet"},
                  "emulator_time: 2920000 ps"),
    "packet_reserved": (header(["IFG"], ifg=1, packet_reserved=bytes([1, 2, 0, 4, 5, 6])),
                        {"other_bytes": [{"offset": 42, "field": "reserved", "hex": "0102"},
                                         {"offset": 45, "field": "reserved", "hex": "040506"}]},
                        "  offset 45 (reserved): 04 05 06"),
    "control_reserved": (header(["PORT_ID"], control=True, control_reserved=bytes(19) + b"\xee"),
                         {"other_bytes": [{"offset": 47, "field": "reserved", "hex": "ee"}]},
                         "  offset 47 (reserved): ee"),
    "config_reserved": (header(["NEW_CONFIG"], control=True, config_reserved=b"\x11"),
                        {"other_bytes": [{"offset": 21, "field": "reserved", "hex": "11"}]},
                        "  offset 21 (reserved): 11"),
    "fields_without_flags": (header(ifg=5, latency=6, tcp_udp_checksum_offset=7,
                                    preamble=b"\x08" * 8, preamble_size=9, fcs=10),
                             {"flags": [], "other_bytes": [
                                 {"offset": 11, "field": "ifg/emulator_time", "hex": "05"},
                                 {"offset": 19, "field": "latency", "hex": "06"},
                                 {"offset": 28, "field": "tcp_udp_checksum_offset", "hex": "07"},
                                 {"offset": 29, "field": "preamble", "hex": "08" * 8},
                                 {"offset": 37, "field": "preamble_size", "hex": "09"},
                                 {"offset": 38, "field": "fcs", "hex": "0a"}]},
                             "Other bytes that are not zero:"),
    "unknown_flag": (header(["IFG"], raw_flags=1 << 23, ifg=1),
                     {"flags": ["IFG"], "unknown_flags": "0x800000"}, "  UNKNOWN 0x800000"),
    "unknown_flag_top": (header(raw_flags=1 << 63), {"unknown_flags": "0x8000000000000000"},
                         "  UNKNOWN 0x8000000000000000"),
    "count_at_offset_10": (header(["ET"], emulator_time=9, at={10: b"\x02"}),
                           {"unknown_flags": "0x200000000000000", "emulator_time": 9}, None),
}
# Every flag on its own, over zeroes.
for flag in FLAGS:
    CASES["flag_" + flag.lower()] = (header([flag]), {"flags": [flag], "unknown_flags": "0x0"},
                                     "  flags: " + flag)


def run(*args, stdin=b"", status=0):
    """Run the tool; its standard output and error, as bytes and text."""
    p = subprocess.run([str(TOOL), *map(str, args)], input=stdin, capture_output=True, timeout=60)
    assert p.returncode == status, p.stderr.decode()
    return p.stdout, p.stderr.decode()


def read_golden():
    """golden.txt as {name: (hex, text, json)}."""
    cases = {}
    for block in GOLDEN.read_text().split("### ")[1:]:
        name, rest = block.split("\n", 1)
        hexa, rest = rest.split("--- text\n")
        text, js = rest.split("--- json\n")
        cases[name] = (hexa.strip(), text, js.strip())
    return cases


def update_golden():
    blocks = ["Written by test_decode.py: the bytes, the text and the JSON of each case.\n"]
    for name, (data, _, _) in CASES.items():
        blocks.append(f"### {name}\n{data.hex()}\n--- text\n{run(data.hex())[0].decode()}"
                      f"--- json\n{run('-j', data.hex())[0].decode()}")
    GOLDEN.write_text("".join(blocks))


if os.environ.get("PD_GOLDEN_UPDATE"):
    update_golden()
golden = read_golden()


def test_layouts_agree():
    for struct_, prefix in ((Packet, "packet_"), (Control, "control_"), (Config, "config_")):
        assert ctypes.sizeof(struct_) == 48
        for name, *_ in struct_._fields_:
            if name == "u":
                continue
            field = getattr(struct_, name)
            key = prefix + name if name == "reserved" else name
            assert (field.offset, field.size) == LAYOUT[key], name
    assert Control.u.offset == LAYOUT["port_name"][0] and ctypes.sizeof(ControlUnion) == 16
    for struct_, names in ((PortId, ("chassis_ip", "card_number", "port_number")),
                           (TxTs, ("tx_first_ts", "tx_last_ts"))):
        for name in names:
            assert 11 + getattr(struct_, name).offset == LAYOUT[name][0]


def test_every_flag_and_field_has_a_case():
    assert set(golden) == set(CASES)
    covered = set()
    for data, members, _ in CASES.values():
        covered |= set(members)
    assert covered >= {"ifg", "emulator_time", "latency", "pfc_priority", "fcs", "preamble",
                       "tcp_udp_checksum_offset", "preamble_size", "chassis_ip", "card_number",
                       "port_number", "line_speed", "port_name", "tx_first_ts", "tx_last_ts",
                       "queues", "flow_control_mode", "pfc", "mrg_num_buffers", "generic_flags"}


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    data, members, line = CASES[name]
    hexa, text, js = golden[name]
    assert hexa == data.hex(), "the golden bytes are not the case's"
    assert run(hexa)[0].decode() == text
    assert run("--json", hexa)[0].decode() == js + "\n"
    parsed = json.loads(js)
    for key, value in members.items():
        assert parsed[key] == value, key
    assert parsed["raw"] == hexa
    assert parsed["metadata_type"] == hex(struct.unpack_from("<Q", data, 3)[0])
    if line is not None:
        assert line in text.splitlines()


@pytest.mark.parametrize("spell", [
    lambda h: [h], lambda h: [h.upper()], lambda h: [" ".join(h[i:i + 2] for i in range(0, 96, 2))],
    lambda h: [":".join(h[i:i + 2] for i in range(0, 96, 2))], lambda h: ["0x" + h],
    lambda h: [", ".join("0x" + h[i:i + 2] for i in range(0, 96, 2))],
    lambda h: [h[i:i + 2] for i in range(0, 96, 2)], lambda h: ["0X" + h[:8] + "\n", "\t" + h[8:]],
])
def test_spellings_of_hex(spell):
    data = CASES["data_frame"][0]
    want = golden["data_frame"][1].encode()
    assert run(*spell(data.hex()))[0] == want
    assert run(stdin="\n".join(spell(data.hex())).encode())[0] == want
    assert run("-", stdin="\n".join(spell(data.hex())).encode())[0] == want


def test_several_headers_are_json_lines(tmp_path):
    both = CASES["ifg"][0] + CASES["port_name"][0]
    want = [json.loads(golden[n][2]) for n in ("ifg", "port_name")]
    path = tmp_path / "headers.bin"
    path.write_bytes(both)
    for out in (run("-j", both.hex())[0], run("-j", "-r", path)[0],
                run("-j", "-r", "-", stdin=both)[0]):
        assert [json.loads(line) for line in out.splitlines()] == want
    assert run("--raw", path)[0].decode() == golden["ifg"][1] + golden["port_name"][1]


def test_first_ignores_what_follows(tmp_path):
    data = CASES["ifg"][0] + bytes(60)
    path = tmp_path / "message.bin"
    path.write_bytes(data)
    assert run("-1", data.hex())[0].decode() == golden["ifg"][1]
    assert run("--first", "--raw", path)[0].decode() == golden["ifg"][1]


@pytest.mark.parametrize("unit,line", [
    ("time=ns", "latency: 3200 ns"), ("ifg=bits", "ifg: 12 bits"),
    ("fcs=big", "fcs: 0x2639f4cb"), ("time=fs,ifg=cycles", "latency: 3200 fs"),
    ("time=fs,ifg=cycles", "ifg: 12 cycles"),
])
def test_units(unit, line):
    data = CASES["data_frame"][0].hex()
    assert line in run("--unit", unit, data)[0].decode().splitlines()
    units = json.loads(run("-j", "-u", unit, data)[0])["units"]
    for setting in unit.split(","):
        name, word = setting.split("=")
        assert units[name] == word


def test_unit_of_line_speed_and_checksum():
    speed, offset = CASES["line_speed"][0].hex(), CASES["tcp_offset"][0].hex()
    assert b"line_speed: 800000 Gbit/s\n" in run("-u", "line_speed=Gbit/s", speed)[0]
    assert b"50 (from the field)\n" in run("-u", "checksum=field", offset)[0]


@pytest.mark.parametrize("args,stdin,status,words", [
    (["00zz"], b"", 1, ["argument 1", "column 3", "'z'", "hexadecimal"]),
    (["0" * 95], b"", 1, ["one digit"]),
    (["0 0"], b"", 1, ["one digit", "column 2"]),
    (["00" * 47], b"", 1, ["47 bytes", "48"]),
    (["00" * 49], b"", 1, ["49 bytes", "multiple of 48", "--first"]),
    (["00", "gg"], b"", 1, ["argument 2", "'g'"]),
    ([], b"", 1, ["standard input", "0 bytes", "48"]),
    ([], b"00\n00\n0\xc3", 1, ["line 3", "column 2", "0xc3"]),
    (["--raw", "/nonexistent"], b"", 1, ["/nonexistent", "No such file"]),
    (["--raw", "-"], b"x" * 50, 1, ["50 bytes", "multiple of 48"]),
    (["--raw", "-"], b"", 1, ["0 bytes"]),
    (["--pcap", "/nonexistent"], b"", 1, ["/nonexistent"]),
    (["--pcap", "-"], b"not a capture file at all", 1, ["format"]),
    (["--unit", "time=weeks"], b"", 2, ["time=weeks", "ps|fs|ns", "ifg="]),
    (["--unit", "colour=red"], b"", 2, ["colour=red", "expected"]),
    (["--unit", "time"], b"", 2, ["'time'"]),
    (["--unit", "time=ps|fs"], b"", 2, ["expected"]),
    (["--raw", "a", "--pcap", "b"], b"", 2, ["one source"]),
    (["--inline", "00"], b"", 2, ["--pcap"]),
    (["--no-such-option"], b"", 2, ["--help"]),
])
def test_bad_input_is_explained(args, stdin, status, words):
    out, err = run(*args, stdin=stdin, status=status)
    assert out == b""
    for word in words:
        assert word in err


def pcap(path, link, packets, order="<"):
    """A capture file: (data, length on the wire or None) each, 1 s apart."""
    data = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for i, (packet, length) in enumerate(packets):
        data += struct.pack(order + "IIII", 1700000000 + i, 250000, len(packet),
                            length or len(packet)) + packet
    path.write_bytes(data)
    return path


def pcapng(path, link, packets):
    def block(kind, body):
        body += bytes(-len(body) % 4)
        size = len(body) + 12
        return struct.pack("<II", kind, size) + body + struct.pack("<I", size)

    data = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(1, struct.pack("<HHI", link, 0, 65535))
    for i, (packet, _) in enumerate(packets):
        us = (1700000000 + i) * 1000000 + 250000
        data += block(6, struct.pack("<IIIII", 0, us >> 32, us & 0xFFFFFFFF, len(packet),
                                     len(packet)) + packet)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("write", [pcap, pcapng, lambda *a: pcap(*a, order=">")])
def test_capture_files(tmp_path, write):
    packets = [(CASES["data_frame"][0] + bytes(60), None), (CASES["port_id"][0], None)]
    path = write(tmp_path / "a.pcap", 147, packets)
    first, second = [json.loads(line) for line in run("-j", "-p", path)[0].splitlines()]
    assert (first["packet"], first["captured"], first["frame_bytes"]) == (
        1, "1700000000.250000000", 60)
    assert (second["packet"], second["captured"], second["frame_bytes"]) == (
        2, "1700000001.250000000", 0)
    assert first["raw"] == packets[0][0][:48].hex() and second["card_number"] == 0x0102
    text = run("-p", path)[0].decode()
    assert text == ("packet 1, captured at 1700000000.250000000, frame of 60 bytes\n"
                    + golden["data_frame"][1]
                    + "packet 2, captured at 1700000001.250000000, frame of 0 bytes\n"
                    + golden["port_id"][1])
    assert len(run("-1", "-j", "-p", path)[0].splitlines()) == 1
    assert run("-p", "-", stdin=path.read_bytes())[0].decode() == text


def test_ethernet_capture_needs_inline(tmp_path):
    path = pcap(tmp_path / "e.pcap", 1, [(CASES["ifg"][0] + bytes(60), None)])
    _, err = run("-p", path, status=1)
    assert "EN10MB" in err and "USER0 (147)" in err and "--inline" in err
    assert json.loads(run("-j", "--inline", "-p", path)[0])["ifg"] == 0x0102030405060708


def test_short_packets_are_passed_over(tmp_path):
    good = CASES["ifg"][0]
    path = pcap(tmp_path / "s.pcap", 147, [(bytes(47), None), (good, None), (good[:20], 100)])
    out, err = run("-j", "-p", path, status=1)
    assert len(out.splitlines()) == 1
    assert "packet 1: 47 bytes" in err and "packet 3: 20 bytes" in err


def test_truncated_capture_tells_where(tmp_path):
    path = pcap(tmp_path / "t.pcap", 147, [(CASES["ifg"][0], None)] * 2)
    path.write_bytes(path.read_bytes()[:-10])
    out, err = run("-j", "-p", path, status=1)
    assert len(out.splitlines()) == 1 and "after packet 1" in err


def test_help_and_version():
    out, _ = run("--help")
    for option in ("--raw", "--pcap", "--inline", "--first", "--text", "--json", "--unit"):
        assert option in out.decode()
    assert run("--version")[0].startswith(b"palladium_decode ")


def test_full_disk_is_an_error():
    with open("/dev/full", "wb") as full:
        p = subprocess.run([str(TOOL), "00" * 48], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert p.returncode == 1 and b"No space left" in p.stderr


LIBRARY = BUILD / ".libs/libpalladium.so"


def preload(command, stdin=b""):
    """Run `command` with and without the library; both outputs. Skips in sanitizer builds."""
    if b"libasan" in LIBRARY.read_bytes() or b"libtsan" in LIBRARY.read_bytes():
        pytest.skip("a sanitizer's library would have to be preloaded first")
    with_it = subprocess.run(command, input=stdin, capture_output=True, timeout=60,
                             env={**os.environ, "LD_PRELOAD": str(LIBRARY)})
    without = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    return with_it.stdout.decode(), without.stdout.decode()


def test_function_found_with_dlsym():
    data, _, _ = CASES["data_frame"]
    program = f"""
import ctypes, errno
lib = ctypes.CDLL(None, use_errno=True)
try:
    decode = lib.palladium_decode
except AttributeError:
    print("none", end="")
    raise SystemExit
data, out = bytes.fromhex("{data.hex()}"), ctypes.create_string_buffer(4096)
call = lambda n, room, form: decode(data, ctypes.c_size_t(n), out, ctypes.c_size_t(room), form)
assert call(47, 4096, 0) == -1 and ctypes.get_errno() == errno.EINVAL
assert call(48, 4096, 2) == -1 and ctypes.get_errno() == errno.EINVAL
n = call(48, 4096, 1)
assert n == len(out.value)
assert call(48, 10, 1) == n and len(out.value) == 9
assert decode(data, ctypes.c_size_t(48), None, ctypes.c_size_t(0), 1) == n
assert call(60, 4096, 0) == len(out.value)
print(out.value.decode(), end="")
"""
    with_it, without = preload(["python3", "-c", program])
    assert with_it == golden["data_frame"][1]
    assert without == "none"


def test_weak_declarations(tmp_path):
    source = tmp_path / "weak.c"
    source.write_text("""
#define PALLADIUM_WEAK
#include <stdio.h>
#include <palladium_extra.h>
int main(void)
{
	struct avip_mdata_t md = {.mrg_num_buffers = 1, .pd = {.metadata_type = PALLADIUM_IFG, .ifg = 12}};
	char text[4096];

	if (!palladium_decode || palladium_decode(&md, sizeof(md), text, sizeof(text), PALLADIUM_TEXT) < 0)
		return puts("none") < 0;
	return fputs(text, stdout) < 0;
}
""")
    program = tmp_path / "weak"
    subprocess.run([*os.environ.get("CC", "cc").split(), "-O2", "-fPIE", "-pie", "-Wall", "-Werror",
                    f"-I{HERE.parent.parent}/include", str(source), "-o", str(program)], check=True)
    with_it, without = preload([str(program)])
    assert "ifg: 12 octets" in with_it.splitlines()
    assert without == "none\n"
