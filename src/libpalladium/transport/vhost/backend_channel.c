/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's own requests.
 *
 * The front-end gives the socket. Only a connected Unix stream socket is taken, and what comes back
 * on it must be the answers to notifications (inband.h): anything else ends the connection. When
 * the front-end closes the channel, nothing can be asked or told any more, which matters when
 * something has to be.
 */
#include "transport/vhost/backend_channel.h"

#include "transport/vhost/eventfd.h"
#include "transport/vhost/foreign.h"

/* Not the connection, which is what the end of a socket is said to be elsewhere. */
static const char closed[] =
	"a translation is needed, and the peer has closed the channel to ask for it";

bool pd_vhost_backend_channel_closed_by_peer(const char *reason)
{
	return reason == closed;
}

static struct pd_vhost_backend *backend_of(struct pd_vhost_conn *channel)
{
	return pd_container_of(channel, struct pd_vhost_backend, channel);
}

/* An answer came. */
static const char *channel_message(struct pd_vhost_conn *channel, struct pd_vhost_msg *msg)
{
	struct pd_vhost_backend *be = backend_of(channel);
	const char *name = pd_vhost_backend_request_name(msg->hdr.request);
	const char *why;

	if (msg->hdr.request != PD_VHOST_BACKEND_VRING_CALL ||
	    !pd_vhost_inband_is_open(&be->inband))
		return pd_vhost_reason(
			&be->role, "an answer to the back-end's %s, which asked for none", name);
	why = pd_vhost_inband_answer(&be->inband, msg);
	return !why || pd_vhost_conn_closed_by_peer(why)
		       ? why
		       : pd_vhost_reason(&be->role, "the back-end's %s: %s", name, why);
}

/* There is room again. */
static const char *channel_drained(struct pd_vhost_conn *channel)
{
	return pd_vhost_inband_drained(&backend_of(channel)->inband);
}

/* The channel ended. */
static void channel_ended(struct pd_vhost_conn *channel, const char *reason)
{
	struct pd_vhost_backend *be = backend_of(channel);

	be->channel_closed = true;
	if (pd_vhost_conn_closed_by_peer(reason))
		return;
	pd_vhost_backend_fail(
		be, reason == be->role.reason
			    ? reason
			    : pd_vhost_reason(&be->role, "the back-end's channel: %s", reason));
}

static const struct pd_vhost_conn_ops channel_ops = {
	.message = channel_message,
	.drained = channel_drained,
	.ended = channel_ended,
};

/* A notification cannot be sent. */
static void inband_failed(struct pd_vhost_inband *inband, const char *reason)
{
	struct pd_vhost_backend *be = pd_container_of(inband, struct pd_vhost_backend, inband);

	pd_vhost_conn_close(&be->channel);
	channel_ended(&be->channel, reason);
}

void pd_vhost_backend_channel_init(struct pd_vhost_backend *be)
{
	pd_vhost_conn_init(&be->channel, &channel_ops, true);
	be->channel.shared = true;
	pd_vhost_inband_init(&be->inband, &be->channel, PD_VHOST_BACKEND_VRING_CALL, inband_failed);
}

const char *pd_vhost_backend_channel_open(struct pd_vhost_backend *be, struct pd_vhost_msg *msg)
{
	if (!pd_vhost_foreign_is_stream(msg->fds[0]))
		return "a channel that is no Unix stream socket";
	pd_vhost_backend_channel_close(be);
	if (pd_vhost_conn_open(&be->channel, pd_vhost_msg_take_fd(msg)))
		return "no memory";
	return pd_vhost_inband_again(&be->inband);
}

void pd_vhost_backend_channel_close(struct pd_vhost_backend *be)
{
	pd_vhost_conn_close(&be->channel);
	be->channel_closed = false;
}

const char *pd_vhost_backend_channel_iotlb(struct pd_vhost_backend *be, uint8_t type, uint64_t iova,
					   uint8_t perm)
{
	struct pd_vhost_header hdr = {
		.request = PD_VHOST_BACKEND_IOTLB_MSG,
		.flags = PD_VHOST_VERSION,
		.size = sizeof(struct pd_vhost_iotlb),
	};
	struct pd_vhost_iotlb iotlb = {.iova = iova, .perm = perm, .type = type};
	const char *why;

	if (!pd_vhost_conn_is_open(&be->channel))
		return be->channel_closed ? closed
					  : "a translation is needed, and there is no channel to "
					    "ask for it";
	why = pd_vhost_conn_send(&be->channel, &hdr, &iotlb, NULL, 0);
	if (why && pd_vhost_conn_closed_by_peer(why))
		return closed;
	return why ? pd_vhost_reason(&be->role, "the back-end's channel: %s", why) : NULL;
}

void pd_vhost_backend_channel_error(struct pd_vhost_backend *be, unsigned i)
{
	struct pd_vhost_header hdr = {
		.request = PD_VHOST_BACKEND_VRING_ERR,
		.flags = PD_VHOST_VERSION,
		.size = sizeof(struct pd_vhost_vring_state),
	};
	struct pd_vhost_vring_state state = {.index = i};

	if (be->ring[i].err_fd >= 0)
		pd_vhost_eventfd_signal(be->ring[i].err_fd);
	else if (pd_vhost_inband_is_open(&be->inband) && pd_vhost_conn_is_open(&be->channel))
		pd_vhost_conn_send(&be->channel, &hdr, &state, NULL, 0);
}
