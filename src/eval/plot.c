/* SPDX-License-Identifier: BSD-2-Clause */
/* gnuplot's part of a sweep: the script, and who runs it. */
#include "plot.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "program.h"

/* Whether `path` ends in `ending`. */
static bool ends_in(const char *path, const char *ending)
{
	size_t n = strlen(path), k = strlen(ending);

	return n > k && !strcmp(path + n - k, ending);
}

void ev_plot_check(const char *path)
{
	if (!ends_in(path, ".png") && !ends_in(path, ".svg"))
		ev_refuse("--plot %s: expected a name that ends in .png or .svg", path);
	if (strpbrk(path, "'\n"))
		ev_refuse("--plot %s: the name may have no quote in it", path);
	if (!ev_installed("gnuplot"))
		ev_refuse("--plot: there is no gnuplot on this machine (Debian: gnuplot-nox); "
			  "without --plot the table is made all the same");
}

/* --- the script ---------------------------------------------------------------------------- */

/* The axis that goes across. */
static unsigned across(const struct ev_axes *axes)
{
	for (unsigned i = 0; i < axes->n; i++) {
		const struct ev_axis *a = &axes->axis[i];
		unsigned k = 0;

		while (k < a->n && !a->values[k][strspn(a->values[k], "0123456789")])
			k++;
		if (k == a->n && k > 1)
			return i;
	}
	return 0;
}

/* Whether two rows belong to one line: all but axis `x` are the same. */
static bool same_line(const struct ev_axes *axes, unsigned x, const struct ev_row *a,
		      const struct ev_row *b)
{
	for (unsigned i = 0; i < axes->n; i++)
		if (i != x && a->value[i] != b->value[i])
			return false;
	return true;
}

/* Whether a row is the first of its line. */
static bool first_of_line(const struct ev_axes *axes, unsigned x, const struct ev_row *rows,
			  uint64_t i)
{
	for (uint64_t k = 0; k < i; k++)
		if (same_line(axes, x, &rows[k], &rows[i]))
			return false;
	return true;
}

/* The points of the line that row `first` begins, as a block of data. */
static void write_points(FILE *out, const struct ev_axes *axes, unsigned x,
			 const struct ev_row *rows, uint64_t n, uint64_t first, unsigned line)
{
	fprintf(out, "$line%u << END\n", line);
	for (uint64_t i = first; i < n; i++)
		if (same_line(axes, x, &rows[first], &rows[i]) && rows[i].mpps > 0)
			fprintf(out, "%u \"%s\" %.4f\n", rows[i].value[x],
				axes->axis[x].values[rows[i].value[x]], rows[i].mpps);
	fprintf(out, "END\n");
}

/* The name of a line: the settings that differ from line to line, and whether it was checked. */
static void write_title(FILE *out, const struct ev_axes *axes, unsigned x, const struct ev_row *row)
{
	bool any = false;

	for (unsigned i = 0; i < axes->n; i++)
		if (i != x && axes->axis[i].n > 1) {
			fprintf(out, "%s%s=%s", any ? " " : "", axes->axis[i].name,
				axes->axis[i].values[row->value[i]]);
			any = true;
		}
	fprintf(out, "%s%s", any ? ", " : "", row->verdict);
}

void ev_plot_script(FILE *out, const char *path, const struct ev_axes *axes,
		    const struct ev_row *rows, uint64_t n)
{
	unsigned x = across(axes), line = 0;
	bool any = false;

	fprintf(out,
		"set terminal %s size 1000,600\n"
		"set output '%s'\n"
		"set xlabel '%s'\nset ylabel 'Mpps'\nset yrange [0:*]\nset xrange [-0.5:%u.5]\n"
		"set grid\nset key outside noenhanced\nset xtics noenhanced\nset xlabel "
		"noenhanced\n",
		ends_in(path, ".svg") ? "svg" : "png", path, axes->axis[x].name,
		axes->axis[x].n - 1);
	for (uint64_t i = 0; i < n; i++)
		if (first_of_line(axes, x, rows, i))
			write_points(out, axes, x, rows, n, i, line++);
	line = 0;
	for (uint64_t i = 0; i < n; i++) {
		bool has = false;

		if (!first_of_line(axes, x, rows, i))
			continue;
		for (uint64_t k = i; k < n; k++)
			has |= same_line(axes, x, &rows[i], &rows[k]) && rows[k].mpps > 0;
		line++;
		/* gnuplot refuses a block without points. */
		if (!has)
			continue;
		fprintf(out, "%s$line%u using 1:3:xtic(2) with linespoints title \"",
			any ? ", " : "plot ", line - 1);
		write_title(out, axes, x, &rows[i]);
		fprintf(out, "\"");
		any = true;
	}
	fprintf(out, "\n");
}

/* --- running it ---------------------------------------------------------------------------- */

int ev_plot(const char *path, const struct ev_axes *axes, const struct ev_row *rows, uint64_t n)
{
	bool any = false;
	int status;
	FILE *out;

	for (uint64_t i = 0; i < n; i++)
		any |= rows[i].mpps > 0;
	if (!any) {
		fprintf(stderr, "palladium_eval: there is nothing to draw\n");
		return -ENODATA;
	}
	/* Text for popen only: the script goes through the pipe. */
	out = popen("gnuplot -", "we");
	if (!out) {
		fprintf(stderr, "palladium_eval: gnuplot: %s\n", strerror(errno));
		return -errno;
	}
	signal(SIGPIPE, SIG_IGN);
	ev_plot_script(out, path, axes, rows, n);
	status = pclose(out);
	if (status) {
		fprintf(stderr, "palladium_eval: gnuplot did not draw %s\n", path);
		return -EIO;
	}
	return 0;
}
