/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding the programs that can be talked to. */
#ifndef PD_CTL_TARGETS_H
#define PD_CTL_TARGETS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "client.h"

struct pd_ctl_target {
	int pid;
	uid_t uid;
	char path[4096];
	char program[64], version[32];
	bool answers;
	char error[PD_CTL_ERROR_BYTES]; /* why it does not */
};

struct pd_ctl_targets {
	struct pd_ctl_target *items;
	size_t n;
};

/*
 * Collect the sockets of living programs below `dir`, or in the usual places when it is NULL; of
 * the process `pid` alone unless that is 0, and of programs called `name` (a pattern) alone unless
 * that is NULL. Each is asked who it is. Ends the program when memory is out.
 */
void pd_ctl_targets_find(const char *dir, long pid, const char *name, struct pd_ctl_targets *out);
void pd_ctl_targets_free(struct pd_ctl_targets *targets);

/* Say on standard error why there is no such program. */
void pd_ctl_targets_none(const char *dir, long pid, const char *name);

/* The name of a user, or its number; valid until the next call. */
const char *pd_ctl_user(uid_t uid);

#endif /* PD_CTL_TARGETS_H */
