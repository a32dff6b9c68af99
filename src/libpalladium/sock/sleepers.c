/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who sleeps in the kernel on an epoll that is none of ours yet (the theory stands in sleepers.h).
 */
#include <pthread.h>

#include "base/lib.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "sock/fd.h"
#include "sock/sleepers.h"
#include "wait/beacon.h"

struct pd_sleeper {
	struct pd_list node;          /* in pd_sleepers */
	struct pd_lib_thread *thread; /* whose kernel_wait tells where it sleeps */
	/* What a beacon is lit for that calls this thread, with a reference; written under the
	 * lock */
	struct pd_sock_epoll *called;
	bool registered;
};

static PD_TLS struct pd_sleeper pd_sleeper_self;
static struct pd_lock pd_sleepers_lock = PD_LOCK_INIT(PD_RANK_SOCKET); /* the list, beacons */
static struct pd_list pd_sleepers = PD_LIST_INIT(pd_sleepers);
static pthread_key_t pd_sleepers_key;
static pthread_once_t pd_sleepers_once = PTHREAD_ONCE_INIT;

/* True when a thread other than `self` is called by the beacon of `e`. The lock is held. */
static bool pd_sleepers_others(const struct pd_sleeper *self, const struct pd_sock_epoll *e)
{
	struct pd_sleeper *s;

	pd_list_for_each (s, &pd_sleepers, node)
		if (s != self && s->called == e)
			return true;
	return false;
}

/* `self` was called and has come: without others the beacon goes out. Inside the library. */
static void pd_sleeper_came(struct pd_sleeper *self)
{
	struct pd_sock_epoll *e;

	pd_lock(&pd_sleepers_lock);
	e = self->called;
	pd_store_relaxed(&self->called, NULL);
	if (e && !pd_sleepers_others(self, e))
		pd_beacon_out(&e->ep);
	pd_unlock(&pd_sleepers_lock);
	if (e)
		pd_sock_put(&e->sock);
}

void pd_sleeper_leave(void)
{
	pd_store_relaxed(&pd_lib_self.kernel_wait, 0);
	pd_fence_full(); /* pairs with the second in pd_sleepers_call */
	if (pd_likely(!pd_load_relaxed(&pd_sleeper_self.called)))
		return;
	pd_lib_enter();
	pd_sleeper_came(&pd_sleeper_self);
	pd_lib_leave();
}

/* A thread ends. */
static void pd_sleeper_end(void *arg)
{
	struct pd_sleeper *self = arg;

	pd_sleeper_leave();
	pd_lib_enter();
	pd_lock(&pd_sleepers_lock);
	pd_list_del(&self->node);
	self->registered = false;
	pd_unlock(&pd_sleepers_lock);
	pd_lib_leave();
}

/* Once per process: the key by which a thread that ends takes its note with it. */
static void pd_sleepers_key_create(void)
{
	if (pthread_key_create(&pd_sleepers_key, pd_sleeper_end))
		pd_err("sock", "no thread key left: threads asleep in epoll_wait will not see a "
			       "first packet socket");
}

/*
 * Put the calling thread's record into the list. Without a key that takes it out again it stays
 * outside.
 */
static PD_NOINLINE void pd_sleeper_register(struct pd_sleeper *self)
{
	pd_lib_enter();
	pthread_once(&pd_sleepers_once, pd_sleepers_key_create);
	if (!pthread_setspecific(pd_sleepers_key, self)) {
		self->thread = &pd_lib_self;
		pd_list_init(&self->node);
		pd_lock(&pd_sleepers_lock);
		pd_list_add_tail(&pd_sleepers, &self->node);
		pd_unlock(&pd_sleepers_lock);
		self->registered = true;
	}
	pd_lib_leave();
}

bool pd_sleeper_enter(int epfd)
{
	if (pd_unlikely(!pd_sleeper_self.registered))
		pd_sleeper_register(&pd_sleeper_self);
	pd_store_relaxed(&pd_lib_self.kernel_wait, (uint32_t)epfd + 1);
	pd_fence_full(); /* pairs with the first in pd_sleepers_call */
	return !pd_sock_epoll_at(epfd);
}

/* True when the thread of `s` sleeps in the kernel under a number of `e`. */
static bool pd_sleeper_on(const struct pd_sleeper *s, const struct pd_sock_epoll *e)
{
	uint32_t noted = pd_load_relaxed(&s->thread->kernel_wait);

	return noted && pd_fd_slot((int)(noted - 1)) == (uintptr_t)&e->sock;
}

void pd_sleepers_call(struct pd_sock_epoll *e)
{
	struct pd_sleeper *s;
	bool any = false;

	pd_fence_full(); /* pairs with the one in pd_sleeper_enter: the epoll is in the table */
	pd_lock(&pd_sleepers_lock);
	pd_list_for_each (s, &pd_sleepers, node) {
		if (s->called || !pd_sleeper_on(s, e) || !pd_sock_get(&e->sock))
			continue;
		pd_store_relaxed(&s->called, e);
		pd_fence_full(); /* pairs with the one in pd_sleeper_leave */
		if (pd_load_relaxed(&s->thread->kernel_wait)) {
			any = true;
		} else { /* it left meanwhile, and may not have seen that it was called */
			pd_store_relaxed(&s->called, NULL);
			pd_sock_put(&e->sock); /* the caller has another */
		}
	}
	if (any)
		pd_beacon_light(&e->ep);
	pd_unlock(&pd_sleepers_lock);
}

void pd_sleepers_lock_list(void)
{
	pd_lock(&pd_sleepers_lock);
}

void pd_sleepers_unlock_list(void)
{
	pd_unlock(&pd_sleepers_lock);
}

void pd_sleepers_move(int name, int from, int to)
{
	struct pd_sleeper *s;

	pd_list_for_each (s, &pd_sleepers, node)
		if (s->called)
			pd_beacon_move(&s->called->ep, name, from, to);
}

/*
 * A handler returns to a sleep that pd_sleeper_leave was called for; the kernel may yet begin it.
 */
static void pd_sleeper_resume(uint32_t noted)
{
	struct pd_sock_epoll *e;

	if (pd_likely(pd_sleeper_enter((int)(noted - 1))))
		return;
	pd_lib_enter();
	e = pd_sock_epoll_get((int)(noted - 1));
	if (e) {
		pd_sleepers_call(e);
		pd_sock_put(&e->sock);
	}
	pd_lib_leave();
}

void pd_sleepers_init(void)
{
	pd_lib_sleep_left = pd_sleeper_leave;
	pd_lib_sleep_resumed = pd_sleeper_resume;
}

void pd_sleepers_after_fork(void)
{
	struct pd_sleeper *self = &pd_sleeper_self;

	pd_lock_init(&pd_sleepers_lock, PD_RANK_SOCKET);
	pd_list_init(&pd_sleepers);
	if (self->registered)
		pd_list_add_tail(&pd_sleepers, &self->node);
}
