/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A histogram of times in nanoseconds, for percentiles: 128 buckets to each power of two, so that a
 * value is told to within 0.8 %; below 256 ns exactly. The largest and the smallest are kept as
 * they came.
 */
#ifndef TOOLS_HIST_H
#define TOOLS_HIST_H

#include <stdint.h>
#include "base/compiler.h"

#define TOOL_HIST_SUB_BITS 7
#define TOOL_HIST_BUCKETS ((64 - TOOL_HIST_SUB_BITS + 1) << TOOL_HIST_SUB_BITS)

struct tool_hist {
	uint64_t count, min, max;
	double sum;
	uint64_t bucket[TOOL_HIST_BUCKETS];
};

/* The bucket of a value. */
static inline unsigned tool_hist_index(uint64_t v)
{
	unsigned shift;

	if (v < 2u << TOOL_HIST_SUB_BITS)
		return (unsigned)v;
	shift = 63 - (unsigned)__builtin_clzll(v) - TOOL_HIST_SUB_BITS;
	return (shift << TOOL_HIST_SUB_BITS) + (unsigned)(v >> shift);
}

/* The largest value of a bucket. */
static inline uint64_t tool_hist_top(unsigned index)
{
	unsigned shift = index >> TOOL_HIST_SUB_BITS;

	if (shift < 2)
		return index;
	shift--;
	return (((uint64_t)index - ((uint64_t)shift << TOOL_HIST_SUB_BITS) + 1) << shift) - 1;
}

/* Count `v`. */
static inline void tool_hist_add(struct tool_hist *h, uint64_t v)
{
	h->min = h->count ? pd_min(h->min, v) : v;
	h->max = pd_max(h->max, v);
	h->count++;
	h->sum += (double)v;
	h->bucket[tool_hist_index(v)]++;
}

/* The value that `fraction` (0 to 1) of all values do not exceed; 0 when there are none. */
static inline uint64_t tool_hist_quantile(const struct tool_hist *h, double fraction)
{
	uint64_t want = (uint64_t)(fraction * (double)h->count + 0.9999999), seen = 0;

	for (unsigned i = 0; i < TOOL_HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen && seen >= want)
			return pd_min(tool_hist_top(i), h->max);
	}
	return h->max;
}

#endif /* TOOLS_HIST_H */
