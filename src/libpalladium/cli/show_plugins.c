/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of the user's that are loaded: show plugins. */
#include "cli/cli.h"
#include "cli/table.h"
#include "vlib/plugin.h"

const char pd_cli_has_plugins;

static const struct pd_cli_column columns[] = {
	{"Name", "name", PD_CLI_TEXT, -24},
	{"Nodes", "nodes", PD_CLI_NUMBER, 6},
	{"State", "state", PD_CLI_TEXT, -48},
	{"File", "file", PD_CLI_TEXT, 0},
};

/* show plugins */
static int show_plugins(struct pd_cli *cli)
{
	struct pd_cli_table t;

	pd_cli_table_begin(cli, &t, columns, PD_ARRAY_SIZE(columns), "plugins", "", true);
	for (const struct pd_plugin *p = pd_plugins; p; p = p->next) {
		const union pd_cli_cell cells[] = {
			{.text = p->table ? p->table->name : "?"},
			{.number = p->table ? p->table->node_count : 0},
			{.text = p->refused ? p->refused : "in use"},
			{.text = p->path},
		};

		pd_cli_table_row(cli, &t, cells);
	}
	pd_cli_table_end(cli, &t);
	return 0;
}

PD_CLI_COMMAND(show_plugins) = {
	.path = "show plugins",
	.help = "Plug-ins of PALLADIUM_PLUGIN_PATH: in use, or why not.",
	.json = true,
	.fn = show_plugins,
};
