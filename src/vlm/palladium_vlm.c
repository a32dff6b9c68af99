/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * palladium_vlm: a virtual load module for people who have none.
 *
 * It is the front-end of a vhost-user link: it owns the memory and the rings, as the traffic
 * tester's virtual machine does, sends frames with sidecars, and checks every frame that comes
 * back.
 *
 *   options   the command line
 *   pattern   what frames and sidecars hold, made and compared
 *   flow      which frames are under way, lost, doubled, out of order
 *   hist      latency percentiles
 *   io        lanes: send, receive, sleep
 *   run       ports and the loop
 *   report    text and JSON
 *
 * Exit status: 0 all was as expected, 1 something was lost or altered, 2 wrong usage.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "config/vars.h"
#include "report.h"
#include "run.h"

static void on_signal(int number)
{
	vlm_stop();
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	static struct vlm_options options;
	static struct vlm v;
	int status = VLM_EXIT_FAILED;

	vlm_options_read(&options, argc, argv);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	pd_log_set_level(options.verbose ? PD_LOG_DEBUG : PD_LOG_WARN);
	if (options.quiet)
		pd_log_set_level(PD_LOG_ERROR);
	if (vlm_open(&v, &options) == 0) {
		vlm_run(&v);
		status = vlm_report(&v);
		if (fflush(stdout) || ferror(stdout)) {
			fprintf(stderr, "palladium_vlm: standard output: %s\n", strerror(errno));
			status = VLM_EXIT_FAILED;
		}
	}
	vlm_close(&v);
	return status;
}
