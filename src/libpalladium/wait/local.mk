# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/wait/beacon.c src/libpalladium/wait/beacon.h \
	src/libpalladium/wait/epoll.c \
	src/libpalladium/wait/poll.c \
	src/libpalladium/wait/pollable.h \
	src/libpalladium/wait/spin.c src/libpalladium/wait/spin.h \
	src/libpalladium/wait/wait.c src/libpalladium/wait/wait.h
