/* SPDX-License-Identifier: BSD-2-Clause */
/* Worker threads (contract in worker.h). */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "base/fault.h"
#include "base/lib.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/thread.h"
#include "vlib/generator.h"
#include "vlib/handoff.h"
#include "vlib/worker.h"

struct pd_worker {
	struct pd_engine *engine;
	pthread_t thread;
	int core;
	int tid; /* atomic */
};

/* The workers by number, less one; `count` is atomic, and counts those whose threads run. */
static struct pd_worker pd_workers[PD_WORKERS_MAX];
static unsigned pd_workers_count;
static __thread unsigned pd_worker_number;

unsigned pd_worker_count(void)
{
	/* Pairs with the release in pd_workers_start. */
	return pd_load_acquire(&pd_workers_count);
}

unsigned pd_worker_self(void)
{
	return pd_worker_number;
}

struct pd_engine *pd_worker_engine(unsigned thread)
{
	return thread && thread <= pd_worker_count() ? pd_workers[thread - 1].engine : NULL;
}

bool pd_worker_get(unsigned thread, struct pd_worker_info *info)
{
	const struct pd_engine *engine = pd_worker_engine(thread);

	if (!engine)
		return false;
	*info = (struct pd_worker_info){
		.thread = thread,
		.name = engine->name,
		.core = pd_workers[thread - 1].core,
		.tid = pd_load_relaxed(&pd_workers[thread - 1].tid),
		.asleep = pd_load_relaxed(&engine->asleep),
		.rounds = pd_load_relaxed(&engine->rounds),
		.lost = pd_load_relaxed(&engine->lost),
	};
	return true;
}

/* The body of a worker: its engine, until that is stopped. */
static void *pd_worker_main(void *arg)
{
	struct pd_worker *worker = arg;

	pd_worker_number = worker->engine->thread;
	pd_fault_blocked = true; /* as sent by a process; see pd_worker_spawn */
	prctl(PR_SET_NAME, worker->engine->name, 0, 0, 0);
	pd_store_relaxed(&worker->tid, (int)pd_sys_gettid());
	pd_engine_run(worker->engine); /* logs why it cannot sleep */
	return NULL;
}

/* Start the thread of a worker that has its engine. Returns 0 or -errno. */
static int pd_worker_spawn(struct pd_worker *worker)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int ret;

	CPU_ZERO(&set);
	ret = pthread_attr_init(&attr);
	if (ret)
		return -ret;
	if (worker->core != PD_WORKER_ANY_CORE) {
		CPU_SET((unsigned)worker->core, &set);
		ret = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	if (!ret)
		ret = -pd_thread_start(&worker->thread, &attr, pd_worker_main, worker);
	pthread_attr_destroy(&attr);
	return -ret;
}

/* Make the engine of worker `thread`. Returns 0 or -errno. */
static int pd_worker_make(unsigned thread, int core)
{
	struct pd_worker *worker = &pd_workers[thread - 1];
	char name[sizeof(worker->engine->name)];
	int ret;

	if (core != PD_WORKER_ANY_CORE && (core < 0 || core >= CPU_SETSIZE))
		return -EINVAL;
	snprintf(name, sizeof(name), "palladium_wk_%u", thread - 1);
	worker->core = core;
	worker->tid = 0;
	worker->engine = pd_engine_create(name, &ret);
	if (worker->engine)
		worker->engine->thread = (uint16_t)thread;
	return worker->engine ? 0 : ret;
}

/* End the threads of the first `running` workers, then everything that the first `made` have. */
static void pd_workers_end(unsigned running, unsigned made)
{
	for (unsigned i = 0; i < running; i++)
		pd_engine_stop(pd_workers[i].engine);
	for (unsigned i = 0; i < running; i++)
		pthread_join(pd_workers[i].thread, NULL);
	/* Nobody hands anything over any more. */
	for (unsigned i = 0; i < made; i++)
		pd_handoff_forget(pd_workers[i].engine);
	pd_handoff_free_all();
	for (unsigned i = 0; i < made; i++) {
		pd_engine_destroy(pd_workers[i].engine);
		pd_workers[i].engine = NULL;
	}
}

int pd_workers_start(unsigned count, const int *cores)
{
	unsigned made = 0, running = 0;
	int ret = 0;

	if (!count || count > PD_WORKERS_MAX)
		return -EINVAL;
	if (pd_worker_count())
		return -EALREADY;
	for (; made < count && !ret; made += !ret)
		ret = pd_worker_make(made + 1, cores ? cores[made] : PD_WORKER_ANY_CORE);
	for (; running < made && !ret; running += !ret)
		ret = pd_worker_spawn(&pd_workers[running]);
	if (ret) {
		pd_err("worker", "worker %u cannot be started: %s", made < count ? made : running,
		       pd_strerror(ret));
		pd_workers_end(running, made);
		return ret;
	}
	pd_store_release(&pd_workers_count, count);
	return 0;
}

void pd_workers_stop(void)
{
	unsigned count = pd_worker_count();

	pd_assert(!pd_worker_self());
	pd_generator_disable(NULL); /* its streams know nodes of the workers' engines */
	pd_store_release(&pd_workers_count, 0);
	pd_workers_end(count, count);
}
