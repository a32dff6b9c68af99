/* SPDX-License-Identifier: BSD-2-Clause */
/* Other programs: perf, valgrind, gnuplot. */
#ifndef EVAL_PROGRAM_H
#define EVAL_PROGRAM_H

#include <stdbool.h>

/* Whether there is such a program on PATH. */
bool ev_installed(const char *program);

#endif /* EVAL_PROGRAM_H */
