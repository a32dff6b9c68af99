/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be said only when everything has been read: partners of loop ports, defaults that depend
 * on other things, and lines that nothing can reach.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "config/conf.h"
#include "config/text.h"
#include "config/vars.h"

/* Whom to tell. */
struct pd_conf_check {
	struct pd_config *cfg;
	pd_conf_message_fn message;
	void *ctx;
};

/* --- ports --------------------------------------------------------------------------------- */

/* The port of that name, to be written. */
static struct pd_port_config *pd_conf_check_find(struct pd_conf_check *c, const char *name)
{
	return pd_conf_find_port(c->cfg, (struct pd_conf_text){name, strlen(name)});
}

/*
 * Join a loop port with its partner, making that if nobody named it. Returns false when the port
 * cannot be (which has been said).
 */
static bool pd_conf_check_loop(struct pd_conf_check *c, struct pd_port_config *port)
{
	struct pd_port_config *other = pd_conf_check_find(c, port->peer);

	if (!*port->peer) {
		pd_conf_error(c, &port->place,
			      "port %s needs peer=, the port at its other end; it is left out",
			      port->name);
		return false;
	}
	if (other == port) {
		pd_conf_error(c, &port->place, "port %s is its own peer; it is left out",
			      port->name);
		return false;
	}
	if (!other && c->cfg->port_count == PD_CONF_PORTS_MAX) {
		pd_conf_error(c, &port->place,
			      "more than %d ports with the partner of %s; it is left out",
			      PD_CONF_PORTS_MAX, port->name);
		return false;
	}
	if (!other) {
		other = &c->cfg->ports[c->cfg->port_count++];
		*other = (struct pd_port_config){.dialect = port->dialect,
						 .mtu = port->mtu,
						 .queues = port->queues,
						 .steer = port->steer,
						 .ring = port->ring,
						 .place = port->place};
		memcpy(other->name, port->peer, sizeof(other->name) - 1);
		memcpy(other->transport, port->transport, sizeof(other->transport));
		memcpy(other->peer, port->name, sizeof(port->name));
		return true;
	}
	if (strcmp(other->transport, "loop")) {
		pd_conf_error(c, &port->place,
			      "the peer of port %s, %s, is a %s port; %s is left out", port->name,
			      other->name, other->transport, port->name);
		return false;
	}
	if (!*other->peer)
		memcpy(other->peer, port->name, sizeof(port->name));
	if (strcmp(other->peer, port->name)) {
		pd_conf_error(c, &port->place,
			      "the peer of port %s, %s, has the peer %s; %s is left out",
			      port->name, other->name, other->peer, port->name);
		return false;
	}
	return true;
}

/*
 * A MAC address of one station, locally administered, the same at every start: a hash (FNV-1a) of
 * what makes the port, so that two ends of one link differ.
 */
static void pd_conf_make_mac(struct pd_port_config *port)
{
	const char *parts[] = {port->name,
			       port->transport,
			       port->path,
			       port->peer,
			       port->mode == PD_CONF_MODE_LISTEN ? "l" : "c",
			       port->role == PD_CONF_FRONTEND ? "f" : "b"};
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < PD_ARRAY_SIZE(parts); i++)
		for (const char *s = parts[i];; s++) {
			hash = (hash ^ (uint8_t)*s) * 0x100000001b3u;
			if (!*s)
				break;
		}
	hash ^= hash >> 32;
	for (int i = 0; i < 6; i++)
		port->mac[i] = (uint8_t)(hash >> 8 * i);
	port->mac[0] = (uint8_t)((port->mac[0] & 0xfc) | 0x02);
}

/* Warn when an earlier port has the same MAC address. */
static void pd_conf_check_mac(struct pd_conf_check *c, const struct pd_port_config *port)
{
	for (const struct pd_port_config *other = c->cfg->ports; other < port; other++)
		if (!memcmp(other->mac, port->mac, sizeof(port->mac)))
			pd_conf_warn(c, &port->place, "ports %s and %s have the same MAC address",
				     other->name, port->name);
}

/*
 * Any number of descriptors will do for a packed ring alone; where there can be none, it is
 * refused.
 */
static void pd_conf_check_ring(struct pd_conf_check *c, struct pd_port_config *port)
{
	bool loop = !strcmp(port->transport, "loop");

	if (pd_power_of_two_below(port->ring) == port->ring ||
	    (!loop && port->format != PD_CONF_FORMAT_SPLIT))
		return;
	pd_conf_error(c, &port->place,
		      "port %s: ring: expected a power of two for %s, not %u; using %u", port->name,
		      loop ? "a loop" : "format=split", port->ring, PD_CONF_RING_DEFAULT);
	port->ring = PD_CONF_RING_DEFAULT;
}

/* All that concerns ports. */
static void pd_conf_check_ports(struct pd_conf_check *c)
{
	struct pd_config *cfg = c->cfg;

	for (uint32_t i = 0; i < cfg->port_count;) {
		struct pd_port_config *port = &cfg->ports[i];
		bool ok = true;

		pd_conf_check_ring(c, port);
		if (!strcmp(port->transport, "loop"))
			ok = pd_conf_check_loop(c, port);
		if (!strcmp(port->transport, "vhost-user") && !*port->path) {
			pd_conf_error(c, &port->place,
				      "port %s needs path=, its socket; it is left out",
				      port->name);
			ok = false;
		}
		if (ok)
			i++;
		else
			pd_conf_drop_port(cfg, port);
	}
	for (uint32_t i = 0; i < cfg->port_count; i++) {
		struct pd_port_config *port = &cfg->ports[i];

		if (!port->mtu)
			port->mtu = pd_conf_default_mtu();
		if (!port->mac_set)
			pd_conf_make_mac(port);
		pd_conf_check_mac(c, port);
	}
}

/* --- rules that nothing reaches ------------------------------------------------------------ */

/* True when everything that glob `b` matches is surely matched by glob `a`. */
static bool pd_conf_glob_covers(const char *a, const char *b)
{
	if (!strcmp(a, "*") || !strcmp(a, b))
		return true;
	return !strpbrk(b, "*?[\\") && !fnmatch(a, b, 0);
}

/* True when network `a` holds all of `b`. */
static bool pd_conf_net_covers(const struct pd_conf_address *a, const struct pd_conf_address *b)
{
	if (!a->family)
		return true;
	if (a->family != b->family || a->prefix_len > b->prefix_len)
		return false;
	for (unsigned bit = 0; bit < a->prefix_len; bit++)
		if ((a->addr[bit / 8] ^ b->addr[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return true;
}

/* True when pattern `a` matches all that `b` does. */
static bool pd_conf_pattern_covers(const struct pd_conf_pattern *a, const struct pd_conf_pattern *b)
{
	return a->port_low <= b->port_low && a->port_high >= b->port_high &&
	       pd_conf_net_covers(&a->net, &b->net);
}

/* True when rule `a` matches all that `b` does. */
static bool pd_conf_rule_covers(const struct pd_conf_rule *a, const struct pd_conf_rule *b)
{
	static const struct pd_conf_pattern any = {.port_high = UINT16_MAX};

	if (a->role != b->role)
		return false;
	if (a->role == PD_ROLE_PACKET)
		return (a->ethertype < 0 || a->ethertype == b->ethertype) &&
		       pd_conf_glob_covers(a->port_glob, b->port_glob);
	return pd_conf_pattern_covers(&a->first, &b->first) &&
	       (!a->has_second ||
		pd_conf_pattern_covers(&a->second, b->has_second ? &b->second : &any));
}

/* Warn about the lines of a group that an earlier line makes useless. */
static void pd_conf_check_rules(struct pd_conf_check *c, const struct pd_conf_group *group)
{
	for (uint32_t i = 1; i < group->rule_count; i++)
		for (uint32_t j = 0; j < i; j++) {
			if (!pd_conf_rule_covers(&group->rules[j], &group->rules[i]))
				continue;
			pd_conf_warn(c, &group->rules[i].place,
				     "nothing reaches this line: line %u matches all that it would",
				     group->rules[j].place.line);
			break;
		}
}

/* Warn about the lines of a group that name a port which is not there. */
static void pd_conf_check_names(struct pd_conf_check *c, const struct pd_conf_group *group)
{
	struct pd_text_nearest nearest;
	struct pd_conf_place place;
	const char *best;
	size_t ignored;
	bool found;

	for (uint32_t i = 0; i < group->rule_count; i++) {
		const struct pd_conf_rule *rule = &group->rules[i];

		if (rule->role != PD_ROLE_PACKET || !strcmp(rule->port_glob, "*"))
			continue;
		found = false;
		pd_text_nearest_begin(&nearest, rule->port_glob, strlen(rule->port_glob));
		for (uint32_t j = 0; j < c->cfg->port_count; j++) {
			const char *name = c->cfg->ports[j].name;

			found |= !fnmatch(rule->port_glob, name, 0);
			pd_text_nearest_offer(&nearest, name, strlen(name));
		}
		if (found)
			continue;
		place = rule->place;
		place.column = rule->port_column;
		best = pd_text_nearest_end(&nearest, &ignored);
		pd_conf_warn(c, &place, "nothing reaches this line: there is no port %s%s%s%s",
			     rule->port_glob, best ? "; did you mean " : "", best ? best : "",
			     best ? "?" : "");
	}
}

void pd_config_finish(struct pd_config *cfg, pd_conf_message_fn message, void *ctx)
{
	struct pd_conf_check c = {cfg, message, ctx};

	pd_conf_check_ports(&c);
	pd_conf_access_finish(cfg, message, ctx);
	for (uint32_t i = 0; i < cfg->group_count; i++) {
		const struct pd_conf_group *group = &cfg->groups[i];

		pd_conf_check_rules(&c, group);
		pd_conf_check_names(&c, group);
		for (uint32_t j = 0; j < i; j++) {
			const struct pd_conf_group *first = &cfg->groups[j];

			if (!pd_conf_glob_covers(first->program, group->program) ||
			    !pd_conf_glob_covers(first->id, group->id))
				continue;
			pd_conf_warn(&c, &group->place,
				     "nothing reaches the group \"%.40s %.40s\": line %u, \"%.40s "
				     "%.40s\", "
				     "applies to all of its programs",
				     group->program, group->id, first->place.line, first->program,
				     first->id);
			break;
		}
	}
}
