/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a front-end starts a connection.
 *
 * The start sequence is a table: each row is one message, sent once or once per ring, if the peer
 * has what it needs. Rows that have an answer stop the sequence until it is there; nothing blocks.
 * The last row is a question whose answer proves that the peer has taken in everything before it,
 * with or without REPLY_ACK; then the lanes come up.
 */
#include "transport/vhost/frontend_start.h"

#include <stddef.h>
#include <string.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "base/log.h"
#include "transport/vhost/frontend_channel.h"
#include "transport/vhost/frontend_rings.h"

/* What we make use of; the rest of what a peer offers is left alone. */
#define PROTOCOL_FEATURES                                                                   \
	(PD_BIT(PD_VHOST_PF_MQ) | PD_BIT(PD_VHOST_PF_REPLY_ACK) | PD_BIT(PD_VHOST_PF_MTU) | \
	 PD_BIT(PD_VHOST_PF_INFLIGHT_SHMFD) | PD_BIT(PD_VHOST_PF_STATUS))
#define FEATURES                                                                  \
	(PD_BIT(VIRTIO_NET_F_MTU) | PD_BIT(VIRTIO_F_ANY_LAYOUT) |                 \
	 PD_BIT(VIRTIO_RING_F_EVENT_IDX) | PD_BIT(PD_VHOST_F_PROTOCOL_FEATURES) | \
	 PD_BIT(VIRTIO_F_VERSION_1))

/*
 * What makes no difference to the rings: who translates our addresses, and whether the peer hears
 * of our MTU.
 */
#define FEATURES_APART (PD_BIT(VIRTIO_F_ACCESS_PLATFORM) | PD_BIT(VIRTIO_NET_F_MTU))

/* Device status bits of virtio 1.2, 2.1. */
#define STATUS_FEATURES_OK \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define STATUS_DRIVER_OK (STATUS_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

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

static void fill_mtu(struct pd_vhost_frontend *fe, unsigned i, struct outgoing *out)
{
	out->payload->u64 = fe->role.config->mtu;
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
	fe->area.shared = true;
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
	fe->kept_given = fe->kept_shared = true;
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

/*
 * What we take of the features that a peer has. Large segments are received in several buffers or
 * not at all: without mergeable ones each would have to hold the largest.
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
	if (fe->ring[0].used && (features ^ fe->features) & ~FEATURES_APART) {
		int err;

		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "%s: the peer came back with other features (0x%llx, before "
				   "0x%llx): what it had not taken is lost",
				   fe->role.name, (unsigned long long)features,
				   (unsigned long long)fe->features);
		err = pd_vhost_frontend_area_renew(fe);
		if (err)
			return pd_vhost_reason(&fe->role, "no memory for the rings: %s",
					       pd_strerror(err));
	}
	fe->features = features;
	for (unsigned i = 0; i < pd_vhost_n_rings(&fe->role); i++)
		pd_vhost_frontend_ring_shape(fe, i);
	return NULL;
}

/*
 * Agree to notifications as messages, if the port is to have them and the peer can. Returns 0 or
 * -errno.
 */
static int agree_inband(struct pd_vhost_frontend *fe, uint64_t offered)
{
	if (!fe->role.config->inband)
		return 0;
	if (~offered & PD_VHOST_INBAND_NEEDS) {
		pd_log_ratelimited(
			PD_LOG_INFO, "vhost",
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
	pd_log_ratelimited(
		PD_LOG_INFO, "vhost",
		"%s: the peer could not ask for translations: iommu=on is without effect",
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
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "%s: the peer has %u queue pairs only, of %u", fe->role.name,
				   (unsigned)value, fe->role.n_lanes);
	fe->n_lanes = (unsigned)pd_min((uint64_t)fe->role.n_lanes, value);
	return NULL;
}

/*
 * The peer's memory for its notes, which are between back-ends; one that has none after all is
 * served without.
 */
static const char *answer_kept(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	const struct pd_vhost_inflight_desc *kept = &msg->payload.inflight;

	if (!msg->n_fds || !kept->mmap_size)
		return NULL;
	if (kept->num_queues < 2 * fe->n_lanes || kept->queue_size < fe->ring[0].layout.size)
		return "the peer's in-flight region is for other rings than ours";
	if (kept->mmap_size > PD_VHOST_KEPT_BYTES) {
		pd_log_ratelimited(PD_LOG_INFO, "vhost",
				   "%s: the peer's in-flight region is of %llu bytes: not kept",
				   fe->role.name, (unsigned long long)kept->mmap_size);
		return NULL;
	}
	fe->kept = *kept;
	fe->kept_fd = pd_vhost_msg_take_fd(msg);
	fe->kept_shared = true;
	return NULL;
}

/* The peer answers, so it has taken in everything: go. */
static const char *answer_ready(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	const char *why = pd_vhost_frontend_rings_up(fe);

	if (why)
		return why;
	pd_progress_timer_cancel(&fe->handshake);
	pd_vhost_frontend_channel_sent(fe);
	if (!fe->kept_given)
		pd_vhost_frontend_kept_forget(fe);
	fe->role.up(&fe->role);
	return NULL;
}

/* What a row needs of the peer. */
enum need {
	NEED_NONE,
	NEED_PROTOCOL,
	NEED_MQ,
	NEED_MTU,
	NEED_BACKEND_REQ,
	NEED_EVENTFDS, /* and no messages in their place */
	NEED_INBAND,
	NEED_INFLIGHT, /* and that we keep nothing yet */
	NEED_KEPT,     /* and that we do */
	NEED_STATUS,
};

/*
 * The order is that of QEMU and DPDK, but kicks come last: a kick starts the ring, and a ring that
 * is started before it is enabled discards what it finds.
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
	{PD_VHOST_NET_SET_MTU, NEED_MTU, false, fill_mtu, NULL},
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
	case NEED_MTU:
		return fe->protocol_features & PD_BIT(PD_VHOST_PF_MTU) &&
		       fe->features & PD_BIT(VIRTIO_NET_F_MTU);
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
	if (fe->awaited)
		fe->role.negotiates(&fe->role, "it is to answer", kind->name);
	pd_trace("vhost", "%s: send %s", fe->role.name, kind->name);
	return pd_vhost_conn_send(&fe->conn, &hdr, &payload, out.fds, out.n_fds);
}

const char *pd_vhost_frontend_start_go(struct pd_vhost_frontend *fe)
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

const char *pd_vhost_frontend_start_answer(struct pd_vhost_frontend *fe, struct pd_vhost_msg *msg)
{
	const char *name = pd_vhost_request_name(msg->hdr.request);
	const char *why;
	bool ack = fe->awaiting_ack;

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
	return why ? why : pd_vhost_frontend_start_go(fe);
}

void pd_vhost_frontend_start_begin(struct pd_vhost_frontend *fe)
{
	fe->protocol_features = 0;
	fe->kept_given = false;
	fe->offered = 0;
	fe->n_lanes = fe->role.n_lanes;
	fe->step = fe->at_ring = fe->awaited = fe->updates = 0;
}
