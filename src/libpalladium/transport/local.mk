# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += src/libpalladium/transport/loop/loop.c
libpd_la_SOURCES += src/libpalladium/transport/registry.c src/libpalladium/transport/transport.h
EXTRA_DIST += src/libpalladium/defs/transports.def
libpd_la_SOURCES += src/libpalladium/transport/vhost/lane.c src/libpalladium/transport/vhost/lane.h
