/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Process nodes: what waits for events and for the clock, beside the frames.
 *
 *   static uint64_t my_process(struct pd_process *p)
 *   {
 *           uintptr_t type, data[16];
 *           unsigned n;
 *
 *           while ((n = pd_process_events(p, &type, data, 16)))
 *                   ... all n of data[], which were signalled as `type` ...
 *           if (type == PD_PROCESS_CLOCK)
 *                   ... the time is over ...
 *           return 5 * PD_NS_PER_SEC;           wait for an event or five seconds
 *   }
 *   PD_NODE_REGISTER(my_process) = {.name = "my-process", .type = PD_NODE_PROCESS, .process = my_process};
 *
 * A process has no stack of its own: its function is called, does what is to do now, and returns
 * how long it wants to wait. What it must remember stands in its data or in variables of its file.
 * So there is nothing that a sanitizer, a signal or a fork could trip over, and a process costs a
 * few cache lines. It must return soon: the progress thread runs it, with pd_control held
 * (progress.h), and waits for nothing else meanwhile.
 *
 * Processes start with the progress thread, each with one call without an event. They end with it;
 * in a forked child they begin anew, with data and counters zero, when the child first uses a port.
 */
#ifndef PD_VLIB_PROCESS_H
#define PD_VLIB_PROCESS_H

#include <stdint.h>

#include "base/clock.h"
#include "vlib/runtime.h"

/* Returned by a process that waits for events alone. */
#define PD_PROCESS_FOREVER UINT64_MAX

/*
 * What pd_process_events says when there is no event: the time is over; or it is not, and there is
 * nothing (more) to take.
 */
#define PD_PROCESS_CLOCK UINTPTR_MAX
#define PD_PROCESS_NONE (UINTPTR_MAX - 1)

/* Event types of programs are below; above are one-time events. */
#define PD_PROCESS_TYPES_END ((uintptr_t)1 << 24)

/* Events that wait in a process at most, and one-time events it may have at a time. */
#define PD_PROCESS_EVENTS_MAX 128
#define PD_PROCESS_ONE_TIME_MAX 32

/*
 * The process of that name, or NULL: none, or the progress thread has not been started. Any thread;
 * the answer stays valid.
 */
struct pd_process *pd_process_find(const char *name);

/*
 * Signal an event of `type` (below PD_PROCESS_TYPES_END) with `data`. Any number of times: every
 * one is delivered, in order. Any thread; locks of a lower rank than LEAF may be held. Returns 0,
 * -ENOBUFS when the process is that far behind (counted), or -ESRCH when it does not run.
 */
int pd_process_signal(struct pd_process *p, uintptr_t type, uintptr_t data);

/*
 * A type of its own for one event, to be given to whoever shall answer. pd_control held (a process
 * holds it). Returns the type, or 0 when PD_PROCESS_ONE_TIME_MAX are out.
 */
uintptr_t pd_process_one_time(struct pd_process *p);

/*
 * Signal a one-time event. As pd_process_signal, and -ENOENT when it was signalled already, or
 * given up.
 */
int pd_process_signal_one_time(struct pd_process *p, uintptr_t type, uintptr_t data);

/*
 * Give a one-time event up: nobody shall signal it any more. One that waits to be taken is dropped.
 * pd_control held.
 */
void pd_process_one_time_cancel(struct pd_process *p, uintptr_t type);

/*
 * In the process: take the data of up to `n` events, all of one type, that of the oldest. Returns
 * how many, with *type set; 0 when there are none, then *type is PD_PROCESS_CLOCK (once for each
 * time the wait ran out) or PD_PROCESS_NONE. Events that a process leaves make it run again at
 * once.
 */
unsigned pd_process_events(struct pd_process *p, uintptr_t *type, uintptr_t *data, unsigned n);

/* PD_NODE_DATA_BYTES for the process to use, zero at its start. */
void *pd_process_data(struct pd_process *p);

/* Start the registered processes that do not run. For the progress thread's start; pd_control held. Returns 0, -EEXIST when two
 * have one name (logged; the others run), or -ENOMEM. */
int pd_processes_start(void);

/*
 * End all: what waits is dropped. For the progress thread's end; pd_control held. The second, for a
 * forked child.
 */
void pd_processes_stop(void);
void pd_processes_after_fork(void);

/* For pd_runtime_each. */
void pd_process_each(void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg);

#endif /* PD_VLIB_PROCESS_H */
