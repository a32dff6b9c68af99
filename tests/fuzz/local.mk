# SPDX-License-Identifier: BSD-2-Clause
# The fuzzers (doc/fuzzing.txt, fuzz.h). Each is a program that make check runs: its corpus and some seeds.
FUZZERS = rings vnet vhost sidecar config readers cli
FUZZ_TESTS = tests/fuzz/rings tests/fuzz/vnet tests/fuzz/vhost tests/fuzz/sidecar tests/fuzz/config tests/fuzz/readers tests/fuzz/cli
check_PROGRAMS += $(FUZZ_TESTS)
TESTS += $(FUZZ_TESTS) tests/fuzz/race.sh
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/race.sh tests/fuzz/guided.sh

FUZZ_SHARED = tests/fuzz/main.c tests/fuzz/fuzz.h
FUZZ_LIBS = libpd.la -lpthread
tests_fuzz_rings_SOURCES = tests/fuzz/rings.c tests/fuzz/device.c tests/fuzz/driver.c tests/fuzz/ring.h $(FUZZ_SHARED)
tests_fuzz_rings_LDADD = $(FUZZ_LIBS)
tests_fuzz_vnet_SOURCES = tests/fuzz/vnet.c $(FUZZ_SHARED)
tests_fuzz_vnet_LDADD = $(FUZZ_LIBS)
tests_fuzz_vhost_SOURCES = tests/fuzz/vhost.c tests/fuzz/vhost_message.c tests/fuzz/vhost_frontend.c tests/fuzz/vhost_backend.c tests/fuzz/vhost_kept.c \
	tests/fuzz/vhost.h $(FUZZ_SHARED)
tests_fuzz_vhost_LDADD = $(FUZZ_LIBS)
tests_fuzz_sidecar_SOURCES = tests/fuzz/sidecar.c $(FUZZ_SHARED)
tests_fuzz_sidecar_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_fuzz_sidecar_LDADD = $(FUZZ_LIBS) $(JANSSON_LIBS)
tests_fuzz_config_SOURCES = tests/fuzz/config.c tests/fuzz/config_make.c tests/fuzz/config_make.h $(FUZZ_SHARED)
tests_fuzz_config_LDADD = $(FUZZ_LIBS)
tests_fuzz_readers_SOURCES = tests/fuzz/readers.c src/stats/reader.c src/stats/reader.h $(FUZZ_SHARED)
tests_fuzz_readers_CFLAGS = $(AM_CFLAGS) $(PCAP_CFLAGS)
tests_fuzz_readers_LDADD = $(FUZZ_LIBS) $(PCAP_LIBS) -lm
tests_fuzz_cli_SOURCES = tests/fuzz/cli.c $(FUZZ_SHARED)
tests_fuzz_cli_LDADD = $(FUZZ_LIBS)

# Guided by coverage, in a build of clang's that guided.sh makes in guided/. make fuzz-smoke: so many executions of each. make fuzz:
# each for FUZZ_SECONDS, FUZZ_JOBS at once, then rings and random peers of whole programs (best in a build with --enable-asan):
# FUZZ_SEEDS connections of each kind and ten times as many raced rings; FUZZ_FIRST is the first seed, as a failure names it.
# make fuzz-corpus: what they found into the corpus.
FUZZ_RUNS = 20000
FUZZ_SECONDS = 3600
FUZZ_JOBS =
FUZZ_SEEDS = 2000
FUZZ_FIRST = 100000
FUZZ_GUIDED = srcdir=$(abs_top_srcdir) FUZZ_JOBS=$(FUZZ_JOBS) $(srcdir)/tests/fuzz/guided.sh
fuzz-smoke:
	$(FUZZ_GUIDED) runs $(FUZZ_RUNS) $(FUZZERS)
fuzz-corpus:
	$(FUZZ_GUIDED) merge $(FUZZERS)
fuzz: all tests/fuzz/rings
	$(FUZZ_GUIDED) seconds $(FUZZ_SECONDS) $(FUZZERS)
	srcdir=$(abs_top_srcdir) tests/fuzz/rings $(FUZZ_FIRST) $(FUZZ_SEEDS)0 race
	PD_FIRST_SEED=$(FUZZ_FIRST) PD_SEEDS=$(FUZZ_SEEDS) PD_TIMEOUT_SCALE=4 $(PD_PYTEST) $(srcdir)/tests/hostile/test_fuzz.py
.PHONY: fuzz fuzz-smoke fuzz-corpus

# How many lines of the vhost-user code the corpora, the unit tests and the contract run.
EXTRA_DIST += tests/coverage.sh
coverage:
	srcdir=$(abs_top_srcdir) $(srcdir)/tests/coverage.sh
.PHONY: coverage

clean-local:
	rm -rf guided coverage
