#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every header compiles alone: the installed ones as C11, C++17 and C++20, pedantic, the library's own as
# gnu11. $srcdir and $builddir come from make check; CC and CXX choose the compilers.
srcdir=$(cd "${srcdir:-.}" && pwd) || exit 99
builddir=$(cd "${builddir:-.}" && pwd) || exit 99
CC=${CC:-cc}
CXX=${CXX:-c++}
n=0

# try NAME HEADER COMPILER...: one test; the header is included twice, from a file of its own.
try() {
	name=$1 header=$2
	shift 2
	n=$((n + 1))
	if errors=$(printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
		"$@" -Werror -fsyntax-only - 2>&1); then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		printf '%s\n' "$errors" | sed 's/^/# /'
	fi
}

for h in "$srcdir"/include/*.h; do
	short=include/${h##*/}
	try "$short C11" "$h" $CC -x c -std=c11 -Wall -Wextra -pedantic
	for std in 17 20; do
		try "$short C++$std" "$h" $CXX -x c++ -std=c++$std -Wall -Wextra -pedantic
	done
	try "$short C11 weak" "$h" $CC -x c -std=c11 -Wall -Wextra -pedantic -DPALLADIUM_WEAK
done
for h in $(cd "$srcdir" && find src/libpalladium -name '*.h' | sort); do
	try "$h" "$srcdir/$h" $CC -x c -std=gnu11 -Wall -Wextra -Wno-unused-parameter \
		-D_GNU_SOURCE -DHAVE_CONFIG_H -I"$builddir" -I"$srcdir/include" \
		-I"$srcdir/src/libpalladium" -I"$builddir/src/libpalladium"
done
echo "1..$n"
