/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end role.
 *
 * How a connection starts is in frontend_start.c, what the rings are made of in frontend_rings.c.
 *
 * The death of the back-end. Rings and buffers stay as they are until the next one comes; the
 * eventfds are new. What it had published as used is ours: frames to receive, buffers to send from.
 * What it had not is made available again, in the first order, to whoever connects next, who is
 * told to begin where the old one's used elements end (pd_vq_resume_driver), on either format. So a
 * frame that send took is lost only with this process, and one that was used is never shown twice.
 * Only if the peer left a ring broken or took pages away, or negotiated features say otherwise,
 * everything begins anew.
 *
 * Either way the next one's memory is in a file that the old one does not have, at the same
 * addresses (area.c): a back-end that was replaced may still run, keep its mapping and be hostile.
 * Frames that it was given and has not used are in its hands until the next one comes, and go to
 * that as they then are. No program sees the move: it is shown frames in the area only within a
 * call, under the lock of the side, which goes down before; what stands in the ring then is copied
 * into the sockets' queues as far as they take it (pd_port_on_receive_end), and the rest moves.
 *
 * Memory in which back-ends note what they have taken (INFLIGHT_SHMFD) is asked of the first that
 * offers it; each after it gets what the one before it left there, in a file of our own that nobody
 * else has and nobody can cut short, as long as the rings stay. Notes that cannot be read any more
 * are forgotten: what is made available again begins with what a dead back-end had in flight, in
 * the same order, so a next one that goes by the notes takes the same frames as one that knows of
 * none.
 *
 * A peer that takes the connection and does not answer, or does not read, is given up after ten
 * seconds, so that one that works is tried (connecting) or let in (listening).
 */
#include "transport/vhost/frontend.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sys.h"
#include "transport/vhost/frontend_channel.h"
#include "transport/vhost/frontend_rings.h"
#include "transport/vhost/frontend_start.h"

/* How long a peer may take for its answers until the rings run. */
#define HANDSHAKE_NS (10000 * PD_NS_PER_MS)

/* How long closing waits for the peer to take the frames that were sent. */
#define LINGER_NS (200 * PD_NS_PER_MS)

static struct pd_vhost_frontend *frontend_of(struct pd_vhost_role_base *role)
{
	return pd_container_of(role, struct pd_vhost_frontend, role);
}

/* --- the connection ------------------------------------------------------------------------ */

/*
 * The peer has taken in a translation, or refuses it: it comes between other answers. Returns as
 * below.
 */
static const char *iotlb_answer(struct pd_vhost_frontend *fe, const struct pd_vhost_msg *msg)
{
	const char *why = pd_vhost_check_reply(msg, PD_VHOST_IOTLB_MSG);

	if (!fe->updates)
		why = "an answer that was not asked for";
	if (!why && msg->payload.u64)
		why = "the peer refused it";
	fe->updates -= !why;
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

	if (msg->hdr.request == PD_VHOST_IOTLB_MSG)
		return iotlb_answer(fe, msg);
	if (msg->hdr.request == PD_VHOST_VRING_KICK && !fe->awaited)
		return inband_answer(fe, msg);
	return pd_vhost_frontend_start_answer(fe, msg);
}

static const char *frontend_drained(struct pd_vhost_conn *conn)
{
	struct pd_vhost_frontend *fe = pd_container_of(conn, struct pd_vhost_frontend, conn);
	const char *why = pd_vhost_frontend_start_go(fe);

	return why ? why : pd_vhost_inband_drained(&fe->inband);
}

/* The connection is over, however that came. */
static void frontend_lost(struct pd_vhost_frontend *fe, const char *reason, bool fault)
{
	pd_progress_timer_cancel(&fe->handshake);
	pd_vhost_frontend_channel_close(fe);
	/* Perhaps it went because of what is in it; our rings say enough without. */
	if (fe->kept_given && !fe->ring[0].up)
		pd_vhost_frontend_kept_forget(fe);
	pd_vhost_frontend_rings_down(fe);
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
	return pd_vhost_frontend_area_renew(fe);
}

static int frontend_connected(struct pd_vhost_role_base *role, int fd)
{
	struct pd_vhost_frontend *fe = frontend_of(role);
	const char *why;
	int err;

	pd_vhost_frontend_start_begin(fe);
	err = pd_vhost_conn_open(&fe->conn, fd);
	if (err)
		return err;
	pd_progress_timer_set(&fe->handshake, HANDSHAKE_NS);
	err = pd_vhost_frontend_eventfds_renew(fe);
	if (!err)
		err = pd_vhost_frontend_memory_ready(fe);
	why = err ? pd_strerror(err) : pd_vhost_frontend_start_go(fe);
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

	if (pd_vhost_conn_is_open(&fe->conn) && pd_vhost_area_is_cut(&fe->area))
		why = "the peer took pages of the rings away";
	if (why)
		pd_vhost_frontend_fail(fe, why);
}

/* A peer that does not answer is given up anyway. */
static uint64_t frontend_yields_at(const struct pd_vhost_role_base *role)
{
	return UINT64_MAX;
}

/* So this is never called. */
static void frontend_yield(struct pd_vhost_role_base *role)
{
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

	if (abandon) {
		pd_vhost_conn_abandon(&fe->conn);
		pd_vhost_conn_abandon(&fe->channel);
	} else if (pd_vhost_conn_is_open(&fe->conn)) {
		frontend_linger(fe);
	}
	pd_progress_timer_cancel(&fe->handshake);
	pd_vhost_conn_close(&fe->conn);
	pd_vhost_frontend_channel_close(fe);
	pd_vhost_frontend_rings_down(fe);
	pd_vhost_inband_close(&fe->inband);
	pd_vhost_frontend_eventfds_close(fe);
	pd_vhost_frontend_kept_forget(fe);
	pd_vhost_area_free(&fe->area);
}

const struct pd_vhost_role_ops pd_vhost_frontend_ops = {
	.bytes = sizeof(struct pd_vhost_frontend),
	.lane_role = PD_VHOST_DRIVER,
	.init = frontend_init,
	.connected = frontend_connected,
	.broken = frontend_broken,
	.yields_at = frontend_yields_at,
	.yield = frontend_yield,
	.fini = frontend_fini,
};
