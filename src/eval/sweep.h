/* SPDX-License-Identifier: BSD-2-Clause */
/* sweep: a run for each combination of a table's settings. */
#ifndef EVAL_SWEEP_H
#define EVAL_SWEEP_H

#include "options.h"

#define EV_AXES_MAX 12
#define EV_VALUES_MAX 64

/* One option and the values that it takes in turn. */
struct ev_axis {
	char name[32];
	unsigned n;
	char values[EV_VALUES_MAX][32];
};

struct ev_axes {
	unsigned n;
	struct ev_axis axis[EV_AXES_MAX];
};

/* One row of the table that comes out. */
struct ev_row {
	unsigned value[EV_AXES_MAX]; /* which one of each axis */
	const char *verdict;         /* "refused" where the settings do not go together */
	double mpps, p50_us, p99_us;
	char failure[EV_WHY_MAX];
};

/*
 * Add `text`, NAME=VALUE,VALUE..., to the axes. Values are tried, so that a table with a mistake
 * runs nothing. Returns 0, or -EINVAL with the reason in `why` (EV_WHY_MAX).
 */
int ev_axes_add(struct ev_axes *axes, const char *text, char *why);

/* How many combinations there are. */
uint64_t ev_axes_combinations(const struct ev_axes *axes);

/* Combination `which`, the last axis turning fastest: which value of each axis. */
void ev_axes_pick(const struct ev_axes *axes, uint64_t which, unsigned *value);

/* The command: `arguments` are a file, or more settings behind --table. Returns an enum ev_exit. */
int ev_sweep(struct ev_options *o, int n, char **arguments);

#endif /* EVAL_SWEEP_H */
