/* SPDX-License-Identifier: BSD-2-Clause */
/* Virtqueues: setting them up, taking them down, carrying on after a device has gone. */
#include <linux/virtio_net.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/driver.h"
#include "virtio/inflight.h"
#include "vlib/lane.h"
#include "vlib/progress.h"

int pd_vq_break(struct pd_vq *vq, const char *why)
{
	if (!vq->broken)
		vq->broken = why;
	return -ENETDOWN;
}

int pd_vq_missed(struct pd_vq *vq, uint64_t addr, uint8_t access)
{
	struct pd_vq_miss *miss = &vq->miss;
	bool same = miss->addr == addr && miss->access == access;

	if (!miss->work || (same && miss->denied))
		return -EFAULT;
	if (same && miss->noted)
		return -EAGAIN;
	*miss = (struct pd_vq_miss){
		.work = miss->work, .addr = addr, .access = access, .noted = true};
	pd_progress_post(miss->work);
	return -EAGAIN;
}

/* More than the peer can make available, so that the side is not ready whatever it does. */
int pd_vq_stall(struct pd_vq *vq)
{
	vq->need = vq->size + 1;
	return 0;
}

int pd_vq_layout_check(const struct pd_vq_layout *layout, const char **why)
{
	const uint32_t hdr = layout->hdr_bytes, size = layout->size;
	const bool packed = pd_vq_is_packed(layout->features);

	*why = NULL;
	if (packed && (size < 1 || size > PD_VQ_SIZE_MAX))
		*why = "the ring's size is not from 1 to 32768";
	else if (!packed && (size < PD_VQ_SIZE_MIN || size > PD_VQ_SIZE_MAX || size & (size - 1)))
		*why = "the ring's size is not a power of two from 2 to 32768";
	else if (!layout->desc || !layout->avail || !layout->used)
		*why = "a part of the ring has no address";
	else if ((uintptr_t)layout->desc % 16 || (uintptr_t)layout->avail % (packed ? 4 : 2) ||
		 (uintptr_t)layout->used % 4)
		*why = "a part of the ring is misaligned";
	else if (packed && (layout->base & 0x7fff) >= size)
		*why = "the ring's base is beyond its size";
	else if (packed && (layout->base >> 16 & 0x7fff) >= size)
		*why = "the ring's used base is beyond its size";
	else if (hdr != PD_VQ_HDR_LEGACY && hdr != PD_VQ_HDR_NET && hdr != PD_VQ_HDR_SIDECAR)
		*why = "no header of that length";
	else if (hdr == PD_VQ_HDR_LEGACY && layout->features & 1ULL << VIRTIO_NET_F_MRG_RXBUF)
		*why = "mergeable buffers need num_buffers in the header";
	return *why ? -EINVAL : 0;
}

/* The power of two that holds `n`. */
static uint32_t round_up(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

/* What both roles take from the layout. */
static int init_common(struct pd_vq *vq, const struct pd_vq_layout *layout)
{
	const uint64_t f = layout->features;
	const char *why;

	if (pd_vq_layout_check(layout, &why))
		return -EINVAL;
	memset(vq, 0, sizeof(*vq));
	vq->desc = layout->desc;
	vq->avail = layout->avail;
	vq->used = layout->used;
	vq->size = layout->size;
	vq->mask = round_up(layout->size) - 1;
	vq->hdr_bytes = (uint16_t)layout->hdr_bytes;
	vq->offloads = layout->offloads;
	vq->frame_max =
		layout->offloads & PD_OFFLOAD_TSO ? PD_FRAME_LARGE_BYTES : PD_FRAME_MAX_BYTES;
	vq->packed = pd_vq_is_packed(f);
	vq->event_idx = f >> VIRTIO_RING_F_EVENT_IDX & 1;
	vq->indirect = f >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	vq->mergeable = f >> VIRTIO_NET_F_MRG_RXBUF & 1;
	vq->in_order = f >> VIRTIO_F_IN_ORDER & 1;
	vq->need = 1;
	vq->armed = true; /* for the peer: whatever stands there until we have written it */
	vq->shown = malloc(PD_VQ_FRAMES_MAX * sizeof(*vq->shown));
	return vq->shown ? 0 : -ENOMEM;
}

/* Where a device begins on a packed ring, as layout->base says. */
static void start_packed(struct pd_vq *vq, uint32_t base)
{
	uint16_t at = (uint16_t)(base >> 16 ? base >> 16 : base);

	vq->theirs = pd_packed_place(at & 0x7fff, at >> 15, false);
	vq->ours = pd_packed_place(at & 0x7fff, at >> 15, true);
}

/* The flags of a slot of the ring. */
static uint16_t flags_at(const struct pd_vq *vq, uint32_t slot)
{
	return (uint16_t)(pd_load_relaxed(pd_packed_word(vq, slot % vq->size)) >> 48);
}

/* The id in a slot of the ring. */
static uint16_t id_at(const struct pd_vq *vq, uint32_t slot)
{
	return (uint16_t)(pd_load_relaxed(pd_packed_word(vq, slot % vq->size)) >> 32);
}

/* Are these the flags of a used descriptor, in whatever lap, or of one that never was written? */
static bool are_used(uint16_t flags)
{
	return !(flags & PD_PACKED_AVAIL) == !(flags & PD_PACKED_USED);
}

/* Can the `n` slots before `end` be the rest of the used chain before them? The last has its id. */
static bool is_rest(const struct pd_vq *vq, uint32_t end, uint32_t n)
{
	for (uint32_t i = 2; i <= n; i++)
		if (!(flags_at(vq, end - i) & VRING_DESC_F_NEXT))
			return false;
	return !(flags_at(vq, end - 1) & VRING_DESC_F_NEXT) &&
	       id_at(vq, end - 1 - n) == id_at(vq, end - 1);
}

bool pd_vq_is_misplaced(const struct pd_vq *vq)
{
	uint32_t end = vq->theirs.slot + vq->size, n = 0;
	uint16_t lap = vq->theirs.bits & PD_PACKED_AVAIL;
	uint16_t lap_before = vq->theirs.slot ? lap : lap ^ PD_PACKED_AVAIL;
	uint16_t here, before;
	bool current;

	if (!vq->packed || vq->in_order)
		return false;
	here = flags_at(vq, end);
	before = flags_at(vq, end - 1);
	current = (here & PD_PACKED_AVAIL) == lap;
	if (current && are_used(here))
		return true;
	/*
	 * The driver is a whole lap ahead, or has not come here; what it may be writing proves
	 * nothing.
	 */
	if ((before & PD_PACKED_AVAIL) != lap_before)
		return !current && (!are_used(here) || are_used(before));
	while (n < vq->size && !are_used(flags_at(vq, end - 1 - n)))
		n++;
	return n && (n == vq->size || !is_rest(vq, end, n));
}

int pd_vq_init_device(struct pd_vq *vq, const struct pd_vq_layout *layout,
		      const struct pd_mem_table *mem)
{
	/* Frames that go together may take the whole ring. */
	uint32_t chains = pd_max(layout->size, PD_VQ_FRAMES_MAX + 0u);
	int err = init_common(vq, layout);
	uint16_t used;

	if (err == -EINVAL)
		return err;
	vq->chains = malloc(chains * sizeof(*vq->chains));
	vq->bounce = malloc(vq->frame_max);
	if (err || !vq->chains || !vq->bounce) {
		pd_vq_fini(vq);
		return -ENOMEM;
	}
	vq->mem = vq->mem_tables = mem;
	pd_ring_ask_not(vq, vq->packed, true); /* as in pd_vq_init_driver */
	if (vq->packed) {
		start_packed(vq, layout->base);
	} else {
		used = pd_load_relaxed(&vq->used->idx);
		if ((uint16_t)(pd_load_acquire(&vq->avail->idx) - used) > layout->size)
			used = (uint16_t)layout->base;
		vq->next = vq->own_idx = vq->peer_idx = used;
		vq->cursor = used;
	}
	if (layout->inflight) {
		vq->inflight = layout->inflight;
		pd_inflight_start(vq);
		pd_watch_update(vq);
	}
	return 0;
}

uint32_t pd_vq_base(const struct pd_vq *vq)
{
	uint32_t at;

	if (!vq->packed)
		return vq->next;
	at = pd_packed_off_wrap(vq->theirs);
	return at | at << 16;
}

/* Split: write every descriptor of ours and our half of the ring. */
static void write_descriptors(struct pd_vq *vq)
{
	for (uint32_t i = 0; i < vq->size; i++) {
		pd_store_relaxed(&vq->desc[i].addr, vq->buffers_gpa + (uint64_t)i * vq->buf_bytes);
		pd_store_relaxed((uint64_t *)(void *)&vq->desc[i].len, vq->slots[i].tail);
	}
}

/* The ring as it is before anything was made available; what only the device writes is its own. */
static void init_ring(struct pd_vq *vq)
{
	memset(vq->avail, 0, pd_vq_avail_bytes(vq->size, vq->packed));
	if (vq->packed) {
		memset(vq->packed_desc, 0, pd_vq_desc_bytes(vq->size));
		vq->ours = pd_packed_place(0, true, false);
		vq->theirs = pd_packed_place(0, true, true);
	} else {
		write_descriptors(vq);
	}
}

int pd_vq_init_driver(struct pd_vq *vq, const struct pd_vq_layout *layout)
{
	const uint32_t size = layout->size;
	int err;

	if (layout->buf_bytes < PD_VQ_DRIVER_BUF_MIN || layout->buf_bytes % 64 || !layout->buffers)
		return -EINVAL;
	err = init_common(vq, layout);
	if (err == -EINVAL)
		return err;
	vq->slots = calloc(size, sizeof(*vq->slots));
	vq->free = malloc((vq->mask + 1) * sizeof(*vq->free));
	vq->done = malloc((vq->mask + 1) * sizeof(*vq->done));
	if (err || !vq->slots || !vq->free || !vq->done) {
		pd_vq_fini(vq);
		return -ENOMEM;
	}
	vq->receive = layout->receive;
	vq->buffers = layout->buffers;
	vq->buffers_gpa = layout->buffers_gpa;
	vq->buf_bytes = layout->buf_bytes;
	for (uint32_t i = 0; i < size; i++) {
		vq->free[i] = (uint16_t)i;
		if (vq->receive)
			vq->slots[i].tail = pd_split_tail(vq->buf_bytes, VRING_DESC_F_WRITE, 0);
	}
	vq->free_tail = size;
	init_ring(vq);
	pd_ring_ask_not(vq, vq->packed,
			false); /* nobody sleeps yet; zero would ask for every batch */
	if (!vq->receive)
		return 0;
	for (uint32_t i = 0; i < size; i++)
		vq->done[i].id = i;
	pd_ring_refill(vq, vq->packed, vq->done, 0, size);
	pd_ring_publish(vq, vq->packed, false);
	return 0;
}

/* Orders heads as they were made available. */
struct held_head {
	uint32_t age; /* distance back from the newest */
	uint16_t head;
};

static int by_age(const void *a, const void *b)
{
	uint32_t x = ((const struct held_head *)a)->age, y = ((const struct held_head *)b)->age;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* Stage the chain `head` once more, as it was. */
static void stage_again(struct pd_vq *vq, uint16_t head)
{
	uint16_t i = head;

	for (uint32_t k = vq->slots[head].n; k; k--) {
		uint64_t tail = vq->slots[i].tail;

		pd_ring_avail_stage(vq, vq->packed, head, i, (uint32_t)tail, (uint16_t)(tail >> 32),
				    (uint16_t)(tail >> 48));
		i = (uint16_t)(tail >> 48);
	}
}

/*
 * Write a packed ring's slots so that none is available or used: those that are not staged again
 * hold what the device left there. A slot's bits are those of a used descriptor of the lap before
 * the one in which it is written next.
 */
static void clear_slots(struct pd_vq *vq)
{
	struct pd_packed_place at = vq->theirs;

	for (uint32_t i = 0; i < vq->size; i++) {
		pd_store_relaxed(pd_packed_word(vq, at.slot), (uint64_t)(at.bits ^ PD_PACKED_BITS)
								      << 48);
		pd_packed_advance(vq, &at, 1);
	}
}

/* Make ready to write anew everything behind what the old device has used. Returns the base. */
static uint32_t rewind_ring(struct pd_vq *vq)
{
	uint32_t base;

	vq->staged = 0;
	vq->armed = true;
	if (!vq->packed) {
		write_descriptors(vq);
		vq->own_idx = vq->peer_idx = vq->next;
		pd_store_relaxed(&vq->used->idx, vq->next);
		pd_store_relaxed(&vq->used->flags, 0);
		pd_store_relaxed(&vq->avail->flags, 0);
		pd_ring_ask_not(vq, false, false);
		return vq->next;
	}
	clear_slots(vq);
	base = pd_packed_off_wrap(vq->theirs);
	vq->ours = pd_packed_place(vq->theirs.slot, base >> 15, false);
	vq->published = 0;
	pd_store_relaxed((uint32_t *)(void *)vq->device_event, 0);
	pd_ring_ask_not(vq, true, false);
	return base | base << 16;
}

int pd_vq_settle_driver(struct pd_vq *vq)
{
	int err;

	if (vq->broken || !vq->slots)
		return -ENETDOWN;
	vq->n_shown = vq->n_walked = 0;
	err = vq->receive ? pd_driver_harvest(vq, vq->packed, vq->size)
			  : pd_driver_reclaim(vq, vq->packed);
	return pd_min(err, 0);
}

/* Copy `len` bytes of the buffer `i` to its place behind `to`. */
static void save_buffer(const struct pd_vq *vq, uint8_t *to, uint32_t i, uint32_t len)
{
	memcpy(to + (uint64_t)i * vq->buf_bytes, pd_driver_buffer(vq, i), len);
}

void pd_vq_save_driver(const struct pd_vq *vq, uint8_t *to)
{
	if (vq->receive) {
		for (uint32_t at = vq->cursor; at != vq->seen; at++) {
			struct pd_ring_used e = vq->done[at & vq->mask];

			save_buffer(vq, to, e.id, e.len);
		}
		return;
	}
	for (uint32_t head = 0; head < vq->size; head++) {
		uint32_t i = head;

		for (uint32_t k = vq->slots[head].n; k; k--) {
			uint64_t tail = vq->slots[i].tail;

			save_buffer(vq, to, i, (uint32_t)tail);
			i = (uint32_t)(tail >> 48);
		}
	}
}

int pd_vq_resume_driver(struct pd_vq *vq, uint32_t *base)
{
	struct held_head *heads;
	uint32_t n = 0;

	heads = malloc(vq->size * sizeof(*heads));
	if (!heads)
		return -ENETDOWN;
	for (uint32_t i = 0; i < vq->size; i++)
		if (vq->slots[i].n)
			heads[n++] = (struct held_head){vq->seq - vq->slots[i].seq, (uint16_t)i};
	qsort(heads, n, sizeof(*heads), by_age);
	*base = rewind_ring(vq);
	for (uint32_t i = 0; i < n; i++)
		stage_again(vq, heads[i].head);
	if (vq->staged)
		pd_ring_publish(vq, vq->packed, false);
	else if (!vq->packed)
		pd_store_release(&vq->avail->idx, vq->own_idx);
	vq->signalled_valid = false;
	free(heads);
	return 0;
}

void pd_vq_fini(struct pd_vq *vq)
{
	pd_inflight_stop(vq);
	free(vq->shown);
	free(vq->chains);
	free(vq->bounce);
	free(vq->slots);
	free(vq->done);
	free(vq->free);
	memset(vq, 0, sizeof(*vq));
}

/*
 * The parts of an area, which has room for either format, start on lines of their own, so that the
 * two ends do not share any.
 */
static uint64_t line_up(uint64_t n)
{
	return (n + 127) & ~127ULL;
}

uint64_t pd_vq_driver_area_bytes(uint32_t size, uint32_t buf_bytes)
{
	return line_up(pd_vq_desc_bytes(size)) + line_up(pd_vq_avail_bytes(size, false)) +
	       line_up(pd_vq_used_bytes(size, false)) + (uint64_t)size * buf_bytes;
}

void pd_vq_driver_place(struct pd_vq_layout *layout, uint8_t *area, uint64_t gpa)
{
	uint64_t at = 0;

	layout->desc = area;
	at += line_up(pd_vq_desc_bytes(layout->size));
	layout->avail = area + at;
	at += line_up(pd_vq_avail_bytes(layout->size, false));
	layout->used = area + at;
	at += line_up(pd_vq_used_bytes(layout->size, false));
	layout->buffers = area + at;
	layout->buffers_gpa = gpa + at;
}
