/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user transport: a port, its role, its lanes, and finding the peer.
 *
 *   wire      message layouts and syntax
 *   conn      one connection: bytes and descriptors to messages
 *   dial      connecting, listening, trying again
 *   path      the socket itself: its file, and who is at the other end
 *   map       the peer's memory, mapped        (back-end)
 *   fs        where the files of it are        (back-end)
 *   guard     that memory may vanish
 *   area      our memory, shared               (front-end)
 *   backend   what the messages mean: the peer has the memory; backend_rings, its rings
 *   frontend  the same from the other end: we have it
 *   role      what those two share
 *   lane      the data path over virtio/
 *
 * Everything here runs under pd_control. The data path meets it at the locks of the lanes' sides,
 * which the roles hold while they move a side up or down, and through one posted work item, by
 * which a lane says that the peer broke its ring.
 *
 * States. A port is down from the first failure to find its peer until frames can move; but one
 * that could not listen waits again as soon as it does, since nothing is wrong any more. Peers that
 * come and go without getting that far change no state and are logged at a limited rate. While one
 * is there, the reason of the state is how far it has come, and then again what it was. Who
 * connects may be connected to a socket whose owner accepts nothing, so there it is no news before
 * the peer has said something.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/closer.h"
#include "base/log.h"
#include "config/path.h"
#include "counters/counters.h"
#include "transport/transport.h"
#include "transport/vhost/backend.h"
#include "transport/vhost/dial.h"
#include "transport/vhost/eventfd.h"
#include "transport/vhost/frontend.h"

/* How often it is looked for threads that a hostile peer holds up. */
#define WATCH_NS (250 * PD_NS_PER_MS)

struct pd_vhost_port {
	struct pd_port *port;
	struct pd_vhost_dial dial;
	struct pd_vhost_role_base *role; /* the structure of its kind */
	struct pd_progress_timer
		watch; /* for threads that the peer holds up; armed while there is one */
	/* The connection's peer, as long as no frame can have come from it. */
	enum { PEER_NONE, PEER_FRESH, PEER_MUTE, PEER_TALKS } peer;
	char progress[64];            /* how far it is */
	unsigned away;                /* others that were turned away meanwhile */
	char before[PD_VHOST_REASON]; /* the reason of the port's state without it */
	struct pd_vhost_lane lanes[];
};

_Static_assert((int)PD_VHOST_AVIP == PD_CONF_DIALECT_AVIP &&
		       (int)PD_VHOST_VIRTIO == PD_CONF_DIALECT_VIRTIO,
	       "lanes and configuration name the dialects alike");

/*
 * What lanes post when their ring is broken, one per port. They outlive the ports, since posted
 * work cannot be taken back.
 */
static struct pd_progress_work broken_work[PD_PORTS_MAX];
static struct pd_vhost_port *broken_port[PD_PORTS_MAX]; /* NULL: closed by now */

static struct pd_vhost_port *port_of(struct pd_vhost_role_base *role)
{
	return pd_container_of(role->lanes, struct pd_vhost_port, lanes[0]);
}

/* --- what the role tells ------------------------------------------------------------------- */

/*
 * When the next watch is due: at the same moment for all ports, so that many idle ones wake the
 * progress thread no oftener than one.
 */
static uint64_t port_watch_in(void)
{
	return WATCH_NS - pd_clock_ns() % WATCH_NS;
}

/* Let go who is held up by a peer that made its notifications wait, and end with that peer. */
static void port_watch(struct pd_progress_timer *timer)
{
	struct pd_vhost_port *vp = pd_container_of(timer, struct pd_vhost_port, watch);

	pd_progress_timer_set(timer, port_watch_in());
	for (unsigned q = 0; q < vp->port->n_lanes; q++)
		for (int dir = 0; dir < PD_DIRS; dir++)
			if (pd_vhost_lane_free(&vp->lanes[q], dir))
				pd_vhost_lane_accuse(&vp->lanes[q], dir,
						     "the peer makes its notifications wait");
}

/* Say of a port whose state does not change how far its peer is. */
static void port_show_progress(struct pd_vhost_port *vp)
{
	char away[48] = "";

	if (!vp->dial.listens && vp->peer != PEER_TALKS)
		return;
	if (vp->away)
		snprintf(away, sizeof(away), "; others turned away meanwhile: %u", vp->away);
	pd_ctr_text(vp->port->ctr, PD_CTR_TEXT_REASON, "connected, negotiating: %s%s", vp->progress,
		    away);
}

/* The peer is so far. */
static void port_negotiates(struct pd_vhost_role_base *role, const char *what, const char *message)
{
	struct pd_vhost_port *vp = port_of(role);

	if (vp->peer == PEER_NONE)
		return;
	if (vp->peer == PEER_MUTE)
		vp->peer = PEER_TALKS;
	snprintf(vp->progress, sizeof(vp->progress), "%s %s", what, message);
	port_show_progress(vp);
}

/* Frames can move. */
static void port_up(struct pd_vhost_role_base *role)
{
	struct pd_vhost_port *vp = port_of(role);

	vp->peer = PEER_NONE;
	pd_vhost_dial_settled(&vp->dial);
	if (role->ops->lane_role == PD_VHOST_DRIVER) /* which queues there are was agreed on */
		pd_port_lanes_settled(vp->port);
	pd_port_set_state(vp->port, PD_PORT_UP, NULL);
}

/* The peer is there, but frames cannot move now. */
static void port_stopped(struct pd_vhost_role_base *role, const char *reason)
{
	pd_port_set_state(port_of(role)->port, PD_PORT_DOWN, reason);
}

/* Something that the peer asked for was refused. */
static void port_refusal(struct pd_vhost_role_base *role, const char *text)
{
	pd_port_error(port_of(role)->port, 0, text);
}

/* The connection is over. */
static void port_lost(struct pd_vhost_role_base *role, const char *reason, bool fault)
{
	struct pd_vhost_port *vp = port_of(role);

	pd_progress_timer_cancel(&vp->watch);
	if (vp->port->state == PD_PORT_UP) {
		pd_port_set_state(vp->port, PD_PORT_DOWN, reason);
	} else {
		pd_log_ratelimited(fault ? PD_LOG_WARN : PD_LOG_DEBUG, "vhost", "%s: %s",
				   role->name, reason);
		pd_port_error_and_reason(vp->port, 0, reason,
					 vp->peer != PEER_NONE && !fault ? vp->before : reason);
	}
	if (fault)
		pd_ctr_count(vp->port->ctr, PD_CTR_PORT_PROTOCOL_ERRORS, 1);
	vp->peer = PEER_NONE;
	pd_vhost_dial_again(&vp->dial);
}

/* --- what the dial tells ------------------------------------------------------------------- */

/* There is a peer. */
static void port_connected(struct pd_vhost_dial *dial, int fd)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);
	int err;

	pd_debug("vhost", "%s: connected by %s", vp->port->name, dial->path);
	vp->peer = PEER_FRESH;
	vp->away = 0;
	snprintf(vp->before, sizeof(vp->before), "%s", vp->port->ctr->reason);
	snprintf(vp->progress, sizeof(vp->progress), "nothing said yet");
	port_show_progress(vp);
	/* From here on: one ring may run long before the port is up. */
	pd_progress_timer_set(&vp->watch, WATCH_NS + port_watch_in());
	err = vp->role->ops->connected(vp->role, fd);
	if (err)
		port_lost(vp->role, pd_strerror(err), true);
	else if (vp->peer == PEER_FRESH)
		vp->peer = PEER_MUTE;
}

/* Another peer waits for this port's connection: from when on it may be ended for that. */
static uint64_t port_yields_at(struct pd_vhost_dial *dial)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);

	return vp->role->ops->yields_at(vp->role);
}

/* And it is. */
static void port_yield(struct pd_vhost_dial *dial)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);

	vp->role->ops->yield(vp->role);
}

/* Or the other one has to go. */
static void port_turned_away(struct pd_vhost_dial *dial)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);

	pd_ctr_count(vp->port->ctr, PD_CTR_PORT_TURNED_AWAY, 1);
	vp->away++;
	if (vp->peer != PEER_NONE)
		port_show_progress(vp);
}

/* There is none. */
static void port_trouble(struct pd_vhost_dial *dial, int err, bool again)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);
	const char *what = dial->listens ? "listen" : "connect";
	char text[200], brief[128];

	pd_ctr_count(vp->port->ctr, PD_CTR_PORT_CONNECT_ERRORS, 1);
	/* In the statistics the path has a place of its own. */
	snprintf(brief, sizeof(brief), "cannot %s: %s", what, pd_path_strerror(err));
	pd_port_error(vp->port, pd_path_errno(err), brief);
	if (again)
		return;
	snprintf(text, sizeof(text), "cannot %s %s: %s; trying on",
		 dial->listens ? "listen on" : "connect to", dial->path, pd_path_strerror(err));
	if (vp->port->state == PD_PORT_DOWN) {
		pd_log_ratelimited(PD_LOG_WARN, "vhost", "%s: %s", vp->port->name, text);
		return;
	}
	pd_port_set_state(vp->port, PD_PORT_DOWN, text);
	pd_port_error_and_reason(vp->port, pd_path_errno(err), brief, brief);
}

/* There may be one from now on. The last error stays what it was: why that took so long. */
static void port_listening(struct pd_vhost_dial *dial)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);

	pd_port_set_state(vp->port, PD_PORT_CONNECTING, PD_PORT_NO_PEER_YET);
}

/* Somebody else came. */
static void port_refused(struct pd_vhost_dial *dial, uid_t uid)
{
	struct pd_vhost_port *vp = pd_container_of(dial, struct pd_vhost_port, dial);

	char text[128];

	snprintf(text, sizeof(text), "user %u is not let in by peer_uid", uid);
	pd_ctr_count(vp->port->ctr, PD_CTR_PORT_CONNECT_ERRORS, 1);
	pd_port_error(vp->port, EACCES, text);
}

/* A lane found its ring broken. */
static void port_broken(struct pd_progress_work *work)
{
	struct pd_vhost_port *vp = broken_port[work - broken_work];

	if (vp)
		vp->role->ops->broken(vp->role);
}

/* --- the transport's operations ------------------------------------------------------------ */

/* Make the lanes, all down. Returns 0 or -errno with none left behind. */
static int port_make_lanes(struct pd_vhost_port *vp, enum pd_vhost_role role)
{
	struct pd_port *port = vp->port;
	enum pd_vhost_dialect dialect = (enum pd_vhost_dialect)port->config->dialect;

	for (unsigned q = 0; q < port->n_lanes; q++) {
		int err =
			pd_vhost_lane_init(&vp->lanes[q], role, dialect, &broken_work[port->index]);

		if (err) {
			while (q)
				pd_vhost_lane_fini(&vp->lanes[--q]);
			return err;
		}
		pd_port_lane_init(port, &vp->lanes[q].lane, pd_vhost_lane_ops(role, dialect, false),
				  (uint16_t)q);
	}
	return 0;
}

/* Free what vhost_open made, but the role's content. */
static void port_free(struct pd_vhost_port *vp)
{
	struct pd_port *port = vp->port;

	for (unsigned q = 0; q < port->n_lanes && !pd_ports_ended; q++) {
		port->lanes[q] = NULL;
		pd_vhost_lane_fini(&vp->lanes[q]);
	}
	port->priv = NULL;
	broken_port[port->index] = NULL;
	free(vp->role);
	if (!pd_ports_ended)
		free(vp);
}

static int vhost_open(struct pd_port *port)
{
	const struct pd_vhost_role_ops *ops = port->config->role == PD_CONF_BACKEND
						      ? &pd_vhost_backend_ops
						      : &pd_vhost_frontend_ops;
	size_t bytes = sizeof(struct pd_vhost_port) + port->n_lanes * sizeof(struct pd_vhost_lane);
	struct pd_vhost_port *vp;
	int err = -ENOMEM;

	vp = aligned_alloc(PD_CACHE_LINE, (bytes + PD_CACHE_LINE - 1) & ~(PD_CACHE_LINE - 1ul));
	if (!vp)
		return -ENOMEM;
	memset(vp, 0, bytes);
	vp->port = port;
	broken_work[port->index].fn = port_broken;
	broken_port[port->index] = vp;
	vp->dial.path = port->config->path;
	vp->dial.listens = port->config->mode == PD_CONF_MODE_LISTEN;
	vp->dial.access = &port->config->access;
	vp->dial.order = port->index;
	vp->dial.connected = port_connected;
	vp->dial.trouble = port_trouble;
	vp->dial.listening = port_listening;
	vp->dial.refused = port_refused;
	vp->dial.yields_at = port_yields_at;
	vp->dial.yield = port_yield;
	vp->dial.turned_away = port_turned_away;
	pd_list_init(&vp->watch.node);
	vp->watch.fn = port_watch;
	vp->role = calloc(1, ops->bytes);
	if (!vp->role)
		goto err_port;
	*vp->role = (struct pd_vhost_role_base){
		.ops = ops,
		.config = port->config,
		.name = port->name,
		.n_lanes = port->n_lanes,
		.lanes = vp->lanes,
		.negotiates = port_negotiates,
		.up = port_up,
		.stopped = port_stopped,
		.refused = port_refusal,
		.lost = port_lost,
	};
	err = port_make_lanes(vp, ops->lane_role);
	if (err)
		goto err_role;
	err = ops->init(vp->role);
	if (err)
		goto err_lanes;
	pd_vhost_eventfd_prepare();
	err = pd_vhost_dial_start(&vp->dial);
	if (err)
		goto err_init;
	port->priv = vp;
	return 0;

err_init:
	ops->fini(vp->role, false);
err_lanes:
	port_free(vp);
	return err;
err_role:
	free(vp->role);
err_port:
	broken_port[port->index] = NULL;
	free(vp);
	return err;
}

/* Close, or in a forked child abandon. */
static void port_end(struct pd_port *port, bool abandon)
{
	struct pd_vhost_port *vp = port->priv;

	for (unsigned q = 0; abandon && q < port->n_lanes; q++)
		pd_vhost_lane_abandon(&vp->lanes[q]);
	pd_progress_timer_cancel(&vp->watch);
	pd_closer_copies(abandon);
	pd_vhost_dial_stop(&vp->dial, abandon);
	vp->role->ops->fini(vp->role, abandon);
	pd_closer_copies(false);
	port_free(vp);
}

static void vhost_close(struct pd_port *port)
{
	port_end(port, false);
}

static void vhost_abandon(struct pd_port *port)
{
	port_end(port, true);
}

const struct pd_transport_ops pd_vhost_ops = {
	.name = "vhost-user",
	.caps = PD_CAP_SIDECAR | PD_CAP_RECONNECT,
	.open = vhost_open,
	.close = vhost_close,
	.abandon = vhost_abandon,
};
