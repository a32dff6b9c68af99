/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vlib/process: events of many kinds, the clock, one-time events, counters, start and end,
 * processes made at run time, forks, and who gives way to the traffic.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "vlib/load.h"
#include "vlib/process.h"
#include "vlib/progress.h"

#ifdef PD_UNDER_ASAN
#	include <sanitizer/lsan_interface.h>
#endif

enum { RED, BLUE };

/* What t-process saw, in order. */
static struct seen {
	uintptr_t type;
	unsigned n;
	uintptr_t data[PD_PROCESS_EVENTS_MAX];
} seen[64];
static unsigned seen_count, calls;
#define FOREVER UINT64_MAX
static uint64_t wait_ns;   /* for how long it waits for an event, or FOREVER */
static bool only_clock;    /* it waits that long whatever is signalled */
static unsigned at_a_time; /* data it takes with one call */
static unsigned leave;     /* takes only so many kinds, then waits */

/* A round of t-process: takes what there is and notes it. False when it is to end. */
static bool t_round(struct pd_process *p)
{
	unsigned kinds = 0;

	calls++;
	++*(unsigned *)pd_process_data(p);
	do {
		struct seen *s = &seen[seen_count++ % PD_ARRAY_SIZE(seen)];

		s->n = pd_process_events(p, &s->type, s->data, at_a_time);
		if (!s->n)
			return s->type != PD_PROCESS_STOP;
	} while (++kinds != leave);
	return true;
}

static void t_process(struct pd_process *p)
{
	while (t_round(p)) {
		assert_true(pd_lock_is_the_only(&pd_control));
		if (only_clock)
			pd_process_suspend(p, wait_ns);
		else if (wait_ns == FOREVER)
			pd_process_wait_for_event(p);
		else
			pd_process_wait_for_event_or_clock(p, wait_ns);
	}
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
	wait_ns = FOREVER;
	at_a_time = PD_PROCESS_EVENTS_MAX;
	leave = 0;
	only_clock = false;
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

static void test_a_suspended_one_sleeps_its_time(void **state)
{
	uint64_t begin;

	only_clock = true;
	wait_ns = 3 * PD_NS_PER_MS;
	pd_process_signal(process, RED, 1);
	pd_progress_run_once(0);
	begin = pd_clock_ns();
	assert_int_equal(calls, 1);
	assert_int_equal(pd_process_signal(process, RED, 2), 0);
	while (calls < 2)
		pd_progress_run_once(-1);
	assert_true(pd_clock_ns() - begin > 2 * PD_NS_PER_MS);
	assert_int_equal(seen[2].type, RED);
	assert_int_equal(seen[2].data[0], 2);
	assert_int_equal(seen[3].type, PD_PROCESS_CLOCK);
}

static void test_the_clock_is_told_once_and_an_event_ends_the_wait(void **state)
{
	wait_ns = PD_NS_PER_MS;
	assert_int_equal(pd_process_signal(process, BLUE, 9), 0);
	pd_progress_run_once(0);
	assert_int_equal(seen[0].type, BLUE);
	wait_ns = FOREVER;
	while (calls < 2)
		pd_progress_run_once(-1);
	assert_int_equal(seen[2].type, PD_PROCESS_CLOCK);
	/* A wait that an event ended is forgotten. */
	wait_ns = PD_NS_PER_SEC * 3600;
	pd_process_signal(process, RED, 0);
	pd_progress_run_once(0);
	wait_ns = FOREVER;
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
	/* It had its last turn. */
	assert_int_equal(calls, 1);
	assert_int_equal(seen[0].type, RED);
	assert_int_equal(seen[1].type, PD_PROCESS_STOP);
	calls = seen_count = 0;
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

/* --- one that returns, and one that does not when it is asked to --- */

static unsigned once_calls, stubborn_turns;

static void t_once(struct pd_process *p)
{
	once_calls++;
	pd_process_wait_for_event(p);
}

static void t_stubborn(struct pd_process *p)
{
	for (;;) {
		stubborn_turns++;
		pd_process_wait_for_event(p);
	}
}

PD_NODE_REGISTER(t_once) = {
	.name = "t-once", .type = PD_NODE_PROCESS, .process = t_once, .stack_bytes = 64 << 10};
PD_NODE_REGISTER(t_stubborn) = {
	.name = "t-stubborn", .type = PD_NODE_PROCESS, .process = t_stubborn};

static void test_one_that_returns_has_ended(void **state)
{
	struct pd_process *once = pd_process_find("t-once");

	assert_int_equal(pd_process_signal(once, RED, 0), 0);
	once_calls = 0;
	pd_progress_run_once(0);
	assert_int_equal(pd_process_signal(once, RED, 0), -ESRCH);
	pd_lock(&pd_control);
	assert_false(pd_process_runs(once));
	assert_int_equal(pd_progress_start(), 0); /* as each port that opens */
	pd_unlock(&pd_control);
	pd_progress_run_once(0);
	assert_int_equal(once_calls, 0);
	assert_int_equal(pd_process_signal(once, RED, 0), -ESRCH);
	pd_progress_stop();
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	assert_true(pd_process_runs(once));
	pd_unlock(&pd_control);
	pd_progress_run_once(0);
	assert_int_equal(once_calls, 1);
}

static void test_one_that_does_not_end_has_one_more_turn(void **state)
{
	stubborn_turns = 0;
	pd_progress_stop();
	assert_int_equal(stubborn_turns, 1);
	pd_progress_run_once(0);
	assert_int_equal(stubborn_turns, 1);
}

/* --- made at run time --- */

struct session {
	struct pd_process *process;
	unsigned waits; /* so often, then it ends */
	uint64_t sum;   /* of what it was signalled; kept on its stack until it ends */
	bool release;   /* it releases itself */
	bool stopped, ended;
};

static void t_session(struct pd_process *p)
{
	struct session *s = pd_process_arg(p);
	uintptr_t type, data[PD_PROCESS_EVENTS_MAX];
	uint64_t sum = 0;
	unsigned n;

	if (s->release)
		pd_process_release(p);
	for (unsigned i = 0; i < s->waits; i++) {
		pd_process_wait_for_event(p);
		while ((n = pd_process_events(p, &type, data, PD_ARRAY_SIZE(data))))
			while (n)
				sum += data[--n];
		s->stopped = pd_process_is_stopped(p);
		if (s->stopped)
			break;
	}
	s->sum = sum;
	s->ended = true;
}

static void make(struct session *s, unsigned waits, bool release)
{
	*s = (struct session){.waits = waits, .release = release};
	pd_lock(&pd_control);
	s->process = pd_process_create("t-session", t_session, s, 0);
	pd_unlock(&pd_control);
	assert_non_null(s->process);
}

static void release(struct session *s)
{
	pd_lock(&pd_control);
	assert_int_equal(pd_process_runs(s->process), !s->ended);
	pd_process_release(s->process);
	pd_unlock(&pd_control);
}

/* Rows of processes called `name`. */
static const char *name_to_count;

static void count_row(const struct pd_node_runtime *row, void *arg)
{
	*(unsigned *)arg += !strcmp(row->node, name_to_count);
}

static unsigned sessions_of(const char *name)
{
	unsigned n = 0;

	name_to_count = name;
	pd_runtime_each(count_row, &n);
	return n;
}

static unsigned sessions(void)
{
	return sessions_of("t-session");
}

static void test_made_at_run_time(void **state)
{
	static struct session s[100];

	for (unsigned i = 0; i < PD_ARRAY_SIZE(s); i++)
		make(&s[i], i % 4, i % 3 == 1);
	assert_int_equal(sessions(), 100);
	assert_null(pd_process_find("t-session"));
	pd_progress_run_once(0);
	for (unsigned round = 1; round < 4; round++) {
		for (unsigned i = 0; i < PD_ARRAY_SIZE(s); i++)
			if (!s[i].ended)
				assert_int_equal(pd_process_signal(s[i].process, RED, round), 0);
		pd_progress_run_once(0);
		for (unsigned i = 0; i < PD_ARRAY_SIZE(s); i++)
			assert_int_equal(s[i].ended, i % 4 <= round);
	}
	for (unsigned i = 0; i < PD_ARRAY_SIZE(s); i++) {
		assert_int_equal(s[i].sum, (i % 4) * (i % 4 + 1) / 2);
		if (s[i].release)
			continue;
		/* It has ended, and can still be asked. */
		assert_int_equal(pd_process_signal(s[i].process, RED, 1), -ESRCH);
		pd_process_stop(s[i].process);
		release(&s[i]);
	}
	assert_int_equal(sessions(), 0);
}

static void test_made_at_run_time_and_asked_to_end(void **state)
{
	struct session early, waiting, released;

	make(&waiting, 1000, false);
	make(&released, 1000, false);
	pd_progress_run_once(0);
	/* It has not had a turn yet. */
	make(&early, 1000, false);
	pd_process_stop(early.process);
	pd_process_stop(waiting.process);
	pd_process_stop(released.process);
	release(&released);
	for (int i = 0; i < 3; i++)
		pd_progress_run_once(0);
	assert_true(early.ended && early.stopped);
	assert_true(waiting.ended && waiting.stopped);
	assert_true(released.ended && released.stopped);
	release(&early);
	release(&waiting);
	assert_int_equal(sessions(), 0);
	/* The end of the progress thread asks, too; it gives no first turn. */
	make(&waiting, 1000, false);
	pd_progress_run_once(0);
	make(&early, 1000, false);
	make(&released, 1000, true);
	pd_progress_stop();
	assert_true(waiting.ended && waiting.stopped);
	assert_false(early.ended || released.ended);
	assert_int_equal(pd_process_signal(early.process, RED, 1), -ESRCH);
	assert_int_equal(sessions(), 3);
	early.ended = released.ended = true;
	release(&early);
	release(&waiting);
	release(&released);
	assert_int_equal(sessions(), 0);
}

/* One that ends others before their turn, which they were to have in the same round. */
static void t_killer(struct pd_process *p)
{
	struct session *s = pd_process_arg(p);

	s[0].ended = true; /* it has returned: its process is gone with this */
	pd_process_release(s[0].process);
	pd_process_stop(s[1].process);
	pd_process_release(p);
}

static void test_processes_that_end_others(void **state)
{
	struct session s[2];
	struct pd_process *killer;

	make(&s[0], 0, false);
	make(&s[1], 9, false);
	pd_progress_run_once(0);
	assert_true(s[0].ended);
	pd_lock(&pd_control);
	killer = pd_process_create("t-killer", t_killer, s, 0);
	pd_unlock(&pd_control);
	assert_non_null(killer);
	pd_process_signal(s[1].process, RED, 5);
	pd_progress_run_once(0);
	pd_progress_run_once(0);
	assert_true(s[1].ended);
	assert_int_equal(s[1].sum, 5);
	release(&s[1]);
	assert_int_equal(sessions(), 0);
}

static uint64_t clocks_seen[50], clocks_done;

static void t_clock(struct pd_process *p)
{
	uintptr_t i = (uintptr_t)pd_process_arg(p), type, data;
	uint64_t begin = pd_clock_ns();

	for (unsigned turn = 0; turn < 3; turn++) {
		pd_process_wait_for_event_or_clock(p, i * 100 * PD_NS_PER_US);
		assert_int_equal(pd_process_events(p, &type, &data, 1), 0);
		assert_int_equal(type, PD_PROCESS_CLOCK);
	}
	clocks_seen[i] = pd_clock_ns() - begin;
	clocks_done++;
	pd_process_release(p);
}

static void test_many_clocks(void **state)
{
	pd_lock(&pd_control);
	for (uintptr_t i = 0; i < PD_ARRAY_SIZE(clocks_seen); i++)
		assert_non_null(pd_process_create("t-clock", t_clock, (void *)i, 0));
	pd_unlock(&pd_control);
	while (clocks_done < PD_ARRAY_SIZE(clocks_seen))
		pd_progress_run_once(-1);
	for (uintptr_t i = 0; i < PD_ARRAY_SIZE(clocks_seen); i++)
		assert_true(clocks_seen[i] >= i * 300 * PD_NS_PER_US);
}

/* --- forks --- */

/* A child of the process's threads: nothing runs, nothing is lost, and all begins anew. */
static int in_a_child(struct session *s)
{
	int lost = 0;

	calls = seen_count = 0;
	pd_progress_after_fork();
	if (pd_process_signal(process, RED, 1) != -ESRCH || pd_process_runs(s->process))
		return 1;
	pd_process_release(s->process);
	if (sessions() || runtime().calls || *(unsigned *)pd_process_data(process))
		return 2;
	if (pd_progress_start())
		return 3;
	pd_unlock(&pd_control);
	pd_progress_run_once(0);
	if (calls != 1 || seen[0].type != PD_PROCESS_NONE)
		return 4;
	if (pd_process_signal(process, RED, 1) || pd_progress_run_once(0) < 1 || calls != 2)
		return 5;
	pd_progress_stop();
#ifdef PD_UNDER_ASAN
	lost = __lsan_do_recoverable_leak_check();
#endif
	return lost ? 6 : 0;
}

static void test_forked_children_begin_anew(void **state)
{
	struct session s;
	int status;

	make(&s, 1000, false);
	pd_progress_run_once(0);
	for (int i = 0; i < 5; i++) {
		pid_t pid;

		pd_process_signal(process, RED, 1); /* it is ready, and has not had its turn */
		pd_lock(&pd_control);
		pid = fork();
		if (pid == 0)
			_exit(in_a_child(&s));
		pd_unlock(&pd_control);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		pd_progress_run_once(0);
		assert_int_equal(calls, i + 1); /* the parent's go on */
	}
	pd_process_stop(s.process);
	pd_progress_run_once(0);
	assert_true(s.ended);
	release(&s);
}

/* --- more work than time --- */

static unsigned turns;
static bool working;
static struct pd_node *feed_input, *feed_internal;

/* As if `n` frames came in one call, 100 us after the last at the earliest. */
static void feed(unsigned n)
{
	static uint64_t last;

	while (pd_clock_ns() < last + 100 * PD_NS_PER_US)
		;
	last = pd_clock_ns();
	pd_node_count(feed_input, n);
	pd_node_count(feed_internal, n);
}

static unsigned feed_fn(struct pd_engine *engine, struct pd_node *node, struct pd_vector *vector)
{
	return 0;
}

PD_NODE_REGISTER(t_feed) = {.name = "t-feed", .type = PD_NODE_INPUT, .fn = feed_fn};

static void t_worker(struct pd_process *p)
{
	unsigned n = *(unsigned *)pd_process_arg(p);

	while (working) {
		turns++;
		feed(n); /* which is also the work */
		pd_process_yield(p);
	}
	pd_process_release(p);
}

/* The turns that a process has in 100 rounds, while nodes get `n` frames at a time. */
static unsigned turns_at(unsigned n, unsigned load)
{
	unsigned now;

	do {
		feed(n);
		pd_lock(&pd_control);
		now = pd_load();
		pd_unlock(&pd_control);
	} while (now != load);
	turns = 0;
	working = true;
	pd_lock(&pd_control);
	assert_non_null(pd_process_create("t-worker", t_worker, &n, 0));
	pd_unlock(&pd_control);
	for (unsigned i = 0; i < 100; i++)
		pd_progress_run_once(0);
	working = false;
	now = turns;
	while (sessions_of("t-worker"))
		pd_progress_run_once(-1);
	return now;
}

static void test_more_turns_when_vectors_are_short(void **state)
{
	struct pd_engine *engine;
	unsigned light, heavy;
	int err;

	engine = pd_engine_create("feed", &err);
	assert_non_null(engine);
	feed_input = pd_engine_node(engine, "t-feed");
	feed_internal = pd_engine_node(engine, "drop");
	light = turns_at(1, 0);
	heavy = turns_at(PD_VECTOR_MAX, PD_VECTOR_MAX - 1);
	assert_int_equal(light, 100);
	assert_true(heavy < light / 2);
	pd_engine_destroy(engine);
}

/* --- with the progress thread, and signals from several others --- */

#define SIGNALS 20000

static uint64_t sums[2], sum_count; /* of t-sum; written by the progress thread */
static uint32_t sum_done;           /* atomic */

static uint32_t sum_stopped; /* atomic: it was told to end in the progress thread */

static void t_sum(struct pd_process *p)
{
	uintptr_t type, data[32];
	unsigned n;

	do {
		pd_process_wait_for_event(p);
		while ((n = pd_process_events(p, &type, data, PD_ARRAY_SIZE(data)))) {
			for (unsigned i = 0; i < n; i++)
				sums[type] += data[i];
			sum_count += n;
		}
		if (sum_count == 2 * SIGNALS)
			pd_store_release(&sum_done, 1);
	} while (type != PD_PROCESS_STOP);
	pd_store_release(&sum_stopped, pd_progress_is_self());
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
	assert_true(pd_load_acquire(&sum_stopped));
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
		cmocka_unit_test_setup_teardown(test_a_suspended_one_sleeps_its_time, start, end),
		cmocka_unit_test_setup_teardown(test_one_that_returns_has_ended, start, end),
		cmocka_unit_test_setup_teardown(test_one_that_does_not_end_has_one_more_turn, start,
						end),
		cmocka_unit_test_setup_teardown(test_made_at_run_time, start, end),
		cmocka_unit_test_setup_teardown(test_made_at_run_time_and_asked_to_end, start, end),
		cmocka_unit_test_setup_teardown(test_processes_that_end_others, start, end),
		cmocka_unit_test_setup_teardown(test_many_clocks, start, end),
		cmocka_unit_test_setup_teardown(test_forked_children_begin_anew, start, end),
		cmocka_unit_test_setup_teardown(test_more_turns_when_vectors_are_short, start, end),
		cmocka_unit_test(test_every_signal_of_every_thread_arrives),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
