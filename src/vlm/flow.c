/* SPDX-License-Identifier: BSD-2-Clause */
/* The accounts of a flow; the theory stands in flow.h. */
#include "flow.h"

#include <errno.h>
#include <stdlib.h>

/* Slots for each frame of the window. */
#define SLOTS_PER_FRAME 4

int vlm_flow_init(struct vlm_flow *flow, uint32_t window)
{
	uint64_t slots = 1;

	while (slots < (uint64_t)window * SLOTS_PER_FRAME)
		slots *= 2;
	*flow = (struct vlm_flow){.mask = slots - 1};
	flow->sent_ns = calloc(slots, sizeof(*flow->sent_ns));
	return flow->sent_ns ? 0 : -ENOMEM;
}

void vlm_flow_fini(struct vlm_flow *flow)
{
	free(flow->sent_ns);
	flow->sent_ns = NULL;
}

/* Move `base` past what is settled. */
static void advance(struct vlm_flow *flow)
{
	while (flow->base < flow->next && !flow->sent_ns[flow->base & flow->mask])
		flow->base++;
}

/* The frame at `base` does not come any more. */
static void give_up(struct vlm_flow *flow)
{
	flow->sent_ns[flow->base & flow->mask] = 0;
	flow->outstanding--;
	if (flow->base < flow->restart)
		flow->counts.restart_lost++;
	else
		flow->counts.lost++;
	advance(flow);
}

void vlm_flow_make_room(struct vlm_flow *flow)
{
	if (flow->next - flow->base > flow->mask)
		give_up(flow);
}

void vlm_flow_sent(struct vlm_flow *flow, uint64_t n, uint64_t now_ns)
{
	flow->counts.sent += n;
	flow->outstanding += n;
	while (n--)
		flow->sent_ns[flow->next++ & flow->mask] = now_ns;
}

enum vlm_flow_verdict vlm_flow_returned(struct vlm_flow *flow, uint64_t number, uint64_t *sent_ns)
{
	uint64_t *slot = &flow->sent_ns[number & flow->mask];

	if (number >= flow->next) {
		flow->counts.invented++;
		return VLM_FLOW_INVENTED;
	}
	if (number < flow->base || !*slot) {
		/* Who came back before the restart and was still in the ring is not far below. */
		if (number < flow->restart && flow->restart - number <= flow->mask + 1) {
			flow->counts.restart_repeated++;
			return VLM_FLOW_REPEATED;
		}
		flow->counts.duplicated++;
		return VLM_FLOW_DUPLICATED;
	}
	*sent_ns = number < flow->restart ? 0 : *slot;
	*slot = 0;
	flow->outstanding--;
	flow->counts.returned++;
	flow->counts.restart_answered += number < flow->restart;
	advance(flow);
	if (number < flow->highest) {
		flow->counts.reordered++;
		return VLM_FLOW_REORDERED;
	}
	flow->highest = number + 1;
	return VLM_FLOW_OK;
}

void vlm_flow_restarted(struct vlm_flow *flow, uint64_t now_ns)
{
	flow->restart = flow->next;
	flow->counts.restart_outstanding += flow->outstanding;
	/* The time in which there was nobody to answer does not count. */
	for (uint64_t i = flow->base; i < flow->next; i++)
		if (flow->sent_ns[i & flow->mask])
			flow->sent_ns[i & flow->mask] = now_ns;
}

void vlm_flow_skip(struct vlm_flow *flow, uint64_t ns)
{
	for (uint64_t i = flow->base; i < flow->next; i++)
		if (flow->sent_ns[i & flow->mask])
			flow->sent_ns[i & flow->mask] += ns;
}

void vlm_flow_expire(struct vlm_flow *flow, uint64_t before_ns)
{
	while (flow->base < flow->next && flow->sent_ns[flow->base & flow->mask] < before_ns)
		give_up(flow);
}

void vlm_flow_counts_add(struct vlm_flow_counts *to, const struct vlm_flow_counts *from)
{
	to->sent += from->sent;
	to->returned += from->returned;
	to->lost += from->lost;
	to->duplicated += from->duplicated;
	to->reordered += from->reordered;
	to->invented += from->invented;
	to->restart_outstanding += from->restart_outstanding;
	to->restart_answered += from->restart_answered;
	to->restart_lost += from->restart_lost;
	to->restart_repeated += from->restart_repeated;
}
