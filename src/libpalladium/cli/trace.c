/* SPDX-License-Identifier: BSD-2-Clause */
/* The tracer's commands: trace add, show trace, clear trace. */
#include "vlib/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"

/* Frames of each engine that show trace shows when it is not told how many. */
#define FRAMES_SHOWN 50

const char pd_cli_has_trace;

/* Read the number `text`, 1 to `max`. Returns it, or 0 when it is none. */
static unsigned read_number(const char *text, unsigned max)
{
	unsigned long n;
	char *end;

	if (!text || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	n = strtoul(text, &end, 10);
	return *end || errno || n > max ? 0 : (unsigned)n;
}

/* trace add NODE N */
static int trace_add(struct pd_cli *cli)
{
	char *node = pd_cli_word(cli), *number = pd_cli_word(cli);
	unsigned n = read_number(number, PD_TRACE_FRAMES_MAX);
	int ret;

	if (!node || !n || *cli->args)
		return pd_cli_fail(cli,
				   "trace add takes a node and a number of frames from 1 to %d",
				   PD_TRACE_FRAMES_MAX);
	ret = pd_trace_add(node, n);
	if (ret == -ENOENT)
		return pd_cli_fail(cli, "no engine has a node \"%.64s\": show nodes lists them",
				   node);
	if (ret == -ENOSPC)
		return pd_cli_fail(cli, "frames of several other nodes are waited for already");
	return ret ? pd_cli_fail(cli, "%s", pd_strerror(ret)) : 0;
}

PD_CLI_COMMAND(trace_add) = {
	.path = "trace add",
	.args = "NODE N",
	.help = "Trace the next N frames that come to NODE, in each engine that there is now.",
	.fn = trace_add,
};

/* Print a line of the trace. */
static void print_line(void *arg, const char *text)
{
	pd_cli_print(arg, "%s\n", text);
}

/* show trace [max N] */
static int show_trace(struct pd_cli *cli)
{
	char *word = pd_cli_word(cli);
	unsigned max = FRAMES_SHOWN;
	int ret;

	if (word) {
		max = strcmp(word, "max") ? 0 : read_number(pd_cli_word(cli), PD_TRACE_FRAMES_MAX);
		if (!max || *cli->args)
			return pd_cli_fail(cli, "\"max N\" may follow, N from 1 to %d",
					   PD_TRACE_FRAMES_MAX);
	}
	ret = pd_trace_print(max, print_line, cli);
	return ret ? pd_cli_fail(cli, "%s", pd_strerror(ret)) : 0;
}

PD_CLI_COMMAND(show_trace) = {
	.path = "show trace",
	.args = "[max N]",
	.help = "The way of the frames that were traced: up to 50, or N, of each engine.",
	.fn = show_trace,
};

/* clear trace */
static int clear_trace(struct pd_cli *cli)
{
	(void)cli;
	pd_trace_clear();
	return 0;
}

PD_CLI_COMMAND(clear_trace) = {
	.path = "clear trace",
	.help = "Forget what was traced, and trace no more.",
	.fn = clear_trace,
};
