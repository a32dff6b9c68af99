/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stacks to run a function on, which the thread leaves and comes back to: what process nodes stand
 * on (process.h).
 *
 *   pd_fiber_make(&f, "name", 0, fn, arg)
 *   pd_fiber_resume(&f)      fn begins, up to its first pd_fiber_suspend
 *   pd_fiber_resume(&f)      it goes on there; false once it has returned
 *   pd_fiber_free(&f)
 *
 * A fiber belongs to the thread that first resumed it: what compilers keep of a thread's variables
 * (errno is one) is not looked up anew where it goes on. It is suspended with no lock held but such
 * as its thread holds over the whole of the resume.
 *
 * The switch. It is a few instructions of our own and not libc's swapcontext, first because that
 * sets the thread's signal mask to what it was when the other side was left: base/fault.c may have
 * changed it since, and what it changed has to stay. And it asks the kernel for that, at each
 * switch: 0.4 us there and back, where this costs 0.06. No other machine needs a fall-back, since
 * base/sys.h knows those two only. Shadow stacks (CET, GCS) are not switched: in a program that
 * has them turned on, pd_fiber_make says -ENOTSUP.
 *
 * The stack is a mapping of its own with PD_FIBER_GUARD_BYTES below it that nobody may touch. An
 * overrun ends the program by SIGSEGV: the kernel could not call a handler, having no other stack
 * for it in a thread of ours, and the thread has that signal blocked (base/fault.h). Whose stack it
 * was is said by the mapping's name in a core dump (palladium-NAME; Linux 5.17 and later).
 *
 * Sanitizers are told of every switch, and LeakSanitizer looks for pointers on stacks that are
 * suspended.
 */
#ifndef PD_VLIB_FIBER_H
#define PD_VLIB_FIBER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/atomic.h"
#include "base/compiler.h"

/*
 * A stack's size when nobody says another, and the least there is. Measured (pd_fiber_used): a
 * process that waits uses 150 bytes, one that publishes the statistics 1.2 KiB, one that logs a
 * line 6. With AddressSanitizer that becomes 3, 2.5 and 8.5; and where a sanitizer finds something
 * it writes its report on that stack, so stacks are made four times as large as was asked for.
 */
#define PD_FIBER_STACK_BYTES ((size_t)32 << 10)
#define PD_FIBER_STACK_MIN_BYTES ((size_t)16 << 10)
#define PD_FIBER_GUARD_BYTES ((size_t)64 << 10)
#if defined(PD_UNDER_ASAN) || defined(PD_UNDER_TSAN)
#	define PD_FIBER_STACK_SCALE 4
#else
#	define PD_FIBER_STACK_SCALE 1
#endif

struct pd_fiber {
	void *sp;        /* where it stands while it is suspended */
	void *caller_sp; /* where its thread stands while it runs */
	void (*fn)(void *arg);
	void *arg;
	unsigned char *stack; /* the lowest byte; NULL: there is none */
	size_t stack_bytes;
	bool returned;
	const void *thread; /* that resumes it, once it has begun */
	/* For the sanitizers. */
	void *fake, *caller_fake;
	const void *caller_stack;
	size_t caller_stack_bytes;
	void *tsan, *caller_tsan;
};

/*
 * Make a fiber that will call `fn` with `arg`, on a stack of `stack_bytes` rounded up to whole
 * pages; 0: PD_FIBER_STACK_BYTES. `name` is copied. Control path. Returns 0, -ENOMEM or -ENOTSUP
 * (see above).
 */
int pd_fiber_make(struct pd_fiber *f, const char *name, size_t stack_bytes, void (*fn)(void *arg),
		  void *arg);

/*
 * Run the fiber until it suspends itself or returns. Not from within a fiber. Returns false when it
 * has returned; then it can only be freed.
 */
bool pd_fiber_resume(struct pd_fiber *f);

/* In the fiber: back to who resumed it. Returns with the next resume. */
void pd_fiber_suspend(struct pd_fiber *f);

/*
 * Free the stack, wherever the fiber stands: what it has there is gone, nothing of it is undone.
 * Not in the fiber; any thread. One that was not made, all zero, or was freed is allowed.
 */
void pd_fiber_free(struct pd_fiber *f);

/* How many bytes of its stack the fiber has ever used. Slow. */
size_t pd_fiber_used(const struct pd_fiber *f);

#endif /* PD_VLIB_FIBER_H */
