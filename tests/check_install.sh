#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# `make install DESTDIR=` puts each file where a distribution would, and nothing else; a configuration
# that is there already stays; `make uninstall` takes away what it brought.
cd "${builddir:-.}" || exit 99
unset MAKEFLAGS MFLAGS MAKELEVEL
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT INT TERM
n=0
verdict() { # status name log
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		sed 's/^/# /' "$3"
	fi
}
run() { ${MAKE:-make} "$@" DESTDIR="$tmp/d" prefix=/usr exec_prefix=/usr sysconfdir=/etc libdir=/usr/lib/x >"$tmp/log" 2>&1; }

run install
verdict $? "make install" "$tmp/log"

cat >"$tmp/wanted" <<'END'
-rw-r--r-- /etc/libpalladium.conf
-rw-r--r-- /usr/include/palladium_extra.h
-rw-r--r-- /usr/include/palladium_plugin.h
-rw-r--r-- /usr/share/man/man1/palladium_ctl.1
-rw-r--r-- /usr/share/man/man1/palladium_decode.1
-rw-r--r-- /usr/share/man/man1/palladium_eval.1
-rw-r--r-- /usr/share/man/man1/palladium_stats.1
-rw-r--r-- /usr/share/man/man1/palladium_vlm.1
-rw-r--r-- /usr/share/man/man5/libpalladium.conf.5
-rw-r--r-- /usr/share/man/man7/libpalladium.7
-rw-r--r-- /usr/share/man/man7/palladium_plugin.7
-rwxr-xr-x /usr/bin/palladium_ctl
-rwxr-xr-x /usr/bin/palladium_decode
-rwxr-xr-x /usr/bin/palladium_eval
-rwxr-xr-x /usr/bin/palladium_stats
-rwxr-xr-x /usr/bin/palladium_vlm
-rwxr-xr-x /usr/lib/x/libpalladium.so
END
(cd "$tmp/d" && find . ! -type d -printf '%M /%P\n' | LC_ALL=C sort) >"$tmp/got"
diff -u "$tmp/wanted" "$tmp/got" >"$tmp/diff"
verdict $? "files and modes" "$tmp/diff"

echo "# the user's own" >>"$tmp/d/etc/libpalladium.conf"
cp "$tmp/d/etc/libpalladium.conf" "$tmp/own"
run install && cmp "$tmp/own" "$tmp/d/etc/libpalladium.conf" >"$tmp/log" 2>&1
verdict $? "a configuration that is there stays" "$tmp/log"

run uninstall
(cd "$tmp/d" && find . ! -type d) >"$tmp/got"
echo ./etc/libpalladium.conf | diff -u - "$tmp/got" >"$tmp/diff"
verdict $? "make uninstall leaves the user's configuration alone" "$tmp/diff"
echo "1..$n"
