#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Install what the tests need and run them all.
#
#   ./check.sh            everything (about 30 minutes on two cores)
#   ./check.sh --quick    one build, its unit tests, the whole-program tests without independent peers
#
# gcc, clang, AddressSanitizer and ThreadSanitizer builds, each with its tests, and make distcheck.
# Each build has a folder of its own under build-check/, beside which its logs stand. A test file in
# Python is one of make check's tests (tests/lab/pytap). The last line is
# "N passed, N failed, N skipped"; the exit status is 0 when nothing failed.
set -u
case ${1-} in
'') quick=false ;;
--quick) quick=true ;;
-h | --help) sed -n '3,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) echo "check.sh: unknown option '$1' (try --help)" >&2; exit 2 ;;
esac
cd "$(dirname "$0")" || exit 1

export LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
# Debian's tools, whatever else is in front; and nothing of the caller's changes what is tested.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset MAKEFLAGS CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS LD_PRELOAD PD_LEAVE_OUT PD_SLOW_TESTS
for name in ${!PALLADIUM_*}; do unset "$name"; done
top=$PWD
work=$top/build-check
jobs=$(nproc)
limit=40m # for one make check, far above what it takes: a test that hangs is named by the lack of its verdict
export PD_TIMEOUT_SCALE=4 # a busy machine is not a failure
passed=0 failed=0 skipped=0

# Say what is going on, with the minutes since the start.
say() { printf '[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

# A step that is not a test failed: count it, name its log and show the log's end.
broken() { # name log
	failed=$((failed + 1))
	say "FAILED: $1 (log: ${2#"$top/"})"
	tail -n 30 "$2" | sed 's/^/    /'
}

finish() {
	say "done"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ]
	exit
}

# Nothing that was started in the background outlives the script.
background=
trap '[ -z "$background" ] || kill -- -"$background" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Configure and build in build-check/NAME with JOBS jobs. Arguments: jobs, name, then configure's.
make_build() {
	local jobs=$1 name=$2
	shift 2
	mkdir -p "$work/$name"
	(cd "$work/$name" && "$top/configure" --enable-werror "$@" && make -j"$jobs" all) \
		>"$work/$name.build.log" 2>&1
}

# Compile in build-check/NAME what make check would run.
make_tests() {
	(cd "$work/$1" && make check TESTS=) >>"$work/$1.build.log" 2>&1
}

# The builds that are made while the first one's tests run, what is short of the guided fuzzers, and how much of what handles messages
# is covered: those tests leave a core idle for much of the time.
make_builds() {
	local name
	for name in asan tsan clang fuzz coverage; do
		case $name in
		clang) make_build 1 clang --enable-assert CC=clang CXX=clang++ && make_tests clang ;;
		fuzz) make -C "$work/clang" fuzz-smoke FUZZ_JOBS=1 >"$work/fuzz.build.log" 2>&1 ;;
		coverage) COVERAGE_JOBS=1 make -C "$work/clang" coverage >"$work/coverage.build.log" 2>&1 ;;
		*) make_build 1 "$name" "--enable-$name" CFLAGS='-O1 -g' ;;
		esac
		echo $? >"$work/$name.status"
	done
}

# The background's verdict on the build NAME.
built() {
	if [ "$(cat "$work/$1.status" 2>/dev/null)" = 0 ]; then
		passed=$((passed + 1))
	else
		broken "build $1" "$work/$1.build.log"
		return 1
	fi
}

# The number behind "# WORD:" in automake's last summary in a log; nothing when there is none.
summary() { sed -n "s/^# $1: *//p" "$2" | tail -n 1; }

# make check in build-check/NAME; adds up automake's summary. Arguments: name, what for, make's.
check() {
	local name=$1 title=$2 log=$work/$1.check.log status ok bad skip
	shift 2
	say "tests, $title"
	(cd "$work/$name" && timeout --kill-after=30 "$limit" make -k -j"$jobs" check "$@") >"$log" 2>&1
	status=$?
	ok=$(summary PASS "$log") skip=$(summary SKIP "$log")
	if [ -z "$ok" ]; then
		broken "tests, $title: no summary" "$log"
		return
	fi
	bad=$(($(summary FAIL "$log") + $(summary ERROR "$log") + $(summary XPASS "$log")))
	passed=$((passed + ok)) skipped=$((skipped + skip)) failed=$((failed + bad))
	say "  $ok passed, $bad failed, $skip skipped"
	grep -E '^SKIP: ' "$log" | sed 's/^/    /'
	if [ "$bad" != 0 ]; then
		grep -E '^(FAIL|ERROR|XPASS): ' "$log" | sed 's/^/    /'
		grep -E '^(FAIL|ERROR|XPASS): ' "$log" | sed 's/^[A-Z]*: \([^ ]*\).*/\1/; s/\.\(py\|sh\)$//' | sort -u |
			sed "s,.*,    log: build-check/$name/&.log,"
	elif [ "$status" != 0 ]; then
		broken "tests, $title: make check" "$log"
	fi
}

# Every test file in Python has been run by make check, or it is forgotten in a local.mk.
forgotten() {
	local file
	find tests -name 'test_*.py' | sort >"$work/python.log"
	while read -r file; do
		[ -e "$work/gcc/${file%.py}.log" ] || echo "$file is not among TESTS"
	done <"$work/python.log" >"$work/forgotten.log"
	[ ! -s "$work/forgotten.log" ] && passed=$((passed + 1)) || broken "every test is run" "$work/forgotten.log"
}

rm -rf "$work" || exit 1
mkdir -p "$work" || exit 1
say "packages"
contrib/packages.sh build test || { failed=1; finish; }
say "autogen"
./autogen.sh >"$work/autogen.log" 2>&1 || { broken autogen "$work/autogen.log"; finish; }

say "build, gcc"
make_build "$jobs" gcc --enable-assert || { broken "build gcc" "$work/gcc.build.log"; finish; }
passed=$((passed + 1))
if $quick; then
	export PD_LEAVE_OUT="lab interop hostile contrib"
	check gcc gcc
	finish
fi

set -m
make_builds &
background=$!
set +m
PD_SLOW_TESTS=1 check gcc gcc
forgotten
say "builds with AddressSanitizer, ThreadSanitizer and clang"
wait "$background"
background=
built clang
built fuzz
built coverage
if git rev-parse --git-dir >/dev/null 2>&1; then
	make -C "$work/gcc" format-check >"$work/format.log" 2>&1 && passed=$((passed + 1)) || broken "make format-check" "$work/format.log"
fi
# The lab's own tests and the models run nothing of ours: once is enough.
export PD_LEAVE_OUT="lab model"
built asan && check asan AddressSanitizer
built tsan && check tsan ThreadSanitizer

# What is in the tarball builds and passes its own tests, of those in Python what is quick; the others have been run often enough.
say "make distcheck"
leave_out="lab model interop hostile contrib sock queues bench cross vlm eval"
if (cd "$work/gcc" && PD_LEAVE_OUT=$leave_out timeout --kill-after=30 "$limit" make -j"$jobs" distcheck) >"$work/distcheck.log" 2>&1; then
	passed=$((passed + 1))
else
	broken "make distcheck" "$work/distcheck.log"
fi
finish
