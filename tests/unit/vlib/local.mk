# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/vlib/test_buffer tests/unit/vlib/test_progress
TESTS += tests/unit/vlib/test_buffer tests/unit/vlib/test_progress
endif
tests_unit_vlib_test_buffer_SOURCES = tests/unit/vlib/test_buffer.c
tests_unit_vlib_test_buffer_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_buffer_LDADD = $(PD_UNIT_LIBS)
tests_unit_vlib_test_progress_SOURCES = tests/unit/vlib/test_progress.c
tests_unit_vlib_test_progress_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_vlib_test_progress_LDADD = $(PD_UNIT_LIBS)
