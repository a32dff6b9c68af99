/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/buffer: pools, chains, references, threads. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alloc_is_lifo_and_resets_headers),
		cmocka_unit_test(test_chain_over_two_pools_is_freed_with_its_last_reference),
		cmocka_unit_test(test_space_of_a_destroyed_pool_is_used_again),
		cmocka_unit_test(test_threads_share_a_pool),
		cmocka_unit_test(test_holders_in_threads_free_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
