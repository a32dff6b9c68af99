/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the device against the driver, over one shared area, in every combination of features,
 * header, ring and buffer size: contents, sidecars, order, no loss, no lost notification.
 */
#include "ring_util.h"

#define GPA 0x7f0000100000ULL

struct combo {
	uint32_t hdr;
	bool event_idx, mrg;
	uint32_t size, buf_bytes;
	bool packed, in_order;
};

/* The device takes up a ring before the driver does. */
static bool device_first;

struct link {
	struct combo c;
	struct pd_vq driver, device;
	struct pd_mem_table *mem;
	uint8_t *area;
	uint64_t area_bytes;
};

/* Both ends of one ring; `receive`: the driver receives. */
static void link_open(struct link *l, const struct combo *c, bool receive)
{
	struct pd_vq_layout layout = {
		.size = c->size,
		.hdr_bytes = c->hdr,
		.features = (uint64_t)c->event_idx << VIRTIO_RING_F_EVENT_IDX |
			    (uint64_t)c->mrg << VIRTIO_NET_F_MRG_RXBUF |
			    (uint64_t)c->packed << VIRTIO_F_RING_PACKED |
			    (uint64_t)c->in_order << VIRTIO_F_IN_ORDER,
		.base = c->packed ? 1u << 15 : 0, /* as DPDK gives it */
		.buf_bytes = c->buf_bytes,
		.receive = receive,
	};

	l->c = *c;
	l->area_bytes = pd_vq_driver_area_bytes(c->size, c->buf_bytes);
	l->area = guarded_map(l->area_bytes);
	l->mem = calloc(1, sizeof(*l->mem));
	assert_int_equal(pd_mem_add(l->mem, &(struct pd_mem_region){GPA, l->area_bytes,
								    (uintptr_t)l->area, l->area}),
			 0);
	pd_vq_driver_place(&layout, l->area, GPA);
	if (device_first)
		assert_int_equal(pd_vq_init_device(&l->device, &layout, l->mem), 0);
	assert_int_equal(pd_vq_init_driver(&l->driver, &layout), 0);
	if (!device_first)
		assert_int_equal(pd_vq_init_device(&l->device, &layout, l->mem), 0);
}

static void link_close(struct link *l)
{
	assert_null(l->driver.broken);
	assert_null(l->device.broken);
	pd_vq_fini(&l->driver);
	pd_vq_fini(&l->device);
	guarded_unmap(l->area, l->area_bytes);
	free(l->mem);
}

/* The ends of a direction as the test drives them. */
static int end_tx(struct link *l, bool to_driver, struct pd_buffer **b, unsigned n)
{
	bool avip = l->c.hdr == PD_VQ_HDR_SIDECAR;

	return to_driver ? pd_device_tx(&l->device, l->device.packed, avip, b, n)
			 : pd_driver_tx(&l->driver, l->driver.packed, avip, b, n);
}
static bool end_tx_flush(struct link *l, bool to_driver)
{
	return to_driver ? pd_device_flush(&l->device, l->device.packed)
			 : pd_driver_flush(&l->driver, l->driver.packed);
}
static int end_rx(struct link *l, bool to_driver, struct pd_buffer **b, unsigned n, bool *notify)
{
	bool avip = l->c.hdr == PD_VQ_HDR_SIDECAR;

	return to_driver
		       ? pd_driver_rx(&l->driver, l->driver.packed, avip, &headers, 3, b, n, notify)
		       : pd_device_rx(&l->device, l->device.packed, avip, &headers, 3, b, n,
				      notify);
}
static bool end_rx_done(struct link *l, bool to_driver, unsigned n)
{
	return to_driver ? pd_driver_rx_done(&l->driver, l->driver.packed, n)
			 : pd_device_rx_done(&l->device, l->device.packed, n);
}
static uint32_t end_position(struct link *l, bool driver)
{
	return driver ? pd_driver_position(&l->driver, l->driver.packed)
		      : pd_device_position(&l->device, l->device.packed);
}
static bool end_arm(struct link *l, bool driver, uint32_t seen)
{
	return driver ? pd_driver_arm(&l->driver, l->driver.packed, seen)
		      : pd_device_arm(&l->device, l->device.packed, seen);
}
static struct pd_vq *end_vq(struct link *l, bool driver)
{
	return driver ? &l->driver : &l->device;
}

/* One end asleep: it saw a position and waits to be told of another. */
struct sleeper {
	bool asleep;
	uint32_t seen;
};

/* The end goes to sleep if there is nothing for it. */
static void maybe_sleep(struct link *l, bool driver, struct sleeper *s)
{
	s->seen = end_position(l, driver);
	if (s->seen == end_vq(l, driver)->cursor && !end_arm(l, driver, s->seen))
		s->asleep = true;
}

/* The other end published; `told`: it gave a notification. Whoever has news must be awake. */
static void published(struct link *l, bool driver, struct sleeper *s, bool told)
{
	if (!s->asleep)
		return;
	if (told)
		s->asleep = false;
	if (s->asleep && end_position(l, driver) != s->seen)
		fail_msg("a notification was lost: ring %u, packed %d, event_idx %d", l->c.size,
			 l->c.packed, l->c.event_idx);
}

#define LENS 4096
static struct out_frame frames[64];

/* Move `count` frames in one direction, in bursts of random size, asleep when there is nothing. */
static void run(struct link *l, bool to_driver, uint32_t count, uint32_t longest)
{
	const bool avip = l->c.hdr == PD_VQ_HDR_SIDECAR;
	static uint32_t lens[LENS];
	struct pd_buffer *out[64], *in[256];
	uint32_t sent = 0, got = 0, made = 0;
	struct sleeper rx = {false, 0}, tx = {false, 0};
	unsigned stuck = 0;

	while (got < count) {
		uint32_t before = sent + got;

		if (!tx.asleep && sent < count) {
			unsigned n = 1 + rnd(64), from = sent % 64;
			int took;

			n = pd_min(n, 64 - from);
			n = pd_min(n, count - sent);
			for (; made < sent + n; made++) {
				uint32_t len = rnd_frame(rnd(8) ? pd_min(longest, 300u) : longest);

				if (avip && !rnd(200))
					len = 0; /* a control message */
				lens[made % LENS] = len;
				frame_make(&frames[made % 64], made, len, len ? 1 + rnd(3) : 1);
			}
			for (unsigned i = 0; i < n; i++)
				out[i] = frames[from + i].bufs[0];
			took = end_tx(l, to_driver, out, n);
			assert_true(took >= 0);
			sent += (unsigned)took;
			published(l, to_driver, &rx, end_tx_flush(l, to_driver));
			if ((unsigned)took < n && rnd(2))
				maybe_sleep(l, !to_driver, &tx);
		}
		if (!rx.asleep) {
			bool notify;
			int n = end_rx(l, to_driver, in, 1 + rnd(rnd(2) ? 8 : 256), &notify);
			unsigned done;

			assert_true(n >= 0);
			assert_false(notify);
			done = rnd(4) ? (unsigned)n : rnd((unsigned)n + 1);
			for (int i = 0; i < n; i++) {
				frame_check(in[i], got + (unsigned)i,
					    lens[(got + (unsigned)i) % LENS], avip);
				assert_int_equal(in[i]->rx_port, 3);
			}
			if (n)
				published(l, !to_driver, &tx, end_rx_done(l, to_driver, done));
			got += done;
			if (!n && rnd(2))
				maybe_sleep(l, to_driver, &rx);
		}
		stuck = before == sent + got ? stuck + 1 : 0;
		if (stuck > 1000)
			fail_msg("stuck at %u of %u: hdr %u ring %u buffers %u event_idx %d mrg %d "
				 "packed %d in order %d",
				 got, count, l->c.hdr, l->c.size, l->c.buf_bytes, l->c.event_idx,
				 l->c.mrg, l->c.packed, l->c.in_order);
	}
	assert_int_equal(sent, got);
}

static int setup(void **state)
{
	if (headers_setup(state))
		return -1;
	for (unsigned i = 0; i < 64; i++)
		for (unsigned k = 0; k < 4; k++)
			frames[i].bufs[k] = header_bufs[N_HEADERS + 4 * i + k];
	return 0;
}

/* The longest frame a combination can carry. */
static uint32_t longest_frame(const struct combo *c, bool to_driver)
{
	uint64_t room = (uint64_t)c->buf_bytes * (to_driver && !c->mrg ? 1 : pd_min(c->size, 200u));

	return (uint32_t)pd_min(room - c->hdr, (uint64_t)PD_FRAME_MAX_BYTES);
}

static void every_combination(const uint32_t *sizes, unsigned n, bool packed)
{
	static const uint32_t hdrs[] = {10, 12, 48};
	static const uint32_t bufs[] = {64, 128, 1536, 2048, 12288, 16384};

	for (unsigned h = packed; h < 3; h++)
		for (unsigned s = 0; s < n; s++)
			for (unsigned b = 0; b < 6; b++)
				for (unsigned f = 0; f < 16; f++) {
					bool to_driver = f & 4;
					struct combo c = {hdrs[h], f & 1,  f & 2, sizes[s],
							  bufs[b], packed, f & 8};
					struct link l;

					if (c.mrg && c.hdr == 10)
						continue;
					/* A frame of the shortest may need more. */
					if (c.size * c.buf_bytes < 128)
						continue;
					link_open(&l, &c, to_driver);
					run(&l, to_driver, pd_min(4 * c.size, 5000u) + 300,
					    longest_frame(&c, to_driver));
					link_close(&l);
				}
}

static void test_every_split_combination(void **state)
{
	static const uint32_t sizes[] = {2, 4, 16, 256, 1024};

	every_combination(sizes, PD_ARRAY_SIZE(sizes), false);
}

static void test_every_packed_combination(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 7, 8, 100, 255, 256, 1000};

	every_combination(sizes, PD_ARRAY_SIZE(sizes), true);
}

/* The largest, one whole lap and more. */
static void test_large_rings(void **state)
{
	for (unsigned f = 0; f < 12; f++) {
		struct combo c = {48, true, true, f / 4 == 1 ? 32767 : 32768, 128, f / 4, f & 1};
		struct link l;

		link_open(&l, &c, f & 2);
		run(&l, f & 2, 70000, 80);
		link_close(&l);
	}
}

/*
 * The 16-bit indices wrap, more than once, at every phase of a small ring; laps do, of odd sizes.
 */
static void test_indices_wrap(void **state)
{
	for (unsigned f = 0; f < 16; f++) {
		struct combo c = {48, f & 1, true, f & 4 ? 5 : 4, 128, f & 4, f & 8};
		struct link l;

		link_open(&l, &c, f & 2);
		run(&l, f & 2, 150000, 150);
		assert_true(l.device.cursor > 70000);
		link_close(&l);
	}
}

/* Nobody is told who did not ask: a ring that came up is one that nobody sleeps on. */
static void test_nobody_asked(void **state)
{
	for (unsigned f = 0; f < 32; f++) {
		struct combo c = {48, f & 1, true, 16, 2048, f & 4, f & 8};
		struct pd_buffer *in[4];
		bool notify;
		struct link l;

		device_first = f & 16;
		link_open(&l, &c, f & 2);
		device_first = false;
		for (unsigned i = 0; i < 100; i++) {
			struct pd_buffer *b = frame_make(&frames[0], i, 60, 1);
			bool told, was_told;

			assert_int_equal(end_tx(&l, f & 2, &b, 1), 1);
			told = end_tx_flush(&l, f & 2);
			assert_int_equal(end_rx(&l, f & 2, in, 4, &notify), 1);
			was_told = end_rx_done(&l, f & 2, 1);
			/* The first always tells. An event index of 0 is passed once in 65536. */
			if (i && (told || was_told))
				fail_msg("frame %u: packed %d, event_idx %d, in order %d, to "
					 "driver %d",
					 i, c.packed, c.event_idx, c.in_order, !!(f & 2));
		}
		link_close(&l);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_split_combination),
		cmocka_unit_test(test_every_packed_combination),
		cmocka_unit_test(test_large_rings),
		cmocka_unit_test(test_indices_wrap),
		cmocka_unit_test(test_nobody_asked),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
