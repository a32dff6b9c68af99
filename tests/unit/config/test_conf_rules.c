/* SPDX-License-Identifier: BSD-2-Clause */
/* config/: lines of the file: rules, who serves a socket, the log; and mistakes in them. */
#include <arpa/inet.h>

#include "conf_rig.h"

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
	struct pd_conf_question q = {
		.role = role,
		.has_second = second,
		.first = endpoint(first, (uint16_t)first_port),
	};
	struct pd_conf_decision d;
	int line;

	if (second)
		q.second = endpoint(second, (uint16_t)second_port);
	pd_conf_decide(cfg, program, id, &q, &d);
	line = d.rule ? (int)d.rule->place.line : 0;
	return d.use == PD_USE_OS ? -line : line;
}

static int decide(enum pd_conf_role role, const char *first, int first_port)
{
	return decide_as("prog", "id", role, first, first_port, NULL, 0);
}

static int decide_packet(const char *port, uint16_t ethertype)
{
	struct pd_conf_question q = {.role = PD_ROLE_PACKET, .ethertype = ethertype};
	struct pd_conf_decision d;
	int line;

	strcpy(q.port_name, port);
	pd_conf_decide(cfg, "prog", "id", &q, &d);
	line = d.rule ? (int)d.rule->place.line : 0;
	return d.use == PD_USE_OS ? -line : line;
}

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
	     "use palladium packet *:*\n"                          /* 13 */
	     "port pd0 loop:pd1\nport lab7 loop:lab8\n");
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

/* Ports may come after the rule, and from the environment, so this is said at the end. */
static void test_a_rule_for_a_port_that_is_not_there_is_told(void **state)
{
	static const char rules[] = "use palladium packet eth0\n"
				    "use palladium packet nosuch\n"
				    "use os packet  pd_7:arp\n"
				    "use os packet x*\n"
				    "use os packet lab*\nuse os packet *\n"
				    "port lab1 loop:lab2\n";

	ports_over(rules, "eth0=loop:pd77");
	assert_string_equal(said,
			    "warning f:2:22: nothing reaches this line: there is no port nosuch\n"
			    "warning f:3:16: nothing reaches this line: there is no port pd_7; "
			    "did you mean pd77?\n"
			    "warning f:4:15: nothing reaches this line: there is no port x*\n");
	assert_int_equal(cfg->groups[0].rule_count, 6);
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
	struct pd_conf_question q = {PD_ROLE_PACKET, .port_name = "pd0", .ethertype = 3};
	struct pd_conf_decision d;

	file("");
	pd_conf_decide(cfg, "p", "i", &q, &d);
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
	     "application-id ping *\nport pd1 loop:pd2\n");
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
	assert_string_equal(said, "");
	assert_true(cfg->log_syslog);
	assert_int_equal(cfg->log_level, -1);
	file("log destination syslog\nlog destination file /tmp/x.log\n");
	assert_false(cfg->log_syslog);
	file("log destination syslog destination stderr\n");
	assert_false(cfg->log_syslog);
	file("log destination file /tmp/x.log destination syslog\n");
	assert_true(cfg->log_syslog);
	assert_string_equal(cfg->log_file, "");
}

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

/* A rule is written as it would be read. */
static void test_rules_are_written_as_they_are_read(void **state)
{
	static const char *const lines[] = {
		"use os tcp_server *:5001",
		"use palladium tcp_server 10.1.1.1:*",
		"use os tcp_server 10.0.0.0/8:80-90",
		"use os tcp_client 0.0.0.0/0:1:10.0.0.2:1000-2000",
		"use palladium udp_receiver [fd00::]/16:7",
		"use os udp_connect *:53:[fe80::1]:*",
		"use os packet pd0:0x88f7",
		"use os packet lab*",
		"use os tcp_client [1:2:3:4:5:6:7:8000]/120:10000-20000:[fd00::1234:5678]:1-65534",
	};
	char text[PD_CONF_RULE_BYTES];

	for (unsigned i = 0; i < PD_ARRAY_SIZE(lines); i++) {
		file(lines[i]);
		assert_int_equal(cfg->error_count, 0);
		pd_conf_rule_write(&cfg->groups[0].rules[0], text, sizeof(text));
		assert_string_equal(text, lines[i]);
	}
}

/* Ask in words. As decide_as. */
static int decide_text(const char *text)
{
	struct pd_conf_question q;
	struct pd_conf_decision d;
	char error[256];
	int line;

	assert_int_equal(pd_conf_question_read(text, &q, error, sizeof(error)), 0);
	assert_string_equal(error, "");
	pd_conf_decide(cfg, "prog", "id", &q, &d);
	line = d.rule ? (int)d.rule->place.line : 0;
	return d.use == PD_USE_OS ? -line : line;
}

static void test_questions_are_asked_in_words(void **state)
{
	static const struct {
		const char *text, *why;
	} wrong[] = {
		{"", "expected tcp_server, tcp_client, udp_sender, udp_receiver, udp_connect or "
		     "packet, not the end of the line"},
		{"tcp_server 1.1.1.1", "expected ':' or '/', not the end of the line"},
		{"tcp_server 1.1.1.1.1:3",
		 "expected an IPv4 address, an IPv6 address in brackets or *, not \"1.1.1.1.1\""},
		{"tcp_server *:1",
		 "a socket has one address and one port: no *, no network, no range"},
		{"tcp_server 1.1.1.0/24:1",
		 "a socket has one address and one port: no *, no network, no range"},
		{"tcp_client 1.1.1.1:1-2",
		 "a socket has one address and one port: no *, no network, no range"},
		{"tcp_client 1.1.1.1:1:*:*",
		 "a socket has one address and one port: no *, no network, no range"},
		{"tcp_server 1.1.1.1:1:1.1.1.1:1",
		 "tcp_server takes one ADDRESS:PORT (two are for tcp_client and udp_connect)"},
		{"packet pd*", "a socket is asked about with one port's name, not with a pattern"},
		{"packet pd0\nuse os packet pd1", "that is no socket"},
	};
	struct pd_conf_question q;
	char error[256], large[600];

	file("use os tcp_client 10.0.0.0/8:80\n"          /* 1 */
	     "use palladium tcp_client *:*:1.1.1.1:5\n"   /* 2 */
	     "use os tcp_client [fd00::]/8:1-9:*:*\n"     /* 3 */
	     "use os packet pd0:arp\nuse os packet pd1\n" /* 4, 5 */
	     "port pd0 loop peer=pd1\n");
	assert_int_equal(decide_text("tcp_client 10.9.9.9:80"), -1);
	assert_int_equal(decide_text("tcp_client 10.9.9.9:81"), 0);
	assert_int_equal(decide_text("tcp_client 10.9.9.9:81:1.1.1.1:5"), 2);
	assert_int_equal(decide_text("tcp_client [fd00::1]:9"), -3);
	assert_int_equal(decide_text("packet pd0:0x0806"), -4);
	assert_int_equal(decide_text("packet pd0"), 0);
	assert_int_equal(decide_text("packet pd1:*"), -5);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(wrong); i++) {
		assert_int_equal(pd_conf_question_read(wrong[i].text, &q, error, sizeof(error)),
				 -EINVAL);
		assert_string_equal(error, wrong[i].why);
	}
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	assert_int_equal(pd_conf_question_read(large, &q, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "that is too long for a socket");
}

static void test_what_a_rule_misses_by(void **state)
{
	struct pd_conf_question q;
	char error[256];
	static const char *const why[] = {"another role", "another port", "another address",
					  "asks for the local end", NULL};

	file("use os udp_sender 1.1.1.1:1\nuse os tcp_client 1.1.1.1:2\n"
	     "use os tcp_client 1.1.1.2:1\nuse os tcp_client 1.1.1.1:1:2.2.2.2:*\n"
	     "use os tcp_client 1.1.1.1:1\napplication-id a b\n");
	assert_int_equal(pd_conf_question_read("tcp_client 1.1.1.1:1", &q, error, sizeof(error)),
			 0);
	for (unsigned i = 0; i < PD_ARRAY_SIZE(why); i++) {
		const char *miss = pd_conf_rule_misses(&cfg->groups[0].rules[i], &q);

		if (why[i])
			assert_string_equal(miss, why[i]);
		else
			assert_null(miss);
	}
	assert_string_equal(pd_conf_group_misses(&cfg->groups[1], "x", "b"), "another program");
	assert_string_equal(pd_conf_group_misses(&cfg->groups[1], "a", "x"),
			    "another PALLADIUM_APPLICATION_ID");
	assert_null(pd_conf_group_misses(&cfg->groups[1], "a", "b"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_form_of_a_rule),
		cmocka_unit_test(test_a_rule_for_a_port_that_is_not_there_is_told),
		cmocka_unit_test(test_the_first_group_that_matches_decides),
		cmocka_unit_test(test_without_rules_everything_is_offloaded),
		cmocka_unit_test(test_mistakes_in_lines),
		cmocka_unit_test(test_what_nothing_reaches_is_warned_about),
		cmocka_unit_test(test_log_lines),
		cmocka_unit_test(test_lines_end_as_they_like),
		cmocka_unit_test(test_rules_are_written_as_they_are_read),
		cmocka_unit_test(test_questions_are_asked_in_words),
		cmocka_unit_test(test_what_a_rule_misses_by),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, conf_teardown);
}
