#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Man pages (TAP): each is without a complaint of groff's, and the page of each installed program names the same options as
# its --help. PD_PROGRAMS holds the programs, relative to $builddir.
set -u
srcdir=${srcdir:-$(dirname "$0")/..}
builddir=${builddir:-.}
: "${PD_PROGRAMS:=palladium_stats palladium_ctl palladium_decode palladium_vlm}"
command -v groff >/dev/null || { echo '1..0 # SKIP no groff'; exit 0; }
export LC_ALL=C.UTF-8
n=0 bad=0

# Say whether the last check was passed: its complaints are $1.
verdict() { # complaints name
	n=$((n + 1))
	if [ -z "$1" ]; then
		echo "ok $n - $2"
	else
		bad=1
		echo "not ok $n - $2"
		echo "$1" | sed 's/^/# /'
	fi
}

# From a text with a line per option ("  -s, --socket PATH   what it is"), the options: "-s, --socket" or "--socket", sorted.
# What stands further in or behind two spaces is description.
options() {
	sed -nE 's/^ {1,8}(-)/\1/p' | sed -E 's/  .*//' | grep -oE -- '(-[A-Za-z0-9], )?--[a-z][a-z0-9_-]*' | sort -u
}

# A page as text, unbroken by justification and hyphens.
page() { { echo '.nh'; cat "$1"; } | groff -man -Tascii -P-cbou -rLL=200n; }

for file in "$srcdir"/doc/*.[1-8]; do
	verdict "$(groff -man -ww -z -Tutf8 "$file" 2>&1)" "${file##*/} is well formed"
done
for program in $PD_PROGRAMS; do
	name=${program##*/}
	file=$srcdir/doc/$name.1
	if [ ! -e "$file" ]; then
		verdict "no $name.1" "$name has a page"
		continue
	fi
	help=$("$builddir/$program" --help | options)
	manual=$(page "$file" | options)
	[ -n "$help" ] || help="no option in --help"
	verdict "$({
		printf '%s\n' "$help" "$manual" "$manual" | sort | uniq -u | sed 's/$/: not in the page/'
		printf '%s\n' "$help" "$help" "$manual" | sort | uniq -u | sed 's/$/: not in --help/'
	} | grep -v '^:')" "$name.1 and $name --help name the same options"
done
echo "1..$n"
exit $bad
