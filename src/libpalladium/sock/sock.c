/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stubs for the slots that a kind of socket leaves open, and the free lists of sockets.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/lock.h"
#include "sock/sock.h"

/* One stub per slot of the table: the kernel's answer of a socket without this call. */
#define PD_FD(early, ret, name, params, args, err)                    \
	static ret pd_stub_##name(struct pd_sock *sk, PD_ARGS params) \
	{                                                             \
		return -err;                                          \
	}
#define PD_FDC(early, ret, name, params, args, err) PD_FD(early, ret, name, params, args, err)
#include "defs/intercepts.def"

/* No connections. */
static int pd_stub_accept4(struct pd_sock *sk, struct sockaddr *addr, socklen_t *len, int flags)
{
	return -EOPNOTSUPP;
}

/* No such request. */
static int pd_stub_ioctl(struct pd_sock *sk, unsigned long req, void *arg)
{
	return -ENOTTY;
}

/* Nothing to map. */
static void *pd_stub_mmap(struct pd_sock *sk, void *addr, size_t len, int prot, int flags,
			  off_t off)
{
	return (void *)(intptr_t)-ENODEV;
}

/* Nothing to do. */
static void pd_stub_nothing(struct pd_sock *sk)
{
}

void pd_sock_ops_fill(struct pd_sock_ops *ops)
{
	/* Threads that make the first sockets of a kind at the same time. */
	static struct pd_lock lock = PD_LOCK_INIT(PD_RANK_LEAF);

	pd_lock(&lock);
#define PD_SLOT(name)                               \
	do {                                        \
		if (!ops->name)                     \
			ops->name = pd_stub_##name; \
	} while (0);
#define PD_FD(early, ret, name, params, args, err) PD_SLOT(name)
#define PD_FDC(early, ret, name, params, args, err) PD_SLOT(name)
#include "defs/intercepts.def"
	PD_SLOT(accept4)
	PD_SLOT(ioctl)
	PD_SLOT(mmap)
#undef PD_SLOT
	if (!ops->flags_changed)
		ops->flags_changed = pd_stub_nothing;
	if (!ops->release)
		ops->release = pd_stub_nothing;
	if (!ops->destroy)
		ops->destroy = pd_stub_nothing;
	pd_unlock(&lock);
}

static struct {
	struct pd_lock lock;
	struct pd_sock *free;
	size_t size;
} pd_sock_pools[PD_SOCK_KIND_COUNT] = {
	[0 ... PD_SOCK_KIND_COUNT - 1] = {.lock = PD_LOCK_INIT(PD_RANK_LEAF)},
};

/*
 * Clear everything but the count of references and the generation: a late pd_sock_get may be
 * looking at the count, and the generation outlives the socket.
 */
static void pd_sock_clear(struct pd_sock *sk, size_t size)
{
	sk->ops = NULL;
	sk->fds = 0;
	sk->flags = 0;
	sk->next_free = NULL;
	memset((char *)sk + sizeof(*sk), 0, size - sizeof(*sk));
}

struct pd_sock *pd_sock_new(enum pd_sock_kind kind, size_t size, const struct pd_sock_ops *ops)
{
	struct pd_sock *sk;

	pd_assert(size >= sizeof(*sk) && ops->release);
	size = (size + PD_CACHE_LINE - 1) & ~(size_t)(PD_CACHE_LINE - 1);
	pd_lock(&pd_sock_pools[kind].lock);
	sk = pd_sock_pools[kind].free;
	if (sk)
		pd_sock_pools[kind].free = sk->next_free;
	pd_assert(!sk || !pd_load_relaxed(&sk->refs)); /* nobody raises it from zero */
	pd_assert(!pd_sock_pools[kind].size || pd_sock_pools[kind].size == size);
	pd_sock_pools[kind].size = size;
	pd_unlock(&pd_sock_pools[kind].lock);
	if (!sk) {
		sk = aligned_alloc(PD_CACHE_LINE, size);
		if (!sk)
			return NULL;
		memset(sk, 0, sizeof(*sk));
		sk->kind = kind;
	}
	pd_sock_clear(sk, size);
	sk->ops = ops;
	pd_store_relaxed(&sk->generation, sk->generation + 1);
	/*
	 * Pairs with the compare-and-swap in pd_sock_get: what is above is visible to who gets a
	 * reference.
	 */
	pd_store_release(&sk->refs, 1);
	return sk;
}

void pd_sock_free(struct pd_sock *sk)
{
	uint32_t kind = sk->kind;

	sk->ops->destroy(sk);
	pd_lock(&pd_sock_pools[kind].lock);
	sk->next_free = pd_sock_pools[kind].free;
	pd_sock_pools[kind].free = sk;
	pd_unlock(&pd_sock_pools[kind].lock);
}

void pd_sock_pools_after_fork(void)
{
	for (int kind = 0; kind < PD_SOCK_KIND_COUNT; kind++) {
		if (!pd_load_relaxed(&pd_sock_pools[kind].lock.word))
			continue;
		pd_lock_init(&pd_sock_pools[kind].lock, PD_RANK_LEAF);
		pd_sock_pools[kind].free =
			NULL; /* caught in a change: the blocks are lost to the child */
	}
}
