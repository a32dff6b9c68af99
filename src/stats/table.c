/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables of texts. Cells are kept until all widths are known. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

void pd_table_row(struct pd_table *t)
{
	if (t->rows == t->room) {
		t->room = t->room ? 2 * t->room : 16;
		t->cells = realloc(t->cells, t->room * sizeof(*t->cells));
		if (!t->cells) {
			fprintf(stderr, "palladium_stats: out of memory\n");
			exit(1);
		}
	}
	memset(t->cells[t->rows], 0, sizeof(t->cells[0]));
	t->rows++;
	t->at = 0;
}

void pd_table_cell(struct pd_table *t, const char *fmt, ...)
{
	va_list ap;

	if (t->at == PD_TABLE_COLUMNS)
		return;
	va_start(ap, fmt);
	vsnprintf(t->cells[t->rows - 1][t->at++], PD_TABLE_CELL, fmt, ap);
	va_end(ap);
	if (t->columns < t->at)
		t->columns = t->at;
}

void pd_table_print(struct pd_table *t, int indent)
{
	size_t width[PD_TABLE_COLUMNS] = {0}, len;
	unsigned last;

	for (size_t r = 0; r < t->rows; r++)
		for (unsigned c = 0; c < t->columns; c++) {
			len = strlen(t->cells[r][c]);
			width[c] = len > width[c] ? len : width[c];
		}
	for (size_t r = 0; r < t->rows; r++) {
		printf("%*s", indent, "");
		for (last = t->columns; last && !t->cells[r][last - 1][0]; last--)
			;
		for (unsigned c = 0; c < last; c++) {
			int w = t->left[c] ? -(int)width[c] : (int)width[c];

			printf("%s%*s", c ? "  " : "", c + 1 == last && w < 0 ? 0 : w,
			       t->cells[r][c]);
		}
		putchar('\n');
	}
	free(t->cells);
	*t = (struct pd_table){0};
}
