/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver's data path: taking back, long frames, receiving. */
#include "virtio/driver.h"

/*
 * Take the used element at `at` into private memory, if it names a chain that the device holds.
 * `most`: the largest length it may give. Marks the chain as no longer held. Returns 0 or
 * -ENETDOWN.
 */
static int claim(struct pd_vq *vq, uint16_t at, uint32_t most, struct pd_split_used *out)
{
	struct pd_split_used e = pd_split_used_load(vq, at);

	if (pd_unlikely(e.id > vq->mask || !vq->slots[e.id].n))
		return pd_vq_break(vq, "a used element names no chain that the device holds");
	if (pd_unlikely(e.len > most))
		return pd_vq_break(vq, "a used element is longer than its buffer");
	*out = e;
	return 0;
}

int pd_driver_reclaim(struct pd_vq *vq)
{
	int n = pd_split_peer_refresh(vq, &vq->used->idx, vq->held);

	if (n < 0)
		return n;
	while (n--) {
		struct pd_split_used e;
		uint16_t i, k;

		/* What a device says it wrote into a frame that we send means nothing. */
		if (claim(vq, vq->next, UINT32_MAX, &e))
			return -ENETDOWN;
		i = (uint16_t)e.id;
		k = vq->slots[i].n;
		vq->slots[i].n = 0;
		while (k--) {
			vq->free[vq->free_tail++ & vq->mask] = i;
			i = vq->slots[i].next;
		}
		vq->held--;
		vq->next++;
	}
	return 0;
}

void pd_driver_send_long(struct pd_vq *vq, const struct pd_buffer *b, uint32_t hdr_bytes,
			 unsigned k)
{
	uint32_t left = hdr_bytes + b->total_len, done = 0, at = hdr_bytes;
	uint16_t head = pd_driver_take(vq), i = head;
	uint8_t *p = pd_driver_buffer(vq, i);

	pd_vq_header_write(p, b, hdr_bytes, hdr_bytes == PD_VQ_HDR_SIDECAR, 0);
	vq->slots[head].n = (uint16_t)k;
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
		vq->slots[i].next = next;
		pd_split_desc_store(vq, i, pd_split_tail(here, left ? VRING_DESC_F_NEXT : 0, next));
		if (!left)
			break;
		i = next;
		p = pd_driver_buffer(vq, i);
		at = 0;
	}
	vq->held++;
	pd_split_avail_stage(vq, head);
}

/* --- receive --------------------------------------------------------------------------------- */

/* Forget what was shown from entry `n` on: it is shown again by the next rx. */
static void unwalk(struct pd_vq *vq, unsigned n)
{
	for (unsigned i = n; i < vq->n_walked; i++)
		vq->slots[vq->walked[i]].n = 1;
	vq->n_walked = (uint16_t)n;
}

void pd_driver_recycle(struct pd_vq *vq, unsigned n)
{
	pd_assert(n <= vq->n_walked);
	unwalk(vq, n);
	for (unsigned i = 0; i < n; i++) {
		vq->slots[vq->walked[i]].n = 1;
		pd_split_avail_stage(vq, vq->walked[i]);
	}
	vq->next += n;
	vq->cursor += n;
	vq->n_walked = 0;
	vq->n_shown = 0;
}

/* The next element behind those walked: its buffer in *p, its length. 0 or -ENETDOWN. */
static PD_ALWAYS_INLINE int walk_element(struct pd_vq *vq, uint8_t **p, uint32_t *len)
{
	struct pd_split_used e;

	if (claim(vq, (uint16_t)(vq->next + vq->n_walked), vq->buf_bytes, &e))
		return -ENETDOWN;
	vq->slots[e.id].n = 0;
	vq->walked[vq->n_walked++] = (uint16_t)e.id;
	*p = pd_driver_buffer(vq, e.id);
	*len = e.len;
	return 0;
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
	if (walk_element(vq, &p, &len))
		return -ENETDOWN;
	if (pd_unlikely(len < hdr))
		return FRAME_SHORT;
	if (avip)
		memcpy(b->sidecar, p, PD_VQ_HDR_SIDECAR);
	else
		memcpy(net_hdr, p, hdr);
	*needed = num_buffers(vq, avip ? b->sidecar : net_hdr, avip);
	if (pd_unlikely(*needed > PD_VQ_FRAMES_MAX || *needed > vq->mask + 1))
		return pd_vq_break(vq, "a frame stands in more buffers than it can");
	if (pd_unlikely(*needed > ready || *needed > n))
		return FRAME_LATER;
	total = len - hdr;
	pd_vq_buffer_set(b, p + hdr, total);
	for (unsigned i = 1; i < *needed; i++) {
		if (walk_element(vq, &p, &len))
			return -ENETDOWN;
		total += len; /* at most 256 times the largest buffer: no overflow */
		pd_vq_buffer_set(bufs[i], p, len);
		bufs[i - 1]->next = bufs[i]->index;
	}
	if (pd_unlikely(total > PD_FRAME_MAX_BYTES))
		return FRAME_LONG;
	if (pd_unlikely(!total && !avip))
		return FRAME_SHORT;
	b->total_len = total;
	return FRAME_SHOWN;
}

/* Entries behind those walked, from a fresh index when there are fewer than `want`. */
static int ready_entries(struct pd_vq *vq, unsigned want)
{
	int n = (uint16_t)(vq->peer_idx - vq->next);

	if (n < (int)(vq->n_walked + want)) {
		n = pd_split_peer_refresh(vq, &vq->used->idx, vq->held);
		if (n < 0)
			return n;
	}
	return n - vq->n_walked;
}

static PD_ALWAYS_INLINE int rx(struct pd_vq *vq, bool avip, const struct pd_vq_headers *headers,
			       uint16_t port, struct pd_buffer **bufs, unsigned n, bool *notify)
{
	unsigned used = 0;
	int ready;

	*notify = false;
	unwalk(vq, 0);
	vq->n_shown = 0;
	vq->need = 1;
	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	ready = ready_entries(vq, n);
	while (vq->n_shown < n && ready > 0 && used < headers->n) {
		struct pd_buffer *b = headers->bufs[used];
		unsigned start = vq->n_walked, needed;
		int ret = show_frame(vq, avip, &headers->bufs[used], headers->n - used,
				     (unsigned)ready, &needed);

		if (ret == FRAME_LATER && needed > (unsigned)ready) {
			/* Look again: the rest may just have been published. */
			unwalk(vq, start);
			ready = ready_entries(vq, needed);
			if (ready >= (int)needed)
				continue;
		}
		if (ready < 0 || ret < 0)
			break;
		if (ret == FRAME_SHOWN) {
			pd_vq_frame_set(vq, b, b->total_len, port, avip);
			vq->shown[vq->n_shown].end = vq->n_walked;
			bufs[vq->n_shown++] = b;
			used += needed;
			ready -= (int)needed;
			continue;
		}
		if (ret == FRAME_LATER || vq->n_shown) {
			unwalk(vq, start);
			if (ret == FRAME_LATER && !vq->n_shown)
				vq->need = needed;
			break;
		}
		vq->counts.drop_too_long += ret == FRAME_LONG;
		vq->counts.drop_malformed += ret == FRAME_SHORT;
		pd_driver_recycle(vq, vq->n_walked);
		ready = (uint16_t)(vq->peer_idx - vq->next);
	}
	if (pd_unlikely(vq->broken)) {
		unwalk(vq, 0);
		vq->n_shown = 0;
		return -ENETDOWN;
	}
	if (pd_unlikely(vq->staged))
		*notify = pd_driver_flush(vq);
	return vq->n_shown;
}

int pd_driver_rx(struct pd_vq *vq, bool avip, const struct pd_vq_headers *headers, uint16_t port,
		 struct pd_buffer **bufs, unsigned n, bool *notify)
{
	return avip ? rx(vq, true, headers, port, bufs, n, notify)
		    : rx(vq, false, headers, port, bufs, n, notify);
}
