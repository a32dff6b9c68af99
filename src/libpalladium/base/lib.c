/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Being inside the library: the thread's record and the list of fork hooks.
 */
#include <pthread.h>
#include <stddef.h>

#include "base/lib.h"
#include "base/lock.h"

/* Deeper fork lists than this are a mistake; prepare walks the list backwards through an array. */
#define PD_FORK_HOOKS_MAX 32

PD_TLS struct pd_lib_thread pd_lib_self;

/* Before preload/signal.c is there nothing defers a handler, so nothing can wait. */
static void pd_lib_run_nothing(void)
{
}

void (*pd_lib_run_pending)(void) = pd_lib_run_nothing;

/* Before sock/sleepers.c is there nothing sets kernel_wait. */
void (*pd_lib_sleep_left)(void);
void (*pd_lib_sleep_resumed)(uint32_t noted);

int (*pd_lib_setcanceltype)(int type, int *old);

static struct pd_lock pd_fork_lock = PD_LOCK_INIT(PD_RANK_CONTROL);
static struct pd_fork_hook *pd_fork_hooks;

void pd_lib_enter_async(void)
{
	/* Before the depth grows: cancelled up to here, the thread leaves nothing behind. */
	if (!pd_lib_self.depth)
		pd_lib_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
}

void pd_lib_leave_outermost(void)
{
	if (pd_lib_self.pending)
		pd_lib_run_pending();
	if (pd_lib_self.async)
		pd_lib_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
}

bool pd_lib_signals_run(void)
{
	int depth = pd_lib_self.depth;

	if (!pd_lib_self.pending)
		return false;
	pd_lib_self.depth = 0;
	pd_lib_run_pending();
	pd_lib_self.depth = depth;
	return true;
}

void pd_fork_register(struct pd_fork_hook *hook)
{
	struct pd_fork_hook **at;

	pd_lock(&pd_fork_lock);
	for (at = &pd_fork_hooks; *at && (*at)->order <= hook->order; at = &(*at)->next)
		;
	hook->next = *at;
	pd_store_release(at, hook);
	pd_unlock(&pd_fork_lock);
}

/*
 * The fork hooks run without the list's lock: hooks are only ever added, at initialisation, and the
 * pointers are published whole.
 */
void pd_fork_run_prepare(void)
{
	struct pd_fork_hook *stack[PD_FORK_HOOKS_MAX], *hook;
	int n = 0;

	for (hook = pd_load_acquire(&pd_fork_hooks); hook; hook = pd_load_acquire(&hook->next)) {
		pd_assert(n < PD_FORK_HOOKS_MAX);
		if (n < PD_FORK_HOOKS_MAX)
			stack[n++] = hook;
	}
	while (n-- > 0)
		if (stack[n]->prepare)
			stack[n]->prepare();
}

void pd_fork_run_parent(void)
{
	struct pd_fork_hook *hook;

	for (hook = pd_load_acquire(&pd_fork_hooks); hook; hook = pd_load_acquire(&hook->next))
		if (hook->parent)
			hook->parent();
}

void pd_fork_run_child(void)
{
	struct pd_fork_hook *hook;

	pd_lock_init(&pd_fork_lock, PD_RANK_CONTROL);
	for (hook = pd_load_acquire(&pd_fork_hooks); hook; hook = pd_load_acquire(&hook->next))
		if (hook->child)
			hook->child();
}
