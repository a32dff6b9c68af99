# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/cli/cli.c src/libpalladium/cli/cli.h \
	src/libpalladium/cli/connection.c src/libpalladium/cli/connection.h \
	src/libpalladium/cli/generator.c \
	src/libpalladium/cli/macro.c src/libpalladium/cli/macro.h \
	src/libpalladium/cli/server.c src/libpalladium/cli/server.h \
	src/libpalladium/cli/show_engines.c \
	src/libpalladium/cli/show_graph.c \
	src/libpalladium/cli/show_plugins.c \
	src/libpalladium/cli/show_process.c \
	src/libpalladium/cli/sink.c src/libpalladium/cli/sink.h \
	src/libpalladium/cli/table.c src/libpalladium/cli/table.h \
	src/libpalladium/cli/telnet.c src/libpalladium/cli/telnet.h \
	src/libpalladium/cli/trace.c
