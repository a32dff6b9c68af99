/* SPDX-License-Identifier: BSD-2-Clause */
/* profile: a run, and what counters say of each role. */
#ifndef EVAL_PROFILE_H
#define EVAL_PROFILE_H

#include "options.h"

/* The command, for options that are settled. Returns an enum ev_exit. */
int ev_profile(struct ev_options *o);

#endif /* EVAL_PROFILE_H */
