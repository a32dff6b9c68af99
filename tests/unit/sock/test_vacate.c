/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers of the library's own descriptors that the program claims, while threads use them, sleep
 * on them, and make and close others.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/internal_fd.h"
#include "base/lib.h"
#include "base/sys.h"
#include "sock/fd.h"
#include "sock/vacate.h"
#include "vlib/progress.h"
#include "wait/beacon.h"
#include "wait/wait.h"

static const uint64_t one = 1;

/* --- claiming ------------------------------------------------------------------------------ */

struct claim {
	int from, to;
};

static int claim_put(void *ctx)
{
	struct claim *c = ctx;

	return pd_sys_dup3(c->from, c->to, O_CLOEXEC);
}

/* dup2(file, number), as the preload does it. */
static int claim(int file, int number)
{
	struct claim c = {file, number};

	return pd_vacate_for(number, claim_put, &c);
}

/*
 * Claim every number that a descriptor of the library's has, with `file`; how many. They are the
 * test's until give_back.
 */
static int claimed[64], n_claimed;

static int claim_all(int file)
{
	n_claimed = 0;
	for (int fd = pd_fd_next(0, UINT32_MAX, true); fd >= 0 && n_claimed < 64;
	     fd = pd_fd_next((uint32_t)fd + 1, UINT32_MAX, true))
		claimed[n_claimed++] = fd;
	for (int i = 0; i < n_claimed; i++) {
		assert_int_equal(claim(file, claimed[i]), 0);
		assert_false(pd_fd_is_internal(claimed[i]));
		assert_int_equal(fcntl(claimed[i], F_GETFD), FD_CLOEXEC);
	}
	return n_claimed;
}

static void give_back(void)
{
	for (int i = 0; i < n_claimed; i++)
		assert_int_equal(close(claimed[i]), 0);
}

/* The count of an eventfd, which is 0 then. */
static uint64_t count_of(int fd)
{
	uint64_t count;

	return pd_sys_read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* --- one thread ---------------------------------------------------------------------------- */

static void test_a_number_is_given_away(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK)), file = eventfd(0, EFD_NONBLOCK);
	int number = pd_internal_fd_number(own);

	assert_int_equal(claim(file, number), 0);
	assert_int_not_equal(pd_internal_fd_number(own), number);
	assert_true(pd_fd_is_internal(pd_internal_fd_number(own)));
	assert_false(pd_fd_is_internal(number));
	assert_int_equal(pd_sys_write(own, &one, sizeof(one)), sizeof(one));
	assert_int_equal(count_of(number), 0);
	assert_int_equal(count_of(own), 1);
	close(number);
	/* What fails leaves the number free, and the descriptor where it went. */
	number = pd_internal_fd_number(own);
	assert_int_equal(claim(-1, number), 0);
	assert_int_equal(fcntl(number, F_GETFD), -1);
	assert_int_equal(pd_sys_write(own, &one, sizeof(one)), sizeof(one));
	/* A number that was never ours. */
	assert_int_equal(claim(file, number), 0);
	assert_int_equal(fcntl(number, F_GETFD), FD_CLOEXEC);
	assert_int_equal(claim(file, number), 0);
	close(number);
	pd_sys_close(own);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
	close(file);
}

static void test_without_another_number_nothing_changes(void **state)
{
	int file = fcntl(0, F_DUPFD, 40), own;
	struct rlimit was, low;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	low = (struct rlimit){41, was.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	own = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK));
	while (fcntl(0, F_DUPFD, 0) >= 0)
		;
	assert_int_equal(claim(file, pd_internal_fd_number(own)), -EMFILE);
	assert_true(pd_fd_is_internal(pd_internal_fd_number(own)));
	assert_int_equal(pd_sys_write(own, &one, sizeof(one)), sizeof(one));
	pd_sys_close(own);
	for (int fd = 3; fd <= file; fd++)
		close(fd);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
}

static uint32_t fired;

static void note_fired(struct pd_progress_fd *entry, uint32_t revents)
{
	count_of(entry->fd);
	fired++;
}

/* The progress thread's epoll, what stands in it, and what wakes it. */
static void test_the_progress_epoll_follows(void **state)
{
	int file = eventfd(0, EFD_NONBLOCK);
	struct pd_progress_fd entry = {
		.fd = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK)),
		.events = EPOLLIN,
		.fn = note_fired,
	};

	pd_lock(&pd_control);
	assert_int_equal(pd_progress_add(&entry), 0);
	pd_unlock(&pd_control);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(claim_all(file), 3); /* the epoll, its wake eventfd, the entry */
		while (pd_progress_run_once(0))       /* it was nudged */
			;
		pd_lock(&pd_control);
		assert_int_equal(pd_progress_mod(&entry, EPOLLIN), 0);
		pd_unlock(&pd_control);
		fired = 0;
		assert_int_equal(pd_sys_write(entry.fd, &one, sizeof(one)), sizeof(one));
		assert_int_equal(pd_progress_run_once(10000), 1);
		assert_int_equal(fired, 1);
		assert_int_equal(pd_progress_run_once(0), 0);
		give_back();
	}
	assert_int_equal(count_of(file), 0);
	pd_lock(&pd_control);
	pd_progress_del(&entry);
	pd_unlock(&pd_control);
	pd_sys_write(entry.fd, &one, sizeof(one));
	assert_int_equal(pd_progress_run_once(0),
			 0); /* it stands there no more, under any number */
	pd_sys_close(entry.fd);
	pd_progress_stop();
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
	close(file);
}

/* A beacon that is lit goes out under the number that it has by then. */
static void test_a_beacon_follows(void **state)
{
	int epoll = epoll_create1(0);
	struct epoll_event event;
	struct pd_epoll ep;
	int from, to, name;

	assert_int_equal(pd_beacon_init(), 0);
	pd_epoll_init(&ep, epoll);
	from = pd_fd_next(0, UINT32_MAX, true);
	name = pd_fd_slot_name(pd_fd_slot(from));
	pd_beacon_light(&ep);
	to = pd_sys_fcntl(name, F_DUPFD, 100);
	pd_beacon_move(&ep, name + 1, from, to); /* another's */
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_MOD, to, &event), -1);
	pd_beacon_move(&ep, name, from, to);
	pd_beacon_move(&ep, name, from, to); /* it calls two threads */
	pd_internal_fd_lock();
	pd_internal_fd_move(name, to);
	pd_internal_fd_moved(name);
	pd_internal_fd_unlock();
	assert_int_equal(pd_sys_epoll_pwait(epoll, &event, 1, 0, NULL), 1);
	assert_int_equal(pd_beacon_filter(&event, 1), 0);
	pd_beacon_out(&ep);
	pd_beacon_light(&ep);
	pd_beacon_out(&ep);
	assert_int_equal(pd_sys_epoll_pwait(epoll, &event, 1, 0, NULL), 0);
	close(from);
	close(epoll);
	close(to);
	pd_fd_fresh(from);
}

/* --- several ------------------------------------------------------------------------------- */

#define WRITERS 3
#define MOVES 400

static uint32_t over;

struct writer {
	pthread_t thread;
	int fd;
	uint64_t wrote;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;

	while (!pd_load_relaxed(&over))
		w->wrote += pd_sys_write(w->fd, &one, sizeof(one)) == sizeof(one);
	return NULL;
}

/* Not one write of a thread goes to what the program put where the descriptor was. */
static void test_calls_follow(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK)), file = eventfd(0, EFD_NONBLOCK);
	struct writer writers[WRITERS] = {{0}};
	uint64_t wrote = 0;

	over = 0;
	for (int i = 0; i < WRITERS; i++) {
		writers[i].fd = own;
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]),
				 0);
	}
	for (int i = 0; i < MOVES; i++) {
		int number = pd_internal_fd_number(own);

		assert_int_equal(claim(file, number), 0);
		assert_int_equal(count_of(file), 0);
		close(number);
	}
	pd_store_relaxed(&over, 1);
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		wrote += writers[i].wrote;
	}
	assert_int_equal(count_of(file), 0);
	assert_int_equal(count_of(own), wrote);
	pd_sys_close(own);
	close(file);
}

static void *claim_in_thread(void *arg)
{
	struct claim *c = arg;

	assert_int_equal(claim(c->from, c->to), 0);
	pd_store_release(&over, 1);
	return NULL;
}

/* A number that somebody has looked up is not given away before they are done with it. */
static void test_a_number_in_use_is_waited_for(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK)), file = eventfd(0, EFD_NONBLOCK);
	pthread_t thread;
	uint32_t turn, next;
	struct claim c = {file, pd_internal_fd_hold(own, &turn)};

	over = 0;
	assert_int_equal(pthread_create(&thread, NULL, claim_in_thread, &c), 0);
	while (pd_internal_fd_number(own) == c.to)
		sched_yield();
	for (int i = 0; i < 2000; i++) {
		/* Whoever looks it up now does not hold up anything. */
		assert_int_not_equal(pd_internal_fd_hold(own, &next), c.to);
		assert_int_not_equal(next, turn);
		pd_internal_fd_release(own, next);
		assert_int_equal(pd_load_acquire(&over), 0);
		assert_true(pd_fd_is_internal(c.to)); /* nor may the program use it yet */
		sched_yield();
	}
	assert_int_equal(pd_sys_write(c.to, &one, sizeof(one)), sizeof(one));
	pd_internal_fd_release(own, turn);
	pthread_join(thread, NULL);
	assert_int_equal(over, 1);
	assert_int_equal(count_of(file), 0);
	assert_int_equal(count_of(own), 1);
	close(c.to);
	pd_sys_close(own);
	close(file);
}

/* It is closed while it moves, and its name is not used again before that is over. */
static void test_closed_while_it_moves(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK)), file = eventfd(0, EFD_NONBLOCK),
	    other, again[2];
	pthread_t thread;
	uint32_t turn;
	struct claim c = {file, pd_internal_fd_hold(own, &turn)};

	over = 0;
	assert_int_equal(pthread_create(&thread, NULL, claim_in_thread, &c), 0);
	while (pd_internal_fd_number(own) == c.to)
		sched_yield();
	assert_int_equal(pd_sys_close(own), 0);
	other = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK));
	assert_int_not_equal(other, own);
	pd_internal_fd_release(own, turn);
	pthread_join(thread, NULL);
	pd_sys_close(other);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
	assert_int_equal(fcntl(c.to, F_GETFD), FD_CLOEXEC);
	close(c.to);
	for (int i = 0; i < 2; i++)
		again[i] = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK));
	assert_true(again[0] == own || again[1] == own);
	for (int i = 0; i < 2; i++)
		pd_sys_close(again[i]);
	close(file);
}

#define SLEEPERS 3

struct sleeper {
	pthread_t thread;
	int fd;              /* an own descriptor that it sleeps on, or -1 */
	struct pd_bell bell; /* and a bell */
	uint32_t heard;      /* rings it knows of */
};

static void *sleep_on(void *arg)
{
	struct sleeper *s = arg;
	struct pd_wait_set *ws = pd_wait_begin();

	while (!pd_load_relaxed(&over)) {
		uint32_t seq = pd_bell_seq(&s->bell);

		pd_store_release(&s->heard, seq);
		pd_wait_reset(ws);
		pd_wait_add_bell(ws, &s->bell, seq, NULL);
		if (s->fd >= 0) {
			count_of(s->fd);
			pd_wait_add_fd(ws, s->fd);
		}
		pd_wait_sleep(ws, PD_WAIT_FOREVER, NULL);
	}
	pd_wait_end(ws);
	return NULL;
}

/* Ring, and wait until the sleeper has heard it: a wake-up that is lost never ends. */
static void ring_and_wait(struct sleeper *s)
{
	uint32_t rings;

	pd_bell_ring(&s->bell);
	rings = pd_bell_seq(&s->bell);
	while (pd_load_acquire(&s->heard) != rings)
		sched_yield();
}

/*
 * Threads that sleep on a descriptor, and on their own wake descriptors, are woken by it whatever
 * its number is by then. What stands at the old number is never ready.
 */
static void test_sleepers_follow(void **state)
{
	int file = eventfd(0, EFD_NONBLOCK),
	    shared = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK));
	struct sleeper sleepers[SLEEPERS];
	unsigned seed = 1;

	over = 0;
	for (int i = 0; i < SLEEPERS; i++) {
		sleepers[i].fd = i ? shared : -1;
		sleepers[i].heard = 1;
		pd_bell_init(&sleepers[i].bell);
		assert_int_equal(pthread_create(&sleepers[i].thread, NULL, sleep_on, &sleepers[i]),
				 0);
	}
	for (int i = 0; i < MOVES; i++) {
		struct sleeper *s = &sleepers[rand_r(&seed) % SLEEPERS];

		if (rand_r(&seed) % 2) /* it has gone to sleep, most likely */
			usleep(rand_r(&seed) % 200);
		claim_all(file);
		ring_and_wait(s);
		if (rand_r(&seed) % 2)
			pd_sys_write(shared, &one, sizeof(one));
		ring_and_wait(s);
		give_back();
	}
	assert_int_equal(count_of(file), 0);
	pd_store_relaxed(&over, 1);
	for (int i = 0; i < SLEEPERS; i++) {
		pd_bell_ring(&sleepers[i].bell);
		pthread_join(sleepers[i].thread, NULL);
	}
	pd_sys_close(shared);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
	close(file);
}

/* Make and close descriptors of the library's own. */
static void *make_and_close(void *arg)
{
	while (!pd_load_relaxed(&over)) {
		int a = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK));
		int b = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK));

		pd_sys_write(a, &one, sizeof(one));
		if (b >= 0)
			pd_sys_close(b);
		if (count_of(a) != 1)
			pd_fetch_add((uint32_t *)arg, 1);
		if (a >= 0)
			pd_sys_close(a);
	}
	return NULL;
}

/*
 * The program puts a file at numbers that descriptors of ours come to and leave at the same time.
 * What it put there stays there.
 */
static void test_births_and_ends(void **state)
{
	int file = eventfd(7, EFD_NONBLOCK), low = fcntl(0, F_DUPFD, 3), base;
	struct rlimit was, tight;
	uint32_t wrong = 0;
	struct stat st, there;
	pthread_t threads[2];

	/* As few numbers as make them meet. */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	tight = (struct rlimit){(rlim_t)low + 24, was.rlim_max};
	base = (int)tight.rlim_cur / 2;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	assert_int_equal(fstat(file, &st), 0);
	over = 0;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, make_and_close, &wrong), 0);
	for (int i = 0; i < 20 * MOVES; i++) {
		int number =
			i % 4 ? low + 1 : base + i / 4 % 6; /* where they are made, where they go */

		assert_int_equal(claim(file, number), 0);
		sched_yield();
		assert_int_equal(fstat(number, &there), 0);
		assert_int_equal(there.st_ino, st.st_ino);
		assert_false(pd_fd_is_internal(number));
		close(number);
	}
	pd_store_relaxed(&over, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(wrong, 0);
	assert_int_equal(count_of(file), 7);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	close(file);
	close(low);
}

/* Forks while a thread holds names: in the child nothing waits for that thread. */
static void test_forks_between(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK)), file = eventfd(0, EFD_NONBLOCK);
	struct writer writer = {.fd = own};
	int status;

	over = 0;
	assert_int_equal(pthread_create(&writer.thread, NULL, write_on, &writer), 0);
	for (int i = 0; i < 40; i++) {
		pid_t pid;

		pd_fork_run_prepare();
		pid = fork();
		if (pid)
			pd_fork_run_parent();
		else
			pd_fork_run_child();
		if (!pid)
			_exit(claim(file, pd_internal_fd_number(own)) != 0 || count_of(file) != 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	pd_store_relaxed(&over, 1);
	pthread_join(writer.thread, NULL);
	pd_sys_close(own);
	close(file);
}

static int start(void **state)
{
	pd_progress_set_manual(true);
	pd_fd_internal_start();
	pd_internal_fd_register_fork();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_number_is_given_away),
		cmocka_unit_test(test_without_another_number_nothing_changes),
		cmocka_unit_test(test_the_progress_epoll_follows),
		cmocka_unit_test(test_calls_follow),
		cmocka_unit_test(test_a_number_in_use_is_waited_for),
		cmocka_unit_test(test_closed_while_it_moves),
		cmocka_unit_test(test_sleepers_follow),
		cmocka_unit_test(test_births_and_ends),
		cmocka_unit_test(test_forks_between),
		cmocka_unit_test(test_a_beacon_follows), /* closes it for good */
	};

	return cmocka_run_group_tests_name("vacate", tests, start, NULL);
}
