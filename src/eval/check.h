/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What packets and metadata hold, and whether what came is that.
 *
 * A packet has an Ethernet header, its number, and bytes that follow from the last three bits of
 * the number: there are EV_PATTERNS different bodies. Metadata has the number, the length and the
 * mark of nf, as far as there is room, and bytes that follow from their place.
 */
#ifndef EVAL_CHECK_H
#define EVAL_CHECK_H

#include <string.h>

#include "nf.h"
#include "options.h"
#include "virtio/copy.h"

#define EV_PATTERNS 8
#define EV_NUMBER_AT 14 /* behind the Ethernet header */
#define EV_BODY_AT 22
#define EV_SIZE_MAX 12240
#define EV_METADATA_MAX 256
#define EV_MARK_AT 12
/* Where a sidecar has the packet's number: eight bytes that no flag gives a meaning to. */
#define EV_SIDECAR_NUMBER_AT 11
#define EV_MARKED 0x4e46u /* what nf writes there */

/* Packets that wait for their number, or the ones that are expected. */
struct ev_patterns {
	uint32_t size, stride;
	uint8_t *bytes;    /* EV_PATTERNS of them */
	uint64_t head_end; /* the eight bytes in front of the number, which all have */
	uint32_t metadata_size;
	uint8_t metadata[EV_METADATA_MAX] PD_ALIGNED(16);
	uint8_t marked[EV_METADATA_MAX] PD_ALIGNED(16); /* the same as nf leaves it */
};

/* What was wrong with packets, by kind. */
struct ev_tally {
	uint64_t contents, length, order, metadata, header, descriptor;
	uint64_t dropped; /* by nf, which passes them on all the same */
	uint64_t first;   /* number of the first packet with which something was */
};

/*
 * Make packets of `size` bytes and metadata. `swapped`: with the MAC addresses exchanged. Returns 0
 * or -ENOMEM.
 */
int ev_patterns_make(struct ev_patterns *p, uint32_t size, uint32_t metadata_size, bool swapped);

/* Free them. */
void ev_patterns_free(struct ev_patterns *p);

/* How many faults there were. */
uint64_t ev_tally_sum(const struct ev_tally *t);

/* Count one of kind `kind`, a member of the tally `t`, at packet `n`. */
void ev_tally_add(struct ev_tally *t, uint64_t *kind, uint64_t n) PD_COLD;

/* Make packet `n` at `at`: its pattern is copied there. */
static PD_ALWAYS_INLINE void ev_packet_copy(const struct ev_patterns *p, uint8_t *at, uint64_t n)
{
	pd_copy(at, p->bytes + (n % EV_PATTERNS) * p->stride, p->size);
	memcpy(at + EV_NUMBER_AT, &n, sizeof(n));
}

/* The same in private memory, for what is copied later. Returns it. */
static PD_ALWAYS_INLINE uint8_t *ev_packet_make(struct ev_patterns *p, uint64_t n)
{
	uint8_t *packet = p->bytes + (n % EV_PATTERNS) * p->stride;

	memcpy(packet + EV_NUMBER_AT, &n, sizeof(n));
	return packet;
}

/* Sixteen bytes in one register. */
typedef uint64_t ev_vector __attribute__((vector_size(16)));

/* What differs between sixteen bytes at `a` and `b`. */
static PD_ALWAYS_INLINE ev_vector ev_differ(const uint8_t *a, const uint8_t *b)
{
	ev_vector x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return x ^ y;
}

/* Whether `n` bytes, which are not many, are the same. The last sixteen overlap others. */
static PD_ALWAYS_INLINE bool ev_same_few(const uint8_t *a, const uint8_t *b, uint32_t n)
{
	ev_vector differ;

	if (n < 16) {
		uint8_t any = 0;

		while (n--)
			any |= *a++ ^ *b++;
		return !any;
	}
	differ = ev_differ(a + n - 16, b + n - 16);
	for (; n > 16; n -= 16, a += 16, b += 16)
		differ |= ev_differ(a, b);
	return !(differ[0] | differ[1]);
}

/* Whether `n` bytes are the same. */
static PD_ALWAYS_INLINE bool ev_same(const uint8_t *a, const uint8_t *b, uint32_t n)
{
	return n > 256 ? !memcmp(a, b, n) : ev_same_few(a, b, n);
}

/* Whether eight bytes are the number `n`. */
static PD_ALWAYS_INLINE bool ev_is_number(const uint8_t *at, uint64_t n)
{
	uint64_t number;

	memcpy(&number, at, sizeof(number));
	return number == n;
}

/* Compare a packet of `len` bytes with number `n`, which should come. */
static PD_ALWAYS_INLINE void ev_packet_check(struct ev_patterns *p, struct ev_tally *t, uint64_t n,
					     const uint8_t *packet, uint32_t len)
{
	const uint8_t *expected = p->bytes + (n % EV_PATTERNS) * p->stride;
	uint64_t head, same_head;

	if (pd_unlikely(len != p->size)) {
		ev_tally_add(t, &t->length, n);
		return;
	}
	if (pd_unlikely(!ev_is_number(packet + EV_NUMBER_AT, n))) {
		ev_tally_add(t, &t->order, n);
		return;
	}
	/* The fourteen bytes in front of the number as two times eight. */
	memcpy(&head, packet, sizeof(head));
	memcpy(&same_head, expected, sizeof(head));
	if (pd_unlikely(head != same_head ||
			!ev_is_number(packet + EV_NUMBER_AT - 8, p->head_end) ||
			!ev_same(packet + EV_BODY_AT, expected + EV_BODY_AT, len - EV_BODY_AT)))
		ev_tally_add(t, &t->contents, n);
}

/* Make metadata of packet `n` at `m`. */
static PD_ALWAYS_INLINE void ev_metadata_make(const struct ev_patterns *p, uint8_t *m, uint64_t n)
{
	pd_copy(m, p->metadata, p->metadata_size);
	if (pd_likely(p->metadata_size >= sizeof(n)))
		memcpy(m, &n, sizeof(n));
	else
		memcpy(m, &n, p->metadata_size);
}

/* What nf leaves in metadata of `size` bytes. */
static PD_ALWAYS_INLINE void ev_metadata_mark(uint8_t *m, uint32_t size)
{
	const uint32_t mark = EV_MARKED;

	if (size >= EV_MARK_AT + sizeof(mark))
		memcpy(m + EV_MARK_AT, &mark, sizeof(mark));
}

/* Whether the metadata at `m` is that of packet `n`, marked by nf. */
static PD_ALWAYS_INLINE bool ev_metadata_right(const struct ev_patterns *p, const uint8_t *m,
					       uint64_t n)
{
	const uint32_t size = p->metadata_size;

	if (pd_unlikely(size < sizeof(n)))
		return ev_same_few(m, (const uint8_t *)&n, size);
	return ev_is_number(m, n) && ev_same_few(m + 8, p->marked + 8, size - 8);
}

#endif /* EVAL_CHECK_H */
