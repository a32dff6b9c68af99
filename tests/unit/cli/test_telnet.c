/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cli/telnet: what telnet itself says is no text, however it is cut; lines end as it ends them; who
 * is at the other end; and whole conversations over TCP. The progress thread's rounds are turned by
 * hand.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "cli/server.h"
#include "cli/telnet.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "rig.h"
#include "tests/unit/base/ahead.h"
#include "vlib/progress.h"

#define ME program_invocation_short_name
/* What a conversation that goes wrong is ended after, in seconds. */
#define BOUND 60

/* --- the filter ---------------------------------------------------------------------------- */

/* What the sink of a test has taken. */
static struct {
	struct pd_cli_sink sink;
	char bytes[256];
	size_t n;
} taken;

static int take(struct pd_cli_sink *sink, const char *bytes, size_t n)
{
	assert_ptr_equal(sink, &taken.sink);
	assert_true(n <= sizeof(taken.bytes) - taken.n);
	memcpy(taken.bytes + taken.n, bytes, n);
	taken.n += n;
	return 0;
}

/* A string with NULs in it, and its length. */
#define S(text)                        \
	{                              \
		text, sizeof(text) - 1 \
	}

static void telnets_own_bytes_are_no_text(void **state)
{
	static const struct {
		struct {
			const char *bytes;
			size_t n;
		} said, text, replies;
	} rows[] = {
		{S("show errors\r\n"), S("show errors\r\n"), S("")},
		/* CR NUL is a return without a new line; a NUL elsewhere is no text of ours. */
		{S("a\r\0b\0c"), S("a\rb\0c"), S("")},
		/* DO and WILL are refused; that something is off needs no answer. */
		{S("a\377\375\001b"), S("ab"), S("\377\374\001")},
		{S("a\377\373\037b"), S("ab"), S("\377\376\037")},
		{S("\377\374\001\377\376\003x"), S("x"), S("")},
		/* Commands of one byte: interrupt, are you there. */
		{S("sh\377\364ow\377\366"), S("show"), S("")},
		/* A parameter list, with 255 doubled in it, which holds what looks like text. */
		{S("a\377\372\030\0xterm\377\377\n\377\360b"), S("ab"), S("")},
		/* 255 as text. */
		{S("a\377\377b"), S("a\377b"), S("")},
		{S("\377\375\377x"), S("x"), S("\377\374\377")},
	};

	for (unsigned i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		for (size_t cut = 0; cut <= rows[i].said.n; cut++) {
			struct pd_telnet_in in = {0};
			char bytes[64];
			size_t n;

			memcpy(bytes, rows[i].said.bytes, rows[i].said.n);
			taken.sink.take = take;
			taken.n = 0;
			n = pd_telnet_filter(&in, bytes, cut, &taken.sink);
			memmove(bytes + n, bytes + cut, rows[i].said.n - cut);
			n += pd_telnet_filter(&in, bytes + n, rows[i].said.n - cut, &taken.sink);
			assert_int_equal(n, rows[i].text.n);
			assert_memory_equal(bytes, rows[i].text.bytes, n);
			assert_int_equal(taken.n, rows[i].replies.n);
			assert_memory_equal(taken.bytes, rows[i].replies.bytes, taken.n);
		}
	}
}

static void lines_end_as_telnet_ends_them(void **state)
{
	struct pd_telnet_out out;

	taken.sink.take = take;
	taken.n = 0;
	pd_telnet_out_init(&out, &taken.sink);
	assert_int_equal(out.sink.take(&out.sink, "a\nb\n\n", 5), 0);
	assert_int_equal(out.sink.take(&out.sink, "", 0), 0);
	assert_int_equal(taken.n, 8);
	assert_memory_equal(taken.bytes, "a\r\nb\r\n\r\n", 8);
}

/* --- conversations ------------------------------------------------------------------------- */

static char heard[1 << 16];
/* Bound to the port as well, and does not listen: so it is given to nobody else. */
static int holder;

/* So much time passes at once. */
static void later(uint64_t ns)
{
	turn();
	ahead_ns += ns;
	turn();
}

/* Wait until what the other end said ends with `end`; "": until it has closed. Returns all of it. */
static const char *hear(int fd, const char *end)
{
	size_t n = 0, length = strlen(end);
	ssize_t got = 1;

	*heard = '\0';
	while (got && (!length || n < length || strcmp(heard + n - length, end))) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		turn();
		if (!poll(&p, 1, 5))
			continue;
		got = recv(fd, heard + n, sizeof(heard) - n - 1, 0);
		if (got < 0)
			got = 0; /* with a reset */
		n += (size_t)got;
		heard[n] = '\0';
	}
	if (length && !got)
		fail_msg("closed before \"%s\": \"%s\"", end, heard);
	return heard;
}

/* The prompt. */
static const char *prompt(void)
{
	static char text[80];

	snprintf(text, sizeof(text), "%.63s> ", ME);
	return text;
}

/* What a client hears until the prompt comes. */
static const char *answered(int fd)
{
	size_t n;

	hear(fd, prompt());
	n = strlen(heard) - strlen(prompt());
	heard[n] = '\0';
	return heard;
}

/* Say a string, which may hold NULs. */
#define SAY(fd, text) \
	assert_int_equal(send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL), sizeof(text) - 1)

static int dial(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)pd_vars.cli_port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static int open_cli(void)
{
	int fd = dial();

	answered(fd);
	return fd;
}

static int setup(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(at);
	int on = 1;

	alarm(BOUND);
	holder = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(holder, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(holder, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(holder, (struct sockaddr *)&at, &n), 0);
	pd_vars.cli_port = ntohs(at.sin_port);
	cli_begin("off");
	return 0;
}

static int teardown(void **state)
{
	int ret = cli_end();

	close(holder);
	alarm(0);
	return ret;
}

static void a_conversation(void **state)
{
	char hello[200], all[300];
	int fd = dial();

	snprintf(hello, sizeof(hello),
		 "libpalladium %s, process %d (%.63s); help lists the commands, quit ends\r\n",
		 PACKAGE_VERSION, (int)getpid(), ME);
	assert_string_equal(answered(fd), hello);
	SAY(fd, "echo one\r\n");
	assert_string_equal(answered(fd), "one\r\n");
	SAY(fd, "nothing\r\n");
	assert_int_equal(strncmp(answered(fd), "error: there is no command \"nothing\"", 36), 0);
	/* Lines that come together have a prompt each; what the client proposes is refused at once. */
	SAY(fd, "\r\n\377\375\001define x a\r\0\necho $\377\364x\r\n");
	snprintf(all, sizeof(all), "\377\374\001%s%sa\r\n%s", prompt(), prompt(), prompt());
	assert_string_equal(hear(fd, strstr(all, "a\r\n")), all);
	SAY(fd, "quit\r\n");
	hear(fd, "");
	close(fd);
	/* The client goes first. */
	fd = open_cli();
	SAY(fd, "echo last\n");
	shutdown(fd, SHUT_WR);
	assert_int_equal(strncmp(hear(fd, ""), "last\r\n", 6), 0);
	close(fd);
}

static void what_is_no_text_ends_it(void **state)
{
	int fd = open_cli();

	SAY(fd, "echo \001\r\n");
	assert_string_equal(hear(fd, ""), "error: this is no text\r\n");
	close(fd);
}

/* A page that a browser shows can have it send any lines behind these. */
static void a_browser_runs_nothing(void **state)
{
	static const char request[] = "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\necho obeyed\r\n";
	uint64_t before = pd_ctr_get(pd_ctr_process(), PD_CTR_PROCESS_CLI_COMMANDS);
	int fd = open_cli();
	char all[200];

	SAY(fd, request);
	assert_null(strstr(hear(fd, ""), "obeyed"));
	assert_int_equal(pd_ctr_get(pd_ctr_process(), PD_CTR_PROCESS_CLI_COMMANDS), before);
	close(fd);
	/* Behind a command they are no browser's. */
	fd = open_cli();
	SAY(fd, "echo a\r\necho GET / HTTP/1.1\r\n");
	snprintf(all, sizeof(all), "a\r\n%sGET / HTTP/1.1\r\n%s", prompt(), prompt());
	assert_string_equal(hear(fd, strchr(all, 'G')), all);
	close(fd);
}

/* Half a line is somebody typing; but not for ever. */
static void half_a_line_has_more_time(void **state)
{
	int fd = open_cli();

	SAY(fd, "first\r\necho sl"); /* its answer tells that the other has come too */
	assert_non_null(strstr(answered(fd), "no command"));
	later(29 * pd_cli_patience_ns);
	SAY(fd, "ow\r\n");
	assert_string_equal(answered(fd), "slow\r\n");
	SAY(fd, "first\r\necho");
	assert_non_null(strstr(answered(fd), "no command"));
	later(30 * pd_cli_patience_ns);
	assert_string_equal(hear(fd, ""), "error: the rest of the line did not come\r\n");
	close(fd);
}

/* --- who it is ----------------------------------------------------------------------------- */

static void who_is_at_the_other_end(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int server = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0),
	    taken_fd;
	socklen_t n = sizeof(at);
	struct sockaddr_in peer;
	uint16_t port;
	uid_t uid = 12345;

	assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(getsockname(server, (struct sockaddr *)&at, &n), 0);
	port = ntohs(at.sin_port);
	if (!geteuid())
		assert_int_equal(fchown(fd, 54321, -1), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	n = sizeof(peer);
	taken_fd = accept(server, (struct sockaddr *)&peer, &n);
	assert_true(taken_fd >= 0);
	assert_int_equal(pd_telnet_peer(&peer, port, &uid), 0);
	assert_int_equal(uid, geteuid() ? geteuid() : 54321);
	/* Half closed it has an owner still, */
	uid = 12345;
	shutdown(fd, SHUT_WR);
	assert_int_equal(pd_telnet_peer(&peer, port, &uid), 0);
	/* closed it has not, and is not taken for the user 0. */
	uid = 12345;
	close(fd);
	assert_int_equal(pd_telnet_peer(&peer, port, &uid), -ENOTCONN);
	close(taken_fd);
	assert_int_equal(pd_telnet_peer(&peer, port, &uid), -ENOTCONN);
	assert_int_equal(uid, 12345);
	close(server);
}

static void others_are_refused(void **state)
{
	int fd;

	if (geteuid()) /* somebody else's socket takes root */
		skip();
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(fchown(fd, 54321, -1), 0);
	{
		struct sockaddr_in at = {.sin_family = AF_INET,
					 .sin_port = htons((uint16_t)pd_vars.cli_port),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

		assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	}
	assert_string_equal(hear(fd, ""), "refused: this program runs as another user\r\n");
	close(fd);
	/* Gone before it is looked at: nobody knows whose it was. */
	fd = dial();
	close(fd);
	turn();
	close(open_cli());
}

static void a_port_that_is_taken_costs_nothing_else(void **state)
{
	pd_lock(&pd_control);
	pd_cli_server_stop();
	assert_int_equal(listen(holder, 1), 0);
	pd_vars.cli = "auto";
	pd_cli_server_start();
	assert_non_null(pd_cli_server_path());
	pd_unlock(&pd_control);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(telnets_own_bytes_are_no_text),
		cmocka_unit_test(lines_end_as_telnet_ends_them),
		T(a_conversation),
		T(what_is_no_text_ends_it),
		T(a_browser_runs_nothing),
		T(half_a_line_has_more_time),
		cmocka_unit_test(who_is_at_the_other_end),
		T(others_are_refused),
		T(a_port_that_is_taken_costs_nothing_else),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
