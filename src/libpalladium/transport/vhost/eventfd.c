/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can go wrong with a notification descriptor, and what is done about it.
 *
 * The peer chooses the file behind it. A write to a pipe or a socket may block for ever or raise
 * SIGPIPE; a read from a terminal or a file may do anything. So only eventfds are taken. All
 * anonymous inodes look alike to fstat, but the link in /proc/self/fd names the kind; where /proc
 * is not mounted, "an anonymous inode" must do.
 *
 * An eventfd blocks its writer when the counter is full, and its reader when it is empty, unless it
 * is non-blocking. That flag belongs to the open file, which the peer shares: setting it is what
 * every known peer has done already (QEMU and DPDK create theirs so), and harmless to one that only
 * polls. A hostile peer can clear it again and fill the counter. So nothing may rest on the flag:
 *
 *   reading   preadv2 with RWF_NOWAIT never waits (Linux 5.8; before that the flag is all there is).
 *   writing   has no such flag: RWF_NOWAIT is refused. The kernel's own completions of asynchronous
 *             I/O (IOCB_FLAG_RESFD) add to an eventfd and saturate in place of waiting. Measured,
 *             that takes 0.8 us against 0.3 us for a write, so the data path writes, and
 *             the control side, which must never wait, signals this way. A thread of the data path
 *             that a hostile peer did stop is found and let go by lane.c.
 *
 * Contexts of asynchronous I/O are few in a system (fs.aio-max-nr), anybody may take them all, and
 * a sandbox may refuse them. So ours is made before there is a peer. Without one, to look whether
 * there is room and then write is no way out, as the peer may be quicker. A thread that holds
 * nothing then writes, for this one time, and the control side makes room until it is through. That
 * ends: who fills the counter again has to wait for room the next time itself, and when there is
 * some, the kernel wakes all who wait. (300 processes that did nothing else kept a thread back for
 * 0.4 s.)
 *
 * An eventfd may also be one that counts down (EFD_SEMAPHORE): a read takes one, whatever the
 * count. No peer that means well makes such a one. So nothing rests on a read emptying it: who makes
 * room reads until there is some. As a kick, one that was counted up would keep awake whoever sleeps
 * on it, for as many reads, and one write of the peer's is enough for 2^64. So its peer has to go:
 *
 *   doubted   kicks in a row that gave exactly one, and the last of them was there still. Who drains
 *             kicks sees that for nothing. But a peer that rings fast looks the same: it and the
 *             reader take turns at the eventfd's lock.
 *   proven    by the control side: two are there at least, since they were added as above or, where
 *             there is no asynchronous I/O, since /proc says so; and a read gives one. Linux 6.5
 *             tells outright.
 *
 * With neither of the two it is not found. One that is counted up to less at a time costs its peer a
 * write per some wake-ups, as any kick does.
 */
#include "transport/vhost/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <linux/aio_abi.h>

#include "base/atomic.h"
#include "base/closer.h"
#include "base/compiler.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/textfile.h"
#include "base/thread.h"

int pd_vhost_eventfd_make(void)
{
	return pd_internal_fd(pd_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/* The path of descriptor `fd` in a folder of /proc, "/proc/self/fd/", into `to`, which has room. */
static void fd_path(char *to, const char *folder, int fd)
{
	char digits[12];
	int n = 0;

	to = stpcpy(to, folder);
	do
		digits[n++] = (char)('0' + fd % 10);
	while (fd /= 10);
	while (n)
		*to++ = digits[--n];
	*to = 0;
}

/* True when `fd` is an eventfd, as far as can be known. */
static int is_eventfd(int fd)
{
	static const char kind[] = "anon_inode:[eventfd]";
	char path[32], link[sizeof(kind)];
	struct stat st;
	uint32_t turn;
	ssize_t n;

	fd_path(path, "/proc/self/fd/", pd_internal_fd_hold(fd, &turn));
	n = pd_sys_readlink(path, link, sizeof(link));
	pd_internal_fd_release(fd, turn);
	if (n >= 0)
		return n == sizeof(kind) - 1 && !memcmp(link, kind, sizeof(kind) - 1);
	return !pd_sys_fstat(fd, &st) && !(st.st_mode & S_IFMT);
}

int pd_vhost_eventfd_adopt(int fd)
{
	int flags;

	if (!is_eventfd(fd))
		return -EINVAL;
	flags = pd_sys_fcntl(fd, F_GETFL, 0);
	if (flags < 0)
		return -EINVAL;
	if (!(flags & O_NONBLOCK) && pd_sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -EINVAL;
	return 0;
}

/* --- without waiting ----------------------------------------------------------------------- */

#define EVENTFD_RWF_NOWAIT 0x8

void pd_vhost_eventfd_close(int *fd)
{
	if (*fd >= 0)
		pd_closer_shared(*fd);
	*fd = -1;
}

/* Read an eventfd once: what it gave, 0 when it was empty. */
static uint64_t take(int fd)
{
	uint64_t count;
	struct iovec iov = {&count, sizeof(count)};
	long got = PD_SYS_FD_6(SYS_preadv2, fd, &iov, 1, -1, -1, EVENTFD_RWF_NOWAIT);

	if (pd_unlikely(got < 0 && got != -EAGAIN && got != -EINTR)) /* an old kernel */
		got = pd_internal_fd_ready(fd, POLLIN) > 0 ? pd_sys_read(fd, &count, sizeof(count))
							   : -EAGAIN;
	return got == sizeof(count) ? count : 0;
}

void pd_vhost_eventfd_drain(int fd)
{
	take(fd);
}

/* So many kicks in a row, each exactly one, are looked at more closely. */
#define ODD_ONES 16

bool pd_vhost_eventfd_drain_kick(int fd, uint32_t *ones)
{
	if (take(fd) != 1) {
		*ones = 0;
		return true;
	}
	if (++*ones < ODD_ONES)
		return true;
	*ones = 0;
	return take(fd) != 1;
}

void pd_vhost_eventfd_make_room(int fd)
{
	int ready;

	/* Two reads do where it counts down; more are for a peer that fills it meanwhile. */
	for (unsigned i = 0; i < 8 && pd_vhost_eventfd_is_full(fd); i++)
		pd_vhost_eventfd_drain(fd);
	ready = pd_internal_fd_ready(fd, POLLIN);
	if (ready >= 0 && !(ready & POLLIN))
		pd_vhost_eventfd_signal(fd);
}

bool pd_vhost_eventfd_is_full(int fd)
{
	int ready = pd_internal_fd_ready(fd, POLLOUT);

	return ready >= 0 && !(ready & POLLOUT);
}

/* The context of asynchronous I/O; 0: none yet. A forked child's is of no use and is made anew. */
static aio_context_t aio;

/* Have one that is of use. Returns 0 or -errno. */
static long aio_make(void)
{
	aio = 0;
	return PD_SYS_2(SYS_io_setup, 4, &aio);
}

void pd_vhost_eventfd_prepare(void)
{
	static bool told;
	struct io_event done;
	long ret = aio ? PD_SYS_5(SYS_io_getevents, aio, 0, 1, &done, NULL) : -EINVAL;

	if (ret >= 0 || (ret = aio_make()) >= 0 || told)
		return;
	told = true;
	pd_warn("vhost",
		"no context of asynchronous I/O (%s: %s): peers are notified by a thread each time",
		ret == -EAGAIN ? "more than fs.aio-max-nr are taken" : "io_setup",
		pd_strerror((int)ret));
}

/*
 * Have the kernel add one to the eventfd of this number, by completing a poll of it. Returns 1 or
 * -errno.
 */
static long signal_by_completion(int number)
{
	struct iocb cb = {
		.aio_fildes = (uint32_t)number,
		.aio_lio_opcode = IOCB_CMD_POLL,
		.aio_buf = POLLIN | POLLOUT, /* an eventfd is always one of the two */
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)number,
	};
	struct iocb *cbs[] = {&cb};
	struct io_event done;
	long ret = aio ? PD_SYS_3(SYS_io_submit, aio, 1, cbs) : -EINVAL;

	if (ret == -EINVAL) {
		ret = aio_make();
		if (!ret)
			ret = PD_SYS_3(SYS_io_submit, aio, 1, cbs);
	}
	if (ret == 1)
		PD_SYS_5(SYS_io_getevents, aio, 0, 1, &done, NULL);
	return ret;
}

/* A thread that adds one to an eventfd, as long as that takes. */
struct writer {
	int fd;
	uint32_t done;
};

/* The thread. `arg`: the writer. */
static void *writer_main(void *arg)
{
	static const uint64_t one = 1;
	struct writer *writer = arg;

	pd_sys_write(writer->fd, &one, sizeof(one));
	/* Pairs with the acquire in signal_by_thread. */
	pd_store_release(&writer->done, 1);
	return NULL;
}

/* Add one by a thread that may wait. */
static PD_NOINLINE PD_COLD void signal_by_thread(int fd)
{
	static const struct timespec pause = {.tv_nsec = 50000};
	struct writer writer = {.fd = fd};
	pthread_t thread;
	int ret = pd_thread_start_brief(&thread, NULL, writer_main, &writer);

	if (ret) {
		pd_log_ratelimited(PD_LOG_WARN, "vhost",
				   "a peer is not notified: no asynchronous I/O, and no thread: %s",
				   pd_strerror(ret));
		return;
	}
	while (!pd_load_acquire(&writer.done)) {
		if (pd_vhost_eventfd_is_full(fd))
			pd_vhost_eventfd_drain(fd);
		nanosleep(&pause, NULL);
	}
	pthread_join(thread, NULL);
}

void pd_vhost_eventfd_signal(int fd)
{
	uint32_t turn;
	long done = signal_by_completion(pd_internal_fd_hold(fd, &turn));

	pd_internal_fd_release(fd, turn);
	if (pd_unlikely(done != 1))
		signal_by_thread(fd);
}

/* --- one that counts down ------------------------------------------------------------------ */

/* The count of an eventfd as /proc tells it; 0 where it does not. */
static uint64_t told_count(int fd)
{
	char path[32], text[256];
	const char *at;
	uint32_t turn;

	fd_path(path, "/proc/self/fdinfo/", pd_internal_fd_hold(fd, &turn));
	pd_textfile_read(path, text, sizeof(text));
	pd_internal_fd_release(fd, turn);
	at = strstr(text, "eventfd-count:");
	return at ? strtoull(at + strlen("eventfd-count:"), NULL, 16) : 0;
}

/* Make sure that there are two in an eventfd, at least. False when that cannot be known. */
static bool holds_two(int fd)
{
	uint32_t turn;
	int number = pd_internal_fd_hold(fd, &turn);
	bool added = signal_by_completion(number) == 1 && signal_by_completion(number) == 1;

	pd_internal_fd_release(fd, turn);
	return added || told_count(fd) >= 2;
}

bool pd_vhost_eventfd_counts_down(int fd)
{
	/* Once is enough, unless somebody else reads it too. */
	for (unsigned i = 0; i < 3; i++)
		if (!holds_two(fd) || take(fd) != 1)
			return false;
	return true;
}
