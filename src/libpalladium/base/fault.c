/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handlers of faults in front of the program's.
 *
 * What the program installed stands in one of two places, of which `current` names the one to read: the handler may run in
 * another thread while it is replaced.
 */
#include "base/fault.h"

#include <errno.h>
#include <string.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "base/sys.h"

struct pd_fault {
	int sig;
	pd_fault_fn fn;
	struct sigaction programs[2];
	uint32_t current;
	bool installed;
};

static struct pd_fault pd_faults[] = {{.sig = SIGBUS}, {.sig = SIGSEGV}};

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
	uint64_t mask = 1ull << (sig - 1);

	__sigaction(sig, &none, NULL);
	pd_sys_kill(pd_sys_getpid(), sig);
	PD_SYS_4(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, PD_KERNEL_SIGSET_BYTES);
}

/* What the kernel calls. */
static void pd_fault_entry(int sig, siginfo_t *info, void *context)
{
	struct pd_fault *f = pd_fault_of(sig);
	struct sigaction act;
	uint32_t now;

	if (f->fn(info, context))
		return;
	now = pd_load_acquire(&f->current);
	act = f->programs[now];
	if (act.sa_flags & (int)SA_RESETHAND) {
		f->programs[!now] = (struct sigaction){.sa_handler = SIG_DFL};
		pd_store_release(&f->current, !now);
	}
	if (act.sa_flags & SA_SIGINFO)
		act.sa_sigaction(sig, info, context);
	else if (act.sa_handler == SIG_DFL || (act.sa_handler == SIG_IGN && info->si_code > 0))
		pd_fault_default_end(info);
	else if (act.sa_handler != SIG_IGN)
		act.sa_handler(sig);
}

/* Our handler with the flags and the mask that the program wants for its own. Returns 0, or -1 with errno. */
static int pd_fault_put(int sig, const struct sigaction *act)
{
	struct sigaction ours = *act;

	if (!(act->sa_flags & SA_SIGINFO) &&
	    (act->sa_handler == SIG_DFL || act->sa_handler == SIG_IGN)) {
		memset(&ours, 0, sizeof(ours));
		ours.sa_flags = SA_ONSTACK | SA_RESTART;
	}
	ours.sa_sigaction = pd_fault_entry;
	ours.sa_flags = (ours.sa_flags | SA_SIGINFO) & ~(int)SA_RESETHAND;
	return __sigaction(sig, &ours, NULL);
}

bool pd_fault_in_front(int sig)
{
	const struct pd_fault *f = pd_fault_of(sig);

	return f && pd_load_acquire(&f->installed);
}

int pd_fault_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct pd_fault *f = pd_fault_of(sig);
	uint32_t now = f->current;

	if (old)
		*old = f->programs[now];
	if (!act)
		return 0;
	f->programs[!now] = *act;
	pd_store_release(&f->current, !now);
	return pd_fault_put(sig, act);
}

int pd_fault_install(int sig, pd_fault_fn fn)
{
	struct pd_fault *f = pd_fault_of(sig);

	if (!f)
		return -EINVAL;
	if (f->installed)
		return 0;
	f->fn = fn;
	if (__sigaction(sig, NULL, &f->programs[0]) || pd_fault_put(sig, &f->programs[0]))
		return -errno;
	pd_store_release(&f->installed, true);
	return 0;
}
