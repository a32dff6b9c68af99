/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Process nodes (contract in process.h): each is a timer and a piece of posted work of the progress
 * thread, with a short queue of events.
 *
 * Processes are made once and never freed, so that whoever found one may keep it; the list only
 * grows. A process's lock guards its queue and its one-time events. Everything else of it belongs
 * to the holder of pd_control.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vlib/process.h"
#include "vlib/progress.h"

struct pd_process_event {
	uintptr_t type, data;
};

struct pd_process {
	const struct pd_node_registration *reg;
	struct pd_process *next;
	struct pd_lock lock; /* rank PD_RANK_LEAF */
	bool running;        /* written under both locks */
	bool fresh;          /* it has not been called since its start */
	bool clock;          /* the wait ran out, and the process was not told yet */
	struct pd_progress_timer timer;
	struct pd_progress_work work;
	uint32_t head, tail; /* of the ring of events, without end */
	struct pd_process_event event[PD_PROCESS_EVENTS_MAX];
	uint32_t one_time;       /* those that may be signalled, as bits */
	uint32_t one_time_round; /* so that a type is not given out again soon */
	uintptr_t one_time_type[PD_PROCESS_ONE_TIME_MAX];
	uint64_t calls, suspends, events, clocks; /* as in struct pd_node_runtime */
	uint64_t lost;                            /* events that found the queue full */
	uint8_t data[PD_NODE_DATA_BYTES] PD_CACHE_ALIGNED;
};

static struct pd_process *pd_processes; /* atomic: the newest first */

/* --- events -------------------------------------------------------------------------------- */

/* Append an event. p->lock held. Returns 0, -ESRCH or -ENOBUFS. */
static int pd_process_put(struct pd_process *p, uintptr_t type, uintptr_t data)
{
	if (!p->running)
		return -ESRCH;
	if (p->tail - p->head == PD_PROCESS_EVENTS_MAX) {
		pd_node_add(&p->lost, 1);
		return -ENOBUFS;
	}
	p->event[p->tail++ % PD_PROCESS_EVENTS_MAX] =
		(struct pd_process_event){.type = type, .data = data};
	return 0;
}

int pd_process_signal(struct pd_process *p, uintptr_t type, uintptr_t data)
{
	int ret;

	pd_assert(type < PD_PROCESS_TYPES_END);
	pd_lock(&p->lock);
	ret = pd_process_put(p, type, data);
	pd_unlock(&p->lock);
	if (!ret)
		pd_progress_post(&p->work);
	return ret;
}

/* The number of the one-time event that `type` stands for, or -1 when it is over. p->lock held. */
static int pd_process_one_time_slot(const struct pd_process *p, uintptr_t type)
{
	unsigned slot = type % PD_PROCESS_ONE_TIME_MAX;

	if (type < PD_PROCESS_TYPES_END || p->one_time_type[slot] != type)
		return -1;
	return (int)slot;
}

uintptr_t pd_process_one_time(struct pd_process *p)
{
	uintptr_t type = 0;

	pd_lock(&p->lock);
	for (unsigned slot = 0; slot < PD_PROCESS_ONE_TIME_MAX && !type; slot++) {
		if (p->one_time_type[slot])
			continue;
		type = PD_PROCESS_TYPES_END +
		       (uintptr_t)p->one_time_round++ * PD_PROCESS_ONE_TIME_MAX + slot;
		p->one_time_type[slot] = type;
		p->one_time |= 1u << slot;
	}
	pd_unlock(&p->lock);
	return type;
}

int pd_process_signal_one_time(struct pd_process *p, uintptr_t type, uintptr_t data)
{
	int ret = -ENOENT, slot;

	pd_lock(&p->lock);
	slot = pd_process_one_time_slot(p, type);
	if (slot >= 0 && p->one_time >> slot & 1) {
		ret = pd_process_put(p, type, data);
		if (!ret)
			p->one_time &= ~(1u << slot);
	}
	pd_unlock(&p->lock);
	if (!ret)
		pd_progress_post(&p->work);
	return ret;
}

/*
 * Take the events of `type` out of the queue: up to `n` to `data`, or all, into nowhere, when it is
 * NULL. p->lock held. Returns how many.
 */
static unsigned pd_process_take(struct pd_process *p, uintptr_t type, uintptr_t *data, unsigned n)
{
	uint32_t keep = p->head, taken = 0;

	for (uint32_t i = p->head; i != p->tail; i++) {
		struct pd_process_event e = p->event[i % PD_PROCESS_EVENTS_MAX];

		if (e.type == type && (!data || taken < n)) {
			if (data)
				data[taken] = e.data;
			taken++;
		} else {
			p->event[keep++ % PD_PROCESS_EVENTS_MAX] = e;
		}
	}
	p->tail = keep;
	return taken;
}

/* The one-time event `type` is over: its number may be given out again. p->lock held. */
static void pd_process_one_time_end(struct pd_process *p, uintptr_t type)
{
	int slot = pd_process_one_time_slot(p, type);

	if (slot < 0)
		return;
	p->one_time_type[slot] = 0;
	p->one_time &= ~(1u << slot);
}

void pd_process_one_time_cancel(struct pd_process *p, uintptr_t type)
{
	pd_lock(&p->lock);
	pd_process_take(p, type, NULL, 0);
	pd_process_one_time_end(p, type);
	pd_unlock(&p->lock);
}

unsigned pd_process_events(struct pd_process *p, uintptr_t *type, uintptr_t *data, unsigned n)
{
	unsigned taken = 0;

	pd_assert(n > 0);
	pd_lock(&p->lock);
	if (p->head != p->tail) {
		*type = p->event[p->head % PD_PROCESS_EVENTS_MAX].type;
		taken = pd_process_take(p, *type, data, n);
		pd_process_one_time_end(p, *type);
		pd_node_add(&p->events, taken);
	} else {
		*type = p->clock ? PD_PROCESS_CLOCK : PD_PROCESS_NONE;
		p->clock = false;
	}
	pd_unlock(&p->lock);
	return taken;
}

/* True when events wait. */
static bool pd_process_has_events(struct pd_process *p)
{
	bool has;

	pd_lock(&p->lock);
	has = p->head != p->tail;
	pd_unlock(&p->lock);
	return has;
}

void *pd_process_data(struct pd_process *p)
{
	return p->data;
}

/* --- running ------------------------------------------------------------------------------- */

/*
 * Call the function of the process, and set the timer for what it wants to wait. pd_control held.
 */
static void pd_process_run(struct pd_process *p)
{
	uint64_t wait_ns, start = pd_clock_cycles();

	pd_progress_timer_cancel(&p->timer);
	p->fresh = false;
	pd_node_add(&p->calls, 1);
	wait_ns = p->reg->process(p);
	pd_node_add(&p->clocks, pd_clock_cycles() - start);
	pd_node_add(&p->suspends, 1);
	p->clock = false;
	if (wait_ns != PD_PROCESS_FOREVER)
		pd_progress_timer_set(&p->timer, wait_ns);
	if (pd_process_has_events(p))
		pd_progress_post(&p->work);
}

/* Events were signalled, or the process starts. */
static void pd_process_on_work(struct pd_progress_work *work)
{
	struct pd_process *p = pd_container_of(work, struct pd_process, work);

	if (p->running && (p->fresh || pd_process_has_events(p)))
		pd_process_run(p);
}

/* The wait is over. */
static void pd_process_on_timer(struct pd_progress_timer *timer)
{
	struct pd_process *p = pd_container_of(timer, struct pd_process, timer);

	p->clock = true;
	pd_process_run(p);
}

/* The process of a registration, or NULL. */
static struct pd_process *pd_process_of(const struct pd_node_registration *reg)
{
	struct pd_process *p = pd_load_acquire(&pd_processes);

	while (p && p->reg != reg)
		p = p->next;
	return p;
}

/* Make the process of `reg`. pd_control held. Returns it, or NULL with *err set. */
static struct pd_process *pd_process_make(const struct pd_node_registration *reg, int *err)
{
	struct pd_process *p;

	*err = -EEXIST;
	if (pd_process_find(reg->name)) {
		pd_err("graph", "two process nodes are called %s", reg->name);
		return NULL;
	}
	*err = -ENOMEM;
	p = aligned_alloc(PD_CACHE_LINE, sizeof(*p));
	if (!p)
		return NULL;
	memset(p, 0, sizeof(*p));
	p->reg = reg;
	pd_lock_init(&p->lock, PD_RANK_LEAF);
	pd_list_init(&p->timer.node);
	p->timer.fn = pd_process_on_timer;
	p->work.fn = pd_process_on_work;
	p->next = pd_processes;
	pd_store_release(&pd_processes, p); /* pairs with pd_process_find and pd_process_of */
	*err = 0;
	return p;
}

int pd_processes_start(void)
{
	int ret = 0, err;

	for (const struct pd_node_registration *reg = pd_node_registrations; reg; reg = reg->next) {
		struct pd_process *p;

		if (reg->type != PD_NODE_PROCESS)
			continue;
		p = pd_process_of(reg);
		if (!p)
			p = pd_process_make(reg, &err);
		if (!p) {
			ret = err;
			continue;
		}
		if (p->running)
			continue;
		pd_lock(&p->lock);
		p->running = p->fresh = true;
		pd_unlock(&p->lock);
		pd_progress_post(&p->work);
	}
	return ret;
}

void pd_processes_stop(void)
{
	for (struct pd_process *p = pd_processes; p; p = p->next) {
		pd_progress_timer_cancel(&p->timer);
		pd_lock(&p->lock);
		p->running = p->clock = false;
		p->head = p->tail = p->one_time = 0;
		memset(p->one_time_type, 0, sizeof(p->one_time_type));
		pd_unlock(&p->lock);
		memset(p->data, 0, sizeof(p->data));
		pd_store_relaxed(&p->calls, 0);
		pd_store_relaxed(&p->suspends, 0);
		pd_store_relaxed(&p->events, 0);
		pd_store_relaxed(&p->clocks, 0);
		pd_store_relaxed(&p->lost, 0);
	}
}

void pd_processes_after_fork(void)
{
	for (struct pd_process *p = pd_processes; p; p = p->next)
		pd_lock_init(&p->lock,
			     PD_RANK_LEAF); /* a thread of the parent's may have held it */
	pd_processes_stop();
}

/* --- looking ------------------------------------------------------------------------------- */

struct pd_process *pd_process_find(const char *name)
{
	struct pd_process *p = pd_load_acquire(&pd_processes);

	while (p && strcmp(p->reg->name, name))
		p = p->next;
	return p;
}

void pd_process_each(void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg)
{
	static const char *const errors[] = {"event lost: too many wait"};

	for (struct pd_process *p = pd_load_acquire(&pd_processes); p; p = p->next) {
		uint64_t events = pd_load_relaxed(&p->events);
		struct pd_node_runtime row = {
			.engine = "",
			.node = p->reg->name,
			.type = PD_NODE_PROCESS,
			.calls = pd_load_relaxed(&p->calls),
			.vectors = events,
			.suspends = pd_load_relaxed(&p->suspends),
			.clocks = pd_load_relaxed(&p->clocks),
			.clocked_vectors = events,
			.error_count = PD_ARRAY_SIZE(errors),
			.error_texts = errors,
			.errors = &p->lost,
		};

		fn(&row, arg);
	}
}
