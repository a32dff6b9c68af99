/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words and numbers as people write them.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/compiler.h"
#include "config/text.h"

#define PD_TEXT_DISTANCE_MAX 64 /* longer words are compared up to here */

bool pd_text_is(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && !strncasecmp(text, word, len);
}

/* The value of a digit in `base`, or -1. */
static int pd_text_digit(char c, int base)
{
	int v = c >= '0' && c <= '9'   ? c - '0'
		: c >= 'a' && c <= 'f' ? c - 'a' + 10
		: c >= 'A' && c <= 'F' ? c - 'A' + 10
				       : 99;

	return v < base ? v : -1;
}

/*
 * Read a number at the beginning of the text; *used gets the bytes that belong to it. Returns 0,
 * -EINVAL or -ERANGE as pd_text_number.
 */
static int pd_text_number_head(const char *text, size_t len, size_t *used, int64_t *out)
{
	bool negative = false, overflow = false;
	size_t i = 0, first;
	int base = 10;
	int64_t v = 0;

	if (i < len && (text[i] == '-' || text[i] == '+'))
		negative = text[i++] == '-';
	if (len - i > 2 && text[i] == '0' && (text[i + 1] | 0x20) == 'x') {
		base = 16;
		i += 2;
	}
	for (first = i; i < len; i++) {
		int d = pd_text_digit(text[i], base);

		if (d < 0)
			break;
		overflow |= __builtin_mul_overflow(v, (int64_t)base, &v) ||
			    __builtin_add_overflow(v, (int64_t)d, &v);
	}
	if (i == first)
		return -EINVAL;
	*used = i;
	if (overflow)
		return -ERANGE;
	*out = negative ? -v : v;
	return 0;
}

int pd_text_number(const char *text, size_t len, int64_t *out)
{
	size_t used;
	int64_t v = 0;
	int ret = pd_text_number_head(text, len, &used, &v);

	if (ret != -EINVAL && used != len)
		return -EINVAL;
	if (!ret)
		*out = v;
	return ret;
}

int pd_text_size(const char *text, size_t len, int64_t *out)
{
	static const struct {
		const char *suffix;
		int shift;
	} rows[] = {{"", 0},    {"B", 0},    {"k", 10}, {"kB", 10}, {"kiB", 10}, {"M", 20},
		    {"MB", 20}, {"MiB", 20}, {"G", 30}, {"GB", 30}, {"GiB", 30}};
	size_t used;
	int64_t v = 0;
	int ret = pd_text_number_head(text, len, &used, &v);

	if (ret == -EINVAL)
		return ret;
	for (size_t i = 0; i < PD_ARRAY_SIZE(rows); i++) {
		if (!pd_text_is(text + used, len - used, rows[i].suffix))
			continue;
		if (ret || __builtin_mul_overflow(v, (int64_t)1 << rows[i].shift, &v))
			return -ERANGE;
		*out = v;
		return 0;
	}
	return -EINVAL;
}

/* Nanoseconds in a unit of time, or 0. */
static int64_t pd_text_unit_ns(const char *unit, size_t len)
{
	return pd_text_is(unit, len, "ns")   ? 1
	       : pd_text_is(unit, len, "us") ? 1000
	       : pd_text_is(unit, len, "ms") ? 1000000
	       : pd_text_is(unit, len, "s")  ? 1000000000
					     : 0;
}

int pd_text_duration(const char *text, size_t len, const char *unit, int64_t *out)
{
	int64_t to = pd_text_unit_ns(unit, strlen(unit)), from = to, v = 0;
	size_t used;
	int ret = pd_text_number_head(text, len, &used, &v);

	if (ret == -EINVAL || !to)
		return -EINVAL;
	if (used < len)
		from = pd_text_unit_ns(text + used, len - used);
	if (!from)
		return -EINVAL;
	if (ret || __builtin_mul_overflow(v, from, &v))
		return from == to && !ret ? (*out = v, 0) : -ERANGE;
	if (v % to)
		return -EINVAL;
	*out = v / to;
	return 0;
}

bool pd_text_bool(const char *text, size_t len, bool *out)
{
	static const char *const yes[] = {"1", "yes", "on", "true", "enable", "enabled"};
	static const char *const no[] = {"0", "no", "off", "false", "disable", "disabled"};

	for (size_t i = 0; i < PD_ARRAY_SIZE(yes); i++) {
		if (pd_text_is(text, len, yes[i]))
			return *out = true, true;
		if (pd_text_is(text, len, no[i]))
			return *out = false, true;
	}
	return false;
}

/*
 * Step through "name=number|...": *pos begins as the list, moves on; *name, *len and *number get
 * the entry. Returns false at the end. The list is ours (vars.def), so its form is given.
 */
static bool pd_text_next_word(const char **pos, const char **name, size_t *len, int64_t *number)
{
	const char *eq, *end;

	if (!**pos)
		return false;
	eq = strchr(*pos, '=');
	end = strchrnul(*pos, '|');
	*name = *pos;
	*len = (size_t)(eq - *pos);
	pd_text_number(eq + 1, (size_t)(end - eq - 1), number);
	*pos = *end ? end + 1 : end;
	return true;
}

bool pd_text_word(const char *words, const char *text, size_t len, int64_t *out)
{
	const char *name;
	int64_t number = 0;
	size_t n;

	while (pd_text_next_word(&words, &name, &n, &number))
		if (n == len && !strncasecmp(name, text, len))
			return *out = number, true;
	return false;
}

const char *pd_text_word_of(const char *words, int64_t number, size_t *len)
{
	const char *name;
	int64_t found = 0;

	while (pd_text_next_word(&words, &name, len, &found))
		if (found == number)
			return name;
	return NULL;
}

/* The number of letters lost, added, changed or swapped between two words (optimal string
 * alignment). */
static unsigned pd_text_distance(const char *a, size_t alen, const char *b, size_t blen)
{
	unsigned rows[3][PD_TEXT_DISTANCE_MAX + 1], *before = rows[0], *last = rows[1],
						    *now = rows[2];

	alen = pd_min(alen, (size_t)PD_TEXT_DISTANCE_MAX);
	blen = pd_min(blen, (size_t)PD_TEXT_DISTANCE_MAX);
	for (size_t j = 0; j <= blen; j++)
		last[j] = (unsigned)j;
	for (size_t i = 1; i <= alen; i++) {
		unsigned *oldest = before;

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= blen; j++) {
			int x = tolower((unsigned char)a[i - 1]),
			    y = tolower((unsigned char)b[j - 1]);

			now[j] = last[j - 1] + (x != y);
			now[j] = pd_min(now[j], last[j] + 1);
			now[j] = pd_min(now[j], now[j - 1] + 1);
			if (i > 1 && j > 1 && x != y && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				now[j] = pd_min(now[j], before[j - 2] + 1);
		}
		before = last;
		last = now;
		now = oldest;
	}
	return last[blen];
}

void pd_text_nearest_begin(struct pd_text_nearest *n, const char *text, size_t len)
{
	*n = (struct pd_text_nearest){.text = text, .len = len, .best_distance = UINT32_MAX};
}

void pd_text_nearest_offer(struct pd_text_nearest *n, const char *word, size_t len)
{
	unsigned distance = pd_text_distance(n->text, n->len, word, len);

	if (distance >= n->best_distance)
		return;
	n->best = word;
	n->best_len = len;
	n->best_distance = distance;
}

const char *pd_text_nearest_end(const struct pd_text_nearest *n, size_t *len)
{
	size_t shorter = pd_min(n->len, n->best_len);

	/* A third of the letters wrong is a slip; more is another word. */
	if (!n->best || n->best_distance > pd_max(shorter / 3, (size_t)1))
		return NULL;
	*len = n->best_len;
	return n->best;
}
