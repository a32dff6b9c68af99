/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Process nodes (contract in process.h): each is a fiber with a timer and a short queue of events.
 *
 * Whoever wants a process to have a turn, because of an event or a request to end, or the process
 * itself because it yields, puts it into the list of those that are ready, and posts the one piece
 * of work that gives each of them a turn. Who becomes ready meanwhile has its turn in the next
 * round of the progress thread, so that processes never keep it from its descriptors and timers.
 *
 * Registered processes are made once and never freed, so that whoever found one may keep it; their
 * list only grows. Those made at run time are freed when both their maker and their function are
 * done with them.
 *
 * One lock guards what any thread touches: queues, one-time events, what is waited for, states, the
 * list of those that are ready and that of those made at run time. Everything else belongs to the
 * holder of pd_control.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vlib/fiber.h"
#include "vlib/load.h"
#include "vlib/process.h"
#include "vlib/progress.h"

struct pd_process_event {
	uintptr_t type, data;
};

enum pd_process_state {
	PD_PROCESS_IDLE,  /* a registered one: not started */
	PD_PROCESS_FRESH, /* its function has not been called yet */
	PD_PROCESS_ALIVE,
	PD_PROCESS_ENDED /* a registered one: until the progress thread is started anew */
};

/* What ends a wait, besides the request to end. */
enum {
	PD_PROCESS_WAITS_EVENT = 1 << 0,
	PD_PROCESS_WAITS_CLOCK = 1 << 1,
	PD_PROCESS_WAITS_ROUND = 1 << 2 /* the others have had their turn */
};

struct pd_process {
	char name[PD_PROCESS_NAME_MAX + 1];
	void (*fn)(struct pd_process *p);
	void *arg;
	size_t stack_bytes;
	const struct pd_node_registration *reg; /* NULL: made at run time */
	struct pd_process *next;                /* registered ones */
	struct pd_list made;                    /* those made at run time */
	struct pd_list ready;
	enum pd_process_state state;
	bool owned; /* made at run time: its maker has not released it */
	bool stop;  /* it is asked to end */
	bool stop_told;
	bool finishing; /* it has had its last turn */
	unsigned waits; /* 0 while it runs */
	bool clock;     /* the wait ran out, and the process was not told yet */
	uint64_t wait_ns;
	uint64_t turn_ns; /* when its turn began */
	uint64_t rest_ns; /* what it owes the others: pd_process_yield */
	struct pd_fiber fiber;
	struct pd_progress_timer timer;
	uint32_t head, tail; /* of the ring of events, without end */
	struct pd_process_event event[PD_PROCESS_EVENTS_MAX];
	uint32_t one_time;       /* those that may be signalled, as bits */
	uint32_t one_time_round; /* so that a type is not given out again soon */
	uintptr_t one_time_type[PD_PROCESS_ONE_TIME_MAX];
	uint64_t calls, suspends, events, clocks; /* as in struct pd_node_runtime */
	uint64_t lost;                            /* events that found the queue full */
	uint64_t data[PD_NODE_DATA_BYTES / sizeof(uint64_t)];
};

static struct pd_process *pd_processes; /* atomic: the registered ones, the newest first */
static struct pd_lock pd_process_lock = PD_LOCK_INIT(PD_RANK_LEAF);
static struct pd_list pd_process_made = PD_LIST_INIT(pd_process_made);
static struct pd_list pd_process_ready = PD_LIST_INIT(pd_process_ready);
static struct pd_process *pd_process_now; /* whose turn it is */

static void pd_process_on_work(struct pd_progress_work *work);
static struct pd_progress_work pd_process_work = {.fn = pd_process_on_work};

/* --- who is ready -------------------------------------------------------------------------- */

/* Whether it has been started and has not ended. Lock or pd_control held. */
static bool pd_process_is_running(const struct pd_process *p)
{
	return p->state == PD_PROCESS_FRESH || p->state == PD_PROCESS_ALIVE;
}

/* Whether the process is to have a turn without its clock. Lock held. */
static bool pd_process_wants_turn(const struct pd_process *p)
{
	if (p->state == PD_PROCESS_FRESH)
		return true;
	if (p->state != PD_PROCESS_ALIVE || !p->waits)
		return false;
	return p->waits & PD_PROCESS_WAITS_ROUND || (p->stop && !p->stop_told) ||
	       (p->waits & PD_PROCESS_WAITS_EVENT && p->head != p->tail);
}

/*
 * Enter `p` among those that are ready if it is. Lock held. True when pd_process_work is to be
 * posted, once the lock is not held any more.
 */
static bool pd_process_make_ready(struct pd_process *p)
{
	if (!pd_process_wants_turn(p) || !pd_list_empty(&p->ready))
		return false;
	pd_list_add_tail(&pd_process_ready, &p->ready);
	return true;
}

/* The same with no lock held. */
static void pd_process_rouse(struct pd_process *p)
{
	bool post;

	pd_lock(&pd_process_lock);
	post = pd_process_make_ready(p);
	pd_unlock(&pd_process_lock);
	if (post)
		pd_progress_post(&pd_process_work);
}

void pd_process_stop(struct pd_process *p)
{
	bool post;

	pd_lock(&pd_process_lock);
	p->stop = true;
	post = pd_process_make_ready(p);
	pd_unlock(&pd_process_lock);
	if (post)
		pd_progress_post(&pd_process_work);
}

/* --- events -------------------------------------------------------------------------------- */

/* Append an event. Lock held. Returns 0, -ESRCH or -ENOBUFS. */
static int pd_process_put(struct pd_process *p, uintptr_t type, uintptr_t data)
{
	if (!pd_process_is_running(p))
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
	bool post;
	int ret;

	pd_assert(type < PD_PROCESS_TYPES_END);
	pd_lock(&pd_process_lock);
	ret = pd_process_put(p, type, data);
	post = pd_process_make_ready(p);
	pd_unlock(&pd_process_lock);
	if (post)
		pd_progress_post(&pd_process_work);
	return ret;
}

/* The number of the one-time event that `type` stands for, or -1 when it is over. Lock held. */
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

	pd_lock(&pd_process_lock);
	for (unsigned slot = 0; slot < PD_PROCESS_ONE_TIME_MAX && !type; slot++) {
		if (p->one_time_type[slot])
			continue;
		type = PD_PROCESS_TYPES_END +
		       (uintptr_t)p->one_time_round++ * PD_PROCESS_ONE_TIME_MAX + slot;
		p->one_time_type[slot] = type;
		p->one_time |= 1u << slot;
	}
	pd_unlock(&pd_process_lock);
	return type;
}

int pd_process_signal_one_time(struct pd_process *p, uintptr_t type, uintptr_t data)
{
	int ret = -ENOENT, slot;
	bool post;

	pd_lock(&pd_process_lock);
	slot = pd_process_one_time_slot(p, type);
	if (slot >= 0 && p->one_time >> slot & 1) {
		ret = pd_process_put(p, type, data);
		if (!ret)
			p->one_time &= ~(1u << slot);
	}
	post = pd_process_make_ready(p);
	pd_unlock(&pd_process_lock);
	if (post)
		pd_progress_post(&pd_process_work);
	return ret;
}

/*
 * Take the events of `type` out of the queue: up to `n` to `data`, or all, into nowhere, when it is
 * NULL. Lock held. Returns how many.
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

/* The one-time event `type` is over: its number may be given out again. Lock held. */
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
	pd_lock(&pd_process_lock);
	pd_process_take(p, type, NULL, 0);
	pd_process_one_time_end(p, type);
	pd_unlock(&pd_process_lock);
}

unsigned pd_process_events(struct pd_process *p, uintptr_t *type, uintptr_t *data, unsigned n)
{
	unsigned taken = 0;

	pd_assert(n > 0 && p == pd_process_now);
	pd_lock(&pd_process_lock);
	if (p->head != p->tail) {
		*type = p->event[p->head % PD_PROCESS_EVENTS_MAX].type;
		taken = pd_process_take(p, *type, data, n);
		pd_process_one_time_end(p, *type);
		pd_node_add(&p->events, taken);
	} else if (p->stop) {
		*type = PD_PROCESS_STOP;
	} else {
		*type = p->clock ? PD_PROCESS_CLOCK : PD_PROCESS_NONE;
		p->clock = false;
	}
	pd_unlock(&pd_process_lock);
	return taken;
}

bool pd_process_is_stopped(struct pd_process *p)
{
	bool stop;

	pd_lock(&pd_process_lock);
	stop = p->stop;
	pd_unlock(&pd_process_lock);
	return stop;
}

void *pd_process_arg(struct pd_process *p)
{
	return p->arg;
}

void *pd_process_data(struct pd_process *p)
{
	return p->data;
}

/* --- waiting, in the process --------------------------------------------------------------- */

/* Wait for what `waits` says; `ns` belongs to WAITS_CLOCK. */
static void pd_process_wait(struct pd_process *p, unsigned waits, uint64_t ns)
{
	pd_assert(p == pd_process_now);
	pd_assert(pd_lock_is_the_only(&pd_control));
	p->clock = false;
	p->wait_ns = ns;
	pd_lock(&pd_process_lock);
	p->waits = waits;
	pd_unlock(&pd_process_lock);
	pd_fiber_suspend(&p->fiber);
}

void pd_process_suspend(struct pd_process *p, uint64_t ns)
{
	pd_process_wait(p, PD_PROCESS_WAITS_CLOCK, ns);
}

void pd_process_wait_for_event(struct pd_process *p)
{
	pd_process_wait(p, PD_PROCESS_WAITS_EVENT, 0);
}

void pd_process_wait_for_event_or_clock(struct pd_process *p, uint64_t ns)
{
	pd_process_wait(p, PD_PROCESS_WAITS_EVENT | PD_PROCESS_WAITS_CLOCK, ns);
}

void pd_process_yield(struct pd_process *p)
{
	uint64_t rest, worked = pd_clock_ns() - p->turn_ns;

	p->rest_ns += worked * pd_load() / PD_PROCESS_REST_LOAD;
	rest = pd_min(p->rest_ns, PD_PROCESS_REST_MAX_NS);
	if (rest < PD_PROCESS_REST_MIN_NS) {
		pd_process_wait(p, PD_PROCESS_WAITS_ROUND, 0);
		return;
	}
	p->rest_ns = 0;
	pd_process_wait(p, PD_PROCESS_WAITS_CLOCK, rest);
	p->clock = false; /* it waited for nothing */
}

/* --- turns --------------------------------------------------------------------------------- */

/* What the fiber of a process calls. */
static void pd_process_body(void *arg)
{
	struct pd_process *p = arg;

	p->fn(p);
}

/* Free a process made at run time; its stack is freed already. */
static void pd_process_free(struct pd_process *p)
{
	pd_lock(&pd_process_lock);
	pd_list_del(&p->made);
	pd_list_del(&p->ready);
	pd_unlock(&pd_process_lock);
	free(p);
}

/*
 * The process has ended, or its stack is freed as it is: nothing comes any more. One that nobody
 * owns is gone afterwards. pd_control held.
 */
static void pd_process_end(struct pd_process *p)
{
	pd_progress_timer_cancel(&p->timer);
	pd_fiber_free(&p->fiber);
	pd_lock(&pd_process_lock);
	pd_list_del(&p->ready);
	p->state = PD_PROCESS_ENDED;
	p->waits = 0;
	p->head = p->tail = p->one_time = 0;
	memset(p->one_time_type, 0, sizeof(p->one_time_type));
	pd_unlock(&pd_process_lock);
	if (!p->reg && !p->owned)
		pd_process_free(p);
}

/* Let the process go on until it waits again or ends; then it may be gone. pd_control held. */
static void pd_process_turn(struct pd_process *p)
{
	uint64_t start;
	bool alive;

	pd_assert(!pd_process_now);
	pd_progress_timer_cancel(&p->timer);
	pd_lock(&pd_process_lock);
	pd_list_del(&p->ready);
	p->stop_told = p->stop && p->state == PD_PROCESS_ALIVE; /* its first wait is to come */
	p->state = PD_PROCESS_ALIVE;
	p->waits = 0;
	pd_unlock(&pd_process_lock);
	p->turn_ns = pd_clock_ns();
	pd_node_add(&p->calls, 1);
	pd_process_now = p;
	start = pd_clock_cycles();
	alive = pd_fiber_resume(&p->fiber);
	pd_node_add(&p->clocks, pd_clock_cycles() - start);
	pd_process_now = NULL;
	if (!alive) {
		pd_debug("graph", "the process %s has ended; it used %zu of %zu bytes of stack",
			 p->name, pd_fiber_used(&p->fiber), p->fiber.stack_bytes);
		pd_process_end(p);
		return;
	}
	pd_node_add(&p->suspends, 1);
	if (p->waits & PD_PROCESS_WAITS_CLOCK)
		pd_progress_timer_set(&p->timer, p->wait_ns);
	pd_process_rouse(p); /* what came while it ran */
}

/* Each process that is ready has a turn; those that become so meanwhile, in the next round. */
static void pd_process_on_work(struct pd_progress_work *work)
{
	struct pd_list turns = PD_LIST_INIT(turns);
	struct pd_process *p;
	bool wants;

	(void)work;
	pd_lock(&pd_process_lock);
	while (!pd_list_empty(&pd_process_ready)) {
		struct pd_list *node = pd_process_ready.next;

		pd_list_del(node);
		pd_list_add_tail(&turns, node);
	}
	/* A turn may end other processes, which takes them out of the list. */
	while (!pd_list_empty(&turns)) {
		p = pd_list_entry(turns.next, struct pd_process, ready);
		pd_list_del(&p->ready);
		wants = pd_process_wants_turn(p);
		pd_unlock(&pd_process_lock);
		if (wants)
			pd_process_turn(p);
		pd_lock(&pd_process_lock);
	}
	pd_unlock(&pd_process_lock);
}

/* The wait is over. */
static void pd_process_on_timer(struct pd_progress_timer *timer)
{
	struct pd_process *p = pd_container_of(timer, struct pd_process, timer);

	p->clock = true;
	pd_process_turn(p);
}

/* --- beginning and ending ------------------------------------------------------------------ */

/* One more process, not started; NULL when there is no memory. */
static struct pd_process *pd_process_new(const char *name, void (*fn)(struct pd_process *p),
					 void *arg, size_t stack_bytes)
{
	struct pd_process *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->fn = fn;
	p->arg = arg;
	p->stack_bytes = stack_bytes;
	pd_list_init(&p->made);
	pd_list_init(&p->ready);
	pd_list_init(&p->timer.node);
	p->timer.fn = pd_process_on_timer;
	return p;
}

/* Give an idle process its stack and its first turn. pd_control held. Returns 0 or -errno. */
static int pd_process_begin(struct pd_process *p)
{
	int ret = pd_fiber_make(&p->fiber, p->name, p->stack_bytes, pd_process_body, p);

	if (ret)
		return ret;
	pd_lock(&pd_process_lock);
	p->state = PD_PROCESS_FRESH;
	pd_unlock(&pd_process_lock);
	pd_process_rouse(p);
	return 0;
}

struct pd_process *pd_process_create(const char *name, void (*fn)(struct pd_process *p), void *arg,
				     size_t stack_bytes)
{
	struct pd_process *p = pd_process_new(name, fn, arg, stack_bytes);

	if (!p)
		return NULL;
	p->owned = true;
	if (pd_process_begin(p)) {
		free(p);
		return NULL;
	}
	pd_lock(&pd_process_lock);
	pd_list_add_tail(&pd_process_made, &p->made);
	pd_unlock(&pd_process_lock);
	return p;
}

void pd_process_release(struct pd_process *p)
{
	pd_assert(p->owned);
	p->owned = false;
	if (p->state == PD_PROCESS_ENDED)
		pd_process_free(p);
}

bool pd_process_runs(const struct pd_process *p)
{
	return pd_process_is_running(p);
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
static struct pd_process *pd_process_register(const struct pd_node_registration *reg, int *err)
{
	struct pd_process *p;

	*err = -EEXIST;
	if (pd_process_find(reg->name)) {
		pd_err("graph", "two process nodes are called %s", reg->name);
		return NULL;
	}
	*err = -ENOMEM;
	p = pd_process_new(reg->name, reg->process, NULL, reg->stack_bytes);
	if (!p)
		return NULL;
	p->reg = reg;
	p->next = pd_processes;
	pd_store_release(&pd_processes, p); /* pairs with pd_process_find and pd_process_of */
	*err = 0;
	return p;
}

int pd_processes_start(void)
{
	int ret = 0, err = 0;

	for (const struct pd_node_registration *reg = pd_node_registrations; reg; reg = reg->next) {
		struct pd_process *p;

		if (reg->type != PD_NODE_PROCESS)
			continue;
		p = pd_process_of(reg);
		if (!p)
			p = pd_process_register(reg, &err);
		if (p && p->state == PD_PROCESS_IDLE) {
			err = pd_process_begin(p);
			if (err)
				pd_log_ratelimited(PD_LOG_ERROR, "graph",
						   "the process %s cannot be started: %s", p->name,
						   pd_strerror(err));
		}
		ret = err ? err : ret;
		err = 0;
	}
	return ret;
}

/* One that has had a turn, and not its last one. pd_control held. */
static struct pd_process *pd_process_unfinished(void)
{
	struct pd_process *p;

	for (p = pd_processes; p; p = p->next)
		if (p->state == PD_PROCESS_ALIVE && !p->finishing)
			return p;
	pd_list_for_each (p, &pd_process_made, made)
		if (p->state == PD_PROCESS_ALIVE && !p->finishing)
			return p;
	return NULL;
}

void pd_processes_finish(void)
{
	struct pd_process *p;

	while ((p = pd_process_unfinished())) {
		p->finishing = true;
		pd_process_stop(p);
		pd_process_turn(p);
	}
}

/* Make an ended process one that can be started. pd_control held. */
static void pd_process_reset(struct pd_process *p)
{
	pd_lock(&pd_process_lock);
	p->state = PD_PROCESS_IDLE;
	p->stop = false;
	pd_unlock(&pd_process_lock);
	p->finishing = p->clock = false;
	p->rest_ns = 0;
	memset(p->data, 0, sizeof(p->data));
	pd_store_relaxed(&p->calls, 0);
	pd_store_relaxed(&p->suspends, 0);
	pd_store_relaxed(&p->events, 0);
	pd_store_relaxed(&p->clocks, 0);
	pd_store_relaxed(&p->lost, 0);
}

void pd_processes_stop(void)
{
	struct pd_process *p, *tmp;

	pd_list_for_each_safe (p, tmp, &pd_process_made, made)
		if (pd_process_is_running(p))
			pd_process_end(p);
	for (p = pd_processes; p; p = p->next) {
		pd_process_end(p);
		pd_process_reset(p);
	}
}

void pd_processes_after_fork(void)
{
	struct pd_process *p;

	/*
	 * A thread of the parent's may have been about to make one ready. The other lists change
	 * under pd_control, too, which who forks has.
	 */
	pd_lock_init(&pd_process_lock, PD_RANK_LEAF);
	pd_list_init(&pd_process_ready);
	for (p = pd_processes; p; p = p->next)
		pd_list_init(&p->ready);
	pd_list_for_each (p, &pd_process_made, made)
		pd_list_init(&p->ready);
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

/* Show one process to `fn`. */
static void pd_process_show(struct pd_process *p,
			    void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg)
{
	static const char *const errors[] = {"event lost: too many wait"};
	uint64_t events = pd_load_relaxed(&p->events);
	struct pd_node_runtime row = {
		.engine = "",
		.node = p->name,
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

void pd_process_each(void (*fn)(const struct pd_node_runtime *row, void *arg), void *arg)
{
	struct pd_process *p;

	for (p = pd_load_acquire(&pd_processes); p; p = p->next)
		pd_process_show(p, fn, arg);
	pd_lock(&pd_process_lock);
	pd_list_for_each (p, &pd_process_made, made)
		pd_process_show(p, fn, arg);
	pd_unlock(&pd_process_lock);
}
