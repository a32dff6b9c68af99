/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table from descriptor to socket.
 *
 * Two levels: a directory over the largest number the kernel can give, and chunks of slots that are
 * mapped when a socket is first installed in them. A slot holds 0 (the kernel's), a pd_sock, or,
 * with bit 0 set, a descriptor that the library keeps for itself and that the program cannot reach.
 *
 * A lookup takes no lock: load the slot, take a reference unless the count is zero, look at the
 * slot again. Sockets are type-stable (sock/sock.h), so a late look at the count touches valid
 * memory. A program without offloaded sockets sees one load and one compare per call, against
 * pd_fd_top.
 *
 * A number is taken out of the table before the kernel closes it and put in after the kernel made
 * it, so two threads never see each other's socket under a number that was closed and given again.
 */
#ifndef PD_SOCK_FD_H
#define PD_SOCK_FD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/atomic.h"
#include "base/compiler.h"
#include "sock/sock.h"

/* Every number below the kernel's ceiling for fs.nr_open. */
#define PD_FD_MAX (1u << 30)
#define PD_FD_CHUNK_SHIFT 14
#define PD_FD_CHUNK_SLOTS (1u << PD_FD_CHUNK_SHIFT)
#define PD_FD_CHUNKS (PD_FD_MAX / PD_FD_CHUNK_SLOTS)

/*
 * Bit 0 of a slot: a descriptor of the library's own; the other bits are its name
 * (base/internal_fd.h).
 */
#define PD_FD_INTERNAL ((uintptr_t)1)
/* The same, without a name: what had this number is moving away from it. */
#define PD_FD_MOVED_AWAY (~(uintptr_t)0)

static inline uintptr_t pd_fd_slot_of_name(int name)
{
	return (uintptr_t)(unsigned)name << 1 | PD_FD_INTERNAL;
}

static inline int pd_fd_slot_name(uintptr_t slot)
{
	return (int)(slot >> 1);
}

extern uint32_t pd_fd_top;                    /* above every number ever installed */
extern uintptr_t *pd_fd_chunks[PD_FD_CHUNKS]; /* NULL where nothing was installed yet */

/* The slot of `fd`, or NULL where nothing was ever installed. It stays where it is. */
static inline uintptr_t *pd_fd_place(int fd)
{
	uintptr_t *chunk;

	if (pd_likely((uint32_t)fd >= pd_load_relaxed(&pd_fd_top)))
		return NULL;
	/* Pairs with the release in pd_fd_chunk: the slots are zeroed. */
	chunk = pd_load_acquire(&pd_fd_chunks[(uint32_t)fd >> PD_FD_CHUNK_SHIFT]);
	return chunk ? &chunk[(uint32_t)fd & (PD_FD_CHUNK_SLOTS - 1)] : NULL;
}

/* What stands at `fd`: 0, a pd_sock, or a tagged word. */
static inline uintptr_t pd_fd_slot(int fd)
{
	uintptr_t *place = pd_fd_place(fd);

	/* Pairs with the exchange in pd_fd_install: the socket is complete. */
	return place ? pd_load_acquire(place) : 0;
}

/* True when `fd` is an offloaded socket or one of the library's own descriptors. Data path. */
static inline bool pd_fd_ours(int fd)
{
	return pd_fd_slot(fd) != 0;
}

/* True when `fd` is one of the library's own descriptors. */
static inline bool pd_fd_is_internal(int fd)
{
	return pd_fd_slot(fd) & PD_FD_INTERNAL;
}

/* The socket of `fd` with a reference (pd_fd_put gives it back), or NULL. Data path, no lock. */
static inline struct pd_sock *pd_fd_get(int fd)
{
	uintptr_t *place = pd_fd_place(fd), slot, again;
	struct pd_sock *sk;
	bool held;

	if (pd_unlikely(!place))
		return NULL;
	/* Pairs with the exchange in pd_fd_install, as in pd_fd_slot. */
	for (slot = pd_load_acquire(place); slot && !(slot & PD_FD_INTERNAL); slot = again) {
		sk = (struct pd_sock *)slot;
		held = pd_sock_get(sk);
		again = pd_load_acquire(place);
		if (pd_likely(held && again == slot))
			return sk;
		if (held)
			pd_sock_put(sk);
	}
	return NULL;
}

/* Give back what pd_fd_get took. */
static inline void pd_fd_put(struct pd_sock *sk)
{
	pd_sock_put(sk);
}

/*
 * Put `sk` at `fd`, a descriptor that the kernel just gave; the table takes its own reference.
 * Whatever stood there was closed behind our back and is dropped. 0, -EBADF when the last
 * descriptor of `sk` was closed meanwhile, -EMFILE or -ENOMEM. Control path.
 */
int pd_fd_install(int fd, struct pd_sock *sk);

/*
 * Take `fd` out of the table, before the kernel closes it. 0, or -EBADF when it is no socket of
 * ours.
 */
int pd_fd_remove(int fd);

/* The slow half of pd_fd_fresh. */
void pd_fd_forget(int fd);

/*
 * The kernel just gave `fd` to somebody: a socket that stood there was closed behind our back.
 * Returns fd.
 */
static inline int pd_fd_fresh(int fd)
{
	if (pd_unlikely(pd_fd_ours(fd)))
		pd_fd_forget(fd);
	return fd;
}

/*
 * The lowest number of ours from `fd` up to and including `last`, or -1: for walking the table.
 * `internal` says whether sockets (false) or the library's own descriptors (true) are looked for.
 */
int pd_fd_next(uint32_t fd, uint32_t last, bool internal);

/*
 * Call `each` for every descriptor that the process has open, ours and the kernel's. Control path.
 */
void pd_fd_each_open(void (*each)(void *ctx, int fd), void *ctx);

/*
 * From here on the library's own descriptors (base/internal_fd.h) get high numbers, with
 * FD_CLOEXEC, and are noted in the table: the program's close, close_range and dup do not reach
 * them. Where RLIMIT_NOFILE leaves no high number, they stay where they are.
 */
void pd_fd_internal_start(void);

/*
 * For sock/vacate.c, with the names locked: find another number for the file of `fd`, whose name is
 * `name`; the old one stays open. The new one or -errno.
 */
int pd_fd_internal_renumber(int fd, int name);

/* The same: `mark` stands at `fd`, which was one of our own: PD_FD_MOVED_AWAY, or 0. */
void pd_fd_internal_mark(int fd, uintptr_t mark);

/*
 * True in a vfork child, which shares our memory but not our descriptors: it must leave the table
 * alone.
 */
bool pd_fd_foreign_process(void);

/*
 * The process that owns the table is this one from here on: at initialisation and in a fork's
 * child.
 */
void pd_fd_adopt(void);

#endif /* PD_SOCK_FD_H */
