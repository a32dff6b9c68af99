/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * packet-input, packet-match, packet-deliver and packet-queue, and the fused form of receiving (the theory stands in packet_nodes.h).
 * packet_tx.c has packet-send and packet-output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "counters/counters.h"
#include "sock/packet_nodes.h"

/* --- copies ------------------------------------------------------------------------------- */

struct pd_buffer *pd_frame_copy(const struct pd_buffer *src)
{
	uint32_t need = (src->total_len + PD_RX_BUFFER_BYTES - 1) / PD_RX_BUFFER_BYTES, done = 0;
	uint32_t chain[PD_FRAME_MAX_BYTES / PD_RX_BUFFER_BYTES + 2], got;
	struct pd_buffer *b;

	need = pd_max(need, 1u);
	if (need > PD_ARRAY_SIZE(chain))
		return NULL;
	got = pd_buffer_alloc(pd_rx_pool, chain, need);
	if (got < need) {
		pd_buffer_free(chain, got);
		return NULL;
	}
	for (uint32_t i = 0; i < need; i++) {
		b = pd_buffer_get(chain[i]);
		b->len = pd_buffer_copy_out(src, done, b->data, PD_RX_BUFFER_BYTES);
		done += b->len;
		b->next = i + 1 < need ? chain[i + 1] : PD_BUFFER_NONE;
	}
	b = pd_buffer_get(chain[0]);
	b->total_len = src->total_len;
	b->flags = src->flags &
		   (PD_BUFFER_CONTROL | PD_BUFFER_SIDECAR | PD_BUFFER_OUTGOING | PD_BUFFER_TRACED);
	b->trace = src->trace;
	b->rx_port = src->rx_port;
	if (src->flags & PD_BUFFER_SIDECAR)
		memcpy(b->sidecar, src->sidecar, sizeof(b->sidecar));
	return b;
}

/* --- packet-input ------------------------------------------------------------------------- */

/* Show frames of the call's lane. They stay in the ring until the call is through the graph. */
static unsigned pd_packet_input_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	struct pd_packet_call *call = engine->call;
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	unsigned room;
	uint32_t *to;

	(void)vector;
	if (!call) /* a round that is about something else */
		return 0;
	call->got = call->lane->ops->rx(call->lane, bufs, call->max);
	if (pd_unlikely(call->got < 0))
		pd_node_add(&node->errors[PD_PACKET_INPUT_ERROR_BROKEN], 1);
	if (call->got <= 0)
		return 0;
	to = pd_next_get(engine, node, 0, &room);
	pd_assert(room >= (unsigned)call->got); /* the first of this round */
	for (int i = 0; i < call->got; i++)
		to[i] = bufs[i]->index;
	pd_next_put(engine, node, 0, (unsigned)call->got);
	return (unsigned)call->got;
}

/* Hand the frames back that the call has used up; one that it only peeked at stays. */
static PD_ALWAYS_INLINE void pd_packet_take_end(struct pd_packet_call *call)
{
	if (pd_unlikely(call->flags & MSG_PEEK && call->filled)) /* max is 1 */
		call->done = 0;
	if (pd_likely(call->done))
		call->lane->ops->rx_done(call->lane, call->done);
}

static void pd_packet_input_finish(struct pd_engine *engine, struct pd_node *node)
{
	struct pd_packet_call *call = engine->call;

	(void)node;
	if (call && call->got > 0)
		pd_packet_take_end(call);
}

static const char *const pd_packet_input_errors[] = {
#define PD_ROW(id, text) text,
	PD_PACKET_INPUT_ERROR_TABLE(PD_ROW)
#undef PD_ROW
};

PD_NODE_REGISTER(pd_packet_input) = {
	.name = "packet-input",
	.type = PD_NODE_INPUT,
	.fn = pd_packet_input_dispatch,
	.finish = pd_packet_input_finish,
	.errors = pd_packet_input_errors,
	.error_count = PD_PACKET_INPUT_ERRORS,
	.next_count = 1,
	.next_names = {"packet-match"},
};

/* --- packet-match ------------------------------------------------------------------------- */

/* One frame: where it goes, as what. Counts in the call what nobody gets. */
static PD_ALWAYS_INLINE uint16_t pd_packet_match_one(struct pd_packet_call *call,
						     const struct pd_node_ctx *ctx,
						     struct pd_buffer **b)
{
	uint16_t next =
		call->alone ? pd_packet_match_alone(call->s, *b) : pd_packet_match_shared(call, b);

	if (next == PD_PACKET_MATCH_NEXT_ERROR) {
		call->unwanted++;
		pd_buffer_set_error(*b, ctx,
				    call->alone || call->taps->n ? PD_PACKET_MATCH_ERROR_FILTERED
								 : PD_PACKET_MATCH_ERROR_NO_SOCKET);
	}
	return next;
}

static unsigned pd_packet_match_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	struct pd_packet_call *call = engine->call;
	uint16_t nexts[PD_VECTOR_MAX];
	unsigned i;

	for (i = 0; i < vector->n; i++) {
		struct pd_buffer *b = pd_buffer_get(vector->index[i]);

		if (i + 4 < vector->n)
			__builtin_prefetch(pd_buffer_get(vector->index[i + 4]));
		nexts[i] = pd_packet_match_one(call, &ctx, &b);
		if (pd_unlikely(nexts[i] == PD_PACKET_MATCH_KEEP))
			break;
		vector->index[i] = b->index;
	}
	pd_enqueue(engine, node, vector->index, nexts, i);
	call->done = i;
	return i;
}

static const char *const pd_packet_match_errors[] = {
#define PD_ROW(id, text) text,
	PD_PACKET_MATCH_ERROR_TABLE(PD_ROW)
#undef PD_ROW
};

PD_NODE_REGISTER(pd_packet_match) = {
	.name = "packet-match",
	.type = PD_NODE_INTERNAL,
	.fn = pd_packet_match_dispatch,
	.errors = pd_packet_match_errors,
	.error_count = PD_PACKET_MATCH_ERRORS,
	.next_count = PD_PACKET_MATCH_NEXTS,
	.next_names = {[PD_PACKET_MATCH_NEXT_DELIVER] = "packet-deliver",
		       [PD_PACKET_MATCH_NEXT_QUEUE] = "packet-queue",
		       [PD_PACKET_MATCH_NEXT_DROP] = "drop",
		       [PD_PACKET_MATCH_NEXT_ERROR] = "error-drop"},
};

/* --- packet-deliver ----------------------------------------------------------------------- */

static unsigned pd_packet_deliver_dispatch(struct pd_engine *engine, struct pd_node *node,
					   struct pd_vector *vector)
{
	struct pd_packet_call *call = engine->call;

	(void)node;
	for (unsigned i = 0; i < vector->n; i++)
		pd_packet_deliver_one(call, pd_buffer_get(vector->index[i]));
	return vector->n;
}

PD_NODE_REGISTER(pd_packet_deliver) = {
	.name = "packet-deliver",
	.type = PD_NODE_INTERNAL,
	.fn = pd_packet_deliver_dispatch,
};

/* --- packet-queue ------------------------------------------------------------------------- */

/* CLOCK_REALTIME as nanoseconds. */
static uint64_t pd_packet_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * PD_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/*
 * Put a frame into the queue of `s`, which takes a reference; dropped and counted when it is full, or when the frame is no copy because
 * no buffer was left. packet->lock held, between begin and end of the queue's counters.
 */
static void pd_packet_queue_one(struct pd_packet *s, struct pd_buffer *b, bool whole,
				uint64_t *errors)
{
	bool copied = !(b->flags & PD_BUFFER_EXTERNAL);
	struct pd_frame_queue *q = &s->queue;

	__atomic_fetch_add(&s->stat_packets, 1, __ATOMIC_RELAXED);
	if (!copied || (!whole && q->bytes + b->total_len > s->receive_limit_bytes) ||
	    pd_frame_queue_grow(q)) {
		s->stat_drops++;
		s->drops_ever++;
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_RX_DROP_FULL, 1);
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_RX_DROPPED_BYTES, b->total_len);
		pd_node_add(&errors[PD_PACKET_QUEUE_ERROR_FULL], copied);
		return;
	}
	pd_buffer_ref(b);
	q->ring[q->tail & q->mask] = (struct pd_queued){b->index, s->drops_ever,
							pd_packet_stamps(s) ? pd_packet_now() : 0};
	pd_store_relaxed(&q->tail, q->tail + 1);
	q->bytes += b->total_len;
	s->queued_ever++;
}

/* Give tap `t` those of the frames that it wants; its lock is taken once, if there is one. */
static void pd_packet_queue_tap(const struct pd_packet_call *call, struct pd_node *node, unsigned t,
				struct pd_buffer *const *bufs, unsigned n)
{
	struct pd_packet *s = call->taps->tap[t];
	struct pd_frame_queue *q = &s->queue;
	bool locked = false;

	for (unsigned i = 0; i < n; i++) {
		uint32_t first = pd_packet_first(bufs[i]);

		if (t < first || (t > first && !pd_packet_tap_wants(call, t, bufs[i])))
			continue;
		if (!locked) {
			pd_lock(&s->lock);
			pd_ctr_begin(s->ctr, PD_CTR_SOCKET_QUEUE);
			locked = true;
		}
		if (pd_likely(!s->released))
			pd_packet_queue_one(s, bufs[i], call->whole, node->errors);
	}
	if (!locked)
		return;
	pd_ctr_set(s->ctr, PD_CTR_SOCKET_RX_QUEUED_PACKETS, q->tail - q->head);
	pd_ctr_set(s->ctr, PD_CTR_SOCKET_RX_QUEUED_BYTES, q->bytes);
	pd_ctr_max(s->ctr, PD_CTR_SOCKET_RX_QUEUED_PACKETS_MAX, q->tail - q->head);
	pd_ctr_max(s->ctr, PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX, q->bytes);
	pd_ctr_end(s->ctr, PD_CTR_SOCKET_QUEUE);
	pd_unlock(&s->lock);
	/* Who waits for what comes in sleeps on the lane; nobody sleeps there for what goes out. */
	if (call->outgoing)
		pd_bell_ring(&s->pollable.bell);
}

static unsigned pd_packet_queue_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	struct pd_packet_call *call = engine->call;
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	static const uint16_t to_drop[1];
	uint32_t own[PD_VECTOR_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < vector->n; i++)
		bufs[i] = pd_buffer_get(vector->index[i]);
	for (unsigned t = 0; t < call->taps->n; t++)
		pd_packet_queue_tap(call, node, t, bufs, vector->n);
	for (unsigned i = 0; i < vector->n; i++) {
		if (pd_likely(!(bufs[i]->flags & PD_BUFFER_EXTERNAL))) {
			own[count++] = vector->index[i];
			continue;
		}
		call->no_buffer++;
		pd_buffer_set_error(bufs[i], &ctx, PD_PACKET_QUEUE_ERROR_NO_BUFFER);
		pd_enqueue(engine, node, &vector->index[i], to_drop, 1);
	}
	if (count)
		pd_buffer_free(own, count); /* the queues hold theirs */
	return vector->n;
}

static const char *const pd_packet_queue_errors[] = {
#define PD_ROW(id, text) text,
	PD_PACKET_QUEUE_ERROR_TABLE(PD_ROW)
#undef PD_ROW
};

PD_NODE_REGISTER(pd_packet_queue) = {
	.name = "packet-queue",
	.type = PD_NODE_INTERNAL,
	.fn = pd_packet_queue_dispatch,
	.errors = pd_packet_queue_errors,
	.error_count = PD_PACKET_QUEUE_ERRORS,
	.next_count = 1,
	.next_names = {"error-drop"},
};

/* --- calls -------------------------------------------------------------------------------- */

void pd_packet_run_graph(struct pd_packet_call *call, struct pd_engine *engine,
			 struct pd_node *input)
{
	engine->call = call;
	pd_engine_run_input(engine, input);
	engine->call = NULL;
}

/* Count at the lane the frames that nobody got. */
static void pd_packet_count_lost(struct pd_packet_call *call)
{
	struct pd_ctr_block *ctr = call->lane->side[PD_RX].ctr;

	if (pd_likely(!call->unwanted && !call->no_buffer))
		return;
	pd_ctr_begin(ctr, PD_CTR_LANE_RX);
	pd_ctr_add(ctr,
		   call->alone || call->taps->n ? PD_CTR_LANE_RX_DROP_FILTERED
						: PD_CTR_LANE_RX_DROP_NO_SOCKET,
		   call->unwanted);
	pd_ctr_add(ctr, PD_CTR_LANE_RX_DROP_NO_BUFFER, call->no_buffer);
	pd_ctr_end(ctr, PD_CTR_LANE_RX);
	call->unwanted = call->no_buffer = 0;
}

void pd_packet_count_refused(struct pd_packet_graph *graph, struct pd_lane *lane, unsigned n)
{
	struct pd_packet_call call = {.lane = lane, .alone = true, .unwanted = n};

	pd_node_add(&graph->match->errors[PD_PACKET_MATCH_ERROR_FILTERED], n);
	pd_node_count(graph->error_drop, n);
	pd_node_count(graph->drop, n);
	pd_packet_count_lost(&call);
}

/* packet-input, packet-match and packet-deliver in one straight line. */
static inline void pd_packet_take_fused(struct pd_packet_call *call)
{
	const struct pd_packet_graph *graph = call->graph;
	unsigned before = call->filled, filled, got;
	struct pd_buffer *bufs[PD_VECTOR_MAX];

	call->got = call->lane->ops->rx(call->lane, bufs, call->max);
	if (pd_unlikely(call->got < 0))
		pd_node_add(&graph->input->errors[PD_PACKET_INPUT_ERROR_BROKEN], 1);
	got = call->got > 0 ? (unsigned)call->got : 0;
	pd_node_count(graph->input, got);
	if (!got)
		return;
	for (unsigned i = 0; i < got; i++)
		if (pd_packet_match_alone(call->s, bufs[i]) == PD_PACKET_MATCH_NEXT_DELIVER)
			pd_packet_deliver_one(call, bufs[i]);
	call->done = got;
	pd_packet_take_end(call);
	pd_node_count(graph->match, got);
	filled = call->filled - before;
	if (pd_likely(filled))
		pd_node_count(graph->deliver, filled);
	if (pd_unlikely(filled < got))
		pd_packet_count_refused(call->graph, call->lane, got - filled);
}

void pd_packet_take(struct pd_packet_call *call)
{
	if (pd_likely(!pd_load_relaxed(&pd_graph_wanted))) {
		pd_packet_take_fused(call);
	} else {
		pd_packet_run_graph(call, call->graph->rx, call->graph->input);
		pd_packet_count_lost(call);
	}
}

int pd_packet_distribute(struct pd_port *port, struct pd_lane *lane, unsigned max, bool keep)
{
	const struct pd_taps *taps = pd_packet_taps(port);
	struct pd_packet_call call = {
		.port = port,
		.lane = lane,
		.graph = pd_packet_graph_of(port, lane),
		.taps = taps,
		.keep = keep,
		/* Several sockets: one that is not read must not take the pool from the others. */
		.whole = keep && taps->n == 1,
		.max = pd_min(max, (unsigned)PD_VECTOR_MAX),
	};

	pd_packet_run_graph(&call, call.graph->rx, call.graph->input);
	pd_packet_count_lost(&call);
	return call.got < 0 ? call.got : (int)call.done;
}

/* --- life --------------------------------------------------------------------------------- */

struct pd_packet_graph *pd_packet_graph_new(const struct pd_port *port, unsigned queue, int *err)
{
	struct pd_packet_graph *graph = calloc(1, sizeof(*graph));
	char name[sizeof(graph->rx->name)];

	*err = -ENOMEM;
	if (!graph)
		return NULL;
	snprintf(name, sizeof(name), "%s/%u receive", port->name, queue);
	graph->rx = pd_engine_create(name, err);
	if (!graph->rx)
		goto err_graph;
	snprintf(name, sizeof(name), "%s/%u send", port->name, queue);
	graph->tx = pd_engine_create(name, err);
	if (!graph->tx)
		goto err_graph;
	graph->input = pd_engine_node(graph->rx, "packet-input");
	graph->match = pd_engine_node(graph->rx, "packet-match");
	graph->deliver = pd_engine_node(graph->rx, "packet-deliver");
	graph->error_drop = pd_engine_node(graph->rx, "error-drop");
	graph->drop = pd_engine_node(graph->rx, "drop");
	graph->send = pd_engine_node(graph->tx, "packet-send");
	graph->output = pd_engine_node(graph->tx, "packet-output");
	return graph;

err_graph:
	pd_packet_graph_free(graph);
	return NULL;
}

void pd_packet_graph_free(struct pd_packet_graph *graph)
{
	if (!graph)
		return;
	pd_engine_destroy(graph->rx);
	pd_engine_destroy(graph->tx);
	free(graph);
}
