#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Install what is missing, build, and show the main job: an unmodified packet-socket program is the emulator's side of a
# virtual load module. Moves a million frames of mixed sizes with distinct metadata and checks every byte of both.
#
#   ./demo.sh [FRAMES]     default 1000000
set -eu
cd "$(dirname "$0")"
case ${1-} in
-h | --help) sed -n '3,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
frames=${1:-1000000}
top=$PWD
work=$top/build-demo
mkdir -p "$work"

step() { printf '\n== %s\n' "$*"; }
fail() { # message [log]
	echo "demo.sh: $1" >&2
	[ -z "${2-}" ] || tail -n 20 "$2" >&2
	exit 1
}

step "packages"
contrib/packages.sh build
echo "everything that building needs is there"

step "build (log: build-demo/build.log)"
{
	[ -x configure ] && [ configure -nt configure.ac ] || ./autogen.sh
	cd "$work"
	[ -f Makefile ] || "$top/configure" --prefix=/usr --sysconfdir=/etc
	make -j"$(nproc)"
	cd "$top"
} >"$work/build.log" 2>&1 || fail "the build failed" "$work/build.log"
echo "built $work/.libs/libpalladium.so"

# Everything that is started here ends here.
run=$(mktemp -d)
loopback=
cleanup() {
	[ -z "$loopback" ] || kill "$loopback" 2>/dev/null || true
	rm -rf "$run"
}
trap cleanup EXIT
export PALLADIUM_CONFIG_FILE=/dev/null PALLADIUM_STATS_SHMEM_DIR=$run

step "the emulator's side: examples/loopback, under the preload"
PALLADIUM_PORTS="pd0=vhost-user:$run/vlm0.sock,mtu=9000"
echo "LD_PRELOAD=libpalladium.so PALLADIUM_PORTS=\"$PALLADIUM_PORTS\" examples/loopback --keep pd0"
env LD_PRELOAD="$work/.libs/libpalladium.so" PALLADIUM_PORTS="$PALLADIUM_PORTS" \
	"$work/examples/loopback" --keep pd0 >"$run/loopback.log" 2>&1 &
loopback=$!

step "the tester's side: palladium_vlm, $frames frames, sizes 60 to 9014, distinct metadata in each, every byte checked"
"$work/palladium_vlm" --socket "$run/vlm0.sock" --listen --frames "$frames" --size 60-9014 --expect echo ||
	fail "frames were lost or altered" "$run/loopback.log"

step "the same with the usual mix of sizes, one frame at a time: the round trip"
"$work/palladium_vlm" --socket "$run/vlm0.sock" --listen --frames 100000 --size imix --expect echo --window 1 ||
	fail "frames were lost or altered" "$run/loopback.log"

step "what the program's counters say: palladium_stats -p $loopback"
"$work/palladium_stats" -p "$loopback" -k "$run" -c 1

step "the program itself"
kill -INT "$loopback"
wait "$loopback" || true
loopback=
cat "$run/loopback.log"

step "it worked"
echo "README.txt tells how to use it with a real virtual load module; ./check.sh runs the tests."
