/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handlers of faults in front of the program's.
 *
 * The program's. What it installed stands in one of two places, by the lowest bit of `turn`: a
 * handler may run in another thread while it is replaced. A reader takes a copy, and looks at the
 * turn again; a place is written to only when it is not the one in use. Writers take turns by a
 * word that is no lock of base/lock.h, since a handler of ours is one of them (SA_RESETHAND); who
 * is not a handler has all signals blocked meanwhile.
 *
 * Blocked faults. A fault in a thread that has its signal blocked ends the process, whatever
 * handler there is. Threads that block all signals are common, and so are handlers that run with
 * all blocked. So SIGBUS is never blocked in the kernel: what the program wants is noted per thread
 * (pd_fault_blocked) and the signal left open. A fault that we do not mend ends the process there,
 * as it would have. A SIGBUS that somebody sent to such a thread is given back to the kernel, and
 * from then on the thread really has it blocked. One sent to the process goes from thread to thread
 * so, and in between sigpending does not show it.
 *
 * For that our handler for SIGBUS runs with SIGBUS open and all else blocked, so that nothing comes
 * between it and what it mends; the program's runs with what it asked for.
 */
#include "base/fault.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "base/sys.h"

#define PD_FAULT_BIT(sig) (1ull << ((sig)-1))
/* Everything but faults, and the two that are libc's own. */
#define PD_FAULT_OTHERS                                                          \
	(~(PD_FAULT_BIT(SIGBUS) | PD_FAULT_BIT(SIGSEGV) | PD_FAULT_BIT(SIGFPE) | \
	   PD_FAULT_BIT(SIGILL) | PD_FAULT_BIT(32) | PD_FAULT_BIT(33)))

/* A struct sigaction, copied word by word. */
union pd_fault_act {
	struct sigaction act;
	uint64_t words[(sizeof(struct sigaction) + 7) / 8];
};

struct pd_fault {
	int sig;
	bool open; /* never blocked in the kernel */
	pd_fault_fn fn;
	union pd_fault_act programs[2];
	uint32_t turn;
	uint32_t writing;
	uint32_t installed;
};

static struct pd_fault pd_faults[] = {{.sig = SIGBUS, .open = true}, {.sig = SIGSEGV}};

PD_TLS bool pd_fault_blocked;

/* libc's own name of sigaction, which no preload stands in front of. */
extern int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);

/* The record of `sig`, or NULL. */
static struct pd_fault *pd_fault_of(int sig)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_faults); i++)
		if (pd_faults[i].sig == sig)
			return &pd_faults[i];
	return NULL;
}

/* rt_sigprocmask. The mask that was. */
static uint64_t pd_fault_mask(int how, uint64_t mask)
{
	uint64_t old = 0;

	PD_SYS_4(SYS_rt_sigprocmask, how, &mask, &old, PD_KERNEL_SIGSET_BYTES);
	return old;
}

/* --- what the program installed -------------------------------------------------------------- */

/* A whole copy of it; the turn that it is of. Any context. */
static uint32_t pd_fault_read(const struct pd_fault *f, union pd_fault_act *out)
{
	uint32_t turn;

	do {
		turn = pd_load_acquire(&f->turn);
		for (size_t i = 0; i < PD_ARRAY_SIZE(out->words); i++)
			out->words[i] = pd_load_acquire(&f->programs[turn & 1].words[i]);
	} while (pd_load_relaxed(&f->turn) != turn);
	return turn;
}

/*
 * The other writers wait from here on. They do not take long: one that is no handler cannot be
 * interrupted.
 */
static void pd_fault_write_begin(struct pd_fault *f)
{
	uint32_t none = 0;

	while (!pd_cas(&f->writing, &none, 1))
		none = 0;
}

/* Replace it, between begin and end. */
static void pd_fault_write(struct pd_fault *f, const struct sigaction *act)
{
	uint32_t turn = pd_load_relaxed(&f->turn);
	union pd_fault_act copy = {.words = {0}};

	copy.act = *act;
	/* Each store is a release, so who reads a new word sees that the turn before is over. */
	for (size_t i = 0; i < PD_ARRAY_SIZE(copy.words); i++)
		pd_store_release(&f->programs[!(turn & 1)].words[i], copy.words[i]);
	pd_store_release(&f->turn, turn + 1);
}

static void pd_fault_write_end(struct pd_fault *f)
{
	pd_store_release(&f->writing, 0);
}

/*
 * What the program installed, for its call: as the kernel does, SA_RESETHAND takes the handler, and
 * only the handler, away for the next one.
 */
static struct sigaction pd_fault_take(struct pd_fault *f)
{
	union pd_fault_act now;

	pd_fault_read(f, &now);
	if (!(now.act.sa_flags & (int)SA_RESETHAND))
		return now.act;
	pd_fault_write_begin(f);
	pd_fault_read(f, &now);
	if (now.act.sa_flags & (int)SA_RESETHAND) {
		struct sigaction next = now.act;

		next.sa_handler = SIG_DFL;
		pd_fault_write(f, &next);
	}
	pd_fault_write_end(f);
	return now.act;
}

/* --- the handler ----------------------------------------------------------------------------- */

/* Die of the signal as if nobody handled it. */
static void pd_fault_default_end(const siginfo_t *info)
{
	static const struct sigaction none = {.sa_handler = SIG_DFL};

	__sigaction(info->si_signo, &none, NULL);
	if (info->si_code <= 0) /* sent by a process: it does not come again by itself */
		pd_sys_kill(pd_sys_getpid(), info->si_signo);
}

void pd_fault_die(int sig)
{
	static const struct sigaction none = {.sa_handler = SIG_DFL};

	__sigaction(sig, &none, NULL);
	pd_sys_kill(pd_sys_getpid(), sig);
	pd_fault_mask(SIG_UNBLOCK, PD_FAULT_BIT(sig));
}

/*
 * The program has `sig` blocked in this thread, and somebody sent one: it waits in the kernel, as
 * it should have.
 */
static void pd_fault_give_back(int sig, siginfo_t *info, ucontext_t *uc)
{
	pd_fault_blocked = false;
	sigaddset(&uc->uc_sigmask, sig);
	pd_fault_mask(SIG_BLOCK, PD_FAULT_BIT(sig));
	/* With who sent it, where the kernel lets us. */
	if (PD_SYS_3(SYS_rt_sigqueueinfo, pd_sys_getpid(), sig, info))
		pd_sys_kill(pd_sys_getpid(), sig);
}

/* Call the program's handler under the mask that the kernel would have given it, SIGBUS apart. */
static void pd_fault_call(const struct pd_fault *f, const struct sigaction *act, siginfo_t *info,
			  ucontext_t *uc)
{
	bool was = pd_fault_blocked;
	uint64_t mask, more;

	if (f->open) {
		memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
		memcpy(&more, &act->sa_mask, sizeof(more));
		pd_fault_blocked =
			was || (more & PD_FAULT_BIT(f->sig)) || !(act->sa_flags & (int)SA_NODEFER);
		pd_fault_mask(SIG_SETMASK, (mask | more) & ~PD_FAULT_BIT(f->sig));
	}
	if (act->sa_flags & SA_SIGINFO)
		act->sa_sigaction(f->sig, info, uc);
	else
		act->sa_handler(f->sig);
	if (f->open) {
		pd_fault_mask(SIG_BLOCK, PD_FAULT_OTHERS);
		pd_fault_blocked = was;
	}
}

/* What the kernel calls. */
static void pd_fault_entry(int sig, siginfo_t *info, void *context)
{
	struct pd_fault *f = pd_fault_of(sig);
	int saved = errno;
	struct sigaction act;

	if (f->fn(info, context)) {
		errno = saved;
		return;
	}
	if (f->open && pd_fault_blocked) {
		if (info->si_code > 0)
			pd_fault_default_end(info);
		else
			pd_fault_give_back(sig, info, context);
		errno = saved;
		return;
	}
	act = pd_fault_take(f);
	if (!(act.sa_flags & SA_SIGINFO) &&
	    (act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN)) {
		if (act.sa_handler == SIG_DFL || info->si_code > 0)
			pd_fault_default_end(info);
		errno = saved;
		return;
	}
	pd_fault_call(f, &act, info, context);
}

/*
 * --- putting it in front -----------------------------------------------------------------------
 */

/*
 * Our handler with the flags that the program wants for its own, and the mask unless pd_fault_call
 * sees to that. *was, unless NULL, is what stood there. Returns 0, or -1 with errno.
 */
static int pd_fault_put(const struct pd_fault *f, const struct sigaction *act,
			struct sigaction *was)
{
	struct sigaction ours = *act;
	uint64_t others = PD_FAULT_OTHERS;

	if (!(act->sa_flags & SA_SIGINFO) &&
	    (act->sa_handler == SIG_DFL || act->sa_handler == SIG_IGN)) {
		memset(&ours, 0, sizeof(ours));
		ours.sa_flags = SA_ONSTACK | SA_RESTART;
	}
	ours.sa_sigaction = pd_fault_entry;
	ours.sa_flags = (ours.sa_flags | SA_SIGINFO) & ~(int)SA_RESETHAND;
	if (f->open) {
		ours.sa_flags |= SA_NODEFER;
		sigemptyset(&ours.sa_mask);
		memcpy(&ours.sa_mask, &others, sizeof(others));
	}
	return __sigaction(f->sig, &ours, was);
}

bool pd_fault_in_front(int sig)
{
	const struct pd_fault *f = pd_fault_of(sig);

	return f && pd_load_acquire(&f->installed);
}

bool pd_fault_keeps_open(int sig)
{
	const struct pd_fault *f = pd_fault_of(sig);

	return f && f->open;
}

int pd_fault_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct pd_fault *f = pd_fault_of(sig);
	union pd_fault_act now;
	uint64_t mask;
	int ret;

	if (!act) {
		pd_fault_read(f, &now);
		if (old)
			*old = now.act;
		return 0;
	}
	mask = pd_fault_mask(SIG_BLOCK, ~0ull);
	pd_fault_write_begin(f);
	pd_fault_read(f, &now);
	pd_fault_write(f, act);
	ret = pd_fault_put(f, act, NULL);
	pd_fault_write_end(f);
	pd_fault_mask(SIG_SETMASK, mask);
	if (old)
		*old = now.act;
	return ret;
}

/* True when what stands in the kernel is the handler of ours. */
static bool pd_fault_is_ours(const struct sigaction *act)
{
	return (act->sa_flags & SA_SIGINFO) && act->sa_sigaction == pd_fault_entry;
}

int pd_fault_install(int sig, pd_fault_fn fn)
{
	struct pd_fault *f = pd_fault_of(sig);
	struct sigaction before, was;
	uint64_t mask;
	int ret;

	if (!f)
		return -EINVAL;
	if (pd_load_acquire(&f->installed))
		return 0;
	f->fn = fn;
	mask = pd_fault_mask(SIG_BLOCK, ~0ull);
	pd_fault_write_begin(f);
	/*
	 * The program's sigaction asks for this after it has set its own: what comes later than our
	 * look is brought to us.
	 */
	pd_store_release(&f->installed, 1);
	ret = __sigaction(sig, NULL, &before);
	if (!ret) {
		pd_fault_write(f, &before);
		ret = pd_fault_put(f, &before, &was);
	}
	if (!ret && !pd_fault_is_ours(&was) && memcmp(&was, &before, sizeof(was))) {
		pd_fault_write(f, &was);
		ret = pd_fault_put(f, &was, NULL);
	}
	if (ret) {
		ret = -errno;
		pd_store_release(&f->installed, 0);
	}
	pd_fault_write_end(f);
	/* Whoever calls may touch the memory that this is about. */
	if (f->open && (mask & PD_FAULT_BIT(sig))) {
		mask &= ~PD_FAULT_BIT(sig);
		pd_fault_blocked = true;
	}
	pd_fault_mask(SIG_SETMASK, mask);
	return ret;
}
