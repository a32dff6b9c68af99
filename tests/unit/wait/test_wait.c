/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll and epoll over stub objects: what takes two threads or a hand-over to see. What a program
 * can see is in tests/sock.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <cmocka.h>

#include "stub.h"
#include "wait/beacon.h"

static struct stub_lane lane;
static struct stub_object object;
static struct pd_epoll ep;
static __thread bool slept;

/* In place of libc's: how often a spin gives the core away. */
static unsigned yields;

int sched_yield(void)
{
	yields++;
	return 0;
}

static int setup(void **state)
{
	pd_wait_tuning.spin_us = 0;
	stub_lane_init(&lane);
	stub_object_init(&object, &lane, false);
	pd_epoll_init(&ep, epoll_create1(EPOLL_CLOEXEC));
	return ep.epfd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	pd_epoll_destroy(&ep);
	close(ep.epfd);
	close(lane.event_fd);
	return 0;
}

static int ctl(int op, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u32 = 7};

	return pd_epoll_ctl(&ep, op, 7, &object.pollable, &event);
}

/* How many events there are now, or within a minute; each must be the object's. */
static int got(bool wait)
{
	struct epoll_event events[4];
	int n = pd_epoll_wait(&ep, events, 4, wait ? pd_wait_deadline_ms(60000) : PD_WAIT_NOT, NULL,
			      &slept);

	for (int i = 0; i < n; i++)
		assert_int_equal(events[i].data.u32, 7);
	return n;
}

static void test_edges_come_with_positions(void **state)
{
	assert_int_equal(ctl(EPOLL_CTL_ADD, EPOLLIN | EPOLLET), 0);
	assert_int_equal(got(false), 0);
	stub_publish(&lane, 1, false);
	assert_int_equal(got(true), 1);
	assert_int_equal(got(false), 0);
	stub_publish(&lane, 3, false);
	assert_int_equal(got(true), 1);
	stub_consume(&lane, 2);
	assert_int_equal(got(false), 0);
	assert_int_equal(ctl(EPOLL_CTL_MOD, EPOLLIN | EPOLLET), 0); /* asks anew */
	assert_int_equal(got(false), 1);
	stub_publish(&lane, 1, false);
	stub_consume(&lane, 3); /* taken before it was looked at */
	assert_int_equal(got(false), 0);
}

static void test_one_shot_is_armed_again_by_mod_alone(void **state)
{
	assert_int_equal(ctl(EPOLL_CTL_ADD, EPOLLIN | EPOLLONESHOT), 0);
	stub_publish(&lane, 1, false);
	assert_int_equal(got(true), 1);
	stub_publish(&lane, 1, false);
	object.flags = EPOLLERR; /* not even errors */
	assert_int_equal(got(false), 0);
	assert_int_equal(ctl(EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT), 0);
	assert_int_equal(got(false), 1);
	assert_int_equal(got(false), 0);
}

static void test_exclusive_is_only_added(void **state)
{
	assert_int_equal(ctl(EPOLL_CTL_ADD, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT), -EINVAL);
	assert_int_equal(ctl(EPOLL_CTL_MOD, EPOLLIN | EPOLLEXCLUSIVE), -EINVAL); /* not ENOENT */
	assert_int_equal(ctl(EPOLL_CTL_ADD, EPOLLIN | EPOLLEXCLUSIVE), 0);
	assert_int_equal(ctl(EPOLL_CTL_MOD, EPOLLIN), -EINVAL);
	stub_publish(&lane, 1, false);
	assert_int_equal(got(true), 1);
	assert_int_equal(ctl(EPOLL_CTL_DEL, 0), 0);
	assert_int_equal(ctl(EPOLL_CTL_DEL, 0), -ENOENT);
}

/* How often somebody went to sleep on the lane. */
static uint32_t arms(void)
{
	uint32_t n;

	pd_lock(&lane.lane.side[PD_RX].lock);
	n = lane.arms;
	pd_unlock(&lane.lane.side[PD_RX].lock);
	return n;
}

static void *wait_in_ours(void *arg)
{
	return (void *)(intptr_t)got(true);
}

static uint32_t things; /* that came to the object below */
static struct pd_epoll *overtaker;

/* Ready once something came. Meanwhile something else comes, which another epoll is told of. */
static uint32_t look_slowly(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
			    struct pd_edge *edge)
{
	struct pd_epoll *other = overtaker;
	struct epoll_event event;

	edge->in = things;
	overtaker = NULL;
	if (other) {
		things++;
		must(pd_epoll_wait(other, &event, 1, PD_WAIT_NOT, NULL, &slept) == 1);
	}
	return edge->in ? EPOLLIN & events : 0;
}

static void prepare_nothing(struct pd_pollable *p)
{
}

/* Who was overtaken does not give turns for what the others have taken theirs for. */
static void test_exclusive_looks_that_are_overtaken(void **state)
{
	static const struct pd_pollable_ops ops = {.prepare = prepare_nothing, .poll = look_slowly};
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.u32 = 7};
	struct pd_pollable slow;
	struct pd_epoll other;

	pd_pollable_init(&slow, &ops);
	pd_epoll_init(&other, epoll_create1(EPOLL_CLOEXEC));
	assert_int_equal(pd_epoll_ctl(&other, EPOLL_CTL_ADD, 7, &slow, &event), 0);
	assert_int_equal(pd_epoll_ctl(&ep, EPOLL_CTL_ADD, 7, &slow, &event), 0);
	things = 1;
	overtaker = &other;
	assert_int_equal(got(false), 1);
	/* Two came, and two were told. */
	assert_int_equal(slow.turns_in.edge, 2);
	assert_int_equal(slow.turns_in.left, 0);
	assert_int_equal(pd_epoll_ctl(&ep, EPOLL_CTL_DEL, 7, &slow, NULL), 0);
	pd_epoll_destroy(&other);
	close(other.epfd);
}

/* Positions begin anew with a link: who waits is told, though higher counts were told of before. */
static void test_exclusive_turns_outlive_a_link(void **state)
{
	struct pd_lane_side *side = &lane.lane.side[PD_RX];
	uint32_t before;
	pthread_t waiter;
	void *result;

	assert_int_equal(ctl(EPOLL_CTL_ADD, EPOLLIN | EPOLLEXCLUSIVE), 0);
	assert_int_equal(got(false), 0);
	stub_publish(&lane, 5, false);
	for (int i = 0; i < 5; i++) /* no turn is left */
		assert_int_equal(got(false), 1);
	pd_lock(&side->lock);
	lane.published = 0;
	pd_lane_set_link(&lane.lane, PD_RX, true, lane.event_fd, 0);
	pd_unlock(&side->lock);
	before = arms();
	assert_int_equal(pthread_create(&waiter, NULL, wait_in_ours, NULL), 0);
	while (arms() == before)
		pd_cpu_relax();
	stub_publish(&lane, 1, false);
	pthread_join(waiter, &result);
	assert_int_equal((int)(intptr_t)result, 1);
}

/* The number that the object's members go by in the kernel. */
static int number_of(void *ctx, int fd)
{
	assert_int_equal(fd, 7);
	return *(int *)ctx;
}

static void *poll_object(void *arg)
{
	struct pollfd p = {.fd = 7, .events = POLLIN};
	struct pd_pollable *objects[] = {&object.pollable};

	return (void *)(intptr_t)pd_poll(&p, objects, 1, pd_wait_deadline_ms(60000), NULL, &slept);
}

static void test_an_object_moves_to_the_kernel(void **state)
{
	int pipefd[2];
	pthread_t poller;
	void *result;

	assert_int_equal(pipe(pipefd), 0);
	assert_int_equal(ctl(EPOLL_CTL_ADD, EPOLLIN | EPOLLET), 0);
	assert_int_equal(pthread_create(&poller, NULL, poll_object, NULL), 0);
	pd_pollable_move(&object.pollable, number_of, &pipefd[0]);
	assert_int_equal(ctl(EPOLL_CTL_MOD, EPOLLIN), -ESTALE);
	pd_pollable_detach(&object.pollable);
	pthread_join(poller, &result);
	assert_int_equal((int)(intptr_t)result, -ESTALE);
	assert_int_equal(got(false), 0);
	assert_int_equal(write(pipefd[1], "x", 1), 1);
	assert_int_equal(got(true), 1);
	assert_int_equal(got(false), 0); /* its interest went along: edges */
	close(pipefd[0]);
	close(pipefd[1]);
}

static void *wait_in_kernel(void *arg)
{
	struct epoll_event event;
	int n = epoll_wait(ep.epfd, &event, 1, 60000);

	return (void *)(intptr_t)(n == 1 ? pd_beacon_filter(&event, 1) : -1);
}

static void test_a_beacon_calls_all_and_is_seen_by_none(void **state)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
	pthread_t in_kernel[3], ours;
	int fd = eventfd(1, EFD_CLOEXEC); /* readable */
	void *result;

	assert_int_equal(pd_beacon_init(), 0);
	assert_true(pd_beacon_fits(ep.epfd));
	assert_false(pd_beacon_fits(fd));
	ep.kernel_members = 1;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&in_kernel[i], NULL, wait_in_kernel, NULL), 0);
	assert_int_equal(pthread_create(&ours, NULL, wait_in_ours, NULL), 0);
	pd_beacon_light(&ep);
	assert_true(pd_beacon_fits(ep.epfd));
	for (int i = 0; i < 3; i++) {
		pthread_join(in_kernel[i], &result);
		assert_null(result); /* woken, and nothing left of it */
	}
	assert_int_equal(got(false), 0);
	assert_int_equal(ep.self.ops->poll(&ep.self, EPOLLIN, NULL, &(struct pd_edge){0, 0}), 0);
	/* Who sleeps our way meanwhile hears of the kernel's members when it goes out. */
	assert_int_equal(epoll_ctl(ep.epfd, EPOLL_CTL_ADD, fd, &event), 0);
	pd_beacon_out(&ep);
	pthread_join(ours, &result);
	assert_int_equal((int)(intptr_t)result, 1);
	close(fd);
}

/* Spin to the end of it; how often it would ask again. */
static unsigned spin(struct pd_spin *history, int64_t setting_us, uint64_t deadline_ns)
{
	struct pd_spin_loop loop = {.spin = history};
	unsigned rounds = 0;

	yields = 0;
	while (pd_spin_more(&loop, setting_us, deadline_ns))
		rounds++;
	return rounds;
}

static void test_a_spin_gives_the_core_back(void **state)
{
	struct pd_spin history = {0};
	unsigned rounds;

	/* Interrupt-driven: not once. */
	assert_int_equal(spin(&history, 0, PD_WAIT_FOREVER), 0);
	assert_int_equal(yields, 0);
	/*
	 * A long one, once each 50 us; a slow machine looks more rarely, and then gives it away
	 * each time.
	 */
	rounds = spin(&history, 20000, PD_WAIT_FOREVER);
	assert_in_range(yields, 1, 20000 / 50);
	assert_true(rounds > yields);
	/* For ever, until the call's own end. */
	spin(&history, INT32_MAX, pd_clock_ns() + 5 * PD_NS_PER_MS);
	assert_in_range(yields, 1, 5000 / 50);
	/* When told to, between any two looks. */
	pd_wait_tuning.yield = true;
	rounds = spin(&history, 1000, PD_WAIT_FOREVER);
	pd_wait_tuning.yield = false;
	assert_true(yields >= rounds);
	/* What does not pay off shrinks. */
	for (int i = 0; i < 50; i++) {
		spin(&history, -1, PD_WAIT_FOREVER);
		pd_spin_end(&history, false);
	}
	assert_int_equal(history.budget_ns, PD_SPIN_MIN_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_edges_come_with_positions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_shot_is_armed_again_by_mod_alone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_exclusive_is_only_added, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exclusive_looks_that_are_overtaken, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_exclusive_turns_outlive_a_link, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_an_object_moves_to_the_kernel, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_beacon_calls_all_and_is_seen_by_none, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_spin_gives_the_core_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
