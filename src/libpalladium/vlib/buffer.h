/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buffers: what the engine moves.
 *
 * A buffer is a header of two cache lines, known by a u32 index. Its frame bytes are either its own
 * (they follow the header in the pool) or external: a reference to a peer's descriptor or to the
 * caller's iovec, which lives only within one dispatch. A frame is a chain of one or more buffers
 * linked by `next`; its sidecar is copied into the first header when the frame is made, so no node
 * reads it from peer memory.
 *
 * All headers live in one reserved stretch of address space; the index is the header's distance
 * from its start in cache lines, so index to pointer is a shift and an add, whatever the pool.
 *
 * Ownership: the one who allocates, or who is handed a vector, frees. `refs` counts the holders of
 * a pool buffer that stands in several socket queues; the frame bytes are read-only then. Pools are
 * last-in first-out, so that the buffers in use stay in the cache.
 */
#ifndef PD_VLIB_BUFFER_H
#define PD_VLIB_BUFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "base/compiler.h"
#include "base/lock.h"

/* The smallest that is a frame: an Ethernet header. */
#define PD_FRAME_MIN_BYTES 14
/* The largest frame, without sidecar: MTU plus Ethernet header. */
#define PD_FRAME_MAX_BYTES 12240
/*
 * The largest that is to be cut into such: IPv6 with all that its length can say, Ethernet header
 * and two VLAN tags.
 */
#define PD_FRAME_LARGE_BYTES (65535 + 40 + 14 + 8)
/* The sidecar's size, as metadata/sidecar.h has it. */
#define PD_BUFFER_SIDECAR_BYTES 48
/* In front of the first byte of a frame that nodes may put headers in front of (vlib/chain.h). */
#define PD_BUFFER_HEADROOM 128
/* No such buffer. */
#define PD_BUFFER_NONE UINT32_MAX
/* In place of a port's index: the frame came in by none; the tools call it local0. */
#define PD_BUFFER_NO_PORT UINT16_MAX

enum pd_buffer_flag {
	PD_BUFFER_EXTERNAL = 1 << 0, /* data is not ours: valid within this dispatch only */
	PD_BUFFER_CONTROL = 1 << 1,  /* a sidecar with no frame behind it: total_len is 0 */
	PD_BUFFER_SIDECAR =
		1 << 2, /* the sidecar field holds one (else it is to be read as zeroes) */
	PD_BUFFER_OUTGOING = 1 << 3, /* a copy of a frame that this port sent */
	PD_BUFFER_TRACED = 1 << 4,   /* the tracer follows this frame */
	PD_BUFFER_VNET =
		1 << 5, /* vnet says what the frame still needs, or that it is known to be valid */
};

struct pd_buffer {
	/* First cache line: what every node reads. */
	uint8_t *data;      /* first byte of this segment */
	uint32_t len;       /* bytes in this segment */
	uint32_t total_len; /* bytes in the chain; valid in its first buffer */
	uint32_t next;      /* the chain's next buffer or PD_BUFFER_NONE */
	uint32_t index;     /* this buffer */
	uint32_t refs;      /* holders, for pool buffers */
	uint16_t flags;     /* enum pd_buffer_flag */
	uint16_t pool;      /* the pool it goes back to */
	uint16_t rx_port;   /* index of the port it came in by */
	uint16_t tx_port;   /* index of the port it leaves by */
	uint32_t trace;     /* the tracer's handle */
	uint8_t opaque[14]; /* belongs to the subgraph that is running */
	/* With PD_BUFFER_VNET: a struct virtio_net_hdr; in a chain's first buffer */
	uint8_t vnet[10];
	/* Second cache line. */
	uint8_t sidecar[PD_BUFFER_SIDECAR_BYTES] PD_CACHE_ALIGNED;
	uint8_t opaque2[16];
};
_Static_assert(sizeof(struct pd_buffer) == 2 * PD_CACHE_LINE, "a header is two cache lines");
_Static_assert(offsetof(struct pd_buffer, sidecar) == PD_CACHE_LINE,
	       "the sidecar starts the second");

/* A pool of equal buffers. */
struct pd_buffer_pool {
	struct pd_lock lock; /* rank PD_RANK_LEAF */
	uint16_t id;
	uint32_t data_bytes; /* own data of each buffer; 0 for headers of external buffers */
	uint32_t headroom;   /* bytes in front of them, which a fresh buffer has free */
	uint32_t count;      /* buffers in the pool */
	uint64_t start;      /* its memory, from pd_buffer_base */
	uint64_t bytes;
	uint64_t stride; /* from one buffer to the next */
	bool huge;       /* of reserved huge pages */
	uint32_t free_count;
	uint32_t *free; /* stack of free indices: the last freed is the next allocated */
	const char *name;
};

/* Where index 0 would stand; NULL: there is no stretch to hold pools */
extern uint8_t *pd_buffer_base;

/* Address space for pools, at least. */
#define PD_BUFFER_STRETCH_MIN_BYTES (64ull << 20)

/* The buffer of an index that the caller holds. */
static inline struct pd_buffer *pd_buffer_get(uint32_t index)
{
	return (struct pd_buffer *)(pd_buffer_base + ((uint64_t)index << 6));
}

/*
 * Make a pool of `count` buffers with `data_bytes` of own data each. Control path; allocates.
 * Returns the pool, or NULL with *err set to -errno (-ENOMEM, -ENOSPC when the reserved stretch is
 * full).
 */
struct pd_buffer_pool *pd_buffer_pool_create(const char *name, uint32_t count, uint32_t data_bytes,
					     int *err);

/* The same with `headroom` bytes in front of each buffer's data (vlib/chain.h). */
struct pd_buffer_pool *pd_buffer_pool_create_with(const char *name, uint32_t count,
						  uint32_t headroom, uint32_t data_bytes, int *err);

/* The pool of a buffer that the caller holds. Any thread. */
struct pd_buffer_pool *pd_buffer_pool_of(const struct pd_buffer *b);

/* Give a pool back; every one of its buffers must be free. */
void pd_buffer_pool_destroy(struct pd_buffer_pool *pool);

/* What a pool is and holds. */
struct pd_buffer_pool_state {
	const char *name;
	uint32_t data_bytes, count, free_count;
	uint64_t bytes; /* of its memory */
	bool huge;      /* of reserved huge pages */
};

/*
 * Call `fn` for every pool, by id. It must take no lock. Control path, any thread.
 */
void pd_buffer_pool_each(void (*fn)(const struct pd_buffer_pool_state *pool, void *arg), void *arg);

/* In a forked child: every buffer is free, whoever held it, and what they held is gone. */
void pd_buffer_pool_reset(struct pd_buffer_pool *pool);

/*
 * In a forked child, first of all that has buffers: pools of huge pages have memory again. Of one
 * whose buffers were all held they all are, with fresh headers; of another none may be used before
 * pd_buffer_pool_reset.
 */
void pd_buffer_pools_after_fork(void);

/*
 * Take up to `n` buffers: their indices go to `out`, headers reset (own data, one reference, no
 * flags). Returns how many were taken, possibly fewer than `n`. Data path, any thread.
 */
unsigned pd_buffer_alloc(struct pd_buffer_pool *pool, uint32_t *out, unsigned n);

/* Drop one reference of each chain that starts at the `n` indices; the last reference frees the
 * chain. */
void pd_buffer_free(const uint32_t *indices, unsigned n);

/* Take one more reference of the chain that starts at `b`. */
static inline void pd_buffer_ref(struct pd_buffer *b)
{
	pd_fetch_add(&b->refs, 1);
}

/* Copy up to `len` bytes of the chain at `b`, from byte `offset` on, to `out`; returns the bytes
 * copied. */
uint32_t pd_buffer_copy_out(const struct pd_buffer *b, uint32_t offset, void *out, uint32_t len);

/*
 * What a copy has of its frame besides the bytes: flags, trace, the port it came in by, the
 * sidecar, vnet.
 */
static inline void pd_buffer_copy_head(struct pd_buffer *b, const struct pd_buffer *src)
{
	b->total_len = src->total_len;
	b->flags = src->flags & (PD_BUFFER_CONTROL | PD_BUFFER_SIDECAR | PD_BUFFER_OUTGOING |
				 PD_BUFFER_TRACED | PD_BUFFER_VNET);
	b->trace = src->trace;
	b->rx_port = src->rx_port;
	if (src->flags & PD_BUFFER_SIDECAR)
		memcpy(b->sidecar, src->sidecar, sizeof(b->sidecar));
	if (pd_unlikely(src->flags & PD_BUFFER_VNET))
		memcpy(b->vnet, src->vnet, sizeof(b->vnet));
}

/*
 * A copy of the frame at `src` in buffers of `pool`, as many as it takes, with one reference. Data
 * path, any thread. Returns its first buffer; NULL when the pool has not enough, or the frame is
 * longer than PD_FRAME_LARGE_BYTES or takes more than PD_BUFFER_CHAIN_MAX of them.
 */
#define PD_BUFFER_CHAIN_MAX 64
struct pd_buffer *pd_buffer_copy(struct pd_buffer_pool *pool, const struct pd_buffer *src);

#endif /* PD_VLIB_BUFFER_H */
