# SPDX-License-Identifier: BSD-2-Clause
check_PROGRAMS += tests/stats/publisher
tests_stats_publisher_SOURCES = tests/stats/publisher.c
tests_stats_publisher_LDADD = libpd.la
TESTS += tests/stats/test_stats.py
EXTRA_DIST += tests/stats/test_stats.py
