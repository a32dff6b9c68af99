/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes: sending, receiving, checking, sleeping. Each call holds the lock of one side for one
 * batch; reflecting holds both, receive before transmit.
 */
#include "io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "metadata/render.h"
#include "wait/wait.h"

/* Control messages of one port that are printed; the rest is counted. */
#define CONTROL_LINES 32

/* Keep a sentence about a discrepancy, if there is room for it. */
static void PD_PRINTF(2, 3) PD_COLD remark(struct vlm *v, const char *fmt, ...)
{
	va_list ap;

	if (v->n_remarks == VLM_REMARKS)
		return;
	va_start(ap, fmt);
	vsnprintf(v->remarks[v->n_remarks++], sizeof(v->remarks[0]), fmt, ap);
	va_end(ap);
}

/* --- sending ------------------------------------------------------------------------------- */

/*
 * The link is not the one that this lane was last used on: the first, or another peer's. Side
 * locked.
 */
static void on_link(struct vlm *v, struct vlm_port *vp, struct vlm_lane *vl)
{
	if (vl->link) {
		vlm_flow_restarted(&vl->flow, pd_clock_ns());
		if (vl->lane->queue == 0)
			vp->counts.restarts++;
	}
	vl->link = vl->lane->side[PD_TX].link;
	if (vl->lane->queue == 0 && !v->options->no_control)
		vp->controls_due = 1 + v->options->n_controls;
}

/* Make message `i` of the set in `b`. */
static void make_control(const struct vlm *v, const struct vlm_port *vp, unsigned i,
			 struct pd_buffer *b)
{
	const struct vlm_options *o = v->options;
	struct pd_sidecar *s = (struct pd_sidecar *)b->sidecar;

	if (i)
		*s = o->controls[i - 1];
	else
		pd_control_build_port_id(s, o->chassis_ip, o->card,
					 (uint16_t)(o->first_port + vp->number),
					 (uint8_t)vp->n_lanes);
	b->len = b->total_len = 0;
	b->flags = PD_BUFFER_SIDECAR | PD_BUFFER_CONTROL;
}

/* Send the control messages that are due. Side locked and up. Returns whether one went out. */
static bool send_controls(struct vlm *v, struct vlm_port *vp, struct vlm_lane *vl)
{
	unsigned set = 1 + v->options->n_controls, first = set - vp->controls_due;
	uint32_t position = vl->lane->ops->position(vl->lane, PD_TX);
	int n;

	for (unsigned i = first; i < set; i++)
		make_control(v, vp, i, v->tx_bufs[i]);
	n = vl->lane->ops->tx(vl->lane, v->tx_bufs + first, set - first);
	vl->lane->ops->tx_flush(vl->lane);
	if (n <= 0) {
		vl->blocked = n == 0;
		vl->seen = position;
		return false;
	}
	vp->controls_due -= (unsigned)n;
	vp->counts.control_sent += (unsigned)n;
	if (!vp->controls_due)
		vp->control_at = v->options->control_every ? vp->sent + v->options->control_every
							   : UINT64_MAX;
	return true;
}

/* How many frames this lane may send now. */
static unsigned allowance(const struct vlm *v, const struct vlm_port *vp, struct vlm_lane *vl,
			  uint64_t now)
{
	const struct vlm_options *o = v->options;
	uint64_t n = pd_min(vp->left, (uint64_t)o->batch);

	if (o->expect != VLM_EXPECT_SINK) {
		vlm_flow_make_room(&vl->flow);
		n = pd_min(n, vlm_flow_room(&vl->flow, o->window));
	}
	if (o->rate) {
		double due = (double)(now - v->start_ns) * (double)o->rate / 1e9 + 1;

		n = due > (double)vp->sent ? pd_min(n, (uint64_t)due - vp->sent) : 0;
	}
	if (vp->control_at != UINT64_MAX)
		n = pd_min(n, vp->control_at - vp->sent);
	return (unsigned)n;
}

/* Make the next `n` frames of the lane. */
static void make_frames(struct vlm *v, const struct vlm_port *vp, const struct vlm_lane *vl,
			unsigned n)
{
	struct vlm_name name = {.port = (uint16_t)vp->number, .queue = vl->lane->queue};

	for (unsigned i = 0; i < n; i++) {
		struct pd_buffer *b = v->tx_bufs[i];

		name.number = vl->flow.next + i;
		b->len = b->total_len = vlm_frame_make(&v->options->plan, &name, b->data);
		b->flags = PD_BUFFER_SIDECAR;
		vlm_sidecar_make(&v->options->plan, &name, (struct pd_sidecar *)b->sidecar);
	}
}

/* Account for frames that the ring took. */
static void account_sent(struct vlm *v, struct vlm_port *vp, struct vlm_lane *vl, unsigned n,
			 uint64_t at_ns)
{
	if (v->options->expect == VLM_EXPECT_SINK) {
		vl->flow.base = vl->flow.next += n; /* nothing is awaited */
		vl->flow.counts.sent += n;
		v->end_ns = at_ns;
	} else {
		vlm_flow_sent(&vl->flow, n, at_ns);
	}
	for (unsigned i = 0; i < n; i++)
		vp->counts.sent_bytes += v->tx_bufs[i]->total_len;
	vp->sent += n;
	if (vp->left != UINT64_MAX)
		vp->left -= n;
	if (vp->sent >= vp->control_at)
		vp->controls_due = 1 + v->options->n_controls;
}

/* Send frames. Side locked and up. Returns whether one went out. */
static bool send_frames(struct vlm *v, struct vlm_port *vp, struct vlm_lane *vl, uint64_t now)
{
	const struct pd_lane_ops *ops = vl->lane->ops;
	uint32_t position = ops->position(vl->lane, PD_TX);
	uint32_t room = position - vl->lane->side[PD_TX].cursor;
	unsigned want = allowance(v, vp, vl, now), n = pd_min(want, room);
	uint64_t at_ns;
	int taken;

	vl->blocked = want > n;
	vl->seen = position;
	if (!n) {
		vp->counts.ring_full += vl->blocked;
		return false;
	}
	make_frames(v, vp, vl, n);
	at_ns = pd_clock_ns();
	taken = ops->tx(vl->lane, v->tx_bufs, n);
	ops->tx_flush(vl->lane);
	if (taken == -EMSGSIZE)
		snprintf(v->failure, sizeof(v->failure),
			 "port %u: the ring cannot take a frame of %u bytes", vp->number,
			 v->tx_bufs[0]->total_len);
	vl->blocked |= taken >= 0 && taken < (int)n;
	if (taken <= 0)
		return false;
	account_sent(v, vp, vl, (unsigned)taken, at_ns);
	return true;
}

bool vlm_lane_send(struct vlm *v, struct vlm_port *vp, unsigned q, uint64_t now)
{
	struct vlm_lane *vl = &vp->lanes[q];
	struct pd_lane_side *side = &vl->lane->side[PD_TX];
	bool sent = false;

	pd_lock(&side->lock);
	vl->blocked = false;
	if (side->up) {
		if (pd_unlikely(vl->link != side->link))
			on_link(v, vp, vl);
		if (pd_unlikely(vp->controls_due && q == 0))
			sent = send_controls(v, vp, vl);
		if (v->sending && vp->left && !vp->controls_due)
			sent |= send_frames(v, vp, vl, now);
	}
	pd_unlock(&side->lock);
	return sent;
}

/* --- checking ------------------------------------------------------------------------------ */

/* Keep what a control message says, and print it. */
static void on_control(struct vlm *v, struct vlm_port *vp, const struct pd_sidecar *s)
{
	struct pd_control *h = &vp->heard, c;
	char words[PD_RENDER_BYTES];

	vp->counts.control_received++;
	if (pd_control_parse(s, &c))
		return;
	h->flags |= c.flags;
	if (c.flags & PALLADIUM_LINE_SPEED)
		h->line_speed = c.line_speed;
	if (c.flags & PALLADIUM_PORT_NAME)
		memcpy(h->port_name, c.port_name, sizeof(h->port_name));
	if (c.flags & PALLADIUM_TX_DURATION) {
		h->tx_first_ts = c.tx_first_ts;
		h->tx_last_ts = c.tx_last_ts;
	}
	if (c.flags & PALLADIUM_ET)
		h->emulator_time = c.emulator_time;
	if (c.queues)
		h->queues = c.queues;
	if (v->options->quiet || vp->control_lines == CONTROL_LINES)
		return;
	vp->control_lines++;
	pd_sidecar_render(s, PD_RENDER_JSON, NULL, words, sizeof(words));
	fprintf(stderr, "palladium_vlm: port %u: control message %s\n", vp->number, words);
	if (vp->control_lines == CONTROL_LINES)
		fprintf(stderr,
			"palladium_vlm: port %u: further control messages are counted only\n",
			vp->number);
}

/*
 * Compare the sidecar of frame `name` with what --expect says. Returns the offset of a difference.
 */
static uint32_t check_sidecar(const struct vlm *v, const struct vlm_name *name,
			      const struct pd_sidecar *got)
{
	static const struct pd_sidecar zeroes;
	struct pd_sidecar sent;

	switch (v->options->expect) {
	case VLM_EXPECT_ZEROED:
		return vlm_sidecar_compare(got, &zeroes);
	case VLM_EXPECT_ECHO:
		vlm_sidecar_make(&v->options->plan, name, &sent);
		return vlm_sidecar_compare(got, &sent);
	default:
		return VLM_NO_DIFFERENCE;
	}
}

/* Check the content of frame `name`, which came back as `b`, its bytes at `bytes`. */
static void check_content(struct vlm *v, struct vlm_port *vp, const struct vlm_name *name,
			  const struct pd_buffer *b, const uint8_t *bytes)
{
	const struct vlm_options *o = v->options;
	uint32_t expected = vlm_frame_bytes(&o->plan, name), at;

	if (o->check == VLM_CHECK_NONE)
		return;
	if (pd_unlikely(b->total_len != expected)) {
		vp->counts.altered_length++;
		remark(v, "port %u queue %u frame %" PRIu64 ": %u bytes, expected %u", name->port,
		       name->queue, name->number, b->total_len, expected);
	}
	at = vlm_frame_compare(&o->plan, name, bytes, b->total_len, o->check == VLM_CHECK_HEADER);
	if (pd_unlikely(at != VLM_NO_DIFFERENCE)) {
		vp->counts.altered_bytes++;
		remark(v,
		       "port %u queue %u frame %" PRIu64
		       " of %u bytes: byte %u is 0x%02x, not as sent",
		       name->port, name->queue, name->number, expected, at, bytes[at]);
	}
	at = check_sidecar(v, name, (const struct pd_sidecar *)b->sidecar);
	if (pd_unlikely(at != VLM_NO_DIFFERENCE)) {
		vp->counts.altered_sidecar++;
		remark(v,
		       "port %u queue %u frame %" PRIu64 ": byte %u of the sidecar is 0x%02x, %s",
		       name->port, name->queue, name->number, at, b->sidecar[at],
		       o->expect == VLM_EXPECT_ECHO ? "not as sent" : "not zero");
	}
}

/* Check the queue that a frame came by. */
static void check_queue(struct vlm *v, struct vlm_port *vp, const struct vlm_name *name,
			unsigned queue)
{
	unsigned pfc = vlm_sidecar_pfc(&v->options->plan, name);
	unsigned expected = pfc % pd_min(vp->n_lanes, (unsigned)MAX_PFC_QUEUES);

	if (pd_likely(!v->options->require_queue || queue == expected))
		return;
	vp->counts.wrong_queue++;
	remark(v,
	       "port %u queue %u frame %" PRIu64 ": came back by queue %u, but its priority is %u",
	       name->port, name->queue, name->number, queue, pfc);
}

/* A frame of ours came back by `queue`. `now`: when it was seen. */
static void on_returned(struct vlm *v, const struct vlm_name *name, const struct pd_buffer *b,
			const uint8_t *bytes, unsigned queue, uint64_t now)
{
	struct vlm_port *vp = &v->ports[name->port];
	uint64_t sent_ns = 0;

	if (v->options->expect == VLM_EXPECT_SINK) {
		vp->counts.unexpected++;
		return;
	}
	switch (vlm_flow_returned(&vp->lanes[name->queue].flow, name->number, &sent_ns)) {
	case VLM_FLOW_REORDERED:
		remark(v, "port %u queue %u frame %" PRIu64 ": came back after a later one",
		       name->port, name->queue, name->number);
		break;
	case VLM_FLOW_DUPLICATED:
		remark(v, "port %u queue %u frame %" PRIu64 ": came back twice, or after %g s",
		       name->port, name->queue, name->number, v->options->loss_s);
		break;
	case VLM_FLOW_INVENTED:
		remark(v, "port %u queue %u frame %" PRIu64 ": came, but was not sent yet",
		       name->port, name->queue, name->number);
		return; /* there is nothing to compare it with */
	case VLM_FLOW_OK:
	case VLM_FLOW_REPEATED:
		break;
	}
	if (sent_ns)
		tool_hist_add(&v->latency, now - sent_ns);
	vp->counts.returned_bytes += b->total_len;
	v->end_ns = now;
	check_queue(v, vp, name, queue);
	check_content(v, vp, name, b, bytes);
}

/* Send a frame that is not ours back. Receive side locked. Returns false when there is no room. */
static bool reflect(struct vlm_port *vp, struct vlm_lane *vl, struct pd_buffer *b)
{
	struct pd_lane_side *side = &vl->lane->side[PD_TX];
	int n = 0;

	pd_lock(&side->lock);
	if (side->up) {
		vl->seen = vl->lane->ops->position(vl->lane, PD_TX);
		n = vl->lane->ops->tx(vl->lane, &b, 1);
		vl->lane->ops->tx_flush(vl->lane);
	}
	pd_unlock(&side->lock);
	vp->counts.reflected += n == 1;
	vl->blocked |= n == 0;
	return n;
}

/*
 * Look at one frame. Receive side locked. Returns false when it must be shown again later.
 */
static bool on_frame(struct vlm *v, struct vlm_port *vp, struct vlm_lane *vl, struct pd_buffer *b,
		     uint64_t now)
{
	const struct pd_sidecar *s = (const struct pd_sidecar *)b->sidecar;
	const uint8_t *bytes = b->data;
	struct vlm_name name;

	if (v->options->dialect == PD_DIALECT_AVIP && pd_sidecar_is_control(s)) {
		on_control(v, vp, s);
		return true;
	}
	if (pd_unlikely(b->next != PD_BUFFER_NONE)) {
		pd_buffer_copy_out(b, 0, v->scratch, PD_FRAME_MAX_BYTES);
		bytes = v->scratch;
	}
	if (pd_likely(vlm_frame_identify(&v->options->plan, bytes, b->total_len, &name) &&
		      name.port < v->n_ports && name.queue < v->options->queues)) {
		vl->came++;
		on_returned(v, &name, b, bytes, vl->lane->queue, now);
		return true;
	}
	if (v->options->reflect && !reflect(vp, vl, b))
		return false;
	vp->counts.foreign++;
	return true;
}

bool vlm_lane_receive(struct vlm *v, struct vlm_port *vp, unsigned q)
{
	struct vlm_lane *vl = &vp->lanes[q];
	struct pd_lane_side *side = &vl->lane->side[PD_RX];
	struct pd_buffer *bufs[PD_VECTOR_MAX];
	int n = 0, done = 0;

	pd_lock(&side->lock);
	if (side->up)
		n = vl->lane->ops->rx(vl->lane, bufs, PD_VECTOR_MAX);
	if (n > 0) {
		uint64_t now = pd_clock_ns();

		while (done < n && on_frame(v, vp, vl, bufs[done], now))
			done++;
		vl->lane->ops->rx_done(vl->lane, (unsigned)done);
	}
	vl->stalled = done < n;
	pd_unlock(&side->lock);
	return done > 0;
}

/* --- sleeping ------------------------------------------------------------------------------ */

uint32_t vlm_not_taken(const struct vlm *v, struct vlm_lane *vl)
{
	struct pd_lane_side *side = &vl->lane->side[PD_TX];
	uint32_t room;

	pd_lock(&side->lock);
	room = side->up ? pd_lane_ready(vl->lane, PD_TX) : v->options->ring;
	pd_unlock(&side->lock);
	return room < v->options->ring ? v->options->ring - room : 0;
}

/* Note what would give a side something to do. Returns false when it has that already. */
static bool note_side(const struct vlm *v, struct vlm_lane *vl, enum pd_dir dir,
		      struct pd_wait_set *ws)
{
	struct pd_lane_side *side = &vl->lane->side[dir];
	bool may_sleep = true;

	if (dir == PD_RX && vl->stalled)
		return true; /* it waits for room */
	pd_lock(&side->lock);
	if (dir == PD_RX || !side->up) {
		pd_wait_add_lane(ws, vl->lane, dir, side->cursor);
	} else if (vl->link != side->link) {
		may_sleep = false;
	} else if (vl->blocked) {
		pd_wait_add_lane(ws, vl->lane, dir, vl->seen);
	} else if (!v->sending && v->options->expect == VLM_EXPECT_SINK) {
		/* At the end it is news that the peer took something. */
		pd_wait_add_lane(ws, vl->lane, dir, vl->lane->ops->position(vl->lane, PD_TX));
	}
	pd_unlock(&side->lock);
	return may_sleep;
}

void vlm_sleep(struct vlm *v, uint64_t until_ns)
{
	struct pd_wait_set *ws = pd_wait_begin();
	bool may_sleep = true;

	for (unsigned i = 0; may_sleep && i < v->n_ports; i++)
		for (unsigned q = 0; may_sleep && q < v->ports[i].n_lanes; q++)
			for (int dir = 0; may_sleep && dir < PD_DIRS; dir++)
				may_sleep = note_side(v, &v->ports[i].lanes[q], dir, ws);
	if (may_sleep)
		pd_wait_sleep(ws, until_ns, NULL);
}
