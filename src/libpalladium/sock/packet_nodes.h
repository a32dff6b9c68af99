/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nodes of packet sockets, and the step of each on one frame. Private to sock/packet*.c.
 *
 *   receive   packet-input -> packet-match -> packet-deliver   who receives: into the call's messages
 *                                  |  `-----> packet-queue     other taps: a copy, shared by their queues
 *                                  `--------> error-drop       nobody wants it
 *
 * A frame that both want goes both ways. A call that receives ends at the first frame for which it
 * has no message left, so the ring is the queue of a socket whoever else listens, as long as it
 * reads. It ends at a run of frames for others too, who can take them from there.
 *
 *   send      packet-send -> packet-output -> packet-match ...   the last arc only when others watch it
 *
 * Each lane has two engines with these nodes, one per side, run by whoever holds the lock of that
 * side; so the counters of a node have one writer. A call's own things (messages, limits) stand in
 * a struct pd_packet_call, which is engine->call meanwhile.
 *
 * A call goes the fused way: the same steps in one straight line, with the same counts. It goes
 * through the graph when pd_graph_wanted, or when others watch what a socket sends.
 *
 * Frames on the way stand in the ring (receive) or in the caller's memory (send), so no node frees
 * them. What the call did not use up is not consumed: it stays in the ring, or is the program's to
 * send again.
 */
#ifndef PD_SOCK_PACKET_NODES_H
#define PD_SOCK_PACKET_NODES_H

#include <string.h>

#include "config/vars.h"
#include "sock/packet.h"
#include "vlib/port_nodes.h"

/* Buffers for copies, taken from the pool a batch at a time: PALLADIUM_BUFFER_BATCHING_MODE. */
#define PD_PACKET_SPARES 32
struct pd_packet_spares {
	unsigned n;
	uint32_t index[PD_PACKET_SPARES];
};

/* The engines of one lane, and the nodes in them that the fused ways stand for. */
struct pd_packet_graph {
	struct pd_engine *rx, *tx;
	struct pd_node *input, *match, *deliver, *queue, *error_drop, *drop; /* of rx */
	struct pd_node *send, *output;                                       /* of tx */
	/* Between calls, by mode; under the lock of the receive side */
	struct pd_packet_spares kept;
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
	bool hold;                  /* leave there too what finds a queue full */
	bool whole;                 /* the queues have no limit but the pool */

	/* Several taps. */
	struct pd_packet_spares *spares;
	bool among_all;                    /* `s` receives, and is a tap for ETH_P_ALL */
	const struct pd_taps_group *among; /* or is one of these; or NULL */
	unsigned taken;                    /* frames for `s`, up to `room` */
	unsigned room;
	bool stopped; /* at a frame that found a queue full: what the port's bell `room` tells the end of */
	bool starved; /* at a frame that found no buffer */

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

/*
 * What packet-match notes in a buffer for packet-queue: the group of taps that wants it besides
 * those for all; 0 for none.
 */
static inline void pd_packet_note_group(struct pd_buffer *b, uint32_t group)
{
	/*
	 * Behind the note of pd_buffer_set_error. `opaque` may hold the Ethernet header of a frame
	 * that is sent.
	 */
	memcpy(b->opaque2 + 8, &group, sizeof(group));
}

static inline uint32_t pd_packet_group(const struct pd_buffer *b)
{
	uint32_t group;

	memcpy(&group, b->opaque2 + 8, sizeof(group));
	return group;
}

/* A copy of a frame in pool buffers, with one reference; NULL when the pool has not enough. */
struct pd_buffer *pd_frame_copy(const struct pd_buffer *src);

/*
 * Write one frame into one message; msg_len becomes what recvmsg returns. `queued` is NULL for a
 * frame that comes off the ring. Data path; packet_rx.c.
 */
void pd_packet_deliver(const struct pd_packet *s, const struct pd_buffer *b,
		       const struct pd_queued *queued, struct mmsghdr *mm, int flags);

/* packet-match, when one tap is alone. */
static PD_ALWAYS_INLINE uint16_t pd_packet_match_alone(const struct pd_packet *s,
						       const struct pd_buffer *b)
{
	return pd_likely(pd_packet_wants(s, b)) ? PD_PACKET_MATCH_NEXT_DELIVER
						: PD_PACKET_MATCH_NEXT_ERROR;
}

/* Whether a frame is a matter of its protocol alone. */
static inline bool pd_packet_is_plain(const struct pd_buffer *b)
{
	return pd_likely(!(b->flags & (PD_BUFFER_CONTROL | PD_BUFFER_OUTGOING)));
}

/*
 * packet-match among the taps, for frames that are not plain: whether call->s gets it, and whether
 * *others do.
 */
bool pd_packet_match_odd(const struct pd_packet_call *call, const struct pd_buffer *b,
			 bool *others);

/*
 * packet-match among the taps: what goes into the queues, noted for packet-queue: a copy, or the
 * frame as it is when no buffer was left and none has to be kept. NULL when it has to stay in the
 * ring. `left`: frames from this one on.
 */
struct pd_buffer *pd_packet_stage(struct pd_packet_call *call, struct pd_buffer *b,
				  const struct pd_taps_group *g, unsigned left);

/*
 * Frames in a row for another socket that end a receiver's turn, and frames after which fewer do,
 * with nothing behind them.
 */
#define PD_PACKET_RUN 4
#define PD_PACKET_TURN 8

/*
 * Whether the turn of call->s, which has taken frames, ends at the frames `bufs`, `left` of them,
 * of which it does not want the first: others get a run of frames, and can take it straight from
 * the ring. Among frames that come mixed each would get few in a call.
 */
bool pd_packet_turn_ends(const struct pd_packet_call *call, struct pd_buffer *const *bufs,
			 unsigned left);

/*
 * packet-match, among the taps, of bufs[0]. *others goes on to packet-queue; NULL when nobody else
 * wants the frame. `left`: frames from this one on.
 */
static PD_ALWAYS_INLINE uint16_t pd_packet_match_shared(struct pd_packet_call *call,
							struct pd_buffer *const *bufs,
							unsigned left, struct pd_buffer **others)
{
	const struct pd_taps_group *g = NULL;
	struct pd_buffer *b = bufs[0];
	bool mine, wanted;

	*others = NULL;
	if (pd_packet_is_plain(b)) {
		g = pd_taps_find(call->taps, pd_frame_protocol(b));
		mine = call->among_all || (g && g == call->among);
		wanted = call->taps->n_all + (g ? g->n : 0) > mine;
	} else {
		mine = pd_packet_match_odd(call, b, &wanted);
	}
	if (pd_unlikely(mine && call->taken == call->room))
		return PD_PACKET_MATCH_KEEP;
	if (wanted && !mine && call->taken && pd_packet_turn_ends(call, bufs, left))
		return PD_PACKET_MATCH_KEEP;
	if (wanted) {
		*others = pd_packet_stage(call, b, g, left);
		if (pd_unlikely(!*others))
			return PD_PACKET_MATCH_KEEP;
	}
	call->taken += mine;
	if (mine)
		return PD_PACKET_MATCH_NEXT_DELIVER;
	if (wanted)
		return PD_PACKET_MATCH_NEXT_QUEUE;
	return call->outgoing ? PD_PACKET_MATCH_NEXT_DROP : PD_PACKET_MATCH_NEXT_ERROR;
}

/* packet-deliver: into the next message. */
static PD_ALWAYS_INLINE void pd_packet_deliver_one(struct pd_packet_call *call,
						   const struct pd_buffer *b)
{
	pd_packet_deliver(call->s, b, NULL, &call->msgs[call->filled++], call->flags);
}

/*
 * Take up to `max` frames off the ring, one batch, into the messages of `s`, which is the one tap;
 * *filled tells how many. Lock of the receive side held. Returns how many frames there were, or
 * -ENETDOWN.
 */
int pd_packet_take(struct pd_packet *s, struct pd_port *port, struct pd_lane *lane,
		   struct mmsghdr *msgs, unsigned max, int flags, unsigned *filled);

/*
 * One batch among several taps: frames for call->s (or NULL) into its messages, up to call->room,
 * those that others want into their queues. Sets got, done, filled, stopped, starved. Lock of the
 * receive side held.
 */
void pd_packet_take_shared(struct pd_packet_call *call);

/*
 * As pd_packet_distribute. `whole`: the queues have no limit but the pool. For frames that must
 * leave the ring.
 */
int pd_packet_spread(struct pd_port *port, struct pd_lane *lane, unsigned max, bool keep,
		     bool whole);

/* Make `s` (or NULL), which receives, part of a call whose taps are set. */
void pd_packet_call_join(struct pd_packet_call *call, struct pd_packet *s);

/*
 * Frames that one look throws away, or takes off the ring for others, before it looks at anything
 * else.
 */
#define PD_RX_LOOK_MAX (16 * PD_VECTOR_MAX)

/* Frames that are taken off a ring at a time, of `n`: PALLADIUM_CQ_POLL_BATCH_MAX. */
static inline unsigned pd_packet_batch(unsigned n)
{
	_Static_assert(PD_VECTOR_MAX == 256, "the largest value of the variable");
	return pd_min(n, (unsigned)pd_vars.cq_poll_batch_max);
}

/* True when `s` is the one tap of the port: the ring is its queue. Lane lock held. */
static inline bool pd_packet_is_alone(const struct pd_packet *s, struct pd_port *port)
{
	const struct pd_taps *taps = pd_packet_taps(port);

	return pd_likely(taps->n == 1 && taps->tap[0] == s);
}

/*
 * What a look at a lane ended with, for who has to wait. A port that is stopped goes on when its
 * bell `room` rings, and until then its frames are no news; so the bell's count is read before the
 * look.
 */
struct pd_packet_end {
	bool broken;  /* the ring is */
	bool stopped; /* at a frame for a queue that is full */
	bool starved; /* at a frame that must not be lost, and finds no buffer: nobody tells of one */
	uint32_t room;
};

/* The bell that tells when a stopped port goes on; before the look that may find it stopped. */
static inline void pd_packet_end_begin(struct pd_packet_end *end, struct pd_port *port)
{
	*end = (struct pd_packet_end){.room = pd_bell_seq(&pd_packet_port_of(port)->room)};
}

/*
 * Note in `ws` what ends the wait of a receiver that found nothing. What it knows of the lane is
 * all that it consumed: more may be there, since one look has its limits, and then it must not
 * sleep. Of a ring that is broken only a change of the link is news. Lane lock held.
 */
void pd_packet_note_end(struct pd_wait_set *ws, struct pd_port *port, struct pd_lane *lane,
			const struct pd_packet_end *end);

/*
 * Among several taps: frames for `s` straight from the ring into its messages (none: NULL, n is 0),
 * those for others into their queues. Lane lock held. Returns messages filled.
 */
unsigned pd_packet_receive_shared(struct pd_packet *s, struct pd_port *port, struct pd_lane *lane,
				  struct mmsghdr *msgs, unsigned n, int flags,
				  struct pd_packet_end *end);

/*
 * Count `n` frames that the one tap did not want, and that were consumed. Lock of the receive side
 * held.
 */
void pd_packet_count_refused(struct pd_packet_graph *graph, struct pd_lane *lane, unsigned n);

/* The first tap from number `t` on that gets frame `b`, of group `g` (or NULL); or their number. */
unsigned pd_packet_taker(const struct pd_packet_call *call, const struct pd_buffer *b,
			 const struct pd_taps_group *g, unsigned t);

/* What the tracer keeps at each of these nodes, and what each says of it; packet_trace.c. */
void pd_packet_trace(const struct pd_engine *engine, const struct pd_node *node,
		     const struct pd_buffer *b, void *record);
int pd_packet_input_format_trace(char *out, size_t size, const void *record);
int pd_packet_match_format_trace(char *out, size_t size, const void *record);
int pd_packet_deliver_format_trace(char *out, size_t size, const void *record);
int pd_packet_queue_format_trace(char *out, size_t size, const void *record);
int pd_packet_send_format_trace(char *out, size_t size, const void *record);
int pd_packet_output_format_trace(char *out, size_t size, const void *record);

/* Put `call` through the graph of a side, from node `input`. */
void pd_packet_run_graph(struct pd_packet_call *call, struct pd_engine *engine,
			 struct pd_node *input);

/* The engines of the lane `queue` of `port`. Returns them, or NULL with *err set. Control path. */
struct pd_packet_graph *pd_packet_graph_new(const struct pd_port *port, unsigned queue, int *err);
/* Undo pd_packet_graph_new. NULL is allowed. */
void pd_packet_graph_free(struct pd_packet_graph *graph);

/* The engines of a lane of `port`. */
static inline struct pd_packet_graph *pd_packet_graph_of(struct pd_port *port,
							 const struct pd_lane *lane)
{
	return pd_packet_port_of(port)->graph[lane->queue];
}

#endif /* PD_SOCK_PACKET_NODES_H */
