/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load (theory in load.h). All of it under pd_control.
 */
#include "base/clock.h"
#include "vlib/load.h"
#include "vlib/runtime.h"

/* Sums over all engines. */
struct pd_load_counts {
	uint64_t calls, vectors; /* of internal nodes: they are called with frames only */
	uint64_t frames;         /* that input nodes brought in */
};

static struct pd_load_counts pd_load_before;
static uint64_t pd_load_before_ns;
static unsigned pd_load_now;

/* Add one node. */
static void pd_load_add(const struct pd_node_runtime *row, void *arg)
{
	struct pd_load_counts *sums = arg;

	if (row->type == PD_NODE_INPUT)
		sums->frames += row->vectors;
	if (row->type != PD_NODE_INTERNAL)
		return;
	sums->calls += row->calls;
	sums->vectors += row->vectors;
}

/* The load of `ns` in which the counts went from `from` to `to`. */
static unsigned pd_load_between(const struct pd_load_counts *from, const struct pd_load_counts *to,
				uint64_t ns)
{
	uint64_t calls = to->calls - from->calls, vectors = to->vectors - from->vectors;
	uint64_t frames = to->frames - from->frames;
	uint64_t mean = calls ? vectors / calls : 0, came = frames * PD_LOAD_SLICE_NS / ns;

	return (unsigned)pd_min(pd_max(mean - !!mean, came), (uint64_t)PD_VECTOR_MAX);
}

unsigned pd_load(void)
{
	struct pd_load_counts counts = {0};
	uint64_t now = pd_clock_ns(), ns = now - pd_load_before_ns;

	if (ns < PD_LOAD_WINDOW_NS)
		return pd_load_now;
	pd_runtime_each(pd_load_add, &counts);
	if (ns > PD_LOAD_STALE_NS)
		pd_load_now = 0;
	else if (counts.calls >= pd_load_before.calls && counts.vectors >= pd_load_before.vectors &&
		 counts.frames >= pd_load_before.frames) /* else an engine is gone: no news */
		pd_load_now = pd_load_between(&pd_load_before, &counts, ns);
	pd_load_before = counts;
	pd_load_before_ns = now;
	return pd_load_now;
}
