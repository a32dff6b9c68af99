/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors that have just come from a peer: which are let in. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

/* A descriptor of a disk that need not be there; -1: we may not. */
static int a_disk(void)
{
	char dir[] = "/tmp/pd-foreign-XXXXXX", path[64];
	int fd = -1;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/disk", dir);
	if (!mknod(path, S_IFBLK | 0600, makedev(7, 0)))
		fd = open(path, O_PATH | O_CLOEXEC);
	unlink(path);
	rmdir(dir);
	return fd;
}

static void what_is_not(void **state)
{
	static const char of_devpts[] = "a file of devpts, not tmpfs, hugetlbfs, ext4, xfs, f2fs";
	static const char unseen[] =
		"a file of unknown type, not tmpfs, hugetlbfs, ext4, xfs, f2fs";
	static const char no_stream[] = "a socket that is no Unix stream socket";
	const struct {
		int fd;
		const char *why;
	} ones[] = {
		{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), no_stream},
		{socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), no_stream},
		{socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), no_stream},
		{socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), no_stream},
		{open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "a device"},
		{open("/dev/pts", O_RDONLY | O_CLOEXEC), of_devpts},
		{open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), unseen}, /* mounted nowhere */
		{a_disk(), "a device"},
	};

	for (unsigned i = 0; i < PD_ARRAY_SIZE(ones); i++) {
		if (ones[i].fd < 0)
			continue; /* no IPv6, or no terminals */
		assert_string_equal(harmful(ones[i].fd), ones[i].why);
		close(ones[i].fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_let_in),
		cmocka_unit_test(what_is_not),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
