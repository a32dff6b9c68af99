# SPDX-License-Identifier: BSD-2-Clause
CONFIG_TESTS = tests/unit/config/test_vars tests/unit/config/test_conf_ports \
	tests/unit/config/test_conf_rules tests/unit/config/test_conf_files tests/unit/config/test_path
if HAVE_CMOCKA
check_PROGRAMS += $(CONFIG_TESTS)
TESTS += $(CONFIG_TESTS)
endif
tests_unit_config_test_vars_SOURCES = tests/unit/config/test_vars.c
tests_unit_config_test_vars_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_vars_LDADD = $(PD_UNIT_LIBS)
CONF_RIG = tests/unit/config/conf_rig.c tests/unit/config/conf_rig.h
tests_unit_config_test_conf_ports_SOURCES = tests/unit/config/test_conf_ports.c $(CONF_RIG)
tests_unit_config_test_conf_ports_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_conf_ports_LDADD = $(PD_UNIT_LIBS)
tests_unit_config_test_conf_rules_SOURCES = tests/unit/config/test_conf_rules.c $(CONF_RIG)
tests_unit_config_test_conf_rules_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_conf_rules_LDADD = $(PD_UNIT_LIBS)
tests_unit_config_test_conf_files_SOURCES = tests/unit/config/test_conf_files.c $(CONF_RIG)
tests_unit_config_test_conf_files_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_conf_files_LDADD = $(PD_UNIT_LIBS)
tests_unit_config_test_path_SOURCES = tests/unit/config/test_path.c
tests_unit_config_test_path_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_config_test_path_LDADD = $(PD_UNIT_LIBS) -lpthread

# The tables of variables in README.txt and libpalladium.conf(5).
check_PROGRAMS += tests/unit/config/vars_table
tests_unit_config_vars_table_SOURCES = tests/unit/config/vars_table.c
tests_unit_config_vars_table_LDADD = libpd.la
TESTS += tests/check_readme_vars.sh tests/check_vars_used.sh
EXTRA_DIST += tests/check_readme_vars.sh tests/check_vars_used.sh
.PHONY: readme-vars
readme-vars: tests/unit/config/vars_table$(EXEEXT)
	srcdir='$(srcdir)' builddir='$(builddir)' $(SHELL) '$(srcdir)/tests/check_readme_vars.sh' --write
