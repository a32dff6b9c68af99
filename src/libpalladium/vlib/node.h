/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Graph nodes and the engine that dispatches them.
 *
 * A node is one file with its registration, its error counters, its trace format and its dispatch
 * function together:
 *
 *   PD_NODE_REGISTER(my_node) = {
 *           .name = "my-node",
 *           .type = PD_NODE_INTERNAL,
 *           .fn = my_node_dispatch,
 *           .errors = my_node_errors, .error_count = MY_NODE_ERRORS,
 *           .next_count = MY_NODE_NEXTS,
 *           .next_names = {[MY_NODE_NEXT_DROP] = "error-drop"},
 *   };
 *
 * The work of a node on one frame is an inline function that returns which next node the frame goes
 * to; PD_NODE_DISPATCH makes the dispatch function from it. A fused path calls the same inline
 * functions in a straight line, so both give the same results (port_nodes.h shows it).
 *
 * An engine is one instance of the graph, run by one thread at a time. Work travels in vectors: a
 * frame of the graph (struct pd_vector) is an array of up to PD_VECTOR_MAX buffer indices. One
 * vector per node is open for adding; everybody who enqueues to that node adds to it, so the node
 * that is the target owns it and no arc has to hand it over. When it fills, it stays pending and a
 * new one opens; it is detached before its node runs, so a node that enqueues to itself opens a new
 * one.
 *
 * Counters of a node count what was done with its function, be it by the dispatcher or by a fused
 * path (pd_node_count). Only the dispatcher reads the clock. One thread writes, any may read
 * (runtime.h).
 *
 * Nodes and arcs can be added to an engine that is at rest (pd_engine_add_node, pd_node_add_next). A
 * node may stand on the way between two others (`after`, `before`): the arcs between them lead to it
 * then, and its first next to where they led. This is how nodes of plug-ins come into the graph
 * (plugin.h), behind a node that lets them.
 *
 * Process nodes move no frames: process.h has them, and no engine holds them.
 */
#ifndef PD_VLIB_NODE_H
#define PD_VLIB_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/list.h"
#include "vlib/buffer.h"
#include "vlib/lane.h"

#define PD_NODE_NEXTS_MAX 16
#define PD_NODE_DATA_BYTES 128
#define PD_ENGINE_LANES_MAX 64
/* Nodes that can be added to an engine after it was made. */
#define PD_ENGINE_SPARE_NODES 8
/* What the tracer keeps of a frame at one node. */
#define PD_TRACE_RECORD_BYTES 112

struct pd_engine;
struct pd_handoff_queue;
struct pd_node;
struct pd_process;
struct pd_tracer;

enum pd_node_type {
	PD_NODE_PRE_INPUT, /* once a round, before every other */
	PD_NODE_INPUT,     /* once a round: brings work in */
	PD_NODE_INTERNAL,  /* when work was enqueued to it */
	PD_NODE_PROCESS,   /* on an event or a clock, by the progress thread: process.h */
	PD_NODE_TYPES
};

/* A vector of buffers on its way to a node. */
struct pd_vector {
	uint32_t n;
	struct pd_vector *next_free, *next_made; /* private */
	uint32_t index[PD_VECTOR_MAX] PD_CACHE_ALIGNED;
} PD_CACHE_ALIGNED;

/*
 * Dispatch: `vector` is the work (NULL for pre-input and input nodes). Whatever is in it is the
 * node's: to enqueue or to free. Returns how many frames it worked on.
 */
typedef unsigned (*pd_node_fn)(struct pd_engine *engine, struct pd_node *node,
			       struct pd_vector *vector);

struct pd_node_registration {
	const char *name;
	enum pd_node_type type;
	pd_node_fn fn;
	void (*process)(struct pd_process *process); /* instead of fn: process.h */
	size_t stack_bytes; /* of a process, rounded up to whole pages; 0: fiber.h's default */
	/*
	 * Input nodes: the round is over, nothing of what fn brought in is in the graph any more.
	 */
	void (*finish)(struct pd_engine *engine, struct pd_node *node);
	const char *const *errors; /* texts, by number */
	unsigned error_count;
	unsigned next_count;
	const char *next_names[PD_NODE_NEXTS_MAX];
	/*
	 * Frames come to it from its neighbours alone, who leave something with them (a note in the
	 * buffer, engine->call): nothing from outside of the graph may be enqueued to it.
	 */
	bool no_entry;
	/*
	 * Nodes may be put on the ways that leave it: the frames there are in buffers of their own,
	 * to be written to.
	 */
	bool opens;
	/*
	 * It stands on the way from node `after`, which opens, to node `before`, behind those that
	 * were put there earlier; its next 0 leads on and names `before` too. Both NULL: nowhere.
	 */
	const char *after, *before;
	/*
	 * Fill `record`, up to PD_TRACE_RECORD_BYTES, for the tracer (trace.h), before the node
	 * works on the frame `b`; an input node: when it has brought it in. Takes no lock. NULL:
	 * nothing to tell.
	 */
	void (*trace)(const struct pd_engine *engine, const struct pd_node *node,
		      const struct pd_buffer *b, void *record);
	/*
	 * Write such a record as text, of several lines if need be; NULL: nothing to tell. Returns
	 * the length, as snprintf.
	 */
	int (*format_trace)(char *out, size_t size, const void *record);
	struct pd_node_registration *next; /* private */
};

extern struct pd_node_registration *pd_node_registrations;

/* The row of a table of errors, (id, text), in a node's list of their texts. */
#define PD_NODE_ERROR_TEXT(id, text) text,

/* Register a node when its object is loaded; an initialiser follows. */
#define PD_NODE_REGISTER(id)                                          \
	static struct pd_node_registration pd_node_registration_##id; \
	static PD_CONSTRUCTOR_EARLY void pd_node_register_##id(void)  \
	{                                                             \
		pd_node_register(&pd_node_registration_##id);         \
	}                                                             \
	static struct pd_node_registration pd_node_registration_##id

/* Enter `reg` for every engine that is made from here on; borrowed for good. */
void pd_node_register(struct pd_node_registration *reg);

/* Take `reg` out again; no engine has it. Control path. */
void pd_node_unregister(struct pd_node_registration *reg);

/* The registration of that name, or NULL. */
struct pd_node_registration *pd_node_registered(const char *name);

/*
 * Whether frames may be enqueued to node `name` from outside of its graph: 0, -ENOENT when no such
 * node is registered, or -EPERM: it is no internal node, or one with no_entry. Control path.
 */
int pd_node_may_enter(const char *name);

/* A node in one engine. Counters have one writer, the thread that runs the engine. */
struct pd_node {
	pd_node_fn fn;
	struct pd_vector *open; /* vector that may still be added to; NULL: none */
	uint64_t calls, vectors;
	uint64_t clocks, clocked_vectors; /* cycles, and the frames that were timed */
	uint64_t *errors;
	uint32_t index;
	uint32_t last_vectors;
	uint32_t next_count;              /* atomic, to others than who runs it */
	uint16_t next[PD_NODE_NEXTS_MAX]; /* indices of nodes; the same */
	const struct pd_node_registration *reg;
	uint8_t data[PD_NODE_DATA_BYTES] PD_CACHE_ALIGNED; /* the node's own, zero at first */
} PD_CACHE_ALIGNED;

/* What the inline function of a node gets, from the graph and from a fused path alike. */
struct pd_node_ctx {
	uint64_t *errors;
	void *data;
	uint32_t index; /* of the node, for pd_buffer_set_error; 0 in a fused path */
};

/*
 * Room for vectors, in place of the stacks of the program's threads, which may be small. It belongs
 * to the function that runs for the engine: a node's dispatch, or a call on the fused way, until it
 * returns.
 */
struct pd_engine_scratch {
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	struct pd_buffer *more[PD_VECTOR_MAX];
	uint32_t indices[2 * PD_VECTOR_MAX];
	uint16_t nexts[2 * PD_VECTOR_MAX];
};

struct pd_engine {
	char name[32];
	struct pd_list node; /* in the list of all engines: runtime.h */
	void *call; /* what the caller of this round works for; its nodes know what it is */
	struct pd_node *nodes;
	unsigned node_count; /* atomic, to others than who runs it */
	unsigned node_room;
	struct {
		struct pd_node *node;
		struct pd_vector *vector;
	} * pending;
	unsigned pending_count, pending_size;
	struct pd_vector *free, *made; /* unused vectors; all vectors */
	struct pd_vector *overflow;    /* where frames go when there is no memory for a vector */
	bool overflowed;               /* it is open for some node */
	uint64_t lost;                 /* frames freed that way */
	uint64_t rounds;
	uint64_t serial; /* of all engines ever made, from 1 */
	/* Lanes that the port nodes work on (port_nodes.h); by port index. */
	struct pd_lane *lanes[PD_ENGINE_LANES_MAX];
	uint16_t shown[PD_ENGINE_LANES_MAX]; /* frames to hand back when the round is over */
	uint64_t lane_mask;
	/* Adaptive polling: rounds without work before `sleep` is asked, and what it does. */
	uint32_t idle_rounds, idle_limit;
	int (*sleep)(struct pd_engine *engine, int timeout_ms);
	int wake_fd; /* atomic; -1 until pd_engine_run */
	uint32_t stopping;
	uint64_t due_ns;                /* a node has work then; set anew in every round */
	uint32_t asleep;                /* atomic: pd_engine_run sleeps, or is about to */
	uint16_t thread;                /* number of the worker that runs it (worker.h); else 0 */
	struct pd_handoff_queue *inbox; /* atomic; what others hand to it (handoff.h) */
	uint32_t tracing; /* atomic: `tracer` is there, and looks at frames (trace.h) */
	struct pd_tracer *tracer;
	struct pd_engine_scratch scratch;
};

/*
 * How many want each frame to go through a graph, and fused paths not to be taken: the tracer,
 * plug-ins. Atomic; who changes it need not wait for calls that are under way.
 */
extern uint32_t pd_graph_wanted;

/*
 * Make an engine of all registered nodes but process nodes; they are numbered in the order of their
 * registration. Opens no descriptor. Control path. Returns it, or NULL with *err set: -ENOENT when
 * a next node, or the way that a node is to stand on, does not exist, -EPERM when nobody may stand
 * there, -EEXIST when two have one name (all logged by name), -E2BIG, or -ENOMEM.
 */
struct pd_engine *pd_engine_create(const char *name, int *err);

/* Free an engine; nothing is pending in it. NULL is allowed. */
void pd_engine_destroy(struct pd_engine *engine);

/* The node of that name, or NULL. */
struct pd_node *pd_engine_node(struct pd_engine *engine, const char *name);

/*
 * Add a node to an engine that is at rest: `reg`, which is registered, or will be. Its nexts are
 * looked up, and it is put where `after` and `before` say. Control path. Returns it, or NULL with
 * *err as pd_engine_create; then nothing has changed.
 */
struct pd_node *pd_engine_add_node(struct pd_engine *engine, const struct pd_node_registration *reg,
				   int *err);

/*
 * Have frames go from `node` to `target`, a node of the same engine, which is at rest. Control
 * path. Returns the number of the next, which may have been there before, or -E2BIG.
 */
int pd_node_add_next(struct pd_node *node, const struct pd_node *target);

/*
 * Frames that a node sends to "punt" go to `target` in this engine, which is at rest; in an engine
 * where nobody takes them they are dropped and counted. Returns 0 or -E2BIG. Control path.
 */
int pd_engine_punt_to(struct pd_engine *engine, const struct pd_node *target);

/*
 * One round: pre-input, input, what other threads handed over, then all pending work until there is
 * none. Returns the frames that input nodes and other threads brought in.
 */
unsigned pd_engine_round(struct pd_engine *engine);

/*
 * One input node's share of a round: `node`, then all pending work, then its finish. Others that
 * bring work in do not run: this is how a caller with work of its own (engine->call) puts it
 * through the graph. Returns the frames that came in.
 */
unsigned pd_engine_run_input(struct pd_engine *engine, struct pd_node *node);

/*
 * A round for `n` frames that the caller brings, up to PD_VECTOR_MAX: they are enqueued to node
 * `target`, and all that is pending runs. For who runs the engine, between rounds.
 */
void pd_engine_run_frames(struct pd_engine *engine, struct pd_node *target, const uint32_t *indices,
			  unsigned n);

/*
 * Rounds until pd_engine_stop. Polls while there is work; after `idle_limit` rounds without any it
 * sleeps (engine->sleep), and polls again only once two rounds in a row had work, so that a trickle
 * of frames does not make it poll for nothing. Returns 0, or -errno when it cannot sleep.
 */
int pd_engine_run(struct pd_engine *engine);

/* End pd_engine_run; any thread. */
void pd_engine_stop(struct pd_engine *engine);

/*
 * There is work for a node of `engine` since now: if pd_engine_run sleeps, it looks. Any thread;
 * costs a system call only when it sleeps.
 */
void pd_engine_wake(struct pd_engine *engine);

/* Open a new vector for `node` and make it pending. */
struct pd_vector *pd_vector_open(struct pd_engine *engine, struct pd_node *node);

/*
 * Where to add buffer indices for next node number `next` of `node`: returns the place, *room tells
 * how many fit (at least one). pd_next_put follows, before anything else is enqueued.
 */
static inline uint32_t *pd_next_get(struct pd_engine *engine, struct pd_node *node, unsigned next,
				    unsigned *room)
{
	struct pd_node *target;
	struct pd_vector *v;

	pd_assert(next < node->next_count);
	target = &engine->nodes[node->next[next]];
	v = target->open;
	if (pd_unlikely(!v || v->n == PD_VECTOR_MAX))
		v = pd_vector_open(engine, target);
	*room = PD_VECTOR_MAX - v->n;
	return v->index + v->n;
}

/* `added` indices stand where pd_next_get said. */
static inline void pd_next_put(struct pd_engine *engine, struct pd_node *node, unsigned next,
			       unsigned added)
{
	engine->nodes[node->next[next]].open->n += added;
}

/*
 * Enqueue `n` buffers to node `target`, whatever arcs there are: for what comes in from outside of
 * the graph.
 */
void pd_vector_put(struct pd_engine *engine, struct pd_node *target, const uint32_t *indices,
		   unsigned n);

/* Enqueue `n` buffers, each to the next node that `nexts` says; runs of one next go together. */
static inline void pd_enqueue(struct pd_engine *engine, struct pd_node *node,
			      const uint32_t *indices, const uint16_t *nexts, unsigned n)
{
	for (unsigned i = 0; i < n;) {
		unsigned room, run = 1;
		uint32_t *to = pd_next_get(engine, node, nexts[i], &room);

		room = pd_min(room, n - i);
		while (run < room && nexts[i + run] == nexts[i])
			run++;
		if (run == 1)
			*to = indices[i];
		else
			memcpy(to, indices + i, run * sizeof(*to));
		pd_next_put(engine, node, nexts[i], run);
		i += run;
	}
}

/* Remember in the buffer which error of which node sends it to error-drop. */
static inline void pd_buffer_set_error(struct pd_buffer *b, const struct pd_node_ctx *ctx,
				       unsigned error)
{
	uint32_t note = ctx->index << 16 | error;

	memcpy(b->opaque2, &note, sizeof(note));
}

/* The error that pd_buffer_set_error noted; its node in the upper half. */
static inline uint32_t pd_buffer_error(const struct pd_buffer *b)
{
	uint32_t note;

	memcpy(&note, b->opaque2, sizeof(note));
	return note;
}

/* Add to a counter that this thread writes and any may read. */
static inline void pd_node_add(uint64_t *counter, uint64_t n)
{
	pd_store_relaxed(counter, *counter + n);
}

/*
 * Count that `node` worked on `n` frames; a fused path calls it once for each node it stands for.
 */
static inline void pd_node_count(struct pd_node *node, unsigned n)
{
	pd_node_add(&node->calls, 1);
	pd_node_add(&node->vectors, n);
}

/* The context of a node for its inline function. */
static inline struct pd_node_ctx pd_node_ctx(struct pd_node *node)
{
	return (struct pd_node_ctx){
		.errors = node->errors, .data = node->data, .index = node->index};
}

/* Make the dispatch function `fn` from the inline function `one`:
 * uint16_t one(const struct pd_node_ctx *, struct pd_buffer *). */
#define PD_NODE_DISPATCH(fn, one)                                                        \
	static unsigned fn(struct pd_engine *engine, struct pd_node *node,               \
			   struct pd_vector *vector)                                     \
	{                                                                                \
		const struct pd_node_ctx ctx = pd_node_ctx(node);                        \
		uint16_t nexts[PD_VECTOR_MAX];                                           \
		unsigned n = vector->n;                                                  \
                                                                                         \
		for (unsigned i = 0; i < n; i++) {                                       \
			if (i + 4 < n)                                                   \
				__builtin_prefetch(pd_buffer_get(vector->index[i + 4])); \
			nexts[i] = one(&ctx, pd_buffer_get(vector->index[i]));           \
		}                                                                        \
		pd_enqueue(engine, node, vector->index, nexts, n);                       \
		return n;                                                                \
	}                                                                                \
	_Static_assert(sizeof(#fn) > 1, "a semicolon follows")

#endif /* PD_VLIB_NODE_H */
