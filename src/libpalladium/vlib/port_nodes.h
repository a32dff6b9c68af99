/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes over lanes, and the pattern of the fused path.
 *
 *   port-input -> sidecar-input -> port-output
 *                       |  `-----> drop           control frames, when nobody wants them
 *                       `--------> error-drop     frames without a sidecar
 *
 * port-input shows the frames of every lane attached to the engine; they stay the lane's (external
 * buffers) and go back to it when the round is over. port-output sends each to its tx_port. What a
 * lane cannot take is dropped and counted: in a graph, holding one port back would hold all. The
 * fused path has one port in and one out, so it never shows more than the output has room for and
 * loses nothing.
 *
 * Each inline function below is one node's work on one frame, used by the node and by
 * pd_port_forward alike. Locks: port-input tries the lock of each lane's receive side and holds it
 * until the round is over; port-output takes the lock of a transmit side per run of frames.
 */
#ifndef PD_VLIB_PORT_NODES_H
#define PD_VLIB_PORT_NODES_H

#include <errno.h>

#include "vlib/node.h"

enum pd_sidecar_input_next {
	PD_SIDECAR_INPUT_NEXT_OUTPUT,
	PD_SIDECAR_INPUT_NEXT_CONTROL,
	PD_SIDECAR_INPUT_NEXT_ERROR,
	PD_SIDECAR_INPUT_NEXTS
};

/* Errors and their texts, in one table. */
#define PD_SIDECAR_INPUT_ERROR_TABLE(_)          \
	_(NO_SIDECAR, "frame without a sidecar") \
	_(CONTROL, "control frame (not an error: nobody here wants it)")
#define PD_PORT_OUTPUT_ERROR_TABLE(_)                   \
	_(NO_PORT, "no such port, or its link is down") \
	_(FULL, "the ring was full")                    \
	_(TOO_LONG, "longer than the peer can take")

enum pd_sidecar_input_error {
#define PD_ROW(id, text) PD_SIDECAR_INPUT_ERROR_##id,
	PD_SIDECAR_INPUT_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_SIDECAR_INPUT_ERRORS
};

enum pd_port_output_error {
#define PD_ROW(id, text) PD_PORT_OUTPUT_ERROR_##id,
	PD_PORT_OUTPUT_ERROR_TABLE(PD_ROW)
#undef PD_ROW
		PD_PORT_OUTPUT_ERRORS
};

extern const char *const pd_port_output_errors[PD_PORT_OUTPUT_ERRORS];

/* The sidecar's generic_flags byte, and its bit for control frames. */
#define PD_SIDECAR_GENERIC_FLAGS_AT 2
#define PD_SIDECAR_GENERIC_CONTROL 1

/* sidecar-input: what kind of frame is this? */
static PD_ALWAYS_INLINE uint16_t pd_sidecar_input_one(const struct pd_node_ctx *ctx,
						      struct pd_buffer *b)
{
	if (pd_unlikely(!(b->flags & PD_BUFFER_SIDECAR))) {
		pd_buffer_set_error(b, ctx, PD_SIDECAR_INPUT_ERROR_NO_SIDECAR);
		return PD_SIDECAR_INPUT_NEXT_ERROR;
	}
	if (b->flags & PD_BUFFER_CONTROL ||
	    b->sidecar[PD_SIDECAR_GENERIC_FLAGS_AT] & PD_SIDECAR_GENERIC_CONTROL) {
		b->flags |= PD_BUFFER_CONTROL;
		pd_node_add(&ctx->errors[PD_SIDECAR_INPUT_ERROR_CONTROL], 1);
		return PD_SIDECAR_INPUT_NEXT_CONTROL;
	}
	return PD_SIDECAR_INPUT_NEXT_OUTPUT;
}

/* Why no frame went, by what tx returned. */
static inline enum pd_port_output_error pd_port_output_why(int ret)
{
	return ret == -EMSGSIZE ? PD_PORT_OUTPUT_ERROR_TOO_LONG
	       : ret == 0       ? PD_PORT_OUTPUT_ERROR_FULL
				: PD_PORT_OUTPUT_ERROR_NO_PORT;
}

/*
 * port-output: hand frames to the lane, whose transmit side is locked and up. As lane->ops->tx;
 * when nothing went, *error tells why.
 */
static PD_ALWAYS_INLINE int pd_port_output_try(struct pd_lane *lane, struct pd_buffer *const *bufs,
					       unsigned n, enum pd_port_output_error *error)
{
	int ret = lane->ops->tx(lane, bufs, n);

	if (pd_unlikely(ret <= 0))
		*error = pd_port_output_why(ret);
	return ret;
}

/*
 * Attach a lane to the engine, one per port: port-input polls it, frames from it leave by the port
 * with index `out`, and port-output finds it by its port's index. Returns 0 or -EINVAL. Control
 * path, engine at rest.
 */
int pd_engine_attach(struct pd_engine *engine, struct pd_lane *lane, uint16_t out);

/* What the fused path counts: the errors of its nodes. */
struct pd_forward_errors {
	uint64_t sidecar_input[PD_SIDECAR_INPUT_ERRORS];
	uint64_t port_output[PD_PORT_OUTPUT_ERRORS];
};

/*
 * The same three nodes in one straight line, for one lane in and one out: up to `n` frames (at most
 * PD_VECTOR_MAX) from `in` go to `out`. Takes both sides' locks, receive before transmit. What
 * `out` has no room for stays in `in`. Returns how many frames were consumed, 0 when there is
 * nothing or no room, -ENETDOWN when a side is down.
 *
 * For programs that pass frames from port to port without sockets, as tests/bench/spike.c does; the
 * library itself has none.
 */
int pd_port_forward(struct pd_lane *in, struct pd_lane *out, unsigned n,
		    struct pd_forward_errors *errors);

#endif /* PD_VLIB_PORT_NODES_H */
