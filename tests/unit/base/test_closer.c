/* SPDX-License-Identifier: BSD-2-Clause */
/* Getting rid of what comes from peers never waits, whatever they have put into it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/base/linger.h"
#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"

/* More of them than may be at once. */
#define MANY 64
/* What a test that waits is ended after, in seconds: closing would take ten minutes. */
#define BOUND 30

/* As pd_closer_number, with the lock that it is called under. */
static void discard(int fd)
{
	pd_internal_fd_lock();
	pd_closer_number(fd);
	pd_internal_fd_unlock();
}

static int setup(void **state)
{
	alarm(BOUND);
	return 0;
}

static int teardown(void **state)
{
	alarm(0);
	return 0;
}

/* Two ends of a connection. */
static void make_pair(int pair[static 2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

/* The number is nobody's. */
static void is_free(int fd)
{
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* The other end is told that nobody is here any more. */
static void sees_the_end(int fd)
{
	struct pollfd p = {.fd = fd};

	assert_int_equal(poll(&p, 1, 1000 * BOUND), 1);
	assert_true(p.revents & POLLHUP);
}

static void a_number(void **state)
{
	int other, fd = lingering(&other), again;

	discard(fd);
	assert_false(pd_closer_is_full());
	again = fcntl(other, F_DUPFD_CLOEXEC, fd); /* the number is anybody's */
	assert_int_equal(again, fd);
	close(other);
	close(again);
	fd = eventfd(0, EFD_CLOEXEC);
	discard(fd);
	is_free(fd);
}

static void too_many(void **state)
{
	int others[MANY], status;

	for (int i = 0; i < MANY; i++) {
		assert_false(pd_closer_is_full());
		discard(lingering(&others[i]));
	}
	assert_true(pd_closer_is_full());
	/* A child has none of its parent's threads. */
	if (!fork())
		_exit(pd_closer_is_full());
	assert_true(wait(&status) > 0);
	assert_int_equal(status, 0);
	for (int i = 0; i < MANY; i++)
		close(others[i]);
	while (pd_closer_is_full())
		usleep(1000);
}

/* Linux may not have it: how often to say so, before threads are made again; and how many were. */
static unsigned no_threads, threads_made;

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

	if (no_threads) {
		no_threads--;
		return EAGAIN;
	}
	threads_made++;
	*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	return real(thread, attr, start, arg);
}

static void without_a_thread(void **state)
{
	int others[2], fds[2];

	for (unsigned i = 0; i < 2; i++)
		fds[i] = lingering(&others[i]);
	no_threads = 3;
	for (unsigned i = 0; i < 2; i++) {
		discard(fds[i]);
		assert_true(fcntl(fds[i], F_GETFD) >= 0);
	}
	assert_true(pd_closer_is_full()); /* tried again */
	assert_int_equal(no_threads, 0);
	assert_false(pd_closer_is_full());
	for (unsigned i = 0; i < 2; i++) {
		is_free(fds[i]);
		close(others[i]);
	}
}

/* One with nothing in it. */
static int a_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

/* One thread for all that do not wait, and one more for each that does. */
static void several(void **state)
{
	int fds[20], others[20], n = 20;

	for (int waits = 0; waits <= 3; waits++) {
		for (int i = 0; i < n; i++)
			others[i] = -1;
		for (int i = 0; i < n; i++)
			fds[i] = i % 4 == 1 && i / 4 < waits ? lingering(&others[i]) : a_socket();
		fds[7] = -1;
		threads_made = 0;
		pd_closer_shared_all(fds, (unsigned)n);
		for (int i = 0; i < n; i++)
			if (fds[i] >= 0)
				is_free(fds[i]);
		/* Nineteen numbers are more than one thread takes. */
		assert_in_range(threads_made, 2, 2 + (unsigned)waits);
		assert_false(pd_closer_is_full());
		for (int i = 0; i < n; i++)
			if (others[i] >= 0)
				close(others[i]);
	}
}

/* Of several, those that there is no thread for are kept. */
static void several_without_threads(void **state)
{
	int fds[3], other;

	fds[0] = lingering(&other);
	fds[1] = a_socket();
	fds[2] = a_socket();
	no_threads = 1;
	pd_closer_shared_all(fds, 3);
	for (int i = 0; i < 3; i++)
		assert_true(fcntl(fds[i], F_GETFD) >= 0);
	assert_false(pd_closer_is_full());
	for (int i = 0; i < 3; i++)
		is_free(fds[i]);
	close(other);
}

static void copies(void **state)
{
	int pair[2], fd, other;
	char got;

	fd = eventfd(0, EFD_CLOEXEC);
	no_threads = 1;
	pd_closer_copies(true);
	pd_closer_shared(fd);
	make_pair(pair);
	other = dup(pair[0]);
	pd_closer_hang_up(pair[0]);
	pd_closer_copies(false);
	assert_int_equal(no_threads, 1);
	no_threads = 0;
	is_free(fd);
	is_free(pair[0]);
	/* The other copy's connection goes on. */
	assert_int_equal(write(pair[1], "x", 1), 1);
	assert_int_equal(read(other, &got, 1), 1);
	close(other);
	close(pair[1]);
}

static void hang_up_on_one(void **state)
{
	static const char much[8192];
	static const size_t bytes[] = {0, 1, 4096, 4097, sizeof(much)};
	int pair[2];

	for (unsigned i = 0; i < PD_ARRAY_SIZE(bytes); i++) {
		make_pair(pair);
		assert_int_equal(write(pair[1], much, bytes[i]), bytes[i]);
		pd_closer_hang_up(pair[0]);
		is_free(pair[0]);
		sees_the_end(pair[1]);
		close(pair[1]);
	}
}

static void hang_up_on_what_lingers(void **state)
{
	int pair[2], fd, other;

	for (int before = 0; before < 2; before++) {
		make_pair(pair);
		fd = lingering(&other);
		assert_int_equal(write(pair[1], "before", before), before);
		send_away(pair[1], "x", 1, &fd, 1);
		pd_closer_hang_up(pair[0]);
		is_free(pair[0]);
		sees_the_end(pair[1]);
		close(pair[1]);
		close(other);
	}
}

static void shared(void **state)
{
	int pair[2], fd, other;

	fd = eventfd(0, EFD_CLOEXEC);
	pd_closer_shared(fd);
	is_free(fd);

	make_pair(pair);
	pd_closer_shared(pair[0]);
	is_free(pair[0]);
	sees_the_end(pair[1]);
	close(pair[1]);

	/* A socket inside a socket inside a socket. */
	fd = lingering(&other);
	for (int depth = 0; depth < 3; depth++) {
		make_pair(pair);
		send_away(pair[1], "x", 1, &fd, 1);
		close(pair[1]);
		fd = pair[0];
	}
	pd_closer_shared(fd);
	is_free(fd);
	close(other);
}

static void a_listener(void **state)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				  (size_t)snprintf(at.sun_path, sizeof(at.sun_path),
						   "%c/test_closer/%d", 0, (int)getpid()));
	int fd, other, clients[3];

	for (int late = 0; late < 2; late++) {
		int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		assert_int_equal(bind(listener, (struct sockaddr *)&at, n), 0);
		assert_int_equal(listen(listener, 8), 0);
		for (unsigned i = 0; i < PD_ARRAY_SIZE(clients); i++) {
			clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
			assert_int_equal(connect(clients[i], (struct sockaddr *)&at, n), 0);
		}
		fd = lingering(&other);
		send_away(clients[1], "x", 1, &fd, 1);
		if (late)
			pd_closer_shared(listener); /* one that a peer sent */
		else
			pd_closer_listener(listener);
		is_free(listener);
		for (unsigned i = 0; i < PD_ARRAY_SIZE(clients); i++) {
			sees_the_end(clients[i]);
			close(clients[i]);
		}
		close(other);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_number, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(several, setup, teardown),
		cmocka_unit_test_setup_teardown(several_without_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(copies, setup, teardown),
		cmocka_unit_test_setup_teardown(hang_up_on_one, setup, teardown),
		cmocka_unit_test_setup_teardown(hang_up_on_what_lingers, setup, teardown),
		cmocka_unit_test_setup_teardown(shared, setup, teardown),
		cmocka_unit_test_setup_teardown(a_listener, setup, teardown),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
