/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What somebody asks about the rules, and the rules as text. A question is written as the end of a
 * rule is and read by the same parser, so that both mean the same; but it is about one socket.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"

/* Where the mistakes of a question go. */
struct complaint {
	char *text;
	size_t bytes;
};

/* Keep the first mistake, without what it would do to a line of a file. */
static void complain(void *ctx, enum pd_conf_severity severity, const struct pd_conf_place *place,
		     const char *text)
{
	const char *rest = strstr(text, "; the line is left out");
	struct complaint *c = ctx;

	(void)place;
	if (severity == PD_CONF_ERROR && !*c->text)
		snprintf(c->text, c->bytes, "%.*s", (int)(rest ? (size_t)(rest - text) : 512),
			 text);
}

/* True when `pattern` is about one address and one port, which become `e`. */
static bool endpoint_of(const struct pd_conf_pattern *pattern, struct pd_conf_endpoint *e)
{
	unsigned whole = pattern->net.family == AF_INET ? 32 : 128;

	if (!pattern->net.family || pattern->net.prefix_len != whole ||
	    pattern->port_low != pattern->port_high)
		return false;
	e->family = pattern->net.family;
	memcpy(e->addr, pattern->net.addr, sizeof(e->addr));
	e->port = pattern->port_low;
	return true;
}

/* Make a question of the rule it was read as. Returns NULL or what is wrong. */
static const char *question_of(const struct pd_conf_rule *rule, struct pd_conf_question *q)
{
	*q = (struct pd_conf_question){.role = rule->role, .has_second = rule->has_second};
	if (rule->role == PD_ROLE_PACKET) {
		if (strpbrk(rule->port_glob, "*?["))
			return "a socket is asked about with one port's name, not with a pattern";
		memcpy(q->port_name, rule->port_glob, sizeof(q->port_name));
		q->ethertype = rule->ethertype < 0 ? ETH_P_ALL : (uint16_t)rule->ethertype;
		return NULL;
	}
	if (!endpoint_of(&rule->first, &q->first) ||
	    (rule->has_second && !endpoint_of(&rule->second, &q->second)))
		return "a socket has one address and one port: no *, no network, no range";
	return NULL;
}

int pd_conf_question_read(const char *text, struct pd_conf_question *q, char *error, size_t bytes)
{
	struct complaint complaint = {error, bytes};
	struct pd_config *cfg = pd_config_new();
	char line[512];
	const char *wrong;
	int n, ret = -EINVAL;

	*error = '\0';
	if (!cfg)
		return -ENOMEM;
	n = snprintf(line, sizeof(line), "use os %s\n", text);
	if (n >= (int)sizeof(line)) {
		snprintf(error, bytes, "that is too long for a socket");
		goto out;
	}
	ret = pd_config_parse(cfg, "a question", line, (size_t)n, complain, &complaint);
	if (ret || *error)
		goto out;
	/* "#" and what follows is a comment. */
	wrong = cfg->group_count == 1 && cfg->groups->rule_count == 1
			? question_of(cfg->groups->rules, q)
			: "that is no socket";
	if (wrong)
		snprintf(error, bytes, "%s", wrong);
out:
	pd_config_free(cfg);
	return ret ? ret : *error ? -EINVAL : 0;
}

/* --- as text ------------------------------------------------------------------------------- */

/* Write A:P. Returns as snprintf. */
static int pattern_write(const struct pd_conf_pattern *pattern, char *out, size_t bytes)
{
	const struct pd_conf_address *net = &pattern->net;
	char address[INET6_ADDRSTRLEN + 8] = "*", port[16] = "*";
	bool v6 = net->family == AF_INET6;
	size_t n;

	if (net->family) {
		address[0] = '[';
		inet_ntop(net->family, net->addr, address + v6, INET6_ADDRSTRLEN);
		n = strlen(address);
		snprintf(address + n, sizeof(address) - n, "%s", v6 ? "]" : "");
		n += v6;
		if (net->prefix_len != (v6 ? 128 : 32))
			snprintf(address + n, sizeof(address) - n, "/%u", net->prefix_len);
	}
	if (pattern->port_low == pattern->port_high)
		snprintf(port, sizeof(port), "%u", pattern->port_low);
	else if (pattern->port_low || pattern->port_high != UINT16_MAX)
		snprintf(port, sizeof(port), "%u-%u", pattern->port_low, pattern->port_high);
	return snprintf(out, bytes, "%s:%s", address, port);
}

void pd_conf_rule_write(const struct pd_conf_rule *rule, char *out, size_t bytes)
{
	char first[PD_CONF_PATTERN_BYTES], second[PD_CONF_PATTERN_BYTES + 1] = "";

	if (rule->role == PD_ROLE_PACKET) {
		if (rule->ethertype >= 0)
			snprintf(second, sizeof(second), ":%#x", (unsigned)rule->ethertype);
		snprintf(first, sizeof(first), "%s", rule->port_glob);
	} else {
		pattern_write(&rule->first, first, sizeof(first));
		if (rule->has_second) {
			second[0] = ':';
			pattern_write(&rule->second, second + 1, sizeof(second) - 1);
		}
	}
	snprintf(out, bytes, "use %s %s %s%s", rule->use == PD_USE_OS ? "os" : "palladium",
		 pd_conf_role_name(rule->role), first, second);
}
