/* SPDX-License-Identifier: BSD-2-Clause */
/* counters/: blocks, consistent snapshots, the file, fork. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "counters/counters.h"

static char dir[] = "/tmp/pd-counters-XXXXXX";

/* What a reader needs for these tests: the file mapped for reading. */
static const char *map_file(size_t *bytes)
{
	int fd = open(pd_ctr_path(), O_RDONLY);
	struct stat st;
	void *map;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	close(fd);
	*bytes = (size_t)st.st_size;
	return map;
}

static const struct pd_shm_group *group_of(const char *map, unsigned g)
{
	const struct pd_shm_header *h = (const void *)map;

	return (const void *)(map + h->group_offset + g * h->group_stride);
}

static const struct pd_ctr_block *block_of(const char *map, unsigned g, unsigned i)
{
	const struct pd_shm_group *rec = group_of(map, g);

	return (const void *)(map + rec->block_offset + i * rec->block_stride);
}

static int set_up(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	char path[256];

	pd_ctr_close();
	snprintf(path, sizeof(path), "%s/palladium-%u", dir, (unsigned)geteuid());
	rmdir(path);
	return rmdir(dir); /* fails if a test left a file behind */
}

static void test_blocks_work_before_the_file_and_stay_where_they_are(void **state)
{
	struct pd_ctr_block *b, *again;
	const struct pd_ctr_block *seen;
	const char *map;
	size_t bytes;

	assert_int_equal(pd_ctr_open("", 2), 0);
	assert_null(pd_ctr_path());
	b = pd_ctr_alloc(PD_CTR_LANE, 3, 0, "pd0/3");
	pd_ctr_begin(b, PD_CTR_LANE_RX);
	pd_ctr_add(b, PD_CTR_LANE_RX_FRAMES, 5);
	pd_ctr_end(b, PD_CTR_LANE_RX);
	assert_int_equal(pd_ctr_open("/nonexistent", 2), -ENOENT);
	assert_int_equal(pd_ctr_open(dir, 2), 0);
	assert_int_equal(pd_ctr_open(dir, 2), 0);
	pd_ctr_begin(b, PD_CTR_LANE_RX);
	pd_ctr_add(b, PD_CTR_LANE_RX_FRAMES, 6);
	pd_ctr_end(b, PD_CTR_LANE_RX);
	map = map_file(&bytes);
	seen = block_of(map, PD_CTR_LANE, 0);
	assert_string_equal(seen->name, "pd0/3");
	assert_int_equal(seen->id, 3);
	assert_true(seen->generation & 1);
	assert_int_equal(((const uint64_t *)(const void *)seen)[PD_CTR_LANE_RX_FRAMES], 11);
	pd_ctr_free(b);
	assert_false(seen->generation & 1);
	again = pd_ctr_alloc(PD_CTR_LANE, 4, 0, "pd0/4");
	assert_ptr_equal(again, b);
	assert_int_equal(pd_ctr_get(again, PD_CTR_LANE_RX_FRAMES), 0);
	/* a hole before blocks in use is filled */
	b = pd_ctr_alloc(PD_CTR_LANE, 5, 0, "pd0/5");
	assert_ptr_not_equal(b, again);
	pd_ctr_free(again);
	assert_ptr_equal(pd_ctr_alloc(PD_CTR_LANE, 6, 0, "pd0/6"), again);
	pd_ctr_free(again);
	pd_ctr_free(b);
	munmap((void *)(uintptr_t)map, bytes);
}

static void test_the_file_describes_itself(void **state)
{
	const struct pd_shm_header *h;
	const struct pd_shm_desc *d;
	size_t bytes;
	const char *map = map_file(&bytes);

	h = (const void *)map;
	assert_true(h->magic == PD_SHM_MAGIC);
	assert_memory_equal(map, "PDSTAT01", 8);
	assert_int_equal(h->major, 1);
	assert_int_equal(h->file_bytes, bytes);
	assert_int_equal(h->pid, getpid());
	assert_int_equal(h->state, PD_SHM_LIVE);
	assert_true(h->start_ticks > 0);
	assert_string_equal(group_of(map, PD_CTR_SOCKET)->name, "socket");
	for (uint32_t i = 0; i < h->desc_count; i++) {
		d = (const void *)(map + h->desc_offset + i * h->desc_stride);
		assert_true(d->name[0] && d->help[0]);
		assert_true(d->word < group_of(map, d->group)->block_stride / 8);
		/* A side begins a cache line, so that two sides never share one. */
		assert_int_equal(d->seq_word % 8, 0);
		assert_true(d->word > d->seq_word);
		for (uint32_t j = 0; j < i; j++) {
			const struct pd_shm_desc *o =
				(const void *)(map + h->desc_offset + j * h->desc_stride);

			assert_false(o->group == d->group &&
				     (o->word == d->word || !strcmp(o->name, d->name)));
		}
	}
	for (unsigned g = 0; g < h->group_count; g++) {
		const struct pd_shm_group *rec = group_of(map, g);

		assert_true(rec->desc_count > 0);
		assert_true(rec->block_offset + rec->block_stride * rec->block_count <= bytes);
		assert_int_equal(rec->block_offset % 64, 0);
		assert_int_equal(rec->block_stride % 64, 0);
	}
	munmap((void *)(uintptr_t)map, bytes);
}

/*
 * Lane counters that have namesakes in the port go there; others are kept in the block of the past.
 */
static void test_what_is_gone_is_not_forgotten(void **state)
{
	struct pd_ctr_block *port = pd_ctr_alloc(PD_CTR_PORT, 7, PD_SHM_NONE, "pd7");
	struct pd_ctr_block *lane = pd_ctr_alloc(PD_CTR_LANE, 0, 7, "pd7/0");
	struct pd_ctr_block *sock = pd_ctr_alloc(PD_CTR_SOCKET, 10, 7, "s");
	const struct pd_ctr_block *past;
	const uint64_t *words;
	size_t bytes;
	const char *map = map_file(&bytes);

	pd_ctr_begin(lane, PD_CTR_LANE_TX);
	pd_ctr_add(lane, PD_CTR_LANE_TX_FRAMES, 12);
	pd_ctr_end(lane, PD_CTR_LANE_TX);
	pd_ctr_count(port, PD_CTR_PORT_TX_FRAMES, 1);
	pd_ctr_free(lane);
	assert_int_equal(pd_ctr_get(port, PD_CTR_PORT_TX_FRAMES), 13);
	pd_ctr_free(port);

	for (int i = 0; i < 2; i++) {
		pd_ctr_begin(sock, PD_CTR_SOCKET_QUEUE);
		pd_ctr_add(sock, PD_CTR_SOCKET_RX_DROP_FULL, 4);
		pd_ctr_set(sock, PD_CTR_SOCKET_RX_QUEUED_BYTES, 99);
		pd_ctr_max(sock, PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX, 50 + (uint64_t)i);
		pd_ctr_end(sock, PD_CTR_SOCKET_QUEUE);
		pd_ctr_free(sock);
		sock = pd_ctr_alloc(PD_CTR_SOCKET, 10, 7, "s");
	}
	pd_ctr_free(sock);
	past = block_of(map, PD_CTR_SOCKET, 2 + 1);
	words = (const void *)past;
	assert_true(past->generation & 1);
	assert_int_equal(past->role, PD_SHM_PAST);
	assert_int_equal(words[PD_CTR_SOCKET_RX_DROP_FULL], 8);
	assert_int_equal(words[PD_CTR_SOCKET_RX_QUEUED_BYTES], 0);
	assert_int_equal(words[PD_CTR_SOCKET_RX_QUEUED_BYTES_MAX], 51);
	munmap((void *)(uintptr_t)map, bytes);
}

static void test_sockets_over_the_limit_are_summed(void **state)
{
	struct pd_ctr_block *b[5];
	const struct pd_ctr_block *others;
	const uint64_t *words;
	size_t bytes;
	const char *map = map_file(&bytes);

	for (int i = 0; i < 5; i++) {
		b[i] = pd_ctr_alloc(PD_CTR_SOCKET, i, 0, "s");
		pd_ctr_begin(b[i], PD_CTR_SOCKET_TX);
		pd_ctr_add(b[i], PD_CTR_SOCKET_TX_PACKETS, 1u << (4 * i));
		pd_ctr_end(b[i], PD_CTR_SOCKET_TX);
	}
	pd_ctr_publish();
	others = block_of(map, PD_CTR_SOCKET, 2);
	words = (const void *)others;
	assert_true(others->generation & 1);
	assert_int_equal(others->role, PD_SHM_OTHERS);
	assert_int_equal(words[PD_CTR_SOCKET_TX_PACKETS], 0x11100);
	pd_ctr_free(b[4]);
	pd_ctr_publish();
	assert_int_equal(words[PD_CTR_SOCKET_TX_PACKETS], 0x11100);
	for (int i = 0; i < 4; i++)
		pd_ctr_free(b[i]);
	munmap((void *)(uintptr_t)map, bytes);
}

struct hammer {
	struct pd_ctr_block *b;
	int stop;
};

/* Keeps frames x 64 == bytes, at every end of an update and never in the middle of one. */
static void *hammer(void *arg)
{
	struct hammer *h = arg;

	while (!pd_load_relaxed(&h->stop)) {
		pd_ctr_begin(h->b, PD_CTR_LANE_RX);
		pd_ctr_add(h->b, PD_CTR_LANE_RX_FRAMES, 3);
		pd_ctr_add(h->b, PD_CTR_LANE_RX_BYTES, 3 * 64);
		pd_ctr_add(h->b, PD_CTR_LANE_RX_BATCHES, 1);
		pd_ctr_end(h->b, PD_CTR_LANE_RX);
		for (int i = 0; i < 20; i++)
			pd_cpu_relax();
	}
	return NULL;
}

static void test_snapshots_are_consistent(void **state)
{
	struct hammer h = {.b = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "pd0/0")};
	const uint64_t *words = pd_ctr_words(h.b);
	uint64_t v[PD_CTR_LANE_RX_DROP_NO_BUFFER - PD_CTR_LANE_RX_FRAMES + 1], frames, last = 0;
	unsigned good = 0;
	bool torn = false;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, hammer, &h), 0);
	while (good < 2000 && !torn) {
		if (!pd_shm_snapshot(&words[PD_CTR_LANE_RX], &words[PD_CTR_LANE_RX_FRAMES], v,
				     PD_ARRAY_SIZE(v), 10)) {
			sched_yield(); /* the writer may have lost its core in the middle */
			continue;
		}
		frames = v[0];
		torn = v[PD_CTR_LANE_RX_BYTES - PD_CTR_LANE_RX_FRAMES] != frames * 64 ||
		       v[PD_CTR_LANE_RX_BATCHES - PD_CTR_LANE_RX_FRAMES] * 3 != frames ||
		       frames < last;
		if (frames != last)
			good++;
		else
			sched_yield(); /* or between two updates */
		last = frames;
	}
	pd_store_relaxed(&h.stop, 1);
	pthread_join(thread, NULL);
	assert_false(torn);
	pd_ctr_free(h.b);
}

static void test_a_writer_that_stops_in_the_middle_is_noticed_and_heals(void **state)
{
	struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "pd0/0");
	const uint64_t *words = pd_ctr_words(b);
	uint64_t v;

	pd_ctr_begin(b, PD_CTR_LANE_TX);
	pd_ctr_add(b, PD_CTR_LANE_TX_FRAMES, 9);
	assert_false(pd_shm_snapshot(&words[PD_CTR_LANE_TX], &words[PD_CTR_LANE_TX_FRAMES], &v, 1,
				     1000));
	assert_int_equal(v, 9);
	/* the other side is not concerned */
	assert_true(
		pd_shm_snapshot(&words[PD_CTR_LANE_RX], &words[PD_CTR_LANE_RX_FRAMES], &v, 1, 1));
	pd_ctr_begin(b, PD_CTR_LANE_TX);
	pd_ctr_add(b, PD_CTR_LANE_TX_FRAMES, 1);
	pd_ctr_end(b, PD_CTR_LANE_TX);
	assert_true(
		pd_shm_snapshot(&words[PD_CTR_LANE_TX], &words[PD_CTR_LANE_TX_FRAMES], &v, 1, 1));
	assert_int_equal(v, 10);
	pd_ctr_free(b);
}

static void test_texts_are_cut_and_end(void **state)
{
	struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_PORT, 0, PD_SHM_NONE,
					      "a-name-that-is-longer-than-thirty-one-characters");

	assert_int_equal(strlen(b->name), sizeof(b->name) - 1);
	pd_ctr_text(b, PD_CTR_TEXT_STATE, "%s", "a-state-longer-than-fifteen");
	assert_string_equal(b->state, "a-state-longer-");
	assert_int_equal(b->kind[0], 0);
	pd_ctr_text(b, PD_CTR_TEXT_STATE, "up");
	assert_string_equal(b->state, "up");
	assert_int_equal(b->text_seq & 1, 0);
	pd_ctr_free(b);
}

static void test_status_is_one_change(void **state)
{
	struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_PORT, 0, PD_SHM_NONE, "pd0");
	char long_text[200];
	uint64_t seq;

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = 0;
	pd_ctr_status(b, "a-state-longer-than-fifteen", "a reason", long_text);
	seq = b->text_seq;
	assert_int_equal(seq & 1, 0);
	assert_string_equal(b->state, "a-state-longer-");
	assert_string_equal(b->reason, "a reason");
	assert_int_equal(strlen(b->last_error), sizeof(b->last_error) - 1);
	pd_ctr_status(b, "up", "", NULL);
	assert_int_equal(b->text_seq, seq + 2);
	assert_string_equal(b->state, "up");
	assert_string_equal(b->reason, "");
	assert_int_equal(strlen(b->last_error), sizeof(b->last_error) - 1);
	pd_ctr_free(b);
}

static void test_names_tell_the_owner(void **state)
{
	struct pd_shm_owner o;

	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.12.34.56.0af", &o), 0);
	assert_int_equal(o.pid, 12);
	assert_int_equal(o.start_ticks, 34);
	assert_int_equal(o.pidns, 56);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.12.34.56.", &o), -1);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.12.34.56", &o), -1);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.0.34.56.a", &o), -1);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.-1.34.56.a", &o), -1);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.1.2.3.g", &o), -1);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stat", &o), -1);
	assert_int_equal(pd_shm_name_parse(PD_SHM_FILE_PREFIX, "stats.99999999999.2.3.a", &o), -1);
	assert_int_equal(pd_shm_start_ticks("1 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 "
					    "17 18 777 20"),
			 777);
	assert_int_equal(pd_shm_start_ticks("garbage"), 0);
	assert_int_equal(pd_shm_start_ticks("1 (a) S 1 2"), 0);
}

/* The child's counting must leave the parent's file alone, and its exit must not remove it. */
static void test_a_child_does_not_write_the_parents_file(void **state)
{
	struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "pd0/0");
	struct pd_ctr_block *stray[3];
	int status = -1;
	pid_t pid;

	for (size_t i = 0; i < PD_ARRAY_SIZE(stray); i++)
		stray[i] = pd_ctr_alloc(PD_CTR_SOCKET, (int64_t)i, 0, "s");
	pd_ctr_begin(b, PD_CTR_LANE_RX);
	pd_ctr_add(b, PD_CTR_LANE_RX_FRAMES, 5);
	pd_ctr_end(b, PD_CTR_LANE_RX);
	pd_ctr_before_fork();
	pid = fork();
	if (!pid) {
		int bad = 0;

		pd_ctr_after_fork_in_child();
		bad |= pd_ctr_path() != NULL;
		bad |= pd_ctr_get(b, PD_CTR_LANE_RX_FRAMES) != 0;
		pd_ctr_begin(b, PD_CTR_LANE_RX);
		pd_ctr_add(b, PD_CTR_LANE_RX_FRAMES, 100);
		pd_ctr_end(b, PD_CTR_LANE_RX);
		pd_ctr_free(stray[2]);
		bad |= pd_ctr_open(dir, 2) != 0;
		bad |= strcmp(b->name, "pd0/0") != 0;
		pd_ctr_close();
		_exit(bad);
	}
	pd_ctr_after_fork_in_parent();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(pd_ctr_get(b, PD_CTR_LANE_RX_FRAMES), 5);
	assert_int_equal(access(pd_ctr_path(), F_OK), 0);
	for (size_t i = 0; i < PD_ARRAY_SIZE(stray); i++)
		pd_ctr_free(stray[i]);
	pd_ctr_free(b);
}

static void test_close_removes_the_file_and_open_brings_it_back(void **state)
{
	struct pd_ctr_block *b = pd_ctr_alloc(PD_CTR_LANE, 0, 0, "pd0/0");
	char path[512];

	pd_ctr_count(b, PD_CTR_LANE_RX_FRAMES, 2);
	snprintf(path, sizeof(path), "%s", pd_ctr_path());
	pd_ctr_close();
	assert_int_equal(access(path, F_OK), -1);
	assert_null(pd_ctr_path());
	pd_ctr_count(b, PD_CTR_LANE_RX_FRAMES, 2);
	assert_int_equal(pd_ctr_open(dir, 2), 0);
	assert_string_not_equal(path, pd_ctr_path());
	assert_int_equal(pd_ctr_get(b, PD_CTR_LANE_RX_FRAMES), 4);
	pd_ctr_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks_work_before_the_file_and_stay_where_they_are),
		cmocka_unit_test(test_the_file_describes_itself),
		cmocka_unit_test(test_what_is_gone_is_not_forgotten),
		cmocka_unit_test(test_sockets_over_the_limit_are_summed),
		cmocka_unit_test(test_snapshots_are_consistent),
		cmocka_unit_test(test_a_writer_that_stops_in_the_middle_is_noticed_and_heals),
		cmocka_unit_test(test_texts_are_cut_and_end),
		cmocka_unit_test(test_status_is_one_change),
		cmocka_unit_test(test_names_tell_the_owner),
		cmocka_unit_test(test_a_child_does_not_write_the_parents_file),
		cmocka_unit_test(test_close_removes_the_file_and_open_brings_it_back),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
