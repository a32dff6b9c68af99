# SPDX-License-Identifier: BSD-2-Clause
"""What every whole-program test needs; nothing here shares code with src/.

vhostpeer  a scripted vhost-user peer, front-end or back-end, honest or not (peer, frontend, backend)
testpmd    DPDK's testpmd, driven over its prompt
guest      a QEMU guest with Debian's kernel, driven over its serial console
ns         network namespaces and veth pairs that go away with the test
proc       child processes with bounded waits, and the preload environment
frames     Ethernet, ARP and ICMP frames, and sequences that can be checked
avip       the 48-byte sidecar
"""
