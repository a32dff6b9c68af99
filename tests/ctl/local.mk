# SPDX-License-Identifier: BSD-2-Clause
check_PROGRAMS += tests/ctl/handoffdemo
TESTS += tests/ctl/test_ctl.py tests/ctl/test_handoff.py
EXTRA_DIST += tests/ctl/test_ctl.py tests/ctl/test_handoff.py
tests_ctl_handoffdemo_SOURCES = tests/ctl/handoffdemo.c
tests_ctl_handoffdemo_LDADD = libpd.la
