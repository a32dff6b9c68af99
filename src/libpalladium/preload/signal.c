/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handlers of the program, deferred while their thread is inside the library.
 *
 * Once a port is configured, handlers are installed as pd_signal_entry, with every signal blocked
 * during it. It looks at this thread's depth (base/lib.h):
 *
 *   outside, or asleep  the handler runs at once, under the mask that the program asked for
 *   inside              signal and siginfo are kept in the thread, and the mask that the kernel
 *                       restores on return becomes "everything": nothing more can arrive, so one
 *                       place is enough and the kernel's queue keeps the order. pd_lib_leave runs
 *                       the handler, then gives the thread its mask back, and what waited in the
 *                       kernel arrives.
 *
 * The kernel's disposition is the truth: what a handler was is read from our record only when the
 * kernel says pd_signal_entry, so SA_RESETHAND and a vfork child's SIG_DFL need no care. Signals
 * that a fault raises, and abort's, are never wrapped. A handler that was deferred runs on the
 * thread's own stack (SA_ONSTACK has no effect on it) and its ucontext is the place where the
 * library was left.
 *
 * SIGBUS and SIGSEGV may have a handler of ours in front of the program's (base/fault.h); then the
 * program deals with that one. With PALLADIUM_HANDLE_SIGINTR the default end of SIGINT is a handler
 * of ours too (interrupt.c), which the program sees as SIG_DFL.
 */
#include <pthread.h>
#include <string.h>
#include <ucontext.h>

#include "base/fault.h"
#include "base/lock.h"
#include "base/sys.h"
#include "config/vars.h"
#include "preload/preload.h"
#include "preload/real.h"

#define PD_SIGNALS 65 /* 1 to 64 */

/* A kernel signal set. */
#define PD_SIGBIT(sig) (1ull << ((sig)-1))
#define PD_SIGNALS_FAULT                                                                  \
	(PD_SIGBIT(SIGSEGV) | PD_SIGBIT(SIGBUS) | PD_SIGBIT(SIGFPE) | PD_SIGBIT(SIGILL) | \
	 PD_SIGBIT(SIGTRAP) | PD_SIGBIT(SIGSYS) | PD_SIGBIT(SIGABRT))
/* 32 and 33 are libc's: cancellation, and set-uid in all threads. */
#define PD_SIGNALS_BLOCK (~(PD_SIGNALS_FAULT | PD_SIGBIT(32) | PD_SIGBIT(33)))

/*
 * What the program asked for, per signal. Written under the lock; read by handlers by the sequence.
 */
struct pd_handler {
	uint32_t seq; /* odd while it is written */
	uint32_t flags;
	uintptr_t fn;
	uint64_t mask;
};

/* The one signal that waits for a thread. */
struct pd_deferred {
	int sig;
	struct pd_handler handler;
	uint64_t mask; /* the thread's, to be restored */
	siginfo_t info;
};

static bool pd_signal_started;
static struct pd_lock pd_signal_lock = PD_LOCK_INIT(PD_RANK_LEAF);
static struct pd_handler pd_handlers[PD_SIGNALS];
static PD_TLS struct pd_deferred pd_deferred;

/* Set this thread's signal mask; the old one. */
static uint64_t pd_signal_mask_set(uint64_t mask)
{
	uint64_t old = 0;

	PD_SYS_4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, PD_KERNEL_SIGSET_BYTES);
	return old;
}

/* The kernel's part of a sigset_t, and back. */
static uint64_t pd_sigset_load(const sigset_t *set)
{
	uint64_t mask;

	memcpy(&mask, set, sizeof(mask));
	return mask;
}

static void pd_sigset_store(sigset_t *set, uint64_t mask)
{
	sigemptyset(set);
	memcpy(set, &mask, sizeof(mask));
}

/*
 * The record of `sig`, whole. Any context; waits for a writer in another thread, who cannot be
 * interrupted.
 */
static struct pd_handler pd_handler_read(int sig)
{
	struct pd_handler *h = &pd_handlers[sig], copy;

	do {
		copy.seq = pd_load_acquire(&h->seq);
		copy.flags = pd_load_acquire(&h->flags);
		copy.fn = pd_load_acquire(&h->fn);
		copy.mask = pd_load_acquire(&h->mask);
	} while ((copy.seq & 1) || copy.seq != pd_load_relaxed(&h->seq));
	return copy;
}

/* Write the record of `sig`; the lock is held and signals are blocked. */
static void pd_handler_write(int sig, uintptr_t fn, uint32_t flags, uint64_t mask)
{
	struct pd_handler *h = &pd_handlers[sig];

	/* Each store is a release, so a reader that sees a new field sees the odd sequence. */
	pd_store_release(&h->seq, h->seq + 1);
	pd_store_release(&h->flags, flags);
	pd_store_release(&h->fn, fn);
	pd_store_release(&h->mask, mask);
	pd_store_release(&h->seq, h->seq + 1);
}

/*
 * The mask under which the kernel would run the handler, for a thread whose mask was `mask`; SIGBUS
 * stays open (base/fault.c).
 */
static uint64_t pd_handler_mask(const struct pd_handler *h, int sig, uint64_t mask)
{
	return (mask | (h->mask & ~PD_SIGBIT(SIGBUS))) |
	       (h->flags & SA_NODEFER ? 0 : PD_SIGBIT(sig));
}

/* Call the program's handler. */
static void pd_handler_run(const struct pd_handler *h, int sig, siginfo_t *info, void *uc)
{
	if (pd_unlikely(sig == SIGINT && pd_vars.handle_sigintr))
		pd_interrupted(h->fn == (uintptr_t)SIG_DFL);
	if (h->fn == (uintptr_t)SIG_DFL)
		return; /* the process is about to end */
	if (h->flags & SA_SIGINFO)
		((void (*)(int, siginfo_t *, void *))h->fn)(sig, info, uc);
	else
		((pd_sighandler)h->fn)(sig);
}

/* The same, with what it blocks of SIGBUS noted. */
static void pd_handler_call(const struct pd_handler *h, int sig, siginfo_t *info, void *uc)
{
	bool was = pd_fault_blocked;

	pd_fault_blocked = was || (h->mask & PD_SIGBIT(SIGBUS));
	pd_handler_run(h, sig, info, uc);
	pd_fault_blocked = was;
}

/* What the kernel calls for every handler of the program. All signals are blocked. */
static void pd_signal_entry(int sig, siginfo_t *info, void *context)
{
	struct pd_lib_thread *self = &pd_lib_self, was = *self;
	struct pd_handler handler = pd_handler_read(sig);
	ucontext_t *uc = context;
	uint64_t mask = pd_sigset_load(&uc->uc_sigmask);
	int type;

	if (self->depth && !self->asleep) {
		pd_deferred = (struct pd_deferred){sig, handler, mask, *info};
		mask |= PD_SIGNALS_BLOCK;
		memcpy(&uc->uc_sigmask, &mask, sizeof(mask));
		self->restart = !!(handler.flags & SA_RESTART);
		self->pending = 1;
		return;
	}
	self->depth = 0;
	self->asleep = 0;
	pd_store_release(&self->numbers, 0); /* that sleep is over */
	if (pd_unlikely(was.kernel_wait))
		pd_lib_sleep_left();
	/*
	 * A sleep can be cancelled at any instruction; the handler may call us again, where it must
	 * not.
	 */
	if (was.asleep)
		pd_real.pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type);
	pd_signal_mask_set(pd_handler_mask(&handler, sig, mask));
	pd_handler_call(&handler, sig, info, uc);
	pd_signal_mask_set(PD_SIGNALS_BLOCK | mask);
	if (was.asleep)
		pd_real.pthread_setcanceltype(type, NULL);
	if (pd_unlikely(was.kernel_wait))
		pd_lib_sleep_resumed(was.kernel_wait);
	/* The kernel may not have begun the sleep that this handler was to end. */
	if (was.asleep)
		*was.left = (struct timespec){0, 0};
	self->depth = was.depth;
	self->asleep = was.asleep;
	self->left = was.left;
	self->ran = was.ran | PD_SIGBIT(sig);
	self->restart = !!(handler.flags & SA_RESTART);
}

/* Run the handler that waited; at depth 0, with no lock held. The thread gets its mask back. */
static void pd_signal_run_deferred(void)
{
	struct pd_deferred d = pd_deferred;
	int saved = errno;
	ucontext_t uc;

	getcontext(&uc);
	memcpy(&uc.uc_sigmask, &d.mask, sizeof(d.mask));
	pd_lib_self.pending = 0;
	pd_signal_mask_set(pd_handler_mask(&d.handler, d.sig, d.mask));
	pd_handler_call(&d.handler, d.sig, &d.info, &uc);
	pd_lib_self.ran |= PD_SIGBIT(d.sig);
	pd_lib_self.restart = !!(d.handler.flags & SA_RESTART);
	errno = saved;
	pd_signal_mask_set(d.mask);
}

/* True when a handler of `fn` for `sig` is to be wrapped. */
static bool pd_signal_wraps(int sig, pd_sighandler fn)
{
	if (fn == SIG_DFL)
		return sig == SIGINT && pd_vars.handle_sigintr && !pd_fd_foreign_process();
	return sig > 0 && sig < PD_SIGNALS && !(PD_SIGNALS_FAULT & PD_SIGBIT(sig)) &&
	       fn != SIG_IGN && fn != SIG_ERR && !pd_fd_foreign_process();
}

/* True when the kernel calls us for this disposition. */
static bool pd_signal_is_ours(const struct sigaction *act)
{
	return (act->sa_flags & SA_SIGINFO) && act->sa_sigaction == pd_signal_entry;
}

/*
 * True when a handler of ours stands in front of the program's. The child of a vfork has
 * dispositions, but no records, of its own.
 */
static bool pd_signal_is_fault(int sig)
{
	return pd_fault_in_front(sig) && !pd_fd_foreign_process();
}

/* sigaction with the lock held and signals blocked. 0, or -1 with errno. */
static int pd_sigaction_locked(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct pd_handler before = {0};
	struct sigaction wrapped, was;
	bool wrap = act && pd_signal_wraps(sig, act->sa_handler), in_front;
	int ret;

	if (sig > 0 && sig < PD_SIGNALS)
		before = pd_handler_read(sig);
	if (wrap) {
		uint32_t flags = (uint32_t)act->sa_flags;

		/* The end that we make of SIG_DFL can be cut short by a second signal. */
		if (act->sa_handler == SIG_DFL)
			flags = SA_NODEFER;
		pd_handler_write(sig, (uintptr_t)act->sa_sigaction, flags,
				 pd_sigset_load(&act->sa_mask));
		wrapped = *act;
		wrapped.sa_sigaction = pd_signal_entry;
		wrapped.sa_flags |= SA_SIGINFO;
		pd_sigset_store(&wrapped.sa_mask, PD_SIGNALS_BLOCK);
	}
	in_front = pd_signal_is_fault(sig);
	ret = in_front ? pd_fault_sigaction(sig, act, &was)
		       : pd_real.sigaction(sig, wrap ? &wrapped : act, &was);
	if (ret < 0) {
		if (wrap)
			pd_handler_write(sig, before.fn, before.flags, before.mask);
		return ret;
	}
	if (act && !in_front && pd_signal_is_fault(sig)) /* ours was put there meanwhile */
		pd_fault_sigaction(sig, act, NULL);
	if (old) {
		*old = was;
		if (pd_signal_is_ours(&was)) {
			old->sa_sigaction = (void (*)(int, siginfo_t *, void *))before.fn;
			old->sa_flags =
				(was.sa_flags & ~SA_SIGINFO) | (int)(before.flags & SA_SIGINFO);
			pd_sigset_store(&old->sa_mask, before.mask);
		}
	}
	return 0;
}

int PD_WRAP(sigaction)(int sig, const struct sigaction *act, struct sigaction *old)
{
	uint64_t mask;
	int ret;

	if (pd_likely(!pd_load_acquire(&pd_signal_started)))
		return pd_real.sigaction(sig, act, old);
	mask = pd_signal_mask_set(PD_SIGNALS_BLOCK);
	pd_lock(&pd_signal_lock);
	ret = pd_sigaction_locked(sig, act, old);
	pd_unlock(&pd_signal_lock);
	pd_signal_mask_set(mask);
	return ret;
}

pd_sighandler PD_WRAP(signal)(int sig, pd_sighandler handler)
{
	struct sigaction was, now;
	pd_sighandler ret;
	uint64_t mask;
	bool in_front;

	if (pd_likely(!pd_load_acquire(&pd_signal_started)))
		return pd_real.signal(sig, handler);
	mask = pd_signal_mask_set(PD_SIGNALS_BLOCK);
	pd_lock(&pd_signal_lock);
	/* libc's signal knows what siginterrupt asked for: let it choose the flags, then wrap. */
	if (pd_sigaction_locked(sig, NULL, &was) < 0) {
		ret = SIG_ERR;
	} else {
		in_front = pd_signal_is_fault(sig);
		if (in_front) {
			now = (struct sigaction){.sa_handler = handler, .sa_flags = SA_RESTART};
			ret = pd_fault_sigaction(sig, &now, NULL) ? SIG_ERR : was.sa_handler;
		} else {
			ret = pd_real.signal(sig, handler);
		}
		if (ret != SIG_ERR) {
			ret = was.sa_handler;
			if (pd_signal_wraps(sig, handler) && !pd_real.sigaction(sig, NULL, &now))
				pd_sigaction_locked(sig, &now, NULL);
			else if (pd_fault_keeps_open(sig) && !in_front && pd_signal_is_fault(sig)) {
				now = (struct sigaction){.sa_handler = handler,
							 .sa_flags = SA_RESTART};
				pd_fault_sigaction(sig, &now, NULL);
			}
		}
	}
	pd_unlock(&pd_signal_lock);
	pd_signal_mask_set(mask);
	return ret;
}

/*
 * libc's siginterrupt asks the kernel past our sigaction: what it changed there goes into the
 * record.
 */
int PD_WRAP(siginterrupt)(int sig, int interrupts)
{
	struct sigaction act;
	uint64_t mask;
	int ret;

	if (pd_likely(!pd_load_acquire(&pd_signal_started)))
		return pd_real.siginterrupt(sig, interrupts);
	mask = pd_signal_mask_set(PD_SIGNALS_BLOCK);
	pd_lock(&pd_signal_lock);
	ret = pd_real.siginterrupt(sig, interrupts);
	if (!ret && !pd_sigaction_locked(sig, NULL, &act)) {
		act.sa_flags = (act.sa_flags & ~SA_RESTART) | (interrupts ? 0 : SA_RESTART);
		pd_sigaction_locked(sig, &act, NULL);
	}
	pd_unlock(&pd_signal_lock);
	pd_signal_mask_set(mask);
	return ret;
}

/*
 * The type of cancellation outside the library: noted, for inside it has to be deferred
 * (base/lib.h). In a handler that interrupts a sleep of ours the depth is 0, as outside.
 */
int PD_WRAP(pthread_setcanceltype)(int type, int *old)
{
	int ret = pd_real.pthread_setcanceltype(type, old);

	if (!ret)
		pd_lib_self.async = type == PTHREAD_CANCEL_ASYNCHRONOUS;
	return ret;
}

/*
 * Around a fork the records are quiet: no thread is inside sigaction, and no handler of this one
 * runs.
 */
static uint64_t pd_signal_fork_mask;

static void pd_signal_fork_prepare(void)
{
	uint64_t mask = pd_signal_mask_set(PD_SIGNALS_BLOCK);

	/* Other leaves are held: all are taken in the order of the hooks. */
	pd_lock_nested(&pd_signal_lock);
	pd_signal_fork_mask = mask;
}

/* In the parent: as before the fork. */
static void pd_signal_fork_parent(void)
{
	uint64_t mask = pd_signal_fork_mask;

	pd_unlock(&pd_signal_lock);
	pd_signal_mask_set(mask);
}

/* In the child: the same, but a signal that waits is the parent's. */
static void pd_signal_fork_child(void)
{
	if (pd_lib_self.pending) {
		pd_lib_self.pending = 0;
		pd_signal_fork_mask = pd_deferred.mask;
	}
	pd_signal_fork_parent();
}

void pd_signal_start(void)
{
	static struct pd_fork_hook hook = {.order = 0,
					   .prepare = pd_signal_fork_prepare,
					   .parent = pd_signal_fork_parent,
					   .child = pd_signal_fork_child};
	struct sigaction interrupt;

	pd_fork_register(&hook);
	pd_lib_run_pending = pd_signal_run_deferred;
	pd_store_release(&pd_signal_started, true);
	pd_sigmask_start();
	if (pd_vars.handle_sigintr && !pd_real.sigaction(SIGINT, NULL, &interrupt) &&
	    !(interrupt.sa_flags & SA_SIGINFO) && interrupt.sa_handler == SIG_DFL)
		PD_WRAP(sigaction)(SIGINT, &interrupt, NULL);
	if (pd_vars.handle_sigsegv)
		pd_crash_start();
}
