/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Configurations as a user writes them: statements of the grammar with values that their keys take,
 * so that what follows the parser is reached. Each word goes wrong at times, or never.
 */
#include <stdarg.h>

#include "config_make.h"
#include "fuzz.h"

/* A text as it grows; what has no room is left out. */
struct text {
	char *s;
	size_t room, n;
	bool wrong; /* mistakes are made */
};

/* A key of a port. `transport`: that which knows it ("v", "l"), or NULL. */
static const struct key {
	const char *name, *transport;
	const char *const values[8];
} keys[] = {
	{"mode", "v", {"connect", "listen"}},
	{"role", "v", {"backend", "frontend"}},
	{"socket_mode", "v", {"0660", "600"}},
	/* A name is looked up in a file, which takes as long as all the rest. */
	{"socket_owner", "v", {"0", "1", "2", "7", "4242", "4294967294", "0x10", "root"}},
	{"socket_group", "v", {"0", "1", "2", "7", "4242", "4294967294", "0x10", "root"}},
	{"peer_uid", "v", {"self", "0", "0:self:7", "1:2:3:4:5:6:7:8", "7", "1+2", "8", "root"}},
	{"format", "v", {"auto", "packed", "split"}},
	{"mergeable", "v", {"on", "off"}},
	{"in_order", "v", {"on", "off"}},
	{"iommu", "v", {"on", "off"}},
	{"inband", "v", {"on", "off"}},
	{"dialect", NULL, {"avip", "virtio"}},
	{"offloads", NULL, {"none", "csum", "all"}},
	{"mac", NULL, {"02:00:00:00:00:01", "02-00-00-00-00-aF"}},
	{"mtu", NULL, {"68", "1500", "12226", "0x1000"}},
	{"ip", NULL, {"10.0.0.1/24", "10.0.0.2/32", "fd00::1/64", "[fd00::2]/128", "10.9.0.1/0"}},
	{"queues", NULL, {"1", "2", "10"}},
	{"ring", NULL, {"2", "256", "32768"}},
	{"steer", NULL, {"pfc", "flow"}},
	{"own", NULL, {"1", "word", "\"two words\""}}, /* the transport's */
};

static const char *const addresses[] = {"*",         "*",           "10.0.0.1",   "10.0.0.2",
					"[fd00::1]", "10.0.0.0/30", "10.0.0.0/8", "[fd00::]/16"};
static const char *const roles[] = {"tcp_server", "tcp_client", "udp_sender", "udp_receiver",
				    "udp_connect"};
static const char *const levels[] = {"none", "info", "details", "debug", "9", "1"};
static const char *const names[] = {"*", "pd*", "pd?", "pd0", "pd1", "pd[0-3]"};
static const char *const programs[] = {"*", "fuzz", "f*", "[a-f]uzz", "lldpd"};
static const char *const ids[] = {"*", "id", "i?", "\"an id\""};
static const char *const types[] = {"", ":*", ":ip", ":lldp", ":ptp", ":0x88cc", ":1536", ":65535"};

#define ONE_OF(array) (array)[rnd(PD_ARRAY_SIZE(array))]

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(t->s + t->n, t->room - t->n, fmt, args);
	va_end(args);
	if (n > 0 && (size_t)n < t->room - t->n)
		t->n += (size_t)n;
	t->s[t->n] = 0;
	if (t->wrong && t->n && rarely(60)) /* a byte of it is another */
		t->s[rnd((uint32_t)t->n)] = (char)rnd(256);
}

/* A number that is written where one stands, of a range whose ends are likely. */
static uint32_t any_port_number(void)
{
	return one_in(4) ? 1 : one_in(4) ? 65535 : 1 + rnd(one_in(2) ? 4 : 65535);
}

/* A:P of a rule. */
static void add_pattern(struct text *t)
{
	uint32_t low = any_port_number(), high = any_port_number();

	add(t, "%s:", ONE_OF(addresses));
	if (one_in(3))
		add(t, "*");
	else if (one_in(2))
		add(t, "%u", low);
	else
		add(t, "%u-%u", pd_min(low, high), pd_max(low, high));
}

static void add_rule(struct text *t)
{
	static const char *const uses[] = {"palladium", "os", "vma"};

	add(t, "use %s ", ONE_OF(uses));
	if (one_in(4)) {
		add(t, "packet %s%s", ONE_OF(names), ONE_OF(types));
		return;
	}
	add(t, "%s ", ONE_OF(roles));
	add_pattern(t);
	if (one_in(3)) {
		add(t, ":");
		add_pattern(t);
	}
}

static void add_log(struct text *t)
{
	static const char *const places[] = {"stderr", "syslog", "file /tmp/x", "file \"/a b\""};

	add(t, "log");
	if (one_in(2))
		add(t, " min-level %s", ONE_OF(levels));
	else
		add(t, " destination %s", ONE_OF(places));
}

/* The keys of a port, each with `before` in front. */
static void add_keys(struct text *t, const char *transport, const char *before)
{
	for (uint32_t n = rnd(one_in(4) ? 24 : 5); n; n--) {
		const struct key *k = &ONE_OF(keys);
		uint32_t values = 0;

		if (k->transport && *k->transport != *transport && !(t->wrong && rarely(4)))
			continue;
		while (values < PD_ARRAY_SIZE(k->values) && k->values[values])
			values++;
		add(t, "%s%s=%s", before, k->name, k->values[rnd(values)]);
	}
}

/*
 * One port, as the file has it or as PALLADIUM_PORTS does, and of a loop port the other one, which
 * may be left to be made. Names are new ones.
 */
static void add_port(struct text *t, bool file, uint32_t i)
{
	bool loop = one_in(3), colon = !file || one_in(2), both = loop && one_in(2);
	const char *transport = loop ? "loop" : "vhost-user", *before = file ? " " : ",";
	const char *key = loop ? "peer" : "path";

	if (t->wrong && rarely(20))
		i = rnd(4);
	for (uint32_t end = 0; end <= both; end++) {
		add(t, file ? "port pd%u%s %s" : "pd%u%s=%s", i, end ? "x" : "", transport);
		if (colon)
			add(t, ":");
		else
			add(t, "%s%s=", before, key);
		if (loop)
			add(t, "pd%u%s", i, end ? "" : "x");
		else
			add(t, "/run/s%u", i);
		add_keys(t, transport, before);
		if (one_in(6)) /* one for each family is all that there may be */
			add(t, "%sgw=10.0.0.254%sgw=fd00::fe", before, before);
		if (end < both)
			add(t, file ? "\n" : ";");
	}
}

size_t any_config(char *to, size_t room, bool file)
{
	struct text t = {to, room, 0, false};
	uint32_t n = 1 + rnd(one_in(40) ? 80 : one_in(2) ? 4 : 12);

	*to = 0;
	any_calm();
	t.wrong = one_in(2);
	for (uint32_t i = 0; i < n; i++) {
		switch (file ? rnd(8) : 0) {
		case 0:
		case 1:
		case 2:
			add_port(&t, file, i);
			break;
		case 3:
			add(&t, "application-id %s %s", ONE_OF(programs), ONE_OF(ids));
			break;
		case 4:
			add_log(&t);
			break;
		default:
			add_rule(&t);
		}
		if (file && one_in(16))
			add(&t, " # a comment");
		add(&t, one_in(16) ? "\n\n" : file || one_in(4) ? "\n" : ";");
	}
	return t.n;
}
