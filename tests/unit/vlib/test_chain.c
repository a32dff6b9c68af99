/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/chain: frames that grow and shrink, beside the same in one array. */
#include <errno.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vlib/chain.h"

#define BUFFERS 256
#define ROUNDS 2000
#define OPS 40

static struct pd_buffer_pool *small, *large, *headers;

static int setup(void **state)
{
	int err;

	small = pd_buffer_pool_create("small", BUFFERS, 100, &err);
	large = pd_buffer_pool_create("large", BUFFERS, 1000, &err);
	headers = pd_buffer_pool_create("headers", BUFFERS, 0, &err);
	return !small || !large || !headers;
}

/* Whatever was done, every buffer is back. */
static int teardown(void **state)
{
	assert_int_equal(small->free_count, BUFFERS);
	assert_int_equal(large->free_count, BUFFERS);
	assert_int_equal(headers->free_count, BUFFERS);
	pd_buffer_pool_destroy(small);
	pd_buffer_pool_destroy(large);
	pd_buffer_pool_destroy(headers);
	return 0;
}

static struct pd_buffer *make(struct pd_buffer_pool *pool, uint32_t headroom)
{
	struct pd_buffer *b;
	uint32_t index;

	assert_int_equal(pd_buffer_alloc(pool, &index, 1), 1);
	b = pd_buffer_get(index);
	assert_true(pd_chain_reserve(b, headroom));
	return b;
}

static void drop(struct pd_buffer *b)
{
	pd_buffer_free(&b->index, 1);
}

/* The frame is these bytes, and its lengths say so; no buffer but the first is empty. */
static void is(const struct pd_buffer *b, const uint8_t *bytes, uint32_t n)
{
	static uint8_t out[PD_FRAME_LARGE_BYTES + 1];
	uint32_t sum = 0, count = 0;

	assert_int_equal(b->total_len, n);
	assert_int_equal(pd_buffer_copy_out(b, 0, out, sizeof(out)), n);
	assert_memory_equal(out, bytes, n);
	for (const struct pd_buffer *at = b;; at = pd_buffer_get(at->next), count++) {
		sum += at->len;
		assert_true(at == b || at->len);
		if (at->next == PD_BUFFER_NONE)
			break;
	}
	assert_int_equal(sum, n);
	assert_true(count < PD_BUFFER_CHAIN_MAX);
}

/* A frame, and the same bytes in the middle of an array. */
struct model {
	struct pd_buffer *b;
	uint8_t bytes[4096];
	uint32_t first, n;
};

static void do_push(struct model *m)
{
	uint32_t n = (uint32_t)rand() % 40, room = pd_chain_headroom(m->b);
	uint8_t *at = n <= m->first ? pd_chain_push(m->b, n) : NULL;

	if (!at) {
		assert_true(n > room || n > m->first);
		return;
	}
	assert_true(n <= room);
	m->first -= n;
	m->n += n;
	for (uint32_t i = 0; i < n; i++)
		at[i] = m->bytes[m->first + i] = (uint8_t)rand();
}

static void do_pull(struct model *m)
{
	uint32_t n = (uint32_t)rand() % (m->n + 20);

	n = rand() % 4 ? n % 30 : n;
	assert_int_equal(pd_chain_pull(m->b, n), n <= m->n);
	if (n <= m->n) {
		m->first += n;
		m->n -= n;
	}
}

static void do_trim(struct model *m)
{
	uint32_t len = m->n + 3 - (uint32_t)rand() % (m->n / 4 + 4);

	assert_int_equal(pd_chain_trim(m->b, len), len <= m->n);
	m->n = pd_min(m->n, len);
}

static void do_append(struct model *m)
{
	struct pd_buffer_pool *pools[] = {small, large, NULL, headers};
	struct pd_buffer_pool *pool = pools[rand() % 4];
	uint32_t n = (uint32_t)rand() % 300;
	uint8_t *at = m->bytes + m->first + m->n;
	int ret;

	if (m->first + m->n + n > sizeof(m->bytes))
		return;
	for (uint32_t i = 0; i < n; i++)
		at[i] = (uint8_t)rand();
	ret = pd_chain_append(m->b, pool, at, n);
	if (!ret)
		m->n += n;
	else if (pool == small)
		assert_int_equal(ret, -EMSGSIZE);
	else
		assert_true(ret == -ENOBUFS || ret == -EMSGSIZE);
}

static void do_coalesce(struct model *m)
{
	pd_chain_coalesce(m->b);
	for (const struct pd_buffer *at = m->b; at->next != PD_BUFFER_NONE;
	     at = pd_buffer_get(at->next))
		assert_int_equal(pd_chain_tailroom(at), 0);
}

static void do_gather(struct model *m)
{
	uint32_t n = (uint32_t)rand() % (m->n + 5);
	uint32_t size = pd_buffer_pool_of(m->b)->data_bytes;

	assert_int_equal(pd_chain_gather(m->b, n), n <= m->n && (n <= size || n <= m->b->len));
	if (n <= m->n && n <= size)
		assert_memory_equal(m->b->data, m->bytes + m->first, n);
}

static void beside_an_array(void **state)
{
	static void (*const ops[])(struct model *) = {do_push,   do_pull,     do_trim,
						      do_append, do_coalesce, do_gather};
	static struct model m;

	for (unsigned round = 0; round < ROUNDS; round++) {
		srand(round);
		m.first = sizeof(m.bytes) / 2;
		m.n = 0;
		m.b = make(rand() % 2 ? small : large, (uint32_t)rand() % 100);
		for (unsigned i = 0; i < OPS; i++) {
			ops[(unsigned)rand() % PD_ARRAY_SIZE(ops)](&m);
			is(m.b, m.bytes + m.first, m.n);
		}
		drop(m.b);
	}
}

/* Bytes that stand elsewhere are never written to, nor is there room beside them. */
static void data_that_stand_elsewhere(void **state)
{
	static const uint8_t there[] = "elsewhere";
	struct pd_buffer *b = make(small, 10), *middle;
	uint32_t index;

	assert_int_equal(pd_chain_append(b, NULL, "before ", 7), 0);
	assert_int_equal(pd_buffer_alloc(headers, &index, 1), 1);
	middle = pd_buffer_get(index);
	middle->data = (uint8_t *)(uintptr_t)there;
	middle->len = 9;
	middle->flags = PD_BUFFER_EXTERNAL;
	assert_int_equal(pd_chain_headroom(middle), 0);
	assert_int_equal(pd_chain_tailroom(middle), 0);
	b->next = index;
	b->total_len += 9;
	assert_int_equal(pd_chain_append(b, NULL, "!", 1), -ENOBUFS);
	assert_int_equal(pd_chain_append(b, small, " behind", 7), 0);
	is(b, (const uint8_t *)"before elsewhere behind", 23);

	assert_int_equal(pd_chain_coalesce(b), 0);
	assert_ptr_equal(pd_buffer_get(b->next)->data, there);
	assert_true(pd_chain_gather(b, 12));
	assert_memory_equal(b->data, "before elsew", 12);
	is(b, (const uint8_t *)"before elsewhere behind", 23);
	assert_true(pd_chain_pull(b, 14));
	is(b, (const uint8_t *)"re behind" + 0, 9);
	assert_memory_equal(there, "elsewhere", 9);
	assert_null(pd_chain_push(middle, 1));
	drop(b);
}

/* A frame that grows as long as it may, and as many buffers as it may. */
static void bounds(void **state)
{
	static uint8_t much[PD_FRAME_LARGE_BYTES];
	struct pd_buffer *b = make(large, 8);

	assert_int_equal(pd_chain_append(b, large, much, 64 * 1000), -EMSGSIZE); /* 65 of them */
	is(b, much, 0);
	assert_int_equal(pd_chain_append(b, large, much, 64 * 1000 - 8), 0);
	assert_int_equal(pd_chain_append(b, large, much, 1), -EMSGSIZE);
	assert_true(pd_chain_trim(b, 0));
	assert_int_equal(pd_chain_append(b, large, much, sizeof(much) + 1), -EMSGSIZE);
	assert_int_equal(pd_chain_append(b, small, much, 100 * BUFFERS), -EMSGSIZE);
	assert_false(pd_chain_reserve(b, 1000));
	assert_true(pd_chain_reserve(b, 999));
	assert_int_equal(pd_chain_headroom(b), 999);
	assert_int_equal(pd_chain_tailroom(b), 1);
	drop(b);
}

/* Without buffers the frame is as before. */
static void no_buffers(void **state)
{
	uint32_t all[BUFFERS];
	struct pd_buffer *b = make(large, 0);
	uint8_t bytes[1500];

	memset(bytes, 7, sizeof(bytes));
	assert_int_equal(pd_chain_append(b, NULL, bytes, 990), 0);
	assert_int_equal(pd_buffer_alloc(small, all, BUFFERS), BUFFERS);
	pd_buffer_free(all, 1);
	assert_int_equal(pd_chain_append(b, small, bytes, 300), -ENOBUFS);
	is(b, bytes, 990);
	assert_int_equal(pd_chain_append(b, small, bytes, 110), 0);
	is(b, bytes, 1100);
	drop(b);
	pd_buffer_free(all + 1, BUFFERS - 1);
}

/* What the frame needs done stays where its bytes are, and within it. */
static void what_it_needs_done(void **state)
{
	struct virtio_net_hdr vnet = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				      .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
				      .hdr_len = 54,
				      .csum_start = 34,
				      .csum_offset = 16};
	struct pd_buffer *b = make(large, 100);
	uint8_t bytes[400] = {0};

	assert_int_equal(pd_chain_append(b, NULL, bytes, sizeof(bytes)), 0);
	b->flags |= PD_BUFFER_VNET;
	memcpy(b->vnet, &vnet, sizeof(vnet));
	assert_non_null(pd_chain_push(b, 4));
	memcpy(&vnet, b->vnet, sizeof(vnet));
	assert_int_equal(vnet.csum_start, 38);
	assert_int_equal(vnet.hdr_len, 58);
	assert_true(pd_chain_pull(b, 18));
	memcpy(&vnet, b->vnet, sizeof(vnet));
	assert_int_equal(vnet.csum_start, 20);
	assert_int_equal(vnet.hdr_len, 40);
	assert_false(pd_chain_pull(b, 21));
	assert_false(pd_chain_trim(b, 39));
	is(b, bytes, 386);
	assert_true(pd_chain_trim(b, 40));
	vnet.gso_type = VIRTIO_NET_HDR_GSO_NONE;
	vnet.csum_start = 30;
	memcpy(b->vnet, &vnet, sizeof(vnet));
	b->total_len = b->len = 48;
	assert_false(pd_chain_trim(b, 47));
	assert_true(pd_chain_trim(b, 48));
	/* Nothing of the kind: only what it is known to be. */
	vnet.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	memcpy(b->vnet, &vnet, sizeof(vnet));
	assert_true(pd_chain_pull(b, 40));
	drop(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(beside_an_array, setup, teardown),
		cmocka_unit_test_setup_teardown(data_that_stand_elsewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(no_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(what_it_needs_done, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
