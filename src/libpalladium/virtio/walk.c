/* SPDX-License-Identifier: BSD-2-Clause */
/* The walk along a chain, for both formats: descriptors in several pieces, indirect tables. */
#include <string.h>

#include "virtio/ring.h"

/* A word of peer memory at any alignment; volatile, so that it is loaded once. */
typedef volatile uint64_t __attribute__((aligned(1), may_alias)) unaligned_u64;

/*
 * Read the 16 bytes of entry `i` of the indirect table that `w` is in, as a split ring has them.
 * The table stands where the peer says: at any alignment, across regions. Returns 0, or as
 * pd_vq_missed when the entry is in no memory.
 */
static int read_entry(struct pd_vq *vq, const struct pd_ring_walk *w, uint32_t i,
		      struct pd_ring_desc *out)
{
	uint64_t addr = w->table + 16 * (uint64_t)i;
	const uint8_t *p = pd_mem_translate(vq->mem_tables, &vq->mem_hint, addr, 16);
	uint8_t copy[16];
	uint64_t run;

	if (addr < w->table)
		return -EFAULT;
	if (pd_likely(p && !((uintptr_t)p & 15))) {
		*out = pd_split_desc_load((const struct vring_desc *)(const void *)p);
		return 0;
	}
	if (p) {
		((uint64_t *)(void *)out)[0] = ((const unaligned_u64 *)(const void *)p)[0];
		((uint64_t *)(void *)out)[1] = ((const unaligned_u64 *)(const void *)p)[1];
		return 0;
	}
	for (unsigned b = 0; b < 16; b++) {
		p = pd_mem_at(vq->mem_tables, &vq->mem_hint, addr + b, &run);
		if (addr + b < addr)
			return -EFAULT;
		if (!p)
			return pd_vq_missed(vq, addr + b, PD_VQ_READ);
		copy[b] = *(const volatile uint8_t *)p;
	}
	memcpy(out, copy, 16);
	return 0;
}

/*
 * Read the descriptor at entry `i` of the indirect table that `w` is in. Returns as read_entry.
 *
 * In a packed ring's table the id stands where split descriptors have their flags, and the flags at
 * the end; WRITE is the only one that counts (virtio 1.2 section 2.8.7). DPDK 22.11 sets NEXT and
 * AVAIL, too, and leaves WRITE on the header of what it sends: where nothing is ours to write, that
 * is passed over.
 */
static int read_indirect(struct pd_vq *vq, const struct pd_ring_walk *w, uint32_t i,
			 struct pd_ring_desc *out)
{
	int err = read_entry(vq, w, i, out);

	if (!err && vq->packed) {
		uint16_t id = out->flags;

		out->flags = w->write ? out->next & VRING_DESC_F_WRITE : 0;
		out->next = id;
	}
	return err;
}

/* Go into the indirect table that the current descriptor names. */
static int enter_indirect(struct pd_vq *vq, struct pd_ring_walk *w)
{
	uint32_t n = w->desc.len / 16;

	if (!vq->indirect)
		return pd_vq_break(vq, "an indirect descriptor, which was not negotiated");
	if (w->table_n)
		return pd_vq_break(vq, "an indirect descriptor within an indirect table");
	if (w->desc.flags & VRING_DESC_F_NEXT)
		return pd_vq_break(vq, "an indirect descriptor that is not the chain's last");
	if (vq->packed && w->chain.slots > 1)
		return pd_vq_break(vq, "an indirect descriptor at the end of a chain");
	if (!n || w->desc.len % 16 || n > PD_RING_INDIRECT_MAX)
		return pd_vq_break(vq, "an indirect table of a bad length");
	w->table = w->desc.addr;
	w->table_n = n;
	w->left = n - 1;
	w->walked++;
	return read_indirect(vq, w, 0, &w->desc);
}

/*
 * Go to the descriptor that follows in the indirect table: 1, 0 at the end, or an error of
 * pd_ring_walk_next. In a packed ring's tables they stand one after the other (2.8.7), in a split
 * ring's they are linked.
 */
static int table_step(struct pd_vq *vq, struct pd_ring_walk *w)
{
	uint32_t next = vq->packed ? w->table_n - w->left : w->desc.next;
	bool more = vq->packed ? w->left : w->desc.flags & VRING_DESC_F_NEXT;

	if (!more)
		return 0;
	if (!w->left--)
		return pd_vq_break(vq, "a descriptor chain is a loop");
	if (next >= w->table_n)
		return pd_vq_break(vq, "a descriptor's next names no descriptor");
	return read_indirect(vq, w, next, &w->desc) ?: 1;
}

/* Go to the descriptor that follows: 1, 0 at the end, or an error of pd_ring_walk_next. */
static int step(struct pd_vq *vq, struct pd_ring_walk *w)
{
	int more = w->table_n   ? table_step(vq, w)
		   : vq->packed ? pd_packed_step(vq, w)
				: pd_split_step(vq, w);

	w->walked += more > 0;
	return more;
}

int pd_ring_walk_next(struct pd_vq *vq, struct pd_ring_walk *w, struct pd_ring_run *run)
{
	for (;;) {
		uint64_t room;
		int more;

		if (!w->open) {
			if (pd_unlikely(w->desc.flags & VRING_DESC_F_INDIRECT)) {
				int err = enter_indirect(vq, w);

				if (err)
					return err;
				continue;
			}
			if (!(w->desc.flags & VRING_DESC_F_WRITE) == w->write)
				return -EFAULT;
			w->addr = w->desc.addr;
			w->len = w->desc.len;
			w->open = true;
			if (w->len && w->addr + (w->len - 1) < w->addr)
				return -EFAULT;
		}
		if (w->len) {
			run->p = pd_mem_at(vq->mem, &vq->mem_hint, w->addr, &room);
			if (!run->p)
				return pd_vq_missed(vq, w->addr,
						    w->write ? PD_VQ_WRITE : PD_VQ_READ);
			run->len = (uint32_t)pd_min((uint64_t)w->len, room);
			w->addr += run->len;
			w->len -= run->len;
			return 1;
		}
		more = step(vq, w);
		if (more <= 0)
			return more;
		w->open = false;
	}
}
