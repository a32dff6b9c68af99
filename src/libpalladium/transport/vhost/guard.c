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
 * The table is read by the handler in any thread at any instant, slots of other mappings included,
 * which may be freed and filled again meanwhile. A slot's sequence is odd while it changes, and a
 * reader believes only what it read between two looks at the same even one: half of one mapping and
 * half of another would be memory that is nobody's to replace. There is one writer, under
 * pd_control. A mapping is accessed only between begin and end, so a fault finds its own slot
 * whole, and what that says stays so until the access is done.
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
#include "transport/transport.h"

#define GUARDS (PD_PORTS_MAX * PD_VHOST_GUARDS_PER_PORT)

/* A mapping. */
struct guarded {
	uintptr_t base; /* 0: none */
	uint64_t len, unit;
	struct pd_progress_work *cut;
};

struct pd_vhost_guard {
	uint32_t seq; /* odd while `map` changes */
	uint32_t is_cut;
	struct guarded map;
};

static struct pd_vhost_guard guards[GUARDS];

/* No slot below this one is free. pd_control held. */
static uint32_t guards_from;

/* No slot from this one on was ever filled: a fault looks no further. It only grows. */
static uint32_t guards_end;

/* Change what a slot says. pd_control held. */
static void guard_set(struct pd_vhost_guard *g, struct guarded map)
{
	uint32_t seq = g->seq;

	pd_store_relaxed(&g->seq, seq + 1);
	/* Each store is a release, so who reads a new value sees that the sequence was odd. */
	pd_store_release(&g->map.base, map.base);
	pd_store_release(&g->map.len, map.len);
	pd_store_release(&g->map.unit, map.unit);
	pd_store_release(&g->map.cut, map.cut);
	pd_store_release(&g->seq, seq + 2); /* pairs with guard_get */
}

/* What a slot says, in *map. Returns whether that is all of one mapping. Any context. */
static bool guard_get(const struct pd_vhost_guard *g, struct guarded *map)
{
	uint32_t seq = pd_load_acquire(&g->seq); /* pairs with guard_set, as do the next */

	map->base = pd_load_acquire(&g->map.base);
	map->len = pd_load_acquire(&g->map.len);
	map->unit = pd_load_acquire(&g->map.unit);
	map->cut = pd_load_acquire(&g->map.cut);
	return !(seq & 1) && map->base && pd_load_relaxed(&g->seq) == seq;
}

/*
 * Put zeroes where a guarded mapping is gone. Returns whether the address is in one. Any context.
 */
static bool guard_mend(uintptr_t addr)
{
	/* Who accesses a mapping has seen what begin did for it. */
	const struct pd_vhost_guard *end = guards + pd_load_relaxed(&guards_end);

	for (struct pd_vhost_guard *g = guards; g < end; g++) {
		struct guarded m;
		uintptr_t from;
		void *zeroes;

		if (!guard_get(g, &m) || addr < m.base || addr - m.base >= m.len)
			continue;
		from = m.base + ((addr - m.base) & ~(m.unit - 1));
		zeroes =
			pd_sys_mmap((void *)from, m.base + m.len - from, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
		if (pd_sys_is_error(zeroes))
			return false;
		pd_store_release(&g->is_cut, 1); /* pairs with pd_vhost_guard_is_cut */
		if (m.cut)
			pd_progress_post(m.cut);
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
	struct pd_vhost_guard *g;

	while (guards_from < GUARDS && guards[guards_from].map.base)
		guards_from++;
	if (guards_from == GUARDS)
		return NULL;
	g = &guards[guards_from];
	if (guards_from >= guards_end)
		pd_store_relaxed(&guards_end, guards_from + 1);
	pd_fault_install(SIGBUS, on_sigbus);
	pd_store_relaxed(&g->is_cut, 0);
	guard_set(g, (struct guarded){(uintptr_t)base, len, unit, cut});
	return g;
}

void pd_vhost_guard_end(struct pd_vhost_guard *guard)
{
	if (!guard)
		return;
	guard_set(guard, (struct guarded){0});
	guards_from = pd_min(guards_from, (uint32_t)(guard - guards));
}

void pd_vhost_guard_renew(struct pd_vhost_guard *guard, uint64_t unit)
{
	struct guarded map = guard->map;

	map.unit = unit;
	pd_store_relaxed(&guard->is_cut, 0);
	guard_set(guard, map);
}

bool pd_vhost_guard_is_cut(const struct pd_vhost_guard *guard)
{
	return guard && pd_load_acquire(&guard->is_cut);
}
