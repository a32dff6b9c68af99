/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The slow paths of pd_lock, and the rank record of the assertion builds.
 */
#include <linux/futex.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"

/* Rounds of spinning before the kernel is asked: about two microseconds, longer than any lane is held
 * for a small batch. */
#define PD_LOCK_SPINS 200

/* Wait for `lock` and take it. */
PD_NOINLINE void pd_lock_wait(struct pd_lock *lock)
{
	for (int i = 0; i < PD_LOCK_SPINS; i++) {
		uint32_t free_word = 0;

		if (pd_load_relaxed(&lock->word) == 0 && pd_cas(&lock->word, &free_word, 1))
			return;
		pd_cpu_relax();
	}
	/* From here on the word says 2, so that the holder knows to wake somebody. */
	while (pd_exchange(&lock->word, 2) != 0)
		pd_sys_futex(&lock->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2, NULL);
}

/* Wake one thread that sleeps in pd_lock_wait. */
PD_NOINLINE void pd_lock_wake(struct pd_lock *lock)
{
	pd_sys_futex(&lock->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL);
}

#ifdef PD_ENABLE_ASSERT

#	define PD_LOCK_HELD_MAX 16

static __thread struct pd_lock *pd_lock_held[PD_LOCK_HELD_MAX];
static __thread unsigned pd_lock_held_count;

void pd_lock_note_taken(struct pd_lock *lock, bool tried)
{
	pd_assert(lock->rank > 0 && lock->rank < PD_RANK_COUNT);
	if (!tried)
		for (unsigned i = 0; i < pd_lock_held_count; i++)
			pd_assert(pd_lock_held[i]->rank < lock->rank);
	pd_assert(pd_lock_held_count < PD_LOCK_HELD_MAX);
	pd_lock_held[pd_lock_held_count++] = lock;
}

void pd_lock_note_released(struct pd_lock *lock)
{
	for (unsigned i = pd_lock_held_count; i-- > 0;) {
		if (pd_lock_held[i] != lock)
			continue;
		pd_lock_held[i] = pd_lock_held[--pd_lock_held_count];
		return;
	}
	pd_assert(!"released a lock that this thread does not hold");
}

bool pd_lock_is_the_only(const struct pd_lock *lock)
{
	return pd_lock_held_count == 1 && pd_lock_held[0] == lock;
}

#endif
