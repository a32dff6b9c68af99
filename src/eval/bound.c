/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The single producer's bound, as tests/bench/bounds takes it. It copies with the functions that
 * the roles copy with.
 */
#include "bound.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "virtio/copy.h"

#define TIME_NS (300 * PD_NS_PER_MS)
#define BUFFERS 256 /* unless two batches need more */

struct shared {
	uint64_t sent PD_ALIGNED(128);
	uint64_t taken PD_ALIGNED(128);
	uint32_t stop PD_ALIGNED(128);
	uint8_t buffers[] PD_ALIGNED(128);
};

struct load {
	struct shared *shared;
	uint8_t *mine; /* `batch` packets */
	uint64_t buffers;
	uint32_t batch, size, stride;
};

/* Run on that core alone. */
static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Where packet `n` stands between the two. */
static uint8_t *buffer(const struct load *l, uint64_t n)
{
	return l->shared->buffers + (n & (l->buffers - 1)) * l->stride;
}

/* Send until told to stop. */
static void produce(const struct load *l)
{
	uint64_t n = 0, taken = 0;

	while (!pd_load_relaxed(&l->shared->stop)) {
		if (n + l->batch - taken > l->buffers) {
			taken = pd_load_acquire(&l->shared->taken); /* pairs with consume */
			continue;
		}
		for (uint32_t i = 0; i < l->batch; i++)
			pd_copy(buffer(l, n + i), l->mine + i * (uint64_t)l->stride, l->size);
		n += l->batch;
		pd_store_release(&l->shared->sent, n); /* pairs with consume */
	}
}

/* Take what comes for TIME_NS. Returns millions a second. */
static double consume(const struct load *l)
{
	uint64_t n = 0, sent = 0, start = 0, now = 0, first = 0;
	unsigned looks = 0;

	do {
		if (sent < n + l->batch) {
			sent = pd_load_acquire(&l->shared->sent); /* pairs with produce */
			if (++looks % 64 == 0)
				now = pd_clock_ns();
			continue;
		}
		if (!start) {
			start = now = pd_clock_ns();
			first = n + l->batch;
		}
		for (uint32_t i = 0; i < l->batch; i++)
			pd_copy(l->mine + i * (uint64_t)l->stride, buffer(l, n + i), l->size);
		n += l->batch;
		pd_store_release(&l->shared->taken, n); /* pairs with produce */
		if (n / l->batch % 64 == 0)
			now = pd_clock_ns();
	} while (!start || now < start + TIME_NS);
	now = pd_clock_ns();
	return (double)(n - first) * 1e3 / (double)(now - start);
}

/* Both ends; `consumer` and `producer` are cores. */
static double measure(struct load *l, int consumer, int producer)
{
	pid_t parent = getpid(), pid = fork();
	cpu_set_t before;
	double rate = 0;

	if (pid < 0)
		return 0;
	if (!pid) {
		signal(SIGINT, SIG_IGN);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(producer);
		if (getppid() == parent)
			produce(l);
		_exit(0);
	}
	sched_getaffinity(0, sizeof(before), &before);
	pin(consumer);
	rate = consume(l);
	sched_setaffinity(0, sizeof(before), &before);
	pd_store_relaxed(&l->shared->stop, 1);
	waitpid(pid, NULL, 0);
	return rate;
}

double ev_bound(const struct ev_options *o)
{
	struct load l = {
		.buffers = BUFFERS, .batch = (uint32_t)o->batch, .size = (uint32_t)o->size};
	uint64_t bytes;
	unsigned other = 1;
	double rate = 0;

	while (other < o->n_cores && o->core[other] == o->core[0])
		other++;
	/* An odd number of lines apart, so that they do not fall upon each other in the cache. */
	l.stride = (l.size + 127) & ~127u;
	l.stride += 64;
	while (l.buffers < 2ull * l.batch)
		l.buffers *= 2;
	bytes = sizeof(struct shared) + l.buffers * l.stride;
	l.shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	l.mine = calloc(l.batch, l.stride);
	if (l.shared != MAP_FAILED && l.mine && other < o->n_cores)
		rate = measure(&l, o->core[0], o->core[other]);
	free(l.mine);
	if (l.shared != MAP_FAILED)
		munmap(l.shared, bytes);
	return rate;
}
