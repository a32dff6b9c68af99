/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The debug CLI: the list of commands, finding one, running a line.
 *
 * The commands are a tree of words that is never built: there are some dozens, and what stands next
 * below a path is found by walking the list. A word means the one that it equals, else the only one
 * that begins with it.
 */
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Words that may follow at one place, at most; more are not shown. */
#define WORDS_MAX 64

struct pd_cli_macros pd_cli_inband_macros;
static struct pd_cli_command *commands;

void pd_cli_register(struct pd_cli_command *command)
{
	struct pd_cli_command **at = &commands;

	/* By path, for help. */
	while (*at && strcmp((*at)->path, command->path) < 0)
		at = &(*at)->next;
	command->next = *at;
	*at = command;
}

void pd_cli_init(struct pd_cli *cli, struct pd_cli_sink *out, struct pd_cli_macros *macros)
{
	memset(cli, 0, sizeof(*cli));
	cli->out = cli->sink = out;
	cli->macros = macros;
	cli->file.fd = -1;
}

/* --- output -------------------------------------------------------------------------------- */

/* Replace the control characters of a text. */
static void make_printable(char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)text[i] < ' ' && text[i] != '\n' && text[i] != '\t') ||
		    text[i] == 0x7f)
			text[i] = '?';
}

void pd_cli_print(struct pd_cli *cli, const char *fmt, ...)
{
	char small[512], *text = small;
	va_list ap;
	int n;

	if (cli->lost)
		return;
	va_start(ap, fmt);
	n = vsnprintf(small, sizeof(small), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(small)) {
		text = malloc((size_t)n + 1);
		if (text) {
			va_start(ap, fmt);
			vsnprintf(text, (size_t)n + 1, fmt, ap);
			va_end(ap);
		}
	}
	if (n < 0 || !text) {
		cli->lost = -ENOMEM;
		return;
	}
	make_printable(text, (size_t)n);
	cli->lost = cli->sink->take(cli->sink, text, (size_t)n);
	if (text != small)
		free(text);
}

int pd_cli_fail(struct pd_cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cli->error, sizeof(cli->error), fmt, ap);
	va_end(ap);
	make_printable(cli->error, strlen(cli->error));
	for (char *p = cli->error; (p = strchr(p, '\n'));)
		*p = ' ';
	return -1;
}

void pd_cli_json_string(struct pd_cli *cli, const char *text)
{
	char piece[128];
	size_t n = 0;

	piece[n++] = '"';
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			piece[n++] = '\\';
		piece[n++] = *text < ' ' || *text > '~' ? '?' : *text;
		if (n < sizeof(piece) - 4)
			continue;
		piece[n] = '\0';
		pd_cli_print(cli, "%s", piece);
		n = 0;
	}
	piece[n++] = '"';
	piece[n] = '\0';
	pd_cli_print(cli, "%s", piece);
}

/* --- words --------------------------------------------------------------------------------- */

/* A word of a command's path: not terminated. */
struct word {
	const char *text;
	size_t n;
};

/* The words that may follow at a place, each once, in order. */
struct words {
	struct word words[WORDS_MAX];
	size_t n;
};

/* Cut the blanks off both ends. */
static char *trim(char *text)
{
	size_t n;

	text += strspn(text, " \t");
	n = strlen(text);
	while (n && strchr(" \t\r", text[n - 1]))
		text[--n] = '\0';
	return text;
}

char *pd_cli_word(struct pd_cli *cli)
{
	char *word = cli->args;
	size_t n = strcspn(word, " \t");

	if (!n)
		return NULL;
	cli->args += n;
	if (*cli->args) {
		*cli->args++ = '\0';
		cli->args += strspn(cli->args, " \t");
	}
	return word;
}

/* The word of `command` behind the path `path`. Returns whether there is one. */
static bool word_behind(const struct pd_cli_command *command, const char *path, struct word *word)
{
	size_t n = strlen(path);

	if (strncmp(command->path, path, n) || (n && command->path[n] != ' '))
		return false;
	word->text = command->path + n + (n > 0);
	word->n = strcspn(word->text, " ");
	return true;
}

/* The command whose path is `path`, or NULL. */
static const struct pd_cli_command *command_at(const char *path)
{
	const struct pd_cli_command *command = commands;

	while (command && strcmp(command->path, path))
		command = command->next;
	return command;
}

/*
 * Collect the words behind `path` that begin with the `n` bytes of `start`; one that equals it,
 * alone.
 */
static void words_behind(const char *path, const char *start, size_t n, struct words *out)
{
	struct word word;

	out->n = 0;
	for (const struct pd_cli_command *c = commands; c; c = c->next) {
		struct word *last = out->n ? &out->words[out->n - 1] : NULL;

		if (!word_behind(c, path, &word) || word.n < n || strncmp(word.text, start, n))
			continue;
		if (n && word.n == n) {
			out->words[0] = word;
			out->n = 1;
			return;
		}
		/* The list is in order, so equal words stand together. */
		if (last && last->n == word.n && !strncmp(last->text, word.text, word.n))
			continue;
		if (out->n < WORDS_MAX)
			out->words[out->n++] = word;
	}
}

/* Write the words as "a, b, c" to `text`. */
static const char *words_text(const struct words *words, char *text, size_t size)
{
	size_t at = 0;

	*text = '\0';
	for (size_t i = 0; i < words->n && at < size; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%.*s", i ? ", " : "",
				       (int)words->words[i].n, words->words[i].text);
	return text;
}

/* Say that no one word is meant by the `n` bytes of `typed` behind cli->path. */
static int no_such_word(struct pd_cli *cli, const struct words *words, const char *typed, size_t n)
{
	char list[PD_CLI_ERROR_BYTES - 256];
	const char *blank = *cli->path ? " " : "";
	struct words all;

	if (n && words->n > 1)
		return pd_cli_fail(cli, "\"%s%s%.*s\" is ambiguous: %s", cli->path, blank,
				   (int)pd_min(n, (size_t)64), typed,
				   words_text(words, list, sizeof(list)));
	words_behind(cli->path, "", 0, &all);
	words_text(&all, list, sizeof(list));
	if (n && !*cli->path)
		return pd_cli_fail(cli, "there is no command \"%.*s\": there are %s",
				   (int)pd_min(n, (size_t)64), typed, list);
	if (n)
		return pd_cli_fail(
			cli, "there is no command \"%s %.*s\": behind \"%s\" stands one of %s",
			cli->path, (int)pd_min(n, (size_t)64), typed, cli->path, list);
	return pd_cli_fail(cli, "\"%s\" is no whole command: one of %s follows", cli->path, list);
}

/* Put a word behind cli->path. Returns false when that is too long for any command's. */
static bool path_add(struct pd_cli *cli, const struct word *word)
{
	size_t n = strlen(cli->path);

	if (n + 1 + word->n >= sizeof(cli->path))
		return false;
	snprintf(cli->path + n, sizeof(cli->path) - n, "%s%.*s", n ? " " : "", (int)word->n,
		 word->text);
	return true;
}

/*
 * Read words at `line` as far as they are a command's, into cli->path. With `whole`, they have to
 * be a whole command. Returns what follows them, or NULL when there is no such command:
 * cli->error.
 */
static char *read_path(struct pd_cli *cli, char *line, bool whole)
{
	*cli->path = '\0';
	for (;;) {
		size_t n = strcspn(line, " \t");
		struct words words;

		if (!n && (!whole || command_at(cli->path)))
			return line;
		words_behind(cli->path, line, n, &words);
		if (!n || words.n != 1 || !path_add(cli, &words.words[0])) {
			if (n && !words.n && command_at(cli->path))
				return line;
			no_such_word(cli, &words, line, n);
			return NULL;
		}
		line += n;
		line += strspn(line, " \t");
	}
}

/* --- help ---------------------------------------------------------------------------------- */

/* Print how a command is used and what it does. */
static void print_usage(struct pd_cli *cli, const struct pd_cli_command *c)
{
	char usage[2 * PD_CLI_PATH_BYTES];

	snprintf(usage, sizeof(usage), "%s%s%s%s", c->path, c->args ? " " : "",
		 c->args ? c->args : "", c->json ? " [json]" : "");
	pd_cli_print(cli, "%-32s %s\n", usage, c->help);
}

/* help [COMMAND]: usage of all commands that begin with these words. */
static int help(struct pd_cli *cli)
{
	char *rest = read_path(cli, cli->args, false);
	size_t n = strlen(cli->path);

	if (!rest)
		return -1;
	for (const struct pd_cli_command *c = commands; c; c = c->next)
		if (!strncmp(c->path, cli->path, n) && (!n || !c->path[n] || c->path[n] == ' '))
			print_usage(cli, c);
	if (!n)
		pd_cli_print(cli,
			     "\n"
			     "Each word may be shortened as long as it stays unique. WORDS ? shows "
			     "what can follow;\n"
			     "> FILE behind a command writes its output to a new file; $NAME and "
			     "$(NAME) are macros.\n");
	return 0;
}

PD_CLI_COMMAND(help) = {
	.path = "help",
	.args = "[COMMAND]",
	.help = "What commands there are, or what one does.",
	.fn = help,
};

/* "WORDS ?" and "WORDS begin?": what can stand there. `line` is without its '?'. */
static int question(struct pd_cli *cli, char *line)
{
	size_t length = strlen(line), n = length;
	const struct pd_cli_command *exact;
	char *partial, *rest;
	struct words words;

	while (n && !strchr(" \t", line[n - 1]))
		n--;
	partial = strdup(line + n);
	if (!partial)
		return pd_cli_fail(cli, "%s", pd_strerror(ENOMEM));
	line[n] = '\0';
	rest = read_path(cli, trim(line), false);
	if (rest && !*rest) {
		exact = command_at(cli->path);
		if (exact && !*partial)
			print_usage(cli, exact);
		words_behind(cli->path, partial, strlen(partial), &words);
		for (size_t i = 0; i < words.n; i++) {
			char path[2 * PD_CLI_PATH_BYTES];

			snprintf(path, sizeof(path), "%s%s%.*s", cli->path, *cli->path ? " " : "",
				 (int)words.words[i].n, words.words[i].text);
			exact = command_at(path);
			pd_cli_print(cli, "  %-20.*s %s\n", (int)words.words[i].n,
				     words.words[i].text, exact ? exact->help : "...");
		}
	} else if (rest) {
		print_usage(cli, command_at(cli->path));
	}
	free(partial);
	return rest ? 0 : -1;
}

/* --- a line -------------------------------------------------------------------------------- */

/* Say why a line's macros could not be expanded. */
static int fail_expansion(struct pd_cli *cli, int err, const char *name)
{
	switch (-err) {
	case ELOOP:
		return pd_cli_fail(cli, "CIRCULAR: $%s is not done after %d levels", name,
				   PD_CLI_MACRO_LEVELS);
	case ENOENT:
		return pd_cli_fail(cli, "there is no macro \"%s\" (\\$ is a dollar sign)", name);
	case EINVAL:
		return pd_cli_fail(cli, "\"$(%s\" is not closed, or holds no name", name);
	case EOVERFLOW:
		return pd_cli_fail(cli, "more than %d macros are expanded in one line",
				   PD_CLI_EXPANSIONS_MAX);
	default:
		return pd_cli_fail(cli,
				   "the line is longer than %d bytes when its macros are expanded",
				   PD_CLI_LINE_BYTES - 1);
	}
}

/* Take "> FILE" off `line`. Returns the file's name, or NULL when the line has none. */
static char *take_file(char *line)
{
	char *mark = strrchr(line, '>');

	if (!mark)
		return NULL;
	*mark = '\0';
	return trim(mark + 1);
}

/* Have the output go to the new file at `path`; NULL: as ever. Returns 0 or -1. */
static int redirect(struct pd_cli *cli, const char *path)
{
	int ret;

	if (!path)
		return 0;
	if (*path != '/')
		return pd_cli_fail(
			cli, "> takes the whole path of a file, from / on, not \"%.64s\"", path);
	ret = pd_cli_file_open(&cli->file, path, PD_CLI_FILE_BYTES);
	if (ret == -EEXIST || ret == -ELOOP)
		return pd_cli_fail(cli, "%.512s is there already: output goes to a new file only",
				   path);
	if (ret)
		return pd_cli_fail(cli, "%.512s cannot be made: %s", path, pd_strerror(ret));
	cli->sink = &cli->file.sink;
	return 0;
}

/*
 * Take "json" off the end of the arguments of a command that knows it, and look that there are no
 * arguments where none may be. Returns 0 or -1.
 */
static int take_args(struct pd_cli *cli, const struct pd_cli_command *c)
{
	size_t n = strlen(cli->args);
	bool json = n >= 4 && !strcmp(cli->args + n - 4, "json") &&
		    (n == 4 || strchr(" \t", cli->args[n - 5]));

	if (json && !c->json && !c->args)
		return pd_cli_fail(cli, "\"%s\" has no output as JSON", c->path);
	if (json && c->json) {
		cli->json = true;
		cli->args[n - 4] = '\0';
		cli->args = trim(cli->args);
	}
	if (!c->args && *cli->args)
		return pd_cli_fail(cli, "\"%s\" takes no argument", c->path);
	return 0;
}

/* The command is over, with `ret`. Returns 0 or -1. */
static int finish(struct pd_cli *cli, int ret)
{
	if (cli->command && cli->command->end)
		cli->command->end(cli);
	cli->command = NULL;
	cli->state = NULL;
	pd_cli_file_close(&cli->file);
	cli->sink = cli->out;
	if (ret < 0 && !*cli->error)
		ret = pd_cli_fail(cli, "%s", pd_strerror(ret));
	if (!ret && cli->lost)
		ret = pd_cli_fail(cli, "the rest of the output is missing: %s",
				  cli->lost == -ENOBUFS ? "it is too long"
							: pd_strerror(cli->lost));
	return ret;
}

/* Find and call the command of cli->line. Returns as its function. */
static int dispatch(struct pd_cli *cli)
{
	char *line = trim(cli->line), *file;
	const struct pd_cli_command *c;
	size_t n = strlen(line);

	if (!n || *line == '#')
		return 0;
	if (line[n - 1] == '?') {
		line[n - 1] = '\0';
		return question(cli, line);
	}
	file = take_file(line);
	cli->args = read_path(cli, trim(line), true);
	if (!cli->args)
		return -1;
	c = command_at(cli->path);
	if (take_args(cli, c) || redirect(cli, file))
		return -1;
	cli->command = c;
	return c->fn(cli);
}

int pd_cli_begin(struct pd_cli *cli, const char *line)
{
	char name[PD_CLI_MACRO_NAME_BYTES];
	int ret;

	cli->json = cli->quit = false;
	cli->lost = 0;
	*cli->error = '\0';
	ret = pd_cli_macro_expand(cli->macros, line, cli->line, name);
	ret = ret ? fail_expansion(cli, ret, name) : dispatch(cli);
	return ret == PD_CLI_MORE && !cli->lost ? ret : finish(cli, ret == PD_CLI_MORE ? 0 : ret);
}

int pd_cli_continue(struct pd_cli *cli)
{
	int ret = cli->command->step(cli);

	return ret == PD_CLI_MORE && !cli->lost ? ret : finish(cli, ret == PD_CLI_MORE ? 0 : ret);
}

void pd_cli_abort(struct pd_cli *cli)
{
	finish(cli, -1);
}

int pd_cli_run(struct pd_cli *cli, const char *line)
{
	int ret = pd_cli_begin(cli, line);

	while (ret == PD_CLI_MORE)
		ret = pd_cli_continue(cli);
	return ret;
}

/* --- macros -------------------------------------------------------------------------------- */

/* define NAME VALUE. The line's macros are expanded by now; what was written \$ is a $. */
static int define(struct pd_cli *cli)
{
	char *name = pd_cli_word(cli);
	int ret;

	if (!name || !*cli->args)
		return pd_cli_fail(cli, "define takes a name and a value");
	ret = pd_cli_macro_define(cli->macros, name, cli->args);
	if (ret == -EINVAL)
		return pd_cli_fail(
			cli, "\"%.64s\" is no name: letters, digits and _, no digit first", name);
	if (ret == -ENAMETOOLONG)
		return pd_cli_fail(cli, "a name has at most %d characters",
				   PD_CLI_MACRO_NAME_BYTES - 1);
	if (ret == -ENOSPC)
		return pd_cli_fail(cli, "there are %d macros already", PD_CLI_MACROS_MAX);
	return ret ? pd_cli_fail(cli, "%s", pd_strerror(ret)) : 0;
}

PD_CLI_COMMAND(define) = {
	.path = "define",
	.args = "NAME VALUE",
	.help = "Have $NAME and $(NAME) stand for VALUE; \\$ in it is expanded later.",
	.fn = define,
};

/* undefine NAME */
static int undefine(struct pd_cli *cli)
{
	char *name = pd_cli_word(cli);

	if (!name || *cli->args)
		return pd_cli_fail(cli, "undefine takes a name");
	if (pd_cli_macro_undefine(cli->macros, name))
		return pd_cli_fail(cli, "there is no macro \"%.64s\"", name);
	return 0;
}

PD_CLI_COMMAND(undefine) = {
	.path = "undefine",
	.args = "NAME",
	.help = "Forget a macro.",
	.fn = undefine,
};

/* show macros */
static int show_macros(struct pd_cli *cli)
{
	for (unsigned i = 0; i < cli->macros->n; i++)
		pd_cli_print(cli, "%-20s %s\n", cli->macros->macros[i].name,
			     cli->macros->macros[i].value);
	return 0;
}

PD_CLI_COMMAND(show_macros) = {
	.path = "show macros",
	.help = "The macros of this connection.",
	.fn = show_macros,
};

/* echo TEXT */
static int echo(struct pd_cli *cli)
{
	pd_cli_print(cli, "%s\n", cli->args);
	return 0;
}

PD_CLI_COMMAND(echo) = {
	.path = "echo",
	.args = "[TEXT]",
	.help = "Print TEXT, its macros expanded.",
	.fn = echo,
};

/* quit */
static int quit(struct pd_cli *cli)
{
	cli->quit = true;
	return 0;
}

PD_CLI_COMMAND(quit) = {
	.path = "quit",
	.help = "End the connection.",
	.fn = quit,
};
