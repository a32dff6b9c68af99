/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every offloaded socket has: a head, and a table of operations with one slot per libc call.
 *
 * The slots come from defs/intercepts.def. Each takes the socket instead of the descriptor and
 * answers a value or -errno; preload/ sets errno. A kind of socket fills the slots it implements
 * and calls pd_sock_ops_fill once, which puts a stub with the kernel's answer in the others: no
 * slot is ever NULL.
 *
 * Memory is type-stable: a socket's block goes back to the free list of its kind, never to malloc,
 * so a thread that looked a descriptor up a moment too late still finds a pd_sock with a valid
 * count of references. `refs` counts descriptors and calls in progress; 0 means free, and nobody
 * raises it from 0.
 *
 *   last descriptor closed  -> ops->release: leave the port, wake those who wait; calls may be
 *                              in progress
 *   last reference dropped  -> ops->destroy: nobody uses it any more; the block is free afterwards
 */
#ifndef PD_SOCK_SOCK_H
#define PD_SOCK_SOCK_H

#include <stddef.h>
#include <stdint.h>
#include "base/assert.h"
#include "base/atomic.h"
#include "base/compiler.h"
#include "defs/calls.h"

struct pd_sock;

struct pd_sock_ops {
#define PD_FD(early, ret, name, params, args, err) ret (*name)(struct pd_sock * sk, PD_ARGS params);
#define PD_FDC(early, ret, name, params, args, err) PD_FD(early, ret, name, params, args, err)
#include "defs/intercepts.def"
	/* Accepts one connection: a new kernel descriptor with its socket installed, or -errno. */
	int (*accept4)(struct pd_sock *sk, struct sockaddr *addr, socklen_t *len, int flags);
	/* FIONBIO, FIOCLEX, FIONCLEX and FIOASYNC never come here: preload/ answers them. */
	int (*ioctl)(struct pd_sock *sk, unsigned long req, void *arg);
	/* The mapping, or -errno cast to a pointer. */
	void *(*mmap)(struct pd_sock *sk, void *addr, size_t len, int prot, int flags, off_t off);
	/* O_NONBLOCK in sk->flags changed. */
	void (*flags_changed)(struct pd_sock *sk);
	void (*release)(struct pd_sock *sk);
	void (*destroy)(struct pd_sock *sk);
};

/* The head of every kind of socket, at its start. */
struct pd_sock {
	const struct pd_sock_ops *ops;
	uint32_t refs;       /* descriptors and calls in progress; 0 is free */
	uint32_t fds;        /* descriptors; PD_SOCK_FDS_DEAD once the last was closed */
	uint32_t generation; /* which life of this block it is */
	uint32_t flags;      /* O_NONBLOCK, as fcntl and ioctl set it */
	uint32_t kind;       /* enum pd_sock_kind */
	struct pd_sock *next_free;
};

#define PD_SOCK_FDS_DEAD 0x80000000u

/* One free list each; a kind has one size. */
enum pd_sock_kind {
	PD_SOCK_PACKET,
	PD_SOCK_UDP,
	PD_SOCK_TCP,
	PD_SOCK_RAW,
	PD_SOCK_EPOLL,
	PD_SOCK_TEST,
	PD_SOCK_KIND_COUNT
};

/* Put the stub in every slot that is NULL. `destroy` and the like become empty functions. */
void pd_sock_ops_fill(struct pd_sock_ops *ops);

/*
 * A zeroed socket of `size` bytes (the same for every socket of this kind) with one reference, the
 * caller's; `ops` must be filled. NULL when there is no memory. Control path.
 */
struct pd_sock *pd_sock_new(enum pd_sock_kind kind, size_t size, const struct pd_sock_ops *ops);

/* In a forked child: threads of the parent's may have held the lists. */
void pd_sock_pools_after_fork(void);

/* Take a reference, unless the socket is free. */
static inline bool pd_sock_get(struct pd_sock *sk)
{
	uint32_t refs = pd_load_relaxed(&sk->refs);

	while (pd_likely(refs))
		if (pd_likely(pd_cas(&sk->refs, &refs, refs + 1)))
			return true;
	return false;
}

/* The slow half of pd_sock_put: the last reference went. */
void pd_sock_free(struct pd_sock *sk);

/* Drop a reference; the last one destroys the socket. */
static inline void pd_sock_put(struct pd_sock *sk)
{
	uint32_t refs = pd_fetch_sub(&sk->refs, 1);

	pd_assert(refs);
	if (pd_unlikely(refs == 1))
		pd_sock_free(sk);
}

#endif /* PD_SOCK_SOCK_H */
