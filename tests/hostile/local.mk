# SPDX-License-Identifier: BSD-2-Clause
HOSTILE_TESTS = tests/hostile/test_messages.py tests/hostile/test_rings.py tests/hostile/test_holes.py \
	tests/hostile/test_completions.py tests/hostile/test_kill.py tests/hostile/test_paths.py tests/hostile/test_replies.py \
	tests/hostile/test_changes.py tests/hostile/test_peers.py tests/hostile/test_sleepers.py \
	tests/hostile/test_fuzz.py tests/hostile/test_packed.py tests/hostile/test_stale.py tests/hostile/test_access.py \
	tests/hostile/test_iotlb.py tests/hostile/test_state.py
TESTS += $(HOSTILE_TESTS)
EXTRA_DIST += $(HOSTILE_TESTS) tests/hostile/__init__.py tests/hostile/victim.py

# Peers killed a thousand times in each of five ways: about four minutes. SOAK_CYCLES: how often.
SOAK_CYCLES = 1000
PD_PYTEST = PD_BUILD=$(abs_builddir) PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -p no:cacheprovider -v -x
soak: all
	PD_CYCLES=$(SOAK_CYCLES) $(PD_PYTEST) -s $(srcdir)/tests/hostile/test_kill.py

# Random peers. Best in a build with --enable-asan. FUZZ_SEEDS: connections to whole programs, of each kind;
# rings get a thousand times as many. FUZZ_FIRST: the first seed, as a failure names it.
FUZZ_SEEDS = 2000
FUZZ_FIRST = 100000
fuzz: all tests/fuzz/rings
	srcdir=$(abs_top_srcdir) tests/fuzz/rings $(FUZZ_FIRST) $(FUZZ_SEEDS)000
	srcdir=$(abs_top_srcdir) tests/fuzz/rings $(FUZZ_FIRST) $(FUZZ_SEEDS)0 race
	PD_FIRST_SEED=$(FUZZ_FIRST) PD_SEEDS=$(FUZZ_SEEDS) PD_TIMEOUT_SCALE=4 $(PD_PYTEST) $(srcdir)/tests/hostile/test_fuzz.py
.PHONY: soak fuzz
