/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Beacons (the theory stands in beacon.h). One eventfd serves all epolls of a process, and its
 * children.
 *
 * Its event is known by 64 random bits as its data, which no program has for its own members.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/internal_fd.h"
#include "base/sys.h"
#include "wait/beacon.h"

static int pd_beacon_fd = -1;
static uint64_t pd_beacon_data;
static bool pd_beacon_ready; /* the two above are set, and never change again */

int pd_beacon_init(void)
{
	if (pd_load_relaxed(&pd_beacon_ready))
		return 0;
	if (pd_sys_getrandom(&pd_beacon_data, sizeof(pd_beacon_data), 0) != sizeof(pd_beacon_data))
		return -EAGAIN;
	pd_beacon_fd = pd_internal_fd(pd_sys_eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
	if (pd_beacon_fd < 0)
		return pd_beacon_fd;
	pd_store_release(&pd_beacon_ready, true);
	return 0;
}

bool pd_beacon_fits(int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = pd_beacon_data};
	int ret = pd_sys_epoll_ctl(fd, EPOLL_CTL_MOD, pd_beacon_fd, &event);

	/* It is lit there, as it was, or it is not; what is no epoll says EINVAL. */
	return !ret || ret == -ENOENT;
}

void pd_beacon_light(struct pd_epoll *ep)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = pd_beacon_data};

	if (!pd_beacon_lit(ep->beacon))
		pd_store_release(&ep->beacon, ep->beacon + 1);
	pd_sys_epoll_ctl(ep->epfd, EPOLL_CTL_ADD, pd_beacon_fd, &event);
}

void pd_beacon_out(struct pd_epoll *ep)
{
	pd_sys_epoll_ctl(ep->epfd, EPOLL_CTL_DEL, pd_beacon_fd, NULL);
	if (pd_beacon_lit(ep->beacon))
		pd_store_release(&ep->beacon, ep->beacon + 1);
	pd_bell_ring(&ep->self.bell);
}

void pd_beacon_move(struct pd_epoll *ep, int name, int from, int to)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = pd_beacon_data};

	if (!pd_load_acquire(&pd_beacon_ready) || name != pd_beacon_fd)
		return;
	/* An epoll that calls several threads comes by as often. */
	pd_sys_epoll_ctl(ep->epfd, EPOLL_CTL_ADD, to, &event);
	pd_sys_epoll_ctl(ep->epfd, EPOLL_CTL_DEL, from, NULL);
}

int pd_beacon_filter(struct epoll_event *events, int n)
{
	/* Pairs with the release above. */
	if (pd_likely(!pd_load_acquire(&pd_beacon_ready)))
		return n;
	for (int i = 0; i < n; i++) {
		if (pd_likely(events[i].data.u64 != pd_beacon_data))
			continue;
		n--;
		memmove(&events[i], &events[i + 1], (size_t)(n - i) * sizeof(*events));
		break; /* one descriptor stands in an epoll once */
	}
	return n;
}
