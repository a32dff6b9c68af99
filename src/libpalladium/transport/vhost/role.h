/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the port's glue (vhost.c) and the two roles know of each other.
 */
#ifndef PD_TRANSPORT_VHOST_ROLE_H
#define PD_TRANSPORT_VHOST_ROLE_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/transport.h"
#include "transport/vhost/lane.h"

struct pd_vhost_role_base;

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
	/* Another peer waits for this one's place: end the connection if it has not said anything yet.
	 * Returns whether. */
	bool (*give_way)(struct pd_vhost_role_base *role);
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
	/* The glue's. Frames can move: */
	void (*up)(struct pd_vhost_role_base *role);
	/* They cannot, though the peer is still there: */
	void (*stopped)(struct pd_vhost_role_base *role, const char *reason);
	/* The connection is over (and closed); every side is down. `fault`: the peer broke the
	 * protocol. */
	void (*lost)(struct pd_vhost_role_base *role, const char *reason, bool fault);
};

#endif /* PD_TRANSPORT_VHOST_ROLE_H */
