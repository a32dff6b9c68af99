# SPDX-License-Identifier: BSD-2-Clause
SOCK_TESTS = tests/sock/test_cancel.py tests/sock/test_ending.py tests/sock/test_exceptions.py tests/sock/test_exclusive.py tests/sock/test_exit.py tests/sock/test_harmless.py tests/sock/test_life.py tests/sock/test_log.py tests/sock/test_memory.py tests/sock/test_options.py \
	tests/sock/test_packet.py tests/sock/test_rules.py tests/sock/test_counters.py tests/sock/test_interfaces.py \
	tests/sock/test_moderation.py tests/sock/test_several.py tests/sock/test_sidecar.py tests/sock/test_tuning.py tests/sock/test_two.py tests/sock/test_vnet.py tests/sock/test_wait.py
TESTS += $(SOCK_TESTS)
EXTRA_DIST += $(SOCK_TESTS) tests/sock/async.c tests/sock/cancel.c tests/sock/exclusive.c tests/sock/exiting.c tests/sock/jump.c tests/sock/pair.h tests/sock/sleeps.h tests/sock/conftest.py tests/sock/sockutil.py tests/sock/prelude.py

# The muddle of threads: as a program for the preload, and linked to the library for the sanitizers.
check_PROGRAMS += tests/sock/stress tests/sock/stress_direct
TESTS += tests/sock/stress_direct
tests_sock_stress_SOURCES = tests/sock/stress.c tests/sock/raw.h
tests_sock_stress_CFLAGS = $(AM_CFLAGS) -Wno-unused-parameter
tests_sock_stress_LDADD = -lpthread
tests_sock_stress_direct_SOURCES = tests/sock/stress.c tests/sock/direct.h tests/sock/raw.h
tests_sock_stress_direct_CPPFLAGS = $(AM_CPPFLAGS) -DSTRESS_DIRECT
tests_sock_stress_direct_CFLAGS = $(AM_CFLAGS) -Wno-unused-parameter -Wno-unused-value
tests_sock_stress_direct_LDADD = libpd.la -lpthread

# Claims the numbers of the library's own descriptors.
TESTS += tests/sock/test_claim.py
EXTRA_DIST += tests/sock/test_claim.py
check_PROGRAMS += tests/sock/claim
tests_sock_claim_SOURCES = tests/sock/claim.c tests/sock/raw.h
tests_sock_claim_LDADD = -lpthread
