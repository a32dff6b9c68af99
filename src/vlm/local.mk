# SPDX-License-Identifier: BSD-2-Clause
# libvlm.la is the program but its main: the unit tests link it.
bin_PROGRAMS += palladium_vlm
noinst_LTLIBRARIES += libvlm.la
libvlm_la_SOURCES = \
	src/vlm/flow.c src/vlm/flow.h \
	src/tools/help.c src/tools/help.h \
	src/tools/hist.h \
	src/vlm/io.c src/vlm/io.h \
	src/vlm/options.c src/vlm/options.h \
	src/vlm/pattern.c src/vlm/pattern.h \
	src/vlm/report.c src/vlm/report.h \
	src/vlm/run.c src/vlm/run.h
libvlm_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
palladium_vlm_SOURCES = src/vlm/palladium_vlm.c
palladium_vlm_LDADD = libvlm.la libpd.la $(JANSSON_LIBS)
