/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the driver on packed rings against a device written by hand from the text of virtio 1.2
 * (2.8), honest and not, in order and not; IN_ORDER on both formats; carrying on after the device
 * has gone.
 */
#include "driver_rig.h"

#define F_PACKED (1ULL << 34)
#define F_ORDER (1ULL << 35)
#define F_EVENT (1ULL << 29)
#define F_MRG (1ULL << 15)
#define SIZE_MAX_TEST 1024u

enum { NEXT = 1, WRITE = 2, AVAILABLE = 0x80, USED_BIT = 0x8000 };

static uint8_t *ring;
static uint32_t size;

/* The device of the test: where it reads and where it writes. */
static uint32_t avail_slot, used_slot;
static bool avail_wrap, used_wrap;

static void start(uint32_t n, bool receive, uint32_t hdr, uint64_t features)
{
	size = n;
	driver_start(n, receive, hdr, features);
	ring = layout.desc;
	avail_slot = used_slot = 0;
	avail_wrap = used_wrap = true;
}

/* The fields of a slot. */
static uint64_t slot_addr(uint32_t i)
{
	return get32(ring + 16 * i) | (uint64_t)get32(ring + 16 * i + 4) << 32;
}
static uint32_t slot_len(uint32_t i)
{
	return get32(ring + 16 * i + 8);
}
static uint16_t slot_id(uint32_t i)
{
	return get16(ring + 16 * i + 12);
}
static uint16_t slot_flags(uint32_t i)
{
	return get16(ring + 16 * i + 14);
}
static uint8_t *slot_buf(uint32_t i)
{
	return area + (slot_addr(i) - GPA);
}

/* Is a descriptor available where the device reads next? */
static bool is_available(void)
{
	uint16_t flags = slot_flags(avail_slot);

	return !(flags & AVAILABLE) != avail_wrap && !(flags & USED_BIT) == avail_wrap;
}
/* Read one on. */
static void read_on(void)
{
	assert_true(is_available());
	if (++avail_slot == size) {
		avail_slot = 0;
		avail_wrap = !avail_wrap;
	}
}
/* Write a used element, for a chain or chains of `slots` descriptors. */
static void use(uint16_t id, uint32_t len, uint32_t slots)
{
	uint8_t *d = ring + 16 * used_slot;

	put32(d + 8, len);
	put16(d + 12, id);
	pd_store_release((uint16_t *)(void *)(d + 14),
			 (uint16_t)((used_wrap ? AVAILABLE | USED_BIT : 0) | (len ? WRITE : 0)));
	used_slot += slots;
	if (used_slot >= size) {
		used_slot -= size;
		used_wrap = !used_wrap;
	}
}

static int tx(struct pd_buffer **b, unsigned n)
{
	return pd_driver_tx(&vq, vq.packed, vq.hdr_bytes == 48, b, n);
}

static void test_tx_byte_for_byte(void **state)
{
	static struct out_frame f[3];
	struct pd_buffer *b[3];
	uint8_t want[48];

	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < 4; k++)
			f[i].bufs[k] = header_bufs[N_HEADERS + 4 * i + k];
	start(5, false, 48, F_PACKED);
	assert_int_equal(pd_driver_position(&vq, true) - vq.cursor, 5);
	b[0] = frame_make(&f[0], 0, 60, 1);
	b[1] = frame_make(&f[1], 1, 300, 3); /* 348 bytes: three buffers */
	assert_int_equal(tx(b, 2), 2);
	assert_int_equal(slot_flags(0), 0); /* the first is published last */
	assert_true(pd_driver_flush(&vq, true));
	for (unsigned i = 0; i < 48; i++)
		want[i] = sidecar_byte(0, i);
	assert_memory_equal(slot_buf(0), want, 48);
	assert_memory_equal(slot_buf(0) + 48, f[0].bytes, 60);
	assert_int_equal(slot_len(0), 108);
	assert_int_equal(slot_flags(0), AVAILABLE);
	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(slot_len(i), i < 3 ? 128 : 92);
		assert_int_equal(slot_flags(i), i < 3 ? AVAILABLE | NEXT : AVAILABLE);
		assert_int_equal(slot_id(i), slot_id(1));
	}
	assert_int_not_equal(slot_id(0), slot_id(1));
	assert_memory_equal(slot_buf(1) + 48, f[1].bytes, 80);
	assert_memory_equal(slot_buf(2), f[1].bytes + 80, 128);
	assert_memory_equal(slot_buf(3), f[1].bytes + 208, 92);
	assert_int_equal(slot_flags(4), 0);
	/*
	 * Out of order: the chain of three; the used element stands in slot 0, the next in slot 3.
	 */
	use(slot_id(1), 0, 3);
	assert_int_equal(pd_driver_position(&vq, true) - vq.cursor, 4);
	b[2] = frame_make(&f[2], 2, 200, 1); /* two: slot 4, and slot 0 of the next lap */
	assert_int_equal(tx(&b[2], 1), 1);
	assert_int_equal(slot_flags(0), USED_BIT); /* NEXT is not in the last one */
	assert_int_equal(slot_flags(4), 0);
	pd_driver_flush(&vq, true);
	assert_int_equal(slot_flags(4), AVAILABLE | NEXT);
	use(0, 0, 1);
	assert_int_equal(pd_driver_position(&vq, true) - vq.cursor, 3);
	assert_null(vq.broken);
	/* Longer than the ring. */
	b[2] = frame_make(&f[2], 2, 5 * 128 - 47, 1);
	assert_int_equal(tx(&b[2], 1), -EMSGSIZE);
}

static void test_rx_ring_is_filled(void **state)
{
	struct pd_buffer *b[4];
	uint8_t *buf[3];

	start(3, true, 48, F_PACKED);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(slot_len(i), BUF);
		assert_int_equal(slot_flags(i), AVAILABLE | WRITE);
		buf[slot_id(i)] = slot_buf(i);
		memset(slot_buf(i), 0, 48);
	}
	use(2, 100, 1);
	use(0, 48, 1);
	assert_int_equal(pd_driver_position(&vq, true), 2);
	assert_int_equal(rx(b, 4), 2);
	assert_ptr_equal(b[0]->data, buf[2] + 48);
	assert_int_equal(b[0]->total_len, 52);
	assert_true(b[1]->flags & PD_BUFFER_CONTROL);
	pd_driver_rx_done(&vq, true, 1);
	/* Given back in slot 0 of the next lap. */
	assert_int_equal(slot_flags(0), USED_BIT | WRITE);
	assert_int_equal(slot_id(0), 2);
	assert_ptr_equal(slot_buf(0), buf[2]);
	assert_int_equal(slot_flags(1), AVAILABLE | USED_BIT | WRITE);
	assert_int_equal(rx(b, 4), 1);
	pd_driver_rx_done(&vq, true, 1);
	assert_int_equal(slot_id(1), 0);
	assert_int_equal(vq.cursor, 2);
	/* A device that says WRITE or not: its length counts. */
	put32(ring + 16 * 2 + 8, 62);
	put16(ring + 16 * 2 + 14, AVAILABLE | USED_BIT);
	assert_int_equal(rx(b, 4), 1);
	assert_int_equal(b[0]->total_len, 14);
}

static void test_rx_mergeable_and_asking(void **state)
{
	uint8_t *driver_event;
	struct pd_buffer *b[4];

	start(5, true, 48, F_PACKED | F_MRG | F_EVENT);
	driver_event = layout.avail;
	for (unsigned i = 0; i < 5; i++)
		memset(slot_buf(i), 0, 48);
	assert_false(pd_driver_arm(&vq, true, vq.cursor));
	assert_int_equal(get32(driver_event), 0 | 1u << 15 | 2u << 16);
	put16(slot_buf(0), 3);
	use(0, 128, 1);
	use(4, 128, 1);
	/* Two of three buffers: no frame, not ready, told when the third comes. */
	assert_int_equal(rx(b, 4), 0);
	assert_int_equal(pd_driver_position(&vq, true), vq.cursor);
	assert_false(pd_driver_arm(&vq, true, vq.cursor));
	assert_int_equal(get32(driver_event), 2 | 1u << 15 | 2u << 16);
	use(1, 10, 1);
	assert_true(pd_driver_arm(&vq, true, vq.cursor));
	assert_int_equal(rx(b, 4), 1);
	assert_int_equal(b[0]->total_len, 80 + 128 + 10);
	/* What was seen is not told of again; the next is slot 3. */
	assert_false(pd_driver_arm(&vq, true, vq.cursor + 3));
	assert_int_equal(get32(driver_event), 3 | 1u << 15 | 2u << 16);
	pd_driver_rx_done(&vq, true, 1);
	use(2, 48, 1);
	use(3, 48, 1);
	assert_int_equal(rx(b, 4), 2);
	pd_driver_rx_done(&vq, true, 2);
	assert_false(pd_driver_arm(&vq, true, vq.cursor));
	assert_int_equal(get32(driver_event), 0 | 2u << 16);
	pd_driver_disarm(&vq, true);
	assert_int_equal(get16(driver_event + 2), 1);
	/* More buffers than there are. */
	put16(slot_buf(0), 6);
	use(slot_id(0), 100, 1);
	assert_int_equal(rx(b, 4), -ENETDOWN);
	assert_string_equal(vq.broken, "a frame stands in more buffers than it can");
}

/* The device says at which slot it wants to be told. */
static void test_device_event(void **state)
{
	static struct out_frame f;
	uint8_t *device_event;
	struct pd_buffer *b;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(5, false, 48, F_PACKED | F_EVENT);
	device_event = layout.used;
	b = frame_make(&f, 0, 200, 1); /* two slots */
	put32(device_event, 3 | 1u << 15 | 2u << 16);
	for (unsigned i = 0; i < 10; i++) {
		/* Slots 0-1, 2-3, 4-0, 1-2, 3-4 and again with the other wrap counter. */
		bool first = !i, told;

		assert_true(pd_driver_position(&vq, true) - vq.cursor >= 2); /* takes back */
		assert_int_equal(tx(&b, 1), 1);
		told = pd_driver_flush(&vq, true);
		assert_int_equal(told, first || i % 5 == 1);
		use(slot_id(used_slot), 0, 2);
	}
	put32(device_event, 1u << 16);
	pd_driver_position(&vq, true);
	assert_int_equal(tx(&b, 1), 1);
	assert_false(pd_driver_flush(&vq, true));
	put32(device_event, 0);
	assert_int_equal(tx(&b, 1), 1);
	assert_true(pd_driver_flush(&vq, true));
}

static void test_hostile_devices(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[4], *out;
	uint32_t base;

	f.bufs[0] = header_bufs[N_HEADERS];
	for (unsigned i = 0; i < 4; i++) {
		start(5, true, 48, F_PACKED | (i == 3 ? F_ORDER : 0));
		memset(slot_buf(1), 0, 48);
		switch (i) {
		case 0: /* an id that does not exist */
			use(5, 100, 1);
			break;
		case 1: /* longer than the buffer */
			use(1, BUF + 1, 1);
			break;
		case 2: /* the same twice in a burst */
			use(1, 100, 1);
			use(1, 100, 1);
			break;
		case 3: /* in order: longer than the buffer, behind others */
			use(2, BUF + 1, 3);
			break;
		}
		assert_int_equal(rx(b, 4), -ENETDOWN);
		assert_non_null(vq.broken);
		assert_int_equal(pd_driver_position(&vq, true), vq.cursor);
		assert_int_equal(resume(&base), -ENETDOWN);
	}
	for (unsigned i = 0; i < 4; i++) {
		start(5, false, 48, F_PACKED);
		out = frame_make(&f, 1, 200, 1); /* ids 0, in two buffers, */
		assert_int_equal(tx(&out, 1), 1);
		out = frame_make(&f, 1, 20, 1); /* and 2 */
		assert_int_equal(tx(&out, 1), 1);
		pd_driver_flush(&vq, true);
		switch (i) {
		case 0: /* not a head */
			use(1, 0, 1);
			break;
		case 1: /* never made available */
			use(4, 0, 1);
			break;
		case 2: /* twice */
			use(0, 0, 2);
			use(0, 0, 1);
			break;
		case 3: /* more than there are: a slot that nobody made available */
			use(0, 0, 2);
			use(2, 0, 1);
			use(0, 0, 1);
			break;
		}
		assert_int_equal(pd_driver_position(&vq, true), vq.cursor);
		assert_non_null(vq.broken);
		assert_int_equal(tx(&out, 1), -ENETDOWN);
	}
	/* Bits of the other lap, and of no lap, are no used element. */
	start(5, true, 48, F_PACKED);
	put16(ring + 14, 0);
	assert_int_equal(rx(b, 4), 0);
	put16(ring + 14, USED_BIT);
	assert_int_equal(rx(b, 4), 0);
	assert_null(vq.broken);
}

/* --- IN_ORDER -------------------------------------------------------------------------------- */

/*
 * One element for several frames sent, or for several buffers, of which all but the last are full.
 */
static void test_in_order_batches(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[8], *out;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(5, false, 48, F_PACKED | F_ORDER);
	for (unsigned round = 0; round < 40; round++) {
		uint32_t lens[] = {20, 200, 20}, slots = 0;
		uint16_t last = 0;

		for (unsigned i = 0; i < 3; i++) {
			out = frame_make(&f, i, lens[i], 1);
			assert_int_equal(tx(&out, 1), 1);
		}
		pd_driver_flush(&vq, true);
		while (slots < 4) {
			last = slot_id(avail_slot);
			read_on();
			slots++;
		}
		if (round & 1) {
			use(last, 0, 4);
		} else {
			use(slot_id(used_slot), 0, 1);
			use(last, 0, 3);
		}
		assert_int_equal(pd_driver_position(&vq, true) - vq.cursor, 5);
		assert_null(vq.broken);
	}
	/* The second before the first, and then the first: it is with the second. */
	out = frame_make(&f, 1, 20, 1);
	assert_int_equal(tx(&out, 1), 1);
	assert_int_equal(tx(&out, 1), 1);
	pd_driver_flush(&vq, true);
	use(slot_id((avail_slot + 1) % 5), 0, 1);
	use(slot_id(avail_slot), 0, 1);
	assert_int_equal(pd_driver_position(&vq, true), vq.cursor + 5);
	/* Received: 300 bytes and the sidecar in three buffers by one element. */
	start(5, true, 48, F_PACKED | F_ORDER | F_MRG);
	for (unsigned round = 0; round < 20; round++) {
		uint32_t first = avail_slot;
		uint16_t id = 0;

		memset(slot_buf(first), 0, 48);
		put16(slot_buf(first), 3);
		for (unsigned i = 0; i < 3; i++) {
			id = slot_id(avail_slot);
			read_on();
		}
		use(id, 92, 3);
		assert_int_equal(rx(b, 8), 1);
		assert_int_equal(b[0]->total_len, 300);
		pd_driver_rx_done(&vq, true, 1);
	}
	assert_null(vq.broken);
}

/* The same on a split ring: the element stands where the first one would, the index counts all. */
static void test_in_order_batches_split(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[8], *out;
	uint16_t idx = 0;
	uint8_t *used;

	f.bufs[0] = header_bufs[N_HEADERS];
	start(8, false, 48, F_ORDER);
	used = layout.used;
	for (unsigned round = 0; round < 40; round++) {
		uint8_t *avail = layout.avail;

		for (unsigned i = 0; i < 3; i++) {
			out = frame_make(&f, i, i == 1 ? 200 : 20, 1);
			assert_int_equal(tx(&out, 1), 1);
		}
		pd_driver_flush(&vq, false);
		put32(used + 4 + 8 * (idx % 8), get16(avail + 4 + 2 * ((idx + 2) % 8)));
		idx += 3;
		put16(used + 2, idx);
		assert_int_equal(pd_driver_position(&vq, false) - vq.cursor, 8);
		assert_null(vq.broken);
	}
	/* More than the index says. */
	out = frame_make(&f, 0, 20, 1);
	assert_int_equal(tx(&out, 1), 1);
	assert_int_equal(tx(&out, 1), 1);
	pd_driver_flush(&vq, false);
	put32(used + 4 + 8 * (idx % 8), get16((uint8_t *)layout.avail + 4 + 2 * ((idx + 1) % 8)));
	put16(used + 2, (uint16_t)(idx + 1));
	pd_driver_position(&vq, false);
	assert_string_equal(vq.broken, "a used element stands for too much");
	start(8, true, 48, F_ORDER | F_MRG);
	used = layout.used;
	memset(area + (layout.buffers_gpa - GPA), 0, 48);
	put16(area + (layout.buffers_gpa - GPA), 3);
	put32(used + 4, 2);
	put32(used + 8, 92);
	put16(used + 2, 3);
	assert_int_equal(rx(b, 8), 1);
	assert_int_equal(b[0]->total_len, 300);
}

/* --- a device after the text ------------------------------------------------------------------ */

struct chain {
	uint16_t id, slots;
	uint32_t bytes;
};

/* Read the chain that is next, or return false. Collects its bytes. */
static bool read_chain(struct chain *c, uint8_t *bytes)
{
	uint16_t flags;

	if (!is_available())
		return false;
	*c = (struct chain){0};
	do {
		uint32_t slot = avail_slot;

		flags = slot_flags(slot);
		if (bytes)
			memcpy(bytes + c->bytes, slot_buf(slot), slot_len(slot));
		c->bytes += slot_len(slot);
		c->id = slot_id(slot);
		c->slots++;
		read_on();
	} while (flags & NEXT);
	return true;
}

/* Frames of any length out, completed in any order or in batches. */
static void test_tx_against_a_device_after_the_text(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 7, 8, 255, 256, 1024};
	static struct out_frame frames[64];
	static uint8_t bytes[2000];

	for (unsigned i = 0; i < 64; i++)
		frames[i].bufs[0] = header_bufs[N_HEADERS + i];
	for (unsigned s = 0; s < PD_ARRAY_SIZE(sizes); s++)
		for (unsigned f = 0; f < 2; f++) {
			static struct chain held[SIZE_MAX_TEST];
			static uint32_t lens[4096];
			uint32_t n_held = 0, sent = 0, got = 0;
			uint32_t longest = pd_min(sizes[s] * BUF - 48, 700u);

			start(sizes[s], false, 48, F_PACKED | (f ? F_ORDER : 0));
			while (got < 3000) {
				struct chain c;
				unsigned n = 1 + rnd(20);

				for (unsigned i = 0; i < n; i++) {
					struct pd_buffer *b;

					lens[sent % 4096] = 1 + rnd(longest);
					b = frame_make(&frames[0], sent, lens[sent % 4096], 1);
					if (tx(&b, 1) != 1)
						break;
					sent++;
				}
				pd_driver_flush(&vq, true);
				while (rnd(8) && read_chain(&c, bytes)) {
					uint32_t len = lens[got % 4096];

					assert_int_equal(c.bytes, 48 + len);
					assert_int_equal(bytes[47], sidecar_byte(got, 47));
					for (uint32_t k = 0; k < len; k += 7)
						assert_int_equal(bytes[48 + k], frame_byte(got, k));
					held[n_held++] = c;
					got++;
				}
				while (n_held && rnd(6)) {
					uint32_t k = rnd(n_held), slots = held[k].slots;

					if (!f) {
						use(held[k].id, 0, slots);
						held[k] = held[--n_held];
						continue;
					}
					for (uint32_t i = 0; i < k; i++)
						slots += held[i].slots;
					use(held[k].id, 0, slots);
					n_held -= k + 1;
					memmove(held, held + k + 1, n_held * sizeof(held[0]));
				}
				pd_driver_position(&vq, true);
				assert_null(vq.broken);
			}
		}
}

/* The length of the `k`th frame, or 0 for a control message. */
static uint32_t length_of(uint32_t k)
{
	return k % 70 ? PD_FRAME_MIN_BYTES + k % 56 : 0;
}

/* Buffers filled in any order. */
static void test_rx_against_a_device_after_the_text(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 7, 8, 255, 256, 1024};

	for (unsigned s = 0; s < PD_ARRAY_SIZE(sizes); s++) {
		static uint8_t *held[SIZE_MAX_TEST];
		static uint16_t ids[SIZE_MAX_TEST];
		uint32_t n_held = 0, put = 0, got = 0;

		start(sizes[s], true, 48, F_PACKED | F_EVENT);
		while (got < 3000) {
			struct pd_buffer *b[64];
			int n;

			while (n_held < SIZE_MAX_TEST && is_available()) {
				assert_int_equal(slot_flags(avail_slot) & (NEXT | WRITE), WRITE);
				held[n_held] = slot_buf(avail_slot);
				ids[n_held++] = slot_id(avail_slot);
				read_on();
			}
			while (n_held && rnd(6)) {
				uint32_t k = rnd(n_held), len = length_of(put);

				for (uint32_t i = 0; i < 48; i++)
					held[k][i] = sidecar_byte(put, i);
				for (uint32_t i = 0; i < len; i++)
					held[k][48 + i] = frame_byte(put, i);
				use(ids[k], 48 + len, 1);
				put++;
				held[k] = held[--n_held];
				ids[k] = ids[n_held];
			}
			n = rx(b, 1 + rnd(64));
			assert_true(n >= 0);
			for (int i = 0; i < n; i++)
				frame_check(b[i], got + (uint32_t)i, length_of(got + (uint32_t)i),
					    true);
			n = n ? (int)rnd((uint32_t)n + 1) : 0;
			pd_driver_rx_done(&vq, true, (unsigned)n);
			got += (unsigned)n;
		}
	}
}

/* --- carrying on ----------------------------------------------------------------------------- */

/* The device dies in mid-ring; its successor begins at the base, gets what was not used, in order,
 * and no more. At every phase of the ring. */
static void test_carrying_on_sending(void **state)
{
	static struct out_frame f;
	static uint8_t bytes[2000];

	f.bufs[0] = header_bufs[N_HEADERS];
	for (unsigned round = 0; round < 2000; round++) {
		uint32_t n = 1 + rnd(9), sent = 0, alive = 0, base, order[32] = {0};
		struct chain c[32];
		struct pd_buffer *b;

		start(n, false, 48, F_PACKED);
		for (uint32_t before = rnd(3 * n); before; before--) {
			b = frame_make(&f, 0, 20, 1);
			assert_int_equal(tx(&b, 1), 1);
			pd_driver_flush(&vq, true);
			read_chain(&c[0], bytes);
			use(c[0].id, 0, 1);
			pd_driver_position(&vq, true);
		}
		for (;; sent++) {
			b = frame_make(&f, 100 + sent, 1 + rnd(n > 1 ? 200 : 60), 1);
			if (tx(&b, 1) != 1)
				break;
			pd_driver_flush(&vq, true);
			assert_true(read_chain(&c[sent], bytes));
			order[alive++] = sent;
		}
		/* Some are used, in any order, and seen or not; one is half way in. */
		for (uint32_t k = rnd(sent + 1); k && alive; k--) {
			uint32_t i = rnd(alive);

			use(c[order[i]].id, 0, c[order[i]].slots);
			memmove(&order[i], &order[i + 1], (--alive - i) * sizeof(order[0]));
			if (rnd(2))
				pd_driver_position(&vq, true);
		}
		/* It was not a kind one: every slot it has not handed back looks available. */
		for (uint32_t k = (used_slot - vq.theirs.slot + n) % n; alive && k < n; k++) {
			uint32_t slot = (vq.theirs.slot + k) % n;
			bool lap = slot >= used_slot ? used_wrap : !used_wrap;

			put16(ring + 16 * slot + 14, lap ? AVAILABLE : USED_BIT);
		}
		assert_int_equal(resume(&base), 0);
		assert_int_equal(base & 0xffff, base >> 16);
		assert_int_equal(base & 0x7fff, used_slot);
		assert_int_equal(base >> 15 & 1, used_wrap);
		avail_slot = used_slot;
		avail_wrap = used_wrap;
		for (uint32_t i = 0; i < alive; i++) {
			struct chain again;

			assert_true(read_chain(&again, bytes));
			assert_int_equal(again.bytes, c[order[i]].bytes);
			assert_int_equal(bytes[47], sidecar_byte(100 + order[i], 47));
			use(again.id, 0, again.slots);
		}
		assert_false(is_available());
		assert_int_equal(pd_driver_position(&vq, true) - vq.cursor, n);
		assert_null(vq.broken);
		/* And on, for some laps. */
		for (uint32_t k = 0; k < 3 * n; k++) {
			b = frame_make(&f, k, 20, 1);
			assert_int_equal(tx(&b, 1), 1);
			pd_driver_flush(&vq, true);
			assert_true(read_chain(&c[0], bytes));
			use(c[0].id, 0, 1);
			assert_int_equal(pd_driver_position(&vq, true) - vq.cursor, n);
		}
	}
}

/* Received frames stay, shown or not, and the other buffers are offered again. */
static void test_carrying_on_receiving(void **state)
{
	struct pd_buffer *b[8];
	uint32_t base;

	for (unsigned in_order = 0; in_order < 2; in_order++) {
		start(5, true, 48, F_PACKED | (in_order ? F_ORDER : 0));
		for (unsigned round = 0; round < 30; round++) {
			for (unsigned i = 0; i < 2; i++) {
				uint16_t id = slot_id(avail_slot);

				memset(slot_buf(avail_slot), 0, 48);
				read_on();
				use(id, 62 + i, 1);
				if (!i)
					assert_int_equal(rx(b, 8), 1);
			}
			/* The other three were read, and one of them is being written. */
			memset(ring + 16 * ((used_slot + 1) % 5), 0xff, 16);
			assert_int_equal(resume(&base), 0);
			assert_int_equal(base, (used_slot | (uint32_t)used_wrap << 15) * 0x10001u);
			avail_slot = used_slot;
			avail_wrap = used_wrap;
			assert_int_equal(rx(b, 8), 2);
			assert_int_equal(b[0]->total_len, 14);
			assert_int_equal(b[1]->total_len, 15);
			for (unsigned i = 0; i < 3; i++) {
				assert_int_equal(slot_flags(avail_slot) & WRITE, WRITE);
				read_on();
			}
			assert_false(is_available());
			pd_driver_rx_done(&vq, true, 2);
			assert_true(is_available());
			avail_slot = used_slot;
			avail_wrap = used_wrap;
		}
		assert_null(vq.broken);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tx_byte_for_byte),
		cmocka_unit_test(test_rx_ring_is_filled),
		cmocka_unit_test(test_rx_mergeable_and_asking),
		cmocka_unit_test(test_device_event),
		cmocka_unit_test(test_hostile_devices),
		cmocka_unit_test(test_in_order_batches),
		cmocka_unit_test(test_in_order_batches_split),
		cmocka_unit_test(test_tx_against_a_device_after_the_text),
		cmocka_unit_test(test_rx_against_a_device_after_the_text),
		cmocka_unit_test(test_carrying_on_sending),
		cmocka_unit_test(test_carrying_on_receiving),
	};

	return cmocka_run_group_tests(tests, headers_setup, NULL);
}
