# SPDX-License-Identifier: BSD-2-Clause
check_PROGRAMS += tests/fuzz/rings
TESTS += tests/fuzz/rings
tests_fuzz_rings_SOURCES = tests/fuzz/rings.c
tests_fuzz_rings_LDADD = libpd.la -lpthread
