# SPDX-License-Identifier: BSD-2-Clause
EXTRA_DIST += tests/sock/conftest.py tests/sock/sockutil.py tests/sock/prelude.py \
	tests/sock/test_life.py tests/sock/test_options.py \
	tests/sock/test_packet.py tests/sock/test_rules.py
