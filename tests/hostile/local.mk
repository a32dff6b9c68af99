# SPDX-License-Identifier: BSD-2-Clause
HOSTILE_TESTS = tests/hostile/test_messages.py tests/hostile/test_rings.py tests/hostile/test_holes.py
TESTS += $(HOSTILE_TESTS)
EXTRA_DIST += $(HOSTILE_TESTS) tests/hostile/__init__.py tests/hostile/victim.py
