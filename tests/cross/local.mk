# SPDX-License-Identifier: BSD-2-Clause
# --- other architectures ---------------------------------------------------------------------
TESTS += tests/cross/test_aarch64.py
EXTRA_DIST += tests/cross/test_aarch64.py tests/cross/calls.c
