/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end role.
 *
 * The start sequence is a table: each row is one message, sent once or once per ring, if the peer
 * has what it needs. Rows that have an answer stop the sequence until it is there; nothing blocks.
 * The last row is a question whose answer proves that the peer has taken in everything before it,
 * with or without REPLY_ACK; then the lanes come up.
 *
 * The death of the back-end. Rings and buffers stay as they are, in their file; the eventfds are new.
 * What it had published as used is ours: frames to receive, buffers to send from. What it had not is
 * made available again, in the first order, to whoever connects next, who is told to begin where
 * the old one's used elements end (pd_vq_resume_driver), on either format. So a frame that send took is lost only with this process,
 * and one that was used is never shown twice. Only if the peer left a ring broken, or negotiated
 * features say otherwise, everything begins anew in a new file, which the old peer does not have.
 *
 * Memory in which back-ends note what they have taken (INFLIGHT_SHMFD) is asked of the first that offers it and given to each after
 * it, as long as the rings stay. What is made available again begins with what a dead back-end had in flight, in the
 * same order, so a next one that goes by the notes takes the same frames as one that knows of none.
 *
 * A peer that takes the connection and does not answer, or does not read, is given up after ten
 * seconds, so that one that works is tried (connecting) or let in (listening).
 */
#include "transport/vhost/frontend.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/frontend_channel.h"

/* What we make use of; the rest of what a peer offers is left alone. */
#define PROTOCOL_FEATURES                                         \
	(PD_BIT(PD_VHOST_PF_MQ) | PD_BIT(PD_VHOST_PF_REPLY_ACK) | \
	 PD_BIT(PD_VHOST_PF_INFLIGHT_SHMFD) | PD_BIT(PD_VHOST_PF_STATUS))
#define FEATURES                                                         \
	(PD_BIT(VIRTIO_F_ANY_LAYOUT) | PD_BIT(VIRTIO_RING_F_EVENT_IDX) | \
	 PD_BIT(PD_VHOST_F_PROTOCOL_FEATURES) | PD_BIT(VIRTIO_F_VERSION_1))

/* Device status bits of virtio 1.2, 2.1. */
#define STATUS_FEATURES_OK \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define STATUS_DRIVER_OK (STATUS_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/* How long a peer may take for its answers until the rings run. */
#define HANDSHAKE_NS (10000 * PD_NS_PER_MS)

/* How long closing waits for the peer to take the frames that were sent. */
#define LINGER_NS (200 * PD_NS_PER_MS)

static struct pd_vhost_frontend *frontend_of(struct pd_vhost_role_base *role)
{
	return pd_container_of(role, struct pd_vhost_frontend, role);
}

/* --- memory and lanes ---------------------------------------------------------------------- */

/*
 * Bytes of one buffer: a frame of the port's MTU with a VLAN tag and its header, at least 2 KiB. An odd number of cache lines, so that the
 * first lines of all buffers, which each frame touches, use all sets of a cache; at a distance of 2 KiB they would share one in 32.
 */
static uint32_t buffer_bytes(const struct pd_port_config *config)
{
	uint32_t bytes = PD_VQ_HDR_SIDECAR + 14 + 4 + config->mtu;

	return ((pd_max(bytes, 2048u) + PD_CACHE_LINE - 1) | PD_CACHE_LINE) & ~(PD_CACHE_LINE - 1u);
}

/* Give up the notes that back-ends kept: they are of rings that are no more, or were not kept up. */
static void kept_forget(struct pd_vhost_frontend *fe)
{
	if (fe->kept_fd >= 0)
		pd_sys_close(fe->kept_fd);
	fe->kept_fd = -1;
}

/* New memory for all rings; none of them is up. Returns 0 or -errno (then the old one is gone). */
static int area_renew(struct pd_vhost_frontend *fe)
{
	const struct pd_port_config *config = fe->role.config;
	uint32_t buf_bytes = buffer_bytes(config);
	uint64_t each = (pd_vq_driver_area_bytes(config->ring, buf_bytes) + 4095) & ~4095ull;
	int err;

	kept_forget(fe);
	pd_vhost_area_free(&fe->area);
	err = pd_vhost_area_make(&fe->area, 2 * fe->role.n_lanes * each);
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

/* Forget what a peer has written into a ring that never ran: the next one looks at it before it runs. */
static void ring_clear(const struct pd_vq_layout *layout)
{
	memset(layout->desc, 0, pd_vq_desc_bytes(layout->size));
	memset(layout->avail, 0, pd_vq_avail_bytes(layout->size, false));
	memset(layout->used, 0, pd_vq_used_bytes(layout->size, false));
}

/* Find where each ring carries on. Returns 0, or -ENETDOWN when one cannot. */
static int rings_resume(struct pd_vhost_frontend *fe)
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

/* Every side down. */
static void rings_down(struct pd_vhost_frontend *fe)
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

/*
 * The peer is ready: every side of the agreed queues up, those that send before those that receive. A program may answer what it
 * receives at once, and must not hear that the network is down. Returns NULL or what went wrong.
 */
static const char *rings_up(struct pd_vhost_frontend *fe)
{
	const char *why = NULL;

	for (unsigned i = 1; !why && i < 2 * fe->n_lanes; i += 2)
		why = ring_up(fe, i);
	for (unsigned i = 0; !why && i < 2 * fe->n_lanes; i += 2)
		why = ring_up(fe, i);
	if (why)
		return why;
	pd_progress_timer_cancel(&fe->handshake);
	pd_vhost_frontend_channel_sent(fe);
	if (!fe->kept_given)
		kept_forget(fe);
	fe->role.up(&fe->role);
	return NULL;
}

/* --- the start sequence -------------------------------------------------------------------- */

/* A message that is being made, with descriptors of ours. */
struct outgoing {
	union pd_vhost_payload *payload;
	int fds[PD_VHOST_FDS_MAX];
	uint32_t n_fds;
};

/* Fill in the payload of a row for ring `i` (0 for rows without one). */
typedef void fill_fn(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out);
/* Take in the answer to a row. Returns NULL or why the connection must end. */
typedef const char *answer_fn(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg);

static void fill_features(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = fe->features;
}

static void fill_protocol_features(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = fe->protocol_features;
}

static void fill_channel(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->fds[out->n_fds++] = fe->channel_fd;
}

static void fill_features_ok(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = STATUS_FEATURES_OK;
}

static void fill_driver_ok(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = STATUS_DRIVER_OK;
}

static void fill_memory(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->memory.n_regions = 1;
	out->payload->memory.regions[0] = (struct pd_vhost_region){
		.gpa = PD_VHOST_AREA_ADDR,
		.size = fe->area.bytes,
		.uaddr = PD_VHOST_AREA_ADDR,
	};
	out->fds[out->n_fds++] = fe->area.fd;
}

static void fill_kept_size(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->inflight.num_queues = (uint16_t)(2 * fe->n_lanes);
	out->payload->inflight.queue_size = (uint16_t)fe->ring[0].layout.size;
}

static void fill_kept(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->inflight = fe->kept;
	out->fds[out->n_fds++] = fe->kept_fd;
	fe->kept_given = true;
}

static void fill_num(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->state = (struct pd_vhost_vring_state){i, fe->ring[i].layout.size};
}

static void fill_base(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->state = (struct pd_vhost_vring_state){i, fe->ring[i].base};
}

static void fill_addr(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	const struct pd_vq_layout *layout = &fe->ring[i].layout;

	out->payload->addr = (struct pd_vhost_vring_addr){
		.index = i,
		.desc = pd_vhost_area_addr(&fe->area, layout->desc),
		.used = pd_vhost_area_addr(&fe->area, layout->used),
		.avail = pd_vhost_area_addr(&fe->area, layout->avail),
	};
}

static void fill_call(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = i;
	out->fds[out->n_fds++] = fe->ring[i].call_fd;
}

static void fill_kick(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = i;
	out->fds[out->n_fds++] = fe->ring[i].kick_fd;
}

/* A kick as a message, which is what starts the ring. */
static void fill_inband_kick(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->state = (struct pd_vhost_vring_state){i, 0};
}

static void fill_enable(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->state = (struct pd_vhost_vring_state){i, 1};
}

/* Lay ring `i` out for the features that were agreed. A split ring has a power of two of descriptors: as many as there is room for. */
static void ring_shape(struct pd_vhost_frontend *fe, unsigned i)
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

/*
 * What we take of the features that a peer has. Large segments are received in several buffers or not at all: without mergeable
 * ones each would have to hold the largest.
 */
static uint64_t choose_features(const struct pd_port_config *config, uint64_t offered)
{
	uint64_t features = pd_vhost_format_choose(
		config, offered & (FEATURES | pd_vhost_format_features(config) |
				   pd_vhost_offload_features(config)));

	if (!(features & PD_BIT(VIRTIO_F_VERSION_1)) ||
	    !(features & PD_BIT(PD_VHOST_F_PROTOCOL_FEATURES)))
		features &= ~PD_BIT(VIRTIO_F_ACCESS_PLATFORM);
	if (!(features & PD_BIT(VIRTIO_NET_F_CSUM)))
		features &= ~(PD_BIT(VIRTIO_NET_F_HOST_TSO4) | PD_BIT(VIRTIO_NET_F_HOST_TSO6));
	if (!(features & PD_BIT(VIRTIO_NET_F_GUEST_CSUM)) ||
	    !(features & PD_BIT(VIRTIO_NET_F_MRG_RXBUF)))
		features &= ~(PD_BIT(VIRTIO_NET_F_GUEST_TSO4) | PD_BIT(VIRTIO_NET_F_GUEST_TSO6));
	if (!(features & (PD_BIT(VIRTIO_NET_F_HOST_TSO4) | PD_BIT(VIRTIO_NET_F_HOST_TSO6))))
		features &= ~PD_BIT(VIRTIO_NET_F_HOST_ECN);
	if (!(features & (PD_BIT(VIRTIO_NET_F_GUEST_TSO4) | PD_BIT(VIRTIO_NET_F_GUEST_TSO6))))
		features &= ~PD_BIT(VIRTIO_NET_F_GUEST_ECN);
	return features;
}

/* The peer's features: choose from them. */
static const char *answer_features(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	uint64_t value = msg->payload.u64, features = choose_features(fe->role.config, value);
	const char *why = pd_vhost_format_check(fe->role.config, features);

	fe->offered = value;
	if (why)
		return why;
	/* Who translates our addresses makes no difference to the rings. */
	if (fe->ring[0].used && (features ^ fe->features) & ~PD_BIT(VIRTIO_F_ACCESS_PLATFORM)) {
		int err;

		pd_warn("vhost",
			"%s: the peer came back with other features (0x%llx, before "
			"0x%llx): what it had not taken is lost",
			fe->role.name, (unsigned long long)features,
			(unsigned long long)fe->features);
		err = area_renew(fe);
		if (err)
			return pd_vhost_reason(&fe->role, "no memory for the rings: %s",
					       pd_strerror(err));
	}
	fe->features = features;
	for (unsigned i = 0; i < pd_vhost_n_rings(&fe->role); i++)
		ring_shape(fe, i);
	return NULL;
}

/* Agree to notifications as messages, if the port is to have them and the peer can. Returns 0 or -errno. */
static int agree_inband(struct pd_vhost_frontend *fe, uint64_t offered)
{
	if (!fe->role.config->inband)
		return 0;
	if (~offered & PD_VHOST_INBAND_NEEDS) {
		pd_info("vhost",
			"%s: the peer has no in-band notifications: inband=on is without effect",
			fe->role.name);
		return 0;
	}
	fe->protocol_features |= PD_BIT(PD_VHOST_PF_INBAND_NOTIFICATIONS);
	return pd_vhost_inband_open(&fe->inband, pd_vhost_n_rings(&fe->role));
}

static const char *answer_protocol_features(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	const uint64_t iommu = PD_BIT(VIRTIO_F_ACCESS_PLATFORM);
	int err;

	fe->protocol_features = msg->payload.u64 & PROTOCOL_FEATURES;
	err = agree_inband(fe, msg->payload.u64);
	if (!err && !(fe->features & iommu) && !pd_vhost_inband_is_open(&fe->inband))
		return NULL;
	if (!err && msg->payload.u64 & PD_BIT(PD_VHOST_PF_BACKEND_REQ))
		err = pd_vhost_frontend_channel_open(fe);
	if (err)
		return pd_vhost_reason(&fe->role, "no channel for the back-end's requests: %s",
				       pd_strerror(err));
	if (fe->channel_fd >= 0) {
		fe->protocol_features |= PD_BIT(PD_VHOST_PF_BACKEND_REQ);
		return NULL;
	}
	pd_info("vhost", "%s: the peer could not ask for translations: iommu=on is without effect",
		fe->role.name);
	fe->features &= ~iommu;
	return NULL;
}

static const char *answer_queue_num(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	uint64_t value = msg->payload.u64;

	if (!value)
		return "the peer has no queues";
	if (value < fe->role.n_lanes)
		pd_warn("vhost", "%s: the peer has %u queue pairs only, of %u", fe->role.name,
			(unsigned)value, fe->role.n_lanes);
	fe->n_lanes = (unsigned)pd_min((uint64_t)fe->role.n_lanes, value);
	return NULL;
}

/* The peer's memory for its notes, which are between back-ends; one that has none after all is served without. */
static const char *answer_kept(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	const struct pd_vhost_inflight_desc *kept = &msg->payload.inflight;

	if (!msg->n_fds || !kept->mmap_size)
		return NULL;
	if (kept->num_queues < 2 * fe->n_lanes || kept->queue_size < fe->ring[0].layout.size)
		return "the peer's in-flight region is for other rings than ours";
	fe->kept = *kept;
	fe->kept_fd = pd_vhost_msg_take_fd(msg);
	return NULL;
}

/* The peer answers, so it has taken in everything: go. */
static const char *answer_ready(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	return rings_up(fe);
}

/* What a row needs of the peer. */
enum need {
	NEED_NONE,
	NEED_PROTOCOL,
	NEED_MQ,
	NEED_BACKEND_REQ,
	NEED_EVENTFDS, /* and no messages in their place */
	NEED_INBAND,
	NEED_INFLIGHT, /* and that we keep nothing yet */
	NEED_KEPT,     /* and that we do */
	NEED_STATUS,
};

/*
 * The order is that of QEMU and DPDK, but kicks come last: a kick starts the ring, and a ring that is
 * started before it is enabled discards what it finds.
 */
static const struct {
	uint32_t request;
	enum need need;
	bool per_ring;
	fill_fn *fill;
	answer_fn *answer; /* of requests that have a reply of their own */
} steps[] = {
	{PD_VHOST_GET_FEATURES, NEED_NONE, false, NULL, answer_features},
	{PD_VHOST_GET_PROTOCOL_FEATURES, NEED_PROTOCOL, false, NULL, answer_protocol_features},
	{PD_VHOST_SET_PROTOCOL_FEATURES, NEED_PROTOCOL, false, fill_protocol_features, NULL},
	{PD_VHOST_GET_QUEUE_NUM, NEED_MQ, false, NULL, answer_queue_num},
	{PD_VHOST_SET_BACKEND_REQ_FD, NEED_BACKEND_REQ, false, fill_channel, NULL},
	{PD_VHOST_SET_OWNER, NEED_NONE, false, NULL, NULL},
	{PD_VHOST_SET_FEATURES, NEED_NONE, false, fill_features, NULL},
	{PD_VHOST_SET_STATUS, NEED_STATUS, false, fill_features_ok, NULL},
	{PD_VHOST_SET_MEM_TABLE, NEED_NONE, false, fill_memory, NULL},
	{PD_VHOST_GET_INFLIGHT_FD, NEED_INFLIGHT, false, fill_kept_size, answer_kept},
	{PD_VHOST_SET_INFLIGHT_FD, NEED_KEPT, false, fill_kept, NULL},
	{PD_VHOST_SET_VRING_NUM, NEED_NONE, true, fill_num, NULL},
	{PD_VHOST_SET_VRING_BASE, NEED_NONE, true, fill_base, NULL},
	{PD_VHOST_SET_VRING_ADDR, NEED_NONE, true, fill_addr, NULL},
	{PD_VHOST_SET_VRING_CALL, NEED_EVENTFDS, true, fill_call, NULL},
	{PD_VHOST_SET_VRING_ENABLE, NEED_PROTOCOL, true, fill_enable, NULL},
	{PD_VHOST_SET_VRING_KICK, NEED_EVENTFDS, true, fill_kick, NULL},
	{PD_VHOST_VRING_KICK, NEED_INBAND, true, fill_inband_kick, NULL},
	{PD_VHOST_SET_STATUS, NEED_STATUS, false, fill_driver_ok, NULL},
	{PD_VHOST_GET_FEATURES, NEED_NONE, false, NULL, answer_ready},
};

/* True when the peer has what row `step` needs. */
static bool step_wanted(const struct pd_vhost_frontend *fe, unsigned step)
{
	switch (steps[step].need) {
	case NEED_PROTOCOL:
		return fe->offered & PD_BIT(PD_VHOST_F_PROTOCOL_FEATURES);
	case NEED_MQ:
		return fe->protocol_features & PD_BIT(PD_VHOST_PF_MQ);
	case NEED_BACKEND_REQ:
		return fe->protocol_features & PD_BIT(PD_VHOST_PF_BACKEND_REQ);
	case NEED_EVENTFDS:
	case NEED_INBAND:
		return pd_vhost_inband_is_open(&fe->inband) == (steps[step].need == NEED_INBAND);
	case NEED_INFLIGHT:
	case NEED_KEPT:
		return fe->protocol_features & PD_BIT(PD_VHOST_PF_INFLIGHT_SHMFD) &&
		       (fe->kept_fd >= 0) == (steps[step].need == NEED_KEPT);
	case NEED_STATUS:
		return fe->protocol_features & PD_BIT(PD_VHOST_PF_STATUS);
	default:
		return true;
	}
}

/* Send row `step` for ring `i`. Returns NULL or why the connection must end. */
static const char *step_send(struct pd_vhost_frontend *fe, unsigned step, unsigned i)
{
	static const uint32_t bytes[PD_VHOST_SIZES] = {
		[PD_VHOST_SIZE_U64] = sizeof(uint64_t),
		[PD_VHOST_SIZE_STATE] = sizeof(struct pd_vhost_vring_state),
		[PD_VHOST_SIZE_ADDR] = sizeof(struct pd_vhost_vring_addr),
		[PD_VHOST_SIZE_KEPT] = sizeof(struct pd_vhost_inflight_desc),
		[PD_VHOST_SIZE_MEMORY] = offsetof(struct pd_vhost_memory, regions[1]),
	};
	const struct pd_vhost_kind *kind = &pd_vhost_kinds[steps[step].request];
	union pd_vhost_payload payload;
	struct outgoing out = {.payload = &payload};
	struct pd_vhost_header hdr = {
		.request = steps[step].request,
		.flags = PD_VHOST_VERSION,
		.size = bytes[kind->size],
	};

	memset(&payload, 0, sizeof(payload));
	if (steps[step].fill)
		steps[step].fill(fe, i, &out);
	if (steps[step].answer) {
		fe->awaited = hdr.request;
		fe->awaiting_ack = false;
	} else if ((hdr.request == PD_VHOST_SET_MEM_TABLE || hdr.request == PD_VHOST_VRING_KICK) &&
		   (fe->protocol_features & PD_BIT(PD_VHOST_PF_REPLY_ACK))) {
		hdr.flags |= PD_VHOST_NEED_REPLY;
		fe->awaited = hdr.request;
		fe->awaiting_ack = true;
	}
	pd_trace("vhost", "%s: send %s", fe->role.name, kind->name);
	return pd_vhost_conn_send(&fe->conn, &hdr, &payload, out.fds, out.n_fds);
}

/* Send rows until an answer is due, the socket is full, or all are sent. Returns as step_send. */
static const char *steps_run(struct pd_vhost_frontend *fe)
{
	const char *why = NULL;

	while (!why && !fe->awaited && fe->step < PD_ARRAY_SIZE(steps)) {
		unsigned step = fe->step, i = fe->at_ring;

		if (!pd_vhost_conn_room(&fe->conn))
			return NULL;
		if (!step_wanted(fe, step)) {
			fe->step++;
			continue;
		}
		if (!steps[step].per_ring || i + 1 == 2 * fe->n_lanes) {
			/* A row with an answer stays the current one until that is there. */
			fe->step += !steps[step].answer;
			fe->at_ring = 0;
		} else {
			fe->at_ring++;
		}
		why = step_send(fe, step, i);
	}
	return why;
}

/* The peer has taken in a translation, or refuses it: it comes between other answers. Returns as below. */
static const char *iotlb_answer(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg)
{
	const char *why = pd_vhost_check_reply(msg, PD_VHOST_IOTLB_MSG);

	if (!(fe->features & PD_BIT(VIRTIO_F_ACCESS_PLATFORM)))
		why = "an answer that was not asked for";
	if (!why && msg->payload.u64)
		why = "the peer refused it";
	return why ? pd_vhost_reason(&fe->role, "IOTLB_MSG: %s", why) : NULL;
}

/* The peer has heard a kick, or did not want it. Returns as below. */
static const char *inband_answer(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg)
{
	const char *why = pd_vhost_inband_answer(&fe->inband, msg);

	return !why || pd_vhost_conn_closed_by_peer(why)
		       ? why
		       : pd_vhost_reason(&fe->role, "VRING_KICK: %s", why);
}

/* An answer arrived. Returns NULL or why the connection must end. */
static const char *frontend_message(struct pd_vhost_conn *conn, struct pd_vhost_msg *msg)
{
	struct pd_vhost_frontend *fe = pd_container_of(conn, struct pd_vhost_frontend, conn);
	const char *name = pd_vhost_request_name(msg->hdr.request);
	const char *why;
	bool ack = fe->awaiting_ack;

	if (msg->hdr.request == PD_VHOST_IOTLB_MSG)
		return iotlb_answer(fe, msg);
	if (msg->hdr.request == PD_VHOST_VRING_KICK && !fe->awaited)
		return inband_answer(fe, msg);
	if (!fe->awaited)
		return pd_vhost_reason(&fe->role, "%s: an answer that was not asked for", name);
	why = pd_vhost_check_reply(msg, fe->awaited);
	if (why)
		return pd_vhost_reason(&fe->role, "%s: %s", name, why);
	fe->awaited = 0;
	if (ack && msg->payload.u64)
		return pd_vhost_reason(&fe->role, "%s: the peer refused it", name);
	if (!ack)
		why = steps[fe->step++].answer(fe, msg);
	return why ? why : steps_run(fe);
}

static const char *frontend_drained(struct pd_vhost_conn *conn)
{
	struct pd_vhost_frontend *fe = pd_container_of(conn, struct pd_vhost_frontend, conn);
	const char *why = steps_run(fe);

	return why ? why : pd_vhost_inband_drained(&fe->inband);
}

/* The connection is over, however that came. */
static void frontend_lost(struct pd_vhost_frontend *fe, const char *reason, bool fault)
{
	pd_progress_timer_cancel(&fe->handshake);
	pd_vhost_frontend_channel_close(fe);
	/* Perhaps it went because of what is in it; our rings say enough without. */
	if (fe->kept_given && !fe->ring[0].up)
		kept_forget(fe);
	rings_down(fe);
	pd_vhost_inband_close(&fe->inband);
	fe->role.lost(&fe->role, reason, fault);
}

void pd_vhost_frontend_fail(struct pd_vhost_frontend *fe, const char *reason)
{
	pd_vhost_conn_close(&fe->conn);
	frontend_lost(fe, reason, true);
}

static void frontend_ended(struct pd_vhost_conn *conn, const char *reason)
{
	struct pd_vhost_frontend *fe = pd_container_of(conn, struct pd_vhost_frontend, conn);

	frontend_lost(fe, reason, !pd_vhost_conn_closed_by_peer(reason));
}

/* A kick cannot be sent. */
static void inband_failed(struct pd_vhost_inband *inband, const char *reason)
{
	struct pd_vhost_frontend *fe = pd_container_of(inband, struct pd_vhost_frontend, inband);

	pd_vhost_conn_close(&fe->conn);
	frontend_ended(&fe->conn, reason);
}

/* The peer had its time. */
static void frontend_late(struct pd_progress_timer *timer)
{
	struct pd_vhost_frontend *fe = pd_container_of(timer, struct pd_vhost_frontend, handshake);

	if (fe->awaited)
		pd_vhost_reason(&fe->role, "the peer does not answer %s",
				pd_vhost_request_name(fe->awaited));
	else
		pd_vhost_reason(&fe->role, "the peer does not read its messages");
	pd_vhost_frontend_fail(fe, fe->role.reason);
}

static const struct pd_vhost_conn_ops frontend_conn_ops = {
	.message = frontend_message,
	.drained = frontend_drained,
	.ended = frontend_ended,
};

/* --- the role ------------------------------------------------------------------------------ */

/* Close the eventfds of all rings. */
static void eventfds_close(struct pd_vhost_frontend *fe)
{
	for (unsigned i = 0; i < PD_ARRAY_SIZE(fe->ring); i++) {
		pd_vhost_eventfd_close(&fe->ring[i].kick_fd);
		pd_vhost_eventfd_close(&fe->ring[i].call_fd);
	}
}

/*
 * New eventfds for all rings, all of which are down: what the last peer has done to the old ones, which
 * it may still have, does not concern the next. Returns 0 or -errno with none left.
 */
static int eventfds_renew(struct pd_vhost_frontend *fe)
{
	int err = 0;

	eventfds_close(fe);
	for (unsigned i = 0; !err && i < pd_vhost_n_rings(&fe->role); i++) {
		fe->ring[i].kick_fd = pd_vhost_eventfd_make();
		fe->ring[i].call_fd = pd_vhost_eventfd_make();
		if (fe->ring[i].kick_fd < 0 || fe->ring[i].call_fd < 0)
			err = -EMFILE;
	}
	if (err)
		eventfds_close(fe);
	return err;
}

static int frontend_init(struct pd_vhost_role_base *role)
{
	struct pd_vhost_frontend *fe = frontend_of(role);

	pd_vhost_conn_init(&fe->conn, &frontend_conn_ops, true);
	pd_vhost_frontend_channel_init(fe);
	pd_vhost_inband_init(&fe->inband, &fe->conn, PD_VHOST_VRING_KICK, inband_failed);
	pd_list_init(&fe->handshake.node);
	fe->handshake.fn = frontend_late;
	fe->area.fd = fe->kept_fd = -1;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(fe->ring); i++)
		fe->ring[i].kick_fd = fe->ring[i].call_fd = -1;
	return area_renew(fe);
}

static int frontend_connected(struct pd_vhost_role_base *role, int fd)
{
	struct pd_vhost_frontend *fe = frontend_of(role);
	const char *why;
	int err;

	fe->protocol_features = 0;
	fe->kept_given = false;
	fe->offered = 0;
	fe->n_lanes = role->n_lanes;
	fe->step = fe->at_ring = fe->awaited = 0;
	err = pd_vhost_conn_open(&fe->conn, fd);
	if (err)
		return err;
	pd_progress_timer_set(&fe->handshake, HANDSHAKE_NS);
	err = eventfds_renew(fe);
	if (!err && (fe->area.fd < 0 || rings_resume(fe)))
		err = area_renew(fe);
	why = err ? pd_strerror(err) : steps_run(fe);
	if (why) {
		pd_vhost_conn_close(&fe->conn);
		frontend_lost(fe, why, false);
	}
	return 0;
}

static void frontend_broken(struct pd_vhost_role_base *role)
{
	struct pd_vhost_frontend *fe = frontend_of(role);
	unsigned ring;
	const char *why = pd_vhost_broken_ring(role, &ring);

	if (why)
		pd_vhost_frontend_fail(fe, why);
}

/* A peer that does not answer is given up anyway. */
static bool frontend_give_way(struct pd_vhost_role_base *role)
{
	return false;
}

/* True when the peer has taken everything that was sent on `lane`, or never will. */
static bool tx_is_idle(struct pd_vhost_lane *lane)
{
	bool idle;

	pd_vhost_lane_lock(lane, PD_TX);
	lane->lane.ops->position(&lane->lane, PD_TX);
	idle = !lane->vq[PD_TX].held || lane->vq[PD_TX].broken;
	pd_vhost_lane_unlock(lane, PD_TX);
	return idle;
}

/*
 * Give the peer a moment to take what was sent: it unmaps the rings when we close, and a program
 * that sends and exits would lose its last frames.
 */
static void frontend_linger(struct pd_vhost_frontend *fe)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	uint64_t until = pd_clock_ns() + LINGER_NS;

	pd_vhost_inband_flush(&fe->inband);
	for (unsigned i = 1; i < 2 * fe->n_lanes; i += 2) {
		struct pd_vhost_lane *lane = pd_vhost_ring_lane(&fe->role, i);

		while (fe->ring[i].up && !tx_is_idle(lane) && pd_clock_ns() < until)
			nanosleep(&pause, NULL);
	}
}

static void frontend_fini(struct pd_vhost_role_base *role, bool abandon)
{
	struct pd_vhost_frontend *fe = frontend_of(role);

	if (!abandon && pd_vhost_conn_is_open(&fe->conn))
		frontend_linger(fe);
	pd_progress_timer_cancel(&fe->handshake);
	pd_vhost_conn_close(&fe->conn);
	pd_vhost_frontend_channel_close(fe);
	rings_down(fe);
	pd_vhost_inband_close(&fe->inband);
	eventfds_close(fe);
	kept_forget(fe);
	pd_vhost_area_free(&fe->area);
}

const struct pd_vhost_role_ops pd_vhost_frontend_ops = {
	.bytes = sizeof(struct pd_vhost_frontend),
	.lane_role = PD_VHOST_DRIVER,
	.init = frontend_init,
	.connected = frontend_connected,
	.broken = frontend_broken,
	.give_way = frontend_give_way,
	.fini = frontend_fini,
};
