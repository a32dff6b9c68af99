/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hook for internal descriptors before anybody has registered.
 */
#include "base/internal_fd.h"

/* Leave `fd` where it is. */
static int pd_internal_fd_same(int fd)
{
	return fd;
}

int (*pd_internal_fd)(int fd) = pd_internal_fd_same;
