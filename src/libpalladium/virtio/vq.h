/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtqueues: state, set-up and take-down of one ring, in either role.
 *
 * The device role (vhost-user back-end) consumes what the peer makes available: chains to read
 * frames from on one ring, chains to fill with frames on the other. The driver role (front-end)
 * owns an area of shared memory, which holds the rings and one buffer per descriptor, and makes its
 * buffers available. Rings only: no file descriptor and no socket; where a notification is due, the
 * functions say so and the caller gives it.
 *
 *   mem.h     where the peer's memory stands
 *   vq.h      this file: state, control path
 *   split.h   the split ring's format, inline: the only place that knows it
 *   device.h  the device's data path over it        (virtio 1.2, 2.7 and 5.1.6)
 *   driver.h  the driver's data path over it
 *
 * Whoever holds the lock of the lane's side owns the queue. Everything that the peer can write is
 * read once into private memory, checked, then used; whatever must be right for our own safety is
 * private: the peer's memory holds only copies. A peer that breaks the ring itself (an index that
 * jumps, a head that does not exist, a loop) sets `broken`; from then on the queue moves nothing.
 */
#ifndef PD_VIRTIO_VQ_H
#define PD_VIRTIO_VQ_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/virtio_ring.h>

#include "base/compiler.h"
#include "virtio/mem.h"

struct pd_buffer;

#define PD_VQ_SIZE_MIN 2
#define PD_VQ_SIZE_MAX 32768

/* Header lengths: legacy virtio-net, virtio-net with MRG_RXBUF or VERSION_1, the sidecar. */
#define PD_VQ_HDR_LEGACY 10
#define PD_VQ_HDR_NET 12
#define PD_VQ_HDR_SIDECAR 48

/* The smallest buffer of the driver role: a header stands in one piece. */
#define PD_VQ_DRIVER_BUF_MIN 64

/* Where a ring stands and what was agreed about it. */
struct pd_vq_layout {
	uint32_t size;      /* descriptors: a power of two, PD_VQ_SIZE_MIN to PD_VQ_SIZE_MAX */
	uint32_t hdr_bytes; /* one of PD_VQ_HDR_* */
	uint64_t features;  /* negotiated: VIRTIO_RING_F_*, VIRTIO_NET_F_MRG_RXBUF, VERSION_1 */
	void *desc;         /* our pointers; 16, 2 and 4 bytes aligned; */
	void *avail;        /* pd_vq_*_bytes() long, in one region each */
	void *used;
	uint16_t base; /* device: SET_VRING_BASE, used when used->idx cannot be trusted */
	/* Driver role only: */
	uint8_t *buffers;     /* our pointer to the first buffer */
	uint64_t buffers_gpa; /* its address in descriptors */
	uint32_t buf_bytes;   /* each buffer; a multiple of 64, at least PD_VQ_DRIVER_BUF_MIN */
	bool receive;         /* the ring is our receive ring: keep it filled */
};

/* Bytes of the three parts of a split ring, event words included. */
static inline uint64_t pd_vq_desc_bytes(uint32_t size)
{
	return 16 * (uint64_t)size;
}
static inline uint64_t pd_vq_avail_bytes(uint32_t size)
{
	return 6 + 2 * (uint64_t)size;
}
static inline uint64_t pd_vq_used_bytes(uint32_t size)
{
	return 6 + 8 * (uint64_t)size;
}

/* What happened on a queue since it was made; the lane publishes the differences. */
struct pd_vq_counts {
	uint64_t frames;         /* received (handed back) or sent (published), control included */
	uint64_t bytes;          /* frame bytes, without headers */
	uint64_t control;        /* of the frames: control frames */
	uint64_t batches;        /* publications of an index */
	uint64_t notified;       /* of them: the peer wanted a notification */
	uint64_t desc_errors;    /* chains refused: address, direction */
	uint64_t drop_malformed; /* frames dropped: shorter than their header, bad chain */
	uint64_t drop_too_long;  /* frames dropped or refused: longer than the largest, or than the
				  * peer's buffer */
	uint64_t hits;           /* times rx found frames */
	uint64_t misses;         /* times it found none */
	uint64_t ring_full;      /* times tx found no room */
};

/* One frame that the last rx showed. */
struct pd_vq_shown {
	uint32_t bytes; /* frame bytes */
	uint16_t end;   /* entries that it and those before it take */
	uint16_t control;
};

/* The most frames that one call moves, as PD_VECTOR_MAX of vlib/lane.h. */
#define PD_VQ_FRAMES_MAX 256
/* The most entries that one rx walks: the most buffer headers that it may be given. */
#define PD_VQ_WALK_MAX 512

/* Driver role: what we know of each descriptor of ours, in private memory. */
struct pd_vq_slot {
	uint32_t seq;  /* in which order heads were made available */
	uint16_t n;    /* head of a chain of `n` descriptors that the device holds; else 0 */
	uint16_t next; /* the chain's next descriptor */
	uint64_t tail; /* len, flags and next as last written to the descriptor */
};

struct pd_vq {
	/* Peer-visible memory. */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	const struct pd_mem_table *mem; /* device role; borrowed, swapped by the control side */
	uint32_t mask;                  /* size - 1 */
	uint32_t mem_hint;
	/* What was agreed. */
	uint16_t hdr_bytes;
	bool event_idx;
	bool indirect;
	bool mergeable;
	bool version_1;
	bool receive; /* driver role: see pd_vq_layout */
	bool armed;   /* no EVENT_IDX: our no-notification flag is clear */
	/* Indices, free-running modulo 2^16. */
	bool signalled_valid;
	uint16_t signalled; /* our index at the last test whether to notify */
	uint16_t peer_idx;  /* the peer's index as last loaded */
	uint16_t next;      /* next entry of the peer's to consume */
	uint16_t own_idx;   /* our index as last published */
	uint16_t staged;    /* entries written behind own_idx, not published yet */
	/*
	 * The lane's cursor: entries consumed, modulo 2^32, so that `next` is its low half; for a
	 * driver's transmit ring, descriptors taken.
	 */
	uint32_t cursor;
	/*
	 * How many entries (driver's transmit ring: free descriptors) it takes until anything can
	 * move: 1, or more while a frame waits for them. With fewer the side is not ready.
	 */
	uint32_t need;
	const char *broken; /* why the peer's ring cannot be used any more, or NULL */
	struct pd_vq_counts counts;
	/* What the last rx showed and has not been consumed. */
	uint16_t n_shown;          /* frames */
	uint16_t n_walked;         /* entries that they take */
	struct pd_vq_shown *shown; /* PD_VQ_FRAMES_MAX */
	uint16_t *walked;          /* heads of those entries, PD_VQ_WALK_MAX */
	uint8_t *bounce;           /* device: a frame in too many pieces is copied here */
	/* Driver role. */
	struct pd_vq_slot *slots;
	uint16_t *free;     /* transmit: circular, descriptors that nobody holds, oldest first */
	uint32_t free_tail; /* transmit: descriptors given back, plus the ring's size */
	uint32_t held;      /* chains made available and not consumed or taken back */
	uint32_t seq;
	uint8_t *buffers;
	uint64_t buffers_gpa;
	uint32_t buf_bytes;
};

/* 0 when a ring can be run so, else -EINVAL with the reason in *why: size, alignment, header. */
int pd_vq_layout_check(const struct pd_vq_layout *layout, const char **why);

/*
 * Take up a ring in the device role. `vq` is zeroed or finished memory. Control path; allocates.
 * Starts at used->idx, as everything is completed in order: a driver that reconnects gives a base
 * of 0 whatever the ring says (DPDK's virtio-user); layout->base serves where used->idx and
 * avail->idx disagree. Returns 0, -EINVAL or -ENOMEM.
 */
int pd_vq_init_device(struct pd_vq *vq, const struct pd_vq_layout *layout,
		      const struct pd_mem_table *mem);

/*
 * Take up a ring in the driver role, in memory that the layout names; everything in it is
 * initialised, and the receive ring filled (published; the first kick is the caller's business).
 * Control path; allocates. Returns 0, -EINVAL or -ENOMEM.
 */
int pd_vq_init_driver(struct pd_vq *vq, const struct pd_vq_layout *layout);

/*
 * Driver role, the device is gone and another will come: what it had published as used is kept,
 * whatever it had not is made available again in the first order, so that no frame that we took is
 * lost and none that was used is repeated. Returns the base for SET_VRING_BASE, or -ENETDOWN when
 * the ring was left broken (then start anew with pd_vq_init_driver).
 */
int pd_vq_resume_driver(struct pd_vq *vq);

/* Free what pd_vq_init_* allocated. The peer's memory is not touched. */
void pd_vq_fini(struct pd_vq *vq);

/* The value for GET_VRING_BASE. */
static inline uint16_t pd_vq_base(const struct pd_vq *vq)
{
	return vq->next;
}

/* Bytes of an area that pd_vq_driver_place divides. */
uint64_t pd_vq_driver_area_bytes(uint32_t size, uint32_t buf_bytes);

/*
 * Divide an area of pd_vq_driver_area_bytes at `area` (64-byte aligned, ours and zeroed or not;
 * `gpa` in descriptors) into rings and buffers: fills desc, avail, used and buffers* of the layout,
 * whose size and buf_bytes are set.
 */
void pd_vq_driver_place(struct pd_vq_layout *layout, uint8_t *area, uint64_t gpa);

/* Note why a ring is broken; the first reason stays. Always returns -ENETDOWN. */
int pd_vq_break(struct pd_vq *vq, const char *why) PD_COLD;

#endif /* PD_VIRTIO_VQ_H */
