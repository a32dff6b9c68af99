/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Running the lines of a script (contract in session.h).
 *
 * A command whose braces are open goes on in the next line. Blank lines, and lines that begin with
 * #, are passed over.
 */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NESTING_MAX 8

static unsigned nesting;

/* The text behind a beginning of the word `word`, at least `least` of its letters, or NULL. */
static const char *behind_word(const char *line, const char *word, size_t least)
{
	size_t n = strcspn(line, " \t");

	return n >= least && n <= strlen(word) && !strncmp(line, word, n)
		       ? line + n + strspn(line + n, " \t")
		       : NULL;
}

/* Print what is wrong behind `where`. */
static void complain(const char *where, const char *error)
{
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", where, error);
}

/* exec FILE. Returns 0 or 1. */
static int run_exec(struct pd_ctl_session *s, const char *path, const char *where)
{
	int ret;

	if (!*path) {
		complain(where, "exec takes the name of a file");
		return 1;
	}
	if (nesting == NESTING_MAX) {
		complain(where, "scripts that run each other are nested more than 8 deep");
		return 1;
	}
	nesting++;
	ret = pd_ctl_script(s, path);
	nesting--;
	return ret;
}

int pd_ctl_line(struct pd_ctl_session *s, const char *line, const char *where)
{
	char error[PD_CTL_ERROR_BYTES], *asked = NULL;
	const char *rest;
	int ret;

	line += strspn(line, " \t\r");
	if (!*line || *line == '#')
		return 0;
	rest = behind_word(line, "exec", 2);
	if (rest)
		return run_exec(s, rest, where);
	if (behind_word(line, "quit", 1) || behind_word(line, "exit", 4)) {
		s->ended = true;
		return 0;
	}
	if (s->json && line[strlen(line) - 1] != '?') {
		if (asprintf(&asked, "%s json", line) < 0)
			asked = NULL;
		line = asked ? asked : line;
	}
	ret = pd_ctl_run(s->ctl, line, stdout, error);
	free(asked);
	fflush(stdout);
	if (ret)
		complain(where, error);
	if (ret < 0)
		s->ended = true;
	return ret != 0;
}

/* How many more braces `line` opens than it closes. */
static int braces(const char *line)
{
	int n = 0;

	for (; *line; line++)
		n += (*line == '{') - (*line == '}');
	return n;
}

/*
 * Read one command, of one line or several with open braces, to *command (malloc'd; blanks for the
 * ends of lines), counting lines in *number. Returns 1, 0 at the end, or -1 when the last one is
 * not whole or there is no memory.
 */
static int read_command(FILE *in, char **command, unsigned long *number)
{
	char *line = NULL, *all = NULL;
	size_t size = 0;
	int depth = 0;
	ssize_t n;

	while ((n = getline(&line, &size, in)) >= 0) {
		char *more;

		++*number;
		if (n && line[n - 1] == '\n')
			line[n - 1] = '\0';
		depth += line[strspn(line, " \t")] == '#' ? 0 : braces(line);
		if (asprintf(&more, "%s%s%s", all ? all : "", all ? " " : "", line) < 0)
			break;
		free(all);
		all = more;
		if (depth <= 0)
			break;
	}
	free(line);
	*command = all;
	return !all ? 0 : depth > 0 ? -1 : 1;
}

int pd_ctl_script(struct pd_ctl_session *s, const char *path)
{
	bool standard = !strcmp(path, "-");
	FILE *in = standard ? stdin : fopen(path, "re");
	unsigned long number = 0;
	char where[4200], *command;
	int more, ret = 0;
	struct stat st;

	if (in && !fstat(fileno(in), &st) && S_ISDIR(st.st_mode)) {
		fclose(in);
		in = NULL;
		errno = EISDIR;
	}
	if (!in) {
		fprintf(stderr, "palladium_ctl: %s: %s\n", path, strerror(errno));
		return 1;
	}
	while (!ret && !s->ended) {
		unsigned long first = number + 1;

		more = read_command(in, &command, &number);
		snprintf(where, sizeof(where), "%s:%lu", standard ? "stdin" : path, first);
		if (more < 0)
			complain(where, "a { is not closed");
		ret = more < 0 ? 1 : more ? pd_ctl_line(s, command, where) : 0;
		free(command);
		if (more <= 0)
			break;
	}
	if (!standard)
		fclose(in);
	return ret;
}
