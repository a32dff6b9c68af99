/* SPDX-License-Identifier: BSD-2-Clause */
/* What palladium_stats prints: tables for people, one JSON object a cycle for programs. */
#ifndef PD_STATS_PRINT_H
#define PD_STATS_PRINT_H

#include "find.h"

struct pd_stats_style {
	int view;  /* 1 basic, 2 also lanes and the sockets' details, 3 every counter */
	bool rate; /* per second since the last report instead of totals */
};

/* One report. `cycle` counts from 1; `ended` says that the process is gone and this is the last. */
void pd_stats_print_text(const struct pd_stats_found *p, const struct pd_stats_snap *s,
			 const struct pd_stats_style *style, unsigned long cycle, bool ended);
void pd_stats_print_json(const struct pd_stats_found *p, const struct pd_stats_snap *s,
			 const struct pd_stats_style *style, unsigned long cycle, bool ended);

/* The processes that can be watched. */
void pd_stats_print_list(const struct pd_stats_list *list, bool json);

/* A user's name, or the number as a text; valid until the next call. */
const char *pd_stats_user(uid_t uid);

#endif /* PD_STATS_PRINT_H */
