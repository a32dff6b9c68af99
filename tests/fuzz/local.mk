# SPDX-License-Identifier: BSD-2-Clause
check_PROGRAMS += tests/fuzz/rings
TESTS += tests/fuzz/rings
FUZZ_RINGS_SOURCES = tests/fuzz/rings.c tests/fuzz/device.c tests/fuzz/driver.c tests/fuzz/fuzz.h
tests_fuzz_rings_SOURCES = $(FUZZ_RINGS_SOURCES)
EXTRA_DIST += tests/fuzz/corpus
tests_fuzz_rings_LDADD = libpd.la -lpthread

# The same, guided by coverage: make tests/fuzz/rings_guided in a build that was configured with
#     CC=clang CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address' LDFLAGS=-fsanitize=address
# and run tests/fuzz/rings_guided FOLDER $srcdir/tests/fuzz/corpus. doc/fuzzing.txt has what came of it.
EXTRA_PROGRAMS += tests/fuzz/rings_guided
tests_fuzz_rings_guided_SOURCES = $(FUZZ_RINGS_SOURCES)
tests_fuzz_rings_guided_CPPFLAGS = $(AM_CPPFLAGS) -DPD_FUZZ_GUIDED
tests_fuzz_rings_guided_LDADD = libpd.la -lpthread
tests_fuzz_rings_guided_LDFLAGS = -fsanitize=fuzzer

check_PROGRAMS += tests/fuzz/vnet
TESTS += tests/fuzz/vnet
tests_fuzz_vnet_SOURCES = tests/fuzz/vnet.c
tests_fuzz_vnet_LDADD = libpd.la -lpthread
