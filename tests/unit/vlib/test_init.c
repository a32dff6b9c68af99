/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/init: order, circles, failures. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "vlib/init.h"

static char ran[32];

#define FN(c)                             \
	static int fn_##c(void)           \
	{                                 \
		ran[strlen(ran)] = #c[0]; \
		return 0;                 \
	}
FN(a)
FN(b)
FN(c)
FN(d)
FN(e)

static int fn_bad(void)
{
	return -EPERM;
}

static int registered(void)
{
	ran[strlen(ran)] = 'R';
	return 0;
}
PD_INIT_FUNCTION(registered) = {};

/* Five functions a to e, as a list in the order `order`. */
static struct pd_init f[5];

static void make(struct pd_init_list *list, const char *order)
{
	static const struct pd_init plain[5] = {{.name = "a", .fn = fn_a},
						{.name = "b", .fn = fn_b},
						{.name = "c", .fn = fn_c},
						{.name = "d", .fn = fn_d},
						{.name = "e", .fn = fn_e}};

	memcpy(f, plain, sizeof(f));
	memset(list, 0, sizeof(*list));
	memset(ran, 0, sizeof(ran));
	for (; *order; order++)
		pd_init_register(list, &f[*order - 'a']);
}

static void test_without_constraints_the_order_of_registration_holds(void **state)
{
	struct pd_init_list list;

	make(&list, "cadeb");
	assert_int_equal(pd_init_run(&list), 0);
	assert_string_equal(ran, "cadeb");
	assert_int_equal(pd_init_run(&list), 0); /* each runs once */
	assert_string_equal(ran, "cadeb");
}

static void test_constraints_of_all_three_kinds(void **state)
{
	struct pd_init_list list;

	make(&list, "edcba");
	f[0].runs_before = PD_INITS("b", "nobody");
	f[3].runs_after = PD_INITS("b");
	f[4].init_order = PD_INITS("d", "c", "e");
	assert_int_equal(pd_init_run(&list), 0);
	assert_string_equal(ran, "abdce");
}

static void test_a_circle_runs_nothing(void **state)
{
	struct pd_init_list list;

	make(&list, "abc");
	f[0].runs_after = PD_INITS("c");
	f[1].runs_after = PD_INITS("a");
	f[2].runs_after = PD_INITS("b");
	assert_int_equal(pd_init_run(&list), -ELOOP);
	assert_string_equal(ran, "");
	make(&list, "a");
	f[0].runs_before = PD_INITS("a");
	assert_int_equal(pd_init_run(&list), -ELOOP);
}

static void test_a_failure_stops_and_can_be_tried_again(void **state)
{
	struct pd_init_list list;

	make(&list, "abc");
	f[1].fn = fn_bad;
	assert_int_equal(pd_init_run(&list), -EPERM);
	assert_string_equal(ran, "a");
	f[1].fn = fn_b;
	assert_int_equal(pd_init_run(&list), 0);
	assert_string_equal(ran, "abc");
}

static void test_the_macro_registers(void **state)
{
	memset(ran, 0, sizeof(ran));
	assert_int_equal(pd_init_run(&pd_inits), 0);
	assert_string_equal(ran, "R");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_constraints_the_order_of_registration_holds),
		cmocka_unit_test(test_constraints_of_all_three_kinds),
		cmocka_unit_test(test_a_circle_runs_nothing),
		cmocka_unit_test(test_a_failure_stops_and_can_be_tried_again),
		cmocka_unit_test(test_the_macro_registers),
	};

	pd_log_set_level(PD_LOG_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
