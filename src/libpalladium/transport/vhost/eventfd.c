/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can go wrong with a notification descriptor, and what is done about it.
 *
 * The peer chooses the file behind it. A write to a pipe or a socket may block for ever or raise
 * SIGPIPE; a read from a terminal or a file may do anything. So only eventfds are taken. All
 * anonymous inodes look alike to fstat, but the link in /proc/self/fd names the kind; where /proc
 * is not mounted, "an anonymous inode" must do.
 *
 * An eventfd blocks its writer when the counter is full, and its reader when it is empty, unless it
 * is non-blocking. That flag belongs to the open file, which the peer shares: setting it is what
 * every known peer has done already (QEMU and DPDK create theirs so), and harmless to one that only
 * polls. A hostile peer can clear it again and fill the counter, and then stalls the thread that
 * kicks it until its process ends: the kernel offers no eventfd write that cannot wait
 * (RWF_NOWAIT is refused for it), and asking with poll first would be a race and a system call
 * more on each kick.
 */
#include "transport/vhost/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/internal_fd.h"
#include "base/sys.h"

int pd_vhost_eventfd_make(void)
{
	return pd_internal_fd(pd_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/* "/proc/self/fd/N" into `to`, which has room for it. */
static void fd_path(char *to, int fd)
{
	static const char prefix[] = "/proc/self/fd/";
	char digits[12];
	int n = 0;

	memcpy(to, prefix, sizeof(prefix));
	to += sizeof(prefix) - 1;
	do
		digits[n++] = (char)('0' + fd % 10);
	while (fd /= 10);
	while (n)
		*to++ = digits[--n];
	*to = 0;
}

/* True when `fd` is an eventfd, as far as can be known. */
static int is_eventfd(int fd)
{
	static const char kind[] = "anon_inode:[eventfd]";
	char path[32], link[sizeof(kind)];
	struct stat st;
	ssize_t n;

	fd_path(path, fd);
	n = pd_sys_readlink(path, link, sizeof(link));
	if (n >= 0)
		return n == sizeof(kind) - 1 && !memcmp(link, kind, sizeof(kind) - 1);
	return !pd_sys_fstat(fd, &st) && !(st.st_mode & S_IFMT);
}

int pd_vhost_eventfd_adopt(int fd)
{
	int flags;

	if (!is_eventfd(fd))
		return -EINVAL;
	flags = pd_sys_fcntl(fd, F_GETFL, 0);
	if (flags < 0)
		return -EINVAL;
	if (!(flags & O_NONBLOCK) && pd_sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -EINVAL;
	return 0;
}
