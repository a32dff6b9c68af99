/* SPDX-License-Identifier: BSD-2-Clause */
/* The dirty log. See dirty.h. */
#include "virtio/dirty.h"

#include "virtio/ring.h"
#include "virtio/watch.h"

/* Set the bits of the `len` (at least 1) bytes at a guest address. A page without a bit would be lost to the
 * guest: the ring is broken. */
static void mark(struct pd_vq *vq, uint64_t gpa, uint64_t len)
{
	if (!pd_dirty_covers(&vq->dirty, gpa, len)) {
		pd_vq_break(vq, "a page that the dirty log has no bit for");
		return;
	}
	for (uint64_t page = gpa / PD_DIRTY_PAGE; page <= (gpa + len - 1) / PD_DIRTY_PAGE; page++)
		pd_fetch_or(&vq->dirty.bits[page / 8], (uint8_t)(1u << page % 8));
}

void pd_dirty_wrote(struct pd_vq *vq, const void *p, uint64_t len)
{
	uint64_t gpa = pd_mem_guest(vq->dirty.mem, p);

	if (gpa == PD_DIRTY_NOWHERE)
		pd_vq_break(vq, "memory that the dirty log does not know");
	else if (len)
		mark(vq, gpa, len);
}

/* `len` bytes from `from` on of the ring's used part were written. */
static void used_wrote(struct pd_vq *vq, uint64_t from, uint64_t len)
{
	if (vq->dirty.used != PD_DIRTY_NOWHERE)
		mark(vq, vq->dirty.used + from, len);
}

/* `n` entries of `bytes` bytes from the `first` on, around the ring's end. */
static void entries_wrote(struct pd_vq *vq, uint32_t first, uint32_t n, uint32_t bytes)
{
	while (n) {
		uint32_t some = pd_min(n, vq->size - first);

		if (vq->packed)
			pd_dirty_wrote(vq, &vq->packed_desc[first], (uint64_t)some * bytes);
		else
			used_wrote(vq, offsetof(struct vring_used, ring) + (uint64_t)first * bytes,
				   (uint64_t)some * bytes);
		n -= some;
		first = 0;
	}
}

void pd_dirty_staged(struct pd_vq *vq)
{
	if (!vq->dirty.bits || vq->dirty.used == PD_DIRTY_NOWHERE)
		return;
	if (vq->packed) {
		entries_wrote(vq, vq->first_slot, vq->staged, sizeof(*vq->packed_desc));
		return;
	}
	entries_wrote(vq, vq->own_idx & vq->mask, vq->staged, sizeof(vq->used->ring[0]));
	used_wrote(vq, 0, sizeof(*vq->used));
}

void pd_dirty_published(struct pd_vq *vq)
{
	if (!vq->dirty.bits)
		return;
	if (vq->dirty.used != PD_DIRTY_NOWHERE && vq->packed)
		pd_dirty_wrote(vq, &vq->packed_desc[vq->first_slot], sizeof(*vq->packed_desc));
	else
		used_wrote(vq, 0, sizeof(*vq->used));
	if (vq->dirty.changed)
		vq->dirty.changed(vq->dirty.arg);
}

void pd_dirty_asked(struct pd_vq *vq)
{
	if (!vq->dirty.bits)
		return;
	used_wrote(vq, 0, sizeof(uint32_t));
	if (!vq->packed)
		used_wrote(vq, pd_vq_used_bytes(vq->size, false) - sizeof(uint16_t),
			   sizeof(uint16_t));
	if (vq->dirty.changed)
		vq->dirty.changed(vq->dirty.arg);
}

void pd_dirty_set(struct pd_vq *vq, const struct pd_dirty *dirty)
{
	vq->dirty = dirty ? *dirty : (struct pd_dirty){.bits = NULL};
	pd_watch_update(vq);
	if (!vq->dirty.bits || vq->dirty.used == PD_DIRTY_NOWHERE)
		return;
	used_wrote(vq, 0, pd_vq_used_bytes(vq->size, vq->packed));
	if (vq->packed)
		pd_dirty_wrote(vq, vq->packed_desc, pd_vq_desc_bytes(vq->size));
}
