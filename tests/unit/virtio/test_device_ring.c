/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio/: the device on a ring written by hand: where it begins, and who is told when. */
#include "device_rig.h"

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
	assert_true(pd_device_rx_done(&vq, vq.packed, 1));
	/* 2.7.7.2: told when used idx passes used_event. */
	put16(used_event, 0);
	put_good(65535);
	assert_int_equal(rx(b, 8), 1);
	assert_false(pd_device_rx_done(&vq, vq.packed, 1)); /* idx 65535 -> 0: entry 65535 */
	put_good(0);
	put_good(1);
	assert_int_equal(rx(b, 8), 2);
	assert_true(pd_device_rx_done(&vq, vq.packed, 2)); /* 0 -> 2: entry 0 among them */
	put_good(2);
	assert_int_equal(rx(b, 8), 1);
	assert_false(pd_device_rx_done(&vq, vq.packed, 1));
	/* 2.7.10: we are told when entry `avail_event` is made available. */
	assert_false(pd_device_arm(&vq, vq.packed, vq.cursor));
	assert_int_equal(get16(avail_event), 3);
	put_good(3);
	assert_true(pd_device_arm(&vq, vq.packed, vq.cursor));
	assert_false(pd_device_arm(&vq, vq.packed, vq.cursor + 1)); /* this one was seen already */
	assert_int_equal(get16(avail_event), 4);
	assert_int_equal(get16(mem_a + USED), 0); /* flags stay 0 with EVENT_IDX */

	/* Flags. */
	start(8, 48, F_V1);
	put_good(0);
	assert_int_equal(rx(b, 8), 1);
	assert_true(pd_device_rx_done(&vq, vq.packed, 1));
	put16(mem_a + AVAIL, 1); /* NO_INTERRUPT */
	put_good(1);
	assert_int_equal(rx(b, 8), 1);
	assert_false(pd_device_rx_done(&vq, vq.packed, 1));
	put16(mem_a + AVAIL, 0);
	put_good(2);
	assert_int_equal(rx(b, 8), 1);
	assert_true(pd_device_rx_done(&vq, vq.packed, 1));
	pd_device_disarm(&vq, vq.packed);
	assert_int_equal(get16(mem_a + USED), 1); /* NO_NOTIFY */
	assert_false(pd_device_arm(&vq, vq.packed, vq.cursor));
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
	assert_int_equal(pd_device_position(&vq, vq.packed), 703);
	/* The two do not belong together: the base that was told. */
	avail_idx(900);
	layout.base = 895;
	pd_vq_fini(&vq);
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
	assert_int_equal(pd_device_position(&vq, vq.packed), 900);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_notification_words),
		cmocka_unit_test(test_start_index),
	};

	return cmocka_run_group_tests(tests, device_setup, NULL);
}
