/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eventfds that the peer has too. One that it rings: that counts down is found, and one that is as
 * it should be is never taken for such a one, however it is rung. One that the control side rings:
 * that never waits, also where there is no asynchronous I/O, whatever the peer does meanwhile.
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
#include "base/sys.h"

/* A kernel that gives no context of asynchronous I/O, and a peer that acts just before a write. */
static bool no_aio;
static int contexts;
static void before_write(int fd);
#undef PD_SYS_2
#define PD_SYS_2(nr, a, b)                                                   \
	((nr) == SYS_io_setup && no_aio ? -EAGAIN                            \
					: (contexts += (nr) == SYS_io_setup, \
					   pd_sys((nr), (long)(a), (long)(b), 0, 0, 0, 0)))
#define pd_sys_write(fd, bytes, n) (before_write(fd), pd_sys_write(fd, bytes, n))
#include "transport/vhost/eventfd.c"
#undef pd_sys_write

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

/* --- notifying --------------------------------------------------------------------------- */

static int filled_fd = -1;

/* The peer's moment: it fills the counter, and has who writes wait. */
static void before_write(int fd)
{
	const uint64_t full = UINT64_MAX - 1;
	uint64_t count;

	if (fd != filled_fd)
		return;
	(void)!read(fd, &count, sizeof(count));
	assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
}

/* Like a kernel and a program that were never asked for a context. */
static int setup_no_aio(void **state)
{
	no_aio = true;
	aio = 0;
	return 0;
}

static int teardown_no_aio(void **state)
{
	no_aio = false;
	filled_fd = -1;
	alarm(0);
	return 0;
}

static void without_asynchronous_io(void **state)
{
	int fd = kick_of(0, 0);

	pd_vhost_eventfd_prepare();
	assert_int_equal(aio, 0);
	for (uint64_t n = 1; n < 4; n++)
		pd_vhost_eventfd_signal(fd);
	assert_int_equal(told_count(fd), 3);
	pd_vhost_eventfd_close(&fd);
}

static void a_peer_that_is_quicker(void **state)
{
	int fd = kick_of(0, 0);

	filled_fd = fd;
	alarm(20); /* or it would wait for ever */
	for (int n = 0; n < 5; n++) {
		pd_vhost_eventfd_signal(fd);
		assert_true(pd_internal_fd_ready(fd, POLLIN) & POLLIN);
	}
	pd_vhost_eventfd_close(&fd);
}

/* Before there is a peer: nobody can take it away then. */
static void a_context_that_is_there_early(void **state)
{
	int fd = kick_of(0, 0), before = contexts;

	aio = 0;
	pd_vhost_eventfd_prepare();
	assert_int_equal(contexts, before + 1);
	no_aio = true;
	pd_vhost_eventfd_prepare();
	filled_fd = fd; /* nobody writes */
	alarm(20);
	pd_vhost_eventfd_signal(fd);
	assert_int_equal(told_count(fd), 1);
	assert_int_equal(contexts, before + 1);
	pd_vhost_eventfd_close(&fd);
}

/* What a forked child has of it is not a context any more. */
static void a_context_of_somebody_else(void **state)
{
	int before = contexts;

	aio = 0x1000;
	pd_vhost_eventfd_prepare();
	assert_int_equal(contexts, before + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_counts_down),
		cmocka_unit_test(one_that_does_not),
		cmocka_unit_test(one_that_counts_down_a_little),
		cmocka_unit_test(what_proc_tells),
		cmocka_unit_test(one_that_is_rung_fast),
		cmocka_unit_test_setup_teardown(without_asynchronous_io, setup_no_aio,
						teardown_no_aio),
		cmocka_unit_test_setup_teardown(a_peer_that_is_quicker, setup_no_aio,
						teardown_no_aio),
		cmocka_unit_test_teardown(a_context_that_is_there_early, teardown_no_aio),
		cmocka_unit_test_teardown(a_context_of_somebody_else, teardown_no_aio),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
