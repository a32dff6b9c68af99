/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutual exclusion with ranks.
 *
 * A lock is one word: 0 free, 1 held, 2 held and somebody sleeps in the kernel. It is taken by one
 * compare-and-swap, spins briefly, then sleeps on a futex. It needs no destruction and survives
 * fork when re-initialised in the child.
 *
 * Ranks order the locks: a thread may take a lock only of a higher rank than every lock it holds
 * (two locks of one rank are never held together, unless the second was got by trying). The
 * assertion builds check this and name both locks.
 */
#ifndef PD_BASE_LOCK_H
#define PD_BASE_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include "base/assert.h"
#include "base/atomic.h"
#include "base/compiler.h"

enum pd_lock_rank {
	PD_RANK_VACATE = 1,  /* one descriptor of ours changes its number */
	PD_RANK_EPOLL_LINKS, /* which objects stand in which epolls */
	PD_RANK_CONTROL,     /* ports, connections, configuration: never on the data path */
	PD_RANK_EPOLL,       /* an epoll's items */
	PD_RANK_TAPS,        /* which sockets want the frames of a port */
	PD_RANK_LANE_RX,     /* the receive side of a lane */
	PD_RANK_LANE_TX,     /* the transmit side of a lane */
	PD_RANK_SOCKET,      /* a socket's queue and options */
	PD_RANK_LINKS,       /* the epolls of one object, to mark it there */
	PD_RANK_STREAMS,     /* the packet generator's streams */
	PD_RANK_WAITER,      /* a sleeping thread's slot */
	PD_RANK_LEAF,  /* pools, tables: takes nothing further but, where it makes a descriptor, */
	PD_RANK_NAMES, /* the names of our own descriptors */
	PD_RANK_COUNT
};

struct pd_lock {
	uint32_t word;
	uint32_t rank; /* enum pd_lock_rank */
};

#define PD_LOCK_INIT(r)                \
	{                              \
		.word = 0, .rank = (r) \
	}

static inline void pd_lock_init(struct pd_lock *lock, enum pd_lock_rank rank)
{
	lock->word = 0;
	lock->rank = rank;
}

/* The slow halves, in lock.c. */
void pd_lock_wait(struct pd_lock *lock);
void pd_lock_wake(struct pd_lock *lock);

#ifdef PD_ENABLE_ASSERT
/* Note in this thread's record that `lock` is held / was released; trap on a rank that goes down.
 */
void pd_lock_note_taken(struct pd_lock *lock, bool tried);
void pd_lock_note_released(struct pd_lock *lock);
/* Whether this thread holds `lock` and no other one. */
bool pd_lock_is_the_only(const struct pd_lock *lock);
#else
static inline void pd_lock_note_taken(struct pd_lock *lock, bool tried)
{
}
static inline void pd_lock_note_released(struct pd_lock *lock)
{
}
static inline bool pd_lock_is_the_only(const struct pd_lock *lock)
{
	return true;
}
#endif

/* Take the lock if it is free. */
static inline bool pd_trylock(struct pd_lock *lock)
{
	uint32_t free_word = 0;

	if (!pd_cas(&lock->word, &free_word, 1))
		return false;
	pd_lock_note_taken(lock, true);
	return true;
}

/* Take the lock, sleeping if need be. */
static inline void pd_lock(struct pd_lock *lock)
{
	uint32_t free_word = 0;

	if (pd_unlikely(!pd_cas(&lock->word, &free_word, 1)))
		pd_lock_wait(lock);
	pd_lock_note_taken(lock, false);
}

/* Take a lock of the same rank as one that is held: the caller knows that their order is settled
 * elsewhere. */
static inline void pd_lock_nested(struct pd_lock *lock)
{
	uint32_t free_word = 0;

	if (pd_unlikely(!pd_cas(&lock->word, &free_word, 1)))
		pd_lock_wait(lock);
	pd_lock_note_taken(lock, true);
}

/* Whether a thread sleeps for the lock, which this one holds. */
static inline bool pd_lock_is_wanted(const struct pd_lock *lock)
{
	return pd_load_relaxed(&lock->word) == 2;
}

/* Give the lock back; this thread must hold it. */
static inline void pd_unlock(struct pd_lock *lock)
{
	pd_lock_note_released(lock);
	if (pd_unlikely(pd_exchange(&lock->word, 0) == 2))
		pd_lock_wake(lock);
}

#endif /* PD_BASE_LOCK_H */
