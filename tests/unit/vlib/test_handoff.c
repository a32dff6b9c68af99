/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/worker, vlib/handoff: every frame arrives once and in order, or is freed once. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "vlib/handoff.h"
#include "vlib/worker.h"

#define PRODUCERS 3
#define WORKERS 2
#define PER_PRODUCER 20000u
#define LIMIT_NS (60 * PD_NS_PER_SEC)

static struct pd_buffer_pool *pool;

/* What is handed over says who made it, and its number among those for the same worker. */
struct note {
	uint32_t producer, number;
};

/* --- nodes ----------------------------------------------------------------------------------- */

/* What each worker's sink has seen, by producer; written by the worker, read when it has ended. */
static uint32_t sunk[WORKERS][PRODUCERS];
static unsigned disorder;    /* atomic: frames that came at another place than theirs */
static unsigned sunk_count;  /* atomic */
static unsigned sunk_thread; /* atomic: who sank the last */
/* The last frame of worker 1. */
static uint8_t sunk_data[64], sunk_sidecar[PD_BUFFER_SIDECAR_BYTES];
static uint16_t sunk_tx_port;
static bool hold;        /* atomic: the sink waits as long */
static unsigned holding; /* atomic: the worker that does so; the last of several */

static unsigned sink(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	while (pd_load_acquire(&hold)) {
		pd_store_release(&holding, e->thread);
		sched_yield();
	}
	for (unsigned i = 0; i < v->n; i++) {
		struct pd_buffer *b = pd_buffer_get(v->index[i]);
		struct note note;

		memcpy(&note, b->opaque, sizeof(note));
		if (note.producer < PRODUCERS &&
		    sunk[e->thread - 1][note.producer]++ != note.number)
			pd_fetch_add(&disorder, 1);
		if (e->thread != 1)
			continue;
		pd_buffer_copy_out(b, 0, sunk_data, sizeof(sunk_data));
		memcpy(sunk_sidecar, b->sidecar, sizeof(sunk_sidecar));
		sunk_tx_port = b->tx_port;
	}
	pd_store_relaxed(&sunk_thread, pd_worker_self());
	assert_int_equal(pd_worker_self(), e->thread);
	pd_buffer_free(v->index, v->n);
	pd_fetch_add(&sunk_count, v->n);
	return v->n;
}

PD_NODE_REGISTER(sink) = {.name = "h-sink", .type = PD_NODE_INTERNAL, .fn = sink};

/* Hands what it gets to its own worker, and one frame of two to the other. */
static struct pd_handoff *to_sink;

static unsigned turn(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	uint16_t workers[PD_VECTOR_MAX];
	unsigned n;

	for (unsigned i = 0; i < v->n; i++)
		workers[i] = i & 1 ? e->thread : (uint16_t)(WORKERS + 1 - e->thread);
	n = pd_handoff_enqueue(e, pd_load_acquire(&to_sink), v->index, workers, v->n, true);
	pd_node_add(&node->errors[0], n);
	pd_node_add(&node->errors[1], v->n - n);
	return v->n;
}

PD_NODE_REGISTER(turn) = {.name = "h-turn",
			  .type = PD_NODE_INTERNAL,
			  .fn = turn,
			  .errors = (const char *const[]){"handed off", "congestion"},
			  .error_count = 2};

static unsigned never(struct pd_engine *e, struct pd_node *node, struct pd_vector *v)
{
	return 0;
}

PD_NODE_REGISTER(never) = {.name = "h-input", .type = PD_NODE_INPUT, .fn = never};

/* --- helpers --------------------------------------------------------------------------------- */

static int start(void **state)
{
	memset(sunk, 0, sizeof(sunk));
	disorder = sunk_count = holding = 0;
	hold = false;
	return pd_workers_start(WORKERS, NULL);
}

static int stop(void **state)
{
	pd_store_release(&hold, false);
	pd_workers_stop();
	/* Whatever was handed over, dropped or left: every buffer is back, once. */
	return pool->free_count != pool->count;
}

static struct pd_handoff *handoff_new(const char *node, unsigned frames)
{
	int err = 1;
	struct pd_handoff *h = pd_handoff_create(node, frames, pool, &err);

	assert_non_null(h);
	assert_int_equal(err, 0);
	return h;
}

static struct pd_engine *engine_new(void)
{
	int err;
	struct pd_engine *e = pd_engine_create("producer", &err);

	assert_non_null(e);
	return e;
}

static void wait_sunk(unsigned n)
{
	uint64_t until = pd_clock_ns() + LIMIT_NS;

	while (pd_load_acquire(&sunk_count) < n) {
		assert_true(pd_clock_ns() < until);
		sched_yield();
	}
}

/* Buffers of the pool that somebody has. */
static uint32_t held(void)
{
	uint32_t n;

	pd_lock(&pool->lock);
	n = pool->count - pool->free_count;
	pd_unlock(&pool->lock);
	return n;
}

/* Take `n` buffers that no sink counts the order of. */
static void take(uint32_t *indices, unsigned n)
{
	const struct note none = {UINT32_MAX, 0};

	assert_int_equal(pd_buffer_alloc(pool, indices, n), n);
	for (unsigned i = 0; i < n; i++)
		memcpy(pd_buffer_get(indices[i])->opaque, &none, sizeof(none));
}

/* Hand `n` buffers to one worker, with drop. */
static unsigned give(struct pd_engine *e, struct pd_handoff *h, uint16_t worker, unsigned n)
{
	uint32_t indices[PD_VECTOR_MAX];
	uint16_t workers[PD_VECTOR_MAX];

	take(indices, n);
	for (unsigned i = 0; i < n; i++)
		workers[i] = worker;
	return pd_handoff_enqueue(e, h, indices, workers, n, true);
}

/* Have worker 1 wait in its sink, with one frame: from here on it takes nothing. */
static void hold_worker(struct pd_engine *e, struct pd_handoff *h)
{
	uint64_t until = pd_clock_ns() + LIMIT_NS;

	pd_store_release(&hold, true);
	assert_int_equal(give(e, h, 1, 1), 1);
	while (pd_load_acquire(&holding) != 1) {
		assert_true(pd_clock_ns() < until);
		sched_yield();
	}
}

/* --- tests ----------------------------------------------------------------------------------- */

struct producer {
	pthread_t thread;
	struct pd_handoff *handoff;
	uint32_t id, refused;
};

/*
 * Vectors of all lengths, for both workers mixed. What is refused goes first next time, so that the
 * order is kept.
 */
static void *produce(void *arg)
{
	struct producer *p = arg;
	uint32_t indices[PD_VECTOR_MAX], made[WORKERS] = {0}, left = 0, burst = 1;
	uint16_t workers[PD_VECTOR_MAX];
	struct pd_engine *e = engine_new();

	while (made[0] + made[1] < PER_PRODUCER || left) {
		uint32_t want = pd_min(left + burst, (uint32_t)PD_VECTOR_MAX), n, kept = 0;
		uint32_t more = pd_min(want - left, PER_PRODUCER - made[0] - made[1]);

		burst = burst % 200 + 7;
		n = left + pd_buffer_alloc(pool, indices + left, more);
		for (uint32_t i = left; i < n; i++) {
			uint16_t w = (uint16_t)((made[0] + 2 * made[1] + i) % 3 ? 1 : 2);
			struct note note = {p->id, made[w - 1]++};

			memcpy(pd_buffer_get(indices[i])->opaque, &note, sizeof(note));
			workers[i] = w;
		}
		if (!n) {
			sched_yield();
			continue;
		}
		/* The numbers of those who are refused are overwritten: keep them. */
		uint16_t asked[PD_VECTOR_MAX];
		unsigned went;

		memcpy(asked, workers, n * sizeof(*asked));
		went = pd_handoff_enqueue(e, p->handoff, indices, workers, n, false);
		for (uint32_t i = 0; i < n; i++) {
			if (workers[i] != PD_HANDOFF_REFUSED)
				continue;
			indices[kept] = indices[i];
			workers[kept++] = asked[i];
		}
		assert_int_equal(went + kept, n);
		p->refused += kept;
		if (kept)
			sched_yield();
		left = kept;
	}
	pd_engine_destroy(e);
	return NULL;
}

static void test_all_arrive_once_and_in_order(void **state)
{
	struct producer producers[PRODUCERS] = {0};
	struct pd_handoff *h = handoff_new("h-sink", PD_HANDOFF_FRAMES_MIN + 1);

	for (uint32_t i = 0; i < PRODUCERS; i++) {
		producers[i].handoff = h;
		producers[i].id = i;
		assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]),
				 0);
	}
	for (unsigned i = 0; i < PRODUCERS; i++)
		pthread_join(producers[i].thread, NULL);
	wait_sunk(PRODUCERS * PER_PRODUCER);
	assert_int_equal(sunk_count, PRODUCERS * PER_PRODUCER);
	assert_int_equal(disorder, 0);
	for (unsigned i = 0; i < PRODUCERS; i++)
		assert_int_equal(sunk[0][i] + sunk[1][i], PER_PRODUCER);
}

static void test_congestion_drops_and_frees_once(void **state)
{
	struct pd_handoff *h = handoff_new("h-sink", 4);
	struct pd_engine *e = engine_new();

	hold_worker(e, h);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(give(e, h, 1, 10), i < 4 ? 10 : 0);
	assert_int_equal(held(), 41);
	/* The other worker's queue has room still. */
	assert_int_equal(give(e, h, 2, 3), 3);
	pd_store_release(&hold, false);
	wait_sunk(44);
	assert_int_equal(sunk_count, 44);
	pd_engine_destroy(e);
}

static void test_without_drop_the_rest_is_the_callers(void **state)
{
	struct pd_handoff *h = handoff_new("h-sink", 2);
	struct pd_engine *e = engine_new();
	uint32_t indices[4];
	uint16_t workers[4] = {1, 2, 1, 0};

	hold_worker(e, h);
	while (give(e, h, 1, 1))
		;
	take(indices, 4);
	assert_int_equal(pd_handoff_enqueue(e, h, indices, workers, 4, false), 1);
	assert_int_equal(workers[0], PD_HANDOFF_REFUSED);
	assert_int_equal(workers[1], 2);
	assert_int_equal(workers[2], PD_HANDOFF_REFUSED);
	assert_int_equal(workers[3], PD_HANDOFF_REFUSED); /* there is no worker 0 */
	pd_buffer_free((uint32_t[]){indices[0], indices[2], indices[3]}, 3);
	pd_engine_destroy(e);
}

static void test_a_worker_that_does_not_exist_has_no_room(void **state)
{
	struct pd_handoff *h = handoff_new("h-sink", 2);
	struct pd_engine *e = engine_new();

	assert_int_equal(give(e, h, WORKERS + 1, 5), 0);
	assert_int_equal(give(e, h, 0, 5), 0);
	assert_int_equal(held(), 0);
	pd_engine_destroy(e);
}

static void test_a_worker_hands_to_itself_and_to_the_other(void **state)
{
	struct pd_handoff *h = handoff_new("h-turn", 8);
	struct pd_engine *e = engine_new();
	struct pd_node *node = pd_engine_node(pd_worker_engine(1), "h-turn");

	pd_store_release(&to_sink, handoff_new("h-sink", 32));
	for (unsigned i = 0; i < 8; i++)
		while (!give(e, h, 1, 200))
			sched_yield();
	wait_sunk(1600);
	assert_int_equal(pd_load_relaxed(&node->errors[0]), 1600);
	assert_int_equal(pd_load_relaxed(&node->errors[1]), 0);
	for (unsigned w = 1; w <= WORKERS; w++) {
		const uint64_t *n = &pd_engine_node(pd_worker_engine(w), "h-sink")->vectors;

		/* Counted when the node is done. */
		while (pd_load_relaxed(n) < 800)
			sched_yield();
		assert_int_equal(pd_load_relaxed(n), 800);
	}
	pd_engine_destroy(e);
}

static void test_a_sleeping_worker_is_woken(void **state)
{
	struct pd_handoff *h = handoff_new("h-sink", 2);
	struct pd_engine *e = engine_new();

	for (unsigned i = 0; i < 200; i++) {
		struct pd_worker_info info;
		uint64_t until = pd_clock_ns() + LIMIT_NS;
		uint16_t w = (uint16_t)(1 + i % WORKERS);

		/* Every second time it may be anywhere on its way there. */
		do {
			assert_true(pd_worker_get(w, &info));
			assert_true(pd_clock_ns() < until);
		} while (!info.asleep && i % 4 < 2);
		assert_int_equal(give(e, h, w, 1), 1);
		wait_sunk(i + 1);
		assert_int_equal(pd_load_relaxed(&sunk_thread), w);
	}
	pd_engine_destroy(e);
}

/* An external frame of two segments, and what is noted in its headers. */
static void external_frame(struct pd_buffer_pool *headers, uint32_t *idx, uint8_t *first,
			   uint8_t *second)
{
	const struct note none = {UINT32_MAX, 0};
	struct pd_buffer *a, *b;

	assert_int_equal(pd_buffer_alloc(headers, idx, 2), 2);
	a = pd_buffer_get(idx[0]);
	b = pd_buffer_get(idx[1]);
	a->flags = PD_BUFFER_EXTERNAL | PD_BUFFER_SIDECAR;
	b->flags = PD_BUFFER_EXTERNAL;
	a->data = first;
	a->len = 20;
	a->next = idx[1];
	b->data = second;
	b->len = 44;
	a->total_len = 64;
	a->tx_port = 7;
	memset(a->sidecar, 0x5a, sizeof(a->sidecar));
	memcpy(a->opaque, &none, sizeof(none));
}

static void test_external_buffers_are_copied(void **state)
{
	uint8_t first[20], second[44], want[64];
	struct pd_handoff *h = handoff_new("h-sink", 2);
	struct pd_engine *e = engine_new();
	struct pd_buffer_pool *headers;
	uint32_t idx[2];
	int err;

	headers = pd_buffer_pool_create("headers", 4, 0, &err);
	assert_non_null(headers);
	memset(first, 1, sizeof(first));
	memset(second, 2, sizeof(second));
	memcpy(want, first, 20);
	memcpy(want + 20, second, 44);
	external_frame(headers, idx, first, second);
	pd_store_release(&hold, true);
	assert_int_equal(pd_handoff_enqueue(e, h, idx, (uint16_t[]){1}, 1, true), 1);
	/* The dispatch is over: what it referred to is gone. */
	memset(first, 0xee, sizeof(first));
	memset(second, 0xee, sizeof(second));
	pd_buffer_free(idx, 1);
	assert_int_equal(headers->free_count, 4);
	pd_store_release(&hold, false);
	wait_sunk(1);
	assert_memory_equal(sunk_data, want, sizeof(want));
	assert_int_equal(sunk_sidecar[47], 0x5a);
	assert_int_equal(sunk_tx_port, 7);
	pd_engine_destroy(e);
	pd_buffer_pool_destroy(headers);
}

static void test_external_buffers_without_a_pool_are_refused(void **state)
{
	uint8_t first[20] = {0}, second[44] = {0};
	struct pd_engine *e = engine_new();
	struct pd_buffer_pool *headers;
	struct pd_handoff *h;
	uint32_t idx[2];
	int err;

	headers = pd_buffer_pool_create("headers", 4, 0, &err);
	assert_non_null(headers);
	h = pd_handoff_create("h-sink", 4, NULL, &err);
	assert_non_null(h);
	external_frame(headers, idx, first, second);
	assert_int_equal(pd_handoff_enqueue(e, h, idx, (uint16_t[]){1}, 1, true), 0);
	assert_int_equal(headers->free_count, 2); /* it is not the handoff's to free */
	/* A slot that stayed empty is no frame. */
	assert_int_equal(give(e, h, 1, 1), 1);
	wait_sunk(1);
	assert_int_equal(sunk_count, 1);
	pd_buffer_free(idx, 1);
	pd_engine_destroy(e);
	pd_buffer_pool_destroy(headers);
}

static void test_what_nobody_took_is_freed_at_the_end(void **state)
{
	struct pd_handoff *h = handoff_new("h-sink", 8);
	struct pd_engine *e = engine_new();

	pd_store_release(&hold, true);
	while (give(e, h, 2, 16))
		;
	assert_true(held() > 0);
	pd_engine_destroy(e);
	/* The teardown stops the workers and looks at the pool. */
}

static void test_what_cannot_be_made_is_refused(void **state)
{
	int err;

	assert_null(pd_handoff_create("h-sink", 1, pool, &err));
	assert_int_equal(err, -EINVAL);
	assert_null(pd_handoff_create("h-sink", PD_HANDOFF_FRAMES_MAX + 1, pool, &err));
	assert_int_equal(err, -EINVAL);
	assert_null(pd_handoff_create("nowhere", 32, pool, &err));
	assert_int_equal(err, -ENOENT);
	assert_null(pd_handoff_create("h-input", 32, pool, &err));
	assert_int_equal(err, -EPERM);
	/* It asks the frame for a note that only its neighbours leave. */
	assert_null(pd_handoff_create("error-drop", 32, pool, &err));
	assert_int_equal(err, -EPERM);
	assert_int_equal(pd_workers_start(1, NULL), -EALREADY);
}

static void test_start_is_all_or_nothing(void **state)
{
	int cores[2] = {PD_WORKER_ANY_CORE, CPU_SETSIZE - 1};
	struct pd_worker_info info;
	int err;

	assert_int_equal(pd_workers_start(0, NULL), -EINVAL);
	assert_int_equal(pd_workers_start(PD_WORKERS_MAX + 1, NULL), -EINVAL);
	assert_int_equal(pd_workers_start(2, cores), -EINVAL);
	cores[1] = CPU_SETSIZE;
	assert_int_equal(pd_workers_start(2, cores), -EINVAL);
	assert_int_equal(pd_worker_count(), 0);
	assert_null(pd_worker_engine(1));
	assert_false(pd_worker_get(1, &info));
	assert_null(pd_handoff_create("h-sink", 32, pool, &err));
	assert_int_equal(err, -ESRCH);
	pd_workers_stop(); /* does nothing */
	assert_int_equal(pd_worker_self(), 0);
}

/* The hexadecimal mask behind `key` in the status of thread `tid`. */
static uint64_t status_mask(int tid, const char *key)
{
	char path[64], line[256];
	uint64_t mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			mask = strtoull(line + strlen(key), NULL, 16);
	fclose(f);
	return mask;
}

static void test_workers_are_named_placed_and_hear_no_signal(void **state)
{
	uint64_t until = pd_clock_ns() + LIMIT_NS, blocked;
	struct pd_worker_info info;
	int core = sched_getcpu();
	cpu_set_t set;

	pd_workers_stop();
	assert_int_equal(pd_workers_start(1, &core), 0);
	do {
		assert_true(pd_worker_get(1, &info));
		assert_true(pd_clock_ns() < until);
	} while (!info.tid || !info.rounds);
	assert_string_equal(info.name, "palladium_wk_0");
	assert_int_equal(info.core, core);
	assert_int_equal(info.thread, 1);
	blocked = status_mask(info.tid, "SigBlk:");
	assert_true(blocked & 1ull << (SIGTERM - 1));
	assert_true(blocked & 1ull << (SIGUSR1 - 1));
	assert_false(blocked & 1ull << (SIGBUS - 1));
	assert_int_equal(sched_getaffinity(info.tid, sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), 1);
	assert_true(CPU_ISSET((unsigned)core, &set));
	/* And the starter's are as they were. */
	assert_false(status_mask(getpid(), "SigBlk:") & 1ull << (SIGTERM - 1));
}

#define WITH_WORKERS(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_WORKERS(test_all_arrive_once_and_in_order),
		WITH_WORKERS(test_congestion_drops_and_frees_once),
		WITH_WORKERS(test_without_drop_the_rest_is_the_callers),
		WITH_WORKERS(test_a_worker_that_does_not_exist_has_no_room),
		WITH_WORKERS(test_a_worker_hands_to_itself_and_to_the_other),
		WITH_WORKERS(test_a_sleeping_worker_is_woken),
		WITH_WORKERS(test_external_buffers_are_copied),
		WITH_WORKERS(test_external_buffers_without_a_pool_are_refused),
		WITH_WORKERS(test_what_nobody_took_is_freed_at_the_end),
		WITH_WORKERS(test_what_cannot_be_made_is_refused),
		WITH_WORKERS(test_workers_are_named_placed_and_hear_no_signal),
		cmocka_unit_test(test_start_is_all_or_nothing),
	};
	int err, ret;

	pool = pd_buffer_pool_create("test", 4096, 128, &err);
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	pd_buffer_pool_destroy(pool);
	return ret;
}
