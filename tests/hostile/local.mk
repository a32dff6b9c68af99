# SPDX-License-Identifier: BSD-2-Clause
HOSTILE_TESTS = tests/hostile/test_messages.py tests/hostile/test_rings.py tests/hostile/test_holes.py \
	tests/hostile/test_completions.py tests/hostile/test_kill.py tests/hostile/test_paths.py tests/hostile/test_replies.py \
	tests/hostile/test_changes.py tests/hostile/test_peers.py tests/hostile/test_sleepers.py
TESTS += $(HOSTILE_TESTS)
EXTRA_DIST += $(HOSTILE_TESTS) tests/hostile/__init__.py tests/hostile/victim.py

# Peers killed a thousand times in each way: some minutes.
soak: all
	PD_BUILD=$(abs_builddir) PD_CYCLES=1000 PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest \
		-p no:cacheprovider -q $(srcdir)/tests/hostile/test_kill.py
.PHONY: soak
