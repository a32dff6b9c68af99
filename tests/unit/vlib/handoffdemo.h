/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two nodes of the VLIB document's handoff demonstration: handoffdemo-1 hands what it gets to
 * worker 2, whose handoffdemo-2 counts it and sends it to error-drop. For one file of a program.
 */
#ifndef TEST_HANDOFFDEMO_H
#define TEST_HANDOFFDEMO_H

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "vlib/handoff.h"
#include "vlib/node.h"

static struct pd_handoff *handoff; /* to handoffdemo-2 */
static uint32_t hold;              /* atomic: handoffdemo-2 waits as long */

static void demo_trace(const struct pd_engine *engine, const struct pd_node *node,
		       const struct pd_buffer *b, void *record)
{
	memcpy(record, &engine->thread, sizeof(engine->thread));
}

static int demo_format_trace(char *out, size_t size, const void *record)
{
	uint16_t thread;

	memcpy(&thread, record, sizeof(thread));
	return snprintf(out, size, "HANDOFFDEMO: current thread %u", thread);
}

enum { DEMO_1_CONGESTION, DEMO_1_HANDED_OFF, DEMO_1_ERRORS };

static unsigned demo_1(struct pd_engine *engine, struct pd_node *node, struct pd_vector *vector)
{
	uint16_t workers[PD_VECTOR_MAX];
	unsigned n;

	for (unsigned i = 0; i < vector->n; i++)
		workers[i] = 2;
	n = pd_handoff_enqueue(engine, pd_load_acquire(&handoff), vector->index, workers, vector->n,
			       true);
	if (n < vector->n)
		pd_node_add(&node->errors[DEMO_1_CONGESTION], vector->n - n);
	pd_node_add(&node->errors[DEMO_1_HANDED_OFF], n);
	return vector->n;
}

PD_NODE_REGISTER(demo_1) = {
	.name = "handoffdemo-1",
	.type = PD_NODE_INTERNAL,
	.fn = demo_1,
	.errors = (const char *const[]){"congestion drops", "packets handed off processed"},
	.error_count = DEMO_1_ERRORS,
	.trace = demo_trace,
	.format_trace = demo_format_trace,
};

static unsigned demo_2(struct pd_engine *engine, struct pd_node *node, struct pd_vector *vector)
{
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	const uint16_t nexts[PD_VECTOR_MAX] = {0};

	while (pd_load_acquire(&hold))
		sched_yield();
	for (unsigned i = 0; i < vector->n; i++)
		pd_buffer_set_error(pd_buffer_get(vector->index[i]), &ctx, 0);
	pd_enqueue(engine, node, vector->index, nexts, vector->n);
	return vector->n;
}

PD_NODE_REGISTER(demo_2) = {
	.name = "handoffdemo-2",
	.type = PD_NODE_INTERNAL,
	.fn = demo_2,
	.errors = (const char *const[]){"completed packets"},
	.error_count = 1,
	.next_count = 1,
	.next_names = {"error-drop"},
	.trace = demo_trace,
	.format_trace = demo_format_trace,
};

#endif /* TEST_HANDOFFDEMO_H */
