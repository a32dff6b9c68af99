/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a back-end asks of us.
 *
 * With VIRTIO_F_ACCESS_PLATFORM every address that the back-end is given is one that it must have
 * translated. It asks here (a miss) and hears the answer on the connection itself (an update), so
 * neither end may wait for the other: what cannot be sent at once is queued, and who lets too much
 * pile up is cut off. Our memory is one piece, whose I/O addresses are its addresses; the answer to
 * any miss inside is all of it, to be read and written, and one outside has none.
 *
 * In-band notifications (inband.h) come here too: a call rings the eventfd that the ring's side
 * listens to.
 *
 * A request that is none, or was not agreed on, ends the connection, but for a host notifier, which
 * is refused as any driver may: doorbells in memory are a matter of hardware. A back-end that
 * closes the channel has nothing more to ask.
 */
#include "transport/vhost/frontend_channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <linux/virtio_config.h>

#include "base/closer.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/eventfd.h"

static struct pd_vhost_frontend *frontend_of(struct pd_vhost_conn *channel)
{
	return pd_container_of(channel, struct pd_vhost_frontend, channel);
}

/* Tell the peer where our memory stands. Returns NULL or why the connection must end. */
static const char *send_update(struct pd_vhost_frontend *fe)
{
	bool ack = fe->protocol_features & PD_BIT(PD_VHOST_PF_REPLY_ACK);
	struct pd_vhost_header hdr = {
		.request = PD_VHOST_IOTLB_MSG,
		.flags = PD_VHOST_VERSION | (ack ? PD_VHOST_NEED_REPLY : 0),
		.size = sizeof(struct pd_vhost_iotlb),
	};
	struct pd_vhost_iotlb update = {
		.iova = PD_VHOST_AREA_ADDR,
		.size = fe->area.bytes,
		.uaddr = PD_VHOST_AREA_ADDR,
		.perm = PD_VHOST_ACCESS_RW,
		.type = PD_VHOST_IOTLB_UPDATE,
	};

	fe->updates += ack;
	return pd_vhost_conn_send(&fe->conn, &hdr, &update, NULL, 0);
}

/*
 * A handler: does what `msg` asks for, whose syntax was checked; *refused is set when the answer is
 * no. Returns NULL or why the connection must end.
 */
typedef const char *handler_fn(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg,
			       bool *refused);

static const char *on_iotlb_msg(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg,
				bool *refused)
{
	const struct pd_vhost_iotlb *iotlb = &msg->payload.iotlb;

	if (!(fe->features & PD_BIT(VIRTIO_F_ACCESS_PLATFORM)))
		return "a translation, which was not agreed on";
	switch (iotlb->type) {
	case PD_VHOST_IOTLB_MISS:
		if (iotlb->iova - PD_VHOST_AREA_ADDR < fe->area.bytes)
			return send_update(fe);
		*refused = true;
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "%s: the peer asks for address 0x%llx, which is none of ours",
				   fe->role.name, (unsigned long long)iotlb->iova);
		return NULL;
	case PD_VHOST_IOTLB_ACCESS_FAIL:
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "%s: the peer says that it may not use address 0x%llx",
				   fe->role.name, (unsigned long long)iotlb->iova);
		return NULL;
	default:
		return "neither a miss nor a failed access";
	}
}

static const char *on_host_notifier(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg,
				    bool *refused)
{
	*refused = true;
	pd_log_ratelimited(PD_LOG_WARN, "vhost", "%s: the peer's host notifier is refused",
			   fe->role.name);
	return NULL;
}

/* Which ring a notification is about, in *ring. Returns NULL or what is wrong with it. */
static const char *notified_ring(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg,
				 unsigned *ring)
{
	*ring = msg->payload.state.index;
	if (!pd_vhost_inband_is_open(&fe->inband))
		return "was not agreed on";
	return *ring < 2 * fe->n_lanes ? NULL : "no such ring";
}

static const char *on_vring_call(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg,
				 bool *refused)
{
	unsigned i;
	const char *why = notified_ring(fe, msg, &i);

	if (!why)
		pd_vhost_eventfd_signal(pd_vhost_inband_in(&fe->inband, i));
	return why;
}

/* What the next peer finds in the ring is what this one did not take. */
static const char *on_vring_err(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg,
				bool *refused)
{
	unsigned i;
	const char *why = notified_ring(fe, msg, &i);

	return why ? why : "the peer cannot go on with a ring";
}

/* By enum pd_vhost_backend_request; what has no handler was never agreed on. */
static handler_fn *const handlers[PD_VHOST_BACKEND_REQUESTS] = {
	[PD_VHOST_BACKEND_IOTLB_MSG] = on_iotlb_msg,
	[PD_VHOST_BACKEND_VRING_HOST_NOTIFIER_MSG] = on_host_notifier,
	[PD_VHOST_BACKEND_VRING_CALL] = on_vring_call,
	[PD_VHOST_BACKEND_VRING_ERR] = on_vring_err,
};

/* A request arrived. Returns NULL or why the connection must end. */
static const char *channel_message(struct pd_vhost_conn *channel, struct pd_vhost_msg *msg)
{
	struct pd_vhost_frontend *fe = frontend_of(channel);
	const char *name = pd_vhost_backend_request_name(msg->hdr.request);
	const char *why = pd_vhost_check_backend_request(msg);
	struct pd_vhost_header hdr = {
		.request = msg->hdr.request,
		.flags = PD_VHOST_VERSION | PD_VHOST_REPLY,
		.size = sizeof(uint64_t),
	};
	bool refused = false;
	uint64_t code;

	pd_trace("vhost", "%s: the back-end's %s", fe->role.name, name);
	if (!why && !handlers[msg->hdr.request])
		why = "was not agreed on";
	if (!why)
		why = handlers[msg->hdr.request](fe, msg, &refused);
	if (why)
		return pd_vhost_conn_closed_by_peer(why)
			       ? why
			       : pd_vhost_reason(&fe->role, "the back-end's %s: %s", name, why);
	if (!(msg->hdr.flags & PD_VHOST_NEED_REPLY) ||
	    !(fe->protocol_features & PD_BIT(PD_VHOST_PF_REPLY_ACK)))
		return NULL;
	code = refused;
	return pd_vhost_conn_send(channel, &hdr, &code, NULL, 0);
}

/*
 * The channel ended. A peer that closed it has nothing to ask, or has gone, which shows on the
 * connection.
 */
static void channel_ended(struct pd_vhost_conn *channel, const char *reason)
{
	if (!pd_vhost_conn_closed_by_peer(reason))
		pd_vhost_frontend_fail(frontend_of(channel), reason);
}

static const struct pd_vhost_conn_ops channel_ops = {
	.message = channel_message,
	.ended = channel_ended,
};

void pd_vhost_frontend_channel_init(struct pd_vhost_frontend *fe)
{
	pd_vhost_conn_init(&fe->channel, &channel_ops, false);
	fe->channel_fd = -1;
}

int pd_vhost_frontend_channel_open(struct pd_vhost_frontend *fe)
{
	int fds[2], err, ours;

	pd_vhost_frontend_channel_close(fe);
	pd_internal_fd_lock();
	err = pd_sys_socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
	ours = err ? err : pd_internal_fd_take(fds[0]);
	fe->channel_fd = err ? -1 : pd_internal_fd_take(fds[1]);
	pd_internal_fd_unlock();
	if (ours >= 0 && fe->channel_fd >= 0)
		return pd_vhost_conn_open(&fe->channel, ours);
	if (ours >= 0)
		pd_sys_close(ours);
	pd_vhost_frontend_channel_sent(fe);
	return ours < 0 ? ours : -EMFILE;
}

void pd_vhost_frontend_channel_sent(struct pd_vhost_frontend *fe)
{
	if (fe->channel_fd >= 0)
		pd_closer_shared(fe->channel_fd);
	fe->channel_fd = -1;
}

void pd_vhost_frontend_channel_close(struct pd_vhost_frontend *fe)
{
	pd_vhost_conn_close(&fe->channel);
	pd_vhost_frontend_channel_sent(fe);
}
