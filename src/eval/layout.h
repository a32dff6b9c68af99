/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where everything stands in the shared memory of mode stripped. Offsets are bytes from the start
 * of the area; each part begins at a multiple of 128 (two cache lines, which are fetched together).
 *
 * Everything goes in order, so packet number n has buffer n modulo the buffers: twice the ring of
 * them are enough, since a packet is in one of two rings until tx gives its slot back. Metadata
 * entries follow the buffer or the packet's number, as the place says.
 */
#ifndef EVAL_LAYOUT_H
#define EVAL_LAYOUT_H

#include <stdio.h>

#include "options.h"

enum ev_side { EV_NF_SIDE, EV_HOST_SIDE, EV_SIDES };
enum ev_hop { EV_RX_TO_NF, EV_NF_TO_TX, EV_HOPS };

/* One side's metadata. */
struct ev_metadata {
	enum ev_place place;
	uint64_t base;   /* of entry 0 */
	uint64_t stride; /* from entry to entry; aggregated: from group to group */
	uint64_t within; /* aggregated: from entry to entry in a group */
	uint32_t mask;   /* entries - 1 */
	uint32_t group;  /* entries that stand together */
	bool by_number;  /* the entry follows from the packet's number, not from its buffer */
};

struct ev_layout {
	uint64_t bytes;
	struct {
		uint64_t produced; /* count of its producer */
		uint64_t consumed; /* count of its consumer */
		uint64_t slots;
	} ring[EV_HOPS];
	uint32_t ring_mask;
	uint32_t slot_bytes;
	uint64_t buffers;
	uint32_t buffer_mask;
	uint32_t buffer_bytes; /* from buffer to buffer */
	uint32_t header_at;    /* in a buffer */
	uint32_t packet_at;
	uint64_t stamps; /* times of packets under way, of 8 bytes */
	uint32_t stamp_mask;
	struct ev_metadata metadata[EV_SIDES];
	bool same_metadata; /* both sides use one entry */
	uint64_t window;    /* packets under way at most; UINT64_MAX: what the rings hold */
};

/* Lay everything out for options that are settled. */
void ev_layout_make(struct ev_layout *l, const struct ev_options *o);

/* Print it: a line for each thing, name=value. */
void ev_layout_print(const struct ev_layout *l, const struct ev_options *o, FILE *out);

/* The metadata of packet `n`, whose buffer is `buffer`, in the area at `area`. */
static PD_ALWAYS_INLINE uint8_t *ev_metadata_at(const struct ev_metadata *m, uint8_t *area,
						uint64_t n, uint32_t buffer)
{
	uint32_t entry = buffer;

	if (pd_unlikely(m->group > 1))
		return area + m->base + entry / m->group * m->stride + entry % m->group * m->within;
	if (m->by_number)
		entry = (uint32_t)n & m->mask;
	return area + m->base + entry * m->stride;
}

#endif /* EVAL_LAYOUT_H */
