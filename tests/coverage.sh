#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How much of the vhost-user code the unit tests, the contract and the fuzzers' corpora run, in lines per file. Run in a build folder,
# with $srcdir; coverage/ there has a build of its own, made by COVERAGE_JOBS. Exit status 1 when a file that handles messages is below
# 90 %.
set -u
srcdir=$(cd "${srcdir:-$(dirname "$0")/..}" && pwd) || exit 1
least=90
# These handle no messages.
others='^(area|dial|eventfd|guard|lane|path|role|sink|vhost)\.c$'
unset CC CXX CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS
mkdir -p coverage && cd coverage || exit 1
if [ ! -e Makefile ]; then
	echo "configuring coverage/"
	"$srcdir/configure" --enable-assert CFLAGS='-O0 -g --coverage' LDFLAGS=--coverage >configure.log 2>&1 || { tail configure.log; exit 1; }
fi
find . -name '*.gcda' -delete
tests=$(cd "$srcdir" && ls tests/unit/vhost/test_*.c tests/contract/contract.c tests/fuzz/vhost.c | sed "s/\.c$//")
# shellcheck disable=SC2086
make -j"${COVERAGE_JOBS:-$(nproc)}" $tests >build.log 2>&1 || { grep -E 'error|\*\*\*' build.log; exit 1; }
make check-TESTS TESTS="$(echo $tests)" >tests.log 2>&1 || { grep -E '^(FAIL|ERROR)' tests.log; echo "(these tests failed)"; }

bad=0
for file in "$srcdir"/src/libpalladium/transport/vhost/*.c; do
	name=$(basename "$file")
	data=$(find src -name "${name%.c}.gcda" -path '*transport/vhost*' -size +0 | head -n 1)
	percent=0.00 lines='?'
	[ -z "$data" ] || read -r percent lines < <(gcov -n "$data" 2>/dev/null |
		grep -A1 "^File '.*transport/vhost/$name'" | sed -n 's/^Lines executed:\([0-9.]*\)% of \([0-9]*\).*/\1 \2/p')
	mark=
	if [[ $name =~ $others ]]; then
		mark='(no messages)'
	elif [ "${percent%.*}" -lt "$least" ]; then
		mark="below $least %" bad=1
	fi
	printf '%6s %% of %4s lines  %-20s %s\n' "$percent" "$lines" "$name" "$mark"
done
exit $bad
