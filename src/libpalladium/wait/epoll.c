/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll over offloaded objects.
 *
 * Items hold (descriptor number, object), as the kernel's do (number, file), so one object may
 * stand in an epoll several times under different numbers and in any number of epolls.
 *
 * Who is asked. ep->items are those that a harvest has to ask; an item may rest, outside of that
 * list, when it had nothing to report and whatever changes that marks it. Marking pushes it to
 * ep->marked, a stack that the next harvest empties into the list. What comes in by a ring marks
 * nobody by itself, since its peer runs none of our code: so a harvest first gathers, lane by lane,
 * for the ports of all its members: the work of a harvest grows with the lanes and with what is
 * ready, and not with the members. Items that cannot rest: those of objects without `glance`
 * (epolls among them), and those that wait for room to send.
 *
 * No mark is lost between asking and resting: a mark comes after the change, and the flag that it
 * sets is cleared before the asking, with read-modify-writes of one word. So either the asking sees
 * the change, or the mark finds the flag clear and pushes. A thread that is about to sleep has
 * noted the lanes before it asked, and the epoll's bell before that, which pd_pollable_ring rings
 * (tests/model/marks.pml).
 *
 * Level-triggered interest is asked anew at each harvest. Edge-triggered interest remembers the
 * edge counts last reported. ONESHOT disables the item until it is modified. Items take turns: what
 * was reported goes to the end of the list.
 *
 * Exclusive interest. All who sleep on a lane or bell look when it tells of something, and the
 * first whose exclusive item finds the object ready takes a turn and returns with it; the others
 * find no turn left and sleep on. Nobody is chosen before it looks: whoever ends its wait in the
 * same moment, by time, a signal, cancellation, or because a member or the epoll goes, has taken
 * nothing, and who has taken a turn does return with the event. So none is lost
 * (tests/model/exclusive.pml). There is a turn for each count that the object's edges moved since
 * turns were last given, but not for what came before the asking item last found nothing: that was
 * taken meanwhile. An edge count that merely differs gives one turn at least, since counts may
 * begin anew with a link: so one may be told too many then, but none too few. Whether a count is
 * another one because it is older, others having looked later and taken their turns sooner, is told
 * by how often turns were given meanwhile; who was overtaken looks again. Errors are for all.
 *
 * Locks: pd_epoll_links_lock (who is linked to whom) -> pd_control -> ep->lock (items) -> lanes ->
 * object->lock. Harvests of one epoll exclude each other, so two threads never get the same edge. A
 * nested epoll's lock is taken inside its parent's; circles are refused when they are made.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "wait/beacon.h"
#include "wait/pollable.h"

/* The kernel's own bound on epolls in epolls. */
#define PD_EPOLL_DEPTH_MAX 5
/* Bits of an interest that are not events. */
#define PD_EPOLL_FLAGS (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP)
/* What an exclusive interest may hold. */
#define PD_EPOLL_EXCLUSIVE_OK                                                          \
	((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | \
		    EPOLLEXCLUSIVE))

struct pd_epoll_item {
	struct pd_list in_epoll;   /* ep->items unless it rests, under ep->lock */
	struct pd_list in_members; /* ep->members, under pd_epoll_links_lock */
	struct pd_list in_object;  /* object->links, under pd_epoll_links_lock */
	struct pd_epoll *ep;
	struct pd_pollable *object;
	struct pd_epoll_item *next_marked; /* in ep->marked */
	uint32_t marked;                   /* it stands there */
	uint64_t feeds;                    /* its bits in ep->feed_count */
	uint32_t edges;                    /* what it has added to ep->edges last */
	int fd;
	bool rests;    /* not in ep->items */
	bool disabled; /* ONESHOT has fired */
	bool fresh;    /* added or modified: whatever is there counts as an edge */
	bool waited;   /* it has had nothing to report since it was added, last at `quiet` */
	struct epoll_event event;
	struct pd_edge reported;
	struct pd_edge quiet;
};

/* How a call looks for events. */
enum {
	PD_EPOLL_KERNEL = 1, /* at the kernel's members too, whether or not it is their turn */
	PD_EPOLL_WAITING = 2 /* not at its first look: what others were told of is theirs */
};

static struct pd_lock pd_epoll_links_lock = PD_LOCK_INIT(PD_RANK_EPOLL_LINKS);

static uint32_t pd_epoll_poll(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
			      struct pd_edge *edge);
static void pd_epoll_prepare(struct pd_pollable *p);

static const struct pd_pollable_ops pd_epoll_pollable_ops = {
	.prepare = pd_epoll_prepare,
	.poll = pd_epoll_poll,
};

/* Until the socket layer sets pd_wait_gather: nobody has lanes to gather from. */
static bool pd_wait_gather_nothing(uint64_t ports, bool all, struct pd_wait_set *ws)
{
	return false;
}

bool (*pd_wait_gather)(uint64_t ports, bool all, struct pd_wait_set *ws) = pd_wait_gather_nothing;

/* --- marks ------------------------------------------------------------------------------ */

/* Have the item asked at the next harvest. object->lock held, which keeps it from being freed. */
static void pd_epoll_item_mark(struct pd_epoll_item *item)
{
	struct pd_epoll *ep = item->ep;
	struct pd_epoll_item *top;

	if (pd_exchange(&item->marked, 1)) /* pairs with the one in pd_epoll_collect */
		return;
	top = pd_load_relaxed(&ep->marked);
	do {
		item->next_marked = top;
	} while (
		!pd_cas(&ep->marked, &top, item)); /* pairs with the exchange in pd_epoll_collect */
}

void pd_pollable_mark(struct pd_pollable *p)
{
	struct pd_epoll_item *item;

	/*
	 * An item that rests was linked before it was asked, under a lock that the change was made
	 * under since.
	 */
	if (pd_likely(!pd_load_relaxed(&p->watched)))
		return;
	pd_lock(&p->lock);
	pd_list_for_each (item, &p->links, in_object)
		pd_epoll_item_mark(item);
	pd_unlock(&p->lock);
}

void pd_pollable_ring(struct pd_pollable *p)
{
	struct pd_epoll_item *item;

	pd_lock(&p->lock);
	pd_list_for_each (item, &p->links, in_object) {
		pd_epoll_item_mark(item);
		pd_bell_ring(&item->ep->self.bell);
	}
	pd_unlock(&p->lock);
	pd_bell_ring(&p->bell);
}

/*
 * Move the items that were marked to those that are asked, in the order of their marks. ep->lock
 * held.
 */
static void pd_epoll_collect(struct pd_epoll *ep)
{
	struct pd_epoll_item *item, *next, *first = NULL;

	if (pd_likely(!pd_load_relaxed(&ep->marked)))
		return;
	for (item = pd_exchange(&ep->marked, NULL); item; item = next) {
		next = item->next_marked;
		item->next_marked = first;
		first = item;
	}
	for (item = first; item; item = next) {
		next = item->next_marked;
		pd_exchange(&item->marked, 0); /* from here on it may be pushed again */
		if (!item->rests)
			continue;
		item->rests = false;
		pd_list_add_tail(&ep->items, &item->in_epoll);
	}
}

/* The item is fed by `feeds` from now on. ep->lock held. */
static void pd_epoll_item_feed(struct pd_epoll_item *item, uint64_t feeds)
{
	struct pd_epoll *ep = item->ep;

	for (uint64_t gone = item->feeds & ~feeds; gone; gone &= gone - 1)
		if (!--ep->feed_count[__builtin_ctzll(gone)])
			ep->feeds &= ~(gone & -gone);
	for (uint64_t come = feeds & ~item->feeds; come; come &= come - 1)
		if (!ep->feed_count[__builtin_ctzll(come)]++)
			ep->feeds |= come & -come;
	item->feeds = feeds;
}

/* --- objects ---------------------------------------------------------------------------- */

void pd_pollable_init(struct pd_pollable *p, const struct pd_pollable_ops *ops)
{
	p->ops = ops;
	p->owner = NULL;
	p->detached = false;
	p->moved = false;
	pd_bell_init(&p->bell);
	pd_list_init(&p->links);
	pd_lock_init(&p->lock, PD_RANK_LINKS);
	p->watched = 0;
	p->turns_in = p->turns_out = (struct pd_turns){0, 0};
	p->turns_moved = 0;
}

/* Unlink an item from both sides and free it. pd_epoll_links_lock held. */
static void pd_epoll_item_remove(struct pd_epoll_item *item)
{
	struct pd_pollable *object = item->object;
	struct pd_epoll *ep = item->ep;

	pd_lock(&object->lock);
	pd_list_del(&item->in_object); /* nobody marks it from here on */
	pd_store_relaxed(&object->watched, object->watched - 1);
	pd_unlock(&object->lock);
	pd_lock(&ep->lock);
	pd_epoll_collect(ep); /* it may be marked */
	pd_epoll_item_feed(item, 0);
	pd_list_del(&item->in_epoll);
	pd_store_relaxed(&ep->n_items, ep->n_items - 1);
	pd_unlock(&ep->lock);
	pd_list_del(&item->in_members);
	free(item);
}

void pd_pollable_detach(struct pd_pollable *p)
{
	struct pd_epoll_item *item, *tmp;

	pd_lock(&pd_epoll_links_lock);
	p->detached = true;
	pd_list_for_each_safe (item, tmp, &p->links, in_object)
		pd_epoll_item_remove(item);
	pd_unlock(&pd_epoll_links_lock);
	pd_bell_ring(&p->bell);
}

/* Make an item a member of the kernel's under the number `fd`. pd_epoll_links_lock held. */
static void pd_epoll_item_move(struct pd_epoll_item *item, int fd)
{
	struct pd_epoll *ep = item->ep;
	struct epoll_event event;
	int ret;

	pd_lock(&ep->lock);
	event = item->event;
	if (item->disabled)
		event.events &= PD_EPOLL_FLAGS;
	pd_unlock(&ep->lock);
	pd_fetch_add(&ep->kernel_members, 1);
	ret = fd < 0 ? fd : pd_sys_epoll_ctl(ep->epfd, EPOLL_CTL_ADD, fd, &event);
	if (ret)
		pd_warn("epoll", "fd %d was lost to its epoll when it was bound: %s", item->fd,
			fd < 0 ? "the number was closed" : pd_strerror(ret));
}

void pd_pollable_move(struct pd_pollable *p, int (*number)(void *ctx, int fd), void *ctx)
{
	struct pd_epoll_item *item;

	pd_lock(&pd_epoll_links_lock);
	pd_list_for_each (item, &p->links, in_object)
		pd_epoll_item_move(item, number(ctx, item->fd));
	pd_store_release(&p->moved, true); /* pairs with the look in pd_poll_objects */
	pd_unlock(&pd_epoll_links_lock);
}

/* --- members ---------------------------------------------------------------------------- */

void pd_epoll_init(struct pd_epoll *ep, int epfd)
{
	pd_pollable_init(&ep->self, &pd_epoll_pollable_ops);
	pd_lock_init(&ep->lock, PD_RANK_EPOLL);
	pd_list_init(&ep->items);
	pd_list_init(&ep->members);
	ep->epfd = epfd;
	ep->n_items = 0;
	ep->marked = NULL;
	ep->feeds = 0;
	memset(ep->feed_count, 0, sizeof(ep->feed_count));
	ep->edges = 0;
	ep->beacon = 0;
	ep->kernel_members = 0;
	ep->harvests = 0;
	ep->spin.budget_ns = 0;
	ep->fork_epoch = pd_wait_fork_epoch;
}

void pd_epoll_destroy(struct pd_epoll *ep)
{
	struct pd_epoll_item *item, *tmp;

	pd_pollable_detach(&ep->self);
	pd_lock(&pd_epoll_links_lock);
	pd_list_for_each_safe (item, tmp, &ep->members, in_members)
		pd_epoll_item_remove(item);
	pd_unlock(&pd_epoll_links_lock);
}

/* How deep the epolls below `ep` go (1: no epoll inside); more than the limit when `self` is met.
 * Links lock held. */
static int pd_epoll_depth_below(struct pd_epoll *ep, const struct pd_epoll *self, int depth)
{
	struct pd_epoll_item *item;
	int deepest = depth;

	if (ep == self || depth > PD_EPOLL_DEPTH_MAX)
		return PD_EPOLL_DEPTH_MAX + 1;
	pd_list_for_each (item, &ep->members, in_members) {
		if (item->object->ops != &pd_epoll_pollable_ops)
			continue;
		deepest = pd_max(
			deepest,
			pd_epoll_depth_below(pd_container_of(item->object, struct pd_epoll, self),
					     self, depth + 1));
	}
	return deepest;
}

/* How many epolls stand above `ep`, itself counted. Links lock held. */
static int pd_epoll_depth_above(struct pd_epoll *ep, int depth)
{
	struct pd_epoll_item *item;
	int highest = depth;

	if (depth > PD_EPOLL_DEPTH_MAX)
		return depth;
	pd_list_for_each (item, &ep->self.links, in_object)
		highest = pd_max(highest, pd_epoll_depth_above(item->ep, depth + 1));
	return highest;
}

/* The item of (fd, object) or NULL. Links lock held. */
static struct pd_epoll_item *pd_epoll_find(struct pd_epoll *ep, int fd, struct pd_pollable *object)
{
	struct pd_epoll_item *item;

	pd_list_for_each (item, &object->links, in_object) {
		if (item->ep == ep && item->fd == fd)
			return item;
	}
	return NULL;
}

/* EPOLL_CTL_ADD; links lock held. */
static int pd_epoll_add(struct pd_epoll *ep, int fd, struct pd_pollable *target,
			const struct epoll_event *event)
{
	struct pd_epoll_item *item;

	/* Another thread closed one of the two since this call looked it up. */
	if (target->detached || ep->self.detached)
		return -EBADF;
	if (target->ops == &pd_epoll_pollable_ops) {
		struct pd_epoll *inner = pd_container_of(target, struct pd_epoll, self);

		if (pd_epoll_depth_below(inner, ep, 1) + pd_epoll_depth_above(ep, 1) >
		    PD_EPOLL_DEPTH_MAX)
			return -ELOOP;
	}
	item = calloc(1, sizeof(*item));
	if (!item)
		return -ENOMEM;
	item->ep = ep;
	item->object = target;
	item->fd = fd;
	item->event = *event;
	item->fresh = true;
	pd_lock(&target->lock);
	pd_list_add_tail(&target->links, &item->in_object);
	pd_store_relaxed(&target->watched, target->watched + 1);
	pd_unlock(&target->lock);
	pd_list_add_tail(&ep->members, &item->in_members);
	pd_lock(&ep->lock);
	pd_list_add_tail(&ep->items, &item->in_epoll);
	pd_store_relaxed(&ep->n_items, ep->n_items + 1);
	pd_unlock(&ep->lock);
	return 0;
}

/* EPOLL_CTL_MOD; links lock held. */
static int pd_epoll_mod(struct pd_epoll_item *item, const struct epoll_event *event)
{
	if (item->event.events & EPOLLEXCLUSIVE)
		return -EINVAL;
	pd_lock(&item->ep->lock);
	item->event = *event;
	item->disabled = false;
	item->fresh = true;
	if (item->rests)
		pd_list_add_tail(&item->ep->items, &item->in_epoll);
	item->rests = false;
	pd_unlock(&item->ep->lock);
	return 0;
}

/*
 * Whether `events` ask for EPOLLEXCLUSIVE where it is not to be had. As Linux: before anything is
 * said of the member.
 */
static bool pd_epoll_exclusive_misused(int op, uint32_t events, const struct pd_pollable *target)
{
	if (op == EPOLL_CTL_DEL || !(events & EPOLLEXCLUSIVE))
		return false;
	return op == EPOLL_CTL_MOD || events & ~PD_EPOLL_EXCLUSIVE_OK ||
	       target->ops == &pd_epoll_pollable_ops;
}

int pd_epoll_ctl(struct pd_epoll *ep, int op, int fd, struct pd_pollable *target,
		 const struct epoll_event *event)
{
	struct pd_epoll_item *item;
	int ret = 0;

	if (target == &ep->self ||
	    pd_epoll_exclusive_misused(op, event ? event->events : 0, target))
		return -EINVAL;
	if (op != EPOLL_CTL_DEL)
		target->ops->prepare(target); /* takes pd_control */
	pd_lock(&pd_epoll_links_lock);
	item = pd_epoll_find(ep, fd, target);
	switch (target->moved ? -1 : op) {
	case EPOLL_CTL_ADD:
		ret = item ? -EEXIST : pd_epoll_add(ep, fd, target, event);
		break;
	case EPOLL_CTL_MOD:
		ret = item ? pd_epoll_mod(item, event) : -ENOENT;
		break;
	case EPOLL_CTL_DEL:
		if (item)
			pd_epoll_item_remove(item);
		else
			ret = -ENOENT;
		break;
	default:
		ret = target->moved ? -ESTALE : -EINVAL;
	}
	pd_unlock(&pd_epoll_links_lock);
	/* Somebody may be waiting on the epoll while its members change. */
	if (!ret)
		pd_bell_ring(&ep->self.bell);
	return ret;
}

/* --- fork ---------------------------------------------------------------------------------- */

void pd_epoll_before_fork(void)
{
	pd_lock(&pd_epoll_links_lock);
}

void pd_epoll_after_fork(void)
{
	pd_unlock(&pd_epoll_links_lock);
}

void pd_pollable_after_fork(struct pd_pollable *p)
{
	struct pd_epoll_item *item;
	struct pd_epoll *ep;

	/* Who slept on it is in the parent. */
	pd_bell_init(&p->bell);
	pd_lock_init(&p->lock, PD_RANK_LINKS);
	if (p->ops != &pd_epoll_pollable_ops)
		return;
	ep = pd_container_of(p, struct pd_epoll, self);
	/*
	 * A thread of the parent's may have been in the middle of a harvest; the members were
	 * quiet.
	 */
	pd_lock_init(&ep->lock, PD_RANK_EPOLL);
	pd_list_init(&ep->items);
	ep->beacon += ep->beacon & 1; /* whom it calls is in the parent, which takes it out */
	ep->marked = NULL;
	ep->feeds = 0;
	memset(ep->feed_count, 0, sizeof(ep->feed_count));
	pd_list_for_each (item, &ep->members, in_members) {
		item->marked = 0;
		item->feeds = 0;
		item->rests = false;
		pd_list_add_tail(&ep->items, &item->in_epoll);
	}
}

/* --- harvest ---------------------------------------------------------------------------- */

/*
 * What an item has to report now; 0 for nothing. `edge` gets the counts that belong to the answer.
 * ep->lock held.
 */
static uint32_t pd_epoll_item_poll(struct pd_epoll_item *item, struct pd_wait_set *ws,
				   struct pd_edge *edge)
{
	uint32_t wanted = item->event.events & ~(uint32_t)PD_EPOLL_FLAGS, ready;
	const struct pd_pollable_ops *ops = item->object->ops;

	if (item->disabled)
		return 0;
	ready = (ops->glance ? ops->glance : ops->poll)(item->object, wanted, ws, edge);
	item->ep->edges += edge->in + edge->out - item->edges;
	item->edges = edge->in + edge->out;
	if (!ready || item->fresh || !(item->event.events & EPOLLET))
		return ready;
	if ((ready & ~(uint32_t)EPOLLOUT) && edge->in != item->reported.in)
		return ready;
	if ((ready & EPOLLOUT) && edge->out != item->reported.out)
		return ready;
	return 0;
}

/* Remember that an item was reported with these edge counts. ep->lock held. */
static void pd_epoll_item_reported(struct pd_epoll_item *item, const struct pd_edge *edge)
{
	item->reported = *edge;
	item->fresh = false;
	if (item->event.events & EPOLLONESHOT)
		item->disabled = true;
}

/*
 * True when `edge`, of a look that began at `moved`, may be older than what others have seen. The
 * object's lock is held.
 */
static bool pd_turns_overtook(const struct pd_pollable *object, const struct pd_turns *t,
			      uint32_t edge, uint16_t moved)
{
	return edge != t->edge && moved != object->turns_moved;
}

/*
 * Take a turn, at the edge count `edge`, for an item that found nothing at `quiet`; false when none
 * is left. The object's lock is held.
 */
static bool pd_turns_take(struct pd_pollable *object, struct pd_turns *t, uint32_t edge,
			  uint32_t quiet)
{
	if (edge != t->edge) {
		uint32_t came = edge - t->edge + t->left;

		t->left = pd_max(pd_min(came, edge - quiet), 1u);
		t->edge = edge;
		/* Pairs with the acquire in pd_epoll_item_ask: who reads this number sees no older
		 * edge than we did. */
		pd_store_release(&object->turns_moved, (uint16_t)(object->turns_moved + 1));
	}
	if (!t->left)
		return false;
	t->left--;
	return true;
}

enum pd_epoll_turn {
	PD_EPOLL_REPORTS,
	PD_EPOLL_KEEPS_QUIET,
	PD_EPOLL_LOOKS_AGAIN,
};

/*
 * Whether an exclusive item that is ready is to report it; a turn is taken in any case, unless it
 * has to look again. `moved`: as it was before it looked; `waiting`: the call had nothing to report
 * when it came. ep->lock held.
 */
static enum pd_epoll_turn pd_epoll_item_turn(struct pd_epoll_item *item, uint32_t ready,
					     const struct pd_edge *edge, uint16_t moved,
					     bool waiting)
{
	struct pd_pollable *object = item->object;
	bool in = ready & EPOLLIN, out = ready & EPOLLOUT, turn = false, old;

	if (ready & (EPOLLERR | EPOLLHUP))
		return PD_EPOLL_REPORTS;
	pd_lock(&object->lock);
	old = (in && pd_turns_overtook(object, &object->turns_in, edge->in, moved)) ||
	      (out && pd_turns_overtook(object, &object->turns_out, edge->out, moved));
	if (in && !old)
		turn |= pd_turns_take(object, &object->turns_in, edge->in, item->quiet.in);
	if (out && !old)
		turn |= pd_turns_take(object, &object->turns_out, edge->out, item->quiet.out);
	pd_unlock(&object->lock);
	if (old)
		return PD_EPOLL_LOOKS_AGAIN;
	if (turn || !waiting || !item->waited)
		return PD_EPOLL_REPORTS;
	/*
	 * This epoll's threads are told like those of any epoll, one after the other, once one of
	 * them was.
	 */
	return !item->fresh && item->reported.in == edge->in && item->reported.out == edge->out
		       ? PD_EPOLL_REPORTS
		       : PD_EPOLL_KEEPS_QUIET;
}

/*
 * What an item has to report, as pd_epoll_item_poll says; *turn tells whether it is to. ep->lock
 * held.
 */
static uint32_t pd_epoll_item_ask(struct pd_epoll_item *item, struct pd_wait_set *ws,
				  struct pd_edge *edge, bool waiting, enum pd_epoll_turn *turn)
{
	bool exclusive = item->event.events & EPOLLEXCLUSIVE;
	uint16_t moved = 0;
	uint32_t ready;

	*turn = PD_EPOLL_REPORTS;
	do {
		if (exclusive)
			moved = pd_load_acquire(&item->object->turns_moved);
		*edge = (struct pd_edge){0, 0};
		ready = pd_epoll_item_poll(item, ws, edge);
		if (exclusive && ready)
			*turn = pd_epoll_item_turn(item, ready, edge, moved, waiting);
	} while (ready && *turn == PD_EPOLL_LOOKS_AGAIN);
	return ready;
}

/* Let an item that has nothing to report rest, if whatever changes that marks it. ep->lock held. */
static void pd_epoll_item_rest(struct pd_epoll_item *item)
{
	const struct pd_pollable_ops *ops = item->object->ops;

	if (!ops->glance || (!item->disabled && item->event.events & (EPOLLOUT | EPOLLWRNORM)))
		return;
	pd_list_del(&item->in_epoll);
	item->rests = true;
}

/*
 * Have what came in marked, and collect the marks. `all` and `ws` as in pd_wait_gather, whose
 * result is returned. ep->lock held.
 */
static bool pd_epoll_gather(struct pd_epoll *ep, bool all, struct pd_wait_set *ws)
{
	struct pd_epoll_item *item;
	bool left = false;

	/* A member that is new or was bound anew has been marked, or was never at rest. */
	pd_epoll_collect(ep);
	pd_list_for_each (item, &ep->items, in_epoll) {
		uint64_t feeds =
			item->object->ops->feeds ? item->object->ops->feeds(item->object) : 0;

		if (pd_unlikely(feeds != item->feeds))
			pd_epoll_item_feed(item, feeds);
	}
	if (ep->feeds)
		left = pd_wait_gather(ep->feeds, all, ws);
	pd_epoll_collect(ep);
	return left;
}

/* Ask the items; up to `max` events. `how`: PD_EPOLL_... ep->lock held. */
static int pd_epoll_ask(struct pd_epoll *ep, struct epoll_event *events, int max,
			struct pd_wait_set *ws, unsigned how)
{
	struct pd_epoll_item *item, *tmp;
	struct pd_list done;
	int n = 0;

	pd_list_init(&done);
	pd_list_for_each_safe (item, tmp, &ep->items, in_epoll) {
		enum pd_epoll_turn turn;
		struct pd_edge edge;
		uint32_t ready = pd_epoll_item_ask(item, ws, &edge, how & PD_EPOLL_WAITING, &turn);

		if (!ready) {
			item->waited = true;
			item->quiet = edge;
			pd_epoll_item_rest(item);
			continue;
		}
		/*
		 * Others were told; it stays with those that are asked, for a call that comes may
		 * be told too.
		 */
		if (turn == PD_EPOLL_KEEPS_QUIET)
			continue;
		pd_epoll_item_reported(item, &edge);
		events[n].events = ready;
		events[n].data = item->event.data;
		pd_list_del(&item->in_epoll);
		pd_list_add_tail(&done, &item->in_epoll);
		if (++n == max)
			break;
	}
	pd_list_for_each_safe (item, tmp, &done, in_epoll) {
		pd_list_del(&item->in_epoll);
		pd_list_add_tail(&ep->items, &item->in_epoll);
	}
	return n;
}

/*
 * Collect up to `max` events of offloaded members; with none `ws` gets what to wait for. What lies
 * behind the head of a ring is only looked at when nothing else is there: that copies it, and who
 * is told of the head takes it from there. `how`: PD_EPOLL_...
 */
static int pd_epoll_harvest(struct pd_epoll *ep, struct epoll_event *events, int max,
			    struct pd_wait_set *ws, unsigned how)
{
	bool left;
	int n;

	pd_lock_nested(&ep->lock);
	left = pd_epoll_gather(ep, false, NULL);
	n = pd_epoll_ask(ep, events, max, NULL, how);
	if (!n && (left || ws)) {
		pd_epoll_gather(ep, true, ws);
		n = pd_epoll_ask(ep, events, max, ws, how);
	}
	pd_unlock(&ep->lock);
	return n;
}

/* Have every member prepare; members of members too. Links lock held. */
static void pd_epoll_prepare_members(struct pd_epoll *ep)
{
	struct pd_epoll_item *item;

	pd_list_for_each (item, &ep->members, in_members) {
		if (item->object->ops == &pd_epoll_pollable_ops)
			pd_epoll_prepare_members(
				pd_container_of(item->object, struct pd_epoll, self));
		else
			item->object->ops->prepare(item->object);
	}
	ep->fork_epoch = pd_wait_fork_epoch;
}

/* After a fork the members have to be claimed again, by whoever uses them first. */
static void pd_epoll_prepare(struct pd_pollable *p)
{
	struct pd_epoll *ep = pd_container_of(p, struct pd_epoll, self);

	if (pd_likely(ep->fork_epoch == pd_load_relaxed(&pd_wait_fork_epoch)))
		return;
	pd_lock(&pd_epoll_links_lock);
	pd_epoll_prepare_members(ep);
	pd_unlock(&pd_epoll_links_lock);
}

/* poll, for an epoll inside another, or in poll and select: readable when any member has something
 * to report. */
static uint32_t pd_epoll_poll(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
			      struct pd_edge *edge)
{
	struct pd_epoll *ep = pd_container_of(p, struct pd_epoll, self);
	uint32_t seq = pd_bell_seq(&p->bell), beacon = pd_load_acquire(&ep->beacon);
	bool ready = false, kernel_tells = !pd_beacon_lit(beacon);
	struct pd_epoll_item *item, *tmp;

	pd_lock_nested(&ep->lock);
	pd_epoll_gather(ep, true, ws);
	pd_list_for_each_safe (item, tmp, &ep->items, in_epoll) {
		struct pd_edge inner = {0, 0};

		if (pd_epoll_item_poll(item, ws, &inner))
			ready = true;
		else
			pd_epoll_item_rest(item);
	}
	edge->in += ep->edges;
	pd_unlock(&ep->lock);
	if (ws) {
		pd_wait_add_bell(ws, &p->bell, seq, p->owner);
		if (kernel_tells)
			pd_wait_add_fd(ws, ep->epfd);
	}
	if (!ready && kernel_tells && pd_load_relaxed(&ep->kernel_members) &&
	    pd_internal_fd_ready(ep->epfd, POLLIN) > 0 && pd_load_acquire(&ep->beacon) == beacon) {
		ready = true;
		edge->in++; /* the kernel keeps its own edges: any readiness counts anew */
	}
	return ready ? events & (EPOLLIN | EPOLLRDNORM) : 0;
}

/* --- waiting ---------------------------------------------------------------------------- */

/* Look at the kernel's members: up to `max` events, without waiting. */
static int pd_epoll_kernel(struct pd_epoll *ep, struct epoll_event *events, int max)
{
	int n = pd_sys_epoll_pwait(ep->epfd, events, max, 0, NULL);

	pd_store_relaxed(&ep->harvests, 0); /* threads share the count; its order matters to none */
	return n == -EINTR ? 0 : pd_beacon_filter(events, n);
}

/*
 * One round: offloaded members, and the kernel's when it is their turn. `how`: PD_EPOLL_... Returns
 * events found or -errno.
 */
static int pd_epoll_round(struct pd_epoll *ep, struct epoll_event *events, int max,
			  struct pd_wait_set *ws, unsigned how)
{
	uint32_t seq = pd_bell_seq(&ep->self.bell);
	int n = pd_epoll_harvest(ep, events, max, ws, how), k;

	if (ws)
		pd_wait_add_bell(ws, &ep->self.bell, seq, NULL);
	if (!pd_load_relaxed(&ep->kernel_members) || n == max)
		return n;
	if (n ? pd_fetch_add(&ep->harvests, 1) + 1 < pd_wait_tuning.kernel_skips
	      : !(how & PD_EPOLL_KERNEL))
		return n;
	k = pd_epoll_kernel(ep, events + n, max - n);
	if (k < 0)
		return n ? n : k;
	return n + k;
}

/* Ask and sleep until there are events. Returns them, 0 at the deadline, or -errno. */
static int pd_epoll_sleep(struct pd_epoll *ep, struct epoll_event *events, int max,
			  uint64_t deadline_ns, const void *mask)
{
	struct pd_wait_set *ws = pd_wait_begin();
	int n;

	if (ep->self.owner)
		pd_wait_on_cancel(ws, pd_wait_drop, ep->self.owner);
	for (;;) {
		n = pd_epoll_round(ep, events, max, ws, PD_EPOLL_KERNEL | PD_EPOLL_WAITING);
		if (n || (deadline_ns != PD_WAIT_FOREVER && pd_clock_ns() >= deadline_ns))
			break;
		n = pd_wait_kernel_fds(ws, 1);
		if (n < 0)
			break;
		/* A beacon that goes out rings, and that was noted before this look. */
		ws->fds[0] = (struct pollfd){
			.fd = pd_beacon_lit(pd_load_acquire(&ep->beacon)) ? -1 : ep->epfd,
			.events = POLLIN};
		n = pd_wait_sleep(ws, deadline_ns, mask);
		if (n < 0)
			break;
		if (pd_unlikely(ws->recheck)) {
			pd_lock(&pd_epoll_links_lock);
			pd_epoll_prepare_members(ep);
			pd_unlock(&pd_epoll_links_lock);
		}
		pd_wait_reset(ws);
	}
	pd_wait_end(ws);
	return n;
}

int pd_epoll_wait(struct pd_epoll *ep, struct epoll_event *events, int max, uint64_t deadline_ns,
		  const void *mask, bool *slept)
{
	struct pd_spin_loop spin = {.spin = &ep->spin};
	int n;

	*slept = false;
	pd_epoll_prepare(&ep->self);
	n = pd_epoll_round(ep, events, max, NULL, PD_EPOLL_KERNEL);
	if (n || deadline_ns == PD_WAIT_NOT)
		return n;
	while (!n && pd_spin_more(&spin, pd_wait_tuning.spin_us, deadline_ns))
		n = pd_epoll_round(ep, events, max, NULL,
				   PD_EPOLL_WAITING |
					   (pd_spin_kernel_turn(&spin) ? PD_EPOLL_KERNEL : 0));
	pd_spin_end(&ep->spin, n > 0);
	if (n)
		return n;
	*slept = true;
	return pd_epoll_sleep(ep, events, max, deadline_ns, mask);
}
