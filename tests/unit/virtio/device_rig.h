/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the device's tests share: rings written by hand, byte by byte, from the text of virtio 1.2
 * (2.7.5 to 2.7.8, 5.1.6). Nothing here uses our driver or the kernel's structures, so a misreading
 * cannot stand on both sides.
 *
 * Guest memory: A at 0x10000 and B at 0x20000 are neighbours in guest addresses and apart in ours;
 * C at 0x100000 stands alone. Each lies between unmapped pages. Rings are in A.
 */
#ifndef TESTS_DEVICE_RIG_H
#define TESTS_DEVICE_RIG_H

#include "ring_util.h"

#define REGION 0x10000
#define A_GPA 0x10000ULL
#define B_GPA 0x20000ULL
#define C_GPA 0x100000ULL
/* The parts of the ring, as offsets in A; room for 256 descriptors. */
#define DESC 0x0000
#define AVAIL 0x1000
#define USED 0x1800
#define FREE 0x3000 /* of A, for data */

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

#define F_INDIRECT (1ULL << 28)
#define F_EVENT (1ULL << 29)
#define F_MRG (1ULL << 15)
#define F_V1 (1ULL << 32)

extern uint8_t *mem_a, *mem_b, *mem_c;
extern struct pd_mem_table table;
extern struct pd_vq vq;
extern uint32_t ring_size;

/* Make the memory and the headers; a group's set-up. */
int device_setup(void **state);

/* Zeroed memory and a device on a ring of `size` in it, begun at index `idx`, or at 0. */
void start_at(uint32_t size, uint32_t hdr, uint64_t features, uint16_t idx);
void start(uint32_t size, uint32_t hdr, uint64_t features);

/* Show up to `n` frames; send up to `n`. As pd_device_rx and pd_device_tx. */
int rx(struct pd_buffer **bufs, unsigned n);
int tx(struct pd_buffer **bufs, unsigned n);

/*
 * Another thread that calls `once` over and over, with a state for random numbers, until it is
 * stopped.
 */
void scribble_start(void (*once)(uint64_t *state));
void scribble_stop(void);

/* Our pointer to a guest address; the test's own translation. */
uint8_t *at(uint64_t gpa);
/* Bytes to guest memory, across A and B. */
void guest_write(uint64_t gpa, const uint8_t *bytes, size_t n);

/* 2.7.5, a descriptor at `p`, or the ring's descriptor `i`. */
void put_desc(uint8_t *p, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void desc(unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
/* 2.7.6, an entry of the available ring, and its index. */
void avail(uint16_t entry, uint16_t head);
void avail_idx(uint16_t idx);
/* 2.7.8, the used ring's index, and its entries. */
uint16_t used_idx(void);
uint32_t used_id(uint16_t entry);
uint32_t used_len(uint16_t entry);

/*
 * Header and frame `seq` of `len` bytes as the driver's program would write them; returns the sum.
 */
uint32_t wire_frame(uint8_t *out, uint32_t hdr, uint32_t seq, uint32_t len);

#endif /* TESTS_DEVICE_RIG_H */
