/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the debug CLI's server: it runs in a directory of its own, and the progress thread's
 * rounds are turned by hand, so that what happens between two of them is known. Behind cmocka.h.
 */
#ifndef PD_TESTS_UNIT_CLI_RIG_H
#define PD_TESTS_UNIT_CLI_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "cli/server.h"
#include "config/vars.h"
#include "vlib/progress.h"

static char dir[32];

/* Rounds until there is nothing more to do at once. */
static inline void turn(void)
{
	for (int i = 0; i < 2000; i++)
		if (pd_progress_run_once(0) <= 0)
			break;
}

/* Make the directory, and start the server as PALLADIUM_CLI=`cli` has it. */
static inline void cli_begin(const char *cli)
{
	strcpy(dir, "/tmp/pdcli.XXXXXX");
	assert_non_null(mkdtemp(dir));
	pd_vars.stats_shmem_dir = dir;
	pd_vars.cli = cli;
	/* As if the environment had given it. */
	for (unsigned i = 0; i < pd_var_count; i++)
		if (!strcmp(pd_var_descs[i].name, "PALLADIUM_STATS_SHMEM_DIR"))
			pd_vars.set_bits[i / 64] |= 1ull << (i % 64);
	pd_progress_set_manual(true);
	pd_lock(&pd_control);
	pd_cli_server_start();
	pd_unlock(&pd_control);
}

/* Stop it, and remove the directory. Returns 0 when that worked. */
static inline int cli_end(void)
{
	char command[64];

	pd_lock(&pd_control);
	pd_cli_server_stop();
	pd_unlock(&pd_control);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

#endif /* PD_TESTS_UNIT_CLI_RIG_H */
