/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the nodes have done: every engine's nodes and the process nodes, with their counters and
 * errors.
 *
 * Counters are read as they are, without stopping who writes them: each is right, and together they
 * are of nearly one moment.
 */
#ifndef PD_VLIB_RUNTIME_H
#define PD_VLIB_RUNTIME_H

#include <stdint.h>

#include "vlib/node.h"

/* One node of one engine. */
struct pd_node_runtime {
	const char *engine; /* its name; "" for process nodes */
	uint64_t serial;    /* of the engine, of all ever made; 0 for process nodes */
	const char *node;
	enum pd_node_type type;
	uint64_t calls;
	uint64_t vectors;  /* frames; of a process node, events */
	uint64_t suspends; /* of a process node: times it waited */
	uint64_t clocks,
		clocked_vectors; /* cycles, and the frames they were spent on; only what the dispatcher ran */
	unsigned error_count;
	const char *const *error_texts; /* by number */
	const uint64_t *errors;         /* read with pd_load_relaxed */
};

/*
 * Call `fn` for every node of every engine, in the order in which they were made, then for every
 * process node. What it is given is valid during the call, and it must take no lock and make no
 * engine. Control path, any thread.
 */
void pd_runtime_each(void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg);

/*
 * Call `fn` for every engine, in the order in which they were made, under the lock of their list,
 * which is a leaf: it makes no engine, and a lock it takes is taken nowhere around this one.
 * Control path, any thread.
 */
void pd_runtime_engines(void (*fn)(struct pd_engine *engine, void *arg), void *arg);

/*
 * In a forked child: what the parent's threads had pending is dropped, counters begin at zero. The
 * engines are at rest.
 */
void pd_runtime_after_fork(void);

/* An engine was made, or ends. */
void pd_runtime_enter(struct pd_engine *engine);
void pd_runtime_leave(struct pd_engine *engine);

/*
 * Drop what is pending in `engine`, freeing nothing, and set its counters to zero; nobody runs it.
 * For pd_runtime_after_fork.
 */
void pd_engine_forget(struct pd_engine *engine);

#endif /* PD_VLIB_RUNTIME_H */
