/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hierarchical timer wheel: timers by deadline, in nanoseconds of one clock that never goes back.
 *
 * Time is cut into ticks of PD_TIMER_TICK_NS. Level 0 has a slot for each of the ticks around now,
 * level 1 for each stretch of 64 ticks, level 2 for each of 64 of those, and so on until the levels
 * cover all of 64 bits, so that no deadline is too far. A timer stands on the lowest level whose
 * slot tells it from now: that of the highest digit, to the base of 64, in which the ticks of its
 * deadline and of now differ. When time enters a slot of a higher level, the timers of that slot go
 * down; each does so at most once per level.
 *
 * So adding, cancelling and expiring a timer cost the same however many there are. What grows is
 * the look at one slot: at the tick that is under way, and for pd_timer_wheel_next at the first
 * slot that is not empty, once after the earliest timer has left.
 *
 * A timer is never early. It is due as soon as its deadline is reached, also in the middle of a
 * tick, so all lateness is that of who asks; timers of one tick that are due together come in the
 * order in which they were added, and those of different ticks in the order of their deadlines.
 * What was over when it was added is of the tick that it was then.
 *
 * A wheel of zeroes is empty. No locks: its owner has one.
 */
#ifndef PD_VLIB_TIMER_WHEEL_H
#define PD_VLIB_TIMER_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

/* A tick, 2^20 ns: about a millisecond. */
#define PD_TIMER_TICK_SHIFT 20
#define PD_TIMER_TICK_NS (1ull << PD_TIMER_TICK_SHIFT)

#define PD_TIMER_SLOT_SHIFT 6
#define PD_TIMER_SLOTS (1u << PD_TIMER_SLOT_SHIFT)
#define PD_TIMER_LEVELS 8

#define PD_TIMER_NEVER UINT64_MAX

/* A timer; `node` is in no list while it is not armed. */
struct pd_timer {
	struct pd_list node;
	uint64_t deadline_ns;
};

struct pd_timer_wheel {
	uint64_t tick;    /* now, as of the last pd_timer_wheel_advance */
	uint64_t next_ns; /* the earliest deadline, if `next_known` */
	bool next_known;
	uint64_t used[PD_TIMER_LEVELS]; /* slots that have had timers, as bits: may be empty now */
	struct pd_list slot[PD_TIMER_LEVELS][PD_TIMER_SLOTS]; /* valid where used */
};

/* Arm `timer`, which is not armed, for its deadline; one that is over is due at once. */
void pd_timer_wheel_add(struct pd_timer_wheel *wheel, struct pd_timer *timer);

/* Disarm `timer`, armed or not, or take it out of what pd_timer_wheel_advance gave. */
void pd_timer_wheel_del(struct pd_timer_wheel *wheel, struct pd_timer *timer);

/* The earliest deadline; PD_TIMER_NEVER when no timer is armed. */
uint64_t pd_timer_wheel_next(struct pd_timer_wheel *wheel);

/* It is `now_ns`: append all timers that are due to `due`, disarmed. */
void pd_timer_wheel_advance(struct pd_timer_wheel *wheel, uint64_t now_ns, struct pd_list *due);

/* Disarm all. */
void pd_timer_wheel_clear(struct pd_timer_wheel *wheel);

#endif /* PD_VLIB_TIMER_WHEEL_H */
