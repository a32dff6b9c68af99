/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/buffer: pools, chains, references, threads. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "base/mem.h"
#include "tests/unit/base/huge.h"
#include "vlib/buffer.h"

static struct pd_buffer_pool *make(uint32_t count, uint32_t bytes)
{
	int err = 1;
	struct pd_buffer_pool *pool = pd_buffer_pool_create("test", count, bytes, &err);

	assert_non_null(pool);
	assert_int_equal(err, 0);
	return pool;
}

static void test_alloc_is_lifo_and_resets_headers(void **state)
{
	struct pd_buffer_pool *pool = make(8, 100);
	uint32_t a[8], b[4];

	assert_int_equal(pd_buffer_alloc(pool, a, 8), 8);
	assert_int_equal(pd_buffer_alloc(pool, b, 1), 0);
	for (int i = 0; i < 8; i++) {
		struct pd_buffer *buf = pd_buffer_get(a[i]);

		assert_int_equal(buf->index, a[i]);
		assert_int_equal((uintptr_t)buf % PD_CACHE_LINE, 0);
		assert_ptr_equal(buf->data, buf + 1);
		memset(buf->data, i, 100);
		buf->flags = 0xff;
		buf->len = 7;
	}
	for (int i = 0; i < 8; i++)
		assert_int_equal(pd_buffer_get(a[i])->data[99], i);
	pd_buffer_free(&a[2], 2);
	assert_int_equal(pd_buffer_alloc(pool, b, 4), 2);
	assert_int_equal(b[0], a[3]);
	assert_int_equal(b[1], a[2]);
	assert_int_equal(pd_buffer_get(b[0])->flags, 0);
	assert_int_equal(pd_buffer_get(b[0])->len, 0);
	assert_int_equal(pd_buffer_get(b[0])->next, PD_BUFFER_NONE);
	pd_buffer_free(a, 8);
	assert_int_equal(pool->free_count, 8);
	pd_buffer_pool_destroy(pool);
}

static void test_chain_over_two_pools_is_freed_with_its_last_reference(void **state)
{
	struct pd_buffer_pool *one = make(4, 64), *two = make(4, 0);
	uint32_t a[4], b[4];
	struct pd_buffer *head;
	uint8_t out[40];

	assert_int_equal(pd_buffer_alloc(one, a, 2), 2);
	assert_int_equal(pd_buffer_alloc(two, b, 2), 2);
	head = pd_buffer_get(a[0]);
	head->next = b[0];
	pd_buffer_get(b[0])->next = a[1];
	pd_buffer_get(a[1])->next = b[1];
	assert_null(pd_buffer_get(b[0])->data);
	memset(head->data, 1, 10);
	head->len = 10;
	pd_buffer_get(b[0])->data = (uint8_t *)"bbbbbbbbbb";
	pd_buffer_get(b[0])->len = 10;
	memset(pd_buffer_get(a[1])->data, 3, 10);
	pd_buffer_get(a[1])->len = 10;
	assert_int_equal(pd_buffer_copy_out(head, 5, out, 20), 20);
	assert_int_equal(out[4], 1);
	assert_int_equal(out[5], 'b');
	assert_int_equal(out[14], 'b');
	assert_int_equal(out[15], 3);
	assert_int_equal(pd_buffer_copy_out(head, 25, out, 20), 5);
	assert_int_equal(pd_buffer_copy_out(head, 30, out, 20), 0);
	pd_buffer_ref(head);
	pd_buffer_free(a, 1);
	assert_int_equal(one->free_count, 2);
	pd_buffer_free(a, 1);
	assert_int_equal(one->free_count, 4);
	assert_int_equal(two->free_count, 4);
	pd_buffer_pool_destroy(one);
	pd_buffer_pool_destroy(two);
}

static void test_space_of_a_destroyed_pool_is_used_again(void **state)
{
	struct pd_buffer_pool *pools[3];
	uint32_t index, again;
	int err;

	for (int i = 0; i < 3; i++)
		pools[i] = make(1000, 2048);
	assert_int_equal(pd_buffer_alloc(pools[1], &index, 1), 1);
	pd_buffer_free(&index, 1);
	pd_buffer_pool_destroy(pools[1]);
	pools[1] = make(1000, 2048);
	assert_int_equal(pd_buffer_alloc(pools[1], &again, 1), 1);
	assert_int_equal(again, index);
	pd_buffer_free(&again, 1);
	for (int i = 0; i < 3; i++)
		pd_buffer_pool_destroy(pools[i]);
	assert_null(pd_buffer_pool_create("huge", 1u << 24, 4096, &err));
	assert_int_equal(err, -ENOSPC);
}

static void *churn(void *arg)
{
	struct pd_buffer_pool *pool = arg;
	uint32_t idx[64];
	unsigned seed = (unsigned)(uintptr_t)&idx;

	for (int i = 0; i < 3000; i++) {
		unsigned n = pd_buffer_alloc(pool, idx, 1 + rand_r(&seed) % 64);

		for (unsigned k = 0; k < n; k++)
			memset(pd_buffer_get(idx[k])->data, (int)idx[k], 32);
		for (unsigned k = 0; k < n; k++)
			if (pd_buffer_get(idx[k])->data[31] != (uint8_t)idx[k])
				abort();
		pd_buffer_free(idx, n);
	}
	return NULL;
}

static void test_threads_share_a_pool(void **state)
{
	struct pd_buffer_pool *pool = make(150, 32);
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, pool), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(pool->free_count, 150);
	pd_buffer_pool_destroy(pool);
}

static void *last_holder(void *arg)
{
	pd_buffer_free(arg, 1);
	return NULL;
}

static void test_holders_in_threads_free_once(void **state)
{
	struct pd_buffer_pool *pool = make(1, 32);

	for (int round = 0; round < 100; round++) {
		pthread_t t[3];
		uint32_t idx;

		assert_int_equal(pd_buffer_alloc(pool, &idx, 1), 1);
		pd_buffer_ref(pd_buffer_get(idx));
		pd_buffer_ref(pd_buffer_get(idx));
		for (int i = 0; i < 3; i++)
			assert_int_equal(pthread_create(&t[i], NULL, last_holder, &idx), 0);
		for (int i = 0; i < 3; i++)
			pthread_join(t[i], NULL);
		assert_int_equal(pool->free_count, 1);
	}
	pd_buffer_pool_destroy(pool);
}

static void test_what_was_never_taken_is_never_touched(void **state)
{
	struct pd_buffer_pool *pool;
	long resident = -1;
	uint32_t a[8];

	pd_mem_set_type(PD_MEM_ANON, false);
	pool = make(4096, 2048);
	for (int i = 0; i < 1000; i++) { /* the last freed is the next taken */
		assert_int_equal(pd_buffer_alloc(pool, a, 8), 8);
		for (int k = 0; k < 8; k++)
			memset(pd_buffer_get(a[k])->data, 1, 2048);
		pd_buffer_free(a, 8);
	}
	assert_int_equal(huge_page_size(pd_buffer_base + pool->start, &resident), 4);
	assert_true(resident > 0 && resident <= 8 * (2048 + 128) / 1024 + 4);
	pd_buffer_pool_destroy(pool);
	pd_mem_set_type(PD_MEM_CONTIG, false);
}

/* In a child: the pool `held` is its own as it was, `queue` is empty. */
static int child_has_pools(struct pd_buffer_pool *held, const uint32_t *mine,
			   struct pd_buffer_pool *queue)
{
	uint32_t a[512];

	pd_buffer_pools_after_fork();
	pd_buffer_pool_reset(queue);
	for (uint32_t i = 0; i < held->count; i++) {
		struct pd_buffer *b = pd_buffer_get(mine[i]);

		if (b->index != mine[i] || b->pool != held->id || b->refs != 1 ||
		    b->next != PD_BUFFER_NONE)
			return 1;
		memset(b + 1, 7, held->data_bytes);
	}
	pd_buffer_free(mine, held->count);
	if (held->free_count != held->count)
		return 2;
	pd_buffer_pool_destroy(held);
	if (pd_buffer_alloc(queue, a, 512) != 512)
		return 3;
	for (int i = 0; i < 512; i++)
		memset(pd_buffer_get(a[i])->data, 7, 2048);
	pd_buffer_free(a, 512);
	pd_buffer_pool_destroy(queue);
	return 0;
}

/*
 * Pools of huge pages, or of what there is: the child of a fork has memory of its own where it
 * looks for it.
 */
static void fork_with_pools(bool huge)
{
	struct pd_buffer_pool *held = make(512, 4096), *queue = make(512, 2048);
	uint32_t mine[512], some[10];
	int status = -1;

	assert_int_equal(held->huge, huge);
	assert_int_equal(huge_page_size(pd_buffer_base + queue->start, NULL), huge ? 2048 : 4);
	assert_int_equal(pd_buffer_alloc(held, mine, 512), 512);
	assert_int_equal(pd_buffer_alloc(queue, some, 10), 10);
	pd_buffer_get(some[0])->next = some[1];
	pd_buffer_ref(pd_buffer_get(some[0]));
	for (int i = 0; i < 512; i++)
		memset(pd_buffer_get(mine[i])->data, 3, 4096);
	if (!fork())
		_exit(child_has_pools(held, mine, queue));
	wait(&status);
	assert_int_equal(status, 0);
	for (int i = 0; i < 512; i++)
		assert_int_equal(pd_buffer_get(mine[i])->data[4095], 3);
	pd_buffer_get(some[0])->next = PD_BUFFER_NONE;
	pd_buffer_free(some, 1);
	pd_buffer_free(some, 10);
	pd_buffer_free(mine, 512);
	pd_buffer_pool_destroy(queue);
	pd_buffer_pool_destroy(held);
}

static void test_a_child_has_pools_of_its_own(void **state)
{
	fork_with_pools(false);
}

static void test_huge_pools_fall_back_midway_and_survive_a_fork(void **state)
{
	struct pd_buffer_pool *first, *second;
	uint32_t a[512];

	if (!huge_begin(3)) { /* the second pool of two pages finds one */
		huge_end();
		skip();
	}
	pd_mem_set_type(PD_MEM_HUGEPAGES, false);
	fork_with_pools(true);
	assert_int_equal(huge_free(), 3);
	first = make(512, 6000);
	second = make(512, 4096);
	assert_true(first->huge);
	assert_false(second->huge);
	for (int i = 0; i < 2; i++) {
		struct pd_buffer_pool *pool = i ? second : first;

		assert_int_equal(pd_buffer_alloc(pool, a, 512), 512);
		for (int k = 0; k < 512; k++)
			memset(pd_buffer_get(a[k])->data, k, pool->data_bytes);
		for (int k = 0; k < 512; k++)
			assert_int_equal(pd_buffer_get(a[k])->data[pool->data_bytes - 1],
					 (uint8_t)k);
		pd_buffer_free(a, 512);
	}
	pd_buffer_pool_destroy(first);
	pd_buffer_pool_destroy(second);
	assert_int_equal(huge_free(), 3);
	huge_end();
	pd_mem_set_type(PD_MEM_CONTIG, false);
}

static int teardown(void **state)
{
	huge_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alloc_is_lifo_and_resets_headers),
		cmocka_unit_test(test_chain_over_two_pools_is_freed_with_its_last_reference),
		cmocka_unit_test(test_space_of_a_destroyed_pool_is_used_again),
		cmocka_unit_test(test_threads_share_a_pool),
		cmocka_unit_test(test_holders_in_threads_free_once),
		cmocka_unit_test(test_what_was_never_taken_is_never_touched),
		cmocka_unit_test(test_a_child_has_pools_of_its_own),
		cmocka_unit_test(test_huge_pools_fall_back_midway_and_survive_a_fork),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
