/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nodes of packet sockets, and the step of each on one frame. Private to sock/packet*.c.
 *
 *   receive   packet-input -> packet-match -> packet-deliver      the one tap: into the messages of the call
 *                                  |  `-----> packet-queue        several taps: a copy, and a reference to it in each queue
 *                                  `--------> error-drop          nobody wants it
 *
 *   send      packet-send -> packet-output -> packet-match ...    the last arc only when others watch what is sent
 *
 * Each lane has two engines with these nodes, one per side, run by whoever holds the lock of that side; so the counters of a node
 * have one writer. A call's own things (messages, limits) stand in a struct pd_packet_call, which is engine->call meanwhile.
 *
 * With one tap, and with nobody who watches, a call goes the fused way: the same steps in one straight line, with the same
 * counts. It goes through the graph when there are several consumers, or pd_graph_wanted.
 *
 * Frames on the way stand in the ring (receive) or in the caller's memory (send), so no node frees them. What the call did not use up
 * is not consumed: it stays in the ring, or is the program's to send again.
 */
#ifndef PD_SOCK_PACKET_NODES_H
#define PD_SOCK_PACKET_NODES_H

#include <string.h>

#include "sock/packet.h"
#include "vlib/port_nodes.h"

/* The engines of one lane, and the nodes in them that the fused ways stand for. */
struct pd_packet_graph {
	struct pd_engine *rx, *tx;
	struct pd_node *input, *match, *deliver, *error_drop, *drop; /* of rx */
	struct pd_node *send, *output;                               /* of tx */
};

/* One call's way through the nodes. */
struct pd_packet_call {
	struct pd_packet *s; /* who receives, or sends; NULL: nobody in particular */
	struct pd_port *port;
	struct pd_lane *lane; /* the lock of the side concerned is held */
	struct pd_packet_graph *graph;
	const struct pd_taps *taps; /* who shares the frames; not used when `s` is alone */
	bool alone;                 /* `s` is the one tap */
	bool outgoing;              /* the frames are what `s` sent */
	bool keep;                  /* leave in the ring what there is no buffer for */
	bool whole;                 /* the queues have no limit but the pool */

	/* Receiving. */
	unsigned max;                 /* frames to take, up to PD_VECTOR_MAX */
	int got;                      /* frames shown, or -ENETDOWN */
	unsigned done;                /* of them, those that leave the ring */
	unsigned unwanted, no_buffer; /* of those, how many nobody got, and why */
	struct mmsghdr *msgs;         /* room for `max`, for `s` alone */
	unsigned filled;
	int flags; /* of recvmmsg */
};

#define PD_PACKET_INPUT_ERROR_TABLE(_) _(BROKEN, "the peer broke the ring")
#define PD_PACKET_MATCH_ERROR_TABLE(_)         \
	_(NO_SOCKET, "no socket on this port") \
	_(FILTERED, "no socket wants it")
#define PD_PACKET_QUEUE_ERROR_TABLE(_)         \
	_(NO_BUFFER, "no buffer to copy into") \
	_(FULL, "a socket's queue was full, or could not grow")

enum pd_packet_input_error {
#define PD_ROW(id, text) PD_PACKET_INPUT_ERROR_##id,
	PD_PACKET_INPUT_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_PACKET_INPUT_ERRORS
};

enum pd_packet_match_error {
#define PD_ROW(id, text) PD_PACKET_MATCH_ERROR_##id,
	PD_PACKET_MATCH_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_PACKET_MATCH_ERRORS
};

enum pd_packet_queue_error {
#define PD_ROW(id, text) PD_PACKET_QUEUE_ERROR_##id,
	PD_PACKET_QUEUE_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_PACKET_QUEUE_ERRORS
};

enum pd_packet_match_next {
	PD_PACKET_MATCH_NEXT_DELIVER,
	PD_PACKET_MATCH_NEXT_QUEUE,
	PD_PACKET_MATCH_NEXT_DROP, /* of what is sent, nobody has to want it */
	PD_PACKET_MATCH_NEXT_ERROR,
	PD_PACKET_MATCH_NEXTS,
	PD_PACKET_MATCH_KEEP =
		PD_PACKET_MATCH_NEXTS /* nowhere: it and what follows stay in the ring */
};

/* What packet-match notes in a buffer for packet-queue: the first tap that wants it; those behind it are not asked yet. */
static inline void pd_packet_note_first(struct pd_buffer *b, uint32_t first)
{
	/* Behind the note of pd_buffer_set_error. `opaque` may hold the Ethernet header of a frame that is sent. */
	memcpy(b->opaque2 + 8, &first, sizeof(first));
}

static inline uint32_t pd_packet_first(const struct pd_buffer *b)
{
	uint32_t first;

	memcpy(&first, b->opaque2 + 8, sizeof(first));
	return first;
}

/* A copy of a frame in pool buffers, with one reference; NULL when the pool has not enough. */
struct pd_buffer *pd_frame_copy(const struct pd_buffer *src);

/*
 * Write one frame into one message; msg_len becomes what recvmsg returns. `queued` is NULL for a frame that comes off the ring. Data path;
 * packet_rx.c.
 */
void pd_packet_deliver(const struct pd_packet *s, const struct pd_buffer *b,
		       const struct pd_queued *queued, struct mmsghdr *mm, int flags);

/* Whether tap `t` wants the frame. */
static inline bool pd_packet_tap_wants(const struct pd_packet_call *call, unsigned t,
				       const struct pd_buffer *b)
{
	const struct pd_packet *s = call->taps->tap[t];

	if (call->outgoing &&
	    (s == call->s || pd_load_relaxed(&s->protocol) != ETH_P_ALL || s->ignore_outgoing))
		return false;
	return pd_packet_wants(s, b);
}

/* packet-match, when one tap is alone. */
static PD_ALWAYS_INLINE uint16_t pd_packet_match_alone(const struct pd_packet *s,
						       const struct pd_buffer *b)
{
	return pd_likely(pd_packet_wants(s, b)) ? PD_PACKET_MATCH_NEXT_DELIVER
						: PD_PACKET_MATCH_NEXT_ERROR;
}

/* packet-match, among the taps. What goes on to packet-queue is *b: a copy, or the frame as it is when no buffer was left. */
static PD_ALWAYS_INLINE uint16_t pd_packet_match_shared(const struct pd_packet_call *call,
							struct pd_buffer **b)
{
	struct pd_buffer *copy;
	uint32_t first = 0;

	while (first < call->taps->n && !pd_packet_tap_wants(call, first, *b))
		first++;
	if (first == call->taps->n)
		return call->outgoing ? PD_PACKET_MATCH_NEXT_DROP : PD_PACKET_MATCH_NEXT_ERROR;
	copy = pd_frame_copy(*b);
	if (!copy && call->keep)
		return PD_PACKET_MATCH_KEEP;
	*b = copy ? copy : *b;
	pd_packet_note_first(*b, first);
	return PD_PACKET_MATCH_NEXT_QUEUE;
}

/* packet-deliver: into the next message. */
static PD_ALWAYS_INLINE void pd_packet_deliver_one(struct pd_packet_call *call,
						   const struct pd_buffer *b)
{
	pd_packet_deliver(call->s, b, NULL, &call->msgs[call->filled++], call->flags);
}

/* Take frames off the ring into the messages of call->s, which is the one tap: one batch. Sets got, done, filled. */
void pd_packet_take(struct pd_packet_call *call);

/* Count `n` frames that the one tap did not want, and that were consumed. Lock of the receive side held. */
void pd_packet_count_refused(struct pd_packet_graph *graph, struct pd_lane *lane, unsigned n);

/* Put `call` through the graph of a side, from node `input`. */
void pd_packet_run_graph(struct pd_packet_call *call, struct pd_engine *engine,
			 struct pd_node *input);

/* The engines of the lane `queue` of `port`. Returns them, or NULL with *err set. Control path. */
struct pd_packet_graph *pd_packet_graph_new(const struct pd_port *port, unsigned queue, int *err);
/* Undo pd_packet_graph_new. NULL is allowed. */
void pd_packet_graph_free(struct pd_packet_graph *graph);

static inline struct pd_packet_graph *pd_packet_graph_of(struct pd_port *port,
							 const struct pd_lane *lane)
{
	return pd_packet_port_of(port)->graph[lane->queue];
}

#endif /* PD_SOCK_PACKET_NODES_H */
