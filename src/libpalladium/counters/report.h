/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PALLADIUM_STATS_FILE: the counters of each socket as text, when it is closed and when the program
 * ends.
 *
 * A report is seven lines of VMA's form under one that says which socket it is, written by one
 * write(2) to the end of the file, so that programs may share it. A socket that neither sent nor
 * received has none.
 */
#ifndef PD_COUNTERS_REPORT_H
#define PD_COUNTERS_REPORT_H

#include "counters/counters.h"

/*
 * Report to the file `path` from here on; "%d" in it stands for the process id. `path` is borrowed
 * for ever; an empty one means no reports. Once, before there are threads. Returns 0 or -errno.
 */
int pd_ctr_report_start(const char *path);

/* No more reports: the program ends. */
void pd_ctr_report_stop(void);

/* True when there is a file to report to. */
bool pd_ctr_report_wanted(void);

/*
 * A child of fork has a file of its own where the path says so: see to that. Control path; no leaf
 * lock held.
 */
void pd_ctr_report_begin(void);

/*
 * Report the socket `b`, child of the port named `port` ("" for all). Control path; a leaf lock may
 * be held.
 */
void pd_ctr_report_write(struct pd_ctr_block *b, const char *port);

#endif /* PD_COUNTERS_REPORT_H */
