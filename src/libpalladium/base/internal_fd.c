/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hook for internal descriptors before anybody has registered.
 */
#include "base/internal_fd.h"
#include "base/sys.h"

/* Leave `fd` where it is. */
static int pd_internal_fd_same(int fd)
{
	return fd;
}

int (*pd_internal_fd)(int fd) = pd_internal_fd_same;

/* Close `fd`, which nobody else knows. */
static void pd_internal_fd_just_close(int fd)
{
	pd_sys_close(fd);
}

void (*pd_internal_fd_close)(int fd) = pd_internal_fd_just_close;
