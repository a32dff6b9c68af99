/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the driver against a device written by hand, honest and not, byte by byte from the text
 * of virtio 1.2; and carrying on after the device has gone.
 */
#include "driver_rig.h"

#define SIZE 8u

static void start(bool receive, uint32_t hdr, uint64_t features)
{
	driver_start(SIZE, receive, hdr, features);
}

static int setup(void **state)
{
	return headers_setup(state);
}

/* The device's half. */
static void device_uses(uint16_t entry, uint32_t id, uint32_t len)
{
	uint8_t *e = (uint8_t *)layout.used + 4 + 8 * (entry % SIZE);

	put32(e, id);
	put32(e + 4, len);
}
static void device_publishes(uint16_t idx)
{
	put16((uint8_t *)layout.used + 2, idx);
}
static uint16_t avail_idx(void)
{
	return get16((uint8_t *)layout.avail + 2);
}
static uint16_t avail_entry(uint16_t entry)
{
	return get16((uint8_t *)layout.avail + 4 + 2 * (entry % SIZE));
}
/* The fields of descriptor `i`, and our pointer to its buffer. */
static uint64_t desc_addr(unsigned i)
{
	const uint8_t *d = (uint8_t *)layout.desc + 16 * i;

	return get32(d) | (uint64_t)get32(d + 4) << 32;
}
static uint32_t desc_len(unsigned i)
{
	return get32((uint8_t *)layout.desc + 16 * i + 8);
}
static uint16_t desc_flags(unsigned i)
{
	return get16((uint8_t *)layout.desc + 16 * i + 12);
}
static uint16_t desc_next(unsigned i)
{
	return get16((uint8_t *)layout.desc + 16 * i + 14);
}
static uint8_t *desc_buf(unsigned i)
{
	return area + (desc_addr(i) - GPA);
}

static void test_tx_byte_for_byte(void **state)
{
	static struct out_frame f[3];
	struct pd_buffer *b[3];
	uint8_t want[48];

	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < 4; k++)
			f[i].bufs[k] = header_bufs[N_HEADERS + 4 * i + k];
	start(false, 48, 0);
	assert_int_equal(pd_driver_position(&vq, vq.packed) - vq.cursor, SIZE);
	assert_int_equal(avail_idx(), 0);
	b[0] = frame_make(&f[0], 0, 60, 1);
	b[1] = frame_make(&f[1], 1, 300, 3); /* 348 bytes: three buffers */
	assert_int_equal(pd_driver_tx(&vq, vq.packed, true, b, 2), 2);
	assert_int_equal(avail_idx(), 0);
	assert_true(pd_driver_flush(&vq, vq.packed));
	assert_int_equal(avail_idx(), 2);
	assert_int_equal(avail_entry(0), 0);
	assert_int_equal(desc_len(0), 108);
	assert_int_equal(desc_flags(0), 0);
	for (unsigned i = 0; i < 48; i++)
		want[i] = sidecar_byte(0, i);
	assert_memory_equal(desc_buf(0), want, 48);
	assert_memory_equal(desc_buf(0) + 48, f[0].bytes, 60);
	assert_int_equal(avail_entry(1), 1);
	assert_int_equal(desc_len(1), 128);
	assert_int_equal(desc_flags(1), 1); /* NEXT */
	assert_int_equal(desc_next(1), 2);
	assert_int_equal(desc_len(2), 128);
	assert_int_equal(desc_flags(2), 1);
	assert_int_equal(desc_next(2), 3);
	assert_int_equal(desc_len(3), 92);
	assert_int_equal(desc_flags(3), 0);
	assert_memory_equal(desc_buf(1) + 48, f[1].bytes, 80);
	assert_memory_equal(desc_buf(2), f[1].bytes + 80, 128);
	assert_memory_equal(desc_buf(3), f[1].bytes + 208, 92);
	/* Four descriptors are left; a frame of five waits and says how many it needs. */
	assert_int_equal(pd_driver_position(&vq, vq.packed) - vq.cursor, 4);
	b[2] = frame_make(&f[2], 2, 500, 1);
	assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &b[2], 1), 0);
	assert_int_equal(pd_driver_position(&vq, vq.packed), vq.cursor);
	assert_false(pd_driver_arm(&vq, vq.packed, vq.cursor));
	/* Given back out of order: the chain of three. */
	device_uses(0, 1, 0);
	device_publishes(1);
	assert_true(pd_driver_arm(&vq, vq.packed, vq.cursor));
	assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &b[2], 1), 1);
	pd_driver_flush(&vq, vq.packed);
	assert_int_equal(avail_entry(2), 4);
	/* Longer than the whole ring. */
	b[2] = frame_make(&f[2], 2, 8 * 128 - 47, 1);
	assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &b[2], 1), -EMSGSIZE);
	/* virtio-net header: 12 zeroes (5.1.6.2: num_buffers is 0 on transmit), or 10. */
	for (uint32_t hdr = 10; hdr <= 12; hdr += 2) {
		start(false, hdr, 0);
		b[0] = frame_make(&f[0], 0, 60, 1);
		assert_int_equal(pd_driver_tx(&vq, vq.packed, false, b, 1), 1);
		memset(want, 0, 12);
		assert_memory_equal(desc_buf(0), want, hdr);
		assert_memory_equal(desc_buf(0) + hdr, f[0].bytes, 60);
		assert_int_equal(desc_len(0), 60 + hdr);
		b[0]->total_len = 0; /* nothing to send without a sidecar */
		assert_int_equal(pd_driver_tx(&vq, vq.packed, false, b, 1), -EMSGSIZE);
	}
}

/* The receive ring is full from the start, and again after each rx_done. */
static void test_rx_ring_is_filled(void **state)
{
	struct pd_buffer *b[4];

	start(true, 48, 0);
	assert_int_equal(avail_idx(), SIZE);
	for (unsigned i = 0; i < SIZE; i++) {
		assert_int_equal(avail_entry((uint16_t)i), i);
		assert_int_equal(desc_addr(i), layout.buffers_gpa + BUF * i);
		assert_int_equal(desc_len(i), BUF);
		assert_int_equal(desc_flags(i), 2); /* WRITE */
	}
	/* Used out of order, and only then available again, in the order consumed. */
	memset(desc_buf(6), 0, 48);
	memset(desc_buf(2), 0, 48);
	device_uses(0, 6, 100);
	device_uses(1, 2, 48);
	device_publishes(2);
	assert_int_equal(pd_driver_position(&vq, vq.packed), 2);
	assert_int_equal(rx(b, 4), 2);
	assert_ptr_equal(b[0]->data, desc_buf(6) + 48);
	assert_int_equal(b[0]->total_len, 52);
	assert_true(b[1]->flags & PD_BUFFER_CONTROL);
	assert_int_equal(avail_idx(), SIZE);
	pd_driver_rx_done(&vq, vq.packed, 1);
	assert_int_equal(avail_idx(), SIZE + 1);
	assert_int_equal(avail_entry(SIZE), 6);
	assert_int_equal(rx(b, 4), 1);
	pd_driver_rx_done(&vq, vq.packed, 1);
	assert_int_equal(avail_entry(SIZE + 1), 2);
	assert_int_equal(vq.cursor, 2);
}

static void test_rx_mergeable(void **state)
{
	struct pd_buffer *b[4];

	start(true, 48, 1ULL << VIRTIO_NET_F_MRG_RXBUF | 1ULL << VIRTIO_RING_F_EVENT_IDX);
	for (unsigned i = 0; i < SIZE; i++)
		for (unsigned k = 0; k < BUF; k++)
			desc_buf(i)[k] = (uint8_t)(i * 16 + k);
	memset(desc_buf(0), 0, 48);
	put16(desc_buf(0), 3);
	device_uses(0, 0, 128);
	device_uses(1, 4, 128);
	device_publishes(2);
	/* Two of three buffers: no frame, not ready, told when the third (entry 2) comes. */
	assert_int_equal(rx(b, 4), 0);
	assert_int_equal(pd_driver_position(&vq, vq.packed), vq.cursor);
	assert_false(pd_driver_arm(&vq, vq.packed, vq.cursor));
	assert_int_equal(get16((uint8_t *)layout.avail + 4 + 2 * SIZE), 2);
	device_uses(2, 1, 10);
	device_publishes(3);
	assert_true(pd_driver_arm(&vq, vq.packed, vq.cursor));
	assert_int_equal(rx(b, 4), 1);
	assert_int_equal(b[0]->total_len, 80 + 128 + 10);
	assert_ptr_equal(pd_buffer_get(b[0]->next)->data, desc_buf(4));
	assert_ptr_equal(pd_buffer_get(pd_buffer_get(b[0]->next)->next)->data, desc_buf(1));
	pd_driver_rx_done(&vq, vq.packed, 1);
	assert_int_equal(vq.cursor, 3);
	assert_int_equal(avail_idx(), SIZE + 3);
	/* 0 is taken as 1: some devices do not write it. */
	put16(desc_buf(2), 0);
	device_uses(3, 2, 100);
	device_publishes(4);
	assert_int_equal(rx(b, 4), 1);
	pd_driver_rx_done(&vq, vq.packed, 1);
	/* Shorter than a header: dropped at once and its buffer given back. */
	device_uses(4, 3, 47);
	device_publishes(5);
	assert_int_equal(rx(b, 4), 0);
	assert_int_equal(avail_idx(), SIZE + 5);
	assert_int_equal(vq.counts.drop_malformed, 1);
	assert_int_equal(vq.cursor, 5);
	assert_null(vq.broken);
	/* More buffers than there are. */
	put16(desc_buf(5), SIZE + 1);
	device_uses(5, 5, 100);
	device_publishes(6);
	assert_int_equal(rx(b, 4), -ENETDOWN);
	assert_non_null(vq.broken);
}

static void test_hostile_devices(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[4], *out;
	uint32_t base;

	f.bufs[0] = header_bufs[N_HEADERS];
	for (unsigned i = 0; i < 6; i++) {
		start(true, 48, 0);
		memset(desc_buf(1), 0, 48);
		device_uses(0, 1, 100);
		device_publishes(1);
		switch (i) {
		case 0: /* an id that does not exist */
			device_uses(0, SIZE, 100);
			break;
		case 1:
			device_uses(0, 0x10001, 100); /* its low half does */
			break;
		case 2: /* longer than the buffer */
			device_uses(0, 1, BUF + 1);
			break;
		case 3: /* the same twice in a burst */
			device_uses(1, 1, 100);
			device_publishes(2);
			break;
		case 4: /* more than we ever gave */
			device_publishes(SIZE + 1);
			break;
		case 5:
			device_publishes(0xffff);
			break;
		}
		assert_int_equal(rx(b, 4), -ENETDOWN);
		assert_non_null(vq.broken);
		assert_int_equal(pd_driver_position(&vq, vq.packed), vq.cursor);
		assert_int_equal(resume(&base), -ENETDOWN);
		assert_int_equal(avail_idx(), SIZE);
	}
	for (unsigned i = 0; i < 4; i++) {
		start(false, 48, 0);
		out = frame_make(&f, 1, 200, 1); /* descriptors 0 and 1 */
		assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &out, 1), 1);
		out = frame_make(&f, 1, 20, 1);
		assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &out, 1), 1);
		pd_driver_flush(&vq, vq.packed);
		device_publishes(2);
		device_uses(0, 0, 0);
		device_uses(1, 2, 0);
		switch (i) {
		case 0: /* not a head */
			device_uses(0, 1, 0);
			break;
		case 1: /* never made available */
			device_uses(0, 5, 0);
			break;
		case 2: /* twice */
			device_uses(1, 0, 0);
			break;
		case 3: /* more than there are */
			device_publishes(3);
			break;
		}
		assert_int_equal(pd_driver_position(&vq, vq.packed), vq.cursor);
		assert_non_null(vq.broken);
		assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &out, 1), -ENETDOWN);
	}
	/* What it says of lengths on a transmit ring means nothing. */
	start(false, 48, 0);
	out = frame_make(&f, 1, 20, 1);
	assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &out, 1), 1);
	pd_driver_flush(&vq, vq.packed);
	device_uses(0, 0, UINT32_MAX);
	device_publishes(1);
	assert_int_equal(pd_driver_position(&vq, vq.packed) - vq.cursor, SIZE);
	assert_null(vq.broken);
}

/* The device dies in mid-ring; its successor gets what was not used, in order, and no more. */
static void test_carrying_on(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[4], *out;
	uint32_t base;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(false, 48, 0);
	for (unsigned i = 0; i < 5; i++) {
		out = frame_make(&f, i, 20, 1);
		assert_int_equal(pd_driver_tx(&vq, vq.packed, true, &out, 1), 1);
	}
	pd_driver_flush(&vq, vq.packed);
	device_uses(0, 3, 0); /* out of order */
	device_uses(1, 0, 0);
	device_publishes(2);
	memset(layout.desc, 0xff, 16 * SIZE); /* and it was not a kind one */
	memset((uint8_t *)layout.avail + 4, 0xff, 2 * SIZE);
	assert_int_equal(resume(&base), 0);
	assert_int_equal(base, 2);
	assert_int_equal(avail_idx(), 5);
	assert_int_equal(avail_entry(2), 1);
	assert_int_equal(avail_entry(3), 2);
	assert_int_equal(avail_entry(4), 4);
	assert_int_equal(desc_len(4), 68);
	assert_int_equal(desc_buf(4)[48], frame_byte(4, 0));
	assert_int_equal(pd_driver_position(&vq, vq.packed) - vq.cursor, SIZE - 3);
	device_uses(2, 1, 0);
	device_uses(3, 2, 0);
	device_uses(4, 4, 0);
	device_publishes(5);
	assert_int_equal(pd_driver_position(&vq, vq.packed) - vq.cursor, SIZE);

	/* Receive: two frames used, one of them shown; they stay, and the rest is offered again. */
	start(true, 48, 0);
	for (unsigned i = 0; i < 2; i++) {
		memset(desc_buf(i), 0, 48);
		device_uses((uint16_t)i, i, 100 + i);
	}
	device_publishes(1);
	assert_int_equal(rx(b, 4), 1);
	device_publishes(2);
	assert_int_equal(resume(&base), 0);
	assert_int_equal(base, 2);
	assert_int_equal(avail_idx(), SIZE);
	for (unsigned i = 2; i < SIZE; i++)
		assert_int_equal(avail_entry((uint16_t)i), i);
	assert_int_equal(rx(b, 4), 2);
	assert_int_equal(b[1]->total_len, 53);
	pd_driver_rx_done(&vq, vq.packed, 2);
	assert_int_equal(avail_idx(), SIZE + 2);
	assert_int_equal(pd_driver_position(&vq, vq.packed), vq.cursor);
}

static void test_copy(void **state)
{
	uint8_t src[700], dst[800];

	for (unsigned i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(i * 31 + 7);
	for (uint32_t n = 0; n <= 600; n++)
		for (unsigned off = 0; off < 17; off += 5) {
			memset(dst, 0xee, sizeof(dst));
			pd_copy(dst + 20 + off, src + off, n);
			assert_memory_equal(dst + 20 + off, src + off, n);
			assert_int_equal(dst[19 + off], 0xee);
			assert_int_equal(dst[20 + off + n], 0xee);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tx_byte_for_byte), cmocka_unit_test(test_rx_ring_is_filled),
		cmocka_unit_test(test_rx_mergeable),     cmocka_unit_test(test_hostile_devices),
		cmocka_unit_test(test_carrying_on),      cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
