# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += src/libpalladium/transport/loop/loop.c
libpd_la_SOURCES += src/libpalladium/transport/cli_ports.c src/libpalladium/transport/lanes.c src/libpalladium/transport/offload.c src/libpalladium/transport/offload.h src/libpalladium/transport/registry.c src/libpalladium/transport/transport.h
EXTRA_DIST += src/libpalladium/defs/transports.def
libpd_la_SOURCES += src/libpalladium/transport/vhost/lane.c src/libpalladium/transport/vhost/lane.h
libpd_la_SOURCES += \
	src/libpalladium/transport/vhost/area.c src/libpalladium/transport/vhost/area.h \
	src/libpalladium/transport/vhost/backend.c src/libpalladium/transport/vhost/backend.h \
	src/libpalladium/transport/vhost/backend_channel.c src/libpalladium/transport/vhost/backend_channel.h \
	src/libpalladium/transport/vhost/iotlb.c src/libpalladium/transport/vhost/iotlb.h \
	src/libpalladium/transport/vhost/backend_rings.c src/libpalladium/transport/vhost/backend_rings.h \
	src/libpalladium/transport/vhost/conn.c src/libpalladium/transport/vhost/conn.h \
	src/libpalladium/transport/vhost/dial.c src/libpalladium/transport/vhost/dial.h \
	src/libpalladium/transport/vhost/dirty.c src/libpalladium/transport/vhost/dirty.h \
	src/libpalladium/transport/vhost/eventfd.c src/libpalladium/transport/vhost/eventfd.h \
	src/libpalladium/transport/vhost/frontend.c src/libpalladium/transport/vhost/frontend.h \
	src/libpalladium/transport/vhost/frontend_channel.c src/libpalladium/transport/vhost/frontend_channel.h \
	src/libpalladium/transport/vhost/frontend_rings.c src/libpalladium/transport/vhost/frontend_rings.h \
	src/libpalladium/transport/vhost/frontend_start.c src/libpalladium/transport/vhost/frontend_start.h \
	src/libpalladium/transport/vhost/foreign.c src/libpalladium/transport/vhost/foreign.h \
	src/libpalladium/transport/vhost/fs.c src/libpalladium/transport/vhost/fs.h \
	src/libpalladium/transport/vhost/guard.c src/libpalladium/transport/vhost/guard.h \
	src/libpalladium/transport/vhost/inband.c src/libpalladium/transport/vhost/inband.h \
	src/libpalladium/transport/vhost/inflight.c src/libpalladium/transport/vhost/inflight.h \
	src/libpalladium/transport/vhost/map.c src/libpalladium/transport/vhost/map.h \
	src/libpalladium/transport/vhost/rarp.c src/libpalladium/transport/vhost/rarp.h \
	src/libpalladium/transport/vhost/sink.c src/libpalladium/transport/vhost/sink.h \
	src/libpalladium/transport/vhost/wire.c src/libpalladium/transport/vhost/wire.h \
	src/libpalladium/transport/vhost/role.c src/libpalladium/transport/vhost/role.h \
	src/libpalladium/transport/vhost/vhost.c
