# SPDX-License-Identifier: BSD-2-Clause
EXTRA_DIST += tests/model/check.sh tests/model/exclusive.pml tests/model/marks.pml tests/model/takeover.pml tests/model/waiting.pml
TESTS += tests/model/check.sh

.PHONY: model-check model-check-full
model-check:
	CC='$(CC)' $(srcdir)/tests/model/check.sh
model-check-full:
	CC='$(CC)' $(srcdir)/tests/model/check.sh full
