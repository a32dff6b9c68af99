/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Process nodes: cooperative threads of control work, beside the frames.
 *
 *   static void my_process(struct pd_process *p)
 *   {
 *           uintptr_t type, data[16];
 *           unsigned n;
 *
 *           for (;;) {
 *                   pd_process_wait_for_event_or_clock(p, 5 * PD_NS_PER_SEC);
 *                   while ((n = pd_process_events(p, &type, data, 16)))
 *                           ... all n of data[], which were signalled as `type` ...
 *                   if (type == PD_PROCESS_CLOCK)
 *                           ... the time is over ...
 *                   if (type == PD_PROCESS_STOP)
 *                           return;
 *           }
 *   }
 *   PD_NODE_REGISTER(my_process) = {
 *           .name = "my-process", .type = PD_NODE_PROCESS, .process = my_process};
 *
 * The progress thread runs them, one at a time and each on a stack of its own (fiber.h), which it
 * leaves only where the process waits. A process has pd_control (progress.h) while it runs and lets
 * go of it where it waits: what it knew of ports and connections before may not be so afterwards.
 * It holds no other lock over a wait. It must not run for long without one, since all else of the
 * progress thread waits meanwhile; who has more to do yields. It does not fork.
 *
 * Registered processes start with the progress thread; others are made while it runs. A process
 * ends when its function returns; its stack is freed then. It may be asked to (PD_PROCESS_STOP), by
 * pd_process_stop or because the progress thread ends: then it has one more turn, and if it waits
 * again its stack is freed as it is, with nothing on it undone. So what a process has to give back
 * is given back on PD_PROCESS_STOP.
 *
 * In a forked child there is no progress thread and no process, and the stacks are freed as they
 * are: what has to be given back there too is known to somebody beside the stack. Registered ones
 * begin anew, with data and counters zero, when the child first uses a port.
 */
#ifndef PD_VLIB_PROCESS_H
#define PD_VLIB_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "vlib/runtime.h"

/*
 * What pd_process_events says when there is no event (more) to take: the process is asked to end
 * (every time from then on); the time is over (once for each time that a wait ran out); neither.
 */
#define PD_PROCESS_STOP UINTPTR_MAX
#define PD_PROCESS_CLOCK (UINTPTR_MAX - 1)
#define PD_PROCESS_NONE (UINTPTR_MAX - 2)

/* Event types of programs are below; above are one-time events. */
#define PD_PROCESS_TYPES_END ((uintptr_t)1 << 24)

/* Events that wait in a process at most, and one-time events it may have at a time. */
#define PD_PROCESS_EVENTS_MAX 128
#define PD_PROCESS_ONE_TIME_MAX 32

/* A name longer than this is cut. */
#define PD_PROCESS_NAME_MAX 31

/*
 * pd_process_yield: rests are saved up until they are worth a sleep, and are never longer than so
 * that a process which has worked for long is not gone.
 */
#define PD_PROCESS_REST_MIN_NS PD_NS_PER_MS
#define PD_PROCESS_REST_MAX_NS (100 * PD_NS_PER_MS)
/* The load that makes the rest as long as the work. */
#define PD_PROCESS_REST_LOAD 8

/* --- from outside --------------------------------------------------------------------------- */

/*
 * The registered process of that name, or NULL: none, or the progress thread has not been started.
 * Any thread; the answer stays valid.
 */
struct pd_process *pd_process_find(const char *name);

/*
 * Make a process that will run `fn`, from the progress thread's next round on, or when that is
 * started. `name` need not be unique; pd_process_find does not find it. `stack_bytes`: 0 for
 * fiber.h's default. The caller owns what is returned until pd_process_release, and only it and
 * whom it gives it to know of it: so it is valid for them also when `fn` has returned. pd_control
 * held. NULL when there is no memory (or a shadow stack: fiber.h).
 */
struct pd_process *pd_process_create(const char *name, void (*fn)(struct pd_process *p), void *arg,
				     size_t stack_bytes);

/*
 * The maker of a process does not need it any more: it is freed, now or when its function returns.
 * The process may do that for its maker. pd_control held.
 */
void pd_process_release(struct pd_process *p);

/* Whether its function has not returned yet. pd_control held. */
bool pd_process_runs(const struct pd_process *p);

/*
 * Ask a process to end: whatever it waits for, it has a turn. Once; any thread, locks of a lower
 * rank than LEAF may be held. It may wait again, and end later.
 */
void pd_process_stop(struct pd_process *p);

/*
 * Signal an event of `type` (below PD_PROCESS_TYPES_END) with `data`. Any number of times: every
 * one is delivered, in order. Any thread; locks of a lower rank than LEAF may be held; never
 * allocates. Returns 0, -ENOBUFS when the process is that far behind (counted), or -ESRCH when it
 * does not run.
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

/* --- in the process ------------------------------------------------------------------------- */

/*
 * Wait. Each of these lets everything else that the progress thread has to do have its turn first,
 * also when there is something to take already; and each ends, once, when the process is asked to
 * end.
 *
 *   _suspend                    for `ns`, whatever is signalled meanwhile
 *   _wait_for_event             until there is an event to take
 *   _wait_for_event_or_clock    the same, but no longer than `ns`
 */
void pd_process_suspend(struct pd_process *p, uint64_t ns);
void pd_process_wait_for_event(struct pd_process *p);
void pd_process_wait_for_event_or_clock(struct pd_process *p, uint64_t ns);

/*
 * Let others have their turn, and come back for more work: at once while the traffic is light,
 * later when it is heavy. A process that has worked for t rests for t times the load (load.h)
 * divided by PD_PROCESS_REST_LOAD: it has all that the progress thread can give where nodes get one
 * frame at a time, a half of that at a load of 8, a fifth at 32, a 33rd at 256. Rests shorter than
 * PD_PROCESS_REST_MIN_NS are saved up. Events do not end a rest.
 */
void pd_process_yield(struct pd_process *p);

/*
 * Take the data of up to `n` events, all of one type, that of the oldest. Returns how many, with
 * *type set; 0 when there are none, then *type is PD_PROCESS_STOP, _CLOCK or _NONE. What is left
 * ends the next wait for events at once.
 */
unsigned pd_process_events(struct pd_process *p, uintptr_t *type, uintptr_t *data, unsigned n);

/* Whether the process is asked to end. */
bool pd_process_is_stopped(struct pd_process *p);

/* What pd_process_create was given; of a registered process, NULL. */
void *pd_process_arg(struct pd_process *p);

/* PD_NODE_DATA_BYTES for the process to use, aligned as a uint64_t, zero at its start. */
void *pd_process_data(struct pd_process *p);

/* --- for the progress thread ---------------------------------------------------------------- */

/*
 * Start the registered processes that have not run yet since the progress thread was started.
 * pd_control held. Returns 0, -EEXIST when two have one name, -ENOMEM or -ENOTSUP (logged; the
 * others run).
 */
int pd_processes_start(void);

/*
 * The progress thread ends: ask all to end, and give each the turn for it. In the thread that runs
 * them, not in one of them. pd_control held.
 */
void pd_processes_finish(void);

/*
 * It has ended: no process runs any more, what waits is dropped. pd_control held. The second, for a
 * forked child.
 */
void pd_processes_stop(void);
void pd_processes_after_fork(void);

/* For pd_runtime_each. */
void pd_process_each(void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg);

#endif /* PD_VLIB_PROCESS_H */
