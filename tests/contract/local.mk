# SPDX-License-Identifier: BSD-2-Clause
if HAVE_CMOCKA
check_PROGRAMS += tests/contract/contract
TESTS += tests/contract/contract
endif
tests_contract_contract_SOURCES = tests/contract/contract.c tests/contract/contract.h \
	tests/contract/contract_frames.c tests/contract/contract_links.c tests/contract/contract_rig.c \
	tests/contract/contract_waiting.c
tests_contract_contract_CFLAGS = $(PD_UNIT_CFLAGS)
tests_contract_contract_LDADD = $(PD_UNIT_LIBS)
