/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lane without a transport, and objects over it, for the tests of wait/.
 *
 * The lane's peer is whoever calls stub_publish: it notifies as the event index has it, only when
 * the armed position lies in what it has just published.
 */
#ifndef PD_TEST_WAIT_STUB_H
#define PD_TEST_WAIT_STUB_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "wait/pollable.h"

#define must(cond)                                                                   \
	do {                                                                         \
		if (!(cond)) {                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);   \
			_exit(1); /* not abort: cmocka would catch it in a thread */ \
		}                                                                    \
	} while (0)

struct stub_lane {
	struct pd_lane lane; /* first */
	uint32_t published;  /* the peer's index */
	uint32_t event;      /* position to notify at */
	uint32_t armed;
	uint32_t arms; /* how often somebody went to sleep, or told others */
	uint32_t held; /* of these, how often for several positions */
	int event_fd;
};

static uint32_t stub_position(struct pd_lane *lane, enum pd_dir dir)
{
	return pd_load_acquire(&((struct stub_lane *)lane)->published);
}

static bool stub_arm(struct pd_lane *lane, enum pd_dir dir, uint32_t seen, uint32_t hold)
{
	struct stub_lane *s = (struct stub_lane *)lane;

	s->arms++;
	s->held += hold > 1;
	pd_store_relaxed(&s->event, seen + hold - 1);
	pd_store_relaxed(&s->armed, 1);
	pd_fence_full(); /* pairs with the one in stub_publish */
	return pd_load_acquire(&s->published) != seen;
}

static void stub_disarm(struct pd_lane *lane, enum pd_dir dir)
{
	pd_store_relaxed(&((struct stub_lane *)lane)->armed, 0);
}

static void stub_drain(struct pd_lane *lane, enum pd_dir dir)
{
	uint64_t v;

	if (read(((struct stub_lane *)lane)->event_fd, &v, sizeof(v)) < 0)
		return; /* somebody else has: it is non-blocking */
}

static const struct pd_lane_ops stub_lane_ops = {
	.position = stub_position,
	.arm = stub_arm,
	.disarm = stub_disarm,
	.drain = stub_drain,
};

static inline void stub_lane_init(struct stub_lane *s)
{
	struct pd_ctr_block *const none[PD_DIRS] = {NULL, NULL};
	struct pd_lane_side *side = &s->lane.side[PD_RX];

	s->published = s->event = s->armed = s->arms = s->held = 0;
	pd_lane_init(&s->lane, &stub_lane_ops, 0, 0, none);
	s->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(s->event_fd >= 0);
	pd_lock(&side->lock);
	pd_lane_set_link(&s->lane, PD_RX, true, s->event_fd, 0);
	pd_unlock(&side->lock);
}

/*
 * Publish `n` positions; then look whether anybody wants to know. `dawdle`: let others run in
 * between.
 */
static inline void stub_publish(struct stub_lane *s, uint32_t n, bool dawdle)
{
	static const uint64_t one = 1;
	uint32_t old = s->published, now = old + n;

	pd_store_release(&s->published, now);
	pd_fence_full(); /* pairs with the one in stub_arm */
	for (int i = 0; dawdle && i < 20; i++)
		sched_yield();
	if (pd_load_relaxed(&s->armed) && now - pd_load_relaxed(&s->event) - 1 < now - old)
		must(write(s->event_fd, &one, sizeof(one)) == sizeof(one));
}

/* Take `n` frames. */
static inline void stub_consume(struct stub_lane *s, uint32_t n)
{
	struct pd_lane_side *side = &s->lane.side[PD_RX];

	pd_lock(&side->lock);
	side->cursor += n;
	pd_unlock(&side->lock);
}

/*
 * An object over a lane. `keeps`: ready as soon as anything was ever published, as if nobody took
 * it. `flags`: events that hold besides. Without a lane, `count` is what a bell tells of.
 */
struct stub_object {
	struct pd_pollable pollable; /* first */
	struct stub_lane *lane;
	bool keeps;
	uint32_t flags;
	uint32_t count;
	uint32_t dawdle; /* how often others get to run between the answer and the sleep */
};

static uint32_t stub_object_poll(struct pd_pollable *p, uint32_t events, struct pd_wait_set *ws,
				 struct pd_edge *edge)
{
	struct stub_object *o = (struct stub_object *)p;
	uint32_t seq = pd_bell_seq(&p->bell), ready = 0;

	if (o->lane) {
		struct pd_lane_side *side = &o->lane->lane.side[PD_RX];
		uint32_t now;

		pd_lock(&side->lock);
		now = side->up ? stub_position(&o->lane->lane, PD_RX) : side->cursor;
		if (side->up && now != (o->keeps ? 0 : side->cursor))
			ready |= EPOLLIN;
		edge->in = now;
		if (ws)
			pd_wait_add_lane(ws, &o->lane->lane, PD_RX, now);
		pd_unlock(&side->lock);
	} else {
		edge->in = pd_load_acquire(&o->count);
		ready |= edge->in ? EPOLLIN : 0;
	}
	ready |= pd_load_relaxed(&o->flags);
	if (ws)
		pd_wait_add_bell(ws, &p->bell, seq, p->owner);
	for (uint32_t i = ws ? o->dawdle : 0; i; i--)
		sched_yield();
	return ready & (events | EPOLLERR | EPOLLHUP);
}

static void stub_object_prepare(struct pd_pollable *p)
{
}

static const struct pd_pollable_ops stub_object_ops = {
	.prepare = stub_object_prepare,
	.poll = stub_object_poll,
};

static inline void stub_object_init(struct stub_object *o, struct stub_lane *lane, bool keeps)
{
	pd_pollable_init(&o->pollable, &stub_object_ops);
	o->lane = lane;
	o->keeps = keeps;
	o->flags = 0;
	o->count = 0;
	o->dawdle = 0;
}

#endif /* PD_TEST_WAIT_STUB_H */
