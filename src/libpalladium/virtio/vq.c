/* SPDX-License-Identifier: BSD-2-Clause */
/* Virtqueues: setting them up, taking them down, carrying on after a device has gone. */
#include <linux/virtio_net.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/driver.h"

int pd_vq_break(struct pd_vq *vq, const char *why)
{
	if (!vq->broken)
		vq->broken = why;
	return -ENETDOWN;
}

int pd_vq_layout_check(const struct pd_vq_layout *layout, const char **why)
{
	const uint32_t hdr = layout->hdr_bytes;

	*why = NULL;
	if (layout->size < PD_VQ_SIZE_MIN || layout->size > PD_VQ_SIZE_MAX ||
	    layout->size & (layout->size - 1))
		*why = "the ring's size is not a power of two from 2 to 32768";
	else if (!layout->desc || !layout->avail || !layout->used)
		*why = "a part of the ring has no address";
	else if ((uintptr_t)layout->desc % 16 || (uintptr_t)layout->avail % 2 ||
		 (uintptr_t)layout->used % 4)
		*why = "a part of the ring is misaligned";
	else if (hdr != PD_VQ_HDR_LEGACY && hdr != PD_VQ_HDR_NET && hdr != PD_VQ_HDR_SIDECAR)
		*why = "no header of that length";
	else if (hdr == PD_VQ_HDR_LEGACY && layout->features & 1ULL << VIRTIO_NET_F_MRG_RXBUF)
		*why = "mergeable buffers need num_buffers in the header";
	return *why ? -EINVAL : 0;
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
	vq->mask = layout->size - 1;
	vq->hdr_bytes = (uint16_t)layout->hdr_bytes;
	vq->event_idx = f >> VIRTIO_RING_F_EVENT_IDX & 1;
	vq->indirect = f >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	vq->mergeable = f >> VIRTIO_NET_F_MRG_RXBUF & 1;
	vq->need = 1;
	vq->armed = true; /* the flag may say anything: the first disarm writes it */
	vq->shown = malloc(PD_VQ_FRAMES_MAX * sizeof(*vq->shown));
	vq->walked = malloc(PD_VQ_WALK_MAX * sizeof(*vq->walked));
	return vq->shown && vq->walked ? 0 : -ENOMEM;
}

int pd_vq_init_device(struct pd_vq *vq, const struct pd_vq_layout *layout,
		      const struct pd_mem_table *mem)
{
	int err = init_common(vq, layout);
	uint16_t used;

	if (err == -EINVAL)
		return err;
	vq->bounce = malloc(PD_FRAME_MAX_BYTES);
	if (err || !vq->bounce) {
		pd_vq_fini(vq);
		return -ENOMEM;
	}
	vq->mem = mem;
	used = pd_load_relaxed(&vq->used->idx);
	if ((uint16_t)(pd_load_acquire(&vq->avail->idx) - used) > layout->size)
		used = layout->base;
	vq->next = vq->own_idx = vq->peer_idx = used;
	vq->cursor = used;
	return 0;
}

/* Write every descriptor of ours and our half of the ring. */
static void write_descriptors(struct pd_vq *vq)
{
	for (uint32_t i = 0; i <= vq->mask; i++) {
		pd_store_relaxed(&vq->desc[i].addr, vq->buffers_gpa + (uint64_t)i * vq->buf_bytes);
		pd_store_relaxed((uint64_t *)(void *)&vq->desc[i].len, vq->slots[i].tail);
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
	vq->free = malloc(size * sizeof(*vq->free));
	if (err || !vq->slots || !vq->free) {
		pd_vq_fini(vq);
		return -ENOMEM;
	}
	vq->receive = layout->receive;
	vq->buffers = layout->buffers;
	vq->buffers_gpa = layout->buffers_gpa;
	vq->buf_bytes = layout->buf_bytes;
	memset(vq->avail, 0, pd_vq_avail_bytes(size));
	memset(vq->used, 0, pd_vq_used_bytes(size));
	for (uint32_t i = 0; i < size; i++) {
		vq->free[i] = (uint16_t)i;
		if (vq->receive)
			vq->slots[i].tail = pd_split_tail(vq->buf_bytes, VRING_DESC_F_WRITE, 0);
	}
	write_descriptors(vq);
	vq->free_tail = size;
	if (!vq->receive)
		return 0;
	for (uint32_t i = 0; i < size; i++) {
		vq->slots[i].n = 1;
		pd_split_avail_stage(vq, (uint16_t)i);
	}
	vq->held = size;
	pd_split_publish(vq, &vq->avail->idx);
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

int pd_vq_resume_driver(struct pd_vq *vq)
{
	struct held_head *heads;
	uint32_t n = 0;
	int pending;
	uint16_t base;

	if (vq->broken || !vq->slots)
		return -ENETDOWN;
	pd_driver_recycle(vq, 0);
	if (!vq->receive && pd_driver_reclaim(vq))
		return -ENETDOWN;
	pending = pd_split_peer_refresh(vq, &vq->used->idx, vq->held);
	if (pending < 0)
		return pending;
	heads = malloc((vq->mask + 1) * sizeof(*heads));
	if (!heads)
		return -ENETDOWN;
	/* What the old device has used and we have not looked at stays ours to take. */
	for (int i = 0; i < pending; i++) {
		struct pd_split_used e = pd_split_used_load(vq, (uint16_t)(vq->next + i));

		if (e.id > vq->mask || !vq->slots[e.id].n)
			pd_vq_break(vq, "a used element names no chain that the device holds");
		else
			vq->slots[e.id].n |= 0x8000;
	}
	for (uint32_t i = 0; i <= vq->mask; i++) {
		if (vq->slots[i].n & 0x8000)
			vq->slots[i].n &= 0x7fff;
		else if (vq->slots[i].n)
			heads[n++] = (struct held_head){vq->seq - vq->slots[i].seq, (uint16_t)i};
	}
	base = vq->peer_idx;
	if (!vq->broken && n != vq->held - (uint32_t)pending)
		pd_vq_break(vq, "the device used a chain twice");
	if (!vq->broken) {
		qsort(heads, n, sizeof(*heads), by_age);
		write_descriptors(vq);
		vq->own_idx = base;
		vq->staged = 0;
		for (uint32_t i = 0; i < n; i++)
			pd_split_avail_stage(vq, heads[i].head);
		pd_store_relaxed(&vq->used->flags, 0);
		pd_split_publish(vq, &vq->avail->idx);
		vq->signalled_valid = false;
	}
	free(heads);
	return vq->broken ? -ENETDOWN : base;
}

void pd_vq_fini(struct pd_vq *vq)
{
	free(vq->shown);
	free(vq->walked);
	free(vq->bounce);
	free(vq->slots);
	free(vq->free);
	memset(vq, 0, sizeof(*vq));
}

/* The parts of an area start on lines of their own, so that the two ends do not share any. */
static uint64_t line_up(uint64_t n)
{
	return (n + 127) & ~127ULL;
}

uint64_t pd_vq_driver_area_bytes(uint32_t size, uint32_t buf_bytes)
{
	return line_up(pd_vq_desc_bytes(size)) + line_up(pd_vq_avail_bytes(size)) +
	       line_up(pd_vq_used_bytes(size)) + (uint64_t)size * buf_bytes;
}

void pd_vq_driver_place(struct pd_vq_layout *layout, uint8_t *area, uint64_t gpa)
{
	uint64_t at = 0;

	layout->desc = area;
	at += line_up(pd_vq_desc_bytes(layout->size));
	layout->avail = area + at;
	at += line_up(pd_vq_avail_bytes(layout->size));
	layout->used = area + at;
	at += line_up(pd_vq_used_bytes(layout->size));
	layout->buffers = area + at;
	layout->buffers_gpa = gpa + at;
}
