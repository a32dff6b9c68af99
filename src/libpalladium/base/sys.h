/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * System calls that no intercept sees.
 *
 * libpalladium exports read, write, close, poll, mmap and the rest of the socket API, so a call of
 * those names from inside the library would come back to its own front door. Everything below
 * preload/ therefore enters the kernel here: each function returns what the kernel returns, a value
 * or -errno, and leaves errno alone. A descriptor may be a name of base/internal_fd.h. These are no
 * cancellation points. A check in the tests holds the rule: no object of libpd refers to an
 * intercepted name.
 */
#ifndef PD_BASE_SYS_H
#define PD_BASE_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>

#include "base/compiler.h"
#include "base/internal_fd.h"

/* The kernel's signal set is 64 bits, glibc's sigset_t is wider. */
#define PD_KERNEL_SIGSET_BYTES 8

/* Enter the kernel: number and up to six arguments; its result or -errno. */
static inline long pd_sys(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
#else
#	error "libpalladium knows the system-call convention of x86-64 and aarch64 only"
#endif
}

#define PD_SYS_0(nr) pd_sys(nr, 0, 0, 0, 0, 0, 0)
#define PD_SYS_1(nr, a) pd_sys(nr, (long)(a), 0, 0, 0, 0, 0)
#define PD_SYS_2(nr, a, b) pd_sys(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define PD_SYS_3(nr, a, b, c) pd_sys(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define PD_SYS_4(nr, a, b, c, d) pd_sys(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define PD_SYS_5(nr, a, b, c, d, e) \
	pd_sys(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define PD_SYS_6(nr, a, b, c, d, e, f) \
	pd_sys(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* A call on a name of base/internal_fd.h. */
long pd_sys_internal(long nr, int fd, long b, long c, long d, long e, long f);

/* A call whose first argument is a descriptor, or the name of one of ours. */
static inline long pd_sys_fd(long nr, int fd, long b, long c, long d, long e, long f)
{
	if (pd_unlikely(pd_internal_fd_is_name(fd)))
		return pd_sys_internal(nr, fd, b, c, d, e, f);
	return pd_sys(nr, fd, b, c, d, e, f);
}

#define PD_SYS_FD_2(nr, fd, b) pd_sys_fd(nr, fd, (long)(b), 0, 0, 0, 0)
#define PD_SYS_FD_3(nr, fd, b, c) pd_sys_fd(nr, fd, (long)(b), (long)(c), 0, 0, 0)
#define PD_SYS_FD_4(nr, fd, b, c, d) pd_sys_fd(nr, fd, (long)(b), (long)(c), (long)(d), 0, 0)
#define PD_SYS_FD_5(nr, fd, b, c, d, e) \
	pd_sys_fd(nr, fd, (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define PD_SYS_FD_6(nr, fd, b, c, d, e, f) \
	pd_sys_fd(nr, fd, (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static inline ssize_t pd_sys_read(int fd, void *buf, size_t n)
{
	return PD_SYS_FD_3(SYS_read, fd, buf, n);
}

static inline ssize_t pd_sys_write(int fd, const void *buf, size_t n)
{
	return PD_SYS_FD_3(SYS_write, fd, buf, n);
}

/* `flags` should hold O_CLOEXEC: no descriptor of ours survives an exec by accident. */
static inline int pd_sys_open(const char *path, int flags, mode_t mode)
{
	return (int)PD_SYS_4(SYS_openat, -100 /* AT_FDCWD */, path, flags, mode);
}

/* The same, `path` seen from the directory `dirfd`. */
static inline int pd_sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return (int)PD_SYS_FD_4(SYS_openat, dirfd, path, flags, mode);
}

static inline int pd_sys_mkdirat(int dirfd, const char *path, mode_t mode)
{
	return (int)PD_SYS_FD_3(SYS_mkdirat, dirfd, path, mode);
}

static inline int pd_sys_unlinkat(int dirfd, const char *path, int flags)
{
	return (int)PD_SYS_FD_3(SYS_unlinkat, dirfd, path, flags);
}

/* Directory entries as the kernel lays them out (struct dirent64); 0 at the end. */
static inline ssize_t pd_sys_getdents(int fd, void *buf, size_t n)
{
	return PD_SYS_FD_3(SYS_getdents64, fd, buf, n);
}

static inline ssize_t pd_sys_pwrite(int fd, const void *buf, size_t n, off_t off)
{
	return PD_SYS_FD_4(SYS_pwrite64, fd, buf, n, off);
}

static inline int pd_sys_close(int fd)
{
	if (pd_internal_fd_is_name(fd))
		return pd_internal_fd_close(fd);
	return (int)PD_SYS_1(SYS_close, fd);
}

static inline int pd_sys_fcntl(int fd, int cmd, long arg)
{
	return (int)PD_SYS_FD_3(SYS_fcntl, fd, cmd, arg);
}

static inline int pd_sys_ioctl(int fd, unsigned long req, void *arg)
{
	return (int)PD_SYS_FD_3(SYS_ioctl, fd, req, arg);
}

static inline int pd_sys_dup3(int oldfd, int newfd, int flags)
{
	return (int)PD_SYS_FD_3(SYS_dup3, oldfd, newfd, flags);
}

static inline int pd_sys_fstat(int fd, struct stat *st)
{
	return (int)PD_SYS_FD_2(SYS_fstat, fd, st);
}

static inline int pd_sys_fchmod(int fd, mode_t mode)
{
	return (int)PD_SYS_FD_2(SYS_fchmod, fd, mode);
}

/* What stands at `path` itself, a symbolic link not followed. */
static inline int pd_sys_lstat(const char *path, struct stat *st)
{
	return (int)PD_SYS_4(SYS_newfstatat, -100 /* AT_FDCWD */, path, st,
			     0x100 /* AT_SYMLINK_NOFOLLOW */);
}

/* Returns the length of the link, which is not terminated. */
static inline ssize_t pd_sys_readlink(const char *path, char *buf, size_t n)
{
	return PD_SYS_4(SYS_readlinkat, -100 /* AT_FDCWD */, path, buf, n);
}

static inline int pd_sys_flock(int fd, int op)
{
	return (int)PD_SYS_FD_2(SYS_flock, fd, op);
}

static inline int pd_sys_ftruncate(int fd, off_t len)
{
	return (int)PD_SYS_FD_2(SYS_ftruncate, fd, len);
}

static inline int pd_sys_fallocate(int fd, int mode, off_t off, off_t len)
{
	return (int)PD_SYS_FD_4(SYS_fallocate, fd, mode, off, len);
}

/*
 * A limit of this process; `limit` is a struct rlimit, which is that of the kernel on 64-bit
 * machines.
 */
static inline int pd_sys_getrlimit(int resource, void *limit)
{
	return (int)PD_SYS_4(SYS_prlimit64, 0, resource, 0, limit);
}

static inline int pd_sys_unlink(const char *path)
{
	return (int)PD_SYS_3(SYS_unlinkat, -100 /* AT_FDCWD */, path, 0);
}

/* The mapping, or -errno as a small negative number: test with pd_sys_is_error. */
static inline void *pd_sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	uint32_t turn;
	int number = pd_internal_fd_hold(fd, &turn);
	long ret = PD_SYS_6(SYS_mmap, addr, len, prot, flags, number, off);

	pd_internal_fd_release(fd, turn);
	return (void *)ret;
}

/* True when a pointer that pd_sys_mmap gave is an error; then (int)(intptr_t)p is the -errno. */
static inline int pd_sys_is_error(const void *p)
{
	return (uintptr_t)p >= (uintptr_t)-4095;
}

/*
 * Move a mapping of `len` bytes onto `to`, replacing what is there; `to` or an error as for mmap.
 */
static inline void *pd_sys_mremap_to(void *from, size_t len, void *to)
{
	return (void *)PD_SYS_5(SYS_mremap, from, len, len, 3 /* MREMAP_MAYMOVE|MREMAP_FIXED */,
				to);
}

static inline int pd_sys_munmap(void *addr, size_t len)
{
	return (int)PD_SYS_2(SYS_munmap, addr, len);
}

static inline int pd_sys_mprotect(void *addr, size_t len, int prot)
{
	return (int)PD_SYS_3(SYS_mprotect, addr, len, prot);
}

static inline int pd_sys_madvise(void *addr, size_t len, int advice)
{
	return (int)PD_SYS_3(SYS_madvise, addr, len, advice);
}

static inline int pd_sys_memfd_create(const char *name, unsigned flags)
{
	return (int)PD_SYS_2(SYS_memfd_create, name, flags);
}

static inline int pd_sys_eventfd(unsigned count, int flags)
{
	return (int)PD_SYS_2(SYS_eventfd2, count, flags);
}

static inline int pd_sys_socket(int domain, int type, int protocol)
{
	return (int)PD_SYS_3(SYS_socket, domain, type, protocol);
}

static inline int pd_sys_socketpair(int domain, int type, int protocol, int fds[2])
{
	return (int)PD_SYS_4(SYS_socketpair, domain, type, protocol, fds);
}

static inline int pd_sys_bind(int fd, const void *addr, socklen_t len)
{
	return (int)PD_SYS_FD_3(SYS_bind, fd, addr, len);
}

static inline int pd_sys_connect(int fd, const void *addr, socklen_t len)
{
	return (int)PD_SYS_FD_3(SYS_connect, fd, addr, len);
}

static inline int pd_sys_listen(int fd, int backlog)
{
	return (int)PD_SYS_FD_2(SYS_listen, fd, backlog);
}

static inline int pd_sys_accept4(int fd, void *addr, socklen_t *len, int flags)
{
	return (int)PD_SYS_FD_4(SYS_accept4, fd, addr, len, flags);
}

static inline int pd_sys_shutdown(int fd, int how)
{
	return (int)PD_SYS_FD_2(SYS_shutdown, fd, how);
}

static inline int pd_sys_setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	return (int)PD_SYS_FD_5(SYS_setsockopt, fd, level, name, val, len);
}

/*
 * Have urgent bytes (MSG_OOB, which Unix stream sockets know since Linux 5.15) come in their order,
 * as others do. Else a read steps over them: it frees the descriptors that are with them, which may
 * wait (base/closer.h), or gives nothing though poll says that something is there, again and again.
 * Before the first read.
 */
static inline void pd_sys_urgent_inline(int fd)
{
	int on = 1;

	pd_sys_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

static inline int pd_sys_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	return (int)PD_SYS_FD_5(SYS_getsockopt, fd, level, name, val, len);
}

static inline ssize_t pd_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return PD_SYS_FD_3(SYS_sendmsg, fd, msg, flags);
}

static inline ssize_t pd_sys_recvmsg(int fd, struct msghdr *msg, int flags)
{
	return PD_SYS_FD_3(SYS_recvmsg, fd, msg, flags);
}

/* `mask` is a kernel signal set of 8 bytes or NULL; `ts` is left as it was. */
static inline int pd_sys_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts,
			       const void *mask)
{
	struct timespec left;

	if (ts)
		left = *ts; /* the kernel writes the remaining time back */
	return (int)PD_SYS_5(SYS_ppoll, fds, n, ts ? &left : NULL, mask, PD_KERNEL_SIGSET_BYTES);
}

static inline int pd_sys_epoll_create(int flags)
{
	return (int)PD_SYS_1(SYS_epoll_create1, flags);
}

static inline int pd_sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	uint32_t turn;
	int number = pd_internal_fd_hold(fd, &turn);
	long ret = PD_SYS_FD_4(SYS_epoll_ctl, epfd, op, number, ev);

	pd_internal_fd_release(fd, turn);
	return (int)ret;
}

/* `mask` is a kernel signal set of 8 bytes or NULL. */
static inline int pd_sys_epoll_pwait(int epfd, struct epoll_event *evs, int n, int timeout_ms,
				     const void *mask)
{
	return (int)PD_SYS_FD_6(SYS_epoll_pwait, epfd, evs, n, timeout_ms, mask,
				PD_KERNEL_SIGSET_BYTES);
}

static inline int pd_sys_timerfd_create(int clock, int flags)
{
	return (int)PD_SYS_2(SYS_timerfd_create, clock, flags);
}

static inline int pd_sys_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts)
{
	return (int)PD_SYS_6(SYS_futex, word, op, val, ts, NULL, 0);
}

static inline int pd_sys_kill(pid_t pid, int sig)
{
	return (int)PD_SYS_2(SYS_kill, pid, sig);
}

/* Returns how many bytes of the set the kernel wrote. */
static inline int pd_sys_sched_getaffinity(pid_t tid, size_t bytes, void *set)
{
	return (int)PD_SYS_3(SYS_sched_getaffinity, tid, bytes, set);
}

static inline int pd_sys_sched_setaffinity(pid_t tid, size_t bytes, const void *set)
{
	return (int)PD_SYS_3(SYS_sched_setaffinity, tid, bytes, set);
}

static inline uid_t pd_sys_geteuid(void)
{
	return (uid_t)PD_SYS_0(SYS_geteuid);
}

static inline ssize_t pd_sys_getrandom(void *buf, size_t n, unsigned flags)
{
	return PD_SYS_3(SYS_getrandom, buf, n, flags);
}

static inline pid_t pd_sys_getpid(void)
{
	return (pid_t)PD_SYS_0(SYS_getpid);
}

static inline pid_t pd_sys_gettid(void)
{
	return (pid_t)PD_SYS_0(SYS_gettid);
}

#endif /* PD_BASE_SYS_H */
