/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The handoff demonstration of the VLIB document: its two nodes, its generator script as it stands
 * there, its counters, and its trace on both threads.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "handoffdemo.h"
#include "vlib/generator.h"
#include "vlib/handoff.h"
#include "vlib/runtime.h"
#include "vlib/trace.h"
#include "vlib/worker.h"

#define LIMIT_NS (60 * PD_NS_PER_SEC)
#define QUEUE_FRAMES 64

static const char script[] = "packet-generator new {\n"
			     "   name x\n"
			     "   limit 5\n"
			     "   size 128-128\n"
			     "   interface local0\n"
			     "   node handoffdemo-1\n"
			     "   data {\n"
			     "       incrementing 30\n"
			     "   }\n"
			     "}\n";

/* --- helpers --------------------------------------------------------------------------------- */

static void run_script(const char *text)
{
	char error[PD_STREAM_ERROR_BYTES] = "";
	int ret = pd_generator_script("pg_input_script", text, strlen(text), NULL, error,
				      sizeof(error));

	assert_string_equal(error, "");
	assert_int_equal(ret, 0);
}

static int start(void **state)
{
	int err;

	pd_store_release(&hold, 0);
	if (pd_workers_start(2, NULL))
		return -1;
	pd_store_release(&handoff, pd_handoff_create("handoffdemo-2", QUEUE_FRAMES, NULL, &err));
	run_script(script);
	return handoff ? 0 : -1;
}

/* Every buffer is back, once. */
static int stop(void **state)
{
	pd_store_release(&hold, 0);
	pd_trace_clear();
	pd_workers_stop();
	if (pd_generator_pool()->free_count != pd_generator_pool()->count)
		return -1;
	pd_generator_reset();
	return pd_load_relaxed(&pd_graph_wanted) ? -1 : 0;
}

/* What a node of a worker counted. */
struct sum {
	const char *engine, *node;
	uint64_t vectors, calls, errors[4];
};

static void add_row(const struct pd_node_runtime *row, void *arg)
{
	struct sum *sum = arg;

	if (strcmp(row->node, sum->node) || strcmp(row->engine, sum->engine))
		return;
	sum->vectors = row->vectors;
	sum->calls = row->calls;
	for (unsigned i = 0; i < row->error_count; i++)
		sum->errors[i] = pd_load_relaxed(&row->errors[i]);
}

static struct sum counted(const char *engine, const char *node)
{
	struct sum sum = {.engine = engine, .node = node};

	pd_runtime_each(add_row, &sum);
	return sum;
}

/* Until the last node of either worker has seen `n` frames, and counted them. */
static void wait_dropped(uint64_t n)
{
	uint64_t until = pd_clock_ns() + LIMIT_NS;

	while (counted("palladium_wk_1", "drop").vectors < n ||
	       counted("palladium_wk_0", "handoffdemo-1").vectors < n) {
		assert_true(pd_clock_ns() < until);
		sched_yield();
	}
}

struct text {
	char bytes[65536];
	size_t n;
};

static void add_line(void *arg, const char *line)
{
	struct text *text = arg;

	text->n += (size_t)snprintf(text->bytes + text->n, sizeof(text->bytes) - text->n, "%s\n",
				    line);
	assert_true(text->n < sizeof(text->bytes));
}

/* The text with its times and handles taken out: they are other ones each time. */
static void plain(struct text *text)
{
	char *to = text->bytes, *handle;

	for (char *at = text->bytes; *at;) {
		unsigned h, m, s, us;
		int n = 0;

		if ((at == text->bytes || at[-1] == '\n') && *at >= '0' && *at <= '9' &&
		    sscanf(at, "%u:%u:%u:%u: %n", &h, &m, &s, &us, &n) == 4 && n) {
			at += n;
			*to++ = '@';
		}
		handle = strstr(at, "buffer-pool");
		if (handle == at)
			at += strcspn(at, "\n");
		else
			*to++ = *at++;
	}
	*to = 0;
}

/* --- tests ----------------------------------------------------------------------------------- */

static void test_five_handed_off_five_completed(void **state)
{
	for (unsigned round = 1; round <= 3; round++) {
		assert_int_equal(pd_generator_enable(NULL), 0);
		wait_dropped(round * 5);
		assert_int_equal(counted("palladium_wk_0", "pg-input").vectors, round * 5);
		assert_int_equal(counted("palladium_wk_0", "handoffdemo-1").vectors, round * 5);
		assert_int_equal(
			counted("palladium_wk_0", "handoffdemo-1").errors[DEMO_1_HANDED_OFF],
			round * 5);
		assert_int_equal(
			counted("palladium_wk_0", "handoffdemo-1").errors[DEMO_1_CONGESTION], 0);
		assert_int_equal(counted("palladium_wk_1", "handoffdemo-2").vectors, round * 5);
		assert_int_equal(counted("palladium_wk_1", "handoffdemo-2").errors[0], round * 5);
		/* Each did its own part. */
		assert_int_equal(counted("palladium_wk_0", "handoffdemo-2").vectors, 0);
		assert_int_equal(counted("palladium_wk_1", "handoffdemo-1").vectors, 0);
		assert_int_equal(counted("palladium_wk_0", "drop").vectors, 0);
	}
}

#define FRAME_ON_THREAD_1                                                    \
	"\n"                                                                 \
	"@pg-input\n"                                                        \
	"  stream x, 128 bytes, local0\n"                                    \
	"  current data 0, length 128, \n"                                   \
	"  00000000: "                                                       \
	"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d0000\n" \
	"  00000020: "                                                       \
	"0000000000000000000000000000000000000000000000000000000000000000\n" \
	"@handoffdemo-1\n"                                                   \
	"  HANDOFFDEMO: current thread 1\n"                                  \
	"\n"
#define FRAME_ON_THREAD_2(n)                               \
	"\n"                                               \
	"@handoff_trace\n"                                 \
	"  HANDED-OFF: from thread 1 trace index " #n "\n" \
	"@handoffdemo-2\n"                                 \
	"  HANDOFFDEMO: current thread 2\n"                \
	"@error-drop\n"                                    \
	"  handoffdemo-2: completed packets\n"             \
	"  rx:local0\n"                                    \
	"@drop\n"                                          \
	"\n"

/* clang-format off */
static const char traced[] =
	"------------------- Start of thread 1 palladium_wk_0 -------------------\n"
	"Packet 1\n" FRAME_ON_THREAD_1
	"Packet 2\n" FRAME_ON_THREAD_1
	"Packet 3\n" FRAME_ON_THREAD_1
	"Packet 4\n" FRAME_ON_THREAD_1
	"Packet 5\n" FRAME_ON_THREAD_1
	"------------------- Start of thread 2 palladium_wk_1 -------------------\n"
	"Packet 1\n" FRAME_ON_THREAD_2(0)
	"Packet 2\n" FRAME_ON_THREAD_2(1)
	"Packet 3\n" FRAME_ON_THREAD_2(2)
	"Packet 4\n" FRAME_ON_THREAD_2(3)
	"Packet 5\n" FRAME_ON_THREAD_2(4);
/* clang-format on */

static void test_trace_on_both_threads(void **state)
{
	static struct text text;

	assert_int_equal(pd_generator_enable("x"), 0);
	wait_dropped(5); /* before it is asked for, nothing is traced */
	assert_int_equal(pd_trace_add("pg-input", 100), 0);
	assert_int_equal(pd_generator_enable("x"), 0);
	wait_dropped(10);
	text.n = 0;
	assert_int_equal(pd_trace_print(0, add_line, &text), 0);
	plain(&text);
	assert_string_equal(text.bytes, traced);
}

static void test_after_clear_nothing_is_traced(void **state)
{
	static struct text text;

	assert_int_equal(pd_trace_add("pg-input", 100), 0);
	pd_trace_clear();
	assert_int_equal(pd_generator_enable("x"), 0);
	wait_dropped(5);
	text.n = 0;
	assert_int_equal(pd_trace_print(0, add_line, &text), 0);
	assert_null(strstr(text.bytes, "HANDOFFDEMO"));
	assert_non_null(strstr(text.bytes, "No packets in trace buffer"));
}

static void test_congestion_is_counted_and_freed_once(void **state)
{
	struct sum one;
	int err;

	/* Six vectors: the other worker takes two and holds them, two wait, the rest drops. */
	pd_store_release(&handoff, pd_handoff_create("handoffdemo-2", 2, NULL, &err));
	pd_store_release(&hold, 1);
	run_script("packet-generator new {\n name y limit 1500 size 60 node handoffdemo-1\n"
		   " data { hex ffffffffffff } }\n"
		   "packet-generator enable y\n");
	for (uint64_t until = pd_clock_ns() + LIMIT_NS;;) {
		assert_true(pd_clock_ns() < until);
		one = counted("palladium_wk_0", "handoffdemo-1");
		if (one.vectors == 1500)
			break;
		sched_yield();
	}
	one = counted("palladium_wk_0", "handoffdemo-1");
	assert_true(one.errors[DEMO_1_CONGESTION] > 0);
	assert_int_equal(one.errors[DEMO_1_CONGESTION] + one.errors[DEMO_1_HANDED_OFF], 1500);
	pd_lock(&pd_generator_pool()->lock);
	assert_int_equal(pd_generator_pool()->count - pd_generator_pool()->free_count,
			 one.errors[DEMO_1_HANDED_OFF]);
	pd_unlock(&pd_generator_pool()->lock);
	pd_store_release(&hold, 0);
	wait_dropped(one.errors[DEMO_1_HANDED_OFF]);
	assert_int_equal(counted("palladium_wk_1", "handoffdemo-2").errors[0],
			 one.errors[DEMO_1_HANDED_OFF]);
}

#define WITH_WORKERS(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_WORKERS(test_five_handed_off_five_completed),
		WITH_WORKERS(test_trace_on_both_threads),
		WITH_WORKERS(test_after_clear_nothing_is_traced),
		WITH_WORKERS(test_congestion_is_counted_and_freed_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
