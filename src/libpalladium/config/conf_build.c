/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Statements -> groups and rules; messages.
 *
 * Each function is called by the parser with pieces of the text. It checks them, says what is wrong
 * at the place of the piece, and leaves out what cannot be used.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/conf.h"
#include "config/text.h"

void pd_conf_say(struct pd_config *cfg, pd_conf_message_fn message, void *ctx,
		 enum pd_conf_severity severity, const struct pd_conf_place *place, const char *fmt,
		 ...)
{
	char text[800];
	va_list ap;

	cfg->error_count += severity == PD_CONF_ERROR;
	cfg->warning_count += severity == PD_CONF_WARNING;
	if (!message)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?'; /* the file may hold anything, the terminal should not get it */
	message(ctx, severity, place, text);
}

bool pd_conf_copy(char *out, size_t size, struct pd_conf_text text)
{
	if (text.len >= size || memchr(text.s, 0, text.len))
		return false;
	memcpy(out, text.s, text.len);
	out[text.len] = 0;
	return true;
}

/* A copy of the text with a NUL behind it, or NULL when there is no memory (noted in p->error). */
static char *pd_conf_strdup(struct pd_conf_parse *p, struct pd_conf_text text)
{
	char *copy = strndup(text.s, text.len);

	if (!copy)
		p->error = -ENOMEM;
	return copy;
}

/* --- groups -------------------------------------------------------------------------------- */

/* Begin the group of `program` and `id`. */
void pd_conf_add_group(struct pd_conf_parse *p, struct pd_conf_text program, struct pd_conf_text id,
		       struct pd_conf_place place)
{
	struct pd_config *cfg = p->cfg;
	struct pd_conf_group *grown, group = {.place = place};

	if (cfg->group_count == PD_CONF_GROUPS_MAX) {
		pd_conf_error(p, &place, "more than %d groups of rules", PD_CONF_GROUPS_MAX);
		return;
	}
	grown = realloc(cfg->groups, (cfg->group_count + 1) * sizeof(*grown));
	if (!grown) {
		p->error = -ENOMEM;
		return;
	}
	cfg->groups = grown;
	group.program = pd_conf_strdup(p, program);
	group.id = pd_conf_strdup(p, id);
	if (!group.program || !group.id) {
		free(group.program);
		free(group.id);
		return;
	}
	grown[cfg->group_count++] = group;
}

/*
 * The group that lines belong to: the last one, or `* *` for lines before the first. NULL: no
 * memory.
 */
static struct pd_conf_group *pd_conf_current_group(struct pd_conf_parse *p,
						   struct pd_conf_place place)
{
	static const struct pd_conf_text any = {"*", 1};

	if (!p->cfg->group_count)
		pd_conf_add_group(p, any, any, place);
	return p->cfg->group_count ? &p->cfg->groups[p->cfg->group_count - 1] : NULL;
}

/* Append `rule` to the group at hand. */
static void pd_conf_append_rule(struct pd_conf_parse *p, const struct pd_conf_rule *rule)
{
	struct pd_conf_group *group = pd_conf_current_group(p, rule->place);
	struct pd_conf_rule *grown;

	if (!group)
		return;
	if (group->rule_count == PD_CONF_RULES_MAX) {
		pd_conf_error(p, &rule->place, "more than %d lines in one group",
			      PD_CONF_RULES_MAX);
		return;
	}
	/* Doubling: a power of two is when the array is full. */
	if (!(group->rule_count & (group->rule_count - 1))) {
		grown = realloc(group->rules,
				(size_t)pd_max(2 * group->rule_count, 1u) * sizeof(*grown));
		if (!grown) {
			p->error = -ENOMEM;
			return;
		}
		group->rules = grown;
	}
	group->rules[group->rule_count++] = *rule;
}

/* --- rules --------------------------------------------------------------------------------- */

/* Append a rule of addresses, unless a part of it was wrong (then that has been said). */
void pd_conf_add_rule(struct pd_conf_parse *p, enum pd_conf_use use, enum pd_conf_role role,
		      struct pd_conf_pattern first, const struct pd_conf_pattern *second,
		      struct pd_conf_place place)
{
	struct pd_conf_rule rule = {
		.role = role, .use = use, .first = first, .ethertype = -1, .place = place};

	if (p->rule_bad)
		return;
	if (second) {
		rule.has_second = true;
		rule.second = *second;
	}
	if (second && role != PD_ROLE_TCP_CLIENT && role != PD_ROLE_UDP_CONNECT) {
		pd_conf_error(p, &place,
			      "%s takes one ADDRESS:PORT (two are for tcp_client and "
			      "udp_connect); the line is left out",
			      pd_conf_role_name(role));
		return;
	}
	pd_conf_append_rule(p, &rule);
}

/* The ethertypes that have names here. */
static const struct {
	const char *name;
	int32_t type;
} pd_conf_ethertypes[] = {
	{"*", -1},        {"all", -1},       {"ip", 0x0800},   {"ipv4", 0x0800},
	{"arp", 0x0806},  {"vlan", 0x8100},  {"ipv6", 0x86dd}, {"pause", 0x8808},
	{"mpls", 0x8847}, {"eapol", 0x888e}, {"lldp", 0x88cc}, {"macsec", 0x88e5},
	{"ptp", 0x88f7},
};

/* Read an ethertype: a name, or a number from 0x600. Returns false when it has been refused. */
static bool pd_conf_ethertype(struct pd_conf_parse *p, struct pd_conf_text text,
			      struct pd_conf_place place, int32_t *out)
{
	struct pd_text_nearest nearest;
	const char *best;
	size_t best_len;
	int64_t number;

	pd_text_nearest_begin(&nearest, text.s, text.len);
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_conf_ethertypes); i++) {
		const char *name = pd_conf_ethertypes[i].name;

		if (pd_text_is(text.s, text.len, name))
			return *out = pd_conf_ethertypes[i].type, true;
		pd_text_nearest_offer(&nearest, name, strlen(name));
	}
	if (!pd_text_number(text.s, text.len, &number) && number >= 0x600 && number <= 0xffff)
		return *out = (int32_t)number, true;
	best = pd_text_nearest_end(&nearest, &best_len);
	pd_conf_error(p, &place,
		      "expected an ethertype (0x600 to 0xffff, a name like arp or ipv6, or *), not "
		      "\"%.*s\"%s%s; the line is left out",
		      PD_CONF_SHOWN(text), best ? "; did you mean " : "", best ? best : "");
	return false;
}

/* Append a rule of role packet; `what` is PORT[:ETHERTYPE]. */
void pd_conf_add_packet_rule(struct pd_conf_parse *p, enum pd_conf_use use,
			     struct pd_conf_text what, struct pd_conf_place place,
			     struct pd_conf_place what_place)
{
	struct pd_conf_rule rule = {.role = PD_ROLE_PACKET,
				    .use = use,
				    .port_column = what_place.column,
				    .ethertype = -1,
				    .place = place};
	const char *colon = memchr(what.s, ':', what.len);
	struct pd_conf_text port = what, type = {0};

	if (colon) {
		port.len = (size_t)(colon - what.s);
		type = (struct pd_conf_text){colon + 1, what.len - port.len - 1};
	}
	if (!port.len || !pd_conf_copy(rule.port_glob, sizeof(rule.port_glob), port)) {
		pd_conf_error(p, &what_place,
			      "expected the name of a port (1 to %d characters) or a "
			      "pattern of names, not \"%.*s\"; the line is left out",
			      PD_CONF_NAME_MAX - 1, PD_CONF_SHOWN(port));
		return;
	}
	what_place.column += (uint32_t)port.len + 1;
	if (colon && !pd_conf_ethertype(p, type, what_place, &rule.ethertype))
		return;
	pd_conf_append_rule(p, &rule);
}

bool pd_conf_parse_address(struct pd_conf_text text, struct pd_conf_address *out)
{
	struct pd_conf_address a = {0};
	char copy[INET6_ADDRSTRLEN];

	if (text.len > 2 && text.s[0] == '[' && text.s[text.len - 1] == ']') {
		text.s++;
		text.len -= 2;
		if (!memchr(text.s, ':', text.len))
			return false;
	}
	if (!pd_conf_copy(copy, sizeof(copy), text))
		return false;
	if (inet_pton(AF_INET, copy, a.addr) == 1) {
		a.family = AF_INET;
		a.prefix_len = 32;
	} else if (inet_pton(AF_INET6, copy, a.addr) == 1) {
		a.family = AF_INET6;
		a.prefix_len = 128;
	} else {
		return false;
	}
	*out = a;
	return true;
}

/*
 * Clear the bits behind the prefix, so that two spellings of one network are equal. True if any was
 * set.
 */
static bool pd_conf_mask(struct pd_conf_address *net)
{
	bool changed = false;

	for (unsigned bit = net->prefix_len; bit < (net->family == AF_INET ? 32u : 128u); bit++) {
		uint8_t mask = (uint8_t)(0x80 >> bit % 8);

		changed |= net->addr[bit / 8] & mask;
		net->addr[bit / 8] &= (uint8_t)~mask;
	}
	return changed;
}

/* The network `addr`[/`len`] of a rule; marks the rule bad when it is none. */
struct pd_conf_address pd_conf_net(struct pd_conf_parse *p, struct pd_conf_text addr,
				   const struct pd_conf_text *len, struct pd_conf_place addr_place,
				   struct pd_conf_place len_place)
{
	struct pd_conf_address net = {0};
	int64_t bits;

	if (!pd_conf_parse_address(addr, &net)) {
		pd_conf_error(p, &addr_place,
			      "expected an IPv4 address, an IPv6 address in brackets or *, not "
			      "\"%.*s\"; the line is left out",
			      PD_CONF_SHOWN(addr));
		p->rule_bad = true;
		return net;
	}
	if (!len)
		return net;
	if (pd_text_number(len->s, len->len, &bits) || bits > net.prefix_len) {
		pd_conf_error(
			p, &len_place,
			"expected a prefix length from 0 to %u, not \"%.*s\"; the line is left out",
			net.prefix_len, PD_CONF_SHOWN(*len));
		p->rule_bad = true;
		return net;
	}
	net.prefix_len = (uint8_t)bits;
	if (pd_conf_mask(&net))
		pd_conf_detail(p, &addr_place, "the bits behind /%u do not count", net.prefix_len);
	return net;
}

/* A port number of a rule; marks the rule bad when it is none. */
uint16_t pd_conf_port_number(struct pd_conf_parse *p, struct pd_conf_text text,
			     struct pd_conf_place place)
{
	int64_t number;

	if (!pd_text_number(text.s, text.len, &number) && number >= 1 && number <= UINT16_MAX)
		return (uint16_t)number;
	pd_conf_error(
		p, &place,
		"expected a port number from 1 to 65535 or *, not \"%.*s\"; the line is left out",
		PD_CONF_SHOWN(text));
	p->rule_bad = true;
	return 0;
}

/* The range of ports of a pattern; marks the rule bad when it is reversed. */
void pd_conf_port_range(struct pd_conf_parse *p, struct pd_conf_pattern *pattern, uint16_t low,
			uint16_t high, struct pd_conf_place place)
{
	pattern->port_low = low;
	pattern->port_high = high;
	if (low <= high || p->rule_bad)
		return;
	pd_conf_error(
		p, &place,
		"expected a range that goes up, not %u-%u, which no port matches; the line is "
		"left out",
		low, high);
	p->rule_bad = true;
}

/* --- the log line -------------------------------------------------------------------------- */

/* `min-level`: a name of a level, or 1 to 9 as libvma.conf counts (9 errors only, 1 everything). */
void pd_conf_log_level(struct pd_conf_parse *p, struct pd_conf_text text,
		       struct pd_conf_place place)
{
	static const int levels[] = {
		0,           PD_LOG_DEBUG, PD_LOG_DEBUG, PD_LOG_DETAILS, PD_LOG_DETAILS,
		PD_LOG_INFO, PD_LOG_INFO,  PD_LOG_INFO,  PD_LOG_WARN,    PD_LOG_ERROR};
	char name[16];
	int64_t number;

	if (!pd_text_number(text.s, text.len, &number) && number >= 1 && number <= 9) {
		p->cfg->log_level = levels[number];
		return;
	}
	if (pd_conf_copy(name, sizeof(name), text) && pd_log_level_parse(name) >= 0) {
		p->cfg->log_level = pd_log_level_parse(name);
		return;
	}
	pd_conf_error(p, &place,
		      "expected a level from 1 to 9 or a name (none, panic, error, warn, "
		      "info, details, debug, fine, finer, all), not \"%.*s\"; the level stays",
		      PD_CONF_SHOWN(text));
}

/* `destination file`. */
void pd_conf_log_file(struct pd_conf_parse *p, struct pd_conf_text text, struct pd_conf_place place)
{
	if (!text.len || !pd_conf_copy(p->cfg->log_file, sizeof(p->cfg->log_file), text))
		pd_conf_error(
			p, &place,
			"expected the path of a file, at most %zu bytes; the log stays where it is",
			sizeof(p->cfg->log_file) - 1);
	else
		p->cfg->log_syslog = false;
}
