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

/* NULL when `e` matches the pattern (without an endpoint, when the pattern takes all); else why not. */
static const char *pd_conf_misses(const struct pd_conf_pattern *pattern,
				  const struct pd_conf_endpoint *e)
{
	struct pd_conf_endpoint plain;

	if (!e)
		return !pattern->net.family && !pattern->port_low &&
				       pattern->port_high == UINT16_MAX
			       ? NULL
			       : "asks for the local end";
	if (e->port < pattern->port_low || e->port > pattern->port_high)
		return "another port";
	plain = pd_conf_unmap(e);
	return pd_conf_in_net(&pattern->net, &plain) ? NULL : "another address";
}

const char *pd_conf_group_misses(const struct pd_conf_group *group, const char *program,
				 const char *app_id)
{
	if (fnmatch(group->program, program, 0))
		return "another program";
	return fnmatch(group->id, app_id, 0) ? "another PALLADIUM_APPLICATION_ID" : NULL;
}

const char *pd_conf_rule_misses(const struct pd_conf_rule *rule, const struct pd_conf_question *q)
{
	const char *miss;

	if (rule->role != q->role)
		return "another role";
	if (rule->role == PD_ROLE_PACKET)
		return fnmatch(rule->port_glob, q->port_name, 0) ? "another port"
		       : rule->ethertype >= 0 && rule->ethertype != q->ethertype
			       ? "another ethertype"
			       : NULL;
	miss = pd_conf_misses(&rule->first, &q->first);
	if (miss || !rule->has_second)
		return miss;
	return pd_conf_misses(&rule->second, q->has_second ? &q->second : NULL);
}

void pd_conf_decide(const struct pd_config *cfg, const char *program, const char *app_id,
		    const struct pd_conf_question *q, struct pd_conf_decision *decision)
{
	*decision = (struct pd_conf_decision){.use = PD_USE_PALLADIUM};
	for (uint32_t i = 0; i < cfg->group_count && !decision->group; i++)
		if (!pd_conf_group_misses(&cfg->groups[i], program, app_id))
			decision->group = &cfg->groups[i];
	for (uint32_t i = 0; decision->group && i < decision->group->rule_count; i++) {
		const struct pd_conf_rule *rule = &decision->group->rules[i];

		if (pd_conf_rule_misses(rule, q))
			continue;
		decision->rule = rule;
		decision->use = rule->use;
		return;
	}
}
