/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The split virtqueue (virtio 1.2, 2.7): reading, staging, publishing, notifying.
 *
 * Each half of the ring is written by one end: descriptors and avail by the driver, used by the
 * device. An end stages entries behind its index, publishes them with one release store, and then,
 * behind a full fence, looks whether the other wants to be told. The other end loads the index with
 * acquire. The pairings:
 *
 *   (P) store-release of avail->idx, load-acquire of it by the device; and used->idx the other way
 *   (N) publish, full fence, load the event word | store the event word, full fence, load the index
 *
 * All reading of what the peer wrote is here: pd_split_refresh for its index, pd_split_fetch and
 * pd_split_step (through pd_split_desc_load) for descriptors, pd_split_used_load for used elements.
 * Each loads a field once, into private memory.
 *
 * Both ends of vhost-user are little-endian machines and so is the ring (VERSION_1; a legacy ring
 * is in the guest's order, which on the machines we run on is the same).
 */
#ifndef PD_VIRTIO_SPLIT_H
#define PD_VIRTIO_SPLIT_H

#include "virtio/chain.h"

_Static_assert(sizeof(struct vring_desc) == 16 && offsetof(struct vring_desc, len) == 8,
	       "a descriptor is two words of 8 bytes");

/* --- indices and notification, either end ---------------------------------------------------- */

/* The words of a ring by their role: our index, the peer's, and who asks whom to notify. */
static PD_ALWAYS_INLINE uint16_t *pd_split_own_idx(const struct pd_vq *vq, bool device)
{
	return device ? &vq->used->idx : &vq->avail->idx;
}
static PD_ALWAYS_INLINE const uint16_t *pd_split_peer_idx(const struct pd_vq *vq, bool device)
{
	return device ? &vq->avail->idx : &vq->used->idx;
}
/* Where a driver says from which used entry on it wants to be told, and a device from which avail
 * entry on. */
static PD_ALWAYS_INLINE uint16_t *pd_split_event(const struct pd_vq *vq, bool of_device)
{
	return of_device ? (uint16_t *)&vq->used->ring[vq->mask + 1]
			 : &vq->avail->ring[vq->mask + 1];
}
/* Where either says that it does not want to be told at all: bit 0 at both ends. */
static PD_ALWAYS_INLINE uint16_t *pd_split_flags(const struct pd_vq *vq, bool of_device)
{
	return of_device ? &vq->used->flags : &vq->avail->flags;
}

/*
 * Entries that the peer has published and we have not consumed, from a fresh load of its index.
 * `most`: how many it can have published at all. Returns the count or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int pd_split_refresh(struct pd_vq *vq, bool device, uint32_t most)
{
	uint16_t now = pd_load_acquire(pd_split_peer_idx(vq, device)); /* (P) */
	uint16_t n = now - vq->next;

	if (pd_refuse(n > most))
		return pd_vq_break(vq, "the peer's index jumped");
	vq->peer_idx = now;
	return n;
}

/* Publish what is staged: one release store to our index. */
static PD_ALWAYS_INLINE void pd_split_publish(struct pd_vq *vq, bool device)
{
	vq->own_idx += vq->staged;
	vq->staged = 0;
	pd_store_release(pd_split_own_idx(vq, device), vq->own_idx); /* (P) */
}

/* Does the peer want to be told of what was just published? */
static PD_ALWAYS_INLINE bool pd_split_wanted(struct pd_vq *vq, bool device)
{
	uint16_t old = vq->signalled;

	pd_fence_full(); /* (N) */
	vq->signalled = vq->own_idx;
	if (vq->event_idx)
		return vring_need_event(pd_load_relaxed(pd_split_event(vq, !device)), vq->own_idx,
					old);
	return !(pd_load_relaxed(pd_split_flags(vq, !device)) & VRING_USED_F_NO_NOTIFY);
}

/* Ask the peer to notify when it publishes the entry `at`. The caller looks at the index again
 * afterwards. */
static PD_ALWAYS_INLINE void pd_split_ask(struct pd_vq *vq, bool device, uint16_t at)
{
	if (vq->event_idx)
		pd_store_relaxed(pd_split_event(vq, device), at);
	else if (!vq->armed)
		pd_store_relaxed(pd_split_flags(vq, device), 0);
	pd_fence_full(); /* (N) */
}

/* No notification needed. With EVENT_IDX the old event word does that by itself. */
static PD_ALWAYS_INLINE void pd_split_ask_not(struct pd_vq *vq, bool device)
{
	if (!vq->event_idx && vq->armed)
		pd_store_relaxed(pd_split_flags(vq, device), VRING_USED_F_NO_NOTIFY);
}

/* --- the device: chains ---------------------------------------------------------------------- */

/* Read one descriptor; it stands at a multiple of 16. */
static PD_ALWAYS_INLINE struct pd_ring_desc pd_split_desc_load(const struct vring_desc *d)
{
	uint64_t tail = pd_load_relaxed((const uint64_t *)(const void *)&d->len);

	return (struct pd_ring_desc){
		.addr = pd_load_relaxed(&d->addr),
		.len = (uint32_t)tail,
		.flags = (uint16_t)(tail >> 32),
		.next = (uint16_t)(tail >> 48),
	};
}

/* See pd_ring_fetch. */
static PD_ALWAYS_INLINE int pd_split_fetch(struct pd_vq *vq, struct pd_ring_block *b,
					   uint32_t ahead, unsigned n, bool write)
{
	uint32_t known = (uint16_t)(vq->peer_idx - vq->next), bad = 0;
	uint16_t first = (uint16_t)(vq->next + ahead);
	struct pd_mem_region last = pd_mem_last(vq->mem, vq->mem_hint);

	if (known < ahead + n) {
		int now = pd_split_refresh(vq, true, vq->mask + 1);

		if (pd_unlikely(now < 0))
			return now;
		if ((uint32_t)now <= ahead)
			return 0;
		n = pd_min(n, (uint32_t)now - ahead);
	}
	b->n = n;
	b->at = 0;
	for (unsigned i = 0; i < n; i++) {
		uint16_t head = pd_load_relaxed(&vq->avail->ring[(uint16_t)(first + i) & vq->mask]);

		bad |= head > vq->mask;
		b->head[i] = head;
		__builtin_prefetch(&vq->desc[head & vq->mask]);
	}
	if (pd_refuse(bad))
		return pd_vq_break(vq, "an avail entry names no descriptor");
	for (unsigned i = 0; i < n; i++)
		pd_ring_block_set(vq, b, i, &last, pd_split_desc_load(&vq->desc[b->head[i]]),
				  write);
	return (int)n;
}

/* The walk goes to the descriptor that follows: 1, 0 at the end, -ENETDOWN. */
static PD_ALWAYS_INLINE int pd_split_step(struct pd_vq *vq, struct pd_ring_walk *w)
{
	uint16_t next = w->desc.next;

	if (!(w->desc.flags & VRING_DESC_F_NEXT))
		return 0;
	if (!w->left--)
		return pd_vq_break(vq, "a descriptor chain is a loop");
	if (next > vq->mask)
		return pd_vq_break(vq, "a descriptor's next names no descriptor");
	w->desc = pd_split_desc_load(&vq->desc[next]);
	return 1;
}

/* Stage one used element. Writes only what differs: in a steady flow nothing does, and the line
 * stays shared. */
static PD_ALWAYS_INLINE void pd_split_used_stage(struct pd_vq *vq, uint16_t head, uint32_t len)
{
	struct vring_used_elem *e =
		&vq->used->ring[(uint16_t)(vq->own_idx + vq->staged) & vq->mask];

	if (pd_load_relaxed(&e->id) != head)
		pd_store_relaxed(&e->id, head);
	if (pd_load_relaxed(&e->len) != len)
		pd_store_relaxed(&e->len, len);
	vq->staged++;
}

/* --- the driver: our descriptors ------------------------------------------------------------- */

/* Used elements that can be read; looks at the index when fewer than `want` are known. Count or
 * -ENETDOWN. */
static PD_ALWAYS_INLINE int pd_split_used_known(struct pd_vq *vq, uint32_t want, uint32_t held)
{
	uint16_t known = vq->peer_idx - vq->next;

	return known >= want ? known : pd_split_refresh(vq, false, held);
}

/* The used element `at`, which is there. */
static PD_ALWAYS_INLINE struct pd_ring_used pd_split_used_load(const struct pd_vq *vq, uint16_t at)
{
	const struct vring_used_elem *u = &vq->used->ring[at & vq->mask];

	return (struct pd_ring_used){pd_load_relaxed(&u->id), pd_load_relaxed(&u->len)};
}

/* len, flags and next of a descriptor as one word. */
static PD_ALWAYS_INLINE uint64_t pd_split_tail(uint32_t len, uint16_t flags, uint16_t next)
{
	return len | (uint64_t)flags << 32 | (uint64_t)next << 48;
}

/* Write the descriptor `i` of ours: its address stands there since the start. */
static PD_ALWAYS_INLINE void pd_split_desc_store(struct pd_vq *vq, uint16_t i, uint64_t tail)
{
	if (vq->slots[i].tail == tail)
		return;
	vq->slots[i].tail = tail;
	pd_store_relaxed((uint64_t *)(void *)&vq->desc[i].len, tail);
}

/* Write one avail entry, if it differs: as for used ones. */
static PD_ALWAYS_INLINE void pd_split_avail_put(uint16_t *e, uint16_t head)
{
	if (pd_load_relaxed(e) != head)
		pd_store_relaxed(e, head);
}

/* Stage one avail entry. */
static PD_ALWAYS_INLINE void pd_split_avail_stage(struct pd_vq *vq, uint16_t head)
{
	pd_split_avail_put(&vq->avail->ring[(uint16_t)(vq->own_idx + vq->staged) & vq->mask], head);
	vq->staged++;
}

#endif /* PD_VIRTIO_SPLIT_H */
