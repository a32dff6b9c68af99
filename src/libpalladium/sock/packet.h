/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packet sockets: AF_PACKET, SOCK_RAW and SOCK_DGRAM, on a port. Private to sock/packet*.c.
 *
 * Taps. A port knows the packet sockets that want frames from it: its taps, an array that is
 * replaced, never changed. Who reads it holds the lock of the lane at hand; who replaces it locks
 * every lane side of the port once before the old array is freed. So the data path pays nothing.
 *
 * One tap: the ring itself is the socket's queue. A receive copies from the peer's memory straight
 * into the caller's iovec and leaves in the ring what was not asked for; a program that does not
 * read stops the peer, and nothing is lost. Several taps: who receives takes its own frames
 * straight from the ring, too; frames that others want it copies into pool buffers on the way, with
 * a reference in the queue of each that wants them. A queue that is full drops and counts, or with
 * PALLADIUM_RX_BACKPRESSURE=port stops the port: the frame stays in the ring, and all behind it.
 * Who waits behind it waits for the bell `room` of the port, which the reader of the full queue
 * rings. No tap: frames are dropped and counted by whoever comes by, or by the progress thread.
 * Frames also enter a queue one at a time to be peeked at, and when a sender that is blocked takes
 * them in. A queue is always served before the ring, so order holds.
 *
 * Locks: lane -> packet->lock. The queue, options and receive counters are under packet->lock.
 */
#ifndef PD_SOCK_PACKET_H
#define PD_SOCK_PACKET_H

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/lib.h"
#include "base/lock.h"
#include "metadata/sidecar.h"
#include "net/vnet.h"
#include "sock/hooks.h"
#include "sock/sock.h"
#include "sock/steer.h"
#include "transport/transport.h"
#include "wait/pollable.h"

/* A frame in a queue, and what its socket is told with it. */
struct pd_queued {
	uint32_t index;    /* of its buffer */
	uint32_t drops;    /* frames that the socket had lost before */
	uint64_t stamp_ns; /* CLOCK_REALTIME when it came in; 0 when nobody asked */
};

/* A queue of frames in pool buffers: a ring that doubles as it fills. */
struct pd_frame_queue {
	struct pd_queued *ring;
	uint32_t mask; /* size - 1, or 0 when nothing was allocated */
	uint32_t head, tail;
	uint64_t bytes; /* of the frames queued */
	/* Bytes of frames on their way into it (PALLADIUM_RX_BACKPRESSURE=port) */
	uint64_t reserved;
};

/* Room for the options that do nothing but read back as they were set. */
#define PD_PACKET_PLAIN_MAX 14

/*
 * A packet socket. What each receive and each look of an epoll reads stands in its first four cache
 * lines: of a thousand sockets none is in the nearest cache when its turn comes.
 */
struct pd_packet {
	struct pd_sock sock; /* first */
	struct pd_pollable pollable;
	struct pd_lock lock;         /* rank PD_RANK_SOCKET */
	int type;                    /* SOCK_RAW or SOCK_DGRAM */
	int error;                   /* SO_ERROR */
	struct pd_port *port;        /* what it is bound to; NULL: every port */
	uint64_t receive_timeout_ns; /* 0: none */
	struct pd_ctr_block *ctr;
	uint16_t protocol; /* host order; 0 receives nothing, ETH_P_ALL everything */
	bool attached;     /* the ports it uses are open, and it is a tap of them */
	bool tapped;       /* it stands in the taps of its ports; under the lock of the taps */
	bool released;     /* its last descriptor is closed; written under both locks */
	bool used;         /* a frame has passed between it and a port */
	bool turned;       /* a kernel socket took its numbers over, before it was released */
	bool any_control; /* one of recv_metadata, auxdata, rxq_ovfl, timestamps: a message gets ancillary data */
	bool any_front; /* inline_mode or vnet_hdr: something stands in front of each frame; never both */
	bool recv_metadata, recv_control, inline_mode, auxdata, ignore_outgoing;
	bool vnet_hdr;       /* PACKET_VNET_HDR */
	bool rxq_ovfl;       /* SO_RXQ_OVFL */
	uint8_t timestamps;  /* 0, or the SO_TIMESTAMP* option that asked for them */
	uint32_t heads_ever; /* frames at the head of rings that epolls were told of; for edges */
	struct pd_frame_queue queue;
	uint32_t queued_ever; /* for edges */
	/* The lanes where they may stand, a bit each; of use when it is bound to a port */
	uint32_t heads;
	uint32_t stat_packets; /* PACKET_STATISTICS: cleared when read */
	uint32_t out_edges;    /* times room came after a send or a poll had found none */

	/* Receiving by one of several lanes, and what is rare. */
	unsigned next_lane;  /* lanes take turns: this one is the next */
	unsigned lane_turns; /* receives from it in a row */
	unsigned own_turns;  /* receives that may have begun with the own lane */
	bool lane_seen;      /* a frame of next_lane was looked at: it comes first */
	struct pd_steer_own receive_own;
	uint64_t drained_ns; /* when PALLADIUM_RX_CQ_DRAIN_RATE_NSEC was obeyed last */
	struct pd_spin receive_spin, send_spin;
	uint32_t stat_drops; /* as stat_packets */
	uint32_t drops_ever; /* SO_RXQ_OVFL: never cleared */
	uint64_t stops;      /* ports that its full queue stops, a bit each */

	/* Sending. */
	bool out_blocked; /* a send or a poll found no room */
	bool has_class;   /* the program gave default_sidecar, or a priority: it has a class */
	struct pd_steer_own send_own;
	uint32_t send_key; /* of the last message that was to be sent; PD_STEER_NONE: none yet */
	uint64_t send_timeout_ns; /* 0: none */
	struct pd_sidecar default_sidecar;

	/* Options and names. */
	uint64_t port_mask;    /* ports that the rules let it have; for one that is bound to none */
	uint32_t timestamping; /* SO_TIMESTAMPING: SOF_TIMESTAMPING_* */
	uint64_t receive_limit_bytes; /* of the queue */
	uint32_t rcvbuf, sndbuf;      /* as the program set them, doubled as the kernel does */
	int fd;                       /* the number it was made with, for statistics */
	uint64_t unique;              /* in the name of its placeholder */
	int packet_version;
	/* Options that are only remembered: packet_options.c has the table */
	int plain[PD_PACKET_PLAIN_MAX];
};
_Static_assert(offsetof(struct pd_packet, next_lane) <= 4 * PD_CACHE_LINE,
	       "what a receive reads stands in four cache lines");

static inline struct pd_packet *pd_packet_of(struct pd_sock *sk)
{
	return pd_container_of(sk, struct pd_packet, sock);
}

/* --- packet.c: life, names ----------------------------------------------------------------- */

/*
 * A packet socket that is not bound yet. `type` may hold SOCK_NONBLOCK and SOCK_CLOEXEC, `protocol`
 * is in network order. Returns a new descriptor, or -errno. Control path.
 */
int pd_packet_socket(int type, int protocol);

/* The slow half of pd_packet_attach. */
int pd_packet_attach_first(struct pd_packet *s);

/*
 * A socket for `fd`, a placeholder; -1 makes one. `type` and flags as in socket(2), `protocol` in
 * host order. Returns 0 with a reference in *out, or -errno.
 */
int pd_packet_new(int fd, int type, uint16_t protocol, struct pd_sock **out);

/*
 * In a forked child: the frames in the queue are the parent's, and no thread of the parent's holds
 * the locks.
 */
void pd_packet_after_fork(struct pd_packet *s);

/*
 * The program sends by interface `ifindex`, which is no port, on a socket that is bound to nothing.
 * Returns PD_HOOK_PASS when the socket is the kernel's from here on, else -errno: -ENXIO when there
 * is no such interface, or when frames have passed by a port already.
 */
int pd_packet_send_elsewhere(struct pd_packet *s, int ifindex);

/*
 * The socket, which is bound to nothing and has moved no frame, is the kernel's from here on.
 * Returns 0 or -errno: without CAP_NET_RAW -EPERM.
 */
int pd_packet_leave(struct pd_packet *s);

/*
 * What a call answers that finds its socket gone: closed, or the kernel's now, which serves it
 * then.
 */
static inline int pd_packet_gone(const struct pd_packet *s)
{
	return pd_load_relaxed(&s->turned) ? (int)PD_HOOK_PASS : -EBADF;
}

/*
 * Open the ports the socket uses and become a tap of them. Idempotent; no lock held. Returns 0 or
 * -errno.
 */
static inline int pd_packet_attach(struct pd_packet *s)
{
	/* Pairs with the release in pd_packet_attach_first. */
	if (pd_unlikely(!pd_load_acquire(&s->attached)))
		return pd_packet_attach_first(s);
	return pd_unlikely(pd_load_relaxed(&s->released)) ? pd_packet_gone(s) : 0;
}

/* Bytes in front of each frame in the program's messages. */
static inline size_t pd_packet_front_bytes(const struct pd_packet *s)
{
	if (pd_likely(!pd_load_relaxed(&s->any_front)))
		return 0;
	return pd_load_relaxed(&s->vnet_hdr) ? PD_VNET_BYTES : PD_SIDECAR_BYTES;
}

/* After a change of the options: whether messages get ancillary data, or something in front. */
static inline void pd_packet_note_control(struct pd_packet *s)
{
	bool control = s->timestamps || s->timestamping || s->rxq_ovfl || s->auxdata ||
		       (s->recv_metadata && !s->inline_mode);

	/* Calls of other threads look at these at the same time. */
	pd_store_relaxed(&s->any_front, s->inline_mode || s->vnet_hdr);
	pd_store_relaxed(&s->any_control, control);
}

/* Whether the socket wants stamps of the frames it receives. */
static inline bool pd_packet_stamps(const struct pd_packet *s)
{
	return s->timestamps || s->timestamping & SOF_TIMESTAMPING_RX_SOFTWARE;
}

/* --- placeholder.c: the kernel's half of the number ----------------------------------------- */

/*
 * A named placeholder for `s`, whose type is set; SOCK_NONBLOCK and SOCK_CLOEXEC of `flags` count.
 * Sets s->unique. Or -errno.
 */
int pd_placeholder_make(struct pd_packet *s, int flags);

/*
 * Write into the placeholder what a program after exec has to know. After each bind and each
 * option; packet->lock not held.
 */
void pd_placeholder_note(struct pd_packet *s);

/* At start: make the placeholders that this program inherited packet sockets again. */
void pd_placeholder_recover(void);

/* --- packet_tap.c, packet_nodes.c: ports, taps, frames into queues ------------------------- */

/* The taps for one protocol: tap[first] and those that follow. */
struct pd_taps_group {
	uint16_t protocol; /* 0: a free slot of the table */
	uint32_t first, n;
};

/*
 * The taps of a port: first those for ETH_P_ALL, then the others by protocol, which a hash table
 * finds. A socket leaves the taps before its protocol changes. Never changed once others can see
 * it.
 */
struct pd_taps {
	unsigned n, n_all;
	unsigned room;                /* how many may be put in */
	uint32_t mask;                /* slots of the table - 1 */
	struct pd_taps_group *groups; /* behind the taps */
	struct pd_packet *tap[];
};

/* Where in the table the search for a protocol starts. */
static inline uint32_t pd_taps_hash(uint16_t protocol)
{
	return (uint32_t)protocol * 0x9e3779b1u >> 12;
}

/* The taps for `protocol` (host order; not ETH_P_ALL), or NULL. */
static inline const struct pd_taps_group *pd_taps_find(const struct pd_taps *taps,
						       uint16_t protocol)
{
	const struct pd_taps_group *g;

	if (!protocol)
		return NULL;
	/* The table is never full. */
	for (uint32_t i = pd_taps_hash(protocol);; i++) {
		g = &taps->groups[i & taps->mask];
		if (g->protocol == protocol)
			return g;
		if (!g->protocol)
			return NULL;
	}
}

/* The socket layer's part of a port. */
struct pd_packet_port {
	/* Per lane, of its transmit side, once a socket has PACKET_VNET_HDR. */
	struct pd_offload *offload[PD_QUEUES_MAX];
	struct pd_taps *taps;             /* read under a lane lock */
	struct pd_taps *spare;            /* has room for as many, so that removing cannot fail */
	uint32_t *headers[PD_QUEUES_MAX]; /* per lane: PD_TX_HEADERS indices of external buffers */
	struct pd_packet_graph *graph[PD_QUEUES_MAX]; /* per lane: packet_nodes.h */
	bool by_class;                                /* frames go by PFC class (steer.h) */
	struct pd_bell lanes_bell;                    /* the lanes to send by have changed */
	/* Per lane: the head that was looked at last, for epolls (packet_poll.c) */
	struct pd_packet_glanced {
		bool valid;
		uint32_t cursor, link;
	} glanced[PD_QUEUES_MAX];
	struct pd_bell room; /* a queue that stopped the port has room again */
};

/* Headers of external buffers per lane: a full vector plus the largest iovec. */
#define PD_TX_HEADERS (PD_VECTOR_MAX + 1024)

static inline struct pd_packet_port *pd_packet_port_of(struct pd_port *port)
{
	return port->sock;
}

static inline struct pd_taps *pd_packet_taps(struct pd_port *port)
{
	return pd_load_acquire(&pd_packet_port_of(port)->taps); /* pairs with pd_taps_replace */
}

/* Pools and per-port parts. Once, at the first packet socket. Returns 0 or -errno. */
int pd_packet_ports_init(void);

/*
 * Make `s` a tap of its ports, unless it is one already; those have been opened. Takes pd_control.
 * Returns 0, -EBADF when the socket was closed meanwhile, or -ENOMEM.
 */
int pd_taps_attach(struct pd_packet *s);

/*
 * Bind: leave all taps, take port (NULL: all) and protocol, join those of the new port. As
 * pd_taps_attach.
 */
int pd_taps_move(struct pd_packet *s, struct pd_port *port, uint16_t protocol);

/*
 * The lane that a message with `key` goes out by now, or NULL with *err -EAGAIN (lanes are coming
 * up) or -ENETDOWN. Notes in `ws`, if given, that another set of lanes is news. For ports of
 * several lanes.
 */
struct pd_lane *pd_packet_lane_for(struct pd_port *port, uint32_t key, struct pd_wait_set *ws,
				   int *err);

/* Around a fork: the taps are held still. */
void pd_taps_before_fork(void);
void pd_taps_after_fork(bool child);

/* In a forked child, before its ports are told: nobody sleeps on their bells. */
void pd_packet_ports_after_fork(void);

/*
 * PACKET_VNET_HDR on or off: who finishes frames may be another one then. Takes pd_control. Returns
 * 0, or -ENOMEM with nothing changed.
 */
int pd_taps_set_vnet(struct pd_packet *s, bool on);

/* The socket ends: leave all taps for good, and drop the queue. Takes pd_control. */
void pd_taps_release(struct pd_packet *s);

/* The ports of a socket, as a range of pd_ports. */
static inline void pd_packet_port_range(const struct pd_packet *s, unsigned *first, unsigned *end)
{
	const struct pd_port *port = pd_load_acquire(&s->port); /* pairs with pd_taps_move */

	*first = port ? port->index : 0;
	*end = port ? port->index + 1u : pd_port_count;
}

/* Whether `s`, not bound to a port, may use port `index`. */
static inline bool pd_packet_serves(const struct pd_packet *s, unsigned index)
{
	return pd_load_relaxed(&s->port) || pd_load_relaxed(&s->port_mask) >> index & 1;
}

/* pd_frame_protocol for frames of another shape. */
uint16_t pd_frame_protocol_odd(const struct pd_buffer *b);

/*
 * The protocol of a frame as packet sockets see it: the EtherType, or ETH_P_802_2/802_3 for a
 * length field; 0 for none.
 */
static inline uint16_t pd_frame_protocol(const struct pd_buffer *b)
{
	uint16_t protocol;

	if (pd_likely(b->len >= ETH_HLEN)) {
		protocol = (uint16_t)(b->data[12] << 8 | b->data[13]);
		if (pd_likely(protocol >= ETH_P_802_3_MIN))
			return protocol;
	}
	return pd_frame_protocol_odd(b);
}

/* Whether `s` wants this frame (protocol, control frames, direction). */
static inline bool pd_packet_wants(const struct pd_packet *s, const struct pd_buffer *b)
{
	uint16_t protocol = pd_load_relaxed(&s->protocol);

	if (pd_unlikely(b->flags & PD_BUFFER_CONTROL))
		return protocol && s->recv_control;
	if (pd_likely(protocol == ETH_P_ALL))
		return !(b->flags & PD_BUFFER_OUTGOING) || !s->ignore_outgoing;
	/* A socket for one protocol sees what comes in, not what goes out. */
	return protocol && !(b->flags & PD_BUFFER_OUTGOING) && pd_frame_protocol(b) == protocol;
}

/*
 * Take up to `max` frames off the ring into the queues of the taps that want them. `keep`: leave
 * them in the ring rather than drop any. Lane's receive lock held. Returns how many frames left the
 * ring, or -ENETDOWN.
 */
int pd_packet_distribute(struct pd_port *port, struct pd_lane *lane, unsigned max, bool keep);

/*
 * The queue of `s` has room again, or takes no more part: the ports that it stopped go on. No lock
 * of a socket held.
 */
void pd_packet_room(struct pd_packet *s);

/*
 * The receive side of `lane` is about to go down: take what the peer has left in the ring into the
 * queues, for it has been told that these frames are sent. The pool is the limit. Lane's receive
 * lock held; the progress thread.
 */
void pd_packet_salvage(struct pd_port *port, struct pd_lane *lane);

/* Own data of a buffer of the pool; longer frames take a chain. */
#define PD_RX_BUFFER_BYTES 2048
extern struct pd_buffer_pool *pd_rx_pool; /* frames in the queues of sockets */
/* Those among them that the program sent; until there can be such, pd_rx_pool */
extern struct pd_buffer_pool *pd_tx_pool;
extern unsigned pd_packet_lanes; /* of all ports */

/* Room for one more frame in the queue. packet->lock held. Returns 0 or -ENOMEM. */
int pd_frame_queue_grow(struct pd_frame_queue *q);

/* Free what a queue holds. packet->lock held. */
void pd_frame_queue_clear(struct pd_frame_queue *q);

/*
 * True when nothing waits in the queue. Without packet->lock, or the receive lock of the lane that
 * fills it, only a hint.
 */
static inline bool pd_frame_queue_empty(const struct pd_frame_queue *q)
{
	return pd_load_relaxed(&q->head) == pd_load_relaxed(&q->tail);
}

/* Look at the first frame of the queue, or NULL. packet->lock held. */
static inline const struct pd_queued *pd_frame_queue_peek(const struct pd_frame_queue *q)
{
	return q->head == q->tail ? NULL : &q->ring[q->head & q->mask];
}

/* Take the first frame of the queue: its buffer, or PD_BUFFER_NONE. packet->lock held. */
uint32_t pd_frame_queue_pop(struct pd_frame_queue *q);

/* --- packet_poll.c, packet_rx.c, packet_tx.c ------------------------------------------------- */

extern const struct pd_pollable_ops pd_packet_pollable_ops;

/* What pd_wait_gather is. */
bool pd_packet_gather(uint64_t ports, bool all, struct pd_wait_set *ws);

/*
 * Receive up to `n` messages; msg_len of each is what recvmsg would return. `wait_ns` bounds each
 * wait for a message: 0 for none, or PD_WAIT_FOREVER. No further message is begun after `end_ns`.
 * Count or -errno.
 */
int pd_packet_receive(struct pd_packet *s, struct mmsghdr *msgs, unsigned n, int flags,
		      uint64_t wait_ns, uint64_t end_ns);

/* Length of the next frame as the program would get it, 0 when there is none. */
uint32_t pd_packet_next_length(struct pd_packet *s);

/*
 * Whether a call that a signal interrupted goes on waiting, as the kernel decides it: the handler
 * was installed with SA_RESTART, and the call has no timeout.
 */
static inline bool pd_packet_restarts(int ret, uint64_t deadline_ns)
{
	return ret == -EINTR && deadline_ns == PD_WAIT_FOREVER && pd_signal_restart_wanted();
}

/*
 * The sidecar given as ancillary data, or NULL; -EINVAL in *err when the control buffer is
 * malformed.
 */
const uint8_t *pd_packet_cmsg_sidecar(const struct msghdr *m, int *err);

/* Send `n` messages; msg_len of each is what sendmsg would return. Count or -errno. */
int pd_packet_send(struct pd_packet *s, struct mmsghdr *msgs, unsigned n, int flags);

/* --- packet_options.c ---------------------------------------------------------------------- */

/* Give a socket of the kernel, `fd`, the options that were set on `s`. */
void pd_packet_options_carry(const struct pd_packet *s, int fd);

/* The values that options have in a new socket. */
void pd_packet_options_init(struct pd_packet *s);

int pd_packet_setsockopt(struct pd_sock *sk, int level, int name, const void *val, socklen_t len);
int pd_packet_getsockopt(struct pd_sock *sk, int level, int name, void *val, socklen_t *len);

/* --- ifquery.c ----------------------------------------------------------------------------- */

/*
 * Answer an SIOC* request about a port, by the name or index in it. Returns 0, -errno, or 1 when
 * the request is about no port of ours.
 */
int pd_ifquery_ioctl(unsigned long req, void *arg);

/* The index of an interface of the kernel, or 0; and whether there is one with this index. */
int pd_ifquery_kernel_index(const char *name);
bool pd_ifquery_kernel_has(int ifindex);

/* Install the hooks of sock/hooks.h that answer about interfaces. */
void pd_ifquery_init(void);

#endif /* PD_SOCK_PACKET_H */
