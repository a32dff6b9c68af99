/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this machine can do at best between two cores, for figures of the same run to be held
 * against.
 *
 *   bounds line CORE CORE N      one cache line goes to the other core and back, N times: no message can be faster
 *   bounds eventfd CORE CORE N   a sleeper in read of an eventfd is woken N times, once it is surely asleep
 *
 * Two processes, as the ends of a ring are. One line of JSON with percentiles on standard output.
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

struct shared {
	_Alignas(128) _Atomic uint64_t word;
	_Alignas(128) _Atomic uint64_t sent_ns;
};

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

int main(int argc, char **argv)
{
	int line, fd, status;
	unsigned n;
	double *us;
	pid_t pid;

	if (argc != 5 || (strcmp(argv[1], "line") && strcmp(argv[1], "eventfd"))) {
		fprintf(stderr, "usage: bounds line|eventfd CORE CORE N\n");
		return 2;
	}
	line = argv[1][0] == 'l';
	n = (unsigned)strtoul(argv[4], NULL, 0);
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
		if (line)
			line_second(n);
		else
			eventfd_second(fd, n);
		_exit(0);
	}
	pin(atoi(argv[2]));
	if (line)
		line_first(us, n);
	else
		eventfd_first(fd, us, n);
	waitpid(pid, &status, 0);
	report(argv[1], us, n);
	return 0;
}
