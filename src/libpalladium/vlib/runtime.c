/* SPDX-License-Identifier: BSD-2-Clause */
/* The list of all engines, and a walk over what their nodes counted (contract in runtime.h). */
#include "base/lock.h"
#include "vlib/process.h"
#include "vlib/runtime.h"

static struct pd_lock pd_engines_lock = PD_LOCK_INIT(PD_RANK_LEAF);
static struct pd_list pd_engines = PD_LIST_INIT(pd_engines);

void pd_runtime_enter(struct pd_engine *engine)
{
	static uint64_t made;

	pd_lock(&pd_engines_lock);
	engine->serial = ++made;
	pd_list_add_tail(&pd_engines, &engine->node);
	pd_unlock(&pd_engines_lock);
}

void pd_runtime_leave(struct pd_engine *engine)
{
	pd_lock(&pd_engines_lock);
	pd_list_del(&engine->node);
	pd_unlock(&pd_engines_lock);
}

void pd_runtime_each(void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg)
{
	struct pd_engine *engine;

	pd_lock(&pd_engines_lock);
	pd_list_for_each (engine, &pd_engines, node) {
		/* Pairs with the release in pd_engine_add_node. */
		unsigned n = pd_load_acquire(&engine->node_count);

		for (unsigned i = 0; i < n; i++) {
			struct pd_node *node = &engine->nodes[i];
			struct pd_node_runtime row = {
				.engine = engine->name,
				.serial = engine->serial,
				.node = node->reg->name,
				.type = node->reg->type,
				.calls = pd_load_relaxed(&node->calls),
				.vectors = pd_load_relaxed(&node->vectors),
				.clocks = pd_load_relaxed(&node->clocks),
				.clocked_vectors = pd_load_relaxed(&node->clocked_vectors),
				.error_count = node->reg->error_count,
				.error_texts = node->reg->errors,
				.errors = node->errors,
			};

			fn(&row, arg);
		}
	}
	pd_unlock(&pd_engines_lock);
	pd_process_each(fn, arg);
}

void pd_runtime_engines(void (*fn)(struct pd_engine *engine, void *arg), void *arg)
{
	struct pd_engine *engine;

	pd_lock(&pd_engines_lock);
	pd_list_for_each (engine, &pd_engines, node)
		fn(engine, arg);
	pd_unlock(&pd_engines_lock);
}

void pd_runtime_after_fork(void)
{
	struct pd_engine *engine;

	pd_lock_init(&pd_engines_lock, PD_RANK_LEAF);
	pd_list_for_each (engine, &pd_engines, node)
		pd_engine_forget(engine);
}
