/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio/: the device receives from rings written by hand. */
#include "device_rig.h"

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
		assert_int_equal(pd_device_position(&vq, vq.packed), 1);
		assert_int_equal(rx(b, 4), 1);
		frame_check(b[0], 5, 60, hdrs[h] == 48);
		assert_ptr_equal(b[0]->data, mem_c + 100 + hdrs[h]); /* not copied */
		/* Nothing is consumed by being shown. */
		memset(before, 0, sizeof(before));
		before[0] = 1; /* flags: nobody sleeps */
		assert_memory_equal(used, before, 6);
		assert_int_equal(rx(b, 4), 1);
		assert_true(pd_device_rx_done(&vq, vq.packed, 1)); /* avail.flags is 0: notify */
		assert_memory_equal(used,
				    "\1\0"      /* flags */
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
		uint32_t hdr = hdrs[round % 3], len = rnd_frame(rnd(8) ? 400 : 12240);
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
		pd_device_rx_done(&vq, vq.packed, 1);
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
	pd_device_rx_done(&vq, vq.packed, 3);
	assert_int_equal(vq.counts.control, 3);
	assert_int_equal(used_idx(), 3);
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
		pd_device_rx_done(&vq, vq.packed, (unsigned)n);
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
	pd_device_rx_done(&vq, vq.packed, 25);
	assert_int_equal(rx(b, 256), 23);
	frame_check(b[22], 47, 20, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rx_one_frame_byte_for_byte),
		cmocka_unit_test(test_rx_any_chain_shape),
		cmocka_unit_test(test_rx_descriptor_across_regions),
		cmocka_unit_test(test_rx_control_frames),
		cmocka_unit_test(test_rx_long_chains),
	};

	return cmocka_run_group_tests(tests, device_setup, NULL);
}
