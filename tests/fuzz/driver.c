/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A random device under our driver: it takes chains, uses them, writes headers, and goes away for another
 * one now and then, which is told where to go on. Ids, lengths, laps, order and all shared memory are
 * wrong at times.
 */
#include "ring.h"

/* A chain that the device holds, as the packed ring said it. */
struct held {
	uint16_t id, slots;
	uint64_t addr; /* of its first buffer */
};

struct driver {
	struct shared s;
	struct pd_vq_layout layout;
	struct pd_vq vq;
	bool packed, avip, in_order;
	uint16_t used_idx;        /* split: the peer's index */
	struct place avail, used; /* packed: where the peer reads and writes */
	struct held held[512];    /* packed: chains read and not used */
	uint32_t n_held;
};

/* The length of a used element. */
static uint32_t used_length(const struct driver *d)
{
	uint32_t bytes = d->layout.buf_bytes;

	if (rarely(300))
		return one_in(2) ? bytes + rnd(70000) : UINT32_MAX - rnd(3);
	return one_in(4) ? bytes : rnd(bytes + 1);
}

/* A header where one may be looked for; its count of buffers is small, mostly. */
static void any_header(const struct driver *d, uint8_t *p)
{
	if (!d->layout.receive)
		return;
	memset(p, 0, 64);
	p[d->avip ? 0 : 10] = (uint8_t)(rarely(50) ? rnd(256) : one_in(4) ? rnd(4) : 1);
	p[d->avip ? 1 : 11] = (uint8_t)(rarely(400) ? rnd(256) : 0);
	p[2] = one_in(10);
}

/* The device takes chains in order, mostly, and scribbles. */
static void split_peer(struct driver *d)
{
	struct vring_avail *avail = d->layout.avail;
	struct vring_used *used = d->layout.used;
	uint32_t mask = d->layout.size - 1, there = (uint16_t)(d->vq.own_idx - d->used_idx);
	uint16_t n = (uint16_t)rnd(pd_min(there, 64u) + 1);

	for (uint16_t i = 0; i < n; i++) {
		struct vring_used_elem *e = &used->ring[(uint16_t)(d->used_idx + i) & mask];
		uint16_t head = avail->ring[(uint16_t)(d->used_idx + i) & mask];

		e->id = rarely(400) ? rnd(one_in(2) ? UINT32_MAX : 2 * mask + 2) : head;
		e->len = used_length(d);
		any_header(d, d->layout.buffers + (uint64_t)(head & mask) * d->layout.buf_bytes);
	}
	d->used_idx += n;
	used->idx = rarely(200) ? (uint16_t)rnd(65536) : d->used_idx;
	used->flags = (uint16_t)rnd(2);
}

/* Read the chains that are available. */
static void packed_read(struct driver *d)
{
	const struct vring_packed_desc *ring = d->layout.desc;
	struct held one = {0};

	while (d->n_held < PD_ARRAY_SIZE(d->held)) {
		const struct vring_packed_desc *desc = &ring[place_slot(d->avail)];

		if ((desc->flags & (PACKED_AVAIL | PACKED_USED)) != place_avail(d->avail) ||
		    one.slots == d->layout.size)
			return;
		if (!one.slots++)
			one.addr = desc->addr;
		one.id = desc->id;
		d->avail.at++;
		if (desc->flags & VRING_DESC_F_NEXT)
			continue;
		d->held[d->n_held++] = one;
		one = (struct held){0};
	}
}

/* Write one used element, which counts for `slots`. */
static void packed_use(struct driver *d, struct held h, uint32_t slots)
{
	struct vring_packed_desc *desc =
		&((struct vring_packed_desc *)d->layout.desc)[place_slot(d->used)];

	desc->id = rarely(300) ? (uint16_t)rnd(one_in(2) ? 65536 : 2 * d->layout.size) : h.id;
	desc->len = used_length(d);
	desc->flags = (uint16_t)(place_used(d->used) | d->layout.receive * VRING_DESC_F_WRITE);
	if (rarely(300))
		desc->flags ^= (uint16_t)rnd(65536);
	d->used.at += rarely(400) ? rnd(4) : slots;
}

/* The device uses what it holds, in whatever order where none was agreed, and one element for many
 * where that was. */
static void packed_peer(struct driver *d)
{
	uint32_t n, event = any_event(d->used);

	packed_read(d);
	n = rnd(pd_min(d->n_held, 64u) + 1);
	for (uint32_t i = 0, slots = 0; i < n; i++) {
		uint32_t k = !d->in_order && one_in(4) ? rnd(d->n_held) : 0;
		struct held h = d->held[k];
		uint64_t at = h.addr - d->layout.buffers_gpa;

		memmove(&d->held[k], &d->held[k + 1], (--d->n_held - k) * sizeof(*d->held));
		if (at < (uint64_t)d->layout.size * d->layout.buf_bytes)
			any_header(d, d->layout.buffers + at);
		slots += h.slots;
		if (d->in_order && i + 1 < n && !one_in(3))
			continue;
		packed_use(d, h, slots);
		slots = 0;
	}
	memcpy(d->layout.used, &event, sizeof(event));
}

/* All of the memory is the device's to write; the descriptors and indices are ours. */
static void scribble(struct driver *d)
{
	uint32_t bytes = (uint32_t)pd_vq_desc_bytes(d->layout.size);

	/* Over a packed ring's descriptors stand what the device has to say, too. */
	for (unsigned i = 0; (d->packed ? rarely(40) : one_in(4)) && i < 20; i++)
		d->s.p[rnd(bytes)] = (uint8_t)rnd(256);
}

#define OF_FORMAT(fn, ...) \
	(d->packed ? fn(&d->vq, true, ##__VA_ARGS__) : fn(&d->vq, false, ##__VA_ARGS__))

/* One call, or two, of the data path. Returns false when the ring is broken. */
static bool driver_call(struct driver *d)
{
	struct pd_buffer *shown[PD_VQ_FRAMES_MAX], *out[FUZZ_FRAMES_MAX];
	uint32_t position, hold;
	bool notify;
	int n;

	race_start(&d->s, 1);
	if (d->layout.receive) {
		n = OF_FORMAT(pd_driver_rx, d->avip, &fuzz_headers, 0, shown,
			      1 + rnd(PD_VQ_FRAMES_MAX), &notify);
		MUST(n >= 0 ? n == d->vq.n_shown : n == -ENETDOWN && d->vq.broken);
		read_frames(shown, n, &d->s, 1, &d->vq);
		if (n > 0)
			OF_FORMAT(pd_driver_rx_done, rnd((uint32_t)n + 1));
	} else {
		unsigned want = make_frames(out);

		n = OF_FORMAT(pd_driver_tx, d->avip, out, want);
		MUST(n <= (int)want &&
		     (n >= 0 || n == -EMSGSIZE || (n == -ENETDOWN && d->vq.broken)));
		if (!one_in(10))
			OF_FORMAT(pd_driver_flush);
	}
	position = OF_FORMAT(pd_driver_position);
	hold = 1 + rnd(40);
	if (one_in(3))
		OF_FORMAT(pd_driver_arm_held, one_in(2) ? d->vq.cursor : position, hold);
	else
		OF_FORMAT(pd_driver_disarm);
	race_stop();
	MUST(!d->vq.broken || OF_FORMAT(pd_driver_position) == d->vq.cursor);
	return !d->vq.broken;
}

/* Another device comes. Returns false when there is no going on. */
static bool driver_resume(struct driver *d)
{
	uint32_t base;

	if (pd_vq_resume_driver(&d->vq, &base))
		return false;
	d->used_idx = (uint16_t)base;
	d->n_held = 0;
	if (!d->packed)
		return true;
	MUST((base & 0x7fff) < d->layout.size && (base >> 16 & 0x7fff) < d->layout.size);
	d->avail = d->used = place_of((uint16_t)base, d->layout.size);
	return true;
}

static void driver_make(struct driver *d, bool packed)
{
	uint32_t buf = 64 * (1 + rnd(40));

	memset(d, 0, sizeof(*d));
	any_calm();
	d->packed = packed;
	d->avip = one_in(2);
	d->in_order = one_in(2);
	d->layout = (struct pd_vq_layout){
		.size = packed ? 1 + rnd(256) : 2u << rnd(8),
		.buf_bytes = buf,
		.hdr_bytes = d->avip ? PD_VQ_HDR_SIDECAR : PD_VQ_HDR_NET,
		.features = BIT(VIRTIO_F_VERSION_1) | packed * BIT(VIRTIO_F_RING_PACKED) |
			    rnd(2) * BIT(VIRTIO_RING_F_EVENT_IDX) |
			    rnd(2) * BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    d->in_order * BIT(VIRTIO_F_IN_ORDER),
		.receive = one_in(2),
	};
	/* By a feature that it has nothing to do with, so that a corpus goes on meaning what it did. */
	if (!d->avip && d->layout.features & BIT(VIRTIO_RING_F_EVENT_IDX))
		d->layout.offloads = PD_OFFLOAD_CSUM | PD_OFFLOAD_TSO;
	d->avail = d->used = (struct place){0, d->layout.size};
	shared_map(&d->s, pd_vq_driver_area_bytes(d->layout.size, buf));
	pd_vq_driver_place(&d->layout, d->s.p, 0x10000);
	MUST(!pd_vq_init_driver(&d->vq, &d->layout));
}

void fuzz_driver(bool packed)
{
	static struct driver d;

	driver_make(&d, packed);
	for (int i = 0; i < FUZZ_STEPS; i++) {
		(packed ? packed_peer : split_peer)(&d);
		scribble(&d);
		if (!driver_call(&d))
			break;
		if (one_in(10) && !driver_resume(&d))
			break;
	}
	if (d.vq.broken)
		driver_call(&d);
	tally(d.layout.receive, &d.vq);
	pd_vq_fini(&d.vq);
	shared_unmap(&d.s);
}
