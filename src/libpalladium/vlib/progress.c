/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The progress thread (contract in progress.h).
 *
 * The thread sleeps in one epoll that holds the entries and a wake eventfd. It sleeps without
 * pd_control and runs callbacks with it, so an entry may be deleted between the kernel's answer and
 * its callback. Events therefore carry a slot number and a generation, never a pointer: what was
 * deleted in between is recognised and skipped.
 *
 * Timers stand in a wheel (timer_wheel.h), which knows the earliest deadline to the nanosecond: the
 * thread sleeps until then, or without an end, and never wakes for the sake of the wheel.
 *
 * Posted work is a lock-free stack that one consumer takes whole and reverses. A poster that finds
 * the stack empty writes the eventfd; since the thread looks at the stack before it sleeps and the
 * eventfd stays readable until read, no post is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/quiet.h"
#include "base/sys.h"
#include "base/thread.h"
#include "counters/counters.h"
#include "vlib/process.h"
#include "vlib/progress.h"

#define PD_PROGRESS_EVENTS 16
#define PD_PROGRESS_STACK_BYTES (256u << 10)
/* The slot of the wake eventfd. */
#define PD_PROGRESS_WAKE UINT32_MAX

struct pd_progress_slot {
	struct pd_progress_fd *entry; /* NULL: free */
	uint32_t generation;
};

struct pd_lock pd_control = PD_LOCK_INIT(PD_RANK_CONTROL);

/* Guarded by pd_control, but for what is said to be atomic. */
static struct {
	int epoll_fd; /* -1 until the first use */
	int wake_fd;  /* atomic */
	bool running;
	bool manual;
	uint32_t stopping; /* atomic */
	pthread_t thread;
	struct pd_progress_slot *slots;
	uint32_t slot_count;
	uint64_t sleeps_until_ns; /* what the sleeper will wake for by itself; 0 while it runs */
	char affinity[256];
	char cpuset[512];
} pd_progress = {
	.epoll_fd = -1,
	.wake_fd = -1,
};

static struct pd_timer_wheel pd_progress_timers;    /* guarded by pd_control */
static struct pd_progress_work *pd_progress_posted; /* atomic: the stack of posted work */
static __thread bool pd_progress_self;

bool pd_progress_is_self(void)
{
	return pd_progress_self;
}

bool pd_progress_is_running(void)
{
	return pd_load_acquire(&pd_progress.running);
}

/* Make whoever sleeps in the epoll look around. Any thread. */
static void pd_progress_wake(void)
{
	static const uint64_t one = 1;
	int fd = pd_load_acquire(&pd_progress.wake_fd);

	if (fd >= 0)
		pd_sys_write(fd, &one, sizeof(one));
}

/* The epoll event of the wake eventfd. */
static struct epoll_event pd_progress_wake_event(void)
{
	return (struct epoll_event){.events = EPOLLIN,
				    .data.u64 = (uint64_t)PD_PROGRESS_WAKE << 32};
}

/* Make the epoll and its wake eventfd, once. pd_control held. Returns 0 or -errno. */
static int pd_progress_setup(void)
{
	struct epoll_event ev = pd_progress_wake_event();
	int ep, wake, ret;

	if (pd_progress.epoll_fd >= 0)
		return 0;
	ep = pd_internal_fd(pd_sys_epoll_create(EPOLL_CLOEXEC));
	if (ep < 0)
		return ep;
	wake = pd_internal_fd(pd_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (wake < 0) {
		ret = wake;
		goto err_ep;
	}
	ret = pd_sys_epoll_ctl(ep, EPOLL_CTL_ADD, wake, &ev);
	if (ret < 0)
		goto err_wake;
	pd_progress.epoll_fd = ep;
	pd_store_release(&pd_progress.wake_fd, wake);
	/* Work posted before now found no eventfd: the first round looks at the stack before it
	 * sleeps. Pairs with the fence in pd_progress_post. */
	pd_fence_full();
	return 0;

err_wake:
	pd_sys_close(wake);
err_ep:
	pd_sys_close(ep);
	return ret;
}

/* --- entries ------------------------------------------------------------------------------- */

/* The epoll event of an entry. */
static struct epoll_event pd_progress_event(const struct pd_progress_fd *entry)
{
	struct epoll_event ev = {.events = entry->events};

	ev.data.u64 = (uint64_t)entry->slot << 32 | pd_progress.slots[entry->slot].generation;
	return ev;
}

/* Find or make a free slot. pd_control held. Returns its number or -ENOMEM. */
static int pd_progress_slot_get(void)
{
	uint32_t n = pd_progress.slot_count, more = n ? 2 * n : 16;
	struct pd_progress_slot *slots;

	for (uint32_t i = 0; i < n; i++)
		if (!pd_progress.slots[i].entry)
			return (int)i;
	slots = realloc(pd_progress.slots, more * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memset(slots + n, 0, (more - n) * sizeof(*slots));
	pd_progress.slots = slots;
	pd_progress.slot_count = more;
	return (int)n;
}

int pd_progress_add(struct pd_progress_fd *entry)
{
	struct epoll_event ev;
	int ret;

	pd_assert(!entry->active);
	ret = pd_progress_setup();
	if (ret < 0)
		return ret;
	ret = pd_progress_slot_get();
	if (ret < 0)
		return ret;
	entry->slot = (uint32_t)ret;
	pd_progress.slots[entry->slot].generation++;
	ev = pd_progress_event(entry);
	ret = pd_sys_epoll_ctl(pd_progress.epoll_fd, EPOLL_CTL_ADD, entry->fd, &ev);
	if (ret < 0)
		return ret;
	pd_progress.slots[entry->slot].entry = entry;
	entry->active = true;
	return 0;
}

int pd_progress_mod(struct pd_progress_fd *entry, uint32_t events)
{
	struct epoll_event ev;

	if (!entry->active)
		return -ENOENT;
	entry->events = events;
	ev = pd_progress_event(entry);
	return pd_sys_epoll_ctl(pd_progress.epoll_fd, EPOLL_CTL_MOD, entry->fd, &ev);
}

void pd_progress_del(struct pd_progress_fd *entry)
{
	if (!entry->active)
		return;
	entry->active = false;
	pd_progress.slots[entry->slot].entry = NULL;
	pd_sys_epoll_ctl(pd_progress.epoll_fd, EPOLL_CTL_DEL, entry->fd, NULL);
}

/* The epoll event of the descriptor `name`, if it stands in the epoll. pd_control held. */
static bool pd_progress_event_of(int name, struct epoll_event *ev)
{
	if (name == pd_progress.wake_fd) {
		*ev = pd_progress_wake_event();
		return true;
	}
	for (uint32_t i = 0; i < pd_progress.slot_count; i++) {
		struct pd_progress_fd *entry = pd_progress.slots[i].entry;

		if (!entry || entry->fd != name)
			continue;
		*ev = pd_progress_event(entry);
		return true;
	}
	return false;
}

int pd_progress_move(int name, int from, int to)
{
	struct epoll_event ev;
	int ret;

	if (!pd_progress_event_of(name, &ev))
		return 0;
	ret = pd_sys_epoll_ctl(pd_progress.epoll_fd, EPOLL_CTL_ADD, to, &ev);
	if (ret < 0)
		return ret;
	return pd_sys_epoll_ctl(pd_progress.epoll_fd, EPOLL_CTL_DEL, from, NULL);
}

void pd_progress_nudge(void)
{
	pd_progress_wake();
}

/* Run the callback of one event unless its entry is gone. pd_control held. Returns 1 if it ran. */
static int pd_progress_dispatch(const struct epoll_event *ev)
{
	uint32_t slot = (uint32_t)(ev->data.u64 >> 32), generation = (uint32_t)ev->data.u64;
	struct pd_progress_fd *entry;
	uint64_t drained;

	if (slot == PD_PROGRESS_WAKE) {
		pd_sys_read(pd_progress.wake_fd, &drained, sizeof(drained));
		return 0;
	}
	if (slot >= pd_progress.slot_count || pd_progress.slots[slot].generation != generation)
		return 0;
	entry = pd_progress.slots[slot].entry;
	if (!entry)
		return 0;
	entry->fn(entry, ev->events);
	return 1;
}

/* --- timers -------------------------------------------------------------------------------- */

void pd_progress_timer_set(struct pd_progress_timer *timer, uint64_t after_ns)
{
	uint64_t now = pd_clock_ns();

	pd_timer_wheel_del(&pd_progress_timers, &timer->at);
	timer->at.deadline_ns = now + pd_min(after_ns, PD_TIMER_NEVER - 1 - now);
	pd_timer_wheel_add(&pd_progress_timers, &timer->at);
	if (timer->at.deadline_ns < pd_progress.sleeps_until_ns)
		pd_progress_wake();
}

void pd_progress_timer_cancel(struct pd_progress_timer *timer)
{
	pd_timer_wheel_del(&pd_progress_timers, &timer->at);
}

/* Run the timers that are due at `now`; those set meanwhile wait for the next round. pd_control
 * held. Returns how many ran. */
static int pd_progress_run_timers(uint64_t now)
{
	struct pd_list due = PD_LIST_INIT(due);
	int ran = 0;

	pd_timer_wheel_advance(&pd_progress_timers, now, &due);
	/* A callback may cancel those that follow, or set them anew. */
	while (!pd_list_empty(&due)) {
		struct pd_progress_timer *timer =
			pd_list_entry(due.next, struct pd_progress_timer, node);

		pd_list_del(&timer->node);
		timer->fn(timer);
		ran++;
	}
	return ran;
}

/* --- posted work --------------------------------------------------------------------------- */

void pd_progress_post(struct pd_progress_work *work)
{
	struct pd_progress_work *head;

	if (pd_exchange(&work->posted, 1))
		return;
	head = pd_load_relaxed(&pd_progress_posted);
	do
		work->next = head;
	while (!pd_cas(&pd_progress_posted, &head, work));
	/* Either this sees the eventfd, or who makes it sees the work: pairs with the fence in
	 * pd_progress_setup. */
	pd_fence_full();
	if (!head)
		pd_progress_wake();
}

/* Take all posted work, oldest first. */
static struct pd_progress_work *pd_progress_take_posted(void)
{
	struct pd_progress_work *work = pd_exchange(&pd_progress_posted, NULL), *list = NULL;

	while (work) {
		struct pd_progress_work *next = work->next;

		work->next = list;
		list = work;
		work = next;
	}
	return list;
}

/* Run what was posted. pd_control held. Returns how many ran. */
static int pd_progress_run_posted(void)
{
	struct pd_progress_work *work = pd_progress_take_posted();
	int ran = 0;

	while (work) {
		struct pd_progress_work *next = work->next;

		/* From here on it may be posted again, or freed by its own callback. */
		pd_store_release(&work->posted, 0);
		work->fn(work);
		work = next;
		ran++;
	}
	return ran;
}

/* --- rounds -------------------------------------------------------------------------------- */

/* How long to sleep now, in milliseconds rounded up; at most `limit_ms` when that is not negative.
 * pd_control held. */
static int pd_progress_timeout(int limit_ms)
{
	uint64_t now, deadline, ms;

	if (pd_load_acquire(&pd_progress_posted) || pd_load_acquire(&pd_progress.stopping))
		return 0;
	deadline = pd_timer_wheel_next(&pd_progress_timers);
	pd_progress.sleeps_until_ns = deadline;
	if (deadline == PD_TIMER_NEVER)
		return limit_ms;
	now = pd_clock_ns();
	ms = deadline > now ? (deadline - now + PD_NS_PER_MS - 1) / PD_NS_PER_MS : 0;
	ms = pd_min(ms, (uint64_t)INT32_MAX);
	return limit_ms >= 0 && (uint64_t)limit_ms < ms ? limit_ms : (int)ms;
}

int pd_progress_run_once(int timeout_ms)
{
	struct epoll_event events[PD_PROGRESS_EVENTS];
	int n, timeout, ran = 0;

	pd_lock(&pd_control);
	n = pd_progress_setup();
	timeout = n < 0 ? 0 : pd_progress_timeout(timeout_ms);
	pd_unlock(&pd_control);
	if (n < 0)
		return n;
	n = pd_sys_epoll_pwait(pd_progress.epoll_fd, events, PD_PROGRESS_EVENTS, timeout, NULL);
	if (n < 0 && n != -EINTR)
		return n;
	pd_ctr_count(pd_ctr_process(), PD_CTR_PROCESS_PROGRESS_WAKEUPS, 1);

	pd_lock(&pd_control);
	pd_progress.sleeps_until_ns = 0;
	for (int i = 0; i < n; i++)
		ran += pd_progress_dispatch(&events[i]);
	ran += pd_progress_run_posted();
	ran += pd_progress_run_timers(pd_clock_ns());
	pd_unlock(&pd_control);
	return ran;
}

/* --- where the thread runs ----------------------------------------------------------------- */

/* Parse a mask ("0x6") or a list ("1,2,8-11") into `set`. Returns 0 or -EINVAL. */
static int pd_progress_parse_cpus(const char *text, cpu_set_t *set)
{
	char *end;

	CPU_ZERO(set);
	if (!strncmp(text, "0x", 2) || !strncmp(text, "0X", 2)) {
		size_t digits = strspn(text + 2, "0123456789abcdefABCDEF");

		if (!digits || text[2 + digits])
			return -EINVAL;
		for (size_t i = 0; i < digits; i++) {
			char digit[2] = {text[2 + digits - 1 - i], 0};
			unsigned nibble = (unsigned)strtoul(digit, NULL, 16);

			for (unsigned bit = 0; bit < 4; bit++)
				if (nibble >> bit & 1 && i * 4 + bit < CPU_SETSIZE)
					CPU_SET(i * 4 + bit, set);
		}
		return CPU_COUNT(set) ? 0 : -EINVAL;
	}
	do {
		unsigned long first, last;

		if (*text < '0' || *text > '9')
			return -EINVAL;
		first = last = strtoul(text, &end, 10);
		if (*end == '-') {
			text = end + 1;
			if (*text < '0' || *text > '9')
				return -EINVAL;
			last = strtoul(text, &end, 10);
		}
		if (first > last || last >= CPU_SETSIZE)
			return -EINVAL;
		for (; first <= last; first++)
			CPU_SET(first, set);
		text = end + 1;
	} while (*end == ',');
	return *end ? -EINVAL : 0;
}

int pd_progress_set_affinity(const char *cpus)
{
	cpu_set_t set;

	if (!cpus || !*cpus || !strcmp(cpus, "-1"))
		cpus = "";
	else if (pd_progress_parse_cpus(cpus, &set) < 0 ||
		 strlen(cpus) >= sizeof(pd_progress.affinity))
		return -EINVAL;
	strcpy(pd_progress.affinity, cpus);
	return 0;
}

int pd_progress_set_cpuset(const char *path)
{
	path = path ? path : "";
	if (strlen(path) + sizeof("/cgroup.threads") > sizeof(pd_progress.cpuset))
		return -ENAMETOOLONG;
	strcpy(pd_progress.cpuset, path);
	return 0;
}

/* Move the calling thread into the configured cpuset (version 1 and 2 name the file differently).
 */
static int pd_progress_join_cpuset(void)
{
	static const char *const files[] = {"tasks", "cgroup.threads"};
	char path[sizeof(pd_progress.cpuset) + 20], id[16];
	int fd = -ENOENT, n;

	for (size_t i = 0; i < PD_ARRAY_SIZE(files) && fd < 0; i++) {
		snprintf(path, sizeof(path), "%s/%s", pd_progress.cpuset, files[i]);
		fd = pd_internal_fd(pd_quiet_open(path, O_WRONLY));
	}
	if (fd < 0)
		return fd;
	n = snprintf(id, sizeof(id), "%d", (int)pd_sys_gettid());
	n = (int)pd_sys_write(fd, id, (size_t)n);
	pd_sys_close(fd);
	return n < 0 ? n : 0;
}

/* Put the calling thread where the configuration wants it; what fails is logged and let be. */
static void pd_progress_place(void)
{
	cpu_set_t set;
	long ret;

	if (*pd_progress.cpuset) {
		ret = pd_progress_join_cpuset();
		if (ret < 0)
			pd_warn("progress", "cannot join the cpuset %s: %s", pd_progress.cpuset,
				pd_strerror((int)ret));
	}
	if (*pd_progress.affinity && !pd_progress_parse_cpus(pd_progress.affinity, &set)) {
		ret = PD_SYS_3(SYS_sched_setaffinity, 0, sizeof(set), &set);
		if (ret < 0)
			pd_warn("progress", "cannot run on the processors %s: %s",
				pd_progress.affinity, pd_strerror((int)ret));
	}
}

/* --- the thread ---------------------------------------------------------------------------- */

/* The body of the thread: rounds until it is told to stop. */
static void *pd_progress_main(void *arg)
{
	int ret;

	(void)arg;
	pd_progress_self = true;
	pd_fault_blocked = true; /* as sent by a process; see pd_progress_start */
	prctl(PR_SET_NAME, "palladium", 0, 0, 0);
	pd_progress_place();
	while (!pd_load_acquire(&pd_progress.stopping)) {
		ret = pd_progress_run_once(-1);
		if (ret < 0) {
			pd_err("progress", "the progress thread ends: %s", pd_strerror(ret));
			break;
		}
	}
	pd_lock(&pd_control);
	pd_processes_finish();
	pd_unlock(&pd_control);
	return NULL;
}

void pd_progress_set_manual(bool manual)
{
	pd_progress.manual = manual;
}

int pd_progress_start(void)
{
	pthread_attr_t attr;
	static bool told;
	int ret;

	ret = pd_progress_setup();
	if (ret < 0)
		return ret;
	pd_processes_start(); /* logs what does not start */
	if (pd_progress.running || pd_progress.manual)
		return 0;
	pd_store_release(&pd_progress.stopping, 0);
	ret = pthread_attr_init(&attr);
	if (ret)
		return -ret;
	pthread_attr_setstacksize(&attr, PD_PROGRESS_STACK_BYTES);
	ret = -pd_thread_start(&pd_progress.thread, &attr, pd_progress_main, NULL);
	pthread_attr_destroy(&attr);
	pd_progress.running = !ret;
	if (ret && !told)
		pd_err("progress", "the progress thread cannot be started (ulimit -u, -v): %s",
		       pd_strerror(ret));
	told = ret; /* a port that waits for it tries again and again */
	/*
	 * To who asks for a port it is a want of resources; EAGAIN would have programs try again,
	 * for ever.
	 */
	return ret == EAGAIN ? -ENOMEM : -ret;
}

/* Drop every entry, timer and posted work, and the epoll. */
static void pd_progress_reset(void)
{
	struct pd_progress_work *work = pd_progress_take_posted();
	int ep = pd_progress.epoll_fd, wake = pd_exchange(&pd_progress.wake_fd, -1);

	while (work) {
		struct pd_progress_work *next = work->next;

		pd_store_release(&work->posted, 0);
		work = next;
	}
	pd_timer_wheel_clear(&pd_progress_timers);
	for (uint32_t i = 0; i < pd_progress.slot_count; i++) {
		if (pd_progress.slots[i].entry)
			pd_progress.slots[i].entry->active = false;
		pd_progress.slots[i].entry = NULL;
	}
	pd_progress.epoll_fd = -1;
	pd_progress.running = false;
	pd_progress.sleeps_until_ns = 0;
	if (ep >= 0)
		pd_sys_close(ep);
	if (wake >= 0)
		pd_sys_close(wake);
}

void pd_progress_stop(void)
{
	bool running;

	pd_lock(&pd_control);
	running = pd_progress.running;
	pd_progress.running = false;
	pd_store_release(&pd_progress.stopping, 1);
	pd_unlock(&pd_control);
	if (running && !pd_progress_self) {
		pd_progress_wake();
		pthread_join(pd_progress.thread, NULL);
	}
	pd_lock(&pd_control);
	if (!running || pd_progress_self) /* else the thread did it */
		pd_processes_finish();
	pd_processes_stop();
	pd_progress_reset();
	pd_store_release(&pd_progress.stopping, 0);
	free(pd_progress.slots);
	pd_progress.slots = NULL;
	pd_progress.slot_count = 0;
	pd_unlock(&pd_control);
}

void pd_progress_after_fork(void)
{
	pd_progress_self = false;
	pd_processes_after_fork();
	pd_progress_reset();
	pd_store_release(&pd_progress.stopping, 0);
}
