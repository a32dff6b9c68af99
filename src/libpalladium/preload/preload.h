/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What preload/ starts once a port is configured, and not before.
 */
#ifndef PD_PRELOAD_PRELOAD_H
#define PD_PRELOAD_PRELOAD_H

#include <stdbool.h>

/* Follow forks from here on. */
void pd_fork_start(void);

/* Wrap the program's signal handlers from here on. */
void pd_signal_start(void);

/* Keep SIGBUS open in the program's threads from here on. */
void pd_sigmask_start(void);

/* Show where a SIGSEGV happened, from here on (PALLADIUM_HANDLE_SIGSEGV). */
void pd_crash_start(void);

/*
 * SIGINT came (PALLADIUM_HANDLE_SIGINTR), and a handler of the program's follows; with `end` none
 * does, and the process ends, if not before this returns then soon. In a handler, outside the
 * library.
 */
void pd_interrupted(bool end);

#endif /* PD_PRELOAD_PRELOAD_H */
