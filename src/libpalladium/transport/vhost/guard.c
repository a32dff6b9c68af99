/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of a peer's that vanishes under us.
 *
 * A file that was long enough when it was mapped can be truncated at any moment, and the next access to a
 * page beyond its end raises SIGBUS, which ends the program. (So does a page of hugetlbfs that the
 * system has none left for.) We handle it: the rest of the mapping, from that page on, is replaced
 * by zeroes of our own, the access is repeated and succeeds, and the control side is asked to end
 * with that peer. What the ring code makes of the zeroes is checked as anything from a peer is.
 *
 * The handler stands in front of the program's. A SIGBUS that is not about guarded memory is handed
 * on as the kernel would have: to the program's handler, or to its default end. The preload's
 * sigaction keeps it in front (pd_lib_sigbus in base/lib.h) and shows the program its own.
 *
 * The table is read by the handler in any thread at any instant. A slot is filled before its base
 * is stored, and a mapping is accessed only between begin and end, so a fault finds its slot whole.
 */
#include "transport/vhost/guard.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "base/lib.h"
#include "base/log.h"
#include "base/sys.h"

#define GUARDS 1024

struct pd_vhost_guard {
	uintptr_t base; /* 0: free */
	uint64_t len, unit;
	struct pd_progress_work *cut;
	uint32_t is_cut;
};

static struct pd_vhost_guard guards[GUARDS];

/* What the program has installed: two, of which `current` says the one to read. */
static struct sigaction programs[2];
static uint32_t current;
static bool installed;

/* libc's own name of sigaction, which no preload stands in front of. */
extern int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);

/* Put zeroes where a guarded mapping is gone. Returns whether the address is in one. Any context. */
static bool guard_mend(uintptr_t addr)
{
	for (struct pd_vhost_guard *g = guards; g < guards + GUARDS; g++) {
		uintptr_t base = pd_load_acquire(&g->base), from;
		void *zeroes;

		if (!base || addr < base || addr - base >= g->len)
			continue;
		from = base + ((addr - base) & ~(g->unit - 1));
		zeroes =
			pd_sys_mmap((void *)from, base + g->len - from, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
		if (pd_sys_is_error(zeroes))
			return false;
		pd_store_release(&g->is_cut, 1);
		if (g->cut)
			pd_progress_post(g->cut);
		return true;
	}
	return false;
}

/* Die of the signal as if nobody handled it. */
static void default_end(const siginfo_t *info)
{
	static const struct sigaction none = {.sa_handler = SIG_DFL};

	__sigaction(SIGBUS, &none, NULL);
	if (info->si_code <= 0) /* sent by a process: it does not come again by itself */
		pd_sys_kill(pd_sys_getpid(), SIGBUS);
}

/* SIGBUS. */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *act = &programs[pd_load_acquire(&current)];

	if (info->si_code > 0 && guard_mend((uintptr_t)info->si_addr))
		return;
	if (act->sa_flags & SA_SIGINFO)
		act->sa_sigaction(sig, info, context);
	else if (act->sa_handler == SIG_DFL || (act->sa_handler == SIG_IGN && info->si_code > 0))
		default_end(info);
	else if (act->sa_handler != SIG_IGN)
		act->sa_handler(sig);
}

/* Our handler with the flags and the mask that the program wants for its own. */
static int put_in_front(const struct sigaction *act)
{
	struct sigaction ours = *act;

	if (act->sa_handler == SIG_DFL || act->sa_handler == SIG_IGN) {
		memset(&ours, 0, sizeof(ours));
		ours.sa_flags = SA_ONSTACK | SA_RESTART;
	}
	ours.sa_sigaction = on_sigbus;
	ours.sa_flags = (ours.sa_flags | SA_SIGINFO) & ~(int)SA_RESETHAND;
	return __sigaction(SIGBUS, &ours, NULL);
}

/* sigaction(SIGBUS) of the program, once ours is installed. 0, or -1 with errno. */
static int program_sigbus(const struct sigaction *act, struct sigaction *old)
{
	uint32_t now = current;

	if (old)
		*old = programs[now];
	if (!act)
		return 0;
	programs[!now] = *act;
	pd_store_release(&current, !now);
	return put_in_front(act);
}

/* Install the handler, once. */
static void guard_install(void)
{
	if (installed || __sigaction(SIGBUS, NULL, &programs[0]) || put_in_front(&programs[0]))
		return;
	installed = true;
	pd_store_release(&pd_lib_sigbus, program_sigbus);
}

struct pd_vhost_guard *pd_vhost_guard_begin(void *base, uint64_t len, uint64_t unit,
					    struct pd_progress_work *cut)
{
	struct pd_vhost_guard *g = guards;

	while (g < guards + GUARDS && g->base)
		g++;
	if (g == guards + GUARDS)
		return NULL;
	guard_install();
	g->len = len;
	g->unit = unit;
	g->cut = cut;
	pd_store_relaxed(&g->is_cut, 0);
	pd_store_release(&g->base, (uintptr_t)base);
	return g;
}

void pd_vhost_guard_end(struct pd_vhost_guard *guard)
{
	if (guard)
		pd_store_release(&guard->base, 0);
}

bool pd_vhost_guard_is_cut(const struct pd_vhost_guard *guard)
{
	return guard && pd_load_acquire(&guard->is_cut);
}
