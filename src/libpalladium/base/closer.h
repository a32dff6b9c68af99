/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Closing what other processes have, or had, a part in, which may take as long as they like.
 *
 * What waits is the close of a file that somebody serves (FUSE, a network), of a TCP socket that
 * lingers (SO_LINGER), of a terminal with something to print. Of a Unix socket it is that of all
 * that: descriptors which wait in it to be received go with it, where nobody else has them.
 *
 * What stands in an epoll is taken out of there, which waits for who looks into that epoll, and he
 * can be held by the memory that he looks to (userfaultfd). A peer that has that right can hold us
 * up so with an eventfd: those are closed in place.
 *
 * So a thread that holds nothing closes, if it may take long. The number is free as soon as that
 * thread is in the kernel, which is waited for: the program may then have it for something else.
 *
 * (That is all there is to be done. A process that has such a thread, with a file of FUSE, runs on
 * as if there was none, but does not end before the file's server answers or ends: so the kernel
 * has it, even when it is killed.)
 *
 * Such threads are few, as each comes of a fault that ends a connection. Who makes them again and
 * again finds, in the end, that no connection is taken any more until some are through.
 */
#ifndef PD_BASE_CLOSER_H
#define PD_BASE_CLOSER_H

#include <stdbool.h>

/*
 * Close the new number `number`, which has no name yet, without waiting for it: when this returns
 * it is free. (Without a thread for that it is kept, a warning says so, and pd_closer_is_full tries
 * again.) Under pd_internal_fd_lock.
 */
void pd_closer_number(int number);

/*
 * Close a descriptor that a peer has, or had, too: one that came from it, or that we gave it. What
 * is in it, if it is a socket, is for nobody any more.
 */
void pd_closer_shared(int fd);

/* The same for `n`, one after the other; -1 is none. It costs as one, as long as nothing waits. */
void pd_closer_shared_all(const int *fds, unsigned n);

/*
 * Close a Unix stream socket that we connected or accepted, with all that its peer has sent and
 * nobody has read. The peer sees the end when this returns.
 */
void pd_closer_hang_up(int fd);

/* Close a Unix stream socket that listens, and hang up on who waits there. As pd_closer_hang_up. */
void pd_closer_listener(int fd);

/*
 * Whether what the calling thread closes from here on are a forked child's copies, of which who has
 * the others must notice nothing. They are not the last ones, so nothing waits for them.
 */
void pd_closer_copies(bool on);

/*
 * True when so many wait to be closed that nobody else's are to be taken, or some wait for a
 * thread. Any thread.
 */
bool pd_closer_is_full(void);

#endif /* PD_BASE_CLOSER_H */
