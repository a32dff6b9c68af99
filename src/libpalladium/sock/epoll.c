/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll as the program calls it.
 *
 * An epoll becomes one of ours, under its own number, when it is made while a packet socket exists,
 * or when it first gets an offloaded member. In the second case much may hang on it already, which
 * the kernel alone knows: threads asleep in it (sock/sleepers.h), copies of its number, and epolls
 * that it is a member of, which must learn of our frames too and so become ours as well. The kernel
 * is asked: kcmp tells copies, /proc/self/fdinfo an epoll's members.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/internal_fd.h"
#include "base/lib.h"
#include "base/log.h"
#include "base/sys.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/multiplex.h"
#include "sock/sleepers.h"
#include "wait/beacon.h"

/* How many members of the kernel's an epoll may have that was the kernel's so far: none too few. */
#define PD_EPOLL_KERNEL_UNKNOWN (1u << 30)
/* Epolls of a program that are looked through for one that has just become ours. */
#define PD_EPOLL_LOOK_MAX 256

/* Two threads may give an epoll its first offloaded member at once. */
static struct pd_lock pd_sock_epoll_adopting = PD_LOCK_INIT(PD_RANK_TAPS);

/* --- life ----------------------------------------------------------------------------------- */

/* The last descriptor of the epoll is closed. */
static void pd_sock_epoll_release(struct pd_sock *sk)
{
	struct pd_sock_epoll *e = pd_container_of(sk, struct pd_sock_epoll, sock);

	pd_epoll_destroy(&e->ep);
}

/* Nobody waits on it any more. */
static void pd_sock_epoll_destroy(struct pd_sock *sk)
{
	struct pd_sock_epoll *e = pd_container_of(sk, struct pd_sock_epoll, sock);

	pd_sys_close(e->ep.epfd);
}

static struct pd_sock_ops pd_sock_epoll_ops = {
	.release = pd_sock_epoll_release,
	.destroy = pd_sock_epoll_destroy,
};

/*
 * Make the program's epoll descriptor `epfd` one of ours. `kernel_members`: how many members it may
 * have already. Its kernel half is used through a copy of our own, since the program may close any
 * number it has. Returns 1 or -errno.
 */
static int pd_sock_epoll_adopt_locked(int epfd, uint32_t kernel_members)
{
	struct pd_sock_epoll *e;
	struct pd_sock *sk;
	int own, ret;

	own = pd_internal_fd(pd_sys_fcntl(epfd, F_DUPFD_CLOEXEC, 0));
	if (own < 0)
		return own;
	sk = pd_sock_new(PD_SOCK_EPOLL, sizeof(*e), &pd_sock_epoll_ops);
	if (!sk) {
		pd_sys_close(own);
		return -ENOMEM;
	}
	e = pd_container_of(sk, struct pd_sock_epoll, sock);
	pd_epoll_init(&e->ep, own);
	e->ep.self.owner = sk;
	e->ep.kernel_members = kernel_members;
	ret = pd_fd_install(epfd, sk);
	pd_sock_put(sk);
	return ret ? ret : 1;
}

/*
 * As pd_sock_epoll_adopt_locked. Returns 1 when it was this call that did it, 0 when it was ours
 * already, or -errno.
 */
static int pd_sock_epoll_adopt(int epfd, uint32_t kernel_members)
{
	int ret = 0;

	pd_lock(&pd_sock_epoll_adopting);
	if (!pd_fd_ours(epfd))
		ret = pd_sock_epoll_adopt_locked(epfd, kernel_members);
	pd_unlock(&pd_sock_epoll_adopting);
	return ret;
}

void pd_sock_epoll_locks_after_fork(void)
{
	pd_lock_init(&pd_sock_epoll_adopting, PD_RANK_TAPS);
	pd_sleepers_after_fork();
}

void pd_multiplex_after_fork(struct pd_sock *sk)
{
	pd_pollable_after_fork(&pd_container_of(sk, struct pd_sock_epoll, sock)->ep.self);
}

struct pd_sock_epoll *pd_sock_epoll_get(int epfd)
{
	struct pd_sock *sk = pd_fd_get(epfd);

	if (!sk)
		return NULL;
	if (sk->kind == PD_SOCK_EPOLL)
		return pd_container_of(sk, struct pd_sock_epoll, sock);
	pd_fd_put(sk);
	return NULL;
}

/*
 * --- an epoll that the program has used already ------------------------------------------------
 */

static int pd_sock_epoll_take_over(int epfd);

/* The program's epolls, while one is taken over. */
struct pd_epoll_look {
	struct pd_sock_epoll *e;
	int epfd; /* its number */
	int n;
	int epolls[PD_EPOLL_LOOK_MAX]; /* the others */
};

/*
 * Note one descriptor of the program's if it is an epoll; a copy of the one that is taken over
 * becomes ours with it.
 */
static void pd_epoll_look_at(void *ctx, int fd)
{
	struct pd_epoll_look *look = ctx;
	pid_t self;

	if (fd == look->epfd || pd_fd_is_internal(fd) || !pd_beacon_fits(fd))
		return;
	self = pd_sys_getpid();
	if (!pd_fd_ours(fd) && PD_SYS_5(SYS_kcmp, self, self, KCMP_FILE, fd, look->epfd) == 0)
		pd_fd_install(fd, &look->e->sock);
	else if (look->n < PD_EPOLL_LOOK_MAX)
		look->epolls[look->n++] = fd;
}

/*
 * Find in a line of an epoll's fdinfo a member that is the epoll `e`: its number, or -1. *event
 * gets its interest.
 */
static int pd_epoll_member_in(const char *line, const struct pd_sock_epoll *e,
			      struct epoll_event *event)
{
	unsigned long long data;
	unsigned events;
	int fd;

	if (sscanf(line, "tfd: %d events: %x data: %llx", &fd, &events, &data) != 3 ||
	    pd_fd_slot(fd) != (uintptr_t)&e->sock)
		return -1;
	event->events = events;
	event->data.u64 = data;
	return fd;
}

/*
 * The first member of the kernel epoll `outer` that is `e`: its number, or -1. *event gets its
 * interest.
 */
static int pd_epoll_member_find(int outer, const struct pd_sock_epoll *e, struct epoll_event *event)
{
	char path[40], text[2048], *line, *end;
	size_t have = 0;
	int fd, found = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", outer);
	fd = pd_internal_fd(pd_sys_open(path, O_RDONLY | O_CLOEXEC, 0));
	if (fd < 0)
		return -1;
	while (found < 0 && (n = pd_sys_read(fd, text + have, sizeof(text) - 1 - have)) > 0) {
		have += (size_t)n;
		text[have] = 0;
		for (line = text; found < 0 && (end = strchr(line, '\n')); line = end + 1) {
			*end = 0;
			found = pd_epoll_member_in(line, e, event);
		}
		have = strlen(line);
		memmove(text, line, have);
	}
	pd_sys_close(fd);
	return found;
}

/*
 * The epoll `e` is a member of the epoll `outer` in the kernel, where frames of ours do not show:
 * make it an offloaded member. As often as it is one, under several numbers.
 */
static void pd_epoll_member_move(int outer, struct pd_sock_epoll *e)
{
	struct epoll_event event;
	struct pd_sock_epoll *o;
	bool was_ours = pd_sock_epoll_at(outer);
	int fd, ret;

	while ((fd = pd_epoll_member_find(outer, e, &event)) >= 0) {
		ret = pd_sock_epoll_take_over(outer);
		o = ret < 0 ? NULL : pd_sock_epoll_get(outer);
		if (!o)
			return;
		ret = pd_epoll_ctl(&o->ep, EPOLL_CTL_ADD, fd, &e->ep.self, &event);
		if (ret)
			pd_warn("sock", "epoll %d will not see frames of epoll %d inside it: %s",
				outer, fd, pd_strerror(ret));
		if (!ret && !pd_sys_epoll_ctl(outer, EPOLL_CTL_DEL, fd, NULL) && was_ours)
			pd_fetch_sub(&o->ep.kernel_members, 1);
		pd_sock_put(&o->sock);
		if (ret)
			return;
	}
}

/*
 * Make an epoll that was the kernel's one of ours, with all that hangs on it. Returns 0 or -errno.
 */
static int pd_sock_epoll_take_over(int epfd)
{
	struct pd_epoll_look look = {.epfd = epfd};
	int ret;

	if (pd_sock_epoll_at(epfd))
		return 0;
	pd_lock(&pd_sock_epoll_adopting);
	ret = pd_beacon_init();
	pd_unlock(&pd_sock_epoll_adopting);
	if (!ret)
		ret = pd_sock_epoll_adopt(epfd, PD_EPOLL_KERNEL_UNKNOWN);
	if (ret <= 0)
		return ret;
	look.e = pd_sock_epoll_get(epfd);
	if (!look.e)
		return -EBADF;
	pd_fd_each_open(pd_epoll_look_at, &look);
	/*
	 * From the outermost inwards: in an epoll that is still the kernel's a beacon would show.
	 */
	for (int i = 0; i < look.n; i++)
		pd_epoll_member_move(look.epolls[i], look.e);
	pd_sleepers_call(look.e);
	pd_sock_put(&look.e->sock);
	return 0;
}

/*
 * --- epoll_create and epoll_ctl ----------------------------------------------------------------
 */

/* epoll_create1 while port sockets exist. */
static long pd_hook_epoll_create1(int flags)
{
	int fd = pd_sys_epoll_create(flags);

	/* Without memory for ours the epoll still works for the kernel's descriptors. */
	if (fd >= 0)
		pd_sock_epoll_adopt(pd_fd_fresh(fd), 0);
	return fd;
}

static long pd_hook_epoll_create(int size)
{
	return size <= 0 ? -EINVAL : pd_hook_epoll_create1(0);
}

/* A member of the kernel's comes or goes: the kernel decides, we count. */
static long pd_epoll_ctl_kernel(int epfd, int op, int fd, struct epoll_event *event)
{
	struct pd_sock_epoll *e = pd_sock_epoll_get(epfd);
	long ret;

	if (!e)
		return PD_HOOK_PASS;
	ret = pd_sys_epoll_ctl(epfd, op, fd, event);
	if (!ret && op == EPOLL_CTL_ADD) {
		/* Whoever waits may not be looking at the kernel yet. */
		if (!pd_fetch_add(&e->ep.kernel_members, 1))
			pd_bell_ring(&e->ep.self.bell);
	} else if (!ret && op == EPOLL_CTL_DEL) {
		pd_fetch_sub(&e->ep.kernel_members, 1);
	}
	pd_fd_put(&e->sock);
	return ret;
}

/* An offloaded member comes, changes or goes. */
static long pd_epoll_ctl_ours(int epfd, int op, int fd, struct pd_pollable *target,
			      struct epoll_event *event)
{
	struct pd_sock_epoll *e = pd_sock_epoll_get(epfd);
	long ret;

	if (!event && op != EPOLL_CTL_DEL)
		return -EFAULT;
	if (!e) {
		/*
		 * The kernel knows whether this is an epoll: there is no such member, so ENOENT
		 * means that it is.
		 */
		ret = pd_sys_epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
		if (ret == -EBADF || ret == -EINVAL)
			return ret;
		ret = pd_sock_epoll_take_over(epfd);
		if (ret)
			return ret;
		e = pd_sock_epoll_get(epfd);
		if (!e)
			return -EBADF;
	}
	ret = pd_epoll_ctl(&e->ep, op, fd, target, event);
	pd_fd_put(&e->sock);
	return ret;
}

static long pd_hook_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	struct pd_pollable *target;
	struct pd_sock *sk;
	long ret;

	sk = pd_fd_get(fd);
	target = sk ? pd_sock_pollable(sk) : NULL;
	ret = target ? pd_epoll_ctl_ours(epfd, op, fd, target, event) : -ESTALE;
	if (ret == -ESTALE)
		ret = pd_epoll_ctl_kernel(epfd, op, fd, event);
	if (sk)
		pd_fd_put(sk);
	return ret;
}

/*
 * --- waiting ------------------------------------------------------------------------------------
 */

/* An epoll_wait of any kind. */
struct pd_epoll_call {
	int epfd;
	struct epoll_event *events;
	int n;
	const sigset_t *mask;
	uint64_t deadline_ns;
	bool pwait2; /* `timeout` is what the program gave, else `timeout_ms` */
	int timeout_ms;
	const struct timespec *timeout;
};

/* The wait on an epoll of ours. */
static long pd_epoll_ours(struct pd_sock_epoll *e, const struct pd_epoll_call *c)
{
	bool slept = false;
	long ret;

	if (c->n <= 0)
		return -EINVAL;
	ret = pd_epoll_wait(&e->ep, c->events, c->n, c->deadline_ns, c->mask, &slept);
	if (ret != -EINVAL)
		pd_multiplex_count(PD_CTR_PROCESS_EPOLL_CALLS, PD_CTR_PROCESS_EPOLL_HIT,
				   PD_CTR_PROCESS_EPOLL_MISS, PD_CTR_PROCESS_EPOLL_TIMEOUTS, ret,
				   slept);
	return ret;
}

/*
 * libc's call, for what is left of the time when it is not the first. Returns its result or -errno.
 */
static long pd_epoll_libc(const struct pd_epoll_call *c, bool first)
{
	struct timespec left, *ts = NULL;
	int ms = c->timeout_ms, ret;
	uint64_t now, left_ns;

	if (!first && c->deadline_ns != PD_WAIT_FOREVER) {
		now = pd_clock_ns();
		left_ns = c->deadline_ns > now ? c->deadline_ns - now : 0;
		left.tv_sec = (time_t)(left_ns / PD_NS_PER_SEC);
		left.tv_nsec = (long)(left_ns % PD_NS_PER_SEC);
		ts = &left;
		ms = (int)((left_ns + PD_NS_PER_MS - 1) / PD_NS_PER_MS);
	}
	if (c->pwait2)
		ret = pd_kernel->epoll_pwait2(c->epfd, c->events, c->n, first ? c->timeout : ts,
					      c->mask);
	else
		ret = pd_kernel->epoll_pwait(c->epfd, c->events, c->n, ms, c->mask);
	return ret < 0 ? -errno : ret;
}

/* The thread was cancelled in libc's call, or a handler jumped out of it. */
static void pd_epoll_cancelled(void *unused)
{
	pd_sleeper_leave();
}

/* One sleep in the kernel: pd_epoll_libc, or PD_HOOK_PASS when the epoll has become ours. */
static long pd_epoll_kernel_sleep(const struct pd_epoll_call *c, bool first)
{
	struct _pthread_cleanup_buffer cleanup;
	long ret;

	_pthread_cleanup_push(&cleanup, pd_epoll_cancelled, NULL);
	ret = pd_sleeper_enter(c->epfd) ? pd_epoll_libc(c, first) : PD_HOOK_PASS;
	_pthread_cleanup_pop(&cleanup, 0);
	pd_sleeper_leave();
	return ret;
}

/*
 * The wait on an epoll that is the kernel's, so far. Outside the library, as the program would be.
 * Events, 0 at the deadline, -errno, or PD_HOOK_PASS: it has become ours, ask again.
 */
static long pd_epoll_in_kernel(const struct pd_epoll_call *c)
{
	bool first = true;
	long ret;

	pd_lib_self.ran = 0;
	for (;;) {
		ret = pd_epoll_kernel_sleep(c, first);
		/* No events left: called out, by this process or by one that shares the epoll. */
		if (ret > 0)
			ret = pd_beacon_filter(c->events, (int)ret);
		else if (ret != PD_HOOK_PASS)
			return ret;
		if (ret || pd_lib_interrupted(c->mask) ||
		    (c->deadline_ns != PD_WAIT_FOREVER && pd_clock_ns() >= c->deadline_ns))
			return ret;
		first = false;
	}
}

/* epoll_pwait until a deadline. */
static long pd_epoll_until(const struct pd_epoll_call *c)
{
	struct pd_sock_epoll *e;
	long ret;

	do {
		e = pd_sock_epoll_get(c->epfd);
		if (e) {
			ret = pd_epoll_ours(e, c);
			pd_fd_put(&e->sock);
			return ret;
		}
		if (c->deadline_ns == PD_WAIT_NOT)
			return PD_HOOK_PASS;
		pd_lib_leave();
		ret = pd_epoll_in_kernel(c);
		pd_lib_enter();
		/* A handler that runs while the call goes from one sleep to another ends it too. */
		if (pd_lib_interrupted(c->mask) && (!ret || ret == PD_HOOK_PASS))
			return -EINTR;
	} while (ret == PD_HOOK_PASS);
	return ret;
}

static long pd_hook_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout_ms,
				const sigset_t *mask)
{
	return pd_epoll_until(
		&(struct pd_epoll_call){.epfd = epfd,
					.events = events,
					.n = n,
					.mask = mask,
					.timeout_ms = timeout_ms,
					.deadline_ns = pd_wait_deadline_ms(timeout_ms)});
}

static long pd_hook_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout_ms)
{
	return pd_hook_epoll_pwait(epfd, events, n, timeout_ms, NULL);
}

static long pd_hook_epoll_pwait2(int epfd, struct epoll_event *events, int n,
				 const struct timespec *timeout, const sigset_t *mask)
{
	struct pd_epoll_call c = {.epfd = epfd,
				  .events = events,
				  .n = n,
				  .mask = mask,
				  .pwait2 = true,
				  .timeout = timeout};
	int err;

	c.deadline_ns = pd_wait_deadline_ts(timeout, &err);
	if (err)
		return pd_sock_epoll_at(epfd) ? err : PD_HOOK_PASS;
	return pd_epoll_until(&c);
}

void pd_sock_epoll_init(void)
{
	pd_sock_ops_fill(&pd_sock_epoll_ops);
	pd_sleepers_init();
	pd_hooks.epoll_create = pd_hook_epoll_create;
	pd_hooks.epoll_create1 = pd_hook_epoll_create1;
	pd_hooks.epoll_ctl = pd_hook_epoll_ctl;
	pd_hooks.epoll_wait = pd_hook_epoll_wait;
	pd_hooks.epoll_pwait = pd_hook_epoll_pwait;
	pd_hooks.epoll_pwait2 = pd_hook_epoll_pwait2;
}
