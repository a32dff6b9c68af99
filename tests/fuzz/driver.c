/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A random device under our driver: it takes chains, uses them, writes headers, and goes away for
 * another one now and then, which is told where to go on. Ids, lengths, laps, order and all shared
 * memory are wrong at times.
 */
#include "ring.h"

/* A chain that the device holds, as the packed ring said it. */
struct held {
	uint16_t id, slots;
	uint64_t addr; /* of its first buffer */
};

struct driver {
	struct ring r;
	bool in_order;
	uint16_t used_idx;        /* split: the peer's index */
	struct place avail, used; /* packed: where the peer reads and writes */
	struct held held[512];    /* packed: chains read and not used */
	uint32_t n_held;
};

static struct driver *driver_of(struct ring *r)
{
	return pd_container_of(r, struct driver, r);
}

/* The length of a used element. */
static uint32_t used_length(const struct driver *d)
{
	uint32_t bytes = d->r.layout.buf_bytes;

	if (rarely(300))
		return one_in(2) ? bytes + rnd(70000) : UINT32_MAX - rnd(3);
	return one_in(4) ? bytes : rnd(bytes + 1);
}

/* A header where one may be looked for; its count of buffers is small, mostly. */
static void any_header(const struct driver *d, uint8_t *p)
{
	if (!d->r.receive)
		return;
	memset(p, 0, 64);
	p[d->r.avip ? 0 : 10] = (uint8_t)(rarely(50) ? rnd(256) : one_in(4) ? rnd(4) : 1);
	p[d->r.avip ? 1 : 11] = (uint8_t)(rarely(400) ? rnd(256) : 0);
	p[2] = one_in(10);
}

/* The device takes chains in order, mostly, and scribbles. */
static void split_peer(struct driver *d)
{
	struct vring_avail *avail = d->r.layout.avail;
	struct vring_used *used = d->r.layout.used;
	uint32_t mask = d->r.layout.size - 1, there = (uint16_t)(d->r.vq.own_idx - d->used_idx);
	uint16_t n = (uint16_t)rnd(pd_min(there, 64u) + 1);

	for (uint16_t i = 0; i < n; i++) {
		struct vring_used_elem *e = &used->ring[(uint16_t)(d->used_idx + i) & mask];
		uint16_t head = avail->ring[(uint16_t)(d->used_idx + i) & mask];

		e->id = rarely(400) ? rnd(one_in(2) ? UINT32_MAX : 2 * mask + 2) : head;
		e->len = used_length(d);
		any_header(d,
			   d->r.layout.buffers + (uint64_t)(head & mask) * d->r.layout.buf_bytes);
	}
	d->used_idx += n;
	used->idx = rarely(200) ? (uint16_t)rnd(65536) : d->used_idx;
	used->flags = (uint16_t)rnd(2);
}

/* Read the chains that are available. */
static void packed_read(struct driver *d)
{
	const struct vring_packed_desc *ring = d->r.layout.desc;
	struct held one = {0};

	while (d->n_held < PD_ARRAY_SIZE(d->held)) {
		const struct vring_packed_desc *desc = &ring[place_slot(d->avail)];

		if ((desc->flags & (PACKED_AVAIL | PACKED_USED)) != place_avail(d->avail) ||
		    one.slots == d->r.layout.size)
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
		&((struct vring_packed_desc *)d->r.layout.desc)[place_slot(d->used)];

	desc->id = rarely(300) ? (uint16_t)rnd(one_in(2) ? 65536 : 2 * d->r.layout.size) : h.id;
	desc->len = used_length(d);
	desc->flags = (uint16_t)(place_used(d->used) | d->r.receive * VRING_DESC_F_WRITE);
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
		uint64_t at = h.addr - d->r.layout.buffers_gpa;

		memmove(&d->held[k], &d->held[k + 1], (--d->n_held - k) * sizeof(*d->held));
		if (at < (uint64_t)d->r.layout.size * d->r.layout.buf_bytes)
			any_header(d, d->r.layout.buffers + at);
		slots += h.slots;
		if (d->in_order && i + 1 < n && !one_in(3))
			continue;
		packed_use(d, h, slots);
		slots = 0;
	}
	memcpy(d->r.layout.used, &event, sizeof(event));
}

/* All of the memory is the device's to write; the descriptors and indices are ours. */
static void scribble(struct driver *d)
{
	uint32_t bytes = (uint32_t)pd_vq_desc_bytes(d->r.layout.size);

	/* Over a packed ring's descriptors stand what the device has to say, too. */
	for (unsigned i = 0; (d->r.packed ? rarely(40) : one_in(4)) && i < 20; i++)
		d->r.s[0].p[rnd(bytes)] = (uint8_t)rnd(256);
}

static void driver_peer(struct ring *r)
{
	struct driver *d = driver_of(r);

	(r->packed ? packed_peer : split_peer)(d);
	scribble(d);
}

/* Other memory takes the place of the ring's. */
static void driver_move(struct driver *d)
{
	uint64_t bytes = (uint64_t)d->r.layout.size * d->r.layout.buf_bytes;
	uint8_t *saved = calloc(1, bytes);

	MUST(saved);
	pd_vq_save_driver(&d->r.vq, saved);
	memset(d->r.s[0].p, 0, d->r.s[0].bytes);
	memcpy(d->r.layout.buffers, saved, bytes);
	free(saved);
}

/*
 * Another device comes. Whether with it the memory moves goes by what is there, so that a corpus
 * goes on meaning what it did. Returns false when there is no going on.
 */
static bool driver_resume(struct driver *d)
{
	uint32_t base;

	if (pd_vq_settle_driver(&d->r.vq))
		return false;
	if (d->r.vq.seq & 1)
		driver_move(d);
	if (pd_vq_resume_driver(&d->r.vq, &base))
		return false;
	d->used_idx = (uint16_t)base;
	d->n_held = 0;
	if (!d->r.packed)
		return true;
	MUST((base & 0x7fff) < d->r.layout.size && (base >> 16 & 0x7fff) < d->r.layout.size);
	d->avail = d->used = place_of((uint16_t)base, d->r.layout.size);
	return true;
}

RING_END(driver_split, driver, false)
RING_END(driver_packed, driver, true)

static bool driver_after(struct ring *r)
{
	return !r->vq.broken && !(one_in(10) && !driver_resume(driver_of(r)));
}

static void driver_make(struct driver *d, bool packed)
{
	uint32_t buf = 64 * (1 + rnd(40));

	memset(d, 0, sizeof(*d));
	any_calm();
	d->r.packed = packed;
	d->r.avip = one_in(2);
	d->in_order = one_in(2);
	d->r.n_shared = 1;
	d->r.end = packed ? &driver_packed : &driver_split;
	d->r.peer = driver_peer;
	d->r.after = driver_after;
	d->r.held = true;
	d->r.layout = (struct pd_vq_layout){
		.size = packed ? 1 + rnd(256) : 2u << rnd(8),
		.buf_bytes = buf,
		.hdr_bytes = d->r.avip ? PD_VQ_HDR_SIDECAR : PD_VQ_HDR_NET,
		.features = BIT(VIRTIO_F_VERSION_1) | packed * BIT(VIRTIO_F_RING_PACKED) |
			    rnd(2) * BIT(VIRTIO_RING_F_EVENT_IDX) |
			    rnd(2) * BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    d->in_order * BIT(VIRTIO_F_IN_ORDER),
		.receive = one_in(2),
	};
	d->r.receive = d->r.layout.receive;
	/*
	 * By a feature that it has nothing to do with, so that a corpus goes on meaning what it
	 * did.
	 */
	if (!d->r.avip && d->r.layout.features & BIT(VIRTIO_RING_F_EVENT_IDX))
		d->r.layout.offloads = PD_OFFLOAD_CSUM | PD_OFFLOAD_TSO;
	d->avail = d->used = (struct place){0, d->r.layout.size};
	shared_map(&d->r.s[0], pd_vq_driver_area_bytes(d->r.layout.size, buf));
	pd_vq_driver_place(&d->r.layout, d->r.s[0].p, 0x10000);
	MUST(!pd_vq_init_driver(&d->r.vq, &d->r.layout));
}

bool fuzz_driver(bool packed)
{
	static struct driver d;
	bool good;

	driver_make(&d, packed);
	good = ring_run(&d.r);
	shared_unmap(&d.r.s[0]);
	return good;
}
