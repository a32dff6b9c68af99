/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this machine can do at best between two cores, for figures of the same run to be held
 * against.
 *
 *   bounds line CORE CORE N      one cache line goes to the other core and back, N times: no message can be faster
 *   bounds eventfd CORE CORE N   a sleeper in read of an eventfd is woken N times, once it is surely asleep
 *   bounds bytes CORE CORE N SIZE BATCH
 *                                N frames of SIZE bytes go from the second core to the first, copied into one of 256 buffers
 *                                and out of it, BATCH at a time: no ring whose ends copy can carry more
 *
 * Two processes, as the ends of a ring are. One line of JSON on standard output: percentiles, or
 * millions of frames a second.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Bounces that are timed together: reading the clock costs as much as some of them. */
#define BOUNCES 64
/* Between two wake-ups, long enough for the sleeper to be asleep. */
#define PAUSE_US 2000

/* As the rings' ends that are measured have them. */
#define BUFFERS 256
#define BUFFER_BYTES 2048

struct shared {
	_Alignas(128) _Atomic uint64_t word;
	_Alignas(128) _Atomic uint64_t sent_ns;
	/* Frames so far. */
	_Alignas(128) _Atomic uint64_t sent;
	_Alignas(128) _Atomic uint64_t taken;
	/* An odd number of lines apart, so that they do not fall upon each other in the cache. */
	_Alignas(128) uint8_t buffer[BUFFERS][BUFFER_BYTES + 64];
};

/* What is copied, and by how many. */
struct load {
	uint64_t frames;
	size_t size;
	unsigned batch;
};
static uint8_t mine[BUFFERS][BUFFER_BYTES];

static struct shared *shared;

static void die(const char *what)
{
	fprintf(stderr, "bounds: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Print percentiles of `n` times in us. */
static void report(const char *mode, double *us, unsigned n)
{
	qsort(us, n, sizeof(*us), by_value);
	printf("{\"mode\":\"%s\",\"n\":%u,\"p50_us\":%.4f,\"p99_us\":%.4f}\n", mode, n, us[n / 2],
	       us[n * 99ull / 100]);
}

/* The first process writes odd numbers, the second answers each with the next even one. */
static void line_first(double *us, unsigned n)
{
	uint64_t word = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t start = now_ns();

		for (unsigned k = 0; k < BOUNCES; k++, word += 2) {
			atomic_store_explicit(&shared->word, word + 1, memory_order_release);
			while (atomic_load_explicit(&shared->word, memory_order_acquire) !=
			       word + 2)
				;
		}
		us[i] = (double)(now_ns() - start) / 1e3 / BOUNCES;
	}
}

static void line_second(unsigned n)
{
	for (uint64_t word = 0; word < 2ull * n * BOUNCES; word += 2) {
		while (atomic_load_explicit(&shared->word, memory_order_acquire) != word + 1)
			;
		atomic_store_explicit(&shared->word, word + 2, memory_order_release);
	}
}

/* The sleeper notes how old the news is. */
static void eventfd_first(int fd, double *us, unsigned n)
{
	uint64_t value;

	for (unsigned i = 0; i < n; i++) {
		if (read(fd, &value, sizeof(value)) != sizeof(value))
			die("read");
		us[i] = (double)(now_ns() - atomic_load(&shared->sent_ns)) / 1e3;
	}
}

static void eventfd_second(int fd, unsigned n)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < n; i++) {
		uint64_t until = now_ns() + PAUSE_US * 1000;

		while (now_ns() < until)
			;
		atomic_store(&shared->sent_ns, now_ns());
		if (write(fd, &one, sizeof(one)) != sizeof(one))
			die("write");
	}
}

/* Copy each batch out as soon as it is there; its last frame is in buffer `frames - 1`. */
static void bytes_first(const struct load *l)
{
	uint64_t done = 0, start = 0;

	while (done < l->frames) {
		while (atomic_load_explicit(&shared->sent, memory_order_acquire) < done + l->batch)
			;
		if (!start)
			start = now_ns();
		for (unsigned i = 0; i < l->batch; i++)
			memcpy(mine[i], shared->buffer[(done + i) % BUFFERS], l->size);
		done += l->batch;
		atomic_store_explicit(&shared->taken, done, memory_order_release);
	}
	printf("{\"mode\":\"bytes\",\"n\":%llu,\"mpps\":%.3f}\n", (unsigned long long)done,
	       (double)done * 1e3 / (double)(now_ns() - start));
}

static void bytes_second(const struct load *l)
{
	for (uint64_t done = 0; done < l->frames; done += l->batch) {
		while (done + l->batch -
			       atomic_load_explicit(&shared->taken, memory_order_acquire) >
		       BUFFERS)
			;
		for (unsigned i = 0; i < l->batch; i++)
			memcpy(shared->buffer[(done + i) % BUFFERS], mine[i], l->size);
		atomic_store_explicit(&shared->sent, done + l->batch, memory_order_release);
	}
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"line", "eventfd", "bytes"};
	struct load load = {.batch = 1};
	unsigned n, mode = 0;
	int fd, status;
	double *us;
	pid_t pid;

	while (argc > 1 && mode < 3 && strcmp(argv[1], modes[mode]))
		mode++;
	if (mode == 3 || argc != (mode == 2 ? 7 : 5)) {
		fprintf(stderr,
			"usage: bounds line|eventfd CORE CORE N | bytes CORE CORE N SIZE BATCH\n");
		return 2;
	}
	n = (unsigned)strtoul(argv[4], NULL, 0);
	if (mode == 2) {
		load.size = strtoul(argv[5], NULL, 0);
		load.batch = (unsigned)strtoul(argv[6], NULL, 0);
		load.frames = n;
		if (load.size > BUFFER_BYTES || !load.batch || load.batch > BUFFERS) {
			fprintf(stderr, "bounds: SIZE is at most %d, BATCH 1 to %d\n", BUFFER_BYTES,
				BUFFERS);
			return 2;
		}
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	us = calloc(n, sizeof(*us));
	fd = eventfd(0, EFD_SEMAPHORE); /* a busy machine may be two behind */
	if (shared == MAP_FAILED || !us || !n || fd < 0)
		die("memory");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		pin(atoi(argv[3]));
		if (mode == 0)
			line_second(n);
		else if (mode == 1)
			eventfd_second(fd, n);
		else
			bytes_second(&load);
		_exit(0);
	}
	pin(atoi(argv[2]));
	if (mode == 0)
		line_first(us, n);
	else if (mode == 1)
		eventfd_first(fd, us, n);
	else
		bytes_first(&load);
	waitpid(pid, &status, 0);
	if (mode < 2)
		report(argv[1], us, n);
	return 0;
}
