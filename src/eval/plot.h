/* SPDX-License-Identifier: BSD-2-Clause */
/* A sweep drawn by gnuplot. */
#ifndef EVAL_PLOT_H
#define EVAL_PLOT_H

#include <stdio.h>

#include "sweep.h"

/* Ends the program when `path` is neither .png nor .svg, or when there is no gnuplot. */
void ev_plot_check(const char *path);

/*
 * Write what gnuplot is told to draw the `n` rows into `path`: the first axis whose values are all
 * numbers across, else the first one; a line for each combination of the others.
 */
void ev_plot_script(FILE *out, const char *path, const struct ev_axes *axes,
		    const struct ev_row *rows, uint64_t n);

/* Draw it. Returns 0 or -errno, having said why. */
int ev_plot(const char *path, const struct ev_axes *axes, const struct ev_row *rows, uint64_t n);

#endif /* EVAL_PLOT_H */
