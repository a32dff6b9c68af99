/* SPDX-License-Identifier: BSD-2-Clause */
/* The options: options.def made into a table, and what reads it. */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tools/help.h"
#include "nf_plugin.h"
#include "vlib/lane.h"

const char *const ev_mode_words[] = {"split", "packed", "stripped", NULL};
const char *const ev_as_words[] = {"auto", "processes", "pair", "threads", "one", NULL};
const char *const ev_nf_side_words[] = {"driver", "device", NULL};
const char *const ev_dialect_words[] = {"virtio", "avip", NULL};
const char *const ev_switch_words[] = {"off", "on", NULL};
const char *const ev_place_words[] = {"buffer", "separate", "reused", "aggregated", "ring", NULL};
const char *const ev_host_place_words[] = {"buffer", "separate", "reused", "aggregated",
					   "ring",   "same",     NULL};
const char *const ev_counter_words[] = {"perf", "callgrind", NULL};
_Static_assert(EV_VHOST_BATCH_MAX == PD_VECTOR_MAX, "a batch is what one call of a lane takes");

enum kind { KIND_GROUP, KIND_NUM, KIND_WORD, KIND_FLAG, KIND_TEXT };

static const struct row {
	enum kind kind;
	const char *name, *argument, *help;
	size_t offset;
	uint64_t dflt, min, max;
	const char *const *words;
	uint64_t modes;
	char letter;
} rows[] = {
#define EV_GROUP(title) {.kind = KIND_GROUP, .help = (title)},
#define EV_NUM(f, n, l, d, lo, hi, m, a, h) \
	{KIND_NUM, (n), (a), (h), offsetof(struct ev_options, f), (d), (lo), (hi), NULL, (m), (l)},
#define EV_WORD(f, n, l, d, w, m, h) \
	{KIND_WORD, (n), "WORD", (h), offsetof(struct ev_options, f), (d), 0, 0, (w), (m), (l)},
#define EV_FLAG(f, n, l, h)                                                           \
	{KIND_FLAG,       (n),    NULL, (h), offsetof(struct ev_options, f), 0, 0, 0, \
	 ev_switch_words, EV_ALL, (l)},
#define EV_TEXT(f, n, l, a, h) \
	{KIND_TEXT, (n), (a), (h), offsetof(struct ev_options, f), 0, 0, 0, NULL, EV_ALL, (l)},
#include "options.def"
};
_Static_assert(PD_ARRAY_SIZE(rows) <= 64, "a bit of `given` for each row");

/* What stands behind a row that is a number, a word or a flag. */
static uint64_t *value_of(const struct ev_options *o, const struct row *r)
{
	return (uint64_t *)((char *)(uintptr_t)o + r->offset);
}

/* The same of a text. */
static const char **text_of(const struct ev_options *o, const struct row *r)
{
	return (const char **)((char *)(uintptr_t)o + r->offset);
}

/* The row of that name, or NULL. */
static const struct row *row_of(const char *name)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++)
		if (rows[i].name && !strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

/* Whether the option of that name was set. */
static bool given(const struct ev_options *o, const char *name)
{
	return o->given >> (row_of(name) - rows) & 1;
}

int ev_no(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, EV_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

void ev_refuse(const char *fmt, ...)
{
	va_list ap;

	fputs("palladium_eval: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\npalladium_eval --help tells the options\n", stderr);
	exit(EV_EXIT_USAGE);
}

void ev_options_default(struct ev_options *o)
{
	*o = (struct ev_options){0};
	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++)
		if (rows[i].kind != KIND_GROUP && rows[i].kind != KIND_TEXT)
			*value_of(o, &rows[i]) = rows[i].dflt;
}

/* --- setting ------------------------------------------------------------------------------- */

/*
 * What EIVU calls by these names. The base is what it does when nothing is said; a preset stands
 * for the options in its text, and those that follow it on the command line override them.
 */
static const struct preset {
	const char *name, *settings;
} presets[] = {
	{"base", "mode=stripped"},
	{"fast", "mode=stripped descriptor=8 headroom=0 area=64 header=off copy-rx=off copy-tx=off "
		 "metadata-size=0"},
	{"step1", "mode=stripped metadata-size=64"},
	{"step2", "mode=stripped metadata-place=aggregated host-metadata-place=aggregated "
		  "aggregation=32"},
};

/* Set what the preset of that name stands for. Returns 0 or -EINVAL. */
static int set_preset(struct ev_options *o, const char *name, char *why)
{
	char copy[256], *rest = copy, *item;
	const struct preset *p = presets;

	while (p < presets + PD_ARRAY_SIZE(presets) && strcmp(p->name, name))
		p++;
	if (p == presets + PD_ARRAY_SIZE(presets))
		return ev_no(why, "preset %s: expected one of base, fast, step1, step2", name);
	snprintf(copy, sizeof(copy), "%s", p->settings);
	while ((item = strsep(&rest, " "))) {
		char *value = strchr(item, '=');
		int err;

		*value++ = 0;
		err = ev_options_set(o, item, value, why);
		if (err)
			return err;
	}
	return 0;
}

/* A number from row->min to row->max. */
static int set_number(const struct row *r, uint64_t *value, const char *text, char *why)
{
	uint64_t v = 0;
	char *end = NULL;

	errno = 0;
	if (*text >= '0' && *text <= '9')
		v = strtoull(text, &end, 0);
	if (!end || *end || errno || v < r->min || v > r->max)
		return ev_no(why, "%s %s: expected a number from %llu to %llu", r->name, text,
			     (unsigned long long)r->min, (unsigned long long)r->max);
	*value = v;
	return 0;
}

/* One of row->words. */
static int set_word(const struct row *r, uint64_t *value, const char *text, char *why)
{
	char list[128] = "";

	if (r->words == ev_nf_words && !strncmp(text, EV_NF_PREFIX, strlen(EV_NF_PREFIX)))
		return ev_nf_find(text, value, why);
	for (unsigned i = 0; r->words[i]; i++) {
		if (!strcmp(text, r->words[i])) {
			*value = i;
			return 0;
		}
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 r->words[i]);
	}
	return ev_no(why, "%s %s: expected one of %s", r->name, text, list);
}

int ev_options_set(struct ev_options *o, const char *name, const char *text, char *why)
{
	const struct row *r = row_of(name);
	int err = 0;

	if (!strcmp(name, "preset"))
		return set_preset(o, text, why);
	if (!r)
		return ev_no(why, "there is no option %s", name);
	if (r->kind == KIND_NUM)
		err = set_number(r, value_of(o, r), text, why);
	else if (r->kind == KIND_TEXT)
		*text_of(o, r) = text;
	else
		err = set_word(r, value_of(o, r), text, why);
	if (!err)
		o->given |= PD_BIT(r - rows);
	return err;
}

/* --- what goes together -------------------------------------------------------------------- */

/* Whether `n` is one. */
static bool power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

/* The least power of two that is not below `n`. */
static uint64_t power_of_two_above(uint64_t n)
{
	uint64_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

/* The cores of `--cores`, or all that this process may run on. Returns 0 or -EINVAL. */
static int settle_cores(struct ev_options *o, char *why)
{
	const char *p = o->cores;
	cpu_set_t set;

	o->n_cores = 0;
	if (sched_getaffinity(0, sizeof(set), &set))
		return ev_no(why, "the cores of this machine: %s", strerror(errno));
	for (int i = 0; !p && i < CPU_SETSIZE && o->n_cores < EV_CORES_MAX; i++)
		if (CPU_ISSET(i, &set))
			o->core[o->n_cores++] = i;
	while (p && *p) {
		unsigned long first, last;
		char *end = NULL;

		first = last = *p >= '0' && *p <= '9' ? strtoul(p, &end, 10) : 0;
		if (end && *end == '-' && end[1] >= '0' && end[1] <= '9')
			last = strtoul(end + 1, &end, 10);
		if (!end || (*end && *end != ',') || (*end == ',' && !end[1]) || first > last ||
		    last >= CPU_SETSIZE)
			return ev_no(why, "cores %s: expected numbers as 0,2 or 0-2", o->cores);
		for (; first <= last; first++) {
			if (!CPU_ISSET(first, &set))
				return ev_no(why, "cores %s: there is no core %lu for us", o->cores,
					     first);
			if (o->n_cores < EV_CORES_MAX)
				o->core[o->n_cores++] = (int)first;
		}
		p = *end ? end + 1 : end;
	}
	if (!o->n_cores)
		return ev_no(why, "cores %s: there is none", o->cores ? o->cores : "");
	return 0;
}

/* How many different cores there are to run on. */
static unsigned different_cores(const struct ev_options *o)
{
	unsigned n = 0;

	for (unsigned i = 0; i < o->n_cores; i++) {
		unsigned k = 0;

		while (k < i && o->core[k] != o->core[i])
			k++;
		n += k == i;
	}
	return n;
}

/* The place that metadata has at rx. */
static uint64_t host_place(const struct ev_options *o)
{
	return o->host_metadata_place == EV_PLACE_SAME ? o->metadata_place : o->host_metadata_place;
}

/* Whether metadata has that place at either side. */
static bool placed(const struct ev_options *o, enum ev_place place)
{
	return o->metadata_place == place || host_place(o) == place;
}

/* Metadata of mode stripped. Returns 0 or -EINVAL. */
static int settle_metadata(struct ev_options *o, char *why)
{
	if (!o->metadata_size && (given(o, "metadata-place") || given(o, "host-metadata-place")) &&
	    (o->metadata_place != EV_PLACE_BUFFER || host_place(o) != EV_PLACE_BUFFER))
		return ev_no(why, "metadata-place needs a metadata-size of at least 1");
	if (given(o, "aggregation") && !placed(o, EV_PLACE_AGGREGATED))
		return ev_no(why,
			     "aggregation needs metadata-place or host-metadata-place aggregated");
	if (given(o, "metadata-entries") && o->metadata_entries && !placed(o, EV_PLACE_REUSED))
		return ev_no(why,
			     "metadata-entries needs metadata-place or host-metadata-place reused");
	if (!o->metadata_entries)
		o->metadata_entries = power_of_two_above(4 * o->batch);
	if (!power_of_two(o->metadata_entries) || o->metadata_entries < o->batch)
		return ev_no(
			why,
			"metadata-entries %llu: expected a power of two, at least batch (%llu)",
			(unsigned long long)o->metadata_entries, (unsigned long long)o->batch);
	return 0;
}

/* Mode stripped. Returns 0 or -EINVAL. */
static int settle_stripped(struct ev_options *o, char *why)
{
	if (!power_of_two(o->ring))
		return ev_no(why, "ring %llu: expected a power of two",
			     (unsigned long long)o->ring);
	if (!power_of_two(o->align))
		return ev_no(why, "align %llu: expected a power of two",
			     (unsigned long long)o->align);
	if (!power_of_two(o->descriptor))
		return ev_no(why, "descriptor %llu: expected 8, 16, 32 or 64",
			     (unsigned long long)o->descriptor);
	if (!o->buffers)
		o->buffers = 2 * o->ring;
	if (!power_of_two(o->buffers) || o->buffers < 2 * o->ring)
		return ev_no(
			why,
			"buffers %llu: expected a power of two, at least twice the ring (%llu)",
			(unsigned long long)o->buffers, (unsigned long long)o->ring);
	if (o->area && given(o, "dataroom"))
		return ev_no(why, "area and dataroom exclude each other");
	if (o->area && o->area <= o->headroom)
		return ev_no(why, "area %llu: leaves nothing behind a headroom of %llu",
			     (unsigned long long)o->area, (unsigned long long)o->headroom);
	if (o->area)
		o->dataroom = o->area - o->headroom;
	o->area = o->headroom + o->dataroom;
	if (o->size > o->dataroom)
		return ev_no(why, "size %llu: a buffer has room for %llu bytes (dataroom, area)",
			     (unsigned long long)o->size, (unsigned long long)o->dataroom);
	if (ev_nf_get(o->nf)->writes && !o->copy_rx)
		return ev_no(why,
			     "nf %s needs copy-rx on: else each lap finds what the last one left",
			     ev_nf_words[o->nf]);
	if (o->header && o->headroom < EV_HEADER_BYTES)
		return ev_no(why, "header on needs a headroom of at least %d", EV_HEADER_BYTES);
	return settle_metadata(o, why);
}

/* The modes over vhost-user. Returns 0 or -EINVAL. */
static int settle_vhost(struct ev_options *o, char *why)
{
	if (o->batch > EV_VHOST_BATCH_MAX)
		return ev_no(why, "batch %llu: with vhost-user at most %d",
			     (unsigned long long)o->batch, EV_VHOST_BATCH_MAX);
	if (o->mode == EV_MODE_SPLIT && !power_of_two(o->ring))
		return ev_no(why, "ring %llu: expected a power of two in mode split",
			     (unsigned long long)o->ring);
	if (ev_nf_get(o->nf)->writes && o->nf_side == EV_NF_DEVICE)
		return ev_no(why,
			     "nf %s needs nf-side driver: a device may not write to what it reads",
			     ev_nf_words[o->nf]);
	return 0;
}

int ev_options_settle(struct ev_options *o, char *why)
{
	int err;

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++)
		if (o->given >> i & 1 && !(rows[i].modes >> o->mode & 1))
			return ev_no(why, "%s has no meaning in mode %s", rows[i].name,
				     ev_mode_words[o->mode]);
	if (o->batch > o->ring)
		return ev_no(why, "batch %llu: does not fit into a ring of %llu",
			     (unsigned long long)o->batch, (unsigned long long)o->ring);
	err = settle_cores(o, why);
	if (!err)
		err = o->mode == EV_MODE_STRIPPED ? settle_stripped(o, why) : settle_vhost(o, why);
	if (err)
		return err;
	if (o->bound && different_cores(o) < 2)
		return ev_no(why, "bound needs two cores");
	if (o->as == EV_AS_AUTO) {
		unsigned n = different_cores(o);

		o->as = n > 2 ? EV_AS_PROCESSES : n == 2 ? EV_AS_PAIR : EV_AS_ONE;
	}
	return 0;
}

/* --- help, JSON ---------------------------------------------------------------------------- */

/* The words of a row as a|b|c. */
static void join(const struct row *r, char *out, size_t size)
{
	*out = 0;
	for (unsigned i = 0; r->words[i]; i++)
		snprintf(out + strlen(out), size - strlen(out), "%s%s", i ? "|" : "", r->words[i]);
}

/* One option of the help. */
static void print_row(const struct row *r)
{
	char words[256], letter[8] = "   ";
	const char *argument = r->argument;

	if (r->kind == KIND_WORD) {
		join(r, words, sizeof(words));
		argument = words;
	}
	if (r->letter)
		snprintf(letter, sizeof(letter), "-%c,", r->letter);
	tool_help_print(r->help, printf("  %s --%s%s%s", letter, r->name, argument ? " " : "",
					argument ? argument : ""));
}

/* All of it. Ends the program. */
static void __attribute__((noreturn)) help(void)
{
	printf("Usage: palladium_eval run [OPTION]... [BATCH RING]\n"
	       "       palladium_eval sweep [OPTION]... FILE | --table NAME=VALUE,... ...\n"
	       "       palladium_eval profile [--items LIST] [--output FILE] run [OPTION]... "
	       "[BATCH RING]\n"
	       "Forward packets from rx through nf to tx, and tell how many there are a second.\n");
	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++)
		if (rows[i].kind == KIND_GROUP)
			printf("\n%s:\n", rows[i].help);
		else
			print_row(&rows[i]);
	printf("\nIn general:\n");
	tool_help_print(
		"set what EIVU calls so, in mode stripped; what follows overrides it. fast: "
		"descriptors "
		"of 8 bytes, no headroom, an area of 64 bytes, no header, no copies, no metadata; "
		"step1: 64 bytes of metadata; step2: metadata aggregated at both sides, of 32 "
		"packets",
		printf("  -p, --preset base|fast|step1|step2"));
	tool_help_print("print this text", printf("  -h, --help"));
	tool_help_print("print the version", printf("  -V, --version"));
	printf("\nExit status: 0 all went well, 1 a packet was lost or altered, a role crashed or "
	       "the "
	       "run was\ninterrupted, 2 wrong usage.\n");
	exit(EV_EXIT_OK);
}

bool ev_options_text(const struct ev_options *o, const char *name, char *out, size_t size)
{
	const struct row *r = row_of(name);
	const char *text;

	if (!r)
		return false;
	if (r->kind == KIND_TEXT) {
		text = *text_of(o, r);
		snprintf(out, size, "%s", text ? text : "");
	} else if (r->kind == KIND_NUM) {
		snprintf(out, size, "%llu", (unsigned long long)*value_of(o, r));
	} else {
		snprintf(out, size, "%s", r->words[*value_of(o, r)]);
	}
	return true;
}

json_t *ev_options_json(const struct ev_options *o)
{
	json_t *all = json_object();

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];
		json_t *value = NULL;

		if (r->kind == KIND_NUM && r->modes >> o->mode & 1)
			value = json_integer((json_int_t)*value_of(o, r));
		else if (r->kind == KIND_WORD && r->modes >> o->mode & 1)
			value = json_string(r->words[*value_of(o, r)]);
		else if (r->kind == KIND_FLAG)
			value = json_boolean(*value_of(o, r));
		if (value)
			json_object_set_new(all, r->name, value);
	}
	return all;
}

int ev_options_arguments(const struct ev_options *o, char *text, size_t size, char **arguments,
			 int max)
{
	int n = 0;

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows) && n < max; i++) {
		const struct row *r = &rows[i];
		bool wanted = r->kind == KIND_NUM || r->kind == KIND_WORD;
		char value[256];
		int used;

		if (!wanted || !(o->given >> i & 1) || value_of(o, r) == &o->packets ||
		    value_of(o, r) == &o->as || value_of(o, r) == &o->counter)
			continue;
		ev_options_text(o, r->name, value, sizeof(value));
		used = snprintf(text, size, "--%s=%s", r->name, value) + 1;
		if (used > (int)size)
			break;
		arguments[n++] = text;
		text += used;
		size -= (size_t)used;
	}
	return n;
}

/* --- the command line ---------------------------------------------------------------------- */

#define LONG_ONLY 256 /* getopt's value of row i is LONG_ONLY + i */
#define N_ROWS PD_ARRAY_SIZE(rows)

/* getopt's tables: `options` with room for N_ROWS + 4, `letters` for 2 * N_ROWS + 8. */
static void make_tables(struct option *options, char *letters)
{
	size_t n = 0;

	letters += sprintf(letters, ":hVp:");
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct row *r = &rows[i];

		if (r->kind == KIND_GROUP)
			continue;
		options[n++] =
			(struct option){r->name, r->kind != KIND_FLAG, NULL, LONG_ONLY + (int)i};
		if (r->letter)
			letters += sprintf(letters, "%c%s", r->letter,
					   r->kind == KIND_FLAG ? "" : ":");
	}
	options[n++] = (struct option){"help", 0, NULL, 'h'};
	options[n++] = (struct option){"version", 0, NULL, 'V'};
	options[n++] = (struct option){"preset", 1, NULL, 'p'};
	options[n] = (struct option){0};
}

/* One option as getopt found it. */
static void take(struct ev_options *o, int c, char **argv)
{
	const struct row *r = c >= LONG_ONLY ? &rows[c - LONG_ONLY] : rows;
	char why[EV_WHY_MAX];

	if (c == ':')
		ev_refuse("%s needs a value", argv[optind - 1]);
	if (c == '?' && optopt && optopt < LONG_ONLY)
		ev_refuse("there is no option -%c", optopt);
	if (c == '?')
		ev_refuse("there is no option %s, or it is ambiguous, or it takes no value",
			  argv[optind - 1]);
	if (c == 'h')
		help();
	if (c == 'V') {
#ifdef PACKAGE_VERSION
		printf("palladium_eval %s\n", PACKAGE_VERSION);
#endif
		exit(EV_EXIT_OK);
	}
	while (c < LONG_ONLY && c != 'p' && r->letter != c)
		r++;
	if (ev_options_set(o, c == 'p' ? "preset" : r->name, optarg ? optarg : "on", why))
		ev_refuse("--%s", why);
}

int ev_options_read(struct ev_options *o, int argc, char **argv)
{
	struct option options[N_ROWS + 4];
	char letters[2 * N_ROWS + 8];
	int c, n = 1;

	make_tables(options, letters);
	ev_options_default(o);
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, options, NULL)) != -1)
		take(o, c, argv);
	while (optind < argc)
		argv[n++] = argv[optind++];
	return n;
}
