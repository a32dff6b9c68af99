/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames that grow and shrink (contracts in chain.h). */
#include "vlib/chain.h"

#include <errno.h>
#include <linux/virtio_net.h>

/* --- one buffer ------------------------------------------------------------------------------ */

/* Where its own memory starts, and with *end where that ends; NULL: its data stand elsewhere. */
static uint8_t *own_area(const struct pd_buffer *b, uint8_t **end)
{
	uint8_t *start = (uint8_t *)(uintptr_t)(b + 1);
	const struct pd_buffer_pool *pool;

	*end = start;
	if (b->flags & PD_BUFFER_EXTERNAL) /* it may be in no pool */
		return NULL;
	pool = pd_buffer_pool_of(b);
	if (pool->data_bytes)
		*end = start + pool->headroom + pool->data_bytes;
	return b->data >= start && b->data <= *end ? start : NULL;
}

uint32_t pd_chain_headroom(const struct pd_buffer *b)
{
	uint8_t *end, *start = own_area(b, &end);

	return start ? (uint32_t)(b->data - start) : 0;
}

uint32_t pd_chain_tailroom(const struct pd_buffer *b)
{
	uint8_t *end, *start = own_area(b, &end);

	return start ? (uint32_t)(end - b->data) - b->len : 0;
}

bool pd_chain_reserve(struct pd_buffer *b, uint32_t bytes)
{
	uint8_t *end, *start = own_area(b, &end);

	pd_assert(!b->len);
	if (!start || (uint32_t)(end - start) <= bytes)
		return false;
	b->data = start + bytes;
	return true;
}

/* --- what the frame needs done --------------------------------------------------------------- */

/*
 * The frame begins `by` bytes earlier (negative: later). False, and nothing is done: what stands at
 * a distance from its first byte would not be in it any more, or too far away.
 */
static bool vnet_move(struct pd_buffer *b, int32_t by)
{
	struct virtio_net_hdr vnet;
	int32_t csum_start, hdr_len;

	if (!(b->flags & PD_BUFFER_VNET))
		return true;
	memcpy(&vnet, b->vnet, sizeof(vnet));
	csum_start = vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? vnet.csum_start + by : 0;
	hdr_len = vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE ? vnet.hdr_len + by : 0;
	if (csum_start < 0 || hdr_len < 0 || csum_start > UINT16_MAX || hdr_len > UINT16_MAX)
		return false;
	if (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		vnet.csum_start = (uint16_t)csum_start;
	if (vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		vnet.hdr_len = (uint16_t)hdr_len;
	memcpy(b->vnet, &vnet, sizeof(vnet));
	return true;
}

/* The frame may end after `len` bytes: what it needs done is within them. */
static bool vnet_ends(const struct pd_buffer *b, uint32_t len)
{
	struct virtio_net_hdr vnet;

	if (!(b->flags & PD_BUFFER_VNET))
		return true;
	memcpy(&vnet, b->vnet, sizeof(vnet));
	if (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
	    len < (uint32_t)vnet.csum_start + vnet.csum_offset + sizeof(uint16_t))
		return false;
	return vnet.gso_type == VIRTIO_NET_HDR_GSO_NONE || len >= vnet.hdr_len;
}

/* --- chains ---------------------------------------------------------------------------------- */

/* Free the buffer behind `b`, which has nothing in it any more. */
static void drop_next(struct pd_buffer *b)
{
	uint32_t index = b->next;
	struct pd_buffer *gone = pd_buffer_get(index);

	b->next = gone->next;
	gone->next = PD_BUFFER_NONE;
	pd_buffer_free(&index, 1);
}

/* Free all behind `b`. */
static void drop_rest(struct pd_buffer *b)
{
	uint32_t index = b->next;

	b->next = PD_BUFFER_NONE;
	if (index != PD_BUFFER_NONE)
		pd_buffer_free(&index, 1);
}

uint8_t *pd_chain_push(struct pd_buffer *b, uint32_t n)
{
	if (n > pd_chain_headroom(b) || n > PD_FRAME_LARGE_BYTES - b->total_len ||
	    !vnet_move(b, (int32_t)n))
		return NULL;
	b->data -= n;
	b->len += n;
	b->total_len += n;
	return b->data;
}

bool pd_chain_pull(struct pd_buffer *b, uint32_t n)
{
	struct pd_buffer *next;
	uint32_t part;

	if (n > b->total_len || !vnet_move(b, -(int32_t)n))
		return false;
	b->total_len -= n;
	part = pd_min(n, b->len);
	b->data += part;
	b->len -= part;
	for (n -= part; n; n -= part) {
		next = pd_buffer_get(b->next);
		part = pd_min(n, next->len);
		next->data += part;
		next->len -= part;
		if (!next->len)
			drop_next(b);
	}
	return true;
}

bool pd_chain_trim(struct pd_buffer *b, uint32_t len)
{
	if (len > b->total_len || !vnet_ends(b, len))
		return false;
	b->total_len = len;
	while (len > b->len) {
		len -= b->len;
		b = pd_buffer_get(b->next);
	}
	b->len = len;
	drop_rest(b);
	return true;
}

/*
 * Link as many buffers of `pool` as `n` bytes take behind `last`, of which there are `count` in the
 * chain. Returns 0 or as pd_chain_append.
 */
static int extend(struct pd_buffer *last, uint32_t count, struct pd_buffer_pool *pool, uint32_t n)
{
	uint32_t each = pool ? pool->data_bytes : 0, indices[PD_BUFFER_CHAIN_MAX], need, got;

	if (!each)
		return -ENOBUFS;
	need = (n + each - 1) / each;
	if (need > PD_BUFFER_CHAIN_MAX - pd_min(count, (uint32_t)PD_BUFFER_CHAIN_MAX))
		return -EMSGSIZE;
	got = pd_buffer_alloc(pool, indices, need);
	if (got < need) {
		pd_buffer_free(indices, got);
		return -ENOBUFS;
	}
	for (uint32_t i = 0; i < need; i++) {
		last->next = indices[i];
		last = pd_buffer_get(indices[i]);
	}
	return 0;
}

int pd_chain_append(struct pd_buffer *b, struct pd_buffer_pool *pool, const void *bytes, uint32_t n)
{
	struct pd_buffer *last = b;
	uint32_t count = 1, room, done = 0;
	int ret = 0;

	if (n > PD_FRAME_LARGE_BYTES - b->total_len)
		return -EMSGSIZE;
	for (; last->next != PD_BUFFER_NONE; count++)
		last = pd_buffer_get(last->next);
	room = pd_chain_tailroom(last);
	if (n > room)
		ret = extend(last, count, pool, n - room);
	if (ret)
		return ret;
	for (;;) {
		uint32_t part = pd_min(n - done, pd_chain_tailroom(last));

		if (part)
			memcpy(last->data + last->len, (const uint8_t *)bytes + done, part);
		last->len += part;
		done += part;
		if (done == n)
			break;
		last = pd_buffer_get(last->next);
	}
	b->total_len += n;
	return 0;
}

/* Move up to `n` bytes from the buffer behind `b` to the end of `b`; returns how many. */
static uint32_t take_from_next(struct pd_buffer *b, uint32_t n)
{
	struct pd_buffer *next = pd_buffer_get(b->next);
	uint32_t there = pd_min(n, next->len), part = pd_min(there, pd_chain_tailroom(b));

	if (part)
		memcpy(b->data + b->len, next->data, part);
	b->len += part;
	next->data += part;
	next->len -= part;
	return part;
}

/* True when the bytes of `b` may be moved elsewhere, and its buffer be freed then. */
static bool is_own(const struct pd_buffer *b)
{
	uint8_t *end;

	return own_area(b, &end) || !b->len;
}

unsigned pd_chain_coalesce(struct pd_buffer *b)
{
	unsigned freed = 0;

	while (b->next != PD_BUFFER_NONE) {
		struct pd_buffer *next = pd_buffer_get(b->next);

		if (is_own(next))
			take_from_next(b, UINT32_MAX);
		if (next->len) {
			b = next;
			continue;
		}
		drop_next(b);
		freed++;
	}
	return freed;
}

bool pd_chain_gather(struct pd_buffer *b, uint32_t n)
{
	uint8_t *end, *start = own_area(b, &end);

	if (n <= b->len)
		return true;
	if (n > b->total_len || !start || n > (uint32_t)(end - start))
		return false;
	if (n > (uint32_t)(end - b->data)) {
		memmove(start, b->data, b->len);
		b->data = start;
	}
	while (b->len < n) {
		take_from_next(b, n - b->len);
		if (!pd_buffer_get(b->next)->len)
			drop_next(b);
	}
	return true;
}
