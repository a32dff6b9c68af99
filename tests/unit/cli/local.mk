# SPDX-License-Identifier: BSD-2-Clause
pd_cli_tests = tests/unit/cli/test_cli tests/unit/cli/test_server tests/unit/cli/test_telnet
if HAVE_CMOCKA
check_PROGRAMS += $(pd_cli_tests)
TESTS += $(pd_cli_tests)
endif
tests_unit_cli_test_cli_SOURCES = tests/unit/cli/test_cli.c
tests_unit_cli_test_cli_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_cli_test_cli_LDADD = $(PD_UNIT_LIBS)
tests_unit_cli_test_server_SOURCES = tests/unit/cli/test_server.c tests/unit/cli/rig.h tests/unit/base/linger.h
tests_unit_cli_test_server_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_cli_test_server_LDADD = $(PD_UNIT_LIBS)
tests_unit_cli_test_telnet_SOURCES = tests/unit/cli/test_telnet.c tests/unit/cli/rig.h tests/unit/base/ahead.h
tests_unit_cli_test_telnet_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_cli_test_telnet_LDADD = $(PD_UNIT_LIBS)
