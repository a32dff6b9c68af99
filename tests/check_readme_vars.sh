#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The tables of PALLADIUM_ variables in README.txt and libpalladium.conf(5) are those of vars.def.
#
#   check_readme_vars.sh          TAP: compare (srcdir and builddir in the environment)
#   check_readme_vars.sh --write  write the tables into the two files (make readme-vars)
#
# In each file the table stands between a line that holds "variables: begin" and one that holds
# "variables: end".
set -eu
: "${srcdir:=.}" "${builddir:=.}"
table=$builddir/tests/unit/config/vars_table
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# What a file should be: its text with the table between the marks.
expected() { # file, option
	"$table" $2 >"$tmp/table"
	awk -v table="$tmp/table" '
		/variables: end/ { inside = 0 }
		!inside { print }
		/variables: begin/ { inside = 1; while ((getline line < table) > 0) print line }
	' "$1"
}

n=0
one() { # file, option
	expected "$srcdir/$1" "$2" >"$tmp/new"
	if [ "$mode" = write ]; then
		cmp -s "$tmp/new" "$srcdir/$1" || cp "$tmp/new" "$srcdir/$1"
		return
	fi
	n=$((n + 1))
	if ! grep -q 'variables: begin' "$srcdir/$1"; then
		echo "not ok $n - $1 has a table of variables"
	elif diff -u "$srcdir/$1" "$tmp/new" >"$tmp/diff"; then
		echo "ok $n - the variables of $1 are those of vars.def"
	else
		echo "not ok $n - the variables of $1 are those of vars.def (make readme-vars writes them)"
		sed 's/^/# /' "$tmp/diff"
	fi
}

mode=check
[ "${1:-}" = --write ] && mode=write
[ "$mode" = write ] || echo 1..2
one README.txt ""
one doc/libpalladium.conf.5 --man
