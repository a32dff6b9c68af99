/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An echo over one lane without sockets, in the two ways the engine knows: fused (pd_port_forward,
 * one straight line) or through the graph (port-input, sidecar-input, port-output).
 * tests/bench/spike.py puts palladium_vlm in front of it and compares with the same echo through
 * the preload's packet sockets and with testpmd. It polls and never sleeps.
 *
 *   spike fused|graph PATH        back-end that connects to PATH; until killed
 *   spike cost [ROUNDS]           no peer: cycles per frame of both ways over the loop transport, vectors of 1, 4, 32 and 256
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "config/config.h"
#include "transport/transport.h"
#include "vlib/port_nodes.h"

#define FRAME_BYTES 64

static volatile sig_atomic_t over;

static void stop(int sig)
{
	over = 1;
}

/* Ports as PALLADIUM_PORTS would make them. */
static void make_ports(const char *text)
{
	struct pd_config *config = pd_config_new();

	if (!config || pd_config_parse_ports(config, "spike", text, strlen(text), NULL, NULL))
		exit(1);
	pd_config_finish(config, NULL, NULL);
	if (pd_ports_init(config))
		exit(1);
	for (unsigned i = 0; i < pd_port_count; i++)
		if (pd_port_open(&pd_ports[i]) || !pd_port_lease_take(&pd_ports[i]))
			exit(1);
}

/* Echo everything on pd0, until stopped. */
static int echo(const char *path, bool graph)
{
	struct pd_forward_errors errors = {0};
	struct pd_engine *engine;
	char text[256];
	int err;

	snprintf(text, sizeof(text), "pd0=vhost-user:%s,mtu=9000", path);
	make_ports(text);
	engine = pd_engine_create("spike", &err);
	if (!engine || pd_engine_attach(engine, pd_ports[0].lanes[0], 0))
		return 1;
	fprintf(stderr, "ready\n");
	while (!over) {
		if (graph)
			pd_engine_round(engine);
		else
			pd_port_forward(pd_ports[0].lanes[0], pd_ports[0].lanes[0], PD_VECTOR_MAX,
					&errors);
	}
	pd_engine_destroy(engine);
	pd_ports_close_all();
	return 0;
}

/* The first lane of a port. */
static struct pd_lane *lane_of(const char *port)
{
	return pd_port_by_name(port)->lanes[0];
}

/* Put `n` frames into lane `in`'s partner, so that `in` has them to receive. */
static void feed(struct pd_lane *from, struct pd_buffer *const *frames, unsigned n)
{
	pd_lock(&from->side[PD_TX].lock);
	if (from->ops->tx(from, frames, n) != (int)n)
		exit(1);
	from->ops->tx_flush(from);
	pd_unlock(&from->side[PD_TX].lock);
}

/* Throw away `n` frames that arrived at `lane`. */
static void swallow(struct pd_lane *lane, unsigned n)
{
	struct pd_buffer *bufs[PD_VECTOR_MAX];

	pd_lock(&lane->side[PD_RX].lock);
	if (lane->ops->rx(lane, bufs, n) != (int)n)
		exit(1);
	lane->ops->rx_done(lane, n);
	pd_unlock(&lane->side[PD_RX].lock);
}

/*
 * Nanoseconds per frame of forwarding vectors of `n` from pd1 to pd2, without making and taking
 * them.
 */
static double forward_cost(struct pd_engine *engine, struct pd_buffer *const *frames, unsigned n,
			   unsigned rounds, bool graph)
{
	struct pd_forward_errors errors = {0};
	uint64_t cycles = 0, start;

	for (unsigned r = 0; r < rounds; r++) {
		feed(lane_of("pd0"), frames, n);
		start = pd_clock_cycles();
		if (graph)
			pd_engine_round(engine);
		else
			pd_port_forward(lane_of("pd1"), lane_of("pd2"), n, &errors);
		cycles += pd_clock_cycles() - start;
		swallow(lane_of("pd3"), n);
	}
	return (double)cycles * 1e3 / (double)pd_clock_cycles_per_us() / ((double)rounds * n);
}

/* The table of costs. */
static int cost(unsigned rounds)
{
	static const unsigned vectors[] = {1, 4, 32, 256};
	static uint8_t bytes[FRAME_BYTES];
	struct pd_buffer *frames[PD_VECTOR_MAX];
	struct pd_buffer_pool *pool;
	uint32_t indices[PD_VECTOR_MAX];
	struct pd_engine *engine;
	int err;

	make_ports("pd0=loop:pd1;pd2=loop:pd3");
	pool = pd_buffer_pool_create("spike", PD_VECTOR_MAX, 0, &err);
	engine = pd_engine_create("spike", &err);
	if (!pool || !engine ||
	    pd_engine_attach(engine, lane_of("pd1"), pd_port_by_name("pd2")->index) ||
	    pd_engine_attach(engine, lane_of("pd2"), pd_port_by_name("pd1")->index))
		return 1;
	pd_buffer_alloc(pool, indices, PD_VECTOR_MAX);
	for (unsigned i = 0; i < PD_VECTOR_MAX; i++) {
		frames[i] = pd_buffer_get(indices[i]);
		frames[i]->data = bytes;
		frames[i]->len = frames[i]->total_len = FRAME_BYTES;
		frames[i]->flags = PD_BUFFER_EXTERNAL | PD_BUFFER_SIDECAR;
		memset(frames[i]->sidecar, 0, sizeof(frames[i]->sidecar));
	}
	printf("vector   fused ns/frame   graph ns/frame   graph/fused\n");
	for (unsigned v = 0; v < PD_ARRAY_SIZE(vectors); v++) {
		double best[2] = {1e9, 1e9};

		for (int again = 0; again < 5; again++)
			for (int graph = 0; graph < 2; graph++)
				best[graph] =
					pd_min(best[graph], forward_cost(engine, frames, vectors[v],
									 rounds, graph));
		printf("%6u %16.1f %16.1f %13.2f\n", vectors[v], best[0], best[1],
		       best[1] / best[0]);
	}
	pd_engine_destroy(engine);
	pd_ports_close_all();
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	if (argc == 3 && (!strcmp(argv[1], "fused") || !strcmp(argv[1], "graph")))
		return echo(argv[2], argv[1][0] == 'g');
	if (argc >= 2 && !strcmp(argv[1], "cost"))
		return cost(argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 20000);
	fprintf(stderr, "usage: spike fused|graph PATH, or spike cost [ROUNDS]\n");
	return 2;
}
