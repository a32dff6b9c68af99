/* SPDX-License-Identifier: BSD-2-Clause */
/* Guarded memory, frames and random numbers of the ring tests. */
#include "ring_util.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD 65536

static uint64_t rnd_state = 0x9e3779b97f4a7c15;

/* xorshift64*. */
uint32_t rnd(uint32_t below)
{
	rnd_state ^= rnd_state >> 12;
	rnd_state ^= rnd_state << 25;
	rnd_state ^= rnd_state >> 27;
	return (uint32_t)((rnd_state * 0x2545f4914f6cdd1d) >> 32) % below;
}

uint32_t rnd_frame(uint32_t longest)
{
	return PD_FRAME_MIN_BYTES + rnd(longest - PD_FRAME_MIN_BYTES + 1);
}

uint8_t *guarded_map(size_t bytes)
{
	size_t room = (bytes + 4095) & ~(size_t)4095;
	int fd = memfd_create("ring", 0);
	uint8_t *p = mmap(NULL, room + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(fd >= 0 && p != MAP_FAILED);
	assert_int_equal(ftruncate(fd, (off_t)room), 0);
	assert_ptr_equal(
		mmap(p + GUARD, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0),
		p + GUARD);
	close(fd);
	/* End at the guard: what runs over is caught even by one byte (16-aligned sizes). */
	return p + GUARD + (room - bytes) / 16 * 16;
}

void guarded_unmap(uint8_t *p, size_t bytes)
{
	size_t room = (bytes + 4095) & ~(size_t)4095;

	munmap((uint8_t *)((uintptr_t)p & ~(uintptr_t)4095) - GUARD, room + 2 * GUARD);
}

struct pd_buffer *header_bufs[2 * N_HEADERS];
const struct pd_vq_headers headers = {header_bufs, N_HEADERS};

int headers_setup(void **state)
{
	static uint32_t idx[2 * N_HEADERS];
	struct pd_buffer_pool *pool;
	int err;

	(void)state;
	pool = pd_buffer_pool_create("test", 2 * N_HEADERS, 0, &err);
	if (!pool || pd_buffer_alloc(pool, idx, 2 * N_HEADERS) != 2 * N_HEADERS)
		return -1;
	for (unsigned i = 0; i < 2 * N_HEADERS; i++)
		header_bufs[i] = pd_buffer_get(idx[i]);
	return 0;
}

void sidecar_make(struct pd_buffer *b, uint32_t seq)
{
	for (unsigned i = 0; i < PD_BUFFER_SIDECAR_BYTES; i++)
		b->sidecar[i] = sidecar_byte(seq, i);
	b->flags |= PD_BUFFER_SIDECAR;
}

struct pd_buffer *frame_make(struct out_frame *f, uint32_t seq, uint32_t len, unsigned pieces)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < len; i++)
		f->bytes[i] = frame_byte(seq, i);
	for (unsigned p = 0; p < pieces; p++) {
		uint32_t n = p + 1 == pieces ? len - at : rnd(len - at + 1);
		struct pd_buffer *b = f->bufs[p];

		b->data = f->bytes + at;
		b->len = n;
		b->flags = PD_BUFFER_EXTERNAL;
		b->next = p + 1 == pieces ? PD_BUFFER_NONE : f->bufs[p + 1]->index;
		at += n;
	}
	f->bufs[0]->total_len = len;
	sidecar_make(f->bufs[0], seq);
	if (!len)
		f->bufs[0]->flags |= PD_BUFFER_CONTROL;
	return f->bufs[0];
}

unsigned frames_read(struct pd_buffer *const *bufs, int n)
{
	unsigned sum = 0;

	for (int i = 0; i < n; i++) {
		const struct pd_buffer *p = bufs[i];

		assert_true(p->total_len <= PD_FRAME_MAX_BYTES);
		for (;; p = pd_buffer_get(p->next)) {
			for (uint32_t k = 0; k < p->len; k += 16)
				sum += pd_load_relaxed(&p->data[k]);
			if (p->next == PD_BUFFER_NONE)
				break;
		}
	}
	return sum;
}

void frame_check(const struct pd_buffer *b, uint32_t seq, uint32_t len, bool avip)
{
	uint32_t at = 0;

	assert_int_equal(b->total_len, len);
	if (avip) {
		assert_true(b->flags & PD_BUFFER_SIDECAR);
		assert_int_equal(!!(b->flags & PD_BUFFER_CONTROL), !len);
		for (unsigned i = 2; i < PD_BUFFER_SIDECAR_BYTES; i++)
			assert_int_equal(b->sidecar[i], sidecar_byte(seq, i));
	} else {
		assert_false(b->flags & (PD_BUFFER_SIDECAR | PD_BUFFER_CONTROL));
	}
	for (;;) {
		for (uint32_t i = 0; i < b->len; i++)
			if (b->data[i] != frame_byte(seq, at + i))
				fail_msg("frame %u differs at byte %u", seq, at + i);
		at += b->len;
		if (b->next == PD_BUFFER_NONE)
			break;
		b = pd_buffer_get(b->next);
	}
	assert_int_equal(at, len);
}
