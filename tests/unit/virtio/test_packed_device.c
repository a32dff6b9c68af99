/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the device on packed rings written by hand, byte by byte, from the text of virtio 1.2
 * (2.8). Nothing here uses our driver or the kernel's structures.
 *
 * A descriptor is le64 addr, le32 len, le16 id, le16 flags. A driver in its lap with wrap counter w
 * makes one available with AVAIL (bit 7) = w and USED (bit 15) = !w, and finds it used when both
 * are the wrap counter of the lap in which it looks. The ring ends at an unmapped page.
 */

#include "device_rig.h"

#define F_PACKED (1ULL << 34)
#define F_ORDER (1ULL << 35)
#define AVAILABLE 0x0080
#define USED_BIT 0x8000
#define SIZE_MAX_TEST 32768u

static uint8_t *ring, *events; /* events: the driver's structure, 16 bytes on the device's */
static uint32_t size;

/* The driver of the test: where it makes available and where it looks for used ones. */
static uint32_t avail_slot, used_slot;
static bool avail_wrap, used_wrap;

static void start_packed(uint32_t n, uint32_t hdr, uint64_t features, uint32_t base)
{
	struct pd_vq_layout layout = {
		.size = n,
		.hdr_bytes = hdr,
		.features = features | F_PACKED | F_V1,
		.avail = events,
		.used = events + 16,
		.base = base,
	};

	pd_vq_fini(&vq);
	size = n;
	/* The last descriptor ends where the memory does. */
	layout.desc = ring = guarded_map(16 * (size_t)n);
	memset(events, 0, 32);
	memset(mem_b, 0, REGION);
	memset(mem_c, 0, REGION);
	avail_slot = used_slot = base & 0x7fff;
	avail_wrap = used_wrap = base >> 15 & 1;
	/* As if the laps before had been used. */
	for (uint32_t i = 0; i < n; i++)
		put16(ring + 16 * i + 14,
		      (i < avail_slot) == avail_wrap ? AVAILABLE | USED_BIT : 0);
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
}

static void stop_packed(void)
{
	assert_null(vq.broken);
	pd_vq_fini(&vq);
	guarded_unmap(ring, 16 * (size_t)size);
}

/* Write the descriptor in `slot` whose flags are stored last. */
static void put_packed(uint32_t slot, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	uint8_t *d = ring + 16 * slot;

	put64(d, addr);
	put32(d + 8, len);
	put16(d + 12, id);
	pd_store_release((uint16_t *)(void *)(d + 14), flags);
}

/* Write an entry of an indirect table: in the layout of the ring's own descriptors, but only WRITE and
 * the order count. */
static void put_entry(uint8_t *p, uint64_t addr, uint32_t len, uint16_t write)
{
	put64(p, addr);
	put32(p + 8, len);
	put16(p + 12, (uint16_t)rnd(65536));
	put16(p + 14, write | ((uint16_t)rnd(65536) & (uint16_t)~WRITE));
}

/* Make one descriptor available. */
static void offer(uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	put_packed(avail_slot, addr, len, id, flags | (avail_wrap ? AVAILABLE : USED_BIT));
	if (++avail_slot == size) {
		avail_slot = 0;
		avail_wrap = !avail_wrap;
	}
}

/* Is there a used element where the driver looks next? Its id and length; goes `slots` on. */
static bool taken(uint16_t *id, uint32_t *len, uint16_t *flags)
{
	const uint8_t *d = ring + 16 * used_slot;

	*flags = get16(d + 14);
	if (!(*flags & AVAILABLE) != !(*flags & USED_BIT) || !(*flags & AVAILABLE) == used_wrap)
		return false;
	*id = get16(d + 12);
	*len = get32(d + 8);
	return true;
}
static void pass(uint32_t slots)
{
	used_slot += slots;
	if (used_slot >= size) {
		used_slot -= size;
		used_wrap = !used_wrap;
	}
}

static void test_rx_byte_for_byte(void **state)
{
	static const uint32_t bases[] = {
		1u << 15, 2 | 1u << 15, 2, 0x00010001, 0x80028002,
		/* used behind available: where nothing is handed back yet */
		0x00010002};
	static const uint32_t slots[] = {0, 2, 2, 1, 2, 1};
	static const bool wraps[] = {true, true, false, false, true, false};
	uint8_t wire[200], want[16];
	struct pd_buffer *b[4];

	for (unsigned i = 0; i < PD_ARRAY_SIZE(bases); i++) {
		uint32_t n = wire_frame(wire, 48, 5, 60), slot = slots[i];
		uint32_t base = slot | (uint32_t)wraps[i] << 15;
		struct pd_vq_layout layout = {.size = 3,
					      .hdr_bytes = 48,
					      .features = F_PACKED | F_V1,
					      .avail = events,
					      .used = events + 16,
					      .base = bases[i]};

		start_packed(3, 48, 0, base);
		layout.desc = ring;
		pd_vq_fini(&vq);
		assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
		assert_int_equal(pd_vq_base(&vq) & 0xffff, base);
		assert_int_equal(pd_vq_base(&vq) >> 16, base);
		guest_write(C_GPA + 100, wire, n);
		assert_int_equal(rx(b, 4), 0);
		/* An id that is no descriptor's: the driver's own business. */
		offer(C_GPA + 100, n, 0xbeef, 0);
		memcpy(want, ring + 16 * slot, 16);
		assert_int_equal(pd_device_position(&vq, true) - vq.cursor, 1);
		assert_int_equal(rx(b, 4), 1);
		frame_check(b[0], 5, 60, true);
		assert_ptr_equal(b[0]->data, mem_c + 148);
		/* Nothing is consumed by being shown. */
		assert_memory_equal(ring + 16 * slot, want, 16);
		assert_int_equal(rx(b, 4), 1);
		assert_true(pd_device_rx_done(&vq, true, 1));
		put32(want + 8, 0);
		put16(want + 14, wraps[i] ? 0x8080 : 0);
		assert_memory_equal(ring + 16 * slot, want, 16);
		assert_int_equal(rx(b, 4), 0);
		slot = (slot + 1) % 3;
		base = slot | (uint32_t)(slot ? wraps[i] : !wraps[i]) << 15;
		assert_int_equal(pd_vq_base(&vq), base | base << 16);
		stop_packed();
	}
}

/* A frame over two buffers, the first of two descriptors; nothing is seen before the flush. */
static void test_tx_byte_for_byte(void **state)
{
	static struct out_frame f[2];
	struct pd_buffer *b[2];
	uint8_t want[300], before[16];

	f[0].bufs[0] = header_bufs[N_HEADERS];
	f[1].bufs[0] = header_bufs[N_HEADERS + 1];
	start_packed(5, 48, F_MRG | F_INDIRECT, 3 | 1u << 15);
	offer(C_GPA, 40, 7, WRITE | NEXT);
	offer(C_GPA + 100, 60, 7, WRITE);
	offer(C_GPA + 200, 100, 9, WRITE);
	put_entry(mem_b, C_GPA + 400, 1000, WRITE);
	offer(B_GPA, 16, 11, INDIRECT);
	memcpy(before, ring + 16 * 3, 16);
	b[0] = frame_make(&f[0], 3, 100, 1);
	b[1] = frame_make(&f[1], 4, 200, 1);
	assert_int_equal(tx(b, 2), 2);
	assert_memory_equal(ring + 16 * 3, before, 16);
	assert_true(pd_device_flush(&vq, true));
	/* id 7: 100 bytes; then, two slots on and in the next lap, id 9: 48 bytes; id 11: 248. */
	assert_int_equal(get32(ring + 16 * 3 + 8), 100);
	assert_int_equal(get32(ring + 16 * 3 + 12), 7 | 0x8082u << 16);
	assert_int_equal(get32(ring + 8), 48);
	assert_int_equal(get32(ring + 12), 9 | 0x0002 << 16);
	assert_int_equal(get32(ring + 16 + 8), 248);
	assert_int_equal(get32(ring + 16 + 12), 11 | 0x0002 << 16);
	wire_frame(want, 48, 3, 100);
	want[0] = 2;
	assert_memory_equal(mem_c, want, 40);
	assert_memory_equal(mem_c + 100, want + 40, 60);
	assert_memory_equal(mem_c + 200, want + 100, 48);
	wire_frame(want, 48, 4, 200);
	want[0] = 1;
	assert_memory_equal(mem_c + 400, want, 248);
	/* Two that do not suffice: nothing is written into the ring, and it is told which slot is
	 * missing. */
	offer(C_GPA, 40, 1, WRITE | NEXT);
	offer(C_GPA + 100, 60, 1, WRITE);
	memcpy(want, ring, 80);
	b[0] = frame_make(&f[0], 3, 100, 1);
	assert_int_equal(tx(b, 1), 0);
	assert_false(pd_device_flush(&vq, true));
	assert_memory_equal(ring, want, 80);
	assert_int_equal(pd_device_position(&vq, true), vq.cursor);
	offer(C_GPA + 200, 47, 2, WRITE); /* one byte short */
	assert_int_equal(tx(b, 1), 0);
	assert_memory_equal(ring, want, 64);
	offer(C_GPA + 300, 1, 3, WRITE);
	assert_int_equal(tx(b, 1), 1);
	pd_device_flush(&vq, true);
	assert_int_equal(get16(mem_c), 3);
	stop_packed();
}

/* --- a driver after the text, against the device ---------------------------------------------- */

/* A chain that the driver has made available. */
struct offered {
	uint16_t id, slots;
	uint32_t seq, len; /* receive: frame; transmit: room in the buffers */
};
static struct offered queue[SIZE_MAX_TEST];
static uint32_t q_head, q_tail, free_slots;

/* Offer a chain of `n` bytes at `gpa`, of up to four descriptors or an indirect table. */
static uint32_t offer_chain(uint64_t gpa, uint32_t n, uint16_t id, uint16_t write, bool indirect)
{
	uint32_t k = indirect ? 1 : 1 + rnd(pd_min(free_slots, 4u)), cut[4], first = avail_slot;
	uint16_t head_flags = 0;

	for (uint32_t i = 0, left = n; i < k; i++, left -= cut[i - 1])
		cut[i] = i + 1 < k ? rnd(left + 1) : left;
	if (indirect) {
		uint64_t at_gpa = B_GPA + 64 * (id % 900u);
		uint8_t d[32];

		put_entry(d, gpa, n / 2, write);
		put_entry(d + 16, gpa + n / 2, n - n / 2, write);
		guest_write(at_gpa, d, 32);
		offer(at_gpa, 32, id, INDIRECT);
		free_slots--;
		return 1;
	}
	/* 2.8.21: the flags of the first last. */
	for (uint32_t i = 0; i < k; i++) {
		uint32_t slot = avail_slot;

		offer(gpa, cut[i], i + 1 < k ? 0xdead : id, write | (i + 1 < k ? NEXT : 0));
		if (slot == first && !i) {
			head_flags = get16(ring + 16 * slot + 14);
			put16(ring + 16 * slot + 14, head_flags ^ 0x8080);
		}
		gpa += cut[i];
	}
	pd_store_release((uint16_t *)(void *)(ring + 16 * first + 14), head_flags);
	free_slots -= k;
	return k;
}

/* Take back what is used; every id once, in order. `write`: and with its length. */
static void take_back(bool write, bool in_order)
{
	uint16_t id, flags;
	uint32_t len;

	while (q_head != q_tail && taken(&id, &len, &flags)) {
		uint32_t slots = 0;
		const struct offered *o;

		do {
			assert_int_not_equal(q_head, q_tail);
			o = &queue[q_head++ % SIZE_MAX_TEST];
			slots += o->slots;
			free_slots += o->slots;
		} while (in_order && !write && o->id != id);
		assert_int_equal(o->id, id);
		assert_int_equal(!!(flags & WRITE), write);
		assert_int_equal(len > 0, write);
		pass(slots);
	}
}

static void model_run(uint32_t n, uint64_t features, uint32_t frames, uint32_t base)
{
	static uint8_t wire[400];
	uint32_t sent = 0, got = 0;
	uint16_t id = 0;

	start_packed(n, 48, features | F_INDIRECT | F_MRG, base);
	q_head = q_tail = 0;
	free_slots = n;
	while (got < frames) {
		struct pd_buffer *b[256];
		int shown;

		for (unsigned burst = rnd(40); burst && free_slots && sent < frames; burst--) {
			/* A place of its own for as long as it may be there. */
			uint64_t gpa = C_GPA + 128 * (sent % 500);
			uint32_t len = rnd_frame(60), k;

			if (q_tail - q_head >= 400)
				break;
			guest_write(gpa, wire, wire_frame(wire, 48, sent, len));
			k = offer_chain(gpa, 48 + len, id, 0, !rnd(4));
			queue[q_tail++ % SIZE_MAX_TEST] =
				(struct offered){id, (uint16_t)k, sent, len};
			id += 37;
			sent++;
		}
		shown = rx(b, 1 + rnd(50));
		assert_true(shown >= 0);
		for (int i = 0; i < shown; i++)
			assert_int_equal(b[i]->data[0], frame_byte(got + (uint32_t)i, 0));
		shown = shown ? 1 + (int)rnd((uint32_t)shown) : 0;
		if (shown)
			pd_device_rx_done(&vq, true, (unsigned)shown);
		got += (unsigned)shown;
		if (rnd(2) || !shown)
			take_back(false, features & F_ORDER);
	}
	take_back(false, features & F_ORDER);
	assert_int_equal(q_head, q_tail);
	stop_packed();
}

static void test_rx_against_a_driver_after_the_text(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 7, 8, 255, 256, 1024, 32768};

	for (unsigned s = 0; s < PD_ARRAY_SIZE(sizes); s++)
		for (unsigned f = 0; f < 4; f++)
			model_run(sizes[s], (f & 1 ? F_ORDER : 0) | (f & 2 ? F_EVENT : 0),
				  pd_min(3 * sizes[s], 40000u) + 2000,
				  rnd(sizes[s]) | (uint32_t)rnd(2) << 15);
}

static void test_tx_against_a_driver_after_the_text(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 7, 8, 255, 256, 1024};
	static struct out_frame f;
	uint16_t id = 0;

	f.bufs[0] = header_bufs[N_HEADERS];
	for (unsigned s = 0; s < PD_ARRAY_SIZE(sizes); s++) {
		uint32_t n = sizes[s], done = 0;

		start_packed(n, 48, F_MRG | F_INDIRECT, rnd(n) | (uint32_t)rnd(2) << 15);
		q_head = q_tail = 0;
		free_slots = n;
		while (done < 3000) {
			/* Buffers of 48 to 400 bytes: a frame takes up to five of them. */
			uint32_t len = 1 + rnd(pd_min(n, 5u) * 48 > 49 ? 150 : 1);
			struct pd_buffer *b;
			uint8_t back[2000], want[300];
			uint32_t at_byte = 0, chains = 0;
			uint16_t got_id, flags;
			uint32_t used_len_;

			while (free_slots && q_tail - q_head < 100 && rnd(8)) {
				uint32_t room = 48 + rnd(n > 5 ? 352 : 200) + (n < 5 ? 200 : 0), k;
				uint64_t gpa = C_GPA + 512 * (q_tail % 120);

				k = offer_chain(gpa, room, id, WRITE, !rnd(4));
				queue[q_tail++ % SIZE_MAX_TEST] = (struct offered){
					id, (uint16_t)k, (uint32_t)(gpa - C_GPA), room};
				id += 91;
			}
			b = frame_make(&f, done, len, 1);
			if (tx(&b, 1) != 1)
				continue;
			pd_device_flush(&vq, true);
			/* 5.1.6.4: num_buffers elements, all but the last full. */
			while (taken(&got_id, &used_len_, &flags)) {
				const struct offered *o = &queue[q_head++ % SIZE_MAX_TEST];

				assert_int_equal(got_id, o->id);
				assert_true(flags & WRITE);
				memcpy(back + at_byte, mem_c + o->seq, used_len_);
				at_byte += used_len_;
				assert_true(used_len_ <= o->len);
				if (at_byte < 48 + len)
					assert_int_equal(used_len_, o->len);
				free_slots += o->slots;
				chains++;
				pass(o->slots);
			}
			assert_int_equal(at_byte, wire_frame(want, 48, done, len));
			assert_int_equal(get16(back), chains);
			assert_memory_equal(back + 2, want + 2, at_byte - 2);
			done++;
		}
		stop_packed();
	}
}

/* --- notification ---------------------------------------------------------------------------- */

/* Use `n` descriptors and tell whether the driver is to be told. */
static bool use(unsigned n)
{
	struct pd_buffer *b[64];

	for (unsigned i = 0; i < n; i++)
		offer(C_GPA, 100, (uint16_t)i, 0);
	assert_int_equal(rx(b, n), n);
	return pd_device_rx_done(&vq, true, n);
}

/* The driver asks to be told at a slot of a lap, with every distance, size and lap. */
static void test_driver_event_off_wrap(void **state)
{
	static const uint32_t sizes[] = {1, 2, 5, 8};

	for (unsigned s = 0; s < 4; s++)
		for (uint32_t at_slot = 0; at_slot < sizes[s]; at_slot++)
			for (unsigned lap = 0; lap < 2; lap++)
				for (uint32_t begin = 0; begin < sizes[s]; begin++)
					for (uint32_t n = 1; n <= sizes[s]; n++) {
						/* Steps of the device from (begin, wrap 1). */
						uint32_t target = at_slot + (lap ? 0 : sizes[s]);
						bool want = target >= begin && target < begin + n;

						start_packed(sizes[s], 48, F_EVENT,
							     begin | 1u << 15);
						vq.signalled_valid = true;
						put16(events, (uint16_t)(at_slot | lap << 15));
						put16(events + 2, 2);
						if (use(n) != want)
							fail_msg("size %u: at %u wrap %u, %u from "
								 "%u",
								 sizes[s], at_slot, lap, n, begin);
						stop_packed();
					}
	/* The flags; the first publication tells in any case; what is reserved or was not agreed
	 * means yes. */
	start_packed(8, 48, F_EVENT, 1u << 15);
	put16(events + 2, 1);
	assert_true(use(1));
	assert_false(use(2));
	put16(events + 2, 0);
	assert_true(use(1));
	put16(events + 2, 3);
	assert_true(use(1));
	stop_packed();
	start_packed(8, 48, 0, 1u << 15);
	vq.signalled_valid = true;
	put16(events, 5 | 1u << 15);
	put16(events + 2, 2);
	assert_true(use(1));
	put16(events + 2, 1);
	assert_false(use(2));
	stop_packed();
}

/* We ask the driver: the slot of the position, and its lap. */
static void test_device_event(void **state)
{
	start_packed(5, 48, F_EVENT, 3 | 1u << 15);
	assert_false(pd_device_arm(&vq, true, vq.cursor));
	assert_int_equal(get32(events + 16), 3 | 1u << 15 | 2u << 16);
	offer(C_GPA, 100, 0, NEXT);
	offer(C_GPA, 100, 0, 0);
	assert_true(pd_device_arm(&vq, true, vq.cursor));
	assert_int_equal(pd_device_position(&vq, true), vq.cursor + 2);
	/* Both seen: the next is slot 0 of the next lap. */
	assert_false(pd_device_arm(&vq, true, vq.cursor + 2));
	assert_int_equal(get32(events + 16), 2u << 16);
	offer(C_GPA, 100, 1, 0);
	assert_true(pd_device_arm(&vq, true, vq.cursor + 2));
	offer(C_GPA, 100, 2, 0);
	offer(C_GPA, 100, 3, 0);
	/* A whole lap ahead: the slot where we stand, in the other lap. */
	assert_false(pd_device_arm(&vq, true, vq.cursor + 5));
	assert_int_equal(get32(events + 16), 3 | 2u << 16);
	pd_device_disarm(&vq, true);
	assert_int_equal(get16(events + 18), 1);
	/* Somebody else has consumed since: that is news. */
	assert_true(pd_device_arm(&vq, true, vq.cursor - 1));
	stop_packed();
	start_packed(5, 48, 0, 1u << 15);
	assert_false(pd_device_arm(&vq, true, vq.cursor));
	assert_int_equal(get16(events + 18), 0);
	pd_device_disarm(&vq, true);
	assert_int_equal(get16(events + 18), 1);
	assert_false(pd_device_arm(&vq, true, vq.cursor));
	assert_int_equal(get16(events + 18), 0);
	stop_packed();
}

/* --- hostile --------------------------------------------------------------------------------- */

static void broken_by(const char *why, int got)
{
	assert_int_equal(got, -ENETDOWN);
	assert_non_null(vq.broken);
	assert_string_equal(vq.broken, why);
	assert_int_equal(pd_device_position(&vq, true), vq.cursor);
	assert_int_equal(tx(header_bufs, 1), -ENETDOWN);
	pd_vq_fini(&vq);
	guarded_unmap(ring, 16 * (size_t)size);
}

static void test_rings_that_are_broken(void **state)
{
	struct pd_buffer *b[8];

	/* Every descriptor says that another follows. */
	start_packed(4, 48, 0, 2 | 1u << 15);
	for (unsigned i = 0; i < 4; i++)
		offer(C_GPA, 10, 0, NEXT);
	broken_by("a descriptor chain is longer than the ring", rx(b, 8));
	/* The chain's end was not made available. */
	start_packed(4, 48, 0, 3 | 1u << 15);
	offer(C_GPA, 10, 0, NEXT);
	broken_by("a descriptor chain goes on where none is available", rx(b, 8));
	/* What was there is taken away. */
	start_packed(4, 48, 0, 1u << 15);
	offer(C_GPA, 100, 0, 0);
	offer(C_GPA, 100, 0, 0);
	assert_int_equal(pd_device_position(&vq, true), 2);
	put16(ring + 16 + 14, 0);
	broken_by("a descriptor that was available is not any more", rx(b, 8));
	/* Indirect: not agreed, within a chain, before a chain, of bad lengths. */
	start_packed(4, 48, 0, 1u << 15);
	offer(B_GPA, 16, 0, INDIRECT);
	broken_by("an indirect descriptor, which was not negotiated", rx(b, 8));
	start_packed(4, 48, F_INDIRECT, 1u << 15);
	offer(C_GPA, 10, 0, NEXT);
	offer(B_GPA, 16, 0, INDIRECT);
	broken_by("an indirect descriptor at the end of a chain", rx(b, 8));
	start_packed(4, 48, F_INDIRECT, 1u << 15);
	offer(B_GPA, 16, 0, INDIRECT | NEXT);
	offer(C_GPA, 10, 0, 0);
	broken_by("an indirect descriptor that is not the chain's last", rx(b, 8));
	static const uint32_t lens[] = {0, 8, 17, 16 * 32769, UINT32_MAX};
	for (unsigned i = 0; i < 5; i++) {
		start_packed(4, 48, F_INDIRECT, 1u << 15);
		offer(B_GPA, lens[i], 0, INDIRECT);
		broken_by("an indirect table of a bad length", rx(b, 8));
	}
	/* No room where there should be. */
	start_packed(4, 48, F_MRG, 1u << 15);
	offer(C_GPA, 0, 0, WRITE);
	frame_make(&(struct out_frame){.bufs = {header_bufs[N_HEADERS]}}, 0, 0, 1);
	header_bufs[N_HEADERS]->total_len = 0;
	header_bufs[N_HEADERS]->len = 0;
	broken_by("a receive chain has no room", tx(&header_bufs[N_HEADERS], 1));
	/* Flags that say available and used at once, or neither, are not available. */
	start_packed(4, 48, 0, 1u << 15);
	put_packed(0, C_GPA, 100, 0, 0x8080);
	assert_int_equal(rx(b, 8), 0);
	put_packed(0, C_GPA, 100, 0, 0x8000);
	assert_int_equal(rx(b, 8), 0);
	stop_packed();
}

/*
 * A driver that makes slots available again before they were given back. What a device consumes and
 * has not published is not the driver's, so the ring has no more than a lap, for single descriptors
 * as for a chain, behind what is staged and behind what is only shown.
 */
static void test_slots_not_given_back(void **state)
{
	struct out_frame frame = {.bufs = {header_bufs[N_HEADERS]}};
	struct pd_ring_block block;
	struct pd_ring_walk walk;

	for (unsigned chained = 0; chained < 2; chained++) {
		start_packed(4, 12, F_MRG, 1u << 15);
		frame_make(&frame, 0, 60, 1);
		for (unsigned i = 0; i < 5; i++) {
			bool last = i == 4;

			/* The fifth is slot 0, of the next lap. */
			offer(C_GPA + 0x100 * i, 100, (uint16_t)i,
			      WRITE | (chained && i && !last ? NEXT : 0));
		}
		for (unsigned i = 0; i < (chained ? 1 : 4); i++) {
			put_packed(0, C_GPA, 100, 0, WRITE | AVAILABLE);
			block.n = block.at = 0;
			assert_int_equal(
				pd_device_fill(&vq, true, &block, header_bufs[N_HEADERS], 12), 1);
		}
		put_packed(0, C_GPA, 100, 4, WRITE | USED_BIT);
		block.n = block.at = 0;
		assert_int_equal(pd_device_fill(&vq, true, &block, header_bufs[N_HEADERS], 12),
				 chained ? -ENETDOWN : 0);
		assert_int_equal(vq.staged, chained ? 1 : 4);
		if (chained) {
			assert_string_equal(vq.broken,
					    "a descriptor chain is longer than the ring");
			pd_vq_fini(&vq);
			guarded_unmap(ring, 16 * (size_t)size);
			continue;
		}
		/* Nor is the side ready: its caller would try in vain until it flushes. */
		assert_int_equal(pd_device_position(&vq, true), vq.cursor);
		pd_device_flush(&vq, true);
		stop_packed();
	}
	/* Slot 0 is shown, and the chain behind it comes round to it. */
	start_packed(4, 48, 0, 1u << 15);
	for (unsigned i = 0; i < 5; i++)
		offer(C_GPA, 100, (uint16_t)i, i < 4 ? NEXT : 0);
	assert_int_equal(pd_ring_fetch(&vq, true, &block, 1, 1, false), 1);
	pd_ring_walk_start(&vq, true, &walk, &block, 0, 1, false);
	assert_int_equal(pd_ring_walk_end(&vq, true, &walk), -ENETDOWN);
	broken_by("a descriptor chain is longer than the ring", -ENETDOWN);
}

/* Chains that are no frame are handed back whole, in order, and what follows is found. */
static void test_bad_chains_are_passed_over(void **state)
{
	uint8_t wire[200];
	uint32_t n = wire_frame(wire, 48, 9, 70), len;
	struct pd_buffer *b[8];
	uint16_t id, flags;

	start_packed(7, 48, F_INDIRECT, 5 | 1u << 15);
	guest_write(C_GPA, wire, n);
	offer(C_GPA, 20, 0xdead, NEXT); /* shorter than a header, in two */
	offer(C_GPA, 20, 1, 0);
	offer(C_GPA, n, 0xdead, NEXT | WRITE); /* wrong direction, and goes on */
	offer(C_GPA, n, 0xdead, NEXT);
	offer(C_GPA, n, 2, 0);
	offer(C_GPA, n, 3, 0);
	assert_int_equal(rx(b, 8), 1);
	frame_check(b[0], 9, 70, true);
	assert_true(taken(&id, &len, &flags));
	assert_int_equal(id, 1);
	pass(2);
	assert_true(taken(&id, &len, &flags));
	assert_int_equal(id, 2);
	pass(3);
	assert_false(taken(&id, &len, &flags));
	pd_device_rx_done(&vq, true, 1);
	assert_true(taken(&id, &len, &flags));
	assert_int_equal(id, 3);
	assert_int_equal(vq.counts.drop_malformed, 2);
	assert_int_equal(vq.counts.desc_errors, 1);
	stop_packed();
}

static void test_discard(void **state)
{
	uint16_t id, flags;
	uint32_t len;
	bool notify;

	start_packed(7, 48, F_INDIRECT, 5 | 1u << 15);
	offer(C_GPA, 20, 0xdead, NEXT);
	offer(C_GPA, 20, 1, 0);
	offer(0, UINT32_MAX, 2, INDIRECT);
	offer(C_GPA, 20, 3, 0);
	assert_int_equal(pd_device_discard(&vq, 2, &notify), 2);
	assert_int_equal(pd_device_discard(&vq, 8, &notify), 1);
	assert_int_equal(pd_device_discard(&vq, 8, &notify), 0);
	for (unsigned i = 1; i <= 3; i++) {
		assert_true(taken(&id, &len, &flags));
		assert_int_equal(id, i);
		pass(i == 1 ? 2 : 1);
	}
	stop_packed();
}

/*
 * --- a driver that writes while we read --------------------------------------------------------
 */

#define SCRIBBLED 16u

/* Write a random descriptor, mostly a sensible one, into the ring or an indirect table. */
static void scribble_once(uint64_t *state)
{
	uint64_t *words = (uint64_t *)(void *)ring, x = *state, addr, tail;
	uint16_t lap;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	if (x & 32)
		words = (uint64_t *)(void *)mem_b;
	lap = x >> 6 & 3 ? (x & 256 ? AVAILABLE : USED_BIT) : (uint16_t)(x >> 8 & 0x8080);
	addr = x >> 10 & 7 ? C_GPA + (x >> 16 & 0xffff) : x >> 13 & 1 ? B_GPA : x;
	tail = (x >> 40 & 0x7ff) | (x >> 20 & 0xffff) << 32 | (uint64_t)((x >> 56 & 7) | lap) << 48;
	pd_store_relaxed(&words[2 * (x % SCRIBBLED)], addr);
	pd_store_relaxed(&words[2 * (x % SCRIBBLED) + 1], tail);
}

static void test_descriptors_that_change(void **state)
{
	static struct out_frame f;
	struct pd_buffer *b[16], *out;
	unsigned moved = 0, broke = 0, sum = 0;
	uint64_t x = 362436069;

	f.bufs[0] = header_bufs[N_HEADERS];
	start_packed(SCRIBBLED, 48, F_INDIRECT | F_MRG, 1u << 15);
#ifdef PD_UNDER_TSAN
	/* The race is the test: what a peer does to its memory is not ours to order. */
	stop_packed();
	return;
#endif
	scribble_start(scribble_once);
	for (unsigned round = 0; round < 20000; round++) {
		int n;

		/* Here too: the other thread may not get to run. */
		for (unsigned i = 0; i < 16; i++)
			scribble_once(&x);
		pd_device_position(&vq, true);
		if (round & 1) {
			n = rx(b, 16);
			sum += frames_read(b, n);
			if (n > 0)
				pd_device_rx_done(&vq, true, (unsigned)n);
		} else {
			out = frame_make(&f, round, 1 + rnd(1000), 1);
			n = tx(&out, 1);
			pd_device_flush(&vq, true);
		}
		moved += n > 0;
		assert_true(vq.theirs.slot < SCRIBBLED && vq.ours.slot == vq.theirs.slot);
		if (vq.broken) {
			broke++;
			vq.broken = NULL;
			vq.seen = vq.cursor;
		}
	}
	scribble_stop();
	assert_true(moved > 100 && broke > 100);
	assert_true(sum || !sum);
	stop_packed();
}

static void test_layouts(void **state)
{
	struct pd_vq_layout layout = {.hdr_bytes = 48,
				      .features = F_PACKED | F_V1,
				      .desc = mem_a,
				      .avail = mem_b,
				      .used = mem_c};
	const char *why;

	for (uint32_t i = 1; i <= 32768; i = i * 3 + 1) {
		layout.size = i;
		layout.base = (i - 1) | 1u << 15;
		assert_int_equal(pd_vq_layout_check(&layout, &why), 0);
		layout.base = i;
		assert_int_equal(pd_vq_layout_check(&layout, &why), i == 32768 ? 0 : -EINVAL);
		layout.base = i << 16;
		assert_int_equal(pd_vq_layout_check(&layout, &why), i == 32768 ? 0 : -EINVAL);
	}
	layout.base = 0;
	layout.size = 0;
	assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
	layout.size = 32769;
	assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
	layout.size = 3;
	layout.avail = mem_b + 2;
	assert_int_equal(pd_vq_layout_check(&layout, &why), -EINVAL);
}

static int setup(void **state)
{
	events = guarded_map(32);
	return device_setup(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rx_byte_for_byte),
		cmocka_unit_test(test_tx_byte_for_byte),
		cmocka_unit_test(test_rx_against_a_driver_after_the_text),
		cmocka_unit_test(test_tx_against_a_driver_after_the_text),
		cmocka_unit_test(test_driver_event_off_wrap),
		cmocka_unit_test(test_device_event),
		cmocka_unit_test(test_rings_that_are_broken),
		cmocka_unit_test(test_slots_not_given_back),
		cmocka_unit_test(test_bad_chains_are_passed_over),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_descriptors_that_change),
		cmocka_unit_test(test_layouts),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
