/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Streams, and the node that makes their frames (theory and contract in generator.h).
 *
 * Two kinds of lock, both of rank PD_RANK_STREAMS: the list's guards which streams there are; that
 * of a worker guards which of them run there, and how far they are. Who holds both took the list's
 * first.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "vlib/generator.h"
#include "vlib/trace.h"
#include "vlib/worker.h"

#define PD_GENERATOR_BUFFERS 4096
#define PD_GENERATOR_BUFFER_BYTES 2048
_Static_assert(PD_FRAME_MAX_BYTES / PD_GENERATOR_BUFFER_BYTES < PD_VECTOR_MAX,
	       "one batch has enough for one frame");

struct pd_stream {
	struct pd_stream *next; /* all streams; the list's lock */
	struct pd_stream
		*running; /* of those that run on its worker, the next; that worker's lock */
	struct pd_stream_config config;
	bool enabled;       /* with the worker's lock */
	struct pd_node *to; /* in the worker's engine, while enabled */
	uint64_t started_ns;
	uint64_t sent, sent_ever; /* atomic; the worker writes */
	uint32_t size;            /* of the next frame, if sizes are said */
	unsigned frame;           /* the data of the next */
	unsigned chain;           /* buffers that its longest frame takes */
};

/* The streams that run on one worker. */
struct pd_stream_thread {
	struct pd_lock lock;
	struct pd_stream *first;
	uint32_t count; /* atomic; of streams in the list */
} PD_CACHE_ALIGNED;

const struct pd_stream_names *pd_generator_names;

static struct pd_lock pd_streams_lock = PD_LOCK_INIT(PD_RANK_STREAMS);
static struct pd_stream *pd_streams;
static struct pd_buffer_pool *pd_stream_pool; /* atomic */
/* By number of the thread, from 1. */
static struct pd_stream_thread pd_stream_threads[PD_WORKERS_MAX + 1] = {
	[0 ... PD_WORKERS_MAX] = {.lock = PD_LOCK_INIT(PD_RANK_STREAMS)}};

/* --- making frames: the worker's ------------------------------------------------------------- */

enum pd_pg_input_error { PD_PG_INPUT_ERROR_NO_BUFFER, PD_PG_INPUT_ERRORS };

/* What pg-input keeps in its node: whose frames are just being made. */
struct pd_pg_input {
	const struct pd_stream *stream;
};

/* Take `s` off the list of its worker. That worker's lock held. */
static void pd_stream_halt(struct pd_stream_thread *thread, struct pd_stream *s)
{
	struct pd_stream **at = &thread->first;

	while (*at && *at != s)
		at = &(*at)->running;
	if (!*at)
		return;
	*at = s->running;
	pd_store_relaxed(&s->enabled, false);
	pd_store_relaxed(&thread->count, thread->count - 1);
}

/* When frame number `n` of a stream is due, by its rate. */
static uint64_t pd_stream_due_ns(const struct pd_stream *s, uint64_t n)
{
	return s->started_ns + (uint64_t)((unsigned __int128)n * PD_NS_PER_SEC / s->config.rate);
}

/* How many frames a stream may make now, up to a vector; notes when the next is due. */
static unsigned pd_stream_allowed(struct pd_engine *engine, const struct pd_stream *s)
{
	uint64_t n = PD_VECTOR_MAX, now, due;

	if (s->config.limit)
		n = pd_min(n, s->config.limit - s->sent);
	if (!s->config.rate)
		return (unsigned)n;
	now = pd_clock_ns();
	due = (uint64_t)((unsigned __int128)(now - s->started_ns) * s->config.rate / PD_NS_PER_SEC);
	due = due >= s->sent ? due + 1 - s->sent : 0; /* the first is due at once */
	if (!due)
		engine->due_ns = pd_min(engine->due_ns, pd_stream_due_ns(s, s->sent));
	return (unsigned)pd_min(n, due);
}

/* The length of the next frame. */
static uint32_t pd_stream_next_size(const struct pd_stream *s)
{
	unsigned f = s->frame;

	if (s->config.size_max)
		return s->size;
	return s->config.end[f] - (f ? s->config.end[f - 1] : 0);
}

/* Fill the `need` buffers of `chain` with the next frame, of `len` octets. */
static void pd_stream_fill(struct pd_stream *s, const uint32_t *chain, unsigned need, uint32_t len)
{
	uint32_t begin = s->frame ? s->config.end[s->frame - 1] : 0, at = 0;
	uint32_t data = pd_min(s->config.end[s->frame] - begin, len);
	struct pd_buffer *b = NULL;

	for (unsigned i = 0; i < need; i++) {
		uint32_t copy;

		b = pd_buffer_get(chain[i]);
		b->len = pd_min(len - at, (uint32_t)PD_GENERATOR_BUFFER_BYTES);
		b->next = i + 1 < need ? chain[i + 1] : PD_BUFFER_NONE;
		copy = at < data ? pd_min(data - at, b->len) : 0;
		if (copy)
			memcpy(b->data, s->config.data + begin + at, copy);
		memset(b->data + copy, 0, b->len - copy);
		at += b->len;
	}
	b = pd_buffer_get(chain[0]);
	b->total_len = len;
	b->rx_port = s->config.rx_port;
	b->tx_port = s->config.tx_port;
	memset(b->opaque, 0, sizeof(b->opaque));
	memset(b->opaque2, 0, sizeof(b->opaque2));
	if (s->config.has_sidecar) {
		b->flags |= PD_BUFFER_SIDECAR | (len ? 0 : PD_BUFFER_CONTROL);
		memcpy(b->sidecar, s->config.sidecar, sizeof(b->sidecar));
	}
}

/* The next frame has been made: what comes after it. */
static void pd_stream_advance(struct pd_stream *s)
{
	s->frame = s->frame + 1 < s->config.frames ? s->frame + 1 : 0;
	s->size = s->size < s->config.size_max ? s->size + 1 : s->config.size_min;
}

/* The buffers that a frame of `len` octets takes. */
static unsigned pd_stream_chain(uint32_t len)
{
	return pd_max((len + PD_GENERATOR_BUFFER_BYTES - 1) / PD_GENERATOR_BUFFER_BYTES, 1u);
}

/*
 * Make up to `n` frames of a stream, and put their indices to `out`. Fewer when there are no
 * buffers, or when they are long. Returns how many; *lack tells that buffers lacked.
 */
static unsigned pd_stream_make(struct pd_stream *s, uint32_t *spare, uint32_t *out, unsigned n,
			       bool *lack)
{
	unsigned want = pd_min(n * s->chain, (unsigned)PD_VECTOR_MAX), used = 0, got, made;

	got = pd_buffer_alloc(pd_load_acquire(&pd_stream_pool), spare, want);
	for (made = 0; made < n; made++) {
		uint32_t len = pd_stream_next_size(s);
		unsigned need = pd_stream_chain(len);

		if (need > got - used)
			break;
		pd_stream_fill(s, spare + used, need, len);
		out[made] = spare[used];
		used += need;
		pd_stream_advance(s);
	}
	if (used < got)
		pd_buffer_free(spare + used, got - used);
	*lack = made < n && got < want;
	return made;
}

/* One stream's share of a round. Its worker's lock held. */
static unsigned pd_stream_run(struct pd_engine *engine, struct pd_node *node, struct pd_stream *s)
{
	uint32_t *spare = engine->scratch.indices, *out = spare + PD_VECTOR_MAX;
	unsigned n = pd_stream_allowed(engine, s);
	bool lack = false;

	if (n)
		n = pd_stream_make(s, spare, out, n, &lack);
	if (lack)
		pd_node_add(&node->errors[PD_PG_INPUT_ERROR_NO_BUFFER], 1);
	if (!n)
		return 0;
	((struct pd_pg_input *)node->data)->stream = s;
	if (pd_unlikely(
		    pd_load_acquire(&engine->tracing))) /* pairs with pd_trace_start's release */
		pd_trace_frames(engine, node, out, n);
	pd_vector_put(engine, s->to, out, n);
	pd_store_relaxed(&s->sent, s->sent + n);
	pd_store_relaxed(&s->sent_ever, s->sent_ever + n);
	return n;
}

/* The node: frames of the streams that run on this worker. */
static unsigned pd_pg_input_dispatch(struct pd_engine *engine, struct pd_node *node,
				     struct pd_vector *vector)
{
	struct pd_stream_thread *thread = &pd_stream_threads[engine->thread];
	unsigned total = 0;

	(void)vector;
	/* Who holds the lock wakes this engine afterwards. */
	if (pd_likely(!pd_load_relaxed(&thread->count)) || !pd_trylock(&thread->lock))
		return 0;
	for (struct pd_stream *s = thread->first, *next; s; s = next) {
		next = s->running;
		total += pd_stream_run(engine, node, s);
		if (s->config.limit && s->sent >= s->config.limit)
			pd_stream_halt(thread, s);
	}
	pd_unlock(&thread->lock);
	return total;
}

/* What pg-input tells of a frame. */
struct pd_pg_input_trace {
	char stream[24]; /* its name, as much as fits */
	uint32_t len;
	uint32_t handle;
	uint16_t rx_port, pool, refs, shown;
	uint8_t data[64];
};
_Static_assert(sizeof(struct pd_pg_input_trace) <= PD_TRACE_RECORD_BYTES, "it fits");

static void pd_pg_input_trace(const struct pd_engine *engine, const struct pd_node *node,
			      const struct pd_buffer *b, void *record)
{
	const struct pd_stream *s = ((const struct pd_pg_input *)node->data)->stream;
	struct pd_pg_input_trace *r = record;

	(void)engine;
	*r = (struct pd_pg_input_trace){.len = b->total_len,
					.handle = b->trace,
					.rx_port = b->rx_port,
					.pool = b->pool,
					.refs = (uint16_t)pd_load_relaxed(&b->refs)};
	memcpy(r->stream, s->config.name, sizeof(r->stream) - 1);
	r->shown = (uint16_t)pd_min(b->len, (uint32_t)sizeof(r->data));
	memcpy(r->data, b->data, r->shown);
}

static int pd_pg_input_format_trace(char *out, size_t size, const void *record)
{
	const struct pd_pg_input_trace *r = record;
	char port[PD_PORT_TEXT_BYTES], hex[65];
	int n;

	n = snprintf(out, size,
		     "stream %s, %u bytes, %s\n"
		     "current data 0, length %u, buffer-pool %u, ref-count %u, trace handle 0x%x",
		     r->stream, r->len, pd_port_text(r->rx_port, port), r->len, r->pool, r->refs,
		     r->handle);
	for (unsigned at = 0; at < r->shown && (size_t)n < size; at += 32) {
		pd_trace_hex(hex, sizeof(hex), r->data + at, pd_min(32u, r->shown - at));
		n += snprintf(out + n, size - (size_t)n, "\n%08x: %s", at, hex);
	}
	return n;
}

PD_NODE_REGISTER(pd_pg_input) = {
	.name = "pg-input",
	.type = PD_NODE_INPUT,
	.fn = pd_pg_input_dispatch,
	.errors = (const char *const[]){[PD_PG_INPUT_ERROR_NO_BUFFER] = "no buffer for a frame"},
	.error_count = PD_PG_INPUT_ERRORS,
	.trace = pd_pg_input_trace,
	.format_trace = pd_pg_input_format_trace,
};

/* --- streams: the control path --------------------------------------------------------------- */

struct pd_buffer_pool *pd_generator_pool(void)
{
	return pd_load_acquire(&pd_stream_pool);
}

void pd_stream_config_free(struct pd_stream_config *config)
{
	free(config->data);
	free(config->end);
	config->data = NULL;
	config->end = NULL;
	config->frames = 0;
}

/* The stream of that name, or NULL. The list's lock held. */
static struct pd_stream *pd_stream_find(const char *name)
{
	struct pd_stream *s = pd_streams;

	while (s && strcmp(s->config.name, name))
		s = s->next;
	return s;
}

/* Whether the frames of a stream have lengths that frames may have. */
static bool pd_stream_sizes_are_right(const struct pd_stream_config *c)
{
	uint32_t begin = 0;

	if (c->size_max)
		return c->size_min >= PD_FRAME_MIN_BYTES && c->size_min <= c->size_max &&
		       c->size_max <= PD_FRAME_MAX_BYTES;
	if (!c->frames)
		return false;
	for (unsigned f = 0; f < c->frames; f++) {
		uint32_t len = c->end[f] - begin;

		begin = c->end[f];
		if ((len < PD_FRAME_MIN_BYTES && (len || !c->has_sidecar)) ||
		    len > PD_FRAME_MAX_BYTES)
			return false;
	}
	return true;
}

/* The longest frame of a stream. */
static uint32_t pd_stream_longest(const struct pd_stream_config *c)
{
	uint32_t begin = 0, longest = c->size_max;

	for (unsigned f = 0; f < c->frames && !c->size_max; f++) {
		longest = pd_max(longest, c->end[f] - begin);
		begin = c->end[f];
	}
	return longest;
}

/* Make the pool, once. The list's lock held. Returns 0 or -errno. */
static int pd_stream_make_pool(void)
{
	struct pd_buffer_pool *pool;
	int err = 0;

	if (pd_stream_pool)
		return 0;
	pool = pd_buffer_pool_create_with("generator", PD_GENERATOR_BUFFERS, PD_BUFFER_HEADROOM,
					  PD_GENERATOR_BUFFER_BYTES, &err);
	if (pool)
		pd_store_release(&pd_stream_pool, pool);
	return pool ? 0 : err;
}

int pd_stream_new(struct pd_stream_config *config)
{
	int ret = pd_node_may_enter(config->node);
	struct pd_stream *s;

	if (ret)
		return ret;
	if (!*config->name || !config->frames || !pd_stream_sizes_are_right(config) ||
	    !config->worker || config->worker > PD_WORKERS_MAX || config->rate > PD_STREAM_RATE_MAX)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->config = *config;
	s->chain = pd_stream_chain(pd_stream_longest(config));
	pd_lock(&pd_streams_lock);
	ret = pd_stream_find(config->name) ? -EEXIST : pd_stream_make_pool();
	if (!ret) {
		struct pd_stream **last = &pd_streams;

		while (*last)
			last = &(*last)->next;
		*last = s;
	}
	pd_unlock(&pd_streams_lock);
	if (ret) {
		free(s);
		return ret;
	}
	config->data = NULL;
	config->end = NULL;
	config->frames = 0;
	return 0;
}

/* Let a stream run. The list's lock held. Returns 0, -ESRCH or -ENOENT. */
static int pd_stream_enable(struct pd_stream *s)
{
	struct pd_stream_thread *thread = &pd_stream_threads[s->config.worker];
	struct pd_engine *engine = pd_worker_engine(s->config.worker);
	struct pd_node *to;

	if (!engine)
		return -ESRCH;
	to = pd_engine_node(engine, s->config.node);
	if (!to)
		return -ENOENT;
	pd_lock_nested(&thread->lock);
	if (!s->enabled) {
		s->to = to;
		pd_store_relaxed(&s->enabled, true);
		s->started_ns = pd_clock_ns();
		pd_store_relaxed(&s->sent, 0);
		s->frame = 0;
		s->size = s->config.size_min;
		s->running = thread->first;
		thread->first = s;
		pd_store_relaxed(&thread->count, thread->count + 1);
	}
	pd_unlock(&thread->lock);
	pd_engine_wake(engine);
	return 0;
}

/* Stop a stream. The list's lock held. */
static void pd_stream_disable(struct pd_stream *s)
{
	struct pd_stream_thread *thread = &pd_stream_threads[s->config.worker];
	struct pd_engine *engine = pd_worker_engine(s->config.worker);

	pd_lock_nested(&thread->lock);
	pd_stream_halt(thread, s);
	pd_unlock(&thread->lock);
	/* Others may run there, and may have been passed over while the lock was held. */
	if (engine)
		pd_engine_wake(engine);
}

int pd_generator_enable(const char *name)
{
	int ret = -ENOENT;

	pd_lock(&pd_streams_lock);
	for (struct pd_stream *s = pd_streams; s; s = s->next) {
		int err;

		if (name && strcmp(s->config.name, name))
			continue;
		err = pd_stream_enable(s);
		ret = ret == -ENOENT || err ? err : ret;
	}
	pd_unlock(&pd_streams_lock);
	return ret;
}

int pd_generator_disable(const char *name)
{
	bool found = false;

	pd_lock(&pd_streams_lock);
	for (struct pd_stream *s = pd_streams; s; s = s->next) {
		if (name && strcmp(s->config.name, name))
			continue;
		found = true;
		pd_stream_disable(s);
	}
	pd_unlock(&pd_streams_lock);
	return found ? 0 : -ENOENT;
}

int pd_generator_delete(const char *name)
{
	struct pd_stream *s, **at = &pd_streams;

	pd_lock(&pd_streams_lock);
	while (*at && strcmp((*at)->config.name, name))
		at = &(*at)->next;
	s = *at;
	if (s) {
		pd_stream_disable(s);
		*at = s->next;
	}
	pd_unlock(&pd_streams_lock);
	if (!s)
		return -ENOENT;
	pd_stream_config_free(&s->config);
	free(s);
	return 0;
}

void pd_generator_each(void (*fn)(const struct pd_stream_info *info, void *arg), void *arg)
{
	pd_lock(&pd_streams_lock);
	for (struct pd_stream *s = pd_streams; s; s = s->next) {
		struct pd_stream_info info = {
			.config = &s->config,
			.enabled = pd_load_relaxed(&s->enabled),
			.sent = pd_load_relaxed(&s->sent),
			.sent_ever = pd_load_relaxed(&s->sent_ever),
		};

		fn(&info, arg);
	}
	pd_unlock(&pd_streams_lock);
}

void pd_generator_reset(void)
{
	struct pd_stream *s = pd_streams;

	pd_generator_disable(NULL);
	while (s) {
		struct pd_stream *next = s->next;

		pd_stream_config_free(&s->config);
		free(s);
		s = next;
	}
	pd_streams = NULL;
	pd_buffer_pool_destroy(pd_stream_pool);
	pd_stream_pool = NULL;
}
