/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wrappers on sockets of ours, with a fake kind of socket: this program contains preload/
 * itself, so its own calls of close, dup, read... are the wrappers. Signals, too: deferred inside,
 * at once outside.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/internal_fd.h"
#include "base/sys.h"
#include "preload/preload.h"
#include "preload/real.h"

static int reads, releases, flag_changes;
static char last_written[64];

static ssize_t fake_read(struct pd_sock *sk, void *buf, size_t n)
{
	reads++;
	if (n < 5)
		return -EMSGSIZE;
	memcpy(buf, "fake\n", 5);
	return 5;
}

static ssize_t fake_write(struct pd_sock *sk, const void *buf, size_t n)
{
	snprintf(last_written, sizeof(last_written), "%.*s", (int)n, (const char *)buf);
	return (ssize_t)n;
}

static void *fake_mmap(struct pd_sock *sk, void *addr, size_t len, int prot, int flags, off_t off)
{
	return pd_sys_mmap(addr, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void fake_flags(struct pd_sock *sk)
{
	flag_changes++;
}

static void fake_release(struct pd_sock *sk)
{
	releases++;
}

static struct pd_sock_ops fake_ops = {.read = fake_read,
				      .write = fake_write,
				      .mmap = fake_mmap,
				      .flags_changed = fake_flags,
				      .release = fake_release};

/* A socket of ours on a placeholder of the kernel's. */
static int fake_socket(void)
{
	int fd = pd_sys_socket(AF_UNIX, SOCK_SEQPACKET, 0);
	struct pd_sock *sk = pd_sock_new(PD_SOCK_TEST, sizeof(*sk), &fake_ops);

	assert_non_null(sk);
	assert_int_equal(pd_fd_install(fd, sk), 0);
	pd_sock_put(sk);
	return fd;
}

static int start(void **state)
{
	pd_real_resolve();
	pd_sock_ops_fill(&fake_ops);
	pd_fork_start();
	pd_signal_start();
	pd_fd_internal_start();
	pd_gate_open(&pd_gate_configured);
	return 0;
}

static int reset(void **state)
{
	reads = releases = flag_changes = 0;
	return 0;
}

static void test_calls_reach_the_socket(void **state)
{
	int fd = fake_socket();
	char buf[8];

	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	errno = 0;
	assert_int_equal(read(fd, buf, 1), -1);
	assert_int_equal(errno, EMSGSIZE);
	assert_int_equal(listen(fd, 1), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(accept(fd, NULL, NULL), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(syscall(SYS_read, fd, buf, sizeof(buf)), 5);
	assert_int_equal(syscall(SYS_read, fd, buf, 1), -1);
	assert_int_equal(syscall(SYS_listen, fd, 1), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(reads, 4);
	assert_int_equal(close(fd), 0);
	assert_int_equal(releases, 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), -1);
	assert_int_equal(errno, EBADF);
}

static void test_copies_share(void **state)
{
	int fd = fake_socket(), copy[5];
	char buf[8];

	copy[0] = dup(fd);
	copy[1] = dup2(fd, 200);
	copy[2] = dup3(fd, 201, O_CLOEXEC);
	copy[3] = fcntl(fd, F_DUPFD_CLOEXEC, 300);
	copy[4] = (int)syscall(SYS_dup3, fd, 202, 0);
	close(fd);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(read(copy[i], buf, sizeof(buf)), 5);
		assert_int_equal(releases, 0);
		if (i < 4)
			close(copy[i]);
	}
	assert_int_equal(syscall(SYS_close, copy[4]), 0);
	assert_int_equal(releases, 1);
}

static void test_dup2_onto_a_socket_closes_it(void **state)
{
	int fd = fake_socket(), file = open("/dev/null", O_RDWR);
	char buf[8];

	assert_int_equal(dup2(-1, fd), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(releases, 0); /* a dup2 that fails closes nothing */
	assert_int_equal(dup2(fd, fd), fd);
	assert_int_equal(dup3(fd, fd, 0), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(dup2(file, fd), fd);
	assert_int_equal(releases, 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	close(fd);
	close(file);
}

static void test_close_behind_our_back(void **state)
{
	int fd = fake_socket(), again;
	char buf[8];

	pd_sys_close(fd); /* as libc's fclose would */
	again = open("/dev/null", O_RDONLY);
	assert_int_equal(again, fd);
	assert_int_equal(releases, 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	close(fd);
}

static void test_our_own_descriptors_are_out_of_reach(void **state)
{
	int own = pd_internal_fd(pd_sys_eventfd(1, 0)), sock = fake_socket(), file;
	int number = pd_internal_fd_number(own);
	uint64_t value;

	assert_int_equal(close(number), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(read(number, &value, sizeof(value)), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(dup(number), -1);
	assert_int_equal(fcntl(number, F_GETFD), -1);
	assert_int_equal(close_range(3, ~0u, 0), 0);
	assert_int_equal(releases, 1);
	assert_false(pd_fd_ours(sock));
	assert_int_equal(pd_sys_fcntl(own, F_GETFD, 0), FD_CLOEXEC);
	closefrom(3);
	assert_int_equal(pd_sys_fcntl(own, F_GETFD, 0), FD_CLOEXEC);
	assert_int_equal(dup2(number, 3), -1);
	assert_int_equal(errno, EBADF);
	file = open("/dev/null", O_RDWR);
	assert_int_equal(dup2(-1, number), -1); /* moves nothing */
	assert_int_equal(dup3(file, number, O_APPEND), -1);
	assert_int_equal(pd_internal_fd_number(own), number);
	assert_int_equal(dup2(file, number), number);
	assert_int_not_equal(pd_internal_fd_number(own), number);
	assert_int_equal(pd_sys_read(own, &value, sizeof(value)), 8);
	assert_int_equal(close(number), 0); /* it is the program's now */
	number = pd_internal_fd_number(own);
	assert_int_equal(syscall(SYS_dup3, file, number, O_CLOEXEC), number);
	assert_int_equal(fcntl(number, F_GETFD), FD_CLOEXEC);
	assert_int_equal(close(number), 0);
	assert_int_equal(fcntl(number, F_GETFD), -1);
	assert_int_equal(pd_sys_fcntl(own, F_GETFD, 0), FD_CLOEXEC);
	pd_sys_close(own);
	assert_int_equal(pd_fd_next(0, UINT32_MAX, true), -1);
	close(file);
}

static void test_nonblocking_follows(void **state)
{
	int fd = fake_socket(), on = 0;
	struct pd_sock *sk = pd_fd_get(fd);

	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(sk->flags, O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(ioctl(fd, FIONBIO, &on), 0);
	assert_int_equal(sk->flags, 0);
	assert_int_equal(flag_changes, 2);
	assert_int_equal(ioctl(fd, FIONREAD, &on), -1);
	assert_int_equal(errno, ENOTTY);
	pd_fd_put(sk);
	close(fd);
}

static void test_stream_over_a_socket(void **state)
{
	int fd = fake_socket();
	FILE *f = fdopen(fd, "r+");
	char line[16];

	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_string_equal(line, "fake\n");
	fputs("hello", f);
	assert_int_equal(fclose(f), 0);
	assert_string_equal(last_written, "hello");
	assert_int_equal(releases, 1);
	assert_int_equal(pd_sys_fcntl(fd, F_GETFD, 0), -EBADF);
}

static void test_mmap_reaches_the_socket(void **state)
{
	int fd = fake_socket();
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_true(p != MAP_FAILED);
	p[0] = 1;
	assert_int_equal(munmap(p, 4096), 0);
	close(fd);
}

/* A vfork child closes and copies what it likes: the parent keeps its sockets. */
static void test_vfork_child_leaves_the_table_alone(void **state)
{
	int fd = fake_socket(), status;
	pid_t pid = vfork();
	char buf[8];

	if (pid == 0) {
		close(fd);
		dup2(0, fd);
		close_range(3, ~0u, 0);
		_exit(7);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_int_equal(releases, 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	close(fd);
}

static void test_fork_child_has_its_own_table(void **state)
{
	int fd = fake_socket(), status;
	char buf[8];
	pid_t pid = fork();

	if (pid == 0) {
		close(fd);
		_exit(releases == 1 && read(fd, buf, 5) < 0 && errno == EBADF ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	close(fd);
}

static volatile int handled, handled_depth, handled_value;
static volatile pid_t handled_sender;
static sigset_t handled_mask;

static void on_info(int sig, siginfo_t *info, void *uc)
{
	handled++;
	handled_depth = pd_lib_self.depth;
	handled_sender = info->si_pid;
	handled_value = info->si_value.sival_int;
	pthread_sigmask(SIG_SETMASK, NULL, &handled_mask);
}

static void on_plain(int sig)
{
	handled++;
}

/* Install on_info for `sig` with `flags`, SIGUSR2 blocked during it. */
static void install(int sig, int flags)
{
	struct sigaction act = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | flags};

	sigemptyset(&act.sa_mask);
	sigaddset(&act.sa_mask, SIGUSR2);
	assert_int_equal(sigaction(sig, &act, NULL), 0);
	handled = 0;
}

static void test_old_handlers_are_the_programs(void **state)
{
	struct sigaction act = {.sa_handler = on_plain, .sa_flags = SA_RESTART}, old;

	sigemptyset(&act.sa_mask);
	sigaddset(&act.sa_mask, SIGHUP);
	assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, on_plain);
	assert_int_equal(old.sa_flags & (SA_RESTART | SA_SIGINFO), SA_RESTART);
	assert_true(sigismember(&old.sa_mask, SIGHUP));
	assert_false(sigismember(&old.sa_mask, SIGUSR2));
	assert_ptr_equal(signal(SIGUSR1, SIG_IGN), on_plain);
	assert_ptr_equal(signal(SIGUSR1, on_plain), SIG_IGN);
	assert_ptr_equal(signal(SIGUSR1, SIG_DFL), on_plain);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	assert_int_equal(sigaction(SIGKILL, &act, NULL), -1);
	assert_int_equal(errno, EINVAL);
	assert_true(signal(999, on_plain) == SIG_ERR);
}

static void test_handler_outside_runs_at_once(void **state)
{
	install(SIGUSR1, 0);
	raise(SIGUSR1);
	assert_int_equal(handled, 1);
	assert_int_equal(handled_sender, getpid());
	assert_true(sigismember(&handled_mask, SIGUSR1));
	assert_true(sigismember(&handled_mask, SIGUSR2));
	assert_false(sigismember(&handled_mask, SIGHUP));
	install(SIGUSR1, SA_NODEFER | SA_RESETHAND);
	raise(SIGUSR1);
	assert_int_equal(handled, 1);
	assert_false(sigismember(&handled_mask, SIGUSR1));
	assert_true(signal(SIGUSR1, SIG_DFL) == SIG_DFL); /* it was reset */
}

static void test_handler_inside_waits_and_none_is_lost(void **state)
{
	union sigval value = {.sival_int = 1};
	sigset_t before, after;

	install(SIGRTMIN, SA_RESTART);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	pd_lib_enter();
	pd_lib_enter();
	for (; value.sival_int <= 5; value.sival_int++)
		sigqueue(getpid(), SIGRTMIN, value);
	assert_int_equal(handled, 0);
	assert_true(pd_lib_signal_pending());
	assert_true(pd_signal_restart_wanted());
	pd_lib_leave();
	assert_int_equal(handled, 0);
	errno = 1234;
	pd_lib_leave();
	assert_int_equal(errno, 1234);
	assert_int_equal(handled, 5);
	assert_int_equal(handled_value, 5); /* in order */
	assert_int_equal(handled_depth, 0);
	assert_int_equal(handled_sender, getpid());
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	assert_memory_equal(&before, &after, 8);
	signal(SIGRTMIN, SIG_DFL);
}

static void test_handler_in_a_sleep_runs_at_once(void **state)
{
	struct timespec left = {5, 0};

	install(SIGUSR1, 0);
	pd_lib_enter();
	assert_false(pd_lib_sleep_begin(&left));
	raise(SIGUSR1);
	assert_int_equal(handled, 1);
	assert_int_equal(handled_depth, 0);
	assert_int_equal(left.tv_sec, 0); /* a sleep that the kernel begins only now ends at once */
	assert_true(pd_lib_sleep_end());
	assert_false(pd_signal_restart_wanted());
	raise(SIGUSR1); /* inside again */
	assert_int_equal(handled, 1);
	assert_true(pd_lib_sleep_begin(&left));
	assert_false(pd_lib_sleep_end());
	assert_true(pd_lib_signals_run());
	assert_int_equal(handled, 2);
	assert_int_equal(pd_lib_self.depth, 1);
	assert_false(pd_lib_signals_run());
	pd_lib_leave();
	signal(SIGUSR1, SIG_DFL);
}

/* A prepare handler that runs after ours, hence inside the fork, and gets a signal there. */
static bool signal_in_fork;

static void raise_in_fork(void)
{
	if (signal_in_fork)
		raise(SIGUSR1);
}

static void test_signal_during_fork_is_the_parents(void **state)
{
	static struct pd_fork_hook hook = {.order = 60, .prepare = raise_in_fork};
	sigset_t before, after;
	int status;
	pid_t pid;

	pd_fork_register(&hook);
	install(SIGUSR1, 0);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	signal_in_fork = true;
	pid = fork();
	signal_in_fork = false;
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	if (pid == 0)
		_exit(handled || pd_lib_self.depth || pd_lib_self.pending ||
		      memcmp(&before, &after, 8));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(handled, 1);
	assert_int_equal(handled_depth, 0);
	assert_memory_equal(&before, &after, 8);
	signal(SIGUSR1, SIG_DFL);
}

static sigjmp_buf jump;

static void on_jump(int sig)
{
	siglongjmp(jump, 1);
}

static void test_handler_may_jump_away(void **state)
{
	signal(SIGUSR1, on_jump);
	if (!sigsetjmp(jump, 1)) {
		pd_lib_enter();
		raise(SIGUSR1);
		pd_lib_leave();
		fail();
	}
	assert_int_equal(pd_lib_self.depth, 0);
	assert_false(pd_lib_signal_pending());
	install(SIGUSR1, 0);
	raise(SIGUSR1);
	assert_int_equal(handled, 1);
	signal(SIGUSR1, SIG_DFL);
}

static volatile bool storm_over;

/* Change a handler over and over. */
static void *change_handlers(void *arg)
{
	struct sigaction act = {.sa_handler = on_plain};

	while (!pd_load_relaxed(&storm_over)) {
		act.sa_flags ^= SA_RESTART;
		sigaction(SIGUSR1, &act, NULL);
	}
	return NULL;
}

static void test_storm_of_signals_and_changes(void **state)
{
	struct pd_lib_thread *self = &pd_lib_self;
	pthread_t thread;

	signal(SIGUSR1, on_plain);
	handled = 0;
	storm_over = false;
	assert_int_equal(pthread_create(&thread, NULL, change_handlers, NULL), 0);
	for (int i = 0; i < 5000; i++) {
		pd_lib_enter();
		pthread_kill(pthread_self(), SIGUSR1);
		pd_lib_leave();
	}
	pd_store_relaxed(&storm_over, true);
	pthread_join(thread, NULL);
	assert_int_equal(handled, 5000);
	assert_int_equal(self->depth, 0);
	signal(SIGUSR1, SIG_DFL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_calls_reach_the_socket, reset),
		cmocka_unit_test_setup(test_copies_share, reset),
		cmocka_unit_test_setup(test_dup2_onto_a_socket_closes_it, reset),
		cmocka_unit_test_setup(test_close_behind_our_back, reset),
		cmocka_unit_test_setup(test_our_own_descriptors_are_out_of_reach, reset),
		cmocka_unit_test_setup(test_nonblocking_follows, reset),
		cmocka_unit_test_setup(test_stream_over_a_socket, reset),
		cmocka_unit_test_setup(test_mmap_reaches_the_socket, reset),
		cmocka_unit_test_setup(test_vfork_child_leaves_the_table_alone, reset),
		cmocka_unit_test_setup(test_fork_child_has_its_own_table, reset),
		cmocka_unit_test_setup(test_old_handlers_are_the_programs, reset),
		cmocka_unit_test_setup(test_handler_outside_runs_at_once, reset),
		cmocka_unit_test_setup(test_handler_inside_waits_and_none_is_lost, reset),
		cmocka_unit_test_setup(test_handler_in_a_sleep_runs_at_once, reset),
		cmocka_unit_test_setup(test_signal_during_fork_is_the_parents, reset),
		cmocka_unit_test_setup(test_handler_may_jump_away, reset),
		cmocka_unit_test_setup(test_storm_of_signals_and_changes, reset),
	};

	return cmocka_run_group_tests_name("preload", tests, start, NULL);
}
