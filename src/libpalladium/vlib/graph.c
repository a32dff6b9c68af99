/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The dispatcher (the theory stands in node.h), and the nodes where frames end: drop, error-drop
 * and punt.
 *
 * Memory: vectors are made ahead, two per node, and more are made when a round needs them; they are
 * never given back before the engine is. When there is no memory for one more, frames go to the
 * overflow vector, which is emptied by freeing them, and are counted.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "vlib/handoff.h"
#include "vlib/node.h"
#include "vlib/runtime.h"
#include "vlib/trace.h"

#define PD_ENGINE_IDLE_LIMIT 1000
/* Vectors shorter than this are not worth two reads of the cycle counter. */
#define PD_NODE_CLOCK_MIN 4
#define PD_NODE_VECTORS 2

struct pd_node_registration *pd_node_registrations;
uint32_t pd_graph_wanted;

void pd_node_register(struct pd_node_registration *reg)
{
	reg->next = pd_node_registrations;
	pd_node_registrations = reg;
}

void pd_node_unregister(struct pd_node_registration *reg)
{
	struct pd_node_registration **at = &pd_node_registrations;

	while (*at && *at != reg)
		at = &(*at)->next;
	if (*at)
		*at = reg->next;
}

struct pd_node_registration *pd_node_registered(const char *name)
{
	struct pd_node_registration *reg = pd_node_registrations;

	while (reg && strcmp(reg->name, name))
		reg = reg->next;
	return reg;
}

int pd_node_may_enter(const char *name)
{
	const struct pd_node_registration *reg = pd_node_registered(name);

	if (!reg)
		return -ENOENT;
	return reg->type != PD_NODE_INTERNAL || reg->no_entry ? -EPERM : 0;
}

/* --- making an engine ---------------------------------------------------------------------- */

struct pd_node *pd_engine_node(struct pd_engine *engine, const char *name)
{
	/* Pairs with the release in pd_engine_add_node. */
	unsigned n = pd_load_acquire(&engine->node_count);

	for (unsigned i = 0; i < n; i++)
		if (!strcmp(engine->nodes[i].reg->name, name))
			return &engine->nodes[i];
	return NULL;
}

/* One more vector, not yet in use; NULL when there is no memory. */
static struct pd_vector *pd_vector_new(struct pd_engine *engine)
{
	struct pd_vector *v = aligned_alloc(PD_CACHE_LINE, sizeof(*v));

	if (!v)
		return NULL;
	v->n = 0;
	v->next_made = engine->made;
	engine->made = v;
	return v;
}

/* Fill in a node from its registration, but for its next nodes. Returns 0, -E2BIG or -ENOMEM. */
static int pd_node_setup(struct pd_engine *engine, struct pd_node *node,
			 const struct pd_node_registration *reg)
{
	if (reg->next_count > PD_NODE_NEXTS_MAX)
		return -E2BIG;
	node->reg = reg;
	node->fn = reg->fn;
	node->index = (uint32_t)(node - engine->nodes);
	node->next_count = reg->next_count;
	node->errors = calloc(reg->error_count + 1, sizeof(*node->errors));
	if (!node->errors)
		return -ENOMEM;
	for (int i = 0; i < PD_NODE_VECTORS; i++) {
		struct pd_vector *v = pd_vector_new(engine);

		if (!v)
			return -ENOMEM;
		v->next_free = engine->free;
		engine->free = v;
	}
	return 0;
}

/*
 * Find the next nodes of `node` by name, among the engine's and itself. Returns 0, -EEXIST or
 * -ENOENT.
 */
static int pd_node_link(struct pd_engine *engine, struct pd_node *node)
{
	const struct pd_node *same = pd_engine_node(engine, node->reg->name);

	if (same && same != node) {
		pd_err("graph", "two nodes are called %s", node->reg->name);
		return -EEXIST;
	}
	for (unsigned i = 0; i < node->next_count; i++) {
		const char *name = node->reg->next_names[i];
		const struct pd_node *next = name ? pd_engine_node(engine, name) : NULL;

		if (name && !strcmp(name, node->reg->name))
			next = node;
		if (!next) {
			pd_err("graph", "next node %u of %s, %s, does not exist", i,
			       node->reg->name, name ? name : "without a name");
			return -ENOENT;
		}
		node->next[i] = (uint16_t)next->index;
	}
	return 0;
}

/* Have next `i` of a node, whatever it was, lead to `to`. Others may read it. */
static void pd_node_set_next(struct pd_node *node, unsigned i, const struct pd_node *to)
{
	__atomic_store_n(&node->next[i], (uint16_t)to->index, __ATOMIC_RELAXED);
}

/*
 * Follow next `i` of `from` along the nodes that were put on the way, to the arc that leads to
 * `before`, and have it lead to `node`. False when it does not go there.
 */
static bool pd_node_reroute(struct pd_engine *engine, struct pd_node *from, unsigned i,
			    const struct pd_node *before, const struct pd_node *node)
{
	for (unsigned hops = 0; hops < engine->node_room; hops++) {
		struct pd_node *to = &engine->nodes[from->next[i]];

		if (to == before) {
			pd_node_set_next(from, i, node);
			return true;
		}
		if (!to->reg->after)
			return false;
		from = to;
		i = 0;
	}
	return false;
}

/*
 * Put `node` where it stands, behind those that were put there before. Returns 0, -ENOENT or
 * -EPERM.
 */
static int pd_node_insert(struct pd_engine *engine, struct pd_node *node)
{
	const struct pd_node_registration *reg = node->reg;
	struct pd_node *after, *before;
	unsigned found = 0;

	if (!reg->after)
		return 0;
	after = pd_engine_node(engine, reg->after);
	before = pd_engine_node(engine, reg->before);
	if (after && !after->reg->opens) {
		pd_err("graph", "%s asks for a place behind %s, where no node may stand", reg->name,
		       reg->after);
		return -EPERM;
	}
	for (unsigned i = 0; after && before && i < after->next_count; i++)
		found += pd_node_reroute(engine, after, i, before, node);
	if (found)
		return 0;
	pd_err("graph", "%s asks for a place on the way from %s to %s, and there is none",
	       reg->name, reg->after, reg->before);
	return -ENOENT;
}

static int pd_engine_sleep_on_lanes(struct pd_engine *engine, int timeout_ms);

/* Whether engines hold the node. */
static bool pd_node_moves_frames(const struct pd_node_registration *reg)
{
	return reg->type != PD_NODE_PROCESS;
}

/*
 * Make the nodes: the last registered stands first in the list, and gets the highest number.
 * Returns 0 or -errno.
 */
static int pd_engine_make_nodes(struct pd_engine *engine)
{
	const struct pd_node_registration *reg;
	unsigned n = engine->node_count;
	int ret = 0;

	for (reg = pd_node_registrations; reg && !ret; reg = reg->next)
		if (pd_node_moves_frames(reg))
			ret = pd_node_setup(engine, &engine->nodes[--n], reg);
	for (unsigned i = 0; i < engine->node_count && !ret; i++)
		ret = pd_node_link(engine, &engine->nodes[i]);
	for (unsigned i = 0; i < engine->node_count && !ret; i++)
		ret = pd_node_insert(engine, &engine->nodes[i]);
	return ret;
}

struct pd_node *pd_engine_add_node(struct pd_engine *engine, const struct pd_node_registration *reg,
				   int *err)
{
	struct pd_node *node = &engine->nodes[engine->node_count];

	*err = engine->node_count == engine->node_room ? -E2BIG : 0;
	if (*err)
		return NULL;
	*err = pd_node_setup(engine, node, reg);
	if (!*err)
		*err = pd_node_link(engine, node);
	if (!*err)
		*err = pd_node_insert(engine, node);
	if (*err) {
		free(node->errors);
		memset(node, 0, sizeof(*node));
		return NULL;
	}
	pd_store_release(&engine->node_count, engine->node_count + 1);
	return node;
}

int pd_node_add_next(struct pd_node *node, const struct pd_node *target)
{
	unsigned i;

	for (i = 0; i < node->next_count; i++)
		if (node->next[i] == target->index)
			return (int)i;
	if (i == PD_NODE_NEXTS_MAX)
		return -E2BIG;
	pd_node_set_next(node, i, target);
	pd_store_release(&node->next_count, i + 1);
	return (int)i;
}

struct pd_engine *pd_engine_create(const char *name, int *err)
{
	struct pd_engine *engine = calloc(1, sizeof(*engine));
	const struct pd_node_registration *reg;
	unsigned n = 0;

	*err = -ENOMEM;
	if (!engine)
		return NULL;
	snprintf(engine->name, sizeof(engine->name), "%s", name);
	pd_list_init(&engine->node);
	engine->wake_fd = -1;
	engine->idle_limit = PD_ENGINE_IDLE_LIMIT;
	engine->sleep = pd_engine_sleep_on_lanes;
	for (reg = pd_node_registrations; reg; reg = reg->next)
		n += pd_node_moves_frames(reg);
	engine->pending_size = PD_NODE_VECTORS * n + 64;
	engine->pending = calloc(engine->pending_size, sizeof(*engine->pending));
	engine->overflow = pd_vector_new(engine);
	engine->node_room = n + PD_ENGINE_SPARE_NODES;
	engine->nodes = aligned_alloc(PD_CACHE_LINE, engine->node_room * sizeof(*engine->nodes));
	if (!engine->pending || !engine->overflow || !engine->nodes)
		goto err_engine;
	memset(engine->nodes, 0, engine->node_room * sizeof(*engine->nodes));
	engine->node_count = n;
	*err = pd_engine_make_nodes(engine);
	if (*err)
		goto err_engine;
	pd_runtime_enter(engine);
	return engine;

err_engine:
	pd_engine_destroy(engine);
	return NULL;
}

void pd_engine_destroy(struct pd_engine *engine)
{
	if (!engine)
		return;
	pd_assert(!engine->pending_count);
	pd_runtime_leave(engine);
	pd_trace_leave(engine);
	if (engine->wake_fd >= 0)
		pd_sys_close(engine->wake_fd);
	while (engine->made) {
		struct pd_vector *v = engine->made;

		engine->made = v->next_made;
		free(v);
	}
	for (unsigned i = 0; engine->nodes && i < engine->node_count; i++)
		free(engine->nodes[i].errors);
	free(engine->nodes);
	free(engine->pending);
	free(engine);
}

void pd_engine_forget(struct pd_engine *engine)
{
	pd_trace_forget(engine);
	engine->pending_count = 0;
	engine->call = NULL;
	engine->overflowed = false;
	engine->free = NULL;
	for (struct pd_vector *v = engine->made; v; v = v->next_made) {
		v->n = 0;
		if (v == engine->overflow)
			continue;
		v->next_free = engine->free;
		engine->free = v;
	}
	for (unsigned i = 0; i < engine->node_count; i++) {
		struct pd_node *node = &engine->nodes[i];

		node->open = NULL;
		node->calls = node->vectors = node->clocks = node->clocked_vectors = 0;
		memset(node->errors, 0, node->reg->error_count * sizeof(*node->errors));
	}
}

/* --- rounds -------------------------------------------------------------------------------- */

/* Free what is ours of the buffers of a vector; external ones go back by themselves. */
static void pd_vector_free_buffers(struct pd_vector *v)
{
	uint32_t own[PD_VECTOR_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < v->n; i++)
		if (!(pd_buffer_get(v->index[i])->flags & PD_BUFFER_EXTERNAL))
			own[n++] = v->index[i];
	if (n)
		pd_buffer_free(own, n);
}

/* Free and count what stands in the overflow vector, and close it. */
static PD_COLD void pd_vector_empty_overflow(struct pd_engine *engine)
{
	pd_vector_free_buffers(engine->overflow);
	pd_node_add(&engine->lost, engine->overflow->n);
	engine->overflow->n = 0;
	engine->overflowed = false;
	for (unsigned i = 0; i < engine->node_count; i++)
		if (engine->nodes[i].open == engine->overflow)
			engine->nodes[i].open = NULL;
}

/* No memory: let `node` add to the overflow vector. */
static PD_COLD struct pd_vector *pd_vector_overflow(struct pd_engine *engine, struct pd_node *node)
{
	pd_vector_empty_overflow(engine);
	node->open = engine->overflow;
	engine->overflowed = true;
	return engine->overflow;
}

struct pd_vector *pd_vector_open(struct pd_engine *engine, struct pd_node *node)
{
	struct pd_vector *v = engine->free;

	if (pd_unlikely(engine->pending_count == engine->pending_size)) {
		void *more = realloc(engine->pending,
				     2ul * engine->pending_size * sizeof(*engine->pending));

		if (!more)
			return pd_vector_overflow(engine, node);
		engine->pending = more;
		engine->pending_size *= 2;
	}
	if (pd_likely(v))
		engine->free = v->next_free;
	else
		v = pd_vector_new(engine);
	if (pd_unlikely(!v))
		return pd_vector_overflow(engine, node);
	v->n = 0;
	node->open = v;
	engine->pending[engine->pending_count].node = node;
	engine->pending[engine->pending_count].vector = v;
	engine->pending_count++;
	return v;
}

void pd_vector_put(struct pd_engine *engine, struct pd_node *target, const uint32_t *indices,
		   unsigned n)
{
	while (n) {
		struct pd_vector *v = target->open;
		unsigned part;

		if (!v || v->n == PD_VECTOR_MAX)
			v = pd_vector_open(engine, target);
		part = pd_min(n, PD_VECTOR_MAX - v->n);
		memcpy(v->index + v->n, indices, part * sizeof(*indices));
		v->n += part;
		indices += part;
		n -= part;
	}
}

/* Run the function of a node, and have the tracer see what it works on. */
static PD_COLD unsigned pd_node_run_traced(struct pd_engine *engine, struct pd_node *node,
					   struct pd_vector *vector)
{
	struct pd_trace_arcs arcs;
	unsigned n;

	/* Pairs with the release in pd_trace_start. */
	if (!pd_load_acquire(&engine->tracing))
		return node->fn(engine, node, vector);
	if (vector)
		pd_trace_frames(engine, node, vector->index, vector->n);
	if (vector || !node->next_count)
		return node->fn(engine, node, vector);
	pd_trace_input_begin(engine, node, &arcs);
	n = node->fn(engine, node, NULL);
	pd_trace_input_end(engine, node, &arcs);
	return n;
}

/* Run a node on `vector` and count; the clock is read for vectors that are worth it. */
static inline unsigned pd_node_dispatch(struct pd_engine *engine, struct pd_node *node,
					struct pd_vector *vector, unsigned expected)
{
	uint64_t before = 0;
	unsigned n;

	if (expected >= PD_NODE_CLOCK_MIN)
		before = pd_clock_cycles();
	if (pd_likely(!pd_load_relaxed(&engine->tracing)))
		n = node->fn(engine, node, vector);
	else
		n = pd_node_run_traced(engine, node, vector);
	pd_node_count(node, n);
	if (before && n >= PD_NODE_CLOCK_MIN) {
		pd_node_add(&node->clocks, pd_clock_cycles() - before);
		pd_node_add(&node->clocked_vectors, n);
	}
	return n;
}

/* Run every node of `type`. An input node's vector is expected to be as long as its last. */
static unsigned pd_engine_run_type(struct pd_engine *engine, enum pd_node_type type)
{
	unsigned total = 0;

	for (unsigned i = 0; i < engine->node_count; i++) {
		struct pd_node *node = &engine->nodes[i];

		if (node->reg->type != type)
			continue;
		node->last_vectors = pd_node_dispatch(engine, node, NULL, node->last_vectors);
		total += node->last_vectors;
	}
	return total;
}

/* Run what is pending until nothing is. */
static void pd_engine_run_pending(struct pd_engine *engine)
{
	for (unsigned i = 0; i < engine->pending_count; i++) {
		struct pd_node *node = engine->pending[i].node;
		struct pd_vector *v = engine->pending[i].vector;

		/* From here on it is closed: what the node enqueues to itself opens a new one. */
		if (node->open == v)
			node->open = NULL;
		if (v->n)
			pd_node_dispatch(engine, node, v, v->n);
		v->next_free = engine->free;
		engine->free = v;
	}
	engine->pending_count = 0;
	if (pd_unlikely(engine->overflowed))
		pd_vector_empty_overflow(engine);
}

unsigned pd_engine_round(struct pd_engine *engine)
{
	unsigned n;

	engine->due_ns = UINT64_MAX;
	pd_engine_run_type(engine, PD_NODE_PRE_INPUT);
	n = pd_engine_run_type(engine, PD_NODE_INPUT);
	if (pd_load_relaxed(&engine->inbox))
		n += pd_handoff_take(engine);
	pd_engine_run_pending(engine);
	for (unsigned i = 0; i < engine->node_count; i++)
		if (engine->nodes[i].reg->finish)
			engine->nodes[i].reg->finish(engine, &engine->nodes[i]);
	pd_node_add(&engine->rounds, 1);
	return n;
}

unsigned pd_engine_run_input(struct pd_engine *engine, struct pd_node *node)
{
	node->last_vectors = pd_node_dispatch(engine, node, NULL, node->last_vectors);
	pd_engine_run_pending(engine);
	if (node->reg->finish)
		node->reg->finish(engine, node);
	pd_node_add(&engine->rounds, 1);
	return node->last_vectors;
}

void pd_engine_run_frames(struct pd_engine *engine, struct pd_node *target, const uint32_t *indices,
			  unsigned n)
{
	pd_vector_put(engine, target, indices, n);
	pd_engine_run_pending(engine);
	pd_node_add(&engine->rounds, 1);
}

/* --- polling and sleeping ------------------------------------------------------------------ */

/*
 * Sleep until a lane has something, pd_engine_stop, or `timeout_ms` (-1: never). Takes the lanes'
 * locks one after the other. Returns 0, or -errno of ppoll.
 */
static int pd_engine_sleep_on_lanes(struct pd_engine *engine, int timeout_ms)
{
	struct timespec ts = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
	struct pd_lane_waiter waiters[PD_ENGINE_LANES_MAX];
	struct pd_lane *lanes[PD_ENGINE_LANES_MAX];
	struct pollfd fds[PD_ENGINE_LANES_MAX + 1];
	unsigned n = 0, linked;
	bool may_sleep = true;
	uint64_t drained;
	int ret = 0;

	/*
	 * Numbers that stay: engines with threads of their own run in our programs, where names are
	 * numbers.
	 */
	fds[0] = (struct pollfd){.fd = pd_internal_fd_number(engine->wake_fd), .events = POLLIN};
	for (uint64_t left = engine->lane_mask; left && may_sleep; left &= left - 1) {
		struct pd_lane *lane = engine->lanes[__builtin_ctzll(left)];
		struct pd_lane_side *side = &lane->side[PD_RX];

		pd_lock(&side->lock);
		lanes[n] = lane;
		pd_list_init(&waiters[n].node);
		waiters[n].wake_fd = engine->wake_fd;
		waiters[n].seen = side->cursor;
		may_sleep = pd_lane_sleep(lane, PD_RX, &waiters[n]);
		fds[n + 1] = (struct pollfd){.fd = pd_internal_fd_number(side->event_fd),
					     .events = POLLIN};
		n += may_sleep;
		pd_unlock(&side->lock);
	}
	linked = n;
	if (may_sleep && !pd_load_acquire(&engine->stopping))
		ret = pd_sys_ppoll(fds, linked + 1, timeout_ms < 0 ? NULL : &ts, NULL);
	for (unsigned i = 0; i < linked; i++) {
		pd_lock(&lanes[i]->side[PD_RX].lock);
		pd_lane_wake(lanes[i], PD_RX, &waiters[i], ret > 0 && fds[i + 1].revents & POLLIN);
		pd_unlock(&lanes[i]->side[PD_RX].lock);
	}
	if (ret > 0 && fds[0].revents)
		pd_sys_read(engine->wake_fd, &drained, sizeof(drained));
	return pd_min(ret, 0);
}

/* Make the descriptor that pd_engine_stop wakes a sleep with, once. Returns 0 or -errno. */
static int pd_engine_make_wake(struct pd_engine *engine)
{
	int fd = engine->wake_fd;

	if (fd >= 0)
		return 0;
	fd = pd_internal_fd(pd_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (fd < 0)
		return fd;
	pd_store_release(&engine->wake_fd, fd);
	/* Either the stop finds the descriptor, or the round that follows finds the stop: pairs with the fence in
	 * pd_engine_stop. */
	pd_fence_full();
	return 0;
}

/* How long the engine may sleep: -1 when nothing is due, rounded down when a node has work then. */
static int pd_engine_timeout_ms(const struct pd_engine *engine)
{
	uint64_t now;

	if (engine->due_ns == UINT64_MAX)
		return -1;
	now = pd_clock_ns();
	if (engine->due_ns <= now)
		return 0;
	return (int)pd_min((engine->due_ns - now) / PD_NS_PER_MS, (uint64_t)INT32_MAX);
}

/*
 * Sleep, unless a last round finds work: whoever brings some from here on finds the engine asleep
 * and wakes it. *n is what that round found. Returns 0 or -errno of the sleep.
 */
static int pd_engine_rest(struct pd_engine *engine, unsigned *n)
{
	int ret = 0, timeout_ms;

	pd_store_relaxed(&engine->asleep, 1);
	/* Pairs with the fence in pd_engine_wake. */
	pd_fence_full();
	*n = pd_engine_round(engine);
	timeout_ms = pd_engine_timeout_ms(engine);
	if (!*n && timeout_ms)
		ret = engine->sleep(engine, timeout_ms);
	pd_store_relaxed(&engine->asleep, 0);
	return ret == -EINTR ? 0 : ret;
}

int pd_engine_run(struct pd_engine *engine)
{
	unsigned found = 0; /* rounds in a row that had work */
	int ret = pd_engine_make_wake(engine);

	while (!ret && !pd_load_acquire(&engine->stopping)) {
		unsigned n = pd_engine_round(engine);

		found = n ? found + 1 : 0;
		engine->idle_rounds = n && found >= 2 ? 0 : engine->idle_rounds + 1;
		if (n || engine->idle_rounds < engine->idle_limit)
			continue;
		engine->idle_rounds = engine->idle_limit;
		ret = pd_engine_rest(engine, &n);
		found += n != 0;
	}
	if (ret)
		pd_err("graph", "the engine %s cannot sleep: %s", engine->name, pd_strerror(ret));
	pd_store_release(&engine->stopping, 0);
	return ret;
}

/* End a sleep of the engine's, or its next one. Any thread. */
static void pd_engine_ring(struct pd_engine *engine)
{
	static const uint64_t one = 1;
	int fd = pd_load_acquire(&engine->wake_fd);

	if (fd >= 0)
		pd_sys_write(fd, &one, sizeof(one));
}

void pd_engine_stop(struct pd_engine *engine)
{
	pd_store_release(&engine->stopping, 1);
	/* Pairs with the fence in pd_engine_make_wake. */
	pd_fence_full();
	pd_engine_ring(engine);
}

void pd_engine_wake(struct pd_engine *engine)
{
	/*
	 * Either the engine's last look before it sleeps finds the work, or this finds it asleep:
	 * pairs with the fence in pd_engine_rest. Of several who find it so, one rings.
	 */
	pd_fence_full();
	if (pd_load_relaxed(&engine->asleep) && pd_exchange(&engine->asleep, 0))
		pd_engine_ring(engine);
}

/* --- where frames end ---------------------------------------------------------------------- */

/* drop: the end of frames that nobody wants. */
static unsigned pd_drop_dispatch(struct pd_engine *engine, struct pd_node *node,
				 struct pd_vector *vector)
{
	(void)engine;
	(void)node;
	pd_vector_free_buffers(vector);
	return vector->n;
}

PD_NODE_REGISTER(pd_drop) = {
	.name = "drop",
	.type = PD_NODE_INTERNAL,
	.fn = pd_drop_dispatch,
};

/*
 * error-drop: counts the error that pd_buffer_set_error noted, at the node that noted it; then
 * drop.
 */
static unsigned pd_error_drop_dispatch(struct pd_engine *engine, struct pd_node *node,
				       struct pd_vector *vector)
{
	uint16_t nexts[PD_VECTOR_MAX] = {0};

	for (unsigned i = 0; i < vector->n; i++) {
		uint32_t note = pd_buffer_error(pd_buffer_get(vector->index[i]));

		pd_assert(note >> 16 < engine->node_count);
		pd_assert((note & 0xffff) < engine->nodes[note >> 16].reg->error_count);
		pd_node_add(&engine->nodes[note >> 16].errors[note & 0xffff], 1);
	}
	pd_enqueue(engine, node, vector->index, nexts, vector->n);
	return vector->n;
}

/* Why a frame is dropped. */
struct pd_error_drop_trace {
	const char *node, *error;
	uint16_t rx_port;
};
_Static_assert(sizeof(struct pd_error_drop_trace) <= PD_TRACE_RECORD_BYTES, "it fits");

static void pd_error_drop_trace(const struct pd_engine *engine, const struct pd_node *node,
				const struct pd_buffer *b, void *record)
{
	uint32_t note = pd_buffer_error(b);
	const struct pd_node_registration *reg = engine->nodes[note >> 16].reg;

	(void)node;
	*(struct pd_error_drop_trace *)record = (struct pd_error_drop_trace){
		.node = reg->name, .error = reg->errors[note & 0xffff], .rx_port = b->rx_port};
}

static int pd_error_drop_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_error_drop_trace *drop = record;
	char port[PD_PORT_TEXT_BYTES];

	return snprintf(out, size, "%s: %s\nrx:%s", drop->node, drop->error,
			pd_port_text(drop->rx_port, port));
}

PD_NODE_REGISTER(pd_error_drop) = {
	.name = "error-drop",
	.type = PD_NODE_INTERNAL,
	.no_entry = true,
	.fn = pd_error_drop_dispatch,
	.trace = pd_error_drop_trace,
	.format_trace = pd_error_drop_format_trace,
	.next_count = 1,
	.next_names = {"drop"},
};

/*
 * punt: frames that a node does not want to decide about go to who takes them in this engine, past
 * all other nodes; where there is nobody, they are errors.
 */
enum pd_punt_next { PD_PUNT_NEXT_ERROR, PD_PUNT_NEXT_TAKER, PD_PUNT_NEXTS };

#define PD_PUNT_ERROR_TABLE(_) _(NOBODY, "nobody takes punted frames here")

enum pd_punt_error {
#define PD_ROW(id, text) PD_PUNT_ERROR_##id,
	PD_PUNT_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_PUNT_ERRORS
};

/* The node. Returns the frames it saw. */
static unsigned pd_punt_dispatch(struct pd_engine *engine, struct pd_node *node,
				 struct pd_vector *vector)
{
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	uint16_t *nexts = engine->scratch.nexts;
	bool taken = node->next_count > PD_PUNT_NEXT_TAKER;

	for (unsigned i = 0; i < vector->n; i++) {
		nexts[i] = taken ? PD_PUNT_NEXT_TAKER : PD_PUNT_NEXT_ERROR;
		if (!taken)
			pd_buffer_set_error(pd_buffer_get(vector->index[i]), &ctx,
					    PD_PUNT_ERROR_NOBODY);
	}
	pd_enqueue(engine, node, vector->index, nexts, vector->n);
	return vector->n;
}

static const char *const pd_punt_errors[] = {PD_PUNT_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

PD_NODE_REGISTER(pd_punt) = {
	.name = "punt",
	.type = PD_NODE_INTERNAL,
	.fn = pd_punt_dispatch,
	.trace = pd_trace_frame,
	.format_trace = pd_trace_frame_format,
	.errors = pd_punt_errors,
	.error_count = PD_PUNT_ERRORS,
	.next_count = 1,
	.next_names = {[PD_PUNT_NEXT_ERROR] = "error-drop"},
};

int pd_engine_punt_to(struct pd_engine *engine, const struct pd_node *target)
{
	struct pd_node *punt = pd_engine_node(engine, "punt");
	int next = pd_node_add_next(punt, target);

	pd_assert(next < 0 || next == PD_PUNT_NEXT_TAKER);
	return pd_min(next, 0);
}
