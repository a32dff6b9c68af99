# SPDX-License-Identifier: BSD-2-Clause
TESTS += tests/plugin/test_plugin.py
EXTRA_DIST += tests/plugin/test_plugin.py
