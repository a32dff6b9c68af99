/* SPDX-License-Identifier: BSD-2-Clause */
/* The packet generator: packet-generator new, enable, disable, delete, show. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "vlib/generator.h"

const char pd_cli_has_generator;

/* Have the generator's own reader run `verb` with what follows it in the line. */
static int run(struct pd_cli *cli, const char *verb)
{
	char text[PD_CLI_LINE_BYTES + 64], error[PD_STREAM_ERROR_BYTES];
	int n = snprintf(text, sizeof(text), "packet-generator %s %s", verb, cli->args);

	if (pd_generator_script(NULL, text, (size_t)n, pd_generator_names, error, sizeof(error)))
		return pd_cli_fail(cli, "%s", error);
	return 0;
}

/* packet-generator new */
static int generator_new(struct pd_cli *cli)
{
	return run(cli, "new");
}

PD_CLI_COMMAND(generator_new) = {
	.path = "packet-generator new",
	.args = "{ name NAME node NODE data { incrementing N } [limit N] [size A-B] [rate N] "
		"[interface PORT] [tx-interface PORT] [worker N] [sidecar { FIELD VALUE ... }] }",
	.help = "Make a stream of frames; data may be { hex OCTETS } or { pcap FILE } too.",
	.fn = generator_new,
};

/* packet-generator enable */
static int generator_enable(struct pd_cli *cli)
{
	return run(cli, "enable");
}

PD_CLI_COMMAND(generator_enable) = {
	.path = "packet-generator enable",
	.args = "[NAME]",
	.help = "Let a stream, or all, run from the beginning.",
	.fn = generator_enable,
};

/* packet-generator disable */
static int generator_disable(struct pd_cli *cli)
{
	return run(cli, "disable");
}

PD_CLI_COMMAND(generator_disable) = {
	.path = "packet-generator disable",
	.args = "[NAME]",
	.help = "Stop a stream, or all.",
	.fn = generator_disable,
};

/* packet-generator delete */
static int generator_delete(struct pd_cli *cli)
{
	return run(cli, "delete");
}

PD_CLI_COMMAND(generator_delete) = {
	.path = "packet-generator delete",
	.args = "NAME",
	.help = "Stop a stream and forget it.",
	.fn = generator_delete,
};

static const struct pd_cli_column stream_columns[] = {
	{"Name", "name", PD_CLI_TEXT, -16},  {"Enabled", "enabled", PD_CLI_TEXT, -8},
	{"Sent", "sent", PD_CLI_NUMBER, 12}, {"Limit", "limit", PD_CLI_NUMBER, 12},
	{"Rate", "rate", PD_CLI_NUMBER, 12}, {"Worker", "worker", PD_CLI_NUMBER, 7},
	{"Size", "size", PD_CLI_TEXT, -12},  {"Interface", "interface", PD_CLI_TEXT, -12},
	{"Node", "node", PD_CLI_TEXT, 0},
};

/* A table that is being printed. */
struct shown {
	struct pd_cli *cli;
	struct pd_cli_table table;
};

/* One stream; for pd_generator_each. */
static void show_stream(const struct pd_stream_info *info, void *arg)
{
	const struct pd_stream_config *c = info->config;
	struct shown *shown = arg;
	char size[32] = "as data";

	if (c->size_max)
		snprintf(size, sizeof(size), "%u-%u", c->size_min, c->size_max);
	pd_cli_table_row(shown->cli, &shown->table,
			 (union pd_cli_cell[]){{.text = c->name},
					       {.text = info->enabled ? "yes" : "no"},
					       {.number = info->sent},
					       {.number = c->limit},
					       {.number = c->rate},
					       {.number = c->worker},
					       {.text = size},
					       {.text = *c->interface ? c->interface : "local0"},
					       {.text = c->node}});
}

/* packet-generator show */
static int generator_show(struct pd_cli *cli)
{
	struct shown shown = {.cli = cli};

	pd_cli_table_begin(cli, &shown.table, stream_columns, PD_ARRAY_SIZE(stream_columns),
			   "streams", "", true);
	pd_generator_each(show_stream, &shown);
	pd_cli_table_end(cli, &shown.table);
	return 0;
}

PD_CLI_COMMAND(generator_show) = {
	.path = "packet-generator show",
	.help = "The streams: what they are, and how many frames since they were enabled.",
	.json = true,
	.fn = generator_show,
};
