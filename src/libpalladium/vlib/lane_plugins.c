/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lane's operations with the nodes of plug-ins in them (the theory stands in lane_plugins.h).
 *
 * The pool has one buffer per frame of a vector, each large enough for any frame that is not to be
 * cut into several: copying can fail only behind a frame that was copied.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vlib/lane_plugins.h"
#include "vlib/node.h"
#include "vlib/trace.h"

/* Frames that one look has thrown away by the nodes before it looks at anything else. */
#define PD_LANE_PLUGINS_LOOK_MAX (16 * PD_VECTOR_MAX)

struct pd_lane_plugins {
	struct pd_lane_ops ops;
	const struct pd_lane_ops *base;
	struct pd_lane_plugins *next; /* of all that were made */
	char name[32];
	uint16_t port, queue;
	struct pd_engine *engine;
	struct pd_node *input;
	struct pd_buffer_pool *pool;
	uint32_t link, cursor; /* of the side, as they were left */
	unsigned seen, gone;   /* frames of the ring that the results came of; those that left it */
	unsigned first, n;     /* the results that wait */
	uint32_t result[PD_VECTOR_MAX];
	uint16_t place[PD_VECTOR_MAX]; /* of each, among the frames seen */
	uint32_t came[PD_VECTOR_MAX];  /* by place: what came to plugin-output, or PD_BUFFER_NONE */
};

bool pd_lane_plugins_wanted;

/* They live as long as the process: a port that is opened again finds its lanes' here. */
static struct pd_lane_plugins *pd_lanes_plugins;

/* --- the nodes ----------------------------------------------------------------------------- */

/* The place of a frame in the ring, behind what pd_buffer_set_error and others note. */
static void pd_plugin_note_place(struct pd_buffer *b, uint32_t place)
{
	memcpy(b->opaque2 + 12, &place, sizeof(place));
}

static uint32_t pd_plugin_place(const struct pd_buffer *b)
{
	uint32_t place;

	memcpy(&place, b->opaque2 + 12, sizeof(place));
	return place;
}

/* plugin-input: where the copies start. Returns the frames it saw. */
static unsigned pd_plugin_input_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	static const uint16_t nexts[PD_VECTOR_MAX];

	pd_enqueue(engine, node, vector->index, nexts, vector->n);
	return vector->n;
}

PD_NODE_REGISTER(pd_plugin_input) = {
	.name = "plugin-input",
	.type = PD_NODE_INTERNAL,
	.no_entry = true,
	.opens = true,
	.fn = pd_plugin_input_dispatch,
	.trace = pd_trace_frame,
	.format_trace = pd_trace_frame_format,
	.next_count = 1,
	.next_names = {"plugin-output"},
};

/* plugin-output: what comes here is the result of its place. Returns the frames it saw. */
static unsigned pd_plugin_output_dispatch(struct pd_engine *engine, struct pd_node *node,
					  struct pd_vector *vector)
{
	struct pd_lane_plugins *p = engine->call;

	(void)node;
	for (unsigned i = 0; i < vector->n; i++)
		p->came[pd_plugin_place(pd_buffer_get(vector->index[i]))] = vector->index[i];
	return vector->n;
}

PD_NODE_REGISTER(pd_plugin_output) = {
	.name = "plugin-output",
	.type = PD_NODE_INTERNAL,
	.no_entry = true,
	.fn = pd_plugin_output_dispatch,
	.trace = pd_trace_frame,
	.format_trace = pd_trace_frame_format,
};

/* --- results -------------------------------------------------------------------------------- */

/* Free the first `n` results. */
static void pd_lane_plugins_free(struct pd_lane_plugins *p, unsigned n)
{
	pd_buffer_free(p->result + p->first, n);
	p->first += n;
	p->n -= n;
}

/* Forget the results if the ring is not where they were left. */
static void pd_lane_plugins_check(struct pd_lane_plugins *p, const struct pd_lane_side *side)
{
	if (pd_likely(p->link == side->link && p->cursor == side->cursor))
		return;
	pd_lane_plugins_free(p, p->n);
}

/* Remember where the ring is left. */
static void pd_lane_plugins_leave(struct pd_lane_plugins *p, const struct pd_lane_side *side)
{
	p->link = side->link;
	p->cursor = side->cursor;
}

/*
 * Copy bufs[0..got) and put the copies through the nodes. Sets result, place, seen. Returns how
 * many were copied.
 */
static unsigned pd_lane_plugins_run(struct pd_lane_plugins *p, struct pd_buffer *const *bufs,
				    unsigned got)
{
	uint32_t *copies = p->engine->scratch.indices;
	unsigned n;

	for (n = 0; n < got; n++) {
		struct pd_buffer *b = pd_buffer_copy(p->pool, bufs[n]);

		if (pd_unlikely(!b))
			break;
		b->flags &= (uint16_t)~PD_BUFFER_TRACED; /* by another engine's tracer */
		pd_plugin_note_place(b, n);
		p->came[n] = PD_BUFFER_NONE;
		copies[n] = b->index;
	}
	p->engine->call = p;
	if (pd_likely(n))
		pd_engine_run_frames(p->engine, p->input, copies, n);
	p->engine->call = NULL;
	p->first = p->n = 0;
	p->seen = n;
	for (unsigned i = 0; i < n; i++) {
		if (p->came[i] == PD_BUFFER_NONE)
			continue;
		p->result[p->n] = p->came[i];
		p->place[p->n++] = (uint16_t)i;
	}
	return n;
}

/*
 * With no results: make some of what the ring shows. What was dropped before the first leaves it.
 * Returns how many frames there were, or the error of rx.
 */
static int pd_lane_plugins_take(struct pd_lane_plugins *p, struct pd_lane *lane)
{
	struct pd_buffer **bufs = p->engine->scratch.more;
	int got = p->base->rx(lane, bufs, PD_VECTOR_MAX);

	if (got <= 0)
		return got;
	/* One that cannot be copied although all buffers are free never can: it is dropped. */
	if (pd_unlikely(!pd_lane_plugins_run(p, bufs, (unsigned)got)))
		p->seen = 1;
	p->gone = p->n ? p->place[0] : p->seen;
	if (p->gone)
		p->base->rx_done(lane, p->gone);
	pd_lane_plugins_leave(p, &lane->side[PD_RX]);
	return got;
}

/* --- operations ----------------------------------------------------------------------------- */

static int pd_lane_plugins_rx(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n)
{
	struct pd_lane_plugins *p = lane->plugins;

	pd_lane_plugins_check(p, &lane->side[PD_RX]);
	for (unsigned looked = 0; !p->n && looked < PD_LANE_PLUGINS_LOOK_MAX;) {
		int got = pd_lane_plugins_take(p, lane);

		if (got <= 0)
			return got;
		looked += (unsigned)got;
	}
	n = pd_min(n, p->n);
	for (unsigned i = 0; i < n; i++) {
		bufs[i] = pd_buffer_get(p->result[p->first + i]);
		/* As a ring's, it is not for who looks to free; nobody follows it yet. */
		bufs[i]->flags |= PD_BUFFER_EXTERNAL;
		bufs[i]->flags &= (uint16_t)~PD_BUFFER_TRACED;
	}
	return (int)n;
}

static void pd_lane_plugins_rx_done(struct pd_lane *lane, unsigned n)
{
	struct pd_lane_plugins *p = lane->plugins;
	struct pd_buffer **bufs = p->engine->scratch.more;
	unsigned left;

	pd_assert(n <= p->n);
	pd_lane_plugins_free(p, pd_min(n, p->n));
	left = (p->n ? p->place[p->first] : p->seen) - p->gone;
	p->gone += left;
	/* It takes back what it has just shown, and may show less at a time. */
	while (left) {
		int got = p->base->rx(lane, bufs, left);

		if (got <= 0)
			break;
		p->base->rx_done(lane, (unsigned)got);
		left -= (unsigned)got;
	}
	pd_lane_plugins_leave(p, &lane->side[PD_RX]);
}

const struct pd_lane_ops *pd_lane_plugins_over(struct pd_lane *lane, const struct pd_lane_ops *ops)
{
	struct pd_lane_plugins *p = lane->plugins;

	if (pd_likely(!p))
		return ops;
	if (p->base == ops) /* the other side may be in use */
		return &p->ops;
	p->base = ops;
	p->ops = *ops;
	p->ops.rx = pd_lane_plugins_rx;
	p->ops.rx_done = pd_lane_plugins_rx_done;
	return &p->ops;
}

/* --- life ----------------------------------------------------------------------------------- */

/* Undo pd_lane_plugins_new. */
static void pd_lane_plugins_delete(struct pd_lane_plugins *p)
{
	if (p->pool)
		pd_buffer_pool_destroy(p->pool);
	pd_engine_destroy(p->engine);
	free(p);
}

/*
 * Make what a lane of port `name` needs. Returns it; or NULL with *err, which is 0 when no node is
 * on the way.
 */
static struct pd_lane_plugins *pd_lane_plugins_new(const struct pd_lane *lane, const char *name,
						   int *err)
{
	struct pd_lane_plugins *p = calloc(1, sizeof(*p));
	struct pd_node *output;

	*err = -ENOMEM;
	if (!p)
		return NULL;
	p->port = lane->port;
	p->queue = lane->queue;
	snprintf(p->name, sizeof(p->name), "%s/%u plug-ins", name, lane->queue);
	p->engine = pd_engine_create(p->name, err);
	if (!p->engine)
		goto err_plugins;
	p->input = pd_engine_node(p->engine, "plugin-input");
	output = pd_engine_node(p->engine, "plugin-output");
	*err = pd_engine_punt_to(p->engine, output);
	if (*err || p->input->next[0] == output->index)
		goto err_plugins;
	p->pool = pd_buffer_pool_create_with(p->name, PD_VECTOR_MAX, PD_BUFFER_HEADROOM,
					     PD_FRAME_MAX_BYTES, err);
	if (!p->pool)
		goto err_plugins;
	p->next = pd_lanes_plugins;
	pd_lanes_plugins = p;
	return p;

err_plugins:
	pd_lane_plugins_delete(p);
	return NULL;
}

void pd_lane_plugins_attach(struct pd_lane *lane, const char *name)
{
	struct pd_lane_plugins *p = pd_lanes_plugins;
	int err = 0;

	if (pd_likely(!pd_lane_plugins_wanted))
		return;
	while (p && (p->port != lane->port || p->queue != lane->queue))
		p = p->next;
	if (!p)
		p = pd_lane_plugins_new(lane, name, &err);
	if (err)
		pd_err("plugin", "frames of %s/%u go without plug-ins: %s", name, lane->queue,
		       pd_strerror(err));
	if (!p)
		return;
	lane->plugins = p;
	lane->ops = pd_lane_plugins_over(lane, lane->ops);
}

void pd_lane_plugins_after_fork(void)
{
	for (struct pd_lane_plugins *p = pd_lanes_plugins; p; p = p->next) {
		pd_buffer_pool_reset(p->pool);
		p->engine->call = NULL;
		p->n = 0;
	}
}
