/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings of either format behind one interface.
 *
 * `packed` and `device` are constants where these functions are used, and what is made of them
 * there is the format's own code (split.h, packed.h) for that end. The data paths in device.h and
 * driver.h are written once, over this.
 */
#ifndef PD_VIRTIO_RING_H
#define PD_VIRTIO_RING_H

#include "virtio/packed.h"
#include "virtio/split.h"
#include "virtio/watch.h"

/* --- publishing and notification, either end ------------------------------------------------- */

/* Publish what is staged. */
static PD_ALWAYS_INLINE void pd_ring_publish(struct pd_vq *vq, bool packed, bool device)
{
	if (packed)
		pd_packed_publish(vq);
	else
		pd_split_publish(vq, device);
	vq->counts.batches++;
}

/*
 * Does the peer want to be told of what was just published? The first time after a change of
 * descriptor or link the answer is yes.
 */
static PD_ALWAYS_INLINE bool pd_ring_must_notify(struct pd_vq *vq, bool packed, bool device)
{
	bool wanted = packed ? pd_packed_wanted(vq, device) : pd_split_wanted(vq, device);

	wanted |= !vq->signalled_valid;
	vq->signalled_valid = true;
	vq->counts.notified += wanted;
	return wanted;
}

/*
 * Ask the peer to notify when it publishes the entry that is `ahead` of the first that it has not
 * published as far as `seen` says. The caller looks again afterwards.
 */
static PD_ALWAYS_INLINE void pd_ring_ask(struct pd_vq *vq, bool packed, bool device, uint32_t ahead)
{
	if (packed)
		pd_packed_ask(vq, device, ahead);
	else
		pd_split_ask(vq, device, (uint16_t)(vq->next + ahead));
	vq->armed = true;
}

/* No notification needed (a hint). */
static PD_ALWAYS_INLINE void pd_ring_ask_not(struct pd_vq *vq, bool packed, bool device)
{
	if (packed)
		pd_packed_ask_not(vq, device);
	else
		pd_split_ask_not(vq, device);
	vq->armed = false;
}

/* --- the device: chains ---------------------------------------------------------------------- */

/* Entries (split: chains; packed: descriptors) that are available and not consumed, all of them.
 * Count or -ENETDOWN. */
static PD_ALWAYS_INLINE int pd_ring_look(struct pd_vq *vq, bool packed)
{
	return packed ? pd_packed_look(vq) : pd_split_refresh(vq, true, vq->size);
}

/*
 * Read up to `n` (1 to PD_RING_BLOCK) entries into a block, from the one that is `ahead` of the
 * first that is not consumed. `write`: the buffers will be written. Returns how many, fewer than
 * `n` when no more are available, or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int pd_ring_fetch(struct pd_vq *vq, bool packed, struct pd_ring_block *b,
					  uint32_t ahead, unsigned n, bool write)
{
	if (pd_unlikely(vq->watched))
		return pd_watch_fetch(vq, b, ahead, n, write);
	return packed ? pd_packed_fetch(vq, b, ahead, n, write)
		      : pd_split_fetch(vq, b, ahead, n, write);
}

/* The chain of block entry `i`, whose only descriptor has been read. */
static PD_ALWAYS_INLINE struct pd_ring_chain pd_ring_single(const struct pd_ring_block *b,
							    bool packed, unsigned i)
{
	return (struct pd_ring_chain){packed ? b->desc[i].next : b->head[i], 1, 0};
}

/* Start a walk at block entry `i`, which is `ahead` of the first that is not consumed. */
static PD_ALWAYS_INLINE void pd_ring_walk_start(const struct pd_vq *vq, bool packed,
						struct pd_ring_walk *w,
						const struct pd_ring_block *b, unsigned i,
						uint32_t ahead, bool write)
{
	w->desc = b->desc[i];
	w->open = false;
	w->addr = 0;
	w->len = 0;
	w->left = vq->size - 1;
	w->walked = 1;
	w->table = 0;
	w->table_n = 0;
	w->write = write;
	w->chain = pd_ring_single(b, packed, i);
	if (packed) {
		w->more = w->desc.flags & VRING_DESC_F_NEXT;
		w->most = pd_packed_room(vq, ahead);
		w->at = vq->theirs;
		pd_packed_advance(vq, &w->at, ahead);
	}
}

/*
 * End a walk, wherever it stands: w->chain is then the whole chain, as the driver gets it back.
 * Returns 0 or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int pd_ring_walk_end(struct pd_vq *vq, bool packed, struct pd_ring_walk *w)
{
	int more = 1;

	while (packed && (more = pd_packed_step(vq, w)) > 0)
		w->walked++;
	return pd_min(more, 0);
}

/* Go past entries: `n` of them, which are one chain or more. */
static PD_ALWAYS_INLINE void pd_ring_consume(struct pd_vq *vq, bool packed, uint32_t n)
{
	if (packed) {
		pd_packed_consume(vq, n);
	} else {
		vq->next += (uint16_t)n;
		vq->cursor += n;
	}
}

/* Stage the used element of a chain into which `len` bytes were written. */
static PD_ALWAYS_INLINE void pd_ring_used_stage(struct pd_vq *vq, bool packed,
						struct pd_ring_chain chain, uint32_t len)
{
	if (packed)
		pd_packed_used_stage(vq, chain.id, chain.slots, len);
	else
		pd_split_used_stage(vq, chain.id, len);
}

/*
 * Stage one used element for chains of `entries` entries, of which `last` is the last and into
 * none of which anything was written. With IN_ORDER only.
 */
static PD_ALWAYS_INLINE void pd_ring_used_stage_all(struct pd_vq *vq, bool packed,
						    struct pd_ring_chain last, uint32_t entries)
{
	if (packed) {
		pd_packed_used_stage(vq, last.id, entries, 0);
	} else {
		pd_split_used_stage(vq, last.id, 0);
		vq->staged += (uint16_t)(entries - 1);
	}
}

/* --- the driver: our descriptors ------------------------------------------------------------- */

/* Where a driver reads used elements: its own while it reads several, in registers. */
struct pd_ring_reader {
	struct pd_packed_place at; /* packed */
	uint16_t next;             /* split */
};

/* Begin to read where the last reader ended. */
static PD_ALWAYS_INLINE struct pd_ring_reader pd_ring_read_begin(const struct pd_vq *vq,
								 bool packed)
{
	struct pd_ring_reader r = {.next = vq->next};

	if (packed)
		r.at = vq->theirs;
	return r;
}

/* What was passed is passed for good. */
static PD_ALWAYS_INLINE void pd_ring_read_end(struct pd_vq *vq, bool packed,
					      const struct pd_ring_reader *r)
{
	if (packed)
		vq->theirs = r->at;
	else
		vq->next = r->next;
}

/* At most so many used elements can be read now; `want` are wanted, the device holds `held`. Count or
 * -ENETDOWN. */
static PD_ALWAYS_INLINE int pd_ring_used_known(struct pd_vq *vq, bool packed, uint32_t want,
					       uint32_t held)
{
	return packed ? (int)vq->size : pd_split_used_known(vq, want, held);
}

/* The id of the buffer that a device that completes in order will use next: a guess, unchecked. */
static PD_ALWAYS_INLINE uint32_t pd_ring_expected(const struct pd_vq *vq, bool packed)
{
	if (packed)
		return (uint16_t)(pd_load_relaxed(pd_packed_word(vq, vq->theirs.slot)) >> 32);
	return pd_load_relaxed(&vq->avail->ring[vq->next & vq->mask]);
}

/* The next used element, one of those known: whether it is there. */
static PD_ALWAYS_INLINE bool pd_ring_used_load(const struct pd_vq *vq, bool packed,
					       const struct pd_ring_reader *r,
					       struct pd_ring_used *e)
{
	if (packed)
		return pd_packed_used_load(vq, r->at, e);
	*e = pd_split_used_load(vq, r->next);
	return true;
}

/* Go past a used element that stood for `chains` chains of `slots` descriptors together. */
static PD_ALWAYS_INLINE void pd_ring_used_pass(const struct pd_vq *vq, bool packed,
					       struct pd_ring_reader *r, uint32_t chains,
					       uint32_t slots)
{
	if (packed)
		pd_packed_advance(vq, &r->at, slots);
	else
		r->next += (uint16_t)chains;
}

/*
 * Stage the buffer `i` of ours, of which `len` bytes are to be read, in the chain of the buffer
 * `head`, which is `i` itself for the first. `next`: the buffer that follows it, if `flags` has
 * NEXT.
 */
static PD_ALWAYS_INLINE void pd_ring_avail_stage(struct pd_vq *vq, bool packed, uint16_t head,
						 uint16_t i, uint32_t len, uint16_t flags,
						 uint16_t next)
{
	uint64_t tail = pd_split_tail(len, flags, next);

	if (packed) {
		pd_packed_avail_stage(vq, vq->buffers_gpa + (uint64_t)i * vq->buf_bytes, len, head,
				      flags);
		vq->slots[i].tail = tail;
	} else {
		pd_split_desc_store(vq, i, tail);
		if (i == head)
			pd_split_avail_stage(vq, head);
	}
	if (i == head)
		vq->slots[head].seq = vq->seq++;
}

/* Note that the device holds the buffer `i` of ours, a chain by itself, the `seq`th that it got. */
static PD_ALWAYS_INLINE void pd_ring_held(struct pd_vq_slot *slots, uint32_t i, uint32_t seq)
{
	slots[i].n = 1;
	slots[i].seq = seq;
}

/* Stage the `n` buffers of ours in `used` from `at` on (modulo mask + 1) to be written. Their
 * descriptors are always the same. */
static PD_ALWAYS_INLINE void pd_ring_refill(struct pd_vq *vq, bool packed,
					    const struct pd_ring_used *used, uint32_t at,
					    uint32_t n)
{
	struct pd_vq_slot *const slots = vq->slots;
	const uint32_t mask = vq->mask, seq = vq->seq;

	if (packed) {
		const uint64_t gpa = vq->buffers_gpa, buf_bytes = vq->buf_bytes;

		for (uint32_t k = 0; k < n; k++) {
			uint32_t i = used[(at + k) & mask].id;

			pd_packed_avail_stage(vq, gpa + i * buf_bytes, (uint32_t)buf_bytes,
					      (uint16_t)i, VRING_DESC_F_WRITE);
			pd_ring_held(slots, i, seq + k);
		}
	} else {
		uint16_t *const ring = vq->avail->ring;
		const uint16_t first = (uint16_t)(vq->own_idx + vq->staged);

		for (uint32_t k = 0; k < n; k++) {
			uint32_t i = used[(at + k) & mask].id;

			pd_split_avail_put(&ring[(uint16_t)(first + k) & mask], (uint16_t)i);
			pd_ring_held(slots, i, seq + k);
		}
		vq->staged += (uint16_t)n;
	}
	vq->seq = seq + n;
}

#endif /* PD_VIRTIO_RING_H */
