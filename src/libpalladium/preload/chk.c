/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The calls that _FORTIFY_SOURCE puts in the place of read, recv, recvfrom, poll and ppoll: the
 * size check, with libc's own message and abort, then the plain call.
 */
#include "preload/real.h"

extern void __chk_fail(void) __attribute__((noreturn));

ssize_t PD_WRAP(__read_chk)(int fd, void *buf, size_t n, size_t size)
{
	if (n > size)
		__chk_fail();
	return PD_WRAP(read)(fd, buf, n);
}

ssize_t PD_WRAP(__recv_chk)(int fd, void *buf, size_t n, size_t size, int flags)
{
	if (n > size)
		__chk_fail();
	return PD_WRAP(recv)(fd, buf, n, flags);
}

ssize_t PD_WRAP(__recvfrom_chk)(int fd, void *buf, size_t n, size_t size, int flags,
				struct sockaddr *addr, socklen_t *len)
{
	if (n > size)
		__chk_fail();
	return PD_WRAP(recvfrom)(fd, buf, n, flags, addr, len);
}

int PD_WRAP(__poll_chk)(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
	if (size / sizeof(*fds) < n)
		__chk_fail();
	return PD_WRAP(poll)(fds, n, timeout);
}

int PD_WRAP(__ppoll_chk)(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
			 const sigset_t *mask, size_t size)
{
	if (size / sizeof(*fds) < n)
		__chk_fail();
	return PD_WRAP(ppoll)(fds, n, timeout, mask);
}
