/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables of texts with columns as wide as they must be. */
#ifndef PD_STATS_TABLE_H
#define PD_STATS_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#define PD_TABLE_COLUMNS 24
#define PD_TABLE_CELL 160

struct pd_table {
	unsigned columns;
	size_t rows, room;
	bool left[PD_TABLE_COLUMNS]; /* columns to be set flush left */
	char (*cells)[PD_TABLE_COLUMNS][PD_TABLE_CELL];
	unsigned at; /* column of the next cell */
};

/* Begin a new row; the first one is the heading. Ends the program when memory is out. */
void pd_table_row(struct pd_table *t);

/* The next cell of the row, printf-like; longer texts are cut. */
void pd_table_cell(struct pd_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Print to standard output, `indent` blanks before each line, and empty the table. */
void pd_table_print(struct pd_table *t, int indent);

#endif /* PD_STATS_TABLE_H */
