# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/counters/test_counters tests/unit/counters/test_reader
TESTS += tests/unit/counters/test_counters tests/unit/counters/test_reader
endif
tests_unit_counters_test_counters_SOURCES = tests/unit/counters/test_counters.c
tests_unit_counters_test_counters_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_counters_test_counters_LDADD = $(PD_UNIT_LIBS)
# palladium_stats's own reader, of what the library writes meanwhile.
tests_unit_counters_test_reader_SOURCES = tests/unit/counters/test_reader.c src/stats/reader.c
tests_unit_counters_test_reader_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_counters_test_reader_LDADD = $(PD_UNIT_LIBS)
