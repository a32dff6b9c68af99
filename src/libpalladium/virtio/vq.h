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
 *   chain.h   descriptors and chains in private memory
 *   split.h   the split ring's format, inline: the only place that knows it    (virtio 1.2, 2.7)
 *   packed.h  the packed ring's format, likewise                               (virtio 1.2, 2.8)
 *   ring.h    both behind one interface, chosen by a constant
 *   device.h  the device's data path over it                                   (virtio 1.2, 5.1.6)
 *   driver.h  the driver's data path over it
 *   watch.h   what a device does besides on queues that are watched: dirty.h notes what it writes,
 *             inflight.h what it holds
 *
 * Whoever holds the lock of the lane's side owns the queue. Everything that the peer can write is
 * read once into private memory, checked, then used; whatever must be right for our own safety is
 * private: the peer's memory holds only copies. A peer that breaks the ring itself (an index that
 * jumps, a head that does not exist, a loop) sets `broken`; from then on the queue moves nothing.
 *
 * What `cursor` and a position count: a device counts what the driver makes available, chains on a
 * split ring, descriptors of the ring on a packed one (see packed.h for why); a driver counts its
 * own buffers in both: those received in on its receive ring, those free to send on its transmit
 * ring.
 *
 * IN_ORDER. A device of ours completes in order whether that was agreed or not; with it, a burst of
 * frames that were read is given back by one used element, the last one's. A driver of ours takes
 * either, and holds a device that agreed to it to the order.
 */
#ifndef PD_VIRTIO_VQ_H
#define PD_VIRTIO_VQ_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "base/compiler.h"
#include "virtio/dirty.h"
#include "virtio/mem.h"

struct pd_buffer;
struct pd_inflight;
struct pd_progress_work;

/* Descriptors of a split ring, a power of two; a packed one may have any number from 1 on. */
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
	uint32_t size;      /* descriptors */
	uint32_t hdr_bytes; /* one of PD_VQ_HDR_* */
	uint64_t features; /* negotiated: VIRTIO_RING_F_*, VIRTIO_NET_F_MRG_RXBUF, VERSION_1, ... */
	uint8_t offloads; /* what may be left to the receiver of this ring's frames: enum pd_lane_offload */
	/*
	 * Our pointers, pd_vq_*_bytes() long and in one region each. Split: 16, 2 and 4 bytes
	 * aligned; packed: the ring and the event structures of driver and device, 16, 4 and 4.
	 */
	void *desc;
	void *avail;
	void *used;
	/*
	 * Device: SET_VRING_BASE. Split: the next avail entry, used when used->idx cannot be
	 * trusted. Packed: where to begin, as the specification has it: slot and wrap counter (bit
	 * 15) of the next available descriptor, in the upper half those of the next used one or 0.
	 */
	uint32_t base;
	/* device: keeps what is in flight (inflight.h), or NULL; taken over */
	struct pd_inflight *inflight;
	/* Driver role only: */
	uint8_t *buffers;     /* our pointer to the first buffer */
	uint64_t buffers_gpa; /* its address in descriptors */
	uint32_t buf_bytes;   /* each buffer; a multiple of 64, at least PD_VQ_DRIVER_BUF_MIN */
	bool receive;         /* the ring is our receive ring: keep it filled */
};

/* True when these features make a ring a packed one. */
static inline bool pd_vq_is_packed(uint64_t features)
{
	return features >> VIRTIO_F_RING_PACKED & 1;
}

/* Bytes of the three parts of a ring, event words included. */
static inline uint64_t pd_vq_desc_bytes(uint32_t size)
{
	return 16 * (uint64_t)size;
}
static inline uint64_t pd_vq_avail_bytes(uint32_t size, bool packed)
{
	return packed ? 4 : 6 + 2 * (uint64_t)size;
}
static inline uint64_t pd_vq_used_bytes(uint32_t size, bool packed)
{
	return packed ? 4 : 6 + 8 * (uint64_t)size;
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
	uint16_t end;   /* driver: entries that it and those before it take */
	uint16_t control;
};

/* The most frames that one call moves, as PD_VECTOR_MAX of vlib/lane.h. */
#define PD_VQ_FRAMES_MAX 256
/* The most buffer headers that one rx may be given. */
#define PD_VQ_WALK_MAX 512

/* A chain of the peer's, as it is handed back. */
struct pd_ring_chain {
	uint16_t id;    /* split: its head; packed: the buffer's id */
	uint16_t slots; /* packed: descriptors of the ring that it takes */
	uint32_t len;   /* bytes written into it */
};

/* A used element in private memory. */
struct pd_ring_used {
	uint32_t id;
	uint32_t len;
};

/* Packed: a slot, and the AVAIL and USED bits that what is expected or written there has in this
 * lap. */
struct pd_packed_place {
	uint32_t slot;
	uint16_t bits;
};

/* Driver role: what we know of each descriptor of ours, in private memory. */
struct pd_vq_slot {
	uint32_t seq;  /* in which order heads were made available */
	uint32_t n;    /* head of a chain of `n` buffers that the device holds; else 0 */
	uint64_t tail; /* len, flags and next of its descriptor */
};

/* Access to a peer's memory, as its translations allow it. */
#define PD_VQ_READ 1
#define PD_VQ_WRITE 2

/*
 * Device role, where addresses are translated (VIRTIO_F_ACCESS_PLATFORM): an address that has no
 * translation may get one. A chain that holds such an address stays in the ring, and when it stands
 * first, the side is not ready until the control side has changed that.
 */
struct pd_vq_miss {
	/* Posted when an address is noted; NULL: nothing is translated */
	struct pd_progress_work *work;
	uint64_t addr;
	uint8_t access; /* PD_VQ_READ, PD_VQ_WRITE or both */
	bool noted;     /* `addr` is to be asked for */
	bool asked;     /* and was */
	bool denied;    /* it has a translation that does not allow this: the chain is bad */
};

struct pd_vq {
	/* Peer-visible memory, split and packed. */
	union {
		struct vring_desc *desc;
		struct vring_packed_desc *packed_desc;
	};
	union {
		struct vring_avail *avail;
		struct vring_packed_desc_event *driver_event;
	};
	union {
		struct vring_used *used;
		struct vring_packed_desc_event *device_event;
	};
	/* Device role; borrowed, swapped by the control side. Buffers, and indirect tables: the same but where a
	 * translation may allow to read and not to write. */
	const struct pd_mem_table *mem, *mem_tables;
	uint32_t size;
	/* The power of two that holds size, - 1: for split rings and private fifos */
	uint32_t mask;
	uint32_t mem_hint;
	/* What was agreed. */
	uint16_t hdr_bytes;
	uint8_t offloads; /* see pd_vq_layout */
	bool packed;
	bool event_idx;
	bool indirect;
	bool mergeable;
	bool in_order;
	bool receive; /* driver role: see pd_vq_layout */
	bool armed;   /* the peer was asked to notify */
	bool watched; /* device role: see watch.h */
	bool signalled_valid;
	uint16_t staged; /* entries (packed: slots) written and not published yet */
	/* Split: indices, free-running modulo 2^16. */
	uint16_t signalled; /* our index at the last test whether to notify */
	uint16_t peer_idx;  /* the peer's index as last loaded */
	uint16_t next;      /* next entry of the peer's to consume */
	uint16_t own_idx;   /* our index as last published */
	/* Packed: where we read next, and where we write next, behind what is staged. */
	struct pd_packed_place theirs;
	struct pd_packed_place ours;
	uint64_t first;      /* the word that publishes what is staged */
	uint32_t first_slot; /* and where it goes */
	uint32_t published;  /* slots published since the last test whether to notify */
	/*
	 * The lane's cursor, modulo 2^32: what was consumed; for a driver's transmit ring, buffers
	 * taken. On a split device's ring `next` is its low half.
	 */
	uint32_t cursor;
	/* The position up to which the peer is known to have come: packed device's rings, and drivers'
	 * receive rings. Never behind cursor. */
	uint32_t seen;
	/*
	 * How many entries (driver's transmit ring: free buffers) it takes until anything can move:
	 * 1, or more while a frame waits for them. With fewer the side is not ready.
	 */
	uint32_t need;
	uint32_t frame_max; /* of what is received: PD_FRAME_MAX_BYTES, or PD_FRAME_LARGE_BYTES */
	/* Of a frame, how many bytes are fetched into the cache before they are read or written, and of
	 * the buffer that a driver's next frame comes to, before that is there. */
	uint32_t prefetch_bytes;
	uint32_t prefetch_early_bytes;
	const char *broken; /* why the peer's ring cannot be used any more, or NULL */
	struct pd_vq_counts counts;
	/* What the last rx showed and has not been consumed. */
	uint16_t n_shown;             /* frames */
	uint16_t n_walked;            /* driver: entries that they take */
	struct pd_vq_shown *shown;    /* PD_VQ_FRAMES_MAX */
	struct pd_ring_chain *chains; /* device: of frames shown, or of one that is being sent */
	uint8_t *bounce;              /* device: a frame in too many pieces is copied here */
	struct pd_dirty dirty;        /* device */
	struct pd_inflight *inflight; /* device, watched: see pd_vq_layout */
	struct pd_vq_miss miss;       /* device */
	/* Driver role. */
	struct pd_vq_slot *slots;
	struct pd_ring_used *done; /* receive: fifo at `cursor` to `seen`: buffers that were used */
	uint16_t *free; /* transmit: fifo at `cursor` to `free_tail`: buffers that nobody holds */
	uint32_t free_tail; /* transmit: buffers given back, plus the ring's size */
	uint32_t held;      /* transmit: chains made available and not taken back */
	uint32_t seq;       /* chains made available */
	uint32_t oldest;    /* IN_ORDER: the head of the chain that the device is to use next */
	uint8_t *buffers;
	uint64_t buffers_gpa;
	uint32_t buf_bytes;
};

/* 0 when a ring can be run so, else -EINVAL with the reason in *why: size, alignment, header. */
int pd_vq_layout_check(const struct pd_vq_layout *layout, const char **why);

/*
 * Take up a ring in the device role. `vq` is zeroed or finished memory. Control path; allocates. A
 * split ring starts at used->idx, as everything is completed in order: a driver that reconnects
 * gives a base of 0 whatever the ring says (DPDK's virtio-user); layout->base serves where
 * used->idx and avail->idx disagree. A packed ring says nowhere how far it is: it starts at
 * layout->base, at the used half where there is one. Returns 0, -EINVAL or -ENOMEM.
 */
int pd_vq_init_device(struct pd_vq *vq, const struct pd_vq_layout *layout,
		      const struct pd_mem_table *mem);

/*
 * Device role, just taken up: do a packed ring's descriptors contradict the base? A front-end does
 * not know the base when the device before us died without a word, and QEMU 7.2 then repeats what
 * it heard last. The place cannot be found again: a device that dies in a batch leaves used
 * descriptors behind one that it had not come to publish.
 */
bool pd_vq_is_misplaced(const struct pd_vq *vq);

/*
 * Take up a ring in the driver role, in memory that the layout names; everything in it is
 * initialised but the device's part (layout->used), which was zeroed before the device was told of
 * it and may be in use. The receive ring is filled (published; the first kick is the caller's
 * business). Control path; allocates. Returns 0, -EINVAL or -ENOMEM.
 */
int pd_vq_init_driver(struct pd_vq *vq, const struct pd_vq_layout *layout);

/*
 * Driver role, the device is gone: what it had published as used is ours. Looks at the memory that
 * it may still write to, for the last time. Returns 0, or -ENETDOWN when the ring was left broken
 * (then start anew with pd_vq_init_driver).
 */
int pd_vq_settle_driver(struct pd_vq *vq);

/*
 * Driver role, settled: copy what the buffers hold that is still needed, frames that the device had
 * not used and frames that were not received, to buffers at `to`, which lie there as ours do here.
 */
void pd_vq_save_driver(const struct pd_vq *vq, uint8_t *to);

/*
 * Driver role, settled: another device will come. What the old one had used is kept, whatever it
 * had not is made available again in the first order, so that no frame that we took is lost and
 * none that was used is repeated. All of the ring is written and nothing of it read: it may have
 * other memory behind it by now, all zero but for what pd_vq_save_driver saved. Returns 0 with the
 * base for SET_VRING_BASE, or -ENETDOWN when there is no memory.
 */
int pd_vq_resume_driver(struct pd_vq *vq, uint32_t *base);

/* Driver role: the base for SET_VRING_BASE of a ring that has not been used. */
static inline uint32_t pd_vq_first_base(bool packed)
{
	return packed ? 1u << 31 | 1u << 15 : 0;
}

/* Free what pd_vq_init_* allocated. The peer's memory is not touched. */
void pd_vq_fini(struct pd_vq *vq);

/* The value for GET_VRING_BASE. A packed ring's used half is the same as the other: what we have
 * not completed we have not taken. */
uint32_t pd_vq_base(const struct pd_vq *vq);

/* Bytes of an area that pd_vq_driver_place divides. */
uint64_t pd_vq_driver_area_bytes(uint32_t size, uint32_t buf_bytes);

/*
 * Divide an area of pd_vq_driver_area_bytes at `area` (64-byte aligned, ours and zeroed or not;
 * `gpa` in descriptors) into rings and buffers: fills desc, avail, used and buffers* of the layout,
 * whose size and buf_bytes are set.
 */
void pd_vq_driver_place(struct pd_vq_layout *layout, uint8_t *area, uint64_t gpa);

/*
 * The address `addr`, which was to be read or written (PD_VQ_*), is in no region. Returns -EFAULT,
 * or -EAGAIN when it was noted, since it may get a translation.
 */
int pd_vq_missed(struct pd_vq *vq, uint64_t addr, uint8_t access) PD_COLD;

/*
 * The chain that stands first waits for a translation: until pd_vq_answered nothing moves. Returns
 * 0.
 */
int pd_vq_stall(struct pd_vq *vq) PD_COLD;

/* The translations changed: what waited is tried again. */
static inline void pd_vq_answered(struct pd_vq *vq)
{
	vq->need = 1;
}

/* Note why a ring is broken; the first reason stays. Always returns -ENETDOWN. */
int pd_vq_break(struct pd_vq *vq, const char *why) PD_COLD;

#endif /* PD_VIRTIO_VQ_H */
