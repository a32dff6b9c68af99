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
/* How long a closing thread may take to begin, on a machine that has other things to do; */
#define BEGIN_NS PD_NS_PER_SEC
/* and then to have the number free: after that it was, and is taken anew. */
#define FREE_NS (20 * PD_NS_PER_MS)
/* What is looked through for descriptors, in bytes. More is not looked through, but suspected. */
#define LOOK_BYTES 4096

/*
 * One that is being closed. In use by who asked and by the thread, while they are. Atomic, as a
 * forked child begins anew with those of threads that it has not.
 */
struct closer {
	int fd;
	uint32_t begun, done;
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

	prctl(PR_SET_NAME, "palladium close", 0, 0, 0);
	pd_store_release(&c->begun, 1);
	pd_sys_close(pd_load_relaxed(&c->fd));
	pd_store_release(&c->done, 1);
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

/* Wait until the number of `c` is free. The loads pair with closer_main. */
static void closer_await(const struct closer *c)
{
	static const struct timespec pause = {.tv_nsec = 20000};
	uint64_t until = pd_clock_ns() + BEGIN_NS;

	while (!pd_load_acquire(&c->begun) && pd_clock_ns() < until)
		nanosleep(&pause, NULL);
	until = pd_clock_ns() + FREE_NS;
	while (!pd_load_acquire(&c->done) && PD_SYS_2(SYS_fcntl, c->fd, F_GETFD) >= 0 &&
	       pd_clock_ns() < until)
		nanosleep(&pause, NULL);
}

/* Have a thread close `number`. Returns 0 or -errno: it is open. Under pd_internal_fd_lock. */
static int closer_try(int number)
{
	struct closer *c = closer_find();
	int ret;

	if (!c)
		return -EAGAIN;
	pd_store_relaxed(&c->fd, number);
	pd_store_relaxed(&c->begun, 0);
	pd_store_relaxed(&c->done, 0);
	pd_store_relaxed(&c->users, 2);
	pd_fetch_add(&closers_now, 1);
	ret = closer_start(c);
	if (ret) {
		pd_fetch_sub(&closers_now, 1);
		pd_store_relaxed(&c->users, 0);
		return ret;
	}
	closer_await(c);
	pd_fetch_sub(&c->users, 1);
	return 0;
}

/* Keep `number`, that there was no thread for. False: it has no name. Under pd_internal_fd_lock. */
static bool closer_keep(int number)
{
	int name = n_kept < CLOSERS_MAX ? pd_internal_fd_note(number) : -EMFILE;

	if (name >= 0)
		kept[n_kept++] = name;
	return name >= 0;
}

/* Try again to close what was kept. Under pd_internal_fd_lock. */
static void closer_retry(void)
{
	while (n_kept) {
		int number = pd_internal_fd_forget(kept[--n_kept]);

		if (number >= 0 && closer_try(number)) {
			closer_keep(number);
			return;
		}
	}
}

void pd_closer_number(int number)
{
	int ret = closer_try(number);
	bool is_kept = ret && closer_keep(number);

	if (ret)
		pd_log_ratelimited(PD_LOG_WARN, "closer",
				   "a descriptor of a peer's is left open%s: no thread to close "
				   "it: %s",
				   is_kept ? " for now" : "", pd_strerror(ret));
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

/* Have a thread close `fd`. */
static void close_aside(int fd)
{
	int number;

	pd_internal_fd_lock();
	number = pd_internal_fd_forget(fd);
	if (number >= 0)
		pd_closer_number(number);
	pd_internal_fd_unlock();
}

/*
 * In place only what can stand in no epoll: files of tmpfs, hugetlbfs and memfd_create, which alone
 * have seals to be asked for.
 */
void pd_closer_shared(int fd)
{
	if (closer_copies || pd_sys_fcntl(fd, F_GET_SEALS, 0) >= 0)
		pd_sys_close(fd);
	else
		close_aside(fd);
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
	close_aside(fd);
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
		close_aside(fd);
}
