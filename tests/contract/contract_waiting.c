/* SPDX-License-Identifier: BSD-2-Clause */
/* The contract: arming, sleeping and being woken. */
#include "contract.h"

void test_arm_tells_what_is_new_and_the_event_comes_once(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct pd_lane *from = lane_of(i), *to = lane_of(!i);
		struct pd_lane_side *side = &to->side[PD_RX];
		struct pd_buffer *got[4];
		struct pollfd p;
		uint32_t seen;

		pd_lock(&side->lock);
		to->ops->drain(to, PD_RX);
		seen = to->ops->position(to, PD_RX);
		assert_int_equal(seen, side->cursor);
		assert_false(to->ops->arm(to, PD_RX, seen, 1));
		p = (struct pollfd){.fd = side->event_fd, .events = POLLIN};
		assert_int_equal(poll(&p, 1, 0), 0);
		pd_unlock(&side->lock);

		send_one(from, 1, 60);
		assert_int_equal(poll(&p, 1, LOST_WAKEUP_MS), 1);

		pd_lock(&side->lock);
		assert_true(to->ops->arm(to, PD_RX, seen, 1));
		assert_int_equal(to->ops->position(to, PD_RX), seen + 1);
		to->ops->drain(to, PD_RX);
		assert_int_equal(poll(&p, 1, 0), 0);
		/* What stands in the ring is no news to who has seen it. */
		assert_false(to->ops->arm(to, PD_RX, seen + 1, 1));
		assert_int_equal(poll(&p, 1, 0), 0);
		pd_unlock(&side->lock);

		send_one(from, 2, 60);
		assert_int_equal(poll(&p, 1, LOST_WAKEUP_MS), 1);
		pd_lock(&side->lock);
		to->ops->drain(to, PD_RX);
		to->ops->disarm(to, PD_RX);
		assert_int_equal(to->ops->rx(to, got, 4), 2);
		to->ops->rx_done(to, 2);
		pd_unlock(&side->lock);
	}
}

#define PING_PONGS 20000

static void *pong(void *arg)
{
	struct pd_lane *lane = arg;
	struct pd_buffer *got, *out;
	struct sleeper s;

	sleeper_init(&s);
	for (uint32_t seq = 0; seq < PING_PONGS; seq++) {
		pd_lock(&lane->side[PD_RX].lock);
		wait_ready(lane, PD_RX, &s);
		must(lane->ops->rx(lane, &got, 1) == 1);
		check_frame(got, seq, 64);
		lane->ops->rx_done(lane, 1);
		pd_unlock(&lane->side[PD_RX].lock);
		out = frame(seq, 64, 1);
		send_all(lane, &out, 1, &s);
		frames_free(&out, 1);
	}
	close(s.w.wake_fd);
	return NULL;
}

void test_ping_pong_through_sleep_loses_no_wakeup(void **state)
{
	struct pd_lane *lane = lane_of(0);
	struct pd_buffer *got, *out;
	struct sleeper s;
	pthread_t t;

	sleeper_init(&s);
	assert_int_equal(pthread_create(&t, NULL, pong, lane_of(1)), 0);
	for (uint32_t seq = 0; seq < PING_PONGS; seq++) {
		out = frame(seq, 64, 1);
		send_all(lane, &out, 1, &s);
		frames_free(&out, 1);
		pd_lock(&lane->side[PD_RX].lock);
		wait_ready(lane, PD_RX, &s);
		assert_int_equal(lane->ops->rx(lane, &got, 1), 1);
		check_frame(got, seq, 64);
		lane->ops->rx_done(lane, 1);
		pd_unlock(&lane->side[PD_RX].lock);
	}
	pthread_join(t, NULL);
	close(s.w.wake_fd);
}

/* Several threads on one receive side: some take frames, some only watch for news. */
struct crowd {
	struct pd_lane *lane;
	uint32_t total;
	uint32_t taken; /* under the side's lock */
	uint64_t rounds;
};

static void *crowd_taker(void *arg)
{
	struct crowd *c = arg;
	struct pd_lane_side *side = &c->lane->side[PD_RX];
	struct pd_buffer *got;
	struct sleeper s;

	sleeper_init(&s);
	pd_lock(&side->lock);
	while (c->taken < c->total) {
		s.w.seen = c->lane->ops->position(c->lane, PD_RX);
		if (c->lane->ops->rx(c->lane, &got, 1) == 1) {
			check_frame(got, c->taken++, 64);
			c->lane->ops->rx_done(c->lane, 1);
			if (c->taken == c->total)
				pd_lane_ring(c->lane, PD_RX, true);
			continue;
		}
		sleep_once(c->lane, PD_RX, &s);
	}
	c->rounds += s.rounds;
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
	return NULL;
}

static void *crowd_watcher(void *arg)
{
	struct crowd *c = arg;
	struct pd_lane_side *side = &c->lane->side[PD_RX];
	struct sleeper s;
	uint32_t first;

	sleeper_init(&s);
	pd_lock(&side->lock);
	first = side->cursor - c->taken;
	for (;;) {
		/* Edge-triggered: whatever is there now is known; only news ends the sleep. */
		s.w.seen = c->lane->ops->position(c->lane, PD_RX);
		if (s.w.seen - first == c->total)
			break;
		sleep_once(c->lane, PD_RX, &s);
	}
	c->rounds += s.rounds;
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
	return NULL;
}

void test_several_sleepers_on_one_side(void **state)
{
	struct pd_lane *from = lane_of(0);
	struct crowd c = {.lane = lane_of(1), .total = 5000};
	pthread_t t[5];
	struct sleeper s;

	for (int i = 0; i < 5; i++)
		assert_int_equal(
			pthread_create(&t[i], NULL, i < 3 ? crowd_taker : crowd_watcher, &c), 0);
	sleeper_init(&s);
	for (uint32_t seq = 0; seq < c.total; seq++) {
		struct pd_buffer *b = frame(seq, 64, 1);

		send_all(from, &b, 1, &s);
		frames_free(&b, 1);
		if (seq % 7 == 0)
			sched_yield();
	}
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(c.taken, c.total);
	/* Nobody wakes over and over for what it knows already: a few ends of sleep per frame and
	 * thread at the very most. */
	assert_true(c.rounds <= 5ull * 3 * c.total);
	close(s.w.wake_fd);
}
