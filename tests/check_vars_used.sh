#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every variable that vars.def marks PD_ACTS is read somewhere outside its table, and no other is (TAP).
set -u
srcdir=${srcdir:-$(dirname "$0")/..}
cd "$srcdir/src/libpalladium" || exit 99

# Lines "NAME field acts|idle" of the table.
rows=$(awk '
	/^PD_VAR_(INT|SIZE|BOOL|ENUM|STR)\(/ {
		row = $0
		sub(/^[A-Z_]*\(/, "", row)
		split(row, part, /, */)
		name = part[1]; field = part[2]
	}
	name != "" && /PD_ACTS|PD_LATER|PD_NEVER/ {
		print name, field, ($0 ~ /PD_ACTS/ ? "acts" : "idle")
		name = ""
	}' defs/vars.def)
[ -n "$rows" ] || { echo "Bail out! no rows found in vars.def"; exit 99; }

echo "$rows" | {
	n=0 bad=0
	while read -r name field acts; do
		n=$((n + 1))
		# vars.c looks at values that others use, which is no use; of these three it is the user.
		case $field in
		log_details | log_colors | spec) not= ;;
		*) not=--exclude=vars.c ;;
		esac
		if grep -rqE "(pd_vars\.|vars->)$field\b" --include='*.[ch]' $not .; then use=acts; else use=idle; fi
		if [ "$use" = "$acts" ]; then
			echo "ok $n - PALLADIUM_$name"
		else
			bad=1
			echo "not ok $n - PALLADIUM_$name: marked as $acts, but it is $use"
		fi
	done
	echo "1..$n"
	exit $bad
}
