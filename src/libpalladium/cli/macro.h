/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Macros of the debug CLI: names that stand for text.
 *
 *   define ip1 192.168.1.1/24
 *   show $ip1, or $(ip1)
 *   define both \$(ip1) \$(ip2)       expanded when $both is, not now
 *
 * An expansion is expanded in its turn. Names that lead round in a circle end at
 * PD_CLI_MACRO_LEVELS. So that no table, however made, keeps the progress thread busy, one line
 * takes PD_CLI_EXPANSIONS_MAX expansions and PD_CLI_LINE_BYTES of text at most.
 */
#ifndef PD_CLI_MACRO_H
#define PD_CLI_MACRO_H

#include <stddef.h>

/* With their NUL. */
#define PD_CLI_LINE_BYTES 4096
#define PD_CLI_MACRO_NAME_BYTES 32

#define PD_CLI_MACRO_LEVELS 8
#define PD_CLI_MACROS_MAX 64
#define PD_CLI_EXPANSIONS_MAX 256

/* A table; all zero is an empty one. */
struct pd_cli_macros {
	unsigned n;
	struct pd_cli_macro {
		char name[PD_CLI_MACRO_NAME_BYTES];
		char *value;
	} macros[PD_CLI_MACROS_MAX]; /* in the order of their names */
};

/*
 * Give `name` the value `value` (copied), whatever it had. Returns 0, -EINVAL for what cannot be a
 * name (letters, digits, _; no digit first), -ENAMETOOLONG, -ENOSPC when the table is full, or
 * -ENOMEM.
 */
int pd_cli_macro_define(struct pd_cli_macros *table, const char *name, const char *value);

/* Forget `name`. Returns 0, or -ENOENT when it is not there. */
int pd_cli_macro_undefine(struct pd_cli_macros *table, const char *name);

/* Forget all. */
void pd_cli_macros_free(struct pd_cli_macros *table);

/*
 * Write `line` with its macros expanded to `out` (PD_CLI_LINE_BYTES). Returns 0; or -ELOOP at too
 * many levels, -ENOENT for a macro that is not there, -EINVAL for a $( that is not closed, -E2BIG
 * when the result is too long, -EOVERFLOW at too many expansions, with what is wrong in `name`
 * (PD_CLI_MACRO_NAME_BYTES), where it has a name.
 */
int pd_cli_macro_expand(const struct pd_cli_macros *table, const char *line, char *out, char *name);

#endif /* PD_CLI_MACRO_H */
