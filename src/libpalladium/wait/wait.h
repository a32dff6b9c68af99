/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting: the one way this library sleeps.
 *
 * A thread that waits (in recv, poll, select, epoll_wait, or a send that found no room) asks each
 * object whether it is ready. An object that is not notes in the thread's *wait set* what would
 * change that: sides of lanes, with the position it saw, and bells. Then the thread spins for a
 * while, asking again; then pd_wait_sleep links it to everything in the set, lets the kernel sleep
 * it in one ppoll over the lanes' event_fds, its own wake eventfd and whatever kernel descriptors
 * belong to the call, and unlinks it. Then it asks again. So a wake-up is only ever a hint, and no
 * state is carried over a sleep.
 *
 * Nothing is lost between asking and sleeping, because linking compares what was seen with what is
 * there now, under the lock of the lane or bell (vlib/lane.h; tests/model/waiting.pml).
 *
 * A *bell* is for what no lane tells: an epoll got a member, a socket was bound or closed, a frame
 * was looped back.
 *
 * What a bell stands in must not be freed while a thread sleeps on it. A call that holds a
 * reference already gives no owner; the others give the object's owner, which the set holds
 * (pd_wait_hold) until it is emptied.
 *
 * Locks: a wait set belongs to one thread. Lane locks are taken one at a time.
 */
#ifndef PD_WAIT_WAIT_H
#define PD_WAIT_WAIT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/lock.h"
#include "vlib/lane.h"

/* Wait for ever. */
#define PD_WAIT_FOREVER UINT64_MAX

/* Something that can be rung; `seq` counts the rings. */
struct pd_bell {
	struct pd_lock lock; /* rank PD_RANK_WAITER */
	uint32_t seq;
	struct pd_list waiters; /* struct pd_lane_waiter */
};

void pd_bell_init(struct pd_bell *bell);

/* Wake every thread that waits on the bell. Any lock of a lower rank may be held. */
void pd_bell_ring(struct pd_bell *bell);

static inline uint32_t pd_bell_seq(struct pd_bell *bell)
{
	return pd_load_acquire(&bell->seq); /* pairs with the ring's increment */
}

/* One thing that a thread waits for: a lane's side, a bell, or a kernel descriptor that an object
 * stands on. */
struct pd_wait_entry {
	struct pd_lane *lane;
	struct pd_bell *bell;
	int fd;        /* when both are NULL; polled for POLLIN */
	int next_lane; /* the set's next entry with a lane, or -1 */
	void *owner;   /* of the bell, held; or NULL */
	enum pd_dir dir;
	uint32_t link; /* the side's count of link changes when it was looked at */
	bool linked;
	struct pd_lane_waiter waiter;
};

/* What one thread waits for. Grows as needed; kept per thread, so that a steady program allocates
 * nothing. */
struct pd_wait_set {
	struct pd_wait_entry *entries;
	unsigned n, capacity;
	struct pollfd *fds; /* scratch of the sleep: the caller's kernel descriptors first */
	unsigned n_kernel, fds_capacity;
	int first_lane;      /* the first entry with a lane, or -1 */
	unsigned held;       /* entries with an owner */
	uint32_t fork_epoch; /* of the sleep */
	uintptr_t frame;     /* of the sleep: where the stack stood */
	bool asleep;         /* linked, in the kernel */
	bool stale;          /* something moved while it was noted: ask again before sleeping */
	bool failed;         /* out of memory while noting: sleep briefly, then ask again */
	bool recheck; /* nobody tells of one of the objects: sleep no longer than PD_WAIT_RECHECK_NS */
	void (*undo)(
		void *arg); /* gives back what the call holds when its thread is cancelled asleep, or NULL */
	void *undo_arg;
};

/*
 * How long a thread sleeps at most when something may change that nobody tells of: another process
 * gives up a port.
 */
#define PD_WAIT_RECHECK_NS (50 * PD_NS_PER_MS)

/* Hold and drop the owner of a bell; the socket layer puts its references here. */
extern void (*pd_wait_hold)(void *owner);
extern void (*pd_wait_drop)(void *owner);

/*
 * The calling thread's wait set, emptied; pd_wait_end when the call is over. Not to be nested: a
 * thread waits for one thing at a time (but a signal handler that interrupts a sleep gets a set of
 * its own).
 */
struct pd_wait_set *pd_wait_begin(void);

/*
 * A sleep is a cancellation point: the call does not return then, and the stack below it is gone.
 * Have `undo(arg)` give back the references that the call holds. Until the next pd_wait_begin.
 */
static inline void pd_wait_on_cancel(struct pd_wait_set *ws, void (*undo)(void *arg), void *arg)
{
	ws->undo = undo;
	ws->undo_arg = arg;
}

void pd_wait_end(struct pd_wait_set *ws);

/* Empty the set, keeping the kernel descriptors: before asking again. */
void pd_wait_reset(struct pd_wait_set *ws);

/*
 * Note that a side of a lane is waited for, as it was when it was looked at under its lock: `seen`
 * the position, side->link the link. Call it with that lock held.
 */
void pd_wait_add_lane(struct pd_wait_set *ws, struct pd_lane *lane, enum pd_dir dir, uint32_t seen);

/* Note a bell, as it stood at `seen` (read before the object was looked at). `owner`: see above. */
void pd_wait_add_bell(struct pd_wait_set *ws, struct pd_bell *bell, uint32_t seen, void *owner);

/* Note a kernel descriptor, waited on until it is readable. */
void pd_wait_add_fd(struct pd_wait_set *ws, int fd);

/*
 * Room for `n` kernel descriptors in front of the scratch; the caller fills ws->fds[0..n) before
 * sleeping and reads revents there afterwards. Returns 0 or -ENOMEM.
 */
int pd_wait_kernel_fds(struct pd_wait_set *ws, unsigned n);

/*
 * Sleep until something in the set moves, a kernel descriptor is ready, or the monotonic clock
 * reaches `deadline_ns` (PD_WAIT_FOREVER: none). `mask`: signal mask to sleep under (kernel set of
 * 8 bytes) or NULL. Returns the number of ready kernel descriptors (revents filled), 0 when it is
 * time to ask again (or the deadline passed), -EINTR after a signal, or -errno. No lock may be
 * held.
 */
int pd_wait_sleep(struct pd_wait_set *ws, uint64_t deadline_ns, const void *mask);

/* The deadline of a call that must not wait. */
#define PD_WAIT_NOT 0ull

/* A deadline `timeout_ms` from now; negative is for ever, 0 is PD_WAIT_NOT. */
static inline uint64_t pd_wait_deadline_ms(int64_t timeout_ms)
{
	if (timeout_ms <= 0)
		return timeout_ms ? PD_WAIT_FOREVER : PD_WAIT_NOT;
	return pd_clock_ns() + (uint64_t)timeout_ms * PD_NS_PER_MS;
}

/* A deadline `ts` from now, NULL is for ever; -EINVAL in *err for a bad timespec. */
uint64_t pd_wait_deadline_ts(const struct timespec *ts, int *err);

/* Counts forks that this process came from. */
extern uint32_t pd_wait_fork_epoch;

/*
 * A descriptor of ours has another number (base/internal_fd.h): wake the threads that sleep on
 * numbers as they were before, and wait until none does. No lock of rank WAITER or LEAF may be
 * held.
 */
void pd_wait_call_out(void);

/* In a forked child: the parent's threads' wake descriptors are forgotten. */
void pd_wait_after_fork(void);

#endif /* PD_WAIT_WAIT_H */
