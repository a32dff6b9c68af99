/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device's data path: frames out of and into the driver's buffers (virtio 1.2, 5.1.6).
 *
 * The functions are inline over the ring's format and the dialect: `packed` and `avip` are
 * constants where they are used, and with the latter the header's length and where num_buffers
 * stands in it. The common case (a frame in one piece, a chain of one descriptor that holds it) is
 * straight-line code; anything else goes through the walk, with the same checks.
 *
 * Receive: chains from the driver's transmit ring are shown as external buffers and stay in the
 * ring until rx_done; the sidecar alone is copied. A chain that is no frame (shorter than the
 * header, too long, bad address or direction) is handed back, counted, as soon as it stands first.
 *
 * Transmit: a frame fills the chains it needs and is staged; flush publishes. With mergeable
 * buffers every chain but the last is filled. If the ring ends before the frame does, its staged
 * elements are forgotten: what was written into buffers that the driver still has not got back
 * means nothing.
 */
#ifndef PD_VIRTIO_DEVICE_H
#define PD_VIRTIO_DEVICE_H

#include <linux/virtio_net.h>

#include "virtio/copy.h"
#include "virtio/ring.h"
#include "virtio/watch.h"
#include "vlib/buffer.h"

/* Buffer headers that rx may use. */
struct pd_vq_headers {
	struct pd_buffer *const *bufs;
	unsigned n; /* PD_VQ_FRAMES_MAX to PD_VQ_WALK_MAX */
};

/* A frame in more pieces than this is copied into one. */
#define PD_DEVICE_PIECES_MAX 20
/*
 * Descriptors that one rx walks before it lets the caller go, however broken the chains are; and
 * that the frames which have to go together may fill, after which the ring is broken. An indirect
 * table costs the peer nothing to point to again.
 */
#define PD_DEVICE_WALK_BUDGET 65536

static PD_ALWAYS_INLINE uint32_t pd_vq_hdr_bytes(const struct pd_vq *vq, bool avip)
{
	return avip ? PD_VQ_HDR_SIDECAR : vq->hdr_bytes;
}

/* Position of the lane's side; see vlib/lane.h. A broken ring is never ready. */
static PD_ALWAYS_INLINE uint32_t pd_device_position(struct pd_vq *vq, bool packed)
{
	int n = vq->broken ? -ENETDOWN : pd_ring_look(vq, packed);

	return n < (int)vq->need ? vq->cursor : vq->cursor + (uint32_t)n;
}

/* Ask for a notification when the position is `hold` beyond `seen`; true when it has left `seen`.
 * See vlib/lane.h. */
static PD_ALWAYS_INLINE bool pd_device_arm_held(struct pd_vq *vq, bool packed, uint32_t seen,
						uint32_t hold)
{
	if (vq->broken)
		return false;
	pd_ring_ask(vq, packed, true,
		    seen == vq->cursor ? pd_max(vq->need, hold) - 1 : seen - vq->cursor);
	if (pd_unlikely(vq->watched))
		pd_watch_asked(vq);
	return pd_device_position(vq, packed) != seen;
}

/* The same, when it leaves `seen`. */
static PD_ALWAYS_INLINE bool pd_device_arm(struct pd_vq *vq, bool packed, uint32_t seen)
{
	return pd_device_arm_held(vq, packed, seen, 1);
}

static PD_ALWAYS_INLINE void pd_device_disarm(struct pd_vq *vq, bool packed)
{
	pd_ring_ask_not(vq, packed, true);
	if (pd_unlikely(vq->watched))
		pd_watch_asked(vq);
}

/* Publish what is staged; true when the driver is to be told. */
static PD_ALWAYS_INLINE bool pd_device_flush(struct pd_vq *vq, bool packed)
{
	if (!vq->staged)
		return false;
	if (pd_unlikely(vq->watched))
		pd_watch_publish(vq);
	else
		pd_ring_publish(vq, packed, true);
	return pd_ring_must_notify(vq, packed, true);
}

/* --- receive --------------------------------------------------------------------------------- */

/* Make `b` stand for `len` bytes at `p` of a peer's. */
static PD_ALWAYS_INLINE void pd_vq_buffer_set(struct pd_buffer *b, uint8_t *p, uint32_t len)
{
	b->data = p;
	b->len = len;
	b->next = PD_BUFFER_NONE;
	b->flags = PD_BUFFER_EXTERNAL;
}

/*
 * Note in `b`, the first buffer of a frame, what the virtio-net header at `hdr` says, if that was
 * agreed and it says anything.
 */
static PD_ALWAYS_INLINE void pd_vq_vnet_read(const struct pd_vq *vq, struct pd_buffer *b,
					     const uint8_t *hdr)
{
	if (pd_likely(!vq->offloads))
		return;
	memcpy(b->vnet, hdr, sizeof(b->vnet));
	if (b->vnet[0] | b->vnet[1]) /* flags, gso_type */
		b->flags |= PD_BUFFER_VNET;
}

/* Finish the first buffer of a frame of `total` bytes, whose header is in b->sidecar. */
static PD_ALWAYS_INLINE void pd_vq_frame_set(struct pd_vq *vq, struct pd_buffer *b, uint32_t total,
					     uint16_t port, bool avip)
{
	struct pd_vq_shown *shown = &vq->shown[vq->n_shown];

	b->total_len = total;
	b->rx_port = port;
	b->refs = 1;
	b->trace = 0;
	shown->control = 0;
	if (avip) {
		b->flags |= PD_BUFFER_SIDECAR;
		/* Padding behind a control message (metadata.md, the seed's peer needs a byte) is no
		 * frame. */
		if (pd_unlikely(!total || (b->sidecar[2] & 1))) {
			b->flags |= PD_BUFFER_CONTROL;
			b->total_len = 0;
			b->len = 0;
			b->next = PD_BUFFER_NONE;
			shown->control = 1;
			total = 0;
		}
	}
	shown->bytes = total;
}

/*
 * Whether `total` bytes behind a header are a frame, or what may stand behind a control message;
 * `sidecar`: that header, if it is one. As Linux's virtio_net, which drops what is shorter than an
 * Ethernet header.
 */
static PD_ALWAYS_INLINE bool pd_vq_is_frame(uint32_t total, const uint8_t *sidecar)
{
	return pd_likely(total >= PD_FRAME_MIN_BYTES) || (sidecar && (!total || sidecar[2] & 1));
}

/* What became of a chain that was not the common case. */
enum pd_device_chain {
	PD_CHAIN_SHOWN,
	PD_CHAIN_SHORT, /* not even a header, or too little behind it */
	PD_CHAIN_LONG,  /* longer than the largest frame */
	PD_CHAIN_BAD,   /* a descriptor's address or direction */
	PD_CHAIN_LATER, /* no headers left for it, the bounce buffer is taken, or it waits for a translation */
	PD_CHAIN_BROKEN, /* the ring is */
};

/* What one rx has used up. */
struct pd_device_burst {
	const struct pd_vq_headers *headers;
	unsigned used;   /* headers */
	uint32_t walked; /* descriptors, beyond the first of each chain */
	bool bounced;    /* the bounce buffer holds a frame */
};

/*
 * Show the chain of the block's next entry, which is `ahead` of the first that is not consumed, as
 * a frame in *out. Sets *chain unless it returns LATER or BROKEN. Counts nothing: a bad chain may
 * be looked at more than once.
 */
enum pd_device_chain pd_device_show(struct pd_vq *vq, bool packed,
				    const struct pd_ring_block *block, uint32_t ahead,
				    uint32_t hdr_bytes, struct pd_device_burst *burst,
				    struct pd_ring_chain *chain, struct pd_buffer **out);

/*
 * Show up to `n` frames; the lane's rx. Sets *notify when dropped chains were handed back and the
 * driver wants to know. Returns the count or -ENETDOWN.
 */
static PD_ALWAYS_INLINE int pd_device_rx(struct pd_vq *vq, bool packed, bool avip,
					 const struct pd_vq_headers *headers, uint16_t port,
					 struct pd_buffer **bufs, unsigned n, bool *notify)
{
	const uint32_t hdr = pd_vq_hdr_bytes(vq, avip);
	struct pd_device_burst burst = {.headers = headers};
	struct pd_ring_block block;
	uint32_t ahead = 0; /* entries that the shown frames take */
	unsigned shown;

	*notify = false;
	vq->n_shown = 0;
	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	block.n = block.at = 0;
	while ((shown = vq->n_shown) < n) {
		enum pd_device_chain what = PD_CHAIN_SHOWN;
		const struct pd_ring_desc *d;
		struct pd_ring_chain chain;
		struct pd_buffer *b;
		unsigned i;

		if (block.at >= block.n) {
			unsigned want = pd_min(n - shown, (unsigned)PD_RING_BLOCK);
			int got = pd_ring_fetch(vq, packed, &block, ahead, want, false);

			if (pd_unlikely(got < 0)) {
				vq->n_shown = 0;
				return -ENETDOWN;
			}
			if (got < (int)want)
				n = shown + (unsigned)got;
			if (!got)
				break;
		}
		i = block.at;
		d = &block.desc[i];
		if (pd_likely(!d->flags && burst.used < headers->n) &&
		    !pd_refuse(!block.p[i] || d->len - hdr - PD_FRAME_MIN_BYTES >
						      PD_FRAME_MAX_BYTES - PD_FRAME_MIN_BYTES)) {
			b = headers->bufs[burst.used++];
			pd_vq_buffer_set(b, block.p[i] + hdr, d->len - hdr);
			if (avip)
				memcpy(b->sidecar, block.p[i], PD_VQ_HDR_SIDECAR);
			else
				pd_vq_vnet_read(vq, b, block.p[i]);
			b->total_len = b->len;
			chain = pd_ring_single(&block, packed, i);
		} else {
			what = pd_device_show(vq, packed, &block, ahead, hdr, &burst, &chain, &b);
			if (pd_refuse(burst.walked > PD_DEVICE_WALK_BUDGET))
				n = shown + 1;
		}
		if (pd_likely(what == PD_CHAIN_SHOWN)) {
			pd_vq_frame_set(vq, b, b->total_len, port, avip);
			vq->chains[shown] = chain;
			bufs[shown] = b;
			vq->n_shown++;
			block.at += packed ? chain.slots : 1;
			ahead += packed ? chain.slots : 1;
			continue;
		}
		if (what == PD_CHAIN_BROKEN) {
			vq->n_shown = 0;
			return -ENETDOWN;
		}
		/* A bad chain behind a frame waits until it stands first. */
		if (shown || what == PD_CHAIN_LATER)
			break;
		vq->counts.desc_errors += what == PD_CHAIN_BAD;
		vq->counts.drop_too_long += what == PD_CHAIN_LONG;
		vq->counts.drop_malformed += what != PD_CHAIN_LONG;
		pd_ring_used_stage(vq, packed, chain, 0);
		pd_ring_consume(vq, packed, packed ? chain.slots : 1);
		block.at += packed ? chain.slots : 1;
		burst.used = 0;
		burst.bounced = false;
		if (burst.walked > PD_DEVICE_WALK_BUDGET || vq->staged >= vq->size)
			break;
	}
	if (pd_unlikely(vq->staged))
		*notify = pd_device_flush(vq, packed);
	return (int)vq->n_shown;
}

/* Consume the first `n` shown frames; true when the driver is to be told. */
static PD_ALWAYS_INLINE bool pd_device_rx_done(struct pd_vq *vq, bool packed, unsigned n)
{
	const struct pd_ring_chain *const chains = vq->chains;
	const bool in_order = vq->in_order;
	uint64_t bytes = 0, control = 0;
	uint32_t entries = 0;

	pd_assert(n <= vq->n_shown);
	n = pd_min(n, (unsigned)vq->n_shown);
	for (unsigned i = 0; i < n; i++) {
		bytes += vq->shown[i].bytes;
		control += vq->shown[i].control;
		if (pd_likely(!in_order))
			pd_ring_used_stage(vq, packed, chains[i], 0);
		entries += packed ? chains[i].slots : 1;
	}
	if (in_order && n)
		pd_ring_used_stage_all(vq, packed, chains[n - 1], entries);
	vq->n_shown = 0;
	pd_ring_consume(vq, packed, entries);
	vq->counts.frames += n;
	vq->counts.bytes += bytes;
	vq->counts.control += control;
	return pd_device_flush(vq, packed);
}

/* --- transmit -------------------------------------------------------------------------------- */

/* Write a header in one piece at `p`, with `num_buffers` where it has the field. */
static PD_ALWAYS_INLINE void pd_vq_header_write(uint8_t *restrict p, const struct pd_buffer *b,
						uint32_t hdr_bytes, bool avip, uint16_t num_buffers)
{
	if (avip) {
		if (pd_likely(b->flags & PD_BUFFER_SIDECAR))
			memcpy(p, b->sidecar, PD_VQ_HDR_SIDECAR);
		else
			memset(p, 0, PD_VQ_HDR_SIDECAR);
		memcpy(p, &num_buffers, 2);
	} else {
		if (pd_unlikely(b->flags & PD_BUFFER_VNET))
			memcpy(p, b->vnet, PD_VQ_HDR_LEGACY);
		else
			memset(p, 0, PD_VQ_HDR_LEGACY);
		if (hdr_bytes == PD_VQ_HDR_NET)
			memcpy(p + PD_VQ_HDR_LEGACY, &num_buffers, 2);
	}
}

/* Copy the bytes of a frame, in however many pieces, to one place. */
static PD_ALWAYS_INLINE void pd_vq_frame_gather(uint8_t *restrict p, const struct pd_buffer *b)
{
	for (;;) {
		pd_copy(p, b->data, b->len);
		if (pd_likely(b->next == PD_BUFFER_NONE))
			return;
		p += b->len;
		b = pd_buffer_get(b->next);
	}
}

/* Can this frame be carried at all? One that the receiver cuts may be larger. */
static PD_ALWAYS_INLINE bool pd_vq_frame_fits(const struct pd_buffer *b, bool avip)
{
	if (pd_likely(b->total_len <= PD_FRAME_MAX_BYTES))
		return b->total_len || avip;
	return !avip && b->flags & PD_BUFFER_VNET && b->total_len <= PD_FRAME_LARGE_BYTES;
}

/*
 * Fill one frame into the chains that start with the block's next entry: the general case. Consumes
 * and stages. Returns 1; 0 when the ring ends first; -EMSGSIZE; -ENETDOWN. Nothing is staged unless
 * it returns 1.
 */
int pd_device_fill(struct pd_vq *vq, bool packed, struct pd_ring_block *block,
		   const struct pd_buffer *b, uint32_t hdr_bytes);

/* The same for `n` frames of which all go or none; the lane's tx_all. Counts them. */
int pd_device_tx_all(struct pd_vq *vq, bool packed, uint32_t hdr_bytes,
		     struct pd_buffer *const *bufs, unsigned n);

/*
 * Fetch of the block's buffers, beyond what reading the block fetched, what will be written. The
 * frames are at `bufs`, as many as the block has entries.
 */
static PD_ALWAYS_INLINE void pd_device_prepare(const struct pd_vq *vq,
					       const struct pd_ring_block *block,
					       struct pd_buffer *const *bufs, uint32_t hdr_bytes)
{
	for (unsigned i = 0; i < block->n; i++)
		if (pd_likely(block->p[i]))
			pd_prefetch_write_rest(block->p[i], pd_min(hdr_bytes + bufs[i]->total_len,
								   vq->prefetch_bytes));
}

/* Copy up to `n` frames out; the lane's tx. */
static PD_ALWAYS_INLINE int pd_device_tx(struct pd_vq *vq, bool packed, bool avip,
					 struct pd_buffer *const *bufs, unsigned n)
{
	const uint32_t hdr = pd_vq_hdr_bytes(vq, avip);
	struct pd_ring_block block;
	uint64_t bytes = 0;
	unsigned taken = 0;
	bool last = false; /* there is nothing behind the block */
	int err = 0;

	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	block.n = block.at = 0;
	for (; taken < n; taken++) {
		const struct pd_buffer *b = bufs[taken];
		uint32_t total = hdr + b->total_len;
		unsigned i;

		if (block.at >= block.n) {
			unsigned want = pd_min(n - taken, (unsigned)PD_RING_BLOCK);
			int got = last ? 0 : pd_ring_fetch(vq, packed, &block, 0, want, true);

			if (pd_unlikely(got <= 0)) {
				vq->counts.ring_full += !got;
				vq->need = 1;
				err = got;
				break;
			}
			last = got < (int)want;
			if (pd_unlikely(vq->watched) &&
			    vq->dirty.frames) /* the general way for all of them */
				memset(block.p, 0, sizeof(block.p));
			if (total > PD_PREFETCH_LEAST)
				pd_device_prepare(vq, &block, &bufs[taken], hdr);
		}
		i = block.at;
		if (!pd_vq_frame_fits(b, avip)) {
			vq->counts.drop_too_long++;
			err = -EMSGSIZE;
			break;
		}
		if (!pd_refuse(!block.p[i] || block.desc[i].flags != VRING_DESC_F_WRITE) &&
		    pd_likely(block.desc[i].len >= total)) {
			pd_vq_header_write(block.p[i], b, hdr, avip, 1);
			pd_vq_frame_gather(block.p[i] + hdr, b);
			pd_ring_used_stage(vq, packed, pd_ring_single(&block, packed, i), total);
			pd_ring_consume(vq, packed, 1);
			block.at++;
		} else {
			int filled = pd_device_fill(vq, packed, &block, b, hdr);

			if (filled <= 0) {
				err = filled;
				break;
			}
		}
		bytes += b->total_len;
		vq->counts.control += !b->total_len;
		vq->need = 1;
	}
	vq->counts.frames += taken;
	vq->counts.bytes += bytes;
	return taken ? (int)taken : err;
}

/*
 * Hand back unread up to `n` chains. Returns how many, with *notify when the driver is to be told,
 * or -ENETDOWN. Control path.
 */
int pd_device_discard(struct pd_vq *vq, unsigned n, bool *notify);

#endif /* PD_VIRTIO_DEVICE_H */
