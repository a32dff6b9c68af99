# SPDX-License-Identifier: BSD-2-Clause
EXTRA_PROGRAMS += tests/bench/batch tests/bench/bounds tests/bench/growth tests/bench/ringend tests/bench/sockbench tests/bench/spike
tests_bench_bounds_SOURCES = tests/bench/bounds.c
tests_bench_bounds_LDADD =
tests_bench_growth_SOURCES = tests/bench/growth.c
tests_bench_growth_LDADD =
tests_bench_ringend_SOURCES = tests/bench/ringend.c
tests_bench_ringend_LDADD = libpd.la
tests_bench_spike_SOURCES = tests/bench/spike.c
tests_bench_spike_LDADD = libpd.la
tests_bench_batch_SOURCES = tests/bench/batch.c
tests_bench_batch_LDADD =
tests_bench_sockbench_SOURCES = tests/bench/sockbench.c
# The generator and the checker must not be what is measured.
tests_bench_sockbench_CFLAGS = $(AM_CFLAGS) -O3
tests_bench_sockbench_LDADD =
EXTRA_DIST += tests/bench/growth.py tests/bench/rings.py tests/bench/sockets.py tests/bench/spike.py

# Figures mean something on an otherwise idle machine only: two cores, both are used.
.PHONY: bench
bench: all tests/bench/sockbench tests/bench/spike
	tests/bench/spike cost
	PD_BUILD='$(abs_builddir)' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 $(srcdir)/tests/bench/spike.py
	PD_BUILD='$(abs_builddir)' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 $(srcdir)/tests/bench/sockets.py $(BENCH_FLAGS)
