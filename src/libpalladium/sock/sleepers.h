/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that sleep in the kernel's epoll_wait, on epolls that are none of ours yet.
 *
 * Such an epoll may get its first offloaded member at any moment. Then the sleepers have to come
 * out and wait our way (wait/beacon.h), and the beacon has to go out when the last of them has
 * left. So each thread notes in its own record (base/lib.h) the epoll that it sleeps on:
 *
 *   sleeper   note it; fence; look whether the epoll is ours by now, and if not, sleep
 *   adopter   make the epoll ours; fence; look who has noted it
 *
 * One of the two sees the other (tests/model/takeover.pml). A handler of the program that
 * interrupts the sleep may never come back, so its thread counts as gone while the handler runs. A
 * program that makes no packet socket gets nothing of all this but the note.
 *
 * Threads asleep in poll or select on the number of such an epoll are not called out. A beacon has
 * to go out when the last thread that it calls has left, since it hides what the epoll's descriptor
 * says meanwhile; so it must be known exactly who is called, and one that is called by mistake
 * never comes. epoll_wait sleeps on one number, which a thread can note. poll and select sleep on a
 * set in the program's memory, which may be gone or written over (select's is) when the adopter
 * looks at it, so each call of each program, with or without ports, would have to copy its set
 * first. A beacon that only flashes, for a time, would miss who does not run in that time, and show
 * the others a readiness that is none.
 */
#ifndef PD_SOCK_SLEEPERS_H
#define PD_SOCK_SLEEPERS_H

#include <stdbool.h>
#include "sock/multiplex.h"

/* Once, before the program's first call: follow the program's signal handlers. */
void pd_sleepers_init(void);

/*
 * The calling thread is about to sleep in the kernel on `epfd`. False when it must not: the epoll
 * is ours. Outside the library.
 */
bool pd_sleeper_enter(int epfd);

/* It has returned, or was cancelled. Outside the library, any time. */
void pd_sleeper_leave(void);

/* Call everyone out who sleeps in the kernel on `e`, which has just become ours. */
void pd_sleepers_call(struct pd_sock_epoll *e);

/* The list of who is called, held still: no beacon is lit or goes out. */
void pd_sleepers_lock_list(void);
void pd_sleepers_unlock_list(void);

/*
 * A beacon that is lit, if that is `name`, leaves the number `from` for `to` (base/internal_fd.h).
 * The list is locked.
 */
void pd_sleepers_move(int name, int from, int to);

/* In a forked child: the parent's threads are not here. */
void pd_sleepers_after_fork(void);

#endif /* PD_SOCK_SLEEPERS_H */
