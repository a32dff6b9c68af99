/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handlers of the program: passed on for now.
 */
#include "preload/real.h"

int PD_WRAP(sigaction)(int sig, const struct sigaction *act, struct sigaction *old)
{
	return pd_real.sigaction(sig, act, old);
}

pd_sighandler PD_WRAP(signal)(int sig, pd_sighandler handler)
{
	return pd_real.signal(sig, handler);
}
