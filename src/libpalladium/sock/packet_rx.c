/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Receiving on packet sockets (the theory of queues and rings stands in packet.h).
 *
 * One try takes the socket's queue first, then each lane of its ports once. Nothing found: spin,
 * then sleep (wait/wait.h), then try again. The wait set is filled by the same look that found
 * nothing, so no frame can slip between.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <string.h>
#include <time.h>

#include "config/vars.h"
#include "counters/counters.h"
#include "palladium_extra.h"
#include "sock/packet_nodes.h"

/* What recv's flags may hold; the kernel's packet sockets refuse the rest. */
#define PD_RX_FLAGS (MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_ERRQUEUE | MSG_WAITFORONE)
/* TP_STATUS_GSO_TCP of newer headers. */
#define PD_STATUS_GSO_TCP (1u << 8)
/* Internal: leave out lanes that another thread is at. It will look again. */
#define PD_RX_TRY (1 << 30)
/*
 * Internal: the caller spins, and has one port to look at. If that has one lane, look there for a
 * while.
 */
#define PD_RX_SPIN (1 << 29)
/* How many looks that is: about half a microsecond. */
#define PD_RX_SPIN_LOOKS 16

/* --- one frame into one message ----------------------------------------------------------- */

/* Where a message's bytes go: the caller's iovec, at a position. */
struct pd_iov_cursor {
	const struct iovec *iov;
	size_t left;   /* elements from iov on */
	size_t offset; /* in the first */
};

/* Copy `len` bytes to the cursor; returns how many fitted. */
static size_t pd_iov_put(struct pd_iov_cursor *c, const void *src, size_t len)
{
	const uint8_t *from = src;
	size_t done = 0;

	while (done < len && c->left) {
		size_t room = c->iov->iov_len - c->offset, n = pd_min(room, len - done);

		memcpy((uint8_t *)c->iov->iov_base + c->offset, from + done, n);
		done += n;
		c->offset += n;
		if (c->offset == c->iov->iov_len) {
			c->iov++;
			c->left--;
			c->offset = 0;
		}
	}
	return done;
}

/* Copy the chain at `b` from byte `skip` on to the cursor; returns how many bytes fitted. */
static size_t pd_iov_put_chain(struct pd_iov_cursor *c, const struct pd_buffer *b, uint32_t skip)
{
	size_t done = 0;

	for (;;) {
		if (skip < b->len) {
			size_t n = pd_iov_put(c, b->data + skip, b->len - skip);

			done += n;
			if (n < b->len - skip)
				return done;
			skip = 0;
		} else {
			skip -= b->len;
		}
		if (b->next == PD_BUFFER_NONE)
			return done;
		b = pd_buffer_get(b->next);
	}
}

/* Room in the control buffer of a message, as it fills. */
struct pd_cmsg_cursor {
	uint8_t *at;
	size_t left, used;
	bool truncated;
};

/* Append one ancillary datum, or note that it did not fit. */
static void pd_cmsg_put(struct pd_cmsg_cursor *c, int level, int type, const void *data, size_t len)
{
	struct cmsghdr h = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
	size_t space;

	if (c->left < CMSG_LEN(len))
		c->truncated = true;
	if (c->left < sizeof(h))
		return;
	/* As the kernel: what does not fit is cut. */
	len = pd_min(len, c->left - CMSG_LEN(0));
	h.cmsg_len = CMSG_LEN(len);
	space = pd_min(CMSG_SPACE(len), c->left);
	memcpy(c->at, &h, sizeof(h));
	memcpy(c->at + CMSG_LEN(0), data, len);
	c->at += space;
	c->used += space;
	c->left -= space;
}

/* The sidecar of a frame in canonical form; zeroes when it has none. */
static const uint8_t *pd_packet_sidecar(const struct pd_buffer *b)
{
	static const uint8_t none[PD_SIDECAR_BYTES];

	return b->flags & PD_BUFFER_SIDECAR ? b->sidecar : none;
}

/*
 * When the frame came in: when it was queued, or now that it leaves the ring. In the forms that the
 * socket asked for.
 */
static void pd_packet_put_time(const struct pd_packet *s, struct pd_cmsg_cursor *c,
			       uint64_t stamp_ns)
{
	struct timespec ts[3] = {{0, 0}, {0, 0}, {0, 0}}; /* software, legacy, hardware */
	struct timeval tv;

	if (stamp_ns)
		ts[0] = (struct timespec){(time_t)(stamp_ns / PD_NS_PER_SEC),
					  (long)(stamp_ns % PD_NS_PER_SEC)};
	else
		clock_gettime(CLOCK_REALTIME, &ts[0]);
	if (s->timestamps == SO_TIMESTAMPNS) {
		pd_cmsg_put(c, SOL_SOCKET, SO_TIMESTAMPNS, &ts[0], sizeof(ts[0]));
	} else if (s->timestamps) {
		tv.tv_sec = ts[0].tv_sec;
		tv.tv_usec = ts[0].tv_nsec / 1000;
		pd_cmsg_put(c, SOL_SOCKET, SO_TIMESTAMP, &tv, sizeof(tv));
	}
	if (s->timestamping & SOF_TIMESTAMPING_SOFTWARE &&
	    s->timestamping & SOF_TIMESTAMPING_RX_SOFTWARE)
		pd_cmsg_put(c, SOL_SOCKET, SO_TIMESTAMPING, ts, sizeof(ts));
}

/*
 * What auxiliary data says of a frame's checksum; of a large TCP segment kernels say so since 6.3.
 */
static uint32_t pd_packet_status(const struct pd_buffer *b)
{
	uint32_t status = 0;

	if (pd_likely(!(b->flags & PD_BUFFER_VNET)))
		return 0;
	if (b->vnet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		status = TP_STATUS_CSUMNOTREADY;
	else if (b->vnet[0] & VIRTIO_NET_HDR_F_DATA_VALID && !(b->flags & PD_BUFFER_OUTGOING))
		status = TP_STATUS_CSUM_VALID;
	return b->vnet[1] == VIRTIO_NET_HDR_GSO_NONE ? status : status | PD_STATUS_GSO_TCP;
}

/* Put what stands in front of the frame into a message. Returns how many bytes fitted. */
static size_t pd_packet_put_front(const struct pd_packet *s, const struct pd_buffer *b,
				  struct pd_iov_cursor *c)
{
	static const uint8_t finished[PD_VNET_BYTES];

	if (s->inline_mode)
		return pd_iov_put(c, pd_packet_sidecar(b), PD_SIDECAR_BYTES);
	return pd_iov_put(c, b->flags & PD_BUFFER_VNET ? b->vnet : finished, PD_VNET_BYTES);
}

/*
 * Everything the socket asked to be told about a frame of `frame_len` octets; `queued` is NULL for
 * one that comes off the ring.
 */
static void pd_packet_put_control(const struct pd_packet *s, const struct pd_buffer *b,
				  const struct pd_queued *queued, struct msghdr *m,
				  uint32_t frame_len)
{
	struct pd_cmsg_cursor c = {.at = m->msg_control,
				   .left = m->msg_control ? m->msg_controllen : 0};
	uint32_t drops = queued ? queued->drops : pd_load_relaxed(&s->drops_ever);

	if (pd_packet_stamps(s))
		pd_packet_put_time(s, &c, queued ? queued->stamp_ns : 0);
	if (s->rxq_ovfl && drops) /* as the kernel: no news of nothing */
		pd_cmsg_put(&c, SOL_SOCKET, SO_RXQ_OVFL, &drops, sizeof(drops));
	if (s->auxdata) {
		struct tpacket_auxdata aux = {.tp_status = TP_STATUS_USER | pd_packet_status(b),
					      .tp_len = frame_len,
					      .tp_snaplen = frame_len,
					      .tp_net = s->type == SOCK_RAW ? ETH_HLEN : 0};

		pd_cmsg_put(&c, SOL_PACKET, PACKET_AUXDATA, &aux, sizeof(aux));
	}
	if (s->recv_metadata && !s->inline_mode)
		pd_cmsg_put(&c, SOL_PALLADIUM, PALLADIUM_METADATA, pd_packet_sidecar(b),
			    PD_SIDECAR_BYTES);
	m->msg_controllen = c.used;
	if (c.truncated)
		m->msg_flags |= MSG_CTRUNC;
}

/* PACKET_HOST, _BROADCAST, _MULTICAST, _OTHERHOST or _OUTGOING. */
static uint8_t pd_packet_type_of(const struct pd_buffer *b, const struct pd_port *port,
				 const uint8_t dst[ETH_ALEN])
{
	static const uint8_t broadcast[ETH_ALEN] = {255, 255, 255, 255, 255, 255};

	if (b->flags & PD_BUFFER_OUTGOING)
		return PACKET_OUTGOING;
	if (dst[0] & 1)
		return memcmp(dst, broadcast, ETH_ALEN) ? PACKET_MULTICAST : PACKET_BROADCAST;
	return memcmp(dst, port->mac, ETH_ALEN) ? PACKET_OTHERHOST : PACKET_HOST;
}

/* Fill msg_name with the frame's link-layer source. */
static void pd_packet_put_source(const struct pd_buffer *b, struct msghdr *m)
{
	const struct pd_port *port = &pd_ports[b->rx_port];
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
				 .sll_ifindex = (int)port->ifindex,
				 .sll_hatype = ARPHRD_ETHER,
				 .sll_halen = ETH_ALEN};
	uint8_t eth[ETH_HLEN] = {0};

	if (pd_buffer_copy_out(b, 0, eth, sizeof(eth)) == sizeof(eth)) {
		memcpy(&ll.sll_protocol, eth + 12, 2);
		memcpy(ll.sll_addr, eth + ETH_ALEN, ETH_ALEN);
		ll.sll_pkttype = pd_packet_type_of(b, port, eth);
	}
	memcpy(m->msg_name, &ll, pd_min((size_t)m->msg_namelen, sizeof(ll)));
	m->msg_namelen = sizeof(ll);
}

void pd_packet_deliver(const struct pd_packet *s, const struct pd_buffer *b,
		       const struct pd_queued *queued, struct mmsghdr *mm, int flags)
{
	struct msghdr *m = &mm->msg_hdr;
	struct pd_iov_cursor c = {.iov = m->msg_iov, .left = m->msg_iovlen};
	uint32_t skip = s->type == SOCK_DGRAM ? pd_min(b->total_len, (uint32_t)ETH_HLEN) : 0;
	size_t whole = b->total_len - skip, copied = 0;

	m->msg_flags = 0;
	if (pd_unlikely(pd_load_relaxed(&s->any_front))) {
		copied = pd_packet_put_front(s, b, &c);
		whole += pd_packet_front_bytes(s);
	}
	if (pd_likely(b->next == PD_BUFFER_NONE && c.left == 1)) {
		size_t n = pd_min((size_t)(b->len - skip), c.iov->iov_len - c.offset);

		memcpy((uint8_t *)c.iov->iov_base + c.offset, b->data + skip, n);
		copied += n;
	} else {
		copied += pd_iov_put_chain(&c, b, skip);
	}
	if (m->msg_name)
		pd_packet_put_source(b, m);
	if (pd_unlikely((m->msg_control && m->msg_controllen) || pd_load_relaxed(&s->any_control)))
		pd_packet_put_control(s, b, queued, m, b->total_len - skip);
	else
		m->msg_controllen = 0;
	if (copied < whole)
		m->msg_flags |= MSG_TRUNC;
	mm->msg_len = (unsigned)(flags & MSG_TRUNC ? whole : copied);
}

/* --- one try ------------------------------------------------------------------------------ */

/* The slow half of pd_packet_receive_queue: there are frames. */
static PD_NOINLINE unsigned pd_packet_receive_queued(struct pd_packet *s, struct mmsghdr *msgs,
						     unsigned n, int flags)
{
	uint32_t read[PD_VECTOR_MAX];
	unsigned done = 0;
	bool stops;

	n = pd_min(n, (unsigned)PD_VECTOR_MAX);
	pd_lock(&s->lock);
	while (done < n) {
		const struct pd_queued *queued = pd_frame_queue_peek(&s->queue);

		if (!queued)
			break;
		pd_packet_deliver(s, pd_buffer_get(queued->index), queued, &msgs[done], flags);
		if (flags & MSG_PEEK) {
			done = 1;
			break;
		}
		read[done++] = pd_frame_queue_pop(&s->queue);
	}
	pd_ctr_begin(s->ctr, PD_CTR_SOCKET_QUEUE);
	pd_ctr_set(s->ctr, PD_CTR_SOCKET_RX_QUEUED_PACKETS, s->queue.tail - s->queue.head);
	pd_ctr_set(s->ctr, PD_CTR_SOCKET_RX_QUEUED_BYTES, s->queue.bytes);
	pd_ctr_end(s->ctr, PD_CTR_SOCKET_QUEUE);
	stops = s->stops != 0;
	pd_unlock(&s->lock);
	if (done && !(flags & MSG_PEEK)) {
		unsigned step = pd_vars.buffer_batching_mode == PD_BATCHING_NONE ? 1 : done;

		for (unsigned i = 0; i < done; i += step)
			pd_buffer_free(&read[i], step);
		if (pd_unlikely(stops))
			pd_packet_room(s);
	}
	return done;
}

/* Take up to `n` frames from the queue; returns how many messages were filled. */
static inline unsigned pd_packet_receive_queue(struct pd_packet *s, struct mmsghdr *msgs,
					       unsigned n, int flags)
{
	if (pd_likely(pd_frame_queue_empty(&s->queue)))
		return 0;
	return pd_packet_receive_queued(s, msgs, n, flags);
}

/*
 * Straight from the ring to the caller; a frame that is only peeked at stays there. Lane lock held.
 * Returns messages filled; with none, *broken tells whether the ring is.
 */
static unsigned pd_packet_receive_ring(struct pd_packet *s, struct pd_port *port,
				       struct pd_lane *lane, struct mmsghdr *msgs, unsigned n,
				       int flags, bool *broken)
{
	unsigned filled = 0, max, more;

	n = pd_min(n, (unsigned)PD_VECTOR_MAX);
	for (unsigned seen = 0; seen < PD_RX_LOOK_MAX; seen += max) {
		int got;

		max = pd_packet_batch(n - filled);
		got = pd_packet_take(s, port, lane, msgs + filled, max, flags, &more);
		if (got <= 0) {
			*broken = got < 0;
			break;
		}
		filled += more;
		/* A batch that is bounded is none that the peer has ended. */
		if (filled == n || (filled && (got < (int)max || max == n)))
			break;
	}
	if (filled && !(flags & MSG_PEEK))
		__atomic_fetch_add(&s->stat_packets, filled, __ATOMIC_RELAXED);
	return filled;
}

unsigned pd_packet_receive_shared(struct pd_packet *s, struct pd_port *port, struct pd_lane *lane,
				  struct mmsghdr *msgs, unsigned n, int flags,
				  struct pd_packet_end *end)
{
	bool hold = pd_vars.rx_backpressure == PD_BACKPRESSURE_PORT;
	unsigned most = n ? PD_RX_LOOK_MAX : PD_VECTOR_MAX;
	struct pd_packet_call call = {.port = port,
				      .lane = lane,
				      .graph = pd_packet_graph_of(port, lane),
				      .taps = pd_packet_taps(port),
				      .keep = hold,
				      .hold = hold,
				      .room = n,
				      .msgs = msgs,
				      .flags = flags};

	if (s)
		pd_packet_call_join(&call, s);
	for (unsigned seen = 0; seen < most; seen += call.max) {
		/* No more than it may take, unless what comes is not for it. */
		call.max = pd_packet_batch(n && (!seen || call.filled) ? n - call.filled
								       : PD_VECTOR_MAX);
		pd_packet_take_shared(&call);
		if (call.got < (int)call.max || call.done < call.max || (n && call.filled == n))
			break;
	}
	end->broken = call.got < 0;
	end->stopped = call.stopped;
	end->starved = call.starved;
	if (call.filled)
		__atomic_fetch_add(&s->stat_packets, call.filled, __ATOMIC_RELAXED);
	return call.filled;
}

void pd_packet_note_end(struct pd_wait_set *ws, struct pd_port *port, struct pd_lane *lane,
			const struct pd_packet_end *end)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	bool all = side->up && (end->broken || end->stopped || end->starved);

	pd_wait_add_lane(ws, lane, PD_RX, all ? lane->ops->position(lane, PD_RX) : side->cursor);
	if (pd_unlikely(end->stopped))
		pd_wait_add_bell(ws, &pd_packet_port_of(port)->room, end->room, NULL);
	ws->recheck |= end->starved;
}

/*
 * Look at a ring until there is something in it, for a bounded time. What is between two looks is
 * what a frame finds the receiver late by, so it is the look alone. It ends when another thread
 * waits for the lock. Lane lock held.
 */
static void pd_packet_watch(struct pd_lane *lane)
{
	struct pd_lane_side *side = &lane->side[PD_RX];

	for (unsigned i = 0; i < PD_RX_SPIN_LOOKS && !pd_lock_is_wanted(&side->lock); i++) {
		if (lane->ops->position(lane, PD_RX) != side->cursor)
			break;
		pd_cpu_relax();
	}
}

/*
 * One lane's turn. Returns messages filled; with none, notes in `ws` (if given) what to wait for,
 * and frames may have come into the queue instead.
 */
static unsigned pd_packet_receive_lane(struct pd_packet *s, struct pd_port *port,
				       struct pd_lane *lane, struct mmsghdr *msgs, unsigned n,
				       int flags, struct pd_wait_set *ws)
{
	struct pd_lane_side *side = &lane->side[PD_RX];
	struct pd_packet_end end;
	unsigned filled = 0;

	if (pd_unlikely(flags & PD_RX_TRY)) {
		if (!pd_trylock(&side->lock))
			return 0;
	} else {
		pd_lock(&side->lock);
	}
	pd_packet_end_begin(&end, port);
	/* Frames that came into the queue since we looked there come first. */
	if (pd_likely(side->up && pd_frame_queue_empty(&s->queue))) {
		if (flags & PD_RX_SPIN)
			pd_packet_watch(lane);
		if (pd_packet_is_alone(s, port))
			filled = pd_packet_receive_ring(s, port, lane, msgs, n, flags, &end.broken);
		else if (flags & MSG_PEEK)
			pd_packet_receive_shared(NULL, port, lane, NULL, 0, 0, &end);
		else
			filled = pd_packet_receive_shared(s, port, lane, msgs, n, flags, &end);
	}
	if (!filled && ws)
		pd_packet_note_end(ws, port, lane, &end);
	pd_unlock(&side->lock);
	return filled;
}

/* The lanes of a port of several, each once, in the order of steer.h. Returns messages filled. */
static PD_NOINLINE unsigned pd_packet_receive_lanes(struct pd_packet *s, struct pd_port *port,
						    struct mmsghdr *msgs, unsigned n, int flags,
						    struct pd_wait_set *ws)
{
	unsigned others, first = pd_steer_receive(s, port, &others), which = first, filled;

	for (unsigned i = 0; i <= port->n_lanes; i++) {
		if (i) {
			which = others;
			others = others + 1 == port->n_lanes ? 0 : others + 1;
			if (which == first)
				continue;
		}
		if (!ws && !(pd_load_relaxed(&port->up[PD_RX]) >> which & 1))
			continue;
		filled = pd_packet_receive_lane(s, port, port->lanes[which], msgs, n, flags, ws);
		if (!filled)
			continue;
		if (flags & MSG_PEEK)
			pd_steer_looked(s, which);
		else
			pd_steer_received(s, port, which, first);
		return filled;
	}
	return 0;
}

/*
 * PALLADIUM_RX_CQ_DRAIN_RATE_NSEC: what waits in the rings goes into the queues at that rate,
 * although there are frames in the queue of `s`. A port of which it is the one tap has its queue in
 * the ring.
 */
static PD_NOINLINE void pd_packet_drain(struct pd_packet *s)
{
	uint64_t now = pd_clock_ns();
	unsigned first, end;

	if (now - pd_load_relaxed(&s->drained_ns) < (uint64_t)pd_vars.rx_cq_drain_rate_nsec)
		return;
	pd_store_relaxed(&s->drained_ns, now);
	pd_packet_port_range(s, &first, &end);
	for (unsigned p = first; p < end; p++) {
		struct pd_port *port = &pd_ports[p];

		if (!pd_packet_serves(s, p) || !pd_port_lease_held(port))
			continue;
		for (unsigned i = 0; i < port->n_lanes; i++) {
			struct pd_lane_side *side = &port->lanes[i]->side[PD_RX];
			struct pd_packet_end ignored;

			if (!pd_trylock(&side->lock))
				continue;
			if (side->up && !pd_packet_is_alone(s, port))
				pd_packet_receive_shared(NULL, port, port->lanes[i], NULL, 0, 0,
							 &ignored);
			pd_unlock(&side->lock);
		}
	}
}

/* Queue, then every lane of the socket's ports once. Returns messages filled. */
static unsigned pd_packet_try_receive(struct pd_packet *s, struct mmsghdr *msgs, unsigned n,
				      int flags, struct pd_wait_set *ws)
{
	unsigned first, end, filled;

	if (pd_unlikely(pd_vars.rx_cq_drain_rate_nsec) && !pd_frame_queue_empty(&s->queue))
		pd_packet_drain(s);
	filled = pd_packet_receive_queue(s, msgs, n, flags);
	if (filled)
		return filled;
	pd_packet_port_range(s, &first, &end);
	for (unsigned p = first; p < end; p++) {
		struct pd_port *port = &pd_ports[p];

		if (!pd_packet_serves(s, p))
			continue;
		if (pd_unlikely(!pd_port_lease_take(port))) {
			if (ws)
				ws->recheck = true;
			continue;
		}
		if (pd_likely(port->n_lanes == 1))
			filled = pd_packet_receive_lane(s, port, port->lanes[0], msgs, n,
							flags & ~PD_RX_TRY, ws);
		else
			filled = pd_packet_receive_lanes(s, port, msgs, n, flags & ~PD_RX_SPIN, ws);
		if (filled)
			return filled;
	}
	/*
	 * This look, another thread's, or the end of a link may have put frames into the queue
	 * since it was looked at.
	 */
	return pd_packet_receive_queue(s, msgs, n, flags);
}

/* --- waiting ------------------------------------------------------------------------------ */

/* The error that waits on the socket, cleared; 0 when there is none. */
static int pd_packet_take_error(struct pd_packet *s)
{
	if (pd_likely(!pd_load_relaxed(&s->error)))
		return 0;
	return -pd_exchange(&s->error, 0);
}

/*
 * PALLADIUM_RX_POLL as pd_spin_more wants it: VMA counts loops, one of which is about a tenth of a
 * microsecond. Only 0 is none.
 */
static int64_t pd_packet_spin_setting(void)
{
	if (pd_vars.rx_poll == PD_POLL_ADAPTIVE)
		return -1;
	if (pd_vars.rx_poll == PD_POLL_FOREVER)
		return INT32_MAX;
	return (pd_vars.rx_poll + 9) / 10;
}

/*
 * Wait until a try finds something; *sleeps grows by one with every sleep. Returns messages filled,
 * -EAGAIN at the deadline, -EINTR, -EBADF when the socket was closed meanwhile, or the socket's
 * error.
 */
static PD_NOINLINE int pd_packet_wait_receive(struct pd_packet *s, struct mmsghdr *msgs, unsigned n,
					      int flags, uint64_t deadline_ns, unsigned *sleeps)
{
	/* Who yields at every look, or has several ports to look at, stays at none. */
	const bool stay = pd_load_relaxed(&s->port) && !pd_wait_tuning.yield;
	const int look = flags | PD_RX_TRY | (stay ? PD_RX_SPIN : 0);
	struct pd_spin_loop spin = {.spin = &s->receive_spin, .long_rounds = stay};
	int64_t setting = pd_packet_spin_setting();
	struct pd_wait_set *ws;
	unsigned filled;
	int ret = 0;

	while (pd_spin_more(&spin, setting, deadline_ns)) {
		filled = pd_packet_try_receive(s, msgs, n, look, NULL);
		if (filled) {
			pd_spin_end(&s->receive_spin, true);
			return (int)filled;
		}
	}
	pd_spin_end(&s->receive_spin, false);
	ws = pd_wait_begin();
	pd_wait_on_cancel(ws, pd_wait_drop, &s->sock);
	for (;;) {
		uint32_t seq = pd_bell_seq(&s->pollable.bell);

		pd_wait_reset(ws);
		filled = pd_packet_try_receive(s, msgs, n, flags, ws);
		if (filled)
			return (int)filled;
		ret = pd_packet_take_error(s);
		if (!ret && pd_load_relaxed(&s->released))
			ret = pd_packet_gone(s);
		if (!ret && pd_clock_ns() >= deadline_ns)
			ret = -EAGAIN;
		if (ret)
			return ret;
		pd_wait_add_bell(ws, &s->pollable.bell, seq, NULL);
		++*sleeps;
		ret = pd_wait_sleep(ws, deadline_ns, NULL);
		if (ret < 0 && !pd_packet_restarts(ret, deadline_ns))
			return ret;
	}
}

/* When a wait of `wait_ns` that begins now is over. */
static uint64_t pd_packet_deadline(uint64_t wait_ns)
{
	return wait_ns == PD_WAIT_FOREVER ? PD_WAIT_FOREVER : pd_clock_ns() + wait_ns;
}

/* Count what a call did. */
static void pd_packet_count_receive(struct pd_packet *s, const struct mmsghdr *msgs, int result,
				    unsigned sleeps, int flags)
{
	struct pd_ctr_block *ctr = s->ctr;
	uint64_t bytes = 0, truncated = 0;

	for (int i = 0; i < result; i++) {
		bytes += msgs[i].msg_len;
		truncated += (msgs[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
	}
	pd_lock(&s->lock);
	pd_ctr_begin(ctr, PD_CTR_SOCKET_RX);
	if (pd_likely(result > 0)) {
		s->used = true;
		pd_ctr_add(ctr,
			   flags & MSG_PEEK ? PD_CTR_SOCKET_RX_PEEKS : PD_CTR_SOCKET_RX_PACKETS,
			   (uint64_t)result);
		if (!(flags & MSG_PEEK))
			pd_ctr_add(ctr, PD_CTR_SOCKET_RX_BYTES, bytes);
		pd_ctr_add(ctr, sleeps ? PD_CTR_SOCKET_RX_POLL_MISS : PD_CTR_SOCKET_RX_POLL_HIT, 1);
		if (pd_unlikely(truncated))
			pd_ctr_add(ctr, PD_CTR_SOCKET_RX_TRUNCATED, truncated);
	} else {
		pd_ctr_add(ctr,
			   result == -EAGAIN ? PD_CTR_SOCKET_RX_EAGAINS : PD_CTR_SOCKET_RX_ERRORS,
			   1);
	}
	if (sleeps)
		pd_ctr_add(ctr, PD_CTR_SOCKET_RX_WAKEUPS, sleeps);
	pd_ctr_end(ctr, PD_CTR_SOCKET_RX);
	pd_unlock(&s->lock);
}

/* Have the socket tell of an error. */
static void pd_packet_set_error(struct pd_packet *s, int error)
{
	pd_store_relaxed(&s->error, error);
	pd_pollable_mark(&s->pollable);
}

/*
 * How many messages from the first on have room for a virtio-net header; the kernel refuses the
 * others.
 */
static unsigned pd_packet_roomy(const struct mmsghdr *msgs, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		const struct msghdr *m = &msgs[i].msg_hdr;
		size_t room = 0;

		for (size_t k = 0; k < m->msg_iovlen && room < PD_VNET_BYTES; k++)
			room += pd_min(m->msg_iov[k].iov_len, (size_t)PD_VNET_BYTES);
		if (room < PD_VNET_BYTES)
			break;
	}
	return i;
}

int pd_packet_receive(struct pd_packet *s, struct mmsghdr *msgs, unsigned n, int flags,
		      uint64_t wait_ns, uint64_t end_ns)
{
	unsigned done = 0, sleeps = 0;
	int ret;

	if (pd_unlikely(flags & ~PD_RX_FLAGS))
		return -EINVAL;
	if (pd_unlikely(flags & MSG_ERRQUEUE))
		return -EAGAIN;
	if (!n)
		return 0;
	if (pd_unlikely(msgs[0].msg_hdr.msg_iovlen > UIO_MAXIOV))
		return -EMSGSIZE;
	if (pd_unlikely(pd_load_relaxed(&s->vnet_hdr))) {
		n = pd_packet_roomy(msgs, n);
		if (!n)
			return -EINVAL;
	}
	ret = pd_packet_attach(s);
	if (ret)
		return ret;
	do {
		/*
		 * Peeking shows the same frame every time, and a timeout of nothing ends with the
		 * first.
		 */
		unsigned most = flags & MSG_PEEK || end_ns == PD_WAIT_NOT ? 1 : n - done;

		ret = (int)pd_packet_try_receive(s, msgs + done, most, flags, NULL);
		if (!ret)
			ret = pd_packet_take_error(s);
		if (!ret && wait_ns && !(done && flags & MSG_WAITFORONE))
			ret = pd_packet_wait_receive(s, msgs + done, most, flags,
						     pd_packet_deadline(wait_ns), &sleeps);
		if (ret <= 0)
			break;
		done += (unsigned)ret;
		/* One look takes all there is: who does not wait need not look again. */
		if (!(flags & MSG_PEEK) && (!wait_ns || flags & MSG_WAITFORONE))
			break;
	} while (done < n && (end_ns == PD_WAIT_FOREVER || pd_clock_ns() < end_ns));
	if (done) {
		/*
		 * What ended the call early is told by the next one; running out of time or a
		 * signal is not news.
		 */
		if (ret < 0 && ret != -EAGAIN && ret != -EINTR && ret != (int)PD_HOOK_PASS)
			pd_packet_set_error(s, -ret);
		ret = (int)done;
	} else if (!ret) {
		ret = -EAGAIN;
	}
	pd_packet_count_receive(s, msgs, ret, sleeps, flags);
	return ret;
}
