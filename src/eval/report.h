/* SPDX-License-Identifier: BSD-2-Clause */
/* What came of a run, in words and as JSON. */
#ifndef EVAL_REPORT_H
#define EVAL_REPORT_H

#include "roles.h"

/* What kind of figure it is: "result" only when every packet was checked and right. */
const char *ev_verdict(const struct ev_options *o, const struct ev_result *r);

/* Print it to standard output, as options->json says. */
void ev_report(const struct ev_options *o, const struct ev_result *r);

/* The same as JSON. */
json_t *ev_report_json(const struct ev_options *o, const struct ev_result *r);

#endif /* EVAL_REPORT_H */
