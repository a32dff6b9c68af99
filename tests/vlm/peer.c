/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A peer for palladium_vlm: back-ends over the library's lanes that send every frame back, well or
 * badly. What goes wrong is asked for on the command line, every so many frames, so that each of
 * palladium_vlm's checks can be seen to fail.
 *
 *     peer PATH listen|connect PORTS QUEUES DIALECT [FAULT=N]... [keep] [hello] [exit=N] [take=N]
 *
 * Faults: drop, twice, swap (with the next frame), byte, length, sidecar, invent. keep: the sidecar
 * goes back as it came. hello: LINE_SPEED and PORT_NAME are sent. exit=N: the process is gone, as
 * if killed, after N frames (between two batches), take=N: at the end of the world it has taken N
 * more without answering.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "metadata/control.h"
#include "transport/transport.h"

enum fault { DROP, TWICE, SWAP, BYTE, LENGTH, SIDECAR, INVENT, FAULTS };
static const char *const fault_names[FAULTS] = {"drop",   "twice",   "swap",  "byte",
						"length", "sidecar", "invent"};
static uint64_t every[FAULTS], exit_at, take, seen;
static bool keep, hello;
static struct pd_buffer *copy; /* a frame that is sent in place of another */
static struct pd_config config;

/* Send one frame, however long it takes. */
static void send_one(struct pd_lane *lane, struct pd_buffer *b)
{
	struct pd_lane_side *side = &lane->side[PD_TX];
	int n = 0;

	while (n <= 0) {
		pd_lock(&side->lock);
		if (side->up) {
			n = lane->ops->tx(lane, &b, 1);
			lane->ops->tx_flush(lane);
		}
		pd_unlock(&side->lock);
		if (n < 0 && n != -ENETDOWN)
			exit(3);
		if (!n)
			poll(NULL, 0, 0);
	}
}

/* A copy of `b` that may be altered. */
static struct pd_buffer *copy_of(const struct pd_buffer *b)
{
	copy->len = copy->total_len = b->total_len;
	copy->flags = PD_BUFFER_SIDECAR;
	pd_buffer_copy_out(b, 0, copy->data, b->total_len);
	memcpy(copy->sidecar, b->sidecar, sizeof(copy->sidecar));
	return copy;
}

/* True when fault `f` is due at this frame. */
static bool due(enum fault f)
{
	return every[f] && seen % every[f] == 0;
}

/* Send `b` back with its fault. */
static void answer(struct pd_lane *lane, struct pd_buffer *b)
{
	seen++;
	if (!keep)
		memset(b->sidecar, 0, sizeof(b->sidecar));
	if (due(DROP))
		return;
	if (due(BYTE) || due(LENGTH) || due(SIDECAR) || due(INVENT)) {
		b = copy_of(b);
		b->data[b->len - 1] ^= due(BYTE);
		b->len -= due(LENGTH);
		b->total_len = b->len;
		b->sidecar[47] ^= due(SIDECAR);
		b->data[28] ^= due(INVENT);
	}
	send_one(lane, b);
	if (due(TWICE))
		send_one(lane, b);
}

/* Take what is there on one lane. */
static bool serve(struct pd_lane *lane)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	struct pd_buffer *bufs[32];
	int n = 0;

	pd_lock(&side->lock);
	if (side->up)
		n = lane->ops->rx(lane, bufs, 32);
	for (int i = 0; i < n; i++) {
		if (bufs[i]->flags & PD_BUFFER_CONTROL || !bufs[i]->total_len)
			continue;
		if (i + 1 < n && every[SWAP] && (seen + 1) % every[SWAP] == 0) {
			struct pd_buffer *b = bufs[i];

			bufs[i] = bufs[i + 1];
			bufs[i + 1] = b;
		}
		if (exit_at && seen >= exit_at) {
			/* These were taken and die with us. */
			lane->ops->rx_done(lane,
					   (unsigned)pd_min((uint64_t)(n - i), take) + (unsigned)i);
			_exit(9);
		}
		answer(lane, bufs[i]);
	}
	if (n > 0)
		lane->ops->rx_done(lane, (unsigned)n);
	pd_unlock(&side->lock);
	return n > 0;
}

/* Say who we are, on lane 0. */
static void say_hello(struct pd_port *port)
{
	struct pd_sidecar *s = (struct pd_sidecar *)copy->sidecar;

	copy->len = copy->total_len = 0;
	copy->flags = PD_BUFFER_SIDECAR | PD_BUFFER_CONTROL;
	pd_control_build_line_speed(s, 400000);
	send_one(port->lanes[0], copy);
	pd_control_build_port_name(s, port->name, (uint8_t)port->n_lanes);
	send_one(port->lanes[0], copy);
}

static void read_arguments(int argc, char **argv)
{
	if (argc < 6)
		exit(2);
	config.port_count = (uint32_t)atoi(argv[3]);
	for (unsigned i = 0; i < config.port_count; i++) {
		struct pd_port_config *pc = &config.ports[i];

		snprintf(pc->name, sizeof(pc->name), "eth%u", i);
		snprintf(pc->transport, sizeof(pc->transport), "vhost-user");
		snprintf(pc->path, sizeof(pc->path), "%s", argv[1]);
		pc->mode = strcmp(argv[2], "listen") ? PD_CONF_MODE_CONNECT : PD_CONF_MODE_LISTEN;
		pc->role = PD_CONF_BACKEND;
		pc->dialect =
			strcmp(argv[5], "virtio") ? PD_CONF_DIALECT_AVIP : PD_CONF_DIALECT_VIRTIO;
		pc->mtu = PD_CONF_MTU_MAX;
		pc->queues = (uint32_t)atoi(argv[4]);
		pc->ring = 256;
	}
	for (int i = 6; i < argc; i++) {
		keep |= !strcmp(argv[i], "keep");
		hello |= !strcmp(argv[i], "hello");
		sscanf(argv[i], "exit=%lu", &exit_at);
		sscanf(argv[i], "take=%lu", &take);
		for (int f = 0; f < FAULTS; f++) {
			size_t n = strlen(fault_names[f]);

			if (!strncmp(argv[i], fault_names[f], n) && argv[i][n] == '=')
				every[f] = strtoull(argv[i] + n + 1, NULL, 10);
		}
	}
}

int main(int argc, char **argv)
{
	struct pd_buffer_pool *pool;
	uint32_t index;
	int err;

	read_arguments(argc, argv);
	pd_log_set_level(PD_LOG_ERROR);
	pool = pd_buffer_pool_create("peer", 1, PD_FRAME_MAX_BYTES, &err);
	if (!pool || pd_buffer_alloc(pool, &index, 1) != 1)
		return 3;
	copy = pd_buffer_get(index);
	if (pd_ports_init(&config))
		return 3;
	for (unsigned i = 0; i < pd_port_count; i++)
		if (pd_port_open(&pd_ports[i]))
			return 3;
	for (unsigned i = 0; hello && i < pd_port_count; i++)
		say_hello(&pd_ports[i]);
	for (;;) {
		bool moved = false;

		for (unsigned i = 0; i < pd_port_count; i++)
			for (unsigned q = 0; q < pd_ports[i].n_lanes; q++)
				moved |= serve(pd_ports[i].lanes[q]);
		if (!moved)
			usleep(20);
	}
}
