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
#include "base/lib.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sock/fd.h"

/* Our own descriptors go above this at most: a higher number makes the kernel grow its own table for us. */
#define PD_FD_INTERNAL_BASE_MAX 4096

/* One descriptor of the library's own; `fd` is -1 in a record that is free. */
struct pd_fd_record {
	int fd;
	pd_fd_moved_fn moved;
	void *ctx;
	struct pd_fd_record *next;
};

uint32_t pd_fd_top;
uintptr_t *pd_fd_chunks[PD_FD_CHUNKS];

static struct pd_lock pd_fd_lock = PD_LOCK_INIT(PD_RANK_LEAF); /* the records below */
static struct pd_fd_record *pd_fd_records;
static pid_t pd_fd_owner;

/* In a fork's child: the table is the child's copy now, and nobody holds the lock. */
static void pd_fd_fork_child(void)
{
	pd_lock_init(&pd_fd_lock, PD_RANK_LEAF);
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

/* The slot of `fd` if its chunk exists. */
static uintptr_t *pd_fd_slot_find(int fd)
{
	uintptr_t *chunk;

	if ((uint32_t)fd >= pd_load_relaxed(&pd_fd_top))
		return NULL;
	chunk = pd_load_acquire(&pd_fd_chunks[(uint32_t)fd >> PD_FD_CHUNK_SHIFT]);
	return chunk ? &chunk[(uint32_t)fd & (PD_FD_CHUNK_SLOTS - 1)] : NULL;
}

/* One descriptor of `sk` left the table: release the socket with the last, and drop the table's reference. */
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

/* Forget the record of a descriptor of our own that somebody closed with a raw system call. */
static void pd_fd_record_lost(int fd)
{
	uintptr_t *slot = pd_fd_slot_find(fd);
	struct pd_fd_record *rec;

	pd_lock(&pd_fd_lock);
	if (slot && (pd_load_relaxed(slot) & PD_FD_INTERNAL)) {
		rec = (struct pd_fd_record *)(pd_load_relaxed(slot) & ~PD_FD_INTERNAL);
		rec->fd = -1;
		pd_store_release(slot, (uintptr_t)0);
	}
	pd_unlock(&pd_fd_lock);
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
	uintptr_t *slot = pd_fd_slot_find(fd);

	return slot && pd_fd_slot_clear(slot) ? 0 : -EBADF;
}

void pd_fd_forget(int fd)
{
	if (pd_fd_foreign_process())
		return;
	if (pd_fd_is_internal(fd))
		pd_fd_record_lost(fd);
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

void pd_fd_each_open(void (*each)(void *ctx, int fd), void *ctx)
{
	struct entry {
		uint64_t ino, off;
		uint16_t reclen;
		uint8_t type;
		char name[];
	};
	uint64_t room[256];
	char *text = (char *)room;
	ssize_t n;
	int dir;

	dir = pd_sys_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (dir < 0)
		return;
	while ((n = pd_sys_getdents(dir, text, sizeof(room))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct entry *e = (const void *)(text + at);

			at += e->reclen;
			if (*e->name >= '0' && *e->name <= '9')
				each(ctx, (int)strtol(e->name, NULL, 10));
		}
	}
	pd_sys_close(dir);
}

/* Where the numbers for our own descriptors begin: the upper half of what the program may have. */
static int pd_fd_internal_base(void)
{
	struct rlimit limit;

	if (PD_SYS_4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) < 0)
		return 512;
	return (int)pd_min(limit.rlim_cur / 2, (rlim_t)PD_FD_INTERNAL_BASE_MAX);
}

/* A record that is free, or a new one; NULL when there is no memory. pd_fd_lock is held. */
static struct pd_fd_record *pd_fd_record_take(void)
{
	struct pd_fd_record *rec;

	for (rec = pd_fd_records; rec; rec = rec->next)
		if (rec->fd < 0)
			return rec;
	rec = calloc(1, sizeof(*rec));
	if (!rec)
		return NULL;
	rec->next = pd_fd_records;
	pd_fd_records = rec;
	return rec;
}

int pd_fd_internal(int fd, pd_fd_moved_fn moved, void *ctx)
{
	struct pd_fd_record *rec;
	uintptr_t *slot;
	int high;

	high = pd_sys_fcntl(fd, F_DUPFD_CLOEXEC, pd_fd_internal_base());
	if (high == -EMFILE || high == -EINVAL)
		high = fd; /* no number is free up there: the one that it has is kept */
	if (high < 0)
		return high;
	pd_fd_fresh(high);
	slot = pd_fd_slot_make(high);
	pd_lock(&pd_fd_lock);
	rec = slot ? pd_fd_record_take() : NULL;
	if (rec) {
		*rec = (struct pd_fd_record){high, moved, ctx, rec->next};
		pd_store_release(slot, (uintptr_t)rec | PD_FD_INTERNAL);
	}
	pd_unlock(&pd_fd_lock);
	if (high != fd)
		pd_sys_close(rec ? fd : high);
	return rec ? high : -ENOMEM;
}

void pd_fd_internal_close(int fd)
{
	pd_fd_record_lost(fd); /* there may be none: memory ran out */
	pd_sys_close(fd);
}

int pd_fd_internal_relocate(int fd)
{
	uintptr_t *from = pd_fd_slot_find(fd), *to;
	struct pd_fd_record *rec;
	int high, ret = 0;

	high = pd_sys_fcntl(fd, F_DUPFD_CLOEXEC, pd_fd_internal_base());
	if (high < 0)
		return high;
	pd_fd_fresh(high);
	to = pd_fd_slot_make(high);
	pd_lock(&pd_fd_lock);
	if (!from || !(pd_load_relaxed(from) & PD_FD_INTERNAL)) {
		ret = -EAGAIN; /* another thread moved it: nothing stands here any more */
	} else {
		rec = (struct pd_fd_record *)(pd_load_relaxed(from) & ~PD_FD_INTERNAL);
		if (!to)
			ret = -ENOMEM;
		else if (!rec->moved)
			ret = -EBUSY;
	}
	if (!ret) {
		rec->fd = high;
		pd_store_release(to, (uintptr_t)rec | PD_FD_INTERNAL);
		rec->moved(rec->ctx, fd, high);
		pd_store_release(from, (uintptr_t)0);
	}
	pd_unlock(&pd_fd_lock);
	if (ret)
		pd_sys_close(high);
	return ret == -EAGAIN ? 0 : ret;
}
