/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptor chains in private memory, whatever the ring's format.
 *
 * A chain is what one buffer of the peer's consists of: a head descriptor, those that follow it,
 * and at most one indirect table at its end. The common one has a single descriptor, so the data
 * path reads blocks of first descriptors ahead; the walk is for the others. How one descriptor
 * follows another is the format's business (split.h, packed.h); where bytes stand and how a table
 * is read is the same for both and is in walk.c.
 */
#ifndef PD_VIRTIO_CHAIN_H
#define PD_VIRTIO_CHAIN_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/atomic.h"
#include "base/compiler.h"
#include "virtio/prefetch.h"
#include "virtio/vq.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are read in place");

/*
 * Entries that are read ahead, so that their descriptors and buffers come into the cache together.
 */
#define PD_RING_BLOCK 32
/* The longest indirect table, in descriptors. */
#define PD_RING_INDIRECT_MAX 32768

/* A descriptor in private memory; of its flags, those that both formats have. */
struct pd_ring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next; /* split: the descriptor that follows; packed: the buffer's id */
};

/*
 * Entries read ahead: first descriptors, and where those point. A packed ring's descriptors are
 * read one after the other, so what follows a first descriptor of several stands in the block as
 * well; it is passed over.
 */
struct pd_ring_block {
	unsigned n;
	unsigned at; /* the first that is not taken */
	/*
	 * Where the first descriptor's bytes stand, when it is plain: not indirect, in one region.
	 */
	uint8_t *p[PD_RING_BLOCK];
	struct pd_ring_desc desc[PD_RING_BLOCK];
	uint16_t head[PD_RING_BLOCK]; /* split only */
};

/*
 * Note in block entry `i` the descriptor `d`, and fetch what it points to. `last`: the region that
 * was hit last (pd_mem_last).
 */
static PD_ALWAYS_INLINE void pd_ring_block_set(struct pd_vq *vq, struct pd_ring_block *b,
					       unsigned i, struct pd_mem_region *last,
					       struct pd_ring_desc d, bool write)
{
	uint64_t run = 0;
	uint8_t *p = pd_mem_near(vq->mem, &vq->mem_hint, last, d.addr, &run);

	b->desc[i] = d;
	if (pd_refuse(d.len > run) || pd_unlikely(d.flags & VRING_DESC_F_INDIRECT)) {
		b->p[i] = NULL;
		return;
	}
	b->p[i] = p;
	if (write) {
		pd_prefetch_write(p);
	} else {
		pd_prefetch_read(p, pd_min(d.len, vq->prefetch_bytes));
	}
}

/* A walk along one chain, in runs of bytes. */
struct pd_ring_walk {
	struct pd_ring_desc desc; /* the one we are in */
	uint64_t addr;            /* what of it is left */
	uint32_t len;
	uint32_t left;    /* descriptors that may still follow */
	uint32_t walked;  /* descriptors read so far */
	uint32_t table_n; /* descriptors in the indirect table that we are in, or 0 */
	uint64_t table;   /* its address */
	bool open;        /* desc was checked; addr and len are what is left of it */
	bool write;       /* direction that every descriptor must have */
	/* Packed: the descriptor of the ring that we are in, or whose table. */
	bool more;     /* another one follows it */
	uint32_t most; /* descriptors of the ring that the chain can have */
	struct pd_packed_place at;
	struct pd_ring_chain chain; /* as far as it is known; len is not used */
};

/* One run of a chain's bytes. */
struct pd_ring_run {
	uint8_t *p;
	uint32_t len;
};

/*
 * The next run of at least one byte. Returns 1 with *run set; 0 at the end of the chain; -EFAULT
 * when a descriptor has the wrong direction or points outside the table (the chain is bad); -EAGAIN
 * when what it points to waits for a translation; -ENETDOWN when the chain itself is broken.
 */
int pd_ring_walk_next(struct pd_vq *vq, struct pd_ring_walk *w, struct pd_ring_run *run);

#endif /* PD_VIRTIO_CHAIN_H */
