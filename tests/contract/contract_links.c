/* SPDX-License-Identifier: BSD-2-Clause */
/* The contract: links that come and go. */
#include "contract.h"

static uint32_t len_64(uint32_t seq)
{
	return 64;
}

/* Sleeps on a side until its link has changed `changes` times. */
struct link_watch {
	struct pd_lane *lane;
	enum pd_dir dir;
	uint32_t asleep; /* set once it is linked */
	bool want_up;
};

static void *watch_link(void *arg)
{
	struct link_watch *l = arg;
	struct pd_lane_side *side = &l->lane->side[l->dir];
	struct sleeper s;

	sleeper_init(&s);
	pd_lock(&side->lock);
	pd_store_release(&l->asleep, 1);
	while (side->up != l->want_up) {
		s.w.seen = side->up ? l->lane->ops->position(l->lane, l->dir) : side->cursor;
		sleep_once(l->lane, l->dir, &s);
	}
	pd_unlock(&side->lock);
	close(s.w.wake_fd);
	return NULL;
}

void test_a_change_of_the_link_wakes_who_sleeps(void **state)
{
	for (int stays = 0; stays < 2; stays++) {
		for (int up = 0; up < 2; up++) {
			struct link_watch l[PD_DIRS];
			pthread_t t[PD_DIRS];

			for (int dir = 0; dir < PD_DIRS; dir++) {
				l[dir] = (struct link_watch){
					.lane = lane_of(stays), .dir = dir, .want_up = up};
				assert_int_equal(pthread_create(&t[dir], NULL, watch_link, &l[dir]),
						 0);
			}
			for (int dir = 0; dir < PD_DIRS; dir++)
				while (!pd_load_acquire(&l[dir].asleep))
					sched_yield();
			if (up)
				assert_int_equal(pd_port_open(ports[!stays]), 0);
			else
				pd_port_close(ports[!stays]);
			for (int dir = 0; dir < PD_DIRS; dir++)
				pthread_join(t[dir], NULL);
			wait_state(ports[stays], up ? PD_PORT_UP : PD_PORT_DOWN);
		}
		wait_state(ports[!stays], PD_PORT_UP);
	}
}

void test_frames_flow_again_after_closing_and_opening(void **state)
{
	for (int round = 0; round < 6; round++) {
		struct flow f = {.from = lane_of(round & 1),
				 .to = lane_of(!(round & 1)),
				 .frames = 300,
				 .len_of = len_64,
				 .mixed = true};

		flow_run(&f);
		/* Frames that nobody takes do not come back after the link was down. */
		if (round == 2)
			send_one(lane_of(0), 1, 60);
		if (round < 4) {
			pd_port_close(ports[round >> 1 & 1]);
			wait_state(ports[!(round >> 1 & 1)], PD_PORT_DOWN);
		} else {
			pd_ports_close_all();
		}
		link_up();
		assert_int_equal(pd_lane_ready(lane_of(0), PD_RX), 0);
		assert_int_equal(pd_lane_ready(lane_of(1), PD_RX), 0);
	}
}
