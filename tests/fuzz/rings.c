/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings with contents that a random peer made, in both roles.
 *
 *     rings [FIRST [COUNT [race]]]     TAP; default: seeds 0 to 1999
 *
 * A seed is one ring, with a peer that writes descriptors, indices, used elements and headers
 * (sensible ones mostly, else nothing behind the first mistake would ever be reached) between calls
 * of the data path. Shared memory stands between unmapped pages, so that a step outside ends the
 * program, and every frame that is shown is read to its last byte and must stand in that memory.
 * With `race` a second thread writes to the shared memory during the calls. What failed is repeated by its
 * seed: the last line on standard error names it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "virtio/driver.h"
#include "vlib/buffer.h"

#define HEADERS 512
#define STEPS 24
#define REGIONS 3
#define BIT(n) (1ull << (n))

static struct pd_buffer *bufs[2 * HEADERS];
static const struct pd_vq_headers headers = {bufs, HEADERS};
static uint8_t frame_bytes[2 * PD_FRAME_MAX_BYTES];
static unsigned long seed;
static bool in_device;
static unsigned long n_received, n_sent, n_broken;

/* --- chance, and what is done when an invariant is broken ------------------------------------ */

static uint64_t chance;

static uint32_t rnd(uint32_t below)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return (uint32_t)(((chance >> 32) * below) >> 32);
}

static bool one_in(uint32_t n)
{
	return !rnd(n);
}

/* Name the seed, whatever ends the program. Async-signal-safe. */
static void tell_seed(int sig)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "# died of signal %d: %s, seed %lu\n", sig,
			 in_device ? "device" : "driver", seed);

	if (write(2, line, (size_t)n) < 0)
		_exit(3);
	signal(sig, SIG_DFL);
	raise(sig);
}

#define MUST(what)                                                                      \
	do {                                                                            \
		if (!(what)) {                                                          \
			fprintf(stderr, "# seed %lu, %s: not so: %s (line %d)\n", seed, \
				in_device ? "device" : "driver", #what, __LINE__);      \
			abort();                                                        \
		}                                                                       \
	} while (0)

/* --- shared memory --------------------------------------------------------------------------- */

struct shared {
	uint8_t *p;
	size_t bytes; /* whole pages */
};

/* Pages between two that are not there. */
static void shared_map(struct shared *s, size_t bytes)
{
	uint8_t *p;

	s->bytes = (bytes + 4095) & ~(size_t)4095;
	p = mmap(NULL, s->bytes + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	MUST(p != MAP_FAILED && !mprotect(p + 4096, s->bytes, PROT_READ | PROT_WRITE));
	s->p = p + 4096;
}

static void shared_unmap(struct shared *s)
{
	munmap(s->p - 4096, s->bytes + 8192);
}

static bool stands_in(const struct shared *s, unsigned n, const uint8_t *p, size_t len)
{
	for (unsigned i = 0; i < n; i++)
		if (p >= s[i].p && len <= s[i].bytes && p <= s[i].p + s[i].bytes - len)
			return true;
	return false;
}

/* Frames that were shown: read them, and check where they stand. */
static void read_frames(struct pd_buffer **shown, int n, const struct shared *s, unsigned n_shared,
			const struct pd_vq *vq)
{
	const struct shared bounce = {vq->bounce, PD_FRAME_MAX_BYTES};
	static volatile uint8_t sink;

	for (int i = 0; i < n; i++) {
		const struct pd_buffer *b = shown[i];
		uint32_t total = 0;

		MUST(b->total_len <= PD_FRAME_MAX_BYTES);
		for (;;) {
			MUST(!b->len || stands_in(s, n_shared, b->data, b->len) ||
			     (vq->bounce && stands_in(&bounce, 1, b->data, b->len)));
			for (uint32_t at = 0; at < b->len; at++)
				sink ^= b->data[at];
			total += b->len;
			if (b->next == PD_BUFFER_NONE)
				break;
			b = pd_buffer_get(b->next);
		}
		MUST(total == shown[i]->total_len);
	}
}

/* Frames to send, some of them too long or in pieces. */
static unsigned make_frames(struct pd_buffer **out)
{
	unsigned n = 1 + rnd(one_in(4) ? 100 : 8), used = HEADERS;

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
	*(receive ? &n_received : &n_sent) += vq->counts.frames;
	n_broken += !!vq->broken;
}

/* --- a peer that never stops ----------------------------------------------------------------- */

static struct {
	pthread_t thread;
	struct shared s;
	bool on;
	uint32_t end;
} racer;

static void *race(void *arg)
{
	uint64_t x = seed * 2654435761u + 1;

	(void)arg;
	while (!pd_load_relaxed(&racer.end)) {
		uint64_t *at;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		at = (uint64_t *)(void *)(racer.s.p + (x >> 20) % (racer.s.bytes / 8) * 8);
		/* Swap two words of the memory: what was sensible stays so, somewhere else. */
		pd_store_relaxed(at, pd_load_relaxed(at) ^ (x & 0x0003000000000fff));
	}
	return NULL;
}

static void race_start(const struct shared *s)
{
	if (!racer.on)
		return;
	racer.s = *s;
	racer.end = 0;
	MUST(!pthread_create(&racer.thread, NULL, race, NULL));
}

static void race_stop(void)
{
	if (!racer.on)
		return;
	pd_store_relaxed(&racer.end, 1);
	pthread_join(racer.thread, NULL);
}

/* --- a random driver under our device -------------------------------------------------------- */

struct device {
	struct shared s[REGIONS];
	struct pd_mem_table mem;
	struct pd_vq_layout layout;
	struct pd_vq vq;
	bool avip, receive;
	uint16_t avail_idx;
};

static uint32_t any_length(uint32_t left)
{
	switch (rnd(12)) {
	case 0:
		return 0;
	case 1:
		return rnd(64);
	case 2:
		return 47 + rnd(3);
	case 3:
		return left;
	case 4:
		return left + 1;
	case 5:
		return one_in(4) ? UINT32_MAX - rnd(3) : rnd(70000);
	default:
		return rnd(2000);
	}
}

/* Somewhere in the guest's memory, mostly; *left: bytes to the end of that region. */
static uint64_t any_place(const struct device *d, uint32_t *left)
{
	const struct pd_mem_region *r = &d->mem.region[rnd(d->mem.n)];
	uint32_t at = one_in(5) ? (uint32_t)r->size - rnd(64) : rnd((uint32_t)r->size);

	*left = (uint32_t)r->size - at;
	if (one_in(40))
		return UINT64_MAX - rnd(100);
	if (one_in(40))
		return chance;
	return r->guest_addr + at;
}

/* A descriptor of a table of `n`. */
static void any_desc(struct device *d, struct vring_desc *to, uint32_t n, bool table)
{
	uint32_t left;

	to->addr = any_place(d, &left);
	to->len = any_length(left);
	to->flags = (d->receive ? 0 : VRING_DESC_F_WRITE) * !one_in(30);
	if (one_in(3))
		to->flags |= VRING_DESC_F_NEXT;
	if (one_in(60))
		to->flags ^= (uint16_t)rnd(8);
	to->next = (uint16_t)(one_in(100) ? rnd(65536) : rnd(n));
	if (table || !one_in(8))
		return;
	/* A table of them, at any place. */
	n = 1 + rnd(40);
	left = rnd((uint32_t)d->s[2].bytes - 16 * n);
	if (!one_in(4))
		left &= ~15u;
	to->addr = d->mem.region[d->mem.n - 1].guest_addr + left;
	to->len = 16 * n + (one_in(30) ? rnd(16) : 0);
	to->flags = VRING_DESC_F_INDIRECT | (one_in(50) ? VRING_DESC_F_NEXT : 0);
	for (uint32_t i = 0; i < n; i++) {
		struct vring_desc in;

		any_desc(d, &in, n, true);
		if (i + 1 == n && !one_in(8))
			in.flags &= (uint16_t)~VRING_DESC_F_NEXT;
		memcpy(d->s[2].p + left + 16 * i, &in, sizeof(in));
	}
}

/* The driver writes descriptors and makes some available. */
static void device_peer(struct device *d)
{
	struct vring_avail *avail = d->layout.avail;
	struct vring_desc *desc = d->layout.desc;
	uint32_t size = d->layout.size;
	uint16_t room, more;

	for (uint32_t i = 0, n = rnd(pd_min(size, 64u)) + 1; i < n; i++)
		any_desc(d, &desc[rnd(size)], size, false);
	room = (uint16_t)(size - (uint16_t)(d->avail_idx - d->vq.next));
	more = (uint16_t)rnd(pd_min((uint32_t)room + 1, 64u));
	for (uint16_t i = 0; i < more; i++)
		avail->ring[(uint16_t)(d->avail_idx + i) & (size - 1)] =
			(uint16_t)(one_in(300) ? rnd(65536) : rnd(size));
	d->avail_idx += more;
	avail->idx = one_in(100) ? (uint16_t)rnd(65536) : d->avail_idx;
	avail->flags = (uint16_t)rnd(2);
	avail->ring[size] = (uint16_t)(d->vq.own_idx + rnd(8));
}

/* One call, or two, of the data path. Returns false when the ring is broken. */
static bool device_call(struct device *d)
{
	struct pd_buffer *shown[PD_VQ_FRAMES_MAX];
	bool notify;
	int n;

	race_start(&d->s[0]);
	if (d->receive) {
		n = pd_device_rx(&d->vq, false, d->avip, &headers, 0, shown,
				 1 + rnd(PD_VQ_FRAMES_MAX), &notify);
		MUST(n >= 0 ? n == d->vq.n_shown : n == -ENETDOWN && d->vq.broken);
		read_frames(shown, n, d->s, REGIONS, &d->vq);
		if (n > 0)
			pd_device_rx_done(&d->vq, false, rnd((uint32_t)n + 1));
	} else {
		struct pd_buffer *out[128];
		unsigned want = make_frames(out);

		n = pd_device_tx(&d->vq, false, d->avip, out, want);
		MUST(n <= (int)want &&
		     (n >= 0 || n == -EMSGSIZE || (n == -ENETDOWN && d->vq.broken)));
		if (!one_in(10))
			pd_device_flush(&d->vq, false);
	}
	if (one_in(3))
		pd_device_arm(&d->vq, false,
			      one_in(2) ? d->vq.cursor : pd_device_position(&d->vq, false));
	else
		pd_device_disarm(&d->vq, false);
	race_stop();
	MUST(!d->vq.broken || pd_device_position(&d->vq, false) == d->vq.cursor);
	return !d->vq.broken;
}

/* The places of ring and memory. The second region follows the first in the guest's addresses. */
static void device_make(struct device *d)
{
	uint32_t size = 2u << rnd(9), at = 16 * rnd(64);
	uint64_t gpa = 0x10000, sizes[REGIONS] = {24576, 4096 * (1 + rnd(3)), 20480};

	memset(d, 0, sizeof(*d));
	for (unsigned i = 0; i < REGIONS; i++) {
		struct pd_mem_region r = {gpa, sizes[i], 0x7f0000000000 + gpa, NULL};

		shared_map(&d->s[i], sizes[i]);
		for (size_t k = 0; k < d->s[i].bytes; k += 4)
			memcpy(d->s[i].p + k, &(uint32_t){one_in(4) ? rnd(UINT32_MAX) : 0}, 4);
		r.host = d->s[i].p;
		MUST(!pd_mem_add(&d->mem, &r));
		gpa += sizes[i] + (i ? 1 << 20 : 0);
	}
	d->receive = one_in(2);
	d->avip = one_in(2);
	d->layout = (struct pd_vq_layout){
		.size = size,
		.hdr_bytes = d->avip ? PD_VQ_HDR_SIDECAR : PD_VQ_HDR_NET,
		.features = BIT(VIRTIO_F_VERSION_1) | rnd(2) * BIT(VIRTIO_RING_F_EVENT_IDX) |
			    rnd(2) * BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    !one_in(8) * BIT(VIRTIO_RING_F_INDIRECT_DESC),
		.desc = d->s[0].p + at,
	};
	if (!d->avip && one_in(3)) {
		d->layout.hdr_bytes = PD_VQ_HDR_LEGACY;
		d->layout.features &= ~(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF));
	}
	at += (uint32_t)pd_vq_desc_bytes(size);
	d->layout.avail = d->s[0].p + at;
	at = (at + (uint32_t)pd_vq_avail_bytes(size, false) + 3) & ~3u;
	d->layout.used = d->s[0].p + at;
	d->avail_idx = (uint16_t)(one_in(2) ? 0 : 65536 - rnd(64));
	((struct vring_used *)d->layout.used)->idx = d->avail_idx;
	((struct vring_avail *)d->layout.avail)->idx = d->avail_idx;
	MUST(!pd_vq_init_device(&d->vq, &d->layout, &d->mem));
}

static void device_seed(void)
{
	static struct device d;

	in_device = true;
	device_make(&d);
	for (int i = 0; i < STEPS; i++) {
		device_peer(&d);
		if (!device_call(&d))
			break;
	}
	if (d.vq.broken)
		device_call(&d);
	tally(d.receive, &d.vq);
	pd_vq_fini(&d.vq);
	for (unsigned i = 0; i < REGIONS; i++)
		shared_unmap(&d.s[i]);
}

/* --- a random device under our driver -------------------------------------------------------- */

struct driver {
	struct shared s;
	struct pd_vq_layout layout;
	struct pd_vq vq;
	bool avip;
	uint16_t used_idx;
};

/* The device takes chains in order, mostly, and scribbles. */
static void driver_peer(struct driver *d)
{
	struct vring_avail *avail = d->layout.avail;
	struct vring_used *used = d->layout.used;
	uint32_t mask = d->layout.size - 1, there = (uint16_t)(d->vq.own_idx - d->used_idx);
	uint16_t n = (uint16_t)rnd(pd_min(there, 64u) + 1);

	for (uint16_t i = 0; i < n; i++) {
		struct vring_used_elem *e = &used->ring[(uint16_t)(d->used_idx + i) & mask];
		uint16_t head = avail->ring[(uint16_t)(d->used_idx + i) & mask];
		uint8_t *p = d->layout.buffers + (uint64_t)(head & mask) * d->layout.buf_bytes;

		e->id = one_in(400) ? rnd(one_in(2) ? UINT32_MAX : 2 * mask + 2) : head;
		e->len = one_in(300) ? any_length(d->layout.buf_bytes)
			 : one_in(4) ? d->layout.buf_bytes
				     : rnd(d->layout.buf_bytes + 1);
		if (!d->layout.receive)
			continue;
		memset(p, 0, 64);
		p[d->avip ? 0 : 10] = (uint8_t)(one_in(50) ? rnd(256) : rnd(4));
		p[d->avip ? 1 : 11] = (uint8_t)(one_in(400) ? rnd(256) : 0);
		p[2] = one_in(10);
	}
	d->used_idx += n;
	used->idx = one_in(200) ? (uint16_t)rnd(65536) : d->used_idx;
	used->flags = (uint16_t)rnd(2);
	for (unsigned i = 0; one_in(4) && i < 20; i++) /* the descriptors and indices are ours */
		memset(d->s.p + rnd((uint32_t)pd_vq_desc_bytes(mask + 1)), (int)rnd(256), 1);
}

static bool driver_call(struct driver *d)
{
	struct pd_buffer *shown[PD_VQ_FRAMES_MAX];
	bool notify;
	int n;

	race_start(&d->s);
	if (d->layout.receive) {
		n = pd_driver_rx(&d->vq, false, d->avip, &headers, 0, shown,
				 1 + rnd(PD_VQ_FRAMES_MAX), &notify);
		MUST(n >= 0 ? n == d->vq.n_shown : n == -ENETDOWN && d->vq.broken);
		read_frames(shown, n, &d->s, 1, &d->vq);
		if (n > 0)
			pd_driver_rx_done(&d->vq, false, rnd((uint32_t)n + 1));
	} else {
		struct pd_buffer *out[128];
		unsigned want = make_frames(out);

		n = pd_driver_tx(&d->vq, false, d->avip, out, want);
		MUST(n <= (int)want &&
		     (n >= 0 || n == -EMSGSIZE || (n == -ENETDOWN && d->vq.broken)));
		if (!one_in(10))
			pd_driver_flush(&d->vq, false);
	}
	if (one_in(3))
		pd_driver_arm(&d->vq, false,
			      one_in(2) ? d->vq.cursor : pd_driver_position(&d->vq, false));
	else
		pd_driver_disarm(&d->vq, false);
	race_stop();
	MUST(!d->vq.broken || pd_driver_position(&d->vq, false) == d->vq.cursor);
	return !d->vq.broken;
}

static void driver_make(struct driver *d)
{
	uint32_t size = 2u << rnd(8), buf = 64 * (1 + rnd(40));

	memset(d, 0, sizeof(*d));
	d->avip = one_in(2);
	d->layout = (struct pd_vq_layout){
		.size = size,
		.buf_bytes = buf,
		.hdr_bytes = d->avip ? PD_VQ_HDR_SIDECAR : PD_VQ_HDR_NET,
		.features = BIT(VIRTIO_F_VERSION_1) | rnd(2) * BIT(VIRTIO_RING_F_EVENT_IDX) |
			    rnd(2) * BIT(VIRTIO_NET_F_MRG_RXBUF),
		.receive = one_in(2),
	};
	shared_map(&d->s, pd_vq_driver_area_bytes(size, buf));
	pd_vq_driver_place(&d->layout, d->s.p, 0x10000);
	MUST(!pd_vq_init_driver(&d->vq, &d->layout));
}

static void driver_seed(void)
{
	static struct driver d;

	in_device = false;
	driver_make(&d);
	for (int i = 0; i < STEPS; i++) {
		uint32_t base;

		driver_peer(&d);
		if (!driver_call(&d))
			break;
		if (!one_in(10))
			continue;
		if (pd_vq_resume_driver(&d.vq, &base)) /* another device comes */
			break;
		d.used_idx = (uint16_t)base;
	}
	if (d.vq.broken)
		driver_call(&d);
	tally(d.layout.receive, &d.vq);
	pd_vq_fini(&d.vq);
	shared_unmap(&d.s);
}

int main(int argc, char **argv)
{
	static uint32_t index[2 * HEADERS];
	unsigned long first = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 0) : 2000;
	struct pd_buffer_pool *pool;
	int err;

	pool = pd_buffer_pool_create("fuzz", 2 * HEADERS, 0, &err);
	MUST(pool && pd_buffer_alloc(pool, index, 2 * HEADERS) == 2 * HEADERS);
	for (unsigned i = 0; i < 2 * HEADERS; i++)
		bufs[i] = pd_buffer_get(index[i]);
	racer.on = argc > 3;
	for (int i = 0; i < 5; i++)
		signal((int[]){SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGALRM}[i], tell_seed);
	for (seed = first; seed < first + count; seed++) {
		alarm(60); /* a call that does not end */
		chance = (seed + 1) * 0x9e3779b97f4a7c15;
		device_seed();
		chance = (seed + 1) * 0x9e3779b97f4a7c15;
		driver_seed();
	}
	printf("1..1\nok 1 - seeds %lu to %lu in both roles\n", first, first + count - 1);
	printf("# %lu frames received, %lu sent, %lu of %lu rings broken\n", n_received, n_sent,
	       n_broken, 2 * count);
	return 0;
}
