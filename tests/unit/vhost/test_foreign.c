/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that have just come from a peer: which are let in, and that getting rid of one never
 * waits.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "transport/vhost/foreign.h"

static const char *harmful(int fd)
{
	const char *why;

	pd_internal_fd_lock();
	why = pd_vhost_foreign_is_harmful(fd);
	pd_internal_fd_unlock();
	return why;
}

static void discard(int fd)
{
	pd_internal_fd_lock();
	pd_vhost_foreign_discard(fd);
	pd_internal_fd_unlock();
}

/* More of them than may be at once. */
#define MANY 64

static void what_is_let_in(void **state)
{
	char name[] = "/tmp/pd-foreign-XXXXXX";
	int fds[32], n = 0, pair[2];

	fds[n++] = memfd_create("peer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fds[n++] = memfd_create("peer", MFD_CLOEXEC);
	fds[n++] = eventfd(0, EFD_CLOEXEC);
	fds[n++] = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	fds[n++] = pair[0];
	fds[n++] = pair[1];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fds[n++] = pair[0];
	fds[n++] = pair[1];
	fds[n++] = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	fds[n++] = open("/proc", O_RDONLY | O_CLOEXEC);
	fds[n++] = open("/sys/kernel/uevent_seqnum", O_RDONLY | O_CLOEXEC);
	fds[n++] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	fds[n++] = open("/dev/shm", O_RDONLY | O_CLOEXEC);
	fds[n++] = mkstemp(name);
	unlink(name);
	while (n--) {
		assert_true(fds[n] >= 0);
		assert_null(harmful(fds[n]));
		close(fds[n]);
	}
}

static void what_is_not(void **state)
{
	int fds[] = {
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
		socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0),
		open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC),
	};
	static const char *const why[] = {"a socket that is no Unix socket",
					  "a socket that is no Unix socket", "a device"};

	for (unsigned i = 0; i < PD_ARRAY_SIZE(fds); i++) {
		if (fds[i] < 0)
			continue; /* no IPv6, or no terminals */
		assert_string_equal(harmful(fds[i]), why[i]);
		discard(fds[i]);
		assert_int_equal(fcntl(fds[i], F_GETFD), -1);
	}
}

/*
 * A TCP socket with something to send that nobody takes, and which waits for that when it is
 * closed; the other end in *other.
 */
static int lingering(int *other)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct linger linger = {1, 600};
	socklen_t n = sizeof(at);
	static char much[65536];

	assert_int_equal(bind(listener, (struct sockaddr *)&at, n), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &n), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, n), 0);
	*other = accept(listener, NULL, NULL);
	assert_true(*other >= 0);
	close(listener);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	return fd;
}

static void closing_that_waits(void **state)
{
	int other, fd = lingering(&other), again;

	alarm(30); /* or it would wait for ten minutes */
	discard(fd);
	assert_false(pd_vhost_foreign_is_full());
	again = fcntl(other, F_DUPFD_CLOEXEC, fd); /* the number is anybody's */
	assert_int_equal(again, fd);
	close(other);
	close(again);
	alarm(0);
}

static void too_many_of_them(void **state)
{
	int others[MANY], status;

	alarm(60);
	for (int i = 0; i < MANY; i++) {
		assert_false(pd_vhost_foreign_is_full());
		discard(lingering(&others[i]));
	}
	assert_true(pd_vhost_foreign_is_full());
	/* A child has none of its parent's threads. */
	if (!fork())
		_exit(pd_vhost_foreign_is_full());
	assert_true(wait(&status) > 0);
	assert_int_equal(status, 0);
	for (int i = 0; i < MANY; i++)
		close(others[i]);
	while (pd_vhost_foreign_is_full())
		usleep(1000);
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_let_in),
		cmocka_unit_test(what_is_not),
		cmocka_unit_test(closing_that_waits),
		cmocka_unit_test(too_many_of_them),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
