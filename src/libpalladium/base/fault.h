/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handlers of faults (SIGBUS, SIGSEGV) that stand in front of the program's.
 *
 * SIGBUS is never blocked in the kernel while the program wants it blocked: base/fault.c has the
 * reason, preload/sigmask.c the program's calls.
 *
 * One function of the library per signal sees it first. What that does not mend is handed on as the
 * kernel would have: to the program's handler, or to the default end. The preload's sigaction asks
 * pd_fault_sigaction, so that the program sees and sets its own and ours stays in front.
 */
#ifndef PD_BASE_FAULT_H
#define PD_BASE_FAULT_H

#include <signal.h>
#include <stdbool.h>

#include "base/lib.h"

/*
 * Runs first, in the thread that faulted, at any instruction: only what is safe in a signal's
 * handler. True when the access may be tried again; then nobody else hears of it.
 */
typedef bool (*pd_fault_fn)(const siginfo_t *info, void *context);

/*
 * Put `fn`, which is async-signal-safe, in front for `sig`. Once per signal: a second call does
 * nothing. Control path. Returns 0 or -errno.
 */
int pd_fault_install(int sig, pd_fault_fn fn);

/* True when a handler of ours stands in front for `sig`. Any context. */
bool pd_fault_in_front(int sig);

/* sigaction(2) of the program for such a signal: 0, or -1 with errno. Calls must not overlap. */
int pd_fault_sigaction(int sig, const struct sigaction *act, struct sigaction *old);

/*
 * True when a thread's wish to have `sig` blocked is noted in pd_fault_blocked, and the kernel is
 * not told.
 */
bool pd_fault_keeps_open(int sig);

/* The program has SIGBUS blocked in this thread; touched by the thread and its handlers only. */
extern PD_TLS bool pd_fault_blocked;

/* End the process by `sig` as if nobody handled it, so that its parent sees that. Any context. */
void pd_fault_die(int sig);

#endif /* PD_BASE_FAULT_H */
