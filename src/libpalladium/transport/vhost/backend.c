/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end role.
 *
 * The peer's messages fill in the state of its rings in whatever order it likes: QEMU enables rings
 * before it says its features, DPDK hands over call descriptors before anything else, some never
 * say SET_OWNER. So no message handler starts anything. Each records what it was told; then
 * pd_vhost_backend_settle (backend_rings.c) moves every lane to where the state says it belongs.
 *
 * Refusals. A message that is well formed but says something wrong is answered with an error if the
 * peer asked for an acknowledgement, and ends the connection if not, as there is no other way to
 * tell it (specification, "Communication"). Syntax errors always end it. Rings that cannot be run
 * as the messages have it are refused again with each message that leaves them so; what is named is
 * the first. A peer that leaves for a refusal has left for that.
 *
 * Memory. Descriptors of regions are closed as soon as they are mapped; how a new table takes the
 * place of the old one stands in backend_rings.c.
 */
#include "transport/vhost/backend.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/backend_channel.h"
#include "transport/vhost/backend_rings.h"
#include "transport/vhost/dial.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/iotlb.h"
#include "transport/vhost/rarp.h"

#define PROTOCOL_FEATURES                                                                    \
	(PD_BIT(PD_VHOST_PF_MQ) | PD_BIT(PD_VHOST_PF_LOG_SHMFD) | PD_BIT(PD_VHOST_PF_RARP) | \
	 PD_BIT(PD_VHOST_PF_REPLY_ACK) | PD_BIT(PD_VHOST_PF_MTU) |                           \
	 PD_BIT(PD_VHOST_PF_INFLIGHT_SHMFD) | PD_BIT(PD_VHOST_PF_RESET_DEVICE) |             \
	 PD_BIT(PD_VHOST_PF_CONFIGURE_MEM_SLOTS) | PD_BIT(PD_VHOST_PF_STATUS))

/* What every dialect and format has. */
#define FEATURES                                                                 \
	(PD_BIT(VIRTIO_NET_F_MTU) | PD_BIT(VIRTIO_F_ANY_LAYOUT) |                \
	 PD_BIT(VIRTIO_RING_F_INDIRECT_DESC) | PD_BIT(VIRTIO_RING_F_EVENT_IDX) | \
	 PD_BIT(VHOST_F_LOG_ALL) | PD_BIT(PD_VHOST_F_PROTOCOL_FEATURES) |        \
	 PD_BIT(VIRTIO_F_VERSION_1))

static struct pd_vhost_backend *backend_of(struct pd_vhost_role_base *role)
{
	return pd_container_of(role, struct pd_vhost_backend, role);
}

/* As before the first message. */
static void backend_reset(struct pd_vhost_backend *be)
{
	pd_vhost_backend_channel_close(be);
	pd_vhost_backend_reset_rings(be);
	pd_vhost_inband_close(&be->inband);
	pd_vhost_inflight_free(&be->inflight);
	pd_vhost_iotlb_end(be);
	pd_vhost_map_free(be->map);
	be->map = NULL;
	pd_vhost_dirty_reset(be);
	be->features = be->protocol_features = 0;
	be->features_set = false;
	be->moves = false;
	be->status = 0;
	be->refused[0] = be->unfit[0] = 0;
}

/* --- messages ------------------------------------------------------------------------------ */

/*
 * A handler: does what `msg` says. The syntax was checked; ring indices were not. Returns NULL, or
 * why it is refused; then nothing changed. `ring` is the ring it names, of those messages that do.
 */
typedef const char *handler_fn(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
			       struct pd_vhost_ring *ring);

/*
 * Answer `msg` with `size` bytes of its own payload, and the descriptor `fd` (borrowed) unless it
 * is -1.
 */
static const char *reply_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg, uint32_t size,
			    int fd)
{
	struct pd_vhost_header hdr = {
		.request = msg->hdr.request,
		.flags = PD_VHOST_VERSION | PD_VHOST_REPLY,
		.size = size,
	};

	return pd_vhost_conn_send(&be->conn, &hdr, &msg->payload, &fd, fd >= 0);
}

/* The same without one. */
static const char *reply(struct pd_vhost_backend *be, struct pd_vhost_msg *msg, uint32_t size)
{
	return reply_fd(be, msg, size, -1);
}

/* Answer `msg` with a number. */
static const char *reply_u64(struct pd_vhost_backend *be, struct pd_vhost_msg *msg, uint64_t value)
{
	msg->payload.u64 = value;
	return reply(be, msg, sizeof(value));
}

static const char *on_get_features(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				   struct pd_vhost_ring *ring)
{
	return reply_u64(be, msg, be->offered);
}

static const char *on_set_features(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				   struct pd_vhost_ring *ring)
{
	uint64_t features = msg->payload.u64;
	const char *why;

	if (features & ~be->offered)
		return pd_vhost_reason(&be->role, "features that were not offered: 0x%llx",
				       (unsigned long long)(features & ~be->offered));
	if (be->features_set && !((features ^ be->features) & ~PD_BIT(VHOST_F_LOG_ALL))) {
		be->features = features; /* a migration begins or ends */
		return NULL;
	}
	/* One that only throws away what comes goes by them too. */
	if (pd_vhost_backend_is_running(be))
		return "other features while a ring runs";
	why = pd_vhost_format_check(be->role.config, features);
	if (why)
		return why;
	if (!(features & PD_BIT(VIRTIO_F_ACCESS_PLATFORM)))
		pd_vhost_iotlb_end(be);
	else if (pd_vhost_iotlb_begin(be))
		return "no memory";
	be->features = features;
	be->features_set = true;
	return NULL;
}

static const char *on_set_owner(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				struct pd_vhost_ring *ring)
{
	return NULL;
}

/* Obsolete; the specification says to disable the rings or to ignore it. */
static const char *on_reset_owner(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				  struct pd_vhost_ring *ring)
{
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++)
		be->ring[i].enabled = false;
	return NULL;
}

static const char *on_reset_device(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				   struct pd_vhost_ring *ring)
{
	pd_vhost_backend_reset_rings(be);
	pd_vhost_inflight_free(&be->inflight);
	pd_vhost_iotlb_end(be);
	be->features_set = false;
	be->features = 0;
	be->status = 0;
	return NULL;
}

static const char *on_set_mem_table(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				    struct pd_vhost_ring *ring)
{
	const struct pd_vhost_memory *memory = &msg->payload.memory;
	struct pd_vhost_map *map;

	if (!memory->n_regions)
		return "a memory table without regions";
	map = pd_vhost_map_new(be->role.lanes[0].broken);
	if (!map)
		return "no memory";
	for (uint32_t i = 0; i < memory->n_regions; i++) {
		const char *why = pd_vhost_map_add(map, &memory->regions[i], msg->fds[i]);

		if (!why)
			continue;
		pd_vhost_map_free(map);
		return pd_vhost_reason(&be->role, "%s (region %u)", why, i);
	}
	pd_vhost_map_free(pd_vhost_backend_swap_map(be, map));
	return NULL;
}

static const char *on_get_max_mem_slots(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
					struct pd_vhost_ring *ring)
{
	return reply_u64(be, msg, PD_VHOST_SLOTS_MAX);
}

static const char *on_add_mem_reg(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				  struct pd_vhost_ring *ring)
{
	struct pd_vhost_map *map =
		be->map ? pd_vhost_map_copy(be->map) : pd_vhost_map_new(be->role.lanes[0].broken);
	const char *why = "no memory";

	if (map)
		why = pd_vhost_map_add(map, &msg->payload.region.region, msg->fds[0]);
	if (why) {
		pd_vhost_map_forget(map);
		return why;
	}
	pd_vhost_map_forget(pd_vhost_backend_swap_map(be, map));
	return NULL;
}

static const char *on_rem_mem_reg(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				  struct pd_vhost_ring *ring)
{
	struct pd_vhost_map *map = be->map ? pd_vhost_map_copy(be->map) : NULL;
	struct pd_vhost_mapping gone;
	const char *why;

	if (!map)
		return "no such memory region";
	why = pd_vhost_map_del(map, &msg->payload.region.region, &gone);
	if (why) {
		pd_vhost_map_forget(map);
		return why;
	}
	pd_vhost_map_forget(pd_vhost_backend_swap_map(be, map));
	pd_vhost_mapping_unmap(&gone);
	return NULL;
}

/* QEMU waits for the answer, with or without need_reply, and expects nothing in it. */
static const char *on_set_log_base(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				   struct pd_vhost_ring *ring)
{
	const char *why = pd_vhost_dirty_set_base(be, msg);

	return why ? why : reply(be, msg, 0);
}

static const char *on_set_log_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				 struct pd_vhost_ring *ring)
{
	return pd_vhost_dirty_set_fd(be, msg);
}

static const char *on_send_rarp(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				struct pd_vhost_ring *ring)
{
	return pd_vhost_rarp(&be->role, msg->payload.bytes);
}

static const char *on_set_vring_num(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				    struct pd_vhost_ring *ring)
{
	uint32_t num = msg->payload.state.num;
	/* Where the format is not known yet, it is seen when the ring starts. */
	bool is_split = be->features_set && !pd_vq_is_packed(be->features);

	if (num < 1 || num > PD_VQ_SIZE_MAX ||
	    (is_split && (num < PD_VQ_SIZE_MIN || num & (num - 1))))
		return pd_vhost_reason(&be->role, "a ring of %u descriptors", num);
	if ((ring->up || ring->sink) && num != ring->num)
		return "another size for a ring that runs";
	ring->num = num;
	return NULL;
}

static const char *on_set_vring_addr(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				     struct pd_vhost_ring *ring)
{
	const struct pd_vhost_vring_addr *addr = &msg->payload.addr;

	/* QEMU repeats the addresses of running rings when only the log flag changes. */
	if ((ring->up || ring->sink) &&
	    (addr->desc != ring->addr.desc || addr->used != ring->addr.used ||
	     addr->avail != ring->addr.avail))
		pd_vhost_backend_ring_down(be, (unsigned)(ring - be->ring));
	ring->addr = *addr;
	ring->addr_set = true;
	return NULL;
}

static const char *on_set_vring_base(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				     struct pd_vhost_ring *ring)
{
	uint32_t base = msg->payload.state.num;

	if (base > UINT16_MAX && be->features_set && !pd_vq_is_packed(be->features))
		return pd_vhost_reason(&be->role, "a ring base of %u", base);
	if (!ring->up) {
		ring->base = base;
		ring->base_set = true;
	}
	return NULL;
}

static const char *on_get_vring_base(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				     struct pd_vhost_ring *ring)
{
	pd_vhost_backend_ring_down(be, (unsigned)(ring - be->ring));
	ring->kick_set = false;
	pd_vhost_eventfd_close(&ring->kick_fd);
	msg->payload.state.num = ring->base;
	return reply(be, msg, sizeof(msg->payload.state));
}

/*
 * The peer kicks by a message, which starts the ring if nothing did before. Where it gave an
 * eventfd too, that is what the ring listens to, so the message rings it.
 */
static const char *on_vring_kick(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				 struct pd_vhost_ring *ring)
{
	if (!pd_vhost_inband_is_open(&be->inband))
		return "it was not agreed on";
	ring->kick_set = true;
	pd_vhost_eventfd_signal(pd_vhost_backend_kick_fd(be, (unsigned)(ring - be->ring)));
	return NULL;
}

/* Take the eventfd of a KICK, CALL or ERR into *fd, -1 when none comes. NULL or a refusal. */
static const char *take_eventfd(struct pd_vhost_msg *msg, int *fd)
{
	*fd = -1;
	if (msg->payload.u64 & PD_VHOST_VRING_NOFD)
		return NULL;
	if (pd_vhost_eventfd_adopt(msg->fds[0]))
		return "a descriptor that is not an eventfd";
	*fd = pd_vhost_msg_take_fd(msg);
	return NULL;
}

/*
 * Take the eventfd of a KICK or CALL into *held, in place of the one that is there; `hand_over`
 * gives it, or what is there in its place (`instead`), to a side that runs. Returns NULL or a
 * refusal.
 */
static const char *set_eventfd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
			       struct pd_vhost_ring *ring, int *held, int instead,
			       void (*hand_over)(struct pd_vhost_lane *, enum pd_dir, int))
{
	unsigned i = (unsigned)(ring - be->ring);
	struct pd_vhost_lane *lane = pd_vhost_ring_lane(&be->role, i);
	enum pd_dir dir = pd_vhost_ring_dir(&be->role, i);
	int fd;
	const char *why = take_eventfd(msg, &fd);

	if (why)
		return why;
	if (ring->sink)
		pd_vhost_backend_ring_down(be, i);
	if (ring->up) {
		pd_vhost_lane_lock(lane, dir);
		hand_over(lane, dir, fd >= 0 ? fd : instead);
		pd_vhost_lane_unlock(lane, dir);
	}
	pd_vhost_eventfd_close(held);
	*held = fd;
	return NULL;
}

static const char *on_set_vring_kick(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				     struct pd_vhost_ring *ring)
{
	int in = pd_vhost_inband_in(&be->inband, (unsigned)(ring - be->ring));
	const char *why = set_eventfd(be, msg, ring, &ring->kick_fd, in, pd_vhost_lane_set_notify);

	if (!why)
		ring->kick_set = true;
	return why;
}

static const char *on_set_vring_call(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				     struct pd_vhost_ring *ring)
{
	int out = pd_vhost_inband_out(&be->inband, (unsigned)(ring - be->ring));

	return set_eventfd(be, msg, ring, &ring->call_fd, out, pd_vhost_lane_set_signal);
}

/* It is rung when the ring is broken, before the connection ends for that (backend_broken). */
static const char *on_set_vring_err(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				    struct pd_vhost_ring *ring)
{
	int fd;
	const char *why = take_eventfd(msg, &fd);

	if (why)
		return why;
	pd_vhost_eventfd_close(&ring->err_fd);
	ring->err_fd = fd;
	return NULL;
}

/*
 * What is offered. QEMU (5.1 to 8) gives each pair of queues every memory region anew when regions
 * are added one by one, but the table of all once: with several pairs there is only the table.
 * There is nothing to ask of a front-end but translations, and nothing to tell it but that it is to
 * look at a ring.
 */
static uint64_t protocol_features(const struct pd_vhost_backend *be)
{
	uint64_t features = PROTOCOL_FEATURES;

	if (be->role.n_lanes > 1)
		features &= ~PD_BIT(PD_VHOST_PF_CONFIGURE_MEM_SLOTS);
	if (be->role.config->iommu)
		features |= PD_BIT(PD_VHOST_PF_BACKEND_REQ);
	if (be->role.config->inband)
		features |= PD_VHOST_INBAND_NEEDS;
	return features;
}

static const char *on_get_protocol_features(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
					    struct pd_vhost_ring *ring)
{
	return reply_u64(be, msg, protocol_features(be));
}

/*
 * Take up notifications by messages, or leave them, as `features` say; rings that run keep the ones
 * that they have. NULL or a refusal.
 */
static const char *agree_inband(struct pd_vhost_backend *be, uint64_t features)
{
	bool on = features & PD_BIT(PD_VHOST_PF_INBAND_NOTIFICATIONS);

	if (on && ~features & PD_VHOST_INBAND_NEEDS)
		return "in-band notifications without BACKEND_REQ and REPLY_ACK";
	if (on == pd_vhost_inband_is_open(&be->inband))
		return NULL;
	if (pd_vhost_backend_is_running(be))
		return "other notifications while a ring runs";
	if (!on)
		pd_vhost_inband_close(&be->inband);
	else if (pd_vhost_inband_open(&be->inband, pd_vhost_n_rings(&be->role)))
		return "no descriptors for in-band notifications";
	return NULL;
}

static const char *on_set_protocol_features(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
					    struct pd_vhost_ring *ring)
{
	uint64_t features = msg->payload.u64;
	const char *why;

	if (features & ~protocol_features(be))
		return pd_vhost_reason(&be->role, "protocol features that were not offered: 0x%llx",
				       (unsigned long long)(features & ~protocol_features(be)));
	why = agree_inband(be, features);
	if (why)
		return why;
	be->protocol_features = features;
	return NULL;
}

/* For a network device this counts queue pairs. */
static const char *on_get_queue_num(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				    struct pd_vhost_ring *ring)
{
	return reply_u64(be, msg, be->role.n_lanes);
}

static const char *on_set_vring_enable(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				       struct pd_vhost_ring *ring)
{
	if (msg->payload.state.num > 1)
		return "neither enable nor disable";
	ring->enabled = msg->payload.state.num;
	ring->disabled = !ring->enabled;
	return NULL;
}

/* The peer's MTU; frames of the port's own MTU must fit it, larger ones never leave us. */
static const char *on_net_set_mtu(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				  struct pd_vhost_ring *ring)
{
	if (msg->payload.u64 < PD_CONF_MTU_MIN || msg->payload.u64 > UINT16_MAX)
		return "an MTU that no Ethernet has";
	if (msg->payload.u64 != be->role.config->mtu)
		pd_log_ratelimited(PD_LOG_INFO, "vhost",
				   "%s: the peer's MTU is %u, this port's is %u", be->role.name,
				   (unsigned)msg->payload.u64, be->role.config->mtu);
	return NULL;
}

static const char *on_set_backend_req_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
					 struct pd_vhost_ring *ring)
{
	return pd_vhost_backend_channel_open(be, msg);
}

static const char *on_iotlb_msg(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				struct pd_vhost_ring *ring)
{
	return pd_vhost_iotlb_message(be, &msg->payload.iotlb);
}

static const char *on_set_status(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				 struct pd_vhost_ring *ring)
{
	if (msg->payload.u64 > UINT8_MAX)
		return "a device status of more than eight bits";
	be->status = (uint8_t)msg->payload.u64;
	return NULL;
}

static const char *on_get_status(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				 struct pd_vhost_ring *ring)
{
	return reply_u64(be, msg, be->status);
}

/* May the in-flight memory be replaced? No ring or sink may note anything there. */
static const char *may_replace_inflight(struct pd_vhost_backend *be)
{
	return pd_vhost_backend_is_running(be) ? "another in-flight region while a ring runs"
					       : NULL;
}

static const char *on_get_inflight_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				      struct pd_vhost_ring *ring)
{
	/* Room for packed rings, whose entries are larger, while it is open what they are. */
	bool packed = !be->features_set || pd_vq_is_packed(be->features);
	const char *why = may_replace_inflight(be);

	if (!why)
		why = pd_vhost_inflight_make(&be->inflight, &msg->payload.inflight,
					     pd_vhost_n_rings(&be->role), packed,
					     be->role.lanes[0].broken);
	return why ? why : reply_fd(be, msg, msg->hdr.size, be->inflight.fd);
}

static const char *on_set_inflight_fd(struct pd_vhost_backend *be, struct pd_vhost_msg *msg,
				      struct pd_vhost_ring *ring)
{
	const char *why = may_replace_inflight(be);

	return why ? why
		   : pd_vhost_inflight_take(&be->inflight, &msg->payload.inflight,
					    pd_vhost_n_rings(&be->role), msg->fds[0],
					    be->role.lanes[0].broken);
}

/* How a message names its ring. */
enum ring_ref { RING_NONE, RING_STATE, RING_ADDR, RING_U64 };

/* By enum pd_vhost_request; what has no handler is refused. */
static const struct {
	handler_fn *fn;
	enum ring_ref ring;
} handlers[PD_VHOST_REQUESTS] = {
	[PD_VHOST_GET_FEATURES] = {on_get_features, RING_NONE},
	[PD_VHOST_SET_FEATURES] = {on_set_features, RING_NONE},
	[PD_VHOST_SET_OWNER] = {on_set_owner, RING_NONE},
	[PD_VHOST_RESET_OWNER] = {on_reset_owner, RING_NONE},
	[PD_VHOST_SET_MEM_TABLE] = {on_set_mem_table, RING_NONE},
	[PD_VHOST_SET_LOG_BASE] = {on_set_log_base, RING_NONE},
	[PD_VHOST_SET_LOG_FD] = {on_set_log_fd, RING_NONE},
	[PD_VHOST_SET_VRING_NUM] = {on_set_vring_num, RING_STATE},
	[PD_VHOST_SET_VRING_ADDR] = {on_set_vring_addr, RING_ADDR},
	[PD_VHOST_SET_VRING_BASE] = {on_set_vring_base, RING_STATE},
	[PD_VHOST_GET_VRING_BASE] = {on_get_vring_base, RING_STATE},
	[PD_VHOST_SET_VRING_KICK] = {on_set_vring_kick, RING_U64},
	[PD_VHOST_SET_VRING_CALL] = {on_set_vring_call, RING_U64},
	[PD_VHOST_SET_VRING_ERR] = {on_set_vring_err, RING_U64},
	[PD_VHOST_GET_PROTOCOL_FEATURES] = {on_get_protocol_features, RING_NONE},
	[PD_VHOST_SET_PROTOCOL_FEATURES] = {on_set_protocol_features, RING_NONE},
	[PD_VHOST_GET_QUEUE_NUM] = {on_get_queue_num, RING_NONE},
	[PD_VHOST_SET_VRING_ENABLE] = {on_set_vring_enable, RING_STATE},
	[PD_VHOST_SEND_RARP] = {on_send_rarp, RING_NONE},
	[PD_VHOST_NET_SET_MTU] = {on_net_set_mtu, RING_NONE},
	[PD_VHOST_GET_INFLIGHT_FD] = {on_get_inflight_fd, RING_NONE},
	[PD_VHOST_SET_INFLIGHT_FD] = {on_set_inflight_fd, RING_NONE},
	[PD_VHOST_SET_BACKEND_REQ_FD] = {on_set_backend_req_fd, RING_NONE},
	[PD_VHOST_IOTLB_MSG] = {on_iotlb_msg, RING_NONE},
	[PD_VHOST_VRING_KICK] = {on_vring_kick, RING_STATE},
	[PD_VHOST_RESET_DEVICE] = {on_reset_device, RING_NONE},
	[PD_VHOST_GET_MAX_MEM_SLOTS] = {on_get_max_mem_slots, RING_NONE},
	[PD_VHOST_ADD_MEM_REG] = {on_add_mem_reg, RING_NONE},
	[PD_VHOST_REM_MEM_REG] = {on_rem_mem_reg, RING_NONE},
	[PD_VHOST_SET_STATUS] = {on_set_status, RING_NONE},
	[PD_VHOST_GET_STATUS] = {on_get_status, RING_NONE},
};

/* Find the ring that `msg` names, in *ring. Returns NULL or why there is none. */
static const char *find_ring(struct pd_vhost_backend *be, const struct pd_vhost_msg *msg,
			     enum ring_ref ref, struct pd_vhost_ring **ring)
{
	uint64_t i = ref == RING_STATE  ? msg->payload.state.index
		     : ref == RING_ADDR ? msg->payload.addr.index
					: msg->payload.u64 & PD_VHOST_VRING_INDEX_MASK;

	*ring = NULL;
	if (ref == RING_NONE)
		return NULL;
	if (i >= pd_vhost_n_rings(&be->role))
		return pd_vhost_reason(&be->role, "ring %llu, where there are %u",
				       (unsigned long long)i, pd_vhost_n_rings(&be->role));
	*ring = &be->ring[i];
	return NULL;
}

/* Carry out one message, but for what the rings make of it. Returns NULL or why it is refused. */
static const char *dispatch(struct pd_vhost_backend *be, struct pd_vhost_msg *msg)
{
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[msg->hdr.request];
	struct pd_vhost_ring *ring;
	const char *why;

	if (!handlers[msg->hdr.request].fn ||
	    (kind->feature >= 0 && !(protocol_features(be) & PD_BIT(kind->feature))))
		return "we do not offer this";
	why = find_ring(be, msg, handlers[msg->hdr.request].ring, &ring);
	return why ? why : handlers[msg->hdr.request].fn(be, msg, ring);
}

/* Between the name of a message and why it is refused, of which so much is told. */
#define REFUSED " refused: "
#define WHY_MAX 80
/* So much of both where more is said behind. */
#define REFUSED_MAX 105

/*
 * Say into `text` that `name` is refused and why. `rings`: they cannot be run as they are now; if
 * that is what an earlier message was refused for, that one is named.
 */
static void refusal(const struct pd_vhost_backend *be, const char *name, const char *why,
		    bool rings, char text[static PD_VHOST_REASON])
{
	const char *said = strstr(be->unfit, REFUSED);

	if (rings && said && !strncmp(said + strlen(REFUSED), why, WHY_MAX))
		memcpy(text, be->unfit, PD_VHOST_REASON);
	else
		snprintf(text, PD_VHOST_REASON, "%s" REFUSED "%.*s", name, WHY_MAX, why);
}

/*
 * Answer `msg` that it is refused, and tell everybody else which it was and why: `text`. Returns as
 * backend_message.
 */
static const char *refuse(struct pd_vhost_backend *be, struct pd_vhost_msg *msg, bool rings,
			  const char text[static PD_VHOST_REASON])
{
	memcpy(be->refused, text, PD_VHOST_REASON);
	if (rings)
		memcpy(be->unfit, text, PD_VHOST_REASON);
	pd_log_ratelimited(PD_LOG_WARN, "vhost", "%s: %s", be->role.name, text);
	be->role.refused(&be->role, text);
	pd_vhost_backend_moved(be, text); /* what it asked for may have taken rings down */
	return reply_u64(be, msg, 1);
}

/* A message arrived. Returns NULL or why the connection must end. */
static const char *backend_message(struct pd_vhost_conn *conn, struct pd_vhost_msg *msg)
{
	struct pd_vhost_backend *be = pd_container_of(conn, struct pd_vhost_backend, conn);
	const char *name = pd_vhost_request_name(msg->hdr.request);
	bool ack = (msg->hdr.flags & PD_VHOST_NEED_REPLY) &&
		   (be->protocol_features & PD_BIT(PD_VHOST_PF_REPLY_ACK)) &&
		   pd_vhost_kinds[msg->hdr.request].answer == PD_VHOST_ANSWER_NONE;
	char text[PD_VHOST_REASON];
	bool rings = false;
	const char *why;

	be->heard = msg->hdr.request;
	be->heard_ns = pd_clock_ns();
	be->role.negotiates(&be->role, "last message", name);
	why = pd_vhost_check_request(msg);
	if (why)
		return pd_vhost_reason(&be->role, "%s: %s", name, why);
	pd_trace("vhost", "%s: %s", be->role.name, name);
	why = dispatch(be, msg);
	if (!why) {
		why = pd_vhost_backend_settle(be);
		rings = why;
	}
	if (!why) {
		be->unfit[0] = 0;
		return ack ? reply_u64(be, msg, 0) : NULL;
	}
	if (pd_vhost_conn_closed_by_peer(why))
		return why;
	refusal(be, name, why, rings, text);
	if (!ack)
		return pd_vhost_reason(&be->role, "%s", text);
	return refuse(be, msg, rings, text);
}

/* The connection ended. */
static void backend_ended(struct pd_vhost_conn *conn, const char *reason)
{
	struct pd_vhost_backend *be = pd_container_of(conn, struct pd_vhost_backend, conn);
	const bool fault = !pd_vhost_conn_closed_by_peer(reason);

	if (!fault && *be->refused)
		reason = pd_vhost_reason(&be->role, "%.*s, and the peer left", REFUSED_MAX,
					 be->refused);
	backend_reset(be);
	be->role.lost(&be->role, reason, fault);
}

static const struct pd_vhost_conn_ops backend_conn_ops = {
	.message = backend_message,
	.ended = backend_ended,
};

/* --- the role ------------------------------------------------------------------------------ */

static int backend_init(struct pd_vhost_role_base *role)
{
	struct pd_vhost_backend *be = backend_of(role);

	pd_vhost_conn_init(&be->conn, &backend_conn_ops, false);
	pd_vhost_inflight_init(&be->inflight);
	pd_vhost_backend_channel_init(be);
	be->offered = FEATURES | pd_vhost_format_features(role->config) |
		      pd_vhost_offload_features(role->config);
	if (role->n_lanes > 1)
		be->offered |= PD_BIT(VIRTIO_NET_F_MQ);
	be->dirty.fd = -1;
	for (unsigned i = 0; i < pd_vhost_n_rings(&be->role); i++)
		be->ring[i].kick_fd = be->ring[i].call_fd = be->ring[i].err_fd = -1;
	return 0;
}

static int backend_connected(struct pd_vhost_role_base *role, int fd)
{
	struct pd_vhost_backend *be = backend_of(role);

	be->heard = 0;
	be->heard_ns = pd_clock_ns();
	be->ran = false;
	return pd_vhost_conn_open(&be->conn, fd);
}

/* End the connection. `fault`: the peer broke the protocol. */
static void backend_end(struct pd_vhost_backend *be, const char *reason, bool fault)
{
	int fd = pd_vhost_conn_stop(&be->conn);

	backend_reset(be);
	be->role.lost(&be->role, reason, fault);
	pd_vhost_conn_hang_up(&be->conn, fd);
}

void pd_vhost_backend_fail(struct pd_vhost_backend *be, const char *reason)
{
	backend_end(be, reason, true);
}

/*
 * A peer may be silent for as long as it likes, as a guest is before its driver starts, but must
 * not keep others out.
 */
static uint64_t backend_yields_at(const struct pd_vhost_role_base *role)
{
	const struct pd_vhost_backend *be = pd_container_of(role, struct pd_vhost_backend, role);

	if (!pd_vhost_conn_is_open(&be->conn) || be->ran)
		return UINT64_MAX;
	return be->heard_ns + (be->heard ? PD_VHOST_SILENT_NS : 0);
}

/* It does: the connection is ended for another's sake. */
static void backend_yield(struct pd_vhost_role_base *role)
{
	struct pd_vhost_backend *be = backend_of(role);
	const unsigned seconds = (unsigned)((pd_clock_ns() - be->heard_ns) / PD_NS_PER_SEC);
	const char *reason = "the peer said nothing, and another one came";

	if (be->heard)
		reason = pd_vhost_reason(role,
					 "the peer said nothing for %u s after %s, no ring had "
					 "run, and another one came",
					 seconds, pd_vhost_request_name(be->heard));
	pd_log_ratelimited(PD_LOG_WARN, "vhost", "%s: %s", role->name, reason);
	backend_end(be, reason, false);
}

/* A lane wants something: the log's reader is to be told, a translation asked for, or a ring is broken: the peer
 * goes, and comes back with a fresh one if it can. */
static void backend_broken(struct pd_vhost_role_base *role)
{
	struct pd_vhost_backend *be = backend_of(role);
	const char *why;
	unsigned ring;

	pd_vhost_dirty_tell(be);
	if ((be->map && pd_vhost_map_is_cut(be->map)) || pd_vhost_inflight_is_cut(&be->inflight))
		why = "the peer's memory is gone: a file was truncated";
	else if (pd_vhost_dirty_is_cut(be))
		why = "the dirty log is gone: its file was truncated";
	else if ((why = pd_vhost_backend_broken_ring(be, &ring)))
		pd_vhost_backend_channel_error(be, ring);
	if (!why)
		why = pd_vhost_iotlb_ask(be);
	if (why)
		backend_end(be, why, !pd_vhost_backend_channel_closed_by_peer(why));
}

static void backend_fini(struct pd_vhost_role_base *role, bool abandon)
{
	struct pd_vhost_backend *be = backend_of(role);
	int fd;

	if (abandon) {
		pd_vhost_conn_abandon(&be->conn);
		pd_vhost_conn_abandon(&be->channel);
	} else {
		pd_vhost_inband_flush(&be->inband);
	}
	fd = pd_vhost_conn_stop(&be->conn);
	backend_reset(be);
	pd_vhost_conn_hang_up(&be->conn, fd);
}

const struct pd_vhost_role_ops pd_vhost_backend_ops = {
	.bytes = sizeof(struct pd_vhost_backend),
	.lane_role = PD_VHOST_DEVICE,
	.init = backend_init,
	.connected = backend_connected,
	.broken = backend_broken,
	.yields_at = backend_yields_at,
	.yield = backend_yield,
	.fini = backend_fini,
};
