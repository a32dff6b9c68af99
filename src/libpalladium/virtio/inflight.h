/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a device holds, kept where the next device finds it: the queue regions of vhost-user
 * ("Inflight I/O tracking" of its specification), of both formats.
 *
 * A region is memory that the front-end keeps over the device's death. Each chain is noted in it
 * before it is used and struck out around the publication of its used element, in an order in
 * which, whatever the instant of the death, the region and the ring together say what was taken and
 * not given back. The next device takes that first, in the order of the first time.
 *
 * Our devices give back in order, so what they held is also what stands next in the ring; a device
 * before us, or after us, may do it in any order.
 *
 * The region is shared with the front-end, and an older one was filled by somebody else. It is read
 * once, when the ring comes up, each field checked; from then on it is only written, from private
 * copies.
 */
#ifndef PD_VIRTIO_INFLIGHT_H
#define PD_VIRTIO_INFLIGHT_H

#include "virtio/chain.h"

struct pd_inflight;

/*
 * Bytes of the region of one queue with entries for `desc_num` descriptors; those of several stand
 * one behind the other.
 */
uint64_t pd_inflight_queue_bytes(uint32_t desc_num, bool packed);

/*
 * Take up the queue region at `region`, 8-byte aligned and of `desc_num` entries, for the ring that
 * `layout` describes, a device's, which is not up. A fresh region, all zero, is made ready. With an
 * older one, what was in flight is put where this device will take it first, and a packed ring's
 * base becomes what the region says. Sets layout->inflight, which pd_vq_init_device takes over.
 * Control path. Returns NULL, or why the region cannot be this ring's; then the ring has not been
 * changed.
 */
const char *pd_inflight_begin(struct pd_vq_layout *layout, void *region, uint32_t desc_num);

/* The queue that took it over is set up. Control path. */
void pd_inflight_start(struct pd_vq *vq);

/*
 * The queue stops in good order: what it took and did not give back is not in flight any more, and
 * the queue is not tracked. Harmless on one that is not. Control path; the side's lock.
 */
void pd_inflight_stop(struct pd_vq *vq);

/* Free what pd_inflight_begin made and no queue took over; NULL is allowed. */
void pd_inflight_free(struct pd_inflight *inf);

/*
 * The `n` entries of `b`, `ahead` of the first that is not consumed, were fetched. Data path,
 * watched queues; so are the next two.
 */
void pd_inflight_take(struct pd_vq *vq, struct pd_ring_block *b, uint32_t ahead, unsigned n,
		      bool write);

/*
 * `n` staged entries are about to be published, and have been. The first returns -ENETDOWN when
 * they are not what was taken, since the driver has changed them: the ring is broken, and nothing
 * may be published.
 */
int pd_inflight_give(struct pd_vq *vq, uint32_t n);
void pd_inflight_gave(struct pd_vq *vq, uint32_t n);

#endif /* PD_VIRTIO_INFLIGHT_H */
