/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports and their keys.
 *
 * A key is a row of pd_conf_keys: its name, the transport that knows it, the function that reads
 * its value and the one that says what stands. A value that is refused is said with what was
 * expected and what is used instead.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "config/conf.h"
#include "config/text.h"
#include "config/vars.h"

/* A transport that ports may name: what stands behind "transport:" is the value of `argument`. */
static const struct pd_conf_transport {
	const char *name;
	const char *argument;
} pd_conf_transports[] = {
#define PD_TRANSPORT(ops, name, argument) {name, argument},
#include "defs/transports.def"
#undef PD_TRANSPORT
};

/* A value at hand. */
struct pd_conf_value {
	struct pd_conf_parse *p;
	struct pd_port_config *port;
	const struct pd_conf_key *row; /* NULL: no key of ours */
	struct pd_conf_text key, text;
	struct pd_conf_place place;
};

struct pd_conf_key {
	const char *name;
	const char *transport; /* NULL: every one */
	bool repeatable;
	void (*read)(struct pd_conf_value *v);
	/*
	 * Writes the value that stands, as the file would have it; nothing when there is none.
	 * NULL: a refused value is left out.
	 */
	void (*show)(const struct pd_port_config *port, char *out, size_t size);
};

uint32_t pd_conf_default_mtu(void)
{
	return pd_vars.mtu ? (uint32_t)pd_vars.mtu : PD_CONF_MTU_DEFAULT;
}

bool pd_conf_port_name_ok(struct pd_conf_text name)
{
	if (!name.len || name.len >= PD_CONF_NAME_MAX || !isalpha((unsigned char)name.s[0]))
		return false;
	for (size_t i = 0; i < name.len; i++)
		if (!isalnum((unsigned char)name.s[i]) && !memchr("_-.", name.s[i], 3))
			return false;
	return true;
}

struct pd_port_config *pd_conf_find_port(struct pd_config *cfg, struct pd_conf_text name)
{
	for (uint32_t i = 0; i < cfg->port_count; i++)
		if (strlen(cfg->ports[i].name) == name.len &&
		    !memcmp(cfg->ports[i].name, name.s, name.len))
			return &cfg->ports[i];
	return NULL;
}

void pd_conf_drop_port(struct pd_config *cfg, struct pd_port_config *port)
{
	struct pd_port_config *end = &cfg->ports[cfg->port_count--];

	memmove(port, port + 1, (size_t)(end - (port + 1)) * sizeof(*port));
}

/* The row of a transport, or NULL. */
static const struct pd_conf_transport *pd_conf_transport(struct pd_conf_text name)
{
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_conf_transports); i++)
		if (pd_text_is(name.s, name.len, pd_conf_transports[i].name))
			return &pd_conf_transports[i];
	return NULL;
}

/* --- values -------------------------------------------------------------------------------- */

/* Say that the value is not what the key takes, and what is used instead. */
static PD_PRINTF(2, 3) void pd_conf_refuse(struct pd_conf_value *v, const char *fmt, ...)
{
	char expected[300], stands[PD_CONF_PATH_MAX] = "";
	const char *instead = "; it is left out";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(expected, sizeof(expected), fmt, ap);
	va_end(ap);
	if (v->port == &v->p->scratch) {
		instead = ""; /* the port is left out, with all its keys */
	} else if (v->row && v->row->show) {
		v->row->show(v->port, stands, sizeof(stands));
		instead = *stands ? "; using " : "";
	}
	pd_conf_error(v->p, &v->place, "%.*s: expected %s, not \"%.*s\"%s%s", PD_CONF_SHOWN(v->key),
		      expected, PD_CONF_SHOWN(v->text), instead, stands);
}

/* Read one of `n` words, named as `all` for who wrote another; returns its index, or -1 when it is
 * none (which has been said). */
static int pd_conf_word(struct pd_conf_value *v, const char *const *words, int n, const char *all)
{
	struct pd_text_nearest nearest;
	const char *best;
	size_t ignored;

	for (int i = 0; i < n; i++)
		if (pd_text_is(v->text.s, v->text.len, words[i]))
			return i;
	pd_text_nearest_begin(&nearest, v->text.s, v->text.len);
	for (int i = 0; i < n; i++)
		pd_text_nearest_offer(&nearest, words[i], strlen(words[i]));
	best = pd_text_nearest_end(&nearest, &ignored);
	pd_conf_refuse(v, "%s%s%s%s", all, best ? " (did you mean " : "", best ? best : "",
		       best ? "?)" : "");
	return -1;
}

/* Read one of two words, as pd_conf_word. */
static int pd_conf_either(struct pd_conf_value *v, const char *zero, const char *one)
{
	const char *const words[] = {zero, one};
	char all[64];

	snprintf(all, sizeof(all), "%s or %s", zero, one);
	return pd_conf_word(v, words, 2, all);
}

/* Read a number within a range; false when it is none (which has been said with `more`). */
static bool pd_conf_number(struct pd_conf_value *v, uint32_t min, uint32_t max, const char *more,
			   uint32_t *out)
{
	int64_t number;

	if (pd_text_number(v->text.s, v->text.len, &number) || number < min || number > max) {
		pd_conf_refuse(v, "a number from %u to %u%s", min, max, more);
		return false;
	}
	*out = (uint32_t)number;
	return true;
}

/* The path that stands; none is an error of its own. */
static void pd_conf_show_path(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%s", port->path);
}

static void pd_conf_show_peer(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%s", port->peer);
}

static void pd_conf_show_mode(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->mode == PD_CONF_MODE_LISTEN ? "listen" : "connect");
}

static void pd_conf_show_role(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->role == PD_CONF_FRONTEND ? "frontend" : "backend");
}

static void pd_conf_show_dialect(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->dialect == PD_CONF_DIALECT_VIRTIO ? "virtio" : "avip");
}

static const char *const pd_conf_formats[PD_CONF_FORMATS] = {
	[PD_CONF_FORMAT_AUTO] = "auto",
	[PD_CONF_FORMAT_SPLIT] = "split",
	[PD_CONF_FORMAT_PACKED] = "packed",
};

static void pd_conf_show_format(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%s", pd_conf_formats[port->format]);
}

static void pd_conf_show_mergeable(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->mergeable ? "on" : "off");
}

static void pd_conf_show_in_order(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->in_order ? "on" : "off");
}

static void pd_conf_show_iommu(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->iommu ? "on" : "off");
}

static void pd_conf_show_inband(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, port->inband ? "on" : "off");
}

static const char *const pd_conf_offloads[PD_CONF_OFFLOADS_WORDS] = {
	[PD_CONF_OFFLOADS_NONE] = "none",
	[PD_CONF_OFFLOADS_CSUM] = "csum",
	[PD_CONF_OFFLOADS_ALL] = "all",
};

static void pd_conf_show_offloads(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%s", pd_conf_offloads[port->offloads]);
}

static void pd_conf_show_mac(const struct pd_port_config *port, char *out, size_t size)
{
	const uint8_t *mac = port->mac;

	if (port->mac_set)
		snprintf(out, size, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
			 mac[4], mac[5]);
	else
		snprintf(out, size, "one made from the port's name and place");
}

static void pd_conf_show_mtu(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%u", port->mtu ? port->mtu : pd_conf_default_mtu());
}

static void pd_conf_show_queues(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%u", port->queues);
}

static void pd_conf_show_steer(const struct pd_port_config *port, char *out, size_t size)
{
	if (port->steer == PD_CONF_STEER_AUTO)
		snprintf(out, size, "pfc where frames carry a sidecar, else flow");
	else
		snprintf(out, size, port->steer == PD_CONF_STEER_PFC ? "pfc" : "flow");
}

static void pd_conf_show_ring(const struct pd_port_config *port, char *out, size_t size)
{
	snprintf(out, size, "%u", port->ring);
}

static void pd_conf_read_path(struct pd_conf_value *v)
{
	if (v->text.len && v->text.s[0] == '@')
		pd_conf_refuse(v, "the path of a file (an abstract name has no mode, so anybody "
				  "could take it)");
	else if (!v->text.len || !pd_conf_copy(v->port->path, sizeof(v->port->path), v->text))
		pd_conf_refuse(v, "the path of a socket, 1 to %zu bytes",
			       sizeof(v->port->path) - 1);
}

static void pd_conf_read_peer(struct pd_conf_value *v)
{
	if (!pd_conf_port_name_ok(v->text))
		pd_conf_refuse(v, "the name of the other port");
	else
		pd_conf_copy(v->port->peer, sizeof(v->port->peer), v->text);
}

static void pd_conf_read_mode(struct pd_conf_value *v)
{
	int listening = pd_conf_either(v, "connect", "listen");

	if (listening >= 0)
		v->port->mode = listening ? PD_CONF_MODE_LISTEN : PD_CONF_MODE_CONNECT;
}

static void pd_conf_read_role(struct pd_conf_value *v)
{
	int frontend = pd_conf_either(v, "backend", "frontend");

	if (frontend >= 0)
		v->port->role = frontend ? PD_CONF_FRONTEND : PD_CONF_BACKEND;
}

/* The functions of a key that says who may reach the socket. */
#define PD_CONF_ACCESS(name, which)                                                                \
	static void pd_conf_show_##name(const struct pd_port_config *port, char *out, size_t size) \
	{                                                                                          \
		pd_conf_access_show(&port->access, which, out, size);                              \
	}                                                                                          \
	static void pd_conf_read_##name(struct pd_conf_value *v)                                   \
	{                                                                                          \
		const char *expected = pd_conf_access_read(&v->port->access, which, v->text);      \
                                                                                                   \
		if (expected)                                                                      \
			pd_conf_refuse(v, "%s", expected);                                         \
	}

PD_CONF_ACCESS(socket_mode, PD_CONF_ACCESS_MODE)
PD_CONF_ACCESS(socket_owner, PD_CONF_ACCESS_OWNER)
PD_CONF_ACCESS(socket_group, PD_CONF_ACCESS_GROUP)
PD_CONF_ACCESS(peer_uid, PD_CONF_ACCESS_PEERS)

static void pd_conf_read_dialect(struct pd_conf_value *v)
{
	int virtio = pd_conf_either(v, "avip", "virtio");

	if (virtio >= 0)
		v->port->dialect = virtio ? PD_CONF_DIALECT_VIRTIO : PD_CONF_DIALECT_AVIP;
}

static void pd_conf_read_format(struct pd_conf_value *v)
{
	int format = pd_conf_word(v, pd_conf_formats, PD_CONF_FORMATS, "auto, split or packed");

	if (format >= 0)
		v->port->format = (enum pd_conf_format)format;
}

static void pd_conf_read_mergeable(struct pd_conf_value *v)
{
	int off = pd_conf_either(v, "on", "off");

	if (off >= 0)
		v->port->mergeable = !off;
}

static void pd_conf_read_in_order(struct pd_conf_value *v)
{
	int off = pd_conf_either(v, "on", "off");

	if (off >= 0)
		v->port->in_order = !off;
}

static void pd_conf_read_iommu(struct pd_conf_value *v)
{
	int on = pd_conf_either(v, "off", "on");

	if (on >= 0)
		v->port->iommu = on;
}

static void pd_conf_read_inband(struct pd_conf_value *v)
{
	int on = pd_conf_either(v, "off", "on");

	if (on >= 0)
		v->port->inband = on;
}

static void pd_conf_read_offloads(struct pd_conf_value *v)
{
	int offloads =
		pd_conf_word(v, pd_conf_offloads, PD_CONF_OFFLOADS_WORDS, "none, csum or all");

	if (offloads >= 0)
		v->port->offloads = (enum pd_conf_offloads)offloads;
}

/* Read six octets in hexadecimal, parted by ':' or '-'. */
static bool pd_conf_parse_mac(struct pd_conf_text text, uint8_t mac[6])
{
	if (text.len != 17)
		return false;
	for (int i = 0; i < 6; i++) {
		const char *c = text.s + 3 * i;
		char hex[5] = {'0', 'x', c[0], c[1]};
		int64_t octet;

		if ((i < 5 && c[2] != ':' && c[2] != '-') || !isxdigit((unsigned char)c[0]) ||
		    pd_text_number(hex, 4, &octet))
			return false;
		mac[i] = (uint8_t)octet;
	}
	return true;
}

static void pd_conf_read_mac(struct pd_conf_value *v)
{
	static const uint8_t zero[6];
	uint8_t mac[6];

	if (!pd_conf_parse_mac(v->text, mac)) {
		pd_conf_refuse(v, "six octets like 02:00:00:00:00:01");
	} else if (mac[0] & 1 || !memcmp(mac, zero, sizeof(mac))) {
		pd_conf_refuse(
			v, "the address of one station (a first octet that is even, not all zero)");
	} else {
		memcpy(v->port->mac, mac, sizeof(mac));
		v->port->mac_set = true;
	}
}

static void pd_conf_read_mtu(struct pd_conf_value *v)
{
	pd_conf_number(v, PD_CONF_MTU_MIN, PD_CONF_MTU_MAX,
		       " (with 14 octets of header at most 12240)", &v->port->mtu);
}

static void pd_conf_read_queues(struct pd_conf_value *v)
{
	pd_conf_number(v, 1, PD_CONF_QUEUES_MAX, "", &v->port->queues);
}

static void pd_conf_read_steer(struct pd_conf_value *v)
{
	int flow = pd_conf_either(v, "pfc", "flow");

	if (flow >= 0)
		v->port->steer = flow ? PD_CONF_STEER_FLOW : PD_CONF_STEER_PFC;
}

static void pd_conf_read_ring(struct pd_conf_value *v)
{
	pd_conf_number(v, PD_CONF_RING_MIN, PD_CONF_RING_MAX, "", &v->port->ring);
}

/* True when the address may belong to one station. */
static bool pd_conf_is_unicast(const struct pd_conf_address *a)
{
	static const uint8_t zero[16];

	if (!memcmp(a->addr, zero, a->family == AF_INET ? 4 : 16))
		return false;
	return a->family == AF_INET ? a->addr[0] < 224 : a->addr[0] != 0xff;
}

static void pd_conf_read_ip(struct pd_conf_value *v)
{
	const char *slash = memchr(v->text.s, '/', v->text.len);
	struct pd_port_config *port = v->port;
	struct pd_conf_text addr = v->text;
	struct pd_conf_address a = {0};
	int64_t len = -1;

	if (slash)
		addr.len = (size_t)(slash - v->text.s);
	if (!slash || !pd_conf_parse_address(addr, &a) ||
	    pd_text_number(slash + 1, v->text.len - addr.len - 1, &len) || len < 0 ||
	    len > a.prefix_len) {
		pd_conf_refuse(v, "ADDRESS/LENGTH like 192.168.1.1/24 or fd00::1/64");
		return;
	}
	if (!pd_conf_is_unicast(&a)) {
		pd_conf_refuse(v, "the address of one station");
		return;
	}
	a.prefix_len = (uint8_t)len;
	for (uint32_t i = 0; i < port->address_count; i++) {
		if (port->addresses[i].family != a.family ||
		    memcmp(port->addresses[i].addr, a.addr, sizeof(a.addr)))
			continue;
		pd_conf_warn(v->p, &v->place, "ip: %.*s stands twice at this port",
			     PD_CONF_SHOWN(addr));
		return;
	}
	if (port->address_count == PD_CONF_ADDRESSES_MAX) {
		pd_conf_error(v->p, &v->place, "ip: more than %d addresses; this one is left out",
			      PD_CONF_ADDRESSES_MAX);
		return;
	}
	port->addresses[port->address_count++] = a;
}

static void pd_conf_read_gw(struct pd_conf_value *v)
{
	struct pd_conf_address a = {0}, *gateway;

	if (!pd_conf_parse_address(v->text, &a) || !pd_conf_is_unicast(&a)) {
		pd_conf_refuse(v, "the address of a router, without a length");
		return;
	}
	gateway = a.family == AF_INET ? &v->port->gateway4 : &v->port->gateway6;
	if (gateway->family)
		pd_conf_error(v->p, &v->place, "gw: a port has one %s router; the first stands",
			      a.family == AF_INET ? "IPv4" : "IPv6");
	else
		*gateway = a;
}

/* Keep a key that only its transport can read. */
static void pd_conf_read_option(struct pd_conf_value *v)
{
	struct pd_port_config *port = v->port;
	struct pd_conf_option *option = &port->options[port->option_count];

	if (port->option_count == PD_CONF_OPTIONS_MAX) {
		pd_conf_error(v->p, &v->place,
			      "more than %d keys of the transport's own; this one is left out",
			      PD_CONF_OPTIONS_MAX);
	} else if (!pd_conf_copy(option->key, sizeof(option->key), v->key) ||
		   !pd_conf_copy(option->text, sizeof(option->text), v->text)) {
		pd_conf_refuse(v, "at most %d bytes", PD_CONF_OPTION_TEXT_MAX - 1);
	} else {
		option->place = v->place;
		port->option_count++;
	}
}

static const struct pd_conf_key pd_conf_keys[] = {
	{"path", "vhost-user", false, pd_conf_read_path, pd_conf_show_path},
	{"mode", "vhost-user", false, pd_conf_read_mode, pd_conf_show_mode},
	{"role", "vhost-user", false, pd_conf_read_role, pd_conf_show_role},
	{"socket_mode", "vhost-user", false, pd_conf_read_socket_mode, pd_conf_show_socket_mode},
	{"socket_owner", "vhost-user", false, pd_conf_read_socket_owner, pd_conf_show_socket_owner},
	{"socket_group", "vhost-user", false, pd_conf_read_socket_group, pd_conf_show_socket_group},
	{"peer_uid", "vhost-user", false, pd_conf_read_peer_uid, pd_conf_show_peer_uid},
	{"dialect", NULL, false, pd_conf_read_dialect, pd_conf_show_dialect},
	{"format", "vhost-user", false, pd_conf_read_format, pd_conf_show_format},
	{"mergeable", "vhost-user", false, pd_conf_read_mergeable, pd_conf_show_mergeable},
	{"in_order", "vhost-user", false, pd_conf_read_in_order, pd_conf_show_in_order},
	{"iommu", "vhost-user", false, pd_conf_read_iommu, pd_conf_show_iommu},
	{"inband", "vhost-user", false, pd_conf_read_inband, pd_conf_show_inband},
	{"offloads", NULL, false, pd_conf_read_offloads, pd_conf_show_offloads},
	{"mac", NULL, false, pd_conf_read_mac, pd_conf_show_mac},
	{"mtu", NULL, false, pd_conf_read_mtu, pd_conf_show_mtu},
	{"ip", NULL, true, pd_conf_read_ip, NULL},
	{"gw", NULL, true, pd_conf_read_gw, NULL},
	{"queues", NULL, false, pd_conf_read_queues, pd_conf_show_queues},
	{"ring", NULL, false, pd_conf_read_ring, pd_conf_show_ring},
	{"steer", NULL, false, pd_conf_read_steer, pd_conf_show_steer},
	{"peer", "loop", false, pd_conf_read_peer, pd_conf_show_peer},
};
_Static_assert(PD_ARRAY_SIZE(pd_conf_keys) <= 32, "keys_seen has a bit for each key");

/* --- ports --------------------------------------------------------------------------------- */

/*
 * Say that no key has this name, and which may have been meant; keep it for the transport all the
 * same.
 */
static void pd_conf_unknown_key(struct pd_conf_value *v, struct pd_conf_place key_place)
{
	struct pd_text_nearest nearest;
	const char *best;
	size_t ignored;

	pd_text_nearest_begin(&nearest, v->key.s, v->key.len);
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_conf_keys); i++)
		pd_text_nearest_offer(&nearest, pd_conf_keys[i].name, strlen(pd_conf_keys[i].name));
	best = pd_text_nearest_end(&nearest, &ignored);
	pd_conf_warn(v->p, &key_place, "\"%.*s\" is no key of a port%s%s%s", PD_CONF_SHOWN(v->key),
		     best ? "; did you mean " : "", best ? best : "", best ? "?" : "");
	pd_conf_read_option(v);
}

void pd_conf_port_key(struct pd_conf_parse *p, struct pd_conf_text key, struct pd_conf_text value,
		      struct pd_conf_place key_place, struct pd_conf_place value_place)
{
	struct pd_conf_value v = {p, p->port, NULL, key, value, value_place};
	struct pd_conf_text name = {p->port->transport, strlen(p->port->transport)};
	const struct pd_conf_transport *transport = pd_conf_transport(name);

	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_conf_keys); i++) {
		const struct pd_conf_key *row = &pd_conf_keys[i];

		if (!pd_text_is(key.s, key.len, row->name))
			continue;
		if (transport && row->transport && strcmp(row->transport, transport->name)) {
			pd_conf_warn(p, &key_place, "%s= means nothing to a %s port", row->name,
				     transport->name);
			return;
		}
		if (p->keys_seen & 1u << i && !row->repeatable)
			pd_conf_warn(p, &key_place, "%s= stands twice; the last one counts",
				     row->name);
		p->keys_seen |= 1u << i;
		v.row = row;
		row->read(&v);
		return;
	}
	if (transport) /* what a transport that is not there would take, nobody knows */
		pd_conf_unknown_key(&v, key_place);
}

void pd_conf_port_argument(struct pd_conf_parse *p, struct pd_conf_text arg,
			   struct pd_conf_place place)
{
	struct pd_conf_text name = {p->port->transport, strlen(p->port->transport)};
	const struct pd_conf_transport *transport = pd_conf_transport(name);
	struct pd_conf_text key;

	if (!transport)
		return; /* refused already */
	key = (struct pd_conf_text){transport->argument, strlen(transport->argument)};
	pd_conf_port_key(p, key, arg, place, place);
}

/* Where keys go that belong to no port: they are checked and forgotten. */
static void pd_conf_use_scratch(struct pd_conf_parse *p)
{
	memset(&p->scratch, 0, sizeof(p->scratch));
	p->port = &p->scratch;
}

/*
 * A place for a port of this name: a new one, or that of a port of the file which PALLADIUM_PORTS
 * replaces. NULL when there is none, which has been said.
 */
static struct pd_port_config *pd_conf_claim_port(struct pd_conf_parse *p, struct pd_conf_text name,
						 struct pd_conf_place place)
{
	struct pd_port_config *port = pd_conf_find_port(p->cfg, name);

	if (port && port->place.file != p->file) {
		pd_conf_detail(p, &place, "port %s replaces that of %s:%u", port->name,
			       port->place.file, port->place.line);
		return port;
	}
	if (port) {
		pd_conf_error(p, &place,
			      "port %s is already made at line %u column %u; this one is left out",
			      port->name, port->place.line, port->place.column);
		return NULL;
	}
	if (p->cfg->port_count == PD_CONF_PORTS_MAX) {
		pd_conf_error(p, &place, "more than %d ports", PD_CONF_PORTS_MAX);
		return NULL;
	}
	return &p->cfg->ports[p->cfg->port_count++];
}

/* The names of the transports as "a, b or c". Returns `out`. */
static const char *pd_conf_transport_names(char *out, size_t size)
{
	const size_t count = PD_ARRAY_SIZE(pd_conf_transports);
	size_t n = 0;

	for (size_t i = 0; i < count && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%s",
				      !i              ? ""
				      : i + 1 < count ? ", "
						      : " or ",
				      pd_conf_transports[i].name);
	return out;
}

/* Say that there is no such transport, which there are, and which may have been meant. */
static void pd_conf_unknown_transport(struct pd_conf_parse *p, struct pd_conf_text name,
				      struct pd_conf_place place)
{
	struct pd_text_nearest nearest;
	char names[100];
	const char *best;
	size_t ignored;

	pd_text_nearest_begin(&nearest, name.s, name.len);
	for (size_t i = 0; i < PD_ARRAY_SIZE(pd_conf_transports); i++)
		pd_text_nearest_offer(&nearest, pd_conf_transports[i].name,
				      strlen(pd_conf_transports[i].name));
	best = pd_text_nearest_end(&nearest, &ignored);
	pd_conf_error(p, &place,
		      "expected a transport of this build (%s), not \"%.*s\"%s%s%s; "
		      "the port is left out",
		      pd_conf_transport_names(names, sizeof(names)), PD_CONF_SHOWN(name),
		      best ? "; did you mean " : "", best ? best : "", best ? "?" : "");
}

void pd_conf_end_port(struct pd_conf_parse *p, bool whole)
{
	if (p->port != &p->scratch && (!whole || p->open_quote)) {
		pd_conf_error(p, &p->port->place, "port %s is left out", p->port->name);
		pd_conf_drop_port(p->cfg, p->port);
	}
	p->open_quote = false;
	pd_conf_use_scratch(p);
}

void pd_conf_begin_port(struct pd_conf_parse *p, struct pd_conf_text name,
			struct pd_conf_text transport, struct pd_conf_place name_place,
			struct pd_conf_place transport_place)
{
	const char *colon = memchr(transport.s, ':', transport.len);
	struct pd_conf_text argument = {0};
	const struct pd_conf_transport *row;
	struct pd_port_config *port = NULL;

	if (colon) {
		argument = (struct pd_conf_text){colon + 1,
						 transport.len - (size_t)(colon + 1 - transport.s)};
		transport.len = (size_t)(colon - transport.s);
	}
	row = pd_conf_transport(transport);
	p->keys_seen = 0;
	if (!pd_conf_port_name_ok(name))
		pd_conf_error(
			p, &name_place,
			"expected the name of a port (a letter, then letters, digits, '_', '-' or "
			"'.', at most %d in all), not \"%.*s\"; the port is left out",
			PD_CONF_NAME_MAX - 1, PD_CONF_SHOWN(name));
	else if (!row)
		pd_conf_unknown_transport(p, transport, transport_place);
	else
		port = pd_conf_claim_port(p, name, name_place);
	if (port)
		p->port = port;
	else
		pd_conf_use_scratch(p);
	*p->port = (struct pd_port_config){
		.queues = 1,
		.ring = PD_CONF_RING_DEFAULT,
		.mergeable = true,
		.in_order = true,
		.place = name_place,
	};
	if (port)
		pd_conf_copy(port->name, sizeof(port->name), name);
	if (row)
		snprintf(p->port->transport, sizeof(p->port->transport), "%s", row->name);
	if (colon) {
		transport_place.column += (uint32_t)(colon + 1 - transport.s);
		pd_conf_port_argument(p, argument, transport_place);
	}
}
