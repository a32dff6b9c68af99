/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the ring tests share: memory between guard pages, frames whose bytes tell their number, and
 * a fixed source of random numbers. Any access outside the shared memory ends the test.
 */
#ifndef TESTS_RING_UTIL_H
#define TESTS_RING_UTIL_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "virtio/driver.h"
#include "vlib/buffer.h"

/* A number below `below`: the same sequence on every machine. */
uint32_t rnd(uint32_t below);

/* The length of a frame, at most `longest`, which is one. */
uint32_t rnd_frame(uint32_t longest);

/* Little-endian numbers at any address. */
static inline uint16_t get16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}
static inline uint32_t get32(const void *p)
{
	return get16(p) | (uint32_t)get16((const uint8_t *)p + 2) << 16;
}
static inline void put16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}
static inline void put32(void *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}
static inline void put64(void *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

/* `bytes` of zeroed shared memory with unmapped pages on both sides. */
uint8_t *guarded_map(size_t bytes);
void guarded_unmap(uint8_t *p, size_t bytes);

/* Headers for external buffers, and N_HEADERS more for frames to send. */
#define N_HEADERS 512
extern struct pd_buffer *header_bufs[2 * N_HEADERS];
extern const struct pd_vq_headers headers;

/* Make the headers; a group's set-up. */
int headers_setup(void **state);

/* Byte `i` of frame `seq`, and of its sidecar. */
static inline uint8_t frame_byte(uint32_t seq, uint32_t i)
{
	return (uint8_t)(seq * 167 + i * 13 + (i >> 8) + (seq >> 8));
}
static inline uint8_t sidecar_byte(uint32_t seq, uint32_t i)
{
	if (i == 2)
		return 0; /* generic_flags: a frame follows */
	return i < 2 ? 0 : (uint8_t)(seq * 59 + i * 7 + 1);
}

/* Make the sidecar of frame `seq` in `b`. */
void sidecar_make(struct pd_buffer *b, uint32_t seq);

/* Storage of one frame to send, cut into up to `pieces` buffers of our own. */
struct out_frame {
	struct pd_buffer *bufs[4];
	uint8_t bytes[PD_FRAME_MAX_BYTES + 16];
};

/* Make frame `seq` of `len` bytes in f; the first buffer is returned. */
struct pd_buffer *frame_make(struct out_frame *f, uint32_t seq, uint32_t len, unsigned pieces);

/*
 * Read the `n` frames that were shown, none of which is too long; the sum of some of their bytes.
 */
unsigned frames_read(struct pd_buffer *const *bufs, int n);

/* Compare what was received with frame `seq` of `len` bytes. */
void frame_check(const struct pd_buffer *b, uint32_t seq, uint32_t len, bool avip);

#endif /* TESTS_RING_UTIL_H */
