# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/counters/test_counters
TESTS += tests/unit/counters/test_counters
endif
tests_unit_counters_test_counters_SOURCES = tests/unit/counters/test_counters.c
tests_unit_counters_test_counters_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_counters_test_counters_LDADD = $(PD_UNIT_LIBS)
