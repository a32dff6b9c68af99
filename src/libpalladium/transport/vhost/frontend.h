/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end role: the memory and the rings are ours, the peer processes them.
 *
 * Lives as long as its port. Everything runs under pd_control; no lane lock may be held on entry.
 */
#ifndef PD_TRANSPORT_VHOST_FRONTEND_H
#define PD_TRANSPORT_VHOST_FRONTEND_H

#include "transport/vhost/area.h"
#include "transport/vhost/conn.h"
#include "transport/vhost/inband.h"
#include "transport/vhost/lane.h"
#include "transport/vhost/role.h"

/* One virtqueue of ours. */
struct pd_vhost_own_ring {
	struct pd_vq_layout layout; /* places in the area */
	uint32_t base;              /* for SET_VRING_BASE */
	bool used;                  /* was up before in this area: carry on */
	bool up;
	int kick_fd, call_fd; /* ours, new for each connection */
};

struct pd_vhost_frontend {
	struct pd_vhost_role_base role;
	struct pd_vhost_conn conn;
	struct pd_vhost_conn channel;  /* for the peer's own requests; may be closed */
	int channel_fd;                /* its other end until the peer has it, or -1 */
	struct pd_vhost_inband inband; /* open: in place of the rings' eventfds */
	struct pd_vhost_area area;
	/*
	 * What back-ends keep of their work, from the first to the last on these rings; -1:
	 * nothing.
	 */
	int kept_fd;
	struct pd_vhost_inflight_desc kept;
	bool kept_given;  /* on this connection */
	bool kept_shared; /* a peer has this file */
	struct pd_vhost_own_ring ring[2 * PD_QUEUES_MAX];
	/* What the peer said. */
	uint64_t offered, features, protocol_features;
	unsigned n_lanes; /* those the peer has queues for */
	/* Where the start sequence stands. */
	unsigned step;    /* index of the next row */
	unsigned at_ring; /* within a row that is sent once per ring */
	uint32_t awaited; /* request whose answer is due, or 0 */
	bool awaiting_ack;
	uint32_t updates;                   /* translations that it has yet to acknowledge */
	struct pd_progress_timer handshake; /* armed until the rings run */
};

extern const struct pd_vhost_role_ops pd_vhost_frontend_ops;

/* The peer did wrong, for a reason that may stand in role.reason: end with it. */
void pd_vhost_frontend_fail(struct pd_vhost_frontend *fe, const char *reason);

#endif /* PD_TRANSPORT_VHOST_FRONTEND_H */
