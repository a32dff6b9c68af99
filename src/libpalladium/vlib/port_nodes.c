/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * port-input, sidecar-input and port-output, and their fused form (the theory stands in
 * port_nodes.h).
 */
#include <errno.h>
#include <stdio.h>

#include "vlib/port_nodes.h"
#include "vlib/trace.h"

/* --- port-input ---------------------------------------------------------------------------- */

/* What port-input keeps in its node. */
struct pd_port_input {
	uint8_t out[PD_ENGINE_LANES_MAX]; /* by port in: the port its frames leave by */
	uint64_t held; /* lanes whose receive side is locked until the round is over */
};
_Static_assert(sizeof(struct pd_port_input) <= PD_NODE_DATA_BYTES, "it fits the node");

static unsigned pd_port_input_dispatch(struct pd_engine *engine, struct pd_node *node,
				       struct pd_vector *vector)
{
	struct pd_port_input *in = (struct pd_port_input *)node->data;
	unsigned total = 0;

	(void)vector;
	for (uint64_t left = engine->lane_mask; left; left &= left - 1) {
		unsigned port = (unsigned)__builtin_ctzll(left), room;
		struct pd_lane *lane = engine->lanes[port];
		struct pd_buffer **bufs = engine->scratch.bufs;
		uint32_t *to;
		int got;

		/* Tried, not taken: several receive sides are held at once, and a program's thread may
		 * hold one for long. */
		if (!pd_trylock(&lane->side[PD_RX].lock))
			continue;
		to = pd_next_get(engine, node, 0, &room);
		got = lane->side[PD_RX].up ? lane->ops->rx(lane, bufs, room) : 0;
		if (got <= 0) {
			pd_unlock(&lane->side[PD_RX].lock);
			continue;
		}
		for (int i = 0; i < got; i++) {
			bufs[i]->rx_port = (uint16_t)port;
			bufs[i]->tx_port = in->out[port];
			to[i] = bufs[i]->index;
		}
		pd_next_put(engine, node, 0, (unsigned)got);
		engine->shown[port] = (uint16_t)got;
		in->held |= 1ull << port;
		total += (unsigned)got;
	}
	return total;
}

/* The round is over: hand the frames back and let the lanes go. */
static void pd_port_input_finish(struct pd_engine *engine, struct pd_node *node)
{
	struct pd_port_input *in = (struct pd_port_input *)node->data;

	for (; in->held; in->held &= in->held - 1) {
		unsigned port = (unsigned)__builtin_ctzll(in->held);
		struct pd_lane *lane = engine->lanes[port];

		lane->ops->rx_done(lane, engine->shown[port]);
		pd_unlock(&lane->side[PD_RX].lock);
	}
}

static int pd_port_input_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_trace_frame *frame = record;
	char port[PD_PORT_TEXT_BYTES];
	int n = snprintf(out, size, "from %s: ", pd_port_text(frame->rx_port, port));
	size_t at = pd_min((size_t)n, size);

	return n + pd_trace_frame_format(out + at, size - at, record);
}

PD_NODE_REGISTER(pd_port_input) = {
	.name = "port-input",
	.type = PD_NODE_INPUT,
	.fn = pd_port_input_dispatch,
	.trace = pd_trace_frame,
	.format_trace = pd_port_input_format_trace,
	.finish = pd_port_input_finish,
	.next_count = 1,
	.next_names = {"sidecar-input"},
};

int pd_engine_attach(struct pd_engine *engine, struct pd_lane *lane, uint16_t out)
{
	struct pd_node *node = pd_engine_node(engine, "port-input");

	if (lane->port >= PD_ARRAY_SIZE(engine->lanes) || out >= PD_ARRAY_SIZE(engine->lanes))
		return -EINVAL;
	((struct pd_port_input *)node->data)->out[lane->port] = (uint8_t)out;
	engine->lanes[lane->port] = lane;
	engine->lane_mask |= 1ull << lane->port;
	return 0;
}

/* --- sidecar-input ------------------------------------------------------------------------- */

PD_NODE_DISPATCH(pd_sidecar_input_dispatch, pd_sidecar_input_one);

static const char *const pd_sidecar_input_errors[] = {
	PD_SIDECAR_INPUT_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

static int pd_sidecar_input_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_trace_frame *frame = record;

	if (!(frame->flags & PD_BUFFER_SIDECAR))
		return snprintf(out, size, "no sidecar");
	return snprintf(out, size, "%s",
			frame->flags & PD_BUFFER_CONTROL ||
					frame->sidecar[PD_SIDECAR_GENERIC_FLAGS_AT] &
						PD_SIDECAR_GENERIC_CONTROL
				? "a control frame"
				: "a frame with its sidecar");
}

PD_NODE_REGISTER(pd_sidecar_input) = {
	.name = "sidecar-input",
	.type = PD_NODE_INTERNAL,
	.fn = pd_sidecar_input_dispatch,
	.trace = pd_trace_frame,
	.format_trace = pd_sidecar_input_format_trace,
	.errors = pd_sidecar_input_errors,
	.error_count = PD_SIDECAR_INPUT_ERRORS,
	.next_count = PD_SIDECAR_INPUT_NEXTS,
	.next_names = {[PD_SIDECAR_INPUT_NEXT_OUTPUT] = "port-output",
		       [PD_SIDECAR_INPUT_NEXT_CONTROL] = "drop",
		       [PD_SIDECAR_INPUT_NEXT_ERROR] = "error-drop"},
};

/* --- port-output --------------------------------------------------------------------------- */

/*
 * Send `n` frames by one lane, whose transmit side is locked and up. Stops at the first that does
 * not go. Returns how many went; *error tells why the next did not.
 */
static unsigned pd_port_send(struct pd_lane *lane, struct pd_buffer *const *bufs, unsigned n,
			     enum pd_port_output_error *error)
{
	unsigned done = 0;

	while (done < n) {
		int ret = pd_port_output_try(lane, bufs + done, n - done, error);

		if (ret <= 0)
			break;
		done += (unsigned)ret;
	}
	return done;
}

/* Send a run of frames for one port; what does not go is enqueued to error-drop. */
static void pd_port_output_run(struct pd_engine *engine, struct pd_node *node, uint16_t port,
			       const uint32_t *indices, unsigned n)
{
	struct pd_lane *lane = port < PD_ARRAY_SIZE(engine->lanes) ? engine->lanes[port] : NULL;
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	enum pd_port_output_error error = PD_PORT_OUTPUT_ERROR_NO_PORT;
	struct pd_buffer **bufs = engine->scratch.bufs;
	static const uint16_t to_drop[1];
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++)
		bufs[i] = pd_buffer_get(indices[i]);
	if (lane)
		pd_lock(&lane->side[PD_TX].lock);
	while (done < n) {
		if (lane && lane->side[PD_TX].up)
			done += pd_port_send(lane, bufs + done, n - done, &error);
		if (done == n)
			break;
		pd_buffer_set_error(bufs[done], &ctx, error);
		pd_enqueue(engine, node, &indices[done], to_drop, 1);
		done++;
	}
	if (lane && lane->side[PD_TX].up)
		lane->ops->tx_flush(lane);
	if (lane)
		pd_unlock(&lane->side[PD_TX].lock);
}

static unsigned pd_port_output_dispatch(struct pd_engine *engine, struct pd_node *node,
					struct pd_vector *vector)
{
	for (unsigned i = 0, run; i < vector->n; i += run) {
		uint16_t port = pd_buffer_get(vector->index[i])->tx_port;

		for (run = 1; i + run < vector->n; run++)
			if (pd_buffer_get(vector->index[i + run])->tx_port != port)
				break;
		pd_port_output_run(engine, node, port, &vector->index[i], run);
	}
	return vector->n;
}

const char *const pd_port_output_errors[] = {PD_PORT_OUTPUT_ERROR_TABLE(PD_NODE_ERROR_TEXT)};

static int pd_port_output_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_trace_frame *frame = record;
	char port[PD_PORT_TEXT_BYTES];

	return snprintf(out, size, "to %s, %u bytes", pd_port_text(frame->tx_port, port),
			frame->total_len);
}

PD_NODE_REGISTER(pd_port_output) = {
	.name = "port-output",
	.type = PD_NODE_INTERNAL,
	.fn = pd_port_output_dispatch,
	.trace = pd_trace_frame,
	.format_trace = pd_port_output_format_trace,
	.errors = pd_port_output_errors,
	.error_count = PD_PORT_OUTPUT_ERRORS,
	.next_count = 1,
	.next_names = {"error-drop"},
};

/* --- fused --------------------------------------------------------------------------------- */

int pd_port_forward(struct pd_lane *in, struct pd_lane *out, unsigned n,
		    struct pd_forward_errors *errors)
{
	struct pd_forward_errors seen = {0};
	const struct pd_node_ctx ctx = {.errors = seen.sidecar_input};
	struct pd_buffer *bufs[PD_VECTOR_MAX], *send[PD_VECTOR_MAX];
	enum pd_port_output_error error = PD_PORT_OUTPUT_ERROR_FULL;
	unsigned count = 0, sent = 0;
	uint8_t from[PD_VECTOR_MAX];
	int got = -ENETDOWN;

	pd_lock(&in->side[PD_RX].lock);
	pd_lock(&out->side[PD_TX].lock);
	if (!in->side[PD_RX].up || !out->side[PD_TX].up)
		goto out;
	got = in->ops->rx(in, bufs, pd_min(n, (unsigned)PD_VECTOR_MAX));
	for (int i = 0; i < got; i++) {
		uint16_t next = pd_sidecar_input_one(&ctx, bufs[i]);

		if (pd_likely(next == PD_SIDECAR_INPUT_NEXT_OUTPUT)) {
			from[count] = (uint8_t)i;
			send[count++] = bufs[i];
		} else if (next == PD_SIDECAR_INPUT_NEXT_ERROR) {
			seen.sidecar_input[pd_buffer_error(bufs[i])]++;
		}
	}
	while (sent < count) {
		sent += pd_port_send(out, send + sent, count - sent, &error);
		if (sent == count || error != PD_PORT_OUTPUT_ERROR_TOO_LONG)
			break;
		seen.port_output[error]++;
		sent++;
	}
	out->ops->tx_flush(out);
	if (pd_unlikely(sent < count)) {
		/* What has no room stays in the ring, and what stands behind it is looked at again then:
		 * count for this time only what goes. */
		got = (int)from[sent];
		memset(seen.sidecar_input, 0, sizeof(seen.sidecar_input));
		for (int i = 0; i < got; i++)
			if (pd_sidecar_input_one(&ctx, bufs[i]) == PD_SIDECAR_INPUT_NEXT_ERROR)
				seen.sidecar_input[pd_buffer_error(bufs[i])]++;
	}
	if (got > 0)
		in->ops->rx_done(in, (unsigned)got);
	for (unsigned i = 0; i < PD_SIDECAR_INPUT_ERRORS; i++)
		errors->sidecar_input[i] += seen.sidecar_input[i];
	for (unsigned i = 0; i < PD_PORT_OUTPUT_ERRORS; i++)
		errors->port_output[i] += seen.port_output[i];
out:
	pd_unlock(&out->side[PD_TX].lock);
	pd_unlock(&in->side[PD_RX].lock);
	return got;
}
