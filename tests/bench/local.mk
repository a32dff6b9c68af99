# SPDX-License-Identifier: BSD-2-Clause
EXTRA_PROGRAMS += tests/bench/sockbench
tests_bench_sockbench_SOURCES = tests/bench/sockbench.c
tests_bench_sockbench_LDADD =
EXTRA_DIST += tests/bench/sockets.py

# Figures mean something on an otherwise idle machine only: two cores, both are used.
.PHONY: bench
bench: libpalladium.la tests/bench/sockbench
	PD_BUILD='$(abs_builddir)' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 $(srcdir)/tests/bench/sockets.py $(BENCH_FLAGS)
