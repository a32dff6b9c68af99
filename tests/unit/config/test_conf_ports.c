/* SPDX-License-Identifier: BSD-2-Clause */
/* config/: ports, in the file and in PALLADIUM_PORTS, and what is said about mistakes in them. */
#include <sys/socket.h>

#include "conf_rig.h"

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
	assert_int_equal(p->format, PD_CONF_FORMAT_AUTO);
	assert_true(p->mergeable);
	assert_true(p->in_order);
	assert_false(p->iommu);
	assert_false(p->inband);
	assert_int_equal(p->mtu, 1500);
	assert_int_equal(p->queues, 1);
	assert_int_equal(p->steer, PD_CONF_STEER_AUTO);
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
	     "queues=10 steer=flow ring=32767 format=packed mergeable=off in_order=off iommu=on "
	     "inband=on # ring=3\n");
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
	assert_int_equal(p->steer, PD_CONF_STEER_FLOW);
	assert_int_equal(p->ring, 32767);
	assert_int_equal(p->format, PD_CONF_FORMAT_PACKED);
	assert_false(p->mergeable);
	assert_false(p->in_order);
	assert_true(p->iommu);
	assert_true(p->inband);
}

/* Who may reach the socket: by name, by number, by variable; the port goes before the variable. */
static void test_who_may_reach_a_socket(void **state)
{
	const struct pd_conf_access *a;

	file("port pd0 vhost-user:/x socket_mode=660 socket_owner=root socket_group=\"daemon\" "
	     "peer_uid=self:root:4242\nport pd1 vhost-user:/y\n");
	assert_string_equal(said, "");
	a = &cfg->ports[0].access;
	assert_int_equal(pd_conf_access_mode(a), 0660);
	assert_true(a->has_owner && a->has_group && a->peer_self);
	assert_int_equal(a->owner, 0);
	assert_int_equal(a->group, 1);
	assert_int_equal(a->peer_count, 2);
	assert_int_equal(a->peers[0], 0);
	assert_int_equal(a->peers[1], 4242);
	a = &cfg->ports[1].access;
	assert_int_equal(pd_conf_access_mode(a), 0600);
	assert_false(a->has_owner || a->has_group || a->peer_self || a->peer_count);
	pd_vars.socket_mode = "0666";
	pd_vars.peer_uid = "7";
	file("port pd0 vhost-user:/x socket_mode=0640\nport pd1 vhost-user:/y peer_uid=self\nport "
	     "pd2 "
	     "loop:pd3\n");
	assert_string_equal(said, "");
	assert_int_equal(pd_conf_access_mode(&cfg->ports[0].access), 0640);
	assert_int_equal(cfg->ports[0].access.peers[0], 7);
	assert_int_equal(pd_conf_access_mode(&cfg->ports[1].access), 0666);
	assert_int_equal(cfg->ports[1].access.peer_count, 0);
	pd_vars.socket_group = "no-such-group";
	file("port pd0 vhost-user:/x\nport pd1 vhost-user:/y\n");
	assert_string_equal(said, "error PALLADIUM_SOCKET_GROUP:1:1: expected a group of "
				  "/etc/group, or a number, not \"no-such-group\"; using none, "
				  "and socket_mode=0600\n");
	assert_int_equal(pd_conf_access_mode(&cfg->ports[1].access), 0600);
	pd_vars.socket_mode = "0600";
	pd_vars.socket_group = pd_vars.peer_uid = "";
}

/* A mistake lets nobody in who would not have been. */
static void test_mistakes_about_access_are_narrow(void **state)
{
	file("port pd0 vhost-user:/x socket_mode=0666 socket_mode=oops\n"
	     "port pd1 vhost-user:/x socket_group=nobody-knows socket_mode=0660\n"
	     "port pd2 vhost-user:/x peer_uid=typo:5\n"
	     "port pd3 vhost-user:/x peer_uid=\"\"\n"
	     "port pd4 vhost-user:/x peer_uid=1:2:3:4:5:6:7:8:9\n");
	assert_int_equal(pd_conf_access_mode(&cfg->ports[0].access), 0600);
	assert_int_equal(pd_conf_access_mode(&cfg->ports[1].access), 0600);
	assert_int_equal(cfg->ports[2].access.peer_count, 1);
	assert_false(cfg->ports[2].access.peer_self);
	assert_true(cfg->ports[3].access.peer_self);
	assert_int_equal(cfg->ports[4].access.peer_count, 8);
	file("port pd0 vhost-user:@abstract\n");
	assert_non_null(strstr(said, "path: expected the path of a file (an abstract name"));
	assert_int_equal(cfg->port_count, 0);
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

/* Packed rings may have any number of descriptors; split ones and loops are told what they get. */
static void test_sizes_of_rings(void **state)
{
	file("port pd0 vhost-user:/0 ring=100\n"
	     "port pd1 vhost-user:/1 format=packed ring=3\n"
	     "port pd2 vhost-user:/2 ring=1000 format=split\n"
	     "port pd3 loop:pd4 ring=5\n"
	     "port pd5 vhost-user:/5 ring=512 format=split\n");
	assert_string_equal(said,
			    "error f:3:6: port pd2: ring: expected a power of two for "
			    "format=split, not 1000; using 256\n"
			    "error f:4:6: port pd3: ring: expected a power of two for a loop, not "
			    "5; using 256\n");
	assert_int_equal(pd_config_port(cfg, "pd0")->ring, 100);
	assert_int_equal(pd_config_port(cfg, "pd1")->ring, 3);
	assert_int_equal(pd_config_port(cfg, "pd2")->ring, 256);
	assert_int_equal(pd_config_port(cfg, "pd3")->ring, 256);
	assert_int_equal(pd_config_port(cfg, "pd4")->ring, 256);
	assert_int_equal(pd_config_port(cfg, "pd5")->ring, 512);
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
		{"format=spilt",
		 "format: expected auto, split or packed (did you mean split?), not "
		 "\"spilt\"; using auto"},
		{"mergeable=yes", "mergeable: expected on or off, not \"yes\"; using on"},
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
		{"steer=pcf",
		 "steer: expected pfc or flow (did you mean pfc?), not \"pcf\"; using pfc where "
		 "frames carry a sidecar, else flow"},
		{"queues=11", "queues: expected a number from 1 to 10, not \"11\"; using 1"},
		{"in_order=1", "in_order: expected on or off, not \"1\"; using on"},
		{"iommu=yes", "iommu: expected off or on, not \"yes\"; using off"},
		{"ring=1", "ring: expected a number from 2 to 32768, not \"1\"; using 256"},
		{"socket_mode=666x",
		 "socket_mode: expected an octal mode like 0660, not \"666x\"; using 0600"},
		{"socket_mode=01777",
		 "socket_mode: expected an octal mode like 0660, not \"01777\"; using 0600"},
		{"socket_mode=000",
		 "socket_mode: expected an octal mode like 0660, not \"000\"; using 0600"},
		{"socket_owner=no-such-user",
		 "socket_owner: expected a user of /etc/passwd, or a number, not \"no-such-user\"; "
		 "using none, and socket_mode=0600"},
		{"socket_group=-1",
		 "socket_group: expected a group of /etc/group, or a number, not \"-1\"; using "
		 "none, and socket_mode=0600"},
		{"peer_uid=4294967295", "peer_uid: expected self, users of /etc/passwd or their "
					"numbers, at most 8, parted "
					"by ':', not \"4294967295\"; using self"},
		{"ring=32769", "ring: expected a number from 2 to 32768, not \"32769\"; using 256"},
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
		{"ring=1", "not \"1\"; using 256\n"},
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
		 "error env:1:1: port pd0 is left out\n"},
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

/*
 * What follows a quotation without its end, nobody can tell: no port is made of the half that was
 * read.
 */
static void test_an_entry_that_is_not_read_to_its_end_makes_no_port(void **state)
{
	static const char *const entries[] = {"pd0=vhost-user:/tmp/\"x", "pd0=vhost-user:/tmp/x y",
					      "pd0=vhost-user:/x,mode=listen,path=/tmp/\"x",
					      "pd0=vhost-user:/x,path=\"/y"};
	static const char *const lines[] = {"port pd0 vhost-user:/tmp/\"x\n",
					    "port pd0 vhost-user path=/tmp/\"x\n",
					    "port pd0 vhost-user:/x mode=\"listen mtu=9000\n"};
	char text[200];

	for (size_t i = 0; i < PD_ARRAY_SIZE(entries); i++) {
		snprintf(text, sizeof(text), "pd1=loop:pd2;%s;pd3=vhost-user:/y", entries[i]);
		ports_over("port pd0 vhost-user:/of_the_file\n", text);
		assert_non_null(strstr(said, "error env:1:14: port pd0 is left out\n"));
		assert_int_equal(cfg->error_count, 2);
		assert_null(pd_config_port(cfg, "pd0"));
		assert_int_equal(cfg->port_count, 3);
		assert_string_equal(pd_config_port(cfg, "pd3")->path, "/y");
	}
	for (size_t i = 0; i < PD_ARRAY_SIZE(lines); i++) {
		snprintf(text, sizeof(text), "port pd1 loop:pd2\n%sport pd3 vhost-user:/y\n",
			 lines[i]);
		file(text);
		assert_non_null(strstr(said, "error f:2:6: port pd0 is left out\n"));
		assert_int_equal(cfg->error_count, 2);
		assert_null(pd_config_port(cfg, "pd0"));
		assert_int_equal(cfg->port_count, 3);
		assert_string_equal(pd_config_port(cfg, "pd3")->path, "/y");
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_port_has_defaults),
		cmocka_unit_test(test_every_key_of_a_port),
		cmocka_unit_test(test_who_may_reach_a_socket),
		cmocka_unit_test(test_mistakes_about_access_are_narrow),
		cmocka_unit_test(test_macs_are_stable_and_differ),
		cmocka_unit_test(test_a_loop_port_brings_its_partner),
		cmocka_unit_test(test_ports_that_cannot_be),
		cmocka_unit_test(test_sizes_of_rings),
		cmocka_unit_test(test_wrong_values_name_what_was_expected),
		cmocka_unit_test(test_too_long_and_too_many),
		cmocka_unit_test(test_keys_that_do_not_fit),
		cmocka_unit_test(test_a_transport_that_is_not_built),
		cmocka_unit_test(test_what_stands_instead_of_a_mistake),
		cmocka_unit_test(test_ports_named_twice_and_unknown_transports),
		cmocka_unit_test(test_the_rest_of_a_line_is_read),
		cmocka_unit_test(test_ports_of_the_environment),
		cmocka_unit_test(test_mistakes_in_the_environment),
		cmocka_unit_test(test_an_entry_that_is_not_read_to_its_end_makes_no_port),
		cmocka_unit_test(test_the_environment_replaces_ports_of_the_file),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, conf_teardown);
}
