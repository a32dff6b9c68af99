/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/timer_wheel against a plain sorted list, and what it says of its order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "vlib/timer_wheel.h"

/* A timer of the wheel, and its place in the list. */
struct both {
	struct pd_timer timer;
	struct pd_list sorted;
	uint64_t deadline_ns;
	uint64_t due_ns; /* that, or when it was set, if that was later */
};

#define TIMERS 300

static struct pd_timer_wheel wheel;
static struct both timers[TIMERS];
static struct pd_list sorted = PD_LIST_INIT(sorted);
static uint64_t now, state;

static uint64_t draw(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return state >> 33;
}

/* A time of any size, from nothing to years: each order of magnitude is as likely. */
static uint64_t draw_time(void)
{
	uint64_t bits = draw() % 56;

	return (draw() << 31 | draw()) & ((1ull << bits) - 1);
}

static int start(void **unused)
{
	memset(&wheel, 0, sizeof(wheel));
	for (unsigned i = 0; i < TIMERS; i++) {
		pd_list_init(&timers[i].timer.node);
		pd_list_init(&timers[i].sorted);
	}
	pd_list_init(&sorted);
	return 0;
}

static void set(struct both *t, uint64_t deadline_ns)
{
	struct pd_list *at;

	pd_timer_wheel_del(&wheel, &t->timer);
	pd_list_del(&t->sorted);
	t->timer.deadline_ns = t->deadline_ns = deadline_ns;
	t->due_ns = pd_max(deadline_ns, now);
	pd_timer_wheel_add(&wheel, &t->timer);
	for (at = sorted.prev; at != &sorted; at = at->prev)
		if (pd_list_entry(at, struct both, sorted)->deadline_ns <= deadline_ns)
			break;
	pd_list_add(at, &t->sorted);
}

static void cancel(struct both *t)
{
	pd_timer_wheel_del(&wheel, &t->timer);
	pd_list_del(&t->sorted);
}

/* Let the time be `now` for both; they agree on who is due, in order but for those of one tick. */
static unsigned expire(void)
{
	struct pd_list due = PD_LIST_INIT(due);
	uint64_t last = 0;
	unsigned n = 0;

	pd_timer_wheel_advance(&wheel, now, &due);
	while (!pd_list_empty(&due)) {
		struct both *t = pd_list_entry(due.next, struct both, timer.node);

		assert_true(t->deadline_ns <= now);
		assert_false(pd_list_empty(&t->sorted));
		assert_true(last < t->due_ns + PD_TIMER_TICK_NS);
		last = pd_max(last, t->due_ns);
		cancel(t);
		n++;
	}
	if (!pd_list_empty(&sorted))
		assert_true(pd_list_entry(sorted.next, struct both, sorted)->deadline_ns > now);
	return n;
}

static void compare_next(void)
{
	uint64_t next = pd_list_empty(&sorted)
				? PD_TIMER_NEVER
				: pd_list_entry(sorted.next, struct both, sorted)->deadline_ns;

	assert_int_equal(pd_timer_wheel_next(&wheel), next);
}

static void test_as_a_sorted_list(void **unused)
{
	unsigned expired = 0;

	for (uint64_t seed = 1; seed <= 20; seed++) {
		start(NULL);
		state = seed;
		now = draw_time();
		for (unsigned step = 0; step < 5000; step++) {
			struct both *t = &timers[draw() % TIMERS];

			switch (draw() % 8) {
			case 0 ... 3:
				set(t, now + draw_time());
				break;
			case 4: /* it was over when it was set */
				set(t, now - pd_min(now, draw_time()));
				break;
			case 5:
				cancel(t);
				break;
			case 6: /* as the progress thread does: to the next deadline */
				if (pd_list_empty(&sorted))
					break;
				now = pd_max(now, pd_timer_wheel_next(&wheel));
				assert_true(expire() > 0);
				expired++;
				break;
			default: /* a jump: seldom far, or nothing would stay in the wheel */
				now += draw() % 16 ? draw_time() >> 24 : draw_time();
				expired += expire();
			}
			compare_next();
		}
	}
	assert_true(expired > 10000);
}

static void test_order(void **unused)
{
	static const uint64_t after_us[] = {9000, 4100, 4000, 70000, 9000, 300, 5000000};
	static const unsigned order[] = {5, 1, 2, 0, 4, 3, 6};
	struct pd_list due = PD_LIST_INIT(due);
	unsigned n = 0;

	now = 77 * PD_NS_PER_SEC & ~(PD_TIMER_TICK_NS - 1);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(after_us); i++) {
		timers[i].timer.deadline_ns = now + after_us[i] * PD_NS_PER_US;
		pd_timer_wheel_add(&wheel, &timers[i].timer);
	}
	pd_timer_wheel_advance(&wheel, now + 10 * PD_NS_PER_SEC, &due);
	while (!pd_list_empty(&due)) {
		struct both *t = pd_list_entry(due.next, struct both, timer.node);

		assert_int_equal(t - timers, order[n++]);
		pd_list_del(&t->timer.node);
	}
	assert_int_equal(n, PD_ARRAY_SIZE(order));
}

static void test_neither_early_nor_a_tick_late(void **unused)
{
	now = 1000 * PD_NS_PER_SEC;
	set(&timers[0], now + 1500);
	set(&timers[1], now + 1400);
	assert_int_equal(pd_timer_wheel_next(&wheel), now + 1400);
	now += 1399;
	assert_int_equal(expire(), 0);
	now += 1;
	assert_int_equal(expire(), 1);
	now += 99;
	assert_int_equal(expire(), 0);
	now += 1;
	assert_int_equal(expire(), 1);
	compare_next();
}

static void test_cancel_while_due(void **unused)
{
	struct pd_list due = PD_LIST_INIT(due);

	now = 5;
	for (unsigned i = 0; i < 3; i++)
		set(&timers[i], 5);
	pd_timer_wheel_advance(&wheel, now, &due);
	assert_ptr_equal(due.next, &timers[0].timer.node);
	cancel(&timers[0]);
	set(&timers[1], 7);
	assert_ptr_equal(due.next, &timers[2].timer.node);
	cancel(&timers[2]);
	assert_true(pd_list_empty(&due));
	compare_next();
	now = 7;
	assert_int_equal(expire(), 1);
}

static void test_clear(void **unused)
{
	now = 3 * PD_NS_PER_SEC;
	for (unsigned i = 0; i < TIMERS; i++)
		set(&timers[i], now + draw_time());
	pd_timer_wheel_clear(&wheel);
	assert_int_equal(pd_timer_wheel_next(&wheel), PD_TIMER_NEVER);
	for (unsigned i = 0; i < TIMERS; i++) {
		assert_true(pd_list_empty(&timers[i].timer.node));
		pd_list_del(&timers[i].sorted);
	}
	set(&timers[0], PD_TIMER_NEVER - 1);
	compare_next();
	set(&timers[1], now + 1);
	compare_next();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_as_a_sorted_list, start),
		cmocka_unit_test_setup(test_order, start),
		cmocka_unit_test_setup(test_neither_early_nor_a_tick_late, start),
		cmocka_unit_test_setup(test_cancel_while_due, start),
		cmocka_unit_test_setup(test_clear, start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
