# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/config/test_vars tests/unit/config/test_conf
TESTS += tests/unit/config/test_vars tests/unit/config/test_conf
endif
tests_unit_config_test_vars_SOURCES = tests/unit/config/test_vars.c
tests_unit_config_test_vars_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_vars_LDADD = $(PD_UNIT_LIBS)
tests_unit_config_test_conf_SOURCES = tests/unit/config/test_conf.c
tests_unit_config_test_conf_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_conf_LDADD = $(PD_UNIT_LIBS)

# The tables of variables in README.txt and libpalladium.conf(5).
check_PROGRAMS += tests/unit/config/vars_table
tests_unit_config_vars_table_SOURCES = tests/unit/config/vars_table.c
tests_unit_config_vars_table_LDADD = libpd.la
TESTS += tests/check_readme_vars.sh tests/check_vars_used.sh
EXTRA_DIST += tests/check_readme_vars.sh tests/check_vars_used.sh
.PHONY: readme-vars
readme-vars: tests/unit/config/vars_table$(EXEEXT)
	srcdir='$(srcdir)' builddir='$(builddir)' $(SHELL) '$(srcdir)/tests/check_readme_vars.sh' --write
