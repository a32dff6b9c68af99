#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Who may include whom (TAP, one test per folder), and the size of the reference transport. A folder may always include itself and the system.
# An entry with a slash is one header; an entry without is a whole folder.
set -u
srcdir=${srcdir:-$(dirname "$0")/..}
root=$srcdir/src/libpalladium

# folder: what it may include. defs/ are the tables; calls.h is a list of libc's headers.
allowed() {
	case $1 in
	defs) ;;
	base) ;;
	config) echo base defs ;;
	counters) echo base defs ;;
	metadata) echo base ;;
	net) echo base ;;
	vlib) echo base counters defs ;;
	virtio) echo base vlib ;;
	cli) echo base config counters vlib ;;
	transport) echo base cli config counters defs vlib metadata net ;;
	transport/loop) echo base config counters vlib metadata transport/transport.h transport/offload.h ;;
	transport/vhost) echo base config counters vlib metadata virtio transport/transport.h transport/offload.h ;;
	wait) echo base vlib ;;
	sock) echo base cli config counters defs vlib metadata net wait transport/transport.h transport/offload.h ;;
	preload) echo base config defs metadata sock ;;
	*) return 1 ;;
	esac
}

# The folder of a file, relative to src/libpalladium: two levels below transport/.
folder_of() {
	case $1 in
	transport/*/*) dirname "$1" ;;
	*) echo "${1%%/*}" ;;
	esac
}

# True when `folder` may include `header`.
may_include() { # folder header
	own=$(folder_of "$2")
	[ "$own" = "$1" ] && return 0
	for entry in $(allowed "$1"); do
		case $entry in
		*.h) [ "$entry" = "$2" ] && return 0 ;;
		*) [ "$entry" = "$own" ] && return 0 ;;
		esac
	done
	return 1
}

cd "$root" || exit 99
folders=$(find . -name '*.[chyl]' | sed 's|^\./||' | while read -r f; do folder_of "$f"; done | LC_ALL=C sort -u)
echo "1..$(($(echo "$folders" | wc -l) + 1))"
n=1
# The loop is what a transport is read from first: it stays short.
lines=$(find transport/loop -name '*.[ch]' -exec cat {} + | wc -l)
if [ "$lines" -lt 500 ]; then
	echo "ok 1 - the loop transport has fewer than 500 lines"
else
	echo "not ok 1 - the loop transport has fewer than 500 lines"
	echo "# it has $lines"
fi
for folder in $folders; do
	n=$((n + 1))
	if ! allowed "$folder" >/dev/null; then
		echo "not ok $n - $folder"
		echo "# the folder is not in the table of tests/check_layers.sh"
		continue
	fi
	bad=$(find "$folder" -name '*.[chyl]' | while read -r file; do
		[ "$(folder_of "$file")" = "$folder" ] || continue
		sed -n 's|^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*|\1|p' "$file" | while read -r header; do
			case $header in
			config.h | palladium_extra.h | palladium_plugin.h) continue ;;
			*.def) [ "$(folder_of "$header")" = defs ] && continue ;;
			*/*) ;;
			*) [ -e "$folder/$header" ] || [ ! -e "$header" ] && continue ;; # generated, or beside it
			esac
			may_include "$folder" "$header" || echo "# $file includes $header"
		done
	done)
	if [ -n "$bad" ]; then
		echo "not ok $n - $folder"
		echo "$bad"
	else
		echo "ok $n - $folder"
	fi
done
