/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of descriptors: one thread at a time, then several at random.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/internal_fd.h"
#include "base/sys.h"
#include "sock/fd.h"

/* A socket that knows whether it lives. */
struct fake {
	struct pd_sock head;
	uint32_t alive; /* 1 from creation to destroy */
	uint32_t released;
};

static uint32_t released, destroyed, wrong;

static void fake_release(struct pd_sock *sk)
{
	struct fake *f = (struct fake *)sk;

	if (pd_exchange(&f->released, 1) || pd_load_relaxed(&f->alive) != 1)
		pd_fetch_add(&wrong, 1);
	pd_fetch_add(&released, 1);
}

static void fake_destroy(struct pd_sock *sk)
{
	struct fake *f = (struct fake *)sk;

	if (pd_exchange(&f->alive, 0) != 1)
		pd_fetch_add(&wrong, 1);
	pd_fetch_add(&destroyed, 1);
}

static struct pd_sock_ops fake_ops = {.release = fake_release, .destroy = fake_destroy};

/* A new socket with the caller's reference. */
static struct pd_sock *fake_new(void)
{
	struct pd_sock *sk = pd_sock_new(PD_SOCK_TEST, sizeof(struct fake), &fake_ops);

	assert_non_null(sk);
	pd_store_relaxed(&((struct fake *)sk)->alive, 1);
	return sk;
}

static int reset(void **state)
{
	pd_fd_internal_start();
	pd_sock_ops_fill(&fake_ops);
	released = destroyed = wrong = 0;
	return 0;
}

static void test_every_slot_is_filled(void **state)
{
	struct pd_sock_ops ops = {0};
	const void *const *slot = (const void *const *)&ops;
	struct pd_sock *sk = fake_new();

	pd_sock_ops_fill(&ops);
	for (size_t i = 0; i < sizeof(ops) / sizeof(*slot); i++)
		assert_non_null(slot[i]);
	assert_int_equal(ops.listen(sk, 1), -EOPNOTSUPP);
	assert_int_equal(ops.getsockopt(sk, 0, 0, NULL, NULL), -ENOPROTOOPT);
	assert_int_equal(ops.ioctl(sk, 0, NULL), -ENOTTY);
	pd_sock_put(sk);
}

static void test_install_get_remove(void **state)
{
	struct pd_sock *sk = fake_new(), *got;

	assert_null(pd_fd_get(700));
	assert_false(pd_fd_ours(-1));
	assert_int_equal(pd_fd_install(700, sk), 0);
	pd_sock_put(sk);
	assert_true(pd_fd_ours(700));
	assert_false(pd_fd_ours(699));
	got = pd_fd_get(700);
	assert_ptr_equal(got, sk);
	assert_int_equal(pd_fd_remove(700), 0);
	assert_int_equal(released, 1);
	assert_int_equal(destroyed, 0); /* a call is in progress */
	assert_null(pd_fd_get(700));
	pd_fd_put(got);
	assert_int_equal(destroyed, 1);
	assert_int_equal(pd_fd_remove(700), -EBADF);
	assert_int_equal(pd_fd_install(-1, sk), -EBADF);
}

static void test_two_descriptors_share_until_the_last(void **state)
{
	struct pd_sock *sk = fake_new();

	assert_int_equal(pd_fd_install(10, sk), 0);
	assert_int_equal(pd_fd_install(40000, sk), 0); /* another chunk */
	assert_int_equal(pd_fd_next(0, UINT32_MAX, false), 10);
	assert_int_equal(pd_fd_next(11, UINT32_MAX, false), 40000);
	assert_int_equal(pd_fd_next(11, 39999, false), -1);
	pd_fd_remove(10);
	assert_int_equal(released, 0);
	pd_fd_remove(40000);
	assert_int_equal(released, 1);
	assert_int_equal(pd_fd_install(11, sk), -EBADF); /* it was closed for good */
	assert_int_equal(destroyed, 0);
	pd_sock_put(sk);
	assert_int_equal(destroyed, 1);
}

static void test_number_given_again_is_an_implicit_close(void **state)
{
	struct pd_sock *first = fake_new(), *second = fake_new();

	pd_fd_install(20, first);
	pd_sock_put(first);
	assert_int_equal(pd_fd_fresh(20), 20); /* the kernel gave 20 to a file */
	assert_int_equal(destroyed, 1);
	assert_false(pd_fd_ours(20));
	pd_fd_install(20, second);
	assert_int_equal(pd_fd_install(20, second), -EBADF); /* so its only descriptor was closed */
	assert_int_equal(released, 2);
	assert_false(pd_fd_ours(20));
	pd_sock_put(second);
	assert_int_equal(wrong, 0);
}

static void test_generation_tells_lives_apart(void **state)
{
	struct pd_sock *sk = fake_new(), *again;
	uint32_t generation = sk->generation;

	pd_sock_put(sk);
	again = fake_new();
	assert_ptr_equal(sk, again);
	assert_int_not_equal(again->generation, generation);
	assert_int_equal(((struct fake *)again)->released, 0);
	pd_sock_put(again);
}

static void test_internal_descriptors(void **state)
{
	int fds[2], own, other, number;

	assert_int_equal(pipe(fds), 0);
	other = pd_internal_fd_adopt(fds[1]);
	own = pd_internal_fd_adopt(fds[0]);
	assert_true(pd_internal_fd_is_name(own) && pd_internal_fd_is_name(other) && own != other);
	number = pd_internal_fd_number(own);
	assert_true(number > fds[0] && number >= 256);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* the old number is closed */
	assert_int_equal(fcntl(number, F_GETFD), FD_CLOEXEC);
	assert_int_equal(pd_sys_fcntl(own, F_GETFD, 0), FD_CLOEXEC);
	assert_true(pd_fd_is_internal(number));
	assert_null(pd_fd_get(number));
	assert_false(pd_fd_ours(own));
	assert_int_equal(pd_fd_next(0, UINT32_MAX, false), -1);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true),
			 pd_min(number, pd_internal_fd_number(other)));
	assert_int_equal(pd_internal_fd_adopt(-EBADF), -EBADF);
	assert_int_equal(pd_sys_close(own), 0);
	assert_int_equal(fcntl(number, F_GETFD), -1);
	pd_sys_close(other);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
}

/* Names are used again, and more of them made than one chunk has. */
static void test_many_internal_descriptors(void **state)
{
	int names[600], again;

	for (int i = 0; i < 600; i++) {
		names[i] = pd_internal_fd(pd_sys_eventfd(0, 0));
		assert_true(pd_internal_fd_is_name(names[i]));
	}
	pd_sys_close(names[300]);
	again = pd_internal_fd(pd_sys_eventfd(0, 0));
	assert_int_equal(again, names[300]);
	for (int i = 0; i < 600; i++)
		assert_int_equal(pd_sys_close(names[i]), 0);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
}

/* Whoever closed it with a raw system call: what comes to its number is not written to. */
static void test_internal_descriptor_closed_behind_our_back(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(0, 0)), number = pd_internal_fd_number(own);
	uint64_t one = 1;

	pd_sys_close(number);
	assert_int_equal(pd_fd_fresh(pd_sys_fcntl(0, F_DUPFD, number)), number);
	assert_int_equal(pd_sys_write(own, &one, sizeof(one)), -EBADF);
	pd_sys_close(own);
	assert_int_equal(fcntl(number, F_GETFD), 0);
	pd_sys_close(number);
}

/* With no number free at the top, a descriptor is kept where it is. */
static void test_internal_descriptor_stays_where_no_number_is_free(void **state)
{
	int fd = fcntl(0, F_DUPFD, 100), own;
	struct rlimit was, low;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	low = (struct rlimit){(rlim_t)fd + 1, was.rlim_max};
	for (int n = 0; n < fd; n++)
		if (fcntl(n, F_GETFD) < 0)
			assert_int_equal(dup2(fd, n), n);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	own = pd_internal_fd_adopt(fd);
	assert_int_equal(pd_internal_fd_number(own), fd);
	assert_true(pd_fd_is_internal(fd));
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	pd_sys_close(own);
	assert_false(pd_fd_ours(fd));
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	for (int n = 3; n < fd; n++)
		pd_sys_close(n);
}

#define STRESS_FDS 8
#define STRESS_THREADS 6
#define STRESS_ROUNDS 20000

/* Open, close, copy and look up a handful of numbers at random. */
static void *stress(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	struct pd_sock *sk;

	for (int i = 0; i < STRESS_ROUNDS; i++) {
		int fd = 100 + rand_r(&seed) % STRESS_FDS;

		switch (rand_r(&seed) % 8) {
		case 0:
			sk = fake_new();
			pd_fd_install(fd, sk);
			pd_sock_put(sk);
			break;
		case 1:
			pd_fd_remove(fd);
			break;
		case 2:
			sk = pd_fd_get(fd);
			if (sk) {
				pd_fd_install(100 + rand_r(&seed) % STRESS_FDS, sk);
				pd_fd_put(sk);
			}
			break;
		default:
			sk = pd_fd_get(fd);
			if (sk) {
				if (pd_load_relaxed(&((struct fake *)sk)->alive) != 1)
					pd_fetch_add(&wrong, 1);
				pd_fd_put(sk);
			}
		}
	}
	return NULL;
}

static void test_threads_never_see_a_dead_socket(void **state)
{
	pthread_t threads[STRESS_THREADS];

	for (uintptr_t i = 0; i < STRESS_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, stress, (void *)(i + 1)), 0);
	for (int i = 0; i < STRESS_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int fd = 100; fd < 100 + STRESS_FDS; fd++)
		pd_fd_remove(fd);
	assert_int_equal(wrong, 0);
	assert_true(released > 0 && destroyed >= released);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_every_slot_is_filled, reset),
		cmocka_unit_test_setup(test_install_get_remove, reset),
		cmocka_unit_test_setup(test_two_descriptors_share_until_the_last, reset),
		cmocka_unit_test_setup(test_number_given_again_is_an_implicit_close, reset),
		cmocka_unit_test_setup(test_generation_tells_lives_apart, reset),
		cmocka_unit_test_setup(test_internal_descriptors, reset),
		cmocka_unit_test_setup(test_many_internal_descriptors, reset),
		cmocka_unit_test_setup(test_internal_descriptor_closed_behind_our_back, reset),
		cmocka_unit_test_setup(test_internal_descriptor_stays_where_no_number_is_free,
				       reset),
		cmocka_unit_test_setup(test_threads_never_see_a_dead_socket, reset),
	};

	return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
