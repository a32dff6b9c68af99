/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests: descriptors whose last close waits. Behind cmocka.h. */
#ifndef PD_TESTS_UNIT_BASE_LINGER_H
#define PD_TESTS_UNIT_BASE_LINGER_H

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * A TCP socket with something to send that nobody takes, and which waits ten minutes for that when
 * it is closed; the other end in *other: that is over when it is closed.
 */
static inline int lingering(int *other)
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
	*other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*other >= 0);
	close(listener);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	return fd;
}

/* Send `n` bytes and `n_fds` descriptors, which are closed here. */
static inline void send_away(int socket, const void *bytes, size_t n, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(253 * sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {(void *)bytes, n};
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_SPACE(n_fds * sizeof(int)),
	};

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
	assert_int_equal(sendmsg(socket, &mh, 0), n);
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

#endif /* PD_TESTS_UNIT_BASE_LINGER_H */
