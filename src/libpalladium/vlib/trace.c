/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracer (theory and contract in trace.h).
 *
 * A buffer's `trace` is a handle: the tag of the tracer that follows it, and the number of the
 * frame there. A tracer takes a new tag when it is cleared, so that frames that are still on their
 * way are strangers to it from then on, as are those of other engines.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "vlib/runtime.h"
#include "vlib/trace.h"

/* Entries that a tracer keeps. */
#define PD_TRACE_ENTRIES 4096
/* Nodes whose frames are waited for at once. */
#define PD_TRACE_WANTS 4
/* The frame's number in a handle; the tag stands above it. */
#define PD_TRACE_NUMBER_BITS 20
#define PD_TRACE_NUMBER_MASK ((1u << PD_TRACE_NUMBER_BITS) - 1)
_Static_assert(PD_TRACE_ENTRIES <= PD_TRACE_NUMBER_MASK,
	       "a frame has an entry, so it has a number");
/* What one node says of one frame. */
#define PD_TRACE_TEXT_BYTES 4608

struct pd_trace_entry {
	uint64_t time_ns;
	const struct pd_node_registration *reg; /* NULL: it came by a handoff */
	uint32_t frame;
	uint32_t from, index; /* of a handoff: thread, and number there */
	uint8_t record[PD_TRACE_RECORD_BYTES] PD_ALIGNED(16); /* of any type */
};

struct pd_tracer {
	struct pd_lock lock; /* rank PD_RANK_LEAF */
	uint32_t tag;        /* shifted */
	struct {
		const struct pd_node_registration *reg;
		unsigned left;
	} want[PD_TRACE_WANTS];
	bool wants; /* some `left` is not 0: pd_graph_wanted counts this engine */
	unsigned frames, entries;
	uint64_t lost;
	struct pd_trace_entry entry[PD_TRACE_ENTRIES];
};

static uint32_t pd_trace_tags; /* atomic: counts tags */

/* --- marking and recording: whoever runs the engine ----------------------------------------- */

/* Have pd_graph_wanted say whether this tracer has frames to mark. Lock held. */
static void pd_tracer_want(struct pd_tracer *t)
{
	bool wants = false;

	for (unsigned i = 0; i < PD_TRACE_WANTS; i++)
		wants |= t->want[i].left != 0;
	if (wants != t->wants)
		__atomic_fetch_add(&pd_graph_wanted, wants ? 1u : UINT32_MAX, __ATOMIC_RELAXED);
	t->wants = wants;
}

/* Forget all frames and wishes. Lock held. */
static void pd_tracer_clear(struct pd_tracer *t)
{
	memset(t->want, 0, sizeof(t->want));
	pd_tracer_want(t);
	t->tag = pd_fetch_add(&pd_trace_tags, 1) << PD_TRACE_NUMBER_BITS;
	t->frames = t->entries = 0;
	t->lost = 0;
}

/* Whether this tracer follows the frame. */
static inline bool pd_tracer_follows(const struct pd_tracer *t, const struct pd_buffer *b)
{
	return b->flags & PD_BUFFER_TRACED && (b->trace & ~PD_TRACE_NUMBER_MASK) == t->tag &&
	       (b->trace & PD_TRACE_NUMBER_MASK) < t->frames;
}

/* Room for one entry, its time and frame filled in; NULL: counted as lost. Lock held. */
static struct pd_trace_entry *pd_tracer_entry(struct pd_tracer *t, const struct pd_buffer *b,
					      uint64_t now)
{
	struct pd_trace_entry *entry;

	if (t->entries == PD_TRACE_ENTRIES) {
		t->lost++;
		return NULL;
	}
	entry = &t->entry[t->entries++];
	entry->time_ns = now;
	entry->frame = b->trace & PD_TRACE_NUMBER_MASK;
	entry->reg = NULL;
	return entry;
}

/* Follow the frame from here on, if there is room for an entry of it. Lock held. */
static bool pd_tracer_follow(struct pd_tracer *t, struct pd_buffer *b)
{
	if (t->entries == PD_TRACE_ENTRIES) {
		t->lost++;
		return false;
	}
	b->flags |= PD_BUFFER_TRACED;
	b->trace = t->tag | t->frames++;
	return true;
}

/* The count of frames that are still to be marked at `node`; NULL: none are. Lock held. */
static unsigned *pd_tracer_left(struct pd_tracer *t, const struct pd_node *node)
{
	for (unsigned i = 0; i < PD_TRACE_WANTS; i++)
		if (t->want[i].left && t->want[i].reg == node->reg)
			return &t->want[i].left;
	return NULL;
}

void pd_trace_frames(struct pd_engine *engine, struct pd_node *node, const uint32_t *indices,
		     unsigned n)
{
	struct pd_tracer *t = engine->tracer;
	uint64_t now = pd_clock_ns();
	unsigned *left;

	pd_lock(&t->lock);
	left = pd_tracer_left(t, node);
	for (unsigned i = 0; i < n; i++) {
		struct pd_buffer *b = pd_buffer_get(indices[i]);
		bool followed = pd_tracer_follows(t, b);
		struct pd_trace_entry *entry;

		/* A frame that others hold too is not ours to mark. */
		if (!followed && left && *left && pd_load_relaxed(&b->refs) <= 1) {
			--*left;
			followed = pd_tracer_follow(t, b);
		}
		entry = followed ? pd_tracer_entry(t, b, now) : NULL;
		if (!entry)
			continue;
		entry->reg = node->reg;
		if (node->reg->trace)
			node->reg->trace(engine, node, b, entry->record);
	}
	if (left)
		pd_tracer_want(t);
	pd_unlock(&t->lock);
}

void pd_trace_input_begin(const struct pd_engine *engine, const struct pd_node *node,
			  struct pd_trace_arcs *arcs)
{
	arcs->pending = engine->pending_count;
	for (unsigned i = 0; i < node->next_count; i++) {
		struct pd_vector *v = engine->nodes[node->next[i]].open;

		for (unsigned j = 0; j < i && v; j++)
			if (arcs->vector[j] == v) /* two arcs to one node */
				v = NULL;
		arcs->vector[i] = v;
		arcs->n[i] = v ? v->n : 0;
	}
}

void pd_trace_input_end(struct pd_engine *engine, struct pd_node *node,
			const struct pd_trace_arcs *arcs)
{
	for (unsigned i = 0; i < node->next_count; i++) {
		struct pd_vector *v = arcs->vector[i];

		if (v && v->n > arcs->n[i])
			pd_trace_frames(engine, node, v->index + arcs->n[i], v->n - arcs->n[i]);
	}
	for (unsigned i = arcs->pending; i < engine->pending_count; i++) {
		struct pd_vector *v = engine->pending[i].vector;

		pd_trace_frames(engine, node, v->index, v->n);
	}
}

/* One frame from another thread: it is ours to follow now, or nobody's. Lock held. */
static void pd_tracer_take_over(struct pd_tracer *t, struct pd_buffer *b, uint16_t from,
				uint64_t now)
{
	uint32_t index = b->trace & PD_TRACE_NUMBER_MASK;
	struct pd_trace_entry *entry = pd_tracer_follow(t, b) ? pd_tracer_entry(t, b, now) : NULL;

	if (!entry) {
		b->flags &= (uint16_t)~PD_BUFFER_TRACED;
		return;
	}
	entry->from = from;
	entry->index = index;
}

void pd_trace_handed_off(struct pd_engine *engine, const uint32_t *indices, unsigned n,
			 uint16_t from)
{
	/* Pairs with the release in pd_trace_start. */
	struct pd_tracer *t = pd_load_acquire(&engine->tracing) ? engine->tracer : NULL;
	uint64_t now = pd_clock_ns();

	if (t)
		pd_lock(&t->lock);
	for (unsigned i = 0; i < n; i++) {
		struct pd_buffer *b = pd_buffer_get(indices[i]);

		/* What others hold too stays marked, and is a stranger's here. */
		if (!(b->flags & PD_BUFFER_TRACED) || pd_load_relaxed(&b->refs) > 1)
			continue;
		if (t)
			pd_tracer_take_over(t, b, from, now);
		else
			b->flags &= (uint16_t)~PD_BUFFER_TRACED;
	}
	if (t)
		pd_unlock(&t->lock);
}

/* --- asking for it: the control path --------------------------------------------------------- */

/*
 * What a walk over the engines is about. Tracers are made before the walk, which happens under a
 * lock, and linked by their first word.
 */
struct pd_trace_walk {
	const char *node;
	unsigned frames;
	unsigned found;           /* engines with that node */
	unsigned lack;            /* of them, those without a tracer */
	struct pd_tracer **spare; /* tracers for those */
	unsigned spare_count;
	int err;
};

/* Ask one tracer for frames. Lock held. Returns 0 or -ENOSPC. */
static int pd_tracer_ask(struct pd_tracer *t, const struct pd_node_registration *reg,
			 unsigned frames)
{
	unsigned free = PD_TRACE_WANTS;

	for (unsigned i = 0; i < PD_TRACE_WANTS; i++) {
		if (t->want[i].left && t->want[i].reg == reg) {
			free = i;
			break;
		}
		if (!t->want[i].left && free == PD_TRACE_WANTS)
			free = i;
	}
	if (free == PD_TRACE_WANTS)
		return -ENOSPC;
	if (!t->want[free].left)
		t->want[free].reg = reg;
	t->want[free].left += frames;
	pd_tracer_want(t);
	return 0;
}

/* Have `engine` trace; its tracer is there. Returns 0 or -ENOSPC. */
static int pd_trace_start(struct pd_engine *engine, const struct pd_node_registration *reg,
			  unsigned frames)
{
	struct pd_tracer *t = engine->tracer;
	int ret;

	pd_lock_nested(&t->lock); /* within the list of the engines */
	ret = pd_tracer_ask(t, reg, frames);
	/* Pairs with the acquires of the dispatcher and of pd_trace_handed_off. */
	pd_store_release(&engine->tracing, 1);
	pd_unlock(&t->lock);
	return ret;
}

/* Count the engines, or with tracers to spare start them. */
static void pd_trace_add_one(struct pd_engine *engine, void *arg)
{
	struct pd_trace_walk *walk = arg;
	struct pd_node *node = pd_engine_node(engine, walk->node);
	int err;

	if (!node)
		return;
	walk->found++;
	if (!engine->tracer && walk->spare_count) {
		/* Under the list's lock; nobody looks at it before `tracing` says so. */
		engine->tracer = walk->spare[--walk->spare_count];
		pd_tracer_clear(engine->tracer);
	}
	if (!engine->tracer) {
		walk->lack++;
		return;
	}
	err = pd_trace_start(engine, node->reg, walk->frames);
	walk->err = walk->err ? walk->err : err;
}

static void pd_trace_count_one(struct pd_engine *engine, void *arg)
{
	struct pd_trace_walk *walk = arg;

	if (!pd_engine_node(engine, walk->node))
		return;
	walk->found++;
	walk->lack += !engine->tracer;
}

/* A tracer that belongs to no engine yet; NULL when there is no memory. */
static struct pd_tracer *pd_tracer_new(void)
{
	/* Large enough to be fresh pages: what is not used costs nothing. */
	struct pd_tracer *t = calloc(1, sizeof(*t));

	if (t)
		pd_lock_init(&t->lock, PD_RANK_LEAF);
	return t;
}

int pd_trace_add(const char *node, unsigned frames)
{
	struct pd_trace_walk walk = {.node = node, .frames = frames};

	if (!frames || frames > PD_TRACE_FRAMES_MAX)
		return -EINVAL;
	pd_runtime_engines(pd_trace_count_one, &walk);
	if (!walk.found)
		return -ENOENT;
	walk.spare = calloc(walk.lack + 1, sizeof(struct pd_tracer *));
	if (!walk.spare)
		return -ENOMEM;
	while (walk.spare_count < walk.lack) {
		walk.spare[walk.spare_count] = pd_tracer_new();
		if (!walk.spare[walk.spare_count])
			break;
		walk.spare_count++;
	}
	if (walk.spare_count < walk.lack)
		walk.err = -ENOMEM;
	else
		pd_runtime_engines(pd_trace_add_one, &walk);
	while (walk.spare_count)
		free(walk.spare[--walk.spare_count]);
	free(walk.spare);
	return walk.err;
}

/* Clear one engine's tracer. */
static void pd_trace_clear_one(struct pd_engine *engine, void *arg)
{
	(void)arg;
	if (!engine->tracer)
		return;
	pd_store_release(&engine->tracing, 0);
	pd_lock_nested(&engine->tracer->lock);
	pd_tracer_clear(engine->tracer);
	pd_unlock(&engine->tracer->lock);
}

void pd_trace_clear(void)
{
	pd_runtime_engines(pd_trace_clear_one, NULL);
}

void pd_trace_forget(struct pd_engine *engine)
{
	if (!engine->tracer)
		return;
	pd_lock_init(&engine->tracer->lock, PD_RANK_LEAF);
	pd_trace_clear_one(engine, NULL);
}

void pd_trace_leave(struct pd_engine *engine)
{
	if (!engine->tracer)
		return;
	pd_trace_clear_one(engine, NULL);
	free(engine->tracer);
	engine->tracer = NULL;
}

/* --- printing -------------------------------------------------------------------------------- */

/* One engine's trace, taken out of it. */
struct pd_trace_copy {
	unsigned skip; /* engines with a tracer that come before it */
	bool found;
	char name[sizeof(((struct pd_engine *)0)->name)];
	unsigned thread;
	struct pd_tracer tracer;
};

/* Copy the trace of the engine that is its turn. */
static void pd_trace_copy_one(struct pd_engine *engine, void *arg)
{
	struct pd_trace_copy *copy = arg;
	const struct pd_tracer *t = engine->tracer;

	if (!t || copy->found || copy->skip--)
		return;
	copy->found = true;
	memcpy(copy->name, engine->name, sizeof(copy->name));
	copy->thread = engine->thread;
	pd_lock_nested(&engine->tracer->lock);
	copy->tracer.frames = t->frames;
	copy->tracer.entries = t->entries;
	copy->tracer.lost = t->lost;
	memcpy(copy->tracer.entry, t->entry, t->entries * sizeof(t->entry[0]));
	pd_unlock(&engine->tracer->lock);
}

/* Print what one node says, each line of it further to the right. */
static void pd_trace_print_text(char *text, pd_trace_line line, void *arg)
{
	char out[PD_TRACE_TEXT_BYTES + 8], *next;

	for (; text && *text; text = next) {
		next = strchr(text, '\n');
		if (next)
			*next++ = 0;
		snprintf(out, sizeof(out), "  %s", text);
		line(arg, out);
	}
}

/* Print one entry. */
static void pd_trace_print_entry(const struct pd_trace_entry *entry, pd_trace_line line, void *arg)
{
	uint64_t us = entry->time_ns / PD_NS_PER_US, s = us / 1000000;
	char text[PD_TRACE_TEXT_BYTES];

	snprintf(text, sizeof(text), "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ":%06" PRIu64 ": %s",
		 s / 3600, s / 60 % 60, s % 60, us % 1000000,
		 entry->reg ? entry->reg->name : "handoff_trace");
	line(arg, text);
	*text = 0;
	if (!entry->reg)
		snprintf(text, sizeof(text), "HANDED-OFF: from thread %u trace index %u",
			 entry->from, entry->index);
	else if (entry->reg->format_trace)
		entry->reg->format_trace(text, sizeof(text), entry->record);
	pd_trace_print_text(text, line, arg);
}

/* Print an engine's trace. */
static void pd_trace_print_copy(const struct pd_trace_copy *copy, unsigned max, pd_trace_line line,
				void *arg)
{
	const struct pd_tracer *t = &copy->tracer;
	unsigned frames = max ? pd_min(t->frames, max) : t->frames;
	char text[128];

	if (copy->thread)
		snprintf(text, sizeof(text),
			 "------------------- Start of thread %u %s -------------------",
			 copy->thread, copy->name);
	else
		snprintf(text, sizeof(text), "------------------- Start of %s -------------------",
			 copy->name);
	line(arg, text);
	if (!frames)
		line(arg, "No packets in trace buffer");
	for (unsigned f = 0; f < frames; f++) {
		snprintf(text, sizeof(text), "Packet %u", f + 1);
		line(arg, text);
		line(arg, "");
		for (unsigned i = 0; i < t->entries; i++)
			if (t->entry[i].frame == f)
				pd_trace_print_entry(&t->entry[i], line, arg);
		line(arg, "");
	}
	if (frames < t->frames) {
		snprintf(text, sizeof(text), "and %u more", t->frames - frames);
		line(arg, text);
	}
	if (t->lost) {
		snprintf(text, sizeof(text),
			 "the buffer is full: %" PRIu64 " entries were not kept", t->lost);
		line(arg, text);
	}
}

int pd_trace_print(unsigned max, pd_trace_line line, void *arg)
{
	struct pd_trace_copy *copy = malloc(sizeof(*copy));
	unsigned engines = 0, shown = 0;

	if (!copy)
		return -ENOMEM;
	for (;; engines++) {
		copy->skip = engines;
		copy->found = false;
		pd_runtime_engines(pd_trace_copy_one, copy);
		if (!copy->found)
			break;
		/* A program's lanes are many; a worker that saw nothing is worth a line. */
		if (!copy->thread && !copy->tracer.frames)
			continue;
		pd_trace_print_copy(copy, max, line, arg);
		shown++;
	}
	free(copy);
	if (!shown)
		line(arg, "No packets in trace buffer");
	return 0;
}

/* --- what most nodes tell --------------------------------------------------------------------- */

void pd_trace_frame(const struct pd_engine *engine, const struct pd_node *node,
		    const struct pd_buffer *b, void *record)
{
	struct pd_trace_frame *frame = record;
	const struct pd_buffer *part = b;

	(void)engine;
	(void)node;
	*frame = (struct pd_trace_frame){.total_len = b->total_len,
					 .flags = b->flags,
					 .rx_port = b->rx_port,
					 .tx_port = b->tx_port,
					 .segments = 1};
	for (; part->next != PD_BUFFER_NONE; part = pd_buffer_get(part->next))
		frame->segments++;
	if (b->flags & PD_BUFFER_SIDECAR)
		memcpy(frame->sidecar, b->sidecar, sizeof(frame->sidecar));
	if (b->total_len)
		pd_buffer_copy_out(b, 0, frame->data,
				   pd_min(b->total_len, (uint32_t)sizeof(frame->data)));
}

const char *pd_port_text(uint16_t port, char out[PD_PORT_TEXT_BYTES])
{
	if (port == PD_BUFFER_NO_PORT)
		snprintf(out, PD_PORT_TEXT_BYTES, "local0");
	else
		snprintf(out, PD_PORT_TEXT_BYTES, "port %u", port);
	return out;
}

int pd_trace_hex(char *out, size_t size, const uint8_t *bytes, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++, at += 2)
		snprintf(out + pd_min(at, size), size - pd_min(at, size), "%02x", bytes[i]);
	return (int)at;
}

int pd_trace_frame_format(char *out, size_t size, const void *record)
{
	const struct pd_trace_frame *f = record;
	char sidecar[2 * sizeof(f->sidecar) + 1], data[2 * sizeof(f->data) + 1];
	uint32_t shown = pd_min(f->total_len, (uint32_t)sizeof(f->data));

	*data = 0;
	pd_trace_hex(sidecar, sizeof(sidecar), f->sidecar, sizeof(f->sidecar));
	pd_trace_hex(data, sizeof(data), f->data, shown);
	return snprintf(out, size, "%s%u bytes in %u segment%s%s%s%s%s%s%s",
			f->flags & PD_BUFFER_CONTROL ? "control frame, " : "", f->total_len,
			f->segments, f->segments == 1 ? "" : "s",
			f->flags & PD_BUFFER_EXTERNAL ? ", in place" : "",
			f->flags & PD_BUFFER_OUTGOING ? ", sent by this port" : "",
			f->flags & PD_BUFFER_SIDECAR ? "\nsidecar " : "\nno sidecar",
			f->flags & PD_BUFFER_SIDECAR ? sidecar : "", shown ? "\n" : "", data);
}
