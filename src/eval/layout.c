/* SPDX-License-Identifier: BSD-2-Clause */
/* The layout of mode stripped, made from the options. */
#include "layout.h"

#include <inttypes.h>

#define PART 128 /* where parts begin */

/* `n` rounded up to a multiple of `unit`. */
static uint64_t up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* Put a part of `bytes` at the end. Returns where it is. */
static uint64_t place(struct ev_layout *l, uint64_t bytes, uint64_t unit)
{
	uint64_t at = up(l->bytes, unit > PART ? unit : PART);

	l->bytes = at + bytes;
	return at;
}

/* Lay out the metadata of one side; the buffers and the rings have their place. */
static void metadata(struct ev_layout *l, const struct ev_options *o, enum ev_side side,
		     enum ev_place where)
{
	struct ev_metadata *m = &l->metadata[side];
	uint64_t size = o->metadata_size, entries = o->buffers;

	*m = (struct ev_metadata){.place = where, .stride = up(size, o->align), .group = 1};
	m->by_number = where == EV_PLACE_REUSED || where == EV_PLACE_RING;
	switch (where) {
	case EV_PLACE_BUFFER:
		m->base = l->buffers;
		m->stride = l->buffer_bytes;
		break;
	case EV_PLACE_RING:
		entries = o->ring;
		m->base = l->ring[side == EV_HOST_SIDE ? EV_RX_TO_NF : EV_NF_TO_TX].slots +
			  o->descriptor;
		m->stride = l->slot_bytes;
		break;
	case EV_PLACE_AGGREGATED:
		m->group = (uint32_t)o->aggregation;
		m->within = size;
		m->stride = up(m->group * size, o->align);
		m->base = place(l, up(entries, m->group) / m->group * m->stride, o->align);
		break;
	default:
		if (where == EV_PLACE_REUSED)
			entries = o->metadata_entries;
		m->base = place(l, entries * m->stride, o->align);
	}
	m->mask = (uint32_t)entries - 1;
}

void ev_layout_make(struct ev_layout *l, const struct ev_options *o)
{
	bool host_is_same = o->host_metadata_place == EV_PLACE_SAME;
	enum ev_place nf = (enum ev_place)o->metadata_place,
		      host = host_is_same ? nf : (enum ev_place)o->host_metadata_place;
	bool has = o->metadata_size != 0;
	uint64_t in_buffer =
		has && (nf == EV_PLACE_BUFFER || host == EV_PLACE_BUFFER) ? o->metadata_size : 0;
	uint64_t in_ring =
		has && (nf == EV_PLACE_RING || host == EV_PLACE_RING) ? o->metadata_size : 0;
	uint64_t stamps = 1;

	*l = (struct ev_layout){.window = UINT64_MAX};
	l->ring_mask = (uint32_t)o->ring - 1;
	l->slot_bytes = (uint32_t)up(o->descriptor + in_ring, 8);
	for (int hop = 0; hop < EV_HOPS; hop++) {
		l->ring[hop].produced = place(l, 8, PART);
		l->ring[hop].consumed = place(l, 8, PART);
		l->ring[hop].slots = place(l, o->ring * l->slot_bytes, PART);
	}
	l->header_at = (uint32_t)(in_buffer + o->headroom) - (o->header ? EV_HEADER_BYTES : 0);
	l->packet_at = (uint32_t)(in_buffer + o->headroom);
	l->buffer_bytes = (uint32_t)up(l->packet_at + o->dataroom, o->align);
	l->buffer_mask = (uint32_t)o->buffers - 1;
	l->buffers = place(l, o->buffers * l->buffer_bytes, o->align);
	l->same_metadata = nf == host && nf != EV_PLACE_RING;
	if (has) {
		metadata(l, o, EV_NF_SIDE, nf);
		if (l->same_metadata)
			l->metadata[EV_HOST_SIDE] = l->metadata[EV_NF_SIDE];
		else
			metadata(l, o, EV_HOST_SIDE, host);
		if (nf == EV_PLACE_REUSED || host == EV_PLACE_REUSED)
			l->window = o->metadata_entries;
	}
	/* Both rings, and a batch that rx tries in vain. */
	while (o->latency && stamps < 4 * o->ring)
		stamps <<= 1;
	l->stamp_mask = (uint32_t)stamps - 1;
	l->stamps = place(l, 8 * stamps, PART);
	l->bytes = up(l->bytes, PART);
}

/* One side's metadata, under the name of the side. */
static void print_metadata(const struct ev_layout *l, enum ev_side side, const char *name,
			   FILE *out)
{
	const struct ev_metadata *m = &l->metadata[side];

	fprintf(out, "%s_metadata_place=%s\n", name, ev_place_words[m->place]);
	fprintf(out, "%s_metadata_entries=%" PRIu32 "\n", name, m->mask + 1);
	fprintf(out, "%s_metadata_group=%" PRIu32 "\n", name, m->group);
	for (uint64_t n = 0; n < 3; n++)
		fprintf(out, "%s_metadata_of_packet_%d=%" PRIuPTR "\n", name, (int)n,
			(uintptr_t)ev_metadata_at(m, NULL, n, (uint32_t)n & l->buffer_mask));
}

void ev_layout_print(const struct ev_layout *l, const struct ev_options *o, FILE *out)
{
	static const char *const hops[EV_HOPS] = {"rx_to_nf", "nf_to_tx"};

	fprintf(out, "bytes=%" PRIu64 "\n", l->bytes);
	for (int hop = 0; hop < EV_HOPS; hop++) {
		fprintf(out, "%s_produced=%" PRIu64 "\n", hops[hop], l->ring[hop].produced);
		fprintf(out, "%s_consumed=%" PRIu64 "\n", hops[hop], l->ring[hop].consumed);
		fprintf(out, "%s_slots=%" PRIu64 "\n", hops[hop], l->ring[hop].slots);
	}
	fprintf(out, "slots=%" PRIu32 "\n", l->ring_mask + 1);
	fprintf(out, "slot_bytes=%" PRIu32 "\n", l->slot_bytes);
	fprintf(out, "descriptor_bytes=%" PRIu64 "\n", o->descriptor);
	fprintf(out, "buffers=%" PRIu64 "\n", l->buffers);
	fprintf(out, "buffer_count=%" PRIu32 "\n", l->buffer_mask + 1);
	fprintf(out, "buffer_bytes=%" PRIu32 "\n", l->buffer_bytes);
	if (o->header)
		fprintf(out, "header_at=%" PRIu32 "\n", l->header_at);
	fprintf(out, "packet_at=%" PRIu32 "\n", l->packet_at);
	if (!o->metadata_size)
		return;
	print_metadata(l, EV_NF_SIDE, "nf", out);
	print_metadata(l, EV_HOST_SIDE, "host", out);
	fprintf(out, "metadata_copied=%s\n", l->same_metadata ? "no" : "yes");
	if (l->window != UINT64_MAX)
		fprintf(out, "window=%" PRIu64 "\n", l->window);
}
