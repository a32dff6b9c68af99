/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver's data path: frames through buffers of our own.
 *
 * The area belongs to us but the device can write all of it, so nothing is read back from it but
 * what the device has to say: used elements and received bytes. Which buffers the device holds
 * is private (pd_vq.slots), and a used element that names anything else breaks the ring. The
 * buffer's number is its descriptor on a split ring and its id on a packed one, where its
 * descriptor may stand in any slot.
 *
 * Transmit: header and frame are copied into as many buffers as they need, chained; buffers
 * come from a first-in first-out list, so with a device that completes in order each avail entry
 * and descriptor of a split ring is written once and then found right on every lap. What the device
 * has used is taken back when it is needed.
 *
 * Receive: the ring is kept full. Used elements are checked and taken into a private fifo as they
 * are found; a frame stands in num_buffers of them (one, without mergeable buffers) and is shown
 * where it is; rx_done makes its buffers available again.
 *
 * With IN_ORDER a used element stands for its chain and for all older ones, which the device has
 * used to their full length (virtio 1.2, "In-order use of descriptors", of either format).
 */
#ifndef PD_VIRTIO_DRIVER_H
#define PD_VIRTIO_DRIVER_H

#include "virtio/device.h"

static PD_ALWAYS_INLINE uint8_t *pd_driver_buffer(const struct pd_vq *vq, uint32_t i)
{
	return vq->buffers + (uint64_t)i * vq->buf_bytes;
}

/* Transmit: take back what the device has used. Returns 0 or -ENETDOWN. */
int pd_driver_reclaim(struct pd_vq *vq, bool packed);

/*
 * Receive: take into the fifo of received buffers what the device has used, until there are `want`
 * in it or no more come. Returns how many are in it, or -ENETDOWN.
 */
int pd_driver_harvest(struct pd_vq *vq, bool packed, uint32_t want);

/* Position of a lane's side; see vlib/lane.h. A broken ring is never ready. */
static PD_ALWAYS_INLINE uint32_t pd_driver_position(struct pd_vq *vq, bool packed)
{
	if (vq->broken)
		return vq->cursor;
	if (!vq->receive) {
		if (pd_driver_reclaim(vq, packed) || vq->free_tail - vq->cursor < vq->need)
			return vq->cursor;
		return vq->free_tail;
	}
	return pd_driver_harvest(vq, packed, vq->size) < (int)vq->need ? vq->cursor : vq->seen;
}

/*
 * Ask for a notification when the position is `hold` beyond `seen`; true when it has left `seen`.
 * See vlib/lane.h. On a transmit ring `hold` counts completions, of which there are as many to come
 * as chains are held.
 */
static PD_ALWAYS_INLINE bool pd_driver_arm_held(struct pd_vq *vq, bool packed, uint32_t seen,
						uint32_t hold)
{
	uint32_t ahead = 0;

	if (vq->broken)
		return false;
	if (vq->receive) {
		/* Those that stand in the fifo were told of. */
		uint32_t at = seen == vq->cursor ? seen + pd_max(vq->need, hold) - 1 : seen;

		ahead = at - vq->seen <= vq->size ? at - vq->seen : 0;
	} else if (pd_driver_position(vq, packed) != seen) {
		/* Elements are not what is counted here: any completion may be the one. */
		return true;
	} else {
		ahead = pd_min(hold - 1, vq->held / 2);
	}
	pd_ring_ask(vq, packed, false, ahead);
	return pd_driver_position(vq, packed) != seen;
}

/* The same, when it leaves `seen`. */
static PD_ALWAYS_INLINE bool pd_driver_arm(struct pd_vq *vq, bool packed, uint32_t seen)
{
	return pd_driver_arm_held(vq, packed, seen, 1);
}

static PD_ALWAYS_INLINE void pd_driver_disarm(struct pd_vq *vq, bool packed)
{
	pd_ring_ask_not(vq, packed, false);
}

/* Publish what is staged; true when the device is to be told. */
static PD_ALWAYS_INLINE bool pd_driver_flush(struct pd_vq *vq, bool packed)
{
	if (!vq->staged)
		return false;
	pd_ring_publish(vq, packed, false);
	return pd_ring_must_notify(vq, packed, false);
}

/* --- transmit -------------------------------------------------------------------------------- */

/* Take the next free buffer; there is one. */
static PD_ALWAYS_INLINE uint16_t pd_driver_take(struct pd_vq *vq)
{
	return vq->free[vq->cursor++ & vq->mask];
}

/* A frame that needs `k` buffers, which are there. */
void pd_driver_send_long(struct pd_vq *vq, bool packed, const struct pd_buffer *b,
			 uint32_t hdr_bytes, unsigned k);

/* `n` frames of which all go or none; the lane's tx_all. */
int pd_driver_tx_all(struct pd_vq *vq, bool packed, uint32_t hdr_bytes,
		     struct pd_buffer *const *bufs, unsigned n);

/* Copy up to `n` frames out; the lane's tx. */
static PD_ALWAYS_INLINE int pd_driver_tx(struct pd_vq *vq, bool packed, bool avip,
					 struct pd_buffer *const *bufs, unsigned n)
{
	const uint32_t hdr = pd_vq_hdr_bytes(vq, avip);
	uint64_t bytes = 0;
	unsigned taken = 0;
	int err = 0;

	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	if (vq->free_tail - vq->cursor < n && pd_driver_reclaim(vq, packed))
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
			if (k > vq->size) {
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
			pd_ring_avail_stage(vq, packed, i, i, total, 0, 0);
			vq->slots[i].n = 1;
			vq->held++;
		} else {
			pd_driver_send_long(vq, packed, b, hdr, k);
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

/*
 * Show up to `n` frames; the lane's rx. Sets *notify when dropped frames' buffers were given back
 * and the device wants to know. Returns the count or -ENETDOWN.
 */
int pd_driver_rx(struct pd_vq *vq, bool packed, bool avip, const struct pd_vq_headers *headers,
		 uint16_t port, struct pd_buffer **bufs, unsigned n, bool *notify);

/* Stage the first `n` buffers of the fifo again, and forget what was shown behind them. */
static PD_ALWAYS_INLINE void pd_driver_recycle(struct pd_vq *vq, bool packed, unsigned n)
{
	pd_ring_refill(vq, packed, vq->done, vq->cursor, n);
	vq->cursor += n;
	vq->n_walked = 0;
	vq->n_shown = 0;
}

/* Consume the first `n` shown frames; true when the device is to be told. */
static PD_ALWAYS_INLINE bool pd_driver_rx_done(struct pd_vq *vq, bool packed, unsigned n)
{
	pd_assert(n <= vq->n_shown);
	n = pd_min(n, (unsigned)vq->n_shown);
	for (unsigned i = 0; i < n; i++) {
		vq->counts.bytes += vq->shown[i].bytes;
		vq->counts.control += vq->shown[i].control;
	}
	vq->counts.frames += n;
	pd_driver_recycle(vq, packed, n ? vq->shown[n - 1].end : 0);
	return pd_driver_flush(vq, packed);
}

#endif /* PD_VIRTIO_DRIVER_H */
