/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory table: where the guest's memory stands in this process.
 *
 * A front-end shares its memory in regions. Each has three addresses: the guest's (descriptors hold
 * those), the front-end's own (ring addresses are given in those), and where we have mapped it. The
 * control side builds a table, sorted by guest address; the data path only reads it, with the
 * lane's locks held, so that the control side may swap it while it holds them. A descriptor comes
 * from the peer: nothing is assumed of an address or a length, and no sum here can overflow.
 */
#ifndef PD_VIRTIO_MEM_H
#define PD_VIRTIO_MEM_H

#include <stddef.h>
#include <stdint.h>
#include "virtio/refuse.h"

/* More than the 509 slots of the vhost-user specification: a table of translations (transport/vhost/iotlb.c) may hold each page of a large
 * ring's buffers. */
#define PD_MEM_REGIONS_MAX 2048

struct pd_mem_region {
	uint64_t guest_addr; /* guest-physical address of its first byte */
	uint64_t size;       /* bytes, not 0; guest_addr + size does not overflow */
	uint64_t user_addr;  /* its address in the front-end's process */
	uint8_t *host;       /* its address in this process */
};

struct pd_mem_table {
	uint32_t n;
	struct pd_mem_region region[PD_MEM_REGIONS_MAX]; /* by guest_addr, none overlapping */
};

/*
 * Put a region in its place. Control path. Returns 0; -EINVAL for size 0, a missing mapping or an
 * address that wraps; -EEXIST when it overlaps another in guest or front-end addresses; -ENOSPC.
 */
int pd_mem_add(struct pd_mem_table *table, const struct pd_mem_region *region);

/*
 * Take out the region that starts at `guest_addr` and `user_addr` with `size` bytes. Control path.
 * Returns 0 with the region in *out (may be NULL), or -ENOENT.
 */
int pd_mem_del(struct pd_mem_table *table, uint64_t guest_addr, uint64_t user_addr, uint64_t size,
	       struct pd_mem_region *out);

/*
 * The front-end address `user_addr` with `len` bytes behind it, all in one region: our pointer, or
 * NULL. For ring addresses. Control path.
 */
void *pd_mem_translate_user(const struct pd_mem_table *table, uint64_t user_addr, uint64_t len);

/*
 * The guest address of what stands at `p` in our memory, or UINT64_MAX: the other way round. Not
 * for every frame.
 */
uint64_t pd_mem_guest(const struct pd_mem_table *table, const void *p);

/* The region that holds `gpa`, or NULL; *hint is updated. Out of line: the cache did not hold it.
 */
const struct pd_mem_region *pd_mem_find(const struct pd_mem_table *table, uint32_t *hint,
					uint64_t gpa);

/*
 * The region of `table` that was hit last, for a caller that looks up several addresses: in
 * registers. `hint` is the caller's cache (any value); nothing is found in what is given when it is
 * not of this table.
 */
static PD_ALWAYS_INLINE struct pd_mem_region pd_mem_last(const struct pd_mem_table *table,
							 uint32_t hint)
{
	return pd_likely(hint < table->n) ? table->region[hint] : (struct pd_mem_region){0};
}

/*
 * Where `gpa` stands and in *run how many bytes follow it within its region; NULL when no region
 * holds it. `last` is the region to look in first (pd_mem_last); it and *hint are updated.
 */
static PD_ALWAYS_INLINE uint8_t *pd_mem_near(const struct pd_mem_table *table, uint32_t *hint,
					     struct pd_mem_region *last, uint64_t gpa,
					     uint64_t *run)
{
	uint64_t off = gpa - last->guest_addr;

	if (pd_refuse(off >= last->size)) {
		const struct pd_mem_region *r = pd_mem_find(table, hint, gpa);

		if (!r)
			return NULL;
		*last = *r;
		off = gpa - last->guest_addr;
	}
	*run = last->size - off;
	return last->host + off;
}

/* The same for one address. */
static PD_ALWAYS_INLINE uint8_t *pd_mem_at(const struct pd_mem_table *table, uint32_t *hint,
					   uint64_t gpa, uint64_t *run)
{
	struct pd_mem_region last = pd_mem_last(table, *hint);

	return pd_mem_near(table, hint, &last, gpa, run);
}

/* `len` bytes at `gpa` that stand in one region: our pointer, or NULL. */
static PD_ALWAYS_INLINE uint8_t *pd_mem_translate(const struct pd_mem_table *table, uint32_t *hint,
						  uint64_t gpa, uint64_t len)
{
	uint64_t run;
	uint8_t *p = pd_mem_at(table, hint, gpa, &run);

	return p && len <= run ? p : NULL;
}

#endif /* PD_VIRTIO_MEM_H */
