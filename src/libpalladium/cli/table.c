/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables that commands print (contract in table.h). */
#include <inttypes.h>
#include <stdio.h>

#include "cli/table.h"

/* Print `text` in the column `c`, the last one without blanks behind it. */
static void print_cell(struct pd_cli *cli, const struct pd_cli_column *c, const char *text,
		       bool first, bool last)
{
	pd_cli_print(cli, "%s%*s", first ? "" : " ", last && c->width < 0 ? 0 : c->width, text);
}

/* A number's text in columns. */
static const char *number_text(const struct pd_cli_column *c, const union pd_cli_cell *cell,
			       char *text, size_t size)
{
	if (c->kind == PD_CLI_NUMBER)
		snprintf(text, size, "%" PRIu64, cell->number);
	else
		snprintf(text, size, c->kind == PD_CLI_CLOCKS ? "%.2e" : "%.2f", cell->real);
	return text;
}

void pd_cli_table_titles(struct pd_cli *cli, const struct pd_cli_table *t)
{
	for (unsigned i = 0, shown = 0; i < t->n && !cli->json; i++)
		if (t->columns[i].title)
			print_cell(cli, &t->columns[i], t->columns[i].title, !shown++,
				   i + 1 == t->n);
	if (!cli->json)
		pd_cli_print(cli, "\n");
}

void pd_cli_table_begin(struct pd_cli *cli, struct pd_cli_table *t,
			const struct pd_cli_column *columns, unsigned n, const char *key,
			const char *more, bool titles)
{
	*t = (struct pd_cli_table){.columns = columns, .n = n};
	if (cli->json)
		pd_cli_print(cli, "{%s\"%s\": [", more, key);
	else if (titles)
		pd_cli_table_titles(cli, t);
}

/* A cell as a member of a JSON object. */
static void json_cell(struct pd_cli *cli, const struct pd_cli_column *c,
		      const union pd_cli_cell *cell, bool first)
{
	pd_cli_print(cli, "%s\"%s\": ", first ? "" : ", ", c->key);
	if (c->kind == PD_CLI_TEXT)
		pd_cli_json_string(cli, cell->text);
	else if (c->kind == PD_CLI_NUMBER)
		pd_cli_print(cli, "%" PRIu64, cell->number);
	else
		pd_cli_print(cli, "%.6g", cell->real);
}

void pd_cli_table_row(struct pd_cli *cli, struct pd_cli_table *t, const union pd_cli_cell *cells)
{
	unsigned shown = 0;
	char text[48];

	if (cli->json)
		pd_cli_print(cli, "%s\n  {", t->rows ? "," : "");
	for (unsigned i = 0; i < t->n; i++) {
		const struct pd_cli_column *c = &t->columns[i];

		if (cli->json && c->key)
			json_cell(cli, c, &cells[i], !shown++);
		else if (!cli->json && c->title)
			print_cell(cli, c,
				   c->kind == PD_CLI_TEXT
					   ? cells[i].text
					   : number_text(c, &cells[i], text, sizeof(text)),
				   !shown++, i + 1 == t->n);
	}
	pd_cli_print(cli, "%s", cli->json ? "}" : "\n");
	t->rows++;
}

void pd_cli_table_end(struct pd_cli *cli, struct pd_cli_table *t)
{
	if (cli->json)
		pd_cli_print(cli, "%s]}\n", t->rows ? "\n" : "");
}
