/* SPDX-License-Identifier: BSD-2-Clause */
/* Making and comparing frames and sidecars; the layout stands in pattern.h. */
#include "pattern.h"

#include <string.h>
#include <arpa/inet.h>

#define STEP 0x9e3779b97f4a7c15u /* odd, so that 2^64 words go by before one comes again */

/* Four words at once; the compiler makes of it what the machine has. */
typedef uint64_t vlm_vector __attribute__((vector_size(32), aligned(1), may_alias));

struct vlm_header {
	uint8_t destination[6], source[6];
	uint16_t ethertype;
	uint16_t bytes;
	uint32_t seed;
	uint16_t port, queue;
	uint64_t number;
} __attribute__((packed));
_Static_assert(sizeof(struct vlm_header) == VLM_HEADER_BYTES, "as pattern.h has it");

/* --- sizes --------------------------------------------------------------------------------- */

/* 7 : 4 : 1 of 64, 570 and 1518 octets on the line, spread evenly; frames here have no FCS. */
static const uint16_t imix[12] = {60, 566, 60, 60, 566, 60, 1514, 60, 566, 60, 566, 60};

uint32_t vlm_frame_bytes(const struct vlm_plan *plan, const struct vlm_name *name)
{
	uint64_t span = plan->size_high - plan->size_low + 1;

	if (plan->size_kind == VLM_SIZE_IMIX)
		return imix[name->number % PD_ARRAY_SIZE(imix)];
	if (span == 1)
		return plan->size_low;
	/* The word's upper half, so that sizes and contents do not go together. */
	return plan->size_low + (uint32_t)((vlm_word(plan, name) >> 32) * span >> 32);
}

double vlm_frame_mean(const struct vlm_plan *plan)
{
	double sum = 0;

	if (plan->size_kind != VLM_SIZE_IMIX)
		return ((double)plan->size_low + plan->size_high) / 2;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(imix); i++)
		sum += imix[i];
	return sum / PD_ARRAY_SIZE(imix);
}

/* --- frames -------------------------------------------------------------------------------- */

/* The header of frame `name`, `bytes` long in all. */
static struct vlm_header header_of(const struct vlm_plan *plan, const struct vlm_name *name,
				   uint32_t bytes)
{
	struct vlm_header h = {
		.ethertype = htons(VLM_ETHERTYPE),
		.bytes = (uint16_t)bytes,
		.seed = (uint32_t)plan->seed,
		.port = name->port,
		.queue = name->queue,
		.number = name->number,
	};

	memcpy(h.destination, plan->destination, sizeof(h.destination));
	memcpy(h.source, plan->source, sizeof(h.source));
	return h;
}

/* Write `n` bytes of the words that begin with `x`. */
static void words_make(uint8_t *out, uint32_t n, uint64_t x)
{
	vlm_vector v = {x, x + STEP, x + 2 * STEP, x + 3 * STEP};
	uint32_t i = 0;

	for (; i + sizeof(v) <= n; i += sizeof(v)) {
		*(vlm_vector *)(out + i) = v;
		v += 4 * STEP;
	}
	memcpy(out + i, &v, n - i);
}

/* Compare `n` bytes with the words that begin with `x`. Returns whether they are the same. */
static bool words_same(const uint8_t *p, uint32_t n, uint64_t x)
{
	vlm_vector v = {x, x + STEP, x + 2 * STEP, x + 3 * STEP}, differ = {0};
	uint32_t i = 0;

	for (; i + sizeof(v) <= n; i += sizeof(v)) {
		differ |= *(const vlm_vector *)(p + i) ^ v;
		v += 4 * STEP;
	}
	return !(differ[0] | differ[1] | differ[2] | differ[3]) && !memcmp(p + i, &v, n - i);
}

uint32_t vlm_frame_make(const struct vlm_plan *plan, const struct vlm_name *name, uint8_t *out)
{
	uint32_t bytes = vlm_frame_bytes(plan, name);
	struct vlm_header h = header_of(plan, name, bytes);

	memcpy(out, &h, sizeof(h));
	words_make(out + sizeof(h), bytes - (uint32_t)sizeof(h), vlm_word(plan, name));
	return bytes;
}

bool vlm_frame_identify(const struct vlm_plan *plan, const uint8_t *frame, uint32_t len,
			struct vlm_name *name)
{
	struct vlm_header h;

	if (len < sizeof(h))
		return false;
	memcpy(&h, frame, sizeof(h));
	if (h.ethertype != htons(VLM_ETHERTYPE) || h.seed != (uint32_t)plan->seed)
		return false;
	*name = (struct vlm_name){.port = h.port, .queue = h.queue, .number = h.number};
	return true;
}

/* The offset of the first byte in which `a` and `b` differ, `n` when they do not. */
static uint32_t first_difference(const uint8_t *a, const uint8_t *b, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

uint32_t vlm_frame_compare(const struct vlm_plan *plan, const struct vlm_name *name,
			   const uint8_t *frame, uint32_t len, bool header_only)
{
	uint32_t bytes = vlm_frame_bytes(plan, name), n = pd_min(len, bytes);
	struct vlm_header h = header_of(plan, name, bytes);
	uint8_t whole[VLM_FRAME_MAX];

	if (pd_likely(n >= sizeof(h) && !memcmp(frame, &h, sizeof(h)) &&
		      (header_only || words_same(frame + sizeof(h), n - (uint32_t)sizeof(h),
						 vlm_word(plan, name)))))
		return VLM_NO_DIFFERENCE;
	vlm_frame_make(plan, name, whole);
	if (header_only)
		n = pd_min(n, (uint32_t)sizeof(h));
	bytes = first_difference(frame, whole, n);
	return bytes < n ? bytes : VLM_NO_DIFFERENCE;
}

/* --- sidecars ------------------------------------------------------------------------------ */

void vlm_sidecar_make(const struct vlm_plan *plan, const struct vlm_name *name,
		      struct pd_sidecar *out)
{
	const struct vlm_sidecar_plan *sp = &plan->sidecar;
	struct palladium_packet_metadata *pd = &out->avip.pd;
	uint64_t w[4];

	memset(out, 0, sizeof(*out));
	if (sp->empty)
		return;
	w[0] = vlm_word(plan, name);
	for (int i = 1; i < 4; i++)
		w[i] = vlm_mix(w[i - 1] + STEP);
	pd->metadata_type = PALLADIUM_IFG | sp->flags;
	pd->ifg = sp->ifg_fixed ? sp->ifg : w[1];
	pd->latency = w[2];
	pd->pfc_priority = vlm_sidecar_pfc(plan, name);
	pd->tcp_udp_checksum_offset = (uint8_t)(w[3] >> 56);
	if (!sp->no_preamble) {
		pd->metadata_type |= PALLADIUM_PREAMBLE;
		if (sp->preamble_fixed)
			memcpy(pd->preamble, sp->preamble, sizeof(pd->preamble));
		else
			memcpy(pd->preamble, &w[0], sizeof(pd->preamble));
		pd->preamble_size = sp->preamble_fixed ? sp->preamble_bytes : 8;
	}
	if (!sp->no_fcs) {
		pd->metadata_type |= PALLADIUM_FCS;
		pd->fcs = sp->fcs_fixed ? sp->fcs : (uint32_t)(w[1] ^ w[2] >> 32);
	}
	memcpy(pd->reserved, &w[3], sizeof(pd->reserved));
}

uint32_t vlm_sidecar_compare(const struct pd_sidecar *got, const struct pd_sidecar *expected)
{
	const uint32_t from = PD_SIDECAR_AT(generic_flags);
	uint32_t at;

	if (pd_likely(!memcmp(got->bytes + from, expected->bytes + from, PD_SIDECAR_BYTES - from)))
		return VLM_NO_DIFFERENCE;
	at = first_difference(got->bytes + from, expected->bytes + from, PD_SIDECAR_BYTES - from);
	return from + at;
}
