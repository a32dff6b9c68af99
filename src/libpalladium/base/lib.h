/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Being inside the library: what a signal handler and a fork have to know.
 *
 * Signals. A handler of the program may call us again, or longjmp away, so it must not run while
 * this thread holds a lock of ours. A thread counts how deep it is inside the library; the
 * trampoline in preload/signal.c finds a depth above zero, keeps the signal for later (and every
 * other one blocked), and pd_lib_leave runs it. Three rules for code that blocks, all with no lock
 * held:
 *
 *   - before sleeping: pd_lib_sleep_begin(&limit); if it says that a signal waits, do not sleep;
 *   - sleep in one raw system call that takes the caller's signal mask and the limit; handlers run
 *     at once meanwhile;
 *   - pd_lib_sleep_end(), and when a handler ran or waits: pd_lib_signals_run(), then answer
 *     -EINTR, or carry on when pd_signal_restart_wanted() and the call is one that the kernel would
 *     restart.
 *
 * Cancellation. A thread of PTHREAD_CANCEL_ASYNCHRONOUS would die with our locks held, so its type
 * is deferred from the outermost enter to the outermost leave, and in between it can be cancelled
 * where it sleeps, as every thread (wait/wait.c). preload/ notes the type when the program sets it:
 * other threads pay for one test.
 *
 * Leaving for good. A call that sleeps, or runs a handler that waited, may not return: its thread
 * is cancelled, or the handler longjmps. What it owes then stands in a cleanup of libc's
 * (_pthread_cleanup_push below), for both cases.
 *
 * Fork. Modules register what the child (and the parent, around it) has to do; preload/fork.c runs
 * the list.
 */
#ifndef PD_BASE_LIB_H
#define PD_BASE_LIB_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "base/compiler.h"

/* initial-exec: no allocation at the first touch, which may happen in a signal handler. */
#define PD_TLS __thread __attribute__((tls_model("initial-exec")))

/* What a thread is doing; touched by the thread itself and by its signal handlers only. */
struct pd_lib_thread {
	int depth;            /* calls into the library that have not returned */
	volatile int pending; /* a handler waits for depth 0 */
	volatile int asleep;  /* in a sleep that handlers may interrupt at once */
	/* The signals whose handlers ran since pd_lib_sleep_begin, as a kernel set */
	volatile uint64_t ran;
	/* The time limit of the sleep: a handler zeroes it, in case the kernel has not seen it
	 * yet */
	struct timespec *left;
	int restart; /* the last handler that waited or ran was installed with SA_RESTART */
	int async;   /* outside the library it can be cancelled at any instruction */
	/* The epoll that libc's epoll_wait sleeps on, plus one; 0 none. Others read it too */
	uint32_t kernel_wait;
	/* It sleeps on numbers as of this move (base/internal_fd.h); 0 it does not. Others read
	 * it too */
	uint32_t numbers;
};

extern PD_TLS struct pd_lib_thread pd_lib_self;

/*
 * Around a handler that interrupts a sleep with kernel_wait set: the thread may never come back to
 * it, or come back to what was `noted`. sock/sleepers.c puts its own here. Outside the library.
 */
extern void (*pd_lib_sleep_left)(void);
extern void (*pd_lib_sleep_resumed)(uint32_t noted);

/* Runs the waiting handler of this thread; preload/signal.c puts its own here. Never NULL. */
extern void (*pd_lib_run_pending)(void);

/* libc's pthread_setcanceltype, or NULL where nothing is intercepted; preload/ puts it here. */
extern int (*pd_lib_setcanceltype)(int type, int *old);

/* The slow halves of enter and leave. */
void pd_lib_enter_async(void);
void pd_lib_leave_outermost(void);

/* Enter the library: handlers wait from here on. Nests. */
static inline void pd_lib_enter(void)
{
	if (pd_unlikely(pd_lib_self.async))
		pd_lib_enter_async();
	pd_lib_self.depth++;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* Leave it; the outermost leave, with no lock held, runs the handler that waited. */
static inline void pd_lib_leave(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	pd_lib_self.depth--;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (pd_unlikely(pd_lib_self.pending | pd_lib_self.async) && !pd_lib_self.depth)
		pd_lib_leave_outermost();
}

/* True when a handler waits for this thread: a blocking call should stop and let it run. */
static inline bool pd_lib_signal_pending(void)
{
	return pd_lib_self.pending;
}

/*
 * From here to pd_lib_sleep_end handlers run as they arrive. No lock may be held. Returns true when
 * one is waiting already: then do not sleep. `left` is the time limit that the kernel will be
 * given; one that is zero by then ends the sleep at once.
 */
static inline bool pd_lib_sleep_begin(struct timespec *left)
{
	pd_lib_self.ran = 0;
	pd_lib_self.left = left;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	pd_lib_self.asleep = 1;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return pd_lib_self.pending;
}

/* The sleep is over. Returns true when a handler ran since pd_lib_sleep_begin. */
static inline bool pd_lib_sleep_end(void)
{
	pd_lib_self.asleep = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return pd_lib_self.ran;
}

/*
 * Run the waiting handler now, inside the library; no lock may be held. Returns true when one ran.
 */
bool pd_lib_signals_run(void);

/*
 * True when a handler ran since pd_lib_sleep_begin that `mask` (a kernel set, or NULL), which the
 * sleep was under, did not hold back.
 */
static inline bool pd_lib_interrupted(const void *mask)
{
	uint64_t held = 0;

	if (mask)
		__builtin_memcpy(&held, mask, sizeof(held));
	return pd_lib_self.ran & ~held;
}

/* True when the handler that waited or ran last in this thread was installed with SA_RESTART. */
static inline bool pd_signal_restart_wanted(void)
{
	return pd_lib_self.restart;
}

/*
 * Have libc call `routine` when the thread is cancelled or ends before the pop, and when a handler
 * longjmps out: the functions that stood behind pthread_cleanup_push at first, in every libc since.
 * What that macro makes today is passed over by longjmp and stays on the thread's list, so that its
 * later end jumps into a stack that is gone. `execute` is 0.
 */
extern void _pthread_cleanup_push(struct _pthread_cleanup_buffer *buffer, void (*routine)(void *),
				  void *arg);
extern void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *buffer, int execute);

/*
 * What a module does around a fork: `prepare` in the parent before it (takes the locks that must be
 * quiet), `parent` and `child` after it. Any may be NULL. `prepare` runs from the highest order to
 * the lowest, the other two from the lowest up. The child is single-threaded and must only do what
 * a signal handler may.
 */
struct pd_fork_hook {
	int order; /* the lock rank or layer: base 0, config 10, vlib 20, transport 30, wait 40, sock 50 */
	void (*prepare)(void);
	void (*parent)(void);
	void (*child)(void);
	struct pd_fork_hook *next; /* the list's */
};

/* Add `hook`, which must live for ever, to the list. Control path, from initialisation. */
void pd_fork_register(struct pd_fork_hook *hook);

/* preload/fork.c runs the list at these moments. */
void pd_fork_run_prepare(void);
void pd_fork_run_parent(void);
void pd_fork_run_child(void);

#endif /* PD_BASE_LIB_H */
