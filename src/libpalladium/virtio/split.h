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
 * All reading of what the peer wrote is here: pd_split_peer_index for its index, pd_split_block_load
 * and pd_split_walk_next (through pd_split_desc_load) for descriptors, pd_split_used_load for used
 * elements. Each loads a field once, into private memory.
 *
 * Both ends of vhost-user are little-endian machines and so is the ring (VERSION_1; a legacy ring
 * is in the guest's order, which on the machines we run on is the same).
 */
#ifndef PD_VIRTIO_SPLIT_H
#define PD_VIRTIO_SPLIT_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/atomic.h"
#include "base/compiler.h"
#include "virtio/vq.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are read in place");
_Static_assert(sizeof(struct vring_desc) == 16 && offsetof(struct vring_desc, len) == 8,
	       "a descriptor is two words of 8 bytes");

/* Entries that are read ahead, so that their descriptors and buffers come into the cache together. */
#define PD_SPLIT_BLOCK 32
/* The longest indirect table, in descriptors. */
#define PD_SPLIT_INDIRECT_MAX 32768

/* A descriptor in private memory. */
struct pd_split_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

/* --- indices and notification, either end ---------------------------------------------------- */

/*
 * Entries that the peer has published and we have not consumed, from a fresh load of its index
 * (`idx`: avail->idx for a device, used->idx for a driver). `most`: how many it can have published
 * at all. Returns the count or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int pd_split_peer_refresh(struct pd_vq *vq, const uint16_t *idx,
						  uint32_t most)
{
	uint16_t now = pd_load_acquire(idx); /* (P) */
	uint16_t n = now - vq->next;

	if (pd_unlikely(n > most))
		return pd_vq_break(vq, "the peer's index jumped");
	vq->peer_idx = now;
	return n;
}

/* Publish what is staged: one release store to our index at `idx`. */
static PD_ALWAYS_INLINE void pd_split_publish(struct pd_vq *vq, uint16_t *idx)
{
	vq->own_idx += vq->staged;
	vq->staged = 0;
	pd_store_release(idx, vq->own_idx); /* (P) */
	vq->counts.batches++;
}

/*
 * Does the peer want to be told of what was just published? `event`: where it says at which index
 * (EVENT_IDX), `flags`: where it says not at all (bit 0 at both ends). The first time after a
 * change of descriptor or link the answer is yes.
 */
static PD_ALWAYS_INLINE bool pd_split_must_notify(struct pd_vq *vq, const uint16_t *event,
						  const uint16_t *flags)
{
	uint16_t old = vq->signalled;
	bool first = !vq->signalled_valid;
	bool wanted;

	pd_fence_full(); /* (N) */
	vq->signalled = vq->own_idx;
	vq->signalled_valid = true;
	if (vq->event_idx)
		wanted = vring_need_event(pd_load_relaxed(event), vq->own_idx, old);
	else
		wanted = !(pd_load_relaxed(flags) & VRING_USED_F_NO_NOTIFY);
	wanted |= first;
	vq->counts.notified += wanted;
	return wanted;
}

/*
 * Ask the peer to notify when it publishes the entry `at`. `event`, `flags`: our words. The caller
 * looks at the index again afterwards.
 */
static PD_ALWAYS_INLINE void pd_split_ask(struct pd_vq *vq, uint16_t *event, uint16_t *flags,
					  uint16_t at)
{
	if (vq->event_idx)
		pd_store_relaxed(event, at);
	else if (!vq->armed)
		pd_store_relaxed(flags, 0);
	vq->armed = true;
	pd_fence_full(); /* (N) */
}

/* No notification needed. With EVENT_IDX the old event word does that by itself. */
static PD_ALWAYS_INLINE void pd_split_ask_not(struct pd_vq *vq, uint16_t *flags)
{
	if (!vq->event_idx && vq->armed)
		pd_store_relaxed(flags, VRING_USED_F_NO_NOTIFY);
	vq->armed = false;
}

/* The words of a ring by their role. */
static PD_ALWAYS_INLINE uint16_t *pd_split_used_event(const struct pd_vq *vq)
{
	return &vq->avail->ring[vq->mask + 1];
}
static PD_ALWAYS_INLINE uint16_t *pd_split_avail_event(const struct pd_vq *vq)
{
	return (uint16_t *)&vq->used->ring[vq->mask + 1];
}

/* --- the device: chains ---------------------------------------------------------------------- */

/* Read one descriptor; it stands at a multiple of 16. */
static PD_ALWAYS_INLINE struct pd_split_desc pd_split_desc_load(const struct vring_desc *d)
{
	uint64_t tail = pd_load_relaxed((const uint64_t *)(const void *)&d->len);

	return (struct pd_split_desc){
		.addr = pd_load_relaxed(&d->addr),
		.len = (uint32_t)tail,
		.flags = (uint16_t)(tail >> 32),
		.next = (uint16_t)(tail >> 48),
	};
}

/* Entries read ahead: heads, their first descriptors, and where those point. */
struct pd_split_block {
	unsigned n;
	unsigned at; /* the first that is not taken */
	uint16_t head[PD_SPLIT_BLOCK];
	/* Where the first descriptor's bytes stand, when it is plain: not indirect, in one region. */
	uint8_t *p[PD_SPLIT_BLOCK];
	struct pd_split_desc desc[PD_SPLIT_BLOCK];
};

/*
 * Read `n` (1 to PD_SPLIT_BLOCK) entries of the avail ring from `first` on. The peer has published
 * them. `write`: the buffers will be written. Returns 0 or -ENETDOWN for a head out of range.
 */
static PD_ALWAYS_INLINE int pd_split_block_load(struct pd_vq *vq, struct pd_split_block *b,
						uint16_t first, unsigned n, bool write)
{
	uint32_t bad = 0;

	b->n = n;
	b->at = 0;
	for (unsigned i = 0; i < n; i++) {
		uint16_t head = pd_load_relaxed(&vq->avail->ring[(uint16_t)(first + i) & vq->mask]);

		bad |= head > vq->mask;
		b->head[i] = head;
		__builtin_prefetch(&vq->desc[head & vq->mask]);
	}
	if (pd_unlikely(bad))
		return pd_vq_break(vq, "an avail entry names no descriptor");
	for (unsigned i = 0; i < n; i++) {
		struct pd_split_desc d = pd_split_desc_load(&vq->desc[b->head[i]]);
		uint64_t run = 0;
		uint8_t *p = pd_mem_at(vq->mem, &vq->mem_hint, d.addr, &run);

		b->desc[i] = d;
		if (pd_unlikely(d.len > run || d.flags & VRING_DESC_F_INDIRECT)) {
			b->p[i] = NULL;
			continue;
		}
		b->p[i] = p;
		if (write) {
			__builtin_prefetch(p, 1);
			__builtin_prefetch(p + 64, 1);
		} else {
			__builtin_prefetch(p);
			__builtin_prefetch(p + 64);
		}
	}
	return 0;
}

/* A walk along one chain, in runs of bytes. */
struct pd_split_walk {
	struct pd_split_desc desc; /* the one we are in */
	uint64_t addr;             /* what of it is left */
	uint32_t len;
	uint32_t left;    /* descriptors that may still follow */
	uint32_t walked;  /* descriptors read so far */
	uint32_t table_n; /* descriptors in the indirect table that we are in, or 0 */
	uint64_t table;   /* its address */
	bool open;        /* desc was checked; addr and len are what is left of it */
	bool write;       /* direction that every descriptor must have */
};

/* Start at the head, whose descriptor has been read to `first`. */
static PD_ALWAYS_INLINE void pd_split_walk_start(const struct pd_vq *vq, struct pd_split_walk *w,
						 const struct pd_split_desc *first, bool write)
{
	w->desc = *first;
	w->open = false;
	w->addr = 0;
	w->len = 0;
	w->left = vq->mask;
	w->walked = 1;
	w->table = 0;
	w->table_n = 0;
	w->write = write;
}

/* One run of a chain's bytes. */
struct pd_split_run {
	uint8_t *p;
	uint32_t len;
};

/*
 * The next run of at least one byte. Returns 1 with *run set; 0 at the end of the chain; -EFAULT
 * when a descriptor has the wrong direction or points outside the table (the chain is bad);
 * -ENETDOWN when the chain itself is broken.
 */
int pd_split_walk_next(struct pd_vq *vq, struct pd_split_walk *w, struct pd_split_run *run);

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

/* A used element in private memory. */
struct pd_split_used {
	uint32_t id;
	uint32_t len;
};

static PD_ALWAYS_INLINE struct pd_split_used pd_split_used_load(const struct pd_vq *vq, uint16_t at)
{
	const struct vring_used_elem *e = &vq->used->ring[at & vq->mask];

	return (struct pd_split_used){pd_load_relaxed(&e->id), pd_load_relaxed(&e->len)};
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

/* Stage one avail entry. */
static PD_ALWAYS_INLINE void pd_split_avail_stage(struct pd_vq *vq, uint16_t head)
{
	uint16_t *e = &vq->avail->ring[(uint16_t)(vq->own_idx + vq->staged) & vq->mask];

	if (pd_load_relaxed(e) != head)
		pd_store_relaxed(e, head);
	vq->slots[head].seq = vq->seq++;
	vq->staged++;
}

#endif /* PD_VIRTIO_SPLIT_H */
