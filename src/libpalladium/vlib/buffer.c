/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buffer pools.
 *
 * One stretch of address space is reserved at the first pool and never moves; pools are cut from
 * it, lowest gap first, and only what a pool occupies is made accessible (base/mem.h), so the
 * reservation costs neither memory nor commit charge. A stretch that the host's limits refuse
 * (RLIMIT_AS) is halved until it fits. Nothing is written into a pool before its buffers are taken:
 * with the last freed taken first, a process pays for the buffers it needs at once, whatever the
 * pool's size.
 *
 * pd_buffer_map_lock guards which pool stands where (control path); each pool's own lock guards its
 * stack of free indices and is taken once per batch. Both are leaves and never held together.
 *
 * After fork the memory is the child's own copy, as all private memory. Huge pages are not copied:
 * the parent could use up those that the child's first write needs, which is SIGBUS. The child gets
 * ordinary memory in their place, and what it holds of such a pool has to be all of it (a ring, a
 * lane) or is forgotten (pd_buffer_pool_reset).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "vlib/buffer.h"

#define PD_STRETCH_MAX_BYTES (16ull << 30)
#define PD_BUFFER_POOLS_MAX 4096
#define PD_BUFFER_SHIFT 6
/* Indices gathered before a pool's lock is taken. */
#define PD_BUFFER_BATCH 256

_Static_assert((1 << PD_BUFFER_SHIFT) == PD_CACHE_LINE, "an index counts cache lines");
_Static_assert((PD_STRETCH_MAX_BYTES >> PD_BUFFER_SHIFT) < PD_BUFFER_NONE, "every index fits");

uint8_t *pd_buffer_base;

static struct pd_lock pd_buffer_map_lock = PD_LOCK_INIT(PD_RANK_LEAF);
static uint64_t pd_stretch_bytes;
static struct pd_buffer_pool *pd_buffer_pools[PD_BUFFER_POOLS_MAX]; /* by id */
/* What is occupied, in order of address. */
static struct {
	uint64_t start, end;
	uint16_t pool;
} pd_buffer_map[PD_BUFFER_POOLS_MAX];
static unsigned pd_buffer_map_count;

/* Reserve the stretch, once. Map lock held. Returns 0 or -ENOMEM. */
static int pd_buffer_reserve(void)
{
	if (pd_buffer_base)
		return 0;
	for (uint64_t size = PD_STRETCH_MAX_BYTES; size >= PD_BUFFER_STRETCH_MIN_BYTES; size /= 2) {
		pd_buffer_base = pd_mem_reserve(size);
		if (!pd_buffer_base)
			continue;
		pd_stretch_bytes = size;
		return 0;
	}
	return -ENOMEM;
}

/*
 * Find `bytes` that no pool occupies, at a multiple of `unit` as they are, and enter them for pool
 * `id`. Map lock held. Returns 0 with the offset in *start, or -ENOSPC.
 */
static int pd_buffer_map_insert(uint16_t id, uint64_t bytes, uint64_t unit, uint64_t *start)
{
	uint64_t from = 0;
	unsigned at;

	for (at = 0; at < pd_buffer_map_count; at++) {
		if (pd_buffer_map[at].start >= from + bytes)
			break;
		from = (pd_buffer_map[at].end + unit - 1) & ~(unit - 1);
	}
	if (pd_stretch_bytes < from + bytes)
		return -ENOSPC;
	memmove(&pd_buffer_map[at + 1], &pd_buffer_map[at],
		(pd_buffer_map_count - at) * sizeof(pd_buffer_map[0]));
	pd_buffer_map[at].start = from;
	pd_buffer_map[at].end = from + bytes;
	pd_buffer_map[at].pool = id;
	pd_buffer_map_count++;
	*start = from;
	return 0;
}

/* Take the entry of pool `id` out of the map and make its memory inaccessible. Map lock held. */
static void pd_buffer_map_remove(uint16_t id)
{
	for (unsigned at = 0; at < pd_buffer_map_count; at++) {
		if (pd_buffer_map[at].pool != id)
			continue;
		pd_mem_release(pd_buffer_base + pd_buffer_map[at].start,
			       pd_buffer_map[at].end - pd_buffer_map[at].start);
		memmove(&pd_buffer_map[at], &pd_buffer_map[at + 1],
			(pd_buffer_map_count - at - 1) * sizeof(pd_buffer_map[0]));
		pd_buffer_map_count--;
		return;
	}
}

/*
 * Give `pool` an id, a place and memory: pool->bytes, rounded up to whole pages of their kind.
 * Takes the map lock. Returns 0, -ENOMEM or -ENOSPC.
 */
static int pd_buffer_pool_place(struct pd_buffer_pool *pool)
{
	uint64_t unit = pd_mem_unit(pool->bytes);
	unsigned id;
	int ret;

	pool->bytes = (pool->bytes + unit - 1) & ~(unit - 1);

	pd_lock(&pd_buffer_map_lock);
	ret = pd_buffer_reserve();
	if (ret)
		goto out;
	ret = -ENOSPC;
	for (id = 0; id < PD_BUFFER_POOLS_MAX && pd_buffer_pools[id]; id++)
		;
	if (id == PD_BUFFER_POOLS_MAX)
		goto out;
	ret = pd_buffer_map_insert((uint16_t)id, pool->bytes, unit, &pool->start);
	if (ret)
		goto out;
	ret = pd_mem_commit(pd_buffer_base + pool->start, pool->bytes);
	if (ret < 0) {
		pd_buffer_map_remove((uint16_t)id);
		goto out;
	}
	pool->huge = ret == PD_MEM_OF_HUGE;
	ret = 0;
	pool->id = (uint16_t)id;
	pd_store_release(&pd_buffer_pools[id], pool);
out:
	pd_unlock(&pd_buffer_map_lock);
	return ret;
}

/*
 * Put every buffer on the stack. Its top is the first, so that a fresh pool is used in order of
 * address, and memory that was never needed is never touched.
 */
static void pd_buffer_pool_fill(struct pd_buffer_pool *pool)
{
	pool->free_count = pool->count;
	for (uint32_t i = 0; i < pool->count; i++)
		pool->free[pool->count - 1 - i] =
			(uint32_t)((pool->start + i * pool->stride) >> PD_BUFFER_SHIFT);
}

/* Where the data of a fresh buffer start. */
static uint8_t *pd_buffer_data(const struct pd_buffer_pool *pool, struct pd_buffer *b)
{
	return pool->data_bytes ? (uint8_t *)(b + 1) + pool->headroom : NULL;
}

struct pd_buffer_pool *pd_buffer_pool_create(const char *name, uint32_t count, uint32_t data_bytes,
					     int *err)
{
	return pd_buffer_pool_create_with(name, count, 0, data_bytes, err);
}

struct pd_buffer_pool *pd_buffer_pool_create_with(const char *name, uint32_t count,
						  uint32_t headroom, uint32_t data_bytes, int *err)
{
	struct pd_buffer_pool *pool;

	*err = -ENOMEM;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return NULL;
	pool->free = malloc(((size_t)count + !count) * sizeof(*pool->free));
	if (!pool->free)
		goto err_pool;
	pd_lock_init(&pool->lock, PD_RANK_LEAF);
	pool->name = name;
	pool->data_bytes = data_bytes;
	pool->headroom = headroom;
	pool->count = count;
	pool->stride =
		sizeof(struct pd_buffer) + (((uint64_t)headroom + data_bytes + PD_CACHE_LINE - 1) &
					    ~(uint64_t)(PD_CACHE_LINE - 1));
	pool->bytes = pool->stride * pd_max(count, 1u);
	*err = pd_buffer_pool_place(pool);
	if (*err)
		goto err_free;
	pd_lock(&pool->lock); /* pd_buffer_pool_each may be looking */
	pd_buffer_pool_fill(pool);
	pd_unlock(&pool->lock);
	return pool;

err_free:
	free(pool->free);
err_pool:
	free(pool);
	return NULL;
}

void pd_buffer_pool_reset(struct pd_buffer_pool *pool)
{
	if (pd_mem_renew(pd_buffer_base + pool->start, pool->bytes))
		pool->count = 0;
	pd_lock_init(&pool->lock, PD_RANK_LEAF);
	pd_buffer_pool_fill(pool);
}

void pd_buffer_pool_each(void (*fn)(const struct pd_buffer_pool_state *pool, void *arg), void *arg)
{
	pd_lock(&pd_buffer_map_lock);
	for (unsigned id = 0; id < PD_BUFFER_POOLS_MAX; id++) {
		struct pd_buffer_pool *pool = pd_buffer_pools[id];
		struct pd_buffer_pool_state state;

		if (!pool)
			continue;
		/* Nobody who holds a pool's lock takes the map's. */
		pd_lock_nested(&pool->lock);
		state = (struct pd_buffer_pool_state){.name = pool->name,
						      .data_bytes = pool->data_bytes,
						      .count = pool->count,
						      .free_count = pool->free_count,
						      .bytes = pool->bytes,
						      .huge = pool->huge};
		pd_unlock(&pool->lock);
		fn(&state, arg);
	}
	pd_unlock(&pd_buffer_map_lock);
}

/*
 * The child has a hole where pool `pool` was of huge pages: ordinary memory from here on, with the
 * headers of buffers that are all held.
 */
static void pd_buffer_pool_refill(struct pd_buffer_pool *pool)
{
	if (pd_mem_renew(pd_buffer_base + pool->start, pool->bytes)) {
		pd_err("mem",
		       "no memory for the buffers of the pool %s in the child: its ports must "
		       "not be used",
		       pool->name);
		return;
	}
	pool->huge = false;
	for (uint32_t i = 0; i < pool->count && !pool->free_count; i++) {
		uint32_t index = (uint32_t)((pool->start + i * pool->stride) >> PD_BUFFER_SHIFT);
		struct pd_buffer *b = pd_buffer_get(index);

		b->index = index;
		b->pool = pool->id;
		b->next = PD_BUFFER_NONE;
		b->data = pd_buffer_data(pool, b);
		b->refs = 1;
	}
}

void pd_buffer_pools_after_fork(void)
{
	for (unsigned id = 0; id < PD_BUFFER_POOLS_MAX; id++)
		if (pd_buffer_pools[id] && pd_buffer_pools[id]->huge)
			pd_buffer_pool_refill(pd_buffer_pools[id]);
}

void pd_buffer_pool_destroy(struct pd_buffer_pool *pool)
{
	if (!pool)
		return;
	pd_assert(pool->free_count == pool->count);
	pd_lock(&pd_buffer_map_lock);
	pd_buffer_map_remove(pool->id);
	pd_store_release(&pd_buffer_pools[pool->id], NULL);
	pd_unlock(&pd_buffer_map_lock);
	free(pool->free);
	free(pool);
}

unsigned pd_buffer_alloc(struct pd_buffer_pool *pool, uint32_t *out, unsigned n)
{
	uint32_t left;

	pd_lock(&pool->lock);
	n = pd_min(n, pool->free_count);
	left = pool->free_count -= n;
	for (unsigned i = 0; i < n; i++)
		out[i] = pool->free[left + n - 1 - i];
	pd_unlock(&pool->lock);

	for (unsigned i = 0; i < n; i++) {
		struct pd_buffer *b = pd_buffer_get(out[i]);

		pd_assert(b->refs == 0);
		b->index = out[i]; /* the first use of a buffer is the first touch of its memory */
		b->pool = pool->id;
		b->data = pd_buffer_data(pool, b);
		b->len = 0;
		b->total_len = 0;
		b->next = PD_BUFFER_NONE;
		b->flags = 0;
		b->rx_port = 0;
		b->tx_port = 0;
		b->trace = 0;
		pd_store_relaxed(&b->refs, 1);
	}
	return n;
}

/* Whoever holds a buffer of the pool keeps the pool alive: no lock for the table. */
struct pd_buffer_pool *pd_buffer_pool_of(const struct pd_buffer *b)
{
	return pd_load_acquire(&pd_buffer_pools[b->pool]);
}

/* Put `n` free buffers back on the stack of the pool `id`. */
static void pd_buffer_give_back(uint16_t id, const uint32_t *indices, unsigned n)
{
	struct pd_buffer_pool *pool = pd_load_acquire(&pd_buffer_pools[id]);

	pd_assert(pool);
	pd_lock(&pool->lock);
	pd_assert(pool->free_count + n <= pool->count);
	memcpy(&pool->free[pool->free_count], indices, n * sizeof(*indices));
	pool->free_count += n;
	pd_unlock(&pool->lock);
}

/* True when this was the last reference of the chain that starts at `b`. */
static inline bool pd_buffer_unref(struct pd_buffer *b)
{
	pd_assert(pd_load_relaxed(&b->refs) > 0);
	/* A sole holder needs no atomic subtraction. Pairs with the fetch_sub of the holder before.
	 */
	return pd_load_acquire(&b->refs) == 1 || pd_fetch_sub(&b->refs, 1) == 1;
}

void pd_buffer_free(const uint32_t *indices, unsigned n)
{
	uint32_t batch[PD_BUFFER_BATCH];
	unsigned held = 0;
	uint16_t pool = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t index = indices[i];

		if (!pd_buffer_unref(pd_buffer_get(index)))
			continue;
		while (index != PD_BUFFER_NONE) {
			struct pd_buffer *b = pd_buffer_get(index);

			if (held && (b->pool != pool || held == PD_BUFFER_BATCH)) {
				pd_buffer_give_back(pool, batch, held);
				held = 0;
			}
			pool = b->pool;
			batch[held++] = index;
			pd_store_relaxed(&b->refs, 0);
			index = b->next;
		}
	}
	if (held)
		pd_buffer_give_back(pool, batch, held);
}

uint32_t pd_buffer_copy_out(const struct pd_buffer *b, uint32_t offset, void *out, uint32_t len)
{
	uint32_t done = 0;

	for (;;) {
		if (offset < b->len) {
			uint32_t part = pd_min(b->len - offset, len - done);

			memcpy((uint8_t *)out + done, b->data + offset, part);
			done += part;
			offset = 0;
		} else {
			offset -= b->len;
		}
		if (done == len || b->next == PD_BUFFER_NONE)
			return done;
		b = pd_buffer_get(b->next);
	}
}

struct pd_buffer *pd_buffer_copy(struct pd_buffer_pool *pool, const struct pd_buffer *src)
{
	uint32_t each = pool->data_bytes, done = 0, got, need;
	uint32_t chain[PD_BUFFER_CHAIN_MAX];
	struct pd_buffer *b;

	if (src->total_len > PD_FRAME_LARGE_BYTES || (src->total_len && !each))
		return NULL;
	need = src->total_len > each ? (src->total_len + each - 1) / each : 1;
	if (need > PD_ARRAY_SIZE(chain))
		return NULL;
	got = pd_buffer_alloc(pool, chain, need);
	if (got < need) {
		pd_buffer_free(chain, got);
		return NULL;
	}
	for (uint32_t i = 0; i < need; i++) {
		b = pd_buffer_get(chain[i]);
		b->len = pd_buffer_copy_out(src, done, b->data, each);
		done += b->len;
		b->next = i + 1 < need ? chain[i + 1] : PD_BUFFER_NONE;
	}
	b = pd_buffer_get(chain[0]);
	pd_buffer_copy_head(b, src);
	return b;
}
