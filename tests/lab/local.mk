# SPDX-License-Identifier: BSD-2-Clause
# The lab and its own tests: pytest files, run by tests/lab/pytap.
TESTS += tests/lab/test_peer.py tests/lab/test_testpmd.py tests/lab/test_guest.py tests/lab/test_ns.py \
	tests/lab/test_packed.py
TESTS += tests/contrib/test_startvm.py
INTEROP_TESTS = tests/interop/test_copy.py tests/interop/test_migration.py tests/interop/test_wire.py tests/interop/test_testpmd.py tests/interop/test_guest.py \
	tests/interop/test_forks.py tests/interop/test_leftovers.py tests/interop/test_memory.py tests/interop/test_header.py tests/interop/test_rings.py \
	tests/interop/test_packed.py tests/interop/test_sequences.py tests/interop/test_offloads.py tests/interop/test_qtest.py tests/interop/test_vtd.py tests/interop/test_moves.py tests/interop/test_ovs.py \
	tests/interop/test_itself.py
TESTS += $(INTEROP_TESTS)
EXTRA_DIST += $(INTEROP_TESTS) tests/interop/__init__.py tests/interop/port.py tests/interop/sequences.py tests/interop/tcp_end.py tests/interop/asker.py

# Has signal handlers that call into a port.
check_PROGRAMS += tests/interop/handlers
tests_interop_handlers_SOURCES = tests/interop/handlers.c
tests_interop_handlers_CFLAGS = $(AM_CFLAGS) -Wno-unused-parameter

EXTRA_DIST += contrib/vlm-vm/startvm contrib/vlm-vm/README.txt \
	tests/contrib/test_startvm.py tests/contrib/startvm.txt tests/conftest.py tests/lab/pytap tests/lab/cmockatap tests/lab/__init__.py tests/lab/tap.py \
	tests/lab/wire.py tests/lab/pour.py tests/lab/ring.py tests/lab/peer.py tests/lab/driver.py tests/lab/frontend.py tests/lab/backend.py tests/lab/vhostpeer.py tests/lab/avip.py \
	tests/lab/frames.py tests/lab/proc.py tests/lab/ns.py tests/lab/testpmd.py tests/lab/guest.py tests/lab/qtest.py tests/lab/vtd.py tests/lab/ovs.py tests/lab/hugepages.py tests/lab/iommu.py tests/lab/inband.py \
	tests/lab/inflight.py tests/lab/dirtylog.py tests/lab/packedring.py tests/lab/test_packed.py tests/lab/suites.py tests/lab/served.py tests/lab/relay.py \
	tests/lab/test_peer.py tests/lab/test_testpmd.py tests/lab/test_guest.py tests/lab/test_ns.py

# QEMU and DPDK of other Debian releases, which are downloaded once (tests/lab/suites.py): about ten minutes a release.
PEER_SUITES = bullseye trixie
VERSION_TESTS = tests/lab/test_testpmd.py tests/interop/test_testpmd.py tests/interop/test_guest.py \
	tests/interop/test_rings.py tests/interop/test_queues.py tests/interop/test_memory.py \
	tests/interop/test_sequences.py tests/vlm/test_independent.py
interop-versions: all
	PD_BUILD=$(abs_builddir) /usr/bin/python3 $(srcdir)/tests/lab/suites.py $(PEER_SUITES) -- $(VERSION_TESTS:%=$(srcdir)/%)
.PHONY: interop-versions
