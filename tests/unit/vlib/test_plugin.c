/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vlib/plugin, lane_plugins, and what of the graph they use: nodes and arcs at run time, places on a
 * way, punt; tables that are refused; results that wait in a lane, however they are taken.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "vlib/lane_plugins.h"
#include "vlib/plugin.h"
#include "vlib/progress.h"
#include "vlib/runtime.h"

static struct pd_buffer_pool *pool;

/* --- nodes and arcs at run time: p-source, which opens, -> p-sink ----------------------------- */

static char way[64]; /* a letter for each node that a frame came to */

static unsigned pass(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	static const uint16_t nexts[PD_VECTOR_MAX];
	size_t len = strlen(way);

	if (len + 1 < sizeof(way))
		way[len] = node->reg->name[2];
	pd_enqueue(e, node, v->index, nexts, v->n);
	return v->n;
}

static unsigned sink(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	(void)e;
	way[strlen(way)] = node->reg->name[2];
	pd_buffer_free(v->index, v->n);
	return v->n;
}

PD_NODE_REGISTER(p_source) = {.name = "p-source",
			      .type = PD_NODE_INTERNAL,
			      .fn = pass,
			      .opens = true,
			      .next_count = 1,
			      .next_names = {"p-Sink"}};
PD_NODE_REGISTER(p_closed) = {.name = "p-closed",
			      .type = PD_NODE_INTERNAL,
			      .fn = pass,
			      .next_count = 1,
			      .next_names = {"p-Sink"}};
PD_NODE_REGISTER(p_sink) = {.name = "p-Sink", .type = PD_NODE_INTERNAL, .fn = sink};

/* A node on the way from `after` to `before`. */
static struct pd_node_registration between(const char *name, const char *after, const char *before)
{
	return (struct pd_node_registration){.name = name,
					     .type = PD_NODE_INTERNAL,
					     .fn = pass,
					     .opens = true,
					     .after = after,
					     .before = before,
					     .next_count = 1,
					     .next_names = {before}};
}

/* The way of one frame from p-source, as letters. */
static const char *walk(struct pd_engine *e)
{
	uint32_t index;

	memset(way, 0, sizeof(way));
	assert_int_equal(pd_buffer_alloc(pool, &index, 1), 1);
	pd_engine_run_frames(e, pd_engine_node(e, "p-source"), &index, 1);
	assert_int_equal(pool->free_count, pool->count);
	return way;
}

static struct pd_engine *engine_new(void)
{
	int err;
	struct pd_engine *e = pd_engine_create("test", &err);

	assert_non_null(e);
	return e;
}

static void test_nodes_take_places_in_an_engine_that_is_there(void **state)
{
	struct pd_node_registration a = between("p-a", "p-source", "p-Sink"),
				    b = between("p-b", "p-source", "p-Sink"),
				    c = between("p-c", "p-a", "p-b"),
				    d = between("p-d", "p-source", "p-Sink");
	struct pd_engine *e = engine_new();
	unsigned count = e->node_count;
	struct pd_node *added;
	int err;

	assert_string_equal(walk(e), "sS");
	added = pd_engine_add_node(e, &a, &err);
	assert_non_null(added);
	assert_ptr_equal(added, pd_engine_node(e, "p-a"));
	assert_string_equal(walk(e), "saS");
	assert_non_null(pd_engine_add_node(e, &b, &err));
	assert_string_equal(walk(e), "sabS");
	assert_non_null(pd_engine_add_node(e, &c, &err));
	assert_string_equal(walk(e), "sacbS");
	assert_non_null(pd_engine_add_node(e, &d, &err));
	assert_string_equal(walk(e), "sacbdS");
	assert_int_equal(e->node_count, count + 4);
	assert_int_equal(pd_engine_node(e, "p-c")->calls, 2);
	pd_engine_destroy(e);
}

static void test_nodes_that_do_not_fit_change_nothing(void **state)
{
	struct pd_node_registration twice = between("p-closed", NULL, NULL),
				    lost = between("p-a", "p-source", "p-closed"),
				    shut = between("p-a", "p-closed", "p-Sink"),
				    nowhere = between("p-a", NULL, "nowhere"),
				    self = between("p-self", NULL, "p-self"),
				    fits = between("p-f", "p-source", "p-Sink");
	struct pd_engine *e = engine_new();
	unsigned count = e->node_count, i;
	static char names[PD_ENGINE_SPARE_NODES][8];
	static struct pd_node_registration many[PD_ENGINE_SPARE_NODES];
	int err;

	twice.next_count = lost.next_count = 0;
	nowhere.before = NULL;
	assert_null(pd_engine_add_node(e, &twice, &err));
	assert_int_equal(err, -EEXIST);
	assert_null(pd_engine_add_node(e, &lost, &err));
	assert_int_equal(err, -ENOENT);
	assert_null(pd_engine_add_node(e, &shut, &err));
	assert_int_equal(err, -EPERM);
	assert_null(pd_engine_add_node(e, &nowhere, &err));
	assert_int_equal(err, -ENOENT);
	assert_int_equal(e->node_count, count);
	assert_string_equal(walk(e), "sS");
	self.before = NULL;
	assert_non_null(pd_engine_add_node(e, &self, &err));
	assert_int_equal(pd_engine_node(e, "p-self")->next[0], count);
	for (i = 0; i < PD_ENGINE_SPARE_NODES - 1; i++) {
		snprintf(names[i], sizeof(names[i]), "p-%u", i);
		many[i] = between(names[i], "p-source", "p-Sink");
		assert_non_null(pd_engine_add_node(e, &many[i], &err));
	}
	assert_null(pd_engine_add_node(e, &fits, &err));
	assert_int_equal(err, -E2BIG);
	assert_string_equal(walk(e), "s0123456S");
	pd_engine_destroy(e);
}

/* The same graph, whether nodes were registered or added. */
static void test_an_engine_is_made_with_places(void **state)
{
	struct pd_node_registration *all = pd_node_registrations;
	struct pd_node_registration a = between("p-a", "p-source", "p-Sink"),
				    b = between("p-b", "p-a", "p-Sink"),
				    c = between("p-c", "p-source", "p-Sink"),
				    bad = between("p-x", "p-b", "p-a");
	struct pd_engine *e;
	int err;

	pd_node_register(&a);
	pd_node_register(&b);
	pd_node_register(&c);
	e = engine_new();
	assert_string_equal(walk(e), "sabcS");
	pd_engine_destroy(e);
	pd_node_register(&bad);
	assert_null(pd_engine_create("test", &err));
	assert_int_equal(err, -ENOENT);
	pd_node_unregister(&b);
	pd_node_unregister(&bad);
	e = engine_new();
	assert_string_equal(walk(e), "sacS");
	assert_null(pd_engine_node(e, "p-b"));
	pd_engine_destroy(e);
	pd_node_unregister(&c);
	pd_node_unregister(&a);
	pd_node_unregister(&a); /* which is not there */
	assert_ptr_equal(pd_node_registrations, all);
}

static void test_arcs_are_added_once(void **state)
{
	struct pd_engine *e = engine_new();
	struct pd_node *closed = pd_engine_node(e, "p-closed"),
		       *sinks = pd_engine_node(e, "p-Sink");

	assert_int_equal(pd_node_add_next(closed, sinks), 0);
	assert_int_equal(pd_node_add_next(closed, pd_engine_node(e, "drop")), 1);
	assert_int_equal(pd_node_add_next(closed, pd_engine_node(e, "drop")), 1);
	assert_int_equal(closed->next_count, 2);
	closed->next_count = PD_NODE_NEXTS_MAX;
	assert_int_equal(pd_node_add_next(closed, pd_engine_node(e, "punt")), -E2BIG);
	pd_engine_destroy(e);
}

static void test_punted_frames_go_to_who_takes_them(void **state)
{
	struct pd_engine *e = engine_new();
	struct pd_node *punt = pd_engine_node(e, "punt");
	uint32_t index;

	assert_int_equal(pd_buffer_alloc(pool, &index, 1), 1);
	pd_engine_run_frames(e, punt, &index, 1);
	assert_int_equal(punt->errors[0], 1);
	assert_int_equal(pd_engine_node(e, "drop")->vectors, 1);
	assert_int_equal(pd_engine_punt_to(e, pd_engine_node(e, "p-Sink")), 0);
	memset(way, 0, sizeof(way));
	assert_int_equal(pd_buffer_alloc(pool, &index, 1), 1);
	pd_engine_run_frames(e, punt, &index, 1);
	assert_string_equal(way, "S");
	assert_int_equal(punt->errors[0], 1);
	assert_int_equal(pool->free_count, pool->count);
	pd_engine_destroy(e);
}

/* --- tables ------------------------------------------------------------------------------------ */

/* What every frame carries from its 14th byte on. */
struct body {
	uint32_t number;
	uint8_t passed, what; /* how often it came to the node, and where that sends it */
} __attribute__((packed));

enum { SEEN, AGAIN, COUNTERS };
static const char *const texts[COUNTERS] = {"seen", "seen again"};
static uint64_t *counters; /* of the one place where frames come in */

static void work(struct palladium_node_state *node, struct palladium_frame *const *frames,
		 uint16_t *next, unsigned n)
{
	counters = node->counters;
	for (unsigned i = 0; i < n; i++) {
		struct body body;

		assert_int_equal(palladium_frame_read(frames[i], 14, &body, sizeof(body)),
				 sizeof(body));
		assert_memory_equal(palladium_frame_head(frames[i]) + 14, &body, sizeof(body));
		palladium_node_count(node, body.passed ? AGAIN : SEEN, 1);
		palladium_node_count(node, COUNTERS, 1); /* there is none */
		body.passed++;
		next[i] = body.what;
		assert_int_equal(palladium_frame_write(frames[i], 14, &body, sizeof(body)),
				 sizeof(body));
	}
}

static const struct palladium_node good_nodes[] = {{.name = "t-work",
						    .work = work,
						    .after = "plugin-input",
						    .before = "plugin-output",
						    .texts = texts,
						    .text_count = COUNTERS}};
PALLADIUM_PLUGIN("test", good_nodes, 1, NULL, 0);

static void test_tables_with_mistakes_are_refused(void **state)
{
	static const char *const hole[] = {"a", NULL};
	struct palladium_node node = good_nodes[0];
	struct palladium_init start = {.name = "x"};
	struct palladium_plugin t = palladium_plugin;

	t.nodes = &node;
	assert_null(pd_plugin_check(&t));
#define REFUSED(what, field, value, word)                           \
	do {                                                        \
		__typeof__(what) kept = what;                       \
                                                                    \
		what.field = value;                                 \
		assert_non_null(pd_plugin_check(&t));               \
		assert_non_null(strstr(pd_plugin_check(&t), word)); \
		what = kept;                                        \
	} while (0)
	REFUSED(t, magic, 0, "not what PALLADIUM_PLUGIN makes");
	REFUSED(t, version, PALLADIUM_PLUGIN_VERSION + 1, "another version");
	REFUSED(t, version, PALLADIUM_PLUGIN_VERSION - 1, "another version");
	REFUSED(t, version, 0, "another version");
	REFUSED(t, size, 63, "another version");
	REFUSED(t, node_size, 100, "another version");
	REFUSED(t, init_size, 8, "another version");
	REFUSED(t, name, NULL, "holes");
	REFUSED(t, host, NULL, "holes");
	REFUSED(t, nodes, NULL, "holes");
	REFUSED(t, init_count, 1, "holes");
	REFUSED(node, name, NULL, "without a name");
	REFUSED(node, name, "", "without a name");
	REFUSED(node, work, NULL, "without a name or a work");
	REFUSED(node, after, NULL, "one end");
	REFUSED(node, before, NULL, "one end");
	REFUSED(node, next_count, 1, "nexts");
	REFUSED(node, texts, NULL, "texts");
	REFUSED(node, text_count, 5000, "texts");
	REFUSED(node, texts, hole, "without a text");
	node.nexts = hole;
	REFUSED(node, next_count, 13, "nexts");
	REFUSED(node, next_count, 2, "next without a name");
	t.inits = &start;
	REFUSED(t, init_count, 1, "init function");
	assert_null(pd_plugin_check(&t));
#undef REFUSED
}

/* --- results in a lane: pd0 sends, pd1 receives -------------------------------------------------- */

static struct pd_config *config;
static struct pd_lane *out, *in;
static uint32_t sent;
static uint64_t before[COUNTERS];

static int lanes_setup(void **state)
{
	config = calloc(1, sizeof(*config));
	config->port_count = 2;
	for (unsigned i = 0; i < 2; i++) {
		struct pd_port_config *pc = &config->ports[i];

		snprintf(pc->name, sizeof(pc->name), "pd%u", i);
		snprintf(pc->peer, sizeof(pc->peer), "pd%u", i ^ 1);
		strcpy(pc->transport, "loop");
		pc->mtu = 1500;
		pc->queues = 1;
		pc->ring = 64;
	}
	if (!pd_plugins) {
		assert_non_null(pd_plugin_add("here", NULL, &palladium_plugin));
		assert_int_equal(pd_plugins_start(), 1);
	}
	assert_int_equal(pd_ports_init(config), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pd_port_open(&pd_ports[i]), 0);
	out = pd_ports[0].lanes[0];
	in = pd_ports[1].lanes[0];
	sent = 0;
	for (unsigned i = 0; i < COUNTERS && counters; i++)
		before[i] = counters[i];
	return 0;
}

static int lanes_teardown(void **state)
{
	pd_ports_close_all();
	pd_progress_stop();
	free(config);
	return 0;
}

/* Send a frame that the node sends to `what`; false when the ring is full. */
static bool send_one(uint8_t what)
{
	struct body body = {.number = sent, .what = what};
	struct pd_buffer *b;
	uint32_t index;
	int ret;

	assert_int_equal(pd_buffer_alloc(pool, &index, 1), 1);
	b = pd_buffer_get(index);
	b->len = b->total_len = 64;
	memset(b->data, 0, 64);
	memcpy(b->data + 14, &body, sizeof(body));
	pd_lock(&out->side[PD_TX].lock);
	ret = out->ops->tx(out, &b, 1);
	out->ops->tx_flush(out);
	pd_unlock(&out->side[PD_TX].lock);
	pd_buffer_free(&index, 1);
	sent += ret == 1;
	return ret == 1;
}

/* What the node counted in this test: its engine is the process's. */
static uint64_t counted(unsigned counter)
{
	return counters ? pd_load_relaxed(&counters[counter]) - before[counter] : 0;
}

/* Look at up to `n` frames and consume up to `k`; those must be the next that were not dropped. */
static unsigned receive(unsigned n, unsigned k, const uint8_t *what, uint32_t *at)
{
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	struct body body;
	int got;

	pd_lock(&in->side[PD_RX].lock);
	got = in->ops->rx(in, bufs, n);
	assert_in_range(got, 0, n);
	k = pd_min(k, (unsigned)got);
	for (unsigned i = 0; i < (unsigned)got; i++) {
		uint32_t number = *at;

		while (what[number] == PALLADIUM_NEXT_DROP || what[number] == PALLADIUM_NEXT_ERROR)
			number++;
		assert_true(bufs[i]->flags & PD_BUFFER_EXTERNAL);
		assert_int_equal(pd_buffer_copy_out(bufs[i], 14, &body, sizeof(body)),
				 sizeof(body));
		assert_int_equal(body.number, number);
		assert_int_equal(body.passed, 1);
		if (i < k)
			*at = number + 1;
		else
			break;
	}
	in->ops->rx_done(in, k);
	pd_unlock(&in->side[PD_RX].lock);
	return (unsigned)got;
}

#define STREAM 20000

static void test_results_come_once_and_in_order(void **state)
{
	static uint8_t what[STREAM + 64];
	uint32_t at = 0, wanted = 0, random = 1;
	unsigned idle = 0;

	for (unsigned i = 0; i < STREAM; i++) {
		random = random * 1103515245 + 12345;
		/* Long runs of dropped frames, too. */
		what[i] = i / 500 % 5 == 3 ? PALLADIUM_NEXT_DROP
					   : (random >> 16) % PALLADIUM_NEXT_OWN;
		wanted += what[i] == PALLADIUM_NEXT_ON || what[i] == PALLADIUM_NEXT_PUNT;
	}
	while (sent < STREAM || idle < 3) {
		unsigned burst, n, k;

		random = random * 1103515245 + 12345;
		burst = (random >> 16) % 40;
		n = 1 + (random >> 20) % 20;
		k = (random >> 24) % 25;
		while (burst-- && sent < STREAM && send_one(what[sent]))
			;
		idle = receive(n, k, what, &at) ? 0 : idle + 1;
	}
	pd_lock(&in->side[PD_RX].lock);
	assert_int_equal(pd_lane_ready(in, PD_RX), 0);
	pd_unlock(&in->side[PD_RX].lock);
	assert_int_equal(counted(SEEN), STREAM);
	assert_int_equal(counted(AGAIN), 0);
	while (at < STREAM && (what[at] == PALLADIUM_NEXT_DROP || what[at] == PALLADIUM_NEXT_ERROR))
		at++;
	assert_int_equal(at, STREAM);
	assert_true(wanted > STREAM / 4);
}

/* The pool of the lane's copies has all of them back; for pd_buffer_pool_each. */
static void look_at_pool(const struct pd_buffer_pool_state *p, void *arg)
{
	if (strstr(p->name, "pd1/0"))
		*(uint32_t *)arg = p->count - p->free_count;
}

static uint32_t held(void)
{
	uint32_t n = UINT32_MAX;

	pd_buffer_pool_each(look_at_pool, &n);
	return n;
}

static void test_results_end_with_the_link(void **state)
{
	static const uint8_t what[64];
	uint32_t at = 0;

	for (unsigned i = 0; i < 10; i++)
		assert_true(send_one(PALLADIUM_NEXT_ON));
	assert_int_equal(receive(3, 2, what, &at), 3);
	assert_int_equal(held(), 8);
	assert_int_equal(counted(SEEN), 10);
	pd_lock(&in->side[PD_RX].lock);
	pd_lane_set_link(in, PD_RX, true, in->side[PD_RX].event_fd, in->side[PD_RX].cursor);
	pd_unlock(&in->side[PD_RX].lock);
	/* The ring has the same frames still: they go through the node anew. */
	assert_int_equal(receive(8, 8, what, &at), 8);
	assert_int_equal(counted(SEEN), 18);
	assert_int_equal(held(), 0);
	assert_int_equal(at, 10);
}

static void test_a_child_has_none_of_its_parents_results(void **state)
{
	static const uint8_t what[64];
	uint32_t at = 0;

	for (unsigned i = 0; i < 5; i++)
		assert_true(send_one(PALLADIUM_NEXT_ON));
	assert_int_equal(receive(1, 0, what, &at), 1);
	assert_int_equal(held(), 5);
	pd_lane_plugins_after_fork();
	assert_int_equal(held(), 0);
	assert_int_equal(receive(5, 5, what, &at), 5);
}

static void test_a_port_that_is_opened_again_keeps_its_engine(void **state)
{
	static const uint8_t what[64];
	const struct pd_lane_plugins *kept = in->plugins;
	uint32_t at = 0;

	assert_non_null(kept);
	assert_true(send_one(PALLADIUM_NEXT_ON));
	assert_int_equal(receive(1, 0, what, &at), 1);
	pd_ports_close_all();
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pd_port_open(&pd_ports[i]), 0);
	out = pd_ports[0].lanes[0];
	in = pd_ports[1].lanes[0];
	assert_ptr_equal(in->plugins, kept);
	sent = at = 0;
	assert_true(send_one(PALLADIUM_NEXT_ON));
	assert_int_equal(receive(1, 1, what, &at), 1);
	assert_int_equal(held(), 0);
}

static int setup(void **state)
{
	int err;

	pd_log_set_level(PD_LOG_NONE);
	pool = pd_buffer_pool_create("test", 64, 2048, &err);
	return pool ? 0 : -1;
}

static int teardown(void **state)
{
	pd_buffer_pool_destroy(pool);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nodes_take_places_in_an_engine_that_is_there),
		cmocka_unit_test(test_nodes_that_do_not_fit_change_nothing),
		cmocka_unit_test(test_an_engine_is_made_with_places),
		cmocka_unit_test(test_arcs_are_added_once),
		cmocka_unit_test(test_punted_frames_go_to_who_takes_them),
		cmocka_unit_test(test_tables_with_mistakes_are_refused),
		cmocka_unit_test_setup_teardown(test_results_come_once_and_in_order, lanes_setup,
						lanes_teardown),
		cmocka_unit_test_setup_teardown(test_results_end_with_the_link, lanes_setup,
						lanes_teardown),
		cmocka_unit_test_setup_teardown(test_a_child_has_none_of_its_parents_results,
						lanes_setup, lanes_teardown),
		cmocka_unit_test_setup_teardown(test_a_port_that_is_opened_again_keeps_its_engine,
						lanes_setup, lanes_teardown),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
