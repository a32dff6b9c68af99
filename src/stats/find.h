/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding the statistics files, telling the living from the dead, clearing away the latter. */
#ifndef PD_STATS_FIND_H
#define PD_STATS_FIND_H

#include "reader.h"

enum pd_stats_life {
	PD_STATS_ALIVE,
	PD_STATS_DEAD, /* gone, or another process has the pid, or it has executed something else */
	PD_STATS_FOREIGN /* in another PID namespace: cannot tell */
};

struct pd_stats_found {
	struct pd_stats_file file;
	enum pd_stats_life life;
	uid_t uid;
	char path[4096];
};

struct pd_stats_list {
	size_t count;
	struct pd_stats_found **items;
	/* Files and directories that were not to be trusted; said on standard error */
	unsigned refused;
};

/*
 * Open every statistics file of a process in reach: below `dir`, or in the usual places when it is
 * NULL. Files of dead processes are removed (with `clean`, and when they are ours) and not listed.
 * Ends the program when memory is out.
 */
void pd_stats_find(const char *dir, bool clean, struct pd_stats_list *out);
void pd_stats_list_free(struct pd_stats_list *list);

/*
 * Whether the process of the file still runs. `path` may be NULL; with it an exec is noticed too.
 */
enum pd_stats_life pd_stats_life_of(const struct pd_shm_owner *owner, const char *path);

#endif /* PD_STATS_FIND_H */
