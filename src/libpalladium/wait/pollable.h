/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What poll, select and epoll can ask of an offloaded object, and the multiplexers over such
 * objects and kernel descriptors.
 */
#ifndef PD_WAIT_POLLABLE_H
#define PD_WAIT_POLLABLE_H

#include <poll.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "wait/spin.h"
#include "wait/wait.h"

struct pd_pollable;

/*
 * Counts of what happened on an object, for edge-triggered interest: each moves when something came
 * in, or when room came after a send had found none.
 */
struct pd_edge {
	uint32_t in;
	uint32_t out;
};

struct pd_pollable_ops {
	/* Called without locks before poll: open what must be open. Any program thread. */
	void (*prepare)(struct pd_pollable *p);
	/*
	 * Which of `events` (EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDNORM...; EPOLLERR and EPOLLHUP
	 * always) hold now, and the edge counts. With a wait set: note also what would change the
	 * answer, whatever it is.
	 */
	uint32_t (*poll)(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
			 struct pd_edge *edge);
	/*
	 * For objects that ports feed, or NULL: as poll, in an epoll that has called pd_wait_gather
	 * for the object's ports before. Without its own look into the rings: what stands first in
	 * one, or has been taken off it, is enough. What comes in, and any other change of the
	 * answer, is told with pd_pollable_mark; only what the answer to EPOLLOUT waits for has to
	 * be noted in the wait set.
	 */
	uint32_t (*glance)(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
			   struct pd_edge *edge);
	/*
	 * With `glance`: the ports that feed it, a bit each. When they change, pd_pollable_ring
	 * comes after.
	 */
	uint64_t (*feeds)(struct pd_pollable *p);
};

/*
 * Look what has come in by the ports of `ports`, a bit each, and mark the objects that it is for.
 * `all`: to the last frame; else where a first look finds something it may leave what is behind
 * that. `ws`, only with `all`: note what to wait for. Returns true when something was left. The
 * socket layer's.
 */
extern bool (*pd_wait_gather)(uint64_t ports, bool all, struct pd_wait_set *ws);

/*
 * Whom an object's exclusive members have told of what happened on it in one direction, by its edge
 * count: the next one that waits is told only if something came that nobody was told of.
 */
struct pd_turns {
	uint32_t edge; /* as it was last seen */
	uint32_t left; /* how many may yet be told of what came until then */
};

struct pd_pollable {
	const struct pd_pollable_ops *ops;
	struct pd_bell bell; /* rung when the answer may have changed and no lane tells */
	/* Epoll items on this object; changed under pd_epoll_links_lock and `lock` */
	struct pd_list links;
	struct pd_lock lock;                 /* rank PD_RANK_LINKS */
	uint32_t watched;                    /* how many items there are */
	struct pd_turns turns_in, turns_out; /* of items with EPOLLEXCLUSIVE; under `lock` */
	bool detached; /* it ended: nothing joins it any more; under the lock of the links */
	bool moved; /* its numbers are the kernel's by now; written under the lock of the links */
	/* How often an edge of the two was set; written under `lock`. Goes round, and who asks after
	 * that may be told too many. */
	uint16_t turns_moved;
	void *owner; /* what keeps the object alive (pd_wait_hold), or NULL */
};

void pd_pollable_init(struct pd_pollable *p, const struct pd_pollable_ops *ops);

/*
 * The answer of an object with `glance` may have changed: have the epolls that it stands in ask it.
 * After the change. Wakes nobody: for what a lane or bell tells of anyway. Data path; locks of
 * lanes may be held.
 */
void pd_pollable_mark(struct pd_pollable *p);

/* The same, and wake who waits for the object. */
void pd_pollable_ring(struct pd_pollable *p);

/* The object ends: take it out of every epoll and wake who waits on it. No lock held. */
void pd_pollable_detach(struct pd_pollable *p);

/*
 * The object's numbers are a kernel object's from now on: it becomes a member of the kernel's half
 * of each epoll that it stands in, with its interest. `number` gives the number to use for one that
 * it was added under, or -1. Who polls it gets -ESTALE and has to look its numbers up again;
 * pd_pollable_detach comes next. No lock held.
 */
void pd_pollable_move(struct pd_pollable *p, int (*number)(void *ctx, int fd), void *ctx);

/*
 * Around a fork: the links between epolls and objects are held still. In the child each object that
 * it knows is made anew, for threads of the parent's held its locks and slept on its bell; then
 * pd_epoll_after_fork in both.
 */
void pd_epoll_before_fork(void);
void pd_epoll_after_fork(void);
void pd_pollable_after_fork(struct pd_pollable *p);

/*
 * poll(2) over `n` entries; objects[i] is NULL where fds[i] belongs to the kernel. Returns the
 * number of entries with revents, 0 at the deadline, or -errno (-EINTR after a signal, -ESTALE when
 * an object was moved). `mask` as for pd_wait_sleep.
 */
int pd_poll(struct pollfd *fds, struct pd_pollable *const *objects, unsigned n,
	    uint64_t deadline_ns, const void *mask, bool *slept);

/*
 * An epoll that has, or had, offloaded members. Kernel members stay in the program's own epoll
 * descriptor. It is a pollable itself, so that epolls nest.
 */
struct pd_epoll {
	struct pd_pollable self;
	int epfd;             /* the program's; used for kernel members */
	struct pd_lock lock;  /* rank PD_RANK_EPOLL: items */
	struct pd_list items; /* those to ask, in harvest order: who was reported goes to the end */
	struct pd_epoll_item *marked; /* those to ask again: a stack, pushed to without a lock */
	uint64_t feeds;               /* the ports of all that need not be asked */
	uint32_t feed_count[64];      /* how many items each port feeds */
	uint32_t edges;               /* of all items, for an epoll around this one */
	struct pd_list members; /* the same items, as they came; under the lock of the links */
	unsigned n_items;
	uint32_t beacon;         /* odd while a beacon is lit: epfd says nothing (wait/beacon.h) */
	uint32_t kernel_members; /* at least as many as there are; 0 means none */
	uint32_t fork_epoch;     /* members were last prepared in this generation of the process */
	unsigned harvests;       /* since the kernel was last looked at */
	struct pd_spin spin;
};

/* Around the program's descriptor `epfd`. */
void pd_epoll_init(struct pd_epoll *ep, int epfd);

/* The epoll's last descriptor is closed: free the items. No lock held. */
void pd_epoll_destroy(struct pd_epoll *ep);

/*
 * EPOLL_CTL_ADD, MOD, DEL of an offloaded member, known by its descriptor number and object.
 * Returns 0, -EEXIST, -ENOENT, -EINVAL (itself; EPOLLEXCLUSIVE for an epoll, with MOD, before it or
 * beside other events than the kernel takes), -ELOOP (nesting in a circle or deeper than 5),
 * -ENOMEM, -ESTALE (the object was moved: its number is the kernel's).
 */
int pd_epoll_ctl(struct pd_epoll *ep, int op, int fd, struct pd_pollable *target,
		 const struct epoll_event *event);

/* True when the epoll has offloaded members, so that waiting must go through pd_epoll_wait. */
static inline bool pd_epoll_active(const struct pd_epoll *ep)
{
	return pd_load_relaxed(&ep->n_items) != 0;
}

/*
 * epoll_pwait2(2). Returns the number of events, 0 at the deadline, -EINTR, -EINVAL. *slept:
 * whether it had to sleep (as in pd_poll).
 *
 * EPOLLEXCLUSIVE: of the epolls that wait for an object, each thing that happens on it ends the
 * wait of one exclusive member's epoll, and of all others'. A call that finds it ready at the first
 * look is told in any case, as is one whose epoll was told of it before.
 */
int pd_epoll_wait(struct pd_epoll *ep, struct epoll_event *events, int max, uint64_t deadline_ns,
		  const void *mask, bool *slept);

#endif /* PD_WAIT_POLLABLE_H */
