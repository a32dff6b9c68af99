/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory table's control path and the search behind its cache. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "virtio/mem.h"

/* Do [a, a + a_size) and [b, b + b_size) meet? Neither wraps. */
static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b ? b - a < a_size : a - b < b_size;
}

int pd_mem_add(struct pd_mem_table *table, const struct pd_mem_region *region)
{
	uint32_t at;

	/* The last byte must have an address: a region may end at 2^64 exactly, not beyond. */
	if (!region->size || !region->host ||
	    region->guest_addr + (region->size - 1) < region->guest_addr ||
	    region->user_addr + (region->size - 1) < region->user_addr)
		return -EINVAL;
	if (table->n >= PD_MEM_REGIONS_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < table->n; i++) {
		const struct pd_mem_region *r = &table->region[i];

		if (overlaps(r->guest_addr, r->size, region->guest_addr, region->size) ||
		    overlaps(r->user_addr, r->size, region->user_addr, region->size))
			return -EEXIST;
	}
	for (at = 0; at < table->n; at++)
		if (table->region[at].guest_addr > region->guest_addr)
			break;
	memmove(&table->region[at + 1], &table->region[at],
		(table->n - at) * sizeof(table->region[0]));
	table->region[at] = *region;
	table->n++;
	return 0;
}

int pd_mem_del(struct pd_mem_table *table, uint64_t guest_addr, uint64_t user_addr, uint64_t size,
	       struct pd_mem_region *out)
{
	for (uint32_t i = 0; i < table->n; i++) {
		struct pd_mem_region *r = &table->region[i];

		if (r->guest_addr != guest_addr || r->user_addr != user_addr || r->size != size)
			continue;
		if (out)
			*out = *r;
		table->n--;
		memmove(r, r + 1, (table->n - i) * sizeof(*r));
		return 0;
	}
	return -ENOENT;
}

void *pd_mem_translate_user(const struct pd_mem_table *table, uint64_t user_addr, uint64_t len)
{
	for (uint32_t i = 0; i < table->n; i++) {
		const struct pd_mem_region *r = &table->region[i];
		uint64_t off = user_addr - r->user_addr;

		if (off < r->size)
			return len <= r->size - off ? r->host + off : NULL;
	}
	return NULL;
}

uint64_t pd_mem_guest(const struct pd_mem_table *table, const void *p)
{
	for (uint32_t i = 0; i < table->n; i++) {
		const struct pd_mem_region *r = &table->region[i];
		uint64_t off = (uintptr_t)p - (uintptr_t)r->host;

		if (off < r->size)
			return r->guest_addr + off;
	}
	return UINT64_MAX;
}

const struct pd_mem_region *pd_mem_find(const struct pd_mem_table *table, uint32_t *hint,
					uint64_t gpa)
{
	uint32_t lo = 0, hi = table->n;

	/* The last region that starts at or below gpa. */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (table->region[mid].guest_addr <= gpa)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || gpa - table->region[lo - 1].guest_addr >= table->region[lo - 1].size)
		return NULL;
	*hint = lo - 1;
	return &table->region[lo - 1];
}
