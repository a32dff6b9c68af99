/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What frames hold: every byte follows from a seed and from the frame's name (port, queue, number).
 *
 * So nothing of a frame has to be kept to check it when it comes back: it is made again and
 * compared on the fly. No checksum stands in it, and none is needed.
 *
 *     0  destination and source address, ethertype 0x88b5
 *    14  u16 length of the frame      16  u32 low half of the seed
 *    20  u16 port, u16 queue          24  u64 number
 *    32  64-bit words x, x + k, x + 2k, ...; x mixes seed and name. The last one may be cut.
 *
 * The words cost one addition each, in making and in checking, and both loops are written with
 * vectors. The numbers are little-endian.
 *
 * The sidecar of a frame is made the same way: each of its fields differs from frame to frame, but
 * where the command line fixes one.
 */
#ifndef VLM_PATTERN_H
#define VLM_PATTERN_H

#include <stdbool.h>
#include <stdint.h>
#include "metadata/sidecar.h"

#define VLM_HEADER_BYTES 32
#define VLM_FRAME_MIN VLM_HEADER_BYTES
#define VLM_FRAME_MAX 12240
#define VLM_ETHERTYPE 0x88b5 /* IEEE 802: for local experiments */
#define VLM_NO_DIFFERENCE UINT32_MAX

/* Which frame. */
struct vlm_name {
	uint16_t port;
	uint16_t queue;
	uint64_t number; /* within its port and queue, from 0 */
};

enum vlm_size_kind { VLM_SIZE_RANGE, VLM_SIZE_IMIX };

/* Fields of the sidecar that the command line fixes; the others differ from frame to frame. */
struct vlm_sidecar_plan {
	uint64_t flags; /* more bits of metadata_type */
	bool ifg_fixed, pfc_fixed, preamble_fixed, fcs_fixed;
	bool pfc_by_queue;        /* the priority is that of the queue a frame is sent by */
	bool no_preamble, no_fcs; /* neither flag nor value */
	bool empty;               /* all zeroes: as if there were no sidecar */
	uint64_t ifg;
	uint8_t pfc;
	uint8_t preamble[8], preamble_bytes;
	uint32_t fcs;
};

struct vlm_plan {
	uint64_t seed;
	enum vlm_size_kind size_kind;
	uint32_t size_low, size_high; /* VLM_SIZE_RANGE: both ends belong to it */
	uint8_t destination[6], source[6];
	struct vlm_sidecar_plan sidecar;
};

/* Mix 64 bits: each bit of the result depends on each of `x`. */
static inline uint64_t vlm_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* The word that all of frame `name` follows from. */
static inline uint64_t vlm_word(const struct vlm_plan *plan, const struct vlm_name *name)
{
	uint64_t where = (uint64_t)name->port << 48 | (uint64_t)name->queue << 40;

	return vlm_mix(plan->seed + (name->number ^ where) * 0x9e3779b97f4a7c15u);
}

/* Bytes of frame `name`. */
uint32_t vlm_frame_bytes(const struct vlm_plan *plan, const struct vlm_name *name);

/* The mean of vlm_frame_bytes. */
double vlm_frame_mean(const struct vlm_plan *plan);

/* Write frame `name` to `out`, which has room for VLM_FRAME_MAX; returns its length. */
uint32_t vlm_frame_make(const struct vlm_plan *plan, const struct vlm_name *name, uint8_t *out);

/*
 * Whose frame are the `len` bytes at `frame`? Fills *name and returns true when they are a frame of
 * this run: ethertype and seed say so. `len` may be any.
 */
bool vlm_frame_identify(const struct vlm_plan *plan, const uint8_t *frame, uint32_t len,
			struct vlm_name *name);

/*
 * Compare `len` bytes at `frame` with frame `name`, as far as both go; `header_only` leaves out
 * what stands behind the first 32. Returns the offset of the first byte that differs or
 * VLM_NO_DIFFERENCE.
 */
uint32_t vlm_frame_compare(const struct vlm_plan *plan, const struct vlm_name *name,
			   const uint8_t *frame, uint32_t len, bool header_only);

/* The PFC priority in the sidecar of frame `name`. */
static inline uint8_t vlm_sidecar_pfc(const struct vlm_plan *plan, const struct vlm_name *name)
{
	const struct vlm_sidecar_plan *sp = &plan->sidecar;

	if (sp->pfc_fixed)
		return sp->pfc;
	return (uint8_t)((sp->pfc_by_queue ? name->queue : name->number) % MAX_PFC_QUEUES);
}

/* Make the sidecar of frame `name`; mrg_num_buffers is 0. */
void vlm_sidecar_make(const struct vlm_plan *plan, const struct vlm_name *name,
		      struct pd_sidecar *out);

/*
 * Compare what came with what was expected, leaving out mrg_num_buffers, which belongs to the ring.
 * Returns the offset of the first byte that differs or VLM_NO_DIFFERENCE.
 */
uint32_t vlm_sidecar_compare(const struct pd_sidecar *got, const struct pd_sidecar *expected);

#endif /* VLM_PATTERN_H */
