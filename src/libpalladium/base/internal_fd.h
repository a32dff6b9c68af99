/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that the library makes for itself.
 *
 * The program may claim any number by dup2, also one that a descriptor of ours has. So what we keep
 * is not the number but a *name*, an int that no kernel gives (PD_INTERNAL_FD_FIRST and up), and
 * the number of a name may change at any time. base/sys.h takes names wherever it takes
 * descriptors.
 *
 * A number must not be given away while a thread is about to use it. There are two kinds of use:
 *
 *   a system call   holds the name: it counts itself as a user, then looks the number up, and is no
 *                   user any more when the call is over. There are two counts, one for each *turn*
 *                   of the name, and a move begins the other turn:
 *
 *                     user    add 1 to users[turn]; look at the turn again, it must be the same
 *                             (else take the 1 back, and begin anew); read the number
 *                     mover   write the new number; change the turn; wait until the old turn has
 *                             no user
 *
 *                   All in one order that every thread agrees on. A user whose second look came
 *                   before the change is counted where the mover waits; one whose came after reads
 *                   the new number. The wait ends, since new users count in the other turn.
 *
 *   a sleep         of a thread in ppoll, which reads the numbers again whenever it is woken. It
 *                   holds nothing, or one that never ends could never be moved. Instead the thread
 *                   notes which move was the last when it looked the numbers up
 *                   (pd_lib_self.numbers; wait/wait.c), and a mover wakes every thread that did so
 *                   before this move, and waits until none is left.
 *
 * The mover (sock/vacate.c) does what remains: descriptors that stand in an epoll change their
 * place there.
 *
 * To be found by the program's close, dup2 and so on, a number has to be known from its first
 * moment. So it is made under a lock, of the last rank, which a dup2 onto a free number takes too.
 *
 * Where the layer that knows the program's descriptors has not registered itself (tools, unit
 * tests), names are numbers and nothing of this happens.
 */
#ifndef PD_BASE_INTERNAL_FD_H
#define PD_BASE_INTERNAL_FD_H

#include <stdbool.h>
#include <stdint.h>

/* The first name. Every descriptor of the kernel's is below. */
#define PD_INTERNAL_FD_FIRST (1 << 30)

/* True when `fd` is a name. */
static inline bool pd_internal_fd_is_name(int fd)
{
	return fd >= PD_INTERNAL_FD_FIRST;
}

/* --- making and closing ---------------------------------------------------------------------- */

/*
 * Make a descriptor of the library's own: `make` is an expression that gives a new one or -errno
 * and calls pd_sys_* alone. The name, or the -errno. Any thread, any lock. pd_sys_close ends it.
 */
#define pd_internal_fd(make)                                       \
	({                                                         \
		int pd_internal_fd_made;                           \
		pd_internal_fd_lock();                             \
		pd_internal_fd_made = pd_internal_fd_take((make)); \
		pd_internal_fd_unlock();                           \
		pd_internal_fd_made;                               \
	})

/* The same in pieces, for a call that gives several: make them and take each under the lock. */
void pd_internal_fd_lock(void);
void pd_internal_fd_unlock(void);

/*
 * Whether a descriptor is being made, so that one may be open whose number nobody knows yet. Any
 * context.
 */
bool pd_internal_fd_busy(void);

/*
 * Wait for that to be over; for a moment only, since the caller may be a signal handler in the
 * thread that does it. Any context.
 */
void pd_internal_fd_settle(void);

/*
 * Take the new descriptor `fd` (or -errno, which is given back). The name; where that fails, fd is
 * closed: -errno. Lock held.
 */
int pd_internal_fd_take(int fd);

/* The same, but where it fails, fd stays open. */
int pd_internal_fd_try(int fd);

/* The same, where it cannot be closed: fd keeps its number. */
int pd_internal_fd_note(int fd);

/*
 * As pd_internal_fd_take for one that existed before, where the program's threads cannot have seen
 * it yet. Takes the lock.
 */
int pd_internal_fd_adopt(int fd);

/* What pd_sys_close does with a name. */
int pd_internal_fd_close(int name);

/*
 * The same without the close: `name` ends, and its number is nobody's any more. Returns the number,
 * to close before the lock is let go, or -EBADF: there is none. Lock held.
 */
int pd_internal_fd_forget(int name);

/* --- use ------------------------------------------------------------------------------------- */

/*
 * The number of `fd` now, which is itself when it is no name; -1 when there is none any more. Safe
 * only where the head says so.
 */
int pd_internal_fd_number(int fd);

/*
 * The same, and nobody gets the number until pd_internal_fd_release(fd, *turn). For use by what
 * base/sys.h has no call for.
 */
int pd_internal_fd_hold(int fd, uint32_t *turn);
void pd_internal_fd_release(int fd, uint32_t turn);

/* What of `events` is ready on `fd`, without waiting: as revents of poll, or -errno. */
int pd_internal_fd_ready(int fd, short events);

/* Counts moves; odd, never 0. */
extern uint32_t pd_internal_fd_moves;

/*
 * --- for the layer that knows the program's descriptors ----------------------------------------
 */

/*
 * What that layer does, with the lock held. `place`: find a good number for the new descriptor
 * `fd`, whose name is to be `name`, and note it there; returns the number (fd is closed if it is
 * another) or -errno (fd is open as before). `note`: only note it, at its own number: 0 or -errno.
 * `remove`: note no longer that `number` is one of ours; it is closed next. NULL: names are
 * numbers.
 */
struct pd_internal_fd_layer {
	int (*place)(int fd, int name);
	int (*note)(int fd, int name);
	void (*remove)(int number);
};
extern const struct pd_internal_fd_layer *pd_internal_fd_layer;

/*
 * `name` has the number `number` from here on. The turn that was; pd_internal_fd_moved must follow.
 * Lock held.
 */
uint32_t pd_internal_fd_move(int name, int number);

/* True when nobody uses the number that `name` had in `turn`. */
bool pd_internal_fd_is_quiet(int name, uint32_t turn);

/* The move is over. Lock held. */
void pd_internal_fd_moved(int name);

/* The number of `name` was closed behind our back: it has none any more. Lock held. */
void pd_internal_fd_lost(int name);

/* Around a fork: the lock is whole in the child, and there are no users but the child. */
void pd_internal_fd_register_fork(void);

#endif /* PD_BASE_INTERNAL_FD_H */
