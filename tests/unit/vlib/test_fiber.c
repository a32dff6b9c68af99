/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/fiber: going back and forth, what is kept over it, what ends with it, and the guard. */
#include <errno.h>
#include <execinfo.h>
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/compiler.h"
#include "vlib/fiber.h"

static struct pd_fiber fibers[3];
static char trail[64];

static void note(char c)
{
	size_t n = strlen(trail);

	assert_true(n + 1 < sizeof(trail));
	trail[n] = c;
	trail[n + 1] = 0;
}

/* Notes its letter three times, with a wait in between, from a few calls down. */
static void letters_from(struct pd_fiber *f, char c, int depth)
{
	if (depth) {
		letters_from(f, c, depth - 1);
		note(c);
		return;
	}
	for (int i = 0; i < 2; i++) {
		note(c);
		pd_fiber_suspend(f);
	}
}

static void letters(void *arg)
{
	struct pd_fiber *f = arg;

	letters_from(f, (char)('a' + (f - fibers)), 1);
}

static void test_fibers_take_turns(void **state)
{
	trail[0] = 0;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pd_fiber_make(&fibers[i], "test", 0, letters, &fibers[i]), 0);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 3; i++)
			assert_int_equal(pd_fiber_resume(&fibers[i]), round < 2);
	assert_string_equal(trail, "abcabcabc");
	for (int i = 0; i < 3; i++) {
		pd_fiber_free(&fibers[i]);
		pd_fiber_free(&fibers[i]);
	}
}

/* Many values that are all needed after the wait: some stand in registers that a call keeps. */
static void numbers(void *arg)
{
	struct pd_fiber *f = &fibers[0];
	uint64_t *out = arg, a = out[0], b = a * 3, c = a * 5, d = a * 7, e = a * 11, g = a * 13;
	double x = (double)a / 3;

	fesetround(FE_UPWARD);
	for (int i = 0; i < 100; i++) {
		pd_fiber_suspend(f);
		a += b;
		b += c;
		c += d;
		d += e;
		e += g;
		x *= 1.25;
	}
	out[0] = a + b + c + d + e;
	out[1] = x > 1e9;
	out[2] = fegetround() == FE_UPWARD;
}

static void test_registers_are_kept(void **state)
{
	uint64_t out[3] = {12345}, a = 12345, b = a * 3, c = a * 5, d = a * 7, e = a * 11,
		 g = a * 13, mine = 0;
	double y = 1;

	assert_int_equal(pd_fiber_make(&fibers[0], "test", 0, numbers, out), 0);
	while (pd_fiber_resume(&fibers[0])) {
		assert_int_equal(fegetround(), FE_TONEAREST);
		mine++;
		y += 0.5;
	}
	for (int i = 0; i < 100; i++) {
		a += b;
		b += c;
		c += d;
		d += e;
		e += g;
	}
	assert_int_equal(out[0], a + b + c + d + e);
	assert_int_equal(out[1], 1);
#if defined(__x86_64__) /* where a call keeps the control words */
	assert_int_equal(out[2], 1);
#endif
	assert_int_equal(mine, 100);
	assert_true(y > 50.9 && y < 51.1);
	assert_int_equal(fegetround(), FE_TONEAREST);
	pd_fiber_free(&fibers[0]);
}

/* What the thread's mask becomes in a fiber it stays, and the other way round. */
static void masks(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pd_fiber_suspend(&fibers[0]);
	sigprocmask(SIG_SETMASK, NULL, arg);
}

static void test_the_signal_mask_is_the_threads(void **state)
{
	sigset_t set, seen;

	assert_int_equal(pd_fiber_make(&fibers[0], "test", 0, masks, &seen), 0);
	assert_true(pd_fiber_resume(&fibers[0]));
	sigprocmask(SIG_SETMASK, NULL, &set);
	assert_true(sigismember(&set, SIGUSR1));
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	assert_false(pd_fiber_resume(&fibers[0]));
	assert_false(sigismember(&seen, SIGUSR1));
	pd_fiber_free(&fibers[0]);
}

static void trace(void *arg)
{
	void *frames[64];

	*(int *)arg = backtrace(frames, 64);
}

static void test_a_backtrace_ends_where_the_fiber_began(void **state)
{
	int n = 0;

	assert_int_equal(pd_fiber_make(&fibers[0], "test", 256 << 10, trace, &n), 0);
	assert_false(pd_fiber_resume(&fibers[0]));
	assert_in_range(n, 2, 10);
	pd_fiber_free(&fibers[0]);
}

/* Use about `bytes` of the stack. */
static PD_NOINLINE int fill(size_t bytes)
{
	volatile char here[512];

	memset((char *)here, 1, sizeof(here));
	return bytes > sizeof(here) ? fill(bytes - sizeof(here)) + here[7] : here[3];
}

static void fill_20k(void *arg)
{
	*(int *)arg = fill(20 << 10);
}

static void fill_without_end(void *arg)
{
	*(int *)arg = fill(1 << 30);
}

static void test_size_and_use_of_a_stack(void **state)
{
	int got = 0;

	assert_int_equal(pd_fiber_make(&fibers[0], "test", 0, fill_20k, &got), 0);
	assert_int_equal(fibers[0].stack_bytes, PD_FIBER_STACK_BYTES * PD_FIBER_STACK_SCALE);
	assert_true(pd_fiber_used(&fibers[0]) < 512);
	assert_false(pd_fiber_resume(&fibers[0]));
	assert_int_equal(got, 40);
	assert_true(pd_fiber_used(&fibers[0]) > 20 << 10);
	pd_fiber_free(&fibers[0]);
	assert_int_equal(pd_fiber_used(&fibers[0]), 0);
	assert_int_equal(pd_fiber_make(&fibers[0], "test", 100001, fill_20k, &got), 0);
	assert_in_range(fibers[0].stack_bytes, 100001ul * PD_FIBER_STACK_SCALE,
			100001ul * PD_FIBER_STACK_SCALE + 65536);
	assert_int_equal(fibers[0].stack_bytes % 4096, 0);
	pd_fiber_free(&fibers[0]);
	assert_int_equal(pd_fiber_make(&fibers[0], "test", SIZE_MAX / 8, fill_20k, &got), -ENOMEM);
	pd_fiber_free(&fibers[0]);
}

static void test_an_overrun_ends_the_program(void **state)
{
	int status, got = 0;
	pid_t pid = fork();

	if (pid == 0) {
		/* A sanitizer would explain it at length. */
		close(STDERR_FILENO);
		pd_fiber_make(&fibers[0], "test", 0, fill_without_end, &got);
		pd_fiber_resume(&fibers[0]);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
#if defined(PD_UNDER_ASAN) || defined(PD_UNDER_TSAN)
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status));
#else
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
#endif
}

/* Lines of this process's map of its memory. */
static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned n = 0;
	int c;

	assert_non_null(maps);
	while ((c = getc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

/* Waits with memory that only its stack knows of: it is not lost while the stack is there. */
static void hold(void *arg)
{
	char *volatile memory = malloc(100);

	memory[0] = 1;
	pd_fiber_suspend(arg);
	free(memory);
}

static void test_stacks_are_given_back(void **state)
{
	unsigned before = mappings();

	for (int i = 0; i < 500; i++) {
		struct pd_fiber *f = &fibers[i % 3];

		assert_int_equal(pd_fiber_make(f, "test", 0, hold, f), 0);
		assert_true(pd_fiber_resume(f));
		assert_false(pd_fiber_resume(f));
		pd_fiber_free(f);
	}
	assert_true(mappings() < before + 50);
	/* One that waits for good, as a process of a program that ends. */
	assert_int_equal(pd_fiber_make(&fibers[0], "test", 0, hold, &fibers[0]), 0);
	assert_true(pd_fiber_resume(&fibers[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fibers_take_turns),
		cmocka_unit_test(test_registers_are_kept),
		cmocka_unit_test(test_the_signal_mask_is_the_threads),
		cmocka_unit_test(test_a_backtrace_ends_where_the_fiber_began),
		cmocka_unit_test(test_size_and_use_of_a_stack),
		cmocka_unit_test(test_an_overrun_ends_the_program),
		cmocka_unit_test(test_stacks_are_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
