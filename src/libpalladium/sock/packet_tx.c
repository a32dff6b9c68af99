/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sending on packet sockets.
 *
 * A run of messages for one port becomes a vector of external buffers over the callers' iovecs, is
 * copied into the peer's memory under one lock, and is published with one store. When the ring is
 * full a blocking send waits for room; while it waits it takes frames that come in off the ring
 * into the queues of those who want them, so that two programs that both send do not wait for each
 * other for ever.
 *
 * This file has the nodes packet-send and packet-output, and the straight line made from their
 * steps (packet_nodes.h).
 *
 * Locks: the lane's transmit lock for a run; then packet->lock for the counters.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "config/vars.h"
#include "counters/counters.h"
#include "palladium_extra.h"
#include "sock/packet_nodes.h"
#include "transport/offload.h"

/* Octets a frame may have beyond MTU and Ethernet header: one 802.1Q tag. */
#define PD_VLAN_BYTES 4

/* Where a run goes, and the headers it is built from. */
struct pd_tx_run {
	struct pd_packet *s;
	struct pd_port *port;
	struct pd_lane *lane;
	uint32_t key;            /* of the first message; in a port of several lanes (steer.h) */
	const uint32_t *headers; /* PD_TX_HEADERS external buffers of the lane */
	unsigned used;           /* of them */
	struct mmsghdr *msgs;
	unsigned limit;          /* messages that may go */
	unsigned n;              /* frames built */
	int err;                 /* what ended the building early */
	int sent;                /* frames that went, or -errno of the first */
	bool vnet;               /* some have headers that say something */
	struct pd_buffer **bufs; /* PD_VECTOR_MAX */
};

/*
 * A run of up to `n` messages of `s`. Member by member: what an initialiser leaves out is cleared
 * by a string instruction, which takes as long as a good part of a send.
 */
static inline void pd_tx_run_begin(struct pd_tx_run *run, struct pd_packet *s, struct mmsghdr *msgs,
				   unsigned n)
{
	run->s = s;
	run->msgs = msgs;
	run->limit = n;
	run->n = 0;
	run->used = 0;
	run->key = 0;
	run->err = 0;
	run->sent = 0;
	run->vnet = false;
}

/* Messages that packet-send refuses: told when the first of a run is one. */
#define PD_PACKET_SEND_ERROR_TABLE(_)                                 \
	_(TOO_LONG, "message longer than a frame of the port may be") \
	_(REFUSED, "message without a valid frame, address or sidecar")

enum pd_packet_send_error {
#define PD_ROW(id, text) PD_PACKET_SEND_ERROR_##id,
	PD_PACKET_SEND_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_PACKET_SEND_ERRORS
};

/* --- one message ---------------------------------------------------------------------------- */

/* The port a message with an address goes to. */
static PD_NOINLINE struct pd_port *pd_packet_addressed(const struct pd_packet *s,
						       const struct msghdr *m, int *err)
{
	const struct sockaddr_ll *ll = m->msg_name;
	struct pd_port *port;

	/* As the kernel: the family is not looked at, and index 0 is no interface. */
	if (m->msg_namelen < sizeof(*ll) ||
	    m->msg_namelen < offsetof(struct sockaddr_ll, sll_addr) + ll->sll_halen) {
		*err = -EINVAL;
		return NULL;
	}
	port = pd_port_by_ifindex((uint32_t)ll->sll_ifindex);
	if (port && pd_packet_serves(s, port->index))
		return port;
	*err = -ENXIO;
	return NULL;
}

/* The port a message goes to: by its address, else what the socket is bound to. */
static inline struct pd_port *pd_packet_destination(const struct pd_packet *s,
						    const struct msghdr *m, int *err)
{
	struct pd_port *port;

	if (m->msg_name)
		return pd_packet_addressed(s, m, err);
	port = pd_load_acquire(&s->port); /* pairs with pd_taps_move */
	if (pd_unlikely(!port))
		*err = -ENXIO;
	return port;
}

const uint8_t *pd_packet_cmsg_sidecar(const struct msghdr *m, int *err)
{
	struct msghdr *hdr = (struct msghdr *)(uintptr_t)m; /* CMSG_NXTHDR takes no const */

	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		if (c->cmsg_len < CMSG_LEN(0) ||
		    c->cmsg_len > (size_t)((uint8_t *)m->msg_control + m->msg_controllen -
					   (uint8_t *)c)) {
			*err = -EINVAL;
			return NULL;
		}
		if (c->cmsg_level != SOL_PALLADIUM)
			continue;
		if (c->cmsg_type != PALLADIUM_METADATA ||
		    c->cmsg_len < CMSG_LEN(PD_SIDECAR_BYTES)) {
			*err = -EINVAL;
			return NULL;
		}
		return CMSG_DATA(c);
	}
	return NULL;
}

/* Add the buffer `b` to the chain that starts at `head`. */
static void pd_tx_link(struct pd_buffer *head, struct pd_buffer **tail, struct pd_buffer *b)
{
	if (*tail)
		(*tail)->next = b->index;
	head->total_len += b->len;
	*tail = b;
}

/* A header of the run over `len` bytes at `data`. There is one: the caller checked. */
static struct pd_buffer *pd_tx_header(struct pd_tx_run *run, const void *data, size_t len)
{
	struct pd_buffer *b = pd_buffer_get(run->headers[run->used++]);

	b->data = (uint8_t *)(uintptr_t)data;
	b->len = (uint32_t)len;
	b->total_len = 0;
	b->next = PD_BUFFER_NONE;
	b->flags = PD_BUFFER_EXTERNAL;
	b->tx_port = run->port->index;
	return b;
}

/* The Ethernet header of a SOCK_DGRAM message, in the opaque area of its first buffer. */
static int pd_tx_ethernet(struct pd_tx_run *run, const struct msghdr *m, struct pd_buffer *b)
{
	const struct sockaddr_ll *ll = m->msg_name;

	_Static_assert(sizeof(b->opaque) >= ETH_HLEN, "the header fits");
	if (!ll) /* there is no destination without an address */
		return -EINVAL;
	memcpy(b->opaque, ll->sll_addr, ETH_ALEN);
	memcpy(b->opaque + ETH_ALEN, run->port->mac, ETH_ALEN);
	memcpy(b->opaque + 12, &ll->sll_protocol, sizeof(ll->sll_protocol));
	b->data = b->opaque;
	b->len = ETH_HLEN;
	return 0;
}

/* The sidecar of a message: ancillary, else the socket's default. */
static PD_ALWAYS_INLINE int pd_tx_sidecar(struct pd_tx_run *run, const struct msghdr *m,
					  struct pd_buffer *b)
{
	const uint8_t *sidecar = NULL;
	int err = 0;

	if (pd_unlikely(m->msg_control && m->msg_controllen))
		sidecar = pd_packet_cmsg_sidecar(m, &err);
	if (err)
		return err;
	if (sidecar && !(run->port->transport->caps & PD_CAP_SIDECAR))
		return -EOPNOTSUPP;
	memcpy(b->sidecar, sidecar ? sidecar : run->s->default_sidecar.bytes, PD_SIDECAR_BYTES);
	b->flags |= PD_BUFFER_SIDECAR;
	return 0;
}

/* Where in a message's iovec the frame goes on. */
struct pd_tx_place {
	const struct iovec *iov;
	size_t count;  /* elements from iov on */
	size_t offset; /* in the first */
};

/*
 * Move the `need` bytes that a message starts with to `to`; *place then stands behind them. Returns
 * 0 or -EINVAL.
 */
static int pd_tx_front(uint8_t *to, size_t need, struct pd_tx_place *place)
{
	size_t done = 0;

	while (done < need && place->count) {
		size_t n = pd_min(place->iov->iov_len - place->offset, need - done);

		memcpy(to + done, (const uint8_t *)place->iov->iov_base + place->offset, n);
		done += n;
		place->offset += n;
		if (place->offset == place->iov->iov_len) {
			place->iov++;
			place->count--;
			place->offset = 0;
		}
	}
	return done == need ? 0 : -EINVAL;
}

/* Check a finished chain: sizes, and what a frame of no octets means. */
static PD_ALWAYS_INLINE int pd_tx_check(const struct pd_tx_run *run, struct pd_buffer *b)
{
	struct pd_sidecar sidecar;

	if (pd_unlikely(!b->total_len)) {
		memcpy(sidecar.bytes, b->sidecar, sizeof(sidecar.bytes));
		if (!pd_sidecar_is_control(&sidecar))
			return -EINVAL;
		if (!(run->port->transport->caps & PD_CAP_SIDECAR))
			return -EOPNOTSUPP;
		b->flags |= PD_BUFFER_CONTROL;
		return 0;
	}
	if (pd_unlikely(b->total_len < ETH_HLEN))
		return -EINVAL;
	if (pd_likely(b->total_len <= run->port->mtu + ETH_HLEN))
		return 0;
	/* A tagged frame may be four octets longer, as on the kernel's interfaces. */
	if (b->total_len <= run->port->mtu + ETH_HLEN + PD_VLAN_BYTES) {
		uint8_t type[2];

		if (pd_buffer_copy_out(b, 12, type, 2) == 2 && type[0] == 0x81 && type[1] == 0x00)
			return 0;
	}
	return -EMSGSIZE;
}

/*
 * What the head of a chain takes from the message besides the frame, when something stands in front
 * of that. As pd_tx_sidecar.
 */
static PD_NOINLINE int pd_tx_head_front(struct pd_tx_run *run, const struct msghdr *m,
					struct pd_buffer *head, struct pd_tx_place *place)
{
	int ret;

	if (run->s->inline_mode) {
		head->flags |= PD_BUFFER_SIDECAR;
		return pd_tx_front(head->sidecar, PD_SIDECAR_BYTES, place);
	}
	ret = pd_tx_sidecar(run, m, head);
	return ret ? ret : pd_tx_front(head->vnet, PD_VNET_BYTES, place);
}

/*
 * What the virtio-net header of a message, which stands in b->vnet, asks for the frame at `b`.
 * Returns 0, or -EINVAL where the kernel's packet sockets say so: a header that points past the
 * frame, a type that is not known (or is UDP fragmentation, here), a size of 0.
 */
static int pd_tx_vnet(struct pd_tx_run *run, struct pd_buffer *b)
{
	struct virtio_net_hdr h;
	struct pd_vnet_cut cut;
	int task;

	memcpy(&h, b->vnet, sizeof(h));
	if (!h.flags && !h.gso_type && !h.hdr_len)
		return 0;
	if (h.hdr_len > b->total_len)
		return -EINVAL;
	b->flags |= PD_BUFFER_VNET;
	task = pd_offload_read(b, &cut);
	if (task < 0)
		return -EINVAL;
	if (task == PD_VNET_NOTHING) /* a sender has nothing to say of what is valid */
		b->flags &= (uint16_t)~PD_BUFFER_VNET;
	else
		run->vnet = true;
	return 0;
}

/*
 * pd_tx_check for a message that has something in front. A large segment is cut by whoever finishes
 * it.
 */
static PD_NOINLINE int pd_tx_check_front(struct pd_tx_run *run, struct pd_buffer *b)
{
	int ret;

	if (run->s->vnet_hdr && b->total_len >= ETH_HLEN) {
		ret = pd_tx_vnet(run, b);
		if (ret)
			return ret;
		if (b->flags & PD_BUFFER_VNET && b->vnet[1] != VIRTIO_NET_HDR_GSO_NONE)
			return b->total_len <= PD_FRAME_LARGE_BYTES ? 0 : -EMSGSIZE;
	}
	return pd_tx_check(run, b);
}

/*
 * Build the chain of one message. Returns 0, -errno, or 1 when the run has no headers left for it.
 */
static int pd_tx_build(struct pd_tx_run *run, const struct msghdr *m)
{
	const struct iovec *iov = m->msg_iov;
	size_t count = m->msg_iovlen, offset = 0;
	const bool front = pd_load_relaxed(&run->s->any_front);
	struct pd_buffer *head, *tail = NULL;
	int ret;

	if (pd_unlikely(count > UIO_MAXIOV))
		return -EMSGSIZE;
	if (run->n == PD_VECTOR_MAX || run->used + count + 1 > PD_TX_HEADERS)
		return 1;
	head = pd_tx_header(run, NULL, 0);
	head->data = head->opaque; /* a pointer also where nothing follows the sidecar */
	if (pd_unlikely(front)) {
		struct pd_tx_place place = {iov, count, offset};

		ret = pd_tx_head_front(run, m, head, &place);
		iov = place.iov;
		count = place.count;
		offset = place.offset;
	} else {
		ret = pd_tx_sidecar(run, m, head);
	}
	if (!ret && run->s->type == SOCK_DGRAM && (count || !run->s->inline_mode))
		ret = pd_tx_ethernet(run, m, head);
	if (ret)
		return ret;
	if (head->len) {
		pd_tx_link(head, &tail, head);
	} else if (count) {
		/* The first segment goes into the head itself. */
		if (pd_unlikely(iov->iov_len - offset > PD_FRAME_LARGE_BYTES))
			return -EMSGSIZE;
		head->data = (uint8_t *)iov->iov_base + offset;
		head->len = (uint32_t)(iov->iov_len - offset);
		pd_tx_link(head, &tail, head);
		offset = 0;
		iov++;
		count--;
	}
	for (; count; iov++, count--, offset = 0) {
		if (iov->iov_len == offset)
			continue;
		if (pd_unlikely(iov->iov_len > PD_FRAME_LARGE_BYTES + PD_SIDECAR_BYTES))
			return -EMSGSIZE;
		pd_tx_link(head, &tail,
			   pd_tx_header(run, (uint8_t *)iov->iov_base + offset,
					iov->iov_len - offset));
	}
	ret = pd_unlikely(front) ? pd_tx_check_front(run, head) : pd_tx_check(run, head);
	if (!ret)
		run->bufs[run->n++] = head;
	return ret;
}

/* --- a run of messages ---------------------------------------------------------------------- */

/*
 * Find the lane by which the run's first message goes to its port, and lock its transmit side,
 * which is up. Returns false with run->err -EAGAIN or -ENETDOWN, and what to wait for noted in
 * `ws`, if given.
 */
static bool pd_packet_lock_lane(struct pd_tx_run *run, struct pd_wait_set *ws)
{
	struct pd_port *port = run->port;
	struct pd_lane *lane;

	for (;;) {
		if (pd_likely(port->n_lanes == 1)) {
			lane = port->lanes[0];
		} else {
			run->key = pd_steer_message(run->s, port, &run->msgs[0].msg_hdr);
			pd_store_relaxed(&run->s->send_key, run->key);
			lane = pd_packet_lane_for(port, run->key, ws, &run->err);
			if (!lane)
				return false;
		}
		pd_lock(&lane->side[PD_TX].lock);
		if (pd_likely(lane->side[PD_TX].up)) {
			run->lane = lane;
			return true;
		}
		if (ws && port->n_lanes == 1)
			pd_wait_add_lane(ws, lane, PD_TX, 0);
		pd_unlock(&lane->side[PD_TX].lock);
		run->err = -ENETDOWN;
		if (port->n_lanes == 1)
			return false;
		/* It went down just now, and so it is none of those to send by any more. */
		run->err = 0;
	}
}

/* Whether message `m` may follow in a run. */
static bool pd_packet_follows(const struct pd_tx_run *run, const struct msghdr *m)
{
	uint32_t key;
	int err = 0;

	/* Those without an address all go the same way. */
	if ((m->msg_name || run->msgs[0].msg_hdr.msg_name) &&
	    pd_packet_destination(run->s, m, &err) != run->port)
		return false;
	if (pd_likely(run->port->n_lanes == 1))
		return true;
	key = pd_steer_message(run->s, run->port, m);
	return key == run->key || pd_packet_lane_for(run->port, key, NULL, &err) == run->lane;
}

/*
 * packet-send: build frames from messages, as many as go to the run's port and lane. Sets n and
 * err.
 */
static void pd_packet_send_step(struct pd_tx_run *run, struct pd_node *node)
{
	while (run->n < run->limit) {
		const struct msghdr *m = &run->msgs[run->n].msg_hdr;

		if (run->n && !pd_packet_follows(run, m))
			break;
		run->err = pd_tx_build(run, m);
		if (pd_unlikely(run->err))
			break;
	}
	if (pd_unlikely(!run->n))
		pd_node_add(&node->errors[run->err == -EMSGSIZE ? PD_PACKET_SEND_ERROR_TOO_LONG
								: PD_PACKET_SEND_ERROR_REFUSED],
			    1);
}

/* pd_port_output_try for frames that may be unfinished. */
static PD_NOINLINE int pd_packet_output_vnet(struct pd_tx_run *run,
					     enum pd_port_output_error *error)
{
	struct pd_offload *o = /* pairs with pd_packet_ports_offload */
		pd_load_acquire(&pd_packet_port_of(run->port)->offload[run->lane->queue]);
	int ret = o ? pd_offload_send(o, run->lane, run->bufs, run->n) : -EMSGSIZE;

	if (pd_unlikely(ret <= 0))
		*error = pd_port_output_why(ret);
	return ret;
}

/*
 * packet-output: port-output's step, once: what does not go is the program's to send again. Sets
 * sent.
 */
static PD_ALWAYS_INLINE void pd_packet_output_step(struct pd_tx_run *run, struct pd_node *node)
{
	enum pd_port_output_error error;

	if (pd_unlikely(run->vnet))
		run->sent = pd_packet_output_vnet(run, &error);
	else
		run->sent = pd_port_output_try(run->lane, run->bufs, run->n, &error);
	if (pd_likely(run->sent > 0))
		run->lane->ops->tx_flush(run->lane);
	else
		pd_node_add(&node->errors[error], 1);
}

/* Both in one straight line. */
static PD_ALWAYS_INLINE void pd_packet_send_fused(struct pd_tx_run *run,
						  const struct pd_packet_graph *graph)
{
	pd_packet_send_step(run, graph->send);
	pd_node_count(graph->send, run->n);
	if (pd_unlikely(!run->n))
		return;
	pd_packet_output_step(run, graph->output);
	pd_node_count(graph->output, run->n);
}

/* A run on its way through the graph: what packet-match and packet-queue have to know first. */
struct pd_tx_call {
	struct pd_packet_call call;
	struct pd_tx_run *run;
};

/* Through the graph: others watch, or somebody wants each frame to go there. */
static void pd_packet_send_graph(struct pd_tx_run *run, struct pd_packet_graph *graph)
{
	struct pd_tx_call tx = {
		.call = {.s = run->s,
			 .port = run->port,
			 .lane = run->lane,
			 .graph = graph,
			 .taps = pd_packet_taps(run->port),
			 .outgoing = true},
		.run = run,
	};

	pd_packet_run_graph(&tx.call, graph->tx, graph->send);
}

/*
 * True when a tap other than the sender may watch what it sends. Transmit lock held, so the taps
 * stay.
 */
static inline bool pd_packet_is_watched(const struct pd_packet *s, struct pd_port *port)
{
	return pd_packet_taps(port)->n_all > (s->protocol == ETH_P_ALL);
}

/*
 * Build and send as many of the `n` messages as go to one port, with one lock and one flush.
 * Returns messages sent (at least one), -EAGAIN when there is no room (noted in `ws`), or the error
 * of the first message.
 */
static int pd_packet_send_run(struct pd_packet *s, struct mmsghdr *msgs, unsigned n,
			      struct pd_wait_set *ws)
{
	struct pd_packet_graph *graph;
	struct pd_lane_side *side;
	struct pd_tx_run run;
	unsigned front;
	uint32_t seen;

	pd_tx_run_begin(&run, s, msgs, n);
	run.port = pd_packet_destination(s, &msgs[0].msg_hdr, &run.err);
	if (run.err)
		return run.err;
	if (pd_unlikely(!pd_port_lease_take(run.port))) {
		if (ws)
			ws->recheck = true;
		return -ENETDOWN;
	}
	if (pd_unlikely(!pd_packet_lock_lane(&run, ws))) {
		/* Also the port's return is news to an edge-triggered epoll. */
		pd_store_relaxed(&s->out_blocked, true);
		return run.err;
	}
	run.headers = pd_packet_port_of(run.port)->headers[run.lane->queue];
	graph = pd_packet_graph_of(run.port, run.lane);
	run.bufs = graph->tx->scratch.more; /* no node's */
	side = &run.lane->side[PD_TX];
	seen = ws ? run.lane->ops->position(run.lane, PD_TX) : 0;
	if (pd_likely(!pd_packet_is_watched(s, run.port) && !pd_load_relaxed(&pd_graph_wanted)))
		pd_packet_send_fused(&run, graph);
	else
		pd_packet_send_graph(&run, graph);
	if (run.n) {
		if (pd_unlikely(!run.sent)) {
			pd_store_relaxed(&s->out_blocked, true);
			if (ws)
				pd_wait_add_lane(ws, run.lane, PD_TX, seen);
			run.sent = -EAGAIN;
		}
		run.err = run.sent;
	}
	front = (unsigned)pd_packet_front_bytes(s);
	for (int i = 0; i < run.sent; i++)
		msgs[i].msg_len =
			run.bufs[i]->total_len + front - (s->type == SOCK_DGRAM ? ETH_HLEN : 0);
	pd_unlock(&side->lock);
	return run.err;
}

/*
 * While a send is blocked: take what comes in into the queues, so that a peer that only sends gets
 * on.
 */
static void pd_packet_relieve(struct pd_port *port, struct pd_wait_set *ws)
{
	for (unsigned i = 0; i < port->n_lanes; i++) {
		struct pd_lane *lane = port->lanes[i];
		struct pd_lane_side *side = &lane->side[PD_RX];
		uint32_t seen;

		pd_lock(&side->lock);
		if (side->up) {
			int got;

			seen = lane->ops->position(lane, PD_RX);
			got = pd_packet_distribute(port, lane, PD_VECTOR_MAX, true);
			/*
			 * Frames that find no buffer stay in the ring: then only room or a reader
			 * ends the wait.
			 */
			pd_wait_add_lane(ws, lane, PD_RX, got > 0 ? side->cursor : seen);
		}
		pd_unlock(&side->lock);
	}
}

/*
 * Wait until a run can be sent. Returns messages sent or -errno (-EAGAIN at the deadline).
 */
static PD_NOINLINE int pd_packet_wait_send(struct pd_packet *s, struct mmsghdr *msgs, unsigned n,
					   uint64_t deadline_ns)
{
	struct pd_spin_loop spin = {.spin = &s->send_spin};
	bool wait_down = pd_vars.send_when_down == PD_SEND_WHEN_DOWN_WAIT;
	struct pd_wait_set *ws;
	struct pd_port *port;
	int ret, err = 0;

	port = pd_packet_destination(s, &msgs[0].msg_hdr, &err);
	if (!port)
		return err;
	/* Room has no setting of its own; who wants no spinning at all says so for receiving. */
	while (pd_spin_more(&spin, pd_vars.rx_poll ? -1 : 0, deadline_ns)) {
		ret = pd_packet_send_run(s, msgs, n, NULL);
		if (ret != -EAGAIN && !(ret == -ENETDOWN && wait_down)) {
			pd_spin_end(&s->send_spin, true);
			return ret;
		}
	}
	pd_spin_end(&s->send_spin, false);
	ws = pd_wait_begin();
	pd_wait_on_cancel(ws, pd_wait_drop, &s->sock);
	for (;;) {
		uint32_t seq = pd_bell_seq(&s->pollable.bell);

		pd_wait_reset(ws);
		ret = pd_packet_send_run(s, msgs, n, ws);
		if (ret != -EAGAIN && !(ret == -ENETDOWN && wait_down))
			return ret;
		if (pd_load_relaxed(&s->released))
			return pd_packet_gone(s);
		if (pd_clock_ns() >= deadline_ns)
			return ret;
		if (pd_likely(pd_port_lease_held(port)))
			pd_packet_relieve(port, ws);
		pd_wait_add_bell(ws, &s->pollable.bell, seq, NULL);
		ret = pd_wait_sleep(ws, deadline_ns, NULL);
		if (ret < 0 && !pd_packet_restarts(ret, deadline_ns))
			return ret;
	}
}

/* Count a message that was not sent as its port was down. */
static void pd_packet_count_down(struct pd_packet *s, const struct msghdr *msg)
{
	int err = 0;
	struct pd_port *port = pd_packet_destination(s, msg, &err);

	if (port)
		pd_ctr_count(port->ctr, PD_CTR_PORT_TX_DROP_PORT_DOWN, 1);
}

/* Count what a call did. */
static void pd_packet_count_send(struct pd_packet *s, const struct mmsghdr *msgs, int result,
				 bool waited)
{
	uint64_t bytes = 0;

	for (int i = 0; i < result; i++)
		bytes += msgs[i].msg_len;
	pd_lock(&s->lock);
	pd_ctr_begin(s->ctr, PD_CTR_SOCKET_TX);
	if (pd_likely(result > 0)) {
		s->used = true;
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_TX_PACKETS, (uint64_t)result);
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_TX_BYTES, bytes);
	} else if (result == -EAGAIN) {
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_TX_EAGAINS, 1);
	} else {
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_TX_ERRORS, 1);
		/* The program will not try these again. */
		if (result == -EMSGSIZE || result == -ENETDOWN)
			pd_ctr_add(s->ctr, PD_CTR_SOCKET_TX_DROPS, 1);
	}
	if (waited)
		pd_ctr_add(s->ctr, PD_CTR_SOCKET_TX_WAITS, 1);
	pd_ctr_end(s->ctr, PD_CTR_SOCKET_TX);
	pd_unlock(&s->lock);
}

int pd_packet_send(struct pd_packet *s, struct mmsghdr *msgs, unsigned n, int flags)
{
	bool block = !(flags & MSG_DONTWAIT) && !(pd_load_relaxed(&s->sock.flags) & O_NONBLOCK);
	uint64_t deadline = PD_WAIT_NOT;
	bool waited = false;
	unsigned done = 0;
	int ret = 0;

	if (!n)
		return 0;
	ret = pd_packet_attach(s);
	while (!ret && done < n) {
		ret = pd_packet_send_run(s, msgs + done, n - done, NULL);
		if (block &&
		    (ret == -EAGAIN ||
		     (ret == -ENETDOWN && pd_vars.send_when_down == PD_SEND_WHEN_DOWN_WAIT))) {
			/* Each wait of sendmmsg has its own, as in the kernel. */
			deadline = s->send_timeout_ns ? pd_clock_ns() + s->send_timeout_ns
						      : PD_WAIT_FOREVER;
			waited = true;
			ret = pd_packet_wait_send(s, msgs + done, n - done, deadline);
		}
		if (ret > 0) {
			done += (unsigned)ret;
			ret = 0;
		}
	}
	if (ret == -ENXIO && !done && msgs->msg_hdr.msg_name)
		ret = pd_packet_send_elsewhere(
			s, ((const struct sockaddr_ll *)msgs->msg_hdr.msg_name)->sll_ifindex);
	if (ret == (int)PD_HOOK_PASS)
		return ret;
	if (done)
		ret = (int)done;
	pd_packet_count_send(s, msgs, ret, waited);
	if (pd_unlikely(ret == -ENETDOWN))
		pd_packet_count_down(s, &msgs->msg_hdr);
	return ret;
}

/* --- nodes ---------------------------------------------------------------------------------- */

/* The run that goes through the engine. */
static struct pd_tx_run *pd_tx_run_of(const struct pd_engine *engine)
{
	struct pd_packet_call *call = engine->call;

	return pd_container_of(call, struct pd_tx_call, call)->run;
}

/* The node: makes frames of the messages of the run. Returns how many. */
static unsigned pd_packet_send_dispatch(struct pd_engine *engine, struct pd_node *node,
					struct pd_vector *vector)
{
	struct pd_tx_run *run;
	unsigned room;
	uint32_t *to;

	(void)vector;
	if (!engine->call) /* a round that is about something else */
		return 0;
	run = pd_tx_run_of(engine);
	pd_packet_send_step(run, node);
	if (!run->n)
		return 0;
	to = pd_next_get(engine, node, 0, &room);
	pd_assert(room >= run->n); /* the first of this round */
	for (unsigned i = 0; i < run->n; i++)
		to[i] = run->bufs[i]->index;
	pd_next_put(engine, node, 0, run->n);
	return run->n;
}

static const char *const pd_packet_send_errors[] = {PD_PACKET_SEND_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

PD_NODE_REGISTER(pd_packet_send) = {
	.name = "packet-send",
	.type = PD_NODE_INPUT,
	.fn = pd_packet_send_dispatch,
	.trace = pd_packet_trace,
	.format_trace = pd_packet_send_format_trace,
	.errors = pd_packet_send_errors,
	.error_count = PD_PACKET_SEND_ERRORS,
	.next_count = 1,
	.next_names = {"packet-output"},
};

/* Frames that went, go on to those who watch; what did not, stays with the caller. */
static unsigned pd_packet_output_dispatch(struct pd_engine *engine, struct pd_node *node,
					  struct pd_vector *vector)
{
	struct pd_tx_run *run = pd_tx_run_of(engine);
	static const uint16_t nexts[PD_VECTOR_MAX];

	pd_assert(vector->n == run->n);
	pd_packet_output_step(run, node);
	if (run->sent <= 0 || !pd_packet_is_watched(run->s, run->port))
		return vector->n;
	for (int i = 0; i < run->sent; i++) {
		run->bufs[i]->flags |= PD_BUFFER_OUTGOING;
		run->bufs[i]->rx_port = run->port->index;
	}
	pd_enqueue(engine, node, vector->index, nexts, (unsigned)run->sent);
	return vector->n;
}

PD_NODE_REGISTER(pd_packet_output) = {
	.name = "packet-output",
	.type = PD_NODE_INTERNAL,
	.no_entry = true,
	.fn = pd_packet_output_dispatch,
	.trace = pd_packet_trace,
	.format_trace = pd_packet_output_format_trace,
	.errors = pd_port_output_errors,
	.error_count = PD_PORT_OUTPUT_ERRORS,
	.next_count = 1,
	.next_names = {"packet-match"},
};
