/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counters, per role.
 *
 * perf: one perf stat for each thread, attached when every role is ready and switched on before the
 * first packet (its control descriptors say when it is), so that set-up does not count. A thread
 * that runs two roles is counted as both.
 *
 * callgrind: one run for each role under valgrind, in one thread and with fewer packets, counting
 * inside the role's step alone. It counts instructions exactly and simulates caches and branches;
 * that needs no counter of the machine's.
 */
#include "profile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"
#include "report.h"

#define ITEMS_DEFAULT "cpu-clock,instructions"
#define ANSWER_MS 10000
#define CALLGRIND_PACKETS 100000
#define ARGUMENTS_MAX 80
#define FIRST_FD 100 /* of a child: above whatever we have open */

/* A thread's perf. */
struct counter {
	pid_t pid;
	unsigned roles;
	int output; /* what it wrote: an unlinked file */
};

struct profile {
	struct ev_options *o;
	const char *items;
	struct counter counters[EV_ROLES];
	unsigned n;
	json_t *rows;
	char missing[256]; /* items that the machine has no counter for */
};

/* A file without a name. Returns its descriptor, closed on exec, or -errno. */
static int make_file(void)
{
	char path[] = "/tmp/palladium_eval.XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

/*
 * The program `argv` as a child, which does not outlive us, with those of `fds` that are not -1 as
 * its own from FIRST_FD on. `silent`: without standard output.
 */
static pid_t start(char *const *argv, const int fds[3], bool silent)
{
	pid_t pid;
	sigset_t none;
	int null;

	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			dup2(fds[i], FIRST_FD + i);
	null = silent ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
	if (null >= 0)
		dup2(null, STDOUT_FILENO);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Ctrl-C is ours to handle; what perf gets is from us. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	execvp(argv[0], argv);
	fprintf(stderr, "palladium_eval: %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Add a row to the report. `text`: what was counted, or NULL where there is no counter for it. */
static void add(struct profile *p, unsigned roles, const char *item, const char *text,
		const char *unit, uint64_t packets)
{
	char name[32];
	json_t *row;

	ev_roles_name(roles, name, sizeof(name));
	row = json_pack("{s:s, s:s, s:s}", "role", name, "item", item, "unit", unit);
	if (text) {
		json_object_set_new(row, "count", json_real(strtod(text, NULL)));
		if (packets)
			json_object_set_new(row, "per_packet",
					    json_real(strtod(text, NULL) / (double)packets));
	} else {
		json_object_set_new(row, "count", json_null());
		if (!strstr(p->missing, item))
			snprintf(p->missing + strlen(p->missing),
				 sizeof(p->missing) - strlen(p->missing), "%s%s",
				 *p->missing ? ", " : "", item);
	}
	json_array_append_new(p->rows, row);
}

/* --- perf ------------------------------------------------------------------------------------ */

/* Tell perf to count, and wait until it does. Returns 0 or -errno. */
static int switch_on(int control, int answer)
{
	struct pollfd wait = {.fd = answer, .events = POLLIN};
	char text[16];

	if (write(control, "enable\n", 7) != 7)
		return -EPIPE;
	if (poll(&wait, 1, ANSWER_MS) <= 0)
		return -ETIMEDOUT;
	/* Nothing to read: it has ended, and said why. */
	return read(answer, text, sizeof(text)) > 0 ? 0 : -ENOTSUP;
}

/* Attach perf to a thread. Returns 0 or -errno. */
static int attach(struct profile *p, const struct ev_thread *t, uint32_t tid)
{
	struct counter *c = &p->counters[p->n];
	int control[2] = {-1, -1}, answer[2] = {-1, -1}, err;
	char thread[16], output[32];
	char *argv[] = {"perf", "stat", "-x", ",",  "-e",        (char *)(uintptr_t)p->items,
			"-t",   thread, "-D", "-1", "--control", "fd:100,101",
			"-o",   output, NULL};

	*c = (struct counter){.roles = t->roles, .output = make_file()};
	if (c->output < 0)
		return c->output;
	snprintf(thread, sizeof(thread), "%" PRIu32, tid);
	snprintf(output, sizeof(output), "/proc/self/fd/102");
	if (pipe2(control, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		return -errno;
	c->pid = start(argv, (int[3]){control[0], answer[1], c->output}, false);
	p->n++;
	close(control[0]);
	close(answer[1]);
	err = c->pid < 0 ? -EAGAIN : switch_on(control[1], answer[0]);
	close(control[1]);
	close(answer[0]);
	return err;
}

/* Every role is ready: perf for each thread. */
static int attach_all(void *ctx, const struct ev_plan *plan, const struct ev_control *control)
{
	struct profile *p = ctx;
	int err = 0;

	for (unsigned i = 0; !err && i < plan->n_threads; i++) {
		const struct ev_thread *t = &plan->threads[i];

		err = attach(p, t, control->told[__builtin_ctz(t->roles)].tid);
	}
	return err;
}

/* One line of perf stat -x,: count, unit, item, and more. */
static void take_line(struct profile *p, unsigned roles, char *line, uint64_t packets)
{
	char *rest = line, *count = strsep(&rest, ","), *unit = strsep(&rest, ","),
	     *item = strsep(&rest, ",");

	if (!item || *line == '#' || !*line)
		return;
	add(p, roles, item, *count == '<' ? NULL : count, unit, packets);
}

/* End the perfs and read what they wrote. */
static void collect(struct profile *p, uint64_t packets)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct counter *c = &p->counters[i];
		char line[512];
		FILE *file;

		if (c->pid > 0) {
			kill(c->pid, SIGINT);
			waitpid(c->pid, NULL, 0);
		}
		file = fdopen(c->output, "r");
		if (!file)
			continue;
		rewind(file);
		while (fgets(line, sizeof(line), file)) {
			line[strcspn(line, "\n")] = 0;
			take_line(p, c->roles, line, packets);
		}
		fclose(file);
	}
}

/* --- callgrind ------------------------------------------------------------------------------- */

/* What callgrind calls it, and what it has to simulate. */
static const struct simulated {
	const char *item, *event, *option;
} simulated[] = {
	{"instructions", "Ir", NULL},
	{"L1-icache-load-misses", "I1mr", "--cache-sim=yes"},
	{"L1-dcache-loads", "Dr", "--cache-sim=yes"},
	{"L1-dcache-load-misses", "D1mr", "--cache-sim=yes"},
	{"L1-dcache-stores", "Dw", "--cache-sim=yes"},
	{"L1-dcache-store-misses", "D1mw", "--cache-sim=yes"},
	{"LLC-load-misses", "DLmr", "--cache-sim=yes"},
	{"LLC-store-misses", "DLmw", "--cache-sim=yes"},
	{"branches", "Bc", "--branch-sim=yes"},
	{"branch-misses", "Bcm", "--branch-sim=yes"},
};

/* The row of an item, or NULL. */
static const struct simulated *simulated_as(const char *item)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(simulated); i++)
		if (!strcmp(simulated[i].item, item))
			return &simulated[i];
	return NULL;
}

/* The counts of `event` in what callgrind said ("Events : Ir Dr", "Collected : 12 3"), summed over
 * its processes. */
static double counted(FILE *log, const char *event)
{
	char line[1024];
	double sum = 0;
	int at = -1;

	rewind(log);
	while (fgets(line, sizeof(line), log)) {
		char *events = strstr(line, "Events    :"), *values = strstr(line, "Collected :");
		char *rest = NULL, *word = strtok_r(events   ? events + 11
						    : values ? values + 11
							     : line,
						    " \n", &rest);

		if (events)
			for (at = -1; word; word = strtok_r(NULL, " \n", &rest)) {
				at++;
				if (!strcmp(word, event))
					break;
			}
		for (int i = 0; values && word && i <= at; i++, word = strtok_r(NULL, " \n", &rest))
			if (i == at)
				sum += strtod(word, NULL);
	}
	return sum;
}

/* One run under callgrind, counting in `role`; its log goes to `log`. Returns its exit status. */
static int run_callgrind(const struct profile *p, enum ev_role_id role, uint64_t packets, int log)
{
	char self[4096], toggle[64], count[48], text[2048];
	char *argv[ARGUMENTS_MAX + 24] = {"valgrind",
					  "--tool=callgrind",
					  "--callgrind-out-file=/dev/null",
					  toggle,
					  "--log-fd=100",
					  "--cache-sim=yes",
					  "--branch-sim=yes",
					  self,
					  "run",
					  "--as=one",
					  "--quiet",
					  "--timeout=600",
					  count};
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int k = 13, status;
	pid_t pid;

	if (n < 0)
		return -errno;
	self[n] = 0;
	snprintf(toggle, sizeof(toggle), "--toggle-collect=ev_step_%s", ev_role_names[role]);
	snprintf(count, sizeof(count), "--packets=%" PRIu64, packets);
	k += ev_options_arguments(p->o, text, sizeof(text), argv + k, ARGUMENTS_MAX);
	if (p->o->check)
		argv[k++] = "--check";
	if (p->o->latency)
		argv[k++] = "--latency";
	pid = start(argv, (int[3]){log, -1, -1}, true);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -EAGAIN;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EV_EXIT_FAILED;
}

/* A run for each role. Returns an enum ev_exit. */
static int profile_callgrind(struct profile *p)
{
	uint64_t packets = pd_min(p->o->packets, (uint64_t)CALLGRIND_PACKETS);

	for (unsigned role = 0; role < EV_ROLES; role++) {
		char *items = strdup(p->items), *rest = items, *item;
		int fd = make_file(), status;
		FILE *log = fd < 0 ? NULL : fdopen(fd, "r+");

		if (!log || !items)
			ev_refuse("no file for callgrind");
		status = run_callgrind(p, role, packets, fd);
		while (!status && (item = strsep(&rest, ","))) {
			const struct simulated *s = simulated_as(item);
			char text[32];

			snprintf(text, sizeof(text), "%.0f", s ? counted(log, s->event) : 0.0);
			add(p, 1u << role, item, s ? text : NULL, "", packets);
		}
		fclose(log);
		free(items);
		if (status) {
			fprintf(stderr, "palladium_eval: the run under valgrind failed\n");
			return EV_EXIT_FAILED;
		}
	}
	return EV_EXIT_OK;
}

/* --- both ------------------------------------------------------------------------------------ */

/* Write the rows. */
static void write_rows(const struct profile *p, FILE *out)
{
	json_t *row;
	size_t i;

	if (p->o->json) {
		json_dumpf(p->rows, out, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putc('\n', out);
		return;
	}
	fprintf(out, "%-8s %-24s %18s %14s\n", "role", "item", "count", "per packet");
	json_array_foreach(p->rows, i, row)
	{
		const char *role = json_string_value(json_object_get(row, "role")),
			   *item = json_string_value(json_object_get(row, "item")),
			   *unit = json_string_value(json_object_get(row, "unit"));

		if (json_is_null(json_object_get(row, "count")))
			fprintf(out, "%-8s %-24s %18s\n", role, item, "no counter");
		else
			fprintf(out, "%-8s %-24s %18.2f %14.4f %s\n", role, item,
				json_real_value(json_object_get(row, "count")),
				json_real_value(json_object_get(row, "per_packet")), unit);
	}
}

/* Say what could not be counted. */
static void tell_missing(const struct profile *p)
{
	if (!*p->missing)
		return;
	if (p->o->counter == EV_WITH_CALLGRIND)
		fprintf(stderr, "palladium_eval: callgrind does not simulate: %s\n", p->missing);
	else
		fprintf(stderr,
			"palladium_eval: this machine has no counter for: %s; --with callgrind "
			"counts "
			"instructions, and simulates caches and branches\n",
			p->missing);
}

/* Run under perf. Returns an enum ev_exit. */
static int profile_perf(struct profile *p)
{
	const struct ev_watcher watcher = {attach_all, p};
	static struct ev_result result;
	int status;

	signal(SIGPIPE, SIG_IGN); /* a perf that has ended */
	status = ev_run(p->o, &watcher, &result);
	collect(p, result.told.told[EV_TX].packets);
	if (!p->o->json)
		ev_report(p->o, &result);
	else if (status)
		fprintf(stderr, "palladium_eval: %s\n", result.failure);
	return status;
}

int ev_profile(struct ev_options *o)
{
	struct profile p = {.o = o, .items = o->items ? o->items : ITEMS_DEFAULT};
	const char *program = o->counter == EV_WITH_PERF ? "perf" : "valgrind";
	FILE *out = stdout;
	int status;

	if (!ev_installed(program))
		ev_refuse("profile: there is no %s on this machine (Debian: %s)", program,
			  o->counter == EV_WITH_PERF ? "linux-perf" : "valgrind");
	if (o->output)
		out = fopen(o->output, "we");
	if (!out)
		ev_refuse("%s: %s", o->output, strerror(errno));
	p.rows = json_array();
	status = o->counter == EV_WITH_PERF ? profile_perf(&p) : profile_callgrind(&p);
	if (json_array_size(p.rows))
		write_rows(&p, out);
	tell_missing(&p);
	json_decref(p.rows);
	if (o->output && (ferror(out) | fclose(out))) {
		fprintf(stderr, "palladium_eval: %s: it cannot be written\n", o->output);
		status = EV_EXIT_FAILED;
	}
	return status;
}
