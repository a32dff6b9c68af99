# SPDX-License-Identifier: BSD-2-Clause
EXTRA_PROGRAMS += tests/bench/bounds tests/bench/clirate tests/bench/growth tests/bench/ring tests/bench/ring_unchecked tests/bench/ringend tests/bench/sockbench tests/bench/spike
tests_bench_bounds_SOURCES = tests/bench/bounds.c
# gcc makes a string instruction of a copy of unknown length, which takes longer.
tests_bench_bounds_CFLAGS = $(AM_CFLAGS) -fno-builtin-memcpy
tests_bench_bounds_LDADD =
tests_bench_clirate_SOURCES = tests/bench/clirate.c
tests_bench_clirate_LDADD =
tests_bench_growth_SOURCES = tests/bench/growth.c
tests_bench_growth_LDADD =
tests_bench_ringend_SOURCES = tests/bench/ringend.c
tests_bench_ringend_CFLAGS = $(AM_CFLAGS) -fno-builtin-memcpy
tests_bench_ringend_LDADD = libpd.la
tests_bench_spike_SOURCES = tests/bench/spike.c
tests_bench_spike_LDADD = libpd.la
tests_bench_batch_SOURCES = tests/bench/batch.c
tests_bench_batch_LDADD =
tests_bench_sockbench_SOURCES = tests/bench/sockbench.c
# The generator and the checker must not be what is measured.
tests_bench_sockbench_CFLAGS = $(AM_CFLAGS) -O3
tests_bench_sockbench_LDADD =
# The same without the tests of what the peer has written, so that their cost can be seen. It takes objects of its own instead
# of the library's.
EXTRA_PROGRAMS += tests/bench/ring_unchecked
tests_bench_ring_unchecked_SOURCES = tests/bench/ring.c src/libpalladium/transport/vhost/lane.c \
	src/libpalladium/virtio/device.c src/libpalladium/virtio/driver.c src/libpalladium/virtio/mem.c \
	src/libpalladium/virtio/vq.c src/libpalladium/virtio/walk.c
tests_bench_ring_unchecked_CPPFLAGS = $(AM_CPPFLAGS) -DPD_BENCH_UNCHECKED
tests_bench_ring_unchecked_LDADD = libpd.la
# Not a measurement of time, so it stands in check.
check_PROGRAMS += tests/bench/batch tests/bench/ring
tests_bench_ring_SOURCES = tests/bench/ring.c
tests_bench_ring_LDADD = libpd.la
TESTS += tests/bench/test_instructions.py
EXTRA_DIST += tests/bench/test_instructions.py tests/bench/instructions.txt
EXTRA_DIST += tests/bench/cli.py tests/bench/growth.py tests/bench/rings.py tests/bench/sockets.py tests/bench/spike.py tests/bench/steady.py tests/bench/validation.py

# Figures mean something on an otherwise idle machine only: two cores, both are used. `make bench` takes about an hour;
# BENCH_ROUNDS=1 gives a first look in a third of that.
BENCH_ROUNDS = 3
BENCH_NEEDS = tests/bench/bounds tests/bench/clirate tests/bench/growth tests/bench/ring tests/bench/ring_unchecked tests/bench/ringend tests/bench/sockbench tests/bench/spike
BENCH_RUN = PD_BUILD='$(abs_builddir)' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 $(srcdir)/tests/bench
.PHONY: bench bench-cli bench-rings bench-sockets bench-growth bench-spike bench-validation
bench: bench-spike bench-cli bench-rings bench-validation bench-sockets bench-growth
bench-spike: all $(BENCH_NEEDS)
	tests/bench/spike cost
	$(BENCH_RUN)/spike.py --rounds $(BENCH_ROUNDS) $(BENCH_FLAGS)
bench-cli: all $(BENCH_NEEDS)
	$(BENCH_RUN)/cli.py --rounds $$((3 * $(BENCH_ROUNDS))) $(BENCH_FLAGS)
bench-rings: all $(BENCH_NEEDS)
	$(BENCH_RUN)/rings.py --rounds $(BENCH_ROUNDS) $(BENCH_FLAGS)
bench-validation: all $(BENCH_NEEDS)
	$(BENCH_RUN)/validation.py $(BENCH_FLAGS)
bench-sockets: all $(BENCH_NEEDS)
	$(BENCH_RUN)/sockets.py --rounds $(BENCH_ROUNDS) $(BENCH_FLAGS)
bench-growth: all $(BENCH_NEEDS)
	$(BENCH_RUN)/growth.py --rounds $$((5 * $(BENCH_ROUNDS))) $(BENCH_FLAGS)
