/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames that grow and shrink: what a node does with a frame that is its own.
 *
 *        headroom        bytes            tailroom
 *     |            |===============|................|       each buffer of the chain
 *     b+1          data            data+len         b+1 + the pool's headroom and data_bytes
 *
 * All of it changes buffers in place, so the caller is the only holder of the chain (refs 1; not of
 * what a lane shows). Of a buffer whose data stand elsewhere nothing is written to, and there is no
 * room beside it. What a frame no longer needs goes back to its pool at once. total_len and, with PD_BUFFER_VNET, what
 * stands at a distance from the first byte stay right.
 *
 * Data path, any thread.
 */
#ifndef PD_VLIB_CHAIN_H
#define PD_VLIB_CHAIN_H

#include "vlib/buffer.h"

/* Bytes that may come in front of this buffer's first. */
uint32_t pd_chain_headroom(const struct pd_buffer *b);

/* Bytes that may come behind this buffer's last. */
uint32_t pd_chain_tailroom(const struct pd_buffer *b);

/* Have `bytes` of headroom in a buffer with nothing in it. False: it is not that large. */
bool pd_chain_reserve(struct pd_buffer *b, uint32_t bytes);

/*
 * Have the frame begin `n` bytes earlier. Returns the new first byte; the new bytes have any value.
 * NULL: there is less headroom, or the frame would be longer than PD_FRAME_LARGE_BYTES.
 */
uint8_t *pd_chain_push(struct pd_buffer *b, uint32_t n);

/*
 * Take the first `n` bytes away. False, and nothing is done: the frame is not that long, or what it
 * needs done (vnet) begins within them.
 */
bool pd_chain_pull(struct pd_buffer *b, uint32_t n);

/* Have the frame end after `len` bytes. False: it is shorter, or needs what is behind (vnet). */
bool pd_chain_trim(struct pd_buffer *b, uint32_t len);

/*
 * Put `n` bytes behind the frame's last, in buffers of `pool` (NULL: of none) where there is no
 * tailroom. Returns 0; or -ENOBUFS, -EMSGSIZE (longer than PD_FRAME_LARGE_BYTES, or more than
 * PD_BUFFER_CHAIN_MAX buffers): then the frame is as before.
 */
int pd_chain_append(struct pd_buffer *b, struct pd_buffer_pool *pool, const void *bytes,
		    uint32_t n);

/*
 * Have the frame stand in as few of its buffers as it can: each is filled up from those behind it.
 * Those whose data stand elsewhere stay as they are. Returns how many were freed.
 */
unsigned pd_chain_coalesce(struct pd_buffer *b);

/*
 * Have the first `n` bytes stand side by side in the first buffer, whose headroom may go for that.
 * False, and nothing is done: the frame is not that long, or the buffer not that large.
 */
bool pd_chain_gather(struct pd_buffer *b, uint32_t n);

#endif /* PD_VLIB_CHAIN_H */
