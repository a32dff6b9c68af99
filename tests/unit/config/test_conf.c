/* SPDX-License-Identifier: BSD-2-Clause */
/* config/: the file, PALLADIUM_PORTS, what is said about mistakes, and who serves a socket. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/compiler.h"
#include "config/config.h"
#include "config/vars.h"

/* Messages, one line each: "error f:3:5: text\n". */
static char said[1 << 16];
static struct pd_config *cfg;

static void say(void *ctx, enum pd_conf_severity severity, const struct pd_conf_place *place,
		const char *text)
{
	static const char *const names[] = {"error", "warning", "detail"};
	size_t n = strlen(said);

	snprintf(said + n, sizeof(said) - n, "%s %s:%u:%u: %s\n", names[severity], place->file,
		 place->line, place->column, text);
}

/* Begin afresh. */
static void begin(void)
{
	pd_config_free(cfg);
	cfg = pd_config_new();
	assert_non_null(cfg);
	said[0] = 0;
}

/* Read `text` as the file "f" and finish. */
static void file(const char *text)
{
	begin();
	assert_int_equal(pd_config_parse(cfg, "f", text, strlen(text), say, NULL), 0);
	pd_config_finish(cfg, say, NULL);
}

/* Read `text` as PALLADIUM_PORTS ("env") on top of the file `below` and finish. */
static void ports_over(const char *below, const char *text)
{
	begin();
	assert_int_equal(pd_config_parse(cfg, "f", below, strlen(below), say, NULL), 0);
	assert_int_equal(pd_config_parse_ports(cfg, "env", text, strlen(text), say, NULL), 0);
	pd_config_finish(cfg, say, NULL);
}

static int teardown(void **state)
{
	pd_config_free(cfg);
	cfg = NULL;
	return 0;
}

static struct pd_conf_endpoint endpoint(const char *addr, uint16_t port)
{
	struct pd_conf_endpoint e = {.family = strchr(addr, ':') ? AF_INET6 : AF_INET,
				     .port = port};

	assert_int_equal(inet_pton(e.family, addr, e.addr), 1);
	return e;
}

/* The line that decides, 0 for none; negative when it says os. `second` may be NULL. */
static int decide_as(const char *program, const char *id, enum pd_conf_role role, const char *first,
		     int first_port, const char *second, int second_port)
{
	struct pd_conf_endpoint a = endpoint(first, (uint16_t)first_port), b;
	struct pd_conf_decision d;
	int line;

	if (second)
		b = endpoint(second, (uint16_t)second_port);
	pd_conf_match(cfg, program, id, role, &a, second ? &b : NULL, &d);
	line = d.rule ? (int)d.rule->place.line : 0;
	return d.use == PD_USE_OS ? -line : line;
}

static int decide(enum pd_conf_role role, const char *first, int first_port)
{
	return decide_as("prog", "id", role, first, first_port, NULL, 0);
}

static int decide_packet(const char *port, uint16_t ethertype)
{
	struct pd_conf_decision d;
	int line;

	pd_conf_match_packet(cfg, "prog", "id", port, ethertype, &d);
	line = d.rule ? (int)d.rule->place.line : 0;
	return d.use == PD_USE_OS ? -line : line;
}

/* --- ports --------------------------------------------------------------------------------- */

static void test_a_port_has_defaults(void **state)
{
	const struct pd_port_config *p;

	file("port pd0 vhost-user path=/run/vlm0.sock\n");
	assert_string_equal(said, "");
	assert_int_equal(cfg->port_count, 1);
	p = pd_config_port(cfg, "pd0");
	assert_non_null(p);
	assert_string_equal(p->transport, "vhost-user");
	assert_string_equal(p->path, "/run/vlm0.sock");
	assert_int_equal(p->mode, PD_CONF_MODE_CONNECT);
	assert_int_equal(p->role, PD_CONF_BACKEND);
	assert_int_equal(p->dialect, PD_CONF_DIALECT_AVIP);
	assert_int_equal(p->mtu, 1500);
	assert_int_equal(p->queues, 1);
	assert_int_equal(p->ring, 256);
	assert_int_equal(p->address_count, 0);
	assert_false(p->mac_set);
	assert_int_equal(p->mac[0] & 3, 2); /* local, one station */
	assert_int_equal(p->place.line, 1);
	assert_int_equal(p->place.column, 6);
	assert_null(pd_config_port(cfg, "pd"));
}

static void test_every_key_of_a_port(void **state)
{
	const struct pd_port_config *p;
	static const uint8_t mac[] = {2, 0, 0, 0xab, 0xcd, 0xef}, v6[16] = {0xfd, [15] = 1};

	file("port pd0 vhost-user path=\"/run/a b#c\" mode=listen role=frontend dialect=virtio "
	     "mac=02:00:00:AB:cd:ef mtu=12226 ip=10.1.2.3/24 ip=fd00::1/64 gw=10.1.2.1 "
	     "gw=[fd00::2] "
	     "queues=10 ring=32768 # ring=3\n");
	assert_string_equal(said, "");
	p = pd_config_port(cfg, "pd0");
	assert_string_equal(p->path, "/run/a b#c");
	assert_int_equal(p->mode, PD_CONF_MODE_LISTEN);
	assert_int_equal(p->role, PD_CONF_FRONTEND);
	assert_int_equal(p->dialect, PD_CONF_DIALECT_VIRTIO);
	assert_true(p->mac_set);
	assert_memory_equal(p->mac, mac, 6);
	assert_int_equal(p->mtu, 12226);
	assert_int_equal(p->address_count, 2);
	assert_int_equal(p->addresses[0].family, AF_INET);
	assert_int_equal(p->addresses[0].prefix_len, 24);
	assert_memory_equal(p->addresses[0].addr, "\x0a\x01\x02\x03", 4);
	assert_int_equal(p->addresses[1].family, AF_INET6);
	assert_int_equal(p->addresses[1].prefix_len, 64);
	assert_memory_equal(p->addresses[1].addr, v6, 16);
	assert_int_equal(p->gateway4.addr[3], 1);
	assert_int_equal(p->gateway6.addr[15], 2);
	assert_int_equal(p->queues, 10);
	assert_int_equal(p->ring, 32768);
}

static void test_macs_are_stable_and_differ(void **state)
{
	uint8_t first[6];

	file("port pd0 vhost-user path=/a\nport pd1 vhost-user path=/a\n"
	     "port pd2 vhost-user path=/a role=frontend\n");
	memcpy(first, cfg->ports[0].mac, 6);
	for (int i = 0; i < 3; i++)
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(cfg->ports[i].mac, cfg->ports[j].mac, 6);
	ports_over("", "pd0=vhost-user:/a");
	assert_memory_equal(cfg->ports[0].mac, first, 6);
	file("port pd0 vhost-user path=/a mac=02:00:00:00:00:01\n"
	     "port pd1 vhost-user path=/b mac=02:00:00:00:00:01\n");
	assert_string_equal(said, "warning f:2:6: ports pd0 and pd1 have the same MAC address\n");
}

static void test_a_loop_port_brings_its_partner(void **state)
{
	file("port pd1 loop peer=pd2 mtu=9000\n");
	assert_string_equal(said, "");
	assert_int_equal(cfg->port_count, 2);
	assert_string_equal(pd_config_port(cfg, "pd2")->peer, "pd1");
	assert_int_equal(pd_config_port(cfg, "pd2")->mtu, 9000);
	assert_memory_not_equal(cfg->ports[0].mac, cfg->ports[1].mac, 6);
	file("port pd1 loop:pd2\nport pd2 loop:pd1 mtu=2000\n");
	assert_string_equal(said, "");
	assert_int_equal(cfg->port_count, 2);
	assert_int_equal(pd_config_port(cfg, "pd1")->mtu, 1500);
	assert_int_equal(pd_config_port(cfg, "pd2")->mtu, 2000);
}

static void test_ports_that_cannot_be(void **state)
{
	file("port pd1 loop\nport pd2 loop:pd2\nport pd3 vhost-user\nport pd4 loop:pd5\n"
	     "port pd6 loop:pd5\nport pd7 vhost-user:/x\nport pd8 loop:pd7\n");
	assert_string_equal(
		said,
		"error f:1:6: port pd1 needs peer=, the port at its other end; it is left out\n"
		"error f:2:6: port pd2 is its own peer; it is left out\n"
		"error f:3:6: port pd3 needs path=, its socket; it is left out\n"
		"error f:5:6: the peer of port pd6, pd5, has the peer pd4; pd6 is left out\n"
		"error f:7:6: the peer of port pd8, pd7, is a vhost-user port; pd8 is left out\n");
	assert_int_equal(cfg->port_count, 3);
	assert_non_null(pd_config_port(cfg, "pd4"));
	assert_non_null(pd_config_port(cfg, "pd5"));
	assert_non_null(pd_config_port(cfg, "pd7"));
}

/* One wrong value on a port line: what is said, where; everything else on the line stands. */
static void test_wrong_values_name_what_was_expected(void **state)
{
	static const struct {
		const char *key, *said;
	} rows[] = {
		{"mtu=abc", "mtu: expected a number from 68 to 12226 (with 14 octets of header at "
			    "most 12240), not \"abc\"; using 1500"},
		{"mtu=12227",
		 "mtu: expected a number from 68 to 12226 (with 14 octets of header at "
		 "most 12240), not \"12227\"; using 1500"},
		{"mode=conect", "mode: expected connect or listen (did you mean connect?), not "
				"\"conect\"; using connect"},
		{"role=guest", "role: expected backend or frontend, not \"guest\"; using backend"},
		{"dialect=vritio", "dialect: expected avip or virtio (did you mean virtio?), not "
				   "\"vritio\"; using avip"},
		{"mac=1:2:3", "mac: expected six octets like 02:00:00:00:00:01, not \"1:2:3\"; "
			      "using one made from the port's name and place"},
		{"mac=0x:00:00:00:00:01",
		 "mac: expected six octets like 02:00:00:00:00:01, not \"0x:00:00:00:00:01\"; "
		 "using one made from the port's name and place"},
		{"mac=01:00:5e:00:00:01", "mac: expected the address of one station (a first octet "
					  "that is even, not all zero), not \"01:00:5e:00:00:01\"; "
					  "using one made from the port's name and place"},
		{"ip=10.0.0.1",
		 "ip: expected ADDRESS/LENGTH like 192.168.1.1/24 or fd00::1/64, not "
		 "\"10.0.0.1\"; it is left out"},
		{"ip=10.0.0.1/33",
		 "ip: expected ADDRESS/LENGTH like 192.168.1.1/24 or fd00::1/64, not "
		 "\"10.0.0.1/33\"; it is left out"},
		{"ip=224.0.0.1/24", "ip: expected the address of one station, not "
				    "\"224.0.0.1/24\"; it is left out"},
		{"gw=10.0.0.1/8", "gw: expected the address of a router, without a length, not "
				  "\"10.0.0.1/8\"; it is left out"},
		{"queues=0", "queues: expected a number from 1 to 10, not \"0\"; using 1"},
		{"queues=11", "queues: expected a number from 1 to 10, not \"11\"; using 1"},
		{"ring=1",
		 "ring: expected a number from 2 to 32768, a power of two, not \"1\"; using 256"},
		{"ring=100",
		 "ring: expected a power of two from 2 to 32768, not \"100\"; using 256"},
	};
	char text[300], expected[400];

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		snprintf(text, sizeof(text), "# one\n  port pd0 vhost-user:/x %s mtu=2000\n",
			 rows[i].key);
		snprintf(expected, sizeof(expected), "error f:2:%zu: %s\n",
			 27 + strcspn(rows[i].key, "="), rows[i].said);
		file(text);
		if (!strncmp(rows[i].key, "mtu", 3)) /* it stands twice here, which is said too */
			assert_memory_equal(said, expected, strlen(expected));
		else
			assert_string_equal(said, expected);
		assert_int_equal(cfg->error_count, 1);
		assert_int_equal(cfg->ports[0].mtu, 2000);
		assert_int_equal(cfg->ports[0].mode, PD_CONF_MODE_CONNECT);
		assert_int_equal(cfg->ports[0].ring, 256);
		assert_int_equal(cfg->ports[0].queues, 1);
	}
}

static void test_too_long_and_too_many(void **state)
{
	char text[4096], path[200];
	size_t n;

	memset(path, 'x', sizeof(path));
	snprintf(text, sizeof(text), "port pd0 vhost-user path=/%.106s\n", path);
	file(text);
	assert_string_equal(said, "");
	snprintf(text, sizeof(text), "port pd0 vhost-user path=/%.107s\n", path);
	file(text);
	assert_non_null(strstr(said, "error f:1:26: path: expected the path of a socket, 1 to 107 "
				     "bytes, not \"/xxx"));
	file("port abcdefghijklmno loop:b\nport abcdefghijklmnop loop:c\nport 0a loop:d\nport a/b "
	     "loop:e\n");
	assert_non_null(strstr(said, "error f:2:6: expected the name of a port (a letter, then"));
	assert_non_null(strstr(said, "error f:3:6: expected the name"));
	assert_non_null(strstr(said, "error f:4:6: expected the name"));
	assert_int_equal(cfg->error_count, 3);
	assert_int_equal(cfg->port_count, 2);
	n = 0;
	for (int i = 0; i < 65; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "port pd%d vhost-user:/x\n", i);
	file(text);
	assert_string_equal(said, "error f:65:6: more than 64 ports\n");
	assert_int_equal(cfg->port_count, 64);
	n = (size_t)snprintf(text, sizeof(text), "port pd0 vhost-user:/x");
	for (int i = 1; i <= 17; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, " ip=10.0.0.%d/8", i);
	file(text);
	assert_non_null(strstr(said, ": ip: more than 16 addresses; this one is left out\n"));
	assert_int_equal(cfg->ports[0].address_count, 16);
}

static void test_keys_that_do_not_fit(void **state)
{
	const struct pd_port_config *p;

	file("port pd0 vhost-user:/x mut=9000 zebra=1 peer=pd1 path=/y ip=1.2.3.4/8 ip=1.2.3.4/9 "
	     "gw=1.2.3.4 gw=1.2.3.5\n");
	assert_string_equal(said,
			    "warning f:1:24: \"mut\" is no key of a port; did you mean mtu?\n"
			    "warning f:1:33: \"zebra\" is no key of a port\n"
			    "warning f:1:41: peer= means nothing to a vhost-user port\n"
			    "warning f:1:50: path= stands twice; the last one counts\n"
			    "warning f:1:74: ip: 1.2.3.4 stands twice at this port\n"
			    "error f:1:98: gw: a port has one IPv4 router; the first stands\n");
	p = pd_config_port(cfg, "pd0");
	assert_string_equal(pd_port_config_option(p, "zebra"), "1");
	assert_null(pd_port_config_option(p, "peer"));
	assert_string_equal(p->path, "/y");
}

/* Only what is in the build is offered; keys of what is not are not judged. */
static void test_a_transport_that_is_not_built(void **state)
{
	file("port pd9 verbs:mlx5_0 ib_port=1\n");
	assert_string_equal(said, "error f:1:10: expected a transport of this build (vhost-user or "
				  "loop), not \"verbs\"; the port is left out\n");
	assert_int_equal(cfg->port_count, 0);
}

/* Each mistake in a value says what is used instead: the default, or what stood before. */
static void test_what_stands_instead_of_a_mistake(void **state)
{
	static const struct {
		const char *keys, *tail;
	} rows[] = {
		{"mtu=10", "not \"10\"; using 1500\n"},
		{"mtu=9000 mtu=x", "not \"x\"; using 9000\n"},
		{"ring=3", "not \"3\"; using 256\n"},
		{"queues=0", "not \"0\"; using 1\n"},
		{"mode=x", "not \"x\"; using connect\n"},
		{"role=x", "not \"x\"; using backend\n"},
		{"dialect=virtio dialect=x", "not \"x\"; using virtio\n"},
		{"mac=x", "not \"x\"; using one made from the port's name and place\n"},
		{"mac=02:00:00:00:00:01 mac=x", "not \"x\"; using 02:00:00:00:00:01\n"},
		{"path=\"\"", "not \"\"; using /s\n"},
		{"ip=x", "not \"x\"; it is left out\n"},
		{"gw=x", "not \"x\"; it is left out\n"},
	};
	char text[200];

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		snprintf(text, sizeof(text), "port pd0 vhost-user:/s %s\n", rows[i].keys);
		file(text);
		assert_int_equal(cfg->error_count, 1);
		assert_non_null(strstr(said, rows[i].tail));
	}
	pd_vars.mtu = 2000;
	file("port pd0 vhost-user:/s mtu=x\n");
	assert_non_null(strstr(said, "; using 2000\n"));
	assert_int_equal(cfg->ports[0].mtu, 2000);
	pd_vars.mtu = 0;
}

static void test_ports_named_twice_and_unknown_transports(void **state)
{
	file("port pd0 vhost-user:/a\nport pd0 vhost-user:/b mtu=xx\nport pd1 vhostuser:/c\n"
	     "port pd2 carrier-pigeon:/d\n");
	assert_string_equal(
		said,
		"error f:2:6: port pd0 is already made at line 1 column 6; this one is left out\n"
		"error f:2:28: mtu: expected a number from 68 to 12226 (with 14 octets of header "
		"at "
		"most 12240), not \"xx\"\n"
		"error f:3:10: expected a transport of this build (vhost-user or loop), not "
		"\"vhostuser\"; "
		"did you mean vhost-user?; the port is left out\n"
		"error f:4:10: expected a transport of this build (vhost-user or loop), not "
		"\"carrier-pigeon\"; the port is left out\n");
	assert_int_equal(cfg->port_count, 1);
	assert_string_equal(cfg->ports[0].path, "/a");
}

/* A mistake in the form of a line does not take its other keys along. */
static void test_the_rest_of_a_line_is_read(void **state)
{
	file("port pd0 vhost-user mtu path=/x =3 ring=512 queues=\nport pd1 vhost-user:/y\n");
	assert_non_null(strstr(said, "error f:1:25: expected '=', not \"path\"\n"));
	assert_non_null(strstr(said, "error f:1:52: expected a word, not the end of the line\n"));
	assert_int_equal(cfg->port_count, 2);
	assert_string_equal(cfg->ports[0].path, "/x");
	assert_int_equal(cfg->ports[0].ring, 512);
}

/* --- PALLADIUM_PORTS ----------------------------------------------------------------------- */

static void test_ports_of_the_environment(void **state)
{
	const struct pd_port_config *p;

	ports_over("", "pd0=vhost-user:/run/vlm0.sock,mode=connect,dialect=avip;pd1=loop:pd2");
	assert_string_equal(said, "");
	assert_int_equal(cfg->port_count, 3);
	assert_string_equal(pd_config_port(cfg, "pd0")->path, "/run/vlm0.sock");
	assert_string_equal(pd_config_port(cfg, "pd2")->peer, "pd1");
	ports_over(
		"",
		" pd0 = vhost-user , path=/a:b , ip=fd00::1/64 , gw=[fd00::2] ;\n pd1=loop:pd2;");
	assert_string_equal(said, "");
	p = pd_config_port(cfg, "pd0");
	assert_string_equal(p->path, "/a:b");
	assert_int_equal(p->addresses[0].family, AF_INET6);
	assert_int_equal(p->gateway6.family, AF_INET6);
	ports_over("", "pd0=vhost-user:\"/a;b,c\"");
	assert_string_equal(said, "");
	assert_string_equal(cfg->ports[0].path, "/a;b,c");
	ports_over("", "");
	assert_string_equal(said, "");
	ports_over("", " ;; \n;");
	assert_string_equal(said, "");
	assert_int_equal(cfg->port_count, 0);
}

static void test_mistakes_in_the_environment(void **state)
{
	static const struct {
		const char *text, *said;
	} rows[] = {
		{"pd0", "error env:1:4: expected '=', not the end of the entry\n"},
		{"pd0=", "error env:1:5: expected a word, not the end of the entry\n"},
		{"pd0:/x", "error env:1:7: expected '=', not the end of the entry\n"},
		{"=loop:pd2", "error env:1:1: expected ';' or a word, not \"=\"\n"},
		{"pd0=vhost-user:/x,mtu",
		 "error env:1:22: expected '=', not the end of the entry\n"},
		{"pd0=vhost-user:/x,mtu=1",
		 "error env:1:23: mtu: expected a number from 68 to 12226 "
		 "(with 14 octets of header at most 12240), not \"1\"; using 1500\n"},
		{"pd0=vhost-user:/x,",
		 "error env:1:19: expected key=value, not the end of the entry\n"},
		{"pd0=vhost-user:\"/x",
		 "error env:1:16: expected a word, not a quotation without its end\n"
		 "error env:1:1: port pd0 needs path=, its socket; it is left out\n"},
		{"pd0=vhost:/x",
		 "error env:1:5: expected a transport of this build (vhost-user or loop), "
		 "not \"vhost\"; the port is left out\n"},
		{"pd1=loop:pd2;pd1=loop:pd3", "error env:1:14: port pd1 is already made at line 1 "
					      "column 1; this one is left out\n"},
	};

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		ports_over("", rows[i].text);
		assert_string_equal(said, rows[i].said);
	}
	/* The other entries are read. */
	ports_over("", "nonsense;pd1=loop:pd2;=;pd3=vhost-user:/x");
	assert_int_equal(cfg->port_count, 3);
	assert_int_equal(cfg->error_count, 2);
}

static void test_the_environment_replaces_ports_of_the_file(void **state)
{
	ports_over("port pd0 vhost-user:/a mtu=9000\nport pd1 loop:pd2\n", "pd0=vhost-user:/b");
	assert_string_equal(said, "detail env:1:1: port pd0 replaces that of f:1\n");
	assert_int_equal(cfg->port_count, 3);
	assert_string_equal(pd_config_port(cfg, "pd0")->path, "/b");
	assert_int_equal(pd_config_port(cfg, "pd0")->mtu, 1500);
	assert_int_equal(cfg->warning_count + cfg->error_count, 0);
}

/* --- rules --------------------------------------------------------------------------------- */

static void test_every_form_of_a_rule(void **state)
{
	file("use os tcp_server *:5001\n"                          /* 1 */
	     "use os tcp_server 10.0.0.0/8:80-90 # comment\n"      /* 2 */
	     "use palladium tcp_server 10.1.1.1:*\n"               /* 3 */
	     "use os tcp_client 192.168.1.0/24:*:*:*\n"            /* 4 */
	     "use os tcp_client 10.0.0.1:443:10.0.0.2:1000-2000\n" /* 5 */
	     "use os udp_sender 239.0.0.0/8:*\n"                   /* 6 */
	     "use vma udp_receiver [fd00::]/16:7\n"                /* 7 */
	     "use os udp_receiver [::1]:1-65535\n"                 /* 8 */
	     "use os udp_connect *:53:[fe80::1]:*\n"               /* 9 */
	     "\tuse os packet pd0:0x88f7#tight\n"                  /* 10 */
	     "use os packet pd1:arp\n"                             /* 11 */
	     "use os packet lab*\n"                                /* 12 */
	     "use palladium packet *:*\n");                        /* 13 */
	assert_string_equal(said, "");
	assert_int_equal(cfg->group_count, 1);
	assert_int_equal(cfg->groups[0].rule_count, 13);
	assert_string_equal(cfg->groups[0].program, "*");

	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "1.2.3.4", 5001), -1);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "fd00::9", 5001), -1);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "10.1.1.1", 80), -2);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "10.9.1.1", 90), -2);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "10.1.1.1", 91), 3);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "11.1.1.1", 80), 0);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "::ffff:10.9.1.1", 85), -2);
	assert_int_equal(decide(PD_ROLE_TCP_CLIENT, "192.168.1.9", 7), -4);
	assert_int_equal(decide(PD_ROLE_TCP_CLIENT, "10.0.0.1", 443), 0);
	assert_int_equal(decide_as("p", "i", PD_ROLE_TCP_CLIENT, "10.0.0.1", 443, "10.0.0.2", 1000),
			 -5);
	assert_int_equal(decide_as("p", "i", PD_ROLE_TCP_CLIENT, "10.0.0.1", 443, "10.0.0.2", 999),
			 0);
	assert_int_equal(decide_as("p", "i", PD_ROLE_TCP_CLIENT, "10.0.0.1", 443, "10.0.0.3", 1000),
			 0);
	assert_int_equal(decide(PD_ROLE_UDP_SENDER, "239.9.9.9", 1), -6);
	assert_int_equal(decide(PD_ROLE_UDP_SENDER, "240.0.0.1", 1), 0);
	assert_int_equal(decide(PD_ROLE_UDP_RECEIVER, "fd00::77", 7), 7);
	assert_int_equal(decide(PD_ROLE_UDP_RECEIVER, "fd01::77", 7), 0);
	assert_int_equal(decide(PD_ROLE_UDP_RECEIVER, "::1", 65535), -8);
	assert_int_equal(decide_as("p", "i", PD_ROLE_UDP_CONNECT, "8.8.8.8", 53, "fe80::1", 9), -9);
	assert_int_equal(decide_as("p", "i", PD_ROLE_UDP_CONNECT, "8.8.8.8", 53, "fe80::2", 9), 0);
	assert_int_equal(decide_packet("pd0", 0x88f7), -10);
	assert_int_equal(decide_packet("pd0", 0x88f8), 13);
	assert_int_equal(decide_packet("pd1", 0x0806), -11);
	assert_int_equal(decide_packet("pd1", 3), 13); /* ETH_P_ALL is not only ARP */
	assert_int_equal(decide_packet("lab7", 3), -12);
}

static void test_the_first_group_that_matches_decides(void **state)
{
	file("application-id tcp_lat B1\nuse os tcp_server *:1\n"
	     "application-id tcp_* *\nuse os tcp_server *:2\n"
	     "application-id \"two words\" ?\nuse os tcp_server *:3\n"
	     "application-id * *\nuse os tcp_server *:*\n");
	assert_string_equal(said, "");
	assert_int_equal(decide_as("tcp_lat", "B1", PD_ROLE_TCP_SERVER, "1.1.1.1", 1, NULL, 0), -2);
	assert_int_equal(decide_as("tcp_lat", "B1", PD_ROLE_TCP_SERVER, "1.1.1.1", 2, NULL, 0), 0);
	assert_int_equal(decide_as("tcp_lat", "B2", PD_ROLE_TCP_SERVER, "1.1.1.1", 2, NULL, 0), -4);
	assert_int_equal(decide_as("two words", "x", PD_ROLE_TCP_SERVER, "1.1.1.1", 3, NULL, 0),
			 -6);
	assert_int_equal(decide_as("two words", "xx", PD_ROLE_TCP_SERVER, "1.1.1.1", 3, NULL, 0),
			 -8);
	assert_int_equal(decide_as("other", "", PD_ROLE_TCP_SERVER, "1.1.1.1", 9, NULL, 0), -8);
	assert_int_equal(decide_as("other", "", PD_ROLE_UDP_SENDER, "1.1.1.1", 9, NULL, 0), 0);
}

static void test_without_rules_everything_is_offloaded(void **state)
{
	struct pd_conf_decision d;

	file("");
	pd_conf_match_packet(cfg, "p", "i", "pd0", 3, &d);
	assert_int_equal(d.use, PD_USE_PALLADIUM);
	assert_null(d.group);
	assert_null(d.rule);
}

static void test_mistakes_in_lines(void **state)
{
	static const struct {
		const char *text, *said;
	} rows[] = {
		{"nonsense", "1:1: expected application-id, use, port or log, not \"nonsense\""},
		{"aplication-id * *", "1:1: expected application-id, use, port or log, not "
				      "\"aplication-id\"; did you mean application-id?"},
		{"application-id", "1:15: expected a word, not the end of the line"},
		{"application-id a", "1:17: expected a word, not the end of the line"},
		{"application-id a b c", "1:20: expected the end of the line, not \"c\""},
		{"application-id \"a b", "1:16: expected a word, not a quotation without its end"},
		{"use", "1:4: expected palladium or os, not the end of the line"},
		{"use kernel tcp_server *:1", "1:5: expected palladium or os, not \"kernel\""},
		{"use paladium tcp_server *:1",
		 "1:5: expected palladium or os, not \"paladium\"; did you mean palladium?"},
		{"use os tcp_srver *:1",
		 "1:8: expected tcp_server, tcp_client, udp_sender, udp_receiver, udp_connect or "
		 "packet, not \"tcp_srver\"; did you mean tcp_server?"},
		{"use os tcp_server", "1:18: expected an address or '*', not the end of the line"},
		{"use os tcp_server 80", "1:19: expected an address or '*', not \"80\""},
		{"use os tcp_server *", "1:20: expected ':', not the end of the line"},
		{"use os tcp_server *:", "1:21: expected a number or '*', not the end of the line"},
		{"use os tcp_server *:http", "1:21: expected a number or '*', not \"http\""},
		{"use os tcp_server *:80-", "1:24: expected a number, not the end of the line"},
		{"use os tcp_server *:0", "1:21: expected a port number from 1 to 65535 or *, not "
					  "\"0\"; the line is left out"},
		{"use os tcp_server *:65536", "1:21: expected a port number from 1 to 65535 or *, "
					      "not \"65536\"; the line is left out"},
		{"use os tcp_server *:90-80", "1:21: expected a range that goes up, not 90-80, "
					      "which no port matches; the line is "
					      "left out"},
		{"use os tcp_server 1.2.3:80",
		 "1:19: expected an IPv4 address, an IPv6 address in brackets or *, not \"1.2.3\"; "
		 "the line is left out"},
		{"use os tcp_server 1.2.3.4/33:80",
		 "1:27: expected a prefix length from 0 to 32, not \"33\"; the line is left out"},
		{"use os tcp_server [fd00::1]/129:80",
		 "1:29: expected a prefix length from 0 to 128, not \"129\"; the line is left out"},
		{"use os tcp_server [fd00:1]:80",
		 "1:19: expected an IPv4 address, an IPv6 address in brackets or *, not "
		 "\"[fd00:1]\"; the line is left out"},
		{"use os tcp_server fd00::1:80",
		 "1:19: expected an address or '*', not fd00::1:80 (an IPv6 address stands in "
		 "brackets: [fd00::1]:80)"},
		{"use os tcp_server *:1:*:2",
		 "1:5: tcp_server takes one ADDRESS:PORT (two are for tcp_client and udp_connect); "
		 "the line is left out"},
		{"use os tcp_client *:1:*", "1:24: expected ':', not the end of the line"},
		{"use os packet", "1:14: expected a word, not the end of the line"},
		{"use os packet :arp", "1:15: expected the name of a port (1 to 15 characters) or "
				       "a pattern of names, not "
				       "\"\"; the line is left out"},
		{"use os packet pd0:apr", "1:19: expected an ethertype (0x600 to 0xffff, a name "
					  "like arp or ipv6, or *), not "
					  "\"apr\"; did you mean arp; the line is left out"},
		{"use os packet pd0:800", "1:19: expected an ethertype (0x600 to 0xffff, a name "
					  "like arp or ipv6, or *), not "
					  "\"800\"; the line is left out"},
		{"port", "1:5: expected a word, not the end of the line"},
		{"port pd0", "1:9: expected a word, not the end of the line"},
		{"port pd0 vhost-user:/x mtu", "1:27: expected '=', not the end of the line"},
		{"log", "1:4: expected min-level or destination, not the end of the line"},
		{"log loud", "1:5: expected min-level or destination, not \"loud\""},
		{"log min-level 10",
		 "1:15: expected a level from 1 to 9 or a name (none, panic, error, warn, info, "
		 "details, debug, fine, finer, all), not \"10\"; the level stays"},
		{"log destination printer",
		 "1:17: expected stderr, syslog or file, not \"printer\""},
	};
	char text[300], expected[400];

	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		/* The same mistake in the first line, and in the third with good lines around. */
		snprintf(expected, sizeof(expected), "error f:%s\n", rows[i].said);
		file(rows[i].text);
		assert_string_equal(said, expected);
		assert_int_equal(cfg->error_count, 1);
		snprintf(text, sizeof(text),
			 "# a comment\nport pd8 loop:pd9\n%s\nuse os udp_sender *:9\n",
			 rows[i].text);
		snprintf(expected, sizeof(expected), "error f:3%s\n", rows[i].said + 1);
		file(text);
		assert_string_equal(said, expected);
		assert_int_equal(decide_as("a", "b", PD_ROLE_UDP_SENDER, "1.1.1.1", 9, NULL, 0),
				 -4);
		assert_non_null(pd_config_port(cfg, "pd9"));
	}
}

static void test_what_nothing_reaches_is_warned_about(void **state)
{
	file("application-id * *\nuse os tcp_server 10.0.0.0/8:*\nuse palladium tcp_server "
	     "10.1.0.0/16:80\n"
	     "use os tcp_server [::]/0:1-100\nuse os tcp_server [fd00::1]:100\n"
	     "use os tcp_client 1.1.1.1:*\nuse os tcp_client 1.1.1.1:*:*:5\n"
	     "use os packet pd*\nuse os packet pd1:arp\nuse os packet *:ip\n"
	     "application-id ping *\n");
	assert_string_equal(
		said,
		"warning f:3:5: nothing reaches this line: line 2 matches all that it would\n"
		"warning f:5:5: nothing reaches this line: line 4 matches all that it would\n"
		"warning f:7:5: nothing reaches this line: line 6 matches all that it would\n"
		"warning f:9:5: nothing reaches this line: line 8 matches all that it would\n"
		"warning f:11:1: nothing reaches the group \"ping *\": line 1, \"* *\", applies "
		"to all of its programs\n");
	file("application-id p* *\napplication-id ping 7\napplication-id q 1\napplication-id q 1\n"
	     "application-id * 1\n");
	assert_string_equal(
		said,
		"warning f:2:1: nothing reaches the group \"ping 7\": line 1, \"p* *\", applies "
		"to all of its programs\n"
		"warning f:4:1: nothing reaches the group \"q 1\": line 3, \"q 1\", applies to all "
		"of its programs\n");
	/* Near, but reachable. */
	file("use os tcp_server 10.0.0.0/8:1-9\nuse os tcp_server 10.0.0.0/8:1-10\n"
	     "use os tcp_server 10.0.0.0/7:1-9\nuse os tcp_client *:*:*:5\nuse os tcp_client "
	     "*:*\n");
	assert_string_equal(said, "");
	file("application-id p? 1\napplication-id p* 1\n");
	assert_string_equal(said, "");
}

static void test_log_lines(void **state)
{
	file("log min-level 9 destination file /tmp/x.log # libvma.conf counts down\n");
	assert_string_equal(said, "");
	assert_int_equal(cfg->log_level, PD_LOG_ERROR);
	assert_string_equal(cfg->log_file, "/tmp/x.log");
	file("log destination stderr min-level debug\n");
	assert_int_equal(cfg->log_level, PD_LOG_DEBUG);
	assert_string_equal(cfg->log_file, "");
	file("log destination syslog");
	assert_string_equal(said, "warning f:1:17: syslog is no destination yet; the log stays on "
				  "standard error\n");
	assert_int_equal(cfg->log_level, -1);
}

/* --- files --------------------------------------------------------------------------------- */

static void test_lines_end_as_they_like(void **state)
{
	file("port pd0 vhost-user:/a\r\n\r\n  # x\r\nport pd1 vhost-user:/b mtu=9000\r\nuse os "
	     "tcp_server *:1");
	assert_string_equal(said, "");
	assert_int_equal(cfg->port_count, 2);
	assert_string_equal(cfg->ports[0].path, "/a");
	assert_int_equal(cfg->ports[1].mtu, 9000);
	assert_int_equal(decide(PD_ROLE_TCP_SERVER, "1.1.1.1", 1), -5);
}

static void test_terminals_are_spared(void **state)
{
	file("\033[31mred\n");
	assert_non_null(strstr(said, "not \"?[31mred\""));
}

static void test_reading_files(void **state)
{
	char path[] = "/tmp/pd-test-conf-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "port pd0 loop:pd1\nx\n", 20), 20);
	begin();
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), 0);
	assert_int_equal(cfg->port_count, 1);
	assert_memory_equal(said, "error /tmp/pd-test-conf-", 24);
	assert_string_equal(cfg->ports[0].place.file, path);
	begin();
	assert_int_equal(ftruncate(fd, PD_CONF_FILE_BYTES_MAX), 0);
	assert_int_equal(pd_config_read_file(cfg, path, NULL, NULL), 0);
	assert_int_equal(ftruncate(fd, PD_CONF_FILE_BYTES_MAX + 1), 0);
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), -EFBIG);
	unlink(path);
	close(fd);
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), -ENOENT);
	assert_int_equal(pd_config_read_file(cfg, "/tmp", say, NULL), -EISDIR);
	assert_int_equal(pd_config_read_file(cfg, "/dev/null", say, NULL), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), 0); /* does not wait */
	unlink(path);
}

/* The example of the tree is understood to the last word. */
static void test_the_example_is_clean(void **state)
{
	const char *top = getenv("srcdir");
	char path[4096];

	snprintf(path, sizeof(path), "%s/palladium.conf", top ? top : ".");
	begin();
	assert_int_equal(pd_config_read_file(cfg, path, say, NULL), 0);
	pd_config_finish(cfg, say, NULL);
	assert_string_equal(said, "");
}

/* Bytes from a fixed seed (xorshift). */
static uint32_t random_next(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void test_random_bytes_never_hurt(void **state)
{
	char text[400];
	uint32_t seed = 20180812;

	for (int i = 0; i < 10000; i++) {
		size_t len = random_next(&seed) % sizeof(text);

		for (size_t j = 0; j < len; j++)
			text[j] = (char)random_next(&seed);
		begin();
		assert_int_equal(pd_config_parse(cfg, "f", text, len, NULL, NULL), 0);
		assert_int_equal(pd_config_parse_ports(cfg, "env", text, len, NULL, NULL), 0);
		pd_config_finish(cfg, NULL, NULL);
	}
}

/* Words of the grammar in any order get further into it than bytes do. */
static void test_random_words_never_hurt(void **state)
{
	static const char *const words[] = {
		"application-id",
		"use",
		"port",
		"log",
		"palladium",
		"os",
		"tcp_client",
		"udp_connect",
		"packet",
		"*:*",
		"10.0.0.1",
		":",
		"/",
		"-",
		"*",
		"[::1]",
		"80",
		"\n",
		"\n",
		"\n",
		"=",
		"mtu=9000",
		"mtu",
		"path=",
		"\"",
		"\"a b\"",
		"#",
		"pd0",
		"pd1",
		"loop",
		"loop:pd1",
		"vhost-user:/x",
		";",
		",",
		"min-level",
		"destination",
		"file",
		"ip=",
		"ip=1.2.3.4/8",
		"peer=pd0",
		"\t",
		"\\",
	};
	char text[1000];
	uint32_t seed = 1;

	for (int i = 0; i < 10000; i++) {
		size_t n = 0, count = random_next(&seed) % 60;

		for (size_t j = 0; j < count; j++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s",
					      words[random_next(&seed) % PD_ARRAY_SIZE(words)],
					      random_next(&seed) % 4 ? " " : "");
		begin();
		assert_int_equal(pd_config_parse(cfg, "f", text, n, NULL, NULL), 0);
		assert_int_equal(pd_config_parse_ports(cfg, "env", text, n, NULL, NULL), 0);
		pd_config_finish(cfg, NULL, NULL);
		for (uint32_t j = 0; j < cfg->port_count; j++) {
			assert_true(*cfg->ports[j].path || *cfg->ports[j].peer);
			assert_in_range(cfg->ports[j].mtu, 68, 12226);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_port_has_defaults),
		cmocka_unit_test(test_every_key_of_a_port),
		cmocka_unit_test(test_macs_are_stable_and_differ),
		cmocka_unit_test(test_a_loop_port_brings_its_partner),
		cmocka_unit_test(test_ports_that_cannot_be),
		cmocka_unit_test(test_wrong_values_name_what_was_expected),
		cmocka_unit_test(test_too_long_and_too_many),
		cmocka_unit_test(test_keys_that_do_not_fit),
		cmocka_unit_test(test_a_transport_that_is_not_built),
		cmocka_unit_test(test_what_stands_instead_of_a_mistake),
		cmocka_unit_test(test_ports_named_twice_and_unknown_transports),
		cmocka_unit_test(test_the_rest_of_a_line_is_read),
		cmocka_unit_test(test_ports_of_the_environment),
		cmocka_unit_test(test_mistakes_in_the_environment),
		cmocka_unit_test(test_the_environment_replaces_ports_of_the_file),
		cmocka_unit_test(test_every_form_of_a_rule),
		cmocka_unit_test(test_the_first_group_that_matches_decides),
		cmocka_unit_test(test_without_rules_everything_is_offloaded),
		cmocka_unit_test(test_mistakes_in_lines),
		cmocka_unit_test(test_what_nothing_reaches_is_warned_about),
		cmocka_unit_test(test_log_lines),
		cmocka_unit_test(test_lines_end_as_they_like),
		cmocka_unit_test(test_terminals_are_spared),
		cmocka_unit_test(test_reading_files),
		cmocka_unit_test(test_the_example_is_clean),
		cmocka_unit_test(test_random_bytes_never_hurt),
		cmocka_unit_test(test_random_words_never_hurt),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, teardown);
}
