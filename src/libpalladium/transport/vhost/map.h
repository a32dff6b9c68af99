/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The peer's memory in our address space (back-end role): mappings and the table that the rings
 * use.
 *
 * A table is built whole, aside from the one in use, and swapped in by the role when every lane has
 * been moved over. Regions come from the peer: nothing is mapped that the file does not hold, that
 * wraps or that overlaps.
 */
#ifndef PD_TRANSPORT_VHOST_MAP_H
#define PD_TRANSPORT_VHOST_MAP_H

#include "transport/transport.h"
#include "transport/vhost/guard.h"
#include "transport/vhost/wire.h"
#include "virtio/mem.h"

/* Regions that a peer may add one by one: what GET_MAX_MEM_SLOTS answers. */
#define PD_VHOST_SLOTS_MAX 509
_Static_assert(PD_VHOST_SLOTS_MAX <= PD_MEM_REGIONS_MAX, "the table holds them all");
_Static_assert(PD_VHOST_SLOTS_MAX + 32 <= PD_VHOST_GUARDS_PER_PORT, "the guards of a port do");

/*
 * What is mapped of one peer, and of all. The largest guests that there are have 24 to 32 TiB; a
 * program has 128 TiB of addresses, and a new table stands beside the old one for a moment.
 */
#define PD_VHOST_MAP_BYTES (32ull << 40)
#define PD_VHOST_MAP_ALL_BYTES (64ull << 40)

/*
 * What a table, a log or in-flight memory may have whatever other peers took: up to this much is
 * mapped beyond the bound of all. A port has one of each, which makes 24 TiB.
 */
#define PD_VHOST_MAP_SMALL_BYTES (128ull << 30)
#define PD_VHOST_MAP_RESERVE_BYTES (3 * PD_PORTS_MAX * PD_VHOST_MAP_SMALL_BYTES)

/*
 * The mapping of a region, or of other memory that a peer shares; `base` and `len` as munmap wants
 * them.
 */
struct pd_vhost_mapping {
	void *base;
	uint64_t len;
	uint8_t *host; /* the region's first byte, as in the table */
	struct pd_vhost_guard *guard;
};

struct pd_vhost_map {
	struct pd_mem_table table;
	struct pd_progress_work *cut; /* posted when memory of it turns out to be gone */
	uint32_t n;
	struct pd_vhost_mapping mapping[PD_VHOST_SLOTS_MAX];
};

/* An empty map, or NULL when there is no memory. `cut`, borrowed: see guard.h. */
struct pd_vhost_map *pd_vhost_map_new(struct pd_progress_work *cut);

/* A second map of the same mappings, to add to or remove from; NULL when there is no memory. */
struct pd_vhost_map *pd_vhost_map_copy(const struct pd_vhost_map *map);

/*
 * Map a region of the file `fd` (borrowed) and enter it. Returns NULL, or a few words about why
 * not; then nothing changed.
 */
const char *pd_vhost_map_add(struct pd_vhost_map *map, const struct pd_vhost_region *region,
			     int fd);

/*
 * Take a region out; the mapping is handed to *gone, to be unmapped when nobody uses it. Returns
 * NULL or why not.
 */
const char *pd_vhost_map_del(struct pd_vhost_map *map, const struct pd_vhost_region *region,
			     struct pd_vhost_mapping *gone);

/* True when a file turned out to be shorter than it was when it was mapped. */
bool pd_vhost_map_is_cut(const struct pd_vhost_map *map);

/*
 * Map `size` bytes at `offset` of the file `fd` (borrowed), which holds them now. `cut`, borrowed:
 * see guard.h. Returns NULL, or a few words about why not; then there is no mapping.
 */
const char *pd_vhost_mapping_map(struct pd_vhost_mapping *mapping, int fd, uint64_t offset,
				 uint64_t size, struct pd_progress_work *cut);

/* Unmap one mapping. */
void pd_vhost_mapping_unmap(const struct pd_vhost_mapping *mapping);

/* Free a copy, or what was copied: its mappings belong to the other. NULL is allowed. */
void pd_vhost_map_forget(struct pd_vhost_map *map);

/* Unmap everything and free; NULL is allowed. */
void pd_vhost_map_free(struct pd_vhost_map *map);

#endif /* PD_TRANSPORT_VHOST_MAP_H */
