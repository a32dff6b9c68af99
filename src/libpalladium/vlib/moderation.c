/* SPDX-License-Identifier: BSD-2-Clause */
/* Moderation of notifications (the theory stands in moderation.h). */
#include "vlib/moderation.h"

#include <string.h>

#include "base/clock.h"
#include "base/compiler.h"

/* Longer than any pause that matters, and short enough to be multiplied. */
#define PD_MODERATION_LONG_NS (1ull << 40)
/* More frames than any ring holds; times the longest period still 64 bits. */
#define PD_MODERATION_MANY (1u << 24)

struct pd_moderation_tuning pd_moderation_tuning;

void pd_moderation_begin(struct pd_moderation *m)
{
	memset(m, 0, sizeof(*m));
	m->count = pd_moderation_tuning.count;
	m->period_ns = pd_moderation_tuning.period_ns;
}

/*
 * Adapt count and period once an interval. The period is a quarter longer than the time between two
 * wake-ups at the wanted rate, so that the count comes first; where it is limited, so is the count.
 */
static void pd_moderation_aim(struct pd_moderation *m, uint32_t seen, uint64_t now_ns)
{
	const struct pd_moderation_tuning *t = &pd_moderation_tuning;
	uint64_t rate, period, count;

	if (!t->aim_interval_ns)
		return;
	if (!m->aim_ns) {
		m->aim_ns = now_ns;
		m->aim_seen = seen;
	}
	if (now_ns - m->aim_ns < t->aim_interval_ns)
		return;
	rate = (uint64_t)(seen - m->aim_seen) * PD_NS_PER_SEC / (now_ns - m->aim_ns);
	period = pd_min((uint64_t)t->aim_period_ns, PD_NS_PER_SEC * 5 / 4 / t->aim_rate);
	count = (rate * period / 5 * 4 + PD_NS_PER_SEC / 2) / PD_NS_PER_SEC;
	m->period_ns = period;
	m->count = (uint32_t)pd_min(count, (uint64_t)t->aim_count);
	m->aim_ns = now_ns;
	m->aim_seen = seen;
}

/* The window begins anew, here. */
static void pd_moderation_window(struct pd_moderation *m, uint32_t seen, uint64_t now_ns)
{
	m->sleeps = 0;
	m->window_seen = seen;
	m->window_ns = now_ns;
}

uint32_t pd_moderation_hold(struct pd_moderation *m, uint32_t seen, uint32_t most, uint64_t now_ns)
{
	uint64_t pause = pd_min(now_ns - m->last_ns, PD_MODERATION_LONG_NS), span;
	uint32_t came = pd_min(seen - m->last_seen, PD_MODERATION_MANY), count;
	bool fast;

	if (!pd_moderation_tuning.enabled)
		return 1;
	pd_moderation_aim(m, seen, now_ns);
	m->last_seen = seen;
	m->last_ns = now_ns;
	count = pd_min(m->count, most);
	/* Too few for the time since the last sleep, a whole period granted: this is no flow. */
	if (count < 2 || !m->period_ns || pause * count > ((uint64_t)came + count) * m->period_ns) {
		m->flowing = false;
		pd_moderation_window(m, seen, now_ns);
		return 1;
	}
	if (++m->sleeps >= PD_MODERATION_WINDOW) {
		span = pd_min(now_ns - m->window_ns, PD_MODERATION_LONG_NS);
		fast = span * count <=
		       pd_min(seen - m->window_seen, PD_MODERATION_MANY) * m->period_ns;
		m->flowing = fast && !m->patience;
		m->patience -= m->patience > 0;
		pd_moderation_window(m, seen, now_ns);
	}
	return m->flowing ? count : 1;
}

void pd_moderation_held(struct pd_moderation *m, uint32_t hold, uint32_t came, bool late)
{
	if (came >= hold) {
		m->failures /= 2;
	} else if (late) {
		m->failures = (uint16_t)pd_min(2 * m->failures + 1, PD_MODERATION_PATIENCE);
		m->patience = m->failures;
		m->flowing = false;
		m->sleeps = 0;
		m->window_seen = m->last_seen;
		m->window_ns = m->last_ns;
	}
}
