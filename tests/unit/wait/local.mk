# SPDX-License-Identifier: BSD-2-Clause
pd_wait_tests = tests/unit/wait/test_epoll_stress tests/unit/wait/test_wait
if HAVE_CMOCKA
check_PROGRAMS += $(pd_wait_tests)
TESTS += $(pd_wait_tests)
endif
tests_unit_wait_test_epoll_stress_SOURCES = tests/unit/wait/test_epoll_stress.c tests/unit/wait/stub.h
tests_unit_wait_test_epoll_stress_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_wait_test_epoll_stress_LDADD = $(PD_UNIT_LIBS) -lpthread
tests_unit_wait_test_wait_SOURCES = tests/unit/wait/test_wait.c tests/unit/wait/stub.h
tests_unit_wait_test_wait_CFLAGS = $(PD_UNIT_CFLAGS)
tests_unit_wait_test_wait_LDADD = $(PD_UNIT_LIBS) -lpthread
