/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Notifications as messages. See inband.h.
 */
#include "transport/vhost/inband.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/closer.h"
#include "base/internal_fd.h"
#include "transport/vhost/eventfd.h"

/*
 * Send the message of ring `i`, to be acknowledged or not. Returns NULL or why the connection must
 * end.
 */
static const char *send_ring(struct pd_vhost_inband *inband, unsigned i, bool ack)
{
	struct pd_vhost_header hdr = {
		.request = inband->request,
		.flags = PD_VHOST_VERSION | (ack ? PD_VHOST_NEED_REPLY : 0),
		.size = sizeof(struct pd_vhost_vring_state),
	};
	struct pd_vhost_vring_state state = {.index = i};

	inband->due &= ~(1u << i);
	inband->ring = i;
	inband->awaited = ack;
	return pd_vhost_conn_send(inband->conn, &hdr, &state, NULL, 0);
}

/* True when a message can be sent. */
static bool has_room(const struct pd_vhost_inband *inband)
{
	return pd_vhost_conn_is_open(inband->conn) && pd_vhost_conn_room(inband->conn);
}

/* Of the rings that are due, the first behind the one that was last. There is one. */
static unsigned next_ring(const struct pd_vhost_inband *inband)
{
	uint32_t behind = inband->due & ~((2u << inband->ring) - 1);

	return (unsigned)__builtin_ctz(behind ? behind : inband->due);
}

const char *pd_vhost_inband_drained(struct pd_vhost_inband *inband)
{
	if (!inband->due || inband->awaited || !has_room(inband))
		return NULL;
	return send_ring(inband, next_ring(inband), true);
}

/* A ring's side rings. */
static void bell_rung(struct pd_progress_fd *out, uint32_t revents)
{
	struct pd_vhost_bell *bell = pd_container_of(out, struct pd_vhost_bell, out);
	struct pd_vhost_inband *inband = bell->of;
	const char *why;

	pd_vhost_eventfd_drain(out->fd);
	inband->due |= 1u << (bell - inband->bell);
	why = pd_vhost_inband_drained(inband);
	if (why)
		inband->failed(inband, why);
}

void pd_vhost_inband_init(struct pd_vhost_inband *inband, struct pd_vhost_conn *conn,
			  uint32_t request,
			  void (*failed)(struct pd_vhost_inband *inband, const char *reason))
{
	memset(inband, 0, sizeof(*inband));
	inband->conn = conn;
	inband->request = request;
	inband->failed = failed;
}

/* Make the two eventfds of a ring and listen to the one. Returns 0 or -errno with none left. */
static int bell_open(struct pd_vhost_bell *bell, struct pd_vhost_inband *of)
{
	int err = -EMFILE;

	memset(bell, 0, sizeof(*bell));
	bell->of = of;
	bell->out.fn = bell_rung;
	bell->out.events = EPOLLIN;
	bell->out.fd = pd_vhost_eventfd_make();
	bell->in = pd_vhost_eventfd_make();
	if (bell->out.fd >= 0 && bell->in >= 0)
		err = pd_progress_add(&bell->out);
	if (!err)
		return 0;
	pd_vhost_eventfd_close(&bell->out.fd);
	pd_vhost_eventfd_close(&bell->in);
	return err;
}

int pd_vhost_inband_open(struct pd_vhost_inband *inband, unsigned n_rings)
{
	int err = 0;

	if (inband->n_rings)
		return 0;
	while (!err && inband->n_rings < n_rings) {
		err = bell_open(&inband->bell[inband->n_rings], inband);
		inband->n_rings += !err;
	}
	if (err)
		pd_vhost_inband_close(inband);
	return err;
}

void pd_vhost_inband_close(struct pd_vhost_inband *inband)
{
	int fds[2 * PD_ARRAY_SIZE(inband->bell)];
	unsigned n = 0;

	while (inband->n_rings) {
		struct pd_vhost_bell *bell = &inband->bell[--inband->n_rings];

		pd_progress_del(&bell->out);
		fds[n++] = bell->out.fd;
		fds[n++] = bell->in;
		bell->out.fd = bell->in = -1;
	}
	pd_closer_shared_all(fds, n);
	inband->due = 0;
	inband->awaited = false;
}

const char *pd_vhost_inband_answer(struct pd_vhost_inband *inband, const struct pd_vhost_msg *msg)
{
	if (!inband->awaited)
		return "an answer that was not asked for";
	if (msg->hdr.size != sizeof(msg->payload.u64))
		return "reply of a wrong size";
	if (msg->n_fds)
		return "file descriptors on a reply";
	if (msg->payload.u64)
		return "the peer refused it";
	inband->awaited = false;
	return pd_vhost_inband_drained(inband);
}

const char *pd_vhost_inband_again(struct pd_vhost_inband *inband)
{
	if (inband->awaited)
		inband->due |= 1u << inband->ring;
	inband->awaited = false;
	return pd_vhost_inband_drained(inband);
}

void pd_vhost_inband_flush(struct pd_vhost_inband *inband)
{
	for (unsigned i = 0; i < inband->n_rings; i++) {
		if (pd_internal_fd_ready(inband->bell[i].out.fd, POLLIN) > 0)
			inband->due |= 1u << i;
		pd_vhost_eventfd_drain(inband->bell[i].out.fd);
	}
	while (inband->due && has_room(inband))
		if (send_ring(inband, next_ring(inband), false))
			return;
}
