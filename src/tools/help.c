/* SPDX-License-Identifier: BSD-2-Clause */
/* The help text of a tool (contract in help.h). */
#include "help.h"

#include <stdio.h>
#include <string.h>

void tool_help_print(const char *text, int column)
{
	if (column > TOOL_HELP_AT - 2) {
		putchar('\n');
		column = 0;
	}
	printf("%*s", TOOL_HELP_AT - column, "");
	column = TOOL_HELP_AT;
	while (*text) {
		int n = (int)strcspn(text, " ");

		if (column > TOOL_HELP_AT && column + 1 + n > TOOL_HELP_WIDTH) {
			printf("\n%*s", TOOL_HELP_AT, "");
			column = TOOL_HELP_AT;
		}
		column += printf("%s%.*s", column > TOOL_HELP_AT ? " " : "", n, text);
		text += n + (text[n] != 0);
	}
	putchar('\n');
}
