/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the ring fuzzer's peers share: memory with nothing behind it, frames, a second writer.
 *
 *   rings.c       memory, frames, and the fuzzer
 *   device.c      a random driver under our device
 *   driver.c      a random device under our driver
 *
 * Each peer has both formats. What a peer writes is sensible mostly, else nothing behind the first
 * mistake would ever be reached.
 */
#ifndef PD_TESTS_FUZZ_RING_H
#define PD_TESTS_FUZZ_RING_H

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "fuzz.h"
#include "virtio/driver.h"
#include "vlib/buffer.h"
#include "vlib/lane.h"

#define FUZZ_HEADERS 512
#define FUZZ_STEPS 24

/* Shared memory: whole pages, between two that are not there. */
struct shared {
	uint8_t *p;
	size_t bytes;
};

void shared_map(struct shared *s, size_t bytes);
void shared_unmap(struct shared *s);

/* Buffer headers for a pd_*_rx. */
extern const struct pd_vq_headers fuzz_headers;

/* Frames that were shown: read them, and check that they stand in one of `n_shared`. */
void read_frames(struct pd_buffer **shown, int n, const struct shared *s, unsigned n_shared,
		 const struct pd_vq *vq);

/* Up to 128 frames to send, some of them too long or in pieces. */
#define FUZZ_FRAMES_MAX 128
unsigned make_frames(struct pd_buffer **out);

/* Add up what became of a ring. */
void tally(bool receive, const struct pd_vq *vq);

/* A second thread writes to the `n` pieces at `s` until race_stop, where that was asked for. Returns whether. */
bool race_start(const struct shared *s, unsigned n);
void race_stop(void);

/* One ring each, from its making to its end. */
void fuzz_device(bool packed);
void fuzz_driver(bool packed);

/* --- packed rings, as the specification has them (virtio 1.2, 2.8) ---------------------------- */

#define PACKED_AVAIL 0x80u
#define PACKED_USED 0x8000u

/* A place that goes round: slots so far. */
struct place {
	uint32_t at, size;
};

static inline uint32_t place_slot(struct place p)
{
	return p.at % p.size;
}

/* The first lap's wrap counter is 1. */
static inline bool place_wrap(struct place p)
{
	return !(p.at / p.size & 1);
}

/* The bits of a descriptor that is made available there, and of a used one. */
static inline uint16_t place_avail(struct place p)
{
	return place_wrap(p) ? PACKED_AVAIL : PACKED_USED;
}
static inline uint16_t place_used(struct place p)
{
	return place_wrap(p) ? PACKED_AVAIL | PACKED_USED : 0;
}

/* As SET_VRING_BASE and event structures have it. */
static inline uint16_t place_off_wrap(struct place p)
{
	return (uint16_t)(place_slot(p) | (uint32_t)place_wrap(p) << 15);
}

static inline struct place place_of(uint16_t off_wrap, uint32_t size)
{
	return (struct place){(off_wrap & 0x7fffu) + (off_wrap >> 15 ? 0 : size), size};
}

/* An event structure that means something, mostly. */
static inline uint32_t any_event(struct place p)
{
	p.at += rnd(p.size);
	if (one_in(50))
		return rnd(UINT32_MAX);
	return place_off_wrap(p) | rnd(3) << 16;
}

#endif /* PD_TESTS_FUZZ_RING_H */
