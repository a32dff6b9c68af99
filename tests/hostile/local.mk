# SPDX-License-Identifier: BSD-2-Clause
HOSTILE_TESTS = tests/hostile/test_messages.py tests/hostile/test_rings.py tests/hostile/test_holes.py tests/hostile/test_foreign.py \
	tests/hostile/test_completions.py tests/hostile/test_kill.py tests/hostile/test_paths.py tests/hostile/test_replies.py \
	tests/hostile/test_changes.py tests/hostile/test_peers.py tests/hostile/test_shares.py tests/hostile/test_sleepers.py \
	tests/hostile/test_fuzz.py tests/hostile/test_packed.py tests/hostile/test_stale.py tests/hostile/test_access.py \
	tests/hostile/test_iotlb.py tests/hostile/test_state.py
HOSTILE_TESTS += tests/hostile/test_dirty.py
HOSTILE_TESTS += tests/hostile/test_inflight.py tests/hostile/test_kept.py tests/hostile/test_killed.py
HOSTILE_TESTS += tests/hostile/test_sigbus.py tests/hostile/test_old_device.py
HOSTILE_TESTS += tests/hostile/test_translations.py
HOSTILE_TESTS += tests/hostile/test_inband.py tests/hostile/test_errors.py \
	tests/hostile/test_reconnect.py
TESTS += $(HOSTILE_TESTS)
EXTRA_DIST += $(HOSTILE_TESTS) tests/hostile/__init__.py tests/hostile/victim.py tests/hostile/cycles.py tests/hostile/soak.py

PD_PYTEST = PD_BUILD=$(abs_builddir) PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -p no:cacheprovider -v -x

# Peers killed a thousand times in each of eight ways, our own programs in each of ten, and every attack a thousand times: about half an
# hour on a machine of its own, in pieces. soak.log of the build folder has what each came to; soak.py says what the variables are.
SOAK_CYCLES = 1000
SOAK_SECONDS = 45
soak: all
	SOAK_CYCLES=$(SOAK_CYCLES) SOAK_SECONDS=$(SOAK_SECONDS) SOAK_RUN='$(SOAK_RUN)' SOAK_TESTS='$(SOAK_TESTS)' PD_BUILD=$(abs_builddir) \
		PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 $(srcdir)/tests/hostile/soak.py
.PHONY: soak

# Meets memory that is gone in all the states that a thread can be in.
check_PROGRAMS += tests/hostile/faults
tests_hostile_faults_SOURCES = tests/hostile/faults.c
tests_hostile_faults_CFLAGS = $(AM_CFLAGS) -Wno-unused-parameter
tests_hostile_faults_LDADD = -lpthread

# The list of what a hostile peer sends, with the test of each item; what may be wrong anywhere; all of it again and again.
HOSTILE_LIST_TESTS = tests/hostile/test_list.py tests/hostile/test_any.py tests/hostile/test_again.py tests/hostile/test_repeated.py
TESTS += $(HOSTILE_LIST_TESTS)
EXTRA_DIST += $(HOSTILE_LIST_TESTS)
