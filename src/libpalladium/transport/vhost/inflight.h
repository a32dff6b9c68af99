/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's shared memory for what is in flight (virtio/inflight.h has what stands in it):
 * made for a front-end that asks for it, taken from one that kept it from a back-end before us.
 * Everything runs under pd_control.
 *
 * It is the front-end's, by design: who made it does not matter, the front-end has the file from
 * then on, gives it to whom it will and may write to it, cut it short or keep it. So it is mapped
 * and guarded as the guest's memory is (map.h), read once, each field checked, when a ring comes
 * up, and what it says of a ring can do that front-end's ring harm and nobody else's.
 */
#ifndef PD_TRANSPORT_VHOST_INFLIGHT_H
#define PD_TRANSPORT_VHOST_INFLIGHT_H

#include "transport/vhost/map.h"
#include "virtio/vq.h"

struct pd_vhost_inflight {
	struct pd_vhost_map *map; /* its one region; NULL: there is none */
	int fd;                   /* ours to give away; -1: none, or the peer's */
	struct pd_vhost_inflight_desc desc;
};

/* There is none. */
void pd_vhost_inflight_init(struct pd_vhost_inflight *inflight);

/*
 * Make memory for desc->num_queues rings, of `n_rings`, of up to desc->queue_size descriptors each,
 * in place of what there was; fills in the rest of *desc. No ring runs on the old one. `cut`: see
 * guard.h. Returns NULL or why not; then nothing changed.
 */
const char *pd_vhost_inflight_make(struct pd_vhost_inflight *inflight,
				   struct pd_vhost_inflight_desc *desc, unsigned n_rings,
				   bool packed, struct pd_progress_work *cut);

/* The same with memory that *desc describes, in the file `fd` (borrowed). */
const char *pd_vhost_inflight_take(struct pd_vhost_inflight *inflight,
				   const struct pd_vhost_inflight_desc *desc, unsigned n_rings,
				   int fd, struct pd_progress_work *cut);

/*
 * Have ring `i`, laid out in *layout, track what is in flight, if there is memory for it: see
 * pd_inflight_begin.
 */
const char *pd_vhost_inflight_ring(const struct pd_vhost_inflight *inflight, unsigned i,
				   struct pd_vq_layout *layout);

/* True when a peer has cut its file short. */
bool pd_vhost_inflight_is_cut(const struct pd_vhost_inflight *inflight);

/* Forget it; no ring runs on it. */
void pd_vhost_inflight_free(struct pd_vhost_inflight *inflight);

#endif /* PD_TRANSPORT_VHOST_INFLIGHT_H */
