/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver's data path: taking back, long frames, receiving. */
#include "virtio/driver.h"

#define NOT_HELD "a used element names no chain that the device holds"

/* True when `e` names a chain that the device holds; else the ring is broken. */
static PD_ALWAYS_INLINE bool is_held(struct pd_vq *vq, struct pd_ring_used e)
{
	if (!pd_refuse(e.id >= vq->size || !vq->slots[e.id].n))
		return true;
	pd_vq_break(vq, NOT_HELD);
	return false;
}

/*
 * IN_ORDER: how many of the `held` chains `e` stands for: the one it names, and all older ones. One
 * that comes too late names a chain that is not held any more, so no order is left to check.
 */
static uint32_t in_order(const struct pd_vq *vq, struct pd_ring_used e, uint32_t held)
{
	uint32_t older = vq->slots[e.id].seq - vq->slots[vq->oldest].seq;

	pd_assert(older < held);
	return older + 1;
}

/* IN_ORDER: the oldest chain is done; it had `n` buffers. */
static PD_ALWAYS_INLINE void pass_oldest(struct pd_vq *vq, uint32_t n)
{
	vq->oldest += n;
	vq->oldest -= vq->oldest >= vq->size ? vq->size : 0;
}

/* Transmit: the buffers of the chain `head` are free. Returns how many. */
static PD_ALWAYS_INLINE uint32_t give_back(struct pd_vq *vq, uint32_t head)
{
	uint32_t n = vq->slots[head].n, i = head;

	vq->slots[head].n = 0;
	for (uint32_t k = 0; k < n; k++) {
		vq->free[vq->free_tail++ & vq->mask] = (uint16_t)i;
		i = (uint32_t)(vq->slots[i].tail >> 48);
	}
	return n;
}

/*
 * pd_driver_reclaim, for one format: takes back what the device has used. Returns 0 or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int reclaim(struct pd_vq *vq, bool packed)
{
	struct pd_ring_reader r;
	struct pd_ring_used e;
	int known = pd_ring_used_known(vq, packed, vq->size + 1, vq->held);

	r = pd_ring_read_begin(vq, packed);
	while (known > 0 && pd_ring_used_load(vq, packed, &r, &e)) {
		uint32_t chains = 1, slots = 0;

		if (!is_held(vq, e))
			return -ENETDOWN;
		if (pd_unlikely(vq->in_order)) {
			chains = in_order(vq, e, vq->held);
			if ((int)chains > known)
				return pd_vq_break(vq, "a used element stands for too much");
			for (uint32_t i = 1; i < chains; i++) {
				uint32_t n = give_back(vq, vq->oldest);

				pass_oldest(vq, n);
				slots += n;
			}
			pass_oldest(vq, vq->slots[e.id].n);
		}
		slots += give_back(vq, e.id);
		vq->held -= chains;
		known -= (int)chains;
		pd_ring_used_pass(vq, packed, &r, chains, slots);
	}
	pd_ring_read_end(vq, packed, &r);
	return pd_min(known, 0);
}

int pd_driver_reclaim(struct pd_vq *vq, bool packed)
{
	return packed ? reclaim(vq, true) : reclaim(vq, false);
}

void pd_driver_send_long(struct pd_vq *vq, bool packed, const struct pd_buffer *b,
			 uint32_t hdr_bytes, unsigned k)
{
	uint32_t left = hdr_bytes + b->total_len, done = 0, at = hdr_bytes;
	uint16_t head = pd_driver_take(vq), i = head;
	uint8_t *p = pd_driver_buffer(vq, i);

	pd_vq_header_write(p, b, hdr_bytes, hdr_bytes == PD_VQ_HDR_SIDECAR, 0);
	vq->slots[head].n = k;
	for (;;) {
		uint32_t here = pd_min(left, vq->buf_bytes);
		uint16_t next = 0;

		left -= here;
		while (at < here) {
			uint32_t n = pd_min(here - at, b->len - done);

			pd_copy(p + at, b->data + done, n);
			at += n;
			done += n;
			if (done == b->len && b->next != PD_BUFFER_NONE) {
				b = pd_buffer_get(b->next);
				done = 0;
			}
		}
		if (left)
			next = pd_driver_take(vq);
		pd_ring_avail_stage(vq, packed, head, i, here, left ? VRING_DESC_F_NEXT : 0, next);
		if (!left)
			break;
		i = next;
		p = pd_driver_buffer(vq, i);
		at = 0;
	}
	vq->held++;
}

int pd_driver_tx_all(struct pd_vq *vq, bool packed, uint32_t hdr_bytes,
		     struct pd_buffer *const *bufs, unsigned n)
{
	const bool avip = hdr_bytes == PD_VQ_HDR_SIDECAR;
	uint32_t need = 0;

	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	for (unsigned i = 0; i < n; i++)
		need += (hdr_bytes + bufs[i]->total_len + vq->buf_bytes - 1) / vq->buf_bytes;
	if (need > vq->size) {
		vq->counts.drop_too_long++;
		return -EMSGSIZE;
	}
	if (vq->free_tail - vq->cursor < need && pd_driver_reclaim(vq, packed))
		return -ENETDOWN;
	if (vq->free_tail - vq->cursor < need) {
		vq->counts.ring_full++;
		vq->need = need;
		return 0;
	}
	return packed ? pd_driver_tx(vq, true, avip, bufs, n)
		      : pd_driver_tx(vq, false, avip, bufs, n);
}

/* --- receive --------------------------------------------------------------------------------- */

/*
 * IN_ORDER: the buffers before the one that `e` names were used in full. Returns how many with it.
 */
static PD_NOINLINE uint32_t receive_older(struct pd_vq *vq, struct pd_ring_used e, uint32_t seen)
{
	uint32_t n = in_order(vq, e, vq->size - (seen - vq->cursor));

	for (uint32_t i = 1; i < n; i++) {
		vq->slots[vq->oldest].n = 0;
		vq->done[seen++ & vq->mask] = (struct pd_ring_used){vq->oldest, vq->buf_bytes};
		pass_oldest(vq, 1);
	}
	pass_oldest(vq, 1);
	return n;
}

/*
 * Receive: move used elements into the private fifo (vq->done), each checked once, until it holds
 * `want` or none is left. Returns how many it holds or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int harvest(struct pd_vq *vq, bool packed, uint32_t want)
{
	const uint32_t size = vq->size, mask = vq->mask, buf_bytes = vq->buf_bytes;
	uint32_t seen = vq->seen, left = want - (seen - vq->cursor);
	struct pd_vq_slot *const slots = vq->slots;
	struct pd_ring_used *const done = vq->done;
	uint8_t *const buffers = vq->buffers;
	const bool ordered = vq->in_order;
	struct pd_ring_reader r;
	struct pd_ring_used e;
	int known;

	if ((int)left <= 0)
		return (int)(seen - vq->cursor);
	known = pd_ring_used_known(vq, packed, left, size - (seen - vq->cursor));
	if (pd_unlikely(known < 0))
		return known;
	left = pd_min(left, (uint32_t)known);
	r = pd_ring_read_begin(vq, packed);
	while (left && pd_ring_used_load(vq, packed, &r, &e)) {
		uint32_t n = 1;

		if (pd_refuse(e.id >= size || !slots[e.id].n))
			return pd_vq_break(vq, NOT_HELD);
		if (pd_refuse(e.len > buf_bytes))
			return pd_vq_break(vq, "a used element is longer than its buffer");
		if (pd_unlikely(ordered)) {
			n = receive_older(vq, e, seen);
			if (pd_unlikely((int)n > known))
				return pd_vq_break(vq, "a used element stands for too much");
		}
		slots[e.id].n = 0;
		seen += n;
		done[(seen - 1) & mask] = e;
		pd_ring_used_pass(vq, packed, &r, n, n);
		known -= (int)n;
		left -= pd_min(left, n);
		pd_prefetch_read(buffers + (uint64_t)e.id * buf_bytes,
				 pd_min(e.len, vq->prefetch_bytes));
	}
	pd_ring_read_end(vq, packed, &r);
	vq->seen = seen;
	return (int)(seen - vq->cursor);
}

int pd_driver_harvest(struct pd_vq *vq, bool packed, uint32_t want)
{
	return packed ? harvest(vq, true, want) : harvest(vq, false, want);
}

/* The next buffer behind those walked: its bytes in *p. Returns its length. */
static PD_ALWAYS_INLINE uint32_t walk_buffer(struct pd_vq *vq, uint8_t **p)
{
	struct pd_ring_used e = vq->done[(vq->cursor + vq->n_walked++) & vq->mask];

	*p = pd_driver_buffer(vq, e.id);
	return e.len;
}

/* num_buffers of the header that was copied from a first buffer: at least 1. */
static PD_ALWAYS_INLINE unsigned num_buffers(const struct pd_vq *vq, const uint8_t *hdr, bool avip)
{
	uint16_t n;

	if (!vq->mergeable)
		return 1;
	memcpy(&n, hdr + (avip ? 0 : PD_VQ_HDR_LEGACY), 2);
	return n ? n : 1;
}

enum { FRAME_SHOWN, FRAME_SHORT, FRAME_LONG, FRAME_LATER };

/*
 * Walk the frame that stands next and show it in bufs[0], using its headers (`n` are left).
 * *needed: entries it takes in all. FRAME_LATER: not all of it is there, or headers are short.
 */
static PD_ALWAYS_INLINE int show_frame(struct pd_vq *vq, bool avip, struct pd_buffer *const *bufs,
				       unsigned n, unsigned ready, unsigned *needed)
{
	const uint32_t hdr = pd_vq_hdr_bytes(vq, avip);
	struct pd_buffer *b = bufs[0];
	uint8_t net_hdr[PD_VQ_HDR_NET] = {0}, *p;
	uint32_t len, total;

	*needed = 1;
	len = walk_buffer(vq, &p);
	if (pd_refuse(len < hdr))
		return FRAME_SHORT;
	if (avip)
		memcpy(b->sidecar, p, PD_VQ_HDR_SIDECAR);
	else
		memcpy(net_hdr, p, hdr);
	*needed = num_buffers(vq, avip ? b->sidecar : net_hdr, avip);
	if (pd_refuse(*needed > PD_VQ_FRAMES_MAX || *needed > vq->size))
		return pd_vq_break(vq, "a frame stands in more buffers than it can");
	if (pd_unlikely(*needed > ready || *needed > n))
		return FRAME_LATER;
	total = len - hdr;
	pd_vq_buffer_set(b, p + hdr, total);
	for (unsigned i = 1; i < *needed; i++) {
		len = walk_buffer(vq, &p);
		total += len; /* at most 256 times the largest buffer: no overflow */
		pd_vq_buffer_set(bufs[i], p, len);
		bufs[i - 1]->next = bufs[i]->index;
	}
	if (pd_refuse(total > (avip ? PD_FRAME_MAX_BYTES : vq->frame_max)))
		return FRAME_LONG;
	if (pd_refuse(!pd_vq_is_frame(total, avip ? b->sidecar : NULL)))
		return FRAME_SHORT;
	b->total_len = total;
	if (!avip)
		pd_vq_vnet_read(vq, b, net_hdr);
	return FRAME_SHOWN;
}

/* Nothing has come: fetch the buffer that the next frame will stand in. */
static PD_NOINLINE void fetch_expected(struct pd_vq *vq, bool packed)
{
	uint32_t id = pd_ring_expected(vq, packed);

	if (id < vq->size)
		pd_prefetch_read(pd_driver_buffer(vq, id),
				 pd_min(vq->buf_bytes, vq->prefetch_early_bytes));
}

/* pd_driver_rx, for one format and dialect. Data path. */
static PD_ALWAYS_INLINE int rx(struct pd_vq *vq, bool packed, bool avip,
			       const struct pd_vq_headers *headers, uint16_t port,
			       struct pd_buffer **bufs, unsigned n, bool *notify)
{
	unsigned used = 0, want = n;
	int ready;

	*notify = false;
	vq->n_walked = 0;
	vq->n_shown = 0;
	vq->need = 1;
	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	ready = harvest(vq, packed, want);
	while (vq->n_shown < n && used < headers->n) {
		struct pd_buffer *b = headers->bufs[used];
		uint16_t start = vq->n_walked;
		unsigned needed;
		int ret;

		if (ready <= start) {
			if (ready < (int)want)
				break;
			want = start + n - vq->n_shown;
			ready = harvest(vq, packed, want);
			if (ready <= start)
				break;
		}
		ret = show_frame(vq, avip, &headers->bufs[used], headers->n - used,
				 (unsigned)ready - start, &needed);
		if (ret < 0)
			break;
		if (pd_likely(ret == FRAME_SHOWN)) {
			pd_vq_frame_set(vq, b, b->total_len, port, avip);
			vq->shown[vq->n_shown].end = vq->n_walked;
			bufs[vq->n_shown++] = b;
			used += needed;
			continue;
		}
		if (ret == FRAME_LATER) {
			vq->n_walked = start;
			/* Look again: the rest may just have been published. */
			if (ready < (int)(start + needed)) {
				want = start + needed;
				ready = harvest(vq, packed, want);
				if (ready >= (int)(start + needed))
					continue;
			}
			if (!vq->n_shown)
				vq->need = needed;
			break;
		}
		if (vq->n_shown) {
			vq->n_walked = start;
			break;
		}
		vq->counts.drop_too_long += ret == FRAME_LONG;
		vq->counts.drop_malformed += ret == FRAME_SHORT;
		ready -= vq->n_walked;
		want -= vq->n_walked;
		pd_driver_recycle(vq, packed, vq->n_walked);
		if (vq->staged >= vq->size) /* a lap of nothing: the rest is for another call */
			break;
	}
	if (pd_unlikely(vq->broken)) {
		vq->n_walked = 0;
		vq->n_shown = 0;
		return -ENETDOWN;
	}
	if (pd_unlikely(vq->staged))
		*notify = pd_driver_flush(vq, packed);
	if (!vq->n_shown && pd_unlikely(vq->prefetch_early_bytes))
		fetch_expected(vq, packed);
	return vq->n_shown;
}

int pd_driver_rx(struct pd_vq *vq, bool packed, bool avip, const struct pd_vq_headers *headers,
		 uint16_t port, struct pd_buffer **bufs, unsigned n, bool *notify)
{
	if (packed)
		return avip ? rx(vq, true, true, headers, port, bufs, n, notify)
			    : rx(vq, true, false, headers, port, bufs, n, notify);
	return avip ? rx(vq, false, true, headers, port, bufs, n, notify)
		    : rx(vq, false, false, headers, port, bufs, n, notify);
}
