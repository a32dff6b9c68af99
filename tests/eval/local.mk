# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/eval/test_parts
TESTS += tests/eval/test_parts
endif
tests_eval_test_parts_SOURCES = tests/eval/test_parts.c
tests_eval_test_parts_CFLAGS = $(PD_UNIT_CFLAGS) $(JANSSON_CFLAGS) -I$(top_srcdir)/src
tests_eval_test_parts_LDADD = libeval.la $(PD_UNIT_LIBS) $(JANSSON_LIBS)
TESTS += tests/eval/test_eval.py
EXTRA_DIST += tests/eval/test_eval.py
