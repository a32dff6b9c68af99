/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lines that somebody types (contract in session.h): with editing, history and completion where
 * libedit was there at the build. Completion asks the program what can follow (WORDS ?).
 */
#ifdef HAVE_CONFIG_H
#	include "config.h"
#endif

#include "session.h"

#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBEDIT
#	include <histedit.h>

#	define HISTORY_LINES 1000

static char prompt[96];

/* The prompt, for libedit. */
static char *show_prompt(EditLine *el)
{
	(void)el;
	return prompt;
}

/*
 * The first `n` characters that all words of the list have in common, `n` the length of the
 * shortest.
 */
static size_t common(char *const *words, size_t count)
{
	size_t n = count ? strlen(words[0]) : 0;

	for (size_t i = 1; i < count; i++)
		for (size_t k = 0; k < n; k++)
			if (words[i][k] != words[0][k])
				n = k;
	return n;
}

/* Ask what can stand at the end of `line`. Returns the program's answer, malloc'd, or NULL. */
static char *ask(struct pd_ctl_session *s, const char *line)
{
	char error[PD_CTL_ERROR_BYTES], *question = NULL, *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int ret = -1;

	if (out && asprintf(&question, "%s?", line) >= 0)
		ret = pd_ctl_run(s->ctl, question, out, error);
	free(question);
	if (out)
		fclose(out);
	if (!ret)
		return text;
	free(text);
	return NULL;
}

/* Take the words out of an answer: lines of two blanks, a word, and its help. Returns how many. */
static size_t answer_words(char *text, char **words, size_t max)
{
	char *save = NULL;
	size_t n = 0;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "  ", 2) || line[2] == ' ' || n == max)
			continue;
		line[2 + strcspn(line + 2, " ")] = '\0';
		words[n++] = line + 2;
	}
	return n;
}

/* The tabulator: complete the word before the cursor, or show what it can become. */
static unsigned char complete(EditLine *el, int ch)
{
	const LineInfo *info = el_line(el);
	size_t length = (size_t)(info->cursor - info->buffer), typed = 0, n, know;
	struct pd_ctl_session *s = NULL;
	char *line, *text, *words[64], add[256];
	unsigned char ret = CC_ERROR;

	(void)ch;
	el_get(el, EL_CLIENTDATA, &s);
	line = strndup(info->buffer, length);
	text = line && s ? ask(s, line) : NULL;
	if (!text)
		goto out;
	while (typed < length && line[length - typed - 1] != ' ')
		typed++;
	n = answer_words(text, words, sizeof(words) / sizeof(words[0]));
	know = common(words, n);
	if (n && know >= typed && (n == 1 || know > typed)) {
		snprintf(add, sizeof(add), "%.*s%s", (int)(know - typed), words[0] + typed,
			 n == 1 ? " " : "");
		ret = el_insertstr(el, add) < 0 ? CC_ERROR : CC_REFRESH;
	} else if (n) {
		putchar('\n');
		for (size_t i = 0; i < n; i++)
			printf("%s%s", words[i], i + 1 < n ? "  " : "\n");
		fflush(stdout);
		ret = CC_REDISPLAY;
	}
out:
	free(text);
	free(line);
	return ret;
}

/* Print the history, oldest first. */
static void print_history(History *h)
{
	HistEvent ev;

	for (int ret = history(h, &ev, H_LAST); ret >= 0; ret = history(h, &ev, H_PREV))
		printf("%5d  %s", ev.num, ev.str);
}

/* Run the lines that come. */
static int run_lines(struct pd_ctl_session *s, EditLine *el, History *h)
{
	const char *typed;
	HistEvent ev;
	int n;

	while (!s->ended && (typed = el_gets(el, &n)) && n > 0) {
		char *line = strdup(typed);

		if (!line)
			return 1;
		line[strcspn(line, "\n")] = '\0';
		if (line[strspn(line, " \t")])
			history(h, &ev, H_ENTER, typed);
		if (!strcmp(line, "history"))
			print_history(h);
		else
			pd_ctl_line(s, line, "error");
		free(line);
	}
	if (!s->ended)
		putchar('\n');
	return 0;
}

int pd_ctl_interactive(struct pd_ctl_session *s)
{
	EditLine *el = el_init("palladium_ctl", stdin, stdout, stderr);
	History *h = history_init();
	HistEvent ev;
	int ret = 1;

	snprintf(prompt, sizeof(prompt), "%.63s# ", s->ctl->program);
	if (el && h) {
		history(h, &ev, H_SETSIZE, HISTORY_LINES);
		history(h, &ev, H_SETUNIQUE, 1);
		el_set(el, EL_PROMPT, show_prompt);
		el_set(el, EL_EDITOR, "emacs");
		el_set(el, EL_HIST, history, h);
		el_set(el, EL_CLIENTDATA, s);
		el_set(el, EL_ADDFN, "palladium-complete", "Complete a command", complete);
		el_set(el, EL_BIND, "^I", "palladium-complete", NULL);
		el_set(el, EL_SIGNAL, 1);
		ret = run_lines(s, el, h);
	}
	if (h)
		history_end(h);
	if (el)
		el_end(el);
	return ret;
}

#else

int pd_ctl_interactive(struct pd_ctl_session *s)
{
	char *line = NULL;
	size_t size = 0;

	while (!s->ended) {
		printf("%s# ", s->ctl->program);
		fflush(stdout);
		if (getline(&line, &size, stdin) < 0)
			break;
		line[strcspn(line, "\n")] = '\0';
		pd_ctl_line(s, line, "error");
	}
	free(line);
	return 0;
}

#endif
