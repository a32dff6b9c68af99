/* SPDX-License-Identifier: BSD-2-Clause */
/* What a watched queue does besides moving frames. */
#include "virtio/watch.h"

#include "virtio/inflight.h"
#include "virtio/ring.h"

int pd_watch_fetch(struct pd_vq *vq, struct pd_ring_block *b, uint32_t ahead, unsigned n,
		   bool write)
{
	int got = vq->packed ? pd_packed_fetch(vq, b, ahead, n, write)
			     : pd_split_fetch(vq, b, ahead, n, write);

	if (got > 0)
		pd_inflight_take(vq, b, ahead, (unsigned)got, write);
	return got;
}

void pd_watch_publish(struct pd_vq *vq)
{
	uint32_t n = vq->staged;

	pd_dirty_staged(vq);
	if (pd_inflight_give(vq, n) < 0) {
		vq->staged = 0;
		return;
	}
	pd_ring_publish(vq, vq->packed, true);
	pd_inflight_gave(vq, n);
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
	vq->watched = vq->dirty.bits || vq->inflight;
}
