/* SPDX-License-Identifier: BSD-2-Clause */
/* What a watched queue does besides moving frames. */
#include "virtio/watch.h"

#include "virtio/ring.h"

void pd_watch_publish(struct pd_vq *vq)
{
	pd_dirty_staged(vq);
	pd_ring_publish(vq, vq->packed, true);
	pd_dirty_published(vq);
}

void pd_watch_asked(struct pd_vq *vq)
{
	pd_dirty_asked(vq);
}

void pd_watch_wrote(struct pd_vq *vq, const void *p, uint64_t len)
{
	if (vq->dirty.frames)
		pd_dirty_wrote(vq, p, len);
}

void pd_watch_update(struct pd_vq *vq)
{
	vq->watched = vq->dirty.bits;
}
