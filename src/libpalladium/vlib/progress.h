/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The progress thread: what no caller is there to do.
 *
 * One thread per process, started by the first port. It polls descriptors and timers and runs their
 * callbacks with pd_control held, so whatever control state a callback touches needs no lock of its
 * own; program threads that touch control state take pd_control too. All signals are blocked in it.
 * Callbacks never block.
 */
#ifndef PD_VLIB_PROGRESS_H
#define PD_VLIB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/lock.h"
#include "vlib/timer_wheel.h"

/* Guards all control state: ports, connections, listeners. Rank PD_RANK_CONTROL. */
extern struct pd_lock pd_control;

/* A descriptor that the progress thread polls. Owned by the caller, who keeps it until
 * pd_progress_del. */
struct pd_progress_fd {
	int fd;
	uint32_t events; /* EPOLLIN, EPOLLOUT: level-triggered */
	/* `revents` as epoll gives them. May delete this or any other entry. */
	void (*fn)(struct pd_progress_fd *entry, uint32_t revents);
	bool active;   /* private */
	uint32_t slot; /* private */
};

/* A one-shot timer. Owned by the caller. */
struct pd_progress_timer {
	union {
		struct pd_timer at;
		struct pd_list node; /* of `at`; in no list while the timer is not armed */
	};
	void (*fn)(struct pd_progress_timer *timer);
};

/* Start the thread if it does not run. pd_control held. Returns 0 or -errno. */
int pd_progress_start(void);

/*
 * Where the thread may run, as PALLADIUM_INTERNAL_THREAD_AFFINITY and _CPUSET spell it: a
 * hexadecimal mask ("0x6"), a list ("1,2,8-11"), or "-1" for anywhere; the path of a cpuset
 * directory, or "" for none. Takes effect when the thread starts. Return 0 or -EINVAL /
 * -ENAMETOOLONG.
 */
int pd_progress_set_affinity(const char *cpus);
int pd_progress_set_cpuset(const char *path);

/* True in the progress thread itself. */
bool pd_progress_is_self(void);

/* True when the thread runs: what is posted will be done. Any context. */
bool pd_progress_is_running(void);

/* Manual: pd_progress_start starts no thread; the caller turns pd_progress_run_once. For tests. */
void pd_progress_set_manual(bool manual);

/* End the thread and wait for it (at exit); pd_control not held. */
void pd_progress_stop(void);

/*
 * Forget the parent's thread, in a forked child: entries, timers and posted work are dropped,
 * nothing is closed but the epoll and its wake descriptor. Who forks holds pd_control across the
 * fork, so that control state is whole in the child, and releases it on both sides afterwards.
 */
void pd_progress_after_fork(void);

/* Poll entry->fd for entry->events. pd_control held. Returns 0 or -errno. */
int pd_progress_add(struct pd_progress_fd *entry);
/* Change what an entry is polled for. pd_control held. */
int pd_progress_mod(struct pd_progress_fd *entry, uint32_t events);
/* Stop polling; the callback is not running and will not run afterwards. Does not close. pd_control
 * held. */
void pd_progress_del(struct pd_progress_fd *entry);

/*
 * (Re)arm a timer `after_ns` from now; so far that the clock cannot say it is never. It does not
 * run before; timers that are due together run in the order in which they were armed, or, if they
 * are more than PD_TIMER_TICK_NS apart, in that of their deadlines. pd_control held.
 */
void pd_progress_timer_set(struct pd_progress_timer *timer, uint64_t after_ns);
/* Cancel a timer, armed or not (initialise with pd_list_init(&timer->node)). pd_control held. */
void pd_progress_timer_cancel(struct pd_progress_timer *timer);

/*
 * Have the progress thread run `work->fn` soon. Any thread, any lock of a lower rank than LEAF may
 * be held; never allocates; posting what is already posted does nothing. The data path uses it to
 * report a broken ring.
 */
struct pd_progress_work {
	struct pd_progress_work *next; /* private */
	uint32_t posted;               /* private */
	void (*fn)(struct pd_progress_work *work);
};
void pd_progress_post(struct pd_progress_work *work);

/*
 * The descriptor `name`, which the epoll knows as `from`, is to have the number `to`
 * (base/internal_fd.h): change that there, if it stands there. pd_control held. Returns 0, or
 * -errno with nothing changed.
 */
int pd_progress_move(int name, int from, int to);

/* Have the thread look around, so that it uses no number that it looked up before. Any thread. */
void pd_progress_nudge(void);

/*
 * One round by the caller, for tests and single-threaded tools, when the thread does not run: wait
 * up to `timeout_ms` (-1: for ever), run what is due. pd_control not held. Returns how many
 * callbacks ran, or -errno.
 */
int pd_progress_run_once(int timeout_ms);

#endif /* PD_VLIB_PROGRESS_H */
