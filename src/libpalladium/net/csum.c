/* SPDX-License-Identifier: BSD-2-Clause */
/* The Internet checksum: eight bytes at a time, the carry added back. */
#include "net/csum.h"

#include <string.h>

uint64_t pd_csum_add(uint64_t sum, const void *data, size_t n)
{
	const uint8_t *p = data;
	uint64_t word;

	for (; n >= sizeof(word); n -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum += word;
		sum += sum < word;
	}
	if (n) {
		word = 0; /* the rest as if zeroes followed it */
		memcpy(&word, p, n);
		sum += word;
		sum += sum < word;
	}
	return sum;
}

uint16_t pd_csum_fold(uint64_t sum)
{
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	return (uint16_t)((sum & UINT16_MAX) + (sum >> 16));
}
