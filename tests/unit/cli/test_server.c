/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cli/server: the protocol, who is let in, what bad input gets, steps between other events.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/server.h"
#include "config/vars.h"
#include "counters/counters.h"
#include "rig.h"
#include "tests/unit/base/linger.h"
#include "vlib/progress.h"

static int steps_made, steps_seen_by_event, stepped_ended;

/* A command of many steps. */
static int many_begin(struct pd_cli *cli)
{
	(void)cli;
	steps_made = 0;
	return PD_CLI_MORE;
}

static int many_step(struct pd_cli *cli)
{
	pd_cli_print(cli, "step %d\n", ++steps_made);
	return steps_made < 50 ? PD_CLI_MORE : 0;
}

static void many_end(struct pd_cli *cli)
{
	(void)cli;
	stepped_ended++;
}
PD_CLI_COMMAND(many) = {.path = "test many",
			.help = "Many steps.",
			.fn = many_begin,
			.step = many_step,
			.end = many_end};

/* A command whose steps never end, and print a kilobyte each. */
static int endless_step(struct pd_cli *cli)
{
	pd_cli_print(cli, "%1023d\n", 0);
	return PD_CLI_MORE;
}
PD_CLI_COMMAND(endless) = {.path = "test endless",
			   .help = "No end.",
			   .fn = many_begin,
			   .step = endless_step,
			   .end = many_end};

/* A command that prints more than fits at once. */
static int huge(struct pd_cli *cli)
{
	for (int i = 0; i < 10000 && !cli->lost; i++)
		pd_cli_print(cli, "%1023d\n", i);
	return 0;
}
PD_CLI_COMMAND(huge) = {.path = "test huge", .help = "Too much.", .fn = huge};

/* A connection to the server, and what it says; the caller closes it. */
static int dial(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, pd_cli_server_path());
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* All that can be read now; with the end of the stream as "<end>". */
static const char *hear(int fd)
{
	static char text[8 << 20];
	size_t n = 0;
	ssize_t got;

	turn();
	while ((got = recv(fd, text + n, sizeof(text) - n - 8, MSG_DONTWAIT)) > 0) {
		n += (size_t)got;
		turn();
	}
	text[n] = '\0';
	if ((got == 0 && n + 8 < sizeof(text)) || (got < 0 && errno == ECONNRESET))
		strcpy(text + n, "<end>");
	return text;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* A connection whose hello has been read. */
static int open_cli(void)
{
	int fd = dial();

	assert_non_null(strstr(hear(fd), "palladium-cli 1 "));
	return fd;
}

static uint64_t refused(void)
{
	return pd_ctr_get(pd_ctr_process(), PD_CTR_PROCESS_CLI_REFUSED);
}

static int setup(void **state)
{
	pd_cli_patience_ns = 10 * PD_NS_PER_SEC;
	cli_begin("auto");
	return 0;
}

static int teardown(void **state)
{
	return cli_end();
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_file(void **state)
{
	char path[128], sub[128];
	struct stat st;

	assert_non_null(pd_cli_server_path());
	strcpy(path, pd_cli_server_path());
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_uid, geteuid());
	strcpy(sub, path);
	*strrchr(sub, '/') = '\0';
	assert_int_equal(stat(sub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	pd_lock(&pd_control);
	pd_cli_server_stop();
	assert_null(pd_cli_server_path());
	pd_unlock(&pd_control);
	assert_int_equal(stat(path, &st), -1);
	pd_lock(&pd_control);
	pd_cli_server_start(); /* once more, at the same name */
	pd_unlock(&pd_control);
	assert_string_equal(pd_cli_server_path(), path);
}

static void test_off_and_path(void **state)
{
	char path[64], link[64];

	pd_lock(&pd_control);
	pd_cli_server_stop();
	pd_vars.cli = "off";
	pd_cli_server_start();
	assert_null(pd_cli_server_path());
	snprintf(path, sizeof(path), "%s/own.%%d", dir);
	pd_vars.cli = path;
	pd_cli_server_start();
	snprintf(link, sizeof(link), "%s/own.%d", dir, (int)getpid());
	assert_string_equal(pd_cli_server_path(), link);
	pd_cli_server_stop();
	/* Where others may write, nobody knows whose socket one reaches. */
	assert_int_equal(chmod(dir, 0777), 0);
	pd_cli_server_start();
	assert_null(pd_cli_server_path());
	pd_cli_server_stop();
	assert_int_equal(chmod(dir, 0700), 0);
	pd_vars.cli = "relative";
	pd_cli_server_start();
	assert_null(pd_cli_server_path());
	pd_unlock(&pd_control);
}

static void test_protocol(void **state)
{
	char hello[128];
	int fd = dial(), other;

	snprintf(hello, sizeof(hello), "palladium-cli 1 %d ", (int)getpid());
	assert_int_equal(strncmp(hear(fd), hello, strlen(hello)), 0);
	say(fd, "echo one\necho two\r\nnothing\n");
	assert_string_equal(hear(fd), "one\n\036 0\ntwo\n\036 0\n\036 1 there is no command "
				      "\"nothing\": there are clear, define, echo, help, "
				      "packet-generator, quit, "
				      "show, test, trace, undefine\n");
	/* A line in pieces. */
	say(fd, "ec");
	assert_string_equal(hear(fd), "");
	say(fd, "ho three\nec");
	assert_string_equal(hear(fd), "three\n\036 0\n");
	say(fd, "ho four\n");
	assert_string_equal(hear(fd), "four\n\036 0\n");
	/* Macros are the connection's own, and go with it. */
	other = open_cli();
	say(fd, "define x 1\n");
	say(other, "echo $x\n");
	assert_string_equal(hear(fd), "\036 0\n");
	assert_non_null(strstr(hear(other), "\036 1 there is no macro"));
	close(other);
	say(fd, "quit\n");
	assert_string_equal(hear(fd), "\036 0\n<end>");
	close(fd);
	fd = open_cli();
	say(fd, "echo $x\n");
	assert_non_null(strstr(hear(fd), "\036 1 there is no macro"));
	/* What was asked is answered when the client has nothing more to ask. */
	say(fd, "echo last\n");
	shutdown(fd, SHUT_WR);
	assert_string_equal(hear(fd), "last\n\036 0\n<end>");
	close(fd);
}

static void test_bad_input(void **state)
{
	static const char *const whys[] = {"this is no text", "at most 4095 bytes", "has no end"};
	uint64_t before = refused();
	char flood[5000];

	memset(flood, 'a', sizeof(flood) - 1);
	flood[sizeof(flood) - 1] = '\0';
	for (int i = 0; i < 3; i++) {
		int fd = open_cli();
		char told[128];

		if (i == 0) {
			assert_int_equal(send(fd, "echo\0\x01x\n", 8, 0), 8);
		} else if (i == 1) {
			say(fd, flood);
		} else {
			say(fd, "show ver");
			shutdown(fd, SHUT_WR);
		}
		snprintf(told, sizeof(told), "%s", hear(fd));
		assert_int_equal(told[0], '\036');
		assert_non_null(strstr(told, whys[i]));
		assert_non_null(strstr(told, "\n<end>"));
		close(fd);
	}
	assert_int_equal(refused() - before, 3);
	/* The longest line that is one. */
	{
		int fd = open_cli();

		memcpy(flood, "echo ", 5);
		flood[4095] = '\n';
		flood[4096] = '\0';
		say(fd, flood);
		assert_int_equal(strlen(hear(fd)), 4090 + 1 + 4);
		close(fd);
	}
}

/* Half a line, or an answer that nobody reads, does not stay. */
static void test_patience(void **state)
{
	int half, slow, fd;

	pd_cli_patience_ns = 20 * PD_NS_PER_MS;
	half = open_cli();
	slow = open_cli();
	fd = open_cli();
	say(half, "show ver");
	say(slow, "test endless\n");
	turn();
	usleep(40000);
	turn();
	say(fd, "echo served\n"); /* meanwhile */
	assert_string_equal(hear(fd), "served\n\036 0\n");
	assert_non_null(strstr(hear(half), "did not come\n<end>"));
	assert_non_null(strstr(hear(slow), "<end>"));
	close(half);
	close(slow);
	close(fd);
}

/*
 * No step is made while the client does not read; all come when it does; the end frees the
 * command.
 */
static void test_slow_reader_is_waited_for(void **state)
{
	int fd = open_cli(), ends = stepped_ended;
	size_t got = 0;

	say(fd, "test endless\n");
	turn(); /* ends: it is not run for ever */
	assert_int_equal(pd_progress_run_once(0), 0);
	for (int i = 0; i < 2; i++)
		got += strlen(hear(fd));
	assert_true(got > 15 << 20);
	close(fd);
	turn();
	assert_int_equal(stepped_ended, ends + 1);
}

static void test_too_much_output(void **state)
{
	int fd = open_cli();
	size_t n;
	const char *text;

	say(fd, "test huge\n");
	text = hear(fd);
	n = strlen(text);
	assert_true(n > 3 << 20 && n < 6 << 20);
	assert_non_null(strstr(text, "\036 1 the rest of the output is missing: it is too long\n"));
	say(fd, "echo next\n");
	assert_string_equal(hear(fd), "next\n\036 0\n");
	close(fd);
}

static struct pd_progress_fd event;

static void on_event(struct pd_progress_fd *entry, uint32_t revents)
{
	uint64_t v;

	(void)revents;
	assert_int_equal(read(entry->fd, &v, sizeof(v)), sizeof(v));
	steps_seen_by_event = steps_made;
}

/* Between the steps of a long command other events are served, and other connections. */
static void test_steps_make_way(void **state)
{
	int fd = open_cli(), other = open_cli(), before;
	uint64_t one = 1;
	char text[16];

	event = (struct pd_progress_fd){
		.fd = eventfd(0, EFD_NONBLOCK), .events = EPOLLIN, .fn = on_event};
	pd_lock(&pd_control);
	assert_int_equal(pd_progress_add(&event), 0);
	pd_unlock(&pd_control);
	steps_made = 0;
	say(fd, "test many\n");
	while (steps_made < 10)
		pd_progress_run_once(0);
	for (int i = 0; i < 5; i++) {
		before = steps_made;
		assert_int_equal(write(event.fd, &one, sizeof(one)), sizeof(one));
		steps_seen_by_event = -1;
		pd_progress_run_once(0);
		assert_int_equal(steps_seen_by_event,
				 before); /* in the next round, before its step */
	}
	say(other, "echo in between\n");
	before = steps_made;
	while (recv(other, text, 10, MSG_DONTWAIT) != 10)
		pd_progress_run_once(0);
	assert_true(steps_made - before < 5 && steps_made < 50);
	assert_non_null(strstr(hear(fd), "step 50\n\036 0\n"));
	pd_lock(&pd_control);
	pd_progress_del(&event);
	pd_unlock(&pd_control);
	close(event.fd);
	close(fd);
	close(other);
}

static void test_connections_bound(void **state)
{
	int fds[PD_CLI_CONNECTIONS_MAX], more;

	for (int i = 0; i < PD_CLI_CONNECTIONS_MAX; i++)
		fds[i] = open_cli();
	more = dial();
	assert_string_equal(hear(more), "\036 1 there are 8 connections already\n<end>");
	close(more);
	close(fds[3]);
	turn();
	fds[3] = open_cli(); /* whose place is free */
	for (int i = 0; i < PD_CLI_CONNECTIONS_MAX; i++)
		close(fds[i]);
	turn();
}

/* Nobody waits for the descriptors of who is turned away, or leaves, and their closing waits. */
static void test_descriptors_unread(void **state)
{
	int fds[PD_CLI_CONNECTIONS_MAX], more, fd, other[2];

	alarm(30);
	for (int i = 0; i < PD_CLI_CONNECTIONS_MAX; i++)
		fds[i] = open_cli();
	more = dial();
	fd = lingering(&other[0]);
	send_away(more, "echo\n", 5, &fd, 1);
	assert_string_equal(hear(more), "\036 1 there are 8 connections already\n<end>");
	close(more);
	fd = lingering(&other[1]);
	send_away(fds[3], "echo\n", 5, &fd, 1);
	close(fds[3]);
	turn();
	fds[3] = open_cli();
	for (int i = 0; i < PD_CLI_CONNECTIONS_MAX; i++)
		close(fds[i]);
	turn();
	close(other[0]);
	close(other[1]);
	alarm(0);
}

/* Another user is told, counted and not served. */
static void test_other_user(void **state)
{
	uint64_t before = refused();
	char sub[128];
	int status = -1;
	pid_t child;

	if (geteuid())
		skip();
	/* Only the directories keep him out: open them. */
	strcpy(sub, pd_cli_server_path());
	assert_int_equal(chmod(sub, 0666), 0);
	*strrchr(sub, '/') = '\0';
	assert_int_equal(chmod(sub, 0755), 0);
	assert_int_equal(chmod(dir, 0755), 0);
	child = fork();
	if (!child) {
		char text[128] = "";
		struct sockaddr_un addr = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		strcpy(addr.sun_path, pd_cli_server_path());
		if (setuid(65534) || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
		    recv(fd, text, sizeof(text) - 1, 0) <= 0)
			_exit(1);
		_exit(strcmp(text, "\036 1 refused: this program runs as another user\n") ? 2 : 0);
	}
	while (waitpid(child, &status, WNOHANG) == 0)
		pd_progress_run_once(10);
	assert_int_equal(status, 0);
	assert_int_equal(refused() - before, 1);
}

/* A child lets the sockets go: the parent's clients see nothing of it, and its file stays. */
static void test_fork(void **state)
{
	int fd = open_cli(), status;
	pid_t child;

	pd_lock(&pd_control);
	child = fork();
	if (!child) {
		char old[128];
		int own;

		strcpy(old, pd_cli_server_path());
		pd_progress_after_fork();
		pd_cli_server_after_fork();
		if (pd_cli_server_path())
			_exit(1);
		pd_cli_server_start();
		if (!pd_cli_server_path() || !strcmp(pd_cli_server_path(), old) ||
		    access(old, F_OK))
			_exit(2);
		pd_unlock(&pd_control);
		own = dial();
		if (!strstr(hear(own), "palladium-cli"))
			_exit(3);
		pd_lock(&pd_control);
		pd_cli_server_stop();
		_exit(access(old, F_OK) ? 4 : 0);
	}
	pd_unlock(&pd_control);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	say(fd, "echo parent\n");
	assert_string_equal(hear(fd), "parent\n\036 0\n");
	close(fd);
	close(open_cli());
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_file),
		T(test_off_and_path),
		T(test_protocol),
		T(test_bad_input),
		T(test_patience),
		T(test_slow_reader_is_waited_for),
		T(test_too_much_output),
		T(test_steps_make_way),
		T(test_connections_bound),
		T(test_descriptors_unread),
		T(test_other_user),
		T(test_fork),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
