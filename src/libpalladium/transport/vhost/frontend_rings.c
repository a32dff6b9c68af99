/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory, rings and eventfds. See frontend_rings.h.
 */
#include "transport/vhost/frontend_rings.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/eventfd.h"

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
 * Forget what a peer has written into a ring that never ran: the next one looks at it before it
 * runs.
 */
static void ring_clear(const struct pd_vq_layout *layout)
{
	memset(layout->desc, 0, pd_vq_desc_bytes(layout->size));
	memset(layout->avail, 0, pd_vq_avail_bytes(layout->size, false));
	memset(layout->used, 0, pd_vq_used_bytes(layout->size, false));
}

int pd_vhost_frontend_rings_resume(struct pd_vhost_frontend *fe)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(&fe->role); i++) {
		struct pd_vhost_own_ring *ring = &fe->ring[i];
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&fe->role, i);
		enum pd_dir dir = pd_vhost_ring_dir(&fe->role, i);
		int err;

		if (!ring->used) {
			ring_clear(&ring->layout);
			continue;
		}
		pd_vhost_lane_lock(lane, dir);
		err = pd_vhost_lane_resume_base(lane, dir, &ring->base);
		pd_vhost_lane_unlock(lane, dir);
		if (err)
			return err;
	}
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
	for (unsigned i = 0; i < PD_ARRAY_SIZE(fe->ring); i++) {
		pd_vhost_eventfd_close(&fe->ring[i].kick_fd);
		pd_vhost_eventfd_close(&fe->ring[i].call_fd);
	}
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
