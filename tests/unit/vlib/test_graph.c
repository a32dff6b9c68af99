/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/node, graph, port_nodes: dispatch, counters, errors, and that graph and fused path agree. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "vlib/port_nodes.h"
#include "vlib/progress.h"

/*
 * --- nodes of the test: t-input -> t-turn (again and again to itself) -> t-sink, drop, error-drop
 */

static struct pd_buffer_pool *pool;
static unsigned to_make; /* frames t-input makes in a round */
static bool late;        /* it makes one, once, when its engine is about to sleep */
static uint32_t made;    /* numbered from 0; the number is in opaque */
static uint32_t sunk[8192], sunk_count;

struct note {
	uint32_t number, turns;
};

static unsigned t_input(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	unsigned total = 0, want = to_make, room;

	if (late && e->asleep) {
		late = false;
		want = 1;
	}
	while (total < want) {
		uint32_t *to = pd_next_get(e, node, 0, &room);
		unsigned n = pd_buffer_alloc(pool, to, pd_min(room, want - total));

		assert_true(n > 0);
		for (unsigned i = 0; i < n; i++) {
			struct note note = {made, made % 3};

			memcpy(pd_buffer_get(to[i])->opaque, &note, sizeof(note));
			made++;
		}
		pd_next_put(e, node, 0, n);
		total += n;
	}
	return total;
}

PD_NODE_REGISTER(t_input) = {.name = "t-input",
			     .type = PD_NODE_INPUT,
			     .fn = t_input,
			     .next_count = 1,
			     .next_names = {"t-turn"}};

enum { TURN_SELF, TURN_SINK, TURN_DROP, TURN_ERROR, TURN_NEXTS };

/*
 * A frame goes round `turns` times; then every 5th is dropped, every 7th is an error, the rest
 * sink.
 */
static uint16_t t_turn_one(const struct pd_node_ctx *ctx, struct pd_buffer *b)
{
	struct note note;

	memcpy(&note, b->opaque, sizeof(note));
	if (note.turns) {
		note.turns--;
		memcpy(b->opaque, &note, sizeof(note));
		return TURN_SELF;
	}
	if (note.number % 5 == 0)
		return TURN_DROP;
	if (note.number % 7 == 0) {
		pd_buffer_set_error(b, ctx, 1);
		return TURN_ERROR;
	}
	return TURN_SINK;
}
PD_NODE_DISPATCH(t_turn, t_turn_one);

PD_NODE_REGISTER(t_turn) = {.name = "t-turn",
			    .type = PD_NODE_INTERNAL,
			    .fn = t_turn,
			    .errors = (const char *const[]){"never", "every seventh"},
			    .error_count = 2,
			    .next_count = TURN_NEXTS,
			    .next_names = {"t-turn", "t-sink", "drop", "error-drop"}};

static unsigned t_sink(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	for (unsigned i = 0; i < v->n; i++) {
		struct note note;

		memcpy(&note, pd_buffer_get(v->index[i])->opaque, sizeof(note));
		sunk[sunk_count++ % PD_ARRAY_SIZE(sunk)] = note.number;
	}
	pd_buffer_free(v->index, v->n);
	return v->n;
}

PD_NODE_REGISTER(t_sink) = {.name = "t-sink", .type = PD_NODE_INTERNAL, .fn = t_sink};

static struct pd_engine *engine_new(void)
{
	int err = 1;
	struct pd_engine *e = pd_engine_create("test", &err);

	assert_non_null(e);
	assert_int_equal(err, 0);
	made = sunk_count = to_make = 0;
	return e;
}

static void test_every_frame_reaches_its_end_in_order(void **state)
{
	static const unsigned sizes[] = {1, 3, 4, 255, 256, 257, 1000, 2000, 0};

	for (size_t s = 0; s < PD_ARRAY_SIZE(sizes); s++) {
		struct pd_engine *e = engine_new();
		struct pd_node *turn = pd_engine_node(e, "t-turn"),
			       *drop = pd_engine_node(e, "drop");
		uint32_t want_drop = 0, want_error = 0, last[3] = {0};
		uint64_t turns = 0;

		to_make = sizes[s];
		assert_int_equal(pd_engine_round(e), sizes[s]);
		for (uint32_t i = 0; i < sizes[s]; i++) {
			turns += 1 + i % 3;
			if (i % 5 == 0)
				want_drop++;
			else if (i % 7 == 0)
				want_error++;
		}
		assert_int_equal(sunk_count, sizes[s] - want_drop - want_error);
		assert_int_equal(drop->vectors, want_drop + want_error);
		assert_int_equal(turn->errors[0], 0);
		assert_int_equal(turn->errors[1], want_error);
		assert_int_equal(turn->vectors, turns);
		/* Frames that go the same way stay in order. */
		for (uint32_t i = 0; i < sunk_count; i++) {
			assert_true(sunk[i] >= last[sunk[i] % 3]);
			last[sunk[i] % 3] = sunk[i];
		}
		assert_int_equal(pool->free_count, pool->count);
		assert_int_equal(e->lost, 0);
		pd_engine_destroy(e);
	}
}

static void test_clocks_are_read_for_vectors_of_four(void **state)
{
	struct pd_engine *e = engine_new();
	struct pd_node *turn = pd_engine_node(e, "t-turn");

	to_make = 1;
	pd_engine_round(e);
	assert_int_equal(turn->calls, 1);
	assert_int_equal(turn->clocks, 0);
	to_make = 32;
	pd_engine_round(e);
	assert_true(turn->clocks > 0);
	/* 32, then about two thirds, then a third go round. */
	assert_int_equal(turn->calls, 4);
	assert_int_equal(turn->clocked_vectors, turn->vectors - 1);
	pd_engine_destroy(e);
}

static void test_bad_graphs_are_refused(void **state)
{
	struct pd_node_registration *all = pd_node_registrations;
	struct pd_node_registration lost = {.name = "lost",
					    .type = PD_NODE_INTERNAL,
					    .fn = t_sink,
					    .next_count = 1,
					    .next_names = {"nowhere"}};
	struct pd_node_registration twice = {
		.name = "drop", .type = PD_NODE_INTERNAL, .fn = t_sink};
	int err;

	pd_node_register(&lost);
	assert_null(pd_engine_create("test", &err));
	assert_int_equal(err, -ENOENT);
	pd_node_registrations = all;
	pd_node_register(&twice);
	assert_null(pd_engine_create("test", &err));
	assert_int_equal(err, -EEXIST);
	pd_node_registrations = all;
}

static void test_nodes_are_numbered_as_they_were_registered(void **state)
{
	struct pd_engine *e = engine_new();

	assert_true(pd_engine_node(e, "t-input")->index < pd_engine_node(e, "t-turn")->index);
	assert_true(pd_engine_node(e, "t-turn")->index < pd_engine_node(e, "t-sink")->index);
	pd_engine_destroy(e);
}

/*
 * A node that asked for room when there was no memory, and then had nothing to add, goes on with
 * real vectors.
 */
static void test_overflow_ends_with_the_round(void **state)
{
	struct pd_engine *e = engine_new();

	pd_engine_node(e, "t-turn")->open = e->overflow;
	e->overflowed = true;
	pd_engine_round(e);
	to_make = 10;
	pd_engine_round(e);
	assert_int_equal(e->lost, 0);
	assert_true(sunk_count > 0);
	pd_engine_destroy(e);
}

/* --- over loop: pd0 - pd1 =engine= pd2 - pd3 ------------------------------------------------ */

static struct pd_config *config;
static struct pd_lane *lane[4];

static int ports_setup(void **state)
{
	config = calloc(1, sizeof(*config));
	config->port_count = 4;
	for (unsigned i = 0; i < 4; i++) {
		struct pd_port_config *pc = &config->ports[i];

		snprintf(pc->name, sizeof(pc->name), "pd%u", i);
		snprintf(pc->peer, sizeof(pc->peer), "pd%u", i ^ 1);
		strcpy(pc->transport, "loop");
		pc->mtu = 1500;
		pc->queues = 1;
		pc->ring = 64;
	}
	assert_int_equal(pd_ports_init(config), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pd_port_open(&pd_ports[i]), 0);
		lane[i] = pd_ports[i].lanes[0];
	}
	made = sunk_count = to_make = 0;
	return 0;
}

static int ports_teardown(void **state)
{
	pd_ports_close_all();
	pd_progress_stop();
	free(config);
	return 0;
}

/* Frame `seq`: every 6th is a control frame, the others carry their number, 4 to 1200 bytes. */
static bool is_control(uint32_t seq)
{
	return seq % 6 == 5;
}

static bool send_frame(uint32_t seq)
{
	struct pd_buffer *b;
	uint32_t idx;
	int ret;

	assert_int_equal(pd_buffer_alloc(pool, &idx, 1), 1);
	b = pd_buffer_get(idx);
	b->flags = PD_BUFFER_SIDECAR;
	memset(b->sidecar, (int)(seq * 7), sizeof(b->sidecar));
	b->sidecar[PD_SIDECAR_GENERIC_FLAGS_AT] = is_control(seq);
	if (!is_control(seq)) {
		b->len = b->total_len = 4 + seq * 37 % 1197;
		memset(b->data, (int)seq, b->len);
		memcpy(b->data, &seq, sizeof(seq));
	}
	pd_lock(&lane[0]->side[PD_TX].lock);
	ret = lane[0]->ops->tx(lane[0], &b, 1);
	lane[0]->ops->tx_flush(lane[0]);
	pd_unlock(&lane[0]->side[PD_TX].lock);
	pd_buffer_free(&idx, 1);
	assert_true(ret >= 0);
	return ret == 1;
}

/* Everything that lies at the far end, as one stream of bytes; returns how many frames. */
static unsigned collect(uint8_t *out, size_t *len)
{
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	int n;

	pd_lock(&lane[3]->side[PD_RX].lock);
	n = lane[3]->ops->rx(lane[3], bufs, PD_VECTOR_MAX);
	for (int i = 0; i < n; i++) {
		memcpy(out + *len, bufs[i]->sidecar, PD_BUFFER_SIDECAR_BYTES);
		*len += PD_BUFFER_SIDECAR_BYTES;
		*len += pd_buffer_copy_out(bufs[i], 0, out + *len, bufs[i]->total_len);
	}
	lane[3]->ops->rx_done(lane[3], (unsigned)n);
	pd_unlock(&lane[3]->side[PD_RX].lock);
	return (unsigned)n;
}

#define STREAM_FRAMES 3000

/* Push the same frames through, by graph or fused; the result as bytes and error counts. */
static void run_stream(struct pd_engine *e, uint8_t *out, size_t *len,
		       struct pd_forward_errors *errors)
{
	uint32_t seq = 0;
	unsigned burst = 1;

	while (seq < STREAM_FRAMES) {
		for (unsigned i = 0; i < burst && seq < STREAM_FRAMES; i++)
			if (send_frame(seq))
				seq++;
		burst = burst % 50 + 7;
		if (e)
			pd_engine_round(e);
		else
			assert_true(pd_port_forward(lane[1], lane[2], PD_VECTOR_MAX, errors) >= 0);
		collect(out, len);
	}
	if (e) {
		memcpy(errors->sidecar_input, pd_engine_node(e, "sidecar-input")->errors,
		       sizeof(errors->sidecar_input));
		memcpy(errors->port_output, pd_engine_node(e, "port-output")->errors,
		       sizeof(errors->port_output));
	}
}

static void test_graph_and_fused_path_give_the_same(void **state)
{
	static uint8_t by_graph[STREAM_FRAMES * 1300], fused[STREAM_FRAMES * 1300];
	struct pd_forward_errors graph_errors = {0}, fused_errors = {0};
	size_t graph_len = 0, fused_len = 0;
	struct pd_engine *e = engine_new();

	assert_int_equal(pd_engine_attach(e, lane[1], 2), 0);
	assert_int_equal(pd_engine_attach(e, lane[2], 1), 0);
	run_stream(e, by_graph, &graph_len, &graph_errors);
	run_stream(NULL, fused, &fused_len, &fused_errors);
	assert_true(graph_len > STREAM_FRAMES * 500);
	assert_int_equal(graph_len, fused_len);
	assert_memory_equal(by_graph, fused, graph_len);
	assert_memory_equal(&graph_errors, &fused_errors, sizeof(graph_errors));
	assert_int_equal(graph_errors.sidecar_input[PD_SIDECAR_INPUT_ERROR_CONTROL],
			 STREAM_FRAMES / 6);
	assert_int_equal(pool->free_count, pool->count);
	pd_engine_destroy(e);
}

static void test_fused_path_leaves_what_has_no_room(void **state)
{
	static uint8_t out[64 * 3 * 1300];
	struct pd_forward_errors errors = {0};
	uint32_t sent = 0, data = 0, got = 0, number, want = 0;
	size_t len = 0, at = 0;

	/* Fill the far ring through the near one, then one more ring's worth. */
	for (int i = 0; i < 4; i++) {
		while (send_frame(sent))
			sent++;
		assert_true(pd_port_forward(lane[1], lane[2], PD_VECTOR_MAX, &errors) >= 0);
	}
	assert_int_equal(pd_port_forward(lane[1], lane[2], PD_VECTOR_MAX, &errors), 0);
	for (uint32_t i = 0; i < sent; i++)
		data += !is_control(i);
	while (got < data) {
		got += collect(out, &len);
		assert_true(pd_port_forward(lane[1], lane[2], PD_VECTOR_MAX, &errors) >= 0);
	}
	assert_int_equal(got, data);
	assert_int_equal(errors.sidecar_input[PD_SIDECAR_INPUT_ERROR_CONTROL], sent - data);
	for (uint32_t i = 0; i < got; i++, want++) {
		want += is_control(want);
		memcpy(&number, out + at + PD_BUFFER_SIDECAR_BYTES, sizeof(number));
		assert_int_equal(number, want);
		at += PD_BUFFER_SIDECAR_BYTES + 4 + number * 37 % 1197;
	}
	assert_int_equal(at, len);
}

static void test_port_output_counts_what_does_not_go(void **state)
{
	struct pd_engine *e = engine_new();
	struct pd_node *output = pd_engine_node(e, "port-output");
	uint32_t sent = 0;

	assert_int_equal(pd_engine_attach(e, lane[1], 2), 0);
	assert_int_equal(pd_engine_attach(e, lane[2], 1), 0);
	while (send_frame(sent) && sent < 30)
		sent++;
	pd_port_close(&pd_ports[3]); /* pd2 goes down */
	pd_engine_round(e);
	assert_int_equal(output->errors[PD_PORT_OUTPUT_ERROR_NO_PORT], output->vectors);
	assert_true(output->vectors > 0);
	assert_int_equal(pd_lane_ready(lane[1], PD_RX), 0);
	pd_engine_destroy(e);
	assert_int_equal(pd_port_open(&pd_ports[3]), 0);
}

static void *engine_thread(void *arg)
{
	pd_engine_run(arg);
	return NULL;
}

static void test_engine_sleeps_wakes_and_stops(void **state)
{
	struct pd_engine *e = engine_new();
	uint64_t rounds;
	pthread_t t;

	e->idle_limit = 10;
	assert_int_equal(pd_engine_attach(e, lane[1], 2), 0);
	assert_int_equal(pd_engine_attach(e, lane[2], 1), 0);
	assert_int_equal(pthread_create(&t, NULL, engine_thread, e), 0);
	for (uint32_t seq = 0; seq < 400; seq++) {
		static uint8_t out[65536];
		size_t len = 0;

		while (!send_frame(seq))
			sched_yield();
		if (is_control(seq))
			continue;
		while (!collect(out, &len))
			sched_yield();
		assert_memory_equal(out + PD_BUFFER_SIDECAR_BYTES, &seq, sizeof(seq));
	}
	pd_engine_stop(e);
	pthread_join(t, NULL);
	/* Most rounds were not spent polling for nothing. */
	rounds = e->rounds;
	assert_true(rounds < 400ull * 4 * e->idle_limit);
	pd_engine_destroy(e);
}

static unsigned slept;

/* In place of a sleep: the round before found nothing. */
static int sleep_once(struct pd_engine *e, int timeout_ms)
{
	assert_int_equal(pd_engine_node(e, "t-input")->last_vectors, 0);
	assert_int_equal(timeout_ms, -1);
	slept++;
	pd_engine_stop(e);
	return 0;
}

static void test_what_came_before_the_sleep_is_found(void **state)
{
	struct pd_engine *e = engine_new();

	e->idle_limit = 5;
	e->sleep = sleep_once;
	late = true;
	assert_int_equal(pd_engine_run(e), 0);
	assert_int_equal(made, 1);
	assert_int_equal(slept, 1);
	pd_engine_destroy(e);
}

/* Not a test of speed, only a figure for who reads the log. */
static void test_cost_of_dispatch(void **state)
{
	struct pd_engine *e = engine_new();
	struct pd_node *turn = pd_engine_node(e, "t-turn");
	uint64_t start, ns;
	int rounds = 20000;

	to_make = 32;
	for (int i = 0; i < 100; i++)
		pd_engine_round(e);
	start = pd_clock_ns();
	for (int i = 0; i < rounds; i++)
		pd_engine_round(e);
	ns = pd_clock_ns() - start;
	print_message(
		"# a frame takes %.1f ns through input, turn (twice on average), its end and the "
		"pool; %.1f ns per frame in one node\n",
		(double)ns / rounds / 32,
		(double)turn->clocks * 1000 / (double)pd_clock_cycles_per_us() /
			(double)turn->clocked_vectors);
	assert_int_equal(pool->free_count, pool->count);
	pd_engine_destroy(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_frame_reaches_its_end_in_order),
		cmocka_unit_test(test_what_came_before_the_sleep_is_found),
		cmocka_unit_test(test_clocks_are_read_for_vectors_of_four),
		cmocka_unit_test(test_bad_graphs_are_refused),
		cmocka_unit_test(test_nodes_are_numbered_as_they_were_registered),
		cmocka_unit_test(test_overflow_ends_with_the_round),
		cmocka_unit_test_setup_teardown(test_graph_and_fused_path_give_the_same,
						ports_setup, ports_teardown),
		cmocka_unit_test_setup_teardown(test_fused_path_leaves_what_has_no_room,
						ports_setup, ports_teardown),
		cmocka_unit_test_setup_teardown(test_port_output_counts_what_does_not_go,
						ports_setup, ports_teardown),
		cmocka_unit_test_setup_teardown(test_engine_sleeps_wakes_and_stops, ports_setup,
						ports_teardown),
		cmocka_unit_test(test_cost_of_dispatch),
	};
	int err;

	pd_log_set_level(PD_LOG_NONE);
	pool = pd_buffer_pool_create("graph", 4096, 1280, &err);
	return pool ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
