/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wait sets, bells, sleeping and spinning (the theory stands in wait.h).
 *
 * Each thread has one wake eventfd, made at its first sleep and closed when the thread ends.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/internal_fd.h"
#include "base/lib.h"
#include "base/log.h"
#include "base/sys.h"
#include "wait/wait.h"

/* How long to sleep when memory for the set ran out: long enough to cost nothing, short enough to
 * go unnoticed. */
#define PD_WAIT_OUT_OF_MEMORY_NS (2 * PD_NS_PER_MS)

/* A signal handler that runs while its thread sleeps may wait too, and so on. */
#define PD_WAIT_NESTING 4

struct pd_wait_thread {
	struct pd_wait_set sets[PD_WAIT_NESTING];
	int wake_fd; /* -1 until the first sleep; others read it too */
	uint32_t fork_epoch;
	bool registered;              /* the key's destructor will run, and the two below are set */
	struct pd_list node;          /* in pd_wait_threads */
	struct pd_lib_thread *thread; /* whose `numbers` tells what it sleeps on */
};

static __thread struct pd_wait_thread pd_wait_self = {.wake_fd = -1};
/* Threads that have waited, to be called out. */
static struct pd_lock pd_wait_threads_lock = PD_LOCK_INIT(PD_RANK_WAITER);
static struct pd_list pd_wait_threads = PD_LIST_INIT(pd_wait_threads);
static pthread_key_t pd_wait_key;
static pthread_once_t pd_wait_once = PTHREAD_ONCE_INIT;
uint32_t pd_wait_fork_epoch;

/* Nobody counts references. */
static void pd_wait_hold_nothing(void *owner)
{
}

void (*pd_wait_hold)(void *owner) = pd_wait_hold_nothing;
void (*pd_wait_drop)(void *owner) = pd_wait_hold_nothing;

static void pd_wait_abandon(struct pd_wait_set *ws);

/* --- threads ---------------------------------------------------------------------------- */

/* A thread ends: give back its eventfd and its memory. */
static void pd_wait_thread_end(void *arg)
{
	struct pd_wait_thread *self = arg;

	pd_lib_enter();
	/*
	 * Cancelled in its sleep, or ended by a handler: the lanes must not keep what is freed
	 * here.
	 */
	for (int i = 0; i < PD_WAIT_NESTING; i++)
		pd_wait_abandon(&self->sets[i]);
	pd_lock(&pd_wait_threads_lock);
	pd_list_del(&self->node);
	pd_unlock(&pd_wait_threads_lock);
	if (self->wake_fd >= 0)
		pd_sys_close(self->wake_fd);
	for (int i = 0; i < PD_WAIT_NESTING; i++) {
		free(self->sets[i].entries);
		free(self->sets[i].fds);
	}
	memset(self, 0, sizeof(*self));
	self->wake_fd = -1;
	pd_lib_leave();
}

static void pd_wait_key_create(void)
{
	if (pthread_key_create(&pd_wait_key, pd_wait_thread_end))
		pd_err("wait", "no thread key left: threads that wait look every %llu ms",
		       PD_WAIT_OUT_OF_MEMORY_NS / PD_NS_PER_MS);
}

/*
 * Put the calling thread into the list, and have pd_wait_thread_end take it out again. Without that
 * it must not be there, nor sleep for long.
 */
static void pd_wait_register(struct pd_wait_thread *self)
{
	if (pd_likely(self->registered))
		return;
	pthread_once(&pd_wait_once, pd_wait_key_create);
	if (pthread_setspecific(pd_wait_key, self))
		return;
	self->thread = &pd_lib_self;
	pd_list_init(&self->node);
	pd_lock(&pd_wait_threads_lock);
	pd_list_add_tail(&pd_wait_threads, &self->node);
	pd_unlock(&pd_wait_threads_lock);
	self->registered = true;
}

/* The calling thread's wake eventfd, made if need be; -errno if it cannot be made. */
static int pd_wait_wake_fd(struct pd_wait_thread *self)
{
	uint32_t epoch = pd_load_relaxed(&pd_wait_fork_epoch);
	int fd = self->wake_fd;

	if (pd_likely(fd >= 0 && self->fork_epoch == epoch))
		return fd;
	if (pd_unlikely(!self->registered))
		return -EAGAIN;
	if (fd >= 0)
		pd_sys_close(fd); /* the parent's: it is shared with it */
	fd = pd_internal_fd(pd_sys_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	pd_store_relaxed(&self->wake_fd, fd);
	self->fork_epoch = epoch;
	return fd;
}

void pd_wait_after_fork(void)
{
	struct pd_wait_thread *self = &pd_wait_self;

	pd_wait_fork_epoch++;
	pd_lock_init(&pd_wait_threads_lock, PD_RANK_WAITER);
	pd_list_init(&pd_wait_threads);
	if (self->registered)
		pd_list_add_tail(&pd_wait_threads, &self->node);
}

/* --- numbers that change -------------------------------------------------------------------- */

/*
 * A thread that is about to sleep notes the last move, and then looks numbers up; a mover changes a
 * number, counts the move, and then looks who has noted an older one. One of the two sees the
 * other.
 */
static void pd_wait_numbers_begin(void)
{
	pd_store_seq(&pd_lib_self.numbers, pd_load_seq(&pd_internal_fd_moves));
	pd_fence_full(); /* pairs with the one in pd_wait_call_out */
}

/*
 * It sleeps no more: woken, interrupted by a handler that may never return (preload/signal.c),
 * cancelled.
 */
static void pd_wait_numbers_end(void)
{
	pd_store_release(&pd_lib_self.numbers, 0); /* pairs with the load in pd_wait_call_out */
}

void pd_wait_call_out(void)
{
	uint32_t now = pd_load_seq(&pd_internal_fd_moves);
	static const uint64_t one = 1;
	struct pd_wait_thread *t;

	pd_fence_full(); /* pairs with the one in pd_wait_numbers_begin */
	pd_lock(&pd_wait_threads_lock);
	pd_list_for_each (t, &pd_wait_threads, node) {
		uint32_t numbers;

		while ((numbers = pd_load_acquire(&t->thread->numbers)) && numbers != now) {
			pd_sys_write(pd_load_relaxed(&t->wake_fd), &one, sizeof(one));
			sched_yield();
		}
	}
	pd_unlock(&pd_wait_threads_lock);
}

/* --- bells ------------------------------------------------------------------------------ */

void pd_bell_init(struct pd_bell *bell)
{
	pd_lock_init(&bell->lock, PD_RANK_WAITER);
	bell->seq = 0;
	pd_list_init(&bell->waiters);
}

void pd_bell_ring(struct pd_bell *bell)
{
	static const uint64_t one = 1;
	struct pd_lane_waiter *w;

	pd_lock(&bell->lock);
	pd_store_release(&bell->seq, bell->seq + 1); /* pairs with pd_bell_seq */
	pd_list_for_each (w, &bell->waiters, node)
		pd_sys_write(w->wake_fd, &one, sizeof(one));
	pd_unlock(&bell->lock);
}

/* Link `w` to the bell unless it was rung since w->seen; true when linked. */
static bool pd_bell_sleep(struct pd_bell *bell, struct pd_lane_waiter *w)
{
	bool quiet;

	pd_lock(&bell->lock);
	quiet = bell->seq == w->seen;
	if (quiet)
		pd_list_add_tail(&bell->waiters, &w->node);
	pd_unlock(&bell->lock);
	return quiet;
}

/* --- the set ---------------------------------------------------------------------------- */

void pd_wait_reset(struct pd_wait_set *ws)
{
	for (unsigned i = 0; ws->held && i < ws->n; i++) {
		if (!ws->entries[i].owner)
			continue;
		ws->held--;
		pd_wait_drop(ws->entries[i].owner);
	}
	ws->n = 0;
	ws->first_lane = -1;
	ws->stale = false;
	ws->failed = false;
	ws->recheck = false;
}

/* True when the thread runs on its alternate signal stack. */
static bool pd_wait_on_signal_stack(void)
{
	stack_t stack = {.ss_flags = 0};

	return !PD_SYS_2(SYS_sigaltstack, NULL, &stack) && (stack.ss_flags & SS_ONSTACK);
}

/*
 * A set for a thread whose first one is asleep: it belongs to what this signal handler interrupted.
 * Or the handler never came back (longjmp): then the sleep's frame is no longer on the stack, and
 * its set is free to take.
 */
static PD_NOINLINE struct pd_wait_set *pd_wait_nested(uintptr_t frame)
{
	struct pd_wait_set *ws = pd_wait_self.sets;
	bool other_stack = pd_wait_on_signal_stack();

	for (; ws < &pd_wait_self.sets[PD_WAIT_NESTING - 1] && ws->asleep; ws++)
		if (!other_stack && ws->frame <= frame)
			break;
	for (struct pd_wait_set *gone = ws; gone < &pd_wait_self.sets[PD_WAIT_NESTING]; gone++)
		pd_wait_abandon(gone);
	return ws;
}

struct pd_wait_set *pd_wait_begin(void)
{
	struct pd_wait_set *ws = pd_wait_self.sets;

	pd_wait_register(&pd_wait_self);
	if (pd_unlikely(ws->asleep))
		ws = pd_wait_nested((uintptr_t)__builtin_frame_address(0));
	pd_wait_reset(ws);
	pd_wait_on_cancel(ws, NULL, NULL);
	ws->n_kernel = 0;
	return ws;
}

void pd_wait_end(struct pd_wait_set *ws)
{
	pd_wait_reset(ws);
}

/* One more entry, or NULL when memory ran out. */
static struct pd_wait_entry *pd_wait_grow(struct pd_wait_set *ws)
{
	if (ws->n == ws->capacity) {
		unsigned capacity = ws->capacity ? 2 * ws->capacity : 8;
		struct pd_wait_entry *grown = realloc(ws->entries, capacity * sizeof(*grown));

		if (!grown) {
			ws->failed = true;
			return NULL;
		}
		ws->entries = grown;
		ws->capacity = capacity;
	}
	return memset(&ws->entries[ws->n++], 0, sizeof(ws->entries[0]));
}

void pd_wait_add_lane(struct pd_wait_set *ws, struct pd_lane *lane, enum pd_dir dir, uint32_t seen)
{
	struct pd_wait_entry *e;

	/* Lanes are few, however many objects there are. */
	for (int i = ws->first_lane; i >= 0; i = e->next_lane) {
		e = &ws->entries[i];
		if (e->lane != lane || e->dir != dir)
			continue;
		/* Another object looked at this side too; if it moved in between, one of the two is
		 * out of date. */
		if (e->waiter.seen != seen || e->link != lane->side[dir].link)
			ws->stale = true;
		return;
	}
	e = pd_wait_grow(ws);
	if (!e)
		return;
	e->next_lane = ws->first_lane;
	ws->first_lane = (int)(e - ws->entries);
	e->lane = lane;
	e->dir = dir;
	e->link = lane->side[dir].link;
	e->waiter.seen = seen;
}

void pd_wait_add_bell(struct pd_wait_set *ws, struct pd_bell *bell, uint32_t seen, void *owner)
{
	struct pd_wait_entry *e = pd_wait_grow(ws);

	if (!e)
		return;
	e->bell = bell;
	e->waiter.seen = seen;
	e->owner = owner;
	if (owner) {
		pd_wait_hold(owner);
		ws->held++;
	}
}

void pd_wait_add_fd(struct pd_wait_set *ws, int fd)
{
	struct pd_wait_entry *e = pd_wait_grow(ws);

	if (e)
		e->fd = fd;
}

/* Room for `n` descriptors in the scratch, contents kept. */
static int pd_wait_fds_reserve(struct pd_wait_set *ws, unsigned n)
{
	struct pollfd *grown;

	if (n <= ws->fds_capacity)
		return 0;
	grown = realloc(ws->fds, n * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	ws->fds = grown;
	ws->fds_capacity = n;
	return 0;
}

int pd_wait_kernel_fds(struct pd_wait_set *ws, unsigned n)
{
	int ret = pd_wait_fds_reserve(ws, n + 8);

	if (!ret)
		ws->n_kernel = n;
	return ret;
}

/* --- sleeping --------------------------------------------------------------------------- */

/* Link one entry; its event_fd (or -1) goes to *event_fd. False when it has moved: nothing is
 * linked then. */
static bool pd_wait_link(struct pd_wait_entry *e, int wake_fd, int *event_fd)
{
	struct pd_lane_side *side;

	e->waiter.wake_fd = wake_fd;
	*event_fd = -1;
	if (e->bell) {
		e->linked = pd_bell_sleep(e->bell, &e->waiter);
		return e->linked;
	}
	if (!e->lane) {
		*event_fd = e->fd;
		return true;
	}
	side = &e->lane->side[e->dir];
	pd_lock(&side->lock);
	e->linked = side->link == e->link && pd_lane_sleep(e->lane, e->dir, &e->waiter);
	*event_fd = side->event_fd;
	pd_unlock(&side->lock);
	return e->linked;
}

/* Undo pd_wait_link. `notified`: the lane's event_fd was readable. */
static void pd_wait_unlink(struct pd_wait_entry *e, bool notified)
{
	struct pd_lock *lock;

	if (!e->linked)
		return;
	lock = e->lane ? &e->lane->side[e->dir].lock : &e->bell->lock;
	pd_lock(lock);
	if (e->lane)
		pd_lane_wake(e->lane, e->dir, &e->waiter, notified);
	else
		pd_list_del(&e->waiter.node);
	pd_unlock(lock);
	e->linked = false;
}

/*
 * Take a set out of what it is linked to, whose sleep will not return. In a forked child the lanes
 * are gone and bells start anew, so there is nothing to take it out of.
 */
static void pd_wait_abandon(struct pd_wait_set *ws)
{
	bool forked = ws->fork_epoch != pd_load_relaxed(&pd_wait_fork_epoch);

	if (ws->asleep)
		for (unsigned i = 0; i < ws->n && !forked; i++)
			pd_wait_unlink(&ws->entries[i], true);
	ws->asleep = false;
	pd_wait_reset(ws);
}

/* The time from now to `deadline_ns`; for ever is a few decades. */
static struct timespec pd_wait_left(uint64_t deadline_ns)
{
	uint64_t now = pd_clock_ns(), left;

	if (deadline_ns == PD_WAIT_FOREVER)
		return (struct timespec){.tv_sec = 1 << 30};
	left = deadline_ns > now ? deadline_ns - now : 0;
	return (struct timespec){.tv_sec = (time_t)(left / PD_NS_PER_SEC),
				 .tv_nsec = (long)(left % PD_NS_PER_SEC)};
}

/*
 * The call will not return: its thread was cancelled, or a handler of the program jumped out of it.
 * Undo what it did, and leave the library for what the program does next.
 */
static void pd_wait_left_behind(void *arg)
{
	struct pd_wait_set *ws = arg;

	pd_lib_self.depth = 1; /* 0 in a handler; other handlers wait from here on */
	pd_lib_sleep_end();
	pd_wait_numbers_end();
	pd_wait_abandon(ws);
	if (ws->undo)
		ws->undo(ws->undo_arg);
	pd_lib_leave();
}

/*
 * ppoll for the set, with signal handlers running as they arrive. -EINTR when one ran or is to run.
 * The thread can be cancelled in here and nowhere else: no lock is held, and nothing is taken yet.
 */
static int pd_wait_ppoll(struct pd_wait_set *ws, uint64_t deadline_ns, const void *mask)
{
	struct timespec left = pd_wait_left(deadline_ns);
	struct _pthread_cleanup_buffer cleanup;
	int type = PTHREAD_CANCEL_DEFERRED, ret = -EINTR;

	_pthread_cleanup_push(&cleanup, pd_wait_left_behind, ws);
	if (!pd_lib_sleep_begin(&left)) {
		if (pd_lib_setcanceltype)
			pd_lib_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
		/*
		 * The kernel has to read the limit itself, at its start: pd_lib_sleep_begin tells
		 * why.
		 */
		ret = (int)PD_SYS_5(SYS_ppoll, ws->fds, ws->n_kernel + 1 + ws->n, &left, mask,
				    PD_KERNEL_SIGSET_BYTES);
		if (pd_lib_setcanceltype)
			pd_lib_setcanceltype(type, NULL);
	}
	pd_lib_sleep_end();
	_pthread_cleanup_pop(&cleanup, 0);
	return ret;
}

/* Run the handler that waited, if any, inside the call. */
static void pd_wait_run_signals(struct pd_wait_set *ws)
{
	struct _pthread_cleanup_buffer cleanup;

	_pthread_cleanup_push(&cleanup, pd_wait_left_behind, ws);
	pd_lib_signals_run();
	_pthread_cleanup_pop(&cleanup, 0);
}

int pd_wait_sleep(struct pd_wait_set *ws, uint64_t deadline_ns, const void *mask)
{
	int wake_fd = pd_wait_wake_fd(&pd_wait_self), ret;
	unsigned base = ws->n_kernel, linked = 0;
	bool interrupted = false;
	struct timespec ts;
	uint64_t drain;

	if (ws->stale)
		return 0;
	if (pd_unlikely(ws->recheck))
		deadline_ns = pd_min(deadline_ns, pd_clock_ns() + PD_WAIT_RECHECK_NS);
	ws->fork_epoch = pd_load_relaxed(&pd_wait_fork_epoch);
	ws->frame = (uintptr_t)__builtin_frame_address(0);
	ret = pd_wait_fds_reserve(ws, base + 1 + ws->n);
	if (ws->failed || ret < 0 || wake_fd < 0) {
		ts = pd_wait_left(pd_min(deadline_ns, pd_clock_ns() + PD_WAIT_OUT_OF_MEMORY_NS));
		if (base && pd_internal_fd_is_name(ws->fds[0].fd))
			ws->fds[0].fd = -1; /* an epoll's own; it is asked in the next round */
		return pd_sys_ppoll(ws->fds, base, &ts, mask);
	}
	pd_wait_numbers_begin();
	/*
	 * Of the caller's descriptors the first may be an epoll's own; it is put there anew for
	 * each sleep.
	 */
	if (base)
		ws->fds[0].fd = pd_internal_fd_number(ws->fds[0].fd);
	ws->fds[base] = (struct pollfd){.fd = pd_internal_fd_number(wake_fd), .events = POLLIN};
	for (; linked < ws->n; linked++) {
		struct pd_wait_entry *e = &ws->entries[linked];
		struct pollfd *p = &ws->fds[base + 1 + linked];

		p->events = POLLIN;
		p->revents = 0;
		if (!pd_wait_link(e, wake_fd, &p->fd))
			break;
		p->fd = pd_internal_fd_number(p->fd);
		if (e->lane)
			deadline_ns = pd_min(deadline_ns, e->waiter.until_ns);
	}
	if (linked == ws->n) {
		ws->asleep = true;
		ret = pd_wait_ppoll(ws, deadline_ns, mask);
		ws->asleep = false;
		/*
		 * A handler ends the call, also one that ran before the kernel's sleep or after it.
		 */
		interrupted = pd_lib_interrupted(mask);
	} else {
		/* Something moved: no sleep, but the kernel's descriptors get their turn. */
		struct timespec zero = {0, 0};

		ret = base ? pd_sys_ppoll(ws->fds, base, &zero, mask) : 0;
		ws->fds[base].revents = 0;
	}
	pd_wait_numbers_end();
	/* A handler may have forked: the child has nothing to be taken out of. */
	for (unsigned i = 0; i < linked && ws->fork_epoch == pd_load_relaxed(&pd_wait_fork_epoch);
	     i++)
		pd_wait_unlink(&ws->entries[i], ret > 0 && ws->fds[base + 1 + i].revents);
	/* A write that comes between the sleep and the unlinking costs one needless round later. */
	if (ret > 0 && ws->fds[base].revents)
		pd_sys_read(wake_fd, &drain, sizeof(drain));
	if (interrupted || ret == -EINTR) {
		pd_wait_run_signals(ws);
		/*
		 * One that `mask` holds back, and that came before the mask was in place, is none
		 * of the call's.
		 */
		return pd_lib_self.ran && !pd_lib_interrupted(mask) ? 0 : -EINTR;
	}
	if (ret <= 0)
		return ret;
	ret = 0;
	for (unsigned i = 0; i < base; i++)
		ret += ws->fds[i].revents != 0;
	return ret;
}

/* --- deadlines -------------------------------------------------------------------------- */

uint64_t pd_wait_deadline_ts(const struct timespec *ts, int *err)
{
	*err = 0;
	if (!ts)
		return PD_WAIT_FOREVER;
	if (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= (long)PD_NS_PER_SEC) {
		*err = -EINVAL;
		return 0;
	}
	if (!ts->tv_sec && !ts->tv_nsec)
		return PD_WAIT_NOT;
	if ((uint64_t)ts->tv_sec > (PD_WAIT_FOREVER >> 1) / PD_NS_PER_SEC)
		return PD_WAIT_FOREVER;
	return pd_clock_ns() + (uint64_t)ts->tv_sec * PD_NS_PER_SEC + (uint64_t)ts->tv_nsec;
}
