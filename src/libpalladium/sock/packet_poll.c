/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Readiness of packet sockets: what poll, select and epoll ask (wait/pollable.h).
 *
 * Readable means that a frame stands in the queue, or that one the socket wants stands at the head
 * of a ring.
 */
#include <errno.h>
#include <stdlib.h>

#include "counters/counters.h"
#include "sock/packet_nodes.h"

/*
 * Throw away what the socket does not want until a frame that it wants is at the head of the ring.
 * Lane lock held. Returns that frame, or NULL; *broken as in pd_packet_receive_ring.
 */
static struct pd_buffer *pd_packet_head(struct pd_packet *s, struct pd_port *port,
					struct pd_lane *lane, bool *broken)
{
	struct pd_packet_graph *graph = pd_packet_graph_of(port, lane);
	struct pd_buffer **bufs = graph->rx->scratch.bufs;

	for (int seen = 0, got; seen < PD_RX_LOOK_MAX; seen += got) {
		int i;

		/* Mostly the first one is wanted. */
		got = lane->ops->rx(lane, bufs, seen ? pd_packet_batch(PD_VECTOR_MAX) : 1);

		if (got <= 0) {
			*broken = got < 0;
			return NULL;
		}
		for (i = 0; i < got; i++)
			if (pd_packet_match_alone(s, bufs[i]) == PD_PACKET_MATCH_NEXT_DELIVER)
				break;
		if (i) {
			lane->ops->rx_done(lane, (unsigned)i);
			pd_node_count(graph->input, (unsigned)i);
			pd_node_count(graph->match, (unsigned)i);
			pd_packet_count_refused(graph, lane, (unsigned)i);
		}
		if (i < got)
			return bufs[i];
	}
	return NULL;
}

/*
 * Bring the first frame the socket wants to where it can be seen: the queue, or the head of the
 * ring. Returns its length plus one, or 0. Notes what to wait for, and adds to the edge count.
 */
static uint32_t pd_packet_look_lane(struct pd_packet *s, struct pd_port *port, struct pd_lane *lane,
				    struct pd_wait_set *ws, uint32_t *edge)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	const struct pd_buffer *head = NULL;
	uint32_t found = 0, position;
	struct pd_packet_end end;

	pd_lock(&side->lock);
	pd_packet_end_begin(&end, port);
	/*
	 * Positions begin anew with each link: the same number must not look like the same state.
	 */
	position = side->up ? lane->ops->position(lane, PD_RX) : 0;
	*edge += position + side->link * 0x9e3779b9u;
	if (side->up && !pd_packet_is_alone(s, port))
		pd_packet_receive_shared(NULL, port, lane, NULL, 0, 0, &end);
	else if (side->up)
		head = pd_packet_head(s, port, lane, &end.broken);
	if (head)
		found = head->total_len + 1;
	/*
	 * Who knows of the frame at the head waits for the next one: sleeps from the position it
	 * will report.
	 */
	if (ws && head)
		pd_wait_add_lane(ws, lane, PD_RX, position);
	else if (ws)
		pd_packet_note_end(ws, port, lane, &end);
	pd_unlock(&side->lock);
	return found;
}

/* Length plus one of the first frame in the queue; 0 when it is empty. */
static uint32_t pd_packet_look_queue(struct pd_packet *s, uint32_t *edge)
{
	const struct pd_queued *first;
	uint32_t found = 0;

	pd_lock(&s->lock);
	first = pd_frame_queue_peek(&s->queue);
	if (first)
		found = pd_buffer_get(first->index)->total_len + 1;
	*edge += s->queued_ever;
	pd_unlock(&s->lock);
	return found;
}

/* The first frame of queue and lanes; length plus one or 0. */
static uint32_t pd_packet_look(struct pd_packet *s, struct pd_wait_set *ws, uint32_t *edge)
{
	unsigned first, end, n, which, others;
	uint32_t found = 0, one, staged;

	pd_packet_port_range(s, &first, &end);
	for (unsigned p = first; p < end; p++) {
		if (!pd_packet_serves(s, p))
			continue;
		if (!pd_port_lease_held(&pd_ports[p])) {
			if (ws)
				ws->recheck = true;
			continue;
		}
		n = pd_ports[p].n_lanes;
		which = pd_likely(n == 1) ? 0 : pd_steer_receive(s, &pd_ports[p], &others);
		for (unsigned i = 0; i < n; i++, which++) {
			which = which == n ? 0 : which;
			one = pd_packet_look_lane(s, &pd_ports[p], pd_ports[p].lanes[which], ws,
						  edge);
			if (one && !found && n > 1)
				pd_steer_looked(s, which);
			found = found ? found : one;
		}
	}
	staged = pd_packet_look_queue(s, edge);
	return staged ? staged : found;
}

static void pd_packet_prepare(struct pd_pollable *p);

uint32_t pd_packet_next_length(struct pd_packet *s)
{
	uint32_t edge = 0, found;

	pd_packet_prepare(&s->pollable);
	found = pd_packet_look(s, NULL, &edge);
	if (!found)
		return 0;
	found -= 1;
	if (s->type == SOCK_DGRAM)
		found -= pd_min(found, (uint32_t)ETH_HLEN);
	return found + (uint32_t)pd_packet_front_bytes(s);
}

/*
 * Whether a send would find room, on the lane that the last one was for (pd_steer_writable). Notes
 * what to wait for.
 */
static bool pd_packet_writable(struct pd_packet *s, struct pd_wait_set *ws)
{
	struct pd_port *port = pd_load_acquire(&s->port);
	struct pd_lane *lane;
	uint32_t seen;
	bool room;
	int err;

	if (!port) /* which port, only the send will tell */
		return true;
	if (!pd_port_lease_held(port) || !port->n_lanes) {
		if (ws)
			ws->recheck = true;
		return false;
	}
	if (pd_likely(port->n_lanes == 1))
		lane = port->lanes[0];
	else
		lane = pd_packet_lane_for(port, pd_steer_writable(s, port), ws, &err);
	if (!lane) {
		pd_store_relaxed(&s->out_blocked, true);
		return false;
	}
	pd_lock(&lane->side[PD_TX].lock);
	seen = lane->side[PD_TX].up ? lane->ops->position(lane, PD_TX) : 0;
	room = lane->side[PD_TX].up && seen != lane->side[PD_TX].cursor;
	if (ws)
		pd_wait_add_lane(ws, lane, PD_TX, seen);
	if (!room)
		pd_store_relaxed(&s->out_blocked, true);
	else if (pd_load_relaxed(&s->out_blocked) && pd_exchange(&s->out_blocked, false))
		pd_fetch_add(&s->out_edges, 1);
	pd_unlock(&lane->side[PD_TX].lock);
	return room;
}

/* Open the ports, and claim those that nobody uses (after a fork). */
static void pd_packet_prepare(struct pd_pollable *p)
{
	struct pd_packet *s = pd_container_of(p, struct pd_packet, pollable);
	unsigned first, end;

	if (pd_packet_attach(s))
		return;
	pd_packet_port_range(s, &first, &end);
	for (unsigned i = first; i < end; i++)
		if (pd_packet_serves(s, i))
			pd_port_lease_take(&pd_ports[i]);
}

/* The events that hold besides `ready`, which tells of what comes in. As pollable_ops.poll. */
static uint32_t pd_packet_answer(struct pd_packet *s, uint32_t events, uint32_t ready,
				 struct pd_wait_set *ws, struct pd_edge *edge)
{
	if (events & (EPOLLOUT | EPOLLWRNORM) && pd_packet_writable(s, ws))
		ready |= EPOLLOUT | EPOLLWRNORM;
	edge->out = pd_load_relaxed(&s->out_edges);
	if (pd_load_relaxed(&s->error)) {
		ready |= EPOLLERR;
		edge->in++;
	}
	return ready & (events | EPOLLERR | EPOLLHUP);
}

/* pd_pollable_ops.poll. */
static uint32_t pd_packet_poll(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
			       struct pd_edge *edge)
{
	struct pd_packet *s = pd_container_of(p, struct pd_packet, pollable);
	uint32_t seq = pd_bell_seq(&p->bell), ready = 0;

	if (events & (EPOLLIN | EPOLLRDNORM) && pd_packet_look(s, ws, &edge->in))
		ready |= EPOLLIN | EPOLLRDNORM;
	ready = pd_packet_answer(s, events, ready, ws, edge);
	if (ws)
		pd_wait_add_bell(ws, &p->bell, seq, p->owner);
	return ready;
}

/* --- in an epoll ----------------------------------------------------------------------------- */

/*
 * Gathering (wait/pollable.h). A lane of one tap: the first frame that it wants is looked for, as
 * poll does. A lane of several: the frame at the head marks those who want it and stays, for they
 * can take it straight from the ring. What is behind it is looked at when nobody took it until the
 * next time, or when there was nothing else: then all goes into the queues, which marks.
 */

/*
 * Remember that the frame at the head was looked at; true when it had been before. Lane lock held.
 */
static bool pd_packet_glanced(struct pd_port *port, const struct pd_lane *lane)
{
	const struct pd_lane_side *side = &lane->side[PD_RX];
	struct pd_packet_glanced *g = &pd_packet_port_of(port)->glanced[lane->queue];
	bool before = g->valid && g->cursor == side->cursor && g->link == side->link;

	*g = (struct pd_packet_glanced){.valid = true, .cursor = side->cursor, .link = side->link};
	return before;
}

/*
 * Tell `s` of a frame at the head of `lane`; `add` is -1 to take that back, for the frame goes into
 * its queue and counts there.
 */
static void pd_packet_tell_head(struct pd_packet *s, const struct pd_lane *lane, int add)
{
	pd_fetch_add(&s->heads_ever, (uint32_t)add);
	if (add < 0)
		return;
	pd_fetch_or(&s->heads, 1u << lane->queue);
	/* At another lane it would find frames of others first, and have to copy them. */
	if (pd_ports[lane->port].n_lanes > 1)
		pd_steer_looked(s, lane->queue);
	pd_pollable_mark(&s->pollable);
}

/*
 * Tell the taps that want the frame at the head, one for a protocol. False when it is another. Lane
 * lock held.
 */
static bool pd_packet_tell_takers(struct pd_port *port, struct pd_lane *lane, int add)
{
	const struct pd_taps *taps = pd_packet_taps(port);
	const struct pd_taps_group *g;
	struct pd_buffer *head;

	if (lane->ops->rx(lane, &head, 1) <= 0 || !pd_packet_is_plain(head))
		return false;
	g = pd_taps_find(taps, pd_frame_protocol(head));
	if (!taps->n_all && !g)
		return false;
	for (unsigned i = 0; i < taps->n_all; i++)
		pd_packet_tell_head(taps->tap[i], lane, add);
	for (unsigned i = 0; g && i < g->n; i++)
		pd_packet_tell_head(taps->tap[g->first + i], lane, add);
	return true;
}

/*
 * A lane of several taps that has `waiting` frames. As pd_wait_gather. *seen: all that is there,
 * those who want it know. Lane lock held.
 */
static bool pd_packet_gather_shared(struct pd_port *port, struct pd_lane *lane, uint32_t waiting,
				    bool all, struct pd_packet_end *end, bool *seen)
{
	bool before = pd_packet_glanced(port, lane);

	*seen = waiting == 1;
	if (before && waiting == 1)
		return false;
	if (!before && !(all && waiting > 1) && pd_packet_tell_takers(port, lane, 1))
		return waiting > 1;
	if (before)
		pd_packet_tell_takers(port, lane, -1);
	*seen = false;
	pd_packet_receive_shared(NULL, port, lane, NULL, 0, 0, end);
	return false;
}

/* One lane. As pd_wait_gather. */
static bool pd_packet_gather_lane(struct pd_port *port, struct pd_lane *lane, bool all,
				  struct pd_wait_set *ws)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	const struct pd_taps *taps;
	struct pd_packet_end end;
	uint32_t position = 0;
	bool left = false, seen = false;

	pd_lock(&side->lock);
	pd_packet_end_begin(&end, port);
	taps = pd_packet_taps(port);
	if (side->up)
		position = lane->ops->position(lane, PD_RX);
	if (side->up && position != side->cursor && taps->n == 1) {
		seen = pd_packet_head(taps->tap[0], port, lane, &end.broken);
		if (seen)
			pd_pollable_mark(&taps->tap[0]->pollable);
	} else if (side->up && position != side->cursor && taps->n) {
		left = pd_packet_gather_shared(port, lane, position - side->cursor, all, &end,
					       &seen);
	}
	if (ws && seen)
		pd_wait_add_lane(ws, lane, PD_RX, position);
	else if (ws)
		pd_packet_note_end(ws, port, lane, &end);
	pd_unlock(&side->lock);
	return left;
}

bool pd_packet_gather(uint64_t ports, bool all, struct pd_wait_set *ws)
{
	bool left = false;

	for (; ports; ports &= ports - 1) {
		struct pd_port *port = &pd_ports[__builtin_ctzll(ports)];

		if (!pd_port_lease_held(port)) {
			if (ws)
				ws->recheck = true;
			continue;
		}
		for (unsigned i = 0; i < port->n_lanes; i++)
			if (pd_load_relaxed(&port->up[PD_RX]) >> i & 1 || ws)
				left |= pd_packet_gather_lane(port, port->lanes[i], all, ws);
	}
	return left;
}

/* pd_pollable_ops.feeds. */
static uint64_t pd_packet_feeds(struct pd_pollable *p)
{
	const struct pd_packet *s = pd_container_of(p, struct pd_packet, pollable);
	const struct pd_port *port = pd_load_acquire(&s->port); /* pairs with pd_taps_move */
	uint64_t all = pd_port_count < 64 ? (1ull << pd_port_count) - 1 : ~0ull;

	if (!pd_load_relaxed(&s->protocol))
		return 0;
	return port ? 1ull << port->index : pd_load_relaxed(&s->port_mask) & all;
}

/*
 * Whether the frame at the head of the lane is for `s`, which adds to the edge count when `s` is
 * the only tap. *alone tells whether it is.
 */
static bool pd_packet_glance_lane(struct pd_packet *s, struct pd_port *port, struct pd_lane *lane,
				  uint32_t *edge, bool *alone)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	bool found = false, broken;
	struct pd_buffer *head;
	uint32_t position;

	pd_lock(&side->lock);
	position = side->up ? lane->ops->position(lane, PD_RX) : side->cursor;
	*alone = pd_packet_is_alone(s, port);
	/* One that becomes the only tap, or ceases to be it, may be told of an edge once more. */
	if (*alone)
		*edge += position + side->link * 0x9e3779b9u;
	if (position == side->cursor)
		;
	else if (*alone)
		found = pd_packet_head(s, port, lane, &broken);
	else
		found = lane->ops->rx(lane, &head, 1) > 0 && pd_packet_wants(s, head);
	if (!found)
		pd_fetch_and(&s->heads, ~(1u << lane->queue));
	pd_unlock(&side->lock);
	return found;
}

/* The lanes of one port. As pd_packet_glance_in. */
static bool pd_packet_glance_port(struct pd_packet *s, struct pd_port *port, uint32_t *edge)
{
	bool found = false, alone = false;

	for (unsigned i = 0; i < port->n_lanes; i++) {
		/* Among several taps it was told at which heads its frames stand. */
		if (i && !alone && pd_load_relaxed(&s->port) &&
		    !(pd_load_relaxed(&s->heads) >> i & 1))
			continue;
		found |= pd_packet_glance_lane(s, port, port->lanes[i], edge, &alone);
		if (found && !alone)
			break;
	}
	return found;
}

/* Whether a frame is there for `s`, after pd_packet_gather; adds to the edge count. */
static bool pd_packet_glance_in(struct pd_packet *s, uint32_t *edge)
{
	bool found = pd_packet_look_queue(s, edge) != 0;
	unsigned first, end;

	*edge += pd_load_relaxed(&s->heads_ever);
	pd_packet_port_range(s, &first, &end);
	for (unsigned p = first; p < end; p++)
		if (pd_packet_serves(s, p) && pd_port_lease_held(&pd_ports[p]))
			found |= pd_packet_glance_port(s, &pd_ports[p], edge);
	return found;
}

/* pd_pollable_ops.glance. */
static uint32_t pd_packet_glance(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
				 struct pd_edge *edge)
{
	struct pd_packet *s = pd_container_of(p, struct pd_packet, pollable);
	uint32_t ready = 0;

	if (events & (EPOLLIN | EPOLLRDNORM) && pd_packet_glance_in(s, &edge->in))
		ready |= EPOLLIN | EPOLLRDNORM;
	return pd_packet_answer(s, events, ready, ws, edge);
}

const struct pd_pollable_ops pd_packet_pollable_ops = {
	.prepare = pd_packet_prepare,
	.poll = pd_packet_poll,
	.glance = pd_packet_glance,
	.feeds = pd_packet_feeds,
};
