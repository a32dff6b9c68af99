/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copies of the data path. Most frames of an emulated port are short, and a call of memcpy with a
 * length that varies costs more than the copy: up to 128 bytes the moves stand inline, two
 * overlapping ones for what does not fill a power of two. Longer ones are memcpy's, which picks the
 * widest registers of the machine.
 */
#ifndef PD_VIRTIO_COPY_H
#define PD_VIRTIO_COPY_H

#include <stdint.h>
#include <string.h>
#include "base/compiler.h"

/* Copy `n` bytes; the ranges do not overlap. Reads and writes exactly [0, n). */
static PD_ALWAYS_INLINE void pd_copy(void *restrict dst, const void *restrict src, uint32_t n)
{
	uint8_t *d = dst;
	const uint8_t *s = src;

	if (pd_likely(n - 16 <= 112)) {
		/* 16 to 128: whole vectors from the front, one that ends with the last byte. */
		memcpy(d, s, 16);
		if (n > 32) {
			memcpy(d + 16, s + 16, 16);
			if (n > 64) {
				memcpy(d + 32, s + 32, 16);
				memcpy(d + 48, s + 48, 16);
				if (n > 96) {
					memcpy(d + 64, s + 64, 16);
					memcpy(d + 80, s + 80, 16);
				}
			}
			memcpy(d + n - 32, s + n - 32, 16);
		}
		memcpy(d + n - 16, s + n - 16, 16);
	} else if (n > 128) {
		memcpy(d, s, n);
	} else if (n >= 8) {
		memcpy(d, s, 8);
		memcpy(d + n - 8, s + n - 8, 8);
	} else if (n >= 4) {
		memcpy(d, s, 4);
		memcpy(d + n - 4, s + n - 4, 4);
	} else if (n) {
		d[0] = s[0];
		d[n / 2] = s[n / 2];
		d[n - 1] = s[n - 1];
	}
}

#endif /* PD_VIRTIO_COPY_H */
