# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/config/config.h \
	src/libpalladium/config/text.c src/libpalladium/config/text.h \
	src/libpalladium/config/vars.c src/libpalladium/config/vars.h
