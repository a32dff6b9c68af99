# SPDX-License-Identifier: BSD-2-Clause
SOCK_TESTS = tests/sock/test_life.py tests/sock/test_options.py \
	tests/sock/test_packet.py tests/sock/test_rules.py
TESTS += $(SOCK_TESTS)
EXTRA_DIST += $(SOCK_TESTS) tests/sock/conftest.py tests/sock/sockutil.py tests/sock/prelude.py
