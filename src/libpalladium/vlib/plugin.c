/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of plug-ins as nodes and init functions of the engine (contracts in plugin.h).
 *
 * A node of a plug-in has the nexts of enum palladium_next first, then its own; of its counters the
 * last is ours, for frames that it sent where nothing is. What a plug-in writes to `next` and notes
 * as an error is checked for every frame: a mistake there costs the frame and not the program.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vlib/chain.h"
#include "vlib/lane_plugins.h"
#include "vlib/plugin.h"
#include "vlib/trace.h"

/* Frames that a work function gets at a time: what it is given stands on the program's stack. */
#define PD_PLUGIN_FRAMES 32
/* Counters of a node, at most. */
#define PD_PLUGIN_TEXTS_MAX 1024

_Static_assert(PALLADIUM_NEXT_OWN + PALLADIUM_NODE_OWN_MAX == PD_NODE_NEXTS_MAX,
	       "a node's own nexts fill up what there is");
_Static_assert(PALLADIUM_NODE_DATA_BYTES == PD_NODE_DATA_BYTES, "a plug-in's data are the node's");
_Static_assert(PALLADIUM_PLUGIN_SIDECAR_BYTES == PD_BUFFER_SIDECAR_BYTES, "a sidecar is one");
_Static_assert((int)PALLADIUM_LOG_ERROR == (int)PD_LOG_ERROR &&
		       (int)PALLADIUM_LOG_WARN == (int)PD_LOG_WARN &&
		       (int)PALLADIUM_LOG_INFO == (int)PD_LOG_INFO &&
		       (int)PALLADIUM_LOG_DEBUG == (int)PD_LOG_DEBUG,
	       "levels are the library's");
/* What compiled plug-ins rely on: PALLADIUM_PLUGIN_VERSION goes up with any of it. */
_Static_assert(PALLADIUM_PLUGIN_VERSION == 2 &&
		       (sizeof(void *) != 8 || (sizeof(struct palladium_frame) == 40 &&
						sizeof(struct palladium_node) == 56 &&
						sizeof(struct palladium_init) == 32 &&
						sizeof(struct palladium_plugin) == 64 &&
						sizeof(struct palladium_node_state) == 24 &&
						sizeof(struct palladium_host) == 64)),
	       "version 2");

struct pd_plugin *pd_plugins;

/* --- what the library does for a plug-in ----------------------------------------------------- */

static void pd_plugin_log(const char *plugin, int level, const char *text)
{
	level = pd_max(level, (int)PD_LOG_ERROR);
	pd_log(pd_min(level, (int)PD_LOG_DEBUG), "plugin", "%s: %s", plugin, text);
}

static uint32_t pd_plugin_read(const struct palladium_frame *f, uint32_t at, void *out, uint32_t n)
{
	const struct pd_buffer *b = f->buffer;

	return at < b->total_len ? pd_buffer_copy_out(b, at, out, pd_min(n, b->total_len - at)) : 0;
}

/* As pd_buffer_copy_out, into the frame. */
static uint32_t pd_plugin_write(const struct palladium_frame *f, uint32_t at, const void *from,
				uint32_t n)
{
	struct pd_buffer *b = f->buffer;
	uint32_t done = 0, part;

	for (;;) {
		if (at < b->len) {
			part = pd_min(b->len - at, n - done);
			memcpy(b->data + at, (const uint8_t *)from + done, part);
			done += part;
			at = 0;
		} else {
			at -= b->len;
		}
		if (done == n || b->next == PD_BUFFER_NONE)
			return done;
		b = pd_buffer_get(b->next);
	}
}

/* What is to be seen of a frame whose bytes were moved. */
static void pd_plugin_show_bytes(struct palladium_frame *f, const struct pd_buffer *b)
{
	f->head = b->data;
	f->head_len = b->len;
	f->len = b->total_len;
}

/*
 * 0 if a frame may have `len` bytes in place of those it has: one that is no larger than the
 * network takes stays so, and one that is only looked at (palladium_eval) stays what it is. Else
 * -errno.
 */
static int pd_plugin_length(const struct pd_buffer *b, uint64_t len)
{
	if (b->flags & PD_BUFFER_EXTERNAL)
		return -ENOBUFS;
	if (b->flags & PD_BUFFER_CONTROL || len < PD_FRAME_MIN_BYTES)
		return -EINVAL;
	return len <= (b->total_len > PD_FRAME_MAX_BYTES ? PD_FRAME_LARGE_BYTES
							 : PD_FRAME_MAX_BYTES)
		       ? 0
		       : -EMSGSIZE;
}

static uint8_t *pd_plugin_push(struct palladium_frame *f, uint32_t n)
{
	struct pd_buffer *b = f->buffer;
	uint8_t *head =
		pd_plugin_length(b, (uint64_t)b->total_len + n) ? NULL : pd_chain_push(b, n);

	pd_plugin_show_bytes(f, b);
	return head;
}

/* The head stays an Ethernet header at least; where it has to be gathered for that, it can be. */
static int pd_plugin_pull(struct palladium_frame *f, uint32_t n)
{
	struct pd_buffer *b = f->buffer;
	int ret = n <= b->total_len ? pd_plugin_length(b, b->total_len - n) : -EINVAL;
	uint32_t size = pd_chain_headroom(b) + b->len + pd_chain_tailroom(b);

	if (!ret && size < PD_FRAME_MIN_BYTES && b->len < n + PD_FRAME_MIN_BYTES)
		ret = -ENOBUFS;
	if (!ret && !pd_chain_pull(b, n))
		ret = -EINVAL;
	if (!ret)
		pd_chain_gather(b, PD_FRAME_MIN_BYTES);
	pd_plugin_show_bytes(f, b);
	return ret;
}

static int pd_plugin_append(struct palladium_frame *f, const void *bytes, uint32_t n)
{
	struct pd_buffer *b = f->buffer;
	int ret = pd_plugin_length(b, (uint64_t)b->total_len + n);

	if (!ret)
		ret = pd_chain_append(b, pd_buffer_pool_of(b), bytes, n);
	pd_plugin_show_bytes(f, b);
	return ret;
}

static int pd_plugin_trim(struct palladium_frame *f, uint32_t len)
{
	struct pd_buffer *b = f->buffer;
	int ret = len <= b->total_len ? pd_plugin_length(b, len) : -EINVAL;

	if (!ret && !pd_chain_trim(b, len))
		ret = -EINVAL;
	pd_plugin_show_bytes(f, b);
	return ret;
}

static const struct palladium_host pd_plugin_host = {
	.version = PALLADIUM_PLUGIN_VERSION,
	.size = sizeof(struct palladium_host),
	.log = pd_plugin_log,
	.read = pd_plugin_read,
	.write = pd_plugin_write,
	.push = pd_plugin_push,
	.pull = pd_plugin_pull,
	.append = pd_plugin_append,
	.trim = pd_plugin_trim,
};

/* --- the node -------------------------------------------------------------------------------- */

/* Where a frame really goes that its node sends to `next`. */
static uint16_t pd_plugin_next(const struct pd_node_ctx *ctx, const struct pd_node *node,
			       const struct palladium_frame *f, uint16_t next)
{
	uint32_t texts = node->reg->error_count - 1, error = f->error;

	if (pd_likely(next < node->next_count && next != PALLADIUM_NEXT_ERROR))
		return next;
	if (next != PALLADIUM_NEXT_ERROR || error > texts)
		error = texts;
	pd_buffer_set_error(f->buffer, ctx, error);
	return PALLADIUM_NEXT_ERROR;
}

/* The dispatch of every node of a plug-in. Returns the frames it saw. */
static unsigned pd_plugin_dispatch(struct pd_engine *engine, struct pd_node *node,
				   struct pd_vector *vector)
{
	const struct pd_plugin_node *pn = pd_container_of(node->reg, struct pd_plugin_node, reg);
	const struct pd_node_ctx ctx = pd_node_ctx(node);
	struct palladium_frame frame[PD_PLUGIN_FRAMES], *frames[PD_PLUGIN_FRAMES];
	struct palladium_node_state state = {
		.counters = node->errors,
		.counter_count = pn->node->text_count,
		.data = node->data,
	};
	uint16_t *nexts = engine->scratch.nexts;
	unsigned n;

	for (unsigned at = 0; at < vector->n; at += n) {
		n = pd_min(vector->n - at, (unsigned)PD_PLUGIN_FRAMES);
		for (unsigned i = 0; i < n; i++) {
			pd_plugin_show(&frame[i], pd_buffer_get(vector->index[at + i]));
			frames[i] = &frame[i];
			nexts[at + i] = PALLADIUM_NEXT_ON;
		}
		pd_plugin_work(pn->node, &state, frames, nexts + at, n);
		for (unsigned i = 0; i < n; i++) {
			/* Not what it may have written there. */
			frame[i].buffer = pd_buffer_get(vector->index[at + i]);
			nexts[at + i] = pd_plugin_next(&ctx, node, &frame[i], nexts[at + i]);
		}
	}
	pd_enqueue(engine, node, vector->index, nexts, vector->n);
	return vector->n;
}

/* --- tables ---------------------------------------------------------------------------------- */

/* What is wrong with a node's row, or NULL. */
static const char *pd_plugin_check_node(const struct palladium_node *node)
{
	if (!node->name || !*node->name || !node->work)
		return "a node without a name or a work function";
	if (!node->after != !node->before)
		return "a node with one end of the way that it is to stand on";
	if (node->next_count > PALLADIUM_NODE_OWN_MAX || (node->next_count && !node->nexts))
		return "a node with too many nexts";
	for (uint32_t i = 0; i < node->next_count; i++)
		if (!node->nexts[i])
			return "a next without a name";
	if (node->text_count > PD_PLUGIN_TEXTS_MAX || (node->text_count && !node->texts))
		return "a node with too many texts";
	for (uint32_t i = 0; i < node->text_count; i++)
		if (!node->texts[i])
			return "a counter without a text";
	return NULL;
}

const char *pd_plugin_check(const struct palladium_plugin *table)
{
	const char *why = NULL;

	if (table->magic != PALLADIUM_PLUGIN_MAGIC)
		return "its palladium_plugin is not what PALLADIUM_PLUGIN makes";
	if (table->version != PALLADIUM_PLUGIN_VERSION || table->size != sizeof(*table) ||
	    table->node_size != sizeof(struct palladium_node) ||
	    table->init_size != sizeof(struct palladium_init))
		return "it was compiled against another version of palladium_plugin.h";
	if (!table->name || !table->host || (table->node_count && !table->nodes) ||
	    (table->init_count && !table->inits))
		return "its table has holes";
	for (uint32_t i = 0; i < table->node_count && !why; i++)
		why = pd_plugin_check_node(&table->nodes[i]);
	for (uint32_t i = 0; i < table->init_count && !why; i++)
		if (!table->inits[i].name || !table->inits[i].fn)
			why = "an init function without a name, or none";
	return why;
}

/* Fill in the registration of a node. Returns 0 or -ENOMEM. */
static int pd_plugin_make_node(struct pd_plugin_node *pn, const struct palladium_node *node)
{
	struct pd_node_registration *reg = &pn->reg;

	pn->texts = calloc(node->text_count + 1, sizeof(*pn->texts));
	if (!pn->texts)
		return -ENOMEM;
	pn->node = node;
	for (uint32_t i = 0; i < node->text_count; i++)
		pn->texts[i] = node->texts[i];
	pn->texts[node->text_count] =
		"sent to a next, or for a reason, that the node does not have";
	*reg = (struct pd_node_registration){
		.name = node->name,
		.type = PD_NODE_INTERNAL,
		.fn = pd_plugin_dispatch,
		.no_entry = true,
		.opens = true,
		.after = node->after,
		.before = node->before,
		.trace = pd_trace_frame,
		.format_trace = pd_trace_frame_format,
		.errors = pn->texts,
		.error_count = node->text_count + 1,
		.next_count = PALLADIUM_NEXT_OWN + node->next_count,
		.next_names = {[PALLADIUM_NEXT_ON] = node->before ? node->before : "punt",
			       [PALLADIUM_NEXT_DROP] = "drop",
			       [PALLADIUM_NEXT_ERROR] = "error-drop",
			       [PALLADIUM_NEXT_PUNT] = "punt"},
	};
	for (uint32_t i = 0; i < node->next_count; i++)
		reg->next_names[PALLADIUM_NEXT_OWN + i] = node->nexts[i];
	return 0;
}

/* Fill in what the engine knows of a plug-in. Returns 0 or -ENOMEM. */
static int pd_plugin_make(struct pd_plugin *p)
{
	const struct palladium_plugin *table = p->table;
	int ret = 0;

	p->nodes = calloc(table->node_count + 1, sizeof(*p->nodes));
	p->inits = calloc(table->init_count + 1, sizeof(*p->inits));
	if (!p->nodes || !p->inits)
		return -ENOMEM;
	for (uint32_t i = 0; i < table->node_count && !ret; i++)
		ret = pd_plugin_make_node(&p->nodes[i], &table->nodes[i]);
	for (uint32_t i = 0; i < table->init_count; i++)
		p->inits[i] = (struct pd_init){
			.name = table->inits[i].name,
			.fn = table->inits[i].fn,
			.runs_before = table->inits[i].runs_before,
			.runs_after = table->inits[i].runs_after,
		};
	*table->host = &pd_plugin_host;
	return ret;
}

/* Free what pd_plugin_make made. */
static void pd_plugin_free_nodes(struct pd_plugin *p)
{
	for (uint32_t i = 0; p->nodes && i < p->table->node_count; i++)
		free(p->nodes[i].texts);
	free(p->nodes);
	free(p->inits);
	p->nodes = NULL;
	p->inits = NULL;
}

/* Say that a plug-in is not used. */
static void pd_plugin_refuse(struct pd_plugin *p, const char *why)
{
	p->refused = why;
	pd_err("plugin", "%s is not used: %s", p->path, why);
}

struct pd_plugin *pd_plugin_add(const char *path, void *handle,
				const struct palladium_plugin *table)
{
	struct pd_plugin *p = calloc(1, sizeof(*p)), **end = &pd_plugins;
	const char *why;

	if (!p)
		return NULL;
	p->path = strdup(path);
	if (!p->path) {
		free(p);
		return NULL;
	}
	p->handle = handle;
	p->table = table;
	while (*end)
		end = &(*end)->next;
	*end = p;
	why = pd_plugin_check(table);
	if (table->magic == PALLADIUM_PLUGIN_MAGIC && table->version != PALLADIUM_PLUGIN_VERSION)
		pd_err("plugin",
		       "%s is for version %u of palladium_plugin.h, and this is version %u", path,
		       table->version, PALLADIUM_PLUGIN_VERSION);
	if (!why && pd_plugin_make(p)) {
		pd_plugin_free_nodes(p);
		why = "no memory";
	}
	if (why) {
		p->table = NULL;
		pd_plugin_refuse(p, why);
	}
	return p;
}

/* --- starting -------------------------------------------------------------------------------- */

/* Take the nodes of a plug-in out of the registered ones. */
static void pd_plugin_leave(struct pd_plugin *p)
{
	for (uint32_t i = 0; p->table && i < p->table->node_count; i++)
		pd_node_unregister(&p->nodes[i].reg);
}

/*
 * Register the nodes of a plug-in, and see whether an engine can be made of all that are. Refuses
 * it if not; the engine has said what is wrong.
 */
static void pd_plugin_enter(struct pd_plugin *p)
{
	struct pd_engine *engine;
	int err;

	for (uint32_t i = 0; i < p->table->node_count; i++)
		pd_node_register(&p->nodes[i].reg);
	engine = pd_engine_create("plug-ins are tried", &err);
	pd_engine_destroy(engine);
	if (engine)
		return;
	pd_plugin_leave(p);
	pd_plugin_refuse(p, err == -ENOMEM ? "no memory" : "its nodes do not fit into the graph");
}

/* Whose init function it is. */
static struct pd_plugin *pd_plugin_of_init(const struct pd_init *init)
{
	struct pd_plugin *p = pd_plugins;

	while (p && !(p->table && init >= p->inits && init < p->inits + p->table->init_count))
		p = p->next;
	return p;
}

/*
 * Run the init functions of those in use. False when one was refused, and all has to be tried
 * again.
 */
static bool pd_plugins_run_inits(void)
{
	struct pd_init_list list = {0};
	struct pd_plugin *p;
	int ret;

	for (p = pd_plugins; p; p = p->next)
		for (uint32_t i = 0; !p->refused && i < p->table->init_count; i++)
			pd_init_register(&list, &p->inits[i]);
	ret = pd_init_run(&list);
	if (!ret)
		return true;
	if (list.failed) {
		pd_plugin_refuse(pd_plugin_of_init(list.failed), "its init function failed");
		return false;
	}
	for (p = pd_plugins; p; p = p->next)
		if (!p->refused)
			pd_plugin_refuse(p, "the init functions cannot be run");
	return false;
}

unsigned pd_plugins_start(void)
{
	struct pd_plugin *p;
	unsigned used, nodes;

	do {
		used = nodes = 0;
		for (p = pd_plugins; p; p = p->next) /* in use without those that were refused */
			pd_plugin_leave(p);
		for (p = pd_plugins; p; p = p->next) {
			if (!p->refused)
				pd_plugin_enter(p);
			used += !p->refused;
			nodes += p->refused ? 0 : p->table->node_count;
		}
	} while (used && !pd_plugins_run_inits());
	pd_lane_plugins_wanted = nodes != 0;
	for (p = pd_plugins; p; p = p->next)
		if (!p->refused)
			pd_info("plugin", "%s: %s, %u node%s", p->path, p->table->name,
				p->table->node_count, p->table->node_count == 1 ? "" : "s");
	return used;
}
