/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spinning. See spin.h.
 */
#include "wait/spin.h"

#include <sched.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/compiler.h"

/*
 * A spin that lasts, lasts because the other end is slow; perhaps since this thread has its core.
 * So after this time, and then each time again, the core is offered to others once.
 */
#define PD_SPIN_YIELD_NS (50 * PD_NS_PER_US)

struct pd_wait_tuning pd_wait_tuning = {.spin_us = -1, .kernel_looks = 10, .kernel_skips = 4};
uint32_t pd_spin_max_ns = 50000;

/* How long `spin` may last now. */
static uint32_t pd_spin_budget(const struct pd_spin *spin)
{
	uint32_t budget = pd_load_relaxed(&spin->budget_ns);

	return budget ? budget : pd_spin_max_ns / 2;
}

/*
 * When to stop spinning, as a pd_clock_ns value: `setting_us` >= 0 is what the user asked for, -1
 * lets the history decide.
 */
static uint64_t pd_spin_begin(const struct pd_spin *spin, int64_t setting_us, uint64_t now_ns)
{
	if (setting_us >= 0)
		return now_ns + (uint64_t)setting_us * PD_NS_PER_US;
	return now_ns + pd_spin_budget(spin);
}

void pd_spin_end(struct pd_spin *spin, bool hit)
{
	uint32_t budget = pd_spin_budget(spin);

	/* Up fast, down slowly enough that one late frame does not end a conversation. */
	budget = hit ? pd_min(2 * budget, pd_max(pd_spin_max_ns, PD_SPIN_MIN_NS))
		     : pd_max(budget - budget / 4, PD_SPIN_MIN_NS);
	pd_store_relaxed(&spin->budget_ns, budget);
}

bool pd_spin_more(struct pd_spin_loop *loop, int64_t setting_us, uint64_t deadline_ns)
{
	uint64_t now;

	if (deadline_ns == 0)
		return false;
	if (pd_unlikely(pd_wait_tuning.yield && loop->until_ns))
		sched_yield();
	/* Reading the clock costs as much as asking again: every eighth round is often enough. */
	if (loop->until_ns && ++loop->rounds % 8 && !loop->long_rounds) {
		pd_cpu_relax();
		return true;
	}
	now = pd_clock_ns();
	if (!loop->until_ns) {
		loop->until_ns = pd_spin_begin(loop->spin, setting_us, now);
		loop->yield_ns = now + PD_SPIN_YIELD_NS;
	} else if (now >= loop->yield_ns) {
		sched_yield();
		loop->yield_ns = pd_clock_ns() + PD_SPIN_YIELD_NS;
	}
	pd_cpu_relax();
	return now < loop->until_ns && now < deadline_ns;
}

bool pd_spin_kernel_turn(const struct pd_spin_loop *loop)
{
	return pd_wait_tuning.kernel_looks && loop->rounds % pd_wait_tuning.kernel_looks == 0;
}
