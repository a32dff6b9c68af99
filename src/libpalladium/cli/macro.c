/* SPDX-License-Identifier: BSD-2-Clause */
/* Macros of the debug CLI (contract in macro.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/macro.h"

/* One line that is being expanded. */
struct expansion {
	const struct pd_cli_macros *table;
	char *out, *name;
	size_t n;
	unsigned count;
};

/* How many of the first characters of `text` can be a name; 0: none stands there. */
static size_t name_length(const char *text)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
	static const char more[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

	return strspn(text, first) ? strspn(text, more) : 0;
}

/* The place of `name` in the table, or where it would go; *found says which. */
static unsigned find(const struct pd_cli_macros *table, const char *name, int *found)
{
	unsigned i;

	*found = 0;
	for (i = 0; i < table->n; i++) {
		int order = strcmp(table->macros[i].name, name);

		*found = !order;
		if (order >= 0)
			break;
	}
	return i;
}

int pd_cli_macro_define(struct pd_cli_macros *table, const char *name, const char *value)
{
	size_t n = name_length(name);
	unsigned at;
	char *copy;
	int found;

	if (!n || name[n])
		return -EINVAL;
	if (n >= PD_CLI_MACRO_NAME_BYTES)
		return -ENAMETOOLONG;
	at = find(table, name, &found);
	if (!found && table->n == PD_CLI_MACROS_MAX)
		return -ENOSPC;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	if (found) {
		free(table->macros[at].value);
	} else {
		memmove(&table->macros[at + 1], &table->macros[at],
			(table->n - at) * sizeof(table->macros[0]));
		table->n++;
		memcpy(table->macros[at].name, name, n + 1);
	}
	table->macros[at].value = copy;
	return 0;
}

int pd_cli_macro_undefine(struct pd_cli_macros *table, const char *name)
{
	int found;
	unsigned at = find(table, name, &found);

	if (!found)
		return -ENOENT;
	free(table->macros[at].value);
	table->n--;
	memmove(&table->macros[at], &table->macros[at + 1],
		(table->n - at) * sizeof(table->macros[0]));
	return 0;
}

void pd_cli_macros_free(struct pd_cli_macros *table)
{
	while (table->n)
		free(table->macros[--table->n].value);
}

/* Add one character. Returns 0 or -E2BIG. */
static int put(struct expansion *e, char c)
{
	if (e->n + 1 >= PD_CLI_LINE_BYTES)
		return -E2BIG;
	e->out[e->n++] = c;
	return 0;
}

/*
 * Read the reference at `text`, which begins with '$', into e->name. Returns its length with the
 * '$', 0 when this is a '$' and nothing more, or -errno.
 */
static int reference(struct expansion *e, const char *text)
{
	int closed = text[1] == '(';
	const char *name = text + 1 + closed;
	size_t n = name_length(name),
	       shown = n < PD_CLI_MACRO_NAME_BYTES - 1 ? n : PD_CLI_MACRO_NAME_BYTES - 1;

	if (!n && !closed)
		return 0;
	memcpy(e->name, name, shown);
	e->name[shown] = '\0';
	if (closed && (!n || name[n] != ')'))
		return -EINVAL;
	return n == shown ? (int)(1 + n + 2 * (size_t)closed) : -ENOENT;
}

/* Add `text` with its macros expanded, itself of level `level`. Returns 0 or -errno. */
static int expand(struct expansion *e, const char *text, unsigned level)
{
	int found, ret = 0;

	while (*text && !ret) {
		int length = *text == '$' ? reference(e, text) : 0;
		unsigned at;

		if (length < 0)
			return length;
		if (!length) {
			if (*text == '\\' && text[1] == '$')
				text++;
			ret = put(e, *text++);
			continue;
		}
		text += length;
		at = find(e->table, e->name, &found);
		if (!found)
			return -ENOENT;
		if (level + 1 >= PD_CLI_MACRO_LEVELS)
			return -ELOOP;
		if (++e->count > PD_CLI_EXPANSIONS_MAX)
			return -EOVERFLOW;
		ret = expand(e, e->table->macros[at].value, level + 1);
	}
	return ret;
}

int pd_cli_macro_expand(const struct pd_cli_macros *table, const char *line, char *out, char *name)
{
	struct expansion e = {.table = table, .out = out, .name = name};
	int ret;

	*name = '\0';
	ret = expand(&e, line, 0);
	out[e.n] = '\0';
	return ret;
}
