/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Translations of a peer's I/O virtual addresses (back-end role, VIRTIO_F_ACCESS_PLATFORM).
 *
 * pd_control is held by the caller of everything here, and no lane lock.
 */
#ifndef PD_TRANSPORT_VHOST_IOTLB_H
#define PD_TRANSPORT_VHOST_IOTLB_H

#include "transport/vhost/backend.h"

/*
 * Translations are used from now on; harmless when they are. No ring is up. Returns 0 or -ENOMEM.
 */
int pd_vhost_iotlb_begin(struct pd_vhost_backend *be);

/* They are not any more. No ring is up. */
void pd_vhost_iotlb_end(struct pd_vhost_backend *be);

/* IOTLB_MSG: an update or an invalidation. Returns NULL or why it is refused. */
const char *pd_vhost_iotlb_message(struct pd_vhost_backend *be, const struct pd_vhost_iotlb *msg);

/*
 * Where the `len` bytes of a part of ring `i` stand, which is to be accessed so (PD_VQ_*). NULL
 * when that is not known: then *why says what is wrong, or is NULL when it will be asked for.
 */
void *pd_vhost_iotlb_part(struct pd_vhost_backend *be, unsigned i, uint64_t iova, uint64_t len,
			  uint8_t access, const char **why);

/* Let a side that has just come up translate. Its lock is held since before it did. */
void pd_vhost_iotlb_attach(struct pd_vhost_backend *be, struct pd_vhost_lane *lane,
			   enum pd_dir dir);

/* Ask for what is missing. Returns NULL or why the connection must end. */
const char *pd_vhost_iotlb_ask(struct pd_vhost_backend *be);

/*
 * Forget what does not stand in the memory of `map`, which takes the place of the peer's. Rings
 * that stood there go down.
 */
void pd_vhost_iotlb_prune(struct pd_vhost_backend *be, const struct pd_vhost_map *map);

#endif /* PD_TRANSPORT_VHOST_IOTLB_H */
