/* SPDX-License-Identifier: BSD-2-Clause */
/* The device's guest memory and rings, written by hand. */
#include <pthread.h>

#include "device_rig.h"

uint8_t *mem_a, *mem_b, *mem_c;
struct pd_mem_table table;
struct pd_vq vq;
uint32_t ring_size;

uint8_t *at(uint64_t gpa)
{
	if (gpa >= A_GPA && gpa < A_GPA + REGION)
		return mem_a + (gpa - A_GPA);
	if (gpa >= B_GPA && gpa < B_GPA + REGION)
		return mem_b + (gpa - B_GPA);
	assert_true(gpa >= C_GPA && gpa < C_GPA + REGION);
	return mem_c + (gpa - C_GPA);
}

void guest_write(uint64_t gpa, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*at(gpa + i) = bytes[i];
}

/* 2.7.5: le64 addr, le32 len, le16 flags, le16 next. */
void put_desc(uint8_t *p, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put64(p, addr);
	put32(p + 8, len);
	put16(p + 12, flags);
	put16(p + 14, next);
}

void desc(unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put_desc(mem_a + DESC + 16 * i, addr, len, flags, next);
}

/* 2.7.6: le16 flags, le16 idx, le16 ring[size], le16 used_event. */
void avail(uint16_t entry, uint16_t head)
{
	put16(mem_a + AVAIL + 4 + 2 * (entry % ring_size), head);
}

void avail_idx(uint16_t idx)
{
	pd_store_release((uint16_t *)(void *)(mem_a + AVAIL + 2), idx);
}

/* 2.7.8: le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event. */
uint16_t used_idx(void)
{
	return get16(mem_a + USED + 2);
}

uint32_t used_id(uint16_t entry)
{
	return get32(mem_a + USED + 4 + 8 * (entry % ring_size));
}

uint32_t used_len(uint16_t entry)
{
	return get32(mem_a + USED + 8 + 8 * (entry % ring_size));
}

void start_at(uint32_t size, uint32_t hdr, uint64_t features, uint16_t idx)
{
	struct pd_vq_layout layout = {
		.size = size,
		.hdr_bytes = hdr,
		.features = features,
		.desc = mem_a + DESC,
		.avail = mem_a + AVAIL,
		.used = mem_a + USED,
		.base = idx,
	};

	pd_vq_fini(&vq);
	ring_size = size;
	memset(mem_a, 0, REGION);
	memset(mem_b, 0, REGION);
	memset(mem_c, 0, REGION);
	put16(mem_a + USED + 2, idx);
	avail_idx(idx);
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
}

void start(uint32_t size, uint32_t hdr, uint64_t features)
{
	start_at(size, hdr, features, 0);
}

int device_setup(void **state)
{
	mem_a = guarded_map(REGION);
	mem_b = guarded_map(REGION);
	mem_c = guarded_map(REGION);
	pd_mem_add(&table, &(struct pd_mem_region){C_GPA, REGION, 0x900000, mem_c});
	pd_mem_add(&table, &(struct pd_mem_region){A_GPA, REGION, 0x500000, mem_a});
	pd_mem_add(&table, &(struct pd_mem_region){B_GPA, REGION, 0x700000, mem_b});
	return headers_setup(state);
}

int rx(struct pd_buffer **bufs, unsigned n)
{
	bool notify;

	return pd_device_rx(&vq, vq.packed, vq.hdr_bytes == 48, &headers, 7, bufs, n, &notify);
}

int tx(struct pd_buffer **bufs, unsigned n)
{
	return pd_device_tx(&vq, vq.packed, vq.hdr_bytes == 48, bufs, n);
}

uint32_t wire_frame(uint8_t *out, uint32_t hdr, uint32_t seq, uint32_t len)
{
	for (uint32_t i = 0; i < hdr; i++)
		out[i] = hdr == 48 ? sidecar_byte(seq, i) : 0;
	for (uint32_t i = 0; i < len; i++)
		out[hdr + i] = frame_byte(seq, i);
	return hdr + len;
}

static void (*scribbler)(uint64_t *state);
static uint32_t stop_scribbling;
static pthread_t scribbles;

/* The thread's body. */
static void *scribble(void *arg)
{
	uint64_t x = 88172645463325252ULL;

	while (!pd_load_acquire(&stop_scribbling))
		scribbler(&x);
	return arg;
}

void scribble_start(void (*once)(uint64_t *state))
{
	scribbler = once;
	pd_store_release(&stop_scribbling, 0);
	assert_int_equal(pthread_create(&scribbles, NULL, scribble, NULL), 0);
}

void scribble_stop(void)
{
	pd_store_release(&stop_scribbling, 1);
	pthread_join(scribbles, NULL);
}
