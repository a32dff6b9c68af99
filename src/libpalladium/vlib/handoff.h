/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handing buffers from one thread's engine to a worker's.
 *
 * A handoff feeds one node. It has a queue for every worker (worker.h), which any thread may add to
 * and that worker empties once a round, into the node in its own engine:
 *
 *   handoff = pd_handoff_create("my-node", 64, pool, &err);
 *   ...
 *   n = pd_handoff_enqueue(engine, handoff, vector->index, workers, vector->n, true);
 *   if (n < vector->n)
 *           pd_node_add(&node->errors[MY_ERROR_CONGESTION_DROP], vector->n - n);
 *   pd_node_add(&node->errors[MY_ERROR_HANDED_OFF], n);
 *
 * A queue has a fixed number of slots, each for a vector of up to PD_VECTOR_MAX indices. It is
 * bounded on purpose: when whoever hands over is faster than whoever takes, frames are dropped
 * where they are handed over and counted, and nothing grows. 32 to 64 slots are plenty. A worker
 * looks at its queues in every round, so make no handoff before it is needed.
 *
 * The queue. Producers claim a slot by moving `tail` with a compare-and-swap, fill it, and publish
 * it by its own word `turn`; the one consumer follows with `head`. A slot whose turn is p is free
 * for position p, with p + 1 it holds the vector of position p, and the consumer frees it for
 * position p + size. Nobody waits for anybody: a producer that is held up between claim and
 * publication keeps the consumer from what stands behind it and nothing else. No call here locks or
 * allocates.
 *
 * Order. What one thread hands to one worker arrives in the order in which it was handed over.
 *
 * External buffers live within one dispatch, in memory of a peer's or a caller's, so they cannot be
 * handed over. The handoff's pool takes a copy of each; where it has none, or is empty, such a
 * frame counts as one that did not fit.
 *
 * A frame that a worker has taken is the node's; pd_workers_stop frees what no worker has.
 */
#ifndef PD_VLIB_HANDOFF_H
#define PD_VLIB_HANDOFF_H

#include <stdbool.h>
#include <stdint.h>

#include "vlib/node.h"

/* Slots of a queue: the least, and the most. */
#define PD_HANDOFF_FRAMES_MIN 2
#define PD_HANDOFF_FRAMES_MAX 1024

/* In place of a worker's number: this frame was not handed over, and is still the caller's. */
#define PD_HANDOFF_REFUSED UINT16_MAX

struct pd_handoff;

/*
 * Make a handoff to node `node_name`, an internal node, with queues of `frames` slots
 * (PD_HANDOFF_FRAMES_MIN to _MAX) for all workers, which must be there. `pool` (borrowed, or NULL)
 * takes the copies of external buffers. It lives until pd_workers_stop. Control path. Returns it,
 * or NULL with *err set: -ESRCH without workers, -ENOENT without such a node, -EPERM when frames
 * cannot be enqueued to it (pd_node_may_enter), -EINVAL for the number of frames, -ENOMEM.
 */
struct pd_handoff *pd_handoff_create(const char *node_name, unsigned frames,
				     struct pd_buffer_pool *pool, int *err);

/*
 * Hand `n` buffers (up to PD_VECTOR_MAX), each the first of its chain, to the workers whose numbers
 * (from 1) stand in `workers`; the calling thread's own is allowed. `engine` is the caller's. Data
 * path, any thread. Returns how many were handed over.
 *
 * With `drop` the rest is freed here, and nothing is the caller's any more: do not send the rest to
 * error-drop as well. Without, workers[i] becomes PD_HANDOFF_REFUSED for each that did not go. An
 * external buffer stays where it is either way. A worker that does not exist has no room.
 */
unsigned pd_handoff_enqueue(struct pd_engine *engine, struct pd_handoff *handoff,
			    const uint32_t *indices, uint16_t *workers, unsigned n, bool drop);

/*
 * The dispatcher's: move what waits for `engine` to its nodes, as much as the queues hold. Returns
 * the frames.
 */
unsigned pd_handoff_take(struct pd_engine *engine);

/* Free what waits for `engine`, which nobody runs and nobody hands anything to. */
void pd_handoff_forget(struct pd_engine *engine);

/* Free all handoffs; no engine has one of their queues any more. */
void pd_handoff_free_all(void);

#endif /* PD_VLIB_HANDOFF_H */
