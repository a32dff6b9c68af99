/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the compiler is told: hints, layout, visibility, and the few macros that C lacks.
 */
#ifndef PD_BASE_COMPILER_H
#define PD_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>

#define PD_CACHE_LINE 64

#define pd_likely(x) __builtin_expect(!!(x), 1)
#define pd_unlikely(x) __builtin_expect(!!(x), 0)

#define PD_EXPORT __attribute__((visibility("default")))
#define PD_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define PD_PACKED __attribute__((packed))
#define PD_ALIGNED(n) __attribute__((aligned(n)))
#define PD_CACHE_ALIGNED PD_ALIGNED(PD_CACHE_LINE)
#define PD_NOINLINE __attribute__((noinline))
#define PD_ALWAYS_INLINE inline __attribute__((always_inline))
#define PD_CONSTRUCTOR __attribute__((constructor))
/* Before those: what enters things into lists, so that whoever starts finds the lists whole. */
#define PD_CONSTRUCTOR_EARLY __attribute__((constructor(101)))
#define PD_COLD __attribute__((cold))
#define PD_WARN_UNUSED __attribute__((warn_unused_result))

/* Built with AddressSanitizer; base/atomic.h has ThreadSanitizer's. */
#if defined(__SANITIZE_ADDRESS__)
#	define PD_UNDER_ASAN 1
#elif defined(__has_feature)
#	if __has_feature(address_sanitizer)
#		define PD_UNDER_ASAN 1
#	endif
#endif
/* May read what AddressSanitizer forbids. */
#define PD_UNSANITIZED __attribute__((no_sanitize("address")))

#define PD_BIT(n) (1ull << (n))

#define PD_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The structure of type `type` whose member `member` is at `ptr`. */
#define pd_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define pd_min(a, b)                                       \
	({                                                 \
		__typeof__(a) pd_min_a = (a);              \
		__typeof__(b) pd_min_b = (b);              \
		pd_min_a < pd_min_b ? pd_min_a : pd_min_b; \
	})
#define pd_max(a, b)                                       \
	({                                                 \
		__typeof__(a) pd_max_a = (a);              \
		__typeof__(b) pd_max_b = (b);              \
		pd_max_a > pd_max_b ? pd_max_a : pd_max_b; \
	})

/* The largest power of two that is not above `n`, which is not 0. */
static inline uint32_t pd_power_of_two_below(uint32_t n)
{
	return 1u << (31 - __builtin_clz(n));
}

#endif /* PD_BASE_COMPILER_H */
