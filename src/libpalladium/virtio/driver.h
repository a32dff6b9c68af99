/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver's data path: frames through buffers of our own.
 *
 * The area belongs to us but the device can write all of it, so nothing is read back from it but
 * what the device has to say: used elements and received bytes. Which descriptors the device holds
 * is private (pd_vq.slots), and a used element that names anything else breaks the ring.
 *
 * Transmit: header and frame are copied into as many buffers as they need, chained; descriptors
 * come from a first-in first-out list, so with a device that completes in order each avail entry
 * and descriptor is written once and then found right on every lap. What the device has used is
 * taken back when it is needed.
 *
 * Receive: the ring is kept full. A frame stands in num_buffers used elements (one, without
 * mergeable buffers) and is shown where it is; rx_done makes its buffers available again.
 */
#ifndef PD_VIRTIO_DRIVER_H
#define PD_VIRTIO_DRIVER_H

#include "virtio/device.h"

static PD_ALWAYS_INLINE uint8_t *pd_driver_buffer(const struct pd_vq *vq, uint32_t i)
{
	return vq->buffers + (uint64_t)i * vq->buf_bytes;
}

/* Transmit: take back what the device has used. Returns 0 or -ENETDOWN. */
int pd_driver_reclaim(struct pd_vq *vq);

/* Position of a lane's side; see vlib/lane.h. A broken ring is never ready. */
static PD_ALWAYS_INLINE uint32_t pd_driver_position(struct pd_vq *vq)
{
	int n = -ENETDOWN;

	if (vq->broken)
		return vq->cursor;
	if (!vq->receive) {
		if (pd_driver_reclaim(vq) || vq->free_tail - vq->cursor < vq->need)
			return vq->cursor;
		return vq->free_tail;
	}
	n = pd_split_peer_refresh(vq, &vq->used->idx, vq->held);
	return n < (int)vq->need ? vq->cursor : vq->cursor + (uint32_t)n;
}

/* Ask for a notification when the position leaves `seen`; true when it has. */
static PD_ALWAYS_INLINE bool pd_driver_arm(struct pd_vq *vq, uint32_t seen)
{
	uint16_t at;

	if (vq->broken)
		return false;
	if (!vq->receive) {
		/* Elements are not what is counted here: any completion may be the one. */
		if (pd_driver_position(vq) != seen)
			return true;
		at = vq->next;
	} else {
		at = (uint16_t)(seen == vq->cursor ? seen + vq->need - 1 : seen);
	}
	pd_split_ask(vq, pd_split_used_event(vq), &vq->avail->flags, at);
	return pd_driver_position(vq) != seen;
}

static PD_ALWAYS_INLINE void pd_driver_disarm(struct pd_vq *vq)
{
	pd_split_ask_not(vq, &vq->avail->flags);
}

/* Publish what is staged; true when the device is to be told. */
static PD_ALWAYS_INLINE bool pd_driver_flush(struct pd_vq *vq)
{
	if (!vq->staged)
		return false;
	pd_split_publish(vq, &vq->avail->idx);
	return pd_split_must_notify(vq, pd_split_avail_event(vq), &vq->used->flags);
}

/* --- transmit -------------------------------------------------------------------------------- */

/* Take the next free descriptor; there is one. */
static PD_ALWAYS_INLINE uint16_t pd_driver_take(struct pd_vq *vq)
{
	return vq->free[vq->cursor++ & vq->mask];
}

/* A frame that needs `k` buffers, which are there. */
void pd_driver_send_long(struct pd_vq *vq, const struct pd_buffer *b, uint32_t hdr_bytes,
			 unsigned k);

/* Copy up to `n` frames out; the lane's tx. */
static PD_ALWAYS_INLINE int pd_driver_tx(struct pd_vq *vq, bool avip, struct pd_buffer *const *bufs,
					 unsigned n)
{
	const uint32_t hdr = pd_vq_hdr_bytes(vq, avip);
	uint64_t bytes = 0;
	unsigned taken = 0;
	int err = 0;

	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	if (vq->free_tail - vq->cursor < n && pd_driver_reclaim(vq))
		return -ENETDOWN;
	for (; taken < n; taken++) {
		const struct pd_buffer *b = bufs[taken];
		uint32_t total = hdr + b->total_len, room = vq->free_tail - vq->cursor;
		unsigned k = 1;

		if (pd_unlikely(!pd_vq_frame_fits(b, avip))) {
			vq->counts.drop_too_long++;
			err = -EMSGSIZE;
			break;
		}
		if (pd_unlikely(total > vq->buf_bytes)) {
			k = (total + vq->buf_bytes - 1) / vq->buf_bytes;
			if (k > vq->mask + 1) {
				vq->counts.drop_too_long++;
				err = -EMSGSIZE;
				break;
			}
		}
		if (pd_unlikely(room < k)) {
			vq->counts.ring_full++;
			vq->need = k;
			break;
		}
		if (pd_likely(k == 1)) {
			uint16_t i = pd_driver_take(vq);
			uint8_t *p = pd_driver_buffer(vq, i);

			pd_vq_header_write(p, b, hdr, avip, 0);
			pd_vq_frame_gather(p + hdr, b);
			pd_split_desc_store(vq, i, pd_split_tail(total, 0, 0));
			vq->slots[i].n = 1;
			vq->held++;
			pd_split_avail_stage(vq, i);
		} else {
			pd_driver_send_long(vq, b, hdr, k);
		}
		bytes += b->total_len;
		vq->counts.control += !b->total_len;
		vq->need = 1;
	}
	vq->counts.frames += taken;
	vq->counts.bytes += bytes;
	return taken ? (int)taken : err;
}

/* --- receive --------------------------------------------------------------------------------- */

/* Stage the buffers of the first `n` walked entries again and forget the rest of the show. */
void pd_driver_recycle(struct pd_vq *vq, unsigned n);

/*
 * Show up to `n` frames; the lane's rx. Sets *notify when dropped frames' buffers were given back
 * and the device wants to know. Returns the count or -ENETDOWN.
 */
int pd_driver_rx(struct pd_vq *vq, bool avip, const struct pd_vq_headers *headers, uint16_t port,
		 struct pd_buffer **bufs, unsigned n, bool *notify);

/* Consume the first `n` shown frames; true when the device is to be told. */
static PD_ALWAYS_INLINE bool pd_driver_rx_done(struct pd_vq *vq, unsigned n)
{
	pd_assert(n <= vq->n_shown);
	n = pd_min(n, (unsigned)vq->n_shown);
	for (unsigned i = 0; i < n; i++) {
		vq->counts.bytes += vq->shown[i].bytes;
		vq->counts.control += vq->shown[i].control;
	}
	vq->counts.frames += n;
	pd_driver_recycle(vq, n ? vq->shown[n - 1].end : 0);
	return pd_driver_flush(vq);
}

#endif /* PD_VIRTIO_DRIVER_H */
