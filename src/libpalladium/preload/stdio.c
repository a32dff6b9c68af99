/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fdopen: libc's streams read and write by calls of their own that never reach us, so a stream over
 * one of our sockets is made of functions that come through the front door. fileno() of such a
 * stream answers EBADF; everything else works.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "preload/real.h"

/* The stream's functions; the cookie is the descriptor. */
static ssize_t pd_stream_read(void *cookie, char *buf, size_t n)
{
	return PD_WRAP(read)((int)(intptr_t)cookie, buf, n);
}

static ssize_t pd_stream_write(void *cookie, const char *buf, size_t n)
{
	ssize_t ret = PD_WRAP(write)((int)(intptr_t)cookie, buf, n);

	return ret < 0 ? 0 : ret; /* what fopencookie(3) asks for; errno stays */
}

static int pd_stream_close(void *cookie)
{
	return PD_WRAP(close)((int)(intptr_t)cookie);
}

FILE *PD_WRAP(fdopen)(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {
		.read = pd_stream_read, .write = pd_stream_write, .close = pd_stream_close};
	FILE *stream;

	if (pd_likely(!pd_fd_ours(fd)))
		return pd_real.fdopen(fd, mode);
	if (pd_fd_is_internal(fd)) {
		errno = EBADF;
		return NULL;
	}
	stream = fopencookie((void *)(intptr_t)fd, mode, functions);
	if (stream && strchr(mode, 'e'))
		PD_WRAP(fcntl)(fd, F_SETFD, FD_CLOEXEC);
	return stream;
}
