# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/sock/fd.c src/libpalladium/sock/fd.h \
	src/libpalladium/sock/hooks.c src/libpalladium/sock/hooks.h \
	src/libpalladium/sock/sock.c src/libpalladium/sock/sock.h
