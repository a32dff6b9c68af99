/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker: turns over all lanes, sends what may be sent, checks what came, spins for a while
 * when there is nothing, then sleeps until a lane rings.
 *
 * Latency is taken from before a batch is handed to the ring until the call that shows the returned
 * frame is back; with a window of one that is the round trip of one frame. Contents are made before
 * and compared after.
 */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "io.h"
#include "vlib/progress.h"

#define TICK_NS (20 * PD_NS_PER_MS) /* the longest sleep, and how often overdue frames are sought */
#define LINGER_NS (20 * PD_NS_PER_MS) /* at the end, for what should not come any more */

/*
 * No turn takes so long, nor a sleep: between two looks at the clock that are further apart the
 * worker did not run (SIGSTOP, a debugger).
 */
#define STOPPED_NS (10 * TICK_NS)

static volatile int stops;

void vlm_stop(void)
{
	stops++;
}

struct vlm_flow_counts vlm_port_flows(const struct vlm_port *vp)
{
	struct vlm_flow_counts sum = {0};

	for (unsigned q = 0; q < vp->n_lanes; q++)
		vlm_flow_counts_add(&sum, &vp->lanes[q].flow.counts);
	return sum;
}

/* --- opening and closing ------------------------------------------------------------------- */

/* Configure port `i` in `pc`. Returns 0, or -ENAMETOOLONG having said so. */
static int configure_port(const struct vlm_options *o, unsigned i, struct pd_port_config *pc)
{
	const char *d = strstr(o->path, "%d");
	uint32_t longest = o->plan.size_kind == VLM_SIZE_IMIX ? 1514 : o->plan.size_high;
	int n;

	snprintf(pc->name, sizeof(pc->name), "vlm%u", i);
	snprintf(pc->transport, sizeof(pc->transport), "vhost-user");
	if (d)
		n = snprintf(pc->path, sizeof(pc->path), "%.*s%u%s", (int)(d - o->path), o->path, i,
			     d + 2);
	else
		n = snprintf(pc->path, sizeof(pc->path), "%s", o->path);
	if (n >= (int)sizeof(pc->path)) {
		fprintf(stderr,
			"palladium_vlm: the path of port %u is longer than %zu characters\n", i,
			sizeof(pc->path) - 1);
		return -ENAMETOOLONG;
	}
	pc->mode = o->listens ? PD_CONF_MODE_LISTEN : PD_CONF_MODE_CONNECT;
	pc->role = PD_CONF_FRONTEND;
	pc->dialect = o->dialect == PD_DIALECT_AVIP ? PD_CONF_DIALECT_AVIP : PD_CONF_DIALECT_VIRTIO;
	memcpy(pc->mac, o->plan.source, sizeof(pc->mac));
	pc->mac[4] = (uint8_t)i;
	/* The MTU sets the size of the buffers: the peer may send us as long frames as we send. */
	pc->mtu = pd_max(longest, 1514u) - 14;
	pc->queues = o->queues;
	pc->ring = o->ring;
	pc->format = o->format;
	pc->mergeable = !o->single;
	pc->in_order = !o->any_order;
	return 0;
}

/* Make what the worker needs besides ports. Returns 0 or -errno. */
static int make_room(struct vlm *v)
{
	uint32_t indices[VLM_BATCH_MAX];
	struct pd_buffer_pool *pool;
	int err = 0;

	pool = pd_buffer_pool_create("vlm", VLM_BATCH_MAX, VLM_FRAME_MAX, &err);
	if (!pool)
		return err;
	if (pd_buffer_alloc(pool, indices, VLM_BATCH_MAX) != VLM_BATCH_MAX)
		return -ENOMEM;
	for (unsigned i = 0; i < VLM_BATCH_MAX; i++)
		v->tx_bufs[i] = pd_buffer_get(indices[i]);
	v->scratch = malloc(PD_FRAME_MAX_BYTES);
	v->ports = calloc(v->n_ports, sizeof(*v->ports));
	v->config = calloc(1, sizeof(*v->config));
	return v->scratch && v->ports && v->config ? 0 : -ENOMEM;
}

/* Open port `i`. Returns 0 or -errno. */
static int open_port(struct vlm *v, unsigned i)
{
	const struct vlm_options *o = v->options;
	struct vlm_port *vp = &v->ports[i];
	int err = pd_port_open(&pd_ports[i]);

	if (err)
		return err;
	vp->port = &pd_ports[i];
	vp->number = i;
	vp->n_lanes = vp->port->n_lanes;
	vp->left = o->frames;
	vp->control_at = UINT64_MAX;
	vp->down_since_ns = pd_clock_ns();
	for (unsigned q = 0; q < vp->n_lanes; q++) {
		struct vlm_lane *vl = &vp->lanes[q];

		vl->lane = vp->port->lanes[q];
		err = vlm_flow_init(&vl->flow, o->window);
		if (err)
			return err;
	}
	return 0;
}

int vlm_open(struct vlm *v, const struct vlm_options *options)
{
	int err;

	*v = (struct vlm){.options = options, .n_ports = options->ports, .stop_ns = UINT64_MAX};
	err = make_room(v);
	for (unsigned i = 0; !err && i < v->n_ports; i++)
		err = configure_port(options, i, &v->config->ports[i]);
	if (!err) {
		v->config->port_count = v->n_ports;
		err = pd_ports_init(v->config);
	}
	for (unsigned i = 0; !err && i < v->n_ports; i++)
		err = open_port(v, i);
	if (err)
		fprintf(stderr, "palladium_vlm: cannot open the ports: %s\n", pd_strerror(err));
	v->opened_ns = v->progress_ns = pd_clock_ns();
	return err;
}

void vlm_close(struct vlm *v)
{
	uint32_t indices[VLM_BATCH_MAX];

	pd_ports_close_all();
	pd_progress_stop();
	if (v->tx_bufs[0]) {
		for (unsigned i = 0; i < VLM_BATCH_MAX; i++)
			indices[i] = v->tx_bufs[i]->index;
		pd_buffer_free(indices, VLM_BATCH_MAX);
	}
	for (unsigned i = 0; v->ports && i < v->n_ports; i++)
		for (unsigned q = 0; q < v->ports[i].n_lanes; q++)
			vlm_flow_fini(&v->ports[i].lanes[q].flow);
	free(v->scratch);
}

/* --- when to stop -------------------------------------------------------------------------- */

/* True when nothing that was sent is awaited any more. */
static bool settled(const struct vlm *v)
{
	for (unsigned i = 0; i < v->n_ports; i++)
		for (unsigned q = 0; q < v->ports[i].n_lanes; q++) {
			struct vlm_lane *vl = &v->ports[i].lanes[q];

			if (vl->flow.outstanding)
				return false;
			if (v->options->expect == VLM_EXPECT_SINK && vl->link &&
			    vlm_not_taken(v, vl))
				return false;
		}
	return true;
}

/* True when there is nothing left to send. */
static bool all_sent(const struct vlm *v)
{
	for (unsigned i = 0; i < v->n_ports; i++)
		if (v->ports[i].left)
			return false;
	return true;
}

/* Begin when every port is up: see to the link of each. Returns whether all are up. */
static bool look_at_links(struct vlm *v, uint64_t now)
{
	bool all = true;

	for (unsigned i = 0; i < v->n_ports; i++) {
		struct vlm_port *vp = &v->ports[i];

		if (pd_load_acquire(&vp->port->state) == PD_PORT_UP) {
			vp->down_since_ns = 0;
			continue;
		}
		all = false;
		if (!vp->down_since_ns)
			vp->down_since_ns = now;
		if ((double)(now - vp->down_since_ns) > v->options->timeout_s * 1e9 && !*v->failure)
			snprintf(v->failure, sizeof(v->failure),
				 "port %u: no peer %s %s for %g s (--timeout)%s", i,
				 v->options->listens ? "connected to" : "was to be had at",
				 vp->port->config->path, v->options->timeout_s,
				 vp->counts.restarts || vp->sent ? "; there was one before" : "");
	}
	return all;
}

/* Overdue frames are lost; in sink mode the peer must have taken something. */
static void expire(struct vlm *v, uint64_t now)
{
	uint64_t loss_ns = (uint64_t)(v->options->loss_s * 1e9);

	for (unsigned i = 0; now > loss_ns && i < v->n_ports; i++)
		/* Without a peer the clock stands still: its successor begins anew. */
		for (unsigned q = 0; !v->ports[i].down_since_ns && q < v->ports[i].n_lanes; q++)
			vlm_flow_expire(&v->ports[i].lanes[q].flow, now - loss_ns);
}

/* Tell how it goes: to a terminal every second, else every ten. */
static void progress(struct vlm *v, uint64_t now)
{
	static int seconds;
	struct vlm_flow_counts sum = {0};
	double rate;

	if (!seconds)
		seconds = isatty(STDERR_FILENO) ? 1 : 10;
	if (v->options->quiet || now - v->progress_ns < (uint64_t)seconds * PD_NS_PER_SEC)
		return;
	for (unsigned i = 0; i < v->n_ports; i++) {
		struct vlm_flow_counts one = vlm_port_flows(&v->ports[i]);

		vlm_flow_counts_add(&sum, &one);
	}
	if (v->options->expect == VLM_EXPECT_SINK)
		sum.returned = sum.sent;
	rate = (double)(sum.returned - v->progress_returned) * 1e9 / (double)(now - v->progress_ns);
	if (!v->start_ns)
		fprintf(stderr, "palladium_vlm: %.0f s: waiting for the peer\n",
			(double)(now - v->opened_ns) / 1e9);
	else
		fprintf(stderr,
			"palladium_vlm: %.0f s: %" PRIu64 " sent, %" PRIu64 " returned, %" PRIu64
			" lost; %.0f frames/s\n",
			(double)(now - v->start_ns) / 1e9, sum.sent, sum.returned,
			sum.lost + sum.restart_lost, rate);
	v->progress_ns = now;
	v->progress_returned = sum.returned;
}

/* What is looked at now and then. Returns false when the run is over. */
static bool tick(struct vlm *v, uint64_t now)
{
	const struct vlm_options *o = v->options;
	bool up = look_at_links(v, now);

	if (up && !v->start_ns) {
		v->start_ns = now;
		if (o->duration_s)
			v->stop_ns = now + (uint64_t)(o->duration_s * 1e9);
		v->sending = true;
		if (!o->quiet)
			fprintf(stderr, "palladium_vlm: %s up, sending\n",
				v->n_ports > 1 ? "all ports are" : "the port is");
	}
	if (stops) {
		v->sending = false;
		v->interrupted = true;
	}
	expire(v, now);
	progress(v, now);
	return !*v->failure && stops < 2 && (v->start_ns || !stops);
}

/* --- the loop ------------------------------------------------------------------------------ */

/* One turn over all lanes. Returns whether anything moved. */
static bool turn(struct vlm *v, uint64_t now)
{
	bool moved = false;

	for (unsigned i = 0; i < v->n_ports; i++) {
		struct vlm_port *vp = &v->ports[i];

		for (unsigned q = 0; q < vp->n_lanes; q++) {
			moved |= vlm_lane_send(v, vp, q, now);
			moved |= vlm_lane_receive(v, vp, q);
		}
	}
	return moved;
}

/* When the worker must look again though no lane rings: the next frame is due, or the next tick. */
static uint64_t next_look(const struct vlm *v, uint64_t tick_ns)
{
	uint64_t look = tick_ns + TICK_NS, rate = v->options->rate;

	for (unsigned i = 0; rate && v->sending && i < v->n_ports; i++) {
		const struct vlm_port *vp = &v->ports[i];
		uint64_t due = v->start_ns + (uint64_t)((double)vp->sent * 1e9 / (double)rate) + 1;

		/* One that is overdue waits for something else than the clock. */
		if (vp->left && due > pd_clock_ns())
			look = pd_min(look, due);
	}
	return look;
}

/* At the end: what comes now is one too many. */
static void linger(struct vlm *v)
{
	uint64_t now = pd_clock_ns(), until = now + LINGER_NS;

	v->sending = false;
	while (!*v->failure && now < until) {
		if (!turn(v, now))
			vlm_sleep(v, until);
		now = pd_clock_ns();
	}
	for (unsigned i = 0; i < v->n_ports; i++)
		for (unsigned q = 0; q < v->ports[i].n_lanes; q++) {
			struct vlm_lane *vl = &v->ports[i].lanes[q];

			if (v->options->expect == VLM_EXPECT_SINK && vl->link)
				v->ports[i].counts.not_taken += vlm_not_taken(v, vl);
			else /* interrupted or failed: whatever is still out is lost */
				vlm_flow_expire(&vl->flow, UINT64_MAX);
		}
}

/*
 * The worker did not run for the last `ns`: what came meanwhile is not late, and nobody was away
 * all that time.
 */
static void skip(struct vlm *v, uint64_t ns)
{
	for (unsigned i = 0; i < v->n_ports; i++) {
		if (v->ports[i].down_since_ns)
			v->ports[i].down_since_ns += ns;
		for (unsigned q = 0; q < v->ports[i].n_lanes; q++)
			vlm_flow_skip(&v->ports[i].lanes[q].flow, ns);
	}
}

void vlm_run(struct vlm *v)
{
	uint64_t spin_ns = (uint64_t)v->options->spin_us * 1000;
	uint64_t now = pd_clock_ns(), moved_ns = now, tick_ns = now, before;

	for (;;) {
		if (turn(v, now)) {
			moved_ns = now;
		} else {
			if (v->start_ns && (!v->sending || (all_sent(v) && !v->options->reflect))) {
				/*
				 * A sink that takes nothing for so long does not take it any more.
				 */
				bool gave_up = v->options->expect == VLM_EXPECT_SINK &&
					       (double)(now - moved_ns) > v->options->loss_s * 1e9;

				if (gave_up || settled(v))
					break;
			}
			if (now - moved_ns >= spin_ns)
				vlm_sleep(v, next_look(v, tick_ns));
		}
		before = now;
		now = pd_clock_ns();
		if (now - before > STOPPED_NS) {
			skip(v, now - before);
			moved_ns += now - before;
		}
		if (now >= v->stop_ns)
			v->sending = false;
		if (now - tick_ns >= TICK_NS || !v->start_ns) {
			tick_ns = now;
			if (!tick(v, now))
				break;
		}
	}
	linger(v);
}
