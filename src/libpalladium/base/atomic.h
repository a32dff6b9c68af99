/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Atomics on plain fixed-width objects.
 *
 * Ring indices and shared-memory words belong to structures that other programs lay out, so they
 * cannot be _Atomic; these are the compiler's C11-model builtins on plain types, which
 * ThreadSanitizer understands. Each acquire and each fence in the tree says in a comment which
 * release it pairs with.
 */
#ifndef PD_BASE_ATOMIC_H
#define PD_BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__SANITIZE_THREAD__)
#	define PD_UNDER_TSAN 1
#elif defined(__has_feature)
#	if __has_feature(thread_sanitizer)
#		define PD_UNDER_TSAN 1
#	endif
#endif

#define pd_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define pd_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define pd_load_seq(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define pd_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define pd_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define pd_store_seq(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define pd_fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define pd_fetch_sub(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define pd_fetch_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)
#define pd_fetch_and(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
#define pd_exchange(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)

/*
 * Compare and swap; true when *p was `*expected` and is now `desired`, else *expected holds what
 * was found. Acquire-release on success, relaxed on failure.
 */
#define pd_cas(p, expected, desired)                                                     \
	__atomic_compare_exchange_n((p), (expected), (desired), false, __ATOMIC_ACQ_REL, \
				    __ATOMIC_RELAXED)

/*
 * Store-load fence: what was stored before is visible to every thread and to the peer before
 * anything after is loaded. ThreadSanitizer does not model fences, so there it is a
 * read-modify-write.
 */
static inline void pd_fence_full(void)
{
#ifdef PD_UNDER_TSAN
	static uint32_t pd_fence_word;

	__atomic_fetch_add(&pd_fence_word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Tell the core that this is a spin loop. */
static inline void pd_cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

#endif /* PD_BASE_ATOMIC_H */
