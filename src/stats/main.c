/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * palladium_stats: show the counters of programs that run with libpalladium.
 *
 * Exit status: 0 the reports were printed (also when the process ended meanwhile), 1 there is no
 * process to show, or more than one to choose from, or its file is not to be had, 2 wrong usage.
 */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif
#include "find.h"
#include "print.h"

#define PD_STATS_INTERVAL_MAX_S 86400.0

struct pd_stats_options {
	long pid; /* 0: any */
	const char *name;
	const char *dir;
	double interval_s;
	unsigned long cycles; /* 0: for ever */
	struct pd_stats_style style;
	bool json;
	bool clean;
};

static const char pd_stats_help[] =
	"Usage: palladium_stats [OPTION]...\n"
	"Show the counters of a program that runs with libpalladium.\n"
	"\n"
	"Which program:\n"
	"  -p, --pid=PID          the process PID\n"
	"  -n, --name=NAME        the process whose program is called NAME (a pattern may be "
	"used)\n"
	"  -f, --find_pid         the only one there is; list them if there are more (default)\n"
	"  -k, --directory=DIR    look below DIR (default: $PALLADIUM_STATS_SHMEM_DIR, else\n"
	"                         /dev/shm, $XDG_RUNTIME_DIR, /run/user/UID and /tmp)\n"
	"  -F, --forbid_clean     do not remove the files of processes that are gone\n"
	"\n"
	"What to print:\n"
	"  -i, --interval=SEC     a report every SEC seconds, decimals allowed (default: 1)\n"
	"  -c, --cycles=N         N reports, 0 for no end (default: 0)\n"
	"  -v, --view=1|2|3       1 ports and sockets (default), 2 also lanes and more about "
	"sockets,\n"
	"                         3 every counter with its meaning\n"
	"  -d, --details=1|2      1 totals (default), 2 per second over the last interval\n"
	"      --json             one JSON object a report, on a line of its own\n"
	"\n"
	"  -V, --version          print the version\n"
	"  -h, --help             print this text\n"
	"\n"
	"The exit status is 0 when the reports were printed, also if the process ended meanwhile;\n"
	"1 when there is no process to show or more than one to choose from; 2 on wrong usage.\n";

/* Say what is wrong with the command line and leave. */
__attribute__((noreturn, format(printf, 1, 2))) static void pd_stats_usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "palladium_stats: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'palladium_stats --help'.\n");
	exit(2);
}

/* The file became shorter than it said: its writer's file system or its owner did that. */
static void pd_stats_on_sigbus(int sig)
{
	static const char text[] = "palladium_stats: the statistics file was cut short\n";

	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(1);
	_exit(1);
}

/* The argument of option `opt` as a whole number from `min` to `max`. */
static unsigned long pd_stats_number(const char *opt, const char *text, unsigned long min,
				     unsigned long max)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < min || value > max)
		pd_stats_usage("%s takes a number from %lu to %lu, not '%s'", opt, min, max, text);
	return value;
}

/* The argument of -i. */
static double pd_stats_interval(const char *text)
{
	double value;
	char *end;

	value = strtod(text, &end);
	if (end == text || *end || !(value >= 0.001 && value <= PD_STATS_INTERVAL_MAX_S))
		pd_stats_usage("--interval takes seconds from 0.001 to %.0f, not '%s'",
			       PD_STATS_INTERVAL_MAX_S, text);
	return value;
}

/* The argument of -v. */
static int pd_stats_view(const char *text)
{
	if (!strcmp(text, "4") || !strcmp(text, "5")) /* VMA's */
		pd_stats_usage("view %s (%s) comes with a later version; there are 1, 2 and 3",
			       text, *text == '4' ? "multicast groups" : "like netstat");
	return (int)pd_stats_number("--view", text, 1, 3);
}

/* Read the command line. Leaves on --help, --version and mistakes. */
static void pd_stats_options_parse(int argc, char **argv, struct pd_stats_options *o)
{
	static const struct option longs[] = {
		{"pid", required_argument, NULL, 'p'},
		{"name", required_argument, NULL, 'n'},
		{"find_pid", no_argument, NULL, 'f'},
		{"directory", required_argument, NULL, 'k'},
		{"forbid_clean", no_argument, NULL, 'F'},
		{"interval", required_argument, NULL, 'i'},
		{"cycles", required_argument, NULL, 'c'},
		{"view", required_argument, NULL, 'v'},
		{"details", required_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "p:n:fk:Fi:c:v:d:Vh", longs, NULL)) != -1) {
		if (opt == 'p')
			o->pid = (long)pd_stats_number("--pid", optarg, 1, INT_MAX);
		else if (opt == 'n')
			o->name = optarg;
		else if (opt == 'f')
			o->pid = 0;
		else if (opt == 'k')
			o->dir = optarg;
		else if (opt == 'F')
			o->clean = false;
		else if (opt == 'i')
			o->interval_s = pd_stats_interval(optarg);
		else if (opt == 'c')
			o->cycles = pd_stats_number("--cycles", optarg, 0, ULONG_MAX);
		else if (opt == 'v')
			o->style.view = pd_stats_view(optarg);
		else if (opt == 'd')
			o->style.rate = pd_stats_number("--details", optarg, 1, 2) == 2;
		else if (opt == 'j')
			o->json = true;
		else if (opt == 'V' || opt == 'h') {
			if (opt == 'V')
				printf("palladium_stats %s\n", PACKAGE_VERSION);
			else
				fputs(pd_stats_help, stdout);
			exit(0);
		} else { /* getopt has said what is wrong */
			fprintf(stderr, "Try 'palladium_stats --help'.\n");
			exit(2);
		}
	}
	if (optind < argc)
		pd_stats_usage("'%s': there are options only", argv[optind]);
}

/* Keep of the list only what -p and -n ask for. */
static void pd_stats_select(struct pd_stats_list *list, const struct pd_stats_options *o)
{
	size_t kept = 0;

	for (size_t i = 0; i < list->count; i++) {
		struct pd_stats_found *p = list->items[i];

		if ((o->pid && p->file.header.pid != (uint32_t)o->pid) ||
		    (o->name && fnmatch(o->name, p->file.header.program, 0))) {
			pd_stats_file_close(&p->file);
			free(p);
		} else {
			list->items[kept++] = p;
		}
	}
	list->count = kept;
}

/* Say why there is nothing to show. */
static void pd_stats_none(const struct pd_stats_options *o)
{
	char path[64];
	struct stat st;

	if (o->pid) {
		snprintf(path, sizeof(path), "/proc/%ld", o->pid);
		if (stat(path, &st) < 0)
			fprintf(stderr, "palladium_stats: there is no process %ld\n", o->pid);
		else if (geteuid() && st.st_uid != geteuid())
			fprintf(stderr,
				"palladium_stats: process %ld belongs to %s: only that user and "
				"root "
				"may look\n",
				o->pid, pd_stats_user(st.st_uid));
		else
			fprintf(stderr,
				"palladium_stats: process %ld publishes no counters: it runs "
				"without "
				"libpalladium, or has not used a port yet\n",
				o->pid);
	} else if (o->name) {
		fprintf(stderr, "palladium_stats: no process called '%s' publishes counters\n",
			o->name);
	} else {
		fprintf(stderr, "palladium_stats: no process publishes counters%s%s\n",
			o->dir ? " below " : "", o->dir ? o->dir : "");
	}
}

/* The time `interval_s` after `*t`. */
static void pd_stats_time_add(struct timespec *t, double interval_s)
{
	t->tv_sec += (time_t)interval_s;
	t->tv_nsec += (long)((interval_s - floor(interval_s)) * 1e9);
	if (t->tv_nsec >= 1000000000) {
		t->tv_nsec -= 1000000000;
		t->tv_sec++;
	}
}

/*
 * Sleep until `until` (CLOCK_MONOTONIC), or until the process behind `pidfd` ends if that is not
 * -1.
 */
static void pd_stats_sleep(int pidfd, const struct timespec *until)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	struct timespec now, left;

	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		left.tv_sec = until->tv_sec - now.tv_sec;
		left.tv_nsec = until->tv_nsec - now.tv_nsec;
		if (left.tv_nsec < 0) {
			left.tv_nsec += 1000000000;
			left.tv_sec--;
		}
		if (left.tv_sec < 0 || (!left.tv_sec && !left.tv_nsec))
			return;
		if (ppoll(&p, 1, &left, NULL) > 0)
			return;
	}
}

/* True when the process of `p` is no more. */
static bool pd_stats_gone(const struct pd_stats_found *p)
{
	return pd_stats_file_ended(&p->file) ||
	       (p->life == PD_STATS_ALIVE &&
		pd_stats_life_of(&p->file.owner, NULL) == PD_STATS_DEAD);
}

/* A descriptor that becomes readable when the process ends, or -1 on an old kernel. */
static int pd_stats_pidfd(const struct pd_stats_found *p)
{
	int fd = -1;

#ifdef SYS_pidfd_open
	if (p->life == PD_STATS_ALIVE)
		fd = (int)syscall(SYS_pidfd_open, (pid_t)p->file.owner.pid, 0);
#endif
	/* It may have ended, and its pid been taken, between finding and opening. */
	if (fd >= 0 && pd_stats_gone(p)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Print reports about `p` until the cycles or the process are over. Returns the exit status. */
static int pd_stats_watch(const struct pd_stats_found *p, const struct pd_stats_options *o)
{
	struct pd_stats_snap snaps[2] = {{0}}, *before = NULL;
	int pidfd = pd_stats_pidfd(p);
	unsigned long cycle = 0;
	struct timespec next;
	bool ended;

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		struct pd_stats_snap *now = before == &snaps[0] ? &snaps[1] : &snaps[0];

		pd_stats_snap_free(now);
		ended = pd_stats_gone(p);
		if (pd_stats_snap_take(&p->file, before, now) < 0) {
			fprintf(stderr, "palladium_stats: out of memory\n");
			return 1;
		}
		/*
		 * Rates need two looks, so the first one prints nothing, unless there will be no
		 * other.
		 */
		if (!o->style.rate || before || ended) {
			cycle++;
			if (o->json)
				pd_stats_print_json(p, now, &o->style, cycle, ended);
			else
				pd_stats_print_text(p, now, &o->style, cycle, ended);
		}
		before = now;
		if (ended || ferror(stdout) || (o->cycles && cycle >= o->cycles))
			break;
		pd_stats_time_add(&next, o->interval_s);
		pd_stats_sleep(pidfd, &next);
	}
	if (ended)
		fprintf(stderr, "palladium_stats: process %u has ended\n", p->file.header.pid);
	pd_stats_snap_free(&snaps[0]);
	pd_stats_snap_free(&snaps[1]);
	if (pidfd >= 0)
		close(pidfd);
	return ferror(stdout) ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct pd_stats_options o = {
		.dir = getenv("PALLADIUM_STATS_SHMEM_DIR"),
		.interval_s = 1,
		.style = {.view = 1},
		.clean = true,
	};
	struct pd_stats_list list;
	int status = 1;

	if (o.dir && !*o.dir)
		o.dir = NULL;
	pd_stats_options_parse(argc, argv, &o);
	signal(SIGBUS, pd_stats_on_sigbus);
	pd_stats_find(o.dir, o.clean, &list);
	pd_stats_select(&list, &o);
	if (list.count == 1) {
		status = pd_stats_watch(list.items[0], &o);
	} else if (list.count) {
		pd_stats_print_list(&list, o.json);
		fprintf(stderr, "palladium_stats: choose one with -p PID\n");
	} else {
		pd_stats_none(&o);
	}
	pd_stats_list_free(&list);
	return status;
}
