/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the port's glue (vhost.c) and the two roles know of each other, and what the roles share.
 *
 * Rings are numbered as in the messages: 2q is the front-end's receive queue of pair q, 2q + 1 its
 * transmit queue. Everything runs under pd_control.
 */
#ifndef PD_TRANSPORT_VHOST_ROLE_H
#define PD_TRANSPORT_VHOST_ROLE_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/transport.h"
#include "transport/vhost/lane.h"

struct pd_vhost_role_base;

/* Room for a reason, with its NUL. */
#define PD_VHOST_REASON 128

/* Every call is made with pd_control held and no lane lock. */
struct pd_vhost_role_ops {
	uint32_t bytes; /* of the role's structure, which starts with a pd_vhost_role_base */
	enum pd_vhost_role lane_role;
	/* The base is filled in, the rest zeroed; lanes are there, down. Returns 0 or -errno. */
	int (*init)(struct pd_vhost_role_base *role);
	/* There is a connection: `fd` is taken. Returns 0 or -errno (fd closed). */
	int (*connected)(struct pd_vhost_role_base *role, int fd);
	/* A lane says that the peer broke a ring, or the guard that its memory is gone. */
	void (*broken)(struct pd_vhost_role_base *role);
	/*
	 * Another peer waits for this one's place: from when on (pd_clock_ns) the connection may be
	 * ended for that, UINT64_MAX: never, or there is none; and end it now.
	 */
	uint64_t (*yields_at)(const struct pd_vhost_role_base *role);
	void (*yield)(struct pd_vhost_role_base *role);
	/*
	 * End for good: every side down, everything freed but the structure itself. `abandon`: in a
	 * forked child, where nothing may be told to the peer.
	 */
	void (*fini)(struct pd_vhost_role_base *role, bool abandon);
};

struct pd_vhost_role_base {
	const struct pd_vhost_role_ops *ops;
	const struct pd_port_config *config;
	const char *name; /* the port's, for the log */
	unsigned n_lanes;
	struct pd_vhost_lane *lanes; /* n_lanes of them */
	/* The glue's. How far the peer is, until they can move: `what` of which message. */
	void (*negotiates)(struct pd_vhost_role_base *role, const char *what, const char *message);
	/* Frames can move: */
	void (*up)(struct pd_vhost_role_base *role);
	/* They cannot, though the peer is still there: */
	void (*stopped)(struct pd_vhost_role_base *role, const char *reason);
	/* The connection is over (and closed); every side is down. `fault`: the peer broke the
	 * protocol. */
	void (*lost)(struct pd_vhost_role_base *role, const char *reason, bool fault);
	/* A message was refused with an answer, so all goes on: which and why. */
	void (*refused)(struct pd_vhost_role_base *role, const char *text);
	char reason[PD_VHOST_REASON]; /* pd_vhost_reason's */
};

static inline unsigned pd_vhost_n_rings(const struct pd_vhost_role_base *role)
{
	return 2 * role->n_lanes;
}

/* The lane of ring `i`. */
static inline struct pd_vhost_lane *pd_vhost_ring_lane(struct pd_vhost_role_base *role, unsigned i)
{
	return &role->lanes[i / 2];
}

/* The lane's side of ring `i`: a front-end receives on even rings, a back-end sends on them. */
static inline enum pd_dir pd_vhost_ring_dir(const struct pd_vhost_role_base *role, unsigned i)
{
	return (i & 1) == (role->ops->lane_role == PD_VHOST_DEVICE) ? PD_RX : PD_TX;
}

/*
 * What is wrong with the first broken ring of those that run (as pd_vhost_reason's), whose index is
 * *ring then, or NULL.
 */
const char *pd_vhost_broken_ring(struct pd_vhost_role_base *role, unsigned *ring);

/*
 * Write a reason with details. Returns it: it stands until the next one, so an earlier one must not
 * be among the arguments.
 */
const char *pd_vhost_reason(struct pd_vhost_role_base *role, const char *fmt, ...) PD_PRINTF(2, 3);

/* Log, at the level debug, that ring `i` runs with `size` descriptors, and of what kind it is. */
void pd_vhost_ring_runs(const struct pd_vhost_role_base *role, unsigned i, uint32_t size,
			uint64_t features);

/* Bytes of the header before each frame: the sidecar, or what virtio 1.2, 5.1.6 says. */
uint32_t pd_vhost_hdr_bytes(const struct pd_port_config *config, uint64_t features);

/*
 * The virtio features that say how rings and the buffers in them are laid out and used, of which
 * the port's configuration allows these.
 */
uint64_t pd_vhost_format_features(const struct pd_port_config *config);

/*
 * Front-end: what it asks for of `features`, those of its own that the peer offers. Where split
 * rings will do, an offer of packed ones that the specification does not allow is passed over.
 */
uint64_t pd_vhost_format_choose(const struct pd_port_config *config, uint64_t features);

/*
 * The virtio features by which an end may leave checksums and segmentation to the other, of which
 * the port's configuration allows these. With a sidecar in the header's place there are none.
 */
uint64_t pd_vhost_offload_features(const struct pd_port_config *config);

/*
 * What they say of the ring `dir` of an end in this role: enum pd_lane_offload. Features without
 * those that they depend on say nothing.
 */
uint8_t pd_vhost_offloads(enum pd_vhost_role role, enum pd_dir dir, uint64_t features);

/*
 * Are rings with these features what the configuration asks for, and may they be? Returns NULL or
 * why not.
 */
const char *pd_vhost_format_check(const struct pd_port_config *config, uint64_t features);

#endif /* PD_TRANSPORT_VHOST_ROLE_H */
