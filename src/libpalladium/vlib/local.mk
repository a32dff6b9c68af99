# SPDX-License-Identifier: BSD-2-Clause
libpd_la_SOURCES += \
	src/libpalladium/vlib/buffer.c src/libpalladium/vlib/buffer.h \
	src/libpalladium/vlib/chain.c src/libpalladium/vlib/chain.h \
	src/libpalladium/vlib/lane.c src/libpalladium/vlib/lane.h \
	src/libpalladium/vlib/lane_plugins.c src/libpalladium/vlib/lane_plugins.h \
	src/libpalladium/vlib/plugin.c src/libpalladium/vlib/plugin.h \
	src/libpalladium/vlib/plugin_load.c \
	src/libpalladium/vlib/moderation.c src/libpalladium/vlib/moderation.h \
	src/libpalladium/vlib/timer_wheel.c src/libpalladium/vlib/timer_wheel.h \
	src/libpalladium/vlib/progress.c src/libpalladium/vlib/progress.h \
	src/libpalladium/vlib/graph.c src/libpalladium/vlib/node.h \
	src/libpalladium/vlib/runtime.c src/libpalladium/vlib/runtime.h \
	src/libpalladium/vlib/fiber.c src/libpalladium/vlib/fiber.h \
	src/libpalladium/vlib/load.c src/libpalladium/vlib/load.h \
	src/libpalladium/vlib/process.c src/libpalladium/vlib/process.h \
	src/libpalladium/vlib/worker.c src/libpalladium/vlib/worker.h \
	src/libpalladium/vlib/generator.c src/libpalladium/vlib/generator.h \
	src/libpalladium/vlib/generator_script.c \
	src/libpalladium/vlib/pcap.c src/libpalladium/vlib/pcap.h \
	src/libpalladium/vlib/trace.c src/libpalladium/vlib/trace.h \
	src/libpalladium/vlib/handoff.c src/libpalladium/vlib/handoff.h \
	src/libpalladium/vlib/init.c src/libpalladium/vlib/init.h \
	src/libpalladium/vlib/port_nodes.c src/libpalladium/vlib/port_nodes.h
