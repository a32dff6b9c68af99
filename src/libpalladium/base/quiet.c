/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to files that others chose (the theory stands in quiet.h). */
#include "base/quiet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"

#define QUIET_BIT(sig) (1ull << ((sig)-1))
#define QUIET_RAISED (QUIET_BIT(SIGPIPE) | QUIET_BIT(SIGXFSZ)) /* by a write that fails */
#define QUIET_NOWAIT 0x8 /* RWF_NOWAIT, which old headers lack */

void pd_quiet_begin(struct pd_quiet *q)
{
	/* A terminal lets the write of a background job pass when SIGTTOU is blocked. */
	uint64_t set = QUIET_RAISED | QUIET_BIT(SIGTTOU);

	*q = (struct pd_quiet){0};
	PD_SYS_4(SYS_rt_sigprocmask, SIG_BLOCK, &set, &q->mask, PD_KERNEL_SIGSET_BYTES);
	PD_SYS_2(SYS_rt_sigpending, &q->pending, PD_KERNEL_SIGSET_BYTES);
}

void pd_quiet_end(const struct pd_quiet *q, ssize_t err)
{
	static const struct timespec now = {0};
	uint64_t raised = err ? 0 : QUIET_RAISED;

	if (err == -EPIPE)
		raised = QUIET_BIT(SIGPIPE);
	else if (err == -EFBIG)
		raised = QUIET_BIT(SIGXFSZ);
	raised &= ~q->pending;
	if (raised)
		PD_SYS_4(SYS_rt_sigtimedwait, &raised, NULL, &now, PD_KERNEL_SIGSET_BYTES);
	PD_SYS_4(SYS_rt_sigprocmask, SIG_SETMASK, &q->mask, NULL, PD_KERNEL_SIGSET_BYTES);
}

/* Whether `fd` takes something now: 0, -EAGAIN, or the error that a write would meet. */
static int quiet_look(int fd)
{
	int ready = pd_internal_fd_ready(fd, POLLOUT);

	if (ready < 0)
		return ready;
	if (ready & POLLNVAL)
		return -EBADF;
	if (ready & (POLLERR | POLLHUP))
		return -EPIPE;
	return ready & POLLOUT ? 0 : -EAGAIN;
}

/* Write to a pipe, which somebody else may have filled since it was looked at. */
static ssize_t quiet_write_pipe(int fd, const void *bytes, size_t n)
{
	struct iovec iov = {(void *)bytes, n};
	ssize_t ret = PD_SYS_FD_6(SYS_pwritev2, fd, &iov, 1, -1, -1, QUIET_NOWAIT);

	/* The kernel has not learnt it yet for pipes. */
	return ret == -EOPNOTSUPP || ret == -ENOSYS ? pd_sys_write(fd, bytes, n) : ret;
}

/* Write to a socket, whose room somebody else may have taken since it was looked at. */
static ssize_t quiet_write_socket(int fd, const void *bytes, size_t n)
{
	struct iovec iov = {(void *)bytes, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	return pd_sys_sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

ssize_t pd_quiet_write(int fd, const void *bytes, size_t n)
{
	ssize_t ret = quiet_look(fd);
	struct stat st = {.st_mode = 0};
	struct pd_quiet q;

	if (ret < 0)
		return ret;
	pd_sys_fstat(fd, &st);
	if (S_ISSOCK(st.st_mode))
		return quiet_write_socket(fd, bytes, n);
	pd_quiet_begin(&q);
	if (S_ISFIFO(st.st_mode))
		ret = quiet_write_pipe(fd, bytes, n);
	else
		ret = pd_sys_write(fd, bytes, n);
	pd_quiet_end(&q, ret);
	return ret;
}

int pd_quiet_open(const char *path, int flags)
{
	return pd_sys_open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
}

bool pd_quiet_size_is_allowed(uint64_t bytes)
{
	struct rlimit limit;

	return pd_sys_getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur >= bytes;
}

const char *pd_quiet_strerror(int err)
{
	return err == -ENXIO ? "a FIFO that nobody reads, or no device behind it"
			     : pd_strerror(err);
}
