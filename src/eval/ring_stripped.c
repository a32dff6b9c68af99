/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mode stripped: two rings of descriptors in shared memory, each with one producer and one
 * consumer, and nothing that vhost-user and virtio have besides: no negotiation, no features, no
 * notifications, no checks of what the other end wrote.
 *
 * A producer publishes a batch by one store of its count; a consumer gives the slots back by
 * another. Each end reads the other's count only when what it saw last is used up. nf publishes a
 * batch before it gives its slots back, so a packet is always in one of the rings, and its buffer
 * is free again when twice the ring have followed it.
 *
 * A count is stored with release by one end and loaded with acquire by the other (take, room): what
 * was written to descriptors, buffers and metadata before is seen.
 */
#include <errno.h>
#include <stdlib.h>

#include "nf_plugin.h"
#include "roles.h"
#include "virtio/copy.h"

#define COPIES 32 /* packets that tx copies before it looks at them */

/* What stands in a slot. Descriptors of 8 bytes end before `number`; others are longer. */
struct descriptor {
	uint32_t buffer;
	uint16_t len;
	uint16_t tag; /* the low bits of the packet's number */
	uint64_t number;
};
_Static_assert(offsetof(struct descriptor, number) == 8, "descriptors of 8 bytes end there");

/* virtio-net's header, as far as it is looked at. */
struct header {
	uint8_t unused[10];
	uint16_t buffers; /* 1 on the way to nf, 0 from there */
};
_Static_assert(sizeof(struct header) == EV_HEADER_BYTES, "as virtio-net's");

/*
 * What a step needs of the options and the layout for each packet, in locals of its own: the
 * compiler would load it again after every store to shared memory.
 */
struct hot {
	uint8_t *area, *buffers, *in, *out;
	struct ev_metadata metadata[EV_SIDES];
	uint32_t ring_mask, slot_bytes, buffer_mask, buffer_bytes, packet_at, header_at;
	uint32_t size, metadata_size;
	bool wide, header, copy, check, same_metadata, numbered;
	struct ev_nf_place *place;
};

/* Fill it in. */
static PD_ALWAYS_INLINE struct hot hot_of(const struct ev_role *r)
{
	const struct ev_layout *l = r->l;

	return (struct hot){
		.area = r->area,
		.buffers = r->area + l->buffers,
		.in = r->in.slots,
		.out = r->out.slots,
		.metadata = {l->metadata[0], l->metadata[1]},
		.ring_mask = l->ring_mask,
		.slot_bytes = l->slot_bytes,
		.buffer_mask = l->buffer_mask,
		.buffer_bytes = l->buffer_bytes,
		.packet_at = l->packet_at,
		.header_at = l->header_at,
		.size = r->patterns.size,
		.metadata_size = r->patterns.metadata_size,
		.wide = r->o->descriptor > 8,
		.header = r->o->header,
		.copy = r->id == EV_RX ? r->o->copy_rx : r->o->copy_tx,
		.check = r->o->check,
		.numbered = r->o->copy_rx,
		.same_metadata = l->same_metadata,
		.place = r->place,
	};
}

/* Write the descriptor of packet `n` into its slot. */
static PD_ALWAYS_INLINE void put(const struct hot *h, uint64_t n, uint32_t buffer, uint32_t len)
{
	struct descriptor d = {buffer, (uint16_t)len, (uint16_t)n, n};
	uint8_t *at = h->out + (n & h->ring_mask) * (uint64_t)h->slot_bytes;

	memcpy(at, &d, 8);
	if (h->wide)
		memcpy(at + 8, &d.number, 8);
}

/* Read it. */
static PD_ALWAYS_INLINE struct descriptor get(const struct hot *h, uint64_t n)
{
	struct descriptor d = {.number = n};
	const uint8_t *at = h->in + (n & h->ring_mask) * (uint64_t)h->slot_bytes;

	memcpy(&d, at, 8);
	if (h->wide)
		memcpy(&d.number, at + 8, 8);
	return d;
}

/* Where buffer `b` begins. */
static PD_ALWAYS_INLINE uint8_t *buffer_at(const struct hot *h, uint32_t b)
{
	return h->buffers + (uint64_t)(b & h->buffer_mask) * h->buffer_bytes;
}

/* The metadata of packet `n` in buffer `b` at a side. */
static PD_ALWAYS_INLINE uint8_t *metadata_at(const struct hot *h, enum ev_side side, uint64_t n,
					     uint32_t b)
{
	return ev_metadata_at(&h->metadata[side], h->area, n, b & h->buffer_mask);
}

/* How many descriptors there are to take, up to `want`. */
static PD_ALWAYS_INLINE unsigned take(struct ev_role *r, unsigned want)
{
	if (r->in.seen - r->n < want)
		r->in.seen = pd_load_acquire(r->in.others);
	return (unsigned)pd_min(r->in.seen - r->n, (uint64_t)want);
}

/* How many slots there are to fill, up to `want`. */
static PD_ALWAYS_INLINE unsigned room(struct ev_role *r, unsigned want)
{
	uint64_t size = r->l->ring_mask + 1ull;

	if (r->out.seen + size - r->n < want)
		r->out.seen = pd_load_acquire(r->out.others);
	return (unsigned)pd_min(r->out.seen + size - r->n, (uint64_t)want);
}

/* Where metadata entries are few: how many packets may be under way more, up to `want`. */
static PD_ALWAYS_INLINE unsigned window(struct ev_role *r, unsigned want)
{
	if (r->window_seen + r->l->window - r->n < want)
		r->window_seen = pd_load_acquire(r->window_end);
	return (unsigned)pd_min(r->window_seen + r->l->window - r->n, (uint64_t)want);
}

/* --- rx -------------------------------------------------------------------------------------- */

/* Put packet `n` where it belongs. */
static PD_ALWAYS_INLINE void generate(struct ev_role *r, const struct hot *h, uint64_t n)
{
	uint32_t b = (uint32_t)n & h->buffer_mask;
	uint8_t *at = buffer_at(h, b);

	if (h->copy)
		ev_packet_copy(&r->patterns, at + h->packet_at, n);
	if (h->header)
		memcpy(at + h->header_at, &(struct header){.buffers = 1}, EV_HEADER_BYTES);
	if (h->metadata_size)
		ev_metadata_make(&r->patterns, metadata_at(h, EV_HOST_SIDE, n, b), n);
	put(h, n, b, h->size);
}

/* Generate a batch. It waits for room for all of it: parts would cost as much as the whole. */
static unsigned step_rx(struct ev_role *r)
{
	const struct hot h = hot_of(r);
	const uint64_t first = r->n;
	unsigned n = ev_wanted(r);

	if (room(r, n) < n || (r->window_end && window(r, n) < n))
		return 0;
	if (r->stamps)
		ev_stamp(r, first, n);
	for (unsigned i = 0; i < n; i++)
		generate(r, &h, first + i);
	pd_store_release(r->out.own, first + n); /* pairs with take at nf */
	return n;
}

/* --- nf -------------------------------------------------------------------------------------- */

/* Fetch what nf will touch of a packet. */
static PD_ALWAYS_INLINE void fetch(const struct hot *h, const struct ev_nf *nf,
				   const uint8_t *buffer, uint64_t n, uint32_t b)
{
	if (h->header)
		__builtin_prefetch(buffer + h->header_at, 1);
	if (nf->touches)
		__builtin_prefetch(buffer + h->packet_at, 1);
	if (h->metadata_size)
		__builtin_prefetch(metadata_at(h, EV_HOST_SIDE, n, b), 1);
}

/* The metadata of packet `n` as nf leaves it. */
static PD_ALWAYS_INLINE void pass_metadata(const struct hot *h, uint64_t n, uint32_t b)
{
	uint8_t *m = metadata_at(h, EV_NF_SIDE, n, b);

	if (!h->same_metadata)
		pd_copy(m, metadata_at(h, EV_HOST_SIDE, n, b), h->metadata_size);
	ev_metadata_mark(m, h->metadata_size);
}

/* The header of packet `n` as nf leaves it. */
static PD_ALWAYS_INLINE void pass_header(struct ev_role *r, uint8_t *header, uint64_t n)
{
	struct header was;

	memcpy(&was, header, sizeof(was));
	if (pd_unlikely(was.buffers != 1))
		ev_tally_add(&r->told->tally, &r->told->tally.header, n);
	was.buffers = 0;
	memcpy(header, &was, sizeof(was));
}

/* Let the function work on `n` packets. */
static void work(struct ev_role *r, const struct ev_nf *nf, const struct hot *h,
		 const struct descriptor *d, unsigned n)
{
	uint8_t *packets[EV_BATCH_MAX];
	uint32_t lens[EV_BATCH_MAX];

	for (unsigned i = 0; i < n; i++) {
		packets[i] = buffer_at(h, d[i].buffer) + h->packet_at;
		lens[i] = d[i].len;
	}
	if (r->place)
		ev_nf_place_work_bytes(r->place, &r->told->tally, r->n, packets, lens, n);
	nf->work(&r->told->nf, packets, lens, n);
}

/* Forward what is there, up to a batch. */
static unsigned step_nf(struct ev_role *r)
{
	const struct ev_nf *nf = ev_nf_get(r->o->nf);
	const uint64_t first = r->n;
	struct descriptor d[EV_BATCH_MAX];
	unsigned n = room(r, take(r, ev_wanted(r)));
	struct hot h;

	if (!n)
		return 0;
	h = hot_of(r);
	for (unsigned i = 0; i < n; i++) {
		d[i] = get(&h, first + i);
		fetch(&h, nf, buffer_at(&h, d[i].buffer), first + i, d[i].buffer);
	}
	for (unsigned i = 0; i < n; i++) {
		if (h.header)
			pass_header(r, buffer_at(&h, d[i].buffer) + h.header_at, first + i);
		if (h.metadata_size)
			pass_metadata(&h, d[i].number, d[i].buffer);
	}
	if (nf->work)
		work(r, nf, &h, d, n);
	for (unsigned i = 0; i < n; i++)
		put(&h, first + i, d[i].buffer, d[i].len);
	pd_store_release(r->out.own, first + n); /* pairs with take at tx */
	pd_store_release(r->in.own, first + n);  /* pairs with room at rx */
	return n;
}

/* --- tx -------------------------------------------------------------------------------------- */

/* Whether descriptor, header and metadata of packet `n` are right. */
static PD_ALWAYS_INLINE void check_around(struct ev_role *r, const struct hot *h,
					  const struct descriptor *d, uint64_t n,
					  const uint8_t *buffer)
{
	static const struct header none;
	struct ev_tally *t = &r->told->tally;

	if (pd_unlikely(d->buffer != ((uint32_t)n & h->buffer_mask) || d->tag != (uint16_t)n ||
			d->number != n))
		ev_tally_add(t, &t->descriptor, n);
	if (h->header &&
	    pd_unlikely(!ev_same_few(buffer + h->header_at, (const uint8_t *)&none, sizeof(none))))
		ev_tally_add(t, &t->header, n);
	if (h->metadata_size &&
	    pd_unlikely(!ev_metadata_right(&r->patterns,
					   metadata_at(h, EV_NF_SIDE, d->number, d->buffer), n)))
		ev_tally_add(t, &t->metadata, n);
}

/*
 * Consume `n` packets from number `first` on, at most COPIES. All are copied before any is looked
 * at: the core would wait for each copy to be stored.
 */
static PD_ALWAYS_INLINE void consume(struct ev_role *r, const struct hot *h, uint64_t first,
				     unsigned n)
{
	const uint8_t *buffers[COPIES], *packets[COPIES];
	struct descriptor d[COPIES];

	for (unsigned i = 0; i < n; i++) {
		d[i] = get(h, first + i);
		buffers[i] = buffer_at(h, d[i].buffer);
		packets[i] = buffers[i] + h->packet_at;
		if (h->copy) {
			uint8_t *copy = r->copies + i * r->patterns.stride;

			pd_copy(copy, packets[i], pd_min((uint32_t)d[i].len, h->size));
			packets[i] = copy;
		}
	}
	for (unsigned i = 0; h->check && i < n; i++) {
		/* A packet that was never copied has the number of its buffer. */
		uint64_t number = h->numbered ? first + i : (first + i) & h->buffer_mask;

		if (pd_unlikely(h->place))
			ev_nf_place_check(h->place, &r->patterns, &r->told->tally, number,
					  packets[i], d[i].len, NULL);
		else
			ev_packet_check(&r->patterns, &r->told->tally, number, packets[i],
					d[i].len);
		check_around(r, h, &d[i], first + i, buffers[i]);
	}
}

/* Consume what is there, up to a batch. */
static unsigned step_tx(struct ev_role *r)
{
	const uint64_t first = r->n;
	unsigned n = take(r, ev_wanted(r));
	struct hot h;

	if (!n)
		return 0;
	h = hot_of(r);
	if (h.check && h.metadata_size)
		for (unsigned i = 0; i < n; i++)
			__builtin_prefetch(
				metadata_at(&h, EV_NF_SIDE, first + i, (uint32_t)(first + i)));
	for (unsigned i = 0; i < n; i += COPIES)
		consume(r, &h, first + i, pd_min(n - i, (unsigned)COPIES));
	pd_store_release(r->in.own, first + n); /* pairs with room at nf, and window at rx */
	if (r->stamps)
		ev_stamp_read(r, first, n);
	return n;
}

/* --- setting up ------------------------------------------------------------------------------ */

/* The end of hop `hop` at which counts of kind `own` are written. */
static struct ev_end end_of(const struct ev_role *r, enum ev_hop hop, bool produces)
{
	uint64_t *produced = (uint64_t *)(r->area + r->l->ring[hop].produced),
		 *consumed = (uint64_t *)(r->area + r->l->ring[hop].consumed);

	return (struct ev_end){.own = produces ? produced : consumed,
			       .others = produces ? consumed : produced,
			       .slots = r->area + r->l->ring[hop].slots};
}

/* Without copies at rx: all buffers hold their packets from the start. */
static void fill_buffers(struct ev_role *r)
{
	const struct hot h = hot_of(r);

	for (uint64_t b = 0; b <= h.buffer_mask; b++)
		ev_packet_copy(&r->patterns, buffer_at(&h, (uint32_t)b) + h.packet_at, b);
}

int ev_stripped_role(struct ev_role *r)
{
	static const ev_step steps[EV_ROLES] = {step_rx, step_nf, step_tx};
	int err = ev_role_prepare(r, steps[r->id], (uint32_t)r->o->metadata_size);

	if (err)
		return err;
	if (r->id != EV_TX)
		r->out = end_of(r, r->id == EV_RX ? EV_RX_TO_NF : EV_NF_TO_TX, true);
	if (r->id != EV_RX)
		r->in = end_of(r, r->id == EV_TX ? EV_NF_TO_TX : EV_RX_TO_NF, false);
	if (r->id == EV_RX && r->l->window != UINT64_MAX)
		r->window_end = (uint64_t *)(r->area + r->l->ring[EV_NF_TO_TX].consumed);
	if (r->id == EV_RX && !r->o->copy_rx)
		fill_buffers(r);
	if (r->id == EV_TX) {
		r->copies = aligned_alloc(64, (size_t)r->patterns.stride * COPIES);
		if (!r->copies)
			return -ENOMEM;
	}
	return 0;
}
