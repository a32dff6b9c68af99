/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: which cache lines are fetched ahead. What a fetch does to time cannot be tested; which
 * lines it is asked for can, for every setting, end and format. The data path is compiled into this
 * test.
 */
#include <stdbool.h>
#include <stdint.h>

static void note(const void *p, bool write);
#define PD_PREFETCH_LINE(p, write) note(p, write)
/* The driver's half that is not inline, so that it asks here. */
#include "virtio/driver.c"
#include "ring_util.h"

#define GPA 0x7f0000100000ULL
#define SIZE 16
#define BUF 2048
#define HDR 48

static struct pd_mem_table mem;
static struct pd_vq driver, device;
static uint8_t *area;
static uint64_t area_bytes;
static struct out_frame frame;

/* What was asked for since the last forget(), in the buffers alone. */
static struct {
	const uint8_t *line[512];
	bool write[512];
	unsigned n;
} noted;

static void note(const void *p, bool write)
{
	if ((const uint8_t *)p < driver.buffers)
		return;
	assert_in_range(noted.n, 0, 511);
	noted.line[noted.n] = p;
	noted.write[noted.n++] = write;
}

static void forget(void)
{
	noted.n = 0;
}

/* Exactly the lines of the first `bytes` of buffer `i` were asked for, and the first two. */
static void check_lines(unsigned i, uint32_t bytes, bool write)
{
	unsigned lines = pd_max((bytes + 63) / 64, 2u);

	assert_int_equal(noted.n, lines);
	for (unsigned k = 0; k < lines; k++) {
		assert_ptr_equal(noted.line[k], driver.buffers + i * BUF + 64 * k);
		assert_int_equal(noted.write[k], write);
	}
	forget();
}

static void open_ring(bool packed, bool to_driver, uint32_t tx_bytes, uint32_t rx_bytes,
		      uint32_t early_bytes)
{
	struct pd_vq_layout layout = {
		.size = SIZE,
		.hdr_bytes = HDR,
		.features = 1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VIRTIO_NET_F_MRG_RXBUF |
			    (uint64_t)packed << VIRTIO_F_RING_PACKED,
		.base = packed ? 1u << 15 : 0,
		.buf_bytes = BUF,
		.receive = to_driver,
	};

	area_bytes = pd_vq_driver_area_bytes(SIZE, BUF);
	area = guarded_map(area_bytes);
	mem.n = 0;
	assert_int_equal(
		pd_mem_add(&mem, &(struct pd_mem_region){GPA, area_bytes, (uintptr_t)area, area}),
		0);
	pd_vq_driver_place(&layout, area, GPA);
	assert_int_equal(pd_vq_init_driver(&driver, &layout), 0);
	assert_int_equal(pd_vq_init_device(&device, &layout, &mem), 0);
	driver.prefetch_bytes = to_driver ? rx_bytes : tx_bytes;
	device.prefetch_bytes = to_driver ? tx_bytes : rx_bytes;
	driver.prefetch_early_bytes = device.prefetch_early_bytes = early_bytes;
	forget();
}

static void close_ring(void)
{
	pd_vq_fini(&driver);
	pd_vq_fini(&device);
	guarded_unmap(area, area_bytes);
}

static const uint32_t settings[] = {0, 32, 64, 65, 128, 200, 256, 1536, 12240};
static const uint32_t lens[] = {14, 16, 17, 60, 80, 81, 500, 1500};

/* A frame of `len` bytes from the driver to the device, in buffer `i`. */
static void to_device(bool packed, unsigned i, uint32_t len, uint32_t rx_bytes)
{
	struct pd_buffer *b = frame_make(&frame, i, len, 1), *in[4];
	bool notify;

	assert_int_equal(pd_driver_tx(&driver, packed, true, &b, 1), 1);
	assert_int_equal(noted.n, 0); /* the buffers are its own */
	pd_driver_flush(&driver, packed);
	assert_int_equal(pd_device_rx(&device, packed, true, &headers, 1, in, 4, &notify), 1);
	check_lines(i, pd_min(HDR + len, rx_bytes), false);
	frame_check(in[0], i, len, true);
	pd_device_rx_done(&device, packed, 1);
	assert_int_equal(noted.n, 0);
}

/* A frame of `len` bytes from the device to the driver, in buffer `i`. */
static void to_driver(bool packed, unsigned i, uint32_t len, uint32_t tx_bytes, uint32_t rx_bytes,
		      uint32_t early_bytes)
{
	struct pd_buffer *b = frame_make(&frame, i, len, 1), *in[4];
	bool notify;

	assert_int_equal(pd_driver_rx(&driver, packed, true, &headers, 1, in, 4, &notify), 0);
	if (early_bytes)
		check_lines(i, pd_min(early_bytes, BUF + 0u), false);
	assert_int_equal(noted.n, 0);
	assert_int_equal(pd_device_tx(&device, packed, true, &b, 1), 1);
	check_lines(i, pd_min(HDR + len, tx_bytes), true);
	pd_device_flush(&device, packed);
	assert_int_equal(pd_driver_rx(&driver, packed, true, &headers, 1, in, 4, &notify), 1);
	check_lines(i, pd_min(HDR + len, rx_bytes), false);
	frame_check(in[0], i, len, true);
	pd_driver_rx_done(&driver, packed, 1);
	assert_int_equal(noted.n, 0);
}

static void test_every_setting(void **state)
{
	for (unsigned f = 0; f < 4; f++)
		for (unsigned s = 0; s < PD_ARRAY_SIZE(settings); s++) {
			uint32_t tx = settings[s], rx = pd_max(tx, 32u), early = tx;
			const bool packed = f & 1;

			open_ring(packed, f & 2, tx, rx, early);
			for (unsigned i = 0; i < PD_ARRAY_SIZE(lens); i++) {
				if (f & 2)
					to_driver(packed, i, lens[i], tx, rx, early);
				else
					to_device(packed, i, lens[i], rx);
			}
			close_ring();
		}
}

/*
 * What is expected is looked up in memory that the peer can write: it may name no buffer of ours.
 */
static void test_hostile_expectation(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		struct pd_buffer *in[4];
		bool notify;

		open_ring(packed, true, 0, 32, 256);
		if (packed)
			pd_store_relaxed(pd_packed_word(&driver, 0), 0xffffull << 32);
		else
			driver.avail->ring[0] = SIZE;
		assert_int_equal(pd_driver_rx(&driver, packed, true, &headers, 1, in, 4, &notify),
				 0);
		assert_int_equal(noted.n, 0);
		assert_null(driver.broken);
		close_ring();
	}
}

static int setup(void **state)
{
	if (headers_setup(state))
		return -1;
	for (unsigned k = 0; k < 4; k++)
		frame.bufs[k] = header_bufs[N_HEADERS + k];
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_setting),
		cmocka_unit_test(test_hostile_expectation),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
