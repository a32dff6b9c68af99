# SPDX-License-Identifier: BSD-2-Clause
# Of the library, palladium_ctl includes counters/shm.h and nothing else, and links none of it.
bin_PROGRAMS += palladium_ctl
palladium_ctl_SOURCES = \
	src/ctl/client.c src/ctl/client.h \
	src/ctl/edit.c \
	src/ctl/main.c \
	src/ctl/script.c src/ctl/session.h \
	src/ctl/targets.c src/ctl/targets.h \
	src/tools/places.c src/tools/places.h
palladium_ctl_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(EDIT_CFLAGS)
palladium_ctl_LDADD = $(JANSSON_LIBS) $(EDIT_LIBS)
