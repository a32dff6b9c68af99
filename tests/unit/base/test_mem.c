/* SPDX-License-Identifier: BSD-2-Clause */
/* base/mem: types of memory, what they fall back to, and what is said about it. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "tests/unit/base/huge.h"

#define HUGE PD_MEM_HUGE_BYTES

static char log_path[] = "/tmp/pd-test-mem-XXXXXX";

/* How often `text` stands in the log. */
static int logged(const char *text)
{
	FILE *f = fopen(log_path, "r");
	char line[1200];
	int n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void test_small_pieces_are_of_ordinary_pages_whatever_the_type(void **state)
{
	enum pd_mem_kind kind = PD_MEM_OF_HUGE;
	uint64_t bytes = 5000;
	int fd;

	pd_mem_set_type(PD_MEM_HUGEPAGES, true);
	assert_int_equal(pd_mem_unit(HUGE / 2 - 1), pd_mem_page());
	assert_int_equal(pd_mem_unit(HUGE / 2), HUGE);
	fd = pd_mem_file("test", &bytes, &kind);
	assert_true(fd >= 0);
	assert_int_equal(kind, PD_MEM_OF_PAGES);
	assert_int_equal(bytes % pd_mem_page(), 0);
	close(fd);
	pd_mem_set_type(PD_MEM_ANON, true);
	assert_int_equal(pd_mem_unit(100 * HUGE), pd_mem_page());
	assert_int_equal(logged("mem:"), 0);
}

static void test_a_file_of_ordinary_pages_is_zero_and_keeps_its_size(void **state)
{
	enum pd_mem_kind kind = PD_MEM_OF_HUGE;
	uint64_t bytes = 3 * HUGE + 1;
	uint8_t *p;
	int fd;

	pd_mem_set_type(PD_MEM_CONTIG, false);
	fd = pd_mem_file("test", &bytes, &kind);
	assert_true(fd >= 0);
	assert_int_equal(kind, PD_MEM_OF_PAGES);
	assert_int_equal(bytes, 3 * HUGE + pd_mem_page());
	p = pd_mem_file_map(fd, bytes, kind);
	assert_false(pd_sys_is_error(p));
	assert_int_equal(p[0] | p[bytes - 1], 0);
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(ftruncate(fd, (off_t)(2 * bytes)), -1);
	munmap(p, bytes);
	close(fd);
}

static void test_a_limit_of_file_sizes_is_an_error_and_no_signal(void **state)
{
	struct rlimit old, small = {.rlim_cur = 4096};
	uint64_t bytes = HUGE;
	enum pd_mem_kind kind;
	int fd;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	fd = pd_mem_file("test", &bytes, &kind);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(fd, -EFBIG);
}

static void test_reserved_space_holds_pieces_and_takes_them_back(void **state)
{
	uint8_t *base = pd_mem_reserve(64 * HUGE);
	long resident = -1;

	assert_non_null(base);
	assert_int_equal((uintptr_t)base % HUGE, 0);
	for (int type = PD_MEM_ANON; type <= PD_MEM_CONTIG; type++) {
		pd_mem_set_type((enum pd_mem_type)type, true);
		assert_true(pd_mem_commit(base + HUGE, 2 * HUGE) >= 0);
		assert_int_equal(base[HUGE] | base[3 * HUGE - 1], 0);
		base[HUGE] = base[3 * HUGE - 1] = 1;
		pd_mem_release(base + HUGE, 2 * HUGE);
		huge_page_size(base + HUGE, &resident);
		assert_int_equal(resident, 0);
	}
	munmap(base, 64 * HUGE);
}

static void test_without_huge_pages_one_calm_line_and_ordinary_ones(void **state)
{
	uint8_t *base = pd_mem_reserve(8 * HUGE);
	enum pd_mem_kind kind;
	uint64_t bytes = HUGE;
	int fd;

	if (!huge_begin(0)) {
		huge_end();
		skip();
	}
	pd_mem_set_type(PD_MEM_HUGEPAGES, false);
	for (int i = 0; i < 2; i++) {
		assert_true(pd_mem_commit(base, 2 * HUGE) < PD_MEM_OF_HUGE);
		base[0] = base[2 * HUGE - 1] = 1;
		pd_mem_release(base, 2 * HUGE);
		fd = pd_mem_file("test", &bytes, &kind);
		assert_true(fd >= 0);
		assert_int_equal(kind, PD_MEM_OF_PAGES);
		close(fd);
	}
	huge_end();
	munmap(base, 8 * HUGE);
	assert_int_equal(logged("INFO: mem: ordinary pages instead of huge ones"), 1);
	assert_int_equal(logged("2 of 2 MiB are needed at once and 0 of"), 1);
	assert_int_equal(logged("WARN"), 0);
}

static void test_huge_pages_are_there_before_they_are_touched(void **state)
{
	enum pd_mem_kind kind = PD_MEM_OF_PAGES;
	uint8_t *base = pd_mem_reserve(8 * HUGE), *p;
	uint64_t bytes = HUGE + 1;
	struct stat st;
	int fd;

	if (!huge_begin(5)) {
		huge_end();
		skip();
	}
	pd_mem_set_type(PD_MEM_HUGEPAGES, true);
	fd = pd_mem_file("test", &bytes, &kind);
	assert_true(fd >= 0);
	assert_int_equal(kind, PD_MEM_OF_HUGE);
	assert_int_equal(bytes, 2 * HUGE);
	assert_int_equal(huge_free(), 3);
	p = pd_mem_file_map(fd, bytes, kind);
	assert_false(pd_sys_is_error(p));
	assert_int_equal(p[0] | p[bytes - 1], 0);
	assert_int_equal(huge_page_size(p, NULL), 2048);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blksize, HUGE); /* a peer rounds to this */
	assert_int_equal(ftruncate(fd, 0), -1);

	/* Not enough for this one, and no less of it taken than nothing. */
	assert_true(pd_mem_commit(base, 4 * HUGE) < PD_MEM_OF_HUGE);
	base[0] = base[4 * HUGE - 1] = 1;
	assert_int_equal(huge_free(), 3);
	pd_mem_release(base, 4 * HUGE);
	assert_int_equal(pd_mem_commit(base, 3 * HUGE), PD_MEM_OF_HUGE);
	assert_int_equal(huge_free(), 0);
	assert_int_equal(huge_page_size(base, NULL), 2048);
	base[0] = base[3 * HUGE - 1] = 1;

	/* The child has a hole, which it fills by itself. */
	if (!fork()) {
		if (huge_page_size(base, NULL) != -1 || pd_mem_renew(base, 3 * HUGE) ||
		    base[0] | base[3 * HUGE - 1] || huge_free())
			_exit(1);
		base[0] = 2;
		_exit(0);
	}
	int status;

	wait(&status);
	assert_int_equal(status, 0);
	assert_int_equal(base[0], 1);
	pd_mem_release(base, 3 * HUGE);
	munmap(p, bytes);
	close(fd);
	assert_int_equal(huge_free(), 5);
	huge_end();
	munmap(base, 8 * HUGE);
	assert_int_equal(logged("DETAILS: mem: huge pages of 2 MiB hold buffers and rings"), 1);
}

static int setup(void **state)
{
	int fd = mkstemp(log_path);

	if (fd < 0)
		return -1;
	close(fd);
	pd_log_set_level(PD_LOG_DETAILS);
	return pd_log_set_file(log_path);
}

static int teardown(void **state)
{
	unlink(log_path);
	huge_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_pieces_are_of_ordinary_pages_whatever_the_type),
		cmocka_unit_test(test_a_file_of_ordinary_pages_is_zero_and_keeps_its_size),
		cmocka_unit_test(test_a_limit_of_file_sizes_is_an_error_and_no_signal),
		cmocka_unit_test(test_reserved_space_holds_pieces_and_takes_them_back),
		cmocka_unit_test(test_without_huge_pages_one_calm_line_and_ordinary_ones),
		cmocka_unit_test(test_huge_pages_are_there_before_they_are_touched),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
