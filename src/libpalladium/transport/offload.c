/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finishing frames that came unfinished, or that the peer wants finished (the theory stands in
 * offload.h).
 */
#include "transport/offload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_ether.h>

#include "counters/counters.h"

/* Each segment is two pieces: headers of its own, and payload where it stands. */
#define PD_OFFLOAD_BUFFERS (2 * PD_VECTOR_MAX)

/* What became of a frame that was shown, for the counters. */
enum pd_offload_kind {
	PD_OFFLOAD_KIND_PLAIN,
	PD_OFFLOAD_KIND_OPEN,      /* its checksum is open */
	PD_OFFLOAD_KIND_COMPLETED, /* it was */
	PD_OFFLOAD_KIND_LARGE,
	PD_OFFLOAD_KIND_SEGMENT, /* of a large one */
	PD_OFFLOAD_KINDS
};

struct pd_offload {
	/* The large frame at the head of the ring, or in the hands of send: */
	bool cutting;
	struct pd_vnet_cut cut;
	uint32_t done; /* segments that are consumed */
	/* The last show. */
	unsigned shown;
	uint8_t kind[PD_VECTOR_MAX]; /* enum pd_offload_kind */
	struct pd_buffer_pool *pool;
	struct pd_buffer *bufs[PD_OFFLOAD_BUFFERS];
	uint8_t headers[PD_VECTOR_MAX][PD_VNET_FRONT];
	uint8_t large[PD_FRAME_LARGE_BYTES];
	uint32_t room_used;
	uint8_t room[PD_FRAME_LARGE_BYTES]; /* completed frames of the last show */
};

struct pd_offload *pd_offload_new(int *err)
{
	struct pd_offload *o = malloc(sizeof(*o));
	uint32_t indices[PD_OFFLOAD_BUFFERS];

	*err = -ENOMEM;
	if (!o)
		return NULL;
	o->pool = pd_buffer_pool_create("offload", PD_OFFLOAD_BUFFERS, 0, err);
	if (!o->pool) {
		free(o);
		return NULL;
	}
	pd_buffer_alloc(o->pool, indices, PD_OFFLOAD_BUFFERS);
	for (unsigned i = 0; i < PD_OFFLOAD_BUFFERS; i++)
		o->bufs[i] = pd_buffer_get(indices[i]);
	pd_offload_reset(o);
	return o;
}

void pd_offload_free(struct pd_offload *o)
{
	uint32_t indices[PD_OFFLOAD_BUFFERS];

	if (!o)
		return;
	for (unsigned i = 0; i < PD_OFFLOAD_BUFFERS; i++) {
		o->bufs[i]->next = PD_BUFFER_NONE;
		o->bufs[i]->refs = 1;
		indices[i] = o->bufs[i]->index;
	}
	pd_buffer_free(indices, PD_OFFLOAD_BUFFERS);
	pd_buffer_pool_destroy(o->pool);
	free(o);
}

void pd_offload_reset(struct pd_offload *o)
{
	if (!o)
		return;
	o->cutting = false;
	o->shown = 0;
}

int pd_offload_read(struct pd_buffer *b, struct pd_vnet_cut *cut)
{
	uint8_t front[PD_VNET_FRONT];
	struct virtio_net_hdr h;
	int task;

	memcpy(&h, b->vnet, sizeof(h));
	pd_buffer_copy_out(b, 0, front, sizeof(front));
	task = pd_vnet_read(&h, front, b->total_len, cut);
	if (task < 0)
		return task;
	memcpy(b->vnet, &h, sizeof(h));
	if (task == PD_VNET_NOTHING && !h.flags)
		b->flags &= (uint16_t)~PD_BUFFER_VNET;
	return task;
}

/* Make `b` stand for `len` bytes of ours at `data`, in one piece, in the place of `old`. */
static void stand_for(struct pd_buffer *b, uint8_t *data, uint32_t len, const struct pd_buffer *old)
{
	b->data = data;
	b->len = b->total_len = len;
	b->next = PD_BUFFER_NONE;
	b->refs = 1;
	b->trace = old->trace;
	b->rx_port = old->rx_port;
	b->tx_port = old->tx_port;
	b->flags = old->flags & (uint16_t)~PD_BUFFER_VNET;
	if (b->flags & PD_BUFFER_SIDECAR)
		memcpy(b->sidecar, old->sidecar, sizeof(b->sidecar));
}

/*
 * A copy of the frame at `b`, of `len` bytes at `to`, with its checksum complete, in the buffer
 * `out`.
 */
static void complete(struct pd_buffer *out, uint8_t *to, const struct pd_buffer *b)
{
	struct virtio_net_hdr h;

	memcpy(&h, b->vnet, sizeof(h));
	pd_buffer_copy_out(b, 0, to, b->total_len);
	pd_vnet_complete(to, b->total_len, &h);
	stand_for(out, to, b->total_len, b);
}

/*
 * Take the large frame at `b` into o->large and decide on its segments, none longer than the MTU of
 * `port` allows. What the copy holds counts, not what was looked at before. Returns 0 or -EINVAL.
 */
static int take_large(struct pd_offload *o, const struct pd_buffer *b, const struct pd_port *port)
{
	struct virtio_net_hdr h;

	memcpy(&h, b->vnet, sizeof(h));
	pd_buffer_copy_out(b, 0, o->large, b->total_len);
	if (pd_vnet_read(&h, o->large, b->total_len, &o->cut) != PD_VNET_CUT)
		return -EINVAL;
	return pd_vnet_cut_limit(&o->cut, port->mtu);
}

/*
 * Build segment `i` of the large frame, as the `k`th of those that stand at a time. Returns its
 * first buffer.
 */
static struct pd_buffer *segment(struct pd_offload *o, uint32_t i, unsigned k,
				 const struct pd_buffer *old)
{
	struct pd_buffer *head = o->bufs[2 * k], *rest = o->bufs[2 * k + 1];
	uint32_t at, len;

	pd_vnet_segment(&o->cut, o->large, i, o->headers[k], &at, &len);
	stand_for(head, o->headers[k], o->cut.headers, old);
	rest->data = o->large + at;
	rest->len = len;
	rest->next = PD_BUFFER_NONE;
	rest->flags = PD_BUFFER_EXTERNAL;
	head->next = rest->index;
	head->total_len += len;
	return head;
}

/* --- receive ------------------------------------------------------------------------------ */

/* Show up to `n` segments of the large frame at the head, which was `b`. */
static unsigned show_segments(struct pd_offload *o, struct pd_buffer **bufs,
			      const struct pd_buffer *b, unsigned n)
{
	n = pd_min(n, o->cut.segments - o->done);
	for (unsigned i = 0; i < n; i++) {
		bufs[i] = segment(o, o->done + i, i, b);
		o->kind[i] = PD_OFFLOAD_KIND_SEGMENT;
	}
	o->shown = n;
	return n;
}

unsigned pd_offload_want(const struct pd_offload *o, unsigned n)
{
	return o->cutting ? 1 : n;
}

/*
 * What pd_offload_read says of the frame, but that a long one has to be one that is cut, and no
 * ring has agreed to UDP that is.
 */
static int examine(struct pd_buffer *b)
{
	struct pd_vnet_cut cut;
	int task = PD_VNET_NOTHING;

	if (b->flags & PD_BUFFER_VNET)
		task = b->vnet[1] == VIRTIO_NET_HDR_GSO_UDP_L4 ? -EINVAL : pd_offload_read(b, &cut);
	return task != PD_VNET_CUT && b->total_len > PD_FRAME_MAX_BYTES ? -EINVAL : task;
}

/* Complete frame `*b` as the `i`th of a show. Returns false when there is no room for the copy. */
static bool show_completed(struct pd_offload *o, struct pd_buffer **b, unsigned i)
{
	uint32_t len = (*b)->total_len;

	if (o->room_used + len > sizeof(o->room))
		return false;
	complete(o->bufs[i], o->room + o->room_used, *b);
	*b = o->bufs[i];
	o->room_used += len;
	o->kind[i] = PD_OFFLOAD_KIND_COMPLETED;
	return true;
}

unsigned pd_offload_show(struct pd_offload *o, const struct pd_lane *lane, struct pd_buffer **bufs,
			 unsigned got, unsigned n)
{
	const struct pd_port *port = &pd_ports[lane->port];
	bool whole = pd_load_relaxed(&port->rx_vnet);
	unsigned i;

	o->shown = 0;
	o->room_used = 0;
	if (o->cutting)
		return show_segments(o, bufs, bufs[0], n);
	for (i = 0; i < got; i++) {
		struct pd_buffer *b = bufs[i];
		int task;

		o->kind[i] = PD_OFFLOAD_KIND_PLAIN;
		if (pd_likely(!(b->flags & PD_BUFFER_VNET) && b->total_len <= PD_FRAME_MAX_BYTES))
			continue;
		task = examine(b);
		if (task < 0)
			break;
		if (task == PD_VNET_CUT) {
			o->kind[i] = PD_OFFLOAD_KIND_LARGE;
			if (whole)
				continue;
			/* Behind others it waits until it stands first. */
			if (i || take_large(o, b, port))
				break;
			o->cutting = true;
			o->done = 0;
			return show_segments(o, bufs, b, n);
		}
		if (task == PD_VNET_CSUM) {
			o->kind[i] = PD_OFFLOAD_KIND_OPEN;
			if (!whole && !show_completed(o, &bufs[i], i))
				break;
		}
	}
	o->shown = i;
	return i;
}

/* Count at the lane `n` frames that were consumed; `large`: a large frame is through. */
static void count_done(const struct pd_offload *o, struct pd_lane *lane, unsigned n, bool large)
{
	struct pd_ctr_block *ctr = lane->side[PD_RX].ctr;
	unsigned of[PD_OFFLOAD_KINDS] = {0};

	for (unsigned i = 0; i < n; i++)
		of[o->kind[i]]++;
	if (of[PD_OFFLOAD_KIND_PLAIN] == n)
		return;
	pd_ctr_begin(ctr, PD_CTR_LANE_RX);
	pd_ctr_add(ctr, PD_CTR_LANE_RX_CSUM,
		   of[PD_OFFLOAD_KIND_OPEN] + of[PD_OFFLOAD_KIND_COMPLETED]);
	pd_ctr_add(ctr, PD_CTR_LANE_RX_CSUM_DONE, of[PD_OFFLOAD_KIND_COMPLETED]);
	pd_ctr_add(ctr, PD_CTR_LANE_RX_GSO, of[PD_OFFLOAD_KIND_LARGE] + large);
	pd_ctr_add(ctr, PD_CTR_LANE_RX_SEGMENTS, of[PD_OFFLOAD_KIND_SEGMENT]);
	pd_ctr_end(ctr, PD_CTR_LANE_RX);
}

unsigned pd_offload_done(struct pd_offload *o, struct pd_lane *lane, unsigned n)
{
	bool through;

	n = pd_min(n, o->shown);
	o->shown = 0;
	if (pd_likely(!o->cutting)) {
		count_done(o, lane, n, false);
		return n;
	}
	o->done += n;
	through = o->done == o->cut.segments;
	count_done(o, lane, n, through);
	o->cutting = !through;
	return through;
}

/* --- transmit ----------------------------------------------------------------------------- */

/*
 * What a frame with a header asks of its receiver: enum pd_lane_offload; more than there is when it
 * cannot be left to one.
 */
static unsigned asks(const struct pd_buffer *b)
{
	uint8_t flags = b->vnet[0], type = b->vnet[1];
	unsigned asked = flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? PD_OFFLOAD_CSUM : 0;

	if (type == VIRTIO_NET_HDR_GSO_NONE)
		return asked;
	/* Large frames have open checksums on a ring, and are TCP. */
	if (!asked || type == VIRTIO_NET_HDR_GSO_UDP_L4)
		return UINT8_MAX;
	asked |= (type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4 ? PD_OFFLOAD_TSO4
									      : PD_OFFLOAD_TSO6;
	return asked | (type & VIRTIO_NET_HDR_GSO_ECN ? PD_OFFLOAD_ECN : 0);
}

/* Whether the frame goes as it is. */
static bool goes(const struct pd_lane *lane, const struct pd_buffer *b)
{
	return !(b->flags & PD_BUFFER_VNET) || !(asks(b) & ~(unsigned)lane->takes);
}

/* Send a large frame as segments, all or none. As tx for one frame. */
static int send_segments(struct pd_offload *o, struct pd_lane *lane, const struct pd_buffer *b,
			 uint64_t *segments)
{
	struct pd_buffer *all[PD_LANE_ALL_MAX];
	int ret;

	if (take_large(o, b, &pd_ports[lane->port]) || o->cut.segments > PD_LANE_ALL_MAX)
		return -EMSGSIZE;
	for (uint32_t i = 0; i < o->cut.segments; i++)
		all[i] = segment(o, i, i, b);
	ret = lane->ops->tx_all(lane, all, o->cut.segments);
	*segments += ret > 0 ? o->cut.segments : 0;
	return pd_min(ret, 1);
}

/* What send did, for the counters. */
struct sent {
	uint64_t open, completed, large, segments;
};

/* Send one frame that the lane does not take as it is. As tx. */
static int send_finished(struct pd_offload *o, struct pd_lane *lane, const struct pd_buffer *b,
			 struct sent *sent)
{
	int ret;

	if (b->vnet[1] != VIRTIO_NET_HDR_GSO_NONE)
		return send_segments(o, lane, b, &sent->segments);
	if (b->total_len > sizeof(o->room))
		return -EMSGSIZE;
	complete(o->bufs[0], o->room, b);
	ret = lane->ops->tx(lane, &o->bufs[0], 1);
	sent->completed += ret > 0;
	return ret;
}

/* Note frames that went as they were. */
static void note_sent(struct sent *sent, struct pd_buffer *const *bufs, int n)
{
	for (int i = 0; i < n; i++) {
		if (!(bufs[i]->flags & PD_BUFFER_VNET))
			continue;
		sent->large += bufs[i]->vnet[1] != VIRTIO_NET_HDR_GSO_NONE;
		sent->open += bufs[i]->vnet[1] == VIRTIO_NET_HDR_GSO_NONE &&
			      bufs[i]->vnet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	}
}

int pd_offload_send(struct pd_offload *o, struct pd_lane *lane, struct pd_buffer *const *bufs,
		    unsigned n)
{
	struct pd_ctr_block *ctr = lane->side[PD_TX].ctr;
	struct sent sent = {0};
	unsigned done = 0;
	int ret = 0;

	while (done < n) {
		unsigned run = 0;

		while (done + run < n && goes(lane, bufs[done + run]))
			run++;
		ret = run ? lane->ops->tx(lane, bufs + done, run)
			  : send_finished(o, lane, bufs[done], &sent);
		if (ret <= 0)
			break;
		if (run)
			note_sent(&sent, bufs + done, ret);
		done += (unsigned)ret;
		if (run && (unsigned)ret < run)
			break;
	}
	pd_ctr_begin(ctr, PD_CTR_LANE_TX);
	pd_ctr_add(ctr, PD_CTR_LANE_TX_CSUM, sent.open);
	pd_ctr_add(ctr, PD_CTR_LANE_TX_CSUM_DONE, sent.completed);
	pd_ctr_add(ctr, PD_CTR_LANE_TX_GSO, sent.large);
	pd_ctr_add(ctr, PD_CTR_LANE_TX_SEGMENTS, sent.segments);
	pd_ctr_end(ctr, PD_CTR_LANE_TX);
	return done ? (int)done : ret;
}
