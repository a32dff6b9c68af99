/* SPDX-License-Identifier: BSD-2-Clause */
/* The device's data path where a frame or its chain is in several pieces. */
#include "virtio/device.h"

/*
 * Read the header off the front of a chain into `hdr`. What the last run holds behind it stays in
 * *rest. Returns 1, 0 when the chain is shorter, or an error of pd_ring_walk_next.
 */
static int read_header(struct pd_vq *vq, struct pd_ring_walk *walk, uint8_t *hdr, uint32_t n,
		       struct pd_ring_run *rest)
{
	uint32_t got = 0;

	while (got < n) {
		int more = pd_ring_walk_next(vq, walk, rest);
		uint32_t part;

		if (more <= 0)
			return more;
		part = pd_min(rest->len, n - got);
		memcpy(hdr + got, rest->p, part);
		got += part;
		rest->p += part;
		rest->len -= part;
	}
	return 1;
}

/* Move the frame's runs so far to the bounce buffer and make them one. */
static void bounce(struct pd_vq *vq, struct pd_ring_run *runs, unsigned *n)
{
	uint8_t *p = vq->bounce;

	for (unsigned i = 0; i < *n; i++) {
		pd_copy(p, runs[i].p, runs[i].len);
		p += runs[i].len;
	}
	runs[0].p = vq->bounce;
	runs[0].len = (uint32_t)(p - vq->bounce);
	*n = 1;
}

/*
 * Collect what follows the header: runs[0..*n), one already there when *n is 1. Returns 0 with
 * *total, or an error of the walk, -EMSGSIZE, -EAGAIN also when the bounce buffer is needed and
 * taken.
 */
static int collect(struct pd_vq *vq, struct pd_ring_walk *walk, struct pd_device_burst *burst,
		   struct pd_ring_run *runs, unsigned *n, uint32_t *total)
{
	bool bounced = false;
	uint64_t sum = *n ? runs[0].len : 0;
	struct pd_ring_run run;
	int more = 0;

	while (sum <= vq->frame_max && (more = pd_ring_walk_next(vq, walk, &run)) > 0) {
		sum += run.len;
		if (sum > vq->frame_max)
			break;
		if (!bounced && *n == PD_DEVICE_PIECES_MAX) {
			if (burst->bounced)
				return -EAGAIN;
			bounce(vq, runs, n);
			bounced = burst->bounced = true;
		}
		if (bounced) {
			pd_copy(runs[0].p + runs[0].len, run.p, run.len);
			runs[0].len += run.len;
		} else {
			runs[(*n)++] = run;
		}
	}
	if (sum > vq->frame_max)
		return -EMSGSIZE;
	*total = (uint32_t)sum;
	return more;
}

/*
 * Let a chain of headers refer to the runs; at least one header, so that a control frame has one.
 */
static struct pd_buffer *build(struct pd_device_burst *burst, const struct pd_ring_run *runs,
			       unsigned n)
{
	struct pd_buffer *const *bufs = &burst->headers->bufs[burst->used];

	pd_vq_buffer_set(bufs[0], runs[0].p, n ? runs[0].len : 0);
	for (unsigned i = 1; i < n; i++) {
		pd_vq_buffer_set(bufs[i], runs[i].p, runs[i].len);
		bufs[i - 1]->next = bufs[i]->index;
	}
	burst->used += n ? n : 1;
	return bufs[0];
}

/* pd_device_show, for one format. Data path. */
static PD_ALWAYS_INLINE enum pd_device_chain show(struct pd_vq *vq, bool packed,
						  const struct pd_ring_block *block, uint32_t ahead,
						  uint32_t hdr_bytes, struct pd_device_burst *burst,
						  struct pd_ring_chain *chain,
						  struct pd_buffer **out)
{
	struct pd_ring_run runs[PD_DEVICE_PIECES_MAX] = {{NULL, 0}};
	uint8_t hdr[PD_VQ_HDR_SIDECAR];
	struct pd_ring_walk walk;
	uint32_t total = 0;
	bool is_short;
	unsigned n;
	int err;

	pd_ring_walk_start(vq, packed, &walk, block, block->at, ahead, false);
	err = read_header(vq, &walk, hdr, hdr_bytes, &runs[0]);
	is_short = !err;
	n = runs[0].len ? 1 : 0;
	if (err > 0)
		err = collect(vq, &walk, burst, runs, &n, &total);
	if (err != -ENETDOWN && pd_ring_walk_end(vq, packed, &walk))
		err = -ENETDOWN;
	burst->walked += walk.walked;
	*chain = walk.chain;
	switch (err) {
	case 0:
		break;
	case -ENETDOWN:
		return PD_CHAIN_BROKEN;
	case -EAGAIN:
		if (!ahead)
			pd_vq_stall(vq);
		return PD_CHAIN_LATER;
	case -EMSGSIZE:
		return PD_CHAIN_LONG;
	default:
		return PD_CHAIN_BAD;
	}
	if (is_short || !pd_vq_is_frame(total, hdr_bytes == PD_VQ_HDR_SIDECAR ? hdr : NULL))
		return PD_CHAIN_SHORT;
	if (burst->used + n > burst->headers->n || burst->used == burst->headers->n)
		return PD_CHAIN_LATER;
	*out = build(burst, runs, n);
	(*out)->total_len = total;
	if (hdr_bytes == PD_VQ_HDR_SIDECAR)
		memcpy((*out)->sidecar, hdr, PD_VQ_HDR_SIDECAR);
	else
		pd_vq_vnet_read(vq, *out, hdr);
	return PD_CHAIN_SHOWN;
}

enum pd_device_chain pd_device_show(struct pd_vq *vq, bool packed,
				    const struct pd_ring_block *block, uint32_t ahead,
				    uint32_t hdr_bytes, struct pd_device_burst *burst,
				    struct pd_ring_chain *chain, struct pd_buffer **out)
{
	return packed ? show(vq, true, block, ahead, hdr_bytes, burst, chain, out)
		      : show(vq, false, block, ahead, hdr_bytes, burst, chain, out);
}

int pd_device_discard(struct pd_vq *vq, unsigned n, bool *notify)
{
	struct pd_ring_block block = {0};
	unsigned done;

	*notify = false;
	for (done = 0; done < n; done++) {
		struct pd_ring_walk walk;
		int got;

		if (block.at >= block.n) {
			unsigned want = pd_min(n - done, (unsigned)PD_RING_BLOCK);

			got = vq->broken ? -ENETDOWN
					 : pd_ring_fetch(vq, vq->packed, &block, 0, want, false);
			if (got < 0)
				return got;
			if (!got)
				break;
		}
		pd_ring_walk_start(vq, vq->packed, &walk, &block, block.at, 0, false);
		if (pd_ring_walk_end(vq, vq->packed, &walk))
			return -ENETDOWN;
		pd_ring_used_stage(vq, vq->packed, walk.chain, 0);
		pd_ring_consume(vq, vq->packed, vq->packed ? walk.chain.slots : 1);
		block.at += walk.chain.slots;
	}
	*notify = pd_device_flush(vq, vq->packed);
	return (int)done;
}

/* --- transmit -------------------------------------------------------------------------------- */

/* A frame on its way into chains: header first, then the pieces. */
struct filling {
	uint8_t hdr[PD_VQ_HDR_SIDECAR];
	uint32_t hdr_bytes;
	uint32_t hdr_done;
	const struct pd_buffer *b; /* piece to copy from, and what of it is copied */
	uint32_t b_done;
	uint32_t left;  /* bytes of header and frame that are not written yet */
	uint32_t nb_at; /* where num_buffers stands in the header */
	uint8_t *nb[2]; /* where its two bytes were written */
};

/* Begin with the frame at `b`. */
static void fill_start(struct filling *f, const struct pd_buffer *b, uint32_t hdr_bytes)
{
	pd_vq_header_write(f->hdr, b, hdr_bytes, hdr_bytes == PD_VQ_HDR_SIDECAR, 1);
	f->hdr_bytes = hdr_bytes;
	f->hdr_done = 0;
	f->b = b;
	f->b_done = 0;
	f->left = hdr_bytes + b->total_len;
	f->nb_at = hdr_bytes == PD_VQ_HDR_SIDECAR ? 0 : PD_VQ_HDR_LEGACY;
	f->nb[0] = f->nb[1] = NULL;
}

/* Write up to `room` bytes to `p`; returns how many. */
static uint32_t fill_run(struct filling *f, uint8_t *p, uint32_t room)
{
	uint32_t done = 0;

	while (done < room && f->left) {
		uint32_t n;

		if (f->hdr_done < f->hdr_bytes) {
			n = pd_min(room - done, f->hdr_bytes - f->hdr_done);
			memcpy(p + done, f->hdr + f->hdr_done, n);
			for (unsigned i = 0; i < 2; i++)
				if (f->nb_at + i - f->hdr_done < n)
					f->nb[i] = p + done + (f->nb_at + i - f->hdr_done);
			f->hdr_done += n;
		} else if (f->b_done == f->b->len) {
			f->b = pd_buffer_get(f->b->next);
			f->b_done = 0;
			continue;
		} else {
			n = pd_min(room - done, f->b->len - f->b_done);
			pd_copy(p + done, f->b->data + f->b_done, n);
			f->b_done += n;
		}
		done += n;
		f->left -= n;
	}
	return done;
}

/*
 * Write into the chain of block entry `i`, which is `ahead` of the first that is not consumed,
 * until it or the frame ends. *chain: the chain, with the bytes written. Returns the number of
 * descriptors walked; -EAGAIN when it waits for a translation; -ENETDOWN: a receive ring that holds
 * anything but room to write is broken.
 */
static PD_ALWAYS_INLINE int fill_chain(struct pd_vq *vq, bool packed, struct filling *f,
				       const struct pd_ring_block *block, unsigned i,
				       uint32_t ahead, struct pd_ring_chain *chain)
{
	struct pd_ring_walk walk;
	struct pd_ring_run run;
	uint32_t filled = 0;
	int more = 1;

	pd_ring_walk_start(vq, packed, &walk, block, i, ahead, true);
	while (f->left && (more = pd_ring_walk_next(vq, &walk, &run)) > 0) {
		uint32_t n = fill_run(f, run.p, run.len);

		filled += n;
		if (pd_unlikely(vq->watched))
			pd_watch_wrote(vq, run.p, n);
	}
	if (more == -EFAULT) {
		vq->counts.desc_errors++;
		return pd_vq_break(vq, "a receive descriptor is not writable memory");
	}
	if (more == -EAGAIN)
		return more;
	if (more < 0 || pd_ring_walk_end(vq, packed, &walk))
		return -ENETDOWN;
	if (!filled)
		return pd_vq_break(vq, "a receive chain has no room");
	*chain = walk.chain;
	chain->len = filled;
	return (int)walk.walked;
}

/* The ring ended `entries` into a frame. Returns 0 when more may come, -EMSGSIZE when the peer has
 * no descriptor left that it could add. */
static int out_of_room(struct pd_vq *vq, uint32_t entries, uint32_t descs)
{
	if (entries >= vq->size || descs >= vq->size) {
		vq->counts.drop_too_long++;
		return -EMSGSIZE;
	}
	vq->counts.ring_full++;
	vq->need = entries + 1;
	return 0;
}

/*
 * Fill `n` frames into the chains that start with the block's next entry, and stage them all;
 * pd_device_fill and pd_device_tx_all, for one format. Data path.
 */
static PD_ALWAYS_INLINE int fill(struct pd_vq *vq, bool packed, struct pd_ring_block *block,
				 struct pd_buffer *const *bufs, unsigned n, uint32_t hdr_bytes)
{
	struct pd_ring_block one;
	uint32_t descs = 0, entries = 0;
	unsigned chains = 0, first;
	struct filling f;

	for (unsigned k = 0; k < n; k++) {
		first = chains;
		fill_start(&f, bufs[k], hdr_bytes);
		while (f.left) {
			const struct pd_ring_block *in = block;
			struct pd_ring_chain *chain = &vq->chains[chains];
			unsigned i = block->at + entries;
			int ret;

			if (i >= block->n) {
				ret = pd_ring_fetch(vq, packed, &one, entries, 1, true);
				if (ret <= 0)
					return ret ? ret : out_of_room(vq, entries, descs);
				in = &one;
				i = 0;
			}
			ret = fill_chain(vq, packed, &f, in, i, entries, chain);
			if (ret < 0)
				return ret == -EAGAIN ? pd_vq_stall(vq) : ret;
			descs += (uint32_t)ret;
			if (pd_refuse(descs > PD_DEVICE_WALK_BUDGET))
				return pd_vq_break(vq, "receive chains of too many descriptors");
			entries += packed ? chain->slots : 1;
			chains++;
			if (f.left && !vq->mergeable) {
				vq->counts.drop_too_long++;
				return -EMSGSIZE;
			}
		}
		if (f.nb[0] && chains != first + 1) {
			*f.nb[0] = (uint8_t)(chains - first);
			*f.nb[1] = (uint8_t)((chains - first) >> 8);
			for (unsigned i = 0; i < 2 && pd_unlikely(vq->watched); i++)
				pd_watch_wrote(vq, f.nb[i], 1);
		}
	}
	for (unsigned i = 0; i < chains; i++)
		pd_ring_used_stage(vq, packed, vq->chains[i], vq->chains[i].len);
	pd_ring_consume(vq, packed, entries);
	block->at += entries;
	return 1;
}

int pd_device_fill(struct pd_vq *vq, bool packed, struct pd_ring_block *block,
		   const struct pd_buffer *b, uint32_t hdr_bytes)
{
	struct pd_buffer *const bufs[1] = {(struct pd_buffer *)(uintptr_t)b};

	return packed ? fill(vq, true, block, bufs, 1, hdr_bytes)
		      : fill(vq, false, block, bufs, 1, hdr_bytes);
}

int pd_device_tx_all(struct pd_vq *vq, bool packed, uint32_t hdr_bytes,
		     struct pd_buffer *const *bufs, unsigned n)
{
	struct pd_ring_block none = {.n = 0};
	int ret;

	if (pd_unlikely(vq->broken))
		return -ENETDOWN;
	ret = packed ? fill(vq, true, &none, bufs, n, hdr_bytes)
		     : fill(vq, false, &none, bufs, n, hdr_bytes);
	if (ret <= 0)
		return ret;
	vq->need = 1;
	vq->counts.frames += n;
	for (unsigned i = 0; i < n; i++)
		vq->counts.bytes += bufs[i]->total_len;
	return (int)n;
}
