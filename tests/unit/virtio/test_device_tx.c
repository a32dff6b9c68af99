/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio/: the device sends into rings written by hand. */
#include "device_rig.h"

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
	assert_true(pd_device_flush(&vq, vq.packed));
	assert_memory_equal(mem_a + USED,
			    "\1\0\2\0"            /* flags (nobody sleeps), idx */
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
	pd_device_flush(&vq, vq.packed);
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
		pd_device_flush(&vq, vq.packed);
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
		pd_device_flush(&vq, vq.packed);
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
	pd_device_flush(&vq, vq.packed);
	assert_int_equal(used_idx(), 1);
	assert_int_equal(vq.cursor, 1);
	/* Two are there, four are needed: not ready. Three are not enough either. */
	assert_int_equal(tx(&b[1], 1), 0);
	assert_int_equal(pd_device_position(&vq, vq.packed), vq.cursor);
	/* The notification is asked for when the third arrives: entry 3. */
	assert_false(pd_device_arm(&vq, vq.packed, vq.cursor));
	assert_int_equal(get16(mem_a + USED + 4 + 8 * 8), 3);
	avail_idx(4);
	assert_true(pd_device_arm(&vq, vq.packed,
				  vq.cursor)); /* as many as it knew it needs: look again */
	assert_int_equal(tx(&b[1], 1), 0);
	assert_false(pd_device_arm(&vq, vq.packed, vq.cursor));
	avail_idx(5);
	assert_true(pd_device_arm(&vq, vq.packed, vq.cursor));
	assert_int_equal(tx(&b[1], 1), 1);
	assert_int_equal(used_idx(), 1);
	pd_device_flush(&vq, vq.packed);
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
	pd_device_flush(&vq, vq.packed);
	assert_int_equal(used_len(0), 200);
	assert_int_equal(get16(mem_c), 1);
	/* Longer than any frame. */
	b = frame_make(&f, 1, 100, 1);
	b->total_len = PD_FRAME_MAX_BYTES + 1;
	avail(1, 1);
	avail_idx(2);
	assert_int_equal(tx(&b, 1), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tx_byte_for_byte),
		cmocka_unit_test(test_tx_any_buffers),
		cmocka_unit_test(test_tx_rolls_back),
		cmocka_unit_test(test_tx_without_mergeable_buffers),
	};

	return cmocka_run_group_tests(tests, device_setup, NULL);
}
