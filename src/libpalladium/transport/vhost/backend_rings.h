/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's rings: from what the messages said of them to sides of lanes that run.
 *
 * pd_control is held by the caller of everything here, and no lane lock.
 */
#ifndef PD_TRANSPORT_VHOST_BACKEND_RINGS_H
#define PD_TRANSPORT_VHOST_BACKEND_RINGS_H

#include "transport/vhost/backend.h"

/*
 * Bring every lane to where the state of its rings says it belongs, and tell the port. Returns NULL
 * or what is wrong with a ring.
 */
const char *pd_vhost_backend_settle(struct pd_vhost_backend *be);

/*
 * Say whether frames can move now, if that has changed; `why` they cannot. pd_vhost_backend_settle
 * does it, unless it fails: then it is for whoever goes on with the connection nevertheless.
 */
void pd_vhost_backend_moved(struct pd_vhost_backend *be, const char *why);

/* Take the lane's side of ring `i` down, if it is up, or its sink. */
void pd_vhost_backend_ring_down(struct pd_vhost_backend *be, unsigned i);

/* True when ring `i` would be started at the place where it is. */
bool pd_vhost_backend_ring_stays(struct pd_vhost_backend *be, unsigned i);

/* As pd_vhost_broken_ring, also of rings that are discarded. */
const char *pd_vhost_backend_broken_ring(struct pd_vhost_backend *be, unsigned *ring);

/* True when some ring runs or is discarded. */
bool pd_vhost_backend_is_running(const struct pd_vhost_backend *be);

/*
 * The eventfds of ring `i`, by which the peer rings and is rung: its own or, where messages do
 * instead, ours. -1: none.
 */
int pd_vhost_backend_kick_fd(const struct pd_vhost_backend *be, unsigned i);
int pd_vhost_backend_call_fd(const struct pd_vhost_backend *be, unsigned i);

/* Every ring down and as at the beginning. */
void pd_vhost_backend_reset_rings(struct pd_vhost_backend *be);

/*
 * Move to the memory of `map`: running sides first, each under its lock. Sides whose ring is no
 * longer there go down. Returns the old map, which nobody uses any more.
 */
struct pd_vhost_map *pd_vhost_backend_swap_map(struct pd_vhost_backend *be,
					       struct pd_vhost_map *map);

#endif /* PD_TRANSPORT_VHOST_BACKEND_RINGS_H */
