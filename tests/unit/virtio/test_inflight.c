/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/inflight.c: regions written and read by hand, byte by byte, from the text of vhost-user
 * ("Inflight I/O tracking"): fresh ones, what a device leaves in them, what the next one makes of
 * that, and every state that no device leaves.
 */
#include "device_rig.h"
#include "virtio/inflight.h"

#define F_PACKED (1ULL << 34)
#define AVAILABLE 0x0080
#define USED_BIT 0x8000
#define SIZE 16
#define ENTRIES 32 /* of the regions: more than the rings have */

/* Of both formats, behind 8 bytes of features. */
enum { VERSION_AT = 8, SIZE_AT = 10 };
/* A split region, and in an entry. */
enum { BATCH_AT = 12, USED_AT = 14, S_NEXT = 6, COUNTER = 8 };
#define SPLIT(i) (16 + 16 * (i))
/*
 * A packed region: each index and counter is followed by the one of the last whole batch; and in an
 * entry.
 */
enum { FREE_AT = 12, OLD_FREE_AT = 14, P_USED_AT = 16, OLD_USED_AT = 18, WRAP_AT = 20 };
enum { OLD_WRAP_AT = 21, NEXT_AT = 2, LAST_AT = 4, NUM_AT = 6, ID_AT = 16, FLAGS_AT = 18 };
enum { LEN_AT = 20, ADDR_AT = 24 };
#define PACKED(i) (32 + 32 * (i))

static uint8_t *region;
static size_t region_bytes;
static struct pd_vq_layout layout;

/* A zeroed region that ends where its memory does, and a ring of `size` in zeroed memory. */
static void fresh(uint32_t size, uint32_t entries, uint64_t features)
{
	pd_vq_fini(&vq);
	if (region)
		guarded_unmap(region, region_bytes);
	region_bytes = pd_inflight_queue_bytes(entries, features & F_PACKED);
	region = guarded_map(region_bytes);
	memset(mem_a, 0, REGION);
	ring_size = size;
	layout = (struct pd_vq_layout){
		.size = size,
		.hdr_bytes = 12,
		.features = features | F_V1,
		.desc = mem_a + DESC,
		.avail = mem_a + AVAIL,
		.used = mem_a + USED,
		.base = features & F_PACKED ? 0x8000 : 0,
	};
}

/* A device takes ring and region up. */
static void up(uint32_t entries)
{
	assert_null(pd_inflight_begin(&layout, region, entries));
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
	layout.inflight = NULL;
}

/* The device is killed: nothing of what it holds is put in order. */
static void killed(void)
{
	pd_inflight_free(vq.inflight);
	vq.inflight = NULL;
	pd_vq_fini(&vq);
}

/* Where buffer `i` is, and which one a frame stands in. */
static uint64_t buffer(unsigned i)
{
	return A_GPA + FREE + 0x100 * i;
}
static unsigned buffer_of(const struct pd_buffer *b)
{
	return (unsigned)(b->data - (mem_a + FREE)) / 0x100;
}

/* Show up to `n` frames and compare their buffers with the list. */
static void shows(unsigned n, const unsigned *expected)
{
	struct pd_buffer *bufs[PD_VQ_FRAMES_MAX];

	assert_int_equal(rx(bufs, PD_VQ_FRAMES_MAX), n);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(buffer_of(bufs[i]), expected[i]);
}

/* Give back the first `n` of those. */
static void give_back(unsigned n)
{
	pd_device_rx_done(&vq, vq.packed, n);
}

/* --- split ----------------------------------------------------------------------------------- */

/* The driver makes chains with these heads available, each of one buffer of that number. */
static void make_available(unsigned n, const uint16_t *heads)
{
	static const uint16_t none;
	uint16_t idx = get16(mem_a + AVAIL + 2);

	for (unsigned i = 0; i < n; i++) {
		desc(heads[i], buffer(heads[i]), 72, 0, none);
		avail((uint16_t)(idx + i), heads[i]);
	}
	avail_idx((uint16_t)(idx + n));
}

/* Head `i` is in flight, for the `counter`th time that any was. */
static void note(unsigned i, uint64_t counter)
{
	region[SPLIT(i)] = 1;
	put64(region + SPLIT(i) + COUNTER, counter);
}

/* The heads that are in flight, as bits. */
static uint32_t in_flight(void)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < get16(region + SIZE_AT); i++)
		bits |= (uint32_t)region[vq.packed ? PACKED(i) : SPLIT(i)] << i;
	return bits;
}

static void test_split_fresh(void **state)
{
	fresh(SIZE, ENTRIES, 0);
	put16(mem_a + USED + 2, 7);
	avail_idx(7);
	layout.base = 7;
	up(ENTRIES);
	assert_int_equal(get16(region + VERSION_AT), 1);
	assert_int_equal(get16(region + SIZE_AT), ENTRIES);
	assert_int_equal(get16(region + USED_AT), 7);
	assert_int_equal(in_flight(), 0);

	make_available(3, (uint16_t[]){4, 2, 9});
	shows(3, (unsigned[]){4, 2, 9});
	assert_int_equal(in_flight(), 1 << 4 | 1 << 2 | 1 << 9);
	assert_int_equal(get32(region + SPLIT(4) + COUNTER), 0);
	assert_int_equal(get32(region + SPLIT(2) + COUNTER), 1);
	assert_int_equal(get32(region + SPLIT(9) + COUNTER), 2);
	give_back(2);
	assert_int_equal(in_flight(), 1 << 9);
	assert_int_equal(get16(region + USED_AT), 9);
	/* The last batch, the last of it first. */
	assert_int_equal(get16(region + BATCH_AT), 2);
	assert_int_equal(get16(region + SPLIT(2) + S_NEXT), 4);
	/* In good order nothing is in flight; the next device finds what is available. */
	pd_inflight_stop(&vq);
	assert_int_equal(in_flight(), 0);
}

static void test_split_resubmits(void **state)
{
	fresh(SIZE, ENTRIES, 0);
	up(ENTRIES);
	make_available(4, (uint16_t[]){4, 2, 9, 1});
	shows(4, (unsigned[]){4, 2, 9, 1});
	give_back(1);
	killed();
	/*
	 * One that used them in another order: 9 was taken before 2, and a new chain stands where
	 * one of them stood.
	 */
	note(9, 3);
	note(2, 8);
	region[SPLIT(1)] = 0;
	make_available(1, (uint16_t[]){5});
	avail(3, 2);
	avail(1, 1);
	up(ENTRIES);
	assert_int_equal(get32(region + SPLIT(9) + COUNTER), 0);
	assert_int_equal(get32(region + SPLIT(2) + COUNTER), 1);
	shows(4, (unsigned[]){9, 2, 2, 5});
	give_back(2);
	assert_int_equal(used_id(1), 9);
	assert_int_equal(used_id(2), 2);
}

/* A split ring with three chains, of which the first two were taken by a device that is dead. */
static void two_in_flight(void)
{
	fresh(SIZE, ENTRIES, 0);
	make_available(3, (uint16_t[]){4, 2, 9});
	put16(region + VERSION_AT, 1);
	put16(region + SIZE_AT, ENTRIES);
	note(4, 0);
	note(2, 1);
}

/* What was noted before stays noted when a device goes in good order that has not given it back. */
static void test_split_stop_keeps(void **state)
{
	two_in_flight();
	up(ENTRIES);
	shows(3, (unsigned[]){4, 2, 9});
	assert_int_equal(in_flight(), 1 << 4 | 1 << 2 | 1 << 9);
	give_back(1);
	pd_inflight_stop(&vq);
	assert_int_equal(in_flight(), 1 << 2);
	pd_inflight_stop(&vq); /* not tracked any more */
}

/*
 * Killed between the used index and striking out: the batch was given back. Killed before the
 * index: it was not.
 */
static void test_split_last_batch(void **state)
{
	for (unsigned published = 0; published < 2; published++) {
		two_in_flight();
		note(9, 2);
		put16(region + BATCH_AT, 2);
		put16(region + SPLIT(2) + S_NEXT, 4);
		put16(mem_a + USED + 2, published ? 2 : 0);
		layout.base = published ? 2 : 0;
		up(ENTRIES);
		assert_int_equal(get16(region + USED_AT), published ? 2 : 0);
		if (published)
			shows(1, (unsigned[]){9});
		else
			shows(3, (unsigned[]){4, 2, 9});
		assert_int_equal(in_flight(), published ? 1 << 9 : 1 << 4 | 1 << 2 | 1 << 9);
	}
}

/* Indices that make no sense: nothing can be in flight. */
static void test_split_no_indices(void **state)
{
	fresh(SIZE, ENTRIES, 0);
	put16(region + VERSION_AT, 1);
	put16(region + SIZE_AT, ENTRIES);
	avail_idx(SIZE + 1);
	assert_null(pd_inflight_begin(&layout, region, ENTRIES));
	pd_inflight_free(layout.inflight);
	note(3, 0);
	layout.inflight = NULL;
	assert_string_equal(pd_inflight_begin(&layout, region, ENTRIES),
			    "more is in flight than the driver made available");
}

/* --- packed ---------------------------------------------------------------------------------- */

/* Descriptor `slot` of the ring: made available in the lap with this wrap counter. */
static void packed_available(unsigned slot, unsigned i, uint16_t flags, bool wrap)
{
	put_desc(mem_a + DESC + 16 * slot, buffer(i), 72, (uint16_t)i,
		 flags | (wrap ? AVAILABLE : USED_BIT));
}

/*
 * A region as of a device that used `used` descriptors: `n` chains of `each` descriptors in flight,
 * in the first entries, the last first.
 */
static void packed_region(uint32_t entries, uint16_t used, bool wrap, unsigned n, unsigned each)
{
	put16(region + VERSION_AT, 1);
	put16(region + SIZE_AT, (uint16_t)entries);
	put16(region + FREE_AT, (uint16_t)(n * each));
	put16(region + OLD_FREE_AT, (uint16_t)(n * each));
	put16(region + P_USED_AT, used);
	put16(region + OLD_USED_AT, used);
	region[WRAP_AT] = region[OLD_WRAP_AT] = wrap;
	for (unsigned i = 0; i < entries; i++) {
		uint8_t *e = region + PACKED(i);
		bool more = i % each + 1 < each;

		put16(e + NEXT_AT, (uint16_t)(i + 1));
		if (i >= n * each)
			continue;
		put64(e + ADDR_AT, buffer(i));
		put32(e + LEN_AT, more ? 40 : 72);
		put16(e + ID_AT, (uint16_t)(i / each));
		put16(e + FLAGS_AT, more ? NEXT : 0);
		if (i % each)
			continue;
		e[0] = 1;
		put16(e + LAST_AT, (uint16_t)(i + each - 1));
		put16(e + NUM_AT, (uint16_t)each);
		put64(e + COUNTER, n - i / each);
	}
}

static void test_packed_fresh(void **state)
{
	fresh(SIZE, SIZE, F_PACKED);
	layout.base = 0x8003;
	up(SIZE);
	assert_int_equal(get16(region + VERSION_AT), 1);
	assert_int_equal(get16(region + SIZE_AT), SIZE);
	assert_int_equal(get16(region + P_USED_AT), 3);
	assert_int_equal(get16(region + OLD_USED_AT), 3);
	assert_int_equal(region[WRAP_AT], 1);
	assert_int_equal(region[OLD_WRAP_AT], 1);
	for (unsigned i = 0; i < SIZE; i++)
		assert_int_equal(get16(region + PACKED(i) + NEXT_AT), i + 1);

	/* A chain of two, and one of one. */
	packed_available(3, 5, NEXT, true);
	packed_available(4, 6, 0, true);
	put16(mem_a + DESC + 16 * 4 + 12, 5); /* the id is the last one's */
	packed_available(5, 7, 0, true);
	shows(2, (unsigned[]){5, 7});
	assert_int_equal(region[PACKED(0)], 1);
	assert_int_equal(get16(region + PACKED(0) + NUM_AT), 2);
	assert_int_equal(get16(region + PACKED(0) + LAST_AT), 1);
	assert_int_equal(get32(region + PACKED(1) + ADDR_AT), (uint32_t)buffer(6));
	assert_int_equal(get32(region + PACKED(1) + LEN_AT), 72);
	assert_int_equal(get16(region + PACKED(1) + ID_AT), 5);
	assert_int_equal(region[PACKED(1)], 0);
	assert_int_equal(region[PACKED(2)], 1);
	assert_int_equal(get16(region + FREE_AT), 3);
	assert_int_equal(get16(region + OLD_FREE_AT), 3);
	give_back(1);
	assert_int_equal(region[PACKED(0)], 0);
	assert_int_equal(region[PACKED(2)], 1);
	assert_int_equal(get16(region + FREE_AT), 0); /* freed last, taken first */
	assert_int_equal(get16(region + PACKED(1) + NEXT_AT), 3);
	assert_int_equal(get16(region + P_USED_AT), 5);
	assert_int_equal(get16(region + OLD_USED_AT), 5);
	pd_inflight_stop(&vq);
	assert_int_equal(region[PACKED(2)], 0);
	assert_int_equal(get16(region + OLD_FREE_AT), 2);
}

/*
 * Two chains of two descriptors, of which one goes over the ring's end; the one with the lower
 * counter first.
 */
static void test_packed_resubmits(void **state)
{
	fresh(SIZE, SIZE, F_PACKED);
	packed_region(SIZE, SIZE - 3, true, 2, 2);
	layout.base = 0x8000; /* the region knows better */
	packed_available(1, 9, 0, false);
	up(SIZE);
	assert_int_equal(layout.base, 0x800d800du);
	assert_int_equal(get32(region + PACKED(2) + COUNTER), 0);
	assert_int_equal(get32(region + PACKED(0) + COUNTER), 1);
	assert_int_equal(get16(mem_a + DESC + 16 * 15 + 14), NEXT | AVAILABLE);
	assert_int_equal(get16(mem_a + DESC + 14), USED_BIT);
	shows(3, (unsigned[]){2, 0, 9});
	/* They are in flight as they were, and the new one with them. */
	assert_int_equal(region[PACKED(0)] + region[PACKED(2)] + region[PACKED(4)], 3);
	give_back(3);
	assert_int_equal(in_flight(), 0);
	assert_int_equal(get16(region + P_USED_AT), 2);
	assert_int_equal(region[WRAP_AT], 0);
	/* 2 counts for two slots, and is used in the first of them. */
	assert_int_equal(get16(mem_a + DESC + 16 * 13 + 12), 1);
}

/*
 * Killed before its used elements were published, a batch is rolled back; after that, it is
 * committed.
 */
static void test_packed_last_batch(void **state)
{
	for (unsigned published = 0; published < 2; published++) {
		fresh(SIZE, SIZE, F_PACKED);
		packed_region(SIZE, 0, true, 1, 2);
		/* The chain was put into the free list. */
		put16(region + PACKED(1) + NEXT_AT, 2);
		put16(region + FREE_AT, 0);
		put16(region + P_USED_AT, 2);
		packed_available(0, 0, NEXT, true);
		packed_available(1, 1, 0, true);
		if (published)
			put16(mem_a + DESC + 14, AVAILABLE | USED_BIT);
		up(SIZE);
		assert_int_equal(region[PACKED(0)], !published);
		assert_int_equal(get16(region + OLD_USED_AT), published ? 2 : 0);
		assert_int_equal(get16(region + P_USED_AT), published ? 2 : 0);
		assert_int_equal(get16(region + FREE_AT), published ? 0 : 2);
		if (published)
			shows(0, NULL);
		else
			shows(1, (unsigned[]){0});
	}
}

/* Where a chain ends is what the region says of its length, whatever its descriptors' flags say. */
static void test_packed_length(void **state)
{
	fresh(SIZE, SIZE, F_PACKED);
	packed_region(SIZE, 3, true, 3, 2);
	for (unsigned i = 0; i < 6; i++) /* turned round */
		put16(region + PACKED(i) + FLAGS_AT, i % 2 ? NEXT : 0);
	up(SIZE);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(get16(mem_a + DESC + 16 * (3 + i) + 14),
				 AVAILABLE | (i % 2 ? 0 : NEXT));
	shows(3, (unsigned[]){4, 2, 0});
	give_back(3);
	assert_int_equal(in_flight(), 0);
	assert_int_equal(get16(region + P_USED_AT), 9);
}

/*
 * A driver that writes to what its older device left: a chain that ends elsewhere than where it did
 * is not published, and what was in flight is in flight.
 */
static void test_packed_changed(void **state)
{
	static const unsigned each[] = {1, 2};

	for (unsigned k = 0; k < PD_ARRAY_SIZE(each); k++) {
		struct pd_buffer *bufs[1];
		uint32_t before;

		fresh(SIZE, ENTRIES, F_PACKED);
		packed_region(ENTRIES, 3, true, 2, each[k]);
		up(ENTRIES);
		before = in_flight();
		/* The last one's second half is another's, or the first one ends early. */
		packed_available(3 + 2 * each[k], 9, 0, true);
		if (each[k] == 1)
			packed_available(4, 8, NEXT, true);
		else
			packed_available(3, 8, 0, true);
		for (unsigned i = 0; i < 2 && !vq.broken; i++) {
			assert_int_equal(rx(bufs, 1), 1);
			give_back(1);
		}
		assert_string_equal(vq.broken, "a chain is not what it was when it was fetched");
		assert_int_equal(vq.staged, 0);
		assert_int_equal(in_flight(), each[k] == 1 ? 1 : before);
		pd_inflight_stop(&vq);
		assert_int_equal(in_flight(), each[k] == 1 ? 1 : before);
	}
}

/* A chain that does not end is none, and nothing of it is noted for good. */
static void test_packed_endless(void **state)
{
	struct pd_buffer *bufs[4];

	fresh(SIZE, SIZE, F_PACKED);
	up(SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		packed_available(i, i, NEXT, true);
	assert_int_equal(rx(bufs, 4), -ENETDOWN);
	assert_non_null(vq.broken);
	assert_int_equal(get16(region + OLD_FREE_AT), 0);
}

/*
 * A driver that makes a slot available again before it was given back, with a region that has
 * entries left: its note stays, and the batch ends.
 */
static void test_packed_slot_again(void **state)
{
	struct pd_ring_block block;

	fresh(SIZE, 2 * SIZE, F_PACKED);
	up(2 * SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		packed_available(i, i, i == 1 ? NEXT : 0, true);
	assert_int_equal(pd_ring_fetch(&vq, true, &block, 0, SIZE, false), SIZE);
	/* A full lap is consumed, and nothing of it is published. */
	for (unsigned i = 0; i < SIZE; i++)
		pd_ring_used_stage(&vq, true, (struct pd_ring_chain){(uint16_t)i, 1, 0}, 0);
	pd_ring_consume(&vq, true, SIZE);
	packed_available(0, 0, 0, false);
	assert_int_equal(pd_ring_fetch(&vq, true, &block, 0, 1, false), 0);
	pd_device_flush(&vq, true);
	assert_null(vq.broken);
	assert_int_equal(in_flight(), 0);
}

/* --- states that no device leaves ------------------------------------------------------------ */

struct poke {
	uint16_t at, bytes, value;
};
struct wrong {
	const char *why; /* in the refusal */
	struct poke poke[3];
};

/*
 * Each state is refused for its reason, and the ring is as it was; so is one of a version or a size
 * that is not ours.
 */
static void refused(const struct wrong *wrong, size_t n, void (*make)(void))
{
	static const struct wrong both[] = {
		{"version that is not known", {{VERSION_AT, 2, 2}}},
		{"number of descriptors is not what was said", {{SIZE_AT, 2, ENTRIES - 1}}},
	};

	for (size_t i = 0; i < n + PD_ARRAY_SIZE(both); i++) {
		const struct wrong *w = i < n ? &wrong[i] : &both[i - n];
		uint8_t before[REGION];
		const char *why;

		make();
		assert_null(pd_inflight_begin(&layout, region, ENTRIES)); /* right so far */
		pd_inflight_free(layout.inflight);
		make();
		for (const struct poke *p = w->poke; p < w->poke + 3 && p->bytes; p++)
			memcpy(region + p->at, &p->value, p->bytes);
		memcpy(before, mem_a, REGION);
		why = pd_inflight_begin(&layout, region, ENTRIES);
		if (!why || !strstr(why, w->why))
			fail_msg("\"%s\" where \"%s\" was due (%zu)", why ? why : "accepted",
				 w->why, i);
		assert_null(layout.inflight);
		assert_memory_equal(before, mem_a, REGION);
	}
}

/* Two chains are available, and one of them is in flight. */
static void make_split(void)
{
	fresh(SIZE, ENTRIES, 0);
	make_available(2, (uint16_t[]){3, 4});
	put16(region + VERSION_AT, 1);
	put16(region + SIZE_AT, ENTRIES);
	note(3, 0);
}

static void test_split_wrong(void **state)
{
	static const struct wrong wrong[] = {
		{"a state that is none", {{SPLIT(3), 1, 2}}},
		{"a state that is none", {{SPLIT(31), 1, 0xff}}},
		{"a descriptor beyond the ring", {{SPLIT(SIZE), 1, 1}}},
		{"more is in flight than", {{SPLIT(4), 1, 1}, {SPLIT(5), 1, 1}}},
		{"last batch leaves the region", {{USED_AT, 2, 0xffff}, {BATCH_AT, 2, ENTRIES}}},
		{"last batch leaves the region",
		 {{USED_AT, 2, 0xfffe}, {BATCH_AT, 2, 3}, {SPLIT(3) + S_NEXT, 2, 0xffff}}},
	};

	refused(wrong, PD_ARRAY_SIZE(wrong), make_split);
}

/* A last batch that cannot be one is none: more elements than the ring has. */
static void test_split_batch_of_none(void **state)
{
	make_split();
	put16(region + USED_AT, (uint16_t)(0 - SIZE - 1));
	put16(region + BATCH_AT, 0xffff);
	up(ENTRIES);
	shows(2, (unsigned[]){3, 4});
}

/* Two chains of two are in flight, in entries 0 to 3. */
static void make_packed(void)
{
	fresh(SIZE, ENTRIES, F_PACKED);
	packed_region(ENTRIES, 5, true, 2, 2);
}

static void test_packed_wrong(void **state)
{
	static const struct wrong wrong[] = {
		{"used index is beyond the ring", {{P_USED_AT, 2, SIZE}}},
		{"used index is beyond the ring", {{OLD_USED_AT, 2, 0xffff}}},
		{"wrap counter is none", {{WRAP_AT, 1, 2}}},
		{"wrap counter is none", {{OLD_WRAP_AT, 1, 0xff}}},
		{"free list is a loop", {{PACKED(31) + NEXT_AT, 2, 4}}},
		{"longer than can be", {{PACKED(0) + NUM_AT, 2, 0}}},
		{"longer than can be", {{PACKED(0) + NUM_AT, 2, SIZE + 1}}},
		{"longer than can be", {{PACKED(2) + NUM_AT, 2, SIZE - 1}}}, /* with the first */
		{"a chain leaves", {{PACKED(0) + NEXT_AT, 2, ENTRIES}}},
		{"is in two places", {{PACKED(0) + NEXT_AT, 2, 9}}}, /* and free */
		{"is in two places", {{PACKED(2) + NEXT_AT, 2, 0}}},
		{"is in two places", {{PACKED(0) + NEXT_AT, 2, 0}}},
		{"does not end where it says", {{PACKED(0) + LAST_AT, 2, 0}}},
		{"neither free nor in flight", {{PACKED(0), 1, 0}}},
		{"neither free nor in flight", {{FREE_AT, 2, 0xffff}, {OLD_FREE_AT, 2, 0xffff}}},
		{"a state that is none", {{PACKED(2), 1, 2}}},
	};

	refused(wrong, PD_ARRAY_SIZE(wrong), make_packed);
}

static void test_ring_too_large(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		fresh(SIZE, SIZE - 1, packed ? F_PACKED : 0);
		assert_string_equal(pd_inflight_begin(&layout, region, SIZE - 1),
				    "the ring is larger than its in-flight region");
	}
}

/* The sizes of the specification's examples of layout, each to the next 64 bytes. */
static void test_bytes(void **state)
{
	assert_int_equal(pd_inflight_queue_bytes(2, false), 64);
	assert_int_equal(pd_inflight_queue_bytes(4, false), 128);
	assert_int_equal(pd_inflight_queue_bytes(256, false), 4160);
	assert_int_equal(pd_inflight_queue_bytes(256, true), 8256);
	assert_int_equal(pd_inflight_queue_bytes(65535, true) % 64, 0);
	pd_inflight_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_fresh),
		cmocka_unit_test(test_split_resubmits),
		cmocka_unit_test(test_split_stop_keeps),
		cmocka_unit_test(test_split_last_batch),
		cmocka_unit_test(test_split_no_indices),
		cmocka_unit_test(test_split_wrong),
		cmocka_unit_test(test_split_batch_of_none),
		cmocka_unit_test(test_packed_fresh),
		cmocka_unit_test(test_packed_resubmits),
		cmocka_unit_test(test_packed_last_batch),
		cmocka_unit_test(test_packed_length),
		cmocka_unit_test(test_packed_changed),
		cmocka_unit_test(test_packed_endless),
		cmocka_unit_test(test_packed_slot_again),
		cmocka_unit_test(test_packed_wrong),
		cmocka_unit_test(test_ring_too_large),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests_name("inflight", tests, device_setup, NULL);
}
