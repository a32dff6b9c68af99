/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings with contents that a random peer made: both formats, both roles.
 *
 * A run is one ring, with a peer that writes to it between calls of the data path (device.c,
 * driver.c). Shared memory stands between unmapped pages, so that a step outside ends the program,
 * and every frame that is shown is read to its last byte and must stand in that memory. With `race`
 * a second thread writes to the shared memory during the calls: descriptors, indices, headers,
 * indirect tables and in-flight regions, and turns slots of a packed ring to the next lap.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "ring.h"

static struct pd_buffer *bufs[2 * FUZZ_HEADERS];
const struct pd_vq_headers fuzz_headers = {bufs, FUZZ_HEADERS};
static uint8_t frame_bytes[2 * PD_FRAME_MAX_BYTES];

static const char *const kinds[] = {
	"split device",  "packed device",           "split driver",
	"packed driver", "split device, in flight", "packed device, in flight"};
static unsigned kind;
static struct {
	unsigned long received, sent;
} tallies[PD_ARRAY_SIZE(kinds)];

/* --- shared memory --------------------------------------------------------------------------- */

/* Small pieces are kept for the next run that wants one of that size: mapping them costs much. */
#define KEPT_BYTES_MAX 65536
static struct shared kept[32];

/* The place of a kept piece of this size, of one that is there with 0, or NULL. */
static struct shared *kept_place(size_t bytes)
{
	for (unsigned i = 0; i < PD_ARRAY_SIZE(kept); i++)
		if (kept[i].bytes == bytes)
			return &kept[i];
	return NULL;
}

void shared_map(struct shared *s, size_t bytes)
{
	struct shared *from;
	uint8_t *p;

	s->bytes = (bytes + 4095) & ~(size_t)4095;
	from = kept_place(s->bytes);
	if (from) {
		*s = *from;
		from->bytes = 0;
		return;
	}
	p = mmap(NULL, s->bytes + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	MUST(p != MAP_FAILED && !mprotect(p + 4096, s->bytes, PROT_READ | PROT_WRITE));
	s->p = p + 4096;
}

void shared_unmap(struct shared *s)
{
	struct shared *to = s->bytes <= KEPT_BYTES_MAX ? kept_place(0) : NULL;

	if (to) {
		memset(s->p, 0, s->bytes);
		*to = *s;
		return;
	}
	munmap(s->p - 4096, s->bytes + 8192);
}

static bool stands_in(const struct shared *s, unsigned n, const uint8_t *p, size_t len)
{
	for (unsigned i = 0; i < n; i++)
		if (p >= s[i].p && len <= s[i].bytes && p <= s[i].p + s[i].bytes - len)
			return true;
	return false;
}

/* Frames that were shown: read them, and check that they stand in one of `n_shared`. */
static void read_frames(struct pd_buffer **shown, int n, const struct shared *s, unsigned n_shared,
			const struct pd_vq *vq)
{
	const struct shared bounce = {vq->bounce, vq->frame_max};

	for (int i = 0; i < n; i++) {
		const struct pd_buffer *b = shown[i];
		uint32_t total = 0;

		MUST(b->total_len <= vq->frame_max);
		MUST(b->total_len >= PD_FRAME_MIN_BYTES || b->flags & PD_BUFFER_CONTROL);
		for (;;) {
			MUST(!b->len || stands_in(s, n_shared, b->data, b->len) ||
			     (vq->bounce && stands_in(&bounce, 1, b->data, b->len)));
			fuzz_read(b->data, b->len);
			total += b->len;
			if (b->next == PD_BUFFER_NONE)
				break;
			b = pd_buffer_get(b->next);
		}
		MUST(total == shown[i]->total_len);
	}
}

/* Up to FRAMES_MAX frames to send, some of them too long or in pieces. */
#define FRAMES_MAX 128
static unsigned make_frames(struct pd_buffer **out)
{
	unsigned n = 1 + rnd(one_in(4) ? 100 : 8), used = FUZZ_HEADERS;

	for (unsigned i = 0; i < n; i++) {
		uint32_t len = one_in(8) ? rnd(3) : one_in(20) ? 12235 + rnd(10) : 14 + rnd(1600);
		unsigned pieces = 1 + (one_in(4) ? rnd(3) : 0);
		struct pd_buffer *first = bufs[used];

		len = one_in(10) ? rnd(PD_FRAME_MAX_BYTES) : len;
		out[i] = first;
		for (unsigned p = 0, at = 0; p < pieces; p++) {
			struct pd_buffer *b = bufs[used++];

			b->len = p + 1 == pieces ? len - at : rnd(len - at + 1);
			b->data = frame_bytes + at;
			b->flags = PD_BUFFER_EXTERNAL;
			b->next = p + 1 == pieces ? PD_BUFFER_NONE : bufs[used]->index;
			at += b->len;
		}
		first->total_len = len;
		if (one_in(2))
			first->flags |= PD_BUFFER_SIDECAR;
	}
	return n;
}

/* Add up what became of a ring. */
static void tally(bool receive, const struct pd_vq *vq)
{
	*(receive ? &tallies[kind].received : &tallies[kind].sent) += vq->counts.frames;
}

/* --- a peer that never stops ----------------------------------------------------------------- */

static struct {
	pthread_t thread;
	const struct shared *s;
	unsigned n;
	uint64_t *ring; /* packed: its slots, of two words each */
	uint32_t slots;
	uint32_t end;
	uint64_t chance;
} racer;

/* The two bits of a lap, where they stand in a descriptor's second word. */
#define LAP_BITS ((uint64_t)(PACKED_AVAIL | PACKED_USED) << 48)

static void *race(void *arg)
{
	uint64_t x = racer.chance;

	(void)arg;
	while (!pd_load_relaxed(&racer.end)) {
		const struct shared *s;
		uint64_t *at;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (racer.ring && !(x >> 60 & 3)) {
			at = &racer.ring[2 * ((x >> 20) % racer.slots) + 1];
			pd_store_relaxed(at, pd_load_relaxed(at) ^ LAP_BITS);
			continue;
		}
		s = &racer.s[(x >> 12) % racer.n];
		at = (uint64_t *)(void *)(s->p + (x >> 20) % (s->bytes / 8) * 8);
		/* A few bits of a word: low ones, and those that are flags in either format. */
		pd_store_relaxed(at, pd_load_relaxed(at) ^ (x & 0x8083000000000fff));
	}
	return NULL;
}

/* A second thread writes to what the ring shares until race_stop, where that was asked for. */
static void race_start(const struct ring *r)
{
	if (!fuzz_racing)
		return;
	racer.s = r->s;
	racer.n = r->n_shared + r->n_more;
	racer.ring = r->packed ? r->layout.desc : NULL;
	racer.slots = r->layout.size;
	racer.end = 0;
	racer.chance = fuzz_chance();
	MUST(!pthread_create(&racer.thread, NULL, race, NULL));
}

static void race_stop(void)
{
	if (!fuzz_racing)
		return;
	pd_store_relaxed(&racer.end, 1);
	pthread_join(racer.thread, NULL);
}

/* --- a ring's life --------------------------------------------------------------------------- */

/* A packed ring's places are in it, and a device stages no more than a lap of it. */
static void check_places(const struct ring *r)
{
	const struct pd_vq *vq = &r->vq;
	uint32_t size = r->layout.size;

	MUST(!r->packed || (vq->theirs.slot < size && vq->ours.slot < size));
	MUST(!r->packed || vq->slots || vq->staged <= size);
}

/* One call, or two, of the data path. */
static void ring_call(struct ring *r)
{
	struct pd_buffer *shown[PD_VQ_FRAMES_MAX], *out[FRAMES_MAX];
	const struct ring_end *end = r->end;
	struct pd_vq *vq = &r->vq;
	uint32_t position, hold;
	int n;

	race_start(r);
	if (r->receive) {
		n = end->rx(vq, r->avip, shown, 1 + rnd(PD_VQ_FRAMES_MAX));
		MUST(n >= 0 ? n == vq->n_shown : n == -ENETDOWN && vq->broken);
		check_places(r);
		read_frames(shown, n, r->s, r->n_shared, vq);
		if (n > 0)
			end->rx_done(vq, rnd((uint32_t)n + 1));
	} else {
		unsigned want = make_frames(out);

		n = end->tx(vq, r->avip, out, want);
		MUST(n <= (int)want &&
		     (n >= 0 || n == -EMSGSIZE || (n == -ENETDOWN && vq->broken)));
		check_places(r);
		if (!one_in(10))
			end->flush(vq);
	}
	position = end->position(vq);
	hold = r->held ? 1 + rnd(40) : 1;
	if (one_in(3))
		end->arm(vq, one_in(2) ? vq->cursor : position, hold);
	else
		end->disarm(vq);
	race_stop();
	MUST(!vq->broken || end->position(vq) == vq->cursor);
}

bool ring_run(struct ring *r)
{
	bool sound;

	/* AVAIL without USED, and a byte further on USED without AVAIL. */
	frame_bytes[0] = frame_bytes[2] = r->on_ring ? PACKED_AVAIL : 0;
	for (int i = 0; i < FUZZ_STEPS; i++) {
		r->peer(r);
		ring_call(r);
		if (!r->after(r) || (r->again && !r->again(r)))
			break;
	}
	sound = !r->vq.broken;
	if (!sound)
		ring_call(r);
	tally(r->receive, &r->vq);
	pd_vq_fini(&r->vq);
	return sound;
}

/* --- the fuzzer ------------------------------------------------------------------------------ */

/* One ring of a kind. Returns whether it is sound at its end. */
static bool run(unsigned of_kind)
{
	kind = of_kind;
	return kind / 2 == 1 ? fuzz_driver(kind & 1) : fuzz_device(kind & 1, kind > 3);
}

/* What all runs use. */
static void prepare(void)
{
	static uint32_t index[2 * FUZZ_HEADERS];
	struct pd_buffer_pool *pool;
	int err;

	pool = pd_buffer_pool_create("fuzz", 2 * FUZZ_HEADERS, 0, &err);
	MUST(pool && pd_buffer_alloc(pool, index, 2 * FUZZ_HEADERS) == 2 * FUZZ_HEADERS);
	for (unsigned i = 0; i < 2 * FUZZ_HEADERS; i++)
		bufs[i] = pd_buffer_get(index[i]);
}

static void summary(unsigned k)
{
	printf(", %lu frames received, %lu sent", tallies[k].received, tallies[k].sent);
}

const struct fuzz_target fuzz_target = {
	.name = "rings",
	FUZZ_KINDS(kinds),
	.good = "sound to the end",
	.seeds = 2000,
	.prepare = prepare,
	.run = run,
	.summary = summary,
};
