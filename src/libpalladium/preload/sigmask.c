/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program's pthread_sigmask and sigprocmask. They are the kernel's, but that SIGBUS is not
 * blocked when they ask for it: it is noted that they did (base/fault.c), and told when they ask
 * what is blocked.
 *
 * Masks that come another way are not looked at: a longjmp that restores one puts back what the
 * kernel had; a thread whose attributes name a mask (pthread_attr_setsigmask_np), and system calls
 * that the program makes itself, may block SIGBUS, and memory of a peer's that vanishes under such
 * a thread ends the process.
 */
#include "base/fault.h"
#include "base/sys.h"
#include "preload/preload.h"
#include "preload/real.h"

static bool pd_sigmask_started;

void pd_sigmask_start(void)
{
	pd_store_release(&pd_sigmask_started, true);
}

/* What becomes of pd_fault_blocked with a valid `how`. */
static bool pd_sigmask_blocked(int how, bool named)
{
	if (how == SIG_BLOCK)
		return pd_fault_blocked || named;
	if (how == SIG_UNBLOCK)
		return pd_fault_blocked && !named;
	return named;
}

/* pthread_sigmask once a port is configured. Returns 0 or an errno. */
static int pd_sigmask_change(int how, const sigset_t *set, sigset_t *old)
{
	bool was = pd_fault_blocked, named = set && sigismember(set, SIGBUS) == 1;
	sigset_t open;
	int ret;

	if (named && how != SIG_UNBLOCK) {
		open = *set;
		sigdelset(&open, SIGBUS);
	}
	/* Before it is unblocked: what comes at once is the program's. */
	if (set)
		pd_fault_blocked = pd_sigmask_blocked(how, named);
	ret = pd_real.pthread_sigmask(how, named && how != SIG_UNBLOCK ? &open : set, old);
	if (ret)
		pd_fault_blocked = was;
	else if (old && was)
		sigaddset(old, SIGBUS);
	return ret;
}

int PD_WRAP(pthread_sigmask)(int how, const sigset_t *set, sigset_t *old)
{
	if (!pd_load_acquire(&pd_sigmask_started) || pd_fd_foreign_process())
		return pd_real.pthread_sigmask(how, set, old);
	return pd_sigmask_change(how, set, old);
}

int PD_WRAP(sigprocmask)(int how, const sigset_t *set, sigset_t *old)
{
	int ret;

	if (!pd_load_acquire(&pd_sigmask_started) || pd_fd_foreign_process())
		return pd_real.sigprocmask(how, set, old);
	ret = pd_sigmask_change(how, set, old);
	return ret ? (errno = ret, -1) : 0;
}
