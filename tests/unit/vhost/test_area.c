/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A front-end's memory, and how other memory takes its place: the addresses stay, and who has the
 * old file has nothing of the new one. With huge pages for one set only, too.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/sys.h"
#include "transport/vhost/area.h"
#include "../base/huge.h"

#define BYTES (64u << 10)
#define HUGE_PAGES 3
#define SEALED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct pd_vhost_area area;
static uint8_t *peer; /* its mapping */
static int fds_before;
static struct sigaction
	ours; /* the library's handler; cmocka puts its own in front for each test */

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int setup(void **state)
{
	fds_before = count_fds();
	pd_mem_set_type(PD_MEM_CONTIG, false);
	return 0;
}

/* Make an area and give it to a peer, which maps it. */
static void make(uint64_t bytes)
{
	assert_int_equal(pd_vhost_area_make(&area, bytes, NULL), 0);
	assert_false(area.shared);
	peer = mmap(NULL, area.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, area.fd, 0);
	assert_ptr_not_equal(peer, MAP_FAILED);
	area.shared = true;
}

/* All is as it was before. */
static void done(void)
{
	munmap(peer, area.bytes);
	pd_vhost_area_free(&area);
	pd_vhost_area_free(&area);
	assert_int_equal(count_fds(), fds_before);
}

/* Replace the area by memory of this kind; returns as pd_vhost_area_next. */
static int replace(enum pd_mem_kind kind)
{
	struct pd_vhost_area_next next;
	uint8_t *base = area.base;
	int err = pd_vhost_area_next(&area, kind, &next);

	if (err)
		return err;
	for (uint64_t i = 0; i < area.bytes; i += 512)
		assert_int_equal(next.base[i], 0);
	next.base[0] = area.base[0];
	next.base[area.bytes - 1] = area.base[area.bytes - 1];
	assert_int_equal(pd_vhost_area_replace(&area, &next), 0);
	assert_ptr_equal(area.base, base);
	assert_false(area.shared);
	assert_int_equal(fcntl(area.fd, F_GET_SEALS) & SEALED, SEALED);
	return 0;
}

static void the_old_file_is_the_old_peers(void **state)
{
	make(BYTES);
	area.base[0] = 1;
	area.base[100] = 2;
	area.base[BYTES - 1] = 3;
	assert_int_equal(peer[100], 2);
	assert_int_equal(replace(PD_MEM_OF_PAGES), 0);
	assert_int_equal(area.base[0], 1);
	assert_int_equal(area.base[BYTES - 1], 3);
	assert_int_equal(area.base[100], 0);
	area.base[200] = 4;
	assert_int_equal(peer[200], 0);
	memset(peer, 0xff, BYTES);
	assert_int_equal(madvise(peer, BYTES / 2, MADV_REMOVE), 0);
	assert_int_equal(area.base[0], 1);
	assert_int_equal(area.base[200], 4);
	assert_int_equal(area.base[BYTES - 1], 3);
	assert_false(pd_vhost_area_is_cut(&area));
	done();
}

static void what_is_not_needed_leaves_nothing(void **state)
{
	struct pd_vhost_area_next next;

	make(BYTES);
	area.base[0] = 1;
	assert_int_equal(pd_vhost_area_next(&area, PD_MEM_OF_PAGES, &next), 0);
	pd_vhost_area_drop(&area, &next);
	assert_int_equal(area.base[0], 1);
	assert_int_equal(peer[0], 1);
	assert_true(pd_vhost_area_next(&area, PD_MEM_OF_HUGE, &next) < 0);
	assert_int_equal(count_fds(), fds_before + 1);
	done();
}

static void huge_pages_for_one_set_only(void **state)
{
	if (!huge_begin(HUGE_PAGES)) {
		huge_end();
		skip();
	}
	pd_mem_set_type(PD_MEM_HUGEPAGES, false);
	fds_before = count_fds();
	make(HUGE_PAGES * PD_MEM_HUGE_BYTES - BYTES);
	assert_int_equal(area.bytes, HUGE_PAGES * PD_MEM_HUGE_BYTES);
	assert_int_equal(huge_page_size(area.base, NULL), 2048);
	area.base[0] = 1;
	area.base[area.bytes - 1] = 3;

	/* The old peer keeps them. */
	assert_int_equal(replace(PD_MEM_OF_PAGES), 0);
	assert_int_equal(huge_page_size(area.base, NULL), pd_mem_page() / 1024);
	assert_int_equal(replace(PD_MEM_OF_HUGE), -ENOSPC);
	assert_int_equal(area.base[0] + area.base[area.bytes - 1], 4);

	/* And does not any more. */
	munmap(peer, area.bytes);
	assert_int_equal(replace(PD_MEM_OF_HUGE), 0);
	assert_int_equal(huge_page_size(area.base, NULL), 2048);
	assert_int_equal(area.base[0] + area.base[area.bytes - 1], 4);
	assert_int_equal(huge_free(), 0);

	/* The next one takes some away: the guard knows what pages these are. */
	peer = mmap(NULL, area.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, area.fd, 0);
	assert_int_equal(madvise(peer + PD_MEM_HUGE_BYTES, PD_MEM_HUGE_BYTES, MADV_REMOVE), 0);
	assert_true(huge_write(0));
	assert_int_equal(sigaction(SIGBUS, &ours, NULL), 0);
	assert_int_equal(*(volatile uint8_t *)(area.base + PD_MEM_HUGE_BYTES + 5000), 0);
	assert_true(pd_vhost_area_is_cut(&area));
	assert_int_equal(area.base[0], 1);
	done();
	huge_end();
}

static int teardown(void **state)
{
	huge_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_old_file_is_the_old_peers, setup),
		cmocka_unit_test_setup(what_is_not_needed_leaves_nothing, setup),
		cmocka_unit_test_setup_teardown(huge_pages_for_one_set_only, setup, teardown),
	};

	if (pd_vhost_area_make(&area, BYTES, NULL))
		return 1;
	sigaction(SIGBUS, NULL, &ours);
	pd_vhost_area_free(&area);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
