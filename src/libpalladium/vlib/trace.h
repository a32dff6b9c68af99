/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracer: the way of single frames through the nodes, with times.
 *
 * pd_trace_add names a node and a number. In every engine the next frames that come to that node,
 * up to that number, are marked (PD_BUFFER_TRACED), and from there on each node that works on one
 * of them leaves an entry: when, which node, and what the node has to say of the frame. It says so
 * with two functions of its registration: `trace` fills a record before the node works on the frame
 * (an input node: when it has brought it in), `format_trace` makes text of it when somebody asks.
 *
 * Entries stand in one buffer per engine, of fixed size, made when tracing is first asked for. When
 * it is full, what comes further is counted and not kept. Times are those of the vector.
 *
 * A frame that is handed to another thread goes on in the tracer of that thread's engine, as a
 * frame of its own, whose first entry says where it was before. A copy of a traced frame is traced
 * in the engine it was made in.
 *
 * Costs. With nothing traced the dispatcher reads one word per vector, and the fused ways none:
 * pd_graph_wanted takes the calls of packet sockets through the dispatcher for as long as some
 * engine has frames to mark yet. Only engines that are there when pd_trace_add is called trace.
 *
 * Locking. A tracer has a lock, taken once per vector by whoever runs the engine, and by who reads
 * or clears it. It is a leaf, so `trace` functions take none.
 */
#ifndef PD_VLIB_TRACE_H
#define PD_VLIB_TRACE_H

#include <stdint.h>

#include "vlib/node.h"

/* The most frames that one pd_trace_add asks for. */
#define PD_TRACE_FRAMES_MAX 1000

/* Prints one line, which has no newline at its end. */
typedef void (*pd_trace_line)(void *arg, const char *text);

/*
 * Trace the next `frames` frames (1 to PD_TRACE_FRAMES_MAX) that come to node `node`, in each
 * engine; what an earlier call still had to mark there is added. Control path, any thread. Returns
 * 0; -ENOENT when no engine has such a node, -EINVAL for the number, -ENOSPC when frames of several
 * other nodes are waited for already, -ENOMEM.
 */
int pd_trace_add(const char *node, unsigned frames);

/* Forget what was traced, and mark no more. Control path, any thread. */
void pd_trace_clear(void);

/*
 * Print what was traced, engine by engine, up to `max` frames of each; 0: all. No lock is held when
 * `line` is called. Control path, any thread. Returns 0 or -ENOMEM.
 */
int pd_trace_print(unsigned max, pd_trace_line line, void *arg);

/* --- for nodes ----------------------------------------------------------------------------- */

/* A record for nodes that have nothing to tell but the frame: what is in its first header. */
struct pd_trace_frame {
	uint32_t total_len;
	uint16_t flags, rx_port, tx_port, segments;
	uint8_t sidecar[PD_BUFFER_SIDECAR_BYTES];
	uint8_t data[32]; /* its first bytes, zero where it is shorter */
};
_Static_assert(sizeof(struct pd_trace_frame) <= PD_TRACE_RECORD_BYTES, "it fits");

/* `trace` and `format_trace` with that record. */
void pd_trace_frame(const struct pd_engine *engine, const struct pd_node *node,
		    const struct pd_buffer *b, void *record);
int pd_trace_frame_format(char *out, size_t size, const void *record);

/* A port in words: "port 3", or "local0" for PD_BUFFER_NO_PORT. Returns `out`. */
#define PD_PORT_TEXT_BYTES 16
const char *pd_port_text(uint16_t port, char out[PD_PORT_TEXT_BYTES]);

/* Write `n` bytes as hexadecimal to `out`, as snprintf. */
int pd_trace_hex(char *out, size_t size, const uint8_t *bytes, size_t n);

/*
 * For an input node whose frames go where no arc leads: they come in. Before they are enqueued, and
 * only when engine->tracing. The dispatcher sees what goes along arcs by itself.
 */
void pd_trace_frames(struct pd_engine *engine, struct pd_node *node, const uint32_t *indices,
		     unsigned n);

/* --- for the dispatcher -------------------------------------------------------------------- */

/* What stood on the arcs of an input node before it ran. */
struct pd_trace_arcs {
	unsigned pending;
	struct pd_vector *vector[PD_NODE_NEXTS_MAX];
	unsigned n[PD_NODE_NEXTS_MAX];
};

/* Around the function of an input node. */
void pd_trace_input_begin(const struct pd_engine *engine, const struct pd_node *node,
			  struct pd_trace_arcs *arcs);
void pd_trace_input_end(struct pd_engine *engine, struct pd_node *node,
			const struct pd_trace_arcs *arcs);

/* Frames that the thread `from` handed to this engine, before they go to their node. */
void pd_trace_handed_off(struct pd_engine *engine, const uint32_t *indices, unsigned n,
			 uint16_t from);

/* The engine ends. */
void pd_trace_leave(struct pd_engine *engine);

/* In a forked child: as pd_trace_clear for an engine at rest, whoever held the lock. */
void pd_trace_forget(struct pd_engine *engine);

#endif /* PD_VLIB_TRACE_H */
