# SPDX-License-Identifier: BSD-2-Clause
"""What programs ask about interfaces: by name or index, on whatever socket they have at hand."""
import json

import pytest

from sockutil import on_ports, same

PORTS = "pd0=loop:pd1,mtu=9000,mac=02:00:00:00:00:07,ip=10.9.0.1/24,ip=fd00::1/64"

ASK = """
import fcntl, json, struct
def ask(s, request, name=b"pd0", rest=b""):
    return fcntl.ioctl(s, request, struct.pack("16s24s", name, rest))[16:]
"""

KINDS = {"inet": "socket.AF_INET, socket.SOCK_DGRAM", "inet6": "socket.AF_INET6, socket.SOCK_DGRAM",
         "unix": "socket.AF_UNIX, socket.SOCK_STREAM", "netlink": "socket.AF_NETLINK, socket.SOCK_RAW",
         "packet": "socket.AF_PACKET, socket.SOCK_RAW"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_socket_knows_the_port(kind):
    got = json.loads(on_ports(ASK + f"""
s = socket.socket({KINDS[kind]})
index = struct.unpack("i", ask(s, 0x8933)[:4])[0]
name = fcntl.ioctl(s, 0x8910, struct.pack("16si20s", b"", index, b""))[:16].rstrip(b"\\0").decode()
address = lambda request: socket.inet_ntoa(ask(s, request)[4:8])
print(json.dumps(dict(
    same=index == socket.if_nametoindex("pd0"), name=name,
    family=struct.unpack("H", ask(s, 0x8927)[:2])[0], mac=ask(s, 0x8927)[2:8].hex(),
    mtu=struct.unpack("i", ask(s, 0x8921)[:4])[0], flags=struct.unpack("H", ask(s, 0x8913)[:2])[0],
    addr=address(0x8915), mask=address(0x891b), broadcast=address(0x8919))))
""", PORTS))
    assert got.pop("flags") & 0x1043 == 0x1003  # up, broadcast, multicast; not running: it was never opened
    assert got == {"same": True, "name": "pd0", "family": 1, "mac": "020000000007", "mtu": 9000,
                   "addr": "10.9.0.1", "mask": "255.255.255.0", "broadcast": "10.9.0.255"}


def test_the_kernels_interfaces_stay_the_kernels():
    assert json.loads(on_ports(ASK + """
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(json.dumps([ask(s, 0x8933, b"lo")[:4] == ask(u, 0x8933, b"lo")[:4], attempt(ask, u, 0x8933, b"nowhere")]))
""", PORTS)) == [True, "ENODEV"]


def test_ethtool_basics():
    got = json.loads(on_ports(ASK + """
import ctypes
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def ethtool(command, size):
    buf = ctypes.create_string_buffer(struct.pack("I", command) + bytes(size), size + 4)
    ask(u, 0x8946, rest=struct.pack("P", ctypes.addressof(buf)))
    return buf.raw
print(json.dumps([ethtool(3, 192)[4:36].rstrip(b"\\0").decode(), struct.unpack("I", ethtool(10, 4)[4:8])[0],
                  attempt(ethtool, 0x7777, 8)]))
""", PORTS))
    assert got == ["palladium", 0, "ENOTSUP"]  # the same number as EOPNOTSUPP


LISTS = """
import ctypes, fcntl, json
libc = ctypes.CDLL(None)
class Entry(ctypes.Structure):
    pass
Entry._fields_ = [("next", ctypes.POINTER(Entry)), ("name", ctypes.c_char_p), ("flags", ctypes.c_uint),
                  ("addr", ctypes.POINTER(ctypes.c_ushort)), ("mask", ctypes.c_void_p), ("dst", ctypes.c_void_p),
                  ("data", ctypes.c_void_p)]
seen = []
for again in range(100):
    first = ctypes.POINTER(Entry)()
    assert libc.getifaddrs(ctypes.byref(first)) == 0
    seen, e = [], first
    while e:
        if e.contents.addr:
            seen.append((e.contents.name.decode(), e.contents.addr[0]))
        e = e.contents.next
    libc.freeifaddrs(first)
def configured():
    u, room = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ctypes.create_string_buffer(40 * 100)
    used = struct.unpack("i", fcntl.ioctl(u, 0x8912, struct.pack("iP", len(room), ctypes.addressof(room)))[:4])[0]
    return [room.raw[i:i + 16].rstrip(b"\\0").decode() for i in range(0, used, 40)]
"""


def test_lists_hold_the_kernels_interfaces_and_the_ports():
    got = json.loads(on_ports(LISTS + """
print(json.dumps([seen, [n for i, n in socket.if_nameindex()], socket.if_indextoname(socket.if_nametoindex("pd1"))]))
""", PORTS))
    entries = [tuple(e) for e in got[0]]
    assert {("pd0", 17), ("pd0", 2), ("pd0", 10), ("pd1", 17), ("lo", 17)} <= set(entries)
    assert {"lo", "pd0", "pd1"} <= set(got[1]) and got[2] == "pd1"


def test_a_port_that_hides_an_interface_is_listed_alone():
    got = json.loads(on_ports(LISTS + """
index = socket.if_nametoindex("lo")
print(json.dumps([[n for n, family in seen if n == "lo" and family == 17],
                  [i == index for i, n in socket.if_nameindex() if n == "lo"],
                  [n for n in configured() if n == "lo"], configured()[-1]]))
""", "lo=loop:pd1,ip=127.0.0.1/8;pd2=loop:pd3,ip=10.9.0.2/24"))
    assert got == [["lo"], [True], ["lo"], "pd2"]


def test_requests_that_a_port_does_not_know_are_answered_as_of_veth(kernel):
    same(kernel, """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for s in (u, packet()):
    for request in (0x8947, 0x8948, 0x89b1, 0x8929, 0x8917, 0x8915):    # MIIPHY, MIIREG, HWTSTAMP, SLAVE, DSTADDR, ADDR
        say(hex(request), attempt(fcntl.ioctl, s, request, struct.pack("16s24s", A.encode(), b"")))
""")


def test_the_other_end_of_an_address_is_itself():
    assert on_ports(ASK + """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(socket.inet_ntoa(ask(u, 0x8917)[4:8]))
""", PORTS) == "10.9.0.1\n"
