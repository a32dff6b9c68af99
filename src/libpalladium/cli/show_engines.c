/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the nodes have done: show runtime, show errors, and clearing both.
 *
 * Counters have one writer, the thread that runs the engine, so nobody else sets them back.
 * Clearing notes what they are, and from then on the difference is shown. A note belongs to a node
 * of one engine, known by the engine's serial number: one that is made later begins at zero.
 *
 * The counters are read at once into a snapshot, which is then printed in steps: thousands of rows
 * (a hundred lanes) would take the progress thread longer than a step may.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "vlib/runtime.h"

#define ROWS_A_STEP 64

const char pd_cli_has_engines;

/* A node of an engine, or a process node. */
struct row {
	struct pd_node_runtime at;
	char engine[sizeof(((struct pd_engine *)0)->name)];
	size_t errors; /* where its errors begin in the snapshot's */
};

struct snapshot {
	struct row *rows;
	uint64_t *errors;
	size_t n, size, error_count, error_size;
	bool failed; /* no memory */
	uint64_t taken_ns;
};

/* What was cleared: guarded by pd_control. */
static struct snapshot runtime_base, errors_base;
/* The process whose counters those are of: a child's begin at zero. */
static pid_t base_owner;

/* A command that prints a snapshot. */
struct printing {
	struct snapshot now;
	struct pd_cli_table table;
	size_t next;
	bool verbose;
	/* show errors: by node and reason, summed over the engines. */
	struct error_sum {
		const char *node, *reason;
		uint64_t count;
	} * sums;
	size_t sum_count;
};

/*
 * Have room for `count` elements in `array`, which has it for *size. Returns the array, moved
 * perhaps; NULL when there is no memory, with nothing changed.
 */
static void *grow(void *array, size_t *size, size_t count, size_t bytes)
{
	size_t more = *size ? *size : 64;

	if (count <= *size)
		return array;
	while (more < count)
		more *= 2;
	array = realloc(array, more * bytes);
	if (array)
		*size = more;
	return array;
}

/* Copy one node's counters; for pd_runtime_each. */
static void take_row(const struct pd_node_runtime *at, void *arg)
{
	struct snapshot *s = arg;
	struct row *rows, *row;
	uint64_t *errors;

	if (s->failed)
		return;
	rows = grow(s->rows, &s->size, s->n + 1, sizeof(*rows));
	s->rows = rows ? rows : s->rows;
	errors = grow(s->errors, &s->error_size, s->error_count + at->error_count + 1,
		      sizeof(*errors));
	s->errors = errors ? errors : s->errors;
	s->failed = !rows || !errors;
	if (s->failed)
		return;
	row = &s->rows[s->n++];
	row->at = *at;
	snprintf(row->engine, sizeof(row->engine), "%s", at->engine);
	row->errors = s->error_count;
	for (unsigned i = 0; i < at->error_count; i++)
		s->errors[s->error_count++] = pd_load_relaxed(&at->errors[i]);
}

/* Give a snapshot's memory back. */
static void snapshot_free(struct snapshot *s)
{
	free(s->rows);
	free(s->errors);
	*s = (struct snapshot){0};
}

/* Read all counters. Returns 0 or -ENOMEM. */
static int snapshot_take(struct snapshot *s)
{
	*s = (struct snapshot){.taken_ns = pd_clock_ns()};
	pd_runtime_each(take_row, s);
	if (!s->failed)
		return 0;
	snapshot_free(s);
	return -ENOMEM;
}

/* The row of the same node of the same engine in `base`, or NULL. *hint is where to look first. */
static const struct row *find_base(const struct snapshot *base, const struct row *row, size_t *hint)
{
	for (size_t i = 0; i < base->n; i++) {
		size_t at = (*hint + i) % base->n;
		const struct row *b = &base->rows[at];

		if (b->at.serial != row->at.serial || strcmp(b->at.node, row->at.node))
			continue;
		*hint = at + 1;
		return b;
	}
	return NULL;
}

/* `now` less what it was; where it is less than that, it has begun anew. */
static uint64_t since(uint64_t now, uint64_t then)
{
	return now >= then ? now - then : now;
}

/* A child's counters began at zero: what the parent cleared says nothing of them. */
static void forget_parents(void)
{
	if (base_owner == pd_sys_getpid())
		return;
	snapshot_free(&runtime_base);
	snapshot_free(&errors_base);
	base_owner = pd_sys_getpid();
}

/* Take what was cleared off a snapshot. */
static void snapshot_subtract(struct snapshot *s)
{
	size_t runtime_hint = 0, errors_hint = 0;

	forget_parents();
	for (size_t i = 0; i < s->n; i++) {
		struct row *row = &s->rows[i];
		const struct row *b = find_base(&runtime_base, row, &runtime_hint);

		if (b) {
			row->at.calls = since(row->at.calls, b->at.calls);
			row->at.vectors = since(row->at.vectors, b->at.vectors);
			row->at.suspends = since(row->at.suspends, b->at.suspends);
			row->at.clocks = since(row->at.clocks, b->at.clocks);
			row->at.clocked_vectors =
				since(row->at.clocked_vectors, b->at.clocked_vectors);
		}
		b = find_base(&errors_base, row, &errors_hint);
		for (unsigned e = 0; b && e < row->at.error_count; e++)
			s->errors[row->errors + e] = since(s->errors[row->errors + e],
							   errors_base.errors[b->errors + e]);
	}
}

/* Begin a command that prints a snapshot. Returns its state, or NULL after pd_cli_fail. */
static struct printing *printing_begin(struct pd_cli *cli)
{
	struct printing *p = calloc(1, sizeof(*p));
	char *word;

	cli->state = p;
	if (!p || snapshot_take(&p->now)) {
		pd_cli_fail(cli, "%s", pd_strerror(ENOMEM));
		return NULL;
	}
	snapshot_subtract(&p->now);
	word = pd_cli_word(cli);
	if (word && (strcmp(word, "verbose") || *cli->args)) {
		pd_cli_fail(cli, "\"verbose\" may follow, not \"%.64s\"", word);
		return NULL;
	}
	p->verbose = word != NULL;
	return p;
}

/* End it. */
static void printing_end(struct pd_cli *cli)
{
	struct printing *p = cli->state;

	if (!p)
		return;
	snapshot_free(&p->now);
	free(p->sums);
	free(p);
}

/* --- show runtime -------------------------------------------------------------------------- */

static const struct pd_cli_column runtime_columns[] = {
	{NULL, "engine", PD_CLI_TEXT, 0},
	{"Name", "name", PD_CLI_TEXT, 24},
	{"State", "state", PD_CLI_TEXT, 10},
	{"Calls", "calls", PD_CLI_NUMBER, 15},
	{"Vectors", "vectors", PD_CLI_NUMBER, 15},
	{"Suspends", "suspends", PD_CLI_NUMBER, 12},
	{"Clocks", "clocks", PD_CLI_CLOCKS, 10},
	{"Vectors/Call", "vectors_per_call", PD_CLI_REAL, 13},
};

/* What a node does when its engine runs. */
static const char *state_of(enum pd_node_type type)
{
	static const char *const states[] = {
		[PD_NODE_PRE_INPUT] = "polling",
		[PD_NODE_INPUT] = "polling",
		[PD_NODE_INTERNAL] = "active",
		[PD_NODE_PROCESS] = "wait",
	};

	_Static_assert(PD_ARRAY_SIZE(states) == PD_NODE_TYPES, "one per type");
	return states[type];
}

/* Head of the rows of one engine: what is printed once for it, if there will be rows. */
static void print_engine(struct pd_cli *cli, struct printing *p, size_t at)
{
	const struct row *first = &p->now.rows[at];
	uint64_t calls = 0, vectors = 0;

	for (size_t i = at; i < p->now.n && p->now.rows[i].at.serial == first->at.serial; i++) {
		calls += p->now.rows[i].at.calls;
		vectors += p->now.rows[i].at.vectors;
	}
	if (!calls && !p->verbose)
		return;
	pd_cli_print(cli, "%s%s%s, average vectors/node %.2f\n",
		     p->table.rows ? "---------------\n" : "",
		     *first->engine ? "Engine " : "Process nodes", first->engine,
		     calls ? (double)vectors / (double)calls : 0.0);
	pd_cli_table_titles(cli, &p->table);
}

/* One row. Clocks are of a frame where frames were timed; of a call of a process node. */
static void print_runtime(struct pd_cli *cli, struct printing *p, const struct row *row)
{
	const struct pd_node_runtime *at = &row->at;
	bool process = at->type == PD_NODE_PROCESS;
	uint64_t timed = process ? at->calls : at->clocked_vectors;
	const union pd_cli_cell cells[] = {
		{.text = *row->engine ? row->engine : "process"},
		{.text = at->node},
		{.text = state_of(at->type)},
		{.number = at->calls},
		{.number = at->vectors},
		{.number = at->suspends},
		{.real = timed ? (double)at->clocks / (double)timed : 0},
		{.real = at->calls ? (double)at->vectors / (double)at->calls : 0},
	};

	_Static_assert(PD_ARRAY_SIZE(cells) == PD_ARRAY_SIZE(runtime_columns), "one per column");
	pd_cli_table_row(cli, &p->table, cells);
}

/* The next rows. */
static int show_runtime_step(struct pd_cli *cli)
{
	struct printing *p = cli->state;

	for (unsigned i = 0; i < ROWS_A_STEP && p->next < p->now.n; i++, p->next++) {
		const struct row *row = &p->now.rows[p->next];

		if (!cli->json && (!p->next || row[-1].at.serial != row->at.serial))
			print_engine(cli, p, p->next);
		if (row->at.calls || p->verbose)
			print_runtime(cli, p, row);
	}
	if (p->next < p->now.n)
		return PD_CLI_MORE;
	pd_cli_table_end(cli, &p->table);
	return 0;
}

/* show runtime [verbose] */
static int show_runtime(struct pd_cli *cli)
{
	struct printing *p = printing_begin(cli);
	char time[64];

	if (!p)
		return -1;
	snprintf(time, sizeof(time), "\"cleared_s\": %.3f, ",
		 runtime_base.taken_ns
			 ? (double)(p->now.taken_ns - runtime_base.taken_ns) / PD_NS_PER_SEC
			 : -1.0);
	pd_cli_table_begin(cli, &p->table, runtime_columns, PD_ARRAY_SIZE(runtime_columns),
			   "runtime", runtime_base.taken_ns ? time : "", false);
	if (!cli->json && runtime_base.taken_ns)
		pd_cli_print(cli, "Time since clear runtime: %.1f s\n",
			     (double)(p->now.taken_ns - runtime_base.taken_ns) / PD_NS_PER_SEC);
	return show_runtime_step(cli);
}

PD_CLI_COMMAND(show_runtime) = {
	.path = "show runtime",
	.args = "[verbose]",
	.help = "Calls, frames and cycles of each node of each engine; verbose: also of those "
		"never called.",
	.json = true,
	.fn = show_runtime,
	.step = show_runtime_step,
	.end = printing_end,
};

/* --- show errors --------------------------------------------------------------------------- */

static const struct pd_cli_column error_columns[] = {
	{"Count", "count", PD_CLI_NUMBER, 12},
	{"Node", "node", PD_CLI_TEXT, 24},
	{"Reason", "reason", PD_CLI_TEXT, -40},
};

/* Add `count` to the sum of that error. Returns false when there is no memory. */
static bool add_error(struct printing *p, const char *node, const char *reason, uint64_t count)
{
	struct error_sum *sums;

	for (size_t i = 0; i < p->sum_count; i++) {
		if (strcmp(p->sums[i].node, node) || strcmp(p->sums[i].reason, reason))
			continue;
		p->sums[i].count += count;
		return true;
	}
	sums = realloc(p->sums, (p->sum_count + 1) * sizeof(*sums));
	if (!sums)
		return false;
	p->sums = sums;
	p->sums[p->sum_count++] = (struct error_sum){node, reason, count};
	return true;
}

/* The next rows of the snapshot are added up; after the last, all sums are printed. */
static int show_errors_step(struct pd_cli *cli)
{
	struct printing *p = cli->state;

	for (unsigned i = 0; i < ROWS_A_STEP && p->next < p->now.n; i++, p->next++) {
		const struct row *row = &p->now.rows[p->next];

		for (unsigned e = 0; e < row->at.error_count; e++) {
			uint64_t count = p->now.errors[row->errors + e];

			if (count && !add_error(p, row->at.node, row->at.error_texts[e], count))
				return pd_cli_fail(cli, "%s", pd_strerror(ENOMEM));
		}
	}
	if (p->next < p->now.n)
		return PD_CLI_MORE;
	for (size_t i = 0; i < p->sum_count; i++) {
		const union pd_cli_cell cells[] = {
			{.number = p->sums[i].count},
			{.text = p->sums[i].node},
			{.text = p->sums[i].reason},
		};

		pd_cli_table_row(cli, &p->table, cells);
	}
	pd_cli_table_end(cli, &p->table);
	return 0;
}

/* show errors */
static int show_errors(struct pd_cli *cli)
{
	struct printing *p = printing_begin(cli);

	if (!p)
		return -1;
	pd_cli_table_begin(cli, &p->table, error_columns, PD_ARRAY_SIZE(error_columns), "errors",
			   "", true);
	return show_errors_step(cli);
}

PD_CLI_COMMAND(show_errors) = {
	.path = "show errors",
	.help = "What the nodes counted with a reason: dropped frames, and others.",
	.json = true,
	.fn = show_errors,
	.step = show_errors_step,
	.end = printing_end,
};

/* --- clearing ------------------------------------------------------------------------------ */

/* Have `base` be what the counters are now. */
static int clear(struct pd_cli *cli, struct snapshot *base)
{
	struct snapshot now;

	forget_parents();
	if (snapshot_take(&now))
		return pd_cli_fail(cli, "%s", pd_strerror(ENOMEM));
	snapshot_free(base);
	*base = now;
	return 0;
}

/* clear runtime */
static int clear_runtime(struct pd_cli *cli)
{
	return clear(cli, &runtime_base);
}

PD_CLI_COMMAND(clear_runtime) = {
	.path = "clear runtime",
	.help = "Have show runtime count from here on.",
	.fn = clear_runtime,
};

/* clear errors */
static int clear_errors(struct pd_cli *cli)
{
	return clear(cli, &errors_base);
}

PD_CLI_COMMAND(clear_errors) = {
	.path = "clear errors",
	.help = "Have show errors count from here on.",
	.fn = clear_errors,
};
