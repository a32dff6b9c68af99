/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much of peers' memory is mapped: few with huge tables leave the others what small ones need.
 * The files hold nothing, and their addresses are only counted: a sanitizer has none for so much.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/sys.h"

/* The next addresses, which nobody touches. */
static void *given(size_t len)
{
	static uintptr_t next = 1ull << 32;
	uintptr_t at = next;

	next += len;
	return (void *)at;
}

#define pd_sys_mmap(addr, len, prot, flags, fd, off) given(len)
#define pd_sys_munmap(addr, len) ((void)(addr))
#define pd_sys_madvise(addr, len, advice) ((void)(addr))
#include "transport/vhost/map.c"

#define GIB (1ull << 30)

static int file; /* of 32 TiB */

static int setup(void **state)
{
	file = memfd_create("nothing", MFD_CLOEXEC);
	return ftruncate(file, (off_t)PD_VHOST_MAP_BYTES);
}

static int teardown(void **state)
{
	return close(file);
}

/* A region of `size` bytes more for a map; NULL or why not. */
static const char *add(struct pd_vhost_map *map, uint64_t size)
{
	struct pd_vhost_region region = {.size = size};

	for (uint32_t i = 0; i < map->n; i++)
		region.gpa += map->mapping[i].len;
	region.uaddr = region.gpa;
	return pd_vhost_map_add(map, &region, file);
}

static struct pd_vhost_map *with(uint64_t size)
{
	struct pd_vhost_map *map = pd_vhost_map_new(NULL);

	assert_non_null(map);
	assert_null(add(map, size));
	return map;
}

static void a_huge_one_leaves_room_for_small_ones(void **state)
{
	struct pd_vhost_map *huge[2], *small[PD_PORTS_MAX - 2], *late = pd_vhost_map_new(NULL);
	const char *why;

	for (unsigned i = 0; i < 2; i++)
		huge[i] = with(PD_VHOST_MAP_BYTES);
	for (unsigned i = 0; i < PD_PORTS_MAX - 2; i++)
		small[i] = with(PD_VHOST_MAP_SMALL_BYTES);
	/* A small one cannot grow into a large one, in whatever steps. */
	why = add(small[0], 4096);
	assert_non_null(why);
	assert_non_null(strstr(why, "all peers together"));
	assert_null(add(late, PD_VHOST_MAP_SMALL_BYTES - GIB));
	assert_non_null(add(late, 2 * GIB));
	assert_null(add(late, GIB));
	assert_int_equal(late->n, 2);
	/* What small ones have counts when another large one comes. */
	pd_vhost_map_free(huge[0]);
	assert_null(add(late, GIB));
	huge[0] = pd_vhost_map_new(NULL);
	assert_non_null(add(huge[0], PD_VHOST_MAP_BYTES));
	for (unsigned i = 0; i < PD_PORTS_MAX - 2; i++)
		pd_vhost_map_free(small[i]);
	pd_vhost_map_free(late);
	assert_null(add(huge[0], PD_VHOST_MAP_BYTES));
	for (unsigned i = 0; i < 2; i++)
		pd_vhost_map_free(huge[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_huge_one_leaves_room_for_small_ones, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
