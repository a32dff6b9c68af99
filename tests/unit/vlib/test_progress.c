/* SPDX-License-Identifier: BSD-2-Clause */
/* vlib/progress: descriptors, timers, posted work, start and stop, fork. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/sys.h"
#include "vlib/progress.h"

static int calls;
static struct pd_progress_fd a, b;
static uint64_t one = 1;

static void on_fd(struct pd_progress_fd *entry, uint32_t revents)
{
	uint64_t v;

	assert_true(revents & EPOLLIN);
	assert_int_equal(read(entry->fd, &v, sizeof(v)), sizeof(v));
	calls++;
}

static void on_fd_delete_both(struct pd_progress_fd *entry, uint32_t revents)
{
	calls++;
	pd_progress_del(&a);
	pd_progress_del(&b);
}

static void add(struct pd_progress_fd *entry, void (*fn)(struct pd_progress_fd *, uint32_t))
{
	memset(entry, 0, sizeof(*entry));
	entry->fd = eventfd(0, EFD_NONBLOCK);
	entry->events = EPOLLIN;
	entry->fn = fn;
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_add(entry), 0);
	pd_unlock(&pd_control);
}

static void del(struct pd_progress_fd *entry)
{
	pd_lock(&pd_control);
	pd_progress_del(entry);
	pd_unlock(&pd_control);
	close(entry->fd);
}

static void test_entries(void **state)
{
	calls = 0;
	add(&a, on_fd);
	assert_int_equal(pd_progress_run_once(0), 0);
	assert_int_equal(write(a.fd, &one, 8), 8);
	assert_int_equal(pd_progress_run_once(-1), 1);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_mod(&a, 0), 0);
	pd_unlock(&pd_control);
	assert_int_equal(write(a.fd, &one, 8), 8);
	assert_int_equal(pd_progress_run_once(0), 0);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_mod(&a, EPOLLIN), 0);
	pd_unlock(&pd_control);
	assert_int_equal(pd_progress_run_once(-1), 1);
	assert_int_equal(calls, 2);
	del(&a);
}

static void test_entry_deleted_by_another_in_the_same_round_stays_silent(void **state)
{
	calls = 0;
	add(&a, on_fd_delete_both);
	add(&b, on_fd_delete_both);
	assert_int_equal(write(a.fd, &one, 8), 8);
	assert_int_equal(write(b.fd, &one, 8), 8);
	assert_int_equal(pd_progress_run_once(-1), 1);
	assert_int_equal(calls, 1);
	assert_int_equal(pd_progress_run_once(0), 0);
	del(&a);
	del(&b);
}

static struct pd_progress_timer timers[3];
static char order[8];

static void on_timer(struct pd_progress_timer *timer)
{
	order[calls++] = (char)('0' + (timer - timers));
}

static void test_timers_run_in_order_and_can_be_cancelled(void **state)
{
	calls = 0;
	memset(order, 0, sizeof(order));
	pd_lock(&pd_control);
	for (int i = 0; i < 3; i++) {
		pd_list_init(&timers[i].node);
		timers[i].fn = on_timer;
	}
	pd_progress_timer_set(&timers[0], 6000000);
	pd_progress_timer_set(&timers[1], 2000000);
	pd_progress_timer_set(&timers[2], 4000000);
	pd_progress_timer_set(&timers[1], 5000000); /* again: the later one holds */
	pd_progress_timer_cancel(&timers[0]);
	pd_progress_timer_cancel(&timers[0]);
	pd_unlock(&pd_control);
	while (calls < 2)
		assert_true(pd_progress_run_once(-1) >= 0);
	assert_string_equal(order, "21");
	assert_int_equal(pd_progress_run_once(0), 0);
}

struct post {
	struct pd_progress_work work;
	int ran;
};

static int posted_order[4], posted_count;

static void on_post(struct pd_progress_work *work)
{
	struct post *p = pd_container_of(work, struct post, work);

	posted_order[posted_count++ % 4] = ++p->ran;
}

static void test_posts_run_once_in_order(void **state)
{
	struct post p[2] = {{.work.fn = on_post}, {.work.fn = on_post, .ran = 10}};

	posted_count = 0;
	pd_progress_post(&p[0].work);
	pd_progress_post(&p[1].work);
	pd_progress_post(&p[0].work);
	assert_int_equal(pd_progress_run_once(-1), 2);
	assert_int_equal(posted_order[0], 1);
	assert_int_equal(posted_order[1], 11);
	pd_progress_post(&p[0].work);
	assert_int_equal(pd_progress_run_once(-1), 1);
	assert_int_equal(p[0].ran, 2);
}

static uint32_t done;
static sigset_t thread_mask;
static char thread_name[16];

static void on_done(struct pd_progress_work *work)
{
	pthread_sigmask(SIG_SETMASK, NULL, &thread_mask);
	pthread_getname_np(pthread_self(), thread_name, sizeof(thread_name));
	assert_true(pd_progress_is_self());
	pd_store_release(&done, 1);
}

static void on_timer_done(struct pd_progress_timer *timer)
{
	pd_store_release(&done, 1);
}

static void wait_done(void)
{
	while (!pd_load_acquire(&done))
		sched_yield();
	done = 0;
}

static void test_thread_runs_posts_and_timers_and_ends(void **state)
{
	struct pd_progress_work work = {.fn = on_done};
	struct pd_progress_timer timer = {.fn = on_timer_done};

	for (int round = 0; round < 3; round++) {
		pd_list_init(&timer.node);
		pd_lock(&pd_control);
		assert_int_equal(pd_progress_start(), 0);
		assert_int_equal(pd_progress_start(), 0);
		pd_unlock(&pd_control);
		pd_progress_post(&work);
		wait_done();
		assert_string_equal(thread_name, "palladium");
		assert_true(sigismember(&thread_mask, SIGTERM) &&
			    sigismember(&thread_mask, SIGSEGV));
		pd_lock(&pd_control);
		pd_progress_timer_set(&timer, 1);
		pd_unlock(&pd_control);
		wait_done();
		pd_progress_stop();
	}
	assert_false(pd_progress_is_self());
}

static void test_child_forgets_and_may_start_its_own(void **state)
{
	struct pd_progress_work work = {.fn = on_done};
	int status;
	pid_t pid;

#ifdef PD_UNDER_TSAN
	/* ThreadSanitizer allows no thread in the child of a program with threads. */
	(void)work, (void)status, (void)pid;
	return;
#endif
	add(&a, on_fd);
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_start(), 0);
	pid = fork();
	if (pid == 0) {
		pd_progress_after_fork();
		if (a.active || pd_progress_start())
			_exit(1);
		pd_unlock(&pd_control);
		pd_progress_post(&work);
		wait_done();
		pd_progress_stop();
		_exit(0);
	}
	pd_unlock(&pd_control);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	calls = 0;
	assert_int_equal(write(a.fd, &one, 8), 8);
	while (!pd_load_acquire((uint32_t *)&calls))
		sched_yield();
	del(&a);
	pd_progress_stop();
}

static void test_affinity_syntax(void **state)
{
	assert_int_equal(pd_progress_set_affinity("0x3"), 0);
	assert_int_equal(pd_progress_set_affinity("0"), 0);
	assert_int_equal(pd_progress_set_affinity("0,1,2-5"), 0);
	assert_true(pd_progress_set_affinity("0x") < 0);
	assert_true(pd_progress_set_affinity("0x0") < 0);
	assert_true(pd_progress_set_affinity("5-2") < 0);
	assert_true(pd_progress_set_affinity("1,") < 0);
	assert_true(pd_progress_set_affinity("99999") < 0);
	assert_int_equal(pd_progress_set_affinity("-1"), 0);
	assert_int_equal(pd_progress_set_cpuset(""), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_entry_deleted_by_another_in_the_same_round_stays_silent),
		cmocka_unit_test(test_timers_run_in_order_and_can_be_cancelled),
		cmocka_unit_test(test_posts_run_once_in_order),
		cmocka_unit_test(test_thread_runs_posts_and_timers_and_ends),
		cmocka_unit_test(test_child_forgets_and_may_start_its_own),
		cmocka_unit_test(test_affinity_syntax),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
