/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Closing may wait. A file of FUSE asks the process that serves it first, which may be the peer's
 * own; one of a network, a machine; a TCP socket waits, if it was told to (SO_LINGER), until what
 * it has to send is gone; a terminal, until it is printed. Each close of each descriptor can, not
 * only the last one, and so can dup2 on top of it. The peer chooses the file, and whoever closes
 * here has the control side, and the lock of the descriptors' names, which every call of the
 * program's that makes a descriptor takes. There is no way to look at a descriptor that is not here
 * yet, and none to get rid of one without closing it.
 *
 * So each is looked at as soon as it has come, before it is given a name, which closes its first
 * number. Let in are files in memory and on disks, pipes, Unix sockets and what is no file (as
 * eventfds): nothing else is of use. Any other is a fault, and a thread that holds nothing closes
 * it. The number is free as soon as that thread is in the kernel, which is waited for: the program
 * may then have it for something else.
 *
 * (That is all there is to be done. A process that has such a thread, with a file of FUSE, runs on
 * as if there was none, but does not end before the file's server answers or ends: so the kernel
 * has it, even when it is killed.)
 *
 * Such threads are few, as each is a fault that ends its connection. A peer that makes them again
 * and again finds, in the end, that no connection is taken any more until some are through.
 */
#include "transport/vhost/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/thread.h"
#include "transport/vhost/fs.h"

#define CLOSERS_MAX 64
/* How long a closing thread may take to begin; after that its number was free and is taken anew. */
#define BEGIN_NS (20 * PD_NS_PER_MS)
#define MEM_MAJOR 1 /* /dev/null, /dev/zero and their like */

/* One that is being closed. Shared by two, freed by the last. */
struct closer {
	int fd;
	uint32_t done;
	uint32_t users;
};

/* Threads that close something now, of the process that counts them: a forked child has none. */
static uint32_t closers;
static long closers_pid;

/* --- what it is ---------------------------------------------------------------------------- */

/* Of a file or folder: whose closing is the kernel's alone. */
static const char *harmful_file(int fd)
{
	static const char *const quiet[] = {"sysfs", "proc",    "devtmpfs", "cgroup2",
					    "btrfs", "zfs",     "bcachefs", "vfat",
					    "exfat", "iso9660", "squashfs", "erofs"};
	static char why[96];
	char name[PD_VHOST_FS_NAME];

	if (pd_vhost_fs_kind(fd, name) != PD_VHOST_FS_OTHER)
		return NULL;
	for (unsigned i = 0; i < PD_ARRAY_SIZE(quiet); i++)
		if (!strcmp(name, quiet[i]))
			return NULL;
	snprintf(why, sizeof(why), "a file of %s, not tmpfs, hugetlbfs, ext4, xfs, f2fs", name);
	return why;
}

const char *pd_vhost_foreign_is_harmful(int fd)
{
	socklen_t n = sizeof(int);
	struct statx stx;
	int domain = 0;

	if (PD_SYS_5(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &stx))
		return NULL; /* before Linux 4.11; nobody can tell */
	switch (stx.stx_mode & S_IFMT) {
	case 0:
	case S_IFIFO:
		return NULL;
	case S_IFSOCK:
		return !PD_SYS_5(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) &&
				       domain == AF_UNIX
			       ? NULL
			       : "a socket that is no Unix socket";
	case S_IFCHR:
		return stx.stx_rdev_major == MEM_MAJOR ? NULL : "a device";
	case S_IFBLK:
		return "a device";
	default:
		return harmful_file(fd);
	}
}

/* --- away with it -------------------------------------------------------------------------- */

static void closer_leave(struct closer *c)
{
	if (pd_fetch_sub(&c->users, 1) == 1)
		free(c);
}

static void *closer_main(void *arg)
{
	struct closer *c = arg;

	pd_sys_close(c->fd);
	pd_store_release(&c->done, 1);
	pd_fetch_sub(&closers, 1);
	closer_leave(c);
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
	ret = pd_thread_start(&thread, &attr, closer_main, c);
	pthread_attr_destroy(&attr);
	return ret;
}

/* How many there are. */
static uint32_t closers_now(void)
{
	long pid = PD_SYS_0(SYS_getpid);

	if (closers_pid != pid)
		pd_store_relaxed(&closers, 0);
	closers_pid = pid;
	return pd_load_relaxed(&closers);
}

void pd_vhost_foreign_discard(int fd)
{
	static const struct timespec pause = {.tv_nsec = 20000};
	struct closer *c = calloc(1, sizeof(*c));
	int ret = c ? 0 : -ENOMEM;
	uint64_t until;

	closers_now();
	if (c) {
		*c = (struct closer){.fd = fd, .users = 2};
		pd_fetch_add(&closers, 1);
		ret = closer_start(c);
	}
	if (ret) {
		pd_log_ratelimited(
			PD_LOG_WARN, "vhost",
			"a descriptor of a peer's is left open: no thread to close it: %s",
			pd_strerror(ret));
		if (c)
			pd_fetch_sub(&closers, 1);
		free(c);
		return;
	}
	/* Pairs with the release in closer_main. */
	for (until = pd_clock_ns() + BEGIN_NS; !pd_load_acquire(&c->done) &&
					       PD_SYS_2(SYS_fcntl, fd, F_GETFD) >= 0 &&
					       pd_clock_ns() < until;)
		nanosleep(&pause, NULL);
	closer_leave(c);
}

bool pd_vhost_foreign_is_full(void)
{
	return closers_now() >= CLOSERS_MAX;
}
