/* SPDX-License-Identifier: BSD-2-Clause */
/* What came of a run, as text or JSON. */
#ifndef VLM_REPORT_H
#define VLM_REPORT_H

#include "run.h"

/*
 * Print the report of a finished run on standard output. Returns the exit status: 0, or
 * VLM_EXIT_FAILED when anything was not as expected.
 */
int vlm_report(const struct vlm *v);

#endif /* VLM_REPORT_H */
