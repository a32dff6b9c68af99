/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll over offloaded objects and kernel descriptors together; select is built on it.
 */
#include <errno.h>

#include "base/sys.h"
#include "wait/pollable.h"

/* All polls of a process learn together whether spinning pays off. */
static struct pd_spin pd_poll_spin;

/*
 * Ask every offloaded entry; returns how many have revents, or -ESTALE. `ws` gets what to wait for.
 */
static int pd_poll_objects(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
			   struct pd_wait_set *ws)
{
	int ready = 0;

	for (unsigned i = 0; i < n; i++) {
		struct pd_edge edge = {0, 0};

		if (!objects[i])
			continue;
		if (pd_unlikely(pd_load_acquire(&objects[i]->moved)))
			return -ESTALE;
		/* Poll's and epoll's event bits are the same numbers. */
		fds[i].revents = (short)objects[i]->ops->poll(
			objects[i], (uint32_t)(unsigned short)fds[i].events, ws, &edge);
		ready += fds[i].revents != 0;
	}
	return ready;
}

/* Put the kernel's entries in front of the set's scratch. Returns 0 or -ENOMEM. */
static int pd_poll_kernel_load(const struct pollfd *fds, struct pd_pollable *const *objects,
			       unsigned n, unsigned n_kernel, struct pd_wait_set *ws)
{
	int ret = pd_wait_kernel_fds(ws, n_kernel);
	unsigned k = 0;

	if (ret)
		return ret;
	for (unsigned i = 0; i < n; i++)
		if (!objects[i])
			ws->fds[k++] = (struct pollfd){.fd = fds[i].fd, .events = fds[i].events};
	return 0;
}

/* Take the kernel's answers back; returns how many entries have revents. */
static int pd_poll_kernel_store(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
				const struct pd_wait_set *ws)
{
	unsigned k = 0;
	int ready = 0;

	for (unsigned i = 0; i < n; i++) {
		if (objects[i])
			continue;
		fds[i].revents = ws->fds[k++].revents;
		ready += fds[i].revents != 0;
	}
	return ready;
}

/* Ask the kernel about its entries without waiting; returns how many are ready, or -errno. */
static int pd_poll_kernel_now(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
			      struct pd_wait_set *ws)
{
	static const struct timespec now = {0, 0};
	int ret = pd_sys_ppoll(ws->fds, ws->n_kernel, &now, NULL);

	if (ret < 0)
		return ret;
	return pd_poll_kernel_store(fds, objects, n, ws);
}

/* Have every offloaded entry prepare; returns how many entries are the kernel's. */
static unsigned pd_poll_prepare(struct pd_pollable *const *objects, unsigned n)
{
	unsigned n_kernel = 0;

	for (unsigned i = 0; i < n; i++) {
		if (objects[i])
			objects[i]->ops->prepare(objects[i]);
		else
			n_kernel++;
	}
	return n_kernel;
}

/*
 * One round: the offloaded entries, noting in `ws` (if given) what to wait for; and the kernel's,
 * when something is ready or it is their turn. `scratch` has the kernel's entries. Returns how many
 * are ready, or -errno.
 */
static int pd_poll_round(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
			 struct pd_wait_set *scratch, struct pd_wait_set *ws, bool look_at_kernel)
{
	int ready = pd_poll_objects(fds, objects, n, ws), ret;

	if (ready < 0 || !scratch->n_kernel || (!ready && !look_at_kernel))
		return ready;
	ret = pd_poll_kernel_now(fds, objects, n, scratch);
	if (ret < 0 && ret != -EINTR)
		return ret;
	return ready + pd_max(ret, 0);
}

/* The objects of a poll, for a thread that is cancelled in it. */
struct pd_poll_cancel {
	struct pd_pollable *const *objects;
	unsigned n;
};

/* Give back the caller's references. */
static void pd_poll_cancelled(void *arg)
{
	struct pd_poll_cancel *c = arg;

	for (unsigned i = 0; i < c->n; i++)
		if (c->objects[i] && c->objects[i]->owner)
			pd_wait_drop(c->objects[i]->owner);
}

/* Ask and sleep until something is ready. As pd_poll_round; 0 at the deadline. */
static int pd_poll_sleep(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
			 struct pd_wait_set *ws, uint64_t deadline_ns, const void *mask)
{
	struct pd_poll_cancel cancel = {objects, n};
	int ready;

	pd_wait_on_cancel(ws, pd_poll_cancelled, &cancel);
	for (;;) {
		pd_wait_reset(ws);
		ready = pd_poll_round(fds, objects, n, ws, ws, true);
		if (ready || (deadline_ns != PD_WAIT_FOREVER && pd_clock_ns() >= deadline_ns))
			return ready;
		ready = pd_wait_sleep(ws, deadline_ns, mask);
		if (ready < 0)
			return ready;
		if (pd_unlikely(ws->recheck))
			pd_poll_prepare(objects, n);
	}
}

int pd_poll(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
	    uint64_t deadline_ns, const void *mask, bool *slept)
{
	struct pd_spin_loop spin = {.spin = &pd_poll_spin};
	struct pd_wait_set *ws = pd_wait_begin();
	unsigned n_kernel = pd_poll_prepare(objects, n);
	int ready;

	*slept = false;
	for (unsigned i = 0; i < n; i++)
		fds[i].revents = 0;
	ready = pd_poll_kernel_load(fds, objects, n, n_kernel, ws);
	if (!ready)
		ready = pd_poll_round(fds, objects, n, ws, NULL, true);
	if (!ready && deadline_ns != PD_WAIT_NOT) {
		while (!ready && pd_spin_more(&spin, pd_wait_tuning.spin_us, deadline_ns))
			ready = pd_poll_round(fds, objects, n, ws, NULL,
					      pd_spin_kernel_turn(&spin));
		pd_spin_end(&pd_poll_spin, ready > 0);
		*slept = !ready;
		if (!ready)
			ready = pd_poll_sleep(fds, objects, n, ws, deadline_ns, mask);
	}
	pd_wait_end(ws);
	return ready;
}
