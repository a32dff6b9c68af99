/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of settings. A file has a NAME=VALUE,... on each line, or several; # begins a comment.
 * What the table says overrides the command line. Settings that do not go together make a row that
 * says why, and the sweep goes on; Ctrl-C ends it, and what was measured is written.
 */
#include "sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot.h"
#include "report.h"

#define COMBINATIONS_MAX 10000
#define BLANKS " \t\r\n"

/* What a run does not depend on, and so is of no use in a table. */
static bool in_tables(const char *name)
{
	static const char *const others[] = {"table", "csv",  "plot",        "items",   "output",
					     "with",  "json", "show-layout", "verbose", "quiet"};

	for (size_t i = 0; i < PD_ARRAY_SIZE(others); i++)
		if (!strcmp(others[i], name))
			return false;
	return true;
}

/* Add one value to an axis, if the option takes it. Returns 0 or -EINVAL. */
static int add_value(struct ev_axis *axis, const char *text, size_t length, char *why)
{
	struct ev_options trial;
	char *value = axis->values[axis->n];

	if (!in_tables(axis->name))
		return ev_no(why, "%s has no meaning in a table", axis->name);
	if (axis->n == EV_VALUES_MAX || !length || length >= sizeof(axis->values[0]))
		return ev_no(why, "%s: expected 1 to %d values of at most %zu characters",
			     axis->name, EV_VALUES_MAX, sizeof(axis->values[0]) - 1);
	snprintf(value, sizeof(axis->values[0]), "%.*s", (int)length, text);
	/* gnuplot has words of its own for other characters. */
	if (value[strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-:")])
		return ev_no(why, "%s %s: expected letters, digits, - and :", axis->name, value);
	ev_options_default(&trial);
	axis->n++;
	return ev_options_set(&trial, axis->name, value, why);
}

int ev_axes_add(struct ev_axes *axes, const char *text, char *why)
{
	const char *equals = strchr(text, '='), *p;
	struct ev_axis *axis = &axes->axis[axes->n];
	int err = 0;

	if (!equals || equals == text || equals - text >= (int)sizeof(axis->name))
		return ev_no(why, "\"%s\": expected NAME=VALUE,VALUE...", text);
	if (axes->n == EV_AXES_MAX)
		return ev_no(why, "%s: there are more than %d settings", text, EV_AXES_MAX);
	*axis = (struct ev_axis){0};
	snprintf(axis->name, sizeof(axis->name), "%.*s", (int)(equals - text), text);
	for (unsigned i = 0; i < axes->n; i++)
		if (!strcmp(axes->axis[i].name, axis->name))
			return ev_no(why, "%s stands there twice", axis->name);
	for (p = equals + 1; !err; p += strcspn(p, ",") + 1) {
		err = add_value(axis, p, strcspn(p, ","), why);
		if (!p[strcspn(p, ",")])
			break;
	}
	axes->n += !err;
	return err;
}

uint64_t ev_axes_combinations(const struct ev_axes *axes)
{
	uint64_t n = 1;

	for (unsigned i = 0; i < axes->n; i++)
		n = pd_min(n * axes->axis[i].n, (uint64_t)COMBINATIONS_MAX + 1);
	return n;
}

void ev_axes_pick(const struct ev_axes *axes, uint64_t which, unsigned *value)
{
	for (unsigned i = axes->n; i--;) {
		value[i] = (unsigned)(which % axes->axis[i].n);
		which /= axes->axis[i].n;
	}
}

/* --- reading ------------------------------------------------------------------------------- */

/* Add the settings of a line, which is cut up. Returns 0 or -EINVAL. */
static int add_line(struct ev_axes *axes, char *line, char *why)
{
	char *rest = NULL, *item;
	int err = 0;

	line[strcspn(line, "#")] = 0;
	for (item = strtok_r(line, BLANKS, &rest); item && !err;
	     item = strtok_r(NULL, BLANKS, &rest))
		err = ev_axes_add(axes, item, why);
	return err;
}

/* Read the file at `path`; ends the program with FILE:LINE where there is a mistake. */
static void read_file(struct ev_axes *axes, const char *path)
{
	char line[4096], why[EV_WHY_MAX];
	FILE *file = fopen(path, "re");

	if (!file)
		ev_refuse("%s: %s", path, strerror(errno));
	for (unsigned n = 1; fgets(line, sizeof(line), file); n++) {
		if (!strchr(line, '\n') && !feof(file))
			ev_refuse("%s:%u: longer than %zu characters", path, n, sizeof(line) - 2);
		if (add_line(axes, line, why))
			ev_refuse("%s:%u: %s", path, n, why);
	}
	if (ferror(file))
		ev_refuse("%s: %s", path, strerror(errno));
	fclose(file);
}

/* The settings of the command line. */
static void read_axes(struct ev_axes *axes, const struct ev_options *o, int n, char **arguments)
{
	char why[EV_WHY_MAX], *table;

	if (!o->table && n == 1) {
		read_file(axes, arguments[0]);
	} else if (!o->table) {
		ev_refuse("sweep: expected a FILE, or --table NAME=VALUE,...");
	} else {
		table = strdup(o->table);
		if (!table || add_line(axes, table, why))
			ev_refuse("--table: %s", table ? why : "no memory");
		free(table);
		for (int i = 0; i < n; i++)
			if (ev_axes_add(axes, arguments[i], why))
				ev_refuse("--table: %s", why);
	}
	if (!axes->n)
		ev_refuse("sweep: there are no settings");
	if (ev_axes_combinations(axes) > COMBINATIONS_MAX)
		ev_refuse("sweep: more than %d combinations", COMBINATIONS_MAX);
}

/* --- running ------------------------------------------------------------------------------- */

/* Run one combination and note what came of it. Returns whether the sweep may go on. */
static bool run_one(const struct ev_options *base, const struct ev_axes *axes, struct ev_row *row)
{
	static struct ev_result result;
	struct ev_options o = *base;
	int err = 0;

	for (unsigned i = 0; !err && i < axes->n; i++)
		err = ev_options_set(&o, axes->axis[i].name, axes->axis[i].values[row->value[i]],
				     row->failure);
	if (!err)
		err = ev_options_settle(&o, row->failure);
	row->verdict = "refused";
	if (err)
		return true;
	ev_run(&o, NULL, &result);
	row->verdict = ev_verdict(&o, &result);
	row->mpps = result.mpps;
	snprintf(row->failure, sizeof(row->failure), "%s", result.failure);
	if (o.latency) {
		row->p50_us = (double)tool_hist_quantile(&result.told.latency, 0.5) / 1e3;
		row->p99_us = (double)tool_hist_quantile(&result.told.latency, 0.99) / 1e3;
	}
	return !result.interrupted;
}

/* Write `text` as one field of CSV (RFC 4180). */
static void write_field(FILE *out, const char *text)
{
	if (!strpbrk(text, ",\"\n")) {
		fputs(text, out);
		return;
	}
	putc('"', out);
	for (; *text; text++) {
		if (*text == '"')
			putc('"', out);
		putc(*text, out);
	}
	putc('"', out);
}

/* Write the head of the table. */
static void write_head(FILE *out, const struct ev_axes *axes, const struct ev_options *o)
{
	for (unsigned i = 0; i < axes->n; i++)
		fprintf(out, "%s,", axes->axis[i].name);
	fprintf(out, "verdict,mpps%s,failure\n", o->latency ? ",p50_us,p99_us" : "");
	fflush(out);
}

/* Write one row: at once, so that a sweep that is ended leaves what it measured. */
static void write_row(FILE *out, const struct ev_axes *axes, const struct ev_options *o,
		      const struct ev_row *row)
{
	for (unsigned i = 0; i < axes->n; i++) {
		write_field(out, axes->axis[i].values[row->value[i]]);
		putc(',', out);
	}
	fprintf(out, "%s,%.4f,", row->verdict, row->mpps);
	if (o->latency)
		fprintf(out, "%.3f,%.3f,", row->p50_us, row->p99_us);
	write_field(out, row->failure);
	putc('\n', out);
	fflush(out);
}

/* Tell what comes next. */
static void tell(const struct ev_options *o, const struct ev_axes *axes, const struct ev_row *row,
		 uint64_t i, uint64_t n)
{
	if (o->quiet)
		return;
	fprintf(stderr, "palladium_eval: run %" PRIu64 " of %" PRIu64 ":", i + 1, n);
	for (unsigned k = 0; k < axes->n; k++)
		fprintf(stderr, " %s=%s", axes->axis[k].name, axes->axis[k].values[row->value[k]]);
	fputc('\n', stderr);
}

/* Run all combinations into `rows`, and write them. Returns how many there are rows of. */
static uint64_t run_all(const struct ev_options *o, const struct ev_axes *axes, struct ev_row *rows,
			FILE *out, int *status)
{
	uint64_t n = ev_axes_combinations(axes), i;
	bool on = true;

	write_head(out, axes, o);
	for (i = 0; on && i < n; i++) {
		ev_axes_pick(axes, i, rows[i].value);
		tell(o, axes, &rows[i], i, n);
		on = run_one(o, axes, &rows[i]);
		write_row(out, axes, o, &rows[i]);
		if (!strcmp(rows[i].verdict, "failed"))
			*status = EV_EXIT_FAILED;
	}
	return i;
}

int ev_sweep(struct ev_options *o, int n, char **arguments)
{
	static struct ev_axes axes;
	struct ev_row *rows;
	FILE *out = stdout;
	int status = EV_EXIT_OK;
	uint64_t done;

	read_axes(&axes, o, n, arguments);
	if (o->plot)
		ev_plot_check(o->plot);
	if (o->csv)
		out = fopen(o->csv, "we");
	if (!out)
		ev_refuse("%s: %s", o->csv, strerror(errno));
	rows = calloc(ev_axes_combinations(&axes), sizeof(*rows));
	if (!rows)
		ev_refuse("no memory");
	done = run_all(o, &axes, rows, out, &status);
	if (o->csv && (ferror(out) | fclose(out))) {
		fprintf(stderr, "palladium_eval: %s: it cannot be written\n", o->csv);
		status = EV_EXIT_FAILED;
	}
	if (o->plot && ev_plot(o->plot, &axes, rows, done))
		status = EV_EXIT_FAILED;
	free(rows);
	return status;
}
