/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What preload/ starts once a port is configured, and not before.
 */
#ifndef PD_PRELOAD_PRELOAD_H
#define PD_PRELOAD_PRELOAD_H

/* Follow forks from here on. */
void pd_fork_start(void);

/* Wrap the program's signal handlers from here on. */
void pd_signal_start(void);

#endif /* PD_PRELOAD_PRELOAD_H */
