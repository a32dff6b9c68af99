/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration: the file, PALLADIUM_PORTS, and the variables. Any bytes, pieces of the grammar
 * mostly; and whole statements, right ones mostly (config_make.c).
 */
#include <sys/socket.h>

#include "config/config.h"
#include "config/text.h"
#include "config/vars.h"
#include "config_make.h"
#include "fuzz.h"

enum { THE_FILE, PORTS, VARIABLES, MADE_FILE, MADE_PORTS };

static const char *const kinds[] = {"file", "ports", "variables", "file of statements",
				    "ports of statements"};

static const char *const words[] = {"port ",
				    "pd0 ",
				    "pd1",
				    "vhost-user ",
				    "vhost-user:",
				    "loop ",
				    "loop:",
				    "path=",
				    "/run/s",
				    "mode=",
				    "listen",
				    "connect",
				    "role=",
				    "frontend",
				    "backend",
				    "dialect=",
				    "virtio",
				    "avip",
				    "format=",
				    "packed",
				    "split",
				    "auto",
				    "mtu=",
				    "1500",
				    "9000",
				    "queues=",
				    "2",
				    "ring=",
				    "256",
				    "mac=",
				    "02:00:00:00:00:01",
				    "ip=",
				    "10.0.0.1/24",
				    "fd00::1/64",
				    "gw=",
				    "10.0.0.254",
				    "peer=",
				    "mergeable=",
				    "in_order=",
				    "offloads=",
				    "steer=",
				    "yes",
				    "no",
				    "application-id ",
				    "* ",
				    "*",
				    "use ",
				    "os ",
				    "palladium ",
				    "tcp_server ",
				    "tcp_client ",
				    "udp_sender ",
				    "udp_receiver ",
				    "udp_connect ",
				    "packet ",
				    "*:*",
				    ":80",
				    ":1-65535",
				    "[::1]",
				    "log ",
				    "min-level ",
				    "destination ",
				    "stderr ",
				    "file ",
				    "syslog ",
				    "details ",
				    "\n",
				    "\n",
				    ";",
				    ",",
				    "=",
				    ":",
				    "\"",
				    "'",
				    "#",
				    "\\",
				    " ",
				    "0x88cc",
				    "lldp",
				    "4294967296",
				    "-1",
				    "PALLADIUM_"};

/* --- messages -------------------------------------------------------------------------------- */

static unsigned long said[PD_CONF_DETAIL + 1];

static void message(void *ctx, enum pd_conf_severity severity, const struct pd_conf_place *place,
		    const char *text)
{
	MUST(ctx == said && severity <= PD_CONF_DETAIL && *text);
	MUST(!place || !place->file || *place->file);
	said[severity]++;
}

/*
 * --- the file and PALLADIUM_PORTS --------------------------------------------------------------
 */

static bool ends(const char *text, size_t bytes)
{
	return memchr(text, 0, bytes);
}

/* What was read keeps to the limits that everything else relies on. */
static void check_ports(const struct pd_config *cfg)
{
	MUST(cfg->port_count <= PD_CONF_PORTS_MAX);
	for (uint32_t i = 0; i < cfg->port_count; i++) {
		const struct pd_port_config *p = &cfg->ports[i];

		MUST(ends(p->name, sizeof(p->name)) && *p->name &&
		     ends(p->transport, sizeof(p->transport)) && ends(p->path, sizeof(p->path)) &&
		     ends(p->peer, sizeof(p->peer)));
		MUST(p->mtu >= PD_CONF_MTU_MIN && p->mtu <= PD_CONF_MTU_MAX);
		MUST(p->queues >= 1 && p->queues <= PD_CONF_QUEUES_MAX);
		MUST(p->ring >= 2 && p->ring <= PD_CONF_RING_MAX);
		MUST(p->address_count <= PD_CONF_ADDRESSES_MAX &&
		     p->option_count <= PD_CONF_OPTIONS_MAX);
		MUST(!(p->mac[0] & 1));
		MUST(pd_config_port(cfg, p->name) == p);
	}
}

/* One end of a socket, whose address and port are those that are written in rules, mostly. */
static struct pd_conf_endpoint any_endpoint(uint8_t family)
{
	struct pd_conf_endpoint end = {.family = family};

	if (one_in(8)) {
		end.addr[0] = (uint8_t)rnd(256);
		end.port = (uint16_t)rnd(65536);
		return end;
	}
	memcpy(end.addr, family == AF_INET ? "\x0a" : "\xfd", 1);
	end.addr[family == AF_INET ? 3 : 15] = (uint8_t)rnd(4);
	end.port = (uint16_t)(one_in(2) ? 1 + rnd(4) : 65535);
	return end;
}

/* What is written of a rule is one that means the same. */
static void write_and_read(const struct pd_conf_rule *rule)
{
	char text[PD_CONF_RULE_BYTES + 1], again[PD_CONF_RULE_BYTES];
	struct pd_config *cfg = pd_config_new();

	pd_conf_rule_write(rule, text, sizeof(text));
	MUST(strlen(text) < PD_CONF_RULE_BYTES);
	if (cfg && rule->role != PD_ROLE_PACKET) {
		MUST(!pd_config_parse(cfg, "f", text, strlen(text), NULL, NULL));
		MUST(cfg->group_count == 1 && cfg->groups->rule_count == 1);
		pd_conf_rule_write(cfg->groups->rules, again, sizeof(again));
		MUST(!strcmp(text, again));
	}
	pd_config_free(cfg);
}

/* Ask for every role. */
static void ask(const struct pd_config *cfg)
{
	struct pd_conf_decision decision;
	struct pd_conf_endpoint a = any_endpoint(one_in(2) ? AF_INET : AF_INET6);
	struct pd_conf_question q = {
		.first = a, .second = any_endpoint(a.family), .port_name = "pd0"};

	for (int role = 0; role < PD_ROLE_COUNT; role++) {
		q.role = (enum pd_conf_role)role;
		if (role == PD_ROLE_PACKET)
			q.ethertype = (uint16_t)rnd(65536);
		else
			q.has_second = one_in(2);
		pd_conf_decide(cfg, "fuzz", role == PD_ROLE_PACKET ? "" : "id", &q, &decision);
		MUST(!decision.rule || decision.group);
	}
	for (uint32_t i = 0; i < cfg->group_count; i++)
		if (cfg->groups[i].rule_count)
			write_and_read(&cfg->groups[i].rules[cfg->groups[i].rule_count - 1]);
}

/*
 * Read a text, in a copy that ends where its memory does. Returns whether there is no mistake in
 * it.
 */
static bool read_text(bool file, const char *text, size_t len)
{
	struct pd_config *cfg = pd_config_new();
	char *copy = malloc(len + !len);
	uint32_t before;
	bool good;

	MUST(cfg && copy);
	memcpy(copy, text, len);
	memset(said, 0, sizeof(said));
	MUST(!(file ? pd_config_parse : pd_config_parse_ports)(cfg, "fuzz", copy, len, message,
							       said));
	free(copy);
	MUST(cfg->error_count == said[PD_CONF_ERROR] &&
	     cfg->warning_count == said[PD_CONF_WARNING]);
	before = cfg->port_count;
	pd_config_finish(cfg, message, said);
	MUST(cfg->error_count == said[PD_CONF_ERROR]);
	check_ports(cfg);
	ask(cfg);
	good = before && !cfg->error_count;
	pd_config_free(cfg);
	return good;
}

/*
 * --- the variables -----------------------------------------------------------------------------
 */

static void var_message(void *ctx, enum pd_log_level level, const char *text)
{
	MUST(ctx == said && level < PD_LOG_LEVEL_COUNT && *text);
}

/* One variable, of a row mostly, with a value out of the text. */
static char *any_variable(const char *value)
{
	const struct pd_var_desc *desc = &pd_var_descs[rnd(pd_var_count)];
	const char *name = one_in(4) && *desc->vma ? desc->vma : desc->name;
	char number[32], *text;

	snprintf(number, sizeof(number), "%lld",
		 (long long)(one_in(2) ? desc->max + rnd(3) - 1 : desc->min + rnd(3) - 1));
	if (one_in(3))
		value = number;
	else if (one_in(3) && desc->words)
		value = desc->words;
	MUST(asprintf(&text, "%.*s=%s", one_in(20) ? 12 : 100, name, value) > 0);
	return text;
}

/* A number is in its range, or has a word for it. */
static void check_number(const struct pd_var_desc *desc, int64_t number)
{
	size_t len;

	MUST((number >= desc->min && number <= desc->max) || number == desc->default_number ||
	     pd_text_word_of(desc->words, number, &len));
}

/* The same of variables. */
static bool variables(const char *text)
{
	static struct pd_vars vars;
	char *env[9] = {NULL}, shown[256];
	unsigned n = 1 + rnd(8);
	bool good;

	for (unsigned i = 0; i < n; i++)
		env[i] = any_variable(text);
	pd_vars_reset(&vars);
	good = !pd_vars_parse(&vars, env, var_message, said);
	for (unsigned i = 0; i < pd_var_count; i++) {
		const struct pd_var_desc *desc = &pd_var_descs[i];
		const void *field = (const char *)&vars + desc->offset;

		if (desc->type == PD_VAR_TYPE_INT)
			check_number(desc, *(const int *)field);
		if (desc->type == PD_VAR_TYPE_STR)
			MUST(strlen(*(const char *const *)field) < (size_t)desc->max);
		MUST(pd_var_format(&vars, desc, shown, sizeof(shown)) == shown);
	}
	pd_vars_reset(&vars);
	for (unsigned i = 0; i < n; i++)
		free(env[i]);
	return good;
}

/*
 * --- the fuzzer ----------------------------------------------------------------------------------
 */

static bool run(unsigned kind)
{
	char text[8192];
	size_t len;

	if (kind >= MADE_FILE) {
		len = any_config(text, sizeof(text), kind == MADE_FILE);
		return read_text(kind == MADE_FILE, text, len);
	}
	if (kind == VARIABLES) {
		any_text(text, 1 + rnd(64), words, PD_ARRAY_SIZE(words));
		return variables(text);
	}
	len = any_text(text, 2048, words, PD_ARRAY_SIZE(words));
	return read_text(kind == THE_FILE, text, len);
}

const struct fuzz_target fuzz_target = {
	.name = "config",
	FUZZ_KINDS(kinds),
	.good = "without a mistake",
	.seeds = 5000,
	.run = run,
};
