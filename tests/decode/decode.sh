#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The pytest files of this folder as one TAP test; skipped where pytest is not installed.
here=$(cd "$(dirname "$0")" && pwd) || exit 99
PD_BUILD=${PD_BUILD:-${builddir:-.}}
export PD_BUILD
for py in pytest-3 pytest; do
	if command -v $py >/dev/null 2>&1; then
		echo "1..1"
		if out=$($py -q -p no:cacheprovider "$here" 2>&1); then
			echo "ok 1 - palladium_decode"
		else
			echo "not ok 1 - palladium_decode"
		fi
		echo "$out" | sed 's/^/# /'
		exit 0
	fi
done
echo "1..0 # SKIP pytest is not installed"
