/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loop: two ports of one process, joined. The reference transport: the whole contract of lane.h and
 * transport.h, without a peer that has to be mistrusted.
 *
 * A pair (pd1=loop:pd2) exists as soon as one of its ports is open. When both are, each queue pair
 * gets two rings, one per direction, and the lanes come up; when one closes, the other goes down.
 *
 * A ring has one producer, the transmit side of a lane, and one consumer, the receive side of the
 * partner's. Each slot is a buffer with room for the largest frame, which stays in its slot for
 * good: tx copies a frame into it, rx shows that very buffer, rx_done hands the slot back. `head`
 * and `tail` count without end; they are the positions of lane.h: what the receiver may take is
 * head, what the sender may fill is tail plus the size of the ring.
 *
 * Notification: a sleeper sets `armed` of its direction, fences and looks at the position again;
 * the other end moves the position, fences and takes the flag; who takes it set writes the eventfd.
 * One of the two always sees the other, and a burst costs one write.
 *
 * Locking: the data path holds its own side's lock and touches nothing of the partner's lane, only
 * the ring, whose words are atomic. So no thread ever holds two locks of one rank. The control path
 * (pd_control held) takes the side locks one after the other to move the link; rings are freed when
 * all sides are down.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "counters/counters.h"
#include "transport/offload.h"
#include "transport/transport.h"

/* A slot has room for the largest frame, so longer rings than this would cost too much memory. */
#define PD_LOOP_RING_MAX 1024

extern const struct pd_transport_ops pd_loop_ops; /* named by defs/transports.def */

/* One direction of one queue pair. */
struct pd_loop_ring {
	uint32_t head PD_CACHE_ALIGNED;           /* frames published; written by the producer */
	uint32_t tail PD_CACHE_ALIGNED;           /* frames handed back; written by the consumer */
	uint32_t armed[PD_DIRS] PD_CACHE_ALIGNED; /* the consumer (RX), the producer (TX) wants a
						     notification */
	int event_fd[PD_DIRS];
	uint32_t size; /* power of two */
	struct pd_buffer_pool *pool;
	struct pd_buffer **slot;
	uint32_t *indices;
};

struct pd_loop_lane {
	struct pd_lane lane;
	struct pd_loop_ring
		*ring[PD_DIRS];     /* what it receives from and sends to; NULL while down */
	struct pd_offload *offload; /* of the receive side; NULL where every frame is finished */
};

/* What an open port has. */
struct pd_loop_port {
	struct pd_loop_lane lanes[PD_QUEUES_MAX];
	struct pd_port *partner; /* as the configuration says; may be closed */
	/* The rings it sends to; the partner's hold the other direction. */
	struct pd_loop_ring *tx_rings[PD_QUEUES_MAX];
};

/* --- rings --------------------------------------------------------------------------------- */

/* Close a ring's descriptors and free it; nobody uses it. NULL is allowed. */
static void pd_loop_ring_free(struct pd_loop_ring *ring)
{
	if (!ring)
		return;
	for (int dir = 0; dir < PD_DIRS; dir++)
		if (ring->event_fd[dir] >= 0)
			pd_sys_close(ring->event_fd[dir]);
	if (ring->pool) {
		pd_buffer_free(ring->indices, ring->size);
		pd_buffer_pool_destroy(ring->pool);
	}
	free(ring->indices);
	free(ring->slot);
	free(ring);
}

/* Make a ring of `size` slots. Returns it, or NULL with *err set to -errno. */
static struct pd_loop_ring *pd_loop_ring_new(uint32_t size, int *err)
{
	struct pd_loop_ring *ring = aligned_alloc(PD_CACHE_LINE, sizeof(*ring));

	*err = -ENOMEM;
	if (!ring)
		return NULL;
	memset(ring, 0, sizeof(*ring));
	ring->size = size;
	ring->event_fd[PD_RX] = ring->event_fd[PD_TX] = -1;
	ring->slot = calloc(size, sizeof(*ring->slot));
	ring->indices = calloc(size, sizeof(*ring->indices));
	if (!ring->slot || !ring->indices)
		goto err_ring;
	for (int dir = 0; dir < PD_DIRS; dir++) {
		ring->event_fd[dir] = pd_internal_fd(pd_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		if (ring->event_fd[dir] < 0) {
			*err = ring->event_fd[dir];
			goto err_ring;
		}
	}
	ring->pool = pd_buffer_pool_create("loop", size, PD_FRAME_MAX_BYTES, err);
	if (!ring->pool)
		goto err_ring;
	pd_buffer_alloc(ring->pool, ring->indices, size);
	for (uint32_t i = 0; i < size; i++)
		ring->slot[i] = pd_buffer_get(ring->indices[i]);
	*err = 0;
	return ring;

err_ring:
	pd_loop_ring_free(ring);
	return NULL;
}

/* The position of `dir` moved: notify who armed it. Returns 1 if it took a system call. */
static int pd_loop_notify(struct pd_loop_ring *ring, enum pd_dir dir)
{
	static const uint64_t one = 1;

	/* The position is visible before the flag is read: pairs with the fence in pd_loop_arm. */
	pd_fence_full();
	if (!pd_load_relaxed(&ring->armed[dir]) || !pd_exchange(&ring->armed[dir], 0))
		return 0;
	pd_sys_write(ring->event_fd[dir], &one, sizeof(one));
	return 1;
}

/* --- the lane's operations ----------------------------------------------------------------- */

static inline struct pd_loop_ring *pd_loop_ring_of(struct pd_lane *lane, enum pd_dir dir)
{
	return pd_container_of(lane, struct pd_loop_lane, lane)->ring[dir];
}

static uint32_t pd_loop_position(struct pd_lane *lane, enum pd_dir dir)
{
	struct pd_loop_ring *ring = pd_loop_ring_of(lane, dir);

	/* Pair with the release stores in pd_loop_tx_flush and pd_loop_rx_done. */
	return dir == PD_RX ? pd_load_acquire(&ring->head)
			    : pd_load_acquire(&ring->tail) + ring->size;
}

static int pd_loop_rx(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n)
{
	struct pd_loop_lane *ll = pd_container_of(lane, struct pd_loop_lane, lane);
	struct pd_loop_ring *ring = ll->ring[PD_RX];
	uint32_t cursor = lane->side[PD_RX].cursor;
	unsigned got = pd_min(n, pd_loop_position(lane, PD_RX) - cursor);

	for (unsigned i = 0; i < got; i++) {
		bufs[i] = ring->slot[(cursor + i) & (ring->size - 1)];
		bufs[i]->rx_port = lane->port;
		__builtin_prefetch(bufs[i]->sidecar);
	}
	/* Our other end has checked the headers, so there is always something to show. */
	return (int)(ll->offload && got ? pd_offload_show(ll->offload, lane, bufs, got, n) : got);
}

static void pd_loop_rx_done(struct pd_lane *lane, unsigned n)
{
	struct pd_loop_lane *ll = pd_container_of(lane, struct pd_loop_lane, lane);
	struct pd_loop_ring *ring = ll->ring[PD_RX];
	struct pd_lane_side *side = &lane->side[PD_RX];
	uint64_t bytes = 0, control = 0;
	int kicks;

	if (ll->offload) /* there are no large frames, so it is as many */
		n = pd_offload_done(ll->offload, lane, n);
	if (!n)
		return;
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = ring->slot[(side->cursor + i) & (ring->size - 1)]->total_len;

		bytes += len;
		control += !len;
	}
	side->cursor += n;
	pd_store_release(&ring->tail, side->cursor);
	kicks = pd_loop_notify(ring, PD_TX);

	pd_ctr_begin(side->ctr, PD_CTR_LANE_RX);
	pd_ctr_add(side->ctr, PD_CTR_LANE_RX_FRAMES, n);
	pd_ctr_add(side->ctr, PD_CTR_LANE_RX_BYTES, bytes);
	pd_ctr_add(side->ctr, PD_CTR_LANE_RX_CONTROL, control);
	pd_ctr_add(side->ctr, PD_CTR_LANE_RX_BATCHES, 1);
	pd_ctr_add(side->ctr, kicks ? PD_CTR_LANE_RX_KICKS : PD_CTR_LANE_RX_KICKS_SUPPRESSED, 1);
	pd_ctr_end(side->ctr, PD_CTR_LANE_RX);
}

/* The header of a frame that has no sidecar, or is unfinished. */
static PD_NOINLINE void pd_loop_copy_header(struct pd_buffer *to, const struct pd_buffer *from)
{
	if (from->flags & PD_BUFFER_SIDECAR)
		memcpy(to->sidecar, from->sidecar, sizeof(to->sidecar));
	else
		memset(to->sidecar, 0, sizeof(to->sidecar));
	to->flags |= from->flags & PD_BUFFER_VNET;
	if (from->flags & PD_BUFFER_VNET)
		memcpy(to->vnet, from->vnet, sizeof(to->vnet));
}

/* Copy the frame at `from` into the slot `to`. */
static void pd_loop_copy(struct pd_buffer *to, const struct pd_buffer *from)
{
	to->data = (uint8_t *)(to + 1);
	to->next = PD_BUFFER_NONE;
	to->len = to->total_len = from->total_len;
	to->flags =
		PD_BUFFER_EXTERNAL | PD_BUFFER_SIDECAR | (from->total_len ? 0 : PD_BUFFER_CONTROL);
	to->trace = 0;
	if (pd_likely((from->flags & (PD_BUFFER_SIDECAR | PD_BUFFER_VNET)) == PD_BUFFER_SIDECAR))
		memcpy(to->sidecar, from->sidecar, sizeof(to->sidecar));
	else
		pd_loop_copy_header(to, from);
	/* mrg_num_buffers, little-endian: a slot is one buffer. */
	to->sidecar[0] = 1;
	to->sidecar[1] = 0;
	if (pd_likely(from->next == PD_BUFFER_NONE))
		memcpy(to->data, from->data, from->total_len);
	else
		pd_buffer_copy_out(from, 0, to->data, from->total_len);
}

static int pd_loop_tx(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n)
{
	struct pd_loop_ring *ring = pd_loop_ring_of(lane, PD_TX);
	struct pd_lane_side *side = &lane->side[PD_TX];
	uint32_t room = pd_loop_position(lane, PD_TX) - side->cursor;
	uint64_t bytes = 0, control = 0;
	unsigned done;
	int ret;

	for (done = 0; done < n && done < room; done++) {
		uint32_t len = bufs[done]->total_len;

		if (pd_unlikely(len > PD_FRAME_MAX_BYTES))
			break;
		pd_loop_copy(ring->slot[(side->cursor + done) & (ring->size - 1)], bufs[done]);
		bytes += len;
		control += !len;
	}
	ret = (int)done;
	if (!done && n && bufs[0]->total_len > PD_FRAME_MAX_BYTES)
		ret = -EMSGSIZE;
	side->cursor += done;

	pd_ctr_begin(side->ctr, PD_CTR_LANE_TX);
	pd_ctr_add(side->ctr, PD_CTR_LANE_TX_FRAMES, done);
	pd_ctr_add(side->ctr, PD_CTR_LANE_TX_BYTES, bytes);
	pd_ctr_add(side->ctr, PD_CTR_LANE_TX_CONTROL, control);
	pd_ctr_add(side->ctr, PD_CTR_LANE_TX_DROP_TOO_LONG, ret == -EMSGSIZE);
	pd_ctr_add(side->ctr, PD_CTR_LANE_TX_RING_FULL, n > room);
	pd_ctr_end(side->ctr, PD_CTR_LANE_TX);
	return ret;
}

static int pd_loop_tx_all(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n)
{
	struct pd_loop_ring *ring = pd_loop_ring_of(lane, PD_TX);

	if (n > ring->size)
		return -EMSGSIZE;
	if (n > pd_loop_position(lane, PD_TX) - lane->side[PD_TX].cursor)
		return 0;
	return pd_loop_tx(lane, bufs, n);
}

static void pd_loop_tx_flush(struct pd_lane *lane)
{
	struct pd_loop_ring *ring = pd_loop_ring_of(lane, PD_TX);
	struct pd_lane_side *side = &lane->side[PD_TX];
	int kicks;

	if (pd_load_relaxed(&ring->head) == side->cursor)
		return;
	pd_store_release(&ring->head, side->cursor);
	kicks = pd_loop_notify(ring, PD_RX);
	pd_ctr_begin(side->ctr, PD_CTR_LANE_TX);
	pd_ctr_add(side->ctr, PD_CTR_LANE_TX_BATCHES, 1);
	pd_ctr_add(side->ctr, kicks ? PD_CTR_LANE_TX_KICKS : PD_CTR_LANE_TX_KICKS_SUPPRESSED, 1);
	pd_ctr_end(side->ctr, PD_CTR_LANE_TX);
}

/* The flag is all there is, so a side of a loop holds nothing (hold_max is 1). */
static bool pd_loop_arm(struct pd_lane *lane, enum pd_dir dir, uint32_t seen, uint32_t hold)
{
	struct pd_loop_ring *ring = pd_loop_ring_of(lane, dir);

	pd_store_relaxed(&ring->armed[dir], 1);
	/* Pairs with the fence in pd_loop_notify. */
	pd_fence_full();
	return pd_loop_position(lane, dir) != seen;
}

static void pd_loop_disarm(struct pd_lane *lane, enum pd_dir dir)
{
	pd_store_relaxed(&pd_loop_ring_of(lane, dir)->armed[dir], 0);
}

static void pd_loop_drain(struct pd_lane *lane, enum pd_dir dir)
{
	struct pd_lane_side *side = &lane->side[dir];
	uint64_t count;

	pd_sys_read(side->event_fd, &count, sizeof(count));
	pd_ctr_begin(side->ctr, dir == PD_RX ? PD_CTR_LANE_RX : PD_CTR_LANE_TX);
	pd_ctr_add(side->ctr, dir == PD_RX ? PD_CTR_LANE_RX_WAKEUPS : PD_CTR_LANE_TX_WAKEUPS, 1);
	pd_ctr_end(side->ctr, dir == PD_RX ? PD_CTR_LANE_RX : PD_CTR_LANE_TX);
}

static const struct pd_lane_ops pd_loop_lane_ops = {
	.rx = pd_loop_rx,
	.rx_done = pd_loop_rx_done,
	.tx = pd_loop_tx,
	.tx_all = pd_loop_tx_all,
	.tx_flush = pd_loop_tx_flush,
	.position = pd_loop_position,
	.arm = pd_loop_arm,
	.disarm = pd_loop_disarm,
	.drain = pd_loop_drain,
};

/* --- ports --------------------------------------------------------------------------------- */

/* What `port` has, or NULL when it is not an open loop port. */
static struct pd_loop_port *pd_loop_of(const struct pd_port *port)
{
	return port && port->transport == &pd_loop_ops ? port->priv : NULL;
}

/* Move one side of lane `q` of `port` onto `ring`, or down when it is NULL. */
static void pd_loop_set_side(struct pd_port *port, unsigned q, enum pd_dir dir,
			     struct pd_loop_ring *ring)
{
	struct pd_loop_lane *lane = &pd_loop_of(port)->lanes[q];
	struct pd_lane_side *side = &lane->lane.side[dir];

	pd_lock(&side->lock);
	lane->ring[dir] = ring;
	if (dir == PD_TX)
		lane->lane.takes = lane->offload ? PD_OFFLOAD_CSUM : 0;
	pd_lane_set_link(&lane->lane, dir, ring != NULL, ring ? ring->event_fd[dir] : -1, 0);
	pd_unlock(&side->lock);
}

/* Take every side of every lane of `port` down. */
static void pd_loop_sides_down(struct pd_port *port)
{
	for (unsigned q = 0; q < port->n_lanes; q++)
		for (int dir = 0; dir < PD_DIRS; dir++)
			pd_loop_set_side(port, q, dir, NULL);
}

/* Free the rings that `loop` sends to; all sides are down. */
static void pd_loop_rings_free(struct pd_loop_port *loop)
{
	for (unsigned q = 0; q < PD_QUEUES_MAX; q++) {
		pd_loop_ring_free(loop->tx_rings[q]);
		loop->tx_rings[q] = NULL;
	}
}

/* Both ports of a pair are open: make the rings and bring them up. Returns 0 or -errno (then
 * nothing is left behind). */
static int pd_loop_join(struct pd_port *a, struct pd_port *b)
{
	struct pd_loop_port *la = pd_loop_of(a), *lb = pd_loop_of(b);
	unsigned queues = pd_min(a->n_lanes, b->n_lanes);
	uint32_t size = pd_min(a->config->ring, b->config->ring);
	int ret = 0;

	size = pd_min(size, (uint32_t)PD_LOOP_RING_MAX);
	for (unsigned q = 0; q < queues; q++) {
		la->tx_rings[q] = pd_loop_ring_new(size, &ret);
		if (!ret)
			lb->tx_rings[q] = pd_loop_ring_new(size, &ret);
		if (ret)
			goto err;
	}
	for (unsigned q = 0; q < queues; q++) {
		pd_loop_set_side(a, q, PD_RX, lb->tx_rings[q]);
		pd_loop_set_side(b, q, PD_RX, la->tx_rings[q]);
		pd_loop_set_side(a, q, PD_TX, la->tx_rings[q]);
		pd_loop_set_side(b, q, PD_TX, lb->tx_rings[q]);
	}
	pd_port_lanes_settled(a);
	pd_port_lanes_settled(b);
	pd_port_set_state(a, PD_PORT_UP, b->name);
	pd_port_set_state(b, PD_PORT_UP, a->name);
	return 0;

err:
	pd_loop_rings_free(la);
	pd_loop_rings_free(lb);
	return ret;
}

/*
 * Whether both ports allow that checksums are left open between them. Large segments do not fit a
 * slot: they are cut before.
 */
static bool pd_loop_is_offloaded(const struct pd_port *a, const struct pd_port *b)
{
	return a->config->dialect == PD_CONF_DIALECT_VIRTIO &&
	       b->config->dialect == PD_CONF_DIALECT_VIRTIO &&
	       a->config->offloads != PD_CONF_OFFLOADS_NONE &&
	       b->config->offloads != PD_CONF_OFFLOADS_NONE;
}

/* Free what an open port has but its rings. */
static void pd_loop_free(struct pd_port *port)
{
	struct pd_loop_port *loop = pd_loop_of(port);

	port->priv = NULL;
	for (unsigned q = 0; q < port->n_lanes; q++)
		pd_offload_free(loop->lanes[q].offload);
	free(loop);
}

static int pd_loop_open(struct pd_port *port)
{
	struct pd_port *partner = pd_port_by_name(port->config->peer);
	struct pd_loop_port *loop;
	bool offloaded;
	int ret = 0;

	if (!partner || partner == port || partner->transport != &pd_loop_ops ||
	    strcmp(partner->config->peer, port->name))
		return -EINVAL;
	loop = aligned_alloc(PD_CACHE_LINE, sizeof(*loop));
	if (!loop)
		return -ENOMEM;
	memset(loop, 0, sizeof(*loop));
	loop->partner = partner;
	offloaded = pd_loop_is_offloaded(port, partner);
	for (unsigned q = 0; q < port->n_lanes; q++) {
		pd_port_lane_init(port, &loop->lanes[q].lane, &pd_loop_lane_ops, (uint16_t)q);
		if (offloaded && !ret)
			loop->lanes[q].offload = pd_offload_new(&ret);
	}
	port->priv = loop;
	if (!ret && pd_loop_of(partner))
		ret = pd_loop_join(port, partner);
	if (ret)
		pd_loop_free(port);
	return ret;
}

static void pd_loop_close(struct pd_port *port)
{
	struct pd_loop_port *loop = pd_loop_of(port), *other = pd_loop_of(loop->partner);

	pd_loop_sides_down(port);
	if (other) {
		bool was_up = loop->partner->state == PD_PORT_UP;

		pd_loop_sides_down(loop->partner);
		pd_loop_rings_free(other);
		if (was_up && !pd_ports_ended) /* which is no news at the process's end */
			pd_port_set_state(loop->partner, PD_PORT_DOWN, "its partner closed");
	}
	pd_loop_rings_free(loop);
	if (pd_ports_ended)
		port->priv = NULL;
	else
		pd_loop_free(port);
}

/* In a forked child, where no other thread is: side locks may have been held by the parent's threads,
 * so they are not taken. */
static void pd_loop_abandon(struct pd_port *port)
{
	struct pd_loop_port *loop = pd_loop_of(port);

	pd_loop_rings_free(loop);
	pd_loop_free(port);
}

const struct pd_transport_ops pd_loop_ops = {
	.name = "loop",
	.caps = PD_CAP_SIDECAR | PD_CAP_RECONNECT,
	.open = pd_loop_open,
	.close = pd_loop_close,
	.abandon = pd_loop_abandon,
};
