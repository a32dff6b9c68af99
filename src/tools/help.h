/* SPDX-License-Identifier: BSD-2-Clause */
/* The help text of a tool: options on the left, what they do in a column on the right. */
#ifndef TOOLS_HELP_H
#define TOOLS_HELP_H

/* Where the column begins, and where its lines end. */
#define TOOL_HELP_AT 30
#define TOOL_HELP_WIDTH 88

/*
 * Print `text` to standard output in lines from column TOOL_HELP_AT on, broken between words; the
 * cursor stands at `column`, behind the option. Ends with a new line.
 */
void tool_help_print(const char *text, int column);

#endif /* TOOLS_HELP_H */
