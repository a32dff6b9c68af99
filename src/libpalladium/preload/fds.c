/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls that make, copy and close descriptors: the table follows the kernel.
 *
 * A number leaves the table before the kernel closes it and enters after the kernel made it
 * (sock/fd.h). A vfork child shares the table but not the descriptors: there the kernel alone is
 * asked.
 */
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "preload/real.h"
#include "sock/vacate.h"

/* --- close --------------------------------------------------------------------------------- */

/* close of a number in the table, or while one is being made that may be this one. */
static PD_NOINLINE int pd_close_ours(int fd)
{
	if (!pd_fd_foreign_process()) {
		pd_internal_fd_settle();
		if (pd_fd_is_internal(fd))
			return (int)pd_result(-EBADF);
		pd_lib_enter();
		pd_fd_remove(fd);
		pd_lib_leave();
	}
	return pd_real.close(fd);
}

int PD_WRAP(close)(int fd)
{
	if (pd_likely(!pd_fd_ours(fd) && !pd_internal_fd_busy()))
		return pd_real.close(fd);
	return pd_close_ours(fd);
}

/* Take every socket from `first` to `last` out of the table. */
static void pd_remove_range(uint32_t first, uint32_t last)
{
	int fd;

	pd_lib_enter();
	for (fd = pd_fd_next(first, last, false); fd >= 0;
	     fd = pd_fd_next((uint32_t)fd + 1, last, false))
		pd_fd_remove(fd);
	pd_lib_leave();
}

/* close_range in pieces, around the library's own descriptors. */
static PD_NOINLINE int pd_close_range_ours(unsigned first, unsigned last, int flags)
{
	int own;

	if (first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) ||
	    (flags & CLOSE_RANGE_CLOEXEC) || pd_fd_foreign_process())
		return pd_real.close_range(first, last, flags);
	pd_remove_range(first, last);
	while ((own = pd_fd_next(first, last, true)) >= 0) {
		if ((unsigned)own > first &&
		    pd_real.close_range(first, (unsigned)own - 1, flags) < 0)
			return -1;
		if ((unsigned)own == last)
			return 0;
		first = (unsigned)own + 1;
	}
	return pd_real.close_range(first, last, flags);
}

int PD_WRAP(close_range)(unsigned first, unsigned last, int flags)
{
	if (pd_likely(first >= pd_load_relaxed(&pd_fd_top)))
		return pd_real.close_range(first, last, flags);
	return pd_close_range_ours(first, last, flags);
}

void PD_WRAP(closefrom)(int lowfd)
{
	uint32_t first = lowfd < 0 ? 0 : (uint32_t)lowfd;
	int own;

	if (pd_unlikely(first < pd_load_relaxed(&pd_fd_top)) && !pd_fd_foreign_process()) {
		pd_remove_range(first, UINT32_MAX);
		while ((own = pd_fd_next(first, UINT32_MAX, true)) >= 0) {
			/* Without close_range one by one: the numbers below our own are few. */
			if ((uint32_t)own > first &&
			    pd_real.close_range(first, (unsigned)own - 1, 0) < 0)
				for (uint32_t fd = first; fd < (uint32_t)own; fd++)
					pd_sys_close((int)fd);
			first = (uint32_t)own + 1;
		}
	}
	pd_real.closefrom((int)first);
}

/* --- dup ----------------------------------------------------------------------------------- */

/*
 * The kernel made `newfd` a copy of `fd`: it shares the socket of `fd`, `sk` (whose reference is
 * taken), or is nobody's when that is NULL. Returns newfd, or -1 with errno and newfd closed.
 */
static int pd_dup_done(int newfd, struct pd_sock *sk)
{
	int ret;

	if (!sk)
		return pd_fd_fresh(newfd);
	if (newfd >= 0) {
		ret = pd_fd_install(newfd, sk);
		if (ret < 0) {
			pd_sys_close(newfd);
			newfd = (int)pd_result(ret);
		}
	}
	pd_fd_put(sk);
	return newfd;
}

/* The socket to share with a copy of `fd`: none in a vfork child. Takes a reference. */
static struct pd_sock *pd_dup_source(int fd)
{
	return pd_fd_ours(fd) && !pd_fd_foreign_process() ? pd_fd_get(fd) : NULL;
}

/* True, with EBADF in errno, when the program names a descriptor of the library's own. */
static bool pd_refuse_internal(int fd)
{
	if (pd_likely(!pd_fd_ours(fd)) || !pd_fd_is_internal(fd) || pd_fd_foreign_process())
		return false;
	errno = EBADF;
	return true;
}

int PD_WRAP(dup)(int fd)
{
	struct pd_sock *sk;

	if (pd_refuse_internal(fd))
		return -1;
	sk = pd_dup_source(fd);
	return pd_dup_done(pd_real.dup(fd), sk);
}

/*
 * A dup2 or dup3 gave `newfd`: one onto 2 makes that file the program's standard error, where the
 * log goes too. Returns newfd.
 */
static inline int pd_dup_told(int newfd)
{
	if (pd_unlikely(newfd == 2) && pd_load_acquire(&pd_gate_configured) &&
	    !pd_fd_foreign_process())
		pd_log_stderr_moved();
	return newfd;
}

/* A dup2 or dup3 of the program's; `flags` is -1 for dup2. */
struct pd_dup_call {
	int fd, newfd, flags;
	int ret; /* as libc's; errno with it */
};

/* Have libc do it. */
static int pd_dup_call(void *ctx)
{
	struct pd_dup_call *c = ctx;

	c->ret = c->flags == -1 ? pd_real.dup2(c->fd, c->newfd)
				: pd_real.dup3(c->fd, c->newfd, c->flags);
	return c->ret;
}

/* True when the kernel refuses the call, and so closes nothing. */
static bool pd_dup_is_refused(const struct pd_dup_call *c)
{
	struct rlimit limit;

	return c->newfd < 0 || (c->flags != -1 && (c->flags & ~O_CLOEXEC)) ||
	       pd_sys_fcntl(c->fd, F_GETFD, 0) < 0 ||
	       (!pd_sys_getrlimit(RLIMIT_NOFILE, &limit) && (rlim_t)c->newfd >= limit.rlim_cur);
}

/* dup2 and dup3 while ports are configured. Inside the library. */
static int pd_dup_onto_inside(int fd, int newfd, int flags)
{
	struct pd_dup_call c = {.fd = fd, .newfd = newfd, .flags = flags};
	struct pd_sock *sk;
	int ret;

	if (pd_refuse_internal(fd))
		return -1;
	if (fd == newfd || pd_fd_foreign_process() || pd_dup_is_refused(&c))
		return pd_dup_call(&c);
	if (!pd_fd_is_internal(newfd))
		pd_fd_remove(newfd);
	sk = pd_dup_source(fd);
	ret = pd_vacate_for(newfd, pd_dup_call, &c);
	if (ret < 0) {
		if (sk)
			pd_fd_put(sk);
		return (int)pd_result(ret);
	}
	return pd_dup_told(pd_dup_done(c.ret, sk));
}

/* The same, from outside. */
static PD_NOINLINE int pd_dup_onto(int fd, int newfd, int flags)
{
	int ret;

	pd_lib_enter();
	ret = pd_dup_onto_inside(fd, newfd, flags);
	pd_lib_leave();
	return ret;
}

int PD_WRAP(dup2)(int fd, int newfd)
{
	if (pd_likely(!pd_load_acquire(&pd_gate_configured)))
		return pd_real.dup2(fd, newfd);
	return pd_dup_onto(fd, newfd, -1);
}

int PD_WRAP(dup3)(int fd, int newfd, int flags)
{
	if (pd_likely(!pd_load_acquire(&pd_gate_configured)))
		return pd_real.dup3(fd, newfd, flags);
	return pd_dup_onto(fd, newfd, flags);
}

/* --- fcntl and ioctl ----------------------------------------------------------------------- */

/* Note O_NONBLOCK in the socket's head. */
static void pd_set_nonblock(struct pd_sock *sk, bool on)
{
	if (on)
		pd_fetch_or(&sk->flags, (uint32_t)O_NONBLOCK);
	else
		pd_fetch_and(&sk->flags, ~(uint32_t)O_NONBLOCK);
	sk->ops->flags_changed(sk);
}

/* fcntl on a number in the table: the placeholder carries flags and locks, we follow. */
static PD_NOINLINE int pd_fcntl_ours(int fd, int cmd, void *arg)
{
	struct pd_sock *sk;
	int ret;

	if (pd_refuse_internal(fd))
		return -1;
	sk = pd_dup_source(fd);
	ret = pd_real.fcntl(fd, cmd, arg);
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return pd_dup_done(ret, sk);
	if (!sk)
		return ret;
	if (cmd == F_SETFL && ret >= 0)
		pd_set_nonblock(sk, (intptr_t)arg & O_NONBLOCK);
	pd_fd_put(sk);
	return ret;
}

/*
 * fcntl and fcntl64 are one call on a 64-bit system; libc passes one word on, whatever the command.
 */
static inline int pd_fcntl(int fd, int cmd, void *arg)
{
	int ret;

	if (pd_unlikely(pd_fd_ours(fd)))
		return pd_fcntl_ours(fd, cmd, arg);
	ret = pd_real.fcntl(fd, cmd, arg);
	if (pd_unlikely(cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC))
		pd_fd_fresh(ret);
	return ret;
}

int PD_WRAP(fcntl)(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return pd_fcntl(fd, cmd, arg);
}

int PD_WRAP(fcntl64)(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return pd_fcntl(fd, cmd, arg);
}

/* ioctl on a number in the table. */
static PD_NOINLINE int pd_ioctl_ours(int fd, unsigned long req, void *arg)
{
	struct pd_sock *sk;
	long ret = 0;
	int result;

	switch (req) {
	case FIOCLEX:
	case FIONCLEX:
	case FIOASYNC:
	case FIONBIO:
		result = pd_real.ioctl(fd, req, arg);
		sk = result < 0 || req != FIONBIO ? NULL : pd_fd_get(fd);
		if (sk) {
			int on;

			memcpy(&on, arg, sizeof(on)); /* it may stand at any address */
			pd_set_nonblock(sk, on);
			pd_fd_put(sk);
		}
		return result;
	}
	pd_lib_enter();
	sk = pd_ours_get(fd, &ret);
	if (sk) {
		ret = sk->ops->ioctl(sk, req, arg);
		pd_fd_put(sk);
	}
	pd_lib_leave();
	return ret == PD_HOOK_PASS ? pd_real.ioctl(fd, req, arg) : (int)pd_result(ret);
}

/* A question about an interface, on a descriptor of the kernel's. */
static PD_NOINLINE int pd_ioctl_interface(int fd, unsigned long req, void *arg)
{
	long ret;

	pd_lib_enter();
	ret = pd_hooks.ioctl(fd, req, arg);
	pd_lib_leave();
	return ret == PD_HOOK_PASS ? pd_real.ioctl(fd, req, arg) : (int)pd_result(ret);
}

int PD_WRAP(ioctl)(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (pd_unlikely(pd_fd_ours(fd)))
		return pd_ioctl_ours(fd, req, arg);
	if (pd_unlikely((req & ~0xfful) == 0x8900) && pd_load_acquire(&pd_gate_configured))
		return pd_ioctl_interface(fd, req, arg);
	return pd_real.ioctl(fd, req, arg);
}

/* --- new descriptors ----------------------------------------------------------------------- */

/* accept on a number in the table; `flags` is 0 for accept. */
static PD_NOINLINE int pd_accept_ours(int fd, struct sockaddr *addr, socklen_t *len, int flags,
				      bool *pass)
{
	struct pd_sock *sk;
	long ret = 0;

	pd_lib_enter();
	sk = pd_ours_get(fd, &ret);
	if (sk) {
		ret = sk->ops->accept4(sk, addr, len, flags);
		pd_fd_put(sk);
	}
	pd_lib_leave();
	*pass = ret == PD_HOOK_PASS;
	return *pass ? -1 : (int)pd_result(ret);
}

int PD_WRAP(accept)(int fd, struct sockaddr *addr, socklen_t *len)
{
	bool pass = true;
	int ret = -1;

	if (pd_unlikely(pd_fd_ours(fd)))
		ret = pd_accept_ours(fd, addr, len, 0, &pass);
	return pass ? pd_fd_fresh(pd_real.accept(fd, addr, len)) : ret;
}

int PD_WRAP(accept4)(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	bool pass = true;
	int ret = -1;

	if (pd_unlikely(pd_fd_ours(fd)))
		ret = pd_accept_ours(fd, addr, len, flags, &pass);
	return pass ? pd_fd_fresh(pd_real.accept4(fd, addr, len, flags)) : ret;
}

/* libc reads the mode of an open only when a file may be made. */
static inline bool pd_open_takes_mode(int flags)
{
	return (flags & O_CREAT) || (flags & __O_TMPFILE) == __O_TMPFILE;
}

/* The optional mode of an open call whose last named argument is `flags`. */
#define PD_OPEN_MODE(flags)                              \
	({                                               \
		mode_t pd_mode = 0;                      \
		va_list pd_ap;                           \
		if (pd_open_takes_mode(flags)) {         \
			va_start(pd_ap, flags);          \
			pd_mode = va_arg(pd_ap, mode_t); \
			va_end(pd_ap);                   \
		}                                        \
		pd_mode;                                 \
	})

int PD_WRAP(open)(const char *path, int flags, ...)
{
	mode_t mode = PD_OPEN_MODE(flags);

	return pd_fd_fresh(pd_real.open(path, flags, mode));
}

int PD_WRAP(open64)(const char *path, int flags, ...)
{
	mode_t mode = PD_OPEN_MODE(flags);

	return pd_fd_fresh(pd_real.open64(path, flags, mode));
}

int PD_WRAP(openat)(int dirfd, const char *path, int flags, ...)
{
	mode_t mode = PD_OPEN_MODE(flags);

	return pd_fd_fresh(pd_real.openat(dirfd, path, flags, mode));
}

int PD_WRAP(openat64)(int dirfd, const char *path, int flags, ...)
{
	mode_t mode = PD_OPEN_MODE(flags);

	return pd_fd_fresh(pd_real.openat64(dirfd, path, flags, mode));
}

/* Two descriptors were made, if `ret` is 0. Returns ret. */
static inline int pd_fresh_pair(int ret, const int fds[2])
{
	if (ret == 0) {
		pd_fd_fresh(fds[0]);
		pd_fd_fresh(fds[1]);
	}
	return ret;
}

int PD_WRAP(pipe)(int fds[2])
{
	return pd_fresh_pair(pd_real.pipe(fds), fds);
}

int PD_WRAP(pipe2)(int fds[2], int flags)
{
	return pd_fresh_pair(pd_real.pipe2(fds, flags), fds);
}

int PD_WRAP(socketpair)(int domain, int type, int protocol, int fds[2])
{
	return pd_fresh_pair(pd_real.socketpair(domain, type, protocol, fds), fds);
}

int PD_WRAP(daemon)(int nochdir, int noclose)
{
	int ret = pd_real.daemon(nochdir, noclose);

	if (ret == 0 && !noclose) /* it put /dev/null on 0, 1 and 2, inside libc */
		for (int fd = 0; fd < 3; fd++)
			pd_fd_fresh(fd);
	return ret;
}
