# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/sock/fd.c src/libpalladium/sock/fd.h \
	src/libpalladium/sock/hooks.c src/libpalladium/sock/hooks.h \
	src/libpalladium/sock/sock.c src/libpalladium/sock/sock.h
libpd_la_SOURCES += \
	src/libpalladium/sock/cli_rules.c \
	src/libpalladium/sock/epoll.c \
	src/libpalladium/sock/exception.c src/libpalladium/sock/exception.h \
	src/libpalladium/sock/ifquery.c \
	src/libpalladium/sock/layer.c src/libpalladium/sock/layer.h \
	src/libpalladium/sock/multiplex.c src/libpalladium/sock/multiplex.h \
	src/libpalladium/sock/packet.c src/libpalladium/sock/packet.h \
	src/libpalladium/sock/packet_trace.c \
	src/libpalladium/sock/stream_names.c \
	src/libpalladium/sock/packet_nodes.c src/libpalladium/sock/packet_nodes.h \
	src/libpalladium/sock/packet_options.c \
	src/libpalladium/sock/packet_poll.c \
	src/libpalladium/sock/packet_rx.c \
	src/libpalladium/sock/packet_tap.c \
	src/libpalladium/sock/packet_tx.c \
	src/libpalladium/sock/placeholder.c \
	src/libpalladium/sock/sleepers.c src/libpalladium/sock/sleepers.h \
	src/libpalladium/sock/steer.c src/libpalladium/sock/steer.h \
	src/libpalladium/sock/vacate.c src/libpalladium/sock/vacate.h
