/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the device on rings that break the rules: chains that are no frame, rings that cannot be
 * walked, and descriptors that change while they are read.
 */

#include "device_rig.h"

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
	pd_device_rx_done(&vq, vq.packed, 1);
	assert_int_equal(used_idx(), 2);
	assert_int_equal(rx(b, 8), 1);
	frame_check(b[0], 9, 70, true);
	assert_int_equal(used_idx(), 10);
	pd_device_rx_done(&vq, vq.packed, 1);
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
			assert_int_equal(pd_device_position(&vq, vq.packed), vq.cursor);
			assert_false(pd_device_arm(&vq, vq.packed, vq.cursor));
			assert_ptr_equal(vq.broken, first);
		}
	/* Asking for the position finds a jump too. */
	start(16, 48, F_V1);
	avail_idx(17);
	assert_int_equal(pd_device_position(&vq, vq.packed), 0);
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
		assert_false(pd_device_flush(&vq, vq.packed));
		assert_int_equal(used_idx(), 0);
	}
}

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

static void test_descriptors_that_change(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[16], *out;
	unsigned moved = 0, broke = 0, sum = 0;
	uint64_t x = 362436069;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(16, 48, F_V1 | F_INDIRECT | F_MRG);
#ifdef PD_UNDER_TSAN
	/* The race is the test: what a peer does to its memory is not ours to order. */
	return;
#endif
	scribble_start(scribble_once);
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
			sum += frames_read(b, n);
			if (n > 0)
				pd_device_rx_done(&vq, vq.packed, (unsigned)n);
		} else {
			out = frame_make(&f, round, 1 + rnd(1000), 1);
			n = tx(&out, 1);
			/* It may overwrite descriptors: so may a guest's. The ring stays ours. */
			pd_device_flush(&vq, vq.packed);
		}
		moved += n > 0;
		if (vq.broken) {
			broke++;
			vq.broken = NULL;
			vq.staged = 0;
		}
	}
	scribble_stop();
	assert_true(moved > 100 && broke > 100);
	assert_true(sum || !sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rx_drops_what_is_no_frame),
		cmocka_unit_test(test_broken_rings),
		cmocka_unit_test(test_tx_bad_room),
		cmocka_unit_test(test_descriptors_that_change),
	};

	return cmocka_run_group_tests(tests, device_setup, NULL);
}
