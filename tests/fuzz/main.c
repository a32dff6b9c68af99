/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program of every fuzzer: seeds, files, or guided by coverage (fuzz.h).
 */
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include "fuzz.h"

#ifdef __clang__
#	define UNGUIDED __attribute__((no_sanitize("coverage")))
#else
#	define UNGUIDED
#endif

static unsigned kind;
static unsigned long runs[FUZZ_KINDS_MAX], good[FUZZ_KINDS_MAX];
static char run_name[256];
static uint64_t chance;
static const uint8_t *input;
static size_t input_left;

bool fuzz_racing;

/* --- chance ---------------------------------------------------------------------------------- */

/* Nothing of the library's, and called so often that how often says nothing. */
UNGUIDED uint32_t rnd(uint32_t below)
{
	unsigned bytes = below <= 256 ? 1 : below <= 65536 ? 2 : 4;
	uint32_t value = 0;

	if (input_left >= bytes) {
		memcpy(&value, input, bytes);
		input += bytes;
		input_left -= bytes;
		return value % below;
	}
	input_left = 0;
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return (uint32_t)(((chance >> 32) * below) >> 32);
}

void fuzz_read(const uint8_t *p, size_t len)
{
	uint8_t to[4096];

	for (size_t n; len; p += n, len -= n) {
		n = len < sizeof(to) ? len : sizeof(to);
		memcpy(to, p, n);
		__asm__ volatile("" : : "r"(to) : "memory"); /* so that it is read */
	}
}

static uint32_t calm = 1;

void any_calm(void)
{
	calm = (uint32_t[]){1, 16, 256}[rnd(3)];
}

UNGUIDED bool rarely(uint32_t n)
{
	return one_in(n * calm);
}

uint64_t fuzz_chance(void)
{
	return chance | 1;
}

size_t any_text(char *to, size_t room, const char *const *words, unsigned n_words)
{
	/* Of an input all there is; of a seed up to 64 pieces, words mostly. */
	size_t pieces = input_left ? input_left : 1 + rnd(64), n = 0;
	bool of_input = input_left;

	for (size_t i = 0; i < pieces && (!of_input || input_left); i++) {
		uint32_t c = of_input || one_in(8) ? rnd(256) : 128 + rnd(128);
		const char *word = (const char[]){(char)c, 0};
		size_t len = 1;

		if (c >= 128) {
			word = words[(c - 128) % n_words];
			len = strlen(word);
		}
		if (len >= room - n)
			break;
		memcpy(to + n, word, len);
		n += len;
	}
	to[n] = 0;
	return n;
}

/*
 * --- what is done when an invariant is broken --------------------------------------------------
 */

void fuzz_not_so(const char *what, const char *file, int line)
{
	fprintf(stderr, "# %s, %s: not so: %s (%s:%d)\n", run_name, fuzz_target.kinds[kind], what,
		file, line);
	abort();
}

/*
 * --- one run -----------------------------------------------------------------------------------
 */

static void run_one(unsigned of_kind, uint64_t seed)
{
	kind = of_kind;
	chance = (seed + 1) * 0x9e3779b97f4a7c15;
	chance += !chance;
	calm = 1;
	MUST(kind < FUZZ_KINDS_MAX);
	runs[kind]++;
	good[kind] += fuzz_target.run(kind);
}

static void run_input(const uint8_t *data, size_t size)
{
	uint64_t sum = size;

	if (!size)
		return;
	for (size_t i = 0; i < size; i++)
		sum = sum * 31 + data[i];
	input = data + 1;
	input_left = size - 1;
	run_one(data[0] % fuzz_target.n_kinds, sum);
	input_left = 0;
}

/* What came of each kind. */
static void summary(void)
{
	for (unsigned k = 0; k < fuzz_target.n_kinds; k++) {
		printf("# %s: %lu of %lu runs %s", fuzz_target.kinds[k], good[k], runs[k],
		       fuzz_target.good);
		if (fuzz_target.summary)
			fuzz_target.summary(k);
		printf("\n");
	}
}

#ifdef PD_FUZZ_GUIDED

/*
 * AddressSanitizer keeps 256 MiB of freed memory from use, and all new memory must be made: runs
 * are short, so the last few hundred of them do.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=16";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool prepared;

	if (!prepared) {
		atexit(summary);
		if (fuzz_target.prepare)
			fuzz_target.prepare();
	}
	prepared = true;
	run_input(data, size);
	return 0;
}

#else

/*
 * --- seeds and files ---------------------------------------------------------------------------
 */

/* Name the run, whatever ends the program. Async-signal-safe. */
static void tell_run(int sig)
{
	char line[400];
	int n = snprintf(line, sizeof(line), "# died of signal %d: %s, %s\n", sig, run_name,
			 fuzz_target.kinds[kind]);

	if (write(2, line, (size_t)n) < 0)
		_exit(3);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void run_file(const char *path)
{
	static uint8_t data[65536];
	FILE *f = fopen(path, "rb");
	size_t size;

	MUST(f);
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	snprintf(run_name, sizeof(run_name), "file %s", path);
	alarm(60); /* a call that does not end */
	run_input(data, size);
}

/* Every input of the corpus; returns how many. */
static unsigned run_corpus(void)
{
	const char *top = getenv("srcdir");
	char folder[4096], path[4400];
	struct dirent **all;
	int n_all, n = 0;

	snprintf(folder, sizeof(folder), "%s/tests/fuzz/corpus/%s", top ? top : "..",
		 fuzz_target.name);
	n_all = scandir(folder, &all, NULL, alphasort);
	for (int i = 0; i < n_all; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, all[i]->d_name);
		if (all[i]->d_name[0] != '.')
			run_file(path), n++;
		free(all[i]);
	}
	MUST(n > 0);
	free(all);
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	bool files = argc > 1 && (argv[1][0] < '0' || argv[1][0] > '9');
	unsigned long first = argc > 1 && !files ? strtoul(argv[1], NULL, 0) : 0;
	unsigned long count = files ? 0 : argc > 2 ? strtoul(argv[2], NULL, 0) : fuzz_target.seeds;

	if (fuzz_target.prepare)
		fuzz_target.prepare();
	fuzz_racing = !files && argc > 3;
	for (int i = 0; i < 5; i++)
		signal((int[]){SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGALRM}[i], tell_run);
	for (int i = 1; files && i < argc; i++)
		run_file(argv[i]);
	printf("1..2\nok 1 - %u inputs of the corpus\n", files ? 0 : run_corpus());
	for (unsigned long seed = first; seed < first + count; seed++) {
		snprintf(run_name, sizeof(run_name), "seed %lu", seed);
		if (!(seed & 63))
			alarm(60);
		for (unsigned k = 0; k < fuzz_target.n_kinds; k++)
			run_one(k, seed);
	}
	printf("ok 2 - %lu seeds from %lu on, of each kind\n", count, first);
	summary();
	return 0;
}

#endif
