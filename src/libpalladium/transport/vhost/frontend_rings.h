/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's memory, rings and eventfds, and its lanes over them.
 *
 * pd_control is held by the caller of everything here, and no lane lock.
 */
#ifndef PD_TRANSPORT_VHOST_FRONTEND_RINGS_H
#define PD_TRANSPORT_VHOST_FRONTEND_RINGS_H

#include "transport/vhost/frontend.h"

/*
 * The most that a back-end's memory for its notes may be, to be kept: about twice what the
 * specification makes of as many rings as a port can have, of the largest size.
 */
#define PD_VHOST_KEPT_BYTES (32ull << 20)

/*
 * Give up the notes that back-ends kept: they are of rings that are no more, or were not kept up.
 */
void pd_vhost_frontend_kept_forget(struct pd_vhost_frontend *fe);

/* New memory for all rings; none of them is up. Returns 0 or -errno (then the old one is gone). */
int pd_vhost_frontend_area_renew(struct pd_vhost_frontend *fe);

/*
 * Make the memory ready for a peer that comes; none of the rings is up. What an earlier peer was
 * given, rings and notes, moves into files that nobody has, with all that is still needed, and each
 * ring finds where it carries on. Where one cannot, all of them are new. Returns 0, or -errno and
 * that peer cannot be served now.
 */
int pd_vhost_frontend_memory_ready(struct pd_vhost_frontend *fe);

/*
 * Lay ring `i` out for the features that were agreed. A split ring has a power of two of
 * descriptors: as many as there is room for.
 */
void pd_vhost_frontend_ring_shape(struct pd_vhost_frontend *fe, unsigned i);

/*
 * The peer is ready: every side of the agreed queues up, those that send before those that receive.
 * A program may answer what it receives at once, and must not hear that the network is down.
 * Returns NULL or what went wrong.
 */
const char *pd_vhost_frontend_rings_up(struct pd_vhost_frontend *fe);

/* Every side down. */
void pd_vhost_frontend_rings_down(struct pd_vhost_frontend *fe);

/*
 * New eventfds for all rings, all of which are down: what the last peer has done to the old ones,
 * which it may still have, does not concern the next. Returns 0 or -errno with none left.
 */
int pd_vhost_frontend_eventfds_renew(struct pd_vhost_frontend *fe);

/* Close the eventfds of all rings. */
void pd_vhost_frontend_eventfds_close(struct pd_vhost_frontend *fe);

#endif /* PD_TRANSPORT_VHOST_FRONTEND_RINGS_H */
