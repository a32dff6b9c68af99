/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which line of the rules decides about a socket. Any thread, no lock, no allocation.
 */
#include <fnmatch.h>
#include <string.h>
#include <sys/socket.h>

#include "config/config.h"

const char *pd_conf_role_name(enum pd_conf_role role)
{
	static const char *const names[] = {
		[PD_ROLE_TCP_SERVER] = "tcp_server",   [PD_ROLE_TCP_CLIENT] = "tcp_client",
		[PD_ROLE_UDP_SENDER] = "udp_sender",   [PD_ROLE_UDP_RECEIVER] = "udp_receiver",
		[PD_ROLE_UDP_CONNECT] = "udp_connect", [PD_ROLE_PACKET] = "packet",
	};
	_Static_assert(PD_ARRAY_SIZE(names) == PD_ROLE_COUNT, "a name for each role");

	return (unsigned)role < PD_ROLE_COUNT ? names[role] : "?";
}

/* The endpoint as rules see it: an IPv4 address that came mapped into IPv6 is IPv4. */
static struct pd_conf_endpoint pd_conf_unmap(const struct pd_conf_endpoint *e)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct pd_conf_endpoint out = *e;

	if (e->family == AF_INET6 && !memcmp(e->addr, mapped, sizeof(mapped))) {
		out.family = AF_INET;
		memcpy(out.addr, e->addr + 12, 4);
	}
	return out;
}

/* True when the address of `e` lies in `net`. */
static bool pd_conf_in_net(const struct pd_conf_address *net, const struct pd_conf_endpoint *e)
{
	unsigned bytes = net->prefix_len / 8, bits = net->prefix_len % 8;

	if (!net->family)
		return true;
	if (net->family != e->family || memcmp(net->addr, e->addr, bytes))
		return false;
	return !bits || !((net->addr[bytes] ^ e->addr[bytes]) & (0xff00 >> bits & 0xff));
}

/* True when `e` matches the pattern; without an endpoint, when the pattern takes everything. */
static bool pd_conf_matches(const struct pd_conf_pattern *pattern, const struct pd_conf_endpoint *e)
{
	struct pd_conf_endpoint plain;

	if (!e)
		return !pattern->net.family && !pattern->port_low &&
		       pattern->port_high == UINT16_MAX;
	if (e->port < pattern->port_low || e->port > pattern->port_high)
		return false;
	plain = pd_conf_unmap(e);
	return pd_conf_in_net(&pattern->net, &plain);
}

/* The group that applies to a program, or NULL. */
static const struct pd_conf_group *pd_conf_group_of(const struct pd_config *cfg,
						    const char *program, const char *app_id)
{
	for (uint32_t i = 0; i < cfg->group_count; i++)
		if (!fnmatch(cfg->groups[i].program, program, 0) &&
		    !fnmatch(cfg->groups[i].id, app_id, 0))
			return &cfg->groups[i];
	return NULL;
}

/* Begin a decision: the group is found, no line has decided. */
static void pd_conf_begin_decision(const struct pd_config *cfg, const char *program,
				   const char *app_id, struct pd_conf_decision *decision)
{
	decision->use = PD_USE_PALLADIUM;
	decision->rule = NULL;
	decision->group = pd_conf_group_of(cfg, program, app_id);
}

void pd_conf_match(const struct pd_config *cfg, const char *program, const char *app_id,
		   enum pd_conf_role role, const struct pd_conf_endpoint *first,
		   const struct pd_conf_endpoint *second, struct pd_conf_decision *decision)
{
	pd_conf_begin_decision(cfg, program, app_id, decision);
	for (uint32_t i = 0; decision->group && i < decision->group->rule_count; i++) {
		const struct pd_conf_rule *rule = &decision->group->rules[i];

		if (rule->role != role || !pd_conf_matches(&rule->first, first) ||
		    (rule->has_second && !pd_conf_matches(&rule->second, second)))
			continue;
		decision->rule = rule;
		decision->use = rule->use;
		return;
	}
}

void pd_conf_match_packet(const struct pd_config *cfg, const char *program, const char *app_id,
			  const char *port_name, uint16_t ethertype,
			  struct pd_conf_decision *decision)
{
	pd_conf_begin_decision(cfg, program, app_id, decision);
	for (uint32_t i = 0; decision->group && i < decision->group->rule_count; i++) {
		const struct pd_conf_rule *rule = &decision->group->rules[i];

		if (rule->role != PD_ROLE_PACKET || fnmatch(rule->port_glob, port_name, 0) ||
		    (rule->ethertype >= 0 && rule->ethertype != ethertype))
			continue;
		decision->rule = rule;
		decision->use = rule->use;
		return;
	}
}
