# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/net/csum.c src/libpalladium/net/csum.h \
	src/libpalladium/net/vnet.c src/libpalladium/net/vnet.h
