/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eight threads on four epolls over two stub lanes: sleeping, arming, looking again, while members
 * come, change and go, objects and epolls are closed, and links go down; and the same with a thread
 * or two. Above all for ThreadSanitizer and AddressSanitizer.
 *
 * Some epolls are level-triggered: all of these must report a frame before it is taken. Others are
 * edge-triggered: each must report each position of each lane, and each ring of a bell, to one of
 * its threads. The peer publishes mostly when all of that has happened, for the next publication
 * would mend what was lost; a thread that nobody wakes aborts the test. Nobody may report an edge
 * twice, nor go round without sleeping.
 *
 * With exclusive members all level-triggered epolls count as one, which is told when one of them
 * is, and so do the edge-triggered ones but the last. Some threads end their waits soon by time or
 * a signal, and stay away until all are told without them: calling anew they would see what was
 * lost.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "stub.h"

#define THREADS_MAX 8
#define EPOLLS_MAX 4
#define LANES 2
#define ROUNDS 3000 /* publications */
#define CLOSES 200  /* epolls closed and made anew */
#define LOST_WAKEUP_MS 30000

/* What an epoll's members are known by. */
#define BELL LANES
#define SOURCES (LANES + 1)
#define LEAVE 100 /* the kernel member that ends every wait */
#define GUEST 101 /* an object that comes and goes */

struct epoll {
	struct pd_epoll ep;
	int epfd, leave_fd;
};

/*
 * Who waits. The first epolls are level-triggered, the others edge-triggered; threads are shared
 * out.
 */
struct shape {
	int threads, epolls, levels;
	bool churn;     /* everything changes meanwhile */
	bool hold;      /* who sleeps alone asks for several positions while they flow */
	bool exclusive; /* members, but those of the last epoll */
};

static struct {
	struct shape shape;
	struct stub_lane lanes[LANES];
	struct stub_object frames[LANES], news[LANES], bell;
	struct epoll all[EPOLLS_MAX + CLOSES],
		*now[EPOLLS_MAX]; /* a closed one stays where it is: threads may be in it */
	unsigned made;
	uint32_t known[EPOLLS_MAX][SOURCES];   /* the last position that was reported */
	uint32_t reports[EPOLLS_MAX][SOURCES]; /* how often */
	uint32_t renewed[EPOLLS_MAX][SOURCES]; /* how often an edge could be reported again */
	uint32_t published[SOURCES];           /* how many publications */
	uint32_t guests;                       /* alive */
	uint32_t left;                         /* waits that ended early */
	pthread_t threads[THREADS_MAX];
	bool finished;
} t;

/* The epoll that the reports of epoll `e` are noted under. */
static int place_of(int e)
{
	if (!t.shape.exclusive || e == t.shape.epolls - 1)
		return e;
	return e < t.shape.levels ? 0 : t.shape.levels;
}

/* A guest is freed when nobody sleeps on its bell. */
struct guest {
	struct stub_object object;
	uint32_t refs;
};

static void guest_hold(void *owner)
{
	pd_fetch_add(&((struct guest *)owner)->refs, 1);
}

static void guest_drop(void *owner)
{
	if (pd_fetch_sub(&((struct guest *)owner)->refs, 1) == 1) {
		pd_fetch_sub(&t.guests, 1);
		free(owner);
	}
}

/* The position of a source now. */
static uint32_t position(int source)
{
	return source == BELL ? pd_load_acquire(&t.bell.count)
			      : stub_position(&t.lanes[source].lane, PD_RX);
}

/* The object that stands for a source in epoll `e`. */
static struct pd_pollable *object_of(int e, int source)
{
	return source == BELL       ? &t.bell.pollable
	       : e < t.shape.levels ? &t.frames[source].pollable
				    : &t.news[source].pollable;
}

/* Add, change or remove a member. */
static void control(int e, int op, int source)
{
	struct epoll_event event = {.events = e < t.shape.levels ? EPOLLIN : EPOLLIN | EPOLLET,
				    .data.u32 = (uint32_t)source};

	if (op == EPOLL_CTL_MOD && t.shape.exclusive) {
		control(e, EPOLL_CTL_DEL, source);
		op = EPOLL_CTL_ADD;
	}
	if (t.shape.exclusive && e != t.shape.epolls - 1)
		event.events |= EPOLLEXCLUSIVE;
	if (op != EPOLL_CTL_DEL)
		pd_fetch_add(&t.renewed[e][source], 1);
	must(!pd_epoll_ctl(&t.now[e]->ep, op, source, object_of(e, source), &event));
}

/* A new epoll in place `e`, with all its members. */
static void epoll_make(int e)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = LEAVE};
	struct epoll *new = &t.all[t.made++];

	new->epfd = epoll_create1(EPOLL_CLOEXEC);
	new->leave_fd = eventfd(0, EFD_CLOEXEC);
	must(new->epfd >= 0 && new->leave_fd >= 0);
	must(!epoll_ctl(new->epfd, EPOLL_CTL_ADD, new->leave_fd, &event));
	pd_epoll_init(&new->ep, new->epfd);
	new->ep.kernel_members = 1;
	pd_store_release(&t.now[e], new);
	for (int source = 0; source < SOURCES; source++)
		if (e >= t.shape.levels || source != BELL)
			control(e, EPOLL_CTL_ADD, source);
}

/* Send everyone out of an epoll that was closed. */
static void epoll_leave(struct epoll *e)
{
	static const uint64_t one = 1;

	must(write(e->leave_fd, &one, sizeof(one)) == sizeof(one));
}

/* Has every position been reported where it must be? */
static bool at_rest(void)
{
	for (int source = 0; source < SOURCES; source++) {
		for (int e = source == BELL ? t.shape.levels : 0; e < t.shape.epolls; e++)
			if (pd_load_acquire(&t.known[place_of(e)][source]) != position(source))
				return false;
	}
	return true;
}

/*
 * An epoll of `e` has reported `source`: note the position, and take the frames once all level
 * epolls know.
 */
static void reported(int e, int source)
{
	struct pd_lane_side *side;
	int place = place_of(e);
	uint32_t now = position(source), was = pd_load_relaxed(&t.known[place][source]);

	pd_fetch_add(&t.reports[e][source], 1);
	while ((int32_t)(now - was) > 0 && !pd_cas(&t.known[place][source], &was, now))
		;
	if (e >= t.shape.levels)
		return;
	side = &t.lanes[source].lane.side[PD_RX];
	pd_lock(&side->lock);
	for (int other = 0; other < t.shape.levels; other++)
		now = pd_min(now, pd_load_acquire(&t.known[place_of(other)][source]));
	if ((int32_t)(now - side->cursor) > 0)
		side->cursor = now;
	pd_unlock(&side->lock);
	sched_yield();
}

/* True for a thread that ends its waits early: every second one of an exclusive epoll. */
static bool leaves(int thread)
{
	return t.shape.exclusive && thread >= t.shape.epolls &&
	       thread % t.shape.epolls != t.shape.epolls - 1;
}

/* Its wait ended early: stay away until the others have been told of everything. */
static void stay_away(void)
{
	pd_fetch_add(&t.left, 1);
	while (!at_rest() && !pd_load_acquire(&t.finished))
		sched_yield();
}

static void on_signal(int sig)
{
}

/* Waits in its epoll, whichever stands in its place. */
static void *waiter(void *arg)
{
	int e = (int)(intptr_t)arg % t.shape.epolls;
	unsigned seed = (unsigned)(intptr_t)arg;
	bool leaving = leaves((int)(intptr_t)arg), slept;
	struct epoll_event events[3];

	while (!pd_load_acquire(&t.finished)) {
		struct epoll *epoll = pd_load_acquire(&t.now[e]);
		uint64_t deadline = leaving && rand_r(&seed) % 2
					    ? pd_clock_ns() + (uint64_t)rand_r(&seed) % 100000
					    : pd_wait_deadline_ms(LOST_WAKEUP_MS);
		int n = pd_epoll_wait(&epoll->ep, events, 3, deadline, NULL, &slept);

		must(n > 0 || (leaving && (!n || n == -EINTR)));
		if (n <= 0)
			stay_away();
		for (int i = 0; i < n; i++)
			if (events[i].data.u32 < SOURCES)
				reported(e, (int)events[i].data.u32);
		/*
		 * A program that does something else between its calls: then the other thread is
		 * alone.
		 */
		for (int i = rand_r(&seed) % 64; i; i--)
			sched_yield();
	}
	return NULL;
}

/* Publishes on lanes and rings the bell. */
static void *peer(void *arg)
{
	unsigned seed = 7;

	for (int i = 0; i < ROUNDS; i++) {
		int source = rand_r(&seed) % SOURCES;

		t.published[source]++;
		if (t.shape.exclusive && leaves(i % t.shape.threads) && i % 2)
			pthread_kill(t.threads[i % t.shape.threads], SIGUSR1);
		if (source == BELL) {
			pd_fetch_add(&t.bell.count, 1);
			pd_bell_ring(&t.bell.pollable.bell);
		} else {
			stub_publish(&t.lanes[source], 1 + (uint32_t)rand_r(&seed) % 3,
				     rand_r(&seed) % 4 == 0);
		}
		if (rand_r(&seed) % 32)
			while (!at_rest())
				sched_yield();
		for (int j = rand_r(&seed) % 128; j; j--) /* some are about to sleep, some asleep */
			sched_yield();
	}
	return NULL;
}

/* An object joins an epoll, is readable or not, and ends; whoever sleeps on its bell keeps it. */
static void guest_visits(int e, unsigned *seed)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = GUEST};
	struct guest *g = calloc(1, sizeof(*g));

	must(g);
	stub_object_init(&g->object, NULL, false);
	g->refs = 1;
	g->object.pollable.owner = g;
	g->object.count = (uint32_t)rand_r(seed) % 2;
	pd_fetch_add(&t.guests, 1);
	must(!pd_epoll_ctl(&t.now[e]->ep, EPOLL_CTL_ADD, GUEST, &g->object.pollable, &event));
	for (int i = rand_r(seed) % 8; i; i--)
		sched_yield();
	pd_pollable_detach(&g->object.pollable);
	guest_drop(g);
}

/* A link goes down and comes back: that wakes everybody. */
static void bounce(struct stub_lane *lane)
{
	struct pd_lane_side *side = &lane->lane.side[PD_RX];

	pd_lock(&side->lock);
	pd_lane_set_link(&lane->lane, PD_RX, false, -1, side->cursor);
	pd_store_relaxed(&lane->armed, 0);
	pd_unlock(&side->lock);
	sched_yield();
	pd_lock(&side->lock);
	pd_lane_set_link(&lane->lane, PD_RX, true, lane->event_fd, side->cursor);
	pd_unlock(&side->lock);
	for (int e = t.shape.levels; e < t.shape.epolls;
	     e++) /* down, an object stands at the cursor: two more edges */
		pd_fetch_add(&t.renewed[e][lane - t.lanes], 2);
}

/* Changes everything, for the first half; it wakes others, and so would hide what is lost. */
static void *churner(void *arg)
{
	unsigned seed = 9;

	while (t.made < EPOLLS_MAX + CLOSES &&
	       pd_load_acquire(&t.lanes[0].published) < ROUNDS / SOURCES) {
		int e = rand_r(&seed) % t.shape.epolls, source = rand_r(&seed) % LANES;

		for (int i = rand_r(&seed) % 60; i; i--)
			sched_yield();
		switch (rand_r(&seed) % 8) {
		case 0:
			bounce(&t.lanes[source]);
			break;
		case 1:
			guest_visits(e, &seed);
			break;
		case 2: {
			struct epoll *old = t.now[e];

			epoll_make(e);
			pd_epoll_destroy(&old->ep);
			epoll_leave(old);
			break;
		}
		case 3:
		case 4:
			control(e, EPOLL_CTL_DEL, source);
			sched_yield();
			control(e, EPOLL_CTL_ADD, source);
			break;
		default:
			control(e, EPOLL_CTL_MOD, source);
		}
	}
	return NULL;
}

/* Nothing was reported more often than it came, and nobody went round without sleeping. */
static void check_counts(void)
{
	uint64_t arms = 0, held = 0, work = 0;

	for (int source = 0; source < SOURCES; source++) {
		work += t.published[source];
		for (int e = t.shape.levels; e < t.shape.epolls; e++) {
			work += t.renewed[e][source];
			/* Of exclusive epolls one may be told too many, but not each. */
			assert_true(t.reports[e][source] <=
				    t.published[source] + t.renewed[e][source]);
		}
	}
	for (int lane = 0; lane < LANES; lane++) {
		arms += t.lanes[lane].arms;
		held += t.lanes[lane].held;
	}
	print_message("# %llu times armed, %llu held, for %llu changes, %u epolls\n",
		      (unsigned long long)arms, (unsigned long long)held, (unsigned long long)work,
		      t.made);
	assert_int_equal(held > 0, t.shape.hold);
	assert_int_equal(t.left > 0, t.shape.exclusive);
	assert_true(arms < 16 * t.shape.threads * work);
}

static void run(const struct shape *shape)
{
	pthread_t publishing, changing;

	memset(&t, 0, sizeof(t));
	t.shape = *shape;
	pd_moderation_tuning = (struct pd_moderation_tuning){
		.enabled = shape->hold, .count = 2, .period_ns = 2000000};
	pd_wait_hold = guest_hold;
	pd_wait_drop = guest_drop;
	for (int i = 0; i < LANES; i++) {
		stub_lane_init(&t.lanes[i]);
		t.lanes[i].lane.side[PD_RX].hold_max = 4;
		stub_object_init(&t.frames[i], &t.lanes[i], false);
		stub_object_init(&t.news[i], &t.lanes[i], true);
		t.frames[i].dawdle = t.news[i].dawdle = 2;
	}
	stub_object_init(&t.bell, NULL, false);
	t.bell.dawdle = 2;
	for (int e = 0; e < t.shape.epolls; e++)
		epoll_make(e);
	for (int i = 0; i < t.shape.threads; i++)
		assert_int_equal(pthread_create(&t.threads[i], NULL, waiter, (void *)(intptr_t)i),
				 0);
	assert_int_equal(pthread_create(&publishing, NULL, peer, NULL), 0);
	if (shape->churn) {
		assert_int_equal(pthread_create(&changing, NULL, churner, NULL), 0);
		pthread_join(changing, NULL);
	}
	pthread_join(publishing, NULL);
	while (!at_rest())
		sched_yield();
	pd_store_release(&t.finished, true);
	for (int e = 0; e < t.shape.epolls; e++)
		epoll_leave(t.now[e]);
	for (int i = 0; i < t.shape.threads; i++)
		pthread_join(t.threads[i], NULL);
	check_counts();
	for (int e = 0; e < t.shape.epolls; e++)
		pd_epoll_destroy(&t.now[e]->ep);
	for (unsigned i = 0; i < t.made; i++) {
		close(t.all[i].epfd);
		close(t.all[i].leave_fd);
	}
	assert_int_equal(t.guests, 0);
	for (int i = 0; i < LANES; i++) {
		assert_true(pd_list_empty(&t.lanes[i].lane.side[PD_RX].waiters));
		assert_true(pd_list_empty(&t.frames[i].pollable.links));
		close(t.lanes[i].event_fd);
	}
	assert_true(pd_list_empty(&t.bell.pollable.bell.waiters));
}

static void test_eight_threads_on_four_epolls(void **state)
{
	run(&(struct shape){8, 4, 2, true, false, false});
}

/*
 * Threads that go to sleep tell those that sleep already, so many of them heal what one lost. Alone
 * each must do.
 */
static void test_one_thread_alone(void **state)
{
	run(&(struct shape){1, 1, 0, false, false, false});
	run(&(struct shape){1, 1, 1, false, false, false});
	run(&(struct shape){2, 2, 1, false, false, false});
}

/* Bounded sleeps, of one thread and of two on one lane. */
static void test_alone_and_held(void **state)
{
	run(&(struct shape){1, 1, 1, false, true, false});
	run(&(struct shape){2, 2, 1, false, true, false});
}

/*
 * Six exclusive threads beside two that are not; and three on two epolls that each have to do it
 * alone.
 */
static void test_exclusive_ones_leave(void **state)
{
	run(&(struct shape){8, 4, 2, true, false, true});
	run(&(struct shape){5, 3, 2, false, false, true});
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_eight_threads_on_four_epolls),
		cmocka_unit_test(test_one_thread_alone),
		cmocka_unit_test(test_alone_and_held),
		cmocka_unit_test(test_exclusive_ones_leave),
	};

	sigaction(SIGUSR1, &action, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
