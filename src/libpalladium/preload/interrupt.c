/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PALLADIUM_HANDLE_SIGINTR: what happens on SIGINT before the program's handler, or in place of the
 * default end.
 *
 * A handler may not take locks or memory, so the progress thread does the work (sock/layer.c), and
 * the handler waits for it. Without a handler of the program's it closes the ports, as at an exit,
 * and then ends the process by the signal, so that its parent sees what it would have seen. The
 * wait is short: the interrupted thread may be inside malloc, whose lock the work needs, so that it
 * has to go on for a moment. A second SIGINT ends the program at once.
 */
#include <signal.h>

#include "base/atomic.h"
#include "base/fault.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "sock/layer.h"

void pd_interrupted(bool end)
{
	static uint32_t ending;
	bool foreign = pd_fd_foreign_process();

	if (end && (foreign || pd_exchange(&ending, 1)))
		pd_fault_die(SIGINT);
	if (!foreign && !pd_sock_layer_interrupt(end) && end)
		pd_fault_die(SIGINT);
}
