/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calling threads out of the kernel's epoll_wait.
 *
 * An epoll that gets its first offloaded member may have threads asleep on it in the kernel, where
 * no frame of ours wakes them. A beacon is an eventfd that is always readable, put into the
 * kernel's half of such an epoll: every sleeper returns, the one with the beacon's event, which its
 * wrapper takes out again, and goes back to sleep our way. When the last has left, the beacon is
 * taken out.
 *
 * While an epoll's beacon is lit its descriptor says nothing about the kernel's members, so
 * pd_epoll_wait leaves it alone and is rung when the beacon goes out. ep->beacon counts how often
 * it was lit and went out: what the descriptor said holds when the count was even before and is the
 * same after.
 */
#ifndef PD_WAIT_BEACON_H
#define PD_WAIT_BEACON_H

#include "wait/pollable.h"

/* Have the eventfd ready. Returns 0 or -errno. The caller excludes other callers. */
int pd_beacon_init(void);

/* True when `fd` is an epoll. After pd_beacon_init. */
bool pd_beacon_fits(int fd);

/* Whether a beacon is lit where ep->beacon is `count`. */
static inline bool pd_beacon_lit(uint32_t count)
{
	return count & 1;
}

/* Put the beacon into the epoll, or take it out. The caller excludes other callers. */
void pd_beacon_light(struct pd_epoll *ep);
void pd_beacon_out(struct pd_epoll *ep);

/*
 * The beacon, if that is `name`, is lit in `ep` under the number `from`, which it leaves for `to`
 * (base/internal_fd.h). The same caller, before the name changes.
 */
void pd_beacon_move(struct pd_epoll *ep, int name, int from, int to);

/*
 * Take the beacon's event out of `n` events of a kernel epoll; returns how many are left. Any
 * thread.
 */
int pd_beacon_filter(struct epoll_event *events, int n);

#endif /* PD_WAIT_BEACON_H */
