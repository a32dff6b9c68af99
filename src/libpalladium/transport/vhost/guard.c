/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of a peer's that vanishes under us.
 *
 * A file that was long enough when it was mapped can be truncated at any moment, and the next
 * access to a page beyond its end raises SIGBUS, which ends the program. (So does a page of
 * hugetlbfs that the system has none left for.) We handle it: the rest of the mapping, from that
 * page on, is replaced by zeroes of our own, the access is repeated and succeeds, and the control
 * side is asked to end with that peer. What the ring code makes of the zeroes is checked as
 * anything from a peer is.
 *
 * The handler stands in front of the program's (base/fault.h): a SIGBUS that is not about guarded
 * memory is handed on.
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
#include "base/fault.h"
#include "base/sys.h"

/* Eight peers with as many regions as one may have. */
#define GUARDS 4096

struct pd_vhost_guard {
	uintptr_t base; /* 0: free */
	uint64_t len, unit;
	struct pd_progress_work *cut;
	uint32_t is_cut;
};

static struct pd_vhost_guard guards[GUARDS];

/*
 * Put zeroes where a guarded mapping is gone. Returns whether the address is in one. Any context.
 */
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

/* SIGBUS. Returns whether the access may be tried again. */
static bool on_sigbus(const siginfo_t *info, void *context)
{
	return info->si_code > 0 && guard_mend((uintptr_t)info->si_addr);
}

struct pd_vhost_guard *pd_vhost_guard_begin(void *base, uint64_t len, uint64_t unit,
					    struct pd_progress_work *cut)
{
	struct pd_vhost_guard *g = guards;

	while (g < guards + GUARDS && g->base)
		g++;
	if (g == guards + GUARDS)
		return NULL;
	pd_fault_install(SIGBUS, on_sigbus);
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
