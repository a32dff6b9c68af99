/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * In-flight tracking. See inflight.h.
 *
 * Positions are those of the queue's cursor: chains on a split ring, descriptors on a packed one.
 * Chains up to `done` are given back, those up to `taken` are noted in the region. A packed chain
 * is read for the note and again when its frame moves, and the driver may write in between; so a
 * batch is published only if it ends where a chain that was noted ends.
 *
 *   split    A chain is known by its head. Before the used index moves, the batch is strung on a
 *            list; when it has moved, each is struck out and the index is copied: a difference
 *            between the two says that the list may not be struck out yet. What an older device
 *            left is not in the available ring's order: heads up to `again_end` are taken from
 *            `heads` instead.
 *   packed   Used elements overwrite descriptors, so each descriptor is copied into an entry of the
 *            region; a chain is known by its first one. Entries that are free form a list. Every
 *            head of a list or index exists twice: `old_`, as of the last batch that is whole, and
 *            the one that the current batch moves. What an older device left is written back into
 *            the ring, whose slots between used and available are the device's; so nothing else
 *            differs.
 *
 * The order of stores is program order, which is what a process that is killed leaves behind on any
 * machine; releases keep the compiler to it.
 */
#include "virtio/inflight.h"

#include <stdlib.h>
#include <string.h>

#include "virtio/ring.h"

#define REGION_VERSION 1
/* Queue regions are this far aligned, as in every other implementation. */
#define ALIGNMENT 64u

struct split_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};
_Static_assert(sizeof(struct split_desc) == 16 && offsetof(struct split_desc, next) == 6, "layout");

struct split_region {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct split_desc desc[];
};
_Static_assert(sizeof(struct split_region) == 16 && offsetof(struct split_region, used_idx) == 14,
	       "layout");

struct packed_desc {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};
_Static_assert(sizeof(struct packed_desc) == 32 && offsetof(struct packed_desc, addr) == 24,
	       "layout");

struct packed_region {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	uint16_t used_idx;
	uint16_t old_used_idx;
	uint8_t used_wrap_counter;
	uint8_t old_used_wrap_counter;
	uint8_t padding[7];
	struct packed_desc desc[];
};
_Static_assert(sizeof(struct packed_region) == 32 &&
		       offsetof(struct packed_region, used_wrap_counter) == 20,
	       "layout");

/*
 * The header of a packed region without what aligns its entries: other implementations size regions
 * by it.
 */
#define PACKED_HEADER_BYTES (offsetof(struct packed_region, padding) + 7 + 8)

/* Packed: what we need of an entry for ourselves. */
struct entry {
	uint16_t next; /* of the free list, or of the chain */
	uint16_t last; /* of the first one of a chain */
	uint16_t num;
	bool known; /* while a region is read: in the free list or in a chain */
};

struct pd_inflight {
	union {
		struct split_region *split;
		struct packed_region *packed;
	};
	uint32_t desc_num;
	uint32_t mask; /* of `heads` */
	uint64_t counter;
	uint32_t n_again; /* entries that an older device left in flight */
	uint32_t again_end, done, taken;
	/* Split: heads by position. Packed: by slot, the entry of the chain that begins there. */
	uint16_t *heads;
	uint16_t last_batch; /* split: the head that was strung last */
	/* Packed. */
	uint16_t free_head, old_free_head;
	uint32_t n_long;           /* chains of several entries that are taken */
	struct pd_packed_place at; /* the slot of `done`, with the bits of a used descriptor */
	struct entry *entry;
	uint16_t *order; /* room for a head per slot */
};

static const char bad_state[] = "the in-flight region holds a state that is none";

/* A chain that was in flight. */
struct held {
	uint64_t counter;
	uint16_t head;
};

uint64_t pd_inflight_queue_bytes(uint32_t desc_num, bool packed)
{
	uint64_t bytes =
		packed ? PACKED_HEADER_BYTES + sizeof(struct packed_desc) * (uint64_t)desc_num
		       : sizeof(struct split_region) +
				 sizeof(struct split_desc) * (uint64_t)desc_num;

	return (bytes + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

void pd_inflight_free(struct pd_inflight *inf)
{
	if (!inf)
		return;
	free(inf->heads);
	free(inf->entry);
	free(inf->order);
	free(inf);
}

static int by_counter(const void *a, const void *b)
{
	const struct held *x = a, *y = b;

	if (x->counter != y->counter)
		return x->counter < y->counter ? -1 : 1;
	return x->head - y->head;
}

/* --- split: what an older device left -------------------------------------------------------- */

/*
 * The last batch of an older device: its `n` chains were given back. Returns NULL or what is wrong
 * with the region.
 */
static const char *split_strike_out(struct split_region *r, uint32_t desc_num, uint16_t n)
{
	uint16_t head = pd_load_relaxed(&r->last_batch_head);

	while (n--) {
		if (head >= desc_num)
			return "the in-flight region's last batch leaves the region";
		pd_store_relaxed(&r->desc[head].inflight, 0);
		head = pd_load_relaxed(&r->desc[head].next);
	}
	return NULL;
}

/*
 * Collect in held[] what is in flight, at most `most`, and count it in *n. Returns NULL or what is
 * wrong with the region.
 */
static const char *split_collect(const struct split_region *r, const struct pd_inflight *inf,
				 uint32_t size, uint32_t most, struct held *held, uint32_t *n)
{
	*n = 0;
	for (uint32_t i = 0; i < inf->desc_num; i++) {
		uint8_t state = pd_load_relaxed(&r->desc[i].inflight);

		if (!state)
			continue;
		if (state != 1)
			return bad_state;
		if (i >= size)
			return "the in-flight region names a descriptor beyond the ring";
		if (*n == most)
			return "more is in flight than the driver made available";
		held[(*n)++] = (struct held){pd_load_relaxed(&r->desc[i].counter), (uint16_t)i};
	}
	return NULL;
}

/* Take up a split ring's region. Returns NULL or why not. */
static const char *split_begin(struct pd_inflight *inf, const struct pd_vq_layout *layout,
			       struct held *held)
{
	struct split_region *r = inf->split;
	uint16_t used = pd_load_relaxed(&((struct vring_used *)layout->used)->idx);
	uint16_t open = pd_load_acquire(&((struct vring_avail *)layout->avail)->idx) - used;
	uint16_t batch = used - pd_load_relaxed(&r->used_idx);
	const char *why = NULL;

	/*
	 * Where the indices make no sense the ring begins at its base, and nothing can be in
	 * flight.
	 */
	if (open > layout->size)
		open = 0;
	if (batch && batch <= layout->size)
		why = split_strike_out(r, inf->desc_num, batch);
	if (!why)
		why = split_collect(r, inf, layout->size, open, held, &inf->n_again);
	if (why)
		return why;
	qsort(held, inf->n_again, sizeof(*held), by_counter);
	/* Counted anew from 0 they keep their order at every step. */
	for (uint32_t i = 0; i < inf->n_again; i++) {
		pd_store_release(&r->desc[held[i].head].counter, i);
		inf->heads[(used + i) & inf->mask] = held[i].head;
	}
	inf->counter = inf->n_again;
	pd_store_release(&r->used_idx, used);
	return NULL;
}

/* --- packed: what an older device left ------------------------------------------------------- */

/* The place of a used index and its wrap counter, for used descriptors. */
static struct pd_packed_place used_place(uint16_t slot, uint8_t wrap)
{
	return pd_packed_place(slot, wrap, true);
}

/*
 * A batch that began at `slot` in the lap of `wrap` was under way: was it published? Then commit
 * it, else it is rolled back.
 */
static void packed_end_batch(struct packed_region *r, const struct pd_vq_layout *layout,
			     uint16_t slot, uint8_t wrap)
{
	const struct vring_packed_desc *ring = layout->desc;
	uint16_t flags = pd_load_relaxed(&ring[slot].flags);

	if ((flags & PD_PACKED_BITS) != (wrap ? PD_PACKED_AVAIL : PD_PACKED_USED)) {
		pd_store_relaxed(&r->old_free_head, pd_load_relaxed(&r->free_head));
		pd_store_relaxed(&r->old_used_idx, pd_load_relaxed(&r->used_idx));
		pd_store_relaxed(&r->old_used_wrap_counter, pd_load_relaxed(&r->used_wrap_counter));
	}
}

/*
 * Read the list of free entries into ours, and strike them out. Returns NULL or what is wrong with
 * the region.
 */
static const char *packed_read_free(struct pd_inflight *inf, uint32_t *n_free)
{
	struct packed_region *r = inf->packed;
	uint16_t i = inf->free_head;

	for (*n_free = 0; i < inf->desc_num; (*n_free)++) {
		if (inf->entry[i].known)
			return "the in-flight region's free list is a loop";
		inf->entry[i].known = true;
		inf->entry[i].next = pd_load_relaxed(&r->desc[i].next);
		pd_store_relaxed(&r->desc[i].inflight, 0);
		i = inf->entry[i].next;
	}
	return NULL;
}

/*
 * Read the chain of entries that begins with `head` into ours, at most `most` of them. Returns NULL
 * or what is wrong with the region.
 */
static const char *packed_read_chain(struct pd_inflight *inf, uint16_t head, uint32_t most)
{
	const struct packed_desc *desc = inf->packed->desc;
	uint16_t num = pd_load_relaxed(&desc[head].num), i = head, last = head;

	if (!num || num > most)
		return "a chain in the in-flight region is longer than can be";
	for (uint32_t k = 0; k < num; k++) {
		if (i >= inf->desc_num)
			return "a chain leaves the in-flight region";
		if (inf->entry[i].known)
			return "an entry of the in-flight region is in two places";
		inf->entry[i].known = true;
		last = i;
		i = inf->entry[i].next = pd_load_relaxed(&desc[i].next);
	}
	inf->entry[head].num = num;
	inf->entry[head].last = last;
	inf->n_long += num > 1;
	return last == pd_load_relaxed(&desc[head].last)
		       ? NULL
		       : "a chain in the in-flight region does not end where it says";
}

/*
 * Collect in held[] what is in flight, and count its entries in inf->n_again. Returns NULL or what
 * is wrong with the region.
 */
static const char *packed_collect(struct pd_inflight *inf, uint32_t size, struct held *held,
				  uint32_t *n)
{
	const struct packed_desc *desc = inf->packed->desc;
	uint32_t n_free;
	const char *why = packed_read_free(inf, &n_free);

	*n = 0;
	for (uint32_t i = 0; !why && i < inf->desc_num; i++) {
		uint8_t state = pd_load_relaxed(&desc[i].inflight);

		if (!state)
			continue;
		if (state != 1)
			return bad_state;
		why = packed_read_chain(inf, (uint16_t)i, size - inf->n_again);
		inf->n_again += inf->entry[i].num;
		held[(*n)++] = (struct held){pd_load_relaxed(&desc[i].counter), (uint16_t)i};
	}
	if (!why && n_free + inf->n_again != inf->desc_num)
		why = "entries of the in-flight region are neither free nor in flight";
	return why;
}

/* Write the chains in flight back into the ring from `at` on, in the order of held[]. */
static void packed_write_back(struct pd_inflight *inf, const struct pd_vq_layout *layout,
			      struct pd_packed_place at, const struct held *held, uint32_t n)
{
	struct vring_packed_desc *ring = layout->desc;
	struct packed_desc *desc = inf->packed->desc;

	for (uint32_t c = 0; c < n; c++) {
		uint16_t i = held[c].head;

		inf->heads[at.slot] = i;
		pd_store_release(&desc[i].counter, c);
		for (uint32_t k = inf->entry[i].num; k; k--) {
			/* Where it ends is known, whatever its descriptors say. */
			uint16_t flags = (pd_load_relaxed(&desc[i].flags) & PD_PACKED_FLAGS &
					  ~VRING_DESC_F_NEXT) |
					 (k > 1 ? VRING_DESC_F_NEXT : 0);
			/* Of a used place's bits, those of an available one: USED turned round. */
			uint64_t word = pd_packed_word_make(pd_load_relaxed(&desc[i].len),
							    pd_load_relaxed(&desc[i].id),
							    flags | (at.bits ^ PD_PACKED_USED));

			pd_store_relaxed(&ring[at.slot].addr, pd_load_relaxed(&desc[i].addr));
			pd_store_relaxed((uint64_t *)(void *)&ring[at.slot].len, word);
			i = inf->entry[i].next;
			if (++at.slot == layout->size) {
				at.slot = 0;
				at.bits ^= PD_PACKED_BITS;
			}
		}
	}
}

/* Take up a packed ring's region. Returns NULL or why not. */
static const char *packed_begin(struct pd_inflight *inf, struct pd_vq_layout *layout,
				struct held *held)
{
	struct packed_region *r = inf->packed;
	uint16_t slot = pd_load_relaxed(&r->old_used_idx), base;
	uint8_t wrap = pd_load_relaxed(&r->old_used_wrap_counter);
	uint32_t n = 0;
	const char *why;

	if (slot >= layout->size || pd_load_relaxed(&r->used_idx) >= layout->size)
		return "the in-flight region's used index is beyond the ring";
	if (pd_load_relaxed(&r->used_wrap_counter) > 1 || wrap > 1)
		return "the in-flight region's wrap counter is none";
	if (pd_load_relaxed(&r->used_idx) != slot || pd_load_relaxed(&r->used_wrap_counter) != wrap)
		packed_end_batch(r, layout, slot, wrap);
	slot = pd_load_relaxed(&r->old_used_idx);
	wrap = pd_load_relaxed(&r->old_used_wrap_counter);
	if (slot >= layout->size || wrap > 1)
		return "the in-flight region changes while it is read";
	inf->free_head = inf->old_free_head = pd_load_relaxed(&r->old_free_head);
	why = packed_collect(inf, layout->size, held, &n);
	if (why)
		return why;
	qsort(held, n, sizeof(*held), by_counter);
	pd_store_relaxed(&r->free_head, inf->free_head);
	pd_store_relaxed(&r->used_idx, slot);
	pd_store_relaxed(&r->used_wrap_counter, wrap);
	inf->at = used_place(slot, wrap);
	packed_write_back(inf, layout, inf->at, held, n);
	inf->counter = n;
	base = (uint16_t)(slot | wrap << 15);
	/* A used half of 0 means that there is none, so the other half has to say it too. */
	layout->base = base | (uint32_t)base << 16;
	return NULL;
}

/* --- taking a region up ---------------------------------------------------------------------- */

/* Make a fresh region ready for the ring. */
static void region_init(struct pd_inflight *inf, const struct pd_vq_layout *layout, bool packed)
{
	uint16_t base = (uint16_t)(layout->base >> 16 ? layout->base >> 16 : layout->base);
	struct packed_region *r = inf->packed;

	memset(r, 0, pd_inflight_queue_bytes(inf->desc_num, packed));
	if (!packed) {
		inf->split->desc_num = (uint16_t)inf->desc_num;
		inf->split->used_idx = pd_load_relaxed(&((struct vring_used *)layout->used)->idx);
		pd_store_release(&inf->split->version, REGION_VERSION);
		return;
	}
	r->desc_num = (uint16_t)inf->desc_num;
	r->used_idx = r->old_used_idx = base & 0x7fff;
	r->used_wrap_counter = r->old_used_wrap_counter = base >> 15;
	for (uint32_t i = 0; i < inf->desc_num; i++)
		r->desc[i].next = (uint16_t)(i + 1);
	pd_store_release(&r->version, REGION_VERSION);
}

const char *pd_inflight_begin(struct pd_vq_layout *layout, void *region, uint32_t desc_num)
{
	const bool packed = pd_vq_is_packed(layout->features);
	struct pd_inflight *inf = calloc(1, sizeof(*inf));
	struct held *held = malloc(desc_num * sizeof(*held));
	const char *why = "no memory";
	uint16_t version, of;

	if (!inf || !held)
		goto end;
	inf->split = region;
	inf->desc_num = desc_num;
	inf->mask = packed ? UINT16_MAX : layout->size - 1;
	inf->heads = calloc(layout->size, sizeof(*inf->heads));
	inf->entry = calloc(desc_num, sizeof(*inf->entry));
	inf->order = malloc(layout->size * sizeof(*inf->order));
	if (!inf->heads || !inf->entry || !inf->order)
		goto end;
	version = pd_load_acquire(&inf->split->version);
	if (!version)
		region_init(inf, layout, packed);
	of = pd_load_relaxed(&inf->split->desc_num);
	if (version > REGION_VERSION)
		why = "an in-flight region of a version that is not known";
	else if (of != desc_num)
		why = "the in-flight region's number of descriptors is not what was said";
	else if (layout->size > desc_num)
		why = "the ring is larger than its in-flight region";
	else
		why = packed ? packed_begin(inf, layout, held) : split_begin(inf, layout, held);
end:
	free(held);
	if (why)
		pd_inflight_free(inf);
	else
		layout->inflight = inf;
	return why;
}

void pd_inflight_start(struct pd_vq *vq)
{
	struct pd_inflight *inf = vq->inflight;

	inf->done = vq->cursor;
	inf->taken = inf->again_end = vq->cursor + inf->n_again;
}

/* --- taking ---------------------------------------------------------------------------------- */

/* Split: the entries of `b` that were fetched. */
static void split_take(struct pd_vq *vq, struct pd_inflight *inf, struct pd_ring_block *b,
		       uint32_t pos, unsigned n, bool write)
{
	struct split_desc *const desc = inf->split->desc;
	const uint32_t mask = inf->mask, end = pos + n;
	uint16_t *const heads = inf->heads;
	struct pd_mem_region last = pd_mem_last(vq->mem, vq->mem_hint);
	uint64_t counter = inf->counter;
	unsigned i = 0;

	for (; i < n && (int32_t)(inf->again_end - (pos + i)) > 0; i++) {
		b->head[i] = heads[(pos + i) & mask];
		pd_ring_block_set(vq, b, i, &last, pd_split_desc_load(&vq->desc[b->head[i]]),
				  write);
	}
	for (i = (unsigned)pd_max((int32_t)(inf->taken - pos), 0); i < n; i++) {
		uint16_t head = b->head[i];

		heads[(pos + i) & mask] = head;
		pd_store_relaxed(&desc[head].counter, counter++);
		pd_store_release(&desc[head].inflight, 1);
	}
	inf->counter = counter;
	if ((int32_t)(end - inf->taken) > 0)
		inf->taken = end;
}

/* An entry's first word of eight bytes: of a chain's first entry, in flight. */
static uint64_t packed_word0(const struct entry *e)
{
	return 1 | (uint64_t)e->next << 16 | (uint64_t)e->last << 32 | (uint64_t)e->num << 48;
}

/* Its third word: what the descriptor says besides its address. */
static uint64_t packed_word2(uint16_t id, uint16_t flags, uint32_t len)
{
	return id | (uint64_t)flags << 16 | (uint64_t)len << 32;
}

/*
 * What was taken up to position `taken` is noted: the entries before `free_head` are not free any
 * more.
 */
static void packed_taken(struct pd_inflight *inf, uint32_t taken, uint16_t free_head)
{
	inf->taken = taken;
	inf->free_head = inf->old_free_head = free_head;
	pd_store_release(&inf->packed->free_head, free_head);
	pd_store_release(&inf->packed->old_free_head, free_head);
}

/*
 * Packed: descriptors of the ring that can be noted still. Those that are noted and not given back
 * are of one lap.
 */
static uint32_t packed_room(const struct pd_vq *vq, const struct pd_inflight *inf)
{
	return vq->size - (inf->taken - inf->done);
}

/*
 * Packed: note the chain that begins at the first position that is not taken, descriptor by
 * descriptor, as the block may end before it does. Returns false when it does not end in the ring:
 * it is none, and the walk will find that too, or packed_whole.
 */
static bool packed_take_chain(struct pd_vq *vq, struct pd_inflight *inf)
{
	struct packed_desc *const desc = inf->packed->desc;
	uint32_t ahead = inf->taken - vq->cursor, room = packed_room(vq, inf);
	uint16_t head = inf->old_free_head, i = head;
	struct pd_packed_place at = vq->theirs;
	struct entry *first = &inf->entry[head];
	uint64_t word;

	/* A slot that was not given back keeps its note: another chain cannot stand there. */
	if (!room || head >= inf->desc_num)
		return false;
	pd_packed_advance(vq, &at, ahead);
	inf->heads[at.slot] = head;
	first->num = 0;
	do {
		word = pd_load_acquire(pd_packed_word(vq, at.slot));
		if (!room-- || i >= inf->desc_num || !pd_packed_is(word, at))
			return false;
		first->last = i;
		first->num++;
		pd_store_relaxed(&desc[i].addr, pd_load_relaxed(&vq->packed_desc[at.slot].addr));
		pd_store_relaxed((uint64_t *)(void *)&desc[i].id,
				 packed_word2((uint16_t)(word >> 32), (uint16_t)(word >> 48),
					      (uint32_t)word));
		i = inf->entry[i].next;
		pd_packed_advance(vq, &at, 1);
		ahead++;
	} while (word >> 48 & VRING_DESC_F_NEXT);
	pd_store_relaxed(&desc[head].counter, inf->counter++);
	pd_store_relaxed((uint64_t *)(void *)&desc[head], packed_word0(first));
	inf->n_long += first->num > 1;
	packed_taken(inf, vq->cursor + ahead, i);
	return true;
}

/*
 * Packed: note the chains of one descriptor each that the block's entries from `k` on are, as far
 * as they are. Entry 0 of the block is at the position `pos`.
 */
static void packed_take_singles(const struct pd_vq *vq, struct pd_inflight *inf,
				const struct pd_ring_block *b, uint32_t pos, unsigned k, unsigned n)
{
	struct packed_desc *const desc = inf->packed->desc;
	struct pd_packed_place at = vq->theirs;
	uint16_t head = inf->old_free_head;
	uint64_t counter = inf->counter;

	n = pd_min(n, k + packed_room(vq, inf));
	pd_packed_advance(vq, &at, pos + k - vq->cursor);
	for (; k < n && !(b->desc[k].flags & VRING_DESC_F_NEXT) && head < inf->desc_num; k++) {
		const struct pd_ring_desc *d = &b->desc[k];
		struct entry *e = &inf->entry[head];

		inf->heads[at.slot] = head;
		e->last = head;
		e->num = 1;
		pd_store_relaxed((uint64_t *)(void *)&desc[head], packed_word0(e));
		pd_store_relaxed(&desc[head].counter, counter++);
		pd_store_relaxed((uint64_t *)(void *)&desc[head].id,
				 packed_word2(d->next, d->flags, d->len));
		pd_store_relaxed(&desc[head].addr, d->addr);
		head = e->next;
		pd_packed_advance(vq, &at, 1);
	}
	inf->counter = counter;
	packed_taken(inf, pos + k, head);
}

/*
 * Packed: the block's `n` descriptors, of which the first is at the position `pos`, and the rest of
 * the last one's chain.
 */
static void packed_take(struct pd_vq *vq, struct pd_inflight *inf, const struct pd_ring_block *b,
			uint32_t pos, unsigned n)
{
	while ((int32_t)(pos + n - inf->taken) > 0 && (int32_t)(inf->taken - pos) >= 0) {
		uint32_t before = inf->taken;

		packed_take_singles(vq, inf, b, pos, before - pos, n);
		if (inf->taken == before && !packed_take_chain(vq, inf))
			return;
	}
}

void pd_inflight_take(struct pd_vq *vq, struct pd_ring_block *b, uint32_t ahead, unsigned n,
		      bool write)
{
	struct pd_inflight *inf = vq->inflight;

	if (!inf)
		return;
	if (vq->packed)
		packed_take(vq, inf, b, vq->cursor + ahead, n);
	else
		split_take(vq, inf, b, vq->cursor + ahead, n, write);
}

/* --- giving back ----------------------------------------------------------------------------- */

/*
 * Packed: entries of the chain `head`, and the last of them. While there are chains of one entry
 * only none is looked at, so that the next chain's slot does not wait for this one's length.
 */
static PD_ALWAYS_INLINE uint16_t packed_num(const struct pd_inflight *inf, uint16_t head)
{
	return pd_likely(!inf->n_long) ? 1 : inf->entry[head].num;
}

static PD_ALWAYS_INLINE uint16_t packed_last(const struct pd_inflight *inf, uint16_t head)
{
	return pd_likely(!inf->n_long) ? head : inf->entry[head].last;
}

/*
 * Packed: the chain of entries `head` is free, in our copy and, but for the list's head, in the
 * region. Returns the list's head.
 */
static uint16_t packed_free(struct pd_inflight *inf, uint16_t head, uint16_t free_head)
{
	uint16_t last = packed_last(inf, head);

	inf->entry[last].next = free_head;
	pd_store_relaxed(&inf->packed->desc[last].next, free_head);
	return head;
}

/* Packed: the slot that is `n` behind `at`. */
static uint32_t slot_after(const struct pd_vq *vq, struct pd_packed_place at, uint32_t n)
{
	pd_packed_advance(vq, &at, n);
	return at.slot;
}

/* Split: string the batch. */
static void split_give(struct pd_inflight *inf, uint32_t n)
{
	struct split_desc *const desc = inf->split->desc;
	uint16_t before = inf->last_batch;

	for (uint32_t i = 0; i < n; i++) {
		uint16_t head = inf->heads[(inf->done + i) & inf->mask];

		pd_store_relaxed(&desc[head].next, before);
		before = head;
	}
	inf->last_batch = before;
	pd_store_release(&inf->split->last_batch_head, before);
}

/* Packed: put the batch into the free list, as the next state. */
static void packed_give(const struct pd_vq *vq, struct pd_inflight *inf, uint32_t n)
{
	struct pd_packed_place to = inf->at;
	uint16_t free_head = inf->free_head;

	for (uint32_t i = 0, num; i < n; i += num) {
		uint16_t head = inf->heads[to.slot];

		num = packed_num(inf, head);
		free_head = packed_free(inf, head, free_head);
		pd_packed_advance(vq, &to, num);
	}
	inf->free_head = free_head;
	pd_store_relaxed(&inf->packed->free_head, free_head);
	pd_store_relaxed(&inf->packed->used_wrap_counter, (uint8_t)(to.bits != 0));
	pd_store_release(&inf->packed->used_idx, (uint16_t)to.slot);
}

/* Packed: do the next `n` descriptors, which were noted, end where a chain of the notes does? */
static bool packed_whole(const struct pd_vq *vq, const struct pd_inflight *inf, uint32_t n)
{
	struct pd_packed_place at = inf->at;
	uint32_t i = inf->n_long ? 0 : n;

	while (i < n) {
		uint16_t num = packed_num(inf, inf->heads[at.slot]);

		if (!num) /* no chain was noted there */
			return false;
		i += num;
		pd_packed_advance(vq, &at, num);
	}
	return i == n;
}

int pd_inflight_give(struct pd_vq *vq, uint32_t n)
{
	struct pd_inflight *inf = vq->inflight;

	if (!inf)
		return 0;
	if (pd_unlikely(n > inf->taken - inf->done || (vq->packed && !packed_whole(vq, inf, n))))
		return pd_vq_break(vq, "a chain is not what it was when it was fetched");
	if (vq->packed)
		packed_give(vq, inf, n);
	else
		split_give(inf, n);
	return 0;
}

/* Split: strike out the batch. */
static void split_gave(const struct pd_vq *vq, struct pd_inflight *inf, uint32_t n)
{
	struct split_desc *const desc = inf->split->desc;
	const uint32_t done = inf->done;

	for (uint32_t i = 0; i < n; i++)
		pd_store_release(&desc[inf->heads[(done + i) & inf->mask]].inflight, 0);
	inf->done = done + n;
	pd_store_release(&inf->split->used_idx, vq->own_idx);
}

/* Packed: strike out the batch; the next state is the state. */
static void packed_gave(const struct pd_vq *vq, struct pd_inflight *inf, uint32_t n)
{
	struct packed_desc *const desc = inf->packed->desc;
	struct pd_packed_place at = inf->at;
	uint32_t n_long = 0;

	for (uint32_t i = 0, num; i < n; i += num) {
		uint16_t head = inf->heads[at.slot];

		num = packed_num(inf, head);
		n_long += num > 1;
		pd_store_release(&desc[head].inflight, 0);
		pd_packed_advance(vq, &at, num);
	}
	inf->n_long -= n_long;
	inf->done += n;
	inf->at = at;
	inf->old_free_head = inf->free_head;
	pd_store_release(&inf->packed->old_free_head, inf->free_head);
	/*
	 * In this order: the slot with the old counter is one that was given back, as the commit
	 * needs it.
	 */
	pd_store_release(&inf->packed->old_used_idx, (uint16_t)at.slot);
	pd_store_release(&inf->packed->old_used_wrap_counter, (uint8_t)(at.bits != 0));
}

void pd_inflight_gave(struct pd_vq *vq, uint32_t n)
{
	struct pd_inflight *inf = vq->inflight;

	if (!inf)
		return;
	if (vq->packed)
		packed_gave(vq, inf, n);
	else
		split_gave(vq, inf, n);
}

/* --- stopping -------------------------------------------------------------------------------- */

/* Split: strike out what was taken from position `from` on. */
static void split_untake(struct pd_inflight *inf, uint32_t from)
{
	while (inf->taken != from)
		pd_store_release(&inf->split->desc[inf->heads[--inf->taken & inf->mask]].inflight,
				 0);
}

/* The same on a packed ring. A head is in the free list before it is struck out. */
static void packed_untake(struct pd_vq *vq, struct pd_inflight *inf, uint32_t from)
{
	struct packed_region *r = inf->packed;
	uint32_t n = 0;

	for (uint32_t pos = from; pos != inf->taken; n++) {
		inf->order[n] = inf->heads[slot_after(vq, inf->at, pos - inf->done)];
		pos += packed_num(inf, inf->order[n]);
	}
	inf->free_head = inf->old_free_head;
	while (n--) {
		uint16_t head = inf->order[n];

		inf->free_head = packed_free(inf, head, inf->free_head);
		pd_store_release(&r->old_free_head, head);
		pd_store_release(&r->desc[head].inflight, 0);
	}
	pd_store_release(&r->free_head, inf->free_head);
}

void pd_inflight_stop(struct pd_vq *vq)
{
	struct pd_inflight *inf = vq->inflight;
	uint32_t from;

	if (!inf)
		return;
	/*
	 * What an older device left stays in flight until it is given back. The last goes first:
	 * what remains is always the beginning.
	 */
	from = (int32_t)(inf->again_end - inf->done) > 0 ? inf->again_end : inf->done;
	if (vq->packed)
		packed_untake(vq, inf, from);
	else
		split_untake(inf, from);
	pd_inflight_free(inf);
	vq->inflight = NULL;
	pd_watch_update(vq);
}
