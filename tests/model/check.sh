#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Check the models with spin, as TAP: the protocol as it is must hold, and each deliberate fault must be
# found, or the check is worth nothing. `check.sh full` adds the large configurations (minutes, up to
# MODEL_MB of memory, default 3000).
dir=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc}
full=${1:-small}
mb=${MODEL_MB:-3000}
[ "$full" = full ] || mb=1000
case " ${PD_LEAVE_OUT-} " in
*" model "* | *" all "*) echo '1..0 # SKIP PD_LEAVE_OUT is set'; exit 0 ;;
esac
command -v spin >/dev/null || { echo "1..0 # SKIP spin is not installed"; exit 0; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work" || exit 1
n=0 failed=0
model=waiting

# run NAME holds|breaks DEFINES...: one configuration.
run() {
	name=$1 want=$2
	shift 2
	n=$((n + 1))
	rm -f pan* ./*.trail
	# One search with progress labels checks the assertions, what is lost, and cycles without progress.
	if ! spin -a "$@" "$dir/$model.pml" >spin.log 2>&1 ||
		! $cc -O1 -w -DNP -DCOLLAPSE -DNOFAIR -DMEMLIM="$mb" -o pan pan.c >cc.log 2>&1; then
		cat spin.log cc.log | sed 's/^/# /'
		verdict=broken
	else
		./pan -l -m1000000 >pan.log 2>&1
		if grep -q 'errors: 0' pan.log && ! grep -q -e 'max search depth too small' -e 'out of memory' \
			-e 'reached -DMEMLIM' pan.log; then
			verdict=holds
		elif grep -q -e 'assertion violated' -e 'non-progress cycle (' pan.log; then
			verdict=breaks
		else
			verdict=unknown
		fi
		grep -e 'states, stored' -e 'assertion violated' -e 'non-progress cycle (' pan.log |
			sed 's/^/# /'
	fi
	if [ "$verdict" = "$want" ]; then
		echo "ok $n - $name: $want"
	else
		echo "not ok $n - $name: $verdict, not $want"
		failed=1
		spin -t -p "$@" "$dir/$model.pml" 2>/dev/null | tail -60 | sed 's/^/# /'
	fi
}

run "event index" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=2
run "flag" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=2 -DEVENT_IDX=0
run "three sleepers" holds -DLEVELS=1 -DEDGES=2 -DPUBLISH=1
run "the link goes and comes" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=1 -DBOUNCES=1
run "several at once" holds -DLEVELS=1 -DEDGES=0 -DPUBLISH=3 -DHOLD=2
run "several at once, two sleepers" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=1 -DHOLD=2
run "a sleep for several without a bound" breaks -DLEVELS=1 -DEDGES=0 -DHOLD=2 -DBREAK=8
run "idle and woken over and over" breaks -DLEVELS=1 -DEDGES=0 -DHOLD=2 -DBREAK=9
run "a new sleeper does not tell the older" breaks -DLEVELS=1 -DEDGES=1 -DBREAK=1
run "who drains does not ring" breaks -DLEVELS=1 -DEDGES=1 -DBREAK=2
run "no second look after arming" breaks -DLEVELS=1 -DEDGES=0 -DBREAK=5
run "told over and over" breaks -DLEVELS=1 -DEDGES=1 -DBREAK=6
if [ "$full" = full ]; then
	run "who drains does not arm" breaks -DLEVELS=1 -DEDGES=1 -DBREAK=3
	run "a change of the link rings nobody" breaks -DLEVELS=1 -DEDGES=1 -DBOUNCES=1 -DBREAK=4
	run "seen is read late" breaks -DLEVELS=1 -DEDGES=1 -DBREAK=7
	run "several at once, two sleepers, two bursts" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=2 -DHOLD=2
	run "three at once" holds -DLEVELS=1 -DEDGES=0 -DPUBLISH=4 -DHOLD=3
	run "several at once, two that consume" holds -DLEVELS=2 -DEDGES=0 -DPUBLISH=2 -DHOLD=2
	run "several at once, one gives up" holds -DLEVELS=1 -DEDGES=0 -DPASSERS=1 -DPUBLISH=2 -DHOLD=2
	run "several at once, one never sleeps" holds -DLEVELS=1 -DEDGES=0 -DLOOKS=2 -DPUBLISH=3 -DHOLD=2
	run "several at once, the link goes" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=1 -DBOUNCES=1 -DHOLD=2
	for idx in 1 0; do
		run "two that consume, $idx" holds -DLEVELS=2 -DEDGES=0 -DPUBLISH=2 -DEVENT_IDX=$idx
		run "two that consume, one edge, $idx" holds -DLEVELS=2 -DEDGES=1 -DPUBLISH=1 \
			-DEVENT_IDX=$idx
		run "one that gives up, $idx" holds -DLEVELS=1 -DEDGES=0 -DPASSERS=1 -DPUBLISH=2 \
			-DEVENT_IDX=$idx
		run "edge and one that gives up, $idx" holds -DLEVELS=1 -DEDGES=1 -DPASSERS=1 -DPASSES=1 \
			-DPUBLISH=1 -DEVENT_IDX=$idx
		run "one that never sleeps, $idx" holds -DLEVELS=1 -DEDGES=1 -DLOOKS=2 -DPUBLISH=2 \
			-DEVENT_IDX=$idx
		run "three bursts, $idx" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=3 -DEVENT_IDX=$idx
		run "three that do not consume, $idx" holds -DLEVELS=0 -DEDGES=3 -DPUBLISH=1 \
			-DEVENT_IDX=$idx
		run "the link twice, $idx" holds -DLEVELS=1 -DEDGES=1 -DPUBLISH=1 -DBOUNCES=2 \
			-DEVENT_IDX=$idx
	done
fi
model=takeover
run "an epoll is taken over" holds -DSLEEPERS=3 -DVISITS=1
run "an epoll is taken over, more visits" holds -DSLEEPERS=2 -DVISITS=3
run "a sleeper does not look again" breaks -DBREAK=1
run "who left stays called" breaks -DBREAK=2
run "the last leaves the beacon lit" breaks -DBREAK=3
run "the first puts it out" breaks -DBREAK=4
model=marks
run "two wait for one that rests" holds -DITEMS=1
run "one waits for two that rest" holds -DITEMS=2 -DWAITERS=1
run "the flag is cleared after asking" breaks -DITEMS=1 -DBREAK=1
run "the mark comes before the change" breaks -DITEMS=1 -DBREAK=2
run "the bell is read after asking" breaks -DITEMS=1 -DBREAK=3
model=exclusive
run "one frame or two, as many wake" holds -DQUIET=1
run "after what others have read" holds -DQUIET=1 -DBEFORE=3
run "with counts that began anew" holds -DQUIET=1 -DRENEWED=1
run "two bursts, as many wake" holds -DQUIET=1 -DPUBLISH=2
run "one leaves as a frame comes" holds -DWAITERS=2 -DLEAVERS=1 -DCALLS=2
run "two bursts, one leaves" holds -DWAITERS=2 -DLEAVERS=1 -DPUBLISH=2
run "who is chosen leaves" breaks -DWAITERS=2 -DLEAVERS=1 -DBREAK=1
run "all are told" breaks -DQUIET=1 -DBREAK=2
run "two take the same turn" breaks -DQUIET=1 -DBREAK=3
run "a burst wakes one" breaks -DQUIET=1 -DBREAK=4
run "turns for what was read before" breaks -DQUIET=1 -DBEFORE=3 -DBREAK=5
run "who finds nothing takes turns" breaks -DWAITERS=2 -DBREAK=6
run "counts only grow" breaks -DWAITERS=2 -DRENEWED=1 -DBREAK=7
run "who was overtaken gives turns" breaks -DQUIET=1 -DPUBLISH=2 -DBREAK=8
if [ "$full" = full ]; then
	run "three, one leaves as a frame comes" holds -DLEAVERS=1
	run "four, as many wake" holds -DQUIET=1 -DWAITERS=4 -DBEFORE=2
	run "two bursts, counts that began anew" holds -DWAITERS=2 -DRENEWED=1 -DPUBLISH=2
fi
echo "1..$n"
exit $failed
