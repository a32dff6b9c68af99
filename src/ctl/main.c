/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * palladium_ctl: talk to the debug CLI of programs that run with libpalladium.
 *
 * Exit status: 0 all was done, 1 a command failed, or there is no program to talk to, or more than
 * one, or it does not answer, 2 wrong usage.
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"
#include "targets.h"

struct options {
	long pid; /* 0: any */
	const char *name, *dir, *socket, *script;
	bool list, json;
	int timeout_s;
};

static const char help[] =
	"Usage: palladium_ctl [OPTION]... [COMMAND...]\n"
	"Run commands in a program that uses libpalladium, through its debug CLI.\n"
	"\n"
	"With COMMAND, run it; else run the lines of standard input, or what is typed on a "
	"terminal.\n"
	"Without arguments, list the programs there are. The command help shows the commands.\n"
	"\n"
	"Which program (the only one there is, if none is named):\n"
	"  -p, --pid=PID          the process PID\n"
	"  -n, --name=NAME        the process whose program is called NAME (a pattern may be "
	"used)\n"
	"  -k, --directory=DIR    look below DIR (default: $PALLADIUM_STATS_SHMEM_DIR, else\n"
	"                         /dev/shm, $XDG_RUNTIME_DIR, /run/user/UID and /tmp)\n"
	"  -s, --socket=PATH      the one that listens at PATH (PALLADIUM_CLI=PATH)\n"
	"  -l, --list             list them\n"
	"\n"
	"What to do:\n"
	"  -f, --file=FILE        run the commands of FILE, up to the first that fails\n"
	"      --json             have show commands answer in JSON; with -l, list in JSON\n"
	"  -t, --timeout=SEC      give up when no answer comes for SEC seconds (default: 30)\n"
	"\n"
	"  -V, --version          print the version\n"
	"  -h, --help             print this text\n"
	"\n"
	"The exit status is 0 when all was done; 1 when a command failed or there is no program "
	"to\n"
	"talk to, or more than one; 2 on wrong usage.\n";

/* Say what is wrong with the command line and leave. */
__attribute__((noreturn, format(printf, 1, 2))) static void usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "palladium_ctl: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'palladium_ctl --help'.\n");
	exit(2);
}

/* The argument of option `opt` as a number from 1 to `max`. */
static long number(const char *opt, const char *text, long max)
{
	long value;
	char *end;

	errno = 0;
	value = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < 1 || value > max)
		usage("%s takes a number from 1 to %ld, not '%s'", opt, max, text);
	return value;
}

/* Read the command line. Leaves on --help, --version and mistakes. */
static void parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"pid", required_argument, NULL, 'p'},
		{"name", required_argument, NULL, 'n'},
		{"directory", required_argument, NULL, 'k'},
		{"socket", required_argument, NULL, 's'},
		{"list", no_argument, NULL, 'l'},
		{"file", required_argument, NULL, 'f'},
		{"json", no_argument, NULL, 'j'},
		{"timeout", required_argument, NULL, 't'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int opt;

	/* +: what follows the command's first word is the command's. */
	while ((opt = getopt_long(argc, argv, "+p:n:k:s:lf:t:Vh", longs, NULL)) != -1) {
		if (opt == 'p')
			o->pid = number("--pid", optarg, INT_MAX);
		else if (opt == 'n')
			o->name = optarg;
		else if (opt == 'k')
			o->dir = optarg;
		else if (opt == 's')
			o->socket = optarg;
		else if (opt == 'l')
			o->list = true;
		else if (opt == 'f')
			o->script = optarg;
		else if (opt == 'j')
			o->json = true;
		else if (opt == 't')
			o->timeout_s = (int)number("--timeout", optarg, 86400);
		else if (opt == 'V' || opt == 'h') {
			if (opt == 'V')
				printf("palladium_ctl %s\n", PACKAGE_VERSION);
			else
				fputs(help, stdout);
			exit(0);
		} else { /* getopt has said what is wrong */
			fprintf(stderr, "Try 'palladium_ctl --help'.\n");
			exit(2);
		}
	}
	if (o->socket && (o->pid || o->name))
		usage("--socket names the program already");
	if (o->list && optind < argc)
		usage("--list takes no command");
	if (o->script && optind < argc)
		usage("there is a file of commands and a command");
}

/* The list as JSON. Returns the exit status. */
static int list_json(const struct pd_ctl_targets *targets)
{
	json_t *rows = json_array(), *all = json_pack("{s:o}", "processes", rows);
	int ret;

	for (size_t i = 0; i < targets->n; i++) {
		const struct pd_ctl_target *t = &targets->items[i];

		json_array_append_new(rows, json_pack("{s:i, s:s, s:s, s:s, s:s, s:b}", "pid",
						      t->pid, "user", pd_ctl_user(t->uid),
						      "program", t->program, "version", t->version,
						      "socket", t->path, "answers", t->answers));
	}
	ret = json_dumpf(all, stdout, JSON_COMPACT) || putchar('\n') == EOF;
	json_decref(all);
	return ret;
}

/* Print the list. Returns the exit status. */
static int print_list(const struct pd_ctl_targets *targets, bool json)
{
	if (json)
		return list_json(targets);
	printf("%8s %-12s %-16s %-10s %s\n", "PID", "USER", "PROGRAM", "VERSION", "SOCKET");
	for (size_t i = 0; i < targets->n; i++) {
		const struct pd_ctl_target *t = &targets->items[i];

		printf("%8d %-12s %-16s %-10s %s\n", t->pid, pd_ctl_user(t->uid),
		       t->answers ? t->program : "?", t->answers ? t->version : "?", t->path);
		if (!t->answers)
			printf("%8s %s\n", "", t->error);
	}
	return 0;
}

/*
 * Write the path of the socket that is meant to `path`. Returns 0, or 1 when there is not just
 * one.
 */
static int choose(const struct options *o, char *path, size_t size)
{
	struct pd_ctl_targets targets;
	int ret = 1;

	if (o->socket) {
		snprintf(path, size, "%s", o->socket);
		return 0;
	}
	pd_ctl_targets_find(o->dir, o->pid, o->name, &targets);
	if (targets.n == 1) {
		snprintf(path, size, "%s", targets.items[0].path);
		ret = 0;
	} else if (targets.n) {
		print_list(&targets, o->json);
		fprintf(stderr, "palladium_ctl: choose one with -p PID\n");
	} else {
		pd_ctl_targets_none(o->dir, o->pid, o->name);
	}
	pd_ctl_targets_free(&targets);
	return ret;
}

/* The words of a command as one line, malloc'd. */
static char *join(char **words)
{
	size_t size = 1;
	char *line;

	for (char **w = words; *w; w++)
		size += strlen(*w) + 1;
	line = calloc(1, size);
	for (char **w = words; line && *w; w++) {
		strcat(line, *w);
		if (w[1])
			strcat(line, " ");
	}
	return line;
}

/* Do what is asked over the connection. Returns the exit status. */
static int serve(const struct options *o, struct pd_ctl *ctl, char **words)
{
	struct pd_ctl_session session = {.ctl = ctl, .json = o->json};
	char *line;
	int ret;

	if (o->script)
		return pd_ctl_script(&session, o->script);
	if (!*words)
		return isatty(0) ? pd_ctl_interactive(&session) : pd_ctl_script(&session, "-");
	line = join(words);
	if (line && strchr(line, '\n')) {
		fprintf(stderr, "palladium_ctl: a command is one line\n");
		free(line);
		return 2;
	}
	ret = line ? pd_ctl_line(&session, line, "palladium_ctl") : 1;
	free(line);
	return ret;
}

/* List the programs. Returns the exit status. */
static int list(const struct options *o)
{
	struct pd_ctl_targets targets;
	int ret = 1;

	pd_ctl_targets_find(o->dir, o->pid, o->name, &targets);
	if (targets.n || o->json)
		ret = print_list(&targets, o->json);
	else
		pd_ctl_targets_none(o->dir, o->pid, o->name);
	pd_ctl_targets_free(&targets);
	return ret;
}

int main(int argc, char **argv)
{
	struct options o = {.dir = getenv("PALLADIUM_STATS_SHMEM_DIR"), .timeout_s = 30};
	char path[4096], error[PD_CTL_ERROR_BYTES];
	static struct pd_ctl ctl;
	int ret;

	if (o.dir && !*o.dir)
		o.dir = NULL;
	parse(argc, argv, &o);
	if (o.list || argc == 1)
		return list(&o);
	if (choose(&o, path, sizeof(path)))
		return 1;
	if (pd_ctl_connect(&ctl, path, o.timeout_s * 1000, error)) {
		fprintf(stderr, "palladium_ctl: %s: %s\n", path, error);
		return 1;
	}
	ret = serve(&o, &ctl, argv + optind);
	pd_ctl_close(&ctl);
	return ret || fflush(stdout) || ferror(stdout) ? (ret ? ret : 1) : 0;
}
