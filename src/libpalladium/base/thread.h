/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of the library's own, which take no signal of the program's. */
#ifndef PD_BASE_THREAD_H
#define PD_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "base/sys.h"

/*
 * Start one. `attr` may be NULL. Returns 0 or -errno.
 *
 * The thread inherits the mask: no signal of the program ever runs on it. But it may touch memory
 * of peers, which may be gone, so SIGBUS has to come through (base/fault.h). And so do 32 and 33,
 * which the C library keeps to itself: setuid waits until every thread has taken one of them.
 */
static inline int pd_thread_start(pthread_t *thread, const pthread_attr_t *attr,
				  void *(*main)(void *), void *arg)
{
	uint64_t all = ~(1ull << (SIGBUS - 1) | 3ull << (32 - 1)), before = 0;
	int ret;

	PD_SYS_4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, PD_KERNEL_SIGSET_BYTES);
	ret = pthread_create(thread, attr, main, arg);
	PD_SYS_4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, PD_KERNEL_SIGSET_BYTES);
	return -ret;
}

#endif /* PD_BASE_THREAD_H */
