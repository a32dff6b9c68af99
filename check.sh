#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Install what the tests need and run them all.
#
#   ./check.sh            everything (about half an hour on two cores)
#   ./check.sh --quick    the gcc build, its unit tests and the whole-program tests without peers
#
# Each step builds in a folder of its own under build-check/ and logs there. The last line is
# "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")" || exit 1
quick=false
case ${1-} in
'') ;;
--quick) quick=true ;;
-h | --help) sed -n '3,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) echo "check.sh: unknown option '$1' (try --help)" >&2; exit 2 ;;
esac

export LC_ALL=C.UTF-8
top=$PWD
work=$top/build-check
jobs=$(nproc)
passed=0 failed=0 skipped=0
started=$SECONDS

# Say what is going on, with the minutes since the start.
say() { printf '[%2d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*"; }

# A step that is not a test failed: count it, show the end of its log.
broken() { # name log
	failed=$((failed + 1))
	say "FAILED: $1"
	tail -n 30 "$2" | sed 's/^/    /'
}

finish() {
	say "done"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ]
	exit
}

# Configure and build in build-check/NAME. Arguments: name, then configure's.
build() {
	local name=$1
	shift
	say "build $name: configure $*"
	mkdir -p "$work/$name"
	(cd "$work/$name" && "$top/configure" "$@" --enable-werror && make -j"$jobs" all) \
		>"$work/$name.build.log" 2>&1 || { broken "build $name" "$work/$name.build.log"; return 1; }
}

# make check in build-check/NAME; counts the lines of automake's summary.
unit() {
	local name=$1 log=$work/$1.check.log
	say "unit tests, $name"
	(cd "$work/$name" && make -j"$jobs" check) >"$log" 2>&1
	local status=$?
	local ok bad skip
	ok=$(sed -n 's/^# PASS: *//p' "$log" | tail -n 1)
	skip=$(sed -n 's/^# SKIP: *//p' "$log" | tail -n 1)
	bad=$(($(sed -n 's/^# FAIL: *//p' "$log" | tail -n 1) + $(sed -n 's/^# ERROR: *//p' "$log" | tail -n 1)))
	if [ -z "$ok" ]; then
		broken "unit tests, $name: no summary" "$log"
		return
	fi
	passed=$((passed + ok)) skipped=$((skipped + skip)) failed=$((failed + bad))
	say "  $ok passed, $bad failed, $skip skipped"
	grep -E '^(FAIL|ERROR)' "$log" | head -n 20 | sed 's/^/    /'
	if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
		broken "unit tests, $name: make check" "$log"
	fi
}

# pytest over the given paths, against the build in build-check/NAME.
whole() {
	local name=$1 title=$2
	shift 2
	local log=$work/$name.${title// /-}.log
	say "$title, $name"
	PD_BUILD=$work/$name PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -p no:cacheprovider -q -rfEs "$@" \
		>"$log" 2>&1
	local status=$? last ok bad skip err
	last=$(tail -n 1 "$log")
	ok=$(grep -oE '[0-9]+ passed' <<<"$last" | cut -d' ' -f1)
	bad=$(grep -oE '[0-9]+ failed' <<<"$last" | cut -d' ' -f1)
	skip=$(grep -oE '[0-9]+ skipped' <<<"$last" | cut -d' ' -f1)
	err=$(grep -oE '[0-9]+ error' <<<"$last" | cut -d' ' -f1)
	if [ "$status" -gt 1 ] || [ -z "$ok$bad$skip$err" ]; then
		broken "$title, $name" "$log"
		return
	fi
	passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-0} + ${err:-0})) skipped=$((skipped + ${skip:-0}))
	say "  ${ok:-0} passed, $((${bad:-0} + ${err:-0})) failed, ${skip:-0} skipped"
	grep -E '^(FAILED|ERROR|SKIPPED)' "$log" | sed 's/^/    /'
}

# Tests of tests/NAME that are there: a folder without test files is left out.
folders() {
	for folder; do
		ls "tests/$folder"/test_*.py >/dev/null 2>&1 && echo "tests/$folder"
	done
}

rm -rf "$work"
mkdir -p "$work"
contrib/packages.sh build test || finish_early=1
[ -z "${finish_early-}" ] || { failed=1; finish; }
say "autogen"
./autogen.sh >"$work/autogen.log" 2>&1 || { broken autogen "$work/autogen.log"; finish; }

if build gcc --enable-assert; then
	unit gcc
	whole gcc "whole programs" $(folders decode stats preload vlm sock hostile)
	$quick || whole gcc "independent peers" $(folders lab interop)
fi
$quick && finish

build clang --enable-assert CC=clang CXX=clang++
if build asan --enable-asan CFLAGS='-O1 -g'; then
	unit asan
fi
if build tsan --enable-tsan CFLAGS='-O1 -g'; then
	unit tsan
fi
say "make distcheck"
(cd "$work/gcc" && make -j"$jobs" distcheck AM_DISTCHECK_CONFIGURE_FLAGS= DISTCHECK_CHECK=) >"$work/distcheck.log" 2>&1 &&
	passed=$((passed + 1)) || broken "make distcheck" "$work/distcheck.log"
finish
