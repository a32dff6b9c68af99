/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio/: the table of guest memory. */
#include "ring_util.h"

static void test_mem_table(void **state)
{
	static struct pd_mem_table t;
	static uint8_t host[0x1000];
	uint32_t hint = 0;
	uint64_t run;

#define ADD(gpa, size, uva) pd_mem_add(&t, &(struct pd_mem_region){gpa, size, uva, host})
	assert_int_equal(ADD(0x1000, 0, 0), -EINVAL);
	assert_int_equal(ADD(UINT64_MAX - 4, 16, 0), -EINVAL);
	assert_int_equal(ADD(0, 16, UINT64_MAX - 4), -EINVAL);
	assert_int_equal(ADD(0x3000, 0x1000, 0x13000), 0);
	assert_int_equal(ADD(0x1000, 0x1000, 0x11000), 0);
	assert_int_equal(ADD(0x1fff, 2, 0x20000), -EEXIST);
	assert_int_equal(ADD(0x2fff, 2, 0x20000), -EEXIST);
	assert_int_equal(ADD(0x9000, 2, 0x13fff), -EEXIST);
	assert_int_equal(ADD(UINT64_MAX - 15, 16, 0x40000), 0);
#undef ADD
	assert_int_equal(t.n, 3);
	assert_ptr_equal(pd_mem_translate(&t, &hint, 0x1000, 0x1000), host);
	assert_null(pd_mem_translate(&t, &hint, 0x1000, 0x1001));
	assert_null(pd_mem_translate(&t, &hint, 0x1001, UINT64_MAX));
	assert_null(pd_mem_translate(&t, &hint, 0x0fff, 1));
	assert_null(pd_mem_translate(&t, &hint, 0x2000, 1));
	assert_ptr_equal(pd_mem_translate(&t, &hint, 0x3fff, 1), host + 0xfff);
	assert_ptr_equal(pd_mem_at(&t, &hint, UINT64_MAX, &run), host + 15);
	assert_int_equal(run, 1);
	assert_null(pd_mem_at(&t, &hint, 0, &run));
	assert_ptr_equal(pd_mem_translate_user(&t, 0x13ff0, 16), host + 0xff0);
	assert_null(pd_mem_translate_user(&t, 0x13ff0, 17));
	assert_null(pd_mem_translate_user(&t, 0x12000, 1));
	assert_int_equal(pd_mem_del(&t, 0x3000, 0x13000, 0x2000, NULL), -ENOENT);
	assert_int_equal(pd_mem_del(&t, 0x3000, 0x13000, 0x1000, NULL), 0);
	assert_null(pd_mem_translate(&t, &hint, 0x3000, 1));
	assert_int_equal(t.n, 2);
	while (t.n < PD_MEM_REGIONS_MAX)
		assert_int_equal(
			pd_mem_add(&t, &(struct pd_mem_region){0x10000 + 0x10ULL * t.n, 16,
							       0x90000 + 0x10ULL * t.n, host}),
			0);
	assert_int_equal(pd_mem_add(&t, &(struct pd_mem_region){0x99000, 16, 0x99000, host}),
			 -ENOSPC);
	assert_ptr_equal(pd_mem_translate(&t, &hint, 0x10000 + 0x10 * 400 + 3, 13), host + 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mem_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
