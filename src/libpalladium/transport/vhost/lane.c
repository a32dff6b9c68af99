/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost transport's lanes. The rings' code is inline over role, format and dialect; this file
 * makes one set of lane operations of it per combination, and adds what the rings leave to their
 * caller: the notification's system call, the counters, and the report of a broken ring. A lane
 * gets the set for its rings when they come up (pd_vhost_lane_up).
 */
#include <string.h>
#include <time.h>

#include <linux/virtio_net.h>

#include "base/sys.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/lane.h"
#include "virtio/driver.h"
#include "virtio/inflight.h"
#include "vlib/buffer.h"
#include "vlib/lane_plugins.h"

_Static_assert(PD_VQ_FRAMES_MAX == PD_VECTOR_MAX, "the rings take the engine's vector");

static struct pd_vhost_lane *from_lane(struct pd_lane *lane)
{
	return pd_container_of(lane, struct pd_vhost_lane, lane);
}

/* --- what every operation ends with ---------------------------------------------------------- */

/*
 * Ring the peer. A full counter is as good as one that was written: it is readable. Should the peer
 * have made it one that waits, the odd count tells (pd_vhost_lane_free).
 */
static void ring_peer(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	static const uint64_t one = 1;
	uint32_t rings = lane->rings[dir];

	if (lane->signal_fd[dir] < 0)
		return;
	pd_store_relaxed(&lane->rings[dir], rings + 1);
	pd_sys_write(lane->signal_fd[dir], &one, sizeof(one));
	pd_store_relaxed(&lane->rings[dir], rings + 2);
}

/* Ring the peer from the control side. */
static void ring_peer_control(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	if (lane->signal_fd[dir] >= 0)
		pd_vhost_eventfd_signal(lane->signal_fd[dir]);
}

/* Have the control side look at what was noted of a side. */
static void tell_control(struct pd_vhost_lane *lane)
{
	if (lane->broken)
		pd_progress_post(lane->broken);
}

/* Have the control side take the port down; once. */
static PD_NOINLINE PD_COLD void report_broken(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	if (lane->reported[dir] || !lane->vq[dir].broken)
		return;
	lane->reported[dir] = true;
	tell_control(lane);
}

/* Which counter of a side shows which count of a queue. */
struct count_map {
	uint16_t offset; /* in struct pd_vq_counts */
	uint16_t ctr;    /* enum pd_ctr_word */
};
#define MAP(field, word)                                                 \
	{                                                                \
		offsetof(struct pd_vq_counts, field), PD_CTR_LANE_##word \
	}
static const struct count_map rare_counts[PD_DIRS][4] = {
	[PD_RX] = {MAP(control, RX_CONTROL), MAP(desc_errors, RX_DESC_ERRORS),
		   MAP(drop_malformed, RX_DROP_MALFORMED), MAP(drop_too_long, RX_DROP_TOO_LONG)},
	[PD_TX] = {MAP(control, TX_CONTROL), MAP(desc_errors, TX_DESC_ERRORS),
		   MAP(ring_full, TX_RING_FULL), MAP(drop_too_long, TX_DROP_TOO_LONG)},
};
#undef MAP

/* Add to the side's counters what its queue counted since the last time. One update per burst. */
static PD_ALWAYS_INLINE void publish_counts(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	struct pd_ctr_block *ctr = lane->lane.side[dir].ctr;
	const struct pd_vq_counts *now = &lane->vq[dir].counts;
	struct pd_vq_counts *told = &lane->told[dir];
	const bool rx = dir == PD_RX;
	uint64_t notified = now->notified - told->notified;
	uint64_t quiet = now->batches - told->batches - notified;

	pd_ctr_begin(ctr, rx ? PD_CTR_LANE_RX : PD_CTR_LANE_TX);
	pd_ctr_add(ctr, rx ? PD_CTR_LANE_RX_FRAMES : PD_CTR_LANE_TX_FRAMES,
		   now->frames - told->frames);
	pd_ctr_add(ctr, rx ? PD_CTR_LANE_RX_BYTES : PD_CTR_LANE_TX_BYTES, now->bytes - told->bytes);
	pd_ctr_add(ctr, rx ? PD_CTR_LANE_RX_BATCHES : PD_CTR_LANE_TX_BATCHES,
		   now->batches - told->batches);
	if (notified)
		pd_ctr_add(ctr, rx ? PD_CTR_LANE_RX_KICKS : PD_CTR_LANE_TX_KICKS, notified);
	if (rx && now->misses != told->misses)
		pd_ctr_add(ctr, PD_CTR_LANE_RX_POLL_MISS, now->misses - told->misses);
	if (rx && now->hits != told->hits)
		pd_ctr_add(ctr, PD_CTR_LANE_RX_POLL_HIT, now->hits - told->hits);
	if (quiet)
		pd_ctr_add(ctr,
			   rx ? PD_CTR_LANE_RX_KICKS_SUPPRESSED : PD_CTR_LANE_TX_KICKS_SUPPRESSED,
			   quiet);
	if (pd_unlikely((now->control ^ told->control) | (now->desc_errors ^ told->desc_errors) |
			(now->drop_malformed ^ told->drop_malformed) |
			(now->drop_too_long ^ told->drop_too_long) |
			(now->ring_full ^ told->ring_full)))
		for (unsigned i = 0; i < PD_ARRAY_SIZE(rare_counts[0]); i++) {
			size_t at = rare_counts[dir][i].offset / sizeof(uint64_t);

			pd_ctr_add(ctr, rare_counts[dir][i].ctr,
				   ((const uint64_t *)now)[at] - ((const uint64_t *)told)[at]);
		}
	pd_ctr_end(ctr, rx ? PD_CTR_LANE_RX : PD_CTR_LANE_TX);
	*told = *now;
}

/* Count one event of a side. */
static void count_event(struct pd_vhost_lane *lane, enum pd_dir dir, enum pd_ctr_word ctr)
{
	enum pd_ctr_word side = dir == PD_RX ? PD_CTR_LANE_RX : PD_CTR_LANE_TX;

	pd_ctr_begin(lane->lane.side[dir].ctr, side);
	pd_ctr_add(lane->lane.side[dir].ctr, ctr, 1);
	pd_ctr_end(lane->lane.side[dir].ctr, side);
}

/* --- operations, inline over role, format and dialect ---------------------------------------- */

static PD_ALWAYS_INLINE int do_rx(struct pd_lane *pl, struct pd_buffer **bufs, unsigned n,
				  enum pd_vhost_role role, bool packed, bool avip)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	const struct pd_vq_headers headers = {lane->headers, PD_VHOST_LANE_HEADERS};
	struct pd_vq *vq = &lane->vq[PD_RX];
	bool notify;
	int got;

	if (role == PD_VHOST_DEVICE)
		got = pd_device_rx(vq, packed, avip, &headers, pl->port, bufs, n, &notify);
	else
		got = pd_driver_rx(vq, packed, avip, &headers, pl->port, bufs, n, &notify);
	pl->side[PD_RX].cursor = vq->cursor; /* bad chains were consumed */
	if (pd_unlikely(notify))
		ring_peer(lane, PD_RX);
	if (pd_likely(got > 0)) {
		vq->counts.hits++;
		return got;
	}
	if (got < 0)
		report_broken(lane, PD_RX);
	vq->counts.misses++;
	publish_counts(lane, PD_RX);
	return got;
}

static PD_ALWAYS_INLINE void do_rx_done(struct pd_lane *pl, unsigned n, enum pd_vhost_role role,
					bool packed)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	struct pd_vq *vq = &lane->vq[PD_RX];
	bool notify = role == PD_VHOST_DEVICE ? pd_device_rx_done(vq, packed, n)
					      : pd_driver_rx_done(vq, packed, n);

	pl->side[PD_RX].cursor = vq->cursor;
	if (notify)
		ring_peer(lane, PD_RX);
	publish_counts(lane, PD_RX);
}

/*
 * do_rx where frames may come unfinished. Frames whose header cannot be right are consumed here, a
 * bounded number of them at a time: who looks sees by the cursor that more may be there.
 */
static PD_ALWAYS_INLINE int do_rx_offload(struct pd_lane *pl, struct pd_buffer **bufs, unsigned n,
					  enum pd_vhost_role role, bool packed)
{
	struct pd_vhost_lane *lane = from_lane(pl);

	for (unsigned bad = 0; bad < PD_VECTOR_MAX; bad++) {
		unsigned want = pd_offload_want(lane->offload, n), shown;
		int got = do_rx(pl, bufs, want, role, packed, false);

		if (got <= 0)
			return got;
		shown = pd_offload_show(lane->offload, pl, bufs, (unsigned)got, n);
		if (pd_likely(shown))
			return (int)shown;
		lane->vq[PD_RX].counts.drop_malformed++;
		do_rx_done(pl, 1, role, packed);
	}
	return 0;
}

static PD_ALWAYS_INLINE int do_tx(struct pd_lane *pl, struct pd_buffer *const *bufs, unsigned n,
				  enum pd_vhost_role role, bool packed, bool avip)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	struct pd_vq *vq = &lane->vq[PD_TX];
	int taken = role == PD_VHOST_DEVICE ? pd_device_tx(vq, packed, avip, bufs, n)
					    : pd_driver_tx(vq, packed, avip, bufs, n);

	pl->side[PD_TX].cursor = vq->cursor;
	if (pd_unlikely(vq->broken))
		report_broken(lane, PD_TX);
	if (pd_unlikely(taken <= 0))
		publish_counts(lane, PD_TX);
	return taken;
}

/* Not a fast path: one function for every format and dialect. */
static PD_ALWAYS_INLINE int do_tx_all(struct pd_lane *pl, struct pd_buffer *const *bufs, unsigned n,
				      enum pd_vhost_role role)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	struct pd_vq *vq = &lane->vq[PD_TX];
	int taken = role == PD_VHOST_DEVICE
			    ? pd_device_tx_all(vq, vq->packed, vq->hdr_bytes, bufs, n)
			    : pd_driver_tx_all(vq, vq->packed, vq->hdr_bytes, bufs, n);

	pl->side[PD_TX].cursor = vq->cursor;
	if (pd_unlikely(vq->broken))
		report_broken(lane, PD_TX);
	if (pd_unlikely(taken <= 0))
		publish_counts(lane, PD_TX);
	return taken;
}

static PD_ALWAYS_INLINE void do_tx_flush(struct pd_lane *pl, enum pd_vhost_role role, bool packed)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	struct pd_vq *vq = &lane->vq[PD_TX];
	bool notify =
		role == PD_VHOST_DEVICE ? pd_device_flush(vq, packed) : pd_driver_flush(vq, packed);

	if (notify)
		ring_peer(lane, PD_TX);
	publish_counts(lane, PD_TX);
}

static PD_ALWAYS_INLINE uint32_t do_position(struct pd_lane *pl, enum pd_dir dir,
					     enum pd_vhost_role role, bool packed)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	struct pd_vq *vq = &lane->vq[dir];
	uint32_t at = role == PD_VHOST_DEVICE ? pd_device_position(vq, packed)
					      : pd_driver_position(vq, packed);

	if (pd_unlikely(vq->broken))
		report_broken(lane, dir);
	return at;
}

static PD_ALWAYS_INLINE bool do_arm(struct pd_lane *pl, enum pd_dir dir, uint32_t seen,
				    uint32_t hold, enum pd_vhost_role role, bool packed)
{
	struct pd_vhost_lane *lane = from_lane(pl);
	struct pd_vq *vq = &lane->vq[dir];
	bool left = role == PD_VHOST_DEVICE ? pd_device_arm_held(vq, packed, seen, hold)
					    : pd_driver_arm_held(vq, packed, seen, hold);

	count_event(lane, dir, dir == PD_RX ? PD_CTR_LANE_RX_ARMS : PD_CTR_LANE_TX_ARMS);
	if (hold > 1)
		count_event(lane, dir, dir == PD_RX ? PD_CTR_LANE_RX_HOLDS : PD_CTR_LANE_TX_HOLDS);
	if (pd_unlikely(vq->broken))
		report_broken(lane, dir);
	return left;
}

static PD_ALWAYS_INLINE void do_disarm(struct pd_lane *pl, enum pd_dir dir, enum pd_vhost_role role,
				       bool packed)
{
	struct pd_vq *vq = &from_lane(pl)->vq[dir];

	if (role == PD_VHOST_DEVICE)
		pd_device_disarm(vq, packed);
	else
		pd_driver_disarm(vq, packed);
}

/* Make event_fd unreadable; the same for every role. */
static void drain(struct pd_lane *pl, enum pd_dir dir)
{
	struct pd_vhost_lane *lane = from_lane(pl);

	if (pl->side[dir].event_fd < 0)
		return;
	if (pd_unlikely(!pd_vhost_eventfd_drain_kick(pl->side[dir].event_fd, &lane->ones[dir]))) {
		lane->doubted[dir] = true;
		tell_control(lane);
	}
	count_event(lane, dir, dir == PD_RX ? PD_CTR_LANE_RX_WAKEUPS : PD_CTR_LANE_TX_WAKEUPS);
}

static int device_tx_all(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n)
{
	return do_tx_all(lane, bufs, n, PD_VHOST_DEVICE);
}

static int driver_tx_all(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n)
{
	return do_tx_all(lane, bufs, n, PD_VHOST_DRIVER);
}

/*
 * The operations of one role on one format in one dialect, under the name `name`_ops; `all` is
 * their tx_all.
 */
#define LANE_OPS(name, role, packed, avip, all)                                               \
	static int name##_rx(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n)       \
	{                                                                                     \
		return do_rx(lane, bufs, n, role, packed, avip);                              \
	}                                                                                     \
	static void name##_rx_done(struct pd_lane *lane, unsigned n)                          \
	{                                                                                     \
		do_rx_done(lane, n, role, packed);                                            \
	}                                                                                     \
	static int name##_tx(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n) \
	{                                                                                     \
		return do_tx(lane, bufs, n, role, packed, avip);                              \
	}                                                                                     \
	static void name##_tx_flush(struct pd_lane *lane)                                     \
	{                                                                                     \
		do_tx_flush(lane, role, packed);                                              \
	}                                                                                     \
	static uint32_t name##_position(struct pd_lane *lane, enum pd_dir dir)                \
	{                                                                                     \
		return do_position(lane, dir, role, packed);                                  \
	}                                                                                     \
	static bool name##_arm(struct pd_lane *lane, enum pd_dir dir, uint32_t seen,          \
			       uint32_t hold)                                                 \
	{                                                                                     \
		return do_arm(lane, dir, seen, hold, role, packed);                           \
	}                                                                                     \
	static void name##_disarm(struct pd_lane *lane, enum pd_dir dir)                      \
	{                                                                                     \
		do_disarm(lane, dir, role, packed);                                           \
	}                                                                                     \
	static const struct pd_lane_ops name##_ops = {                                        \
		name##_rx,       name##_rx_done, name##_tx,     all,   name##_tx_flush,       \
		name##_position, name##_arm,     name##_disarm, drain,                        \
	};

/*
 * The same without a sidecar, where frames may come unfinished: under the name `name`_offload_ops.
 */
#define LANE_OPS_OFFLOAD(name, role, packed, all)                                               \
	static int name##_offload_rx(struct pd_lane *lane, struct pd_buffer **bufs, unsigned n) \
	{                                                                                       \
		return do_rx_offload(lane, bufs, n, role, packed);                              \
	}                                                                                       \
	static void name##_offload_rx_done(struct pd_lane *lane, unsigned n)                    \
	{                                                                                       \
		struct pd_offload *o = from_lane(lane)->offload;                                \
                                                                                                \
		do_rx_done(lane, pd_offload_done(o, lane, n), role, packed);                    \
	}                                                                                       \
	static const struct pd_lane_ops name##_offload_ops = {                                  \
		name##_offload_rx,                                                              \
		name##_offload_rx_done,                                                         \
		name##_tx,                                                                      \
		all,                                                                            \
		name##_tx_flush,                                                                \
		name##_position,                                                                \
		name##_arm,                                                                     \
		name##_disarm,                                                                  \
		drain,                                                                          \
	};

LANE_OPS(device_split_avip, PD_VHOST_DEVICE, false, true, device_tx_all)
LANE_OPS(device_split_virtio, PD_VHOST_DEVICE, false, false, device_tx_all)
LANE_OPS_OFFLOAD(device_split_virtio, PD_VHOST_DEVICE, false, device_tx_all)
LANE_OPS(device_packed_avip, PD_VHOST_DEVICE, true, true, device_tx_all)
LANE_OPS(device_packed_virtio, PD_VHOST_DEVICE, true, false, device_tx_all)
LANE_OPS_OFFLOAD(device_packed_virtio, PD_VHOST_DEVICE, true, device_tx_all)
LANE_OPS(driver_split_avip, PD_VHOST_DRIVER, false, true, driver_tx_all)
LANE_OPS(driver_split_virtio, PD_VHOST_DRIVER, false, false, driver_tx_all)
LANE_OPS_OFFLOAD(driver_split_virtio, PD_VHOST_DRIVER, false, driver_tx_all)
LANE_OPS(driver_packed_avip, PD_VHOST_DRIVER, true, true, driver_tx_all)
LANE_OPS(driver_packed_virtio, PD_VHOST_DRIVER, true, false, driver_tx_all)
LANE_OPS_OFFLOAD(driver_packed_virtio, PD_VHOST_DRIVER, true, driver_tx_all)

const struct pd_lane_ops *pd_vhost_lane_ops(enum pd_vhost_role role, enum pd_vhost_dialect dialect,
					    bool packed)
{
	static const struct pd_lane_ops *const ops[PD_VHOST_ROLES][PD_VHOST_DIALECTS][2] = {
		[PD_VHOST_DEVICE] = {[PD_VHOST_AVIP] = {&device_split_avip_ops,
							&device_packed_avip_ops},
				     [PD_VHOST_VIRTIO] = {&device_split_virtio_ops,
							  &device_packed_virtio_ops}},
		[PD_VHOST_DRIVER] = {[PD_VHOST_AVIP] = {&driver_split_avip_ops,
							&driver_packed_avip_ops},
				     [PD_VHOST_VIRTIO] = {&driver_split_virtio_ops,
							  &driver_packed_virtio_ops}},
	};

	return ops[role][dialect][packed];
}

/* Whether frames may come or go unfinished: where either end may leave checksums open. */
static bool is_offloaded(const struct pd_vhost_lane *lane, uint64_t features)
{
	return lane->dialect == PD_VHOST_VIRTIO &&
	       features & (PD_BIT(VIRTIO_NET_F_CSUM) | PD_BIT(VIRTIO_NET_F_GUEST_CSUM));
}

/* The operations for rings with these features. */
static const struct pd_lane_ops *ops_for(const struct pd_vhost_lane *lane, uint64_t features)
{
	static const struct pd_lane_ops *const offload[PD_VHOST_ROLES][2] = {
		[PD_VHOST_DEVICE] = {&device_split_virtio_offload_ops,
				     &device_packed_virtio_offload_ops},
		[PD_VHOST_DRIVER] = {&driver_split_virtio_offload_ops,
				     &driver_packed_virtio_offload_ops},
	};
	const bool packed = pd_vq_is_packed(features);

	if (is_offloaded(lane, features))
		return offload[lane->role][packed];
	return pd_vhost_lane_ops(lane->role, lane->dialect, packed);
}

/* --- control side ---------------------------------------------------------------------------- */

/*
 * A hostile peer fills the counter of its call (or our kick) and makes the descriptor one that
 * waits: the thread that rings then stands in the write, with the side's lock. It is let go by
 * making room in the counter, again and again if the peer fills it anew.
 */
bool pd_vhost_lane_free(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	int fd = lane->signal_fd[dir];

	if (!(pd_load_relaxed(&lane->rings[dir]) & 1) || fd < 0 || !pd_vhost_eventfd_is_full(fd))
		return false;
	pd_vhost_eventfd_make_room(fd);
	return true;
}

void pd_vhost_lane_lock(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	static const struct timespec pause = {.tv_nsec = 50000};

	while (!pd_trylock(&lane->lane.side[dir].lock)) {
		pd_vhost_lane_free(lane, dir);
		nanosleep(&pause, NULL);
	}
}

void pd_vhost_lane_accuse(struct pd_vhost_lane *lane, enum pd_dir dir, const char *why)
{
	pd_vhost_lane_lock(lane, dir);
	if (lane->lane.side[dir].up) {
		lane->accused[dir] = why;
		tell_control(lane);
	}
	pd_vhost_lane_unlock(lane, dir);
}

const char *pd_vhost_lane_judge(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	struct pd_lane_side *side = &lane->lane.side[dir];

	if (!side->up)
		return NULL;
	if (lane->doubted[dir] && side->event_fd >= 0) {
		if (pd_vhost_eventfd_counts_down(side->event_fd))
			lane->accused[dir] = PD_VHOST_COUNTS_DOWN;
		pd_lane_ring(&lane->lane, dir, true); /* what was taken was everybody's */
	}
	lane->doubted[dir] = false;
	return pd_vhost_lane_broken(lane, dir);
}

int pd_vhost_lane_init(struct pd_vhost_lane *lane, enum pd_vhost_role role,
		       enum pd_vhost_dialect dialect, struct pd_progress_work *broken)
{
	uint32_t indices[PD_VHOST_LANE_HEADERS];
	int err;

	lane->role = role;
	lane->dialect = dialect;
	lane->broken = broken;
	lane->signal_fd[PD_RX] = lane->signal_fd[PD_TX] = -1;
	lane->pool = pd_buffer_pool_create("lane", PD_VHOST_LANE_HEADERS, 0, &err);
	if (!lane->pool)
		return err;
	pd_buffer_alloc(lane->pool, indices, PD_VHOST_LANE_HEADERS);
	for (unsigned i = 0; i < PD_VHOST_LANE_HEADERS; i++)
		lane->headers[i] = pd_buffer_get(indices[i]);
	return 0;
}

void pd_vhost_lane_fini(struct pd_vhost_lane *lane)
{
	uint32_t indices[PD_VHOST_LANE_HEADERS];

	for (int dir = 0; dir < PD_DIRS; dir++)
		pd_vq_fini(&lane->vq[dir]);
	pd_offload_free(lane->offload);
	lane->offload = NULL;
	if (!lane->pool)
		return;
	for (unsigned i = 0; i < PD_VHOST_LANE_HEADERS; i++) {
		/* A show may have left them chained. */
		lane->headers[i]->next = PD_BUFFER_NONE;
		lane->headers[i]->refs = 1;
		indices[i] = lane->headers[i]->index;
	}
	pd_buffer_free(indices, PD_VHOST_LANE_HEADERS);
	pd_buffer_pool_destroy(lane->pool);
	lane->pool = NULL;
}

int pd_vhost_lane_up(struct pd_vhost_lane *lane, enum pd_dir dir, const struct pd_vq_layout *layout,
		     const struct pd_mem_table *mem, int notify_fd, int signal_fd, bool resume)
{
	const struct pd_lane_ops *ops;
	struct pd_vq *vq = &lane->vq[dir];
	int err = 0;

	pd_assert(!lane->lane.side[dir].up);
	if ((layout->hdr_bytes == PD_VQ_HDR_SIDECAR) != (lane->dialect == PD_VHOST_AVIP))
		return -EINVAL;
	ops = pd_lane_plugins_over(&lane->lane, ops_for(lane, layout->features));
	if (dir == PD_RX && !lane->offload && is_offloaded(lane, layout->features))
		lane->offload = pd_offload_new(&err);
	if (dir == PD_RX)
		pd_offload_reset(lane->offload);
	if (!err && !resume) {
		pd_vq_fini(vq);
		err = lane->role == PD_VHOST_DEVICE ? pd_vq_init_device(vq, layout, mem)
						    : pd_vq_init_driver(vq, layout);
		memset(&lane->told[dir], 0, sizeof(lane->told[dir]));
	}
	if (err)
		return err;
	/* Both sides have the same format: where the other one is up, nothing changes. */
	if (lane->lane.ops != ops) {
		pd_assert(!lane->lane.side[!dir].up);
		lane->lane.ops = ops;
	}
	vq->prefetch_bytes =
		(uint32_t)(dir == PD_RX ? pd_vars.rx_prefetch_bytes : pd_vars.tx_prefetch_bytes);
	vq->prefetch_early_bytes = (uint32_t)pd_vars.rx_prefetch_bytes_before_poll;
	vq->signalled_valid = false;
	lane->reported[dir] = false;
	lane->accused[dir] = NULL;
	lane->ones[dir] = 0;
	lane->doubted[dir] = false;
	if (dir == PD_TX)
		lane->lane.takes = layout->offloads;
	lane->signal_fd[dir] = signal_fd;
	ring_peer_control(lane, dir);
	/* Without the event index the peer can be told to notify or not to, and that is all. Held back is
	 * at most what leaves it most of the ring to go on with. */
	lane->lane.side[dir].hold_max = vq->event_idx ? pd_max(vq->size / 4, 1u) : 1;
	pd_lane_set_link(&lane->lane, dir, true, notify_fd, vq->cursor);
	return 0;
}

uint32_t pd_vhost_lane_down(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	struct pd_vq *vq = &lane->vq[dir];
	uint32_t base;

	/* Before the peer's memory goes: what it has sent is still in the ring. */
	if (dir == PD_RX && lane->lane.side[dir].up && !vq->broken && pd_port_on_receive_end)
		pd_port_on_receive_end(&pd_ports[lane->lane.port], &lane->lane);
	base = pd_vq_base(vq);
	pd_inflight_stop(vq);
	lane->signal_fd[dir] = -1;
	if (!lane->lane.side[dir].up)
		return base;
	publish_counts(lane, dir);
	pd_lane_set_link(&lane->lane, dir, false, -1, vq->cursor);
	return base;
}

void pd_vhost_lane_abandon(struct pd_vhost_lane *lane)
{
	pd_lane_abandon(&lane->lane);
	for (int dir = 0; dir < PD_DIRS; dir++) {
		struct pd_vq *vq = &lane->vq[dir];

		lane->signal_fd[dir] = -1;
		pd_inflight_free(vq->inflight);
		vq->inflight = NULL;
	}
}

int pd_vhost_lane_settle(struct pd_vhost_lane *lane, enum pd_dir dir)
{
	pd_assert(!lane->lane.side[dir].up);
	return lane->role == PD_VHOST_DRIVER ? pd_vq_settle_driver(&lane->vq[dir]) : -ENETDOWN;
}

void pd_vhost_lane_save(struct pd_vhost_lane *lane, enum pd_dir dir, uint8_t *to)
{
	pd_assert(!lane->lane.side[dir].up);
	pd_vq_save_driver(&lane->vq[dir], to);
}

int pd_vhost_lane_resume_base(struct pd_vhost_lane *lane, enum pd_dir dir, uint32_t *base)
{
	pd_assert(!lane->lane.side[dir].up);
	return pd_vq_resume_driver(&lane->vq[dir], base);
}

int pd_vhost_lane_remap(struct pd_vhost_lane *lane, enum pd_dir dir,
			const struct pd_vq_layout *layout, const struct pd_mem_table *mem)
{
	struct pd_vq *vq = &lane->vq[dir];
	const char *why;

	if (pd_vq_layout_check(layout, &why) || layout->size != vq->size ||
	    pd_vq_is_packed(layout->features) != vq->packed)
		return -EINVAL;
	vq->desc = layout->desc;
	vq->avail = layout->avail;
	vq->used = layout->used;
	vq->mem = vq->mem_tables = mem;
	vq->n_shown = 0; /* a large frame that is being cut stays at the head */
	return 0;
}

void pd_vhost_lane_retranslate(struct pd_vhost_lane *lane, enum pd_dir dir,
			       const struct pd_mem_table *buffers,
			       const struct pd_mem_table *tables)
{
	struct pd_lane_side *side = &lane->lane.side[dir];
	struct pd_vq *vq = &lane->vq[dir];
	bool waited = vq->need > vq->size;

	vq->mem = buffers;
	vq->mem_tables = tables;
	vq->miss.work = lane->broken;
	vq->n_shown = 0;
	if (!waited)
		return;
	pd_vq_answered(vq);
	/*
	 * As a link that changed: who saw this position before it had to wait is told of it once
	 * more.
	 */
	pd_lane_set_link(&lane->lane, dir, true, side->event_fd, vq->cursor);
}

void pd_vhost_lane_set_signal(struct pd_vhost_lane *lane, enum pd_dir dir, int signal_fd)
{
	if (!lane->lane.side[dir].up)
		return;
	lane->signal_fd[dir] = signal_fd;
	lane->vq[dir].signalled_valid = false;
	ring_peer_control(lane, dir);
}

void pd_vhost_lane_set_notify(struct pd_vhost_lane *lane, enum pd_dir dir, int notify_fd)
{
	struct pd_lane_side *side = &lane->lane.side[dir];

	if (side->up)
		pd_lane_set_link(&lane->lane, dir, true, notify_fd, side->cursor);
}
