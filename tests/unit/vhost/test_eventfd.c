/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eventfds that the peer rings: one that counts down is found, and one that is as it should be is
 * never taken for such a one, however it is rung.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/atomic.h"
#include "transport/vhost/eventfd.c"

#define NO_END ((1ULL << 63) - 1)

/* An eventfd as a peer makes it, taken in, with `count` in it. */
static int kick_of(int flags, uint64_t count)
{
	int fd = eventfd(0, flags | EFD_NONBLOCK | EFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pd_vhost_eventfd_adopt(fd), 0);
	if (count)
		assert_int_equal(write(fd, &count, sizeof(count)), sizeof(count));
	return fd;
}

/* How often a kick is drained until it is doubted; 0: not within a hundred times. */
static int doubted_after(int fd)
{
	uint32_t ones = 0;

	for (int n = 1; n <= 100; n++)
		if (!pd_vhost_eventfd_drain_kick(fd, &ones))
			return n;
	return 0;
}

static void one_that_counts_down(void **state)
{
	int fd = kick_of(EFD_SEMAPHORE, NO_END);

	for (int again = 0; again < 3; again++) {
		assert_in_range(doubted_after(fd), 1, 20);
		assert_true(pd_vhost_eventfd_counts_down(fd));
	}
	pd_vhost_eventfd_close(&fd);
}

static void one_that_does_not(void **state)
{
	static const uint64_t counts[] = {0, 1, 2, 255, NO_END};

	for (size_t i = 0; i < PD_ARRAY_SIZE(counts); i++) {
		int fd = kick_of(0, counts[i]);

		assert_int_equal(doubted_after(fd), 0);
		assert_false(pd_vhost_eventfd_counts_down(fd));
		pd_vhost_eventfd_close(&fd);
	}
}

/* What little is in it is gone before anybody is awake for long: nothing is doubted. */
static void one_that_counts_down_a_little(void **state)
{
	int fd = kick_of(EFD_SEMAPHORE, 8);

	assert_int_equal(doubted_after(fd), 0);
	pd_vhost_eventfd_close(&fd);
}

/* Without asynchronous I/O /proc has to tell, or nothing does. */
static void what_proc_tells(void **state)
{
	for (uint64_t count = 0; count < 300; count += 7) {
		int fd = kick_of(0, count);

		assert_int_equal(told_count(fd), count);
		pd_vhost_eventfd_close(&fd);
	}
	assert_int_equal(told_count(0), 0);
}

static struct {
	int fd;
	uint32_t end;
} ringer;

/* A peer that rings without a pause. */
static void *ring_fast(void *arg)
{
	const uint64_t one = 1;

	while (!pd_load_acquire(&ringer.end))
		if (write(ringer.fd, &one, sizeof(one)) < 0)
			break;
	return NULL;
}

/* It may be doubted, but nothing is proven against it. */
static void one_that_is_rung_fast(void **state)
{
	uint32_t ones = 0;
	pthread_t thread;

	ringer.fd = kick_of(0, 0);
	ringer.end = 0;
	assert_int_equal(pthread_create(&thread, NULL, ring_fast, NULL), 0);
	for (int n = 0; n < 20000; n++) {
		pd_vhost_eventfd_drain_kick(ringer.fd, &ones);
		if (n % 16 == 0)
			assert_false(pd_vhost_eventfd_counts_down(ringer.fd));
	}
	pd_store_release(&ringer.end, 1);
	pthread_join(thread, NULL);
	pd_vhost_eventfd_close(&ringer.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_counts_down),
		cmocka_unit_test(one_that_does_not),
		cmocka_unit_test(one_that_counts_down_a_little),
		cmocka_unit_test(what_proc_tells),
		cmocka_unit_test(one_that_is_rung_fast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
