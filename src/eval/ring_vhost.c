/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Modes split and packed: the library's ports and lanes over vhost-user, as programs have them, but
 * for the sockets.
 *
 * nf listens on two sockets, one for each hop, and is the driver of both (with --nf-side device the
 * device); rx and tx connect. nf hands what it received from one ring straight to the other, which
 * copies: one copy at each hop, as in a guest that forwards. Metadata is the library's own, the
 * header of a buffer; with dialect avip the sidecar crosses, with the packet's number in it, and is
 * checked.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "nf_plugin.h"
#include "roles.h"
#include "transport/transport.h"
#include "vlib/progress.h"

#define COPIES 32 /* packets that tx copies before it looks at them */
/* Private frames of rx: as many as the largest batch. */
#define FRAMES EV_VHOST_BATCH_MAX
_Static_assert(FRAMES % EV_PATTERNS == 0, "a frame keeps its pattern");

/* --- rx -------------------------------------------------------------------------------------- */

/*
 * Make the next `n` packets in private frames: buffer number modulo FRAMES has the one whose
 * pattern is that of the number.
 */
static void make_packets(struct ev_role *r, struct pd_buffer **bufs, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t number = r->n + i;
		struct pd_buffer *b = bufs[i] = r->buffers[number % FRAMES];

		memcpy(b->data + EV_NUMBER_AT, &number, sizeof(number));
		memcpy(b->sidecar + EV_SIDECAR_NUMBER_AT, &number, sizeof(number));
	}
}

/* Generate and send up to a batch. */
static unsigned step_rx(struct ev_role *r)
{
	struct pd_lane_side *side = &r->out_lane->side[PD_TX];
	struct pd_buffer *bufs[EV_VHOST_BATCH_MAX];
	unsigned n = ev_wanted(r);
	int sent = 0;

	make_packets(r, bufs, n);
	if (r->stamps)
		ev_stamp(r, r->n, n);
	pd_lock(&side->lock);
	if (side->up)
		sent = r->out_lane->ops->tx(r->out_lane, bufs, n);
	if (sent > 0)
		r->out_lane->ops->tx_flush(r->out_lane);
	pd_unlock(&side->lock);
	return sent > 0 ? (unsigned)sent : 0;
}

/* --- nf -------------------------------------------------------------------------------------- */

/*
 * Let the function see those of `n` packets that it has not seen: what the other ring does not take
 * comes again.
 */
static void work(struct ev_role *r, struct pd_buffer **bufs, unsigned n)
{
	const struct ev_nf *nf = ev_nf_get(r->o->nf);
	uint8_t *packets[EV_VHOST_BATCH_MAX];
	uint32_t lens[EV_VHOST_BATCH_MAX];
	unsigned k = 0;

	if (!nf->work)
		return;
	for (unsigned i = r->worked; i < n; i++, k++) {
		packets[k] = bufs[i]->data;
		lens[k] = bufs[i]->total_len;
	}
	if (k && r->place)
		ev_nf_place_work(r->place, &r->told->tally, r->n + r->worked, bufs + r->worked, k);
	if (k)
		nf->work(&r->told->nf, packets, lens, k);
	r->worked = pd_max(r->worked, n);
}

/* Forward up to a batch from one ring to the other. Both sides are locked. */
static unsigned forward(struct ev_role *r)
{
	struct pd_buffer *bufs[EV_VHOST_BATCH_MAX];
	int n, taken;

	n = r->in_lane->ops->rx(r->in_lane, bufs, ev_wanted(r));
	if (n <= 0)
		return 0;
	work(r, bufs, (unsigned)n);
	taken = r->out_lane->ops->tx(r->out_lane, bufs, (unsigned)n);
	if (taken <= 0)
		return 0;
	r->out_lane->ops->tx_flush(r->out_lane);
	r->in_lane->ops->rx_done(r->in_lane, (unsigned)taken);
	r->worked -= pd_min(r->worked, (unsigned)taken);
	return (unsigned)taken;
}

/* The same with the locks. */
static unsigned step_nf(struct ev_role *r)
{
	struct pd_lane_side *in = &r->in_lane->side[PD_RX], *out = &r->out_lane->side[PD_TX];
	unsigned n = 0;

	pd_lock(&in->lock);
	pd_lock(&out->lock);
	if (in->up && out->up)
		n = forward(r);
	pd_unlock(&out->lock);
	pd_unlock(&in->lock);
	return n;
}

/* --- tx -------------------------------------------------------------------------------------- */

/* Check packet `n`, of which `packet` is what was received. */
static void check(struct ev_role *r, const struct pd_buffer *b, const uint8_t *packet, uint64_t n)
{
	const uint8_t *sidecar = b->flags & PD_BUFFER_SIDECAR ? b->sidecar : NULL;
	bool avip = r->o->dialect == EV_DIALECT_AVIP;

	if (pd_unlikely(r->place))
		ev_nf_place_check(r->place, &r->patterns, &r->told->tally, n, packet, b->total_len,
				  avip ? sidecar : NULL);
	else
		ev_packet_check(&r->patterns, &r->told->tally, n, packet, b->total_len);
	if (avip && (!sidecar || (!r->place && !ev_is_number(sidecar + EV_SIDECAR_NUMBER_AT, n))))
		ev_tally_add(&r->told->tally, &r->told->tally.metadata, n);
}

/*
 * Consume `n` packets from number `first` on, at most COPIES. All are copied before any is looked
 * at: the core would wait for each copy to be stored.
 */
static void consume(struct ev_role *r, struct pd_buffer *const *bufs, uint64_t first, unsigned n)
{
	const uint8_t *packets[COPIES];

	for (unsigned i = 0; i < n; i++) {
		const struct pd_buffer *b = bufs[i];
		uint8_t *copy = r->copies + i * r->patterns.stride;

		packets[i] = copy;
		if (pd_unlikely(b->next != PD_BUFFER_NONE))
			pd_buffer_copy_out(b, 0, copy, r->patterns.stride);
		else if (r->o->copy_tx)
			pd_copy(copy, b->data, pd_min(b->total_len, r->patterns.stride));
		else
			packets[i] = b->data;
	}
	for (unsigned i = 0; r->o->check && i < n; i++)
		check(r, bufs[i], packets[i], first + i);
}

/* Consume up to a batch. */
static unsigned step_tx(struct ev_role *r)
{
	struct pd_lane_side *side = &r->in_lane->side[PD_RX];
	struct pd_buffer *bufs[EV_VHOST_BATCH_MAX];
	int n = 0;

	pd_lock(&side->lock);
	if (side->up)
		n = r->in_lane->ops->rx(r->in_lane, bufs, ev_wanted(r));
	for (int i = 0; i < n; i += COPIES)
		consume(r, bufs + i, r->n + (unsigned)i, (unsigned)pd_min(n - i, COPIES));
	if (n > 0)
		r->in_lane->ops->rx_done(r->in_lane, (unsigned)n);
	pd_unlock(&side->lock);
	if (n > 0 && r->stamps)
		ev_stamp_read(r, r->n, (unsigned)n);
	return n > 0 ? (unsigned)n : 0;
}

/* --- ports ----------------------------------------------------------------------------------- */

static struct pd_config *config;

/* Add the port of one end of a hop to the configuration: its socket is FOLDER/NAME. */
static int add_port(const struct ev_options *o, bool at_nf, const char *folder, const char *name)
{
	struct pd_port_config *pc = &config->ports[config->port_count];
	bool driver = at_nf == (o->nf_side == EV_NF_DRIVER);
	int n = snprintf(pc->path, sizeof(pc->path), "%s/%s", folder, name);

	if (n >= (int)sizeof(pc->path))
		return -ENAMETOOLONG;
	snprintf(pc->name, sizeof(pc->name), "%s%u", at_nf ? "nf" : "host", config->port_count);
	snprintf(pc->transport, sizeof(pc->transport), "vhost-user");
	pc->mode = at_nf ? PD_CONF_MODE_LISTEN : PD_CONF_MODE_CONNECT;
	pc->role = driver ? PD_CONF_FRONTEND : PD_CONF_BACKEND;
	pc->dialect = o->dialect == EV_DIALECT_AVIP ? PD_CONF_DIALECT_AVIP : PD_CONF_DIALECT_VIRTIO;
	pc->format = o->mode == EV_MODE_PACKED ? PD_CONF_FORMAT_PACKED : PD_CONF_FORMAT_SPLIT;
	pc->mac[0] = 2;
	pc->mac[5] = (uint8_t)config->port_count;
	pc->mtu = (uint32_t)pd_max(o->size, 1514ull) - PD_FRAME_MIN_BYTES;
	pc->queues = 1;
	pc->ring = (uint32_t)o->ring;
	pc->mergeable = o->mergeable;
	pc->in_order = true;
	return (int)config->port_count++;
}

/* Add the ports of a role and note which they are. Returns 0 or -errno. */
static int add_ports(const struct ev_role *r, const char *folder, int at[2])
{
	at[0] = at[1] = -1;
	if (r->id != EV_TX)
		at[0] = add_port(r->o, r->id == EV_NF, folder, "rx");
	if (r->id != EV_RX)
		at[1] = add_port(r->o, r->id == EV_NF, folder, "tx");
	return r->id != EV_TX && at[0] < 0 ? at[0] : r->id != EV_RX && at[1] < 0 ? at[1] : 0;
}

/* The buffers of rx, each with the pattern of its numbers. Returns 0 or -errno. */
static int make_buffers(struct ev_role *r)
{
	uint32_t indices[FRAMES];
	struct pd_buffer_pool *pool;
	int err;

	pool = pd_buffer_pool_create("eval", FRAMES, r->patterns.size, &err);
	if (!pool)
		return err;
	r->buffers = calloc(FRAMES, sizeof(struct pd_buffer *));
	if (!r->buffers || pd_buffer_alloc(pool, indices, FRAMES) != FRAMES)
		return -ENOMEM;
	for (unsigned i = 0; i < FRAMES; i++) {
		struct pd_buffer *b = r->buffers[i] = pd_buffer_get(indices[i]);

		b->len = b->total_len = r->patterns.size;
		b->flags = PD_BUFFER_SIDECAR;
		memcpy(b->data, ev_packet_make(&r->patterns, i), r->patterns.size);
		memset(b->sidecar, 0, sizeof(b->sidecar));
	}
	return 0;
}

/* What a role needs besides its lanes. Returns 0 or -errno. */
static int prepare(struct ev_role *r)
{
	static const ev_step steps[EV_ROLES] = {step_rx, step_nf, step_tx};
	int err = ev_role_prepare(r, steps[r->id], 0);

	if (err)
		return err;
	if (r->id == EV_RX)
		return make_buffers(r);
	r->copies = r->id == EV_TX ? aligned_alloc(64, (size_t)r->patterns.stride * COPIES) : NULL;
	return r->id == EV_TX && !r->copies ? -ENOMEM : 0;
}

int ev_vhost_open(struct ev_role *const *roles, unsigned n, const char *folder)
{
	int err = 0, at[EV_ROLES][2];

	config = pd_config_new();
	if (!config)
		return -ENOMEM;
	for (unsigned i = 0; !err && i < n; i++) {
		err = prepare(roles[i]);
		if (!err)
			err = add_ports(roles[i], folder, at[i]);
	}
	if (!err)
		err = pd_ports_init(config);
	for (unsigned i = 0; !err && i < config->port_count; i++)
		err = pd_port_open(&pd_ports[i]);
	for (unsigned i = 0; !err && i < n; i++) {
		struct ev_role *r = roles[i];
		/* rx sends by the first hop; nf receives there; tx and nf have the second. */
		struct pd_lane *first = at[i][0] < 0 ? NULL : pd_ports[at[i][0]].lanes[0],
			       *second = at[i][1] < 0 ? NULL : pd_ports[at[i][1]].lanes[0];

		r->in_lane = r->id == EV_TX ? second : r->id == EV_NF ? first : NULL;
		r->out_lane = r->id == EV_RX ? first : r->id == EV_NF ? second : NULL;
	}
	if (err)
		snprintf(roles[0]->told->error, sizeof(roles[0]->told->error),
			 "the ports do not open: %s", pd_strerror(err));
	return err;
}

/* Whether one side is up. */
static bool side_up(struct pd_lane *lane, enum pd_dir dir)
{
	bool up;

	if (!lane)
		return true;
	pd_lock(&lane->side[dir].lock);
	up = lane->side[dir].up;
	pd_unlock(&lane->side[dir].lock);
	return up;
}

bool ev_vhost_up(struct ev_role *r)
{
	return side_up(r->in_lane, PD_RX) && side_up(r->out_lane, PD_TX);
}

void ev_vhost_close(void)
{
	pd_ports_close_all();
	pd_progress_stop();
}
