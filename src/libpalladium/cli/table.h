/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables that commands print: for people in columns, for scripts as JSON.
 *
 *   { "errors": [ {"count": 5, "node": "packet-match", "reason": "..."}, ... ] }
 */
#ifndef PD_CLI_TABLE_H
#define PD_CLI_TABLE_H

#include <stdint.h>

#include "cli/cli.h"

enum pd_cli_kind {
	PD_CLI_TEXT,
	PD_CLI_NUMBER,
	PD_CLI_REAL,   /* 2.50 */
	PD_CLI_CLOCKS, /* 4.76e+03 */
};

struct pd_cli_column {
	const char *title; /* NULL: in JSON alone */
	const char *key;   /* in JSON; NULL: in columns alone */
	enum pd_cli_kind kind;
	int width; /* negative: to the left. The last may be 0 */
};

/* By the column's kind. */
union pd_cli_cell {
	const char *text;
	uint64_t number;
	double real;
};

/* One that is being printed; keep it from step to step. */
struct pd_cli_table {
	const struct pd_cli_column *columns;
	unsigned n;
	unsigned long rows;
};

/*
 * Begin a table, called `key` in JSON. `more` is put in front of it there: members of the object,
 * each with a comma behind it, or "". The titles are printed with `titles`, else by
 * pd_cli_table_titles.
 */
void pd_cli_table_begin(struct pd_cli *cli, struct pd_cli_table *t,
			const struct pd_cli_column *columns, unsigned n, const char *key,
			const char *more, bool titles);
/* Print the titles (nothing in JSON). */
void pd_cli_table_titles(struct pd_cli *cli, const struct pd_cli_table *t);
/* One row: a cell for each column. */
void pd_cli_table_row(struct pd_cli *cli, struct pd_cli_table *t, const union pd_cli_cell *cells);
/* After the last row. */
void pd_cli_table_end(struct pd_cli *cli, struct pd_cli_table *t);

#endif /* PD_CLI_TABLE_H */
