/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fork: libc runs our three handlers around every fork, daemon's included, and they run the list of
 * base/lib.h. vfork, posix_spawn and a raw clone run no handlers: their child shares or copies our
 * memory with another process id, which pd_fd_foreign_process notices.
 *
 * exec: the sockets' placeholders stay open as the program asked, our table is gone, and the
 * preload starts anew in the new program.
 */
#include <pthread.h>

#include "preload/preload.h"
#include "preload/real.h"

/*
 * Locks are held from here to the end of the fork, so handlers wait: a fork is inside the library.
 */
static void pd_fork_prepare(void)
{
	pd_lib_enter();
	pd_fork_run_prepare();
}

static void pd_fork_parent(void)
{
	pd_fork_run_parent();
	pd_lib_leave();
}

static void pd_fork_child(void)
{
	pd_fork_run_child();
	pd_lib_leave();
}

void pd_fork_start(void)
{
	pd_fd_adopt();
	pthread_atfork(pd_fork_prepare, pd_fork_parent, pd_fork_child);
}
