/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * In-flight regions, as a back-end leaves them that dies: what it had taken and not given back, in
 * either format (the specification's "Inflight I/O tracking"), consistent mostly, else with a byte
 * of it wrong.
 *
 * The layouts are written down here once more, from the text, so that a mistake of the library's is
 * no mistake of both.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "vhost.h"
#include "virtio/inflight.h"

/* Of either region: after 8 bytes of features. */
enum { OF_VERSION = 8, OF_SIZE = 10 };
/* A split one: 16 bytes, then entries of 16. */
enum { LAST_BATCH = 12, SPLIT_USED = 14, SPLIT_HEAD = 16, SPLIT_ENTRY = 16, SPLIT_NEXT = 6 };
/*
 * A packed one: 32 bytes, then entries of 32. Each of the indices twice, the second as of the last
 * whole batch.
 */
enum { FREE = 12, PACKED_USED = 16, WRAP = 20, PACKED_HEAD = 32, PACKED_ENTRY = 32 };
enum { NEXT = 2, LAST = 4, NUM = 6, ID = 16, FLAGS = 18, LEN = 20, ADDR = 24 };
/* An entry of either. */
enum { COUNTER = 8 };

static void put16(uint8_t *p, uint32_t v)
{
	uint16_t value = (uint16_t)v;

	memcpy(p, &value, sizeof(value));
}

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

void kept_take(const struct pd_vhost_inflight_desc *desc, int fd)
{
	if (peer.kept)
		munmap(peer.kept, peer.kept_desc.mmap_size);
	if (peer.kept_fd >= 0)
		close(peer.kept_fd);
	peer.kept = NULL;
	peer.kept_fd = fd;
	if (fd < 0)
		return;
	peer.kept_desc = *desc;
	peer.kept = mmap(NULL, desc->mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(peer.kept != MAP_FAILED);
}

/*
 * Of the chains from the used index on, some are in flight; a last batch was given back and is not
 * struck out.
 */
static void note_split(uint8_t *region, uint32_t i, uint32_t num)
{
	const uint8_t *ring = memory + i * RING_BYTES;
	const struct vring_avail *avail = (const struct vring_avail *)(const void *)(ring + 0x800);
	struct vring_used *used = (struct vring_used *)(void *)(ring + 0x1000);
	uint32_t open = (uint16_t)(avail->idx - used->idx), batch = rarely(4) ? 0 : rnd(3);

	open = rarely(8) ? num : pd_min(open, num);
	put16(region + SPLIT_USED, used->idx - batch);
	for (uint32_t k = rnd(pd_min(open, 8u) + 1); k; k--) {
		uint32_t head = avail->ring[(used->idx + k - 1) % num] % KEPT_SIZE;
		uint8_t *entry = region + SPLIT_HEAD + head * SPLIT_ENTRY;

		entry[0] = 1;
		put64(entry + COUNTER, rnd(16));
	}
	for (; batch; batch--) {
		uint32_t head = rnd(num);
		uint8_t *entry = region + SPLIT_HEAD + head * SPLIT_ENTRY;

		entry[0] = 1;
		memcpy(entry + SPLIT_NEXT, region + LAST_BATCH, 2);
		put16(region + LAST_BATCH, head);
	}
}

/* A few chains in flight in the first entries, and the others free. */
static void note_packed(uint8_t *region, uint32_t i, uint32_t num)
{
	uint32_t n = rnd(pd_min(num, 8u) + 1), used = rnd(num), wrap = rnd(2), head = 0;

	for (uint32_t k = 0; k < 2; k++) {
		bool whole = k || rarely(4);

		put16(region + FREE + 2 * k, n);
		put16(region + PACKED_USED + 2 * k, whole ? used : (used + 1) % num);
		region[WRAP + k] = (uint8_t)(wrap ^ (!whole && used + 1 == num));
	}
	for (uint32_t k = 0; k < KEPT_SIZE; k++) {
		uint8_t *entry = region + PACKED_HEAD + k * PACKED_ENTRY;
		bool more = k + 1 < n && one_in(4);

		memset(entry, 0, PACKED_ENTRY);
		put16(entry + NEXT, k + 1);
		if (k >= n)
			continue;
		region[PACKED_HEAD + head * PACKED_ENTRY] = 1;
		put16(region + PACKED_HEAD + head * PACKED_ENTRY + LAST, k);
		put16(region + PACKED_HEAD + head * PACKED_ENTRY + NUM, k - head + 1);
		put64(region + PACKED_HEAD + head * PACKED_ENTRY + COUNTER, rnd(16));
		put16(entry + ID, k);
		put16(entry + FLAGS, (i & 1 ? 0u : VRING_DESC_F_WRITE) | more * VRING_DESC_F_NEXT);
		put16(entry + LEN, rnd(2000));
		put64(entry + ADDR, GPA + BUFFERS_AT + rnd(MEM_BYTES - BUFFERS_AT));
		if (!more)
			head = k + 1;
	}
	/* The ring goes on behind them. */
	peer.offset[i] = (wrap ? 0 : num) + used + n;
}

void kept_note(uint32_t i)
{
	uint32_t num = peer.num[i] && peer.num[i] <= KEPT_SIZE ? peer.num[i] : 64;
	uint64_t each = pd_inflight_queue_bytes(peer.kept_desc.queue_size, peer.packed);
	uint8_t *region;

	if (!peer.kept || peer.kept_desc.queue_size != KEPT_SIZE ||
	    (i + 1) * each > peer.kept_desc.mmap_size)
		return;
	region = peer.kept + i * each;
	put16(region + OF_VERSION, rarely(12) ? rnd(3) : 1);
	put16(region + OF_SIZE, KEPT_SIZE);
	(peer.packed ? note_packed : note_split)(region, i, num);
	for (uint32_t n = one_in(2) ? 0 : 1 + rnd(3); n; n--)
		region[rnd(one_in(2) ? 32 : 512)] = (uint8_t)rnd(one_in(2) ? 4 : 256);
}
