/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether the close of a Unix stream socket may wait (the theory stands in closer.h).
 *
 * Not when nothing is in it, and nothing can come any more: a sender finds in one step that we have
 * shut down and that its bytes are in, or neither. What is in it already is looked at from outside
 * (MSG_PEEK, without room for descriptors): the kernel says whether there were any. That look holds
 * a reference of its own for a moment, which is the last one if somebody else receives them
 * meanwhile. So only sockets that nobody else has are looked into.
 */
#include "base/closer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/thread.h"

/* So many at once are enough, */
#define CLOSERS_ENOUGH 64
/* and those that come together with the last of them. */
#define CLOSERS_MAX 1024
/* How long a closing thread may take to come to a number, on a machine that has other work; */
#define BEGIN_NS PD_NS_PER_SEC
/* and to be through with it when it is free, before another thread closes the others. */
#define FREE_NS (20 * PD_NS_PER_MS)
/* What one thread closes. */
#define CLOSER_FDS 16
/* What is looked through for descriptors, in bytes. More is not looked through, but suspected. */
#define LOOK_BYTES 4096

/*
 * What one thread closes, one number after the other. A number is whose who counts `next` up past
 * it: the thread's, or who asked for it takes back what the thread has not come to. In use by both,
 * while they are. Atomic, as a forked child begins anew with those of threads that it has not.
 */
struct closer {
	int fd[CLOSER_FDS];
	uint32_t n, next;
	uint32_t closed; /* how many are */
	uint32_t users;
};

/*
 * Found under pd_internal_fd_lock. In no memory of the C library's, which would keep some for each
 * thread that gives any back.
 */
static struct closer closers[CLOSERS_MAX];
static uint32_t closers_now; /* threads that close something */
static long closers_pid;     /* the process that has them; under that lock */

/* Names of what there was no thread for; under that lock. */
static int kept[CLOSERS_MAX];
static unsigned n_kept;

static __thread bool closer_copies;

/* --- in a thread of its own ---------------------------------------------------------------- */

/* The thread. `arg`: the closer. */
static void *closer_main(void *arg)
{
	struct closer *c = arg;
	uint32_t i;

	prctl(PR_SET_NAME, "palladium close", 0, 0, 0);
	while ((i = pd_fetch_add(&c->next, 1)) < pd_load_relaxed(&c->n)) {
		pd_sys_close(pd_load_relaxed(&c->fd[i]));
		pd_store_release(&c->closed, i + 1);
	}
	pd_fetch_sub(&closers_now, 1);
	pd_fetch_sub(&c->users, 1);
	return NULL;
}

/* Start the thread of `c`. Returns 0 or -errno. */
static int closer_start(struct closer *c)
{
	pthread_attr_t attr;
	pthread_t thread;
	int ret = -pthread_attr_init(&attr);

	if (ret)
		return ret;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ret = pd_thread_start_brief(&thread, &attr, closer_main, c);
	pthread_attr_destroy(&attr);
	return ret;
}

/* A forked child has none of its parent's. Under pd_internal_fd_lock. */
static void closers_of_this_process(void)
{
	long pid = PD_SYS_0(SYS_getpid);

	if (closers_pid && closers_pid != pid) {
		for (unsigned i = 0; i < CLOSERS_MAX; i++)
			pd_store_relaxed(&closers[i].users, 0);
		pd_store_relaxed(&closers_now, 0);
	}
	closers_pid = pid;
}

/* One that nobody uses, or NULL. Under pd_internal_fd_lock. */
static struct closer *closer_find(void)
{
	closers_of_this_process();
	/* The acquire pairs with what its last user does at the end. */
	for (unsigned i = 0; i < CLOSERS_MAX; i++)
		if (!pd_load_acquire(&closers[i].users))
			return &closers[i];
	return NULL;
}

/* Whether `number` is nobody's. */
static bool is_free(int number)
{
	return PD_SYS_2(SYS_fcntl, number, F_GETFD) < 0;
}

/*
 * Wait until all numbers of `c` are closed, or one is free and its close takes long, or the thread
 * does not come to it. What it has not come to is taken back: returns how many these are, the last
 * ones. The load of `closed` pairs with closer_main.
 */
static uint32_t closer_await(struct closer *c, uint32_t n)
{
	static const struct timespec pause = {.tv_nsec = 20000};
	uint64_t since = pd_clock_ns();
	uint32_t closed, before = 0, next;
	bool was_free = false, now_free;

	while ((closed = pd_load_acquire(&c->closed)) < n) {
		uint64_t now = pd_clock_ns();

		/* It is free as soon as the thread is in the kernel. */
		now_free = is_free(c->fd[closed]);
		if (now_free && closed == n - 1)
			break;
		if (closed != before || now_free != was_free)
			since = now;
		before = closed;
		was_free = now_free;
		if (now - since >= (now_free ? FREE_NS : BEGIN_NS))
			break;
		nanosleep(&pause, NULL);
	}
	next = __atomic_exchange_n(&c->next, n, __ATOMIC_ACQ_REL);
	return next < n ? n - next : 0;
}

/*
 * Have a thread close `n` numbers. Returns how many of them it has not come to, the last ones, or
 * -errno: all are open. Under pd_internal_fd_lock.
 */
static int closer_try(const int *numbers, uint32_t n)
{
	struct closer *c = closer_find();
	uint32_t left;
	int ret;

	if (!c)
		return -EAGAIN;
	for (uint32_t i = 0; i < n; i++)
		pd_store_relaxed(&c->fd[i], numbers[i]);
	pd_store_relaxed(&c->n, n);
	pd_store_relaxed(&c->next, 0);
	pd_store_relaxed(&c->closed, 0);
	pd_store_relaxed(&c->users, 2);
	pd_fetch_add(&closers_now, 1);
	ret = closer_start(c);
	if (ret) {
		pd_fetch_sub(&closers_now, 1);
		pd_store_relaxed(&c->users, 0);
		return ret;
	}
	left = closer_await(c, n);
	pd_fetch_sub(&c->users, 1);
	return (int)left;
}

/* Keep `number`, that there was no thread for. False: it has no name. Under pd_internal_fd_lock. */
static bool closer_keep(int number)
{
	int name = n_kept < CLOSERS_MAX ? pd_internal_fd_note(number) : -EMFILE;

	if (name >= 0)
		kept[n_kept++] = name;
	return name >= 0;
}

/*
 * Have threads close `n` numbers, as many threads as of them take long. Returns how many are left,
 * the last ones; *ret says why. Under pd_internal_fd_lock.
 */
static uint32_t close_numbers(const int *numbers, uint32_t n, int *ret)
{
	while (n) {
		*ret = closer_try(numbers, n);
		if (*ret < 0)
			break;
		if (*ret == (int)n) {
			*ret = -EAGAIN; /* it has not begun */
			break;
		}
		numbers += n - (uint32_t)*ret;
		n = (uint32_t)*ret;
	}
	return n;
}

/* Try again to close what was kept. Under pd_internal_fd_lock. */
static void closer_retry(void)
{
	int ret;

	while (n_kept) {
		int number = pd_internal_fd_forget(kept[--n_kept]);

		if (number >= 0 && close_numbers(&number, 1, &ret)) {
			closer_keep(number);
			return;
		}
	}
}

/* Have threads close `n` numbers; what there is none for is kept. Under pd_internal_fd_lock. */
static void close_or_keep(const int *numbers, uint32_t n)
{
	int ret = 0;
	uint32_t left = close_numbers(numbers, n, &ret);
	bool all_kept = true;

	for (uint32_t i = n - left; i < n; i++)
		all_kept &= closer_keep(numbers[i]);
	if (left)
		pd_log_ratelimited(PD_LOG_WARN, "closer",
				   "a descriptor of a peer's is left open%s: no thread to close "
				   "it: %s",
				   all_kept ? " for now" : "", pd_strerror(ret));
}

void pd_closer_number(int number)
{
	close_or_keep(&number, 1);
}

bool pd_closer_is_full(void)
{
	bool full;

	pd_internal_fd_lock();
	closers_of_this_process();
	closer_retry();
	full = n_kept || pd_load_relaxed(&closers_now) >= CLOSERS_ENOUGH;
	pd_internal_fd_unlock();
	return full;
}

void pd_closer_copies(bool on)
{
	closer_copies = on;
}

/* --- sockets ------------------------------------------------------------------------------- */

/* The bytes that are in the Unix stream socket `fd`, to which none come any more; or -errno. */
static int socket_unread(int fd)
{
	int n = 0, ret = pd_sys_shutdown(fd, SHUT_RD);

	if (!ret)
		ret = pd_sys_ioctl(fd, FIONREAD, &n);
	return ret ? ret : n;
}

/* True when the `n` bytes in the socket `fd` are known to be all that is in it. */
static bool socket_is_plain(int fd, int n)
{
	char bytes[LOOK_BYTES];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	return pd_sys_recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT) == n &&
	       !(msg.msg_flags & MSG_CTRUNC);
}

/* Have a thread close `n` descriptors, at most CLOSER_FDS. */
static void close_aside(const int *fds, unsigned n)
{
	int numbers[CLOSER_FDS];
	uint32_t count = 0;

	pd_internal_fd_lock();
	for (unsigned i = 0; i < n; i++) {
		int number = pd_internal_fd_forget(fds[i]);

		if (number >= 0)
			numbers[count++] = number;
	}
	close_or_keep(numbers, count);
	pd_internal_fd_unlock();
}

/*
 * Whether what is no file that somebody serves can be closed here: a socket may have anything in
 * it, all else is the kernel's alone. (But for what stands in an epoll that somebody holds, see
 * closer.h.)
 */
static bool closes_at_once(int fd)
{
	int type;
	socklen_t bytes = sizeof(type);

	return closer_copies || pd_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes);
}

void pd_closer_shared_all(const int *fds, unsigned n)
{
	int aside[CLOSER_FDS];
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		if (fds[i] < 0)
			continue;
		if (closes_at_once(fds[i]))
			pd_sys_close(fds[i]);
		else
			aside[count++] = fds[i];
		if (count == CLOSER_FDS) {
			close_aside(aside, count);
			count = 0;
		}
	}
	if (count)
		close_aside(aside, count);
}

void pd_closer_shared(int fd)
{
	pd_closer_shared_all(&fd, 1);
}

void pd_closer_hang_up(int fd)
{
	int unread;

	if (closer_copies) {
		pd_sys_close(fd);
		return;
	}
	unread = socket_unread(fd);
	if (!unread || (unread > 0 && socket_is_plain(fd, unread))) {
		pd_sys_close(fd);
		return;
	}
	/* It may not begin at once. */
	pd_sys_shutdown(fd, SHUT_RDWR);
	close_aside(&fd, 1);
}

void pd_closer_listener(int fd)
{
	int ret = closer_copies ? -EINVAL : pd_sys_shutdown(fd, SHUT_RD);

	while (!ret) {
		ret = pd_internal_fd(pd_sys_accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
		if (ret >= 0) {
			pd_closer_hang_up(ret);
			ret = 0;
		}
	}
	/* So it says when nobody is left and nobody can come. */
	if (ret == -EINVAL)
		pd_sys_close(fd);
	else
		close_aside(&fd, 1);
}
