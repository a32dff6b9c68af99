/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the device against rings written by hand, byte by byte, from the text of virtio 1.2
 * (2.7.5 to 2.7.8, 5.1.6). Nothing here uses our driver or the kernel's structures, so a misreading
 * cannot stand on both sides.
 *
 * Guest memory: A at 0x10000 and B at 0x20000 are neighbours in guest addresses and apart in ours;
 * C at 0x100000 stands alone. Each lies between unmapped pages. Rings are in A.
 */
#include "ring_util.h"
#include <pthread.h>

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

static uint8_t *mem_a, *mem_b, *mem_c;
static struct pd_mem_table table;
static struct pd_vq vq;
static uint32_t ring_size;

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}
static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16(p + 2, (uint16_t)(v >> 16));
}
static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}
static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

/* Our pointer to a guest address; the test's own translation. */
static uint8_t *at(uint64_t gpa)
{
	if (gpa >= A_GPA && gpa < A_GPA + REGION)
		return mem_a + (gpa - A_GPA);
	if (gpa >= B_GPA && gpa < B_GPA + REGION)
		return mem_b + (gpa - B_GPA);
	assert_true(gpa >= C_GPA && gpa < C_GPA + REGION);
	return mem_c + (gpa - C_GPA);
}
/* Bytes to and from guest memory, across A and B. */
static void guest_write(uint64_t gpa, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*at(gpa + i) = bytes[i];
}

/* 2.7.5: le64 addr, le32 len, le16 flags, le16 next. */
static void put_desc(uint8_t *p, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put64(p, addr);
	put32(p + 8, len);
	put16(p + 12, flags);
	put16(p + 14, next);
}
static void desc(unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	put_desc(mem_a + DESC + 16 * i, addr, len, flags, next);
}
/* 2.7.6: le16 flags, le16 idx, le16 ring[size], le16 used_event. */
static void avail(uint16_t entry, uint16_t head)
{
	put16(mem_a + AVAIL + 4 + 2 * (entry % ring_size), head);
}
static void avail_idx(uint16_t idx)
{
	pd_store_release((uint16_t *)(void *)(mem_a + AVAIL + 2), idx);
}
/* 2.7.8: le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event. */
static uint16_t used_idx(void)
{
	return get16(mem_a + USED + 2);
}
static uint32_t used_id(uint16_t entry)
{
	return get32(mem_a + USED + 4 + 8 * (entry % ring_size));
}
static uint32_t used_len(uint16_t entry)
{
	return get32(mem_a + USED + 8 + 8 * (entry % ring_size));
}

/* Zeroed memory and a device on a ring of `size` in it. */
static void start_at(uint32_t size, uint32_t hdr, uint64_t features, uint16_t idx)
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
static void start(uint32_t size, uint32_t hdr, uint64_t features)
{
	start_at(size, hdr, features, 0);
}

#define F_INDIRECT (1ULL << 28)
#define F_EVENT (1ULL << 29)
#define F_MRG (1ULL << 15)
#define F_V1 (1ULL << 32)

static int setup(void **state)
{
	mem_a = guarded_map(REGION);
	mem_b = guarded_map(REGION);
	mem_c = guarded_map(REGION);
	pd_mem_add(&table, &(struct pd_mem_region){C_GPA, REGION, 0x900000, mem_c});
	pd_mem_add(&table, &(struct pd_mem_region){A_GPA, REGION, 0x500000, mem_a});
	pd_mem_add(&table, &(struct pd_mem_region){B_GPA, REGION, 0x700000, mem_b});
	return headers_setup(state);
}

static int rx(struct pd_buffer **bufs, unsigned n)
{
	bool notify;

	return pd_device_rx(&vq, vq.hdr_bytes == 48, &headers, 7, bufs, n, &notify);
}
static int tx(struct pd_buffer **bufs, unsigned n)
{
	return pd_device_tx(&vq, vq.hdr_bytes == 48, bufs, n);
}

/* --- the memory table ------------------------------------------------------------------------ */

static void test_mem_table(void **state)
{
	static struct pd_mem_table t;
	uint8_t *host = mem_a;
	uint32_t hint = 0;
	uint64_t run;

#define ADD(gpa, size, uva) pd_mem_add(&t, &(struct pd_mem_region){gpa, size, uva, host})
	assert_int_equal(ADD(0x1000, 0, 0), -EINVAL);
	assert_int_equal(ADD(UINT64_MAX - 4, 16, 0), -EINVAL);
	assert_int_equal(ADD(0, 16, UINT64_MAX - 4), -EINVAL);
	assert_int_equal(ADD(0x3000, 0x1000, 0x13000), 0);
	assert_int_equal(ADD(0x1000, 0x1000, 0x11000), 0);
	assert_int_equal(ADD(0x1fff, 2, 0x20000), -EEXIST);
	assert_int_equal(ADD(0x2fff, 2, 0x20000), -EEXIST);
	assert_int_equal(ADD(0x9000, 2, 0x13fff), -EEXIST);
	assert_int_equal(ADD(UINT64_MAX - 15, 16, 0x40000), 0);
#undef ADD
	assert_int_equal(t.n, 3);
	assert_ptr_equal(pd_mem_translate(&t, &hint, 0x1000, 0x1000), host);
	assert_null(pd_mem_translate(&t, &hint, 0x1000, 0x1001));
	assert_null(pd_mem_translate(&t, &hint, 0x1001, UINT64_MAX));
	assert_null(pd_mem_translate(&t, &hint, 0x0fff, 1));
	assert_null(pd_mem_translate(&t, &hint, 0x2000, 1));
	assert_ptr_equal(pd_mem_translate(&t, &hint, 0x3fff, 1), host + 0xfff);
	assert_ptr_equal(pd_mem_at(&t, &hint, UINT64_MAX, &run), host + 15);
	assert_int_equal(run, 1);
	assert_null(pd_mem_at(&t, &hint, 0, &run));
	assert_ptr_equal(pd_mem_translate_user(&t, 0x13ff0, 16), host + 0xff0);
	assert_null(pd_mem_translate_user(&t, 0x13ff0, 17));
	assert_null(pd_mem_translate_user(&t, 0x12000, 1));
	assert_int_equal(pd_mem_del(&t, 0x3000, 0x13000, 0x2000, NULL), -ENOENT);
	assert_int_equal(pd_mem_del(&t, 0x3000, 0x13000, 0x1000, NULL), 0);
	assert_null(pd_mem_translate(&t, &hint, 0x3000, 1));
	assert_int_equal(t.n, 2);
	while (t.n < PD_MEM_REGIONS_MAX)
		assert_int_equal(
			pd_mem_add(&t, &(struct pd_mem_region){0x10000 + 0x10ULL * t.n, 16,
							       0x90000 + 0x10ULL * t.n, host}),
			0);
	assert_int_equal(pd_mem_add(&t, &(struct pd_mem_region){0x99000, 16, 0x99000, host}),
			 -ENOSPC);
	assert_ptr_equal(pd_mem_translate(&t, &hint, 0x10000 + 0x10 * 400 + 3, 13), host + 3);
}

/* --- receive --------------------------------------------------------------------------------- */

/* Header and frame `seq` of `len` bytes as the driver's program would write them. */
static uint32_t wire_frame(uint8_t *out, uint32_t hdr, uint32_t seq, uint32_t len)
{
	for (uint32_t i = 0; i < hdr; i++)
		out[i] = hdr == 48 ? sidecar_byte(seq, i) : 0;
	for (uint32_t i = 0; i < len; i++)
		out[hdr + i] = frame_byte(seq, i);
	return hdr + len;
}

static void test_rx_one_frame_byte_for_byte(void **state)
{
	static const uint32_t hdrs[] = {10, 12, 48};
	uint8_t wire[200];
	struct pd_buffer *b[4];

	for (unsigned h = 0; h < 3; h++) {
		uint32_t n = wire_frame(wire, hdrs[h], 5, 60);
		uint8_t before[6], *used = mem_a + USED;

		start(8, hdrs[h], F_V1);
		guest_write(C_GPA + 100, wire, n);
		desc(3, C_GPA + 100, n, 0, 0);
		avail(0, 3);
		assert_int_equal(rx(b, 4), 0); /* not published yet */
		avail_idx(1);
		assert_int_equal(pd_device_position(&vq), 1);
		assert_int_equal(rx(b, 4), 1);
		frame_check(b[0], 5, 60, hdrs[h] == 48);
		assert_ptr_equal(b[0]->data, mem_c + 100 + hdrs[h]); /* not copied */
		/* Nothing is consumed by being shown. */
		memset(before, 0, sizeof(before));
		assert_memory_equal(used, before, 6);
		assert_int_equal(rx(b, 4), 1);
		assert_true(pd_device_rx_done(&vq, 1)); /* avail.flags is 0: notify */
		assert_memory_equal(used,
				    "\0\0"      /* flags */
				    "\1\0"      /* idx */
				    "\3\0\0\0"  /* id */
				    "\0\0\0\0", /* len: nothing was written */
				    12);
		assert_int_equal(vq.cursor, 1);
		assert_int_equal(pd_vq_base(&vq), 1);
		assert_int_equal(vq.counts.bytes, 60);
	}
}

/* Cut `n` bytes into up to `most` descriptors' lengths, some of them zero. Returns how many. */
static unsigned cut(uint32_t n, unsigned most, uint32_t *lens)
{
	unsigned k = 0;

	while (n && k + 1 < most) {
		uint32_t part = rnd(4) ? rnd(n + 1) : rnd(pd_min(n + 1, 60u));

		lens[k++] = part;
		n -= part;
	}
	lens[k++] = n;
	return k;
}

/*
 * Put the bytes `wire` into guest memory, from `data` on, cut at random, and the descriptors for
 * it: plain from descriptor 0 on, in an indirect table, or the one followed by the other. Returns
 * the number of descriptors.
 */
static unsigned put_chain(const uint8_t *wire, uint32_t n, uint64_t data, unsigned shape,
			  unsigned most, uint16_t write)
{
	/* The table straddles A and B, at an odd address when shape is 2. */
	uint64_t ind = B_GPA - 16 * 3 - (shape == 2 ? 5 : 0);
	uint32_t lens[64];
	unsigned k = cut(n, most, lens), plain = shape ? rnd(shape == 3 ? k : 1) : k;
	uint64_t gpa = data;

	for (unsigned i = 0; i < k; i++) {
		uint16_t flags = write | (i + 1 < k ? NEXT : 0);
		uint8_t d[16];

		if (wire) {
			guest_write(gpa, wire, lens[i]);
			wire += lens[i];
		}
		/* An address of nothing may be anything. */
		put_desc(d, lens[i] ? gpa : 0xdead0000, lens[i], flags,
			 (uint16_t)(i < plain ? i + 1 : i - plain + 1));
		guest_write(i < plain ? A_GPA + DESC + 16 * i : ind + 16 * (i - plain), d, 16);
		gpa += lens[i] + rnd(3);
	}
	if (plain < k)
		desc(plain, ind, 16 * (k - plain), INDIRECT, 0xffff);
	return k;
}

static void test_rx_any_chain_shape(void **state)
{
	static uint8_t wire[PD_FRAME_MAX_BYTES + 48];
	static const uint32_t hdrs[] = {10, 12, 48};

	for (unsigned round = 0; round < 6000; round++) {
		uint32_t hdr = hdrs[round % 3], len = rnd(8) ? 1 + rnd(400) : 1 + rnd(12240);
		/* Sometimes across the seam of B's end (nothing behind it) or A|B. */
		uint64_t data = rnd(2) ? A_GPA + FREE : C_GPA + rnd(1000);
		uint32_t n = wire_frame(wire, hdr, round, len);
		struct pd_buffer *b[2];

		if (rnd(3) == 0)
			data = B_GPA + REGION - n - 200;
		start(64, hdr, F_V1 | F_INDIRECT);
		put_chain(wire, n, data, rnd(4), rnd(2) ? 4 : 60, 0);
		avail(0, 0);
		avail_idx(1);
		assert_int_equal(rx(b, 2), 1);
		frame_check(b[0], round, len, hdr == 48);
		pd_device_rx_done(&vq, 1);
		assert_int_equal(used_idx(), 1);
		assert_int_equal(used_len(0), 0);
		assert_null(vq.broken);
	}
}

static void test_rx_descriptor_across_regions(void **state)
{
	uint8_t wire[400];
	struct pd_buffer *b[2];

	for (uint32_t off = 0; off <= 160; off++) {
		uint32_t n = wire_frame(wire, 48, off, 112);

		start(8, 48, F_V1);
		guest_write(B_GPA - off, wire, n);
		desc(0, B_GPA - off, n, 0, 0);
		avail(0, 0);
		avail_idx(1);
		assert_int_equal(rx(b, 2), 1);
		frame_check(b[0], off, 112, true);
	}
}

static void test_rx_control_frames(void **state)
{
	uint8_t wire[200];
	struct pd_buffer *b[8];

	start(8, 48, F_V1);
	/* A header alone, whatever its flags say; padded; split into single bytes (2.7.4: any
	 * framing). */
	wire_frame(wire, 48, 1, 0);
	guest_write(C_GPA, wire, 48);
	desc(0, C_GPA, 48, 0, 0);
	wire[2] = 1;
	guest_write(C_GPA + 64, wire, 48);
	desc(1, C_GPA + 64, 49, 0, 0);
	desc(2, C_GPA + 64, 20, NEXT, 3);
	desc(3, C_GPA + 84, 0, NEXT, 4);
	desc(4, C_GPA + 84, 28, 0, 0);
	avail(0, 0);
	avail(1, 1);
	avail(2, 2);
	avail_idx(3);
	assert_int_equal(rx(b, 8), 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(b[i]->total_len, 0);
		assert_int_equal(b[i]->len, 0);
		assert_int_equal(b[i]->flags,
				 PD_BUFFER_EXTERNAL | PD_BUFFER_CONTROL | PD_BUFFER_SIDECAR);
		assert_int_equal(b[i]->sidecar[2], i ? 1 : 0);
		assert_int_equal(b[i]->sidecar[47], sidecar_byte(1, 47));
	}
	pd_device_rx_done(&vq, 3);
	assert_int_equal(vq.counts.control, 3);
	assert_int_equal(used_idx(), 3);
}

/* Bad chains among good ones: dropped, counted, handed back in order. */
static void test_rx_drops_what_is_no_frame(void **state)
{
	uint8_t wire[200];
	struct pd_buffer *b[8];
	uint32_t n = wire_frame(wire, 48, 9, 70);

	start(16, 48, F_V1);
	guest_write(C_GPA, wire, n);
	desc(0, C_GPA, 47, 0, 0);              /* shorter than the header */
	desc(1, C_GPA, n, 0, 0);               /* good */
	desc(2, C_GPA, n, WRITE, 0);           /* wrong direction */
	desc(3, C_GPA, 48 + 12241, 0, 0);      /* too long */
	desc(4, 0x5000, n, 0, 0);              /* no memory there */
	desc(5, C_GPA + REGION - 8, 60, 0, 0); /* runs out of its region */
	desc(6, UINT64_MAX - 50, n, 0, 0);     /* wraps */
	desc(7, C_GPA, 48, NEXT, 8);           /* second part is bad */
	desc(8, C_GPA, 60, WRITE, 0);
	desc(9, C_GPA, UINT32_MAX, NEXT, 10); /* a sum over 2^32 */
	desc(10, C_GPA, UINT32_MAX, 0, 0);
	desc(11, 0, 0, 0, 0); /* nothing at all */
	avail(0, 0);
	avail(1, 1);
	for (unsigned i = 2; i < 8; i++)
		avail((uint16_t)i, (uint16_t)i);
	avail(8, 9);
	avail(9, 11);
	avail(10, 1);
	avail_idx(11);
	/* The first is dropped at once; those behind a frame wait until they stand first. */
	assert_int_equal(rx(b, 8), 1);
	frame_check(b[0], 9, 70, true);
	assert_int_equal(used_idx(), 1);
	assert_int_equal(vq.cursor, 1);
	pd_device_rx_done(&vq, 1);
	assert_int_equal(used_idx(), 2);
	assert_int_equal(rx(b, 8), 1);
	frame_check(b[0], 9, 70, true);
	assert_int_equal(used_idx(), 10);
	pd_device_rx_done(&vq, 1);
	assert_int_equal(used_idx(), 11);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(used_id((uint16_t)i), i);
	assert_int_equal(used_id(8), 9);
	assert_int_equal(vq.counts.drop_too_long, 2);
	assert_int_equal(vq.counts.drop_malformed, 7);
	assert_int_equal(vq.counts.desc_errors, 5);
	assert_int_equal(vq.counts.frames, 2);
	/* Without a sidecar a header alone is nothing. */
	start(16, 12, F_V1);
	desc(0, C_GPA, 12, 0, 0);
	desc(1, C_GPA, 12, NEXT, 2);
	desc(2, C_GPA, 0, 0, 0);
	avail(0, 0);
	avail(1, 1);
	avail_idx(2);
	assert_int_equal(rx(b, 8), 0);
	assert_int_equal(used_idx(), 2);
	assert_int_equal(vq.counts.drop_malformed, 2);
}

/* Many frames in many pieces at once: each is shown whole, in as many calls as it takes. */
static void test_rx_long_chains(void **state)
{
	uint8_t wire[400];
	struct pd_buffer *b[256];
	unsigned got = 0, calls = 0;

	start(256, 48, F_V1 | F_INDIRECT);
	/* Frame i: an indirect table of 48 + 100 single bytes. */
	for (unsigned i = 0; i < 16; i++) {
		uint64_t ind = C_GPA + 0x1000 * i;
		uint32_t n = wire_frame(wire, 48, i, 100);

		guest_write(A_GPA + FREE + 256 * i, wire, n);
		for (unsigned k = 0; k < n; k++) {
			uint8_t d[16];

			put_desc(d, A_GPA + FREE + 256 * i + k, 1, k + 1 < n ? NEXT : 0,
				 (uint16_t)(k + 1));
			guest_write(ind + 16 * k, d, 16);
		}
		desc(i, ind, 16 * n, INDIRECT, 0);
		avail((uint16_t)i, (uint16_t)i);
	}
	avail_idx(16);
	while (got < 16) {
		int n = rx(b, 256);

		assert_true(n > 0);
		for (int i = 0; i < n; i++)
			frame_check(b[i], got + (unsigned)i, 100, true);
		pd_device_rx_done(&vq, (unsigned)n);
		got += (unsigned)n;
		calls++;
	}
	assert_int_equal(calls, 16); /* one bounce buffer: a frame each */
	/* Frames of 20 pieces: as many at once as there are headers. */
	start(256, 48, F_V1 | F_INDIRECT);
	for (unsigned i = 0; i < 48; i++) {
		uint64_t ind = C_GPA + 0x200 * i;
		uint32_t n = wire_frame(wire, 48, i, 20);

		guest_write(A_GPA + FREE + 128 * i, wire, n);
		for (unsigned k = 0; k < 20; k++) {
			uint8_t d[16];

			put_desc(d, A_GPA + FREE + 128 * i + (k ? 48 + k : 0), k ? 1 : 49,
				 k < 19 ? NEXT : 0, (uint16_t)(k + 1));
			guest_write(ind + 16 * k, d, 16);
		}
		desc(i, ind, 16 * 20, INDIRECT, 0);
		avail((uint16_t)i, (uint16_t)i);
	}
	avail_idx(48);
	assert_int_equal(rx(b, 256), 25); /* 25 x 20 headers of 512 */
	for (unsigned i = 0; i < 25; i++)
		frame_check(b[i], i, 20, true);
	pd_device_rx_done(&vq, 25);
	assert_int_equal(rx(b, 256), 23);
	frame_check(b[22], 47, 20, true);
}

/* What breaks the ring itself. */
enum breakage {
	JUMP,
	HEAD,
	NEXT_RANGE,
	LOOP,
	LOOP_OF_NOTHING,
	INDIRECT_NEXT,
	INDIRECT_NESTED,
	INDIRECT_ODD,
	INDIRECT_NONE,
	INDIRECT_NEXT_RANGE,
	INDIRECT_LOOP,
	INDIRECT_UNASKED,
	BREAKAGES
};

static void put_breakage(enum breakage what, uint16_t write)
{
	uint8_t d[16];

	avail(0, 0);
	avail_idx(1);
	switch (what) {
	case JUMP:
		avail_idx(17);
		break;
	case HEAD:
		avail(0, 16);
		break;
	case NEXT_RANGE:
		desc(0, C_GPA, 10, NEXT | write, 16);
		break;
	case LOOP:
		desc(0, C_GPA, 1, NEXT | write, 1);
		desc(1, C_GPA, 1, NEXT | write, 0);
		break;
	case LOOP_OF_NOTHING:
		desc(0, C_GPA, 0, NEXT | write, 0);
		break;
	case INDIRECT_NEXT:
		desc(0, C_GPA, 32, INDIRECT | NEXT, 1);
		break;
	case INDIRECT_NESTED:
		put_desc(d, C_GPA, 16, INDIRECT, 0);
		guest_write(C_GPA, d, 16);
		desc(0, C_GPA, 16, INDIRECT, 0);
		break;
	case INDIRECT_ODD:
		desc(0, C_GPA, 33, INDIRECT, 0);
		break;
	case INDIRECT_NONE:
		desc(0, C_GPA, 0, INDIRECT, 0);
		break;
	case INDIRECT_NEXT_RANGE:
		put_desc(d, C_GPA, 2, NEXT | write, 2);
		guest_write(C_GPA, d, 16);
		desc(0, C_GPA, 32, INDIRECT, 0);
		break;
	case INDIRECT_LOOP:
		put_desc(d, C_GPA, 0, NEXT | write, 0);
		guest_write(C_GPA, d, 16);
		desc(0, C_GPA, 32, INDIRECT, 0);
		break;
	case INDIRECT_UNASKED:
		put_desc(d, C_GPA, 100, write, 0);
		guest_write(C_GPA, d, 16);
		desc(0, C_GPA, 16, INDIRECT, 0);
		break;
	default:
		fail();
	}
}

static void test_broken_rings(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[4], *out;

	f.bufs[0] = header_bufs[N_HEADERS];
	for (unsigned way = 0; way < 2; way++)
		for (enum breakage what = 0; what < BREAKAGES; what++) {
			const char *first;

			start(16, 48, F_V1 | F_MRG | (what == INDIRECT_UNASKED ? 0 : F_INDIRECT));
			put_breakage(what, way ? WRITE : 0);
			out = frame_make(&f, 1, 100, 1);
			assert_int_equal(way ? tx(&out, 1) : rx(b, 4), -ENETDOWN);
			assert_non_null(vq.broken);
			assert_int_equal(used_idx(), 0);
			/* It stays so, is never ready, and the first reason stays. */
			first = vq.broken;
			avail_idx(0);
			assert_int_equal(way ? tx(&out, 1) : rx(b, 4), -ENETDOWN);
			assert_int_equal(pd_device_position(&vq), vq.cursor);
			assert_false(pd_device_arm(&vq, vq.cursor));
			assert_ptr_equal(vq.broken, first);
		}
	/* Asking for the position finds a jump too. */
	start(16, 48, F_V1);
	avail_idx(17);
	assert_int_equal(pd_device_position(&vq), 0);
	assert_non_null(vq.broken);
	/* A frame to show, then a broken chain: the frame is not shown either. */
	start(16, 48, F_V1);
	desc(0, C_GPA, 100, 0, 0);
	desc(1, C_GPA, 0, NEXT, 1);
	avail(1, 1);
	avail_idx(2);
	assert_int_equal(rx(b, 4), -ENETDOWN);
	assert_int_equal(used_idx(), 0);
}

/* What a receive ring must hold: room that can be written. */
static void test_tx_bad_room(void **state)
{
	static struct out_frame f;
	struct pd_buffer *out;
	static const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
	} bad[] = {
		{C_GPA, 2000, 0},                   /* not for writing */
		{0x1000, 2000, WRITE},              /* no memory */
		{C_GPA + REGION - 20, 2000, WRITE}, /* runs out of it */
		{UINT64_MAX - 20, 2000, WRITE},     /* wraps */
		{C_GPA, 0, WRITE},                  /* no room */
	};

	f.bufs[0] = header_bufs[N_HEADERS];
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		out = frame_make(&f, 1, 100, 1);
		start(4, 48, F_V1 | F_MRG);
		desc(0, bad[i].addr, bad[i].len, bad[i].flags, 0);
		avail_idx(1);
		assert_int_equal(tx(&out, 1), -ENETDOWN);
		assert_non_null(vq.broken);
		assert_false(pd_device_flush(&vq));
		assert_int_equal(used_idx(), 0);
	}
}

/* --- transmit -------------------------------------------------------------------------------- */

static void test_tx_byte_for_byte(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b;
	uint8_t want[300];

	f.bufs[0] = header_bufs[N_HEADERS];
	f.bufs[1] = header_bufs[N_HEADERS + 1];
	/* The sidecar, mergeable: 48 + 100 bytes over buffers of 100 and 100. */
	start(4, 48, F_V1 | F_MRG);
	desc(2, C_GPA, 100, WRITE, 0);
	desc(1, C_GPA + 200, 100, WRITE, 0);
	avail(0, 2);
	avail(1, 1);
	avail_idx(2);
	b = frame_make(&f, 3, 100, 2);
	assert_int_equal(tx(&b, 1), 1);
	assert_int_equal(used_idx(), 0); /* nothing before the flush */
	assert_true(pd_device_flush(&vq));
	assert_memory_equal(mem_a + USED,
			    "\0\0\2\0"            /* flags, idx */
			    "\2\0\0\0\x64\0\0\0"  /* 2: 100 bytes */
			    "\1\0\0\0\x30\0\0\0", /* 1: 48 bytes */
			    20);
	wire_frame(want, 48, 3, 100);
	want[0] = 2; /* num_buffers at 0 */
	want[1] = 0;
	assert_memory_equal(mem_c, want, 100);
	assert_memory_equal(mem_c + 200, want + 100, 48);
	assert_int_equal(mem_c[100], 0);
	assert_int_equal(mem_c[248], 0);
	/* virtio-net header of 12, mergeable: num_buffers at 10. */
	start(4, 12, F_V1 | F_MRG);
	desc(0, C_GPA, 11, WRITE, 0); /* splits the field */
	desc(1, C_GPA + 200, 100, WRITE, 0);
	desc(2, C_GPA + 400, 100, WRITE, 0);
	avail(1, 1);
	avail(2, 2);
	avail_idx(3);
	b = frame_make(&f, 3, 100, 1);
	assert_int_equal(tx(&b, 1), 1);
	pd_device_flush(&vq);
	assert_int_equal(used_idx(), 3);
	wire_frame(want, 12, 3, 100);
	want[10] = 3;
	assert_memory_equal(mem_c, want, 11);
	assert_memory_equal(mem_c + 200, want + 11, 100);
	assert_memory_equal(mem_c + 400, want + 111, 1);
	assert_int_equal(used_len(0), 11);
	assert_int_equal(used_len(1), 100);
	assert_int_equal(used_len(2), 1);
	/* Not mergeable: 1 in a header of 12, nothing in one of 10; a chain of three. */
	for (uint32_t hdr = 10; hdr <= 12; hdr += 2) {
		start(4, hdr, hdr == 12 ? F_V1 : 0);
		memset(mem_c, 0xee, 600);
		desc(0, C_GPA, 5, WRITE | NEXT, 3);
		desc(3, C_GPA + 100, 60, WRITE | NEXT, 1);
		desc(1, C_GPA + 300, 100, WRITE, 0);
		avail_idx(1);
		b = frame_make(&f, 8, 100, 1);
		assert_int_equal(tx(&b, 1), 1);
		pd_device_flush(&vq);
		wire_frame(want, hdr, 8, 100);
		if (hdr == 12)
			want[10] = 1;
		assert_memory_equal(mem_c, want, 5);
		assert_memory_equal(mem_c + 100, want + 5, 60);
		assert_memory_equal(mem_c + 300, want + 65, hdr + 35);
		assert_int_equal(mem_c[300 + hdr + 35], 0xee);
		assert_int_equal(used_idx(), 1);
		assert_int_equal(used_len(0), hdr + 100);
	}
	/* No sidecar given: zeroes, and the count. */
	start(4, 48, F_V1 | F_MRG);
	memset(mem_c, 0xee, 600);
	desc(0, C_GPA, 1000, WRITE, 0);
	avail_idx(1);
	b = frame_make(&f, 8, 60, 1);
	b->flags &= (uint16_t)~PD_BUFFER_SIDECAR;
	assert_int_equal(tx(&b, 1), 1);
	wire_frame(want, 48, 8, 60);
	memset(want, 0, 48);
	want[0] = 1;
	assert_memory_equal(mem_c, want, 108);
	assert_int_equal(mem_c[108], 0xee);
}

/* Receive buffers of every size from 1 to 16384, chains of any shape, mergeable: put together again
 * by the rules of 5.1.6.4. */
static void test_tx_any_buffers(void **state)
{
	static uint8_t wire[PD_FRAME_MAX_BYTES + 48], back[PD_FRAME_MAX_BYTES + 48];
	static struct out_frame f;
	static const uint32_t hdrs[] = {12, 48};
	static const uint32_t sizes[] = {1, 2, 3, 11, 47, 48, 49, 64, 107, 1500, 4096, 16384};

	for (unsigned k = 0; k < 4; k++)
		f.bufs[k] = header_bufs[N_HEADERS + k];
	for (unsigned round = 0; round < 3000; round++) {
		uint32_t hdr = hdrs[round % 2];
		uint32_t size = rnd(2) ? sizes[rnd(12)] : 1 + rnd(16384);
		uint32_t room = pd_min(250 * size, 0xf000u) - 1, n, done = 0;
		uint32_t most = room > hdr ? pd_min(room - hdr, 12240u) : 1, len = 1 + rnd(most);
		uint64_t gpa[256], base = rnd(2) ? C_GPA : B_GPA - rnd(40000);
		struct pd_buffer *b = frame_make(&f, round, len, 1 + rnd(4));
		uint16_t count = 0, made = 0;
		int got;

		start(256, hdr, F_V1 | F_MRG);
		for (uint32_t sum = 0; sum < hdr + len && made < 256; made++, sum += size) {
			gpa[made] = base + made * size;
			desc(made, gpa[made], size, WRITE, 0);
			avail(made, made);
		}
		avail_idx(made);
		got = tx(&b, 1);
		assert_true(made * size >= hdr + len);
		assert_int_equal(got, 1);
		pd_device_flush(&vq);
		n = wire_frame(wire, hdr, round, len);
		count = used_idx();
		for (uint16_t i = 0; i < count; i++) {
			uint32_t l = used_len(i);

			/* Every buffer but the last is full. */
			assert_int_equal(l, i + 1 < count ? size : n - done);
			for (uint32_t k = 0; k < l; k++)
				back[done + k] = *at(gpa[used_id(i)] + k);
			done += l;
		}
		assert_int_equal(done, n);
		assert_int_equal(get16(back + (hdr == 48 ? 0 : 10)), count);
		memcpy(wire + (hdr == 48 ? 0 : 10), back + (hdr == 48 ? 0 : 10), 2);
		assert_memory_equal(back, wire, n);
	}
}

/* The ring ends within a frame: nothing of it is seen, and the rest goes when there is room. */
static void test_tx_rolls_back(void **state)
{
	static struct out_frame f[2];
	struct pd_buffer *b[2];

	f[0].bufs[0] = header_bufs[N_HEADERS];
	f[1].bufs[0] = header_bufs[N_HEADERS + 1];
	start(8, 48, F_V1 | F_MRG | F_EVENT);
	for (unsigned i = 0; i < 8; i++) {
		desc(i, C_GPA + 0x200 * i, 100, WRITE, 0);
		avail((uint16_t)i, (uint16_t)i);
	}
	avail_idx(3);
	b[0] = frame_make(&f[0], 1, 52, 1);  /* one buffer */
	b[1] = frame_make(&f[1], 2, 300, 1); /* four */
	assert_int_equal(tx(b, 2), 1);
	pd_device_flush(&vq);
	assert_int_equal(used_idx(), 1);
	assert_int_equal(vq.cursor, 1);
	/* Two are there, four are needed: not ready. Three are not enough either. */
	assert_int_equal(tx(&b[1], 1), 0);
	assert_int_equal(pd_device_position(&vq), vq.cursor);
	/* The notification is asked for when the third arrives: entry 3. */
	assert_false(pd_device_arm(&vq, vq.cursor));
	assert_int_equal(get16(mem_a + USED + 4 + 8 * 8), 3);
	avail_idx(4);
	assert_true(pd_device_arm(&vq, vq.cursor)); /* as many as it knew it needs: look again */
	assert_int_equal(tx(&b[1], 1), 0);
	assert_false(pd_device_arm(&vq, vq.cursor));
	avail_idx(5);
	assert_true(pd_device_arm(&vq, vq.cursor));
	assert_int_equal(tx(&b[1], 1), 1);
	assert_int_equal(used_idx(), 1);
	pd_device_flush(&vq);
	assert_int_equal(used_idx(), 5);
	assert_int_equal(get16(mem_c + 0x200), 4);
	/* Longer than all the room there can be: it can never go. */
	avail_idx(13);
	b[0] = frame_make(&f[0], 3, 753, 1);
	assert_int_equal(tx(b, 1), -EMSGSIZE);
	b[0] = frame_make(&f[0], 3, 752, 1);
	assert_int_equal(tx(b, 1), 1);
	/* Nothing left. */
	assert_int_equal(tx(&b[1], 1), 0);
	assert_null(vq.broken);
}

static void test_tx_without_mergeable_buffers(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(8, 48, F_V1);
	desc(0, C_GPA, 100, WRITE | NEXT, 1);
	desc(1, C_GPA + 0x100, 100, WRITE, 0);
	avail_idx(1);
	b = frame_make(&f, 1, 153, 1);
	assert_int_equal(tx(&b, 1), -EMSGSIZE);
	assert_int_equal(vq.cursor, 0); /* the chain stays for a frame that fits */
	assert_int_equal(vq.counts.drop_too_long, 1);
	b = frame_make(&f, 1, 152, 1);
	assert_int_equal(tx(&b, 1), 1);
	pd_device_flush(&vq);
	assert_int_equal(used_len(0), 200);
	assert_int_equal(get16(mem_c), 1);
	/* Longer than any frame. */
	b = frame_make(&f, 1, 100, 1);
	b->total_len = PD_FRAME_MAX_BYTES + 1;
	avail(1, 1);
	avail_idx(2);
	assert_int_equal(tx(&b, 1), -EMSGSIZE);
}

/* --- notification ---------------------------------------------------------------------------- */

static void put_good(uint16_t entry)
{
	desc(entry % ring_size, C_GPA + 0x200 * (entry % ring_size), 100, 0, 0);
	avail(entry, (uint16_t)(entry % ring_size));
	avail_idx((uint16_t)(entry + 1));
}

static void test_notification_words(void **state)
{
	struct pd_buffer *b[8];
	uint8_t *used_event = mem_a + AVAIL + 4 + 2 * 8, *avail_event = mem_a + USED + 4 + 8 * 8;

	/* EVENT_IDX, across the wrap of the index. The first publication always tells. */
	start_at(8, 48, F_V1 | F_EVENT, 65534);
	put_good(65534);
	put16(used_event, 65535); /* not passed */
	assert_int_equal(rx(b, 8), 1);
	assert_true(pd_device_rx_done(&vq, 1));
	/* 2.7.7.2: told when used idx passes used_event. */
	put16(used_event, 0);
	put_good(65535);
	assert_int_equal(rx(b, 8), 1);
	assert_false(pd_device_rx_done(&vq, 1)); /* idx 65535 -> 0: entry 65535 */
	put_good(0);
	put_good(1);
	assert_int_equal(rx(b, 8), 2);
	assert_true(pd_device_rx_done(&vq, 2)); /* 0 -> 2: entry 0 among them */
	put_good(2);
	assert_int_equal(rx(b, 8), 1);
	assert_false(pd_device_rx_done(&vq, 1));
	/* 2.7.10: we are told when entry `avail_event` is made available. */
	assert_false(pd_device_arm(&vq, vq.cursor));
	assert_int_equal(get16(avail_event), 3);
	put_good(3);
	assert_true(pd_device_arm(&vq, vq.cursor));
	assert_false(pd_device_arm(&vq, vq.cursor + 1)); /* this one was seen already */
	assert_int_equal(get16(avail_event), 4);
	assert_int_equal(get16(mem_a + USED), 0); /* flags stay 0 with EVENT_IDX */

	/* Flags. */
	start(8, 48, F_V1);
	put_good(0);
	assert_int_equal(rx(b, 8), 1);
	assert_true(pd_device_rx_done(&vq, 1));
	put16(mem_a + AVAIL, 1); /* NO_INTERRUPT */
	put_good(1);
	assert_int_equal(rx(b, 8), 1);
	assert_false(pd_device_rx_done(&vq, 1));
	put16(mem_a + AVAIL, 0);
	put_good(2);
	assert_int_equal(rx(b, 8), 1);
	assert_true(pd_device_rx_done(&vq, 1));
	pd_device_disarm(&vq);
	assert_int_equal(get16(mem_a + USED), 1); /* NO_NOTIFY */
	assert_false(pd_device_arm(&vq, vq.cursor));
	assert_int_equal(get16(mem_a + USED), 0);
}

/* 2.7 leaves the start to the transport: a ring is taken up where its used index stands. */
static void test_start_index(void **state)
{
	struct pd_vq_layout layout = {.size = 8, .hdr_bytes = 48, .features = F_V1, .base = 0};
	const char *why;

	start_at(8, 48, F_V1, 700);
	layout.desc = mem_a + DESC;
	layout.avail = mem_a + AVAIL;
	layout.used = mem_a + USED;
	avail_idx(703);
	pd_vq_fini(&vq);
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
	assert_int_equal(vq.cursor, 700);
	assert_int_equal(pd_device_position(&vq), 703);
	/* The two do not belong together: the base that was told. */
	avail_idx(900);
	layout.base = 895;
	pd_vq_fini(&vq);
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
	assert_int_equal(pd_device_position(&vq), 900);
	assert_int_equal(pd_vq_base(&vq), 895);
	pd_vq_fini(&vq);
	/* What cannot be run. */
	static const uint32_t sizes[] = {0, 1, 3, 6, 65536, 1u << 31};
	for (unsigned i = 0; i < 6; i++) {
		layout.size = sizes[i];
		assert_int_equal(pd_vq_init_device(&vq, &layout, &table), -EINVAL);
		assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
		assert_non_null(why);
	}
	layout.size = 8;
	layout.desc = mem_a + 8;
	assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
	layout.desc = mem_a;
	layout.hdr_bytes = 11;
	assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
	layout.hdr_bytes = 10;
	layout.features = F_MRG;
	assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
}

/* --- a peer that writes while we read -------------------------------------------------------- */

static uint32_t stop_scribbling;

/* Write a random descriptor into the ring or the indirect table in C. */
static void scribble_once(uint64_t *state)
{
	uint64_t *words[2] = {(uint64_t *)(void *)(mem_a + DESC), (uint64_t *)(void *)mem_c};
	uint64_t x = *state, addr, tail;
	unsigned i, t;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	i = x % 16;
	t = x >> 8 & 1;
	addr = (x >> 9 & 7) ? (x >> 12 & 1 ? A_GPA : C_GPA) + (x >> 16 & 0xffff) : x;
	tail = (x >> 40 & 0x7ff) | (uint64_t)(x >> 52 & 7) << 32 | (uint64_t)(x >> 56 & 15) << 48;
	if (t == 0 && (x >> 55 & 7) == 5) {
		addr = C_GPA;
		tail = 256 | (uint64_t)INDIRECT << 32;
	}
	pd_store_relaxed(&words[t][2 * i], addr);
	pd_store_relaxed(&words[t][2 * i + 1], tail);
}

static void *scribble(void *arg)
{
	uint64_t x = 88172645463325252ULL;

	while (!pd_load_acquire(&stop_scribbling))
		scribble_once(&x);
	return NULL;
}

static void test_descriptors_that_change(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[16], *out;
	pthread_t thread;
	unsigned moved = 0, broke = 0, sum = 0;
	uint64_t x = 362436069;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(16, 48, F_V1 | F_INDIRECT | F_MRG);
#ifdef PD_UNDER_TSAN
	/* The race is the test: what a peer does to its memory is not ours to order. */
	return;
#endif
	pd_store_release(&stop_scribbling, 0);
	assert_int_equal(pthread_create(&thread, NULL, scribble, NULL), 0);
	for (unsigned round = 0; round < 20000; round++) {
		int n;

		/* Here too: the other thread may not get to run. */
		for (uint16_t i = 0; i < 16; i++) {
			avail((uint16_t)(vq.next + i), i);
			scribble_once(&x);
		}
		avail_idx((uint16_t)(vq.next + 16));
		if (round & 1) {
			n = rx(b, 16);
			for (int i = 0; i < n; i++) {
				const struct pd_buffer *p = b[i];

				assert_true(p->total_len <= PD_FRAME_MAX_BYTES);
				for (;; p = pd_buffer_get(p->next)) {
					for (uint32_t k = 0; k < p->len; k += 16)
						sum += pd_load_relaxed(&p->data[k]);
					if (p->next == PD_BUFFER_NONE)
						break;
				}
			}
			if (n > 0)
				pd_device_rx_done(&vq, (unsigned)n);
		} else {
			out = frame_make(&f, round, 1 + rnd(1000), 1);
			n = tx(&out, 1);
			/* It may overwrite descriptors: so may a guest's. The ring stays ours. */
			pd_device_flush(&vq);
		}
		moved += n > 0;
		if (vq.broken) {
			broke++;
			vq.broken = NULL;
			vq.staged = 0;
		}
	}
	pd_store_release(&stop_scribbling, 1);
	pthread_join(thread, NULL);
	assert_true(moved > 100 && broke > 100);
	assert_true(sum || !sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mem_table),
		cmocka_unit_test(test_rx_one_frame_byte_for_byte),
		cmocka_unit_test(test_rx_any_chain_shape),
		cmocka_unit_test(test_rx_descriptor_across_regions),
		cmocka_unit_test(test_rx_control_frames),
		cmocka_unit_test(test_rx_drops_what_is_no_frame),
		cmocka_unit_test(test_rx_long_chains),
		cmocka_unit_test(test_broken_rings),
		cmocka_unit_test(test_tx_bad_room),
		cmocka_unit_test(test_tx_byte_for_byte),
		cmocka_unit_test(test_tx_any_buffers),
		cmocka_unit_test(test_tx_rolls_back),
		cmocka_unit_test(test_tx_without_mergeable_buffers),
		cmocka_unit_test(test_notification_words),
		cmocka_unit_test(test_start_index),
		cmocka_unit_test(test_descriptors_that_change),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
