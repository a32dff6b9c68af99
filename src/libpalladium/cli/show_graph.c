/* SPDX-License-Identifier: BSD-2-Clause */
/* What the engine is made of: show nodes, show graph, show buffers. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "vlib/buffer.h"
#include "vlib/runtime.h"

const char pd_cli_has_graph;

/* The name of a node's type. */
static const char *type_name(enum pd_node_type type)
{
	static const char *const names[] = {
		[PD_NODE_PRE_INPUT] = "pre-input",
		[PD_NODE_INPUT] = "input",
		[PD_NODE_INTERNAL] = "internal",
		[PD_NODE_PROCESS] = "process",
	};

	_Static_assert(PD_ARRAY_SIZE(names) == PD_NODE_TYPES, "one per type");
	return names[type];
}

/* --- arcs ---------------------------------------------------------------------------------- */

/* Where a node leads to. */
struct arcs {
	const struct pd_node_registration *reg;
	unsigned n;
	const char *next[PD_NODE_NEXTS_MAX];
};

/* Take the arcs that a node has in `engine`, if they are more; for pd_runtime_engines. */
static void look_at_arcs(struct pd_engine *engine, void *arg)
{
	const struct pd_node *node = NULL;
	struct arcs *arcs = arg;
	unsigned n;

	for (unsigned i = 0; i < pd_load_acquire(&engine->node_count) && !node; i++)
		if (engine->nodes[i].reg == arcs->reg)
			node = &engine->nodes[i];
	n = node ? pd_load_acquire(&node->next_count) : 0;
	if (n <= arcs->n)
		return;
	for (arcs->n = 0; arcs->n < n; arcs->n++)
		arcs->next[arcs->n] =
			engine->nodes[pd_load_relaxed(&node->next[arcs->n])].reg->name;
}

/*
 * Where a node leads to: in the engine where it leads to most, since nodes may have been put on a
 * way and arcs added; without engines, as it is registered.
 */
static void find_arcs(const struct pd_node_registration *reg, struct arcs *arcs)
{
	*arcs = (struct arcs){.reg = reg};
	pd_runtime_engines(look_at_arcs, arcs);
	for (; arcs->n < reg->next_count; arcs->n++)
		arcs->next[arcs->n] = reg->next_names[arcs->n];
}

/* --- show nodes ---------------------------------------------------------------------------- */

static const struct pd_cli_column node_columns[] = {
	{"Name", "name", PD_CLI_TEXT, -24},
	{"Type", "type", PD_CLI_TEXT, -10},
	{"Nexts", "nexts", PD_CLI_NUMBER, 6},
	{"Errors", "errors", PD_CLI_NUMBER, 7},
};

/* What all engines did with one node. */
struct node_sum {
	const char *name;
	uint64_t calls, vectors;
	unsigned engines;
};

/* Add a row up, if it is of the node; for pd_runtime_each. */
static void add_node(const struct pd_node_runtime *row, void *arg)
{
	struct node_sum *sum = arg;

	if (strcmp(row->node, sum->name))
		return;
	sum->calls += row->calls;
	sum->vectors += row->vectors;
	sum->engines++;
}

/* All about one node. */
static int show_node(struct pd_cli *cli, const char *name)
{
	const struct pd_node_registration *reg = pd_node_registrations, *other;
	struct node_sum sum = {.name = name};
	struct arcs arcs;

	while (reg && strcmp(reg->name, name))
		reg = reg->next;
	if (!reg)
		return pd_cli_fail(cli, "there is no node \"%.64s\": show nodes lists them", name);
	pd_runtime_each(add_node, &sum);
	pd_cli_print(cli, "%s: %s node, in %u engines, %llu calls, %llu vectors since the start\n",
		     reg->name, type_name(reg->type),
		     reg->type == PD_NODE_PROCESS ? 0 : sum.engines, (unsigned long long)sum.calls,
		     (unsigned long long)sum.vectors);
	find_arcs(reg, &arcs);
	for (unsigned i = 0; i < arcs.n; i++)
		pd_cli_print(cli, "  next %u  %s\n", i, arcs.next[i]);
	for (other = pd_node_registrations; other; other = other->next) {
		find_arcs(other, &arcs);
		for (unsigned i = 0; i < arcs.n; i++)
			if (!strcmp(arcs.next[i], name))
				pd_cli_print(cli, "  from    %s, its next %u\n", other->name, i);
	}
	for (unsigned i = 0; i < reg->error_count; i++)
		pd_cli_print(cli, "  error %u %s\n", i, reg->errors[i]);
	return 0;
}

/* show nodes [NAME] */
static int show_nodes(struct pd_cli *cli)
{
	char *name = pd_cli_word(cli);
	struct pd_cli_table t;
	struct arcs arcs;

	if (name && cli->json)
		return pd_cli_fail(cli, "one node has no output as JSON");
	if (name && *cli->args)
		return pd_cli_fail(cli, "show nodes takes one name at most");
	if (name)
		return show_node(cli, name);
	pd_cli_table_begin(cli, &t, node_columns, PD_ARRAY_SIZE(node_columns), "nodes", "", true);
	for (const struct pd_node_registration *reg = pd_node_registrations; reg; reg = reg->next) {
		find_arcs(reg, &arcs);
		pd_cli_table_row(cli, &t,
				 (const union pd_cli_cell[]){{.text = reg->name},
							     {.text = type_name(reg->type)},
							     {.number = arcs.n},
							     {.number = reg->error_count}});
	}
	pd_cli_table_end(cli, &t);
	return 0;
}

PD_CLI_COMMAND(show_nodes) = {
	.path = "show nodes",
	.args = "[NAME]",
	.help = "The nodes that there are; or where one stands, and what it can count.",
	.json = true,
	.fn = show_nodes,
};

/* --- show graph ---------------------------------------------------------------------------- */

/* The graph as graphviz reads it. */
static void print_dot(struct pd_cli *cli)
{
	static const char *const shapes[] = {
		[PD_NODE_PRE_INPUT] = "invhouse",
		[PD_NODE_INPUT] = "house",
		[PD_NODE_INTERNAL] = "box",
		[PD_NODE_PROCESS] = "ellipse",
	};

	struct arcs arcs;

	_Static_assert(PD_ARRAY_SIZE(shapes) == PD_NODE_TYPES, "one per type");
	pd_cli_print(cli, "digraph palladium {\n");
	for (const struct pd_node_registration *reg = pd_node_registrations; reg; reg = reg->next)
		pd_cli_print(cli, "  \"%s\" [shape=%s];\n", reg->name, shapes[reg->type]);
	for (const struct pd_node_registration *reg = pd_node_registrations; reg; reg = reg->next) {
		find_arcs(reg, &arcs);
		for (unsigned i = 0; i < arcs.n; i++)
			pd_cli_print(cli, "  \"%s\" -> \"%s\" [label=%u];\n", reg->name,
				     arcs.next[i], i);
	}
	pd_cli_print(cli, "}\n");
}

/* show graph [dot] */
static int show_graph(struct pd_cli *cli)
{
	char *form = pd_cli_word(cli);
	struct arcs arcs;

	if (form && (strcmp(form, "dot") || *cli->args))
		return pd_cli_fail(cli, "\"dot\" may follow, not \"%.64s\"", form);
	if (form) {
		print_dot(cli);
		return 0;
	}
	for (const struct pd_node_registration *reg = pd_node_registrations; reg; reg = reg->next) {
		pd_cli_print(cli, "%-24s", reg->name);
		find_arcs(reg, &arcs);
		for (unsigned i = 0; i < arcs.n; i++)
			pd_cli_print(cli, "%s %s", i ? "," : " ->", arcs.next[i]);
		pd_cli_print(cli, "\n");
	}
	return 0;
}

PD_CLI_COMMAND(show_graph) = {
	.path = "show graph",
	.args = "[dot]",
	.help = "Which node leads to which; dot: as input for graphviz.",
	.fn = show_graph,
};

/* --- show buffers -------------------------------------------------------------------------- */

static const struct pd_cli_column buffer_columns[] = {
	{"Pool", "pool", PD_CLI_TEXT, -24},        {"Data bytes", "data_bytes", PD_CLI_NUMBER, 10},
	{"Buffers", "buffers", PD_CLI_NUMBER, 10}, {"Free", "free", PD_CLI_NUMBER, 10},
	{"Used", "used", PD_CLI_NUMBER, 10},       {"Memory kB", "memory_kb", PD_CLI_NUMBER, 10},
	{"Pages", "pages", PD_CLI_TEXT, -8},
};

/* A pool that is being printed. */
struct buffer_printing {
	struct pd_cli *cli;
	struct pd_cli_table table;
};

/* Print one pool; for pd_buffer_pool_each. */
static void print_pool(const struct pd_buffer_pool_state *pool, void *arg)
{
	struct buffer_printing *p = arg;
	const union pd_cli_cell cells[] = {
		{.text = pool->name},
		{.number = pool->data_bytes},
		{.number = pool->count},
		{.number = pool->free_count},
		{.number = pool->count - pool->free_count},
		{.number = pool->bytes / 1024},
		{.text = pool->huge ? "huge" : "ordinary"},
	};

	pd_cli_table_row(p->cli, &p->table, cells);
}

/* show buffers */
static int show_buffers(struct pd_cli *cli)
{
	struct buffer_printing p = {.cli = cli};

	pd_cli_table_begin(cli, &p.table, buffer_columns, PD_ARRAY_SIZE(buffer_columns), "buffers",
			   "", true);
	pd_buffer_pool_each(print_pool, &p);
	pd_cli_table_end(cli, &p.table);
	return 0;
}

PD_CLI_COMMAND(show_buffers) = {
	.path = "show buffers",
	.help = "Pools of buffers: their size, and what is free.",
	.json = true,
	.fn = show_buffers,
};
