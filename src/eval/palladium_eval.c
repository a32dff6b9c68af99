/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * palladium_eval: how fast packets go from a receiver through a network function to a transmitter.
 *
 *   options        the command line, presets, what goes together; options.def has a row for each
 *   layout         where everything stands in the shared memory of mode stripped
 *   roles          who runs rx, nf and tx: processes, threads, the watch over them
 *   ring_stripped  the steps of the roles over bare rings
 *   ring_vhost     the same over the library's vhost-user
 *   nf             what nf does to packets
 *   nf_plugin      the same by a node of a plug-in
 *   check          what packets and metadata hold, made and compared
 *   bound          what the machine can do
 *   report         text and JSON
 *   sweep          tables of settings, CSV
 *   plot           gnuplot
 *   profile        perf and callgrind
 *
 * Exit status: 0 all went well, 1 a packet was lost or altered, a role crashed or the run was
 * interrupted, 2 wrong usage.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "profile.h"
#include "report.h"
#include "sweep.h"

/* BATCH and RING of the short form, if they are there. */
static void take_short(struct ev_options *o, int n, char **arguments)
{
	static const char *const names[] = {"batch", "ring"};
	char why[EV_WHY_MAX];

	if (n > 2)
		ev_refuse("\"%s\" is not expected", arguments[2]);
	for (int i = 0; i < n; i++)
		if (ev_options_set(o, names[i], arguments[i], why))
			ev_refuse("%s", why);
	if (ev_options_settle(o, why))
		ev_refuse("%s", why);
}

/* run */
static int command_run(struct ev_options *o, int n, char **arguments)
{
	static struct ev_result result;
	int status;

	take_short(o, n, arguments);
	if (o->show_layout) {
		struct ev_layout layout;

		if (o->mode != EV_MODE_STRIPPED)
			ev_refuse("--show-layout has no meaning in mode %s",
				  ev_mode_words[o->mode]);
		ev_layout_make(&layout, o);
		ev_layout_print(&layout, o, stdout);
		return EV_EXIT_OK;
	}
	status = ev_run(o, NULL, &result);
	ev_report(o, &result);
	return status;
}

/* profile run */
static int command_profile(struct ev_options *o, int n, char **arguments)
{
	if (!n || strcmp(arguments[0], "run"))
		ev_refuse("profile: expected run, BATCH and RING");
	take_short(o, n - 1, arguments + 1);
	return ev_profile(o);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*work)(struct ev_options *o, int n, char **arguments);
	} commands[] = {{"run", command_run}, {"sweep", ev_sweep}, {"profile", command_profile}};
	static struct ev_options options;
	size_t i = 0;
	int n, status;

	pd_log_set_level(PD_LOG_ERROR);
	n = ev_options_read(&options, argc, argv);
	pd_log_set_level(options.verbose ? PD_LOG_INFO : PD_LOG_ERROR);
	if (n < 2)
		ev_refuse("expected a command: run, sweep or profile");
	while (i < PD_ARRAY_SIZE(commands) && strcmp(commands[i].name, argv[1]))
		i++;
	if (i == PD_ARRAY_SIZE(commands))
		ev_refuse("there is no command %s; expected run, sweep or profile", argv[1]);
	status = commands[i].work(&options, n - 2, argv + 2);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "palladium_eval: standard output: %s\n", strerror(errno));
		status = EV_EXIT_FAILED;
	}
	return status;
}
