/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words and numbers as people write them: what the variables and the file both read. Texts come as
 * pointer and length, without a terminating NUL.
 */
#ifndef PD_CONFIG_TEXT_H
#define PD_CONFIG_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True when the text is `word`, whatever the case of its letters. */
bool pd_text_is(const char *text, size_t len, const char *word);

/*
 * Read a whole number: an optional sign, decimal or 0x hexadecimal, nothing behind. Returns 0,
 * -EINVAL when it is none, -ERANGE when it does not fit; *out is set on success only.
 */
int pd_text_number(const char *text, size_t len, int64_t *out);

/* The same with one of the binary factors k, M, G behind (of any case, with or without "iB" or
 * "B"). */
int pd_text_size(const char *text, size_t len, int64_t *out);

/*
 * The same for a time in `unit` ("ns", "us", "ms", "s"), which the text may give in another of them
 * ("2ms"). -EINVAL also when it is not a whole number of units.
 */
int pd_text_duration(const char *text, size_t len, const char *unit, int64_t *out);

/* True when the text says yes (*out true) or no: 1 0, yes no, on off, true false, enable(d)
 * disable(d). */
bool pd_text_bool(const char *text, size_t len, bool *out);

/* Find a word in "name=number|name=number"; returns false when it is not there. */
bool pd_text_word(const char *words, const char *text, size_t len, int64_t *out);

/* The first name of `number` in such a list (its length to *len), or NULL. */
const char *pd_text_word_of(const char *words, int64_t number, size_t *len);

/*
 * The search for the word that was probably meant: offer all that would be right, then ask for the
 * best. Letters lost, added, changed and swapped count one each; case does not count.
 */
struct pd_text_nearest {
	const char *text;
	size_t len;
	const char *best;
	size_t best_len;
	unsigned best_distance;
};

void pd_text_nearest_begin(struct pd_text_nearest *n, const char *text, size_t len);
void pd_text_nearest_offer(struct pd_text_nearest *n, const char *word, size_t len);

/* The best word (its length to *len), or NULL when none is near enough to be what was meant. */
const char *pd_text_nearest_end(const struct pd_text_nearest *n, size_t *len);

#endif /* PD_CONFIG_TEXT_H */
