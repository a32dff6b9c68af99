/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the contract's tests share: a link of two ports, frames whose bytes tell their number,
 * sleepers, and flows from one thread to another.
 *
 * A frame is a slice of one random table, so that contents are compared without being made first;
 * its sidecar is derived from its number, so that each differs.
 */
#ifndef TESTS_CONTRACT_H
#define TESTS_CONTRACT_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "vlib/progress.h"

#define LOST_WAKEUP_MS 20000

/* One way to join two ports. */
struct link {
	const char *name;
	const char *transport;
	bool mrg_is_one; /* every frame arrives as one buffer */
	enum pd_conf_mode mode[2];
	enum pd_conf_side role[2];
	enum pd_conf_format format;
	bool single;     /* no mergeable buffers */
	bool in_order;   /* buffers come back in the order in which they were given */
	unsigned queues; /* pairs, 0 for one; the first is used */
	bool offloads;   /* without a sidecar by name, and unfinished frames may go over it */
	uint32_t ring;
};

/* The link under test, and its two ports. */
extern const struct link *current;
extern struct pd_port *ports[2];

/* A check in a thread, where cmocka's assertions must not jump. */
#define must(cond)                                                                            \
	do {                                                                                  \
		if (!(cond)) {                                                                \
			fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, current->name, \
				#cond);                                                       \
			abort();                                                              \
		}                                                                             \
	} while (0)

/* Make what all tests use. Returns 0 or -errno. */
int rig_init(void);

/* Make the link *state, up; a test's set-up. */
int link_setup(void **state);
/* Close it, and see that no header was lost. */
int link_teardown(void **state);
/* Open both ports and wait until they are up. */
void link_up(void);
/* Wait until `port` is in `state`. */
void wait_state(struct pd_port *port, enum pd_port_state state);
/* The lane of port `i`. */
struct pd_lane *lane_of(int i);

/* Make frame `seq` of `len` bytes in `segments` pieces of external memory; returns it. */
struct pd_buffer *frame(uint32_t seq, uint32_t len, unsigned segments);
void frames_free(struct pd_buffer **bufs, unsigned n);
/* Check that `b` is frame `seq` of `len` bytes. */
void check_frame(const struct pd_buffer *b, uint32_t seq, uint32_t len);

/* A sleeper with its eventfd. */
struct sleeper {
	struct pd_lane_waiter w;
	uint64_t rounds; /* sleeps that ended */
};

void sleeper_init(struct sleeper *s);
/*
 * Sleep once, from the position s->w.seen. The side's lock is held, before and after. Returns false
 * if there was something new already. Aborts when nothing ends the sleep: a lost wake-up.
 */
bool sleep_once(struct pd_lane *lane, enum pd_dir dir, struct sleeper *s);
/* Wait until the side is ready; its lock is held, before and after. */
void wait_ready(struct pd_lane *lane, enum pd_dir dir, struct sleeper *s);

/* Send `n` frames, sleeping for room as needed. */
void send_all(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n, struct sleeper *s);
/* Send one frame and free it. */
void send_one(struct pd_lane *lane, uint32_t seq, uint32_t len);

/* What a sender and a receiver thread agree on. */
struct flow {
	struct pd_lane *from, *to;
	uint32_t frames;
	uint32_t (*len_of)(uint32_t seq);
	bool mixed; /* batches of 1 to PD_VECTOR_MAX, several segments; else one frame at a time */
};

void *flow_sender(void *arg);
void *flow_receiver(void *arg);
/* Receive the whole flow in this thread. */
void flow_receive(struct flow *f);
/* Run a flow from beginning to end: its sender in a thread of its own. */
void flow_run(struct flow *f);

/* contract_frames.c: what is carried, and in which order. */
void test_every_size(void **state);
void test_batches_of_every_size_and_sums_of_counters(void **state);
void test_both_directions_at_once(void **state);
void test_shown_frames_stay_until_they_are_consumed(void **state);
void test_nothing_is_published_before_flush(void **state);
void test_a_full_ring_holds_back_and_loses_nothing(void **state);
void test_too_long_is_refused_and_what_stands_before_it_goes(void **state);
void test_frames_that_go_together_all_go_or_none(void **state);
void test_an_open_checksum_is_completed_or_passed_on(void **state);
void test_a_frame_without_sidecar_arrives_with_zeroes(void **state);

/* contract_waiting.c: arming, sleeping and being woken. */
void test_arm_tells_what_is_new_and_the_event_comes_once(void **state);
void test_ping_pong_through_sleep_loses_no_wakeup(void **state);
void test_several_sleepers_on_one_side(void **state);

/* contract_links.c: links that come and go. */
void test_a_change_of_the_link_wakes_who_sleeps(void **state);
void test_frames_flow_again_after_closing_and_opening(void **state);

#endif /* TESTS_CONTRACT_H */
