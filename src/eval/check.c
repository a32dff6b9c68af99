/* SPDX-License-Identifier: BSD-2-Clause */
/* Patterns of packets and metadata, and the tally of what was wrong. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>

/* The byte at `at` of pattern `which`; Ethernet's local experimental type in front. */
static uint8_t pattern_byte(unsigned which, uint32_t at, bool swapped)
{
	if (at < 12)
		return (at < 6) != swapped ? 0x02 : 0x06;
	if (at < 14)
		return at == 12 ? 0x88 : 0xb5;
	return (uint8_t)(at * 167 + which * 29 + 13);
}

int ev_patterns_make(struct ev_patterns *p, uint32_t size, uint32_t metadata_size, bool swapped)
{
	const uint32_t len = size;

	*p = (struct ev_patterns){.size = size, .metadata_size = metadata_size};
	p->stride = (size + 127) & ~63u;
	p->bytes = aligned_alloc(64, (size_t)p->stride * EV_PATTERNS);
	if (!p->bytes)
		return -ENOMEM;
	for (unsigned k = 0; k < EV_PATTERNS; k++)
		for (uint32_t i = 0; i < p->stride; i++)
			p->bytes[k * p->stride + i] = pattern_byte(k, i, swapped);
	memcpy(&p->head_end, p->bytes + EV_NUMBER_AT - 8, sizeof(p->head_end));
	for (uint32_t i = 0; i < metadata_size; i++)
		p->metadata[i] = (uint8_t)(i * 151 + 7);
	if (metadata_size >= EV_MARK_AT)
		memcpy(p->metadata + 8, &len, sizeof(len));
	if (metadata_size >= EV_MARK_AT + 4)
		memset(p->metadata + EV_MARK_AT, 0, 4);
	memcpy(p->marked, p->metadata, sizeof(p->marked));
	ev_metadata_mark(p->marked, metadata_size);
	return 0;
}

void ev_patterns_free(struct ev_patterns *p)
{
	free(p->bytes);
	p->bytes = NULL;
}

uint64_t ev_tally_sum(const struct ev_tally *t)
{
	return t->contents + t->length + t->order + t->metadata + t->header + t->descriptor +
	       t->dropped;
}

void ev_tally_add(struct ev_tally *t, uint64_t *kind, uint64_t n)
{
	if (!ev_tally_sum(t))
		t->first = n;
	++*kind;
}
