/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table from descriptor to socket, and the descriptors that the library keeps for itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/assert.h"
#include "base/dir.h"
#include "base/internal_fd.h"
#include "base/lib.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sock/fd.h"

/*
 * Our own descriptors go above this at most: a higher number makes the kernel grow its own table
 * for us.
 */
#define PD_FD_INTERNAL_BASE_MAX 4096

uint32_t pd_fd_top;
uintptr_t *pd_fd_chunks[PD_FD_CHUNKS];

static pid_t pd_fd_owner;

/* In a fork's child: the table is the child's copy now. */
static void pd_fd_fork_child(void)
{
	pd_fd_owner = pd_sys_getpid();
}

void pd_fd_adopt(void)
{
	static struct pd_fork_hook hook = {.order = 50, .child = pd_fd_fork_child};

	if (!pd_exchange(&pd_fd_owner, pd_sys_getpid()))
		pd_fork_register(&hook);
}

bool pd_fd_foreign_process(void)
{
	pid_t owner = pd_load_relaxed(&pd_fd_owner);

	return owner && owner != pd_sys_getpid();
}

/* The slot of `fd`, its chunk mapped if need be; NULL when there is no memory. Control path. */
static uintptr_t *pd_fd_slot_make(int fd)
{
	uintptr_t **at = &pd_fd_chunks[(uint32_t)fd >> PD_FD_CHUNK_SHIFT];
	uintptr_t *chunk = pd_load_acquire(at), *none = NULL;
	size_t bytes = PD_FD_CHUNK_SLOTS * sizeof(*chunk);
	uint32_t top;

	if (!chunk) {
		chunk = pd_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (pd_sys_is_error(chunk))
			return NULL;
		if (!pd_cas(at, &none, chunk)) {
			pd_sys_munmap(chunk, bytes);
			chunk = pd_load_acquire(at);
		}
	}
	top = pd_load_relaxed(&pd_fd_top);
	while (top <= (uint32_t)fd && !pd_cas(&pd_fd_top, &top, (uint32_t)fd + 1))
		;
	return &chunk[(uint32_t)fd & (PD_FD_CHUNK_SLOTS - 1)];
}

/*
 * One descriptor of `sk` left the table: release the socket with the last, and drop the table's
 * reference.
 */
static void pd_fd_drop(struct pd_sock *sk)
{
	uint32_t fds = pd_load_relaxed(&sk->fds), left;

	do {
		pd_assert(fds && fds != PD_SOCK_FDS_DEAD);
		left = fds == 1 ? PD_SOCK_FDS_DEAD : fds - 1;
	} while (!pd_cas(&sk->fds, &fds, left));
	if (left == PD_SOCK_FDS_DEAD)
		sk->ops->release(sk);
	pd_sock_put(sk);
}

/*
 * Sockets whose number was closed behind our back and became one of our own's. That is found out
 * with locks held, so they are released when the program closes another, outside.
 */
static struct pd_sock *pd_fd_stale;

/* Have `sk` dropped so. Any lock may be held. */
static void pd_fd_drop_later(struct pd_sock *sk)
{
	struct pd_sock *first = pd_load_relaxed(&pd_fd_stale);

	do
		sk->next_free = first; /* it is not free, so nobody else uses it */
	while (!pd_cas(&pd_fd_stale, &first, sk));
}

/* Drop what waits for it. No lock is held. */
static void pd_fd_drop_stale(void)
{
	struct pd_sock *sk, *next;

	if (pd_likely(!pd_load_relaxed(&pd_fd_stale)))
		return;
	for (sk = pd_exchange(&pd_fd_stale, NULL); sk; sk = next) {
		next = sk->next_free;
		pd_fd_drop(sk);
	}
}

/* Empty `slot` if it holds a socket. True when it did. */
static bool pd_fd_slot_clear(uintptr_t *slot)
{
	uintptr_t was = pd_load_acquire(slot);

	while (was && !(was & PD_FD_INTERNAL)) {
		if (pd_cas(slot, &was, (uintptr_t)0)) {
			pd_fd_drop((struct pd_sock *)was);
			return true;
		}
	}
	return false;
}

/*
 * A descriptor of our own that somebody closed with a raw system call: its name has no number any
 * more.
 */
static void pd_fd_internal_lost(int fd)
{
	uintptr_t *slot = pd_fd_place(fd);

	pd_internal_fd_lock();
	if (slot && (pd_load_relaxed(slot) & PD_FD_INTERNAL)) {
		if (pd_load_relaxed(slot) != PD_FD_MOVED_AWAY)
			pd_internal_fd_lost(pd_fd_slot_name(pd_load_relaxed(slot)));
		pd_store_release(slot, (uintptr_t)0);
	}
	pd_internal_fd_unlock();
}

int pd_fd_install(int fd, struct pd_sock *sk)
{
	uint32_t fds = pd_load_relaxed(&sk->fds);
	uintptr_t *slot, was;

	if (fd < 0)
		return -EBADF;
	if ((uint32_t)fd >= PD_FD_MAX)
		return -EMFILE;
	slot = pd_fd_slot_make(fd);
	if (!slot)
		return -ENOMEM;
	pd_fd_fresh(fd);
	do {
		if (fds == PD_SOCK_FDS_DEAD)
			return -EBADF;
	} while (!pd_cas(&sk->fds, &fds, fds + 1));
	pd_fetch_add(&sk->refs, 1);
	was = pd_exchange(slot, (uintptr_t)sk);
	if (was) {
		pd_assert(!(was & PD_FD_INTERNAL));
		pd_fd_drop((struct pd_sock *)was);
	}
	return 0;
}

int pd_fd_remove(int fd)
{
	uintptr_t *slot = pd_fd_place(fd);

	pd_fd_drop_stale();
	return slot && pd_fd_slot_clear(slot) ? 0 : -EBADF;
}

void pd_fd_forget(int fd)
{
	if (pd_fd_foreign_process())
		return;
	if (pd_fd_is_internal(fd))
		pd_fd_internal_lost(fd);
	else
		pd_fd_remove(fd);
}

int pd_fd_next(uint32_t fd, uint32_t last, bool internal)
{
	uint32_t top = pd_load_relaxed(&pd_fd_top);
	uintptr_t *chunk, slot;

	for (; fd < top && fd <= last; fd++) {
		chunk = pd_load_acquire(&pd_fd_chunks[fd >> PD_FD_CHUNK_SHIFT]);
		if (!chunk) {
			fd |= PD_FD_CHUNK_SLOTS - 1;
			continue;
		}
		slot = pd_load_acquire(&chunk[fd & (PD_FD_CHUNK_SLOTS - 1)]);
		if (slot && !!(slot & PD_FD_INTERNAL) == internal)
			return (int)fd;
	}
	return -1;
}

/* Who is told of open descriptors. */
struct pd_fd_told {
	void (*each)(void *ctx, int fd);
	void *ctx;
};

/* An entry of /proc/self/fd; for pd_dir_each. */
static bool pd_fd_tell(void *arg, const char *name)
{
	const struct pd_fd_told *told = arg;

	if (*name >= '0' && *name <= '9')
		told->each(told->ctx, (int)strtol(name, NULL, 10));
	return false;
}

void pd_fd_each_open(void (*each)(void *ctx, int fd), void *ctx)
{
	struct pd_fd_told told = {each, ctx};
	int dir =
		pd_internal_fd(pd_sys_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));

	if (dir < 0)
		return;
	pd_dir_each(dir, pd_fd_tell, &told);
	pd_sys_close(dir);
}

/* --- the library's own descriptors ----------------------------------------------------------- */

/* Where the numbers for our own descriptors begin: the upper half of what the program may have. */
static int pd_fd_internal_base(void)
{
	struct rlimit limit;

	if (PD_SYS_4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) < 0)
		return 512;
	return (int)pd_min(limit.rlim_cur / 2, (rlim_t)PD_FD_INTERNAL_BASE_MAX);
}

/*
 * A copy of `fd` where our own descriptors are, or at least beyond the standard streams; or -errno.
 */
static int pd_fd_internal_copy(int fd)
{
	int high = pd_sys_fcntl(fd, F_DUPFD_CLOEXEC, pd_fd_internal_base());

	if (high == -EMFILE || high == -EINVAL)
		high = pd_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return high;
}

/*
 * Note in the table that `fd` has `name`. A socket that stood there was closed behind our back.
 * Names locked. 0 or -ENOMEM.
 */
static int pd_fd_internal_note(int fd, int name)
{
	uintptr_t *slot = pd_fd_slot_make(fd), was;

	if (!slot)
		return -ENOMEM;
	was = pd_exchange(slot, pd_fd_slot_of_name(name));
	if (was && !(was & PD_FD_INTERNAL))
		pd_fd_drop_later((struct pd_sock *)was);
	else if (was && was != PD_FD_MOVED_AWAY)
		pd_internal_fd_lost(pd_fd_slot_name(was));
	return 0;
}

/*
 * Place a new descriptor of our own (base/internal_fd.h). Where no other number is free it keeps
 * the one that it has.
 */
static int pd_fd_internal_place(int fd, int name)
{
	int high = pd_fd_internal_copy(fd), ret;

	if (high == -EMFILE || high == -EINVAL)
		high = pd_min(pd_sys_fcntl(fd, F_SETFD, FD_CLOEXEC), 0) ?: fd;
	if (high < 0)
		return high;
	ret = pd_fd_internal_note(high, name);
	if (high != fd)
		pd_sys_close(ret ? high : fd);
	return ret ? ret : high;
}

/* `fd`, one of our own, is closed next. */
static void pd_fd_internal_remove(int fd)
{
	pd_store_release(pd_fd_place(fd), (uintptr_t)0);
}

void pd_fd_internal_start(void)
{
	static const struct pd_internal_fd_layer layer = {
		.place = pd_fd_internal_place,
		.note = pd_fd_internal_note,
		.remove = pd_fd_internal_remove,
	};

	pd_internal_fd_layer = &layer;
}

int pd_fd_internal_renumber(int fd, int name)
{
	int high = pd_fd_internal_copy(fd), ret;

	if (high < 0)
		return high;
	ret = pd_fd_internal_note(high, name);
	if (ret < 0)
		pd_sys_close(high);
	return ret < 0 ? ret : high;
}

void pd_fd_internal_mark(int fd, uintptr_t mark)
{
	pd_store_release(pd_fd_place(fd), mark);
}
