/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moderation of notifications, by a clock that the test moves: when frames are waited for, when
 * they are not, and where adapting arrives. Then the same at a lane, on which nothing else sleeps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "vlib/lane.h"

#define MOST 1000000u

static struct pd_moderation m;
static uint64_t now;
static uint32_t seen;

/* 48 frames or 50 us, as VMA has it, and no adapting. */
static void fixed(uint32_t count, uint32_t period_us)
{
	pd_moderation_tuning = (struct pd_moderation_tuning){
		.enabled = true,
		.count = count,
		.period_ns = period_us * PD_NS_PER_US,
		.aim_rate = 5000,
	};
	pd_moderation_begin(&m);
	now = 1234 * PD_NS_PER_SEC;
	seen = UINT32_MAX - 7; /* positions wrap */
}

/* `frames` come within `ns`, then the thread goes to sleep: how many it asks for. */
static uint32_t sleep_after(uint32_t frames, uint64_t ns)
{
	seen += frames;
	now += ns;
	return pd_moderation_hold(&m, seen, MOST, now);
}

/*
 * Sleep after sleep, as above, `times`; what the last one asks for. Those that are held get what
 * they asked for, at the same pace.
 */
static uint32_t flow(unsigned times, uint32_t frames, uint64_t ns)
{
	uint32_t hold = 1;

	for (; times; times--) {
		bool held = hold > 1;
		uint32_t n = held ? hold : frames;

		if (held)
			pd_moderation_held(&m, hold, hold, false);
		hold = sleep_after(n, ns * n / frames);
	}
	return hold;
}

static int setup(void **state)
{
	fixed(48, 50);
	return 0;
}

static void test_nothing_is_held_at_first(void **state)
{
	for (unsigned i = 0; i < PD_MODERATION_WINDOW; i++)
		assert_int_equal(sleep_after(1, 1000), 1);
}

static void test_a_flow_is_held_and_one_too_slow_is_not(void **state)
{
	assert_int_equal(flow(20, 1, 1000), 48); /* a frame each microsecond: 48 in 48 */
	fixed(48, 50);
	assert_int_equal(flow(200, 1, 1100), 1); /* 53: they would always be late */
	fixed(48, 50);
	assert_int_equal(flow(20, 200, 200000), 48); /* the same pace in lumps */
	fixed(48, 50);
	assert_int_equal(flow(200, 1, 20000), 1); /* 50,000 round trips a second */
}

static void test_no_more_is_held_than_the_ring_allows(void **state)
{
	flow(20, 1, 1000);
	assert_int_equal(pd_moderation_hold(&m, seen += 48, 16, now += 48000), 16);
	assert_int_equal(pd_moderation_hold(&m, seen += 48, 1, now += 48000), 1);
}

static void test_a_pause_ends_the_flow(void **state)
{
	assert_int_equal(flow(20, 1, 1000), 48);
	/* The first frame after silence has been taken: the next one is not waited with. */
	assert_int_equal(sleep_after(1, 10 * PD_NS_PER_MS), 1);
	for (int i = 0; i < 100; i++)
		assert_int_equal(sleep_after(1, 10 * PD_NS_PER_MS), 1);
	/* A pause of many days. */
	assert_int_equal(sleep_after(1, 90 * 86400 * PD_NS_PER_SEC), 1);
	assert_int_equal(flow(20, 1, 1000), 48);
}

/* The longest period is more nanoseconds than 32 bits hold. */
static void test_a_period_of_a_minute(void **state)
{
	fixed(65535, 60 * 1000000);
	assert_int_equal(flow(20, 1, PD_NS_PER_MS / 2), 65535);
	assert_int_equal(sleep_after(UINT32_MAX, PD_NS_PER_SEC), 65535);
	/* Fewer in each minute, and a pause that is longer than all that. */
	assert_int_equal(flow(20, 1, 2 * 60 * PD_NS_PER_SEC), 1);
	assert_int_equal(sleep_after(1, 90 * 86400 * PD_NS_PER_SEC), 1);
}

static void test_an_idle_program_is_not_woken(void **state)
{
	assert_int_equal(flow(20, 1, 1000), 48);
	/* The period passes with nothing there: the sleep after that has no bound. */
	pd_moderation_held(&m, 48, 0, true);
	for (int i = 0; i < 100; i++)
		assert_int_equal(sleep_after(0, 50000), 1);
}

static void test_a_conversation_is_late_ever_more_seldom(void **state)
{
	unsigned late = 0, all = 100000;

	/* Windows of 32 frames each come at once, then nothing until they are answered. */
	for (unsigned i = 0; i < all; i++) {
		uint32_t hold = sleep_after(32, 25000);

		if (hold > 1) {
			late++;
			pd_moderation_held(&m, hold, 20, true);
			sleep_after(20, 0); /* what came before the period ended */
		}
	}
	assert_in_range(late, 1, 25);
}

static void test_who_stops_talking_flows_again(void **state)
{
	flow(20, 1, 1000);
	for (int i = 0; i < 20; i++) {
		pd_moderation_held(&m, 48, 0, true);
		sleep_after(0, 50000);
	}
	assert_int_equal(m.failures, PD_MODERATION_PATIENCE);
	assert_int_equal(flow(PD_MODERATION_WINDOW * (PD_MODERATION_PATIENCE - 1), 1, 1000), 1);
	assert_int_equal(flow(PD_MODERATION_WINDOW * 3, 1, 1000), 48);
	/* What holds well is believed in again. */
	flow(20, 1, 1000);
	assert_int_equal(m.failures, 0);
}

static void test_what_is_a_failure(void **state)
{
	flow(20, 1, 1000);
	pd_moderation_held(&m, 48, 48, true); /* the last one came when the time was over */
	assert_int_equal(m.failures, 0);
	assert_int_equal(sleep_after(48, 50000), 48);
	pd_moderation_held(&m, 48, 23, false); /* woken by something else: says nothing */
	assert_int_equal(m.failures, 0);
	pd_moderation_held(&m, 48, 47, true);
	assert_int_equal(m.failures, 1);
	assert_int_equal(sleep_after(47, 50000), 1);
}

static void test_switched_off(void **state)
{
	pd_moderation_tuning.enabled = false;
	assert_int_equal(flow(100, 1, 100), 1);
	fixed(1, 50);
	assert_int_equal(flow(100, 1, 100), 1);
	fixed(0, 50);
	assert_int_equal(flow(100, 1, 100), 1);
	fixed(48, 0);
	assert_int_equal(flow(100, 1, 100), 1);
}

/* VMA's numbers, adapting. */
static void adaptive(uint32_t rate)
{
	fixed(48, 50);
	pd_moderation_tuning.aim_interval_ns = 250 * PD_NS_PER_MS;
	pd_moderation_tuning.aim_rate = rate;
	pd_moderation_tuning.aim_count = 560;
	pd_moderation_tuning.aim_period_ns = 250 * PD_NS_PER_US;
	pd_moderation_begin(&m);
}

/* A stream of one frame each `gap_ns` for `ms`; returns the wake-ups in it. */
static unsigned stream(uint64_t gap_ns, uint64_t ms)
{
	uint64_t end = now + ms * PD_NS_PER_MS;
	uint32_t hold = 1;
	unsigned wakeups = 0;

	for (; now < end; wakeups++) {
		uint64_t ns = hold * gap_ns;

		/* A hold that its period ends gets what came by then. */
		if (hold > 1 && ns > m.period_ns)
			ns = m.period_ns;
		if (hold > 1)
			pd_moderation_held(&m, hold, (uint32_t)(ns / gap_ns), ns < hold * gap_ns);
		hold = sleep_after((uint32_t)(ns / gap_ns), ns);
	}
	return wakeups;
}

static void test_adapting_arrives_at_the_wanted_rate(void **state)
{
	static const struct {
		uint64_t gap_ns;
		uint32_t count;
	} row[] = {{100000, 2}, {50000, 4}, {10000, 20}, {1000, 200}, {500, 400}};

	for (unsigned i = 0; i < PD_ARRAY_SIZE(row); i++) {
		adaptive(5000);
		stream(row[i].gap_ns, 300);
		assert_int_equal(m.count, row[i].count);
		assert_int_equal(m.period_ns, 250 * PD_NS_PER_US);
		assert_in_range(stream(row[i].gap_ns, 1000), 4500, 5500);
	}
	/* 10 million a second: the most frames come first. */
	adaptive(5000);
	stream(100, 300);
	assert_int_equal(m.count, 560);
	assert_in_range(stream(100, 1000), 17000, 19000);
	/* The longest wait comes first. */
	adaptive(1000);
	stream(1000, 300);
	assert_int_equal(m.period_ns, 250 * PD_NS_PER_US);
	assert_in_range(stream(1000, 1000), 4500, 5500);
	/* Short waits where many wake-ups are wanted. */
	adaptive(100000);
	stream(1000, 300);
	assert_int_equal(m.period_ns, 12500);
	assert_in_range(stream(1000, 1000), 95000, 105000);
}

static void test_adapting_leaves_alone_what_is_slow_enough(void **state)
{
	adaptive(5000);
	stream(200000, 300); /* 5,000 a second */
	assert_in_range(m.count, 0, 1);
	assert_in_range(stream(200000, 1000), 4990, 5010);
}

/*
 * One frame at a time, each 20 us after the last was answered: the wake-ups that its answers wait
 * for in vain.
 */
static void test_adapting_does_not_slow_a_conversation(void **state)
{
	unsigned late = 0, rounds = 0;

	adaptive(5000);
	for (uint64_t end = now + 3 * PD_NS_PER_SEC; now < end; rounds++) {
		uint32_t hold = sleep_after(1, 20000);

		if (hold == 1)
			continue;
		late++;
		now += m.period_ns + 50000;
		pd_moderation_held(&m, hold, 1, true);
	}
	assert_true(rounds > 140000);
	assert_in_range(late, 1, 40);
}

static void test_adapting_follows(void **state)
{
	adaptive(5000);
	stream(1000, 600);
	assert_int_equal(m.count, 200);
	stream(10000, 600);
	assert_int_equal(m.count, 20);
	/* After a night, the first frames are not held. */
	assert_int_equal(sleep_after(1, 8ull * 3600 * PD_NS_PER_SEC), 1);
	assert_int_equal(flow(100, 1, 1000), 1);
	stream(1000, 600);
	assert_int_equal(m.count, 200);
	pd_moderation_begin(&m); /* a new link */
	assert_int_equal(m.count, 48);
}

/* --- at a lane --------------------------------------------------------------------------- */

static uint32_t published, armed_at, armed_hold;

static uint32_t stub_position(struct pd_lane *lane, enum pd_dir dir)
{
	return published;
}

static bool stub_arm(struct pd_lane *lane, enum pd_dir dir, uint32_t at, uint32_t hold)
{
	armed_at = at;
	armed_hold = hold;
	return published != at;
}

static void stub_nothing(struct pd_lane *lane, enum pd_dir dir)
{
}

static const struct pd_lane_ops stub_ops = {
	.position = stub_position,
	.arm = stub_arm,
	.disarm = stub_nothing,
	.drain = stub_nothing,
};

/* A number for what nobody polls or reads here. */
#define EVENT_FD 1000

/* A lane in a flow: a period so long that the test's own speed does not matter. */
static struct pd_lane_side *lane_flowing(struct pd_lane *lane)
{
	struct pd_ctr_block *const none[PD_DIRS] = {NULL, NULL};
	struct pd_lane_side *side = &lane->side[PD_RX];
	struct pd_lane_waiter w = {.wake_fd = -1};

	fixed(8, 1000000);
	pd_lane_init(lane, &stub_ops, 0, 0, none);
	side->hold_max = 64;
	published = 0;
	pd_lock(&side->lock);
	pd_lane_set_link(lane, PD_RX, true, EVENT_FD, 0);
	for (unsigned i = 0; i < 2 * PD_MODERATION_WINDOW; i++) {
		w.seen = side->cursor = published += 8;
		assert_true(pd_lane_sleep(lane, PD_RX, &w));
		pd_lane_wake(lane, PD_RX, &w, true);
	}
	return side;
}

static void test_a_lane_holds_for_who_sleeps_alone(void **state)
{
	struct pd_lane lane;
	struct pd_lane_side *side = lane_flowing(&lane);
	struct pd_lane_waiter first = {.wake_fd = -1, .seen = side->cursor}, second = first;

	assert_true(pd_lane_sleep(&lane, PD_RX, &first));
	assert_int_equal(first.hold, 8);
	assert_int_equal(armed_at, side->cursor);
	assert_int_equal(armed_hold, 8);
	assert_in_range(first.until_ns, pd_clock_ns(), pd_clock_ns() + PD_NS_PER_SEC);

	/* Another sleeper: for both the next frame counts. */
	assert_true(pd_lane_sleep(&lane, PD_RX, &second));
	assert_int_equal(second.hold, 1);
	assert_true(second.until_ns == UINT64_MAX);
	assert_int_equal(armed_hold, 1);
	pd_lane_wake(&lane, PD_RX, &second, false);
	pd_lane_wake(&lane, PD_RX, &first, false);
	pd_unlock(&side->lock);
}

static void test_a_lane_holds_nothing_from_who_leaves_frames(void **state)
{
	struct pd_lane lane;
	struct pd_lane_side *side = lane_flowing(&lane);
	struct pd_lane_waiter w = {.wake_fd = -1, .seen = ++published};

	assert_true(pd_lane_sleep(&lane, PD_RX, &w));
	assert_int_equal(armed_hold, 1);
	assert_true(w.until_ns == UINT64_MAX);
	pd_lane_wake(&lane, PD_RX, &w, false);
	pd_unlock(&side->lock);
}

static void test_a_lane_whose_peer_does_not_notify_is_looked_at(void **state)
{
	struct pd_lane lane;
	struct pd_lane_side *side = lane_flowing(&lane);
	struct pd_lane_waiter w = {.wake_fd = -1, .seen = side->cursor};
	uint64_t before = pd_clock_ns();

	pd_lane_set_link(&lane, PD_RX, true, -1, side->cursor);
	assert_true(pd_lane_sleep(&lane, PD_RX, &w));
	assert_in_range(w.until_ns, before, pd_clock_ns() + PD_NS_PER_MS);
	pd_lane_wake(&lane, PD_RX, &w, false);
	pd_unlock(&side->lock);
}

static void test_a_lane_without_event_index_holds_nothing(void **state)
{
	struct pd_lane lane;
	struct pd_lane_side *side = lane_flowing(&lane);
	struct pd_lane_waiter w = {.wake_fd = -1, .seen = side->cursor};

	side->hold_max = 1;
	assert_true(pd_lane_sleep(&lane, PD_RX, &w));
	assert_int_equal(armed_hold, 1);
	assert_true(w.until_ns == UINT64_MAX);
	pd_lane_wake(&lane, PD_RX, &w, false);
	pd_unlock(&side->lock);
}

static void test_a_new_link_begins_anew(void **state)
{
	struct pd_lane lane;
	struct pd_lane_side *side = lane_flowing(&lane);
	struct pd_lane_waiter w = {.wake_fd = -1, .seen = side->cursor};

	pd_lane_set_link(&lane, PD_RX, true, EVENT_FD, side->cursor);
	assert_true(pd_lane_sleep(&lane, PD_RX, &w));
	assert_int_equal(armed_hold, 1);
	pd_lane_wake(&lane, PD_RX, &w, false);
	pd_unlock(&side->lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_nothing_is_held_at_first, setup),
		cmocka_unit_test_setup(test_a_flow_is_held_and_one_too_slow_is_not, setup),
		cmocka_unit_test_setup(test_no_more_is_held_than_the_ring_allows, setup),
		cmocka_unit_test_setup(test_a_pause_ends_the_flow, setup),
		cmocka_unit_test_setup(test_a_period_of_a_minute, setup),
		cmocka_unit_test_setup(test_an_idle_program_is_not_woken, setup),
		cmocka_unit_test_setup(test_a_conversation_is_late_ever_more_seldom, setup),
		cmocka_unit_test_setup(test_who_stops_talking_flows_again, setup),
		cmocka_unit_test_setup(test_what_is_a_failure, setup),
		cmocka_unit_test_setup(test_switched_off, setup),
		cmocka_unit_test_setup(test_adapting_arrives_at_the_wanted_rate, setup),
		cmocka_unit_test_setup(test_adapting_leaves_alone_what_is_slow_enough, setup),
		cmocka_unit_test_setup(test_adapting_does_not_slow_a_conversation, setup),
		cmocka_unit_test_setup(test_adapting_follows, setup),
		cmocka_unit_test_setup(test_a_lane_holds_for_who_sleeps_alone, setup),
		cmocka_unit_test_setup(test_a_lane_holds_nothing_from_who_leaves_frames, setup),
		cmocka_unit_test_setup(test_a_lane_whose_peer_does_not_notify_is_looked_at, setup),
		cmocka_unit_test_setup(test_a_lane_without_event_index_holds_nothing, setup),
		cmocka_unit_test_setup(test_a_new_link_begins_anew, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
