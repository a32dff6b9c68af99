/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's rings, brought up and down.
 *
 * When a ring runs. Settling looks at every ring and moves the lane's side up or down to where the
 * state says it belongs. A ring runs when features, memory, size, addresses and kick are there and
 * it is enabled; GET_VRING_BASE takes the kick away, which stops it.
 *
 * Where a ring begins. Everything is completed in order and no descriptor outlives a call, so what
 * we have consumed is what used->idx says, and every start of a split ring, after whatever stop, is
 * at used->idx (vq.h). That is what makes the death of either side harmless: a frame is copied out
 * before used->idx covers it, and a front-end that comes back, with a base of 0 or none at all,
 * finds us where used->idx stands.
 *
 * A packed ring says nowhere how far it is, so it begins where SET_VRING_BASE says, or we last
 * stopped, and without either at its first slot. Of the two places in a base it is the used one
 * that counts: what an earlier device took and did not complete is taken again. When we are killed,
 * it depends on the front-end: ours reads its ring and says where to go on; DPDK's virtio-user
 * makes its rings anew; QEMU repeats the base of the last start, which is wrong by then, and the
 * ring that does not fit it moves nothing or is found broken until the guest resets the device.
 *
 * A ring that is started and was disabled by a message discards what the peer sends (sink.c). One
 * that is merely not enabled yet is left alone: DPDK kicks first and enables afterwards, and frames
 * that a front-end kept for us over a reconnect must not be lost in between.
 *
 * A ring that is to be logged waits for the log (dirty.c).
 *
 * Memory. A new table is mapped whole before the old one goes; each running side is moved over
 * under its lock, so no data-path call ever sees half of a change. The caller removes the old
 * mappings then.
 */
#include "transport/vhost/backend_rings.h"

#include <string.h>

#include "base/closer.h"
#include "base/log.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/iotlb.h"
#include "transport/vhost/sink.h"
#include "virtio/inflight.h"

/* What is said of a ring that waits for a translation of its addresses. */
static const char waits[] = "waits for a translation";

/*
 * Our pointer to a part of ring `i`, or NULL with *why said (or not yet). With translations: access
 * to it as PD_VQ_*.
 */
static void *ring_part(struct pd_vhost_backend *be, unsigned i, const struct pd_vhost_map *map,
		       uint64_t addr, uint64_t bytes, uint8_t access, const char **why)
{
	void *p;

	if (*why)
		return NULL;
	if (!be->iotlb) {
		p = pd_mem_translate_user(&map->table, addr, bytes);
		if (!p)
			*why = pd_vhost_reason(&be->role,
					       "ring %u does not stand in one memory region", i);
		return p;
	}
	p = pd_vhost_iotlb_part(be, i, addr, bytes, access, why);
	if (!p && !*why)
		*why = waits;
	return p;
}

/*
 * Where ring `i` stands in `map`. Returns NULL with *layout filled, or why it cannot be run;
 * `waits` when it cannot yet.
 */
static const char *ring_layout(struct pd_vhost_backend *be, unsigned i,
			       const struct pd_vhost_map *map, struct pd_vq_layout *layout)
{
	const struct pd_vhost_ring *ring = &be->ring[i];
	const bool packed = pd_vq_is_packed(be->features);
	const uint8_t rw = PD_VQ_READ | PD_VQ_WRITE;
	const char *why = NULL;

	memset(layout, 0, sizeof(*layout));
	layout->size = ring->num;
	layout->features = be->features;
	layout->offloads =
		pd_vhost_offloads(PD_VHOST_DEVICE, pd_vhost_ring_dir(&be->role, i), be->features);
	layout->base = ring->base_set ? ring->base : pd_vq_first_base(packed);
	layout->hdr_bytes = pd_vhost_hdr_bytes(be->role.config, be->features);
	layout->desc = ring_part(be, i, map, ring->addr.desc, pd_vq_desc_bytes(ring->num),
				 packed ? rw : PD_VQ_READ, &why);
	layout->avail = ring_part(be, i, map, ring->addr.avail,
				  pd_vq_avail_bytes(ring->num, packed), PD_VQ_READ, &why);
	layout->used = ring_part(be, i, map, ring->addr.used, pd_vq_used_bytes(ring->num, packed),
				 rw, &why);
	if (why)
		return why;
	if (pd_vq_layout_check(layout, &why))
		return pd_vhost_reason(&be->role, "ring %u: %s", i, why);
	return NULL;
}

/* The same for the memory that there is, with what is to keep track of what is in flight. */
static const char *ring_layout_tracked(struct pd_vhost_backend *be, unsigned i,
				       struct pd_vq_layout *layout)
{
	const char *why = ring_layout(be, i, be->map, layout);

	if (why)
		return why;
	why = pd_vhost_inflight_ring(&be->inflight, i, layout);
	return why ? pd_vhost_reason(&be->role, "ring %u: %s", i, why) : NULL;
}

void pd_vhost_backend_ring_down(struct pd_vhost_backend *be, unsigned i)
{
	struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
	enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);

	if (be->ring[i].sink) {
		be->ring[i].base = pd_vhost_sink_stop(be->ring[i].sink);
		be->ring[i].base_set = true;
		be->ring[i].sink = NULL;
	}
	if (!be->ring[i].up)
		return;
	pd_vhost_lane_lock(lane, dir);
	be->ring[i].base = pd_vhost_lane_down(lane, dir);
	be->ring[i].base_set = true;
	pd_vhost_lane_unlock(lane, dir);
	be->ring[i].up = false;
}

const char *pd_vhost_backend_broken_ring(struct pd_vhost_backend *be, unsigned *ring)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++) {
		if (!be->ring[i].sink || !be->ring[i].sink->accused)
			continue;
		*ring = i;
		return pd_vhost_reason(&be->role, "ring %u: %s", i, be->ring[i].sink->accused);
	}
	return pd_vhost_broken_ring(&be->role, ring);
}

bool pd_vhost_backend_is_running(const struct pd_vhost_backend *be)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++) {
		if (be->ring[i].up || be->ring[i].sink)
			return true;
	}
	return false;
}

int pd_vhost_backend_kick_fd(const struct pd_vhost_backend *be, unsigned i)
{
	return be->ring[i].kick_fd >= 0 ? be->ring[i].kick_fd : pd_vhost_inband_in(&be->inband, i);
}

int pd_vhost_backend_call_fd(const struct pd_vhost_backend *be, unsigned i)
{
	return be->ring[i].call_fd >= 0 ? be->ring[i].call_fd : pd_vhost_inband_out(&be->inband, i);
}

/* Bring the lane's side of ring `i` up. Returns NULL or why it cannot be run. */
static const char *ring_up(struct pd_vhost_backend *be, unsigned i)
{
	struct pd_vhost_ring *ring = &be->ring[i];
	struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
	enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);
	struct pd_vq_layout layout;
	bool misplaced;
	const char *why;
	int err;

	why = ring_layout_tracked(be, i, &layout);
	if (why)
		return why;
	pd_vhost_lane_lock(lane, dir);
	err = pd_vhost_lane_up(lane, dir, &layout, &be->map->table, pd_vhost_backend_kick_fd(be, i),
			       pd_vhost_backend_call_fd(be, i), false);
	if (!err)
		pd_vhost_dirty_queue(be, i, &lane->vq[dir], be->map);
	if (!err && be->iotlb)
		pd_vhost_iotlb_attach(be, lane, dir);
	misplaced = !err && pd_vq_is_misplaced(&lane->vq[dir]);
	pd_vhost_lane_unlock(lane, dir);
	if (err) {
		pd_inflight_free(layout.inflight);
		return pd_vhost_reason(&be->role, "ring %u: %s", i, pd_strerror(err));
	}
	ring->up = be->ran = true;
	ring->layout = layout;
	if (misplaced)
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "%s: ring %u is not where the peer says: no frame may move "
				   "until the peer's driver starts anew (format=split has no such "
				   "trouble)",
				   be->role.name, i);
	pd_vhost_ring_runs(&be->role, i, ring->num, be->features);
	return NULL;
}

/* Throw away what the peer sends on ring `i`. Returns NULL or why it cannot be run. */
static const char *ring_discard(struct pd_vhost_backend *be, unsigned i)
{
	struct pd_vhost_ring *ring = &be->ring[i];
	struct pd_vq_layout layout;
	const char *why;

	why = ring_layout_tracked(be, i, &layout);
	if (why)
		return why;
	ring->layout = layout;
	ring->sink = pd_vhost_sink_start(&layout, &be->map->table, pd_vhost_backend_kick_fd(be, i),
					 pd_vhost_backend_call_fd(be, i), be->role.lanes[0].broken);
	if (!ring->sink)
		return "no memory";
	be->ran = true;
	pd_vhost_dirty_ring(be, i);
	return NULL;
}

/* True when everything that ring `i` needs to run has been said. */
static bool ring_started(const struct pd_vhost_backend *be, unsigned i)
{
	const struct pd_vhost_ring *ring = &be->ring[i];

	return be->features_set && be->map && ring->num && ring->addr_set && ring->kick_set &&
	       pd_vhost_dirty_ready(be, i);
}

/* True when ring `i` is enabled. Without protocol features there is no message for it. */
static bool ring_enabled(const struct pd_vhost_backend *be, unsigned i)
{
	return be->ring[i].enabled || !(be->features & PD_BIT(PD_VHOST_F_PROTOCOL_FEATURES));
}

/* True when some queue pair can move frames both ways. */
static bool backend_moves(const struct pd_vhost_backend *be)
{
	for (unsigned q = 0; q < be->role.n_lanes; q++) {
		if (be->ring[2 * q].up && be->ring[2 * q + 1].up)
			return true;
	}
	return false;
}

void pd_vhost_backend_moved(struct pd_vhost_backend *be, const char *why)
{
	bool moves = backend_moves(be);

	if (moves == be->moves)
		return;
	be->moves = moves;
	if (!moves) {
		be->role.stopped(&be->role, why);
		return;
	}
	be->refused[0] = 0;
	be->role.up(&be->role);
}

const char *pd_vhost_backend_settle(struct pd_vhost_backend *be)
{
	const char *why = NULL;

	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++) {
		struct pd_vhost_ring *ring = &be->ring[i];
		bool run = ring_started(be, i) && ring_enabled(be, i);
		bool discard = ring_started(be, i) && !run && ring->disabled &&
			       pd_vhost_ring_dir(&be->role, i) == PD_RX;

		if ((run || discard) && !why)
			why = pd_vhost_dirty_check(be, i);
		if (run ? ring->up : discard && ring->sink) {
			pd_vhost_dirty_ring(be, i);
			continue;
		}
		pd_vhost_backend_ring_down(be, i);
		if (run && !why)
			why = ring_up(be, i);
		else if (discard && !why)
			why = ring_discard(be, i);
		if (why == waits)
			why = NULL;
	}
	if (!why)
		why = pd_vhost_iotlb_ask(be);
	if (!why)
		pd_vhost_backend_moved(be, "the peer stopped its rings");
	return why;
}

bool pd_vhost_backend_ring_stays(struct pd_vhost_backend *be, unsigned i)
{
	const struct pd_vq_layout *old = &be->ring[i].layout;
	struct pd_vq_layout layout;

	return !ring_layout(be, i, be->map, &layout) && layout.desc == old->desc &&
	       layout.avail == old->avail && layout.used == old->used;
}

void pd_vhost_backend_reset_rings(struct pd_vhost_backend *be)
{
	unsigned n = pd_vhost_n_rings(&be->role), n_fds = 0;
	int fds[3 * PD_ARRAY_SIZE(be->ring)];

	for (unsigned i = 0; i < n; i++) {
		struct pd_vhost_ring *ring = &be->ring[i];

		pd_vhost_backend_ring_down(be, i);
		fds[n_fds++] = ring->kick_fd;
		fds[n_fds++] = ring->call_fd;
		fds[n_fds++] = ring->err_fd;
		memset(ring, 0, sizeof(*ring));
		ring->kick_fd = ring->call_fd = ring->err_fd = -1;
	}
	pd_closer_shared_all(fds, n_fds);
}

/* The same where addresses are translated: rings stay where nothing of theirs has moved. */
static void swap_translated(struct pd_vhost_backend *be, struct pd_vhost_map *map)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++)
		if (be->ring[i].sink)
			pd_vhost_backend_ring_down(be, i);
	pd_vhost_iotlb_prune(be, map);
	be->map = map;
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++)
		pd_vhost_dirty_ring(be, i);
}

struct pd_vhost_map *pd_vhost_backend_swap_map(struct pd_vhost_backend *be,
					       struct pd_vhost_map *map)
{
	struct pd_vhost_map *old = be->map;

	if (be->iotlb) {
		swap_translated(be, map);
		return old;
	}
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
		enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);
		struct pd_vq_layout layout;
		int err;

		/* A sink goes down too: it begins anew when the ring is settled. */
		if (!be->ring[i].up || ring_layout(be, i, map, &layout)) {
			pd_vhost_backend_ring_down(be, i);
			continue;
		}
		pd_vhost_lane_lock(lane, dir);
		err = pd_vhost_lane_remap(lane, dir, &layout, &map->table);
		pd_vhost_dirty_queue(be, i, &lane->vq[dir], map);
		pd_vhost_lane_unlock(lane, dir);
		if (err)
			pd_vhost_backend_ring_down(be, i);
	}
	be->map = map;
	return old;
}
