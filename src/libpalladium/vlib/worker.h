/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Worker threads: each runs an engine of its own until it is stopped.
 *
 * They are for programs that are all engine (palladium_eval, tests, examples). A preloaded program
 * brings its own threads, and has no worker unless somebody starts one.
 *
 * Threads are numbered as the tools print them: 1 to pd_worker_count() are the workers, 0 is every
 * other thread. A worker's engine is only run by its worker; others reach it through a handoff
 * (handoff.h), and make it look around with pd_engine_wake.
 *
 * No signal of the program runs on a worker. SIGBUS alone is not blocked, since a worker may touch
 * memory of a peer's that is gone (base/fault.h). Workers are not there after fork, and a program
 * that has some must not fork without exec.
 */
#ifndef PD_VLIB_WORKER_H
#define PD_VLIB_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "vlib/node.h"

#define PD_WORKERS_MAX 64

/* A worker that may run on any processor. */
#define PD_WORKER_ANY_CORE (-1)

/* What `show threads` tells of one. */
struct pd_worker_info {
	unsigned thread; /* its number, from 1 */
	const char *name;
	int core;        /* it runs on this one alone; or PD_WORKER_ANY_CORE */
	int tid;         /* 0: the thread has not begun yet */
	bool asleep;     /* it has nothing to do now */
	uint64_t rounds; /* of its engine */
	uint64_t lost;   /* frames freed for want of memory for a vector */
};

/*
 * Start `count` workers (1 to PD_WORKERS_MAX), named palladium_wk_0 and so on. `cores` names the
 * processor of each; NULL: any. All start, or none. Control path; as pd_workers_stop by one thread
 * at a time. Returns 0; -EINVAL (the count, or no such processor), -EALREADY when there are
 * workers, or what pd_engine_create and pthread_create fail with.
 */
int pd_workers_start(unsigned count, const int *cores);

/*
 * Have every worker finish its round and end. Frames that were handed to one and not taken are
 * freed, its engine and its counters go, and every handoff with it. Does nothing without workers;
 * no worker may call it.
 */
void pd_workers_stop(void);

/* How many there are; any thread. */
unsigned pd_worker_count(void);

/* The number of the calling thread: 1 to pd_worker_count() in a worker, 0 in any other. */
unsigned pd_worker_self(void);

/* The engine of worker `thread`, from 1; NULL when there is no such worker. Control path. */
struct pd_engine *pd_worker_engine(unsigned thread);

/* What there is to tell of worker `thread`; false when there is none. Control path. */
bool pd_worker_get(unsigned thread, struct pd_worker_info *info);

#endif /* PD_VLIB_WORKER_H */
