/* SPDX-License-Identifier: BSD-2-Clause */
/* Which line of the rules decides about a socket: rules explain. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "config/vars.h"
#include "sock/layer.h"

static const struct pd_cli_column columns[] = {
	{"Where", NULL, PD_CLI_TEXT, -36},      {NULL, "file", PD_CLI_TEXT, 0},
	{NULL, "line", PD_CLI_NUMBER, 0},       {"Statement", "statement", PD_CLI_TEXT, -60},
	{"Verdict", "verdict", PD_CLI_TEXT, 0},
};

/* One line of the file. */
static void row(struct pd_cli *cli, struct pd_cli_table *t, const struct pd_conf_place *place,
		const char *statement, const char *verdict)
{
	char where[300];

	snprintf(where, sizeof(where), "%.256s:%u", place->file, place->line);
	const union pd_cli_cell cells[] = {
		{.text = where},     {.text = place->file}, {.number = place->line},
		{.text = statement}, {.text = verdict},
	};

	_Static_assert(PD_ARRAY_SIZE(cells) == PD_ARRAY_SIZE(columns), "one per column");
	pd_cli_table_row(cli, t, cells);
}

/* The groups up to the one that applies. Returns that, or NULL. */
static const struct pd_conf_group *print_groups(struct pd_cli *cli, struct pd_cli_table *t)
{
	for (uint32_t i = 0; i < pd_sock_config->group_count; i++) {
		const struct pd_conf_group *group = &pd_sock_config->groups[i];
		const char *miss = pd_conf_group_misses(group, program_invocation_short_name,
							pd_vars.application_id);
		char statement[256];

		snprintf(statement, sizeof(statement), "application-id %.100s %.100s",
			 group->program, group->id);
		row(cli, t, &group->place, statement, miss ? miss : "is this program's");
		if (!miss)
			return group;
	}
	return NULL;
}

/* The lines of a group: all (`q` NULL), or those of a role up to the one that decides. */
static void print_rules(struct pd_cli *cli, struct pd_cli_table *t,
			const struct pd_conf_group *group, const struct pd_conf_question *q)
{
	for (uint32_t i = 0; i < group->rule_count; i++) {
		const struct pd_conf_rule *rule = &group->rules[i];
		const char *miss = q ? pd_conf_rule_misses(rule, q) : "";
		char statement[PD_CONF_RULE_BYTES];

		if (q && rule->role != q->role)
			continue;
		pd_conf_rule_write(rule, statement, sizeof(statement));
		row(cli, t, &rule->place, statement, miss ? miss : "decides");
		if (!miss)
			return;
	}
}

/* The answer in words. */
static void print_answer(struct pd_cli *cli, const char *question, const struct pd_conf_question *q,
			 const struct pd_conf_decision *d)
{
	if (q && d->rule)
		pd_cli_print(cli, "\n%s: %s, by %s:%u\n", question,
			     d->use == PD_USE_OS ? "the kernel" : "palladium", d->rule->place.file,
			     d->rule->place.line);
	else if (q)
		pd_cli_print(cli, "\n%s: palladium, as no line says otherwise\n", question);
	if (q && q->role != PD_ROLE_PACKET && d->use == PD_USE_PALLADIUM)
		pd_cli_print(cli, "(but this version serves packet sockets alone: the kernel has "
				  "it)\n");
	pd_cli_print(cli, "%sthis program is \"%s\" with PALLADIUM_APPLICATION_ID \"%s\"\n",
		     q ? "" : "\n", program_invocation_short_name, pd_vars.application_id);
}

/* Say that there is no port of the name that is asked about. */
static int fail_port(struct pd_cli *cli, const char *name)
{
	char list[300] = "";
	size_t n = 0;

	for (uint32_t i = 0; i < pd_sock_config->port_count && n < sizeof(list) - 32; i++)
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
				      pd_sock_config->ports[i].name);
	return pd_cli_fail(cli, "there is no port \"%s\": there are %s", name, list);
}

/* rules explain [QUESTION] */
static int rules_explain(struct pd_cli *cli)
{
	struct pd_conf_question question, *q = *cli->args ? &question : NULL;
	struct pd_conf_decision d = {.use = PD_USE_PALLADIUM};
	const struct pd_conf_group *group;
	char error[PD_CLI_ERROR_BYTES], more[96] = "";
	struct pd_cli_table t;
	int ret = 0;

	if (!pd_sock_config)
		return pd_cli_fail(cli, "this program has no rules");
	if (q)
		ret = pd_conf_question_read(cli->args, q, error, sizeof(error));
	if (ret == -EINVAL)
		return pd_cli_fail(cli, "%s", error);
	if (ret)
		return ret;
	if (q && q->role == PD_ROLE_PACKET && !pd_config_port(pd_sock_config, q->port_name))
		return fail_port(cli, q->port_name);
	if (q) {
		pd_conf_decide(pd_sock_config, program_invocation_short_name,
			       pd_vars.application_id, q, &d);
		snprintf(more, sizeof(more), "\"use\": \"%s\", \"served_by\": \"%s\", ",
			 d.use == PD_USE_OS ? "os" : "palladium",
			 d.use == PD_USE_OS || q->role != PD_ROLE_PACKET ? "os" : "palladium");
	}
	pd_cli_table_begin(cli, &t, columns, PD_ARRAY_SIZE(columns), "rules", more, true);
	group = print_groups(cli, &t);
	if (group)
		print_rules(cli, &t, group, q);
	pd_cli_table_end(cli, &t);
	if (!cli->json)
		print_answer(cli, cli->args, q, &d);
	return 0;
}

PD_CLI_COMMAND(rules_explain) = {
	.path = "rules explain",
	.args = "[ROLE ADDRESS:PORT[:ADDRESS:PORT] | packet PORT[:ETHERTYPE]]",
	.help = "Which line of the configuration decides about a socket; without one, all lines "
		"for this program.",
	.json = true,
	.fn = rules_explain,
};
