/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The generic half of a lane: link changes and the sleepers' protocol (the theory stands in
 * lane.h).
 */
#include "base/clock.h"
#include "base/sys.h"
#include "vlib/lane.h"

/* How long a sleeper may go without a look at a side whose peer does not notify. */
#define PD_LANE_POLLED_NS PD_NS_PER_MS

void pd_lane_abandon(struct pd_lane *lane)
{
	static const enum pd_lock_rank ranks[PD_DIRS] = {PD_RANK_LANE_RX, PD_RANK_LANE_TX};

	for (int dir = 0; dir < PD_DIRS; dir++) {
		struct pd_lane_side *side = &lane->side[dir];

		pd_lock_init(&side->lock, ranks[dir]);
		side->up = false;
		side->event_fd = -1;
		pd_list_init(&side->waiters);
	}
}

void pd_lane_init(struct pd_lane *lane, const struct pd_lane_ops *ops, uint16_t port,
		  uint16_t queue, struct pd_ctr_block *const ctr[PD_DIRS])
{
	pd_lane_abandon(lane);
	lane->ops = ops;
	lane->port = port;
	lane->queue = queue;
	lane->takes = 0;
	lane->moved = NULL;
	lane->plugins = NULL;
	for (int dir = 0; dir < PD_DIRS; dir++) {
		struct pd_lane_side *side = &lane->side[dir];

		side->link = 0;
		side->cursor = 0;
		side->hold_max = 1;
		pd_moderation_begin(&side->moderation);
		side->ctr = ctr[dir];
	}
}

void pd_lane_set_link(struct pd_lane *lane, enum pd_dir dir, bool up, int event_fd, uint32_t cursor)
{
	struct pd_lane_side *side = &lane->side[dir];
	bool moved = side->up != up;

	side->up = up;
	side->event_fd = event_fd;
	side->cursor = cursor;
	side->link++;
	pd_moderation_begin(&side->moderation);
	if (moved && lane->moved)
		lane->moved(lane, dir);
	pd_lane_ring(lane, dir, true);
}

void pd_lane_ring(struct pd_lane *lane, enum pd_dir dir, bool all)
{
	struct pd_lane_side *side = &lane->side[dir];
	static const uint64_t one = 1;
	struct pd_lane_waiter *w;
	uint32_t now;

	if (pd_list_empty(&side->waiters))
		return;
	now = side->up ? lane->ops->position(lane, dir) : side->cursor;
	pd_list_for_each (w, &side->waiters, node) {
		if (!all && w->seen == now)
			continue;
		w->seen = now;
		pd_sys_write(w->wake_fd, &one, sizeof(one));
	}
}

/*
 * Tell the waiters of everything up to now and arm the side for what comes next. Returns the
 * position that is armed. The side is up, its lock is held.
 */
static uint32_t pd_lane_tell(struct pd_lane *lane, enum pd_dir dir)
{
	for (;;) {
		uint32_t now = lane->ops->position(lane, dir);

		pd_lane_ring(lane, dir, false);
		if (!lane->ops->arm(lane, dir, now, 1))
			return now;
	}
}

/* Arm the side for `w`, the only sleeper; true when the position has left w->seen. As above. */
static bool pd_lane_arm_alone(struct pd_lane *lane, enum pd_dir dir, struct pd_lane_waiter *w)
{
	struct pd_lane_side *side = &lane->side[dir];

	if (pd_moderation_tuning.enabled && side->hold_max > 1 && w->seen == side->cursor) {
		uint64_t now = pd_clock_ns();

		w->hold = pd_moderation_hold(&side->moderation, w->seen, side->hold_max, now);
		if (w->hold > 1)
			w->until_ns = now + side->moderation.period_ns;
	}
	return lane->ops->arm(lane, dir, w->seen, w->hold);
}

/* What came of a sleep that was held. */
static void pd_lane_held(struct pd_lane *lane, enum pd_dir dir, const struct pd_lane_waiter *w)
{
	pd_moderation_held(&lane->side[dir].moderation, w->hold,
			   lane->ops->position(lane, dir) - w->seen, pd_clock_ns() >= w->until_ns);
}

bool pd_lane_sleep(struct pd_lane *lane, enum pd_dir dir, struct pd_lane_waiter *w)
{
	struct pd_lane_side *side = &lane->side[dir];

	w->hold = 1;
	w->until_ns = UINT64_MAX;
	if (side->up && pd_list_empty(&side->waiters)) {
		if (pd_lane_arm_alone(lane, dir, w))
			return false;
	} else if (side->up && pd_lane_tell(lane, dir) != w->seen) {
		/* Arming here replaced what the others had asked for, and the peer may have published
		 * since without having looked: so the others were told first. */
		return false;
	}
	if (pd_unlikely(side->up && side->event_fd < 0))
		w->until_ns = pd_min(w->until_ns, pd_clock_ns() + PD_LANE_POLLED_NS);
	pd_list_add_tail(&side->waiters, &w->node);
	return true;
}

void pd_lane_wake(struct pd_lane *lane, enum pd_dir dir, struct pd_lane_waiter *w, bool notified)
{
	struct pd_lane_side *side = &lane->side[dir];

	pd_list_del(&w->node);
	if (!side->up)
		return;
	if (w->hold > 1)
		pd_lane_held(lane, dir, w);
	if (notified)
		lane->ops->drain(lane, dir);
	/* The notification that was drained was everybody's. */
	if (pd_list_empty(&side->waiters))
		lane->ops->disarm(lane, dir);
	else if (notified)
		pd_lane_tell(lane, dir);
}
