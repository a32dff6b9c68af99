# SPDX-License-Identifier: BSD-2-Clause
# libeval.la is the program but its main: the unit tests link it.
bin_PROGRAMS += palladium_eval
noinst_LTLIBRARIES += libeval.la
libeval_la_SOURCES = \
	src/eval/bound.c src/eval/bound.h \
	src/eval/check.c src/eval/check.h \
	src/eval/layout.c src/eval/layout.h \
	src/eval/nf.c src/eval/nf.h src/eval/nf_plugin.c src/eval/nf_plugin.h \
	src/eval/options.c src/eval/options.def src/eval/options.h \
	src/eval/plot.c src/eval/plot.h \
	src/eval/profile.c src/eval/profile.h \
	src/eval/program.c src/eval/program.h \
	src/eval/report.c src/eval/report.h \
	src/eval/ring_stripped.c src/eval/ring_vhost.c \
	src/eval/roles.c src/eval/roles.h \
	src/eval/sweep.c src/eval/sweep.h \
	src/tools/help.c src/tools/help.h \
	src/tools/hist.h
libeval_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
palladium_eval_SOURCES = src/eval/palladium_eval.c
palladium_eval_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
# The steps of the roles have names in the program, by which callgrind finds them.
palladium_eval_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
palladium_eval_LDADD = libeval.la libpd.la $(JANSSON_LIBS)
