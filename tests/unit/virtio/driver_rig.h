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

/*
 * Carry on with another device, which has other memory: at the same addresses, but of the old one
 * there is only what was saved. As pd_vq_resume_driver.
 */
static inline int resume(uint32_t *base)
{
	uint64_t bytes = (uint64_t)layout.size * BUF;
	uint8_t *saved = calloc(1, bytes);
	int err = pd_vq_settle_driver(&vq);

	assert_non_null(saved);
	if (!err) {
		pd_vq_save_driver(&vq, saved);
		memset(area, 0, area_bytes);
		memcpy(layout.buffers, saved, bytes);
		err = pd_vq_resume_driver(&vq, base);
	}
	free(saved);
	return err;
}

/* Show up to `n` frames, as pd_driver_rx. */
static inline int rx(struct pd_buffer **b, unsigned n)
{
	bool notify;

	return pd_driver_rx(&vq, vq.packed, vq.hdr_bytes == 48, &headers, 1, b, n, &notify);
}

#endif /* TESTS_DRIVER_RIG_H */
