/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of the library's own, which take no signal of the program's. */
#ifndef PD_BASE_THREAD_H
#define PD_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "base/sys.h"

/* The C library keeps these to itself: setuid waits until every thread has taken one of them. */
#define PD_THREAD_SIGNALS_OF_LIBC (3ull << (32 - 1))

/* Start one with all signals blocked but `open` and those. */
static inline int pd_thread_start_open(pthread_t *thread, const pthread_attr_t *attr,
				       void *(*main)(void *), void *arg, uint64_t open)
{
	uint64_t blocked = ~(open | PD_THREAD_SIGNALS_OF_LIBC), before = 0;
	int ret;

	/* The thread inherits the mask. */
	PD_SYS_4(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, &before, PD_KERNEL_SIGSET_BYTES);
	ret = pthread_create(thread, attr, main, arg);
	PD_SYS_4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, PD_KERNEL_SIGSET_BYTES);
	return -ret;
}

/*
 * Start one. `attr` may be NULL. Returns 0 or -errno.
 *
 * No signal of the program ever runs on it. But it may touch memory of peers, which may be gone, so
 * SIGBUS has to come through (base/fault.h).
 */
static inline int pd_thread_start(pthread_t *thread, const pthread_attr_t *attr,
				  void *(*main)(void *), void *arg)
{
	return pd_thread_start_open(thread, attr, main, arg, 1ull << (SIGBUS - 1));
}

/*
 * The same for one that touches no memory of peers and does not live long: a SIGBUS that somebody
 * sends to the process, and which it would have to pass on, could go with it.
 */
static inline int pd_thread_start_brief(pthread_t *thread, const pthread_attr_t *attr,
					void *(*main)(void *), void *arg)
{
	return pd_thread_start_open(thread, attr, main, arg, 0);
}

#endif /* PD_BASE_THREAD_H */
