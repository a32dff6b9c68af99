/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moderation: when a sleeper asks to be woken by the n-th frame instead of the next one.
 *
 * No hardware holds a notification back for us. What we have is the event index: a sleeper names
 * the position whose passing the peer is to tell of. So a moderated sleep names one that is `count`
 * on, and is bounded by `period`, since frames may stop short of it. Each costs what it saves when
 * it is done at the wrong time, so:
 *
 *   only in a flow   Over the last PD_MODERATION_WINDOW sleeps frames came at a rate that brings
 *                    `count` within `period`. One pause that this rate does not explain ends the flow.
 *   never in a lull  A frame after silence finds a sleeper that asked for the very next one. An idle
 *                    program sleeps without a bound, and nothing wakes it.
 *   not in a talk    Whoever waits for our answer sends nothing meanwhile: the period runs out with
 *                    few frames there. After each such failure twice as many windows pass before it
 *                    is tried again, up to PD_MODERATION_PATIENCE, so that the frames of a
 *                    conversation that are late become as few as one in thousands.
 *
 * Adaptive moderation sets count and period anew in every interval, from the frames that came in
 * it, so that wake-ups come at the rate that was asked for.
 *
 * A frame here is whatever a position counts: a buffer, or a descriptor (virtio/vq.h); on a
 * transmit side room to send. All of it belongs to a side of a lane, under its lock, and happens
 * only on the way into a sleep and out of it.
 */
#ifndef PD_VLIB_MODERATION_H
#define PD_VLIB_MODERATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

/* Sleeps after which the flow is judged. */
#define PD_MODERATION_WINDOW 8
/* The most windows that pass without another try. */
#define PD_MODERATION_PATIENCE 1023
/* The longest period: times and frames are multiplied in 64 bits. */
#define PD_MODERATION_PERIOD_MAX_NS (60 * PD_NS_PER_SEC)

/* The settings; one for the process, written before there are lanes. All zero: none. */
struct pd_moderation_tuning {
	bool enabled;
	uint32_t count;           /* frames; below 2 nothing is held */
	uint64_t period_ns;       /* 0: nothing is held; at most PD_MODERATION_PERIOD_MAX_NS */
	uint64_t aim_interval_ns; /* how often the two adapt; 0: never */
	uint32_t aim_rate;        /* wake-ups a second to aim at, at least 1 */
	uint32_t aim_count;       /* the most frames, */
	uint64_t aim_period_ns;   /* and the longest time, that adapting arrives at */
};
extern struct pd_moderation_tuning pd_moderation_tuning;

/* What is known of the traffic of one side. */
struct pd_moderation {
	uint64_t period_ns; /* as it is now */
	uint32_t count;     /* the same */
	bool flowing;
	uint16_t failures; /* windows to let pass after the next failure, about half as many */
	uint16_t patience; /* windows to let pass now */
	uint16_t sleeps;   /* in the window */
	uint32_t window_seen, last_seen,
		aim_seen;                    /* positions: at its start, at the last sleep, ... */
	uint64_t window_ns, last_ns, aim_ns; /* ... and when that was; 0: not yet */
};

/* Begin, with a new link: nothing is known, and positions begin anew. */
void pd_moderation_begin(struct pd_moderation *m);

/*
 * A thread goes to sleep from the position `seen`, all of which it knows, at `now_ns`. Returns how
 * many frames to ask for, at most `most`: 1 is the next one. If it is more, the sleep is to end
 * after m->period_ns.
 */
uint32_t pd_moderation_hold(struct pd_moderation *m, uint32_t seen, uint32_t most, uint64_t now_ns);

/*
 * Such a sleep is over, having asked for `hold`: by then `came` had come; `late`: its period has
 * passed.
 */
void pd_moderation_held(struct pd_moderation *m, uint32_t hold, uint32_t came, bool late);

#endif /* PD_VLIB_MODERATION_H */
