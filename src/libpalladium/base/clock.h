/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Time: nanoseconds of CLOCK_MONOTONIC through the vDSO, and the cycle counter for short
 * differences.
 */
#ifndef PD_BASE_CLOCK_H
#define PD_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define PD_NS_PER_SEC 1000000000ull
#define PD_NS_PER_MS 1000000ull
#define PD_NS_PER_US 1000ull

/* Nanoseconds of CLOCK_MONOTONIC (the vDSO: about 20 ns a call, no system call). */
static inline uint64_t pd_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * PD_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/*
 * The cycle counter: for differences within one thread only; pd_clock_cycles_per_us tells its rate.
 */
static inline uint64_t pd_clock_cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t v;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
	return v;
#else
	return pd_clock_ns();
#endif
}

/*
 * Cycles of pd_clock_cycles in a microsecond, measured once (takes a millisecond at the first
 * call).
 */
uint64_t pd_clock_cycles_per_us(void);

#endif /* PD_BASE_CLOCK_H */
