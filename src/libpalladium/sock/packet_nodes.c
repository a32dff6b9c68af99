/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * packet-input, packet-match, packet-deliver and packet-queue, and the fused form of receiving (the
 * theory stands in packet_nodes.h). packet_tx.c has packet-send and packet-output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "config/vars.h"
#include "counters/counters.h"
#include "sock/packet_nodes.h"

/* --- copies ------------------------------------------------------------------------------- */

struct pd_buffer *pd_frame_copy(const struct pd_buffer *src)
{
	struct pd_buffer *b = pd_buffer_copy(
		src->flags & PD_BUFFER_OUTGOING ? pd_load_acquire(&pd_tx_pool) : pd_rx_pool, src);

	if (!b)
		pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_POOL_EMPTY, 1);
	return b;
}

/* How many buffers a call takes at once that may need `left`. */
static inline unsigned pd_packet_spares_want(const struct pd_packet_call *call, unsigned left)
{
	if (pd_vars.buffer_batching_mode == PD_BATCHING_NONE)
		return 1;
	if (call->spares == &call->graph->kept)
		return PD_PACKET_SPARES;
	return pd_min(left, (unsigned)PD_PACKET_SPARES);
}

/* Whether a lane keeps what it has spare: of a pool that is large enough for that. */
static inline bool pd_packet_spares_keep(void)
{
	return pd_unlikely(pd_vars.buffer_batching_mode == PD_BATCHING_KEEP) &&
	       pd_rx_pool->count >= PD_PACKET_SPARES * pd_packet_lanes * 2;
}

/* Give back the buffers that a call did not need. */
static void pd_packet_spares_free(struct pd_packet_spares *spares)
{
	if (spares->n)
		pd_buffer_free(spares->index, spares->n);
}

/*
 * pd_frame_copy out of the call's spare buffers, for frames that fit one. `left`: frames that may
 * need one yet.
 */
static struct pd_buffer *pd_packet_copy(struct pd_packet_call *call, const struct pd_buffer *src,
					unsigned left)
{
	struct pd_packet_spares *spares = call->spares;
	struct pd_buffer *b;

	if (pd_unlikely(!spares || src->total_len > PD_RX_BUFFER_BYTES))
		return pd_frame_copy(src);
	if (!spares->n)
		spares->n = pd_buffer_alloc(pd_rx_pool, spares->index,
					    pd_packet_spares_want(call, left));
	if (pd_unlikely(!spares->n)) {
		pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_POOL_EMPTY, 1);
		return NULL;
	}
	b = pd_buffer_get(spares->index[--spares->n]);
	pd_buffer_copy_head(b, src);
	if (pd_likely(src->next == PD_BUFFER_NONE)) {
		b->len = src->len;
		memcpy(b->data, src->data, src->len);
	} else {
		b->len = pd_buffer_copy_out(src, 0, b->data, PD_RX_BUFFER_BYTES);
	}
	return b;
}

/* --- packet-input ------------------------------------------------------------------------- */

/* Show frames of the call's lane. They stay in the ring until the call is through the graph. */
static unsigned pd_packet_input_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	struct pd_packet_call *call = engine->call;
	struct pd_buffer **bufs = engine->scratch.bufs;
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

/*
 * Hand back `done` frames that a call has used up; one that it only peeked at (max is 1) stays.
 * `filled`: messages.
 */
static PD_ALWAYS_INLINE void pd_packet_consume(struct pd_lane *lane, unsigned done, unsigned filled,
					       int flags)
{
	if (pd_likely(done && !(flags & MSG_PEEK && filled)))
		lane->ops->rx_done(lane, done);
}

/* The end of a round: what was consumed of the frames shown goes back to the lane. */
static void pd_packet_input_finish(struct pd_engine *engine, struct pd_node *node)
{
	struct pd_packet_call *call = engine->call;

	(void)node;
	if (call && call->got > 0)
		pd_packet_consume(call->lane, call->done, call->filled, call->flags);
}

static const char *const pd_packet_input_errors[] = {
	PD_PACKET_INPUT_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

PD_NODE_REGISTER(pd_packet_input) = {
	.name = "packet-input",
	.type = PD_NODE_INPUT,
	.fn = pd_packet_input_dispatch,
	.trace = pd_packet_trace,
	.format_trace = pd_packet_input_format_trace,
	.finish = pd_packet_input_finish,
	.errors = pd_packet_input_errors,
	.error_count = PD_PACKET_INPUT_ERRORS,
	.next_count = 1,
	.next_names = {"packet-match"},
};

/* --- packet-match ------------------------------------------------------------------------- */

/* Whether tap `s` wants the frame. */
static bool pd_packet_tap_wants(const struct pd_packet_call *call, const struct pd_packet *s,
				const struct pd_buffer *b)
{
	if (s == call->s)
		return false; /* it sent the frame, or gets it otherwise */
	if (call->outgoing && (pd_load_relaxed(&s->protocol) != ETH_P_ALL || s->ignore_outgoing))
		return false;
	return pd_packet_wants(s, b);
}

/* Besides call->s: packet_nodes.h. */
unsigned pd_packet_taker(const struct pd_packet_call *call, const struct pd_buffer *b,
			 const struct pd_taps_group *g, unsigned t)
{
	const struct pd_taps *taps = call->taps;

	for (; t < taps->n; t++) {
		if (t >= taps->n_all && !(b->flags & PD_BUFFER_CONTROL)) {
			t = g ? pd_max(t, g->first) : taps->n;
			if (!g || t >= g->first + g->n)
				return taps->n;
		}
		if (pd_packet_tap_wants(call, taps->tap[t], b))
			return t;
	}
	return t;
}

bool pd_packet_match_odd(const struct pd_packet_call *call, const struct pd_buffer *b, bool *others)
{
	*others = pd_packet_taker(call, b, NULL, 0) < call->taps->n;
	return (call->among_all || call->among) && pd_packet_wants(call->s, b);
}

/*
 * Keep room for the frame in the queue of `s`; false when it has none, and then it stops the port.
 */
static bool pd_packet_reserve_one(const struct pd_packet_call *call, struct pd_packet *s,
				  const struct pd_buffer *b)
{
	struct pd_frame_queue *q = &s->queue;
	uint64_t waiting, bit = 1ull << call->port->index;
	bool room;

	pd_lock(&s->lock);
	waiting = q->bytes + q->reserved;
	/* One that is longer than the limit has to go some time. */
	room = !waiting || waiting + b->total_len <= s->receive_limit_bytes || s->released;
	if (room) {
		q->reserved += b->total_len;
	} else if (!(s->stops & bit)) {
		s->stops |= bit;
		pd_ctr_begin(s->ctr, PD_CTR_SOCKET_QUEUE);
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_RX_STOPS, 1);
		pd_ctr_end(s->ctr, PD_CTR_SOCKET_QUEUE);
	}
	pd_unlock(&s->lock);
	return room;
}

/* The frame does not go into the queue of `s`, or is in it now. packet->lock held. */
static void pd_packet_unreserve(struct pd_packet *s, const struct pd_buffer *b)
{
	/* A queue that was cleared meanwhile has forgotten what was kept for. */
	s->queue.reserved -= pd_min(s->queue.reserved, (uint64_t)b->total_len);
}

/* Give up the room that was kept in the queues of the takers before tap `end`. */
static void pd_packet_unreserve_all(const struct pd_packet_call *call, const struct pd_buffer *b,
				    const struct pd_taps_group *g, unsigned end)
{
	for (unsigned t = pd_packet_taker(call, b, g, 0); t < end;
	     t = pd_packet_taker(call, b, g, t + 1)) {
		pd_lock(&call->taps->tap[t]->lock);
		pd_packet_unreserve(call->taps->tap[t], b);
		pd_unlock(&call->taps->tap[t]->lock);
	}
}

/* Keep room for the frame in the queues of all who get it, or of none. */
static bool pd_packet_reserve(const struct pd_packet_call *call, const struct pd_buffer *b,
			      const struct pd_taps_group *g)
{
	for (unsigned t = pd_packet_taker(call, b, g, 0); t < call->taps->n;
	     t = pd_packet_taker(call, b, g, t + 1)) {
		if (pd_packet_reserve_one(call, call->taps->tap[t], b))
			continue;
		pd_packet_unreserve_all(call, b, g, t);
		return false;
	}
	return true;
}

struct pd_buffer *pd_packet_stage(struct pd_packet_call *call, struct pd_buffer *b,
				  const struct pd_taps_group *g, unsigned left)
{
	struct pd_buffer *copy;

	if (pd_unlikely(call->hold && !pd_packet_reserve(call, b, g))) {
		call->stopped = true;
		return NULL;
	}
	copy = pd_packet_copy(call, b, left);
	if (pd_unlikely(!copy)) {
		if (call->keep) {
			call->starved = true;
			if (call->hold)
				pd_packet_unreserve_all(call, b, g, call->taps->n);
			return NULL;
		}
		copy = b;
	}
	pd_packet_note_group(copy, g ? (uint32_t)(g - call->taps->groups) + 1 : 0);
	return copy;
}

bool pd_packet_turn_ends(const struct pd_packet_call *call, struct pd_buffer *const *bufs,
			 unsigned left)
{
	unsigned n = pd_min(left, (unsigned)PD_PACKET_RUN);

	/* What a tap for all protocols wants has to be copied anyway. */
	if (call->taps->n_all || (n < PD_PACKET_RUN && call->taken < PD_PACKET_TURN))
		return false;
	for (unsigned i = 0; i < n; i++)
		if (!pd_packet_is_plain(bufs[i]) ||
		    pd_frame_protocol(bufs[i]) != pd_frame_protocol(bufs[0]))
			return false;
	return true;
}

/* One frame that nobody gets. */
static void pd_packet_match_refuse(struct pd_packet_call *call, const struct pd_node_ctx *ctx,
				   struct pd_buffer *b)
{
	call->unwanted++;
	pd_buffer_set_error(b, ctx,
			    call->alone || call->taps->n ? PD_PACKET_MATCH_ERROR_FILTERED
							 : PD_PACKET_MATCH_ERROR_NO_SOCKET);
}

/* The node: sends each frame on to who wants it. Returns the frames it saw. */
static unsigned pd_packet_match_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	struct pd_packet_call *call = engine->call;
	struct pd_buffer **bufs = engine->scratch.bufs;
	uint32_t *indices = engine->scratch.indices;
	uint16_t *nexts = engine->scratch.nexts, next;
	unsigned i, n = 0;

	for (i = 0; i < vector->n; i++)
		bufs[i] = pd_buffer_get(vector->index[i]);
	for (i = 0; i < vector->n; i++) {
		struct pd_buffer *b = bufs[i], *others = NULL;

		if (i + 4 < vector->n)
			__builtin_prefetch(bufs[i + 4]);
		next = call->alone ? pd_packet_match_alone(call->s, b)
				   : pd_packet_match_shared(call, &bufs[i], vector->n - i, &others);
		if (pd_unlikely(next == PD_PACKET_MATCH_KEEP))
			break;
		if (next == PD_PACKET_MATCH_NEXT_ERROR)
			pd_packet_match_refuse(call, &ctx, b);
		if (next != PD_PACKET_MATCH_NEXT_QUEUE) {
			indices[n] = b->index;
			nexts[n++] = next;
		}
		if (others) {
			indices[n] = others->index;
			nexts[n++] = PD_PACKET_MATCH_NEXT_QUEUE;
		}
	}
	pd_enqueue(engine, node, indices, nexts, n);
	call->done = i;
	return i;
}

static const char *const pd_packet_match_errors[] = {
	PD_PACKET_MATCH_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

PD_NODE_REGISTER(pd_packet_match) = {
	.name = "packet-match",
	.type = PD_NODE_INTERNAL,
	.no_entry = true,
	.fn = pd_packet_match_dispatch,
	.trace = pd_packet_trace,
	.format_trace = pd_packet_match_format_trace,
	.errors = pd_packet_match_errors,
	.error_count = PD_PACKET_MATCH_ERRORS,
	.next_count = PD_PACKET_MATCH_NEXTS,
	.next_names = {[PD_PACKET_MATCH_NEXT_DELIVER] = "packet-deliver",
		       [PD_PACKET_MATCH_NEXT_QUEUE] = "packet-queue",
		       [PD_PACKET_MATCH_NEXT_DROP] = "drop",
		       [PD_PACKET_MATCH_NEXT_ERROR] = "error-drop"},
};

/* --- packet-deliver ----------------------------------------------------------------------- */

/* The node: each frame into the next message of the call. Returns the frames it saw. */
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
	.no_entry = true,
	.fn = pd_packet_deliver_dispatch,
	.trace = pd_packet_trace,
	.format_trace = pd_packet_deliver_format_trace,
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
 * Put a frame into the queue of `s`, which takes a reference, or with `hand` the one that there is.
 * Dropped and counted when it is full, or when the frame is no copy because no buffer was left:
 * then false. packet->lock held, between begin and end of the queue's counters.
 */
static bool pd_packet_queue_one(const struct pd_packet_call *call, struct pd_packet *s,
				struct pd_buffer *b, bool hand, uint64_t *errors)
{
	bool copied = !(b->flags & PD_BUFFER_EXTERNAL), limit = !call->whole;
	struct pd_frame_queue *q = &s->queue;

	if (pd_unlikely(call->hold)) {
		pd_packet_unreserve(s, b);
		limit = false; /* there is room: it was kept */
	}
	if (pd_unlikely(!copied || (limit && q->bytes + b->total_len > s->receive_limit_bytes) ||
			pd_frame_queue_grow(q))) {
		s->stat_drops++;
		s->drops_ever++;
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_RX_DROP_FULL, 1);
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_RX_DROPPED_BYTES, b->total_len);
		pd_node_add(&errors[PD_PACKET_QUEUE_ERROR_FULL], copied);
		return false;
	}
	if (!hand)
		pd_buffer_ref(b);
	q->ring[q->tail & q->mask] = (struct pd_queued){b->index, s->drops_ever,
							pd_packet_stamps(s) ? pd_packet_now() : 0};
	pd_store_relaxed(&q->tail, q->tail + 1);
	q->bytes += b->total_len;
	s->queued_ever++;
	return true;
}

/* Frames of a packet-queue step that its end gives back. */
struct pd_packet_own {
	unsigned n;
	uint32_t index[PD_VECTOR_MAX];
};

/*
 * Give tap `s` those of the frames that it wants, with its lock taken once. `hand`: it is the only
 * one who gets them, and takes the references over; what it refuses goes to `own`.
 */
static void pd_packet_queue_tap(const struct pd_packet_call *call, struct pd_node *node,
				struct pd_packet *s, struct pd_buffer *const *bufs, unsigned n,
				bool hand, struct pd_packet_own *own)
{
	struct pd_frame_queue *q = &s->queue;
	unsigned wanted = 0;

	pd_lock(&s->lock);
	pd_ctr_begin(s->ctr, PD_CTR_SOCKET_QUEUE);
	for (unsigned i = 0; i < n; i++) {
		bool wants = !s->released &&
			     (pd_packet_is_plain(bufs[i]) || pd_packet_tap_wants(call, s, bufs[i]));

		wanted += wants;
		if (wants && pd_packet_queue_one(call, s, bufs[i], hand, node->errors))
			continue;
		if (hand && !(bufs[i]->flags & PD_BUFFER_EXTERNAL))
			own->index[own->n++] = bufs[i]->index;
	}
	__atomic_fetch_add(&s->stat_packets, wanted, __ATOMIC_RELAXED);
	pd_ctr_set(s->ctr, PD_CTR_SOCKET_RX_QUEUED_PACKETS, q->tail - q->head);
	pd_ctr_set(s->ctr, PD_CTR_SOCKET_RX_QUEUED_BYTES, q->bytes);
	pd_ctr_max(s->ctr, PD_CTR_SOCKET_RX_QUEUED_PACKETS_MAX, q->tail - q->head);
	pd_ctr_max(s->ctr, PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX, q->bytes);
	pd_ctr_end(s->ctr, PD_CTR_SOCKET_QUEUE);
	pd_unlock(&s->lock);
	/* Who waits for what comes in sleeps on the lane; nobody sleeps there for what goes out. */
	if (call->outgoing && wanted)
		pd_pollable_ring(&s->pollable);
	else if (wanted)
		pd_pollable_mark(&s->pollable);
}

/* How many frames from the first on are for the same taps. */
static unsigned pd_packet_queue_run(struct pd_buffer *const *bufs, unsigned n)
{
	unsigned run = 1;

	if (bufs[0]->flags & PD_BUFFER_CONTROL)
		return 1;
	while (run < n && !(bufs[run]->flags & PD_BUFFER_CONTROL) &&
	       pd_packet_group(bufs[run]) == pd_packet_group(bufs[0]))
		run++;
	return run;
}

/* Give a run of frames to the taps for their protocol; a control frame to all that ask for such. */
static void pd_packet_queue_group(const struct pd_packet_call *call, struct pd_node *node,
				  struct pd_buffer *const *bufs, unsigned n, bool alone,
				  struct pd_packet_own *own)
{
	const struct pd_taps *taps = call->taps;
	bool control = bufs[0]->flags & PD_BUFFER_CONTROL, hand;
	uint32_t group = pd_packet_group(bufs[0]);
	unsigned t = taps->n_all, end = taps->n;

	if (!control) {
		t = group ? taps->groups[group - 1].first : taps->n;
		end = group ? t + taps->groups[group - 1].n : taps->n;
	}
	hand = alone && !control &&
	       end - t - (group && &taps->groups[group - 1] == call->among) == 1;
	for (unsigned i = 0; i < n && !hand; i++)
		if (!(bufs[i]->flags & PD_BUFFER_EXTERNAL))
			own->index[own->n++] = bufs[i]->index;
	for (; t < end; t++)
		if (taps->tap[t] != call->s)
			pd_packet_queue_tap(call, node, taps->tap[t], bufs, n, hand, own);
}

/*
 * packet-queue: frames into the queues of all who want them. Takes over the reference of each copy;
 * a frame that is none is counted as lost by each who wanted it.
 */
static void pd_packet_queue_frames(const struct pd_packet_call *call, struct pd_node *node,
				   struct pd_buffer *const *bufs, unsigned n)
{
	const struct pd_taps *taps = call->taps;
	unsigned for_all = taps->n_all - call->among_all, run;
	/* Just one gets them all: its queue takes the references over. */
	bool hand = for_all == 1 && taps->n == taps->n_all && !call->outgoing;
	struct pd_packet_own own;

	own.n = 0;
	for (unsigned t = 0; t < taps->n_all; t++)
		if (taps->tap[t] != call->s)
			pd_packet_queue_tap(call, node, taps->tap[t], bufs, n, hand, &own);
	for (unsigned i = 0; i < n && !hand; i += run) {
		run = pd_packet_queue_run(bufs + i, n - i);
		pd_packet_queue_group(call, node, bufs + i, run, !for_all, &own);
	}
	if (own.n)
		pd_buffer_free(own.index, own.n); /* the queues hold theirs */
}

/*
 * The node: copies into the queues of the taps that want them; frames without a copy are dropped.
 * Returns the frames it saw.
 */
static unsigned pd_packet_queue_dispatch(struct pd_engine *engine, struct pd_node *node,
					 struct pd_vector *vector)
{
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	struct pd_packet_call *call = engine->call;
	struct pd_buffer **bufs = engine->scratch.bufs;
	static const uint16_t to_drop[1];

	for (unsigned i = 0; i < vector->n; i++) {
		bufs[i] = pd_buffer_get(vector->index[i]);
		if (pd_likely(!(bufs[i]->flags & PD_BUFFER_EXTERNAL)))
			continue;
		call->no_buffer++;
		pd_buffer_set_error(bufs[i], &ctx, PD_PACKET_QUEUE_ERROR_NO_BUFFER);
		pd_enqueue(engine, node, &vector->index[i], to_drop, 1);
	}
	pd_packet_queue_frames(call, node, bufs, vector->n);
	return vector->n;
}

static const char *const pd_packet_queue_errors[] = {
	PD_PACKET_QUEUE_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

PD_NODE_REGISTER(pd_packet_queue) = {
	.name = "packet-queue",
	.type = PD_NODE_INTERNAL,
	.no_entry = true,
	.fn = pd_packet_queue_dispatch,
	.trace = pd_packet_trace,
	.format_trace = pd_packet_queue_format_trace,
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

/* pd_packet_take with the dispatcher. */
static PD_NOINLINE int pd_packet_take_graph(struct pd_packet *s, struct pd_port *port,
					    struct pd_lane *lane, struct mmsghdr *msgs,
					    unsigned max, int flags, unsigned *filled)
{
	struct pd_packet_call call = {.s = s,
				      .port = port,
				      .lane = lane,
				      .graph = pd_packet_graph_of(port, lane),
				      .alone = true,
				      .max = max,
				      .msgs = msgs,
				      .flags = flags};

	pd_packet_run_graph(&call, call.graph->rx, call.graph->input);
	pd_packet_count_lost(&call);
	*filled = call.filled;
	return call.got;
}

/*
 * Without it: packet-input, packet-match and packet-deliver in one straight line, and no call to be
 * written down.
 */
int pd_packet_take(struct pd_packet *s, struct pd_port *port, struct pd_lane *lane,
		   struct mmsghdr *msgs, unsigned max, int flags, unsigned *filled)
{
	struct pd_packet_graph *graph = pd_packet_graph_of(port, lane);
	struct pd_buffer **bufs = graph->rx->scratch.bufs;
	unsigned n = 0;
	int got;

	if (pd_unlikely(pd_load_relaxed(&pd_graph_wanted)))
		return pd_packet_take_graph(s, port, lane, msgs, max, flags, filled);
	got = lane->ops->rx(lane, bufs, max);
	if (pd_unlikely(got < 0))
		pd_node_add(&graph->input->errors[PD_PACKET_INPUT_ERROR_BROKEN], 1);
	pd_node_count(graph->input, got > 0 ? (unsigned)got : 0);
	*filled = 0;
	if (got <= 0)
		return got;
	for (int i = 0; i < got; i++)
		if (pd_packet_match_alone(s, bufs[i]) == PD_PACKET_MATCH_NEXT_DELIVER)
			pd_packet_deliver(s, bufs[i], NULL, &msgs[n++], flags);
	pd_packet_consume(lane, (unsigned)got, n, flags);
	pd_node_count(graph->match, (unsigned)got);
	if (pd_likely(n))
		pd_node_count(graph->deliver, n);
	if (pd_unlikely(n < (unsigned)got))
		pd_packet_count_refused(graph, lane, (unsigned)got - n);
	*filled = n;
	return got;
}

/* Count frames that went to error-drop in the fused way, all of one error. */
static void pd_packet_count_dropped(const struct pd_packet_graph *graph, uint64_t *error,
				    unsigned n)
{
	if (pd_likely(!n))
		return;
	pd_node_add(error, n);
	pd_node_count(graph->error_drop, n);
	pd_node_count(graph->drop, n);
}

/*
 * The frames of a batch into messages and queues, in one straight line. Sets done. Returns how many
 * went to packet-queue.
 */
static inline unsigned pd_packet_share(struct pd_packet_call *call, struct pd_buffer *const *bufs,
				       unsigned got)
{
	struct pd_buffer **staged = call->graph->rx->scratch.more, *others;
	unsigned i, n = 0, next;

	for (i = 0; i < got; i++) {
		next = pd_packet_match_shared(call, &bufs[i], got - i, &others);
		if (next == PD_PACKET_MATCH_KEEP)
			break;
		if (next == PD_PACKET_MATCH_NEXT_DELIVER)
			pd_packet_deliver_one(call, bufs[i]);
		if (others) {
			call->no_buffer += others->flags & PD_BUFFER_EXTERNAL;
			staged[n++] = others;
		}
		call->unwanted += next == PD_PACKET_MATCH_NEXT_ERROR;
	}
	call->done = i;
	if (n)
		pd_packet_queue_frames(call, call->graph->queue, staged, n);
	return n;
}

/* pd_packet_take_shared without the dispatcher. */
static void pd_packet_share_fused(struct pd_packet_call *call)
{
	const struct pd_packet_graph *graph = call->graph;
	struct pd_buffer **bufs = graph->rx->scratch.bufs;
	unsigned before = call->filled, got, queued;

	call->got = call->lane->ops->rx(call->lane, bufs, call->max);
	if (pd_unlikely(call->got < 0))
		pd_node_add(&graph->input->errors[PD_PACKET_INPUT_ERROR_BROKEN], 1);
	got = call->got > 0 ? (unsigned)call->got : 0;
	pd_node_count(graph->input, got);
	if (!got)
		return;
	queued = pd_packet_share(call, bufs, got);
	pd_packet_consume(call->lane, call->done, call->filled, call->flags);
	pd_node_count(graph->match, call->done);
	if (call->filled != before)
		pd_node_count(graph->deliver, call->filled - before);
	if (queued)
		pd_node_count(graph->queue, queued);
	pd_packet_count_dropped(
		graph,
		&graph->match->errors[call->taps->n ? PD_PACKET_MATCH_ERROR_FILTERED
						    : PD_PACKET_MATCH_ERROR_NO_SOCKET],
		call->unwanted);
	pd_packet_count_dropped(graph, &graph->queue->errors[PD_PACKET_QUEUE_ERROR_NO_BUFFER],
				call->no_buffer);
}

void pd_packet_take_shared(struct pd_packet_call *call)
{
	struct pd_packet_spares spares = {.n = 0};

	call->spares = pd_packet_spares_keep() ? &call->graph->kept : &spares;
	call->done = 0;
	if (pd_likely(!pd_load_relaxed(&pd_graph_wanted)))
		pd_packet_share_fused(call);
	else
		pd_packet_run_graph(call, call->graph->rx, call->graph->input);
	pd_packet_spares_free(&spares);
	call->spares = NULL;
	pd_packet_count_lost(call);
}

void pd_packet_call_join(struct pd_packet_call *call, struct pd_packet *s)
{
	const struct pd_taps *taps = call->taps;
	const struct pd_taps_group *g;

	call->s = s;
	for (unsigned t = 0; t < taps->n_all && !call->among_all; t++)
		call->among_all = taps->tap[t] == s;
	if (call->among_all)
		return;
	g = pd_taps_find(taps, pd_load_relaxed(&s->protocol));
	for (unsigned i = 0; g && i < g->n && !call->among; i++)
		if (taps->tap[g->first + i] == s)
			call->among = g;
}

int pd_packet_spread(struct pd_port *port, struct pd_lane *lane, unsigned max, bool keep,
		     bool whole)
{
	struct pd_packet_call call = {
		.port = port,
		.lane = lane,
		.graph = pd_packet_graph_of(port, lane),
		.taps = pd_packet_taps(port),
		.whole = whole,
		.hold = !whole && pd_vars.rx_backpressure == PD_BACKPRESSURE_PORT,
		.max = pd_packet_batch(max),
	};

	call.keep = keep || call.hold;
	pd_packet_take_shared(&call);
	return call.got < 0 ? call.got : (int)call.done;
}

int pd_packet_distribute(struct pd_port *port, struct pd_lane *lane, unsigned max, bool keep)
{
	/* Several sockets: one that is not read must not take the pool from the others. */
	return pd_packet_spread(port, lane, max, keep, keep && pd_packet_taps(port)->n == 1);
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
	graph->queue = pd_engine_node(graph->rx, "packet-queue");
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
