#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The table of intercepts against the library (TAP):
#   1 every call of defs/intercepts.def is exported
#   2 nothing else is, but the palladium_ API
#   3 no object outside preload/ refers to an intercepted name (base/sys.h is the way into the kernel)
#   4 the issue's list of calls is in the table
set -u
srcdir=${srcdir:-$(dirname "$0")/..}
builddir=${builddir:-.}
table=$srcdir/src/libpalladium/defs/intercepts.def
lib=$builddir/.libs/libpalladium.so
archive=$builddir/.libs/libpd.a
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT

# The names are what a preprocessor makes of the table; the pragma of the row is "name".
cat >"$tmp/names.c" <<'END'
#define PD_CALL(early, ret, name, params, args) @name@
#include "defs/intercepts.def"
END
${CC:-cc} -E -P -I"$srcdir/src/libpalladium" "$tmp/names.c" | grep -o '@ *[a-z_0-9]* *@' | tr -d '@ ' |
	LC_ALL=C sort >"$tmp/table"
nm -D --defined-only "$lib" | awk '$2 ~ /[TWBDRVi]/ {print $3}' | sed 's/@.*//' | LC_ALL=C sort >"$tmp/exported"

report() { # number, description, file with the offenders
	if [ -s "$3" ]; then
		echo "not ok $1 - $2"
		sed 's/^/# /' "$3"
	else
		echo "ok $1 - $2"
	fi
}

echo 1..4
if [ ! -s "$tmp/table" ] || [ ! -s "$tmp/exported" ] || [ ! -r "$archive" ]; then
	echo "Bail out! cannot read $table, $lib or $archive"
	exit 99
fi
LC_ALL=C comm -23 "$tmp/table" "$tmp/exported" >"$tmp/missing"
report 1 "all $(wc -l <"$tmp/table") calls of the table are exported" "$tmp/missing"
LC_ALL=C comm -13 "$tmp/table" "$tmp/exported" | grep -v '^palladium_' >"$tmp/extra"
report 2 "nothing is exported but the table and palladium_*" "$tmp/extra"

nm -A -u "$archive" 2>/dev/null | awk '{print $NF, $1}' | sed 's/@[^ ]*//' | LC_ALL=C sort >"$tmp/refs"
LC_ALL=C join "$tmp/table" "$tmp/refs" >"$tmp/inside"
report 3 "no object outside preload/ refers to an intercepted call" "$tmp/inside"

cat >"$tmp/list" <<'END'
socket socketpair close close_range closefrom shutdown listen accept accept4 bind connect setsockopt
getsockopt getsockname getpeername fcntl fcntl64 ioctl read readv preadv2 recv recvfrom recvmsg recvmmsg
write writev pwritev2 send sendto sendmsg sendmmsg sendfile sendfile64 splice __read_chk __recv_chk
__recvfrom_chk __poll_chk __ppoll_chk __res_iclose select pselect poll ppoll epoll_create epoll_create1
epoll_ctl epoll_wait epoll_pwait epoll_pwait2 open open64 openat openat64 creat creat64 pipe pipe2 dup dup2
dup3 fdopen fork vfork daemon posix_spawn posix_spawnp sigaction signal syscall mmap mmap64 munmap
if_nametoindex if_indextoname if_nameindex getifaddrs freeifaddrs
END
tr ' ' '\n' <"$tmp/list" | LC_ALL=C sort | LC_ALL=C comm -23 - "$tmp/table" >"$tmp/unlisted"
report 4 "every promised call is in the table" "$tmp/unlisted"
