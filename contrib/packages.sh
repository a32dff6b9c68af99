#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Install the Debian packages that a job needs: packages.sh build|test [...]
# Prints nothing when all are there. Without root it names what is missing and exits with 1.
set -eu

# What building needs.
build="gcc g++ make autoconf automake libtool pkg-config flex bison libjansson-dev libpcap-dev libedit-dev"
# What the tests need besides: unit tests, sanitizers, a second compiler, independent peers, real programs.
test="libcmocka-dev clang libclang-rt-14-dev clang-format python3 python3-pytest python3-seccomp python3-fusepy libpython3.11-testsuite
	spin groff man-db iproute2 tshark tcpdump dpdk-dev qemu-system-x86 qemu-system-common
	busybox-static cpio xz-utils zstd procps strace valgrind inetutils-telnet libunbound8 libxdp1 libbpf1 gnuplot-nox"

wanted=
for job; do
	case $job in
	build) wanted="$wanted $build" ;;
	test) wanted="$wanted $test" ;;
	*) echo "usage: packages.sh build|test [...]" >&2; exit 2 ;;
	esac
done

missing=
for package in $wanted; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "These Debian packages are missing; install them as root and run this again:" >&2
	echo "  apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update -q && apt-get install -qy --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "the packages could not be installed; the whole log is in $log" >&2
	exit 1
fi
rm -f "$log"
