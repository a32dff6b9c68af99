#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The fuzzers guided by coverage (libFuzzer): build them with clang in a folder of their own, and run each from the committed corpus.
#
#   guided.sh runs N FUZZER...       each so many executions
#   guided.sh seconds N FUZZER...    each so long; progress is shown
#   guided.sh merge FUZZER...        into the committed corpus goes what it lacks of what was found, and out what adds nothing
#
# Run in a build folder, with $srcdir. What is made stands in guided/ there: the build, corpus/NAME with the inputs that were found
# worth keeping, NAME.log, and findings/NAME-*: inputs that broke something. FUZZ_JOBS: how many fuzzers at once. The last lines say what
# came of each; the exit status is 0 when there is no finding.
set -u
srcdir=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd) || exit 1
[ $# -ge 2 ] || { sed -n '3,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
how=$1
shift
amount=0
[ "$how" = merge ] || { amount=$1; shift; }
command -v clang >/dev/null || { echo "guided.sh: no clang" >&2; exit 1; }
unset CC CXX CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS
mkdir -p guided/corpus guided/findings && cd guided || exit 1
# Inputs are choices mostly, so what is compared with what says nothing about them, and costs a quarter of the time; as does weighing
# inputs by how rare what they reach is (-entropic).
flags='-O2 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address -fno-sanitize-coverage=trace-cmp'
if [ ! -e Makefile ]; then
	echo "configuring guided/ for clang"
	"$srcdir/configure" --enable-assert CC=clang CFLAGS="$flags" LDFLAGS=-fsanitize=address CPPFLAGS=-DPD_FUZZ_GUIDED \
		>configure.log 2>&1 || { tail configure.log; exit 1; }
fi
# Only here every program has libFuzzer's main().
make -j"${FUZZ_JOBS:-$(nproc)}" LDFLAGS=-fsanitize=address,fuzzer "${@/#/tests/fuzz/}" >build.log 2>&1 || { tail -n 30 build.log; exit 1; }

# Run one fuzzer. Arguments: its name, how, amount.
fuzz() {
	local name=$1 limit log=$1.log
	case $2 in
	runs) limit=-runs=$3 ;;
	seconds) limit=-max_total_time=$3 ;;
	esac
	mkdir -p "corpus/$name"
	tests/fuzz/"$name" "$limit" -max_len=4096 -timeout=20 -entropic=0 -print_final_stats=1 -artifact_prefix="findings/$name-" \
		"corpus/$name" "$srcdir/tests/fuzz/corpus/$name" >"$log" 2>&1 &
	local pid=$!
	if [ "$2" = seconds ]; then
		tail -n +1 --pid=$pid -F "$log" 2>/dev/null |
			sed -un "s,^#\([0-9]*\)[^0-9]*pulse *cov: \([0-9]*\).*exec/s: \([0-9]*\).*,$name: \1 executions\, \2 edges\, \3 a second,p"
	fi
	wait $pid
}

# What came of a fuzzer, in a line.
verdict() {
	local name=$1 executions edges seconds findings
	executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$name.log" | tail -n 1)
	edges=$(grep -o 'cov: [0-9]*' "$name.log" | tail -n 1 | cut -c 6-)
	seconds=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$name.log")
	findings=$(find findings -name "$name-*" | wc -l)
	# A run that ended by a finding has not said how it went.
	[ -n "$executions" ] || executions=$(grep -o '^#[0-9]*' "$name.log" | tail -n 1 | cut -c 2-)
	echo "$name: ${executions:-no} executions, ${edges:-no} edges, ${seconds:-?} s, $findings findings"
	sed -n 's/^# \([a-z].* runs \)/   \1/p' "$name.log"
	[ "$findings" = 0 ] && [ -n "$seconds" ]
}

# Make the committed corpus anew, of it and of what was found; what is not needed for an edge is left out.
merge() {
	local to=$srcdir/tests/fuzz/corpus/$1
	rm -rf "merged/$1" && mkdir -p "merged/$1" "corpus/$1"
	tests/fuzz/"$1" -set_cover_merge=1 -use_counters=0 -max_len=4096 "merged/$1" "$to" "corpus/$1" >"$1.merge.log" 2>&1 || return
	rm -f "$to"/* && cp "merged/$1"/* "$to"
	echo "$1: $(find "$to" -type f | wc -l) inputs, $(cat "$to"/* | wc -c) bytes"
}

export -f fuzz
export srcdir
if [ "$how" = merge ]; then
	for name; do merge "$name" || { echo "$name: failed" >&2; exit 1; }; done
	exit
fi
printf '%s\n' "$@" | xargs -P "${FUZZ_JOBS:-$(nproc)}" -I{} bash -c "fuzz {} $how $amount"
bad=0
for name; do verdict "$name" || bad=1; done
exit $bad
