# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += src/libpalladium/transport/transport.h
libpd_la_SOURCES += src/libpalladium/transport/vhost/lane.h
