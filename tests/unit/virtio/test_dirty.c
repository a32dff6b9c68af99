/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio/: the dirty log says exactly which pages a device wrote to.
 *
 * The judge is the memory itself: a copy from before is compared with it after each step. The
 * driver is written by hand from virtio 1.2 (2.7, 2.8); the log's layout from the vhost-user
 * specification ("Migration").
 */
#include <signal.h>

#include "device_rig.h"

#define F_PACKED (1ULL << 34)
#define F_ORDER (1ULL << 35)
#define RING 64u
#define PAGE 4096u
#define PAGES ((C_GPA + REGION) / PAGE)
/* The parts of the ring, each over two pages, as offsets in A. */
#define DESC_AT 0x0e00
#define AVAIL_AT 0x1400
#define USED_AT 0x1f00
#define DATA (A_GPA + 0x4000) /* buffers: from here through B, and C */

static uint8_t log_bits[PAGES / 8 + 1];
static uint8_t before[3][REGION];

/* The driver: what it does next. */
static bool packed, in_order;
static uint16_t next_desc, next_avail;
static uint32_t slot;
static bool wrap;
static uint64_t bump;

struct seg {
	uint64_t gpa;
	uint32_t len;
};

static struct pd_dirty logging(void)
{
	return (struct pd_dirty){.bits = log_bits,
				 .pages = PAGES,
				 .mem = &table,
				 .frames = true,
				 .used = A_GPA + USED_AT};
}

/* A watched device on a ring of either format. */
static void begin(uint32_t hdr, uint64_t features, const struct pd_dirty *dirty)
{
	struct pd_vq_layout layout = {
		.size = RING,
		.hdr_bytes = hdr,
		.features = features,
		.desc = mem_a + DESC_AT,
		.avail = mem_a + AVAIL_AT,
		.used = mem_a + USED_AT,
		.base = features & F_PACKED ? 1u << 15 : 0,
	};

	pd_vq_fini(&vq);
	memset(mem_a, 0, REGION);
	memset(mem_b, 0, REGION);
	memset(mem_c, 0, REGION);
	packed = features & F_PACKED;
	in_order = features & F_ORDER;
	next_desc = next_avail = 0;
	slot = 0;
	wrap = true;
	assert_int_equal(pd_vq_init_device(&vq, &layout, &table), 0);
	pd_dirty_set(&vq, dirty);
}

/* The bit of a page. */
static bool bit(uint64_t page)
{
	return log_bits[page / 8] >> page % 8 & 1;
}

static uint8_t *region(unsigned r)
{
	return r == 0 ? mem_a : r == 1 ? mem_b : mem_c;
}

static void remember(void)
{
	memset(log_bits, 0, sizeof(log_bits));
	for (unsigned r = 0; r < 3; r++)
		memcpy(before[r], region(r), REGION);
}

/* Is the page one of the ring's that a device writes to? */
static bool in_ring(uint64_t page)
{
	uint64_t gpa = page * PAGE;

	return (gpa + PAGE > A_GPA + USED_AT &&
		gpa < A_GPA + USED_AT + pd_vq_used_bytes(RING, packed)) ||
	       (packed && gpa + PAGE > A_GPA + DESC_AT && gpa < A_GPA + DESC_AT + 16 * RING);
}

/*
 * Every page that changed has its bit; every bit's page changed or is the ring's. What is staged in
 * the ring has none before it is published. Returns how many changed.
 */
static unsigned compare(void)
{
	unsigned changed = 0;

	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t gpa = page * PAGE;
		unsigned r = gpa >= C_GPA ? 2 : gpa >= B_GPA ? 1 : 0;
		uint64_t off = gpa - (r == 2 ? C_GPA : r == 1 ? B_GPA : A_GPA);
		bool differs = off < REGION && memcmp(before[r] + off, region(r) + off, PAGE);

		changed += differs;
		if (differs && !bit(page) && !(vq.staged && in_ring(page)))
			fail_msg("page %#llx was written and has no bit", (unsigned long long)gpa);
		if (bit(page) && !differs && !in_ring(page))
			fail_msg("page %#llx was not written and has a bit",
				 (unsigned long long)gpa);
	}
	assert_null(vq.broken);
	return changed;
}

/* Room for `len` bytes, with a gap before it. */
static uint64_t room(uint32_t len)
{
	bump += rnd(3000);
	if (bump < C_GPA && bump + len > B_GPA + REGION)
		bump = C_GPA;
	assert_true(bump + len <= C_GPA + REGION);
	bump += len;
	return bump - len;
}

/* A descriptor of the packed ring, or of a chain on the split one. */
static void put_one(struct seg s, uint16_t flags, uint16_t id, bool more)
{
	uint8_t *d = mem_a + DESC_AT + 16 * slot;

	if (!packed) {
		put_desc(mem_a + DESC_AT + 16 * (next_desc % RING), s.gpa, s.len,
			 flags | (more ? NEXT : 0), (uint16_t)(next_desc + 1) % RING);
		next_desc++;
		return;
	}
	put64(d, s.gpa);
	put32(d + 8, s.len);
	put16(d + 12, id);
	pd_store_release((uint16_t *)(void *)(d + 14),
			 (uint16_t)(flags | (more ? NEXT : 0) | (wrap ? 0x0080 : 0x8000)));
	if (++slot == RING) {
		slot = 0;
		wrap = !wrap;
	}
}

/* Make a chain available, by itself or in an indirect table. */
static void offer(const struct seg *s, unsigned n, uint16_t flags, bool indirect)
{
	uint16_t head = next_desc % RING;

	if (indirect) {
		uint64_t gpa = room(16 * n);

		for (unsigned i = 0; i < n; i++) {
			uint8_t e[16];

			if (packed)
				put_desc(e, s[i].gpa, s[i].len, 0, flags);
			else
				put_desc(e, s[i].gpa, s[i].len, flags | (i + 1 < n ? NEXT : 0),
					 (uint16_t)(i + 1));
			guest_write(gpa + 16 * i, e, 16);
		}
		put_one((struct seg){gpa, 16 * n}, INDIRECT, head, false);
	} else {
		for (unsigned i = 0; i < n; i++)
			put_one(s[i], flags, head, i + 1 < n);
	}
	if (packed) {
		next_desc++;
	} else {
		put16(mem_a + AVAIL_AT + 4 + 2 * (next_avail++ % RING), head);
		pd_store_release((uint16_t *)(void *)(mem_a + AVAIL_AT + 2), next_avail);
	}
}

/* A few chains of at most `total` bytes each, written with a number that frames seldom have. */
static unsigned offer_some(uint16_t flags, bool indirect, uint32_t total)
{
	unsigned chains = 1 + rnd(5);

	bump = DATA;
	for (unsigned c = 0; c < chains; c++) {
		unsigned n = 1 + rnd(4);
		struct seg s[4];

		for (unsigned i = 0; i < n; i++) {
			s[i].len = n == 1 ? total : 1 + rnd(total / n + total / 4);
			s[i].gpa = room(s[i].len);
			for (uint32_t k = 0; k < s[i].len; k++)
				*at(s[i].gpa + k) =
					flags & WRITE ? (uint8_t)~rnd(256) : frame_byte(k, c);
		}
		offer(s, n, flags, indirect && rnd(2));
	}
	return chains;
}

/* Each combination of format, header and features. */
static void each(void (*run)(uint32_t hdr, uint64_t features))
{
	static const uint64_t formats[] = {0, F_PACKED};
	static const uint64_t extra[] = {0,          F_MRG,
					 F_INDIRECT, F_MRG | F_INDIRECT | F_EVENT,
					 F_ORDER,    F_ORDER | F_EVENT | F_MRG};

	for (unsigned f = 0; f < PD_ARRAY_SIZE(formats); f++)
		for (unsigned x = 0; x < PD_ARRAY_SIZE(extra); x++)
			for (uint32_t hdr = 12; hdr <= 48; hdr += 36)
				run(hdr, F_V1 | formats[f] | extra[x]);
}

static struct out_frame frames[16];

/* Frames to send: up to `n`. */
static unsigned make_frames(struct pd_buffer **b, unsigned n, uint32_t most)
{
	n = 1 + rnd(n);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < 4; k++)
			frames[i].bufs[k] = header_bufs[N_HEADERS + 4 * i + k];
		b[i] = frame_make(&frames[i], i + 1, 1 + rnd(most), 1 + rnd(3));
	}
	return n;
}

static void send_some(uint32_t hdr, uint64_t features)
{
	const struct pd_dirty dirty = logging();
	struct pd_buffer *b[8];
	unsigned changed = 0, sent = 0;

	begin(hdr, features, &dirty);
	for (unsigned round = 0; round < 60; round++) {
		unsigned chains = offer_some(WRITE, features & F_INDIRECT, 6000);
		unsigned n = make_frames(b, 6, round % 2 ? 100 : 9000);
		bool notify;

		remember();
		for (unsigned done = 0; done < n;) {
			int got = tx(b + done, n - done);

			if (got <= 0)
				break;
			sent += (unsigned)got;
			done += (unsigned)got;
		}
		if (rnd(2))
			compare(); /* what is staged was written, too */
		pd_device_flush(&vq, packed);
		pd_device_arm(&vq, packed, vq.cursor);
		changed += compare();
		/*
		 * What is left goes back unused, so that the next round begins with an empty ring.
		 */
		remember();
		while (pd_device_discard(&vq, chains, &notify) > 0)
			;
		pd_device_disarm(&vq, packed);
		compare();
	}
	assert_true(changed > 60 && sent > 20);
}

static void test_sent(void **state)
{
	each(send_some);
}

static void receive_some(uint32_t hdr, uint64_t features)
{
	const struct pd_dirty dirty = logging();
	struct pd_buffer *b[16];
	unsigned got = 0, changed = 0;

	begin(hdr, features, &dirty);
	for (unsigned round = 0; round < 60; round++) {
		/* Some are shorter than a header and are dropped. */
		offer_some(0, features & F_INDIRECT, round % 3 ? 1000 : 20);
		for (int n = 1; n > 0;) {
			remember();
			n = rx(b, 16);
			changed += compare();
			remember();
			pd_device_rx_done(&vq, packed, (unsigned)n);
			changed += compare();
			got += (unsigned)n;
		}
		remember();
		pd_device_arm(&vq, packed, vq.cursor);
		compare();
		remember();
		pd_device_disarm(&vq, packed);
		compare();
	}
	assert_true(got > 60 && changed >= 60);
}

static void test_received(void **state)
{
	each(receive_some);
}

/*
 * Either half by itself: what goes into buffers, and what goes into the ring, where the front-end
 * says.
 */
static void test_halves(void **state)
{
	const uint64_t elsewhere = C_GPA + 0x8000;
	struct pd_buffer *b[8];

	for (unsigned f = 0; f < 2; f++) {
		uint64_t features = F_V1 | F_EVENT | (f ? F_PACKED : 0);
		struct pd_dirty dirty = logging();

		dirty.used = PD_DIRTY_NOWHERE;
		begin(12, features, &dirty);
		bump = DATA;
		offer(&(struct seg){C_GPA, 2000}, 1, WRITE, false);
		remember();
		make_frames(b, 1, 1000);
		assert_int_equal(tx(b, 1), 1);
		pd_device_flush(&vq, packed);
		pd_device_arm(&vq, packed, vq.cursor);
		for (uint64_t page = 0; page < PAGES; page++)
			assert_int_equal(bit(page), page == C_GPA / PAGE);

		dirty.used = elsewhere;
		dirty.frames = false;
		begin(12, features, &dirty);
		offer(&(struct seg){C_GPA, 2000}, 1, WRITE, false);
		remember();
		assert_int_equal(tx(b, 1), 1);
		pd_device_flush(&vq, packed);
		pd_device_arm(&vq, packed, vq.cursor);
		for (uint64_t page = 0; page < PAGES; page++)
			assert_int_equal(bit(page), page == elsewhere / PAGE ||
							    (packed && page == A_GPA / PAGE));
		assert_null(vq.broken);

		/* Switched off again: nothing is noted. */
		pd_dirty_set(&vq, NULL);
		offer(&(struct seg){C_GPA, 2000}, 1, WRITE, false);
		remember();
		assert_int_equal(tx(b, 1), 1);
		pd_device_flush(&vq, packed);
		for (uint64_t page = 0; page < PAGES; page++)
			assert_false(bit(page));
	}
}

/* A page beyond the log: no bit anywhere else, and the ring is broken. */
static void test_no_bit(void **state)
{
	static const uint64_t wheres[] = {UINT64_MAX - 100, (PAGES - 1) * PAGE - 2, 1ULL << 62};
	struct pd_buffer *b[8];

	for (unsigned f = 0; f < 2; f++) {
		struct pd_dirty dirty = logging();

		dirty.pages = C_GPA / PAGE;
		begin(12, F_V1 | (f ? F_PACKED : 0), &dirty);
		offer(&(struct seg){B_GPA + REGION - 100, 100}, 1, WRITE, false);
		offer(&(struct seg){C_GPA, 2000}, 1, WRITE, false);
		make_frames(b, 1, 1000);
		b[0] = frame_make(&frames[0], 1, 60, 1);
		assert_int_equal(tx(b, 1), 1);
		assert_null(vq.broken);
		remember();
		tx(b, 1);
		assert_string_equal(vq.broken, "a page that the dirty log has no bit for");
		for (uint64_t page = 0; page < PAGES; page++)
			assert_false(bit(page));
		for (unsigned i = 0; i < PD_ARRAY_SIZE(wheres); i++) {
			dirty.pages = PAGES - 1;
			dirty.used = wheres[i];
			begin(12, F_V1 | (f ? F_PACKED : 0), NULL);
			remember();
			pd_dirty_set(&vq, &dirty);
			offer(&(struct seg){DATA, 2000}, 1, WRITE, false);
			if (tx(b, 1) == 1)
				pd_device_flush(&vq, packed);
			assert_non_null(vq.broken);
			assert_false(bit(PAGES - 1));
		}
	}
}

/* --- copied in between ----------------------------------------------------------------------- */

static uint8_t copy[3][REGION];
static unsigned faults;

/* Copy the pages whose bits are there, as QEMU does: take the bit, then read the page. */
static void take_bits(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t gpa = page * PAGE;
		unsigned r = gpa >= C_GPA ? 2 : gpa >= B_GPA ? 1 : 0;
		uint64_t off = gpa - (r == 2 ? C_GPA : r == 1 ? B_GPA : A_GPA);

		if (bit(page))
			memcpy(copy[r] + off, region(r) + off, PAGE);
	}
	memset(log_bits, 0, sizeof(log_bits));
}

/* All of the guest's memory may be read, or written too. */
static void protect(int how)
{
	for (unsigned r = 0; r < 3; r++)
		assert_int_equal(mprotect(region(r), REGION, how), 0);
}

/*
 * A page is about to be written for the first time in a step: the worst moment to copy what is
 * noted so far.
 */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);

	for (unsigned r = 0; r < 3; r++) {
		if (page - (uintptr_t)region(r) >= REGION)
			continue;
		take_bits();
		mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE);
		faults++;
		return;
	}
	signal(sig, SIG_DFL);
}

static void copy_under(uint32_t hdr, uint64_t features)
{
	const struct pd_dirty dirty = logging();
	struct pd_buffer *b[8];

	begin(hdr, features, &dirty);
	for (unsigned round = 0; round < 60; round++) {
		unsigned chains = offer_some(WRITE, features & F_INDIRECT, 6000);
		unsigned n = make_frames(b, 6, 9000);
		bool notify;

		for (unsigned r = 0; r < 3; r++)
			memcpy(copy[r], region(r), REGION);
		memset(log_bits, 0, sizeof(log_bits));
		protect(PROT_READ);
		tx(b, n);
		pd_device_flush(&vq, packed);
		protect(PROT_READ);
		pd_device_arm(&vq, packed, vq.cursor);
		protect(PROT_READ);
		while (pd_device_discard(&vq, chains, &notify) > 0)
			;
		pd_device_disarm(&vq, packed);
		take_bits();
		for (unsigned r = 0; r < 3; r++)
			for (uint32_t off = 0; off < REGION; off++)
				if (copy[r][off] != region(r)[off])
					fail_msg("region %u differs at %#x", r, off);
		protect(PROT_READ | PROT_WRITE);
	}
}

/* The copy that is made a page at a time while the device writes is the memory in the end. */
static void test_copied_in_between(void **state)
{
	struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, old;

	sigaction(SIGSEGV, &act, &old);
	each(copy_under);
	sigaction(SIGSEGV, &old, NULL);
	assert_true(faults > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sent),
		cmocka_unit_test(test_received),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_no_bit),
		cmocka_unit_test(test_copied_in_between),
	};

	return cmocka_run_group_tests(tests, device_setup, NULL);
}
