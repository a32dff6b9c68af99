/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/trace: which frames are followed, what is kept of them, and nothing when it is off. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic.h"
#include "vlib/trace.h"

/* --- nodes of the test: r-input -> r-turn (again to itself) -> r-sink ------------------------ */

static struct pd_buffer_pool *pool;
static unsigned to_make;
static uint32_t made;                   /* the frame's number is in opaque */
static bool share;                      /* every frame has a second holder */
static bool clear_at_turn, ask_at_turn; /* once */
static unsigned more;                   /* frames of r-more */

struct note {
	uint32_t number, turns;
};

/* Runs before r-input, so that there is a vector for r-turn already. */
static unsigned r_more(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	const struct note note = {UINT32_MAX, 0};
	unsigned room;

	for (unsigned i = 0; i < more; i++) {
		uint32_t *to = pd_next_get(e, node, 0, &room);

		assert_int_equal(pd_buffer_alloc(pool, to, 1), 1);
		memcpy(pd_buffer_get(*to)->opaque, &note, sizeof(note));
		pd_next_put(e, node, 0, 1);
	}
	return 0;
}

PD_NODE_REGISTER(r_more) = {.name = "r-more",
			    .type = PD_NODE_INPUT,
			    .fn = r_more,
			    .next_count = 1,
			    .next_names = {"r-turn"}};

static unsigned r_input(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	unsigned total = 0, room;

	while (total < to_make) {
		/* Two arcs lead to r-turn. */
		uint32_t *to = pd_next_get(e, node, total & 1, &room);
		struct note note = {made, made & 1};

		assert_int_equal(pd_buffer_alloc(pool, to, 1), 1);
		memcpy(pd_buffer_get(*to)->opaque, &note, sizeof(note));
		if (share)
			pd_buffer_ref(pd_buffer_get(*to));
		pd_next_put(e, node, total & 1, 1);
		made++;
		total++;
	}
	return total;
}

static void r_trace(const struct pd_engine *e, const struct pd_node *node,
		    const struct pd_buffer *b, void *record)
{
	memcpy(record, b->opaque, sizeof(struct note));
}

static int r_format(char *out, size_t size, const void *record)
{
	struct note note;

	memcpy(&note, record, sizeof(note));
	return snprintf(out, size, "number %u\nturns %u", note.number, note.turns);
}

PD_NODE_REGISTER(r_input) = {.name = "r-input",
			     .type = PD_NODE_INPUT,
			     .fn = r_input,
			     .next_count = 2,
			     .next_names = {"r-turn", "r-turn"},
			     .trace = r_trace,
			     .format_trace = r_format};

static uint16_t r_turn_one(const struct pd_node_ctx *ctx, struct pd_buffer *b)
{
	struct note note;

	memcpy(&note, b->opaque, sizeof(note));
	if (clear_at_turn)
		pd_trace_clear();
	if (ask_at_turn)
		assert_int_equal(pd_trace_add("r-sink", 2), 0);
	clear_at_turn = ask_at_turn = false;
	if (!note.turns)
		return 1;
	note.turns--;
	memcpy(b->opaque, &note, sizeof(note));
	return 0;
}
PD_NODE_DISPATCH(r_turn, r_turn_one);

PD_NODE_REGISTER(r_turn) = {.name = "r-turn",
			    .type = PD_NODE_INTERNAL,
			    .fn = r_turn,
			    .next_count = 2,
			    .next_names = {"r-turn", "r-sink"},
			    .trace = r_trace,
			    .format_trace = r_format};

static unsigned r_sink(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	pd_buffer_free(v->index, v->n);
	if (share)
		pd_buffer_free(v->index, v->n);
	return v->n;
}

PD_NODE_REGISTER(r_sink) = {.name = "r-sink", .type = PD_NODE_INTERNAL, .fn = r_sink};

/* --- helpers --------------------------------------------------------------------------------- */

static struct pd_engine *engine;
static char text[1 << 20];
static size_t text_n;

static int setup(void **state)
{
	int err;

	engine = pd_engine_create("one", &err);
	to_make = made = more = 0;
	share = clear_at_turn = ask_at_turn = false;
	return engine ? 0 : -1;
}

static int teardown(void **state)
{
	pd_engine_destroy(engine);
	return pool->free_count != pool->count || pd_load_relaxed(&pd_graph_wanted);
}

static void add_line(void *arg, const char *line)
{
	text_n += (size_t)snprintf(text + text_n, sizeof(text) - text_n, "%s\n", line);
	assert_true(text_n < sizeof(text));
}

/* Print; how often `what` stands there. */
static unsigned printed(const char *what)
{
	unsigned n = 0;

	text_n = 0;
	*text = 0;
	assert_int_equal(pd_trace_print(0, add_line, NULL), 0);
	for (const char *at = text; (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void round_of(unsigned frames)
{
	to_make = frames;
	assert_int_equal(pd_engine_round(engine), frames);
}

/* --- tests ----------------------------------------------------------------------------------- */

static void test_nothing_is_traced_unasked(void **state)
{
	round_of(100);
	assert_int_equal(printed("No packets in trace buffer"), 1);
	assert_int_equal(text_n, strlen("No packets in trace buffer\n"));
	assert_null(engine->tracer); /* not even memory */
	assert_int_equal(pd_graph_wanted, 0);
}

static void test_the_next_frames_of_an_input_node_are_followed(void **state)
{
	round_of(3);
	assert_int_equal(pd_trace_add("r-input", 5), 0);
	assert_int_equal(pd_graph_wanted, 1);
	round_of(2);
	assert_int_equal(pd_graph_wanted, 1);
	round_of(600);
	assert_int_equal(pd_graph_wanted, 0);
	assert_int_equal(printed("Packet "), 5);
	assert_int_equal(printed("Start of one"), 1);
	/* Each with its number, which begins behind the first three; odd ones go round once. */
	assert_int_equal(printed(": r-input\n"), 5);
	assert_int_equal(printed(": r-turn\n"), 8);
	assert_int_equal(printed(": r-sink\n"), 5);
	assert_non_null(strstr(text, ": r-input\n  number 3\n  turns 1\n"));
	assert_non_null(strstr(text, ": r-turn\n  number 3\n  turns 1\n"));
	assert_non_null(strstr(text, ": r-turn\n  number 3\n  turns 0\n"));
	assert_non_null(strstr(text, "number 4\n"));
	assert_null(strstr(text, "number 2\n"));
}

static void test_frames_may_be_followed_from_the_middle(void **state)
{
	assert_int_equal(pd_trace_add("r-sink", 4), 0);
	round_of(300);
	assert_int_equal(printed("Packet "), 4);
	assert_int_equal(printed(": r-sink\n"), 4);
	assert_int_equal(printed(": r-turn\n"), 0);
}

static void test_only_what_the_node_brought_in_is_its(void **state)
{
	more = 3;
	assert_int_equal(pd_trace_add("r-input", 100), 0);
	round_of(10);
	assert_int_equal(printed("Packet "), 10);
	assert_int_equal(printed(": r-input\n"), 10);
	assert_null(strstr(text, "number 4294967295"));
	pd_trace_clear();
}

static void test_asking_again_adds(void **state)
{
	assert_int_equal(pd_trace_add("r-input", 2), 0);
	assert_int_equal(pd_trace_add("r-input", 3), 0);
	round_of(10);
	assert_int_equal(printed("Packet "), 5);
	assert_int_equal(pd_trace_add("r-input", 1), 0);
	round_of(10);
	assert_int_equal(printed("Packet "), 6);
}

static void test_a_full_buffer_says_so(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(pd_trace_add("r-input", 1000), 0);
		round_of(1000);
	}
	printed("Packet ");
	assert_non_null(strstr(text, "the buffer is full: "));
	/* Nothing is left to be done, though not all was kept. */
	assert_int_equal(pd_graph_wanted, 0);
	round_of(10);
}

static void test_clear_forgets_frames_on_their_way(void **state)
{
	assert_int_equal(pd_trace_add("r-input", 100), 0);
	clear_at_turn = true;
	round_of(4);
	assert_int_equal(printed("Packet "), 0);
	assert_int_equal(pd_graph_wanted, 0);
	/* And what is asked for then is not mixed with what was. */
	assert_int_equal(pd_trace_add("r-sink", 1), 0);
	round_of(4);
	assert_int_equal(printed("Packet "), 1);
	assert_int_equal(printed(": r-turn\n"), 0);
}

/* Frames that were followed before have numbers that are given anew. */
static void test_old_frames_are_not_taken_for_new_ones(void **state)
{
	assert_int_equal(pd_trace_add("r-input", 100), 0);
	clear_at_turn = ask_at_turn = true;
	round_of(4);
	assert_int_equal(printed("Packet "), 2);
	assert_int_equal(printed(": r-sink\n"), 2);
}

static void test_shared_frames_are_not_marked(void **state)
{
	share = true;
	assert_int_equal(pd_trace_add("r-input", 100), 0);
	round_of(10);
	assert_int_equal(printed("Packet "), 0);
	pd_trace_clear();
}

static void test_what_cannot_be_traced_is_refused(void **state)
{
	static const char *const nodes[] = {"r-input", "r-turn", "r-sink", "drop"};

	assert_int_equal(pd_trace_add("nowhere", 1), -ENOENT);
	assert_int_equal(pd_trace_add("r-input", 0), -EINVAL);
	assert_int_equal(pd_trace_add("r-input", PD_TRACE_FRAMES_MAX + 1), -EINVAL);
	assert_null(engine->tracer);
	for (size_t i = 0; i < PD_ARRAY_SIZE(nodes); i++)
		assert_int_equal(pd_trace_add(nodes[i], 1), 0);
	assert_int_equal(pd_trace_add("error-drop", 1), -ENOSPC);
	assert_int_equal(pd_graph_wanted, 1); /* the engine, not its nodes */
	/* The engine ends with wishes open: the teardown looks at pd_graph_wanted. */
}

static void test_engines_that_come_later_are_left_alone(void **state)
{
	struct pd_engine *two;
	int err;

	assert_int_equal(pd_trace_add("r-input", 5), 0);
	two = pd_engine_create("two", &err);
	assert_non_null(two);
	to_make = 3;
	pd_engine_round(two);
	assert_null(two->tracer);
	assert_int_equal(pd_trace_add("r-input", 2), 0);
	pd_engine_round(two);
	assert_int_equal(printed("Start of two"), 1);
	assert_int_equal(printed("Packet "), 2);
	pd_engine_destroy(two);
}

static uint32_t done; /* atomic */

static void *ask_and_look(void *arg)
{
	while (!pd_load_acquire(&done)) {
		pd_trace_add("r-input", 20);
		printed("Packet ");
		sched_yield();
		pd_trace_clear();
	}
	return NULL;
}

static void test_others_may_look_meanwhile(void **state)
{
	pthread_t thread;

	pd_store_release(&done, 0);
	assert_int_equal(pthread_create(&thread, NULL, ask_and_look, NULL), 0);
	for (unsigned i = 0; i < 500; i++) {
		round_of(50);
		sched_yield();
	}
	pd_store_release(&done, 1);
	pthread_join(thread, NULL);
	pd_trace_clear();
}

#define WITH_ENGINE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ENGINE(test_nothing_is_traced_unasked),
		WITH_ENGINE(test_the_next_frames_of_an_input_node_are_followed),
		WITH_ENGINE(test_frames_may_be_followed_from_the_middle),
		WITH_ENGINE(test_only_what_the_node_brought_in_is_its),
		WITH_ENGINE(test_asking_again_adds),
		WITH_ENGINE(test_a_full_buffer_says_so),
		WITH_ENGINE(test_clear_forgets_frames_on_their_way),
		WITH_ENGINE(test_old_frames_are_not_taken_for_new_ones),
		WITH_ENGINE(test_shared_frames_are_not_marked),
		WITH_ENGINE(test_what_cannot_be_traced_is_refused),
		WITH_ENGINE(test_engines_that_come_later_are_left_alone),
		WITH_ENGINE(test_others_may_look_meanwhile),
	};
	int err, ret;

	pool = pd_buffer_pool_create("test", 4096, 128, &err);
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	pd_buffer_pool_destroy(pool);
	return ret;
}
