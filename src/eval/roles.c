/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes and threads for the roles: started, watched, ended.
 *
 * A process that ends before it should, or by a signal, ends the run: `stop` is set, whoever reads
 * it ends by itself, and whoever has not after GRACE_MS is killed. The kernel kills the children of
 * a program that is killed itself.
 */
#include "roles.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "bound.h"
#include "nf_plugin.h"

#define LOOK_MS 20     /* how often the children are looked at */
#define GRACE_MS 3000  /* for children to end by themselves */
#define NAP_US 200     /* of who waits for others */
#define YIELD_TRIES 64 /* empty looks before a core of one's own is offered to others */

const char *const ev_role_names[EV_ROLES] = {"rx", "nf", "tx"};

/* All that a run has while it goes on. */
struct run {
	const struct ev_options *o;
	struct ev_plan plan;
	struct ev_layout layout;
	struct ev_control *control;
	uint8_t *area;
	uint64_t area_bytes;
	char folder[64]; /* of the sockets, or "" */
	pid_t pids[EV_ROLES];
	struct ev_result *result;
	sigset_t old_mask;
};

void ev_roles_name(unsigned roles, char *out, size_t size)
{
	*out = 0;
	for (unsigned i = 0; i < EV_ROLES; i++)
		if (roles >> i & 1)
			snprintf(out + strlen(out), size - strlen(out), "%s%s", *out ? "+" : "",
				 ev_role_names[i]);
}

void ev_plan_make(struct ev_plan *plan, const struct ev_options *o)
{
	*plan = (struct ev_plan){0};
	switch (o->as) {
	case EV_AS_ONE:
		plan->n_threads = 1;
		plan->threads[0].roles = 7;
		break;
	case EV_AS_PAIR:
		plan->n_threads = 2;
		plan->threads[0].roles = 1 << EV_RX | 1 << EV_TX;
		plan->threads[1].roles = 1 << EV_NF;
		break;
	default:
		plan->n_threads = EV_ROLES;
		for (unsigned i = 0; i < EV_ROLES; i++)
			plan->threads[i].roles = 1 << i;
	}
	plan->n_processes = o->as == EV_AS_THREADS ? 1 : plan->n_threads;
	for (unsigned i = 0; i < plan->n_threads; i++) {
		struct ev_thread *t = &plan->threads[i];

		t->process = plan->n_processes > 1 ? i : 0;
		t->core = o->core[i % o->n_cores];
		for (unsigned k = 0; k < i; k++)
			if (plan->threads[k].core == t->core)
				t->shares = plan->threads[k].shares = true;
	}
}

/* --- what steps share ------------------------------------------------------------------------ */

int ev_role_prepare(struct ev_role *r, ev_step step, uint32_t metadata_bytes)
{
	bool swapped = r->id == EV_TX && ev_nf_get(r->o->nf)->swaps_macs;
	int err = ev_patterns_make(&r->patterns, (uint32_t)r->o->size, metadata_bytes, swapped);

	if (err)
		return err;
	r->step = step;
	if (ev_nf_get(r->o->nf)->node && (r->id == EV_NF || (r->id == EV_TX && r->o->check))) {
		r->place = ev_nf_place_new(ev_nf_get(r->o->nf)->node, r->patterns.stride);
		if (!r->place)
			return -ENOMEM;
	}
	if (r->o->latency) {
		r->stamps = (uint64_t *)(r->area + r->l->stamps);
		r->stamp_mask = r->l->stamp_mask;
	}
	return 0;
}

/* --- latency --------------------------------------------------------------------------------- */

void ev_stamp(struct ev_role *r, uint64_t n, unsigned count)
{
	uint64_t now = pd_clock_ns();

	for (unsigned i = 0; i < count; i++)
		pd_store_relaxed(&r->stamps[(n + i) & r->stamp_mask], now);
}

void ev_stamp_read(struct ev_role *r, uint64_t n, unsigned count)
{
	uint64_t now = pd_clock_ns();

	for (unsigned i = 0; i < count; i++) {
		uint64_t then = pd_load_relaxed(&r->stamps[(n + i) & r->stamp_mask]);

		tool_hist_add(&r->control->latency, now > then ? now - then : 0);
	}
}

/* --- in a child ------------------------------------------------------------------------------ */

/* What one thread needs. */
struct job {
	struct run *run;
	const struct ev_thread *thread;
	struct ev_role roles[EV_ROLES];
	unsigned n;
	pthread_t id;
};

/* Run on the thread's core alone. */
static void pin(const struct ev_thread *t)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(t->core, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Nothing moved: let others have the core, the more so when it is shared. */
static void idle(const struct ev_thread *t, unsigned *empty)
{
	if (t->shares || ++*empty % YIELD_TRIES == 0)
		sched_yield();
	else
		pd_cpu_relax();
}

/*
 * A step of each role, by names that callgrind finds in whatever is installed. The empty
 * instruction makes them differ, or the compiler would make one of them.
 */
PD_EXPORT unsigned PD_NOINLINE ev_step_rx(struct ev_role *r);
PD_EXPORT unsigned PD_NOINLINE ev_step_nf(struct ev_role *r);
PD_EXPORT unsigned PD_NOINLINE ev_step_tx(struct ev_role *r);

unsigned ev_step_rx(struct ev_role *r)
{
	__asm__ volatile("# rx");
	return r->step(r);
}

unsigned ev_step_nf(struct ev_role *r)
{
	__asm__ volatile("# nf");
	return r->step(r);
}

unsigned ev_step_tx(struct ev_role *r)
{
	__asm__ volatile("# tx");
	return r->step(r);
}

/* One turn over the roles of a thread. Returns how many have something to do yet; *moved is added
 * to. */
static unsigned turn(struct job *job, unsigned *moved)
{
	static unsigned (*const steps[EV_ROLES])(struct ev_role *) = {ev_step_rx, ev_step_nf,
								      ev_step_tx};
	unsigned left = 0;

	for (unsigned i = 0; i < job->n; i++) {
		struct ev_role *r = &job->roles[i];
		unsigned n;

		if (r->n == r->o->packets)
			continue;
		n = steps[r->id](r);
		left++;
		if (!n)
			continue;
		*moved += n;
		r->n += n;
		if (r->n == r->o->packets)
			r->told->end_ns = pd_clock_ns();
		pd_store_release(&r->told->packets, r->n); /* pairs with the parent's look */
	}
	return left;
}

/* Move packets until all have moved or the run ends. */
static void move(struct job *job)
{
	struct ev_control *c = job->run->control;
	unsigned empty = 0;
	uint64_t now = pd_clock_ns();

	for (unsigned i = 0; i < job->n; i++)
		job->roles[i].told->start_ns = now;
	for (;;) {
		unsigned moved = 0;

		if (!turn(job, &moved))
			break;
		if (!moved) {
			if (pd_load_relaxed(&c->stop))
				break;
			idle(job->thread, &empty);
		}
	}
	now = pd_clock_ns();
	for (unsigned i = 0; i < job->n; i++)
		if (!job->roles[i].told->end_ns)
			job->roles[i].told->end_ns = now;
}

/* A thread: ready when its rings are, then the packets. */
static void *thread_main(void *arg)
{
	struct job *job = arg;
	struct ev_control *c = job->run->control;
	bool vhost = job->run->o->mode != EV_MODE_STRIPPED;

	pin(job->thread);
	for (unsigned i = 0; i < job->n; i++) {
		job->roles[i].told->tid = (uint32_t)syscall(SYS_gettid);
		while (vhost && !ev_vhost_up(&job->roles[i]) && !pd_load_relaxed(&c->stop))
			usleep(NAP_US);
		pd_fetch_add(&c->ready, 1);
	}
	/* Pairs with the parent's store: what it set up is seen. */
	while (!pd_load_acquire(&c->go) && !pd_load_relaxed(&c->stop))
		usleep(NAP_US);
	if (!pd_load_relaxed(&c->stop))
		move(job);
	return NULL;
}

/* Set up the roles of a thread. Returns 0 or -errno. */
static int job_make(struct job *job, struct run *run, const struct ev_thread *thread)
{
	int err = 0;

	*job = (struct job){.run = run, .thread = thread};
	for (unsigned i = 0; !err && i < EV_ROLES; i++) {
		struct ev_role *r = &job->roles[job->n];

		if (!(thread->roles >> i & 1))
			continue;
		*r = (struct ev_role){.id = i,
				      .o = run->o,
				      .l = &run->layout,
				      .area = run->area,
				      .control = run->control,
				      .told = &run->control->told[i]};
		job->n++;
		if (run->o->mode == EV_MODE_STRIPPED)
			err = ev_stripped_role(r);
		if (err)
			snprintf(r->told->error, sizeof(r->told->error), "%s", pd_strerror(err));
	}
	return err;
}

/* Start the threads of a process; the last one is this. */
static void start(struct job *jobs, unsigned n)
{
	for (unsigned i = 0; i + 1 < n; i++)
		if (pthread_create(&jobs[i].id, NULL, thread_main, &jobs[i])) {
			snprintf(jobs[i].roles[0].told->error, sizeof(jobs[i].roles[0].told->error),
				 "its thread cannot be started");
			_exit(EV_EXIT_FAILED);
		}
	thread_main(&jobs[n - 1]);
	for (unsigned i = 0; i + 1 < n; i++)
		pthread_join(jobs[i].id, NULL);
}

/* Free what the roles of the jobs have. */
static void jobs_end(struct job *jobs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < jobs[i].n; k++) {
			ev_patterns_free(&jobs[i].roles[k].patterns);
			ev_nf_place_free(jobs[i].roles[k].place);
			free(jobs[i].roles[k].copies);
			free(jobs[i].roles[k].buffers);
		}
}

/* A process: its ports, its threads. Returns its exit status. */
static int process_main(struct run *run, unsigned process)
{
	static struct job jobs[EV_ROLES];
	struct ev_role *roles[EV_ROLES];
	struct ev_control *c = run->control;
	unsigned n = 0, n_roles = 0;
	int err = 0;

	for (unsigned i = 0; !err && i < run->plan.n_threads; i++)
		if (run->plan.threads[i].process == process) {
			err = job_make(&jobs[n], run, &run->plan.threads[i]);
			for (unsigned k = 0; k < jobs[n].n; k++)
				roles[n_roles++] = &jobs[n].roles[k];
			n++;
		}
	if (!err && run->o->mode != EV_MODE_STRIPPED)
		err = ev_vhost_open(roles, n_roles, run->folder);
	if (!err)
		start(jobs, n);
	/* Whoever ends takes its rings with it: tx comes first. */
	while (!err && !pd_load_relaxed(&c->stop) &&
	       pd_load_relaxed(&c->told[EV_TX].packets) < run->o->packets)
		usleep(NAP_US);
	if (run->o->mode != EV_MODE_STRIPPED)
		ev_vhost_close();
	jobs_end(jobs, n);
	return err ? EV_EXIT_FAILED : EV_EXIT_OK;
}

/* --- in the program -------------------------------------------------------------------------- */

/* Note why the run ends, if nothing else is known, and end it. */
static void PD_PRINTF(2, 3) fail(struct run *run, const char *fmt, ...)
{
	va_list ap;

	if (!*run->result->failure) {
		va_start(ap, fmt);
		vsnprintf(run->result->failure, sizeof(run->result->failure), fmt, ap);
		va_end(ap);
	}
	if (run->control)
		pd_store_relaxed(&run->control->stop, 1);
}

/* Make the shared memory. Returns 0 or -errno, having said so. */
static int make_memory(struct run *run)
{
	enum pd_mem_kind kind;
	int fd;

	run->control = mmap(NULL, sizeof(*run->control), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (run->control == MAP_FAILED) {
		run->control = NULL;
		fail(run, "no memory");
		return -ENOMEM;
	}
	ev_layout_make(&run->layout, run->o);
	pd_mem_set_type(run->o->hugepages ? PD_MEM_HUGEPAGES : PD_MEM_CONTIG, run->o->hugepages);
	run->area_bytes = run->layout.bytes;
	fd = pd_mem_file("palladium_eval", &run->area_bytes, &kind);
	if (fd < 0) {
		fail(run, "%" PRIu64 " bytes of shared memory: %s", run->layout.bytes,
		     pd_strerror(fd));
		return fd;
	}
	run->area = pd_mem_file_map(fd, run->area_bytes, kind);
	pd_sys_close(fd);
	if (pd_sys_is_error(run->area)) {
		run->area = NULL;
		fail(run, "%" PRIu64 " bytes of shared memory cannot be mapped", run->layout.bytes);
		return -ENOMEM;
	}
	run->result->hugepages = kind == PD_MEM_OF_HUGE;
	return 0;
}

/* A folder of our own for the sockets. Returns 0 or -errno, having said so. */
static int make_folder(struct run *run)
{
	const char *base = getenv("TMPDIR");
	int n;

	if (run->o->mode == EV_MODE_STRIPPED)
		return 0;
	/* A long TMPDIR does not fit into a socket's address. */
	if (!base || strlen(base) > 32)
		base = "/tmp";
	n = snprintf(run->folder, sizeof(run->folder), "%s/palladium_eval.XXXXXX", base);
	if (n >= (int)sizeof(run->folder) || !mkdtemp(run->folder)) {
		n = -errno;
		fail(run, "no folder for sockets in %s: %s", base, strerror(errno));
		*run->folder = 0;
		return n;
	}
	return 0;
}

/* Undo both. */
static void clean(struct run *run)
{
	static const char *const names[] = {"rx", "tx"};
	char path[sizeof(run->folder) + 4];

	for (unsigned i = 0; *run->folder && i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", run->folder, names[i]);
		unlink(path);
	}
	if (*run->folder)
		rmdir(run->folder);
	if (run->area)
		munmap(run->area, run->area_bytes);
	if (run->control)
		munmap(run->control, sizeof(*run->control));
}

/* Start process number `i`. Returns 0 or -errno. */
static int start_process(struct run *run, unsigned i)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		fail(run, "fork: %s", strerror(errno));
		return -errno;
	}
	if (!pid) {
		/* Ctrl-C is the program's to handle, which tells its children. */
		signal(SIGINT, SIG_IGN);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EV_EXIT_FAILED);
		sigprocmask(SIG_SETMASK, &run->old_mask, NULL);
		_exit(process_main(run, i));
	}
	run->pids[i] = pid;
	return 0;
}

/* The roles of process `i`, by name. */
static void process_name(const struct run *run, unsigned i, char *out, size_t size)
{
	unsigned roles = 0;

	for (unsigned k = 0; k < run->plan.n_threads; k++)
		if (run->plan.threads[k].process == i)
			roles |= run->plan.threads[k].roles;
	ev_roles_name(roles, out, size);
}

/* Process `i` ended with `status`: is that a failure? */
static void ended(struct run *run, unsigned i, int status)
{
	char name[32];

	process_name(run, i, name, sizeof(name));
	run->pids[i] = 0;
	if (WIFSIGNALED(status)) {
		fail(run, "%s ended by signal %d (%s)", name, WTERMSIG(status),
		     strsignal(WTERMSIG(status)));
		return;
	}
	if (!WEXITSTATUS(status))
		return;
	for (unsigned k = 0; k < EV_ROLES; k++)
		if (*run->control->told[k].error)
			fail(run, "%s: %s", ev_role_names[k], run->control->told[k].error);
	fail(run, "%s ended with status %d", name, WEXITSTATUS(status));
}

/* Look who has ended. Returns how many are left. */
static unsigned reap(struct run *run)
{
	unsigned left = 0;
	int status;

	for (unsigned i = 0; i < run->plan.n_processes; i++) {
		if (run->pids[i] && waitpid(run->pids[i], &status, WNOHANG) == run->pids[i])
			ended(run, i, status);
		left += run->pids[i] != 0;
	}
	return left;
}

/* Tell who runs where, and later how far it is. */
static void tell_plan(const struct run *run)
{
	char name[32];

	if (run->o->quiet)
		return;
	fprintf(stderr, "palladium_eval: %s, %s:", ev_mode_words[run->o->mode],
		ev_as_words[run->o->as]);
	for (unsigned i = 0; i < run->plan.n_threads; i++) {
		const struct ev_thread *t = &run->plan.threads[i];

		ev_roles_name(t->roles, name, sizeof(name));
		fprintf(stderr, "%s %s on core %d (process %d)", i ? "," : "", name, t->core,
			(int)run->pids[t->process]);
	}
	fputc('\n', stderr);
}

/* What the parent remembers between looks. */
struct look {
	uint64_t start_ns, moved_ns, told_ns;
	uint64_t sum, told;
	uint64_t stopped_ns; /* when it was first seen that the run is to end */
};

/* How far it is: to a terminal every second, else every ten. */
static void progress(const struct run *run, struct look *look, uint64_t now)
{
	const struct ev_told *t = run->control->told;
	uint64_t every = (isatty(STDERR_FILENO) ? 1 : 10) * PD_NS_PER_SEC,
		 at_tx = pd_load_relaxed(&t[EV_TX].packets);

	if (run->o->quiet || now - look->told_ns < every)
		return;
	fprintf(stderr,
		"palladium_eval: %.0f s: rx %" PRIu64 ", nf %" PRIu64 ", tx %" PRIu64 " of %" PRIu64
		" packets; %.2f Mpps\n",
		(double)(now - look->start_ns) / 1e9, pd_load_relaxed(&t[EV_RX].packets),
		pd_load_relaxed(&t[EV_NF].packets), at_tx, run->o->packets,
		(double)(at_tx - look->told) * 1e3 / (double)(now - look->told_ns));
	look->told = at_tx;
	look->told_ns = now;
}

/* Whether packets move; where they do not for too long, the run ends. */
static void watch(struct run *run, struct look *look, uint64_t now)
{
	struct ev_control *c = run->control;
	uint64_t sum = pd_load_relaxed(&c->ready);

	for (unsigned i = 0; i < EV_ROLES; i++)
		sum += pd_load_relaxed(&c->told[i].packets);
	if (sum != look->sum) {
		look->sum = sum;
		look->moved_ns = now;
	}
	if (now - look->moved_ns < run->o->timeout * PD_NS_PER_SEC)
		return;
	if (!pd_load_relaxed(&c->go))
		fail(run, "the rings were not up within %" PRIu64 " s", run->o->timeout);
	else
		fail(run,
		     "no packet has moved for %" PRIu64 " s: rx sent %" PRIu64
		     ", nf forwarded %" PRIu64 ", tx got %" PRIu64,
		     run->o->timeout, c->told[EV_RX].packets, c->told[EV_NF].packets,
		     c->told[EV_TX].packets);
}

/* The run is to end: whoever does not is killed. */
static void hurry(struct run *run, struct look *look, uint64_t now)
{
	if (!look->stopped_ns)
		look->stopped_ns = now;
	if (now - look->stopped_ns < GRACE_MS * PD_NS_PER_MS)
		return;
	for (unsigned i = 0; i < run->plan.n_processes; i++)
		if (run->pids[i])
			kill(run->pids[i], SIGKILL);
}

/* A signal came, or none: note it. */
static void take_signal(struct run *run, int number)
{
	if (number != SIGINT && number != SIGTERM)
		return;
	run->result->interrupted = true;
	fail(run, "interrupted");
}

/* Watch over the children until all have ended. */
static void supervise(struct run *run, const sigset_t *signals, const struct ev_watcher *watcher)
{
	const struct timespec pause = {.tv_nsec = LOOK_MS * (long)PD_NS_PER_MS};
	struct ev_control *c = run->control;
	struct look look = {0};

	look.start_ns = look.moved_ns = look.told_ns = pd_clock_ns();
	while (reap(run)) {
		uint64_t now = pd_clock_ns();

		if (!pd_load_relaxed(&c->go) && pd_load_acquire(&c->ready) == EV_ROLES &&
		    !pd_load_relaxed(&c->stop)) {
			int err = watcher ? watcher->ready(watcher->ctx, &run->plan, c) : 0;

			if (err)
				fail(run, "the profile cannot be taken: %s", pd_strerror(err));
			else
				pd_store_release(&c->go, 1);
			look.moved_ns = now = pd_clock_ns();
		}
		if (pd_load_relaxed(&c->stop))
			hurry(run, &look, now);
		else
			watch(run, &look, now);
		progress(run, &look, now);
		take_signal(run, sigtimedwait(signals, NULL,
					      pd_load_relaxed(&c->go)
						      ? &pause
						      : &(struct timespec){.tv_nsec = 1000000}));
	}
}

/* What the roles left. */
static void gather(struct run *run)
{
	struct ev_result *r = run->result;
	const struct ev_told *t;

	r->told = *run->control;
	t = r->told.told;
	r->complete = t[EV_TX].packets == run->o->packets;
	if (t[EV_TX].end_ns > t[EV_RX].start_ns && t[EV_RX].start_ns)
		r->ns = t[EV_TX].end_ns - t[EV_RX].start_ns;
	if (r->ns)
		r->mpps = (double)t[EV_TX].packets * 1e3 / (double)r->ns;
	if (!r->complete && !*r->failure)
		fail(run, "tx got %" PRIu64 " of %" PRIu64 " packets", t[EV_TX].packets,
		     run->o->packets);
}

int ev_run(const struct ev_options *o, const struct ev_watcher *watcher, struct ev_result *result)
{
	struct run run = {.o = o, .result = result};
	sigset_t signals;
	int err;

	*result = (struct ev_result){0};
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, &run.old_mask);
	ev_plan_make(&run.plan, o);
	result->plan = run.plan;
	if (o->bound)
		result->bound_mpps = ev_bound(o);
	err = make_memory(&run);
	if (!err)
		err = make_folder(&run);
	for (unsigned i = 0; !err && i < run.plan.n_processes; i++)
		err = start_process(&run, i);
	if (!err)
		tell_plan(&run);
	if (run.control)
		supervise(&run, &signals, watcher);
	if (run.control)
		gather(&run);
	clean(&run);
	sigprocmask(SIG_SETMASK, &run.old_mask, NULL);
	return *result->failure || ev_tally_sum(&result->told.told[EV_TX].tally) ||
			       ev_tally_sum(&result->told.told[EV_NF].tally)
		       ? EV_EXIT_FAILED
		       : EV_EXIT_OK;
}
