/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/process: events of many kinds, the clock, one-time events, counters, start and end. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "vlib/process.h"
#include "vlib/progress.h"

enum { RED, BLUE };

/* What t-process saw, in order. */
static struct seen {
	uintptr_t type;
	unsigned n;
	uintptr_t data[PD_PROCESS_EVENTS_MAX];
} seen[64];
static unsigned seen_count, calls;
static uint64_t wait_ns;   /* what it returns */
static unsigned at_a_time; /* data it takes with one call */
static unsigned leave;     /* takes only so many kinds, then returns */

static uint64_t t_process(struct pd_process *p)
{
	unsigned kinds = 0;

	calls++;
	++*(unsigned *)pd_process_data(p);
	do {
		struct seen *s = &seen[seen_count++ % PD_ARRAY_SIZE(seen)];

		s->n = pd_process_events(p, &s->type, s->data, at_a_time);
		if (!s->n)
			break;
	} while (++kinds != leave);
	return wait_ns;
}

PD_NODE_REGISTER(t_process) = {.name = "t-process", .type = PD_NODE_PROCESS, .process = t_process};

static struct pd_process *process;

static int start(void **state)
{
	pd_progress_set_manual(true);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	pd_unlock(&pd_control);
	process = pd_process_find("t-process");
	assert_non_null(process);
	wait_ns = PD_PROCESS_FOREVER;
	at_a_time = PD_PROCESS_EVENTS_MAX;
	leave = 0;
	pd_progress_run_once(0); /* its first call */
	assert_int_equal(calls, 1);
	assert_int_equal(seen[0].type, PD_PROCESS_NONE);
	calls = seen_count = 0;
	return 0;
}

static int end(void **state)
{
	pd_progress_stop();
	calls = seen_count = 0;
	return 0;
}

/* The row of the process. */
static void find_row(const struct pd_node_runtime *row, void *arg)
{
	if (!strcmp(row->node, "t-process"))
		memcpy(arg, row, sizeof(*row));
}

static struct pd_node_runtime runtime(void)
{
	struct pd_node_runtime row = {0};

	pd_runtime_each(find_row, &row);
	return row;
}

static void test_events_of_a_kind_come_together_and_in_order(void **state)
{
	assert_int_equal(pd_process_signal(process, RED, 1), 0);
	assert_int_equal(pd_process_signal(process, BLUE, 2), 0);
	assert_int_equal(pd_process_signal(process, RED, 3), 0);
	pd_progress_run_once(0);
	assert_int_equal(calls, 1);
	assert_int_equal(seen_count, 3);
	assert_int_equal(seen[0].type, RED);
	assert_int_equal(seen[0].n, 2);
	assert_int_equal(seen[0].data[0], 1);
	assert_int_equal(seen[0].data[1], 3);
	assert_int_equal(seen[1].type, BLUE);
	assert_int_equal(seen[1].data[0], 2);
	assert_int_equal(seen[2].type, PD_PROCESS_NONE);
	/* Nothing more: it is not called again. */
	pd_progress_run_once(0);
	assert_int_equal(calls, 1);
}

static void test_events_that_are_left_bring_it_back(void **state)
{
	leave = 1;
	at_a_time = 2;
	for (uintptr_t i = 0; i < 5; i++)
		assert_int_equal(pd_process_signal(process, RED, i), 0);
	for (int i = 0; i < 6; i++)
		pd_progress_run_once(0);
	assert_int_equal(calls, 3);
	assert_int_equal(seen[0].n + seen[1].n + seen[2].n, 5);
	assert_int_equal(seen[2].data[0], 4);
}

static void test_the_clock_is_told_once_and_an_event_ends_the_wait(void **state)
{
	wait_ns = PD_NS_PER_MS;
	assert_int_equal(pd_process_signal(process, BLUE, 9), 0);
	pd_progress_run_once(0);
	assert_int_equal(seen[0].type, BLUE);
	wait_ns = PD_PROCESS_FOREVER;
	pd_progress_run_once(-1);
	assert_int_equal(calls, 2);
	assert_int_equal(seen[2].type, PD_PROCESS_CLOCK);
	/* A wait that an event ended is forgotten. */
	wait_ns = PD_NS_PER_SEC * 3600;
	pd_process_signal(process, RED, 0);
	pd_progress_run_once(0);
	wait_ns = PD_PROCESS_FOREVER;
	pd_process_signal(process, RED, 0);
	pd_progress_run_once(0);
	assert_int_equal(calls, 4);
	assert_int_equal(seen[seen_count - 1].type, PD_PROCESS_NONE);
}

static void test_one_time_events_come_once(void **state)
{
	uintptr_t a, b, taken[PD_PROCESS_ONE_TIME_MAX];
	unsigned n = 0;

	pd_lock(&pd_control);
	a = pd_process_one_time(process);
	b = pd_process_one_time(process);
	pd_unlock(&pd_control);
	assert_true(a && b && a != b);
	assert_int_equal(pd_process_signal_one_time(process, a, 7), 0);
	assert_int_equal(pd_process_signal_one_time(process, a, 8), -ENOENT);
	pd_progress_run_once(0);
	assert_int_equal(seen[0].type, a);
	assert_int_equal(seen[0].n, 1);
	assert_int_equal(seen[0].data[0], 7);
	assert_int_equal(pd_process_signal_one_time(process, a, 9), -ENOENT);
	/* One that was given up before it was taken is not seen. */
	assert_int_equal(pd_process_signal_one_time(process, b, 1), 0);
	pd_lock(&pd_control);
	pd_process_one_time_cancel(process, b);
	while ((taken[n % PD_PROCESS_ONE_TIME_MAX] = pd_process_one_time(process)))
		n++;
	pd_unlock(&pd_control);
	calls = 0;
	pd_progress_run_once(0);
	assert_int_equal(calls, 0);
	assert_int_equal(n, PD_PROCESS_ONE_TIME_MAX);
	for (unsigned i = 1; i < n; i++)
		assert_true(taken[i] != a && taken[i] != b);
}

static void test_too_many_events_are_refused_and_counted(void **state)
{
	for (unsigned i = 0; i < PD_PROCESS_EVENTS_MAX; i++)
		assert_int_equal(pd_process_signal(process, i % 2, i), 0);
	assert_int_equal(pd_process_signal(process, RED, 0), -ENOBUFS);
	assert_int_equal(runtime().error_count, 1);
	assert_int_equal(runtime().errors[0], 1);
	pd_progress_run_once(0);
	assert_int_equal(seen[0].n + seen[1].n, PD_PROCESS_EVENTS_MAX);
	assert_int_equal(pd_process_signal(process, RED, 0), 0);
}

static void test_counters(void **state)
{
	struct pd_node_runtime row;

	pd_process_signal(process, RED, 0);
	pd_process_signal(process, RED, 0);
	pd_progress_run_once(0);
	row = runtime();
	assert_int_equal(row.type, PD_NODE_PROCESS);
	assert_int_equal(row.calls, 2); /* with that at its start */
	assert_int_equal(row.suspends, 2);
	assert_int_equal(row.vectors, 2);
	assert_true(row.clocks > 0);
}

static void test_it_ends_and_begins_anew(void **state)
{
	assert_int_equal(*(unsigned *)pd_process_data(process), 1);
	pd_process_signal(process, RED, 0);
	pd_progress_stop();
	assert_int_equal(pd_process_signal(process, RED, 0), -ESRCH);
	assert_int_equal(runtime().calls, 0);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	pd_unlock(&pd_control);
	pd_progress_run_once(0);
	assert_int_equal(calls, 1);
	assert_int_equal(seen[0].type, PD_PROCESS_NONE);
	assert_int_equal(*(unsigned *)pd_process_data(process), 1);
	assert_ptr_equal(pd_process_find("t-process"), process);
	assert_null(pd_process_find("t-nothing"));
}

/* --- with the progress thread, and signals from several others --- */

#define SIGNALS 20000

static uint64_t sums[2], sum_count; /* of t-sum; written by the progress thread */
static uint32_t sum_done;           /* atomic */

static uint64_t t_sum(struct pd_process *p)
{
	uintptr_t type, data[32];
	unsigned n;

	while ((n = pd_process_events(p, &type, data, PD_ARRAY_SIZE(data)))) {
		for (unsigned i = 0; i < n; i++)
			sums[type] += data[i];
		sum_count += n;
	}
	if (sum_count == 2 * SIGNALS)
		pd_store_release(&sum_done, 1);
	return PD_PROCESS_FOREVER;
}

PD_NODE_REGISTER(t_sum) = {.name = "t-sum", .type = PD_NODE_PROCESS, .process = t_sum};

static void *signaller(void *arg)
{
	struct pd_process *p = pd_process_find("t-sum");

	for (uintptr_t i = 1; i <= SIGNALS; i++)
		while (pd_process_signal(p, (uintptr_t)arg, i) == -ENOBUFS)
			sched_yield();
	return NULL;
}

static void test_every_signal_of_every_thread_arrives(void **state)
{
	pthread_t threads[2];

	pd_progress_set_manual(false);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	pd_unlock(&pd_control);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, signaller, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	while (!pd_load_acquire(&sum_done))
		sched_yield();
	pd_progress_stop();
	assert_int_equal(sums[0], (uint64_t)SIGNALS * (SIGNALS + 1) / 2);
	assert_int_equal(sums[1], (uint64_t)SIGNALS * (SIGNALS + 1) / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_events_of_a_kind_come_together_and_in_order,
						start, end),
		cmocka_unit_test_setup_teardown(test_events_that_are_left_bring_it_back, start,
						end),
		cmocka_unit_test_setup_teardown(
			test_the_clock_is_told_once_and_an_event_ends_the_wait, start, end),
		cmocka_unit_test_setup_teardown(test_one_time_events_come_once, start, end),
		cmocka_unit_test_setup_teardown(test_too_many_events_are_refused_and_counted, start,
						end),
		cmocka_unit_test_setup_teardown(test_counters, start, end),
		cmocka_unit_test_setup_teardown(test_it_ends_and_begins_anew, start, end),
		cmocka_unit_test(test_every_signal_of_every_thread_arrives),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
