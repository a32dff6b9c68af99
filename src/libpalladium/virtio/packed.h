/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The packed virtqueue (virtio 1.2, 2.8): reading, staging, publishing, notifying.
 *
 * There is one ring of descriptors, which both ends write, and no index. The driver goes around it
 * and makes descriptors available, the device goes around it and writes used ones over them; two
 * bits in a descriptor's flags, AVAIL and USED, say in which lap each end has been there. A lap's
 * bits are compared with those of the lap that the reader is in (struct pd_packed_place), so the
 * size may be anything from 1 on.
 *
 * len, id and flags stand in one word of eight bytes, which each end writes and reads as one: what
 * belongs to the flags is never older than they are. A batch is staged with plain stores but for
 * the word of its first descriptor, which is kept back (pd_vq.first) and is the one release store
 * that publishes all of it: a reader comes to the first descriptor first. The pairings:
 *
 *   (P) store-release of the first word, load-acquire of it by the other end
 *   (N) publish, full fence, load the peer's event structure | store ours, full fence, load the word
 *
 * What is counted. The device's cursor and position count descriptors of the ring: a chain of three
 * is three, one with an indirect table is one. So the slot at which a position is reached is known
 * without looking at the chains before it, and a notification can be asked for there (off_wrap).
 * The driver counts its own buffers, as on a split ring.
 *
 * A used element is written over the first descriptor of its chain and both ends then pass over the
 * chain's others. As we complete in order, as devices, the place where we read and the place where
 * we write are the same slot. The buffer's id is the driver's business: whatever it is, it is
 * handed back.
 *
 * All reading of what the peer wrote is here: pd_packed_look for flags alone, pd_packed_fetch and
 * pd_packed_step for descriptors, pd_packed_used_load for used elements, pd_packed_wanted for event
 * structures.
 */
#ifndef PD_VIRTIO_PACKED_H
#define PD_VIRTIO_PACKED_H

#include "virtio/chain.h"

_Static_assert(sizeof(struct vring_packed_desc) == 16 &&
		       offsetof(struct vring_packed_desc, len) == 8 &&
		       offsetof(struct vring_packed_desc, id) == 12 &&
		       offsetof(struct vring_packed_desc, flags) == 14,
	       "len, id and flags are a word of 8 bytes");
_Static_assert(sizeof(struct vring_packed_desc_event) == 4 &&
		       offsetof(struct vring_packed_desc_event, flags) == 2,
	       "an event structure is a word of 4 bytes");

/* The bits of a lap. */
#define PD_PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PD_PACKED_USED (1u << VRING_PACKED_DESC_F_USED)
#define PD_PACKED_BITS (PD_PACKED_AVAIL | PD_PACKED_USED)
/* The flags that say something about a buffer. */
#define PD_PACKED_FLAGS (VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT)

/* --- places ---------------------------------------------------------------------------------- */

/* A place by its slot and the wrap counter of its lap, for available or for used descriptors. */
static inline struct pd_packed_place pd_packed_place(uint32_t slot, bool wrap, bool used)
{
	uint16_t avail = wrap ? PD_PACKED_AVAIL : PD_PACKED_USED;

	return (struct pd_packed_place){slot, used ? (uint16_t)(wrap ? PD_PACKED_BITS : 0) : avail};
}

/* As the specification writes a place into a word of 16 bits: the slot, and the wrap counter in
 * bit 15. */
static PD_ALWAYS_INLINE uint16_t pd_packed_off_wrap(struct pd_packed_place at)
{
	/* The AVAIL bit is the counter, in available and in used descriptors. */
	return (uint16_t)(at.slot | (at.bits & PD_PACKED_AVAIL ? 1u << 15 : 0));
}

/* Go `n` slots on; at most a lap. */
static PD_ALWAYS_INLINE void pd_packed_advance(const struct pd_vq *vq, struct pd_packed_place *at,
					       uint32_t n)
{
	at->slot += n;
	if (at->slot >= vq->size) {
		at->slot -= vq->size;
		at->bits ^= PD_PACKED_BITS;
	}
}

/* The word of len, id and flags in a slot. */
static PD_ALWAYS_INLINE uint64_t *pd_packed_word(const struct pd_vq *vq, uint32_t slot)
{
	return (uint64_t *)(void *)&vq->packed_desc[slot].len;
}
/* Such a word of its parts. */
static PD_ALWAYS_INLINE uint64_t pd_packed_word_make(uint32_t len, uint16_t id, uint16_t flags)
{
	return len | (uint64_t)id << 32 | (uint64_t)flags << 48;
}

/* Are the lap's bits of `word` those of `at`? */
static PD_ALWAYS_INLINE bool pd_packed_is(uint64_t word, struct pd_packed_place at)
{
	return !(((uint16_t)(word >> 48) ^ at.bits) & PD_PACKED_BITS);
}

/* --- publishing and notification, either end ------------------------------------------------- */

/* Stage `word` in the slot where we write next, and go `n` slots on. */
static PD_ALWAYS_INLINE void pd_packed_stage(struct pd_vq *vq, uint64_t word, uint32_t n)
{
	if (vq->staged)
		pd_store_relaxed(pd_packed_word(vq, vq->ours.slot), word);
	else
		vq->first = word, vq->first_slot = vq->ours.slot;
	vq->staged += n;
	pd_packed_advance(vq, &vq->ours, n);
}

/* Publish what is staged: one release store of the first word. */
static PD_ALWAYS_INLINE void pd_packed_publish(struct pd_vq *vq)
{
	pd_store_release(pd_packed_word(vq, vq->first_slot), vq->first); /* (P) */
	vq->published += vq->staged;
	vq->staged = 0;
}

/*
 * Does the peer want to be told of what was published since the last time it was asked? It gives a
 * slot and a lap; how far back from here that is, decides.
 */
static PD_ALWAYS_INLINE bool pd_packed_wanted(struct pd_vq *vq, bool device)
{
	const struct vring_packed_desc_event *of_peer =
		device ? vq->driver_event : vq->device_event;
	uint32_t passed = vq->published, event, back;
	struct pd_packed_place at = vq->ours;
	uint16_t off_wrap;

	pd_fence_full(); /* (N) */
	vq->published = 0;
	event = pd_load_relaxed((const uint32_t *)(const void *)of_peer);
	if (event >> 16 == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (event >> 16 != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx)
		return true;
	off_wrap = (uint16_t)event;
	back = at.slot - (off_wrap & 0x7fff);
	if ((off_wrap ^ pd_packed_off_wrap(at)) >> 15)
		back += vq->size;
	return back - 1 < passed;
}

/* Ask the peer to notify when it gets to the slot `ahead` of the one that we read next. The caller
 * looks there again afterwards. */
static PD_ALWAYS_INLINE void pd_packed_ask(struct pd_vq *vq, bool device, uint32_t ahead)
{
	uint32_t *event = (uint32_t *)(void *)(device ? vq->device_event : vq->driver_event);

	if (vq->event_idx) {
		struct pd_packed_place at = vq->theirs;

		/* A position that is behind us is left already. */
		pd_packed_advance(vq, &at, ahead <= vq->size ? ahead : 0);
		pd_store_relaxed(event, pd_packed_off_wrap(at) |
						(uint32_t)VRING_PACKED_EVENT_FLAG_DESC << 16);
	} else if (!vq->armed) {
		pd_store_relaxed(event, (uint32_t)VRING_PACKED_EVENT_FLAG_ENABLE << 16);
	}
	pd_fence_full(); /* (N) */
}

/* No notification needed. A slot that was asked for would come round again, so this says it. */
static PD_ALWAYS_INLINE void pd_packed_ask_not(struct pd_vq *vq, bool device)
{
	if (vq->armed)
		pd_store_relaxed((uint32_t *)(void *)(device ? vq->device_event : vq->driver_event),
				 (uint32_t)VRING_PACKED_EVENT_FLAG_DISABLE << 16);
}

/* --- the device: chains ---------------------------------------------------------------------- */

/*
 * Descriptors that can be available behind `ahead` of them. What was consumed and is not published
 * yet is not the driver's, whatever its bits say: a driver that makes it available again would have
 * the device go round the ring within one call, and past the end of what is one lap long.
 */
static PD_ALWAYS_INLINE uint32_t pd_packed_room(const struct pd_vq *vq, uint32_t ahead)
{
	pd_assert(ahead + vq->staged <= vq->size);
	return vq->size - ahead - vq->staged;
}

/* Descriptors that are available and not consumed: looks on from where it last saw the end of
 * them. */
static PD_ALWAYS_INLINE int pd_packed_look(struct pd_vq *vq)
{
	uint32_t ahead = vq->seen - vq->cursor, most = pd_packed_room(vq, 0);
	struct pd_packed_place at = vq->theirs;

	pd_packed_advance(vq, &at, ahead);
	while (ahead < most && pd_packed_is(pd_load_acquire(pd_packed_word(vq, at.slot)), at)) {
		ahead++;
		pd_packed_advance(vq, &at, 1);
	}
	vq->seen = vq->cursor + ahead;
	return (int)ahead;
}

/* See pd_ring_fetch. */
static PD_ALWAYS_INLINE int pd_packed_fetch(struct pd_vq *vq, struct pd_ring_block *b,
					    uint32_t ahead, unsigned n, bool write)
{
	struct pd_mem_region last = pd_mem_last(vq->mem, vq->mem_hint);
	struct pd_packed_place at = vq->theirs;
	unsigned i;

	pd_packed_advance(vq, &at, ahead);
	n = pd_min(n, pd_packed_room(vq, ahead));
	for (i = 0; i < n; i++) {
		uint64_t word = pd_load_acquire(pd_packed_word(vq, at.slot)); /* (P) */

		if (!pd_packed_is(word, at))
			break;
		pd_ring_block_set(vq, b, i, &last,
				  (struct pd_ring_desc){
					  .addr = pd_load_relaxed(&vq->packed_desc[at.slot].addr),
					  .len = (uint32_t)word,
					  .flags = (uint16_t)(word >> 48) & PD_PACKED_FLAGS,
					  .next = (uint16_t)(word >> 32),
				  },
				  write);
		pd_packed_advance(vq, &at, 1);
	}
	b->n = i;
	b->at = 0;
	if (pd_refuse(i < n && (int32_t)(vq->seen - (vq->cursor + ahead + i)) > 0))
		return pd_vq_break(vq, "a descriptor that was available is not any more");
	return (int)i;
}

/* Go past `n` descriptors. */
static PD_ALWAYS_INLINE void pd_packed_consume(struct pd_vq *vq, uint32_t n)
{
	pd_packed_advance(vq, &vq->theirs, n);
	vq->cursor += n;
	if ((int32_t)(vq->seen - vq->cursor) < 0)
		vq->seen = vq->cursor;
}

/* The walk goes to the descriptor of the ring that follows: 1, 0 at the end, -ENETDOWN. */
static PD_ALWAYS_INLINE int pd_packed_step(struct pd_vq *vq, struct pd_ring_walk *w)
{
	uint64_t word;

	if (!w->more)
		return 0;
	if (w->chain.slots >= w->most)
		return pd_vq_break(vq, "a descriptor chain is longer than the ring");
	pd_packed_advance(vq, &w->at, 1);
	word = pd_load_acquire(pd_packed_word(vq, w->at.slot)); /* (P), before the chain's head */
	if (!pd_packed_is(word, w->at))
		return pd_vq_break(vq, "a descriptor chain goes on where none is available");
	w->desc = (struct pd_ring_desc){
		.addr = pd_load_relaxed(&vq->packed_desc[w->at.slot].addr),
		.len = (uint32_t)word,
		.flags = (uint16_t)(word >> 48) & PD_PACKED_FLAGS,
		.next = (uint16_t)(word >> 32),
	};
	w->chain.id = w->desc.next;
	w->chain.slots++;
	w->more = w->desc.flags & VRING_DESC_F_NEXT;
	return 1;
}

/* Stage one used element for a chain of `slots` descriptors. */
static PD_ALWAYS_INLINE void pd_packed_used_stage(struct pd_vq *vq, uint16_t id, uint32_t slots,
						  uint32_t len)
{
	uint16_t flags = vq->ours.bits | (len ? VRING_DESC_F_WRITE : 0);

	pd_packed_stage(vq, pd_packed_word_make(len, id, flags), slots);
}

/* --- the driver: our descriptors ------------------------------------------------------------- */

/* The used element at `at`, where the next one is written: whether it is there. */
static PD_ALWAYS_INLINE bool pd_packed_used_load(const struct pd_vq *vq, struct pd_packed_place at,
						 struct pd_ring_used *e)
{
	uint64_t word = pd_load_acquire(pd_packed_word(vq, at.slot)); /* (P) */

	if (!pd_packed_is(word, at))
		return false;
	*e = (struct pd_ring_used){(uint16_t)(word >> 32), (uint32_t)word};
	return true;
}

/* Stage one descriptor of a chain. `flags`: NEXT, WRITE. */
static PD_ALWAYS_INLINE void pd_packed_avail_stage(struct pd_vq *vq, uint64_t addr, uint32_t len,
						   uint16_t id, uint16_t flags)
{
	pd_store_relaxed(&vq->packed_desc[vq->ours.slot].addr, addr);
	pd_packed_stage(vq, pd_packed_word_make(len, id, vq->ours.bits | flags), 1);
}

#endif /* PD_VIRTIO_PACKED_H */
