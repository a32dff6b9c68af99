/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll and select as the program calls them: translate, find out which descriptors are ours, hand
 * over to wait/.
 *
 * A call that concerns no descriptor of ours goes to libc untouched.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/sys.h"
#include "counters/counters.h"
#include "sock/fd.h"
#include "sock/hooks.h"
#include "sock/layer.h"
#include "sock/multiplex.h"
#include "sock/packet.h"

/* Entries of poll and select that need no allocation. */
#define PD_POLL_INLINE 64
#define PD_SELECT_INLINE 256

static struct pd_ctr_block *pd_multiplex_ctr; /* the process's */

struct pd_pollable *pd_sock_pollable(struct pd_sock *sk)
{
	struct pd_pollable *p;

	switch (sk->kind) {
	case PD_SOCK_PACKET:
		p = &pd_packet_of(sk)->pollable;
		return pd_unlikely(pd_load_acquire(&p->moved)) ? NULL : p;
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

/* True when one of `n` entries is a descriptor of ours. */
static bool pd_poll_concerns_us(const struct pollfd *fds, nfds_t n)
{
	for (nfds_t i = 0; i < n; i++)
		if (pd_fd_ours(fds[i].fd))
			return true;
	return false;
}

/*
 * Find the sockets of `n` entries, with references, and what can be asked of them; NULL for the
 * kernel's.
 */
static void pd_poll_look_up(const struct pollfd *fds, nfds_t n, struct pd_sock **socks,
			    struct pd_pollable **objects)
{
	for (nfds_t i = 0; i < n; i++) {
		socks[i] = fds[i].fd >= 0 ? pd_fd_get(fds[i].fd) : NULL;
		objects[i] = socks[i] ? pd_sock_pollable(socks[i]) : NULL;
	}
}

/* poll until a deadline. *slept as in pd_poll. */
static long pd_poll_until(struct pollfd *fds, nfds_t n, uint64_t deadline_ns, const sigset_t *mask,
			  bool *slept)
{
	struct pd_pollable *some[PD_POLL_INLINE], **objects = some;
	struct pd_sock *held[PD_POLL_INLINE], **socks = held;
	long ret;

	if (n > PD_POLL_INLINE) {
		objects = malloc(n * (sizeof(*objects) + sizeof(*socks)));
		if (!objects)
			return -ENOMEM;
		socks = (struct pd_sock **)(void *)(objects + n);
	}
	do {
		pd_poll_look_up(fds, n, socks, objects);
		ret = pd_poll(fds, objects, (unsigned)n, deadline_ns, mask, slept);
		for (nfds_t i = 0; i < n; i++)
			if (socks[i])
				pd_fd_put(socks[i]);
	} while (ret == -ESTALE); /* a socket became the kernel's meanwhile */
	if (objects != some)
		free(objects);
	return ret;
}

/* Count a poll or select. Returns its result. */
static long pd_poll_counted(long ret, bool slept)
{
	pd_multiplex_count(PD_CTR_PROCESS_POLL_CALLS, PD_CTR_PROCESS_POLL_HIT,
			   PD_CTR_PROCESS_POLL_MISS, PD_CTR_PROCESS_POLL_TIMEOUTS, ret, slept);
	return ret;
}

/* True when the program asks for more entries than it may have descriptors. */
static bool pd_poll_too_many(nfds_t n)
{
	struct rlimit limit;

	return n > PD_POLL_INLINE && !PD_SYS_4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) &&
	       n > limit.rlim_cur;
}

/*
 * poll with a deadline. A call without a descriptor of ours is passed on before anything is
 * allocated.
 */
static long pd_hook_poll_until(struct pollfd *fds, nfds_t n, uint64_t deadline_ns,
			       const sigset_t *mask)
{
	bool slept = false;
	long ret;

	if (!fds || pd_poll_too_many(n) || !pd_poll_concerns_us(fds, n))
		return PD_HOOK_PASS;
	ret = pd_poll_until(fds, n, deadline_ns, mask, &slept);
	return pd_poll_counted(ret, slept);
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

/*
 * What counts as readable, writable and exceptional, as select has it on Linux.
 */
#define PD_SELECT_R (POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR)
#define PD_SELECT_W (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR)
#define PD_SELECT_X POLLPRI

#define PD_SET_BITS (8 * (int)sizeof(__fd_mask))

/*
 * The three sets of a select; each may be NULL. They have `n` bits, which may be more than an
 * fd_set has.
 */
struct pd_select {
	int n;
	__fd_mask *r, *w, *x;
};

/* The word of `set` with descriptor `fd`. */
static __fd_mask pd_set_word(const __fd_mask *set, int fd)
{
	return set ? set[fd / PD_SET_BITS] : 0;
}

/* True when `fd` stands in `set`. */
static bool pd_set_has(const __fd_mask *set, int fd)
{
	return pd_set_word(set, fd) >> fd % PD_SET_BITS & 1;
}

/* The next descriptor from `fd` on that stands in any set, or n. */
static int pd_select_next(const struct pd_select *s, int fd)
{
	while (fd < s->n) {
		unsigned long any = (unsigned long)(pd_set_word(s->r, fd) | pd_set_word(s->w, fd) |
						    pd_set_word(s->x, fd)) >>
				    fd % PD_SET_BITS;

		if (any)
			return pd_min(fd + __builtin_ctzl(any), s->n);
		fd = (fd / PD_SET_BITS + 1) * PD_SET_BITS;
	}
	return s->n;
}

/* How many descriptors stand in the sets; 0 when none of them is ours. */
static unsigned pd_select_count(const struct pd_select *s)
{
	unsigned count = 0;
	bool ours = false;

	for (int fd = pd_select_next(s, 0); fd < s->n; fd = pd_select_next(s, fd + 1)) {
		ours |= pd_fd_ours(fd);
		count++;
	}
	return ours ? count : 0;
}

/* Turn the sets into poll entries. */
static void pd_select_load(const struct pd_select *s, struct pollfd *fds)
{
	for (int fd = pd_select_next(s, 0); fd < s->n; fd = pd_select_next(s, fd + 1)) {
		short events = 0;

		if (pd_set_has(s->r, fd))
			events |= POLLIN;
		if (pd_set_has(s->w, fd))
			events |= POLLOUT;
		if (pd_set_has(s->x, fd))
			events |= POLLPRI;
		*fds++ = (struct pollfd){.fd = fd, .events = events};
	}
}

/* The sets (POLLIN, POLLOUT, POLLPRI) in which the answer of an entry sets a bit. */
static short pd_select_answer(const struct pollfd *p)
{
	short answer = 0;

	if (p->revents & PD_SELECT_R)
		answer |= POLLIN;
	if (p->revents & PD_SELECT_W)
		answer |= POLLOUT;
	if (p->revents & PD_SELECT_X)
		answer |= POLLPRI;
	return answer & p->events;
}

/* How many bits the answers set; -EBADF when a descriptor is closed. */
static long pd_select_bits(const struct pollfd *fds, unsigned k)
{
	long bits = 0;

	for (unsigned i = 0; i < k; i++) {
		if (fds[i].revents & POLLNVAL)
			return -EBADF;
		bits += __builtin_popcount((unsigned short)pd_select_answer(&fds[i]));
	}
	return bits;
}

/*
 * Poll until an answer sets a bit. poll also ends for what no set asks about (a hang-up of a
 * descriptor that is to be written): such an entry is left out, and looked at now and then, for
 * nobody tells when it changes. Returns the number of bits, or -errno.
 */
static long pd_select_poll(struct pollfd *fds, unsigned k, uint64_t deadline_ns,
			   const sigset_t *mask, bool *slept)
{
	bool muted = false;
	uint64_t until;
	long ret, bits;

	for (;;) {
		until = muted ? pd_min(deadline_ns, pd_clock_ns() + PD_WAIT_RECHECK_NS)
			      : deadline_ns;
		ret = pd_poll_until(fds, k, until, mask, slept);
		if (ret < 0)
			return ret;
		bits = pd_select_bits(fds, k);
		if (bits || (!ret && until == deadline_ns))
			return bits;
		for (unsigned i = 0; i < k; i++)
			if (muted ? fds[i].fd < 0 : fds[i].revents != 0)
				fds[i].fd = ~fds[i].fd;
		muted = !muted;
	}
}

/* Write the answers back into the sets. */
static void pd_select_store(const struct pd_select *s, const struct pollfd *fds, unsigned k)
{
	size_t bytes = (size_t)(s->n + PD_SET_BITS - 1) / PD_SET_BITS * sizeof(__fd_mask);
	__fd_mask *const sets[] = {s->r, s->w, s->x};
	static const short answers[] = {POLLIN, POLLOUT, POLLPRI};

	for (int i = 0; i < 3; i++) {
		if (!sets[i])
			continue;
		memset(sets[i], 0, bytes);
		for (unsigned j = 0; j < k; j++)
			if (pd_select_answer(&fds[j]) & answers[i])
				sets[i][fds[j].fd / PD_SET_BITS] |=
					(__fd_mask)(1ul << fds[j].fd % PD_SET_BITS);
	}
}

/* select until a deadline. */
static long pd_select_until(int n, fd_set *r, fd_set *w, fd_set *x, uint64_t deadline_ns,
			    const sigset_t *mask)
{
	const struct pd_select s = {n, (__fd_mask *)r, (__fd_mask *)w, (__fd_mask *)x};
	struct pollfd some[PD_SELECT_INLINE], *fds = some;
	bool slept = false;
	unsigned k;
	long ret;

	k = pd_select_count(&s);
	if (!k)
		return PD_HOOK_PASS;
	if (k > PD_SELECT_INLINE) {
		fds = malloc(k * sizeof(*fds));
		if (!fds)
			return -ENOMEM;
	}
	pd_select_load(&s, fds);
	ret = pd_select_poll(fds, k, deadline_ns, mask, &slept);
	if (ret >= 0)
		pd_select_store(&s, fds, k);
	if (fds != some)
		free(fds);
	return pd_poll_counted(ret, slept);
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
