/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Internet checksum (RFC 1071).
 *
 * A sum is kept in 64 bits, in the machine's byte order, and folded at the end: what is stored then
 * has the network's order on any machine (RFC 1071, section 2B).
 */
#ifndef PD_NET_CSUM_H
#define PD_NET_CSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Add `n` bytes at `data`, at any alignment, to `sum`. Of several pieces all but the last have an
 * even length.
 */
uint64_t pd_csum_add(uint64_t sum, const void *data, size_t n);

/* Fold a sum to 16 bits, not complemented. */
uint16_t pd_csum_fold(uint64_t sum);

#endif /* PD_NET_CSUM_H */
