/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counters: how the library writes them.
 *
 *   struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_LANE, queue, port_index, "pd0/0");
 *
 *   pd_ctr_begin(b, PD_CTR_LANE_RX);
 *   pd_ctr_add(b, PD_CTR_LANE_RX_FRAMES, n);
 *   pd_ctr_add(b, PD_CTR_LANE_RX_BYTES, bytes);
 *   pd_ctr_end(b, PD_CTR_LANE_RX);
 *
 * A block is never NULL: without a file it stands in private memory, so writers test nothing. A
 * side (PD_CTR_LANE_RX, PD_CTR_SOCKET_TX, ...: the PD_CTR_SIDE lines of counters.def) has one
 * writer at a time: whoever owns that side of the lane, or holds that lock of the socket. Sides of
 * one block may be written at once by different threads. What any thread may count, on slow paths,
 * goes through pd_ctr_count, outside begin and end; one counter is written by the one way or by the
 * other, not by both.
 *
 * The file appears with pd_ctr_open, which the port layer calls at the first use of a port. Before
 * it, and when it fails, the same blocks are private memory at the same addresses.
 *
 * Locking: control-path functions take an internal leaf lock; the inline ones take none. shm.h
 * describes the memory and the rule that makes snapshots consistent.
 */
#ifndef PD_COUNTERS_COUNTERS_H
#define PD_COUNTERS_COUNTERS_H

#include <stddef.h>
#include <stdint.h>
#include "base/atomic.h"
#include "base/compiler.h"
#include "counters/shm.h"

enum pd_ctr_group {
#define PD_CTR_GROUP(group, name, help) PD_CTR_##group,
#include "defs/counters.def"
	PD_CTR_GROUP_COUNT
};

/*
 * The layout of each group's block, and from it the enumerators: PD_CTR_<GROUP>_<ID> is the word of
 * a value, PD_CTR_<GROUP>_<SIDE> the word of a side's sequence.
 */
#define PD_CTR_SIDE(group, side) PD_CTR_IF_##group(uint64_t side_##side PD_CACHE_ALIGNED;)
#define PD_CTR(group, id, name, unit, kind, help) PD_CTR_IF_##group(uint64_t value_##id;)
#define PD_CTR_IF_PROCESS(...) __VA_ARGS__
#define PD_CTR_IF_PORT(...)
#define PD_CTR_IF_LANE(...)
#define PD_CTR_IF_SOCKET(...)
struct pd_ctr_PROCESS_block {
	struct pd_ctr_block head;
#include "defs/counters.def"
};
#undef PD_CTR_IF_PROCESS
#undef PD_CTR_IF_PORT
#define PD_CTR_SIDE(group, side) PD_CTR_IF_##group(uint64_t side_##side PD_CACHE_ALIGNED;)
#define PD_CTR(group, id, name, unit, kind, help) PD_CTR_IF_##group(uint64_t value_##id;)
#define PD_CTR_IF_PROCESS(...)
#define PD_CTR_IF_PORT(...) __VA_ARGS__
struct pd_ctr_PORT_block {
	struct pd_ctr_block head;
#include "defs/counters.def"
};
#undef PD_CTR_IF_PORT
#undef PD_CTR_IF_LANE
#define PD_CTR_SIDE(group, side) PD_CTR_IF_##group(uint64_t side_##side PD_CACHE_ALIGNED;)
#define PD_CTR(group, id, name, unit, kind, help) PD_CTR_IF_##group(uint64_t value_##id;)
#define PD_CTR_IF_PORT(...)
#define PD_CTR_IF_LANE(...) __VA_ARGS__
struct pd_ctr_LANE_block {
	struct pd_ctr_block head;
#include "defs/counters.def"
};
#undef PD_CTR_IF_LANE
#undef PD_CTR_IF_SOCKET
#define PD_CTR_SIDE(group, side) PD_CTR_IF_##group(uint64_t side_##side PD_CACHE_ALIGNED;)
#define PD_CTR(group, id, name, unit, kind, help) PD_CTR_IF_##group(uint64_t value_##id;)
#define PD_CTR_IF_LANE(...)
#define PD_CTR_IF_SOCKET(...) __VA_ARGS__
struct pd_ctr_SOCKET_block {
	struct pd_ctr_block head;
#include "defs/counters.def"
};
#undef PD_CTR_IF_PROCESS
#undef PD_CTR_IF_PORT
#undef PD_CTR_IF_LANE
#undef PD_CTR_IF_SOCKET

enum pd_ctr_word {
#define PD_CTR_SIDE(group, side) \
	PD_CTR_##group##_##side = offsetof(struct pd_ctr_##group##_block, side_##side) / 8,
#define PD_CTR(group, id, name, unit, kind, help) \
	PD_CTR_##group##_##id = offsetof(struct pd_ctr_##group##_block, value_##id) / 8,
#include "defs/counters.def"
};

/* How many objects of a group have a block of their own; sockets: PALLADIUM_STATS_FD_NUM. */
#define PD_CTR_PORTS_MAX 32
#define PD_CTR_LANES_MAX 128
#define PD_CTR_SOCKETS_DEFAULT 100
#define PD_CTR_SOCKETS_MAX 1024

/* The texts of a block. */
enum pd_ctr_text {
	PD_CTR_TEXT_NAME,
	PD_CTR_TEXT_STATE,
	PD_CTR_TEXT_KIND,
	PD_CTR_TEXT_PATH,
	PD_CTR_TEXT_REASON,
	PD_CTR_TEXT_LAST_ERROR,
	PD_CTR_TEXT_COUNT
};

/*
 * Publish the counters in a file from here on. Control path; a second call does nothing.
 *
 * `dir`: PALLADIUM_STATS_SHMEM_DIR; NULL for the default (/dev/shm, else $XDG_RUNTIME_DIR when it
 * is ours, else /tmp); "" for no file at all. The file stands in its subdirectory palladium-UID.
 * `sockets`: how many sockets get a block of their own, 0 to PD_CTR_SOCKETS_MAX; fixed by the first
 * pd_ctr_open or pd_ctr_alloc.
 * Returns 0, or -errno when no directory would do; the counters then stay private and keep working.
 */
int pd_ctr_open(const char *dir, unsigned sockets);

/* Remove the file and go on in private memory. Safe to call twice; called at exit by a destructor.
 */
void pd_ctr_close(void);

/* The path of the file, or NULL when there is none. Valid until pd_ctr_close. */
const char *pd_ctr_path(void);

/*
 * A zeroed block for the object `id` of `group`, child of the port with index `parent` (PD_SHM_NONE
 * for none). `name` is copied. Control path. Never NULL; give it back with pd_ctr_free.
 */
struct pd_ctr_block *pd_ctr_alloc(enum pd_ctr_group group, int64_t id, uint32_t parent,
				  const char *name);

/*
 * Give a block back. No side of it may be written any more. Its counters are added to those of the
 * port (a lane's) or to the group's block of past objects.
 */
void pd_ctr_free(struct pd_ctr_block *b);

/*
 * The one block of the group PROCESS, written with pd_ctr_count. Never NULL. Takes a lock: keep it.
 */
struct pd_ctr_block *pd_ctr_process(void);

/* Set a text of a block, printf-like; longer texts are cut. Control path, any thread. */
void pd_ctr_text(struct pd_ctr_block *b, enum pd_ctr_text which, const char *fmt, ...)
	PD_PRINTF(3, 4);

/*
 * Set the state of a port, its reason, and what went wrong last, as one change: who reads the file
 * sees all of it or nothing. NULL leaves a text as it is; none may be one of the block's own. The
 * same otherwise.
 */
void pd_ctr_status(struct pd_ctr_block *b, const char *state, const char *reason,
		   const char *last_error);

/* Say which port a block belongs to, by index. Control path. */
void pd_ctr_set_parent(struct pd_ctr_block *b, uint32_t parent);

/*
 * Bring the sums of the objects without a block of their own up to date and stamp the file. The
 * progress thread calls it about once a second; any thread may.
 */
void pd_ctr_publish(void);

/* Report every socket that is open to PALLADIUM_STATS_FILE (report.h). Control path. */
void pd_ctr_report_all(void);

/* Around fork, in the parent: no thread is inside the functions above while the process is copied.
 */
void pd_ctr_before_fork(void);
void pd_ctr_after_fork_in_parent(void);

/*
 * In the child after fork, before any other thread exists: from here on the blocks are this
 * process's own (private, counters zero) at their old addresses, and the parent's file is let
 * alone. The child's own file appears with its next pd_ctr_open.
 */
void pd_ctr_after_fork_in_child(void);

/* The words of a block. */
static inline uint64_t *pd_ctr_words(struct pd_ctr_block *b)
{
	return (uint64_t *)(void *)b;
}

/* Begin an update of the side `side`; this thread is its only writer until pd_ctr_end. Data path.
 */
static inline void pd_ctr_begin(struct pd_ctr_block *b, enum pd_ctr_word side)
{
	uint64_t *seq = &pd_ctr_words(b)[side];

	/* Setting the bit, not adding: a writer that was thrown out in the middle heals here. */
	pd_store_relaxed(seq, pd_load_relaxed(seq) | 1);
}

/* End the update. */
static inline void pd_ctr_end(struct pd_ctr_block *b, enum pd_ctr_word side)
{
	uint64_t *seq = &pd_ctr_words(b)[side];

	/* Pairs with the acquire of the sequence in pd_shm_snapshot. */
	pd_store_release(seq, (pd_load_relaxed(seq) | 1) + 1);
}

/* Between begin and end of its side: the value becomes `v`. */
static inline void pd_ctr_set(struct pd_ctr_block *b, enum pd_ctr_word ctr, uint64_t v)
{
	/* Release, so that the odd sequence is seen first; pairs with the loads in pd_shm_snapshot.
	 */
	pd_store_release(&pd_ctr_words(b)[ctr], v);
}

/* Between begin and end of its side: the value grows by `n`. */
static inline void pd_ctr_add(struct pd_ctr_block *b, enum pd_ctr_word ctr, uint64_t n)
{
	pd_ctr_set(b, ctr, pd_load_relaxed(&pd_ctr_words(b)[ctr]) + n);
}

/* Between begin and end of its side: the value is at least `v` from here on. */
static inline void pd_ctr_max(struct pd_ctr_block *b, enum pd_ctr_word ctr, uint64_t v)
{
	if (v > pd_load_relaxed(&pd_ctr_words(b)[ctr]))
		pd_ctr_set(b, ctr, v);
}

/*
 * Outside begin and end, from any thread, on slow paths: the value grows by `n`. Who sees that sees
 * the texts that were set before.
 */
static inline void pd_ctr_count(struct pd_ctr_block *b, enum pd_ctr_word ctr, uint64_t n)
{
	/* Pairs with the acquire of the values in pd_shm_snapshot. */
	__atomic_fetch_add(&pd_ctr_words(b)[ctr], n, __ATOMIC_RELEASE);
}

/* Outside begin and end, from any thread, on slow paths: the value becomes `v`. */
static inline void pd_ctr_gauge(struct pd_ctr_block *b, enum pd_ctr_word ctr, uint64_t v)
{
	pd_store_relaxed(&pd_ctr_words(b)[ctr], v);
}

/* A value of a block, for the library's own use; not a snapshot. */
static inline uint64_t pd_ctr_get(struct pd_ctr_block *b, enum pd_ctr_word ctr)
{
	return pd_load_relaxed(&pd_ctr_words(b)[ctr]);
}

#endif /* PD_COUNTERS_COUNTERS_H */
