/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory, rings and eventfds. See frontend_rings.h.
 */
#include "transport/vhost/frontend_rings.h"

#include <errno.h>
#include <string.h>

#include "base/closer.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/map.h"

/*
 * Bytes of one buffer: a frame of the port's MTU with a VLAN tag and its header, at least 2 KiB. An
 * odd number of cache lines, so that the first lines of all buffers, which each frame touches, use
 * all sets of a cache; at a distance of 2 KiB they would share one in 32.
 */
static uint32_t buffer_bytes(const struct pd_port_config *config)
{
	uint32_t bytes = PD_VQ_HDR_SIDECAR + 14 + 4 + config->mtu;

	return ((pd_max(bytes, 2048u) + PD_CACHE_LINE - 1) | PD_CACHE_LINE) & ~(PD_CACHE_LINE - 1u);
}

void pd_vhost_frontend_kept_forget(struct pd_vhost_frontend *fe)
{
	if (fe->kept_fd >= 0)
		pd_sys_close(fe->kept_fd);
	fe->kept_fd = -1;
}

int pd_vhost_frontend_area_renew(struct pd_vhost_frontend *fe)
{
	const struct pd_port_config *config = fe->role.config;
	uint32_t buf_bytes = buffer_bytes(config);
	uint64_t each = (pd_vq_driver_area_bytes(config->ring, buf_bytes) + 4095) & ~4095ull;
	int err;

	pd_vhost_frontend_kept_forget(fe);
	pd_vhost_area_free(&fe->area);
	err = pd_vhost_area_make(&fe->area, 2 * fe->role.n_lanes * each, fe->role.lanes[0].broken);
	if (err)
		return err;
	for (unsigned i = 0; i < pd_vhost_n_rings(&fe->role); i++) {
		struct pd_vhost_own_ring *ring = &fe->ring[i];
		uint8_t *at = fe->area.base + i * each;

		ring->layout = (struct pd_vq_layout){.size = config->ring, .buf_bytes = buf_bytes};
		ring->layout.receive = pd_vhost_ring_dir(&fe->role, i) == PD_RX;
		pd_vq_driver_place(&ring->layout, at, pd_vhost_area_addr(&fe->area, at));
		ring->used = false;
	}
	return 0;
}

/*
 * What is done to a ring that was up in this area, its side locked. `away`: how far it is from here
 * to the area's next memory. Returns 0 or -errno.
 */
typedef int ring_fn(struct pd_vhost_own_ring *ring, struct pd_vhost_lane *lane, enum pd_dir dir,
		    ptrdiff_t away);

/* What it had used is taken. */
static int ring_settle(struct pd_vhost_own_ring *ring, struct pd_vhost_lane *lane, enum pd_dir dir,
		       ptrdiff_t away)
{
	return pd_vhost_lane_settle(lane, dir);
}

/* What its buffers hold is copied. */
static int ring_save(struct pd_vhost_own_ring *ring, struct pd_vhost_lane *lane, enum pd_dir dir,
		     ptrdiff_t away)
{
	pd_vhost_lane_save(lane, dir, ring->layout.buffers + away);
	return 0;
}

/* It is written anew. */
static int ring_resume(struct pd_vhost_own_ring *ring, struct pd_vhost_lane *lane, enum pd_dir dir,
		       ptrdiff_t away)
{
	return pd_vhost_lane_resume_base(lane, dir, &ring->base);
}

/* Do that to each ring. Returns 0, or the first error, and then the rest is left alone. */
static int rings_do(struct pd_vhost_frontend *fe, ring_fn *what, ptrdiff_t away)
{
	int err = 0;

	for (unsigned i = 0; !err && i < pd_vhost_n_rings(&fe->role); i++) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&fe->role, i);
		enum pd_dir dir = pd_vhost_ring_dir(&fe->role, i);

		if (!fe->ring[i].used)
			continue;
		pd_vhost_lane_lock(lane, dir);
		err = what(&fe->ring[i], lane, dir, away);
		pd_vhost_lane_unlock(lane, dir);
	}
	return err;
}

/*
 * Move what the settled rings need into other memory, of that kind. Returns 0, -EIO when some of it
 * turns out to be gone, or -errno; then it stays where it is, or there is no area any more.
 */
static int area_move(struct pd_vhost_frontend *fe, enum pd_mem_kind kind)
{
	struct pd_vhost_area_next next;
	int err = pd_vhost_area_next(&fe->area, kind, &next);

	if (err)
		return err;
	rings_do(fe, ring_save, next.base - fe->area.base);
	if (!pd_vhost_area_is_cut(&fe->area))
		return pd_vhost_area_replace(&fe->area, &next);
	pd_vhost_area_drop(&fe->area, &next);
	return -EIO;
}

/*
 * Copy the notes, which stand in a file of the peer's, to `to`. Returns NULL or why that cannot be.
 */
static const char *notes_read(const struct pd_vhost_frontend *fe, uint8_t *to)
{
	const struct pd_vhost_inflight_desc *kept = &fe->kept;
	struct pd_vhost_mapping from;
	const char *why =
		pd_vhost_mapping_map(&from, fe->kept_fd, kept->mmap_offset, kept->mmap_size, NULL);

	if (why)
		return why;
	memcpy(to, from.host, kept->mmap_size);
	if (pd_vhost_guard_is_cut(from.guard))
		why = "the file was cut short";
	pd_vhost_mapping_unmap(&from);
	return why;
}

/* The notes move into a file of our own, or are forgotten: our rings say enough without. */
static void kept_move(struct pd_vhost_frontend *fe)
{
	uint64_t bytes = fe->kept.mmap_size;
	int fd = pd_mem_file_ordinary("palladium-inflight", &bytes);
	uint8_t *to = fd < 0 ? NULL : pd_mem_file_map(fd, bytes, PD_MEM_OF_PAGES);
	const char *why;

	if (fd < 0 || pd_sys_is_error(to)) {
		why = "no memory";
	} else {
		why = notes_read(fe, to);
		pd_sys_munmap(to, bytes);
	}
	pd_vhost_frontend_kept_forget(fe);
	if (why) {
		if (fd >= 0)
			pd_sys_close(fd);
		pd_log_ratelimited(PD_LOG_INFO, "vhost",
				   "%s: what the last peer noted as in flight is not kept: %s",
				   fe->role.name, why);
		return;
	}
	fe->kept_fd = fd;
	fe->kept.mmap_offset = 0;
	fe->kept_shared = false;
}

int pd_vhost_frontend_memory_ready(struct pd_vhost_frontend *fe)
{
	int err = 0;

	if (fe->area.fd < 0 || pd_vhost_area_is_cut(&fe->area) || rings_do(fe, ring_settle, 0))
		return pd_vhost_frontend_area_renew(fe);
	if (fe->area.shared) {
		err = area_move(fe, PD_MEM_OF_PAGES);
		/* The old huge pages may be free now; if not, these do. */
		if (!err)
			area_move(fe, PD_MEM_OF_HUGE);
	}
	if (err == -EIO || fe->area.fd < 0)
		return pd_vhost_frontend_area_renew(fe);
	if (err)
		return err;
	if (rings_do(fe, ring_resume, 0))
		return pd_vhost_frontend_area_renew(fe);
	if (fe->kept_fd >= 0 && fe->kept_shared)
		kept_move(fe);
	return 0;
}

void pd_vhost_frontend_rings_down(struct pd_vhost_frontend *fe)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(&fe->role); i++) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&fe->role, i);
		enum pd_dir dir = pd_vhost_ring_dir(&fe->role, i);

		if (!fe->ring[i].up)
			continue;
		pd_vhost_lane_lock(lane, dir);
		pd_vhost_lane_down(lane, dir);
		pd_vhost_lane_unlock(lane, dir);
		fe->ring[i].up = false;
	}
}

/* Bring ring `i` up. Returns NULL or what went wrong. */
static const char *ring_up(struct pd_vhost_frontend *fe, unsigned i)
{
	struct pd_vhost_own_ring *ring = &fe->ring[i];
	struct pd_vhost_lane *lane = pd_vhost_ring_lane(&fe->role, i);
	enum pd_dir dir = pd_vhost_ring_dir(&fe->role, i);
	int call_fd = ring->call_fd, kick_fd = ring->kick_fd, err;

	if (pd_vhost_inband_is_open(&fe->inband)) {
		call_fd = pd_vhost_inband_in(&fe->inband, i);
		kick_fd = pd_vhost_inband_out(&fe->inband, i);
	}
	pd_vhost_lane_lock(lane, dir);
	err = pd_vhost_lane_up(lane, dir, &ring->layout, NULL, call_fd, kick_fd, ring->used);
	pd_vhost_lane_unlock(lane, dir);
	if (err)
		return pd_vhost_reason(&fe->role, "ring %u: %s", i, pd_strerror(err));
	ring->up = ring->used = true;
	pd_vhost_ring_runs(&fe->role, i, ring->layout.size, fe->features);
	return NULL;
}

const char *pd_vhost_frontend_rings_up(struct pd_vhost_frontend *fe)
{
	const char *why = NULL;

	for (unsigned i = 1; !why && i < 2 * fe->n_lanes; i += 2)
		why = ring_up(fe, i);
	for (unsigned i = 0; !why && i < 2 * fe->n_lanes; i += 2)
		why = ring_up(fe, i);
	return why;
}

void pd_vhost_frontend_ring_shape(struct pd_vhost_frontend *fe, unsigned i)
{
	struct pd_vhost_own_ring *ring = &fe->ring[i];
	uint32_t size = fe->role.config->ring;
	bool packed = pd_vq_is_packed(fe->features);

	ring->layout.size = packed ? size : pd_power_of_two_below(size);
	ring->layout.features = fe->features;
	ring->layout.offloads =
		pd_vhost_offloads(PD_VHOST_DRIVER, pd_vhost_ring_dir(&fe->role, i), fe->features);
	ring->layout.hdr_bytes = pd_vhost_hdr_bytes(fe->role.config, fe->features);
	if (!ring->used)
		ring->base = pd_vq_first_base(packed);
	if (!i && ring->layout.size != size)
		pd_info("vhost", "%s: split rings, of %u descriptors instead of %u", fe->role.name,
			ring->layout.size, size);
}

void pd_vhost_frontend_eventfds_close(struct pd_vhost_frontend *fe)
{
	int fds[2 * PD_ARRAY_SIZE(fe->ring)];

	for (unsigned i = 0; i < PD_ARRAY_SIZE(fe->ring); i++) {
		fds[2 * i] = fe->ring[i].kick_fd;
		fds[2 * i + 1] = fe->ring[i].call_fd;
		fe->ring[i].kick_fd = fe->ring[i].call_fd = -1;
	}
	pd_closer_shared_all(fds, PD_ARRAY_SIZE(fds));
}

int pd_vhost_frontend_eventfds_renew(struct pd_vhost_frontend *fe)
{
	int err = 0;

	pd_vhost_frontend_eventfds_close(fe);
	for (unsigned i = 0; !err && i < pd_vhost_n_rings(&fe->role); i++) {
		fe->ring[i].kick_fd = pd_vhost_eventfd_make();
		fe->ring[i].call_fd = pd_vhost_eventfd_make();
		if (fe->ring[i].kick_fd < 0 || fe->ring[i].call_fd < 0)
			err = -EMFILE;
	}
	if (err)
		pd_vhost_frontend_eventfds_close(fe);
	return err;
}
