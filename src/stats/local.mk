# SPDX-License-Identifier: BSD-2-Clause
# Of the library, palladium_stats includes counters/shm.h and nothing else, and links none of it.
bin_PROGRAMS += palladium_stats
palladium_stats_SOURCES = \
	src/stats/find.c src/stats/find.h \
	src/stats/json.c \
	src/stats/main.c \
	src/stats/print.c src/stats/print.h \
	src/stats/reader.c src/stats/reader.h \
	src/stats/table.c src/stats/table.h \
	src/tools/places.c src/tools/places.h
palladium_stats_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
palladium_stats_LDADD = $(JANSSON_LIBS) -lm
