/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The dirty log: which pages of the guest's memory a device writes to (vhost-user specification,
 * "Migration").
 *
 * A front-end that migrates its guest copies the memory while everything runs. It takes bits out of
 * a bitmap, copies those pages, and comes again for what was written meanwhile. So a bit is set
 * after its page was written, never only before: a page copied in between would be copied for the
 * last time with the old bytes. Each bit is set by an atomic "or" with release, which pairs with
 * the exchange by which the front-end takes it.
 *
 * What is noted when. A frame's bytes as soon as they are written (device.c); then what is
 * published about them; then the index that publishes it, once before it is stored, should we die
 * in between, and once after. Event words are noted as they are written.
 *
 * What is written is noted by where it stands in our memory, and found in the memory table:
 * whatever sort of address a descriptor holds. Only the split ring's used part and the event
 * structure of a packed one are noted where the front-end says (SET_VRING_ADDR, log_guest_addr),
 * as it may want them elsewhere.
 *
 * Nothing here is on the path of a queue that is not watched: there, vq->watched is one test per
 * batch.
 */
#ifndef PD_VIRTIO_DIRTY_H
#define PD_VIRTIO_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/mem.h"

struct pd_vq;

/* One bit stands for so many bytes (VHOST_LOG_PAGE). */
#define PD_DIRTY_PAGE 4096u
/* No guest address. */
#define PD_DIRTY_NOWHERE UINT64_MAX

/* How a queue's writes are logged. */
struct pd_dirty {
	uint8_t *bits;                  /* of the first page; NULL: nothing is logged */
	uint64_t pages;                 /* as many bits */
	const struct pd_mem_table *mem; /* the guest's memory as it is mapped; borrowed */
	bool frames;                    /* what is written into buffers (VHOST_F_LOG_ALL) */
	/* What is written into the ring: where its used part is logged, or PD_DIRTY_NOWHERE */
	uint64_t used;
	/* Called after bits were set, or NULL: whoever reads the log wants to know. */
	void (*changed)(void *arg);
	void *arg;
};

/*
 * Log a queue's writes as `dirty` says, which is copied, or not at all (NULL). All of the ring is
 * noted, for what was written at its start. Control path; the lock of the lane's side held.
 */
void pd_dirty_set(struct pd_vq *vq, const struct pd_dirty *dirty);

/* True when the log has a bit for the `len` bytes at the guest address `gpa`. */
static inline bool pd_dirty_covers(const struct pd_dirty *dirty, uint64_t gpa, uint64_t len)
{
	uint64_t last = gpa + (len ? len - 1 : 0);

	return last >= gpa && last / PD_DIRTY_PAGE < dirty->pages;
}

/* The `len` bytes at `p`, in one region, were written. */
void pd_dirty_wrote(struct pd_vq *vq, const void *p, uint64_t len);

/* The entries that are staged were written. Before and after they are published. */
void pd_dirty_staged(struct pd_vq *vq);
void pd_dirty_published(struct pd_vq *vq);

/* A word that asks for notifications was written. */
void pd_dirty_asked(struct pd_vq *vq);

#endif /* PD_VIRTIO_DIRTY_H */
