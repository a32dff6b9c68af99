/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rate of the cycle counter.
 */
#include "base/atomic.h"
#include "base/clock.h"
#include "base/compiler.h"

uint64_t pd_clock_cycles_per_us(void)
{
	static uint64_t rate;
	uint64_t known = pd_load_relaxed(&rate), c0, t0, t1;

	if (pd_likely(known))
		return known;
	c0 = pd_clock_cycles();
	t0 = pd_clock_ns();
	do {
		t1 = pd_clock_ns();
	} while (t1 - t0 < PD_NS_PER_MS);
	known = (pd_clock_cycles() - c0) * PD_NS_PER_US / (t1 - t0);
	known = known ? known : 1;
	pd_store_relaxed(&rate, known);
	return known;
}
