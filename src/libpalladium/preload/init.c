/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the library begins and ends: find libc's functions, read the configuration when there is
 * any, and leave a program without ports alone.
 *
 * Without a port nothing more is started: no hook, no thread, no descriptor, no file. What goes
 * wrong here costs the program nothing but its ports.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "config/config.h"
#include "config/vars.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "sock/layer.h"

const char *palladium_version(void);

/* The version of the library, for programs that ask with dlsym. */
PD_EXPORT const char *palladium_version(void)
{
	return "0.1.0";
}

/* The process ends: tell the peers, remove the counters' file. */
static void pd_end(void)
{
	pd_lib_enter();
	pd_sock_layer_end();
	pd_lib_leave();
}

/*
 * The library cannot do what it was configured for: with PALLADIUM_EXCEPTION_HANDLING=-2 the
 * program ends here.
 */
static void pd_start_failed(void)
{
	if (pd_vars.exception_handling != PD_EXCEPTION_EXIT)
		return;
	pd_err("init", "the program ends, as PALLADIUM_EXCEPTION_HANDLING=-2 asks");
	_exit(1);
}

/* Read the configuration and start the socket layer if it names a port. */
static void pd_configure(void)
{
	struct pd_config *config;
	int ret;

	pd_vars_load();
	ret = pd_config_load(&config);
	if (ret) {
		pd_err("init", "the configuration cannot be read (%s): no port is used",
		       pd_strerror(ret));
		pd_start_failed();
		return;
	}
	if (config->error_count)
		pd_start_failed();
	if (!config->port_count || !pd_vars.offloaded_sockets) {
		pd_config_free(config);
		return;
	}
	pd_lib_setcanceltype = pd_real.pthread_setcanceltype;
	pd_fork_start();
	if (pd_sock_layer_start(config)) {
		pd_start_failed();
		pd_config_free(config);
		return;
	}
	pd_signal_start();
	atexit(pd_end);
}

/*
 * The loader calls this before main, after the constructors of the libraries that the program
 * links.
 */
static PD_CONSTRUCTOR void pd_init(void)
{
	pd_real_resolve();
	pd_log_start();
	pd_configure();
}
