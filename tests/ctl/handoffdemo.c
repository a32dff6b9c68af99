/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that is all engine: two workers with the nodes of the handoff demonstration, and the
 * debug CLI where PALLADIUM_CLI says, for test_handoff.py. It ends with its standard input.
 */
#include <stdio.h>

#include "../unit/vlib/handoffdemo.h"
#include "cli/server.h"
#include "config/vars.h"
#include "vlib/generator.h"
#include "vlib/progress.h"
#include "vlib/worker.h"

/* Start what there is; false when something does not. */
static bool start(void)
{
	int err;

	pd_vars_load();
	if (pd_workers_start(2, NULL))
		return false;
	handoff = pd_handoff_create("handoffdemo-2", 64, NULL, &err);
	if (!handoff)
		return false;
	pd_lock(&pd_control);
	err = pd_progress_start();
	pd_cli_server_start();
	pd_unlock(&pd_control);
	return !err && pd_cli_server_path();
}

int main(void)
{
	bool started = start();

	if (!started)
		return 1;
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	pd_lock(&pd_control);
	pd_cli_server_stop();
	pd_unlock(&pd_control);
	pd_progress_stop();
	pd_workers_stop();
	pd_generator_reset(); /* asserts that every buffer is back */
	return 0;
}
