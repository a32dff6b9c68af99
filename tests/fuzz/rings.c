/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings with contents that a random peer made: both formats, both roles.
 *
 *     rings [FIRST [COUNT [race]]]     TAP; the corpus, then seeds: by default 0 to 1999
 *     rings FILE...                    inputs: of the corpus, or what the guided fuzzer found
 *
 * A run is one ring, with a peer that writes to it between calls of the data path (device.c, driver.c).
 * Shared memory stands between unmapped pages, so that a step outside ends the program, and every
 * frame that is shown is read to its last byte and must stand in that memory. With `race` a second
 * thread writes to the shared memory during the calls. What failed is repeated by its seed or file:
 * the last line on standard error names it.
 *
 * What the peer does is drawn from a seed, or from an input: its first byte says which of the four
 * kinds of ring, its others what is drawn until they are used up; a seed made of them goes on. The corpus
 * ($srcdir/tests/fuzz/corpus) holds inputs that together reach what a long guided run has reached. Built
 * with -fsanitize=fuzzer (tests/fuzz/local.mk) this is libFuzzer's target instead.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

static struct pd_buffer *bufs[2 * FUZZ_HEADERS];
const struct pd_vq_headers fuzz_headers = {bufs, FUZZ_HEADERS};
static uint8_t frame_bytes[2 * PD_FRAME_MAX_BYTES];

/* --- chance, and what is done when an invariant is broken ------------------------------------ */

static const char *const kind_names[] = {"split device", "packed device", "split driver",
					 "packed driver"};
#define KINDS PD_ARRAY_SIZE(kind_names)

static unsigned kind;
static struct {
	unsigned long rings, broken, received, sent;
} tallies[KINDS];
static char run_name[256];
static uint64_t chance;
static const uint8_t *input;
static size_t input_left;

uint32_t rnd(uint32_t below)
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

static uint32_t calm = 1;

void any_calm(void)
{
	calm = (uint32_t[]){1, 16, 256}[rnd(3)];
}

bool rarely(uint32_t n)
{
	return one_in(n * calm);
}

void fuzz_not_so(const char *what, const char *file, int line)
{
	fprintf(stderr, "# %s, %s: not so: %s (%s:%d)\n", run_name, kind_names[kind], what, file,
		line);
	abort();
}

/* Name the run, whatever ends the program. Async-signal-safe. */
static void tell_run(int sig)
{
	char line[400];
	int n = snprintf(line, sizeof(line), "# died of signal %d: %s, %s\n", sig, run_name,
			 kind_names[kind]);

	if (write(2, line, (size_t)n) < 0)
		_exit(3);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* --- shared memory --------------------------------------------------------------------------- */

void shared_map(struct shared *s, size_t bytes)
{
	uint8_t *p;

	s->bytes = (bytes + 4095) & ~(size_t)4095;
	p = mmap(NULL, s->bytes + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	MUST(p != MAP_FAILED && !mprotect(p + 4096, s->bytes, PROT_READ | PROT_WRITE));
	s->p = p + 4096;
}

void shared_unmap(struct shared *s)
{
	munmap(s->p - 4096, s->bytes + 8192);
}

static bool stands_in(const struct shared *s, unsigned n, const uint8_t *p, size_t len)
{
	for (unsigned i = 0; i < n; i++)
		if (p >= s[i].p && len <= s[i].bytes && p <= s[i].p + s[i].bytes - len)
			return true;
	return false;
}

void read_frames(struct pd_buffer **shown, int n, const struct shared *s, unsigned n_shared,
		 const struct pd_vq *vq)
{
	const struct shared bounce = {vq->bounce, vq->frame_max};
	static volatile uint8_t sink;

	for (int i = 0; i < n; i++) {
		const struct pd_buffer *b = shown[i];
		uint32_t total = 0;

		MUST(b->total_len <= vq->frame_max);
		for (;;) {
			MUST(!b->len || stands_in(s, n_shared, b->data, b->len) ||
			     (vq->bounce && stands_in(&bounce, 1, b->data, b->len)));
			for (uint32_t at = 0; at < b->len; at++)
				sink ^= b->data[at];
			total += b->len;
			if (b->next == PD_BUFFER_NONE)
				break;
			b = pd_buffer_get(b->next);
		}
		MUST(total == shown[i]->total_len);
	}
}

unsigned make_frames(struct pd_buffer **out)
{
	unsigned n = 1 + rnd(one_in(4) ? 100 : 8), used = FUZZ_HEADERS;

	for (unsigned i = 0; i < n; i++) {
		uint32_t len = one_in(8) ? rnd(3) : one_in(20) ? 12235 + rnd(10) : 14 + rnd(1600);
		unsigned pieces = 1 + (one_in(4) ? rnd(3) : 0);
		struct pd_buffer *first = bufs[used];

		len = one_in(10) ? rnd(PD_FRAME_MAX_BYTES) : len;
		out[i] = first;
		for (unsigned p = 0, at = 0; p < pieces; p++) {
			struct pd_buffer *b = bufs[used++];

			b->len = p + 1 == pieces ? len - at : rnd(len - at + 1);
			b->data = frame_bytes + at;
			b->flags = PD_BUFFER_EXTERNAL;
			b->next = p + 1 == pieces ? PD_BUFFER_NONE : bufs[used]->index;
			at += b->len;
		}
		first->total_len = len;
		if (one_in(2))
			first->flags |= PD_BUFFER_SIDECAR;
	}
	return n;
}

void tally(bool receive, const struct pd_vq *vq)
{
	*(receive ? &tallies[kind].received : &tallies[kind].sent) += vq->counts.frames;
	tallies[kind].broken += !!vq->broken;
}

/* --- a peer that never stops ----------------------------------------------------------------- */

static struct {
	pthread_t thread;
	struct shared s;
	bool on;
	uint32_t end;
	uint64_t chance;
} racer;

static void *race(void *arg)
{
	uint64_t x = racer.chance;

	(void)arg;
	while (!pd_load_relaxed(&racer.end)) {
		uint64_t *at;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		at = (uint64_t *)(void *)(racer.s.p + (x >> 20) % (racer.s.bytes / 8) * 8);
		/* A few bits of a word: low ones, and those that are flags in either format. */
		pd_store_relaxed(at, pd_load_relaxed(at) ^ (x & 0x8083000000000fff));
	}
	return NULL;
}

bool race_start(const struct shared *s)
{
	if (!racer.on)
		return false;
	racer.s = *s;
	racer.end = 0;
	racer.chance = chance | 1;
	MUST(!pthread_create(&racer.thread, NULL, race, NULL));
	return true;
}

void race_stop(void)
{
	if (!racer.on)
		return;
	pd_store_relaxed(&racer.end, 1);
	pthread_join(racer.thread, NULL);
}

/* --- the program ----------------------------------------------------------------------------- */

/* One ring of a kind. */
static void run_one(unsigned of_kind, uint64_t seed)
{
	kind = of_kind;
	chance = (seed + 1) * 0x9e3779b97f4a7c15;
	chance += !chance;
	tallies[kind].rings++;
	alarm(60); /* a call that does not end */
	if (kind < 2)
		fuzz_device(kind & 1);
	else
		fuzz_driver(kind & 1);
}

/* What all runs use: once. */
static void prepare(void)
{
	static uint32_t index[2 * FUZZ_HEADERS];
	struct pd_buffer_pool *pool;
	int err;

	pool = pd_buffer_pool_create("fuzz", 2 * FUZZ_HEADERS, 0, &err);
	MUST(pool && pd_buffer_alloc(pool, index, 2 * FUZZ_HEADERS) == 2 * FUZZ_HEADERS);
	for (unsigned i = 0; i < 2 * FUZZ_HEADERS; i++)
		bufs[i] = pd_buffer_get(index[i]);
}

/* One input. */
static void run_input(const uint8_t *data, size_t size)
{
	uint64_t sum = size;

	if (!size)
		return;
	for (size_t i = 0; i < size; i++)
		sum = sum * 31 + data[i];
	input = data + 1;
	input_left = size - 1;
	run_one(data[0] % KINDS, sum);
	input_left = 0;
}

#ifdef PD_FUZZ_GUIDED

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!bufs[0])
		prepare();
	run_input(data, size);
	return 0;
}

#else

static void run_file(const char *path)
{
	static uint8_t data[65536];
	FILE *f = fopen(path, "rb");
	size_t size;

	MUST(f);
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	snprintf(run_name, sizeof(run_name), "file %s", path);
	run_input(data, size);
}

/* Every input of the corpus; returns how many. */
static unsigned run_corpus(void)
{
	const char *top = getenv("srcdir");
	char path[4096];
	struct dirent *e;
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus", top ? top : "..");
	dir = opendir(path);
	MUST(dir);
	while ((e = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", top ? top : "..",
			 e->d_name);
		if (e->d_name[0] != '.')
			run_file(path), n++;
	}
	closedir(dir);
	MUST(n);
	return n;
}

int main(int argc, char **argv)
{
	bool files = argc > 1 && (argv[1][0] < '0' || argv[1][0] > '9');
	unsigned long first = argc > 1 && !files ? strtoul(argv[1], NULL, 0) : 0;
	unsigned long count = argc > 2 && !files ? strtoul(argv[2], NULL, 0) : files ? 0 : 2000;

	prepare();
	racer.on = !files && argc > 3;
	for (int i = 0; i < 5; i++)
		signal((int[]){SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGALRM}[i], tell_run);
	for (int i = 1; files && i < argc; i++)
		run_file(argv[i]);
	printf("1..2\nok 1 - %u inputs of the corpus\n", files ? 0 : run_corpus());
	for (unsigned long seed = first; seed < first + count; seed++) {
		snprintf(run_name, sizeof(run_name), "seed %lu", seed);
		for (unsigned k = 0; k < KINDS; k++)
			run_one(k, seed);
	}
	printf("ok 2 - seeds %lu to %lu, both formats in both roles\n", first, first + count - 1);
	for (unsigned k = 0; k < KINDS; k++)
		printf("# %s: %lu frames received, %lu sent, %lu of %lu rings broken\n",
		       kind_names[k], tallies[k].received, tallies[k].sent, tallies[k].broken,
		       tallies[k].rings);
	return 0;
}

#endif
