/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a plug-in of libpalladium is compiled against: nodes of the user's own on the way of the
 * frames that a port receives. palladium_plugin(7) walks through one; C11, C++17, C++20.
 *
 *     static void count_work(struct palladium_node_state *node,
 *                            struct palladium_frame *const *frames, uint16_t *next, unsigned n)
 *     {
 *             palladium_node_count(node, COUNT_SEEN, n);
 *     }
 *
 *     static const char *const count_texts[] = {[COUNT_SEEN] = "frames seen"};
 *     static const struct palladium_node nodes[] = {
 *             {.name = "count", .work = count_work, .after = "plugin-input",
 *              .before = "plugin-output", .texts = count_texts, .text_count = COUNT_TEXTS},
 *     };
 *     PALLADIUM_PLUGIN("count", nodes, 1, NULL, 0);
 *
 *     cc -shared -fPIC -o count.so count.c
 *     LD_PRELOAD=libpalladium.so PALLADIUM_PLUGIN_PATH=$PWD ... program
 *
 * A plug-in links to nothing of the library, and the library finds one thing in it: what
 * PALLADIUM_PLUGIN makes. PALLADIUM_PLUGIN_VERSION changes whenever something below does that a
 * compiled plug-in could notice; the library refuses a plug-in of another version.
 */
#ifndef PALLADIUM_PLUGIN_H
#define PALLADIUM_PLUGIN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PALLADIUM_PLUGIN_MAGIC 0x6e676c70u
#define PALLADIUM_PLUGIN_VERSION 2u

/* --- frames ----------------------------------------------------------------------------------- */

/*
 * A frame, which is the plug-in's to read and to write as long as its work function runs. Use the
 * functions below; the fields may be others in another version.
 */
struct palladium_frame {
	uint8_t *head;     /* its first bytes */
	uint32_t head_len; /* how many */
	uint32_t len;      /* of the whole frame */
	uint8_t *sidecar;  /* or NULL */
	uint32_t error;    /* what palladium_frame_fail noted */
	uint16_t port;     /* where it came in */
	uint16_t is_control;
	void *buffer; /* the library's */
};

/* The bytes of a sidecar: struct avip_mdata_t of palladium_extra.h. */
#define PALLADIUM_PLUGIN_SIDECAR_BYTES 48

/*
 * The first bytes of the frame, from the Ethernet header on: palladium_frame_head_len says how
 * many. That is all of it, unless it is longer than the network takes (a segment that the program
 * asked for with PACKET_VNET_HDR); read the rest with palladium_frame_read.
 */
static inline uint8_t *palladium_frame_head(const struct palladium_frame *f)
{
	return f->head;
}

static inline uint32_t palladium_frame_head_len(const struct palladium_frame *f)
{
	return f->head_len;
}

/* The length of the whole frame; 0: a control message, which is a sidecar alone. */
static inline uint32_t palladium_frame_len(const struct palladium_frame *f)
{
	return f->len;
}

/* Whether it is a control message. */
static inline int palladium_frame_is_control(const struct palladium_frame *f)
{
	return f->is_control;
}

/* Its sidecar, of PALLADIUM_PLUGIN_SIDECAR_BYTES; NULL when it came without one. */
static inline uint8_t *palladium_frame_sidecar(const struct palladium_frame *f)
{
	return f->sidecar;
}

/* The number of the port that it came in by, from 0, as the configuration names them. */
static inline unsigned palladium_frame_port(const struct palladium_frame *f)
{
	return f->port;
}

/* --- nodes ------------------------------------------------------------------------------------ */

/* Where a frame goes next; a node's own nexts are numbered from PALLADIUM_NEXT_OWN on. */
enum palladium_next {
	PALLADIUM_NEXT_ON,    /* the way it would go without the node; this stands there at first */
	PALLADIUM_NEXT_DROP,  /* away */
	PALLADIUM_NEXT_ERROR, /* away, and counted: palladium_frame_fail */
	PALLADIUM_NEXT_PUNT,  /* to the program, past all nodes that are still to come */
	PALLADIUM_NEXT_OWN
};

/* Nexts of its own that a node may have. */
#define PALLADIUM_NODE_OWN_MAX 12
/* Bytes of its own that a node has in each place where it runs. */
#define PALLADIUM_NODE_DATA_BYTES 128

/*
 * A node in one of the places where it runs: each queue of each port has one. One thread at a time
 * runs a place; several places run at once.
 */
struct palladium_node_state {
	uint64_t *counters;
	uint32_t counter_count;
	uint32_t reserved;
	void *data;
};

/* Add `n` to the counter `c`, the number of a text. */
static inline void palladium_node_count(struct palladium_node_state *node, uint32_t c, uint64_t n)
{
	if (c < node->counter_count)
		__atomic_store_n(&node->counters[c], node->counters[c] + n, __ATOMIC_RELAXED);
}

/*
 * PALLADIUM_NODE_DATA_BYTES that belong to the node in this place, zero at first and aligned for
 * any type.
 */
static inline void *palladium_node_data(const struct palladium_node_state *node)
{
	return node->data;
}

/*
 * Note why `f` is dropped, the number of a text, which error-drop counts: what to write to `next`
 * then.
 */
static inline uint16_t palladium_frame_fail(struct palladium_frame *f, uint32_t error)
{
	f->error = error;
	return PALLADIUM_NEXT_ERROR;
}

/*
 * The work of a node on `n` frames, 1 to 256, in the order in which they came; next[i] is where
 * frames[i] goes. It runs within a call of the program's, maybe in a signal handler's place: no
 * waiting, no socket, no lock that a thread of the program may hold while it calls.
 */
typedef void palladium_work_fn(struct palladium_node_state *node,
			       struct palladium_frame *const *frames, uint16_t *next, unsigned n);

struct palladium_node {
	const char *name; /* of no other node */
	palladium_work_fn *work;
	/*
	 * Where it stands: on the way from node `after` to node `before`, behind those that were
	 * put there earlier. `after` is plugin-input or a node of a plug-in. Both NULL: frames come
	 * to it by the nexts of other nodes alone, and PALLADIUM_NEXT_ON is PALLADIUM_NEXT_PUNT.
	 */
	const char *after, *before;
	/* Names of nodes, for PALLADIUM_NEXT_OWN, PALLADIUM_NEXT_OWN + 1 and so on. */
	const char *const *nexts;
	uint32_t next_count;
	/* Texts of what it counts. */
	uint32_t text_count;
	const char *const *texts;
};

/* --- init functions --------------------------------------------------------------------------- */

/*
 * What runs once, before the first frame and after all plug-ins are loaded. Each list of names is
 * NULL or ends with a NULL; they name init functions of any plug-in.
 */
struct palladium_init {
	const char *name;
	int (*fn)(void); /* 0; or a negative errno value: then the plug-in is not used */
	const char *const *runs_before;
	const char *const *runs_after;
};

/* --- the plug-in ------------------------------------------------------------------------------ */

enum palladium_log_level {
	PALLADIUM_LOG_ERROR = 2,
	PALLADIUM_LOG_WARN = 3,
	PALLADIUM_LOG_INFO = 4,
	PALLADIUM_LOG_DEBUG = 6
};

/* What the library does for a plug-in. */
struct palladium_host {
	uint32_t version; /* PALLADIUM_PLUGIN_VERSION */
	uint32_t size;
	void (*log)(const char *plugin, int level, const char *text);
	uint32_t (*read)(const struct palladium_frame *f, uint32_t at, void *out, uint32_t n);
	uint32_t (*write)(const struct palladium_frame *f, uint32_t at, const void *from,
			  uint32_t n);
	uint8_t *(*push)(struct palladium_frame *f, uint32_t n);
	int (*pull)(struct palladium_frame *f, uint32_t n);
	int (*append)(struct palladium_frame *f, const void *bytes, uint32_t n);
	int (*trim)(struct palladium_frame *f, uint32_t len);
};

struct palladium_plugin {
	uint32_t magic, version;
	uint32_t size, node_size, init_size, node_count, init_count, reserved;
	const char *name;
	const struct palladium_node *nodes;
	const struct palladium_init *inits;
	const struct palladium_host **host;
};

#if defined(__GNUC__)
#	define PALLADIUM_PLUGIN_EXPORT __attribute__((visibility("default")))
#	define PALLADIUM_PLUGIN_HIDDEN __attribute__((visibility("hidden")))
#else
#	define PALLADIUM_PLUGIN_EXPORT
#	define PALLADIUM_PLUGIN_HIDDEN
#endif

/* Set before the first init function runs. */
extern PALLADIUM_PLUGIN_HIDDEN const struct palladium_host *palladium_host;
extern PALLADIUM_PLUGIN_EXPORT const struct palladium_plugin palladium_plugin;

/*
 * Once in a plug-in, in C: its name, and its arrays with their lengths (NULL and 0: none).
 */
#define PALLADIUM_PLUGIN(name_, nodes_, node_count_, inits_, init_count_)                  \
	const struct palladium_host *palladium_host;                                       \
	const struct palladium_plugin palladium_plugin = {PALLADIUM_PLUGIN_MAGIC,          \
							  PALLADIUM_PLUGIN_VERSION,        \
							  sizeof(struct palladium_plugin), \
							  sizeof(struct palladium_node),   \
							  sizeof(struct palladium_init),   \
							  (node_count_),                   \
							  (init_count_),                   \
							  0,                               \
							  (name_),                         \
							  (nodes_),                        \
							  (inits_),                        \
							  &palladium_host}

/*
 * Copy up to `n` bytes of the frame, from byte `at` on, to `out`. Returns how many there were.
 */
static inline uint32_t palladium_frame_read(const struct palladium_frame *f, uint32_t at, void *out,
					    uint32_t n)
{
	return palladium_host->read(f, at, out, n);
}

/* Copy `n` bytes over those of the frame from byte `at` on; what is behind its end is not. */
static inline uint32_t palladium_frame_write(const struct palladium_frame *f, uint32_t at,
					     const void *from, uint32_t n)
{
	return palladium_host->write(f, at, from, n);
}

/*
 * Frames that become longer or shorter. None becomes shorter than an Ethernet header
 * (PALLADIUM_FRAME_MIN_BYTES), nor longer than PALLADIUM_FRAME_MAX_BYTES if it was not; control
 * messages have no bytes, and in palladium_eval frames keep their length. What a pointer from
 * palladium_frame_head stood for is there no more: ask again. A checksum or segmentation that the
 * sender has left to be done stays right.
 */
#define PALLADIUM_FRAME_MIN_BYTES 14u
#define PALLADIUM_FRAME_MAX_BYTES 12240u
/* Bytes that there is always room for in front of a frame, as it comes to the first node. */
#define PALLADIUM_FRAME_HEADROOM 128u

/*
 * Put `n` bytes in front, which are to be written. Returns the first of them, the frame's head;
 * NULL: there is no room, and nothing was done.
 */
static inline uint8_t *palladium_frame_push(struct palladium_frame *f, uint32_t n)
{
	return palladium_host->push(f, n);
}

/*
 * Take the first `n` bytes away. Returns 0; or -EINVAL: the frame is not that long, or what is left
 * to be done with it begins within them; -ENOBUFS: what follows cannot be made a head.
 */
static inline int palladium_frame_pull(struct palladium_frame *f, uint32_t n)
{
	return palladium_host->pull(f, n);
}

/* Put `n` bytes behind the last. Returns 0; or -EINVAL, -EMSGSIZE, -ENOBUFS: nothing was done. */
static inline int palladium_frame_append(struct palladium_frame *f, const void *bytes, uint32_t n)
{
	return palladium_host->append(f, bytes, n);
}

/* Have the frame end after `len` bytes. Returns 0, or -EINVAL as palladium_frame_pull. */
static inline int palladium_frame_trim(struct palladium_frame *f, uint32_t len)
{
	return palladium_host->trim(f, len);
}

/* Write a line, up to 500 characters, to the library's log. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline void
palladium_log(enum palladium_log_level level, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	palladium_host->log(palladium_plugin.name, level, text);
}

#ifdef __cplusplus
}
#endif

#endif /* PALLADIUM_PLUGIN_H */
