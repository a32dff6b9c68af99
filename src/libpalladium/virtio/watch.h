/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Queues of a device whose peer wants to know more than what is published: vq->watched.
 *
 * The data path tests that one flag once per batch. Where it is set, frames go the general way
 * (device.c), and these functions do the rest, out of line.
 */
#ifndef PD_VIRTIO_WATCH_H
#define PD_VIRTIO_WATCH_H

#include "virtio/vq.h"

struct pd_ring_block;

/* pd_ring_fetch of a watched queue. */
int pd_watch_fetch(struct pd_vq *vq, struct pd_ring_block *b, uint32_t ahead, unsigned n,
		   bool write);

/* Publish what is staged, which is something, on a watched queue. */
void pd_watch_publish(struct pd_vq *vq);

/* A word that asks for notifications was written on a watched queue. */
void pd_watch_asked(struct pd_vq *vq);

/* `len` bytes of a frame were written at `p` on a watched queue. */
void pd_watch_wrote(struct pd_vq *vq, const void *p, uint64_t len) PD_COLD;

/* Work out `watched` again, after something that watches has come or gone. */
void pd_watch_update(struct pd_vq *vq);

#endif /* PD_VIRTIO_WATCH_H */
