/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A driver's ring for a device that a test plays by hand: between guard pages, in memory that may
 * hold anything outside the device's part.
 */
#ifndef TESTS_DRIVER_RIG_H
#define TESTS_DRIVER_RIG_H

#include "ring_util.h"

#define BUF 128u
#define GPA 0x4000000ULL

static uint8_t *area;
static uint64_t area_bytes;
static struct pd_vq vq;
static struct pd_vq_layout layout;

/* A ring of `n` descriptors, made anew. */
static inline void driver_start(uint32_t n, bool receive, uint32_t hdr, uint64_t features)
{
	if (area) {
		pd_vq_fini(&vq);
		guarded_unmap(area, area_bytes);
	}
	area_bytes = pd_vq_driver_area_bytes(n, BUF);
	area = guarded_map(area_bytes);
	layout = (struct pd_vq_layout){.size = n,
				       .hdr_bytes = hdr,
				       .features = features | 1ULL << VIRTIO_F_VERSION_1,
				       .buf_bytes = BUF,
				       .receive = receive};
	memset(area, 0xa5, area_bytes); /* the area may hold anything but in the device's part */
	pd_vq_driver_place(&layout, area, GPA);
	memset(layout.used, 0, pd_vq_used_bytes(n, pd_vq_is_packed(features)));
	assert_int_equal(pd_vq_init_driver(&vq, &layout), 0);
}

/* Show up to `n` frames, as pd_driver_rx. */
static inline int rx(struct pd_buffer **b, unsigned n)
{
	bool notify;

	return pd_driver_rx(&vq, vq.packed, vq.hdr_bytes == 48, &headers, 1, b, n, &notify);
}

#endif /* TESTS_DRIVER_RIG_H */
