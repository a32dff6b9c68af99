/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taps: which packet sockets want the frames of a port, and how frames get into their queues (the
 * theory stands in packet.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "sock/layer.h"
#include "sock/packet_nodes.h"
#include "transport/offload.h"
#include "vlib/progress.h"
#include "vlib/runtime.h"

/* The first size of a queue's ring, and the largest. */
#define PD_QUEUE_FIRST 64u
#define PD_QUEUE_MAX (1u << 22)

struct pd_buffer_pool *pd_rx_pool, *pd_tx_pool;
unsigned pd_packet_lanes;
static struct pd_buffer_pool *pd_tx_header_pool; /* external buffers over callers' iovecs */
static struct pd_lock pd_taps_lock = PD_LOCK_INIT(PD_RANK_TAPS);

/* --- queues ------------------------------------------------------------------------------- */

int pd_frame_queue_grow(struct pd_frame_queue *q)
{
	uint32_t size = q->ring ? q->mask + 1 : 0, wider = size ? 2 * size : PD_QUEUE_FIRST;
	struct pd_queued *ring;

	if (size && q->tail - q->head < size)
		return 0;
	if (wider > PD_QUEUE_MAX)
		return -ENOMEM;
	ring = malloc(wider * sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	for (uint32_t i = q->head; i != q->tail; i++)
		ring[i & (wider - 1)] = q->ring[i & q->mask];
	free(q->ring);
	q->ring = ring;
	q->mask = wider - 1;
	return 0;
}

uint32_t pd_frame_queue_pop(struct pd_frame_queue *q)
{
	const struct pd_queued *first = pd_frame_queue_peek(q);
	uint32_t index;

	if (!first)
		return PD_BUFFER_NONE;
	index = first->index;
	q->bytes -= pd_buffer_get(index)->total_len;
	pd_store_relaxed(&q->head, q->head + 1);
	return index;
}

void pd_frame_queue_clear(struct pd_frame_queue *q)
{
	uint32_t index;

	while ((index = pd_frame_queue_pop(q)) != PD_BUFFER_NONE)
		pd_buffer_free(&index, 1);
	free(q->ring);
	memset(q, 0, sizeof(*q));
}

/* --- the taps of a port ------------------------------------------------------------------- */

/* Whether all sockets of the port take unfinished frames; nobody finishes frames for none. */
static bool pd_taps_take_vnet(const struct pd_taps *taps)
{
	for (unsigned i = 0; i < taps->n; i++)
		if (!taps->tap[i]->vnet_hdr)
			return false;
	return taps->n > 0;
}

/*
 * Make `taps` what the port has; returns the old ones once nobody looks at them. pd_taps_lock held.
 */
static struct pd_taps *pd_taps_replace(struct pd_port *port, struct pd_taps *taps)
{
	struct pd_packet_port *pp = pd_packet_port_of(port);
	struct pd_taps *old = pp->taps;

	pd_store_relaxed(&port->rx_vnet, pd_taps_take_vnet(taps));
	pd_store_release(&pp->taps, taps); /* pairs with pd_packet_taps */
	for (unsigned i = 0; i < port->n_lanes; i++) {
		if (!port->lanes[i])
			continue;
		for (int dir = 0; dir < PD_DIRS; dir++) {
			pd_lock(&port->lanes[i]->side[dir].lock);
			pd_unlock(&port->lanes[i]->side[dir].lock);
		}
	}
	return old;
}

/* Room for `n` taps, or NULL. */
static struct pd_taps *pd_taps_new(unsigned n)
{
	struct pd_taps *taps;
	uint32_t slots = 4;

	while (slots < 2 * n)
		slots *= 2;
	taps = malloc(sizeof(*taps) + n * sizeof(taps->tap[0]) + slots * sizeof(*taps->groups));
	if (!taps)
		return NULL;
	*taps = (struct pd_taps){.room = n, .mask = slots - 1};
	taps->groups = (struct pd_taps_group *)(void *)&taps->tap[n];
	memset(taps->groups, 0, slots * sizeof(*taps->groups));
	return taps;
}

/* Append a tap; those of one protocol come one after the other, those for ETH_P_ALL first. */
static void pd_taps_append(struct pd_taps *taps, struct pd_packet *s)
{
	struct pd_taps_group *g;
	uint32_t i;

	pd_assert(taps->n < taps->room);
	if (s->protocol == ETH_P_ALL) {
		pd_assert(taps->n == taps->n_all);
		taps->n_all++;
	} else {
		for (i = pd_taps_hash(s->protocol);; i++) {
			g = &taps->groups[i & taps->mask];
			if (!g->protocol || g->protocol == s->protocol)
				break;
		}
		if (!g->protocol)
			*g = (struct pd_taps_group){.protocol = s->protocol, .first = taps->n};
		pd_assert(g->first + g->n == taps->n);
		g->n++;
	}
	taps->tap[taps->n++] = s;
}

/*
 * Fill `taps`, which are empty, with `old` but for `without` (or NULL), and with `with` (or NULL)
 * behind its like.
 */
static void pd_taps_fill(struct pd_taps *taps, const struct pd_taps *old,
			 const struct pd_packet *without, struct pd_packet *with)
{
	const struct pd_taps_group *g;
	unsigned at = old->n;

	if (with && with->protocol == ETH_P_ALL) {
		at = old->n_all;
	} else if (with) {
		g = pd_taps_find(old, with->protocol);
		at = g ? g->first + g->n : old->n;
	}
	for (unsigned i = 0; i <= old->n; i++) {
		if (with && i == at)
			pd_taps_append(taps, with);
		if (i < old->n && old->tap[i] != without)
			pd_taps_append(taps, old->tap[i]);
	}
}

/*
 * Take into the queues what is in the ring now, as pd_packet_spread, and no more: what comes while
 * this runs is as good as what comes after, and a peer that goes on filling the ring would keep us
 * for ever. One entry of the ring may be many frames. Lane's receive lock held.
 */
static void pd_taps_drain(struct pd_port *port, struct pd_lane *lane, bool keep, bool whole)
{
	const struct pd_lane_side *side = &lane->side[PD_RX];
	uint32_t end = side->cursor + pd_lane_ready(lane, PD_RX);

	while ((int32_t)(end - side->cursor) > 0 &&
	       pd_packet_spread(port, lane, end - side->cursor, keep, whole) > 0)
		;
}

/*
 * Frames that came before another tap joins belong to those that were there: into their queues with
 * them. `whole`: the pool is the limit. pd_taps_lock held.
 */
static void pd_taps_settle(struct pd_port *port, bool whole)
{
	if (!pd_packet_port_of(port)->taps->n || !port->lanes[0] || !pd_port_lease_open(port))
		return;
	for (unsigned i = 0; i < port->n_lanes; i++) {
		struct pd_lane *lane = port->lanes[i];
		struct pd_lane_side *side = &lane->side[PD_RX];

		pd_lock(&side->lock);
		pd_taps_drain(port, lane, whole, whole);
		pd_unlock(&side->lock);
	}
}

/* Add `s` to the taps of `port`. pd_taps_lock held. Returns 0 or -ENOMEM. */
static int pd_taps_add(struct pd_port *port, struct pd_packet *s)
{
	struct pd_packet_port *pp = pd_packet_port_of(port);
	struct pd_taps *old = pp->taps, *taps = pd_taps_new(old->n + 1);
	struct pd_taps *spare = pd_taps_new(old->n + 1);

	if (!taps || !spare) {
		free(taps);
		free(spare);
		return -ENOMEM;
	}
	pd_taps_settle(port, old->n == 1 || pd_vars.rx_backpressure == PD_BACKPRESSURE_PORT);
	pd_taps_fill(taps, old, NULL, s);
	free(pp->spare);
	pp->spare = spare;
	free(pd_taps_replace(port, taps));
	return 0;
}

/* Take `s` out of the taps of `port`, if it is one. pd_taps_lock held. */
static void pd_taps_remove(struct pd_port *port, struct pd_packet *s)
{
	struct pd_packet_port *pp = pd_packet_port_of(port);
	struct pd_taps *old = pp->taps, *taps = pp->spare;
	unsigned i;

	for (i = 0; i < old->n && old->tap[i] != s; i++)
		;
	if (i == old->n)
		return;
	/*
	 * Others read the old array meanwhile, so a copy takes its place: adding put one aside, for
	 * here nothing may fail.
	 */
	taps->n = taps->n_all = 0;
	memset(taps->groups, 0, (taps->mask + 1) * sizeof(*taps->groups));
	pd_taps_fill(taps, old, s, NULL);
	pp->spare = pd_taps_replace(port, taps);
}

/* Take `s` out of the taps of all its ports. pd_taps_lock held. */
static void pd_taps_leave(struct pd_packet *s)
{
	if (!s->tapped)
		return;
	for (unsigned i = 0; i < pd_port_count; i++)
		pd_taps_remove(&pd_ports[i], s);
	s->tapped = false;
}

/*
 * Put `s` into the taps of all its ports. pd_taps_lock held. Returns 0, -EBADF when it was closed,
 * or -ENOMEM.
 */
static int pd_taps_join(struct pd_packet *s)
{
	unsigned first, end;
	int ret = 0;

	if (s->released)
		return -EBADF;
	if (s->tapped)
		return 0;
	pd_packet_port_range(s, &first, &end);
	/* A socket without a protocol only sends: it is no tap. */
	for (unsigned i = first; i < end && !ret && s->protocol; i++)
		ret = pd_packet_serves(s, i) ? pd_taps_add(&pd_ports[i], s) : 0;
	s->tapped = true;
	if (ret)
		pd_taps_leave(s);
	return ret;
}

void pd_taps_before_fork(void)
{
	pd_lock(&pd_taps_lock);
}

void pd_taps_after_fork(bool child)
{
	if (child && pd_rx_pool)
		pd_buffer_pool_reset(pd_rx_pool);
	if (child && pd_tx_pool != pd_rx_pool)
		pd_buffer_pool_reset(pd_tx_pool);
	if (child)
		pd_runtime_after_fork();
	pd_unlock(&pd_taps_lock);
}

int pd_taps_attach(struct pd_packet *s)
{
	int ret;

	pd_lock(&pd_control); /* the lanes of the ports stay */
	pd_lock(&pd_taps_lock);
	ret = pd_taps_join(s);
	pd_unlock(&pd_taps_lock);
	pd_unlock(&pd_control);
	return ret;
}

int pd_taps_move(struct pd_packet *s, struct pd_port *port, uint16_t protocol)
{
	int ret;

	pd_lock(&pd_control);
	pd_lock(&pd_taps_lock);
	pd_taps_leave(s);
	pd_lock(&s->lock);
	pd_store_release(&s->port, port);
	pd_store_relaxed(&s->protocol, protocol);
	pd_store_relaxed(&s->port_mask, pd_sock_rule_ports(protocol));
	pd_unlock(&s->lock);
	ret = pd_taps_join(s);
	pd_unlock(&pd_taps_lock);
	pd_unlock(&pd_control);
	pd_packet_room(s); /* its old port need not wait for it */
	return ret;
}

/* What finishes the frames that each lane sends. pd_taps_lock held. Returns 0 or -ENOMEM. */
static int pd_packet_ports_offload(void)
{
	int ret = 0;

	for (unsigned i = 0; i < pd_port_count; i++) {
		struct pd_packet_port *pp = pd_packet_port_of(&pd_ports[i]);

		for (unsigned q = 0; pp && q < pd_ports[i].config->queues; q++) {
			struct pd_offload *o = pp->offload[q] ? NULL : pd_offload_new(&ret);

			if (o)
				pd_store_release(&pp->offload[q], o); /* pairs with pd_tx_vnet */
			if (ret)
				return ret;
		}
	}
	return 0;
}

int pd_taps_set_vnet(struct pd_packet *s, bool on)
{
	int ret;

	pd_lock(&pd_control); /* the lanes of the ports stay */
	pd_lock(&pd_taps_lock);
	ret = on ? pd_packet_ports_offload() : 0;
	if (!ret) {
		pd_lock(&s->lock);
		pd_store_relaxed(&s->vnet_hdr, on);
		pd_packet_note_control(s);
		pd_unlock(&s->lock);
		for (unsigned i = 0; i < pd_port_count; i++)
			if (pd_ports[i].sock)
				pd_store_relaxed(
					&pd_ports[i].rx_vnet,
					pd_taps_take_vnet(pd_packet_port_of(&pd_ports[i])->taps));
	}
	pd_unlock(&pd_taps_lock);
	pd_unlock(&pd_control);
	return ret;
}

void pd_taps_release(struct pd_packet *s)
{
	pd_lock(&pd_control);
	pd_lock(&pd_taps_lock);
	pd_taps_leave(s);
	pd_lock(&s->lock);
	pd_store_relaxed(&s->released, true);
	pd_frame_queue_clear(&s->queue);
	pd_unlock(&s->lock);
	pd_unlock(&pd_taps_lock);
	pd_unlock(&pd_control);
	pd_packet_room(s);
}

void pd_packet_room(struct pd_packet *s)
{
	uint64_t ports;

	pd_lock(&s->lock);
	ports = s->stops;
	s->stops = 0;
	pd_unlock(&s->lock);
	for (unsigned i = 0; ports; i++, ports >>= 1)
		if (ports & 1)
			pd_bell_ring(&pd_packet_port_of(&pd_ports[i])->room);
}

/* The external-buffer headers of every lane of a port. */
static int pd_packet_port_headers(struct pd_packet_port *pp, unsigned n_lanes)
{
	for (unsigned i = 0; i < n_lanes; i++) {
		uint32_t *headers;

		if (pp->headers[i])
			continue;
		headers = malloc(PD_TX_HEADERS * sizeof(*headers));
		if (!headers)
			return -ENOMEM;
		pp->headers[i] = headers;
		if (pd_buffer_alloc(pd_tx_header_pool, headers, PD_TX_HEADERS) != PD_TX_HEADERS)
			return -ENOMEM;
	}
	return 0;
}

/* The lanes to send by have changed. A lane's lock may be held. */
static void pd_packet_on_lanes(struct pd_port *port)
{
	if (port->sock)
		pd_bell_ring(&pd_packet_port_of(port)->lanes_bell);
}

struct pd_lane *pd_packet_lane_for(struct pd_port *port, uint32_t key, struct pd_wait_set *ws,
				   int *err)
{
	struct pd_packet_port *pp = pd_packet_port_of(port);
	uint32_t lanes;

	if (ws)
		pd_wait_add_bell(ws, &pp->lanes_bell, pd_bell_seq(&pp->lanes_bell), NULL);
	lanes = pd_load_acquire(&port->tx_lanes); /* pairs with pd_port_lanes_set */
	if (pd_likely(lanes))
		return port->lanes[pd_steer_pick(lanes, key, pp->by_class)];
	*err = pd_load_relaxed(&port->up[PD_TX]) ? -EAGAIN : -ENETDOWN;
	return NULL;
}

void pd_packet_ports_after_fork(void)
{
	for (unsigned i = 0; i < pd_port_count; i++) {
		if (!pd_ports[i].sock)
			continue;
		pd_bell_init(&pd_packet_port_of(&pd_ports[i])->lanes_bell);
		pd_bell_init(&pd_packet_port_of(&pd_ports[i])->room);
		for (unsigned q = 0; q < PD_QUEUES_MAX; q++)
			if (pd_packet_port_of(&pd_ports[i])
				    ->graph[q]) /* all are in the pool again */
				pd_packet_port_of(&pd_ports[i])->graph[q]->kept.n = 0;
	}
	pd_steer_after_fork();
}

/* Whether frames of a port go by PFC class. */
static bool pd_packet_port_by_class(const struct pd_port *port)
{
	if (port->config->steer == PD_CONF_STEER_AUTO)
		return port->config->dialect == PD_CONF_DIALECT_AVIP &&
		       port->transport->caps & PD_CAP_SIDECAR;
	return port->config->steer == PD_CONF_STEER_PFC;
}

/*
 * Make a pool, or say once in a process what could not be had; `smaller` is what makes it need
 * less. Returns it, or NULL with *err.
 */
static struct pd_buffer_pool *pd_packet_make_pool(const char *name, uint64_t count, uint32_t bytes,
						  const char *smaller, int *err)
{
	struct pd_buffer_pool *pool = pd_buffer_pool_create(name, (uint32_t)count, bytes, err);
	unsigned long long needs = count * (sizeof(struct pd_buffer) + bytes);
	static bool told;

	if (pool)
		return pool;
	if (*err == -ENOSPC) /* of the stretch of addresses, which no program knows of */
		*err = -ENOMEM;
	if (told)
		return NULL;
	told = true;
	if (pd_buffer_base)
		pd_err("packet",
		       "no memory for packet sockets: %llu bytes for the %llu buffers \"%s\" (%s "
		       "makes it less): %s",
		       needs, (unsigned long long)count, name, smaller, pd_strerror(*err));
	else
		pd_err("packet",
		       "no memory for packet sockets: %llu bytes of address space for buffers, of "
		       "which no setting makes less (ulimit -v is the limit): %s",
		       PD_BUFFER_STRETCH_MIN_BYTES, pd_strerror(*err));
	return NULL;
}

/*
 * There is a second socket: one may see what another sends. What waits for it then takes nothing
 * from what is received. pd_taps_lock held.
 */
static void pd_packet_make_tx_pool(void)
{
	struct pd_buffer_pool *pool;
	int err;

	if (pd_tx_pool != pd_rx_pool)
		return;
	pool = pd_packet_make_pool("tx", pd_vars.tx_bufs, PD_RX_BUFFER_BYTES, "PALLADIUM_TX_BUFS",
				   &err);
	if (pool)
		pd_store_release(&pd_tx_pool, pool);
}

/*
 * What packet sockets need of `port`, but for what an earlier try, which failed, has made.
 * pd_taps_lock held. Returns 0 or -errno.
 */
static int pd_packet_port_init(struct pd_port *port)
{
	unsigned queues = port->config->queues;
	struct pd_packet_port *pp = port->sock;
	int ret;

	if (!pp) {
		pp = calloc(1, sizeof(*pp));
		if (pp)
			pp->taps = pd_taps_new(0);
		if (!pp || !pp->taps) {
			free(pp);
			return -ENOMEM;
		}
		pp->by_class = pd_packet_port_by_class(port);
		pd_bell_init(&pp->lanes_bell);
		pd_bell_init(&pp->room);
		port->sock = pp;
	}
	ret = pd_packet_port_headers(pp, queues);
	for (unsigned q = 0; q < queues && !ret; q++)
		if (!pp->graph[q])
			pp->graph[q] = pd_packet_graph_new(port, q, &ret);
	return ret;
}

int pd_packet_ports_init(void)
{
	unsigned lanes = 0;
	int ret = 0;

	pd_lock(&pd_taps_lock);
	if (pd_rx_pool) {
		pd_packet_make_tx_pool();
		goto out;
	}
	for (unsigned i = 0; i < pd_port_count; i++)
		lanes += pd_ports[i].config->queues;
	pd_packet_lanes = lanes;
	pd_port_on_lanes = pd_packet_on_lanes;
	pd_wait_gather = pd_packet_gather;
	if (!pd_tx_header_pool)
		pd_tx_header_pool = pd_packet_make_pool("tx-iovec", lanes * PD_TX_HEADERS, 0,
							"queues= of the ports", &ret);
	for (unsigned i = 0; i < pd_port_count && !ret; i++) {
		ret = pd_packet_port_init(&pd_ports[i]);
		if (ret)
			pd_log_ratelimited(PD_LOG_ERROR, "packet",
					   "no memory for packet sockets on %s (queues=%u): %s",
					   pd_ports[i].name, (unsigned)pd_ports[i].config->queues,
					   pd_strerror(ret));
	}
	if (ret)
		goto out;
	pd_rx_pool = pd_packet_make_pool("rx", pd_vars.rx_bufs, PD_RX_BUFFER_BYTES,
					 "PALLADIUM_RX_BUFS", &ret);
	pd_tx_pool = pd_rx_pool;
out:
	pd_unlock(&pd_taps_lock);
	return ret;
}

/* --- what a tap wants ------------------------------------------------------------------- */

uint16_t pd_frame_protocol_odd(const struct pd_buffer *b)
{
	uint8_t type[2] = {0};
	uint16_t protocol;

	if (pd_buffer_copy_out(b, 12, type, 2) != 2)
		return 0;
	protocol = (uint16_t)(type[0] << 8 | type[1]);
	if (protocol >= ETH_P_802_3_MIN)
		return protocol;
	/* Novell's raw 802.3 starts its payload with ffff. */
	if (pd_buffer_copy_out(b, 14, type, 2) == 2 && type[0] == 0xff && type[1] == 0xff)
		return ETH_P_802_3;
	return ETH_P_802_2;
}

void pd_packet_salvage(struct pd_port *port, struct pd_lane *lane)
{
	if (!port->sock) /* no packet socket yet */
		return;
	pd_taps_drain(port, lane, true,
		      pd_packet_taps(port)->n == 1 ||
			      pd_vars.rx_backpressure == PD_BACKPRESSURE_PORT);
}
