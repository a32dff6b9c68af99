/* SPDX-License-Identifier: BSD-2-Clause */
/* cli/: finding commands, help, macros, sinks and their bounds, redirection, tables, steps. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/sys.h"
#include "cli/cli.h"
#include "cli/table.h"

static struct pd_cli cli;
static struct pd_cli_macros macros;
static struct pd_cli_memory memory;
static int began, ended;

/* --- commands of the test ------------------------------------------------------------------ */

static int say_path(struct pd_cli *c)
{
	pd_cli_print(c, "%s|%s|%d\n", c->command->path, c->args, c->json);
	return 0;
}

PD_CLI_COMMAND(t_widgets) = {
	.path = "test widgets", .help = "Widgets.", .json = true, .fn = say_path};
PD_CLI_COMMAND(t_widen) = {.path = "test widen", .args = "[X]", .help = "Widen.", .fn = say_path};
PD_CLI_COMMAND(t_in) = {.path = "test in", .help = "In.", .fn = say_path};
PD_CLI_COMMAND(t_inner) = {.path = "test inner deep", .help = "Deep.", .fn = say_path};

static int flood(struct pd_cli *c)
{
	char text[1000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 100; i++)
		pd_cli_print(c, "%s\n", text);
	return 0;
}
PD_CLI_COMMAND(t_flood) = {.path = "test flood", .help = "Much.", .fn = flood};

static int steps_begin(struct pd_cli *c)
{
	began++;
	c->state = calloc(1, sizeof(int));
	assert_non_null(c->state);
	return PD_CLI_MORE;
}

static int steps_step(struct pd_cli *c)
{
	int *n = c->state;

	pd_cli_print(c, "%d\n", ++*n);
	return *n < 5 ? PD_CLI_MORE : 0;
}

static void steps_end(struct pd_cli *c)
{
	ended++;
	free(c->state);
}
PD_CLI_COMMAND(t_steps) = {.path = "test steps",
			   .help = "Steps.",
			   .fn = steps_begin,
			   .step = steps_step,
			   .end = steps_end};

static const struct pd_cli_column columns[] = {
	{"Name", "name", PD_CLI_TEXT, -6},
	{"N", "n", PD_CLI_NUMBER, 4},
	{NULL, "hidden", PD_CLI_NUMBER, 0},
	{"R", "r", PD_CLI_REAL, 6},
};

static int table(struct pd_cli *c)
{
	const union pd_cli_cell one[] = {
		{.text = "a\"\033b"}, {.number = 7}, {.number = 9}, {.real = 2.5}};
	struct pd_cli_table t;

	pd_cli_table_begin(c, &t, columns, 4, "things", "", true);
	pd_cli_table_row(c, &t, one);
	pd_cli_table_row(c, &t, one);
	pd_cli_table_end(c, &t);
	return 0;
}
PD_CLI_COMMAND(t_table) = {.path = "test table", .help = "Table.", .json = true, .fn = table};

/* --- helpers ------------------------------------------------------------------------------- */

/* Run a line; what it prints, terminated. */
static const char *run(const char *line, int expected)
{
	memory.n = 0;
	assert_int_equal(pd_cli_run(&cli, line), expected);
	assert_int_equal(memory.sink.take(&memory.sink, "", 1), 0);
	return memory.bytes;
}

static void answers(const char *line, const char *text)
{
	assert_string_equal(run(line, 0), text);
}

static void fails(const char *line, const char *why)
{
	run(line, -1);
	if (!strstr(cli.error, why))
		fail_msg("%s: \"%s\" does not tell of \"%s\"", line, cli.error, why);
	assert_null(strchr(cli.error, '\n'));
}

static int setup(void **state)
{
	pd_cli_memory_init(&memory, 1 << 20);
	pd_cli_init(&cli, &memory.sink, &macros);
	began = ended = 0;
	return 0;
}

static int teardown(void **state)
{
	pd_cli_macros_free(&macros);
	pd_cli_memory_free(&memory);
	return 0;
}

/* --- finding ------------------------------------------------------------------------------- */

static void test_prefixes(void **state)
{
	answers("test widgets", "test widgets||0\n");
	answers("  te   widg  ", "test widgets||0\n");
	answers("test wide  some thing ", "test widen|some thing|0\n");
	answers("test in", "test in||0\n"); /* equal goes before a longer one */
	answers("test inn d", "test inner deep||0\n");
	answers("", "");
	answers("   # test nothing", "");
	fails("test wi", "ambiguous: widen, widgets");
	fails("test i x", "ambiguous: in, inner");
	fails("test zzz", "no command \"test zzz\"");
	fails("test zzz", "widgets"); /* candidates */
	fails("zzz", "there are define, echo");
	fails("test", "no whole command: one of flood, in, inner, steps");
	fails("test in x", "takes no argument");
}

static void test_json_argument(void **state)
{
	answers("test widgets json", "test widgets||1\n");
	answers("test widen json", "test widen|json|0\n"); /* its own argument */
	fails("test in json", "no output as JSON");
}

static void test_help(void **state)
{
	assert_non_null(strstr(run("help", 0), "test widen [X]"));
	assert_non_null(strstr(run("help", 0), "define NAME VALUE"));
	assert_non_null(strstr(run("help te widg", 0), "Widgets."));
	assert_null(strstr(run("help te widg", 0), "Widen."));
	assert_null(strstr(run("help test in", 0), "Deep.")); /* inner is not below in */
	fails("help nothing", "no command \"nothing\"");
	assert_non_null(strstr(run("?", 0), "  test "));
	answers("test wid?", "  widen                Widen.\n  widgets              Widgets.\n");
	assert_non_null(strstr(run("test ?", 0), "  inner                ...\n"));
	assert_non_null(strstr(run("test widgets ?", 0), "test widgets [json]"));
	fails("nothing ?", "no command \"nothing\"");
}

/* --- macros -------------------------------------------------------------------------------- */

static void test_macros(void **state)
{
	answers("define ip1 192.168.1.1/24", "");
	answers("define both $ip1 and \\$(ip2)", "");
	answers("define ip2 10.0.0.1", "");
	answers("echo [$ip1] $(ip2)x $both",
		"[192.168.1.1/24] 10.0.0.1x 192.168.1.1/24 and 10.0.0.1\n");
	answers("echo \\$ip1 5$ $", "$ip1 5$ $\n");
	assert_non_null(
		strstr(run("show macros", 0), "both                 192.168.1.1/24 and $(ip2)"));
	answers("define ip2 other", "");
	answers("echo $both", "192.168.1.1/24 and other\n");
}

static void test_macro_errors(void **state)
{
	fails("echo $nothing", "no macro \"nothing\"");
	fails("echo $(", "not closed");
	fails("echo $(a b)", "not closed");
	fails("define", "a name and a value");
	fails("define x", "a name and a value");
	fails("define 1x y", "is no name");
	fails("define abcdefghijklmnopqrstuvwxyzabcdefghijk y", "31 characters");
	fails("undefine x", "no macro");
	answers("define x 1", "");
	answers("undefine x", "");
	fails("echo $x", "no macro \"x\"");
}

/* The document's example; and how deep is too deep. */
static void test_circular(void **state)
{
	char line[64];

	answers("define foo \\$(bar)", "");
	answers("define bar \\$(mumble)", "");
	answers("define mumble \\$(foo)", "");
	fails("echo $(foo)", "CIRCULAR");
	fails("define y $foo", "CIRCULAR");
	answers("echo still here", "still here\n");

	answers("define m1 end", "");
	for (int i = 2; i <= 8; i++) {
		snprintf(line, sizeof(line), "define m%d \\$m%d", i, i - 1);
		answers(line, "");
	}
	answers("echo $m7", "end\n");
	fails("echo $m8", "CIRCULAR");
}

/* Tables that would keep the thread busy, or take its memory. */
static void test_macro_bounds(void **state)
{
	char line[PD_CLI_LINE_BYTES], name[32];

	/* 7 levels of 60 references each, and no text in the end: 60^6 of them. */
	fails("define e0", "a value");
	assert_int_equal(pd_cli_macro_define(&macros, "e0", ""), 0);
	for (int i = 1; i < 7; i++) {
		line[0] = '\0';
		for (int k = 0; k < 60; k++)
			sprintf(line + strlen(line), "$e%d", i - 1);
		snprintf(name, sizeof(name), "e%d", i);
		assert_int_equal(pd_cli_macro_define(&macros, name, line), 0);
	}
	fails("echo $e6", "more than 256 macros");
	memset(line, 'x', 2000);
	line[2000] = '\0';
	assert_int_equal(pd_cli_macro_define(&macros, "long", line), 0);
	run("echo $long$long", 0);
	fails("echo $long$long$long", "longer than 4095");
	pd_cli_macros_free(&macros);
	for (int i = 0; i < PD_CLI_MACROS_MAX; i++) {
		snprintf(line, sizeof(line), "define n%d x", i);
		answers(line, "");
	}
	fails("define more x", "64 macros already");
	answers("define n5 other", ""); /* one that is there may change */
	answers("echo $n5", "other\n");
}

static void test_inband_macros_are_one_table(void **state)
{
	struct pd_cli other;

	pd_cli_init(&cli, &memory.sink, &pd_cli_inband_macros);
	pd_cli_init(&other, &memory.sink, &pd_cli_inband_macros);
	assert_int_equal(pd_cli_run(&other, "define shared yes"), 0);
	answers("echo $shared", "yes\n");
	pd_cli_macros_free(&pd_cli_inband_macros);
}

/* --- sinks --------------------------------------------------------------------------------- */

static void test_output_is_printable(void **state)
{
	assert_int_equal(pd_cli_macro_define(&macros, "evil", "\033[2Ja\036b"), 0);
	answers("echo $evil", "?[2Ja?b\n");
}

static void test_memory_bound(void **state)
{
	pd_cli_memory_free(&memory);
	pd_cli_memory_init(&memory, 5000);
	memory.n = 0;
	assert_int_equal(pd_cli_run(&cli, "test flood"), -1);
	assert_non_null(strstr(cli.error, "too long"));
	assert_true(memory.n <= 5000 && memory.n >= 4000 &&
		    memory.n % 1000 == 0); /* whole pieces */
	answers("echo next", "next\n");
}

static void test_queue(void **state)
{
	char bytes[4096], got[4096];
	struct pd_cli_queue q;
	size_t in = 0, out = 0;
	int fds[2];
	ssize_t n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	pd_cli_queue_init(&q, fds[0], 1 << 20);
	/* To the bound while nobody reads, then more as it drains; no byte is lost or moved. */
	for (;;) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (char)((in + i) * 7 % 251);
		if (q.memory.sink.take(&q.memory.sink, bytes, 1 + in % 4095))
			break;
		in += 1 + in % 4095;
		assert_true(pd_cli_queue_flush(&q) >= 0);
	}
	assert_true(pd_cli_queue_length(&q) <= 1 << 20 &&
		    pd_cli_queue_length(&q) > (1 << 20) - 4096);
	assert_int_equal(q.memory.sink.take(&q.memory.sink, bytes, 4096), -ENOBUFS);
	while (out < in) {
		n = recv(fds[1], got, sizeof(got), MSG_DONTWAIT);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)got[i],
					 (unsigned char)((out + (size_t)i) * 7 % 251));
		out += n > 0 ? (size_t)n : 0;
		assert_true(pd_cli_queue_flush(&q) >= 0);
	}
	assert_int_equal(pd_cli_queue_length(&q), 0);
	close(fds[1]);
	assert_int_equal(q.memory.sink.take(&q.memory.sink, "x", 1), 0);
	assert_int_equal(pd_cli_queue_flush(&q), -EPIPE);
	pd_cli_memory_free(&q.memory);
	close(fds[0]);
}

static void test_redirection(void **state)
{
	char dir[] = "/tmp/pdcli.XXXXXX", path[64], line[128], text[64] = "";
	struct stat st;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/out", dir);
	snprintf(line, sizeof(line), "echo into it > %s", path);
	answers(line, "");
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	assert_string_equal(text, "into it\n");
	assert_int_equal(fstat(fileno(f), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	fclose(f);
	fails(line, "is there already"); /* never over a file */
	answers("echo back", "back\n");
	unlink(path);
	assert_int_equal(symlink("/tmp/pdcli.nowhere", path), 0);
	fails(line, "is there already"); /* nor through a link */
	assert_int_equal(access("/tmp/pdcli.nowhere", F_OK), -1);
	unlink(path);
	snprintf(line, sizeof(line), "nothing > %s", path);
	fails(line, "no command \"nothing\"");
	assert_int_equal(access(path, F_OK), -1); /* what cannot run makes no file */
	fails("echo x > relative", "whole path");
	fails("echo x >", "whole path");
	snprintf(line, sizeof(line), "echo x > %s/none/out", dir);
	fails(line, "No such file");
	rmdir(dir);
}

/* A file that may not grow: told, and the process lives. */
static void test_redirection_limit(void **state)
{
	struct rlimit was, small = {.rlim_cur = 1000};
	char dir[] = "/tmp/pdcli.XXXXXX", path[64], line[128];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/out", dir);
	snprintf(line, sizeof(line), "test flood > %s", path);
	getrlimit(RLIMIT_FSIZE, &was);
	small.rlim_max = was.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	memory.n = 0;
	assert_int_equal(pd_cli_run(&cli, line), -1);
	setrlimit(RLIMIT_FSIZE, &was);
	assert_non_null(strstr(cli.error, "missing: File too large"));
	assert_int_equal(cli.file.fd, -1);
	unlink(path);
	rmdir(dir);
}

/* --- tables and steps ---------------------------------------------------------------------- */

static void test_table(void **state)
{
	answers("test table", "Name      N      R\n"
			      "a\"?b      7   2.50\n"
			      "a\"?b      7   2.50\n");
	answers("test table json",
		"{\"things\": [\n"
		"  {\"name\": \"a\\\"?b\", \"n\": 7, \"hidden\": 9, \"r\": 2.5},\n"
		"  {\"name\": \"a\\\"?b\", \"n\": 7, \"hidden\": 9, \"r\": 2.5}\n"
		"]}\n");
}

static void test_steps(void **state)
{
	answers("test steps", "1\n2\n3\n4\n5\n");
	assert_int_equal(began, 1);
	assert_int_equal(ended, 1);
	/* Nobody waits for the rest. */
	assert_int_equal(pd_cli_begin(&cli, "test steps"), PD_CLI_MORE);
	assert_int_equal(pd_cli_continue(&cli), PD_CLI_MORE);
	pd_cli_abort(&cli);
	assert_int_equal(ended, 2);
	assert_null(cli.command);
	answers("echo on", "on\n");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_prefixes),
		T(test_json_argument),
		T(test_help),
		T(test_macros),
		T(test_macro_errors),
		T(test_circular),
		T(test_macro_bounds),
		T(test_inband_macros_are_one_table),
		T(test_output_is_printable),
		T(test_memory_bound),
		T(test_queue),
		T(test_redirection),
		T(test_redirection_limit),
		T(test_table),
		T(test_steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
