/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The timer wheel (theory in timer_wheel.h).
 *
 * What holds between calls: no armed timer belongs into a slot before that of `tick`, the past
 * being put into the slot of `tick` itself; and every timer stands on the level that its tick and
 * `tick` say. So all timers of a level come before all of the next, and within a level the lowest
 * slot comes first.
 */
#include "vlib/timer_wheel.h"

_Static_assert(PD_TIMER_TICK_SHIFT + PD_TIMER_SLOT_SHIFT * PD_TIMER_LEVELS >= 64,
	       "the levels cover every deadline");
_Static_assert(PD_TIMER_SLOTS == 64, "a level's slots are the bits of a word");

/* Put `timer` where it belongs as of wheel->tick. */
static void pd_timer_wheel_place(struct pd_timer_wheel *wheel, struct pd_timer *timer)
{
	uint64_t tick = pd_max(timer->deadline_ns >> PD_TIMER_TICK_SHIFT, wheel->tick);
	uint64_t differs = tick ^ wheel->tick;
	unsigned level =
		differs ? (63 - (unsigned)__builtin_clzll(differs)) / PD_TIMER_SLOT_SHIFT : 0;
	unsigned at = tick >> level * PD_TIMER_SLOT_SHIFT & (PD_TIMER_SLOTS - 1);
	struct pd_list *slot = &wheel->slot[level][at];

	if (!(wheel->used[level] >> at & 1)) {
		pd_list_init(slot);
		wheel->used[level] |= 1ull << at;
	}
	pd_list_add_tail(slot, &timer->node);
}

void pd_timer_wheel_add(struct pd_timer_wheel *wheel, struct pd_timer *timer)
{
	pd_timer_wheel_place(wheel, timer);
	if (wheel->next_known)
		wheel->next_ns = pd_min(wheel->next_ns, timer->deadline_ns);
}

void pd_timer_wheel_del(struct pd_timer_wheel *wheel, struct pd_timer *timer)
{
	if (pd_list_empty(&timer->node))
		return;
	pd_list_del(&timer->node);
	if (timer->deadline_ns == wheel->next_ns)
		wheel->next_known = false;
}

/*
 * The first slot that has timers, with its *level and the tick at which it begins; NULL when there
 * are none. Forgets that slots were used which are empty.
 */
static struct pd_list *pd_timer_wheel_first(struct pd_timer_wheel *wheel, unsigned *level,
					    uint64_t *begin)
{
	for (unsigned l = 0; l < PD_TIMER_LEVELS; l++) {
		for (; wheel->used[l]; wheel->used[l] &= wheel->used[l] - 1) {
			unsigned at = (unsigned)__builtin_ctzll(wheel->used[l]);
			unsigned shift = l * PD_TIMER_SLOT_SHIFT;

			if (pd_list_empty(&wheel->slot[l][at]))
				continue;
			*level = l;
			*begin = ((wheel->tick >> shift & ~(PD_TIMER_SLOTS - 1ull)) + at) << shift;
			return &wheel->slot[l][at];
		}
	}
	return NULL;
}

uint64_t pd_timer_wheel_next(struct pd_timer_wheel *wheel)
{
	struct pd_timer *timer;
	struct pd_list *slot;
	unsigned level;
	uint64_t begin;

	if (wheel->next_known)
		return wheel->next_ns;
	wheel->next_ns = PD_TIMER_NEVER;
	wheel->next_known = true;
	slot = pd_timer_wheel_first(wheel, &level, &begin);
	if (slot)
		pd_list_for_each (timer, slot, node)
			wheel->next_ns = pd_min(wheel->next_ns, timer->deadline_ns);
	return wheel->next_ns;
}

/* Time enters `slot`, of a level above 0: its timers go down. */
static void pd_timer_wheel_lower(struct pd_timer_wheel *wheel, struct pd_list *slot)
{
	while (!pd_list_empty(slot)) {
		struct pd_timer *timer = pd_list_entry(slot->next, struct pd_timer, node);

		pd_list_del(&timer->node);
		pd_timer_wheel_place(wheel, timer);
	}
}

/* Move the timers of `slot` that are due at `now_ns` to `due`. */
static void pd_timer_wheel_take(struct pd_timer_wheel *wheel, struct pd_list *slot, uint64_t now_ns,
				struct pd_list *due)
{
	struct pd_timer *timer, *tmp;

	pd_list_for_each_safe (timer, tmp, slot, node) {
		if (timer->deadline_ns > now_ns)
			continue;
		pd_timer_wheel_del(wheel, timer);
		pd_list_add_tail(due, &timer->node);
	}
}

void pd_timer_wheel_advance(struct pd_timer_wheel *wheel, uint64_t now_ns, struct pd_list *due)
{
	uint64_t tick = now_ns >> PD_TIMER_TICK_SHIFT, begin;
	struct pd_list *slot;
	unsigned level;

	while ((slot = pd_timer_wheel_first(wheel, &level, &begin)) && begin <= tick) {
		wheel->tick = begin;
		if (level) {
			pd_timer_wheel_lower(wheel, slot);
			continue;
		}
		pd_timer_wheel_take(wheel, slot, now_ns, due);
		if (begin == tick)
			break;
	}
	wheel->tick = pd_max(wheel->tick, tick);
}

void pd_timer_wheel_clear(struct pd_timer_wheel *wheel)
{
	struct pd_list *slot;
	unsigned level;
	uint64_t begin;

	while ((slot = pd_timer_wheel_first(wheel, &level, &begin)))
		while (!pd_list_empty(slot))
			pd_list_del(slot->next);
	wheel->next_known = false;
}
