/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A random driver under our device: chains of sensible descriptors mostly, in memory of three
 * regions, with indices, laps, tables, events and the ring's memory itself written over now and
 * then. A packed ring's receive buffers may be its own slots, so that what we send makes them
 * available again within the call that consumed them. With an in-flight region the device ends or
 * dies between calls, and another goes on.
 */
#include "ring.h"
#include "virtio/inflight.h"

#define MEM_REGIONS 3

struct device {
	struct ring r;
	struct pd_mem_table mem;
	uint16_t avail_idx; /* split: the peer's index */
	struct place avail; /* packed: where the peer writes next */
	uint32_t offered;   /* packed: slots that it has made available */
	bool lapped;        /* packed: there may be others that look so */
	uint32_t entries;   /* of the in-flight region, which is s[MEM_REGIONS]; 0 there is none */
	bool wrong;         /* tracked: the driver did what none does, or wrote into the region */
};

static struct device *device_of(struct ring *r)
{
	return pd_container_of(r, struct device, r);
}

static uint32_t any_length(uint32_t left)
{
	if (rarely(12))
		return left + 1;
	if (rarely(12))
		return one_in(4) ? UINT32_MAX - rnd(3) : rnd(70000);
	switch (rnd(12)) {
	case 0:
		return rarely(2) ? 0 : pd_min(left, 1 + rnd(3));
	case 1:
		return pd_min(left, 1 + rnd(64));
	case 2:
		return pd_min(left, 47 + rnd(3));
	case 3:
		return left;
	default:
		return pd_min(left, 1 + rnd(2000));
	}
}

/* Somewhere in the guest's memory, mostly; *left: bytes to the end of that region. */
static uint64_t any_place(const struct device *d, uint32_t *left)
{
	const struct pd_mem_region *r = &d->mem.region[rnd(d->mem.n)];
	uint32_t at = one_in(5) ? (uint32_t)r->size - 1 - rnd(64) : rnd((uint32_t)r->size);

	*left = (uint32_t)r->size - at;
	if (rarely(40))
		return UINT64_MAX - rnd(100);
	if (rarely(40))
		return rnd(UINT32_MAX) * 0x9e3779b97f4a7c15;
	return r->guest_addr + at;
}

/* A descriptor in the format of the ring. `next`: packed, the buffer's id. */
static void put_desc(const struct device *d, void *to, const struct vring_desc *from)
{
	struct vring_packed_desc packed = {from->addr, from->len, from->next, from->flags};

	if (d->r.packed)
		memcpy(to, &packed, sizeof(packed));
	else
		memcpy(to, from, sizeof(*from));
}

/* A descriptor of the ring or of a table, whose successor is entry `next`. `first`: no other is before it
 * in its chain. One of the ring may refer to a table. */
static struct vring_desc any_desc(struct device *d, uint32_t next, bool first, bool table)
{
	bool indirect = d->r.layout.features & BIT(VIRTIO_RING_F_INDIRECT_DESC);
	struct vring_desc desc;
	uint32_t left, n;

	desc.addr = any_place(d, &left);
	desc.len = any_length(left);
	desc.flags = (d->r.receive ? 0 : VRING_DESC_F_WRITE) * !rarely(30);
	if (one_in(3))
		desc.flags |= VRING_DESC_F_NEXT;
	if (rarely(60))
		desc.flags ^= (uint16_t)(d->r.packed ? rnd(65536) & 0x7f7f : rnd(8));
	desc.next = (uint16_t)(rarely(60) ? rnd(65536) : next);
	if (table || !((indirect && first && one_in(8)) || rarely(50)))
		return desc;
	/* A table of them, at any place. */
	n = 1 + rnd(40);
	left = rnd((uint32_t)d->r.s[2].bytes - 16 * n);
	if (!one_in(4))
		left &= ~15u;
	desc.addr = d->mem.region[d->mem.n - 1].guest_addr + left;
	desc.len = 16 * n + (rarely(30) ? rnd(16) : 0);
	desc.flags = VRING_DESC_F_INDIRECT | (rarely(50) ? VRING_DESC_F_NEXT : 0);
	for (uint32_t i = 0; i < n; i++) {
		struct vring_desc in = any_desc(d, i + 1, !i, true);

		if (i + 1 == n && !rarely(8))
			in.flags &= (uint16_t)~VRING_DESC_F_NEXT;
		put_desc(d, d->r.s[2].p + left + 16 * i, &in);
	}
	return desc;
}

/*
 * The device's position. A driver that has an in-flight region does not use again what is not given
 * back.
 */
static uint32_t position(const struct device *d)
{
	return d->r.vq.cursor - (d->entries ? d->r.vq.staged : 0);
}

/* The driver writes descriptors, one behind the other, and makes chains of them available. */
static void split_peer(struct ring *r)
{
	struct device *d = device_of(r);
	struct vring_avail *avail = d->r.layout.avail;
	struct vring_desc *desc = d->r.layout.desc;
	uint32_t size = d->r.layout.size, n = rnd(pd_min(size, 64u) + 1), at = rnd(size);
	uint32_t held = d->entries ? d->r.vq.staged : 0;
	uint16_t room = (uint16_t)(size - held - (uint16_t)(d->avail_idx - d->r.vq.next));
	bool first = true;

	for (uint32_t i = 0; i < n; i++, at = (at + 1) % size) {
		struct vring_desc one = any_desc(d, (at + 1) % size, first, false);

		if (i + 1 == n && !rarely(100))
			one.flags &= (uint16_t)~VRING_DESC_F_NEXT;
		put_desc(d, &desc[at], &one);
		if (first && (room || rarely(200))) {
			avail->ring[d->avail_idx++ & (size - 1)] =
				(uint16_t)(rarely(100) ? rnd(65536) : at);
			room -= !!room;
		}
		first = !(one.flags & VRING_DESC_F_NEXT);
	}
	avail->idx = rarely(100) ? (uint16_t)rnd(65536) : d->avail_idx;
	d->wrong |=
		avail->idx != d->avail_idx || (uint16_t)(d->avail_idx - d->r.vq.next + held) > size;
	avail->flags = (uint16_t)rnd(2);
	avail->ring[size] = (uint16_t)(d->r.vq.own_idx + rnd(8));
}

/*
 * Make of `desc` a buffer with room for a header that ends with the flags of the slot `at`: a
 * frame's first bytes make that available again, in the next lap (ring_run).
 */
static void on_ring(const struct device *d, struct place at, struct vring_desc *desc)
{
	const struct shared *s = &d->r.s[0];
	const uint8_t *ring = d->r.layout.desc;
	uint32_t slot = place_slot(at), shift;

	at.at += at.size;
	shift = place_avail(at) == PACKED_USED;
	desc->len = d->r.layout.hdr_bytes + shift + 2;
	desc->addr =
		d->mem.region[0].guest_addr + (uint64_t)(ring + 16 * slot + 16 - s->p) - desc->len;
}

/* The same; a chain that no descriptor ends is rare, since nothing behind it would be looked at. */
static void packed_peer(struct ring *r)
{
	struct device *d = device_of(r);
	uint8_t *ring = d->r.layout.desc;
	uint32_t size = d->r.layout.size, room = size - (d->offered - position(d));
	uint32_t more = rnd(pd_min(room + 1, 64u)), event;
	bool first = true, endless;

	if (rarely(200)) /* over what it has not got back */
		more += rnd(size), d->lapped = true;
	endless = rnd(300) < (d->r.on_ring ? 30 : 1);
	if (endless)
		more = room;
	for (uint32_t i = 0; i < more; i++) {
		struct vring_desc one = any_desc(d, rnd(size), first, false);

		if (i + 1 == more && !one_in(100))
			one.flags &= (uint16_t)~VRING_DESC_F_NEXT;
		if (endless)
			one.flags =
				(uint16_t)(VRING_DESC_F_NEXT | !d->r.receive * VRING_DESC_F_WRITE);
		if (d->r.on_ring && (endless ? !i : first && !(one.next & 3))) {
			on_ring(d, d->avail, &one);
			one.flags = VRING_DESC_F_WRITE;
		}
		first = !(one.flags & VRING_DESC_F_NEXT);
		one.flags ^= place_avail(d->avail);
		if (rarely(400)) { /* of another lap, or of none */
			one.flags ^= (uint16_t)(rnd(2) * PACKED_AVAIL | rnd(2) * PACKED_USED);
			d->lapped = true;
		}
		put_desc(d, ring + 16 * place_slot(d->avail), &one);
		d->avail.at++;
	}
	d->offered += pd_min(more, room);
	if (rarely(60)) {
		ring[rnd(16 * size)] = (uint8_t)rnd(256);
		d->lapped = true;
	}
	event = any_event(d->avail);
	memcpy(d->r.layout.avail, &event, sizeof(event));
	if (one_in(10)) /* ours, but in memory that it can write */
		memcpy(d->r.layout.used, &event, sizeof(event));
}

RING_END(device_split, device, false)
RING_END(device_packed, device, true)

/* Nothing is consumed that was not made available. Returns whether to go on. */
static bool device_after(struct ring *r)
{
	struct device *d = device_of(r);

	d->lapped |= fuzz_racing || r->on_ring;
	MUST(!r->packed || d->lapped || (int32_t)(d->offered - r->vq.cursor) >= 0);
	return !r->vq.broken;
}

/* Memory in three regions; the second follows the first in the guest's addresses. */
static void device_memory(struct device *d)
{
	uint64_t gpa = 0x10000, sizes[MEM_REGIONS] = {24576, 4096 * (1 + rnd(3)), 20480};

	for (unsigned i = 0; i < MEM_REGIONS; i++) {
		struct pd_mem_region r = {gpa, sizes[i], 0x7f0000000000 + gpa, NULL};
		bool noise = one_in(4);

		shared_map(&d->r.s[i], sizes[i]);
		for (size_t k = 0; noise && k < d->r.s[i].bytes; k += 4)
			memcpy(d->r.s[i].p + k, &(uint32_t){(uint32_t)k * 2654435761u}, 4);
		r.host = d->r.s[i].p;
		MUST(!pd_mem_add(&d->mem, &r));
		gpa += sizes[i] + (i ? 1 << 20 : 0);
	}
}

/* The parts of a ring, one behind the other from `at`. */
static void split_place(struct device *d, uint8_t *at)
{
	uint32_t size = d->r.layout.size;

	d->r.layout.desc = at;
	d->r.layout.avail = at + pd_vq_desc_bytes(size);
	d->r.layout.used =
		at + ((pd_vq_desc_bytes(size) + pd_vq_avail_bytes(size, false) + 3) & ~3u);
	d->avail_idx = (uint16_t)(one_in(2) ? 0 : 65536 - rnd(64));
	((struct vring_used *)d->r.layout.used)->idx = d->avail_idx;
	((struct vring_avail *)d->r.layout.avail)->idx = d->avail_idx;
}

/* Events first, so that the ring ends where the memory does, mostly; as after some laps. */
static void packed_place(struct device *d, uint8_t *at)
{
	uint32_t size = d->r.layout.size;
	uint8_t *ring = one_in(3) ? at + 16 : d->r.s[0].p + d->r.s[0].bytes - 16 * size;
	uint16_t flags;

	d->r.layout.desc = ring;
	d->r.layout.avail = at;
	d->r.layout.used = at + 4;
	d->avail = (struct place){rnd(2 * size), size};
	for (uint32_t i = 0; i < size; i++) {
		bool lap = place_wrap(d->avail) == (i < place_slot(d->avail));

		flags = lap ? PACKED_AVAIL | PACKED_USED : 0;
		memcpy(ring + 16 * i + 14, &flags, sizeof(flags));
	}
	d->r.layout.base = place_off_wrap(d->avail) * (one_in(2) ? 1u : 0x10001u);
	d->lapped = one_in(50);
	if (d->lapped) /* it may be refused */
		d->r.layout.base = rnd(one_in(2) ? UINT32_MAX : 2 * size);
}

/* A device takes the ring up, with its region if there is one. Returns whether it could. */
static bool device_begin(struct device *d)
{
	const struct shared *s = &d->r.s[MEM_REGIONS];
	uint64_t bytes = pd_inflight_queue_bytes(d->entries, d->r.packed);
	const char *why = NULL;

	d->r.layout.inflight = NULL;
	if (d->entries)
		why = pd_inflight_begin(&d->r.layout, s->p + s->bytes - bytes, d->entries);
	MUST(!why || d->wrong || d->lapped);
	if (why)
		d->lapped = true; /* without it the ring is anywhere */
	MUST(!pd_vq_init_device(&d->r.vq, &d->r.layout, &d->mem));
	return !why;
}

/* The driver changes where a chain ends that may be in flight. */
static void change_chain(struct device *d)
{
	uint32_t size = d->r.layout.size, slot = rnd(pd_min(size, 8u));
	uint8_t *ring = d->r.layout.desc;

	slot = d->r.packed ? (d->r.vq.theirs.slot + slot) % size : rnd(size);
	ring[16 * slot + (d->r.packed ? 14 : 12)] ^= VRING_DESC_F_NEXT;
	d->wrong = true;
}

/* The device dies, or ends, and another goes on where the region says. Returns whether it can. */
static bool device_again(struct ring *r)
{
	struct device *d = device_of(r);
	const struct shared *s = &r->s[MEM_REGIONS];

	if (!one_in(6))
		return true;
	d->wrong |= fuzz_racing;
	if (rarely(8)) {
		s->p[rnd((uint32_t)s->bytes)] = (uint8_t)rnd(256);
		d->wrong = true;
	}
	d->offered -= position(d);
	if (one_in(2)) {
		pd_inflight_free(r->vq.inflight);
		r->vq.inflight = NULL;
	}
	pd_vq_fini(&r->vq);
	if (!device_begin(d))
		return false;
	if (rarely(6))
		change_chain(d);
	return true;
}

/* A region that no device had; it ends where its memory does. */
static void device_track(struct device *d)
{
	d->entries = d->r.layout.size + (one_in(2) ? 0 : rnd(64));
	shared_map(&d->r.s[MEM_REGIONS], pd_inflight_queue_bytes(d->entries, d->r.packed));
	d->r.n_more = 1;
	d->wrong = !d->r.receive; /* it may have us write over its ring */
	d->r.again = device_again;
}

/* Returns whether the ring was accepted. */
static bool device_make(struct device *d, bool packed, bool tracked)
{
	uint8_t *at;
	const char *why;
	bool good;

	memset(d, 0, sizeof(*d));
	any_calm();
	device_memory(d);
	d->r.packed = packed;
	d->r.n_shared = MEM_REGIONS;
	d->r.end = packed ? &device_packed : &device_split;
	d->r.peer = packed ? packed_peer : split_peer;
	d->r.after = device_after;
	d->r.receive = one_in(2);
	d->r.avip = one_in(2);
	d->r.layout = (struct pd_vq_layout){
		.size = packed ? 1 + rnd(512) : 2u << rnd(9),
		.hdr_bytes = d->r.avip ? PD_VQ_HDR_SIDECAR : PD_VQ_HDR_NET,
		.features = BIT(VIRTIO_F_VERSION_1) | packed * BIT(VIRTIO_F_RING_PACKED) |
			    rnd(2) * BIT(VIRTIO_RING_F_EVENT_IDX) |
			    rnd(2) * BIT(VIRTIO_NET_F_MRG_RXBUF) | rnd(2) * BIT(VIRTIO_F_IN_ORDER) |
			    !one_in(8) * BIT(VIRTIO_RING_F_INDIRECT_DESC),
	};
	if (!d->r.avip && one_in(3)) {
		d->r.layout.hdr_bytes = PD_VQ_HDR_LEGACY;
		d->r.layout.features &= ~(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF));
	}
	/*
	 * By a feature that it has nothing to do with, so that a corpus goes on meaning what it
	 * did. So is whether there are buffers on the ring.
	 */
	if (!d->r.avip && d->r.layout.features & BIT(VIRTIO_RING_F_EVENT_IDX))
		d->r.layout.offloads = PD_OFFLOAD_CSUM | PD_OFFLOAD_TSO;
	d->r.on_ring = packed && !d->r.receive && d->r.layout.features & BIT(VIRTIO_F_IN_ORDER);
	at = d->r.s[0].p + 16 * rnd(64);
	(packed ? packed_place : split_place)(d, at);
	good = !pd_vq_layout_check(&d->r.layout, &why);
	MUST(good || packed);
	if (good && tracked)
		device_track(d);
	if (good)
		device_begin(d);
	else
		MUST(pd_vq_init_device(&d->r.vq, &d->r.layout, &d->mem));
	if (good)
		pd_vq_is_misplaced(&d->r.vq);
	return good;
}

bool fuzz_device(bool packed, bool tracked)
{
	static struct device d;
	bool good = device_make(&d, packed, tracked);

	if (good)
		good = ring_run(&d.r);
	for (unsigned i = 0; i < d.r.n_shared + d.r.n_more; i++)
		shared_unmap(&d.r.s[i]);
	return good;
}
