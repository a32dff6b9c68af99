# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/defs/counters.def \
	src/libpalladium/counters/counters.c src/libpalladium/counters/counters.h \
	src/libpalladium/counters/file.c src/libpalladium/counters/file.h \
	src/libpalladium/counters/report.c src/libpalladium/counters/report.h \
	src/libpalladium/counters/shm.h
