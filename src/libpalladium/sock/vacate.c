/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Giving the program a number that one of the library's own descriptors has.
 *
 * base/internal_fd.h tells how a name gets another number without anybody noticing who is about to
 * use the old one. A move in full, one at a time:
 *
 *   under pd_control, the lock of the sleepers and that of the names (so: no epoll of ours changes)
 *     a copy of the descriptor with another number
 *     whatever epoll it stands in: the new number in, the old one out (an epoll knows its members
 *       by file and number, and would keep the old pair for ever)
 *     the name gets the new number
 *     the old one is marked: still open, still not the program's, of no name
 *   with no lock but the one that makes it one at a time
 *     threads asleep on what may be the old number are called out, and come back with the new one
 *     wait until no call is under way that looked the old number up
 *     the program's dup2 onto it, which closes our old copy as it would anything
 *     the mark goes
 *
 * What is waited for ends by itself: calls of ours do not block (but where a hostile peer has made
 * its eventfd a blocking one: then until that port goes down), and who sleeps is called.
 *
 * A number that is free now may be given to a descriptor of ours at any moment, so a dup2 onto one
 * holds the lock under which those are made. Onto one that is in use it does not: closing what
 * stands there may take time.
 */
#include "sock/vacate.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "base/clock.h"
#include "base/internal_fd.h"
#include "base/lock.h"
#include "base/sys.h"
#include "sock/fd.h"
#include "sock/sleepers.h"
#include "vlib/progress.h"
#include "wait/wait.h"

/* Calls last microseconds: look again at once so often, then sleep between looks. */
#define PD_VACATE_LOOKS 1000
#define PD_VACATE_PAUSE_NS (100 * PD_NS_PER_US)

static struct pd_lock pd_vacate_lock = PD_LOCK_INIT(PD_RANK_VACATE);

void pd_vacate_before_fork(void)
{
	pd_lock(&pd_vacate_lock);
}

void pd_vacate_after_fork(void)
{
	pd_unlock(&pd_vacate_lock);
}

/*
 * The first half of a move, with its three locks held. The name, with *turn; 0 when nothing of ours
 * stands at `fd`; -errno.
 */
static int pd_vacate_rename(int fd, uint32_t *turn)
{
	uintptr_t slot = pd_fd_slot(fd);
	int name, high, ret;

	if (!(slot & PD_FD_INTERNAL))
		return 0;
	name = pd_fd_slot_name(slot);
	high = pd_fd_internal_renumber(fd, name);
	if (high < 0)
		return high;
	ret = pd_progress_move(name, fd, high);
	if (ret < 0) {
		pd_fd_internal_mark(high, 0);
		pd_sys_close(high);
		return ret;
	}
	pd_sleepers_move(name, fd, high);
	*turn = pd_internal_fd_move(name, high);
	pd_fd_internal_mark(fd, PD_FD_MOVED_AWAY);
	return name;
}

/* The same, without. */
static int pd_vacate_begin(int fd, uint32_t *turn)
{
	int ret;

	pd_lock(&pd_control);
	pd_sleepers_lock_list();
	pd_internal_fd_lock();
	ret = pd_vacate_rename(fd, turn);
	pd_internal_fd_unlock();
	pd_sleepers_unlock_list();
	pd_unlock(&pd_control);
	return ret;
}

/* Wait until nobody uses the number that `name` had. */
static void pd_vacate_wait(int name, uint32_t turn)
{
	static const struct timespec pause = {.tv_nsec = PD_VACATE_PAUSE_NS};

	pd_wait_call_out();
	pd_progress_nudge();
	for (unsigned looks = 0; !pd_internal_fd_is_quiet(name, turn); looks++) {
		if (looks < PD_VACATE_LOOKS)
			pd_cpu_relax();
		else
			pd_sys_ppoll(NULL, 0, &pause, NULL);
	}
}

/* The second half: `put` onto `fd`, that `name` has left. If it fails, nothing stands there. */
static void pd_vacate_end(int fd, int name, int (*put)(void *ctx), void *ctx)
{
	bool given = put(ctx) >= 0;

	pd_internal_fd_lock();
	if (!given)
		pd_sys_close(fd);
	pd_fd_internal_mark(fd, 0);
	pd_internal_fd_moved(name);
	pd_internal_fd_unlock();
}

/*
 * A number that no descriptor of ours has. True when `put` was called, false when one of ours has
 * come there.
 */
static bool pd_vacate_not_ours(int fd, int (*put)(void *ctx), void *ctx)
{
	bool internal, free;

	pd_internal_fd_lock();
	internal = pd_fd_is_internal(fd);
	free = !internal && pd_sys_fcntl(fd, F_GETFD, 0) < 0;
	if (free)
		put(ctx);
	pd_internal_fd_unlock();
	if (!internal && !free)
		put(ctx);
	return !internal;
}

int pd_vacate_for(int fd, int (*put)(void *ctx), void *ctx)
{
	uint32_t turn = 0;
	int name = 0;

	while (!pd_vacate_not_ours(fd, put, ctx)) {
		pd_lock(&pd_vacate_lock);
		name = pd_vacate_begin(fd, &turn);
		if (name > 0) {
			pd_vacate_wait(name, turn);
			pd_vacate_end(fd, name, put, ctx);
		}
		pd_unlock(&pd_vacate_lock);
		if (name)
			return pd_min(name, 0);
	}
	return 0;
}
