/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Print defs/vars.def as the table of README.txt (no argument) or of libpalladium.conf(5)
 * (`--man`). The man page has every variable in full; README.txt those that act, and the names of
 * the others by reason.
 */
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "config/vars.h"

#define WIDTH 100

/* The titles, and the row that each stands before. */
static const struct {
	const char *title;
	size_t offset;
} sections[] = {
#define PD_VAR_SECTION(title) {title, SIZE_MAX},
#define PD_VAR_INT(NAME, field, dflt, min, max, unit, words, acts, vma, help) \
	{NULL, offsetof(struct pd_vars, field)},
#define PD_VAR_SIZE(NAME, field, dflt, min, max, unit, acts, vma, help) \
	{NULL, offsetof(struct pd_vars, field)},
#define PD_VAR_BOOL(NAME, field, dflt, acts, vma, help) {NULL, offsetof(struct pd_vars, field)},
#define PD_VAR_ENUM(NAME, field, dflt, words, acts, vma, help) \
	{NULL, offsetof(struct pd_vars, field)},
#define PD_VAR_STR(NAME, field, dflt, bytes, acts, vma, help) \
	{NULL, offsetof(struct pd_vars, field)},
#include "defs/vars.def"
};

/* What a variable takes: "0..12226 octets, adaptive, forever". */
static void values_of(const struct pd_var_desc *d, char *out, size_t size)
{
	size_t n = 0;

	out[0] = 0;
	if (d->type == PD_VAR_TYPE_BOOL)
		snprintf(out, size, "0, 1");
	else if (d->type == PD_VAR_TYPE_STR)
		snprintf(out, size, "text");
	else if (d->type != PD_VAR_TYPE_ENUM)
		n = (size_t)snprintf(out, size, "%lld..%lld%s%s", (long long)d->min,
				     (long long)d->max, *d->unit ? " " : "", d->unit);
	for (const char *w = d->words; *w;) {
		n += (size_t)snprintf(out + n, size - n, "%s%.*s", n ? ", " : "",
				      (int)strcspn(w, "="), w);
		w += strcspn(w, "|");
		w += *w == '|';
	}
}

/* `text` in lines of at most WIDTH, each indented by `indent`. */
static void wrap(const char *text, int indent)
{
	int column = 0;

	while (*text) {
		int word = (int)strcspn(text, " ");

		if (column && column + 1 + word > WIDTH)
			column = (putchar('\n'), 0);
		if (!column)
			column = printf("%*s%.*s", indent, "", word, text);
		else
			column += printf(" %.*s", word, text);
		text += word;
		text += *text == ' ';
	}
	putchar('\n');
}

/*
 * `text` as roff: no line is a request, no backslash an escape, a minus is a minus; long words may
 * break.
 */
static void roff(const char *text)
{
	if (*text == '.' || *text == '\'')
		printf("\\&");
	for (; *text; text++) {
		if (*text == '\\')
			printf("\\e");
		else if (*text == '-')
			printf("\\-");
		else
			putchar(*text);
		if ((*text == ';' || *text == ',') && text[1] >= '0' && text[1] <= 'z')
			printf("\\:");
	}
}

/* One variable. */
static void row(const struct pd_var_desc *d, int man)
{
	char values[300], dflt[300], head[700], text[1500];

	values_of(d, values, sizeof(values));
	pd_var_format(&pd_vars, d, dflt, sizeof(dflt));
	/* The documents speak of /etc, wherever this build would install. */
	if (*PD_SYSCONFDIR && !strncmp(dflt, PD_SYSCONFDIR "/", sizeof(PD_SYSCONFDIR)))
		snprintf(dflt, sizeof(dflt), "/etc%s", d->default_text + strlen(PD_SYSCONFDIR));
	snprintf(text, sizeof(text), "%s%s%s%s%s%s", d->help, d->idle ? " No effect: " : "",
		 d->idle ? d->idle : "", d->idle ? "." : "",
		 *d->vma && strcmp(d->vma + 4, d->name + 10) ? " In VMA: " : "",
		 *d->vma && strcmp(d->vma + 4, d->name + 10) ? d->vma : "");
	if (man) {
		printf(".TP\n.B %s\n", d->name);
		printf("(%s; default ", values);
		roff(*dflt ? dflt : "empty");
		printf(")\n");
		roff(text);
		putchar('\n');
		return;
	}
	printf("%s\n", d->name);
	snprintf(head, sizeof(head), "%s; default %s", values, *dflt ? dflt : "empty");
	wrap(head, 8);
	wrap(text, 8);
}

/* The row of the field at `offset`. */
static const struct pd_var_desc *desc_at(size_t offset)
{
	unsigned i = 0;

	while (pd_var_descs[i].offset != offset)
		i++;
	return &pd_var_descs[i];
}

/* True when a variable of the section that begins behind `i` acts. */
static int section_acts(size_t i)
{
	for (i++; i < PD_ARRAY_SIZE(sections) && !sections[i].title; i++)
		if (!desc_at(sections[i].offset)->idle)
			return 1;
	return 0;
}

/* The names of the variables that do nothing, by the reason. */
static void idle_names(void)
{
	static char names[8192];

	for (unsigned i = 0; i < pd_var_count; i++) {
		const char *why = pd_var_descs[i].idle;
		unsigned first = 0;
		size_t n = 0;

		if (!why)
			continue;
		while (!pd_var_descs[first].idle || strcmp(pd_var_descs[first].idle, why))
			first++;
		if (first != i)
			continue; /* printed already */
		for (unsigned j = i; j < pd_var_count; j++)
			if (pd_var_descs[j].idle && !strcmp(pd_var_descs[j].idle, why))
				n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s",
						      n ? " " : "", pd_var_descs[j].name);
		printf("%s\n", why);
		wrap(names, 8);
	}
}

int main(int argc, char **argv)
{
	int man = argc > 1 && !strcmp(argv[1], "--man");

	for (size_t i = 0; i < PD_ARRAY_SIZE(sections); i++) {
		if (sections[i].title && !man && !section_acts(i))
			continue;
		if (sections[i].title) {
			printf(man ? ".SS %s\n" : "\n--- %s ---\n\n", sections[i].title);
			continue;
		}
		if (man || !desc_at(sections[i].offset)->idle)
			row(desc_at(sections[i].offset), man);
	}
	if (!man) {
		printf("\n--- Without effect ---\n\n");
		wrap("Known, so that settings made for VMA are understood, but they do nothing; "
		     "libpalladium.conf(5) says what each will mean. By reason:",
		     0);
		putchar('\n');
		idle_names();
		putchar('\n');
	}
	return 0;
}
