/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of ours that a back-end maps: one file, one region.
 */
#ifndef PD_TRANSPORT_VHOST_AREA_H
#define PD_TRANSPORT_VHOST_AREA_H

#include <stdint.h>

#include "base/mem.h"
#include "transport/vhost/guard.h"

/* Where the region begins for the peer, both as guest and as front-end address. */
#define PD_VHOST_AREA_ADDR (1ull << 32)

struct pd_vhost_area {
	int fd; /* -1: none */
	uint8_t *base;
	uint64_t bytes;
	struct pd_vhost_guard *guard;
	bool shared; /* a peer was given the file */
};

/* Other memory, to take an area's place. */
struct pd_vhost_area_next {
	int fd;
	uint8_t *base; /* where it is mapped until then */
	enum pd_mem_kind kind;
};

/*
 * Make an area of at least `bytes`, all zero. `cut`, borrowed, is posted when some of it is gone.
 * pd_control held. Returns 0 or -errno.
 */
int pd_vhost_area_make(struct pd_vhost_area *area, uint64_t bytes, struct pd_progress_work *cut);

/* True when some of it was gone: there are zeroes in its place, which no peer has. */
bool pd_vhost_area_is_cut(const struct pd_vhost_area *area);

/*
 * Make other memory for an area, as long, all zero and in a file that no peer has; `kind`:
 * PD_MEM_OF_HUGE or PD_MEM_OF_PAGES. pd_control held. Returns 0, or -errno and nothing is made.
 */
int pd_vhost_area_next(const struct pd_vhost_area *area, enum pd_mem_kind kind,
		       struct pd_vhost_area_next *next);

/*
 * It becomes the area, at the addresses of the old one, which is unmapped and closed. Nobody
 * accesses that: no side is up on it. pd_control held. Returns 0, or -errno and there is no area.
 */
int pd_vhost_area_replace(struct pd_vhost_area *area, struct pd_vhost_area_next *next);

/* It is not needed. */
void pd_vhost_area_drop(const struct pd_vhost_area *area, struct pd_vhost_area_next *next);

/* Unmap and close; harmless on an area that is none. pd_control held. */
void pd_vhost_area_free(struct pd_vhost_area *area);

/* What the peer calls a place in the area. */
static inline uint64_t pd_vhost_area_addr(const struct pd_vhost_area *area, const void *p)
{
	return PD_VHOST_AREA_ADDR + (uint64_t)((const uint8_t *)p - area->base);
}

#endif /* PD_TRANSPORT_VHOST_AREA_H */
