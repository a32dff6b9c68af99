/* SPDX-License-Identifier: BSD-2-Clause */
/* Handing buffers to workers (theory and contract in handoff.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vlib/handoff.h"
#include "vlib/trace.h"
#include "vlib/worker.h"

/* A place for one vector. */
struct pd_handoff_slot {
	uint64_t turn; /* atomic: whose it is, see handoff.h */
	uint32_t n;
	uint16_t from;   /* the thread that handed it over */
	uint16_t traced; /* PD_BUFFER_TRACED, if any frame in it is */
	uint32_t index[PD_VECTOR_MAX] PD_CACHE_ALIGNED;
} PD_CACHE_ALIGNED;

/* What waits for one node of one worker's engine. */
struct pd_handoff_queue {
	struct pd_handoff_queue *next; /* of the same engine */
	struct pd_engine *engine;
	struct pd_node *node;
	uint64_t size;
	uint64_t tail PD_CACHE_ALIGNED; /* atomic: the next position to be claimed */
	uint64_t head PD_CACHE_ALIGNED; /* the worker's: the next position to be taken */
	struct pd_handoff_slot slot[];
};

struct pd_handoff {
	struct pd_handoff *next;
	struct pd_buffer_pool *pool;
	unsigned count;
	struct pd_handoff_queue *queue[PD_WORKERS_MAX]; /* by worker, less one */
};

/* All handoffs; control path, under its lock. */
static struct pd_lock pd_handoffs_lock = PD_LOCK_INIT(PD_RANK_LEAF);
static struct pd_handoff *pd_handoffs;

/* --- making them ----------------------------------------------------------------------------- */

/* An empty queue of `size` slots to a node of `engine`; NULL when there is no memory. */
static struct pd_handoff_queue *pd_handoff_queue_new(struct pd_engine *engine, struct pd_node *node,
						     unsigned size)
{
	struct pd_handoff_queue *q;
	size_t bytes = sizeof(*q) + size * sizeof(q->slot[0]);

	q = aligned_alloc(PD_CACHE_LINE, bytes);
	if (!q)
		return NULL;
	memset(q, 0, bytes);
	q->engine = engine;
	q->node = node;
	q->size = size;
	for (unsigned i = 0; i < size; i++)
		q->slot[i].turn = i;
	return q;
}

/* Free a handoff that no engine knows. NULL is allowed. */
static void pd_handoff_free(struct pd_handoff *handoff)
{
	for (unsigned i = 0; handoff && i < handoff->count; i++)
		free(handoff->queue[i]);
	free(handoff);
}

/* Have every worker look at its queue of `handoff`. */
static void pd_handoff_publish(struct pd_handoff *handoff)
{
	pd_lock(&pd_handoffs_lock);
	handoff->next = pd_handoffs;
	pd_handoffs = handoff;
	for (unsigned i = 0; i < handoff->count; i++) {
		struct pd_engine *engine = handoff->queue[i]->engine;

		handoff->queue[i]->next = pd_load_relaxed(&engine->inbox);
		/* Pairs with the acquire in pd_handoff_take. */
		pd_store_release(&engine->inbox, handoff->queue[i]);
	}
	pd_unlock(&pd_handoffs_lock);
}

struct pd_handoff *pd_handoff_create(const char *node_name, unsigned frames,
				     struct pd_buffer_pool *pool, int *err)
{
	struct pd_handoff *handoff;

	*err = -EINVAL;
	if (frames < PD_HANDOFF_FRAMES_MIN || frames > PD_HANDOFF_FRAMES_MAX)
		return NULL;
	handoff = calloc(1, sizeof(*handoff));
	*err = -ENOMEM;
	if (!handoff)
		return NULL;
	handoff->pool = pool;
	*err = pd_worker_count() ? pd_node_may_enter(node_name) : -ESRCH;
	for (unsigned i = 0; i < pd_worker_count() && !*err; i++) {
		struct pd_engine *engine = pd_worker_engine(i + 1);
		struct pd_node *node = pd_engine_node(engine, node_name);

		if (!node) { /* registered since the workers have been there */
			*err = -ENOENT;
			break;
		}
		handoff->queue[i] = pd_handoff_queue_new(engine, node, frames);
		handoff->count = i + 1;
		if (!handoff->queue[i])
			*err = -ENOMEM;
	}
	if (*err) {
		pd_handoff_free(handoff);
		return NULL;
	}
	pd_handoff_publish(handoff);
	return handoff;
}

void pd_handoff_free_all(void)
{
	struct pd_handoff *handoff;

	pd_lock(&pd_handoffs_lock);
	handoff = pd_handoffs;
	pd_handoffs = NULL;
	pd_unlock(&pd_handoffs_lock);
	while (handoff) {
		struct pd_handoff *next = handoff->next;

		pd_handoff_free(handoff);
		handoff = next;
	}
}

/* --- handing over ---------------------------------------------------------------------------- */

/* Claim the next slot of a queue, empty; NULL when it is full. */
static struct pd_handoff_slot *pd_handoff_claim(struct pd_handoff_queue *q)
{
	uint64_t at = pd_load_relaxed(&q->tail);

	for (;;) {
		struct pd_handoff_slot *slot = &q->slot[at % q->size];
		/* Pairs with the release in pd_handoff_queue_take: the worker is done with it. */
		int64_t ahead = (int64_t)(pd_load_acquire(&slot->turn) - at);

		if (ahead < 0) /* it still holds the vector of a whole turn before */
			return NULL;
		if (ahead > 0) /* somebody else has claimed it */
			at = pd_load_relaxed(&q->tail);
		else if (pd_cas(&q->tail, &at, at + 1))
			break;
	}
	q->slot[at % q->size].n = 0;
	q->slot[at % q->size].traced = 0;
	return &q->slot[at % q->size];
}

/*
 * What goes into a queue for buffer `index`: itself, or the copy of an external one. PD_BUFFER_NONE
 * when there can be none.
 */
static inline uint32_t pd_handoff_own(const struct pd_handoff *handoff, uint32_t index)
{
	const struct pd_buffer *src = pd_buffer_get(index);
	struct pd_buffer *b;

	if (pd_likely(!(src->flags & PD_BUFFER_EXTERNAL)))
		return index;
	b = handoff->pool ? pd_buffer_copy(handoff->pool, src) : NULL;
	if (!b)
		return PD_BUFFER_NONE;
	b->tx_port = src->tx_port;
	memcpy(b->opaque, src->opaque, sizeof(b->opaque));
	memcpy(b->opaque2, src->opaque2, sizeof(b->opaque2));
	return b->index;
}

/* The slots that one call fills: one per worker, as a slot holds as much as a call brings. */
struct pd_handoff_call {
	struct pd_handoff_slot *slot[PD_WORKERS_MAX]; /* by worker, less one; NULL: none yet */
	uint64_t full;                                /* bit per worker: its queue has no room */
	uint16_t used[PD_WORKERS_MAX];                /* the workers with a slot, less one */
	unsigned used_count;
};

/* The call's slot for worker `w`, less one; NULL when its queue is full. */
static inline struct pd_handoff_slot *
pd_handoff_slot_of(struct pd_handoff_call *call, const struct pd_handoff *handoff, uint16_t w)
{
	if (pd_likely(call->slot[w]) || call->full & 1ull << w)
		return call->slot[w];
	call->slot[w] = pd_handoff_claim(handoff->queue[w]);
	if (call->slot[w])
		call->used[call->used_count++] = w;
	else
		call->full |= 1ull << w;
	return call->slot[w];
}

/* Let the workers have what the call filled. */
static void pd_handoff_send(const struct pd_handoff_call *call, const struct pd_handoff *handoff,
			    const struct pd_engine *engine)
{
	for (unsigned i = 0; i < call->used_count; i++) {
		struct pd_handoff_slot *slot = call->slot[call->used[i]];

		slot->from = engine->thread;
		/* Pairs with the acquire in pd_handoff_queue_take. */
		pd_store_release(&slot->turn, slot->turn + 1);
		pd_engine_wake(handoff->queue[call->used[i]]->engine);
	}
}

unsigned pd_handoff_enqueue(struct pd_engine *engine, struct pd_handoff *handoff,
			    const uint32_t *indices, uint16_t *workers, unsigned n, bool drop)
{
	struct pd_handoff_call call = {.full = 0};
	uint32_t rest[PD_VECTOR_MAX];
	unsigned left = 0, done = 0;

	pd_assert(n <= PD_VECTOR_MAX);
	for (unsigned i = 0; i < n; i++) {
		uint16_t w = (uint16_t)(workers[i] - 1);
		struct pd_handoff_slot *slot =
			w < handoff->count ? pd_handoff_slot_of(&call, handoff, w) : NULL;
		uint32_t index = slot ? pd_handoff_own(handoff, indices[i]) : PD_BUFFER_NONE;

		if (pd_likely(index != PD_BUFFER_NONE)) {
			slot->index[slot->n++] = index;
			slot->traced |= pd_buffer_get(index)->flags & PD_BUFFER_TRACED;
			done++;
		} else if (!drop) {
			workers[i] = PD_HANDOFF_REFUSED;
		} else if (!(pd_buffer_get(indices[i])->flags & PD_BUFFER_EXTERNAL)) {
			rest[left++] = indices[i];
		}
	}
	pd_handoff_send(&call, handoff, engine);
	if (pd_unlikely(left))
		pd_buffer_free(rest, left);
	return done;
}

/* --- taking ---------------------------------------------------------------------------------- */

/*
 * Take what stands in a queue, at most all its slots once: into the node, or with `discard` back to
 * the pools. Returns the frames.
 */
static unsigned pd_handoff_queue_take(struct pd_handoff_queue *q, bool discard)
{
	unsigned total = 0;

	for (uint64_t i = 0; i < q->size; i++) {
		struct pd_handoff_slot *slot = &q->slot[q->head % q->size];

		/* Pairs with the release in pd_handoff_send. */
		if (pd_load_acquire(&slot->turn) != q->head + 1)
			break;
		if (pd_unlikely(slot->traced))
			pd_trace_handed_off(q->engine, slot->index, slot->n, slot->from);
		if (pd_unlikely(discard))
			pd_buffer_free(slot->index, slot->n);
		else
			pd_vector_put(q->engine, q->node, slot->index, slot->n);
		total += slot->n;
		/* Pairs with the acquire in pd_handoff_claim. */
		pd_store_release(&slot->turn, q->head + q->size);
		q->head++;
	}
	return total;
}

unsigned pd_handoff_take(struct pd_engine *engine)
{
	unsigned total = 0;

	/* Pairs with the release in pd_handoff_publish. */
	for (struct pd_handoff_queue *q = pd_load_acquire(&engine->inbox); q; q = q->next)
		total += pd_handoff_queue_take(q, false);
	return total;
}

void pd_handoff_forget(struct pd_engine *engine)
{
	for (struct pd_handoff_queue *q = engine->inbox; q; q = q->next)
		pd_handoff_queue_take(q, true);
	engine->inbox = NULL;
}
