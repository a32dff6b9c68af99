/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end role: the peer owns the memory and the rings, we process them.
 *
 * Lives as long as its port. Everything runs under pd_control; no lane lock may be held on entry.
 */
#ifndef PD_TRANSPORT_VHOST_BACKEND_H
#define PD_TRANSPORT_VHOST_BACKEND_H

#include "transport/vhost/conn.h"
#include "transport/vhost/dirty.h"
#include "transport/vhost/inband.h"
#include "transport/vhost/inflight.h"
#include "transport/vhost/lane.h"
#include "transport/vhost/map.h"
#include "transport/vhost/role.h"

struct pd_vhost_iotlb_cache;
struct pd_vhost_sink;

/* One virtqueue as the peer describes it. */
struct pd_vhost_ring {
	uint32_t num;  /* 0: not set */
	uint32_t base; /* as SET_VRING_BASE gave it, or where the ring stopped */
	bool base_set;
	bool addr_set;
	bool kick_set;              /* started: SET_VRING_KICK came, GET_VRING_BASE has not */
	bool enabled;               /* SET_VRING_ENABLE */
	bool disabled;              /* by a message: not merely not enabled yet */
	bool up;                    /* the lane's side runs on it */
	struct pd_vhost_sink *sink; /* or this does: started, but disabled */
	struct pd_vhost_vring_addr addr;
	struct pd_vq_layout layout;   /* as it was last started */
	int kick_fd, call_fd, err_fd; /* -1: none */
};

struct pd_vhost_backend {
	struct pd_vhost_role_base role;
	struct pd_vhost_conn conn;
	struct pd_vhost_conn channel; /* for our own requests; may be closed */
	bool channel_closed;          /* by the peer */
	uint64_t offered;             /* features */
	uint64_t features;
	bool features_set;
	bool moves; /* as the port was told: frames can move */
	uint64_t protocol_features;
	uint8_t status;
	struct pd_vhost_map *map;           /* NULL: no memory yet */
	struct pd_vhost_iotlb_cache *iotlb; /* NULL: addresses are not translated */
	struct pd_vhost_dirty dirty;
	struct pd_vhost_inflight inflight;
	struct pd_vhost_inband inband; /* for rings that the peer gives no eventfds for */
	struct pd_vhost_ring ring[2 * PD_QUEUES_MAX];
	uint64_t heard_ns; /* when the last message came, or the connection */
	uint32_t heard;    /* which message, 0: none yet */
	bool ran;          /* a ring has run on this connection */
	/*
	 * The last message that was refused with an answer, and why; empty when the link came up
	 * since. The same of the one by which the rings cannot be run as they are now.
	 */
	char refused[PD_VHOST_REASON], unfit[PD_VHOST_REASON];
};

extern const struct pd_vhost_role_ops pd_vhost_backend_ops;

/* The peer did wrong, for a reason that may stand in role.reason: end with it. */
void pd_vhost_backend_fail(struct pd_vhost_backend *be, const char *reason);

#endif /* PD_TRANSPORT_VHOST_BACKEND_H */
