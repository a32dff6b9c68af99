# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/config/test_vars
TESTS += tests/unit/config/test_vars
endif
tests_unit_config_test_vars_SOURCES = tests/unit/config/test_vars.c
tests_unit_config_test_vars_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_vars_LDADD = $(PD_UNIT_LIBS)
