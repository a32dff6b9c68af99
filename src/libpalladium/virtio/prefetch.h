/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fetching cache lines ahead of their use. They come from the core of the other end, which wrote or
 * read them last; fetched ahead, several are on their way at once. All of this is hints: any
 * address will do, and nothing is read. The lines of a short frame with its header are fetched in
 * any case.
 */
#ifndef PD_VIRTIO_PREFETCH_H
#define PD_VIRTIO_PREFETCH_H

#include <stdint.h>

#include "base/compiler.h"

#define PD_PREFETCH_LEAST (2 * PD_CACHE_LINE)

/* A test may have its own. */
#ifndef PD_PREFETCH_LINE
#	define PD_PREFETCH_LINE(p, write) __builtin_prefetch(p, write)
#endif

/*
 * Of the first `n` bytes at `p`, which will be written, fetch the lines beyond PD_PREFETCH_LEAST.
 */
static PD_ALWAYS_INLINE void pd_prefetch_write_rest(const uint8_t *p, uint32_t n)
{
	for (uint32_t i = PD_PREFETCH_LEAST; i < n; i += PD_CACHE_LINE)
		PD_PREFETCH_LINE(p + i, 1);
}

/* Fetch the first PD_PREFETCH_LEAST bytes at `p`, which will be written. */
static PD_ALWAYS_INLINE void pd_prefetch_write(const uint8_t *p)
{
	PD_PREFETCH_LINE(p, 1);
	PD_PREFETCH_LINE(p + PD_CACHE_LINE, 1);
}

/* Fetch the lines of the first `n` bytes at `p`, which will be read. */
static PD_ALWAYS_INLINE void pd_prefetch_read(const uint8_t *p, uint32_t n)
{
	PD_PREFETCH_LINE(p, 0);
	PD_PREFETCH_LINE(p + PD_CACHE_LINE, 0);
	if (pd_unlikely(n > PD_PREFETCH_LEAST))
		for (uint32_t i = PD_PREFETCH_LEAST; i < n; i += PD_CACHE_LINE)
			PD_PREFETCH_LINE(p + i, 0);
}

#endif /* PD_VIRTIO_PREFETCH_H */
