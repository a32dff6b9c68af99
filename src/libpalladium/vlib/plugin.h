/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Plug-ins: files that bring nodes (include/palladium_plugin.h).
 *
 * plugin_load.c finds and opens the files, plugin.c makes of their tables what the engine knows:
 * registrations of nodes, init functions. Nothing that a plug-in does wrong ends the program: it is
 * named in the log, with its path, and left out. What is in use stays loaded for good, since names
 * and functions are borrowed from it.
 *
 * Loading is done by one thread, before the first engine is made.
 */
#ifndef PD_VLIB_PLUGIN_H
#define PD_VLIB_PLUGIN_H

#include <stdbool.h>

#include "palladium_plugin.h"
#include "vlib/init.h"
#include "vlib/node.h"

/* A node of a plug-in, as the engine knows it. */
struct pd_plugin_node {
	struct pd_node_registration reg;
	const struct palladium_node *node;
	const char **texts; /* the node's own, and one more */
};

/* A plug-in. */
struct pd_plugin {
	struct pd_plugin *next;
	char *path;
	void *handle;                         /* dlopen's; NULL: it is part of the program */
	const struct palladium_plugin *table; /* borrowed */
	struct pd_plugin_node *nodes;
	struct pd_init *inits;
	const char *refused; /* why it is not used; NULL: it is */
};

/* Where it may be looked at: those in use, and those that were refused, in the order of loading. */
extern struct pd_plugin *pd_plugins;

/*
 * Load every file NAME.so of the directories of `path`, which have colons between them, in the
 * order of the names in each; then have their nodes registered and their init functions run.
 * Returns how many plug-ins are in use. In a set-user-id program it loads none.
 */
unsigned pd_plugins_load(const char *path);

/*
 * What is wrong with a plug-in's table, in words; NULL: nothing. The table may be of any version.
 */
const char *pd_plugin_check(const struct palladium_plugin *table);

/*
 * Add a plug-in whose table is `table` to pd_plugins. `path` is what the log calls it, copied;
 * `handle` is dlopen's or NULL, and the plug-in's from here on. Returns it, maybe refused; NULL
 * without memory.
 */
struct pd_plugin *pd_plugin_add(const char *path, void *handle,
				const struct palladium_plugin *table);

/*
 * Register the nodes of all of pd_plugins that are not refused, try them in an engine, and run the
 * init functions. What does not fit, or fails, is refused, and the rest goes on without it; where
 * the init functions cannot be put in order all are. Returns how many are in use.
 */
unsigned pd_plugins_start(void);

/* Put into `f` what a plug-in sees of the frame `b`. */
static inline void pd_plugin_show(struct palladium_frame *f, struct pd_buffer *b)
{
	*f = (struct palladium_frame){
		.head = b->data,
		.head_len = b->len,
		.len = b->total_len,
		.sidecar = b->flags & PD_BUFFER_SIDECAR ? b->sidecar : NULL,
		.error = UINT32_MAX,
		.port = b->rx_port,
		.is_control = (b->flags & PD_BUFFER_CONTROL) != 0,
		.buffer = b,
	};
}

/* Have the node `node` work on `n` frames, as an engine does, in the place `state`. */
static inline void pd_plugin_work(const struct palladium_node *node,
				  struct palladium_node_state *state,
				  struct palladium_frame *const *frames, uint16_t *next, unsigned n)
{
	node->work(state, frames, next, n);
}

#endif /* PD_VLIB_PLUGIN_H */
