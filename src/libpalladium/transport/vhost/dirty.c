/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's dirty log: messages and mapping.
 *
 * A ring whose own writes are to be logged (VHOST_VRING_F_LOG) does not run before there is a log.
 * QEMU, when its guest's driver starts during a migration, says that everything is to be logged,
 * starts the rings, and gives the log after that: what would be written in between would be missing
 * on the other side. VHOST_F_LOG_ALL holds up nothing by itself: a front-end that takes whatever
 * features it is offered means nothing by it.
 *
 * Another log takes the old one's place under the lock of each side that runs, and the answer to
 * SET_LOG_BASE comes after that: the front-end then takes the last bits out of the old one.
 *
 * The log is shared memory of a peer's like its regions: nothing is mapped that the file does not
 * hold, and a file that is cut off later is the guard's business. The offset is where the log
 * stands in its file; it is in no address that we mark.
 */
#include "transport/vhost/dirty.h"

#include <string.h>
#include <linux/vhost_types.h>

#include "base/atomic.h"
#include "transport/vhost/backend.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/sink.h"
#include "virtio/dirty.h"

/* Bits were set: have the control side tell it. Data path. */
static void on_news(void *arg)
{
	struct pd_vhost_backend *be = arg;

	pd_store_release(&be->dirty.news, 1);
	if (be->role.lanes[0].broken)
		pd_progress_post(be->role.lanes[0].broken);
}

/* Is what is written into buffers to be logged? */
static bool logs_frames(const struct pd_vhost_backend *be)
{
	return be->features & PD_BIT(VHOST_F_LOG_ALL);
}

/* Is what is written into ring `i` itself to be logged? */
static bool logs_ring(const struct pd_vhost_backend *be, unsigned i)
{
	return be->ring[i].addr.flags & PD_BIT(VHOST_VRING_F_LOG);
}

/* Is anything of ring `i` to be logged? */
static bool is_logged(const struct pd_vhost_backend *be, unsigned i)
{
	return logs_frames(be) || logs_ring(be, i);
}

bool pd_vhost_dirty_ready(const struct pd_vhost_backend *be, unsigned i)
{
	return !logs_ring(be, i) || be->dirty.mapping.base;
}

/*
 * Where what is written into ring `i` is logged, whose used part stands at `used` of `map`: where
 * the front-end says. With an IOMMU that is an I/O virtual address, as of the ring itself (so QEMU
 * gives it, and Linux's vhost takes it); then the memory table says which pages those are.
 */
static uint64_t used_at(const struct pd_vhost_backend *be, unsigned i,
			const struct pd_vhost_map *map, const void *used)
{
	if (!logs_ring(be, i))
		return PD_DIRTY_NOWHERE;
	return be->iotlb ? pd_mem_guest(&map->table, used) : be->ring[i].addr.log;
}

/* How ring `i`, with its used part at `used`, is to be logged while its memory is `map`. */
static struct pd_dirty how(struct pd_vhost_backend *be, unsigned i, const struct pd_vhost_map *map,
			   const void *used)
{
	if (!be->dirty.mapping.base || !is_logged(be, i))
		return (struct pd_dirty){.bits = NULL};
	return (struct pd_dirty){
		.bits = be->dirty.mapping.host,
		.pages = be->dirty.pages,
		.mem = &map->table,
		.frames = logs_frames(be),
		.used = used_at(be, i, map, used),
		.changed = be->dirty.fd >= 0 ? on_news : NULL,
		.arg = be,
	};
}

const char *pd_vhost_dirty_check(struct pd_vhost_backend *be, unsigned i)
{
	const bool packed = pd_vq_is_packed(be->features);
	struct pd_dirty d;

	if (be->iotlb) /* the log has bits for all memory */
		return NULL;
	d = how(be, i, be->map, NULL);
	if (!d.bits || d.used == PD_DIRTY_NOWHERE ||
	    pd_dirty_covers(&d, d.used, pd_vq_used_bytes(be->ring[i].num, packed)))
		return NULL;
	return pd_vhost_reason(&be->role, "ring %u is to be logged beyond the dirty log", i);
}

void pd_vhost_dirty_queue(struct pd_vhost_backend *be, unsigned i, struct pd_vq *vq,
			  const struct pd_vhost_map *map)
{
	const struct pd_dirty d = how(be, i, map, vq->used);

	if (d.bits || vq->dirty.bits)
		pd_dirty_set(vq, &d);
}

void pd_vhost_dirty_ring(struct pd_vhost_backend *be, unsigned i)
{
	struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
	enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);

	if (be->ring[i].sink)
		pd_vhost_dirty_queue(be, i, &be->ring[i].sink->vq, be->map);
	if (!be->ring[i].up || (!is_logged(be, i) && !lane->vq[dir].dirty.bits))
		return;
	pd_vhost_lane_lock(lane, dir);
	pd_vhost_dirty_queue(be, i, &lane->vq[dir], be->map);
	pd_vhost_lane_unlock(lane, dir);
}

/* Bits for all the memory that we know of. */
static bool covers_memory(const struct pd_vhost_map *map, uint64_t pages)
{
	const struct pd_dirty d = {.pages = pages};

	for (uint32_t i = 0; map && i < map->table.n; i++) {
		if (!pd_dirty_covers(&d, map->table.region[i].guest_addr,
				     map->table.region[i].size))
			return false;
	}
	return true;
}

const char *pd_vhost_dirty_set_base(struct pd_vhost_backend *be, struct pd_vhost_msg *msg)
{
	const struct pd_vhost_log *log = &msg->payload.log;
	struct pd_vhost_mapping mapping, old = be->dirty.mapping;
	const char *why;

	if (msg->hdr.size != sizeof(*log) || !msg->n_fds)
		return "a dirty log that is not in shared memory";
	if (!covers_memory(be->map, log->size > UINT64_MAX / 8 ? UINT64_MAX : log->size * 8))
		return "the dirty log is too small for the memory";
	why = pd_vhost_mapping_map(&mapping, msg->fds[0], log->offset, log->size,
				   be->role.lanes[0].broken);
	if (why)
		return pd_vhost_reason(&be->role, "the dirty log: %s", why);
	be->dirty.mapping = mapping;
	be->dirty.pages = log->size * 8;
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++)
		pd_vhost_dirty_ring(be, i);
	if (old.base)
		pd_vhost_mapping_unmap(&old);
	return NULL;
}

const char *pd_vhost_dirty_set_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg)
{
	if (pd_vhost_eventfd_adopt(msg->fds[0]))
		return "a descriptor that is not an eventfd";
	pd_vhost_eventfd_close(&be->dirty.fd);
	be->dirty.fd = pd_vhost_msg_take_fd(msg);
	return NULL; /* rings that run begin to tell as they are settled */
}

void pd_vhost_dirty_tell(struct pd_vhost_backend *be)
{
	if (pd_exchange(&be->dirty.news, 0) && be->dirty.fd >= 0)
		pd_vhost_eventfd_signal(be->dirty.fd);
}

bool pd_vhost_dirty_is_cut(const struct pd_vhost_backend *be)
{
	return be->dirty.mapping.base && pd_vhost_guard_is_cut(be->dirty.mapping.guard);
}

void pd_vhost_dirty_reset(struct pd_vhost_backend *be)
{
	if (be->dirty.mapping.base)
		pd_vhost_mapping_unmap(&be->dirty.mapping);
	pd_vhost_eventfd_close(&be->dirty.fd);
	memset(&be->dirty, 0, sizeof(be->dirty));
	be->dirty.fd = -1;
}
