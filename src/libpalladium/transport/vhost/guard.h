/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of a peer's that vanishes under us: SIGBUS, survived.
 */
#ifndef PD_TRANSPORT_VHOST_GUARD_H
#define PD_TRANSPORT_VHOST_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "vlib/progress.h"

struct pd_vhost_guard;

/*
 * What may be guarded for each port there can be, so that no peer takes what others need: a peer's
 * regions, and beside them a table that replaces another, logs, in-flight memory, an area of ours.
 */
#define PD_VHOST_GUARDS_PER_PORT 576

/*
 * Guard a mapping of `len` bytes at `base`, in pages of `unit` bytes. The first access to a page
 * that is gone puts zeroes there, from that page to the end, and posts `cut` (may be NULL).
 * pd_control held. Returns NULL when it cannot be guarded: too many are.
 */
struct pd_vhost_guard *pd_vhost_guard_begin(void *base, uint64_t len, uint64_t unit,
					    struct pd_progress_work *cut);

/* No more, before it is unmapped. NULL is allowed. pd_control held. */
void pd_vhost_guard_end(struct pd_vhost_guard *guard);

/*
 * The mapping was replaced, by one as long that is whole and of pages of `unit` bytes. Nobody
 * accesses it now. pd_control held.
 */
void pd_vhost_guard_renew(struct pd_vhost_guard *guard, uint64_t unit);

/* True when some of it was gone. NULL is allowed. */
bool pd_vhost_guard_is_cut(const struct pd_vhost_guard *guard);

#endif /* PD_TRANSPORT_VHOST_GUARD_H */
