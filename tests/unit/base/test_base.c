/* SPDX-License-Identifier: BSD-2-Clause */
/* base/: lists, locks, log levels, error texts, faults. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/sys.h"

struct item {
	int value;
	struct pd_list node;
};

static void test_list_keeps_order_and_survives_removal(void **state)
{
	struct item items[4], *pos, *tmp;
	struct pd_list head;
	int sum = 0, last = -1;

	pd_list_init(&head);
	assert_true(pd_list_empty(&head));
	for (int i = 0; i < 4; i++) {
		items[i].value = i;
		pd_list_add_tail(&head, &items[i].node);
	}
	pd_list_for_each (pos, &head, node) {
		assert_true(pos->value > last);
		last = pos->value;
	}
	pd_list_for_each_safe (pos, tmp, &head, node) {
		if (pos->value % 2)
			pd_list_del(&pos->node);
	}
	pd_list_for_each (pos, &head, node)
		sum += pos->value;
	assert_int_equal(sum, 2);
	pd_list_del(&items[1].node); /* a second time: harmless */
	assert_int_equal(pd_list_entry(head.next, struct item, node)->value, 0);
}

struct shared {
	struct pd_lock lock;
	uint64_t count; /* plain: only the lock protects it */
};

static void *add_many(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 20000; i++) {
		pd_lock(&s->lock);
		s->count++;
		pd_unlock(&s->lock);
	}
	return NULL;
}

static void test_lock_excludes(void **state)
{
	struct shared s = {.lock = PD_LOCK_INIT(PD_RANK_LEAF)};
	pthread_t threads[4];

	for (size_t i = 0; i < PD_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, &s), 0);
	for (size_t i = 0; i < PD_ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(s.count, 80000);
	assert_true(pd_trylock(&s.lock));
	assert_false(pd_trylock(&s.lock));
	pd_unlock(&s.lock);
}

static void test_log_levels(void **state)
{
	for (int i = 0; i < PD_LOG_LEVEL_COUNT; i++)
		assert_int_equal(pd_log_level_parse(pd_log_level_name(i)), i);
	assert_int_equal(pd_log_level_parse("all"), PD_LOG_FINER);
	assert_int_equal(pd_log_level_parse("loud"), -EINVAL);
	assert_string_equal(pd_strerror(-ENOENT), pd_strerror(ENOENT));
	assert_string_equal(pd_strerror(-99999), "unknown error");
}

static void test_log_file_gets_whole_lines_and_keeps_errno(void **state)
{
	char path[] = "/tmp/pd-test-log-XXXXXX", buf[4096], longer[2048];
	int fd = mkstemp(path);
	ssize_t n;

	assert_true(fd >= 0);
	assert_int_equal(pd_log_set_file(path), 0);
	errno = 1234;
	pd_warn("test", "a line with %d", 42);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	pd_warn("test", "%s", longer);
	pd_debug("test", "not wanted at this level");
	assert_int_equal(errno, 1234);
	assert_int_equal(pd_log_set_file(NULL), 0);
	n = read(fd, buf, sizeof(buf) - 1);
	assert_true(n > 0);
	buf[n] = 0;
	assert_non_null(strstr(buf, "PALLADIUM WARNING: test: a line with 42\n"));
	assert_null(strstr(buf, "not wanted"));
	assert_int_equal(buf[n - 1], '\n');
	assert_true(n < 1200);
	close(fd);
	unlink(path);
}

/* A datagram socket at `path`, in place of what is there. */
static int syslog_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* The line that came, checked against `priority` and `text`. */
static void syslog_says(int fd, int priority, const char *text)
{
	char got[2048] = "", head[100], rest[300], month[4], program[100];
	int pri, day, hour, minute, second, pid, at = 0;
	struct timespec clock;
	struct tm local;
	time_t now;

	assert_true(recv(fd, got, sizeof(got) - 1, 0) > 0);
	assert_int_equal(sscanf(got, "<%d>%3s %2d %2d:%2d:%2d %99[^[][%d]: %n", &pri, month, &day,
				&hour, &minute, &second, program, &pid, &at),
			 8);
	assert_int_equal(pri, priority);
	assert_int_equal(pid, getpid());
	assert_string_equal(program, program_invocation_short_name);
	snprintf(rest, sizeof(rest), "%s", got + at);
	assert_string_equal(rest, text);
	/*
	 * It was written now, or at most a minute ago, by libc's own calendar. The clock is the
	 * log's own: time() is up to a tick of the kernel's behind it.
	 */
	clock_gettime(CLOCK_REALTIME, &clock);
	now = clock.tv_sec;
	for (int ago = 0;; ago++, now--) {
		assert_in_range(ago, 0, 60);
		localtime_r(&now, &local);
		strftime(head, sizeof(head), "%b %e %H:%M:%S", &local);
		if (!strncmp(strchr(got, '>') + 1, head, strlen(head)))
			break;
	}
}

static void test_log_to_the_systems_log(void **state)
{
	char path[] = "/tmp/pd-test-syslog-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(pd_log_set_syslog(path), -ECONNREFUSED); /* no socket */
	unlink(path);
	assert_int_equal(pd_log_set_syslog(path), -ENOENT);
	fd = syslog_at(path);
	pd_log_set_details(0, true); /* colours, for a terminal */
	assert_int_equal(pd_log_set_syslog(path), 0);
	errno = EDOM;
	pd_warn("test", "number %d", 1);
	assert_int_equal(errno, EDOM);
	syslog_says(fd, 12, "PALLADIUM WARNING: test: number 1");
	pd_err("test", "number 2");
	syslog_says(fd, 11, "PALLADIUM ERROR: test: number 2");
	/* Started anew, it gets what is said from then on. */
	close(fd);
	pd_info("test", "nobody hears this");
	fd = syslog_at(path);
	pd_info("test", "number 3");
	syslog_says(fd, 14, "PALLADIUM INFO: test: number 3");
	/* Full, it holds nobody up. */
	for (int i = 0; i < 5000; i++)
		pd_info("test", "much");
	assert_int_equal(pd_log_set_file(NULL), 0);
	while (recv(fd, path, 0, 0) >= 0)
		;
	pd_info("test", "to standard error");
	assert_int_equal(recv(fd, path, 0, 0), -1);
	close(fd);
	unlink(path);
}

static void test_log_limit_counts_what_it_drops(void **state)
{
	char path[] = "/tmp/pd-test-XXXXXX", buf[200];
	int fd = mkstemp(path);
	struct pd_log_limit limit = {0};
	unsigned allowed = 0;
	ssize_t n;

	assert_true(fd >= 0);
	assert_int_equal(pd_log_set_file(path), 0);
	for (int i = 0; i < 1000; i++)
		allowed += pd_log_allowed(&limit);
	assert_true(allowed >= PD_LOG_BURST && allowed <= 3 * PD_LOG_BURST);
	/* If a second began meanwhile, what was left out before has been told. */
	assert_true(allowed + limit.dropped == 1000 || allowed > PD_LOG_BURST);
	assert_int_equal(ftruncate(fd, 0), 0);
	limit = (struct pd_log_limit){.second = 1, .lines = 12, .dropped = 7};
	assert_true(pd_log_allowed(&limit));
	assert_int_equal(pd_log_set_file(NULL), 0);
	n = pread(fd, buf, sizeof(buf) - 1, 0);
	assert_true(n > 0);
	buf[n] = 0;
	assert_string_equal(buf, "PALLADIUM WARNING: log: left out: 7 lines like the next\n");
	assert_int_equal(limit.dropped, 0);
	close(fd);
	unlink(path);
}

static void test_sys_returns_errors_and_leaves_errno(void **state)
{
	errno = 77;
	assert_int_equal(pd_sys_close(-1), -EBADF);
	assert_true(pd_sys_is_error(pd_sys_mmap(NULL, 0, 0, 0, -1, 0)));
	assert_int_equal(errno, 77);
	assert_int_equal(pd_sys_getpid(), getpid());
}

static void test_clock_moves(void **state)
{
	uint64_t a = pd_clock_ns(), b = pd_clock_ns();

	assert_true(b >= a);
	assert_true(pd_clock_cycles_per_us() > 0);
}

/* --- faults ----------------------------------------------------------------------------------- */

static int fault_out;
static unsigned fault_mends;

/* The library's: it mends the first `fault_mends` by a page that is there. */
static bool fault_first(const siginfo_t *info, void *context)
{
	(void)context;
	pd_sys_write(fault_out, "l", 1);
	return fault_mends && fault_mends-- &&
	       !pd_sys_mprotect(info->si_addr, 4096, PROT_READ | PROT_WRITE);
}

/* The program's. */
static void fault_second(int sig)
{
	(void)sig;
	pd_sys_write(fault_out, "p", 1);
}

/* What a child writes and how it ends that faults with this action for its own: 0 or the signal. */
static int fault_in_child(const struct sigaction *act, unsigned mends, char said[16])
{
	struct sigaction seen;
	int pipes[2], status;
	char *page;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		alarm(20);
		fault_out = pipes[1];
		fault_mends = mends;
		page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
		if (pd_fault_install(SIGSEGV, fault_first) || !pd_fault_in_front(SIGSEGV) ||
		    pd_fault_sigaction(SIGSEGV, act, &seen) || seen.sa_handler != SIG_DFL ||
		    pd_fault_sigaction(SIGSEGV, NULL, &seen) || seen.sa_handler != act->sa_handler)
			_exit(1);
		*(volatile char *)page = 1;
		_exit(0);
	}
	close(pipes[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	n = read(pipes[0], said, 15);
	said[n > 0 ? n : 0] = 0;
	close(pipes[0]);
	assert_true(WIFSIGNALED(status) || !WEXITSTATUS(status));
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/*
 * The library sees a fault first; what it does not mend is the program's, as the kernel would have
 * it.
 */
static void test_faults(void **state)
{
	struct sigaction act = {.sa_handler = SIG_DFL};
	char said[16];

	(void)state;
	assert_int_equal(fault_in_child(&act, 1, said), 0);
	assert_string_equal(said, "l");
	assert_int_equal(fault_in_child(&act, 0, said), SIGSEGV);
	assert_string_equal(said, "l");
	act.sa_handler = SIG_IGN; /* of a fault that is as good as nothing */
	assert_int_equal(fault_in_child(&act, 0, said), SIGSEGV);
	/* Once, and then the default end. */
	act.sa_handler = fault_second;
	act.sa_flags = (int)SA_RESETHAND;
	assert_int_equal(fault_in_child(&act, 0, said), SIGSEGV);
	assert_string_equal(said, "lpl");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list_keeps_order_and_survives_removal),
		cmocka_unit_test(test_lock_excludes),
		cmocka_unit_test(test_log_levels),
		cmocka_unit_test(test_log_file_gets_whole_lines_and_keeps_errno),
		cmocka_unit_test(test_log_to_the_systems_log),
		cmocka_unit_test(test_log_limit_counts_what_it_drops),
		cmocka_unit_test(test_sys_returns_errors_and_leaves_errno),
		cmocka_unit_test(test_clock_moves),
		cmocka_unit_test(test_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
