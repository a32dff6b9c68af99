/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every fuzzer shares: chance, what must hold, and the program (main.c).
 *
 *     PROGRAM [FIRST [COUNT [race]]]   TAP; the corpus, then COUNT seeds of each kind from FIRST on
 *     PROGRAM FILE...                  inputs: of the corpus, or what the guided fuzzer found
 *
 * A fuzzer defines fuzz_target; what it fuzzes has one kind or several. What a run does is drawn
 * with rnd(), from a seed or from an input: its first byte says which kind, its others what is
 * drawn until they are used up; a seed made of them goes on. The corpus
 * ($srcdir/tests/fuzz/corpus/NAME) holds inputs that together reach what a long guided run has
 * reached. Built with PD_FUZZ_GUIDED and -fsanitize=fuzzer (local.mk) the same is libFuzzer's
 * target instead. What failed is repeated by its seed or file: the last line on standard error
 * names it.
 */
#ifndef PD_TESTS_FUZZ_H
#define PD_TESTS_FUZZ_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"

#define BIT(n) (1ull << (n))

struct fuzz_target {
	const char *name; /* of its folder of the corpus */
	const char *const *kinds;
	unsigned n_kinds;
	const char *good;           /* what is said of runs that were */
	unsigned long seeds;        /* of each kind, by default */
	void (*prepare)(void);      /* once; or NULL */
	bool (*run)(unsigned kind); /* returns whether it was a good one */
	/* More about a kind when all is over, on the same line; or NULL. */
	void (*summary)(unsigned kind);
};
#define FUZZ_KINDS_MAX 8
#define FUZZ_KINDS(array) .kinds = (array), .n_kinds = PD_ARRAY_SIZE(array)

/* The fuzzer's own. */
extern const struct fuzz_target fuzz_target;

/* A random number below `below`, which is not 0; from the input as long as there is some. */
uint32_t rnd(uint32_t below);

static inline bool one_in(uint32_t n)
{
	return !rnd(n);
}

static inline uint64_t rnd64(void)
{
	uint64_t high = rnd(UINT32_MAX);

	return high << 32 | rnd(UINT32_MAX);
}

/* Something is to go wrong: one in `n` times, or less often where this run is calm. */
bool rarely(uint32_t n);
/* How calm it is. */
void any_calm(void);

/*
 * A text of less than `room` bytes to `to`, with a NUL behind that is not counted. An input's bytes
 * stand for themselves below 128, and for one of `words` above. Returns its length.
 */
size_t any_text(char *to, size_t room, const char *const *words, unsigned n_words);

/* Read all of it, so that a place that is not there ends the program. */
void fuzz_read(const uint8_t *p, size_t len);

/* What is drawn by nobody else: for a thread of its own, and the same for the same run. Never 0. */
uint64_t fuzz_chance(void);

/* `race` was asked for. */
extern bool fuzz_racing;

/* An invariant of ours: name the run, and end. */
#define MUST(what)                                              \
	do {                                                    \
		if (!(what))                                    \
			fuzz_not_so(#what, __FILE__, __LINE__); \
	} while (0)
void fuzz_not_so(const char *what, const char *file, int line) __attribute__((noreturn));

#endif /* PD_TESTS_FUZZ_H */
