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

/* Our end of a ring, as it is made for its role and format. */
struct ring_end {
	int (*rx)(struct pd_vq *vq, bool avip, struct pd_buffer **shown, unsigned n);
	bool (*rx_done)(struct pd_vq *vq, unsigned n);
	int (*tx)(struct pd_vq *vq, bool avip, struct pd_buffer **out, unsigned n);
	bool (*flush)(struct pd_vq *vq);
	uint32_t (*position)(struct pd_vq *vq);
	bool (*arm)(struct pd_vq *vq, uint32_t seen, uint32_t hold);
	void (*disarm)(struct pd_vq *vq);
};

/* One under the name `name`; `role`: device or driver. */
#define RING_END(name, role, packed)                                                            \
	static int name##_rx(struct pd_vq *vq, bool avip, struct pd_buffer **shown, unsigned n) \
	{                                                                                       \
		bool notify;                                                                    \
                                                                                                \
		return pd_##role##_rx(vq, packed, avip, &fuzz_headers, 0, shown, n, &notify);   \
	}                                                                                       \
	static bool name##_rx_done(struct pd_vq *vq, unsigned n)                                \
	{                                                                                       \
		return pd_##role##_rx_done(vq, packed, n);                                      \
	}                                                                                       \
	static int name##_tx(struct pd_vq *vq, bool avip, struct pd_buffer **out, unsigned n)   \
	{                                                                                       \
		return pd_##role##_tx(vq, packed, avip, out, n);                                \
	}                                                                                       \
	static bool name##_flush(struct pd_vq *vq)                                              \
	{                                                                                       \
		return pd_##role##_flush(vq, packed);                                           \
	}                                                                                       \
	static uint32_t name##_position(struct pd_vq *vq)                                       \
	{                                                                                       \
		return pd_##role##_position(vq, packed);                                        \
	}                                                                                       \
	static bool name##_arm(struct pd_vq *vq, uint32_t seen, uint32_t hold)                  \
	{                                                                                       \
		return pd_##role##_arm_held(vq, packed, seen, hold);                            \
	}                                                                                       \
	static void name##_disarm(struct pd_vq *vq)                                             \
	{                                                                                       \
		pd_##role##_disarm(vq, packed);                                                 \
	}                                                                                       \
	static const struct ring_end name = {name##_rx,    name##_rx_done,  name##_tx,          \
					     name##_flush, name##_position, name##_arm,         \
					     name##_disarm};

/* A ring that is fuzzed. */
#define RING_SHARED_MAX 4
struct ring {
	struct shared s[RING_SHARED_MAX];
	unsigned n_shared; /* where frames may stand; what follows is shared too */
	unsigned n_more;
	struct pd_vq_layout layout;
	struct pd_vq vq;
	bool packed, avip, receive;
	bool held; /* `hold` is drawn */
	/* What we send may be written over the ring, as available descriptors of the next lap. */
	bool on_ring;
	const struct ring_end *end;
	void (*peer)(struct ring *r);  /* the other end's turn */
	bool (*after)(struct ring *r); /* after each of ours; false: there is no going on */
	bool (*again)(struct ring *r); /* then, or NULL: our end may be made anew; false as above */
};

/*
 * The ring's life: the ends take turns, until it is broken or that was enough. Returns whether it
 * is sound.
 */
bool ring_run(struct ring *r);

/* One ring each, from its making to its end. Returns whether it is sound. */
bool fuzz_device(bool packed, bool tracked); /* tracked: with an in-flight region */
bool fuzz_driver(bool packed);

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
