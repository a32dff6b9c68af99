/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll and select as the program calls them: translate, find out which descriptors are ours, hand over to wait/.
 *
 * A call that concerns no descriptor of ours goes to libc untouched.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "counters/counters.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/multiplex.h"
#include "sock/packet.h"

/* Entries of poll and select that need no allocation. */
#define PD_POLL_INLINE 64

static struct pd_ctr_block *pd_multiplex_ctr; /* the process's */

struct pd_pollable *pd_sock_pollable(struct pd_sock *sk)
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

void pd_multiplex_count(enum pd_ctr_word calls, enum pd_ctr_word hit, enum pd_ctr_word miss,
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
	pd_hooks.poll = pd_hook_poll;
	pd_hooks.ppoll = pd_hook_ppoll;
	pd_hooks.select = pd_hook_select;
	pd_hooks.pselect = pd_hook_pselect;
	pd_sock_epoll_init();
	pd_hooks.sendfile = pd_hook_sendfile;
	pd_hooks.sendfile64 = pd_hook_sendfile64;
	pd_hooks.splice = pd_hook_splice;
}
