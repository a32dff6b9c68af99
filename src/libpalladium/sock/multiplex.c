/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll, select and epoll as the program calls them: translate, find out which descriptors are ours, hand over to wait/.
 *
 * A call that concerns no descriptor of ours goes to libc untouched. An epoll becomes one of ours, under its own number, when it is
 * made while a port socket exists, or when it first gets an offloaded member.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/internal_fd.h"
#include "base/sys.h"
#include "counters/counters.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/packet.h"

/* Entries of poll and select that need no allocation. */
#define PD_POLL_INLINE 64

static struct pd_ctr_block *pd_multiplex_ctr; /* the process's */

/* Two threads may give an epoll its first offloaded member at once. */
static struct pd_lock pd_sock_epoll_adopting = PD_LOCK_INIT(PD_RANK_TAPS);

struct pd_sock_epoll {
	struct pd_sock sock; /* first */
	struct pd_epoll ep;
};

/* What poll and epoll can ask of a socket, or NULL for kinds that are the kernel's in this respect. */
static struct pd_pollable *pd_sock_pollable(struct pd_sock *sk)
{
	switch (sk->kind) {
	case PD_SOCK_PACKET:
		return &pd_packet_of(sk)->pollable;
	case PD_SOCK_EPOLL:
		return &pd_container_of(sk, struct pd_sock_epoll, sock)->ep.self;
	default:
		return NULL;
	}
}

/* Count one wait: call, served at once or after a sleep, ended by its timeout. */
static void pd_multiplex_count(enum pd_ctr_word calls, enum pd_ctr_word hit, enum pd_ctr_word miss,
			       enum pd_ctr_word timeouts, long ret, bool slept)
{
	pd_ctr_count(pd_multiplex_ctr, calls, 1);
	if (ret > 0)
		pd_ctr_count(pd_multiplex_ctr, slept ? miss : hit, 1);
	else if (!ret)
		pd_ctr_count(pd_multiplex_ctr, timeouts, 1);
}

/* --- poll ----------------------------------------------------------------------------------- */

/* poll with a deadline. A call without a descriptor of ours is passed on before anything is allocated. */
static long pd_hook_poll_until(struct pollfd *fds, nfds_t n, uint64_t deadline_ns,
			       const sigset_t *mask)
{
	struct pd_pollable *some[PD_POLL_INLINE], **objects = some;
	struct pd_sock *held[PD_POLL_INLINE], **socks = held;
	bool slept;
	nfds_t i;
	long ret;

	if (n && !fds)
		return PD_HOOK_PASS;
	for (i = 0; i < n && !pd_fd_ours(fds[i].fd); i++)
		;
	if (i == n)
		return PD_HOOK_PASS;
	if (n > PD_POLL_INLINE) {
		objects = malloc(n * (sizeof(*objects) + sizeof(*socks)));
		if (!objects)
			return -ENOMEM;
		socks = (struct pd_sock **)(void *)(objects + n);
	}
	for (i = 0; i < n; i++) {
		socks[i] = fds[i].fd >= 0 ? pd_fd_get(fds[i].fd) : NULL;
		objects[i] = socks[i] ? pd_sock_pollable(socks[i]) : NULL;
	}
	ret = pd_poll(fds, objects, (unsigned)n, deadline_ns, mask, &slept);
	pd_multiplex_count(PD_CTR_PROCESS_POLL_CALLS, PD_CTR_PROCESS_POLL_HIT,
			   PD_CTR_PROCESS_POLL_MISS, PD_CTR_PROCESS_POLL_TIMEOUTS, ret, slept);
	for (i = 0; i < n; i++)
		if (socks[i])
			pd_fd_put(socks[i]);
	if (objects != some)
		free(objects);
	return ret;
}

static long pd_hook_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	return pd_hook_poll_until(fds, n, pd_wait_deadline_ms(timeout_ms), NULL);
}

static long pd_hook_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
			  const sigset_t *mask)
{
	uint64_t deadline_ns;
	int err;

	deadline_ns = pd_wait_deadline_ts(timeout, &err);
	return err ? err : pd_hook_poll_until(fds, n, deadline_ns, mask);
}

/* --- select --------------------------------------------------------------------------------- */

/* True when `fd` stands in `set`, which may be NULL. */
static bool pd_set_has(int fd, const fd_set *set)
{
	return set && FD_ISSET(fd, set);
}

/* Turn the three sets into poll entries; returns how many, and through `ours` whether one is ours. */
static unsigned pd_select_load(int n, const fd_set *r, const fd_set *w, const fd_set *x,
			       struct pollfd *fds, bool *ours)
{
	unsigned k = 0;

	*ours = false;
	for (int fd = 0; fd < n; fd++) {
		short events = 0;

		if (pd_set_has(fd, r))
			events |= POLLIN;
		if (pd_set_has(fd, w))
			events |= POLLOUT;
		if (pd_set_has(fd, x))
			events |= POLLPRI;
		if (!events)
			continue;
		*ours |= pd_fd_ours(fd);
		fds[k++] = (struct pollfd){.fd = fd, .events = events};
	}
	return k;
}

/* Write poll's answers back into the sets. Returns the number of bits set, or -EBADF. */
static long pd_select_store(const struct pollfd *fds, unsigned k, int n, fd_set *r, fd_set *w,
			    fd_set *x)
{
	long bits = 0;

	for (unsigned i = 0; i < k; i++)
		if (fds[i].revents & POLLNVAL)
			return -EBADF;
	for (int fd = 0; fd < n; fd++) {
		if (r)
			FD_CLR(fd, r);
		if (w)
			FD_CLR(fd, w);
		if (x)
			FD_CLR(fd, x);
	}
	for (unsigned i = 0; i < k; i++) {
		short asked = fds[i].events, got = fds[i].revents;

		if (r && (asked & POLLIN) && (got & (POLLIN | POLLHUP | POLLERR))) {
			FD_SET(fds[i].fd, r);
			bits++;
		}
		if (w && (asked & POLLOUT) && (got & (POLLOUT | POLLERR))) {
			FD_SET(fds[i].fd, w);
			bits++;
		}
		if (x && (asked & POLLPRI) && (got & POLLPRI)) {
			FD_SET(fds[i].fd, x);
			bits++;
		}
	}
	return bits;
}

/* select until a deadline. */
static long pd_select_until(int n, fd_set *r, fd_set *w, fd_set *x, uint64_t deadline_ns,
			    const sigset_t *mask)
{
	struct pollfd fds[FD_SETSIZE];
	bool ours;
	unsigned k;
	long ret;

	/* Programs with wider sets than FD_SETSIZE allocate them themselves; their sockets on ports are low. */
	if (n < 0 || n > FD_SETSIZE)
		return PD_HOOK_PASS;
	k = pd_select_load(n, r, w, x, fds, &ours);
	if (!ours)
		return PD_HOOK_PASS;
	ret = pd_hook_poll_until(fds, k, deadline_ns, mask);
	return ret < 0 ? ret : pd_select_store(fds, k, n, r, w, x);
}

static long pd_hook_pselect(int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *timeout,
			    const sigset_t *mask)
{
	uint64_t deadline_ns;
	int err;

	deadline_ns = pd_wait_deadline_ts(timeout, &err);
	return err ? err : pd_select_until(n, r, w, x, deadline_ns, mask);
}

/* Linux writes the time that is left back into select's timeout. */
static long pd_hook_select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *timeout)
{
	uint64_t deadline_ns = PD_WAIT_FOREVER, now, left;
	struct timespec ts;
	long ret;
	int err = 0;

	if (timeout) {
		if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
			return -EINVAL;
		ts.tv_sec = timeout->tv_sec + timeout->tv_usec / 1000000;
		ts.tv_nsec = timeout->tv_usec % 1000000 * 1000;
		deadline_ns = pd_wait_deadline_ts(&ts, &err);
	}
	ret = err ? err : pd_select_until(n, r, w, x, deadline_ns, NULL);
	if (ret != PD_HOOK_PASS && timeout && deadline_ns != PD_WAIT_FOREVER) {
		now = pd_clock_ns();
		left = deadline_ns > now ? deadline_ns - now : 0;
		timeout->tv_sec = (time_t)(left / PD_NS_PER_SEC);
		timeout->tv_usec = (suseconds_t)(left % PD_NS_PER_SEC / PD_NS_PER_US);
	}
	return ret;
}

/* --- epoll ---------------------------------------------------------------------------------- */

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

	pd_internal_fd_close(e->ep.epfd);
}

static struct pd_sock_ops pd_sock_epoll_ops = {
	.release = pd_sock_epoll_release,
	.destroy = pd_sock_epoll_destroy,
};

/*
 * Make the program's epoll descriptor `epfd` one of ours. `kernel_members`: how many members it may have already. Its kernel half is
 * used through a copy of our own, since the program may close any number it has. Returns 0 or -errno.
 */
static int pd_sock_epoll_adopt_locked(int epfd, uint32_t kernel_members)
{
	struct pd_sock_epoll *e;
	struct pd_sock *sk;
	int own, ret;

	if (pd_fd_ours(epfd)) /* another thread was faster */
		return 0;
	own = pd_internal_fd(pd_sys_fcntl(epfd, F_DUPFD_CLOEXEC, 0));
	if (own < 0)
		return own;
	sk = pd_sock_new(PD_SOCK_EPOLL, sizeof(*e), &pd_sock_epoll_ops);
	if (!sk) {
		pd_internal_fd_close(own);
		return -ENOMEM;
	}
	e = pd_container_of(sk, struct pd_sock_epoll, sock);
	pd_epoll_init(&e->ep, own);
	e->ep.self.owner = sk;
	e->ep.kernel_members = kernel_members;
	ret = pd_fd_install(epfd, sk);
	pd_sock_put(sk);
	return ret;
}

static int pd_sock_epoll_adopt(int epfd, uint32_t kernel_members)
{
	int ret;

	pd_lock(&pd_sock_epoll_adopting);
	ret = pd_sock_epoll_adopt_locked(epfd, kernel_members);
	pd_unlock(&pd_sock_epoll_adopting);
	return ret;
}

void pd_multiplex_after_fork(struct pd_sock *sk)
{
	pd_pollable_after_fork(&pd_container_of(sk, struct pd_sock_epoll, sock)->ep.self);
	pd_lock_init(&pd_sock_epoll_adopting, PD_RANK_TAPS);
}

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

/* The socket of `epfd` as an epoll, with a reference, or NULL. */
static struct pd_sock_epoll *pd_sock_epoll_get(int epfd)
{
	struct pd_sock *sk = pd_fd_get(epfd);

	if (!sk)
		return NULL;
	if (sk->kind == PD_SOCK_EPOLL)
		return pd_container_of(sk, struct pd_sock_epoll, sock);
	pd_fd_put(sk);
	return NULL;
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
		/* The kernel knows whether this is an epoll: there is no such member, so ENOENT means that it is. */
		ret = pd_sys_epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
		if (ret == -EBADF || ret == -EINVAL)
			return ret;
		ret = pd_sock_epoll_adopt(epfd, 1);
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
	ret = target ? pd_epoll_ctl_ours(epfd, op, fd, target, event)
		     : pd_epoll_ctl_kernel(epfd, op, fd, event);
	if (sk)
		pd_fd_put(sk);
	return ret;
}

/* epoll_pwait until a deadline. */
static long pd_epoll_until(int epfd, struct epoll_event *events, int n, uint64_t deadline_ns,
			   const sigset_t *mask)
{
	struct pd_sock_epoll *e = pd_sock_epoll_get(epfd);
	bool slept = false;
	long ret;

	if (!e)
		return PD_HOOK_PASS;
	if (n <= 0)
		ret = -EINVAL;
	else
		ret = pd_epoll_wait(&e->ep, events, n, deadline_ns, mask, &slept);
	if (ret != -EINVAL)
		pd_multiplex_count(PD_CTR_PROCESS_EPOLL_CALLS, PD_CTR_PROCESS_EPOLL_HIT,
				   PD_CTR_PROCESS_EPOLL_MISS, PD_CTR_PROCESS_EPOLL_TIMEOUTS, ret,
				   slept);
	pd_fd_put(&e->sock);
	return ret;
}

static long pd_hook_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout_ms,
				const sigset_t *mask)
{
	return pd_epoll_until(epfd, events, n, pd_wait_deadline_ms(timeout_ms), mask);
}

static long pd_hook_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout_ms)
{
	return pd_epoll_until(epfd, events, n, pd_wait_deadline_ms(timeout_ms), NULL);
}

static long pd_hook_epoll_pwait2(int epfd, struct epoll_event *events, int n,
				 const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t deadline_ns;
	int err;

	deadline_ns = pd_wait_deadline_ts(timeout, &err);
	return err ? err : pd_epoll_until(epfd, events, n, deadline_ns, mask);
}

/* --- sendfile, splice: a packet is no stream ------------------------------------------------ */

static long pd_hook_sendfile(int out, int in, off_t *off, size_t n)
{
	return pd_fd_ours(out) || pd_fd_ours(in) ? -EINVAL : PD_HOOK_PASS;
}

static long pd_hook_sendfile64(int out, int in, off64_t *off, size_t n)
{
	return pd_fd_ours(out) || pd_fd_ours(in) ? -EINVAL : PD_HOOK_PASS;
}

static long pd_hook_splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n,
			   unsigned flags)
{
	return pd_fd_ours(out) || pd_fd_ours(in) ? -EINVAL : PD_HOOK_PASS;
}

void pd_multiplex_init(void)
{
	pd_multiplex_ctr = pd_ctr_process();
	pd_sock_ops_fill(&pd_sock_epoll_ops);
	pd_hooks.poll = pd_hook_poll;
	pd_hooks.ppoll = pd_hook_ppoll;
	pd_hooks.select = pd_hook_select;
	pd_hooks.pselect = pd_hook_pselect;
	pd_hooks.epoll_create = pd_hook_epoll_create;
	pd_hooks.epoll_create1 = pd_hook_epoll_create1;
	pd_hooks.epoll_ctl = pd_hook_epoll_ctl;
	pd_hooks.epoll_wait = pd_hook_epoll_wait;
	pd_hooks.epoll_pwait = pd_hook_epoll_pwait;
	pd_hooks.epoll_pwait2 = pd_hook_epoll_pwait2;
	pd_hooks.sendfile = pd_hook_sendfile;
	pd_hooks.sendfile64 = pd_hook_sendfile64;
	pd_hooks.splice = pd_hook_splice;
}
