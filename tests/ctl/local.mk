# SPDX-License-Identifier: BSD-2-Clause
TESTS += tests/ctl/test_ctl.py
EXTRA_DIST += tests/ctl/test_ctl.py
