/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What poll, select and epoll share in the socket layer.
 */
#ifndef PD_SOCK_MULTIPLEX_H
#define PD_SOCK_MULTIPLEX_H

#include "counters/counters.h"
#include "sock/fd.h"
#include "wait/pollable.h"

/* An epoll of ours, under the program's number. */
struct pd_sock_epoll {
	struct pd_sock sock; /* first */
	struct pd_epoll ep;
};

/* True when `epfd` is an epoll of ours. Any thread, no lock. */
static inline bool pd_sock_epoll_at(int epfd)
{
	uintptr_t slot = pd_fd_slot(epfd);

	/* A block never changes its kind (sock/sock.h). */
	return slot && !(slot & PD_FD_INTERNAL) &&
	       ((const struct pd_sock *)slot)->kind == PD_SOCK_EPOLL;
}

/* The epoll of `epfd` with a reference, or NULL. */
struct pd_sock_epoll *pd_sock_epoll_get(int epfd);

/*
 * What poll and epoll can ask of a socket, or NULL for kinds that are the kernel's in this respect.
 */
struct pd_pollable *pd_sock_pollable(struct pd_sock *sk);

/* Count one wait: call, served at once or after a sleep, ended by its timeout. */
void pd_multiplex_count(enum pd_ctr_word calls, enum pd_ctr_word hit, enum pd_ctr_word miss,
			enum pd_ctr_word timeouts, long ret, bool slept);

/* Set the hooks of epoll; for pd_multiplex_init. */
void pd_sock_epoll_init(void);

/* In a forked child, once, before the epolls. */
void pd_sock_epoll_locks_after_fork(void);

#endif /* PD_SOCK_MULTIPLEX_H */
