/* SPDX-License-Identifier: BSD-2-Clause */
/* The program that this is in: show version, show config, show threads. */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/internal_fd.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/textfile.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "config/vars.h"
#include "counters/shm.h"

const char pd_cli_has_process;

/* Threads that are looked at, at most. */
#define THREADS_MAX 512

/* show version */
static int show_version(struct pd_cli *cli)
{
	pd_cli_print(cli, "libpalladium %s in %s, process %d\n", PACKAGE_VERSION,
		     program_invocation_short_name, (int)pd_sys_getpid());
	return 0;
}

PD_CLI_COMMAND(show_version) = {
	.path = "show version",
	.help = "The library's version, the program and its process id.",
	.fn = show_version,
};

/* show config */
static int show_config(struct pd_cli *cli)
{
	unsigned shown = 0;

	for (unsigned i = 0; i < pd_var_count; i++) {
		const struct pd_var_desc *desc = &pd_var_descs[i];
		char value[300], dflt[300];

		pd_var_format(&pd_vars, desc, value, sizeof(value));
		pd_var_format_default(desc, dflt, sizeof(dflt));
		if (!strcmp(value, dflt))
			continue;
		pd_cli_print(cli, "%-44s %s (default %s)\n", desc->name, value,
			     *dflt ? dflt : "empty");
		shown++;
	}
	if (!shown)
		pd_cli_print(cli, "every variable has its default\n");
	return 0;
}

PD_CLI_COMMAND(show_config) = {
	.path = "show config",
	.help = "The PALLADIUM_ variables that differ from their defaults.",
	.fn = show_config,
};

/* --- show threads -------------------------------------------------------------------------- */

static const struct pd_cli_column thread_columns[] = {
	{"Id", "id", PD_CLI_NUMBER, 8},      {"Name", "name", PD_CLI_TEXT, -16},
	{"State", "state", PD_CLI_TEXT, -6}, {"Core", "core", PD_CLI_NUMBER, 5},
	{"CPU s", "cpu_s", PD_CLI_REAL, 10}, {"Role", "role", PD_CLI_TEXT, -10},
};

/* Field `n` of a thread's stat as a number; 0 when there is none. */
static uint64_t stat_number(const char *stat, int n)
{
	const char *p = pd_shm_stat_field(stat, n);

	return p ? strtoull(p, NULL, 10) : 0;
}

/* Print the thread `id`, unless it has ended meanwhile. */
static void print_thread(struct pd_cli *cli, struct pd_cli_table *t, const char *id)
{
	char path[64], text[1024], *name, *end, state[2] = "";
	uint64_t core, ticks;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/stat", id);
	if (pd_textfile_read(path, text, sizeof(text)))
		return;
	/* The name in parentheses may hold anything. */
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !pd_shm_stat_field(text, 3))
		return;
	state[0] = *pd_shm_stat_field(text, 3);
	core = stat_number(text, 39);
	ticks = stat_number(text, 14) + stat_number(text, 15);
	*end = '\0'; /* it ends the name */
	const union pd_cli_cell cells[] = {
		{.number = strtoull(id, NULL, 10)},
		{.text = name + 1},
		{.text = state},
		{.number = core},
		{.real = (double)ticks / (double)sysconf(_SC_CLK_TCK)},
		{.text = strtoull(id, NULL, 10) == (uint64_t)pd_sys_gettid()   ? "progress"
			 : strtoull(id, NULL, 10) == (uint64_t)pd_sys_getpid() ? "main"
									       : "program"},
	};
	_Static_assert(PD_ARRAY_SIZE(cells) == PD_ARRAY_SIZE(thread_columns), "one per column");
	pd_cli_table_row(cli, t, cells);
}

/* A table of threads that is being printed. */
struct shown {
	struct pd_cli *cli;
	struct pd_cli_table table;
	unsigned seen;
};

/* An entry of /proc/self/task; for pd_dir_each. */
static bool show_thread(void *arg, const char *name)
{
	struct shown *shown = arg;

	if (*name == '.')
		return false;
	print_thread(shown->cli, &shown->table, name);
	return ++shown->seen >= THREADS_MAX;
}

/* show threads */
static int show_threads(struct pd_cli *cli)
{
	struct shown shown = {.cli = cli};
	int fd = pd_internal_fd(
		pd_sys_open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));

	if (fd < 0)
		return pd_cli_fail(cli, "/proc/self/task cannot be read: %s", pd_strerror(fd));
	pd_cli_table_begin(cli, &shown.table, thread_columns, PD_ARRAY_SIZE(thread_columns),
			   "threads", "", true);
	pd_dir_each(fd, show_thread, &shown);
	pd_sys_close(fd);
	pd_cli_table_end(cli, &shown.table);
	return 0;
}

PD_CLI_COMMAND(show_threads) = {
	.path = "show threads",
	.help = "The threads of the program, the progress thread among them.",
	.json = true,
	.fn = show_threads,
};
