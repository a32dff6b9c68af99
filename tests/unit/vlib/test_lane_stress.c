/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The waiting protocol of vlib/lane.[ch] under load: a lane that is a stub, eight threads, half of
 * them waiting for level and half for edge, one that only passes by, a peer, and a link that goes
 * and comes at random; and one or two threads alone, who ask for several positions at once while
 * these flow (vlib/moderation.h). The model in tests/model proves the protocol; this shows that the
 * code is the protocol, above all under ThreadSanitizer.
 *
 * The stub's peer publishes positions with the semantics of the event index, the harder of the two:
 * it notifies only when the armed position lies in what it has just published. Between publishing
 * and looking it lets others run, since there the wake-ups were lost once.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "vlib/lane.h"

#define THREADS 8
#define SETS 4
#define ROUNDS 10000 /* publications */
#define LOST_WAKEUP_MS 20000

#define must(cond)                                                                 \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

static struct stub {
	struct pd_lane lane;
	uint32_t published; /* the peer's index */
	uint32_t event;     /* position to notify at */
	uint32_t armed;
	uint32_t held; /* times that more than one was asked for; under the lock */
	int threads;   /* of THREADS, those that run */
	int event_fd;
	uint32_t finished; /* the peer has published its last */
	uint32_t consumed; /* the cursor, for those who do not hold the lock */
	uint64_t sleeps;   /* under the lock */
} stub;

/* What each thread knows: an edge-triggered one, the position it has reported last. */
static uint32_t known_of[THREADS];

static uint32_t stub_position(struct pd_lane *lane, enum pd_dir dir)
{
	return pd_load_acquire(&stub.published);
}

static bool stub_arm(struct pd_lane *lane, enum pd_dir dir, uint32_t seen, uint32_t hold)
{
	pd_store_relaxed(&stub.event, seen + hold - 1);
	pd_store_relaxed(&stub.armed, 1);
	stub.held += hold > 1;
	pd_fence_full();
	return pd_load_acquire(&stub.published) != seen;
}

static void stub_disarm(struct pd_lane *lane, enum pd_dir dir)
{
	pd_store_relaxed(&stub.armed, 0);
}

static void stub_drain(struct pd_lane *lane, enum pd_dir dir)
{
	uint64_t v;

	if (read(stub.event_fd, &v, sizeof(v)) < 0)
		return; /* somebody else has: it is non-blocking */
}

static const struct pd_lane_ops stub_ops = {
	.position = stub_position,
	.arm = stub_arm,
	.disarm = stub_disarm,
	.drain = stub_drain,
};

/* Publish `n` positions, then look whether anybody wants to know. */
static void peer_publish(uint32_t n, bool dawdle)
{
	static const uint64_t one = 1;
	uint32_t old = stub.published, now = old + n;

	pd_store_release(&stub.published, now);
	pd_fence_full();
	for (int i = 0; dawdle && i < 20; i++)
		sched_yield();
	if (pd_load_relaxed(&stub.armed) && now - pd_load_relaxed(&stub.event) - 1 < now - old)
		must(write(stub.event_fd, &one, sizeof(one)) == sizeof(one));
}

/* Has every position reached everybody? */
static bool at_rest(void)
{
	uint32_t now = pd_load_acquire(&stub.published);

	if (pd_load_acquire(&stub.consumed) != now)
		return false;
	for (int i = 1; i < stub.threads; i += 2)
		if (pd_load_acquire(&known_of[i]) != now)
			return false;
	return true;
}

static void *peer(void *arg)
{
	unsigned seed = 7;

	for (int i = 0; i < ROUNDS; i++) {
		peer_publish(1 + (uint32_t)rand_r(&seed) % 3, rand_r(&seed) % 4 == 0);
		/*
		 * Mostly wait until all have it, for the next publication would mend what was lost.
		 */
		if (rand_r(&seed) % 64)
			while (!at_rest())
				sched_yield();
	}
	pd_store_release(&stub.finished, 1);
	peer_publish(1, true);
	return NULL;
}

/* The link goes down and comes up, now and then, in the first half: it wakes everybody, and so would hide
 * what is lost. */
static void *control(void *arg)
{
	struct pd_lane_side *side = &stub.lane.side[PD_RX];
	unsigned seed = 9;

	while (pd_load_acquire(&stub.published) < ROUNDS) {
		for (int i = rand_r(&seed) % 2000; i; i--)
			sched_yield();
		pd_lock(&side->lock);
		pd_lane_set_link(&stub.lane, PD_RX, false, -1, side->cursor);
		pd_store_relaxed(&stub.armed, 0);
		pd_unlock(&side->lock);
		sched_yield();
		pd_lock(&side->lock);
		pd_lane_set_link(&stub.lane, PD_RX, true, stub.event_fd, side->cursor);
		pd_unlock(&side->lock);
	}
	return NULL;
}

/* Sleep once from w->seen, up to `timeout_ms`; the lock is held before and after. */
static void sleep_once(struct pd_lane_waiter *w, int timeout_ms)
{
	struct pd_lane_side *side = &stub.lane.side[PD_RX];
	struct pollfd fds[2];
	uint64_t v, now;
	struct timespec left;
	bool late;
	int n;

	if (!pd_lane_sleep(&stub.lane, PD_RX, w))
		return;
	stub.sleeps += timeout_ms > 0;
	fds[0] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = side->event_fd, .events = POLLIN};
	now = pd_clock_ns();
	v = now < w->until_ns ? w->until_ns - now : 0;
	v = pd_min(v, (uint64_t)timeout_ms * PD_NS_PER_MS);
	left = (struct timespec){.tv_sec = (time_t)(v / PD_NS_PER_SEC),
				 .tv_nsec = (long)(v % PD_NS_PER_SEC)};
	late = w->until_ns != UINT64_MAX || timeout_ms < LOST_WAKEUP_MS;
	pd_unlock(&side->lock);
	n = ppoll(fds, 2, &left, NULL);
	must(n > 0 || (n == 0 && late));
	if (fds[0].revents)
		must(read(w->wake_fd, &v, sizeof(v)) == sizeof(v));
	pd_lock(&side->lock);
	pd_lane_wake(&stub.lane, PD_RX, w, n > 0 && fds[1].revents & POLLIN);
}

/* Even threads consume (level-triggered); odd ones report each position once (edge-triggered). */
static void *waiter(void *arg)
{
	int me = (int)(intptr_t)arg;
	struct pd_lane_side *side = &stub.lane.side[PD_RX];
	struct pd_lane_waiter w;
	unsigned seed = (unsigned)me;
	uint32_t known = 0;

	pd_list_init(&w.node);
	w.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(w.wake_fd >= 0);
	pd_lock(&side->lock);
	for (;;) {
		bool last = pd_load_acquire(&stub.finished);
		uint32_t ready = pd_lane_ready(&stub.lane, PD_RX);
		uint32_t now = side->up ? stub_position(&stub.lane, PD_RX) : known;

		if (me % 2 == 0 && ready) {
			side->cursor += 1 + (uint32_t)rand_r(&seed) % ready;
			pd_store_release(&stub.consumed, side->cursor);
		} else if (me % 2 && now != known) {
			known = now;
			pd_store_release(&known_of[me], known);
		} else if (last && side->up && now == stub_position(&stub.lane, PD_RX) &&
			   pd_load_acquire(&stub.finished) == 2) {
			break;
		} else {
			w.seen = me % 2 ? known : side->cursor;
			sleep_once(&w, rand_r(&seed) % 64 ? LOST_WAKEUP_MS : 1);
		}
		/* A program that does something else between its calls. */
		if (rand_r(&seed) % 8 == 0) {
			pd_unlock(&side->lock);
			sched_yield();
			pd_lock(&side->lock);
		}
	}
	pd_unlock(&side->lock);
	close(w.wake_fd);
	return NULL;
}

/* Passes by: looks at the position and goes to sleep from it, for no time at all, over and over. It arms
 * over the others at any moment. */
static void *passer(void *arg)
{
	struct pd_lane_side *side = &stub.lane.side[PD_RX];
	struct pd_lane_waiter w;

	pd_list_init(&w.node);
	w.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(w.wake_fd >= 0);
	while (pd_load_acquire(&stub.finished) != 2) {
		pd_lock(&side->lock);
		w.seen = side->up ? stub_position(&stub.lane, PD_RX) : side->cursor;
		sleep_once(&w, 0);
		pd_unlock(&side->lock);
		sched_yield();
	}
	close(w.wake_fd);
	return NULL;
}

/* Run `threads` on one side, moderated or not. */
static void run(int threads, bool moderated)
{
	struct pd_lane_side *side = &stub.lane.side[PD_RX];
	struct pd_ctr_block *const none[PD_DIRS] = {NULL, NULL};
	pthread_t t[THREADS], p, c, passing;

	memset(&stub, 0, sizeof(stub));
	memset(known_of, 0, sizeof(known_of));
	stub.threads = threads;
	pd_moderation_tuning = (struct pd_moderation_tuning){
		.enabled = moderated, .count = 2, .period_ns = 1000000};
	pd_lane_init(&stub.lane, &stub_ops, 0, 0, none);
	stub.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(stub.event_fd >= 0);
	side->hold_max = 4;
	pd_lock(&side->lock);
	pd_lane_set_link(&stub.lane, PD_RX, true, stub.event_fd, 0);
	pd_unlock(&side->lock);
	for (int i = 0; i < threads; i++)
		assert_int_equal(pthread_create(&t[i], NULL, waiter, (void *)(intptr_t)i), 0);
	if (!moderated)
		assert_int_equal(pthread_create(&passing, NULL, passer, NULL), 0);
	assert_int_equal(pthread_create(&c, NULL, control, NULL), 0);
	assert_int_equal(pthread_create(&p, NULL, peer, NULL), 0);
	pthread_join(p, NULL);
	pthread_join(c, NULL);
	/* Nobody notifies or rings any more: who sleeps on something new now sleeps for ever, and the
	 * sleepers abort at that. First let all come to rest, then end them. */
	while (!at_rest())
		sched_yield();
	pd_lock(&side->lock);
	pd_store_release(&stub.finished, 2);
	pd_lane_ring(&stub.lane, PD_RX, true);
	pd_unlock(&side->lock);
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	if (!moderated)
		pthread_join(passing, NULL);
	print_message("# %llu sleeps, %u held, for %u positions in %u publications\n",
		      (unsigned long long)stub.sleeps, stub.held, stub.published, ROUNDS);
	assert_true(pd_list_empty(&side->waiters));
	assert_int_equal(side->cursor, stub.published);
	/*
	 * Nobody spun: a few ends of sleep per thread for each publication and change of the link.
	 */
	assert_true(stub.sleeps < 8ull * THREADS * ROUNDS);
	assert_int_equal(stub.held > 0, moderated);
	close(stub.event_fd);
}

static void test_eight_threads_on_one_side(void **state)
{
	run(THREADS, false);
}

static void test_one_thread_that_asks_for_several(void **state)
{
	run(1, true);
}

static void test_two_threads_that_ask_for_several_when_alone(void **state)
{
	run(2, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_eight_threads_on_one_side),
		cmocka_unit_test(test_one_thread_that_asks_for_several),
		cmocka_unit_test(test_two_threads_that_ask_for_several_when_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
