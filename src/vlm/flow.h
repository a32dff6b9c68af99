/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The accounts of one flow: the frames of one port and queue, each of which has to come back once
 * and in order.
 *
 * A frame is under way from vlm_flow_sent until it comes back or is given up. What is under way
 * stands in a ring of send times, four windows long, so that frames behind a missing one can go on:
 * a missing frame is lost when it is overdue or when the ring comes round to it.
 *
 * When the peer goes away, frames are under way that nobody can tell the fate of: the peer had
 * them, or they are still in the ring and go to the next peer (which is how our front-end resumes
 * it). So what happens to those is counted by itself: answered by the next peer, lost, or returned
 * twice because the old peer had answered without having marked the buffer as used.
 */
#ifndef VLM_FLOW_H
#define VLM_FLOW_H

#include <stdint.h>

struct vlm_flow_counts {
	uint64_t sent, returned;
	uint64_t lost;       /* given up */
	uint64_t duplicated; /* came back a second time, or after they had been given up */
	uint64_t reordered;  /* came back after a later one */
	uint64_t invented;   /* has our seed and a number that was not sent yet */
	/* Frames that were under way when the peer went away; the rest is not part of the above. */
	uint64_t restart_outstanding;
	uint64_t restart_answered; /* of them, part of `returned` too */
	uint64_t restart_lost;
	uint64_t restart_repeated;
};

struct vlm_flow {
	uint64_t next;        /* number of the next frame to send */
	uint64_t base;        /* all below are settled */
	uint64_t highest;     /* one above the highest that came back */
	uint64_t restart;     /* frames below were sent to a peer that is gone */
	uint64_t outstanding; /* under way */
	uint64_t *sent_ns;    /* when a frame was sent, by number & mask; 0: settled */
	uint64_t mask;
	struct vlm_flow_counts counts;
};

enum vlm_flow_verdict {
	VLM_FLOW_OK,
	VLM_FLOW_REORDERED, /* counted as returned too */
	VLM_FLOW_DUPLICATED,
	VLM_FLOW_REPEATED, /* a duplicate that the peer's restart explains */
	VLM_FLOW_INVENTED,
};

/* Make the accounts for up to `window` frames under way. Returns 0 or -ENOMEM. */
int vlm_flow_init(struct vlm_flow *flow, uint32_t window);
void vlm_flow_fini(struct vlm_flow *flow);

/* Give up the oldest frame if the ring has no slot for the next one. */
void vlm_flow_make_room(struct vlm_flow *flow);

/* How many frames may be sent now so that at most `window` are under way. */
static inline uint64_t vlm_flow_room(const struct vlm_flow *flow, uint64_t window)
{
	uint64_t slots = flow->mask + 1 - (flow->next - flow->base);
	uint64_t room = flow->outstanding < window ? window - flow->outstanding : 0;

	return room < slots ? room : slots;
}

/* Frames next to next + n - 1 were sent at `now_ns`; vlm_flow_room allowed it. */
void vlm_flow_sent(struct vlm_flow *flow, uint64_t n, uint64_t now_ns);

/*
 * Frame `number` came back. For VLM_FLOW_OK and VLM_FLOW_REORDERED *sent_ns is when it was sent;
 * it is 0 for frames that waited for another peer, whose latency means nothing.
 */
enum vlm_flow_verdict vlm_flow_returned(struct vlm_flow *flow, uint64_t number, uint64_t *sent_ns);

/* The peer went away and another is there. */
void vlm_flow_restarted(struct vlm_flow *flow, uint64_t now_ns);

/*
 * Let the last `ns`, in which nothing was sent, not have been: what is under way is that much
 * younger.
 */
void vlm_flow_skip(struct vlm_flow *flow, uint64_t ns);

/* Give up what was sent before `before_ns`. */
void vlm_flow_expire(struct vlm_flow *flow, uint64_t before_ns);

/* Add `from` to `to`. */
void vlm_flow_counts_add(struct vlm_flow_counts *to, const struct vlm_flow_counts *from);

#endif /* VLM_FLOW_H */
